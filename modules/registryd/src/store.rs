//! Statements in the database: typed reads and the only inserts. Decides nothing.

use crate::{
    db::Fault,
    sql::{self, Argument, Connection, Row},
};
use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{
    ContractId, Envelope, IdentityId, Kind, NodeId, Signed, Statement, StatementId,
    envelope::Signature,
    farm::{Adoption, Farm, consents},
    header::Header,
    id::KeyId,
    identity::{Identity, Signer},
    node::Node,
};

/// A statement that is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// With every valid signature that has come.
    pub envelope: Envelope,
    /// Whether everybody has signed who must.
    pub complete: bool,
}

/// 32 bytes of a column.
pub fn hash(row: &Row<'_>, column: usize) -> Result<[u8; 32], sql::SqlError> {
    row.get(column)
}

/// The kind of this name.
pub fn kind(name: &str) -> anyhow::Result<Kind> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .with_context(|| format!("the database names an unknown kind {name}"))
}

/// A statement and its signatures.
pub fn statement(connection: &Connection, id: &StatementId) -> Result<Option<Stored>, Fault> {
    let sql = "SELECT kind, payload, place FROM statements WHERE id = ?1";
    let row = connection.query_optional(sql, &[&id.0], |row| {
        let place: Option<i64> = row.get(2)?;
        Ok((row.get::<String>(0)?, row.get::<Vec<u8>>(1)?, place.is_some()))
    })?;
    let Some((name, payload, complete)) = row else { return Ok(None) };
    let sql = "SELECT keyid, sig FROM signatures WHERE statement = ?1 ORDER BY keyid";
    let signatures = connection.query(sql, &[&id.0], |row| {
        Ok(Signature { keyid: KeyId(hash(row, 0)?), sig: row.get(1)? })
    })?;
    let envelope = Envelope {
        payload_type: kind(&name)?.payload_type(),
        payload: BASE64.encode(payload),
        signatures,
    };
    Ok(Some(Stored { envelope, complete }))
}

/// The envelope of a statement that must be there.
pub fn envelope(connection: &Connection, id: &StatementId) -> Result<Envelope, Fault> {
    let stored = statement(connection, id)?;
    Ok(stored.with_context(|| format!("statement {id} has gone"))?.envelope)
}

/// Envelopes whose ids a query returns in its first column.
pub fn envelopes(
    connection: &Connection,
    sql: &str,
    arguments: &[&dyn Argument],
) -> Result<Vec<Envelope>, Fault> {
    let ids = ids(connection, sql, arguments)?;
    ids.into_iter().map(|id| envelope(connection, &StatementId(id))).collect()
}

/// The hashes that a query returns in its first column.
pub fn ids(
    connection: &Connection,
    sql: &str,
    arguments: &[&dyn Argument],
) -> Result<Vec<[u8; 32]>, Fault> {
    Ok(connection.query(sql, arguments, |row| hash(row, 0))?)
}

/// A number that a query returns.
pub fn count(
    connection: &Connection,
    sql: &str,
    arguments: &[&dyn Argument],
) -> Result<u64, Fault> {
    let number: i64 = connection.query_one(sql, arguments, |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// A statement of a known kind that must be there.
pub fn signed<T: Statement>(connection: &Connection, id: &StatementId) -> Result<Signed<T>, Fault> {
    let envelope = envelope(connection, id)?;
    Ok(Signed::open(&envelope).with_context(|| format!("reading statement {id}"))?)
}

/// Adds a statement whose id is new.
pub fn insert(
    connection: &Connection,
    kind: Kind,
    id: &StatementId,
    payload: &[u8],
    received: i64,
) -> Result<(), Fault> {
    let sql = "INSERT INTO statements (id, kind, payload, received) VALUES (?1, ?2, ?3, ?4)";
    connection.execute(sql, &[&id.0, &kind.name(), &payload, &received])?;
    Ok(())
}

/// Adds signatures that are new.
pub fn insert_signatures(
    connection: &Connection,
    id: &StatementId,
    signatures: &[Signature],
) -> Result<(), Fault> {
    let sql = "INSERT INTO signatures (statement, keyid, sig) VALUES (?1, ?2, ?3)";
    for signature in signatures {
        connection.execute(sql, &[&id.0, &signature.keyid.0, &signature.sig])?;
    }
    Ok(())
}

/// Gives a statement its place in the order in which statements count.
pub fn complete(connection: &Connection, id: &StatementId, now: i64) -> Result<i64, Fault> {
    let sql = "UPDATE statements
               SET place = (SELECT COALESCE(MAX(place), 0) + 1 FROM statements), completed = ?2
               WHERE id = ?1 RETURNING place";
    Ok(connection.query_one(sql, &[&id.0, &now], |row| row.get(0))?)
}

/// An identity that has signed itself.
pub fn signer(connection: &Connection, id: &IdentityId) -> Result<Option<Signer>, Fault> {
    let Some(stored) = statement(connection, &StatementId(id.0))? else { return Ok(None) };
    let signed = Signed::<Identity>::open(&stored.envelope).ok();
    Ok(signed.as_ref().and_then(Signer::from_statement))
}

/// The statement in force of a farm.
pub fn farm(connection: &Connection, id: &IdentityId) -> Result<Option<Signed<Farm>>, Fault> {
    in_force(connection, "SELECT statement FROM farms WHERE id = ?1", &id.0)
}

/// The statement in force of a node.
pub fn node(connection: &Connection, id: &NodeId) -> Result<Option<Signed<Node>>, Fault> {
    in_force(connection, "SELECT statement FROM nodes WHERE id = ?1", &id.0)
}

fn in_force<T: Statement>(
    connection: &Connection,
    sql: &str,
    id: &[u8; 32],
) -> Result<Option<Signed<T>>, Fault> {
    let found = ids(connection, sql, &[id])?;
    found.first().map(|id| signed(connection, &StatementId(*id))).transpose()
}

/// The farm's consent to the node, by the farm's statement in force.
pub fn adoption(
    connection: &Connection,
    node: &NodeId,
    farm: &IdentityId,
) -> Result<Option<StatementId>, Fault> {
    let (Some(owner), Some(statement)) = (signer(connection, farm)?, self::farm(connection, farm)?)
    else {
        return Ok(None);
    };
    adoption_by(connection, node, &owner, &statement)
}

/// The same, when the farm has been read already.
pub fn adoption_by(
    connection: &Connection,
    node: &NodeId,
    owner: &Signer,
    farm: &Signed<Farm>,
) -> Result<Option<StatementId>, Fault> {
    let sql = "SELECT statement FROM adoptions WHERE node = ?1 AND farm = ?2";
    for id in ids(connection, sql, &[&node.0, &farm.body.farm.0])? {
        let adoption: Signed<Adoption> = signed(connection, &StatementId(id))?;
        if consents(owner, farm, &adoption) {
            return Ok(Some(adoption.id));
        }
    }
    Ok(None)
}

/// Whether the farm has consented to the node.
pub fn adopted(connection: &Connection, node: &NodeId, farm: &IdentityId) -> Result<bool, Fault> {
    Ok(adoption(connection, node, farm)?.is_some())
}

/// The last order of this farm to the node to read its store through.
pub fn scrub(
    connection: &Connection,
    node: &NodeId,
    farm: &IdentityId,
) -> Result<Option<StatementId>, Fault> {
    let sql = "SELECT statement FROM scrubs WHERE node = ?1 AND farm = ?2";
    Ok(ids(connection, sql, &[&node.0, &farm.0])?.first().map(|id| StatementId(*id)))
}

/// The standing header of a version.
pub fn header(
    connection: &Connection,
    contract: &ContractId,
    version: u64,
) -> Result<Option<Signed<Header>>, Fault> {
    let Ok(version) = i64::try_from(version) else { return Ok(None) };
    let sql = "SELECT statement FROM headers WHERE contract = ?1 AND version = ?2";
    let found = ids(connection, sql, &[&contract.0, &version])?;
    found.first().map(|id| signed(connection, &StatementId(*id))).transpose()
}

/// The number of versions of a contract; 0 when it is not known.
pub fn versions(connection: &Connection, contract: &ContractId) -> Result<u64, Fault> {
    count(connection, "SELECT COUNT(*) FROM headers WHERE contract = ?1", &[&contract.0])
}
