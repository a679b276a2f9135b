//! What is final on a node: that a contract was started, how far it came, that it has ended.
//!
//! The time of a statement is what its signer wrote, so one that arrives later can say that it was
//! made earlier. What a node has acted on therefore stands by what the node itself remembers: an
//! ended contract stays ended, and no version runs below one that was in force.

use crate::{
    capacity::Capacity,
    decision::{Cancel, Retention},
    id::{ContractId, StatementId},
    time::Timestamp,
};

/// What a node remembers of a contract, and no statement changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// What it takes of the node since it was started here, nothing while it may not run; `None`: never
    /// started. It keeps this much whatever is free, and `start_by` no longer matters.
    pub holds: Option<Capacity>,
    /// The highest version that was ever in force; 0: none.
    pub version: u64,
    /// The end by an order that has taken effect.
    pub ended: Option<Ended>,
}

/// A contract that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub contract: ContractId,
    /// The version in force at the end.
    pub version: u64,
    /// Its header.
    pub header_id: StatementId,
    /// Why.
    pub cause: Cause,
    /// When that version ends by itself.
    pub expires: Timestamp,
    /// Who says that the time of the end has come.
    pub told_by: ToldBy,
}

/// Why a contract has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// By time. The data stays until a signed order.
    Expired,
    /// By an order with quorum.
    Cancelled {
        /// The cancel statement: the signed order.
        order: StatementId,
        /// What becomes of the data.
        retention: Retention,
    },
}

/// Who says that the time of an end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldBy {
    /// The order: it takes effect at or before the time at which it was written.
    Order,
    /// The clock of whoever judges.
    Clock,
}

impl ToldBy {
    /// Who says so for this order.
    pub(crate) fn of(cancel: &Cancel) -> Self {
        if cancel.effective_at <= cancel.issued { Self::Order } else { Self::Clock }
    }
}
