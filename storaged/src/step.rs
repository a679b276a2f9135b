//! Steps that read or write a pool, and may take for ever: the owner waits for none of them for long,
//! so that a disk that hangs holds up the calls for others only once.

use crate::decide::Orders;
use crate::node::{Entry, Event, Health, Node, State};
use crate::pool::{Doing, StepError};
use crate::uuid::Uuid;
use daemon::{info, warn};
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use std::{io, thread};

/// A step on a pool that takes longer than this is no longer waited for. Every step writes a few blocks
/// at most; a disk that answers at all does it in a second.
const STEP_MAX: Duration = Duration::from_secs(10);
/// What is said of the pool then.
const SILENT: &str = "does not answer; check cable and disk";

impl Node {
    /// Takes a step that reads or writes a pool, on a thread of its own. A disk that hangs holds up the
    /// owner once, for [`STEP_MAX`]; after that its pool counts as failed, until the step ends.
    pub(crate) fn on_pool<T: Send + 'static>(
        &mut self,
        uuid: Uuid,
        step: impl FnOnce() -> Result<T, StepError> + Send + 'static,
    ) -> Result<T, StepError> {
        let silent = || io::Error::new(io::ErrorKind::TimedOut, SILENT);
        let doing = || format!("waiting for pool {uuid}");
        // Without a buffer: either the result is taken, or its sender knows that it was not.
        let (sender, receiver) = sync_channel(0);
        let events = self.events.clone();
        let thread = thread::Builder::new().name("step".to_owned()).spawn(move || {
            if sender.send(step()).is_err() {
                // Without a receiver the daemon is ending.
                drop(events.send(Event::Late(uuid)));
            }
        });
        thread.doing(|| format!("starting a thread for pool {uuid}"))?;
        let Ok(done) = receiver.recv_timeout(STEP_MAX) else {
            for entry in self.disks.values_mut() {
                match &mut entry.state {
                    State::Pool(pool, health) if pool.uuid == uuid => {
                        warn!("disk {}: pool {uuid} {SILENT}", entry.disk.name);
                        *health = Health::Bad(SILENT.to_owned());
                    }
                    State::Pool(..) | State::None(..) | State::Unknown => {}
                }
            }
            return Err(silent()).doing(doing);
        };
        done
    }

    /// Looks at a disk again that answers after all: what was given up may have been done.
    pub(crate) fn revive(&mut self, uuid: Uuid) {
        let is_it = |entry: &&Entry| match &entry.state {
            State::Pool(pool, Health::Bad(why)) => pool.uuid == uuid && why == SILENT,
            State::Pool(_, Health::Good(_)) | State::None(..) | State::Unknown => false,
        };
        if let Some(disk) = self.disks.values().find(is_it).map(|entry| entry.disk.clone()) {
            info!("disk {}: pool {uuid} answers again", disk.name);
            self.start(disk, &Orders::default());
        }
    }
}
