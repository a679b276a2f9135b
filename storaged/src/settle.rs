//! When to stop waiting for disks at boot, and which pool becomes the primary one.

use crate::uuid::Uuid;
use node_api::storaged::DiskClass;
use std::fmt;
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

/// What a pool keeps of the choices of a primary pool, which are numbered from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Choices {
    /// The last choice that this pool won; 0 never did.
    pub(crate) won: u64,
    /// The last choice that this pool was told of, whoever won it. Without it, a choice made while
    /// the former winner is away would get a number that was given before, and the former winner
    /// would come back with state as good as the newer one.
    pub(crate) known: u64,
}

/// A pool that could become the primary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Which pool.
    pub(crate) pool: Uuid,
    /// What it keeps of earlier choices.
    pub(crate) choices: Choices,
    /// Its medium.
    pub(crate) class: DiskClass,
    /// Its size.
    pub(crate) size_bytes: u64,
}

/// The pool that won the last choice of all that are here; of those that never were, the fastest, then the largest, then the
/// one with the smallest id.
pub(crate) fn primary(candidates: &[Candidate]) -> Option<Uuid> {
    let rank = |candidate: &&Candidate| {
        let Candidate { pool, choices, class, size_bytes } = **candidate;
        (std::cmp::Reverse(choices.won), class, std::cmp::Reverse(size_bytes), pool)
    };
    candidates.iter().min_by_key(rank).map(|candidate| candidate.pool)
}

/// What each pool has to keep so that all agree that `chosen` won the last choice; pools that keep it
/// already are left out. The winner comes last: a choice that was announced and not made costs a
/// number, one that was made and not announced could be outnumbered by a stale pool.
pub(crate) fn agree(candidates: &[Candidate], chosen: Uuid) -> Vec<(Uuid, Choices)> {
    let won = |candidate: &&Candidate| candidate.pool == chosen;
    let Some(winner) = candidates.iter().find(won) else { return Vec::new() };
    let others = candidates.iter().filter(|candidate| candidate.pool != chosen);
    let known = |candidate: &Candidate| candidate.choices.known.max(candidate.choices.won);
    let elsewhere = others.clone().map(known).max().unwrap_or(0);
    let beaten = others.clone().map(|candidate| candidate.choices.won).max().unwrap_or(0);
    let is_last =
        winner.choices.won > beaten && winner.choices.won >= elsewhere.max(winner.choices.known);
    let number =
        if is_last { winner.choices.won } else { known(winner).max(elsewhere).saturating_add(1) };
    let told = others.map(|other| (other, Choices { known: number, ..other.choices }));
    let all = told.chain([(winner, Choices { won: number, known: number })]);
    let behind = all.filter(|(candidate, choices)| candidate.choices != *choices);
    behind.map(|(candidate, choices)| (candidate.pool, choices)).collect()
}

impl Choices {
    /// Two numbers, or one where nothing was known beyond it. A damaged text is as good as none: the
    /// choice is then made anew.
    pub(crate) fn parse(text: &str) -> Self {
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
        match numbers.as_deref() {
            Some([won]) => Self { won: *won, known: *won },
            Some([won, known]) if won <= known => Self { won: *won, known: *known },
            Some(_) | None => Self::default(),
        }
    }
}

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.won, self.known)
    }
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
        let candidate = |n: u8, won, class, size_bytes| Candidate {
            pool: Uuid::from_random([n; 16]),
            choices: Choices { won, known: won },
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

    /// A disk is pulled, the node is booted and used without it, and the disk comes back.
    #[test]
    fn a_stale_disk_that_comes_back_follows_the_newer_choice() {
        let mut kept = [Choices::default(); 3];
        let mut boot = |here: &[u8]| {
            let candidates: Vec<Candidate> = here
                .iter()
                .map(|n| Candidate {
                    pool: pool(*n),
                    choices: kept[usize::from(*n)],
                    // The first is the fastest: without numbers it would always win.
                    class: if *n == 0 { DiskClass::Nvme } else { DiskClass::Hdd },
                    size_bytes: 1,
                })
                .collect();
            let chosen = primary(&candidates).unwrap();
            for (uuid, choices) in agree(&candidates, chosen) {
                let of = here.iter().find(|n| pool(**n) == uuid).unwrap();
                kept[usize::from(*of)] = Choices::parse(&choices.to_string());
            }
            (0..3).find(|n| pool(*n) == chosen).unwrap()
        };
        for (here, chosen) in [
            (&[0, 1, 2][..], 0),
            (&[1, 2], 1),
            // The first returns with an older choice, alone with a pool that knows the newer one.
            (&[0, 2], 0),
            (&[0, 1], 0),
            (&[1], 1),
            (&[0, 1, 2], 1),
            (&[0, 1, 2], 1),
        ] {
            assert_eq!(boot(here), chosen, "{here:?}");
        }
    }

    #[test]
    fn pools_that_agree_are_not_written_and_the_winner_is_written_last() {
        let candidate = |n, won, known| Candidate {
            pool: pool(n),
            choices: Choices { won, known },
            class: DiskClass::Ssd,
            size_bytes: 1,
        };
        let agreed = [candidate(0, 1, 4), candidate(1, 4, 4), candidate(2, 0, 4)];
        assert_eq!(agree(&agreed, pool(1)), []);
        let tied = [candidate(0, 4, 4), candidate(1, 4, 4)];
        let records =
            [(pool(1), Choices { won: 4, known: 5 }), (pool(0), Choices { won: 5, known: 5 })];
        assert_eq!(agree(&tied, pool(0)), records);
        assert_eq!(agree(&tied, pool(9)), []);
    }

    #[test]
    fn a_record_survives_and_a_damaged_one_is_none() {
        let choices = Choices { won: 3, known: 7 };
        assert_eq!(Choices::parse(&choices.to_string()), choices);
        assert_eq!(Choices::parse("3\n"), Choices { won: 3, known: 3 });
        for damaged in ["", "x", "7 3", "1 2 3", "-1 4"] {
            assert_eq!(Choices::parse(damaged), Choices::default(), "{damaged:?}");
        }
    }

    fn pool(n: u8) -> Uuid {
        Uuid::from_random([n; 16])
    }
}
