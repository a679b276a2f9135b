//! Where on a disk a file system may begin: at its start, or in a partition of an MBR or a GPT.
//!
//! Believes nothing: what does not fit into the disk is left out, and how many are named is bounded.

use crate::Disk;
use std::{io, ops::Range};

/// Sectors of sticks; a disk with larger ones is looked at as a whole only.
const SECTOR_BYTES: usize = 512;
const SECTOR: u64 = SECTOR_BYTES as u64;
/// Entries of a GPT that are looked at.
const GPT_ENTRIES_MAX: u64 = 128;
/// Bytes of one entry of a GPT, as everybody writes them.
const GPT_ENTRY: usize = 128;
/// The kind of partition by which an MBR says that there is a GPT.
const PROTECTIVE: u8 = 0xee;

/// The whole disk first, then its partitions, as places in bytes.
pub fn places(disk: &impl Disk) -> io::Result<Vec<Range<u64>>> {
    let size = disk.size_bytes();
    let whole = 0..size;
    let mut places = vec![whole];
    let mut sector = [0; SECTOR_BYTES];
    if size < SECTOR {
        return Ok(places);
    }
    disk.read_exact_at(&mut sector, 0)?;
    if sector[510..] != [0x55, 0xaa] {
        return Ok(places);
    }
    let mut add = |found: Vec<Range<u64>>| {
        for place in found {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    };
    for entry in sector[446..510].chunks_exact(16) {
        let first = u64::from(u32_at(entry, 8));
        let sectors = u64::from(u32_at(entry, 12));
        match entry[4] {
            0 => {}
            PROTECTIVE => {
                add(gpt(disk)?);
                // There is one, however often it is named.
                break;
            }
            _ => add(place(first, first.checked_add(sectors), size).into_iter().collect()),
        }
    }
    Ok(places)
}

fn gpt(disk: &impl Disk) -> io::Result<Vec<Range<u64>>> {
    let size = disk.size_bytes();
    let mut header = [0; SECTOR_BYTES];
    if size < 2 * SECTOR {
        return Ok(Vec::new());
    }
    disk.read_exact_at(&mut header, SECTOR)?;
    let count = u64::from(u32_at(&header, 80)).min(GPT_ENTRIES_MAX);
    let table = u64_at(&header, 72).checked_mul(SECTOR);
    let bytes = count * GPT_ENTRY as u64;
    let table = table.filter(|from| from.checked_add(bytes).is_some_and(|end| end <= size));
    let (Some(table), true) = (table, header.starts_with(b"EFI PART")) else {
        return Ok(Vec::new());
    };
    if usize::try_from(u32_at(&header, 84)) != Ok(GPT_ENTRY) {
        return Ok(Vec::new());
    }
    let mut entries = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    disk.read_exact_at(&mut entries, table)?;
    let used = entries.chunks_exact(GPT_ENTRY).filter(|entry| entry[..16] != [0; 16]);
    Ok(used
        .filter_map(|entry| place(u64_at(entry, 32), u64_at(entry, 40).checked_add(1), size))
        .collect())
}

/// From the first sector to the one behind the last.
fn place(first: u64, end: Option<u64>, size: u64) -> Option<Range<u64>> {
    let (from, to) = (first.checked_mul(SECTOR)?, end?.checked_mul(SECTOR)?);
    (from > 0 && from < to && to <= size).then_some(from..to)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn mbr(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut disk = vec![0; usize::try_from(SIZE).unwrap()];
        for (number, (kind, first, sectors)) in entries.iter().enumerate() {
            let at = 446 + 16 * number;
            disk[at + 4] = *kind;
            disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
            disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    #[test]
    fn only_partitions_that_fit_into_the_disk_are_named() {
        let check = |disk: &[u8], wanted: &[Range<u64>]| {
            let whole = std::iter::once(0..disk.len() as u64);
            let wanted: Vec<_> = whole.chain(wanted.iter().cloned()).collect();
            assert_eq!(places(&disk).unwrap(), wanted);
        };
        check(&[], &[]);
        check(&[0; 100], &[]);
        check(&vec![0; 4096], &[]);
        check(&mbr(&[(0x0c, 2, 4), (0x83, 8, 8)]), &[1024..3072, 4096..8192]);
        check(&mbr(&[(0, 2, 4)]), &[]);
        check(&mbr(&[(0x0c, 2, 4), (0x0e, 2, 4), (0x83, 8, 8)]), &[1024..3072, 4096..8192]);
        for wrong in [(0x0c, 0, 4), (0x0c, 2, 0), (0x0c, 2047, 2), (0x0c, u32::MAX, u32::MAX)] {
            check(&mbr(&[wrong, (0x0c, 2, 4)]), std::slice::from_ref(&(1024..3072)));
        }
    }

    #[test]
    fn a_gpt_is_read_behind_its_mbr_and_a_false_one_names_nothing() {
        let mut disk = mbr(&[(PROTECTIVE, 1, 2047)]);
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80] = 4;
        disk[512 + 84] = 128;
        let entry = |disk: &mut Vec<u8>, number: usize, first: u64, last: u64| {
            let at = 1024 + GPT_ENTRY * number;
            disk[at] = 1;
            disk[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            disk[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        };
        entry(&mut disk, 0, 64, 127);
        entry(&mut disk, 1, 64, u64::MAX);
        entry(&mut disk, 3, 200, 100);
        let whole = 0..SIZE;
        assert_eq!(places(&disk).unwrap(), [whole.clone(), 64 * 512..128 * 512]);
        for (at, byte) in [(512, b'x'), (512 + 72 + 7, 0xff), (512 + 84, 64)] {
            let mut disk = disk.clone();
            disk[at] = byte;
            assert_eq!(places(&disk).unwrap(), std::slice::from_ref(&whole), "byte {at}");
        }
        let mut many = disk.clone();
        many[512 + 83] = 0xff;
        assert_eq!(places(&many).unwrap().len(), 2, "the rest of the table is empty");
    }
}
