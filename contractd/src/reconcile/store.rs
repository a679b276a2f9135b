//! What becomes of files in the store: fetched and measured when they are wanted, read through from time
//! to time. Whatever runs from bad ones is stopped, and starts again when they were fetched.
//!
//! Two things are told apart. An flist is *distrusted* when anything speaks against its files: before it
//! is used again, every byte of it is read, and what is bad is fetched. Containers are *stopped* only for
//! what the store has found, which it has read twice.

use super::{RETRY_AHEAD_MAX_MS, RETRY_MAX_MS, Reconciler, Unfetched, retry_delay, start::blame};
use crate::{
    clock::{self, Now},
    database::DatabaseError,
    disks, fetches,
    network::Order,
    node_calls,
    plan::{Files, Kind, Phase, STORE_DAMAGED, Want},
    rounds::{Known, Look},
    scrub,
};
use contract::{ContractId, FlistId, Timestamp, header::Publisher, scrub::Scrubbed};
use flist::{Depth, StoreError};
use node_api::paths;
use registry_api::view::Ordered;
use std::{collections::BTreeSet, path::Path};

/// How often it is asked, in milliseconds.
const ERRORS_MS: u64 = 5_000;
/// What complaints go by about what is no order, and about an order whose time does not come.
const SCRUB_ORDER: &str = "scrub order";
const SCRUB_TIME: &str = "scrub time";

impl Reconciler {
    /// Takes in what was read, and says what to read next.
    pub(super) fn look_at_store(&mut self, now: Now, now_ms: u64) -> Result<(), DatabaseError> {
        let mut has_ended = false;
        // No more than one of each thread.
        while let Ok((look, outcome)) = self.scrubs.ended.try_recv() {
            has_ended = true;
            let about = match look {
                Look::One(flist) => format!("flist {}", flist.short()),
                Look::All | Look::Piece(_) => "scrub".to_owned(),
            };
            let known = self.rounds.ended(look, &outcome, now_ms);
            if look == Look::All {
                self.orders_to_read.ended(&outcome, now.at);
            }
            match outcome.problem {
                Some(text) => self.complain(&about, text),
                None if known == Known::All => drop(self.complaints.remove(&about)),
                None => {}
            }
        }
        for (flist, faults) in self.store.take_findings() {
            self.take_damage(flist, &node_calls::describe(&faults))?;
        }
        if has_ended || now_ms >= self.errors_at_ms {
            self.errors_at_ms = now_ms.saturating_add(ERRORS_MS);
            let errors = scrub::disk_errors(Path::new(paths::STORE), Path::new(disks::BTRFS));
            self.rounds.note_errors(errors);
        }
        if self.orders_to_read.take(now, self.rounds.can_read_all(now_ms)) {
            daemon::info!("the farm has ordered that the store is read through");
            self.rounds.read_all();
        }
        match self.orders_to_read.waits(now) {
            Some(text) => self.complain(SCRUB_TIME, text),
            None => drop(self.complaints.remove(SCRUB_TIME)),
        }
        for look in self.rounds.next(now_ms, now.at.seconds()) {
            if look == Look::All {
                self.orders_to_read.begin(now.at);
            }
            self.scrubs.begin(look);
        }
        let is_whole = |flist: &FlistId| {
            let is_ready =
                |(of, files): (&(_, FlistId), &Files)| of.1 == *flist && *files == Files::Ready;
            !self.damaged.contains(flist) && self.files.iter().any(is_ready)
        };
        self.orders_to_read.note_repaired(now_ms, is_whole);
        // Before anybody is told: what was done is not done again.
        if let Some(text) = self.orders_to_read.take_due() {
            self.database.set_fact("scrub-order", &text)?;
        }
        match self.rounds.take_due(now_ms) {
            Some(text) => self.database.set_fact("scrub", &text),
            None => Ok(()),
        }
    }

    /// Takes in the order to read the store through that the registry has now, if it is one.
    pub(crate) fn take_ordered(&mut self, ordered: Option<&Ordered>) {
        match ordered.map(|ordered| self.orders_to_read.hear(ordered, &self.trust)) {
            None | Some(Ok(())) => drop(self.complaints.remove(SCRUB_ORDER)),
            Some(Err(error)) => self.complain(SCRUB_ORDER, daemon::chain(&error)),
        }
    }

    /// What is told of the last one.
    pub(crate) fn scrubbed(&self) -> Option<Scrubbed> {
        self.orders_to_read.scrubbed()
    }

    /// The registry does not understand that.
    pub(crate) fn say_nothing_of_orders(&mut self) {
        daemon::warn!("the registry is older than orders to read the store: none is told of");
        self.orders_to_read.be_silent();
    }

    /// Files of an flist were found bad: what runs from it is stopped, whatever has become of them since,
    /// for it may have them open as they were.
    pub(super) fn take_damage(&mut self, flist: FlistId, text: &str) -> Result<(), DatabaseError> {
        daemon::warn!("flist {}: {STORE_DAMAGED}: {text}", flist.short());
        let mut told = Vec::new();
        for (id, run) in self.runs.iter_mut().filter(|(_, run)| run.flist == Some(flist)) {
            if matches!(run.phase, Phase::Up { .. }) {
                self.spoilt.entry(id.clone()).or_insert_with(|| text.to_owned());
            } else if blame(&mut run.phase, text) {
                told.push(id.clone());
            }
        }
        for id in told {
            self.save_run(&id)?;
        }
        // It may have been fetched again meanwhile; to measure it would hold up this loop, which reading it
        // once more does not.
        self.distrust(flist);
        Ok(())
    }

    /// Before this flist is used again, every byte of it is read, and what is bad is fetched.
    pub(super) fn distrust(&mut self, flist: FlistId) {
        self.damaged.insert(flist);
        // What could not be fetched waits before it is tried again.
        self.files.retain(|(_, one), files| *one != flist || *files != Files::Ready);
    }

    /// Flists that are in the store already need no fetch: every file is measured instead.
    /// What a publisher has to sign first is not there before that.
    pub(super) fn look_for_files<'d>(
        &mut self,
        demands: impl IntoIterator<Item = Demand<'d>>,
        now: Timestamp,
    ) {
        for (contract, flist, publisher) in demands {
            if !self.releases.allow(contract, flist, publisher, now) {
                self.files.retain(|of, files| *of != (contract, flist) || *files != Files::Ready);
                continue;
            }
            if self.files.contains_key(&(contract, flist)) || self.damaged.contains(&flist) {
                continue;
            }
            let is_ready = |(of, files): (&(ContractId, FlistId), &Files)| {
                of.1 == flist && *files == Files::Ready
            };
            if self.files.iter().any(is_ready) {
                self.files.insert((contract, flist), Files::Ready);
                continue;
            }
            let text = match self.store.verify(flist, Depth::Measure) {
                Ok(faults) if faults.is_empty() => {
                    self.files.insert((contract, flist), Files::Ready);
                    continue;
                }
                // It was complete.
                Ok(faults) => node_calls::describe(&faults),
                Err(error @ (StoreError::Record { .. } | StoreError::RecordUnreadable { .. })) => {
                    daemon::chain(&error)
                }
                // It is not there yet, or will be looked for again.
                Err(_) => continue,
            };
            daemon::warn!("flist {}: {text}", flist.short());
            self.distrust(flist);
            // Nothing is fetched below one that runs: it is stopped if this is found again.
            if self.runs.values().any(|run| run.flist == Some(flist)) {
                self.rounds.suspect(flist);
            }
        }
    }

    /// Takes in the outcome of a fetch. That it failed is the contract's own matter, that the files are
    /// there serves all who want them.
    pub(crate) fn take_fetched(
        &mut self,
        contract: ContractId,
        flist: FlistId,
        outcome: fetches::Outcome,
    ) {
        let wanted = (contract, flist);
        match outcome {
            Ok(()) => {
                self.unfetched.retain(|(_, one), _| *one != flist);
                self.damaged.remove(&flist);
                self.files.insert(wanted, Files::Ready);
                let all = self.files.iter_mut().filter(|((_, one), _)| *one == flist);
                all.for_each(|(_, files)| *files = Files::Ready);
            }
            Err((code, message)) => {
                let most_ms =
                    if self.is_ahead(&wanted) { RETRY_AHEAD_MAX_MS } else { RETRY_MAX_MS };
                let before = self.unfetched.get(&wanted).map(|one| one.delay_ms);
                let delay_ms = retry_delay(before, most_ms);
                daemon::warn!("flist {}: {code}: {message}", flist.short());
                self.unfetched.insert(wanted, Unfetched { code, delay_ms });
                let until_ms = clock::boot_ms().unwrap_or(0).saturating_add(delay_ms);
                self.files.insert(wanted, Files::Failed { until_ms, code, message });
            }
        }
    }

    /// A fetch ends when its contract does not want the flist any more.
    pub(super) fn forget_fetches(&mut self, wanted: &BTreeSet<(ContractId, FlistId)>) {
        self.unfetched.retain(|of, _| wanted.contains(of));
        for ((contract, flist), files) in self.files.extract_if(.., |of, _| !wanted.contains(of)) {
            // One that failed may have room kept for it.
            if files != Files::Ready {
                // The network thread ends only with the process.
                drop(self.orders.send(Order::Forget(contract, flist)));
            }
        }
    }
}

/// Which contract wants which flist, and who has to have signed it.
type Demand<'d> = (ContractId, FlistId, Option<&'d Publisher>);

/// Which contract wants which flist.
pub(super) fn flists_of(wants: &[Want]) -> impl Iterator<Item = (ContractId, FlistId)> {
    demands_of(wants).map(|(contract, flist, _)| (contract, flist))
}

/// The same, and who has to have signed it.
pub(super) fn demands_of(wants: &[Want]) -> impl Iterator<Item = Demand<'_>> {
    wants.iter().filter_map(|want| match &want.kind {
        Kind::Container { flist, publisher, .. } => {
            Some((want.contract, *flist, publisher.as_deref()))
        }
        Kind::Volume { .. } => None,
    })
}
