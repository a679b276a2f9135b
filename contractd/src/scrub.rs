//! The threads that read the store, so that the kernel compares what is on the disk with what was
//! signed: one that takes its time for a whole round, one for what may be damaged.
//!
//! They read no faster than their rates, whatever else the node does. What is bad is told by the store.
//! They decide nothing: see `rounds`.

use crate::rounds::{Look, Outcome};
use flist::{Scrubbed, Store};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes in a second of a round: a percent of a processor, a few percent of a slow disk.
const SLOW: u64 = 4 << 20;
/// Of what may be damaged: it is waited for.
const FAST: u64 = 32 << 20;
/// A piece of a round, in bytes: what is read again after a restart, a minute's worth.
const PIECE: u64 = 256 << 20;
/// Shorter pauses are saved up.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Who is later than this does not make up for it: a disk that did not answer for a while is not read as
/// fast as it can afterwards.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Each thread has one look at a time.
const LOOKS_MAX: usize = 1;

/// The ways to the threads and back.
#[derive(Debug)]
pub(crate) struct Scrubs {
    slow: SyncSender<Look>,
    fast: SyncSender<Look>,
    /// Looks that are over.
    pub(crate) ended: Receiver<(Look, Outcome)>,
}

impl Scrubs {
    /// Has something read.
    pub(crate) fn begin(&self, look: Look) {
        let thread = match look {
            Look::All | Look::One(_) => &self.fast,
            Look::Piece(_) => &self.slow,
        };
        // The threads end only with the process.
        thread.send(look).ok();
    }

    /// Nobody reads anything.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let asks = || sync_channel(LOOKS_MAX).0;
        Self { slow: asks(), fast: asks(), ended: sync_channel(LOOKS_MAX).1 }
    }
}

/// Starts the threads. They end when nobody asks any more.
pub(crate) fn spawn(store: &Arc<Store>) -> io::Result<Scrubs> {
    let (sender, ended) = sync_channel(LOOKS_MAX);
    let start = |name: &str, rate: u64| {
        let (asks, asked) = sync_channel(LOOKS_MAX);
        let (store, sender) = (Arc::clone(store), sender.clone());
        let work = move || serve(&store, &asked, &sender, rate);
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        io::Result::Ok(asks)
    };
    Ok(Scrubs { slow: start("scrub", SLOW)?, fast: start("check", FAST)?, ended })
}

fn serve(store: &Store, asked: &Receiver<Look>, ended: &SyncSender<(Look, Outcome)>, rate: u64) {
    if let Err(error) = sys::process::stand_back() {
        daemon::warn!("reading the store as everybody else does: {error}");
    }
    for look in asked {
        let Scrubbed { next, doubted, problem, files, bytes, bad, damaged } =
            read(store, look, rate);
        let problem = problem.map(|error| daemon::chain(&error));
        let doubted = doubted > 0;
        let outcome = Outcome { next, doubted, problem, files, bytes, bad, damaged };
        // Nobody listens any more only when the process ends.
        drop(ended.send((look, outcome)));
    }
}

fn read(store: &Store, look: Look, rate: u64) -> Scrubbed {
    let mut pacer = Pacer { rate, due: Instant::now() };
    let mut pace = |bytes: u64| {
        let early = pacer.early(bytes, Instant::now());
        if early >= PAUSE_MIN {
            thread::park_timeout(early);
        }
    };
    match look {
        Look::All => store.scrub(None, u64::MAX, &mut pace),
        Look::Piece(after) => store.scrub(after, PIECE, &mut pace),
        Look::One(flist) => store.scrub_one(flist, &mut pace),
    }
}

/// Keeps a reader to its rate.
struct Pacer {
    /// Bytes in a second.
    rate: u64,
    /// When what was read so far should have been.
    due: Instant,
}

impl Pacer {
    /// How much too early these bytes were read.
    fn early(&mut self, bytes: u64, now: Instant) -> Duration {
        let latest = now.checked_sub(LATE_MAX).unwrap_or(now);
        let takes = Duration::from_micros(bytes.saturating_mul(1_000_000) / self.rate);
        self.due = self.due.max(latest).checked_add(takes).unwrap_or(now);
        self.due.saturating_duration_since(now)
    }
}

/// Errors of reading that the disks of the store's pool have reported since they were made, by pool and
/// disk. btrfs keeps the count on the disks, and counts what has another checksum too.
///
/// A disk that does not say is left out.
pub(crate) fn disk_errors(store: &Path, btrfs: &Path) -> BTreeMap<String, u64> {
    let pool = File::open(store).and_then(sys::btrfs::file_system_uuid);
    pool.map(|pool| errors_of(&pool, btrfs)).unwrap_or_default()
}

fn errors_of(pool: &str, btrfs: &Path) -> BTreeMap<String, u64> {
    let disks = fs::read_dir(btrfs.join(pool).join("devinfo")).into_iter().flatten();
    let disk = |item: io::Result<fs::DirEntry>| {
        let item = item.ok()?;
        let text = fs::read_to_string(item.path().join("error_stats")).ok()?;
        Some((format!("{pool}/{}", item.file_name().to_str()?), read_errors(&text)?))
    };
    disks.filter_map(disk).collect()
}

/// Sums up what `error_stats` of a disk says of reading: lines of a name and a number.
fn read_errors(text: &str) -> Option<u64> {
    let counts = text.lines().filter_map(|line| line.split_once(' '));
    let of_reading = counts.filter(|(name, _)| ["read_errs", "corruption_errs"].contains(name));
    let counts: Option<Vec<u64>> = of_reading.map(|(_, count)| count.trim().parse().ok()).collect();
    counts.filter(|counts| !counts.is_empty())?.into_iter().reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::FlistId;

    #[test]
    fn reading_waits_when_it_is_early_and_does_not_hurry_when_it_is_late() {
        let (second, begun) = (Duration::from_secs(1), Instant::now());
        let mut pacer = Pacer { rate: SLOW, due: begun };
        assert_eq!(pacer.early(SLOW, begun), second);
        assert_eq!(pacer.early(SLOW, begun + second), second);
        assert_eq!(pacer.early(SLOW, begun + 3 * second), Duration::ZERO);
        // The disk did not answer for ten minutes: one second of them is made up for.
        let late = begun + 600 * second;
        assert_eq!(pacer.early(SLOW, late), Duration::ZERO);
        assert_eq!(pacer.early(3 * SLOW, late), 3 * second);
    }

    #[test]
    fn the_errors_of_the_disks_of_one_pool_count() {
        let text =
            "write_errs 1\nread_errs 2\nflush_errs 4\ncorruption_errs 8\ngeneration_errs 16\n";
        assert_eq!(read_errors(text), Some(10));
        for none in ["", "corruption_errs x\nread_errs 1\n", "invalid\n"] {
            assert_eq!(read_errors(none), None, "{none:?}");
        }
        let root = tempfile::tempdir().unwrap();
        assert_eq!(errors_of("b", root.path()), BTreeMap::new());
        for disk in ["a/devinfo/1", "b/devinfo/1", "b/devinfo/2", "b/devinfo/3"] {
            let disk = root.path().join(disk);
            fs::create_dir_all(&disk).unwrap();
            fs::write(disk.join("error_stats"), text).unwrap();
        }
        // One that is failing has nothing to say.
        fs::remove_file(root.path().join("b/devinfo/3/error_stats")).unwrap();
        let counts = [("b/1".to_owned(), 10), ("b/2".to_owned(), 10)];
        assert_eq!(errors_of("b", root.path()), BTreeMap::from(counts));
        assert_eq!(disk_errors(Path::new("/proc"), root.path()), BTreeMap::new(), "no btrfs");
    }

    #[test]
    fn each_thread_does_its_own_and_says_when_it_is_done() {
        let root = tempfile::tempdir().unwrap();
        let scrubs = spawn(&Arc::new(Store::open(root.path()).unwrap())).unwrap();
        for look in [Look::All, Look::Piece(None), Look::One(FlistId([1; 32]))] {
            scrubs.begin(look);
            let said = scrubs.ended.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(said, (look, Outcome::default()));
        }
    }
}
