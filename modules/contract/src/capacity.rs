//! Capacity in whole units: what a node has, what a workload needs, what a pool grants.

use serde::{Deserialize, Serialize};

/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;

/// An amount of hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Compute: thousandths of a logical core.
    pub cru_milli: u64,
    /// Memory in bytes.
    pub mru_bytes: u64,
    /// Flash in bytes.
    pub sru_bytes: u64,
    /// Rotating disk in bytes.
    pub hru_bytes: u64,
}

impl Capacity {
    /// Whether every part of `self` fits into `free`.
    pub fn fits(&self, free: &Self) -> bool {
        self.cru_milli <= free.cru_milli
            && self.mru_bytes <= free.mru_bytes
            && self.sru_bytes <= free.sru_bytes
            && self.hru_bytes <= free.hru_bytes
    }

    /// Sum, part by part; stops at the largest number.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cru_milli: self.cru_milli.saturating_add(other.cru_milli),
            mru_bytes: self.mru_bytes.saturating_add(other.mru_bytes),
            sru_bytes: self.sru_bytes.saturating_add(other.sru_bytes),
            hru_bytes: self.hru_bytes.saturating_add(other.hru_bytes),
        }
    }

    /// What is left when `used` is taken away; never below nothing.
    pub fn minus(&self, used: &Self) -> Self {
        Self {
            cru_milli: self.cru_milli.saturating_sub(used.cru_milli),
            mru_bytes: self.mru_bytes.saturating_sub(used.mru_bytes),
            sru_bytes: self.sru_bytes.saturating_sub(used.sru_bytes),
            hru_bytes: self.hru_bytes.saturating_sub(used.hru_bytes),
        }
    }

    /// The larger of the two, part by part.
    pub fn larger(&self, other: &Self) -> Self {
        Self {
            cru_milli: self.cru_milli.max(other.cru_milli),
            mru_bytes: self.mru_bytes.max(other.mru_bytes),
            sru_bytes: self.sru_bytes.max(other.sru_bytes),
            hru_bytes: self.hru_bytes.max(other.hru_bytes),
        }
    }

    /// Compute units in thousandths: the smaller of memory GiB / 4 and cores / 2, rounded down.
    pub fn cu_milli(&self) -> u64 {
        let by_memory = u128::from(self.mru_bytes) * 1000 / (4 * u128::from(GIB));
        let by_cores = u128::from(self.cru_milli) / 2;
        u64::try_from(by_memory.min(by_cores)).unwrap_or(u64::MAX)
    }

    /// Compute units in thousandths that a *use* of this size costs: the larger side counts,
    /// rounded up, so that nobody gets memory for the price of a fraction of a core.
    pub fn cu_milli_used(&self) -> u64 {
        let by_memory = (u128::from(self.mru_bytes) * 1000).div_ceil(4 * u128::from(GIB));
        let by_cores = u128::from(self.cru_milli).div_ceil(2);
        u64::try_from(by_memory.max(by_cores)).unwrap_or(u64::MAX)
    }

    /// Storage units in thousandths: HDD GiB / 1200 + flash GiB / 300, rounded down.
    pub fn su_milli(&self) -> u64 {
        let hdd = u128::from(self.hru_bytes) * 1000;
        let flash = u128::from(self.sru_bytes) * 4 * 1000;
        u64::try_from((hdd + flash) / (1200 * u128::from(GIB))).unwrap_or(u64::MAX)
    }

    /// Storage units in thousandths that a use of this size costs, rounded up.
    pub fn su_milli_used(&self) -> u64 {
        let hdd = u128::from(self.hru_bytes) * 1000;
        let flash = u128::from(self.sru_bytes) * 4 * 1000;
        u64::try_from((hdd + flash).div_ceil(1200 * u128::from(GIB))).unwrap_or(u64::MAX)
    }
}

/// Prepaid amounts: units times seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Compute units × seconds.
    pub cu_seconds: u64,
    /// Storage units × seconds.
    pub su_seconds: u64,
    /// Public IPv4 addresses × seconds.
    pub ipv4_seconds: u64,
}

impl Amounts {
    /// Whether a use of this size for so long fits into what was granted.
    pub fn cover(&self, used: &Capacity, seconds: u64) -> bool {
        let seconds = u128::from(seconds);
        let compute = u128::from(used.cu_milli_used()) * seconds;
        let storage = u128::from(used.su_milli_used()) * seconds;
        compute <= u128::from(self.cu_seconds) * 1000
            && storage <= u128::from(self.su_seconds) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capacity() -> impl Strategy<Value = Capacity> {
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
            |(cru_milli, mru_bytes, sru_bytes, hru_bytes)| Capacity {
                cru_milli,
                mru_bytes,
                sru_bytes,
                hru_bytes,
            },
        )
    }

    #[test]
    fn the_units_follow_their_definition() {
        let node = Capacity {
            cru_milli: 8000,
            mru_bytes: 16 * GIB,
            sru_bytes: 300 * GIB,
            hru_bytes: 1200 * GIB,
        };
        assert_eq!(node.cu_milli(), 4000);
        assert_eq!(node.su_milli(), 2000);
        let less_memory = Capacity { mru_bytes: 8 * GIB, ..node };
        assert_eq!(less_memory.cu_milli(), 2000);
    }

    proptest! {
        #[test]
        fn adding_hardware_never_lowers_a_figure(have in capacity(), more in capacity()) {
            let sum = have.plus(&more);
            prop_assert!(sum.cu_milli() >= have.cu_milli());
            prop_assert!(sum.su_milli() >= have.su_milli());
            prop_assert!(sum.cu_milli_used() >= have.cu_milli_used());
        }

        #[test]
        fn what_fits_can_be_taken_away_and_given_back(free in capacity(), used in capacity()) {
            if used.fits(&free) {
                prop_assert_eq!(free.minus(&used).plus(&used), free);
            }
        }
    }

    #[test]
    fn a_pool_covers_exactly_what_it_grants() {
        let use_of_one_cu = Capacity { cru_milli: 2000, mru_bytes: 4 * GIB, ..Capacity::default() };
        let hour = Amounts { cu_seconds: 3600, ..Amounts::default() };
        assert!(hour.cover(&use_of_one_cu, 3600));
        assert!(!hour.cover(&use_of_one_cu, 3601));
    }
}
