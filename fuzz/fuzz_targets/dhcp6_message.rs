#![no_main]
//! See `fuzz_targets::dhcp6_message`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::dhcp6_message(data); });
