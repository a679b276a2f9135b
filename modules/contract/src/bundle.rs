//! Everything that is needed to judge a contract, and nothing that has to be believed.

use crate::{envelope::Envelope, merkle::Path};
use alloc::{string::String, vec::Vec};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

/// Largest bundle in bytes.
pub const BUNDLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Versions of a contract that one bundle may hold.
pub const VERSIONS_MAX: usize = 64;
/// Statements of each other kind that one bundle may hold.
pub const STATEMENTS_MAX: usize = 4096;
/// A contract with its evidence, for one node or for a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// All versions, from 1 up.
    pub headers: Vec<Envelope>,
    /// Decisions on any of them.
    pub approvals: Vec<Envelope>,
    /// Orders to end it.
    pub cancels: Vec<Envelope>,
    /// Identities of owner, stakeholders and farm.
    pub identities: Vec<Envelope>,
    /// The capacity grants that the headers name.
    pub pools: Vec<Envelope>,
    /// The documents of one node; empty for a reader.
    pub documents: Vec<Deployment>,
}

/// A deployment document and its way to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The document's bytes in base64.
    pub document: String,
    /// Its place under the header's root.
    pub path: Path,
}

impl Deployment {
    /// Wraps a document's exact bytes.
    pub fn new(document: &[u8], path: Path) -> Self {
        Self { document: BASE64.encode(document), path }
    }

    /// The document's exact bytes; `None` when they are not base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64.decode(&self.document).ok()
    }
}

impl Bundle {
    /// How many signatures it carries, of which each may have to be checked.
    pub fn signatures(&self) -> usize {
        [&self.headers, &self.approvals, &self.cancels, &self.identities, &self.pools]
            .into_iter()
            .flatten()
            .map(|envelope| envelope.signatures.len())
            .sum()
    }

    /// Reads a bundle from untrusted bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, crate::strict::ReadError> {
        crate::strict::read(bytes, BUNDLE_BYTES_MAX)
    }
}
