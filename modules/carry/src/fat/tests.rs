//! File systems as somebody else's program makes them, and as nobody should.

use super::*;
use crate::Device;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::{
    io::{Cursor, Write as _},
    ops::Range,
};

const NODE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// As somebody else's program makes it.
fn made(
    kind: FatType,
    mib: usize,
    fill: impl Fn(&fatfs::Dir<'_, &mut Cursor<Vec<u8>>>),
) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; mib << 20]);
    let options = FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(512);
    fatfs::format_volume(&mut disk, options).unwrap();
    {
        let system = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        fill(&system.root_dir());
    }
    disk.into_inner()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 7 / 3 % 251).unwrap()).collect()
}

/// All three kinds, with the sizes that they need.
const KINDS: [(FatType, usize, Kind); 3] = [
    (FatType::Fat12, 1, Kind::Fat12),
    (FatType::Fat16, 16, Kind::Fat16),
    (FatType::Fat32, 64, Kind::Fat32),
];

fn carrier(kind: FatType, mib: usize) -> Vec<u8> {
    made(kind, mib, |root| {
        // Between the pieces of one file lie those of another, as on a stick that was used before.
        let folder = root.create_dir("zos-carry").unwrap().create_dir("nodes").unwrap();
        let folder = folder.create_dir(NODE).unwrap();
        let mut one = folder.create_file("Contract").unwrap();
        let mut other = folder.create_file("OTHER.TXT").unwrap();
        for piece in pattern(40_000).chunks(700) {
            one.write_all(piece).unwrap();
            other.write_all(&[0xff; 700]).unwrap();
        }
        folder.create_file("empty").unwrap();
        for number in 0..150 {
            folder.create_file(&format!("a long name with the number {number}")).unwrap();
        }
        folder.remove("a long name with the number 7").unwrap();
    })
}

fn found<D: Disk>(disk: D) -> Option<Volume<crate::Part<D>>> {
    crate::find(disk, &|| false).unwrap()
}

fn volume(disk: &[u8]) -> Volume<&[u8]> {
    Volume::open(disk).unwrap().unwrap()
}

#[test]
fn files_of_every_kind_of_fat_are_read_at_every_place() {
    for (kind, mib, wanted) in KINDS {
        let disk = carrier(kind, mib);
        let volume = volume(&disk);
        assert_eq!(volume.layout.kind, wanted);
        let path = format!("zos-carry/nodes/{NODE}/contract");
        let bytes = pattern(40_000);
        assert_eq!(volume.find(&path).unwrap().size_bytes, 40_000);
        assert_eq!(volume.read_at(&path, 0, u64::MAX).unwrap(), bytes);
        for (from, length) in [(0, 1), (511, 2), (512, 512), (39_000, 1000), (20_000, 3000)] {
            let found = volume.read_at(&path, from as u64, length as u64).unwrap();
            assert_eq!(found, bytes[from..from + length], "{from} {length}");
        }
        assert_eq!(volume.read_at(&path, 39_999, 10).unwrap(), bytes[39_999..]);
        assert!(volume.read_at(&path, 40_000, 10).unwrap().is_empty());
        assert!(volume.read_at(&path, u64::MAX, 10).unwrap().is_empty());
        let empty = format!("ZOS-CARRY/nodes/{}/EMPTY", NODE.to_uppercase());
        assert!(volume.read_at(&empty, 0, 10).unwrap().is_empty());
        let (listed, more) = volume.list(&format!("zos-carry/nodes/{NODE}"), 1000).unwrap();
        assert_eq!((listed.len(), more), (152, false));
        assert!(listed.iter().any(|one| one.name == "a long name with the number 149"));
        assert!(!listed.iter().any(|one| one.name.ends_with(" 7")), "it was removed");
        let (listed, more) = volume.list(&format!("zos-carry/nodes/{NODE}"), 3).unwrap();
        assert_eq!((listed.len(), more), (3, true));
    }
}

#[test]
fn what_is_not_there_is_missing_and_a_path_leads_nowhere_else() {
    let disk = carrier(FatType::Fat16, 16);
    let volume = volume(&disk);
    let kind = |path: &str| volume.find(path).map(drop).map_err(|error| error.kind());
    assert_eq!(kind("zos-carry/nodes"), Ok(()));
    for path in ["", "x", "zos-carry/", "zos-carry/../zos-carry", "zos-carry/./nodes", "/zos-carry"]
    {
        assert_eq!(kind(path), Err(io::ErrorKind::NotFound), "{path:?}");
    }
    let file = format!("zos-carry/nodes/{NODE}/contract");
    assert_eq!(kind(&format!("{file}/x")), Err(io::ErrorKind::NotFound));
    assert!(volume.read_at("zos-carry", 0, 1).is_err(), "a folder is no file");
    assert!(volume.list(&file, 1).is_err(), "a file is no folder");
}

/// Where the entry with this short name begins.
fn entry_of(disk: &[u8], short: &[u8; 11]) -> usize {
    let mut found = disk.chunks_exact(ENTRY).enumerate();
    found.find(|(_, entry)| entry.starts_with(short)).unwrap().0 * ENTRY
}

#[test]
fn a_loop_ends_a_file_that_is_too_large_ends_and_a_wrong_cluster_is_no_place() {
    let good = made(FatType::Fat16, 16, |root| {
        root.create_dir("zos-carry")
            .unwrap()
            .create_file("FILE")
            .unwrap()
            .write_all(b"text")
            .unwrap();
        root.create_file("LARGE").unwrap().write_all(&pattern(2000)).unwrap();
    });
    assert_eq!(volume(&good).read_at("zos-carry/file", 0, 9).unwrap(), b"text");
    assert_eq!(volume(&good).read_at("large", 0, 1 << 40).unwrap(), pattern(2000));
    let large = entry_of(&good, b"LARGE      ");
    let first = usize::from(u16::from_le_bytes([good[large + 26], good[large + 27]]));
    let table = usize::try_from(volume(&good).layout.table).unwrap();

    // It says to be of four gigabytes.
    let mut disk = good.clone();
    disk[large + 28..large + 32].fill(0xff);
    let error = volume(&disk).read_at("large", 0, 1 << 40).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(volume(&disk).read_at("large", 0, 2000).unwrap(), pattern(2000));
    assert!(volume(&disk).read_at("large", 1 << 31, 1).is_err());

    // And its chain is a loop: as much is read as is wanted.
    let at = table + 2 * first;
    disk[at..at + 2].copy_from_slice(&u16::try_from(first).unwrap().to_le_bytes());
    let found = volume(&disk).read_at("large", 1 << 20, 5000).unwrap();
    assert_eq!(found.len(), 5000);

    for cluster in [0_u16, 1, 0xfff0, 0xfff7] {
        let mut disk = good.clone();
        disk[at..at + 2].copy_from_slice(&cluster.to_le_bytes());
        let error = volume(&disk).read_at("large", 0, 2000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{cluster}");
        disk[large + 26..large + 28].copy_from_slice(&cluster.to_le_bytes());
        let error = volume(&disk).read_at("large", 0, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{cluster}");
    }
}

/// A folder whose chain is a loop of entries never ends.
#[test]
fn a_folder_with_more_entries_than_the_format_allows_is_refused() {
    let good = made(FatType::Fat16, 16, |root| {
        let folder = root.create_dir("FOLDER").unwrap();
        for number in 0..40 {
            folder.create_file(&format!("F{number}")).unwrap();
        }
    });
    assert_eq!(volume(&good).list("folder", 100).unwrap().0.len(), 40);
    let entry = entry_of(&good, b"FOLDER     ");
    let first = usize::from(u16::from_le_bytes([good[entry + 26], good[entry + 27]]));
    let mut disk = good.clone();
    let at = usize::try_from(volume(&good).layout.table).unwrap() + 2 * first;
    disk[at..at + 2].copy_from_slice(&u16::try_from(first).unwrap().to_le_bytes());
    let error = volume(&disk).list("folder", 100).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(volume(&disk).find("folder/none").is_err());
}

#[test]
fn a_long_name_that_does_not_belong_to_its_entry_is_not_its_name() {
    let good = made(FatType::Fat12, 1, |root| {
        root.create_file("a name of more than thirteen units").unwrap();
    });
    let wanted = "a name of more than thirteen units";
    assert!(volume(&good).find(wanted).is_ok());
    let at = good.chunks_exact(ENTRY).position(|entry| entry[0] == 0x43).unwrap() * ENTRY;
    // The order, the checksum, the part before the last, and a half of a pair.
    for (offset, byte) in [(0, 0x42), (13, 0x55), (ENTRY, 3), (ENTRY, 0x42), (2, 0xd8), (0, 0x7f)] {
        let mut disk = good.clone();
        disk[at + offset] = byte;
        let volume = volume(&disk);
        let error = volume.find(wanted).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{offset} {byte:x}");
        // It is there by its short name.
        assert_eq!(Entries::new(&volume.root_bytes().unwrap(), volume.layout.kind).count(), 1);
    }
}

#[test]
fn a_file_system_that_contradicts_its_disk_is_none() {
    let good = carrier(FatType::Fat16, 16);
    assert!(Volume::open(good.as_slice()).unwrap().is_some());
    assert!(Volume::open(&good[..good.len() - 1]).unwrap().is_none());
    assert!(Volume::open(&good[..511]).unwrap().is_none());
    // Bytes of a sector, sectors of a cluster, reserved ones, tables, their size; the signature.
    let wrong: [(Range<usize>, &[u8]); 9] = [
        (11..13, &[0, 0]),
        (11..13, &[1, 2]),
        (13..14, &[0]),
        (13..14, &[3]),
        (14..16, &[0, 0]),
        (14..16, &[0xff, 0xff]),
        (16..17, &[0]),
        (22..24, &[1, 0]),
        (510..512, &[0, 0]),
    ];
    for (place, bytes) in wrong {
        let mut disk = good.clone();
        disk[place.clone()].copy_from_slice(bytes);
        assert!(Volume::open(disk.as_slice()).unwrap().is_none(), "{place:?} {bytes:?}");
    }
}

#[test]
fn a_carrier_is_found_in_a_partition_and_a_stick_that_is_pulled_is_an_error() {
    let inner = carrier(FatType::Fat16, 16);
    assert!(found(inner.as_slice()).is_some());
    let mut disk = vec![0; (1 << 20) + inner.len()];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[446 + 4] = 0x0c;
    disk[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    let sectors = u32::try_from(inner.len() / 512).unwrap();
    disk[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[1 << 20..].copy_from_slice(&inner);
    let path = format!("zos-carry/nodes/{NODE}/contract");
    let volume = found(disk.as_slice()).unwrap();
    assert_eq!(volume.read_at(&path, 0, 1 << 20).unwrap(), pattern(40_000));

    let plain = made(FatType::Fat16, 16, |root| drop(root.create_dir("photos").unwrap()));
    assert!(found(plain.as_slice()).is_none());
    let file = made(FatType::Fat16, 16, |root| drop(root.create_file("zos-carry").unwrap()));
    assert!(found(file.as_slice()).is_none());
    assert!(found(vec![0_u8; 4096]).is_none());

    // The kernel still says how large it was.
    let mut stick = tempfile::tempfile().unwrap();
    stick.write_all(&disk).unwrap();
    let size = disk.len() as u64;
    let volume = found(Device::new(stick.try_clone().unwrap(), size)).unwrap();
    assert_eq!(volume.read_at(&path, 0, 1 << 20).unwrap(), pattern(40_000));
    stick.set_len(1 << 20).unwrap();
    assert!(volume.read_at(&path, 0, 1 << 20).is_err());
    assert!(crate::find(Device::new(stick, size), &|| false).is_err());
}

/// A disk of which these places fail, and that counts how often it was read.
struct Bad<'d> {
    disk: &'d [u8],
    fails: Range<u64>,
    reads: std::cell::Cell<u32>,
}

impl Disk for Bad<'_> {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        if at < self.fails.end && at + bytes.len() as u64 > self.fails.start {
            return Err(io::Error::other("a bad sector"));
        }
        self.disk.read_exact_at(bytes, at)
    }
}

fn bad(disk: &[u8], fails: Range<u64>) -> Bad<'_> {
    Bad { disk, fails, reads: 0.into() }
}

/// Two file systems, of which the second carries.
fn partitioned(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (number, inner) in [first, second].into_iter().enumerate() {
        let at = 446 + 16 * number;
        disk[at + 4] = 0x0c;
        let sectors = |bytes: usize| u32::try_from(bytes / 512).unwrap().to_le_bytes();
        let from = sectors(disk.len());
        disk[at + 8..at + 12].copy_from_slice(&from);
        disk[at + 12..at + 16].copy_from_slice(&sectors(inner.len()));
        disk.extend_from_slice(inner);
    }
    disk
}

#[test]
fn a_partition_that_cannot_be_read_hides_no_other() {
    let photos = made(FatType::Fat12, 1, |root| drop(root.create_dir("photos").unwrap()));
    let disk = partitioned(&photos, &carrier(FatType::Fat12, 1));
    let first = 1 << 20;
    let path = format!("zos-carry/nodes/{NODE}/contract");
    for fails in [0..0, first..first + 512, first + 512..first + (1 << 19)] {
        let volume = found(bad(&disk, fails)).unwrap();
        assert_eq!(volume.read_at(&path, 0, 1 << 20).unwrap(), pattern(40_000));
    }
    // The root of the first one, a chain that leads nowhere, is as little in the way.
    let fat32 = made(FatType::Fat32, 64, |root| drop(root.create_dir("photos").unwrap()));
    let mut broken = fat32.clone();
    broken[44..48].copy_from_slice(&[1, 0, 0, 0]);
    assert!(found(partitioned(&broken, &carrier(FatType::Fat12, 1)).as_slice()).is_some());
    // Alone, it is told: nobody knows what is in it.
    let error = crate::find(broken.as_slice(), &|| false).map(drop).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(found(fat32.as_slice()).is_none());
    let one = partitioned(&photos, &photos);
    assert!(found(bad(&one, 0..0)).is_none());
    assert!(crate::find(bad(&one, first..first + 512), &|| false).is_err());
}

#[test]
fn nothing_more_is_read_once_somebody_says_so() {
    let disk = carrier(FatType::Fat32, 64);
    let path = format!("zos-carry/nodes/{NODE}/contract");
    let volume = found(bad(&disk, 0..0)).unwrap();
    let before = volume.disk.disk.reads.get();
    assert_eq!(volume.until(&|| false).read_at(&path, 0, 1 << 20).unwrap(), pattern(40_000));
    let whole = volume.disk.disk.reads.get() - before;
    for most in [0, 1, 7] {
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > most
        };
        let before = volume.disk.disk.reads.get();
        let error = volume.until(&stop).read_at(&path, 0, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(volume.disk.disk.reads.get() - before, most);
        assert!(most < whole);
    }
    let error = crate::find(disk.as_slice(), &|| true).map(drop).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    // Large pieces are read in small ones.
    let mut bytes = vec![0; 3 * crate::PIECE];
    let counted = bad(&disk, 0..0);
    Until { disk: &counted, stop: &|| false }.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((counted.reads.get(), &bytes[..]), (3, &disk[..bytes.len()]));
}

#[test]
fn large_sectors_are_read_and_one_table_of_several_is_not() {
    let mut disk = Cursor::new(vec![0; 64 << 20]);
    let options = FormatVolumeOptions::new().bytes_per_sector(4096);
    fatfs::format_volume(&mut disk, options).unwrap();
    {
        let system = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        let folder = system.root_dir().create_dir("zos-carry").unwrap();
        folder.create_file("file").unwrap().write_all(&pattern(10_000)).unwrap();
    }
    let disk = disk.into_inner();
    assert_eq!(
        found(disk.as_slice()).unwrap().read_at("zos-carry/file", 0, 1 << 20).unwrap(),
        pattern(10_000)
    );
    let mut disk = carrier(FatType::Fat32, 64);
    assert!(Volume::open(disk.as_slice()).unwrap().is_some());
    disk[40] |= 0x80;
    assert!(Volume::open(disk.as_slice()).unwrap().is_none());
}
