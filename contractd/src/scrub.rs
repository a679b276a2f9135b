//! The threads that read the store, so that the kernel compares what is on the disk with what was
//! signed: one that takes its time for a whole round, one for what may be damaged.
//!
//! They stand back behind everything else on the node, and read no faster than their rates. What is
//! bad has lost its name when the reconciler hears of it. They decide nothing: see `rounds`.

use crate::rounds::Look;
use flist::{Finding, Place, Store, StoreError};
use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
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

/// The ways to the threads and back.
#[derive(Debug)]
pub(crate) struct Scrubs {
    slow: Sender<Look>,
    fast: Sender<Look>,
    pub(crate) said: Receiver<Said>,
}

/// What a thread says.
#[derive(Debug)]
pub(crate) enum Said {
    /// This is bad.
    Bad(Finding),
    /// The look is over: where to go on, or why it could not be done.
    Ended(Look, Result<Option<Place>, String>),
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
        Self { slow: channel().0, fast: channel().0, said: channel().1 }
    }
}

/// Starts the threads. They end when nobody asks any more.
pub(crate) fn spawn(store: &Arc<Store>) -> io::Result<Scrubs> {
    let (sender, said) = channel();
    let start = |name: &str, rate: u64| {
        let (asks, asked) = channel();
        let (store, sender) = (Arc::clone(store), sender.clone());
        let work = move || serve(&store, &asked, &sender, rate);
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        io::Result::Ok(asks)
    };
    Ok(Scrubs { slow: start("scrub", SLOW)?, fast: start("check", FAST)?, said })
}

fn serve(store: &Store, asked: &Receiver<Look>, said: &Sender<Said>, rate: u64) {
    if let Err(error) = sys::process::stand_back() {
        daemon::warn!("reading the store as everybody else does: {error}");
    }
    for look in asked {
        let outcome = read(store, look, said, rate).map_err(|error| daemon::chain(&error));
        // Nobody listens any more only when the process ends.
        drop(said.send(Said::Ended(look, outcome)));
    }
}

fn read(
    store: &Store,
    look: Look,
    said: &Sender<Said>,
    rate: u64,
) -> Result<Option<Place>, StoreError> {
    let mut found = |finding| drop(said.send(Said::Bad(finding)));
    let (began, mut bytes) = (Instant::now(), 0_u64);
    let mut pace = |more: u64| {
        bytes = bytes.saturating_add(more);
        let early = ahead(bytes, rate, began.elapsed());
        if early >= PAUSE_MIN {
            thread::park_timeout(early);
        }
    };
    match look {
        Look::All => store.scrub(None, u64::MAX, &mut pace, &mut found),
        Look::Piece(after) => store.scrub(after, PIECE, &mut pace, &mut found),
        Look::One(flist) => store.scrub_one(flist, &mut pace, &mut found).map(|()| None),
    }
}

/// How much too early so many bytes were read.
fn ahead(bytes: u64, rate: u64, elapsed: Duration) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / rate).saturating_sub(elapsed)
}

/// Errors of reading that the disks of all pools have reported since they were made. btrfs keeps the
/// count on the disks, and counts what has another checksum too.
pub(crate) fn disk_errors(btrfs: &Path) -> u64 {
    let children = |directory: &Path| -> Vec<_> {
        let items = fs::read_dir(directory).into_iter().flatten();
        items.filter_map(Result::ok).map(|item| item.path()).collect()
    };
    let disks = children(btrfs).into_iter().flat_map(|pool| children(&pool.join("devinfo")));
    let texts = disks.filter_map(|disk| fs::read_to_string(disk.join("error_stats")).ok());
    texts.map(|text| read_errors(&text)).fold(0, u64::saturating_add)
}

/// Sums up what `error_stats` of a disk says of reading: lines of a name and a number.
fn read_errors(text: &str) -> u64 {
    let counts = text.lines().filter_map(|line| line.split_once(' '));
    let of_reading = counts.filter(|(name, _)| ["read_errs", "corruption_errs"].contains(name));
    of_reading.filter_map(|(_, count)| count.trim().parse().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::FlistId;

    #[test]
    fn reading_waits_when_it_is_early_and_never_when_it_is_late() {
        let second = Duration::from_secs(1);
        assert_eq!(ahead(SLOW, SLOW, Duration::ZERO), second);
        assert_eq!(ahead(SLOW, SLOW, second), Duration::ZERO);
        assert_eq!(ahead(SLOW, SLOW, 2 * second), Duration::ZERO);
        assert_eq!(ahead(3 * SLOW, SLOW, second), 2 * second);
    }

    #[test]
    fn the_errors_of_all_disks_of_all_pools_count() {
        let text =
            "write_errs 1\nread_errs 2\nflush_errs 4\ncorruption_errs 8\ngeneration_errs 16\n";
        assert_eq!(read_errors(text), 10);
        assert_eq!(read_errors("corruption_errs x\nread_errs\n"), 0);
        let root = tempfile::tempdir().unwrap();
        assert_eq!(disk_errors(root.path()), 0);
        fs::create_dir_all(root.path().join("features")).unwrap();
        for disk in ["a/devinfo/1", "b/devinfo/1", "b/devinfo/2"] {
            let disk = root.path().join(disk);
            fs::create_dir_all(&disk).unwrap();
            fs::write(disk.join("error_stats"), text).unwrap();
        }
        assert_eq!(disk_errors(root.path()), 30);
    }

    #[test]
    fn each_thread_does_its_own_and_says_when_it_is_done() {
        let root = tempfile::tempdir().unwrap();
        let scrubs = spawn(&Arc::new(Store::open(root.path()).unwrap())).unwrap();
        for look in [Look::All, Look::Piece(None), Look::One(FlistId([1; 32]))] {
            scrubs.begin(look);
            let said = scrubs.said.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(matches!(said, Said::Ended(done, Ok(None)) if done == look), "{said:?}");
        }
    }
}
