//! What a log says to a witness, what the witness has to answer, and what the log takes of it
//! (c2sp.org/tlog-witness, add-checkpoint). The decisions are here; keeping and signing are the
//! witness's, sending is the log's.

use crate::{
    checkpoint::{Checkpoint, NotACheckpoint, OpenError},
    note::{self, BadNote, Forged, Line, NOTE_BYTES_MAX, Note, Signed, Verifier},
    text::{base64, decimal, hash},
    tree::{Hash, PROOF_MAX, SIZE_MAX},
};
use alloc::{string::String, vec::Vec};
use contract::id::sha256;
use core::fmt;

/// Largest request: a note, and the longest proof before it.
pub const REQUEST_BYTES_MAX: usize = NOTE_BYTES_MAX + (PROOF_MAX + 1) * 48;

/// Largest answer that a log reads: some signature lines.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A new checkpoint, and the proof that the log has only grown since the one of size `old`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness has cosigned last, as the log believes; or 0.
    pub old: u64,
    /// The consistency proof.
    pub proof: Vec<Hash>,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The note that it came in.
    pub note: Note,
}

/// Why bytes are no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not a line with the old size, lines with hashes, and an empty line.
    #[error("a request is `old SIZE`, at most {PROOF_MAX} hashes, an empty line, a checkpoint")]
    Shape,
    /// What follows is no note.
    #[error("reading the note of the request")]
    Note(#[source] BadNote),
    /// What follows is a note of something else.
    #[error("reading the text of the note")]
    Checkpoint(#[source] NotACheckpoint),
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 403: the log has not signed it.
    #[error("the checkpoint is not the log's")]
    Unsigned(#[source] OpenError),
    /// 400: a log does not shrink.
    #[error("the old size {old} is above the size {size} of the checkpoint")]
    Backwards {
        /// Old size of the request.
        old: u64,
        /// Size of its checkpoint.
        size: u64,
    },
    /// 409: the log does not know what the witness has cosigned last.
    #[error("the checkpoint cosigned last has the size {size}, not {old}")]
    Conflict {
        /// Old size of the request.
        old: u64,
        /// Size of the checkpoint that was cosigned last, or 0.
        size: u64,
    },
    /// 422: the log has signed a tree that is not an extension of the one cosigned last, or it
    /// has not shown that it is. Evidence, if the log has no proof.
    #[error("nothing shows that the tree of size {size} extends the one of size {old}")]
    Inconsistent {
        /// Size of the checkpoint that was cosigned last, or 0.
        old: u64,
        /// Size of the checkpoint of the request.
        size: u64,
    },
}

/// Why an answer holds no cosignature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not signature lines.
    #[error("reading the signature lines")]
    Lines(#[source] BadNote),
    /// Lines of others alone.
    #[error("none of the signature lines is of the key {name}")]
    Absent {
        /// Name of the witness's key.
        name: String,
    },
    /// A line of the key that does not fit.
    #[error("checking the cosignature")]
    Forged(#[source] Forged),
}

/// The newest cosignature of this witness for this note in its answer, the body of 200. Lines of
/// keys that are not known are not looked at.
pub fn cosignature(note: &Note, witness: &Verifier, answer: &[u8]) -> Result<Line, BadAnswer> {
    let text = core::str::from_utf8(answer).map_err(|_| BadAnswer::Lines(BadNote::Character))?;
    let mut newest: Option<(u64, Line)> = None;
    for line in note::lines(text).map_err(BadAnswer::Lines)? {
        let mut alone = Note::new(note.text().into()).map_err(BadAnswer::Lines)?;
        alone.add(line.clone()).map_err(BadAnswer::Lines)?;
        match alone.signed_by(witness).map_err(BadAnswer::Forged)? {
            Signed::At(time) if newest.as_ref().is_none_or(|(newest, _)| *newest <= time) => {
                newest = Some((time, line));
            }
            Signed::At(_) | Signed::Valid | Signed::Absent => {}
        }
    }
    let absent = || BadAnswer::Absent { name: witness.name().into() };
    newest.map(|(_, line)| line).ok_or_else(absent)
}

/// The size of the checkpoint that a witness has cosigned last, in its answer, the body of 409.
pub fn size(answer: &[u8]) -> Option<u64> {
    let line = core::str::from_utf8(answer).ok()?.strip_suffix('\n')?;
    decimal(line).filter(|size| *size <= SIZE_MAX)
}

impl AddCheckpoint {
    /// Reads the body of a request.
    pub fn read(bytes: &[u8]) -> Result<Self, BadRequest> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(BadRequest::Shape);
        }
        let text = core::str::from_utf8(bytes).map_err(|_| BadRequest::Shape)?;
        let (head, note) = text.split_once("\n\n").ok_or(BadRequest::Shape)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| decimal(line.strip_prefix("old ")?));
        let old = old.filter(|old| *old <= SIZE_MAX).ok_or(BadRequest::Shape)?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == PROOF_MAX {
                return Err(BadRequest::Shape);
            }
            proof.push(hash(line).ok_or(BadRequest::Shape)?);
        }
        let note = Note::read(note.as_bytes()).map_err(BadRequest::Note)?;
        let checkpoint = note.text().parse().map_err(BadRequest::Checkpoint)?;
        Ok(Self { old, proof, checkpoint, note })
    }

    /// Whether a witness that has cosigned `last` cosigns this, a log's with these keys.
    pub fn judge(&self, keys: &[Verifier], last: Option<&Checkpoint>) -> Result<(), Refusal> {
        self.checkpoint.is_signed(&self.note, keys).map_err(Refusal::Unsigned)?;
        let (old, size) = (self.old, self.checkpoint.size);
        if old > size {
            return Err(Refusal::Backwards { old, size });
        }
        let last_size = last.map_or(0, |last| last.size);
        if old != last_size {
            return Err(Refusal::Conflict { old, size: last_size });
        }
        let extends = if let Some(last) = last {
            self.checkpoint.extends(last, &self.proof)
        } else {
            let is_possible = size > 0 || self.checkpoint.root == sha256(b"");
            self.proof.is_empty() && is_possible
        };
        if extends { Ok(()) } else { Err(Refusal::Inconsistent { old, size }) }
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", base64(hash)))?;
        write!(f, "\n{}", self.note)
    }
}

impl Refusal {
    /// The HTTP status that says it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unsigned(_) => 403,
            Self::Backwards { .. } => 400,
            Self::Conflict { .. } => 409,
            Self::Inconsistent { .. } => 422,
        }
    }

    /// The body that goes with 409, of the type `text/x.tlog.size`.
    pub fn size_line(&self) -> Option<String> {
        match self {
            Self::Conflict { size, .. } => Some(alloc::format!("{size}\n")),
            Self::Unsigned(_) | Self::Backwards { .. } | Self::Inconsistent { .. } => None,
        }
    }
}
