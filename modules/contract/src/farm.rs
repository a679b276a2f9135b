//! What a farm signs: itself, its consent to nodes, and the capacity that it grants.

use crate::{
    capacity::Amounts,
    envelope::{Kind, Signed, Statement},
    id::{IdentityId, NodeId},
    identity::{Signer, check_name},
    key::PublicKey,
    time::Timestamp,
};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Enrolment keys that one farm may have at a time.
pub const ENROLMENT_MAX: usize = 64;
/// Nodes that one pool may span.
pub const POOL_NODES_MAX: usize = 10_000;

/// The payload of a farm statement, signed by the farm's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Farm {
    /// The grid that it belongs to.
    pub network: String,
    /// The identity that owns the farm; the farm goes by this id.
    pub farm: IdentityId,
    /// Counts up; the highest valid version is in force.
    pub version: u64,
    /// How the farmer calls it.
    pub name: String,
    /// Where it stands, as the farmer puts it.
    pub location: String,
    /// Keys whose holder may adopt nodes in the farm's name: the tokens baked into boot images.
    pub enrolment: Vec<EnrolmentKey>,
}

/// A key that may adopt nodes until it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentKey {
    /// Public half of the token.
    pub key: PublicKey,
    /// Adoptions issued from then on are void.
    pub expires: Timestamp,
}

impl Statement for Farm {
    const KIND: Kind = Kind::Farm;
    const BYTES_MAX: usize = 64 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        check_name(&self.name)?;
        check_name(&self.location)?;
        match self.enrolment.len() {
            _ if self.version == 0 => Err("versions count from 1"),
            n if n > ENROLMENT_MAX => Err("a farm has at most 64 enrolment keys"),
            _ if !self.enrolment.is_sorted_by(|a, b| a.key < b.key) => {
                Err("enrolment keys are sorted and unique")
            }
            _ => Ok(()),
        }
    }
}

/// The farm's consent to a node, signed by the farm's identity or by one of its enrolment keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    /// The grid that it belongs to.
    pub network: String,
    /// The farm that adopts.
    pub farm: IdentityId,
    /// The node that is adopted.
    pub node: NodeId,
    /// When it was written.
    pub issued: Timestamp,
}

impl Statement for Adoption {
    const KIND: Kind = Kind::Adoption;
    const BYTES_MAX: usize = 4 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Whether `adoption` carries the farm's consent: its own signature, or that of an enrolment key
/// that the farm statement lists and that had not expired when the adoption was issued.
pub fn consents(owner: &Signer, farm: &Signed<Farm>, adoption: &Signed<Adoption>) -> bool {
    let about_this_farm = farm.body.farm == owner.id
        && adoption.body.farm == owner.id
        && farm.body.network == owner.identity.network
        && adoption.body.network == owner.identity.network;
    let by_token = farm
        .body
        .enrolment
        .iter()
        .any(|token| adoption.body.issued < token.expires && adoption.signed_by(&token.key));
    about_this_farm && owner.signed(farm) && (owner.signed(adoption) || by_token)
}

/// Capacity that a farm grants to an owner of contracts, signed by the farm's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The grid that it belongs to.
    pub network: String,
    /// The farm that grants.
    pub farm: IdentityId,
    /// Who may use it.
    pub owner: IdentityId,
    /// On which nodes; sorted, unique.
    pub nodes: Vec<NodeId>,
    /// How much, over the pool's whole life.
    pub amounts: Amounts,
    /// Nothing may use it from then on.
    pub expires: Timestamp,
    /// Makes two equal grants differ.
    pub serial: u64,
}

impl Statement for Pool {
    const KIND: Kind = Kind::Pool;
    const BYTES_MAX: usize = 1024 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        match self.nodes.len() {
            0 => Err("a pool names at least one node"),
            n if n > POOL_NODES_MAX => Err("a pool names at most 10,000 nodes"),
            _ if !self.nodes.is_sorted_by(|a, b| a < b) => Err("nodes are sorted and unique"),
            _ => Ok(()),
        }
    }
}
