//! All that proves the life of a contract, as one file that is carried by hand.
//!
//! Gathered from a registry; judged by [`crate::audit`] with nobody to ask. Nothing here is believed:
//! what a registry leaves out or makes up is for the audit to find. What cannot be fetched whole is
//! an error, and not a file with less in it.

use crate::{
    customer::case,
    documents,
    error::BotError,
    grid::{Grid, is_missing},
    results,
};
use contract::{
    Bundle, ContractId, Envelope, IdentityId, NodeId, Signed, StatementId,
    bundle::{Deployment, STATEMENTS_MAX},
    farm::Pool,
    node::Node,
    report::Report,
    strict::{self, ReadError},
    verdict::Case,
};
use registry_api::ClientError;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Largest file of evidence in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 256 << 20;
/// Reports of all nodes that one file holds.
pub const REPORTS_MAX: usize = 1 << 16;
/// The form of the file that is written and read.
pub const FORMAT: u32 = 1;
/// How often one export waits for proofs that cannot be had yet: a witness may lag, a registry be busy.
const PAUSES_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Everything about a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// [`FORMAT`].
    pub format: u32,
    /// All versions, from 1 up.
    pub headers: Vec<Envelope>,
    /// Every decision on them, also those that no longer stand.
    pub approvals: Vec<Envelope>,
    /// Orders to end it.
    pub cancels: Vec<Envelope>,
    /// Identities of owner, stakeholders and farms.
    pub identities: Vec<Envelope>,
    /// The capacity grants that the headers name.
    pub pools: Vec<Envelope>,
    /// What is to be done on each node.
    pub documents: Vec<Deployment>,
    /// Statements of the nodes that have reported.
    pub nodes: Vec<Envelope>,
    /// Those of their farms.
    pub farms: Vec<Envelope>,
    /// The farms' consent to the nodes.
    pub adoptions: Vec<Envelope>,
    /// The nodes' reports about the contract, and others that stand between these on a node's chain.
    pub reports: Vec<Envelope>,
    /// What the registry's log proves.
    pub proofs: Vec<Proof>,
}

/// That a statement is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Which one.
    pub statement: StatementId,
    /// The proof (c2sp.org/tlog-proof).
    pub proof: String,
}

/// Why bytes are no evidence.
#[derive(Debug, thiserror::Error)]
pub enum NotEvidence {
    /// Not of this form.
    #[error("it is not written as evidence is")]
    Read(#[source] ReadError),
    /// Of another form.
    #[error("it has format {0}, and format {FORMAT} is read here")]
    Format(u32),
}

impl Evidence {
    /// Reads a file of evidence from untrusted bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, NotEvidence> {
        #[derive(Deserialize)]
        struct Mark {
            format: u32,
        }
        match strict::read::<Self>(bytes, EVIDENCE_BYTES_MAX) {
            Ok(evidence) if evidence.format == FORMAT => Ok(evidence),
            Ok(evidence) => Err(NotEvidence::Format(evidence.format)),
            // One of a later form has other fields.
            Err(error) => match serde_json::from_slice::<Mark>(bytes) {
                Ok(mark) if mark.format != FORMAT => Err(NotEvidence::Format(mark.format)),
                Ok(_) | Err(_) => Err(NotEvidence::Read(error)),
            },
        }
    }

    /// What a node would judge, with all documents.
    pub(crate) fn bundle(&self) -> Bundle {
        Bundle {
            headers: self.headers.clone(),
            approvals: self.approvals.clone(),
            cancels: self.cancels.clone(),
            identities: self.identities.clone(),
            pools: self.pools.clone(),
            documents: self.documents.clone(),
        }
    }

    /// Statements that a log has to have: those that are about the contract, and not identities, pools,
    /// farms and nodes, which may be older than the log.
    pub fn logged_for(&self, contract: &ContractId) -> impl Iterator<Item = &Envelope> {
        let about = |envelope: &&Envelope| {
            Signed::<Report>::open(envelope).is_ok_and(|report| report.body.contract == *contract)
        };
        let reports = self.reports.iter().filter(about);
        self.headers.iter().chain(&self.approvals).chain(&self.cancels).chain(reports)
    }
}

/// Nodes that may have something to do with a contract: those that a document names and, while some
/// documents are not there, those of the pools. Any other node can sign reports about it as well.
pub(crate) fn named(case: &Case, pools: &[Envelope]) -> BTreeSet<NodeId> {
    let mut all = BTreeSet::new();
    let mut is_whole = true;
    for header in case.headers() {
        let documents = case.documents(header.body.version);
        let nodes: BTreeSet<NodeId> = documents.map(|document| document.node).collect();
        is_whole &= nodes.len() as u64 >= header.body.deployments.count;
        all.extend(nodes);
    }
    if !is_whole {
        let pools = pools.iter().filter_map(|pool| Signed::<Pool>::open(pool).ok());
        all.extend(pools.flat_map(|pool| pool.body.nodes));
    }
    all
}

/// Asks the registry for all of it. `tell` hears how many statements are there.
pub async fn gather(
    grid: &Grid,
    contract: &ContractId,
    tell: &dyn Fn(usize),
) -> Result<Evidence, BotError> {
    let (mut bundle, _) = case(grid, contract).await?;
    bundle.documents = documents::deployments(grid, contract, &bundle).await?;
    let refused = |refusal| BotError::Refused { contract: *contract, refusal };
    let named = named(&Case::read(&bundle).map_err(refused)?, &bundle.pools);
    let Bundle { headers, cancels, identities, pools, documents, .. } = bundle;
    let mut evidence = Evidence {
        format: FORMAT,
        headers,
        approvals: decisions(grid, contract).await?,
        cancels,
        identities,
        pools,
        documents,
        nodes: vec![],
        farms: vec![],
        adoptions: vec![],
        reports: vec![],
        proofs: vec![],
    };
    let mut by_node: BTreeMap<NodeId, Vec<StatementId>> = BTreeMap::new();
    let listed = results::listed(grid, contract).await?;
    for view in listed.into_iter().filter(|view| named.contains(&view.node)) {
        by_node.entry(view.node).or_default().push(view.id);
    }
    let mut farms = BTreeSet::new();
    for (node, ids) in by_node {
        let asking = BotError::asking(format!("looking up node {}", node.short()));
        let view = grid.client.node(&node).await.map_err(asking)?;
        farms.extend(Signed::<Node>::open(&view.statement).map(|node| node.body.farm));
        evidence.nodes.push(view.statement);
        evidence.adoptions.extend(view.adoption);
        chain(grid, &ids, &mut evidence.reports, tell).await?;
    }
    for farm in farms {
        add_farm(grid, &farm, &mut evidence).await?;
    }
    prove(grid, contract, &mut evidence, tell).await?;
    Ok(evidence)
}

/// Every decision, also those that no longer stand: what ran was judged by those of its time.
async fn decisions(grid: &Grid, contract: &ContractId) -> Result<Vec<Envelope>, BotError> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let asking =
            BotError::asking(format!("fetching the decisions on contract {}", contract.short()));
        let page = grid.client.approvals(contract, after).await.map_err(asking)?;
        if page.approvals.is_empty() {
            return Ok(found);
        }
        found.extend(page.approvals);
        bounded(found.len(), STATEMENTS_MAX, "decisions")?;
        after = page.next;
    }
}

fn bounded(count: usize, most: usize, what: &str) -> Result<(), BotError> {
    if count <= most {
        return Ok(());
    }
    Err(BotError::Nothing(format!("there are more than {most} {what}, more than one file holds")))
}

/// A farm with its identity; what the registry does not have is for the audit to miss.
async fn add_farm(grid: &Grid, id: &IdentityId, evidence: &mut Evidence) -> Result<(), BotError> {
    match grid.client.farm(id).await {
        Ok(view) => evidence.farms.push(view.statement),
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => {
            return Err(BotError::asking(format!("looking up the farm {}", id.short()))(error));
        }
    }
    let is_it = |envelope: &Envelope| envelope.id().is_ok_and(|found| found.0 == id.0);
    if !evidence.identities.iter().any(is_it) {
        let asking = BotError::asking(format!("looking up the identity {}", id.short()));
        let view = grid.client.identity(id).await.map_err(asking)?;
        evidence.identities.push(view.statement);
    }
    Ok(())
}

/// The reports of one node, and what links them, back to the oldest of them.
async fn chain(
    grid: &Grid,
    ids: &[StatementId],
    reports: &mut Vec<Envelope>,
    tell: &dyn Fn(usize),
) -> Result<(), BotError> {
    let mut found: BTreeMap<StatementId, (Report, Envelope)> = BTreeMap::new();
    for id in ids {
        bounded(reports.len() + found.len(), REPORTS_MAX, "reports")?;
        found.insert(*id, report(grid, id).await?);
        tell(reports.len() + found.len());
    }
    let oldest = found.values().map(|(report, _)| report.seq).min().unwrap_or_default();
    let before = |report: &Report| report.prev.filter(|_| report.seq > oldest);
    let mut wanted: Vec<StatementId> =
        found.values().filter_map(|(report, _)| before(report)).collect();
    while let Some(id) = wanted.pop() {
        if found.contains_key(&id) {
            continue;
        }
        bounded(reports.len() + found.len(), REPORTS_MAX, "reports")?;
        let linking = match report(grid, &id).await {
            Ok(linking) => linking,
            // A gap, which the audit finds.
            Err(BotError::Registry { source, .. }) if is_missing(&source) => continue,
            Err(error) => return Err(error),
        };
        wanted.extend(before(&linking.0));
        found.insert(id, linking);
        tell(reports.len() + found.len());
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by_key(|(report, _)| report.seq);
    reports.extend(found.into_iter().map(|(_, envelope)| envelope));
    Ok(())
}

async fn report(grid: &Grid, id: &StatementId) -> Result<(Report, Envelope), BotError> {
    let what = || format!("the report {}", id.short());
    let asking = BotError::asking(format!("fetching {}", what()));
    let envelope = grid.client.statement(id).await.map_err(asking)?;
    let report = Signed::<Report>::open(&envelope);
    Ok((report.map_err(|source| BotError::Delivered(what(), source))?.body, envelope))
}

/// What the log has of it. What it does not have, or not yet, is for the audit to say.
async fn prove(
    grid: &Grid,
    contract: &ContractId,
    evidence: &mut Evidence,
    tell: &dyn Fn(usize),
) -> Result<(), BotError> {
    let wanted: Vec<StatementId> =
        evidence.logged_for(contract).filter_map(|envelope| envelope.id().ok()).collect();
    let mut pauses = PAUSES_MAX;
    for statement in wanted {
        let proof = proof(grid, &statement, &mut pauses).await?;
        evidence.proofs.extend(proof.map(|proof| Proof { statement, proof }));
        tell(evidence.reports.len() + evidence.proofs.len());
    }
    Ok(())
}

/// `None` when the registry has no log, or the statement is not in it, or not yet.
async fn proof(
    grid: &Grid,
    statement: &StatementId,
    pauses: &mut u32,
) -> Result<Option<String>, BotError> {
    loop {
        match grid.client.proof(statement).await {
            Ok(proof) => return Ok(String::from_utf8(proof).ok()),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) if is_busy(&error) && *pauses > 0 => {
                *pauses -= 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if is_busy(&error) => return Ok(None),
            Err(error) => return Err(BotError::asking("asking the log")(error)),
        }
    }
}

fn is_busy(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem { .. }) && error.is_temporary()
}
