//! Runs other programs and turns their failure into an error that says what was run.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Output};

/// More of a failed program's last words than this helps nobody.
const ERROR_LINES_MAX: usize = 40;

/// The cargo that runs this program, in the checkout.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    // What a test or the demo serves and asks on this machine goes through no proxy.
    for name in ["NO_PROXY", "no_proxy"] {
        let given = std::env::var(name).map(|hosts| hosts + ",").unwrap_or_default();
        command.env(name, given + "127.0.0.1,localhost");
    }
    command
}

/// Runs quietly and returns standard output; a failure carries the end of standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let bytes = output_bytes(command)?;
    String::from_utf8(bytes).with_context(|| format!("{} printed no UTF-8", words(command)))
}

/// The same, for what is not text.
pub fn output_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let result = capture(command)?;
    if !result.status.success() {
        bail!("{} failed with {}:\n{}", words(command), result.status, last_words(&result));
    }
    Ok(result.stdout)
}

/// Runs quietly; a failure carries the end of what the program said.
pub fn run(command: &mut Command) -> Result<()> {
    let result = capture(command)?;
    if !result.status.success() {
        bail!("{} failed with {}:\n{}", words(command), result.status, last_words(&result));
    }
    Ok(())
}

/// Runs with the terminal of the developer.
pub fn run_shown(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", words(command)))?;
    if !status.success() {
        bail!("{} failed with {status}", words(command));
    }
    Ok(())
}

/// Whether a program is on the path and succeeds with those arguments.
pub fn exists_with(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|result| result.status.success())
}

fn capture(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("starting {}", words(command)))
}

fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn last_words(result: &Output) -> String {
    let said = if result.stderr.is_empty() { &result.stdout } else { &result.stderr };
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(ERROR_LINES_MAX)..].join("\n")
}
