//! The rule that nodes use, with what was there at an earlier time.
//!
//! What was there is told by the log when there is a policy for one: a statement counts for a report
//! only if it was logged before it. The times that signers wrote count in any case; without a policy
//! they alone do, and can be written to suit.

use super::Entries;
use contract::{
    Bundle, StatementId, Timestamp, Trust, Verdict,
    decision::{Approval, Cancel},
    verdict::{Case, Refusal, judge},
};
use std::collections::{BTreeMap, BTreeSet};

/// Clocks of people and nodes differ by so much, and so long may a node not have heard of what is new.
pub const CLOCK_S: i64 = 300;
/// Of what was made that close to a report so much is told apart, the nearest first.
const NEWS_MAX: usize = 64;
/// Cases that are kept: reports that follow each other mostly find the same statements there.
const KEPT_MAX: usize = 16;

/// What is judged, and by what.
pub(super) struct Court<'a> {
    case: &'a Case,
    /// For each statement its number, and when its signer says that it was made, if it says so.
    made: BTreeMap<StatementId, (usize, Option<Timestamp>)>,
    entries: Option<&'a Entries>,
    /// When statements were made, as their signers say, in seconds.
    times: BTreeSet<i64>,
    /// By which statements are there.
    kept: BTreeMap<Vec<bool>, Result<Case, Refusal>>,
}

impl<'a> Court<'a> {
    pub(super) fn new(case: &'a Case, bundle: &Bundle, entries: Option<&'a Entries>) -> Self {
        let headers = case.headers().iter().map(|header| (header.id, None));
        let approvals = super::opened::<Approval>(&bundle.approvals);
        let approvals = approvals.map(|one| (one.id, Some(one.body.issued)));
        let cancels = super::opened::<Cancel>(&bundle.cancels);
        let cancels = cancels.map(|one| (one.id, Some(one.body.issued)));
        let all: BTreeMap<_, _> = headers.chain(approvals).chain(cancels).collect();
        let times = all.values().flatten().map(|issued| issued.seconds()).collect();
        let made = all.into_iter().enumerate();
        let made = made.map(|(number, (id, issued))| (id, (number, issued))).collect();
        Self { case, made, entries, times, kept: BTreeMap::new() }
    }

    /// The times of which a node may have had the news when it reported, as offsets to its clock:
    /// exactly, by a slow clock, by slow news, and between each two statements that are that close.
    pub(super) fn moments(&self, at: Timestamp) -> Vec<i64> {
        let at = at.seconds();
        let close = at.saturating_sub(CLOCK_S)..=at.saturating_add(CLOCK_S);
        let mut news: Vec<i64> = self.times.range(close).map(|issued| issued - at).collect();
        news.sort_by_key(|offset| offset.abs());
        news.truncate(NEWS_MAX);
        [0, CLOCK_S, -CLOCK_S].into_iter().chain(news).collect()
    }

    /// The verdict of a node about the time `at`, by what was there `offset` seconds away from it and
    /// was logged before `entry`.
    pub(super) fn judge(
        &mut self,
        trust: &Trust,
        at: Timestamp,
        offset: i64,
        entry: Option<u64>,
    ) -> Verdict {
        let there = self.there(at.plus(offset), entry);
        if !self.kept.contains_key(&there) {
            let has =
                |id: &StatementId| self.made.get(id).is_some_and(|(number, _)| there[*number]);
            let case = self.case.with_only(has);
            if self.kept.len() >= KEPT_MAX {
                self.kept.clear();
            }
            self.kept.insert(there.clone(), case);
        }
        match self.kept.get(&there) {
            Some(case) => judge(case.as_ref(), trust, at),
            // It was put there above.
            None => judge(Ok(self.case), trust, at),
        }
    }

    fn there(&self, by: Timestamp, entry: Option<u64>) -> Vec<bool> {
        let is_there = |(id, (_, issued)): (&StatementId, &(usize, Option<Timestamp>))| {
            let in_time = issued.is_none_or(|issued| issued <= by);
            let in_log = match (self.entries, entry) {
                (Some(entries), Some(entry)) => entries.get(id).is_some_and(|own| *own < entry),
                // Without its proof a report is a finding already.
                (Some(entries), None) => entries.contains_key(id),
                (None, _) => true,
            };
            in_time && in_log
        };
        self.made.iter().map(is_there).collect()
    }
}
