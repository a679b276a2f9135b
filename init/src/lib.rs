//! What init understands of the kernel's files and messages about devices.
//!
//! A library of its own so that others can try these parsers; PID 1 is `main.rs`.

#![forbid(unsafe_code)]

/// News of devices, and which modules they need.
pub mod devices {
    pub mod database;
    pub mod uevent;
}
