//! Directories of the flist that a container may change: for each an overlay of its own, never
//! executable, with what changes on a volume.
//!
//! ```text
//! overlay   noexec, nosuid, nodev; no metacopy, redirect_dir, index or xino
//!   VOLUME/NAME/upper  what was written, ids shifted into the user namespace
//!   root/PATH          the verified root, whose own overlay refuses what is not as it was signed
//! ```
//!
//! Without those four the kernel lets the lower files be others the next time: another flist. The
//! mounter is the node, so that its orders are `trusted.` attributes, which no container can write.
//! Ids on the volume are not shifted, as on every volume.

use super::{
    Launcher,
    failure::{Context as _, Failure, fail},
    mounts, root,
};
use crate::reason::Reason;
use nix::unistd::{setfsgid, setfsuid};
use node_api::launcher::{Mount, MountSource, Start};
use rustix::{
    fs::{
        CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, fstatvfs,
        mkdirat, openat, openat2,
    },
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
    thread::{capabilities, set_capabilities},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// What of the overlay the kernel must not use, whatever it was built with.
const OPTIONS: [(&str, &str); 5] = [
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
    ("index", "off"),
    ("xino", "off"),
    ("source", "zos"),
];
/// Files that a crash may have left where the kernel works: the kernel removes them at the next start,
/// in seconds. It leaves at most what one removed directory had.
const LEFTOVERS_MAX: usize = 10_000;
const ATTACH: MoveMountFlags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Mounts the overlays of a container in the order of its mounts, attached nowhere. An overlay takes
/// its layers by path, so the root is attached for an instant; the root that is given back is a copy.
pub(super) fn mount(
    launcher: &Launcher,
    start: &Start,
    root: OwnedFd,
    userns: BorrowedFd<'_>,
) -> Result<(OwnedFd, Vec<OwnedFd>), Failure> {
    const ATTEMPT: &str = "attaching the root below overlays";
    let wanted: Vec<(&Mount, &str)> = start.mounts.iter().filter_map(of_volume).collect();
    if wanted.is_empty() {
        return Ok((root, Vec::new()));
    }
    move_mount(&root, "", CWD, &launcher.staging, ATTACH)
        .context(Reason::RootMountFailed, ATTEMPT)?;
    let mounted = || {
        let overlays = wanted.iter().map(|(mount, volume)| {
            one(launcher, mount, volume, root.as_fd(), userns, start.id_base)
        });
        let overlays = overlays.collect::<Result<Vec<_>, Failure>>()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = open_tree(&root, "", flags).context(Reason::RootMountFailed, ATTEMPT)?;
        Ok((copy, overlays))
    };
    let mounted = mounted();
    root::release(&launcher.staging)?;
    mounted
}

fn of_volume(mount: &Mount) -> Option<(&Mount, &str)> {
    match &mount.source {
        MountSource::Overlay { path } => Some((mount, path)),
        MountSource::Tmpfs { .. } | MountSource::Directory { .. } => None,
    }
}

fn one(
    launcher: &Launcher,
    mount: &Mount,
    volume: &str,
    root: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    id_base: u32,
) -> Result<OwnedFd, Failure> {
    let attempt = format!("preparing the overlay over {}", mount.path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let lower = openat2(root, &mount.path, flags, Mode::empty(), inside)
        .context(Reason::MountTargetMissing, attempt.as_str())?;
    let name = name(&mount.path);
    let (tree, source) =
        mounts::directory(volume, userns).context(Reason::MountFailed, attempt.as_str())?;
    layers(source.as_fd(), &name, |upper| mounts::adopt_owner(upper, root, &mount.path, id_base))
        .context(Reason::MountFailed, attempt.as_str())?;
    move_mount(&tree, "", CWD, &launcher.image, ATTACH)
        .context(Reason::MountFailed, attempt.as_str())?;
    let overlay = overlay(lower.as_fd(), tree.as_fd(), &name, id_base);
    root::release(&launcher.image)?;
    let overlay = overlay.context(Reason::MountFailed, attempt.as_str())?;
    // The kernel falls back to that when it cannot use the work directory.
    let flags = fstatvfs(&overlay).context(Reason::MountFailed, attempt.as_str())?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return fail(
            Reason::MountFailed,
            format!("{attempt}: the kernel cannot work on its volume: is it full?"),
        );
    }
    Ok(overlay)
}

/// Makes the directories of one overlay on its volume, where they are missing: whoever had the volume
/// before may have left anything under these names.
///
/// That of what was written is given to its owner as long as there is none to work in: once, and also
/// when a launcher was killed in between.
fn layers(
    volume: BorrowedFd<'_>,
    name: &str,
    give: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let make = |at: BorrowedFd<'_>, name: &str| {
        match mkdirat(at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        open_layer(at, name)
    };
    let layers = make(volume, name)?;
    let upper = make(layers.as_fd(), "upper")?;
    match open_layer(layers.as_fd(), "work") {
        Ok(work) => check_leftovers(work.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            give(upper.as_fd())?;
            make(layers.as_fd(), "work").map(drop)
        }
        Err(error) => Err(error),
    }
}

/// Opens a directory where it says, and of the same subvolume: another one has another quota.
fn open_layer(at: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let directory = openat(at, name, DIRECTORY, Mode::empty())?;
    if fstat(&directory)?.st_dev != fstat(at)?.st_dev {
        return Err(io::Error::other(format!("{name} is not on the volume itself")));
    }
    Ok(directory)
}

/// Before it mounts, the kernel empties `work/work` and the directories in it. It reads all names into
/// the node's memory for that, and nothing else is started meanwhile.
fn check_leftovers(work: BorrowedFd<'_>) -> io::Result<()> {
    let mut left = LEFTOVERS_MAX;
    let mut count = |directory: BorrowedFd<'_>| {
        let mut subdirectories = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            left = left.checked_sub(1).ok_or_else(|| {
                io::Error::other(format!("more than {LEFTOVERS_MAX} files are in `work/work`"))
            })?;
            if entry.file_type() == FileType::Directory {
                subdirectories.push(entry.file_name().to_owned());
            }
        }
        Ok::<_, io::Error>(subdirectories)
    };
    let work = match openat(work, "work", DIRECTORY, Mode::empty()) {
        Ok(work) => work,
        // Whatever else has this name, the kernel removes it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for name in count(work.as_fd())? {
        count(openat(&work, &name, DIRECTORY, Mode::empty())?.as_fd())?;
    }
    Ok(())
}

/// Mounts the overlay. All layers are given by descriptor: a path could lead elsewhere than what was
/// looked at, and names of the flist may have characters that mean something here.
fn overlay(
    lower: BorrowedFd<'_>,
    volume: BorrowedFd<'_>,
    name: &str,
    id_base: u32,
) -> io::Result<OwnedFd> {
    let layer = |which: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(volume, format!("{name}/{which}"), flags, Mode::empty(), inside)
    };
    let (upper, work) = (layer("upper")?, layer("work")?);
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in OPTIONS {
        fsconfig_set_string(&context, key, value)?;
    }
    for (key, layer) in
        [("lowerdir", lower), ("upperdir", upper.as_fd()), ("workdir", work.as_fd())]
    {
        fsconfig_set_string(&context, key, format!("/proc/self/fd/{}", layer.as_raw_fd()))?;
    }
    with_ids(id_base, || Ok(fsconfig_create(&context)?))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Acts with these ids on file systems, and with all capabilities.
///
/// An overlay writes with the ids and capabilities of its mounter, and on a shifted volume the node's
/// own ids do not exist.
fn with_ids<T>(id: u32, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let ours = capabilities(None)?;
    let done = change_ids(id).and_then(|()| {
        // The kernel has taken away those over files.
        set_capabilities(None, ours)?;
        act()
    });
    change_ids(0)?;
    set_capabilities(None, ours)?;
    done
}

/// These calls tell the id before, and nothing else: the second says what the first has done.
fn change_ids(id: u32) -> io::Result<()> {
    let (user, group) = (nix::unistd::Uid::from_raw(id), nix::unistd::Gid::from_raw(id));
    // In this order: a changed user may lose the right to change the group.
    setfsgid(group);
    setfsuid(user);
    if (setfsuid(user), setfsgid(group)) == (user, group) {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// The directory of an overlay on its volume: each path has one of its own.
fn name(path: &str) -> String {
    let mut name = String::with_capacity(path.len() * 3);
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                name.push(char::from(byte));
            }
            _ => {
                name.push('%');
                name.push_str(&hex::encode([byte]));
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::workload::OVERLAY_PATH_MAX;
    use std::{fs::File, path::Path};

    #[test]
    fn each_path_has_a_directory_of_its_own_whose_name_the_kernel_takes() {
        for (path, want) in [
            ("/etc", "etc"),
            ("/var/lib", "var%2flib"),
            ("/var%2flib", "var%252flib"),
            ("/a:b,c\\d", "a%3ab%2cc%5cd"),
            ("/.ü", ".%c3%bc"),
        ] {
            assert_eq!(name(path), want);
        }
        let longest = format!("/{}", "%".repeat(OVERLAY_PATH_MAX - 1));
        assert!(name(&longest).len() <= 255);
    }

    /// What became of the layers, and whether an owner was given to what was written.
    fn make_layers(volume: &Path) -> (io::Result<()>, bool) {
        let mut given = false;
        let volume = File::open(volume).unwrap();
        let made = layers(volume.as_fd(), "etc", |upper| {
            assert!(fstat(upper).is_ok());
            given = true;
            Ok(())
        });
        (made, given)
    }

    #[test]
    fn layers_are_made_once_and_no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let made = || {
            let (made, given) = make_layers(directory.path());
            (made.map_err(|error| error.raw_os_error()), given)
        };
        assert_eq!(made(), (Ok(()), true));
        std::fs::write(directory.path().join("etc/upper/file"), "kept").unwrap();
        assert_eq!(made(), (Ok(()), false));
        assert_eq!(std::fs::read(directory.path().join("etc/upper/file")).unwrap(), b"kept");
        // As if the launcher had been killed in between.
        std::fs::remove_dir(directory.path().join("etc/work")).unwrap();
        assert_eq!(made(), (Ok(()), true));
        for linked in ["etc/work", "etc/upper", "etc"] {
            let other = directory.path().join("other");
            std::fs::rename(directory.path().join(linked), &other).unwrap();
            std::os::unix::fs::symlink(&other, directory.path().join(linked)).unwrap();
            let errno = made().0.unwrap_err().map(Errno::from_raw_os_error);
            assert!(matches!(errno, Some(Errno::LOOP | Errno::NOTDIR)), "{linked}");
            std::fs::remove_file(directory.path().join(linked)).unwrap();
            std::fs::rename(&other, directory.path().join(linked)).unwrap();
        }
        assert_eq!(made(), (Ok(()), false));
    }

    #[test]
    fn what_the_kernel_would_remove_is_counted_before() {
        let directory = tempfile::tempdir().unwrap();
        let work = directory.path().join("etc/work/work");
        let made = || make_layers(directory.path()).0.is_ok();
        assert!(made());
        // Whatever else it may be, and links lead nowhere.
        std::fs::write(&work, "").unwrap();
        assert!(made());
        std::fs::remove_file(&work).unwrap();
        std::os::unix::fs::symlink("/", &work).unwrap();
        assert!(made());
        std::fs::remove_file(&work).unwrap();
        std::fs::create_dir_all(work.join("#1")).unwrap();
        std::os::unix::fs::symlink("/", work.join("#2")).unwrap();
        let fill = |at: &Path, n: usize| {
            for n in 0..n {
                std::fs::write(at.join(n.to_string()), "").unwrap();
            }
        };
        // Some beside the other two, and the rest one level below.
        fill(&work, 10);
        fill(&work.join("#1"), LEFTOVERS_MAX - 12);
        assert!(made());
        std::fs::write(work.join("more"), "").unwrap();
        assert!(!made());
        std::fs::remove_dir_all(work.join("#1")).unwrap();
        assert!(made());
        fill(&work, LEFTOVERS_MAX);
        assert!(!made());
    }
}
