//! Who agreed to what, and which bytes ran where and when: from [`Evidence`] alone. Pure.
//!
//! Each run is judged by the rule that nodes use, with what was signed, and with a policy for the
//! transparency log also logged, before the node reported it: [`court`]. Nobody is asked and nobody is
//! believed: what does not fit together is a [`Finding`]. Times are those that the signers wrote. What
//! nobody delivers cannot be found missing, unless it left a gap in a node's chain.

mod chains;
mod court;
mod log;
mod runs;
mod shown;

pub use chains::NodeSpan;
pub use court::CLOCK_S;
pub use log::Log;
pub use runs::STOP_S;

use crate::{
    evidence::{Evidence, REPORTS_MAX, named},
    people::People,
    stakeholder::with_names,
};
use contract::{
    Bundle, ContractId, Envelope, IdentityId, NodeId, Signed, Statement, StatementId, Timestamp,
    bundle::STATEMENTS_MAX,
    decision::{Approval, Cancel, Decision},
    farm::{Adoption, Farm, Pool},
    header::Role,
    identity::Identity,
    node::Node,
    report::{Ran, Report, State},
    strict,
    verdict::{Case, Refusal},
    workload::{DOCUMENT_BYTES_MAX, Document},
};
use serde::Serialize;
use shown::Shown;
use std::collections::{BTreeMap, BTreeSet};
use tlog::Policy;

/// Where in the log statements are, from 0, as far as it is proven.
type Entries = BTreeMap<StatementId, u64>;

/// What the auditor asks about. Evidence about anything else is refused.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The contract.
    pub contract: ContractId,
    /// The grid.
    pub network: &'a str,
    /// Whether each node's reports have to be there from its first one.
    pub from_first: bool,
}

/// Why evidence is not looked into.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It breaks a rule, as a node would find.
    #[error("it breaks rule {}: {}", .0.code.rule(), .0.message)]
    Case(Refusal),
    /// It is about another contract.
    #[error("it is about the contract {0}")]
    OtherContract(ContractId),
    /// It belongs to another grid.
    #[error("it belongs to the network {0:?}")]
    OtherNetwork(String),
    /// It would take too long.
    #[error("it holds more than {most} {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The bound.
        most: usize,
    },
}

impl Refused {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Case(refusal) => refusal.code.name(),
            Self::OtherContract(_) => "other_contract",
            Self::OtherNetwork(_) => "wrong_network",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// What the evidence shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The contract.
    pub contract: ContractId,
    /// The grid.
    pub network: String,
    /// Whose it is.
    pub owner: IdentityId,
    /// For people.
    pub owner_name: String,
    /// For people.
    pub title: String,
    /// Its versions, from 1 up.
    pub versions: Vec<Version>,
    /// Orders to end a version.
    pub cancels: Vec<Order>,
    /// Who has reported, and how much of it is there.
    pub nodes: Vec<NodeSpan>,
    /// Who has reported, and is named by no version: what it says is not looked into.
    pub strangers: Vec<NodeId>,
    /// What ran, in the order of nodes and of their reports.
    pub runs: Vec<Run>,
    /// What the proofs show; `None` when no policy says of which log.
    pub log: Option<Log>,
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
    /// What it takes, as sentences: the rule of each version whose stakeholders are asked.
    pub rules: Vec<String>,
    /// Whether it and all before it are agreed on, by all that is in the evidence.
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
    /// What it takes, as a sentence.
    pub rule: String,
    /// Whether everybody agrees who must.
    pub agreed: bool,
    /// Whether a later version is agreed on, which takes the order back.
    pub replaced: bool,
    /// The decisions that stand, of those who were asked.
    pub decisions: Vec<Decided>,
}

/// A report of a node that a workload ran. One start may be reported several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Where.
    pub node: NodeId,
    /// Which one.
    pub workload: String,
    /// Under which version.
    pub version: u64,
    /// As what the node reported it.
    pub state: State,
    /// When it was reported, by the node's clock.
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
    /// A statement that does not parse or breaks a rule of its kind.
    Malformed,
    /// A statement that whom it names has not signed.
    Unsigned,
    /// A statement of another grid.
    WrongNetwork,
    /// A node that the farm that it names has not adopted.
    NotAdopted,
    /// A report that does not stand on its node's chain, or a second one in its place.
    Forked,
    /// A report from which the way along the chain is missing.
    Gap,
    /// A report whose time is well before that of an earlier one of the same boot.
    TimeBack,
    /// Reports before the first that is there, where all were asked for.
    Cut,
    /// A node that the contract names, and no report of it.
    NoReports,
    /// Something ran that was not agreed on at that time.
    NotAgreed,
    /// Something ran that is not what was agreed on.
    OtherBytes,
    /// Something ran, and the node does not say which bytes.
    Unmeasured,
    /// Something ran after the contract had expired, or was cancelled.
    Ended,
    /// Something ran, and no end was reported long after it had to end, or to give way to other bytes.
    RanOn,
    /// Something ran on by what its node knew, and the contract lets a node without contact do that.
    Unheard,
    /// Something ran before it was to start.
    TooEarly,
    /// Something was started for the first time after it was to start.
    TooLate,
    /// An earlier version ran after a later one was agreed on.
    WentBack,
    /// Data was deleted that nobody had ordered to delete.
    WipedUnordered,
    /// Something ran for which the farm's grant does not stand.
    Pool,
    /// What was to be done on a node is missing, so that nothing can be held against it.
    NoDocument,
    /// A statement without a proof that it is in the log.
    NotLogged,
    /// A proof that does not hold.
    BadProof,
    /// Two proofs that cannot both be of one log.
    ForkedLog,
}

/// Findings while they are collected.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, code: Code, statement: Option<StatementId>, text: impl Into<String>) {
        self.0.push(Finding { code, statement, text: text.into() });
    }
}

/// Holds the evidence against itself, against what is expected and, with a policy
/// (c2sp.org/tlog-policy), against a log.
pub fn audit(
    evidence: &Evidence,
    policy: Option<&Policy>,
    expected: &Expected<'_>,
    people: &People,
) -> Result<Audit, Refused> {
    bounded(evidence)?;
    let mut findings = Findings::default();
    let bundle = readable(evidence, &mut findings);
    let case = Case::read(&bundle).map_err(Refused::Case)?;
    let newest = &case.headers()[case.headers().len() - 1].body;
    if newest.contract != expected.contract {
        return Err(Refused::OtherContract(newest.contract));
    }
    if newest.network != expected.network {
        return Err(Refused::OtherNetwork(newest.network.clone()));
    }
    let in_force = case.in_force().map_err(Refused::Case)?.map_or(0, |one| one.body.version);
    check_signatures(&case, &bundle, &mut findings);
    let named = named(&case, &bundle.pools);
    let logged =
        policy.map(|policy| log::entries(evidence, expected, policy, &named, &mut findings));
    let (log, entries) = logged.unzip();
    let (chains, strangers) = chains::chains(evidence, &case, expected, &named, &mut findings);
    let runs = runs::runs(&case, &bundle, &chains, entries.as_ref(), expected, &mut findings);
    // Also what is not agreed on any more was to be reported while it was.
    let newest_heard = runs::newest(&chains, expected).max(in_force);
    check_documents(&case, newest_heard, &mut findings);
    runs::check_silent(&case, (in_force, newest_heard), &chains, expected, &mut findings);
    let people = with_names(people, &bundle);
    let shown = Shown { people, entries: entries.unwrap_or_default(), case: &case, in_force };
    findings.0.sort();
    findings.0.dedup();
    Ok(Audit {
        contract: newest.contract,
        network: newest.network.clone(),
        owner: newest.owner,
        owner_name: shown.people.show_exactly(&newest.owner),
        title: newest.title.clone(),
        versions: (0..case.headers().len()).map(|index| shown.version(index)).collect(),
        cancels: shown.orders(),
        nodes: chains.iter().map(chains::Chain::span).collect(),
        strangers,
        runs,
        log,
        findings: findings.0,
    })
}

fn bounded(evidence: &Evidence) -> Result<(), Refused> {
    let Evidence { nodes, farms, adoptions, reports, proofs, .. } = evidence;
    let logged = REPORTS_MAX + 3 * STATEMENTS_MAX;
    let bounds = [
        ("reports", reports.len(), REPORTS_MAX),
        ("proofs", proofs.len(), logged),
        ("nodes", nodes.len(), REPORTS_MAX),
        ("farms", farms.len(), STATEMENTS_MAX),
        ("adoptions", adoptions.len(), REPORTS_MAX),
    ];
    match bounds.into_iter().find(|(_, found, most)| found > most) {
        Some((what, _, most)) => Err(Refused::TooLarge { what, most }),
        None => Ok(()),
    }
}

/// What can be judged. What cannot be read is a finding: it may be what speaks against a run.
fn readable(evidence: &Evidence, findings: &mut Findings) -> Bundle {
    let mut bundle = evidence.bundle();
    let Evidence {
        approvals, cancels, identities, pools, nodes, farms, adoptions, reports, ..
    } = evidence;
    check_kind::<Approval>(approvals, findings);
    check_kind::<Cancel>(cancels, findings);
    check_kind::<Identity>(identities, findings);
    check_kind::<Pool>(pools, findings);
    check_kind::<Node>(nodes, findings);
    check_kind::<Farm>(farms, findings);
    check_kind::<Adoption>(adoptions, findings);
    check_kind::<Report>(reports, findings);
    bundle.documents.retain(|deployment| {
        let bytes = deployment.bytes().unwrap_or_default();
        let document = strict::read::<Document>(&bytes, DOCUMENT_BYTES_MAX);
        let is_one = document.is_ok_and(|document| document.check().is_ok());
        if !is_one {
            findings.add(Code::Malformed, None, "a deployment document cannot be read");
        }
        is_one
    });
    bundle
}

fn check_kind<T: Statement>(envelopes: &[Envelope], findings: &mut Findings) {
    for envelope in envelopes {
        if let Err(error) = Signed::<T>::open(envelope) {
            let text = format!("{}: {}", T::KIND.name(), crate::error::chain(&error));
            findings.add(Code::Malformed, envelope.id().ok(), text);
        }
    }
}

/// What is not signed does not count, and does not come from an honest registry either.
fn check_signatures(case: &Case, bundle: &Bundle, findings: &mut Findings) {
    let owner = case.headers()[0].body.owner;
    let mut check = |is_signed: bool, id: StatementId, kind: &str, by: IdentityId| {
        if !is_signed {
            findings.add(Code::Unsigned, Some(id), format!("{kind}: {by} has not signed it"));
        }
    };
    let by_owner = case.signer(&owner);
    for one in case.headers() {
        check(by_owner.is_some_and(|owner| owner.signed(one)), one.id, "contract", owner);
    }
    for one in opened::<Cancel>(&bundle.cancels) {
        check(by_owner.is_some_and(|owner| owner.signed(&one)), one.id, "cancel", owner);
    }
    let cancels: BTreeSet<_> = opened::<Cancel>(&bundle.cancels).map(|one| one.id).collect();
    let headers = case.headers().iter().map(|header| header.id);
    let subjects: BTreeSet<_> = headers.chain(cancels).collect();
    // A version that was replaced is not there, nor is who only had to decide on that.
    let about = |one: &Signed<Approval>| subjects.contains(&one.body.subject);
    for one in opened::<Approval>(&bundle.approvals).filter(about) {
        let by = one.body.signer;
        let is_signed = case.signer(&by).is_some_and(|signer| signer.signed(&one));
        check(is_signed, one.id, "approval", by);
    }
    for one in opened::<Pool>(&bundle.pools) {
        let by = one.body.farm;
        let is_signed = case.signer(&by).is_some_and(|signer| signer.signed(&one));
        check(is_signed, one.id, "pool", by);
    }
}

/// Whose document is missing, runs may be missing as well.
fn check_documents(case: &Case, newest: u64, findings: &mut Findings) {
    for header in case.headers().iter().filter(|header| header.body.version <= newest) {
        let version = header.body.version;
        let nodes: BTreeSet<_> = case.documents(version).map(|document| document.node).collect();
        let (found, wanted) = (nodes.len() as u64, header.body.deployments.count);
        if found < wanted {
            let text = format!("{found} of {wanted} documents of version {version} are there");
            findings.add(Code::NoDocument, Some(header.id), text);
        }
    }
}

fn opened<T: Statement>(envelopes: &[Envelope]) -> impl Iterator<Item = Signed<T>> {
    envelopes.iter().filter_map(|envelope| Signed::open(envelope).ok())
}
