//! Whether a container works: when it is asked, and what follows from what it answers. Pure.
//!
//! ```text
//! started ──► Starting ──good answer──► Healthy
//!                │                         │
//!                └──`retries` bad answers──┴──► Unhealthy: it is stopped and starts again
//!                    one after the other; before the first good one, those of the start period
//!                    do not count
//! ```
//!
//! Of what an HTTP server sends, [`STATUS_BYTES`] bytes are looked at, and nothing of it goes any
//! further but three digits. Of what a command says, the last [`SAID_MAX`] characters are told when it has
//! failed, so that its owner need not guess: visible ASCII, in quotes.

use contract::workload::{Health, Probe};
use node_api::launcher::{CheckEnd, CheckReply};
use std::{fmt, time::Duration};

/// As much of an answer as is read: `HTTP/1.1 200` and the byte behind.
pub const STATUS_BYTES: usize = 13;
/// A container that starts is asked this often, so that it need not be long until it is known to
/// work, unless the contract wants it more often.
const INTERVAL_OF_START: Duration = Duration::from_secs(2);
/// The same for one in which a command is executed, which costs more.
const INTERVAL_OF_START_BY_COMMAND: Duration = Duration::from_secs(5);
/// Characters of what a command has said that are told.
const SAID_MAX: usize = 200;

/// What is known about a container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No good answer since its start; so many bad ones that count.
    Starting(u32),
    /// It has given a good answer, and after it so many bad ones.
    Healthy(u32),
    /// Enough bad answers: it is to be started again.
    Unhealthy,
}

/// An answer that is not what the contract wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bad {
    /// Nobody listens, or the connection broke.
    Closed,
    /// Nothing, or not enough, in time.
    Late,
    /// Something else than HTTP.
    NotHttp,
    /// Another status.
    Status(u16),
    /// The command has not returned 0, as a clause.
    Command(String),
}

/// What follows from an answer to a question that was asked so long after the start.
pub fn next(health: &Health, state: State, up: Duration, answer: Result<(), &Bad>) -> State {
    let bad = |before: u32, more: fn(u32) -> State| match before.saturating_add(1) {
        bad if bad >= health.retries => State::Unhealthy,
        bad => more(bad),
    };
    match (state, answer) {
        (State::Starting(_) | State::Healthy(_), Ok(())) => State::Healthy(0),
        (State::Starting(_), Err(_)) if is_start(health, up) => state,
        (State::Starting(before), Err(_)) => bad(before, State::Starting),
        (State::Healthy(before), Err(_)) => bad(before, State::Healthy),
        (State::Unhealthy, Ok(()) | Err(_)) => state,
    }
}

/// The time until the next question to a container that runs for so long.
pub fn interval(health: &Health, state: State, up: Duration) -> Duration {
    let interval = Duration::from_secs(health.interval_s.into());
    match state {
        State::Starting(_) if is_start(health, up) => interval.min(match health.probe {
            Probe::Tcp { .. } | Probe::Http { .. } => INTERVAL_OF_START,
            Probe::Exec { .. } => INTERVAL_OF_START_BY_COMMAND,
        }),
        State::Starting(_) | State::Healthy(_) | State::Unhealthy => interval,
    }
}

fn is_start(health: &Health, up: Duration) -> bool {
    up < Duration::from_secs(health.start_period_s.into())
}

/// The request of an HTTP check; `host` is the address that is asked.
pub fn request(path: &str, host: impl fmt::Display) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: zero-os\r\nConnection: close\r\n\r\n"
    )
}

/// What the first [`STATUS_BYTES`] bytes of an answer say; more are not looked at.
pub fn judge_status(bytes: &[u8], status_min: u16, status_max: u16) -> Result<(), Bad> {
    match status(bytes) {
        None => Err(Bad::NotHttp),
        Some(status) if (status_min..=status_max).contains(&status) => Ok(()),
        Some(status) => Err(Bad::Status(status)),
    }
}

/// The status of `HTTP/1.x NNN`.
fn status(bytes: &[u8]) -> Option<u16> {
    let [minor, b' ', hundreds, tens, ones, end, ..] = bytes.strip_prefix(b"HTTP/1.")? else {
        return None;
    };
    let digits = [hundreds, tens, ones];
    let is_status = matches!(hundreds, b'1'..=b'5')
        && digits.iter().all(|digit| digit.is_ascii_digit())
        && minor.is_ascii_digit()
        && matches!(end, b' ' | b'\r' | b'\n');
    is_status.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0')))
}

/// What the end of a command means.
pub fn judge_command(reply: &CheckReply) -> Result<(), Bad> {
    let end = match reply.end {
        CheckEnd::Exited(0) => return Ok(()),
        CheckEnd::Exited(code) => format!("it returned {code}"),
        CheckEnd::Killed(signal) => format!("it was ended by signal {signal}"),
        CheckEnd::Late => "it was killed because its time was over".to_owned(),
        CheckEnd::Stuck => "the one before was killed and has not ended".to_owned(),
    };
    let said = shown(&reply.said);
    Err(Bad::Command(if said.is_empty() { end } else { format!("{end} and said \"{said}\"") }))
}

/// A command that the launcher could not execute, through no fault of the node.
pub fn not_executed(why: &str) -> Bad {
    Bad::Command(format!("it could not be executed: \"{}\"", shown(why)))
}

/// The end of a text of others, as a part of a sentence of ours: whatever it has, it closes no quotes,
/// begins no line and looks like what it is.
fn shown(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| {
            let seen = |c: char| if c.is_ascii_graphic() && c != '"' { c } else { '?' };
            word.chars().map(seen).collect()
        })
        .collect();
    let text = words.join(" ");
    // ASCII alone is left: a byte is a character.
    text.get(text.len().saturating_sub(SAID_MAX)..).unwrap_or_default().to_owned()
}

/// Why a container is started again, as a sentence.
pub fn fault(health: &Health, last: &Bad) -> String {
    let (place, wanted) = match &health.probe {
        Probe::Tcp { port } => (format!("at port {port}"), String::new()),
        Probe::Http { port, status_min, status_max, .. } => {
            (format!("at port {port}"), format!(", not {status_min} to {status_max}"))
        }
        Probe::Exec { command } => {
            (format!("by \"{}\"", shown(command.first().map_or("", String::as_str))), String::new())
        }
    };
    let last = match last {
        Bad::Closed => "no connection".to_owned(),
        Bad::Late => format!("nothing within {} s", health.timeout_s),
        Bad::NotHttp => "something else than HTTP/1".to_owned(),
        Bad::Status(status) => format!("status {status}{wanted}"),
        Bad::Command(clause) => clause.clone(),
    };
    let times = health.retries;
    format!("its health check failed {times} times in a row; the last {place}: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let probe = Probe::Http { port: 80, path: "/".into(), status_min: 200, status_max: 399 };
        Health { probe, interval_s: 10, timeout_s: 5, retries: 3, start_period_s: 30 }
    }

    /// Each row: seconds after the start, answer, and what is known then.
    fn check(rows: &[(u64, Result<(), Bad>, State)]) {
        let mut state = State::Starting(0);
        for (up, answer, wanted) in rows {
            state = next(&health(), state, Duration::from_secs(*up), answer.as_ref().copied());
            assert_eq!(state, *wanted, "after {up} s");
        }
    }

    #[test]
    fn bad_answers_count_in_a_row_and_a_good_one_forgives_them() {
        check(&[
            (1, Ok(()), State::Healthy(0)),
            (2, Err(Bad::Late), State::Healthy(1)),
            (3, Err(Bad::Closed), State::Healthy(2)),
            (4, Ok(()), State::Healthy(0)),
            (5, Err(Bad::Late), State::Healthy(1)),
            (6, Err(Bad::Status(500)), State::Healthy(2)),
            (7, Err(Bad::NotHttp), State::Unhealthy),
            (8, Ok(()), State::Unhealthy),
        ]);
    }

    #[test]
    fn a_start_may_take_its_time_and_no_more() {
        check(&[
            (2, Err(Bad::Closed), State::Starting(0)),
            (29, Err(Bad::Closed), State::Starting(0)),
            (30, Err(Bad::Closed), State::Starting(1)),
            (40, Err(Bad::Closed), State::Starting(2)),
            (50, Err(Bad::Closed), State::Unhealthy),
        ]);
        check(&[
            (2, Err(Bad::Closed), State::Starting(0)),
            (4, Ok(()), State::Healthy(0)),
            // It has started: from now on every bad answer counts.
            (6, Err(Bad::Closed), State::Healthy(1)),
        ]);
    }

    #[test]
    fn a_container_that_starts_is_asked_more_often() {
        let at = |state, up| interval(&health(), state, Duration::from_secs(up)).as_secs();
        assert_eq!(at(State::Starting(0), 0), 2);
        assert_eq!(at(State::Starting(0), 30), 10);
        assert_eq!(at(State::Healthy(0), 1), 10);
        let by_command =
            Health { probe: Probe::Exec { command: vec!["ready".to_owned()] }, ..health() };
        assert_eq!(interval(&by_command, State::Starting(0), Duration::ZERO).as_secs(), 5);
    }

    #[test]
    fn a_status_line_is_read_to_its_digits_and_no_further() {
        for (bytes, wanted) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Ok(())),
            (b"HTTP/1.0 399\r\n", Ok(())),
            (b"HTTP/1.1 204\n", Ok(())),
            (b"HTTP/1.1 404 Not Found", Err(Bad::Status(404))),
            (b"HTTP/1.1 199 ", Err(Bad::Status(199))),
            (b"HTTP/1.1 400 ", Err(Bad::Status(400))),
            (b"HTTP/1.1 2000", Err(Bad::NotHttp)),
            (b"HTTP/1.1 200", Err(Bad::NotHttp)),
            (b"HTTP/1.1 099 ", Err(Bad::NotHttp)),
            (b"HTTP/1.1 600 ", Err(Bad::NotHttp)),
            (b"HTTP/1.1 20x ", Err(Bad::NotHttp)),
            (b"HTTP/1.x 200 ", Err(Bad::NotHttp)),
            (b"HTTP/2.0 200 ", Err(Bad::NotHttp)),
            (b"SSH-2.0-OpenSSH", Err(Bad::NotHttp)),
            (b"", Err(Bad::NotHttp)),
        ] {
            assert_eq!(judge_status(bytes, 200, 399), wanted, "{}", bytes.escape_ascii());
            let first = &bytes[..bytes.len().min(STATUS_BYTES)];
            assert_eq!(judge_status(first, 200, 399), wanted, "{}", bytes.escape_ascii());
        }
    }

    fn reply(end: CheckEnd, said: &str) -> CheckReply {
        CheckReply { end, said: said.to_owned() }
    }

    #[test]
    fn a_command_that_returns_0_is_a_good_answer_whatever_it_says() {
        assert_eq!(judge_command(&reply(CheckEnd::Exited(0), "not ready")), Ok(()));
        for (end, said, clause) in [
            (CheckEnd::Exited(1), "", "it returned 1"),
            (CheckEnd::Exited(3), "no\ttable\n", "it returned 3 and said \"no table\""),
            (CheckEnd::Killed(11), "x", "it was ended by signal 11 and said \"x\""),
            (CheckEnd::Late, " \n", "it was killed because its time was over"),
            (CheckEnd::Stuck, "", "the one before was killed and has not ended"),
        ] {
            assert_eq!(judge_command(&reply(end, said)), Err(Bad::Command(clause.to_owned())));
        }
        let Bad::Command(clause) = not_executed("no such file\nor \"directory\"") else { panic!() };
        assert_eq!(clause, "it could not be executed: \"no such file or ?directory?\"");
    }

    /// The sentence is signed by the node: nobody else may write a part of it that looks like one of its own.
    #[test]
    fn what_a_command_says_stays_between_its_quotes() {
        let said = "ok\"; \u{1b}[31mall\u{202e} is well\r\n\0x\u{fffd}é";
        assert_eq!(shown(said), "ok?; [31mall? is well x??");
        let long = "a".repeat(SAID_MAX) + "end";
        assert_eq!(shown(&long).len(), SAID_MAX);
        assert!(shown(&long).ends_with("aend"));
        let exec = Probe::Exec { command: vec!["/bin/\"x\ny".to_owned(), "-q".to_owned()] };
        let health = Health { probe: exec, ..health() };
        assert_eq!(
            fault(&health, &Bad::Command("it returned 1".to_owned())),
            "its health check failed 3 times in a row; the last by \"/bin/?x y\": it returned 1"
        );
    }

    #[test]
    fn a_request_is_one_and_asks_for_the_end_of_the_connection() {
        let text = request("/a?b", "100.127.0.2:80");
        assert!(text.starts_with("GET /a?b HTTP/1.1\r\nHost: 100.127.0.2:80\r\n"), "{text}");
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
        assert_eq!(text.matches("\r\n\r\n").count(), 1);
    }
}
