//! The one owner of everything storaged knows: disks, pools, identity, primary pool.
//!
//! Each disk is read, made and mounted by a thread of its own, so that one that hangs holds up
//! nobody else; its result comes back as a message. Everything else happens here, one event at a
//! time.

use crate::catalogue::{self, Catalogue};
use crate::claim::Phase;
use crate::decide::{Decision, Orders, Permission, decide, decide_unread};
use crate::disk::{self, Disk};
use crate::identity::{self, Copy, Seed, Source, Witness};
use crate::mounts::{self, Place};
use crate::peers;
use crate::pool::{self, Doing, Pool};
use crate::probe;
use crate::settle::{self, Candidate, Progress};
use crate::uuid::Uuid;
use daemon::{info, warn};
use node_api::paths::DRIVERS_LOADED;
use node_api::storaged::DiskState;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::Instant;
use std::{fs, io, thread};

/// Where the firmware's boot loader says which partition it was read from.
const LOADER_PARTITION: &str =
    "/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Keeps the identity of a node without disks over a restart of storaged.
const VOLATILE: &str = "/run/zos/storaged";

/// Pools whose disk was removed that are remembered: what was plugged in and out again and again is
/// forgotten.
const LOST_MAX: usize = 64;

/// What can happen.
pub(crate) enum Event {
    /// Disks came or went, or it is time to look.
    Look,
    /// A disk's thread is done.
    Settled(String, u64, Outcome),
    /// A step on this pool that had been given up came to its end.
    Late(Uuid),
    /// Somebody asks.
    Ask(Box<dyn FnOnce(&mut Node) + Send>),
}

/// What became of a disk.
pub(crate) enum Outcome {
    /// A mounted pool, and how it came to be.
    Pool(Box<Pool>, &'static str),
    /// No pool, for this reason.
    None(DiskState, String),
}

/// One disk, or one that is gone while its pool is still mounted.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As sysfs described it.
    pub(crate) disk: Disk,
    /// What became of it.
    pub(crate) state: State,
    /// Whether its thread is at work.
    working: bool,
}

/// What became of a disk.
#[derive(Debug)]
pub(crate) enum State {
    /// Its thread has not answered yet.
    Unknown,
    /// No pool.
    None(DiskState, String),
    /// A pool: what is wrong with it, or how it came to be.
    Pool(Pool, Health),
}

/// Whether a pool can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It can; how it came to be.
    Good(&'static str),
    /// It cannot.
    Bad(String),
}

/// The state of the daemon.
#[derive(Debug)]
pub(crate) struct Node {
    sysfs: PathBuf,
    takeover: BTreeSet<String>,
    boot_partition: Option<[u8; 16]>,
    /// To the owner itself.
    pub(crate) events: SyncSender<Event>,
    started: Instant,
    drivers_loaded: Option<Instant>,
    arrived: Instant,
    /// Whether the choices below were made.
    settled: bool,
    /// Disks by kernel name.
    pub(crate) disks: BTreeMap<String, Entry>,
    /// Disks that went away while their pool was mounted, until they come back.
    pub(crate) lost: BTreeMap<Uuid, Entry>,
    /// Where `/state` and `/store` live.
    pub(crate) place: Option<Place>,
    /// The identity in use since boot.
    pub(crate) seed: Option<Seed>,
    /// Whether it survives a power-off.
    pub(crate) durable: bool,
    /// What is wrong with it.
    pub(crate) problem: Option<String>,
}

impl Node {
    /// Reads what a former run left in the kernel.
    pub(crate) fn recover(
        sysfs: &Path,
        takeover: BTreeSet<String>,
        events: SyncSender<Event>,
        now: Instant,
    ) -> io::Result<Self> {
        let table = mounts::load()?;
        for point in mounts::orphans(&table, Path::exists) {
            warn!("{}: its disk was removed", point.display());
            mounts::detach(&point)?;
        }
        let place = mounts::place(&table);
        let seed = match identity::load(VOLATILE.as_ref()) {
            Copy::Found(seed) => Some(seed),
            Copy::Missing | Copy::Broken(_) => None,
        };
        // Absent without UEFI.
        let variable = fs::read(LOADER_PARTITION).unwrap_or_default();
        Ok(Self {
            sysfs: sysfs.to_owned(),
            takeover,
            boot_partition: probe::boot_partition(&variable),
            events,
            started: now,
            drivers_loaded: None,
            arrived: now,
            settled: false,
            disks: BTreeMap::new(),
            lost: BTreeMap::new(),
            place,
            seed,
            durable: false,
            problem: None,
        })
    }

    /// Takes in one event.
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> io::Result<()> {
        match event {
            Event::Look => self.look(now),
            Event::Settled(name, sequence, outcome) => {
                self.absorb(&name, sequence, outcome);
                self.converge_if_settled()
            }
            Event::Late(uuid) => {
                self.revive(uuid);
                Ok(())
            }
            Event::Ask(question) => {
                question(self);
                Ok(())
            }
        }
    }

    /// Notes when the machine's drivers are there. Their last disks may have come in silence.
    pub(crate) fn look_at_drivers(&mut self, now: Instant) -> io::Result<()> {
        if self.drivers_loaded.is_some() || !Path::new(DRIVERS_LOADED).exists() {
            return Ok(());
        }
        self.drivers_loaded = Some(now);
        self.look(now)
    }

    /// Until when to wait for further disks before serving.
    pub(crate) fn wait_until(&self) -> Instant {
        let pools: Vec<&Pool> = self.pools().collect();
        settle::wait_until(Progress {
            started: self.started,
            drivers_loaded: self.drivers_loaded,
            arrived: self.arrived,
            n_working: self.n_working(),
            n_disks: self.disks.len(),
            has_former_primary: pools
                .iter()
                .any(|pool| pool.choices.won > 0 && matches!(pool.copy, Copy::Found(_))),
            has_all_pools: peers::are_all_here(
                &pools.iter().map(|pool| pool.peer()).collect::<Vec<_>>(),
            ),
            is_restart: self.place.is_some(),
        })
    }

    /// Makes the choices that need to know all disks. Called once.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.settled = true;
        self.converge_if_settled()
    }

    /// Pools that can be used.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.disks.values().filter_map(|entry| match &entry.state {
            State::Pool(pool, Health::Good(_)) => Some(pool),
            State::Pool(_, Health::Bad(_)) | State::Unknown | State::None(..) => None,
        })
    }

    /// Pools that can be used and carry the identity in use: those of this node.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Pool> {
        self.pools().filter(|pool| self.is_member(pool))
    }

    /// Pools of this node that cannot be used any more.
    fn failed_members(&self) -> impl Iterator<Item = &Pool> {
        let entries = self.disks.values().chain(self.lost.values());
        let failed = entries.filter_map(|entry| match &entry.state {
            State::Pool(pool, Health::Bad(_)) => Some(pool),
            State::Pool(_, Health::Good(_)) | State::Unknown | State::None(..) => None,
        });
        failed.filter(|pool| self.is_member(pool))
    }

    /// Whether a pool belongs to this node.
    pub(crate) fn is_member(&self, pool: &Pool) -> bool {
        self.seed.is_some_and(|seed| pool.copy == Copy::Found(seed))
    }

    /// A usable pool, to be changed.
    pub(crate) fn pool_mut(&mut self, uuid: Uuid) -> Option<&mut Pool> {
        self.disks.values_mut().find_map(|entry| match &mut entry.state {
            State::Pool(pool, Health::Good(_)) if pool.uuid == uuid => Some(pool),
            State::Pool(..) | State::Unknown | State::None(..) => None,
        })
    }

    fn n_working(&self) -> usize {
        self.disks.values().filter(|entry| entry.working).count()
    }

    /// Compares sysfs with what is known: new disks get a thread, missing ones are let go.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        let found = disk::scan(&self.sysfs)?;
        let orders =
            Orders { takeover: self.takeover.clone(), ambiguous: disk::shared_serials(&found) };
        let present: BTreeMap<&str, u64> =
            found.iter().map(|disk| (disk.name.as_str(), disk.sequence)).collect();
        let gone =
            |entry: &Entry| present.get(entry.disk.name.as_str()) != Some(&entry.disk.sequence);
        let names = self.disks.iter().filter(|(_, entry)| gone(entry));
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.let_go(&name);
        }
        for disk in found {
            // A failed disk is tried again: a cable may have been pushed in.
            let known = self.disks.get(&disk.name);
            let retry = |entry: &Entry| {
                !entry.working && matches!(entry.state, State::None(DiskState::Failed, _))
            };
            if known.is_some_and(|entry| !retry(entry)) {
                continue;
            }
            if known.is_none() {
                self.arrived = now;
            }
            self.start(disk, &orders);
        }
        self.check_pools();
        Ok(())
    }

    /// Forgets a disk that is gone, or, when its pool was in use, remembers what is missing.
    fn let_go(&mut self, name: &str) {
        let Some(entry) = self.disks.remove(name) else { return };
        let State::Pool(pool, _) = entry.state else {
            info!("disk {name} was removed");
            return;
        };
        let uuid = pool.uuid;
        warn!("disk {name} was removed while pool {uuid} was in use");
        let advice = if self.place == Some(Place::Pool(uuid)) {
            "it held the node's state: plug it in again and boot"
        } else {
            release(uuid);
            "plug it in again"
        };
        let health = Health::Bad(format!("was removed while in use; {advice}"));
        let state = State::Pool(pool, health);
        self.lost.insert(uuid, Entry { disk: entry.disk, state, working: false });
        while self.lost.len() > LOST_MAX {
            self.lost.pop_first();
        }
    }

    /// A file system that met an error turns read-only by itself.
    fn check_pools(&mut self) {
        // Without the table nothing new is known.
        let Ok(table) = mounts::load() else { return };
        for entry in self.disks.values_mut() {
            let State::Pool(pool, health) = &mut entry.state else { continue };
            let mount = mounts::at(&table, &pool.point());
            let trouble = match mount {
                Some(mount) if mount.read_only => "turned read-only after an error of the disk",
                None => "is no longer mounted",
                Some(_) => continue,
            };
            let reason = format!("{trouble}; save its data, replace the disk, and boot again");
            if matches!(health, Health::Good(_)) {
                warn!("disk {}: pool {} {reason}", entry.disk.name, pool.uuid);
                *health = Health::Bad(reason);
            }
        }
    }

    /// Starts the thread of a disk.
    pub(crate) fn start(&mut self, disk: Disk, orders: &Orders) {
        let former = self.disks.remove(&disk.name).map(|entry| entry.state);
        let (events, boot) = (self.events.clone(), self.boot_partition);
        let (job, orders) = (disk.clone(), orders.clone());
        let thread = thread::Builder::new().name(format!("disk {}", disk.name)).spawn(move || {
            let outcome = work(&job, &orders, boot);
            // Without a receiver the daemon is ending.
            drop(events.send(Event::Settled(job.name, job.sequence, outcome)));
        });
        let working = thread.is_ok();
        let state = match (thread, former) {
            // A retry keeps showing the former reason until it ends.
            (Ok(_), Some(former)) => former,
            (Ok(_), None) => State::Unknown,
            (Err(error), _) => {
                State::None(DiskState::Failed, format!("cannot start a thread for it: {error}"))
            }
        };
        self.disks.insert(disk.name.clone(), Entry { disk, state, working });
    }

    /// Takes over what a disk's thread found, unless the disk is gone by now.
    fn absorb(&mut self, name: &str, sequence: u64, outcome: Outcome) {
        let Some(entry) = self.disks.get_mut(name) else { return };
        if entry.disk.sequence != sequence {
            return;
        }
        entry.working = false;
        let next = match outcome {
            Outcome::Pool(pool, how) => {
                info!("disk {name}: pool {} {how}", pool.uuid);
                let was_lost = self.lost.remove(&pool.uuid).is_some();
                // `/state` and `/store`, and whoever has files open there, still hang on the dead mount.
                let is_state = self.place == Some(Place::Pool(pool.uuid));
                let health = if was_lost && is_state {
                    Health::Bad("came back; it holds the node's state: boot to use it".to_owned())
                } else {
                    Health::Good(how)
                };
                State::Pool(*pool, health)
            }
            Outcome::None(state, reason) => {
                let known = matches!(&entry.state, State::None(_, former) if *former == reason);
                if !known {
                    warn!("disk {name}: {reason}");
                }
                State::None(state, reason)
            }
        };
        entry.state = next;
    }

    fn converge_if_settled(&mut self) -> io::Result<()> {
        if self.settled {
            self.converge_identity()?;
            self.converge_place()?;
            self.converge_catalogue();
            self.converge_peers();
        }
        Ok(())
    }

    /// Which pool each volume of this node is on, pools that are not there included.
    pub(crate) fn catalogue(&self) -> Catalogue {
        let mut merged = catalogue::merge(&self.members().map(Pool::voice).collect::<Vec<_>>());
        for pool in self.failed_members() {
            for id in pool.volumes.keys() {
                merged.entry(id.clone()).or_insert(pool.uuid);
            }
        }
        merged
    }

    /// Writes what is known of volumes to every pool that knows less.
    pub(crate) fn converge_catalogue(&mut self) {
        let merged = self.catalogue();
        let behind = self.members().filter(|pool| pool.catalogue != merged);
        for uuid in behind.map(|pool| pool.uuid).collect::<Vec<_>>() {
            let copy = merged.clone();
            let stored = self.on_pool(uuid, move || {
                catalogue::store(&identity_of(uuid), &copy).doing(|| doing(uuid, "volumes"))
            });
            match (stored, self.pool_mut(uuid)) {
                (Ok(()), Some(pool)) => pool.catalogue.clone_from(&merged),
                (Ok(()), None) => {}
                // The other pools have theirs, and the next change tries again.
                (Err(error), _) => warn!("{}", daemon::chain(&error)),
            }
        }
    }

    /// Tells every pool of the node of the others.
    fn converge_peers(&mut self) {
        let merged = peers::merge(&self.members().map(Pool::peer).collect::<Vec<_>>());
        let behind = self.members().filter(|pool| pool.peers != merged);
        for uuid in behind.map(|pool| pool.uuid).collect::<Vec<_>>() {
            let copy = merged.clone();
            let stored = self.on_pool(uuid, move || {
                peers::store(&identity_of(uuid), &copy).doing(|| doing(uuid, "pools"))
            });
            match (stored, self.pool_mut(uuid)) {
                (Ok(()), Some(pool)) => pool.peers.clone_from(&merged),
                (Ok(()), None) => {}
                // The next boot waits for more disks than it must.
                (Err(error), _) => warn!("{}", daemon::chain(&error)),
            }
        }
    }

    /// Plans the identity and writes the copies that are missing.
    fn converge_identity(&mut self) -> io::Result<()> {
        let witness =
            |pool: &Pool| Witness { pool: pool.uuid, copy: pool.copy.clone(), used: pool.used };
        let witnesses: Vec<Witness> = self.pools().map(witness).collect();
        let doubtful = self.disks.values().filter(|entry| match &entry.state {
            State::Unknown | State::None(DiskState::Failed, _) => true,
            State::Pool(_, health) => matches!(health, Health::Bad(_)),
            State::None(..) => false,
        });
        let doubtful: Vec<String> = doubtful.map(|entry| entry.disk.name.clone()).collect();
        let plan = identity::plan(&witnesses, &doubtful, self.seed);
        self.seed = match plan.source {
            Source::None => None,
            Source::Known(seed) => Some(seed),
            Source::Mint => Some(Seed::mint()?),
        };
        let mut durable = plan.durable;
        let mut problem = plan.problem;
        if let Some(seed) = self.seed {
            let mut n_written = 0;
            for uuid in &plan.write_to {
                let uuid = *uuid;
                let stored = self.on_pool(uuid, move || {
                    identity::store(&identity_of(uuid), seed)
                        .doing(|| format!("writing the identity to pool {uuid}"))
                });
                match (stored, self.pool_mut(uuid)) {
                    (Ok(()), Some(pool)) => {
                        n_written += 1;
                        pool.copy = Copy::Found(seed);
                    }
                    (Ok(()), None) => {}
                    (Err(error), _) => problem = Some(daemon::chain(&error)),
                }
            }
            durable &= n_written > 0 || plan.write_to.is_empty() || self.members().next().is_some();
            keep_volatile(seed, durable)?;
        }
        if problem != self.problem
            && let Some(problem) = &problem
        {
            warn!("identity: {problem}");
        }
        (self.durable, self.problem) = (durable, problem);
        Ok(())
    }

    /// Decides once where `/state` and `/store` live. A node that began without a disk moves to
    /// one only when nothing was put or opened there; otherwise the next boot uses the disk.
    fn converge_place(&mut self) -> io::Result<()> {
        let former = mounts::place(&mounts::load()?).or(self.place);
        let place = match former {
            Some(Place::Pool(uuid)) => Place::Pool(uuid),
            Some(Place::Memory) => match self.best_pool() {
                Some(uuid) if mounts::leave_memory().is_ok() => Place::Pool(uuid),
                Some(_) | None => Place::Memory,
            },
            None => self.best_pool().map_or(Place::Memory, Place::Pool),
        };
        if let Place::Pool(uuid) = place {
            self.agree_on_primary(uuid);
        }
        for step in mounts::plan(&mounts::load()?, place) {
            mounts::apply(&step)
                .map_err(|error| io::Error::other(format!("mounting {step:?}: {error}")))?;
        }
        if self.place != Some(place) {
            match place {
                Place::Pool(uuid) => info!("state and store are on pool {uuid}"),
                Place::Memory => warn!("state and store are in memory: no pool can be used"),
            }
        }
        self.place = Some(place);
        Ok(())
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |pool: &Pool| Candidate {
            pool: pool.uuid,
            choices: pool.choices,
            class: pool.class,
            size_bytes: pool.size_bytes().unwrap_or(0),
        };
        self.members().map(candidate).collect()
    }

    fn best_pool(&self) -> Option<Uuid> {
        settle::primary(&self.candidates())
    }

    /// Writes the choice on every pool of the node, so that the next boot repeats it whichever of
    /// them it finds.
    fn agree_on_primary(&mut self, uuid: Uuid) {
        for (told, choices) in settle::agree(&self.candidates(), uuid) {
            let kept = self.on_pool(told, move || {
                if told == uuid {
                    pool::limit_shares(told)?;
                }
                pool::keep_choices(told, choices)
            });
            match (kept, self.pool_mut(told)) {
                (Ok(()), Some(pool)) => pool.choices = choices,
                (Ok(()), None) => {}
                // The choice holds without the number; the next boot may choose again.
                (Err(error), _) => warn!("{}", daemon::chain(&error)),
            }
        }
    }
}

/// Where a pool keeps what the node has to know of itself.
fn identity_of(uuid: Uuid) -> PathBuf {
    mounts::pool_point(uuid).join(pool::IDENTITY)
}

fn doing(uuid: Uuid, what: &str) -> String {
    format!("writing the list of {what} to pool {uuid}")
}

/// Takes a dead mount away, so that the disk can come back. Not on the owner's thread: the kernel may
/// take its time to give up on what was not written.
fn release(uuid: Uuid) {
    let release = move || {
        if let Err(error) = mounts::detach(&mounts::pool_point(uuid)) {
            warn!("unmounting pool {uuid}, whose disk was removed: {error}");
        }
    };
    if let Err(error) = thread::Builder::new().name("release".to_owned()).spawn(release) {
        warn!("starting a thread to unmount pool {uuid}: {error}");
    }
}

/// Keeps the identity in memory for a restarted storaged while no pool holds it.
fn keep_volatile(seed: Seed, durable: bool) -> io::Result<()> {
    let directory = Path::new(VOLATILE);
    if durable || identity::load(directory) == Copy::Found(seed) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    identity::store(directory, seed)
}

/// What a disk's thread does: look, decide, act.
fn work(disk: &Disk, orders: &Orders, boot: Option<[u8; 16]>) -> Outcome {
    let decision = decide_unread(disk).unwrap_or_else(|| {
        decide(disk, &probe::probe(&disk.path(), disk.size_bytes, boot), orders)
    });
    let (claim, how) = match decision {
        Decision::Ignore(reason) => return Outcome::None(DiskState::Ignored, reason),
        Decision::TooSmall(reason) => return Outcome::None(DiskState::TooSmall, reason),
        Decision::Foreign(reason) => return Outcome::None(DiskState::Foreign, reason),
        Decision::Failed(reason) => return Outcome::None(DiskState::Failed, reason),
        Decision::Mount(claim) => (Ok(claim), "was found and is in use"),
        Decision::Make(make) => {
            let how = match make.permission {
                Permission::Blank => "was made on a blank disk",
                Permission::Interrupted => "was made again after an interruption",
                Permission::Takeover => "was made on a disk taken over by order",
            };
            info!("disk {}: making a pool ({:?})", disk.name, make.permission);
            (pool::make(disk, make), how)
        }
    };
    let mounted = claim.and_then(|claim| {
        debug_assert_eq!(claim.phase, Phase::Made);
        pool::mount(disk, &claim)
    });
    match mounted {
        Ok(pool) => Outcome::Pool(Box::new(pool), how),
        Err(error) => Outcome::None(DiskState::Failed, daemon::chain(&error)),
    }
}
