//! registryd: the registry as a program.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use clap::{Parser, Subcommand, builder::BoolishValueParser};
use registryd::{
    content::Access,
    db,
    server::{self, Settings, system_clock},
    transparency,
};
use rusqlite::Connection;
use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};

/// Stores, orders and serves the signed statements of a Zero-OS grid.
///
/// Everything is kept in one directory: a SQLite database, and published flists as plain files.
/// Nodes and people believe statements, never this server. To back it up or to move it, stop it and
/// copy the directory. Once its log has begun, never start an older copy: a log does not go back.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// Directory that everything is kept in; made when it is missing.
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    /// Address to listen on. Port 0 takes any free one; it is printed once requests are answered.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Grid that this registry belongs to. Statements of other grids are refused.
    #[arg(long, value_name = "NAME", default_value = "main", value_parser = network)]
    network: String,
    /// Whether flists and packs can be published here. They are checked against their hashes.
    #[arg(
        long,
        value_name = "YES|NO",
        hide_possible_values = true,
        default_value = "yes",
        default_missing_value = "yes",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    content_writable: bool,
    /// File that names the witnesses of the log: their keys, where they are, and how many have to
    /// cosign a checkpoint before it is shown (c2sp.org/tlog-policy). Without one, none has to.
    #[arg(long, value_name = "FILE")]
    witnesses: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

fn network(text: &str) -> Result<String, String> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=32).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 32 of a-z, 0-9 and -, and does not start with -".to_owned())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes the tables that follow from the statements anew. Stop the registry first.
    Rebuild {
        /// Directory of the registry.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Begins the transparency log, once and for ever, and prints its public key. Stop the registry
    /// first; from its next start on, every statement is logged before it is acknowledged.
    BeginLog {
        /// Directory of the registry.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Name of the log in each checkpoint, such as registry.example/main.
        #[arg(long, value_name = "NAME")]
        origin: String,
    },
    /// Checks the transparency log against its files and all statements. Changes nothing. Stop the
    /// registry first.
    Fsck {
        /// Directory of the registry.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (arguments.command, arguments.data) {
        (Some(Command::Rebuild { data }), _) => rebuild(&data),
        (Some(Command::BeginLog { data, origin }), _) => begin_log(&data, &origin),
        (Some(Command::Fsck { data }), _) => fsck(&data),
        (None, Some(data)) => serve(Settings {
            data,
            listen: arguments.listen,
            network: arguments.network,
            content: if arguments.content_writable { Access::Writable } else { Access::ReadOnly },
            witnesses: arguments.witnesses,
            now: system_clock,
        }),
        (None, None) => Err(anyhow::anyhow!("--data is missing")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            registryd::log(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        // Before anything else, so that no signal ends us half way.
        let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
        let server = server::start(settings).await?;
        say(&format!("registryd: listening on http://{}", server.address))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        server.stop().await
    })
}

fn open(data: &Path) -> anyhow::Result<(Connection, File)> {
    anyhow::ensure!(db::path(data).exists(), "there is no registry in {}", data.display());
    // Nobody else may have it meanwhile.
    let taken = db::take(data)?;
    Ok((db::open(data)?, taken))
}

fn begin_log(data: &Path, origin: &str) -> anyhow::Result<()> {
    let (connection, _taken) = open(data)?;
    say(&transparency::begin(&connection, data, origin)?)
}

fn fsck(data: &Path) -> anyhow::Result<()> {
    let (connection, _taken) = open(data)?;
    let head = transparency::fsck::check(&connection, data)?;
    let head = head.context("this registry has no log: see `registryd begin-log`")?;
    say(&format!("registryd: the log {} is whole, {} entries", head.origin, head.size))
}

/// Statements are counted again in the order that the log says, so it has to say the same as they.
fn rebuild(data: &Path) -> anyhow::Result<()> {
    let (mut connection, _taken) = open(data)?;
    transparency::fsck::check(&connection, data).context("checking the log")?;
    let transaction = connection.transaction()?;
    let count = db::rebuild(&transaction)?;
    transaction.commit()?;
    say(&format!("registryd: {count} statements count"))
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}
