//! Every field of every statement of a contract, changed: what the node makes of it.
//!
//! The outcome is a table of docs/refusals.md. `ZOS_WRITE_DOCS=1 cargo test -p contract mutation`
//! writes it anew; the difference is for people to read. What a node does not read before it runs a
//! contract is in the table of the registry: modules/registryd/tests/mutations.rs.

extern crate std;

use super::*;
use crate::{
    SigningKey,
    header::Publisher,
    testkit::mutate::{Mutation, Row, forged, hold, mutations, payload, signed_again, table},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// When the node judges: the contract may run, and an order to end it has taken effect.
const JUDGED: i64 = 250;
const FORGED: usize = 0;
const SIGNED: usize = 1;
const COLUMNS: [&str; 3] = ["By anybody", "By its signer", "And approved again"];

/// What a signer alone can change so that the bundle has the outcome that it had, and why they may.
const HARMLESS: [(&str, &str, &str); 2] = [
    ("comment", "other value", "for people; nothing is decided by it"),
    ("issued", "other value", "a decision may be made again, within the time for decisions"),
];

/// What anybody can change on the way so that the contract still runs, and why they may.
const UNSIGNED: [(&str, &str, &str); 11] = [
    ("approvals", "one too many", "a decision that comes twice is one"),
    ("approvals", "turned round", "they come in no order"),
    ("approvals[].signatures", "one too many", "a signature that comes twice is one"),
    ("documents", "one too many", "a document that comes twice is one"),
    ("headers[].signatures", "one too many", "a signature that comes twice is one"),
    ("identities", "last one gone", "nobody needs the stranger's"),
    ("identities", "one too many", "an identity that comes twice is one"),
    ("identities", "turned round", "they come in no order"),
    ("identities[].signatures", "one too many", "a signature that comes twice is one"),
    ("pools", "one too many", "a grant that comes twice is one"),
    ("pools[].signatures", "one too many", "a signature that comes twice is one"),
];

/// One statement of a bundle, and whose it is.
struct Subject {
    name: &'static str,
    signer: &'static str,
    bundle: fn(&World) -> Bundle,
    list: fn(&mut Bundle) -> &mut Vec<Envelope>,
    place: usize,
}

const fn subject(
    name: &'static str,
    signer: &'static str,
    bundle: fn(&World) -> Bundle,
    list: fn(&mut Bundle) -> &mut Vec<Envelope>,
    place: usize,
) -> Subject {
    Subject { name, signer, bundle, list, place }
}

/// The order of [`crate::testkit::PEOPLE`] is that of the identities.
const SUBJECTS: [Subject; 10] = [
    subject("contract", "owner", World::agreed, |bundle| &mut bundle.headers, 0),
    subject("approval", "legal", World::agreed, |bundle| &mut bundle.approvals, 1),
    subject("approval that rejects", "legal", rejected, |bundle| &mut bundle.approvals, 2),
    subject("approval that withdraws", "legal", withdrawn, |bundle| &mut bundle.approvals, 2),
    subject("identity of the owner", "owner", World::agreed, |bundle| &mut bundle.identities, 0),
    subject(
        "identity of a stakeholder",
        "legal",
        World::agreed,
        |bundle| &mut bundle.identities,
        2,
    ),
    subject("identity of the farm", "farm", World::agreed, |bundle| &mut bundle.identities, 4),
    subject("pool", "farm", World::agreed, |bundle| &mut bundle.pools, 0),
    subject("cancel", "owner", ended, |bundle| &mut bundle.cancels, 0),
    subject("approval of a cancel", "legal", ended, |bundle| &mut bundle.approvals, 3),
];

/// The contract again, with what it need not have: only that is told of it.
const PUBLISHED: Subject = subject("contract", "owner", published, |bundle| &mut bundle.headers, 0);

fn published(world: &World) -> Bundle {
    let mut header = world.header(1, None);
    let publisher = Publisher { key: SigningKey::from_seed(&[42; 32]).public(), revision: 3 };
    header.flists[0].publisher = Some(publisher);
    let header = seal(&header, world.key("owner"));
    let approvals = ["it", "legal"].map(|name| world.approve(name, &header)).to_vec();
    Bundle { headers: vec![header], approvals, ..world.agreed() }
}

fn ended(world: &World) -> Bundle {
    let mut bundle = world.agreed();
    world.end(&mut bundle, &["it", "legal"]);
    bundle
}

fn rejected(world: &World) -> Bundle {
    decided(world, Decision::Reject)
}

fn withdrawn(world: &World) -> Bundle {
    decided(world, Decision::Withdraw)
}

fn decided(world: &World, what: Decision) -> Bundle {
    let mut bundle = world.agreed();
    bundle.approvals.push(world.decide("legal", &bundle.headers[0], what, 30));
    bundle
}

fn outcome(world: &World, bundle: &Bundle) -> String {
    match world.judge(bundle, JUDGED) {
        Verdict::Run(_) => "runs".into(),
        Verdict::Stop(_) => "stops".into(),
        Verdict::Refuse(refusal) => format!("`{}`", refusal.code),
    }
}

fn rows_of(world: &World, subject: &Subject) -> Vec<Row> {
    let base = (subject.bundle)(world);
    let with = |envelopes: &[Envelope]| {
        let mut bundle = base.clone();
        let place = subject.place..=subject.place;
        (subject.list)(&mut bundle).splice(place, envelopes.iter().cloned());
        bundle
    };
    let envelope = (subject.list)(&mut base.clone())[subject.place].clone();
    let key: &SigningKey = world.key(subject.signer);
    let (whole, without) = (outcome(world, &base), outcome(world, &with(&[])));
    let row = |Mutation { field, what, payload }: Mutation| {
        let place = format!("{}: {field} {what}", subject.name);
        let again = signed_again(&envelope, &payload, key);
        let by_anybody = outcome(world, &with(&[forged(&envelope, &payload)]));
        let by_signer = outcome(world, &with(std::slice::from_ref(&again)));
        let mut outcomes = vec![by_anybody, by_signer];
        if subject.name == "contract" {
            assert_ne!(outcomes[FORGED], "runs", "{place}");
            assert_ne!(outcomes[SIGNED], "runs", "{place}");
            outcomes.push(approved_again(world, &base, &again));
        } else {
            // Who carries a statement can lose it. Changing it does no more.
            assert_eq!(outcomes[FORGED], without, "{place}");
            let is_listed = HARMLESS.iter().any(|one| (one.0, one.1) == (field.as_str(), what));
            let is_harmless = is_listed && subject.name.starts_with("approval");
            assert_eq!(outcomes[SIGNED] == whole, is_harmless, "{place}");
        }
        Row { statement: subject.name, field, what, outcomes }
    };
    mutations(&payload(&envelope)).into_iter().map(row).collect()
}

/// What follows when everybody agrees to the changed contract.
fn approved_again(world: &World, base: &Bundle, header: &Envelope) -> String {
    let mut bundle = base.clone();
    if Signed::<Header>::open(header).is_ok() {
        bundle.approvals = ["it", "legal"].map(|name| world.approve(name, header)).to_vec();
    }
    bundle.headers[0] = header.clone();
    outcome(world, &bundle)
}

/// A document is not signed: the contract holds its hash.
fn rows_of_document(world: &World) -> Vec<Row> {
    let base = world.agreed();
    let mut document: Value = serde_json::from_slice(&base.documents[0].bytes().unwrap()).unwrap();
    // Younger than files of evidence that have to be read for ever, which hold the document without it.
    let container = &mut document["workloads"][0]["spec"]["container"];
    container["stats"] = json!([{ "to": "redis://r.example/c" }]);
    container["restart"] = json!("on_failure");
    container["disk"] = json!({
        "read_bytes_s": 1 << 20,
        "write_bytes_s": 1 << 20,
        "read_ops_s": 100,
        "write_ops_s": 100,
    });
    let row = |Mutation { field, what, payload: changed }: Mutation| {
        let mut bundle = base.clone();
        bundle.documents[0].document = BASE64.encode(&changed);
        let root = merkle::root(&[merkle::leaf(changed.as_bytes())]);
        let mut header = payload(&base.headers[0]);
        header["deployments"]["root"] = json!(StatementId(root));
        let header = signed_again(&base.headers[0], &header.to_string(), world.key("owner"));
        let mut signed = bundle.clone();
        signed.headers[0] = header.clone();
        let again = approved_again(world, &bundle, &header);
        let outcomes = vec![outcome(world, &bundle), outcome(world, &signed), again];
        assert_ne!(outcomes[FORGED], "runs", "{field} {what}");
        assert_ne!(outcomes[SIGNED], "runs", "{field} {what}");
        Row { statement: "deployment document", field, what, outcomes }
    };
    mutations(&document).into_iter().map(row).collect()
}

/// What is around the statements: lists, envelopes, the way from a document to the root.
fn rows_of_bundle(world: &World) -> Vec<Row> {
    let row = |Mutation { field, what, payload }: Mutation| {
        let by_anybody = match Bundle::read(payload.as_bytes()) {
            Ok(bundle) => outcome(world, &bundle),
            Err(_) => "not read".into(),
        };
        Row { statement: "bundle and envelopes", field, what, outcomes: vec![by_anybody] }
    };
    let bundle = serde_json::to_value(world.agreed()).unwrap();
    mutations(&bundle).into_iter().map(row).collect()
}

#[test]
fn no_mutation_of_any_statement_goes_unnoticed() {
    let world = world();
    let before: Vec<_> = [World::agreed, published, ended, rejected, withdrawn]
        .map(|bundle| outcome(&world, &bundle(&world)))
        .to_vec();
    assert_eq!(before, ["runs", "runs", "stops", "`rejected`", "`quorum_missing`"]);
    let mut rows = rows_of(&world, &SUBJECTS[0]);
    let (_, rest) = SUBJECTS.split_first().unwrap();
    let published = rows_of(&world, &PUBLISHED).into_iter();
    rows.extend(published.filter(|row| row.field.contains("publisher")));
    rows.extend(rest.iter().flat_map(|one| rows_of(&world, one)));
    rows.extend(rows_of_document(&world));
    let around = rows_of_bundle(&world);
    let runs = around.iter().filter(|row| row.outcomes[FORGED] == "runs");
    let runs: BTreeSet<_> = runs.map(|row| (row.field.as_str(), row.what)).collect();
    assert_eq!(runs, UNSIGNED.iter().map(|one| (one.0, one.1)).collect());
    rows.extend(around);
    hold("modules/contract/src/verdict/tests/mutations.rs", "contract", &table(&COLUMNS, &rows));
}
