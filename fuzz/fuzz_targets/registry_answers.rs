#![no_main]
//! See `fuzz_targets::registry_answers`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::registry_answers(data); });
