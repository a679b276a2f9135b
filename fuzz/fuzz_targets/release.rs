#![no_main]
//! See `fuzz_targets::release`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::release(data); });
