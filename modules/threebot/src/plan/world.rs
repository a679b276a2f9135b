//! Holds a plan against the grid as it is: would each node take it? The same rules as the node's,
//! applied before anybody signs.

use super::Plan;
use crate::source::units::{show_bytes, show_milli, show_seconds};
use contract::{Capacity, IdentityId, NodeId, Signed, Timestamp, farm::Pool, identity::Signer};
use std::collections::BTreeMap;

/// What is known of the grid.
#[derive(Debug, Default)]
pub struct World {
    /// The nodes that the plan names, as far as they are known.
    pub nodes: BTreeMap<NodeId, NodeFacts>,
    /// The pool that the plan names, when it was found.
    pub pool: Option<Signed<Pool>>,
    /// The farm that granted the pool, when it was found.
    pub farm: Option<Signer>,
    /// What the version in force takes on each node; an update gives it back first.
    pub taken: BTreeMap<NodeId, Capacity>,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The farm that it wants to belong to.
    pub farm: IdentityId,
    /// Whether that farm has consented.
    pub adopted: bool,
    /// Whether signs of life come.
    pub online: bool,
    /// What it has for workloads.
    pub capacity: Capacity,
    /// What nothing has taken, when it has said so.
    pub free: Option<Capacity>,
    /// Why it is not fully usable.
    pub degraded: Vec<String>,
}

/// Something that a person should know before signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the plan can work at all.
    pub severity: Severity,
    /// The node that it is about; `None` for the contract as a whole.
    pub node: Option<NodeId>,
    /// What it is, as a sentence.
    pub text: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A node would refuse.
    Refusal,
    /// It may go well, later or in part.
    Warning,
}

/// Everything that stands against the plan. Refusals first, then by node.
pub fn findings(plan: &Plan, world: &World, now: Timestamp) -> Vec<Finding> {
    let mut found = pool_findings(plan, world, now);
    for document in &plan.documents {
        let taken = world.taken.get(&document.node).copied().unwrap_or_default();
        let demand = document.demand();
        let node = world.nodes.get(&document.node);
        found.extend(
            node_findings(node, &demand, &taken, world.farm.as_ref())
                .into_iter()
                .map(|(severity, text)| Finding { severity, node: Some(document.node), text }),
        );
    }
    found.sort_by_key(|finding| (finding.severity, finding.node));
    found
}

/// Seconds from the start to the end of a contract: for so long the pool has to last.
pub fn lifetime_s(plan: &Plan) -> u64 {
    let header = &plan.header;
    u64::try_from(header.expires.seconds() - header.not_before.seconds()).unwrap_or(0)
}

/// The capacity that all documents take together.
pub fn demand(plan: &Plan) -> Capacity {
    let demands = plan.documents.iter().map(contract::workload::Document::demand);
    demands.fold(Capacity::default(), |sum, one| sum.plus(&one))
}

fn pool_findings(plan: &Plan, world: &World, now: Timestamp) -> Vec<Finding> {
    let refusal = |text: String| Finding { severity: Severity::Refusal, node: None, text };
    let header = &plan.header;
    let short = header.pool.short();
    let Some(pool) = &world.pool else {
        return vec![refusal(format!("the registry knows no pool {short}"))];
    };
    let mut found = Vec::new();
    match &world.farm {
        Some(farm) if farm.id == pool.body.farm && farm.signed(pool) => {}
        Some(_) | None => {
            found
                .push(refusal(format!("the pool {short} is not signed by the farm that it names")));
        }
    }
    if pool.body.network != header.network {
        found.push(refusal(format!("the pool belongs to the network {}", pool.body.network)));
    }
    if pool.body.owner != header.owner {
        let granted = pool.body.owner.short();
        found.push(refusal(format!("the pool was granted to {granted}, not to the owner")));
    }
    if pool.body.expires <= now {
        found.push(refusal(format!("the pool expired at {}", pool.body.expires)));
    } else if pool.body.expires < header.expires {
        let text = format!(
            "the pool expires at {}, before the contract: nodes stop the workloads then",
            pool.body.expires
        );
        found.push(Finding { severity: Severity::Warning, node: None, text });
    }
    for document in &plan.documents {
        if pool.body.nodes.binary_search(&document.node).is_err() {
            let text = "the pool does not name this node".to_owned();
            found.push(Finding { node: Some(document.node), ..refusal(text) });
        }
    }
    let (demand, seconds) = (demand(plan), lifetime_s(plan));
    if !pool.body.amounts.cover(&demand, seconds) {
        found.push(refusal(format!(
            "the pool does not cover the contract: {} CU and {} SU for {} are needed, which is {} \
             CU-hours and {} SU-hours; it grants {} and {}",
            show_milli(demand.cu_milli_used()),
            show_milli(demand.su_milli_used()),
            show_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)),
            hours(demand.cu_milli_used(), seconds),
            hours(demand.su_milli_used(), seconds),
            pool.body.amounts.cu_seconds / 3600,
            pool.body.amounts.su_seconds / 3600,
        )));
    }
    found
}

/// Unit-hours of thousandths of a unit over so many seconds, rounded up.
pub fn hours(milli: u64, seconds: u64) -> u128 {
    (u128::from(milli) * u128::from(seconds)).div_ceil(3_600_000)
}

fn node_findings(
    node: Option<&NodeFacts>,
    demand: &Capacity,
    taken: &Capacity,
    farm: Option<&Signer>,
) -> Vec<(Severity, String)> {
    let Some(node) = node else {
        return vec![(Severity::Refusal, "the registry knows no such node".to_owned())];
    };
    let mut found = Vec::new();
    if !node.adopted {
        found.push((Severity::Refusal, "its farm has not adopted it yet".to_owned()));
    }
    if farm.is_some_and(|farm| farm.id != node.farm) {
        found.push((Severity::Refusal, "the pool was not granted by its farm".to_owned()));
    }
    let free = node.free.unwrap_or(node.capacity).plus(taken);
    if !demand.fits(&free) {
        found.push((Severity::Refusal, shortage(demand, &free)));
    }
    if !node.online {
        found.push((Severity::Warning, "no signs of life come from it".to_owned()));
    }
    for reason in &node.degraded {
        found.push((Severity::Warning, format!("it is degraded: {reason}")));
    }
    found
}

/// What is too little, as a sentence.
fn shortage(demand: &Capacity, free: &Capacity) -> String {
    let cores = |milli| format!("{} cores", show_milli(milli));
    let parts = [
        ("CPU", demand.cru_milli, free.cru_milli, cores as fn(u64) -> String),
        ("memory", demand.mru_bytes, free.mru_bytes, show_bytes),
        ("flash", demand.sru_bytes, free.sru_bytes, show_bytes),
        ("rotating disk", demand.hru_bytes, free.hru_bytes, show_bytes),
    ];
    let short: Vec<_> = parts
        .iter()
        .filter(|(_, need, have, _)| need > have)
        .map(|(name, need, have, show)| {
            format!("{name}: {} needed, {} free", show(*need), show(*have))
        })
        .collect();
    format!("too little is free ({})", short.join("; "))
}
