//! Every path of the protocol, and the bounds of what is sent there.

use contract::{ContractId, DocumentId, FlistId, IdentityId, NodeId, PublicKey, StatementId};

/// `POST`: any statement. Answers [`crate::write::Accepted`].
pub const STATEMENTS: &str = "/v1/statements";
/// `POST`: a list of result envelopes. Answers [`crate::write::ResultsAnswer`]. `GET`: queries.
pub const RESULTS: &str = "/v1/results";
/// `POST`: one heartbeat envelope. Answers [`crate::write::HeartbeatAnswer`].
pub const HEARTBEATS: &str = "/v1/heartbeats";
/// `GET`: [`crate::view::Farms`].
pub const FARMS: &str = "/v1/farms";
/// `GET`: [`crate::view::Nodes`].
pub const NODES: &str = "/v1/nodes";
/// `GET`: [`crate::view::Contracts`].
pub const CONTRACTS: &str = "/v1/contracts";
/// `GET`: the OpenAPI document.
pub const OPENAPI: &str = "/openapi.json";
/// `GET`: `ok` when the registry can read its store.
pub const HEALTHZ: &str = "/healthz";
/// Below it lie `flists/<id>`, `packs/<id>` and `releases/<id>/<key>`, as static files: a base URL for flist
/// fetches.
pub const CONTENT: &str = "/content";

/// `GET`: the newest checkpoint of the log (c2sp.org/tlog-checkpoint).
pub const CHECKPOINT: &str = "/checkpoint";

/// Header of every answer: the network that the registry belongs to.
pub const NETWORK_HEADER: &str = "zos-network";

/// Media type of a problem (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Largest body of a statement: base64 and signatures around the largest payload.
pub const STATEMENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Results in one batch.
pub const RESULTS_MAX: usize = 256;
/// Largest proof that a statement is in the log.
pub const PROOF_BYTES_MAX: usize = 256 * 1024;
/// Largest checkpoint: a note.
pub const CHECKPOINT_BYTES_MAX: usize = 128 * 1024;
/// Largest tile: 256 hashes.
pub const TILE_BYTES_MAX: usize = 8 * 1024;
/// Largest body of a batch of results.
pub const RESULTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest list of documents, in bytes.
pub const DOCUMENTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest answer to a query.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest flist body or pack.
pub const CONTENT_BYTES_MAX: u64 = 64 << 20;

/// `GET`: the envelope of one statement.
pub fn statement(id: &StatementId) -> String {
    format!("{STATEMENTS}/{id}")
}

/// `GET`: the proof that a statement is in the log (c2sp.org/tlog-proof).
pub fn proof(id: &StatementId) -> String {
    format!("{STATEMENTS}/{id}/proof")
}

/// `GET`: a tile of the log by its name, such as `tile/0/000` (c2sp.org/tlog-tiles).
pub fn tile(name: &str) -> String {
    format!("/{name}")
}

/// `GET`: [`crate::view::IdentityView`].
pub fn identity(id: &IdentityId) -> String {
    format!("/v1/identities/{id}")
}

/// `GET`: [`crate::view::FarmView`].
pub fn farm(id: &IdentityId) -> String {
    format!("{FARMS}/{id}")
}

/// `GET`: [`crate::view::NodeView`].
pub fn node(id: &NodeId) -> String {
    format!("{NODES}/{id}")
}

/// `GET`: [`crate::view::Inbox`], with an `ETag`.
pub fn inbox(id: &NodeId) -> String {
    format!("{NODES}/{id}/inbox")
}

/// `GET`: [`crate::view::ContractView`].
pub fn contract(id: &ContractId) -> String {
    format!("{CONTRACTS}/{id}")
}

/// `GET`: [`contract::Bundle`] without documents, with an `ETag`.
pub fn bundle(id: &ContractId) -> String {
    format!("{CONTRACTS}/{id}/bundle")
}

/// `GET`: [`contract::Bundle`] with the documents of one node, with an `ETag`.
pub fn bundle_for(id: &ContractId, node: &NodeId) -> String {
    format!("{CONTRACTS}/{id}/bundle?node={node}")
}

/// `GET`: [`crate::view::Decisions`].
pub fn approvals(id: &ContractId) -> String {
    format!("{CONTRACTS}/{id}/approvals")
}

/// One deployment document by its hash, `GET` or `PUT`. Its node gets it once the whole list of its
/// version has come.
pub fn document(id: &DocumentId) -> String {
    format!("/v1/documents/{id}")
}

/// `PUT`: the deployment documents of one version, a JSON list of base64 texts sorted by node id.
pub fn documents(id: &ContractId, version: u64) -> String {
    format!("{CONTRACTS}/{id}/versions/{version}/documents")
}

/// An flist's body, `PUT` or `GET`.
pub fn flist(id: &FlistId) -> String {
    format!("{CONTENT}/flists/{id}")
}

/// A publisher's [`contract::Release`] of an flist, `PUT` or `GET`.
pub fn release(id: &FlistId, publisher: &PublicKey) -> String {
    format!("{CONTENT}/{}", contract::release::name(id, publisher))
}

/// A pack of chunks by its BLAKE3, `PUT` or `GET`.
pub fn pack(id: &FlistId) -> String {
    format!("{CONTENT}/packs/{id}")
}
