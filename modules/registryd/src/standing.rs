//! Where a contract stands: who still has to sign, what its nodes report, and one word for it all.
//!
//! ```text
//! proposed ──► agreed ──► deploying ──► running ◄──► degraded
//!    ├──► rejected                         │
//!    └──► lapsed                           ├──► expired
//!                                          └──► cancelled ──► wiped
//! ```

use crate::{bundle, db::Fault, documents::Planned, sql::Connection, store, views};
use contract::{
    Bundle, ContractId, IdentityId, NodeId, Signed, StatementId, Timestamp,
    decision::{Action, Approval, CANCEL_OPEN_S, Cancel, Decision},
    header::{Header, Stakeholder},
    identity::Signer,
    report::State,
    tally::{self, Question, Tally},
    verdict::{Case, rule},
};
use registry_api::view::{
    Awaited, CancelView, ContractState, ContractSummary, ContractView, Contracts, DeploymentView,
    FlistView, LIST_MAX, StakeholderView, VersionView, WorkloadView,
};
use std::collections::BTreeMap;

/// A contract that has been read from the database.
pub(crate) struct Facts {
    pub(crate) case: Case,
    approvals: Vec<Signed<Approval>>,
    signers: Vec<Signer>,
}

/// What one node has to do, and what it said.
struct OnNode {
    view: DeploymentView,
    planned: Vec<Planned>,
}

impl Facts {
    fn read(bundle: &Bundle) -> anyhow::Result<Self> {
        let case = Case::read(bundle).map_err(|refusal| anyhow::anyhow!(refusal.message))?;
        let approvals =
            bundle.approvals.iter().filter_map(|envelope| Signed::open(envelope).ok()).collect();
        let signers = bundle.identities.iter().filter_map(|envelope| {
            Signed::open(envelope).ok().as_ref().and_then(Signer::from_statement)
        });
        Ok(Self { signers: signers.collect(), approvals, case })
    }

    pub(crate) fn newest(&self) -> &Signed<Header> {
        &self.case.headers()[self.case.headers().len() - 1]
    }

    /// `None` also when a statement is missing without which nobody can judge.
    pub(crate) fn in_force(&self) -> Option<&Signed<Header>> {
        self.case.in_force().ok().flatten()
    }

    /// The version whose documents matter.
    fn shown(&self) -> &Signed<Header> {
        self.in_force().unwrap_or_else(|| self.newest())
    }

    /// What somebody who is awaited has decided so far.
    pub(crate) fn decided(&self, asked: &Awaited) -> Option<Decision> {
        let headers = self.case.headers();
        let judges = headers.iter().rev().take(2);
        let question = match asked.action {
            Action::Create | Action::Update => about(self.newest()),
            Action::Cancel => {
                let header = self.in_force()?;
                let orders = self.case.cancels(header);
                let (order, _) = orders.into_iter().find(|(order, _)| order.id == asked.subject)?;
                about_cancel(&header.body, order)
            }
        };
        let of = |header| {
            let question = Question { header, ..question };
            tally::decisions(&question, &self.approvals, &self.signers)
                .get(&asked.identity)
                .copied()
        };
        of(question.header).or_else(|| judges.map(|judge| &judge.body).find_map(of))
    }

    /// Whose decision is missing, under the rules of one header.
    fn awaited<'a>(&self, judge: &'a Header, about: &Question<'_>) -> Vec<&'a Stakeholder> {
        let question = Question { header: judge, ..*about };
        let made = tally::decisions(&question, &self.approvals, &self.signers);
        tally::awaited(rule(judge, about.action), &judge.stakeholders, &made)
    }
}

fn about(header: &Signed<Header>) -> Question<'_> {
    Question {
        header: &header.body,
        version: header.body.version,
        subject: header.id,
        action: if header.body.version == 1 { Action::Create } else { Action::Update },
        until: header.body.approve_by,
    }
}

fn about_cancel<'a>(header: &'a Header, cancel: &Signed<Cancel>) -> Question<'a> {
    Question {
        header,
        version: header.version,
        subject: cancel.id,
        action: Action::Cancel,
        until: cancel.body.issued.plus(CANCEL_OPEN_S),
    }
}

/// Everybody who can still make a difference, once for each thing to decide.
pub(crate) fn everybody_awaited(
    connection: &Connection,
    facts: &Facts,
    now: Timestamp,
) -> Result<Vec<Awaited>, Fault> {
    let mut missing: Vec<(&Stakeholder, Question<'_>)> = Vec::new();
    let headers = facts.case.headers();
    let newest = facts.newest();
    let tallies = facts.case.tallies(headers.len() - 1);
    let open = tallies.iter().any(|tally| matches!(tally, Tally::Open(_)))
        && !tallies.iter().any(|tally| matches!(tally, Tally::Rejected(_)));
    let question = about(newest);
    if open && now <= question.until && now < newest.body.expires {
        let before = headers.len().checked_sub(2).map(|index| &headers[index]);
        for judge in before.into_iter().chain([newest]) {
            missing.extend(
                facts.awaited(&judge.body, &question).into_iter().map(|one| (one, question)),
            );
        }
    }
    if let Some(header) = facts.in_force()
        && now < header.body.expires
        && facts.case.cancelled(header).is_none()
    {
        for (cancel, tally) in facts.case.cancels(header) {
            let question = about_cancel(&header.body, cancel);
            if matches!(tally, Tally::Open(_)) && now <= question.until {
                let holders = facts.awaited(&header.body, &question);
                missing.extend(holders.into_iter().map(|one| (one, question)));
            }
        }
    }
    let mut found: Vec<Awaited> = Vec::new();
    for (holder, question) in missing {
        let same =
            |one: &Awaited| (one.identity, one.subject) == (holder.identity, question.subject);
        if !found.iter().any(same) {
            found.push(Awaited {
                identity: holder.identity,
                name: views::name(connection, &holder.identity)?,
                role: holder.role,
                weight: holder.weight,
                version: question.version,
                action: question.action,
                subject: question.subject,
            });
        }
    }
    Ok(found)
}

/// The nodes of the version that matters, with their last results.
fn on_nodes(connection: &Connection, facts: &Facts, now: Timestamp) -> Result<Vec<OnNode>, Fault> {
    let header = facts.shown();
    let mut last = last_results(connection, header)?;
    let sql = "SELECT node, workloads FROM deployments WHERE header = ?1 ORDER BY place LIMIT ?2";
    let most = i64::try_from(LIST_MAX).unwrap_or(i64::MAX);
    let rows: Vec<([u8; 32], String)> = connection
        .query(sql, &[&header.id.0, &most], |row| Ok((store::hash(row, 0)?, row.get(1)?)))?;
    let mut found = Vec::with_capacity(rows.len());
    for (node, planned) in rows {
        let planned: Vec<Planned> = serde_json::from_str(&planned).map_err(anyhow::Error::new)?;
        let mut said = last.remove(&node).unwrap_or_default();
        let mut result = |workload: Option<&str>| {
            let id = said.remove(&workload.map(str::to_owned));
            id.map(|id| views::result(connection, &id)).transpose()
        };
        let whole = result(None)?;
        let mut workloads = Vec::with_capacity(planned.len());
        for one in &planned {
            workloads.push(WorkloadView { name: one.name.clone(), last: result(Some(&one.name))? });
        }
        let node = NodeId(node);
        let online = views::is_online(connection, &node, now)?;
        let view = DeploymentView { node, online, contract: whole, workloads };
        found.push(OnNode { view, planned });
    }
    Ok(found)
}

type LastOfNode = BTreeMap<Option<String>, StatementId>;

/// The last result of each node about each workload, and about the contract as a whole. Any node may
/// send results about any contract: only those of the nodes of this version are looked at.
fn last_results(
    connection: &Connection,
    header: &Signed<Header>,
) -> Result<BTreeMap<[u8; 32], LastOfNode>, Fault> {
    // A number of a node stands once, apart from conflicts.
    let sql = "SELECT results.node, results.workload, results.statement
               FROM (SELECT node, MAX(seq) AS seq FROM results
                     WHERE contract = ?1 AND conflict = 0
                         AND node IN (SELECT node FROM deployments WHERE header = ?2)
                     GROUP BY node, workload) AS newest
                   JOIN results ON results.node = newest.node AND results.seq = newest.seq
               WHERE results.conflict = 0";
    let rows = connection.query(sql, &[&header.body.contract.0, &header.id.0], |row| {
        Ok((store::hash(row, 0)?, row.get::<Option<String>>(1)?, store::hash(row, 2)?))
    })?;
    let mut found: BTreeMap<_, LastOfNode> = BTreeMap::new();
    for (node, workload, statement) in rows {
        found.entry(node).or_default().insert(workload, StatementId(statement));
    }
    Ok(found)
}

/// One word, and sentences that explain it.
fn state(facts: &Facts, nodes: &[OnNode], now: Timestamp) -> (ContractState, Vec<String>) {
    let Some(header) = facts.in_force() else { return before_agreement(facts, now) };
    if let Some(cancel) = facts.case.cancelled(header)
        && cancel.body.effective_at <= now
    {
        let wiped = |node: &OnNode| {
            node.view.contract.as_ref().is_some_and(|last| last.state == State::Wiped)
        };
        let all = !nodes.is_empty() && nodes.iter().all(wiped);
        let state = if all { ContractState::Wiped } else { ContractState::Cancelled };
        return (state, vec![cancel.body.reason.clone()]);
    }
    if header.body.expires <= now {
        return (ContractState::Expired, vec![format!("it ended at {}", header.body.expires)]);
    }
    if nodes.is_empty() {
        let text = format!("the documents of version {} are missing here", header.body.version);
        return (ContractState::Agreed, vec![text]);
    }
    at_work(header.body.version, nodes)
}

fn before_agreement(facts: &Facts, now: Timestamp) -> (ContractState, Vec<String>) {
    if let Err(refusal) = facts.case.in_force() {
        return (ContractState::Proposed, vec![refusal.message]);
    }
    let tallies = facts.case.tallies(0);
    let reasons = tallies.iter().filter_map(Tally::reason).collect();
    let state = if tallies.iter().any(|tally| matches!(tally, Tally::Rejected(_))) {
        ContractState::Rejected
    } else if facts.case.headers()[0].body.approve_by < now {
        ContractState::Lapsed
    } else {
        ContractState::Proposed
    };
    (state, reasons)
}

fn at_work(version: u64, nodes: &[OnNode]) -> (ContractState, Vec<String>) {
    let (mut running, mut wanted, mut heard) = (0_usize, 0_usize, false);
    let mut reasons = Vec::new();
    for node in nodes {
        let short = node.view.node.short();
        let whole = node.view.contract.as_ref();
        if let Some(last) = whole {
            heard = true;
            if matches!(last.state, State::Refused | State::Failed) {
                reasons.push(format!("node {short}: {} ({})", last.message, last.code));
            }
        }
        for (workload, planned) in node.view.workloads.iter().zip(&node.planned) {
            wanted += usize::from(planned.runs);
            let Some(last) = workload.last.as_ref().filter(|last| last.version == version) else {
                continue;
            };
            heard = true;
            match last.state {
                State::Running | State::Done => running += usize::from(planned.runs),
                State::Failed | State::Refused => reasons.push(format!(
                    "{} on node {short}: {} ({})",
                    workload.name, last.message, last.code
                )),
                State::Accepted | State::Stopped | State::Wiped => {}
            }
        }
    }
    let state = if !reasons.is_empty() {
        ContractState::Degraded
    } else if running == wanted && heard {
        ContractState::Running
    } else if heard {
        ContractState::Deploying
    } else {
        ContractState::Agreed
    };
    (state, reasons)
}

fn summarise(
    connection: &Connection,
    facts: &Facts,
    nodes: &[OnNode],
    now: Timestamp,
) -> Result<ContractSummary, Fault> {
    let shown = &facts.shown().body;
    let (state, reasons) = state(facts, nodes, now);
    Ok(ContractSummary {
        id: shown.contract,
        title: shown.title.clone(),
        owner: shown.owner,
        owner_name: views::name(connection, &shown.owner)?,
        state,
        reasons,
        version: facts.newest().body.version,
        in_force: facts.in_force().map(|header| header.body.version),
        awaited: everybody_awaited(connection, facts, now)?,
        nodes: shown.deployments.count,
        expires: shown.expires,
    })
}

pub(crate) fn read(connection: &Connection, id: &ContractId) -> Result<Option<Facts>, Fault> {
    let Some(bundle) = bundle::bundle(connection, id, None)? else { return Ok(None) };
    Ok(Some(Facts::read(&bundle)?))
}

/// Whether a contract runs, or may still run one day.
pub fn is_open(connection: &Connection, id: &ContractId, now: Timestamp) -> Result<bool, Fault> {
    let Some(facts) = read(connection, id)? else { return Ok(false) };
    match state(&facts, &[], now).0 {
        ContractState::Rejected
        | ContractState::Lapsed
        | ContractState::Expired
        | ContractState::Cancelled
        | ContractState::Wiped => Ok(false),
        ContractState::Proposed
        | ContractState::Agreed
        | ContractState::Deploying
        | ContractState::Running
        | ContractState::Degraded => Ok(true),
    }
}

/// A contract as it stands in a list. `None` when it is not known.
pub fn summary(
    connection: &Connection,
    id: &ContractId,
    now: Timestamp,
) -> Result<Option<ContractSummary>, Fault> {
    let Some(facts) = read(connection, id)? else { return Ok(None) };
    let nodes = on_nodes(connection, &facts, now)?;
    Ok(Some(summarise(connection, &facts, &nodes, now)?))
}

/// A contract with all that is known of it.
pub fn contract(
    connection: &Connection,
    id: &ContractId,
    now: Timestamp,
) -> Result<Option<ContractView>, Fault> {
    let Some(facts) = read(connection, id)? else { return Ok(None) };
    let nodes = on_nodes(connection, &facts, now)?;
    let summary = summarise(connection, &facts, &nodes, now)?;
    let mut versions = Vec::with_capacity(facts.case.headers().len());
    for (index, header) in facts.case.headers().iter().enumerate() {
        versions.push(version(connection, &facts, index, header)?);
    }
    let header = facts.shown();
    let cancels = facts.case.cancels(header).into_iter().map(|(cancel, tally)| CancelView {
        id: cancel.id,
        version: cancel.body.version,
        reason: cancel.body.reason.clone(),
        effective_at: cancel.body.effective_at,
        retention: cancel.body.retention,
        agreed: tally == Tally::Agreed,
        missing: tally.reason(),
    });
    Ok(Some(ContractView {
        summary,
        purpose: header.body.purpose.clone(),
        versions,
        cancels: cancels.collect(),
        deployments: nodes.into_iter().map(|node| node.view).collect(),
    }))
}

fn version(
    connection: &Connection,
    facts: &Facts,
    index: usize,
    header: &Signed<Header>,
) -> Result<VersionView, Fault> {
    let tallies = facts.case.tallies(index);
    let made: BTreeMap<IdentityId, Decision> = facts.case.decisions_on(index);
    let mut stakeholders = Vec::with_capacity(header.body.stakeholders.len());
    for holder in &header.body.stakeholders {
        stakeholders.push(StakeholderView {
            identity: holder.identity,
            name: views::name(connection, &holder.identity)?,
            role: holder.role,
            weight: holder.weight,
            decision: made.get(&holder.identity).copied(),
        });
    }
    let flist = |flist: &contract::header::Flist| FlistView {
        name: flist.name.clone(),
        digest: flist.digest,
        bytes: flist.bytes,
        publisher: flist.publisher.clone(),
    };
    let sql = "SELECT COUNT(*) FROM deployments WHERE header = ?1";
    Ok(VersionView {
        version: header.body.version,
        header: header.id,
        agreed: tallies.iter().all(|tally| *tally == Tally::Agreed),
        missing: tallies.iter().filter_map(Tally::reason).collect(),
        approve_by: header.body.approve_by,
        stakeholders,
        flists: header.body.flists.iter().map(flist).collect(),
        documents: store::count(connection, sql, &[&header.id.0])? > 0,
    })
}

/// Which contracts are wanted; all that are set must fit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Of this owner.
    pub owner: Option<IdentityId>,
    /// In this state.
    pub state: Option<ContractState>,
    /// Waiting for this stakeholder.
    pub signer: Option<IdentityId>,
    /// Only those after this one.
    pub after: Option<ContractId>,
}

/// Contracts after an id. Looks at no more than a list's length, so a filter may leave fewer.
pub fn contracts(
    connection: &Connection,
    filter: &Filter,
    now: Timestamp,
) -> Result<Contracts, Fault> {
    let sql = "SELECT id FROM contracts
               WHERE id > ?1 AND (?2 IS NULL OR owner = ?2)
               AND (?3 IS NULL
                    OR id IN (SELECT contract FROM stakeholders WHERE identity = ?3))
               ORDER BY id LIMIT ?4";
    let start = views::after(filter.after.map(|id| id.0));
    let (owner, signer) = (filter.owner.map(|id| id.0), filter.signer.map(|id| id.0));
    let most = i64::try_from(LIST_MAX).unwrap_or(i64::MAX);
    let ids = store::ids(connection, sql, &[&start, &owner, &signer, &most])?;
    let next = views::next(&ids);
    let mut contracts = Vec::new();
    for id in ids {
        let Some(summary) = summary(connection, &ContractId(id), now)? else { continue };
        let waits = |id| summary.awaited.iter().any(|one| one.identity == id);
        if filter.state.is_none_or(|state| state == summary.state)
            && filter.signer.is_none_or(waits)
        {
            contracts.push(summary);
        }
    }
    Ok(Contracts { contracts, next })
}
