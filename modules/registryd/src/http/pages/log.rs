//! The transparency log: what it has, how far it is, and the proofs.

use super::{
    App, Fields, Segments, Tab,
    layout::{command, frame, said, short},
    list::table,
    page, unknown,
};
use crate::{
    db::Fault,
    overview::{self, ROWS_MAX},
    transparency::{self, Entry, Standing},
};
use axum::{extract::State, response::Response};
use contract::Kind;
use maud::{Markup, html};
use serde::Deserialize;
use tlog::{Record, tree};

/// Characters of a checkpoint that are shown: with very many witnesses it is longer.
const CHECKPOINT_MAX: usize = 16 << 10;
/// Witnesses that are shown.
const WITNESSES_SHOWN: usize = 50;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    from: Option<u64>,
}

pub(super) async fn list(
    State(app): State<App>,
    Fields(Asked { from }): Fields<Asked>,
) -> Result<Response, Fault> {
    let Some(log) = &app.log else {
        let content = html! { p { "The transparency log of this registry has not begun." } };
        return Ok(page(frame(Tab::Log, "Log", &content)));
    };
    let size = log.size();
    let below = from.map_or(size, |from| from.saturating_add(1).min(size));
    let work = move |db: &_| Ok((transparency::head(db)?, overview::entries(db, below)?));
    let (head, entries) = app.db.read_page(work).await?;
    let content = html! {
        dl {
            dt { "Origin" } dd { code { (said(log.origin())) } }
            @if let Some(head) = &head { dt { "Key" } dd { code { (said(&head.key)) } } }
            dt { "Entries" }
            dd {
                (size) " shown, " (log.size_signed()) " signed"
                @if size < log.size_signed() { "; the rest waits for witnesses" }
            }
        }
        h2 { "Checkpoint" }
        @match log.checkpoint() {
            Some(note) => (checkpoint(&note)),
            None => p { "None is cosigned by enough witnesses yet." },
        }
        (witnesses(&log.standings(), log.size_signed()))
        h2 { "Entries" }
        form method="get" action="/log" {
            label for="from" { "Entries from this index down" }
            div .field {
                input #from name="from" required inputmode="numeric" pattern="[0-9]{1,18}" size="20" value=[from];
                button type="submit" { "Show entries" }
            }
        }
        (listed(&entries))
    };
    Ok(page(frame(Tab::Log, "Log", &content)))
}

fn checkpoint(note: &str) -> Markup {
    let end = note.char_indices().nth(CHECKPOINT_MAX).map(|(end, _)| end);
    html! {
        pre .command { code { (&note[..end.unwrap_or(note.len())]) } }
        @if end.is_some() { p .note { "It is not shown whole." } }
        p { a href="/checkpoint" download="checkpoint" { "Download the checkpoint" } }
    }
}

fn witnesses(standings: &[Standing], signed: u64) -> Markup {
    let rows = html! { @for one in standings.iter().take(WITNESSES_SHOWN) { tr {
        th scope="row" { (said(&one.name)) }
        td { (signed.saturating_sub(one.size)) " entries" }
        td { @match &one.problem { Some(problem) => (said(problem)), None => "none" } }
    } } };
    html! { @if !standings.is_empty() {
        h2 { "Witnesses" }
        (table("Witnesses of the log", &["Witness", "Behind", "Problem"], &rows))
        @if standings.len() > WITNESSES_SHOWN {
            p .note { "Not all are shown here: " (standings.len() - WITNESSES_SHOWN) " more." }
        }
    } }
}

fn listed(entries: &[Entry]) -> Markup {
    let rows = html! { @for entry in entries { tr {
        th scope="row" { a href={ "/log/" (entry.index) } { (entry.index) } }
        @match record(entry) {
            Some(record) => {
                td { (record.kind.name()) }
                td { (subject(&record)) }
                td { (record.version) }
                td { (short(&record.statement)) }
            }
            None => td colspan="4" { "cannot be read" },
        }
    } } };
    let more = entries.last().filter(|last| entries.len() == ROWS_MAX && last.index > 0);
    html! {
        @if entries.is_empty() { p .dim { "There is no entry there." } }
        @else {
            (table(
                "Entries of the log, newest first",
                &["Index", "Kind", "About", "Version", "Statement"],
                &rows,
            ))
        }
        @if let Some(last) = more {
            p .more { a rel="next" href={ "/log?from=" (last.index - 1) } { "More" } }
        }
    }
}

fn record(entry: &Entry) -> Option<Record> {
    Record::read(entry.record.as_ref()?).ok()
}

/// What an entry is about, by where it can be looked at.
fn subject(record: &Record) -> Markup {
    let id = hex::encode(record.subject);
    let page = match record.kind {
        Kind::Node | Kind::Adoption | Kind::Scrub | Kind::Result | Kind::Heartbeat => {
            Some("/nodes/")
        }
        Kind::Contract | Kind::Approval | Kind::Cancel => Some("/contracts/"),
        Kind::Farm => Some("/nodes?farm="),
        Kind::Identity | Kind::Pool => None,
    };
    html! { @match page {
        Some(page) => a href={ (page) (id) } { (short(&id)) },
        None => (short(&id)),
    } }
}

pub(super) async fn one(
    State(app): State<App>,
    Segments(index): Segments<u64>,
) -> Result<Response, Fault> {
    let missing = || unknown("entry of the log", &index);
    let log = app.log.as_ref().filter(|log| index < log.size()).ok_or_else(missing)?;
    let size = log.size();
    let work = move |db: &_| overview::entries(db, index.saturating_add(1));
    let entries = app.db.read_page(work).await?;
    let entry = entries.first().filter(|entry| entry.index == index).ok_or_else(missing)?;
    let content = html! {
        p { "Entry " (index) " of " (size) "." }
        @match record(entry) { Some(record) => (detail(entry, &record)), None => p { "It cannot be read." } }
        p {
            @if index > 0 { a rel="prev" href={ "/log/" (index - 1) } { "Entry before" } " " }
            @if index + 1 < size { a rel="next" href={ "/log/" (index + 1) } { "Entry after" } }
        }
    };
    Ok(page(frame(Tab::Log, &format!("Entry {index}"), &content)))
}

fn detail(entry: &Entry, record: &Record) -> Markup {
    let id = record.statement;
    let leaf = tree::leaf(entry.record.as_deref().unwrap_or_default());
    html! {
        dl {
            dt { "Kind" } dd { (record.kind.name()) }
            dt { "About" } dd { (subject(record)) " " code { (hex::encode(record.subject)) } }
            dt { "Version or number" } dd { (record.version) }
            dt { "Statement" } dd { code { (id) } }
            dt { "Root over its signatures" } dd { code { (hex::encode(record.evidence)) } }
            dt { "Leaf hash" } dd { code { (hex::encode(leaf)) } }
        }
        ul {
            li { a href={ "/v1/statements/" (id) } { "The statement, as it was signed" } }
            li {
                a href={ "/v1/statements/" (id) "/proof" } download={ (id) ".tlog-proof" } {
                    "Download the proof that it is in the log"
                }
            }
        }
        p { "To check that proof without asking anybody, against a policy that you trust:" }
        (command(&format!("3bot log verify {id} --policy policy.txt --proof {id}.tlog-proof")))
    }
}
