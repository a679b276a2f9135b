//! Samples of what containers use: read by one thread for all sinks, every two seconds by the boot
//! clock, and shown to whoever is there. A sample is of now: nobody keeps one for later, and one that
//! cannot be read is not there.

use container::usage::{self, Traffic, Usage};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// From one sample to the next, in milliseconds.
const PERIOD_MS: u64 = 2_000;

/// Of which containers samples are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sampled {
    /// Their ids.
    pub ids: BTreeSet<String>,
    /// The node's end of the cable, of every container that has one.
    pub links: BTreeMap<String, String>,
}

/// What a container has used until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Periods of the boot clock: counts on when this process is started again.
    pub number: u64,
    /// Counts the samples of this container since the start of this process.
    pub count: u64,
    /// Time of day in milliseconds.
    pub time_ms: u64,
    /// What the kernel has counted.
    pub usage: Usage,
    /// The same of its link, if it has one.
    pub traffic: Option<Traffic>,
}

/// Samples that were taken together, by the container's id.
pub type Round = Arc<BTreeMap<String, Sample>>;

/// Takes samples until nobody can see them any more.
pub fn run(
    groups: &Path,
    links: &Path,
    sampled: &watch::Receiver<Sampled>,
    shown: &watch::Sender<Round>,
) {
    let mut counts = BTreeMap::new();
    let mut number = boot_ms() / PERIOD_MS;
    while !shown.is_closed() {
        while boot_ms() / PERIOD_MS == number {
            thread::park_timeout(until_next(boot_ms()));
        }
        number = boot_ms() / PERIOD_MS;
        let sampled = sampled.borrow().clone();
        let round = round(groups, links, &sampled, number, &mut counts);
        shown.send_if_modified(|shown| {
            let is_nothing = shown.is_empty() && round.is_empty();
            *shown = Arc::new(round);
            !is_nothing
        });
    }
}

/// When the next period begins. One that this thread was late for has no sample.
fn until_next(now_ms: u64) -> Duration {
    Duration::from_millis(PERIOD_MS - now_ms % PERIOD_MS)
}

fn round(
    groups: &Path,
    links: &Path,
    sampled: &Sampled,
    number: u64,
    counts: &mut BTreeMap<String, u64>,
) -> BTreeMap<String, Sample> {
    counts.retain(|id, _| sampled.ids.contains(id));
    let mut samples = BTreeMap::new();
    for id in &sampled.ids {
        // It does not run, or not yet.
        let Ok(usage) = usage::read(&groups.join(id)) else { continue };
        let link = sampled.links.get(id);
        let traffic = link.and_then(|link| usage::traffic(links, link).ok());
        let count = counts.entry(id.clone()).or_default();
        *count += 1;
        let sample = Sample { number, count: *count, time_ms: time_ms(), usage, traffic };
        samples.insert(id.clone(), sample);
    }
    samples
}

fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let ms = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
    u64::try_from(ms).unwrap_or(0)
}

fn time_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn samples_are_taken_when_a_period_begins() {
        for (now_ms, wait_ms) in [(0, 2000), (1, 1999), (1999, 1), (2000, 2000), (u64::MAX, 385)] {
            assert_eq!(until_next(now_ms), Duration::from_millis(wait_ms), "{now_ms}");
        }
    }

    #[test]
    fn what_cannot_be_read_now_has_no_sample() {
        let directory = tempfile::tempdir().unwrap();
        let [groups, links] = ["groups", "links"].map(|name| directory.path().join(name));
        let (group, link) = (groups.join("c-1"), links.join("zc2/statistics"));
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(&link).unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 5\n").unwrap();
        fs::write(link.join("rx_bytes"), "7\n").unwrap();
        fs::write(link.join("tx_bytes"), "8\n").unwrap();
        let link_of = |name: &str| BTreeMap::from([("c-1".to_owned(), name.to_owned())]);
        let ids = ["c-1", "c-2"].map(str::to_owned).into();
        let mut sampled = Sampled { ids, links: link_of("zc2") };
        let mut counts = BTreeMap::new();
        let mut take = |sampled: &Sampled| round(&groups, &links, sampled, 9, &mut counts);
        let first = take(&sampled);
        assert_eq!(first.keys().collect::<Vec<_>>(), ["c-1"]);
        assert_eq!(first["c-1"].usage.cpu_us, 5);
        assert_eq!(first["c-1"].traffic, Some(Traffic { received_bytes: 8, sent_bytes: 7 }));
        // A link that is gone has no figures, and the rest has.
        sampled.links = link_of("zc3");
        fs::write(group.join("cpu.stat"), "usage_usec 6\n").unwrap();
        let second = take(&sampled);
        assert_eq!((second["c-1"].usage.cpu_us, second["c-1"].traffic), (6, None));
        assert_eq!((first["c-1"].count, second["c-1"].count), (1, 2));
        fs::remove_dir_all(&group).unwrap();
        assert!(take(&sampled).is_empty());
        sampled.ids.clear();
        assert!(take(&sampled).is_empty() && counts.is_empty());
    }
}
