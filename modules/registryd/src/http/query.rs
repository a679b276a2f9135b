//! Queries over the projection.
