#![no_main]
//! See `fuzz_targets::bucket_listing`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::bucket_listing(data); });
