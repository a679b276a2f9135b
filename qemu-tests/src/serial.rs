//! The serial console of a machine: every line is kept, can be waited for, and is judged.
//!
//! A run fails when the console shows a panic, an oops, or an error of btrfs or fs-verity that the
//! test did not ask for: [`Serial::problems`].

use anyhow::{Result, bail};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Longest line that is kept whole, in bytes.
const LINE_MAX: u64 = 8192;

/// What must not be seen on a console, in lower case.
const PROBLEMS: [&str; 14] = [
    "kernel panic",
    "oops:",
    "bug:",
    "call trace:",
    "general protection fault",
    "unable to handle",
    "rcu: info",
    "soft lockup",
    "btrfs error",
    "btrfs critical",
    "file corrupted",
    "fs-verity error",
    "out of memory: killed",
    "panicked at",
];

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// The lines of one console. Copies show the same lines.
#[derive(Clone, Default)]
pub struct Serial(Arc<(Mutex<Lines>, Condvar)>);

impl std::fmt::Debug for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Serial({} lines)", self.lines().len())
    }
}

impl Serial {
    /// Keeps everything that comes from `source`, and writes it to the file `log` too.
    pub fn record(source: impl Read + Send + 'static, log: &Path) -> Result<Self> {
        let serial = Self::default();
        let mut log = File::create(log)?;
        let keep = serial.clone();
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            loop {
                let mut line = Vec::new();
                let got = source.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
                if !matches!(got, Ok(1..)) {
                    break;
                }
                // A log that cannot be written is missed later, and fails nothing now.
                drop(log.write_all(&line));
                keep.push(clean(&line));
            }
            keep.end();
        });
        Ok(serial)
    }

    fn push(&self, line: String) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
        self.0.1.notify_all();
    }

    fn end(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.0.1.notify_all();
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// Waits for a line that contains `text`, from line number `from` on. Gives its number and it.
    pub fn wait_from(&self, from: usize, text: &str, limit: Duration) -> Result<(usize, String)> {
        let deadline = Instant::now() + limit;
        let mut seen = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found =
                seen.lines.iter().enumerate().skip(from).find(|(_, line)| line.contains(text));
            if let Some((number, line)) = found {
                return Ok((number, line.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || seen.ended {
                let why = if seen.ended { "the machine has ended" } else { "time is up" };
                let tail = seen.lines.iter().rev().take(30).rev().cloned().collect::<Vec<_>>();
                bail!(
                    "waiting for {text:?} on the console: {why}; it ends with\n{}",
                    tail.join("\n")
                );
            }
            seen = self.0.1.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a line that contains `text`.
    pub fn wait(&self, text: &str, limit: Duration) -> Result<String> {
        self.wait_from(0, text, limit).map(|(_, line)| line)
    }

    /// Lets the machine run for so long, or until it ends.
    pub fn idle(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut seen = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || seen.ended {
                return;
            }
            seen = self.0.1.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines that must not be there, but for those that contain one of `expected`.
    pub fn problems(&self, expected: &[&str]) -> Vec<String> {
        let bad = |line: &String| {
            let lower = line.to_lowercase();
            PROBLEMS.iter().any(|problem| lower.contains(problem))
                && !expected.iter().any(|text| line.contains(text))
        };
        self.lines().into_iter().filter(bad).collect()
    }
}

/// Text of a line without its end and without terminal control.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::with_capacity(text.len());
    let mut escape = false;
    for c in text.trim_end().chars() {
        match c {
            '\u{1b}' => escape = true,
            _ if escape => escape = !c.is_ascii_alphabetic(),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(text: &'static str) -> Serial {
        let log = tempfile::NamedTempFile::new().unwrap();
        let serial = Serial::record(text.as_bytes(), log.path()).unwrap();
        drop(serial.wait("no such line", Duration::from_secs(5)));
        serial
    }

    #[test]
    fn bad_lines_are_found_and_expected_ones_forgiven() {
        let serial = serial("fine\n[ 1.0] BTRFS error (device vda): x\n[ 2.0] Oops: 0000\n");
        assert_eq!(serial.problems(&[]).len(), 2);
        assert_eq!(serial.problems(&["device vda"]), ["[ 2.0] Oops: 0000"]);
    }

    #[test]
    fn a_line_is_waited_for_and_control_sequences_are_removed() {
        let serial = serial("one\r\n\u{1b}[1;32mtwo\u{1b}[0m three\r\n");
        assert_eq!(serial.wait("two three", Duration::from_secs(1)).unwrap(), "two three");
        assert!(serial.wait_from(1, "one", Duration::from_secs(1)).is_err());
    }
}
