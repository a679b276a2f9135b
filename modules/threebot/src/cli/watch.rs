//! `3bot contract status | watch`: where a contract stands, and waiting for it to get somewhere.

use super::{
    Exit,
    context::{Context, now},
    contract::state_word,
    output::{Colour, Output},
};
use clap::{Args, ValueEnum};
use contract::{ContractId, Timestamp, report::State};
use indicatif::{ProgressBar, ProgressDrawTarget};
use registry_api::view::ContractState;
use std::time::Duration;
use threebot::{
    BotError, Grid, People,
    results::Chained,
    source::Span,
    status::{Status, status as find_status},
    text,
};

/// How often the registry is asked.
const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  3bot contract watch CONTRACT --until running --timeout 10m")]
pub(crate) struct Watch {
    /// The contract.
    contract: ContractId,
    /// How far it has to come.
    #[arg(long, value_enum, default_value = "running")]
    until: Until,
    /// Give up after this time; never unless given.
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    /// Everybody has signed the newest version who must.
    Agreed,
    /// Every workload of the newest version runs.
    Running,
    /// It has ended, and every node has stopped it.
    Stopped,
    /// It has ended, and every node has deleted its data.
    Wiped,
}

/// How a status answers "is it as far as wanted?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Reached,
    Waiting,
    Never,
}

pub(crate) async fn status(
    context: &Context,
    output: &Output,
    contract: &ContractId,
) -> anyhow::Result<Exit> {
    let now = now();
    let found = find_status(&context.grid()?, contract, &context.people()?, now).await?;
    output.answer(&found);
    show(output, &found);
    Ok(exit(&found, now))
}

pub(crate) async fn watch(
    context: &Context,
    output: &Output,
    arguments: &Watch,
) -> anyhow::Result<Exit> {
    let (grid, people) = (context.grid()?, context.people()?);
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    spinner.enable_steady_tick(Duration::from_millis(200));
    let waiting = wait(&grid, &people, output, arguments, &spinner);
    let ended = match arguments.timeout {
        None => waiting.await,
        Some(span) => {
            let limit = Duration::from_secs(u64::from(span.seconds));
            match tokio::time::timeout(limit, waiting).await {
                Ok(ended) => ended,
                Err(_) => Err(anyhow::anyhow!("gave up after {} s", span.seconds)),
            }
        }
    };
    spinner.finish_and_clear();
    match ended {
        Ok(exit) => Ok(exit),
        Err(error) => {
            // What there is to say when the time is over: how far it has come.
            output.note(format_args!("{}", threebot::error::chain(&*error)));
            let now = now();
            let found = find_status(&grid, &arguments.contract, &people, now).await?;
            Ok(match exit(&found, now) {
                Exit::Done => Exit::Partial,
                other => other,
            })
        }
    }
}

async fn wait(
    grid: &Grid,
    people: &People,
    output: &Output,
    arguments: &Watch,
    spinner: &ProgressBar,
) -> anyhow::Result<Exit> {
    let mut last: Option<Vec<String>> = None;
    loop {
        match find_status(grid, &arguments.contract, people, now()).await {
            Ok(found) => {
                let lines = lines(&found);
                if last.as_ref() != Some(&lines) {
                    spinner.suspend(|| {
                        output.answer(&found);
                        let old = last.as_deref().unwrap_or_default();
                        let new = lines.iter().filter(|line| !old.contains(line));
                        new.for_each(|line| output.say(format_args!("{} {line}", now())));
                    });
                    spinner.set_message(found.state.name());
                    last = Some(lines);
                }
                output.written()?;
                match progress(&found, arguments.until) {
                    Progress::Reached => return Ok(Exit::Done),
                    Progress::Never => return Ok(Exit::Rejected),
                    Progress::Waiting => {}
                }
            }
            // One lost answer is no reason to stop watching.
            Err(BotError::Registry { source, .. }) if source.is_temporary() => {
                let text = threebot::error::chain(&source);
                spinner.suspend(|| output.note(format_args!("{} {text}; trying again", now())));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn progress(status: &Status, until: Until) -> Progress {
    let ended = matches!(
        status.state,
        ContractState::Cancelled | ContractState::Expired | ContractState::Wiped
    );
    let lost = ended || matches!(status.state, ContractState::Rejected | ContractState::Lapsed);
    let newest = status.in_force == Some(status.version);
    let every = |wanted: &[State]| {
        status
            .nodes
            .iter()
            .all(|node| node.contract.as_ref().is_some_and(|told| wanted.contains(&told.state)))
    };
    let reached = match until {
        Until::Agreed => newest,
        Until::Running => newest && status.state == ContractState::Running,
        Until::Stopped => ended && every(&[State::Stopped, State::Wiped]),
        Until::Wiped => ended && every(&[State::Wiped]),
    };
    match until {
        _ if reached => Progress::Reached,
        Until::Agreed | Until::Running if lost => Progress::Never,
        Until::Agreed | Until::Running | Until::Stopped | Until::Wiped => Progress::Waiting,
    }
}

/// The exit code that tells where a contract stands.
fn exit(status: &Status, now: Timestamp) -> Exit {
    let open = status.in_force != Some(status.version) && now <= status.approve_by;
    let rejected = status.reasons.iter().any(|reason| reason.starts_with("rejected"));
    match status.state {
        ContractState::Proposed => Exit::Waiting,
        ContractState::Rejected | ContractState::Lapsed => Exit::Rejected,
        ContractState::Agreed | ContractState::Deploying | ContractState::Degraded => Exit::Partial,
        ContractState::Running if open && !rejected => Exit::Waiting,
        ContractState::Running
        | ContractState::Cancelled
        | ContractState::Expired
        | ContractState::Wiped => Exit::Done,
    }
}

fn show(output: &Output, status: &Status) {
    output.say(format_args!("contract  {}", status.contract));
    output.say(format_args!("title     {}", text::clean(&status.title)));
    let colour = match exit(status, status.approve_by) {
        Exit::Done => Colour::Green,
        Exit::Waiting | Exit::Partial => Colour::Yellow,
        Exit::Rejected | Exit::Different | Exit::Error | Exit::Usage | Exit::Closed => Colour::Red,
    };
    output.say_in(colour, format_args!("state     {}", status.state.name()));
    for reason in &status.reasons {
        output.say(format_args!("          {}", text::clean(reason)));
    }
    match status.in_force {
        Some(version) if version != status.version => output.say(format_args!(
            "version   {version} in force, {} proposed ({})",
            status.version, status.header
        )),
        Some(version) => output.say(format_args!("version   {version} ({})", status.header)),
        None => output.say(format_args!(
            "version   {} proposed ({}), until {}",
            status.version, status.header, status.approve_by
        )),
    }
    output.say(format_args!("expires   {}", status.expires));
    lines(status).iter().skip(1).for_each(|line| output.say(line));
}

/// One fact for each line: the state, who decided what, what each node says.
fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![format!("state {}", status.state.name())];
    for holder in &status.stakeholders {
        let decision = match holder.decision {
            Some(decision) => super::contract::word(&decision),
            None => "-".to_owned(),
        };
        let waiting = if holder.awaited { ", awaited" } else { "" };
        lines.push(format!("{} {}: {decision}{waiting}", holder.role, holder.name));
    }
    for order in &status.cancels {
        let missing = order.missing.as_deref().unwrap_or("agreed");
        let (id, reason) = (order.id.short(), text::clean(&order.reason));
        lines.push(format!("order to end {id} at {}: {missing} ({reason})", order.effective_at));
    }
    for node in &status.nodes {
        let online = if node.online { "" } else { ", offline" };
        let whole = node.contract.as_ref().map_or_else(|| "nothing yet".to_owned(), told);
        lines.push(format!("node {}: {whole}{online}", node.node));
        for workload in &node.workloads {
            let last = workload.last.as_ref().map_or_else(|| "nothing yet".to_owned(), told);
            lines.push(format!("  {}: {last}", workload.name));
        }
        if node.unproven > 0 {
            lines.push(format!("  {} reports are not signed by the node, left out", node.unproven));
        }
    }
    lines
}

fn told(told: &threebot::results::Told) -> String {
    let chained = match told.chained {
        Chained::Yes => "",
        Chained::Unknown => " [chain not complete]",
        Chained::No => " [NOT ON THE NODE'S CHAIN]",
    };
    let message = text::clean(&told.message);
    format!("{} ({}) {message}{chained}", state_word(told.state), text::clean(&told.code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::StatementId;

    fn status_in(state: ContractState, version: u64, in_force: Option<u64>) -> Status {
        Status {
            contract: ContractId([1; 32]),
            title: "T".into(),
            state,
            reasons: vec![],
            version,
            header: StatementId([2; 32]),
            in_force,
            expires: Timestamp::from_seconds(2000),
            approve_by: Timestamp::from_seconds(1000),
            stakeholders: vec![],
            cancels: vec![],
            nodes: vec![],
        }
    }

    #[test]
    fn the_exit_code_tells_where_it_stands() {
        use ContractState as S;
        let check = |state, version, in_force, now, wanted| {
            let found = exit(&status_in(state, version, in_force), Timestamp::from_seconds(now));
            assert_eq!(found, wanted, "{state:?} {version} {in_force:?} {now}");
        };
        check(S::Proposed, 1, None, 0, Exit::Waiting);
        check(S::Rejected, 1, None, 0, Exit::Rejected);
        check(S::Lapsed, 1, None, 2000, Exit::Rejected);
        check(S::Agreed, 1, Some(1), 0, Exit::Partial);
        check(S::Degraded, 1, Some(1), 0, Exit::Partial);
        check(S::Running, 1, Some(1), 0, Exit::Done);
        check(S::Running, 2, Some(1), 0, Exit::Waiting);
        check(S::Running, 2, Some(1), 1001, Exit::Done);
        check(S::Wiped, 1, Some(1), 0, Exit::Done);
    }

    #[test]
    fn waiting_ends_when_it_is_reached_or_never_will_be() {
        use ContractState as S;
        let check = |state, version, in_force, until, wanted| {
            let found = progress(&status_in(state, version, in_force), until);
            assert_eq!(found, wanted, "{state:?} {version} {in_force:?} {until:?}");
        };
        check(S::Proposed, 1, None, Until::Agreed, Progress::Waiting);
        check(S::Agreed, 1, Some(1), Until::Agreed, Progress::Reached);
        check(S::Running, 2, Some(1), Until::Agreed, Progress::Waiting);
        check(S::Rejected, 1, None, Until::Running, Progress::Never);
        check(S::Degraded, 1, Some(1), Until::Running, Progress::Waiting);
        check(S::Running, 1, Some(1), Until::Running, Progress::Reached);
        check(S::Running, 1, Some(1), Until::Wiped, Progress::Waiting);
        check(S::Wiped, 1, Some(1), Until::Wiped, Progress::Reached);
    }
}
