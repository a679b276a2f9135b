//! What somebody is asked to sign: an order to end a contract, or a version with the exact
//! difference from the one in force.
//!
//! The difference is made of the bytes that were signed. What is not compared is counted.

use crate::{
    db::Fault,
    difference::{self, Change, LEAVES_MAX, Leaves, TooMany},
    documents,
    sql::Connection,
    standing::{self, Facts},
    store, views,
};
use anyhow::Context as _;
use contract::{
    ContractId, DocumentId, IdentityId, NodeId, StatementId, Timestamp,
    decision::{Action, CANCEL_OPEN_S, Decision, Retention},
    header::Header,
};
use registry_api::view::Awaited;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Changes of a version in a list; the rest has a page of its own.
const CHANGES_BEGUN: usize = 100;
/// Values of a header that say who asks and who decides. They come first, whatever a contract has.
const FIRST: [&str; 5] = ["owner", "policy", "stakeholders", "title", "purpose"];
/// Members of a document that say where it stands, and differ without a meaning.
const PLACE: [&str; 3] = ["contract", "version", "node"];
/// Nodes whose documents are compared,
const NODES_MAX: usize = 32;
/// and bytes of their documents.
const DOCUMENTS_BYTES_MAX: i64 = 4 << 20;

/// The newest version beside the one in force.
#[derive(Debug)]
pub struct Proposal {
    /// The contract.
    pub contract: ContractId,
    /// Its title in the newest version.
    pub title: String,
    /// The version in force, when there is one that is not the newest.
    pub before: Option<(u64, StatementId)>,
    /// The newest version.
    pub version: u64,
    /// Its header, which an approval names.
    pub statement: StatementId,
    /// Whether the newest version is the one in force, so that nothing is proposed.
    pub in_force: bool,
    /// Every value that is not the same, or the first of them; all values when there is nothing in
    /// force.
    pub changes: Vec<Change>,
    /// How many are not the same.
    pub total: usize,
    /// Bytes of documents that were read for it.
    pub bytes: u64,
    /// Nodes of the newest version, and of the one in force, whose documents are not compared:
    /// there are too many, or they are too large.
    pub left_out: (u64, u64),
    /// Whether a header has more values than are compared. Then there are no changes to show.
    pub too_many: bool,
    /// Whether documents of the newest version are not here.
    pub documents_missing: bool,
    /// Whether those of the version in force are not here. Then what nodes do is not compared.
    pub documents_before_missing: bool,
    /// Why nobody can say which version is in force.
    pub unjudged: Option<String>,
    /// Whether somebody's decision on it still counts.
    pub open: bool,
}

impl Proposal {
    /// With the first changes only, so that a list of them does not fill the memory.
    fn begun(mut self) -> Self {
        self.changes.truncate(CHANGES_BEGUN);
        self.changes.shrink_to_fit();
        self
    }
}

/// One thing that waits for somebody's decision.
#[derive(Debug)]
pub struct Matter {
    /// The contract.
    pub contract: ContractId,
    /// Its title, of the version that is decided on.
    pub title: String,
    /// Who asks.
    pub owner: IdentityId,
    /// How the owner wants to be called.
    pub owner_name: Option<String>,
    /// What the one who is asked has decided so far.
    pub decided: Option<Decision>,
    /// Who is asked for what.
    pub asked: Awaited,
    /// A decision made later does not count.
    pub until: Timestamp,
    /// What it is about.
    pub about: About,
}

impl Matter {
    /// Bytes of documents that were read for it.
    pub fn bytes(&self) -> u64 {
        match &self.about {
            About::Version(found) => found.bytes,
            About::Cancel { .. } => 0,
        }
    }
}

/// What a decision is about.
#[derive(Debug)]
pub enum About {
    /// A version.
    Version(Proposal),
    /// An order to end the contract.
    Cancel {
        /// Why, in the words of the owner.
        reason: String,
        /// Workloads stop at this time.
        effective_at: Timestamp,
        /// What becomes of the data.
        retention: Retention,
    },
}

/// What waits for somebody's decision in one contract. `None` when nothing does.
pub fn awaiting(
    db: &Connection,
    id: &ContractId,
    who: &IdentityId,
    now: Timestamp,
) -> Result<Option<Vec<Matter>>, Fault> {
    let Some(facts) = standing::read(db, id)? else { return Ok(None) };
    let mut matters = Vec::new();
    let awaited = standing::everybody_awaited(db, &facts, now)?;
    for asked in &awaited {
        if asked.identity == *who {
            matters.extend(matter(db, &facts, asked, &awaited)?);
        }
    }
    Ok(Some(matters).filter(|matters| !matters.is_empty()))
}

fn matter(
    db: &Connection,
    facts: &Facts,
    asked: &Awaited,
    awaited: &[Awaited],
) -> Result<Option<Matter>, Fault> {
    let (header, until, about) = match asked.action {
        Action::Create | Action::Update => {
            let header = facts.newest();
            (header, header.body.approve_by, About::Version(compare(db, facts, awaited)?.begun()))
        }
        Action::Cancel => {
            let Some(header) = facts.in_force() else { return Ok(None) };
            let mut orders = facts.case.cancels(header).into_iter();
            let Some((order, _)) = orders.find(|(order, _)| order.id == asked.subject) else {
                return Ok(None);
            };
            let about = About::Cancel {
                reason: order.body.reason.clone(),
                effective_at: order.body.effective_at,
                retention: order.body.retention,
            };
            (header, order.body.issued.plus(CANCEL_OPEN_S), about)
        }
    };
    let (contract, title) = (header.body.contract, header.body.title.clone());
    Ok(Some(Matter {
        contract,
        title,
        owner: header.body.owner,
        owner_name: views::name(db, &header.body.owner)?,
        decided: facts.decided(asked),
        asked: asked.clone(),
        until,
        about,
    }))
}

/// The newest version of a contract beside the one in force. `None` when it is not known.
pub fn proposal(
    db: &Connection,
    id: &ContractId,
    now: Timestamp,
) -> Result<Option<Proposal>, Fault> {
    let Some(facts) = standing::read(db, id)? else { return Ok(None) };
    let awaited = standing::everybody_awaited(db, &facts, now)?;
    compare(db, &facts, &awaited).map(Some)
}

fn compare(db: &Connection, facts: &Facts, awaited: &[Awaited]) -> Result<Proposal, Fault> {
    let newest = facts.newest();
    let in_force = facts.in_force();
    let before = in_force.filter(|header| header.id != newest.id);
    let body: &Header = &newest.body;
    let mut found = Proposal {
        contract: body.contract,
        title: body.title.clone(),
        before: before.map(|header| (header.body.version, header.id)),
        version: body.version,
        statement: newest.id,
        in_force: in_force.is_some_and(|header| header.id == newest.id),
        changes: Vec::new(),
        total: 0,
        bytes: 0,
        left_out: (0, 0),
        too_many: false,
        documents_missing: false,
        documents_before_missing: false,
        unjudged: facts.case.in_force().err().map(|refusal| refusal.message),
        open: awaited.iter().any(|asked| asked.subject == newest.id),
    };
    let mut old = Leaves::default();
    let mut new = Leaves::default();
    let headers = [(Some(newest.id), &mut new), (before.map(|header| header.id), &mut old)];
    for (id, leaves) in headers {
        let Some(id) = id else { continue };
        if header_leaves(db, &id, leaves)?.is_err() {
            return Ok(Proposal { too_many: true, ..found });
        }
    }
    let mut sides = [
        Side { of: places(db, &newest.id)?, leaves: new, compared: 0 },
        Side {
            of: before.map(|header| places(db, &header.id)).transpose()?.unwrap_or_default(),
            leaves: old,
            compared: 0,
        },
    ];
    found.documents_missing = sides[0].of.is_empty();
    found.documents_before_missing = before.is_some() && sides[1].of.is_empty();
    // Beside nothing, everything would look new.
    if !found.documents_before_missing {
        found.bytes = add_documents(db, &mut sides)?;
    }
    let count = |header: &Header| header.deployments.count;
    let [new, old] = sides;
    found.left_out = (
        count(body).saturating_sub(new.compared),
        before.map_or(0, |header| count(&header.body).saturating_sub(old.compared)),
    );
    found.changes = difference::changes(&old.leaves, &new.leaves);
    found.changes.sort_by_key(|change| {
        let first = change.way.first().map(AsRef::as_ref);
        FIRST.iter().position(|name| Some(*name) == first).unwrap_or(FIRST.len())
    });
    found.total = found.changes.len();
    Ok(found)
}

fn header_leaves(
    db: &Connection,
    id: &StatementId,
    leaves: &mut Leaves,
) -> Result<Result<(), TooMany>, Fault> {
    let payload = store::envelope(db, id)?.payload_bytes().map_err(anyhow::Error::new)?;
    let value: Value = serde_json::from_slice(&payload).map_err(anyhow::Error::new)?;
    Ok(difference::flatten(&value, &[], leaves))
}

/// One of the two versions.
struct Side {
    of: BTreeMap<NodeId, Place>,
    leaves: Leaves,
    compared: u64,
}

/// The document of a node.
struct Place {
    document: DocumentId,
    bytes: i64,
}

/// The first nodes of a version: their places are in the order of their ids.
fn places(db: &Connection, header: &StatementId) -> Result<BTreeMap<NodeId, Place>, Fault> {
    let sql = "SELECT node, document, LENGTH(bytes) FROM deployments
                   JOIN documents ON documents.id = document
               WHERE header = ?1 ORDER BY place LIMIT ?2";
    let most = i64::try_from(NODES_MAX).unwrap_or(i64::MAX);
    let rows = db.query(sql, &[&header.0, &most], |row| {
        let place = Place { document: DocumentId(store::hash(row, 1)?), bytes: row.get::<i64>(2)? };
        Ok((NodeId(store::hash(row, 0)?), place))
    })?;
    Ok(rows.into_iter().collect())
}

/// Adds what nodes have to do. Of each side the first nodes are known, so that of the first nodes
/// of both together all is known. Gives the bytes that were read.
fn add_documents(db: &Connection, sides: &mut [Side; 2]) -> Result<u64, Fault> {
    let nodes: BTreeSet<NodeId> = sides.iter().flat_map(|side| side.of.keys().copied()).collect();
    let (mut bytes, mut read) = (0, 0);
    for node in nodes.into_iter().take(NODES_MAX) {
        let own = sides.iter().filter_map(|side| side.of.get(&node));
        bytes += own.map(|place| place.bytes).sum::<i64>();
        if bytes > DOCUMENTS_BYTES_MAX {
            break;
        }
        read = u64::try_from(bytes).unwrap_or(0);
        let mut added = Vec::with_capacity(sides.len());
        for side in sides.iter() {
            let mut leaves = Leaves::default();
            if let Some(place) = side.of.get(&node)
                && (document_leaves(db, &node, place, &mut leaves)?.is_err()
                    || side.leaves.len() + leaves.len() > LEAVES_MAX)
            {
                return Ok(read);
            }
            added.push(leaves);
        }
        for (side, leaves) in sides.iter_mut().zip(added) {
            side.leaves.extend(leaves);
            side.compared += u64::from(side.of.contains_key(&node));
        }
    }
    Ok(read)
}

/// All of it but where it stands.
fn document_leaves(
    db: &Connection,
    node: &NodeId,
    place: &Place,
    leaves: &mut Leaves,
) -> Result<Result<(), TooMany>, Fault> {
    let bytes = documents::get(db, &place.document)?.context("a document has gone")?;
    let mut value: Value = serde_json::from_slice(&bytes).map_err(anyhow::Error::new)?;
    let members = value.as_object_mut().context("a document is an object")?;
    members.retain(|name, _| !PLACE.contains(&name.as_str()));
    let way = ["node".into(), node.to_string().into()];
    Ok(difference::flatten(&value, &way, leaves))
}
