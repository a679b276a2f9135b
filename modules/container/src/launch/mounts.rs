//! The writable mounts of a container: opened by the node, shifted into its user namespace, and
//! never executable. The child only attaches them.

use super::{
    failure::{Context as _, Failure},
    setup::{Place, Prepared, Source},
};
use crate::{check::IDS, reason::Reason};
use node_api::launcher::{Mount, MountSource};
use rustix::{
    fs::{
        CWD, Dir, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat, openat,
        openat2,
    },
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, OpenTreeFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, open_tree,
    },
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Bytes of a tmpfs for each file that it may hold.
const BYTES_PER_INODE: u64 = 4096;
/// Even a small tmpfs holds so many files.
const INODES_MIN: u64 = 256;

/// Opens every source. `root` is the container's root, which says whose an empty volume becomes;
/// `overlays` are mounted already, in the order of the mounts.
pub(super) fn prepare(
    mounts: &[Mount],
    root: BorrowedFd<'_>,
    overlays: Vec<OwnedFd>,
    id_base: u32,
    userns: BorrowedFd<'_>,
) -> Result<Vec<Prepared>, Failure> {
    let mut overlays = overlays.into_iter();
    let mut prepared = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let opened = match &mount.source {
            MountSource::Tmpfs { size_bytes } => tmpfs(*size_bytes, userns),
            MountSource::Directory { path } => {
                directory(path, userns).and_then(|(tree, source)| {
                    adopt_owner(source.as_fd(), root, &mount.path, id_base)?;
                    Ok(tree)
                })
            }
            MountSource::Overlay { .. } => {
                overlays.next().ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        };
        let attempt = || format!("preparing the mount on {}", mount.path);
        let opened = opened.context(Reason::MountFailed, attempt())?;
        let target = CString::new(mount.path.trim_start_matches('/'))
            .context(Reason::MountTargetMissing, attempt())?;
        let source = Source::Ready(opened);
        let propagation = MountPropagationFlags::PRIVATE;
        prepared.push(Prepared { target, place: Place::Found, source, propagation });
    }
    Ok(prepared)
}

fn tmpfs(size_bytes: u64, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let inodes = (size_bytes / BYTES_PER_INODE).max(INODES_MIN);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "1777")?;
    fsconfig_set_string(&context, "size", size_bytes.to_string())?;
    fsconfig_set_string(&context, "nr_inodes", inodes.to_string())?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    sys::mount::set_attributes(&mount, 0, Some(userns))?;
    Ok(mount)
}

/// A detached copy of the mount at `path`, and the directory itself.
pub(super) fn directory(path: &str, userns: BorrowedFd<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&source, "", flags)?;
    let attributes = sys::mount::NOSUID | sys::mount::NODEV | sys::mount::NOEXEC;
    sys::mount::set_attributes(&tree, attributes, Some(userns))?;
    Ok((tree, source))
}

/// A volume that nobody has used yet takes owner and mode of the flist's directory that it covers,
/// so that a program which is not root can write to it.
pub(super) fn adopt_owner(
    volume: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    target: &str,
    id_base: u32,
) -> io::Result<()> {
    let now = fstat(volume)?;
    if (now.st_uid, now.st_gid) != (0, 0) || !is_empty(volume)? {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let image = match openat2(root, target, flags, Mode::empty(), inside) {
        Ok(directory) => fstat(&directory)?,
        // The child finds this out by itself, and says it better.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    // The skeleton's directories are the node's, outside the map.
    if let Some((uid, gid)) = ids_inside(&image, id_base) {
        fchown(volume, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(fchmod(volume, Mode::from_raw_mode(image.st_mode & 0o1777))?)
}

/// Owner as the container sees it, which is also what an id-shifted mount has on disk.
fn ids_inside(stat: &Stat, id_base: u32) -> Option<(u32, u32)> {
    let inside = |id: u32| id.checked_sub(id_base).filter(|id| *id < IDS);
    Some((inside(stat.st_uid)?, inside(stat.st_gid)?))
}

fn is_empty(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut names = Dir::new(openat(directory, ".", flags, Mode::empty())?)?;
    Ok(names
        .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))))
}
