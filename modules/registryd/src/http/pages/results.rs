//! Results: what nodes reported, with their reasons.

use super::{
    App, Fields, Tab,
    layout::{Tone, badge, frame, said, short, time, work_state},
    list::{List, list},
    page,
};
use crate::{
    db::Fault,
    overview::{self, Page, Which},
};
use axum::{extract::State, response::Response};
use contract::{ContractId, NodeId, StatementId};
use maud::{Markup, html};
use registry_api::view::ResultView;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    contract: Option<ContractId>,
    node: Option<NodeId>,
    before: Option<StatementId>,
    #[serde(default)]
    named: bool,
}

pub(super) async fn get(
    State(app): State<App>,
    Fields(Asked { contract, node, before, named }): Fields<Asked>,
) -> Result<Response, Fault> {
    let which = Which { contract, node, named, before };
    let found = app.db.read_page(move |db| overview::results(db, which)).await?;
    let content = html! {
        @if let Some(id) = &contract {
            p { "About the contract " a href={ "/contracts/" (id) } { code { (id) } } }
        }
        @if let Some(id) = &node { p { "Of the node " a href={ "/nodes/" (id) } { code { (id) } } } }
        (table("What nodes reported, newest first", Some(&link(&which)), &found))
    };
    Ok(page(frame(Tab::Results, "Results", &content)))
}

/// The address of results, up to the one before which they are wanted.
pub(super) fn link(which: &Which) -> String {
    let contract = which.contract.map(|id| format!("contract={id}&"));
    let node = which.node.map(|id| format!("node={id}&"));
    let named = if which.named { "named=true&" } else { "" };
    format!("/results?{}{}{named}before=", contract.unwrap_or_default(), node.unwrap_or_default())
}

pub(super) fn table(
    caption: &str,
    next: Option<&str>,
    found: &Page<StatementId, ResultView>,
) -> Markup {
    let columns = &["At", "Node", "Contract", "Workload", "State", "Reason"];
    list(&List { caption, columns, none: "No node has reported anything yet.", next }, found, row)
}

fn row(one: &ResultView) -> Markup {
    html! { tr {
        th scope="row" { (time(one.at)) }
        td { a href={ "/nodes/" (one.node) } { (short(&one.node)) } " no. " (one.seq) }
        td {
            a href={ "/contracts/" (one.contract) } { (short(&one.contract)) } " v" (one.version)
        }
        td { @match &one.workload { Some(name) => (said(name)), None => span .dim { "all" } } }
        td {
            (work_state(one.state))
            @if one.conflict { " " (badge(Tone::Bad, "contradicts")) }
        }
        td {
            (said(&one.message)) " " span .dim { (said(&one.code)) }
            @if let Some(ran) = &one.ran {
                div .dim {
                    "flist " (short(&ran.flist)) ", image " (short(&ran.image))
                    ", program " (short(&ran.entrypoint)) ", " (ran.files) " files measured"
                }
            }
        }
    } }
}
