//! The commented contract that `3bot contract init` writes.

/// A contract in TOML that says everything that can be said; optional parts are comments.
pub const TEMPLATE: &str = include_str!("template.toml");
