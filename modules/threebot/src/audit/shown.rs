//! Versions and orders, with who decided what, as they stand by all that is in the evidence.

use super::{Decided, Entries, Order, Version};
use crate::{people::People, text};
use contract::{
    Signed,
    decision::{Action, Cancel},
    header::Header,
    tally::Tally,
    verdict::{Case, Standing, rule},
};

/// What everything that is shown needs.
pub(super) struct Shown<'a> {
    pub(super) case: &'a Case,
    pub(super) in_force: u64,
    pub(super) people: People,
    pub(super) entries: Entries,
}

impl Shown<'_> {
    pub(super) fn version(&self, index: usize) -> Version {
        let header = &self.case.headers()[index];
        let version = header.body.version;
        let action = if version == 1 { Action::Create } else { Action::Update };
        let judges = &self.case.headers()[index.saturating_sub(1)..=index];
        let rule = |judge: &Signed<Header>| {
            let words = text::rule(rule(&judge.body, action), &self.people);
            format!("by version {}: {words}", judge.body.version)
        };
        Version {
            version,
            header: header.id,
            rules: judges.iter().map(rule).collect(),
            agreed: version <= self.in_force,
            missing: self.case.tallies(index).iter().filter_map(Tally::reason).collect(),
            decisions: self.decided(self.case.standing_on(index)),
        }
    }

    pub(super) fn orders(&self) -> Vec<Order> {
        let orders = self.case.headers().iter().flat_map(|header| {
            let orders = self.case.cancels(header).into_iter();
            orders.map(move |(cancel, tally)| (header, cancel, tally))
        });
        let order = |(header, cancel, tally): (&Signed<Header>, &Signed<Cancel>, _)| Order {
            statement: cancel.id,
            version: cancel.body.version,
            effective_at: cancel.body.effective_at,
            rule: text::rule(&header.body.policy.cancel, &self.people),
            agreed: tally == Tally::Agreed,
            replaced: cancel.body.version < self.in_force,
            decisions: self.decided(self.case.standing_on_order(cancel)),
        };
        orders.map(order).collect()
    }

    fn decided(&self, standing: Vec<Standing<'_>>) -> Vec<Decided> {
        let decided = |one: Standing<'_>| Decided {
            identity: one.holder.identity,
            name: self.people.show_exactly(&one.holder.identity),
            role: one.holder.role,
            decision: one.approval.decision,
            issued: one.approval.issued,
            statement: one.statement,
            entry: self.entries.get(&one.statement).copied(),
        };
        standing.into_iter().map(decided).collect()
    }
}
