#![no_main]
//! See `fuzz_targets::strict_json`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::strict_json(data); });
