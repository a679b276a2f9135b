//! All that proves the life of a contract, as one file that is carried by hand.
//!
//! Gathered from a registry; judged by [`crate::audit`] with nobody to ask. Nothing here is believed:
//! what a registry leaves out or makes up is for the audit to find.

use crate::{
    customer::case,
    documents,
    error::BotError,
    grid::{Grid, is_missing},
    results::{self, CHAIN_MAX},
};
use contract::{
    Bundle, ContractId, Envelope, NodeId, Signed, StatementId, report::Report, strict::ReadError,
};
use registry_api::ClientError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, btree_map::Entry};

/// Largest file of evidence in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 256 << 20;

/// Everything about a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Versions, decisions, identities and pools, and the documents of every node.
    pub bundle: Bundle,
    /// Statements of the nodes that have reported.
    pub nodes: Vec<Envelope>,
    /// Their reports about the contract, and others that stand between these on a node's chain.
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

impl Evidence {
    /// Reads a file of evidence from untrusted bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        contract::strict::read(bytes, EVIDENCE_BYTES_MAX)
    }

    /// Statements that a log has to have: those that are about the contract, and not the identities and
    /// pools, which may be older than the log.
    pub(crate) fn logged_for(&self, contract: &ContractId) -> impl Iterator<Item = &Envelope> {
        let about = |envelope: &&Envelope| {
            Signed::<Report>::open(envelope).is_ok_and(|report| report.body.contract == *contract)
        };
        let Bundle { headers, approvals, cancels, .. } = &self.bundle;
        let reports = self.reports.iter().filter(about);
        headers.iter().chain(approvals).chain(cancels).chain(reports)
    }
}

/// Asks the registry for all of it. `tell` hears how many statements are there.
pub async fn gather(
    grid: &Grid,
    contract: &ContractId,
    tell: &dyn Fn(usize),
) -> Result<Evidence, BotError> {
    let (mut bundle, _) = case(grid, contract).await?;
    bundle.documents = documents::deployments(grid, contract, &bundle).await?;
    let mut evidence = Evidence { bundle, nodes: vec![], reports: vec![], proofs: vec![] };
    let mut by_node: BTreeMap<NodeId, Vec<StatementId>> = BTreeMap::new();
    for (node, id) in results::listed(grid, contract).await? {
        by_node.entry(node).or_default().push(id);
    }
    for (node, ids) in by_node {
        let asking = BotError::asking(format!("looking up node {}", node.short()));
        evidence.nodes.push(grid.client.node(&node).await.map_err(asking)?.statement);
        chain(grid, &ids, &mut evidence.reports, tell).await?;
    }
    prove(grid, contract, &mut evidence, tell).await?;
    Ok(evidence)
}

/// The reports of one node, and what links them.
async fn chain(
    grid: &Grid,
    ids: &[StatementId],
    reports: &mut Vec<Envelope>,
    tell: &dyn Fn(usize),
) -> Result<(), BotError> {
    let mut found: BTreeMap<StatementId, Envelope> = BTreeMap::new();
    let mut links: BTreeMap<u64, Option<StatementId>> = BTreeMap::new();
    for id in ids {
        let (link, envelope) = report(grid, id).await?;
        links.extend([link]);
        found.insert(*id, envelope);
        tell(reports.len() + found.len());
    }
    let oldest = links.keys().next().copied();
    let mut seq = links.keys().next_back().copied();
    while let Some(at) = seq.filter(|at| Some(*at) > oldest && found.len() < ids.len() + CHAIN_MAX)
    {
        let Some(Some(prev)) = links.get(&at).copied() else { break };
        if let Entry::Vacant(place) = found.entry(prev) {
            let (link, envelope) = match report(grid, &prev).await {
                Ok(report) => report,
                Err(BotError::Registry { source, .. }) if is_missing(&source) => break,
                Err(error) => return Err(error),
            };
            links.extend([link]);
            place.insert(envelope);
            tell(reports.len() + found.len());
        }
        seq = at.checked_sub(1);
    }
    reports.extend(found.into_values());
    Ok(())
}

/// A report, with its place on the chain and the one before it.
async fn report(
    grid: &Grid,
    id: &StatementId,
) -> Result<((u64, Option<StatementId>), Envelope), BotError> {
    let what = || format!("the report {}", id.short());
    let asking = BotError::asking(format!("fetching {}", what()));
    let envelope = grid.client.statement(id).await.map_err(asking)?;
    let report = Signed::<Report>::open(&envelope);
    let Report { seq, prev, .. } =
        report.map_err(|source| BotError::Delivered(what(), source))?.body;
    Ok(((seq, prev), envelope))
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
    for statement in wanted {
        let proof = match grid.client.proof(&statement).await {
            Ok(proof) => String::from_utf8(proof).ok(),
            Err(ClientError::Problem { .. }) => None,
            Err(error) => return Err(BotError::asking("asking the log")(error)),
        };
        evidence.proofs.extend(proof.map(|proof| Proof { statement, proof }));
        tell(evidence.reports.len() + evidence.proofs.len());
    }
    Ok(())
}
