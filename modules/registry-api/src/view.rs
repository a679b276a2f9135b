//! What the registry tells of the statements that it has. Derived, for people and programs to find
//! their way: what counts is in the envelopes and bundles.

use contract::{
    Capacity, ContractId, Envelope, FlistId, IdentityId, NodeId, StatementId, Timestamp,
    decision::{Action, Decision, Retention},
    header::Role,
    node::{Evidence, Hardware},
    report::{Ran, Standing, State},
};
use serde::{Deserialize, Serialize};

/// Most items of one answer.
pub const LIST_MAX: usize = 1000;
/// Decisions in one answer: with their signatures they are larger than other entries.
pub const DECISIONS_MAX: usize = 256;

/// Contracts that have, or had, a document for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Inbox {
    /// Whether the farm has adopted the node. Until then there is nothing for it.
    pub adopted: bool,
    /// Sorted by id: those with a grant of the node's farm; of too many, those that changed last.
    /// That one is missing here is no order to do anything.
    pub contracts: Vec<InboxEntry>,
    /// Contracts that are left out, since their bundle is larger than a reader takes. Sorted by id.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub oversize: Vec<ContractId>,
    /// The last order of the node's farm to read the store through, when there is one. The node judges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Ordered>,
}

/// An order of a farm, with what it takes to verify it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ordered {
    /// The [`contract::scrub::Scrub`] statement.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub order: Envelope,
    /// The identity statement of the farm.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub farm: Envelope,
}

/// A contract that concerns a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct InboxEntry {
    /// Which one.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub contract: ContractId,
    /// Its newest version, agreed on or not.
    pub version: u64,
    /// The `ETag` of its bundle for this node: equal tags, equal bundles.
    pub etag: String,
}

/// An identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IdentityView {
    /// Its id.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: IdentityId,
    /// How the holder wants to be called. Proves nothing.
    pub name: String,
    /// How many keys must sign.
    pub threshold: u32,
    /// How many keys there are.
    pub keys: u64,
    /// The statement itself, which proves its keys.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub statement: Envelope,
}

/// Farms, sorted by id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Farms {
    /// At most [`LIST_MAX`].
    pub farms: Vec<FarmView>,
    /// Ask again with `after=` this for more.
    #[serde(default)]
    pub next: Option<String>,
}

/// A farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FarmView {
    /// The identity that owns it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: IdentityId,
    /// How the farmer calls it.
    pub name: String,
    /// Where it stands, as the farmer puts it.
    pub location: String,
    /// Version in force.
    pub version: u64,
    /// Enrolment keys in force.
    pub enrolment_keys: u64,
    /// Nodes that it has adopted.
    pub nodes: u64,
    /// Adopted nodes that give signs of life.
    pub online: u64,
    /// Nodes that ask to be adopted.
    pub waiting: u64,
    /// What its adopted nodes have together.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub capacity: Capacity,
    /// The statement in force.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub statement: Envelope,
}

/// Nodes, sorted by id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Nodes {
    /// At most [`LIST_MAX`].
    pub nodes: Vec<NodeView>,
    /// Ask again with `after=` this for more.
    #[serde(default)]
    pub next: Option<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NodeView {
    /// Hash of its key.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: NodeId,
    /// The farm that it wants to belong to.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub farm: IdentityId,
    /// How the farmer calls the farm, when it is known.
    pub farm_name: Option<String>,
    /// Whether the farm has consented; otherwise the node waits for it.
    pub adopted: bool,
    /// Whether signs of life come.
    pub online: bool,
    /// When the last one came, by the registry's clock.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub last_seen: Option<Timestamp>,
    /// Seconds since its kernel started, at the last sign of life.
    pub uptime_s: Option<u64>,
    /// Version of its statement in force.
    pub version: u64,
    /// Version of the image that it runs.
    pub image: String,
    /// How far its claims are proven.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub evidence: Evidence,
    /// What it has for workloads.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub capacity: Capacity,
    /// What nothing has taken, at the last sign of life.
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub free: Option<Capacity>,
    /// Why it is not fully usable, as sentences.
    pub degraded: Vec<String>,
    /// What it is made of.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub hardware: Hardware,
    /// Contracts and what became of them, at the last sign of life.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub contracts: Vec<Standing>,
    /// Results under a number that had another result before. Above 0, somebody should look.
    pub conflicts: u64,
    /// The node statement in force. It proves the key with which the node signs its results.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub statement: Envelope,
    /// The farm's consent in force, when there is one.
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub adoption: Option<Envelope>,
    /// The last order of its farm to read the store through, when there is one. What became of it stands in
    /// the node's statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub scrub: Option<Envelope>,
}

/// Contracts, sorted by id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Contracts {
    /// At most [`LIST_MAX`].
    pub contracts: Vec<ContractSummary>,
    /// Ask again with `after=` this for more.
    #[serde(default)]
    pub next: Option<String>,
}

/// Where a contract stands. Derived at every question, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ContractState {
    /// Stakeholders still have to approve.
    Proposed,
    /// A stakeholder who may has rejected.
    Rejected,
    /// The time for approvals has passed without agreement.
    Lapsed,
    /// Agreed on; no node has said anything yet.
    Agreed,
    /// Nodes are at it.
    Deploying,
    /// Every container runs.
    Running,
    /// Something failed or was refused.
    Degraded,
    /// Ended by an order with quorum.
    Cancelled,
    /// Ended by time.
    Expired,
    /// Ended, and its data deleted by signed order.
    Wiped,
}

impl ContractState {
    /// Every state, in the order of a contract's life.
    pub const ALL: [Self; 10] = [
        Self::Proposed,
        Self::Rejected,
        Self::Lapsed,
        Self::Agreed,
        Self::Deploying,
        Self::Running,
        Self::Degraded,
        Self::Cancelled,
        Self::Expired,
        Self::Wiped,
    ];

    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Rejected => "rejected",
            Self::Lapsed => "lapsed",
            Self::Agreed => "agreed",
            Self::Deploying => "deploying",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Wiped => "wiped",
        }
    }
}

/// A contract in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ContractSummary {
    /// Its id.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: ContractId,
    /// For people; of the version in force, or else of the newest.
    pub title: String,
    /// Who pays and signs.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub owner: IdentityId,
    /// How the owner wants to be called.
    pub owner_name: Option<String>,
    /// Where it stands.
    pub state: ContractState,
    /// Why it stands there, as sentences.
    pub reasons: Vec<String>,
    /// The newest version.
    pub version: u64,
    /// The version that has been agreed on, when there is one.
    pub in_force: Option<u64>,
    /// Who still has to sign the newest version, or a cancel.
    pub awaited: Vec<Awaited>,
    /// How many nodes it names.
    pub nodes: u64,
    /// When everything stops.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub expires: Timestamp,
}

/// Somebody who still has to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Awaited {
    /// Who.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub identity: IdentityId,
    /// How they want to be called, when they are known.
    pub name: Option<String>,
    /// What they answer for.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub role: Role,
    /// What their approval weighs.
    pub weight: u32,
    /// The version that is decided on.
    pub version: u64,
    /// What is decided.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub action: Action,
    /// The statement to approve: a header, or a cancel.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub subject: StatementId,
}

/// A contract with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ContractView {
    /// As in a list.
    #[serde(flatten)]
    pub summary: ContractSummary,
    /// What it is for.
    pub purpose: String,
    /// Every version, from 1 up.
    pub versions: Vec<VersionView>,
    /// Orders to end it.
    pub cancels: Vec<CancelView>,
    /// Each node, sorted by id, with what it reported.
    pub deployments: Vec<DeploymentView>,
}

/// A version of a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VersionView {
    /// Counts from 1.
    pub version: u64,
    /// Its header statement.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub header: StatementId,
    /// Whether everybody agreed who must.
    pub agreed: bool,
    /// What is missing, or who rejects; as sentences, under each policy that counts.
    pub missing: Vec<String>,
    /// Decisions made later do not count.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub approve_by: Timestamp,
    /// The stakeholders of this version, with what they decided.
    pub stakeholders: Vec<StakeholderView>,
    /// What may be executed.
    pub flists: Vec<FlistView>,
    /// Whether the registry has the documents for the nodes.
    pub documents: bool,
}

/// An flist that a version names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlistView {
    /// The name that workloads use.
    pub name: String,
    /// Hash of its body.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub digest: FlistId,
    /// Sum of its files, in bytes.
    pub bytes: u64,
    /// Who has to have signed it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub publisher: Option<contract::header::Publisher>,
}

/// Somebody whose decision counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StakeholderView {
    /// Who.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub identity: IdentityId,
    /// How they want to be called, when they are known.
    pub name: Option<String>,
    /// What they answer for.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub role: Role,
    /// What their approval weighs.
    pub weight: u32,
    /// What they decided, when they did.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub decision: Option<Decision>,
}

/// An order to end a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CancelView {
    /// The cancel statement.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: StatementId,
    /// The version that was in force.
    pub version: u64,
    /// For people.
    pub reason: String,
    /// Workloads stop at this time.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub effective_at: Timestamp,
    /// What becomes of the data.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub retention: Retention,
    /// Whether everybody agreed who must.
    pub agreed: bool,
    /// What is missing, as a sentence; `None` when agreed.
    pub missing: Option<String>,
}

/// A contract on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeploymentView {
    /// The node.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub node: NodeId,
    /// Whether signs of life come from it.
    pub online: bool,
    /// What it last reported of the contract as a whole.
    pub contract: Option<ResultView>,
    /// What it last reported of each workload, sorted by name. Workloads without a result included.
    pub workloads: Vec<WorkloadView>,
}

/// A workload on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkloadView {
    /// Its name in the document.
    pub name: String,
    /// The last result, when there is one.
    pub last: Option<ResultView>,
}

/// Every decision on a contract in the order of arrival, also those that no longer stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Decisions {
    /// Approval statements, at most [`DECISIONS_MAX`].
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub approvals: Vec<Envelope>,
    /// Ask again with `after=` this for what follows.
    pub next: u64,
}

/// Results in the order of their arrival.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Results {
    /// At most [`LIST_MAX`].
    pub results: Vec<ResultView>,
    /// Ask again with `after=` this for what follows.
    pub next: u64,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ResultView {
    /// Its statement.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: StatementId,
    /// Place in the order of arrival.
    pub arrival: u64,
    /// Who says so.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub node: NodeId,
    /// The boot during which it happened.
    pub boot: String,
    /// The node's own count.
    pub seq: u64,
    /// When, by the node's clock.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub at: Timestamp,
    /// When it arrived, by the registry's clock.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub received: Timestamp,
    /// The contract that it is about.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub contract: ContractId,
    /// Its version; 0 when none could be read.
    pub version: u64,
    /// The workload; `None` when it is about the contract as a whole.
    pub workload: Option<String>,
    /// What became of it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub state: State,
    /// A stable word for the reason.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// What ran, when something did.
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub ran: Option<Ran>,
    /// Whether the node had reported something else under this number before. It does not count.
    pub conflict: bool,
}
