//! The verified root: the metadata image, measured, as the upper of two read-only layers over the
//! content objects.
//!
//! ```text
//! overlay   ro, metacopy=on, redirect_dir=on, verity=require
//!   EROFS     the metadata image, ids shifted into the user namespace
//!   skeleton  empty directories and files: places for /proc, /etc/resolv.conf …
//!   objects   content, found only through digests in the EROFS
//! ```
//!
//! The skeleton gives an image that lacks them the places where the launcher mounts; a name that
//! the image has wins. Every mount here is attached for an instant only, because an overlay of
//! Linux 6.12 takes its layers by path; what remains is a descriptor.

use super::{
    Launcher,
    failure::{Context as _, Failure, fail},
};
use crate::reason::Reason;
use node_api::launcher::Start;
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
    },
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
};

/// Directories of the skeleton.
const SKELETON: [&str; 6] = ["dev", "etc", "proc", "run", "sys", "tmp"];
/// Empty files of the skeleton, over which the launcher mounts its own.
const SKELETON_FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
/// A killed launcher leaves at most one mount behind; several would be somebody else's doing.
const LEFTOVERS_MAX: u32 = 16;

const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Makes the directories of the launcher. Doing it again changes nothing.
pub(super) fn prepare(
    directory: &Path,
    mount_points: [&Path; 2],
    skeleton: &Path,
) -> Result<(), Failure> {
    let make = |path: &Path, mode: u32| {
        fs::DirBuilder::new().recursive(true).create(path)?;
        // The umask of the process that started us does not matter.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    let attempt = |path: &Path| format!("making {}", path.display());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .context(Reason::RootMountFailed, attempt(directory))?;
    for path in mount_points {
        // First what a killed launcher left, which may be read-only and not ours to change.
        release(path)?;
        make(path, 0o700).context(Reason::RootMountFailed, attempt(path))?;
    }
    make(skeleton, 0o755).context(Reason::RootMountFailed, attempt(skeleton))?;
    for name in SKELETON {
        let path = skeleton.join(name);
        let mode = if name == "tmp" { 0o1777 } else { 0o755 };
        make(&path, mode).context(Reason::RootMountFailed, attempt(&path))?;
    }
    for name in SKELETON_FILES {
        let path = skeleton.join(name);
        fs::write(&path, "").context(Reason::RootMountFailed, attempt(&path))?;
    }
    Ok(())
}

/// Unmounts whatever is on `path`, if it exists.
pub(super) fn release(path: &Path) -> Result<(), Failure> {
    for _ in 0..LEFTOVERS_MAX {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            done => {
                done.context(Reason::RootMountFailed, format!("unmounting {}", path.display()))?;
            }
        }
    }
    fail(Reason::RootMountFailed, format!("too many mounts on {}", path.display()))
}

/// The mounted layers of one container, attached nowhere.
#[derive(Debug)]
pub(super) struct Layers {
    /// The metadata alone: its files have the digests, and no content.
    metadata: OwnedFd,
    overlay: OwnedFd,
}

impl Layers {
    /// Measures the image and mounts everything.
    pub(super) fn mount(
        launcher: &Launcher,
        start: &Start,
        digest: [u8; 32],
        userns: BorrowedFd<'_>,
    ) -> Result<Self, Failure> {
        let image = measured(&start.root.image, digest)?;
        let metadata = erofs(image.as_fd(), userns)?;
        move_mount(&metadata, "", CWD, &launcher.image, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .context(Reason::RootMountFailed, "attaching the metadata image")?;
        let overlay = overlay(&launcher.image, &launcher.skeleton, &start.root.objects);
        // The overlay holds clones of its layers, so this one can go whatever happened.
        release(&launcher.image)?;
        Ok(Self { metadata, overlay: overlay? })
    }

    pub(super) fn metadata(&self) -> BorrowedFd<'_> {
        self.metadata.as_fd()
    }

    pub(super) fn overlay(&self) -> BorrowedFd<'_> {
        self.overlay.as_fd()
    }

    /// The overlay alone.
    pub(super) fn into_root(self) -> OwnedFd {
        self.overlay
    }
}

/// Opens the image, if the kernel enforces exactly this digest on it.
fn measured(path: &str, digest: [u8; 32]) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let image = rustix::fs::open(path, flags, Mode::empty())
        .context(Reason::ImageMissing, format!("opening {path}"))?;
    let have =
        sys::verity::measure(&image).context(Reason::ImageMissing, format!("measuring {path}"))?;
    match have {
        Some(have) if have == digest => Ok(image),
        Some(have) => fail(
            Reason::ImageDigestMismatch,
            format!("{path} has digest {}, wanted {}", hex::encode(have), hex::encode(digest)),
        ),
        None => fail(Reason::ImageMissing, format!("{path} has no fs-verity")),
    }
}

fn erofs(image: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    // By descriptor, so that it is the very file that was measured.
    let source = format!("/proc/self/fd/{}", image.as_raw_fd());
    let mounted = || {
        let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_flag(&context, "ro")?;
        fsconfig_set_string(&context, "source", &source)?;
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, READ_ONLY)?;
        sys::mount::set_attributes(&mount, 0, Some(userns))?;
        Ok::<_, io::Error>(mount)
    };
    mounted().context(Reason::RootMountFailed, "mounting the metadata image")
}

fn overlay(image: &Path, skeleton: &Path, objects: &str) -> Result<OwnedFd, Failure> {
    let layers = format!("{}:{}::{objects}", image.display(), skeleton.display());
    let mounted = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_flag(&context, "ro")?;
        fsconfig_set_string(&context, "source", "zos")?;
        fsconfig_set_string(&context, "metacopy", "on")?;
        fsconfig_set_string(&context, "redirect_dir", "on")?;
        fsconfig_set_string(&context, "verity", "require")?;
        fsconfig_set_string(&context, "lowerdir", &layers)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, READ_ONLY)
    };
    mounted().context(Reason::RootMountFailed, format!("mounting the verified root over {objects}"))
}
