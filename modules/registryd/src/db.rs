//! The database at work: one thread writes, a few connections read.
//!
//! A write is answered after its transaction is on the disk, so what was acknowledged survives a
//! power cut. Writes that wait together are committed together. A connection that is lost is opened
//! anew before the next transaction begins, and only then: one that had begun has failed.

mod database;

pub use database::{Database, has_begun, open, path, rebuild, take};

use crate::sql::{self, Access, Cause, Connection};
use anyhow::Context as _;
use registry_api::Problem;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Writes that may wait.
const QUEUE_MAX: usize = 1024;
/// Writes of one commit.
const BATCH_MAX: usize = 256;
/// Connections that read.
const READERS: usize = 4;
/// Of these, pages for people hold so many at once: whatever a page costs, the API goes on.
const READERS_PAGES: usize = 2;

/// Why something could not be done.
#[derive(Debug)]
pub enum Fault {
    /// The caller's doing.
    Refused(Box<Problem>),
    /// Ours.
    Broken(anyhow::Error),
}

impl Fault {
    /// For those whose caller is nobody.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Refused(problem) => anyhow::anyhow!("{problem}"),
            Self::Broken(error) => error,
        }
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<sql::SqlError> for Fault {
    fn from(error: sql::SqlError) -> Self {
        Self::Broken(anyhow::Error::new(error).context("asking the database"))
    }
}

/// Whether something could not be written because the disk is full.
pub fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let file = cause.downcast_ref::<io::Error>();
        file.is_some_and(|cause| cause.kind() == io::ErrorKind::StorageFull)
    }) || caused_by(error, Cause::Full)
}

/// Whether nothing more can be read from the same state of the database.
pub fn ends_transaction(error: &anyhow::Error) -> bool {
    let ends = |cause: &sql::SqlError| cause.ends_transaction();
    error.chain().any(|cause| cause.downcast_ref().is_some_and(ends))
}

/// Whether the database could not be asked. What had been sent for a commit may have been done.
pub fn is_lost(error: &anyhow::Error) -> bool {
    caused_by(error, Cause::Lost)
}

fn caused_by(error: &anyhow::Error, wanted: Cause) -> bool {
    let said = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<sql::SqlError>().map(sql::SqlError::cause)
    };
    error.chain().any(|cause| said(cause) == Some(wanted))
}

/// The database of one registry. Clones share it.
#[derive(Clone)]
pub struct Db {
    /// Nothing ends the thread that writes.
    writer: mpsc::Sender<Option<Box<dyn Work>>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    readers: Arc<Readers>,
}

struct Readers {
    free: Semaphore,
    pages: Semaphore,
    connections: Mutex<Vec<Slot>>,
    place: Place,
}

/// Where connections are opened.
#[derive(Clone)]
struct Place {
    database: Database,
    data: PathBuf,
    /// What is wrong with the way there, as it was said last.
    trouble: Arc<Mutex<Option<String>>>,
}

/// A connection that is of no use any more is dropped at once, and with it its lock.
type Slot = Option<Connection>;

impl Place {
    /// Begins a transaction, on a new connection if there is none that works: nothing was done on it.
    fn begin<'a>(&self, slot: &'a mut Slot, access: Access) -> anyhow::Result<&'a Connection> {
        let begun = slot.as_ref().map(|connection| connection.begin(access));
        if let Some(Err(error)) = begun {
            let lost = error.cause() == Cause::Lost;
            let error = anyhow::Error::new(error);
            if !lost {
                return Err(error);
            }
            self.tell(&error);
            *slot = None;
        }
        if slot.is_none() {
            let opened = self.database.reopen(&self.data, access).and_then(|connection| {
                connection.begin(access)?;
                Ok(connection)
            });
            *slot = Some(opened.inspect_err(|error| self.tell(error))?);
            if lock(&self.trouble).take().is_some() {
                crate::log("the database is there again");
            }
        }
        slot.as_ref().context("no connection is open")
    }

    /// Says in the log that the database cannot be reached: once, whoever asks how often.
    fn tell(&self, error: &anyhow::Error) {
        let words = format!("the database cannot be used: {error:#}");
        let mut trouble = lock(&self.trouble);
        if is_lost(error) && trouble.as_ref() != Some(&words) {
            crate::log(&words);
            *trouble = Some(words);
        }
    }

    /// Ends a transaction without keeping anything. A connection on which this fails is dropped.
    fn undo(&self, slot: &mut Slot) {
        let Some(Err(error)) = slot.as_ref().map(Connection::rollback) else { return };
        *slot = None;
        let error = anyhow::Error::new(error).context("undoing");
        if is_lost(&error) {
            self.tell(&error);
        } else {
            crate::log(&format!("{error:#}"));
        }
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Opens the database and starts the thread that writes.
    pub fn start(data: &Path, database: &Database) -> anyhow::Result<Self> {
        let trouble = Arc::default();
        let place = Place { database: database.clone(), data: data.to_owned(), trouble };
        let connection = database.open(data)?;
        let reader = |_| database.reopen(data, Access::Read).map(Some);
        let connections: anyhow::Result<_> = (0..READERS).map(reader).collect();
        let readers = Readers {
            free: Semaphore::new(READERS),
            pages: Semaphore::new(READERS_PAGES),
            connections: Mutex::new(connections?),
            place: place.clone(),
        };
        let (writer, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || write_all(&place, Some(connection), queue))
            .context("starting the thread that writes")?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok(Self { writer, thread, readers: Arc::new(readers) })
    }

    /// Ends the thread that writes, after all that waits for it and a last checkpoint. Writes that
    /// come later fail. A second call changes nothing.
    pub async fn stop(&self) -> anyhow::Result<()> {
        // An error says that the thread has ended already.
        drop(self.writer.send(None).await);
        let Some(thread) = lock(&self.thread).take() else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        let joined = joined.context("waiting for the thread that writes")?;
        joined.map_err(|_| anyhow::anyhow!("the thread that writes panicked"))
    }

    /// Runs `work` alone, and returns when its effects are on the disk. An error undoes them.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        let task = Task { work: Some(work), outcome: None, reply };
        let gone = || Fault::Broken(anyhow::anyhow!("the thread that writes has ended"));
        self.writer.send(Some(Box::new(task))).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The same as [`Db::read`] for a page, of which only a few are made at once.
    pub async fn read_page<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let db = self.clone();
        let task = async move {
            let _permit = db.readers.pages.acquire().await.map_err(anyhow::Error::new)?;
            db.read(work).await
        };
        // A caller that goes away does not end the work, which goes on holding its permit.
        tokio::spawn(task).await.map_err(|error| anyhow::Error::new(error).context("reading"))?
    }

    /// Runs `work` over one unchanging state of the database.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let readers = Arc::clone(&self.readers);
        let task = async move {
            let _permit = readers.free.acquire().await.map_err(|error| anyhow::anyhow!(error))?;
            let shared = Arc::clone(&readers);
            tokio::task::spawn_blocking(move || {
                let taken = lock(&shared.connections).pop();
                let Some(mut connection) = taken else {
                    return Err(Fault::Broken(anyhow::anyhow!("no connection is free")));
                };
                let outcome = snapshot(&shared.place, &mut connection, work);
                lock(&shared.connections).push(connection);
                outcome
            })
            .await
            .map_err(|error| anyhow::Error::new(error).context("reading"))?
        };
        // A caller that goes away must not take the permit back before the connection is back.
        tokio::spawn(task).await.map_err(|error| anyhow::Error::new(error).context("reading"))?
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn snapshot<T>(
    place: &Place,
    slot: &mut Slot,
    work: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let outcome = work(place.begin(slot, Access::Read)?);
    if let Err(Fault::Broken(error)) = &outcome {
        place.tell(error);
    }
    // What was read is of one state, however this ends.
    place.undo(slot);
    outcome
}

trait Work: Send {
    /// Whether the effects are to be kept.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells the caller, with what kept the effects from being committed.
    fn answer(self: Box<Self>, failure: Option<Cause>);
}

struct Task<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, Fault>>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T, Fault> + Send> Work for Task<F, T> {
    fn run(&mut self, connection: &Connection) -> bool {
        self.outcome = self.work.take().map(|work| work(connection));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, failure: Option<Cause>) {
        let outcome = match (self.outcome, failure) {
            (Some(Err(fault @ Fault::Broken(_))), _) => Err(fault),
            (Some(outcome), None) => outcome,
            // The same for each of a batch, also where it was refused for what another one wrote; the
            // error itself is logged once.
            (Some(_) | None, cause) => {
                Err(sql::SqlError::NotCommitted(cause.unwrap_or(Cause::Other)).into())
            }
        };
        // Nobody listens any more when the caller has gone away.
        drop(self.reply.send(outcome));
    }
}

fn write_all(place: &Place, mut slot: Slot, mut queue: mpsc::Receiver<Option<Box<dyn Work>>>) {
    let mut next = queue.blocking_recv().flatten();
    while let Some(first) = next {
        let mut batch = vec![first];
        let mut ends = false;
        while batch.len() < BATCH_MAX
            && let Ok(more) = queue.try_recv()
        {
            let Some(work) = more else {
                ends = true;
                break;
            };
            batch.push(work);
        }
        let failure = commit(place, &mut slot, &mut batch).err();
        if let Some(error) = failure.as_ref().filter(|error| !is_lost(error)) {
            crate::log(&format!("committing {} writes: {error:#}", batch.len()));
        }
        let failure = failure.map(|error| {
            let lost = is_lost(&error).then_some(Cause::Lost);
            lost.or(is_full(&error).then_some(Cause::Full)).unwrap_or(Cause::Other)
        });
        for work in batch {
            work.answer(failure);
        }
        next = if ends { None } else { queue.blocking_recv().flatten() };
    }
    if let Some(Err(error)) = slot.map(Connection::close) {
        crate::log(&format!("closing the database: {}", crate::chain(&error)));
    }
}

fn commit(place: &Place, slot: &mut Slot, batch: &mut [Box<dyn Work>]) -> anyhow::Result<()> {
    let connection = place.begin(slot, Access::Write)?;
    let mut all = || {
        for work in batch.iter_mut() {
            connection.execute_batch("SAVEPOINT one")?;
            if !work.run(connection) {
                connection.execute_batch("ROLLBACK TO one")?;
            }
            connection.execute_batch("RELEASE one")?;
        }
        connection.commit()
    };
    let Err(error) = all().map_err(anyhow::Error::new) else { return Ok(()) };
    if is_lost(&error) {
        // Also where only the lock is lost: what comes next takes it anew.
        place.tell(&error);
        *slot = None;
    } else {
        place.undo(slot);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn pages_never_hold_every_reader() {
        let data = tempfile::tempdir().unwrap();
        let db = Db::start(data.path(), &Database::Sqlite).unwrap();
        let (started, mut starts) = mpsc::unbounded_channel();
        let mut held = Vec::new();
        for _ in 0..2 * READERS {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let (db, started) = (db.clone(), started.clone());
            let work = move |_: &Connection| {
                started.send(()).unwrap();
                released.recv().unwrap();
                Ok(())
            };
            held.push((tokio::spawn(async move { db.read_page(work).await }), release));
        }
        for _ in 0..READERS_PAGES {
            starts.recv().await.unwrap();
        }
        // With all readers held this would wait for ever.
        let one = db.read(|db| Ok(db.query_one("SELECT 1", &[], |row| row.get::<i64>(0))?));
        let one = tokio::time::timeout(Duration::from_secs(60), one).await;
        let held_now = READERS - db.readers.free.available_permits();
        // Lets all of them end before anything is said, so that a failure is one.
        let (pages, releases): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        for release in &releases {
            release.send(()).unwrap();
        }
        for page in pages {
            page.await.unwrap().map_err(Fault::into_error).unwrap();
        }
        assert_eq!(one.expect("a reader is free").map_err(Fault::into_error).unwrap(), 1);
        assert!(held_now <= READERS_PAGES, "{held_now}");
    }

    #[tokio::test]
    async fn a_database_without_room_says_so_and_takes_writes_again_when_there_is_some() {
        let data = tempfile::tempdir().unwrap();
        let db = Db::start(data.path(), &Database::Sqlite).unwrap();
        // The limit is SQLite's own, and fails writes as a full disk does.
        let pages = async |sql: &'static str| {
            let set = move |db: &Connection| Ok(db.query_one(sql, &[], |row| row.get::<i64>(0))?);
            db.write(set).await.map_err(Fault::into_error)
        };
        let used = pages("PRAGMA page_count").await.unwrap();
        assert_eq!(pages("PRAGMA max_page_count = 1").await.unwrap(), used);
        let fill = async || {
            let sql = "CREATE TABLE large AS SELECT zeroblob(1000000) AS bytes";
            db.write(|db| Ok(db.execute_batch(sql)?)).await.map_err(Fault::into_error)
        };
        assert!(is_full(&fill().await.unwrap_err()));
        pages("PRAGMA max_page_count = 1000000").await.unwrap();
        fill().await.unwrap();
        let again = fill().await.unwrap_err();
        assert!(!is_full(&again), "the table is there: {again:#}");
    }
}
