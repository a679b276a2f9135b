#![no_main]
//! See `fuzz_targets::evidence`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::evidence(data); });
