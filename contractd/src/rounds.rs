//! When the store is read through, and what of it is read sooner. Pure: `scrub` reads, the reconciler
//! does what follows from it.
//!
//! ```text
//! idle ──a day after the last round began──► piece by piece, slowly ──► idle
//! errors of its disks, an order ► everything ┐ at once and faster, one after the other; what
//! a container ended by itself ──► its flist ─┘ was good is left alone for longer each time
//! ```
//!
//! A round goes on after a restart where it stood. One that could not look at something begins again when
//! it is over, after a wait that doubles. That everything is to be read at once survives a restart too.

use contract::FlistId;
use flist::Place;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
};

/// A round begins so long after the one before began, in seconds; it takes longer only when there is
/// more to read than the rate of a round gets through in that time: 337 GiB.
const ROUND_S: i64 = 24 * 3600;
/// Nothing is read slowly before the machine has been up for so long: starts come first.
const SETTLE_MS: u64 = 180_000;
/// What was read at once is not read at once again for so long after its end, whatever happens: whoever
/// starts and fails for ever does not keep a disk busy. The wait doubles while nothing bad is found.
const AGAIN_MS: u64 = 600_000;
const AGAIN_MAX_MS: u64 = 24 * 3_600_000;
/// After a problem, the next piece waits for so long; so does the next round, at first: the wait doubles
/// up to a day.
const RETRY_MS: u64 = 60_000;
const RETRY_MAX_MS: u64 = 24 * 3_600_000;
/// Where a round stands is written down this often.
const SAVE_MS: u64 = 60_000;
/// Disks whose errors are remembered.
const DISKS_MAX: usize = 64;

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

/// What became of a look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Where a round goes on; `None`: it is over.
    pub(crate) next: Option<Place>,
    /// Whether anything was not right when it was read first.
    pub(crate) doubted: bool,
    /// What could not be looked at, and why.
    pub(crate) problem: Option<String>,
    /// Files that were read, how many bytes of them, and how many were bad.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) bad: u64,
    /// Flists that need a bad one.
    pub(crate) damaged: BTreeSet<FlistId>,
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
    /// The wait before the next round, if the last one was not whole.
    retry_ms: u64,
    /// What is to be read at once, in the order in which it was asked for, and what of it is being read.
    wanted: VecDeque<Look>,
    urgent: Option<Look>,
    rests: BTreeMap<Look, Rest>,
    /// The errors so far are those that our own reading made.
    explained: bool,
}

/// What is known once a look has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// All that it is a part of was looked at.
    All,
    /// Something was not, or not yet.
    Some,
}

/// How long something is left alone.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until_ms: u64,
    wait_ms: u64,
}

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// When the last round began, by the time of day.
    began_s: i64,
    round: Round,
    /// Whether this round could not look at something.
    has_problem: bool,
    /// Whether everything is still to be read at once.
    wants_all: bool,
    /// Errors that were looked into, by disk. One that is not there now keeps its number.
    errors: BTreeMap<String, u64>,
}

/// Where a round stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Round {
    /// The last one is over.
    #[default]
    Idle,
    /// It has read everything up to this place; `None`: it begins.
    Reading(Option<String>),
}

impl Rounds {
    /// Takes up where `saved` stood. What cannot be read begins anew.
    pub(crate) fn read(saved: Option<&str>) -> Self {
        let progress: Progress =
            saved.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let wanted: VecDeque<Look> = progress.wants_all.then_some(Look::All).into_iter().collect();
        // If the machine went down because of it, it is up for a while before it is tried again.
        let settle = Rest { until_ms: SETTLE_MS, wait_ms: 0 };
        let rests = wanted.iter().map(|look| (*look, settle)).collect();
        Self { saved: progress.clone(), progress, wanted, rests, ..Self::default() }
    }

    /// What the disks of the store have reported so far.
    ///
    /// While something is read, nobody knows whose errors they are: at its end, those that came with
    /// something bad are taken for its own.
    pub(crate) fn note_errors(&mut self, errors: BTreeMap<String, u64>) {
        let explained = mem::take(&mut self.explained);
        if !explained && (self.is_reading || self.urgent.is_some()) {
            return;
        }
        let before = |disk: &String| self.progress.errors.get(disk).copied().unwrap_or(0);
        if !explained && errors.iter().any(|(disk, count)| *count > before(disk)) {
            self.want(Look::All);
        }
        self.progress.errors.extend(errors.clone());
        if self.progress.errors.len() > DISKS_MAX {
            self.progress.errors = errors;
        }
    }

    /// Files of this flist may be damaged.
    pub(crate) fn suspect(&mut self, flist: FlistId) {
        self.want(Look::One(flist));
    }

    /// Everything is to be read, by an order.
    pub(crate) fn read_all(&mut self) {
        self.want(Look::All);
    }

    /// Whether everything could be read now, if that was asked for.
    pub(crate) fn can_read_all(&self, now_ms: u64) -> bool {
        !self.rests(&Look::All, now_ms)
    }

    fn rests(&self, look: &Look, now_ms: u64) -> bool {
        self.rests.get(look).is_some_and(|rest| now_ms < rest.until_ms)
    }

    fn want(&mut self, look: Look) {
        self.progress.wants_all |= look == Look::All;
        if !self.wanted.contains(&look) {
            self.wanted.push_back(look);
        }
    }

    /// What to begin to read now: one thing at once, and one piece.
    pub(crate) fn next(&mut self, now_ms: u64, now_s: i64) -> Vec<Look> {
        let mut looks = Vec::new();
        let urgent = self.urgent;
        // What was not asked for during a whole second rest is as if it had never been.
        self.rests.retain(|look, rest| {
            urgent == Some(*look) || now_ms < rest.until_ms.saturating_add(rest.wait_ms)
        });
        if urgent.is_none()
            && let Some(at) = self.wanted.iter().position(|look| !self.rests(look, now_ms))
        {
            self.urgent = self.wanted.remove(at);
            looks.extend(self.urgent);
        }
        if self.is_reading || now_ms < self.next_ms.max(SETTLE_MS) {
            return looks;
        }
        let began = self.progress.began_s;
        let after = match &self.progress.round {
            Round::Reading(after) => after.as_deref().and_then(|text| text.parse().ok()),
            // A clock that was set back must not put a round off for years.
            Round::Idle if now_s < began || now_s.saturating_sub(began) >= ROUND_S => {
                self.progress.round = Round::Reading(None);
                None
            }
            Round::Idle => return looks,
        };
        if after.is_none() {
            self.progress.began_s = now_s;
        }
        self.is_reading = true;
        looks.push(Look::Piece(after));
        looks
    }

    /// A look has ended.
    pub(crate) fn ended(&mut self, look: Look, outcome: &Outcome, now_ms: u64) -> Known {
        self.explained |= outcome.doubted;
        if let Look::Piece(_) = look {
            return self.piece_ended(outcome, now_ms);
        }
        self.urgent = None;
        if look == Look::All {
            self.progress.wants_all = false;
        }
        let before = self.rests.get(&look).filter(|_| !outcome.doubted);
        let wait_ms = before.map_or(AGAIN_MS, |rest| rest.wait_ms.saturating_mul(2));
        let wait_ms = wait_ms.clamp(AGAIN_MS, AGAIN_MAX_MS);
        let until_ms = now_ms.saturating_add(wait_ms);
        self.rests.insert(look, Rest { until_ms, wait_ms });
        if outcome.problem.is_some() {
            self.want(look);
            return Known::Some;
        }
        Known::All
    }

    fn piece_ended(&mut self, outcome: &Outcome, now_ms: u64) -> Known {
        self.is_reading = false;
        let progress = &mut self.progress;
        if outcome.problem.is_some() {
            progress.has_problem = true;
            self.next_ms = now_ms.saturating_add(RETRY_MS);
        }
        if let Some(place) = outcome.next {
            progress.round = Round::Reading(Some(place.to_string()));
            return Known::Some;
        }
        if mem::take(&mut progress.has_problem) {
            progress.round = Round::Reading(None);
            self.retry_ms = self.retry_ms.saturating_mul(2).clamp(RETRY_MS, RETRY_MAX_MS);
            self.next_ms = now_ms.saturating_add(self.retry_ms);
            return Known::Some;
        }
        progress.round = Round::Idle;
        self.retry_ms = 0;
        Known::All
    }

    /// What is to be written down now. That everything was read does not wait: it would be read again.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<String> {
        let is_early = now_ms < self.saved_ms.saturating_add(SAVE_MS)
            && self.progress.wants_all == self.saved.wants_all;
        if self.progress == self.saved || is_early {
            return None;
        }
        (self.saved, self.saved_ms) = (self.progress.clone(), now_ms);
        Some(serde_json::to_string(&self.progress).expect("numbers and strings"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 1_800_000_000;
    const FIRST: Place = Place::Object([1; 32]);
    const FLIST: FlistId = FlistId([9; 32]);

    fn good() -> Outcome {
        Outcome::default()
    }

    fn at(place: Place) -> Outcome {
        Outcome { next: Some(place), ..Outcome::default() }
    }

    fn bad() -> Outcome {
        Outcome { doubted: true, ..Outcome::default() }
    }

    fn failed() -> Outcome {
        Outcome { problem: Some("a directory cannot be listed".into()), ..Outcome::default() }
    }

    fn errors(count: u64) -> BTreeMap<String, u64> {
        [("pool/1".to_owned(), count)].into()
    }

    #[test]
    fn a_round_goes_piece_by_piece_and_the_next_begins_a_day_later() {
        let mut rounds = Rounds::read(None);
        assert_eq!(rounds.next(SETTLE_MS - 1, DAY), []);
        assert_eq!(rounds.next(SETTLE_MS, DAY), [Look::Piece(None)]);
        assert_eq!(rounds.next(SETTLE_MS, DAY), [], "one piece at a time");
        rounds.ended(Look::Piece(None), &at(FIRST), SETTLE_MS);
        let second = Look::Piece(Some(FIRST));
        assert_eq!(rounds.next(SETTLE_MS, DAY), [second]);
        // What could not be looked at is left behind.
        let third = Place::Object([2; 32]);
        rounds.ended(second, &Outcome { next: Some(third), ..failed() }, SETTLE_MS);
        assert_eq!(rounds.next(SETTLE_MS + RETRY_MS - 1, DAY), []);
        let third = Look::Piece(Some(third));
        assert_eq!(rounds.next(SETTLE_MS + RETRY_MS, DAY), [third]);
        assert_eq!(rounds.ended(third, &good(), SETTLE_MS), Known::Some, "not the second");
        let again = SETTLE_MS + RETRY_MS;
        assert_eq!(rounds.next(again, DAY), [Look::Piece(None)]);
        assert_eq!(rounds.ended(Look::Piece(None), &good(), again), Known::All);
        let late = 10 * SETTLE_MS;
        assert_eq!(rounds.next(late, DAY + ROUND_S - 1), []);
        assert_eq!(rounds.next(late, DAY + ROUND_S), [Look::Piece(None)]);
        rounds.ended(Look::Piece(None), &good(), late);
        assert_eq!(rounds.next(late, DAY), [Look::Piece(None)], "the clock was set back");
    }

    /// A node that was restarted while it read the first piece read nothing more for a day.
    #[test]
    fn a_round_goes_on_after_a_restart_where_it_stood() {
        let mut rounds = Rounds::read(None);
        rounds.next(SETTLE_MS, DAY);
        let first = rounds.take_due(SETTLE_MS).unwrap();
        rounds.ended(Look::Piece(None), &at(FIRST), SETTLE_MS);
        let later = rounds.take_due(SETTLE_MS + SAVE_MS).unwrap();
        assert_eq!(rounds.take_due(10 * SETTLE_MS), None, "nothing is new");
        let mut rounds = Rounds::read(Some(&first));
        assert_eq!(rounds.next(SETTLE_MS, DAY + 5), [Look::Piece(None)]);
        let mut rounds = Rounds::read(Some(&later));
        assert_eq!(rounds.next(SETTLE_MS, DAY + 5), [Look::Piece(Some(FIRST))]);
        assert_eq!(Rounds::read(Some("junk")).next(SETTLE_MS, DAY), [Look::Piece(None)]);
    }

    /// A round in which nothing could be looked at was over, for a day.
    #[test]
    fn a_round_that_could_not_look_at_something_begins_again_later_each_time() {
        let mut rounds = Rounds::read(None);
        let mut now_ms = SETTLE_MS;
        let mut read = |outcome: &Outcome| {
            let begun_ms = now_ms;
            while rounds.next(now_ms, DAY) != [Look::Piece(None)] {
                now_ms += RETRY_MS;
            }
            let known = rounds.ended(Look::Piece(None), outcome, now_ms);
            ((now_ms - begun_ms) / RETRY_MS, known)
        };
        for minutes in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440] {
            assert_eq!(read(&failed()), (minutes, Known::Some));
        }
        assert_eq!(read(&good()), (1440, Known::All));
        assert_eq!(rounds.next(now_ms, DAY), []);
        // It is known after a restart as well.
        assert_eq!(rounds.next(now_ms, DAY + ROUND_S), [Look::Piece(None)]);
        rounds.ended(Look::Piece(None), &Outcome { next: Some(FIRST), ..failed() }, now_ms);
        let text = rounds.take_due(now_ms + SAVE_MS).unwrap();
        let mut rounds = Rounds::read(Some(&text));
        let last = Look::Piece(Some(FIRST));
        assert_eq!(rounds.next(SETTLE_MS, DAY + ROUND_S), [last]);
        assert_eq!(rounds.ended(last, &good(), SETTLE_MS), Known::Some);
        let begun = rounds.next(SETTLE_MS + RETRY_MS, DAY + ROUND_S);
        assert_eq!(begun, [Look::Piece(None)]);
    }

    /// The errors were written down as looked into before anything was read.
    #[test]
    fn errors_of_the_disks_are_not_forgotten_before_everything_was_read() {
        let mut rounds = Rounds::read(None);
        rounds.progress.errors = errors(0);
        rounds.note_errors(errors(1));
        let restarted = |rounds: &mut Rounds, now_ms| {
            let mut new = Rounds::read(Some(&rounds.take_due(now_ms).unwrap()));
            new.note_errors(errors(1));
            new
        };
        // It is written down at once.
        let mut rounds = restarted(&mut rounds, 0);
        rounds.progress.began_s = DAY;
        // The machine may have gone down because of it.
        assert!(rounds.next(SETTLE_MS - 1, DAY).is_empty() && !rounds.can_read_all(SETTLE_MS - 1));
        assert_eq!(rounds.next(SETTLE_MS, DAY), [Look::All]);
        rounds.ended(Look::All, &failed(), SETTLE_MS);
        assert!(!rounds.can_read_all(SETTLE_MS + AGAIN_MS - 1));
        let mut rounds = restarted(&mut rounds, SAVE_MS);
        assert_eq!(rounds.next(SETTLE_MS, DAY), [Look::All]);
        rounds.ended(Look::All, &good(), SETTLE_MS);
        assert_eq!(restarted(&mut rounds, 1).next(SETTLE_MS, DAY), []);
    }

    #[test]
    fn what_may_be_damaged_is_read_at_once_in_turn_and_rests_from_its_end_on() {
        let mut rounds = Rounds::read(None);
        let (look, other) = (Look::One(FLIST), Look::One(FlistId([8; 32])));
        rounds.suspect(FLIST);
        rounds.suspect(FlistId([8; 32]));
        assert_eq!(rounds.next(1, DAY), [look], "who came first is first");
        rounds.suspect(FLIST);
        assert_eq!(rounds.next(2, DAY), [], "one at a time");
        let end = 5 * AGAIN_MS;
        rounds.ended(look, &good(), end);
        rounds.is_reading = true;
        assert_eq!(rounds.next(end, DAY), [other]);
        rounds.ended(other, &good(), end);
        assert_eq!(rounds.next(end + AGAIN_MS - 1, DAY), []);
        assert_eq!(rounds.next(end + AGAIN_MS, DAY), [look]);
    }

    #[test]
    fn what_was_good_rests_for_longer_each_time_and_what_was_bad_does_not() {
        let mut rounds = Rounds::read(None);
        rounds.is_reading = true;
        let look = Look::One(FLIST);
        let mut now_ms = 0;
        let mut read = |outcome: &Outcome| {
            rounds.suspect(FLIST);
            let begun_ms = now_ms;
            while rounds.next(now_ms, DAY) != [look] {
                now_ms += AGAIN_MS;
            }
            rounds.ended(look, outcome, now_ms);
            (now_ms - begun_ms) / AGAIN_MS
        };
        let waits: Vec<_> = (0..10).map(|_| read(&good())).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 144], "a day at most");
        // What could not be looked at is no better.
        assert_eq!([read(&failed()), read(&bad()), read(&good())], [144, 144, 1]);
        rounds.next(now_ms + 8 * AGAIN_MAX_MS, DAY);
        assert!(rounds.rests.is_empty(), "forgotten in the end");
    }

    #[test]
    fn what_could_not_be_looked_at_is_looked_at_again() {
        let mut rounds = Rounds::read(None);
        rounds.is_reading = true;
        rounds.note_errors(errors(0));
        rounds.is_reading = false;
        rounds.note_errors(errors(1));
        rounds.is_reading = true;
        assert_eq!(rounds.next(1, DAY), [Look::All]);
        rounds.ended(Look::All, &failed(), 1);
        assert_eq!(rounds.next(AGAIN_MS, DAY), []);
        assert_eq!(rounds.next(1 + AGAIN_MS, DAY), [Look::All]);
        rounds.ended(Look::All, &good(), 1 + AGAIN_MS);
        assert_eq!(rounds.next(u64::MAX, DAY), []);
    }

    #[test]
    fn new_errors_of_the_disks_have_everything_read() {
        let mut rounds = Rounds::read(None);
        rounds.note_errors(errors(0));
        assert_eq!(rounds.next(1, DAY), []);
        rounds.note_errors(errors(2));
        assert_eq!(rounds.next(2, DAY), [Look::All]);
        rounds.note_errors(errors(3));
        assert_eq!(rounds.next(2, DAY), []);
        // Everything was good: somebody else has met them.
        rounds.ended(Look::All, &good(), 3);
        rounds.note_errors(errors(3));
        assert_eq!(rounds.next(3, DAY), []);
        assert_eq!(rounds.next(3 + AGAIN_MS, DAY), [Look::All, Look::Piece(None)]);
        rounds.ended(Look::All, &good(), 4 + AGAIN_MS);
        // What happened while the node was off is new as well.
        let text = rounds.take_due(5 + AGAIN_MS).unwrap();
        let mut rounds = Rounds::read(Some(&text));
        rounds.note_errors(errors(3));
        assert_eq!(rounds.next(1, DAY), []);
        rounds.note_errors(errors(4));
        assert_eq!(rounds.next(1, DAY), [Look::All]);
    }

    /// A look that found something was followed by a look at everything, for errors of its own.
    #[test]
    fn errors_that_come_with_something_bad_are_its_own() {
        for look in [Look::All, Look::One(FLIST), Look::Piece(Some(FIRST))] {
            let mut rounds = Rounds::read(None);
            rounds.note_errors(errors(1));
            rounds.wanted.clear();
            match look {
                Look::Piece(_) => rounds.is_reading = true,
                Look::All | Look::One(_) => rounds.urgent = Some(look),
            }
            rounds.note_errors(errors(5));
            rounds.ended(look, &Outcome { doubted: true, ..at(FIRST) }, 1);
            rounds.note_errors(errors(9));
            assert_eq!(rounds.next(2, DAY), [], "{look:?}");
            rounds.note_errors(errors(10));
            assert!(rounds.wanted.contains(&Look::All));
        }
    }

    #[test]
    fn a_disk_that_is_away_for_a_while_has_no_new_errors() {
        let mut rounds = Rounds::read(None);
        let disk = |name: &str, count| (name.to_owned(), count);
        rounds.progress.errors = [disk("pool/1", 7), disk("pool/2", 3)].into();
        for seen in [vec![], vec![disk("pool/2", 3)], vec![disk("pool/1", 7), disk("pool/2", 3)]] {
            rounds.note_errors(seen.into_iter().collect());
            assert_eq!(rounds.next(1, DAY), []);
        }
        // Its count was set back: from there on it counts.
        rounds.note_errors(errors(0));
        assert_eq!(rounds.next(1, DAY), []);
        rounds.note_errors(errors(1));
        assert_eq!(rounds.next(1, DAY), [Look::All]);
    }
}
