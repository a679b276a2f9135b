//! Who somebody is: a set of keys, of which a threshold must sign.

use crate::{
    envelope::{Kind, Signed, Statement},
    id::{IdentityId, StatementId},
    key::PublicKey,
};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Keys that one identity may have.
pub const KEYS_MAX: usize = 16;

/// The payload of an identity statement, signed by its own keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The grid that it belongs to.
    pub network: String,
    /// 1 for the statement that makes the identity; its hash is the identity's id.
    pub version: u64,
    /// The former version.
    pub prev: Option<StatementId>,
    /// How the holder wants to be called. Proves nothing.
    pub name: String,
    /// Sorted, unique.
    pub keys: Vec<PublicKey>,
    /// How many of the keys must sign.
    pub threshold: u32,
}

impl Statement for Identity {
    const KIND: Kind = Kind::Identity;
    const BYTES_MAX: usize = 16 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        check_name(&self.name)?;
        let threshold =
            usize::try_from(self.threshold).map_err(|_| "the threshold is too large")?;
        match self.keys.len() {
            0 => Err("an identity has at least one key"),
            n if n > KEYS_MAX => Err("an identity has at most 16 keys"),
            n if threshold == 0 || threshold > n => {
                Err("the threshold is at least 1 and at most the number of keys")
            }
            _ if !self.keys.is_sorted_by(|a, b| a < b) => Err("keys are sorted and unique"),
            _ if self.version != 1 || self.prev.is_some() => {
                Err("an identity has version 1 and no former version (rotation is not known yet)")
            }
            _ => Ok(()),
        }
    }
}

/// A display name: 1 to 100 characters, none of them a control character.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    let length = name.chars().count();
    if (1..=100).contains(&length) && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err("a name has 1 to 100 characters and no control characters")
    }
}

/// An identity whose statement carries its own signatures.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Hash of the statement.
    pub id: IdentityId,
    /// Its keys and threshold.
    pub identity: Identity,
}

impl Signer {
    /// `None` when the statement is not signed by a threshold of its own keys.
    pub fn from_statement(signed: &Signed<Identity>) -> Option<Self> {
        let signer = Self { id: IdentityId(signed.id.0), identity: signed.body.clone() };
        signer.signed(signed).then_some(signer)
    }

    /// Whether a threshold of this identity's keys signed the statement. Looks at no more keys than
    /// that takes.
    pub fn signed<T: Statement>(&self, statement: &Signed<T>) -> bool {
        let threshold = usize::try_from(self.identity.threshold).unwrap_or(usize::MAX);
        let valid = self.identity.keys.iter().filter(|key| statement.signed_by(key));
        valid.take(threshold).count() >= threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, SigningKey};

    fn identity(keys: &[&SigningKey], threshold: u32) -> Identity {
        let mut keys: Vec<_> = keys.iter().map(|key| key.public()).collect();
        keys.sort();
        Identity {
            network: "test".into(),
            version: 1,
            prev: None,
            name: "A".into(),
            keys,
            threshold,
        }
    }

    #[test]
    fn a_threshold_of_keys_must_sign() {
        let keys: Vec<_> = (1..=3).map(|n| SigningKey::from_seed(&[n; 32])).collect();
        let body = identity(&[&keys[0], &keys[1], &keys[2]], 2);
        let open = |signers: &[&SigningKey]| {
            let envelope = Envelope::seal(&body, signers).unwrap();
            Signer::from_statement(&Signed::open(&envelope).unwrap())
        };
        assert!(open(&[&keys[0], &keys[2]]).is_some());
        assert!(open(&[&keys[0]]).is_none());
        let stranger = SigningKey::from_seed(&[9; 32]);
        assert!(open(&[&keys[0], &stranger]).is_none());
    }

    #[test]
    fn no_more_keys_are_looked_at_than_the_threshold_takes() {
        let keys: Vec<_> = (1..=16).map(|n| SigningKey::from_seed(&[n; 32])).collect();
        let all: Vec<&SigningKey> = keys.iter().collect();
        for threshold in [1, 3, 16] {
            let envelope = Envelope::seal(&identity(&all, threshold), &all).unwrap();
            let statement = Signed::open(&envelope).unwrap();
            let checks = crate::testkit::checks(|| {
                assert!(Signer::from_statement(&statement).is_some());
            });
            assert_eq!(checks, u64::from(threshold));
        }
    }

    #[test]
    fn one_key_listed_twice_does_not_count_twice() {
        let key = SigningKey::from_seed(&[1; 32]);
        let body = identity(&[&key, &key], 2);
        assert!(Envelope::seal(&body, &[&key]).is_err());
        assert!(Envelope::seal(&identity(&[&key], 1), &[&key]).is_ok());
    }
}
