//! The commands of health checks: all that enters a container of the node after its start.
//!
//! ```text
//! launcher            minder, its child              the command, a child of the minder
//! clone3 ───────────► finds the container
//! serves the next     enters it ([`super::enter`]) ──► waits at the gate, drops everything, "ready"
//!                     moves it into the group
//!                     opens the gate ────────────────► execveat by descriptor
//!                     waits, kills, reaps, answers
//! reaps the minder
//! ```
//!
//! A process for each check, so that the launcher waits for none: a container can make what enters it
//! slow, and its command hang. Until its command is executed the process is in the launcher's group, since
//! to set it up is the node's work; then it is in a group of its own inside that of the container, with
//! all that it starts, and is killed with it.
//!
//! Refuses what is not the first process of the container with the id, a second check of a container
//! while the first is there, and more than [`Check::AT_ONCE_MAX`].

use super::{
    Launcher,
    cgroup::{CheckGroup, end_check},
    devices, ending,
    enter::{Container, Namespaces},
    entry,
    execution::{self, Executable, Execution, Mounts},
    failure::{Context as _, Failure, fail},
    filter, hook,
    landlock::Domain,
    log_pipe, namespace,
    setup::Names,
    status::{self, At as _, Step},
    walls,
};
use crate::{check, reason::Reason};
use node_api::{
    launcher::{Check, CheckEnd, CheckReply},
    paths,
};
use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid},
};
use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _},
    mem::ManuallyDrop,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};
use sys::clone::{self, Parent, Spawn};

/// What was killed has ended by then, or its disk hangs.
const END_TIME: Duration = Duration::from_secs(5);
/// Bytes that a command may write. Reading them is the node's work.
const HEARD_MAX: usize = 1 << 20;
/// No file of a process that is read here has a tenth of it.
const FILE_MAX: u64 = 64 << 10;

/// The checks that are executed now.
#[derive(Debug, Default)]
pub struct Minders(Vec<Minder>);

#[derive(Debug)]
struct Minder {
    id: String,
    pidfd: OwnedFd,
    /// Ends when the check has; the minder itself ends a little later, after its answer.
    checks: OwnedFd,
}

impl Minder {
    fn checks(&self) -> bool {
        !matches!(status::wait(self.checks.as_fd(), Instant::now()), Ok(true))
    }
}

impl Minders {
    /// Executes a command in a process of its own, where `answer` is told what came of it. `foreign` is
    /// closed there.
    pub fn spawn(
        &mut self,
        launcher: &Launcher,
        check: &Check,
        foreign: BorrowedFd<'_>,
        answer: impl FnOnce(Result<CheckReply, Failure>),
    ) -> Result<(), Failure> {
        check::check_command(check).context(Reason::PlanInvalid, "checking the request")?;
        self.reap(launcher);
        if self.0.iter().any(|minder| minder.id == check.id && minder.checks()) {
            let id = &check.id;
            return fail(
                Reason::AlreadyRunning,
                format!("{id} is in the middle of a health check"),
            );
        }
        if self.0.iter().filter(|minder| minder.checks()).count() >= Check::AT_ONCE_MAX {
            return fail(Reason::LimitsRefused, "too many health checks are executed already");
        }
        let (checks, held) = super::pipe()?;
        let ours = Spawn { namespaces: 0, cgroup: None, parent: Parent::Caller };
        let spawned = clone::spawn(ours, || {
            if clone::close_inherited([foreign]).is_err() {
                return 1;
            }
            let done = launcher.execute(check);
            // Who has heard the answer may ask again.
            if clone::close_inherited([held.as_fd()]).is_err() {
                return 1;
            }
            answer(done);
            0
        });
        let spawned =
            spawned.context(Reason::LimitsRefused, "making a process for a health check")?;
        self.0.push(Minder { id: check.id.clone(), pidfd: spawned.pidfd, checks });
        Ok(())
    }

    /// Readable when one has ended.
    pub fn pidfds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter().map(|minder| &minder.pidfd)
    }

    /// Lets those go that have ended, with whatever one that was killed has left.
    pub fn reap(&mut self, launcher: &Launcher) {
        let mut died = Vec::new();
        self.0.retain(|minder| {
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match waitid(WaitId::PidFd(minder.pidfd.as_fd()), ended) {
                Ok(None) => return true,
                Ok(Some(status)) if status.exit_status() == Some(0) => {}
                Ok(Some(_)) | Err(_) => died.push(minder.id.clone()),
            }
            false
        });
        for id in died {
            // The next check of a container ends what is left there itself.
            if !self.0.iter().any(|minder| minder.id == id) {
                end_check(&launcher.cgroups.join(&id));
            }
        }
    }
}

impl Launcher {
    /// Executes a command and waits for its end.
    fn execute(&self, check: &Check) -> Result<CheckReply, Failure> {
        let found = find(check)?;
        let container = self.cgroups.join(&check.id);
        let group = match CheckGroup::make(&container, Instant::now() + END_TIME) {
            // The one before was killed long ago and is there still.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Ok(CheckReply { end: CheckEnd::Stuck, said: String::new() });
            }
            done => done.context(Reason::LimitsRefused, "making the group of a health check")?,
        };
        let done = execute_in(&group, check, &found);
        // What does not end now is met by the next check.
        group.remove(Instant::now() + END_TIME).ok();
        done
    }
}

fn execute_in(
    group: &CheckGroup,
    check: &Check,
    Found { first, namespaces, id_base }: &Found,
) -> Result<CheckReply, Failure> {
    let process = walls::process((&check.command, &check.env), &check.cwd, (check.uid, check.gid))
        .context(Reason::PlanInvalid, "preparing arguments")?;
    let program = check.command.first().map_or("", String::as_str);
    let paths = entry::candidates(program, &check.env, &check.cwd).into_iter().map(CString::new);
    let paths: Vec<CString> =
        paths.collect::<Result<_, _>>().context(Reason::PlanInvalid, "naming the program")?;
    let filters = filter::load()?;
    let null = devices::open_null()?;
    let (said, output) = log_pipe(id_base + check.uid, id_base + check.gid)?;
    let settings = walls::own_settings();
    let container = Container { namespaces, cgroup: None };
    let kept = [null.as_fd(), output.as_fd()];
    let entered = super::Process::enter(container, &settings, &kept, |ends| {
        // Here, because its descriptor would not have come this far; nor is it there any more when this
        // returns, so that there is nothing to close.
        let domain = Domain::prepare().map_err(|_| Errno::IO).at(Step::Domain)?;
        let domain = ManuallyDrop::new(domain);
        let execution = Execution {
            process: &process,
            program: Executable::Named(&paths, Mounts::Root),
            filters: &filters,
            domain: Some(&domain),
            streams: &|| execution::connect(null.as_fd(), output.as_fd()),
            hold: None,
        };
        execution.run(ends)
    })?;
    drop(output);
    let done = mind(&entered, said, group, Duration::from_secs(check.timeout_s.into()));
    if done.is_err() {
        group.kill();
        entered.end();
        if !status::wait(entered.pidfd.as_fd(), Instant::now()).unwrap_or(false) {
            // Its directory may hang: the next check meets it there, and makes no second one.
            group.take(entered.pid).ok();
        }
    }
    let reply = done?;
    // A container that ends takes its check along, by a signal that is no answer. It may be seen to end
    // only after its last process was reaped, which has just been done.
    if reply.end == CheckEnd::Killed(Signal::KILL.as_raw())
        && status::wait(first.as_fd(), Instant::now() + END_TIME)
            .context(Reason::NamespaceFailed, "asking whether the container lives")?
    {
        let id = &check.id;
        return fail(Reason::NamespaceFailed, format!("{id} ended in the middle of its check"));
    }
    Ok(reply)
}

/// Leads a process to its command, and waits for its end; the time of the command begins when all that
/// is the node's work has been done.
fn mind(
    entered: &super::Process,
    said: OwnedFd,
    group: &CheckGroup,
    time: Duration,
) -> Result<CheckReply, Failure> {
    const ATTEMPT: &str = "waiting for the end of a health check";
    let names = Names::default();
    entered.open_gate()?;
    entered.expect_ready(entered.deadline, &names)?;
    group.take(entered.pid).context(Reason::LimitsRefused, "moving a process into its group")?;
    let deadline = Instant::now() + time;
    match entered.release(deadline, &names) {
        // The container leaves it so little that it did not even come to its command.
        Err(_) if Instant::now() >= deadline => {}
        released => released?,
    }
    let seen = ending::watch(entered.pidfd.as_fd(), said, deadline, HEARD_MAX)
        .context(Reason::NamespaceFailed, ATTEMPT)?;
    if !seen.ended {
        group.kill();
    }
    let said = String::from_utf8_lossy(&seen.said).into_owned();
    // At once: the container itself cannot end before.
    let gone = status::wait(entered.pidfd.as_fd(), Instant::now() + END_TIME)
        .context(Reason::NamespaceFailed, ATTEMPT)?;
    if !gone {
        return Ok(CheckReply { end: CheckEnd::Late, said });
    }
    let status = waitid(WaitId::PidFd(entered.pidfd.as_fd()), WaitIdOptions::EXITED)
        .context(Reason::NamespaceFailed, ATTEMPT)?;
    let end = match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        _ if !seen.ended => CheckEnd::Late,
        Some((Some(code), _)) => CheckEnd::Exited(code),
        Some((None, Some(signal))) => CheckEnd::Killed(signal),
        Some((None, None)) | None => return fail(Reason::NamespaceFailed, ATTEMPT),
    };
    Ok(CheckReply { end, said })
}

/// A container that is there.
struct Found {
    /// Of its first process.
    first: OwnedFd,
    namespaces: Namespaces,
    /// The first of its ids.
    id_base: u32,
}

/// Finds the container. The number in the request may be that of another process by now: it has to be the
/// first of its own namespace, and in the container's group, where nobody but the launcher brings anybody.
fn find(check: &Check) -> Result<Found, Failure> {
    let attempt = || format!("finding the first process of {}", check.id);
    let pid = Pid::from_raw(check.pid).ok_or(io::Error::from(io::ErrorKind::NotFound));
    let pid = pid.context(Reason::NamespaceFailed, attempt())?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context(Reason::NamespaceFailed, attempt())?;
    let directory = namespace::directory(check.pid, pidfd.as_fd())?;
    let read = |name: &str| {
        let file = openat(&directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).take(FILE_MAX).read_to_string(&mut text)?;
        Ok::<_, io::Error>(text)
    };
    let read = |name: &str| read(name).context(Reason::NamespaceFailed, attempt());
    let (cgroup, numbers, map) = (read("cgroup")?, read("status")?, read("uid_map")?);
    let is_first = is_in_group(&cgroup, &check.id) && hook::last_pid(&numbers) == Some(1);
    let Some(id_base) = id_base(&map).filter(|_| is_first) else {
        let id = &check.id;
        return fail(Reason::NamespaceFailed, format!("the number is of no first process of {id}"));
    };
    let namespaces = Namespaces::of(check.pid, pidfd.as_fd())?;
    if !namespaces.are_foreign().context(Reason::NamespaceFailed, attempt())? {
        return fail(Reason::NamespaceFailed, format!("{} has a namespace of the node", check.id));
    }
    Ok(Found { first: pidfd, namespaces, id_base })
}

/// Whether a file `/proc/PID/cgroup` is of a process in the container's group itself.
fn is_in_group(text: &str, id: &str) -> bool {
    let work = paths::CGROUP_WORK.strip_prefix(paths::CGROUP).unwrap_or_default();
    text.trim_end() == format!("0::{work}/{id}")
}

/// The first id of the range that a container's `uid_map` has.
fn id_base(map: &str) -> Option<u32> {
    let mut words = map.split_ascii_whitespace();
    let (first, base, n_ids) = (words.next()?, words.next()?, words.next()?);
    let is_ours = first == "0" && n_ids.parse() == Ok(check::IDS) && words.next().is_none();
    base.parse().ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_group_of_the_container_itself_counts() {
        assert!(is_in_group("0::/work/c-1-web\n", "c-1-web"));
        for other in ["0::/work/c-1-web/check\n", "0::/work/c-1\n", "0::/system/launcher\n", ""] {
            assert!(!is_in_group(other, "c-1-web"), "{other}");
        }
    }

    #[test]
    fn only_a_map_as_the_launcher_writes_it_has_a_base() {
        assert_eq!(id_base("         0    1048576      65536\n"), Some(1 << 20));
        for other in [
            "         0          0 4294967295\n",
            "         1    1048576      65536\n",
            "         0    1048576      65535\n",
            "0 1048576 65536\n65536 0 1\n",
            "",
        ] {
            assert_eq!(id_base(other), None, "{other}");
        }
    }
}
