//! When to stop waiting for disks at boot, and which pool becomes the primary one.

use crate::uuid::Uuid;
use node_api::storaged::DiskClass;
use std::time::{Duration, Instant};

/// A disk that takes longer to be read or made joins when it is done.
const WORK_MAX: Duration = Duration::from_mins(2);
/// When nothing is left to be chosen, because the former primary pool is there or storaged was only
/// restarted, a hanging disk holds up the node for no longer than this.
const WORK_MAX_KNOWN: Duration = Duration::from_secs(20);
/// Drivers report disks one after another. A choice that cannot be taken back (a new identity,
/// another primary pool) waits until none came for this long.
const QUIET: Duration = Duration::from_secs(2);
/// Drivers that are not loaded by then are not waited for. Until they are, the disk that was chosen
/// at the last boot may still be missing.
const DRIVERS_MAX: Duration = Duration::from_mins(2);
/// A machine that shows no pool at all gets this long to show one: controllers may need seconds,
/// and running without a disk is the worse choice until the next boot.
const NO_POOL: Duration = Duration::from_secs(10);

/// What is known about the disks so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// When storaged started.
    pub(crate) started: Instant,
    /// When every device that was there at boot had its driver, if they have.
    pub(crate) drivers_loaded: Option<Instant>,
    /// When the last disk appeared.
    pub(crate) arrived: Instant,
    /// Disks that are still being read or made.
    pub(crate) n_working: usize,
    /// Disks that are there at all.
    pub(crate) n_disks: usize,
    /// Whether a pool is there that was primary before and holds the identity.
    pub(crate) has_former_primary: bool,
    /// Whether every pool that the node has had is there: none that is missing can be a later choice.
    pub(crate) has_all_pools: bool,
    /// Whether `/state` is mounted already: storaged was restarted.
    pub(crate) is_restart: bool,
}

/// Until when to wait for further disks; a time that has passed means: go on.
pub(crate) fn wait_until(progress: Progress) -> Instant {
    let Progress {
        started,
        drivers_loaded,
        arrived,
        n_working,
        n_disks,
        has_former_primary,
        has_all_pools,
        is_restart,
    } = progress;
    let is_complete = has_all_pools || drivers_loaded.is_some();
    let is_known = is_restart || (has_former_primary && is_complete);
    match drivers_loaded {
        _ if is_known && n_working > 0 => arrived + WORK_MAX_KNOWN,
        _ if is_known => started,
        _ if n_working > 0 => arrived + WORK_MAX,
        None => started + DRIVERS_MAX,
        Some(loaded) if n_disks > 0 => arrived.max(loaded) + QUIET,
        Some(loaded) => loaded + NO_POOL,
    }
}

/// A pool that could become the primary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Which pool.
    pub(crate) pool: Uuid,
    /// Its number among the choices so far; 0 was never chosen.
    pub(crate) primary: u64,
    /// Its medium.
    pub(crate) class: DiskClass,
    /// Its size.
    pub(crate) size_bytes: u64,
}

/// The pool that was chosen last; of those that never were, the fastest, then the largest, then the
/// one with the smallest id.
pub(crate) fn primary(candidates: &[Candidate]) -> Option<Uuid> {
    let rank = |candidate: &&Candidate| {
        let Candidate { pool, primary, class, size_bytes } = **candidate;
        (std::cmp::Reverse(primary), class, std::cmp::Reverse(size_bytes), pool)
    };
    candidates.iter().min_by_key(rank).map(|candidate| candidate.pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_lasts_only_as_long_as_a_late_disk_could_change_the_outcome() {
        let started = Instant::now();
        let arrived = started + Duration::from_secs(1);
        let loaded = started + Duration::from_secs(3);
        let quiet = Progress {
            started,
            drivers_loaded: Some(started),
            arrived,
            n_working: 0,
            n_disks: 1,
            has_former_primary: false,
            has_all_pools: false,
            is_restart: false,
        };
        assert_eq!(wait_until(quiet), arrived + QUIET);
        assert_eq!(wait_until(Progress { n_working: 1, ..quiet }), arrived + WORK_MAX);
        assert_eq!(wait_until(Progress { n_disks: 0, ..quiet }), started + NO_POOL);
        let late = Progress { drivers_loaded: Some(loaded), ..quiet };
        assert_eq!(wait_until(late), loaded + QUIET);
        assert_eq!(wait_until(Progress { n_disks: 0, ..late }), loaded + NO_POOL);
        let loading = Progress { drivers_loaded: None, ..quiet };
        assert_eq!(wait_until(loading), started + DRIVERS_MAX);
        let former = Progress { has_former_primary: true, ..loading };
        assert_eq!(
            wait_until(former),
            started + DRIVERS_MAX,
            "another pool may be the later choice"
        );
        assert_eq!(wait_until(Progress { has_all_pools: true, ..former }), started);
        for known in [
            Progress { has_former_primary: true, ..quiet },
            Progress { is_restart: true, n_disks: 0, ..quiet },
        ] {
            assert_eq!(wait_until(known), started);
            assert_eq!(wait_until(Progress { n_working: 1, ..known }), arrived + WORK_MAX_KNOWN);
        }
    }

    #[test]
    fn the_primary_pool_is_the_last_choice_then_the_fastest_then_the_largest() {
        let candidate = |n: u8, primary, class, size_bytes| Candidate {
            pool: Uuid::from_random([n; 16]),
            primary,
            class,
            size_bytes,
        };
        let mut pools = vec![
            candidate(1, 0, DiskClass::Hdd, 900),
            candidate(5, 0, DiskClass::Ssd, 100),
            candidate(4, 0, DiskClass::Ssd, 200),
            candidate(3, 0, DiskClass::Ssd, 200),
        ];
        assert_eq!(primary(&pools), Some(pools[3].pool));
        pools.push(candidate(6, 1, DiskClass::Hdd, 50));
        pools.push(candidate(7, 2, DiskClass::Hdd, 10));
        assert_eq!(primary(&pools), Some(pools[5].pool));
        pools.reverse();
        assert_eq!(primary(&pools), Some(pools[0].pool));
        assert_eq!(primary(&[]), None);
    }
}
