#![no_main]
//! See `fuzz_targets::docker_import`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::docker_import(data); });
