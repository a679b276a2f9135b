//! The grid at a glance, contracts and results.

use super::layout::{
    Tab, Tone, badge, bytes, contract_state, frame, reasons, result_table, short, time, work_state,
};
use contract::decision::{Action, Decision, Retention};
use maud::{Markup, html};
use registry_api::view::{
    Awaited, ContractView, Contracts, DeploymentView, Farms, Nodes, Results, VersionView,
};

pub(super) fn home(
    network: &str,
    farms: &Farms,
    nodes: &Nodes,
    contracts: &Contracts,
    results: &Results,
) -> Markup {
    let online = nodes.nodes.iter().filter(|node| node.online).count();
    let waiting = nodes.nodes.iter().filter(|node| !node.adopted).count();
    let open = contracts.contracts.iter().filter(|one| !one.awaited.is_empty()).count();
    frame(
        Tab::Home,
        &format!("Grid {network}"),
        &html! {
            ul .tiles {
                li { a href="/farms" { strong { (farms.farms.len()) } " farms" } }
                li { a href="/nodes" {
                    strong { (online) } " of " (nodes.nodes.len()) " nodes online"
                    @if waiting > 0 { ", " (waiting) " waiting" }
                } }
                li { a href="/contracts" {
                    strong { (contracts.contracts.len()) } " contracts"
                    @if open > 0 { ", " (open) " to be signed" }
                } }
            }
            h2 { "Contracts" }
            (table(contracts))
            h2 { "Last results" }
            (result_table(&results.results, "The last things that happened"))
        },
    )
}

pub(super) fn list(contracts: &Contracts) -> Markup {
    frame(Tab::Contracts, "Contracts", &table(contracts))
}

fn table(contracts: &Contracts) -> Markup {
    html! {
        @if contracts.contracts.is_empty() { p .dim { "There is no contract yet." } }
        @else {
            div .wide { table {
                caption { "Contracts, where they stand and who still has to sign" }
                thead { tr {
                    th scope="col" { "Contract" } th scope="col" { "Owner" }
                    th scope="col" { "State" } th scope="col" { "Still to sign" }
                    th scope="col" { "Nodes" } th scope="col" { "Until" }
                } }
                tbody { @for one in &contracts.contracts { tr {
                    th scope="row" {
                        a href={ "/contracts/" (one.id) } { (one.title) } " " (short(&one.id))
                        " v" (one.version)
                    }
                    td { (person(one.owner_name.as_deref(), &one.owner)) }
                    td { (contract_state(one.state)) (reasons(&one.reasons)) }
                    td { (awaited(&one.awaited)) }
                    td { (one.nodes) }
                    td { (time(one.expires)) }
                } } }
            } }
        }
    }
}

fn person(name: Option<&str>, id: &dyn std::fmt::Display) -> Markup {
    html! { @if let Some(name) = name { (name) " " } (short(id)) }
}

fn awaited(people: &[Awaited]) -> Markup {
    html! {
        @if people.is_empty() { span .dim { "nobody" } }
        @else {
            ul .plain { @for one in people { li {
                (person(one.name.as_deref(), &one.identity)) " " span .dim {
                    (one.role) ", to " (action(one.action)) " v" (one.version)
                }
            } } }
        }
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update to",
        Action::Cancel => "cancel",
    }
}

pub(super) fn one(view: &ContractView, results: &Results) -> Markup {
    let summary = &view.summary;
    frame(
        Tab::Contracts,
        &summary.title,
        &html! {
            p { (contract_state(summary.state)) }
            (reasons(&summary.reasons))
            p { (view.purpose) }
            dl {
                dt { "Id" } dd { code { (summary.id) } }
                dt { "Owner" } dd { (person(summary.owner_name.as_deref(), &summary.owner)) }
                dt { "In force" }
                dd {
                    @match summary.in_force {
                        Some(version) => { "version " (version) " of " (summary.version) },
                        None => "no version yet",
                    }
                }
                dt { "Still to sign" } dd { (awaited(&summary.awaited)) }
                dt { "Until" } dd { (time(summary.expires)) }
            }
            @for version in view.versions.iter().rev() { (one_version(version)) }
            @if !view.cancels.is_empty() {
                h2 { "Orders to end it" }
                ul { @for cancel in &view.cancels { li {
                    (short(&cancel.id)) " of v" (cancel.version) ", from "
                    (time(cancel.effective_at)) ", data " (retention(cancel.retention)) ": "
                    (cancel.reason) " "
                    @if cancel.agreed { (badge(Tone::Good, "agreed")) }
                    @else { (badge(Tone::Waiting, "open")) }
                    @if let Some(missing) = &cancel.missing { " " (missing) }
                } } }
            }
            h2 { "Nodes" }
            (deployments(&view.deployments))
            h2 { "Results" }
            (result_table(&results.results, "What nodes reported of it, newest first"))
        },
    )
}

fn retention(retention: Retention) -> String {
    match retention {
        Retention::Wipe => "deleted at once".into(),
        Retention::KeepUntil(until) => format!("kept until {until}"),
    }
}

fn one_version(version: &VersionView) -> Markup {
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
        div .wide { table {
            caption { "Who decides on it, until " (time(version.approve_by)) }
            thead { tr {
                th scope="col" { "Stakeholder" } th scope="col" { "Role" }
                th scope="col" { "Weight" } th scope="col" { "Decision" }
            } }
            tbody { @for holder in &version.stakeholders { tr {
                th scope="row" { (person(holder.name.as_deref(), &holder.identity)) }
                td { (holder.role) } td { (holder.weight) }
                td { (decision(holder.decision)) }
            } } }
        } }
        @if !version.flists.is_empty() {
            div .wide { table {
                caption { "What may be executed" }
                thead { tr {
                    th scope="col" { "Flist" } th scope="col" { "Digest" } th scope="col" { "Size" }
                    th scope="col" { "Signed by" }
                } }
                tbody { @for flist in &version.flists { tr {
                    th scope="row" { (flist.name) }
                    td { code { (flist.digest) } } td { (bytes(flist.bytes)) }
                    td { @match &flist.publisher {
                        Some(demanded) => {
                            code { (demanded.key) } " revision " (demanded.revision) " or later"
                        }
                        None => { "nobody has to" }
                    } }
                } } }
            } }
        }
    }
}

fn decision(decision: Option<Decision>) -> Markup {
    match decision {
        Some(Decision::Approve) => badge(Tone::Good, "approves"),
        Some(Decision::Reject) => badge(Tone::Bad, "rejects"),
        Some(Decision::Withdraw) => badge(Tone::Over, "withdrew"),
        None => html! { span .dim { "none yet" } },
    }
}

fn deployments(nodes: &[DeploymentView]) -> Markup {
    html! {
        @if nodes.is_empty() { p .dim { "The documents for the nodes are missing here." } }
        @else {
            div .wide { table {
                caption { "Nodes and what runs there" }
                thead { tr {
                    th scope="col" { "Node" } th scope="col" { "Contract" }
                    th scope="col" { "Workloads" }
                } }
                tbody { @for node in nodes { tr {
                    th scope="row" {
                        a href={ "/nodes/" (node.node) } { (short(&node.node)) } " "
                        @if node.online { (badge(Tone::Good, "online")) }
                        @else { (badge(Tone::Bad, "silent")) }
                    }
                    td { @match &node.contract {
                        Some(last) => { (work_state(last.state)) " " (last.message) },
                        None => span .dim { "nothing reported" },
                    } }
                    td { ul .plain { @for workload in &node.workloads { li {
                        (workload.name) " "
                        @match &workload.last {
                            Some(last) => { (work_state(last.state)) " " (last.message) },
                            None => span .dim { "nothing reported" },
                        }
                    } } } }
                } } }
            } }
        }
    }
}

pub(super) fn results(results: &Results) -> Markup {
    frame(
        Tab::Results,
        "Results",
        &result_table(&results.results, "What nodes reported, newest first"),
    )
}
