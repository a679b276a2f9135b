//! The farm's orders to read the store through: which one is taken, when it is done, and what is said of it.
//! Pure: the reconciler has the store read, and publishes what is said.
//!
//! ```text
//! heard ──its time has come, and nothing ──► taken ──everything was──► done ──files are back──► done
//!   │      is read for another or rests               read since
//!   └─────too old──► refused
//! ```
//!
//! An order is taken once, for it must be later than the one that was taken last, which survives a restart.
//! One that comes while another is carried out, or while what was read rests, waits: else a farm that orders
//! often, and has a large store, would never see one done. Of several that wait the last is taken.

use crate::{
    clock::{Now, Worth},
    results::cut,
    rounds,
};
use contract::{
    FlistId, Signed, Timestamp, Trust,
    envelope::OpenError,
    identity::{Identity, Signer},
    scrub::{
        Outcome, SCRUB_FLISTS_MAX, SCRUB_TEXT_MAX, Scrub, Scrubbed, Standing, orders as is_ordered,
    },
};
use registry_api::view::Ordered;
use std::collections::BTreeSet;

/// That flists are whole again is told so often at most: each time, the node's statement has a new version.
const TELL_MS: u64 = 60_000;

/// How far the orders are.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// One that waits.
    heard: Option<Signed<Scrub>>,
    /// The last that was taken or refused. Of one that is done, all flists: what is told is cut.
    taken: Option<Scrubbed>,
    /// As it was written down last.
    saved: Option<Scrubbed>,
    /// Since when everything is being read for it.
    serving: Option<Timestamp>,
    /// Boot clock of when flists were last found whole again.
    told_ms: Option<u64>,
    /// Whether the registry understands no statement that says what became of it.
    is_silent: bool,
}

/// Why something is no order to this node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAnOrder {
    #[error("what the registry gave as an order to read the store cannot be read")]
    Unreadable(#[source] OpenError),
    #[error("an order to read the store is of another grid")]
    OtherNetwork,
    #[error("an order to read the store is for another node")]
    OtherNode,
    #[error("an order to read the store is not signed by this node's farm")]
    NotByTheFarm,
    #[error(
        "an order to read the store was issued at {issued}, not after the one of {last} that was taken"
    )]
    NotLater { issued: Timestamp, last: Timestamp },
}

impl Orders {
    /// Takes up where `saved` stood.
    pub(crate) fn read(saved: Option<&str>) -> Self {
        let taken: Option<Scrubbed> = saved.and_then(|text| serde_json::from_str(text).ok());
        Self { saved: taken.clone(), taken, ..Self::default() }
    }

    /// Whether one was taken, and not everything was read since.
    pub(crate) fn is_open(&self) -> bool {
        let taken = self.taken.as_ref().map(|taken| &taken.outcome);
        matches!(taken, Some(Outcome::Heard { .. }))
    }

    /// Whether everything that is read from now on is for an order: an open one, or one that has left
    /// something out.
    fn is_unfinished(&self) -> bool {
        let taken = self.taken.as_ref().map(|taken| &taken.outcome);
        self.is_open() || matches!(taken, Some(Outcome::Done { left_out: Some(_), .. }))
    }

    /// Takes in what the registry gave. What was heard or taken changes nothing. What waits gives way to any
    /// other: its time may never come.
    pub(crate) fn hear(&mut self, ordered: &Ordered, trust: &Trust) -> Result<(), NotAnOrder> {
        let order = Signed::<Scrub>::open(&ordered.order).map_err(NotAnOrder::Unreadable)?;
        let is_heard = self.heard.as_ref().is_some_and(|heard| heard.id == order.id);
        if is_heard || self.taken.as_ref().is_some_and(|taken| taken.order == order.id) {
            return Ok(());
        }
        if order.body.network != trust.network {
            return Err(NotAnOrder::OtherNetwork);
        }
        if order.body.node != trust.node {
            return Err(NotAnOrder::OtherNode);
        }
        let farm = Signed::<Identity>::open(&ordered.farm).map_err(NotAnOrder::Unreadable)?;
        let farm = Signer::from_statement(&farm).filter(|farm| farm.id == trust.farm);
        if !farm.is_some_and(|farm| is_ordered(&farm, &order)) {
            return Err(NotAnOrder::NotByTheFarm);
        }
        match (order.body.issued, self.taken.as_ref().map(|taken| taken.issued)) {
            (issued, Some(last)) if issued <= last => Err(NotAnOrder::NotLater { issued, last }),
            _ => {
                self.heard = Some(order);
                Ok(())
            }
        }
    }

    /// Why what was heard waits, if that lies with the clocks.
    pub(crate) fn waits(&self, now: Now) -> Option<String> {
        let order = &self.heard.as_ref()?.body;
        let why = match order.standing(now.at) {
            Standing::Early => "is ahead of the clock of this node",
            Standing::TooOld if now.worth != Worth::Confirmed => {
                "is too old by the clock of this node, which no time server has confirmed"
            }
            Standing::Open | Standing::TooOld => return None,
        };
        Some(format!("an order to read the store, issued at {}, {why}: it waits", order.issued))
    }

    /// Takes what was heard, when it is time. `can_begin`: what was read before has rested, so that what became
    /// of the order before was there to be seen. `true`: everything is to be read.
    pub(crate) fn take(&mut self, now: Now, can_begin: bool) -> bool {
        if !can_begin || self.is_open() || self.serving.is_some() {
            return false;
        }
        let Some(heard) = &self.heard else { return false };
        let outcome = match heard.body.standing(now.at) {
            Standing::Open => Outcome::Heard { at: now.at },
            // A clock that nobody has confirmed refuses nobody for good.
            Standing::TooOld if now.worth == Worth::Confirmed => Outcome::TooOld { at: now.at },
            Standing::TooOld | Standing::Early => return false,
        };
        self.taken = Some(Scrubbed { order: heard.id, issued: heard.body.issued, outcome });
        self.heard = None;
        self.is_open()
    }

    /// Everything begins to be read.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.serving = self.is_unfinished().then_some(now);
    }

    /// Everything was read: for the order that was unfinished when that began.
    pub(crate) fn ended(&mut self, read: &rounds::Outcome, now: Timestamp) {
        let (Some(begun), Some(taken)) = (self.serving.take(), &mut self.taken) else { return };
        let (before, back) = match &taken.outcome {
            Outcome::Done { damaged, repaired, .. } => (damaged.clone(), repaired.clone()),
            Outcome::Heard { .. } | Outcome::TooOld { .. } => (Vec::new(), Vec::new()),
        };
        let mut damaged = read.damaged.clone();
        if read.problem.is_some() {
            // Nobody knows whether these were looked at again.
            damaged.extend(&before);
        }
        let repaired: BTreeSet<FlistId> =
            before.into_iter().chain(back).filter(|flist| !damaged.contains(flist)).collect();
        taken.outcome = Outcome::Done {
            begun,
            ended: now,
            files: read.files,
            bytes: read.bytes,
            bad: read.bad,
            damaged: damaged.into_iter().collect(),
            repaired: repaired.into_iter().collect(),
            left_out: read.problem.as_deref().map(|text| cut(text, SCRUB_TEXT_MAX).to_owned()),
        };
    }

    /// Of the flists that were damaged, those that are whole have been repaired.
    pub(crate) fn note_repaired(&mut self, now_ms: u64, is_whole: impl Fn(&FlistId) -> bool) {
        let Some(Scrubbed { outcome: Outcome::Done { damaged, repaired, .. }, .. }) =
            &mut self.taken
        else {
            return;
        };
        if self.told_ms.is_some_and(|told_ms| now_ms < told_ms.saturating_add(TELL_MS)) {
            return;
        }
        let before = repaired.len();
        repaired.extend(damaged.extract_if(.., |flist| is_whole(flist)));
        if repaired.len() > before {
            repaired.sort_unstable();
            self.told_ms = Some(now_ms);
        }
    }

    /// The registry takes no statement that says what became of an order: it is older than orders are. The
    /// node says nothing of them until this process begins anew, rather than nothing at all.
    pub(crate) fn be_silent(&mut self) {
        self.is_silent = true;
    }

    /// What is told of the last order. An flist is named as damaged until all are whole, however many
    /// they were: who reads that none is can rely on it.
    pub(crate) fn scrubbed(&self) -> Option<Scrubbed> {
        let mut told = self.taken.clone().filter(|_| !self.is_silent)?;
        if let Outcome::Done { damaged, repaired, .. } = &mut told.outcome {
            damaged.truncate(SCRUB_FLISTS_MAX);
            repaired.truncate(SCRUB_FLISTS_MAX);
        }
        Some(told)
    }

    /// What is to be written down now.
    pub(crate) fn take_due(&mut self) -> Option<String> {
        if self.taken == self.saved {
            return None;
        }
        self.saved.clone_from(&self.taken);
        let taken = self.taken.as_ref()?;
        Some(serde_json::to_string(taken).expect("ids, numbers and strings"))
    }
}

#[cfg(test)]
mod tests;
