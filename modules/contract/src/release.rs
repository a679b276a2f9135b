//! A publisher's word for an flist: that it is theirs, which of their revisions it is, and until when
//! somebody may begin with it.
//!
//! It lies beside the flist, wherever that is published, and no place has to be trusted with it. It is in the
//! envelope of all statements, under a payload type of its own, and no statement of a grid: no registry
//! orders it, and the same one counts on every network. Whether anybody asks for it, a contract says: see
//! [`crate::header::Publisher`].

use crate::{
    envelope::{Envelope, Signature, pae},
    id::FlistId,
    identity::check_name,
    key::{PublicKey, SIGNATURE_BYTES, SigningKey},
    strict::{self, ReadError},
    time::Timestamp,
};
use alloc::{string::String, vec, vec::Vec};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

/// The payload type, which no statement has.
pub const PAYLOAD_TYPE: &str = "application/vnd.zero-os.release.v1+json";
/// Largest record, with its envelope, in bytes.
pub const RECORD_BYTES_MAX: usize = 4096;
/// Largest payload in bytes.
const PAYLOAD_BYTES_MAX: usize = 2048;

/// What a publisher signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Hash of the flist's body.
    pub flist: FlistId,
    /// Whose it is, and who signs this.
    pub publisher: PublicKey,
    /// What the publisher calls it, for people.
    pub name: String,
    /// Counts up from 1.
    pub revision: u64,
    /// Nothing is begun with it afterwards; what was begun goes on. Always there, for ever as `null`: nobody
    /// signs one for ever by leaving something out.
    #[serde(deserialize_with = "Option::deserialize")]
    pub not_after: Option<Timestamp>,
}

/// The name of a record, below the place where the flist is.
pub fn name(flist: &FlistId, publisher: &PublicKey) -> String {
    alloc::format!("releases/{flist}/{publisher}")
}

/// Why bytes are no release that somebody signed.
#[derive(Debug, thiserror::Error)]
pub enum NotARelease {
    /// The envelope or its payload does not parse.
    #[error("the release record does not read")]
    Read(#[from] ReadError),
    /// A record that says something else.
    #[error("the record is of type {0}, and not of {PAYLOAD_TYPE}")]
    Kind(String),
    /// The payload is not base64.
    #[error("the payload of the release record is not base64")]
    Base64,
    /// It breaks a rule.
    #[error("the release is not valid: {0}")]
    Invalid(&'static str),
    /// The publisher that it names has not signed it, or others have too.
    #[error("the release is not signed by the publisher that it names, and by nobody else")]
    Unsigned,
}

/// Why a release is not what a contract demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is about another flist.
    #[error("the release is of flist {0}")]
    OtherFlist(FlistId),
    /// Somebody else has signed it.
    #[error("the release is of another publisher")]
    OtherPublisher,
    /// It is too old.
    #[error("the release is revision {found}, and the contract demands {wanted} or later")]
    Revision {
        /// What the publisher signed.
        found: u64,
        /// What the contract demands.
        wanted: u64,
    },
}

impl Release {
    /// Reads a record and verifies its one signature: whatever this gives, its publisher has signed.
    pub fn open(record: &[u8]) -> Result<Self, NotARelease> {
        let envelope: Envelope = strict::read(record, RECORD_BYTES_MAX)?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(NotARelease::Kind(envelope.payload_type));
        }
        let payload = envelope.payload_bytes().map_err(|_| NotARelease::Base64)?;
        let release: Self = strict::read(&payload, PAYLOAD_BYTES_MAX)?;
        release.check().map_err(NotARelease::Invalid)?;
        let [Signature { keyid, sig }] = envelope.signatures.as_slice() else {
            return Err(NotARelease::Unsigned);
        };
        let sig: Option<[u8; SIGNATURE_BYTES]> =
            BASE64.decode(sig).ok().and_then(|bytes| bytes.try_into().ok());
        let message = pae(PAYLOAD_TYPE, &payload);
        let key = &release.publisher;
        if *keyid == key.id() && sig.is_some_and(|sig| key.verifies(&message, &sig)) {
            Ok(release)
        } else {
            Err(NotARelease::Unsigned)
        }
    }

    /// Signs it, and gives the bytes of the record. The key is that of the publisher.
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, NotARelease> {
        self.check().map_err(NotARelease::Invalid)?;
        if key.public() != self.publisher {
            return Err(NotARelease::Unsigned);
        }
        let write = |error| NotARelease::Read(ReadError::Json(error));
        let payload = serde_json::to_vec(self).map_err(write)?;
        let sig = BASE64.encode(key.sign(&pae(PAYLOAD_TYPE, &payload)));
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.into(),
            payload: BASE64.encode(payload),
            signatures: vec![Signature { keyid: key.public().id(), sig }],
        };
        serde_json::to_vec(&envelope).map_err(write)
    }

    /// Whether it is what somebody demands of this flist. Times are for [`Release::begins`].
    pub fn fits(&self, flist: &FlistId, publisher: &PublicKey, revision: u64) -> Result<(), Unfit> {
        if self.flist != *flist {
            Err(Unfit::OtherFlist(self.flist))
        } else if self.publisher != *publisher {
            Err(Unfit::OtherPublisher)
        } else if self.revision < revision {
            Err(Unfit::Revision { found: self.revision, wanted: revision })
        } else {
            Ok(())
        }
    }

    /// Whether somebody may begin with it now.
    pub fn begins(&self, now: Timestamp) -> bool {
        self.not_after.is_none_or(|end| now <= end)
    }

    /// Whether it takes the place of an earlier one of the same publisher for the same flist: by a higher
    /// revision, whose end may be sooner, or by a later end of the same one.
    pub fn replaces(&self, earlier: &Self) -> bool {
        let end = |release: &Self| release.not_after.map_or(i64::MAX, Timestamp::seconds);
        (self.flist, self.publisher) == (earlier.flist, earlier.publisher)
            && (self.revision, end(self)) > (earlier.revision, end(earlier))
    }

    fn check(&self) -> Result<(), &'static str> {
        check_name(&self.name)?;
        if self.revision == 0 { Err("a revision counts from 1") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn release() -> Release {
        Release {
            flist: FlistId([7; 32]),
            publisher: key(1).public(),
            name: "shop".into(),
            revision: 3,
            not_after: Some(Timestamp::from_seconds(1_000)),
        }
    }

    fn text(record: &[u8]) -> String {
        core::str::from_utf8(record).unwrap().to_string()
    }

    #[test]
    fn what_a_publisher_signed_opens() {
        for not_after in [None, Some(Timestamp::from_seconds(1_000))] {
            let release = Release { not_after, ..release() };
            let record = release.seal(&key(1)).unwrap();
            assert!(record.len() < RECORD_BYTES_MAX / 2);
            assert_eq!(Release::open(&record).unwrap(), release);
        }
        // The longest name that there is.
        let long = Release { name: "\u{10ffff}".repeat(100), ..release() };
        assert_eq!(Release::open(&long.seal(&key(1)).unwrap()).unwrap(), long);
    }

    #[test]
    fn only_the_publisher_that_it_names_can_sign() {
        assert!(matches!(release().seal(&key(2)), Err(NotARelease::Unsigned)));
        let record = release().seal(&key(1)).unwrap();
        let mut envelope: Envelope = strict::read(&record, RECORD_BYTES_MAX).unwrap();
        let open = |envelope: &Envelope| Release::open(&serde_json::to_vec(envelope).unwrap());
        assert!(open(&envelope).is_ok());
        // Further signatures, none, one of somebody else, and one under somebody else's name.
        let good = envelope.signatures.clone();
        let message = pae(PAYLOAD_TYPE, &envelope.payload_bytes().unwrap());
        let of = |id: &SigningKey, by: &SigningKey| Signature {
            keyid: id.public().id(),
            sig: BASE64.encode(by.sign(&message)),
        };
        let (one, two) = (key(1), key(2));
        for bad in [
            vec![],
            vec![good[0].clone(), good[0].clone()],
            vec![of(&two, &two)],
            vec![of(&one, &two)],
            vec![of(&two, &one)],
        ] {
            envelope.signatures = bad;
            assert!(matches!(open(&envelope), Err(NotARelease::Unsigned)));
        }
    }

    #[test]
    fn every_field_is_signed() {
        let record = release().seal(&key(1)).unwrap();
        let envelope: Envelope = strict::read(&record, RECORD_BYTES_MAX).unwrap();
        let other = key(2).public();
        for changed in [
            Release { flist: FlistId([8; 32]), ..release() },
            Release { publisher: other, ..release() },
            Release { name: "shoq".into(), ..release() },
            Release { revision: 4, ..release() },
            Release { not_after: None, ..release() },
        ] {
            let payload = BASE64.encode(serde_json::to_vec(&changed).unwrap());
            let forged = serde_json::to_vec(&Envelope { payload, ..envelope.clone() }).unwrap();
            assert!(matches!(Release::open(&forged), Err(NotARelease::Unsigned)), "{changed:?}");
        }
    }

    /// A signature over a statement is none over a release, and the other way round.
    #[test]
    fn the_domain_is_its_own() {
        let record = release().seal(&key(1)).unwrap();
        let mut envelope: Envelope = strict::read(&record, RECORD_BYTES_MAX).unwrap();
        for kind in crate::Kind::ALL {
            assert_ne!(kind.payload_type(), PAYLOAD_TYPE);
            envelope.payload_type = kind.payload_type();
            let opened = Release::open(&serde_json::to_vec(&envelope).unwrap());
            assert!(matches!(opened, Err(NotARelease::Kind(_))));
        }
        let payload = envelope.payload_bytes().unwrap();
        let sig = BASE64.encode(key(1).sign(&pae(&crate::Kind::Contract.payload_type(), &payload)));
        envelope.payload_type = PAYLOAD_TYPE.into();
        envelope.signatures = vec![Signature { keyid: key(1).public().id(), sig }];
        let opened = Release::open(&serde_json::to_vec(&envelope).unwrap());
        assert!(matches!(opened, Err(NotARelease::Unsigned)));
    }

    #[test]
    fn what_breaks_a_rule_does_not_open() {
        let record = text(&release().seal(&key(1)).unwrap());
        assert!(Release::open(record.as_bytes()).is_ok());
        for bad in [
            String::new(),
            "{}".into(),
            alloc::format!("{record} 1"),
            record.replace("\"payload\"", "\"payload\":\"\",\"payload\""),
            record.replace("\"signatures\"", "\"more\":1,\"signatures\""),
            " ".repeat(RECORD_BYTES_MAX) + &record,
        ] {
            assert!(matches!(Release::open(bad.as_bytes()), Err(NotARelease::Read(_))), "{bad}");
        }
        for bad in [
            Release { revision: 0, ..release() },
            Release { name: String::new(), ..release() },
            Release { name: "a\nb".into(), ..release() },
        ] {
            assert!(matches!(bad.seal(&key(1)), Err(NotARelease::Invalid(_))), "{bad:?}");
        }
        // For ever is said, and not left out.
        let payload = serde_json::to_string(&Release { not_after: None, ..release() }).unwrap();
        assert!(serde_json::from_str::<Release>(&payload).is_ok());
        let short = payload.replace(",\"not_after\":null", "");
        assert_ne!(short, payload);
        assert!(serde_json::from_str::<Release>(&short).is_err());
        // Every signature fits the neutral element, so it can be nobody's key.
        let weak = alloc::format!("01{}", "0".repeat(62));
        let payload = serde_json::to_string(&release()).unwrap();
        let payload = payload.replace(&key(1).public().to_string(), &weak);
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.into(),
            payload: BASE64.encode(payload),
            signatures: vec![],
        };
        let opened = Release::open(&serde_json::to_vec(&envelope).unwrap());
        assert!(matches!(opened, Err(NotARelease::Read(_))));
    }

    #[test]
    fn a_demand_is_met_by_its_flist_publisher_and_revision() {
        let release = release();
        let (flist, publisher) = (FlistId([7; 32]), key(1).public());
        for revision in [1, 3] {
            assert_eq!(release.fits(&flist, &publisher, revision), Ok(()));
        }
        let older = Unfit::Revision { found: 3, wanted: 4 };
        assert_eq!(release.fits(&flist, &publisher, 4), Err(older));
        let other = key(2).public();
        assert_eq!(release.fits(&flist, &other, 1), Err(Unfit::OtherPublisher));
        let elsewhere = Err(Unfit::OtherFlist(flist));
        assert_eq!(release.fits(&FlistId([8; 32]), &publisher, 1), elsewhere);
    }

    #[test]
    fn it_begins_until_its_last_second() {
        let at = Timestamp::from_seconds;
        assert!(release().begins(at(1_000)));
        assert!(!release().begins(at(1_001)));
        assert!(Release { not_after: None, ..release() }.begins(at(i64::MAX)));
    }

    #[test]
    fn only_a_higher_revision_or_a_later_end_replaces_another() {
        let old = release();
        let later = Release { not_after: Some(Timestamp::from_seconds(2_000)), ..release() };
        let endless = Release { not_after: None, ..release() };
        // Its end is sooner than that of all others.
        let newer =
            Release { revision: 4, not_after: Some(Timestamp::from_seconds(500)), ..release() };
        let all = [&old, &later, &endless, &newer];
        for (number, one) in all.iter().enumerate() {
            for (earlier, other) in all.iter().enumerate() {
                assert_eq!(one.replaces(other), number > earlier, "{one:?} {other:?}");
            }
        }
        let foreign = Release { flist: FlistId([8; 32]), ..newer };
        assert!(!foreign.replaces(&old));
    }
}
