//! The verified file list: one hash in a contract pins every byte that a workload can execute.
//!
//! Read in this order: [`body`] is what an flist says, [`check`] what it may say, [`codec`] its
//! bytes. [`fetch`] brings content from a [`Source`], [`Store`] keeps it under the kernel's own
//! hashes, [`erofs`] makes the image that is mounted. With the feature `create`, `create` makes and
//! publishes flists on a host.
//!
//! Everything here blocks; an async caller uses a thread that may. Mounting is the launcher's.

#![forbid(unsafe_code)]

pub mod body;
pub mod check;
pub mod codec;
#[cfg(feature = "create")]
pub mod create;
pub mod erofs;
pub mod fetch;
#[cfg(feature = "http")]
mod pace;
pub mod progress;
pub mod source;
pub mod store;
mod store_path;
pub mod verity;
#[cfg(feature = "http")]
mod web;

pub use check::{Refusal, RefusalCode};
pub use codec::Flist;
pub use contract::FlistId;
pub use fetch::{FetchError, Reason};
pub use progress::{Cancel, Progress, Stage};
pub use source::{Files, Source, SourceError};
pub use store::{
    Depth, Fault, FaultKind, Pace, Part, Place, Root, Scrubbed, Shortage, Store, StoreError, Swept,
};
