//! The witness: what it answers to a request, and in which order it does what that needs.
//!
//! ```text
//! read → log known? → judge → write and sync → sign → answer
//!                       └ refuse (and keep the evidence)
//! ```

use crate::{
    config::Log,
    store::{Evidence, LogStore, Store},
};
use anyhow::Context as _;
use contract::id::sha256;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tlog::{
    Checkpoint, Note, Signer, Verifier,
    note::Signed,
    witness::{AddCheckpoint, BadRequest, Refusal},
};

/// Watches logs and cosigns what only grows.
#[derive(Debug)]
pub struct Witness {
    signer: Signer,
    logs: BTreeMap<String, Watched>,
    now: fn() -> u64,
    // Held for its lock.
    _store: Store,
}

#[derive(Debug)]
struct Watched {
    keys: Vec<Verifier>,
    store: LogStore,
    // Judging and keeping are one step: two requests must not both follow the same checkpoint.
    last: Mutex<Option<Last>>,
}

/// The newest checkpoint that is on the disk.
#[derive(Debug, Clone)]
struct Last {
    checkpoint: Checkpoint,
    /// As the log has signed it, and we after it.
    note: Note,
}

/// Why no cosignature is given.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The request cannot be read.
    #[error("reading the request")]
    Malformed(#[source] BadRequest),
    /// It is about a log that is not watched.
    #[error("the log {origin} is not watched here")]
    Unknown {
        /// The log.
        origin: String,
    },
    /// What it says is refused.
    #[error("the checkpoint is not cosigned")]
    Refused(#[source] Refusal),
    /// Our own doing: nothing was signed.
    #[error("the checkpoint could not be kept")]
    Broken(#[source] anyhow::Error),
}

impl Witness {
    /// Takes up the logs where they were left. The newest checkpoint of each is signed anew, for
    /// those who ask for it: it still is the newest that this witness has seen.
    pub fn open(
        store: Store,
        signer: Signer,
        logs: Vec<Log>,
        now: fn() -> u64,
    ) -> anyhow::Result<Self> {
        let mut watched = BTreeMap::new();
        for log in logs {
            let taking = || format!("taking up the log {}", log.origin);
            let kept = store.log(&log.origin).with_context(taking)?;
            let last = kept.checkpoint().with_context(taking)?;
            let last = last
                .map(|bytes| {
                    // Signatures were checked before it was kept, and keys may change.
                    let note = Note::read(&bytes)?;
                    let checkpoint: Checkpoint = note.text().parse()?;
                    anyhow::ensure!(checkpoint.origin == log.origin, "it is another log's");
                    cosigned(&signer, now(), checkpoint, note)
                })
                .transpose()
                .context("its checkpoint is damaged: this witness cannot sign for it any more")
                .with_context(taking)?;
            let log_watched = Watched { keys: log.keys, store: kept, last: Mutex::new(last) };
            watched.insert(log.origin, log_watched);
        }
        Ok(Self { signer, logs: watched, now, _store: store })
    }

    /// The public key by which others know this witness.
    pub fn key(&self) -> &Verifier {
        self.signer.verifier()
    }

    /// Answers a request: the line of our signature. Blocks until the disk has the checkpoint.
    pub fn add(&self, body: &[u8]) -> Result<String, Fault> {
        let request = AddCheckpoint::read(body).map_err(Fault::Malformed)?;
        let origin = &request.checkpoint.origin;
        let log = self.logs.get(origin);
        let log = log.ok_or_else(|| Fault::Unknown { origin: origin.clone() })?;
        let mut last = log.last();
        let before = last.as_ref().map(|last| &last.checkpoint);
        if let Err(refusal) = request.judge(&log.keys, before) {
            if let (Refusal::Inconsistent { .. }, Some(last)) = (&refusal, last.as_ref()) {
                accuse(&log.store, &request, last);
            }
            return Err(Fault::Refused(refusal));
        }
        let note = signed_by_log(&request, &log.keys).map_err(Fault::Broken)?;
        // On the disk before it is signed: a signature cannot be taken back.
        log.store.keep(&note.to_string()).map_err(Fault::Broken)?;
        let line = self.signer.sign(note.text(), (self.now)());
        let mut served = note;
        served.add(line.clone()).map_err(|error| Fault::Broken(error.into()))?;
        *last = Some(Last { checkpoint: request.checkpoint, note: served });
        Ok(line.to_string())
    }

    /// The newest checkpoint of a log with our signature, by the hash of its origin.
    pub fn newest(&self, origin_hash: &str) -> Option<String> {
        let is_it = |origin: &str| hex::encode(sha256(origin.as_bytes())) == origin_hash;
        let (_, log) = self.logs.iter().find(|(origin, _)| is_it(origin))?;
        log.last().as_ref().map(|last| last.note.to_string())
    }
}

impl Watched {
    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        // Whoever panicked while holding it had not changed it yet.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cosigned(
    signer: &Signer,
    now: u64,
    checkpoint: Checkpoint,
    mut note: Note,
) -> anyhow::Result<Last> {
    note.add(signer.sign(note.text(), now))?;
    Ok(Last { checkpoint, note })
}

/// The note with the lines of the log's known keys alone: anybody can add others.
fn signed_by_log(request: &AddCheckpoint, keys: &[Verifier]) -> anyhow::Result<Note> {
    let mut note = Note::new(request.note.text().into())?;
    for line in request.note.lines() {
        let mut alone = Note::new(request.note.text().into())?;
        alone.add(line.clone())?;
        let is_known = |key| alone.signed_by(key).is_ok_and(|signed| signed != Signed::Absent);
        if keys.iter().any(is_known) {
            note.add(line.clone())?;
        }
    }
    Ok(note)
}

/// Keeps what shows that the log has not only grown. Failing to is told, and changes no answer.
fn accuse(store: &LogStore, request: &AddCheckpoint, last: &Last) {
    let is_fork = request.checkpoint.size == last.checkpoint.size
        && request.checkpoint.root != last.checkpoint.root;
    let evidence = if is_fork { Evidence::Fork } else { Evidence::Unproven };
    let origin = &request.checkpoint.origin;
    let text = format!(
        "The log {origin}\nhas signed this checkpoint, which this witness has cosigned:\n\n{}\n\
         and later came this request, with a checkpoint that the log has signed too:\n\n{request}",
        last.note
    );
    let kept = store.accuse(evidence, request.note.text().as_bytes(), &text);
    report(origin, evidence, kept);
}

fn report(origin: &str, evidence: Evidence, kept: anyhow::Result<Option<PathBuf>>) {
    let what = match evidence {
        Evidence::Fork => "has signed two trees of one size",
        Evidence::Unproven => "has not shown that it only grew",
    };
    match kept {
        Ok(Some(path)) => crate::log(&format!("the log {origin} {what}: {}", path.display())),
        Ok(None) => {}
        Err(error) => crate::log(&format!("the log {origin} {what}, and: {error:#}")),
    }
}
