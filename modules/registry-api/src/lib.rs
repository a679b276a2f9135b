//! The HTTP protocol of the registry, and its client.
//!
//! Statements prove themselves: nothing here is believed because of who delivered it. The registry
//! stores, orders and serves; a reader judges bundles by `contract::verdict`. Answers may gain
//! fields, so readers skip what they do not know; only envelopes and bundles are strict.

#![forbid(unsafe_code)]

pub mod paths;
pub mod problem;
pub mod shown;
pub mod view;
pub mod write;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod log;

#[cfg(feature = "client")]
pub use client::{Client, ClientError, Fetched};
pub use problem::Problem;
