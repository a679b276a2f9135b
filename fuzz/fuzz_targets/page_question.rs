#![no_main]
//! See `fuzz_targets::page_question`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::page_question(data); });
