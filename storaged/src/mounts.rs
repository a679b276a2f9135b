//! Where `/pools`, `/state` and `/store` are mounted, from what the kernel says.
//!
//! A restarted storaged finds its mounts here and leaves them; nothing is mounted twice.

use crate::uuid::Uuid;
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};
use node_api::paths::{POOLS, STATE, STORE};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Nothing on a pool is a device, gains privileges or runs: what runs does so from a verified root.
pub(crate) const FLAGS: MsFlags = MsFlags::MS_NODEV
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NOATIME);

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Number of the file system, the same for all its mounts.
    pub(crate) device: String,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Type of the file system.
    pub(crate) kind: String,
    /// The disk, as a path.
    pub(crate) source: PathBuf,
    /// Whether the file system itself, not only this mount, is read-only.
    pub(crate) read_only: bool,
}

/// Where `/state` and `/store` live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Gone at power-off.
    Memory,
    /// On this pool.
    Pool(Uuid),
}

/// One thing to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A file system in memory with these options.
    Memory(&'static str, &'static str),
    /// A directory of a pool.
    Bind(PathBuf, &'static str),
}

/// All mounts of our namespace.
pub(crate) fn load() -> io::Result<Vec<Mount>> {
    fs::read_to_string("/proc/self/mountinfo").map(|text| parse(&text))
}

/// Understands mountinfo; see `proc_pid_mountinfo(5)`.
fn parse(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let file_system: Vec<&str> = file_system.split(' ').collect();
        Some(Mount {
            device: (*mount.get(2)?).to_owned(),
            point: unescape(mount.get(4)?).into(),
            kind: (*file_system.first()?).to_owned(),
            source: unescape(file_system.get(1)?).into(),
            read_only: file_system.get(2)?.split(',').any(|option| option == "ro"),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// What is visible at `point`: the last mount there covers the earlier ones.
pub(crate) fn at<'m>(mounts: &'m [Mount], point: &Path) -> Option<&'m Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// Where a pool is mounted.
pub(crate) fn pool_point(pool: Uuid) -> PathBuf {
    Path::new(POOLS).join(pool.to_string())
}

/// Where `/state` or, when that is not mounted, `/store` lives; `None` when neither is mounted.
pub(crate) fn place(mounts: &[Mount]) -> Option<Place> {
    let mount = at(mounts, STATE.as_ref()).or_else(|| at(mounts, STORE.as_ref()))?;
    if mount.kind != "btrfs" {
        return Some(Place::Memory);
    }
    let same = |other: &&Mount| other.device == mount.device && other.point.starts_with(POOLS);
    let name = mounts.iter().find(same)?.point.file_name()?.to_str()?;
    Uuid::parse(name).map(Place::Pool)
}

/// What is still to be mounted so that `/state` and `/store` live at `place`.
pub(crate) fn plan(mounts: &[Mount], place: Place) -> Vec<Step> {
    // A node without a disk keeps some state and a few small images; memory belongs to customers.
    let rows = [(STATE, "@state", "mode=0700,size=64m"), (STORE, "@store", "mode=0700,size=25%")];
    let missing = rows.into_iter().filter(|(point, ..)| at(mounts, point.as_ref()).is_none());
    let step = |(point, subvolume, options): (&'static str, &str, &'static str)| match place {
        Place::Memory => Step::Memory(point, options),
        Place::Pool(pool) => Step::Bind(pool_point(pool).join(subvolume), point),
    };
    missing.map(step).collect()
}

/// Mounts.
pub(crate) fn apply(step: &Step) -> io::Result<()> {
    let none = None::<&str>;
    match step {
        Step::Memory(point, options) => {
            fs::create_dir_all(point)?;
            mount(Some("tmpfs"), *point, Some("tmpfs"), FLAGS, Some(*options))?;
        }
        // A bind mount has the flags of the mount that it comes from.
        Step::Bind(from, point) => {
            fs::create_dir_all(point)?;
            mount(Some(from), *point, none, MsFlags::MS_BIND, none)?;
        }
    }
    Ok(())
}

/// Takes a mount away from its place at once, whoever uses it. The file system ends when its last file
/// is closed; until then the kernel does not mount it again.
pub(crate) fn detach(point: &Path) -> io::Result<()> {
    Ok(umount2(point, MntFlags::MNT_DETACH)?)
}

/// Pools that are mounted from a disk that is gone, as a former run left them. The one that holds the
/// state stays: contractd has files open there.
pub(crate) fn orphans(mounts: &[Mount], is_there: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let is_primary = |mount: &Mount| match place(mounts) {
        Some(Place::Pool(uuid)) => mount.point == pool_point(uuid),
        Some(Place::Memory) | None => false,
    };
    let pools = mounts
        .iter()
        .filter(|mount| mount.kind == "btrfs" && mount.point.parent() == Some(POOLS.as_ref()));
    let dead = pools.filter(|mount| !is_there(&mount.source) && !is_primary(mount));
    dead.map(|mount| mount.point.clone()).collect()
}

/// A place for mount points that needs no writable root.
pub(crate) fn ensure_pools_directory() -> io::Result<()> {
    if at(&load()?, POOLS.as_ref()).is_none() {
        fs::create_dir_all(POOLS)?;
        mount(Some("tmpfs"), POOLS, Some("tmpfs"), FLAGS, Some("mode=0700,size=1m"))?;
    }
    Ok(())
}

/// Unmounts `/state` and `/store` from memory, when nobody has put or opened anything there.
/// The kernel refuses while a file is open, so nothing is lost between the look and the act.
pub(crate) fn leave_memory() -> io::Result<()> {
    for point in [STATE, STORE] {
        if fs::read_dir(point)?.next().is_some() {
            return Err(io::Error::other(format!("{point} is in use")));
        }
    }
    for point in [STATE, STORE] {
        umount(point)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "11111111-1111-4111-9111-111111111111";

    fn captured(extra: &str) -> Vec<Mount> {
        let text = format!(
            "22 1 0:21 / / rw - tmpfs tmpfs rw,size=1024k\n\
             30 22 0:28 / /pools rw,nosuid,nodev,noexec,noatime shared:5 - tmpfs tmpfs rw\n\
             31 30 0:35 / /pools/{POOL} rw,nosuid,nodev,noexec,noatime - btrfs /dev/vda rw,subvolid=5,subvol=/\n\
             {extra}"
        );
        parse(&text)
    }

    fn pool() -> Place {
        Place::Pool(Uuid::parse(POOL).unwrap())
    }

    #[test]
    fn mountinfo_is_understood() {
        let mounts = captured("40 22 0:9 / /a\\040b ro - btrfs /dev/vdb ro,degraded\n garbage\n");
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[2].source, Path::new("/dev/vda"));
        assert!(!mounts[2].read_only);
        assert_eq!(mounts[3].point, Path::new("/a b"));
        assert!(mounts[3].read_only);
    }

    #[test]
    fn a_restarted_daemon_finds_where_state_lives() {
        assert_eq!(place(&captured("")), None);
        let bound = "32 22 0:35 /@state /state rw - btrfs /dev/vda rw,subvol=/@state\n";
        assert_eq!(place(&captured(bound)), Some(pool()));
        let memory = "33 22 0:40 / /state rw - tmpfs tmpfs rw\n";
        assert_eq!(place(&captured(memory)), Some(Place::Memory));
    }

    #[test]
    fn a_pool_whose_disk_is_gone_is_an_orphan_unless_it_holds_the_state() {
        let gone = |_: &Path| false;
        let point = pool_point(Uuid::parse(POOL).unwrap());
        assert_eq!(orphans(&captured(""), gone), [point]);
        assert!(orphans(&captured(""), |source| source == Path::new("/dev/vda")).is_empty());
        let bound = "32 22 0:35 /@state /state rw - btrfs /dev/vda rw,subvol=/@state\n";
        assert!(orphans(&captured(bound), gone).is_empty());
    }

    #[test]
    fn only_what_is_missing_is_mounted() {
        let both = plan(&captured(""), pool());
        let bind = |name: &str| pool_point(Uuid::parse(POOL).unwrap()).join(name);
        assert_eq!(both, [Step::Bind(bind("@state"), STATE), Step::Bind(bind("@store"), STORE)]);
        let bound = "32 22 0:35 /@state /state rw - btrfs /dev/vda rw\n";
        assert_eq!(plan(&captured(bound), pool()), [Step::Bind(bind("@store"), STORE)]);
        let rest = "33 22 0:35 /@store /store rw - btrfs /dev/vda rw\n";
        assert_eq!(plan(&captured(&format!("{bound}{rest}")), pool()), []);
        assert_eq!(plan(&captured(""), Place::Memory).len(), 2);
    }
}
