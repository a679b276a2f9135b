//! Sinks: where a container's output and its statistics are sent.
//!
//! A sink is written as one URL. Refuses user names and passwords in it, because everybody who signs
//! a contract reads them.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Most sinks of a container, of each kind.
const SINKS_MAX: usize = 4;
/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 512;
/// Longest name of a host in bytes.
const HOST_BYTES_MAX: usize = 253;
const SENTENCE: &str = "a sink is syslog://HOST[:PORT], syslog+tcp://HOST[:PORT], redis://HOST[:PORT]/CHANNEL, \
     ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH], of at most 512 visible ASCII characters";

/// Where lines or statistics of a container are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// A URL.
    pub to: String,
}

/// What the URL of a sink means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// A name, or an IPv4 address.
    pub host: &'a str,
    /// The protocol's own unless given.
    pub port: u16,
    /// The protocol, and the place behind the host.
    pub protocol: SinkProtocol<'a>,
}

/// How a sink is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkProtocol<'a> {
    /// RFC 5424 in datagrams (RFC 5426).
    SyslogUdp,
    /// RFC 5424 over TCP with octet counting (RFC 6587).
    SyslogTcp,
    /// PUBLISH to this channel.
    Redis(&'a str),
    /// RFC 6455, without TLS.
    Ws(&'a str),
    /// RFC 6455 in TLS.
    Wss(&'a str),
}

impl Sink {
    /// What the URL means; the error is a sentence.
    pub fn target(&self) -> Result<Target<'_>, &'static str> {
        parse(&self.to).ok_or(SENTENCE)
    }
}

/// Whether a container may have these sinks.
pub(super) fn check(sinks: &[Sink]) -> Result<(), &'static str> {
    if sinks.len() > SINKS_MAX {
        return Err("a container has at most 4 sinks of lines and 4 of statistics");
    }
    let is_twice = |(at, sink): (usize, &Sink)| sinks[..at].contains(sink);
    if sinks.iter().enumerate().any(is_twice) {
        return Err("a sink is named once");
    }
    sinks.iter().try_for_each(|sink| sink.target().map(drop))
}

fn parse(url: &str) -> Option<Target<'_>> {
    if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (protocol, own_port) = match scheme {
        "syslog" if path.is_empty() => (SinkProtocol::SyslogUdp, 514),
        "syslog+tcp" if path.is_empty() => (SinkProtocol::SyslogTcp, 601),
        "redis" if path.len() > 1 => (SinkProtocol::Redis(&path[1..]), 6379),
        "ws" if !path.contains('#') => (SinkProtocol::Ws(path), 80),
        "wss" if !path.contains('#') => (SinkProtocol::Wss(path), 443),
        _ => return None,
    };
    let (host, port) = match authority.split_once(':') {
        None => (authority, own_port),
        Some((host, port)) => (host, number(port)?),
    };
    is_host(host).then_some(Target { host, port, protocol })
}

/// A port as it is written in one way only.
fn number(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// Labels of letters, digits and dashes, in lower case.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    host.len() <= HOST_BYTES_MAX && host.split('.').all(label)
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
    use alloc::{format, vec::Vec};

    fn sink(to: &str) -> Sink {
        Sink { to: to.into() }
    }

    #[test]
    fn every_form_is_understood() {
        let check = |url: &str, host: &str, port, protocol| {
            assert_eq!(parse(url), Some(Target { host, port, protocol }), "{url}");
        };
        check("syslog://logs.example", "logs.example", 514, SinkProtocol::SyslogUdp);
        check("syslog+tcp://192.0.2.1:6514", "192.0.2.1", 6514, SinkProtocol::SyslogTcp);
        check("redis://r.example/shop", "r.example", 6379, SinkProtocol::Redis("shop"));
        check("redis://r:1/a/b?c", "r", 1, SinkProtocol::Redis("a/b?c"));
        check("ws://w.example", "w.example", 80, SinkProtocol::Ws(""));
        check("wss://w.example:8443/in?x=1", "w.example", 8443, SinkProtocol::Wss("/in?x=1"));
        check(
            &format!("ws://w/{}", "p".repeat(505)),
            "w",
            80,
            SinkProtocol::Ws(&format!("/{}", "p".repeat(505))),
        );
    }

    #[test]
    fn what_has_another_meaning_or_none_is_refused() {
        let long = format!("ws://w/{}", "p".repeat(506));
        for bad in [
            "",
            "logs.example",
            "://h",
            "http://h/",
            "SYSLOG://h",
            "syslog://",
            "syslog://h/",
            "syslog://h/x",
            "syslog://h:",
            "syslog://h:0",
            "syslog://h:0514",
            "syslog://h:+514",
            "syslog://h:65536",
            "syslog://h:1:2",
            "syslog://[::1]",
            "syslog://user@h",
            "redis://user:pw@h/c",
            "redis://:pw@h/c",
            "redis://h",
            "redis://h/",
            "redis://h/a b",
            "redis://h/a\r\nFLUSHALL",
            "ws://h/#x",
            "ws://h?x",
            "ws://H",
            "ws://-h",
            "ws://h-",
            "ws://h..i",
            "ws://h.",
            "ws://h_i",
            "ws://h/\u{e9}",
            &long,
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("ws://{}", "a".repeat(64))), None);
        assert_eq!(parse(&format!("ws://{}", ["a".repeat(60).as_str(); 5].join("."))), None);
    }

    #[test]
    fn sinks_are_few_and_different() {
        let named = |numbers: &[u32]| -> Vec<Sink> {
            numbers.iter().map(|number| sink(&format!("redis://r/{number}"))).collect()
        };
        assert_eq!(check(&named(&[1, 2, 3, 4])), Ok(()));
        assert!(check(&named(&[1, 2, 3, 4, 5])).is_err());
        assert!(check(&named(&[1, 2, 1])).is_err());
        assert!(check(&[sink("http://h")]).is_err());
    }

    #[test]
    fn a_document_with_sinks_is_read_as_it_was_written() {
        let mut document = World::new(Timestamp::from_seconds(0)).document(1);
        let mut with = |sinks: &[Sink], stats: &[Sink]| {
            for workload in &mut document.workloads {
                let Spec::Container(container) = &mut workload.spec else { continue };
                container.logs = sinks.to_vec();
                container.stats = stats.to_vec();
            }
            document.clone()
        };
        // Documents of before have no such words.
        let without = serde_json::to_string(&with(&[], &[])).unwrap();
        assert!(!without.contains("\"logs\"") && !without.contains("\"stats\""));
        assert!(strict::read::<Document>(without.as_bytes(), 1 << 20).unwrap().check().is_ok());
        // The same place may take both.
        let (lines, stats) = (sink("redis://r/lines"), sink("syslog://s.example"));
        let document = with(&[lines.clone(), sink("wss://s.example/in")], &[stats, lines]);
        let text = serde_json::to_string(&document).unwrap();
        let read: Document = strict::read(text.as_bytes(), 1 << 20).unwrap();
        assert_eq!(read, document);
        assert_eq!(read.check(), Ok(()));
        for (good, bad) in [
            ("redis://r/lines", "redis://r"),
            ("wss://s.example/", "https://s.example/"),
            ("syslog://s.example", "syslog://s.example/"),
            ("syslog://s.example", "redis://r/lines"),
        ] {
            let text = text.replace(good, bad);
            let read: Document = strict::read(text.as_bytes(), 1 << 20).unwrap();
            assert!(read.check().is_err(), "{bad}");
        }
        let unknown = text.replace("\"to\":", "\"token\":1,\"to\":");
        assert!(strict::read::<Document>(unknown.as_bytes(), 1 << 20).is_err());
    }
}
