//! registryd: the registry as a program.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use clap::{Parser, Subcommand, builder::BoolishValueParser};
use registryd::{
    content::Access,
    db::{self, Database},
    server::{self, Settings, system_clock},
    sql::{Connection, postgres},
    transparency,
};
use std::{
    env::{self, VarError},
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
/// Statements can be in a database of PostgreSQL instead. Nodes and people believe statements, never
/// this server. To back it up or to move it, stop it and copy the directory, and what `pg_dump` gives.
/// Once its log has begun, never start an older copy: a log does not go back.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// Directory that everything is kept in; made when it is missing.
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    /// Database of PostgreSQL that statements are kept in, on this machine, such as
    /// `postgres:///registry?host=/run/postgresql`. May be in `ZOS_DATABASE` instead; a password belongs
    /// there or into `PGPASSWORD`. Without one, statements are in SQLite.
    #[arg(long, value_name = "URL", global = true)]
    database: Option<String>,
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
    /// Checks the transparency log against its files and all statements, and changes none of them. Stop
    /// the registry first.
    Fsck {
        /// Directory of the registry.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            registryd::log(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let database = database(arguments.database)?;
    match (arguments.command, arguments.data) {
        (Some(Command::Rebuild { data }), _) => rebuild(&data, &database),
        (Some(Command::BeginLog { data, origin }), _) => begin_log(&data, &database, &origin),
        (Some(Command::Fsck { data }), _) => fsck(&data, &database),
        (None, Some(data)) => serve(Settings {
            data,
            database,
            listen: arguments.listen,
            network: arguments.network,
            content: if arguments.content_writable { Access::Writable } else { Access::ReadOnly },
            witnesses: arguments.witnesses,
            now: system_clock,
        }),
        (None, None) => Err(anyhow::anyhow!("--data is missing")),
    }
}

/// Where a password may stand without everybody on this machine reading it.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(anyhow::anyhow!("{name} is not UTF-8")),
    }
}

fn database(named: Option<String>) -> anyhow::Result<Database> {
    let Some(url) = named.map_or_else(|| variable("ZOS_DATABASE"), |url| Ok(Some(url)))? else {
        return Ok(Database::Sqlite);
    };
    let config = postgres::parse(&url, variable("PGPASSWORD")?.as_deref())?;
    Ok(Database::Postgres(Box::new(config)))
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

fn open(data: &Path, database: &Database) -> anyhow::Result<(Connection, File)> {
    anyhow::ensure!(db::has_begun(data), "there is no registry in {}", data.display());
    // Nobody else may have it meanwhile.
    let taken = db::take(data)?;
    Ok((database.open(data)?, taken))
}

fn begin_log(data: &Path, database: &Database, origin: &str) -> anyhow::Result<()> {
    let (connection, _taken) = open(data, database)?;
    say(&transparency::begin(&connection, data, origin)?)
}

fn fsck(data: &Path, database: &Database) -> anyhow::Result<()> {
    let (connection, _taken) = open(data, database)?;
    let head = transparency::fsck::check(&connection, data)?;
    let head = head.context("this registry has no log: see `registryd begin-log`")?;
    say(&format!("registryd: the log {} is whole, {} entries", head.origin, head.size))
}

/// Statements are counted again in the order that the log says, so it has to say the same as they.
fn rebuild(data: &Path, database: &Database) -> anyhow::Result<()> {
    let (connection, _taken) = open(data, database)?;
    transparency::fsck::check(&connection, data).context("checking the log")?;
    let count = db::rebuild(&connection)?;
    say(&format!("registryd: {count} statements count"))
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}
