//! What runs on one node: the deployment document and its workloads.

mod disk;
mod health;
mod sink;

use crate::{
    capacity::Capacity,
    id::{ContractId, NodeId},
};
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};
pub use disk::DiskLimits;
pub use health::{Health, Probe};
use serde::{Deserialize, Serialize};
pub use sink::{Sink, SinkProtocol, Target};

/// Largest deployment document in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Workloads on one node of one contract.
pub const WORKLOADS_MAX: usize = 256;
/// Largest limit of processes: a container cannot use up those of the node.
pub const PIDS_MAX: u32 = 32_768;
/// Bytes of the path that an overlay is over: it names a directory of the volume, with three bytes for one.
pub const OVERLAY_PATH_MAX: usize = 80;
/// Smallest memory limit of a container in bytes.
pub const MEMORY_MIN: u64 = 4 << 20;

/// What one node has to do. Not signed by itself: it hashes into the header's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The contract that it belongs to.
    pub contract: ContractId,
    /// The version of the contract.
    pub version: u64,
    /// The node that it is for.
    pub node: NodeId,
    /// Sorted by name, unique.
    pub workloads: Vec<Workload>,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Unique in the document.
    pub name: String,
    /// What it is.
    pub spec: Spec,
    /// Names of workloads that must be up first.
    pub needs: Vec<String>,
}

/// The kinds of workload.
#[expect(clippy::large_enum_variant, reason = "most are containers, and documents are bounded")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Spec {
    /// Processes in a verified root.
    Container(Container),
    /// Storage that outlives the containers that use it.
    Volume(Volume),
}

/// Processes in a verified, read-only root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Name of an flist of the header.
    pub flist: String,
    /// Replaces the flist's program and arguments when not empty.
    pub command: Vec<String>,
    /// `NAME=value`; added to the flist's, replacing equal names.
    pub env: Vec<String>,
    /// Replaces the flist's working directory.
    pub cwd: Option<String>,
    /// `uid[:gid]`, numeric; replaces the flist's.
    pub user: Option<String>,
    /// CPU limit in thousandths of a logical core.
    pub cpu_milli: u32,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// Limit of processes and threads.
    pub pids_max: u32,
    /// Writable places; everything else is read-only.
    pub mounts: Vec<Mount>,
    /// Ports of the node that lead to the container.
    pub ports: Vec<Port>,
    /// How it is asked to end.
    pub stop: Stop,
    /// How the node finds out whether it works; without it, a container works while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<Health>>,
    /// Where its output is sent, line by line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Sink>,
    /// Where what it uses is sent, sample by sample.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stats: Vec<Sink>,
    /// Whether it is started again when it has ended.
    #[serde(default, skip_serializing_if = "Restart::is_always")]
    pub restart: Restart,
    /// Limits of its reading and writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimits>,
}

/// A writable place in a container. Nothing in it can be executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path; a directory of the flist.
    pub path: String,
    /// What is there.
    pub source: MountSource,
}

/// What a writable place is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MountSource {
    /// Memory of this many bytes, empty at every start.
    Tmpfs(u64),
    /// A volume of the same document, by name.
    Volume(String),
    /// The flist's own directory, with what the container changes in it kept on a volume of the same
    /// document, by name. Of one container, and for overlays only.
    Overlay(String),
}

/// A port of the node that leads to the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the node.
    pub host: u16,
    /// Port in the container.
    pub container: u16,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// How a container is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Signal number; 15 is SIGTERM.
    pub signal: u8,
    /// Seconds until it is killed.
    pub grace_s: u32,
}

/// Whether a container is started again when it has ended. One that is not, however it ended, is a job:
/// it runs for each version of its own words once, and what needs it waits until it has ended well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// For as long as its contract runs.
    #[default]
    Always,
    /// Until it has returned 0: at least once.
    OnFailure,
    /// However it ended: at most once.
    Never,
}

impl Restart {
    /// Whether it is what is so without a word, which is not written.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_always(&self) -> bool {
        *self == Self::Always
    }
}

/// Storage that outlives the containers that use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Quota in bytes.
    pub size_bytes: u64,
    /// Medium wanted.
    pub class: Medium,
}

/// Medium of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// Flash.
    Ssd,
    /// Rotating disk.
    Hdd,
}

impl Document {
    /// Rules that the types cannot hold; the error is a sentence.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.workloads.is_empty() || self.workloads.len() > WORKLOADS_MAX {
            return Err("a document has 1 to 256 workloads");
        }
        if !self.workloads.is_sorted_by(|a, b| a.name < b.name) {
            return Err("workloads are sorted by name and unique");
        }
        for workload in &self.workloads {
            check_label(&workload.name)?;
            if workload.needs.iter().any(|name| self.workload(name).is_none()) {
                return Err("needs names workloads of the same document");
            }
            if let Spec::Container(container) = &workload.spec {
                container.check()?;
                let known = |mount: &Mount| match &mount.source {
                    MountSource::Tmpfs(_) => true,
                    MountSource::Volume(name) | MountSource::Overlay(name) => self
                        .workload(name)
                        .is_some_and(|found| matches!(found.spec, Spec::Volume(_))),
                };
                if !container.mounts.iter().all(known) {
                    return Err("a mount names a volume of the same document");
                }
            }
        }
        if !self.overlays_are_alone() {
            return Err(
                "a volume of overlays belongs to one container, and is mounted in no other way",
            );
        }
        if self.start_order().is_none() {
            return Err("needs forms no circle");
        }
        let mut ports: Vec<_> = self
            .containers()
            .flat_map(|container| &container.ports)
            .map(|port| (matches!(port.protocol, Protocol::Udp), port.host))
            .collect();
        ports.sort_unstable();
        if ports.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a port of the node is published once");
        }
        Ok(())
    }

    /// The workload of this name.
    pub fn workload(&self, name: &str) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.name == name)
    }

    /// Every container.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.workloads.iter().filter_map(|workload| match &workload.spec {
            Spec::Container(container) => Some(container),
            Spec::Volume(_) => None,
        })
    }

    /// The kernel says nothing about two overlays that write to the same place at once, nor about one whose
    /// place others write to.
    fn overlays_are_alone(&self) -> bool {
        let mut users: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
        let mounts = self.workloads.iter().flat_map(|workload| {
            workload.mounts().iter().map(move |mount| (workload.name.as_str(), &mount.source))
        });
        for (container, source) in mounts {
            let (volume, is_overlay) = match source {
                MountSource::Tmpfs(_) => continue,
                MountSource::Volume(name) => (name, false),
                MountSource::Overlay(name) => (name, true),
            };
            let (first, overlays) = *users.entry(volume).or_insert((container, is_overlay));
            if overlays != is_overlay || (is_overlay && first != container) {
                return false;
            }
        }
        true
    }

    /// Workloads in an order in which everything follows what it needs; `None` for a circle.
    ///
    /// A container also needs the volumes that it mounts.
    pub fn start_order(&self) -> Option<Vec<&Workload>> {
        let mut waiting: Vec<&Workload> = self.workloads.iter().collect();
        let mut order: Vec<&Workload> = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let up = |name: &String| order.iter().any(|done| done.name == *name);
            let ready = waiting
                .iter()
                .position(|next| next.needs.iter().all(up) && next.volumes().all(up))?;
            order.push(waiting.remove(ready));
        }
        Some(order)
    }

    /// The capacity that the whole document takes.
    pub fn demand(&self) -> Capacity {
        self.workloads
            .iter()
            .map(Workload::demand)
            .fold(Capacity::default(), |sum, one| sum.plus(&one))
    }
}

impl Workload {
    fn mounts(&self) -> &[Mount] {
        match &self.spec {
            Spec::Container(container) => &container.mounts,
            Spec::Volume(_) => &[],
        }
    }

    fn volumes(&self) -> impl Iterator<Item = &String> {
        self.mounts().iter().filter_map(|mount| mount.source.volume())
    }

    /// The capacity that it takes.
    pub fn demand(&self) -> Capacity {
        match &self.spec {
            // A tmpfs is charged to the container's memory limit by the kernel.
            Spec::Container(container) => Capacity {
                cru_milli: u64::from(container.cpu_milli),
                mru_bytes: container.memory_bytes,
                ..Capacity::default()
            },
            Spec::Volume(Volume { size_bytes, class: Medium::Ssd }) => {
                Capacity { sru_bytes: *size_bytes, ..Capacity::default() }
            }
            Spec::Volume(Volume { size_bytes, class: Medium::Hdd }) => {
                Capacity { hru_bytes: *size_bytes, ..Capacity::default() }
            }
        }
    }
}

impl MountSource {
    /// The volume that it needs.
    pub fn volume(&self) -> Option<&String> {
        match self {
            Self::Tmpfs(_) => None,
            Self::Volume(name) | Self::Overlay(name) => Some(name),
        }
    }
}

impl Container {
    fn check(&self) -> Result<(), &'static str> {
        check_label(&self.flist)?;
        if self.pids_max > PIDS_MAX {
            return Err("a container has at most 32768 processes");
        }
        if self.cpu_milli == 0 || self.pids_max == 0 || self.memory_bytes < MEMORY_MIN {
            return Err(
                "a container has cpu_milli and pids_max above 0 and at least 4 MiB of memory",
            );
        }
        if self.command.len() > 256 || self.env.len() > 256 || self.mounts.len() > 64 {
            return Err("a container has at most 256 arguments, 256 variables and 64 mounts");
        }
        if self.ports.len() > 64
            || self.ports.iter().any(|port| port.host == 0 || port.container == 0)
        {
            return Err("a container has at most 64 ports, numbered from 1");
        }
        if self
            .command
            .iter()
            .chain(&self.env)
            .any(|text| text.len() > 32 * 1024 || text.contains('\0'))
        {
            return Err("arguments and variables have at most 32 KiB and no NUL");
        }
        if self.env.iter().any(|pair| pair.find('=').is_none_or(|at| at == 0)) {
            return Err("a variable is written NAME=value");
        }
        if !self.mounts.iter().map(|mount| &mount.path).chain(&self.cwd).all(|path| is_clean(path))
        {
            return Err("a path is absolute and has no empty, `.` or `..` part");
        }
        let overlay = |mount: &&Mount| matches!(mount.source, MountSource::Overlay(_));
        if self
            .mounts
            .iter()
            .filter(overlay)
            .any(|mount| mount.path == "/" || mount.path.len() > OVERLAY_PATH_MAX)
        {
            return Err("an overlay is over a directory below /, whose path has at most 80 bytes");
        }
        if !(1..=64).contains(&self.stop.signal) || self.stop.grace_s > 3600 {
            return Err("a stop has a signal from 1 to 64 and a grace of at most an hour");
        }
        sink::check(&self.logs)?;
        sink::check(&self.stats)?;
        self.disk.as_ref().map_or(Ok(()), DiskLimits::check)?;
        self.health.as_deref().map_or(Ok(()), Health::check)
    }
}

fn is_clean(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= 4096
        && !path.contains('\0')
        && (path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part)))
}

/// A name inside a contract: `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`.
pub(crate) fn check_label(name: &str) -> Result<(), &'static str> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=32).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
    {
        Ok(())
    } else {
        Err("a name has 1 to 32 of a-z, 0-9 and -, and neither starts nor ends with -")
    }
}

#[cfg(test)]
mod tests;
