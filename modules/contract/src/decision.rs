//! What stakeholders decide: approvals, and the end of a contract.

use crate::{
    envelope::{Kind, Statement},
    id::{ContractId, IdentityId, StatementId},
    time::Timestamp,
};
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// A stakeholder's decision. Serves one contract, version, action and exact statement only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The grid that it belongs to.
    pub network: String,
    /// The contract that is decided on.
    pub contract: ContractId,
    /// Its version.
    pub version: u64,
    /// The header (create, update) or the cancel statement that is decided on.
    pub subject: StatementId,
    /// What is to be done.
    pub action: Action,
    /// Yes or no.
    pub decision: Decision,
    /// Who decides.
    pub signer: IdentityId,
    /// When; a later decision of the same signer replaces an earlier one.
    pub issued: Timestamp,
    /// For people.
    pub comment: String,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Start version 1.
    Create,
    /// Replace a version by the next.
    Update,
    /// End the contract.
    Cancel,
}

/// Yes or no. Declared from weakest to strongest: of two that were issued in the same second, the
/// stronger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Agrees.
    Approve,
    /// Takes an earlier decision back: as if nothing had been said.
    Withdraw,
    /// Disagrees.
    Reject,
}

impl Statement for Approval {
    const KIND: Kind = Kind::Approval;
    const BYTES_MAX: usize = 8 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        match self.action {
            _ if self.comment.len() > 4096 => Err("a comment has at most 4096 bytes"),
            Action::Create if self.version != 1 => Err("create is about version 1"),
            Action::Update if self.version < 2 => Err("update is about version 2 or later"),
            Action::Create | Action::Update | Action::Cancel => Ok(()),
        }
    }
}

/// An order to end a contract, signed by its owner. Takes effect with approvals under
/// `policy.cancel` of the version in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The grid that it belongs to.
    pub network: String,
    /// The contract that ends.
    pub contract: ContractId,
    /// The version that was in force when it was written.
    pub version: u64,
    /// For people.
    pub reason: String,
    /// When it was written; approvals count for a limited time only ([`CANCEL_OPEN_S`]).
    pub issued: Timestamp,
    /// Workloads stop at this time.
    pub effective_at: Timestamp,
    /// What becomes of the data.
    pub retention: Retention,
}

/// Approvals of a cancel count for 30 days after it was issued.
pub const CANCEL_OPEN_S: i64 = 30 * 24 * 3600;

/// What becomes of the data of a cancelled contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// Deleted when the workloads have stopped.
    Wipe,
    /// Deleted at this time.
    KeepUntil(Timestamp),
}

impl Statement for Cancel {
    const KIND: Kind = Kind::Cancel;
    const BYTES_MAX: usize = 8 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.reason.len() > 4096 {
            return Err("a reason has at most 4096 bytes");
        }
        if self.version == 0 {
            return Err("versions count from 1");
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn approval() -> Approval {
        Approval {
            network: "test".into(),
            contract: ContractId([1; 32]),
            version: 1,
            subject: StatementId([2; 32]),
            action: Action::Create,
            decision: Decision::Approve,
            signer: IdentityId([3; 32]),
            issued: Timestamp::from_seconds(1_800_000_000),
            comment: String::new(),
        }
    }
}
