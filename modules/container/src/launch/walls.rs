//! The walls around every container of the node, as data: the same for all, whatever a contract
//! says.

use super::{
    devices::Covers,
    failure::{Context as _, Failure},
    mounts,
    setup::{Capabilities, Finish, Order, Place, Prepared, Privileges, Process, Setup, Source},
};
use crate::reason::Reason;
use node_api::launcher::Start;
use rustix::{
    mount::{MountAttrFlags, MountPropagationFlags},
    process::{Resource, getrlimit},
    thread::CapabilitySet,
};
use std::{
    ffi::{CStr, CString},
    os::fd::{BorrowedFd, OwnedFd},
};
use sys::clone;

/// Capabilities of a process with user id 0 in the container: over its own user namespace, and so
/// over nothing but its own files and processes. Any other user has none.
const ROOT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Written while the child still has the node's user id, which the kernel asks for. Each applies to
/// the namespaces of the writer alone, but the last, which applies to the writer.
const SETTINGS: [(&CStr, &[u8]); 3] = [
    // Memory files cannot be executed, whatever flags they are made with.
    (c"/proc/sys/vm/memfd_noexec", b"2"),
    // The surface behind nested user namespaces stays closed, also if a filter had a hole.
    (c"/proc/sys/user/max_user_namespaces", b"0"),
    // The launcher is protected from the memory killer, its children are not.
    (c"/proc/self/oom_score_adj", b"0"),
];

/// The settings of a process that enters a container: those of its namespaces are made already.
pub(super) fn own_settings() -> Vec<(CString, Vec<u8>)> {
    let own = SETTINGS.iter().filter(|(file, _)| file.to_bytes().starts_with(b"/proc/self/"));
    own.map(|(file, value)| ((*file).to_owned(), value.to_vec())).collect()
}

/// Files of the kernel about the node, hidden. One that does not exist is skipped. The command line
/// may hold a token with which machines are enrolled.
const MASKED: [&CStr; 15] = [
    c"proc/acpi",
    c"proc/asound",
    c"proc/cmdline",
    c"proc/interrupts",
    c"proc/kcore",
    c"proc/keys",
    c"proc/key-users",
    c"proc/latency_stats",
    c"proc/sched_debug",
    c"proc/scsi",
    c"proc/timer_list",
    c"proc/timer_stats",
    c"sys/firmware",
    c"sys/devices/virtual/powercap",
    c"sys/kernel/security",
];
/// Shown, but never written.
const READ_ONLY: [&CStr; 5] =
    [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

/// Soft and hard limit; the launcher's own hard limit still bounds it.
const RESOURCE_LIMITS: [(Resource, u64, u64); 3] = [
    // The soft limit that select(2) can live with.
    (Resource::Nofile, 1024, 524_288),
    // A dump would be written by the node, on behalf of nobody.
    (Resource::Core, 0, 0),
    (Resource::Memlock, 8 << 20, 8 << 20),
];

const NO_SUID_DEV_EXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Everything but `/dev`, `/proc` and the like, see [`kernel`].
pub(super) fn setup(
    start: &Start,
    (root, overlays): (BorrowedFd<'_>, Vec<OwnedFd>),
    userns: BorrowedFd<'_>,
    covers: Covers,
) -> Result<Setup, Failure> {
    let own = |all: &[&CStr]| all.iter().map(|&name| name.to_owned()).collect();
    Ok(Setup {
        settings: SETTINGS
            .iter()
            .map(|(file, value)| ((*file).to_owned(), value.to_vec()))
            .collect(),
        kernel: Vec::new(),
        covers,
        mounts: mounts::prepare(&start.mounts, root, overlays, start.id_base, userns)?,
        masked: own(&MASKED),
        read_only: own(&READ_ONLY),
        finish: Finish::Nothing,
        order: Order::Made,
        propagation: MountPropagationFlags::PRIVATE,
        hostname: Some(start.hostname.clone()),
        process: process((&start.command, &start.env), &start.cwd, (start.uid, start.gid))
            .context(Reason::PlanInvalid, "preparing arguments")?,
    })
}

/// What every process has that the launcher executes in a container: command and environment, working
/// directory, user and group are all that differs.
pub(super) fn process(
    (command, env): (&[String], &[String]),
    cwd: &str,
    (uid, gid): (u32, u32),
) -> std::io::Result<Process> {
    let keep = if uid == 0 { ROOT_CAPABILITIES } else { CapabilitySet::empty() };
    let limits = RESOURCE_LIMITS.map(|(resource, soft, hard)| {
        let hard = hard.min(getrlimit(resource).maximum.unwrap_or(u64::MAX));
        (resource, Some(soft.min(hard)), Some(hard))
    });
    Ok(Process {
        argv: clone::Strings::new(command)?,
        envp: clone::Strings::new(env)?,
        cwd: CString::new(cwd)?,
        uid,
        gid,
        groups: Vec::new(),
        capabilities: Capabilities {
            bounding: keep,
            permitted: keep,
            effective: keep,
            inheritable: CapabilitySet::empty(),
            ambient: CapabilitySet::empty(),
        },
        privileges: Privileges::NeverMore,
        limits: limits.into(),
        umask: 0o022,
    })
}

/// The mounts of the kernel's own files.
pub(super) fn kernel(dev: OwnedFd, sysfs: OwnedFd) -> Vec<Prepared> {
    let ready = |target: &CStr, mount| Prepared {
        target: target.to_owned(),
        place: Place::Found,
        source: Source::Ready(mount),
        propagation: MountPropagationFlags::PRIVATE,
    };
    let new = |target: &CStr, kind, options: &[(&CStr, &CStr)], attributes| {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Prepared {
            target: target.to_owned(),
            place: Place::Found,
            source: Source::New { kind, options: options.collect(), attributes },
            propagation: MountPropagationFlags::PRIVATE,
        }
    };
    let read_only = NO_SUID_DEV_EXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let terminal = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")];
    let shm = [(c"mode", c"1777"), (c"size", c"64m"), (c"nr_inodes", c"16384")];
    vec![
        ready(c"dev", dev),
        // The namespace still has the node's /proc, without which the kernel allows no new one.
        new(c"proc", c"proc", &[(c"hidepid", c"invisible")], NO_SUID_DEV_EXEC),
        ready(c"sys", sysfs),
        new(c"sys/fs/cgroup", c"cgroup2", &[], read_only),
        new(c"dev/pts", c"devpts", &pts, terminal),
        new(c"dev/shm", c"tmpfs", &shm, NO_SUID_DEV_EXEC),
        new(c"dev/mqueue", c"mqueue", &[], NO_SUID_DEV_EXEC),
    ]
}
