#![no_main]
//! See `fuzz_targets::uevent`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::uevent(data); });
