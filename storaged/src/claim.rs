//! The ownership record of a disk.
//!
//! It is written before the file system and stands outside of it, so that a power cut while a pool
//! is being made leaves a disk that says whose it is and that nothing of value is on it yet.
//!
//! ```text
//! 0      48 KiB   64 KiB                                   size - 16 MiB        size
//! |  ...  |slot|    | btrfs superblock ... file system ...  |slot|  unused ...   |
//! ```
//!
//! mkfs.btrfs clears the first two MiB, so the record of a disk in the making stands at the end
//! alone. The record at the start is written once the pool is made; it is found even when a virtual
//! disk has grown. Of two good records the one with the higher generation counts.
//!
//! A record fits in one 512-byte sector, which a disk writes whole or not at all.

use crate::uuid::Uuid;
use node_api::storaged::DiskClass;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The end of the disk that the file system leaves free. Signatures that other systems keep at the
/// end of a disk (GPT, RAID, ZFS) stay visible there.
const TAIL_BYTES: u64 = 16 << 20;
/// Where the record at the start stands: before the first btrfs superblock, behind boot sectors.
const SLOT_START: u64 = 48 << 10;
/// What a slot occupies; only the first sector of it is used.
pub const SLOT_BYTES: usize = 4096;
/// The smallest unit that every disk writes whole.
const SECTOR: usize = 512;
/// File systems end on this boundary.
const MIB: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"ZOSCLAIM";
/// Version of the layout: magic, length (u16), JSON, then SHA-256 in the last 32 bytes.
const VERSION: u16 = 1;
const HEADER: usize = 12;
const CHECKSUM: usize = 32;
/// A serial number beyond this is cut; it keeps the record inside one sector.
const SERIAL_MAX: usize = 128;

/// No disk is claimed so often. A record that says so is not ours, and could not be followed.
const GENERATION_MAX: u64 = 1 << 32;

/// What the node says on a disk that it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Counts the records on this disk.
    pub generation: u64,
    /// How far the pool is.
    pub phase: Phase,
    /// Whether a takeover order was carried out on this disk. It is not carried out twice.
    pub takeover: bool,
    /// Recorded once; what the kernel says on later boots does not change it.
    pub class: DiskClass,
    /// File system UUID, in its printed form.
    pool: String,
    /// Size of the disk when it was claimed.
    pub size_bytes: u64,
    /// Serial number of the disk when it was claimed.
    pub serial: String,
}

/// How far the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// mkfs has not finished; nobody has stored anything.
    Making,
    /// The file system was complete; from now on it holds data of somebody.
    Made,
}

impl Claim {
    /// The first record of a new pool, to be written before mkfs.
    pub fn making(
        generation: u64,
        takeover: bool,
        class: DiskClass,
        pool: Uuid,
        size_bytes: u64,
        serial: &str,
    ) -> Self {
        let pool = pool.to_string();
        let serial = cut(serial).to_owned();
        Self { generation, phase: Phase::Making, takeover, class, pool, size_bytes, serial }
    }

    /// The record that follows this one when mkfs has finished.
    pub fn made(&self) -> Self {
        Self { generation: self.generation + 1, phase: Phase::Made, ..self.clone() }
    }

    /// File system UUID.
    pub fn pool(&self) -> Uuid {
        Uuid::parse(&self.pool).expect("decode accepts nothing else, making prints one")
    }

    /// Whether this record was written on a disk with this serial number and size.
    pub fn is_of(&self, serial: &str, size_bytes: u64) -> bool {
        self.serial == cut(serial) && self.size_bytes == size_bytes
    }

    /// The content of a slot.
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("plain fields always have a JSON form");
        assert!(HEADER + json.len() + CHECKSUM <= SECTOR, "SERIAL_MAX bounds the only long field");
        let length = u16::try_from(json.len()).expect("shorter than a sector");
        let mut slot = vec![0; SLOT_BYTES];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..10].copy_from_slice(&VERSION.to_le_bytes());
        slot[10..HEADER].copy_from_slice(&length.to_le_bytes());
        slot[HEADER..HEADER + json.len()].copy_from_slice(&json);
        let checksum = Sha256::digest(&slot[..SECTOR - CHECKSUM]);
        slot[SECTOR - CHECKSUM..SECTOR].copy_from_slice(&checksum);
        slot
    }

    /// Reads a slot; `None` unless every check holds.
    pub fn decode(slot: &[u8]) -> Option<Self> {
        let sector = slot.get(..SECTOR)?;
        let (body, checksum) = sector.split_at(SECTOR - CHECKSUM);
        let length = usize::from(u16::from_le_bytes([body[10], body[11]]));
        let json = body.get(HEADER..HEADER + length)?;
        let good = has_magic(slot)
            && body[8..10] == VERSION.to_le_bytes()
            && Sha256::digest(body).as_slice() == checksum;
        let claim: Self = good.then(|| serde_json::from_slice(json).ok())??;
        let countable = claim.generation < GENERATION_MAX;
        Uuid::parse(&claim.pool).filter(|_| countable).map(|_| claim)
    }
}

/// Whether a slot was meant to hold a record, readable or not.
pub fn has_magic(slot: &[u8]) -> bool {
    slot.starts_with(MAGIC)
}

/// Offsets of the slots on a disk of this size: at the end, then at the start.
pub fn slots(size_bytes: u64) -> [u64; 2] {
    [file_system_bytes(size_bytes), SLOT_START]
}

/// How much of a disk the file system gets.
pub fn file_system_bytes(size_bytes: u64) -> u64 {
    size_bytes.saturating_sub(TAIL_BYTES) / MIB * MIB
}

/// The record that counts.
pub fn newest(slots: [Option<Claim>; 2]) -> Option<Claim> {
    slots.into_iter().flatten().max_by_key(|claim| claim.generation)
}

fn cut(serial: &str) -> &str {
    // JSON escapes would let a short serial outgrow the sector.
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    let end = serial.find(|c: char| !plain(c)).unwrap_or(serial.len());
    &serial[..end.min(SERIAL_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(serial: &str) -> Claim {
        let pool = Uuid::from_random([9; 16]);
        Claim::making(GENERATION_MAX - 2, true, DiskClass::Nvme, pool, u64::MAX, serial)
    }

    #[test]
    fn a_record_survives_the_disk() {
        let claim = sample("S3RIAL");
        assert_eq!(Claim::decode(&claim.encode()), Some(claim.clone()));
        assert_eq!(claim.made().phase, Phase::Made);
        assert_eq!(newest([Some(claim.clone()), Some(claim.made())]), Some(claim.made()));
    }

    #[test]
    fn the_longest_and_strangest_serial_still_fits_in_one_sector() {
        for serial in ["x".repeat(4000), "\u{1}\"\\".repeat(500), "é".repeat(300)] {
            let claim = sample(&serial);
            let slot = claim.encode();
            assert!(slot[SECTOR..].iter().all(|byte| *byte == 0));
            assert_eq!(Claim::decode(&slot), Some(claim.clone()));
            assert!(claim.is_of(&serial, u64::MAX));
        }
    }

    #[test]
    fn one_wrong_bit_anywhere_is_noticed() {
        let slot = sample("S").encode();
        for bit in 0..SECTOR * 8 {
            let mut wrong = slot.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Claim::decode(&wrong), None, "bit {bit}");
        }
        assert_eq!(Claim::decode(&[]), None);
    }

    #[test]
    fn the_slots_do_not_touch_the_file_system() {
        for size_bytes in [1 << 30, (1 << 30) + 512, 4_000_787_030_016] {
            let [end, start] = slots(size_bytes);
            assert!(end >= file_system_bytes(size_bytes) && end + 4096 <= size_bytes);
            assert!(start + 4096 <= 64 << 10);
        }
    }
}
