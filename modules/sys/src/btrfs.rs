//! Block device size, and the btrfs calls for subvolumes and quotas.
//!
//! Owns the ioctl numbers and argument layouts of `linux/btrfs.h`. Refuses policy: which subvolume
//! is made, limited or deleted is decided by the caller.
#![expect(unsafe_code, reason = "ioctls have no safe wrapper in nix or rustix")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `struct btrfs_ioctl_vol_args`: 4096 bytes.
#[repr(C)]
struct VolumeName {
    fd: i64,
    name: [u8; NAME_FIELD],
}

/// Size of the name field, with its final NUL.
const NAME_FIELD: usize = 4088;

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args` with its `struct btrfs_qgroup_limit`.
#[repr(C)]
struct GroupLimit {
    group: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

/// `struct btrfs_ioctl_fs_info_args`, of which the beginning counts.
#[repr(C)]
struct FileSystem {
    max_id: u64,
    devices: u64,
    uuid: [u8; 16],
    rest: [u8; 992],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct Lookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `BTRFS_FIRST_FREE_OBJECTID`: the top directory of each subvolume.
const TOP_DIRECTORY: u64 = 256;

/// Accounts each extent to the subvolume that wrote it, without back-reference walks.
const QUOTA_ENABLE_SIMPLE: u64 = 4;
/// `max_referenced` is meant.
const LIMIT_MAX_REFERENCED: u64 = 1;

const _: () = assert!(size_of::<VolumeName>() == 4096);
const _: () = assert!(size_of::<QuotaControl>() == 16);
const _: () = assert!(size_of::<GroupLimit>() == 48);
const _: () = assert!(size_of::<FileSystem>() == 1024);
const _: () = assert!(size_of::<Lookup>() == 4096);

mod raw {
    use super::{FileSystem, GroupLimit, Lookup, QuotaControl, VolumeName};

    nix::ioctl_read!(block_size, 0x12, 114, u64);
    nix::ioctl_read!(disk_sequence, 0x12, 128, u64);
    nix::ioctl_none!(sync, 0x94, 8);
    nix::ioctl_write_ptr!(subvolume_create, 0x94, 14, VolumeName);
    nix::ioctl_write_ptr!(subvolume_destroy, 0x94, 15, VolumeName);
    nix::ioctl_readwrite!(lookup, 0x94, 18, Lookup);
    nix::ioctl_read!(file_system, 0x94, 31, FileSystem);
    nix::ioctl_readwrite!(quota_control, 0x94, 40, QuotaControl);
    // The header declares this one as a read, although the kernel only takes the argument.
    nix::ioctl_read!(group_limit, 0x94, 43, GroupLimit);
}

/// Size of a block device in bytes, as the kernel sees it now.
///
/// Fails with `ENOTTY` when `device` is not a block device.
pub fn block_size_bytes(device: impl AsFd) -> io::Result<u64> {
    let mut size_bytes = 0_u64;
    // SAFETY: BLKGETSIZE64 stores exactly one u64, and `size_bytes` outlives the call; another
    // kind of file answers ENOTTY and stores nothing.
    unsafe { raw::block_size(device.as_fd().as_raw_fd(), &raw mut size_bytes) }?;
    Ok(size_bytes)
}

/// The number of the medium behind a block device: another one under the same name has another.
///
/// Fails with `ENOTTY` when `device` is not a block device.
pub fn disk_sequence(device: impl AsFd) -> io::Result<u64> {
    let mut sequence = 0_u64;
    // SAFETY: BLKGETDISKSEQ stores exactly one u64, and `sequence` outlives the call; another kind of
    // file answers ENOTTY and stores nothing.
    unsafe { raw::disk_sequence(device.as_fd().as_raw_fd(), &raw mut sequence) }?;
    Ok(sequence)
}

/// The UUID of the file system that a file is on, as `/sys/fs/btrfs` writes it.
///
/// Fails with `ENOTTY` outside btrfs.
pub fn file_system_uuid(file: impl AsFd) -> io::Result<String> {
    let mut found = FileSystem { max_id: 0, devices: 0, uuid: [0; 16], rest: [0; 992] };
    // SAFETY: the kernel reads and writes one `btrfs_ioctl_fs_info_args`, whose size `FileSystem` has
    // (asserted above) and every bit pattern of which is one; `found` outlives the call.
    unsafe { raw::file_system(file.as_fd().as_raw_fd(), &raw mut found) }?;
    Ok(uuid(&found.uuid))
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (number, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&number) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

/// The number of the subvolume that a file is on. Asks for no privilege.
///
/// Fails with `ENOTTY` outside btrfs.
pub fn subvolume_id(file: impl AsFd) -> io::Result<u64> {
    // Tree zero stands for the subvolume of the file descriptor.
    let mut found = Lookup { tree: 0, object: TOP_DIRECTORY, name: [0; 4080] };
    // SAFETY: the kernel reads and writes one `btrfs_ioctl_ino_lookup_args`, whose size `Lookup` has
    // (asserted above) and every bit pattern of which is one; `found` outlives the call.
    unsafe { raw::lookup(file.as_fd().as_raw_fd(), &raw mut found) }?;
    Ok(found.tree)
}

/// Makes an empty subvolume `name` in the directory `parent`.
///
/// Fails with `EEXIST` when the name is taken, `ENOTTY` outside btrfs.
pub fn subvolume_create(parent: impl AsFd, name: &str) -> io::Result<()> {
    let argument = volume_name(name)?;
    // SAFETY: the kernel reads one `btrfs_ioctl_vol_args`, whose layout `VolumeName` has (its size
    // is asserted above); the name ends with NUL because `volume_name` leaves one zero.
    unsafe { raw::subvolume_create(parent.as_fd().as_raw_fd(), &raw const argument) }?;
    Ok(())
}

/// Deletes the subvolume `name` in the directory `parent`, with its files.
///
/// The name is gone on return; the kernel frees the space later. A second call gives `ENOENT`.
pub fn subvolume_delete(parent: impl AsFd, name: &str) -> io::Result<()> {
    let argument = volume_name(name)?;
    // SAFETY: as in `subvolume_create`.
    unsafe { raw::subvolume_destroy(parent.as_fd().as_raw_fd(), &raw const argument) }?;
    Ok(())
}

/// Switches simple quotas on for the whole file system. A second call changes nothing.
pub fn quota_enable(file_system: impl AsFd) -> io::Result<()> {
    let mut argument = QuotaControl { command: QUOTA_ENABLE_SIMPLE, status: 0 };
    // SAFETY: the kernel reads and writes one `btrfs_ioctl_quota_ctl_args`, whose layout
    // `QuotaControl` has; it lives until the call returns.
    unsafe { raw::quota_control(file_system.as_fd().as_raw_fd(), &raw mut argument) }?;
    Ok(())
}

/// Limits the bytes that the subvolume which holds `file` may use; writes beyond give `EDQUOT`.
///
/// `None` lifts the limit. A limit below what is used already is allowed and stops further growth.
pub fn quota_limit(file: impl AsFd, bytes: Option<u64>) -> io::Result<()> {
    let mut argument = GroupLimit {
        // Zero stands for the subvolume of the file descriptor.
        group: 0,
        flags: LIMIT_MAX_REFERENCED,
        // All ones clears the limit.
        max_referenced: bytes.unwrap_or(u64::MAX),
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    // SAFETY: the kernel copies one `btrfs_ioctl_qgroup_limit_args` from this address, whose
    // layout `GroupLimit` has; it lives until the call returns.
    unsafe { raw::group_limit(file.as_fd().as_raw_fd(), &raw mut argument) }?;
    Ok(())
}

/// Commits everything written so far to the disk.
pub fn sync(file_system: impl AsFd) -> io::Result<()> {
    // SAFETY: BTRFS_IOC_SYNC takes no argument; elsewhere it answers ENOTTY.
    unsafe { raw::sync(file_system.as_fd().as_raw_fd()) }?;
    Ok(())
}

fn volume_name(name: &str) -> io::Result<VolumeName> {
    let plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    if !plain || name.len() > NAME_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut argument = VolumeName { fd: 0, name: [0; NAME_FIELD] };
    argument.name[..name.len()].copy_from_slice(name.as_bytes());
    Ok(argument)
}

/// Longest file name of the kernel.
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_uuid_is_written_as_the_kernel_does() {
        let bytes: [u8; 16] = std::array::from_fn(|n| u8::try_from(n * 17).unwrap());
        assert_eq!(uuid(&bytes), "00112233-4455-6677-8899-aabbccddeeff");
        assert!(file_system_uuid(File::open("/proc").unwrap()).is_err());
    }

    #[test]
    fn names_that_leave_the_directory_are_refused_before_the_kernel_sees_them() {
        for bad in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(volume_name(bad).is_err(), "{bad:?}");
        }
        let good = volume_name("@state").unwrap();
        assert_eq!(&good.name[..7], b"@state\0");
    }

    #[test]
    fn a_plain_file_is_neither_a_disk_nor_btrfs() {
        let file = File::open("/proc/self/maps").unwrap();
        let code = |error: io::Error| error.raw_os_error();
        assert_eq!(block_size_bytes(&file).map_err(code), Err(Some(libc::ENOTTY)));
        assert_eq!(subvolume_create(&file, "a").map_err(code), Err(Some(libc::ENOTTY)));
        assert_eq!(quota_enable(&file).map_err(code), Err(Some(libc::ENOTTY)));
        assert_eq!(subvolume_id(&file).map_err(code), Err(Some(libc::ENOTTY)));
    }
}
