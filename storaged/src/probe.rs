//! Reads what a disk says. Opens read-only; writes nothing.
//!
//! Blank means: everything that is looked at is zero, namely the first [`BLANK_START`] and the last
//! [`BLANK_END`] bytes, where every known system keeps its first and last block, and
//! [`BLANK_SAMPLES`] places in between. One other byte makes the disk foreign.

use crate::claim::{self, Claim, SLOT_BYTES};
use crate::decide::{Content, Traces};
use crate::signature::{self, REGION_BYTES};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Start of the disk that has to be zero.
const BLANK_START: u64 = 8 << 20;
/// End of the disk that has to be zero.
const BLANK_END: u64 = 32 << 20;
/// Places in between; a rotating disk reads them in about a second.
const BLANK_SAMPLES: u64 = 128;
/// Bytes read at each place, and at a time.
const CHUNK: usize = 64 << 10;

/// What the disk behind `path` says. `boot` is the partition that the firmware started us from.
pub fn probe(path: &Path, size_bytes: u64, boot: Option<[u8; 16]>) -> Content {
    File::open(path)
        .and_then(|disk| read(&disk, size_bytes, boot))
        .unwrap_or_else(|error| Content::Unreadable(format!("cannot be read: {error}")))
}

/// The same for an open disk.
pub fn read(disk: &File, size_bytes: u64, boot: Option<[u8; 16]>) -> io::Result<Content> {
    let region = size_bytes.min(REGION_BYTES as u64);
    let head = read_at(disk, 0, region)?;
    if boot.is_some_and(|boot| signature::gpt_partitions(&head).contains(&boot)) {
        return Ok(Content::BootMedium);
    }
    let tail = read_at(disk, size_bytes - region, region)?;
    let foreign = signature::foreign(&head, &tail, size_bytes);
    let btrfs = signature::btrfs(&head);
    let [end, start] = claim::slots(size_bytes);
    let slot = |at| read_at(disk, at, SLOT_BYTES as u64).map(|slot| Claim::decode(&slot));
    let claim = claim::newest([slot(end)?, slot(start)?]);
    let nothing = foreign.is_empty() && btrfs.is_none() && claim.is_none();
    let blank = nothing && is_blank(disk, size_bytes)?;
    Ok(Content::Read(Traces { claim, btrfs, foreign, blank }))
}

/// A record of ours that was torn while it was written does not make a disk foreign: it was the
/// first thing ever written there.
fn is_blank(disk: &File, size_bytes: u64) -> io::Result<bool> {
    let slots = claim::slots(size_bytes);
    let zeros = vec![0; CHUNK];
    for (offset, length) in places(size_bytes) {
        let mut bytes = read_at(disk, offset, length)?;
        for slot in slots {
            blind(&mut bytes, offset, slot);
        }
        if bytes != zeros[..bytes.len()] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Clears our torn record, when it stands in these bytes.
fn blind(bytes: &mut [u8], offset: u64, slot: u64) {
    let Some(inside) = slot.checked_sub(offset).and_then(|at| usize::try_from(at).ok()) else {
        return;
    };
    let end = bytes.len().min(inside.saturating_add(SLOT_BYTES));
    if let Some(slot) = bytes.get_mut(inside..end).filter(|slot| claim::has_magic(slot)) {
        slot.fill(0);
    }
}

/// What is read to call a disk blank, as offsets and lengths, each at most [`CHUNK`].
fn places(size_bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let chunk = CHUNK as u64;
    let start = (0..BLANK_START).step_by(CHUNK);
    let end_from = (size_bytes.saturating_sub(BLANK_END) / chunk * chunk).min(size_bytes);
    let end = (end_from..size_bytes).step_by(CHUNK);
    let between = (1..BLANK_SAMPLES).map(move |n| size_bytes / BLANK_SAMPLES * n / 4096 * 4096);
    let all = start.chain(end).chain(between).filter(move |at| *at < size_bytes);
    all.map(move |at| (at, chunk.min(size_bytes - at)))
}

fn read_at(disk: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    disk.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The partition that the UEFI boot loader was read from, as systemd's stub records it in the
/// variable `LoaderDevicePartUUID`: four bytes of attributes, then the id in UTF-16.
pub fn boot_partition(variable: &[u8]) -> Option<[u8; 16]> {
    let units =
        variable.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).map_while(Result::ok).collect();
    let text = text.trim_end_matches('\0').replace('-', "");
    let mut id: [u8; 16] = hex::decode(text).ok()?.try_into().ok()?;
    // GPT keeps the first three fields in little-endian order.
    id[..4].reverse();
    id[4..6].reverse();
    id[6..8].reverse();
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uuid::Uuid;
    use node_api::storaged::DiskClass;

    const SIZE: u64 = (1 << 30) + 512;

    fn disk(writes: &[(u64, &[u8])]) -> File {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(SIZE).unwrap();
        for (at, bytes) in writes {
            disk.write_all_at(bytes, *at).unwrap();
        }
        disk
    }

    fn traces(writes: &[(u64, &[u8])]) -> Traces {
        match read(&disk(writes), SIZE, None).unwrap() {
            Content::Read(traces) => traces,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_of_zeros_is_blank_and_one_byte_makes_it_foreign() {
        assert!(traces(&[]).blank);
        let sample = SIZE / BLANK_SAMPLES * 64 / 4096 * 4096;
        for at in [0, 5000, BLANK_START - 1, sample, SIZE - BLANK_END, SIZE - 1] {
            assert!(!traces(&[(at, b"x")]).blank, "offset {at}");
        }
    }

    #[test]
    fn a_claim_is_found_in_either_slot_and_the_newest_counts() {
        let pool = Uuid::from_random([3; 16]);
        let making = Claim::making(1, false, DiskClass::Hdd, pool, SIZE, "S");
        let [end, start] = claim::slots(SIZE);
        let made = making.made();
        assert_eq!(traces(&[(end, &making.encode())]).claim, Some(making.clone()));
        assert_eq!(traces(&[(start, &made.encode())]).claim, Some(made.clone()));
        let both = traces(&[(start, &made.encode()), (end, &making.encode())]);
        assert_eq!(both.claim, Some(made));
    }

    #[test]
    fn a_torn_claim_on_an_empty_disk_is_blank_but_not_with_anything_else() {
        let pool = Uuid::from_random([3; 16]);
        let slot = Claim::making(1, false, DiskClass::Hdd, pool, SIZE, "S").encode();
        let [end, _] = claim::slots(SIZE);
        let torn = traces(&[(end, &slot[..100])]);
        assert!(torn.blank && torn.claim.is_none());
        assert!(!traces(&[(end, &slot[..100]), (end + 8192, b"x")]).blank);
        assert!(!traces(&[(end, b"NOTOURS!")]).blank);
    }

    #[test]
    fn a_disk_shorter_than_it_says_is_unreadable() {
        let short = disk(&[]);
        short.set_len(SIZE / 2).unwrap();
        assert!(read(&short, SIZE, None).is_err());
        let missing = probe(Path::new("/dev/does-not-exist"), SIZE, None);
        assert!(matches!(missing, Content::Unreadable(_)));
    }

    #[test]
    fn the_boot_medium_is_known_by_its_partition() {
        let mut table = vec![0; 2048];
        table[..8].copy_from_slice(b"EFI PART");
        table[72] = 2;
        table[80] = 4;
        table[84] = 128;
        table[512 + 16..512 + 32].copy_from_slice(&(1..=16).collect::<Vec<u8>>());
        let text = "04030201-0605-0807-090a-0B0C0D0E0F10\0";
        let wide = text.encode_utf16().flat_map(u16::to_le_bytes);
        let variable: Vec<u8> = [6, 0, 0, 0].into_iter().chain(wide).collect();
        let boot = boot_partition(&variable);
        assert!(boot.is_some());
        let disk = disk(&[(512, &table)]);
        assert_eq!(read(&disk, SIZE, boot).unwrap(), Content::BootMedium);
        assert!(matches!(read(&disk, SIZE, Some([9; 16])).unwrap(), Content::Read(_)));
        assert_eq!(boot_partition(b"\x06\0\0"), None);
    }
}
