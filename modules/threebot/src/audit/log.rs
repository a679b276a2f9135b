//! What the proofs show: where in the log each statement is, and that all of them are of one log.
//!
//! The log holds the payload of a statement; whose signatures it needs is judged elsewhere.

use super::{Code, Entries, Expected, Findings};
use crate::{
    error::chain,
    evidence::Evidence,
    log::{NotLogged, same_record, timestamp},
};
use contract::{Envelope, NodeId, Signed, StatementId, Timestamp, report::Report};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tlog::{Hash, Policy, Proof, policy::PolicyError, policy::Seen, proof::ProofError};

/// What proofs have shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    /// The log.
    pub origin: String,
    /// Entries that the largest of the checkpoints covers.
    pub size: u64,
    /// Witnesses that had to cosign each checkpoint.
    pub quorum: usize,
    /// When the largest was the newest that they had seen; `None` without witnesses.
    pub seen: Option<Timestamp>,
    /// Statements that are proven to be in it.
    pub proven: usize,
    /// Statements that have to be.
    pub wanted: usize,
}

/// Proofs while they are held against each other.
struct Reader<'a> {
    policy: &'a Policy,
    /// By the text of the note: many proofs come under one.
    checkpoints: BTreeMap<String, Result<Seen, PolicyError>>,
    roots: BTreeMap<u64, Hash>,
    held: BTreeMap<u64, StatementId>,
    newest: Option<(u64, Option<Timestamp>)>,
}

/// Where in the log the statements are that have to be there.
pub(super) fn entries(
    evidence: &Evidence,
    expected: &Expected<'_>,
    policy: &Policy,
    named: &BTreeSet<NodeId>,
    findings: &mut Findings,
) -> (Log, Entries) {
    let by_stranger = |envelope: &Envelope| {
        Signed::<Report>::open(envelope).is_ok_and(|report| !named.contains(&report.body.node))
    };
    let wanted: BTreeMap<StatementId, &Envelope> = evidence
        .logged_for(&expected.contract)
        .filter(|envelope| !by_stranger(envelope))
        .filter_map(|envelope| Some((envelope.id().ok()?, envelope)))
        .collect();
    let mut reader = Reader {
        policy,
        checkpoints: BTreeMap::new(),
        roots: BTreeMap::new(),
        held: BTreeMap::new(),
        newest: None,
    };
    let mut entries = Entries::new();
    let mut refused = BTreeMap::new();
    for one in &evidence.proofs {
        let id = one.statement;
        let Some(envelope) = wanted.get(&id) else { continue };
        match reader.place(&id, envelope, one.proof.as_bytes(), findings) {
            Ok(index) => match entries.insert(id, index) {
                Some(other) if other != index => {
                    let text = format!("it is shown to be entry {other} and entry {index}");
                    findings.add(Code::ForkedLog, Some(id), text);
                }
                Some(_) | None => {}
            },
            Err(error) => drop(refused.insert(id, error)),
        }
    }
    for (id, envelope) in &wanted {
        let kind = envelope.kind().map_or("unknown", contract::Kind::name);
        if let Some(error) = refused.get(id) {
            findings.add(Code::BadProof, Some(*id), format!("{kind}: {}", chain(error)));
        } else if !entries.contains_key(id) {
            findings.add(Code::NotLogged, Some(*id), format!("no proof of this {kind} statement"));
        }
    }
    let (size, seen) = reader.newest.unwrap_or_default();
    let log = Log {
        origin: policy.origin().to_owned(),
        size,
        quorum: policy.quorum(),
        seen,
        proven: entries.len(),
        wanted: wanted.len(),
    };
    (log, entries)
}

impl Reader<'_> {
    fn place(
        &mut self,
        id: &StatementId,
        envelope: &Envelope,
        proof: &[u8],
        findings: &mut Findings,
    ) -> Result<u64, NotLogged> {
        let proof = Proof::read(proof).map_err(NotLogged::Proof)?;
        let note = proof.note.to_string();
        let policy = self.policy;
        let seen =
            self.checkpoints.entry(note).or_insert_with_key(|note| policy.open(note.as_bytes()));
        let seen =
            seen.as_ref().map_err(|error| NotLogged::Refused(ProofError::Policy(error.clone())))?;
        let under = &seen.checkpoint;
        let record = proof.holds_statement(id, under).map_err(NotLogged::Refused)?;
        same_record(&record, Some(envelope))?;
        if *self.roots.entry(under.size).or_insert(under.root) != under.root {
            let text = format!("two checkpoints of {} entries differ", under.size);
            findings.add(Code::ForkedLog, Some(*id), text);
        }
        let other = *self.held.entry(proof.index).or_insert(*id);
        if other != *id {
            let text = format!("entry {} is shown to be {other} as well", proof.index);
            findings.add(Code::ForkedLog, Some(*id), text);
        }
        let found = (under.size, seen.time.map(timestamp));
        self.newest = self.newest.max(Some(found));
        Ok(proof.index)
    }
}
