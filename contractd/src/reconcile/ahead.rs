//! Files that are not needed yet: of contracts that are agreed on and whose time comes soon, and of a new
//! version whose old one still runs.

use super::Reconciler;
use crate::{
    network::Order,
    plan::{self, Files, Have, Step, Upcoming, Want},
};
use contract::{ContractId, FlistId};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// The old version of a contract goes on for so long while files of the new one are fetched, in
/// milliseconds. Then each container changes when its own are there, and what the new version has no more
/// stops: it was agreed on.
const UPDATE_MS: u64 = 600_000;

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// What contracts want whose time comes soon.
    pub(super) upcoming: Vec<Upcoming>,
    /// What of it was wanted at the last look.
    wanted: BTreeSet<(ContractId, FlistId)>,
    /// Nothing is fetched early until the store is swept.
    pub(super) is_paused: bool,
    /// Since when the old version of a contract goes on for the files of the new one, by the boot clock.
    updating: BTreeMap<ContractId, u64>,
}

impl Ahead {
    /// Which contract wants which flist early.
    pub(super) fn flists(&self) -> impl Iterator<Item = (ContractId, FlistId)> {
        self.upcoming.iter().map(|one| (one.contract, one.flist))
    }
}

impl Reconciler {
    /// What was wanted ahead, and may run by now, is wanted anew: its fetch is one of many no longer, and
    /// need not wait until it may be tried again.
    pub(super) fn look_ahead(&mut self, needed: &BTreeSet<(ContractId, FlistId)>) {
        let wanted = self.ahead.flists().collect();
        for of in mem::replace(&mut self.ahead.wanted, wanted).intersection(needed) {
            if self.files.get(of) != Some(&Files::Ready) {
                self.files.remove(of);
                self.unfetched.remove(of);
            }
        }
    }

    /// Whether this is fetched for later only.
    pub(super) fn is_ahead(&self, of: &(ContractId, FlistId)) -> bool {
        self.ahead.wanted.contains(of)
    }

    /// The fetches for later; `needed` is what is wanted now.
    pub(super) fn fetches_ahead(
        &self,
        needed: &BTreeSet<(ContractId, FlistId)>,
        have: &Have,
    ) -> Vec<Step> {
        let upcoming = if self.ahead.is_paused { &[] } else { self.ahead.upcoming.as_slice() };
        let needed = needed.iter().map(|(_, flist)| *flist).collect();
        plan::ahead(upcoming, &needed, have)
    }

    /// The store is swept while nothing is fetched: what is fetched early stops, and goes on behind that
    /// with what it has staged. Whether there was any.
    pub(super) fn pause_ahead(&mut self) -> bool {
        let early: Vec<_> =
            self.ahead.flists().filter(|of| self.files.get(of) == Some(&Files::Fetching)).collect();
        for (contract, flist) in &early {
            self.files.remove(&(*contract, *flist));
            self.order(Order::Forget(*contract, *flist));
        }
        self.ahead.is_paused = !early.is_empty();
        self.ahead.is_paused
    }

    /// How far the files of contracts are whose time comes soon, in words that stay the same while a fetch
    /// is tried again, whatever it says then: each change is a signed result.
    pub(super) fn ahead_in_words(&self) -> BTreeMap<ContractId, String> {
        // Of several, what stands first here is told.
        let mut words: BTreeMap<ContractId, (u8, String)> = BTreeMap::new();
        for of in self.ahead.flists() {
            let told = match self.unfetched.get(&of) {
                Some(one) => (0, format!("its files could not be had yet: {}", one.code)),
                None if self.files.get(&of) == Some(&Files::Ready) => {
                    (2, "its files are here".to_owned())
                }
                None => (1, "its files are on their way".to_owned()),
            };
            let first = words.entry(of.0).or_insert_with(|| told.clone());
            *first = told.min(first.clone());
        }
        words.into_iter().map(|(contract, (_, text))| (contract, text)).collect()
    }

    /// Contracts whose old version goes on as a whole, because files of the new one are on their way.
    pub(super) fn hold_updates(&mut self, wants: &[Want], have: &Have) -> BTreeSet<ContractId> {
        let updating = plan::updating(wants, have);
        self.ahead.updating.retain(|contract, _| updating.contains(contract));
        for contract in updating {
            self.ahead.updating.entry(contract).or_insert(have.now_ms);
        }
        let is_held = |since: u64| have.now_ms.saturating_sub(since) < UPDATE_MS;
        let held = self.ahead.updating.iter().filter(|(_, since)| is_held(**since));
        held.map(|(contract, _)| *contract).collect()
    }
}
