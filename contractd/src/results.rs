//! The node's results: a chain of signed statements, one for each change of status.

use crate::{
    database::{Database, DatabaseError, Kept},
    status::Line,
};
use contract::{Envelope, NodeId, SigningKey, StatementId, Timestamp, report::Report};
use std::collections::BTreeMap;

/// Longest reason that a result carries, in bytes.
const MESSAGE_MAX: usize = 4096;

/// What it takes to sign a result.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) network: String,
    pub(crate) node: NodeId,
    pub(crate) boot: String,
    pub(crate) key: SigningKey,
}

impl Results {
    /// Posts a result, unless the last one about the same thing said the same.
    pub(crate) fn post(
        &self,
        database: &mut Database,
        kept: &mut Kept,
        (version, header): (u64, Option<StatementId>),
        workload: Option<&str>,
        line: &Line,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let mut reported: BTreeMap<String, String> =
            serde_json::from_str(&kept.reported).unwrap_or_default();
        let name = workload.unwrap_or_default().to_owned();
        // What runs is said anew in each boot, what has ended is not.
        let boot = if kept.past.ended.is_some() { "" } else { &self.boot };
        let fingerprint = format!("{version} {boot} {}", line.fingerprint());
        if reported.get(&name) == Some(&fingerprint) {
            return Ok(());
        }
        reported.insert(name, fingerprint);
        let last = database.chain()?;
        let seq = last.map_or(1, |(seq, _)| seq + 1);
        let report = Report {
            network: self.network.clone(),
            node: self.node,
            boot: self.boot.clone(),
            seq,
            prev: last.map(|(_, id)| id),
            at: now,
            contract: kept.id,
            version,
            header,
            workload: workload.map(str::to_owned),
            state: line.state,
            code: line.code.clone(),
            message: cut(&line.message, MESSAGE_MAX).to_owned(),
            ran: line.ran.clone(),
        };
        let sealed = Envelope::seal(&report, &[&self.key])
            .and_then(|envelope| envelope.id().map(|id| (envelope, id)));
        let (envelope, id) = match sealed {
            Ok(sealed) => sealed,
            Err(error) => {
                daemon::error!("signing a result: {}", daemon::chain(&error));
                return Ok(());
            }
        };
        let text = serde_json::to_string(&reported).expect("strings");
        if database.post(&kept.id, &text, seq, &id, &envelope)? {
            kept.reported = text;
        }
        Ok(())
    }
}

/// The longest beginning of `text` that has at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
