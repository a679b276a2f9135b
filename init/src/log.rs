//! Log lines of services and workloads: read from pipes, kept in rings of bounded size.
//!
//! A ring forgets its oldest lines. A pipe that brings more than its [`Budget`] is still read, so that
//! nobody who writes to it waits for somebody who reads the lines; but what is over is counted and
//! dropped without a look at its lines. Only its end is kept: that is where a reason is.
//!
//! Every line has a number, also those that are dropped or forgotten, so that a reader who comes again
//! knows where it was and what it has missed.

use node_api::init::{Line, LogReply};
use rustix::io::Errno;
use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    os::fd::OwnedFd,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What one service or workload may hold of PID 1's memory with its log.
const RING_SIZE: usize = 64 << 10;
/// What a line costs beside its text: its entry, and what the allocator adds to its text and keeps
/// free beside the entries.
const LINE_OVERHEAD: usize = size_of::<Line>() + 32;
/// A longer line is cut into pieces.
const LINE_MAX: usize = 2048;
/// How much one pipe may say before the others have their turn: this many times as much as
const READS_MAX: usize = 4;
/// one read takes. Together they take all that a pipe holds.
const READ_SIZE: usize = 16 << 10;
/// A log may fill its ring once in this time. More would only push out what just came, and PID 1's
/// time is nobody's share.
const BUDGET_INTERVAL: Duration = Duration::from_secs(1);
/// How much is kept of the end of what was dropped.
const END_MAX: usize = 2048;

/// One line, or what is said of lines that were dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    /// Lines that this one stands for; 0 for a line that was written.
    pub(crate) n_dropped: u64,
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self { text, n_dropped: 0 }
    }
}

/// The newest lines.
#[derive(Debug)]
pub(crate) struct Ring {
    lines: VecDeque<Line>,
    size: usize,
    /// Tells this ring from every other of the same name.
    life: u64,
    /// Number of the newest line; 0 before the first.
    pub(crate) last: u64,
}

impl Default for Ring {
    fn default() -> Self {
        // The standard library seeds it from the kernel's randomness.
        let life = RandomState::new().build_hasher().finish();
        Self { lines: VecDeque::new(), size: 0, life, last: 0 }
    }
}

impl Ring {
    /// Adds a line of this moment, and forgets old ones for it.
    pub(crate) fn push(&mut self, said: impl Into<Said>) {
        let Said { text, n_dropped } = said.into();
        self.last += n_dropped.max(1);
        self.size += text.len() + LINE_OVERHEAD;
        self.lines.push_back(Line { number: self.last, time_ms: unix_ms(), n_dropped, text });
        while self.size > RING_SIZE {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.size -= oldest.text.len() + LINE_OVERHEAD;
        }
    }

    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// Lines oldest first, at most `lines_max`: the first ones behind number `after`, or without
    /// it the newest.
    pub(crate) fn read(&self, after: Option<u64>, lines_max: usize) -> LogReply {
        let begin = match after {
            Some(after) => self.lines.partition_point(|line| line.number <= after),
            None => self.lines.len().saturating_sub(lines_max),
        };
        let forgotten = self.lines.front().map_or(self.last, |oldest| oldest.first() - 1);
        LogReply {
            life: self.life,
            last: self.last,
            lines: self.lines.iter().skip(begin).take(lines_max).cloned().collect(),
            dropped: forgotten.saturating_sub(after.unwrap_or(0)),
        }
    }
}

/// Milliseconds since 1970, as far as the clock is right yet.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a log may still add in this interval, in the measure of [`RING_SIZE`].
#[derive(Debug, Default)]
struct Budget {
    spent: usize,
    since: Option<Instant>,
}

impl Budget {
    /// Gives all of it again, when its time is over.
    fn renew(&mut self, now: Instant) {
        let is_over = |since| now.saturating_duration_since(since) >= BUDGET_INTERVAL;
        if self.since.is_none_or(is_over) {
            *self = Self { spent: 0, since: Some(now) };
        }
    }

    fn spend(&mut self, line: &str) {
        self.spent += line.len() + LINE_OVERHEAD;
    }

    fn is_spent(&self) -> bool {
        self.spent >= RING_SIZE
    }
}

/// What was over the budget.
#[derive(Debug, Default)]
struct Excess {
    n_bytes: usize,
    n_lines: usize,
    /// The newest of the bytes.
    end: Vec<u8>,
}

impl Excess {
    fn add(&mut self, bytes: &[u8]) {
        self.n_bytes += bytes.len();
        self.n_lines += count_lines(bytes);
        let end = &bytes[bytes.len().saturating_sub(END_MAX)..];
        let forgotten = (self.end.len() + end.len()).saturating_sub(END_MAX);
        self.end.drain(..forgotten);
        self.end.extend_from_slice(end);
    }

    /// How many lines are lost, as a sentence for the log, and what is left: the end, from the
    /// beginning of a line where there is one.
    fn settle(mut self) -> (Option<Said>, Vec<u8>) {
        if self.n_bytes == self.end.len() {
            return (None, self.end);
        }
        // The first line may have lost its beginning; one that fills the whole end is shown as it is.
        let start = self.end.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.end.drain(..start);
        let n_lines = self.n_lines - count_lines(&self.end);
        let n_bytes = self.n_bytes - self.end.len();
        let text = format!("[{n_lines} lines dropped, {n_bytes} bytes: too many at once]");
        // What is no line as a whole is told of too.
        (Some(Said { text, n_dropped: n_lines.max(1) as u64 }), self.end)
    }
}

#[expect(clippy::naive_bytecount, reason = "a pipe holds 64 KiB: faster is not worth a crate")]
fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Makes lines of bytes.
#[derive(Debug, Default)]
struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Adds the lines of `bytes`, and returns what is over the budget.
    fn feed<'a>(
        &mut self,
        mut bytes: &'a [u8],
        lines: &mut Vec<Said>,
        budget: &mut Budget,
    ) -> &'a [u8] {
        while !bytes.is_empty() && !budget.is_spent() {
            let room = LINE_MAX - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            let (taken, ends) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (window.len(), window.len() == room),
            };
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if ends && let Some(line) = self.finish() {
                budget.spend(&line);
                lines.push(line.into());
            }
        }
        bytes
    }

    /// Ends a line that has no newline.
    fn finish(&mut self) -> Option<String> {
        let partial = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&partial);
        (!partial.is_empty()).then(|| line.trim_end_matches(['\n', '\r']).to_owned())
    }
}

/// A pipe that somebody writes log lines to, and the ring that they end in.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pipe: Option<OwnedFd>,
    splitter: Splitter,
    budget: Budget,
    excess: Excess,
    pub(crate) ring: Ring,
}

impl Log {
    /// Reads from `pipe`, which is non-blocking, from now on. The ring stays. Somebody may still have
    /// the other end of the former pipe: what was read of it ends here.
    pub(crate) fn attach(&mut self, pipe: OwnedFd) {
        self.close();
        self.pipe = Some(pipe);
    }

    /// Reads no more: what was read is all there is.
    pub(crate) fn close(&mut self) {
        let mut lines = Vec::new();
        self.end(&mut lines);
        for line in lines {
            self.ring.push(line);
        }
    }

    /// What it costs, in the measure of [`RING_SIZE`].
    pub(crate) fn size(&self) -> usize {
        self.ring.size + self.splitter.partial.capacity() + self.excess.end.capacity()
    }

    /// What to wait on.
    pub(crate) fn pipe(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    /// Takes what the pipe holds, within a bound; returns the new lines, within the budget.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<Said> {
        let mut lines = Vec::new();
        self.budget.renew(now);
        self.settle(&mut lines);
        let mut bytes = [0; READ_SIZE];
        for _ in 0..READS_MAX {
            let Some(pipe) = &self.pipe else { break };
            match rustix::io::read(pipe, &mut bytes) {
                Ok(0) => self.end(&mut lines),
                Ok(n) => {
                    let over = self.splitter.feed(&bytes[..n], &mut lines, &mut self.budget);
                    self.excess.add(over);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A pipe has no other errors; whatever it is, it would come again at once.
                Err(_) => self.pipe = None,
            }
        }
        lines
    }

    /// The same, with the new lines in the ring as they are.
    pub(crate) fn keep(&mut self, now: Instant) {
        for line in self.drain(now) {
            self.ring.push(line);
        }
    }

    /// Says what was dropped, once that is in the budget.
    fn settle(&mut self, lines: &mut Vec<Said>) {
        if self.excess.n_bytes == 0 || self.budget.is_spent() {
            return;
        }
        let (mark, end) = std::mem::take(&mut self.excess).settle();
        lines.extend(mark);
        let over = self.splitter.feed(&end, lines, &mut self.budget);
        self.excess.add(over);
    }

    /// Nobody has the other end any more: the last words come whatever the budget says, once. They
    /// are what is kept of the end of what was dropped, and of no more lines than it has bytes.
    fn end(&mut self, lines: &mut Vec<Said>) {
        self.pipe = None;
        while self.excess.n_bytes > 0 {
            self.budget = Budget::default();
            self.settle(lines);
        }
        lines.extend(self.splitter.finish().map(Said::from));
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
            assert!(splitter.feed(piece, &mut lines, &mut Budget::default()).is_empty());
        }
        lines.extend(splitter.finish().map(Said::from));
        texts(lines)
    }

    fn texts(lines: Vec<Said>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    /// A log, and the end that somebody writes to.
    fn log() -> (Log, std::fs::File) {
        let flags = rustix::pipe::PipeFlags::NONBLOCK | rustix::pipe::PipeFlags::CLOEXEC;
        let (reader, writer) = rustix::pipe::pipe_with(flags).unwrap();
        let mut log = Log::default();
        log.attach(reader);
        (log, writer.into())
    }

    fn cost(lines: &[String]) -> usize {
        lines.iter().map(|line| line.len() + LINE_OVERHEAD).sum()
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
            ring.push(format!("line {number}"));
            assert!(ring.size <= RING_SIZE);
        }
        let LogReply { lines, dropped, last, life } = ring.read(None, usize::MAX);
        assert_eq!((lines.last().unwrap().text.as_str(), last), ("line 9999", 10_000));
        assert_eq!(lines.len() as u64 + dropped, 10_000);
        assert_eq!(lines[0].text, format!("line {dropped}"));
        assert_eq!(lines[0].number, dropped + 1);
        let two = ring.read(None, 2).lines;
        assert_eq!(two.iter().map(|line| line.number).collect::<Vec<_>>(), [9_999, 10_000]);
        assert_ne!(life, Ring::default().life);
    }

    #[test]
    fn a_reader_goes_on_where_it_was_and_hears_what_it_missed() {
        let mut ring = Ring::default();
        let none = ring.read(Some(0), 10);
        assert!(none.lines.is_empty() && none.dropped == 0 && none.last == 0);
        for number in 1..=5 {
            ring.push(number.to_string());
        }
        ring.push(Said { text: "[90 lines dropped]".into(), n_dropped: 90 });
        ring.push("96".to_owned());
        let check = |after, lines_max, want: &[u64]| {
            let reply = ring.read(Some(after), lines_max);
            assert_eq!(reply.lines.iter().map(|line| line.number).collect::<Vec<_>>(), want);
            assert_eq!(reply.dropped, 0);
        };
        check(0, 3, &[1, 2, 3]);
        check(3, 3, &[4, 5, 95]);
        check(95, 3, &[96]);
        check(96, 3, &[]);
        check(1000, 3, &[]);
        // The mark takes the numbers of the lines that it stands for.
        assert_eq!(ring.read(Some(5), 1).lines[0].first(), 6);
        for _ in 0..100 {
            ring.push("x".repeat(LINE_MAX));
        }
        let reply = ring.read(Some(50), 1);
        assert_eq!(reply.lines[0].number, 50 + reply.dropped + 1);
    }

    #[test]
    fn a_pipe_is_drained_without_waiting_and_left_at_its_end() {
        let now = Instant::now();
        let (mut log, mut writer) = log();
        assert!(log.drain(now).is_empty());
        writer.write_all(b"one\ntwo").unwrap();
        assert_eq!(texts(log.drain(now)), ["one"]);
        assert!(rustix::io::fcntl_getfd(writer.as_fd()).is_ok_and(|_| log.pipe().is_some()));
        drop(writer);
        assert_eq!(texts(log.drain(now)), ["two"]);
        assert!(log.pipe().is_none());
    }

    /// A container wrote nothing but short lines, and PID 1 had no time for anything else.
    #[test]
    fn a_flood_of_lines_makes_no_more_of_them_than_a_ring_holds_in_a_second() {
        let start = Instant::now();
        let (mut log, mut writer) = log();
        let line = b"a line.\n";
        let flood = line.repeat(4 << 10);
        let mut lines = Vec::new();
        for _ in 0..100 {
            writer.write_all(&flood).unwrap();
            lines.extend(texts(log.drain(start)));
        }
        assert!((RING_SIZE..RING_SIZE + LINE_MAX + LINE_OVERHEAD).contains(&cost(&lines)));
        assert!(lines.iter().all(|line| line == "a line."), "{lines:?}");

        // The next second begins with the count, and the end of what was dropped.
        let (kept, held) = (lines.len(), END_MAX / line.len() - 1);
        writer.write_all(b"the reason\n").unwrap();
        let next = texts(log.drain(start + BUDGET_INTERVAL));
        let dropped = 100 * (4 << 10) - kept - held;
        let bytes = 100 * flood.len() - line.len() * (kept + held);
        assert_eq!(next[0], format!("[{dropped} lines dropped, {bytes} bytes: too many at once]"));
        assert_eq!(next.len(), 1 + held + 1);
        assert_eq!(next.last().unwrap(), "the reason");
    }

    #[test]
    fn lines_within_the_budget_are_all_kept_without_a_mark() {
        let start = Instant::now();
        let (mut log, mut writer) = log();
        let text = "x".repeat(100) + "\n";
        for second in 0..10 {
            for _ in 0..350 {
                writer.write_all(text.as_bytes()).unwrap();
            }
            let lines = texts(log.drain(start + BUDGET_INTERVAL * second));
            assert_eq!(lines.len(), 350);
            assert!(lines.iter().all(|line| line.len() == 100));
        }
    }

    #[test]
    fn the_last_words_of_a_flood_are_heard_when_the_pipe_ends() {
        let now = Instant::now();
        let (mut log, mut writer) = log();
        for _ in 0..10 {
            writer.write_all(&b"a\n".repeat(16 << 10)).unwrap();
            log.drain(now);
        }
        writer.write_all(b"out of memory\nbye").unwrap();
        assert!(log.drain(now).is_empty());
        drop(writer);
        let lines = texts(log.drain(now));
        assert!(lines[0].ends_with("too many at once]"), "{}", lines[0]);
        assert_eq!(lines[lines.len() - 2..], ["out of memory", "bye"]);
        assert!(cost(&lines) < RING_SIZE * 2);
        assert!(texts(log.drain(now + BUDGET_INTERVAL)).is_empty(), "said once");
    }

    /// Its next process must not go on with half a line of this one.
    #[test]
    fn what_a_closed_log_has_read_is_in_its_ring() {
        let now = Instant::now();
        let (mut log, mut writer) = log();
        writer.write_all(b"half a").unwrap();
        log.keep(now);
        log.close();
        assert_eq!(log.ring.read(None, 10).lines[0].text, "half a");
        let (mut log, mut writer) = self::log();
        writer.write_all(&b"\n".repeat(4 * RING_SIZE / LINE_OVERHEAD)).unwrap();
        writer.write_all(b"half a").unwrap();
        log.keep(now);
        log.close();
        let lines = log.ring.read(None, usize::MAX).lines;
        assert_eq!(lines.last().unwrap().text, "half a");
        assert_eq!(log.size(), log.ring.size, "nothing is left beside the ring");
        let n_lines = (4 * RING_SIZE / LINE_OVERHEAD + 1) as u64;
        assert_eq!(log.ring.last, n_lines, "all have numbers");
    }

    /// A process that a container left behind kept the pipe open, and the first line of the next run
    /// had half a line of the former one before it.
    #[test]
    fn another_pipe_begins_with_another_line() {
        let now = Instant::now();
        let (mut log, mut writer) = log();
        let (mut next, mut next_writer) = self::log();
        writer.write_all(b"half a").unwrap();
        log.keep(now);
        log.attach(next.pipe.take().unwrap());
        next_writer.write_all(b"whole\n").unwrap();
        log.keep(now);
        let lines = log.ring.read(None, 10).lines;
        assert_eq!(lines.iter().map(|line| &*line.text).collect::<Vec<_>>(), ["half a", "whole"]);
        drop(writer);
    }

    #[test]
    fn a_little_over_the_budget_is_only_late() {
        let start = Instant::now();
        let (mut log, mut writer) = log();
        let fill = b"\n".repeat(RING_SIZE.div_ceil(LINE_OVERHEAD));
        writer.write_all(&fill).unwrap();
        writer.write_all(b"one\ntwo").unwrap();
        assert_eq!(texts(log.drain(start)).len(), fill.len());
        writer.write_all(b" and more\n").unwrap();
        assert!(texts(log.drain(start)).is_empty());
        assert_eq!(texts(log.drain(start + BUDGET_INTERVAL)), ["one", "two and more"]);
    }

    #[test]
    fn a_flood_without_lines_is_dropped_too() {
        let start = Instant::now();
        let (mut log, mut writer) = log();
        let mut lines = Vec::new();
        for _ in 0..10 {
            writer.write_all(&vec![b'x'; 60 << 10]).unwrap();
            lines.extend(texts(log.drain(start)));
        }
        assert!(cost(&lines) < RING_SIZE + LINE_MAX + LINE_OVERHEAD);
        let next = log.drain(start + BUDGET_INTERVAL);
        assert!(next[0].text.starts_with("[0 lines dropped, "), "{}", next[0].text);
        assert_eq!(next[0].n_dropped, 1, "it is a mark");
        assert_eq!(next[1].text, "x".repeat(END_MAX));
    }

    #[test]
    fn one_turn_takes_no_more_than_a_pipe_holds() {
        let now = Instant::now();
        let (mut log, mut writer) = log();
        let reader = log.pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(reader, 4 * READS_MAX * READ_SIZE).unwrap();
        writer.write_all(&vec![b'x'; 3 * READS_MAX * READ_SIZE]).unwrap();
        log.drain(now);
        let left = rustix::io::ioctl_fionread(log.pipe().unwrap()).unwrap();
        assert_eq!(usize::try_from(left).unwrap(), 2 * READS_MAX * READ_SIZE);
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
