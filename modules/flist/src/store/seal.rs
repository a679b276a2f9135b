//! Turns staged files into immutable ones, and asks the kernel about those.

use super::{Depth, FaultKind, StoreError};
use crate::Cancel;
use rustix::{
    fs::{Advice, fadvise},
    io::Errno,
};
use std::{
    fs::{self, File, Permissions},
    io,
    num::NonZeroU64,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// What cannot be read is read again so much later: a disk's controller that is reset is back by then.
const AGAIN: Duration = Duration::from_secs(3);

/// What is wrong with a file, if anything, and if that can be said.
pub(super) type Verdict = Result<Option<FaultKind>, StoreError>;

/// Seals files and says what is wrong with them: the kernel, and in the tests of the store, which have
/// no file system with fs-verity, somebody who computes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub(super) seal: fn(&Path, &[u8; 32]) -> Result<Sealed, StoreError>,
    pub(super) fault: fn(&Path, &[u8; 32], Depth, Pace<'_>) -> Verdict,
    /// The wait before a file that is not right is looked at again.
    pub(super) again: Duration,
}

impl Kernel {
    pub(super) const REAL: Self = Self { seal, fault, again: AGAIN };

    pub(super) fn wait_again(&self) {
        Cancel::default().wait(self.again);
    }
}

/// Which file a name stands for: another one under the same name is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// The file that a name stands for now.
pub(super) fn identity(path: &Path) -> Result<Option<Identity>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(Identity { device: found.dev(), inode: found.ino() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::io("looking at", path)(source)),
    }
}

/// What the kernel said about a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealed {
    /// It is immutable under the demanded digest.
    Yes,
    /// It is immutable under another digest, so it has to go.
    OtherDigest,
}

/// Makes `path` immutable. Nobody may have it open for writing.
fn seal(path: &Path, digest: &[u8; 32]) -> Result<Sealed, StoreError> {
    fs::set_permissions(path, Permissions::from_mode(0o444))
        .map_err(StoreError::io("setting the mode of", path))?;
    let file = File::open(path).map_err(StoreError::io("opening", path))?;
    match sys::verity::enable(&file) {
        // An earlier run sealed it and was stopped before it got its name.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(Errno::OPNOTSUPP | Errno::NOTTY) => {
            return Err(StoreError::NoVerity { path: path.to_owned() });
        }
        Err(errno) => return Err(StoreError::io("enabling fs-verity on", path)(errno.into())),
    }
    let measured = sys::verity::measure(&file)
        .map_err(|errno| StoreError::io("measuring", path)(errno.into()))?;
    Ok(if measured.as_ref() == Some(digest) { Sealed::Yes } else { Sealed::OtherDigest })
}

/// Whether `path` is immutable under another digest.
pub(super) fn is_sealed_otherwise(path: &Path, digest: &[u8; 32]) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if is_damage(&error) => return Ok(true),
        Err(source) => return Err(StoreError::io("opening", path)(source)),
    };
    let measured = sys::verity::measure(&file)
        .map_err(|errno| StoreError::io("measuring", path)(errno.into()))?;
    Ok(measured.is_some_and(|measured| measured != *digest))
}

/// Told of bytes as they are read; may take its time.
pub type Pace<'p> = &'p mut dyn FnMut(u64);

/// What is wrong with the sealed file at `path`, if anything. To be read means: every page that no
/// program has mapped just now comes from the disk.
fn fault(
    path: &Path,
    digest: &[u8; 32],
    depth: Depth,
    pace: Pace<'_>,
) -> Result<Option<FaultKind>, StoreError> {
    let file = match measured(path, digest)? {
        Ok(file) => file,
        Err(kind) => return Ok(Some(kind)),
    };
    if depth == Depth::Measure {
        return Ok(None);
    }
    match read_from_disk(&file, pace) {
        Ok(()) => Ok(None),
        Err(errno) if is_damage(&errno.into()) => Ok(Some(FaultKind::Unreadable)),
        Err(errno) => Err(StoreError::io("reading", path)(errno.into())),
    }
}

/// The file, if the kernel enforces this digest on it.
fn measured(path: &Path, digest: &[u8; 32]) -> Result<Result<File, FaultKind>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(FaultKind::Missing));
        }
        // The kernel reads the verity descriptor at open: a damaged one is a bad object.
        Err(error) if is_damage(&error) => return Ok(Err(FaultKind::Unreadable)),
        Err(source) => return Err(StoreError::io("opening", path)(source)),
    };
    match sys::verity::measure(&file) {
        Ok(measured) if measured.as_ref() == Some(digest) => Ok(Ok(file)),
        Ok(_) | Err(Errno::OVERFLOW | Errno::BADMSG) => Ok(Err(FaultKind::WrongDigest)),
        Err(errno) => Err(StoreError::io("measuring", path)(errno.into())),
    }
}

/// Pages that are in memory are dropped first, since they say nothing of the disk, and those that were
/// read are dropped again, so that nobody else's have to go for them.
fn read_from_disk(file: &File, pace: Pace<'_>) -> rustix::io::Result<()> {
    fadvise(file, 0, None, Advice::DontNeed)?;
    let mut piece = vec![0; PIECE];
    let mut offset = 0_u64;
    loop {
        let n = rustix::io::pread(file, &mut piece[..], offset)? as u64;
        let Some(length) = NonZeroU64::new(n) else { return Ok(()) };
        fadvise(file, offset, Some(length), Advice::DontNeed)?;
        offset = offset.saturating_add(n);
        pace(n);
    }
}

/// Has the next reader of a file read the disk.
pub(super) fn forget(file: &File) {
    // Without it, less is read from the disk.
    fadvise(file, 0, None, Advice::DontNeed).ok();
}

/// Errors by which file systems report damaged data.
pub(super) fn is_damage(error: &io::Error) -> bool {
    let damage = [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| damage.contains(&errno))
}
