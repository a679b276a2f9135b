#![no_main]
//! See `fuzz_targets::redis_answer`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::redis_answer(data); });
