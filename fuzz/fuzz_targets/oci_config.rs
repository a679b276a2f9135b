#![no_main]
//! See `fuzz_targets::oci_config`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::oci_config(data); });
