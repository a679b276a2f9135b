//! The registry: stores, orders and serves signed statements, over HTTP and from SQLite or PostgreSQL.
//!
//! It can at worst be slow or silent: nodes and readers judge what they get by themselves. It
//! refuses what nobody signed who must, and it never executes, decides or forgets.

#![forbid(unsafe_code)]

pub mod admit;
pub mod bundle;
pub mod changes;
pub mod content;
pub mod db;
pub mod difference;
pub mod documents;
pub mod http;
pub mod overview;
pub mod pace;
pub mod peers;
pub mod project;
pub mod proposal;
pub mod quota;
pub mod results;
pub mod server;
pub mod sql;
pub mod standing;
pub mod store;
pub mod transparency;
pub mod views;

use db::Fault;
use registry_api::Problem;
use std::io::Write as _;

/// A problem that is the caller's, as a fault.
pub fn refusal(status: u16, code: &str, detail: impl Into<String>, hint: &str) -> Fault {
    let title = axum::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error");
    let problem = Problem { hint: hint.into(), ..Problem::new(status, title, code, detail) };
    problem.into()
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One line on standard error.
pub fn log(line: &str) {
    // Nobody can be told that nobody can be told.
    drop(writeln!(std::io::stderr(), "registryd: {line}"));
}
