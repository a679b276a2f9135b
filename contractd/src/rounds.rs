//! When the store is read through, and what of it is read sooner. Pure: `scrub` reads, the reconciler
//! does what follows from it.
//!
//! ```text
//! idle ──a day after the last round began──► piece by piece, slowly ──► idle
//! the disks report errors ──► everything ─┐ at once and faster, but the
//! a container ended by itself ──► its flist ─┘ same not again for ten minutes
//! ```
//!
//! A round goes on after a restart where it stood.

use contract::FlistId;
use flist::Place;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A round begins so long after the one before began, in seconds; it takes longer only when there is
/// more to read than the rate of a round gets through in that time: 337 GiB.
const ROUND_S: i64 = 24 * 3600;
/// Nothing is read slowly before the machine has been up for so long: starts come first.
const SETTLE_MS: u64 = 180_000;
/// What was read at once is not read at once again for so long, whatever happens.
const AGAIN_MS: u64 = 600_000;
/// After a failure, the next piece waits for so long.
const RETRY_MS: u64 = 60_000;
/// Where a round stands is written down this often.
const SAVE_MS: u64 = 60_000;

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// Everything, at once.
    All,
    /// What one flist needs, at once.
    One(FlistId),
    /// The next piece of a round, slowly, behind this place.
    Piece(Option<Place>),
}

/// How far everything is.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    progress: Progress,
    /// As it was written down last, and when, on the boot clock.
    saved: Progress,
    saved_ms: u64,
    is_reading: bool,
    next_ms: u64,
    /// What is to be read at once, what of it is being read, and when each was begun.
    wanted: BTreeSet<Look>,
    urgent: Option<Look>,
    begun_ms: BTreeMap<Look, u64>,
    /// The next number of errors is that of our own reading.
    forgives: bool,
}

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// When the last round began, by the time of day.
    began_s: i64,
    /// Where it stands; `None`: it is over.
    after: Option<String>,
    /// Errors of the disks that were looked into.
    errors: u64,
}

impl Rounds {
    /// Takes up where `saved` stood. What cannot be read begins anew.
    pub(crate) fn read(saved: Option<&str>) -> Self {
        let progress: Progress =
            saved.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Self { saved: progress.clone(), progress, ..Self::default() }
    }

    /// What the disks have reported so far.
    pub(crate) fn note_errors(&mut self, errors: u64) {
        if errors > self.progress.errors && !self.forgives {
            self.wanted.insert(Look::All);
        }
        self.forgives = false;
        self.progress.errors = errors;
    }

    /// Files of this flist may be damaged.
    pub(crate) fn suspect(&mut self, flist: FlistId) {
        self.wanted.insert(Look::One(flist));
    }

    /// What to begin to read now: one thing at once, and one piece.
    pub(crate) fn next(&mut self, now_ms: u64, now_s: i64) -> Vec<Look> {
        let mut looks = Vec::new();
        self.begun_ms.retain(|_, begun| now_ms.saturating_sub(*begun) < AGAIN_MS);
        let may = |look: &&Look| !self.begun_ms.contains_key(look);
        if self.urgent.is_none()
            && let Some(look) = self.wanted.iter().find(may).copied()
        {
            self.wanted.remove(&look);
            self.begun_ms.insert(look, now_ms);
            self.urgent = Some(look);
            looks.push(look);
        }
        if self.is_reading || now_ms < self.next_ms.max(SETTLE_MS) {
            return looks;
        }
        let began = self.progress.began_s;
        let after = self.progress.after.as_deref().and_then(|text| text.parse().ok());
        // A clock that was set back must not put a round off for years.
        let is_due = now_s < began || now_s.saturating_sub(began) >= ROUND_S;
        if after.is_none() && !is_due {
            return looks;
        }
        if after.is_none() {
            self.progress.began_s = now_s;
        }
        self.is_reading = true;
        looks.push(Look::Piece(after));
        looks
    }

    /// A look has ended; that of a piece with where to go on.
    pub(crate) fn ended(
        &mut self,
        look: Look,
        outcome: &Result<Option<Place>, String>,
        now_ms: u64,
    ) {
        match look {
            Look::All | Look::One(_) => {
                self.urgent = None;
                self.forgives = look == Look::All;
            }
            Look::Piece(_) => {
                self.is_reading = false;
                match outcome {
                    Ok(after) => self.progress.after = after.map(|place| place.to_string()),
                    Err(_) => self.next_ms = now_ms.saturating_add(RETRY_MS),
                }
            }
        }
    }

    /// What is to be written down now.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<String> {
        if self.progress == self.saved || now_ms < self.saved_ms.saturating_add(SAVE_MS) {
            return None;
        }
        (self.saved, self.saved_ms) = (self.progress.clone(), now_ms);
        Some(serde_json::to_string(&self.progress).expect("numbers and a string"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 1_800_000_000;
    const FIRST: Place = Place::Object([1; 32]);
    const FLIST: FlistId = FlistId([9; 32]);

    #[test]
    fn a_round_goes_piece_by_piece_and_the_next_begins_a_day_later() {
        let mut rounds = Rounds::read(None);
        assert_eq!(rounds.next(SETTLE_MS - 1, DAY), []);
        assert_eq!(rounds.next(SETTLE_MS, DAY), [Look::Piece(None)]);
        assert_eq!(rounds.next(SETTLE_MS, DAY), [], "one piece at a time");
        rounds.ended(Look::Piece(None), &Ok(Some(FIRST)), SETTLE_MS);
        let second = Look::Piece(Some(FIRST));
        assert_eq!(rounds.next(SETTLE_MS, DAY), [second]);
        rounds.ended(second, &Err("the disk is gone".into()), SETTLE_MS);
        assert_eq!(rounds.next(SETTLE_MS + RETRY_MS - 1, DAY), []);
        assert_eq!(rounds.next(SETTLE_MS + RETRY_MS, DAY), [second]);
        rounds.ended(second, &Ok(None), SETTLE_MS);
        let late = 10 * SETTLE_MS;
        assert_eq!(rounds.next(late, DAY + ROUND_S - 1), []);
        assert_eq!(rounds.next(late, DAY + ROUND_S), [Look::Piece(None)]);
        rounds.ended(Look::Piece(None), &Ok(None), late);
        assert_eq!(rounds.next(late, DAY), [Look::Piece(None)], "the clock was set back");
    }

    #[test]
    fn a_round_goes_on_after_a_restart_where_it_stood() {
        let mut rounds = Rounds::read(None);
        rounds.next(SETTLE_MS, DAY);
        rounds.ended(Look::Piece(None), &Ok(Some(FIRST)), SETTLE_MS);
        let text = rounds.take_due(SETTLE_MS).unwrap();
        assert_eq!(rounds.take_due(10 * SETTLE_MS), None, "nothing is new");
        let mut rounds = Rounds::read(Some(&text));
        assert_eq!(rounds.next(SETTLE_MS, DAY + 5), [Look::Piece(Some(FIRST))]);
        assert_eq!(Rounds::read(Some("junk")).next(SETTLE_MS, DAY), [Look::Piece(None)]);
    }

    #[test]
    fn what_may_be_damaged_is_read_at_once_and_then_not_for_ten_minutes() {
        let mut rounds = Rounds::read(None);
        let (look, good) = (Look::One(FLIST), Ok(None));
        rounds.suspect(FLIST);
        assert_eq!(rounds.next(1, DAY), [look]);
        rounds.suspect(FLIST);
        rounds.suspect(FlistId([8; 32]));
        assert_eq!(rounds.next(2, DAY), [], "one at a time");
        rounds.ended(look, &good, 3);
        let other = Look::One(FlistId([8; 32]));
        assert_eq!(rounds.next(3, DAY), [other]);
        rounds.ended(other, &good, 4);
        assert_eq!(rounds.next(AGAIN_MS, DAY)[..], [Look::Piece(None)]);
        assert_eq!(rounds.next(1 + AGAIN_MS, DAY), [look]);
    }

    #[test]
    fn new_errors_of_the_disks_have_everything_read_and_not_those_that_the_reading_makes() {
        let mut rounds = Rounds::read(None);
        rounds.note_errors(0);
        assert_eq!(rounds.next(1, DAY), []);
        rounds.note_errors(2);
        assert_eq!(rounds.next(2, DAY), [Look::All]);
        rounds.ended(Look::All, &Ok(None), 3);
        rounds.note_errors(3);
        assert_eq!(rounds.next(3 + AGAIN_MS, DAY), [Look::Piece(None)]);
        rounds.note_errors(4);
        assert_eq!(rounds.next(4 + AGAIN_MS, DAY), [Look::All]);
        // What happened while the node was off is new as well.
        let text = rounds.take_due(5 + AGAIN_MS).unwrap();
        let mut rounds = Rounds::read(Some(&text));
        rounds.note_errors(4);
        assert_eq!(rounds.next(1, DAY), []);
        rounds.note_errors(5);
        assert_eq!(rounds.next(1, DAY), [Look::All]);
        // Another disk counts anew.
        let mut rounds = Rounds::read(Some(&text));
        rounds.note_errors(0);
        assert_eq!(rounds.next(1, DAY), []);
    }
}
