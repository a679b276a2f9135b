//! The sequencer: adds what counts to the log, one batch after the other, in the order of
//! durability that the head of `transparency.rs` draws.

use super::{
    Sealed,
    files::{Files, Kept},
    head, newest_place, seal,
};
use crate::{
    db::{self, Db, Fault},
    sql::Connection,
    store,
};
use anyhow::Context as _;
use contract::StatementId;
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
const OTHER_STATE: &str = "the log has another state than this sequencer knows";

pub(super) struct Sequencer {
    db: Db,
    files: Files,
    signer: Signer,
    origin: String,
    edge: Edge,
    /// What the last swap was to lead to, as long as it is not known whether it has.
    attempted: Option<Edge>,
    signed: watch::Sender<Sealed>,
}

impl Sequencer {
    pub(super) fn new(
        db: Db,
        files: Files,
        signer: Signer,
        origin: String,
        edge: Edge,
        signed: watch::Sender<Sealed>,
    ) -> Self {
        Self { db, files, signer, origin, edge, attempted: None, signed }
    }

    /// Goes on until nobody reads the log any more. May be dropped at any point before.
    pub(super) async fn run(mut self, wake: Arc<Notify>) {
        while !self.signed.is_closed() {
            match self.turn().await {
                Ok(true) => {}
                // A wait that ends by itself is as good as one that was ended.
                Ok(false) => drop(timeout(INTERVAL, wake.notified()).await),
                Err(error) => {
                    // That the database is gone is told where it is noticed, and once.
                    if !db::is_lost(&error) {
                        crate::log(&format!("adding to the log: {error:#}"));
                    }
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Adds one batch. Says whether there was anything to add.
    async fn turn(&mut self) -> anyhow::Result<bool> {
        self.settle().await?;
        // What won and could not be signed, because the disk was full, comes first.
        self.sign().await?;
        let old = state(&self.edge);
        let newest = self.db.read(move |db| newest_place(db, old.0)).await;
        let newest = newest.map_err(Fault::into_error)?;
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
        let new = state(&edge);
        self.attempted = Some(edge.clone());
        self.db.write(move |db| swap(db, old, new)).await.map_err(Fault::into_error)?;
        (self.edge, self.attempted) = (edge, None);
        self.sign().await?;
        Ok(true)
    }

    /// Finds out what became of a swap whose answer was lost: our own success is nobody else's. Asked
    /// as a write, because a commit that is late is over before another one may begin.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let Some(attempted) = &self.attempted else { return Ok(()) };
        let found = self.db.write(head).await.map_err(Fault::into_error)?;
        let found = found.map(|head| (head.size, head.root));
        if found == Some(state(attempted)) {
            self.edge = attempted.clone();
        } else if found != Some(state(&self.edge)) {
            anyhow::bail!(OTHER_STATE);
        }
        self.attempted = None;
        Ok(())
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

fn state(edge: &Edge) -> (u64, Hash) {
    (edge.size(), edge.root())
}

/// The records from this place on. They are made here, once.
fn records(connection: &Connection, size: u64) -> Result<Vec<Vec<u8>>, Fault> {
    let first = i64::try_from(size).context("the log is too large")?;
    let most = i64::try_from(BATCH_MAX).context("a batch is too large")?;
    let sql = "SELECT place, record FROM records WHERE place > ?1 ORDER BY place LIMIT ?2";
    let mut records: Vec<(i64, Vec<u8>)> =
        connection.query(sql, &[&first, &most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let known = i64::try_from(records.len()).context("a batch is too large")?;
    let sql = "SELECT place, id FROM statements WHERE place > ?1 ORDER BY place LIMIT ?2";
    let fresh = connection.query(sql, &[&(first + known), &(most - known)], |row| {
        Ok((row.get::<i64>(0)?, store::hash(row, 1)?))
    })?;
    for (place, id) in fresh {
        let envelope = store::envelope(connection, &StatementId(id))?;
        let record = Record::of(&envelope).context("making a record")?.write().to_vec();
        let sql = "INSERT INTO records (place, record) VALUES (?1, ?2)";
        connection.execute(sql, &[&place, &record])?;
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
    let sql = "UPDATE log SET size = ?1, root = ?2 WHERE size = ?3 AND root = ?4";
    let changed = connection.execute(sql, &[&size(new.0)?, &new.1, &size(old.0)?, &old.1])?;
    if changed == 1 {
        return Ok(());
    }
    Err(anyhow::anyhow!(OTHER_STATE).into())
}
