//! Asks the log for what a contract needs to start, and looks now and then whether it only grew.
//!
//! What the log shows is written down before it counts. What is not taken proves nothing, and stops
//! nothing that was proven before.

use super::Reconciler;
use crate::{
    console::fact,
    database::{DatabaseError, Kept, LOG_HELD},
    log::{self, Asked, Past, Refused, Terms},
    network::{CarriedLog, Order},
};
use contract::{ContractId, Logged, StatementId, Timestamp};
use node_api::init::{Fact, Level};
use registry_api::log::{Known, Shown};
use std::collections::{BTreeMap, BTreeSet};
use tlog::{Note, Policy};

/// How often the log is looked at when nothing is to be proven.
const LOOK_MS: u64 = 30_000;
/// And at first when something is.
const PROVE_MS: u64 = 2_000;
/// Proofs that are asked for at once; the next ones with the next look.
const PROOFS_MAX: usize = 128;

/// What the node knows of the log.
#[derive(Debug)]
pub(crate) struct Watch {
    asked: Asked,
    past: Past,
    problem: Option<Problem>,
    /// What was asked for in vain, by the number of the look: whatever never comes into the log keeps
    /// nothing else waiting, and has its turn.
    missed: BTreeMap<(By, StatementId), u64>,
    n_looks: u64,
    in_flight: bool,
    /// The same for carriers, of which one may be slow.
    carriers_in_flight: bool,
    /// Entries of the largest list that a registry has shown: a carrier may have shown a larger one.
    by_registry: u64,
    /// Until the next look, when something is to be proven: grows while nothing is.
    pause_ms: u64,
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
        Self {
            asked: Asked::No,
            past: Past::default(),
            problem: None,
            missed: BTreeMap::new(),
            n_looks: 0,
            in_flight: false,
            carriers_in_flight: false,
            by_registry: 0,
            pause_ms: PROVE_MS,
            look_at_ms: 0,
        }
    }
}

impl Watch {
    /// What is known of a contract that is new, or was read from the disk.
    pub(super) fn logged(&self, settled: u64) -> Logged {
        self.asked.logged(settled)
    }

    /// The log is asked again at once, if anything is to be proven.
    pub(super) fn look_soon(&mut self) {
        self.pause_ms = PROVE_MS;
        self.look_at_ms = 0;
    }

    /// What ails the log, as a sentence that the node signs. It is always the same, so that nobody makes
    /// the node sign another with each of his answers.
    pub(crate) fn alarm(&self) -> Option<String> {
        match (&self.asked, &self.problem) {
            (Asked::Unclear(why), _) => {
                Some(format!("no log can be asked: {}", daemon::chain(why)))
            }
            (Asked::Log(_), Some(Problem { is_alarm: true, .. })) if self.past.unheld.is_some() => {
                Some(
                    "nothing new starts: the log is not shown to continue zos.checkpoint"
                        .to_owned(),
                )
            }
            (Asked::Log(_), Some(Problem { is_alarm: true, .. })) => {
                Some("nothing new starts: the log does not continue what it has shown".to_owned())
            }
            (Asked::No | Asked::Log(_), _) => None,
        }
    }

    /// The same for the screen, whatever there is to say.
    pub(crate) fn fact(&self) -> Fact {
        match (&self.asked, &self.problem, self.alarm()) {
            (_, Some(problem), Some(_)) => {
                fact("log", format!("nothing new starts: {}", problem.text), Level::Bad)
            }
            (_, None, Some(alarm)) => fact("log", alarm, Level::Bad),
            (Asked::No | Asked::Unclear(_), ..) => {
                fact("log", "not asked: contracts start without proof of it", Level::Plain)
            }
            (Asked::Log(_), Some(problem), None) => fact("log", &problem.text, Level::Warning),
            (Asked::Log(terms), None, None) => {
                let origin = terms.policy.origin();
                match (&self.past.newest, &self.past.unheld) {
                    (Some(_), None) => {
                        fact("log", format!("what starts is in {origin}"), Level::Good)
                    }
                    _ => fact("log", format!("asking {origin}"), Level::Plain),
                }
            }
        }
    }
}

/// Who shows something of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// A registry, which was asked.
    Registry,
    /// A carrier: what it has is as old as it is, and that it is old speaks against nobody.
    Carrier,
}

impl By {
    fn is_alarmed(self, refused: &Refused, by_registry: u64) -> bool {
        match (self, refused) {
            // It is behind a carrier, which may have been to another one.
            (Self::Registry, Refused::Smaller { found, .. }) => *found < by_registry,
            (Self::Registry, _) => refused.is_alarm(),
            // Both are signed, whoever shows them.
            (Self::Carrier, _) => matches!(refused, Refused::Forked { .. }),
        }
    }
}

/// Where the newest checkpoint of a log stands among the facts.
fn fact_of(policy: &Policy) -> String {
    format!("checkpoint {}", policy.origin())
}

/// And how many entries a registry has shown of it.
fn by_registry_of(policy: &Policy) -> String {
    format!("by registry {}", policy.origin())
}

impl Reconciler {
    /// From now on only what is in this log starts anything.
    pub(crate) fn ask_log(&mut self, asked: Asked) -> Result<(), DatabaseError> {
        let mut past = Past::default();
        let mut by_registry = 0;
        if let Asked::Log(terms) = &asked {
            let Terms { policy, pinned, .. } = &**terms;
            if !self.database.ask_log(&log::keys(policy))? {
                self.contracts.values_mut().for_each(|kept| kept.logged = 0);
            }
            let written = self.database.fact(&fact_of(policy))?.unwrap_or_default();
            let held = self.database.fact(LOG_HELD)?;
            let counted = self.database.fact(&by_registry_of(policy))?;
            past = Past {
                newest: log::written(policy, &written),
                seen: log::seen(policy, &written),
                unheld: pinned.clone().filter(|pinned| held != Some(pinned.to_string())),
            };
            // An image before knew no carriers.
            by_registry = past.newest.as_ref().map_or(0, |newest| {
                let counted = counted.and_then(|text| text.parse().ok());
                newest.size.min(counted.unwrap_or(u64::MAX))
            });
        }
        self.log = Watch { asked, past, by_registry, ..Watch::default() };
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
        let statements = self.unlogged(By::Registry);
        if statements.is_empty() {
            self.log.pause_ms = PROVE_MS;
            self.complaints.remove("carried log");
        }
        let is_due = now_ms >= self.log.look_at_ms;
        // The first proofs of a contract wait for nothing but the last answer.
        let is_new = self.log.problem.is_none() && !statements.is_empty();
        if !is_due && !is_new {
            return;
        }
        let wait = if statements.is_empty() { LOOK_MS } else { self.log.pause_ms };
        self.log.look_at_ms = now_ms.saturating_add(wait);
        self.log.in_flight = true;
        self.order(Order::Log { known: self.known(), statements });
    }

    /// What was taken of the log, whatever somebody has shown.
    fn known(&self) -> Known {
        let Past { newest, unheld, .. } = &self.log.past;
        Known {
            size: newest.as_ref().map_or(0, |newest| newest.size),
            pinned: unheld.as_ref().map(|unheld| unheld.size),
        }
    }

    /// Asks carriers for what has no proof yet, one time after the other.
    fn look_at_carriers(&mut self) {
        let statements = self.unlogged(By::Carrier);
        if !statements.is_empty() && !self.log.carriers_in_flight {
            self.log.carriers_in_flight = true;
            self.order(Order::CarriedLog { known: self.known(), statements });
        }
    }

    /// Some of the statements that need a proof, those first that were never missed; the others follow.
    fn unlogged(&self, by: By) -> Vec<StatementId> {
        let all = self.contracts.values().flat_map(|kept| kept.bundle.unlogged()).copied();
        let turns: BTreeSet<_> =
            all.map(|id| (self.log.missed.get(&(by, id)).copied(), id)).collect();
        turns.into_iter().take(PROOFS_MAX).map(|(_, id)| id).collect()
    }

    /// Takes in what the log has shown, in the order in which it did.
    pub(crate) fn take_log(
        &mut self,
        shown: Vec<Shown>,
        asked: &[StatementId],
        problem: Option<String>,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        self.log.in_flight = false;
        self.log.n_looks += 1;
        self.log.pause_ms = self.log.pause_ms.saturating_mul(2).min(LOOK_MS);
        self.take_shown(By::Registry, shown, asked, problem, now)?;
        self.look_at_carriers();
        Ok(())
    }

    /// Takes in what carriers have of the log. One that has nothing new, or nothing right, proves
    /// nothing, and is no reason to be alarmed, unless the log has signed two lists of one length.
    pub(crate) fn take_carried_log(
        &mut self,
        shown: Vec<CarriedLog>,
        asked: &[StatementId],
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        self.log.carriers_in_flight = false;
        let mut problems = Vec::new();
        for CarriedLog { by, shown, problem } in shown {
            let problem = self.take_shown(By::Carrier, shown, asked, problem, now)?;
            problems.extend(problem.map(|text| format!("{by}: {text}")));
        }
        if problems.is_empty() {
            self.complaints.remove("carried log");
        } else {
            self.complain("carried log", problems.join("; "));
        }
        Ok(())
    }

    /// Returns what is wrong with what a carrier shows.
    fn take_shown(
        &mut self,
        by: By,
        shown: Vec<Shown>,
        asked: &[StatementId],
        problem: Option<String>,
        now: Timestamp,
    ) -> Result<Option<String>, DatabaseError> {
        let Asked::Log(terms) = self.log.asked.clone() else { return Ok(None) };
        let policy = &terms.policy;
        let mut by_registry = self.log.by_registry;
        let mut proven = BTreeSet::new();
        let mut problem = problem.map(|text| Problem { text, is_alarm: false });
        let mut past = self.log.past.clone();
        let mut newest = None;
        let mut is_taken = false;
        for one in shown {
            let refused = match log::take(&terms, &past, &one, now) {
                Ok(taken) => {
                    is_taken = true;
                    past.unheld = None;
                    past.seen = past.seen.max(taken.seen);
                    if by == By::Registry {
                        by_registry = taken.newest.size;
                    }
                    if past.newest.as_ref() != Some(&taken.newest) {
                        past.newest = Some(taken.newest);
                        newest = Some(one.note);
                    }
                    match taken.proven {
                        Ok(statement) => {
                            proven.extend(statement);
                            continue;
                        }
                        Err(refused) => refused,
                    }
                }
                Err(refused) => {
                    if let Refused::Forked { .. } = refused {
                        self.keep_fork(policy, newest.as_ref(), &one.note)?;
                    }
                    refused
                }
            };
            let is_alarm = by.is_alarmed(&refused, by_registry);
            // The log was asked before something newer was taken; it is asked again.
            if by == By::Carrier && matches!(refused, Refused::Late { .. }) {
                continue;
            }
            problem = Some(Problem { text: daemon::chain(&refused), is_alarm });
            if is_alarm {
                break;
            }
        }
        // On the disk before anything rests on it.
        let (name, held) = (fact_of(policy), self.log.past.unheld.as_ref());
        let held = held.filter(|_| past.unheld.is_none());
        let counted = by_registry_of(policy);
        let is_counted = by_registry != self.log.by_registry || newest.is_some();
        let facts: Vec<(&str, String)> = [
            newest.map(|newest| (name.as_str(), newest.to_string())),
            held.map(|held| (LOG_HELD, held.to_string())),
            is_counted.then(|| (counted.as_str(), by_registry.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !facts.is_empty() {
            let kept = self.database.set_facts(&facts);
            if !self.is_written(kept)? {
                let text = "what the log shows cannot be written down".to_owned();
                self.note_problem(Some(Problem { text, is_alarm: false }), false);
                return Ok(None);
            }
        }
        self.log.past = past;
        self.log.by_registry = by_registry;
        if !proven.is_empty() {
            self.log.pause_ms = PROVE_MS;
        }
        let mut of_carrier = None;
        match (by, problem) {
            (By::Carrier, Some(Problem { text, is_alarm: false })) => of_carrier = Some(text),
            (By::Carrier, None) => {}
            // An alarm ends when a registry shows what is known, and not by a carrier.
            (By::Carrier, problem) => self.note_problem(problem, false),
            (By::Registry, problem) => self.note_problem(problem, is_taken),
        }
        let n_looks = self.log.n_looks;
        self.log.missed.extend(asked.iter().map(|id| ((by, *id), n_looks)));
        self.note_proven(&proven)?;
        let wanted: BTreeSet<StatementId> =
            self.contracts.values().flat_map(|kept| kept.bundle.unlogged()).copied().collect();
        self.log.missed.retain(|(_, id), _| wanted.contains(id));
        Ok(of_carrier)
    }

    /// An alarm ends when the log shows again what is known, and not by silence.
    fn note_problem(&mut self, problem: Option<Problem>, is_taken: bool) {
        let before = self.log.problem.take();
        let stays = !is_taken
            && before.as_ref().is_some_and(|before| before.is_alarm)
            && !problem.as_ref().is_some_and(|problem| problem.is_alarm);
        let problem = if stays {
            before
        } else {
            let is_news =
                problem.as_ref().map(|one| &one.text) != before.as_ref().map(|one| &one.text);
            if let Some(problem) = problem.as_ref().filter(|_| is_news) {
                daemon::warn!("log: {}", problem.text);
            }
            problem
        };
        self.log.problem = problem;
    }

    /// Two lists of one length, both signed: nobody but the log can have made that.
    fn keep_fork(
        &mut self,
        policy: &Policy,
        newest: Option<&Note>,
        other: &Note,
    ) -> Result<(), DatabaseError> {
        let name = format!("fork {}", policy.origin());
        if self.database.fact(&name)?.is_some() {
            return Ok(());
        }
        let written = self.database.fact(&fact_of(policy))?.unwrap_or_default();
        let before = newest.map_or(written, Note::to_string);
        daemon::error!("log: a fork: {before:?} and {:?}", other.to_string());
        let kept = self.database.set_fact(&name, &format!("{before}\n{other}"));
        self.is_written(kept).map(drop)
    }

    /// A disk that is full, or fails, is no reason to begin anew: what could not be written down is
    /// asked for again.
    fn is_written(&mut self, outcome: Result<(), DatabaseError>) -> Result<bool, DatabaseError> {
        match outcome {
            Err(error) if !error.is_damage() => {
                self.complain("state", daemon::chain(&error));
                Ok(false)
            }
            outcome => {
                self.complaints.remove("state");
                outcome.map(|()| true)
            }
        }
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
        let noted = self.database.note_logged(&kept.id, version);
        if !self.is_written(noted)? {
            return Ok(());
        }
        kept.logged = kept.logged.max(version);
        kept.past.version = kept.past.version.max(version);
        kept.bundle = kept.bundle.logged(Logged::Only { settled: version, ids });
        Ok(())
    }
}
