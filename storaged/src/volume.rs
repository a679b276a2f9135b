//! Volumes: a btrfs subvolume with a quota for each id.
//!
//! A volume is made under a hidden name, limited and labelled, and then renamed: whoever sees it by
//! its id sees it complete. Deleting renames first. Hidden names are removed at the next start.

use crate::pool::{Doing, StepError};
use crate::uuid::Uuid;
use node_api::storaged::DiskClass;
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Quotas in bytes, by volume id.
pub(crate) type Quotas = BTreeMap<String, u64>;

/// Label with the quota in decimal. Only root of the node may change `trusted.` attributes.
const QUOTA: &str = "trusted.zos.quota";
/// No volume id starts with a dot.
const MAKING: &str = ".making-";
const DELETING: &str = ".deleting-";

/// What a caller may want to tell apart. It is no `Error`, because every error becomes a failure of
/// the one name `Failed` on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The id or the order is not of the agreed form.
    Invalid(String),
    /// No pool can hold volumes of this class at all.
    NoPool(Option<DiskClass>),
    /// The pools are promised to others.
    NoSpace {
        /// Asked for.
        wanted_bytes: u64,
        /// Medium asked for.
        class: Option<DiskClass>,
        /// What could be given.
        free_bytes: u64,
    },
    /// The volume exists on a pool that cannot be used now.
    PoolFailed {
        /// Which volume.
        id: String,
        /// Where it is.
        pool: Uuid,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => f.write_str(why),
            Self::NoPool(class) => write!(f, "no pool{} can hold volumes", class_text(*class)),
            Self::NoSpace { wanted_bytes, class, free_bytes } => write!(
                f,
                "{wanted_bytes} bytes do not fit{}: the largest free share is {free_bytes} bytes",
                class_text(*class)
            ),
            Self::PoolFailed { id, pool } => {
                write!(f, "volume {id} is on pool {pool}, which failed")
            }
        }
    }
}

fn class_text(class: Option<DiskClass>) -> &'static str {
    match class {
        None => "",
        Some(DiskClass::Nvme) => " on NVMe",
        Some(DiskClass::Ssd) => " on SSD",
        Some(DiskClass::Hdd) => " on HDD",
    }
}

/// What a pool has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Which pool.
    pub(crate) pool: Uuid,
    /// Its medium.
    pub(crate) class: DiskClass,
    /// What all its volumes together may be promised.
    pub(crate) budget_bytes: u64,
    /// What they were promised.
    pub(crate) promised_bytes: u64,
}

impl Room {
    /// What can still be promised.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.budget_bytes.saturating_sub(self.promised_bytes)
    }
}

/// What of a pool can be promised at all. The rest is for what btrfs keeps twice, its metadata and
/// the node's small records in them: of a small disk mkfs alone takes an eighth, of a large one they
/// take a sixteenth with room to spare. All shares together fit, so that the state, which holds what
/// the node has agreed to, finds its own share free however full the others are.
pub(crate) fn usable(size_bytes: u64) -> u64 {
    const SMALL_BYTES: u64 = 256 << 20;
    size_bytes - (size_bytes / 16).max(SMALL_BYTES.min(size_bytes / 8))
}

/// What volumes may be promised. On the primary pool, the node takes a quarter.
pub(crate) fn budget(size_bytes: u64, primary: bool) -> u64 {
    let usable_bytes = usable(size_bytes);
    if primary { usable_bytes / 4 * 3 } else { usable_bytes }
}

/// Chooses the pool with the most room of the class asked for, of any class when none is.
pub(crate) fn place(
    rooms: &[Room],
    class: Option<DiskClass>,
    wanted_bytes: u64,
) -> Result<Uuid, Refusal> {
    // NVMe is flash as well.
    let suits = |room: DiskClass, class: DiskClass| {
        room == class || (class == DiskClass::Ssd && room == DiskClass::Nvme)
    };
    let fitting = rooms.iter().filter(|room| class.is_none_or(|class| suits(room.class, class)));
    // Among equals the smallest id, so that the choice can be repeated.
    let best = fitting.max_by_key(|room| (room.free_bytes(), std::cmp::Reverse(room.pool)));
    let best = best.ok_or(Refusal::NoPool(class))?;
    let free_bytes = best.free_bytes();
    let fits = wanted_bytes <= free_bytes;
    fits.then_some(best.pool).ok_or(Refusal::NoSpace { wanted_bytes, class, free_bytes })
}

/// Whether a volume in this room may get another quota.
pub(crate) fn resize(room: &Room, had_bytes: u64, wanted_bytes: u64) -> Result<(), Refusal> {
    let free_bytes = room.free_bytes().saturating_add(had_bytes);
    if wanted_bytes <= free_bytes.max(had_bytes) {
        return Ok(());
    }
    Err(Refusal::NoSpace { wanted_bytes, class: None, free_bytes })
}

/// Checks a volume id.
pub(crate) fn check_id(id: &str) -> Result<(), Refusal> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=64).contains(&id.len()) && id.bytes().all(good) {
        return Ok(());
    }
    Err(Refusal::Invalid("a volume is named by 1 to 64 of a-z, 0-9 and -".to_owned()))
}

/// Checks the id of an order, which goes into the log.
pub(crate) fn check_order(order: &str) -> Result<(), Refusal> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"-_.:/".contains(&c);
    if (1..=128).contains(&order.len()) && order.bytes().all(good) {
        return Ok(());
    }
    Err(Refusal::Invalid("a volume is deleted by an order, which has an id".to_owned()))
}

/// Makes a volume and gives its path. Nothing with that id may exist.
pub(crate) fn make(volumes: &Path, id: &str, size_bytes: u64) -> Result<PathBuf, StepError> {
    let doing = || format!("making volume {id}");
    let hidden = format!("{MAKING}{id}");
    let parent = File::open(volumes).doing(doing)?;
    delete_subvolume(&parent, &hidden).doing(doing)?;
    sys::btrfs::subvolume_create(&parent, &hidden).doing(doing)?;
    fs::set_permissions(volumes.join(&hidden), fs::Permissions::from_mode(0o755)).doing(doing)?;
    limit(&volumes.join(&hidden), size_bytes).doing(doing)?;
    fs::rename(volumes.join(&hidden), volumes.join(id)).doing(doing)?;
    sys::btrfs::sync(&parent).doing(doing)?;
    Ok(volumes.join(id))
}

/// Gives a volume another quota.
pub(crate) fn change(volumes: &Path, id: &str, size_bytes: u64) -> Result<(), StepError> {
    limit(&volumes.join(id), size_bytes).doing(|| format!("changing the quota of volume {id}"))
}

fn limit(volume: &Path, size_bytes: u64) -> io::Result<()> {
    let volume = File::open(volume)?;
    sys::btrfs::quota_limit(&volume, Some(size_bytes))?;
    fsetxattr(&volume, QUOTA, size_bytes.to_string().as_bytes(), XattrFlags::empty())?;
    volume.sync_all()
}

/// Deletes a volume. The name is gone for ever on return.
pub(crate) fn delete(volumes: &Path, id: &str) -> Result<(), StepError> {
    let doing = || format!("deleting volume {id}");
    let hidden = format!("{DELETING}{id}");
    let parent = File::open(volumes).doing(doing)?;
    delete_subvolume(&parent, &hidden).doing(doing)?;
    fs::rename(volumes.join(id), volumes.join(&hidden)).doing(doing)?;
    sys::btrfs::sync(&parent).doing(doing)?;
    delete_subvolume(&parent, &hidden).doing(doing)
}

fn delete_subvolume(parent: &File, name: &str) -> io::Result<()> {
    match sys::btrfs::subvolume_delete(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes volumes that were never complete, and those whose deletion had begun.
pub(crate) fn finish_interrupted(volumes: &Path) -> io::Result<()> {
    let parent = File::open(volumes)?;
    for name in names(volumes)? {
        if name.starts_with(MAKING) || name.starts_with(DELETING) {
            delete_subvolume(&parent, &name)?;
        }
    }
    Ok(())
}

/// All volumes and their quotas.
pub(crate) fn load(volumes: &Path) -> io::Result<Quotas> {
    let mut quotas = Quotas::new();
    for id in names(volumes)?.into_iter().filter(|name| check_id(name).is_ok()) {
        let volume = File::open(volumes.join(&id))?;
        let mut digits = [0; 20];
        let length = fgetxattr(&volume, QUOTA, &mut digits)?;
        let text = std::str::from_utf8(&digits[..length]).map_err(io::Error::other)?;
        quotas.insert(id, text.parse().map_err(io::Error::other)?);
    }
    Ok(quotas)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(n: u8, class: DiskClass, budget: u64, promised: u64) -> Room {
        Room {
            pool: Uuid::from_random([n; 16]),
            class,
            budget_bytes: budget * GIB,
            promised_bytes: promised * GIB,
        }
    }

    #[test]
    fn a_volume_goes_to_the_pool_of_its_class_with_the_most_room() {
        let rooms = [
            room(1, DiskClass::Ssd, 10, 9),
            room(2, DiskClass::Ssd, 10, 4),
            room(3, DiskClass::Hdd, 100, 0),
            room(4, DiskClass::Ssd, 6, 0),
        ];
        let pick = |class, size: u64| place(&rooms, class, size * GIB);
        assert_eq!(pick(Some(DiskClass::Ssd), 1), Ok(rooms[1].pool));
        assert_eq!(pick(Some(DiskClass::Ssd), 6), Ok(rooms[1].pool));
        assert_eq!(pick(None, 1), Ok(rooms[2].pool));
        assert_eq!(pick(Some(DiskClass::Nvme), 1), Err(Refusal::NoPool(Some(DiskClass::Nvme))));
        let Err(refusal) = pick(Some(DiskClass::Ssd), 7) else { panic!() };
        assert!(refusal.to_string().contains("on SSD"), "{refusal}");
        assert_eq!(place(&[], None, 1), Err(Refusal::NoPool(None)));
    }

    #[test]
    fn what_is_promised_is_counted_and_not_what_is_used() {
        let full = room(1, DiskClass::Ssd, 10, 10);
        assert!(place(&[full], None, 1).is_err());
        assert!(place(&[full], None, 0).is_ok());
        assert!(resize(&full, 2 * GIB, 2 * GIB).is_ok());
        assert!(resize(&full, 2 * GIB, GIB).is_ok());
        assert!(resize(&full, 2 * GIB, 2 * GIB + 1).is_err());
        // A pool that became primary may be promised beyond its budget; shrinking still works.
        let over = room(1, DiskClass::Ssd, 8, 10);
        assert!(resize(&over, 2 * GIB, 2 * GIB).is_ok());
        assert!(resize(&over, 2 * GIB, 2 * GIB + 1).is_err());
        assert!(place(&[room(1, DiskClass::Ssd, 10, 0)], None, u64::MAX).is_err());
    }

    #[test]
    fn all_shares_of_a_pool_fit_beside_its_metadata() {
        for (size_bytes, left_bytes) in
            [(GIB, GIB / 8), (2 * GIB, GIB / 4), (4 * GIB, GIB / 4), (1024 * GIB, 64 * GIB)]
        {
            assert_eq!(size_bytes - usable(size_bytes), left_bytes);
            let node = usable(size_bytes) / 5 + usable(size_bytes) / 20;
            assert!(budget(size_bytes, true) + node <= usable(size_bytes));
            assert_eq!(budget(size_bytes, false), usable(size_bytes));
        }
        assert_eq!(usable(0), 0);
    }

    #[test]
    fn ids_and_orders_cannot_leave_their_place() {
        for bad in ["", "..", "a/b", ".making-a", "A", "é", "a b", &"a".repeat(65)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id(&"a-9".repeat(21)).is_ok());
        for bad in ["", "a\nb", "a b", &"a".repeat(129)] {
            assert!(check_order(bad).is_err(), "{bad:?}");
        }
        assert!(check_order("sha256:00ff").is_ok());
    }
}
