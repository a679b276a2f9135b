//! Checkpoints: which log, how large, which root; the text of a note (c2sp.org/tlog-checkpoint).

use crate::{
    note::{BadNote, Forged, Note, Signed, Verifier},
    text::{base64, decimal, hash},
    tree::{self, Hash, SIZE_MAX},
};
use alloc::{string::String, vec::Vec};
use core::{fmt, str::FromStr};

/// The longest origin. Newer cosignatures give it one byte for its length.
pub const ORIGIN_BYTES_MAX: usize = 255;

/// The state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log it is.
    pub origin: String,
    /// Leaves in its tree.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
    /// Lines that follow. We write none, and nothing that we decide looks at them.
    pub extensions: Vec<String>,
}

/// A text that is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a checkpoint is the origin, the size, the root in base64, and no line of it is empty")]
pub struct NotACheckpoint;

/// Why a note says nothing about a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is no note.
    #[error("reading the note")]
    Note(#[source] BadNote),
    /// Its text is no checkpoint.
    #[error("reading the text of the note")]
    Checkpoint(#[source] NotACheckpoint),
    /// It is another log's.
    #[error("the checkpoint is of the log {found}, not of {wanted}")]
    Origin {
        /// The log that was asked for.
        wanted: String,
        /// The log in the note.
        found: String,
    },
    /// None of the log's known keys has signed it.
    #[error("no known key of the log {origin} has signed the checkpoint")]
    Unsigned {
        /// The log.
        origin: String,
    },
    /// A signature of a known key does not fit.
    #[error("checking the signatures of the checkpoint")]
    Forged(#[source] Forged),
}

impl Checkpoint {
    /// Reads the note of a log: by its origin, signed by one of its keys, with no line of any of
    /// them that does not fit.
    pub fn open(bytes: &[u8], origin: &str, keys: &[Verifier]) -> Result<(Self, Note), OpenError> {
        let note = Note::read(bytes).map_err(OpenError::Note)?;
        let checkpoint: Self = note.text().parse().map_err(OpenError::Checkpoint)?;
        if checkpoint.origin != origin {
            return Err(OpenError::Origin { wanted: origin.into(), found: checkpoint.origin });
        }
        checkpoint.is_signed(&note, keys)?;
        Ok((checkpoint, note))
    }

    pub(crate) fn is_signed(&self, note: &Note, keys: &[Verifier]) -> Result<(), OpenError> {
        let mut signatures = 0;
        for key in keys {
            if note.signed_by(key).map_err(OpenError::Forged)? != Signed::Absent {
                signatures += 1;
            }
        }
        if signatures == 0 {
            return Err(OpenError::Unsigned { origin: self.origin.clone() });
        }
        Ok(())
    }

    /// Whether `proof` shows that the tree of this checkpoint begins with that of `earlier`.
    pub fn extends(&self, earlier: &Self, proof: &[Hash]) -> bool {
        self.origin == earlier.origin
            && tree::extends((earlier.size, &earlier.root), (self.size, &self.root), proof)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, base64(&self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = NotACheckpoint;
    fn from_str(text: &str) -> Result<Self, NotACheckpoint> {
        let mut lines = text.strip_suffix('\n').ok_or(NotACheckpoint)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(NotACheckpoint);
        let origin = line()?;
        let size = decimal(line()?).filter(|size| *size <= SIZE_MAX).ok_or(NotACheckpoint)?;
        let root = hash(line()?).ok_or(NotACheckpoint)?;
        let extensions: Vec<String> = lines.map(Into::into).collect();
        if origin.len() > ORIGIN_BYTES_MAX || extensions.iter().any(String::is_empty) {
            return Err(NotACheckpoint);
        }
        Ok(Self { origin: origin.into(), size, root, extensions })
    }
}
