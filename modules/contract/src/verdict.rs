//! The consensus rule: may this node run this contract now?
//!
//! One pure function, [`verdict`], over a [`Bundle`] that nobody has to be trusted for. The rules
//! carry the numbers of docs/contract.md. Rule 1, presence in the transparency log, has its place
//! in [`Case::read`] once bundles carry proofs; rule 7, the files, is enforced by the flist store
//! and the kernel before anything is executed.

use crate::{
    bundle::{Bundle, STATEMENTS_MAX, VERSIONS_MAX},
    capacity::Capacity,
    decision::{Action, Approval, CANCEL_OPEN_S, Cancel},
    envelope::{Envelope, Signed, Statement},
    farm::Pool,
    header::Header,
    id::{DocumentId, IdentityId, NodeId, StatementId},
    identity::Signer,
    merkle, strict,
    tally::{Question, Tally, decisions, tally},
    time::Timestamp,
    workload::{DOCUMENT_BYTES_MAX, Document},
};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use core::fmt;

pub use crate::past::{Cause, Ended, Past, ToldBy};

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
    pub const ALL: [Self; 16] = [
        Self::Malformed,
        Self::TooLarge,
        Self::WrongNetwork,
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
            Self::Malformed | Self::TooLarge | Self::WrongNetwork => 1,
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
    match judge(bundle, trust, now) {
        Ok(verdict) => verdict,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

fn judge(bundle: &Bundle, trust: &Trust, now: Timestamp) -> Result<Verdict, Refusal> {
    if let Some(ended) = &trust.past.ended {
        return Ok(Verdict::Stop(ended.clone()));
    }
    let case = Case::read(bundle)?;
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
    let ended = |cause, told_by| Ended {
        contract: header.body.contract,
        version: header.body.version,
        header_id: header.id,
        cause,
        expires: header.body.expires,
        told_by,
    };
    if let Some(cancel) = case.cancelled(header)
        && cancel.body.effective_at <= now
    {
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
    if now < header.body.not_before {
        return refuse(Code::NotYet, format!("it starts at {}", header.body.not_before));
    }
    if trust.past.holds.is_none() && header.body.start_by < now {
        let message = format!("it was to start by {}", header.body.start_by);
        return refuse(Code::TooLate, message);
    }
    let (document, document_id) = own_document(bundle, &header.body, trust)?;
    let demand = document.demand();
    check_pool(bundle, &case, &header.body, trust, &demand, now)?;
    // Free capacity decides about starts. What runs keeps what it has, whatever has broken since.
    let available = trust.free.larger(&trust.past.holds.unwrap_or_default());
    if !demand.fits(&available) {
        return refuse(Code::NoCapacity, shortage(&demand, &available));
    }
    Ok(Verdict::Run(Box::new(Agreed {
        header: header.body.clone(),
        header_id: header.id,
        document,
        document_id,
    })))
}

/// A bundle whose statements have been parsed.
#[derive(Debug)]
pub struct Case {
    headers: Vec<Signed<Header>>,
    approvals: Vec<Signed<Approval>>,
    cancels: Vec<Signed<Cancel>>,
    signers: Vec<Signer>,
}

impl Case {
    /// Parses the statements. A header that does not parse is refused; any other statement that
    /// does not is left out, for whoever delivers the bundle could have left it out as well.
    pub fn read(bundle: &Bundle) -> Result<Self, Refusal> {
        let others = [&bundle.approvals, &bundle.cancels, &bundle.identities, &bundle.pools];
        if bundle.headers.len() > VERSIONS_MAX
            || others.iter().any(|list| list.len() > STATEMENTS_MAX)
        {
            return refuse(Code::TooLarge, "the bundle holds too many statements");
        }
        let mut headers: Vec<Signed<Header>> = Vec::with_capacity(bundle.headers.len());
        for envelope in &bundle.headers {
            match Signed::open(envelope) {
                Ok(header) => headers.push(header),
                Err(error) => return refuse(Code::Malformed, chain(&error)),
            }
        }
        check_chain(&headers)?;
        Ok(Self {
            headers,
            approvals: readable(&bundle.approvals),
            cancels: readable(&bundle.cancels),
            signers: readable(&bundle.identities)
                .iter()
                .filter_map(Signer::from_statement)
                .collect(),
        })
    }

    /// The grid that the contract belongs to.
    pub fn network(&self) -> &str {
        &self.headers[0].body.network
    }

    /// Every version, from 1 up; at least one.
    pub fn headers(&self) -> &[Signed<Header>] {
        &self.headers
    }

    /// The identity of this id, when the bundle has it and it is signed by its own keys.
    pub fn signer(&self, id: &IdentityId) -> Option<&Signer> {
        self.signers.iter().find(|signer| signer.id == *id)
    }

    /// The highest version up to which every version was agreed on.
    pub fn in_force(&self) -> Result<Option<&Signed<Header>>, Refusal> {
        let mut found = None;
        for (index, header) in self.headers.iter().enumerate() {
            let owner = &header.body.owner;
            let Some(signer) = self.signer(owner) else {
                let message = format!("no valid identity statement of the owner {}", owner.short());
                return refuse(Code::UnknownIdentity, message);
            };
            if !signer.signed(header) {
                if found.is_some() {
                    // Not signed: not a version, and nothing that follows it is one either.
                    break;
                }
                let message = format!("{} has not signed version {}", owner.short(), index + 1);
                return refuse(Code::OwnerSignature, message);
            }
            if self.tallies(index).iter().any(|tally| *tally != Tally::Agreed) {
                break;
            }
            found = Some(header);
        }
        Ok(found)
    }

    /// How far the decision on a version has come: under its own policy, and for an update also
    /// under the policy of the version before.
    pub fn tallies(&self, index: usize) -> Vec<Tally> {
        let subject = &self.headers[index];
        let judged_by = match index {
            0 => alloc::vec![subject],
            _ => alloc::vec![&self.headers[index - 1], subject],
        };
        let count = |judge: &&Signed<Header>| {
            let question = question(judge, subject);
            let made = decisions(&question, &self.approvals, &self.signers);
            tally(rule(&judge.body, question.action), &judge.body.stakeholders, &made)
        };
        judged_by.iter().map(count).collect()
    }

    /// Decisions that count on a version, by the stakeholders of that version.
    pub fn decisions_on(
        &self,
        index: usize,
    ) -> alloc::collections::BTreeMap<IdentityId, crate::decision::Decision> {
        let subject = &self.headers[index];
        decisions(&question(subject, subject), &self.approvals, &self.signers)
    }

    /// A cancel of the version in force that its owner signed and that has quorum. Of several,
    /// the one that takes effect first.
    pub fn cancelled(&self, in_force: &Signed<Header>) -> Option<&Signed<Cancel>> {
        self.cancels
            .iter()
            .filter(|cancel| self.cancel_tally(in_force, cancel) == Some(Tally::Agreed))
            .min_by_key(|cancel| (cancel.body.effective_at, cancel.id))
    }

    /// Every cancel of the version in force, with how far the decision has come.
    pub fn cancels(&self, in_force: &Signed<Header>) -> Vec<(&Signed<Cancel>, Tally)> {
        let counted = |cancel| Some((cancel, self.cancel_tally(in_force, cancel)?));
        self.cancels.iter().filter_map(counted).collect()
    }

    /// `None` for a cancel that is not about this version, or that the owner has not signed.
    fn cancel_tally(&self, in_force: &Signed<Header>, cancel: &Signed<Cancel>) -> Option<Tally> {
        let header = &in_force.body;
        let about_it = cancel.body.network == header.network
            && cancel.body.contract == header.contract
            && cancel.body.version == header.version;
        if !about_it || !self.signer(&header.owner)?.signed(cancel) {
            return None;
        }
        let question = Question {
            header,
            version: header.version,
            subject: cancel.id,
            action: Action::Cancel,
            until: cancel.body.issued.plus(CANCEL_OPEN_S),
        };
        let made = decisions(&question, &self.approvals, &self.signers);
        Some(tally(&header.policy.cancel, &header.stakeholders, &made))
    }

    /// This version, when the bundle has it.
    fn version(&self, version: u64) -> Option<&Signed<Header>> {
        let index = usize::try_from(version.checked_sub(1)?).ok()?;
        self.headers.get(index)
    }

    /// Why the version after `agreed`, the last that is, is not agreed on.
    fn why_open(&self, agreed: u64) -> (Code, String) {
        let index = usize::try_from(agreed).unwrap_or(usize::MAX);
        if index >= self.headers.len() {
            return (Code::BrokenChain, format!("version {} is missing", agreed.saturating_add(1)));
        }
        let tallies = self.tallies(index);
        let rejected = tallies.iter().any(|tally| matches!(tally, Tally::Rejected(_)));
        let code = if rejected { Code::Rejected } else { Code::QuorumMissing };
        let reasons: Vec<_> = tallies.iter().filter_map(Tally::reason).collect();
        (code, reasons.join("; "))
    }
}

/// The question whether version `subject` is agreed on, put to the stakeholders of `judge`.
fn question<'a>(judge: &'a Signed<Header>, subject: &Signed<Header>) -> Question<'a> {
    Question {
        header: &judge.body,
        version: subject.body.version,
        subject: subject.id,
        action: if subject.body.version == 1 { Action::Create } else { Action::Update },
        until: subject.body.approve_by,
    }
}

/// The rule of a policy for an action.
pub fn rule(header: &Header, action: Action) -> &crate::header::Rule {
    match action {
        Action::Create => &header.policy.create,
        Action::Update => &header.policy.update,
        Action::Cancel => &header.policy.cancel,
    }
}

fn readable<T: Statement>(envelopes: &[Envelope]) -> Vec<Signed<T>> {
    envelopes.iter().filter_map(|envelope| Signed::open(envelope).ok()).collect()
}

/// Versions count from 1 without gaps; contract, network, owner and nonce never change; each names
/// the one before.
fn check_chain(headers: &[Signed<Header>]) -> Result<(), Refusal> {
    let Some(first) = headers.first() else {
        return refuse(Code::BrokenChain, "the bundle holds no version");
    };
    for (index, header) in headers.iter().enumerate() {
        let same = header.body.contract == first.body.contract
            && header.body.network == first.body.network
            && header.body.owner == first.body.owner;
        let prev = index.checked_sub(1).map(|before| headers[before].id);
        if !same || header.body.version != index as u64 + 1 || header.body.prev != prev {
            let message = format!("version {} does not follow from those before it", index + 1);
            return refuse(Code::BrokenChain, message);
        }
    }
    Ok(())
}

fn own_document(
    bundle: &Bundle,
    header: &Header,
    trust: &Trust,
) -> Result<(Document, DocumentId), Refusal> {
    // An older version's document may travel along: take the one that hashes into this root.
    let mut mismatch = false;
    for deployment in &bundle.documents {
        let Some(bytes) = deployment.bytes() else { continue };
        let leaf = merkle::leaf(&bytes);
        let deployments = &header.deployments;
        if !merkle::proves(&leaf, &deployment.path, deployments.count, &deployments.root.0) {
            mismatch = true;
            continue;
        }
        let document: Document = match strict::read(&bytes, DOCUMENT_BYTES_MAX) {
            Ok(document) => document,
            Err(error) => return refuse(Code::Malformed, chain(&error)),
        };
        if let Err(rule) = document.check() {
            return refuse(Code::Malformed, format!("the deployment document: {rule}"));
        }
        if document.node != trust.node {
            continue;
        }
        if document.contract != header.contract || document.version != header.version {
            return refuse(
                Code::DocumentMismatch,
                "the document names another contract or version",
            );
        }
        for container in document.containers() {
            if !header.flists.iter().any(|flist| flist.name == container.flist) {
                let message = format!("the contract names no flist {}", container.flist);
                return refuse(Code::DocumentMismatch, message);
            }
        }
        return Ok((document, DocumentId::of(&bytes)));
    }
    if mismatch {
        refuse(Code::DocumentMismatch, "the document does not hash into the contract's root")
    } else {
        refuse(Code::WrongNode, "the contract holds no document for this node")
    }
}

fn check_pool(
    bundle: &Bundle,
    case: &Case,
    header: &Header,
    trust: &Trust,
    demand: &Capacity,
    now: Timestamp,
) -> Result<(), Refusal> {
    let pools = readable::<Pool>(&bundle.pools);
    let Some(pool) = pools.iter().find(|pool| pool.id == header.pool) else {
        return refuse(Code::PoolMismatch, format!("the pool {} is missing", header.pool.short()));
    };
    let Some(farm) = case.signer(&trust.farm) else {
        return refuse(Code::UnknownIdentity, "no valid identity statement of the farm");
    };
    let granted = pool.body.farm == trust.farm && farm.signed(pool);
    if !granted || pool.body.network != trust.network {
        return refuse(Code::PoolMismatch, "the pool was not granted by this node's farm");
    }
    if pool.body.owner != header.owner {
        return refuse(Code::PoolMismatch, "the pool was granted to somebody else");
    }
    if pool.body.nodes.binary_search(&trust.node).is_err() {
        return refuse(Code::PoolMismatch, "the pool does not name this node");
    }
    if pool.body.expires <= now {
        return refuse(Code::PoolExpired, format!("the pool expired at {}", pool.body.expires));
    }
    let seconds = header.expires.seconds() - header.not_before.seconds();
    if !pool.body.amounts.cover(demand, u64::try_from(seconds).unwrap_or(0)) {
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
