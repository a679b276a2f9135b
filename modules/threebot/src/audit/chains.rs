//! Each node's reports, as far as the node has signed them, and whether they form one chain.

use super::{CLOCK_S, Code, Expected, Findings, opened};
use crate::evidence::Evidence;
use contract::{
    IdentityId, NodeId, Signed, StatementId, Timestamp,
    farm::{Adoption, Farm, Pool, consents},
    node::{Node, node_id},
    report::Report,
    verdict::Case,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A node, and how much of its chain is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeSpan {
    /// Which one.
    pub node: NodeId,
    /// To which farm it belongs.
    pub farm: IdentityId,
    /// How the farm calls itself, when its statement is there.
    pub farm_name: Option<String>,
    /// Number of the first report that is there; what was before is not known.
    pub first: u64,
    /// Number of the last; what comes after is not known.
    pub last: u64,
}

/// The reports of a node.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) node: NodeId,
    pub(super) farm: IdentityId,
    farm_name: Option<String>,
    /// In the order of their numbers; at least one.
    pub(super) links: Vec<Signed<Report>>,
}

impl Chain {
    pub(super) fn span(&self) -> NodeSpan {
        let seq = |link: Option<&Signed<Report>>| link.map_or(0, |link| link.body.seq);
        NodeSpan {
            node: self.node,
            farm: self.farm,
            farm_name: self.farm_name.clone(),
            first: seq(self.links.first()),
            last: seq(self.links.last()),
        }
    }

    fn check(&self, expected: &Expected<'_>, findings: &mut Findings) {
        let node = self.node;
        let mut by_seq: BTreeMap<u64, BTreeSet<StatementId>> = BTreeMap::new();
        for link in &self.links {
            by_seq.entry(link.body.seq).or_default().insert(link.id);
        }
        let first = self.links.first().map_or(0, |link| link.body.seq);
        if expected.from_first && first != 1 {
            let text = format!("node {node}: the reports before {first} are not there");
            findings.add(Code::Cut, None, text);
        }
        let mut latest: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for link in &self.links {
            let seq = link.body.seq;
            let before = latest.entry(&link.body.boot).or_insert(link.body.at);
            *before = link.body.at.max(*before);
            if link.body.at.plus(CLOCK_S) < *before {
                let text =
                    format!("node {node}: report {seq} is of {}, one before it", link.body.at);
                findings.add(Code::TimeBack, Some(link.id), format!("{text} of {before}"));
            }
            let mut found = |code, text: String| {
                findings.add(code, Some(link.id), format!("node {node}: {text}"));
            };
            if by_seq.get(&seq).is_some_and(|all| all.len() > 1) {
                found(Code::Forked, format!("it has signed more than one report {seq}"));
            }
            let before = seq.checked_sub(1).and_then(|before| by_seq.get(&before));
            let (code, text) = match (before, link.body.prev) {
                (Some(before), Some(prev)) if before.contains(&prev) => continue,
                (Some(_), _) => (Code::Forked, "does not follow from the one before it"),
                (None, _) if seq == first => continue,
                (None, _) => (Code::Gap, "follows one that is not there"),
            };
            found(code, format!("report {seq} {text}"));
        }
    }
}

/// The chains of the nodes of the contract that have reported, and who else has.
pub(super) fn chains(
    evidence: &Evidence,
    case: &Case,
    expected: &Expected<'_>,
    named: &BTreeSet<NodeId>,
    findings: &mut Findings,
) -> (Vec<Chain>, Vec<NodeId>) {
    let nodes = nodes(evidence, expected, named, findings);
    let farms = Farms {
        statements: opened(&evidence.farms).collect(),
        adoptions: opened(&evidence.adoptions).collect(),
        pools: opened(&evidence.pools).collect(),
    };
    let mut strangers = BTreeSet::new();
    let mut by_node: BTreeMap<NodeId, BTreeMap<(u64, StatementId), Signed<Report>>> =
        BTreeMap::new();
    for report in opened::<Report>(&evidence.reports) {
        let id = report.body.node;
        if !named.contains(&id) {
            strangers.insert(id);
            continue;
        }
        let node = nodes.get(&id).filter(|node| report.signed_by(&node.body.key));
        if report.body.network != expected.network {
            let text = format!("a report of the network {:?}", report.body.network);
            findings.add(Code::WrongNetwork, Some(report.id), text);
        } else if node.is_none() {
            let text = format!("node {id}: the report is not signed by it");
            findings.add(Code::Unsigned, Some(report.id), text);
        } else {
            by_node.entry(id).or_default().insert((report.body.seq, report.id), report);
        }
    }
    let chain = |(id, links): (NodeId, BTreeMap<_, _>)| {
        let node = nodes.get(&id)?;
        let farm = node.body.farm;
        if !farms.consent(case, node) {
            let text = format!("node {id}: the farm {farm} is not shown to have adopted it");
            findings.add(Code::NotAdopted, Some(node.id), text);
        }
        let chain = Chain {
            node: id,
            farm,
            farm_name: farms.name(case, &farm),
            links: links.into_values().collect(),
        };
        chain.check(expected, findings);
        Some(chain)
    };
    (by_node.into_iter().filter_map(chain).collect(), strangers.into_iter().collect())
}

/// The newest statement of each node of the contract that the node itself has signed.
fn nodes(
    evidence: &Evidence,
    expected: &Expected<'_>,
    named: &BTreeSet<NodeId>,
    findings: &mut Findings,
) -> BTreeMap<NodeId, Signed<Node>> {
    let mut nodes: BTreeMap<NodeId, Signed<Node>> = BTreeMap::new();
    for node in opened::<Node>(&evidence.nodes) {
        let id = node_id(&node.body.key);
        if !named.contains(&id) {
            continue;
        }
        if node.body.network != expected.network {
            let text = format!("node {id}: it is of the network {:?}", node.body.network);
            findings.add(Code::WrongNetwork, Some(node.id), text);
        } else if !node.signed_by(&node.body.key) {
            let text = format!("node {id}: it has not signed its statement");
            findings.add(Code::Unsigned, Some(node.id), text);
        } else if nodes.get(&id).is_none_or(|other| other.body.version < node.body.version) {
            nodes.insert(id, node);
        }
    }
    nodes
}

struct Farms {
    statements: Vec<Signed<Farm>>,
    adoptions: Vec<Signed<Adoption>>,
    pools: Vec<Signed<Pool>>,
}

impl Farms {
    /// Whether the farm that a node names has adopted it, or has granted it to somebody. A farm drops the
    /// tokens that have adopted its nodes, and its grants stand.
    fn consent(&self, case: &Case, node: &Signed<Node>) -> bool {
        let Some(owner) = case.signer(&node.body.farm) else { return false };
        let id = node_id(&node.body.key);
        let mut pools = self.pools.iter().filter(|pool| pool.body.farm == owner.id);
        if pools.any(|pool| pool.body.nodes.binary_search(&id).is_ok() && owner.signed(pool)) {
            return true;
        }
        let mut adoptions = self.adoptions.iter().filter(|one| one.body.node == id);
        adoptions.any(|adoption| {
            let mut farms = self.statements.iter().filter(|farm| farm.body.farm == owner.id);
            farms.any(|farm| consents(owner, farm, adoption))
        })
    }

    fn name(&self, case: &Case, id: &IdentityId) -> Option<String> {
        let owner = case.signer(id)?;
        let mut farms = self.statements.iter().filter(|farm| farm.body.farm == *id);
        farms.find(|farm| owner.signed(farm)).map(|farm| farm.body.name.clone())
    }
}
