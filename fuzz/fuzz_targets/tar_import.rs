#![no_main]
//! See `fuzz_targets::tar_import`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::tar_import(data); });
