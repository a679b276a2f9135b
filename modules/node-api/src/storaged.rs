//! Disks, pools, volumes, and the node's identity, which lives on every pool.

use crate::{init::Done, method};
use serde::{Deserialize, Serialize};

/// Every disk of the machine and what became of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Disks {}
method!(Disks, "io.zeroos.storaged.Disks", DisksReply);

/// Answer to [`Disks`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DisksReply {
    /// Sorted by name.
    pub disks: Vec<Disk>,
    /// Where `/state` and `/store` live. `None`: on memory, gone at power-off.
    pub primary_pool: Option<String>,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Kernel name, for example `nvme0n1`.
    pub name: String,
    /// As printed on the label; empty when the disk has none.
    pub serial: String,
    /// Model, as the disk says it.
    pub model: String,
    /// Capacity in bytes.
    pub size_bytes: u64,
    /// What kind of medium it is.
    pub class: DiskClass,
    /// What storaged did with it.
    pub state: DiskState,
    /// Why it is in this state, as a sentence that says what to do if anything is to be done.
    pub reason: String,
    /// The pool on it, when it is ours.
    pub pool: Option<Pool>,
}

/// What kind of medium a disk is. Recorded on the pool when it is made, and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskClass {
    /// Flash on the PCIe bus.
    Nvme,
    /// Flash behind SATA, SAS or virtio.
    Ssd,
    /// Rotating.
    Hdd,
}

/// What storaged did with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Holds one of our pools, mounted.
    Pool,
    /// Holds something that is not ours. Never written.
    Foreign,
    /// Below the smallest useful size.
    TooSmall,
    /// Removable, read-only or the boot medium.
    Ignored,
    /// Could not be read or written, or its pool could not be mounted.
    Failed,
}

/// A btrfs pool: one for each adopted disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// File system UUID.
    pub uuid: String,
    /// Usable bytes.
    pub size_bytes: u64,
    /// Bytes not yet used.
    pub free_bytes: u64,
}

/// The disks that are not the node's: they are never written, and may be read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Strangers {}
method!(Strangers, "io.zeroos.storaged.Strangers", StrangersReply);

/// Answer to [`Strangers`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StrangersReply {
    /// Sorted by name.
    pub disks: Vec<Stranger>,
}

/// A disk that is not the node's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stranger {
    /// Kernel name.
    pub name: String,
    /// Another medium under the same name has another number.
    pub sequence: u64,
    /// Capacity in bytes.
    pub size_bytes: u64,
}

/// Opens one of [`Strangers`] for reading; its descriptor comes with the answer. Without one: the disk
/// holds a pool, and is not lent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lend {
    /// As it was listed.
    pub disk: Stranger,
}
method!(Lend, "io.zeroos.storaged.Lend", Done);

/// The node's secret: the same on every pool, made once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Identity {}
method!(Identity, "io.zeroos.storaged.Identity", IdentityReply);

/// Answer to [`Identity`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityReply {
    /// 32 bytes, hexadecimal. `None` when the pools disagree or an earlier identity cannot be read.
    pub seed: Option<String>,
    /// Whether it survives a power-off.
    pub durable: bool,
    /// Why there is none, or why it is not durable.
    pub problem: Option<String>,
}

/// Makes a volume, or changes its quota when it exists. Calling it twice changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeEnsure {
    /// Deterministic id, `[a-z0-9-]{1,64}`.
    pub id: String,
    /// Quota in bytes.
    pub size_bytes: u64,
    /// Medium wanted; `None` takes any.
    pub class: Option<DiskClass>,
}
method!(VolumeEnsure, "io.zeroos.storaged.VolumeEnsure", VolumeReply);

/// Answer to [`VolumeEnsure`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeReply {
    /// Directory that holds its files.
    pub path: String,
}

/// All volumes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Volumes {}
method!(Volumes, "io.zeroos.storaged.Volumes", VolumesReply);

/// Answer to [`Volumes`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumesReply {
    /// Sorted by id.
    pub volumes: Vec<Volume>,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The id it was made under.
    pub id: String,
    /// UUID of its pool.
    pub pool: String,
    /// Quota in bytes.
    pub size_bytes: u64,
}

/// Deletes a volume and its data. The caller holds a signed order; its id is recorded in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeDelete {
    /// Id of the volume; one that does not exist is not an error.
    pub id: String,
    /// Statement id of the order.
    pub order: String,
}
method!(VolumeDelete, "io.zeroos.storaged.VolumeDelete", Done);
