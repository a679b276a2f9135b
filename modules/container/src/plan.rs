//! From the words of a contract, the flist's run configuration and what other daemons made, to the
//! one request that the launcher needs. Pure.
//!
//! The rules are those of OCI images: the contract's command replaces that of the flist as a whole,
//! variables are merged by name with the contract's winning, working directory and user replace.

use crate::check::{self, Invalid};
use contract::workload::{Container, MountSource as Wanted};
use node_api::launcher::{Check, DiskLimit, Limits, Mount, MountSource, Root, Start};
use std::{collections::BTreeMap, net::IpAddr};
use thiserror::Error;

/// Where programs are looked for when neither flist nor contract says so.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Memory that the `/tmp` of a container may take when the contract has none; it counts towards the
/// memory limit.
pub const TMP_BYTES: u64 = 64 << 20;

/// How an flist wants to be run, as in an OCI image configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// Entry point followed by its arguments.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What other daemons made for this container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachments {
    /// Id of the workload on this node.
    pub id: String,
    /// The verified root.
    pub root: Root,
    /// First id of its range, see [`crate::ids`].
    pub id_base: u32,
    /// Directory of each volume, by its name in the document.
    pub volumes: BTreeMap<String, String>,
    /// `MAJOR:MINOR` of each disk that root and volumes lie on.
    pub disks: Vec<String>,
    /// Network namespace; `None` for a container without a network.
    pub netns: Option<String>,
    /// Name servers that the container reaches.
    pub dns: Vec<IpAddr>,
}

/// The words of contract and flist do not make a container.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Neither names a program.
    #[error("neither the contract nor the flist names a program")]
    NoProgram,
    /// Not `uid` or `uid:gid`.
    #[error("user {0:?} is not numeric; write uid or uid:gid, names are not looked up")]
    User(String),
    /// A mount of a volume that nobody made.
    #[error("there is no volume {0}")]
    NoVolume(String),
    /// A bound of the launcher.
    #[error("planning {id}")]
    Invalid {
        /// Id of the workload.
        id: String,
        /// Which.
        #[source]
        source: Invalid,
    },
}

/// Decides everything about one start. `name` is the workload's name in the document.
pub fn plan(
    name: &str,
    container: &Container,
    run: &Run,
    attachments: &Attachments,
) -> Result<Start, PlanError> {
    let command = if container.command.is_empty() { &run.command } else { &container.command };
    if command.is_empty() {
        return Err(PlanError::NoProgram);
    }
    let (uid, gid) = user(container, run)?;
    let start = Start {
        id: attachments.id.clone(),
        root: attachments.root.clone(),
        command: command.clone(),
        env: merge_env(&run.env, &container.env, name),
        cwd: cwd(container, run),
        uid,
        gid,
        hostname: name.to_owned(),
        id_base: attachments.id_base,
        mounts: mounts(container, &attachments.volumes)?,
        netns: attachments.netns.clone(),
        dns: attachments.dns.clone(),
        limits: Limits {
            cpu_milli: container.cpu_milli,
            memory_bytes: container.memory_bytes,
            pids_max: container.pids_max,
            disks: disks(container, &attachments.disks),
        },
    };
    match check::check(&start) {
        Ok(_digest) => Ok(start),
        Err(source) => Err(PlanError::Invalid { id: start.id, source }),
    }
}

/// Decides about the command of a health check in a container whose first process has this number: it
/// has the variables, the directory and the user of the container's own program.
pub fn check(
    name: &str,
    container: &Container,
    run: &Run,
    (id, pid): (&str, i32),
    (command, timeout_s): (&[String], u32),
) -> Result<Check, PlanError> {
    let (uid, gid) = user(container, run)?;
    let check = Check {
        id: id.to_owned(),
        pid,
        command: command.to_vec(),
        env: merge_env(&run.env, &container.env, name),
        cwd: cwd(container, run),
        uid,
        gid,
        timeout_s,
    };
    match check::check_command(&check) {
        Ok(()) => Ok(check),
        Err(source) => Err(PlanError::Invalid { id: check.id, source }),
    }
}

fn disks(container: &Container, devices: &[String]) -> Vec<DiskLimit> {
    let Some(limits) = &container.disk else { return Vec::new() };
    let limit = |device: &String| DiskLimit {
        device: device.clone(),
        read_bytes_s: limits.read_bytes_s,
        write_bytes_s: limits.write_bytes_s,
        read_ops_s: limits.read_ops_s,
        write_ops_s: limits.write_ops_s,
    };
    devices.iter().map(limit).collect()
}

fn user(container: &Container, run: &Run) -> Result<(u32, u32), PlanError> {
    match &container.user {
        Some(user) => parse_user(user).ok_or_else(|| PlanError::User(user.clone())),
        None => Ok((run.uid, run.gid)),
    }
}

fn cwd(container: &Container, run: &Run) -> String {
    let cwd = container.cwd.as_deref().unwrap_or(&run.cwd);
    if cwd.is_empty() { "/".to_owned() } else { cwd.to_owned() }
}

/// `uid` or `uid:gid`; without one the group is 0, as OCI has it for a user that is in no file.
fn parse_user(user: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.as_bytes() {
        [b'0'..=b'9', ..] => text.parse().ok(),
        _ => None,
    };
    match user.split_once(':') {
        Some((uid, gid)) => Some((number(uid)?, number(gid)?)),
        None => number(user).map(|uid| (uid, 0)),
    }
}

/// Variables of the flist in their order, replaced in place where the contract has the same name,
/// then the contract's own. `PATH` and `HOSTNAME` are always there.
fn merge_env(flist: &[String], contract: &[String], hostname: &str) -> Vec<String> {
    fn name(variable: &str) -> &str {
        variable.split_once('=').map_or(variable, |(name, _)| name)
    }
    let mut merged: Vec<String> = Vec::with_capacity(flist.len() + contract.len() + 2);
    for variable in flist.iter().chain(contract) {
        match merged.iter_mut().find(|have| name(have) == name(variable)) {
            Some(have) => have.clone_from(variable),
            None => merged.push(variable.clone()),
        }
    }
    for default in [PATH.to_owned(), format!("HOSTNAME={hostname}")] {
        if !merged.iter().any(|have| name(have) == name(&default)) {
            merged.push(default);
        }
    }
    merged
}

/// Outer mounts first, so that an inner one is not hidden. `/tmp` is always writable.
fn mounts(
    container: &Container,
    volumes: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, PlanError> {
    let mut mounts = Vec::with_capacity(container.mounts.len() + 1);
    for mount in &container.mounts {
        let path = |name: &String| {
            volumes.get(name).cloned().ok_or_else(|| PlanError::NoVolume(name.clone()))
        };
        let source = match &mount.source {
            Wanted::Tmpfs(size_bytes) => MountSource::Tmpfs { size_bytes: *size_bytes },
            Wanted::Volume(name) => MountSource::Directory { path: path(name)? },
            Wanted::Overlay(name) => MountSource::Overlay { path: path(name)? },
        };
        mounts.push(Mount { path: mount.path.clone(), source });
    }
    if !mounts.iter().any(|mount| mount.path == "/tmp") {
        let size_bytes = TMP_BYTES.min(container.memory_bytes);
        mounts.push(Mount { path: "/tmp".to_owned(), source: MountSource::Tmpfs { size_bytes } });
    }
    mounts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::workload::{self, DiskLimits, Restart, Stop};

    fn container() -> Container {
        Container {
            flist: "web".to_owned(),
            command: Vec::new(),
            env: Vec::new(),
            cwd: None,
            user: None,
            cpu_milli: 250,
            memory_bytes: 32 << 20,
            pids_max: 16,
            mounts: Vec::new(),
            ports: Vec::new(),
            stop: Stop { signal: 15, grace_s: 10 },
            health: None,
            logs: vec![],
            stats: vec![],
            restart: Restart::Always,
            disk: None,
        }
    }

    fn run() -> Run {
        Run {
            command: vec!["/bin/web".to_owned(), "--serve".to_owned()],
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            cwd: "/srv".to_owned(),
            uid: 101,
            gid: 102,
        }
    }

    fn attachments() -> Attachments {
        Attachments {
            id: "c-web".to_owned(),
            root: Root {
                image: "/store/images/x".to_owned(),
                image_digest: "00".repeat(32),
                objects: "/store/objects".to_owned(),
            },
            id_base: crate::ids::BASE_FIRST,
            volumes: BTreeMap::from([("data".to_owned(), "/pools/p/v".to_owned())]),
            disks: vec!["254:0".to_owned(), "254:16".to_owned()],
            netns: Some("/run/zos/netns/c-web".to_owned()),
            dns: Vec::new(),
        }
    }

    fn planned(container: &Container) -> Result<Start, PlanError> {
        plan("web", container, &run(), &attachments())
    }

    #[test]
    fn the_flist_decides_what_the_contract_leaves_open() {
        let start = planned(&container()).unwrap();
        assert_eq!(start.command, ["/bin/web", "--serve"]);
        assert_eq!((start.uid, start.gid, start.cwd.as_str()), (101, 102, "/srv"));
        assert_eq!(start.env, ["A=1", "B=2", PATH, "HOSTNAME=web"]);
        assert_eq!(start.hostname, "web");
        assert_eq!(start.limits.memory_bytes, 32 << 20);
    }

    #[test]
    fn limits_of_disks_hold_on_each_of_them() {
        assert_eq!(planned(&container()).unwrap().limits.disks, []);
        let disk = DiskLimits { write_bytes_s: Some(1 << 20), ..DiskLimits::default() };
        let start = planned(&Container { disk: Some(disk), ..container() }).unwrap();
        let seen: Vec<_> = start.limits.disks.iter().map(|one| &*one.device).collect();
        assert_eq!(seen, ["254:0", "254:16"]);
        let limit = &start.limits.disks[1];
        assert_eq!((limit.write_bytes_s, limit.read_bytes_s), (Some(1 << 20), None));
    }

    #[test]
    fn the_contract_replaces_command_cwd_and_user_and_merges_variables() {
        let start = planned(&Container {
            command: vec!["sh".to_owned()],
            env: vec!["B=3=4".to_owned(), "PATH=/x".to_owned(), "C=".to_owned()],
            cwd: Some("/".to_owned()),
            user: Some("7:8".to_owned()),
            ..container()
        })
        .unwrap();
        assert_eq!(start.command, ["sh"]);
        assert_eq!(start.env, ["A=1", "B=3=4", "PATH=/x", "C=", "HOSTNAME=web"]);
        assert_eq!((start.uid, start.gid, start.cwd.as_str()), (7, 8, "/"));
    }

    #[test]
    fn users_are_numbers_and_nothing_is_guessed() {
        let rows: [(&str, Option<(u32, u32)>); 10] = [
            ("0", Some((0, 0))),
            ("5", Some((5, 0))),
            ("5:6", Some((5, 6))),
            ("", None),
            ("nginx", None),
            ("+5", None),
            ("5:", None),
            (":5", None),
            ("5:6:7", None),
            ("4294967296", None),
        ];
        for (text, want) in rows {
            assert_eq!(parse_user(text), want, "{text:?}");
        }
        let named = Container { user: Some("nginx".to_owned()), ..container() };
        assert_eq!(planned(&named), Err(PlanError::User("nginx".to_owned())));
    }

    #[test]
    fn volumes_become_directories_outer_mounts_first_and_tmp_is_writable() {
        let mount = |path: &str, source| workload::Mount { path: path.to_owned(), source };
        let start = planned(&Container {
            mounts: vec![
                mount("/var/lib/x/deep", Wanted::Tmpfs(4096)),
                mount("/var/lib/x", Wanted::Volume("data".to_owned())),
            ],
            ..container()
        })
        .unwrap();
        let paths: Vec<_> = start.mounts.iter().map(|mount| mount.path.as_str()).collect();
        assert_eq!(paths, ["/tmp", "/var/lib/x", "/var/lib/x/deep"]);
        let volume = MountSource::Directory { path: "/pools/p/v".to_owned() };
        assert_eq!(start.mounts[1].source, volume);
        // The default /tmp does not pretend to be larger than all memory.
        assert_eq!(start.mounts[0].source, MountSource::Tmpfs { size_bytes: 32 << 20 });

        let overlay = |name: &str| Container {
            mounts: vec![mount("/etc", Wanted::Overlay(name.to_owned()))],
            ..container()
        };
        let changed = MountSource::Overlay { path: "/pools/p/v".to_owned() };
        assert_eq!(planned(&overlay("data")).unwrap().mounts[0].source, changed);
        assert_eq!(planned(&overlay("no")), Err(PlanError::NoVolume("no".to_owned())));

        let unknown =
            Container { mounts: vec![mount("/x", Wanted::Volume("no".to_owned()))], ..container() };
        assert_eq!(planned(&unknown), Err(PlanError::NoVolume("no".to_owned())));
    }

    #[test]
    fn a_container_without_a_program_or_outside_the_bounds_is_refused() {
        let empty = Run::default();
        let error = plan("web", &container(), &empty, &attachments());
        assert_eq!(error, Err(PlanError::NoProgram));
        let tiny = Container { memory_bytes: 1, ..container() };
        assert!(matches!(planned(&tiny), Err(PlanError::Invalid { .. })));
    }
}
