//! Reads what a disk says. Opens read-only; writes nothing.
//!
//! Blank means: everything that is looked at is zero, namely the first [`START`] and the last [`END`]
//! bytes, where every known system keeps its first and last block, and the places in between that
//! [`places`] lists. One other byte makes the disk foreign. The same places are looked at before a
//! pool is made again after an interruption: there, blocks of the interrupted mkfs are allowed, which
//! all carry the id of the file system that it was making.

use crate::claim::{self, Claim, Phase, SLOT_BYTES};
use crate::decide::{Content, Remains, SIZE_MIN, Traces};
use crate::signature::{self, REGION_BYTES};
use crate::uuid::Uuid;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Start of the disk that is read whole, and that a takeover clears.
pub const START: u64 = 8 << 20;
/// End of the disk that is read whole, and that a takeover clears.
pub const END: u64 = 32 << 20;
/// Places in between; a rotating disk reads them in about a second.
const SAMPLES: u64 = 128;
/// Bytes read at each place, and at a time.
const CHUNK: usize = 64 << 10;
/// A block of a btrfs tree, as mkfs makes them; every one begins on a multiple of it.
const TREE_BLOCK: usize = 16 << 10;
/// Where the first btrfs superblock stands. mkfs writes nothing but zeros before it.
const SUPERBLOCK: u64 = 64 << 10;

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
    let making = claim.as_ref().filter(|claim| claim.phase == Phase::Making);
    let mut traces = Traces { claim: claim.clone(), btrfs, foreign, remains: Remains::Strange };
    // Who holds a signature or a complete pool is known without a second look.
    let in_doubt = match making {
        Some(claim) => btrfs.is_none_or(|found| found == claim.pool()),
        None => btrfs.is_none() && claim.is_none(),
    };
    if in_doubt && traces.foreign.is_empty() {
        traces.remains = remains(disk, size_bytes, making.map(Claim::pool))?;
    }
    Ok(Content::Read(traces))
}

/// Whether a disk holds a pool of ours or of another node: its record, and the file system that this names.
pub fn holds_pool(disk: &File, size_bytes: u64) -> io::Result<bool> {
    if size_bytes < SIZE_MIN {
        return Ok(false);
    }
    let btrfs = signature::btrfs(&read_at(disk, 0, REGION_BYTES as u64)?);
    for at in claim::slots(size_bytes) {
        let claim = Claim::decode(&read_at(disk, at, SLOT_BYTES as u64)?);
        if claim.is_some_and(|claim| btrfs == Some(claim.pool())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is on a disk that shows no signature. `making` is the file system whose mkfs may have been
/// interrupted.
///
/// A record of ours that was torn while it was written does not make a disk foreign: it was the
/// first thing ever written there.
fn remains(disk: &File, size_bytes: u64, making: Option<Uuid>) -> io::Result<Remains> {
    let slots = claim::slots(size_bytes);
    let mut remains = Remains::Blank;
    for (offset, length) in places(size_bytes) {
        let mut bytes = read_at(disk, offset, length)?;
        for slot in slots {
            blind(&mut bytes, offset, slot);
        }
        if is_zero(&bytes) {
            continue;
        }
        let is_end = offset < START || offset + END >= size_bytes;
        let is_ours = offset >= SUPERBLOCK
            && making.is_some_and(|pool| bytes.chunks(TREE_BLOCK).all(|b| is_of(b, pool)));
        match (making, is_ours) {
            (Some(_), true) => remains = remains.max(Remains::Unfinished),
            // A takeover leaves what was between the ends.
            (Some(_), false) if !is_end => remains = Remains::Cleared,
            (Some(_) | None, _) => return Ok(Remains::Strange),
        }
    }
    Ok(remains)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Superblocks and tree blocks of btrfs carry the id of their file system after the checksum.
fn is_of(block: &[u8], pool: Uuid) -> bool {
    block.get(32..48) == Some(pool.as_bytes().as_slice()) || is_zero(block)
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

/// What is read to call a disk blank, as offsets and lengths: whole chunks, but for the last one of
/// the disk.
fn places(size_bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let chunk = CHUNK as u64;
    let start = (0..START).step_by(CHUNK);
    let end_from = size_bytes.saturating_sub(END) / chunk * chunk;
    let end = (end_from..size_bytes).step_by(CHUNK);
    let between = (1..SAMPLES).map(move |n| size_bytes / SAMPLES * n / chunk * chunk);
    let copies = copies().map(move |at| at / chunk * chunk);
    let all = start.chain(end).chain(between).chain(copies).filter(move |at| *at < size_bytes);
    all.map(move |at| (at, chunk.min(size_bytes - at)))
}

/// Where file systems keep copies of their first block or their first table, on the whole disk or on a
/// partition in the usual place, and where further partitions usually begin. Whoever wipes the ends of
/// a disk leaves these.
fn copies() -> impl Iterator<Item = u64> {
    const MIB: u64 = 1 << 20;
    /// A first partition begins here.
    const BASES: [u64; 2] = [0, MIB];
    /// Bytes of a block group of ext2, 3 and 4 with blocks of 1, 2 and 4 KiB, of which these groups
    /// hold a copy.
    const EXT: [u64; 3] = [8 * MIB, 32 * MIB, 128 * MIB];
    const EXT_COPIES: [u64; 7] = [1, 3, 5, 7, 9, 25, 27];
    /// Copies of btrfs, and the table of files of NTFS. XFS divides a disk in four: the samples are
    /// there.
    const OTHERS: [u64; 3] = [64 * MIB, 256 << 30, 3 << 30];
    /// After a boot or EFI partition, which begins at 1 MiB: of 100, 200, 256, 300, 486, 487, 500, 512,
    /// 536 MiB, 1, 1.5 and 2 GiB.
    const SECOND: [u64; 12] = [101, 201, 257, 301, 487, 488, 501, 513, 537, 1025, 1537, 2049];
    let ext = EXT.into_iter().flat_map(|group| EXT_COPIES.map(|number| group * number));
    let inside = ext.chain(OTHERS).flat_map(|at| BASES.map(|base| base + at));
    inside.chain(SECOND.map(|mib| mib * MIB))
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

    /// Where, and what is written there.
    type Write<'w> = (u64, &'w [u8]);

    fn disk(writes: &[Write<'_>]) -> File {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(SIZE).unwrap();
        for (at, bytes) in writes {
            disk.write_all_at(bytes, *at).unwrap();
        }
        disk
    }

    fn traces(writes: &[Write<'_>]) -> Traces {
        match read(&disk(writes), SIZE, None).unwrap() {
            Content::Read(traces) => traces,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_of_zeros_is_blank_and_one_byte_makes_it_foreign() {
        assert_eq!(traces(&[]).remains, Remains::Blank);
        let sample = SIZE / SAMPLES * 64 / 65536 * 65536;
        // The last four: backup superblocks of ext4 and btrfs, and where partitions begin.
        let copies = [(128 << 20) + 1080, 65 << 20, (513 << 20) + 512, 200 << 20];
        for at in [0, 5000, START - 1, sample, SIZE - END, SIZE - 1].into_iter().chain(copies) {
            assert_eq!(traces(&[(at, b"x")]).remains, Remains::Strange, "offset {at}");
        }
    }

    /// Sticks with contracts are read through `Lend`, and never taken.
    #[test]
    fn a_stick_that_was_formatted_is_never_blank() {
        let mut stick = disk(&[]);
        let options = fatfs::FormatVolumeOptions::new().volume_label(*b"ZOS-CARRY  ");
        fatfs::format_volume(&mut stick, options).unwrap();
        let Content::Read(found) = read(&stick, SIZE, None).unwrap() else { panic!("unreadable") };
        assert_eq!(found.foreign, ["a FAT file system"]);
        // Some programs leave out the word by which it was known.
        stick.write_all_at(&[0; 8], 54).unwrap();
        stick.write_all_at(&[0; 8], 82).unwrap();
        let Content::Read(found) = read(&stick, SIZE, None).unwrap() else { panic!("unreadable") };
        assert!(found.remains == Remains::Strange || !found.foreign.is_empty());
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
    fn a_pool_is_one_by_its_record_and_the_file_system_that_it_names() {
        let check = |pieces: &[(u64, &[u8])], wanted: bool| {
            assert_eq!(holds_pool(&disk(pieces), SIZE).unwrap(), wanted);
        };
        let pool = Uuid::from_random([3; 16]);
        let claim = Claim::making(1, false, DiskClass::Hdd, pool, SIZE, "S").made().encode();
        let [end, start] = claim::slots(SIZE);
        let system = |id: Uuid| {
            let mut block = [0; 4096];
            block[32..48].copy_from_slice(id.as_bytes());
            block[48..56].copy_from_slice(&SUPERBLOCK.to_le_bytes());
            block[64..72].copy_from_slice(b"_BHRfS_M");
            block
        };
        let (ours, other) = (system(pool), system(Uuid::from_random([4; 16])));
        for slot in [end, start] {
            check(&[(slot, &claim), (SUPERBLOCK, &ours)], true);
            check(&[(slot, &claim), (SUPERBLOCK, &other)], false);
            check(&[(slot, &claim)], false);
        }
        check(&[(SUPERBLOCK, &ours)], false);
        assert!(!holds_pool(&disk(&[]), 4096).unwrap(), "too small for one");
    }

    #[test]
    fn a_torn_claim_on_an_empty_disk_is_blank_but_not_with_anything_else() {
        let pool = Uuid::from_random([3; 16]);
        let slot = Claim::making(1, false, DiskClass::Hdd, pool, SIZE, "S").encode();
        let [end, _] = claim::slots(SIZE);
        let torn = traces(&[(end, &slot[..100])]);
        assert!(torn.remains == Remains::Blank && torn.claim.is_none());
        let with_more = traces(&[(end, &slot[..100]), (end + 8192, b"x")]);
        assert_eq!(with_more.remains, Remains::Strange);
        assert_eq!(traces(&[(end, b"NOTOURS!")]).remains, Remains::Strange);
    }

    /// Power fails while a pool is made; before the node boots again, somebody writes on the disk.
    #[test]
    fn only_what_an_interrupted_mkfs_leaves_passes_as_unfinished() {
        let pool = Uuid::from_random([3; 16]);
        let slot = Claim::making(1, false, DiskClass::Hdd, pool, SIZE, "S").encode();
        let [end, start] = claim::slots(SIZE);
        let mut block = vec![1; TREE_BLOCK];
        block[32..48].copy_from_slice(pool.as_bytes());
        let mut other = block.clone();
        other[40] ^= 1;
        let sample = SIZE / SAMPLES * 64 / 65536 * 65536;
        let seen = |writes: &[Write<'_>]| {
            let claimed = [(end, slot.as_slice())];
            traces(&[&claimed, writes].concat()).remains
        };
        let rows: [(&[Write<'_>], Remains); 11] = [
            (&[], Remains::Blank),
            (&[(SUPERBLOCK, &block[..4096])], Remains::Unfinished),
            (&[(1 << 20, &block), (sample, &block)], Remains::Unfinished),
            (&[(1 << 20, &other)], Remains::Strange),
            (&[((1 << 20) + 4096, &block)], Remains::Strange),
            (&[(0, &block)], Remains::Strange),
            (&[(start + 8192, b"x")], Remains::Strange),
            (&[(end + 8192, b"x")], Remains::Strange),
            (&[(SIZE - 1, b"x")], Remains::Strange),
            (&[(sample, b"x")], Remains::Cleared),
            (&[(1 << 20, &block), (sample, &other)], Remains::Cleared),
        ];
        for (number, (writes, remains)) in rows.into_iter().enumerate() {
            assert_eq!(seen(writes), remains, "row {number}");
        }
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
