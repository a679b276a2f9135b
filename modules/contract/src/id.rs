//! Names of things: 32-byte hashes, each kind its own type, written as 64 lowercase hex digits.

use alloc::string::{String, ToString as _};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A text that is not 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is written as 64 lowercase hexadecimal digits")]
pub struct NotAnId;

pub(crate) fn hex32(text: &str) -> Result<[u8; 32], NotAnId> {
    if text.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(NotAnId);
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAnId)?;
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The SHA-256 of `bytes`, as an id of this kind.
            pub fn of(bytes: &[u8]) -> Self {
                Self(sha256(bytes))
            }

            /// The first eight digits, for people to recognise it by.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                hex32(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_string())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

id! {
    /// A statement: hash of its payload bytes.
    StatementId
}
id! {
    /// A person or organisation: hash of the first version of its identity statement.
    IdentityId
}
id! {
    /// A node: hash of its public key.
    NodeId
}
id! {
    /// A contract over all its versions: see [`crate::header::contract_id`].
    ContractId
}
id! {
    /// A deployment document: hash of its bytes.
    DocumentId
}
id! {
    /// An flist: hash of its body.
    FlistId
}
id! {
    /// A public key: hash of its 32 bytes. A hint for finding the key, never a proof.
    KeyId
}
