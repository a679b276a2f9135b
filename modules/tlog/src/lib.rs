//! The transparency log: its tree, its tiles, its checkpoints, and who has seen them.
//!
//! Everything here is a public format, byte for byte, so that foreign tools read our logs and we
//! read theirs: RFC 6962 (the tree), and of C2SP signed-note, tlog-checkpoint, tlog-tiles,
//! tlog-cosignature (Ed25519), tlog-witness (add-checkpoint), tlog-proof and tlog-policy. Pure: no
//! I/O, no clock, no randomness; the compiler proves it (`no_std`). Every reader has a bound, and
//! takes only the one form that its writer writes, but of a policy, which people write.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checkpoint;
pub mod edge;
pub mod note;
pub mod policy;
pub mod policy_file;
pub mod proof;
pub mod record;
mod text;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::Checkpoint;
pub use contract::merkle::Hash;
pub use edge::Edge;
pub use note::{Algorithm, Note, Signer, Verifier};
pub use policy::Policy;
pub use policy_file::PolicyFile;
pub use proof::Proof;
pub use record::Record;
pub use tile::{Bundle, Resource, Tile};
pub use tree::SIZE_MAX;
