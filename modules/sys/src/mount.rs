//! `mount_setattr`, the one call of the new mount API that rustix lacks.

#![expect(unsafe_code, reason = "rustix has no mount_setattr")]

use rustix::mount::MountPropagationFlags;
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// No writes.
pub const RDONLY: u64 = 0x1;
/// Set-user-id bits and file capabilities have no effect.
pub const NOSUID: u64 = 0x2;
/// Device nodes cannot be opened.
pub const NODEV: u64 = 0x4;
/// Nothing can be executed.
pub const NOEXEC: u64 = 0x8;
/// Ids on disk are shifted by a user namespace.
const IDMAP: u64 = 0x0010_0000;
/// What [`set_attributes`] may be asked for.
const ATTRIBUTES: u64 = RDONLY | NOSUID | NODEV | NOEXEC;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds `attributes` to the one mount whose root `mount` is; with `idmap`, ids of its files are
/// shifted by that user namespace, which works once and before the mount is attached.
pub fn set_attributes(
    mount: impl AsFd,
    attributes: u64,
    idmap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    if attributes & !ATTRIBUTES != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = MountAttr { attr_set: attributes, ..MountAttr::default() };
    if let Some(userns) = idmap {
        attr.attr_set |= IDMAP;
        attr.userns_fd = u64::from(userns.as_raw_fd().unsigned_abs());
    }
    set(mount.as_fd(), &attr, 0)
}

/// Adds `attributes` to the mount whose root `mount` is, and to all mounts below it, and says where
/// else is seen what is mounted there.
pub fn set_attributes_below(
    mount: impl AsFd,
    attributes: u64,
    propagation: MountPropagationFlags,
) -> io::Result<()> {
    if attributes & !ATTRIBUTES != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let propagation = u64::from(propagation.bits());
    let attr = MountAttr { attr_set: attributes, propagation, ..MountAttr::default() };
    set(mount.as_fd(), &attr, libc::AT_RECURSIVE)
}

/// Says where else is seen what is mounted below the one mount whose root `mount` is.
pub fn set_propagation(mount: impl AsFd, propagation: MountPropagationFlags) -> io::Result<()> {
    let propagation = u64::from(propagation.bits());
    set(mount.as_fd(), &MountAttr { propagation, ..MountAttr::default() }, 0)
}

fn set(mount: BorrowedFd<'_>, attr: &MountAttr, flags: i32) -> io::Result<()> {
    // SAFETY: the path is an empty C string, as AT_EMPTY_PATH asks for; the struct is mount_attr
    // version 0 and its size is passed along. The kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_struct_has_the_size_of_the_kernel_header() {
        assert_eq!(size_of::<MountAttr>(), 32);
    }

    #[test]
    fn unknown_attributes_are_refused() {
        let root = std::fs::File::open("/").unwrap();
        let error = set_attributes(&root, IDMAP, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = set_attributes_below(&root, IDMAP, MountPropagationFlags::PRIVATE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
