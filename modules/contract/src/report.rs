//! What a node says of itself: results, chained, and signs of life.

use crate::{
    envelope::{Kind, Statement},
    id::{ContractId, FlistId, NodeId, StatementId},
    time::Timestamp,
};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// One thing that happened on a node, signed by the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The grid that it belongs to.
    pub network: String,
    /// Who says so.
    pub node: NodeId,
    /// The boot during which it happened, as the kernel names it.
    pub boot: String,
    /// Counts up without gaps over the life of the node.
    pub seq: u64,
    /// The node's former report.
    pub prev: Option<StatementId>,
    /// When, by the node's clock.
    pub at: Timestamp,
    /// The contract that it is about.
    pub contract: ContractId,
    /// Its version; 0 when none could be read.
    pub version: u64,
    /// The header, when one could be read.
    pub header: Option<StatementId>,
    /// The workload; `None` when it is about the contract as a whole.
    pub workload: Option<String>,
    /// What became of it.
    pub state: State,
    /// A stable word for the reason, for programs.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// What ran, when something did.
    pub ran: Option<Ran>,
}

/// What became of a contract or workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The verdict says that it may run.
    Accepted,
    /// The verdict says no, or not yet.
    Refused,
    /// Its processes run.
    Running,
    /// It ended or could not be started; it is tried again, unless the code says that it is not.
    Failed,
    /// Stopped, data kept.
    Stopped,
    /// Stopped, data deleted by signed order.
    Wiped,
    /// It has ended well, and is not started again.
    Done,
}

/// Proof of what ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ran {
    /// The flist.
    pub flist: FlistId,
    /// fs-verity digest that the kernel measured on the root's metadata image.
    pub image: FlistId,
    /// fs-verity digest of the program.
    pub entrypoint: FlistId,
    /// Files that were measured before the start.
    pub files: u64,
}

impl Statement for Report {
    const KIND: Kind = Kind::Result;
    const BYTES_MAX: usize = 32 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            _ if self.seq == 0 => Err("reports count from 1"),
            _ if (self.seq == 1) != self.prev.is_none() => {
                Err("the first report has no former one, every other has one")
            }
            _ if self.message.len() > 8192 => Err("a message has at most 8192 bytes"),
            _ => Ok(()),
        }
    }
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The grid that it belongs to.
    pub network: String,
    /// Who lives.
    pub node: NodeId,
    /// The boot, as the kernel names it.
    pub boot: String,
    /// Counts up from 1 in each boot.
    pub seq: u64,
    /// When, by the node's clock.
    pub at: Timestamp,
    /// Seconds since the kernel started.
    pub uptime_s: u64,
    /// Version of the image that it runs.
    pub image: String,
    /// Capacity that nothing has taken.
    pub free: crate::capacity::Capacity,
    /// Contracts and what became of them.
    pub contracts: Vec<Standing>,
}

/// What became of a contract, in one word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Which one.
    pub contract: ContractId,
    /// Its version in force on the node.
    pub version: u64,
    /// The word.
    pub state: State,
}

impl Statement for Heartbeat {
    const KIND: Kind = Kind::Heartbeat;
    const BYTES_MAX: usize = 128 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.seq == 0 { Err("heartbeats count from 1") } else { Ok(()) }
    }
}
