//! New processes in new namespaces, and what a child may do until it executes its program.
//!
//! Owns `clone3`, `execveat`, `close_range` and the reset of signals. Refuses to fork a process
//! with more than one thread: only there is a forked child free to run ordinary code.

#![expect(unsafe_code, reason = "nix and rustix have no clone3, execveat or close_range")]

use std::{
    ffi::{CStr, CString, c_char},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// `CLONE_PIDFD` of linux/sched.h.
const CLONE_PIDFD: u64 = 0x1000;
/// `CLONE_PARENT`.
const CLONE_PARENT: u64 = 0x8000;
/// `CLONE_INTO_CGROUP`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A new mount namespace.
pub const NEWNS: u64 = 0x0002_0000;
/// A new cgroup namespace.
pub const NEWCGROUP: u64 = 0x0200_0000;
/// A new UTS namespace: host name.
pub const NEWUTS: u64 = 0x0400_0000;
/// A new IPC namespace.
pub const NEWIPC: u64 = 0x0800_0000;
/// A new user namespace, which owns the others.
pub const NEWUSER: u64 = 0x1000_0000;
/// A new PID namespace; the child is its first process.
pub const NEWPID: u64 = 0x2000_0000;
/// A new, empty network namespace.
pub const NEWNET: u64 = 0x4000_0000;
/// The namespaces that [`spawn`] can make.
const NAMESPACES: u64 = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET;

/// `struct clone_args` of linux/sched.h, version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Whose child the new process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// Ours: we wait for it.
    Caller,
    /// Our own parent's (`CLONE_PARENT`): it waits for it, with the exit signal that we have.
    OfCaller,
}

/// How to make a process.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'fd> {
    /// Any of the `NEW…` constants, or-ed.
    pub namespaces: u64,
    /// Directory of the cgroup v2 group that the process starts in; `None` keeps ours.
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// Whose child it is.
    pub parent: Parent,
}

/// A process that was made.
#[derive(Debug)]
pub struct Spawned {
    /// Its id in our PID namespace.
    pub pid: i32,
    /// Refers to this very process, whatever happens to the id.
    pub pidfd: OwnedFd,
}

/// Makes a process that runs `child` on a copy of our memory and ends with the code it returns.
///
/// The child inherits every descriptor. Nothing that the parent holds on its stack is dropped in
/// the child. A panic in `child` ends the child with `SIGABRT`.
///
/// Fails with `EBUSY` when this process has more than one thread, with `EINVAL` for unknown
/// namespace flags, and with the kernel's errors.
pub fn spawn(options: Spawn<'_>, child: impl FnOnce() -> i32) -> io::Result<Spawned> {
    if options.namespaces & !NAMESPACES != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: options.namespaces | CLONE_PIDFD,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        ..CloneArgs::default()
    };
    match options.parent {
        Parent::Caller => args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs()),
        // The kernel wants no signal here and gives the child ours.
        Parent::OfCaller => args.flags |= CLONE_PARENT,
    }
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the struct is clone_args version 2 and its size is passed along; `pidfd` outlives the
    // call. Without CLONE_VM and with no stack given, the child continues here on its own copy of
    // our memory, like after fork. We are the only thread, so no lock of the allocator or of std
    // is held by somebody who does not exist in the child.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let abort = AbortOnUnwind;
            let code = child();
            drop(abort);
            // SAFETY: ends this process at once; runs none of the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so the kernel stored a new descriptor
            // there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).map_err(io::Error::other)?;
            Ok(Spawned { pid, pidfd })
        }
    }
}

/// The child must never unwind into the frames that it shares with its parent.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Strings in the form that `execveat` takes, made before the process is: the child allocates
/// nothing.
#[derive(Debug)]
pub struct Strings {
    /// Owns what `pointers` points to; each string is its own allocation and never moves.
    owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    /// Fails when a string contains a NUL.
    pub fn new<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let owned = strings
            .into_iter()
            .map(|string| CString::new(string.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { owned, pointers })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.owned.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }
}

/// Replaces this program by the file `fd` (`path` empty) or by `path` below it. Returns only when
/// that failed.
pub fn execveat(fd: BorrowedFd<'_>, path: &CStr, argv: &Strings, envp: &Strings) -> io::Error {
    let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: both arrays end with a null pointer and point to NUL-terminated strings that
    // `Strings` owns. On success the kernel drops this address space.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            path.as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            flags,
        )
    };
    io::Error::last_os_error()
}

/// Closes the child's copies of the parent's ends of pipes, without which a pipe never ends. For a
/// child, like [`close_all_but`].
pub fn close_inherited<const N: usize>(fds: [BorrowedFd<'_>; N]) -> io::Result<()> {
    for fd in fds {
        // Every filter of system calls that lets programs run knows this one.
        // SAFETY: takes an integer and touches no memory. The owner of the descriptor is the parent's
        // copy, which is left with its own; in the child nobody uses or closes the number again.
        if unsafe { libc::close(fd.as_raw_fd()) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Closes every descriptor above stderr but `keep`. For a child just before it executes.
///
/// Owners of the closed descriptors are left with dead numbers, so the caller must be on its way
/// to `execveat` or to the end; [`spawn`] runs no destructor of the parent's.
pub fn close_all_but<const N: usize>(mut keep: [BorrowedFd<'_>; N]) -> io::Result<()> {
    keep.sort_unstable_by_key(AsRawFd::as_raw_fd);
    let mut first = 3;
    for fd in keep {
        let number = fd.as_raw_fd().unsigned_abs();
        if first < number {
            close_range(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: takes integers and touches no memory.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `struct kernel_sigaction` of asm/signal.h; a null handler is `SIG_DFL`.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Gives every signal its default action and unblocks all, as a new program expects.
///
/// Rust's runtime ignores `SIGPIPE`, and an ignored signal stays ignored across `execve`. By system
/// call, because the C library keeps two signals to itself.
pub fn reset_signals() -> io::Result<()> {
    let default = KernelSigaction::default();
    let none: u64 = 0;
    let set_size = size_of::<u64>();
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        let old = ptr::null_mut::<KernelSigaction>();
        // SAFETY: reads one sigaction with a signal set of the given size, writes nothing, and
        // makes no code of ours a handler.
        let result = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, old, set_size)
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    let old = ptr::null_mut::<u64>();
    // SAFETY: reads one signal set of the given size and writes nothing.
    let result = unsafe {
        let how = libc::SIG_SETMASK;
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const none, old, set_size)
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
    fn a_process_with_threads_is_not_forked() {
        // The test harness runs this on a thread of its own.
        let options = Spawn { namespaces: 0, cgroup: None, parent: Parent::Caller };
        let error = spawn(options, || 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn unknown_namespaces_are_refused() {
        let options = Spawn { namespaces: 1, cgroup: None, parent: Parent::Caller };
        assert_eq!(spawn(options, || 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn strings_end_with_null_and_hold_no_nul() {
        let strings = Strings::new(["a", "b"]).unwrap();
        assert_eq!((strings.len(), strings.pointers.len()), (2, 3));
        assert!(strings.pointers[2].is_null());
        assert!(Strings::new(["a\0b"]).is_err());
    }

    #[test]
    fn the_struct_has_the_size_of_the_kernel_header() {
        assert_eq!(size_of::<CloneArgs>(), 88);
    }
}
