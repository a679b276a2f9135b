//! Random moments that can be had again: everything follows from one number, the seed.

use anyhow::{Context as _, Result};
use std::{
    cell::Cell,
    env, fmt,
    hash::{BuildHasher as _, RandomState},
    io::Write as _,
    time::Duration,
};

/// Names the seed of a run that is to be repeated.
const SEED: &str = "ZOS_SEED";

/// A source of random numbers. Shows itself as what repeats it.
#[derive(Debug)]
pub struct Chance {
    seed: u64,
    state: Cell<u64>,
}

/// The seed from `ZOS_SEED`, else one that nobody knows before.
pub fn any_seed() -> Result<u64> {
    match env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text} is no number")),
        Err(_) => Ok(RandomState::new().hash_one(std::process::id())),
    }
}

impl Chance {
    /// With the seed from `ZOS_SEED`, else one of its own; tells it on stderr.
    pub fn from_environment() -> Result<Self> {
        let chance = Self::new(any_seed()?);
        // Past the test's own capture, so that a run that passes tells it too.
        writeln!(std::io::stderr(), "{chance}").context("telling the seed")?;
        Ok(chance)
    }

    /// With this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: Cell::new(seed) }
    }

    /// A time from zero to just below `limit`.
    pub fn below(&self, limit: Duration) -> Duration {
        let limit_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.next() % limit_us.max(1))
    }

    /// One of the numbers from 0 to just below `count`; 0 when there is none.
    pub fn one_of(&self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % count).expect("it is below a usize")
    }

    /// The seed of another source, such as of one for each thread.
    pub fn seed(&self) -> u64 {
        self.next()
    }

    /// `SplitMix64`: any seed is good, and the numbers are spread evenly.
    fn next(&self) -> u64 {
        self.state.set(self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.state.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEED}={} repeats the random moments of this run", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_moments_again_and_another_gives_others() {
        let limit = Duration::from_secs(10);
        let moments = |seed| {
            let chance = Chance::new(seed);
            [(); 20].map(|()| chance.below(limit))
        };
        assert_eq!(moments(7), moments(7));
        assert_ne!(moments(7), moments(8));
        assert!(moments(7).iter().all(|moment| *moment < limit));
        assert!(moments(7).iter().any(|moment| *moment < limit / 2));
        assert!(moments(7).iter().any(|moment| *moment > limit / 2));
        assert_eq!(Chance::new(1).below(Duration::ZERO), Duration::ZERO);
    }
}
