//! What a line or a sample looks like where it is sent: one JSON object, or a message of RFC 5424.

use crate::sample::Sample;
use container::usage::{Pressure, Stall};
use contract::Timestamp;
use node_api::init::Line;
use serde::Serialize;

/// local0, informational: nobody knows what a line of a container means.
const PRIORITY: u32 = 16 * 8 + 6;
/// Largest number that RFC 5424 gives to `sequenceId`; then it begins at 1 again.
const SEQUENCE_MAX: u64 = 2_147_483_647;

/// Something that is sent to sinks.
pub(crate) trait Message {
    /// One JSON object on one line.
    fn json(&self, origin: &Origin) -> String;
    /// A message of RFC 5424.
    fn syslog(&self, origin: &Origin) -> String;
}

impl Message for Line {
    fn json(&self, origin: &Origin) -> String {
        let json = Json {
            contract: &origin.contract,
            workload: &origin.workload,
            number: self.number,
            time_ms: self.time_ms,
            dropped: Some(self.n_dropped).filter(|n_dropped| *n_dropped > 0),
            line: &self.text,
        };
        serde_json::to_string(&json).expect("strings and numbers always serialise")
    }

    /// With spaces for control characters but tabs.
    fn syslog(&self, origin: &Origin) -> String {
        let kind = if self.n_dropped > 0 { "dropped" } else { "line" };
        // What steers a terminal is no text, and what ends a line may begin another for who reads it.
        let is_steering = |c: char| c.is_control() && c != '\t';
        let text = self.text.replace(is_steering, " ");
        rfc_5424(origin, (self.number, self.time_ms), kind, &text)
    }
}

/// A sample, and how many before it were not sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) sample: Sample,
    pub(crate) n_dropped: u64,
}

/// Whose lines they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Id of the node.
    pub node: String,
    /// Id of the contract.
    pub contract: String,
    /// Name in the contract.
    pub workload: String,
}

#[derive(Serialize)]
struct Json<'a> {
    contract: &'a str,
    workload: &'a str,
    number: u64,
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    line: &'a str,
}

#[derive(Serialize)]
struct JsonStats<'a> {
    contract: &'a str,
    workload: &'a str,
    number: u64,
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    stats: Stats,
}

/// What a container has used since it was started, unless it says otherwise. The names are those of the
/// documentation.
#[derive(Serialize)]
struct Stats {
    cpu_us: u64,
    cpu_throttled_us: u64,
    /// Now.
    memory_bytes: u64,
    memory_peak_bytes: u64,
    memory_max: u64,
    memory_oom: u64,
    memory_oom_kill: u64,
    /// Now.
    pids: u64,
    pids_refused: u64,
    io_read_bytes: u64,
    io_written_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_received_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_sent_bytes: Option<u64>,
    cpu_pressure: JsonPressure,
    memory_pressure: JsonPressure,
    io_pressure: JsonPressure,
}

#[derive(Serialize)]
struct JsonPressure {
    some: JsonStall,
    full: JsonStall,
}

/// Of the last ten seconds and of the last minute, in percent.
#[derive(Serialize)]
struct JsonStall {
    avg10: f64,
    avg60: f64,
    total_us: u64,
}

impl From<Pressure> for JsonPressure {
    fn from(Pressure { some, full }: Pressure) -> Self {
        let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
        let stall = |stall: Stall| JsonStall {
            avg10: percent(stall.avg10),
            avg60: percent(stall.avg60),
            total_us: stall.total_us,
        };
        Self { some: stall(some), full: stall(full) }
    }
}

impl From<&Sample> for Stats {
    fn from(Sample { usage, traffic, .. }: &Sample) -> Self {
        Self {
            cpu_us: usage.cpu_us,
            cpu_throttled_us: usage.cpu_throttled_us,
            memory_bytes: usage.memory_bytes,
            memory_peak_bytes: usage.memory_peak_bytes,
            memory_max: usage.memory_events.max,
            memory_oom: usage.memory_events.oom,
            memory_oom_kill: usage.memory_events.oom_kill,
            pids: usage.pids,
            pids_refused: usage.pids_refused,
            io_read_bytes: usage.io.read_bytes,
            io_written_bytes: usage.io.written_bytes,
            net_received_bytes: traffic.map(|traffic| traffic.received_bytes),
            net_sent_bytes: traffic.map(|traffic| traffic.sent_bytes),
            cpu_pressure: usage.cpu_pressure.into(),
            memory_pressure: usage.memory_pressure.into(),
            io_pressure: usage.io_pressure.into(),
        }
    }
}

impl Message for Told {
    fn json(&self, origin: &Origin) -> String {
        let json = JsonStats {
            contract: &origin.contract,
            workload: &origin.workload,
            number: self.sample.number,
            time_ms: self.sample.time_ms,
            dropped: Some(self.n_dropped).filter(|n_dropped| *n_dropped > 0),
            stats: Stats::from(&self.sample),
        };
        serde_json::to_string(&json).expect("strings and numbers always serialise")
    }

    fn syslog(&self, origin: &Origin) -> String {
        let Sample { number, time_ms, .. } = self.sample;
        rfc_5424(origin, (number, time_ms), "stats", &self.json(origin))
    }
}

/// The same lines with a mark wherever lines are gone, the first of them behind number `after`.
pub fn with_marks(after: u64, lines: Vec<Line>) -> Vec<Line> {
    let mut told = Vec::with_capacity(lines.len() + 1);
    let mut last = after;
    for line in lines {
        let before = line.first().saturating_sub(1);
        if before > last {
            let n_dropped = before - last;
            let text = format!("[{n_dropped} lines dropped: they went before they could be sent]");
            told.push(Line { number: before, time_ms: line.time_ms, n_dropped, text });
        }
        last = line.number;
        told.push(line);
    }
    told
}

/// A message of RFC 5424. The contract is its process id, in the digits that fit there.
fn rfc_5424(origin: &Origin, (number, time_ms): (u64, u64), kind: &str, text: &str) -> String {
    let seconds = i64::try_from(time_ms / 1000).unwrap_or(i64::MAX);
    let time = Timestamp::from_seconds(seconds).to_string();
    let time = time.trim_end_matches('Z');
    let milliseconds = time_ms % 1000;
    let sequence = (number.max(1) - 1) % SEQUENCE_MAX + 1;
    let Origin { node, contract, workload } = origin;
    format!(
        "<{PRIORITY}>1 {time}.{milliseconds:03}Z {node} {workload} {contract} {kind} \
         [meta sequenceId=\"{sequence}\"] {text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, n_dropped: u64) -> Line {
        Line { number, time_ms: 1_700_000_000_042, n_dropped, text: format!("\"{number}\"") }
    }

    fn origin() -> Origin {
        Origin { node: "n1".into(), contract: "c1".into(), workload: "web".into() }
    }

    #[test]
    fn what_is_gone_is_said_once_and_with_its_number() {
        let lines =
            with_marks(0, vec![line(1, 0), line(2, 0), line(6, 0), line(16, 10), line(20, 2)]);
        let told: Vec<_> = lines.iter().map(|line| (line.number, line.n_dropped)).collect();
        assert_eq!(told, [(1, 0), (2, 0), (5, 3), (6, 0), (16, 10), (18, 2), (20, 2)]);
        assert!(lines[2].text.starts_with("[3 lines dropped"));
        assert_eq!(with_marks(7, vec![line(9, 0)]).len(), 2);
        assert_eq!(with_marks(8, vec![line(9, 0)]).len(), 1);
        // Sent a second time.
        assert_eq!(with_marks(20, vec![line(9, 0)]).len(), 1);
        assert!(with_marks(7, vec![]).is_empty());
    }

    #[test]
    fn a_line_is_one_json_object() {
        let text = line(7, 0).json(&origin());
        assert_eq!(
            text,
            r#"{"contract":"c1","workload":"web","number":7,"time_ms":1700000000042,"line":"\"7\""}"#
        );
        assert!(line(7, 3).json(&origin()).contains(r#""dropped":3,"#));
    }

    #[test]
    fn a_line_is_a_message_of_rfc_5424() {
        assert_eq!(
            line(7, 0).syslog(&origin()),
            "<134>1 2023-11-14T22:13:20.042Z n1 web c1 line [meta sequenceId=\"7\"] \"7\""
        );
        assert!(line(7, 3).syslog(&origin()).contains(" dropped [meta"));
        let odd = Line { text: "a\tb\rc\nd\0e\x1b[2J\u{9b}ä".into(), ..line(7, 0) };
        assert!(odd.syslog(&origin()).ends_with("] a\tb c d e [2J ä"));
        for (number, sequence) in [(SEQUENCE_MAX, SEQUENCE_MAX), (SEQUENCE_MAX + 1, 1)] {
            let wanted = format!("sequenceId=\"{sequence}\"");
            assert!(line(number, 0).syslog(&origin()).contains(&wanted), "{number}");
        }
    }

    #[test]
    fn a_sample_is_one_json_object_and_its_figures_are_those_of_the_kernel() {
        use container::usage::{Io, MemoryEvents, Traffic, Usage};
        let stall = |avg10| Stall { avg10, avg60: 5, avg300: 1, total_us: 7 };
        let usage = Usage {
            cpu_us: 1,
            cpu_throttled_us: 2,
            memory_bytes: 3,
            memory_peak_bytes: 4,
            memory_events: MemoryEvents { max: 5, oom: 6, oom_kill: 7 },
            pids: 8,
            pids_refused: 9,
            io: Io { read_bytes: 10, written_bytes: 11, reads: 12, writes: 13 },
            memory_pressure: Pressure { some: stall(1234), full: stall(0) },
            ..Usage::default()
        };
        let traffic = Some(Traffic { received_bytes: 14, sent_bytes: 15 });
        let sample = Sample { number: 21, count: 1, time_ms: 1_700_000_000_042, usage, traffic };
        let none = r#"{"some":{"avg10":0.0,"avg60":0.0,"total_us":0},"full":{"avg10":0.0,"avg60":0.0,"total_us":0}}"#;
        let some = r#"{"some":{"avg10":12.34,"avg60":0.05,"total_us":7},"full":{"avg10":0.0,"avg60":0.05,"total_us":7}}"#;
        let wanted = format!(
            "{{\"contract\":\"c1\",\"workload\":\"web\",\"number\":21,\"time_ms\":1700000000042,\"stats\":{{\
             \"cpu_us\":1,\"cpu_throttled_us\":2,\"memory_bytes\":3,\"memory_peak_bytes\":4,\"memory_max\":5,\
             \"memory_oom\":6,\"memory_oom_kill\":7,\"pids\":8,\"pids_refused\":9,\"io_read_bytes\":10,\
             \"io_written_bytes\":11,\"net_received_bytes\":14,\"net_sent_bytes\":15,\"cpu_pressure\":{none},\
             \"memory_pressure\":{some},\"io_pressure\":{none}}}}}"
        );
        let told = Told { sample, n_dropped: 0 };
        assert_eq!(told.json(&origin()), wanted);
        let syslog = told.syslog(&origin());
        let head = "<134>1 2023-11-14T22:13:20.042Z n1 web c1 stats [meta sequenceId=\"21\"] ";
        assert_eq!(syslog, format!("{head}{wanted}"));
        let late = Told { n_dropped: 3, ..told };
        assert!(late.json(&origin()).contains(r#","dropped":3,"stats":"#));
        let cut_off = Told { sample: Sample { traffic: None, ..sample }, n_dropped: 0 };
        assert!(!cut_off.json(&origin()).contains("net_"), "no figure is not zero");
    }

    /// An Ethernet packet of IPv4 has room for 1472 bytes of a datagram; a longer one comes in pieces,
    /// which many networks drop.
    #[test]
    fn the_largest_sample_fits_into_a_packet() {
        use container::usage::{Io, MemoryEvents, Traffic, Usage};
        const MOST: u64 = u64::MAX;
        let stall = Stall { avg10: 10_000, avg60: 9_999, avg300: 9_999, total_us: MOST };
        let pressure = Pressure { some: stall, full: stall };
        let usage = Usage {
            cpu_us: MOST,
            cpu_periods: MOST,
            cpu_periods_throttled: MOST,
            cpu_throttled_us: MOST,
            memory_bytes: MOST,
            memory_peak_bytes: MOST,
            memory_events: MemoryEvents { max: MOST, oom: MOST, oom_kill: MOST },
            pids: MOST,
            pids_refused: MOST,
            io: Io { read_bytes: MOST, written_bytes: MOST, reads: MOST, writes: MOST },
            cpu_pressure: pressure,
            memory_pressure: pressure,
            io_pressure: pressure,
        };
        let traffic = Some(Traffic { received_bytes: MOST, sent_bytes: MOST });
        let sample = Sample { number: MOST, count: 1, time_ms: 1_700_000_000_042, usage, traffic };
        let told = Told { sample, n_dropped: MOST };
        // Ids are hashes; a name of a workload has 32 letters.
        let origin =
            Origin { node: "n".repeat(64), contract: "c".repeat(64), workload: "w".repeat(32) };
        let text = told.syslog(&origin);
        assert!(text.contains("\"memory_max\":18446744073709551615,"), "{text}");
        assert!(text.len() <= 1472, "{}", text.len());
    }
}
