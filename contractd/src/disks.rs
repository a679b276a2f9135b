//! The disks that directories lie on, as the limits of a cgroup name them.
//!
//! A pool is a btrfs on whole disks, and btrfs says in sysfs which.

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::Path,
};

/// Disks of one pool; ours have one.
const DISKS_MAX: usize = 64;

/// Where btrfs tells of its file systems.
pub(crate) const BTRFS: &str = "/sys/fs/btrfs";

/// The numbers `MAJOR:MINOR` of the disks below a directory: none when it is in memory. Nothing else is
/// without a disk only because it is no btrfs.
pub(crate) fn below(directory: &Path, btrfs: &Path) -> io::Result<BTreeSet<String>> {
    let directory = File::open(directory)?;
    if fstatfs(&directory)?.filesystem_type() == TMPFS_MAGIC {
        return Ok(BTreeSet::new());
    }
    of_pool(&sys::btrfs::file_system_uuid(directory)?, btrfs)
}

fn of_pool(pool: &str, btrfs: &Path) -> io::Result<BTreeSet<String>> {
    let number = |disk: io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(disk?.path().join("dev"))?;
        Ok(text.trim_end().to_owned())
    };
    let disks = fs::read_dir(btrfs.join(pool).join("devices"))?.take(DISKS_MAX);
    let disks: BTreeSet<String> = disks.map(number).collect::<io::Result<_>>()?;
    if disks.is_empty() {
        return Err(io::Error::other("the pool has no disk at the moment"));
    }
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_names_its_disks_by_their_numbers() {
        let btrfs = tempfile::tempdir().unwrap();
        let devices = btrfs.path().join("0815/devices");
        for (disk, number) in [("vda", "254:0\n"), ("nvme0n1", "259:3\n")] {
            fs::create_dir_all(devices.join(disk)).unwrap();
            fs::write(devices.join(disk).join("dev"), number).unwrap();
        }
        let found = of_pool("0815", btrfs.path()).unwrap();
        assert_eq!(found, ["254:0", "259:3"].map(str::to_owned).into());
        // One that cannot be named has no limit, so nothing starts with one.
        fs::remove_file(devices.join("vda/dev")).unwrap();
        assert!(of_pool("0815", btrfs.path()).is_err());
        assert!(of_pool("4711", btrfs.path()).is_err(), "its disk is gone");
    }

    #[test]
    fn what_is_in_memory_is_on_no_disk() {
        let btrfs = tempfile::tempdir().unwrap();
        assert_eq!(below(Path::new("/dev/shm"), btrfs.path()).unwrap(), BTreeSet::new());
        // Of anything else it is not known, so that no limit is left out.
        for unknown in ["/proc", "/dev/shm/no-such-directory"] {
            assert!(below(Path::new(unknown), btrfs.path()).is_err(), "{unknown}");
        }
    }
}
