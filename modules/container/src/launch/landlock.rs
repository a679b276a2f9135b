//! A Landlock domain around each container: a second, independent lock behind the capabilities and
//! the system call filter.
//!
//! Inside, no device node can be made, signals and abstract sockets end at the container, and, as in
//! every domain, the mounts cannot be changed. On a kernel with less Landlock, as much as it has.

use super::failure::{Context as _, Failure};
use crate::reason::Reason;
use landlock::{
    AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, RulesetError, Scope,
};
use std::io;

/// The rules, in the kernel, before there is a child.
#[derive(Debug)]
pub(super) struct Domain(RulesetCreated);

impl Domain {
    pub(super) fn prepare() -> Result<Self, Failure> {
        let create = || {
            let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
            ruleset
                .handle_access(AccessFs::MakeChar | AccessFs::MakeBlock)?
                .scope(Scope::AbstractUnixSocket | Scope::Signal)?
                .create()
        };
        let created: Result<_, RulesetError> = create();
        created.map(Self).context(Reason::IsolationFailed, "making a Landlock domain")
    }

    /// Locks the calling process in, for ever.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.0.try_clone()?.restrict_self().map(drop).map_err(io::Error::other)
    }
}
