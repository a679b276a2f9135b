#![no_main]
//! See `fuzz_targets::log_policy`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::log_policy(data); });
