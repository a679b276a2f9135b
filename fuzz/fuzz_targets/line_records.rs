#![no_main]
//! See `fuzz_targets::line_records`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::line_records(data); });
