//! What the registry answers when it has been given something.

use contract::{Kind, StatementId};
use serde::{Deserialize, Serialize};

/// A statement that the registry has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Accepted {
    /// Hash of its payload.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: StatementId,
    /// Its kind.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub kind: Kind,
    /// Whether the registry learned something: the statement, or a signature on it.
    pub new: bool,
    /// Whether everybody whose signature it needs has signed. Until then it has no effect.
    #[serde(default = "yes")]
    pub complete: bool,
}

fn yes() -> bool {
    true
}

/// Documents that the registry has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DocumentsAnswer {
    /// How many there are.
    pub count: u64,
    /// Whether the registry did not have them before.
    pub new: bool,
}

/// What became of a batch of results.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ResultsAnswer {
    /// Numbers of the results that are stored durably, now or before. The sender may forget them.
    pub accepted: Vec<u64>,
    /// Those that are not stored.
    pub refused: Vec<RefusedResult>,
}

/// A result that is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RefusedResult {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Its number, when it could be read.
    pub seq: Option<u64>,
    /// One of [`crate::problem::codes`].
    pub code: String,
    /// Why, as a sentence.
    pub detail: String,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HeartbeatAnswer {
    /// Send the next one after so many seconds.
    pub interval_s: u32,
}
