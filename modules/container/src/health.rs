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
//! further but three digits.

use contract::workload::{Health, Probe};
use std::{fmt, time::Duration};

/// As much of an answer as is read: `HTTP/1.1 200` and the byte behind.
pub const STATUS_BYTES: usize = 13;
/// A container that starts is asked this often, so that it need not be long until it is known to
/// work, unless the contract wants it more often.
const INTERVAL_OF_START: Duration = Duration::from_secs(2);

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Nobody listens, or the connection broke.
    Closed,
    /// Nothing, or not enough, in time.
    Late,
    /// Something else than HTTP.
    NotHttp,
    /// Another status.
    Status(u16),
}

/// What follows from an answer to a question that was asked so long after the start.
pub fn next(health: &Health, state: State, up: Duration, answer: Result<(), Bad>) -> State {
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
        State::Starting(_) if is_start(health, up) => interval.min(INTERVAL_OF_START),
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

/// Why a container is started again, as a sentence.
pub fn fault(health: &Health, last: Bad) -> String {
    let (port, wanted) = match &health.probe {
        Probe::Tcp { port } => (port, String::new()),
        Probe::Http { port, status_min, status_max, .. } => {
            (port, format!(", not {status_min} to {status_max}"))
        }
    };
    let last = match last {
        Bad::Closed => "no connection".to_owned(),
        Bad::Late => format!("nothing within {} s", health.timeout_s),
        Bad::NotHttp => "something else than HTTP/1".to_owned(),
        Bad::Status(status) => format!("status {status}{wanted}"),
    };
    let times = health.retries;
    format!("its health check failed {times} times in a row; the last at port {port}: {last}")
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
            state = next(&health(), state, Duration::from_secs(*up), *answer);
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

    #[test]
    fn a_request_is_one_and_asks_for_the_end_of_the_connection() {
        let text = request("/a?b", "100.127.0.2:80");
        assert!(text.starts_with("GET /a?b HTTP/1.1\r\nHost: 100.127.0.2:80\r\n"), "{text}");
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
        assert_eq!(text.matches("\r\n\r\n").count(), 1);
    }
}
