//! Every field of a statement, changed in every way, and the table of what follows.
//!
//! The payload is walked as the JSON that it is, so that a field is covered on the day that it is made.
//! Who judges is up to the test; what the tests find stands in docs/refusals.md.

use super::VALID;
use crate::{Envelope, SigningKey, Timestamp};
use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString as _},
    vec,
    vec::Vec,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::{env, fs, path::Path};

/// Stands for the second of two members of one name until the payload is text.
const TWIN: &str = "(twin)";
/// Longer lists of fields are told as `every other field`.
const FIELDS_MAX: usize = 6;
const PAGE: &str = "../../docs/refusals.md";
const END: &str = "<!-- end of the table -->";

/// A way to spoil a payload.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// The field, as a reader writes it.
    pub field: String,
    /// What was done to it.
    pub what: &'static str,
    /// The payload that comes of it.
    pub payload: String,
}

/// Every mutation of a payload. Of a list, the first element stands for all.
pub fn mutations(payload: &Value) -> Vec<Mutation> {
    let mut found = Vec::new();
    walk(payload, "", &mut |pointer, value| {
        for (member, what, changed) in changes(value) {
            let mut payload = payload.clone();
            *payload.pointer_mut(pointer).expect("it was found there") = changed;
            let text = payload.to_string().replace(TWIN, member.as_deref().unwrap_or_default());
            let field = match member {
                Some(member) => field(&format!("{pointer}/{member}")),
                None => field(pointer),
            };
            found.push(Mutation { field, what, payload: text });
        }
    });
    found
}

/// What can be done to a value, or to a member of it.
fn changes(value: &Value) -> Vec<(Option<String>, &'static str, Value)> {
    let other_type = (None, "other type", json!({ "is": value }));
    match value {
        Value::Object(members) => {
            let mut surplus = members.clone();
            surplus.insert("surplus".into(), json!(1));
            let mut found = vec![(None, "unknown member", Value::Object(surplus)), other_type];
            for (name, member) in members {
                let (mut without, mut twice) = (members.clone(), members.clone());
                without.remove(name);
                twice.insert(TWIN.into(), member.clone());
                found.push((Some(name.clone()), "missing", Value::Object(without)));
                found.push((Some(name.clone()), "there twice", Value::Object(twice)));
            }
            found
        }
        Value::Array(elements) => {
            let mut more = elements.clone();
            more.push(elements.first().cloned().unwrap_or_else(|| json!(1)));
            let mut found = vec![(None, "one too many", Value::Array(more)), other_type];
            if let Some((_, fewer)) = elements.split_last() {
                found.push((None, "last one gone", fewer.into()));
                let reversed: Vec<Value> = elements.iter().rev().cloned().collect();
                if reversed != *elements {
                    found.push((None, "turned round", reversed.into()));
                }
            }
            found
        }
        Value::Number(number) => {
            let next = number.as_u64().expect("payloads hold no others") + 1;
            vec![
                (None, "other value", json!(next)),
                (None, "largest number", json!(u64::MAX)),
                (None, "negative", json!(-1)),
                (None, "fraction", json!(1.5)),
                (None, "null", Value::Null),
                other_type,
            ]
        }
        Value::String(text) if text.is_empty() => {
            vec![(None, "other value", json!("something")), (None, "null", Value::Null), other_type]
        }
        Value::String(text) => vec![
            (None, "other value", json!(other(text))),
            (None, "empty", json!("")),
            (None, "null", Value::Null),
            other_type,
        ],
        Value::Bool(one) => vec![(None, "other value", json!(!one)), other_type],
        Value::Null => vec![(None, "other value", json!("something")), other_type],
    }
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

/// Words that stand in one place, so that one of them is another valid value there.
const WORDS: [&[&str]; 4] = [
    &["create", "update", "cancel"],
    &["approve", "withdraw", "reject"],
    &["budget", "it", "legal", "security", "other"],
    &["accepted", "refused", "running", "failed", "stopped", "wiped"],
];

/// A neighbour: it mostly still parses.
fn other(text: &str) -> String {
    if let Ok(time) = text.parse::<Timestamp>() {
        return time.plus(1).to_string();
    }
    for words in WORDS {
        if let Some(place) = words.iter().position(|word| *word == text) {
            return words[(place + 1) % words.len()].into();
        }
    }
    let middle = text.chars().count() / 2;
    let swap = |(place, c)| match c {
        _ if place != middle => c,
        '0' => '1',
        _ => '0',
    };
    text.chars().enumerate().map(swap).collect()
}

/// The payload of a statement as a tree.
pub fn payload(envelope: &Envelope) -> Value {
    serde_json::from_slice(&envelope.payload_bytes().expect(VALID)).expect(VALID)
}

/// The envelope with another payload and the signatures that it had.
pub fn forged(envelope: &Envelope, payload: &str) -> Envelope {
    Envelope { payload: BASE64.encode(payload), ..envelope.clone() }
}

/// The same, signed by the one who may.
pub fn signed_again(envelope: &Envelope, payload: &str, key: &SigningKey) -> Envelope {
    let mut again = forged(envelope, payload);
    again.signatures.clear();
    again.sign(key).expect(VALID);
    again
}

/// What followed from one mutation.
#[derive(Debug)]
pub struct Row {
    /// The statement, as a heading.
    pub statement: &'static str,
    /// The field.
    pub field: String,
    /// What was done to it.
    pub what: &'static str,
    /// What followed, one for each of the first columns.
    pub outcomes: Vec<String>,
}

/// The rows as Markdown, those of one outcome in one line.
pub fn table(columns: &[&str], rows: &[Row]) -> String {
    let mut text = String::new();
    for of_statement in rows.chunk_by(|a, b| a.statement == b.statement) {
        let columns = &columns[..of_statement[0].outcomes.len()];
        let (head, rule) = (columns.join(" | "), "---|".repeat(columns.len()));
        text += &format!("\n### {}\n\n", of_statement[0].statement);
        text += &format!("| Field | Change | {head} |\n|---|---|{rule}\n");
        for (fields, changes, outcomes) in lines(of_statement) {
            text += &format!("| {fields} | {} | {} |\n", changes.join(", "), outcomes.join(" | "));
        }
    }
    text
}

type Line<'a> = (String, Vec<&'static str>, &'a [String]);

fn lines(rows: &[Row]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut seen = BTreeSet::new();
    for what in rows.iter().map(|row| row.what).filter(|what| seen.insert(*what)) {
        let of_change = || rows.iter().filter(|row| row.what == what);
        let mut outcomes: Vec<&[String]> = of_change().map(|row| &row.outcomes[..]).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        let fields_of = |wanted: &[String]| -> Vec<String> {
            let same = of_change().filter(|row| row.outcomes == wanted);
            same.map(|row| format!("`{}`", row.field)).collect()
        };
        let most = outcomes.iter().map(|one| fields_of(one).len()).max();
        for outcome in &outcomes {
            let fields = fields_of(outcome);
            let fields = match fields.len() {
                n if n > 2 && outcomes.len() == 1 => "every field".into(),
                n if n > FIELDS_MAX && Some(n) == most => "every other field".into(),
                _ => fields.join(", "),
            };
            let same = lines.iter_mut().find(|line| line.0 == fields && line.2 == *outcome);
            match same {
                Some(line) => line.1.push(what),
                None => lines.push((fields, vec![what], outcome)),
            }
        }
    }
    lines
}

/// Holds a table against its part of the page, or writes it there.
///
/// # Panics
///
/// When they differ; the message says how to write it anew.
pub fn hold(test: &str, krate: &str, table: &str) {
    let mark = format!("<!-- The table is written by a test: {test} -->\n");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let text = fs::read_to_string(&page).expect("the page can be read");
    let (above, rest) = text.split_once(&mark).expect("the page has the mark");
    let (written, below) = rest.split_once(END).expect("the table has an end");
    if env::var_os("ZOS_WRITE_DOCS").is_some() {
        let text = format!("{above}{mark}{table}\n{END}{below}");
        return fs::write(&page, text).expect("the page can be written");
    }
    let line = table.lines().zip(written.lines()).take_while(|(a, b)| a == b).count();
    assert!(
        table.trim_end() == written.trim_end(),
        "docs/refusals.md is not what the code says, from line {line} of the table of {test}: \
         write it anew with ZOS_WRITE_DOCS=1 cargo test -p {krate} mutation, and read the difference"
    );
}
