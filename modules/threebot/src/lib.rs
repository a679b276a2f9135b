//! The SDK of customers, stakeholders and farmers; the `3bot` command line is a thin shell over it.

#![forbid(unsafe_code)]

pub mod content;
pub mod diff;
pub mod documents;
pub mod error;
pub mod farmer;
pub mod grid;
pub mod people;
pub mod plan;
pub mod source;
pub mod text;
