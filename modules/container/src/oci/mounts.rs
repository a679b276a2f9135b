//! The mounts of a configuration: which file system or directory goes where, with which attributes.
//! Pure.
//!
//! No mount but `/dev` and its terminals has devices, whatever it asks for: a second lock before the
//! rules for devices. What the machine mounts later below the source of one that is `slave` or `shared`
//! has only the first.

use super::config;
use crate::check::{Invalid, check_path, refuse};
use rustix::mount::{MountAttrFlags, MountPropagationFlags};
use std::{
    ffi::{CStr, CString},
    path::{Path, PathBuf},
};

/// Mounts of one container; the child counts them in a byte.
const MOUNTS_MAX: usize = 200;

/// One mount, decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Relative to the root.
    pub(crate) target: CString,
    pub(crate) attributes: MountAttrFlags,
    pub(crate) propagation: Propagation,
    pub(crate) what: What,
}

/// Where else mounts below one are seen. It holds for all mounts that come along with a directory,
/// whether its word begins with an `r` or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// Nowhere, and none come from elsewhere.
    Private,
    /// They come from where the source is mounted.
    Slave,
    /// In every copy; of a bind mount also at the source, if that is shared.
    Shared,
    /// As private, and no copy can be made.
    Unbindable,
}

impl Propagation {
    /// The word of a mount's option or of the root.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word.strip_prefix('r').unwrap_or(word) {
            "private" => Some(Self::Private),
            "slave" => Some(Self::Slave),
            "shared" => Some(Self::Shared),
            "unbindable" => Some(Self::Unbindable),
            _ => None,
        }
    }

    pub(crate) fn flag(self) -> MountPropagationFlags {
        match self {
            Self::Private => MountPropagationFlags::PRIVATE,
            Self::Slave => MountPropagationFlags::DOWNSTREAM,
            Self::Shared => MountPropagationFlags::SHARED,
            Self::Unbindable => MountPropagationFlags::UNBINDABLE,
        }
    }
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// `/dev`, with the devices that the specification promises.
    Dev { options: Vec<(CString, CString)> },
    /// A file system without a disk.
    New { kind: &'static CStr, options: Vec<(CString, CString)> },
    /// A file or directory of the node.
    Bind { source: PathBuf, depth: Depth },
}

/// Whether mounts below come along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    One,
    All,
}

/// Bytes of a name that the kernel takes for what a file system is mounted from.
const SOURCE_MAX: usize = 255;
const TMPFS_OPTIONS: [&str; 6] = ["mode", "size", "nr_inodes", "nr_blocks", "uid", "gid"];

/// What a file system does with what is written, without a value.
const FLAGS: [&str; 3] = ["sync", "dirsync", "lazytime"];

/// Kinds of file systems by their names, with the options that they take.
const KINDS: [(&str, &CStr, &[&str]); 7] = [
    ("proc", c"proc", &["hidepid", "gid", "subset"]),
    ("sysfs", c"sysfs", &[]),
    ("tmpfs", c"tmpfs", &TMPFS_OPTIONS),
    ("devpts", c"devpts", &["mode", "ptmxmode", "uid", "gid", "max"]),
    ("mqueue", c"mqueue", &[]),
    ("cgroup", c"cgroup2", &[]),
    ("cgroup2", c"cgroup2", &[]),
];

/// Decides about all mounts, in their order; `/dev` comes first unless it has a place.
pub(super) fn plan(
    all: Vec<config::Mount>,
    bundle: &Path,
    own_cgroup: bool,
    own_user: bool,
) -> Result<Vec<Mount>, Invalid> {
    if all.len() > MOUNTS_MAX {
        return refuse(format!("mounts: at most {MOUNTS_MAX}"));
    }
    let mut planned = Vec::with_capacity(all.len() + 1);
    for mount in all {
        let one = one(mount, bundle)?;
        let What::New { kind, .. } = &one.what else {
            planned.push(one);
            continue;
        };
        if *kind == c"cgroup2" && !own_cgroup {
            return refuse("mounts: cgroup needs a cgroup namespace");
        }
        let read_only = one.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY);
        if *kind == c"sysfs" && !own_user && !read_only {
            return refuse("mounts: sysfs is read-only, or in a user namespace");
        }
        planned.push(one);
    }
    let n_dev = planned.iter().filter(|mount| mount.target.as_c_str() == c"dev").count();
    if n_dev > 1 {
        return refuse("mounts: /dev is mounted once");
    }
    if n_dev == 0 {
        let options = vec![(c"mode".into(), c"755".into()), (c"size".into(), c"64k".into())];
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let propagation = Propagation::Private;
        let what = What::Dev { options };
        planned.insert(0, Mount { target: c"dev".into(), attributes, propagation, what });
    }
    Ok(planned)
}

/// Refuses what would be mounted at or below a directory that is shared: it would be seen on the machine,
/// and stay there. `covered` are further places that are mounted over.
pub(super) fn check_shared(mounts: &[Mount], covered: &[&CString]) -> Result<(), Invalid> {
    let is_shared = |mount: &Mount| {
        mount.propagation == Propagation::Shared && matches!(mount.what, What::Bind { .. })
    };
    for (at, shared) in mounts.iter().enumerate().filter(|(_, mount)| is_shared(mount)) {
        let others = mounts.iter().enumerate().filter(|(other, _)| *other != at);
        let mut places = others.map(|(_, mount)| &mount.target).chain(covered.iter().copied());
        if let Some(place) = places.find(|place| is_at_or_below(place, &shared.target)) {
            return refuse(format!(
                "/{}: it would be mounted on the machine too, for mounts: /{} is shared",
                place.to_string_lossy(),
                shared.target.to_string_lossy()
            ));
        }
    }
    Ok(())
}

/// Refuses what is seen elsewhere and covered by a later mount: the propagation of a mount is set where it
/// is found by its name, and there would be the other one.
pub(super) fn check_covered(mounts: &[Mount]) -> Result<(), Invalid> {
    for (at, mount) in mounts.iter().enumerate() {
        if mount.propagation == Propagation::Private {
            continue;
        }
        let mut later = mounts.iter().skip(at + 1);
        if later.any(|other| is_at_or_below(&mount.target, &other.target)) {
            return refuse(format!(
                "mounts: /{} is covered by a later one, so it can only be private",
                mount.target.to_string_lossy()
            ));
        }
    }
    Ok(())
}

fn is_at_or_below(place: &CString, above: &CString) -> bool {
    let rest = place.to_bytes().strip_prefix(above.to_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

fn one(mount: config::Mount, bundle: &Path) -> Result<Mount, Invalid> {
    let destination = mount.destination.trim_end_matches('/');
    if destination.is_empty() {
        return refuse("mounts: nothing is mounted on the root");
    }
    // Old configurations have relative ones: they begin at the root too.
    let destination = &format!("/{}", destination.strip_prefix('/').unwrap_or(destination));
    check_path("mounts", destination)?;
    if mount.uid_mappings.is_set() || mount.gid_mappings.is_set() {
        return refuse(format!("mounts: {destination} has its own map of ids"));
    }
    let target = CString::new(destination.trim_start_matches('/'))
        .map_err(|_| Invalid("mounts: a path has a NUL".to_owned()))?;
    let options = options(mount.options.as_deref().unwrap_or_default());
    let kind = mount.r#type.as_deref().unwrap_or("none");
    let is_bind = options.depth.is_some() || kind == "bind";
    let is_dev = destination == "/dev";
    let propagation = options.propagation;
    let mut attributes = options.attributes;
    if !is_dev && kind != "devpts" {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if is_bind {
        // Of what is mounted already, mount(2) changes nothing by these; nor do we.
        let changes_nothing = |option: &&&str| {
            let key = option.split_once('=').map(|(key, _)| key);
            key.is_some_and(|key| TMPFS_OPTIONS.contains(&key))
                || FLAGS.contains(option)
                // With `bind` it means no more than the attributes beside it.
                || **option == "remount"
        };
        if let Some(unknown) = options.others.iter().find(|option| !changes_nothing(option)) {
            return refuse(format!("mounts: {destination}: option {unknown} of a bind mount"));
        }
        let source = mount.source.unwrap_or_default();
        if is_dev || source.is_empty() || source.contains('\0') {
            return refuse(format!("mounts: {destination}: {source:?} cannot be mounted there"));
        }
        let source = bundle.join(source);
        let depth = options.depth.unwrap_or(Depth::One);
        return Ok(Mount { target, attributes, propagation, what: What::Bind { source, depth } });
    }
    let Some((_, kind, known)) = KINDS.iter().find(|(name, ..)| *name == kind) else {
        return refuse(format!("mounts: {destination}: no file system {kind:?} is mounted here"));
    };
    let mut taken = Vec::with_capacity(options.others.len() + 1);
    // A name to show, and no more.
    if let Some(source) = mount.source.filter(|source| !source.is_empty()) {
        match CString::new(source) {
            Ok(source) if source.count_bytes() <= SOURCE_MAX => {
                taken.push((c"source".to_owned(), source));
            }
            _ => return refuse(format!("mounts: {destination}: its source")),
        }
    }
    for option in options.others {
        // What a new instance always is.
        if option == "newinstance" && *kind == c"devpts" {
            continue;
        }
        let known = match option.split_once('=') {
            // The kernel asks for no value.
            None => FLAGS.contains(&option).then_some((option, "")),
            Some((key, value)) => known.contains(&key).then_some((key, value)),
        };
        let strings = known
            .and_then(|(key, value)| Some((CString::new(key).ok()?, CString::new(value).ok()?)));
        match strings {
            Some(strings) => taken.push(strings),
            None => return refuse(format!("mounts: {destination}: option {option:?}")),
        }
    }
    let what = match (is_dev, *kind == c"tmpfs") {
        (false, _) => What::New { kind, options: taken },
        (true, true) => What::Dev { options: taken },
        (true, false) => return refuse("mounts: /dev is a tmpfs"),
    };
    Ok(Mount { target, attributes, propagation, what })
}

struct Options<'a> {
    attributes: MountAttrFlags,
    propagation: Propagation,
    depth: Option<Depth>,
    others: Vec<&'a str>,
}

/// The later of two options that contradict each other wins, as with mount(8).
fn options(all: &[String]) -> Options<'_> {
    use MountAttrFlags as Flags;
    let mut attributes = Flags::empty();
    let mut propagation = Propagation::Private;
    let mut depth = None;
    let mut others = Vec::new();
    let times = Flags::MOUNT_ATTR_NOATIME | Flags::MOUNT_ATTR_STRICTATIME;
    for option in all {
        if let Some(wanted) = Propagation::parse(option) {
            propagation = wanted;
            continue;
        }
        match option.as_str() {
            "ro" => attributes |= Flags::MOUNT_ATTR_RDONLY,
            "rw" => attributes -= Flags::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= Flags::MOUNT_ATTR_NOSUID,
            "suid" => attributes -= Flags::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= Flags::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= Flags::MOUNT_ATTR_NOEXEC,
            "exec" => attributes -= Flags::MOUNT_ATTR_NOEXEC,
            "noatime" => attributes = (attributes - times) | Flags::MOUNT_ATTR_NOATIME,
            "strictatime" => attributes = (attributes - times) | Flags::MOUNT_ATTR_STRICTATIME,
            "atime" | "relatime" | "nostrictatime" | "norelatime" => attributes -= times,
            "nodiratime" => attributes |= Flags::MOUNT_ATTR_NODIRATIME,
            "diratime" => attributes -= Flags::MOUNT_ATTR_NODIRATIME,
            "async" => others.retain(|option| *option != "sync"),
            "nolazytime" => others.retain(|option| *option != "lazytime"),
            "bind" => depth = Some(Depth::One),
            "rbind" => depth = Some(Depth::All),
            // What is so anyhow: the kernel's default, or ours. Of the file systems that are mounted here
            // none counts versions on demand, and the kernel has nothing to say about them.
            "dev" | "defaults" | "iversion" | "noiversion" | "silent" | "loud" | "notmpcopyup" => {}
            other => others.push(other),
        }
    }
    Options { attributes, propagation, depth, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, kind: &str, options: &[&str]) -> config::Mount {
        config::Mount {
            destination: destination.to_owned(),
            r#type: Some(kind.to_owned()),
            source: Some("source".to_owned()),
            options: Some(options.iter().map(|&option| option.to_owned()).collect()),
            ..config::Mount::default()
        }
    }

    fn planned(mount: config::Mount) -> Result<Vec<Mount>, Invalid> {
        plan(vec![mount], Path::new("/bundle"), true, false)
    }

    #[test]
    fn dev_is_there_unasked_and_comes_first() {
        let all = planned(mount("/data", "bind", &["rbind"])).unwrap();
        assert!(matches!(all[0].what, What::Dev { .. }));
        let source = PathBuf::from("/bundle/source");
        assert_eq!(all[1].what, What::Bind { source, depth: Depth::All });
        let asked = planned(mount("/dev/", "tmpfs", &["size=64k"])).unwrap();
        assert!(asked.len() == 1 && matches!(asked[0].what, What::Dev { .. }));
    }

    #[test]
    fn no_mount_has_devices_but_dev_and_its_terminals() {
        let nodev = MountAttrFlags::MOUNT_ATTR_NODEV;
        for (path, kind, options, want) in [
            ("/tmp", "tmpfs", &["dev", "rw"][..], true),
            ("/data", "bind", &["rbind", "dev"], true),
            ("/proc", "proc", &[], true),
            ("/dev/shm", "tmpfs", &["dev"], true),
            ("/dev/pts", "devpts", &["newinstance", "gid=5"], false),
            ("/dev", "tmpfs", &[], false),
        ] {
            let all = planned(mount(path, kind, options)).unwrap();
            let last = all.last().unwrap();
            assert_eq!(last.attributes.contains(nodev), want, "{path}");
        }
    }

    #[test]
    fn mounts_are_seen_elsewhere_only_when_asked() {
        for (kind, options, want) in [
            ("bind", &["rbind"][..], Propagation::Private),
            ("tmpfs", &["shared"], Propagation::Shared),
            ("bind", &["bind", "rslave", "mode=755", "size=1k"], Propagation::Slave),
            ("bind", &["bind", "rshared", "runbindable"], Propagation::Unbindable),
            ("bind", &["bind", "shared", "private"], Propagation::Private),
        ] {
            let all = planned(mount("/m", kind, options)).unwrap();
            assert_eq!(all.last().unwrap().propagation, want, "{options:?}");
        }
        assert_eq!(Propagation::parse("slave"), Some(Propagation::Slave));
        assert_eq!((Propagation::parse("rr"), Propagation::parse("rrslave")), (None, None));
    }

    /// The user saw a mount with the propagation of the one that it covers.
    #[test]
    fn what_is_covered_is_seen_nowhere_else() {
        for (places, good) in [
            ([("/a", "rslave"), ("/b", "rprivate")], true),
            ([("/a", "rprivate"), ("/a", "rslave")], true),
            ([("/a", "rslave"), ("/a/b", "rprivate")], true),
            ([("/ab", "rslave"), ("/a", "rprivate")], true),
            ([("/a", "rslave"), ("/a", "rprivate")], false),
            ([("/a", "runbindable"), ("/a", "rslave")], false),
            ([("/a/b", "rslave"), ("/a", "rprivate")], false),
        ] {
            let all = places.map(|(place, option)| mount(place, "bind", &["rbind", option]));
            let all = plan(all.into(), Path::new("/bundle"), true, false).unwrap();
            assert_eq!(check_covered(&all).is_ok(), good, "{places:?}");
        }
    }

    #[test]
    fn a_relative_place_begins_at_the_root() {
        assert_eq!(planned(mount("a/b", "tmpfs", &[])).unwrap()[1].target.as_c_str(), c"a/b");
    }

    #[test]
    fn what_a_file_system_is_mounted_from_is_a_name() {
        let all = planned(mount("/tmp", "tmpfs", &["size=1k"])).unwrap();
        let What::New { options, .. } = &all.last().unwrap().what else { panic!() };
        let names: Vec<_> = options.iter().map(|(key, _)| key.as_c_str()).collect();
        assert_eq!(names, [c"source", c"size"]);
        let mut long = mount("/tmp", "tmpfs", &[]);
        long.source = Some("x".repeat(SOURCE_MAX + 1));
        assert!(planned(long).is_err());
    }

    #[test]
    fn later_options_win() {
        let strings = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        for (both, want) in [
            (&["ro", "rw", "nosuid", "exec", "noexec"][..], 0b1010),
            (&["noatime", "strictatime"], 0x20),
            (&["strictatime", "noatime"], 0x10),
            (&["noatime", "nodiratime", "relatime", "diratime"], 0),
        ] {
            assert_eq!(options(&strings(both)).attributes.bits(), want, "{both:?}");
        }
        let both = strings(&["sync", "lazytime", "dirsync", "async", "nolazytime"]);
        assert_eq!(options(&both).others, ["dirsync"]);
    }

    #[test]
    fn what_is_not_known_or_opens_the_node_is_refused() {
        let good = planned(mount("/sys", "sysfs", &["nosuid", "ro"]));
        assert!(good.is_ok(), "the control: {good:?}");
        for (path, kind, options) in [
            ("/", "tmpfs", &[][..]),
            ("", "tmpfs", &[]),
            ("/a/../b", "tmpfs", &[]),
            ("/sys", "sysfs", &["nosuid"]),
            ("/disk", "ext4", &[]),
            ("/over", "overlay", &["lowerdir=/a"]),
            ("../tmp", "tmpfs", &[]),
            ("/tmp", "tmpfs", &["tmpcopyup"]),
            ("/tmp", "tmpfs", &["remount"]),
            ("/tmp", "tmpfs", &["sync=1"]),
            ("/tmp", "tmpfs", &["huge=always"]),
            ("/tmp", "tmpfs", &["size=1\0"]),
            ("/data", "bind", &["rbind", "iocharset=x"]),
            ("/data", "bind", &["rbind", "size"]),
            ("/data", "bind", &["bind", "idmap"]),
            ("/dev", "bind", &["bind"]),
            ("/dev", "proc", &[]),
        ] {
            assert!(planned(mount(path, kind, options)).is_err(), "{path} {kind} {options:?}");
        }
        let cgroup = mount("/sys/fs/cgroup", "cgroup", &["ro"]);
        assert!(plan(vec![cgroup], Path::new("/"), false, false).is_err());
        let many = (0..=MOUNTS_MAX).map(|n| mount(&format!("/m{n}"), "tmpfs", &[])).collect();
        assert!(plan(many, Path::new("/"), true, false).is_err());
    }
}
