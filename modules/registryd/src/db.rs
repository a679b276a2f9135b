//! The SQLite database: one thread writes, a few connections read.
//!
//! A write is answered after its transaction is on the disk (WAL, synchronous=FULL), so what was
//! acknowledged survives a power cut. Writes that wait together are committed together.

use anyhow::Context as _;
use registry_api::Problem;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Each entry is one step, in order; a database counts how many it has taken. Only ever append.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("schema_changes.sql"),
    include_str!("schema_log.sql"),
    include_str!("schema_scrubs.sql"),
];
/// Writes that may wait.
const QUEUE_MAX: usize = 1024;
/// Writes of one commit.
const BATCH_MAX: usize = 256;
/// Connections that read.
const READERS: usize = 4;
/// Of these, pages for people hold so many at once: whatever a page costs, the API goes on.
const READERS_PAGES: usize = 2;
/// A reader waits this long for a checkpoint that blocks it.
const TIMEOUT_BUSY: Duration = Duration::from_secs(10);

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

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Broken(anyhow::Error::new(error).context("asking the database"))
    }
}

/// Whether something could not be written because the disk is full.
pub fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let file = cause.downcast_ref::<io::Error>();
        let database = cause.downcast_ref::<rusqlite::Error>();
        file.is_some_and(|cause| cause.kind() == io::ErrorKind::StorageFull)
            || database.is_some_and(|cause| cause.sqlite_error_code() == Some(ErrorCode::DiskFull))
    })
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
    connections: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

/// Where the database is, below the data directory.
pub fn path(data: &Path) -> PathBuf {
    data.join("registry.sqlite3")
}

/// Takes the data directory for this process, as long as what is returned lives.
pub fn take(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "another registryd uses {}: stop it first, or name another directory with --data",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(anyhow::Error::new(error).context(format!("locking {}", path.display())))
        }
    }
}

/// Opens the database for writing, making or upgrading it first.
pub fn open(data: &Path) -> anyhow::Result<Connection> {
    let path = path(data);
    let mut connection =
        Connection::open(&path).with_context(|| format!("opening {}", path.display()))?;
    configure(&connection).with_context(|| format!("configuring {}", path.display()))?;
    migrate(&mut connection).with_context(|| format!("upgrading {}", path.display()))?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(TIMEOUT_BUSY)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;",
    )
}

fn migrate(connection: &mut Connection) -> anyhow::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
            step INTEGER PRIMARY KEY
        ) STRICT;",
    )?;
    let taken: i64 =
        connection.query_row("SELECT COUNT(*) FROM migrations", [], |row| row.get(0))?;
    let taken = usize::try_from(taken).unwrap_or(usize::MAX);
    anyhow::ensure!(taken <= MIGRATIONS.len(), "it was written by a newer registryd");
    if taken == MIGRATIONS.len() {
        return Ok(());
    }
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(taken) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        // The last step also fills the tables that follow from the statements.
        if step + 1 == MIGRATIONS.len() {
            rebuild(&transaction)?;
        }
        transaction.execute("INSERT INTO migrations (step) VALUES (?1)", [i64::try_from(step)?])?;
        transaction.commit()?;
    }
    Ok(())
}

/// Makes anew what follows from the statements. Returns how many count.
pub fn rebuild(connection: &Connection) -> anyhow::Result<u64> {
    match crate::project::rebuild(connection) {
        Ok(count) => Ok(count),
        Err(Fault::Broken(error)) => Err(error.context("rebuilding")),
        Err(Fault::Refused(problem)) => Err(anyhow::anyhow!("rebuilding: {problem}")),
    }
}

impl Db {
    /// Opens the database and starts the thread that writes.
    pub fn start(data: &Path) -> anyhow::Result<Self> {
        let connection = open(data)?;
        let (writer, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || write_all(&connection, queue))
            .context("starting the thread that writes")?;
        let reader = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path(data), flags)?;
            connection.busy_timeout(TIMEOUT_BUSY)?;
            Ok(connection)
        };
        let connections =
            (0..READERS).map(|_| reader()).collect::<rusqlite::Result<_>>().context("opening")?;
        let readers = Readers {
            free: Semaphore::new(READERS),
            pages: Semaphore::new(READERS_PAGES),
            connections: Mutex::new(connections),
        };
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
                let Some(connection) = taken else {
                    return Err(Fault::Broken(anyhow::anyhow!("no connection is free")));
                };
                let outcome = snapshot(&connection, work);
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
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let transaction = connection.unchecked_transaction()?;
    let outcome = work(&transaction);
    transaction.finish()?;
    outcome
}

trait Work: Send {
    /// Whether the effects are to be kept.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells the caller, with what kept the effects from being committed.
    fn answer(self: Box<Self>, failure: Option<&rusqlite::Error>);
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

    fn answer(self: Box<Self>, failure: Option<&rusqlite::Error>) {
        let outcome = match self.outcome {
            // A refusal stands whatever becomes of the others.
            Some(Err(fault)) => Err(fault),
            Some(Ok(value)) if failure.is_none() => Ok(value),
            Some(Ok(_)) | None => Err(not_committed(failure)),
        };
        // Nobody listens any more when the caller has gone away.
        drop(self.reply.send(outcome));
    }
}

/// The same failure for each of a batch; the error itself is logged once.
fn not_committed(failure: Option<&rusqlite::Error>) -> Fault {
    match failure.and_then(rusqlite::Error::sqlite_error) {
        Some(code) => rusqlite::Error::SqliteFailure(*code, None).into(),
        None => Fault::Broken(anyhow::anyhow!("the commit failed")),
    }
}

fn write_all(connection: &Connection, mut queue: mpsc::Receiver<Option<Box<dyn Work>>>) {
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
        let failure = commit(connection, &mut batch).err();
        if let Some(error) = &failure {
            crate::log(&format!("committing {} writes: {error}", batch.len()));
        }
        for work in batch {
            work.answer(failure.as_ref());
        }
        next = if ends { None } else { queue.blocking_recv().flatten() };
    }
    // Leaves one file behind instead of three; what is in the WAL is safe in any case.
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        crate::log(&format!("writing the last checkpoint: {error}"));
    }
}

fn commit(connection: &Connection, batch: &mut [Box<dyn Work>]) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut all = || {
        for work in batch.iter_mut() {
            connection.execute_batch("SAVEPOINT one")?;
            if !work.run(connection) {
                connection.execute_batch("ROLLBACK TO one")?;
            }
            connection.execute_batch("RELEASE one")?;
        }
        connection.execute_batch("COMMIT")
    };
    let outcome = all();
    if outcome.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_never_hold_every_reader() {
        let data = tempfile::tempdir().unwrap();
        let db = Db::start(data.path()).unwrap();
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
        let one = db.read(|db| Ok(db.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?));
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
        let db = Db::start(data.path()).unwrap();
        // The limit is SQLite's own, and fails writes as a full disk does.
        let pages = async |sql: &'static str| {
            let set = move |db: &Connection| Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?);
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
