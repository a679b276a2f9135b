//! Every call between the daemons of a node, on one page each, and its boot configuration.
//!
//! Calls at run time go one way: `contractd` calls `netd`, `storaged`, the launcher and `init`;
//! those call nobody (the launcher alone hands each new process to `init`, its parent). A method
//! is named `io.zeroos.<daemon>.<Method>`; parameters and reply are the types of the module.

#![forbid(unsafe_code)]

pub mod boot;
pub mod init;
pub mod launcher;
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
