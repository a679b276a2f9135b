//! Deployment documents: taken only when they hash into the root that the owner signed.

use crate::{changes, db::Fault, refusal, sql::Connection, store};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{
    ContractId, DocumentId, NodeId, StatementId, merkle, strict,
    workload::{DOCUMENT_BYTES_MAX, Document, Spec},
};
use registry_api::{problem::codes, write::DocumentsAnswer};

/// Documents of one contract that came one by one.
const SINGLE_MAX: u64 = 4096;

/// Documents that belong under a header, ready to be stored.
#[derive(Debug)]
pub struct Checked {
    header: StatementId,
    contract: ContractId,
    documents: Vec<Ready>,
}

#[derive(Debug)]
struct Ready {
    id: DocumentId,
    node: NodeId,
    bytes: Vec<u8>,
    path: String,
    workloads: String,
}

/// A workload as the projection keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Planned {
    /// Its name in the document.
    pub name: String,
    /// Whether it is something that runs.
    pub runs: bool,
}

/// Reads a list of documents and holds it against the header of the version.
pub fn check(
    connection: &Connection,
    contract: &ContractId,
    version: u64,
    list: &[String],
) -> Result<Checked, Fault> {
    let Some(header) = store::header(connection, contract, version)? else {
        let text = format!("version {version} of contract {contract} is not known");
        return Err(refusal(404, codes::UNKNOWN_CONTRACT, text, "Send the header first."));
    };
    let mut all: Vec<(Document, Vec<u8>)> = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        let bytes = BASE64.decode(text).map_err(|_| bad(index, "it is not base64"))?;
        let document = read(&bytes).map_err(|reason| bad(index, &reason))?;
        if document.contract != *contract || document.version != version {
            return Err(bad(index, "it names another contract or version"));
        }
        if all.last().is_some_and(|(before, _)| before.node >= document.node) {
            return Err(bad(index, "documents are sorted by node and unique"));
        }
        all.push((document, bytes));
    }
    let leaves: Vec<_> = all.iter().map(|(_, bytes)| merkle::leaf(bytes)).collect();
    let wanted = &header.body.deployments;
    if all.len() as u64 != wanted.count || merkle::root(&leaves) != wanted.root.0 {
        let text = format!("{} documents do not hash into the root of the header", all.len());
        let hint = "Send the exact bytes that the header was made of, all of them.";
        return Err(refusal(422, codes::WRONG_ROOT, text, hint));
    }
    let mut documents = Vec::with_capacity(all.len());
    for ((document, bytes), path) in all.into_iter().zip(paths(&leaves)) {
        let planned: Vec<_> = document.workloads.iter().map(planned).collect();
        documents.push(Ready {
            id: DocumentId::of(&bytes),
            node: document.node,
            bytes,
            path: serde_json::to_string(&path).map_err(anyhow::Error::new)?,
            workloads: serde_json::to_string(&planned).map_err(anyhow::Error::new)?,
        });
    }
    Ok(Checked { header: header.id, contract: *contract, documents })
}

fn planned(workload: &contract::workload::Workload) -> Planned {
    let runs = match workload.spec {
        Spec::Container(_) => true,
        Spec::Volume(_) => false,
    };
    Planned { name: workload.name.clone(), runs }
}

fn bad(index: usize, reason: &str) -> Fault {
    refusal(400, codes::MALFORMED, format!("document {index}: {reason}"), "")
}

fn read(bytes: &[u8]) -> Result<Document, String> {
    let document: Document =
        strict::read(bytes, DOCUMENT_BYTES_MAX).map_err(|error| crate::chain(&error))?;
    document.check()?;
    Ok(document)
}

/// Stores them. A second time changes nothing.
pub fn insert(connection: &Connection, checked: &Checked) -> Result<DocumentsAnswer, Fault> {
    let mut new = 0;
    for (place, ready) in checked.documents.iter().enumerate() {
        insert_bytes(connection, &ready.id, &checked.contract, &ready.bytes)?;
        let place = i64::try_from(place).map_err(anyhow::Error::new)?;
        new += connection.execute(
            "INSERT INTO deployments (header, place, node, contract, document, path, workloads)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            &[
                &checked.header.0,
                &place,
                &ready.node.0,
                &checked.contract.0,
                &ready.id.0,
                &ready.path,
                &ready.workloads,
            ],
        )?;
    }
    if new > 0 {
        changes::touch(connection, &checked.contract)?;
    }
    Ok(DocumentsAnswer { count: checked.documents.len() as u64, new: new > 0 })
}

/// Stores one document of a contract that is known, by its hash. It is served to no node until
/// the whole list of its version has come.
pub fn insert_one(connection: &Connection, id: &DocumentId, bytes: &[u8]) -> Result<bool, Fault> {
    if DocumentId::of(bytes) != *id {
        let text = format!("the bytes hash to {}", DocumentId::of(bytes));
        return Err(refusal(422, codes::WRONG_HASH, text, ""));
    }
    let document = read(bytes).map_err(|reason| bad(0, &reason))?;
    if store::versions(connection, &document.contract)? == 0 {
        let text = format!("contract {} is not known", document.contract);
        return Err(refusal(422, codes::UNKNOWN_CONTRACT, text, "Send the contract first."));
    }
    let sql = "SELECT COUNT(*) FROM documents WHERE contract = ?1";
    if store::count(connection, sql, &[&document.contract.0])? >= SINGLE_MAX {
        let text = format!("the registry keeps at most {SINGLE_MAX} single documents");
        return Err(refusal(409, codes::TOO_MANY, text, "Send them as one list."));
    }
    insert_bytes(connection, id, &document.contract, bytes)
}

fn insert_bytes(
    connection: &Connection,
    id: &DocumentId,
    contract: &ContractId,
    bytes: &[u8],
) -> Result<bool, Fault> {
    let sql = "INSERT INTO documents (id, contract, bytes) VALUES (?1, ?2, ?3)
               ON CONFLICT DO NOTHING";
    Ok(connection.execute(sql, &[&id.0, &contract.0, &bytes])? > 0)
}

/// The exact bytes of a document.
pub fn get(connection: &Connection, id: &DocumentId) -> Result<Option<Vec<u8>>, Fault> {
    let sql = "SELECT bytes FROM documents WHERE id = ?1";
    Ok(connection.query_optional(sql, &[&id.0], |row| row.get(0))?)
}

/// The paths of all leaves at once: level by level, an odd one at the end moves up as it is.
fn paths(leaves: &[merkle::Hash]) -> Vec<merkle::Path> {
    let mut found: Vec<_> =
        (0..leaves.len() as u64).map(|index| merkle::Path { index, siblings: vec![] }).collect();
    let mut level = leaves.to_vec();
    let mut height = 0_u32;
    while level.len() > 1 {
        for (leaf, path) in found.iter_mut().enumerate() {
            if let Some(sibling) = level.get((leaf >> height) ^ 1) {
                path.siblings.push(StatementId(*sibling));
            }
        }
        level = level.chunks(2).map(merkle::root).collect();
        height += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_paths_at_once_are_those_that_are_found_one_by_one() {
        for count in 0..70_u64 {
            let leaves: Vec<_> = (0..count).map(|n| merkle::leaf(&n.to_be_bytes())).collect();
            let one_by_one: Vec<_> =
                (0..leaves.len()).map(|index| merkle::path(&leaves, index).unwrap()).collect();
            assert_eq!(paths(&leaves), one_by_one, "{count} leaves");
        }
    }
}
