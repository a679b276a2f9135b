//! The only crate with `unsafe`: system calls that neither nix nor rustix offers.
//!
//! One module for each family of calls. Each opts out of the workspace's `unsafe_code = "deny"` on
//! its own, so that a new module has to say so.

pub mod bpf;
pub mod btrfs;
pub mod clone;
pub mod keyring;
pub mod mapping;
pub mod mount;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod verity;
