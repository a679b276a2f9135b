#![no_main]
//! See `fuzz_targets::verdict`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::verdict(data); });
