//! The consensus rule: may this node run this contract now?
//!
//! One pure function, [`verdict`], over a [`Bundle`] that nobody has to be trusted for. It has two
//! steps: [`Case::read`] does what follows from the bundle alone, [`judge`] what hangs on the node and
//! the time; who judges often keeps the case. The rules carry the numbers of docs/contract.md. What of
//! it is in the transparency log (rule 1) is told to [`Case::read_after`]; rule 7, the files, is enforced
//! by the flist store and the kernel before anything is executed.

mod case;

use crate::{
    bundle::Bundle,
    capacity::Capacity,
    header::Header,
    id::{DocumentId, IdentityId, NodeId, StatementId},
    time::Timestamp,
    workload::Document,
};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use core::fmt;

pub use crate::past::{Cause, Ended, Past, ToldBy};
pub use case::{Case, Standing, rule};

/// What a node knows without asking anyone, and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The grid, from the boot configuration.
    pub network: String,
    /// The farm, from the boot configuration.
    pub farm: IdentityId,
    /// The node itself.
    pub node: NodeId,
    /// Capacity that no *other* contract has taken.
    pub free: Capacity,
    /// What is final on this node about the contract.
    pub past: Past,
}

/// What a node does about a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Runs it.
    Run(Box<Agreed>),
    /// Stops it: it was agreed, and has ended.
    Stop(Ended),
    /// Does not start it, and stops it if it ran under an earlier verdict; keeps all data.
    Refuse(Refusal),
}

/// A contract version that may run here and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The version in force.
    pub header: Header,
    /// Its statement id.
    pub header_id: StatementId,
    /// What this node has to do.
    pub document: Document,
    /// Hash of the document's bytes.
    pub document_id: DocumentId,
}

/// Why a contract does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule it breaks.
    pub code: Code,
    /// The reason, as a sentence.
    pub message: String,
}

/// Reasons for a refusal: stable words for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A statement that is needed does not parse or breaks a rule of its kind.
    Malformed,
    /// The bundle holds more than its bounds allow.
    TooLarge,
    /// The contract belongs to another grid.
    WrongNetwork,
    /// It is agreed on, and not proven to be in the log that the node asks for.
    NotLogged,
    /// Versions are missing, out of order, or of different contracts.
    BrokenChain,
    /// An identity statement is missing, or not signed by its own keys.
    UnknownIdentity,
    /// The owner has not signed.
    OwnerSignature,
    /// Stakeholders still have to approve.
    QuorumMissing,
    /// A stakeholder who may has rejected.
    Rejected,
    /// `not_before` has not come.
    NotYet,
    /// `start_by` has passed without a start.
    TooLate,
    /// No document for this node.
    WrongNode,
    /// The document does not hash into the header's root, or contradicts the header.
    DocumentMismatch,
    /// The pool is missing, of another farm or owner, or does not name this node.
    PoolMismatch,
    /// The pool has expired.
    PoolExpired,
    /// The contract needs more than the pool grants.
    PoolTooSmall,
    /// The contract needs more than is free on this node.
    NoCapacity,
}

impl Code {
    /// Every code, in the order of declaration.
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::TooLarge,
        Self::WrongNetwork,
        Self::NotLogged,
        Self::BrokenChain,
        Self::UnknownIdentity,
        Self::OwnerSignature,
        Self::QuorumMissing,
        Self::Rejected,
        Self::NotYet,
        Self::TooLate,
        Self::WrongNode,
        Self::DocumentMismatch,
        Self::PoolMismatch,
        Self::PoolExpired,
        Self::PoolTooSmall,
        Self::NoCapacity,
    ];

    /// The stable word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::WrongNetwork => "wrong_network",
            Self::NotLogged => "not_logged",
            Self::BrokenChain => "broken_chain",
            Self::UnknownIdentity => "unknown_identity",
            Self::OwnerSignature => "owner_signature",
            Self::QuorumMissing => "quorum_missing",
            Self::Rejected => "rejected",
            Self::NotYet => "not_yet",
            Self::TooLate => "too_late",
            Self::WrongNode => "wrong_node",
            Self::DocumentMismatch => "document_mismatch",
            Self::PoolMismatch => "pool_mismatch",
            Self::PoolExpired => "pool_expired",
            Self::PoolTooSmall => "pool_too_small",
            Self::NoCapacity => "no_capacity",
        }
    }

    /// The rule of docs/contract.md that the code belongs to.
    pub fn rule(self) -> u8 {
        match self {
            Self::Malformed | Self::TooLarge | Self::WrongNetwork | Self::NotLogged => 1,
            Self::UnknownIdentity | Self::OwnerSignature => 2,
            Self::BrokenChain => 3,
            Self::QuorumMissing | Self::Rejected => 4,
            Self::NotYet | Self::TooLate => 5,
            Self::WrongNode
            | Self::DocumentMismatch
            | Self::PoolMismatch
            | Self::PoolExpired
            | Self::PoolTooSmall
            | Self::NoCapacity => 6,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn refuse<T>(code: Code, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// Decides what the node that is described by `trust` does about the contract, at time `now`.
pub fn verdict(bundle: &Bundle, trust: &Trust, now: Timestamp) -> Verdict {
    // Of a contract that has ended nothing is opened any more.
    let case = match &trust.past.ended {
        Some(ended) => return Verdict::Stop(ended.clone()),
        None => Case::read(bundle),
    };
    judge(case.as_ref(), trust, now)
}

/// The same for a bundle that was opened before.
pub fn judge(case: Result<&Case, &Refusal>, trust: &Trust, now: Timestamp) -> Verdict {
    if let Some(ended) = &trust.past.ended {
        return Verdict::Stop(ended.clone());
    }
    match case.map_err(Clone::clone).and_then(|case| decide(case, trust, now)) {
        Ok(verdict) => verdict,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

fn decide(case: &Case, trust: &Trust, now: Timestamp) -> Result<Verdict, Refusal> {
    if case.network() != trust.network {
        let (theirs, ours) = (case.network(), &trust.network);
        return refuse(Code::WrongNetwork, format!("it belongs to {theirs}, this node to {ours}"));
    }
    let agreed = case.in_force()?.map_or(0, |header| header.body.version);
    // Versions never go back: a decision that comes late can stop one, and not revive another.
    let version = agreed.max(trust.past.version);
    let Some(header) = case.version(version) else {
        let (code, message) = case.why_open(agreed);
        return refuse(code, message);
    };
    let cancelled = |header| case.cancelled(header).filter(|one| one.body.effective_at <= now);
    // A later version may take back what ends this one, and be ended itself. While it is in no log yet,
    // neither counts for good: what runs stops, and nothing is deleted.
    if let Some(later) = case.version(case.agreed()).filter(|one| one.body.version > version) {
        let is_extended = header.body.expires <= now && now < later.body.expires;
        if is_extended || cancelled(header).is_some() || cancelled(later).is_some() {
            let (code, message) = case.why_open(agreed);
            return refuse(code, message);
        }
    }
    let ended = |cause, told_by| Ended {
        contract: header.body.contract,
        version: header.body.version,
        header_id: header.id,
        cause,
        expires: header.body.expires,
        told_by,
    };
    if let Some(cancel) = cancelled(header) {
        let cause = Cause::Cancelled { order: cancel.id, retention: cancel.body.retention };
        return Ok(Verdict::Stop(ended(cause, ToldBy::of(&cancel.body))));
    }
    if header.body.expires <= now {
        return Ok(Verdict::Stop(ended(Cause::Expired, ToldBy::Clock)));
    }
    if agreed < version {
        let (code, why) = case.why_open(agreed);
        let message = format!("{why}; version {version} was in force, so no earlier one runs");
        return refuse(code, message);
    }
    // Nothing older begins while there is a later version that may run once it is proven.
    if trust.past.holds.is_none() && !case.unlogged().is_empty() {
        let (code, message) = case.why_open(agreed);
        return refuse(code, message);
    }
    if now < header.body.not_before {
        return refuse(Code::NotYet, format!("it starts at {}", header.body.not_before));
    }
    if trust.past.holds.is_none() && header.body.start_by < now {
        let message = format!("it was to start by {}", header.body.start_by);
        return refuse(Code::TooLate, message);
    }
    let (document, document_id) = case.document(&header.body, &trust.node)?;
    let demand = document.demand();
    check_pool(case, &header.body, trust, &demand, now)?;
    // Free capacity decides about starts. What runs keeps what it has, whatever has broken since.
    let available = trust.free.larger(&trust.past.holds.unwrap_or_default());
    if !demand.fits(&available) {
        return refuse(Code::NoCapacity, shortage(&demand, &available));
    }
    Ok(Verdict::Run(Box::new(Agreed {
        header: header.body.clone(),
        header_id: header.id,
        document: document.clone(),
        document_id,
    })))
}

fn check_pool(
    case: &Case,
    header: &Header,
    trust: &Trust,
    demand: &Capacity,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some((pool, is_signed)) = case.pool(&header.pool) else {
        return refuse(Code::PoolMismatch, format!("the pool {} is missing", header.pool.short()));
    };
    if case.signer(&trust.farm).is_none() {
        return refuse(Code::UnknownIdentity, "no valid identity statement of the farm");
    }
    if pool.farm != trust.farm || !is_signed || pool.network != trust.network {
        return refuse(Code::PoolMismatch, "the pool was not granted by this node's farm");
    }
    if pool.owner != header.owner {
        return refuse(Code::PoolMismatch, "the pool was granted to somebody else");
    }
    if pool.nodes.binary_search(&trust.node).is_err() {
        return refuse(Code::PoolMismatch, "the pool does not name this node");
    }
    if pool.expires <= now {
        return refuse(Code::PoolExpired, format!("the pool expired at {}", pool.expires));
    }
    let seconds = header.expires.seconds() - header.not_before.seconds();
    if !pool.amounts.cover(demand, u64::try_from(seconds).unwrap_or(0)) {
        return refuse(Code::PoolTooSmall, "the pool does not cover the contract until it expires");
    }
    Ok(())
}

fn shortage(demand: &Capacity, free: &Capacity) -> String {
    let parts = [
        ("cru_milli", demand.cru_milli, free.cru_milli),
        ("mru_bytes", demand.mru_bytes, free.mru_bytes),
        ("sru_bytes", demand.sru_bytes, free.sru_bytes),
        ("hru_bytes", demand.hru_bytes, free.hru_bytes),
    ];
    let short: Vec<_> = parts
        .iter()
        .filter(|(_, need, have)| need > have)
        .map(|(name, need, have)| format!("{name}: {need} needed, {have} free"))
        .collect();
    short.join("; ")
}

/// An error with its causes, in one line.
fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
