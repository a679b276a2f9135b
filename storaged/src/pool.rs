//! One btrfs file system on one disk: making it, mounting it, what it holds.
//!
//! The order of writes that a power cut may interrupt anywhere:
//! record "making" → (takeover: clear what others left) → mkfs → check → record "made" → mount →
//! subvolumes → identity. Until "made" nothing is stored; from "made" on the disk is never made
//! again by itself.

use crate::catalogue::{self, Catalogue, Voice};
use crate::claim::{self, Claim, Phase, SLOT_BYTES};
use crate::decide::{Content, Make, Permission};
use crate::disk::Disk;
use crate::identity::{self, Copy};
use crate::mounts::{self, pool_point};
use crate::peers::{self, Peers};
use crate::settle::Choices;
use crate::uuid::Uuid;
use crate::{file, probe, volume};
use nix::errno::Errno;
use node_api::storaged::DiskClass;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Durable state of contractd.
pub(crate) const STATE: &str = "@state";
/// Objects and images of flists.
pub(crate) const STORE: &str = "@store";
/// Volumes of customers.
pub(crate) const VOLUMES: &str = "@volumes";
/// The identity, and whether this pool was chosen as primary.
pub(crate) const IDENTITY: &str = "@identity";
const SUBVOLUMES: [&str; 4] = [STATE, STORE, VOLUMES, IDENTITY];
/// Holds the choices of a primary pool.
const PRIMARY: &str = "primary";

/// The store may fill one part in this many of what is usable of the primary pool,
const STORE_PART: u64 = 5;
/// and the state one in this many; `logd` takes half of that for lines of containers. Volumes get the three quarters that [`volume::budget`] gives.
const STATE_PART: u64 = 20;

/// The one foreign program that storaged starts.
const MKFS: [&str; 2] = ["/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs"];

/// Two disks with the same pool, one a copy, must not be mounted at the same moment.
static MOUNTING: Mutex<()> = Mutex::new(());

/// A mounted pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    /// File system id; also the name of the mount point.
    pub(crate) uuid: Uuid,
    /// As recorded when it was made.
    pub(crate) class: DiskClass,
    /// Its copy of the identity.
    pub(crate) copy: Copy,
    /// Whether anything of a customer or of the node is on it.
    pub(crate) used: bool,
    /// What it keeps of the choices of a primary pool.
    pub(crate) choices: Choices,
    /// Quotas of its volumes, by id. Kept while the disk is gone.
    pub(crate) volumes: volume::Quotas,
    /// What it knows of the volumes of all pools.
    pub(crate) catalogue: Catalogue,
    /// Which pools of the node it knows.
    pub(crate) peers: Peers,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(crate) struct StepError {
    doing: String,
    #[source]
    source: io::Error,
}

impl StepError {
    /// Whether there was no room for it.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }
}

/// Adds what was being done to an error of the kernel.
pub(crate) trait Doing<T> {
    /// The sentence is made only when there is an error.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, StepError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, StepError> {
        self.map_err(|source| StepError { doing: doing(), source })
    }
}

/// Makes a pool on a disk, as [`crate::decide`] permitted. Returns the record that is on it then.
pub(crate) fn make(disk: &Disk, make: Make) -> Result<Claim, StepError> {
    let path = disk.path();
    let device = lock(&path)?;
    let takeover = make.permission == Permission::Takeover;
    let uuid = random_uuid().doing(|| "making a file system id".to_owned())?;
    let claim =
        Claim::making(make.generation, takeover, disk.class, uuid, disk.size_bytes, &disk.serial);
    let [end, start] = claim::slots(disk.size_bytes);
    write(&device, end, &claim.encode()).doing(|| format!("claiming {}", path.display()))?;
    if takeover {
        clear(&device, disk.size_bytes).doing(|| format!("clearing {}", path.display()))?;
    }
    mkfs(&device, &path, uuid, claim::file_system_bytes(disk.size_bytes))?;
    check(&device, disk, &claim, uuid).doing(|| format!("checking the new {}", path.display()))?;
    let made = claim.made();
    for slot in [end, start] {
        write(&device, slot, &made.encode()).doing(|| format!("claiming {}", path.display()))?;
    }
    Ok(made)
}

/// Opens a disk for writing. The lock travels to mkfs and lasts until it ends, even when we are
/// killed; a restarted storaged waits here for the mkfs of the former one.
fn lock(path: &Path) -> Result<File, StepError> {
    let device = OpenOptions::new().read(true).write(true).open(path);
    let device = device.doing(|| format!("opening {} for writing", path.display()))?;
    device.lock().doing(|| format!("locking {}", path.display()))?;
    let doing = || format!("checking that nobody uses {}", path.display());
    if is_held(path).doing(doing)? {
        return Err(io::ErrorKind::ResourceBusy.into()).doing(doing);
    }
    Ok(device)
}

/// `O_EXCL`: for a block device, the claim of an exclusive holder.
const EXCLUSIVE: i32 = rustix::fs::OFlags::EXCL.bits().cast_signed();

fn write(device: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    device.write_all_at(bytes, offset)?;
    device.sync_all()
}

/// Removes all signatures of former owners, which stand at the ends, sparing our own record.
fn clear(device: &File, size_bytes: u64) -> io::Result<()> {
    let [slot, _] = claim::slots(size_bytes);
    let behind_slot = slot + SLOT_BYTES as u64;
    for (from, to) in
        [(0, probe::START), (size_bytes - probe::END, slot), (behind_slot, size_bytes)]
    {
        let zeros = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        device.write_all_at(&zeros, from)?;
    }
    device.sync_all()
}

fn mkfs(device: &File, path: &Path, uuid: Uuid, size_bytes: u64) -> Result<(), StepError> {
    let doing = || format!("making a btrfs file system on {}", path.display());
    let program = MKFS.iter().find(|program| Path::new(program).exists()).unwrap_or(&MKFS[0]);
    let keeps_lock = device.try_clone().doing(doing)?;
    let output = Command::new(program)
        .args(["--quiet", "--force", "--nodiscard", "--data", "single", "--metadata", "dup"])
        .args(["--label", "zos", "--uuid", &uuid.to_string()])
        .args(["--byte-count", &size_bytes.to_string()])
        .arg(path)
        .env_clear()
        .stdin(Stdio::from(keeps_lock))
        .output()
        .doing(|| format!("starting {program}"))?;
    if output.status.success() {
        return device.sync_all().doing(doing);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(io::Error::other(format!("{}: {last}", output.status))).doing(doing)
}

/// Reads back what the next boot will see.
fn check(device: &File, disk: &Disk, claim: &Claim, uuid: Uuid) -> io::Result<()> {
    match probe::read(device, disk.size_bytes, None)? {
        Content::Read(traces)
            if traces.claim.as_ref() == Some(claim)
                && traces.btrfs == Some(uuid)
                && traces.foreign.is_empty() =>
        {
            Ok(())
        }
        seen => Err(io::Error::other(format!("the disk does not keep what is written: {seen:?}"))),
    }
}

/// Mounts the pool and completes what a former run left unfinished. A pool that is mounted already
/// stays mounted.
pub(crate) fn mount(disk: &Disk, claim: &Claim) -> Result<Pool, StepError> {
    let uuid = claim.pool();
    assert_eq!(claim.phase, Phase::Made, "a pool in the making is made again, not mounted");
    let point = pool_point(uuid);
    {
        let _one_at_a_time = MOUNTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        mount_once(disk, uuid, &point)?;
    }
    complete(&point).doing(|| format!("completing pool {uuid}"))?;
    load(uuid, claim.class, &point).doing(|| format!("reading pool {uuid}"))
}

fn mount_once(disk: &Disk, uuid: Uuid, point: &Path) -> Result<(), StepError> {
    let path = disk.path();
    let doing = || format!("mounting pool {uuid} from {}", path.display());
    let table = mounts::load().doing(doing)?;
    match mounts::at(&table, point) {
        // A disk that was pulled and plugged in again may have its former name. The mount of then
        // is dead, and does not hold the disk of now.
        Some(mount) if mount.source == path && is_held(&path).doing(doing)? => return Ok(()),
        Some(mount) if mount.source != path && mount.source.exists() => {
            let from = mount.source.display();
            let text = format!("it is mounted from {from}; one of the two disks is a copy");
            return Err(io::Error::other(text)).doing(doing);
        }
        Some(_) => mounts::detach(point).doing(doing)?,
        None => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(point).doing(doing)?;
    let options = Some("subvolid=5");
    match nix::mount::mount(Some(&path), point, Some("btrfs"), mounts::FLAGS, options) {
        // The kernel knows the file system from before, under another device.
        Err(Errno::EEXIST | Errno::EBUSY) => Err(io::Error::other(
            "the disk came back, but files of its former mount are still in use; it is taken again \
             when they are closed, at the latest when the node boots",
        )),
        mounted => mounted.map_err(io::Error::from),
    }
    .doing(doing)
}

/// Whether the kernel uses the disk: it is mounted, or part of something that was assembled.
fn is_held(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().read(true).custom_flags(EXCLUSIVE).open(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(true),
        Err(error) => Err(error),
    }
}

/// Quotas first, because only what is written afterwards is counted.
fn complete(point: &Path) -> io::Result<()> {
    let root = File::open(point)?;
    sys::btrfs::quota_enable(&root)?;
    for name in SUBVOLUMES {
        match sys::btrfs::subvolume_create(&root, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        fs::set_permissions(point.join(name), fs::Permissions::from_mode(0o700))?;
    }
    volume::finish_interrupted(&point.join(VOLUMES))?;
    sys::btrfs::sync(&root)
}

fn load(uuid: Uuid, class: DiskClass, point: &Path) -> io::Result<Pool> {
    let copy = identity::load(&point.join(IDENTITY));
    let mut used = matches!(copy, Copy::Broken(_));
    for name in [STATE, STORE, VOLUMES] {
        used |= fs::read_dir(point.join(name))?.next().is_some();
    }
    let choices = match fs::read_to_string(point.join(IDENTITY).join(PRIMARY)) {
        Ok(text) => Choices::parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Choices::default(),
        Err(error) => return Err(error),
    };
    let volumes = volume::load(&point.join(VOLUMES))?;
    let catalogue = catalogue::load(&point.join(IDENTITY));
    let peers = peers::load(&point.join(IDENTITY));
    Ok(Pool { uuid, class, copy, used, choices, volumes, catalogue, peers })
}

impl Pool {
    /// Where it is mounted.
    pub(crate) fn point(&self) -> PathBuf {
        pool_point(self.uuid)
    }

    /// What it says about volumes.
    pub(crate) fn voice(&self) -> Voice<'_> {
        Voice { pool: self.uuid, holds: &self.volumes, knows: &self.catalogue }
    }

    /// What it says about pools.
    pub(crate) fn peer(&self) -> peers::Voice<'_> {
        peers::Voice { pool: self.uuid, knows: &self.peers }
    }

    /// Whether less than a hundredth is left for files.
    pub(crate) fn is_full(&self) -> bool {
        // A pool that does not answer is reported elsewhere.
        rustix::fs::statvfs(self.point())
            .is_ok_and(|numbers| numbers.f_bavail < numbers.f_blocks / 100)
    }

    /// How big it is. The kernel knows without asking the disk.
    pub(crate) fn size_bytes(&self) -> io::Result<u64> {
        size_bytes(self.uuid)
    }
}

fn size_bytes(pool: Uuid) -> io::Result<u64> {
    let numbers = rustix::fs::statvfs(pool_point(pool))?;
    Ok(numbers.f_blocks * numbers.f_frsize)
}

/// Limits the shares of the node on the primary pool, so that neither a full store nor a runaway
/// state takes what volumes were promised, nor volumes what the state needs.
pub(crate) fn limit_shares(pool: Uuid) -> Result<(), StepError> {
    let doing = || format!("limiting the store and the state on pool {pool}");
    let usable_bytes = volume::usable(size_bytes(pool).doing(doing)?);
    for (name, part) in [(STORE, STORE_PART), (STATE, STATE_PART)] {
        let subvolume = File::open(pool_point(pool).join(name)).doing(doing)?;
        sys::btrfs::quota_limit(&subvolume, Some(usable_bytes / part)).doing(doing)?;
    }
    Ok(())
}

/// Keeps on a pool what there is to know of choices of a primary pool, durable on return.
pub(crate) fn keep_choices(pool: Uuid, choices: Choices) -> Result<(), StepError> {
    file::replace(&pool_point(pool).join(IDENTITY), PRIMARY, choices.to_string().as_bytes())
        .doing(|| format!("noting the primary pool on pool {pool}"))
}

fn random_uuid() -> io::Result<Uuid> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(Uuid::from_random(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Remains;

    #[test]
    fn a_takeover_clears_every_signature_and_spares_the_claim() {
        const SIZE: u64 = 1 << 30;
        let device = tempfile::tempfile().unwrap();
        device.set_len(SIZE).unwrap();
        let raid = (SIZE & !0xffff) - (1 << 16);
        let zfs = 0x00ba_b10c_u64.to_le_bytes();
        let signatures: [(u64, &[u8]); 5] = [
            (512, b"EFI PART"),
            (0x438, b"\x53\xef"),
            (SIZE - 512, b"EFI PART"),
            (SIZE - (128 << 10), &zfs),
            (raid, b"\xfc\x4e\x2b\xa9"),
        ];
        for (at, bytes) in signatures {
            device.write_all_at(bytes, at).unwrap();
        }
        let uuid = Uuid::from_random([5; 16]);
        let claim = Claim::making(1, true, DiskClass::Hdd, uuid, SIZE, "S");
        let foreign = |device: &File| match probe::read(device, SIZE, None).unwrap() {
            Content::Read(traces) => (traces.claim, traces.foreign.len(), traces.remains),
            other => panic!("{other:?}"),
        };
        let [end, _] = claim::slots(SIZE);
        write(&device, end, &claim.encode()).unwrap();
        assert_eq!(foreign(&device), (Some(claim.clone()), 4, Remains::Strange));
        clear(&device, SIZE).unwrap();
        assert_eq!(foreign(&device), (Some(claim.clone()), 0, Remains::Blank));
        device.write_all_at(b"customer", SIZE / 128 * 64).unwrap();
        assert_eq!(foreign(&device), (Some(claim), 0, Remains::Cleared));
    }
}
