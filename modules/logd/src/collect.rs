//! Brings the lines of all workloads from init's memory to the disk, with one pause for all.
//!
//! What is not on disk yet is still in init's rings: a collector that was killed comes again and
//! misses nothing, while they hold a second of the fastest and hours of others. What they hold no
//! more leaves a gap in the numbers.

use crate::{
    book::{self, Book},
    send::{Job, Kind},
    sync::Syncer,
};
use node_api::{
    init::{Log, LogHead, Logs},
    paths,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};
use thiserror::Error;
use tokio::sync::watch;

/// A ring holds what its workload may say in a second.
const PAUSE: Duration = Duration::from_millis(500);
/// What was said before a power cut by more than this is there after it, but for what the disk took
/// longer; nothing is sent before.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// Books that are opened for their sinks in one turn, when init knows nothing of their workloads.
const OPENS_MAX: usize = 32;
/// init answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines that are asked for at once, and how often in a row: more than a ring holds.
const LINES_MAX: u32 = 1024;
const PAGES_MAX: usize = 4;
/// Workloads of which lines are kept, and how many of them one contract has that are not used.
const BOOKS_MAX: u64 = 4096;
const BOOKS_UNUSED_MAX: usize = 256;
/// What one workload may have at most, and what is left to it when there are many.
const BOOK_SIZE_MAX: u64 = 1 << 20;
const BOOK_SIZE_MIN: u64 = 64 << 10;
/// What all lines may have at most, and which part of a disk: a quarter of what `storaged` allows the
/// state of the node, which also holds what `contractd` has agreed to. They may take twice as much: with
/// each round to the disk the last block of a file is written anew, and btrfs counts the whole extent
/// that it was in while another block of that is used.
const SIZE_MAX: u64 = 1 << 30;
const DISK_PART: u64 = 96;
/// Without a disk the state is a small file system in memory.
const MEMORY_PART: u64 = 4;
const TMPFS_MAGIC: u64 = 0x0102_1994;

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
    #[error("lines of {0} workloads are kept, and all of them are used or may be")]
    Full(usize),
    #[error("no line is sent: the disk has not had them within a minute")]
    Stuck,
    #[error("deleting the lines of {id}")]
    Delete {
        id: String,
        #[source]
        source: io::Error,
    },
}

/// Collects until the process ends. Lines of `wanted` jobs are used; before anybody has said what is
/// wanted, any may be.
pub fn run(
    directory: &Path,
    syncer: Syncer,
    doomed: &Receiver<Doomed>,
    wanted: &watch::Receiver<Option<Vec<Job>>>,
    heads: &watch::Sender<Heads>,
    kept: &watch::Sender<BTreeSet<String>>,
) {
    let mut collector = Collector::new(Path::new(paths::INIT_SOCKET), syncer);
    let mut complaint = String::new();
    loop {
        let problem = match doomed.recv_timeout(PAUSE) {
            Ok(doomed) => collector.delete(directory, doomed),
            Err(RecvTimeoutError::Timeout) => {
                let of_lines = |job: &&Job| job.kind == Kind::Lines;
                let ids = |jobs: &Vec<Job>| {
                    jobs.iter().filter(of_lines).map(|job| job.id.clone()).collect()
                };
                let wanted = wanted.borrow().as_ref().map(ids);
                collector.turn(directory, wanted.as_ref())
            }
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

#[derive(Debug)]
struct Collector {
    /// What was opened since the start of this process.
    books: BTreeMap<String, Book>,
    /// Every directory that there is.
    kept: BTreeSet<String>,
    /// Rings of deleted workloads that init still has.
    gone: BTreeMap<String, u64>,
    /// Books that could not be opened, until all others are open.
    failed: BTreeSet<String>,
    /// Where init answers.
    init: PathBuf,
    syncer: Syncer,
    synced: Option<Instant>,
}

impl Collector {
    fn new(init: &Path, syncer: Syncer) -> Self {
        let (books, kept, gone) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let (failed, init) = (BTreeSet::new(), init.to_owned());
        Self { books, kept, gone, failed, init, syncer, synced: None }
    }

    fn turn(
        &mut self,
        directory: &Path,
        wanted: Option<&BTreeSet<String>>,
    ) -> Result<(), CollectError> {
        if self.synced.is_none() {
            // The first time since the start.
            self.kept = look(directory).map_err(CollectError::Look)?;
        }
        let room = Room::of(directory).map_err(CollectError::Look)?;
        let logs = call(&self.init, &Logs {})?.logs;
        self.gone.retain(|id, life| logs.iter().any(|head| head.id == *id && head.life == *life));
        let logs: Vec<LogHead> =
            logs.into_iter().filter(|head| self.gone.get(&head.id) != Some(&head.life)).collect();
        // Also what says nothing, and has said something in another life.
        let heads = logs.iter().map(|head| &*head.id);
        let used = wanted.map(|wanted| heads.chain(wanted.iter().map(|id| &**id)).collect());
        // One that fails keeps no other from its disk.
        let mut outcome = self.trim(&room);
        for head in &logs {
            outcome = self.collect(directory, &room, head, used.as_ref()).and(outcome);
        }
        outcome = self.sync().and(outcome);
        outcome.and(self.open_some(directory, wanted.unwrap_or(&BTreeSet::new())))
    }

    /// Those that say nothing become smaller too when there are more.
    fn trim(&mut self, room: &Room) -> Result<(), CollectError> {
        let size_max = room.share(self.kept.len());
        let mut outcome = Ok(());
        for (id, book) in &mut self.books {
            let keep = |source| CollectError::Keep { id: id.clone(), source };
            outcome = book.trim(size_max).map_err(keep).and(outcome);
        }
        outcome
    }

    fn sync(&mut self) -> Result<(), CollectError> {
        let outcome = self.syncer.settle(&mut self.books);
        let now = Instant::now();
        let is_stuck = self.syncer.is_stuck(now);
        if self.synced.is_none_or(|synced| now.duration_since(synced) >= SYNC_INTERVAL) {
            self.synced = Some(now);
            self.syncer.begin(&self.books, now);
        }
        outcome.map_err(|(id, source)| CollectError::Keep { id, source })?;
        if is_stuck { Err(CollectError::Stuck) } else { Ok(()) }
    }

    /// Lines of workloads that init knows nothing of may still wait for their sinks, and have to be
    /// bounded: some books with each turn, those with sinks first, and those that fail last.
    fn open_some(
        &mut self,
        directory: &Path,
        wanted: &BTreeSet<String>,
    ) -> Result<(), CollectError> {
        let some = |failed: &BTreeSet<String>| -> BTreeSet<String> {
            let closed = |id: &&String| {
                self.kept.contains(*id) && !self.books.contains_key(*id) && !failed.contains(*id)
            };
            wanted.iter().chain(&self.kept).filter(closed).take(OPENS_MAX).cloned().collect()
        };
        let mut ids = some(&self.failed);
        if ids.is_empty() {
            ids = some(&BTreeSet::new());
            self.failed.clear();
        }
        let mut outcome = Ok(());
        for id in ids {
            match Book::open(&directory.join(&id)) {
                Ok(book) => drop(self.books.insert(id, book)),
                Err(source) => {
                    self.failed.insert(id.clone());
                    outcome = Err(CollectError::Keep { id, source });
                }
            }
        }
        outcome
    }

    fn collect(
        &mut self,
        directory: &Path,
        room: &Room,
        head: &LogHead,
        used: Option<&BTreeSet<&str>>,
    ) -> Result<(), CollectError> {
        if head.last == 0 {
            return Ok(());
        }
        let id = &head.id;
        let keep = |source| CollectError::Keep { id: id.clone(), source };
        if !self.books.contains_key(id) {
            if !self.kept.contains(id) {
                self.make_room(directory, room, id, used)?;
            }
            let book = Book::open(&directory.join(id)).map_err(keep)?;
            self.books.insert(id.clone(), book);
            self.kept.insert(id.clone());
        }
        let size_max = room.share(self.kept.len());
        let Some(book) = self.books.get_mut(id) else { return Ok(()) };
        for _ in 0..PAGES_MAX {
            let after = book.position(head.life);
            if after >= head.last {
                return Ok(());
            }
            let log = Log { name: id.clone(), after: Some(after), lines_max: LINES_MAX };
            let reply = call(&self.init, &log)?;
            // The next turn sees another ring of that name from its beginning.
            if reply.life != head.life || reply.lines.is_empty() {
                return Ok(());
            }
            book.append(reply.life, &reply.lines, size_max).map_err(keep)?;
        }
        Ok(())
    }

    /// Another book is to be kept: when there are too many, of its contract or at all, the oldest of
    /// those goes that nobody uses; none while nobody knows what is used.
    fn make_room(
        &mut self,
        directory: &Path,
        room: &Room,
        id: &str,
        used: Option<&BTreeSet<&str>>,
    ) -> Result<(), CollectError> {
        let is_used = |kept: &str| used.is_none_or(|used| used.contains(kept));
        let unused = || self.kept.iter().filter(|kept| !is_used(kept));
        let own: Vec<&String> = unused().filter(|kept| contract(kept) == contract(id)).collect();
        let is_full = self.kept.len() >= room.n_books;
        let oldest = if own.len() >= BOOKS_UNUSED_MAX {
            oldest(directory, own.into_iter())
        } else if is_full {
            oldest(directory, unused())
        } else {
            return Ok(());
        };
        let Some(oldest) = oldest else { return Err(CollectError::Full(self.kept.len())) };
        self.remove(directory, &oldest)?;
        daemon::info!("the lines of {oldest} make room for those of {id}");
        Ok(())
    }

    fn remove(&mut self, directory: &Path, id: &str) -> Result<(), CollectError> {
        match fs::remove_dir_all(directory.join(id)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CollectError::Delete { id: id.to_owned(), source });
            }
            Ok(()) | Err(_) => {}
        }
        self.books.remove(id);
        self.kept.remove(id);
        self.syncer.forget(id);
        Ok(())
    }

    fn delete(&mut self, directory: &Path, doomed: Doomed) -> Result<(), CollectError> {
        let Doomed { id, order } = doomed;
        // An id becomes the name of a directory: one that is kept is one that init gave.
        if !self.kept.contains(&id) {
            return Ok(());
        }
        if let Ok(logs) = call(&self.init, &Logs {}) {
            let lives = logs.logs.into_iter().filter(|head| head.id == id);
            self.gone.extend(lives.map(|head| (head.id, head.life)));
        }
        self.remove(directory, &id)?;
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

fn call<M: ipc::Method>(init: &Path, parameters: &M) -> Result<M::Reply, ipc::CallError> {
    ipc::Client::connect(init)?.with_timeout(PATIENCE).call(parameters)
}

/// What the workloads of one contract have in common: their ids are `c-CONTRACT-NAME`.
fn contract(id: &str) -> &str {
    id.match_indices('-').nth(1).map_or(id, |(end, _)| &id[..end])
}

/// The one whose newest line is the oldest. Its directory says nothing: that changes too when a book
/// has to be smaller.
fn oldest<'a>(directory: &Path, ids: impl Iterator<Item = &'a String>) -> Option<String> {
    let written = |id: &&String| {
        book::written(&directory.join(id.as_str())).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    ids.min_by_key(written).cloned()
}

/// How much of its file system all lines may have, and of how many workloads they are.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    size: u64,
    n_books: usize,
}

impl Room {
    fn of(directory: &Path) -> io::Result<Self> {
        let system = rustix::fs::statvfs(directory)?;
        let kind = rustix::fs::statfs(directory)?.f_type;
        let in_memory = u64::try_from(kind).is_ok_and(|kind| kind == TMPFS_MAGIC);
        Ok(Self::on(system.f_blocks.saturating_mul(system.f_frsize), in_memory))
    }

    fn on(system: u64, in_memory: bool) -> Self {
        let size = (system / if in_memory { MEMORY_PART } else { DISK_PART }).min(SIZE_MAX);
        let n_books = (size / BOOK_SIZE_MIN).clamp(1, BOOKS_MAX);
        Self { size, n_books: usize::try_from(n_books).unwrap_or(usize::MAX) }
    }

    /// What one of so many workloads may have.
    fn share(&self, n_books: usize) -> u64 {
        (self.size / (n_books as u64).max(1)).clamp(BOOK_SIZE_MIN, BOOK_SIZE_MAX)
    }
}

#[cfg(test)]
mod tests;
