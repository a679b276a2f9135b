//! One contract over as many nodes as a pool can name: what one of them has to download and to check.

use crate::wire;
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Bundle, Envelope, NodeId, Past, StatementId, Timestamp, Trust, Verdict,
    farm::{POOL_NODES_MAX, Pool},
    header::{Deployments, Header},
    id::sha256,
    merkle,
    testkit::{NETWORK, World, bytes, seal},
    workload::Document,
};
use registry_api::paths;
use std::{fs, time::Duration};

/// Nodes of the contract.
pub(super) const NODES: usize = POOL_NODES_MAX;

pub(super) struct Wide {
    /// Pool, header and approvals, in the order in which they can be sent.
    pub(super) statements: Vec<Envelope>,
    /// All documents, as a request.
    pub(super) documents: Vec<u8>,
}

/// A contract of the world's owner on these nodes, and on strangers up to [`NODES`].
pub(super) fn contract(world: &World, nodes: &[NodeId]) -> Result<Wide> {
    let strangers = (nodes.len()..NODES).map(|n| NodeId(sha256(format!("other {n}").as_bytes())));
    let mut all: Vec<NodeId> = nodes.iter().copied().chain(strangers).collect();
    all.sort_unstable();
    let pool = Pool { nodes: all.clone(), serial: 2, ..world.pool() };
    let pool = seal(&pool, world.key("farm"));
    let template = world.document(1);
    let document = |node| bytes(&Document { node, ..template.clone() });
    let documents: Vec<_> = all.into_iter().map(document).collect();
    let leaves: Vec<_> = documents.iter().map(|document| merkle::leaf(document)).collect();
    let root = StatementId(merkle::root(&leaves));
    let header = Header {
        pool: pool.id()?,
        deployments: Deployments { count: documents.len() as u64, root },
        ..world.header(1, None)
    };
    let header = seal(&header, world.key("owner"));
    let approvals = ["it", "legal"].map(|name| world.approve(name, &header));
    let list: Vec<_> = documents.iter().map(|document| BASE64.encode(document)).collect();
    let path = paths::documents(&world.contract(), 1);
    Ok(Wide {
        statements: [pool, header].into_iter().chain(approvals).collect(),
        documents: wire::send("PUT", &path, &serde_json::to_vec(&list)?),
    })
}

/// Bytes of a bundle, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) all: usize,
    /// The farm's grant, which names every node.
    pub(super) pool: usize,
    /// Who the people are.
    pub(super) identities: usize,
    /// Header, approvals, the node's own document and its path.
    pub(super) own: usize,
    /// Of these, the path.
    pub(super) path: usize,
}

pub(super) fn weigh(body: &[u8]) -> Result<Weight> {
    let bundle = Bundle::read(body).context("reading a bundle")?;
    let size = |json: serde_json::Result<Vec<u8>>| json.map(|json| json.len());
    let deployment = bundle.documents.first().context("the bundle has no document")?;
    let own = [
        size(serde_json::to_vec(&bundle.headers))?,
        size(serde_json::to_vec(&bundle.approvals))?,
        size(serde_json::to_vec(&bundle.documents))?,
    ];
    Ok(Weight {
        all: body.len(),
        pool: size(serde_json::to_vec(&bundle.pools))?,
        identities: size(serde_json::to_vec(&bundle.identities))?,
        own: own.iter().sum(),
        path: size(serde_json::to_vec(&deployment.path))?,
    })
}

/// Processor time in which this thread reads and judges a bundle so many times, as this node, at
/// `now`. Fails when the node would not run it.
pub(super) fn judge(
    body: &[u8],
    world: &World,
    node: NodeId,
    now: Timestamp,
    times: usize,
) -> Result<Duration> {
    let trust = Trust {
        network: NETWORK.into(),
        farm: world.id("farm"),
        node,
        free: world.node(1).capacity,
        past: Past::default(),
    };
    let before = thread_time()?;
    for _ in 0..times {
        let bundle = Bundle::read(body).context("reading a bundle")?;
        let verdict = contract::verdict(&bundle, &trust, now);
        ensure!(matches!(verdict, Verdict::Run(_)), "it would not run: {verdict:?}");
    }
    Ok(thread_time()?.saturating_sub(before))
}

/// Processor time of this thread, in nanoseconds by its first word.
fn thread_time() -> Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(first.with_context(|| format!("{path} is not understood"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bundle_weighs_is_the_sum_of_its_parts_but_for_names() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let world = World::new(now);
        let body = serde_json::to_vec(&world.agreed()).unwrap();
        let weight = weigh(&body).unwrap();
        let Weight { all, pool, identities, own, path } = weight;
        assert_eq!(all, body.len());
        assert!(path > 0 && path < own);
        let names = all - pool - identities - own;
        assert!(names < 100, "{weight:?}");
        assert!(weigh(b"{}").is_err());
    }

    #[test]
    fn only_what_runs_is_measured() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let world = World::new(now);
        let body = serde_json::to_vec(&world.agreed()).unwrap();
        let judge = |node| judge(&body, &world, node, now.plus(20), 1);
        assert!(judge(world.node_id()).is_ok());
        assert!(judge(NodeId([1; 32])).is_err());
    }
}
