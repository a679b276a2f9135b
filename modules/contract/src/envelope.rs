//! The envelope of every statement: DSSE v1 (github.com/secure-systems-lab/dsse) over exact bytes.
//!
//! A payload is produced once, then stored and served verbatim. Its type separates domains: a
//! signature over one kind of statement can never serve as another kind.

use crate::{
    id::{KeyId, StatementId},
    key::{PublicKey, SIGNATURE_BYTES, SigningKey},
    strict::{self, ReadError},
};
use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Signatures that one envelope may carry.
pub const SIGNATURES_MAX: usize = 64;

/// The kinds of statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Who somebody is: [`crate::identity::Identity`].
    Identity,
    /// A farm: [`crate::farm::Farm`].
    Farm,
    /// The farm's consent to a node: [`crate::farm::Adoption`].
    Adoption,
    /// Capacity granted to a customer: [`crate::farm::Pool`].
    Pool,
    /// A node and its hardware: [`crate::node::Node`].
    Node,
    /// One version of a contract: [`crate::header::Header`].
    Contract,
    /// A stakeholder's decision: [`crate::decision::Approval`].
    Approval,
    /// The end of a contract: [`crate::decision::Cancel`].
    Cancel,
    /// What a node did: [`crate::report::Report`].
    Result,
    /// A sign of life of a node: [`crate::report::Heartbeat`].
    Heartbeat,
    /// The farm's order to a node to read its store through: [`crate::scrub::Scrub`].
    Scrub,
}

impl Kind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 11] = [
        Self::Identity,
        Self::Farm,
        Self::Adoption,
        Self::Pool,
        Self::Node,
        Self::Contract,
        Self::Approval,
        Self::Cancel,
        Self::Result,
        Self::Heartbeat,
        Self::Scrub,
    ];

    /// The word in the payload type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Farm => "farm",
            Self::Adoption => "adoption",
            Self::Pool => "pool",
            Self::Node => "node",
            Self::Contract => "contract",
            Self::Approval => "approval",
            Self::Cancel => "cancel",
            Self::Result => "result",
            Self::Heartbeat => "heartbeat",
            Self::Scrub => "scrub",
        }
    }

    /// The DSSE payload type.
    pub fn payload_type(self) -> String {
        format!("application/vnd.zero-os.{}.v1+json", self.name())
    }

    /// The kind that a payload type names.
    pub fn from_payload_type(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.payload_type() == text)
    }
}

/// A statement as it travels: payload type, payload, signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Names the kind of statement.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The payload bytes in base64 (RFC 4648 section 4, with padding).
    pub payload: String,
    /// One entry for each key that signed.
    pub signatures: Vec<Signature>,
}

/// A signature and the key that it claims.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Which key to try.
    pub keyid: KeyId,
    /// 64 bytes in base64.
    pub sig: String,
}

/// Why an envelope holds no statement of the wanted kind.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The payload type names another kind, or none that is known.
    #[error("a statement of type {found} stands where {wanted} is expected")]
    Kind {
        /// The kind that was asked for.
        wanted: &'static str,
        /// The payload type of the envelope.
        found: String,
    },
    /// The payload is not base64.
    #[error("the payload is not base64")]
    Base64,
    /// More signatures than [`SIGNATURES_MAX`].
    #[error("more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// The payload does not parse.
    #[error("reading the {kind} statement")]
    Read {
        /// Kind of the statement.
        kind: &'static str,
        /// What the reader found.
        #[source]
        source: ReadError,
    },
    /// The payload parses, and breaks a rule of its kind.
    #[error("the {kind} statement is not valid: {rule}")]
    Invalid {
        /// Kind of the statement.
        kind: &'static str,
        /// The rule that it breaks, as a sentence.
        rule: &'static str,
    },
}

/// A payload that can be signed.
pub trait Statement: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;
    /// Largest payload in bytes.
    const BYTES_MAX: usize;
    /// The grid that it belongs to.
    fn network(&self) -> &str;
    /// Rules that the types cannot hold; the error is a sentence.
    fn check(&self) -> Result<(), &'static str>;
}

/// A statement together with the exact bytes that were signed.
#[derive(Debug, Clone)]
pub struct Signed<T> {
    /// Hash of the payload bytes.
    pub id: StatementId,
    /// What it says.
    pub body: T,
    message: Vec<u8>,
    signatures: Vec<Signature>,
}

impl<T: Statement> Signed<T> {
    /// Parses and checks the payload. Verifies **no** signature: ask [`Signed::signed_by`].
    pub fn open(envelope: &Envelope) -> Result<Self, OpenError> {
        let kind = T::KIND.name();
        if envelope.payload_type != T::KIND.payload_type() {
            return Err(OpenError::Kind { wanted: kind, found: envelope.payload_type.clone() });
        }
        if envelope.signatures.len() > SIGNATURES_MAX {
            return Err(OpenError::TooManySignatures);
        }
        let payload = envelope.payload_bytes()?;
        let body: T = strict::read(&payload, T::BYTES_MAX)
            .map_err(|source| OpenError::Read { kind, source })?;
        body.check().map_err(|rule| OpenError::Invalid { kind, rule })?;
        Ok(Self {
            id: StatementId::of(&payload),
            body,
            message: pae(&envelope.payload_type, &payload),
            signatures: envelope.signatures.clone(),
        })
    }

    /// Everything that is said to be a signature of it.
    pub(crate) fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Whether the envelope carries a valid signature of this key.
    pub fn signed_by(&self, key: &PublicKey) -> bool {
        let id = key.id();
        self.signatures.iter().filter(|entry| entry.keyid == id).any(|entry| {
            let bytes: Option<[u8; SIGNATURE_BYTES]> =
                BASE64.decode(&entry.sig).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.is_some_and(|bytes| key.verifies(&self.message, &bytes))
        })
    }
}

impl Envelope {
    /// Writes and signs a statement. The bytes made here are the statement from now on.
    pub fn seal<T: Statement>(body: &T, keys: &[&SigningKey]) -> Result<Self, OpenError> {
        let kind = T::KIND.name();
        body.check().map_err(|rule| OpenError::Invalid { kind, rule })?;
        let payload = serde_json::to_vec(body)
            .map_err(|source| OpenError::Read { kind, source: ReadError::Json(source) })?;
        let mut envelope = Self {
            payload_type: T::KIND.payload_type(),
            payload: BASE64.encode(payload),
            signatures: Vec::new(),
        };
        for key in keys {
            envelope.sign(key)?;
        }
        Ok(envelope)
    }

    /// Adds a signature, or replaces the one of the same key.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), OpenError> {
        let message = pae(&self.payload_type, &self.payload_bytes()?);
        let keyid = key.public().id();
        self.signatures.retain(|entry| entry.keyid != keyid);
        self.signatures.push(Signature { keyid, sig: BASE64.encode(key.sign(&message)) });
        self.signatures.sort();
        Ok(())
    }

    /// The bytes that were signed.
    pub fn payload_bytes(&self) -> Result<Vec<u8>, OpenError> {
        BASE64.decode(&self.payload).map_err(|_| OpenError::Base64)
    }

    /// Id of the statement inside.
    pub fn id(&self) -> Result<StatementId, OpenError> {
        Ok(StatementId::of(&self.payload_bytes()?))
    }

    /// Kind of the statement inside.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_payload_type(&self.payload_type)
    }
}

/// Pre-authentication encoding of DSSE: what a signature covers.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(payload.len() + payload_type.len() + 32);
    message.extend_from_slice(b"DSSEv1 ");
    message.extend_from_slice(payload_type.len().to_string().as_bytes());
    message.push(b' ');
    message.extend_from_slice(payload_type.as_bytes());
    message.push(b' ');
    message.extend_from_slice(payload.len().to_string().as_bytes());
    message.push(b' ');
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::tests::approval;

    #[test]
    fn the_encoding_is_that_of_the_dsse_specification() {
        // The example of the specification's protocol document.
        let message = pae("http://example.com/HelloWorld", b"hello world");
        assert_eq!(message, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_sealed_statement_opens_and_names_its_signer() {
        let (one, two) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let envelope = Envelope::seal(&approval(), &[&one]).unwrap();
        let signed = Signed::<crate::decision::Approval>::open(&envelope).unwrap();
        assert_eq!(signed.body, approval());
        assert_eq!(signed.id, envelope.id().unwrap());
        assert!(signed.signed_by(&one.public()));
        assert!(!signed.signed_by(&two.public()));
    }

    #[test]
    fn a_signature_does_not_carry_over_to_another_kind() {
        let key = SigningKey::from_seed(&[1; 32]);
        let mut envelope = Envelope::seal(&approval(), &[&key]).unwrap();
        envelope.payload_type = Kind::Cancel.payload_type();
        assert!(matches!(
            Signed::<crate::decision::Approval>::open(&envelope),
            Err(OpenError::Kind { .. })
        ));
    }

    #[test]
    fn a_changed_payload_is_signed_by_nobody() {
        let key = SigningKey::from_seed(&[1; 32]);
        let envelope = Envelope::seal(&approval(), &[&key]).unwrap();
        let payload = envelope.payload_bytes().unwrap();
        let text = core::str::from_utf8(&payload).unwrap().replace("approve", "reject ");
        let forged =
            Envelope { payload: BASE64.encode(text.replace("reject \"", "reject\"")), ..envelope };
        let signed = Signed::<crate::decision::Approval>::open(&forged).unwrap();
        assert!(!signed.signed_by(&key.public()));
    }
}
