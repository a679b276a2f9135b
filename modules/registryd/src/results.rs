//! What nodes report: results, each kept for ever under its number, and the last sign of life.

use crate::{admit, db::Fault, refusal, sql::Connection};
use contract::{Envelope, NodeId, StatementId, Timestamp, report::Heartbeat, strict};
use registry_api::{
    problem::codes,
    write::{HeartbeatAnswer, RefusedResult, ResultsAnswer},
};

/// A node says every so many seconds that it lives.
pub const HEARTBEAT_INTERVAL_S: u32 = 30;
/// A node that has been silent for so long is taken for offline: three signs of life are missing.
pub const OFFLINE_AFTER_S: i64 = 100;

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is stored, now or before.
    Stored(u64),
    /// The node reported something else under this number before. Kept as evidence; does not count.
    Conflict(u64),
}

/// Takes one result.
pub fn accept(
    connection: &Connection,
    envelope: &Envelope,
    network: &str,
    now: Timestamp,
) -> Result<(StatementId, Taken, bool), Fault> {
    let accepted = admit::accept(connection, envelope, network, now)?;
    let sql = "SELECT seq, conflict FROM results WHERE statement = ?1";
    let (seq, conflict) = connection.query_one(sql, &[&accepted.id.0], |row| {
        Ok((row.get::<i64>(0)?, row.get::<i64>(1)? != 0))
    })?;
    let seq = u64::try_from(seq).unwrap_or(0);
    let taken = if conflict { Taken::Conflict(seq) } else { Taken::Stored(seq) };
    Ok((accepted.id, taken, accepted.new))
}

/// The problem of a result that contradicts an earlier one.
pub fn conflict(seq: u64) -> Fault {
    let text = format!("the node has reported something else under number {seq}");
    refusal(409, codes::CONFLICT, text, "Both are kept. Reports go on with a new number.")
}

/// Takes a batch, each result for itself.
pub fn accept_all(
    connection: &Connection,
    batch: &[Envelope],
    network: &str,
    now: Timestamp,
) -> Result<ResultsAnswer, Fault> {
    let mut answer = ResultsAnswer::default();
    for (index, envelope) in batch.iter().enumerate() {
        connection.execute_batch("SAVEPOINT result")?;
        let outcome = match envelope.kind() {
            Some(contract::Kind::Result) => accept(connection, envelope, network, now),
            Some(_) | None => Err(refusal(400, codes::MALFORMED, "it is no result", "")),
        };
        let fault = match outcome {
            Ok((_, Taken::Stored(seq), _)) => {
                answer.accepted.push(seq);
                None
            }
            Ok((_, Taken::Conflict(seq), _)) => Some((Some(seq), conflict(seq))),
            Err(fault) => {
                connection.execute_batch("ROLLBACK TO result")?;
                Some((seq_of(envelope), fault))
            }
        };
        connection.execute_batch("RELEASE result")?;
        match fault {
            None => {}
            Some((seq, Fault::Refused(problem))) => {
                let (code, detail) = (problem.code, problem.detail);
                answer.refused.push(RefusedResult { index, seq, code, detail });
            }
            Some((_, broken @ Fault::Broken(_))) => return Err(broken),
        }
    }
    Ok(answer)
}

fn seq_of(envelope: &Envelope) -> Option<u64> {
    contract::Signed::<contract::report::Report>::open(envelope).ok().map(|signed| signed.body.seq)
}

/// Takes a sign of life. The same one again changes nothing; an older one is refused, so that
/// nobody can make a dead node look alive with what it once said.
pub fn heartbeat(
    connection: &Connection,
    envelope: &Envelope,
    network: &str,
    now: Timestamp,
) -> Result<HeartbeatAnswer, Fault> {
    let signed = admit::open::<Heartbeat>(envelope, network)?;
    let beat = &signed.body;
    let key = admit::node_key(connection, &beat.node)?;
    if !signed.signed_by(&key) {
        let text = "the heartbeat is not signed by its node";
        return Err(refusal(422, codes::BAD_SIGNATURE, text, ""));
    }
    let answer = HeartbeatAnswer { interval_s: HEARTBEAT_INTERVAL_S };
    if let Some(last) = last(connection, &beat.node)? {
        if last.beat == *beat {
            return Ok(answer);
        }
        let newer = if last.beat.boot == beat.boot {
            last.beat.seq < beat.seq
        } else {
            last.beat.at < beat.at
        };
        if !newer {
            let text = format!("a heartbeat of {} came before", last.beat.at);
            return Err(refusal(409, codes::STALE, text, ""));
        }
    }
    let payload = envelope.payload_bytes().map_err(anyhow::Error::new)?;
    let sql = "INSERT INTO heartbeats (node, payload, received) VALUES (?1, ?2, ?3)
               ON CONFLICT (node) DO UPDATE
               SET payload = excluded.payload, received = excluded.received";
    connection.execute(sql, &[&beat.node.0, &payload, &now.seconds()])?;
    Ok(answer)
}

/// The last sign of life of a node.
#[derive(Debug, Clone)]
pub struct LastBeat {
    /// What it said.
    pub beat: Heartbeat,
    /// When it came, by our clock.
    pub received: Timestamp,
}

impl LastBeat {
    /// Whether the node is taken for online.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        now.seconds() - self.received.seconds() < OFFLINE_AFTER_S
    }
}

/// The last sign of life of a node.
pub fn last(connection: &Connection, node: &NodeId) -> Result<Option<LastBeat>, Fault> {
    let sql = "SELECT payload, received FROM heartbeats WHERE node = ?1";
    let row = connection
        .query_optional(sql, &[&node.0], |row| Ok((row.get::<Vec<u8>>(0)?, row.get::<i64>(1)?)))?;
    let Some((payload, received)) = row else { return Ok(None) };
    let beat = strict::read(&payload, <Heartbeat as contract::Statement>::BYTES_MAX)
        .map_err(anyhow::Error::new)?;
    Ok(Some(LastBeat { beat, received: Timestamp::from_seconds(received) }))
}

/// Refuses nothing that a node may say, only what is no list of envelopes, or too long.
pub fn read_batch(bytes: &[u8]) -> Result<Vec<Envelope>, Fault> {
    use registry_api::paths::{RESULTS_BYTES_MAX, RESULTS_MAX};
    let batch: Vec<Envelope> = strict::read(bytes, RESULTS_BYTES_MAX)
        .map_err(|error| refusal(400, codes::MALFORMED, crate::chain(&error), ""))?;
    if batch.len() > RESULTS_MAX {
        let text = format!("{} results, where at most {RESULTS_MAX} are taken", batch.len());
        return Err(refusal(413, codes::TOO_LARGE, text, "Send several batches."));
    }
    Ok(batch)
}
