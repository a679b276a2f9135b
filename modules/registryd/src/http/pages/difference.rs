//! The exact difference between the version in force and the newest one, and how to sign it.

use super::{
    App, Fields, Segments, Tab,
    layout::{command, frame, said},
    list::{fill, table, unshown},
    page, registry, unknown,
};
use crate::{
    db::Fault,
    difference::Change,
    overview::{self, Shown},
    proposal::{Proposal, proposal},
    refusal,
};
use axum::{extract::State, http::HeaderMap, response::Response};
use contract::{ContractId, StatementId, decision::Action};
use maud::{Markup, html};
use registry_api::problem::codes;
use serde::Deserialize;
use serde_json::Value;

/// Lines of one page.
const LINES_MAX: usize = 400;
/// Characters of one value, or word of the way to it. What is longer is not shown whole.
const VALUE_MAX: usize = 4096;
/// Characters before the first difference of two long values, so that it is seen where it is.
const VALUE_BEFORE: usize = 200;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    from: usize,
    statement: Option<StatementId>,
}

pub(super) async fn get(
    State(app): State<App>,
    headers: HeaderMap,
    Segments(id): Segments<ContractId>,
    Fields(Asked { from, statement }): Fields<Asked>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let work = move |db: &_| overview::one(db, &id, |db| proposal(db, &id, now));
    let found = app.db.read_page(work).await?.ok_or_else(|| unknown("contract", &id))?;
    let Shown::Read(found) = &found else {
        let content = html! { p { code { (id) } " " (unshown(&found)) } };
        return Ok(page(frame(Tab::Contracts, "Difference", &content)));
    };
    if statement.is_some_and(|statement| statement != found.statement) {
        let text = format!("the newest version of {id} is another one now: {}", found.statement);
        return Err(refusal(409, codes::STALE, text, ""));
    }
    let signing = Signing {
        contract: id,
        subject: found.statement,
        action: if found.version == 1 { Action::Create } else { Action::Update },
        network: &app.network,
        registry: registry(&headers),
    };
    let content = html! {
        (what(found))
        @if from > 0 { p { a href={ "/contracts/" (id) "/difference" } { "From the beginning" } } }
        (lines(found, from))
        @if found.open { h2 { "To decide on it" } (signing.commands()) }
        @else if !found.in_force {
            p .note { "Nobody is asked about it any more: " a href={ "/contracts/" (id) } { "why" } "." }
        }
    };
    Ok(page(frame(Tab::Contracts, &found.title, &content)))
}

/// What is compared with what.
pub(super) fn what(found: &Proposal) -> Markup {
    html! {
        p {
            @match found.before {
                Some((version, _)) => {
                    "Version " (found.version) " beside version " (version) ", which is in force."
                }
                None if found.in_force => {
                    "Version " (found.version) " is in force, and nothing newer is proposed. \
                     This is all that it says."
                }
                None if found.unjudged.is_some() => {
                    "Which version is in force cannot be said here"
                    @if let Some(reason) = &found.unjudged { ": " (said(reason)) }
                    ". This is all that version " (found.version) " says."
                }
                None => {
                    "No version is in force. This is all that version " (found.version) " says."
                }
            }
        }
        dl {
            dt { "Contract" } dd { a href={ "/contracts/" (found.contract) } { code { (found.contract) } } }
            dt { "Statement" } dd { code { (found.statement) } }
        }
    }
}

/// The values that differ, from a line on.
pub(super) fn lines(found: &Proposal, from: usize) -> Markup {
    let rest = found.changes.get(from..).unwrap_or_default();
    let (rows, shown) = fill(&rest[..rest.len().min(LINES_MAX)], row);
    let next = from.saturating_add(shown);
    let (total, (new, old)) = (found.total, found.left_out);
    let caption = match shown {
        0 => "Values that differ".to_owned(),
        _ => format!("Values that differ: {} to {next} of {total}", from + 1),
    };
    html! {
        @if found.too_many {
            p .note { strong { "Not shown: it has more values than a page compares." }
                " " code { "3bot contract approve" } " shows it before it signs." }
        } @else if found.changes.is_empty() {
            p { "No value differs." }
        } @else {
            (table(&caption, &["Value", "In force", "Proposed"], &rows))
        }
        @if next < total {
            p .note {
                strong { "Not all is shown here: " (total - next) " more of " (total) " values." } " "
                a href={
                    "/contracts/" (found.contract) "/difference?statement=" (found.statement)
                    "&from=" (next)
                } { "Go on from value " (next + 1) }
            }
        }
        @if found.documents_before_missing && !found.documents_missing {
            p .note { strong { "Not compared here: what nodes do. The documents of the version in force \
                are missing here." } " " code { "3bot contract approve" } " shows what it has of them." }
        } @else if found.documents_missing {
            p .note { strong { "The documents for the nodes are missing here." }
                " Nobody can see what the nodes would do; 3bot signs nothing." }
        } @else if !found.too_many && (new > 0 || old > 0) {
            p .note { strong { "Not compared here: what " (new) " nodes of the newest version do"
                @if old > 0 { ", and " (old) " of the one in force" } "." }
                " " code { "3bot contract approve" } " shows everything." }
        }
    }
}

/// Whether a list shows all of it.
pub(super) fn is_whole(found: &Proposal) -> bool {
    let (_, shown) = fill(&found.changes, row);
    shown == found.total && !found.too_many && found.left_out == (0, 0)
}

fn row(change: &Change) -> Markup {
    let from = match (&change.old, &change.new) {
        (Some(old), Some(new)) => begin(old, new),
        _ => 0,
    };
    let value = |value: Option<&String>| {
        html! { @match value {
            Some(value) => { (exact(value, from)) }
            None => { span .dim { "not there" } }
        } }
    };
    html! { tr {
        th scope="row" .way {
            @for (place, word) in change.way.iter().enumerate() {
                @if place > 0 { " › " } (word_of_way(word))
            }
        }
        td .value .old { (value(change.old.as_ref())) }
        td .value .new { (value(change.new.as_ref())) }
    } }
}

/// A word of the way to a value. One that could be taken for several is written as JSON.
fn word_of_way(word: &str) -> Markup {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return exact(word, 0);
    }
    exact(&Value::from(word).to_string(), 0)
}

/// The character from which two values are shown: the first, or some before the first that differs
/// when that would not be seen otherwise.
fn begin(old: &str, new: &str) -> usize {
    let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
    if same + VALUE_BEFORE < VALUE_MAX { 0 } else { same - VALUE_BEFORE }
}

/// A value as it was signed, in JSON, from a character on.
fn exact(value: &str, from: usize) -> Markup {
    let place = |nth: usize| value.char_indices().nth(nth).map_or(value.len(), |(at, _)| at);
    let (start, end) = (place(from), place(from.saturating_add(VALUE_MAX)));
    html! {
        @if from > 0 { strong { "the same before: " (from) " characters …" } " " }
        code { bdi { (&value[start..end]) } }
        @if end < value.len() {
            " " strong { "… not shown whole: " (value[end..].chars().count()) " more characters" }
        }
    }
}

/// The commands by which somebody decides, on their own machine.
pub(super) struct Signing<'a> {
    pub(super) contract: ContractId,
    pub(super) subject: StatementId,
    pub(super) action: Action,
    pub(super) network: &'a str,
    pub(super) registry: Option<String>,
}

impl Signing<'_> {
    /// The pin makes 3bot sign what was shown, or nothing.
    fn line(&self, word: &str, last: &str) -> String {
        let Self { contract, subject, action, network, registry } = self;
        let order = match action {
            Action::Create | Action::Update => String::new(),
            Action::Cancel => format!(" --cancel --order {subject}"),
        };
        let registry =
            registry.as_ref().map(|url| format!(" --registry {url}")).unwrap_or_default();
        format!(
            "3bot contract {word} {contract}{order} --hash {subject}{registry} --network {network}{last}"
        )
    }

    pub(super) fn commands(&self) -> Markup {
        html! {
            p {
                "Decisions are signed on your own machine; no key comes here. Each command names the \
                 statement above by its hash: it decides on exactly that one, or on nothing. "
                code { "approve" } " shows it once more in words, and asks; when you approved an earlier \
                 version, the changes since that one. With several keys, add "
                code { "--as" } " and the name of yours."
            }
            p { "To approve:" }
            (command(&self.line("approve", "")))
            // Without a reason it is refused, so that a line that is only copied signs nothing.
            p { "To reject; add your reason at its end, in quotes:" }
            (command(&self.line("reject", " --reason")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_whole_or_says_that_it_is_not() {
        assert_eq!(exact("\"<\"", 0).into_string(), "<code><bdi>&quot;&lt;&quot;</bdi></code>");
        let long = exact(&"x".repeat(VALUE_MAX + 3), 0).into_string();
        assert!(long.contains("not shown whole: 3 more"));
    }

    #[test]
    fn the_first_difference_of_two_long_values_is_seen() {
        let long = |end: &str| format!("{}{end}{}", "ä".repeat(3 * VALUE_MAX), "y".repeat(9));
        let (old, new) = (long("A"), long("B"));
        let from = begin(&old, &new);
        let show = |value: &str| exact(value, from).into_string();
        assert!(show(&old).contains('A') && show(&new).contains('B'));
        assert!(show(&old).contains("the same before"));
        // One that ends where the other goes on.
        let from = begin(&old, &"ä".repeat(3 * VALUE_MAX));
        assert!(exact(&old, from).into_string().contains('A'));
        assert_eq!(begin("a", "b"), 0);
    }

    #[test]
    fn a_word_is_not_taken_for_a_way() {
        let show = |word: &str| word_of_way(word).into_string();
        assert_eq!(show("memory_bytes"), "<code><bdi>memory_bytes</bdi></code>");
        let quoted = "<code><bdi>&quot;/a › source&quot;</bdi></code>";
        assert_eq!(show("/a › source"), quoted);
        assert_eq!(show(""), "<code><bdi>&quot;&quot;</bdi></code>");
    }

    #[test]
    fn an_order_is_named_twice() {
        let id = StatementId([0xab; 32]);
        let signing = Signing {
            contract: ContractId([1; 32]),
            subject: id,
            action: Action::Cancel,
            network: "test",
            registry: None,
        };
        let wanted = format!(
            "3bot contract approve {} --cancel --order {id} --hash {id} --network test",
            ContractId([1; 32])
        );
        assert_eq!(signing.line("approve", ""), wanted);
    }
}
