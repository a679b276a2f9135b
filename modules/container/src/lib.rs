//! Containers: from the words of a contract to a process that can execute only its flist.
//!
//! [`plan`], [`ids`], [`health`] and [`restart`] are pure and belong to contractd: they decide what a
//! container is, whether it works and when it starts again. [`launch`] is the launcher's: it builds
//! the root, the namespaces and the limits of one process, hands it to init and forgets it. [`check`]
//! stands between them, because the launcher believes nobody. [`usage`] reads what the kernel counts
//! for a container.
//!
//! [`oci`] is another face of the same launcher, for engines that speak the OCI runtime specification.
//!
//! Of the node's containers, refuses to run anything but files whose digest hangs off the measured
//! metadata image: the root is read-only and verified by the kernel, and nothing in a writable mount
//! can be executed.

#![forbid(unsafe_code)]

#[cfg(test)]
mod bpf_tests;
pub mod check;
pub mod health;
pub mod ids;
pub mod launch;
pub mod oci;
pub mod plan;
pub mod reason;
pub mod restart;
pub mod usage;
