//! From a process in its root to its program: limits, streams, ids, capabilities, filters, execution.
//!
//! Straight down like [`super::child`], and the same for the first process of a container and for one
//! that enters it. Refuses a working directory that is not inside the root, and programs that only
//! the links of `/proc` lead to.

use super::{
    entry::{self, Entry},
    landlock::Domain,
    setup::{Privileges, Process},
    status::{self, At as _, Done, Step, StepFailed},
};
use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, openat, openat2},
    io::Errno,
    process::{DumpableBehavior, Rlimit, chdir, set_dumpable_behavior, setrlimit, setsid, umask},
    thread::CapabilitySet,
};
use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use sys::{clone, seccomp::Program};

/// What a process is told to become. It inherits the descriptors under their numbers.
pub(super) struct Execution<'a> {
    pub(super) process: &'a Process,
    pub(super) program: Executable<'a>,
    /// In the order in which they are installed.
    pub(super) filters: &'a [Program],
    pub(super) domain: Option<&'a Domain>,
    /// What connects stdin, stdout and stderr, as root, in the root.
    pub(super) streams: &'a dyn Fn() -> Done,
    /// A FIFO, open for reading and writing, at which the child waits once more before it executes:
    /// nobody has to live for that.
    pub(super) hold: Option<BorrowedFd<'a>>,
}

/// What is executed.
pub(super) enum Executable<'a> {
    /// The file that was measured.
    Measured(&'a Entry),
    /// The first of these paths that is an executable file for the process's user.
    Named(&'a [CString], Mounts),
}

/// Where a program that is named may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounts {
    /// In the root or in what is mounted below it.
    All,
    /// In the root itself. What leads out of it is refused also where a link leads back in.
    Root,
}

/// Makes one descriptor stdin, and another stdout and stderr.
pub(super) fn connect(stdin: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Done {
    rustix::stdio::dup2_stdin(stdin).at(Step::Descriptors)?;
    rustix::stdio::dup2_stdout(output).at(Step::Descriptors)?;
    rustix::stdio::dup2_stderr(output).at(Step::Descriptors)
}

/// The child's ends of the two pipes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) gate: BorrowedFd<'a>,
    pub(super) status: BorrowedFd<'a>,
}

impl Ends<'_> {
    /// The launcher writes one byte for each gate; the end of the pipe is its death.
    pub(super) fn wait_at_gate(self) -> Done {
        match rustix::io::retry_on_intr(|| rustix::io::read(self.gate, &mut [0])).at(Step::Gate)? {
            0 => Err(Errno::PIPE).at(Step::Gate),
            _ => Ok(()),
        }
    }

    pub(super) fn say_ready(self) -> Done {
        rustix::io::write(self.status, &status::encode(Ok(()))).at(Step::Gate).map(drop)
    }

    /// Says why the child ends; gives its exit code.
    pub(super) fn last_words(self, done: Done) -> i32 {
        let Err(failed) = done else { return 127 };
        // If nobody listens any more, the launcher is dead and nobody waits for the answer.
        rustix::io::write(self.status, &status::encode(Err(failed))).ok();
        127
    }
}

impl Execution<'_> {
    /// Never returns if all goes well.
    pub(super) fn run(&self, ends: Ends<'_>) -> Done {
        let done = self.go(ends);
        match self.program {
            Executable::Measured(_) => done,
            Executable::Named(..) => done.map_err(told_apart),
        }
    }

    fn go(&self, ends: Ends<'_>) -> Done {
        umask(Mode::from_raw_mode(self.process.umask));
        setsid().at(Step::Limits)?;
        clone::reset_signals().at(Step::Limits)?;
        (self.streams)()?;
        // A limit may be below the number of descriptors that are open still.
        self.limit().at(Step::Limits)?;
        self.drop_privileges().at(Step::Privileges)?;
        if let Some(domain) = self.domain {
            domain.enter().at(Step::Domain)?;
        }
        let file = match self.program {
            Executable::Measured(entry) => entry.file.as_fd(),
            Executable::Named(..) => ends.gate,
        };
        let hold = self.hold.unwrap_or(ends.gate);
        // Before the working directory, which may be named through /proc/self/fd.
        clone::close_all_but([ends.gate, ends.status, file, hold]).at(Step::Descriptors)?;
        self.enter_cwd().at(Step::Cwd)?;
        let found = self.program.find()?;
        self.install_filters()?;
        ends.say_ready()?;
        ends.wait_at_gate()?;
        self.wait_to_be_held(ends)?;
        let (file, path) = match &found {
            Found::Measured(file) => (*file, c""),
            Found::File(file) => (file.as_fd(), c""),
            Found::Path(path) => (CWD, *path),
        };
        let Process { argv, envp, .. } = self.process;
        Err(clone::execveat(file, path, argv, envp)).at(Step::Exec)
    }

    /// The launcher goes; whoever starts the container writes one byte into the FIFO.
    fn wait_to_be_held(&self, ends: Ends<'_>) -> Done {
        let Some(hold) = self.hold else { return Ok(()) };
        clone::close_inherited([ends.status]).at(Step::Gate)?;
        rustix::io::retry_on_intr(|| rustix::io::read(hold, &mut [0])).at(Step::Gate).map(drop)
    }

    fn limit(&self) -> rustix::io::Result<()> {
        for (resource, soft, hard) in &self.process.limits {
            setrlimit(*resource, Rlimit { current: *soft, maximum: *hard })?;
        }
        Ok(())
    }

    /// As late as can be: a filter need not allow what is done before it.
    fn install_filters(&self) -> Done {
        self.filters.iter().try_for_each(Program::install).at(Step::Filter)?;
        if self.filters_need_a_capability() {
            let sets = self.process.capabilities.sets();
            rustix::thread::set_capabilities(None, sets).at(Step::Privileges)?;
        }
        Ok(())
    }

    /// Without `no_new_privs` the kernel takes filters from nobody else.
    fn filters_need_a_capability(&self) -> bool {
        !self.filters.is_empty() && self.process.privileges == Privileges::ByFile
    }

    /// The bounding set first, which needs capabilities; then the ids, then everything else but the
    /// right to install filters.
    fn drop_privileges(&self) -> rustix::io::Result<()> {
        use rustix::thread;
        let process = self.process;
        let keep = process.capabilities;
        for capability in CapabilitySet::all().difference(keep.bounding).iter() {
            match thread::remove_capability_from_bounding_set(capability) {
                // A capability that is younger than the kernel.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        thread::clear_ambient_capability_set()?;
        // Over the change of ids, until the sets are set.
        thread::set_keep_capabilities(true)?;
        become_ids(process.uid, process.gid, &process.groups)?;
        thread::set_keep_capabilities(false)?;
        let mut sets = keep.sets();
        if self.filters_need_a_capability() {
            sets.effective |= CapabilitySet::SYS_ADMIN;
            sets.permitted |= CapabilitySet::SYS_ADMIN;
        }
        thread::set_capabilities(None, sets)?;
        for capability in keep.ambient.iter() {
            thread::configure_capability_in_ambient_set(capability, true)?;
        }
        if process.privileges == Privileges::NeverMore {
            thread::set_no_new_privs(true)?;
        }
        // A change of ids can open the process to others of its user (`fs.suid_dumpable`).
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
    }

    /// As the final user. Also makes sure that the directory is inside the root: the kernel gives
    /// no absolute path for one that is not.
    fn enter_cwd(&self) -> rustix::io::Result<()> {
        chdir(self.process.cwd.as_c_str())?;
        let cwd = rustix::process::getcwd(Vec::new())?;
        if cwd.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::XDEV) }
    }
}

/// Of a program that runs beside another: what the machine could not give, as a damaged file, is told from
/// what is not there.
fn told_apart(failed: StepFailed) -> StepFailed {
    match (failed.step, failed.errno) {
        (
            Step::Cwd | Step::Entry | Step::Exec,
            Errno::IO | Errno::NFILE | Errno::MFILE | Errno::NOMEM,
        ) => StepFailed { step: Step::Content, ..failed },
        _ => failed,
    }
}

/// What is handed to the kernel.
enum Found<'a> {
    Measured(BorrowedFd<'a>),
    File(OwnedFd),
    Path(&'a CStr),
}

impl Executable<'_> {
    fn find(&self) -> Result<Found<'_>, StepFailed> {
        match self {
            Self::Measured(Entry { script: None, file, .. }) => Ok(Found::Measured(file.as_fd())),
            // A script is executed by its path: it has to be the file that was measured.
            Self::Measured(Entry { script: Some(script), .. }) => {
                let stat = rustix::fs::stat(script.path.as_c_str()).at(Step::Entry)?;
                if (stat.st_dev, stat.st_ino) == (script.device, script.inode) {
                    Ok(Found::Path(&script.path))
                } else {
                    Err(Errno::STALE).at(Step::Entry)
                }
            }
            Self::Named(paths, mounts) => {
                let mut last = Errno::NOENT;
                for path in *paths {
                    match named(path, *mounts) {
                        Err(Errno::NOENT | Errno::NOTDIR) => {}
                        Err(errno) => last = errno,
                        Ok(found) => return Ok(found),
                    }
                }
                Err(last).at(Step::Entry)
            }
        }
    }
}

/// A file that the calling user may execute. It is not reached through the links of `/proc`, one of
/// which still leads to the program of the launcher.
fn named(path: &CStr, mounts: Mounts) -> rustix::io::Result<Found<'_>> {
    let resolve = match mounts {
        Mounts::All => ResolveFlags::NO_MAGICLINKS,
        Mounts::Root => ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
    };
    let open = |flags| {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        openat2(CWD, path, flags, Mode::empty(), resolve)
    };
    let (file, is_readable) = match open(OFlags::RDONLY) {
        // A program need not be readable.
        Err(Errno::ACCESS) => (open(OFlags::PATH)?, false),
        done => (done?, true),
    };
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS)?;
    if is_readable && entry::is_script(file.as_fd())? {
        Ok(Found::Path(path))
    } else {
        Ok(Found::File(file))
    }
}

/// The launcher's child is a process with one thread, so the ids of the thread are its ids.
pub(super) fn become_ids(uid: u32, gid: u32, groups: &[Gid]) -> rustix::io::Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// The keys of whoever started us are not the container's. Done as the node's root: the users of
/// containers may have few keyrings, and two containers may have the same user.
pub(super) fn leave_session_keyring() -> std::io::Result<()> {
    match sys::keyring::join_new_session() {
        // A kernel without keys.
        Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => Ok(()),
        done => done,
    }
}

pub(super) fn write_setting(file: &CStr, value: &[u8]) -> rustix::io::Result<()> {
    let fd = openat(CWD, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, value).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_give_is_not_missing() {
        for (step, errno, wanted) in [
            (Step::Entry, Errno::NOENT, Step::Entry),
            (Step::Entry, Errno::ACCESS, Step::Entry),
            (Step::Entry, Errno::IO, Step::Content),
            (Step::Entry, Errno::NFILE, Step::Content),
            (Step::Cwd, Errno::NOENT, Step::Cwd),
            (Step::Cwd, Errno::IO, Step::Content),
            (Step::Exec, Errno::NOEXEC, Step::Exec),
            (Step::Exec, Errno::NOMEM, Step::Content),
            (Step::Privileges, Errno::NOMEM, Step::Privileges),
        ] {
            let told = told_apart(StepFailed { step, which: 0, errno });
            assert_eq!(told, StepFailed { step: wanted, which: 0, errno });
        }
    }
}
