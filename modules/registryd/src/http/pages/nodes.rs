//! Nodes.

use super::{
    App, Fields, Segments, Tab,
    layout::{Tone, badge, bytes, capacity, frame, reasons, said, short, span, time, work_state},
    list::{self, ITEMS_MAX, List, more_items, section},
    page, results, unknown,
};
use crate::{
    db::Fault,
    overview::{self, Page, Which},
    views,
};
use axum::{extract::State, response::Response};
use contract::{IdentityId, NodeId, StatementId, node::Evidence};
use maud::{Markup, html};
use registry_api::view::{NodeView, ResultView};
use serde::Deserialize;

/// Disks, or network cards, of one node that are shown.
const DEVICES_SHOWN: usize = 64;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    farm: Option<IdentityId>,
    after: Option<NodeId>,
}

pub(super) async fn list(
    State(app): State<App>,
    Fields(Asked { farm, after }): Fields<Asked>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let found = app.db.read_page(move |db| overview::nodes(db, farm, after, now)).await?;
    let next = farm.map(|farm| format!("farm={farm}&")).unwrap_or_default();
    let about = List {
        caption: "Nodes, their state and their capacity",
        columns: &["Node", "Farm", "State", "Last heard", "Capacity", "Remarks"],
        none: "No node has registered yet.",
        next: Some(&format!("/nodes?{next}after=")),
    };
    let content = html! {
        @if let Some(farm) = &farm { p { "Of the farm " code { (farm) } } }
        (list::list(&about, &found, row))
    };
    Ok(page(frame(Tab::Nodes, "Nodes", &content)))
}

fn row(node: &NodeView) -> Markup {
    html! { tr {
        th scope="row" { a href={ "/nodes/" (node.id) } { (short(&node.id)) } }
        td { (farm_of(node)) }
        td { (state(node)) }
        td { (heard(node)) }
        td { (capacity(&node.capacity, node.free.as_ref())) }
        td { (reasons(&node.degraded)) }
    } }
}

pub(super) async fn one(
    State(app): State<App>,
    Segments(id): Segments<NodeId>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let which = Which { node: Some(id), ..Which::default() };
    let work = move |db: &_| Ok((views::node(db, &id, now)?, overview::results(db, which)?));
    let (node, reported) = app.db.read_page(work).await?;
    let node = node.ok_or_else(|| unknown("node", &id))?;
    Ok(page(detail(&node, &reported)))
}

fn heard(node: &NodeView) -> Markup {
    html! {
        @match node.last_seen { Some(at) => (time(at)), None => "never" }
        @if let Some(uptime) = node.uptime_s { ", up for " (span(uptime)) }
    }
}

fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::SelfReported => "the node says so itself; nothing proves it",
    }
}

fn farm_of(node: &NodeView) -> Markup {
    html! {
        @match &node.farm_name {
            Some(name) => (said(name)),
            None => { span .dim { "unknown farm " } (short(&node.farm)) },
        }
    }
}

fn state(node: &NodeView) -> Markup {
    html! {
        @if node.online { (badge(Tone::Good, "online")) }
        @else { (badge(Tone::Bad, "silent")) }
        @if !node.adopted { " " (badge(Tone::Waiting, "waits for its farm's consent")) }
        @if !node.degraded.is_empty() { " " (badge(Tone::Waiting, "degraded")) }
        @if node.conflicts > 0 { " " (badge(Tone::Bad, "contradicts itself")) }
    }
}

fn detail(node: &NodeView, reported: &Page<StatementId, ResultView>) -> Markup {
    let hardware = &node.hardware;
    let content = html! {
        p { (state(node)) }
        (reasons(&node.degraded))
        dl {
            dt { "Id" } dd { code { (node.id) } }
            dt { "Farm" }
            dd { a href={ "/nodes?farm=" (node.farm) } { (farm_of(node)) } }
            dt { "Last heard" } dd { (heard(node)) }
            dt { "Evidence" } dd { (evidence(node.evidence)) }
            dt { "Image" } dd { (said(&node.image)) }
            dt { "Machine" } dd { (said(&hardware.vendor)) " " (said(&hardware.product)) }
            dt { "Processor" } dd { (said(&hardware.cpu)) ", " (hardware.cores) " logical cores" }
            dt { "Memory" } dd { (bytes(hardware.memory_bytes)) }
            dt { "Capacity" } dd { (capacity(&node.capacity, node.free.as_ref())) }
            dt { "Statement" }
            dd { a href={ "/v1/nodes/" (node.id) } { "with the farm's consent, as it was signed" } }
        }
        h2 { "Disks" }
        @if hardware.disks.is_empty() { p .dim { "It reports no disk." } }
        @else {
            (section(
                "Every disk, with the reason for its state",
                &["Disk", "Model", "Size", "Class", "State", "Reason"],
                &hardware.disks,
                DEVICES_SHOWN,
                |disk| html! { tr {
                    th scope="row" { code { (said(&disk.name)) } }
                    td { (said(&disk.model)) } td { (bytes(disk.size_bytes)) }
                    td { (said(&disk.class)) }
                    td { span class=(disk_tone(&disk.state).class()) { (said(&disk.state)) } }
                    td { (said(&disk.reason)) }
                } },
            ))
        }
        h2 { "Network" }
        @if hardware.nics.is_empty() { p .dim { "It reports no network card." } }
        @else {
            (section(
                "Network cards",
                &["Card", "Address", "Driver", "Hardware address"],
                &hardware.nics,
                DEVICES_SHOWN,
                |nic| html! { tr {
                    th scope="row" { code { (said(&nic.name)) } }
                    td { ul .plain {
                        @for address in nic.addresses.iter().take(ITEMS_MAX) { li { (said(address)) } }
                        (more_items(nic.addresses.len()))
                    } }
                    td { (said(&nic.driver)) } td { code { (said(&nic.mac)) } }
                } },
            ))
        }
        h2 { "Contracts" }
        @if node.contracts.is_empty() { p .dim { "It reports no contract." } }
        @else {
            (section(
                "Contracts at the last sign of life",
                &["Contract", "Version", "State"],
                &node.contracts,
                overview::ROWS_MAX,
                |one| html! { tr {
                    th scope="row" {
                        a href={ "/contracts/" (one.contract) } { (short(&one.contract)) }
                    }
                    td { (one.version) } td { (work_state(one.state)) }
                } },
            ))
        }
        h2 { "Results" }
        (results::table(
            "What the node reported, newest first",
            Some(&results::link(&Which { node: Some(node.id), ..Which::default() })),
            reported,
        ))
    };
    frame(Tab::Nodes, &format!("Node {}", node.id.short()), &content)
}

fn disk_tone(state: &str) -> Tone {
    match state {
        "pool" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Waiting,
    }
}
