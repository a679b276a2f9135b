//! Lists for people: a page at a time, bounded by rows and by what they cost to read.
//!
//! One row that cannot be read never hides the others: it is named instead. Refuses nothing else
//! than what the database refuses.

use crate::{
    db::{self, Fault},
    proposal::{self, Matter},
    sql::Connection,
    standing, store,
    transparency::Entry,
    views::{self, Order},
};
use contract::{ContractId, IdentityId, NodeId, StatementId, Timestamp, bundle::BUNDLE_BYTES_MAX};
use registry_api::{
    problem::codes,
    view::{ContractSummary, FarmView, NodeView, ResultView},
};
use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

/// Rows of one page.
pub const ROWS_MAX: usize = 50;
/// A page reads statements of so many bytes, and begins no other row beyond that.
const WEIGHT_MAX: u64 = 16 << 20;
/// What a page reads and verifies for each byte of the plan of a node: the plan names workloads in
/// some 30 bytes each, and a result stands behind each.
const PLAN_WEIGHT: u64 = 16;
/// Rows that cannot be read that are told in the log, each once.
const TOLD_MAX: usize = 1000;
/// What a node weighs that is summed up: its statement, adoption and last sign of life.
const NODE_WEIGHT: u64 = 4096;

/// What stands in one row.
#[derive(Debug)]
pub enum Shown<T> {
    /// As it was read.
    Read(T),
    /// It is there, and cannot be read.
    Unreadable,
    /// It is there, and larger than what a page reads.
    TooLarge,
}

/// A row, by the id under which it can be asked for.
#[derive(Debug)]
pub struct Row<Id, T> {
    /// The id.
    pub id: Id,
    /// What it shows.
    pub shown: Shown<T>,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<Id, T> {
    /// In the order of the list.
    pub rows: Vec<Row<Id, T>>,
    /// Candidates that were looked at, whether they became a row or not.
    pub seen: usize,
    /// The last candidate that was looked at, when there are more behind it.
    pub next: Option<Id>,
}

/// Reads candidates until a bound is met. `read` gives `None` for one that is not to be shown.
fn page<Id: Copy + fmt::Display, T>(
    candidates: &[Id],
    weigh: impl Fn(&Id) -> Result<u64, Fault>,
    read: impl Fn(&Id) -> Result<Option<T>, Fault>,
) -> Result<Page<Id, T>, Fault> {
    page_of(candidates, weigh, read, |_| 0)
}

/// The same where it shows only in the end what a row has cost besides.
fn page_of<Id: Copy + fmt::Display, T>(
    candidates: &[Id],
    weigh: impl Fn(&Id) -> Result<u64, Fault>,
    read: impl Fn(&Id) -> Result<Option<T>, Fault>,
    besides: impl Fn(&T) -> u64,
) -> Result<Page<Id, T>, Fault> {
    let (mut rows, mut weight, mut seen) = (Vec::new(), 0_u64, 0);
    for id in candidates.iter().take(ROWS_MAX) {
        // What cannot be weighed cannot be read either, and says so below.
        let own = weigh(id).unwrap_or(0);
        if own <= WEIGHT_MAX {
            weight += own;
            if seen > 0 && weight > WEIGHT_MAX {
                break;
            }
        }
        seen += 1;
        let shown =
            if own > WEIGHT_MAX { Ok(Some(Shown::TooLarge)) } else { readable(id, read(id)) };
        let shown = shown?;
        if let Some(Shown::Read(found)) = &shown {
            weight = weight.saturating_add(besides(found));
        }
        rows.extend(shown.map(|shown| Row { id: *id, shown }));
    }
    let next = candidates[..seen].last().filter(|_| seen < candidates.len()).copied();
    Ok(Page { rows, seen, next })
}

/// A fault of one row is told in the log and shown in the row.
fn readable<T>(
    id: &dyn fmt::Display,
    read: Result<Option<T>, Fault>,
) -> Result<Option<Shown<T>>, Fault> {
    match read {
        Ok(found) => Ok(found.map(Shown::Read)),
        // Every row after it would look as if it could not be read.
        Err(Fault::Broken(error)) if db::ends_transaction(&error) => Err(Fault::Broken(error)),
        Err(Fault::Broken(error)) => {
            log_once(&id.to_string(), &error);
            Ok(Some(Shown::Unreadable))
        }
        Err(refused @ Fault::Refused(_)) => Err(refused),
    }
}

/// Whoever asks for pages does not fill the log with the same row again and again.
fn log_once(id: &str, error: &anyhow::Error) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < TOLD_MAX && told.insert(id.to_owned()) {
        crate::log(&format!("{id} is not shown in a list: {error:#}"));
    }
}

/// One more than a page has, so that it is known whether there are more.
fn limit() -> i64 {
    i64::try_from(ROWS_MAX + 1).unwrap_or(i64::MAX)
}

/// Farms after an id.
pub fn farms(
    db: &Connection,
    after: Option<IdentityId>,
    now: Timestamp,
) -> Result<Page<IdentityId, FarmView>, Fault> {
    let sql = "SELECT id FROM farms WHERE id > ?1 ORDER BY id LIMIT ?2";
    let start = views::after(after.map(|id| id.0));
    let ids: Vec<_> =
        store::ids(db, sql, &[&start, &limit()])?.into_iter().map(IdentityId).collect();
    let weigh = |id: &IdentityId| {
        let nodes = store::count(db, "SELECT COUNT(*) FROM nodes WHERE farm = ?1", &[&id.0])?;
        // The sums end at a number of nodes; a larger farm is not heavier.
        Ok(nodes.saturating_mul(NODE_WEIGHT).min(WEIGHT_MAX))
    };
    page(&ids, weigh, |id| views::farm(db, id, now))
}

/// Nodes after an id, of one farm or all.
pub fn nodes(
    db: &Connection,
    farm: Option<IdentityId>,
    after: Option<NodeId>,
    now: Timestamp,
) -> Result<Page<NodeId, NodeView>, Fault> {
    let sql = "SELECT id FROM nodes WHERE id > ?1 AND (?2 IS NULL OR farm = ?2)
               ORDER BY id LIMIT ?3";
    let (start, farm) = (views::after(after.map(|id| id.0)), farm.map(|id| id.0));
    let ids = store::ids(db, sql, &[&start, &farm, &limit()])?;
    let ids: Vec<_> = ids.into_iter().map(NodeId).collect();
    let weigh = |id: &NodeId| {
        let sql = "SELECT (SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM statements WHERE id IN
                       (SELECT statement FROM nodes WHERE id = ?1))
                   + (SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM heartbeats WHERE node = ?1)";
        store::count(db, sql, &[&id.0])
    };
    page(&ids, weigh, |id| views::node(db, id, now))
}

/// What it takes to judge a contract, in bytes. Reads none of it. What others than its people can
/// add without end, as results, is not in it.
pub fn weight(db: &Connection, id: &ContractId) -> Result<u64, Fault> {
    let statements = store::count(
        db,
        "SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM statements WHERE id IN (
             SELECT statement FROM headers WHERE contract = ?1
             UNION SELECT statement FROM approvals WHERE contract = ?1
             UNION SELECT statement FROM cancels WHERE contract = ?1
             UNION SELECT statement FROM evidence WHERE contract = ?1)",
        &[&id.0],
    )?;
    // What a node would take is never too large for a page.
    Ok(if statements <= BUNDLE_BYTES_MAX as u64 { statements } else { u64::MAX })
}

/// The same with what its nodes have to do and have said: that makes a page shorter, and hides
/// nothing.
fn weight_at_work(db: &Connection, id: &ContractId) -> Result<u64, Fault> {
    let own = weight(db, id)?;
    if own > WEIGHT_MAX {
        return Ok(own);
    }
    let plans = store::count(
        db,
        "SELECT COALESCE(SUM(LENGTH(workloads)), 0) FROM deployments
         WHERE header IN (SELECT statement FROM headers WHERE contract = ?1)",
        &[&id.0],
    )?;
    Ok(own.saturating_add(plans.saturating_mul(PLAN_WEIGHT)).min(WEIGHT_MAX))
}

/// One contract by itself. `None` when `read` knows none.
pub fn one<T>(
    db: &Connection,
    id: &ContractId,
    read: impl Fn(&Connection) -> Result<Option<T>, Fault>,
) -> Result<Option<Shown<T>>, Fault> {
    let found = page(&[*id], |id| weight(db, id), |_| read(db))?;
    Ok(found.rows.into_iter().next().map(|row| row.shown))
}

/// Contracts after an id, of one owner or all.
pub fn contracts(
    db: &Connection,
    owner: Option<IdentityId>,
    after: Option<ContractId>,
    now: Timestamp,
) -> Result<Page<ContractId, ContractSummary>, Fault> {
    let sql = "SELECT id FROM contracts WHERE id > ?1 AND (?2 IS NULL OR owner = ?2)
               ORDER BY id LIMIT ?3";
    let (start, owner) = (views::after(after.map(|id| id.0)), owner.map(|id| id.0));
    let ids = store::ids(db, sql, &[&start, &owner, &limit()])?;
    let ids: Vec<_> = ids.into_iter().map(ContractId).collect();
    page(&ids, |id| weight_at_work(db, id), |id| standing::summary(db, id, now))
}

/// The contracts that changed last.
pub fn changed_last(
    db: &Connection,
    most: usize,
    now: Timestamp,
) -> Result<Page<ContractId, ContractSummary>, Fault> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sql = "SELECT contract FROM changes ORDER BY place DESC LIMIT ?1";
    let ids: Vec<_> = store::ids(db, sql, &[&most])?.into_iter().map(ContractId).collect();
    page(&ids, |id| weight_at_work(db, id), |id| standing::summary(db, id, now))
}

/// What waits for somebody's decision, among the contracts after an id that name them.
pub fn inbox(
    db: &Connection,
    who: &IdentityId,
    after: Option<ContractId>,
    now: Timestamp,
) -> Result<Page<ContractId, Vec<Matter>>, Fault> {
    let sql = "SELECT contract FROM stakeholders WHERE identity = ?1 AND contract > ?2
               ORDER BY contract LIMIT ?3";
    let start = views::after(after.map(|id| id.0));
    let ids = store::ids(db, sql, &[&who.0, &start, &limit()])?;
    let ids: Vec<_> = ids.into_iter().map(ContractId).collect();
    let read = |id: &ContractId| proposal::awaiting(db, id, who, now);
    let besides = |matters: &Vec<Matter>| matters.iter().map(Matter::bytes).sum();
    page_of(&ids, |id| weight(db, id), read, besides)
}

/// Which results are wanted; all that are set must fit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Which {
    /// About this contract.
    pub contract: Option<ContractId>,
    /// Of this node.
    pub node: Option<NodeId>,
    /// Only of nodes that the contract names: any node may send results about any contract.
    pub named: bool,
    /// Only those that came before this one.
    pub before: Option<StatementId>,
}

fn unknown_result(id: &StatementId) -> Fault {
    let text = format!("the result {id} is not known here");
    crate::refusal(404, codes::NOT_FOUND, text, "Begin at /results.")
}

fn named_ids(
    db: &Connection,
    contract: &ContractId,
    order: Order,
) -> Result<Vec<StatementId>, Fault> {
    let before = match order {
        Order::Before(place) => i64::try_from(place).unwrap_or(i64::MAX),
        Order::Newest | Order::After(_) => i64::MAX,
    };
    let sql = "SELECT statement FROM results WHERE contract = ?1 AND place < ?2
                   AND node IN (SELECT node FROM deployments WHERE header IN
                       (SELECT statement FROM headers WHERE contract = ?1))
               ORDER BY place DESC LIMIT ?3";
    let ids = store::ids(db, sql, &[&contract.0, &before, &limit()])?;
    Ok(ids.into_iter().map(StatementId).collect())
}

/// Results, newest first.
pub fn results(db: &Connection, which: Which) -> Result<Page<StatementId, ResultView>, Fault> {
    let order = match which.before {
        None => Order::Newest,
        Some(id) => {
            let sql = "SELECT COALESCE(MAX(place), 0) FROM results WHERE statement = ?1";
            match store::count(db, sql, &[&id.0])? {
                // Places begin with 1.
                0 => return Err(unknown_result(&id)),
                place => Order::Before(place),
            }
        }
    };
    let ids = match which.contract.filter(|_| which.named) {
        Some(contract) => named_ids(db, &contract, order)?,
        None => views::result_ids(db, which.contract, which.node, order, ROWS_MAX + 1)?,
    };
    let weigh = |id: &StatementId| {
        store::count(db, "SELECT LENGTH(payload) FROM statements WHERE id = ?1", &[&id.0])
    };
    page(&ids, weigh, |id| views::result(db, id).map(Some))
}

/// How many there are of something.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Farms.
    pub farms: u64,
    /// Nodes, adopted or not.
    pub nodes: u64,
    /// Nodes that gave a sign of life lately.
    pub online: u64,
    /// Contracts in any state.
    pub contracts: u64,
}

/// The grid in numbers.
pub fn counts(db: &Connection, now: Timestamp) -> Result<Counts, Fault> {
    let recent = now.seconds() - crate::results::OFFLINE_AFTER_S;
    Ok(Counts {
        farms: store::count(db, "SELECT COUNT(*) FROM farms", &[])?,
        nodes: store::count(db, "SELECT COUNT(*) FROM nodes", &[])?,
        online: store::count(
            db,
            "SELECT COUNT(*) FROM heartbeats WHERE received > ?1",
            &[&recent],
        )?,
        contracts: store::count(db, "SELECT COUNT(*) FROM contracts", &[])?,
    })
}

/// Entries of the log below an index, newest first.
pub fn entries(db: &Connection, below: u64) -> Result<Vec<Entry>, Fault> {
    let sql = "SELECT place, record FROM records WHERE place <= ?1 ORDER BY place DESC LIMIT ?2";
    let most = i64::try_from(ROWS_MAX).unwrap_or(i64::MAX);
    let below = i64::try_from(below).unwrap_or(i64::MAX);
    let rows = db.query(sql, &[&below, &most], |row| Ok((row.get::<i64>(0)?, row.get(1)?)))?;
    let mut found = Vec::new();
    for (place, record) in rows {
        let index = u64::try_from(place - 1).map_err(anyhow::Error::new)?;
        found.push(Entry { index, record: Some(record) });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(found: &Page<u64, u64>) -> Vec<u64> {
        found.rows.iter().map(|row| row.id).collect()
    }

    fn all(candidates: &[u64], weight: u64) -> Page<u64, u64> {
        page(candidates, |_| Ok(weight), |id| Ok(Some(*id))).unwrap()
    }

    #[test]
    fn a_page_ends_at_its_rows_and_at_what_it_read() {
        let candidates: Vec<u64> = (0..200).collect();
        let rows = all(&candidates, 1);
        assert_eq!((rows.rows.len(), rows.seen, rows.next), (ROWS_MAX, ROWS_MAX, Some(49)));
        let heavy = all(&candidates, WEIGHT_MAX / 3);
        assert_eq!((ids(&heavy), heavy.next), (vec![0, 1, 2], Some(2)));
        let costly =
            page_of(&candidates, |_| Ok(1), |id| Ok(Some(*id)), |_| WEIGHT_MAX / 2).unwrap();
        assert_eq!((ids(&costly), costly.next), (vec![0, 1], Some(1)), "what it cost besides");
        let one = all(&candidates, WEIGHT_MAX);
        assert_eq!((ids(&one), one.next), (vec![0], Some(0)), "one row is always possible");
        let last = all(&candidates[..ROWS_MAX], 1);
        assert_eq!((last.rows.len(), last.next), (ROWS_MAX, None));
        assert_eq!(all(&[], 1).next, None);
    }

    #[test]
    fn what_is_too_large_or_unreadable_is_named_and_hides_nothing() {
        let weigh = |id: &u64| Ok(if *id == 1 { u64::MAX } else { WEIGHT_MAX / 4 });
        let read = |id: &u64| match id {
            2 => Err(Fault::Broken(anyhow::anyhow!("bad bytes"))),
            3 => Ok(None),
            _ => Ok(Some(*id)),
        };
        let found = page(&[0, 1, 2, 3, 4], weigh, read).unwrap();
        assert_eq!((ids(&found), found.seen, found.next), (vec![0, 1, 2, 4], 5, None));
        assert!(matches!(found.rows[0].shown, Shown::Read(0)));
        assert!(matches!(found.rows[1].shown, Shown::TooLarge));
        assert!(matches!(found.rows[2].shown, Shown::Unreadable));
        assert!(matches!(found.rows[3].shown, Shown::Read(4)));
    }
}
