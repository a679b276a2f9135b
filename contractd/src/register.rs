//! The node's own statement: what it is made of, what it offers, what ails it.
//!
//! A new version is signed when anything has changed. Its number is remembered; a node that lost
//! its state counts on from the clock, so that it never falls behind a version it has published.

use crate::{
    database::{Database, DatabaseError},
    storage::Pool,
};
use contract::{
    Capacity, Envelope, IdentityId, NodeId, SigningKey, Timestamp,
    farm::Adoption,
    node::{DEVICES_MAX, Disk, Evidence, Hardware, Nic, Node},
    scrub::Scrubbed,
    workload::Medium,
};
use inventory::Inventory;
use node_api::{
    netd,
    storaged::{self, DiskClass, DiskState},
};

/// What the other daemons know of the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) inventory: Inventory,
    pub(crate) disks: storaged::DisksReply,
    pub(crate) network: netd::StatusReply,
    /// What else ails the node, as sentences.
    pub(crate) degraded: Vec<String>,
    /// What became of the farm's last order to read the store through.
    pub(crate) scrubbed: Option<Scrubbed>,
}

/// Capacity for workloads: a node that has no pool offers no storage.
pub(crate) fn capacity(machine: &Machine) -> Capacity {
    let pools = |wanted: &dyn Fn(DiskClass) -> bool| -> u64 {
        let of_class = machine.disks.disks.iter().filter(|disk| wanted(disk.class));
        of_class.filter_map(|disk| disk.pool.as_ref()).map(|pool| pool.size_bytes).sum()
    };
    let flash = pools(&|class| matches!(class, DiskClass::Nvme | DiskClass::Ssd));
    let rotating = pools(&|class| class == DiskClass::Hdd);
    inventory::capacity(&machine.inventory, flash, rotating)
}

/// The pools that can hold volumes.
pub(crate) fn pools(machine: &Machine) -> Vec<Pool> {
    let pool = |disk: &storaged::Disk| {
        let medium = match disk.class {
            DiskClass::Nvme | DiskClass::Ssd => Medium::Ssd,
            DiskClass::Hdd => Medium::Hdd,
        };
        let pool = disk.pool.as_ref()?;
        Some(Pool { uuid: pool.uuid.clone(), medium, size_bytes: pool.size_bytes })
    };
    machine.disks.disks.iter().filter_map(pool).collect()
}

/// The node's statement as it would be now, without number and time.
pub(crate) fn describe(
    machine: &Machine,
    key: &SigningKey,
    network: &str,
    farm: IdentityId,
    image: &str,
) -> Node {
    let inventory = &machine.inventory;
    let disks = machine.disks.disks.iter().take(DEVICES_MAX).map(disk).collect();
    let nics = inventory.nics.iter().take(DEVICES_MAX).map(|nic| {
        let link = machine.network.links.iter().find(|link| link.name == nic.name);
        Nic {
            name: nic.name.clone(),
            mac: nic.mac.clone(),
            driver: nic.driver.clone(),
            addresses: link.map(|link| link.addresses.clone()).unwrap_or_default(),
        }
    });
    let mut degraded = machine.degraded.clone();
    if machine.disks.primary_pool.is_none() {
        degraded.push("no usable disk: state and files are in memory only".to_owned());
    }
    Node {
        network: network.to_owned(),
        key: key.public(),
        farm,
        version: 1,
        issued: Timestamp::from_seconds(0),
        image: image.to_owned(),
        hardware: Hardware {
            vendor: inventory.vendor.clone(),
            product: inventory.product.clone(),
            cpu: inventory.cpu.clone(),
            cores: inventory.cores,
            memory_bytes: inventory.memory_bytes,
            disks,
            nics: nics.collect(),
        },
        capacity: capacity(machine),
        evidence: Evidence::SelfReported,
        degraded,
        scrub: machine.scrubbed.clone(),
    }
}

fn disk(disk: &storaged::Disk) -> Disk {
    Disk {
        name: disk.name.clone(),
        model: disk.model.clone(),
        size_bytes: disk.size_bytes,
        class: class_name(disk.class).to_owned(),
        state: state_name(disk.state).to_owned(),
        reason: disk.reason.clone(),
    }
}

fn class_name(class: DiskClass) -> &'static str {
    match class {
        DiskClass::Nvme => "nvme",
        DiskClass::Ssd => "ssd",
        DiskClass::Hdd => "hdd",
    }
}

pub(crate) fn state_name(state: DiskState) -> &'static str {
    match state {
        DiskState::Pool => "pool",
        DiskState::Foreign => "foreign",
        DiskState::TooSmall => "too_small",
        DiskState::Ignored => "ignored",
        DiskState::Failed => "failed",
    }
}

/// Signs the statement: the last one again when nothing has changed since, else a new version.
pub(crate) fn sign(
    mut node: Node,
    database: &Database,
    key: &SigningKey,
    now: Timestamp,
) -> Result<Option<Envelope>, DatabaseError> {
    let content = serde_json::to_string(&node).expect("a node is strings and numbers");
    let last = database.fact("node-content")?;
    let envelope = database.fact("node-envelope")?;
    if last.as_deref() == Some(content.as_str())
        && let Some(envelope) = envelope.and_then(|text| serde_json::from_str(&text).ok())
    {
        return Ok(Some(envelope));
    }
    let version = database.fact("node-version")?.and_then(|text| text.parse::<u64>().ok());
    let by_clock = u64::try_from(now.seconds()).unwrap_or(0).max(1);
    node.version = version.map_or(by_clock, |version| version.saturating_add(1));
    node.issued = now;
    let envelope = match Envelope::seal(&node, &[key]) {
        Ok(envelope) => envelope,
        Err(error) => {
            daemon::error!("signing the node's statement: {}", daemon::chain(&error));
            return Ok(None);
        }
    };
    // The number first: it may be skipped, and must never be used twice.
    database.set_fact("node-version", &node.version.to_string())?;
    let text = serde_json::to_string(&envelope).expect("an envelope is strings");
    database.set_fact("node-envelope", &text)?;
    database.set_fact("node-content", &content)?;
    Ok(Some(envelope))
}

/// The farm's consent, signed with the enrolment token of the boot configuration. Made once.
pub(crate) fn adoption(
    database: &Database,
    token: &SigningKey,
    network: &str,
    farm: IdentityId,
    node: NodeId,
    now: Timestamp,
) -> Result<Option<Envelope>, DatabaseError> {
    let name = format!("adoption-{farm}-{}", token.public());
    if let Some(envelope) = database.fact(&name)?.and_then(|text| serde_json::from_str(&text).ok())
    {
        return Ok(Some(envelope));
    }
    let adoption = Adoption { network: network.to_owned(), farm, node, issued: now };
    let Ok(envelope) = Envelope::seal(&adoption, &[token]) else { return Ok(None) };
    let text = serde_json::to_string(&envelope).expect("an envelope is strings");
    database.set_fact(&name, &text)?;
    Ok(Some(envelope))
}
