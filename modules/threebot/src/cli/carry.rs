//! `3bot contract carry`.

use super::{
    Exit,
    context::{Context, now},
    output::{Colour, Output},
};
use clap::Args;
use contract::ContractId;
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;
use std::path::PathBuf;
use threebot::{
    carry::{self, Request},
    source::units::show_bytes,
};

pub(crate) const HELP: &str = "\
Nodes look for the folder `zos-carry` on every disk with FAT that is not theirs, when they boot and when
it is plugged in. They read and never write, and believe it no more than a registry. Run it again to go on
after an interruption, or when something has changed; several contracts fit beside each other.

Example:
  3bot contract carry CONTRACT --to /media/stick";

#[derive(Debug, Args)]
pub(crate) struct Carry {
    /// The contract.
    contract: ContractId,
    /// The folder to write into, which must be there: where a stick is mounted.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Leave out the files of the flists: the nodes have them, or reach a place that has.
    #[arg(long)]
    without_files: bool,
    /// Where flists are, besides the registry and the places that the contract names; repeat for more.
    #[arg(long, value_name = "URL", conflicts_with = "without_files")]
    content: Vec<String>,
}

pub(crate) async fn carry(
    context: &Context,
    output: &Output,
    arguments: &Carry,
) -> anyhow::Result<Exit> {
    let Carry { contract, to, without_files, content } = arguments;
    anyhow::ensure!(to.is_dir(), "{} is no folder: mount the stick first", to.display());
    anyhow::ensure!(
        to.file_name().is_none_or(|name| name != ::carry::ROOT),
        "{} is the folder that is made: name the one above",
        to.display()
    );
    let bar = ProgressBar::no_length().with_message("bytes");
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let tell = |bytes: u64| bar.set_position(bytes);
    let content = if content.is_empty() { &context.content } else { content };
    let content = (!without_files).then_some(content.as_slice());
    let request = Request { contract: *contract, to, content, now: now() };
    let carried = carry::carry(&context.grid()?, &request, &tell).await;
    bar.finish_and_clear();
    let carried = carried?;
    output.answer(&json!({
        "contract": contract,
        "version": carried.version,
        "in_force": carried.in_force,
        "folder": to,
        "nodes": carried.nodes,
        "proofs": carried.proofs,
        "unproven": carried.unproven,
        "flists": carried.flists,
        "missing": carried.missing,
        "bytes": carried.bytes,
    }));
    output.say(format_args!(
        "wrote version {} of {contract} for {} nodes, {} new, into {}",
        carried.version,
        carried.nodes.len(),
        show_bytes(carried.bytes),
        to.display()
    ));
    let warn = |text: String| output.say_in(Colour::Yellow, format_args!("{text}"));
    match carried.in_force {
        None => {
            warn("it is not agreed on yet: nodes refuse it until it is carried anew".to_owned());
        }
        Some(version) if version < carried.version => {
            warn(format!(
                "version {} is not agreed on yet; {version} is in force",
                carried.version
            ));
        }
        Some(_) => {}
    }
    match carried.proofs {
        None => output.say("the registry has no log: nodes that ask for one do not start it"),
        Some(proofs) => output.say(format_args!("{proofs} proofs of the log")),
    }
    if carried.unproven > 0 {
        warn(format!("{} statements are not in the log", carried.unproven));
    }
    carried.missing.into_iter().for_each(warn);
    output.say("it holds what each node has to do, with all environment variables");
    output.say("next: unmount it, and plug it into the node");
    Ok(Exit::Done)
}
