//! The deployment documents of a contract, fetched and proven complete.
//!
//! The registry serves them node by node. Which nodes to ask is a hint; what counts is that as many
//! documents as the header says hash into its root, each at its own place.

use crate::{
    error::BotError,
    grid::{Grid, is_missing},
};
use contract::{
    Bundle, ContractId, NodeId, Signed, StatementId,
    bundle::Deployment,
    farm::Pool,
    header::Header,
    merkle, strict,
    workload::{DOCUMENT_BYTES_MAX, Document},
};
use registry_api::Fetched;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that are asked for, for one contract.
const NODES_MAX: usize = 10_000;

/// The documents of each version, as far as all of them were found: version to documents by node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documents {
    complete: BTreeMap<u64, Vec<Document>>,
    /// For the others, how many were found.
    partial: BTreeMap<u64, u64>,
}

impl Documents {
    /// Those that hash into the roots of these versions.
    pub(crate) fn of_all(headers: &[Signed<Header>], deployments: &[Deployment]) -> Self {
        let mut found = Collected::default();
        found.add(headers, deployments);
        found.finish(headers)
    }

    /// All documents of a version, sorted by node; `None` when the registry lacks some.
    pub fn of(&self, version: u64) -> Option<&[Document]> {
        self.complete.get(&version).map(Vec::as_slice)
    }

    /// The same, or an error that says how many are missing.
    pub fn need(&self, header: &Header) -> Result<&[Document], BotError> {
        self.of(header.version).ok_or_else(|| {
            let have = self.partial.get(&header.version).copied().unwrap_or_default();
            BotError::Nothing(format!(
                "the registry delivers {have} of the {} deployment documents of version {}; the \
                 owner has to push them",
                header.deployments.count, header.version
            ))
        })
    }
}

/// Fetches the documents of all versions of a contract.
pub async fn fetch(
    grid: &Grid,
    contract: &ContractId,
    bundle: &Bundle,
    headers: &[Signed<Header>],
) -> Result<Documents, BotError> {
    Ok(Documents::of_all(headers, &deployments(grid, contract, bundle).await?))
}

/// What the registry has of them, with the way of each to a root.
pub(crate) async fn deployments(
    grid: &Grid,
    contract: &ContractId,
    bundle: &Bundle,
) -> Result<Vec<Deployment>, BotError> {
    let mut found = Vec::new();
    for node in candidates(grid, contract, bundle).await? {
        let asking = BotError::asking(format!("fetching the documents for {}", node.short()));
        match grid.client.bundle_for(contract, &node, None).await {
            Ok(Fetched::New { body, .. }) => found.extend(body.documents),
            Ok(Fetched::Same) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(asking(error)),
        }
    }
    Ok(found)
}

/// Nodes that may have a document: those that the registry names, and those of the pools.
pub(crate) async fn candidates(
    grid: &Grid,
    contract: &ContractId,
    bundle: &Bundle,
) -> Result<BTreeSet<NodeId>, BotError> {
    let asking = BotError::asking(format!("looking up the contract {}", contract.short()));
    let view = grid.client.contract(contract).await.map_err(asking)?;
    let mut nodes: BTreeSet<_> = view.deployments.iter().map(|one| one.node).collect();
    for pool in &bundle.pools {
        if let Ok(pool) = Signed::<Pool>::open(pool) {
            nodes.extend(pool.body.nodes);
        }
    }
    Ok(nodes.into_iter().take(NODES_MAX).collect())
}

/// Documents by header and place.
#[derive(Debug, Default)]
struct Collected(BTreeMap<(StatementId, u64), Document>);

impl Collected {
    fn add(&mut self, headers: &[Signed<Header>], deployments: &[Deployment]) {
        for deployment in deployments {
            let Some(bytes) = deployment.bytes() else { continue };
            let leaf = merkle::leaf(&bytes);
            for header in headers {
                let wanted = &header.body.deployments;
                let path = &deployment.path;
                if !merkle::proves(&leaf, path, wanted.count, &wanted.root.0) {
                    continue;
                }
                let document = strict::read::<Document>(&bytes, DOCUMENT_BYTES_MAX);
                if let Ok(document) = document {
                    self.0.insert((header.id, path.index), document);
                }
            }
        }
    }

    fn finish(mut self, headers: &[Signed<Header>]) -> Documents {
        let mut documents = Documents::default();
        for header in headers {
            let own: Vec<_> =
                self.0.range((header.id, 0)..=(header.id, u64::MAX)).map(|(key, _)| *key).collect();
            let version = header.body.version;
            if own.len() as u64 == header.body.deployments.count {
                let all = own.iter().filter_map(|key| self.0.remove(key)).collect();
                documents.complete.insert(version, all);
            } else {
                documents.partial.insert(version, own.len() as u64);
            }
        }
        documents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{Example, sealed_header};

    #[test]
    fn only_a_complete_set_counts() {
        let plan = Example::two_nodes().plan();
        let header = sealed_header(&plan);
        let leaves: Vec<_> = plan.document_bytes.iter().map(|bytes| merkle::leaf(bytes)).collect();
        let deployment = |index: usize| {
            let path = merkle::path(&leaves, index).unwrap();
            Deployment::new(&plan.document_bytes[index], path)
        };
        let headers = [header];
        let collect = |deployments: &[Deployment]| Documents::of_all(&headers, deployments);
        let all = collect(&[deployment(1), deployment(0), deployment(0)]);
        assert_eq!(all.of(1).unwrap(), plan.documents);
        let one = collect(&[deployment(1), deployment(1)]);
        assert_eq!(one.of(1), None);
        let error = one.need(&headers[0].body).unwrap_err().to_string();
        assert!(error.contains("1 of the 2"), "{error}");
        let mut forged = deployment(0);
        forged.document = deployment(1).document;
        assert_eq!(collect(&[forged, deployment(1)]).of(1), None);
    }
}
