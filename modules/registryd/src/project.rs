//! The projection: tables that follow from the statements, in the order in which they count.

use crate::{changes, db::Fault, sql::Connection, store};
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

/// Statements that are read at once.
const STATEMENTS_MAX: i64 = 1000;
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
        connection.execute_batch(&format!("DELETE FROM {table}"))?;
    }
    let sql = "SELECT id, place FROM statements WHERE place > ?1 ORDER BY place LIMIT ?2";
    let (mut count, mut last) = (0, 0_i64);
    loop {
        let rows = connection.query(sql, &[&last, &STATEMENTS_MAX], |row| {
            Ok((store::hash(row, 0)?, row.get::<i64>(1)?))
        })?;
        if rows.is_empty() {
            return Ok(count);
        }
        for (id, place) in rows {
            apply(connection, &store::envelope(connection, &StatementId(id))?, place)?;
            (count, last) = (count + 1, place);
        }
    }
}

fn open<T: Statement>(envelope: &Envelope) -> Result<Signed<T>, Fault> {
    Ok(Signed::open(envelope).context("reading a stored statement")?)
}

fn identity(connection: &Connection, signed: &Signed<Identity>) -> Result<(), Fault> {
    let sql = "INSERT INTO identities (id, name) VALUES (?1, ?2)";
    connection.execute(sql, &[&signed.id.0, &signed.body.name])?;
    Ok(())
}

fn farm(connection: &Connection, signed: &Signed<Farm>) -> Result<(), Fault> {
    let sql = "INSERT INTO farms (id, statement, version) VALUES (?1, ?2, ?3)
               ON CONFLICT (id) DO UPDATE
               SET statement = excluded.statement, version = excluded.version";
    let version = number(signed.body.version)?;
    connection.execute(sql, &[&signed.body.farm.0, &signed.id.0, &version])?;
    Ok(())
}

fn adoption(connection: &Connection, signed: &Signed<Adoption>) -> Result<(), Fault> {
    let sql = "INSERT INTO adoptions (node, farm, statement) VALUES (?1, ?2, ?3)";
    connection.execute(sql, &[&signed.body.node.0, &signed.body.farm.0, &signed.id.0])?;
    Ok(())
}

fn node(connection: &Connection, signed: &Signed<Node>) -> Result<(), Fault> {
    let node = &signed.body;
    let sql = "INSERT INTO nodes (id, statement, farm, version) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (id) DO UPDATE
               SET statement = excluded.statement, farm = excluded.farm,
                   version = excluded.version";
    let (id, version) = (node_id(&node.key), number(node.version)?);
    connection.execute(sql, &[&id.0, &signed.id.0, &node.farm.0, &version])?;
    Ok(())
}

fn header(connection: &Connection, signed: &Signed<Header>) -> Result<(), Fault> {
    let header = &signed.body;
    let sql = "INSERT INTO headers (contract, version, statement, pool, expires)
               VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (contract, version) DO UPDATE
               SET statement = excluded.statement, pool = excluded.pool,
                   expires = excluded.expires";
    let (version, expires) = (number(header.version)?, header.expires.seconds());
    connection
        .execute(sql, &[&header.contract.0, &version, &signed.id.0, &header.pool.0, &expires])?;
    changes::project_header(connection, header)?;
    let sql = "INSERT INTO contracts (id, owner) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    connection.execute(sql, &[&header.contract.0, &header.owner.0])?;
    let sql =
        "INSERT INTO stakeholders (identity, contract) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    for holder in &header.stakeholders {
        connection.execute(sql, &[&holder.identity.0, &header.contract.0])?;
    }
    Ok(())
}

fn approval(connection: &Connection, signed: &Signed<Approval>) -> Result<(), Fault> {
    let approval = &signed.body;
    let strength = match approval.decision {
        Decision::Approve => 0_i64,
        Decision::Withdraw => 1,
        Decision::Reject => 2,
    };
    connection.execute(
        "INSERT INTO approvals (contract, statement, subject, signer, issued, strength)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &[
            &approval.contract.0,
            &signed.id.0,
            &approval.subject.0,
            &approval.signer.0,
            &approval.issued.seconds(),
            &strength,
        ],
    )?;
    Ok(())
}

fn cancel(connection: &Connection, signed: &Signed<Cancel>) -> Result<(), Fault> {
    let cancel = &signed.body;
    let sql = "INSERT INTO cancels (contract, statement, version) VALUES (?1, ?2, ?3)";
    connection.execute(sql, &[&cancel.contract.0, &signed.id.0, &number(cancel.version)?])?;
    Ok(())
}

fn scrub(connection: &Connection, signed: &Signed<Scrub>) -> Result<(), Fault> {
    let order = &signed.body;
    connection.execute(
        "INSERT INTO scrubs (node, farm, statement, issued) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (node, farm) DO UPDATE
         SET statement = excluded.statement, issued = excluded.issued
         WHERE excluded.issued > scrubs.issued",
        &[&order.node.0, &order.farm.0, &signed.id.0, &order.issued.seconds()],
    )?;
    Ok(())
}

fn result(connection: &Connection, signed: &Signed<Report>, place: i64) -> Result<(), Fault> {
    let report = &signed.body;
    let seq = number(report.seq)?;
    // At most one of a number is no conflict, so that this counts to one.
    connection.execute(
        "INSERT INTO results (place, statement, node, seq, contract, workload, conflict)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6,
             (SELECT COUNT(*) FROM results WHERE node = ?3 AND seq = ?4 AND conflict = 0))",
        &[&place, &signed.id.0, &report.node.0, &seq, &report.contract.0, &report.workload],
    )?;
    Ok(())
}

/// Databases count to 2^63 only.
fn number(value: u64) -> Result<i64, Fault> {
    i64::try_from(value).map_err(|_| {
        let text = format!("the number {value} is larger than the registry can store");
        crate::refusal(400, registry_api::problem::codes::MALFORMED, text, "")
    })
}
