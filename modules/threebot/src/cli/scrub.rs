//! `3bot node scrub`: has a node read its store through, and shows what came of it.

use super::{
    Exit,
    context::{Context, now},
    output::Output,
};
use clap::Args;
use contract::{
    NodeId,
    scrub::{Outcome, Scrubbed},
};
use serde_json::json;
use std::time::Duration;
use threebot::{
    Grid,
    scrub::{Order, Progress, is_sound, order, progress},
    source::{Span, units::show_bytes},
};

/// How often the registry is asked.
const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  3bot node scrub NODE --wait --timeout 1h --as alice")]
pub(crate) struct Words {
    /// The node; it has to belong to your farm.
    node: NodeId,
    /// Wait until the node has done it, and show what it found. Exit code 3: not everything is sound.
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this time; never unless given.
    #[arg(long, value_name = "TIME", requires = "wait")]
    timeout: Option<Span>,
}

pub(crate) async fn run(context: &Context, output: &Output, words: &Words) -> anyhow::Result<Exit> {
    let grid = context.grid()?;
    let given = order(&grid, &context.actor()?, words.node, now()).await?;
    let Order { id, issued } = given;
    output.answer(&json!({ "node": words.node, "order": id, "issued": issued }));
    output.say(format_args!("order {id} is given; `3bot node show` says what becomes of it"));
    if !words.wait {
        return Ok(Exit::Done);
    }
    let waiting = wait(&grid, &words.node, &given);
    let said = match words.timeout {
        None => waiting.await?,
        Some(span) => {
            let limit = Duration::from_secs(u64::from(span.seconds));
            tokio::time::timeout(limit, waiting).await.map_err(|_| {
                anyhow::anyhow!("gave up after {} s; the order stands", span.seconds)
            })??
        }
    };
    output.answer(&json!({ "node": words.node, "order": id, "issued": issued, "scrub": said }));
    for line in lines(&said) {
        output.say(line);
    }
    Ok(match said.outcome {
        Outcome::TooOld { .. } => Exit::Rejected,
        _ if is_sound(&said.outcome) => Exit::Done,
        Outcome::Done { .. } | Outcome::Heard { .. } => Exit::Partial,
    })
}

async fn wait(grid: &Grid, node: &NodeId, order: &Order) -> anyhow::Result<Scrubbed> {
    loop {
        if let Progress::Over(said) = progress(order, &grid.node(node).await?.statement.body) {
            return Ok(said.clone());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What a node says of an order, in words.
pub(crate) fn lines(said: &Scrubbed) -> Vec<String> {
    let issued = said.issued;
    match &said.outcome {
        Outcome::Heard { at } => vec![format!("ordered {issued}, heard {at}, not done yet")],
        Outcome::TooOld { at } => {
            vec![format!("ordered {issued}, refused {at}: the order was too old by then")]
        }
        Outcome::Done { begun, ended, files, bytes, bad, damaged, repaired, left_out } => {
            let size = show_bytes(*bytes);
            let read = format!("read from {begun} to {ended}: {files} files, {size}, {bad} bad");
            let damaged = damaged.iter().map(|id| format!("flist {id} has bad files"));
            let repaired = repaired.iter().map(|id| format!("flist {id} has its files back"));
            let left_out = left_out.iter().map(|text| format!("not everything was read: {text}"));
            let first = [format!("ordered {issued}"), read].into_iter();
            first.chain(damaged).chain(repaired).chain(left_out).collect()
        }
    }
}
