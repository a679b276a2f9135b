#![no_main]
//! See `fuzz_targets::bundle`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::bundle(data); });
