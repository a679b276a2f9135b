#![expect(unsafe_code, reason = "a mapping is memory")]
//! Asks the kernel whether a file may be executed from memory. Nothing is executed, and nothing
//! stays mapped.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// What is mapped: the first page, on every processor that Zero-OS runs on.
const LENGTH: usize = 4096;

/// How the right to execute is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// With the mapping, as a loader of programs does.
    AtOnce,
    /// For a mapping that can be read only, afterwards.
    Later,
}

/// Maps the beginning of `file` privately, to be read and executed, and unmaps it again.
///
/// Fails with `EPERM` or `EACCES` where nothing may be executed, as on a mount with `noexec`.
pub fn execute(file: impl AsFd, ask: Ask) -> io::Result<()> {
    let all = libc::PROT_READ | libc::PROT_EXEC;
    let first = match ask {
        Ask::AtOnce => all,
        Ask::Later => libc::PROT_READ,
    };
    let number = file.as_fd().as_raw_fd();
    // SAFETY: the kernel chooses the place, so no memory of ours is replaced; the descriptor is open
    // for as long as `file` is borrowed.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, first, libc::MAP_PRIVATE, number, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let asked = match ask {
        Ask::AtOnce => Ok(()),
        // SAFETY: the page was mapped just now, and nobody has a reference into it.
        Ask::Later => match unsafe { libc::mprotect(page, LENGTH, all) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
    };
    // SAFETY: as above; after this nobody knows its address.
    match unsafe { libc::munmap(page, LENGTH) } {
        0 => asked,
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_program_may_be_executed_from_memory_and_a_pipe_may_not() {
        let program = File::open("/proc/self/exe").unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        for ask in [Ask::AtOnce, Ask::Later] {
            execute(&program, ask).unwrap();
            execute(&pipe, ask).unwrap_err();
        }
    }
}
