//! Brings what was written to the disk itself, in a thread of its own: nobody who collects waits for a
//! disk to have it. A segment that begins or goes still waits while btrfs commits.
//!
//! Only files of lines are brought there, never the whole file system: that would write what
//! customers have written to their volumes.

use crate::book::Book;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// A round that takes longer is said: nothing is sent before it has ended.
const ROUND_MAX: Duration = Duration::from_mins(1);

/// Files of one workload, in the order in which they are to reach the disk.
type Dirty = (String, Vec<PathBuf>);

/// Why they are not on the disk.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing was tried.
    Open(io::Error),
    /// Nobody knows what of them is there.
    Sync(io::Error),
}

/// The thread, and what it is at: one round of everything that is dirty at a time.
#[derive(Debug)]
pub struct Syncer {
    dirty: SyncSender<Vec<Dirty>>,
    done: Receiver<(String, Result<(), Failed>)>,
    /// Number of the newest line of each workload that this round brings to the disk.
    lasts: BTreeMap<String, u64>,
    /// What the thread has not answered yet.
    n_waiting: usize,
    /// When the round began.
    begun: Instant,
}

impl Syncer {
    /// Starts the thread. It ends with this.
    pub fn start() -> io::Result<Self> {
        let (dirty, dirty_in) = sync_channel(1);
        let (done_out, done) = channel();
        let run = move || run(&dirty_in, &done_out);
        thread::Builder::new().name("sync".to_owned()).spawn(run)?;
        Ok(Self { dirty, done, lasts: BTreeMap::new(), n_waiting: 0, begun: Instant::now() })
    }

    /// Notes what has reached the disk. What was not tried is still dirty, and comes with the next round.
    pub(crate) fn settle(
        &mut self,
        books: &mut BTreeMap<String, Book>,
    ) -> Result<(), (String, io::Error)> {
        let mut outcome = Ok(());
        while let Ok((id, done)) = self.done.try_recv() {
            self.n_waiting -= 1;
            match (done, self.lasts.remove(&id), books.get_mut(&id)) {
                (Ok(()), Some(last), Some(book)) => book.was_synced(last),
                (Err(Failed::Open(error)), Some(_), Some(_)) => outcome = Err((id, error)),
                (Err(Failed::Sync(error)), Some(_), Some(book)) => {
                    book.was_lost();
                    outcome = Err((id, error));
                }
                // It was deleted since.
                (_, None, _) | (_, _, None) => {}
            }
        }
        outcome
    }

    /// Begins a round if the former one is over.
    pub(crate) fn begin(&mut self, books: &BTreeMap<String, Book>, now: Instant) {
        if self.n_waiting > 0 {
            return;
        }
        let dirty = || books.iter().filter(|(_, book)| book.is_dirty());
        let round: Vec<Dirty> = dirty().map(|(id, book)| (id.clone(), book.unsynced())).collect();
        let n_waiting = round.len();
        if n_waiting > 0 && self.dirty.try_send(round).is_ok() {
            self.lasts = dirty().map(|(id, book)| (id.clone(), book.last())).collect();
            self.n_waiting = n_waiting;
            self.begun = now;
        }
    }

    /// Whether the disk has been busy with a round for too long.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.n_waiting > 0 && now.saturating_duration_since(self.begun) > ROUND_MAX
    }

    /// The lines of a workload are gone: what the thread says of them is nothing to those of the next
    /// one with this id.
    pub(crate) fn forget(&mut self, id: &str) {
        self.lasts.remove(id);
    }
}

fn run(dirty: &Receiver<Vec<Dirty>>, done: &Sender<(String, Result<(), Failed>)>) {
    for (id, paths) in dirty.iter().flatten() {
        if done.send((id, bring(&paths))).is_err() {
            return;
        }
    }
}

pub(crate) fn bring(paths: &[PathBuf]) -> Result<(), Failed> {
    for path in paths {
        match File::open(path) {
            Ok(file) => file.sync_all().map_err(Failed::Sync)?,
            // It has gone since, because it was the oldest.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failed::Open(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_api::init::Line;

    fn book(directory: &std::path::Path, n_lines: u64) -> Book {
        let mut book = Book::open(directory).unwrap();
        let line = |number| Line { number, time_ms: 1, n_dropped: 0, text: "x".into() };
        book.append(7, &(1..=n_lines).map(line).collect::<Vec<_>>(), 1 << 20).unwrap();
        book
    }

    /// Waits for the round to end, and notes it.
    fn wait(syncer: &mut Syncer, books: &mut BTreeMap<String, Book>) {
        assert!(outcomes(syncer, books).iter().all(Result::is_ok));
    }

    fn outcomes(
        syncer: &mut Syncer,
        books: &mut BTreeMap<String, Book>,
    ) -> Vec<Result<(), (String, io::Error)>> {
        let mut outcomes = Vec::new();
        while syncer.n_waiting > 0 {
            let one = syncer.done.recv_timeout(Duration::from_secs(30)).unwrap();
            let (done, rest) = channel();
            done.send(one).unwrap();
            let all = std::mem::replace(&mut syncer.done, rest);
            outcomes.push(syncer.settle(books));
            syncer.done = all;
        }
        outcomes
    }

    #[test]
    fn only_what_was_there_at_the_beginning_of_a_round_counts() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| directory.path().join(name));
        let mut books = BTreeMap::from([
            ("a".to_owned(), book(&paths[0], 3)),
            ("b".to_owned(), book(&paths[1], 5)),
        ]);
        let mut syncer = Syncer::start().unwrap();
        syncer.begin(&books, Instant::now());
        let more = Line { number: 4, time_ms: 1, n_dropped: 0, text: "x".into() };
        books.get_mut("a").unwrap().append(7, &[more], 1 << 20).unwrap();
        // Deleted and made again in the meantime.
        std::fs::remove_dir_all(&paths[1]).unwrap();
        syncer.forget("b");
        books.insert("b".to_owned(), book(&paths[1], 2));
        wait(&mut syncer, &mut books);
        assert_eq!((books["a"].synced(), books["b"].synced()), (3, 0));
        syncer.begin(&books, Instant::now());
        wait(&mut syncer, &mut books);
        assert_eq!((books["a"].synced(), books["b"].synced()), (4, 2));
        syncer.begin(&books, Instant::now());
        assert_eq!(syncer.n_waiting, 0, "nothing is dirty");
    }

    #[test]
    fn lines_that_the_disk_has_failed_to_take_are_not_asked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut books = BTreeMap::from([("a".to_owned(), book(directory.path(), 3))]);
        // A device has nothing to bring anywhere, and says that it cannot.
        let [segment, _] = &*books["a"].unsynced() else { panic!("a segment and its directory") };
        std::fs::remove_file(segment).unwrap();
        std::os::unix::fs::symlink("/dev/null", segment).unwrap();
        let mut syncer = Syncer::start().unwrap();
        syncer.begin(&books, Instant::now());
        let failed = outcomes(&mut syncer, &mut books);
        assert!(matches!(&*failed, [Err((id, _))] if id == "a"), "{failed:?}");
        syncer.begin(&books, Instant::now());
        assert_eq!((syncer.n_waiting, books["a"].synced()), (0, 0));
        let more = Line { number: 4, time_ms: 1, n_dropped: 0, text: "x".into() };
        std::fs::remove_file(segment).unwrap();
        books.get_mut("a").unwrap().append(7, &[more], 1 << 20).unwrap();
        syncer.begin(&books, Instant::now());
        wait(&mut syncer, &mut books);
        assert_eq!(books["a"].synced(), 4);
    }

    /// Nothing was sent any more, and nobody said why.
    #[test]
    fn a_round_without_end_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut books = BTreeMap::from([("a".to_owned(), book(directory.path(), 3))]);
        let mut syncer = Syncer::start().unwrap();
        let start = Instant::now();
        syncer.begin(&books, start);
        let late = start + ROUND_MAX + Duration::from_secs(1);
        assert!(!syncer.is_stuck(start + ROUND_MAX) && syncer.is_stuck(late));
        wait(&mut syncer, &mut books);
        assert!(!syncer.is_stuck(late));
    }
}
