//! Making room: for contracts, for files, for user ids. What may go is decided in `housekeeping`.

use super::{Reconciler, store::flists_of};
use crate::{
    clock::{self, Now},
    database::{DatabaseError, Room},
    housekeeping, jobs, judge,
    network::Order,
    plan::{Files, Have, Want},
};
use contract::{ContractId, FlistId, Timestamp, Verdict};
use flist::StoreError;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// How often the node looks for what may go, in milliseconds.
const UPKEEP_MS: u64 = 60_000;
/// Code of a fetch that found no room.
const STORE_FULL: &str = "store_full";
/// Contracts that wait for room; of others the registry tells after a restart.
const UNHEARD_MAX: usize = 4096;

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Boot clock in milliseconds.
    next_ms: u64,
    /// Since when stored flists are not needed.
    idle_since: BTreeMap<FlistId, u64>,
    /// Contracts that there was no room for.
    unheard: BTreeSet<ContractId>,
    /// The one of them that was asked for last.
    asked: Option<ContractId>,
}

impl Upkeep {
    /// The registry is asked for this contract again when there is room.
    pub(super) fn ask_later(&mut self, contract: ContractId) {
        if self.unheard.len() < UNHEARD_MAX {
            self.unheard.insert(contract);
        }
    }

    /// They take turns: one that never fits keeps no other waiting.
    fn next_unheard(&mut self) -> Option<ContractId> {
        let behind = self.asked.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.unheard.range((behind, Bound::Unbounded)).next();
        self.asked = next.or(self.unheard.first()).copied();
        self.asked.and_then(|contract| self.unheard.take(&contract))
    }
}

impl Reconciler {
    /// Forgets one contract if there is no room for another with so many bytes, and one may be
    /// forgotten.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), DatabaseError> {
        let room = self.database.room(bytes, None)?;
        if room == Room::Enough {
            return Ok(());
        }
        let at = clock::now().unwrap_or(Timestamp::from_seconds(0));
        let now = Now { at, worth: self.worth };
        let (contracts, verdicts) = (&self.contracts, &self.verdicts);
        if let Some(id) = housekeeping::victim(contracts, verdicts, &self.storage, room, now)
            && self.database.room(bytes, Some(&id))? == Room::Enough
        {
            daemon::info!("contract {} makes room for another", id.short());
            self.database.evict(&id)?;
            self.contracts.remove(&id);
            self.verdicts.remove(&id);
            self.upkeep.ask_later(id);
        }
        Ok(())
    }

    /// Removes files and gives back user ids that nothing needs any more. Only when everything that
    /// the registry has was heard and judged, and while nothing that may run is on its way, or anything is
    /// ending. An old version that goes on is not.
    pub(super) fn keep_house(&mut self, wants: &[Want], have: &Have) -> Result<(), DatabaseError> {
        if have.now_ms < self.upkeep.next_ms {
            return Ok(());
        }
        self.upkeep.next_ms = have.now_ms.saturating_add(UPKEEP_MS);
        if self.upkeep.unheard.is_empty() {
            self.complaints.remove("contracts");
        }
        // One at a time: the next is asked for when there still is room with this one.
        if self.database.room(0, None)? == Room::Enough
            && let Some(contract) = self.upkeep.next_unheard()
        {
            self.order(Order::AskAgain(contract));
        }
        self.ahead.is_paused = false;
        let fetching = flists_of(wants).any(|of| self.files.get(&of) == Some(&Files::Fetching));
        let wanted: BTreeSet<&str> = wants.iter().map(|want| want.id.as_str()).collect();
        let is_ending = |id: &String| !wanted.contains(id.as_str()) && !have.holds(id);
        let ending = have.processes.keys().any(is_ending);
        if !self.pulled || fetching || ending {
            return Ok(());
        }
        self.forget_jobs()?;
        self.forget_releases()?;
        self.sweep(wants, have.now_ms);
        let here = have.volumes.keys().chain(have.processes.keys()).chain(have.attachments.keys());
        let here: BTreeSet<String> = here.cloned().collect();
        let table = self.database.user_ids()?;
        let used = housekeeping::ids_in_use(&table, &self.contracts, &here);
        if used.len() < table.len() {
            daemon::info!("{} ranges of user ids are free again", table.len() - used.len());
            self.database.set_user_ids(&used)?;
        }
        Ok(())
    }

    /// Ends of jobs that nobody asks for any more go.
    pub(super) fn forget_jobs(&mut self) -> Result<(), DatabaseError> {
        let living = self.contracts.values().filter(|kept| kept.past.ended.is_none());
        let may_run = |id| matches!(self.verdicts.get(id), Some(Verdict::Run(_)));
        let contracts = living.map(|kept| (kept.id, may_run(&kept.id))).collect();
        for id in jobs::unasked(&self.runs, &contracts, &judge::wants(&self.verdicts)) {
            self.runs.remove(&id);
            self.save_run(&id)?;
        }
        Ok(())
    }

    fn sweep(&mut self, wants: &[Want], now_ms: u64) {
        let mut needed = housekeeping::named(&self.contracts, &self.verdicts, self.worth);
        let in_use: BTreeSet<FlistId> = flists_of(wants)
            .map(|(_, flist)| flist)
            .chain(self.runs.values().filter_map(|run| run.flist))
            .collect();
        needed.extend(in_use);
        needed.extend(self.ahead.flists().map(|(_, flist)| flist));
        let stored = match self.store.stored() {
            Ok(stored) => stored,
            Err(error) => return self.complain("store", daemon::chain(&error)),
        };
        let idle_since = &mut self.upkeep.idle_since;
        let idle = housekeeping::idle_for_long(&stored, &needed, idle_since, now_ms);
        if idle.is_empty() {
            return;
        }
        if self.pause_ahead() {
            self.upkeep.next_ms = now_ms;
            return;
        }
        // Pinned is all that is not idle for long, so that a file which came just now stays.
        let pinned: BTreeSet<FlistId> =
            stored.union(&needed).filter(|flist| !idle.contains(flist)).copied().collect();
        match self.store.sweep(&pinned) {
            Ok(swept) => {
                daemon::info!(
                    "the store is swept: {} images, {} files, {} bytes",
                    swept.images,
                    swept.objects,
                    swept.bytes
                );
                self.files.retain(|(_, flist), _| pinned.contains(flist));
                self.unfetched.retain(|(_, flist), _| pinned.contains(flist));
                // There may be room now.
                let is_full = |files: &Files| matches!(files, Files::Failed { code, .. } if *code == STORE_FULL);
                self.files.retain(|_, files| !is_full(files));
                self.damaged.retain(|flist| pinned.contains(flist));
                self.complaints.remove("store");
            }
            // One that nobody wants any more is about to end.
            Err(StoreError::BusyFetching) => {
                self.ahead.is_paused = true;
                self.upkeep.next_ms = now_ms;
            }
            Err(error) => self.complain("store", daemon::chain(&error)),
        }
    }
}
