//! `3bot contract`: writing, planning, signing, pushing, listing. Decisions are in `decide`, waiting
//! in `watch`.

use super::{
    Exit, audit, carry,
    context::{Context, now},
    decide,
    output::{Colour, Output},
    watch,
};
use anyhow::Context as _;
use clap::Subcommand;
use contract::{ContractId, Envelope, report};
use registry_api::{client::ContractFilter, view::ContractState};
use serde::Serialize;
use serde_json::json;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use threebot::{
    BotError, People, customer, diff,
    plan::{
        self,
        file::{PLAN_MAX, Sealed},
        world::{Severity, demand, hours, lifetime_s},
    },
    results,
    source::{
        self, Language,
        units::{show_bytes, show_milli, show_seconds},
    },
    text,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented contract to start from.
    #[command(after_help = "Example:\n  3bot contract init shop.toml")]
    Init {
        /// File to write; standard output unless given.
        file: Option<PathBuf>,
    },
    /// Check a contract file without asking anybody.
    Validate {
        /// The contract, in TOML or YAML.
        file: PathBuf,
    },
    /// Turn a contract file into exact bytes, and hold it against the grid.
    #[command(after_help = "\
Shows what will happen, what it needs and who must sign, and refuses what a node would refuse.

Example:
  3bot contract plan shop.toml --out shop.plan")]
    Plan {
        /// The contract, in TOML or YAML.
        file: PathBuf,
        /// Write the plan to this file, for `sign` and `push`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Plan the next version of this contract.
        #[arg(long, value_name = "CONTRACT")]
        update: Option<ContractId>,
        /// Where nodes fetch flists for which the file names no place; repeat for more.
        #[arg(long, value_name = "URL")]
        content: Vec<String>,
    },
    /// Sign a plan as its owner.
    Sign {
        /// The plan; the signature is written into it.
        plan: PathBuf,
    },
    /// Upload a signed plan. A second time does nothing.
    Push {
        /// The plan.
        plan: PathBuf,
    },
    /// Read what is proposed, and approve it.
    Approve(decide::Approve),
    /// Reject what is proposed.
    Reject(decide::Reject),
    /// Take a decision back, as if nothing had been said.
    Withdraw(decide::Withdraw),
    /// Show where a contract stands, from verified statements.
    Status {
        /// The contract.
        contract: ContractId,
    },
    /// Wait until a contract has come so far, and show each change.
    Watch(watch::Watch),
    /// Order the end of a contract. Stakeholders then `approve --cancel`.
    #[command(after_help = "\
Examples:
  3bot contract cancel CONTRACT --reason \"moved\" --wipe
  3bot contract cancel CONTRACT --reason \"season is over\" --keep-until 30d")]
    Cancel(decide::Cancel),
    /// Show everything that nodes reported about a contract, verified.
    Results {
        /// The contract.
        contract: ContractId,
    },
    /// Write all that proves the life of a contract into one file, for `audit`.
    #[command(after_help = "Example:\n  3bot contract export CONTRACT --out shop.evidence")]
    Export(audit::Export),
    /// Write what its nodes need into a folder that is carried to them by hand, such as a stick.
    #[command(after_help = carry::HELP)]
    Carry(carry::Carry),
    /// Show who agreed to what and which bytes ran where and when, from a file alone.
    #[command(after_help = audit::HELP)]
    Audit(audit::Audit),
    /// List contracts.
    List {
        /// Of this owner only: an identity id, key or contact.
        #[arg(long)]
        owner: Option<String>,
        /// Only those that wait for a signature of this stakeholder.
        #[arg(long, value_name = "STAKEHOLDER")]
        waiting_for: Option<String>,
        /// Only those in this state, for example running.
        #[arg(long, value_parser = state)]
        state: Option<ContractState>,
    },
}

fn state(text: &str) -> Result<ContractState, String> {
    let known = ContractState::ALL.into_iter().find(|state| state.name() == text);
    known.ok_or_else(|| {
        let names: Vec<_> = ContractState::ALL.iter().map(|state| state.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// The word of a wire type.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

pub(crate) async fn run(
    context: &Context,
    output: &Output,
    command: Command,
) -> anyhow::Result<Exit> {
    match command {
        Command::Init { file } => init(output, file.as_deref()),
        Command::Validate { file } => validate(context, output, &file),
        Command::Plan { file, out, update, content } => {
            make_plan(context, output, &file, out.as_deref(), update, &content).await
        }
        Command::Sign { plan } => sign(context, output, &plan),
        Command::Push { plan } => push(context, output, &plan).await,
        Command::Approve(arguments) => decide::approve(context, output, arguments).await,
        Command::Reject(arguments) => decide::reject(context, output, arguments).await,
        Command::Withdraw(arguments) => decide::withdraw(context, output, arguments).await,
        Command::Status { contract } => watch::status(context, output, &contract).await,
        Command::Watch(arguments) => watch::watch(context, output, &arguments).await,
        Command::Cancel(arguments) => decide::cancel(context, output, arguments).await,
        Command::Results { contract } => show_results(context, output, &contract).await,
        Command::Export(arguments) => audit::export(context, output, &arguments).await,
        Command::Carry(arguments) => carry::carry(context, output, &arguments).await,
        Command::Audit(arguments) => audit::audit(context, output, &arguments),
        Command::List { owner, waiting_for, state } => {
            let filter = ContractFilter {
                owner: owner.map(|name| context.find(&name)).transpose()?,
                state,
                signer: waiting_for.map(|name| context.find(&name)).transpose()?,
            };
            list(context, output, &filter).await
        }
    }
}

fn init(output: &Output, file: Option<&Path>) -> anyhow::Result<Exit> {
    let template = source::template::TEMPLATE;
    match file {
        None => output.raw(template.as_bytes()),
        Some(path) => {
            let mut file = fs::File::create_new(path)
                .with_context(|| format!("writing {}, which must not exist", path.display()))?;
            file.write_all(template.as_bytes())
                .with_context(|| format!("writing {}", path.display()))?;
            output.answer(&json!({ "file": path }));
            output.say(format_args!("wrote {}; fill in pool, nodes and flist", path.display()));
        }
    }
    Ok(Exit::Done)
}

fn load_source(path: &Path) -> anyhow::Result<source::Source> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    source::parse(&text, Language::of(path))
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

fn validate(context: &Context, output: &Output, path: &Path) -> anyhow::Result<Exit> {
    let source = load_source(path)?;
    plan::wanted_flists(&source).map_err(BotError::Plan)?;
    let unfilled = source.unfilled();
    anyhow::ensure!(
        unfilled.is_empty(),
        "{}: still as in the example: {}",
        path.display(),
        unfilled.join(", ")
    );
    let people = context.people()?;
    let names = source.stakeholders.iter().map(|holder| &holder.identity).chain(&source.owner);
    let unknown: Vec<_> = names.filter(|name| people.find(name).is_none()).collect();
    for name in &unknown {
        output.note(format_args!("{name:?} is no identity id, key or contact here"));
    }
    output.answer(&json!({ "file": path, "valid": true, "unknown_names": unknown }));
    let (containers, volumes) = (source.containers.len(), source.volumes.len());
    output.say(format_args!(
        "{} is well formed: {containers} containers, {volumes} volumes, {} stakeholders",
        path.display(),
        source.stakeholders.len()
    ));
    Ok(Exit::Done)
}

async fn make_plan(
    context: &Context,
    output: &Output,
    path: &Path,
    out: Option<&Path>,
    update: Option<ContractId>,
    content: &[String],
) -> anyhow::Result<Exit> {
    let source = load_source(path)?;
    let (grid, people, actor) = (context.grid()?, context.people()?, context.actor()?);
    let request = customer::Request {
        source: &source,
        base: path.parent().unwrap_or(Path::new("")),
        people: &people,
        signer: actor.id(),
        now: now(),
        content: if content.is_empty() { &context.content } else { content },
        update,
    };
    let planned = customer::plan(&grid, &request).await?;
    show_plan(output, &people, &planned);
    let refused = planned.findings.iter().any(|finding| finding.severity == Severity::Refusal);
    let sealed = Sealed::unsigned(planned.plan);
    if !refused && let Some(out) = out {
        write_whole(out, &sealed.to_bytes())?;
        output.say("");
        output.say(format_args!("wrote {}; next: 3bot contract sign {0}", out.display()));
    }
    let plan = &sealed.plan;
    let findings: Vec<_> = planned
        .findings
        .iter()
        .map(|finding| {
            let refusal = finding.severity == Severity::Refusal;
            json!({ "refusal": refusal, "node": finding.node, "text": finding.text })
        })
        .collect();
    output.answer(&json!({
        "contract": plan.contract(),
        "version": plan.header.version,
        "header": plan.id(),
        "nodes": plan.documents.len(),
        "findings": findings,
        "refused": refused,
        "file": out.filter(|_| !refused),
    }));
    Ok(if refused { Exit::Rejected } else { Exit::Done })
}

fn show_plan(output: &Output, people: &People, planned: &customer::Planned) {
    let plan = &planned.plan;
    let header = &plan.header;
    output.say(format_args!("contract  {}", plan.contract()));
    output.say(format_args!("version   {}", header.version));
    output.say(format_args!("header    {}", plan.id()));
    output.say("");
    let lines = text::version(header, &plan.documents, people);
    match &planned.replaces {
        Some((old, documents)) => {
            output.say(format_args!("Changes since version {}:", old.version));
            let old = text::version(old, documents.as_deref().unwrap_or_default(), people);
            decide::show_changes(output, &diff::lines(&old, &lines));
        }
        None => lines.iter().for_each(|line| output.say(format_args!("  {line}"))),
    }
    let (need, seconds) = (demand(plan), lifetime_s(plan));
    output.say("");
    output.say(format_args!(
        "It needs {} cores, {} of memory, {} of flash and {} of rotating disk for {}: {} \
         CU-hours and {} SU-hours of the pool.",
        show_milli(need.cru_milli),
        show_bytes(need.mru_bytes),
        show_bytes(need.sru_bytes),
        show_bytes(need.hru_bytes),
        show_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)),
        hours(need.cu_milli_used(), seconds),
        hours(need.su_milli_used(), seconds),
    ));
    let rule = if header.version == 1 { &header.policy.create } else { &header.policy.update };
    output.say(format_args!("It starts with: {}.", text::rule(rule, people)));
    for finding in &planned.findings {
        let place = match &finding.node {
            Some(node) => format!("node {}", node.short()),
            None => "contract".to_owned(),
        };
        match finding.severity {
            Severity::Refusal => {
                output.say_in(Colour::Red, format_args!("refused: {place}: {}", finding.text));
            }
            Severity::Warning => {
                output.say_in(Colour::Yellow, format_args!("warning: {place}: {}", finding.text));
            }
        }
    }
}

/// Replaces a file as a whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let attempt = || format!("writing {}", path.display());
    let mut name = path.file_name().context("a file name is needed")?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let staged = path.with_file_name(name);
    fs::write(&staged, bytes).with_context(attempt)?;
    fs::File::open(&staged).and_then(|file| file.sync_all()).with_context(attempt)?;
    fs::rename(&staged, path).with_context(attempt)
}

fn load_plan(path: &Path) -> anyhow::Result<Sealed> {
    let attempt = || format!("reading the plan {}", path.display());
    let size = fs::metadata(path).with_context(attempt)?.len();
    anyhow::ensure!(size <= PLAN_MAX as u64, "{} is too large for a plan", path.display());
    Sealed::read(&fs::read(path).with_context(attempt)?).with_context(attempt)
}

fn sign(context: &Context, output: &Output, path: &Path) -> anyhow::Result<Exit> {
    let mut sealed = load_plan(path)?;
    customer::sign(&mut sealed, &context.actor()?)?;
    write_whole(path, &sealed.to_bytes())?;
    let plan = &sealed.plan;
    output.answer(&json!({ "contract": plan.contract(), "header": plan.id(), "file": path }));
    output.say(format_args!("signed version {} of {}", plan.header.version, plan.contract()));
    output.say(format_args!("next: 3bot contract push {}", path.display()));
    Ok(Exit::Done)
}

async fn push(context: &Context, output: &Output, path: &Path) -> anyhow::Result<Exit> {
    let sealed = load_plan(path)?;
    let header = &sealed.plan.header;
    // Identities of other people are theirs to register; own keys may be several of the parties.
    let identities: Vec<Envelope> = context
        .own()?
        .into_iter()
        .filter(|actor| {
            let id = actor.id();
            id == header.owner || header.stakeholders.iter().any(|holder| holder.identity == id)
        })
        .map(|actor| actor.own.statement)
        .collect();
    let pushed = customer::push(&context.grid()?, &sealed, &identities).await?;
    output.answer(&json!({
        "contract": header.contract,
        "version": header.version,
        "header": pushed.header,
        "new": pushed.new,
    }));
    let what = if pushed.new { "pushed" } else { "the registry had it already:" };
    output.say(format_args!("{what} version {} of {}", header.version, header.contract));
    output.say(format_args!("header {}", pushed.header));
    output.say(format_args!("next: stakeholders run 3bot contract approve {}", header.contract));
    Ok(Exit::Done)
}

async fn show_results(
    context: &Context,
    output: &Output,
    contract: &ContractId,
) -> anyhow::Result<Exit> {
    let grid = context.grid()?;
    let (told, unproven) = results::results(&grid, contract).await?;
    if told.is_empty() {
        // No report yet, or no such contract: the second is an error, as for `status`.
        let asking = || format!("looking for the contract {}", contract.short());
        grid.client.bundle(contract).await.with_context(asking)?;
    }
    output.answer(&json!({ "results": told, "unproven": unproven }));
    for one in &told {
        let about = one.workload.as_deref().unwrap_or("contract");
        let chained = match one.chained {
            results::Chained::Yes => "",
            results::Chained::Unknown => " [chain not complete]",
            results::Chained::No => " [NOT ON THE NODE'S CHAIN]",
        };
        let (at, node, state) = (one.at, one.node.short(), state_word(one.state));
        output.say(format_args!(
            "{at} {node} #{} v{} {about}: {state} ({}) {}{chained}",
            one.seq,
            one.version,
            text::clean(&one.code),
            text::clean(&one.message)
        ));
    }
    if unproven > 0 {
        output.note(format_args!("{unproven} results are not signed by their nodes and left out"));
    }
    Ok(Exit::Done)
}

/// The word for what became of something.
pub(crate) fn state_word(state: report::State) -> &'static str {
    match state {
        report::State::Accepted => "accepted",
        report::State::Refused => "refused",
        report::State::Running => "running",
        report::State::Failed => "failed",
        report::State::Stopped => "stopped",
        report::State::Wiped => "wiped",
        report::State::Done => "done",
    }
}

async fn list(context: &Context, output: &Output, filter: &ContractFilter) -> anyhow::Result<Exit> {
    let found = context.grid()?.client.contracts(filter).await?;
    output.answer(&found.contracts);
    let row = |one: &registry_api::view::ContractSummary| {
        let version = match one.in_force {
            Some(version) if version != one.version => format!("{version} (→ {})", one.version),
            Some(_) | None => one.version.to_string(),
        };
        vec![
            one.id.to_string(),
            one.state.name().to_owned(),
            version,
            text::clean(&one.title),
            one.awaited.len().to_string(),
            one.nodes.to_string(),
            one.expires.to_string(),
        ]
    };
    let rows: Vec<_> = found.contracts.iter().map(row).collect();
    let heads = ["CONTRACT", "STATE", "VERSION", "TITLE", "AWAITED", "NODES", "EXPIRES"];
    output.table(&heads, &rows);
    if found.next.is_some() {
        output.note("there are more; narrow the list down with --owner or --state");
    }
    Ok(Exit::Done)
}
