//! Where a contract stands: decided here from verified statements, not taken from the registry.
//!
//! ```text
//! proposed → agreed → deploying → running ⇄ degraded → cancelled | expired → wiped
//!     └→ rejected | lapsed
//! ```

use crate::{
    customer::case,
    documents::{self, Documents},
    error::BotError,
    grid::Grid,
    people::People,
    results::{Told, verified},
    stakeholder::with_names,
};
use contract::{
    Bundle, ContractId, IdentityId, NodeId, Signed, StatementId, Timestamp,
    decision::{Decision, Retention},
    header::{Header, Role},
    report::State,
    tally::{Tally, awaited},
    verdict::Case,
    workload::Document,
};
use registry_api::view::ContractState;
use serde::Serialize;
use std::collections::BTreeSet;

/// Where a contract stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The contract.
    pub contract: ContractId,
    /// For people.
    pub title: String,
    /// Where it stands.
    pub state: ContractState,
    /// Why it stands there, as sentences.
    pub reasons: Vec<String>,
    /// Its newest version.
    pub version: u64,
    /// The header of the newest version: what stakeholders decide on.
    pub header: StatementId,
    /// The version that was agreed on, when there is one.
    pub in_force: Option<u64>,
    /// When everything stops.
    pub expires: Timestamp,
    /// Decisions on the newest version count until then.
    pub approve_by: Timestamp,
    /// The stakeholders of the newest version.
    pub stakeholders: Vec<Holder>,
    /// Orders to end the version in force.
    pub cancels: Vec<Order>,
    /// What nodes report, sorted by node.
    pub nodes: Vec<NodeStatus>,
}

/// A stakeholder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Who.
    pub identity: IdentityId,
    /// For people: a name and a short id.
    pub name: String,
    /// What they answer for.
    pub role: Role,
    /// What their approval weighs.
    pub weight: u32,
    /// What they decided, when they did.
    pub decision: Option<Decision>,
    /// Whether the decision still waits for them.
    pub awaited: bool,
}

/// An order to end the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Its statement.
    pub id: StatementId,
    /// For people.
    pub reason: String,
    /// When the workloads stop.
    pub effective_at: Timestamp,
    /// What becomes of the data.
    pub retention: Retention,
    /// Whether everybody agreed who must.
    pub agreed: bool,
    /// What is missing, as a sentence.
    pub missing: Option<String>,
}

/// A contract on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Whether signs of life come from it, as the registry says.
    pub online: bool,
    /// What it last reported of the contract as a whole.
    pub contract: Option<Told>,
    /// What it last reported of each workload, sorted by name.
    pub workloads: Vec<WorkloadStatus>,
    /// Reports that the registry attributes to it, and that it has not signed.
    pub unproven: usize,
}

/// A workload on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkloadStatus {
    /// Its name in the document.
    pub name: String,
    /// The last report, when there is one.
    pub last: Option<Told>,
}

/// Finds out where a contract stands.
pub async fn status(
    grid: &Grid,
    contract: &ContractId,
    people: &People,
    now: Timestamp,
) -> Result<Status, BotError> {
    let (bundle, case) = case(grid, contract).await?;
    let documents = documents::fetch(grid, contract, &bundle, case.headers()).await?;
    let nodes = nodes(grid, contract, &case, &documents).await?;
    judge(&bundle, &case, people, nodes, now)
        .map_err(|refusal| BotError::Refused { contract: *contract, refusal })
}

/// What each node reports, verified.
async fn nodes(
    grid: &Grid,
    contract: &ContractId,
    case: &Case,
    documents: &Documents,
) -> Result<Vec<NodeStatus>, BotError> {
    let asking = BotError::asking(format!("looking up the contract {}", contract.short()));
    let view = grid.client.contract(contract).await.map_err(asking)?;
    let shown = case.in_force().ok().flatten().unwrap_or(&case.headers()[case.headers().len() - 1]);
    let documents = documents.of(shown.body.version).unwrap_or_default();
    let known = documents.iter().map(|document| document.node);
    let ids: BTreeSet<_> = view.deployments.iter().map(|one| one.node).chain(known).collect();
    let mut found = Vec::with_capacity(ids.len());
    for node in ids {
        let told = view.deployments.iter().find(|one| one.node == node);
        let mut statements = Vec::new();
        if let Some(told) = told {
            statements.extend(told.contract.iter().map(|result| result.id));
            let lasts = told.workloads.iter().filter_map(|workload| workload.last.as_ref());
            statements.extend(lasts.map(|result| result.id));
        }
        let (reports, unproven) = verified(grid, &node, &statements).await?;
        let document = documents.iter().find(|document| document.node == node);
        let online = told.is_some_and(|told| told.online);
        found.push(node_status(node, online, document, &reports, unproven));
    }
    Ok(found)
}

fn node_status(
    node: NodeId,
    online: bool,
    document: Option<&Document>,
    reports: &[Told],
    unproven: usize,
) -> NodeStatus {
    let written = document.map(|document| document.workloads.as_slice()).unwrap_or_default();
    let names: BTreeSet<String> = written
        .iter()
        .map(|workload| workload.name.clone())
        .chain(reports.iter().filter_map(|told| told.workload.clone()))
        .collect();
    let last = |name: Option<&str>| {
        let about = reports.iter().filter(|told| told.workload.as_deref() == name);
        about.max_by_key(|told| told.seq).cloned()
    };
    let workloads =
        names.iter().map(|name| WorkloadStatus { name: name.clone(), last: last(Some(name)) });
    NodeStatus { node, online, contract: last(None), workloads: workloads.collect(), unproven }
}

/// Puts everything together. Pure.
fn judge(
    bundle: &Bundle,
    case: &Case,
    people: &People,
    nodes: Vec<NodeStatus>,
    now: Timestamp,
) -> Result<Status, contract::verdict::Refusal> {
    let people = with_names(people, bundle);
    let index = case.headers().len() - 1;
    let newest = &case.headers()[index];
    let in_force = case.in_force()?;
    let shown = in_force.unwrap_or(newest);
    let cancels: Vec<_> = in_force.map(|header| orders(case, header)).unwrap_or_default();
    let (state, reasons) = state(case, in_force, &nodes, now);
    let decided = case.decisions_on(index);
    let open = in_force.is_none_or(|header| header.id != newest.id);
    let rule = if newest.body.version == 1 {
        &newest.body.policy.create
    } else {
        &newest.body.policy.update
    };
    let waiting = awaited(rule, &newest.body.stakeholders, &decided);
    let holder = |holder: &contract::header::Stakeholder| Holder {
        identity: holder.identity,
        name: people.show(&holder.identity),
        role: holder.role,
        weight: holder.weight,
        decision: decided.get(&holder.identity).copied(),
        awaited: open && waiting.iter().any(|one| one.identity == holder.identity),
    };
    Ok(Status {
        contract: newest.body.contract,
        title: shown.body.title.clone(),
        state,
        reasons,
        version: newest.body.version,
        header: newest.id,
        in_force: in_force.map(|header| header.body.version),
        expires: shown.body.expires,
        approve_by: newest.body.approve_by,
        stakeholders: newest.body.stakeholders.iter().map(holder).collect(),
        cancels,
        nodes,
    })
}

fn orders(case: &Case, in_force: &Signed<Header>) -> Vec<Order> {
    let order = |(cancel, tally): (&Signed<contract::decision::Cancel>, Tally)| Order {
        id: cancel.id,
        reason: cancel.body.reason.clone(),
        effective_at: cancel.body.effective_at,
        retention: cancel.body.retention,
        agreed: tally == Tally::Agreed,
        missing: tally.reason(),
    };
    case.cancels(in_force).into_iter().map(order).collect()
}

/// Where it stands, and why.
fn state(
    case: &Case,
    in_force: Option<&Signed<Header>>,
    nodes: &[NodeStatus],
    now: Timestamp,
) -> (ContractState, Vec<String>) {
    let Some(header) = in_force else {
        let tallies = case.tallies(0);
        let reasons: Vec<_> = tallies.iter().filter_map(Tally::reason).collect();
        let approve_by = case.headers()[0].body.approve_by;
        return if tallies.iter().any(|tally| matches!(tally, Tally::Rejected(_))) {
            (ContractState::Rejected, reasons)
        } else if approve_by < now {
            let late = format!("the time for approvals ended at {approve_by}");
            (ContractState::Lapsed, [vec![late], reasons].concat())
        } else {
            (ContractState::Proposed, reasons)
        };
    };
    let wiped = !nodes.is_empty()
        && nodes
            .iter()
            .all(|node| node.contract.as_ref().is_some_and(|told| told.state == State::Wiped));
    if let Some(order) = case.cancelled(header) {
        if wiped {
            return (ContractState::Wiped, Vec::new());
        }
        if order.body.effective_at <= now {
            return (ContractState::Cancelled, vec![format!("order {}", order.id.short())]);
        }
    }
    if header.body.expires <= now {
        return (ContractState::Expired, vec![format!("it expired at {}", header.body.expires)]);
    }
    running(header.body.version, nodes)
}

/// What the nodes make of the version in force.
fn running(version: u64, nodes: &[NodeStatus]) -> (ContractState, Vec<String>) {
    let mut problems = Vec::new();
    let (mut told, mut up, mut total) = (0_usize, 0_usize, 0_usize);
    for node in nodes {
        let whole = node.contract.as_ref().filter(|report| report.version == version);
        let lasts = node.workloads.iter().map(|workload| {
            let last = workload.last.as_ref().filter(|report| report.version == version);
            (Some(&workload.name), last)
        });
        for (name, last) in lasts {
            total += 1;
            let Some(last) = last else { continue };
            told += 1;
            match last.state {
                State::Running | State::Done => up += 1,
                State::Failed | State::Refused => problems.push(format!(
                    "node {}: {}: {} ({})",
                    node.node.short(),
                    name.map_or("the contract", String::as_str),
                    last.message,
                    last.code
                )),
                State::Accepted | State::Stopped | State::Wiped => {}
            }
        }
        if let Some(whole) = whole {
            told += 1;
            let what = match whole.state {
                State::Refused => Some("refuses"),
                State::Failed => Some("failed"),
                State::Stopped | State::Wiped => Some("has stopped it"),
                State::Accepted | State::Running | State::Done => None,
            };
            if let Some(what) = what {
                let node = node.node.short();
                problems.push(format!("node {node} {what}: {} ({})", whole.message, whole.code));
            }
        }
    }
    let state = match () {
        () if told == 0 => ContractState::Agreed,
        () if !problems.is_empty() => ContractState::Degraded,
        () if total > 0 && up == total => ContractState::Running,
        () => ContractState::Deploying,
    };
    (state, problems)
}
