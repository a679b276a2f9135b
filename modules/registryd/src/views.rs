//! Farms, nodes, identities and results as the queries show them. Derived at every question.

use crate::{
    db::Fault,
    results::{self, LastBeat},
    sql::{Argument, Connection},
    store,
};
use contract::{
    Capacity, ContractId, IdentityId, NodeId, Signed, StatementId, Timestamp, identity::Identity,
    report::Report,
};
use registry_api::view::{
    DECISIONS_MAX, Decisions, FarmView, Farms, IdentityView, LIST_MAX, NodeView, Nodes, ResultView,
    Results,
};

/// Nodes of one farm whose capacity is summed up.
const FARM_NODES_MAX: usize = 10_000;

/// The first id of all, or the one after which a list goes on.
pub fn after(id: Option<[u8; 32]>) -> Vec<u8> {
    id.map_or_else(Vec::new, Vec::from)
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// How somebody wants to be called.
pub fn name(connection: &Connection, id: &IdentityId) -> Result<Option<String>, Fault> {
    let sql = "SELECT name FROM identities WHERE id = ?1";
    Ok(connection.query_optional(sql, &[&id.0], |row| row.get(0))?)
}

/// An identity.
pub fn identity(connection: &Connection, id: &IdentityId) -> Result<Option<IdentityView>, Fault> {
    let stored = store::statement(connection, &StatementId(id.0))?;
    let Some(stored) = stored.filter(|stored| stored.complete) else { return Ok(None) };
    let Ok(signed) = Signed::<Identity>::open(&stored.envelope) else { return Ok(None) };
    Ok(Some(IdentityView {
        id: *id,
        name: signed.body.name,
        threshold: signed.body.threshold,
        keys: signed.body.keys.len() as u64,
        statement: stored.envelope,
    }))
}

/// A farm with the sums over its nodes.
pub fn farm(
    connection: &Connection,
    id: &IdentityId,
    now: Timestamp,
) -> Result<Option<FarmView>, Fault> {
    let Some(signed) = store::farm(connection, id)? else { return Ok(None) };
    let owner = store::signer(connection, id)?;
    let (mut nodes, mut online, mut waiting) = (0, 0, 0);
    let mut capacity = Capacity::default();
    let sql = "SELECT id FROM nodes WHERE farm = ?1 ORDER BY id LIMIT ?2";
    for node in store::ids(connection, sql, &[&id.0, &limit(FARM_NODES_MAX)])? {
        let node = NodeId(node);
        // The farm and its signer are read once, however many nodes there are.
        let adopted = match &owner {
            Some(owner) => store::adoption_by(connection, &node, owner, &signed)?.is_some(),
            None => false,
        };
        if !adopted {
            waiting += 1;
            continue;
        }
        nodes += 1;
        online += u64::from(is_online(connection, &node, now)?);
        if let Some(statement) = store::node(connection, &node)? {
            capacity = capacity.plus(&statement.body.capacity);
        }
    }
    let farm = signed.body;
    Ok(Some(FarmView {
        id: *id,
        name: farm.name,
        location: farm.location,
        version: farm.version,
        enrolment_keys: farm.enrolment.iter().filter(|token| now < token.expires).count() as u64,
        nodes,
        online,
        waiting,
        capacity,
        statement: store::envelope(connection, &signed.id)?,
    }))
}

/// Farms after an id.
pub fn farms(
    connection: &Connection,
    after_id: Option<IdentityId>,
    now: Timestamp,
) -> Result<Farms, Fault> {
    let sql = "SELECT id FROM farms WHERE id > ?1 ORDER BY id LIMIT ?2";
    let start = after(after_id.map(|id| id.0));
    let ids = store::ids(connection, sql, &[&start, &limit(LIST_MAX)])?;
    let next = next(&ids);
    let mut farms = Vec::with_capacity(ids.len());
    for id in ids {
        farms.extend(farm(connection, &IdentityId(id), now)?);
    }
    Ok(Farms { farms, next })
}

/// Where a full list goes on.
pub fn next(ids: &[[u8; 32]]) -> Option<String> {
    ids.last().filter(|_| ids.len() == LIST_MAX).map(hex::encode)
}

/// A node.
pub fn node(
    connection: &Connection,
    id: &NodeId,
    now: Timestamp,
) -> Result<Option<NodeView>, Fault> {
    let Some(signed) = store::node(connection, id)? else { return Ok(None) };
    let node = signed.body;
    let adoption = store::adoption(connection, id, &node.farm)?;
    let beat = results::last(connection, id)?;
    let said = beat.as_ref().map(|last: &LastBeat| &last.beat);
    Ok(Some(NodeView {
        id: *id,
        farm: node.farm,
        farm_name: store::farm(connection, &node.farm)?.map(|farm| farm.body.name),
        adopted: adoption.is_some(),
        online: beat.as_ref().is_some_and(|beat| beat.is_recent(now)),
        last_seen: beat.as_ref().map(|beat| beat.received),
        uptime_s: said.map(|beat| beat.uptime_s),
        version: node.version,
        image: said.map_or(node.image, |beat| beat.image.clone()),
        evidence: node.evidence,
        capacity: node.capacity,
        free: said.map(|beat| beat.free),
        degraded: node.degraded,
        hardware: node.hardware,
        contracts: said.map_or_else(Vec::new, |beat| beat.contracts.clone()),
        conflicts: store::count(
            connection,
            "SELECT COUNT(*) FROM results WHERE node = ?1 AND conflict = 1",
            &[&id.0],
        )?,
        statement: store::envelope(connection, &signed.id)?,
        adoption: adoption.map(|id| store::envelope(connection, &id)).transpose()?,
        scrub: store::scrub(connection, id, &node.farm)?
            .map(|id| store::envelope(connection, &id))
            .transpose()?,
    }))
}

/// Whether signs of life come from a node.
pub fn is_online(connection: &Connection, id: &NodeId, now: Timestamp) -> Result<bool, Fault> {
    let sql = "SELECT COUNT(*) FROM heartbeats WHERE node = ?1 AND received > ?2";
    let recent = now.seconds() - results::OFFLINE_AFTER_S;
    Ok(store::count(connection, sql, &[&id.0, &recent])? > 0)
}

/// Nodes after an id, of one farm or all.
pub fn nodes(
    connection: &Connection,
    farm: Option<IdentityId>,
    after_id: Option<NodeId>,
    now: Timestamp,
) -> Result<Nodes, Fault> {
    let start = after(after_id.map(|id| id.0));
    let sql = "SELECT id FROM nodes WHERE id > ?1 AND (?2 IS NULL OR farm = ?2)
               ORDER BY id LIMIT ?3";
    let farm = farm.map(|id| id.0);
    let ids = store::ids(connection, sql, &[&start, &farm, &limit(LIST_MAX)])?;
    let next = next(&ids);
    let mut nodes = Vec::with_capacity(ids.len());
    for id in ids {
        nodes.extend(node(connection, &NodeId(id), now)?);
    }
    Ok(Nodes { nodes, next })
}

/// Every decision on a contract that arrived after this place. `None` when the contract is not known.
pub fn decisions(
    connection: &Connection,
    contract: &ContractId,
    after: u64,
) -> Result<Option<Decisions>, Fault> {
    if store::versions(connection, contract)? == 0 {
        return Ok(None);
    }
    let sql = "SELECT statement, place FROM approvals JOIN statements ON statements.id = statement
               WHERE contract = ?1 AND place > ?2 ORDER BY place LIMIT ?3";
    let place = i64::try_from(after).unwrap_or(i64::MAX);
    let arguments: [&dyn Argument; 3] = [&contract.0, &place, &limit(DECISIONS_MAX)];
    let rows =
        connection.query(sql, &arguments, |row| Ok((store::hash(row, 0)?, row.get::<i64>(1)?)))?;
    let mut found = Decisions { approvals: Vec::new(), next: after };
    for (id, place) in rows {
        found.approvals.push(store::envelope(connection, &StatementId(id))?);
        found.next = u64::try_from(place).unwrap_or(after);
    }
    Ok(Some(found))
}

/// In which order results are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those that follow an arrival, oldest first.
    After(u64),
    /// The newest first.
    Newest,
    /// Those that came before an arrival, newest first.
    Before(u64),
}

/// Results, of one contract or node or of all.
pub fn results(
    connection: &Connection,
    contract: Option<ContractId>,
    node: Option<NodeId>,
    order: Order,
    most: usize,
) -> Result<Results, Fault> {
    let ids = result_ids(connection, contract, node, order, most)?;
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        results.push(result(connection, &id)?);
    }
    let next = results.iter().map(|one| one.arrival).max();
    let next = next.unwrap_or(match order {
        Order::After(place) => place,
        Order::Newest | Order::Before(_) => 0,
    });
    Ok(Results { results, next })
}

/// The same by their statements, unread.
pub fn result_ids(
    connection: &Connection,
    contract: Option<ContractId>,
    node: Option<NodeId>,
    order: Order,
    most: usize,
) -> Result<Vec<StatementId>, Fault> {
    let (bound, place) = match order {
        Order::After(place) => ("place > ?3 ORDER BY place", place),
        Order::Newest => ("place > ?3 ORDER BY place DESC", 0),
        Order::Before(place) => ("place < ?3 ORDER BY place DESC", place),
    };
    let place = i64::try_from(place).unwrap_or(i64::MAX);
    // One of three fixed texts for each of three orders: nothing of a request is in it.
    let filter = match (contract, node) {
        (Some(_), _) => "contract = ?1 AND (?2 IS NULL OR node = ?2)",
        (None, Some(_)) => "?1 IS NULL AND node = ?2",
        (None, None) => "?1 IS NULL AND ?2 IS NULL",
    };
    let sql = format!("SELECT statement FROM results WHERE {filter} AND {bound} LIMIT ?4");
    let (contract, node) = (contract.map(|id| id.0), node.map(|id| id.0));
    let ids = store::ids(connection, &sql, &[&contract, &node, &place, &limit(most)])?;
    Ok(ids.into_iter().map(StatementId).collect())
}

/// A result that is stored.
pub fn result(connection: &Connection, id: &StatementId) -> Result<ResultView, Fault> {
    let sql = "SELECT results.place, statements.received, conflict
               FROM results JOIN statements ON statements.id = statement WHERE statement = ?1";
    let (arrival, received, conflict) = connection.query_one(sql, &[&id.0], |row| {
        Ok((row.get::<i64>(0)?, row.get(1)?, row.get::<i64>(2)? != 0))
    })?;
    let report = store::signed::<Report>(connection, id)?.body;
    Ok(ResultView {
        id: *id,
        arrival: u64::try_from(arrival).unwrap_or(0),
        node: report.node,
        boot: report.boot,
        seq: report.seq,
        at: report.at,
        received: Timestamp::from_seconds(received),
        contract: report.contract,
        version: report.version,
        workload: report.workload,
        state: report.state,
        code: report.code,
        message: report.message,
        ran: report.ran,
        conflict,
    })
}
