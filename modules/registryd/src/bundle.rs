//! Bundles and inboxes: everything that a node or a reader needs to judge a contract by itself.

use crate::{
    changes::{self, Computed, Known, Listed},
    db::Fault,
    refusal,
    sql::Connection,
    store,
};
use contract::{
    Bundle, ContractId, IdentityId, NodeId, StatementId,
    bundle::{BUNDLE_BYTES_MAX, Deployment},
    header::Header,
    id::sha256,
    merkle,
};
use registry_api::{
    problem::codes,
    view::{Inbox, InboxEntry, Ordered},
};
use std::collections::{BTreeMap, BTreeSet};

/// A bundle carries documents of older versions only as far as they fit in here.
const DOCUMENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Something with its entity tag.
#[derive(Debug, Clone)]
pub struct Tagged {
    /// Exact bytes of the answer.
    pub body: Vec<u8>,
    /// Hash of the bytes, in quotes.
    pub etag: String,
}

impl Tagged {
    /// Tags what serialises to JSON.
    pub fn json<T: serde::Serialize>(value: &T) -> Result<Self, Fault> {
        let body = serde_json::to_vec(value).map_err(anyhow::Error::new)?;
        let etag = format!("\"{}\"", hex::encode(&sha256(&body)[..16]));
        Ok(Self { body, etag })
    }
}

/// The contract with its evidence. `None` when it is not known.
pub fn bundle(
    connection: &Connection,
    contract: &ContractId,
    node: Option<&NodeId>,
) -> Result<Option<Bundle>, Fault> {
    let sql = "SELECT statement FROM headers WHERE contract = ?1 ORDER BY version";
    let header_ids = store::ids(connection, sql, &[&contract.0])?;
    if header_ids.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::with_capacity(header_ids.len());
    let mut people = BTreeSet::new();
    let mut pool_ids = BTreeSet::new();
    for id in &header_ids {
        let header = store::signed::<Header>(connection, &StatementId(*id))?.body;
        people.insert(header.owner);
        people.extend(header.stakeholders.iter().map(|holder| holder.identity));
        pool_ids.insert(header.pool);
        headers.push(store::envelope(connection, &StatementId(*id))?);
    }
    let mut pools = Vec::new();
    for id in &pool_ids {
        let Some(stored) = store::statement(connection, id)?.filter(|stored| stored.complete)
        else {
            continue;
        };
        if let Ok(pool) = contract::Signed::<contract::farm::Pool>::open(&stored.envelope) {
            people.insert(pool.body.farm);
            pools.push(stored.envelope);
        }
    }
    let mut identities = Vec::new();
    for id in &people {
        let statement = store::statement(connection, &StatementId(id.0))?;
        identities.extend(statement.filter(|stored| stored.complete).map(|stored| stored.envelope));
    }
    let cancels = "SELECT statement FROM cancels WHERE contract = ?1 ORDER BY statement";
    Ok(Some(Bundle {
        headers,
        approvals: approvals(connection, contract)?,
        cancels: store::envelopes(connection, cancels, &[&contract.0])?,
        identities,
        pools,
        documents: match node {
            Some(node) => documents(connection, &header_ids, node)?,
            None => Vec::new(),
        },
    }))
}

/// The same as bytes. Refused when it would be larger than a reader takes.
pub fn bundle_bytes(
    connection: &Connection,
    contract: &ContractId,
    node: Option<&NodeId>,
) -> Result<Option<Tagged>, Fault> {
    let Some(bundle) = bundle(connection, contract, node)? else { return Ok(None) };
    let tagged = Tagged::json(&bundle)?;
    if tagged.body.len() > BUNDLE_BYTES_MAX {
        let text = format!("the bundle has {} bytes", tagged.body.len());
        return Err(refusal(500, codes::TOO_LARGE, text, ""));
    }
    Ok(Some(tagged))
}

/// Of each signer and subject, the decision that stands: the latest, of one second the stronger.
/// Those before it change no count.
fn approvals(
    connection: &Connection,
    contract: &ContractId,
) -> Result<Vec<contract::Envelope>, Fault> {
    let sql = "SELECT statement, subject, signer FROM approvals WHERE contract = ?1
               ORDER BY issued, strength, statement";
    let rows = connection.query(sql, &[&contract.0], |row| {
        Ok(((store::hash(row, 1)?, store::hash(row, 2)?), store::hash(row, 0)?))
    })?;
    let standing: BTreeMap<_, _> = rows.into_iter().collect();
    standing.into_values().map(|id| store::envelope(connection, &StatementId(id))).collect()
}

/// The documents of a node, of the newest version first.
fn documents(
    connection: &Connection,
    headers: &[[u8; 32]],
    node: &NodeId,
) -> Result<Vec<Deployment>, Fault> {
    let sql = "SELECT bytes, path FROM deployments JOIN documents ON documents.id = document
               WHERE header = ?1 AND node = ?2";
    let (mut found, mut size) = (Vec::new(), 0);
    for header in headers.iter().rev() {
        let rows: Vec<(Vec<u8>, String)> =
            connection.query(sql, &[header, &node.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (bytes, path) in rows {
            size += bytes.len();
            if size > DOCUMENTS_BYTES_MAX && !found.is_empty() {
                return Ok(found);
            }
            let path: merkle::Path = serde_json::from_str(&path).map_err(anyhow::Error::new)?;
            found.push(Deployment::new(&bytes, path));
        }
    }
    Ok(found)
}

/// What concerns a node, and what had to be computed for it.
#[derive(Debug)]
pub struct NodeInbox {
    /// The answer.
    pub answer: Tagged,
    /// To be [remembered][changes::remember]: the next question is answered without it.
    pub computed: Vec<Computed>,
}

/// The last order of the farm to read the store through. Also one that is too old: the node says so.
fn ordered(
    connection: &Connection,
    node: &NodeId,
    farm: &IdentityId,
) -> Result<Option<Ordered>, Fault> {
    let Some(order) = store::scrub(connection, node, farm)? else { return Ok(None) };
    Ok(Some(Ordered {
        order: store::envelope(connection, &order)?,
        farm: store::envelope(connection, &StatementId(farm.0))?,
    }))
}

/// What concerns a node. `None` when the node is not known.
///
/// A bundle that no reader would take is left out and named: it must not hide the others.
pub fn inbox(connection: &Connection, node: &NodeId) -> Result<Option<NodeInbox>, Fault> {
    let Some(statement) = store::node(connection, node)? else { return Ok(None) };
    let farm = statement.body.farm;
    let adopted = store::adopted(connection, node, &farm)?;
    let (mut contracts, mut oversize, mut computed) = (Vec::new(), Vec::new(), Vec::new());
    let listed = if adopted { changes::for_node(connection, node, &farm)? } else { Vec::new() };
    for Listed { contract, tag, version, known } in listed {
        let known = if let Some(known) = known {
            known
        } else {
            let Some(bundle) = bundle(connection, &contract, Some(node))? else { continue };
            let tagged = Tagged::json(&bundle)?;
            let known = Known { etag: tagged.etag, bytes: tagged.body.len() };
            computed.push(Computed { contract, tag, known: known.clone() });
            known
        };
        if known.bytes > BUNDLE_BYTES_MAX {
            oversize.push(contract);
        } else {
            contracts.push(InboxEntry { contract, version, etag: known.etag });
        }
    }
    let scrub = if adopted { ordered(connection, node, &farm)? } else { None };
    let answer = Tagged::json(&Inbox { adopted, contracts, oversize, scrub })?;
    Ok(Some(NodeInbox { answer, computed }))
}
