#![no_main]
//! See `fuzz_targets::statement`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::statement(data); });
