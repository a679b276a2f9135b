//! A witness of transparency logs: it cosigns the newest checkpoint of each log that it is told to
//! watch, as long as the log only grows (c2sp.org/tlog-witness).
//!
//! It keeps one checkpoint for each log, on the disk before it signs, so it never signs two that
//! contradict each other, whenever the power is cut. It reads no entries and believes no log: what
//! does not follow from the checkpoint before is refused, and kept as evidence.

#![forbid(unsafe_code)]

pub mod config;
pub mod http;
pub mod key;
pub mod server;
pub mod store;
pub mod witness;

use std::io::Write as _;

/// One line on standard error.
pub fn log(line: &str) {
    // Nobody can be told that nobody can be told.
    drop(writeln!(std::io::stderr(), "witnessd: {line}"));
}
