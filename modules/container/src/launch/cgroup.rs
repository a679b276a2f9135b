//! The cgroup of one container: made with its limits before the process is, removed if it fails.

use super::failure::{Context as _, Failure, fail};
use crate::reason::Reason;
use node_api::launcher::{DiskLimit, Limits};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Instant,
};

/// Period of `cpu.max` in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// The smallest quota that the kernel takes.
const CPU_QUOTA_MIN_US: u64 = 1_000;
/// What the kernel takes as a weight.
const CPU_WEIGHTS: (u32, u32) = (1, 10_000);
/// Thousandths of a CPU for each unit of weight: a whole one weighs 100, the kernel's default.
const CPU_MILLI_PER_WEIGHT: u32 = 10;
/// How often the removal of a cgroup is tried while the kernel lets its last process go.
const REMOVE_TRIES: u32 = 200;

/// Groups that are looked at when the launcher starts; also bounds the files of the parent.
const GROUPS_MAX: usize = 65_536;

/// The group of a health check's command, inside that of its container. It has no limits of its own,
/// so all that the command takes counts for the container.
const CHECK: &str = "check";

/// A cgroup that is removed on drop unless it is kept.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    fd: OwnedFd,
    keep: bool,
}

/// `cpu.max`: written when the process is ready, because to set it up is the node's work.
pub(super) fn cpu_max(limits: &Limits) -> String {
    let quota = u64::from(limits.cpu_milli) * CPU_PERIOD_US / 1000;
    format!("{} {CPU_PERIOD_US}", quota.max(CPU_QUOTA_MIN_US))
}

/// What is written into which file before there is a process, in order.
///
/// `memory.high` stays open: above it a process is slowed down without end, where above
/// `memory.max` it ends at once with all of its container, which then starts again and says why.
pub(super) fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    let (lightest, heaviest) = CPU_WEIGHTS;
    let weight = (limits.cpu_milli / CPU_MILLI_PER_WEIGHT).clamp(lightest, heaviest);
    let disks = limits.disks.iter().map(|limit| ("io.max", io_max(limit)));
    let settings = [
        // When processors are short, each gets what it has of them in its contract.
        ("cpu.weight", weight.to_string()),
        ("memory.max", limits.memory_bytes.to_string()),
        ("memory.swap.max", "0".to_owned()),
        ("memory.oom.group", "1".to_owned()),
        ("pids.max", limits.pids_max.to_string()),
    ];
    settings.into_iter().chain(disks).collect()
}

/// A line of `io.max`: the kernel takes one disk at a time, and keeps those before.
fn io_max(limit: &DiskLimit) -> String {
    let DiskLimit { device, read_bytes_s, write_bytes_s, read_ops_s, write_ops_s } = limit;
    let words = [
        ("rbps", read_bytes_s),
        ("wbps", write_bytes_s),
        ("riops", read_ops_s),
        ("wiops", write_ops_s),
    ];
    let mut line = device.clone();
    for (word, limit) in words {
        if let Some(limit) = limit {
            line += &format!(" {word}={limit}");
        }
    }
    line
}

/// Removes what a killed launcher left: groups without a process. Those of ended workloads go as
/// well, which init would do when it forgets them.
pub(super) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().take(GROUPS_MAX).flatten() {
        end_check(&entry.path());
        // One with a process stays (`EBUSY`), and the files of the parent are no directories.
        fs::remove_dir(entry.path()).ok();
    }
}

/// Ends what is left of a health check in the container of this group. Waits for nobody: what has not
/// ended yet is met again by the next check.
pub(super) fn end_check(container: &Path) {
    let group = container.join(CHECK);
    // There is none, or it is gone by now.
    kill(&group);
    fs::remove_dir(group).ok();
}

/// Kills every process in a group and in those inside it.
fn kill(group: &Path) {
    // It fails only if the group is gone, and then nothing is left to kill.
    fs::write(group.join("cgroup.kill"), "1").ok();
}

/// Whether an error says that a group is not there, also one that went while its file was open.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::NODEV)
}

/// Where a health check's command and all that it starts are.
#[derive(Debug)]
pub(super) struct CheckGroup(PathBuf);

impl CheckGroup {
    /// Made anew inside the group of a container. Whatever a check before has left is ended first.
    pub(super) fn make(container: &Path, deadline: Instant) -> io::Result<Self> {
        let group = Self(container.join(CHECK));
        group.remove(deadline)?;
        fs::create_dir(&group.0)?;
        Ok(group)
    }

    /// Takes a process in, which is not waited for by anybody else.
    pub(super) fn take(&self, pid: i32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// Kills all that is in it.
    pub(super) fn kill(&self) {
        kill(&self.0);
    }

    /// Ends all that is in it, and removes it. There may be none.
    pub(super) fn remove(&self, deadline: Instant) -> io::Result<()> {
        self.kill();
        self.wait_until_empty(deadline)?;
        match fs::remove_dir(&self.0) {
            Err(error) if is_gone(&error) => Ok(()),
            done => done,
        }
    }

    fn wait_until_empty(&self, deadline: Instant) -> io::Result<()> {
        let mut events = match File::open(self.0.join("cgroup.events")) {
            Err(error) if is_gone(&error) => return Ok(()),
            done => done?,
        };
        loop {
            let mut text = String::new();
            events.rewind()?;
            match events.read_to_string(&mut text) {
                Err(error) if is_gone(&error) => return Ok(()),
                done => done?,
            };
            if text.lines().any(|line| line == "populated 0") {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            // The kernel calls it urgent when the file has other words than were read.
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
                Err(Errno::INTR) => {}
                done => drop(done?),
            }
        }
    }
}

impl Group {
    /// As [`Group::make`], but a leftover is replaced; one with a process in it fails with
    /// [`Reason::AlreadyRunning`].
    pub(super) fn replace<S: AsRef<str>>(
        path: PathBuf,
        id: &str,
        settings: impl IntoIterator<Item = (S, String)>,
    ) -> Result<Self, Failure> {
        // Of a container that has ended, nothing is in it.
        fs::remove_dir(path.join(CHECK)).ok();
        match fs::remove_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return fail(Reason::AlreadyRunning, format!("{id} still has a process"));
            }
            done => done.context(
                Reason::LimitsRefused,
                format!("removing what is left of cgroup {}", path.display()),
            )?,
        }
        Self::make(path, id, settings)
    }

    /// A new cgroup at `path` for `id`, with each value in its file.
    pub(super) fn make<S: AsRef<str>>(
        path: PathBuf,
        id: &str,
        settings: impl IntoIterator<Item = (S, String)>,
    ) -> Result<Self, Failure> {
        let attempt = || format!("making cgroup {}", path.display());
        fs::create_dir(&path).context(Reason::LimitsRefused, attempt())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())
            .context(Reason::LimitsRefused, attempt())?;
        let group = Self { path, fd, keep: false };
        for (file, value) in settings {
            let file = file.as_ref();
            match fs::write(group.path.join(file), &value) {
                // A kernel without swap has no such file, and nothing to limit.
                Err(error)
                    if file == "memory.swap.max" && error.kind() == io::ErrorKind::NotFound => {}
                done => done
                    .context(Reason::LimitsRefused, format!("writing {value} to {file} of {id}"))?,
            }
        }
        Ok(group)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// From now on the processes have no more of the processors than their contract says.
    pub(super) fn limit_cpu(&self, limits: &Limits) -> Result<(), Failure> {
        let value = cpu_max(limits);
        fs::write(self.path.join("cpu.max"), &value)
            .context(Reason::LimitsRefused, format!("writing {value} to cpu.max"))
    }

    /// The process runs: the cgroup is init's from now on.
    pub(super) fn keep(mut self) {
        self.keep = true;
    }

    /// Kills every process in it.
    pub(super) fn kill(&self) {
        kill(&self.path);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A process leaves its cgroup shortly after its pidfd says that it ended.
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::yield_now();
                }
                // Anything else does not get better by trying; the next start says it.
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_went_is_told_from_one_that_fails() {
        for (errno, gone) in [(Errno::NOENT, true), (Errno::NODEV, true), (Errno::BUSY, false)] {
            assert_eq!(is_gone(&errno.into()), gone, "{errno}");
        }
    }

    #[test]
    fn limits_become_what_the_kernel_takes() {
        let rows = [
            (1, "1", "1000 100000"),
            (250, "25", "25000 100000"),
            (4000, "400", "400000 100000"),
            (200_000, "10000", "20000000 100000"),
        ];
        for (cpu_milli, weight, quota) in rows {
            let disk = DiskLimit {
                device: "254:0".to_owned(),
                read_bytes_s: None,
                write_bytes_s: Some(65_536),
                read_ops_s: Some(10),
                write_ops_s: None,
            };
            let limits =
                Limits { cpu_milli, memory_bytes: 5 << 20, pids_max: 7, disks: vec![disk] };
            let settings = settings(&limits);
            let value = |wanted: &str| {
                let found = settings.iter().find(|(file, _)| *file == wanted);
                found.map(|(_, value)| value.as_str())
            };
            assert_eq!(value("cpu.weight"), Some(weight));
            assert_eq!(cpu_max(&limits), quota);
            assert_eq!(value("memory.max"), Some("5242880"));
            assert_eq!(value("pids.max"), Some("7"));
            assert_eq!(value("io.max"), Some("254:0 wbps=65536 riops=10"));
        }
    }
}
