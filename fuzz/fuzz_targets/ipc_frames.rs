#![no_main]
//! See `fuzz_targets::ipc_frames`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_targets::ipc_frames(data); });
