//! Limits of a container's reading and writing.
//!
//! Refuses a limit below which a program cannot even be read, and numbers that no disk knows.

use core::ops::RangeInclusive;
use serde::{Deserialize, Serialize};

/// Bounds of bytes in a second: the smallest one reads a program of 10 MiB in under three minutes.
const BYTES_S: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// Bounds of operations in a second.
const OPS_S: RangeInclusive<u64> = 10..=100_000_000;

/// What a container may do on each of the node's disks that its files are on, at most. What is left out has
/// no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskLimits {
    /// Bytes read in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_s: Option<u64>,
    /// Bytes written in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_s: Option<u64>,
    /// Operations that read in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ops_s: Option<u64>,
    /// Operations that write in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_ops_s: Option<u64>,
}

impl DiskLimits {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let Self { read_bytes_s, write_bytes_s, read_ops_s, write_ops_s } = self;
        let is_within = |limit: &Option<u64>, bounds: &RangeInclusive<u64>| {
            limit.is_none_or(|limit| bounds.contains(&limit))
        };
        match self {
            _ if *self == Self::default() => Err("limits of disks have at least one limit"),
            _ if ![read_bytes_s, write_bytes_s].iter().all(|limit| is_within(limit, &BYTES_S)) => {
                Err("a limit of a disk is from 64 KiB to 1 TiB in a second")
            }
            _ if ![read_ops_s, write_ops_s].iter().all(|limit| is_within(limit, &OPS_S)) => {
                Err("a limit of a disk is from 10 to 100 million operations in a second")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_bounded_and_at_least_one() {
        let none = DiskLimits::default();
        let rows = [
            (none, false),
            (DiskLimits { read_bytes_s: Some(64 << 10), ..none }, true),
            (DiskLimits { read_bytes_s: Some((64 << 10) - 1), ..none }, false),
            (DiskLimits { write_bytes_s: Some(1 << 40), ..none }, true),
            (DiskLimits { write_bytes_s: Some((1 << 40) + 1), ..none }, false),
            (DiskLimits { read_ops_s: Some(10), ..none }, true),
            (DiskLimits { read_ops_s: Some(9), ..none }, false),
            (DiskLimits { write_ops_s: Some(100_000_000), ..none }, true),
            (DiskLimits { write_ops_s: Some(100_000_001), ..none }, false),
            (DiskLimits { write_ops_s: Some(0), read_ops_s: Some(10), ..none }, false),
        ];
        for (limits, good) in rows {
            assert_eq!(limits.check().is_ok(), good, "{limits:?}");
        }
    }
}
