#![no_main]
//! See `fuzz_targets::earlier_import`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::earlier_import(data); });
