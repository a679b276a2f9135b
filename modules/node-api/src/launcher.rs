//! The launcher: starts the process of a container, as a child of init, and forgets it; and executes
//! the commands of health checks.

use crate::method;
use serde::{Deserialize, Serialize};

/// Starts a container. Everything was decided and verified by the caller; the launcher measures
/// the metadata image again, mounts the root with `verity=require`, and executes by descriptor.
///
/// The process is handed to init ([`crate::init::Adopt`]) before it runs its first instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Id of the workload, `[a-z0-9-]{1,64}`; also the name of its cgroup.
    pub id: String,
    /// The verified root.
    pub root: Root,
    /// Program and arguments; the program is a path inside the root.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory inside the root.
    pub cwd: String,
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Host name inside the container.
    pub hostname: String,
    /// First host id of the 65,536 ids that the user namespace maps; disjoint for each container.
    pub id_base: u32,
    /// Writable mounts, all noexec, nosuid, nodev.
    pub mounts: Vec<Mount>,
    /// File of the network namespace to join; `None` gives an empty one.
    pub netns: Option<String>,
    /// Name servers for `/etc/resolv.conf`.
    pub dns: Vec<std::net::IpAddr>,
    /// Resource limits.
    pub limits: Limits,
}
method!(Start, "io.zeroos.launcher.Start", StartReply);

/// The verified root file system of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Metadata image, a file with fs-verity.
    pub image: String,
    /// The digest that the kernel must measure on `image`, hexadecimal.
    pub image_digest: String,
    /// Directory of the content objects.
    pub objects: String,
}

/// A writable mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the root; it must exist in the flist.
    pub path: String,
    /// What is mounted there.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// Memory, gone when the container ends.
    Tmpfs {
        /// Limit in bytes.
        size_bytes: u64,
    },
    /// A directory of a volume.
    Directory {
        /// Path on the node.
        path: String,
    },
    /// The root's own directory at that place, over which a directory of a volume takes what changes.
    Overlay {
        /// Path on the node. One container at a time has it.
        path: String,
    },
}

/// Resource limits, as cgroup v2 takes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU.
    pub cpu_milli: u32,
    /// `memory.max` in bytes.
    pub memory_bytes: u64,
    /// `pids.max`.
    pub pids_max: u32,
    /// `io.max`, by disk.
    pub disks: Vec<DiskLimit>,
}

/// Limits on one disk; what is `None` is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimit {
    /// `MAJOR:MINOR` of a whole disk.
    pub device: String,
    /// `rbps`.
    pub read_bytes_s: Option<u64>,
    /// `wbps`.
    pub write_bytes_s: Option<u64>,
    /// `riops`.
    pub read_ops_s: Option<u64>,
    /// `wiops`.
    pub write_ops_s: Option<u64>,
}

/// Answer to [`Start`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartReply {
    /// Process id in the root PID namespace.
    pub pid: i32,
    /// Digest that the kernel measured on the entry point, hexadecimal.
    pub entrypoint_digest: String,
}

/// Executes a command in a container that runs, behind the walls of its program, for its health check.
///
/// Answered when the command and everything that it has started have ended: at the latest
/// [`Check::TAKES_MAX`] after its own time. Of each container one is executed at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Id of the workload.
    pub id: String,
    /// Process id of the container's first process in the root PID namespace.
    pub pid: i32,
    /// Program and arguments; the program is a file of the container's root.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory inside the root.
    pub cwd: String,
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Seconds from its execution until it is killed.
    pub timeout_s: u32,
}
method!(Check, "io.zeroos.launcher.Check", CheckReply);

impl Check {
    /// Commands of all containers that are executed at once: each costs the node a process that waits.
    pub const AT_ONCE_MAX: usize = 128;
    /// What setting up and taking down may take together, beside the time of the command itself.
    pub const TAKES_MAX: std::time::Duration = std::time::Duration::from_secs(90);
}

/// Answer to [`Check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReply {
    /// How the command ended.
    pub end: CheckEnd,
    /// The end of what it wrote to its output, as it came: what is no UTF-8 is replaced.
    pub said: String,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckEnd {
    /// It returned this code.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// It was killed because its time was over.
    Late,
    /// It was not executed: what the one before has started was killed, and has not ended.
    Stuck,
}
