//! Whom a bad file concerns, and what is to be told of it.
//!
//! The store keeps it until somebody asks: for each flist the first few faults. So it does not matter who
//! found it, a look at the store or a fetch that replaced it under others.

use super::{Fault, FaultKind, Part, Place, Store, StoreError};
use crate::check::shown;
use contract::FlistId;
use std::collections::{BTreeMap, BTreeSet};

/// Faults that are kept of an flist; more would make nobody wiser.
pub(super) const FAULTS_MAX: usize = 9;

/// The faults of flists that were found.
pub(super) type Found = BTreeMap<FlistId, Vec<Fault>>;

/// Collects what is found by one look or fetch.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Found,
    /// How many faults of each flist were told already.
    told: BTreeMap<FlistId, usize>,
    users: Option<Users>,
}

impl Findings {
    /// Takes note of the recorded list of an flist.
    pub(super) fn list(&mut self, flist: FlistId) {
        self.add(flist, Fault { part: Part::List, kind: FaultKind::Unreadable });
    }

    /// Takes note of a file, for every complete flist that needs it.
    pub(super) fn file(
        &mut self,
        store: &Store,
        place: Place,
        kind: FaultKind,
    ) -> Result<(), StoreError> {
        let complete = store.list()?;
        let digest = match place {
            // One that is not complete is measured when it is fetched, or was swept meanwhile.
            Place::Image(flist) => {
                if complete.contains(&flist) {
                    self.add(flist, Fault { part: Part::Image, kind });
                }
                return Ok(());
            }
            Place::Object(digest) => digest,
        };
        if self.users.as_ref().is_none_or(|users| users.complete != complete) {
            self.users = Some(Users::of(store, complete));
        }
        let users = self.users.as_ref().map(|users| users.of_object(&digest)).unwrap_or_default();
        for flist in users {
            if self.told.get(&flist).is_some_and(|told| *told >= FAULTS_MAX) {
                continue;
            }
            // One without a sound record is found for itself.
            let Ok(list) = store.flist(flist) else { continue };
            let body = list.body();
            let mut files = body.contents.iter().zip(body.paths_of_contents());
            if let Some((_, path)) = files.find(|(content, _)| content.digest == digest) {
                self.add(flist, Fault { part: Part::File(shown(path)), kind });
            }
        }
        Ok(())
    }

    fn add(&mut self, flist: FlistId, fault: Fault) {
        *self.told.entry(flist).or_default() += 1;
        add(&mut self.found, flist, fault);
    }

    /// Hands over what was found since the last time.
    pub(super) fn tell(&mut self, store: &Store) {
        let mut working = store.lock();
        for (flist, faults) in std::mem::take(&mut self.found) {
            for fault in faults {
                add(&mut working.found, flist, fault);
            }
        }
    }
}

fn add(found: &mut Found, flist: FlistId, fault: Fault) {
    let faults = found.entry(flist).or_default();
    if faults.len() < FAULTS_MAX && !faults.contains(&fault) {
        faults.push(fault);
    }
}

/// Which flists need which objects, in few bytes: every list is decoded once, not for every bad file.
#[derive(Debug)]
struct Users {
    complete: BTreeSet<FlistId>,
    /// The beginnings of digests, each with the place of an flist in `flists`.
    contents: Vec<(u64, u32)>,
    flists: Vec<FlistId>,
}

impl Users {
    fn of(store: &Store, complete: BTreeSet<FlistId>) -> Self {
        let (mut contents, mut flists) = (Vec::new(), Vec::new());
        for (number, flist) in (0..).zip(&complete) {
            flists.push(*flist);
            let Ok(list) = store.flist(*flist) else { continue };
            let digests = list.body().contents.iter().map(|content| content.digest);
            contents.extend(digests.map(|digest| (beginning(&digest), number)));
        }
        contents.sort_unstable();
        Self { complete, contents, flists }
    }

    /// All that may need an object; one digest in many begins as another.
    fn of_object(&self, digest: &[u8; 32]) -> Vec<FlistId> {
        let wanted = beginning(digest);
        let first = self.contents.partition_point(|(one, _)| *one < wanted);
        let same = self.contents[first..].iter().take_while(|(one, _)| *one == wanted);
        same.filter_map(|(_, number)| self.flists.get(*number as usize).copied()).collect()
    }
}

fn beginning(digest: &[u8; 32]) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
