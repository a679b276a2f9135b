//! What the child says over its status pipe: one message of six bytes.

use super::{
    failure::{Context as _, Failure, fail},
    setup::Names,
};
use crate::reason::Reason;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

/// Length of a message.
pub(super) const LENGTH: usize = 6;
/// First byte of the message that says "ready"; a [`Step`] never has it.
const READY: u8 = 0;
/// A killed process is gone by then, or the kernel has a problem that we cannot solve.
const END_TIME: Duration = Duration::from_secs(5);

/// Where the child was when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Gate = 1,
    Keys,
    Settings,
    Root,
    Ids,
    Kernel,
    Files,
    Masks,
    Target,
    Mount,
    Lock,
    Hostname,
    Pivot,
    Cwd,
    Limits,
    Privileges,
    Domain,
    Descriptors,
    Filter,
    Entry,
    Exec,
    Enter,
    Terminal,
    Content,
}

impl Step {
    const ALL: [(Self, Reason, &'static str); 24] = [
        (Self::Gate, Reason::NamespaceFailed, "waiting for the launcher"),
        (Self::Keys, Reason::IsolationFailed, "joining a session keyring of its own"),
        (Self::Settings, Reason::IsolationFailed, "writing the settings of its namespaces"),
        (Self::Root, Reason::RootMountFailed, "attaching the root"),
        (Self::Ids, Reason::NamespaceFailed, "becoming root of its user namespace"),
        (Self::Kernel, Reason::RootMountFailed, "mounting files of the kernel"),
        (Self::Files, Reason::RootMountFailed, "mounting resolv.conf, hosts and hostname"),
        (Self::Masks, Reason::IsolationFailed, "masking files of the kernel"),
        (
            Self::Target,
            Reason::MountTargetMissing,
            "opening the place of a mount, a directory of the flist that no symbolic link leads to",
        ),
        (Self::Mount, Reason::MountFailed, "attaching a mount"),
        (Self::Lock, Reason::RootMountFailed, "making the root read-only"),
        (Self::Hostname, Reason::NamespaceFailed, "setting the host name"),
        (Self::Pivot, Reason::RootMountFailed, "changing the root"),
        (Self::Cwd, Reason::CwdMissing, "entering the working directory"),
        (Self::Limits, Reason::IsolationFailed, "setting limits of the process"),
        (Self::Privileges, Reason::IsolationFailed, "dropping privileges"),
        (Self::Domain, Reason::IsolationFailed, "entering its Landlock domain"),
        (Self::Descriptors, Reason::IsolationFailed, "closing descriptors"),
        (Self::Filter, Reason::IsolationFailed, "installing the system call filter"),
        (Self::Entry, Reason::EntrypointMissing, "finding the program, executable by its user"),
        (Self::Exec, Reason::ExecFailed, "executing the program"),
        (Self::Enter, Reason::NamespaceFailed, "entering the namespaces of a container"),
        (Self::Terminal, Reason::MountFailed, "making a terminal from /dev/pts of the container"),
        (Self::Content, Reason::RootMountFailed, "reading the files of the container"),
    ];

    fn from_byte(byte: u8) -> Option<(Self, Reason, &'static str)> {
        Self::ALL.into_iter().find(|(step, ..)| *step as u8 == byte)
    }
}

/// A failed step, and which of several mounts it was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepFailed {
    pub(super) step: Step,
    pub(super) which: u8,
    pub(super) errno: Errno,
}

/// What a step of the child ends with.
pub(super) type Done = Result<(), StepFailed>;

/// Says at which step an error came.
pub(super) trait At<T> {
    fn at(self, step: Step) -> Result<T, StepFailed>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step) -> Result<T, StepFailed> {
        self.map_err(|errno| StepFailed { step, which: 0, errno })
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: Step) -> Result<T, StepFailed> {
        self.map_err(|error| StepFailed {
            step,
            which: 0,
            errno: Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
        })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: Step) -> Result<T, StepFailed> {
        self.map_err(|errno| Errno::from_raw_os_error(errno as i32)).at(step)
    }
}

/// The bytes of a message. A message is shorter than `PIPE_BUF`, so it is never torn.
pub(super) fn encode(outcome: Result<(), StepFailed>) -> [u8; LENGTH] {
    let (kind, which, errno) = match outcome {
        Ok(()) => (READY, 0, 0),
        Err(failed) => (failed.step as u8, failed.which, failed.errno.raw_os_error()),
    };
    let [a, b, c, d] = errno.to_le_bytes();
    [kind, which, a, b, c, d]
}

/// What the child said.
#[derive(Debug)]
pub(super) enum Status {
    Ready,
    Failed(Failure),
    Closed,
}

fn decode(message: [u8; LENGTH], names: &Names) -> Result<Status, Failure> {
    let [kind, which, errno @ ..] = message;
    if kind == READY {
        return Ok(Status::Ready);
    }
    let Some((step, reason, attempt)) = Step::from_byte(kind) else {
        return fail(Reason::NamespaceFailed, format!("the process failed in unknown step {kind}"));
    };
    let attempt = match names.find(step, which) {
        Some(name) => format!("{attempt}: {name}"),
        None => attempt.to_owned(),
    };
    let cause = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
    Ok(Status::Failed(Failure { reason, attempt, source: Some(cause.into()) }))
}

/// Waits for the next message until `deadline`.
pub(super) fn read(
    pipe: BorrowedFd<'_>,
    deadline: Instant,
    names: &Names,
) -> Result<Status, Failure> {
    if !wait(pipe, deadline).context(Reason::NamespaceFailed, "waiting for the process")? {
        return fail(Reason::NamespaceFailed, "the process did not finish its setup in time");
    }
    let mut message = [0; LENGTH];
    let n = rustix::io::read(pipe, &mut message)
        .context(Reason::NamespaceFailed, "reading what the process said")?;
    match n {
        0 => Ok(Status::Closed),
        LENGTH => decode(message, names),
        _ => fail(Reason::NamespaceFailed, "the process sent half a message"),
    }
}

/// Waits until a killed process has ended. Its cgroup can be removed only then.
pub(super) fn wait_for_end(pidfd: BorrowedFd<'_>) {
    // If it does not end, its cgroup stays and the next start says so.
    wait(pidfd, Instant::now() + END_TIME).ok();
}

/// Whether `fd` was readable before `deadline`.
pub(super) fn wait(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_travels() {
        let none = Names::of_mounts(&[]);
        for (step, reason, _) in Step::ALL {
            let bytes = encode(Err(StepFailed { step, which: 0, errno: Errno::PERM }));
            let Ok(Status::Failed(failure)) = decode(bytes, &none) else { panic!("{step:?}") };
            assert_eq!(failure.reason, reason);
        }
        assert!(matches!(decode(encode(Ok(())), &none), Ok(Status::Ready)));
        assert!(decode([200, 0, 0, 0, 0, 0], &none).is_err());
    }

    #[test]
    fn a_mount_that_failed_is_named() {
        let names = Names::of_mounts(&["/tmp"]);
        let failed = StepFailed { step: Step::Target, which: 0, errno: Errno::NOENT };
        let Ok(Status::Failed(failure)) = decode(encode(Err(failed)), &names) else { panic!() };
        assert!(failure.attempt.ends_with(": /tmp"), "{failure}");
    }

    #[test]
    fn step_numbers_are_unique_and_none_means_ready() {
        let numbers: std::collections::BTreeSet<u8> =
            Step::ALL.iter().map(|(step, ..)| *step as u8).collect();
        assert_eq!(numbers.len(), Step::ALL.len());
        assert!(!numbers.contains(&READY));
    }
}
