//! `3bot node`.

use super::{Exit, context::Context, output::Output, scrub};
use clap::Subcommand;
use contract::{Capacity, NodeId};
use registry_api::view::NodeView;
use serde_json::json;
use threebot::{
    Grid,
    source::units::{show_bytes, show_milli, show_seconds},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List nodes.
    #[command(after_help = "Example:\n  3bot node list --farm alice")]
    List {
        /// Of this farm only: an identity id, key or contact.
        #[arg(long)]
        farm: Option<String>,
    },
    /// Show a node: what it has, what is free, its disks, and what it says is wrong.
    Show {
        /// The node.
        node: NodeId,
    },
    /// Have a node of your farm read its store through, and compare every page with what was signed.
    Scrub(scrub::Words),
}

pub(crate) async fn run(
    context: &Context,
    output: &Output,
    command: Command,
) -> anyhow::Result<Exit> {
    let grid = context.grid()?;
    match command {
        Command::List { farm } => {
            let farm = farm.map(|farm| context.find(&farm)).transpose()?;
            let found = grid.client.nodes(farm.as_ref()).await?;
            output.answer(&found.nodes);
            table(output, &found.nodes);
            if found.next.is_some() {
                output.note("there are more; narrow the list down with --farm");
            }
        }
        Command::Show { node } => show(&grid, output, &node).await?,
        Command::Scrub(words) => return scrub::run(context, output, &words).await,
    }
    Ok(Exit::Done)
}

/// Nodes, one for each line.
pub(crate) fn table(output: &Output, nodes: &[NodeView]) {
    let row = |node: &NodeView| {
        let free = node.free.unwrap_or_default();
        let of = |free: String, all: String| format!("{free} of {all}");
        vec![
            node.id.to_string(),
            node.farm_name.clone().unwrap_or_else(|| node.farm.short()),
            standing(node).to_owned(),
            of(show_milli(free.cru_milli), show_milli(node.capacity.cru_milli)),
            of(show_bytes(free.mru_bytes), show_bytes(node.capacity.mru_bytes)),
            of(show_bytes(free.sru_bytes), show_bytes(node.capacity.sru_bytes)),
            of(show_bytes(free.hru_bytes), show_bytes(node.capacity.hru_bytes)),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    let heads = ["NODE", "FARM", "STATE", "CORES FREE", "MEMORY FREE", "FLASH FREE", "DISK FREE"];
    output.table(&heads, &rows);
}

fn standing(node: &NodeView) -> &'static str {
    match (node.adopted, node.online, node.degraded.is_empty()) {
        (false, _, _) => "waiting for its farm",
        (true, false, _) => "offline",
        (true, true, false) => "degraded",
        (true, true, true) => "online",
    }
}

async fn show(grid: &Grid, output: &Output, id: &NodeId) -> anyhow::Result<()> {
    let node = grid.node(id).await?;
    let (view, body) = (&node.view, &node.statement.body);
    let unheard = threebot::scrub::unheard(grid, &node).await?;
    output.answer(&json!({
        "node": id,
        "adopted": node.consent_verified,
        "online": view.online,
        "last_seen": view.last_seen,
        "uptime_s": view.uptime_s,
        "free": view.free,
        "statement": body,
        "contracts": view.contracts,
        "conflicts": view.conflicts,
        "scrub_unheard": unheard.map(|order| order.id),
    }));
    let farm = view.farm_name.as_deref().unwrap_or("unknown");
    let adopted = match (node.consent_verified, view.adopted) {
        (true, _) => "yes, signed by the farm",
        (false, true) => "claimed by the registry, not proven",
        (false, false) => "no, it waits for `3bot farm approve`",
    };
    let machine = &body.hardware;
    output.say(format_args!("node      {id}"));
    output.say(format_args!("farm      {farm} ({})", body.farm));
    output.say(format_args!("adopted   {adopted}"));
    match view.last_seen {
        Some(time) if view.online => output.say(format_args!("online    yes, seen {time}")),
        Some(time) => output.say(format_args!("online    no, last seen {time}")),
        None => output.say("online    never seen"),
    }
    if let Some(seconds) = view.uptime_s {
        let up = show_seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        output.say(format_args!("uptime    {up}"));
    }
    output.say(format_args!("image     {}", body.image));
    output.say(format_args!("machine   {} {}", machine.vendor, machine.product));
    output.say(format_args!("cpu       {} × {}", machine.cores, machine.cpu));
    output.say(format_args!("capacity  {}", amounts(&body.capacity)));
    if let Some(free) = &view.free {
        output.say(format_args!("free      {}", amounts(free)));
    }
    for reason in &body.degraded {
        output.say(format_args!("degraded  {reason}"));
    }
    for disk in &machine.disks {
        let size = show_bytes(disk.size_bytes);
        output.say(format_args!(
            "disk      {} {size} {} ({}): {}: {}",
            disk.name, disk.class, disk.model, disk.state, disk.reason
        ));
    }
    for nic in &machine.nics {
        let addresses = nic.addresses.join(" ");
        output.say(format_args!("network   {} {} {} {addresses}", nic.name, nic.mac, nic.driver));
    }
    for line in body.scrub.iter().flat_map(scrub::lines) {
        output.say(format_args!("scrub     {line}"));
    }
    if let Some(order) = unheard {
        let issued = order.issued;
        output.say(format_args!("scrub     ordered {issued}, the node says nothing of it yet"));
    }
    for standing in &view.contracts {
        let state = super::contract::word(&standing.state);
        let version = standing.version;
        output.say(format_args!("contract  {} version {version}: {state}", standing.contract));
    }
    if view.conflicts > 0 {
        output.note(format_args!(
            "this node has reported {} things under numbers that it had used before",
            view.conflicts
        ));
    }
    Ok(())
}

fn amounts(capacity: &Capacity) -> String {
    format!(
        "{} cores, {} memory, {} flash, {} rotating disk",
        show_milli(capacity.cru_milli),
        show_bytes(capacity.mru_bytes),
        show_bytes(capacity.sru_bytes),
        show_bytes(capacity.hru_bytes)
    )
}
