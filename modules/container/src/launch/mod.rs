//! Starts the first process of a container and hands it to init; executes the commands of health checks.
//!
//! ```text
//! launcher                                        child (a child of init from the beginning)
//! check, measure the image, mount the root
//! cgroup, network namespace
//! clone3 ───────────────────────────────────────► waits at the gate
//! write the id maps, open the gate ─────────────► builds its mounts, drops everything, "ready"
//! io.zeroos.init.Adopt (pidfd, log pipe)
//! open the gate ────────────────────────────────► execveat by descriptor
//! status pipe closed: it runs
//! ```
//!
//! The launcher keeps nothing of a container. A failure at any point, the death of the launcher
//! included, ends the child at the gate it waits at; its mounts go with its mount namespace.
//! Refuses to start a second process of a workload while the first one lives.
//!
//! The program is PID 1 of its namespace. The kernel drops signals that such a process has no
//! handler for, SIGTERM as well: a program that does not handle it ends by the kill after the grace
//! time.

mod bundle;
mod cgroup;
mod child;
mod devices;
mod ending;
mod enter;
mod entry;
mod execution;
mod failure;
mod filter;
mod hook;
mod landlock;
mod minder;
mod mounts;
mod namespace;
mod overlay;
mod root;
mod setup;
mod status;
mod terminal;
mod walls;

pub(crate) use bundle::{Made, create};
pub(crate) use enter::{Container, Namespaces, exec};
pub use failure::Failure;
pub(crate) use hook::{Scene, run, run_all};
pub use minder::Minders;
pub(crate) use namespace::Maps;
pub(crate) use setup::{Capabilities, Privileges};
pub(crate) use terminal::{Console, Terminal};

use crate::{check, reason::Reason};
use child::{Body, Midway};
use execution::{Ends, Executable, Execution};
use failure::{Context as _, fail};
use node_api::{
    init::Adopt,
    launcher::{Start, StartReply},
    paths,
};
use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};
use setup::Names;
use status::{At as _, Done, Step};
use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use sys::clone::{self, Parent, Spawn};

/// A child that takes longer for its own setup is stuck. Less than the time that a caller waits.
const SETUP_TIME: Duration = Duration::from_secs(20);

/// Directories of the launcher, and what it opened once.
#[derive(Debug)]
pub struct Launcher {
    /// Empty directories that only root sees; mounts are attached there for an instant.
    image: PathBuf,
    staging: PathBuf,
    skeleton: PathBuf,
    cgroups: PathBuf,
    netns: OwnedFd,
}

/// Hands a process to init: the call, the pidfd and the read end of the log pipe.
pub trait Supervisor {
    /// Returns when init has the process; the error is a sentence.
    fn adopt(&mut self, adopt: &Adopt, fds: [BorrowedFd<'_>; 2]) -> Result<(), String>;
}

impl Launcher {
    /// Prepares `directory` (`/run/zos/launcher`), and removes what a killed launcher left there.
    pub fn new(directory: &Path) -> Result<Self, Failure> {
        let ours = Launcher {
            image: directory.join("image"),
            staging: directory.join("root"),
            skeleton: directory.join("skeleton"),
            cgroups: paths::CGROUP_WORK.into(),
            netns: rustix::fs::open(
                "/proc/self/ns/net",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .context(Reason::NamespaceFailed, "opening the network namespace of the node")?,
        };
        root::prepare(directory, [&ours.image, &ours.staging], &ours.skeleton)?;
        cgroup::sweep(&ours.cgroups);
        Ok(ours)
    }

    /// Starts a container. On failure nothing of it is left but, after the process was handed over,
    /// init's entry of a process that ended.
    pub fn start(
        &self,
        start: &Start,
        supervisor: &mut dyn Supervisor,
    ) -> Result<StartReply, Failure> {
        let digest = check::check(start).context(Reason::PlanInvalid, "checking the request")?;
        let userns = namespace::user_namespace(start.id_base)?;
        let layers = root::Layers::mount(self, start, digest, userns.as_fd())?;
        let entry = entry::find(start, &layers)?;
        let (root, overlays) = overlay::mount(self, start, layers.into_root(), userns.as_fd())?;
        let dev = devices::prepare(start, userns.as_fd())?;
        let mut setup = walls::setup(start, (root.as_fd(), overlays), userns.as_fd(), dev.covers)?;
        let filters = filter::load()?;
        let domain = landlock::Domain::prepare()?;
        let null = devices::open_null()?;
        let (log_read, log_write) = log_pipe(start.id_base + start.uid, start.id_base + start.gid)?;
        let limits = cgroup::settings(&start.limits);
        let cgroup = cgroup::Group::replace(self.cgroups.join(&start.id), &start.id, limits)?;
        let process = namespace::within_network(
            self.netns.as_fd(),
            start.netns.as_deref(),
            start.id_base,
            |sysfs| {
                setup.kernel = walls::kernel(dev.mount, sysfs);
                let body = Body {
                    setup: &setup,
                    staging: &self.staging,
                    root: root.as_fd(),
                    midway: Midway::GoOn,
                    execution: Execution {
                        process: &setup.process,
                        program: Executable::Measured(&entry),
                        filters: &filters,
                        domain: Some(&domain),
                        streams: &|| execution::connect(null.as_fd(), log_write.as_fd()),
                        hold: None,
                    },
                    foreign: Some(log_read.as_fd()),
                };
                let options = Spawn {
                    namespaces: clone::NEWUSER
                        | clone::NEWNS
                        | clone::NEWPID
                        | clone::NEWIPC
                        | clone::NEWUTS
                        | clone::NEWCGROUP,
                    cgroup: Some(cgroup.as_fd()),
                    parent: Parent::OfCaller,
                };
                Process::spawn(options, |ends| body.become_program(ends))
            },
        )?;
        drop(log_write);
        let (pid, pidfd) = (process.pid, process.pidfd.as_fd());
        let hand_over = |cgroup: &cgroup::Group| {
            cgroup.limit_cpu(&start.limits)?;
            let adopt = Adopt { id: start.id.clone(), pid };
            supervisor.adopt(&adopt, [pidfd, log_read.as_fd()]).or_else(|why| {
                fail(Reason::AdoptFailed, format!("handing the process to init: {why}"))
            })
        };
        let maps = Maps::shifted(start.id_base);
        process.bring_up(Some(&maps), &Names::of(&setup), None, hand_over, cgroup)?;
        Ok(StartReply { pid: process.pid, entrypoint_digest: hex::encode(entry.digest) })
    }
}

/// What is done while a child waits, with its cgroup.
type OnTheWay<'a> = dyn FnMut(&cgroup::Group) -> Result<(), Failure> + 'a;

/// A child that does not run its program yet.
struct Process {
    pid: i32,
    pidfd: OwnedFd,
    gate: File,
    status: OwnedFd,
    deadline: Instant,
}

impl Process {
    /// Makes the child, which waits at the gate before it does anything.
    fn spawn(options: Spawn<'_>, child: impl FnOnce(Ends<'_>) -> Done) -> Result<Self, Failure> {
        let pipes = Pipes::new()?;
        let spawned = clone::spawn(options, || pipes.child(child))
            .context(Reason::LimitsRefused, "making the process in its cgroup")?;
        Ok(Self::new(spawned.pid, spawned.pidfd, pipes))
    }

    /// With the launcher's ends of the pipes; its copies of the child's are closed.
    fn new(pid: i32, pidfd: OwnedFd, pipes: Pipes) -> Self {
        let deadline = Instant::now() + SETUP_TIME;
        Self { pid, pidfd, gate: pipes.gate.1.into(), status: pipes.status.0, deadline }
    }

    /// Leads the child to its program, or ends it with everything in its cgroup. `midway` is called
    /// when a child that waits there has its mounts, `hand_over` when nothing can fail any more but
    /// the execution itself.
    fn bring_up(
        &self,
        maps: Option<&Maps>,
        names: &Names,
        midway: Option<&mut OnTheWay<'_>>,
        hand_over: impl FnOnce(&cgroup::Group) -> Result<(), Failure>,
        cgroup: cgroup::Group,
    ) -> Result<(), Failure> {
        let outcome = self.lead(maps, names, midway, hand_over, &cgroup);
        if outcome.is_ok() {
            cgroup.keep();
        } else {
            cgroup.kill();
            status::wait_for_end(self.pidfd.as_fd());
        }
        outcome
    }

    fn lead(
        &self,
        maps: Option<&Maps>,
        names: &Names,
        midway: Option<&mut OnTheWay<'_>>,
        hand_over: impl FnOnce(&cgroup::Group) -> Result<(), Failure>,
        cgroup: &cgroup::Group,
    ) -> Result<(), Failure> {
        if let Some(maps) = maps {
            namespace::map_ids(self.pid, self.pidfd.as_fd(), maps)?;
        }
        let mut deadline = self.deadline;
        let waits = midway.is_some();
        if let Some(midway) = midway {
            self.open_gate()?;
            self.expect_ready(deadline, names)?;
            midway(cgroup)?;
            deadline = Instant::now() + SETUP_TIME;
        }
        self.open_gate()?;
        self.expect_ready(deadline, names)?;
        hand_over(cgroup)?;
        if waits {
            deadline = Instant::now() + SETUP_TIME;
        }
        self.release(deadline, names)
    }

    /// Leads a child without a setup of its own to its program.
    fn lead_in(&self, hand_over: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let names = Names::default();
        self.open_gate()?;
        self.expect_ready(self.deadline, &names)?;
        hand_over()?;
        self.release(self.deadline, &names)
    }

    fn expect_ready(&self, deadline: Instant, names: &Names) -> Result<(), Failure> {
        match status::read(self.status.as_fd(), deadline, names)? {
            status::Status::Ready => Ok(()),
            status::Status::Closed => {
                fail(Reason::LimitsRefused, "the process was killed during its setup")
            }
            status::Status::Failed(failure) => Err(failure),
        }
    }

    /// The last gate.
    fn release(&self, deadline: Instant, names: &Names) -> Result<(), Failure> {
        self.open_gate()?;
        let said = status::read(self.status.as_fd(), deadline, names);
        // Behind the gate it may have been executed just before it is killed for its silence.
        match said.map_err(|failure| Failure { reason: Reason::ExecUnknown, ..failure })? {
            // execveat closed the pipe, or the process waits to be started. It is also closed when
            // the process was killed at this instant, which is its parent's to see.
            status::Status::Closed => Ok(()),
            status::Status::Failed(failure) => Err(failure),
            status::Status::Ready => fail(Reason::ExecFailed, "the process said ready twice"),
        }
    }

    fn open_gate(&self) -> Result<(), Failure> {
        (&self.gate).write_all(b"1").context(Reason::NamespaceFailed, "releasing the process")
    }
}

/// Between the launcher and a child.
struct Pipes {
    /// The launcher writes.
    gate: (OwnedFd, OwnedFd),
    /// The child writes.
    status: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new() -> Result<Self, Failure> {
        Ok(Self { gate: pipe()?, status: pipe()? })
    }

    /// Runs `child` with its ends in the child's process. Gives its exit code.
    fn child(&self, child: impl FnOnce(Ends<'_>) -> Done) -> i32 {
        let ends = Ends { gate: self.gate.0.as_fd(), status: self.status.1.as_fd() };
        // A copy of the launcher's ends here would keep the gate open after its death.
        let foreign = [self.gate.1.as_fd(), self.status.0.as_fd()];
        let closed = clone::close_inherited(foreign).at(Step::Gate);
        ends.last_words(closed.and_then(|()| child(ends)))
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    pipe_with(PipeFlags::CLOEXEC).context(Reason::NamespaceFailed, "making a pipe")
}

/// stdout and stderr. The write end belongs to the container's user, so that a program may open
/// `/dev/stdout` again.
fn log_pipe(uid: u32, gid: u32) -> Result<(OwnedFd, OwnedFd), Failure> {
    let (read, write) = pipe()?;
    rustix::fs::fchown(
        &write,
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
    )
    .context(Reason::NamespaceFailed, "giving the log pipe to the container's user")?;
    Ok((read, write))
}
