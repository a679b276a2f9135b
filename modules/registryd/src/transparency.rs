//! The transparency log: every statement that counts becomes one entry, in the order of places.
//!
//! ```text
//! statement (SQL, synced) → record (SQL, synced) → tiles (files, synced)
//!     → size and root, by compare-and-swap (SQL, synced) → signed, served → acknowledged
//! ```
//!
//! Each step waits for the disk before the next one begins (docs/decisions/0014). A step that was
//! cut off is repeated and does the same again. Nothing here goes back: what contradicts the
//! state, on the disk or in the database, stops the log and never changes it.

pub mod files;
pub mod fsck;
pub mod key;
mod sequence;

use crate::{
    db::{Db, Fault},
    refusal,
};
use anyhow::Context as _;
use files::Files;
use registry_api::problem::codes;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::{path::Path, sync::Arc, time::Duration};
use tlog::{Checkpoint, Edge, Hash, Note, Proof, Signer, tree};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

/// A statement is acknowledged once the log has it, or refused for now after this time.
const TIMEOUT_LOGGED: Duration = Duration::from_secs(10);

/// How far the log is, by the row that everything hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which log it is.
    pub origin: String,
    /// Its public key.
    pub key: String,
    /// Entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// A log that goes on. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    files: Files,
    wake: Arc<Notify>,
    published: watch::Receiver<Published>,
}

/// What the log has signed last.
#[derive(Debug, Clone)]
struct Published {
    size: u64,
    note: Note,
}

/// Begins the log of a registry, once and for ever. Gives its public key.
pub fn begin(connection: &Connection, data: &Path, origin: &str) -> anyhow::Result<String> {
    if let Some(head) = head(connection).map_err(Fault::into_error)? {
        anyhow::bail!("the log {} has begun already, with the key {}", head.origin, head.key);
    }
    let signer = key::create(data, origin)?;
    let key = signer.verifier().to_string();
    connection
        .execute(
            "INSERT INTO log (one, origin, key, size, root) VALUES (1, ?1, ?2, 0, ?3)",
            params![origin, key, Edge::default().root()],
        )
        .context("writing the first state of the log")?;
    Ok(key)
}

/// How far the log is; `None` when it has not begun.
pub fn head(connection: &Connection) -> Result<Option<Head>, Fault> {
    let row = connection
        .prepare_cached("SELECT origin, key, size, root FROM log")?
        .query_row([], |row| {
            let size: i64 = row.get(2)?;
            let size = u64::try_from(size).unwrap_or(0);
            Ok(Head { origin: row.get(0)?, key: row.get(1)?, size, root: row.get(3)? })
        })
        .optional()?;
    Ok(row)
}

/// Takes up the log where it was left, if it has begun: serves it, and adds what is missing.
pub async fn start(db: &Db, data: &Path) -> anyhow::Result<Option<(Log, JoinHandle<()>)>> {
    let head = db.read(head).await.map_err(Fault::into_error)?;
    let Some(head) = head else { return Ok(None) };
    let signer = key::load(data, &head)?;
    let files = Files::new(data);
    let edge = files.edge(head.size).context("taking up the log")?;
    anyhow::ensure!(
        edge.root() == head.root,
        "the files of the log have another root than the database: see `registryd fsck`"
    );
    let first = sign(&signer, &head.origin, head.size, head.root)?;
    if let Some(signed) = files.checkpoint()? {
        anyhow::ensure!(
            signed.size <= head.size,
            "the log has signed {} entries and the database knows {}: it is older than the log, \
             which never goes back",
            signed.size,
            head.size
        );
    }
    files.publish(&first.note)?;
    let (sender, published) = watch::channel(first);
    let wake = Arc::new(Notify::new());
    let log = Log { files: files.clone(), wake: Arc::clone(&wake), published };
    let (db, origin) = (db.clone(), head.origin);
    let sequencer = sequence::Sequencer { db, files, signer, origin, edge, published: sender };
    Ok(Some((log, tokio::spawn(sequencer.run(wake)))))
}

fn sign(signer: &Signer, origin: &str, size: u64, root: Hash) -> anyhow::Result<Published> {
    let checkpoint = Checkpoint { origin: origin.into(), size, root, extensions: Vec::new() };
    let mut note = Note::new(checkpoint.to_string())?;
    // Ed25519 signs the same text in the same way each time; a log writes no time.
    note.add(signer.sign(note.text(), 0))?;
    Ok(Published { size, note })
}

impl Log {
    /// The newest checkpoint.
    pub fn checkpoint(&self) -> String {
        self.published.borrow().note.to_string()
    }

    /// Entries that the newest checkpoint covers.
    pub fn size(&self) -> u64 {
        self.published.borrow().size
    }

    /// The files that are served.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Returns when everything that counts by now is in the log, so that it may be acknowledged.
    pub async fn covers(&self, db: &Db) -> Result<(), Fault> {
        let newest = db.read(newest_place).await?;
        self.wake.notify_one();
        let mut published = self.published.clone();
        let wait = published.wait_for(|published| published.size >= newest);
        if let Ok(Ok(_)) = timeout(TIMEOUT_LOGGED, wait).await {
            return Ok(());
        }
        let text = "the statement is stored, and the log has not taken it yet";
        let hint = "Send it again later: a second time changes nothing.";
        Err(refusal(503, codes::UNAVAILABLE, text, hint))
    }

    /// The proof that an entry is in the log. `None` when it is not there yet. Reads files.
    pub fn proof(&self, index: u64) -> anyhow::Result<Option<Proof>> {
        let Published { size, note } = self.published.borrow().clone();
        let Some(ranges) = tree::inclusion(index, size) else { return Ok(None) };
        let path = tree::hashes(ranges, |node| self.files.hash(node, size))?;
        Ok(Some(Proof { extra: None, index, path, note }))
    }
}

/// The highest place of a statement that counts: so many entries the log is to have.
fn newest_place(connection: &Connection) -> Result<u64, Fault> {
    crate::store::count(connection, "SELECT COALESCE(MAX(place), 0) FROM statements", &[])
}
