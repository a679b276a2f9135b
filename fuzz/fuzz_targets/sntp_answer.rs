#![no_main]
//! See `fuzz_targets::sntp_answer`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::sntp_answer(data); });
