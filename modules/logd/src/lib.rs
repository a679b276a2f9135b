//! Keeps what containers say on disk, and sends it, and what they use, where their contracts want it. Shows
//! what the node and its containers use to those whom the farmer names.
//!
//! Owns `/state/logs`, and no kernel object. Reads lines of init by their numbers, so that nobody
//! who writes one waits for it, and takes sockets of netd that stand in the container's network, so
//! that a sink is never more than what the container itself reaches. Refuses to wait: each sink
//! follows the lines on disk at its own pace, and what is gone when it comes is said.

#![forbid(unsafe_code)]

pub mod book;
pub mod collect;
mod connection;
pub mod message;
pub mod page;
pub mod position;
pub mod reach;
pub mod record;
pub mod redis;
pub mod sample;
pub mod send;
pub mod serve;
pub mod stats;
pub mod sync;
