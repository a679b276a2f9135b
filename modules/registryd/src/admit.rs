//! Who may put what into the registry: the rules by which statements are taken or refused.
//!
//! A statement is taken when it parses strictly, belongs to this grid, and carries a valid signature
//! of somebody who must sign it. It counts once a threshold has signed. Signatures that are not
//! valid are dropped, so nobody can fill the store with them.

use crate::{
    bundle, changes,
    db::Fault,
    project, refusal,
    sql::{Argument, Connection},
    store,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Envelope, IdentityId, Kind, PublicKey, Signed, Statement, StatementId, Timestamp,
    bundle::{STATEMENTS_MAX, VERSIONS_MAX},
    decision::{Action, Approval, CANCEL_OPEN_S, Cancel},
    envelope::{OpenError, Signature, pae},
    farm::{Adoption, Farm, Pool, consents},
    header::Header,
    identity::{Identity, Signer},
    node::Node,
    report::Report,
    scrub::{SCRUB_EVERY_S, Scrub, Standing},
    tally::Tally,
    verdict::Case,
};
use registry_api::{problem::codes, write::Accepted};

/// A decision may be issued so far ahead of our clock: clocks differ.
const AHEAD_MAX_S: i64 = 300;
/// Decisions of one signer on one contract; with many stakeholders fewer, so that there is room for all.
const APPROVALS_MAX: usize = 1024;
/// Payloads of all versions of one contract. With [`APPROVALS_BYTES_MAX`] and the documents of one
/// node it leaves room in a bundle for everything else.
const HEADERS_BYTES_MAX: u64 = 4 << 20;
/// Payloads of the decisions on one contract that its bundle carries.
const APPROVALS_BYTES_MAX: u64 = 2 << 20;
/// Cancels of one contract.
const CANCELS_MAX: u64 = 64;
/// Results of one node that contradict earlier ones, kept as evidence.
const CONFLICTS_MAX: u64 = 64;

/// What the rules say of one statement.
struct Ruling {
    /// Keys whose signatures are worth keeping.
    keys: Vec<PublicKey>,
    /// Whether the signatures that are kept suffice.
    suffices: Box<dyn Fn(&Envelope) -> bool>,
    /// Rules beyond signatures. Held against a statement until it counts, not afterwards.
    rules: Result<(), Fault>,
}

/// Takes a statement, or says why not. A second time changes nothing.
pub fn accept(
    connection: &Connection,
    envelope: &Envelope,
    network: &str,
    now: Timestamp,
) -> Result<Accepted, Fault> {
    let Some(kind) = envelope.kind() else {
        let text = format!("a statement of type {} is not known", envelope.payload_type);
        return Err(malformed(text));
    };
    let payload = envelope.payload_bytes().map_err(|error| malformed(error.to_string()))?;
    let id = StatementId::of(&payload);
    let stored = store::statement(connection, &id)?;
    if let Some(stored) = &stored
        && stored.envelope.payload_type != envelope.payload_type
    {
        return Err(malformed("the same payload stands here under another type".into()));
    }
    let ruling = rule(connection, kind, envelope, network, now)?;

    let mut known = stored.as_ref().map_or(vec![], |stored| stored.envelope.signatures.clone());
    let fresh = valid(envelope, &payload, &ruling.keys, &known);
    if known.is_empty() && fresh.is_empty() {
        return Err(refusal(
            422,
            codes::BAD_SIGNATURE,
            format!("the {} statement carries no valid signature of who must sign it", kind.name()),
            "Sign the exact payload bytes with a key of the signer that the statement names.",
        ));
    }
    let counted = stored.as_ref().is_some_and(|stored| stored.complete);
    if fresh.is_empty() {
        return Ok(Accepted { id, kind, new: false, complete: counted });
    }
    if !counted {
        ruling.rules?;
    }
    if stored.is_none() {
        store::insert(connection, kind, &id, &payload, now.seconds())?;
    }
    store::insert_signatures(connection, &id, &fresh)?;
    known.extend(fresh);
    let merged = Envelope { signatures: known, ..envelope.clone() };
    let complete = counted || (ruling.suffices)(&merged);
    if complete && !counted {
        let place = store::complete(connection, &id, now.seconds())?;
        project::apply(connection, &merged, place)?;
    } else if complete {
        changes::note(connection, &merged)?;
    }
    Ok(Accepted { id, kind, new: true, complete })
}

/// The valid signatures of these keys that are not known yet, one for each key.
fn valid(
    envelope: &Envelope,
    payload: &[u8],
    keys: &[PublicKey],
    known: &[Signature],
) -> Vec<Signature> {
    let message = pae(&envelope.payload_type, payload);
    let first_valid = |key: &PublicKey| {
        let mine = envelope.signatures.iter().filter(|entry| entry.keyid == key.id());
        let fits = |entry: &&Signature| {
            let bytes = BASE64.decode(&entry.sig).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.is_some_and(|bytes| key.verifies(&message, &bytes))
        };
        mine.clone().find(fits).cloned()
    };
    keys.iter()
        .filter(|key| known.iter().all(|entry| entry.keyid != key.id()))
        .filter_map(first_valid)
        .collect()
}

fn rule(
    connection: &Connection,
    kind: Kind,
    envelope: &Envelope,
    network: &str,
    now: Timestamp,
) -> Result<Ruling, Fault> {
    match kind {
        Kind::Identity => Ok(identity(&open(envelope, network)?)),
        Kind::Farm => farm(connection, &open(envelope, network)?),
        Kind::Adoption => adoption(connection, &open(envelope, network)?),
        Kind::Pool => pool(connection, &open(envelope, network)?),
        Kind::Node => node(connection, &open(envelope, network)?),
        Kind::Contract => header(connection, envelope, &open(envelope, network)?, now),
        Kind::Approval => approval(connection, &open(envelope, network)?, now),
        Kind::Cancel => cancel(connection, &open(envelope, network)?, now),
        Kind::Result => result(connection, &open(envelope, network)?),
        Kind::Scrub => scrub(connection, &open(envelope, network)?, now),
        Kind::Heartbeat => Err(malformed("a heartbeat is not kept as a statement".into())),
    }
}

/// Parses strictly, and refuses what belongs to another grid.
pub fn open<T: Statement>(envelope: &Envelope, network: &str) -> Result<Signed<T>, Fault> {
    let signed = Signed::<T>::open(envelope).map_err(|error| match &error {
        OpenError::Read { source: contract::strict::ReadError::TooLarge { .. }, .. } => {
            refusal(413, codes::TOO_LARGE, crate::chain(&error), "")
        }
        _ => malformed(crate::chain(&error)),
    })?;
    let theirs = signed.body.network();
    if theirs == network {
        return Ok(signed);
    }
    let text = format!("the statement belongs to the grid {theirs}, this registry to {network}");
    Err(refusal(422, codes::WRONG_NETWORK, text, "Send it to a registry of its own grid."))
}

fn malformed(text: String) -> Fault {
    refusal(400, codes::MALFORMED, text, "")
}

/// Signed by a threshold of an identity.
fn by_identity<T: Statement + 'static>(signer: Signer, rules: Result<(), Fault>) -> Ruling {
    Ruling {
        keys: signer.identity.keys.clone(),
        suffices: Box::new(move |merged| {
            Signed::<T>::open(merged).is_ok_and(|signed| signer.signed(&signed))
        }),
        rules,
    }
}

fn known_signer(connection: &Connection, id: &IdentityId, who: &str) -> Result<Signer, Fault> {
    store::signer(connection, id)?.ok_or_else(|| {
        let text = format!("the identity {id} of {who} is not known here");
        refusal(422, codes::UNKNOWN_IDENTITY, text, "Send the identity's own statement first.")
    })
}

fn grows(what: &str, version: u64, in_force: Option<u64>) -> Result<(), Fault> {
    match in_force {
        Some(standing) if version <= standing => {
            let text = format!("version {version} of the {what} is not above {standing}");
            let hint = "Count the version up from the one in force.";
            Err(refusal(409, codes::OLD_VERSION, text, hint))
        }
        Some(_) | None => Ok(()),
    }
}

fn at_most(
    connection: &Connection,
    sql: &str,
    arguments: &[&dyn Argument],
    most: u64,
    what: &str,
) -> Result<(), Fault> {
    if store::count(connection, sql, arguments)? < most {
        return Ok(());
    }
    Err(refusal(409, codes::TOO_MANY, format!("the registry keeps at most {most} {what}"), ""))
}

fn identity(signed: &Signed<Identity>) -> Ruling {
    Ruling {
        keys: signed.body.keys.clone(),
        suffices: Box::new(|merged| {
            Signed::open(merged).is_ok_and(|signed| Signer::from_statement(&signed).is_some())
        }),
        rules: Ok(()),
    }
}

fn farm(connection: &Connection, signed: &Signed<Farm>) -> Result<Ruling, Fault> {
    let owner = known_signer(connection, &signed.body.farm, "the farm")?;
    let standing = store::farm(connection, &signed.body.farm)?.map(|farm| farm.body.version);
    Ok(by_identity::<Farm>(owner, grows("farm", signed.body.version, standing)))
}

fn adoption(connection: &Connection, signed: &Signed<Adoption>) -> Result<Ruling, Fault> {
    let adoption = &signed.body;
    let owner = known_signer(connection, &adoption.farm, "the farm")?;
    let Some(farm) = store::farm(connection, &adoption.farm)? else {
        let text = format!("the farm {} is not known here", adoption.farm);
        let hint = "Send the farm's own statement first.";
        return Err(refusal(422, codes::UNKNOWN_FARM, text, hint));
    };
    let tokens = farm.body.enrolment.iter().filter(|token| adoption.issued < token.expires);
    let mut keys = owner.identity.keys.clone();
    keys.extend(tokens.map(|token| token.key));
    let suffices = Box::new(move |merged: &Envelope| {
        Signed::open(merged).is_ok_and(|signed| consents(&owner, &farm, &signed))
    });
    Ok(Ruling { keys, suffices, rules: Ok(()) })
}

fn pool(connection: &Connection, signed: &Signed<Pool>) -> Result<Ruling, Fault> {
    let farm = known_signer(connection, &signed.body.farm, "the farm")?;
    Ok(by_identity::<Pool>(farm, Ok(())))
}

fn node(connection: &Connection, signed: &Signed<Node>) -> Result<Ruling, Fault> {
    let id = contract::node::node_id(&signed.body.key);
    let standing = store::node(connection, &id)?.map(|node| node.body.version);
    let rules = grows("node", signed.body.version, standing);
    Ok(by_key::<Node>(signed.body.key, rules))
}

fn scrub(connection: &Connection, signed: &Signed<Scrub>, now: Timestamp) -> Result<Ruling, Fault> {
    let farm = known_signer(connection, &signed.body.farm, "the farm")?;
    Ok(by_identity::<Scrub>(farm, may_order(connection, &signed.body, now)))
}

/// A farm orders its own nodes only, and each not too often: all that is taken is kept.
fn may_order(connection: &Connection, order: &Scrub, now: Timestamp) -> Result<(), Fault> {
    let Scrub { node, farm, issued, .. } = order;
    let theirs = store::node(connection, node)?.is_some_and(|known| known.body.farm == *farm);
    if !theirs || !store::adopted(connection, node, farm)? {
        let text = format!("the farm {farm} has no node {node} here");
        let hint = "A farm orders the nodes that it has adopted.";
        return Err(refusal(422, codes::UNKNOWN_NODE, text, hint));
    }
    match order.standing(now) {
        Standing::Open => {}
        Standing::Early => {
            let text = format!("the order was issued at {issued}, and it is {now}");
            let hint = "Set the clock of who signs.";
            return Err(refusal(422, codes::IN_THE_FUTURE, text, hint));
        }
        Standing::TooOld => {
            let text = format!("the order was issued at {issued}, which is too long ago");
            return Err(refusal(422, codes::TOO_LATE, text, "Sign another one."));
        }
    }
    let Some(last) = store::scrub(connection, node, farm)? else { return Ok(()) };
    let last = store::signed::<Scrub>(connection, &last)?.body.issued;
    if *issued >= last.plus(SCRUB_EVERY_S) {
        return Ok(());
    }
    let text = format!(
        "the order was issued at {issued}, the one before at {last}: there is one in \
         {SCRUB_EVERY_S} seconds"
    );
    let hint = "See with `3bot node show` what becomes of the one before.";
    Err(refusal(409, codes::TOO_MANY, text, hint))
}

fn by_key<T: Statement>(key: PublicKey, rules: Result<(), Fault>) -> Ruling {
    Ruling {
        keys: vec![key],
        suffices: Box::new(move |merged| {
            Signed::<T>::open(merged).is_ok_and(|signed| signed.signed_by(&key))
        }),
        rules,
    }
}

/// The key of a node that is known.
pub fn node_key(connection: &Connection, node: &contract::NodeId) -> Result<PublicKey, Fault> {
    let statement = store::node(connection, node)?.ok_or_else(|| {
        let text = format!("the node {node} is not known here");
        let hint = "Send the node's own statement first.";
        refusal(422, codes::UNKNOWN_NODE, text, hint)
    })?;
    Ok(statement.body.key)
}

fn header(
    connection: &Connection,
    envelope: &Envelope,
    signed: &Signed<Header>,
    now: Timestamp,
) -> Result<Ruling, Fault> {
    let owner = known_signer(connection, &signed.body.owner, "the owner")?;
    let rules = is_small_enough(connection, envelope, &signed.body)
        .and_then(|()| follows(connection, signed, now));
    Ok(by_identity::<Header>(owner, rules))
}

/// All versions travel in every bundle.
fn is_small_enough(
    connection: &Connection,
    envelope: &Envelope,
    header: &Header,
) -> Result<(), Fault> {
    let earlier = store::count(
        connection,
        "SELECT COALESCE(SUM(LENGTH(payload)), 0)
         FROM headers JOIN statements ON statements.id = headers.statement
         WHERE contract = ?1 AND version < ?2",
        &[&header.contract.0, &i64::try_from(header.version).unwrap_or(i64::MAX)],
    )?;
    // Base64, rounded up.
    let all = earlier + envelope.payload.len() as u64 / 4 * 3;
    if all <= HEADERS_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "the versions of a contract have at most {HEADERS_BYTES_MAX} bytes together, these would \
         have {all}"
    );
    Err(refusal(413, codes::TOO_LARGE, text, "Make a new contract."))
}

/// A version is added to one that was agreed on, or takes the place of the newest one when that
/// can no longer be agreed on.
fn follows(connection: &Connection, signed: &Signed<Header>, now: Timestamp) -> Result<(), Fault> {
    let header = &signed.body;
    let newest = store::versions(connection, &header.contract)?;
    if header.version > VERSIONS_MAX as u64 {
        let text = format!("a contract has at most {VERSIONS_MAX} versions");
        return Err(refusal(409, codes::TOO_MANY, text, "Make a new contract."));
    }
    if header.version > newest + 1 {
        let text = format!("version {} does not follow version {newest}", header.version);
        return Err(refusal(409, codes::BROKEN_CHAIN, text, "Send the versions before it first."));
    }
    if header.version < newest {
        return grows("contract", header.version, Some(newest));
    }
    let before = match header.version {
        1 => None,
        version => store::header(connection, &header.contract, version - 1)?,
    };
    if before.map(|before| before.id) != header.prev {
        let text = format!("version {} does not name the version before it", header.version);
        return Err(refusal(409, codes::BROKEN_CHAIN, text, "Name the standing header in `prev`."));
    }
    if newest == 0 {
        return Ok(());
    }
    let bundle = bundle::bundle(connection, &header.contract, None)?;
    let case = bundle.as_ref().map(Case::read);
    let Some(Ok(case)) = case else {
        return Err(anyhow::anyhow!("contract {} cannot be read", header.contract).into());
    };
    let index = case.headers().len() - 1;
    let tallies = case.tallies(index);
    let agreed = tallies.iter().all(|tally| *tally == Tally::Agreed);
    let hopeless = tallies.iter().any(|tally| matches!(tally, Tally::Rejected(_)))
        || case.headers()[index].body.approve_by < now;
    match (header.version > newest, agreed) {
        (true, true) => Ok(()),
        (true, false) => {
            let text = format!("version {newest} has not been agreed on");
            let hint = "Wait for it, or replace it once it is rejected or its time has passed.";
            Err(refusal(409, codes::VERSION_TAKEN, text, hint))
        }
        (false, false) if hopeless => Ok(()),
        (false, _) => {
            let text = format!("another header of version {newest} stands");
            let hint = "Make the next version, or have the standing one rejected.";
            Err(refusal(409, codes::VERSION_TAKEN, text, hint))
        }
    }
}

fn approval(
    connection: &Connection,
    signed: &Signed<Approval>,
    now: Timestamp,
) -> Result<Ruling, Fault> {
    let signer = known_signer(connection, &signed.body.signer, "the signer")?;
    Ok(by_identity::<Approval>(signer, decides(connection, &signed.body, now)))
}

/// An approval must be able to count: of a stakeholder, on something that is known, in time.
fn decides(connection: &Connection, approval: &Approval, now: Timestamp) -> Result<(), Fault> {
    let unknown = || {
        let text = format!("what is decided on, {}, is not known here", approval.subject);
        let hint = "Send the contract's header, or its cancel, first.";
        refusal(422, codes::UNKNOWN_CONTRACT, text, hint)
    };
    let header = store::header(connection, &approval.contract, approval.version)?;
    let header = header.ok_or_else(unknown)?;
    let mut judges = vec![];
    let until = match approval.action {
        Action::Create | Action::Update => {
            if approval.subject != header.id {
                return Err(unknown());
            }
            if approval.version > 1 {
                judges.extend(store::header(connection, &approval.contract, approval.version - 1)?);
            }
            header.body.approve_by
        }
        Action::Cancel => {
            let stored = store::statement(connection, &approval.subject)?.ok_or_else(unknown)?;
            let cancel = Signed::<Cancel>::open(&stored.envelope).map_err(|_| unknown())?;
            if (cancel.body.contract, cancel.body.version) != (approval.contract, approval.version)
            {
                return Err(unknown());
            }
            cancel.body.issued.plus(CANCEL_OPEN_S)
        }
    };
    judges.push(header);
    let most = judges.iter().map(|judge| STATEMENTS_MAX / judge.body.stakeholders.len().max(1));
    let most = most.min().unwrap_or(APPROVALS_MAX).min(APPROVALS_MAX);
    let mut holders = judges.iter().flat_map(|judge| &judge.body.stakeholders);
    if !holders.any(|holder| holder.identity == approval.signer) {
        let text = format!("{} is no stakeholder of it", approval.signer);
        return Err(refusal(422, codes::NOT_A_STAKEHOLDER, text, ""));
    }
    if approval.issued > until {
        let text = format!("decisions counted until {until}, this one is of {}", approval.issued);
        return Err(refusal(409, codes::TOO_LATE, text, "Ask the owner for another version."));
    }
    not_ahead(approval.issued, now)?;
    at_most(
        connection,
        "SELECT COUNT(*) FROM approvals WHERE contract = ?1 AND signer = ?2",
        &[&approval.contract.0, &approval.signer.0],
        most as u64,
        "decisions of one signer on one contract",
    )?;
    // Whoever exports the contract takes all of them.
    at_most(
        connection,
        "SELECT COUNT(*) FROM approvals WHERE contract = ?1",
        &[&approval.contract.0],
        STATEMENTS_MAX as u64,
        "decisions on one contract",
    )?;
    // A bundle carries one decision for each signer and subject.
    at_most(
        connection,
        "SELECT COALESCE(SUM(bytes), 0) FROM
             (SELECT MAX(LENGTH(payload)) AS bytes
              FROM approvals JOIN statements ON statements.id = statement
              WHERE contract = ?1 GROUP BY subject, signer) AS decisions",
        &[&approval.contract.0],
        APPROVALS_BYTES_MAX,
        "bytes of decisions on one contract",
    )
}

fn not_ahead(issued: Timestamp, now: Timestamp) -> Result<(), Fault> {
    if issued <= now.plus(AHEAD_MAX_S) {
        return Ok(());
    }
    let text = format!("it was issued at {issued}, and here it is {now}");
    Err(refusal(422, codes::IN_THE_FUTURE, text, "Set the clock, and sign again."))
}

fn cancel(
    connection: &Connection,
    signed: &Signed<Cancel>,
    now: Timestamp,
) -> Result<Ruling, Fault> {
    let cancel = &signed.body;
    let Some(header) = store::header(connection, &cancel.contract, cancel.version)? else {
        let text = format!("version {} of {} is not known", cancel.version, cancel.contract);
        return Err(refusal(422, codes::UNKNOWN_CONTRACT, text, "Send the contract first."));
    };
    let owner = known_signer(connection, &header.body.owner, "the owner")?;
    let rules = not_ahead(cancel.issued, now).and_then(|()| {
        at_most(
            connection,
            "SELECT COUNT(*) FROM cancels WHERE contract = ?1",
            &[&cancel.contract.0],
            CANCELS_MAX,
            "cancels of one contract",
        )
    });
    Ok(by_identity::<Cancel>(owner, rules))
}

fn result(connection: &Connection, signed: &Signed<Report>) -> Result<Ruling, Fault> {
    let key = node_key(connection, &signed.body.node)?;
    let rules = can_be_kept(&signed.body).and_then(|()| {
        at_most(
            connection,
            "SELECT COUNT(*) FROM results WHERE node = ?1 AND conflict = 1",
            &[&signed.body.node.0],
            CONFLICTS_MAX,
            "results of one node that contradict earlier ones",
        )
    });
    Ok(by_key::<Report>(key, rules))
}

/// PostgreSQL has no text with a zero byte, and no workload has such a name.
fn can_be_kept(report: &Report) -> Result<(), Fault> {
    if report.workload.as_ref().is_some_and(|name| name.contains('\0')) {
        return Err(malformed("the name of a workload has a zero byte".into()));
    }
    Ok(())
}
