//! The grid at a glance.

use super::{
    App, Tab, contracts,
    layout::frame,
    list::{List, list},
    page, results,
};
use crate::{
    db::Fault,
    overview::{self, Counts, Which},
};
use axum::{extract::State, response::Response};
use maud::html;

/// Contracts and results that are shown.
const SHOWN: usize = 10;

pub(super) async fn get(State(app): State<App>) -> Result<Response, Fault> {
    let now = (app.now)();
    let work = move |db: &_| {
        Ok((
            overview::counts(db, now)?,
            overview::changed_last(db, SHOWN, now)?,
            overview::results(db, Which::default())?,
        ))
    };
    let (counts, contracts, mut last) = app.db.read_page(work).await?;
    last.rows.truncate(SHOWN);
    let Counts { farms, nodes, online, contracts: count } = counts;
    let about = List {
        caption: "The contracts that changed last",
        columns: contracts::COLUMNS,
        none: "There is no contract yet.",
        next: None,
    };
    let content = html! {
        ul .tiles {
            li { a href="/farms" { strong { (farms) } @if farms == 1 { " farm" } @else { " farms" } } }
            li { a href="/nodes" { strong { (online) } " of " (nodes) " nodes online" } }
            li { a href="/contracts" {
                strong { (count) } @if count == 1 { " contract" } @else { " contracts" }
            } }
            @if let Some(log) = &app.log {
                li { a href="/log" { strong { (log.size()) } " entries in the log" } }
            }
        }
        h2 { "Contracts" }
        (list(&about, &contracts, contracts::row))
        h2 { "Last results" }
        (results::table("The last things that happened", None, &last))
    };
    Ok(page(frame(Tab::Home, &format!("Grid {}", app.network), &content)))
}
