#![no_main]
//! See `fuzz_targets::health_answer`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::health_answer(data); });
