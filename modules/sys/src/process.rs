//! Processes: descriptors that the parent handed down.

#![expect(unsafe_code, reason = "descriptors arrive as numbers")]

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::Mutex,
};

/// Descriptors that [`inherited_fd`] gave out in this process.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes over a descriptor that the parent left open for us under a number it told us, and closes
/// it for our own children.
///
/// Fails for numbers that are not open, for stdin, stdout and stderr, and on a second call with
/// the same number. Call it before the process opens files of its own.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if number <= libc::STDERR_FILENO || taken.contains(&number) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_SETFD takes an integer and touches no memory; a closed number yields EBADF.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    taken.push(number);
    // SAFETY: the number is open, as fcntl just said, and given out once, as TAKEN records. No
    // other value of this process owns it: the caller has it from the parent.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
