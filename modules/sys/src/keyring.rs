//! Keyrings of the kernel: `keyctl(2)`.

#![expect(unsafe_code, reason = "nix and rustix have no keyctl")]

use std::{io, ptr};

/// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Gives the calling thread a new, empty session keyring, which belongs to its user, in the place of
/// the one that it has from its parent.
///
/// Fails with `ENOSYS` on a kernel without keys, and with `EDQUOT` when the user has too many.
pub fn join_new_session() -> io::Result<()> {
    let unnamed = ptr::null::<libc::c_char>();
    // SAFETY: a null pointer for the name asks for a keyring without one; the kernel reads and
    // writes no memory of ours.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_joins_a_session_of_its_own_again_and_again() {
        let once = std::thread::spawn(|| (0..3).try_for_each(|_| join_new_session()));
        match once.join().unwrap() {
            // A sandbox may know no keys.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            done => done.unwrap(),
        }
    }
}
