//! Every field of every statement of a contract, changed: what the node makes of it.
//!
//! The outcome is the table of docs/refusals.md. `ZOS_WRITE_DOCS=1 cargo test -p contract` writes
//! it anew; the difference is for people to read.

extern crate std;

use super::*;
use crate::{SigningKey, envelope::Kind};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::{collections::BTreeSet, env, fs, path::Path};

/// When the node judges: the contract may run, and an order to end it has taken effect.
const JUDGED: i64 = 250;
const PAGE: &str = "../../docs/refusals.md";
const MARK: &str =
    "<!-- The table is written by a test: modules/contract/src/verdict/tests/mutations.rs -->\n";

/// A way to spoil a payload.
#[derive(Debug, Clone)]
struct Mutation {
    /// The field, as a reader writes it.
    field: String,
    what: &'static str,
    payload: Value,
}

/// Every mutation of a payload. Of a list, the first element stands for all.
fn mutations(payload: &Value) -> Vec<Mutation> {
    let mut found = Vec::new();
    walk(payload, "", &mut |pointer, value| {
        let mut push = |what, change: &dyn Fn(&mut Value)| {
            let mut payload = payload.clone();
            change(payload.pointer_mut(pointer).expect("it was found there"));
            found.push(Mutation { field: field(pointer), what, payload });
        };
        match value {
            Value::Object(members) => {
                push("unknown member", &|value| value["surplus"] = json!(1));
                for name in members.keys() {
                    let mut payload = payload.clone();
                    let object = payload.pointer_mut(pointer).and_then(Value::as_object_mut);
                    object.expect("it is one").remove(name);
                    let field = field(&format!("{pointer}/{name}"));
                    found.push(Mutation { field, what: "missing", payload });
                }
            }
            Value::Array(elements) => {
                push("one too many", &|value| {
                    let surplus = elements.first().cloned().unwrap_or_else(|| json!(1));
                    value.as_array_mut().expect("it is one").push(surplus);
                });
                if !elements.is_empty() {
                    push("last one gone", &|value| {
                        value.as_array_mut().expect("it is one").pop();
                    });
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                push("other value", &|value| *value = other(value));
                push("other type", &|value| *value = json!({ "is": value.clone() }));
            }
        }
    });
    found
}

fn walk(value: &Value, pointer: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(pointer, value);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                walk(member, &format!("{pointer}/{name}"), visit);
            }
        }
        Value::Array(elements) => {
            if let Some(first) = elements.first() {
                walk(first, &format!("{pointer}/0"), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `/flists/0/urls` becomes `flists[].urls`.
fn field(pointer: &str) -> String {
    let path = pointer.trim_start_matches('/').replace("/0", "[]").replace('/', ".");
    if path.is_empty() { "(whole)".into() } else { path }
}

/// A neighbour: it mostly still parses.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(one) => json!(!one),
        Value::Number(number) => json!(number.as_u64().expect("payloads hold no others") + 1),
        Value::String(text) => {
            if let Ok(time) = text.parse::<Timestamp>() {
                return json!(time.plus(1).to_string());
            }
            let mut text = text.clone();
            let last = text.pop();
            text.push(if last == Some('0') { '1' } else { '0' });
            json!(text)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => json!("something"),
    }
}

fn payload(envelope: &Envelope) -> Value {
    serde_json::from_slice(&envelope.payload_bytes().unwrap()).unwrap()
}

/// The envelope with another payload and the signatures that it had.
fn forged(envelope: &Envelope, payload: &Value) -> Envelope {
    Envelope { payload: BASE64.encode(payload.to_string()), ..envelope.clone() }
}

/// The same, signed by the one who may.
fn signed_again(envelope: &Envelope, payload: &Value, key: &SigningKey) -> Envelope {
    let mut forged = forged(envelope, payload);
    forged.signatures.clear();
    forged.sign(key).unwrap();
    forged
}

/// One statement of a bundle, and whose it is.
struct Subject {
    name: &'static str,
    signer: &'static str,
    of: fn(&mut Bundle) -> &mut Envelope,
    /// Whether the bundle is one that has been ended by an order.
    ended: bool,
}

const fn subject(
    name: &'static str,
    signer: &'static str,
    of: fn(&mut Bundle) -> &mut Envelope,
) -> Subject {
    Subject { name, signer, of, ended: false }
}

/// The order of [`crate::testkit::PEOPLE`] is that of the identities.
const SUBJECTS: [Subject; 7] = [
    subject("contract", "owner", |bundle| &mut bundle.headers[0]),
    subject("approval", "legal", |bundle| &mut bundle.approvals[1]),
    subject("identity, the owner's", "owner", |bundle| &mut bundle.identities[0]),
    subject("identity, a stakeholder's", "legal", |bundle| &mut bundle.identities[2]),
    subject("pool", "farm", |bundle| &mut bundle.pools[0]),
    Subject { ended: true, ..subject("cancel", "owner", |bundle| &mut bundle.cancels[0]) },
    Subject {
        ended: true,
        ..subject("approval of a cancel", "legal", |bundle| &mut bundle.approvals[3])
    },
];

struct Row {
    statement: &'static str,
    field: String,
    what: &'static str,
    forged: String,
    signed: String,
    approved: String,
}

fn outcome(world: &World, bundle: &Bundle) -> String {
    match world.judge(bundle, JUDGED) {
        Verdict::Run(_) => "runs".into(),
        Verdict::Stop(_) => "stops".into(),
        Verdict::Refuse(refusal) => format!("`{}`", refusal.code),
    }
}

fn bundle(world: &World, ended: bool) -> Bundle {
    let mut bundle = world.agreed();
    if ended {
        world.end(&mut bundle, &["it", "legal"]);
    }
    bundle
}

fn rows_of(world: &World, subject: &Subject) -> Vec<Row> {
    let mut base = bundle(world, subject.ended);
    let envelope = (subject.of)(&mut base).clone();
    let key = world.key(subject.signer);
    let judge = |changed: Envelope| {
        let mut bundle = base.clone();
        *(subject.of)(&mut bundle) = changed;
        outcome(world, &bundle)
    };
    let row = |mutation: Mutation| {
        let again = signed_again(&envelope, &mutation.payload, key);
        let approved = match envelope.kind() {
            Some(Kind::Contract) => approved_again(world, &base, &again),
            Some(_) | None => String::new(),
        };
        Row {
            statement: subject.name,
            field: mutation.field,
            what: mutation.what,
            forged: judge(forged(&envelope, &mutation.payload)),
            signed: judge(again),
            approved,
        }
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
    let document: Value = serde_json::from_slice(&base.documents[0].bytes().unwrap()).unwrap();
    let row = |mutation: Mutation| {
        let mut bundle = base.clone();
        bundle.documents[0].document = BASE64.encode(mutation.payload.to_string());
        let root = merkle::root(&[merkle::leaf(mutation.payload.to_string().as_bytes())]);
        let mut header = payload(&base.headers[0]);
        header["deployments"]["root"] = json!(StatementId(root));
        let header = signed_again(&base.headers[0], &header, world.key("owner"));
        let mut signed = bundle.clone();
        signed.headers[0] = header.clone();
        Row {
            statement: "deployment document",
            field: mutation.field,
            what: mutation.what,
            forged: outcome(world, &bundle),
            signed: outcome(world, &signed),
            approved: approved_again(world, &bundle, &header),
        }
    };
    mutations(&document).into_iter().map(row).collect()
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(MARK);
    let mut statement = "";
    for row in rows {
        if row.statement != statement {
            statement = row.statement;
            text += &format!(
                "\n## {statement}\n\n\
                 | Field | Change | By anybody | By its signer | And approved again |\n\
                 |---|---|---|---|---|\n"
            );
        }
        let Row { field, what, forged, signed, approved, .. } = row;
        text += &format!("| `{field}` | {what} | {forged} | {signed} | {approved} |\n");
    }
    text
}

#[test]
fn no_field_of_any_statement_can_be_changed_unnoticed() {
    let world = world();
    assert_eq!(outcome(&world, &bundle(&world, false)), "runs");
    assert_eq!(outcome(&world, &bundle(&world, true)), "stops");
    let mut rows: Vec<Row> = SUBJECTS.iter().flat_map(|one| rows_of(&world, one)).collect();
    rows.extend(rows_of_document(&world));
    for row in &rows {
        // What ends a contract does not count when it was changed: the contract goes on.
        let expected = row.statement.contains("cancel");
        let place = format!("{}: {} {}", row.statement, row.field, row.what);
        assert_eq!(row.forged == "runs", expected, "{place}");
        assert_ne!(row.forged, "stops", "{place}");
    }
    // A signer alone can change only what binds nobody.
    let alone: BTreeSet<_> = rows
        .iter()
        .filter(|row| !row.statement.contains("cancel") && row.signed == "runs")
        .map(|row| (row.statement, row.field.as_str(), row.what))
        .collect();
    let harmless = [("approval", "comment", "other value"), ("approval", "issued", "other value")];
    assert_eq!(alone, BTreeSet::from(harmless));
    compare(&table(&rows));
}

/// Holds the table against the page, or writes it there.
fn compare(table: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let text = fs::read_to_string(&page).unwrap();
    let (above, written) = text.split_once(MARK).expect("the page has the mark");
    let written = format!("{MARK}{written}");
    if env::var_os("ZOS_WRITE_DOCS").is_some() {
        fs::write(&page, format!("{above}{table}")).unwrap();
    } else {
        let n_line = table.lines().zip(written.lines()).take_while(|(a, b)| a == b).count();
        assert!(
            *table == written,
            "docs/refusals.md is not what the rule says, from line {n_line} of the table: \
             write it anew with ZOS_WRITE_DOCS=1"
        );
    }
}
