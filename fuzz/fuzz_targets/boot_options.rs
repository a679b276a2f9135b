#![no_main]
//! See `fuzz_targets::boot_options`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::boot_options(data); });
