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
    audit::{self, Decided, Order, Run, Version},
    evidence::{self, EVIDENCE_BYTES_MAX, Evidence},
    text,
};

pub(crate) const HELP: &str = "\
Nobody is asked. With --policy (c2sp.org/tlog-policy, as for `3bot log verify`) every statement must be
proven to be in that log; without it, the log is not looked at. Exit code 0: all of it fits together;
4: it does not, and the findings say where.

Example:
  3bot contract audit shop.evidence --policy grid.policy";

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
    /// The file that `export` wrote.
    file: PathBuf,
    /// File with the policy of the log.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
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
    output.answer(&json!({ "file": out, "reports": reports, "proofs": proofs }));
    output.say(format_args!(
        "wrote {}: {reports} reports, {proofs} proofs of the log",
        out.display()
    ));
    output.say(format_args!("next: 3bot contract audit {}", out.display()));
    Ok(Exit::Done)
}

pub(crate) fn audit(context: &Context, output: &Output, arguments: &Audit) -> anyhow::Result<Exit> {
    let Audit { file, policy } = arguments;
    let reading = || format!("reading the evidence in {}", file.display());
    let evidence = Evidence::read(&read(file, EVIDENCE_BYTES_MAX)?).with_context(reading)?;
    let policy = policy.as_ref().map(|path| read(path, tlog::policy_file::POLICY_BYTES_MAX));
    let policy = policy.transpose()?;
    if let Some(policy) = &policy {
        tlog::PolicyFile::read(policy).context("reading the policy")?;
    }
    let found = audit::audit(&evidence, policy.as_deref(), &context.people()?)
        .map_err(|refusal| anyhow::anyhow!("{}: {}", refusal.code.name(), refusal.message))
        .with_context(reading)?;
    output.answer(&found);
    output.say(format_args!("contract  {}  {}", found.contract, text::clean(&found.title)));
    found.versions.iter().for_each(|one| show_version(output, one));
    found.cancels.iter().for_each(|one| show_order(output, one));
    output.say("");
    output.table(&["NODE", "WORKLOAD", "VERSION", "FLIST", "FROM", "UNTIL", "ENTRY"], &{
        found.runs.iter().map(row).collect::<Vec<_>>()
    });
    match found.logged {
        Some(logged) => output.say(format_args!("{logged} statements are proven to be in the log")),
        None => output.say("the log was not looked at: --policy FILE says which one counts"),
    }
    for finding in &found.findings {
        let about = finding.statement.map(|id| format!(" ({id})")).unwrap_or_default();
        let code = word(&finding.code);
        output.say_in(Colour::Red, format_args!("{code}: {}{about}", finding.text));
    }
    if !found.findings.is_empty() {
        return Ok(Exit::Rejected);
    }
    output.say_in(Colour::Green, "all of it fits together");
    Ok(Exit::Done)
}

fn show_version(output: &Output, version: &Version) {
    let Version { version, header, agreed, missing, decisions } = version;
    let standing = if *agreed { "agreed".to_owned() } else { missing.join("; ") };
    output.say(format_args!("version {version}  {header}  {standing}"));
    for Decided { name, role, decision, issued, entry, .. } in decisions {
        let (role, decision) = (word(role), word(decision));
        output.say(format_args!("  {issued} {decision}: {name}, {role}{}", place(*entry)));
    }
}

fn show_order(output: &Output, order: &Order) {
    let Order { statement, version, effective_at, agreed } = order;
    let agreed = if *agreed { "agreed" } else { "not agreed" };
    output.say(format_args!("end of version {version} at {effective_at}  {statement}  {agreed}"));
}

fn place(entry: Option<u64>) -> String {
    entry.map(|entry| format!(", entry {entry} of the log")).unwrap_or_default()
}

fn row(run: &Run) -> Vec<String> {
    vec![
        run.node.short(),
        run.workload.clone(),
        run.version.to_string(),
        run.ran.flist.to_string(),
        run.from.to_string(),
        run.until.map_or("-".to_owned(), |until| until.to_string()),
        run.entry.map_or("-".to_owned(), |entry| entry.to_string()),
    ]
}
