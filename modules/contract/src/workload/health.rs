//! Health checks: what a node asks a container, how often, and when that is enough.
//!
//! Refuses a command that is not one of bounded words, and one that would be executed too often.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Bounds of the time between two questions in seconds: a node asks many containers.
const INTERVAL_S: core::ops::RangeInclusive<u32> = 2..=3600;
/// Least time between two commands in seconds: each is a process that the node sets up.
const INTERVAL_S_OF_COMMANDS: u32 = 5;
/// Longest wait for an answer in seconds.
const TIMEOUT_S_MAX: u32 = 60;
/// Most questions without a good answer, one after the other.
const RETRIES_MAX: u32 = 100;
/// Longest start in seconds.
const START_PERIOD_S_MAX: u32 = 3600;
/// Longest path of a question in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// Most words of a command, and most bytes of all of them.
const WORDS_MAX: usize = 64;
const WORDS_BYTES_MAX: usize = 4096;

/// How a node finds out whether a container works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What it is asked.
    pub probe: Probe,
    /// Seconds between two questions.
    pub interval_s: u32,
    /// Seconds until no answer is a bad one.
    pub timeout_s: u32,
    /// After so many bad answers, one after the other, it is stopped and started again.
    pub retries: u32,
    /// Seconds after the start in which bad answers do not count before the first good one.
    pub start_period_s: u32,
}

/// A question to a container: from the node at the container's own address, or by a process inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    /// A TCP connection.
    Tcp {
        /// Port in the container.
        port: u16,
    },
    /// A GET request by HTTP/1.1, without TLS. No redirect is followed.
    Http {
        /// Port in the container.
        port: u16,
        /// Path and query.
        path: String,
        /// The lowest status that is a good answer.
        status_min: u16,
        /// The highest.
        status_max: u16,
    },
    /// A program of the flist, executed in the container with what its own program has. It is a good
    /// answer when it returns 0.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
}

impl Health {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if !INTERVAL_S.contains(&self.interval_s) {
            return Err("a health check is made every 2 to 3600 seconds");
        }
        if !(1..=TIMEOUT_S_MAX.min(self.interval_s)).contains(&self.timeout_s) {
            return Err("a health check waits 1 to 60 seconds, and not longer than its interval");
        }
        if !(1..=RETRIES_MAX).contains(&self.retries) || self.start_period_s > START_PERIOD_S_MAX {
            return Err("a health check has 1 to 100 retries and a start of at most an hour");
        }
        match &self.probe {
            Probe::Tcp { port: 0 } | Probe::Http { port: 0, .. } => {
                Err("a health check has a port, numbered from 1")
            }
            // It becomes a line of a request: what could begin another one has no place in it.
            Probe::Http { path, .. }
                if path.len() > PATH_BYTES_MAX
                    || !path.starts_with('/')
                    || !path.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Err("the path of a health check begins with / and has at most 1024 visible ASCII \
                     characters")
            }
            Probe::Http { status_min, status_max, .. }
                if !(100 <= *status_min && status_min <= status_max && *status_max <= 599) =>
            {
                Err("a health check expects a range of statuses from 100 to 599")
            }
            Probe::Exec { command } => check_command(command, self.interval_s),
            Probe::Tcp { .. } | Probe::Http { .. } => Ok(()),
        }
    }
}

fn check_command(command: &[String], interval_s: u32) -> Result<(), &'static str> {
    if command.len() > WORDS_MAX || command.first().is_none_or(String::is_empty) {
        return Err("the command of a health check is a program and at most 63 arguments");
    }
    let bytes: usize = command.iter().map(String::len).sum();
    if bytes > WORDS_BYTES_MAX || command.iter().any(|word| word.contains('\0')) {
        return Err("the command of a health check has at most 4096 bytes and no NUL");
    }
    if interval_s < INTERVAL_S_OF_COMMANDS {
        return Err("a health check executes its command at most every 5 seconds");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        strict,
        testkit::World,
        time::Timestamp,
        workload::{Document, Spec},
    };
    use alloc::{boxed::Box, format};

    fn http(path: &str) -> Health {
        let probe = Probe::Http { port: 80, path: path.into(), status_min: 200, status_max: 399 };
        Health { probe, interval_s: 10, timeout_s: 5, retries: 3, start_period_s: 30 }
    }

    fn exec(command: &[&str]) -> Health {
        let command = command.iter().map(|&word| word.into()).collect();
        Health { probe: Probe::Exec { command }, ..http("/") }
    }

    #[test]
    fn a_command_is_of_bounded_words_and_not_executed_all_the_time() {
        let most = ["x"; WORDS_MAX];
        let long = "x".repeat(WORDS_BYTES_MAX);
        let good = [exec(&["/bin/ready"]), exec(&most), exec(&[&long]), exec(&["a", "", "\u{1b}"])];
        for health in good {
            assert_eq!(health.check(), Ok(()), "{health:?}");
        }
        let often = |interval_s| Health { interval_s, timeout_s: 2, ..exec(&["a"]) };
        assert_eq!(often(5).check(), Ok(()));
        let bad = [
            exec(&[]),
            exec(&[""]),
            exec(&["", "a"]),
            exec(&[&most[..], &["x"]].concat()),
            exec(&[&long, "x"]),
            exec(&["a", "b\0c"]),
            often(4),
        ];
        for health in bad {
            assert!(health.check().is_err(), "{health:?}");
        }
        let text = serde_json::to_string(&exec(&["a", "b"])).unwrap();
        assert!(text.starts_with(r#"{"probe":{"exec":{"command":["a","b"]}},"#), "{text}");
        assert_eq!(strict::read::<Health>(text.as_bytes(), 4096).unwrap(), exec(&["a", "b"]));
    }

    #[test]
    fn every_bound_is_kept() {
        type Change = fn(&mut Health);
        let good: [Change; 5] = [
            |_| {},
            |one| one.probe = Probe::Tcp { port: 65535 },
            |one| (one.interval_s, one.timeout_s) = (2, 2),
            |one| (one.interval_s, one.timeout_s) = (3600, 60),
            |one| (one.retries, one.start_period_s) = (100, 0),
        ];
        for (number, change) in good.into_iter().enumerate() {
            let mut health = http("/health?full=1");
            change(&mut health);
            assert_eq!(health.check(), Ok(()), "good change {number}");
        }
        let bad: [(&str, Change); 14] = [
            ("too often", |one| (one.interval_s, one.timeout_s) = (1, 1)),
            ("too rarely", |one| one.interval_s = 3601),
            ("no wait", |one| one.timeout_s = 0),
            ("a wait longer than the interval", |one| one.timeout_s = 11),
            ("a wait too long", |one| (one.interval_s, one.timeout_s) = (100, 61)),
            ("no retries", |one| one.retries = 0),
            ("too many retries", |one| one.retries = 101),
            ("a start too long", |one| one.start_period_s = 3601),
            ("no TCP port", |one| one.probe = Probe::Tcp { port: 0 }),
            ("no HTTP port", |one| {
                one.probe =
                    Probe::Http { port: 0, path: "/".into(), status_min: 200, status_max: 200 };
            }),
            ("a relative path", |one| *one = http("health")),
            ("another header", |one| *one = http("/ HTTP/1.1\r\nX: y")),
            ("a space", |one| *one = http("/a b")),
            ("a long path", |one| *one = http(&format!("/{}", "a".repeat(1024)))),
        ];
        for (what, change) in bad {
            let mut health = http("/");
            change(&mut health);
            assert!(health.check().is_err(), "{what}");
        }
        for (status_min, status_max) in [(99, 200), (200, 600), (300, 299)] {
            let probe = Probe::Http { port: 80, path: "/".into(), status_min, status_max };
            let health = Health { probe, ..http("/") };
            assert!(health.check().is_err(), "{status_min} to {status_max}");
        }
    }

    /// Contracts that were signed before there were health checks mean what they meant.
    #[test]
    fn a_document_without_one_is_read_and_written_as_before() {
        let world = World::new(Timestamp::from_seconds(1_800_000_000));
        let now = String::from_utf8(world.document_bytes(1)).unwrap();
        let (before, health) = now.split_once(",\"health\":").unwrap();
        let (_, after) = health.split_once("\"start_period_s\":30}").unwrap();
        let text = [before, after].concat();
        let document: Document = strict::read(text.as_bytes(), 1 << 20).unwrap();
        assert_eq!(document.check(), Ok(()));
        let container = document.containers().next().unwrap();
        assert_eq!(container.health, None);
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
    }

    #[test]
    fn a_document_with_a_bad_one_is_refused() {
        let world = World::new(Timestamp::from_seconds(1_800_000_000));
        let mut document = world.document(1);
        assert_eq!(document.check(), Ok(()));
        let Spec::Container(container) = &mut document.workloads[0].spec else { unreachable!() };
        container.health = Some(Box::new(Health { retries: 0, ..http("/") }));
        assert!(document.check().is_err());
    }

    #[test]
    fn no_word_is_unknown() {
        let good = serde_json::to_string(&http("/")).unwrap();
        assert_eq!(strict::read::<Health>(good.as_bytes(), 4096).unwrap(), http("/"));
        for (from, to) in [
            ("\"probe\":{\"http\":{", "\"probe\":{\"exec\":{"),
            ("\"retries\":3", "\"retries\":3,\"exec\":[\"/bin/sh\"]"),
            ("\"port\":80", "\"port\":80,\"host\":\"10.0.0.1\""),
            ("\"interval_s\":10,", ""),
            ("\"port\":80", "\"port\":65536"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            let read = strict::read::<Health>(bad.as_bytes(), 4096);
            assert!(read.is_err(), "{bad}");
        }
    }
}
