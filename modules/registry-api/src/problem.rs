//! What went wrong, in the form of RFC 9457, with a stable word for programs.

use serde::{Deserialize, Serialize};

/// An answer with a status of 400 or above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[error("{detail} ({code})")]
pub struct Problem {
    /// Always `about:blank`: the code below says more than a URL.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, as a sentence.
    pub detail: String,
    /// Stable word for programs: one of [`codes`].
    pub code: String,
    /// What to do about it, as a sentence; empty when there is nothing to do.
    #[serde(default)]
    pub hint: String,
}

fn about_blank() -> String {
    "about:blank".into()
}

impl Problem {
    /// A problem without a hint.
    pub fn new(status: u16, title: &str, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: about_blank(),
            title: title.into(),
            status,
            detail: detail.into(),
            code: code.into(),
            hint: String::new(),
        }
    }
}

/// The stable words.
pub mod codes {
    /// No such path, or no such thing.
    pub const NOT_FOUND: &str = "not_found";
    /// The path knows other methods.
    pub const METHOD: &str = "method_not_allowed";
    /// Something in the path or query cannot be read.
    pub const BAD_REQUEST: &str = "bad_request";
    /// More bytes or items than allowed.
    pub const TOO_LARGE: &str = "too_large";
    /// The request did not arrive in time.
    pub const TIMEOUT: &str = "timeout";
    /// The bytes are not strict JSON of the expected form, or break a rule of their kind.
    pub const MALFORMED: &str = "malformed";
    /// The statement belongs to another grid.
    pub const WRONG_NETWORK: &str = "wrong_network";
    /// Nobody signed validly who must.
    pub const BAD_SIGNATURE: &str = "bad_signature";
    /// The identity that must sign is not known here: send its statement first.
    pub const UNKNOWN_IDENTITY: &str = "unknown_identity";
    /// The farm is not known here.
    pub const UNKNOWN_FARM: &str = "unknown_farm";
    /// The node is not known here.
    pub const UNKNOWN_NODE: &str = "unknown_node";
    /// The contract, or the version that is decided on, is not known here.
    pub const UNKNOWN_CONTRACT: &str = "unknown_contract";
    /// A farm, node or contract version that is not above the one in force.
    pub const OLD_VERSION: &str = "old_version";
    /// The version does not follow from the one before.
    pub const BROKEN_CHAIN: &str = "broken_chain";
    /// Another header of this version stands, and may still be agreed on.
    pub const VERSION_TAKEN: &str = "version_taken";
    /// The signer is no stakeholder of what is decided on.
    pub const NOT_A_STAKEHOLDER: &str = "not_a_stakeholder";
    /// Issued after the time for decisions; or an order that is too old.
    pub const TOO_LATE: &str = "too_late";
    /// Issued in the future, by the registry's clock.
    pub const IN_THE_FUTURE: &str = "in_the_future";
    /// The registry keeps no more of these.
    pub const TOO_MANY: &str = "too_many";
    /// The node has reported something else under this number. It is kept for all to see.
    pub const CONFLICT: &str = "conflict";
    /// Not newer than the heartbeat before.
    pub const STALE: &str = "stale";
    /// The documents do not hash into the header's root.
    pub const WRONG_ROOT: &str = "wrong_root";
    /// The bytes do not hash to the name.
    pub const WRONG_HASH: &str = "wrong_hash";
    /// The content store takes nothing.
    pub const READ_ONLY: &str = "read_only";
    /// The registry cannot serve at the moment: try again.
    pub const UNAVAILABLE: &str = "unavailable";
    /// The registry's own fault.
    pub const INTERNAL: &str = "internal";
}
