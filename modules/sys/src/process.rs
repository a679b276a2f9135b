//! Processes: descriptors that travel from parent to child, and the child's cgroup.

#![expect(unsafe_code, reason = "descriptors arrive as numbers")]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
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

/// Starts a program that finds itself in a cgroup before its first instruction, with no signal
/// blocked, and with one descriptor of ours left open under the number it has here.
///
/// `procs` is the cgroup's `cgroup.procs`, open for writing.
pub fn spawn_in_cgroup(
    command: &mut Command,
    procs: OwnedFd,
    inherited: BorrowedFd<'_>,
) -> io::Result<Child> {
    let inherited = inherited.as_raw_fd();
    let prepare = move || {
        // SAFETY: the buffer is a constant of one byte; write(2) is async-signal-safe.
        let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
        // SAFETY: F_SETFD takes an integer; fcntl(2) is async-signal-safe.
        let kept = unsafe { libc::fcntl(inherited, libc::F_SETFD, 0) };
        // SAFETY: an all-zero sigset_t is the empty set on Linux.
        let nothing: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are valid or null as sigprocmask(2) wants; it is
        // async-signal-safe, and there is one thread after fork.
        let freed = unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut())
        };
        if written == 1 && kept == 0 && freed == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure calls only write, fcntl and sigprocmask, which are async-signal-safe, and
    // allocates nothing.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// Leaves a descriptor open over execve(2), for the program that takes our place.
pub fn keep_over_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes an integer and touches no memory; a closed number yields EBADF.
    match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets everybody else go first, for the life of the calling thread: processors and disks serve it
/// when nobody else asks, as far as their schedulers know of that.
pub fn stand_back() -> io::Result<()> {
    // linux/ioprio.h: one process, whose number 0 is the calling thread, and the class that waits.
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    /// The least of all.
    const NICE: libc::c_int = 19;
    // SAFETY: three integers; no memory is touched.
    let disks = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
    // SAFETY: as above; 0 is the calling thread.
    let processors = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if disks == 0 && processors == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SigSet, Signal};
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::{AsFd, IntoRawFd},
        process::Stdio,
    };

    #[test]
    fn an_inherited_descriptor_is_taken_once_and_closed_for_children() {
        let (mut reader, writer) = io::pipe().unwrap();
        let number = OwnedFd::from(writer).into_raw_fd();
        keep_over_exec(number).unwrap();
        let taken = inherited_fd(number).unwrap();
        let flags = rustix::io::fcntl_getfd(&taken).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        inherited_fd(number).unwrap_err();
        File::from(taken).write_all(b"x").unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "x");
    }

    #[test]
    fn a_thread_stands_back_for_itself() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let words: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            words[16].to_owned()
        };
        let (before, there) = (nice(), std::thread::spawn(move || stand_back().map(|()| nice())));
        assert_eq!(there.join().unwrap().unwrap(), "19");
        assert_eq!(nice(), before);
    }

    #[test]
    fn standard_streams_and_closed_numbers_are_refused() {
        for number in [-1, 0, 1, 2, 1_000_000] {
            inherited_fd(number).unwrap_err();
        }
        keep_over_exec(1_000_000).unwrap_err();
    }

    #[test]
    fn a_program_enters_its_cgroup_with_its_descriptor_and_no_blocked_signal() {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTERM);
        blocked.thread_block().unwrap();
        let (mut procs, procs_writer) = io::pipe().unwrap();
        let (mut ready, ready_writer) = io::pipe().unwrap();
        let ready_writer = OwnedFd::from(ready_writer);
        let number = ready_writer.as_raw_fd();
        let mut command = Command::new("/bin/sh");
        let script = format!("echo up >&{number}; grep SigBlk /proc/self/status");
        command.args(["-c", &script]).stdout(Stdio::piped());
        let child =
            spawn_in_cgroup(&mut command, procs_writer.into(), ready_writer.as_fd()).unwrap();
        drop((command, ready_writer));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"SigBlk:\t0000000000000000\n");
        let (mut entered, mut said) = (String::new(), String::new());
        procs.read_to_string(&mut entered).unwrap();
        ready.read_to_string(&mut said).unwrap();
        assert_eq!((entered.as_str(), said.as_str()), ("0", "up\n"));
    }
}
