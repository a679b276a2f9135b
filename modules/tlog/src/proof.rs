//! A proof that an entry is in a log, to be checked anywhere and without asking anyone
//! (c2sp.org/tlog-proof).

use crate::{
    Checkpoint,
    note::{BadNote, NOTE_BYTES_MAX, Note},
    policy::{Policy, PolicyError, Seen},
    record::{NotARecord, Record},
    text::{base64, decimal, from_base64, hash},
    tree::{self, Hash, PROOF_MAX, SIZE_MAX},
};
use alloc::{string::ToString as _, vec::Vec};
use contract::StatementId;
use core::fmt;

/// The first line.
const MARK: &str = "c2sp.org/tlog-proof@v1";
/// What a proof may carry along.
pub const EXTRA_BYTES_MAX: usize = 64 << 10;
/// The largest proof.
pub const PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + EXTRA_BYTES_MAX / 3 * 4 + (PROOF_MAX + 4) * 48;

/// Where an entry stands in a log, and the checkpoint that covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Anything, signed by nobody.
    pub extra: Option<Vec<u8>>,
    /// Index of the entry, from 0.
    pub index: u64,
    /// Its inclusion proof.
    pub path: Vec<Hash>,
    /// The checkpoint.
    pub note: Note,
}

/// Why bytes are no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// The lines before the checkpoint are not as they must be.
    #[error("a proof is `{MARK}`, `index N`, hashes, an empty line, and a checkpoint")]
    Shape,
    /// What follows is no note.
    #[error("reading the checkpoint of the proof")]
    Note(#[source] BadNote),
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Its checkpoint does not count.
    #[error("the checkpoint of the proof does not count")]
    Policy(#[source] PolicyError),
    /// The entry is not at that place.
    #[error("the entry is not shown to be at {index} of the {size} entries of the log")]
    Absent {
        /// Index in the proof.
        index: u64,
        /// Size of the tree.
        size: u64,
    },
    /// What it carries along is not the record of a statement.
    #[error("reading the record that the proof carries")]
    Record(#[source] NotARecord),
    /// The entry is about another statement.
    #[error("the proof is about the statement {found}, not about {wanted}")]
    OtherStatement {
        /// The statement that was asked for.
        wanted: StatementId,
        /// The statement that the entry names.
        found: StatementId,
    },
}

impl Proof {
    /// Reads a proof.
    pub fn read(bytes: &[u8]) -> Result<Self, BadProof> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(BadProof::Shape);
        }
        let text = core::str::from_utf8(bytes).map_err(|_| BadProof::Shape)?;
        let (head, note) = text.split_once("\n\n").ok_or(BadProof::Shape)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(MARK) {
            return Err(BadProof::Shape);
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).map(|line| {
            let extra = line.strip_prefix("extra ").and_then(from_base64);
            extra.filter(|extra| extra.len() <= EXTRA_BYTES_MAX).ok_or(BadProof::Shape)
        });
        let extra = extra.transpose()?;
        let index = lines.next().and_then(|line| decimal(line.strip_prefix("index ")?));
        let index = index.filter(|index| *index < SIZE_MAX).ok_or(BadProof::Shape)?;
        let mut path = Vec::new();
        for line in lines {
            if path.len() == PROOF_MAX {
                return Err(BadProof::Shape);
            }
            path.push(hash(line).ok_or(BadProof::Shape)?);
        }
        let note = Note::read(note.as_bytes()).map_err(BadProof::Note)?;
        Ok(Self { extra, index, path, note })
    }

    /// Whether the log that the policy names holds an entry with this leaf hash where the proof
    /// says, under a checkpoint that counts.
    pub fn check(&self, leaf: &Hash, policy: &Policy) -> Result<Seen, ProofError> {
        let seen = policy.open(self.note.to_string().as_bytes()).map_err(ProofError::Policy)?;
        self.holds(leaf, &seen.checkpoint)?;
        Ok(seen)
    }

    fn holds(&self, leaf: &Hash, under: &Checkpoint) -> Result<(), ProofError> {
        let (index, size) = (self.index, under.size);
        let is_there = tree::includes(leaf, index, size, &under.root, &self.path);
        is_there.then_some(()).ok_or(ProofError::Absent { index, size })
    }

    /// Whether the log of a registry holds this statement: the proof carries the record of it, and
    /// the record is where the proof says, under a checkpoint that counts. It says that the statement
    /// was in the log, and not that its signatures are those that somebody has to give.
    pub fn check_statement(
        &self,
        statement: &StatementId,
        policy: &Policy,
    ) -> Result<(Record, Seen), ProofError> {
        let seen = policy.open(self.note.to_string().as_bytes()).map_err(ProofError::Policy)?;
        let record = self.holds_statement(statement, &seen.checkpoint)?;
        Ok((record, seen))
    }

    /// The same under a checkpoint that was opened before; that of the proof is not looked at.
    pub fn holds_statement(
        &self,
        statement: &StatementId,
        under: &Checkpoint,
    ) -> Result<Record, ProofError> {
        let entry = self.extra.as_deref().unwrap_or_default();
        let record = Record::read(entry).map_err(ProofError::Record)?;
        if record.statement != *statement {
            let (wanted, found) = (*statement, record.statement);
            return Err(ProofError::OtherStatement { wanted, found });
        }
        self.holds(&tree::leaf(entry), under)?;
        Ok(record)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MARK}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", base64(hash)))?;
        write!(f, "\n{}", self.note)
    }
}
