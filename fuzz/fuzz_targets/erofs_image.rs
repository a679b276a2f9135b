#![no_main]
//! See `fuzz_targets::erofs_image`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::erofs_image(data); });
