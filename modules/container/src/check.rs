//! The bounds of a [`Start`] and of a [`Check`]: what the launcher accepts from its caller.
//!
//! contractd builds requests with [`crate::plan`] and they pass; the launcher checks again, because
//! it is the last one before the kernel.

use contract::workload::OVERLAY_PATH_MAX;
use node_api::launcher::{Check, DiskLimit, Limits, Mount, MountSource, Start};
use std::collections::BTreeSet;
use thiserror::Error;

/// Ids that the user namespace of one container maps.
pub const IDS: u32 = 65_536;
/// Arguments of the program, and variables of its environment.
pub const STRINGS_MAX: usize = 2048;
/// Bytes of all arguments and variables together. The kernel takes a quarter of the stack limit.
pub const STRINGS_BYTES_MAX: usize = 1 << 20;
/// Writable mounts.
pub const MOUNTS_MAX: usize = 64;
/// Disks with limits: more than a container has mounts on.
pub const DISKS_MAX: usize = 128;
/// Name servers; the resolvers of C libraries read three.
pub const DNS_MAX: usize = 8;
/// Below this the kernel cannot even build the process.
pub const MEMORY_MIN: u64 = 4 << 20;
/// Seconds that the command of a health check may take: as in a contract.
const COMMAND_S_MAX: u32 = 60;
/// Bytes of a path, with the NUL (`PATH_MAX`).
const PATH_MAX: usize = 4096;
/// Directories that the launcher fills itself.
const RESERVED: [&str; 3] = ["/dev", "/proc", "/sys"];

/// A request that the launcher does not even try, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub String);

pub(crate) fn refuse<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(why.into()))
}

/// Checks everything that can be checked without the kernel. Returns the digest of the image.
pub fn check(start: &Start) -> Result<[u8; 32], Invalid> {
    check_id(&start.id)?;
    let mut digest = [0; 32];
    if hex::decode_to_slice(&start.root.image_digest, &mut digest).is_err() {
        return refuse("the digest of the image has 64 hexadecimal digits");
    }
    check_path("the image", &start.root.image)?;
    check_path("the directory of objects", &start.root.objects)?;
    // Both end up in an option string of the overlay, where these characters mean something.
    if start.root.objects.contains([':', ',', '\\']) {
        return refuse("the directory of objects has no colon, comma or backslash in its path");
    }
    check_strings(&start.command, &start.env)?;
    check_path("the working directory", &start.cwd)?;
    if start.uid >= IDS || start.gid >= IDS {
        return refuse(format!("user and group ids are below {IDS}"));
    }
    if start.id_base < IDS || start.id_base.checked_add(IDS - 1).is_none_or(|last| last == u32::MAX)
    {
        return refuse("the range of ids neither touches those of the node nor wraps around");
    }
    check_hostname(&start.hostname)?;
    check_mounts(&start.mounts)?;
    if let Some(netns) = &start.netns {
        check_path("the network namespace", netns)?;
    }
    if start.dns.len() > DNS_MAX {
        return refuse(format!("there are at most {DNS_MAX} name servers"));
    }
    check_limits(&start.limits)?;
    Ok(digest)
}

/// Checks a command that is to be executed in a container.
pub fn check_command(check: &Check) -> Result<(), Invalid> {
    check_id(&check.id)?;
    // Neither nobody nor init.
    if check.pid <= 1 {
        return refuse("the first process of a container has a number above 1");
    }
    check_strings(&check.command, &check.env)?;
    check_path("the working directory", &check.cwd)?;
    if check.uid >= IDS || check.gid >= IDS {
        return refuse(format!("user and group ids are below {IDS}"));
    }
    if !(1..=COMMAND_S_MAX).contains(&check.timeout_s) {
        return refuse(format!("a command has 1 to {COMMAND_S_MAX} seconds"));
    }
    Ok(())
}

/// An id of a workload: `[a-z0-9-]{1,64}`. It names a cgroup directory.
pub fn check_id(id: &str) -> Result<(), Invalid> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=64).contains(&id.len()) && id.bytes().all(good) {
        Ok(())
    } else {
        refuse("an id has 1 to 64 of a-z, 0-9 and -")
    }
}

/// An absolute path without empty parts, `.`, `..` and NUL; `/` itself is one.
pub fn check_path(what: &str, path: &str) -> Result<(), Invalid> {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let parts = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part));
    if path.len() < PATH_MAX && !path.contains('\0') && (path == "/" || parts) {
        Ok(())
    } else {
        refuse(format!("{what}: {path:?} is not absolute or has an empty, `.` or `..` part"))
    }
}

fn check_strings(command: &[String], env: &[String]) -> Result<(), Invalid> {
    if command.first().is_none_or(String::is_empty) {
        return refuse("a program is named");
    }
    if command.len() > STRINGS_MAX || env.len() > STRINGS_MAX {
        return refuse(format!("there are at most {STRINGS_MAX} arguments and as many variables"));
    }
    let bytes: usize = command.iter().chain(env).map(|string| string.len() + 1).sum();
    if bytes > STRINGS_BYTES_MAX {
        return refuse(format!("arguments and variables fit into {STRINGS_BYTES_MAX} bytes"));
    }
    if command.iter().chain(env).any(|string| string.contains('\0')) {
        return refuse("arguments and variables have no NUL");
    }
    if env.iter().any(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        return refuse("a variable is written NAME=value");
    }
    Ok(())
}

fn check_hostname(name: &str) -> Result<(), Invalid> {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'.';
    if (1..=63).contains(&name.len()) && name.bytes().all(good) && !name.starts_with(['-', '.']) {
        Ok(())
    } else {
        refuse("a host name has 1 to 63 letters, digits, dots and hyphens")
    }
}

fn check_mounts(mounts: &[Mount]) -> Result<(), Invalid> {
    if mounts.len() > MOUNTS_MAX {
        return refuse(format!("there are at most {MOUNTS_MAX} mounts"));
    }
    let mut seen = BTreeSet::new();
    let overlays: BTreeSet<&str> = mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Overlay { path } => Some(path.as_str()),
            MountSource::Tmpfs { .. } | MountSource::Directory { .. } => None,
        })
        .collect();
    for mount in mounts {
        check_path("a mount", &mount.path)?;
        let below = |top: &&str| {
            let rest = mount.path.strip_prefix(*top);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if mount.path == "/" || RESERVED.iter().any(below) {
            return refuse(format!("nothing is mounted on /, /dev, /proc or /sys: {}", mount.path));
        }
        if !seen.insert(&mount.path) {
            return refuse(format!("{} is mounted once", mount.path));
        }
        match &mount.source {
            MountSource::Tmpfs { size_bytes: 0 } => {
                return refuse(format!("the tmpfs on {} has a size", mount.path));
            }
            MountSource::Tmpfs { .. } => {}
            MountSource::Overlay { .. } if mount.path.len() > OVERLAY_PATH_MAX => {
                return refuse(format!(
                    "an overlay is over a directory whose path has at most {OVERLAY_PATH_MAX} bytes"
                ));
            }
            // The container could change the layers themselves.
            MountSource::Directory { path } if overlays.contains(path.as_str()) => {
                return refuse(format!("{path} holds overlays and is mounted only as such"));
            }
            MountSource::Directory { path } | MountSource::Overlay { path } => {
                check_path("the source of a mount", path)?;
                if path == "/" {
                    return refuse("the node itself is not mounted");
                }
            }
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), Invalid> {
    if limits.cpu_milli == 0 || limits.pids_max == 0 || limits.memory_bytes < MEMORY_MIN {
        return refuse("limits: cpu_milli and pids_max above 0, memory of at least 4 MiB");
    }
    if limits.disks.len() > DISKS_MAX {
        return refuse(format!("limits: at most {DISKS_MAX} disks"));
    }
    limits.disks.iter().try_for_each(check_disk)
}

/// Everything that ends up in a line of `io.max`.
fn check_disk(limit: &DiskLimit) -> Result<(), Invalid> {
    let DiskLimit { device, read_bytes_s, write_bytes_s, read_ops_s, write_ops_s } = limit;
    let is_number = |text: &str| text.parse().is_ok_and(|number: u32| number.to_string() == text);
    if !device.split_once(':').is_some_and(|(major, minor)| is_number(major) && is_number(minor)) {
        return refuse(format!("limits: {device:?} is not MAJOR:MINOR of a disk"));
    }
    let limits = [read_bytes_s, write_bytes_s, read_ops_s, write_ops_s];
    if limits.iter().all(|limit| limit.is_none()) || limits.contains(&&Some(0)) {
        return refuse(format!("limits: disk {device} has at least one, and none of 0"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use node_api::launcher::Root;

    fn disk(device: &str) -> DiskLimit {
        DiskLimit {
            device: device.to_owned(),
            read_bytes_s: Some(1 << 20),
            write_bytes_s: None,
            read_ops_s: None,
            write_ops_s: None,
        }
    }

    pub(crate) fn good() -> Start {
        Start {
            id: "c1-web".to_owned(),
            root: Root {
                image: "/store/images/ab.erofs".to_owned(),
                image_digest: "ab".repeat(32),
                objects: "/store/objects".to_owned(),
            },
            command: vec!["nginx".to_owned(), "-g".to_owned(), "daemon off;".to_owned()],
            env: vec!["PATH=/usr/bin".to_owned()],
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            hostname: "web".to_owned(),
            id_base: 131_072,
            mounts: vec![Mount {
                path: "/tmp".to_owned(),
                source: MountSource::Tmpfs { size_bytes: 1 << 20 },
            }],
            netns: None,
            dns: Vec::new(),
            limits: Limits {
                cpu_milli: 500,
                memory_bytes: 64 << 20,
                pids_max: 32,
                disks: vec![disk("254:0")],
            },
        }
    }

    #[test]
    fn a_good_request_passes_and_gives_its_digest() {
        assert_eq!(check(&good()), Ok([0xab; 32]));
    }

    #[test]
    fn overlays_share_a_volume_with_each_other() {
        let mut start = good();
        for path in ["/etc", "/var"] {
            let source = MountSource::Overlay { path: "/pools/v".to_owned() };
            start.mounts.push(Mount { path: path.to_owned(), source });
        }
        let source = MountSource::Directory { path: "/pools/w".to_owned() };
        start.mounts.push(Mount { path: "/data".to_owned(), source });
        assert!(check(&start).is_ok());
    }

    #[test]
    fn every_bound_is_kept() {
        type Change = fn(&mut Start);
        let bad: [(&str, Change); 42] = [
            ("empty id", |s| s.id.clear()),
            ("id leaves its directory", |s| s.id = "../x".to_owned()),
            ("id with a dot", |s| s.id = ".".to_owned()),
            ("long id", |s| s.id = "a".repeat(65)),
            ("short digest", |s| s.root.image_digest.truncate(62)),
            ("relative image", |s| s.root.image = "x".to_owned()),
            ("objects with option characters", |s| s.root.objects = "/a:/b".to_owned()),
            ("objects with a comma", |s| s.root.objects = "/a,upperdir=/b".to_owned()),
            ("no program", |s| s.command.clear()),
            ("empty program", |s| s.command[0].clear()),
            ("NUL in an argument", |s| s.command.push("a\0b".to_owned())),
            ("too many arguments", |s| s.command = vec!["a".to_owned(); STRINGS_MAX + 1]),
            ("too many bytes", |s| s.command.push("a".repeat(STRINGS_BYTES_MAX))),
            ("variable without a name", |s| s.env.push("=x".to_owned())),
            ("variable without a value", |s| s.env.push("x".to_owned())),
            ("relative cwd", |s| s.cwd = "tmp".to_owned()),
            ("cwd with dots", |s| s.cwd = "/tmp/../x".to_owned()),
            ("user outside the map", |s| s.uid = IDS),
            ("group outside the map", |s| s.gid = u32::MAX),
            ("ids of the node", |s| s.id_base = 0),
            ("some ids of the node", |s| s.id_base = IDS - 1),
            ("ids that wrap around", |s| s.id_base = u32::MAX - 100),
            ("the last id, which means none", |s| s.id_base = u32::MAX - IDS + 1),
            ("empty host name", |s| s.hostname.clear()),
            ("host name with a newline", |s| s.hostname = "a\nb".to_owned()),
            ("mount on /", |s| s.mounts[0].path = "/".to_owned()),
            ("mount below /proc", |s| s.mounts[0].path = "/proc/sys".to_owned()),
            ("mount on /dev", |s| s.mounts[0].path = "/dev".to_owned()),
            ("mount twice", |s| s.mounts.push(s.mounts[0].clone())),
            ("the whole node", |s| {
                s.mounts[0].source = MountSource::Directory { path: "/".to_owned() };
            }),
            ("the whole node under an overlay", |s| {
                s.mounts[0].source = MountSource::Overlay { path: "/".to_owned() };
            }),
            ("an overlay whose directory has too long a name", |s| {
                let path = format!("/{}", "a".repeat(OVERLAY_PATH_MAX));
                let source = MountSource::Overlay { path: "/pools/v".to_owned() };
                s.mounts.push(Mount { path, source });
            }),
            ("a volume of overlays that is seen as it is", |s| {
                let path = || "/pools/v".to_owned();
                let source = MountSource::Directory { path: path() };
                s.mounts.push(Mount { path: "/data".to_owned(), source });
                let source = MountSource::Overlay { path: path() };
                s.mounts.push(Mount { path: "/etc".to_owned(), source });
            }),
            ("no memory", |s| s.limits.memory_bytes = MEMORY_MIN - 1),
            ("no processes", |s| s.limits.pids_max = 0),
            ("a disk by its name", |s| s.limits.disks[0].device = "vda".to_owned()),
            ("half a disk", |s| s.limits.disks[0].device = "254:".to_owned()),
            ("a disk and more", |s| s.limits.disks[0].device = "254:0 rbps=1".to_owned()),
            ("another spelling", |s| s.limits.disks[0].device = "254:+0".to_owned()),
            ("no limit", |s| s.limits.disks[0].read_bytes_s = None),
            ("a limit of nothing", |s| s.limits.disks[0].write_ops_s = Some(0)),
            ("many disks", |s| s.limits.disks = vec![disk("254:0"); DISKS_MAX + 1]),
        ];
        for (what, change) in bad {
            let mut start = good();
            change(&mut start);
            assert!(check(&start).is_err(), "{what}");
        }
    }

    #[test]
    fn every_bound_of_a_command_is_kept() {
        type Change = fn(&mut Check);
        let good = Check {
            id: "c1-web".to_owned(),
            pid: 2,
            command: vec!["ready".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            timeout_s: 60,
        };
        assert_eq!(check_command(&good), Ok(()));
        let bad: [(&str, Change); 10] = [
            ("id leaves its directory", |c| c.id = "../x".to_owned()),
            ("init", |c| c.pid = 1),
            ("every process", |c| c.pid = -1),
            ("no program", |c| c.command.clear()),
            ("a NUL", |c| c.command.push("a\0b".to_owned())),
            ("no variable", |c| c.env.push("x".to_owned())),
            ("a relative directory", |c| c.cwd = "x".to_owned()),
            ("a user outside the map", |c| c.uid = IDS),
            ("no time", |c| c.timeout_s = 0),
            ("too much time", |c| c.timeout_s = 61),
        ];
        for (what, change) in bad {
            let mut check = good.clone();
            change(&mut check);
            assert!(check_command(&check).is_err(), "{what}");
        }
    }

    #[test]
    fn a_name_that_only_begins_like_a_reserved_one_is_free() {
        let mut start = good();
        start.mounts[0].path = "/devices".to_owned();
        assert!(check(&start).is_ok());
    }
}
