//! What a child becomes, as data: a request of the node and a bundle of the OCI both end up here.
//!
//! Everything is opened and allocated before the child exists.

use super::{devices::Covers, status::Step};
use rustix::{
    fs::Gid,
    mount::{MountAttrFlags, MountPropagationFlags},
    process::Resource,
    thread::{CapabilitySet, CapabilitySets},
};
use std::{
    ffi::{CStr, CString},
    os::fd::OwnedFd,
};
use sys::clone;

/// Everything but the program.
#[derive(Debug)]
pub(super) struct Setup {
    /// File below `/proc` and what is written, while the child still has the node's user id.
    pub(super) settings: Vec<(CString, Vec<u8>)>,
    /// Attached first, in order.
    pub(super) kernel: Vec<Prepared>,
    /// Files of `/dev` that cover others: those of the image after `kernel`, masks after all mounts.
    pub(super) covers: Covers,
    /// Attached next, in order.
    pub(super) mounts: Vec<Prepared>,
    /// What cannot be read, relative to the root. One that does not exist is skipped.
    pub(super) masked: Vec<CString>,
    /// What cannot be written, in the same way.
    pub(super) read_only: Vec<CString>,
    /// Whether the root and the sources of masks are closed once everything is mounted.
    pub(super) finish: Finish,
    pub(super) order: Order,
    /// Where else mounts below the root are seen, once it is the root; nowhere before.
    pub(super) propagation: MountPropagationFlags,
    pub(super) hostname: Option<String>,
    pub(super) process: Process,
}

/// How the kernel lists the mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As they were made, some by the launcher and the others later by the child.
    Made,
    /// As they were attached.
    Attached,
}

/// What is done to the root after the last mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// It was read-only from the beginning.
    Nothing,
    /// The sources of masks go, for `/dev` can be written.
    RemoveMasks,
    /// They go, and the root becomes read-only.
    RemoveMasksAndLock,
}

/// What the process itself has.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) argv: clone::Strings,
    pub(super) envp: clone::Strings,
    pub(super) cwd: CString,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<Gid>,
    pub(super) capabilities: Capabilities,
    pub(super) privileges: Privileges,
    /// Resource, soft and hard limit.
    pub(super) limits: Vec<(Resource, Option<u64>, Option<u64>)>,
    pub(super) umask: u32,
}

/// Whether a program may have more than the one that executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privileges {
    /// `no_new_privs`.
    NeverMore,
    /// Set-user-id bits and file capabilities count.
    ByFile,
}

/// The five sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) bounding: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
    pub(crate) effective: CapabilitySet,
    pub(crate) inheritable: CapabilitySet,
    pub(crate) ambient: CapabilitySet,
}

impl Capabilities {
    /// Those that one call sets.
    pub(super) fn sets(self) -> CapabilitySets {
        CapabilitySets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        }
    }
}

/// A mount and its place.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Relative to the root.
    pub(super) target: CString,
    pub(super) place: Place,
    pub(super) source: Source,
    /// Where else is seen what is mounted below it.
    pub(super) propagation: MountPropagationFlags,
}

/// What is to be at the place of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory that no symbolic link leads to; nothing is made.
    Found,
    /// The same, but what is missing is made.
    Plain,
    /// A directory; links lead around inside the root, and what is missing is made.
    Directory,
    /// The same for a file.
    File,
}

/// Where a mount comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Attached nowhere yet.
    Ready(OwnedFd),
    /// Made by the child, because it shows the child's namespaces.
    New { kind: &'static CStr, options: Vec<(CString, CString)>, attributes: MountAttrFlags },
}

/// Names of the mounts, for what the child says of them.
#[derive(Debug, Default)]
pub(super) struct Names {
    kernel: Vec<String>,
    mounts: Vec<String>,
}

impl Names {
    pub(super) fn of(setup: &Setup) -> Self {
        let names = |all: &[Prepared]| {
            all.iter().map(|one| format!("/{}", one.target.to_string_lossy())).collect()
        };
        Self { kernel: names(&setup.kernel), mounts: names(&setup.mounts) }
    }

    /// The mount that a step was about.
    pub(super) fn find(&self, step: Step, which: u8) -> Option<&str> {
        let all = match step {
            Step::Kernel => &self.kernel,
            Step::Target | Step::Mount => &self.mounts,
            _ => return None,
        };
        all.get(usize::from(which)).map(String::as_str)
    }

    #[cfg(test)]
    pub(super) fn of_mounts(mounts: &[&str]) -> Self {
        let mounts = mounts.iter().map(|&name| name.to_owned()).collect();
        Self { kernel: Vec::new(), mounts }
    }
}
