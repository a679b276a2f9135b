//! Real machines for tests and the demo: QEMU with the real image, a real registry, the real CLI.
//!
//! Everything stays on this machine: guests have user-mode networking with `restrict=on`, where
//! they reach the registry at [`machine::REGISTRY_URL`] through [`relay`](../relay/index.html) and
//! are reached through forwards from the loopback address. Children end with the value that
//! started them. Waiting is for a line or a state, with a deadline; nothing sleeps and hopes.

#![forbid(unsafe_code)]

mod archive;
pub mod bench;
pub mod chance;
pub mod content;
pub mod docs;
pub mod farm;
pub mod hostile;
mod house;
pub mod kills;
pub mod listener;
pub mod machine;
pub mod media;
pub mod raw_disk;
pub mod saboteur;
pub mod serial;
pub mod story;
pub mod suite;
pub mod tamper;
pub mod time_server;
pub mod trial;
mod volatile_disk;
pub mod wait;
mod wire;

/// The directory of this crate in the checkout that cargo runs the program for; in the one that it
/// was built from when it is run by hand. A program is not built again because a checkout was moved.
fn own_directory() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into()).into()
}

/// A directory for the files of one test. With `ZOS_KEEP` in the environment it stays, so that the
/// consoles of a failed run can be read.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    let keep = std::env::var_os("ZOS_KEEP").is_some();
    tempfile::Builder::new().prefix("zos-").disable_cleanup(keep).tempdir()
}
