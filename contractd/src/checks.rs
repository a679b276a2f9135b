//! Which containers are asked now whether they work, and what became of the answers. Pure: `probe`
//! asks, `container::health` says what an answer means.
//!
//! Of each container one question is open at most. What is known is of one process: it goes with
//! it, and an answer that was meant for a process before says nothing.

use crate::plan::{Have, Kind, Phase, Want};
use container::health::{self, Bad, State};
use contract::workload::Health;
use node_api::init::ProcessState;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Somebody is to be asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    /// Of the container.
    pub(crate) id: String,
    /// When its process was started, which tells it from those before.
    pub(crate) since_ms: u64,
    pub(crate) address: IpAddr,
    pub(crate) health: Health,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) since_ms: u64,
    pub(crate) outcome: Outcome,
}

/// What an answer is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Good,
    Bad(Bad),
    /// None: the node could not ask, for this reason, which is no fault of the container.
    Unasked(String),
}

impl From<Result<(), Bad>> for Outcome {
    fn from(judged: Result<(), Bad>) -> Self {
        judged.map_or_else(Self::Bad, |()| Self::Good)
    }
}

/// Everything that is asked, by id.
#[derive(Debug, Default)]
pub(crate) struct Checks(BTreeMap<String, Check>);

#[derive(Debug)]
struct Check {
    since_ms: u64,
    health: Health,
    state: State,
    turn: Turn,
    /// Why it is unhealthy.
    fault: Option<String>,
}

/// Whose turn it is, in milliseconds of the boot clock.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Ours, from then on.
    Ask(u64),
    /// The container's: it was asked then.
    Answer(u64),
}

impl Checks {
    /// Takes in an answer.
    pub(crate) fn take(&mut self, answer: &Answer) {
        let Some(check) = self.0.get_mut(&answer.id) else { return };
        let Turn::Answer(asked_ms) = check.turn else { return };
        if check.since_ms != answer.since_ms {
            return;
        }
        let up = Duration::from_millis(asked_ms.saturating_sub(check.since_ms));
        let answered = match &answer.outcome {
            Outcome::Good => Some(Ok(())),
            Outcome::Bad(bad) => Some(Err(bad)),
            Outcome::Unasked(_) => None,
        };
        if let Some(answered) = answered {
            check.state = health::next(&check.health, check.state, up, answered);
        }
        if let (State::Unhealthy, Some(Err(bad))) = (check.state, answered) {
            check.fault = Some(health::fault(&check.health, bad));
        }
        check.turn = Turn::Ask(check.next_ms(asked_ms));
    }

    /// Follows what runs, and gives whom to ask now.
    pub(crate) fn follow(&mut self, wants: &[Want], have: &Have) -> Vec<Question> {
        let mut checked: BTreeMap<&str, (&Health, u64, bool)> = BTreeMap::new();
        for want in wants {
            if let Some((health, since_ms, passed)) = checkable(want, have) {
                checked.insert(&want.id, (health, since_ms, passed));
            }
        }
        self.0.retain(|id, check| {
            checked.get(id.as_str()).is_some_and(|(_, since_ms, _)| *since_ms == check.since_ms)
        });
        let mut questions = Vec::new();
        for (id, (health, since_ms, passed)) in checked {
            let new = || Check::new(health, since_ms, passed);
            let check = self.0.entry(id.to_owned()).or_insert_with(new);
            let due = matches!(check.turn, Turn::Ask(at_ms) if at_ms <= have.now_ms);
            // Without an address, netd has lost the container: that is no fault of its own.
            if let (true, None, Some(address)) = (due, &check.fault, have.attachments.get(id)) {
                check.turn = Turn::Answer(have.now_ms);
                let (id, health) = (id.to_owned(), health.clone());
                questions.push(Question { id, since_ms, address: *address, health });
            }
        }
        questions
    }

    /// The containers that work.
    pub(crate) fn healthy(&self) -> impl Iterator<Item = &String> {
        let is_healthy = |check: &Check| matches!(check.state, State::Healthy(_));
        self.0.iter().filter(move |(_, check)| is_healthy(check)).map(|(id, _)| id)
    }

    /// The containers that do not, each with the reason.
    pub(crate) fn faults(&self) -> BTreeMap<String, String> {
        let fault = |(id, check): (&String, &Check)| Some((id.clone(), check.fault.clone()?));
        self.0.iter().filter_map(fault).collect()
    }
}

impl Check {
    /// Of one that had passed before contractd was started again, and is asked at once.
    fn new(health: &Health, since_ms: u64, passed: bool) -> Self {
        let state = if passed { State::Healthy(0) } else { State::Starting(0) };
        let health = health.clone();
        let mut check = Self { since_ms, health, state, turn: Turn::Ask(since_ms), fault: None };
        if !passed {
            check.turn = Turn::Ask(check.next_ms(since_ms));
        }
        check
    }

    /// When it is asked again that was asked, or started, then.
    fn next_ms(&self, asked_ms: u64) -> u64 {
        let up = Duration::from_millis(asked_ms.saturating_sub(self.since_ms));
        let interval = health::interval(&self.health, self.state, up);
        asked_ms.saturating_add(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The check of a container that runs as it is wanted, since when it runs, and whether it has passed.
fn checkable<'w>(want: &'w Want, have: &Have) -> Option<(&'w Health, u64, bool)> {
    let Kind::Container { container, revision, .. } = &want.kind else { return None };
    let health = container.health.as_deref()?;
    let run = have.runs.get(&want.id).filter(|run| run.revision == *revision)?;
    let Phase::Up { since_ms } = run.phase else { return None };
    let runs = have.processes.get(&want.id) == Some(&ProcessState::Running);
    runs.then_some((health, since_ms, run.passed))
}

#[cfg(test)]
mod tests;
