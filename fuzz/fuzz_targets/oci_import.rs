#![no_main]
//! See `fuzz_targets::oci_import`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::oci_import(data); });
