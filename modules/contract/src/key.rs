//! Ed25519 keys (RFC 8032), with the strict rules that make a verdict the same everywhere.

use crate::id::{KeyId, NotAnId, hex32};
use alloc::string::String;
use core::{fmt, str::FromStr};
use ed25519_dalek::{Signer as _, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Length of a signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// A key that can be trusted to stand for one signer: canonical and of full order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Why 32 bytes are no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not 64 hexadecimal digits.
    #[error("a public key is written as 64 lowercase hexadecimal digits")]
    NotHex(#[from] NotAnId),
    /// Not the encoding of a point of the curve, or a second encoding of one.
    #[error("the bytes are not a canonical Ed25519 public key")]
    NotAPoint,
    /// A point of small order: signatures could be made that fit any message.
    #[error("the key is weak (of small order)")]
    Weak,
}

impl PublicKey {
    /// Takes only canonical encodings of points that are not of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BadKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| BadKey::NotAPoint)?;
        if key.to_edwards().compress().to_bytes() != *bytes {
            return Err(BadKey::NotAPoint);
        }
        if key.is_weak() {
            return Err(BadKey::Weak);
        }
        Ok(Self(key))
    }

    /// The 32 bytes of RFC 8032.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The hint by which an envelope names this key.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.0.as_bytes())
    }

    /// Whether `signature` is this key's over `message`, by the strict rule (no malleable forms).
    pub fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        #[cfg(any(test, feature = "testkit"))]
        crate::testkit::CHECKS.set(crate::testkit::CHECKS.get() + 1);
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        Self::from_bytes(&hex32(text)?)
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.to_bytes().cmp(&other.to_bytes())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A secret key. Never printed, never serialised; wiped from memory when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key that belongs to a secret seed of 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs exactly these bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_fits_its_message_and_key_only() {
        let (one, two) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let signature = one.sign(b"message");
        assert!(one.public().verifies(b"message", &signature));
        assert!(!one.public().verifies(b"Message", &signature));
        assert!(!two.public().verifies(b"message", &signature));
    }

    #[test]
    fn weak_and_non_canonical_keys_are_refused() {
        let good = SigningKey::from_seed(&[1; 32]).public().to_bytes();
        assert!(PublicKey::from_bytes(&good).is_ok());
        // The neutral element: every message has a signature that fits it.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(PublicKey::from_bytes(&neutral), Err(BadKey::Weak));
        // y = p + 1 is a second encoding of y = 1.
        let mut second = [0xff; 32];
        second[0] = 0xee;
        second[31] = 0x7f;
        assert_eq!(PublicKey::from_bytes(&second), Err(BadKey::NotAPoint));
    }
}
