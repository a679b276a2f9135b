//! Brings the lines of all workloads from init's memory to the disk, with one pause for all.
//!
//! What is not on disk yet is still in init's rings: a collector that was killed comes again and
//! misses nothing, while they hold a second of the fastest and hours of others. What they hold no
//! more leaves a gap in the numbers.

use crate::book::Book;
use node_api::{
    init::{Log, LogHead, Logs},
    paths,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::sync::watch;

/// A ring holds what its workload may say in a second.
const PAUSE: Duration = Duration::from_millis(500);
/// What was said before a power cut by more than this is there after it; nothing is sent before.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// With more books than this to write, the whole file system is written instead.
const SYNCS_MAX: usize = 8;
/// init answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines that are asked for at once, and how often in a row: more than a ring holds.
const LINES_MAX: u32 = 1024;
const PAGES_MAX: usize = 4;
/// Workloads of which lines are kept.
const BOOKS_MAX: usize = 4096;
/// What one workload may have at most, and what is left to it when there are many.
const BOOK_SIZE_MAX: u64 = 1 << 20;
const BOOK_SIZE_MIN: u64 = 32 << 10;
/// What all lines may have at most, and which part of their file system.
const SIZE_MAX: u64 = 1 << 30;
const SHARE: u64 = 8;

/// What is to be deleted, and by whose order.
#[derive(Debug)]
pub struct Doomed {
    /// Id of the workload.
    pub id: String,
    /// Statement id of the order.
    pub order: String,
}

/// Number of the newest line of each workload that may be sent: no power cut takes it away.
pub type Heads = Arc<BTreeMap<String, u64>>;

#[derive(Debug, Error)]
enum CollectError {
    #[error("asking init for lines")]
    Call(#[from] ipc::CallError),
    #[error("keeping the lines of {id}")]
    Keep {
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("looking at {}", paths::LOGS)]
    Look(#[source] io::Error),
    #[error("deleting the lines of {id}")]
    Delete {
        id: String,
        #[source]
        source: io::Error,
    },
}

/// Collects until the process ends.
pub fn run(
    directory: &Path,
    doomed: &Receiver<Doomed>,
    heads: &watch::Sender<Heads>,
    kept: &watch::Sender<BTreeSet<String>>,
) {
    let mut collector = Collector::default();
    let mut complaint = String::new();
    loop {
        let problem = match doomed.recv_timeout(PAUSE) {
            Ok(doomed) => collector.delete(directory, doomed),
            Err(RecvTimeoutError::Timeout) => collector.turn(directory),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Said when it is new; it is tried again with every turn.
        let said = problem.err().map(|error| daemon::chain(&error)).unwrap_or_default();
        if said != complaint && !said.is_empty() {
            daemon::warn!("{said}");
        }
        complaint = said;
        let lasts = collector.books.iter().map(|(id, book)| (id.clone(), book.synced()));
        let lasts: BTreeMap<String, u64> = lasts.collect();
        heads.send_if_modified(|shown| {
            let is_other = **shown != lasts;
            if is_other {
                *shown = Arc::new(lasts);
            }
            is_other
        });
        kept.send_if_modified(|shown| {
            let is_other = *shown != collector.kept;
            shown.clone_from(&collector.kept);
            is_other
        });
    }
}

#[derive(Debug, Default)]
struct Collector {
    /// What was opened since the start of this process.
    books: BTreeMap<String, Book>,
    /// Every directory that there is.
    kept: BTreeSet<String>,
    /// Rings of deleted workloads that init still has.
    gone: BTreeMap<String, u64>,
    synced: Option<Instant>,
}

impl Collector {
    fn turn(&mut self, directory: &Path) -> Result<(), CollectError> {
        if self.synced.is_none() {
            // The first time since the start.
            self.kept = look(directory).map_err(CollectError::Look)?;
        }
        let logs = call(&Logs {})?.logs;
        self.gone.retain(|id, life| logs.iter().any(|head| head.id == *id && head.life == *life));
        // One that fails keeps no other from its disk.
        let mut outcome = Ok(());
        for head in &logs {
            if self.gone.get(&head.id) != Some(&head.life) {
                outcome = self.collect(directory, head).and(outcome);
            }
        }
        let now = Instant::now();
        if self.synced.is_none_or(|synced| now.duration_since(synced) >= SYNC_INTERVAL) {
            self.synced = Some(now);
            outcome = self.sync(directory).and(outcome);
        }
        outcome.and(self.open_another(directory))
    }

    fn sync(&mut self, directory: &Path) -> Result<(), CollectError> {
        let mut dirty: Vec<_> = self.books.iter_mut().filter(|(_, book)| book.is_dirty()).collect();
        if dirty.len() > SYNCS_MAX {
            let all = File::open(directory).and_then(|root| Ok(rustix::fs::syncfs(root)?));
            all.map_err(CollectError::Look)?;
            for (_, book) in &mut dirty {
                book.was_synced();
            }
            return Ok(());
        }
        dirty.into_iter().try_for_each(|(id, book)| {
            book.sync().map_err(|source| CollectError::Keep { id: id.clone(), source })
        })
    }

    /// Lines of a workload that init knows nothing of may still wait for their sinks: one book with
    /// each turn.
    fn open_another(&mut self, directory: &Path) -> Result<(), CollectError> {
        let Some(id) = self.kept.iter().find(|id| !self.books.contains_key(*id)).cloned() else {
            return Ok(());
        };
        let book = Book::open(&directory.join(&id))
            .map_err(|source| CollectError::Keep { id: id.clone(), source })?;
        self.books.insert(id, book);
        Ok(())
    }

    fn collect(&mut self, directory: &Path, head: &LogHead) -> Result<(), CollectError> {
        let id = &head.id;
        let keep = |source| CollectError::Keep { id: id.clone(), source };
        if !self.books.contains_key(id) {
            if self.kept.len() >= BOOKS_MAX && !self.kept.contains(id) {
                return Err(keep(io::Error::other("lines of too many workloads are kept")));
            }
            let book = Book::open(&directory.join(id)).map_err(keep)?;
            self.books.insert(id.clone(), book);
            self.kept.insert(id.clone());
        }
        let size_max = size_max(directory, self.kept.len()).map_err(keep)?;
        let Some(book) = self.books.get_mut(id) else { return Ok(()) };
        for _ in 0..PAGES_MAX {
            let after = book.position(head.life);
            if after >= head.last {
                return Ok(());
            }
            let log = Log { name: id.clone(), after: Some(after), lines_max: LINES_MAX };
            let reply = call(&log)?;
            // The next turn sees another ring of that name from its beginning.
            if reply.life != head.life || reply.lines.is_empty() {
                return Ok(());
            }
            book.append(reply.life, &reply.lines, size_max).map_err(keep)?;
        }
        Ok(())
    }

    fn delete(&mut self, directory: &Path, doomed: Doomed) -> Result<(), CollectError> {
        let Doomed { id, order } = doomed;
        // An id becomes the name of a directory: one that is kept is one that init gave.
        if !self.kept.contains(&id) {
            return Ok(());
        }
        if let Ok(logs) = call(&Logs {}) {
            let lives = logs.logs.into_iter().filter(|head| head.id == id);
            self.gone.extend(lives.map(|head| (head.id, head.life)));
        }
        match fs::remove_dir_all(directory.join(&id)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CollectError::Delete { id, source });
            }
            Ok(()) | Err(_) => {}
        }
        self.books.remove(&id);
        self.kept.remove(&id);
        daemon::info!("the lines of {id} are deleted by order {order}");
        Ok(())
    }
}

/// Ids of the workloads that there are lines of.
fn look(directory: &Path) -> io::Result<BTreeSet<String>> {
    fs::create_dir_all(directory)?;
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let (true, Ok(id)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
            ids.insert(id);
        }
    }
    Ok(ids)
}

fn call<M: ipc::Method>(parameters: &M) -> Result<M::Reply, ipc::CallError> {
    ipc::Client::connect(paths::INIT_SOCKET)?.with_timeout(PATIENCE).call(parameters)
}

/// What one of so many workloads may have.
fn size_max(directory: &Path, n_books: usize) -> io::Result<u64> {
    let system = rustix::fs::statvfs(directory)?;
    Ok(share(system.f_blocks.saturating_mul(system.f_frsize), n_books))
}

fn share(system: u64, n_books: usize) -> u64 {
    let all = (system / SHARE).min(SIZE_MAX);
    (all / (n_books as u64).max(1)).clamp(BOOK_SIZE_MIN, BOOK_SIZE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_together_are_bounded() {
        assert_eq!(share(8 << 30, 1), BOOK_SIZE_MAX);
        assert_eq!(share(100 << 30, 4096), 256 << 10);
        assert_eq!(share(64 << 20, 16), 512 << 10);
        assert_eq!(share(64 << 20, 4096), BOOK_SIZE_MIN);
        assert_eq!(share(0, 0), BOOK_SIZE_MIN);
    }

    #[test]
    fn only_what_is_kept_is_deleted() {
        let parent = tempfile::tempdir().unwrap();
        let (logs, other) = (parent.path().join("logs"), parent.path().join("other"));
        for id in [logs.join("c-1"), logs.join("c-2"), other.clone()] {
            fs::create_dir_all(id).unwrap();
        }
        let mut collector = Collector { kept: look(&logs).unwrap(), ..Collector::default() };
        for id in ["../other", "c-1", "c-1", ".."] {
            let doomed = Doomed { id: id.to_owned(), order: String::new() };
            collector.delete(&logs, doomed).unwrap();
        }
        assert!(other.exists());
        assert_eq!(look(&logs).unwrap(), collector.kept);
        assert_eq!(collector.kept.into_iter().collect::<Vec<_>>(), ["c-2"]);
    }
}
