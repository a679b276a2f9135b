//! Every field of every kind of statement, changed: what the registry makes of it.
//!
//! The outcome is a table of docs/refusals.md. `ZOS_WRITE_DOCS=1 cargo test -p registryd mutation`
//! writes it anew; the difference is for people to read.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::database;
use contract::{
    Envelope, Kind, SigningKey, Timestamp,
    decision::Decision,
    report::State,
    testkit::{
        NETWORK, PEOPLE, World,
        mutate::{Mutation, Row, forged, hold, mutations, payload, signed_again, table},
        seal,
    },
};
use registryd::{
    admit,
    db::Fault,
    results,
    sql::{Access, Connection},
};
use std::collections::BTreeSet;

const NOW: i64 = 1_800_000_000;
const TAKEN: &str = "taken";

/// Changes after which a statement has no single meaning.
const NEVER: [&str; 5] = ["unknown member", "other type", "there twice", "negative", "fraction"];

/// Fields that may be left out: what is not there is said to be none.
const OPTIONAL: [(&str, &str); 8] = [
    ("contract", "prev"),
    ("identity", "prev"),
    ("node", "scrub"),
    ("node", "scrub.outcome.done.left_out"),
    ("result", "header"),
    ("result", "prev"),
    ("result", "ran"),
    ("result", "workload"),
];

/// Every statement, in an order in which the registry takes them, with its signer's key.
fn statements(world: &World) -> Vec<(&'static str, Envelope, &SigningKey)> {
    let farm = world.key("farm");
    let owner = world.key("owner");
    let header = seal(&world.header(1, None), owner);
    let signed = |name, envelope: Envelope, key| (name, envelope, key);
    let mut all: Vec<_> = PEOPLE
        .into_iter()
        .map(|name| ("identity", world.identity(name), world.key(name)))
        .collect();
    all.extend([
        signed("farm", seal(&world.farm(1), farm), farm),
        signed(
            "node",
            seal(&world.node_scrubbed(1, &world.scrub(0)), &world.node_key),
            &world.node_key,
        ),
        signed("adoption by the farm", seal(&world.adoption(), farm), farm),
        signed("adoption by a token", seal(&world.adoption(), &world.token), &world.token),
        signed("pool", seal(&world.pool(), farm), farm),
        signed("scrub", seal(&world.scrub(0), farm), farm),
        signed("contract", header.clone(), owner),
        signed(
            "approval",
            world.decide("legal", &header, Decision::Approve, 0),
            world.key("legal"),
        ),
        signed("cancel", seal(&world.cancel(), owner), owner),
        signed(
            "result",
            seal(&world.report(1, None, State::Running), &world.node_key),
            &world.node_key,
        ),
        signed("heartbeat", seal(&world.heartbeat("b1", 1, 0), &world.node_key), &world.node_key),
    ]);
    all
}

fn take(db: &Connection, envelope: &Envelope) -> String {
    let now = Timestamp::from_seconds(NOW);
    let outcome = match envelope.kind() {
        Some(Kind::Heartbeat) => results::heartbeat(db, envelope, NETWORK, now).map(|_| true),
        Some(_) | None => admit::accept(db, envelope, NETWORK, now).map(|taken| taken.complete),
    };
    match outcome {
        Ok(true) => TAKEN.into(),
        Ok(false) => "waits for more signatures".into(),
        Err(Fault::Refused(problem)) => format!("`{}`", problem.code),
        Err(Fault::Broken(error)) => panic!("{error:#}"),
    }
}

/// The same, and leaves no trace.
fn would_take(db: &Connection, envelope: &Envelope) -> String {
    db.execute_batch("SAVEPOINT trial").unwrap();
    let outcome = take(db, envelope);
    db.execute_batch("ROLLBACK TO trial; RELEASE trial").unwrap();
    outcome
}

#[test]
fn no_mutation_of_any_statement_is_taken_without_its_signer() {
    let data = tempfile::tempdir().unwrap();
    let db = database::open(data.path());
    db.begin(Access::Write).unwrap();
    let world = World::new(Timestamp::from_seconds(NOW));
    let all = statements(&world);
    let mut rows = Vec::new();
    for (place, (statement, envelope, key)) in all.iter().enumerate() {
        assert_eq!(would_take(&db, envelope), TAKEN, "{statement}");
        // One identity stands for all.
        if all.get(place + 1).is_none_or(|next| next.0 != *statement) {
            for Mutation { field, what, payload } in mutations(&payload(envelope)) {
                let by_anybody = would_take(&db, &forged(envelope, &payload));
                let by_signer = would_take(&db, &signed_again(envelope, &payload, key));
                assert!(by_anybody.starts_with('`'), "{statement}: {field} {what}: {by_anybody}");
                let outcomes = vec![by_anybody, by_signer];
                rows.push(Row { statement, field, what, outcomes });
            }
        }
        // The two adoptions are one statement with two signatures.
        if *statement != "adoption by the farm" {
            assert_eq!(take(&db, envelope), TAKEN, "{statement}");
        }
    }
    let by_signer = || rows.iter().filter(|row| row.outcomes[1] == TAKEN);
    let wrong: Vec<_> =
        by_signer().filter(|row| NEVER.contains(&row.what) || row.field == "network").collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let absent = by_signer().filter(|row| ["missing", "null"].contains(&row.what));
    let absent: BTreeSet<_> = absent.map(|row| (row.statement, row.field.as_str())).collect();
    assert_eq!(absent, BTreeSet::from(OPTIONAL));
    let table = table(&["By anybody", "By its signer"], &rows);
    hold("modules/registryd/tests/mutations.rs", "registryd", &table);
}
