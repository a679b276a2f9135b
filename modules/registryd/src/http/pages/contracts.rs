//! Contracts: where they stand and who still has to sign.

use super::{
    App, Fields, Segments, Tab,
    layout::{
        Tone, badge, bytes, contract_state, frame, person, reasons, said, short, time, work_state,
    },
    list::{self, ITEMS_MAX, List, fill, more_items, section, unshown},
    page, results, unknown,
};
use crate::{
    db::Fault,
    overview::{self, Shown, Which},
    standing,
};
use axum::{extract::State, response::Response};
use contract::{
    ContractId, IdentityId,
    decision::{Action, Decision, Retention},
};
use maud::{Markup, html};
use registry_api::view::{
    Awaited, CancelView, ContractSummary, ContractView, DeploymentView, ResultView, VersionView,
};
use serde::Deserialize;

/// Versions of one contract that are shown, newest first.
const VERSIONS_SHOWN: usize = 5;
/// Orders to end it that are shown.
const CANCELS_SHOWN: usize = 20;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    owner: Option<IdentityId>,
    after: Option<ContractId>,
}

pub(super) const COLUMNS: &[&str] =
    &["Contract", "Owner", "State", "Still to sign", "Nodes", "Until"];

pub(super) async fn list(
    State(app): State<App>,
    Fields(Asked { owner, after }): Fields<Asked>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let found = app.db.read_page(move |db| overview::contracts(db, owner, after, now)).await?;
    let next = owner.map(|owner| format!("owner={owner}&")).unwrap_or_default();
    let about = List {
        caption: "Contracts, where they stand and who still has to sign",
        columns: COLUMNS,
        none: "There is no contract yet.",
        next: Some(&format!("/contracts?{next}after=")),
    };
    let content = html! {
        @if let Some(owner) = &owner { p { "Of the owner " code { (owner) } } }
        (list::list(&about, &found, row))
    };
    Ok(page(frame(Tab::Contracts, "Contracts", &content)))
}

pub(super) fn row(one: &ContractSummary) -> Markup {
    html! { tr {
        th scope="row" {
            a href={ "/contracts/" (one.id) } { (said(&one.title)) " " (short(&one.id)) }
            " v" (one.version)
        }
        td { (person(one.owner_name.as_deref(), &one.owner)) }
        td { (contract_state(one.state)) (reasons(&one.reasons)) }
        td { (awaited(&one.awaited)) }
        td { (one.nodes) }
        td { (time(one.expires)) }
    } }
}

fn awaited(people: &[Awaited]) -> Markup {
    html! {
        @if people.is_empty() { span .dim { "nobody" } }
        @else {
            ul .plain {
                @for one in people.iter().take(ITEMS_MAX) { li {
                    a href={ "/inbox?identity=" (one.identity) } {
                        (person(one.name.as_deref(), &one.identity))
                    }
                    " " span .dim { (one.role) ", to " (action(one.action)) " v" (one.version) }
                } }
                (more_items(people.len()))
            }
        }
    }
}

pub(super) fn action(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update to",
        Action::Cancel => "cancel",
    }
}

pub(super) async fn one(
    State(app): State<App>,
    Segments(id): Segments<ContractId>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let which = Which { contract: Some(id), named: true, ..Which::default() };
    let work = move |db: &_| {
        let reported = overview::results(db, which)?;
        let shown = overview::one(db, &id, |db| standing::contract(db, &id, now))?;
        Ok((shown, reported))
    };
    let (shown, reported) = app.db.read_page(work).await?;
    let shown = shown.ok_or_else(|| unknown("contract", &id))?;
    let reported = html! {
        h2 { "Results" }
        (results::table(
            "What its nodes reported of it, newest first",
            Some(&results::link(&which)),
            &reported,
        ))
        p { a href={ "/results?contract=" (id) } { "What any node reported of it" } }
    };
    let title = match &shown {
        Shown::Read(view) => view.summary.title.clone(),
        Shown::Unreadable | Shown::TooLarge => format!("Contract {}", id.short()),
    };
    let content = html! {
        @match &shown {
            Shown::Read(view) => (detail(view)),
            Shown::Unreadable | Shown::TooLarge => {
                p { code { (id) } " " (unshown(&shown)) }
            }
        }
        (reported)
    };
    Ok(page(frame(Tab::Contracts, &title, &content)))
}

fn detail(view: &ContractView) -> Markup {
    let summary = &view.summary;
    let newest_first: Vec<_> = view.versions.iter().rev().take(VERSIONS_SHOWN).collect();
    let (versions, shown) = fill(&newest_first, |version| one_version(&summary.id, version));
    html! {
        p { (contract_state(summary.state)) }
        (reasons(&summary.reasons))
        p { (said(&view.purpose)) }
        dl {
            dt { "Id" } dd { code { (summary.id) } }
            dt { "Owner" }
            dd { a href={ "/contracts?owner=" (summary.owner) } {
                (person(summary.owner_name.as_deref(), &summary.owner))
            } }
            dt { "In force" }
            dd {
                @match summary.in_force {
                    Some(version) => { "version " (version) " of " (summary.version) },
                    None => "no version yet",
                }
                @if summary.in_force != Some(summary.version) {
                    ", " a href={ "/contracts/" (summary.id) "/difference" } {
                        "what version " (summary.version) " would change"
                    }
                }
            }
            dt { "Still to sign" } dd { (awaited(&summary.awaited)) }
            dt { "Until" } dd { (time(summary.expires)) }
            dt { "Statements" }
            dd { a href={ "/v1/contracts/" (summary.id) "/bundle" } { "all of them, as they were signed" } }
        }
        (versions)
        @if shown < view.versions.len() {
            p .note { "Older versions are not shown here: " (view.versions.len() - shown) "." }
        }
        @if !view.cancels.is_empty() {
            h2 { "Orders to end it" }
            (section(
                "Orders to end the contract",
                &["Order", "From", "Data", "Reason", "Decision"],
                &view.cancels,
                CANCELS_SHOWN,
                order,
            ))
        }
        h2 { "Nodes" }
        (deployments(&view.deployments, summary.nodes))
    }
}

fn order(cancel: &CancelView) -> Markup {
    html! { tr {
        th scope="row" { (short(&cancel.id)) " of v" (cancel.version) }
        td { (time(cancel.effective_at)) }
        td { (retention(cancel.retention)) }
        td { (said(&cancel.reason)) }
        td {
            @if cancel.agreed { (badge(Tone::Good, "agreed")) }
            @else { (badge(Tone::Waiting, "open")) }
            @if let Some(missing) = &cancel.missing { " " (said(missing)) }
        }
    } }
}

pub(super) fn retention(retention: Retention) -> Markup {
    html! { @match retention {
        Retention::Wipe => "deleted at once",
        Retention::KeepUntil(until) => { "kept until " (time(until)) },
    } }
}

fn one_version(id: &ContractId, version: &VersionView) -> Markup {
    html! {
        h2 {
            "Version " (version.version) " "
            @if version.agreed { (badge(Tone::Good, "agreed")) }
            @else { (badge(Tone::Waiting, "not agreed")) }
        }
        (reasons(&version.missing))
        @if !version.documents {
            p { (badge(Tone::Bad, "incomplete")) " The documents for the nodes are missing here." }
        }
        p .dim {
            "Decisions count until " (time(version.approve_by)) ". Statement "
            code { (version.header) } ". "
            a href={ "/v1/contracts/" (id) "/approvals" } { "Every decision" }
        }
        (section(
            &format!("Who decides on version {}", version.version),
            &["Stakeholder", "Role", "Weight", "Decision"],
            &version.stakeholders,
            overview::ROWS_MAX,
            |holder| html! { tr {
                th scope="row" { (person(holder.name.as_deref(), &holder.identity)) }
                td { (holder.role) } td { (holder.weight) } td { (decision(holder.decision)) }
            } },
        ))
        @if !version.flists.is_empty() {
            (section(
                &format!("What version {} may execute", version.version),
                &["Flist", "Digest", "Size", "Signed by"],
                &version.flists,
                overview::ROWS_MAX,
                |flist| html! { tr {
                    th scope="row" { (said(&flist.name)) }
                    td { code { (flist.digest) } } td { (bytes(flist.bytes)) }
                    td { @match &flist.publisher {
                        Some(demanded) => {
                            code { (demanded.key) } " revision " (demanded.revision) " or later"
                        }
                        None => { "nobody has to" }
                    } }
                } },
            ))
        }
    }
}

pub(super) fn decision(decision: Option<Decision>) -> Markup {
    match decision {
        Some(Decision::Approve) => badge(Tone::Good, "approves"),
        Some(Decision::Reject) => badge(Tone::Bad, "rejects"),
        Some(Decision::Withdraw) => badge(Tone::Over, "withdrew"),
        None => html! { span .dim { "none yet" } },
    }
}

fn deployments(nodes: &[DeploymentView], count: u64) -> Markup {
    html! {
        @if nodes.is_empty() { p .dim { "The documents for the nodes are missing here." } }
        @else {
            (section(
                "Nodes and what runs there",
                &["Node", "Contract", "Workloads"],
                nodes,
                overview::ROWS_MAX,
                deployment,
            ))
            @if nodes.len() as u64 != count { p .note { "The contract names " (count) " nodes." } }
        }
    }
}

fn deployment(node: &DeploymentView) -> Markup {
    let reported = |last: Option<&ResultView>| {
        html! { @match last {
            Some(last) => { (work_state(last.state)) " " (said(&last.message)) },
            None => span .dim { "nothing reported" },
        } }
    };
    html! { tr {
        th scope="row" {
            a href={ "/nodes/" (node.node) } { (short(&node.node)) } " "
            @if node.online { (badge(Tone::Good, "online")) }
            @else { (badge(Tone::Bad, "silent")) }
        }
        td { (reported(node.contract.as_ref())) }
        td { ul .plain {
            @for workload in node.workloads.iter().take(ITEMS_MAX) {
                li { (said(&workload.name)) " " (reported(workload.last.as_ref())) }
            }
            (more_items(node.workloads.len()))
        } }
    } }
}
