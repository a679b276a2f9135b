//! What storaged understands of disks and of the kernel's messages, and what follows from it.
//!
//! A library of its own so that others can try these parsers; the daemon is `main.rs`.

#![forbid(unsafe_code)]

pub mod disk;

pub mod claim;
pub mod decide;
pub mod probe;
pub mod signature;
pub mod uuid;

pub mod uevent;
