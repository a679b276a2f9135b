//! User namespaces with their id maps, and the network namespace in which a child is born.

use super::failure::{Context as _, Failure, fail};
use crate::{check::IDS, reason::Reason};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
    pipe::{PipeFlags, pipe_with},
    process::{WaitId, WaitIdOptions, waitid},
};
use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use sys::clone::{self, Parent, Spawn};

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// A user namespace that maps ids 0 to 65535 to `id_base` and up, for shifting the ids of mounts.
///
/// The container gets another one with the same maps from its own `clone3`: the kernel shifts by
/// the maps and does not ask which namespace they are from. This one has no process: the child that
/// made it is gone before this returns.
pub(super) fn user_namespace(id_base: u32) -> Result<OwnedFd, Failure> {
    const ATTEMPT: &str = "making a user namespace for shifted mounts";
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(Reason::NamespaceFailed, ATTEMPT)?;
    let options = Spawn { namespaces: clone::NEWUSER, cgroup: None, parent: Parent::Caller };
    let spawned =
        clone::spawn(options, || hold(read.as_fd())).context(Reason::NamespaceFailed, ATTEMPT)?;
    let maps = Maps::shifted(id_base);
    let mapped = map_ids(spawned.pid, spawned.pidfd.as_fd(), &maps).and_then(|directory| {
        openat(&directory, "ns/user", READ, Mode::empty()).context(Reason::NamespaceFailed, ATTEMPT)
    });
    drop(write);
    let reaped = reap(spawned.pidfd.as_fd()).context(Reason::NamespaceFailed, ATTEMPT);
    let namespace = mapped?;
    reaped?;
    Ok(namespace)
}

/// Waits until the launcher closes its end, or dies.
fn hold(read: BorrowedFd<'_>) -> i32 {
    // Our copy of the write end would keep the pipe open for ever.
    if clone::close_all_but([read]).is_err() {
        return 1;
    }
    // Whatever read says, the end is near.
    rustix::io::read(read, &mut [0]).ok();
    0
}

fn reap(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            done => return done.map(drop),
        }
    }
}

/// What is written to `uid_map` and `gid_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Maps {
    pub(crate) uid: String,
    pub(crate) gid: String,
}

impl Maps {
    /// Ids 0 to 65535 to `id_base` and up.
    pub(super) fn shifted(id_base: u32) -> Self {
        let map = format!("0 {id_base} {IDS}\n");
        Self { uid: map.clone(), gid: map }
    }
}

/// Writes the maps of the user namespace of a new process. Returns its directory in /proc.
pub(super) fn map_ids(pid: i32, pidfd: BorrowedFd<'_>, maps: &Maps) -> Result<OwnedFd, Failure> {
    let directory = directory(pid, pidfd)?;
    for (file, map) in [("uid_map", &maps.uid), ("gid_map", &maps.gid)] {
        let attempt = || format!("writing {file}");
        let fd = openat(&directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .context(Reason::NamespaceFailed, attempt())?;
        rustix::io::write(&fd, map.as_bytes()).context(Reason::NamespaceFailed, attempt())?;
    }
    Ok(directory)
}

/// The directory in /proc of a process that lives.
pub(super) fn directory(pid: i32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())
        .context(Reason::NamespaceFailed, "finding the process in /proc")?;
    // If it still lives after the directory was opened, the directory is its own and not that of
    // a later process with the same id.
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec::default()))
        .context(Reason::NamespaceFailed, "asking whether the process lives")?;
    if ended != 0 {
        return fail(Reason::NamespaceFailed, "the process ended too early");
    }
    Ok(directory)
}

/// Runs `body` inside the network namespace `file`, or inside a new, empty one, with a sysfs that
/// shows it; then goes home.
///
/// The child is born in the namespace instead of joining it: it belongs to the node's user
/// namespace, so nothing in the container has capabilities over it. Low ports and ping are opened
/// to the container instead.
///
/// Ends the process if it cannot go home: nothing may be done in a foreign network.
pub(super) fn within_network<T>(
    home: BorrowedFd<'_>,
    file: Option<&str>,
    id_base: u32,
    body: impl FnOnce(OwnedFd) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match file {
        Some(file) => {
            let attempt = || format!("entering network namespace {file}");
            let fd = openat(CWD, file, READ, Mode::empty())
                .context(Reason::NetworkMissing, attempt())?;
            setns(&fd, CloneFlags::CLONE_NEWNET).context(Reason::NetworkMissing, attempt())?;
        }
        None => unshare(CloneFlags::CLONE_NEWNET)
            .context(Reason::NetworkMissing, "making an empty network namespace")?,
    }
    let outcome = open_for_users(id_base).and_then(body);
    if setns(home, CloneFlags::CLONE_NEWNET).is_err() {
        std::process::abort();
    }
    outcome
}

fn open_for_users(id_base: u32) -> Result<OwnedFd, Failure> {
    const ATTEMPT: &str = "making a read-only sysfs";
    let last = id_base + (IDS - 1);
    for (setting, value) in [
        ("ip_unprivileged_port_start", "0".to_owned()),
        ("ping_group_range", format!("{id_base} {last}")),
    ] {
        fs::write(format!("/proc/sys/net/ipv4/{setting}"), value)
            .context(Reason::NetworkMissing, format!("writing {setting}"))?;
    }
    let context =
        fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).context(Reason::RootMountFailed, ATTEMPT)?;
    fsconfig_create(&context).context(Reason::RootMountFailed, ATTEMPT)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .context(Reason::RootMountFailed, ATTEMPT)
}
