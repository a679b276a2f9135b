//! `3bot log`.

use super::{
    Exit,
    context::{Context, Usage},
    output::Output,
};
use anyhow::Context as _;
use clap::Subcommand;
use contract::{Envelope, StatementId, Timestamp, strict};
use registry_api::paths::{PROOF_BYTES_MAX, STATEMENT_BYTES_MAX};
use serde_json::json;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};
use threebot::log::{self, Logged, Newest};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the newest checkpoint of the transparency log, if it counts, and the boot options for it.
    #[command(after_help = "\
The words behind `options` make a node start only what is in this log, as these witnesses have seen it,
and only while the log continues this checkpoint. They go into
the image with `cargo xtask image --cmdline`, or into the script of iPXE.

Example:
  3bot log checkpoint --policy grid.policy")]
    Checkpoint {
        /// File with the policy, as for `3bot log verify`.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
    },
    /// Check that a statement is in the transparency log, under a checkpoint that counts.
    #[command(after_help = "\
With --proof nobody is asked: the proof, the policy and the id decide. Without, the registry is asked
for the proof; --save keeps it for later. The policy (c2sp.org/tlog-policy) says which log and which
witnesses you trust; it has to come from somebody else than the registry:

  log registry.example/main+ID+KEY
  witness one witness.example/1+ID+KEY
  witness two witness.example/2+ID+KEY
  witness three witness.example/3+ID+KEY
  group witnesses 2 one two three
  quorum witnesses

Examples:
  3bot log verify STATEMENT --policy grid.policy --save statement.tlog-proof
  3bot log verify statement.json --policy grid.policy --proof statement.tlog-proof")]
    Verify {
        /// Id of the statement, or a file with it.
        statement: String,
        /// File with the policy.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// File with the proof.
        #[arg(long, value_name = "FILE", conflicts_with = "save")]
        proof: Option<PathBuf>,
        /// File to write the proof to, once it has been checked.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
}

pub(crate) async fn run(
    context: &Context,
    output: &Output,
    command: Command,
) -> anyhow::Result<Exit> {
    let (statement, policy, proof, save) = match command {
        Command::Checkpoint { policy } => {
            let policy = read(&policy, tlog::policy_file::POLICY_BYTES_MAX)?;
            let checkpoint = context.grid()?.client.checkpoint().await?;
            show_newest(output, &log::newest(&checkpoint, &policy)?);
            return Ok(Exit::Done);
        }
        Command::Verify { statement, policy, proof, save } => (statement, policy, proof, save),
    };
    let (id, envelope) = find(&statement)?;
    let policy = read(&policy, tlog::policy_file::POLICY_BYTES_MAX)?;
    let proof = match &proof {
        Some(proof) => read(proof, PROOF_BYTES_MAX)?,
        None => context.grid()?.client.proof(&id).await?,
    };
    let logged = log::verify(&id, envelope.as_ref(), &proof, &policy)?;
    if let Some(save) = save {
        fs::write(&save, &proof).with_context(|| format!("writing {}", save.display()))?;
    }
    show(output, &logged);
    Ok(Exit::Done)
}

/// A statement by its id, or from a file.
fn find(text: &str) -> anyhow::Result<(StatementId, Option<Envelope>)> {
    if let Ok(id) = text.parse() {
        return Ok((id, None));
    }
    let path = Path::new(text);
    if !path.exists() {
        return Err(Usage(format!("{text:?} is no id of a statement, and no file")).into());
    }
    let bytes = read(path, STATEMENT_BYTES_MAX)?;
    let reading = || format!("reading the statement in {}", path.display());
    let envelope: Envelope = strict::read(&bytes, STATEMENT_BYTES_MAX).with_context(reading)?;
    Ok((envelope.id().with_context(reading)?, Some(envelope)))
}

/// A file that has at most so many bytes.
pub(crate) fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("reading {}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(reading)?;
    // One more than is taken, so that what is too large is found to be.
    let most = u64::try_from(bytes_max)? + 1;
    file.take(most).read_to_end(&mut bytes).with_context(reading)?;
    anyhow::ensure!(bytes.len() <= bytes_max, "{} is too large", path.display());
    Ok(bytes)
}

fn show_newest(output: &Output, newest: &Newest) {
    let Newest { origin, size, root, seen, quorum, options } = newest;
    output.answer(&json!({
        "log": origin,
        "size": size,
        "root": root,
        "quorum": quorum,
        "seen": seen,
        "options": options,
    }));
    output.say(format_args!("log        {origin}, {size} entries"));
    output.say(format_args!("root       {root}"));
    show_witnesses(output, *quorum, seen.as_ref());
    output.say(format_args!("options    {options}"));
}

fn show_witnesses(output: &Output, quorum: usize, seen: Option<&Timestamp>) {
    match seen {
        Some(seen) => output.say(format_args!("witnesses  {quorum} at least, at {seen}")),
        None => output.say("witnesses  none: the policy asks for none"),
    }
}

fn show(output: &Output, logged: &Logged) {
    let Logged { record, index, origin, size, seen, quorum } = logged;
    let subject = hex::encode(record.subject);
    output.answer(&json!({
        "statement": record.statement,
        "kind": record.kind.name(),
        "subject": subject,
        "version": record.version,
        "log": origin,
        "index": index,
        "size": size,
        "quorum": quorum,
        "seen": seen,
    }));
    output.say(format_args!("statement  {}", record.statement));
    output.say(format_args!("kind       {}", record.kind.name()));
    output.say(format_args!("subject    {subject}"));
    output.say(format_args!("version    {}", record.version));
    output.say(format_args!("log        {origin}, entry {index} of {size}"));
    show_witnesses(output, *quorum, seen.as_ref());
}
