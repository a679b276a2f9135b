//! Log lines of services and workloads: read from pipes, kept in rings of bounded size.
//!
//! A ring forgets its oldest lines. Nobody who writes to one of our pipes ever waits for a reader.

use rustix::io::Errno;
use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// What one service or workload may hold of PID 1's memory with its log.
const RING_SIZE: usize = 64 << 10;
/// What a line costs beside its text.
const LINE_OVERHEAD: usize = 32;
/// A longer line is cut into pieces.
const LINE_MAX: usize = 2048;
/// How much one pipe may say before the others have their turn.
const READS_MAX: usize = 8;

/// The newest lines.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    lines: VecDeque<Box<str>>,
    size: usize,
    dropped: u64,
}

impl Ring {
    /// Adds a line, and forgets old ones for it.
    pub(crate) fn push(&mut self, line: &str) {
        self.size += line.len() + LINE_OVERHEAD;
        self.lines.push_back(line.into());
        while self.size > RING_SIZE {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.size -= oldest.len() + LINE_OVERHEAD;
            self.dropped += 1;
        }
    }

    /// The newest lines, oldest first, and how many older ones are forgotten.
    pub(crate) fn tail(&self, lines_max: usize) -> (Vec<String>, u64) {
        let skipped = self.lines.len().saturating_sub(lines_max);
        (self.lines.iter().skip(skipped).map(ToString::to_string).collect(), self.dropped)
    }
}

/// Makes lines of bytes.
#[derive(Debug, Default)]
struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    fn feed(&mut self, mut bytes: &[u8], lines: &mut Vec<String>) {
        while !bytes.is_empty() {
            let room = LINE_MAX - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            let (taken, ends) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (window.len(), window.len() == room),
            };
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if ends {
                self.finish(lines);
            }
        }
    }

    /// Ends a line that has no newline.
    fn finish(&mut self, lines: &mut Vec<String>) {
        if !self.partial.is_empty() {
            let line = String::from_utf8_lossy(&self.partial);
            lines.push(line.trim_end_matches(['\n', '\r']).to_owned());
            self.partial.clear();
        }
    }
}

/// A pipe that somebody writes log lines to, and the ring that they end in.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pipe: Option<OwnedFd>,
    splitter: Splitter,
    pub(crate) ring: Ring,
}

impl Log {
    /// Reads from `pipe`, which is non-blocking, from now on. The ring stays.
    pub(crate) fn attach(&mut self, pipe: OwnedFd) {
        self.pipe = Some(pipe);
    }

    /// What to wait on.
    pub(crate) fn pipe(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    /// Takes what the pipe holds, within a bound, into the ring; returns the new lines.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..READS_MAX {
            let Some(pipe) = &self.pipe else { break };
            let mut bytes = [0; 8192];
            match rustix::io::read(pipe, &mut bytes) {
                Ok(0) => {
                    self.pipe = None;
                    self.splitter.finish(&mut lines);
                }
                Ok(n) => self.splitter.feed(&bytes[..n], &mut lines),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A pipe has no other errors; whatever it is, it would come again at once.
                Err(_) => self.pipe = None,
            }
        }
        lines
    }
}

/// Level and text of a line with a prefix as in sd-daemon(3); 6 (information) without one.
pub(crate) fn level(line: &str) -> (u8, &str) {
    match line.as_bytes() {
        [b'<', level @ b'0'..=b'7', b'>', ..] => (level - b'0', &line[3..]),
        _ => (6, line),
    }
}

/// Lets a burst of lines through, and then one for each [`Rate::INTERVAL`].
#[derive(Debug)]
pub(crate) struct Rate {
    allowance: u32,
    since: Option<Instant>,
    suppressed: u32,
}

impl Rate {
    const BURST: u32 = 10;
    const INTERVAL: Duration = Duration::from_secs(5);

    /// Nothing was said yet.
    pub(crate) fn new() -> Self {
        Self { allowance: Self::BURST, since: None, suppressed: 0 }
    }

    /// Whether a line may pass; if so, how many were left out before it.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u32> {
        let since = *self.since.get_or_insert(now);
        let earned = now.duration_since(since).as_secs() / Self::INTERVAL.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(Self::BURST);
            self.allowance = self.allowance.saturating_add(earned).min(Self::BURST);
            self.since = Some(now);
        }
        if self.allowance == 0 {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.allowance -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsFd};

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for piece in pieces {
            splitter.feed(piece, &mut lines);
        }
        splitter.finish(&mut lines);
        lines
    }

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        assert_eq!(split(&[b"a", b"b\nc\r\n", b"\n", b"d"]), ["ab", "c", "", "d"]);
        assert_eq!(split(&[b"\xff\n"]), ["\u{fffd}"]);
        assert!(split(&[]).is_empty());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let lines = split(&[&vec![b'x'; LINE_MAX * 2 + 1]]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, LINE_MAX, 1]);
    }

    #[test]
    fn a_ring_keeps_the_newest_lines_within_its_size() {
        let mut ring = Ring::default();
        for number in 0..10_000 {
            ring.push(&format!("line {number}"));
            assert!(ring.size <= RING_SIZE);
        }
        let (lines, dropped) = ring.tail(usize::MAX);
        assert_eq!(lines.last().unwrap(), "line 9999");
        assert_eq!(lines.len() as u64 + dropped, 10_000);
        assert_eq!(lines[0], format!("line {dropped}"));
        let (two, _) = ring.tail(2);
        assert_eq!(two, ["line 9998", "line 9999"]);
    }

    #[test]
    fn a_pipe_is_drained_without_waiting_and_left_at_its_end() {
        let flags = rustix::pipe::PipeFlags::NONBLOCK | rustix::pipe::PipeFlags::CLOEXEC;
        let (reader, writer) = rustix::pipe::pipe_with(flags).unwrap();
        let mut log = Log::default();
        log.attach(reader);
        assert!(log.drain().is_empty());
        let mut writer = std::fs::File::from(writer);
        writer.write_all(b"one\ntwo").unwrap();
        assert_eq!(log.drain(), ["one"]);
        assert!(rustix::io::fcntl_getfd(writer.as_fd()).is_ok_and(|_| log.pipe().is_some()));
        drop(writer);
        assert_eq!(log.drain(), ["two"]);
        assert!(log.pipe().is_none());
    }

    #[test]
    fn the_level_is_taken_from_the_prefix() {
        assert_eq!(level("<4>disk slow"), (4, "disk slow"));
        assert_eq!(level("plain"), (6, "plain"));
        for odd in ["<9>x", "<", "<4", "<a>x"] {
            assert_eq!(level(odd), (6, odd));
        }
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut rate = Rate::new();
        let passed = (0..100).filter(|_| rate.pass(start).is_some()).count();
        assert_eq!(passed, 10);
        assert_eq!(rate.pass(start + Rate::INTERVAL), Some(90));
        assert_eq!(rate.pass(start + Rate::INTERVAL), None);
    }
}
