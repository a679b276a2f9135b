//! What the kernel says of devices, and what stands on disks that nobody vouches for.

use arbitrary::{Arbitrary, Unstructured};
use init::devices::{
    database::{Database, Soft},
    uevent as init_uevent,
};
use node_api::storaged::DiskClass;
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, fs::File, os::unix::fs::FileExt as _, path::Path};
use storaged::{
    claim::{self, Claim},
    decide::{Content, Decision, Orders, decide},
    disk::Disk,
    probe, signature, uevent as storaged_uevent,
};

/// A message of the kernel, as init and storaged read it.
pub fn uevent(data: &[u8]) -> bool {
    let is_disk = storaged_uevent::is_about_a_disk(data);
    let news = init_uevent::parse(data);
    is_disk || news != init_uevent::News::Other
}

/// The three text files beside the modules, cut at lines with a dash, then names to look up.
pub fn modules_database(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split("\n-\n");
    let mut part = || parts.next().unwrap_or_default();
    let (dep, alias, softdep, names) = (part(), part(), part(), part());
    let database = Database::parse(dep, alias, softdep);
    let mut taken = false;
    for name in names.lines() {
        let modules = database.resolve(name);
        for soft in [Soft::Load, Soft::Skip] {
            let steps = database.plan(&modules, soft, &BTreeSet::new());
            let names: BTreeSet<_> = steps.iter().map(|step| &step.name).collect();
            assert_eq!(names.len(), steps.len(), "a module is loaded twice");
            taken |= !steps.is_empty();
        }
    }
    taken
}

fn disk(size_bytes: u64) -> Disk {
    Disk {
        name: "vda".into(),
        serial: "S".into(),
        model: "M".into(),
        size_bytes,
        class: DiskClass::Hdd,
        sequence: 1,
        obstacle: None,
    }
}

/// The ownership record: as it stands on a disk, and with a checksum that somebody made right.
pub fn disk_claim(data: &[u8]) -> bool {
    const SECTOR: usize = 512;
    const CHECKSUM: usize = 32;
    let raw = Claim::decode(data).is_some();
    let mut slot = vec![0; claim::SLOT_BYTES];
    let json = &data[..data.len().min(SECTOR - CHECKSUM - 12)];
    slot[..8].copy_from_slice(b"ZOSCLAIM");
    slot[8] = 1;
    let length = u16::try_from(json.len()).expect("shorter than a sector");
    slot[10..12].copy_from_slice(&length.to_le_bytes());
    slot[12..12 + json.len()].copy_from_slice(json);
    let checksum = Sha256::digest(&slot[..SECTOR - CHECKSUM]);
    slot[SECTOR - CHECKSUM..SECTOR].copy_from_slice(&checksum);
    let Some(claim) = Claim::decode(&slot) else { return raw };
    assert_eq!(claim::newest([Some(claim.clone()), None]), Some(claim.clone()));
    let size = claim.size_bytes;
    let with_claim = sparse(DISK_BYTES, &[(claim::slots(DISK_BYTES)[1], &slot)]);
    let content = probe::read(&with_claim, DISK_BYTES, None).expect("the file is long enough");
    let disk = disk(DISK_BYTES_SAID);
    for takeover in [BTreeSet::new(), BTreeSet::from(["S".to_owned()])] {
        let orders = Orders { takeover, ambiguous: BTreeSet::new() };
        match decide(&disk, &content, &orders) {
            // A record never goes back.
            Decision::Make(make) => assert!(make.generation > claim.generation),
            Decision::Mount(mounted) => assert_eq!(mounted, claim),
            Decision::Ignore(_)
            | Decision::TooSmall(_)
            | Decision::Foreign(_)
            | Decision::Failed(_) => {}
        }
    }
    assert!(claim.is_of(&claim.serial.clone(), size));
    true
}

/// Large enough for every place where something may stand, and an odd sector. Small, since most
/// inputs leave a blank disk, of which everything is read.
const DISK_BYTES: u64 = (20 << 20) + 512;
/// What the kernel says of it: smaller disks are not looked at.
const DISK_BYTES_SAID: u64 = (1 << 30) + 512;

fn sparse(size_bytes: u64, writes: &[(u64, &[u8])]) -> File {
    // Where temporary files cost no disk.
    let memory = Path::new("/dev/shm");
    let file = if memory.is_dir() { tempfile::tempfile_in(memory) } else { tempfile::tempfile() };
    let file = file.expect("a temporary file");
    file.set_len(size_bytes).expect("a sparse file");
    for (at, bytes) in writes {
        let room = usize::try_from(size_bytes.saturating_sub(*at)).unwrap_or(usize::MAX);
        file.write_all_at(&bytes[..bytes.len().min(room)], *at).expect("room in memory");
    }
    file
}

/// Something that stands on a disk.
#[derive(Debug, Arbitrary)]
struct Piece {
    place: Place,
    bytes: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Place {
    Start(u32),
    Sector(u8),
    Kibibyte(u16),
    FromEnd(u32),
    Slot(bool),
}

/// Pieces that one input makes.
const PIECES_MAX: usize = 8;

/// Sectors anywhere on a disk, and the regions at its ends by themselves.
pub fn disk_probe(data: &[u8]) -> bool {
    let (head, tail) = data.split_at(data.len() / 2);
    regions(head, tail);
    let mut source = Unstructured::new(data);
    let mut writes = Vec::new();
    let mut boot = None;
    while writes.len() < PIECES_MAX && !source.is_empty() {
        let Ok(Piece { place, bytes }) = source.arbitrary() else { break };
        let at = match place {
            Place::Start(at) => u64::from(at) % (2 << 20),
            Place::Sector(sector) => u64::from(sector) * 512,
            Place::Kibibyte(at) => u64::from(at) << 10,
            Place::FromEnd(at) => DISK_BYTES - 1 - u64::from(at) % DISK_BYTES,
            Place::Slot(start) => claim::slots(DISK_BYTES)[usize::from(start)],
        };
        boot = boot.or_else(|| probe::boot_partition(&bytes));
        writes.push((at, bytes));
    }
    let borrowed: Vec<(u64, &[u8])> = writes.iter().map(|(at, b)| (*at, &b[..])).collect();
    let file = sparse(DISK_BYTES, &borrowed);
    let content = probe::read(&file, DISK_BYTES, boot).expect("the file is long enough");
    let decision = decide(&disk(DISK_BYTES_SAID), &content, &Orders::default());
    // Without an order, only a disk on which nothing was found is written, or one that we claimed.
    if let (Decision::Make(_), Content::Read(traces)) = (&decision, &content) {
        assert!(traces.foreign.is_empty());
        assert!(traces.claim.is_some() || traces.btrfs.is_none());
        let at_ends = writes.iter().filter(|(at, _)| *at < 8 << 20);
        let says_something = |bytes: &Vec<u8>| bytes.iter().any(|byte| *byte != 0);
        let torn = |(at, bytes): &(u64, Vec<u8>)| {
            claim::slots(DISK_BYTES).contains(at) && claim::has_magic(bytes)
        };
        if traces.claim.is_none() && !writes.iter().any(torn) && writes.len() == 1 {
            assert!(at_ends.map(|(_, bytes)| bytes).all(|bytes| !says_something(bytes)));
        }
    }
    match content {
        Content::Read(traces) => traces.claim.is_some() || !traces.foreign.is_empty(),
        Content::BootMedium => true,
        Content::Unreadable(_) => false,
    }
}

fn regions(head: &[u8], tail: &[u8]) {
    let size = head.len() as u64 + tail.len() as u64;
    for size_bytes in [size, DISK_BYTES, 1 << 63] {
        let names = signature::foreign(head, tail, size_bytes);
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len(), "a name comes twice");
    }
    assert!(signature::btrfs(head).is_none_or(|id| id.to_string().len() == 36));
    assert!(signature::gpt_partitions(head).len() <= 1024);
}

/// The largest disk that one input makes; what it does not say is zero.
const CARRIED_BYTES: usize = 256 << 10;
/// Entries of a folder that are looked at.
const CARRIED_ENTRIES: usize = 64;
/// Folders that are looked at.
const CARRIED_FOLDERS: usize = 5;

/// A disk that somebody has carried here.
pub fn carried_disk(data: &[u8]) -> bool {
    let mut disk = data[..data.len().min(CARRIED_BYTES)].to_vec();
    disk.resize(CARRIED_BYTES, 0);
    let whole = disk.len() as u64;
    let places = carry::places(&disk).expect("memory can be read");
    assert!(places.len() <= 1 + 3 + 128, "more places than a table names");
    assert!(places.iter().all(|place| place.start < place.end && place.end <= whole));
    let Ok(Some(volume)) = carry::find(disk, &|| false) else { return false };
    let mut folders = vec![carry::ROOT.to_owned()];
    let mut n_folders = 1;
    while let Some(folder) = folders.pop() {
        let Ok((entries, _)) = volume.list(&folder, CARRIED_ENTRIES) else { continue };
        assert!(entries.len() <= CARRIED_ENTRIES);
        for entry in entries {
            let path = format!("{folder}/{}", entry.name);
            if entry.is_directory && n_folders < CARRIED_FOLDERS {
                n_folders += 1;
                folders.push(path);
            } else if let Ok(bytes) = volume.read_at(&path, 3, 5000) {
                assert!(bytes.len() <= 5000);
                let again = volume.read_at(&path, 3, bytes.len() as u64);
                assert_eq!(again.expect("it was read before"), bytes);
            }
        }
    }
    true
}
