//! The sequencer: adds what counts to the log, one batch after the other, in the order of
//! durability that the head of `transparency.rs` draws.

use super::{
    Sealed,
    files::{Files, Kept},
    newest_place, seal,
};
use crate::{
    db::{Db, Fault},
    store,
};
use anyhow::Context as _;
use contract::StatementId;
use rusqlite::{Connection, params};
use std::{sync::Arc, time::Duration};
use tlog::{Edge, Hash, Record, Signer};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

/// Entries of one batch.
const BATCH_MAX: usize = 1024;
/// Looks for itself that often: a wake-up may be lost.
const INTERVAL: Duration = Duration::from_secs(5);
/// After a failure, such as a full disk.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(super) struct Sequencer {
    pub(super) db: Db,
    pub(super) files: Files,
    pub(super) signer: Signer,
    pub(super) origin: String,
    pub(super) edge: Edge,
    pub(super) signed: watch::Sender<Sealed>,
}

impl Sequencer {
    /// Goes on until nobody reads the log any more. May be dropped at any point before.
    pub(super) async fn run(mut self, wake: Arc<Notify>) {
        while !self.signed.is_closed() {
            match self.turn().await {
                Ok(true) => {}
                // A wait that ends by itself is as good as one that was ended.
                Ok(false) => drop(timeout(INTERVAL, wake.notified()).await),
                Err(error) => {
                    crate::log(&format!("adding to the log: {error:#}"));
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Adds one batch. Says whether there was anything to add.
    async fn turn(&mut self) -> anyhow::Result<bool> {
        // What won and could not be signed, because the disk was full, comes first.
        self.sign().await?;
        let old = (self.edge.size(), self.edge.root());
        let newest = self.db.read(newest_place).await.map_err(Fault::into_error)?;
        if newest <= old.0 {
            return Ok(false);
        }
        let records = self.db.write(move |db| records(db, old.0)).await;
        let records = records.map_err(Fault::into_error).context("making records")?;
        let (files, mut edge) = (self.files.clone(), self.edge.clone());
        let edge = tokio::task::spawn_blocking(move || {
            files.append(&mut edge, &records)?;
            Ok::<_, anyhow::Error>(edge)
        });
        let edge = edge.await.context("writing tiles")?.context("writing tiles")?;
        let new = (edge.size(), edge.root());
        self.db.write(move |db| swap(db, old, new)).await.map_err(Fault::into_error)?;
        self.edge = edge;
        self.sign().await?;
        Ok(true)
    }

    /// Signs the state that has won, and no other of this size ever will. That it is bound is on the
    /// disk before anybody sees it.
    async fn sign(&self) -> anyhow::Result<()> {
        let (old, new) = (self.signed.borrow().size, self.edge.size());
        if old == new {
            return Ok(());
        }
        let sealed = seal(&self.signer, &self.origin, new, self.edge.root())?;
        let (files, note) = (self.files.clone(), sealed.note.clone());
        let keep = tokio::task::spawn_blocking(move || files.keep(Kept::Signed, &note));
        keep.await.context("signing")??;
        self.signed.send_replace(sealed);
        Ok(())
    }
}

/// The records from this place on. They are made here, once.
fn records(connection: &Connection, size: u64) -> Result<Vec<Vec<u8>>, Fault> {
    let first = i64::try_from(size).context("the log is too large")?;
    let most = i64::try_from(BATCH_MAX).context("a batch is too large")?;
    let mut known = connection.prepare_cached(
        "SELECT place, record FROM records WHERE place > ?1 ORDER BY place LIMIT ?2",
    )?;
    let known = known.query_map([first, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut records: Vec<(i64, Vec<u8>)> = known.collect::<rusqlite::Result<_>>()?;
    let known = i64::try_from(records.len()).context("a batch is too large")?;
    let mut fresh = connection.prepare_cached(
        "SELECT place, id FROM statements WHERE place > ?1 ORDER BY place LIMIT ?2",
    )?;
    let fresh = fresh.query_map([first + known, most - known], |row| {
        Ok((row.get::<_, i64>(0)?, store::hash(row, 1)?))
    })?;
    for row in fresh {
        let (place, id) = row?;
        let envelope = store::envelope(connection, &StatementId(id))?;
        let record = Record::of(&envelope).context("making a record")?.write().to_vec();
        connection
            .prepare_cached("INSERT INTO records (place, record) VALUES (?1, ?2)")?
            .execute(params![place, record])?;
        records.push((place, record));
    }
    // Entry and place are one apart: a gap would shift everything after it.
    let is_row = records.iter().zip(first + 1..).all(|((place, _), wanted)| *place == wanted);
    if !is_row {
        return Err(anyhow::anyhow!("the places of statements have a gap").into());
    }
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// The one step by which the log grows. It fails when somebody else has made it grow.
fn swap(connection: &Connection, old: (u64, Hash), new: (u64, Hash)) -> Result<(), Fault> {
    let size = |size: u64| i64::try_from(size).context("the log is too large");
    let changed = connection
        .prepare_cached("UPDATE log SET size = ?1, root = ?2 WHERE size = ?3 AND root = ?4")?
        .execute(params![size(new.0)?, new.1, size(old.0)?, old.1])?;
    if changed == 1 {
        return Ok(());
    }
    Err(anyhow::anyhow!("the log has another state than this sequencer knows").into())
}
