//! Owns every block device, pool and volume on the node, and the identity that lives on them.
//!
//! No other process opens a disk; one that is not ours is lent for reading. A disk is [read][probe], a pure function [decides][decide] what
//! becomes of it, and only a blank disk, an own one or one that an order names is ever written.
//! Start is recovery: mounts that a former run left are found and kept.
//!
//! ```text
//! /pools/<uuid>            one btrfs pool for each disk, top level
//!   @state  -> /state      on the primary pool
//!   @store  -> /store      on the primary pool
//!   @volumes/<id>          a subvolume with a quota for each volume
//!   @identity/seed         the node's secret, the same on every pool
//!   @identity/primary      which choice of primary pool this one was
//!   @identity/volumes      which volume is on which pool
//!   @identity/pools        which pools the node has had
//! ```

#![forbid(unsafe_code)]

mod catalogue;
mod file;
mod identity;
mod mounts;
mod peers;
mod pool;
mod settle;
mod volume;

mod node;
mod serve;
mod step;

use node::{Event, Node};
use node_api::paths::STORAGED_SOCKET;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use storaged::uevent::{self, Uevents};
use storaged::{claim, decide, disk, probe, uuid};

/// Messages that wait for the owner. Senders wait when it is busy; the kernel keeps uevents.
const EVENTS_MAX: usize = 64;

/// How often it is looked whether the machine's drivers are there, until they are needed no more.
const DRIVERS_INTERVAL: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    daemon::run("storaged", run)
}

fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let takeover: BTreeSet<String> = daemon::boot_config()?.takeover.into_iter().collect();
    let (sender, receiver) = sync_channel(EVENTS_MAX);
    mounts::ensure_pools_directory()?;
    let mut node = Node::recover("/sys".as_ref(), takeover, sender.clone(), Instant::now())?;
    // Listen before the first look, so that no disk falls between the two.
    let uevents = Uevents::listen()?;
    let looker = sender.clone();
    thread::Builder::new().name("uevents".to_owned()).spawn(move || watch(&uevents, &looker))?;
    node.step(Event::Look, Instant::now())?;
    gather(&mut node, &receiver)?;
    node.settle()?;
    serve(sender)?;
    daemon::ready()?;
    loop {
        node.step(receiver.recv()?, Instant::now())?;
    }
}

/// Takes in disks until further ones can wait.
fn gather(node: &mut Node, events: &Receiver<Event>) -> Result<(), Box<dyn Error + Send + Sync>> {
    loop {
        node.look_at_drivers(Instant::now())?;
        let left = node.wait_until().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        match events.recv_timeout(left.min(DRIVERS_INTERVAL)) {
            Ok(event) => node.step(event, Instant::now())?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(error @ RecvTimeoutError::Disconnected) => return Err(error.into()),
        }
    }
}

/// Ends when the owner does. A broken socket is logged: disks are then found at the next start.
fn watch(uevents: &Uevents, owner: &SyncSender<Event>) {
    loop {
        match uevents.wait() {
            Ok(uevent::Wake::Disk | uevent::Wake::Interval) => {
                if owner.send(Event::Look).is_err() {
                    return;
                }
            }
            Err(error) => {
                daemon::error!("listening to the kernel's device messages: {error}");
                return;
            }
        }
    }
}

fn serve(owner: SyncSender<Event>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = ipc::listen(Path::new(STORAGED_SOCKET))?;
    let answer = move |call| serve::answer(call, &owner);
    thread::Builder::new().name("serve".to_owned()).spawn(move || {
        let error = ipc::serve(&listener, answer);
        daemon::error!("serving: {error}");
    })?;
    Ok(())
}
