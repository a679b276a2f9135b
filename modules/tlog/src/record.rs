//! What one entry of the registry's log says: that a statement counts, which it is, and who has
//! signed it. 106 bytes; the statement itself lies elsewhere, by its hash.
//!
//! ```text
//! 0  version of this layout: 1       34  version of the subject, u64 big-endian
//! 1  kind                            42  hash of the payload, 32 bytes: the statement's id
//! 2  subject, 32 bytes               74  hash of the signatures, 32 bytes
//! ```

use alloc::vec::Vec;
use contract::{
    Envelope, Kind, Signed, StatementId,
    decision::{Approval, Cancel},
    envelope::{OpenError, Signature},
    farm::{Adoption, Farm, Pool},
    header::Header,
    identity::Identity,
    merkle::{self, Hash},
    node::{Node, node_id},
    report::{Heartbeat, Report},
    scrub::Scrub,
};

/// Bytes of a record.
pub const RECORD_BYTES: usize = 106;
const LAYOUT: u8 = 1;

/// One entry of the registry's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Kind of the statement.
    pub kind: Kind,
    /// What it is about: the identity, farm, node, pool or contract.
    pub subject: [u8; 32],
    /// Which one in a row it is: a version, or the number of a result; 0 where there is none.
    pub version: u64,
    /// The statement.
    pub statement: StatementId,
    /// Merkle root over its signatures when it was logged, sorted: see [`evidence`].
    pub evidence: Hash,
}

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no record of the log")]
pub struct NotARecord;

impl Record {
    /// The record of a statement with these signatures.
    pub fn of(envelope: &Envelope) -> Result<Self, OpenError> {
        let statement = envelope.id()?;
        let Some(kind) = envelope.kind() else {
            let found = envelope.payload_type.clone();
            return Err(OpenError::Kind { wanted: "known", found });
        };
        let (subject, version) = match kind {
            Kind::Identity => {
                let identity = Signed::<Identity>::open(envelope)?.body;
                (statement.0, identity.version)
            }
            Kind::Farm => {
                let farm = Signed::<Farm>::open(envelope)?.body;
                (farm.farm.0, farm.version)
            }
            Kind::Adoption => (Signed::<Adoption>::open(envelope)?.body.node.0, 0),
            Kind::Pool => (Signed::<Pool>::open(envelope)?.id.0, 0),
            Kind::Node => {
                let node = Signed::<Node>::open(envelope)?.body;
                (node_id(&node.key).0, node.version)
            }
            Kind::Contract => {
                let header = Signed::<Header>::open(envelope)?.body;
                (header.contract.0, header.version)
            }
            Kind::Approval => {
                let approval = Signed::<Approval>::open(envelope)?.body;
                (approval.contract.0, approval.version)
            }
            Kind::Cancel => {
                let cancel = Signed::<Cancel>::open(envelope)?.body;
                (cancel.contract.0, cancel.version)
            }
            Kind::Result => {
                let report = Signed::<Report>::open(envelope)?.body;
                (report.node.0, report.seq)
            }
            Kind::Heartbeat => {
                let beat = Signed::<Heartbeat>::open(envelope)?.body;
                (beat.node.0, beat.seq)
            }
            Kind::Scrub => (Signed::<Scrub>::open(envelope)?.body.node.0, 0),
        };
        let evidence = evidence(&envelope.signatures);
        Ok(Self { kind, subject, version, statement, evidence })
    }

    /// The bytes of the entry.
    pub fn write(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = LAYOUT;
        bytes[1] = code(self.kind);
        bytes[2..34].copy_from_slice(&self.subject);
        bytes[34..42].copy_from_slice(&self.version.to_be_bytes());
        bytes[42..74].copy_from_slice(&self.statement.0);
        bytes[74..106].copy_from_slice(&self.evidence);
        bytes
    }

    /// Reads the bytes of an entry.
    pub fn read(bytes: &[u8]) -> Result<Self, NotARecord> {
        let (head, rest) = bytes.split_first_chunk::<2>().ok_or(NotARecord)?;
        let (subject, rest) = rest.split_first_chunk::<32>().ok_or(NotARecord)?;
        let (version, rest) = rest.split_first_chunk::<8>().ok_or(NotARecord)?;
        let (statement, rest) = rest.split_first_chunk::<32>().ok_or(NotARecord)?;
        let (evidence, rest) = rest.split_first_chunk::<32>().ok_or(NotARecord)?;
        let kind = Kind::ALL.into_iter().find(|kind| code(*kind) == head[1]);
        if head[0] != LAYOUT || !rest.is_empty() {
            return Err(NotARecord);
        }
        Ok(Self {
            kind: kind.ok_or(NotARecord)?,
            subject: *subject,
            version: u64::from_be_bytes(*version),
            statement: StatementId(*statement),
            evidence: *evidence,
        })
    }
}

/// The Merkle root over key id and signature, as they stand in the envelope, of each signature.
pub fn evidence(signatures: &[Signature]) -> Hash {
    let leaf = |entry: &Signature| {
        merkle::leaf(&[entry.keyid.0.as_slice(), entry.sig.as_bytes()].concat())
    };
    let mut sorted: Vec<&Signature> = signatures.iter().collect();
    sorted.sort();
    let leaves: Vec<Hash> = sorted.into_iter().map(leaf).collect();
    merkle::root(&leaves)
}

/// Written in every log: a kind keeps its number for ever.
fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Identity => 1,
        Kind::Farm => 2,
        Kind::Adoption => 3,
        Kind::Pool => 4,
        Kind::Node => 5,
        Kind::Contract => 6,
        Kind::Approval => 7,
        Kind::Cancel => 8,
        Kind::Result => 9,
        Kind::Heartbeat => 10,
        Kind::Scrub => 11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::testkit::{World, seal};

    #[test]
    fn a_record_has_one_form_and_a_place_for_each_kind() {
        let world = World::new(contract::Timestamp::from_seconds(1_800_000_000));
        let header = seal(&world.header(1, None), world.key("owner"));
        let state = contract::report::State::Running;
        let statements = [
            world.identity("owner"),
            seal(&world.farm(1), world.key("farm")),
            seal(&world.adoption(), &world.token),
            seal(&world.pool(), world.key("farm")),
            seal(&world.node(1), &world.node_key),
            header.clone(),
            world.approve("it", &header),
            seal(&world.cancel(), world.key("owner")),
            seal(&world.report(7, Some(StatementId([1; 32])), state), &world.node_key),
            seal(&world.heartbeat("b1", 1, 0), &world.node_key),
            seal(&world.scrub(0), world.key("farm")),
        ];
        for (number, statement) in (1..).zip(&statements) {
            let record = Record::of(statement).unwrap();
            assert_eq!(Some(record.kind), statement.kind());
            assert_eq!(record.statement, statement.id().unwrap());
            let bytes = record.write();
            assert_eq!(bytes[1], number, "a kind keeps its number");
            assert_eq!(Record::read(&bytes), Ok(record));
            for at in [0, 1] {
                let mut changed = bytes;
                changed[at] = 0xff;
                assert_eq!(Record::read(&changed), Err(NotARecord));
            }
            assert_eq!(Record::read(&bytes[1..]), Err(NotARecord));
            assert_eq!(Record::read(&[bytes.as_slice(), &[0]].concat()), Err(NotARecord));
        }
        let approval = Record::of(&statements[6]).unwrap();
        assert_eq!((approval.subject, approval.version), (world.contract().0, 1));
        assert_eq!(Record::of(&statements[8]).unwrap().version, 7);
    }

    #[test]
    fn a_record_names_the_signatures_whatever_their_order() {
        let world = World::new(contract::Timestamp::from_seconds(1_800_000_000));
        let mut envelope = world.identity("owner");
        let one = Record::of(&envelope).unwrap().evidence;
        envelope.sign(world.key("it")).unwrap();
        let two = Record::of(&envelope).unwrap().evidence;
        envelope.signatures.reverse();
        assert_eq!(Record::of(&envelope).unwrap().evidence, two);
        assert_ne!(one, two);
    }
}
