//! The transparency log: every statement that counts becomes one entry, in the order of places.
//!
//! ```text
//! statement (SQL, synced) → record (SQL, synced) → tiles (files, synced)
//!     → size and root, by compare-and-swap (SQL, synced) → signed (file, synced) → acknowledged
//!         → cosigned by witnesses → shown (file, synced)
//! ```
//!
//! Each step waits for the disk before the next one begins (docs/decisions/0014). A step that was
//! cut off is repeated and does the same again. Nothing here goes back: what contradicts the
//! state, on the disk or in the database, stops the log and never changes it. A log without
//! witnesses acknowledges what it shows; one that has them does not wait for them.

pub mod files;
pub mod fsck;
pub mod key;
mod publish;
mod rounds;
mod sequence;
mod witnesses;

pub use witnesses::Standing;

use crate::{
    db::{Db, Fault},
    refusal,
    sql::{Access, Connection},
};
use anyhow::Context as _;
use contract::StatementId;
use files::{Files, Kept};
use registry_api::problem::codes;
use std::{path::Path, sync::Arc, time::Duration};
use tlog::{Checkpoint, Edge, Hash, Note, Proof, Signer, tree};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};
use witnesses::Witnesses;

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
    origin: Arc<str>,
    files: Files,
    wake: Arc<Notify>,
    signed: watch::Receiver<Sealed>,
    public: watch::Receiver<Option<Sealed>>,
    standings: watch::Receiver<Vec<Standing>>,
}

/// A checkpoint that the log has signed.
#[derive(Debug, Clone)]
struct Sealed {
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
    let write = || {
        connection.begin(Access::Write)?;
        connection.execute(
            "INSERT INTO log (one, origin, key, size, root) VALUES (1, ?1, ?2, 0, ?3)",
            &[&origin, &key, &Edge::default().root()],
        )?;
        connection.commit()
    };
    write().context("writing the first state of the log")?;
    Ok(key)
}

/// How far the log is. A directory that has signed one is not served without it.
fn begun(head: Option<Head>, data: &Path) -> anyhow::Result<Option<Head>> {
    anyhow::ensure!(
        head.is_some() || Files::new(data).kept(Kept::Signed)?.is_none(),
        "a log is in {} that the database does not know: it is older than the log, or another one",
        data.display()
    );
    Ok(head)
}

/// How far the log is; `None` when it has not begun.
pub fn head(connection: &Connection) -> Result<Option<Head>, Fault> {
    Ok(connection.query_optional("SELECT origin, key, size, root FROM log", &[], |row| {
        let size: i64 = row.get(2)?;
        let size = u64::try_from(size).unwrap_or(0);
        Ok(Head { origin: row.get(0)?, key: row.get(1)?, size, root: row.get(3)? })
    })?)
}

/// Takes up the log where it was left, if it has begun: serves it, and adds what is missing. The
/// policy is a file that names the witnesses; without one, what is signed is shown. The tasks may be
/// aborted at any point.
pub async fn start(
    db: &Db,
    data: &Path,
    policy: Option<&Path>,
) -> anyhow::Result<Option<(Log, JoinSet<()>)>> {
    let head = db.read(head).await.map_err(Fault::into_error)?;
    let Some(head) = begun(head, data)? else {
        anyhow::ensure!(
            policy.is_none(),
            "this registry has no log for witnesses to watch: see `registryd begin-log`"
        );
        return Ok(None);
    };
    let signer = key::load(data, &head)?;
    let files = Files::new(data);
    let edge = files.edge(head.size).context("taking up the log")?;
    anyhow::ensure!(
        edge.root() == head.root,
        "the files of the log have another root than the database: see `registryd fsck`"
    );
    kept(&files, Kept::Signed, &signer, &head)?;
    let shown = kept(&files, Kept::Shown, &signer, &head)?;
    let witnesses = policy.map(|path| Witnesses::load(path, &head)).transpose()?;
    let newest = seal(&signer, &head.origin, head.size, head.root)?;
    files.keep(Kept::Signed, &newest.note)?;

    let (signed_sender, signed) = watch::channel(newest);
    let (public_sender, public) = watch::channel(shown);
    let (standings_sender, standings) = watch::channel(Vec::new());
    let publisher = publish::Publisher::new(
        files.clone(),
        registry_api::client::http()?,
        witnesses.unwrap_or_default(),
        signed.clone(),
        public_sender,
        standings_sender,
    );
    // Without witnesses, what was signed is shown from the first request on.
    publisher.publish().await?;
    let wake = Arc::new(Notify::new());
    let (origin, woken) = (head.origin.as_str().into(), Arc::clone(&wake));
    let log = Log { origin, files: files.clone(), wake, signed, public, standings };
    let (db, origin) = (db.clone(), head.origin);
    let sequencer = sequence::Sequencer::new(db, files, signer, origin, edge, signed_sender);
    let mut tasks = JoinSet::new();
    tasks.spawn(sequencer.run(woken));
    tasks.spawn(publisher.run());
    Ok(Some((log, tasks)))
}

/// A checkpoint that was signed earlier. It has to be of this log, and the log has to begin with it.
fn kept(
    files: &Files,
    which: Kept,
    signer: &Signer,
    head: &Head,
) -> anyhow::Result<Option<Sealed>> {
    let Some(bytes) = files.kept(which)? else { return Ok(None) };
    let keys = [signer.verifier().clone()];
    let opened = Checkpoint::open(&bytes, &head.origin, &keys);
    let (checkpoint, note) = opened.with_context(|| format!("reading {which} of the log"))?;
    let (size, known) = (checkpoint.size, head.size);
    is_as_new(Some(head), size)?;
    let root = tree::root(size, |node| files.hash(node, known)).context("taking up the log")?;
    anyhow::ensure!(
        root == checkpoint.root,
        "the log has signed another tree of {size} entries than the one that is here: see \
         `registryd fsck`"
    );
    Ok(Some(Sealed { size, note }))
}

/// A database that was put back under a registry is noticed before anything rests on it.
fn is_as_new(head: Option<&Head>, signed: u64) -> anyhow::Result<()> {
    let known =
        head.map(|head| head.size).context("the database does not know the log any more")?;
    anyhow::ensure!(
        signed <= known,
        "the log has signed {signed} entries and the database knows {known}: it is older than the \
         log, which never goes back"
    );
    Ok(())
}

fn seal(signer: &Signer, origin: &str, size: u64, root: Hash) -> anyhow::Result<Sealed> {
    let checkpoint = Checkpoint { origin: origin.into(), size, root, extensions: Vec::new() };
    let mut note = Note::new(checkpoint.to_string())?;
    // Ed25519 signs the same text in the same way each time; a log writes no time.
    note.add(signer.sign(note.text(), 0))?;
    Ok(Sealed { size, note })
}

impl Log {
    /// Which log it is.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The checkpoint that is shown. `None` before enough witnesses have cosigned the first one.
    pub fn checkpoint(&self) -> Option<String> {
        self.public.borrow().as_ref().map(|public| public.note.to_string())
    }

    /// Entries that the checkpoint covers that is shown.
    pub fn size(&self) -> u64 {
        self.public.borrow().as_ref().map_or(0, |public| public.size)
    }

    /// Entries that are signed, whether witnesses have cosigned them or not.
    pub fn size_signed(&self) -> u64 {
        self.signed.borrow().size
    }

    /// Where each witness is, in the order of the policy.
    pub fn standings(&self) -> Vec<Standing> {
        self.standings.borrow().clone()
    }

    /// The files that are served.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Returns when everything that counts by now is in the log, so that it may be acknowledged.
    pub async fn covers(&self, db: &Db) -> Result<(), Fault> {
        // Asked for first: the database is never behind what was signed before.
        let known = self.size_signed();
        let newest = db.read(move |db| newest_place(db, known)).await?;
        self.wake.notify_one();
        let (mut signed, mut public) = (self.signed.clone(), self.public.clone());
        // Witnesses may take long, and the statement is safe without them.
        let has_witnesses = !self.standings.borrow().is_empty();
        let covered = async {
            if has_witnesses {
                signed.wait_for(|signed| signed.size >= newest).await.is_ok()
            } else {
                let covers = |public: &Option<Sealed>| {
                    public.as_ref().is_some_and(|public| public.size >= newest)
                };
                public.wait_for(covers).await.is_ok()
            }
        };
        if timeout(TIMEOUT_LOGGED, covered).await == Ok(true) {
            return Ok(());
        }
        let text = "the statement is stored, and the log has not taken it yet";
        let hint = "Send it again later: a second time changes nothing.";
        Err(refusal(503, codes::UNAVAILABLE, text, hint))
    }

    /// The proof that an entry is in the log, which carries the entry. `None` while the checkpoint
    /// that is shown does not cover it. Reads files.
    pub fn proof(&self, entry: Entry) -> anyhow::Result<Option<Proof>> {
        let Some(Sealed { size, note }) = self.public.borrow().clone() else { return Ok(None) };
        let Entry { index, record: Some(record) } = entry else { return Ok(None) };
        let Some(ranges) = tree::inclusion(index, size) else { return Ok(None) };
        let path = tree::hashes(ranges, |node| self.files.hash(node, size))?;
        Ok(Some(Proof { extra: Some(record), index, path, note }))
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its index, from 0.
    pub index: u64,
    /// Its bytes. `None` while the statement has its place and nothing more.
    pub record: Option<Vec<u8>>,
}

/// The entry of a statement. `None` when the statement does not count, or is not known.
pub fn entry(connection: &Connection, id: &StatementId) -> Result<Option<Entry>, Fault> {
    let sql = "SELECT place, (SELECT record FROM records WHERE records.place = statements.place)
               FROM statements WHERE id = ?1 AND place IS NOT NULL";
    let row =
        connection.query_optional(sql, &[&id.0], |row| Ok((row.get::<i64>(0)?, row.get(1)?)))?;
    let Some((place, record)) = row else { return Ok(None) };
    let index = u64::try_from(place - 1).context("a place counts from 1")?;
    Ok(Some(Entry { index, record }))
}

/// The highest place of a statement that counts: so many entries the log is to have. Refuses a database
/// that does not know what was signed: there, another statement would have the place of an entry.
fn newest_place(connection: &Connection, signed: u64) -> Result<u64, Fault> {
    is_as_new(head(connection)?.as_ref(), signed)?;
    crate::store::count(connection, "SELECT COALESCE(MAX(place), 0) FROM statements", &[])
}
