//! Which log the node asks, and what of its answers it takes. Pure.
//!
//! A checkpoint counts by the policy of the boot options only, and only if it continues the newest one
//! that the node has taken: a log that shrinks, or shows another past, has nothing proven here.

use contract::{Logged, StatementId};
use node_api::boot::LogConfig;
use registry_api::log::Shown;
use tlog::{
    Checkpoint, Policy, Verifier, note::BadKey, policy::BadPolicy, policy::PolicyError,
    proof::ProofError,
};

/// What the boot options say about the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing: contracts start without proof that they are in one.
    No,
    /// This log, with these witnesses.
    Log(Box<Policy>),
    /// Something that says nothing: no contract starts.
    Unclear(Unclear),
}

/// Why the options mean no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unclear {
    #[error("zos.witness and zos.quorum say nothing without zos.log")]
    NoLog,
    #[error("zos.log names two logs, {0} and {1}")]
    TwoLogs(String, String),
    #[error("zos.quorum is given once, as a number, whenever there is a zos.witness")]
    Quorum,
    #[error("the key {word:?}")]
    Key {
        word: String,
        #[source]
        source: BadKey,
    },
    #[error("the log and its witnesses")]
    Policy(#[source] BadPolicy),
}

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the log has shown {known} entries, and now shows {found}")]
    Smaller { known: u64, found: u64 },
    #[error("the log has shown two different lists of {size} entries")]
    Forked { size: u64 },
    #[error("the log shows {found} entries, and not that they begin with the {known} known ones")]
    Unproven { known: u64, found: u64 },
    #[error("the log was asked what follows {asked} entries, and {known} are known by now")]
    Late { known: u64, asked: u64 },
    #[error("the checkpoint of the log")]
    Checkpoint(#[source] PolicyError),
    #[error("the proof of the statement {}", .0.short())]
    Proof(StatementId, #[source] ProofError),
}

impl Refused {
    /// Whether the log itself is to blame: it has signed what it may not.
    pub(crate) fn is_alarm(&self) -> bool {
        match self {
            Self::Smaller { .. } | Self::Forked { .. } | Self::Unproven { .. } => true,
            Self::Late { .. } | Self::Checkpoint(_) | Self::Proof(..) => false,
        }
    }
}

impl Asked {
    /// Understands the options.
    pub(crate) fn read(config: &LogConfig) -> Self {
        if config.is_empty() {
            return Self::No;
        }
        policy(config).map_or_else(Self::Unclear, |policy| Self::Log(Box::new(policy)))
    }

    /// What is known of a contract of which these versions were proven; of its statements nothing yet.
    pub(crate) fn logged(&self, settled: u64) -> Logged {
        match self {
            Self::No => Logged::NotAsked,
            Self::Log(_) => Logged::Only { settled, ids: [].into() },
            // What was proven by other options is not what these mean, whatever they mean.
            Self::Unclear(_) => Logged::Only { settled: 0, ids: [].into() },
        }
    }
}

fn policy(config: &LogConfig) -> Result<Policy, Unclear> {
    let keys = verifiers(&config.keys)?;
    let witnesses = verifiers(&config.witnesses)?;
    let first = keys.first().ok_or(Unclear::NoLog)?.name().to_owned();
    if let Some(other) = keys.iter().find(|key| key.name() != first) {
        return Err(Unclear::TwoLogs(first, other.name().to_owned()));
    }
    let quorum = match config.quorum.as_slice() {
        [] if witnesses.is_empty() => 0,
        [quorum] => quorum.parse().map_err(|_| Unclear::Quorum)?,
        _ => return Err(Unclear::Quorum),
    };
    Policy::new(&first, keys, witnesses, quorum).map_err(Unclear::Policy)
}

fn verifiers(words: &[String]) -> Result<Vec<Verifier>, Unclear> {
    let verifier =
        |word: &String| word.parse().map_err(|source| Unclear::Key { word: word.clone(), source });
    words.iter().map(verifier).collect()
}

/// All that a policy says, in one line, to see whether it has changed.
pub(crate) fn keys(policy: &Policy) -> String {
    let mut words: Vec<String> = policy.keys().iter().map(Verifier::to_string).collect();
    words.push(policy.quorum().to_string());
    words.extend(policy.witnesses().iter().map(Verifier::to_string));
    words.join(" ")
}

/// A checkpoint that this node has written down itself, if it is of the log that is asked now: one that
/// was begun anew, or has another key, is another log, also under the same name.
pub(crate) fn written(policy: &Policy, text: &str) -> Option<Checkpoint> {
    let (checkpoint, _) = Checkpoint::open(text.as_bytes(), policy.origin(), policy.keys()).ok()?;
    Some(checkpoint)
}

/// A checkpoint that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The newest one that is known from now on.
    pub(crate) newest: Checkpoint,
    /// The statement that is proven under it.
    pub(crate) proven: Result<Option<StatementId>, Refused>,
}

/// Takes an answer of the log, if it continues what is known.
pub(crate) fn take(
    policy: &Policy,
    known: Option<&Checkpoint>,
    shown: &Shown,
) -> Result<Taken, Refused> {
    let seen = policy.open(shown.note.to_string().as_bytes()).map_err(Refused::Checkpoint)?;
    let newest = seen.checkpoint;
    if let Some(known) = known {
        let (known_size, found) = (known.size, newest.size);
        if found < known_size {
            return Err(Refused::Smaller { known: known_size, found });
        }
        if found == known_size && newest.root != known.root {
            return Err(Refused::Forked { size: found });
        }
        // Between two answers the known one may have grown, or not grown as whoever asked believed.
        if found > known_size && shown.from != known_size {
            return Err(Refused::Late { known: known_size, asked: shown.from });
        }
        if found > known_size && !newest.extends(known, &shown.consistency) {
            return Err(Refused::Unproven { known: known_size, found });
        }
    }
    let proven = shown.proof.as_ref().map(|(id, proof)| {
        // Under the checkpoint that was judged, whatever else the proof came with.
        let found = proof.holds_statement(id, &newest);
        found.map(|_| *id).map_err(|error| Refused::Proof(*id, error))
    });
    Ok(Taken { proven: proven.transpose(), newest })
}

#[cfg(test)]
pub(crate) mod tests;
