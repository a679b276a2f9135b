//! `/dev` of a container: made by the node for each start, read-only from its first second.
//!
//! A small tmpfs with the six harmless devices, the usual links, and the files that are mounted
//! elsewhere: `resolv.conf`, `hosts`, `hostname` and an empty directory. Sources of masks come from
//! here too, by descriptors that were opened before anything was attached: so nothing in an image
//! and no mount of a bundle can pose as one.

use super::failure::{Context as _, Failure};
use crate::{oci::devices::Node, reason::Reason};
use node_api::launcher::Start;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, fchmod,
        makedev, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat,
    },
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    },
};
use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Name, and minor number of the memory device (major 1).
const MEMORY_DEVICES: [(&str, u32); 5] =
    [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
/// Name and target. `/dev/ptmx` is that of the container's own devpts.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
/// Places of mounts that the child adds.
const DIRECTORIES: [&str; 5] = ["pts", "shm", "mqueue", HIDDEN, EMPTY];
/// Holds what is mounted elsewhere.
const HIDDEN: &str = ".zos";
/// What masks a directory.
const EMPTY: &str = ".zos/empty";
/// What masks a file.
const NULL: &str = "null";
/// Enough for the files; nobody can add to it.
const SIZE: &str = "256k";

/// The files of [`HIDDEN`] and where they are mounted if the root has the place.
const FILES: [(&str, &CStr); 3] = [
    (".zos/resolv.conf", c"etc/resolv.conf"),
    (".zos/hosts", c"etc/hosts"),
    (".zos/hostname", c"etc/hostname"),
];

/// `/dev`, attached nowhere yet.
#[derive(Debug)]
pub(super) struct Dev {
    pub(super) mount: OwnedFd,
    pub(super) covers: Covers,
}

/// What of `/dev` covers other files. The kernel copies a mount only once it is attached.
#[derive(Debug)]
pub(super) struct Covers {
    top: OwnedFd,
    hidden: OwnedFd,
    pub(super) null: OwnedFd,
    pub(super) empty: OwnedFd,
    /// Each with its place in the root.
    pub(super) files: Vec<(OwnedFd, &'static CStr)>,
}

impl Covers {
    /// Opens everything below a mount that nobody else has seen.
    fn open(mount: &OwnedFd, files: &[(&str, &'static CStr)]) -> io::Result<Self> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let open = |name: &str| openat2(mount, name, flags, Mode::empty(), resolve);
        let with_place = |(name, place): &(&str, _)| Ok((open(name)?, *place));
        Ok(Self {
            top: mount.try_clone()?,
            hidden: open(HIDDEN)?,
            null: open(NULL)?,
            empty: open(EMPTY)?,
            files: files.iter().map(with_place).collect::<io::Result<_>>()?,
        })
    }

    /// Removes the names of what was mounted elsewhere. What covers directories is then a directory
    /// that nothing can be put into.
    pub(super) fn forget(&self) -> rustix::io::Result<()> {
        for (directory, name) in [(&self.hidden, "empty"), (&self.top, HIDDEN)] {
            match unlinkat(directory, name, AtFlags::REMOVEDIR) {
                // A /dev that was asked for read-only.
                Ok(()) | Err(Errno::ROFS) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Makes the mount of a container of the node.
pub(super) fn prepare(start: &Start, userns: BorrowedFd<'_>) -> Result<Dev, Failure> {
    let made = || {
        let mount = make(start, userns)?;
        let covers = Covers::open(&mount, &FILES)?;
        Ok::<_, io::Error>(Dev { mount, covers })
    };
    made().context(Reason::RootMountFailed, "making the devices")
}

/// The `/dev` of an OCI bundle: as its configuration wants it, with the devices and links that the
/// specification promises, for the user and group that are root inside, and more `nodes`.
pub(super) fn prepare_writable(
    options: &[(CString, CString)],
    attributes: MountAttrFlags,
    owner: (u32, u32),
    nodes: &[Node],
) -> Result<Dev, Failure> {
    let made = || {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?;
        }
        fsconfig_create(&context)?;
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let now = attributes - MountAttrFlags::MOUNT_ATTR_NODEV - read_only;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, now)?;
        populate(mount.as_fd())?;
        if owner != (0, 0) {
            let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
            let devices = MEMORY_DEVICES.iter().map(|(name, _)| *name);
            for name in devices.chain(["tty", "."]).chain(DIRECTORIES) {
                chownat(&mount, name, uid, gid, AtFlags::empty())?;
            }
        }
        for node in nodes {
            make_node(mount.as_fd(), node)?;
        }
        if attributes.contains(read_only) {
            sys::mount::set_attributes(&mount, sys::mount::RDONLY, None)?;
        }
        let covers = Covers::open(&mount, &[])?;
        Ok::<_, io::Error>(Dev { mount, covers })
    };
    made().context(Reason::RootMountFailed, "making the devices")
}

fn make(start: &Start, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "755"), ("size", SIZE), ("nr_inodes", "64")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    populate(mount.as_fd())?;
    for ((name, _), content) in FILES.into_iter().zip(contents(start)) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&mount, name, flags, Mode::from_raw_mode(0o644))?;
        fchmod(&file, Mode::from_raw_mode(0o644))?;
        File::from(file).write_all(content.as_bytes())?;
    }
    sys::mount::set_attributes(&mount, sys::mount::RDONLY, Some(userns))?;
    Ok(mount)
}

/// Devices, links and places of mounts.
fn populate(mount: BorrowedFd<'_>) -> io::Result<()> {
    for (name, minor) in MEMORY_DEVICES {
        device(mount, name, 1, minor)?;
    }
    device(mount, "tty", 5, 0)?;
    for (name, target) in LINKS {
        symlinkat(target, mount, name)?;
    }
    for name in DIRECTORIES {
        mkdirat(mount, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

fn device(directory: BorrowedFd<'_>, name: &str, major: u32, minor: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(directory, name, FileType::CharacterDevice, mode, makedev(major, minor))?;
    // mknod takes the umask away; the new node cannot be anything but ours.
    chmodat(directory, name, mode, AtFlags::empty())?;
    Ok(())
}

/// A node with the directories above it. Nobody else has seen the mount, so nothing is in the way but the
/// same node, of those that every container has.
fn make_node(mount: BorrowedFd<'_>, node: &Node) -> io::Result<()> {
    let path = node.path.as_bytes();
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        match mkdirat(mount, &path[..at], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let mode = Mode::from_raw_mode(node.mode);
    match mknodat(mount, path, node.kind, mode, makedev(node.major, node.minor)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    // mknod takes the umask away.
    chmodat(mount, path, mode, AtFlags::empty())?;
    let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
    Ok(chownat(mount, path, Some(uid), Some(gid), AtFlags::empty())?)
}

/// Contents of [`FILES`], in their order.
fn contents(start: &Start) -> [String; 3] {
    let resolv: String = start
        .dns
        .iter()
        .flat_map(|server| ["nameserver ".to_owned(), server.to_string(), "\n".to_owned()])
        .collect();
    let name = &start.hostname;
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {name}\n"
    );
    [resolv, hosts, format!("{name}\n")]
}

/// The node's own `/dev/null`, for stdin; made sure of by its number.
pub(super) fn open_null() -> Result<OwnedFd, Failure> {
    let open = || {
        let file = openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if device && stat.st_rdev == makedev(1, 3) {
            Ok(file)
        } else {
            Err(io::Error::other("it is not the null device"))
        }
    };
    open().context(Reason::NamespaceFailed, "opening /dev/null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_name_the_container_and_its_servers() {
        let mut start = crate::check::tests::good();
        start.dns = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let [resolv, hosts, hostname] = contents(&start);
        assert_eq!(resolv, "nameserver 10.0.0.1\nnameserver fd00::1\n");
        assert!(hosts.ends_with("127.0.1.1 web\n"));
        assert_eq!(hostname, "web\n");
    }

    #[test]
    fn stdin_is_the_null_device() {
        assert!(open_null().is_ok());
    }
}
