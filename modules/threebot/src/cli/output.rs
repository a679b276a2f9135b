//! What the user sees. Text goes to stdout for people, JSON for programs; errors and progress go to
//! stderr, progress on a terminal only.
//!
//! Much of it was written by others: registries, nodes, other people. Whatever could steer a terminal
//! is spelled out here, for every line. An answer that cannot be written is an error of the command;
//! only a reader that has seen enough, as `head`, ends it without a word.

use serde::Serialize;
use std::{
    cell::RefCell,
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};
use threebot::{BotError, text};

/// An error may quote what others wrote; this much of it tells enough.
const ERROR_CHARS_MAX: usize = 2000;

/// An answer could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing to standard output")]
pub(crate) struct Unwritten(#[from] io::Error);

impl Unwritten {
    /// Whether the reader has gone away, which is no error of this command.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
    /// The first failure of stdout; nothing is written after it.
    failed: RefCell<Option<io::Error>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, failed: RefCell::new(None) }
    }

    /// A line for people; nothing in JSON mode.
    pub(crate) fn say(&self, line: impl fmt::Display) {
        self.line("", &text::clean(&line.to_string()), "");
    }

    /// A line for people that is good or bad news.
    pub(crate) fn say_in(&self, colour: Colour, line: impl fmt::Display) {
        if self.colour {
            let code = match colour {
                Colour::Green => 32,
                Colour::Red => 31,
                Colour::Yellow => 33,
            };
            let line = text::clean(&line.to_string());
            self.line(&format!("\x1b[{code}m"), &line, "\x1b[0m");
        } else {
            self.say(line);
        }
    }

    fn line(&self, before: &str, clean: &str, after: &str) {
        if !self.json {
            self.raw(format!("{before}{clean}{after}\n").as_bytes());
        }
    }

    /// The answer for programs; nothing for people.
    pub(crate) fn answer(&self, answer: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string(answer).unwrap_or_else(|error| {
                // Our answers are strings, numbers, lists and maps.
                format!("{{\"error\":\"writing the answer: {error}\"}}")
            });
            self.raw(format!("{}\n", text::clean_json(&text)).as_bytes());
        }
    }

    /// Columns for people, as wide as they need to be.
    pub(crate) fn table(&self, heads: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            self.say("none");
            return;
        }
        let rows: Vec<Vec<_>> =
            rows.iter().map(|row| row.iter().map(|cell| text::clean(cell)).collect()).collect();
        let width = |column: usize| {
            let cells =
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([heads[column].len()]).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..heads.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let heads: Vec<_> = heads.iter().map(|head| (*head).to_owned()).collect();
        self.say(line(&heads));
        for row in &rows {
            self.say(line(row));
        }
    }

    /// An error with its causes, on one line of stderr; in JSON mode as an object on stdout as well.
    /// What is wrong with a contract has a line for each problem.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let text = shortened(&threebot::error::chain(&**error));
        self.answer(&serde_json::json!({ "error": text }));
        match error.downcast_ref::<BotError>() {
            Some(BotError::Plan(refused)) => {
                self.note(format_args!("3bot: {error}:"));
                for problem in &refused.problems {
                    self.note(format_args!("  {}", shortened(problem)));
                }
            }
            Some(_) | None => self.note(format_args!("3bot: {text}")),
        }
    }

    /// A line on stderr, for people who watch.
    #[expect(clippy::unused_self, reason = "all that is shown goes through here")]
    pub(crate) fn note(&self, line: impl fmt::Display) {
        // A closed terminal is no reason to stop half way.
        drop(writeln!(io::stderr(), "{}", text::clean(&line.to_string())));
    }

    /// Bytes of our own, as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut failed = self.failed.borrow_mut();
        if failed.is_none() {
            let mut stdout = io::stdout().lock();
            *failed = stdout.write_all(bytes).and_then(|()| stdout.flush()).err();
        }
    }

    /// Fails when something could not be written. To be asked before what must not happen unseen,
    /// and at the end.
    pub(crate) fn written(&self) -> Result<(), Unwritten> {
        self.failed.take().map_or(Ok(()), |error| Err(Unwritten(error)))
    }

    /// Fails when what is written goes nowhere, so that a secret that is shown once would be lost.
    ///
    /// A standard output that was closed from the start cannot be told from the null device: the
    /// runtime puts that in its place.
    #[expect(clippy::unused_self, reason = "all that is shown goes through here")]
    pub(crate) fn reaches_somebody(&self) -> anyhow::Result<()> {
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?).metadata()?;
        let nowhere = fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == stdout.rdev());
        anyhow::ensure!(
            !nowhere,
            "standard output is closed or /dev/null: the secret, which is shown once, would be lost"
        );
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    let more = text.chars().count().saturating_sub(ERROR_CHARS_MAX);
    if more == 0 {
        return text.to_owned();
    }
    let start: String = text.chars().take(ERROR_CHARS_MAX).collect();
    format!("{start}… ({more} characters more)")
}

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Good, or added.
    Green,
    /// Bad, or removed.
    Red,
    /// Somebody may want to act.
    Yellow,
}
