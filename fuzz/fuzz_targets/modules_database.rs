#![no_main]
//! See `fuzz_targets::modules_database`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::modules_database(data); });
