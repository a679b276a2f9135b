//! What anybody can ask a registry for: proofs, statements, and the entries of its log. Waits for
//! what witnesses still have to cosign, and for nothing else.

use crate::wire::{self, Answer, Line};
use anyhow::{Context as _, Result, bail, ensure};
use contract::{Envelope, StatementId};
use registry_api::paths;
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};
use tlog::{Checkpoint, Policy, Proof, Tile, tile::WIDTH_MAX};

/// The registry has asked its witnesses again by then, which it does after a minute at most.
const PATIENCE: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(20);

fn ask(registry: SocketAddr, path: &str) -> Result<Answer> {
    Line::open(registry)?.ask(&wire::get(path, None)).with_context(|| format!("asking for {path}"))
}

/// Waits while too few witnesses have cosigned.
fn shown_soon(registry: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Answer { status, body, .. } = ask(registry, path)?;
        match status {
            200 => return Ok(body),
            503 if Instant::now() < deadline => thread::park_timeout(PAUSE),
            other => bail!("{path}: status {other}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

/// The newest checkpoint, which counts by the policy.
pub(super) fn shown(registry: SocketAddr, policy: &Policy) -> Result<Checkpoint> {
    let note = shown_soon(registry, paths::CHECKPOINT)?;
    Ok(policy.open(&note).context("checking the checkpoint that is shown")?.checkpoint)
}

/// That a statement is in the log: where, and under which checkpoint.
pub(super) fn proof(
    registry: SocketAddr,
    id: &StatementId,
    policy: &Policy,
) -> Result<(u64, Checkpoint)> {
    let proof = shown_soon(registry, &paths::proof(id))?;
    let proof = Proof::read(&proof).context("reading a proof")?;
    let (_, seen) = proof
        .check_statement(id, policy)
        .with_context(|| format!("checking that {id} is in the log"))?;
    Ok((proof.index, seen.checkpoint))
}

/// That the registry has a statement, whole.
pub(super) fn statement(registry: SocketAddr, id: &StatementId) -> Result<()> {
    let answer = ask(registry, &paths::statement(id))?;
    ensure!(answer.status == 200, "the statement {id}: status {}", answer.status);
    let envelope: Envelope = serde_json::from_slice(&answer.body)?;
    ensure!(envelope.id()? == *id, "{id} is not what came for it");
    Ok(())
}

/// Gives each entry from `old` to below `new` to `take`, in order.
pub(super) fn entries(
    registry: SocketAddr,
    old: u64,
    new: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let bundles = tlog::tile::new_tiles(old, new).into_iter().filter_map(Tile::bundle);
    for bundle in bundles {
        let full = tlog::Bundle { width: WIDTH_MAX, ..bundle };
        let mut found = (bundle, ask(registry, &format!("/{bundle}"))?);
        if found.1.status == 404 && bundle.width < WIDTH_MAX {
            // A partial one goes when the full one has come.
            found = (full, ask(registry, &format!("/{full}"))?);
        }
        let (found, answer) = found;
        ensure!(answer.status == 200, "{found}: status {}", answer.status);
        let first = bundle.index * u64::from(WIDTH_MAX);
        let entries = found.read(&answer.body)?.into_iter().take(bundle.width.into());
        for (_, entry) in (first..).zip(entries).filter(|(index, _)| *index >= old) {
            take(entry)?;
        }
    }
    Ok(())
}
