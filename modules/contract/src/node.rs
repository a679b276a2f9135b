//! A node and its hardware, signed by the node's own key.

use crate::{
    capacity::Capacity,
    envelope::{Kind, Statement},
    id::{IdentityId, NodeId},
    identity::check_name,
    key::PublicKey,
    scrub::Scrubbed,
    time::Timestamp,
};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Disks or network cards that one node may list.
pub const DEVICES_MAX: usize = 256;

/// The id of the node that holds this key.
pub fn node_id(key: &PublicKey) -> NodeId {
    NodeId::of(&key.to_bytes())
}

/// The payload of a node statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The grid that it belongs to.
    pub network: String,
    /// The node's key; its hash is the node's id.
    pub key: PublicKey,
    /// The farm that the node wants to belong to.
    pub farm: IdentityId,
    /// Counts up with every change; the highest version is in force.
    pub version: u64,
    /// When it was written, by the node's clock.
    pub issued: Timestamp,
    /// Version of the image that it runs.
    pub image: String,
    /// What the machine is made of.
    pub hardware: Hardware,
    /// What is left for workloads when nothing runs.
    pub capacity: Capacity,
    /// How far the above is proven.
    pub evidence: Evidence,
    /// Why the node is not fully usable, as sentences; empty when it is.
    pub degraded: Vec<String>,
    /// What became of the last order to read the store through that the node has heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrubbed>,
}

/// How far a node's claims are proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The node says so.
    SelfReported,
}

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Maker of the machine (SMBIOS).
    pub vendor: String,
    /// Its product name (SMBIOS).
    pub product: String,
    /// CPU model.
    pub cpu: String,
    /// Logical cores.
    pub cores: u32,
    /// Installed memory that the kernel sees, in bytes.
    pub memory_bytes: u64,
    /// Sorted by name.
    pub disks: Vec<Disk>,
    /// Sorted by name.
    pub nics: Vec<Nic>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Kernel name.
    pub name: String,
    /// Model, as the disk says it.
    pub model: String,
    /// Capacity in bytes.
    pub size_bytes: u64,
    /// `nvme`, `ssd` or `hdd`.
    pub class: String,
    /// `pool`, `foreign`, `too_small`, `ignored` or `failed`.
    pub state: String,
    /// Why it is in this state.
    pub reason: String,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Kernel driver.
    pub driver: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
}

impl Statement for Node {
    const KIND: Kind = Kind::Node;
    const BYTES_MAX: usize = 256 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        check_name(&self.image)?;
        self.scrub.as_ref().map_or(Ok(()), Scrubbed::check)?;
        match (self.hardware.disks.len(), self.hardware.nics.len()) {
            _ if self.version == 0 => Err("versions count from 1"),
            (disks, nics) if disks > DEVICES_MAX || nics > DEVICES_MAX => {
                Err("a node lists at most 256 disks and 256 network cards")
            }
            _ => Ok(()),
        }
    }
}
