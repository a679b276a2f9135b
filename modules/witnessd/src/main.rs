//! witnessd: the witness as a program.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};
use witnessd::{config, key, server};

/// Cosigns the checkpoints of transparency logs, as long as each log only grows.
///
/// Speaks the witness protocol of C2SP (c2sp.org/tlog-witness): logs post to /add-checkpoint. It
/// keeps one checkpoint for each log, on the disk before it signs. Never restore its data from a
/// backup: a witness that has forgotten what it signed may sign the opposite.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
The file of `witnessd run`, where paths stand beside the file:

  listen = \"127.0.0.1:7380\"
  data = \"state\"
  key = \"witness.key\"

  [[log]]
  origin = \"registry.example/main\"
  keys = [\"registry.example/main+ID+KEY\"]";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT.
    Run {
        /// File that says where to listen and which logs to watch.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Makes a key in a new file, and prints the public half, for those who trust this witness.
    Key {
        /// Name of the witness, such as witness.example/1. It is part of each signature.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// File to make.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { config } => run(&config),
        Command::Key { name, out } => key::create(&out, &name).and_then(|key| say(&key)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            witnessd::log(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path) -> anyhow::Result<()> {
    let config = config::load(path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        // Before anything else, so that no signal ends us half way.
        let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
        let server = server::start(config).await?;
        say(&format!("witnessd: {} on http://{}", server.key, server.address))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        server.stop().await
    })
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}
