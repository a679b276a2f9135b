//! Runs the hooks of a bundle, each to its end: the state of the container on stdin, what it says
//! kept for the case that it fails.
//!
//! Those for the machine run as we do, from the bundle's directory. Those for the container run in its
//! namespaces and its cgroup: as root in there while the machine's files are still in sight, and behind
//! all the walls of its program once they are not, because then they are files of the container.

use super::{
    Process, bundle, ending,
    enter::Container,
    execution::{self, Ends, Executable, Execution, Mounts},
    failure::{Context as _, Failure},
    status::{At as _, Done, Step},
};
use crate::{
    oci::{
        hooks::{Hook, Hooks, Stage, Subject},
        plan::Plan,
    },
    reason::Reason,
};
use rustix::{
    fs::{CWD, MemfdFlags, memfd_create},
    process::{WaitId, WaitIdOptions, chdir, setsid, waitid},
};
use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    slice,
    time::Instant,
};
use sys::clone::{self, Parent, Spawn, Strings};

/// Where a hook runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scene<'a> {
    /// Where we are.
    Machine,
    /// In the namespaces of a container whose root is still the machine's.
    Namespaces(Container<'a>),
    /// In the container, like its program.
    Inside(Container<'a>, &'a Plan),
}

/// Runs the hooks of a stage, in their order, up to the first that fails. `pid` is that of the
/// container's process, as we see it; one that has ended has none.
pub(crate) fn run_all(
    hooks: &Hooks,
    stage: Stage,
    subject: &Subject,
    pid: i32,
    scene: Scene<'_>,
) -> Result<(), Failure> {
    hooks.at(stage).iter().try_for_each(|hook| run(hook, stage, subject, pid, scene))
}

/// Runs one hook.
pub(crate) fn run(
    hook: &Hook,
    stage: Stage,
    subject: &Subject,
    pid: i32,
    scene: Scene<'_>,
) -> Result<(), Failure> {
    let attempt = || format!("running hook {} {}", stage.name(), hook.path.to_string_lossy());
    let streams = || {
        let pid = match scene {
            Scene::Machine => pid,
            Scene::Namespaces(_) | Scene::Inside(..) => pid_inside(pid)?,
        };
        Ok::<_, io::Error>((state(&subject.state(stage, pid))?, rustix::pipe::pipe_with(CLOEXEC)?))
    };
    let (state, (said, output)) = streams().context(Reason::ExecFailed, attempt())?;
    let streams = [state.as_fd(), output.as_fd()];
    let process = match scene {
        Scene::Machine => {
            let program = Plain::new(hook, subject.bundle(), streams);
            let program = program.context(Reason::PlanInvalid, attempt())?;
            let here = Spawn { namespaces: 0, cgroup: None, parent: Parent::Caller };
            Process::spawn(here, |ends| ends.wait_at_gate().and_then(|()| program.run(ends)))?
        }
        Scene::Namespaces(container) => {
            let program = Plain::new(hook, Path::new("/"), streams);
            let program = program.context(Reason::PlanInvalid, attempt())?;
            Process::enter(container, &[], &streams, |ends| program.run(ends))?
        }
        Scene::Inside(container, plan) => {
            let process = bundle::process(plan, &hook.argv, &hook.env, "/");
            let process = process.context(Reason::PlanInvalid, attempt())?;
            let execution = Execution {
                process: &process,
                program: Executable::Named(slice::from_ref(&hook.path), Mounts::All),
                filters: plan.filter.as_slice(),
                domain: None,
                streams: &|| execution::connect(state.as_fd(), output.as_fd()),
                hold: None,
            };
            let settings = bundle::own_settings(plan);
            Process::enter(container, &settings, &streams, |ends| execution.run(ends))?
        }
    };
    drop(output);
    let deadline = Instant::now() + hook.time;
    let led = process.lead_in(|| Ok(()));
    let ended = led
        .and_then(|()| until_end(&process, said, deadline).context(Reason::ExecFailed, attempt()));
    match ended {
        Ok(()) => process.forget(),
        Err(_) => process.end(),
    }
    ended.map_err(|failure| Failure {
        // The program of a hook that is missing is not the container's.
        reason: Reason::ExecFailed,
        attempt: attempt(),
        source: Some(failure.source.unwrap_or_else(|| failure.attempt.into())),
    })
}

const CLOEXEC: rustix::pipe::PipeFlags = rustix::pipe::PipeFlags::CLOEXEC;

/// A file without a name, to be read from its beginning.
fn state(text: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(memfd_create("state", flags)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// The number of a process in its own pid namespace.
fn pid_inside(pid: i32) -> io::Result<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    last_pid(&status).ok_or_else(|| io::Error::other("a process without numbers"))
}

/// `NSpid` of proc(5): the numbers in all namespaces, the innermost last.
pub(super) fn last_pid(status: &str) -> Option<i32> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_ascii_whitespace().last()?.parse().ok()
}

/// Waits for the end of a hook, and reads what it says meanwhile. Its number stays its own.
fn until_end(process: &Process, said: OwnedFd, deadline: Instant) -> io::Result<()> {
    let seen = ending::watch(process.pidfd.as_fd(), said, deadline, usize::MAX)?;
    if !seen.ended {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
    }
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::PidFd(process.pidfd.as_fd()), options)?;
    let text = String::from_utf8_lossy(&seen.said);
    // It may come from an image, and goes to somebody's terminal.
    let last = text.trim_end().lines().last().unwrap_or("it said nothing").escape_debug();
    match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(0), _)) => Ok(()),
        Some((Some(code), _)) => Err(io::Error::other(format!("exit code {code}: {last}"))),
        Some((None, Some(signal))) => Err(io::Error::other(format!("signal {signal}: {last}"))),
        _ => Err(io::Error::other("it ended in an unknown way")),
    }
}

/// A program of the machine, without walls.
struct Plain<'a> {
    hook: &'a Hook,
    argv: Strings,
    envp: Strings,
    directory: &'a Path,
    streams: [BorrowedFd<'a>; 2],
}

impl<'a> Plain<'a> {
    fn new(hook: &'a Hook, directory: &'a Path, streams: [BorrowedFd<'a>; 2]) -> io::Result<Self> {
        let (argv, envp) = (Strings::new(&hook.argv)?, Strings::new(&hook.env)?);
        Ok(Self { hook, argv, envp, directory, streams })
    }

    /// Never returns if all goes well.
    fn run(&self, ends: Ends<'_>) -> Done {
        let [state, output] = self.streams;
        execution::connect(state, output)?;
        setsid().at(Step::Limits)?;
        clone::reset_signals().at(Step::Limits)?;
        clone::close_all_but([ends.gate, ends.status]).at(Step::Descriptors)?;
        chdir(self.directory).at(Step::Cwd)?;
        ends.say_ready()?;
        ends.wait_at_gate()?;
        Err(clone::execveat(CWD, &self.hook.path, &self.argv, &self.envp)).at(Step::Exec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn the_innermost_number_is_the_last() {
        assert_eq!(last_pid("Name:\tx\nNSpid:\t812\t17\t1\nNSpgid:\t5\n"), Some(1));
        assert_eq!(last_pid("Name:\tNSpid\nNSpid:\t812\n"), Some(812));
        assert_eq!(last_pid("Name:\tx\n"), None);
    }

    #[test]
    fn a_state_is_read_from_its_beginning() {
        let mut text = String::new();
        File::from(state("{}").unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "{}");
    }
}
