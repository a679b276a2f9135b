//! The node's results: a chain of signed statements, one for each change of status.

use crate::{
    database::{Database, DatabaseError, Kept},
    status::Line,
};
use contract::{ContractId, Envelope, NodeId, SigningKey, StatementId, Timestamp, report::Report};
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
    /// Posts a result of each line about a contract or one of its workloads, unless the last one about
    /// the same thing said the same.
    pub(crate) fn post(
        &self,
        database: &mut Database,
        kept: &mut Kept,
        (version, header): (u64, Option<StatementId>),
        lines: &[(Option<String>, Line)],
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let mut reported: BTreeMap<String, String> =
            serde_json::from_str(&kept.reported).unwrap_or_default();
        for (workload, line) in lines {
            // What runs is said anew in each boot, what has ended is not.
            let has_ended = kept.past.ended.is_some() || line.is_final;
            let boot = if has_ended { "" } else { &self.boot };
            let name = workload.clone().unwrap_or_default();
            let fingerprint = format!("{version} {boot} {}", line.fingerprint());
            if reported.get(&name) == Some(&fingerprint) {
                continue;
            }
            reported.insert(name, fingerprint);
            let text = serde_json::to_string(&reported).expect("strings");
            let about = (version, header, workload.clone());
            if !self.post_one(database, &kept.id, about, line, &text, now)? {
                break;
            }
            kept.reported = text;
        }
        Ok(())
    }

    /// Posts one result, together with all that was reported with it. `false`: not now.
    fn post_one(
        &self,
        database: &mut Database,
        contract: &ContractId,
        (version, header, workload): (u64, Option<StatementId>, Option<String>),
        line: &Line,
        reported: &str,
        now: Timestamp,
    ) -> Result<bool, DatabaseError> {
        let last = database.chain()?;
        let seq = last.map_or(1, |(seq, _)| seq + 1);
        let report = Report {
            network: self.network.clone(),
            node: self.node,
            boot: self.boot.clone(),
            seq,
            prev: last.map(|(_, id)| id),
            at: now,
            contract: *contract,
            version,
            header,
            workload,
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
                return Ok(false);
            }
        };
        database.post(contract, reported, seq, &id, &envelope)
    }
}

/// The longest beginning of `text` that has at most `most` bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
