//! PID 1: the services, the processes of workloads, the console. Serves, never asks.

use crate::method;
use serde::{Deserialize, Serialize};

/// State of every service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {}
method!(Status, "io.zeroos.init.Status", StatusReply);

/// Answer to [`Status`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReply {
    /// In the order of the service table.
    pub services: Vec<Service>,
    /// Milliseconds from the start of PID 1 until every service was first ready.
    pub ready_after_ms: Option<u64>,
    /// The end of the previous boot's kernel log, when it ended in a panic.
    pub previous_panic: Option<String>,
}

/// One service, as the supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name in the service table.
    pub name: String,
    /// What it does now.
    pub state: ServiceState,
    /// Process id while it runs.
    pub pid: Option<i32>,
    /// How often it was started again since boot.
    pub restarts: u32,
    /// How it ended last, as a sentence.
    pub last_exit: Option<String>,
}

/// What a service does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// A service that it needs is not ready yet.
    Blocked,
    /// Runs, has not said that it is ready.
    Starting,
    /// Runs and serves.
    Ready,
    /// Ended; waits before it is started again.
    Waiting,
}

/// Takes over a new process of a workload: init reaps it and keeps its log.
///
/// Two file descriptors travel with the call: the pidfd, then the read end of the pipe that the
/// process writes stdout and stderr to. The process must be a child of init (`CLONE_PARENT`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopt {
    /// Id of the workload; refused while there is an entry with this id, also of an ended process: its end is
    /// forgotten ([`Forget`]) by whoever has seen it.
    pub id: String,
    /// Process id in the root PID namespace.
    pub pid: i32,
}
method!(Adopt, "io.zeroos.init.Adopt", Done);

/// Every adopted process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Workloads {}
method!(Workloads, "io.zeroos.init.Workloads", WorkloadsReply);

/// Answer to [`Workloads`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkloadsReply {
    /// Sorted by id.
    pub workloads: Vec<Workload>,
}

/// An adopted process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The id that it was adopted under.
    pub id: String,
    /// Process id in the root PID namespace.
    pub pid: i32,
    /// Whether it still runs.
    pub state: ProcessState,
}

/// Whether a process still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Not reaped.
    Running,
    /// Returned this code.
    Exited(i32),
    /// Ended by this signal.
    Killed(i32),
}

/// Sends a signal to the main process of a workload through its pidfd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signal {
    /// Id of the workload.
    pub id: String,
    /// Signal number.
    pub signal: i32,
}
method!(Signal, "io.zeroos.init.Signal", Done);

/// Kills every process in the workload's cgroup (`cgroup.kill`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kill {
    /// Id of the workload.
    pub id: String,
}
method!(Kill, "io.zeroos.init.Kill", Done);

/// Drops the entry of an ended workload, and removes its empty cgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Forget {
    /// Id of the workload.
    pub id: String,
}
method!(Forget, "io.zeroos.init.Forget", Done);

/// Log lines of a service or workload. Those of a workload stay after [`Forget`] while there is room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Log {
    /// Service name or workload id.
    pub name: String,
    /// The lines that follow this number; `None` for the newest.
    #[serde(default)]
    pub after: Option<u64>,
    /// At most this many lines.
    pub lines_max: u32,
}
method!(Log, "io.zeroos.init.Log", LogReply);

/// Answer to [`Log`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogReply {
    /// Numbers of another life mean other lines: they begin at 1 again.
    pub life: u64,
    /// Number of the newest line; 0 before the first.
    pub last: u64,
    /// Oldest first.
    pub lines: Vec<Line>,
    /// Numbers behind `after` whose lines the ring no longer holds.
    pub dropped: u64,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts from 1; every line has one, also those that were dropped.
    pub number: u64,
    /// When it was read, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many dropped lines it stands for: `number` is the last of theirs. 0 for a line that was
    /// written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_dropped: u64,
    /// Without its end of line.
    pub text: String,
}

impl Line {
    /// The first of its numbers.
    pub fn first(&self) -> u64 {
        self.number.saturating_sub(self.n_dropped.saturating_sub(1))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The logs of all workloads, also of those that have said nothing yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Logs {}
method!(Logs, "io.zeroos.init.Logs", LogsReply);

/// Answer to [`Logs`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogsReply {
    /// Sorted by id.
    pub logs: Vec<LogHead>,
}

/// How far one log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// Id of the workload.
    pub id: String,
    /// As in [`LogReply`].
    pub life: u64,
    /// Number of the newest line; 0 before the first.
    pub last: u64,
}

/// Replaces what the console shows for one section.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Publish {
    /// The section's title; sections are shown in the order of their first publication.
    pub section: String,
    /// Its lines.
    pub facts: Vec<Fact>,
}
method!(Publish, "io.zeroos.init.Publish", Done);

/// One line of the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is about, for example `disk vda`.
    pub label: String,
    /// What there is to say.
    pub text: String,
    /// How it is coloured.
    pub level: Level,
}

/// How much a fact matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Neither good nor bad.
    Plain,
    /// The farmer may want to act.
    Warning,
    /// The node cannot do its work.
    Bad,
}

/// Ends the machine's uptime: services and workloads are stopped in order, pools unmounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Power {
    /// What follows.
    pub action: PowerAction,
}
method!(Power, "io.zeroos.init.Power", Done);

/// What follows the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// The machine starts again.
    Reboot,
    /// The machine stays off.
    Off,
}

/// Answer of a call that has nothing to tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Done {}
