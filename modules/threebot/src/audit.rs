//! Who agreed to what, and which bytes ran where and when: from [`Evidence`] alone. Pure.
//!
//! Statements prove who signed them; a policy for the transparency log, if there is one, proves that
//! they are in it. Nobody is asked and nobody is believed: what does not fit together is a [`Finding`].
//! Times are those that the signers wrote. What nobody delivers cannot be found missing, unless it left
//! a gap in a node's chain.

use crate::{
    documents::Documents,
    evidence::Evidence,
    log,
    people::People,
    results::{Told, open},
    stakeholder::with_names,
};
use contract::{
    ContractId, Envelope, FlistId, IdentityId, NodeId, Signed, StatementId, Timestamp,
    decision::{Approval, Decision},
    header::{Header, Role},
    node::{Node, node_id},
    report::{Ran, Report, State},
    tally::Tally,
    verdict::{Case, Refusal},
    workload::Spec,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the evidence shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The contract.
    pub contract: ContractId,
    /// For people.
    pub title: String,
    /// Its versions, from 1 up.
    pub versions: Vec<Version>,
    /// Orders to end a version.
    pub cancels: Vec<Order>,
    /// What ran, in the order of nodes and of their reports.
    pub runs: Vec<Run>,
    /// Statements that are proven to be in the log; `None` when no policy says in which.
    pub logged: Option<usize>,
    /// What does not fit together; empty when all of it does.
    pub findings: Vec<Finding>,
}

/// A version, and who decided what about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// From 1 up.
    pub version: u64,
    /// What was decided on.
    pub header: StatementId,
    /// Whether it and all before it were agreed on.
    pub agreed: bool,
    /// What is missing, as sentences.
    pub missing: Vec<String>,
    /// The decisions that stand, of those who were asked.
    pub decisions: Vec<Decided>,
}

/// A decision that its signer has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// Who.
    pub identity: IdentityId,
    /// For people.
    pub name: String,
    /// What they answer for.
    pub role: Role,
    /// What they decided.
    pub decision: Decision,
    /// When, as they say.
    pub issued: Timestamp,
    /// The statement.
    pub statement: StatementId,
    /// Its place in the log, from 0, as far as it is proven.
    pub entry: Option<u64>,
}

/// An order of the owner to end a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    /// The statement.
    pub statement: StatementId,
    /// Of which version.
    pub version: u64,
    /// When the workloads stop.
    pub effective_at: Timestamp,
    /// Whether everybody agreed who must.
    pub agreed: bool,
}

/// A workload that ran, as its node has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Where.
    pub node: NodeId,
    /// Which one.
    pub workload: String,
    /// Under which version.
    pub version: u64,
    /// When it was started, by the node's clock.
    pub from: Timestamp,
    /// When the node reported something else of it; `None` when it did not.
    pub until: Option<Timestamp>,
    /// Which bytes.
    pub ran: Ran,
    /// The report.
    pub statement: StatementId,
    /// Its place in the log, from 0, as far as it is proven.
    pub entry: Option<u64>,
}

/// Something that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// A stable word.
    pub code: Code,
    /// What it is about.
    pub statement: Option<StatementId>,
    /// A sentence.
    pub text: String,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A report that no node of the evidence has signed.
    Unsigned,
    /// A report that does not stand on its node's chain, or a second one in its place.
    Forked,
    /// A report from which the way along the chain is missing.
    Gap,
    /// Something ran that was not agreed on.
    NotAgreed,
    /// Something ran that is not what was agreed on.
    OtherBytes,
    /// Something started after the contract had expired.
    Expired,
    /// What was to be done on a node is missing, so that nothing can be held against it.
    NoDocument,
    /// A statement without a proof that it is in the log.
    NotLogged,
    /// A proof that does not hold.
    BadProof,
}

/// Holds the evidence against itself and, with a policy (c2sp.org/tlog-policy), against a log.
pub fn audit(
    evidence: &Evidence,
    policy: Option<&[u8]>,
    people: &People,
) -> Result<Audit, Refusal> {
    let case = Case::read(&evidence.bundle)?;
    let mut findings = Vec::new();
    let newest = &case.headers()[case.headers().len() - 1].body;
    let contract = newest.contract;
    let entries = policy.map(|policy| entries(evidence, &contract, policy, &mut findings));
    let known = entries.clone().unwrap_or_default();
    let people = with_names(people, &evidence.bundle);
    let in_force = case.in_force()?.map_or(0, |header| header.body.version);
    let versions = (0..case.headers().len())
        .map(|index| version(&case, evidence, index, in_force, &people, &known))
        .collect();
    let cancels = case.headers().iter().flat_map(|header| case.cancels(header));
    let cancels = cancels.map(|(cancel, tally)| Order {
        statement: cancel.id,
        version: cancel.body.version,
        effective_at: cancel.body.effective_at,
        agreed: tally == Tally::Agreed,
    });
    let cancels = cancels.collect();
    let runs = runs(&case, evidence, in_force, &known, &mut findings);
    findings.sort();
    Ok(Audit {
        contract,
        title: newest.title.clone(),
        versions,
        cancels,
        runs,
        logged: entries.map(|entries| entries.len()),
        findings,
    })
}

/// Where in the log the statements are that have to be there.
fn entries(
    evidence: &Evidence,
    contract: &ContractId,
    policy: &[u8],
    findings: &mut Vec<Finding>,
) -> BTreeMap<StatementId, u64> {
    let proofs: BTreeMap<_, _> =
        evidence.proofs.iter().map(|one| (one.statement, &one.proof)).collect();
    let mut entries = BTreeMap::new();
    for envelope in evidence.logged_for(contract) {
        let Ok(id) = envelope.id() else { continue };
        let kind = envelope.kind().map_or("unknown", contract::Kind::name);
        let (code, text) = match proofs.get(&id) {
            None => (Code::NotLogged, format!("no proof of this {kind} statement")),
            Some(proof) => match log::verify(&id, Some(envelope), proof.as_bytes(), policy) {
                Ok(logged) => {
                    entries.insert(id, logged.index);
                    continue;
                }
                Err(error) => (Code::BadProof, format!("{kind}: {}", crate::error::chain(&error))),
            },
        };
        findings.push(Finding { code, statement: Some(id), text });
    }
    entries
}

fn version(
    case: &Case,
    evidence: &Evidence,
    index: usize,
    in_force: u64,
    people: &People,
    entries: &BTreeMap<StatementId, u64>,
) -> Version {
    let header = &case.headers()[index];
    let standing = case.decisions_on(index);
    let decided = header.body.stakeholders.iter().filter_map(|holder| {
        let decision = *standing.get(&holder.identity)?;
        let (statement, issued) = decided(case, evidence, header, &holder.identity, decision)?;
        Some(Decided {
            identity: holder.identity,
            name: people.show(&holder.identity),
            role: holder.role,
            decision,
            issued,
            statement,
            entry: entries.get(&statement).copied(),
        })
    });
    Version {
        version: header.body.version,
        header: header.id,
        agreed: header.body.version <= in_force,
        missing: case.tallies(index).iter().filter_map(Tally::reason).collect(),
        decisions: decided.collect(),
    }
}

/// The statement by which somebody decided as it stands: the last of them.
fn decided(
    case: &Case,
    evidence: &Evidence,
    header: &Signed<Header>,
    who: &IdentityId,
    decision: Decision,
) -> Option<(StatementId, Timestamp)> {
    let signer = case.signer(who)?;
    let approvals = evidence.bundle.approvals.iter();
    approvals
        .filter_map(|envelope| Signed::<Approval>::open(envelope).ok())
        .filter(|one| one.body.subject == header.id && one.body.signer == *who)
        .filter(|one| one.body.decision == decision && one.body.issued <= header.body.approve_by)
        .filter(|one| signer.signed(one))
        .map(|one| (one.id, one.body.issued))
        .max_by_key(|(_, issued)| *issued)
}

/// What ran by the nodes' own reports, held against what was agreed on.
fn runs(
    case: &Case,
    evidence: &Evidence,
    in_force: u64,
    entries: &BTreeMap<StatementId, u64>,
    findings: &mut Vec<Finding>,
) -> Vec<Run> {
    let documents = Documents::of_all(case.headers(), &evidence.bundle.documents);
    let mut runs = Vec::new();
    for (node, reports) in told(evidence, findings) {
        let contract = case.headers()[0].body.contract;
        let about: Vec<_> = reports.iter().filter(|(one, _)| one.contract == contract).collect();
        for (at, (report, told)) in about.iter().enumerate() {
            let (Some(ran), State::Running) = (&told.ran, told.state) else { continue };
            let workload = told.workload.clone().unwrap_or_default();
            let of_it = |later: &&&(Report, Told)| {
                later.1.workload.is_none() && later.1.state != State::Accepted
                    || later.1.workload == told.workload
            };
            let until = about[at + 1..].iter().find(of_it).map(|later| later.1.at);
            let found = held(case, &documents, in_force, report, &workload, ran);
            findings.extend(found.map(|(code, text)| {
                let text = format!("node {node}: {workload}: {text}");
                Finding { code, statement: Some(told.id), text }
            }));
            runs.push(Run {
                node,
                workload,
                version: told.version,
                from: told.at,
                until,
                ran: ran.clone(),
                statement: told.id,
                entry: entries.get(&told.id).copied(),
            });
        }
    }
    runs
}

/// What is wrong with something that ran.
fn held(
    case: &Case,
    documents: &Documents,
    in_force: u64,
    report: &Report,
    workload: &str,
    ran: &Ran,
) -> Option<(Code, String)> {
    let version = report.version;
    let Some(header) = case.headers().iter().find(|one| one.body.version == version) else {
        return Some((Code::NotAgreed, format!("version {version} is not there")));
    };
    if report.header.is_some_and(|id| id != header.id) {
        return Some((Code::NotAgreed, format!("it ran by another version {version}")));
    }
    if version > in_force {
        return Some((Code::NotAgreed, format!("version {version} was not agreed on")));
    }
    if report.at > header.body.expires {
        return Some((Code::Expired, format!("it had expired at {}", header.body.expires)));
    }
    let Some(all) = documents.of(version) else {
        return Some((Code::NoDocument, format!("documents of version {version} are missing")));
    };
    match agreed_flist(header, all, &report.node, workload) {
        Some(flist) if flist == ran.flist => None,
        Some(flist) => {
            Some((Code::OtherBytes, format!("{} ran, {flist} was agreed on", ran.flist)))
        }
        None => Some((Code::NotAgreed, "no such container was agreed on for this node".to_owned())),
    }
}

fn agreed_flist(
    header: &Signed<Header>,
    documents: &[contract::workload::Document],
    node: &NodeId,
    workload: &str,
) -> Option<FlistId> {
    let document = documents.iter().find(|document| document.node == *node)?;
    let found = document.workloads.iter().find(|one| one.name == workload)?;
    let Spec::Container(container) = &found.spec else { return None };
    header.body.flists.iter().find(|flist| flist.name == container.flist).map(|flist| flist.digest)
}

/// The reports that stand on each node's chain, in its order.
fn told(evidence: &Evidence, findings: &mut Vec<Finding>) -> BTreeMap<NodeId, Vec<(Report, Told)>> {
    let nodes: Vec<Signed<Node>> = opened(&evidence.nodes);
    let keys: BTreeMap<NodeId, _> = nodes
        .iter()
        .filter(|node| node.signed_by(&node.body.key))
        .map(|node| (node_id(&node.body.key), &node.body.key))
        .collect();
    let mut by_node: BTreeMap<NodeId, BTreeMap<u64, (Report, Told)>> = BTreeMap::new();
    for report in opened::<Report>(&evidence.reports) {
        let node = report.body.node;
        let mut found = |code, text: &str| {
            let text = format!("node {node}: {text}");
            findings.push(Finding { code, statement: Some(report.id), text });
        };
        let Some(told) = keys.get(&node).and_then(|key| open(&report, &node, key)) else {
            found(Code::Unsigned, "the report is not signed by it");
            continue;
        };
        let chain = by_node.entry(node).or_default();
        match chain.get(&told.seq) {
            Some((_, other)) if other.id == told.id => {}
            Some(_) => found(Code::Forked, &format!("it has signed two reports {}", told.seq)),
            None => drop(chain.insert(told.seq, (report.body, told))),
        }
    }
    for (node, chain) in &by_node {
        for (seq, (report, told)) in chain.iter().skip(1) {
            let before = seq.checked_sub(1).and_then(|before| chain.get(&before));
            let (code, text) = match before {
                Some((_, before)) if report.prev == Some(before.id) => continue,
                Some(_) => (Code::Forked, "does not follow from the one before it"),
                None => (Code::Gap, "follows one that is not there"),
            };
            let text = format!("node {node}: report {seq} {text}");
            findings.push(Finding { code, statement: Some(told.id), text });
        }
    }
    by_node.into_iter().map(|(node, chain)| (node, chain.into_values().collect())).collect()
}

fn opened<T: contract::Statement>(envelopes: &[Envelope]) -> Vec<Signed<T>> {
    envelopes.iter().filter_map(|envelope| Signed::open(envelope).ok()).collect()
}
