//! Builds the boot image and its media, and runs the project's own tasks.
//!
//! Owns everything between a checkout and a file that a machine boots. It refuses to use anything
//! of the developer's machine inside the image: each byte comes from the checkout, from a crate of
//! the lock file, or from an authenticated Debian package that `image.lock` names.

#![forbid(unsafe_code)]

pub mod recipe;

mod apt;
mod lock;
pub mod packages;

mod binaries;
mod elf;
mod foreign;
mod modules;
mod vmlinux;

mod cpio;
mod initramfs;

mod media;
mod pe;
mod sbom;

pub mod image;
mod prepare;
pub mod sizes;

pub mod check;
pub mod machines;

mod cache;
pub mod process;
pub mod progress;
