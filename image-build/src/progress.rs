//! What the developer sees while a task runs: one line for each step, with a spinner on a terminal.
//!
//! Everything goes to standard error, so that `--json` output stays clean.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A step that is under way. Dropping it without [`Step::done`] leaves no line: the error tells.
#[derive(Debug)]
pub struct Step {
    bar: Option<ProgressBar>,
    what: String,
    started: Instant,
}

/// Begins a step that may take long enough to wonder about.
pub fn step(what: impl Into<String>) -> Step {
    let what = what.into();
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner().with_message(what.clone());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    if bar.is_none() {
        say(&format!("{what} ..."));
    }
    Step { bar, what, started: Instant::now() }
}

impl Step {
    /// Ends the step; `note` is what came out of it, possibly empty.
    pub fn done(self, note: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let colon = if note.is_empty() { "" } else { ": " };
        say(&format!("{}{colon}{note} ({seconds:.1} s)", self.what));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints one line for the developer.
pub fn say(line: &str) {
    // A closed standard error must not fail the build: the outputs matter, not the talk.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Prints a result on standard output.
pub fn print(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

/// A size as people read it.
pub fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000) / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}
