//! Answers the calls of [`node_api::storaged`].

use crate::disk::Disk;
use crate::mounts::{self, Place};
use crate::node::{Entry, Event, Health, Node, State};
use crate::pool::{self, Pool, StepError};
use crate::probe;
use crate::uuid::Uuid;
use crate::volume::{self, Refusal, Room};
use daemon::{info, warn};
use ipc::{Call, Failure, Outcome};
use node_api::Method;
use node_api::init::Done;
use node_api::storaged as api;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Disks that hang hold up the owner one after the other, each for a few seconds.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// Answers one call. Runs on the thread of its connection; the work is done by the owner.
pub(crate) fn answer(call: Call, owner: &SyncSender<Event>) -> Outcome {
    match call.method() {
        api::Disks::NAME => call.answer(|_: api::Disks| ask(owner, |node| Ok(disks(node)))),
        api::Strangers::NAME => {
            call.answer(|_: api::Strangers| ask(owner, |node| Ok(strangers(node))))
        }
        api::Lend::NAME => call.answer_with_fds(|api::Lend { disk }, _| lend(owner, disk)),
        api::Identity::NAME => {
            call.answer(|_: api::Identity| ask(owner, |node| Ok(identity(node))))
        }
        api::Volumes::NAME => call.answer(|_: api::Volumes| ask(owner, |node| Ok(volumes(node)))),
        api::VolumeEnsure::NAME => {
            call.answer(|wish: api::VolumeEnsure| ask(owner, move |node| ensure(node, &wish)))
        }
        api::VolumeDelete::NAME => {
            call.answer(|order: api::VolumeDelete| ask(owner, move |node| delete(node, &order)))
        }
        _ => call.unknown(),
    }
}

fn ask<T: Send + 'static>(
    owner: &SyncSender<Event>,
    question: impl FnOnce(&mut Node) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = sync_channel(1);
    let event = Event::Ask(Box::new(move |node: &mut Node| {
        // Nobody waits for the answer when the connection is gone.
        drop(sender.send(question(node)));
    }));
    let ending = || Failure::new("Failed", "storaged is ending");
    owner.send(event).map_err(|_| ending())?;
    match receiver.recv_timeout(ANSWER_MAX) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Disconnected) => Err(ending()),
        Err(RecvTimeoutError::Timeout) => {
            Err(Failure::new("Busy", "disks do not answer; try again"))
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let name = match &refusal {
            Refusal::Invalid(_) => "InvalidParameter",
            Refusal::NoPool(_) => "NoPool",
            Refusal::NoSpace { .. } => "NoSpace",
            Refusal::PoolFailed { .. } => "PoolFailed",
        };
        Self::new(name, refusal.to_string())
    }
}

/// A step on a pool that failed. A full disk is told apart: it passes when somebody deletes files.
fn failed(uuid: Uuid) -> impl Fn(StepError) -> Failure {
    move |error| {
        if error.is_full() {
            return Failure::new(
                "NoSpace",
                format!("pool {uuid} is full: {}", daemon::chain(&error)),
            );
        }
        error.into()
    }
}

fn disks(node: &Node) -> api::DisksReply {
    let entries = node.disks.values().chain(node.lost.values());
    let mut disks: Vec<api::Disk> = entries.map(|entry| wire_disk(node, entry)).collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    let primary_pool = match node.place {
        Some(Place::Pool(uuid)) => Some(uuid.to_string()),
        Some(Place::Memory) | None => None,
    };
    api::DisksReply { disks, primary_pool }
}

fn wire_disk(node: &Node, entry: &Entry) -> api::Disk {
    let Disk { name, serial, model, size_bytes, class, .. } = &entry.disk;
    let (state, reason, pool) = match &entry.state {
        State::Unknown => {
            (api::DiskState::Failed, "has not answered yet; check cable and disk".to_owned(), None)
        }
        State::None(state, reason) => (*state, reason.clone(), None),
        State::Pool(pool, Health::Good(how)) => {
            let role = role(node, pool);
            let full =
                if pool.is_full() { "; it is full: delete files of its volumes" } else { "" };
            (api::DiskState::Pool, format!("pool {how}; {role}{full}"), Some(pool))
        }
        State::Pool(pool, Health::Bad(why)) => {
            (api::DiskState::Failed, format!("{why} (pool {})", pool.uuid), None)
        }
    };
    // The class that was recorded counts. A pool of another node gives nothing.
    let class = pool.map_or(*class, |pool| pool.class);
    let pool = pool.filter(|pool| node.is_member(pool)).map(|pool| wire_pool(&room(node, pool)));
    api::Disk {
        name: name.clone(),
        serial: serial.clone(),
        model: model.clone(),
        size_bytes: *size_bytes,
        class,
        state,
        reason,
        pool,
    }
}

/// Disks that are not in use. Some of them nobody has looked at, such as those on USB and second cables to
/// our own: what is on them is asked when they are lent.
fn is_strange(state: &State) -> bool {
    match state {
        State::None(state, _) => match state {
            api::DiskState::Foreign | api::DiskState::TooSmall | api::DiskState::Ignored => true,
            api::DiskState::Pool | api::DiskState::Failed => false,
        },
        State::Unknown | State::Pool(..) => false,
    }
}

fn stranger(disk: &Disk) -> api::Stranger {
    let Disk { name, sequence, size_bytes, .. } = disk;
    api::Stranger { name: name.clone(), sequence: *sequence, size_bytes: *size_bytes }
}

fn strangers(node: &Node) -> api::StrangersReply {
    // A reader of cards without a card is a disk without bytes.
    let has_medium = |entry: &&Entry| entry.disk.size_bytes > 0;
    let strange = node.disks.values().filter(|entry| is_strange(&entry.state)).filter(has_medium);
    api::StrangersReply { disks: strange.map(|entry| stranger(&entry.disk)).collect() }
}

/// One at a time is opened.
static LENDING: Mutex<()> = Mutex::new(());

/// Opened here and not by the owner, whom a disk that hangs must not hold up.
fn lend(owner: &SyncSender<Event>, wanted: api::Stranger) -> Result<(Done, Vec<OwnedFd>), Failure> {
    let api::Stranger { sequence, size_bytes, .. } = wanted;
    let name = wanted.name.clone();
    let no_such = || Failure::new("NotFound", format!("no such disk to lend: {name}"));
    let path = ask(owner, move |node| {
        let entry = node.disks.get(&wanted.name).filter(|entry| is_strange(&entry.state));
        let entry = entry.filter(|entry| stranger(&entry.disk) == wanted);
        Ok(entry.map(|entry| entry.disk.path()))
    })?
    .ok_or_else(no_such)?;
    // One that hangs holds one thread of ours, and not all.
    let lending = LENDING.try_lock();
    let _lending =
        lending.map_err(|_| Failure::new("Busy", "another disk is being opened".to_owned()))?;
    let failed = |error| Failure::new("Failed", format!("opening {}: {error}", path.display()));
    let opened = File::open(&path).map_err(failed)?;
    // Under the name may be another one by now.
    let is_it = sys::btrfs::disk_sequence(&opened).map_err(failed)? == sequence
        && sys::btrfs::block_size_bytes(&opened).map_err(failed)? == size_bytes;
    if !is_it {
        return Err(no_such());
    }
    let is_pool = probe::holds_pool(&opened, size_bytes).map_err(failed)?;
    Ok((Done {}, if is_pool { Vec::new() } else { vec![opened.into()] }))
}

fn role(node: &Node, pool: &Pool) -> &'static str {
    if node.place == Some(Place::Pool(pool.uuid)) {
        "it holds the node's state"
    } else if !node.is_member(pool) {
        "it does not carry this node's identity and gets no volumes"
    } else if node.place == Some(Place::Memory) {
        "it will hold the node's state from the next boot on"
    } else {
        "it holds volumes"
    }
}

/// Sizes are those that volumes can have: contractd offers them as capacity.
fn wire_pool(room: &Room) -> api::Pool {
    api::Pool {
        uuid: room.pool.to_string(),
        size_bytes: room.budget_bytes,
        free_bytes: room.free_bytes(),
    }
}

fn identity(node: &Node) -> api::IdentityReply {
    api::IdentityReply {
        seed: node.seed.map(crate::identity::Seed::to_hex),
        durable: node.durable,
        problem: node.problem.clone(),
    }
}

fn volumes(node: &Node) -> api::VolumesReply {
    let of_pool = |pool: &Pool| {
        let uuid = pool.uuid.to_string();
        let volume = move |(id, size): (&String, &u64)| api::Volume {
            id: id.clone(),
            pool: uuid.clone(),
            size_bytes: *size,
        };
        pool.volumes.iter().map(volume).collect::<Vec<_>>()
    };
    let mut volumes: Vec<api::Volume> = node.members().flat_map(of_pool).collect();
    volumes.sort_by(|a, b| a.id.cmp(&b.id));
    api::VolumesReply { volumes }
}

/// Where a volume is: on a pool that can be used, or, as a refusal, on one that cannot.
fn find(node: &Node, id: &str) -> Result<Option<Uuid>, Refusal> {
    let Some(pool) = node.catalogue().get(id).copied() else { return Ok(None) };
    if node.members().any(|member| member.uuid == pool) {
        return Ok(Some(pool));
    }
    Err(Refusal::PoolFailed { id: id.to_owned(), pool })
}

fn room(node: &Node, pool: &Pool) -> Room {
    let primary = node.place == Some(Place::Pool(pool.uuid));
    // A pool that does not answer has nothing to give.
    let size_bytes = pool.size_bytes().unwrap_or(0);
    Room {
        pool: pool.uuid,
        class: pool.class,
        budget_bytes: volume::budget(size_bytes, primary),
        promised_bytes: pool.volumes.values().fold(0, |sum, size| sum.saturating_add(*size)),
    }
}

fn ensure(node: &mut Node, wish: &api::VolumeEnsure) -> Result<api::VolumeReply, Failure> {
    volume::check_id(&wish.id)?;
    if wish.size_bytes == 0 {
        return Err(Refusal::Invalid("a volume has a size".to_owned()).into());
    }
    let rooms: Vec<Room> = node.members().map(|pool| room(node, pool)).collect();
    let (id, size_bytes) = (wish.id.clone(), wish.size_bytes);
    if let Some(uuid) = find(node, &wish.id)? {
        let pool = node.members().find(|pool| pool.uuid == uuid).expect("find names usable pools");
        let directory = pool.point().join(pool::VOLUMES);
        let path = directory.join(&id);
        let had_bytes = pool.volumes[&id];
        if had_bytes != size_bytes {
            let room = rooms.iter().find(|room| room.pool == uuid).expect("it is a member");
            volume::resize(room, had_bytes, size_bytes)?;
            node.on_pool(uuid, move || volume::change(&directory, &id, size_bytes))
                .map_err(failed(uuid))?;
            note(node, uuid, wish);
            info!("volume {} has {size_bytes} bytes, had {had_bytes}", wish.id);
        }
        return Ok(reply(&path));
    }
    let uuid = volume::place(&rooms, wish.class, size_bytes)?;
    let directory = mounts::pool_point(uuid).join(pool::VOLUMES);
    // Noted first: if the disk hangs, it may be made later all the same, and must not be made on
    // another one meanwhile.
    note(node, uuid, wish);
    let made = node.on_pool(uuid, move || volume::make(&directory, &id, size_bytes));
    if let (Err(_), Some(pool)) = (&made, node.pool_mut(uuid)) {
        pool.volumes.remove(&wish.id);
    }
    node.converge_catalogue();
    let path = made.map_err(failed(uuid))?;
    info!("volume {} of {size_bytes} bytes made on pool {uuid}", wish.id);
    Ok(reply(&path))
}

fn reply(path: &Path) -> api::VolumeReply {
    api::VolumeReply { path: path.to_string_lossy().into_owned() }
}

/// Remembers what a volume was promised.
fn note(node: &mut Node, uuid: Uuid, wish: &api::VolumeEnsure) {
    if let Some(pool) = node.pool_mut(uuid) {
        pool.volumes.insert(wish.id.clone(), wish.size_bytes);
    }
}

fn delete(node: &mut Node, order: &api::VolumeDelete) -> Result<Done, Failure> {
    volume::check_id(&order.id)?;
    volume::check_order(&order.order)?;
    let Some(uuid) = find(node, &order.id)? else { return Ok(Done {}) };
    warn!("deleting volume {} on pool {uuid} by order {}", order.id, order.order);
    let (directory, id) = (mounts::pool_point(uuid).join(pool::VOLUMES), order.id.clone());
    node.on_pool(uuid, move || volume::delete(&directory, &id)).map_err(failed(uuid))?;
    if let Some(pool) = node.pool_mut(uuid) {
        pool.volumes.remove(&order.id);
    }
    node.converge_catalogue();
    Ok(Done {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_that_are_not_in_use_are_lent() {
        let check =
            |state: State, wanted: bool| assert_eq!(is_strange(&state), wanted, "{state:?}");
        let none = |state| State::None(state, "why".to_owned());
        check(none(api::DiskState::Foreign), true);
        check(none(api::DiskState::TooSmall), true);
        check(none(api::DiskState::Ignored), true);
        check(none(api::DiskState::Failed), false);
        check(none(api::DiskState::Pool), false);
        check(State::Unknown, false);
    }
}
