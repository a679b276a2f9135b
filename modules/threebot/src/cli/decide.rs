//! `3bot contract approve | reject | withdraw | cancel`: what is shown before a signature, and how
//! consent is asked for.

use super::{
    Exit,
    context::{Context, Usage, now},
    output::{Colour, Output},
};
use clap::Args;
use contract::{
    ContractId, StatementId,
    decision::{Decision, Retention},
};
use serde_json::json;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use threebot::{
    Actor, Grid, customer,
    diff::{self, Line},
    source::When,
    stakeholder::{self, Matter, Review},
    text,
};

/// Digits of a hash that are enough to mean one statement.
const PREFIX_MIN: usize = 8;
/// Unchanged lines shown around a change.
const AROUND: usize = 2;

#[derive(Debug, Args)]
#[command(after_help = "\
Shows the changes since the version that you approved last, or everything, and asks.
Without a terminal both --yes and --hash are needed, so that a script signs what it means.

Examples:
  3bot contract approve CONTRACT --as lawyer
  3bot contract approve CONTRACT --as lawyer --yes --hash 3f2a9c51
  3bot contract approve CONTRACT --as lawyer --cancel")]
pub(crate) struct Approve {
    #[command(flatten)]
    matter: Which,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// For the others to read.
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
}

#[derive(Debug, Args)]
pub(crate) struct Reject {
    #[command(flatten)]
    matter: Which,
    /// Why, for the others to read.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Withdraw {
    #[command(flatten)]
    matter: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// The contract.
    contract: ContractId,
    /// Decide on the order to end the contract, instead of on its newest version.
    #[arg(long)]
    cancel: bool,
    /// Which order, when there are several.
    #[arg(long, requires = "cancel", value_name = "ID")]
    order: Option<StatementId>,
    /// Sign only if the hash of the statement starts with this (at least 8 digits).
    #[arg(long, value_name = "PREFIX")]
    hash: Option<String>,
}

impl Which {
    async fn review(
        &self,
        context: &Context,
        grid: &Grid,
        actor: &Actor,
    ) -> anyhow::Result<Review> {
        let matter = if self.cancel { Matter::Cancel(self.order) } else { Matter::Newest };
        let people = context.people()?;
        Ok(stakeholder::review(grid, &self.contract, matter, &actor.id(), &people).await?)
    }

    /// Whether it is the statement that the caller means. Says so when it is not.
    fn is_meant(&self, output: &Output, review: &Review) -> anyhow::Result<bool> {
        let Some(prefix) = &self.hash else { return Ok(true) };
        let meant = means(prefix, &review.subject)?;
        if !meant {
            output.note(format_args!(
                "the statement is {}, not {prefix}: somebody changed it, or you mean another one",
                review.subject
            ));
        }
        Ok(meant)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The contract.
    contract: ContractId,
    /// Why, for the stakeholders to read.
    #[arg(long)]
    reason: String,
    /// Delete all data when the workloads have stopped.
    #[arg(long, required_unless_present = "keep_until", conflicts_with = "keep_until")]
    wipe: bool,
    /// Keep the data until then: a length of time, or a time.
    #[arg(long, value_name = "WHEN")]
    keep_until: Option<When>,
    /// When the workloads stop: a length of time, or a time.
    #[arg(long, default_value = "0s", value_name = "WHEN")]
    at: When,
}

pub(crate) async fn approve(
    context: &Context,
    output: &Output,
    arguments: Approve,
) -> anyhow::Result<Exit> {
    let (grid, actor) = (context.grid()?, context.actor()?);
    let explicit = arguments.yes && arguments.matter.hash.is_some();
    if !explicit && !io::stdin().is_terminal() {
        let text = "without a terminal, give --yes and --hash with the statement that you mean";
        return Err(Usage(text.into()).into());
    }
    let review = arguments.matter.review(context, &grid, &actor).await?;
    show(output, &review);
    if !arguments.matter.is_meant(output, &review)? {
        return Ok(Exit::Rejected);
    }
    // Nobody signs what could not be shown.
    output.written()?;
    if !arguments.yes && !confirmed(&actor, &review)? {
        output.note("nothing was signed");
        return Ok(Exit::Error);
    }
    let decision = Decision::Approve;
    decide(output, &grid, &actor, &review, decision, &arguments.comment).await
}

pub(crate) async fn reject(
    context: &Context,
    output: &Output,
    arguments: Reject,
) -> anyhow::Result<Exit> {
    let (grid, actor) = (context.grid()?, context.actor()?);
    let review = arguments.matter.review(context, &grid, &actor).await?;
    if !arguments.matter.is_meant(output, &review)? {
        return Ok(Exit::Rejected);
    }
    decide(output, &grid, &actor, &review, Decision::Reject, &arguments.reason).await
}

pub(crate) async fn withdraw(
    context: &Context,
    output: &Output,
    arguments: Withdraw,
) -> anyhow::Result<Exit> {
    let (grid, actor) = (context.grid()?, context.actor()?);
    let review = arguments.matter.review(context, &grid, &actor).await?;
    if !arguments.matter.is_meant(output, &review)? {
        return Ok(Exit::Rejected);
    }
    decide(output, &grid, &actor, &review, Decision::Withdraw, "").await
}

pub(crate) async fn cancel(
    context: &Context,
    output: &Output,
    arguments: Cancel,
) -> anyhow::Result<Exit> {
    let now = now();
    let retention = match arguments.keep_until {
        Some(when) => Retention::KeepUntil(when.resolve(now)),
        None => Retention::Wipe,
    };
    let ending = customer::Ending {
        reason: arguments.reason,
        effective_at: arguments.at.resolve(now),
        retention,
    };
    let (grid, actor) = (context.grid()?, context.actor()?);
    let id = customer::cancel(&grid, &actor, &arguments.contract, &ending, now).await?;
    output.answer(&json!({ "contract": arguments.contract, "order": id }));
    output.say(format_args!("order {id}"));
    output.say(format_args!(
        "next: stakeholders run 3bot contract approve {} --cancel",
        arguments.contract
    ));
    Ok(Exit::Done)
}

/// Whether a prefix means this statement.
fn means(prefix: &str, subject: &StatementId) -> anyhow::Result<bool> {
    let digits = prefix.bytes().all(|c| c.is_ascii_hexdigit());
    if prefix.len() < PREFIX_MIN || !digits {
        let text = format!("--hash takes at least {PREFIX_MIN} hexadecimal digits");
        return Err(Usage(text).into());
    }
    Ok(subject.to_string().starts_with(&prefix.to_ascii_lowercase()))
}

fn show(output: &Output, review: &Review) {
    let action = super::contract::word(&review.action);
    output.say(format_args!("contract   {}", review.contract));
    output.say(format_args!("title      {}", text::clean(&review.title)));
    output.say(format_args!("action     {action} version {}", review.version));
    output.say(format_args!("statement  {}", review.subject));
    output.say(format_args!("until      {}", review.until));
    for tally in &review.tallies {
        let reason = tally.reason().unwrap_or_else(|| "everybody agreed who must".to_owned());
        output.say(format_args!("decision   {reason}"));
    }
    if let Some(decided) = &review.decided {
        let decided = super::contract::word(decided);
        output.say(format_args!("your last  {decided}"));
    }
    match &review.since {
        Some((version, lines)) if diff::changed(lines) => {
            output.say("");
            output.say(format_args!("Changes since version {version}, which you approved:"));
            show_changes(output, lines);
        }
        Some((version, _)) => {
            output.say("");
            output.say(format_args!("Nothing changed since version {version}."));
        }
        None => {
            output.say("");
            review.text.iter().for_each(|line| output.say(format_args!("  {line}")));
        }
    }
    output.say("");
}

/// Changes, with a little of what stands around them.
pub(crate) fn show_changes(output: &Output, lines: &[Line]) {
    let changed: Vec<usize> =
        (0..lines.len()).filter(|&index| !matches!(lines[index], Line::Same(_))).collect();
    let near = |index: usize| {
        let next = changed.partition_point(|&at| at + AROUND < index);
        changed.get(next).is_some_and(|&at| at <= index + AROUND)
    };
    let mut hidden = false;
    for (index, line) in lines.iter().enumerate() {
        if !near(index) {
            hidden = true;
            continue;
        }
        if hidden {
            output.say("  …");
            hidden = false;
        }
        match line {
            Line::Same(text) => output.say(format_args!("  {text}")),
            Line::Removed(text) => output.say_in(Colour::Red, format_args!("- {text}")),
            Line::Added(text) => output.say_in(Colour::Green, format_args!("+ {text}")),
        }
    }
    if changed.is_empty() {
        output.say("  (nothing)");
    }
}

/// Asks on the terminal. Anything but a clear yes is a no.
fn confirmed(actor: &Actor, review: &Review) -> anyhow::Result<bool> {
    let mut terminal = io::stderr().lock();
    let (name, hash) = (&actor.key.name, review.subject.short());
    write!(terminal, "Sign {hash} as {name}? [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn decide(
    output: &Output,
    grid: &Grid,
    actor: &Actor,
    review: &Review,
    decision: Decision,
    comment: &str,
) -> anyhow::Result<Exit> {
    let id = stakeholder::decide(grid, actor, review, decision, comment, now()).await?;
    output.answer(&json!({
        "contract": review.contract,
        "version": review.version,
        "statement": review.subject,
        "decision": decision,
        "approval": id,
    }));
    let what = match decision {
        Decision::Approve => "approved",
        Decision::Reject => "rejected",
        Decision::Withdraw => "decision withdrawn on",
    };
    output.say(format_args!("{what} {} as {}", review.subject, actor.key.name));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_one_statement() {
        let id = StatementId([0xab; 32]);
        assert!(means("abababab", &id).unwrap());
        assert!(means("ABABABAB", &id).unwrap());
        assert!(!means("abababac", &id).unwrap());
        assert!(means("ababab", &id).is_err(), "too short to mean one");
        assert!(means("abababxx", &id).is_err());
    }
}
