//! What nodes say that they did, verified: signed by the node, and on one unbroken chain.

use crate::{
    error::BotError,
    grid::{Grid, is_missing, verify_node},
};
use contract::{
    ContractId, NodeId, PublicKey, Signed, StatementId, Timestamp,
    report::{Ran, Report, State},
};
use registry_api::{client::ResultFilter, view::ResultView};
use serde::Serialize;
use std::collections::BTreeMap;

/// Reports that are followed back from the newest one that is shown.
const CHAIN_MAX: usize = 512;
/// Pages of results that are read for one contract.
const PAGES_MAX: usize = 100;

/// A report that its node has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its statement.
    pub id: StatementId,
    /// Who says so.
    pub node: NodeId,
    /// The node's own count.
    pub seq: u64,
    /// When, by the node's clock.
    pub at: Timestamp,
    /// Version of the contract.
    pub version: u64,
    /// The workload; `None` when it is about the contract as a whole.
    pub workload: Option<String>,
    /// What became of it.
    pub state: State,
    /// A stable word for the reason.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// What ran, when something did.
    pub ran: Option<Ran>,
    /// Whether it stands on the chain of the node's newest report that is shown.
    pub chained: Chained,
}

/// Whether a report stands on the node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chained {
    /// It does.
    Yes,
    /// The registry does not deliver the whole way to it, or the way is too long.
    Unknown,
    /// The node's chain has something else at its place.
    No,
}

/// Opens a report, and makes sure that this node's key signed it.
pub(crate) fn open(report: &Signed<Report>, node: &NodeId, key: &PublicKey) -> Option<Told> {
    let body = &report.body;
    if body.node != *node || !report.signed_by(key) {
        return None;
    }
    Some(Told {
        id: report.id,
        node: *node,
        seq: body.seq,
        at: body.at,
        version: body.version,
        workload: body.workload.clone(),
        state: body.state,
        code: body.code.clone(),
        message: body.message.clone(),
        ran: body.ran.clone(),
        chained: Chained::Unknown,
    })
}

/// A link of the chain: number, predecessor.
type Links = BTreeMap<u64, StatementId>;

/// Marks the reports that stand at their place of the chain, and those that do not.
fn mark(told: &mut [Told], chain: &Links) {
    for one in told {
        one.chained = match chain.get(&one.seq) {
            Some(id) if *id == one.id => Chained::Yes,
            Some(_) => Chained::No,
            None => Chained::Unknown,
        };
    }
}

/// Fetches, verifies and chains reports of one node. Those that do not verify are left out, and
/// counted.
pub(crate) async fn verified(
    grid: &Grid,
    node: &NodeId,
    ids: &[StatementId],
) -> Result<(Vec<Told>, usize), BotError> {
    if ids.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let asking = BotError::asking(format!("looking up node {}", node.short()));
    let view = grid.client.node(node).await.map_err(asking)?;
    let key = verify_node(node, &view)?.body.key;
    let mut told = Vec::with_capacity(ids.len());
    for id in ids {
        let report = grid.statement::<Report>(id).await?;
        told.extend(open(&report, node, &key));
    }
    let unproven = ids.len() - told.len();
    let chain = follow(grid, node, &key, &told).await?;
    mark(&mut told, &chain);
    Ok((told, unproven))
}

/// The chain from the newest of these reports back to the oldest.
async fn follow(
    grid: &Grid,
    node: &NodeId,
    key: &PublicKey,
    told: &[Told],
) -> Result<Links, BotError> {
    let mut chain = Links::new();
    let Some(newest) = told.iter().max_by_key(|one| one.seq) else { return Ok(chain) };
    let oldest = told.iter().map(|one| one.seq).min().unwrap_or(newest.seq);
    let (mut id, mut seq) = (newest.id, newest.seq);
    while chain.len() < CHAIN_MAX {
        let report = match grid.statement::<Report>(&id).await {
            Ok(report) => report,
            Err(BotError::Registry { source, .. }) if is_missing(&source) => break,
            Err(error) => return Err(error),
        };
        // Somebody else's report, or one out of count, ends what can be said.
        if open(&report, node, key).is_none() || report.body.seq != seq {
            break;
        }
        chain.insert(seq, id);
        match report.body.prev {
            Some(prev) if seq > oldest => {
                id = prev;
                seq -= 1;
            }
            Some(_) | None => break,
        }
    }
    Ok(chain)
}

/// The reports about a contract that the registry has, in the order of arrival; also those that
/// contradict earlier ones.
pub(crate) async fn listed(
    grid: &Grid,
    contract: &ContractId,
) -> Result<Vec<ResultView>, BotError> {
    let mut found = Vec::new();
    let mut filter = ResultFilter { contract: Some(*contract), ..ResultFilter::default() };
    for _ in 0..PAGES_MAX {
        let asking = BotError::asking(format!("fetching results of {}", contract.short()));
        let page = grid.client.results(&filter).await.map_err(asking)?;
        if page.results.is_empty() {
            return Ok(found);
        }
        found.extend(page.results);
        filter.after = page.next;
    }
    let most = found.len();
    Err(BotError::Nothing(format!("there are more than {most} reports, more than are read")))
}

/// Every report about a contract, in the order of arrival, and how many did not verify.
pub async fn results(grid: &Grid, contract: &ContractId) -> Result<(Vec<Told>, usize), BotError> {
    let mut by_node: BTreeMap<NodeId, Vec<StatementId>> = BTreeMap::new();
    let mut order = listed(grid, contract).await?;
    order.retain(|view| !view.conflict);
    for view in &order {
        by_node.entry(view.node).or_default().push(view.id);
    }
    let (mut all, mut unproven) = (BTreeMap::new(), 0);
    for (node, ids) in by_node {
        let (told, without_proof) = verified(grid, &node, &ids).await?;
        unproven += without_proof;
        all.extend(told.into_iter().map(|one| (one.id, one)));
    }
    Ok((order.iter().filter_map(|view| all.remove(&view.id)).collect(), unproven))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Envelope, SigningKey, node::node_id};

    fn report(n: u64, prev: Option<StatementId>, key: &SigningKey) -> Signed<Report> {
        let body = Report {
            network: "test".into(),
            node: node_id(&key.public()),
            boot: "b".into(),
            seq: n,
            prev,
            at: Timestamp::from_seconds(1_800_000_000),
            contract: ContractId([1; 32]),
            version: 1,
            header: None,
            workload: Some("web".into()),
            state: State::Running,
            code: "started".into(),
            message: String::new(),
            ran: None,
        };
        Signed::open(&Envelope::seal(&body, &[key]).unwrap()).unwrap()
    }

    #[test]
    fn only_the_nodes_own_reports_are_told() {
        let (key, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let node = node_id(&key.public());
        let good = report(1, None, &key);
        assert_eq!(open(&good, &node, &key.public()).unwrap().state, State::Running);
        assert_eq!(open(&good, &node_id(&other.public()), &key.public()), None);
        assert_eq!(open(&good, &node, &other.public()), None);
    }

    #[test]
    fn a_report_beside_the_chain_is_marked() {
        let key = SigningKey::from_seed(&[1; 32]);
        let node = node_id(&key.public());
        let (first, other) =
            (report(1, None, &key), report(1, None, &SigningKey::from_seed(&[1; 32])));
        assert_eq!(first.id, other.id, "equal reports are one");
        let second = report(2, Some(first.id), &key);
        let forked = report(2, Some(second.id), &key);
        let mut told: Vec<_> = [&first, &second, &forked, &report(3, Some(second.id), &key)]
            .into_iter()
            .filter_map(|report| open(report, &node, &key.public()))
            .collect();
        let chain = [(1, first.id), (2, second.id)].into();
        mark(&mut told, &chain);
        let marks: Vec<_> = told.iter().map(|one| one.chained).collect();
        assert_eq!(marks, [Chained::Yes, Chained::Yes, Chained::No, Chained::Unknown]);
    }
}
