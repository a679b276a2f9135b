//! The commands of a page of documentation: its `sh` blocks, and a shell that runs them one after the
//! other, as a reader would who types them into one terminal.
//!
//! The word behind `sh` says what a block is for: none, `settings` (variables that a reader changes),
//! `background` (goes on in another terminal), `install` and `hardware` (not for a test). It refuses
//! any other word, so that no block is left out by a slip.

use crate::wait;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To be run.
    Run,
    /// Variables that depend on the reader's surroundings.
    Settings,
    /// To be run beside what follows.
    Background,
    /// Installs programs.
    Install,
    /// Needs a machine, a stick, a network.
    Hardware,
}

/// A block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it is for.
    pub purpose: Use,
    /// Number of its first line in the page.
    pub line: usize,
    /// The commands.
    pub text: String,
}

impl Block {
    /// Names of the variables that it sets at the beginning of a line.
    pub fn variables(&self) -> BTreeSet<&str> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_')
        };
        let names = self.text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        names.filter(|name| is_name(name)).collect()
    }
}

/// The `sh` blocks of a page, in their order.
pub fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut found: Vec<Block> = Vec::new();
    // The fence that is open: whether it is one of ours.
    let mut open: Option<bool> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (line.strip_prefix("```"), open) {
            (Some(_), Some(_)) => open = None,
            (Some(info), None) => {
                let mut words = info.split_ascii_whitespace();
                let is_shell = words.next() == Some("sh");
                if is_shell {
                    let word = words.collect::<Vec<_>>().join(" ");
                    let purpose = purpose(&word)
                        .with_context(|| format!("line {number}: no block is for {word:?}"))?;
                    found.push(Block { purpose, line: number + 1, text: String::new() });
                }
                open = Some(is_shell);
            }
            (None, Some(true)) => {
                if let Some(block) = found.last_mut() {
                    block.text += line;
                    block.text.push('\n');
                }
            }
            (None, Some(false) | None) => {}
        }
    }
    ensure!(open.is_none(), "a block of code does not end");
    Ok(found)
}

fn purpose(word: &str) -> Option<Use> {
    match word {
        "" => Some(Use::Run),
        "settings" => Some(Use::Settings),
        "background" => Some(Use::Background),
        "install" => Some(Use::Install),
        "hardware" => Some(Use::Hardware),
        _ => None,
    }
}

/// Files of this checkout that a page links to and that are not there.
pub fn dead_links(page: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let directory = page.parent().context("a page has a directory")?;
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or_default());
    Ok(files.filter(|file| !directory.join(file).exists()).map(str::to_owned).collect())
}

/// A terminal: variables, functions and the directory last from one block to the next.
#[derive(Debug)]
pub struct Terminal {
    directory: PathBuf,
    home: PathBuf,
    /// Variables of the environment, beside those of this process.
    pub environment: Vec<(String, String)>,
    background: Vec<Child>,
}

impl Terminal {
    /// Opens one that starts in `directory`, with a new home below `files`.
    pub fn open(files: &Path, directory: &Path) -> Result<Self> {
        let home = files.join("home");
        fs::create_dir_all(&home)?;
        Ok(Self {
            directory: directory.to_owned(),
            home,
            environment: Vec::new(),
            background: Vec::new(),
        })
    }

    /// The reader's home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs a block; gives its standard output. It must end with 0 within the limit.
    pub fn run(&self, block: &Block, limit: Duration) -> Result<String> {
        let state = self.state();
        let script = format!(
            "{}{}\n{{ declare -px; declare -f; }} >{state}\n",
            self.opening(),
            block.text,
            state = state.display()
        );
        let seconds = limit.as_secs().to_string();
        let output = self
            .shell("timeout")
            .args(["--kill-after=5", &seconds, "bash", "-c", &script])
            .output()
            .context("running bash")?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "the block at line {} ended with {}:\n{}\n{out}{}",
                block.line,
                output.status,
                block.text,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(out)
    }

    /// Starts a block that goes on beside the others until this terminal is closed, and waits until it
    /// has said `sign`.
    pub fn start(&mut self, block: &Block, sign: &str, limit: Duration) -> Result<()> {
        let said = self.home.join(format!("background-{}", block.line));
        // One program: it takes the place of the shell, so that it ends with it.
        let script = format!("{}exec {}", self.opening(), block.text.trim_start());
        let child = self
            .shell("bash")
            .args(["-c", &script])
            .stdout(fs::File::create(&said)?)
            .spawn()
            .context("running bash")?;
        self.background.push(child);
        wait::until(&format!("line {} says {sign:?}", block.line), limit, || {
            Ok(fs::read_to_string(&said)?.contains(sign).then_some(()))
        })
    }

    /// What bash does before each block.
    fn opening(&self) -> String {
        let state = self.state();
        let restore = if state.exists() {
            // The file sets PWD; the shell has to go there.
            format!("source {}\ncd \"$PWD\"\n", state.display())
        } else {
            String::new()
        };
        format!("set -euo pipefail\nset -a\n{restore}")
    }

    fn state(&self) -> PathBuf {
        self.home.join(".terminal")
    }

    fn shell(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory).stdin(Stdio::null());
        for name in ["ZOS_HOME", "ZOS_REGISTRY", "ZOS_NETWORK", "ZOS_KEY", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        command.env("HOME", &self.home).envs(self.environment.iter().cloned());
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for child in &mut self.background {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn block(text: &str) -> Block {
        Block { purpose: Use::Run, line: 1, text: text.to_owned() }
    }

    #[test]
    fn only_shell_blocks_are_found_with_their_purpose() {
        let page = "a\n```sh\none\ntwo\n```\n```text\nno\n```\n```sh hardware\ndd\n```\n";
        let found = blocks(page).unwrap();
        let run = Block { purpose: Use::Run, line: 3, text: "one\ntwo\n".into() };
        let dd = Block { purpose: Use::Hardware, line: 10, text: "dd\n".into() };
        assert_eq!(found, [run, dd]);
        assert!(blocks("```sh hardwear\ndd\n```\n").is_err());
        assert!(blocks("```sh\nnever ends\n").is_err());
    }

    #[test]
    fn the_variables_of_a_block_are_named() {
        let set = block("A=1  # one\nB_C=$A\nexport D=$A\nls --x=1\n");
        assert_eq!(set.variables().into_iter().collect::<Vec<_>>(), ["A", "B_C"]);
    }

    #[test]
    fn a_terminal_keeps_variables_functions_and_the_directory_and_stops_at_the_first_failure() {
        let files = tempfile::tempdir().unwrap();
        let terminal = Terminal::open(files.path(), files.path()).unwrap();
        let first = "A='b c'\nf() { echo \"f $1\"; }\nmkdir ~/d\ncd ~/d\n";
        terminal.run(&block(first), LIMIT).unwrap();
        let said = terminal.run(&block("f \"$A\"\nbasename \"$PWD\"\n"), LIMIT).unwrap();
        assert_eq!(said, "f b c\nd\n");
        assert!(terminal.run(&block("false | true\n"), LIMIT).is_err());
        assert!(terminal.run(&block("false\ntrue\n"), LIMIT).is_err());
        assert!(terminal.run(&block("echo $NOT_SET\n"), LIMIT).is_err());
    }
}
