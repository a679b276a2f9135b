//! Names what other systems left on a disk, from its first and last MiB.
//!
//! Owns the table of well-known magic numbers. Refuses to read: bytes come in, names go out. A
//! disk that it does not recognise is not blank for that reason; see [`crate::probe`].

use crate::uuid::Uuid;

/// How much of the start and of the end of a disk is looked at. btrfs keeps files out of the first
/// MiB, so no customer can write a signature there that makes a pool of ours look foreign.
pub const REGION_BYTES: usize = 1 << 20;

/// Magic numbers at a fixed place from the start of the disk.
const AT_START: &[(usize, &[u8], &str)] = &[
    (0, b"XFSB", "an XFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
    (16384, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"bluestore block device", "a Ceph object store"),
    (0, b"dmvdo001", "a VDO volume"),
    (0, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
    (4096, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"ReFS\0\0\0\0", "a ReFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (3, b"-FVE-FS-", "a BitLocker volume"),
    (54, b"FAT1", "a FAT file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (32, b"NXSB", "an APFS container"),
    (516, b"!Stra0tis", "a Stratis pool member"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1024, b"H+", "an HFS+ file system"),
    (1024, b"HX", "an HFS+ file system"),
    (1030, b"\x34\x34", "a NILFS2 file system"),
    (1040, b"\x7f\x13", "a Minix file system"),
    (1040, b"\x8f\x13", "a Minix file system"),
    (1040, b"\x68\x24", "a Minix file system"),
    (1040, b"\x78\x24", "a Minix file system"),
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache or bcachefs member"),
    (8192, b"OCFSV2", "an OCFS2 file system"),
    (9564, b"\x54\x19\x01\x00", "a UFS file system"),
    (66908, b"\x19\x01\x54\x19", "a UFS file system"),
    (32768, b"JFS1", "a JFS file system"),
    (32769, b"CD001", "an ISO 9660 image"),
    (32769, b"BEA01", "a UDF file system"),
    (65536, b"\x01\x16\x19\x70", "a GFS2 file system"),
    (65536, b"ReIsEr4", "a Reiser4 file system"),
    (65588, b"ReIsEr", "a ReiserFS file system"),
];

/// Sizes of memory pages for which swap areas are made.
const PAGES: [usize; 4] = [4096, 8192, 16384, 65536];
/// Sizes of logical sectors.
const SECTORS: [usize; 2] = [512, 4096];

/// Everything foreign that the two regions show, each name once.
///
/// `head` is the start of the disk, `tail` its end; each [`REGION_BYTES`] long or the whole disk.
pub fn foreign(head: &[u8], tail: &[u8], size_bytes: u64) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut found = |name| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    if gpt_sector(head).is_some() || SECTORS.iter().any(|s| has_end(tail, *s, b"EFI PART")) {
        found("a GPT partition table");
    }
    AT_START.iter().filter(|(at, magic, _)| has(head, *at, magic)).for_each(|row| found(row.2));
    if let Some(name) = ext(head) {
        found(name);
    }
    if (0..4).any(|sector| has(head, sector * 512, b"LABELONE")) {
        found("an LVM physical volume");
    }
    let swap =
        |page: &usize| has(head, page - 10, b"SWAPSPACE2") || has(head, page - 10, b"SWAP-SPACE");
    if PAGES.iter().any(swap) {
        found("a swap area");
    }
    if has_zfs(head, 0) || has_zfs(tail, start_of(tail, size_bytes)) {
        found("a ZFS pool member");
    }
    if raid_at_end(tail, size_bytes) {
        found("a RAID member");
    }
    if names.is_empty() && has(head, 510, b"\x55\xaa") {
        names.push("an MBR partition table or boot sector");
    }
    names
}

/// The id of the btrfs file system whose superblock stands in `head`, ours or not.
pub fn btrfs(head: &[u8]) -> Option<Uuid> {
    const SUPERBLOCK: usize = 64 << 10;
    let block = head.get(SUPERBLOCK..SUPERBLOCK + 4096)?;
    let own_address = u64::from_le_bytes(block[48..56].try_into().expect("eight bytes"));
    let good = own_address == SUPERBLOCK as u64 && has(block, 64, b"_BHRfS_M");
    good.then(|| Uuid::from_bytes(block[32..48].try_into().expect("sixteen bytes")))
}

/// Unique ids of the partitions of a GPT, as they stand on the disk.
pub fn gpt_partitions(head: &[u8]) -> Vec<[u8; 16]> {
    let Some(sector) = gpt_sector(head) else { return Vec::new() };
    let word = |at: usize| {
        let bytes = head.get(sector + at..sector + at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().expect("four bytes"))).ok()
    };
    let (Some(table), Some(count), Some(size)) = (word(72), word(80), word(84)) else {
        return Vec::new();
    };
    let entry = |number: usize| {
        let at = table.checked_mul(sector)?.checked_add(number.checked_mul(size)?)?;
        let bytes = head.get(at..)?.get(16..32)?;
        Some(<[u8; 16]>::try_from(bytes).expect("sixteen bytes"))
    };
    (0..count.min(PARTITIONS_MAX)).map_while(entry).filter(|id| *id != [0; 16]).collect()
}

/// As many as the first MiB holds in practice.
const PARTITIONS_MAX: usize = 1024;

/// Size of the logical sectors, when a GPT header stands in the second one.
fn gpt_sector(head: &[u8]) -> Option<usize> {
    SECTORS.into_iter().find(|sector| has(head, *sector, b"EFI PART"))
}

fn ext(head: &[u8]) -> Option<&'static str> {
    const JOURNAL: u8 = 0x04;
    const EXTENTS: u8 = 0x40;
    let block = head.get(1024..2048)?;
    let (compatible, incompatible) = (block[0x5c], block[0x60]);
    has(block, 0x38, b"\x53\xef").then_some(if incompatible & EXTENTS != 0 {
        "an ext4 file system"
    } else if compatible & JOURNAL != 0 {
        "an ext3 file system"
    } else {
        "an ext2 file system"
    })
}

/// ZFS keeps two labels of 256 KiB at either end; each holds a ring of uberblocks, in either byte
/// order, on kibibyte boundaries of the disk. `start` is where the region begins.
fn has_zfs(region: &[u8], start: u64) -> bool {
    const MAGIC: [u8; 8] = 0x00ba_b10c_u64.to_le_bytes();
    const OTHER: [u8; 8] = 0x00ba_b10c_u64.to_be_bytes();
    const STEP: usize = 1024;
    let first = usize::try_from(start.next_multiple_of(STEP as u64) - start).expect("below STEP");
    let mut blocks = (first..region.len()).step_by(STEP);
    blocks.any(|at| has(region, at, &MAGIC) || has(region, at, &OTHER))
}

/// Linux RAID metadata 0.90 and 1.0, Intel and DDF firmware RAID.
fn raid_at_end(tail: &[u8], size_bytes: u64) -> bool {
    const LINUX: &[u8] = b"\xfc\x4e\x2b\xa9";
    let start = start_of(tail, size_bytes);
    let at = |offset: u64, magic: &[u8]| {
        let inside = offset.checked_sub(start).and_then(|inside| usize::try_from(inside).ok());
        inside.is_some_and(|inside| has(tail, inside, magic))
    };
    let old = (size_bytes & !0xffff).saturating_sub(1 << 16);
    let new = (size_bytes / 512).saturating_sub(16) / 8 * 8 * 512;
    at(old, LINUX)
        || at(new, LINUX)
        || at(size_bytes.saturating_sub(1024), b"Intel Raid ISM")
        || at(size_bytes.saturating_sub(512), b"\xde\x11\xde\x11")
        || at(size_bytes.saturating_sub(512), b"\x11\xde\x11\xde")
}

fn start_of(tail: &[u8], size_bytes: u64) -> u64 {
    size_bytes.saturating_sub(tail.len() as u64)
}

fn has(region: &[u8], at: usize, magic: &[u8]) -> bool {
    region.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

fn has_end(region: &[u8], back: usize, magic: &[u8]) -> bool {
    region.len().checked_sub(back).is_some_and(|at| has(region, at, magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = (8 << 20) + 512;

    /// Offsets, and what stands there.
    type Writes<'w> = &'w [(u64, &'w [u8])];

    fn disk(writes: Writes<'_>) -> Vec<&'static str> {
        let mut disk = vec![0_u8; usize::try_from(SIZE).unwrap()];
        for (at, bytes) in writes {
            let at = usize::try_from(*at).unwrap();
            disk[at..at + bytes.len()].copy_from_slice(bytes);
        }
        foreign(&disk[..REGION_BYTES], &disk[disk.len() - REGION_BYTES..], SIZE)
    }

    #[test]
    fn zeros_are_nobodys() {
        assert!(disk(&[]).is_empty());
        assert_eq!(btrfs(&vec![0; REGION_BYTES]), None);
    }

    #[test]
    fn every_row_of_the_table_is_found_where_it_says() {
        for (at, magic, name) in AT_START {
            assert_eq!(disk(&[(*at as u64, magic)]), [*name]);
            assert!(disk(&[(*at as u64 + 1, magic)]).iter().all(|other| other != name), "{name}");
        }
    }

    #[test]
    fn signatures_with_a_rule_of_their_own_are_found() {
        let md = b"\xfc\x4e\x2b\xa9";
        let zfs = &0x00ba_b10c_u64.to_le_bytes();
        let rows: &[(Writes<'_>, &str)] = &[
            (&[(512, b"EFI PART")], "a GPT partition table"),
            (&[(4096, b"EFI PART")], "a GPT partition table"),
            (&[(SIZE - 512, b"EFI PART")], "a GPT partition table"),
            (&[(510, b"\x55\xaa")], "an MBR partition table or boot sector"),
            (&[(510, b"\x55\xaa"), (82, b"FAT32   ")], "a FAT file system"),
            (&[(0x438, b"\x53\xef")], "an ext2 file system"),
            (&[(0x438, b"\x53\xef"), (0x45c, b"\x04")], "an ext3 file system"),
            (&[(0x438, b"\x53\xef"), (0x460, b"\x42")], "an ext4 file system"),
            (&[(1536, b"LABELONE")], "an LVM physical volume"),
            (&[(4086, b"SWAPSPACE2")], "a swap area"),
            (&[(65526, b"SWAPSPACE2")], "a swap area"),
            (&[(131_072 + 5 * 1024, zfs)], "a ZFS pool member"),
            (&[(SIZE / 1024 * 1024 - (128 << 10), zfs)], "a ZFS pool member"),
            (&[(SIZE / 65536 * 65536 - 65536, md)], "a RAID member"),
            (&[((SIZE / 512 - 16) / 8 * 8 * 512, md)], "a RAID member"),
            (&[(SIZE - 1024, b"Intel Raid ISM Cfg")], "a RAID member"),
            (&[(SIZE - 512, b"\xde\x11\xde\x11")], "a RAID member"),
        ];
        for (writes, name) in rows {
            assert_eq!(disk(writes), [*name], "{writes:?}");
        }
    }

    #[test]
    fn a_btrfs_superblock_gives_its_id_and_an_unfinished_one_does_not() {
        let mut head = vec![0; REGION_BYTES];
        head[65536 + 32..65536 + 48].fill(0xab);
        head[65536 + 48..65536 + 56].copy_from_slice(&65536_u64.to_le_bytes());
        head[65600..65608].copy_from_slice(b"_BHRfS_M");
        assert_eq!(btrfs(&head), Some(Uuid::from_bytes([0xab; 16])));
        // What mkfs.btrfs writes until it has finished.
        head[65600..65608].copy_from_slice(b"!BHRfS_M");
        assert_eq!(btrfs(&head), None);
    }

    #[test]
    fn partitions_of_a_gpt_are_listed_and_a_lying_header_is_survived() {
        let mut head = vec![0; REGION_BYTES];
        head[512..520].copy_from_slice(b"EFI PART");
        head[512 + 72] = 2;
        head[512 + 80] = 128;
        head[512 + 84] = 128;
        head[1024 + 128 + 16..1024 + 128 + 32].fill(7);
        assert_eq!(gpt_partitions(&head), [[7; 16]]);
        head[512 + 72..512 + 88].fill(0xff);
        assert!(gpt_partitions(&head).is_empty());
    }

    #[test]
    fn a_disk_smaller_than_the_regions_is_survived() {
        for length in [0, 1, 511, 1024, 5000] {
            let tiny = vec![0x55; length];
            let _names = foreign(&tiny, &tiny, length as u64);
        }
    }
}
