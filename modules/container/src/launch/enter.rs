//! Processes that enter a container which is there: hooks of its bundle, what `exec` starts, and the
//! commands of health checks, which are all that enters a container of the node ([`super::minder`]).
//!
//! ```text
//! we                       between                         entered, a child of ours
//! clone3(INTO_CGROUP) ───► keeps what it needs, keyring,
//!                          joins all but the mounts
//!                          clone3(PARENT) ───────────────► born among the container's processes
//!                          tells its pid, ends             waits at the gate, joins the mounts
//! ```
//!
//! From its birth the container can see it. So it is not dumpable long before, and stays so until it
//! executes: nobody inside reads its memory, its descriptors or its root ("Dirty runc init",
//! CVE-2016-9962). Every descriptor that it does not need is closed before anything is joined. Nothing
//! is read from or written to the container's `/proc`.

use super::{
    Pipes, Process, bundle,
    execution::{
        Ends, Executable, Execution, Mounts, become_ids, leave_session_keyring, write_setting,
    },
    failure::{Context as _, Failure, fail},
    namespace, status,
    status::{At as _, Done, Step},
    terminal::Terminal,
};
use crate::{oci::plan::Plan, reason::Reason};
use nix::sched::{CloneFlags, setns};
use rustix::{
    fs::{Mode, OFlags, fstat, openat},
    process::{
        DumpableBehavior, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open,
        pidfd_send_signal, set_dumpable_behavior, waitid,
    },
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Instant,
};
use sys::clone::{self, Parent, Spawn};

/// Files below `/proc/PID/ns`, in the order in which they are joined: with the user namespace go the
/// rights over all others, and the mounts are the last.
const KINDS: [(&str, CloneFlags); 7] = [
    ("net", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("user", CloneFlags::CLONE_NEWUSER),
    ("mnt", CloneFlags::CLONE_NEWNS),
];
/// Descriptors that a process keeps while it enters: namespaces, the ends of three pipes, streams.
const KEPT_MAX: usize = 16;

/// The namespaces of a process.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Of all kinds, but no user namespace that is ours: nobody joins that again.
    files: Vec<(CloneFlags, OwnedFd)>,
    /// Numbers of all kinds, in their order.
    ids: Vec<u64>,
}

impl Namespaces {
    /// Those that a process is in now.
    pub(crate) fn of(pid: i32, pidfd: BorrowedFd<'_>) -> Result<Self, Failure> {
        let directory = namespace::directory(pid, pidfd)?;
        let read = || {
            let ours = rustix::fs::stat("/proc/self/ns/user")?.st_ino;
            let (mut files, mut ids) = (Vec::new(), Vec::new());
            for (name, kind) in KINDS {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let file = openat(&directory, format!("ns/{name}"), flags, Mode::empty())?;
                let id = fstat(&file)?.st_ino;
                ids.push(id);
                if kind != CloneFlags::CLONE_NEWUSER || id != ours {
                    files.push((kind, file));
                }
            }
            Ok::<_, rustix::io::Errno>(Self { files, ids })
        };
        read().context(Reason::NamespaceFailed, "opening the namespaces of the container")
    }

    /// Whether none of them is ours.
    pub(super) fn are_foreign(&self) -> rustix::io::Result<bool> {
        for ((name, _), id) in KINDS.iter().zip(&self.ids) {
            if rustix::fs::stat(format!("/proc/self/ns/{name}"))?.st_ino == *id {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What names them as long as one of their processes lives.
    pub(crate) fn ids(&self) -> &[u64] {
        &self.ids
    }

    fn join(&self, only: impl Fn(CloneFlags) -> bool) -> Done {
        let wanted = self.files.iter().filter(|(kind, _)| only(*kind));
        wanted.map(|(kind, file)| setns(file, *kind)).try_for_each(|done| done.at(Step::Enter))
    }
}

/// What is entered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Container<'a> {
    pub(crate) namespaces: &'a Namespaces,
    /// Where who enters is born; `None` is where we are.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// Starts a process of a container beside its first, a child of ours. `hand_over` is told its number
/// before it executes its program.
pub(crate) fn exec(
    plan: &Plan,
    container: Container<'_>,
    terminal: Option<Terminal<'_>>,
    hand_over: impl FnOnce(i32) -> io::Result<()>,
) -> Result<OwnedFd, Failure> {
    let process = bundle::process(plan, &plan.args, &plan.env, &plan.cwd)
        .context(Reason::PlanInvalid, "preparing arguments")?;
    let paths = bundle::programs(plan)?;
    let execution = Execution {
        process: &process,
        program: Executable::Named(&paths, Mounts::All),
        filters: plan.filter.as_slice(),
        domain: None,
        streams: &|| terminal.map_or(Ok(()), |terminal| terminal.connect(plan.uid)),
        hold: None,
    };
    let settings = bundle::own_settings(plan);
    let socket = terminal.as_ref().map(|terminal| terminal.socket);
    let kept = socket.as_slice();
    let entered = Process::enter(container, &settings, kept, |ends| execution.run(ends))?;
    let led = entered
        .lead_in(|| hand_over(entered.pid).context(Reason::AdoptFailed, "recording the process"));
    if led.is_err() {
        entered.end();
    }
    led.map(|()| entered.pidfd)
}

impl Process {
    /// Makes a child inside a container, which waits at the gate and then does what `child` says, as
    /// root in there. `settings` are written before, `kept` are the descriptors that it may use.
    pub(super) fn enter(
        container: Container<'_>,
        settings: &[(CString, Vec<u8>)],
        kept: &[BorrowedFd<'_>],
        child: impl FnOnce(Ends<'_>) -> Done,
    ) -> Result<Self, Failure> {
        const ATTEMPT: &str = "making a process inside the container";
        // What enters is a copy of us.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .context(Reason::IsolationFailed, "closing this process to others")?;
        let pipes = Pipes::new()?;
        let (born_read, born_write) = super::pipe()?;
        let Container { namespaces, cgroup } = container;
        let between = |ends: Ends<'_>| {
            keep_only(ends, born_write.as_fd(), namespaces, kept)?;
            // As the machine's root, and by the machine's /proc.
            leave_session_keyring().at(Step::Keys)?;
            for (file, value) in settings {
                write_setting(file, value).at(Step::Settings)?;
            }
            namespaces.join(|kind| kind != CloneFlags::CLONE_NEWNS)?;
            let inside = Spawn { namespaces: 0, cgroup: None, parent: Parent::OfCaller };
            let spawned = clone::spawn(inside, || {
                let inside = entered(ends, born_write.as_fd(), namespaces);
                ends.last_words(inside.and_then(|()| child(ends)))
            });
            let pid = spawned.at(Step::Enter)?.pid;
            rustix::io::write(born_write.as_fd(), &pid.to_le_bytes()).at(Step::Enter).map(drop)
        };
        let options = Spawn { namespaces: 0, cgroup, parent: Parent::Caller };
        let spawned = clone::spawn(options, || pipes.child(between))
            .context(Reason::LimitsRefused, ATTEMPT)?;
        drop(born_write);
        let deadline = Instant::now() + super::SETUP_TIME;
        let mut number = [0; 4];
        let told = status::wait(born_read.as_fd(), deadline)
            .map(|in_time| in_time && rustix::io::read(&born_read, &mut number) == Ok(4));
        // Its work is done, or will not be.
        pidfd_send_signal(&spawned.pidfd, Signal::KILL).ok();
        reap(spawned.pidfd.as_fd());
        if !told.context(Reason::NamespaceFailed, ATTEMPT)? {
            let Pipes { status: (read, write), .. } = pipes;
            drop(write);
            return match status::read(read.as_fd(), deadline, &super::Names::default())? {
                status::Status::Failed(failure) => Err(failure),
                _ => fail(Reason::LimitsRefused, "the process was killed on its way in"),
            };
        }
        let pid = i32::from_le_bytes(number);
        // It is a child of ours: its number is not given away before we have waited for it.
        let pidfd = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match pidfd {
            Some(pidfd) => {
                Ok(Self::new(pid, pidfd.context(Reason::NamespaceFailed, ATTEMPT)?, pipes))
            }
            None => fail(Reason::NamespaceFailed, ATTEMPT),
        }
    }

    /// Ends a process that did not come to its program, or whose time is over, with those of its
    /// session that have not left it.
    pub(super) fn end(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Without a session of its own there is no such group.
            rustix::process::kill_process_group(pid, Signal::KILL).ok();
        }
        // It has ended already, or it ends now.
        pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
        self.forget();
    }

    /// Waits for the end of a child of ours, and lets its number go: nobody sends a signal to that any
    /// more.
    pub(super) fn forget(&self) {
        reap(self.pidfd.as_fd());
    }
}

/// Waits for the end of a child that ends. One that hangs in the kernel is left to whoever is the parent
/// of orphans.
fn reap(pidfd: BorrowedFd<'_>) {
    status::wait_for_end(pidfd);
    // Somebody who ignores the ends of children has none to wait for.
    waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
}

/// Closes every other descriptor above stderr.
fn keep_only(
    ends: Ends<'_>,
    born: BorrowedFd<'_>,
    namespaces: &Namespaces,
    kept: &[BorrowedFd<'_>],
) -> Done {
    let files = namespaces.files.iter().map(|(_, file)| file.as_fd());
    let all = [ends.gate, ends.status, born].into_iter().chain(files).chain(kept.iter().copied());
    let mut keep = [born; KEPT_MAX];
    for (place, fd) in keep.iter_mut().zip(all) {
        *place = fd;
    }
    clone::close_all_but(keep).at(Step::Descriptors)
}

/// The first steps of the process that was born inside.
fn entered(ends: Ends<'_>, born: BorrowedFd<'_>, namespaces: &Namespaces) -> Done {
    clone::close_inherited([born]).at(Step::Descriptors)?;
    ends.wait_at_gate()?;
    namespaces.join(|kind| kind == CloneFlags::CLONE_NEWNS)?;
    become_ids(0, 0, &[]).at(Step::Ids)?;
    // A change of ids can open it to others of its user (`fs.suid_dumpable`).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Privileges)
}
