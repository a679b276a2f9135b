#![expect(unsafe_code, reason = "a mapping is memory")]
//! Asks the kernel whether a file may be executed from memory, and makes memory that other processes
//! can have a file of. Nothing is executed here.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    ptr::NonNull,
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

/// Memory that is shared with children, filled with bytes, and has no name but that in
/// `/proc/PID/map_files`.
#[derive(Debug)]
pub struct Shared {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Shared {
    /// Makes memory that begins with these bytes; the rest of its last page is zero.
    pub fn filled(bytes: &[u8]) -> io::Result<Self> {
        let length = bytes.len().next_multiple_of(LENGTH).max(LENGTH);
        let (rights, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses the place, so no memory of ours is replaced.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: `length` bytes from `start` on were mapped for writing just now, which is not less than
        // what is copied; nobody else knows of them, so they are not the source.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast().as_ptr(), bytes.len());
        }
        Ok(Self { start, length })
    }

    /// Its name in `/proc/PID/map_files`.
    pub fn name(&self) -> String {
        let start = self.start.addr().get();
        format!("{start:x}-{:x}", start.saturating_add(self.length))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `filled` with this length; nobody has a reference into it.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
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

    #[test]
    fn shared_memory_has_the_name_that_the_kernel_gives_it() {
        let shared = Shared::filled(b"program").unwrap();
        let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
        // The kernel writes addresses with at least eight digits here.
        assert!(maps().contains(&shared.name()), "{} {}", shared.name(), maps());
        let name = shared.name();
        drop(shared);
        assert!(!maps().contains(&name));
    }
}
