#![no_main]
//! See `fuzz_targets::dhcp6_client`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::dhcp6_client(data); });
