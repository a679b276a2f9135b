//! Which checkpoints count: signed by the log, and seen by enough witnesses.
//!
//! Two checkpoints that contradict each other and both count need 2k−n witnesses that lie, of n
//! witnesses of which k have to sign: an honest one cosigns no two of them.

use crate::{
    checkpoint::{Checkpoint, OpenError},
    note::{Algorithm, Forged, Note, SIGNATURES_MAX, Signed, Verifier},
};
use alloc::{collections::BTreeSet, string::String, vec::Vec};

/// The log, and the witnesses that somebody trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    origin: String,
    keys: Vec<Verifier>,
    witnesses: Vec<Verifier>,
    quorum: usize,
}

/// Why a policy cannot mean what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// Nothing could be verified.
    #[error("a policy names 1 to {SIGNATURES_MAX} keys of the log, each of type 1 (Ed25519)")]
    Keys,
    /// The key of a witness that says no time.
    #[error("a policy names at most {SIGNATURES_MAX} witnesses, each of type 4 (cosignature)")]
    Witnesses,
    /// One witness would count twice.
    #[error("the key of the witness {name} stands in the policy twice")]
    Twice {
        /// Name of the second.
        name: String,
    },
    /// More signatures are asked for than there are witnesses.
    #[error("{quorum} of {count} witnesses can never sign")]
    Quorum {
        /// Witnesses that have to sign.
        quorum: usize,
        /// Witnesses that there are.
        count: usize,
    },
}

/// Why a checkpoint does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is not the log's.
    #[error("opening the checkpoint")]
    Open(#[source] OpenError),
    /// A line of a known witness does not fit.
    #[error("checking the cosignatures of the checkpoint")]
    Forged(#[source] Forged),
    /// Too few witnesses have seen it.
    #[error("{count} known witnesses have cosigned the checkpoint, {quorum} have to")]
    Quorum {
        /// Witnesses that have signed.
        count: usize,
        /// Witnesses that have to.
        quorum: usize,
    },
}

/// A checkpoint that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The note that it came in.
    pub note: Note,
    /// At this time, in seconds since 1970, it was the newest that as many witnesses as the policy
    /// asks for had seen. `None` if it asks for none.
    pub time: Option<u64>,
}

impl Policy {
    /// Any `quorum` of the witnesses have to sign, and any of the keys of the log.
    pub fn new(
        origin: &str,
        keys: Vec<Verifier>,
        witnesses: Vec<Verifier>,
        quorum: usize,
    ) -> Result<Self, BadPolicy> {
        let is_all = |keys: &[Verifier], algorithm| {
            keys.len() <= SIGNATURES_MAX && keys.iter().all(|key| key.algorithm() == algorithm)
        };
        if keys.is_empty() || !is_all(&keys, Algorithm::Ed25519) {
            return Err(BadPolicy::Keys);
        }
        if !is_all(&witnesses, Algorithm::Cosignature) {
            return Err(BadPolicy::Witnesses);
        }
        // By key: names are free, so one witness could have two.
        let mut known = BTreeSet::new();
        if let Some(again) = witnesses.iter().find(|witness| !known.insert(*witness.key())) {
            return Err(BadPolicy::Twice { name: again.name().into() });
        }
        if quorum > witnesses.len() {
            return Err(BadPolicy::Quorum { quorum, count: witnesses.len() });
        }
        Ok(Self { origin: origin.into(), keys, witnesses, quorum })
    }

    /// Which log it is about.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The keys of the log.
    pub fn keys(&self) -> &[Verifier] {
        &self.keys
    }

    /// The witnesses.
    pub fn witnesses(&self) -> &[Verifier] {
        &self.witnesses
    }

    /// How many witnesses have to sign.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// Reads a checkpoint that counts. A line of a known key that does not fit refuses the whole.
    pub fn open(&self, bytes: &[u8]) -> Result<Seen, PolicyError> {
        let (checkpoint, note) =
            Checkpoint::open(bytes, &self.origin, &self.keys).map_err(PolicyError::Open)?;
        let mut times = Vec::new();
        for witness in &self.witnesses {
            match note.signed_by(witness).map_err(PolicyError::Forged)? {
                Signed::At(time) => times.push(time),
                Signed::Valid | Signed::Absent => {}
            }
        }
        if times.len() < self.quorum {
            let (count, quorum) = (times.len(), self.quorum);
            return Err(PolicyError::Quorum { count, quorum });
        }
        times.sort_unstable_by(|one, other| other.cmp(one));
        let time = self.quorum.checked_sub(1).map(|last| times[last]);
        Ok(Seen { checkpoint, note, time })
    }
}
