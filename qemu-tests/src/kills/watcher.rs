//! Reads the newest checkpoints that registry and witnesses show, all the time, and checks the
//! signatures of each. One that does not answer is down, and is asked again.

use crate::{
    house::WITNESSES,
    wire::{self, Line},
};
use anyhow::{Context as _, Result, bail};
use contract::id::sha256;
use registry_api::paths;
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use tlog::{Checkpoint, Policy, note::Signed};

/// Between two looks at everybody.
const PAUSE: Duration = Duration::from_millis(5);

/// A checkpoint that somebody has shown, in the order in which they were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Who has shown it: a witness by its number, or the registry, which comes after them.
    pub(super) by: usize,
    pub(super) checkpoint: Checkpoint,
    /// The witnesses that have signed it.
    pub(super) signers: Vec<usize>,
}

/// The registry's number among those who show checkpoints.
pub(super) const REGISTRY: usize = WITNESSES;

/// Goes on until it is told that it has seen enough.
pub(super) fn watch(
    registry: SocketAddr,
    witnesses: &[SocketAddr; WITNESSES],
    policy: &Policy,
    enough: &AtomicBool,
) -> Result<Vec<Sighting>> {
    let mut eyes = eyes(registry, witnesses, policy)?;
    let mut seen = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        for eye in &mut eyes {
            seen.extend(eye.news().unwrap_or(None).map(|note| eye.read(&note)).transpose()?);
        }
        thread::park_timeout(PAUSE);
    }
    Ok(seen)
}

/// What everybody shows now. All have to answer.
pub(super) fn look(
    registry: SocketAddr,
    witnesses: &[SocketAddr; WITNESSES],
    policy: &Policy,
) -> Result<Vec<Sighting>> {
    let mut seen = Vec::new();
    for mut eye in eyes(registry, witnesses, policy)? {
        let note = eye.news().with_context(|| format!("asking {}", eye.address))?;
        seen.extend(note.map(|note| eye.read(&note)).transpose()?);
    }
    Ok(seen)
}

struct Eye {
    by: usize,
    address: SocketAddr,
    request: Vec<u8>,
    /// A witness's has its own signature, the registry's those of a quorum.
    wanted: Policy,
    all: Policy,
    line: Option<Line>,
    last: Vec<u8>,
}

fn eyes(
    registry: SocketAddr,
    witnesses: &[SocketAddr; WITNESSES],
    policy: &Policy,
) -> Result<Vec<Eye>> {
    let hash: String =
        sha256(policy.origin().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let eye = |by, address, path: &str, wanted| Eye {
        by,
        address,
        request: wire::get(path, None),
        wanted,
        all: policy.clone(),
        line: None,
        last: Vec::new(),
    };
    let mut eyes = Vec::new();
    for (number, address) in witnesses.iter().enumerate() {
        let key = policy.witnesses().get(number).context("the policy names every witness")?;
        let wanted = Policy::new(policy.origin(), policy.keys().to_vec(), vec![key.clone()], 1)?;
        eyes.push(eye(number, *address, &format!("/{hash}/checkpoint"), wanted));
    }
    eyes.push(eye(REGISTRY, registry, paths::CHECKPOINT, policy.clone()));
    Ok(eyes)
}

impl Eye {
    /// What is shown, unless it is what was shown before. Nothing while nothing is cosigned. An error
    /// says that nobody answers.
    fn news(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = match self.line.take() {
            Some(line) => line,
            None => Line::open(self.address)?,
        };
        let answer = line.ask(&self.request)?;
        self.line = Some(line);
        match answer.status {
            200 if answer.body == self.last => Ok(None),
            200 => {
                self.last.clone_from(&answer.body);
                Ok(Some(answer.body))
            }
            404 | 503 => Ok(None),
            other => bail!("status {other} instead of a checkpoint"),
        }
    }

    fn read(&self, note: &[u8]) -> Result<Sighting> {
        let seen = self.wanted.open(note);
        let seen = seen.with_context(|| format!("checking what {} shows", self.address))?;
        let mut signers = Vec::new();
        for (number, key) in self.all.witnesses().iter().enumerate() {
            if seen.note.signed_by(key)? != Signed::Absent {
                signers.push(number);
            }
        }
        Ok(Sighting { by: self.by, checkpoint: seen.checkpoint, signers })
    }
}
