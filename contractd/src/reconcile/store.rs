//! What becomes of files in the store: measured when they are wanted, read through from time to time.
//! Whatever runs from bad ones is stopped, and starts again when they were fetched.

use super::{Reconciler, flists_of};
use crate::{
    database::DatabaseError,
    node_calls,
    plan::{Files, Phase, STORE_DAMAGED, Want},
    scrub::{self, Said},
};
use contract::{ContractId, FlistId, Timestamp};
use flist::{Depth, StoreError};
use std::{collections::BTreeMap, path::Path};

/// Where btrfs tells what its disks have reported.
const BTRFS: &str = "/sys/fs/btrfs";
/// How often it is asked, in milliseconds.
const ERRORS_MS: u64 = 5_000;
/// What is taken in between two looks.
const SAID_MAX: usize = 256;

impl Reconciler {
    /// Takes in what was read, and says what to read next.
    pub(super) fn look_at_store(
        &mut self,
        now: Timestamp,
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        let mut bad = BTreeMap::new();
        for _ in 0..SAID_MAX {
            match self.scrubs.said.try_recv() {
                Ok(Said::Bad(one)) => drop(bad.entry(one.flist).or_insert(one.fault)),
                Ok(Said::Ended(look, outcome)) => {
                    match &outcome {
                        Ok(_) => drop(self.complaints.remove("scrub")),
                        Err(text) => self.complain("scrub", text.clone()),
                    }
                    self.rounds.ended(look, &outcome, now_ms);
                }
                Err(_) => break,
            }
        }
        for (flist, fault) in bad {
            // What is bad has no name any more: where nothing is missing, it was fetched meanwhile.
            if !self.store.verify(flist, Depth::Measure).is_ok_and(|faults| faults.is_empty()) {
                self.take_damage(flist, &node_calls::describe(&[fault]));
            }
        }
        if now_ms >= self.errors_at_ms {
            self.errors_at_ms = now_ms.saturating_add(ERRORS_MS);
            self.rounds.note_errors(scrub::disk_errors(Path::new(BTRFS)));
        }
        for look in self.rounds.next(now_ms, now.seconds()) {
            self.scrubs.begin(look);
        }
        match self.rounds.take_due(now_ms) {
            Some(text) => self.database.set_fact("scrub", &text),
            None => Ok(()),
        }
    }

    /// Files of an flist are not as signed any more: it is fetched again, every byte of it read, and
    /// what runs from it is stopped until then.
    pub(super) fn take_damage(&mut self, flist: FlistId, text: &str) {
        daemon::warn!("flist {}: {STORE_DAMAGED}: {text}", flist.short());
        self.damaged.insert(flist);
        self.files.retain(|(_, one), files| *one != flist || *files == Files::Fetching);
        let ran = self
            .runs
            .iter_mut()
            .filter(|(_, run)| run.ran.as_ref().is_some_and(|ran| ran.flist == flist));
        for (id, run) in ran {
            match &mut run.phase {
                Phase::Up { .. } => drop(self.spoilt.insert(id.clone(), text.to_owned())),
                // Now it is known why it ended.
                Phase::Waiting { code, message, .. } => {
                    STORE_DAMAGED.clone_into(code);
                    text.clone_into(message);
                }
                Phase::Stopping { .. } => {}
            }
        }
    }

    /// Flists that are in the store already need no fetch: every file is measured instead.
    pub(super) fn look_for_files(&mut self, wants: &[Want]) {
        for (contract, flist) in flists_of(wants) {
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
            match self.store.verify(flist, Depth::Measure) {
                Ok(faults) if faults.is_empty() => {
                    self.files.insert((contract, flist), Files::Ready);
                }
                // It was complete, and something may run from it.
                Ok(faults) => self.take_damage(flist, &node_calls::describe(&faults)),
                Err(error @ (StoreError::Record { .. } | StoreError::RecordUnreadable { .. })) => {
                    self.take_damage(flist, &daemon::chain(&error));
                }
                // It is not there yet, or will be looked for again.
                Err(_) => {}
            }
        }
    }
}
