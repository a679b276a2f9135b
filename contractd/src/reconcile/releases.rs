//! What publishers have signed, for contracts that demand it: who may begin with which flist.
//!
//! Fetched before the files, written down as it was signed, and read and verified again from there. That
//! the time to begin is over stops nothing that was begun with: see docs/decisions/0023.

use super::Reconciler;
use crate::{
    clock::Worth,
    database::{Database, DatabaseError, KeptRelease},
    housekeeping,
};
use contract::{ContractId, FlistId, Release, Timestamp, header::Publisher};
use std::collections::BTreeMap;

/// Every release that the node has got.
#[derive(Debug, Default)]
pub(super) struct Releases(BTreeMap<(ContractId, FlistId), Got>);

/// A release, as it is remembered.
#[derive(Debug)]
struct Got {
    release: Release,
    /// Its contract was started with it.
    begun: bool,
}

impl Releases {
    /// From what is written down; what does not verify is forgotten, as if it had never come.
    pub(super) fn read(database: &Database) -> Result<Self, DatabaseError> {
        let mut all = BTreeMap::new();
        for KeptRelease { contract, flist, record, begun } in database.releases()? {
            match Release::open(&record) {
                Ok(release) => drop(all.insert((contract, flist), Got { release, begun })),
                Err(error) => {
                    daemon::warn!("forgetting the release of {flist}: {}", daemon::chain(&error));
                    database.forget_release(&contract, &flist)?;
                }
            }
        }
        Ok(Self(all))
    }

    /// Whether a contract may use this flist, if it has to be of this publisher: begin with it now, or go
    /// on with it.
    pub(super) fn allow(
        &self,
        contract: ContractId,
        flist: FlistId,
        demanded: Option<&Publisher>,
        now: Timestamp,
    ) -> bool {
        demanded.is_none_or(|publisher| {
            self.0.get(&(contract, flist)).is_some_and(|Got { release, begun }| {
                release.fits(&flist, &publisher.key, publisher.revision).is_ok()
                    && (*begun || release.begins(now))
            })
        })
    }
}

impl Reconciler {
    /// Takes in what a publisher has signed, for a contract that is still known.
    pub(crate) fn take_release(
        &mut self,
        contract: ContractId,
        flist: FlistId,
        record: &[u8],
    ) -> Result<(), DatabaseError> {
        let Ok(release) = Release::open(record) else { return Ok(()) };
        if self.contracts.contains_key(&contract) {
            // Signed again, it is still what was begun with; of somebody else, it is not.
            let goes_on = |got: &Got| {
                got.begun
                    && got.release.publisher == release.publisher
                    && got.release.revision <= release.revision
            };
            let begun = self.releases.0.get(&(contract, flist)).is_some_and(goes_on);
            self.database.keep_release(&contract, &flist, record, begun)?;
            self.releases.0.insert((contract, flist), Got { release, begun });
        }
        Ok(())
    }

    /// Written down before the start: a start that is not remembered could not be repeated later.
    pub(super) fn note_begun(
        &mut self,
        contract: ContractId,
        flist: FlistId,
    ) -> Result<(), DatabaseError> {
        match self.releases.0.get_mut(&(contract, flist)) {
            Some(got) if !got.begun => {
                self.database.note_begun(&contract, &flist)?;
                got.begun = true;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Forgets what no contract names any more.
    pub(super) fn forget_releases(&mut self) -> Result<(), DatabaseError> {
        if self.releases.0.is_empty() {
            return Ok(());
        }
        let named = housekeeping::named(&self.contracts, &self.verdicts, Worth::Unconfirmed);
        let is_known = |(contract, flist): &(ContractId, FlistId)| {
            self.contracts.contains_key(contract) && named.contains(flist)
        };
        for ((contract, flist), _) in self.releases.0.extract_if(.., |of, _| !is_known(of)) {
            self.database.forget_release(&contract, &flist)?;
        }
        Ok(())
    }
}
