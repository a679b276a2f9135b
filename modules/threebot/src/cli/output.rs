//! What the user sees. Text goes to stdout for people, JSON for programs; errors and progress go to
//! stderr, progress on a terminal only.

use serde::Serialize;
use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
};

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour }
    }

    /// A line for people; nothing in JSON mode.
    pub(crate) fn say(&self, line: impl fmt::Display) {
        if !self.json {
            self.raw(format!("{line}\n").as_bytes());
        }
    }

    /// A line for people that is good or bad news.
    pub(crate) fn say_in(&self, colour: Colour, line: impl fmt::Display) {
        if self.colour {
            let code = match colour {
                Colour::Green => 32,
                Colour::Red => 31,
                Colour::Yellow => 33,
            };
            self.say(format_args!("\x1b[{code}m{line}\x1b[0m"));
        } else {
            self.say(line);
        }
    }

    /// The answer for programs; nothing for people.
    pub(crate) fn answer(&self, answer: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string(answer).unwrap_or_else(|error| {
                // Our answers are strings, numbers, lists and maps.
                format!("{{\"error\":\"writing the answer: {error}\"}}")
            });
            self.raw(format!("{text}\n").as_bytes());
        }
    }

    /// Columns for people, as wide as they need to be.
    pub(crate) fn table(&self, heads: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            self.say("none");
            return;
        }
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
        for row in rows {
            self.say(line(row));
        }
    }

    /// An error with its causes, on one line of stderr; in JSON mode as an object on stdout as well.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let text = threebot::error::chain(&**error);
        self.answer(&serde_json::json!({ "error": text }));
        self.note(format_args!("3bot: {text}"));
    }

    /// A line on stderr, for people who watch.
    #[expect(clippy::unused_self, reason = "all that is shown goes through here")]
    pub(crate) fn note(&self, line: impl fmt::Display) {
        // A closed terminal is no reason to stop half way.
        drop(writeln!(io::stderr(), "{line}"));
    }

    #[expect(clippy::unused_self, reason = "all that is shown goes through here")]
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        // A reader that has seen enough, as `head`, is no error.
        drop(stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }
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
