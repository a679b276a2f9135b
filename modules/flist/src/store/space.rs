//! How much the store may still fill: what its file system has, and what its quota leaves of that.

use super::{Store, StoreError};
use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Space that stays free: a file system without any cannot even delete.
const FREE_MIN: u64 = 64 << 20;
/// Where btrfs tells of quotas.
const BTRFS: &str = "/sys/fs/btrfs";
/// A group of quotas has a limit of what it refers to.
const LIMIT_REFERENCED: u64 = 1;

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// What may still be filled.
    pub(super) free: u64,
    /// What that is when nothing is there.
    pub(super) size: u64,
}

/// What a subvolume may fill, and has filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    most: u64,
    used: u64,
}

impl Store {
    /// What the store may still fill. Only what was synced counts as filled.
    pub(super) fn space(&self) -> Result<Space, StoreError> {
        let failed = || StoreError::io("asking for the free space of", &self.root);
        let space = rustix::fs::statvfs(&self.root).map_err(|errno| failed()(errno.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok(within(bytes(space.f_bavail), bytes(space.f_blocks), quota(&self.root)))
    }
}

fn within(free: u64, size: u64, quota: Option<Quota>) -> Space {
    let (free, size) = (free.saturating_sub(FREE_MIN), size.saturating_sub(FREE_MIN));
    match quota {
        None => Space { free, size },
        Some(Quota { most, used }) => {
            Space { free: free.min(most.saturating_sub(used)), size: size.min(most) }
        }
    }
}

/// `None`: there is none, or the kernel does not say. It holds all the same.
fn quota(root: &Path) -> Option<Quota> {
    let root = File::open(root).ok()?;
    let pool = sys::btrfs::file_system_uuid(&root).ok()?;
    let subvolume = sys::btrfs::subvolume_id(&root).ok()?;
    quota_in(&Path::new(BTRFS).join(pool).join("qgroups").join(format!("0_{subvolume}")))
}

fn quota_in(group: &Path) -> Option<Quota> {
    let number = |name: &str| {
        let text = fs::read_to_string(group.join(name))?;
        text.trim().parse::<u64>().map_err(io::Error::other)
    };
    let is_limited = number("limit_flags").ok()? & LIMIT_REFERENCED != 0;
    let quota = Quota { most: number("max_referenced").ok()?, used: number("referenced").ok()? };
    is_limited.then_some(quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_may_fill_what_both_the_disk_and_the_quota_leave() {
        const GIB: u64 = 1 << 30;
        let free = |free, quota: Option<(u64, u64)>| {
            within(free, 100 * GIB, quota.map(|(most, used)| Quota { most, used }))
        };
        for (space, expected) in [
            (free(10 * GIB, None), (10 * GIB - FREE_MIN, 100 * GIB - FREE_MIN)),
            (free(FREE_MIN - 1, None), (0, 100 * GIB - FREE_MIN)),
            (free(90 * GIB, Some((20 * GIB, 5 * GIB))), (15 * GIB, 20 * GIB)),
            (free(GIB, Some((20 * GIB, 5 * GIB))), (GIB - FREE_MIN, 20 * GIB)),
            (free(90 * GIB, Some((20 * GIB, 21 * GIB))), (0, 20 * GIB)),
        ] {
            assert_eq!((space.free, space.size), expected);
        }
    }

    #[test]
    fn a_quota_is_read_as_the_kernel_writes_it() {
        let group = tempfile::tempdir().unwrap();
        assert_eq!(quota_in(group.path()), None);
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        write("max_referenced", "214748364\n");
        write("referenced", "16384\n");
        write("limit_flags", "1\n");
        assert_eq!(quota_in(group.path()), Some(Quota { most: 214_748_364, used: 16_384 }));
        write("limit_flags", "0\n");
        assert_eq!(quota_in(group.path()), None, "no limit");
        write("limit_flags", "junk\n");
        assert_eq!(quota_in(group.path()), None);
        let other = tempfile::tempdir().unwrap();
        let store = Store::open(other.path()).unwrap();
        assert!(store.space().unwrap().size > 0);
    }
}
