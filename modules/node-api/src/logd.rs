//! What containers say and what they use: sent where their contracts want it. Lines are kept on disk.

use crate::{init::Done, method};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sinks of one node. Each holds a connection, and with TLS some 50 KiB.
pub const SINKS_MAX: usize = 1024;

/// Replaces what is sent where. The answer names everything that is kept, so that the caller can say
/// what is not needed any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Send {
    /// Id of the node, as others know it.
    pub node: String,
    /// Every container that has a sink; not more than [`SINKS_MAX`] sinks, see [`cut`].
    pub sources: Vec<Source>,
    /// The node's end of the cable of every container that has one, by the container's id.
    pub links: BTreeMap<String, String>,
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
    /// Where its lines go: URLs, as `contract::workload::Sink` understands them.
    pub logs: Vec<String>,
    /// Where its statistics go.
    pub stats: Vec<String>,
}

/// Leaves as many sinks as a node has, and says how many it takes away. No container loses its first
/// sink, of lines or of statistics, for the second one of another; of those that stand equal, one of
/// lines stays before one of statistics, and the container that comes first before the others.
pub fn cut(sources: &mut [Source]) -> usize {
    let places = |(at, source): (usize, &Source)| {
        let logs = (0..source.logs.len()).map(move |rank| (rank, false, at));
        logs.chain((0..source.stats.len()).map(move |rank| (rank, true, at)))
    };
    let mut places: Vec<(usize, bool, usize)> =
        sources.iter().enumerate().flat_map(places).collect();
    places.sort_unstable();
    let too_many = places.get(SINKS_MAX..).unwrap_or_default();
    for (_, is_stats, at) in too_many {
        let source = &mut sources[*at];
        // Of one container, the last ones are those that are too many.
        drop(if *is_stats { source.stats.pop() } else { source.logs.pop() });
    }
    too_many.len()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest URLs that a contract may have, of which every byte is two in JSON.
    fn source(id: usize, (n_logs, n_stats): (usize, usize)) -> Source {
        let urls = |n: usize| (0..n).map(|n| format!("{n}{}", "\"".repeat(511))).collect();
        Source {
            id: format!("{id:064}"),
            contract: "c".repeat(64),
            workload: "w".repeat(64),
            logs: urls(n_logs),
            stats: urls(n_stats),
        }
    }

    fn counts(sources: &[Source]) -> Vec<(usize, usize)> {
        sources.iter().map(|source| (source.logs.len(), source.stats.len())).collect()
    }

    #[test]
    fn nobody_loses_a_first_sink_for_the_second_one_of_another() {
        let mut few = [(4, 4), (0, 0), (0, 2)].map(|counts| source(0, counts));
        assert_eq!((cut(&mut few), counts(&few)), (0, vec![(4, 4), (0, 0), (0, 2)]));
        let many = |last| (0..255).map(|id| source(id, (4, 0))).chain([source(255, last)]);
        let mut full: Vec<Source> = many((2, 2)).collect();
        assert_eq!(cut(&mut full), 0);
        // Of a new container with sinks of both kinds, the first ones stay; others pay with their fourth.
        let mut more: Vec<Source> = many((4, 4)).collect();
        assert_eq!(cut(&mut more), 4);
        assert_eq!(more[255].stats.len(), 3);
        assert_eq!(more[254].logs.len(), 3);
        let mut lines = vec![source(0, (SINKS_MAX, 0)), source(1, (3, 1))];
        assert_eq!(cut(&mut lines), 4);
        assert_eq!(counts(&lines), [(SINKS_MAX - 4, 0), (3, 1)]);
        let mut equal: Vec<Source> = (0..SINKS_MAX).map(|id| source(id, (1, 1))).collect();
        assert_eq!(cut(&mut equal), SINKS_MAX);
        assert!(counts(&equal).iter().all(|counts| *counts == (1, 0)));
    }

    /// A message that was too long was too long for ever: no sink of any contract changed any more.
    #[test]
    fn the_most_that_a_node_can_want_is_a_message() {
        // More containers than a node can attach.
        let all = 0..4096;
        let links = all.clone().map(|id| (format!("{id:064}"), "x".repeat(15))).collect();
        let sources = all.map(|id| source(id, (4, 4))).collect();
        let mut send = Send { node: "n".repeat(64), sources, links };
        let bytes = |send: &Send| serde_json::to_vec(send).unwrap().len();
        assert!(bytes(&send) > ipc::MESSAGE_MAX);
        cut(&mut send.sources);
        send.sources.retain(|source| !source.logs.is_empty() || !source.stats.is_empty());
        assert!(bytes(&send) < ipc::MESSAGE_MAX * 3 / 4, "{}", bytes(&send));
    }
}
