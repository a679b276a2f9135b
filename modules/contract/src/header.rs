//! One version of a contract: who decides, what may be executed, where and until when.

use crate::{
    envelope::{Kind, Statement},
    id::{ContractId, FlistId, IdentityId, StatementId, sha256},
    identity::check_name,
    key::PublicKey,
    strict::Extensions,
    time::Timestamp,
};
use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

/// Stakeholders of one contract.
pub const STAKEHOLDERS_MAX: usize = 64;
/// Flists of one contract.
pub const FLISTS_MAX: usize = 256;
/// Mirrors of one flist.
pub const URLS_MAX: usize = 16;
/// Nodes of one contract.
pub const DEPLOYMENTS_MAX: u64 = 1_000_000;
/// Five years, the longest that a contract may last.
pub const LIFETIME_MAX_S: i64 = 5 * 366 * 24 * 3600;

/// The id that a contract keeps over all its versions.
pub fn contract_id(owner: &IdentityId, nonce: &Nonce) -> ContractId {
    let mut text = Vec::from(*b"zos-contract\0");
    text.extend_from_slice(&owner.0);
    text.extend_from_slice(nonce.0.as_bytes());
    ContractId(sha256(&text))
}

/// The signed payload of a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The grid that it belongs to.
    pub network: String,
    /// [`contract_id`] of owner and nonce.
    pub contract: ContractId,
    /// Makes two contracts of one owner differ; fixed at version 1.
    pub nonce: Nonce,
    /// Counts from 1.
    pub version: u64,
    /// The header of the former version.
    pub prev: Option<StatementId>,
    /// Who pays and signs.
    pub owner: IdentityId,
    /// For people.
    pub title: String,
    /// What it is for, for the stakeholders to judge.
    pub purpose: String,
    /// What it takes to agree.
    pub policy: Policy,
    /// Sorted by identity, unique.
    pub stakeholders: Vec<Stakeholder>,
    /// Decisions made later do not count.
    pub approve_by: Timestamp,
    /// Nothing starts before.
    pub not_before: Timestamp,
    /// A node that has not started it by then does not start it any more.
    pub start_by: Timestamp,
    /// Everything stops.
    pub expires: Timestamp,
    /// The capacity grant that pays for it.
    pub pool: StatementId,
    /// Every byte that a node may execute hangs off these; sorted by name, unique.
    pub flists: Vec<Flist>,
    /// The deployment documents, one for each node.
    pub deployments: Deployments,
    /// How it is executed.
    pub execution: Execution,
    /// What later versions of the format may add. Changes no meaning.
    #[serde(default, skip_serializing_if = "Extensions::is_empty")]
    pub extensions: Extensions,
}

/// 16 bytes, as 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub String);

/// A rule for each action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// To start version 1.
    pub create: Rule,
    /// To replace a version by the next.
    pub update: Rule,
    /// To end the contract early.
    pub cancel: Rule,
}

/// What it takes to agree. All parts must be fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Each of these must approve; sorted, unique. A reject of one of them blocks.
    pub required: Vec<IdentityId>,
    /// So many stakeholders of a role must approve; sorted by role, unique.
    pub roles: Vec<RoleQuorum>,
    /// The weights of those who approve must reach this; at least 1.
    pub min_weight: u32,
    /// A reject of anybody in such a role blocks; sorted, unique.
    pub veto_roles: Vec<Role>,
}

/// So many of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleQuorum {
    /// The role.
    pub role: Role,
    /// How many must approve; at least 1.
    pub min: u32,
}

/// What a stakeholder answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The budget.
    Budget,
    /// The quality of the code and its operation.
    It,
    /// Law, for example data protection.
    Legal,
    /// Security.
    Security,
    /// Anything else.
    Other,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Budget => "budget",
            Self::It => "it",
            Self::Legal => "legal",
            Self::Security => "security",
            Self::Other => "other",
        })
    }
}

/// Somebody whose decision counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stakeholder {
    /// Who it is.
    pub identity: IdentityId,
    /// What they answer for.
    pub role: Role,
    /// What their approval weighs.
    pub weight: u32,
}

/// An flist that the contract may execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flist {
    /// The name that workloads use.
    pub name: String,
    /// Hash of the flist's body.
    pub digest: FlistId,
    /// Sum of its files, in bytes.
    pub bytes: u64,
    /// Where it can be fetched. None of these places is trusted.
    pub urls: Vec<String>,
    /// Who has to have signed it, besides those who agree on the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<Publisher>,
}

/// Whose flist it has to be: a node begins only with what has a [`crate::Release`] of this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// The publisher's key.
    pub key: PublicKey,
    /// The lowest revision that will do; at least 1.
    pub revision: u64,
}

/// The deployment documents under a Merkle root (RFC 6962), sorted by node id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployments {
    /// How many there are; at least 1.
    pub count: u64,
    /// [`crate::merkle::root`] of their bytes.
    pub root: StatementId,
}

/// How a contract is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// What a node does that cannot reach the registry.
    pub on_partition: OnPartition,
}

/// What a node does that cannot reach the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartition {
    /// Goes on until the contract expires.
    Keep,
    /// Stops the workloads after so many seconds, and starts them again on contact.
    StopAfterS(u32),
}

impl Rule {
    fn check(&self, stakeholders: &[Stakeholder]) -> Result<(), &'static str> {
        let is_stakeholder =
            |id: &IdentityId| stakeholders.iter().any(|holder| holder.identity == *id);
        match self {
            _ if self.min_weight == 0 => Err("a rule's min_weight is at least 1"),
            _ if !self.required.is_sorted_by(|a, b| a < b) => {
                Err("required identities are sorted and unique")
            }
            _ if !self.required.iter().all(is_stakeholder) => {
                Err("every required identity is a stakeholder")
            }
            _ if !self.roles.is_sorted_by(|a, b| a.role < b.role) => {
                Err("role quorums are sorted and unique")
            }
            _ if self.roles.iter().any(|quorum| quorum.min == 0) => {
                Err("a role quorum is at least 1")
            }
            _ if !self.veto_roles.is_sorted_by(|a, b| a < b) => {
                Err("veto roles are sorted and unique")
            }
            _ => Ok(()),
        }
    }
}

impl Statement for Header {
    const KIND: Kind = Kind::Contract;
    const BYTES_MAX: usize = 1024 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        check_name(&self.title)?;
        self.nonce.check()?;
        if contract_id(&self.owner, &self.nonce) != self.contract {
            return Err("the contract id is the hash of owner and nonce");
        }
        if (self.version == 1) != self.prev.is_none() || self.version == 0 {
            return Err("version 1 has no former version, every other has one");
        }
        if self.purpose.len() > 4096 {
            return Err("the purpose has at most 4096 bytes");
        }
        let stakeholders = &self.stakeholders;
        if stakeholders.is_empty() || stakeholders.len() > STAKEHOLDERS_MAX {
            return Err("a contract has 1 to 64 stakeholders");
        }
        if !stakeholders.is_sorted_by(|a, b| a.identity < b.identity) {
            return Err("stakeholders are sorted by identity and unique");
        }
        for rule in [&self.policy.create, &self.policy.update, &self.policy.cancel] {
            rule.check(stakeholders)?;
        }
        if !(self.not_before <= self.start_by && self.start_by <= self.expires) {
            return Err("not_before ≤ start_by ≤ expires");
        }
        if self.approve_by > self.expires {
            return Err("approve_by ≤ expires");
        }
        if self.expires.seconds() - self.not_before.seconds() > LIFETIME_MAX_S {
            return Err("a contract lasts at most five years");
        }
        if self.deployments.count == 0 || self.deployments.count > DEPLOYMENTS_MAX {
            return Err("a contract has 1 to 1,000,000 deployments");
        }
        if self.flists.len() > FLISTS_MAX {
            return Err("a contract names at most 256 flists");
        }
        if !self.flists.is_sorted_by(|a, b| a.name < b.name) {
            return Err("flists are sorted by name and unique");
        }
        if !self.flists.iter().all(|flist| self.demands_the_same_of(flist)) {
            return Err("an flist that is named twice is of the same publisher and revision");
        }
        self.flists.iter().try_for_each(Flist::check)
    }
}

impl Header {
    /// Whether nothing else is demanded of this flist under another name.
    fn demands_the_same_of(&self, flist: &Flist) -> bool {
        let others = self.flists.iter().filter(|other| other.digest == flist.digest);
        others.map(|other| &other.publisher).all(|publisher| *publisher == flist.publisher)
    }
}

impl Flist {
    fn check(&self) -> Result<(), &'static str> {
        crate::workload::check_label(&self.name)?;
        match self.urls.len() {
            0 => Err("an flist has at least one url"),
            n if n > URLS_MAX => Err("an flist has at most 16 urls"),
            _ if self.urls.iter().any(|url| url.len() > 2048 || !is_http(url)) => {
                Err("an flist's url starts with http:// or https:// and has at most 2048 bytes")
            }
            _ if self.publisher.as_ref().is_some_and(|publisher| publisher.revision == 0) => {
                Err("a publisher's revision counts from 1")
            }
            _ => Ok(()),
        }
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

impl Nonce {
    fn check(&self) -> Result<(), &'static str> {
        let digits = self.0.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        if self.0.len() == 32 && digits { Ok(()) } else { Err("a nonce has 32 hexadecimal digits") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::SigningKey, testkit::World};

    #[test]
    fn an_flist_that_is_named_twice_has_one_demand() {
        let demand = |seed: u8, revision| {
            let key = SigningKey::from_seed(&[seed; 32]).public();
            Some(Publisher { key, revision })
        };
        let check = |first: &Option<Publisher>, second: &Option<Publisher>, same_flist: bool| {
            let mut header = World::new(Timestamp::from_seconds(1_800_000_000)).header(1, None);
            let one = Flist { publisher: first.clone(), ..header.flists[0].clone() };
            let digest = if same_flist { one.digest } else { FlistId([0x5a; 32]) };
            let name = alloc::format!("{}2", one.name);
            let other = Flist { name, digest, publisher: second.clone(), ..one.clone() };
            header.flists = alloc::vec![one, other];
            header.check()
        };
        for demanded in [None, demand(1, 3)] {
            assert_eq!(check(&demanded, &demanded, true), Ok(()));
        }
        for second in [None, demand(1, 4), demand(2, 3)] {
            assert!(check(&demand(1, 3), &second, true).is_err(), "{second:?}");
            assert!(check(&second, &demand(1, 3), true).is_err(), "{second:?}");
            assert_eq!(check(&demand(1, 3), &second, false), Ok(()));
        }
    }
}
