//! Turns staged files into immutable ones, and asks the kernel about those.

use super::{Depth, FaultKind, StoreError};
use rustix::io::Errno;
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// What the kernel said about a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealed {
    /// It is immutable under the demanded digest.
    Yes,
    /// It is immutable under another digest, so it has to go.
    OtherDigest,
}

/// Makes `path` immutable. Nobody may have it open for writing.
pub(super) fn seal(path: &Path, digest: &[u8; 32]) -> Result<Sealed, StoreError> {
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

/// What is wrong with the sealed file at `path`, if anything.
pub(super) fn fault(
    path: &Path,
    digest: &[u8; 32],
    depth: Depth,
) -> Result<Option<FaultKind>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(FaultKind::Missing));
        }
        // The kernel reads the verity descriptor at open: a damaged one is a bad object.
        Err(error) if is_damage(&error) => return Ok(Some(FaultKind::Unreadable)),
        Err(source) => return Err(StoreError::io("opening", path)(source)),
    };
    match sys::verity::measure(&file) {
        Ok(measured) if measured.as_ref() == Some(digest) => {}
        Ok(_) | Err(Errno::OVERFLOW | Errno::BADMSG) => return Ok(Some(FaultKind::WrongDigest)),
        Err(errno) => return Err(StoreError::io("measuring", path)(errno.into())),
    }
    match depth {
        Depth::Measure => Ok(None),
        Depth::Read => match io::copy(&mut file, &mut io::sink()) {
            Ok(_) => Ok(None),
            Err(error) if is_damage(&error) => Ok(Some(FaultKind::Unreadable)),
            Err(source) => Err(StoreError::io("reading", path)(source)),
        },
    }
}

/// Errors by which file systems report damaged data.
fn is_damage(error: &io::Error) -> bool {
    let damage = [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| damage.contains(&errno))
}
