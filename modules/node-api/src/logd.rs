//! What containers say: kept on disk, and sent where their contracts want it.

use crate::{init::Done, method};
use serde::{Deserialize, Serialize};

/// Replaces what is sent where. The answer names everything that is kept, so that the caller can say
/// what is not needed any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Send {
    /// Id of the node, as others know it.
    pub node: String,
    /// Every container that has a sink.
    pub sources: Vec<Source>,
}
method!(Send, "io.zeroos.logd.Send", SendReply);

/// A container that has sinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Id of the workload.
    pub id: String,
    /// Id of its contract.
    pub contract: String,
    /// Its name in the contract.
    pub workload: String,
    /// URLs, as `contract::workload::Sink` understands them.
    pub logs: Vec<String>,
}

/// Answer to [`Send`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendReply {
    /// Ids of the workloads whose lines are on disk, sorted.
    pub kept: Vec<String>,
}

/// Deletes the lines of a workload. The caller holds a signed order; its id is recorded in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delete {
    /// Id of the workload; one that nothing is kept of is not an error.
    pub id: String,
    /// Statement id of the order.
    pub order: String,
}
method!(Delete, "io.zeroos.logd.Delete", Done);
