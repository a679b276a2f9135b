//! The projection: tables that follow from the statements, in the order in which they count.

use crate::{changes, db::Fault, store};
use anyhow::Context as _;
use contract::{
    Envelope, Kind, Signed, Statement, StatementId,
    decision::{Approval, Cancel, Decision},
    farm::{Adoption, Farm},
    header::Header,
    identity::Identity,
    node::{Node, node_id},
    report::Report,
    scrub::Scrub,
};
use rusqlite::{Connection, params};

/// Tables that [`rebuild`] makes anew.
const TABLES: [&str; 15] = [
    "identities",
    "farms",
    "nodes",
    "adoptions",
    "headers",
    "contracts",
    "stakeholders",
    "approvals",
    "cancels",
    "results",
    "evidence",
    "grants",
    "changes",
    "bundles",
    "scrubs",
];

/// Takes note of a statement that counts from now on.
pub fn apply(connection: &Connection, envelope: &Envelope, place: i64) -> Result<(), Fault> {
    let kind = envelope.kind().context("a statement of an unknown kind is stored")?;
    match kind {
        Kind::Identity => identity(connection, &open(envelope)?),
        Kind::Farm => farm(connection, &open(envelope)?),
        Kind::Adoption => adoption(connection, &open(envelope)?),
        Kind::Node => node(connection, &open(envelope)?),
        Kind::Contract => header(connection, &open(envelope)?),
        Kind::Approval => approval(connection, &open(envelope)?),
        Kind::Cancel => cancel(connection, &open(envelope)?),
        Kind::Result => result(connection, &open(envelope)?, place),
        Kind::Pool => changes::project_pool(connection, &open(envelope)?),
        Kind::Scrub => scrub(connection, &open(envelope)?),
        // Never stored.
        Kind::Heartbeat => Ok(()),
    }?;
    changes::note(connection, envelope)
}

/// Makes the projection anew. Returns how many statements count.
pub fn rebuild(connection: &Connection) -> Result<u64, Fault> {
    for table in TABLES {
        connection.execute(&format!("DELETE FROM {table}"), [])?;
    }
    let mut query = connection
        .prepare("SELECT id, place FROM statements WHERE place IS NOT NULL ORDER BY place")?;
    let rows = query.query_map([], |row| Ok((store::hash(row, 0)?, row.get::<_, i64>(1)?)))?;
    let mut count = 0;
    for row in rows {
        let (id, place) = row?;
        apply(connection, &store::envelope(connection, &StatementId(id))?, place)?;
        count += 1;
    }
    Ok(count)
}

fn open<T: Statement>(envelope: &Envelope) -> Result<Signed<T>, Fault> {
    Ok(Signed::open(envelope).context("reading a stored statement")?)
}

fn identity(connection: &Connection, signed: &Signed<Identity>) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT INTO identities (id, name) VALUES (?1, ?2)")?
        .execute(params![signed.id.0, signed.body.name])?;
    Ok(())
}

fn farm(connection: &Connection, signed: &Signed<Farm>) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO farms (id, statement, version) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![signed.body.farm.0, signed.id.0, number(signed.body.version)?])?;
    Ok(())
}

fn adoption(connection: &Connection, signed: &Signed<Adoption>) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT INTO adoptions (node, farm, statement) VALUES (?1, ?2, ?3)")?
        .execute(params![signed.body.node.0, signed.body.farm.0, signed.id.0])?;
    Ok(())
}

fn node(connection: &Connection, signed: &Signed<Node>) -> Result<(), Fault> {
    let node = &signed.body;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO nodes (id, statement, farm, version) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![node_id(&node.key).0, signed.id.0, node.farm.0, number(node.version)?])?;
    Ok(())
}

fn header(connection: &Connection, signed: &Signed<Header>) -> Result<(), Fault> {
    let header = &signed.body;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO headers (contract, version, statement, pool, expires)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            header.contract.0,
            number(header.version)?,
            signed.id.0,
            header.pool.0,
            header.expires.seconds()
        ])?;
    changes::project_header(connection, header)?;
    connection
        .prepare_cached("INSERT OR IGNORE INTO contracts (id, owner) VALUES (?1, ?2)")?
        .execute(params![header.contract.0, header.owner.0])?;
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO stakeholders (identity, contract) VALUES (?1, ?2)",
    )?;
    for holder in &header.stakeholders {
        insert.execute(params![holder.identity.0, header.contract.0])?;
    }
    Ok(())
}

fn approval(connection: &Connection, signed: &Signed<Approval>) -> Result<(), Fault> {
    let approval = &signed.body;
    let strength = match approval.decision {
        Decision::Approve => 0,
        Decision::Withdraw => 1,
        Decision::Reject => 2,
    };
    connection
        .prepare_cached(
            "INSERT INTO approvals (contract, statement, subject, signer, issued, strength)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            approval.contract.0,
            signed.id.0,
            approval.subject.0,
            approval.signer.0,
            approval.issued.seconds(),
            strength
        ])?;
    Ok(())
}

fn cancel(connection: &Connection, signed: &Signed<Cancel>) -> Result<(), Fault> {
    let cancel = &signed.body;
    connection
        .prepare_cached("INSERT INTO cancels (contract, statement, version) VALUES (?1, ?2, ?3)")?
        .execute(params![cancel.contract.0, signed.id.0, number(cancel.version)?])?;
    Ok(())
}

fn scrub(connection: &Connection, signed: &Signed<Scrub>) -> Result<(), Fault> {
    let order = &signed.body;
    connection
        .prepare_cached(
            "INSERT INTO scrubs (node, farm, statement, issued) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (node, farm) DO UPDATE
             SET statement = excluded.statement, issued = excluded.issued
             WHERE excluded.issued > scrubs.issued",
        )?
        .execute(params![order.node.0, order.farm.0, signed.id.0, order.issued.seconds()])?;
    Ok(())
}

fn result(connection: &Connection, signed: &Signed<Report>, place: i64) -> Result<(), Fault> {
    let report = &signed.body;
    let seq = number(report.seq)?;
    connection
        .prepare_cached(
            "INSERT INTO results (place, statement, node, seq, contract, workload, conflict)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6,
                 EXISTS (SELECT 1 FROM results WHERE node = ?3 AND seq = ?4 AND conflict = 0))",
        )?
        .execute(params![
            place,
            signed.id.0,
            report.node.0,
            seq,
            report.contract.0,
            report.workload
        ])?;
    Ok(())
}

/// SQLite counts to 2^63 only.
fn number(value: u64) -> Result<i64, Fault> {
    i64::try_from(value).map_err(|_| {
        let text = format!("the number {value} is larger than the registry can store");
        crate::refusal(400, registry_api::problem::codes::MALFORMED, text, "")
    })
}
