//! The commands, and how one is run. What a command does is in the library; here it is asked for and
//! shown.

mod audit;
mod carry;
mod context;
mod contract;
mod decide;
mod farm;
mod flist;
mod key;
mod log;
mod node;
mod output;
mod pool;
mod scrub;
mod watch;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use context::Context;
use output::Output;
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done, or runs.
    Done = 0,
    /// Something went wrong; the message says what.
    Error = 1,
    /// Stakeholders still have to sign.
    Waiting = 2,
    /// Agreed on, and not everything runs.
    Partial = 3,
    /// Rejected, refused or lapsed: it will not run as it is.
    Rejected = 4,
    /// The two that were compared differ.
    Different = 5,
    /// The command line makes no sense.
    Usage = 64,
    /// The reader of the output has gone away: what a shell says of one that SIGPIPE has killed.
    Closed = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const AFTER_HELP: &str = "\
Exit codes:
  0   done
  1   error
  2   waiting for signatures
  3   partially running
  4   rejected or refused
  5   different (flist diff)
  64  wrong usage
  141 the reader of the output has gone away

Files, in $ZOS_HOME, $XDG_CONFIG_HOME/zos or ~/.config/zos:
  config.toml           registry, network, key, content, [contacts]
  keys/NAME.key         a secret key, mode 0600, not protected by a passphrase

Examples:
  3bot key new alice --display \"Alice A.\"
  3bot contract init shop.toml
  3bot contract plan shop.toml --out shop.plan
  3bot contract sign shop.plan && 3bot contract push shop.plan
  3bot contract approve CONTRACT --as lawyer
  3bot contract watch CONTRACT --until running --timeout 10m";

/// Customers, stakeholders and farmers of Zero-OS: contracts, signatures, nodes.
#[derive(Debug, Parser)]
#[command(name = "3bot", version, after_help = AFTER_HELP, propagate_version = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Registry to talk to; give several to try them in order.
    #[arg(long, global = true, env = "ZOS_REGISTRY", value_name = "URL", value_delimiter = ',')]
    registry: Vec<String>,
    /// The grid: main, test, or a private name.
    #[arg(long, global = true, env = "ZOS_NETWORK", value_name = "NAME")]
    network: Option<String>,
    /// Key that signs.
    #[arg(long = "as", global = true, env = "ZOS_KEY", value_name = "KEY")]
    signer: Option<String>,
    /// Print JSON, one document for each answer.
    #[arg(long, global = true)]
    json: bool,
    /// Directory of keys and configuration.
    #[arg(long, global = true, env = "ZOS_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keys and identities of your own.
    #[command(subcommand)]
    Key(key::Command),
    /// A farm: make it, hand out tokens, adopt nodes.
    #[command(subcommand)]
    Farm(farm::Command),
    /// Capacity that a farm grants to a customer.
    #[command(subcommand)]
    Pool(pool::Command),
    /// Nodes of the grid.
    #[command(subcommand)]
    Node(node::Command),
    /// File lists: what containers run.
    #[command(subcommand)]
    Flist(flist::Command),
    /// Contracts: from a file to running workloads.
    #[command(subcommand)]
    Contract(Box<contract::Command>),
    /// The transparency log: whether statements are in it.
    #[command(subcommand)]
    Log(log::Command),
    /// Show the settings in effect.
    Config,
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  3bot completions bash > /etc/bash_completion.d/3bot")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command.
    #[command(after_help = "Example:\n  3bot man /usr/local/share/man/man1")]
    Man {
        /// Directory for the pages; made when it is missing.
        dir: PathBuf,
    },
}

/// Runs one command line.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            return match (error.kind(), error.print()) {
                (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, Ok(())) => Exit::Done,
                (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, Err(error)) => {
                    failed(&Output::new(false), &output::Unwritten::from(error).into())
                }
                // Nothing can be done about a closed terminal.
                (_, Ok(()) | Err(_)) => Exit::Usage,
            }
            .into();
        }
    };
    let output = Output::new(arguments.global.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&anyhow::Error::new(error).context("starting the runtime"));
            return Exit::Error.into();
        }
    };
    let ran = runtime.block_on(run(arguments, &output));
    // An error says more than that its answer could not be written.
    let ended = ran.and_then(|exit| Ok(output.written().map(|()| exit)?));
    ended.unwrap_or_else(|error| failed(&output, &error)).into()
}

fn failed(output: &Output, error: &anyhow::Error) -> Exit {
    if error.downcast_ref().is_some_and(output::Unwritten::is_closed_pipe) {
        return Exit::Closed;
    }
    output.error(error);
    exit_of(error)
}

/// Refusals have a code of their own: repeating the command will not help.
fn exit_of(error: &anyhow::Error) -> Exit {
    use threebot::{BotError, log::NotLogged};
    if let Some(NotLogged::Refused(_) | NotLogged::Checkpoint(_) | NotLogged::OtherRecord) =
        error.downcast_ref()
    {
        return Exit::Rejected;
    }
    match error.downcast_ref::<BotError>() {
        Some(BotError::Plan(_) | BotError::Refused { .. } | BotError::NotAStakeholder { .. }) => {
            Exit::Rejected
        }
        Some(BotError::NotTheOwner { .. } | BotError::OtherFarm { .. }) => Exit::Rejected,
        Some(_) | None if error.is::<context::Usage>() => Exit::Usage,
        Some(_) | None => Exit::Error,
    }
}

async fn run(arguments: Arguments, output: &Output) -> anyhow::Result<Exit> {
    let Arguments { global, command } = arguments;
    let context = || Context::new(&global);
    match command {
        Command::Key(command) => key::run(&context()?, output, command).await,
        Command::Farm(command) => farm::run(&context()?, output, command).await,
        Command::Pool(command) => pool::run(&context()?, output, command).await,
        Command::Node(command) => node::run(&context()?, output, command).await,
        Command::Flist(command) => flist::run(&context, output, command).await,
        Command::Contract(command) => contract::run(&context()?, output, *command).await,
        Command::Log(command) => log::run(&context()?, output, command).await,
        Command::Config => {
            context()?.show(output);
            Ok(Exit::Done)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "3bot", &mut text);
            output.raw(&text);
            Ok(Exit::Done)
        }
        Command::Man { dir } => {
            let attempt = || format!("writing manual pages to {}", dir.display());
            std::fs::create_dir_all(&dir).with_context(attempt)?;
            clap_mangen::generate_to(Arguments::command(), &dir).with_context(attempt)?;
            output.say(format_args!("wrote the manual pages to {}", dir.display()));
            Ok(Exit::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    /// Pages of a registry end their line with it, so that a line that is only copied signs nothing.
    #[test]
    fn a_rejection_without_its_reason_is_refused() {
        let id = "00".repeat(32);
        let line = ["3bot", "contract", "reject", &id, "--reason"];
        assert!(Arguments::try_parse_from(line).is_err());
        assert!(Arguments::try_parse_from(line.iter().copied().chain(["too dear"])).is_ok());
    }

    #[test]
    fn every_command_explains_itself() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "{path}: {id} has no help");
            }
            command.get_subcommands().for_each(|command| walk(command, &path));
        }
        let mut command = Arguments::command();
        command.build();
        // `help` is clap's own.
        command.get_subcommands().filter(|one| one.get_name() != "help").for_each(|command| {
            walk(command, "3bot");
        });
    }
}
