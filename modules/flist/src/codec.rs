//! Bytes to body and back, with exactly one encoding for each body.
//!
//! The encoding is postcard. Nothing is believed about canonical form: a decoded body is written
//! again, and the bytes must be the same.

use crate::{
    body::{BODY_MAX, Body},
    check::{Refusal, RefusalCode, check, refuse},
};
use contract::FlistId;

/// A body that was checked, under its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flist {
    identity: FlistId,
    body: Body,
}

impl Flist {
    /// Decodes and checks `bytes`. Never panics, and needs a bounded multiple of their memory.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > BODY_MAX {
            return refuse(RefusalCode::TooLarge, "the body is larger than 64 MiB");
        }
        let (body, rest) = postcard::take_from_bytes::<Body>(bytes)
            .or_else(|error| refuse(RefusalCode::Malformed, error.to_string()))?;
        if !rest.is_empty() {
            return refuse(RefusalCode::NotCanonical, "bytes follow the body");
        }
        check(&body)?;
        if encode(&body) != bytes {
            return refuse(RefusalCode::NotCanonical, "a number is not written in its short form");
        }
        Ok(Self { identity: FlistId::of(bytes), body })
    }

    /// The same, and refuses bytes that do not have this identity.
    pub fn decode_as(identity: FlistId, bytes: &[u8]) -> Result<Self, Refusal> {
        if FlistId::of(bytes) != identity {
            let reason = format!("the bytes do not have the SHA-256 {identity}");
            return refuse(RefusalCode::WrongIdentity, reason);
        }
        Self::decode(bytes)
    }

    /// Checks a body made here.
    pub fn from_body(body: Body) -> Result<Self, Refusal> {
        check(&body)?;
        let bytes = encode(&body);
        if bytes.len() > BODY_MAX {
            return refuse(RefusalCode::TooLarge, "the body is larger than 64 MiB");
        }
        Ok(Self { identity: FlistId::of(&bytes), body })
    }

    /// SHA-256 of the encoded body.
    pub fn identity(&self) -> FlistId {
        self.identity
    }

    /// What it says.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The bytes whose hash is the identity.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.body)
    }
}

fn encode(body: &Body) -> Vec<u8> {
    postcard::to_stdvec(body).expect("a body has no type that postcard cannot write")
}
