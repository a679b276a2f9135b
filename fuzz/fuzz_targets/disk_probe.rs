#![no_main]
//! See `fuzz_targets::disk_probe`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::disk_probe(data); });
