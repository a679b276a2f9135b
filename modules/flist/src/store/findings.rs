//! Whom a bad file concerns, and what is to be told of it.
//!
//! The store keeps it until somebody asks: for each flist the first few faults. So it does not matter who
//! found it, a look at the store or a fetch that replaced it under others. Who is concerned is found out
//! before a bad file loses its name: afterwards nobody would come upon it again.

use super::{Fault, FaultKind, Part, Place, Store, StoreError};
use crate::{Flist, check::shown};
use contract::FlistId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{MutexGuard, PoisonError},
};

/// Faults that are kept of an flist; more would make nobody wiser.
pub(super) const FAULTS_MAX: usize = 9;

/// The faults of flists that were found.
pub(super) type Found = BTreeMap<FlistId, Vec<Fault>>;

/// Finds out whom bad files concern, during one look or fetch.
#[derive(Debug, Default)]
pub(super) struct Findings {
    users: Option<Users>,
}

impl Findings {
    /// What is to be told of the recorded list of an flist.
    pub(super) fn of_list(flist: FlistId) -> Found {
        [(flist, vec![Fault { part: Part::List, kind: FaultKind::Unreadable }])].into()
    }

    /// What is to be told of a bad file, to every complete flist that needs it.
    pub(super) fn of_file(
        &mut self,
        store: &Store,
        place: Place,
        kind: FaultKind,
    ) -> Result<Found, StoreError> {
        let complete = store.list()?;
        let mut found = Found::new();
        let digest = match place {
            // One that is not complete is measured when it is fetched, or was swept meanwhile.
            Place::Image(flist) => {
                if complete.contains(&flist) {
                    found.insert(flist, vec![Fault { part: Part::Image, kind }]);
                }
                return Ok(found);
            }
            Place::Object(digest) => digest,
        };
        if self.users.as_ref().is_none_or(|users| users.complete != complete) {
            self.users = Some(Users::of(store, complete)?);
        }
        let users = self.users.as_ref().map(|users| users.of_object(&digest)).unwrap_or_default();
        for flist in users {
            if store.found().get(&flist).is_some_and(|faults| faults.len() >= FAULTS_MAX) {
                continue;
            }
            let Some(list) = list_of(store, flist)? else { continue };
            let body = list.body();
            let mut files = body.contents.iter().zip(body.paths_of_contents());
            if let Some((_, path)) = files.find(|(content, _)| content.digest == digest) {
                found.insert(flist, vec![Fault { part: Part::File(shown(path)), kind }]);
            }
        }
        Ok(found)
    }
}

impl Store {
    /// Keeps what was found until somebody asks.
    pub(super) fn tell(&self, found: Found) {
        let mut kept = self.found();
        for (flist, faults) in found {
            let kept = kept.entry(flist).or_default();
            for fault in faults {
                if kept.len() < FAULTS_MAX && !kept.contains(&fault) {
                    kept.push(fault);
                }
            }
        }
    }

    /// What nobody has asked for yet.
    pub(super) fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an flist needs. One without a sound record is found for itself.
fn list_of(store: &Store, flist: FlistId) -> Result<Option<Flist>, StoreError> {
    match store.flist(flist) {
        Ok(list) => Ok(Some(list)),
        Err(StoreError::Absent(_)) => Ok(None),
        Err(error) if error.is_of_record() => Ok(None),
        Err(error) => Err(error),
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
    fn of(store: &Store, complete: BTreeSet<FlistId>) -> Result<Self, StoreError> {
        let (mut contents, mut flists) = (Vec::new(), Vec::new());
        for (number, flist) in (0..).zip(&complete) {
            flists.push(*flist);
            let Some(list) = list_of(store, *flist)? else { continue };
            let digests = list.body().contents.iter().map(|content| content.digest);
            contents.extend(digests.map(|digest| (beginning(&digest), number)));
        }
        contents.sort_unstable();
        Ok(Self { complete, contents, flists })
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
