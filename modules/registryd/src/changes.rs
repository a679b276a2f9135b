//! Which contracts have changed, so that what is asked for again and again is not made again.
//!
//! Each contract has a tag that is replaced by a fresh random one whenever something comes that its
//! bundle may carry. What was computed under the tag of today still holds. Tags are never used
//! twice, so this also holds after a backup was put back.

use crate::{db::Fault, sql::Connection, store};
use anyhow::Context as _;
use contract::{
    ContractId, Envelope, IdentityId, Kind, NodeId, Signed, StatementId,
    decision::{Approval, Cancel},
    farm::Pool,
    header::Header,
};
use registry_api::view::LIST_MAX;

/// Takes note that something came that the bundle of this contract may carry.
pub fn touch(connection: &Connection, contract: &ContractId) -> Result<(), Fault> {
    let mut tag = vec![0; 16];
    getrandom::fill(&mut tag).context("making a tag")?;
    connection.execute(
        "INSERT INTO changes (contract, tag, place)
         VALUES (?1, ?2, (SELECT COALESCE(MAX(place), 0) + 1 FROM changes))
         ON CONFLICT (contract) DO UPDATE SET tag = excluded.tag, place = excluded.place",
        &[&contract.0, &tag],
    )?;
    Ok(())
}

/// Takes note of a statement that counts, or of a further signature on it.
pub fn note(connection: &Connection, envelope: &Envelope) -> Result<(), Fault> {
    let open = |error: contract::envelope::OpenError| Fault::Broken(anyhow::Error::new(error));
    match envelope.kind() {
        Some(Kind::Contract) => {
            touch(connection, &Signed::<Header>::open(envelope).map_err(open)?.body.contract)
        }
        Some(Kind::Approval) => {
            touch(connection, &Signed::<Approval>::open(envelope).map_err(open)?.body.contract)
        }
        Some(Kind::Cancel) => {
            touch(connection, &Signed::<Cancel>::open(envelope).map_err(open)?.body.contract)
        }
        Some(Kind::Identity | Kind::Pool) => {
            let id = envelope.id().map_err(open)?;
            let sql = "SELECT contract FROM evidence WHERE statement = ?1";
            for contract in store::ids(connection, sql, &[&id.0])? {
                touch(connection, &ContractId(contract))?;
            }
            Ok(())
        }
        Some(
            Kind::Farm | Kind::Adoption | Kind::Node | Kind::Result | Kind::Heartbeat | Kind::Scrub,
        )
        | None => Ok(()),
    }
}

/// Projects what the bundle of a version carries besides decisions.
pub fn project_header(connection: &Connection, header: &Header) -> Result<(), Fault> {
    let holders = header.stakeholders.iter().map(|holder| holder.identity);
    for person in holders.chain([header.owner]) {
        evidence(connection, &StatementId(person.0), &header.contract)?;
    }
    evidence(connection, &header.pool, &header.contract)?;
    let pool = store::statement(connection, &header.pool)?.filter(|stored| stored.complete);
    if let Some(pool) = pool.and_then(|stored| Signed::<Pool>::open(&stored.envelope).ok()) {
        evidence(connection, &StatementId(pool.body.farm.0), &header.contract)?;
    }
    Ok(())
}

/// Projects what a farm has granted.
pub fn project_pool(connection: &Connection, pool: &Signed<Pool>) -> Result<(), Fault> {
    let sql = "INSERT INTO grants (node, pool, farm, owner) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT DO NOTHING";
    for node in &pool.body.nodes {
        connection.execute(sql, &[&node.0, &pool.id.0, &pool.body.farm.0, &pool.body.owner.0])?;
    }
    let sql = "SELECT contract FROM evidence WHERE statement = ?1";
    for contract in store::ids(connection, sql, &[&pool.id.0])? {
        evidence(connection, &StatementId(pool.body.farm.0), &ContractId(contract))?;
    }
    Ok(())
}

fn evidence(
    connection: &Connection,
    statement: &StatementId,
    contract: &ContractId,
) -> Result<(), Fault> {
    let sql = "INSERT INTO evidence (statement, contract) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    connection.execute(sql, &[&statement.0, &contract.0])?;
    Ok(())
}

/// A bundle as it was computed for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its entity tag.
    pub etag: String,
    /// Its size.
    pub bytes: usize,
}

/// A contract for a node, with what is known of its bundle.
#[derive(Debug)]
pub struct Listed {
    /// Which one.
    pub contract: ContractId,
    /// Under which what is computed now will hold.
    pub tag: Vec<u8>,
    /// Its newest version.
    pub version: u64,
    /// `None` when it has changed since.
    pub known: Option<Known>,
}

/// Contracts with a document for the node and with a pool that the node's own farm granted to their
/// owner on this node. When there are too many, those that changed last.
///
/// Anybody can write a contract for any node; only those with a grant concern it.
pub fn for_node(
    connection: &Connection,
    node: &NodeId,
    farm: &IdentityId,
) -> Result<Vec<Listed>, Fault> {
    let sql = "SELECT changes.contract, changes.tag,
             (SELECT MAX(version) FROM headers WHERE contract = changes.contract),
             bundles.etag, bundles.bytes
         FROM changes LEFT JOIN bundles
             ON bundles.contract = changes.contract AND bundles.node = ?1
             AND bundles.tag = changes.tag
         WHERE changes.contract IN (
             SELECT headers.contract
             FROM grants
                 JOIN headers ON headers.pool = grants.pool
                 JOIN contracts ON contracts.id = headers.contract AND contracts.owner = grants.owner
                 JOIN deployments
                     ON deployments.node = grants.node AND deployments.contract = headers.contract
             WHERE grants.node = ?1 AND grants.farm = ?2)
         ORDER BY changes.place DESC LIMIT ?3";
    let most = i64::try_from(LIST_MAX).unwrap_or(i64::MAX);
    let mut listed: Vec<Listed> = connection.query(sql, &[&node.0, &farm.0, &most], |row| {
        let etag: Option<String> = row.get(3)?;
        let bytes: Option<i64> = row.get(4)?;
        let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Listed {
            contract: ContractId(store::hash(row, 0)?),
            tag: row.get(1)?,
            version: u64::try_from(row.get::<i64>(2)?).unwrap_or(0),
            known: etag.zip(bytes).map(|(etag, bytes)| Known { etag, bytes: size(bytes) }),
        })
    })?;
    listed.sort_unstable_by_key(|one| one.contract);
    Ok(listed)
}

/// The entity tag of a bundle that has not changed since it was computed.
pub fn known_etag(
    connection: &Connection,
    contract: &ContractId,
    node: &NodeId,
) -> Result<Option<String>, Fault> {
    let sql = "SELECT etag FROM bundles JOIN changes USING (contract, tag)
               WHERE contract = ?1 AND node = ?2";
    Ok(connection.query_optional(sql, &[&contract.0, &node.0], |row| row.get(0))?)
}

/// What was computed for a node.
#[derive(Debug)]
pub struct Computed {
    /// Of which contract.
    pub contract: ContractId,
    /// The contract's tag at that time.
    pub tag: Vec<u8>,
    /// What came out.
    pub known: Known,
}

/// Remembers it. What has changed meanwhile has another tag, so this is never wrong, only useless.
pub fn remember(
    connection: &Connection,
    node: &NodeId,
    computed: &[Computed],
) -> Result<(), Fault> {
    let sql = "INSERT INTO bundles (contract, node, tag, etag, bytes)
               VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (contract, node) DO UPDATE
               SET tag = excluded.tag, etag = excluded.etag, bytes = excluded.bytes";
    for one in computed {
        let bytes = i64::try_from(one.known.bytes).unwrap_or(i64::MAX);
        connection.execute(sql, &[&one.contract.0, &node.0, &one.tag, &one.known.etag, &bytes])?;
    }
    Ok(())
}
