//! The mounts of a configuration: which file system or directory goes where, with which attributes.
//! Pure.
//!
//! No mount but `/dev` and its terminals has devices, whatever it asks for: that is what keeps the
//! rules for devices without a program in the kernel.

use super::config;
use crate::check::{Invalid, check_path, refuse};
use rustix::mount::MountAttrFlags;
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
    pub(crate) what: What,
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

/// Kinds of file systems by their names, with the options that they take.
const KINDS: [(&str, &CStr, &[&str]); 7] = [
    ("proc", c"proc", &["hidepid", "gid", "subset"]),
    ("sysfs", c"sysfs", &[]),
    ("tmpfs", c"tmpfs", &["mode", "size", "nr_inodes", "nr_blocks", "uid", "gid"]),
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
        planned.insert(0, Mount { target: c"dev".into(), attributes, what: What::Dev { options } });
    }
    Ok(planned)
}

fn one(mount: config::Mount, bundle: &Path) -> Result<Mount, Invalid> {
    let destination = mount.destination.trim_end_matches('/');
    if destination.is_empty() {
        return refuse("mounts: nothing is mounted on the root");
    }
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
    let mut attributes = options.attributes;
    if !is_dev && kind != "devpts" {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if is_bind {
        if let Some(unknown) = options.others.first() {
            return refuse(format!("mounts: {destination}: option {unknown} of a bind mount"));
        }
        let source = mount.source.unwrap_or_default();
        if is_dev || source.is_empty() || source.contains('\0') {
            return refuse(format!("mounts: {destination}: {source:?} cannot be mounted there"));
        }
        let source = bundle.join(source);
        let depth = options.depth.unwrap_or(Depth::One);
        return Ok(Mount { target, attributes, what: What::Bind { source, depth } });
    }
    let Some((_, kind, known)) = KINDS.iter().find(|(name, ..)| *name == kind) else {
        return refuse(format!("mounts: {destination}: no file system {kind:?} is mounted here"));
    };
    let mut taken = Vec::with_capacity(options.others.len());
    for option in options.others {
        // What a new instance always is.
        if option == "newinstance" && *kind == c"devpts" {
            continue;
        }
        let known = option.split_once('=').filter(|(key, _)| known.contains(key));
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
    Ok(Mount { target, attributes, what })
}

struct Options<'a> {
    attributes: MountAttrFlags,
    depth: Option<Depth>,
    others: Vec<&'a str>,
}

/// The later of two options that contradict each other wins, as with mount(8).
fn options(all: &[String]) -> Options<'_> {
    use MountAttrFlags as Flags;
    let mut attributes = Flags::empty();
    let mut depth = None;
    let mut others = Vec::new();
    for option in all {
        match option.as_str() {
            "ro" => attributes |= Flags::MOUNT_ATTR_RDONLY,
            "rw" => attributes -= Flags::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= Flags::MOUNT_ATTR_NOSUID,
            "suid" => attributes -= Flags::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= Flags::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= Flags::MOUNT_ATTR_NOEXEC,
            "exec" => attributes -= Flags::MOUNT_ATTR_NOEXEC,
            "noatime" => attributes |= Flags::MOUNT_ATTR_NOATIME,
            "strictatime" => attributes |= Flags::MOUNT_ATTR_STRICTATIME,
            "nodiratime" => attributes |= Flags::MOUNT_ATTR_NODIRATIME,
            "bind" => depth = Some(Depth::One),
            "rbind" => depth = Some(Depth::All),
            // What is so anyhow: the kernel's default, or ours.
            "dev" | "defaults" | "async" | "atime" | "diratime" | "relatime" | "nostrictatime"
            | "private" | "rprivate" | "notmpcopyup" => {}
            other => others.push(other),
        }
    }
    Options { attributes, depth, others }
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
    fn later_options_win() {
        let strings = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        let both = strings(&["ro", "rw", "nosuid", "exec", "noexec"]);
        let want = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        assert_eq!(options(&both).attributes, want);
    }

    #[test]
    fn what_is_not_known_or_opens_the_node_is_refused() {
        let good = planned(mount("/sys", "sysfs", &["nosuid", "ro"]));
        assert!(good.is_ok(), "the control: {good:?}");
        for (path, kind, options) in [
            ("/", "tmpfs", &[][..]),
            ("", "tmpfs", &[]),
            ("relative", "tmpfs", &[]),
            ("/a/../b", "tmpfs", &[]),
            ("/sys", "sysfs", &["nosuid"]),
            ("/disk", "ext4", &[]),
            ("/over", "overlay", &["lowerdir=/a"]),
            ("/tmp", "tmpfs", &["tmpcopyup"]),
            ("/tmp", "tmpfs", &["huge=always"]),
            ("/tmp", "tmpfs", &["size=1\0"]),
            ("/data", "bind", &["rbind", "rshared"]),
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
