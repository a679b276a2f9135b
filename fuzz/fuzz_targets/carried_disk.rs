#![no_main]
//! See `fuzz_targets::carried_disk`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::carried_disk(data); });
