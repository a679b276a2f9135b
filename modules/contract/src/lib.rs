//! Statements, their envelope, and the consensus rule.
//!
//! Pure: no I/O, no clock, no randomness; the compiler proves it (`no_std`). The same code decides
//! on a node, in the registry, in the CLI and for an auditor. A statement is parsed from the exact
//! bytes that were signed and never serialised again, so there is no canonical form to get wrong.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "testkit"))]
extern crate std;

pub mod bundle;
pub mod capacity;
pub mod decision;
pub mod envelope;
pub mod farm;
pub mod header;
pub mod id;
pub mod identity;
pub mod key;
pub mod logged;
pub mod merkle;
pub mod node;
pub mod past;
pub mod proven;
pub mod release;
pub mod report;
pub mod scrub;
pub mod strict;
pub mod tally;
pub mod time;
pub mod verdict;
pub mod workload;

#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

pub use bundle::Bundle;
pub use capacity::Capacity;
pub use envelope::{Envelope, Kind, Signed, Statement};
pub use id::{ContractId, DocumentId, FlistId, IdentityId, NodeId, StatementId};
pub use key::{PublicKey, SigningKey};
pub use logged::Logged;
pub use past::Past;
pub use proven::Proven;
pub use release::Release;
pub use time::Timestamp;
pub use verdict::{Trust, Verdict, verdict};
