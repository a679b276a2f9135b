//! Asks the log for what a contract needs to start, and looks now and then whether it only grew.
//!
//! What the log shows is written down before it counts. What is not taken proves nothing, and stops
//! nothing that was proven before.

use super::Reconciler;
use crate::{
    console::fact,
    database::{DatabaseError, Kept},
    log::{self, Asked, Refused},
    network::Order,
};
use contract::{ContractId, Logged, StatementId};
use node_api::init::{Fact, Level};
use registry_api::log::Shown;
use std::collections::BTreeSet;
use tlog::{Checkpoint, Policy};

/// How often the log is looked at when nothing is to be proven.
const LOOK_MS: u64 = 30_000;
/// And when something is.
const PROVE_MS: u64 = 2_000;
/// Proofs that are asked for at once; the next ones with the next look.
const PROOFS_MAX: usize = 128;

/// What the node knows of the log.
#[derive(Debug)]
pub(crate) struct Watch {
    asked: Asked,
    /// The newest checkpoint that was taken.
    known: Option<Checkpoint>,
    problem: Option<Problem>,
    /// The last statement of the last question, so that each has its turn.
    last: Option<StatementId>,
    in_flight: bool,
    look_at_ms: u64,
}

/// Why the last answer was not taken, or there was none.
#[derive(Debug)]
struct Problem {
    text: String,
    is_alarm: bool,
}

impl Default for Watch {
    fn default() -> Self {
        let (asked, known, problem, last) = (Asked::No, None, None, None);
        Self { asked, known, problem, last, in_flight: false, look_at_ms: 0 }
    }
}

impl Watch {
    /// What is known of a contract that is new, or was read from the disk.
    pub(super) fn logged(&self, settled: u64) -> Logged {
        self.asked.logged(settled)
    }

    /// What ails the log, as a sentence that the node signs.
    pub(crate) fn alarm(&self) -> Option<String> {
        match &self.asked {
            Asked::Unclear(why) => Some(format!("no log can be asked: {}", daemon::chain(why))),
            Asked::No | Asked::Log(_) => {
                let alarm = self.problem.as_ref().filter(|problem| problem.is_alarm)?;
                Some(format!("nothing new starts: {}", alarm.text))
            }
        }
    }

    /// The same for the screen, whatever there is to say.
    pub(crate) fn fact(&self) -> Fact {
        match (&self.asked, &self.problem, self.alarm()) {
            (_, _, Some(alarm)) => fact("log", alarm, Level::Bad),
            (Asked::No | Asked::Unclear(_), ..) => {
                fact("log", "not asked: contracts start without proof of it", Level::Plain)
            }
            (Asked::Log(_), Some(problem), None) => fact("log", &problem.text, Level::Warning),
            (Asked::Log(policy), None, None) => match &self.known {
                Some(_) => {
                    fact("log", format!("what starts is in {}", policy.origin()), Level::Good)
                }
                None => fact("log", format!("asking {}", policy.origin()), Level::Plain),
            },
        }
    }
}

/// Where the newest checkpoint of a log stands among the facts.
fn fact_of(policy: &Policy) -> String {
    format!("checkpoint {}", policy.origin())
}

impl Reconciler {
    /// From now on only what is in this log starts anything.
    pub(crate) fn ask_log(&mut self, asked: Asked) -> Result<(), DatabaseError> {
        let mut known = None;
        if let Asked::Log(policy) = &asked {
            if !self.database.ask_log(&log::keys(policy))? {
                self.contracts.values_mut().for_each(|kept| kept.logged = 0);
            }
            known = self.database.fact(&fact_of(policy))?.and_then(|text| log::written(&text));
        }
        self.log = Watch { asked, known, ..Watch::default() };
        for kept in self.contracts.values_mut() {
            kept.bundle = kept.bundle.logged(self.log.logged(kept.logged));
        }
        self.judged_ms = None;
        Ok(())
    }

    /// Asks when it is time.
    pub(super) fn look_at_log(&mut self, now_ms: u64) {
        let Asked::Log(_) = &self.log.asked else { return };
        if self.log.in_flight {
            return;
        }
        let statements = self.unlogged();
        let is_due = now_ms >= self.log.look_at_ms;
        // The first proofs of a contract wait for nothing but the last answer.
        let is_new = self.log.problem.is_none() && !statements.is_empty();
        if !is_due && !is_new {
            return;
        }
        let wait = if statements.is_empty() { LOOK_MS } else { PROVE_MS };
        self.log.look_at_ms = now_ms.saturating_add(wait);
        self.log.last = statements.last().copied();
        self.log.in_flight = true;
        let known = self.log.known.as_ref().map_or(0, |known| known.size);
        self.order(Order::Log { known, statements });
    }

    /// Some of the statements that need a proof; the others follow.
    fn unlogged(&self) -> Vec<StatementId> {
        let all: BTreeSet<StatementId> =
            self.contracts.values().flat_map(|kept| kept.bundle.unlogged()).copied().collect();
        let after = |id: &&StatementId| self.log.last.as_ref().is_some_and(|last| *id > last);
        let turn = all.iter().filter(after).chain(all.iter().filter(|id| !after(id)));
        turn.take(PROOFS_MAX).copied().collect()
    }

    /// Takes in what the log has shown, in the order in which it did.
    pub(crate) fn take_log(
        &mut self,
        shown: Vec<Shown>,
        problem: Option<String>,
    ) -> Result<(), DatabaseError> {
        self.log.in_flight = false;
        let Asked::Log(policy) = self.log.asked.clone() else { return Ok(()) };
        let mut proven = BTreeSet::new();
        let mut problem = problem.map(|text| Problem { text, is_alarm: false });
        for one in shown {
            match log::take(&policy, self.log.known.as_ref(), &one) {
                Ok((newest, statement)) => {
                    if self.log.known.as_ref() != Some(&newest) {
                        // On the disk before anything rests on it.
                        self.database.set_fact(&fact_of(&policy), &one.note.to_string())?;
                        self.log.known = Some(newest);
                    }
                    proven.extend(statement);
                }
                Err(refused) => {
                    self.keep_fork(&policy, &refused, &one)?;
                    let (is_alarm, text) = (refused.is_alarm(), daemon::chain(&refused));
                    problem = Some(Problem { text, is_alarm });
                    if is_alarm {
                        break;
                    }
                }
            }
        }
        let is_news = problem.as_ref().map(|one| &one.text)
            != self.log.problem.as_ref().map(|before| &before.text);
        if let Some(problem) = problem.as_ref().filter(|_| is_news) {
            daemon::warn!("log: {}", problem.text);
        }
        self.log.problem = problem;
        self.note_proven(&proven)
    }

    /// Two lists of one length, both signed: nobody but the log can have made that.
    fn keep_fork(
        &mut self,
        policy: &Policy,
        refused: &Refused,
        shown: &Shown,
    ) -> Result<(), DatabaseError> {
        let name = format!("fork {}", policy.origin());
        if !matches!(refused, Refused::Forked { .. }) || self.database.fact(&name)?.is_some() {
            return Ok(());
        }
        let before = self.database.fact(&fact_of(policy))?.unwrap_or_default();
        daemon::error!("log: a fork: {before:?} and {:?}", shown.note.to_string());
        self.database.set_fact(&name, &format!("{before}\n{}", shown.note))
    }

    fn note_proven(&mut self, proven: &BTreeSet<StatementId>) -> Result<(), DatabaseError> {
        let concerned: Vec<ContractId> = self
            .contracts
            .values()
            .filter(|kept| kept.bundle.unlogged().iter().any(|id| proven.contains(id)))
            .map(|kept| kept.id)
            .collect();
        for id in concerned {
            let Some(mut kept) = self.contracts.remove(&id) else { continue };
            if let Logged::Only { settled, ids } = kept.bundle.known_logged().clone() {
                let more = kept.bundle.unlogged().iter().filter(|id| proven.contains(id)).copied();
                let ids = ids.into_iter().chain(more).collect();
                kept.bundle = kept.bundle.logged(Logged::Only { settled, ids });
            }
            let settled = self.settle(&mut kept);
            self.contracts.insert(id, kept);
            self.judged_ms = None;
            settled?;
        }
        Ok(())
    }

    /// What is in force by what was proven stays proven, also for the next contractd.
    pub(super) fn settle(&mut self, kept: &mut Kept) -> Result<(), DatabaseError> {
        let Logged::Only { settled, ids } = kept.bundle.known_logged() else { return Ok(()) };
        let version = kept.bundle.in_force();
        if version <= *settled {
            return Ok(());
        }
        let ids = ids.clone();
        self.database.note_logged(&kept.id, version)?;
        kept.logged = kept.logged.max(version);
        kept.past.version = kept.past.version.max(version);
        kept.bundle = kept.bundle.logged(Logged::Only { settled: version, ids });
        Ok(())
    }
}
