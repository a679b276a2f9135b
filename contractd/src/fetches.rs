//! Whose turn it is to fetch. A slow server, or one that drips on purpose, holds no place for longer
//! than its slice while others wait; what it has sent stays staged, and it goes on with its next turn.
//!
//! Turns go round the contracts first, so that one with many flists is no more than one. Of several
//! contracts that want the same flist, one at a time fetches it from where it says: that it fails is its
//! own matter, that it is there serves all. Nothing is fetched that nobody wants any more.
//!
//! What may run comes before what may run later: early fetches never have all places, and give theirs
//! away at once.

use crate::{carriers::Carriers, clock, network::Event, plan::Haste};
use contract::{ContractId, FlistId, header::Publisher};
use flist::{Cancel, Depth, Files, Source, Store};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time,
};

/// Flists that are fetched at once; each fetch is parallel in itself.
const FETCHES_MAX: usize = 2;
/// Of these, for what may run later only.
const EARLY_MAX: usize = 1;
/// While others wait, a fetch gives its place to one that had fewer turns after so long.
const SLICE: Duration = Duration::from_secs(15);
/// To its like it gives the place later and later, so that a slow line gets large pieces in the end.
const SLICE_DOUBLINGS_MAX: u32 = 6;
/// How often somebody looks whether a slice is over.
const LOOK: Duration = Duration::from_secs(1);

/// An flist that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) contract: ContractId,
    pub(crate) flist: FlistId,
    pub(crate) urls: Vec<String>,
    /// The size that was signed; a larger one is refused.
    pub(crate) bytes: u64,
    /// Whose release is fetched first; nothing else is, when it cannot be had.
    pub(crate) publisher: Option<Box<Publisher>>,
    /// Every byte that is in the store already is read first.
    pub(crate) repair: bool,
    pub(crate) haste: Haste,
}

/// How a fetch ended, with a code and a reason when it failed.
pub(crate) type Outcome = Result<(), (&'static str, String)>;

/// What the fetching hears.
#[derive(Debug)]
pub(crate) enum Message {
    Fetch(Wanted),
    /// This contract does not want it any more.
    Forget(ContractId, FlistId),
    /// The publisher that this contract demands has signed the flist: with this record.
    Released(ContractId, FlistId, Vec<u8>),
    Ended(FlistId, Outcome),
}

/// Where files go, and where they may be besides the places that contracts name.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    pub(crate) store: Arc<Store>,
    pub(crate) carriers: Arc<Carriers>,
}

/// Serves for as long as it is polled; `messages` is where it hears of fetches that have ended.
pub(crate) async fn serve(
    stores: Stores,
    messages: UnboundedSender<Message>,
    mut heard: UnboundedReceiver<Message>,
    events: Sender<Event>,
) {
    let mut queue = Queue::default();
    loop {
        match time::timeout(LOOK, heard.recv()).await {
            Ok(None) => return,
            Ok(Some(Message::Fetch(wanted))) => queue.want(wanted),
            Ok(Some(Message::Forget(contract, flist))) => {
                queue.forget(contract, flist);
                if !queue.knows(&flist) {
                    stores.store.give_up(flist);
                }
            }
            // Nobody listens any more only when the process ends.
            Ok(Some(Message::Released(contract, flist, record))) => {
                drop(events.send(Event::Released { contract, flist, record }));
            }
            Ok(Some(Message::Ended(flist, outcome))) => {
                match queue.end(flist, outcome) {
                    // Nobody listens any more only when the process ends.
                    Some((contract, outcome)) => {
                        drop(events.send(Event::Fetched { contract, flist, outcome }));
                    }
                    None if queue.knows(&flist) => {}
                    None => stores.store.give_up(flist),
                }
            }
            Err(_elapsed) => {}
        }
        queue.give_way(Instant::now());
        while let Some((wanted, cancel)) = queue.start(Instant::now()) {
            tokio::spawn(fetch(wanted, cancel, stores.clone(), messages.clone()));
        }
    }
}

async fn fetch(
    wanted: Wanted,
    cancel: Cancel,
    Stores { store, carriers }: Stores,
    messages: UnboundedSender<Message>,
) {
    let flist = wanted.flist;
    let released = messages.clone();
    let work = tokio::task::spawn_blocking(move || {
        let carried = carriers.sticks().into_iter().map(|stick| stick as Arc<dyn Files>);
        let source = Source::with(&wanted.urls, carried)
            .map_err(|error| ("source_invalid", daemon::chain(&error)))?
            .at_most(wanted.bytes);
        if let Some(publisher) = &wanted.publisher {
            let now = clock::now().map_err(|error| ("internal", daemon::chain(&error)))?;
            let record = flist::fetch::release(&source, flist, publisher, now, &cancel)
                .map_err(|error| (error.reason.code(), daemon::chain(&error)))?;
            // Before the end of the fetch, so that whoever hears of that knows it.
            drop(released.send(Message::Released(wanted.contract, flist, record)));
        }
        let depth = if wanted.repair { Depth::Read } else { Depth::Measure };
        let done = match (wanted.haste, depth) {
            (Haste::Now, Depth::Measure) => store.ingest(flist, &source, &(), &cancel),
            (Haste::Now, Depth::Read) => store.repair(flist, &source, &(), &cancel),
            (Haste::Early, depth) => store.prefetch(flist, depth, &source, &(), &cancel),
        };
        done.map(drop).map_err(|error| (error.code(), daemon::chain(&error)))
    });
    let outcome = match work.await {
        Ok(outcome) => outcome,
        Err(error) => Err(("internal", error.to_string())),
    };
    // Nobody listens any more only when the process ends.
    drop(messages.send(Message::Ended(flist, outcome)));
}

/// Which fetches run, and which wait.
#[derive(Debug, Default)]
struct Queue {
    /// In the order in which they came.
    waiting: Vec<Fetch>,
    running: BTreeMap<FlistId, Running>,
    /// The number of the last turn of each contract that waits or runs.
    served: BTreeMap<ContractId, u64>,
    turns: u64,
}

#[derive(Debug)]
struct Fetch {
    wanted: Wanted,
    /// Turns that were over before it was done.
    slices: u32,
}

#[derive(Debug)]
struct Running {
    fetch: Fetch,
    since: Instant,
    cancel: Cancel,
    forgotten: bool,
    /// It is wanted in another way than it is fetched.
    outdated: bool,
}

impl Queue {
    fn want(&mut self, wanted: Wanted) {
        let is_it = |one: &Fetch| {
            (one.wanted.contract, one.wanted.flist) == (wanted.contract, wanted.flist)
        };
        // What was early may be needed now, and be elsewhere in the next version.
        if let Some(waits) = self.waiting.iter_mut().find(|one| is_it(one)) {
            waits.wanted = wanted;
            return;
        }
        let running = self.running.get_mut(&wanted.flist);
        if let Some(runs) = running.filter(|one| !one.forgotten && is_it(&one.fetch)) {
            if runs.fetch.wanted != wanted {
                runs.fetch.wanted = wanted;
                runs.outdated = true;
                runs.cancel.cancel();
            }
            return;
        }
        self.waiting.push(Fetch { wanted, slices: 0 });
    }

    /// Whether anybody wants this flist.
    fn knows(&self, flist: &FlistId) -> bool {
        self.running.contains_key(flist)
            || self.waiting.iter().any(|one| one.wanted.flist == *flist)
    }

    fn forget(&mut self, contract: ContractId, flist: FlistId) {
        self.waiting.retain(|one| (one.wanted.contract, one.wanted.flist) != (contract, flist));
        if let Some(running) =
            self.running.get_mut(&flist).filter(|one| one.fetch.wanted.contract == contract)
        {
            running.forgotten = true;
            running.cancel.cancel();
        }
    }

    /// What is to be told of a fetch that has ended, and to whom; nothing when it goes on later, or
    /// nobody asks. Once it is there, all who wait for it have it.
    fn end(&mut self, flist: FlistId, outcome: Outcome) -> Option<(ContractId, Outcome)> {
        let running = self.running.remove(&flist)?;
        if running.forgotten {
            return None;
        }
        let is_over = outcome.is_err() && running.cancel.is_cancelled();
        if running.outdated || is_over {
            let slices = running.fetch.slices + u32::from(!running.outdated);
            self.waiting.push(Fetch { slices, ..running.fetch });
            return None;
        }
        if outcome.is_ok() {
            self.waiting.retain(|one| one.wanted.flist != flist);
        }
        Some((running.fetch.wanted.contract, outcome))
    }

    /// Stops fetches whose slice is over, as many as others wait, and those of which another contract
    /// waits for the same flist. Early ones have no slice when others wait that are not.
    fn give_way(&mut self, now: Instant) {
        for (haste, most) in [(Haste::Now, FETCHES_MAX), (Haste::Early, EARLY_MAX)] {
            let waiting: Vec<&Fetch> =
                self.waiting.iter().filter(|one| one.wanted.haste == haste).collect();
            let rivals: Vec<&Running> =
                self.running.values().filter(|one| one.fetch.wanted.haste >= haste).collect();
            let waits_for = |one: &Running| {
                waiting.iter().any(|other| other.wanted.flist == one.fetch.wanted.flist)
            };
            let stopping = rivals.iter().filter(|one| one.cancel.is_cancelled()).count();
            let free = most.saturating_sub(rivals.len());
            let is_held_up = |one: &&&Fetch| self.running.contains_key(&one.wanted.flist);
            let held_up = waiting.iter().filter(is_held_up).count();
            let mut needed = waiting.len().saturating_sub(held_up + stopping + free);
            let fewest = waiting.iter().map(|one| one.slices).min().unwrap_or(0);
            let is_over = |one: &Running| {
                let mine = one.fetch.slices;
                let doublings = if fewest < mine { 0 } else { mine.min(SLICE_DOUBLINGS_MAX) };
                one.fetch.wanted.haste > haste
                    || now.saturating_duration_since(one.since) >= SLICE * 2_u32.pow(doublings)
            };
            let mut over = rivals;
            over.retain(|one| !one.cancel.is_cancelled() && is_over(one));
            over.sort_by_key(|one| (Reverse(one.fetch.wanted.haste), one.since));
            for one in over {
                if waits_for(one) {
                    one.cancel.cancel();
                } else if needed > 0 {
                    needed -= 1;
                    one.cancel.cancel();
                }
            }
        }
    }

    /// The next fetch, when there is a place: of those that are needed now first, of the contract that runs
    /// the fewest and was served last the longest ago.
    fn start(&mut self, now: Instant) -> Option<(Wanted, Cancel)> {
        if self.running.len() >= FETCHES_MAX {
            return None;
        }
        let early = self.running.values().filter(|one| one.fetch.wanted.haste == Haste::Early);
        let most = if early.count() < EARLY_MAX { Haste::Early } else { Haste::Now };
        let of = |contract: ContractId| {
            let running = self.running.values();
            let count = running.filter(|one| one.fetch.wanted.contract == contract).count();
            (count, self.served.get(&contract).copied().unwrap_or(0))
        };
        let (place, _) = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, one)| one.wanted.haste <= most)
            .filter(|(_, one)| !self.running.contains_key(&one.wanted.flist))
            .min_by_key(|(_, one)| (one.wanted.haste, of(one.wanted.contract), one.slices))?;
        let fetch = self.waiting.remove(place);
        let (wanted, cancel) = (fetch.wanted.clone(), Cancel::default());
        self.turns += 1;
        self.served.insert(wanted.contract, self.turns);
        let running = Running {
            fetch,
            since: now,
            cancel: cancel.clone(),
            forgotten: false,
            outdated: false,
        };
        self.running.insert(wanted.flist, running);
        let (waiting, running) = (&self.waiting, &self.running);
        self.served.retain(|contract, _| {
            waiting.iter().any(|one| one.wanted.contract == *contract)
                || running.values().any(|one| one.fetch.wanted.contract == *contract)
        });
        Some((wanted, cancel))
    }
}

#[cfg(test)]
mod tests;
