//! From a configuration to what the launcher does: everything is decided here, and nothing is
//! touched. Pure.
//!
//! Refuses what it cannot do, and what would open the node: see `docs/containers.md` for the list.

use super::{
    config::{Config, Linux, Mapping, Namespace, Process},
    devices::{self, Node},
    hooks::{self, Hooks},
    mounts::{self, Mount, Propagation},
    resources, seccomp,
    terminal::{self, Terminal},
};
use crate::{
    check::{Invalid, check_path, refuse},
    launch::{Capabilities, Maps, Privileges},
};
use rustix::{process::Resource, thread::CapabilitySet};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    path::{Path, PathBuf},
};
use sys::{clone, seccomp::Program};

/// Masked and read-only paths, each.
const PATHS_MAX: usize = 256;
/// Lines of a map of ids (`UID_GID_MAP_MAX_EXTENTS`).
const MAPPINGS_MAX: usize = 340;
/// Groups besides the first (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;
/// Settings of the kernel.
const SETTINGS_MAX: usize = 256;
/// What a host name and a domain name may have (`__NEW_UTS_LEN`).
const NAME_MAX: usize = 64;
/// Bytes of all arguments and variables together; the kernel takes a quarter of the stack limit.
pub(super) const STRINGS_BYTES_MAX: usize = 1 << 21;

/// What a process without a user namespace of its own may have: everything else reaches beyond the
/// container.
const WITHOUT_USER_NAMESPACE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BROADCAST)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::LEASE)
    // Of what can be made, only what the rules for devices allow can be opened.
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE);

const RESOURCES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// A container, decided.
#[derive(Debug)]
pub struct Plan {
    pub(crate) id: String,
    pub(crate) rootfs: PathBuf,
    pub(crate) root_is_read_only: bool,
    /// `NEW…` of [`sys::clone`].
    pub(crate) namespaces: u64,
    /// Type and file of those that others made.
    pub(crate) joined: Vec<(Kind, PathBuf)>,
    pub(crate) maps: Option<Maps>,
    /// Who is root inside, as the node sees it.
    pub(crate) owner: (u32, u32),
    pub(crate) settings: Vec<(CString, Vec<u8>)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) terminal: Option<Terminal>,
    /// Of the root.
    pub(crate) propagation: Propagation,
    /// Besides those that every container has.
    pub(crate) devices: Vec<Node>,
    /// Decides in the kernel which devices may be used.
    pub(crate) guard: Vec<[u8; 8]>,
    pub(crate) masked: Vec<CString>,
    pub(crate) read_only: Vec<CString>,
    pub(crate) hostname: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Capabilities,
    pub(crate) privileges: Privileges,
    pub(crate) filter: Option<Program>,
    /// Names of system calls in the profile of which there are none here.
    pub(crate) skipped: Vec<String>,
    pub(crate) limits: Vec<(Resource, Option<u64>, Option<u64>)>,
    pub(crate) umask: u32,
    /// A label of `SELinux` that is asked for: nothing where the kernel has none, and refused elsewhere.
    pub(crate) label: Option<&'static str>,
    /// Below the root of the hierarchy.
    pub(crate) cgroup: String,
    pub(crate) cgroup_settings: Vec<(String, String)>,
    pub(crate) hooks: Hooks,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// How far a configuration's capabilities and devices may reach: whoever calls decides, not the bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Not beyond the container.
    #[default]
    Container,
    /// As far as they do: root inside may be as good as root outside.
    Machine,
}

/// A type of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pid,
    Network,
    Ipc,
    Uts,
    Mount,
    User,
    Cgroup,
}

impl Kind {
    fn parse(name: &str) -> Result<Self, Invalid> {
        match name {
            "pid" => Ok(Self::Pid),
            "network" => Ok(Self::Network),
            "ipc" => Ok(Self::Ipc),
            "uts" => Ok(Self::Uts),
            "mount" => Ok(Self::Mount),
            "user" => Ok(Self::User),
            "cgroup" => Ok(Self::Cgroup),
            _ => refuse(format!("linux.namespaces: there is no type {name:?} here")),
        }
    }

    fn flag(self) -> u64 {
        match self {
            Self::Pid => clone::NEWPID,
            Self::Network => clone::NEWNET,
            Self::Ipc => clone::NEWIPC,
            Self::Uts => clone::NEWUTS,
            Self::Mount => clone::NEWNS,
            Self::User => clone::NEWUSER,
            Self::Cgroup => clone::NEWCGROUP,
        }
    }
}

/// The namespaces that are not those of the caller.
struct Own(BTreeMap<Kind, Option<PathBuf>>);

impl Own {
    fn has(&self, kind: Kind) -> bool {
        self.0.contains_key(&kind)
    }

    /// Whether it is made for this container. One that is joined may be the machine's.
    fn is_new(&self, kind: Kind) -> bool {
        self.0.get(&kind) == Some(&None)
    }
}

/// An id of a container: it names a directory and a cgroup.
pub fn check_id(id: &str) -> Result<(), Invalid> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"_+-.".contains(&c);
    let dots = id == "." || id == "..";
    if (1..=255).contains(&id.len()) && id.bytes().all(good) && !dots {
        Ok(())
    } else {
        refuse(format!("container id {id:?}: 1 to 255 letters, digits and _ + - ."))
    }
}

/// Decides everything about container `id` with the bundle at the absolute path `bundle`.
pub fn plan(id: &str, bundle: &Path, config: Config, reach: Reach) -> Result<Plan, Invalid> {
    check_id(id)?;
    let Some(root) = config.root else { return refuse("root: there is none") };
    if root.path.is_empty() || root.path.contains('\0') {
        return refuse("root.path: it is empty");
    }
    let Some(process) = config.process else { return refuse("process: there is none") };
    let linux = config.linux.unwrap_or_default();
    for (what, other) in [
        ("vm", &config.vm),
        ("windows", &config.windows),
        ("solaris", &config.solaris),
        ("zos", &config.zos),
        ("linux.intelRdt", &linux.intel_rdt),
        ("linux.personality", &linux.personality),
        ("linux.timeOffsets", &linux.time_offsets),
        ("linux.netDevices", &linux.net_devices),
        ("linux.memoryPolicy", &linux.memory_policy),
        ("process.apparmorProfile", &process.apparmor_profile),
        ("process.scheduler", &process.scheduler),
        ("process.ioPriority", &process.io_priority),
        ("process.execCPUAffinity", &process.exec_cpu_affinity),
    ] {
        if other.is_set() {
            return refuse(format!("{what}: this runtime has no such thing"));
        }
    }
    let labels = [
        ("linux.mountLabel", &linux.mount_label),
        ("process.selinuxLabel", &process.selinux_label),
    ];
    let label = labels.into_iter().find(|(_, label)| label.is_set()).map(|(what, _)| what);
    let own = namespaces(linux.namespaces.as_deref().unwrap_or_default())?;
    let (maps, owner) = maps(&linux, &own)?;
    let devices = devices::nodes(&linux)?;
    let mut settings = Vec::new();
    own_settings(&process, config.domainname.as_deref(), &own, &mut settings)?;
    sysctl(linux.sysctl.unwrap_or_default(), &own, &mut settings)?;
    if let Some(hostname) = &config.hostname {
        check_name("hostname", hostname, &own)?;
    }
    let propagation = match linux.rootfs_propagation.as_deref() {
        None | Some("") => Propagation::Private,
        Some(word) => match Propagation::parse(word) {
            Some(propagation) => propagation,
            None => return refuse(format!("linux.rootfsPropagation: there is no {word:?}")),
        },
    };
    let resources = linux.resources.unwrap_or_default();
    let guard = devices::program(resources.devices.as_deref().unwrap_or_default(), reach)?;
    check_process(&process)?;
    let capabilities = capabilities(&process, &own, reach)?;
    let privileges =
        if process.no_new_privileges { Privileges::NeverMore } else { Privileges::ByFile };
    let profile = linux.seccomp.map(|profile| seccomp::decide(&profile, privileges)).transpose()?;
    let (filter, skipped) = profile.map(|it| (it.filter, it.skipped)).unzip();
    let mounts =
        mounts::plan(config.mounts, bundle, own.is_new(Kind::Cgroup), own.has(Kind::User))?;
    let masked = paths("linux.maskedPaths", linux.masked_paths)?;
    let read_only = paths("linux.readonlyPaths", linux.readonly_paths)?;
    mounts::check_covered(&mounts)?;
    mounts::check_shared(&mounts, &masked.iter().chain(&read_only).collect::<Vec<_>>())?;
    let terminal = terminal::plan(&process, &mounts)?;
    let namespaces = own.0.iter().filter(|(_, path)| path.is_none());
    let namespaces = namespaces.fold(0, |all, (kind, _)| all | kind.flag());
    let joined = own.0.iter().filter_map(|(kind, path)| Some((*kind, path.clone()?))).collect();
    Ok(Plan {
        id: id.to_owned(),
        rootfs: bundle.join(root.path),
        root_is_read_only: root.readonly,
        namespaces,
        joined,
        maps,
        owner,
        settings,
        mounts,
        terminal,
        propagation,
        devices,
        guard,
        masked,
        read_only,
        hostname: config.hostname.filter(|name| !name.is_empty()),
        limits: limits(&process)?,
        capabilities,
        privileges,
        filter,
        skipped: skipped.unwrap_or_default(),
        label,
        umask: process.user.umask.unwrap_or(0o022) & 0o777,
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.unwrap_or_default(),
        args: process.args.unwrap_or_default(),
        env: process.env.unwrap_or_default(),
        cwd: process.cwd,
        cgroup: cgroup(id, linux.cgroups_path.as_deref())?,
        cgroup_settings: resources::settings(resources)?,
        hooks: hooks::plan(config.hooks.unwrap_or_default())?,
        annotations: config.annotations.unwrap_or_default(),
    })
}

fn namespaces(all: &[Namespace]) -> Result<Own, Invalid> {
    let mut own = BTreeMap::new();
    for namespace in all {
        let kind = Kind::parse(&namespace.r#type)?;
        let path = namespace.path.as_deref().filter(|path| !path.is_empty());
        if let Some(path) = path {
            check_path("linux.namespaces", path)?;
            if matches!(kind, Kind::Mount | Kind::User) {
                return refuse(format!(
                    "linux.namespaces: a {} namespace is made, not joined",
                    namespace.r#type
                ));
            }
        }
        if own.insert(kind, path.map(PathBuf::from)).is_some() {
            return refuse(format!("linux.namespaces: {} is there twice", namespace.r#type));
        }
    }
    if !own.contains_key(&Kind::Mount) {
        return refuse("linux.namespaces: a container has its own mount namespace");
    }
    Ok(Own(own))
}

type Owner = (u32, u32);

fn maps(linux: &Linux, own: &Own) -> Result<(Option<Maps>, Owner), Invalid> {
    let uid = linux.uid_mappings.as_deref().unwrap_or_default();
    let gid = linux.gid_mappings.as_deref().unwrap_or_default();
    match (own.has(Kind::User), uid.is_empty() && gid.is_empty()) {
        (false, true) => return Ok((None, (0, 0))),
        (false, false) => return refuse("linux.uidMappings: there is no user namespace"),
        (true, _) if uid.is_empty() || gid.is_empty() => {
            return refuse("linux.uidMappings and gidMappings: a user namespace has both");
        }
        (true, _) => {}
    }
    let root = |all: &[Mapping]| {
        let zero = all.iter().find(|mapping| mapping.container_id == 0);
        zero.map(|mapping| mapping.host_id)
    };
    let (Some(uid_root), Some(gid_root)) = (root(uid), root(gid)) else {
        return refuse("linux.uidMappings and gidMappings: id 0 is mapped");
    };
    let maps = Maps { uid: map("linux.uidMappings", uid)?, gid: map("linux.gidMappings", gid)? };
    Ok((Some(maps), (uid_root, gid_root)))
}

fn map(what: &str, mappings: &[Mapping]) -> Result<String, Invalid> {
    let ends = |first: u32, size: u32| first.checked_add(size).is_some();
    let good = |mapping: &Mapping| {
        let Mapping { container_id, host_id, size } = *mapping;
        size > 0 && ends(container_id, size) && ends(host_id, size)
    };
    if mappings.len() > MAPPINGS_MAX || !mappings.iter().all(good) {
        return refuse(format!("{what}: at most {MAPPINGS_MAX} ranges, each of ids that exist"));
    }
    let line = |mapping: &Mapping| {
        let Mapping { container_id, host_id, size } = mapping;
        format!("{container_id} {host_id} {size}\n")
    };
    Ok(mappings.iter().map(line).collect())
}

fn own_settings(
    process: &Process,
    domainname: Option<&str>,
    own: &Own,
    settings: &mut Vec<(CString, Vec<u8>)>,
) -> Result<(), Invalid> {
    if let Some(score) = process.oom_score_adj {
        if !(-1000..=1000).contains(&score) {
            return refuse("process.oomScoreAdj: it is -1000 to 1000");
        }
        settings.push((c"/proc/self/oom_score_adj".into(), score.to_string().into()));
    }
    if let Some(name) = domainname.filter(|name| !name.is_empty()) {
        check_name("domainname", name, own)?;
        settings.push((c"/proc/sys/kernel/domainname".into(), name.into()));
    }
    Ok(())
}

fn check_name(what: &str, name: &str, own: &Own) -> Result<(), Invalid> {
    if name.is_empty() {
        return Ok(());
    }
    if !own.is_new(Kind::Uts) {
        return refuse(format!("{what}: the container has no uts namespace of its own"));
    }
    if name.len() > NAME_MAX || !name.bytes().all(|c| c.is_ascii_graphic()) {
        return refuse(format!("{what}: at most {NAME_MAX} visible ASCII characters"));
    }
    Ok(())
}

/// Only what belongs to a namespace of the container.
fn sysctl(
    all: BTreeMap<String, String>,
    own: &Own,
    settings: &mut Vec<(CString, Vec<u8>)>,
) -> Result<(), Invalid> {
    if all.len() > SETTINGS_MAX {
        return refuse(format!("linux.sysctl: at most {SETTINGS_MAX}"));
    }
    for (name, value) in all {
        let file = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        check_path("linux.sysctl", &format!("/{file}"))?;
        let ipc = file.starts_with("fs/mqueue/")
            || file.starts_with("kernel/shm")
            || file.starts_with("kernel/msg")
            || file == "kernel/sem";
        let isolated = (file.starts_with("net/") && own.is_new(Kind::Network))
            || (ipc && own.is_new(Kind::Ipc))
            || (file == "kernel/domainname" && own.is_new(Kind::Uts));
        if !isolated {
            return refuse(format!("linux.sysctl: {name} is not of the container's namespaces"));
        }
        let path = CString::new(format!("/proc/sys/{file}")).map_err(nul)?;
        settings.push((path, value.into_bytes()));
    }
    Ok(())
}

fn nul(_: std::ffi::NulError) -> Invalid {
    Invalid("a string has a NUL".to_owned())
}

fn check_process(process: &Process) -> Result<(), Invalid> {
    let args = process.args.as_deref().unwrap_or_default();
    let env = process.env.as_deref().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return refuse("process.args: no program is named");
    }
    let bytes: usize = args.iter().chain(env).map(|string| string.len() + 1).sum();
    if bytes > STRINGS_BYTES_MAX {
        return refuse(format!("process: arguments and variables fit into {STRINGS_BYTES_MAX}"));
    }
    if args.iter().chain(env).chain([&process.cwd]).any(|string| string.contains('\0')) {
        return refuse("process: a string has a NUL");
    }
    if !process.cwd.starts_with('/') {
        return refuse(format!("process.cwd: {:?} is not absolute", process.cwd));
    }
    if process.user.additional_gids.as_ref().is_some_and(|all| all.len() > GROUPS_MAX) {
        return refuse(format!("process.user.additionalGids: at most {GROUPS_MAX}"));
    }
    Ok(())
}

fn capabilities(process: &Process, own: &Own, reach: Reach) -> Result<Capabilities, Invalid> {
    let Some(names) = &process.capabilities else {
        let none = CapabilitySet::empty();
        return Ok(Capabilities {
            bounding: none,
            permitted: none,
            effective: none,
            inheritable: none,
            ambient: none,
        });
    };
    let set = |what: &str, names: &Option<Vec<String>>| {
        let mut set = CapabilitySet::empty();
        for name in names.as_deref().unwrap_or_default() {
            let known = name.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
            match known {
                Some(capability) => set |= capability,
                None => return refuse(format!("process.capabilities.{what}: there is no {name}")),
            }
        }
        Ok(set)
    };
    let sets = Capabilities {
        bounding: set("bounding", &names.bounding)?,
        permitted: set("permitted", &names.permitted)?,
        effective: set("effective", &names.effective)?,
        inheritable: set("inheritable", &names.inheritable)?,
        ambient: set("ambient", &names.ambient)?,
    };
    let all = sets.bounding | sets.permitted | sets.effective | sets.inheritable | sets.ambient;
    let mut harmless = WITHOUT_USER_NAMESPACE;
    if own.is_new(Kind::Network) {
        harmless |= CapabilitySet::NET_ADMIN;
    }
    if own.is_new(Kind::Ipc) {
        harmless |= CapabilitySet::IPC_OWNER;
    }
    if reach == Reach::Container && all.contains(CapabilitySet::SYS_ADMIN) {
        // It could take `nodev` and `ro` off the mounts that are made for it.
        return refuse("process.capabilities: CAP_SYS_ADMIN is given only with --privileged");
    }
    match all.difference(harmless).iter_names().next() {
        Some((name, _)) if reach == Reach::Container && !own.has(Kind::User) => refuse(format!(
            "process.capabilities: CAP_{name} needs a user namespace, or --privileged"
        )),
        _ if !sets.permitted.contains(sets.effective)
            || !sets.permitted.contains(sets.ambient)
            || !sets.inheritable.contains(sets.ambient) =>
        {
            refuse("process.capabilities: effective and ambient are permitted, ambient inheritable")
        }
        _ => Ok(sets),
    }
}

type Limits = Vec<(Resource, Option<u64>, Option<u64>)>;

fn limits(process: &Process) -> Result<Limits, Invalid> {
    let mut seen = BTreeSet::new();
    let mut limits = Vec::new();
    for limit in process.rlimits.as_deref().unwrap_or_default() {
        let name = limit.r#type.as_str();
        let Some((_, resource)) = RESOURCES.iter().find(|(known, _)| *known == name) else {
            return refuse(format!("process.rlimits: there is no {name:?}"));
        };
        if !seen.insert(name) {
            return refuse(format!("process.rlimits: {name} is there twice"));
        }
        if limit.soft > limit.hard {
            return refuse(format!("process.rlimits: {name} is softer than hard"));
        }
        // The largest number is the kernel's "no limit".
        let value = |value: u64| (value != u64::MAX).then_some(value);
        limits.push((*resource, value(limit.soft), value(limit.hard)));
    }
    Ok(limits)
}

fn paths(what: &str, all: Option<Vec<String>>) -> Result<Vec<CString>, Invalid> {
    let all = all.unwrap_or_default();
    if all.len() > PATHS_MAX {
        return refuse(format!("{what}: at most {PATHS_MAX}"));
    }
    let one = |path: String| {
        check_path(what, &path)?;
        if path == "/" {
            return refuse(format!("{what}: the root is none of them"));
        }
        CString::new(path.trim_start_matches('/')).map_err(nul)
    };
    all.into_iter().map(one).collect()
}

/// An absolute path is below the root of the hierarchy, a relative one too; without one, a place of
/// our own.
fn cgroup(id: &str, path: Option<&str>) -> Result<String, Invalid> {
    match path.filter(|path| !path.is_empty()) {
        None => Ok(format!("zos-oci/{id}")),
        Some(path) if path.contains(':') => {
            refuse("linux.cgroupsPath: systemd does not look after the groups of this runtime")
        }
        Some(path) => {
            let path = format!("/{}", path.trim_start_matches('/'));
            check_path("linux.cgroupsPath", &path)?;
            if path == "/" {
                return refuse("linux.cgroupsPath: the root is not a container's");
            }
            Ok(path.trim_start_matches('/').to_owned())
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
