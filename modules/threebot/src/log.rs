//! Whether a statement is in the transparency log, for somebody who believes no registry.
//!
//! Pure: a statement, a proof and a policy decide, all of which may be files. What signatures the
//! statement needs is not decided here, nor whether a later one has taken its place.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use contract::{Envelope, StatementId, Timestamp, envelope::OpenError};
use tlog::{
    PolicyFile, Proof, Record, Verifier, policy::PolicyError, policy::Seen,
    policy_file::BadPolicyFile, proof::BadProof, proof::ProofError,
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
    /// The checkpoint does not count by the policy.
    #[error("the checkpoint does not count")]
    Checkpoint(#[source] PolicyError),
    /// Every log continues it.
    #[error("the log has no entries yet; ask again when it has some")]
    Empty,
    /// The statement does not parse.
    #[error("reading the statement")]
    Statement(#[source] OpenError),
    /// The log says something else about the statement than the statement itself.
    #[error("the entry of the log says something else than the statement")]
    OtherRecord,
}

/// A checkpoint that counts, and what a node needs to know to ask for its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The log.
    pub origin: String,
    /// Entries that it covers.
    pub size: u64,
    /// The hash of all of them, in base64.
    pub root: String,
    /// As of a proof.
    pub seen: Option<Timestamp>,
    /// Witnesses that had to cosign.
    pub quorum: usize,
    /// The boot options of a node that believes this policy, and a log that continues this checkpoint.
    pub options: String,
}

/// Checks a checkpoint.
pub fn newest(checkpoint: &[u8], policy: &[u8]) -> Result<Newest, NotLogged> {
    let PolicyFile { policy, .. } = PolicyFile::read(policy).map_err(NotLogged::Policy)?;
    let Seen { checkpoint, time, .. } = policy.open(checkpoint).map_err(NotLogged::Checkpoint)?;
    let (quorum, size) = (policy.quorum(), checkpoint.size);
    if size == 0 {
        return Err(NotLogged::Empty);
    }
    let root = STANDARD.encode(checkpoint.root);
    let list = |keys: &[Verifier]| {
        let keys: Vec<String> = keys.iter().map(Verifier::to_string).collect();
        keys.join(",")
    };
    let witnesses = if quorum == 0 {
        String::new()
    } else {
        format!(" zos.witness={} zos.quorum={quorum}", list(policy.witnesses()))
    };
    let options =
        format!("zos.log={}{witnesses} zos.checkpoint={size}+{root}", list(policy.keys()));
    let origin = checkpoint.origin;
    Ok(Newest { origin, size, root, seen: time.map(timestamp), quorum, options })
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

#[cfg(test)]
mod tests {
    use super::*;
    use tlog::{Algorithm, Checkpoint, Note, Signer};

    #[test]
    fn the_options_say_what_the_policy_says() {
        let signer = |name, algorithm, seed| Signer::new(name, algorithm, &[seed; 32]).unwrap();
        let key = signer("log.example", Algorithm::Ed25519, 1);
        let [one, two] = [2, 3].map(|seed| signer("witness.example", Algorithm::Cosignature, seed));
        let newest_of = |size, root, cosigned: &[&Signer]| {
            let origin = "log.example".to_owned();
            let checkpoint = Checkpoint { origin, size, root, extensions: vec![] };
            let mut note = Note::new(checkpoint.to_string()).unwrap();
            note.add(key.sign(note.text(), 0)).unwrap();
            for witness in cosigned {
                note.add(witness.sign(note.text(), 1_800_000_000)).unwrap();
            }
            let [log, one, two] = [&key, &one, &two].map(Signer::verifier);
            let policy = format!(
                "log {log}\nwitness a {one}\nwitness b {two}\ngroup all 2 a b\nquorum all\n"
            );
            newest(note.to_string().as_bytes(), policy.as_bytes())
        };
        let found = newest_of(7, [9; 32], &[&one, &two]).unwrap();
        let [log, first, second] = [&key, &one, &two].map(Signer::verifier);
        let root = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
        assert_eq!(
            found.options,
            format!(
                "zos.log={log} zos.witness={first},{second} zos.quorum=2 zos.checkpoint=7+{root}"
            )
        );
        assert_eq!((found.quorum, found.seen), (2, Some(timestamp(1_800_000_000))));
        let uncosigned = newest_of(7, [9; 32], &[&one]);
        assert!(matches!(uncosigned, Err(NotLogged::Checkpoint(_))));
        let empty = contract::merkle::root(&[]);
        assert!(matches!(newest_of(0, empty, &[&one, &two]), Err(NotLogged::Empty)));
    }
}
