//! Farms and nodes.

use super::layout::{
    Tab, Tone, badge, bytes, capacity, frame, reasons, result_table, short, time, work_state,
};
use maud::{Markup, html};
use registry_api::view::{Farms, NodeView, Nodes, Results};

pub(super) fn farms(farms: &Farms) -> Markup {
    frame(
        Tab::Farms,
        "Farms",
        &html! {
            @if farms.farms.is_empty() { p .dim { "No farm has been registered yet." } }
            @else {
                div .wide { table {
                    caption { "Farms and what their adopted nodes offer" }
                    thead { tr {
                        th scope="col" { "Farm" } th scope="col" { "Location" }
                        th scope="col" { "Nodes" } th scope="col" { "Capacity" }
                        th scope="col" { "Enrolment keys" }
                    } }
                    tbody { @for farm in &farms.farms { tr {
                        th scope="row" {
                            a href={ "/nodes?farm=" (farm.id) } { (farm.name) } " " (short(&farm.id))
                        }
                        td { (farm.location) }
                        td {
                            (farm.online) " of " (farm.nodes) " online"
                            @if farm.waiting > 0 {
                                " " (badge(Tone::Waiting, &format!("{} waiting", farm.waiting)))
                            }
                        }
                        td { (capacity(&farm.capacity, None)) }
                        td { (farm.enrolment_keys) }
                    } } }
                } }
            }
        },
    )
}

pub(super) fn list(nodes: &Nodes) -> Markup {
    frame(
        Tab::Nodes,
        "Nodes",
        &html! {
            @if nodes.nodes.is_empty() { p .dim { "No node has registered yet." } }
            @else {
                div .wide { table {
                    caption { "Nodes, their state and their capacity" }
                    thead { tr {
                        th scope="col" { "Node" } th scope="col" { "Farm" }
                        th scope="col" { "State" } th scope="col" { "Capacity" }
                        th scope="col" { "Remarks" }
                    } }
                    tbody { @for node in &nodes.nodes { tr {
                        th scope="row" { a href={ "/nodes/" (node.id) } { (short(&node.id)) } }
                        td { (farm_of(node)) }
                        td { (state(node)) }
                        td { (capacity(&node.capacity, node.free.as_ref())) }
                        td { (reasons(&node.degraded)) }
                    } } }
                } }
            }
        },
    )
}

fn farm_of(node: &NodeView) -> Markup {
    html! {
        @match &node.farm_name {
            Some(name) => (name),
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

pub(super) fn one(node: &NodeView, results: &Results) -> Markup {
    let hardware = &node.hardware;
    frame(
        Tab::Nodes,
        &format!("Node {}", node.id.short()),
        &html! {
            p { (state(node)) }
            (reasons(&node.degraded))
            dl {
                dt { "Id" } dd { code { (node.id) } }
                dt { "Farm" } dd { (farm_of(node)) }
                dt { "Last sign of life" }
                dd {
                    @match node.last_seen { Some(at) => (time(at)), None => "none yet" }
                    @if let Some(uptime) = node.uptime_s { ", up for " (uptime) " s" }
                }
                dt { "Image" } dd { (node.image) }
                dt { "Machine" } dd { (hardware.vendor) " " (hardware.product) }
                dt { "Processor" } dd { (hardware.cpu) ", " (hardware.cores) " logical cores" }
                dt { "Memory" } dd { (bytes(hardware.memory_bytes)) }
                dt { "Capacity" } dd { (capacity(&node.capacity, node.free.as_ref())) }
            }
            h2 { "Disks" }
            @if hardware.disks.is_empty() { p .dim { "It reports no disk." } }
            @else {
                div .wide { table {
                    caption { "Every disk, with the reason for its state" }
                    thead { tr {
                        th scope="col" { "Disk" } th scope="col" { "Model" }
                        th scope="col" { "Size" } th scope="col" { "Class" }
                        th scope="col" { "State" } th scope="col" { "Reason" }
                    } }
                    tbody { @for disk in &hardware.disks { tr {
                        th scope="row" { code { (disk.name) } }
                        td { (disk.model) } td { (bytes(disk.size_bytes)) } td { (disk.class) }
                        td { (badge(disk_tone(&disk.state), &disk.state)) }
                        td { (disk.reason) }
                    } } }
                } }
            }
            h2 { "Network" }
            @if hardware.nics.is_empty() { p .dim { "It reports no network card." } }
            @else {
                div .wide { table {
                    caption { "Network cards" }
                    thead { tr {
                        th scope="col" { "Card" } th scope="col" { "Address" }
                        th scope="col" { "Driver" } th scope="col" { "Hardware address" }
                    } }
                    tbody { @for nic in &hardware.nics { tr {
                        th scope="row" { code { (nic.name) } }
                        td { (nic.addresses.join(", ")) }
                        td { (nic.driver) } td { code { (nic.mac) } }
                    } } }
                } }
            }
            h2 { "Contracts" }
            @if node.contracts.is_empty() { p .dim { "It reports no contract." } }
            @else {
                ul { @for one in &node.contracts { li {
                    a href={ "/contracts/" (one.contract) } { (short(&one.contract)) }
                    " v" (one.version) " " (work_state(one.state))
                } } }
            }
            h2 { "Results" }
            (result_table(&results.results, "What the node reported, newest first"))
        },
    )
}

fn disk_tone(state: &str) -> Tone {
    match state {
        "pool" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Waiting,
    }
}
