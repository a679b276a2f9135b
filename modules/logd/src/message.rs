//! What a line looks like where it is sent: one JSON object, or a message of RFC 5424.

use contract::Timestamp;
use node_api::init::Line;
use serde::Serialize;

/// local0, informational: nobody knows what a line of a container means.
const PRIORITY: u32 = 16 * 8 + 6;
/// Largest number that RFC 5424 gives to `sequenceId`; then it begins at 1 again.
const SEQUENCE_MAX: u64 = 2_147_483_647;

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

/// One JSON object on one line.
pub fn json(origin: &Origin, line: &Line) -> String {
    let json = Json {
        contract: &origin.contract,
        workload: &origin.workload,
        number: line.number,
        time_ms: line.time_ms,
        dropped: Some(line.n_dropped).filter(|n_dropped| *n_dropped > 0),
        line: &line.text,
    };
    serde_json::to_string(&json).expect("strings and numbers always serialise")
}

/// A message of RFC 5424, with spaces for control characters but tabs. The contract is its process
/// id, in the digits that fit there.
pub fn syslog(origin: &Origin, line: &Line) -> String {
    let seconds = i64::try_from(line.time_ms / 1000).unwrap_or(i64::MAX);
    let time = Timestamp::from_seconds(seconds).to_string();
    let time = time.trim_end_matches('Z');
    let milliseconds = line.time_ms % 1000;
    let sequence = (line.number.max(1) - 1) % SEQUENCE_MAX + 1;
    let Origin { node, contract, workload } = origin;
    let kind = if line.n_dropped > 0 { "dropped" } else { "line" };
    // What steers a terminal is no text, and what ends a line may begin another for who reads it.
    let is_steering = |c: char| c.is_control() && c != '\t';
    let text = line.text.replace(is_steering, " ");
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
        let text = json(&origin(), &line(7, 0));
        assert_eq!(
            text,
            r#"{"contract":"c1","workload":"web","number":7,"time_ms":1700000000042,"line":"\"7\""}"#
        );
        assert!(json(&origin(), &line(7, 3)).contains(r#""dropped":3,"#));
    }

    #[test]
    fn a_line_is_a_message_of_rfc_5424() {
        assert_eq!(
            syslog(&origin(), &line(7, 0)),
            "<134>1 2023-11-14T22:13:20.042Z n1 web c1 line [meta sequenceId=\"7\"] \"7\""
        );
        assert!(syslog(&origin(), &line(7, 3)).contains(" dropped [meta"));
        let odd = Line { text: "a\tb\rc\nd\0e\x1b[2J\u{9b}ä".into(), ..line(7, 0) };
        assert!(syslog(&origin(), &odd).ends_with("] a\tb c d e [2J ä"));
        for (number, sequence) in [(SEQUENCE_MAX, SEQUENCE_MAX), (SEQUENCE_MAX + 1, 1)] {
            let wanted = format!("sequenceId=\"{sequence}\"");
            assert!(syslog(&origin(), &line(number, 0)).contains(&wanted), "{number}");
        }
    }
}
