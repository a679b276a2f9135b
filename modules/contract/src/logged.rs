//! What a node knows to be in the transparency log, and whether it asks.
//!
//! Only what leads to a start has to be there: versions, and approvals of versions. What can stop a
//! contract counts also when somebody keeps it out of the log.

use crate::{
    decision::{Approval, Decision},
    id::StatementId,
};
use alloc::collections::BTreeSet;

/// The statements of one contract that are known to be in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Logged {
    /// Nobody asks for the log: everything counts that is signed.
    #[default]
    NotAsked,
    /// What is not proven to be in the log starts nothing.
    Only {
        /// Versions up to this one were proven to be in the log with their quorum, and stay so: a new
        /// decision on one of them needs no proof to let it run on.
        settled: u64,
        /// Statements that are proven to be there.
        ids: BTreeSet<StatementId>,
    },
}

impl Logged {
    /// Whether this statement about a version is as good as in the log.
    pub fn has(&self, version: u64, statement: &StatementId) -> bool {
        match self {
            Self::NotAsked => true,
            Self::Only { settled, ids } => version <= *settled || ids.contains(statement),
        }
    }

    /// Whether a decision on a version counts.
    pub(crate) fn counts(&self, version: u64, id: &StatementId, approval: &Approval) -> bool {
        approval.decision != Decision::Approve || self.has(version, id)
    }
}
