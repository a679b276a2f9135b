//! Every call between the daemons of a node, on one page each, and its boot configuration.
//!
//! Calls at run time go one way: `contractd` calls `netd`, `storaged`, the launcher, `logd` and `init`;
//! those call nobody (but the launcher hands each new process to `init`, its parent, and `logd` reads
//! lines of `init` and takes sockets of `netd`). A method
//! is named `io.zeroos.<daemon>.<Method>`; parameters and reply are the types of the module.

#![forbid(unsafe_code)]

pub mod boot;
pub mod init;
pub mod launcher;
pub mod logd;
pub mod netd;
pub mod paths;
pub mod storaged;

pub use ipc::Method;

/// Ties a parameter type to its wire name and reply.
macro_rules! method {
    ($params:ty, $name:literal, $reply:ty) => {
        impl crate::Method for $params {
            const NAME: &'static str = $name;
            type Reply = $reply;
        }
    };
}
pub(crate) use method;
