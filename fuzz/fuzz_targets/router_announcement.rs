#![no_main]
//! See `fuzz_targets::router_announcement`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::router_announcement(data); });
