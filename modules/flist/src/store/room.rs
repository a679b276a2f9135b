//! Whose bytes the store's free room is. Pure: `space` asks the kernel, `ingest` does what follows.
//!
//! A fetch is promised all that it has yet to write before it writes any of it, so no two of them count
//! on the same free bytes. What it has written is on the disk and is promised no more. The promise ends
//! with the fetch, but not with a turn of it: who gives way to others keeps the room that it began to fill.
//!
//! Who finds no room comes again, and smaller ones go on with what there is. So that these do not take
//! for ever what a large one waits for, what *becomes* free is kept for the one that waited first, for a
//! time. Nobody is kept from room that was free before, and for one that is larger than the store nothing
//! is kept. What a fetch that failed had of the room has not become free for the one that waits: it asks
//! again.
//!
//! What is promised to an early fetch is taken from it as soon as what is needed now does not fit beside
//! it: the early one stops, and asks again. The few chunks that it writes at that moment are not counted.
//!
//! Promises are in memory. After a restart everybody asks anew, and what is staged is on the disk.

use super::space::Space;
use contract::FlistId;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

/// Room that becomes free is kept so long for one that waits. Then the next that finds none has its turn.
const CLAIM: Duration = Duration::from_secs(3600);
const MIB: u64 = 1 << 20;

/// What is promised, and for whom room is kept.
#[derive(Debug, Default)]
pub(super) struct Room {
    promised: Promises,
    /// Those of them that leave room to others, and give theirs away.
    early: BTreeSet<FlistId>,
    claim: Option<Claim>,
}

/// Bytes that each fetch has yet to write.
pub(super) type Promises = BTreeMap<FlistId, u64>;

/// The one that waits for room.
#[derive(Debug)]
struct Claim {
    flist: FlistId,
    since: Instant,
    /// What nobody was promised when this was looked at last.
    seen: u64,
    /// What has become free since the claim began.
    kept: u64,
}

/// What a fetch asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// What it has yet to write.
    pub(super) bytes: u64,
    /// What it would have to write if nothing were there.
    pub(super) whole: u64,
    /// What it leaves to others; nobody who leaves anything has room kept.
    pub(super) leave: u64,
}

/// Why there is no room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What would still have to be written.
    pub needed: u64,
    /// What all its files take.
    pub whole: u64,
    /// What the store takes when it is empty.
    pub size: u64,
    /// What the store may still fill.
    pub free: u64,
    /// What of that other fetches have yet to write.
    pub promised: u64,
    /// What of it is kept for one that waits for room.
    pub kept: u64,
    /// What of it has to stay free for what runs before.
    pub left: u64,
}

impl Shortage {
    /// Whether there will never be room, whatever goes.
    pub(super) fn is_for_ever(&self) -> bool {
        self.whole > self.size
    }
}

impl fmt::Display for Shortage {
    /// In MiB, so that what is said again says the same as long as nothing that matters has changed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_for_ever() {
            let (whole, size) = (self.whole.div_ceil(MIB), self.size / MIB);
            return write!(f, "its files need {whole} MiB, and the whole store has {size} MiB");
        }
        let (needed, free) = (self.needed.div_ceil(MIB), self.free / MIB);
        write!(f, "its files need {needed} MiB more, and the store has {free} MiB")?;
        let taken = [
            (self.promised, "promised to other fetches"),
            (self.kept, "kept for an flist that waits for room"),
            (self.left, "left for what may run now"),
        ];
        for (bytes, why) in taken.into_iter().filter(|(bytes, _)| *bytes > 0) {
            write!(f, ", {} MiB of it {why}", bytes.div_ceil(MIB))?;
        }
        Ok(())
    }
}

impl Room {
    /// What is promised now: to be asked before the free bytes are.
    pub(super) fn promises(&self) -> Promises {
        self.promised.clone()
    }

    /// Promises a fetch what it asks for, or nothing. The space was measured after `promised` was asked for,
    /// with everything on the disk that had been written by then; nobody was promised anything between.
    pub(super) fn admit(
        &mut self,
        flist: FlistId,
        ask: Ask,
        (promised, Space { free, size }): (&Promises, Space),
        now: Instant,
    ) -> Result<(), Shortage> {
        let all = promised.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let own = promised.get(&flist).copied().unwrap_or(0);
        let unpromised = free.saturating_sub(all);
        self.claim.take_if(|claim| now.saturating_duration_since(claim.since) >= CLAIM);
        let mut kept = 0;
        if let Some(claim) = &mut self.claim {
            claim.kept = claim.kept.saturating_add(unpromised.saturating_sub(claim.seen));
            claim.kept = claim.kept.min(unpromised);
            claim.seen = unpromised;
            kept = if claim.flist == flist { 0 } else { claim.kept };
        }
        let others = all - own;
        let mut taken = others.saturating_add(kept).saturating_add(ask.leave);
        let mut yielded = 0;
        let may_come = ask.leave == 0 && ask.whole <= size;
        if may_come && ask.bytes > free.saturating_sub(taken) {
            let yielding = self.yielding(flist, promised);
            if ask.bytes <= free.saturating_sub(taken.saturating_sub(yielding)) {
                taken = taken.saturating_sub(yielding);
                yielded = yielding;
                for early in self.early.clone() {
                    self.end_of(early);
                }
            }
        }
        if ask.whole > size || ask.bytes > free.saturating_sub(taken) {
            self.end_of(flist);
            let (needed, whole, left) = (ask.bytes, ask.whole, ask.leave);
            let short = Shortage { needed, whole, size, free, promised: others, kept, left };
            let seen = unpromised.saturating_add(own);
            match &mut self.claim {
                // What it gives up itself was there before.
                Some(claim) => claim.seen = seen,
                None if ask.leave == 0 && !short.is_for_ever() => {
                    self.claim = Some(Claim { flist, since: now, seen, kept: 0 });
                }
                None => {}
            }
            return Err(short);
        }
        self.promised.insert(flist, ask.bytes);
        if ask.leave == 0 {
            self.early.remove(&flist);
        } else {
            self.early.insert(flist);
        }
        self.claim.take_if(|claim| claim.flist == flist);
        if let Some(claim) = &mut self.claim {
            let before = unpromised.saturating_add(own).saturating_add(yielded);
            claim.seen = before.saturating_sub(ask.bytes);
        }
        Ok(())
    }

    /// What early fetches have been promised and not written, but for this one. What they have written
    /// since the free bytes were measured is still taken.
    fn yielding(&self, flist: FlistId, promised: &Promises) -> u64 {
        let others = self.early.iter().filter(|one| **one != flist);
        let unwritten = others.filter_map(|one| self.promised.get(one).min(promised.get(one)));
        unwritten.fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// A fetch has written so much of what it was promised. Whether it still has that promise: without it
    /// it has to stop.
    pub(super) fn wrote(&mut self, flist: FlistId, bytes: u64) -> bool {
        let Some(left) = self.promised.get_mut(&flist) else { return false };
        *left = left.saturating_sub(bytes);
        true
    }

    /// A fetch has ended. If it failed it asks again: what it was promised and has not written is free
    /// for it, as for everybody, and has not become free for the one that waits. A second call changes
    /// nothing.
    pub(super) fn end(&mut self, flist: FlistId) {
        let unwritten = self.end_of(flist);
        if let Some(claim) = &mut self.claim {
            claim.seen = claim.seen.saturating_add(unwritten);
        }
    }

    fn end_of(&mut self, flist: FlistId) -> u64 {
        self.early.remove(&flist);
        self.promised.remove(&flist).unwrap_or(0)
    }

    /// Nobody wants this flist any more.
    pub(super) fn forget(&mut self, flist: FlistId) {
        self.end_of(flist);
        self.claim.take_if(|claim| claim.flist == flist);
    }
}

#[cfg(test)]
mod tests;
