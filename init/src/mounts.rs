//! The file systems that init mounts before anything else, and the root that containers can leave.
//!
//! The kernel unpacks the image into its initial root, which `pivot_root(2)` refuses to leave. A bind
//! mount of it, moved over it, has a parent and can be left; it costs no copy and no memory, and
//! carries its own read-only flag.
//!
//! Everything stays private: all daemons share this mount namespace, so they see each other's
//! mounts anyway, and a container's namespace neither sees new mounts nor leaks its own.

use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
        mount_move, mount_remount, unmount,
    },
};
use std::{ffi::CString, fs, io, os::unix::fs::symlink, path::Path};

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static str,
    /// Whether a kernel without it still makes a node.
    optional: bool,
}

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const fn needed(
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static str,
) -> Mount {
    Mount { kind, target, flags, options, optional: false }
}

const fn optional(kind: &'static str, target: &'static str) -> Mount {
    Mount { kind, target, flags: SAFE, options: "", optional: true }
}

/// In order: a directory of one may lie in another.
const MOUNTS: &[Mount] = &[
    needed("proc", "/proc", SAFE, ""),
    needed("sysfs", "/sys", SAFE, ""),
    needed("devtmpfs", "/dev", MountFlags::NOSUID.union(MountFlags::NOEXEC), "mode=755"),
    needed(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        "gid=5,mode=620,ptmxmode=000",
    ),
    needed("tmpfs", "/dev/shm", SAFE, "mode=1777,size=64m"),
    needed("tmpfs", "/run", SAFE, "mode=755,size=64m"),
    needed("tmpfs", "/tmp", SAFE, "mode=1777,size=128m"),
    // Directories for pools, made by their owner; a pool that is not mounted takes no files.
    needed("tmpfs", "/pools", SAFE, "mode=700,size=1m"),
    needed("cgroup2", "/sys/fs/cgroup", SAFE, "nsdelegate,memory_recursiveprot"),
    optional("securityfs", "/sys/kernel/security"),
    optional("pstore", "/sys/fs/pstore"),
    optional("efivarfs", "/sys/firmware/efi/efivars"),
];

/// Directories of the image that something is mounted on, or that programs expect.
const DIRECTORIES: &[&str] = &[
    "/proc", "/sys", "/dev", "/run", "/tmp", "/pools", "/state", "/store", "/etc/zos", "/var",
    "/root", "/mnt",
];

/// Paths that programs expect in a root that nobody can write.
const LINKS: &[(&str, &str)] = &[
    ("/etc/resolv.conf", "/run/zos/resolv.conf"),
    ("/etc/mtab", "/proc/self/mounts"),
    ("/var/run", "/run"),
    ("/var/tmp", "/tmp"),
];

/// Makes the root one that can be left, with the directories and links that the node needs.
/// Returns what failed, as sentences: a node that boots can tell.
pub(crate) fn prepare_root() -> Vec<String> {
    let mut problems = Vec::new();
    for directory in DIRECTORIES {
        note(&mut problems, "making", directory, fs::create_dir_all(directory));
    }
    for (link, target) in LINKS {
        match symlink(target, link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => note(&mut problems, "linking", link, done),
        }
    }
    // The kernel runs us as its modprobe with this directory as its /dev.
    let null = mknodat(
        CWD,
        "/dev/null",
        FileType::CharacterDevice,
        Mode::RUSR | Mode::WUSR,
        makedev(1, 3),
    );
    let null = null.or_else(|error| if error == Errno::EXIST { Ok(()) } else { Err(error) });
    note(&mut problems, "making", "/dev/null", null.map_err(Into::into));
    note(&mut problems, "leaving", "the kernel's root", replace_root());
    problems
}

fn replace_root() -> io::Result<()> {
    // The place does not matter: the mount moves away from it at once.
    mount_bind("/", "/mnt")?;
    std::env::set_current_dir("/mnt")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// Mounts everything; what is mounted already stays. Returns what failed, as sentences.
pub(crate) fn mount_all() -> Vec<String> {
    let mut problems = Vec::new();
    for Mount { kind, target, flags, options, optional } in MOUNTS {
        // Directories below sysfs exist or not as the kernel decides.
        let made = if target.starts_with("/sys/") { Ok(()) } else { fs::create_dir_all(target) };
        note(&mut problems, "making", target, made);
        let options = CString::new(*options).expect("the table has no NUL");
        match mount(*kind, *target, *kind, *flags, options.as_c_str()) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(Errno::NODEV | Errno::NOENT) if *optional => {}
            Err(error) => note(&mut problems, "mounting", target, Err(error.into())),
        }
    }
    problems
}

/// Nobody writes to the image any more.
pub(crate) fn seal_root() -> io::Result<()> {
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV, "")?;
    Ok(())
}

/// Makes the device nodes that load their module when they are first opened, from the text of
/// `modules.devname`.
pub(crate) fn make_devices(devnames: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, kind, major, minor) in devnames.lines().filter_map(device) {
        let path = Path::new("/dev").join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            let number = makedev(major, minor);
            match mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, number) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        note(&mut problems, "making", &path.display().to_string(), made);
    }
    problems
}

/// A line such as `btrfs btrfs-control c10:234`.
fn device(line: &str) -> Option<(&str, FileType, u32, u32)> {
    let mut words = line.split_ascii_whitespace();
    let (module, path, number) = (words.next()?, words.next()?, words.next()?);
    let kind = match number.as_bytes().first()? {
        b'c' => FileType::CharacterDevice,
        b'b' => FileType::BlockDevice,
        _ => return None,
    };
    let (major, minor) = number[1..].split_once(':')?;
    let inside = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
    (!module.starts_with('#') && inside).then_some((
        path,
        kind,
        major.parse().ok()?,
        minor.parse().ok()?,
    ))
}

/// Unmounts what was mounted after us, newest first. Returns what would not go.
pub(crate) fn unmount_all(mountinfo: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for target in foreign_mounts(mountinfo) {
        let done = unmount(&*target, UnmountFlags::NOFOLLOW).or_else(|error| {
            let lazily = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
            unmount(&*target, lazily).and(Err(error))
        });
        note(&mut problems, "unmounting", &target, done.map_err(Into::into));
    }
    problems
}

/// Mount points of `/proc/self/mountinfo` that are not ours, newest first.
fn foreign_mounts(mountinfo: &str) -> Vec<String> {
    let ours = |target: &String| target == "/" || MOUNTS.iter().any(|mount| mount.target == target);
    let targets = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut foreign: Vec<_> = targets.filter(|target| !ours(target)).collect();
    foreign.reverse();
    foreign
}

/// The kernel writes space, tab, newline and backslash as octal numbers.
fn unescape(field: &str) -> String {
    let numbers = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    numbers.iter().fold(field.to_owned(), |text, (number, c)| text.replace(number, c))
}

fn note(problems: &mut Vec<String>, attempt: &str, what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        problems.push(format!("{attempt} {what}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mount_point_of_the_root_is_made_before_the_root_is_sealed() {
        for mount in MOUNTS {
            let top = mount.target.split('/').nth(1).unwrap();
            assert!(DIRECTORIES.contains(&format!("/{top}").as_str()), "{}", mount.target);
        }
    }

    #[test]
    fn device_nodes_are_taken_from_real_lines_and_stay_in_dev() {
        let node = |line| device(line).map(|(path, _, major, minor)| (path, major, minor));
        assert_eq!(node("btrfs btrfs-control c10:234"), Some(("btrfs-control", 10, 234)));
        assert_eq!(node("tun net/tun c10:200"), Some(("net/tun", 10, 200)));
        assert_eq!(device("loop loop-control b7:0").unwrap().1, FileType::BlockDevice);
        for bad in [
            "# Device nodes to trigger on-demand module loading.",
            "x ../etc/passwd c1:3",
            "x /etc/passwd c1:3",
            "x y z1:3",
            "x y c1",
            "x y c1:b",
            "x",
            "",
        ] {
            assert_eq!(device(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_the_mounts_of_others_are_unmounted_newest_first() {
        let mountinfo = "\
21 1 0:2 / / ro,nodev - rootfs rootfs rw
22 21 0:20 / /proc rw,nosuid - proc proc rw
30 21 0:30 / /pools rw - tmpfs tmpfs rw
31 30 0:31 / /pools/a rw - btrfs /dev/vda rw
32 21 0:31 /state /state rw - btrfs /dev/vda rw
33 25 0:4 net:[4026532] /run/zos/netns/a\\040b rw - nsfs nsfs rw
";
        assert_eq!(foreign_mounts(mountinfo), ["/run/zos/netns/a b", "/state", "/pools/a"]);
    }
}
