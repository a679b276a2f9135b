//! Whether a statement is in the transparency log, for somebody who believes no registry.
//!
//! Pure: a statement, a proof and a policy decide, all of which may be files. What signatures the
//! statement needs is not decided here, nor whether a later one has taken its place.

use contract::{Envelope, StatementId, Timestamp, envelope::OpenError};
use tlog::{
    PolicyFile, Proof, Record, policy_file::BadPolicyFile, proof::BadProof, proof::ProofError,
};

/// What a proof has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The entry of the log.
    pub record: Record,
    /// Its index, from 0.
    pub index: u64,
    /// The log.
    pub origin: String,
    /// Entries that the checkpoint covers.
    pub size: u64,
    /// When it was the newest that the quorum of witnesses had seen, as they say. `None` if the
    /// policy asks for no witnesses: then only the log says so.
    pub seen: Option<Timestamp>,
    /// Witnesses that had to cosign.
    pub quorum: usize,
}

/// Why a statement is not shown to be in the log.
#[derive(Debug, thiserror::Error)]
pub enum NotLogged {
    /// The policy is none.
    #[error("reading the policy")]
    Policy(#[source] BadPolicyFile),
    /// The proof is none.
    #[error("reading the proof")]
    Proof(#[source] BadProof),
    /// The proof does not hold.
    #[error("the proof does not hold")]
    Refused(#[source] ProofError),
    /// The statement does not parse.
    #[error("reading the statement")]
    Statement(#[source] OpenError),
    /// The log says something else about the statement than the statement itself.
    #[error("the entry of the log says something else than the statement")]
    OtherRecord,
}

/// Checks a proof for a statement, of which the whole or only the id is there.
pub fn verify(
    id: &StatementId,
    statement: Option<&Envelope>,
    proof: &[u8],
    policy: &[u8],
) -> Result<Logged, NotLogged> {
    let PolicyFile { policy, .. } = PolicyFile::read(policy).map_err(NotLogged::Policy)?;
    let proof = Proof::read(proof).map_err(NotLogged::Proof)?;
    let (record, seen) = proof.check_statement(id, &policy).map_err(NotLogged::Refused)?;
    same_record(&record, statement)?;
    Ok(Logged {
        record,
        index: proof.index,
        origin: seen.checkpoint.origin,
        size: seen.checkpoint.size,
        seen: seen.time.map(timestamp),
        quorum: policy.quorum(),
    })
}

/// That the log says of a statement what it says itself.
pub(crate) fn same_record(record: &Record, statement: Option<&Envelope>) -> Result<(), NotLogged> {
    if let Some(statement) = statement {
        let own = Record::of(statement).map_err(NotLogged::Statement)?;
        // Signatures may have been added since.
        if (Record { evidence: record.evidence, ..own }) != *record {
            return Err(NotLogged::OtherRecord);
        }
    }
    Ok(())
}

/// The time of a cosignature.
pub(crate) fn timestamp(time: u64) -> Timestamp {
    Timestamp::from_seconds(i64::try_from(time).unwrap_or(i64::MAX))
}
