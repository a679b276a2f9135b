#![expect(unsafe_code, reason = "the fs-verity ioctls have no safe wrapper in nix or rustix")]
//! fs-verity: makes a file immutable under a digest, and asks the kernel for that digest.
//!
//! One shape only: SHA-256, 4 KiB blocks, no salt, no signature. That is what the overlay compares
//! and what `fsverity digest` prints. Refuses nothing itself: the kernel's errors are passed on.

use rustix::{
    io::{Errno, Result},
    ioctl::{Setter, Updater, ioctl, opcode},
};
use std::os::fd::AsFd;

const SHA256: u16 = 1;
const BLOCK_BYTES: u32 = 4096;
const GROUP: u8 = b'f';

/// `struct fsverity_enable_arg` of linux/fsverity.h.
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// `struct fsverity_digest` of linux/fsverity.h without its flexible tail, as the opcode counts it.
#[repr(C)]
struct DigestHeader {
    algorithm: u16,
    size: u16,
}

/// The same with room for a SHA-256 digest.
#[repr(C)]
struct DigestArg {
    header: DigestHeader,
    digest: [u8; 32],
}

/// Builds the Merkle tree of `file` and makes it immutable for ever.
///
/// `file` must be open for reading only, and nobody may hold it open for writing (`ETXTBSY`): a
/// fork in another thread at the wrong moment is enough, so the process that calls this never
/// forks. Fails with `EEXIST` when verity is already on, and with `EOPNOTSUPP` or `ENOTTY` when the
/// file system has no fs-verity.
pub fn enable(file: impl AsFd) -> Result<()> {
    const ENABLE: rustix::ioctl::Opcode = opcode::write::<EnableArg>(GROUP, 133);
    let argument = EnableArg {
        version: 1,
        hash_algorithm: u32::from(SHA256),
        block_size: BLOCK_BYTES,
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        reserved1: 0,
        sig_ptr: 0,
        reserved2: [0; 11],
    };
    // SAFETY: FS_IOC_ENABLE_VERITY is declared as _IOW('f', 133, struct fsverity_enable_arg), which
    // `EnableArg` repeats field by field.
    let request = unsafe { Setter::<ENABLE, EnableArg>::new(argument) };
    // SAFETY: the kernel reads the argument and follows its pointers only if their sizes are not
    // zero; ours are.
    unsafe { ioctl(file, request) }
}

/// The digest that the kernel enforces on `file`; `None` when verity is off.
///
/// Constant time: the kernel has it in memory, or reads one small descriptor. A file system without
/// fs-verity answers like a file without it. A digest of another algorithm fails with `EOVERFLOW`
/// or `EBADMSG`.
pub fn measure(file: impl AsFd) -> Result<Option<[u8; 32]>> {
    const MEASURE: rustix::ioctl::Opcode = opcode::read_write::<DigestHeader>(GROUP, 134);
    let mut argument =
        DigestArg { header: DigestHeader { algorithm: 0, size: 32 }, digest: [0; 32] };
    // SAFETY: FS_IOC_MEASURE_VERITY is declared as _IOWR('f', 134, struct fsverity_digest), whose
    // last member is flexible: `DigestArg` is that struct followed by 32 bytes.
    let request = unsafe { Updater::<MEASURE, DigestArg>::new(&mut argument) };
    // SAFETY: the kernel writes at most `header.size` bytes behind the header, and we have 32.
    match unsafe { ioctl(file, request) } {
        Ok(()) => {}
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOTTY) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    if argument.header.algorithm != SHA256 || argument.header.size != 32 {
        return Err(Errno::BADMSG);
    }
    Ok(Some(argument.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(size_of::<DigestHeader>(), 4);
        assert_eq!(size_of::<DigestArg>(), 36);
    }

    #[test]
    fn a_file_without_verity_has_no_digest() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(measure(&file), Ok(None));
    }
}
