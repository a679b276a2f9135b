#![no_main]
//! See `fuzz_targets::flist_body`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::flist_body(data); });
