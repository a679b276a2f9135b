#![no_main]
//! See `fuzz_targets::envelope`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::envelope(data); });
