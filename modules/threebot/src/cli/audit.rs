//! `3bot contract export` and `audit`.

use super::{
    Exit,
    context::Context,
    contract::{word, write_whole},
    log::read,
    output::{Colour, Output},
};
use anyhow::Context as _;
use clap::Args;
use contract::ContractId;
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;
use std::path::PathBuf;
use threebot::{
    audit::{self, Code, Decided, Expected, Log, NodeSpan, Order, Run, Version},
    evidence::{self, EVIDENCE_BYTES_MAX, Evidence},
};
use tlog::PolicyFile;

pub(crate) const HELP: &str = "\
Nobody is asked. Each report that something ran is judged by what was signed before it; with --policy
(c2sp.org/tlog-policy, as for `3bot log verify`) by what was in that log before it, and every version,
decision, order and report of the contract must be proven to be there. Without a policy only the times
that people and nodes wrote tell what was first, and who wrote them can have written others.

What is shown are the reports that nodes have signed. A file can leave out the newest reports of a node
and, unless --from-first is given, its oldest; and what speaks against a run: rejects, withdrawals,
orders to end it, later versions.

Exit codes: 0: all of it fits together; 2: not agreed on, and nothing ran; 3: agreed on, and nothing is
shown to have run, or nodes that it names are not heard of; 4: it does not fit together, and the findings say where, or it is about something
else.

Example:
  3bot contract audit CONTRACT shop.evidence --policy grid.policy";

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The contract.
    contract: ContractId,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// The contract.
    contract: ContractId,
    /// The file that `export` wrote.
    file: PathBuf,
    /// File with the policy of the log.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Demand the reports of each node from its very first one on.
    #[arg(long)]
    from_first: bool,
}

pub(crate) async fn export(
    context: &Context,
    output: &Output,
    arguments: &Export,
) -> anyhow::Result<Exit> {
    let Export { contract, out } = arguments;
    let bar = ProgressBar::no_length().with_message("statements");
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let tell = |count: usize| bar.set_position(u64::try_from(count).unwrap_or(u64::MAX));
    let evidence = evidence::gather(&context.grid()?, contract, &tell).await;
    bar.finish_and_clear();
    let evidence = evidence?;
    let bytes = serde_json::to_vec(&evidence).context("writing the evidence")?;
    anyhow::ensure!(
        bytes.len() <= EVIDENCE_BYTES_MAX,
        "the evidence has {} bytes, more than `audit` reads",
        bytes.len()
    );
    write_whole(out, &bytes)?;
    let (reports, proofs) = (evidence.reports.len(), evidence.proofs.len());
    let wanted = evidence.logged_for(contract).count();
    let answer = json!({ "file": out, "reports": reports, "proofs": proofs, "wanted": wanted });
    output.answer(&answer);
    output.say(format_args!(
        "wrote {}: {reports} reports, {proofs} of {wanted} proofs of the log",
        out.display()
    ));
    output.say(
        "it holds what every node has to do, with all environment variables, and what these nodes",
    );
    output.say("reported in between about contracts of others");
    output.say(format_args!("next: 3bot contract audit {contract} {}", out.display()));
    Ok(Exit::Done)
}

pub(crate) fn audit(context: &Context, output: &Output, arguments: &Audit) -> anyhow::Result<Exit> {
    let Audit { contract, file, policy, from_first } = arguments;
    let reading = || format!("reading the evidence in {}", file.display());
    let evidence = Evidence::read(&read(file, EVIDENCE_BYTES_MAX)?).with_context(reading)?;
    let policy = policy.as_ref().map(|path| {
        let bytes = read(path, tlog::policy_file::POLICY_BYTES_MAX)?;
        let file = PolicyFile::read(&bytes);
        anyhow::Ok(file.with_context(|| format!("reading the policy {}", path.display()))?.policy)
    });
    let policy = policy.transpose()?;
    let network = &context.network;
    let expected = Expected { contract: *contract, network, from_first: *from_first };
    let audited = audit::audit(&evidence, policy.as_ref(), &expected, &context.people()?);
    let found = match audited {
        Ok(found) => found,
        Err(refused) => {
            let message = refused.to_string();
            output.answer(&json!({ "refused": { "code": refused.code(), "message": message } }));
            let line = format_args!("{}: {message}", refused.code());
            output.say_in(Colour::Red, line);
            return Ok(Exit::Rejected);
        }
    };
    output.answer(&found);
    output.say(format_args!("contract  {} of the network {}", found.contract, found.network));
    output.say(format_args!("title     {}", found.title));
    output.say(format_args!("owner     {}", found.owner_name));
    found.versions.iter().for_each(|one| show_version(output, one));
    found.cancels.iter().for_each(|one| show_order(output, one));
    found.nodes.iter().for_each(|one| show_node(output, one));
    for node in &found.strangers {
        output.say(format_args!(
            "node {node} has reported too, and is named by no version: passed over"
        ));
    }
    if !found.runs.is_empty() {
        output.say("what ran, by the reports of the nodes:");
        output
            .table(&["NODE", "WORKLOAD", "VERSION", "STATE", "FLIST", "AT", "UNTIL", "ENTRY"], &{
                found.runs.iter().map(row).collect::<Vec<_>>()
            });
    }
    show_log(output, found.log.as_ref());
    for finding in &found.findings {
        let about = finding.statement.map(|id| format!(" ({id})")).unwrap_or_default();
        let code = word(&finding.code);
        output.say_in(Colour::Red, format_args!("{code}: {}{about}", finding.text));
    }
    Ok(conclude(output, &found))
}

/// What it comes to, in one line.
fn conclude(output: &Output, found: &audit::Audit) -> Exit {
    let is_agreed = found.versions.iter().any(|version| version.agreed);
    let is_silence = |finding: &audit::Finding| finding.code == Code::NoReports;
    if !found.findings.is_empty() && found.findings.iter().all(is_silence) {
        let count = found.findings.len();
        let line = format_args!("what is there fits together; {count} nodes are not heard of");
        output.say_in(Colour::Yellow, line);
        Exit::Partial
    } else if !found.findings.is_empty() {
        let count = found.findings.len();
        output.say_in(Colour::Red, format_args!("it does not fit together: {count} findings"));
        Exit::Rejected
    } else if found.runs.is_empty() && is_agreed {
        output.say_in(Colour::Yellow, "agreed on; nothing is shown to have run");
        Exit::Partial
    } else if found.runs.is_empty() {
        output.say_in(Colour::Yellow, "not agreed on; nothing is shown to have run");
        Exit::Waiting
    } else if found.log.as_ref().is_some_and(|log| log.seen.is_none()) {
        let line = "all of it fits together; what was first, only the log says, with no witness";
        output.say_in(Colour::Yellow, line);
        Exit::Done
    } else if found.log.is_none() {
        let line = "all of it fits together; what was first, only the signers' own times say";
        output.say_in(Colour::Yellow, line);
        Exit::Done
    } else {
        output.say_in(Colour::Green, "all of it fits together");
        Exit::Done
    }
}

fn show_version(output: &Output, version: &Version) {
    let Version { version, header, rules, agreed, missing, decisions } = version;
    let standing = if *agreed { "agreed".to_owned() } else { missing.join("; ") };
    output.say(format_args!("version {version}  {header}  {standing}"));
    for rule in rules {
        output.say(format_args!("  it takes, {rule}"));
    }
    show_decisions(output, decisions);
}

fn show_order(output: &Output, order: &Order) {
    let Order { statement, version, effective_at, rule, agreed, replaced, decisions } = order;
    let standing = match (agreed, replaced) {
        (_, true) => "a later version has taken it back",
        (true, false) => "agreed",
        (false, false) => "not agreed",
    };
    output.say(format_args!("end of version {version} at {effective_at}  {statement}  {standing}"));
    output.say(format_args!("  it takes {rule}"));
    show_decisions(output, decisions);
}

fn show_decisions(output: &Output, decisions: &[Decided]) {
    for Decided { name, role, decision, issued, entry, .. } in decisions {
        let (role, decision) = (word(role), word(decision));
        let place = entry.map(|entry| format!(", entry {entry} of the log")).unwrap_or_default();
        output.say(format_args!("  {issued} {decision}: {name}, {role}{place}"));
    }
}

fn show_node(output: &Output, span: &NodeSpan) {
    let NodeSpan { node, farm, farm_name, first, last } = span;
    let name = farm_name.as_ref().map(|name| format!("{name:?} "));
    output.say(format_args!("node {node} of the farm {}{farm}", name.unwrap_or_default()));
    output
        .say(format_args!("  reports {first}..{last}; others, if there are, are not in the file"));
}

fn show_log(output: &Output, log: Option<&Log>) {
    let Some(Log { origin, size, quorum, seen, proven, wanted }) = log else {
        return output.say("the log was not looked at: --policy FILE says which one counts");
    };
    output.say(format_args!("log        {origin}, {size} entries"));
    output.say(format_args!("proven     {proven} of {wanted} statements"));
    match seen {
        Some(seen) => output.say(format_args!("witnesses  {quorum} at least, at {seen}")),
        None => output.say("witnesses  none: the policy asks for none, so only the log says so"),
    }
}

fn row(run: &Run) -> Vec<String> {
    vec![
        run.node.to_string(),
        run.workload.clone(),
        run.version.to_string(),
        word(&run.state),
        run.ran.flist.to_string(),
        run.from.to_string(),
        run.until.map_or("-".to_owned(), |until| until.to_string()),
        run.entry.map_or("-".to_owned(), |entry| entry.to_string()),
    ]
}
