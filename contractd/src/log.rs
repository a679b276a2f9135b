//! Which log the node asks, and what of its answers it takes. Pure.
//!
//! A checkpoint counts by the policy of the boot options only, and only if it continues the newest one
//! that the node has taken: a log that shrinks, or shows another past, has nothing proven here. The first one
//! has to continue the one that the options name, if they do.

use contract::{Logged, StatementId, Timestamp};
use node_api::boot::LogConfig;
use registry_api::log::Shown;
use tlog::{
    Checkpoint, Policy, Verifier, note::BadKey, policy::BadPolicy, policy::PolicyError,
    proof::ProofError,
};

/// Shortest time after which what was cosigned counts no more, in seconds: a log that does not grow is
/// cosigned every five minutes, and not by all witnesses at once.
const FRESH_MIN_S: u64 = 900;
/// Longest one: a year.
const FRESH_MAX_S: u64 = 366 * 86_400;
/// Clocks of witnesses and nodes may differ by so much, in seconds.
const SKEW_S: u64 = 300;

/// What the boot options say about the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing: contracts start without proof that they are in one.
    No,
    /// This log.
    Log(Box<Terms>),
    /// Something that says nothing: no contract starts.
    Unclear(Unclear),
}

/// When a log is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Its keys and its witnesses.
    pub(crate) policy: Policy,
    /// What it has to continue.
    pub(crate) pinned: Option<Checkpoint>,
    /// Nothing is proven under what enough witnesses have last seen longer ago than this, in seconds.
    pub(crate) fresh_s: Option<u64>,
}

/// Why the options mean no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unclear {
    #[error("zos.witness, zos.quorum, zos.checkpoint and zos.fresh say nothing without zos.log")]
    NoLog,
    #[error("zos.log names two logs, {0} and {1}")]
    TwoLogs(String, String),
    #[error("zos.quorum is given once, as a number, whenever there is a zos.witness")]
    Quorum,
    #[error(
        "zos.checkpoint is given once, as SIZE+ROOT: the second and the third line of a checkpoint \
         that is not empty"
    )]
    Checkpoint,
    #[error(
        "zos.fresh is given once, from {FRESH_MIN_S} to {FRESH_MAX_S} seconds, and with a zos.quorum \
         from 1: it is the time of witnesses"
    )]
    Fresh,
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
    #[error(
        "the log shows {found} entries, and not that they begin with the {pinned} of zos.checkpoint"
    )]
    Elsewhere { pinned: u64, found: u64 },
    #[error(
        "the log was not yet asked whether it begins with the {pinned} entries of zos.checkpoint"
    )]
    Unheld { pinned: u64 },
    #[error("enough witnesses have last seen the log at {at}, longer ago than zos.fresh allows")]
    Stale { at: Timestamp },
    #[error(
        "enough witnesses have seen the log at {at}, which has yet to come by the node's own clock"
    )]
    Ahead { at: Timestamp },
    #[error("the log was asked what follows {asked} entries, and {known} are known by now")]
    Late { known: u64, asked: u64 },
    #[error("the checkpoint of the log")]
    Checkpoint(#[source] PolicyError),
    #[error("the proof of the statement {}", .0.short())]
    Proof(StatementId, #[source] ProofError),
}

impl Refused {
    /// Whether what the log has signed does not continue what is known, or is pinned.
    pub(crate) fn is_alarm(&self) -> bool {
        match self {
            Self::Smaller { .. }
            | Self::Forked { .. }
            | Self::Unproven { .. }
            | Self::Elsewhere { .. } => true,
            Self::Stale { .. }
            | Self::Ahead { .. }
            | Self::Unheld { .. }
            | Self::Late { .. }
            | Self::Checkpoint(_)
            | Self::Proof(..) => false,
        }
    }
}

impl Asked {
    /// Understands the options.
    pub(crate) fn read(config: &LogConfig) -> Self {
        if config.is_empty() {
            return Self::No;
        }
        terms(config).map_or_else(Self::Unclear, |terms| Self::Log(Box::new(terms)))
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

fn terms(config: &LogConfig) -> Result<Terms, Unclear> {
    let policy = policy(config)?;
    let pinned = match config.checkpoint.as_slice() {
        [] => None,
        [word] => Some(checkpoint(policy.origin(), word).ok_or(Unclear::Checkpoint)?),
        _ => return Err(Unclear::Checkpoint),
    };
    let fresh_s = match config.fresh.as_slice() {
        [] => None,
        [word] if policy.quorum() > 0 && word.bytes().all(|c| c.is_ascii_digit()) => {
            let seconds = word.parse().ok().filter(|s| (FRESH_MIN_S..=FRESH_MAX_S).contains(s));
            Some(seconds.ok_or(Unclear::Fresh)?)
        }
        _ => return Err(Unclear::Fresh),
    };
    Ok(Terms { policy, pinned, fresh_s })
}

fn checkpoint(origin: &str, word: &str) -> Option<Checkpoint> {
    let (size, root) = word.split_once('+')?;
    let checkpoint = format!("{origin}\n{size}\n{root}\n").parse().ok();
    // Every log continues the empty one.
    checkpoint.filter(|one: &Checkpoint| one.size > 0)
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

/// When enough witnesses had seen it, if they count by the options of now.
pub(crate) fn seen(policy: &Policy, text: &str) -> Option<u64> {
    policy.open(text.as_bytes()).ok()?.time
}

/// What is known of the log before an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    /// The newest checkpoint that was taken.
    pub(crate) newest: Option<Checkpoint>,
    /// The latest time at which enough witnesses have seen one that was taken.
    pub(crate) seen: Option<u64>,
    /// What the log was not yet shown to continue.
    pub(crate) unheld: Option<Checkpoint>,
}

/// A checkpoint that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The newest one that is known from now on.
    pub(crate) newest: Checkpoint,
    /// When enough witnesses had seen it.
    pub(crate) seen: Option<u64>,
    /// The statement that is proven under it.
    pub(crate) proven: Result<Option<StatementId>, Refused>,
}

/// Takes an answer of the log, if it continues what is known, and what it was not yet held against.
pub(crate) fn take(
    terms: &Terms,
    past: &Past,
    shown: &Shown,
    now: Timestamp,
) -> Result<Taken, Refused> {
    let seen = terms.policy.open(shown.note.to_string().as_bytes()).map_err(Refused::Checkpoint)?;
    let (newest, time) = (seen.checkpoint, seen.time);
    if let Some(known) = &past.newest {
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
    if let Some(unheld) = &past.unheld {
        let pinned = unheld.size;
        let proof = shown.pinned.as_ref().filter(|(from, _)| *from == pinned);
        let (_, proof) = proof.ok_or(Refused::Unheld { pinned })?;
        if !newest.extends(unheld, proof) {
            return Err(Refused::Elsewhere { pinned, found: newest.size });
        }
    }
    if let Err(refused) = fresh(terms, time, past.seen, now) {
        return Ok(Taken { newest, seen: time, proven: Err(refused) });
    }
    let proven = shown.proof.as_ref().map(|(id, proof)| {
        // Under the checkpoint that was judged, whatever else the proof came with.
        let found = proof.holds_statement(id, &newest);
        found.map(|_| *id).map_err(|error| Refused::Proof(*id, error))
    });
    Ok(Taken { proven: proven.transpose(), seen: time, newest })
}

/// Whether what enough witnesses saw at this time is new enough to prove something. A clock that is
/// behind what they have ever signed would find older things new.
fn fresh(
    terms: &Terms,
    time: Option<u64>,
    before: Option<u64>,
    now: Timestamp,
) -> Result<(), Refused> {
    let (Some(most), Some(time)) = (terms.fresh_s, time) else { return Ok(()) };
    let at = |time| Timestamp::from_seconds(i64::try_from(time).unwrap_or(i64::MAX));
    let now = u64::try_from(now.seconds()).unwrap_or(0);
    let latest = before.map_or(time, |before| before.max(time));
    if latest > now.saturating_add(SKEW_S) {
        Err(Refused::Ahead { at: at(latest) })
    } else if now.saturating_sub(time) > most {
        Err(Refused::Stale { at: at(time) })
    } else {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
