//! Containers that are not started again when they have ended. Pure: decides what is kept of one.
//!
//! ```text
//!               returned 0 │ ended otherwise │ stopped by the node   │ the node went down
//! on_failure:   over, well │ started again   │ started again         │ started again
//! never:        over, well │ over, badly     │ over, badly           │ over, badly
//! ```
//!
//! So `on_failure` runs at least once to its end, and `never` is begun at most once. What is over is over
//! for the words that it was started with, and the bytes of its flist: a version of its contract that
//! changes them has it run again. It is written down before `init` forgets the process, and before a start
//! it is written down that there may be one, so that the end of this process between any two steps neither
//! runs a job twice nor forgets one.

use crate::plan::{End, Fault, Kind, Phase, Run, Want, prefix};
use contract::{ContractId, workload::Restart};
use node_api::init::ProcessState;
use std::collections::BTreeMap;

impl Run {
    /// Whether it is a job that is not started again.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }

    /// Whether it is over as it is wanted now.
    pub(crate) fn is_over_as(&self, revision: &str) -> bool {
        self.is_over() && self.revision == revision
    }

    fn over(&self, end: End, message: String) -> Self {
        Self {
            phase: Phase::Over { end, message },
            // Nobody waits for a good answer any more, or needs the files.
            passed: true,
            flist: None,
            announced: None,
            ..self.clone()
        }
    }
}

/// What is kept of a job whose process has ended, as `told`; `None`: it is no job, or is started again.
pub(crate) fn ended(run: &Run, state: ProcessState, told: &str) -> Option<Run> {
    match (&run.phase, run.restart) {
        (Phase::Over { .. }, _) => Some(run.clone()),
        // Of a start that was refused, the program was never executed.
        (_, Restart::Always) | (Phase::Waiting { .. }, _) => None,
        (Phase::Up { .. }, _) if state == ProcessState::Exited(0) => {
            Some(run.over(End::Well, told.to_owned()))
        }
        // Whatever it returned, when it was asked to end it may have been in the middle.
        (Phase::Up { .. } | Phase::Stopping { .. }, Restart::OnFailure) => None,
        (Phase::Up { .. }, Restart::Never) => Some(run.over(End::Badly, told.to_owned())),
        (Phase::Stopping { fault, .. }, Restart::Never) => {
            let fault = fault.as_ref().map(|Fault { message, .. }| format!("; {message}"));
            let why = fault.unwrap_or_default();
            Some(run.over(End::Badly, format!("the node stopped it: {told}{why}")))
        }
    }
}

/// What is of use in this boot of what was written down, perhaps in another.
pub(crate) fn in_this_boot(run: Run, boot: &str) -> Option<Run> {
    if run.boot == boot || run.is_over() {
        return Some(run);
    }
    let was_begun = run.restart == Restart::Never && may_have_begun(&run);
    let message = "the node went down before it had ended, or just as it was to begin";
    was_begun.then(|| run.over(End::Badly, message.to_owned()))
}

/// Whether it may have been executed as it is: a start that nobody has answered counts, whatever became of the
/// next ones.
fn may_have_begun(run: &Run) -> bool {
    match run.phase {
        Phase::Waiting { .. } => {
            run.announced.as_ref().is_some_and(|one| one.revision == run.revision)
        }
        Phase::Up { .. } | Phase::Stopping { .. } | Phase::Over { .. } => true,
    }
}

/// Ends of jobs that nobody asks for any more: their contract is not kept or has ended by an order, or its
/// version in force has no such container. While it may not run, it may again one day. `contracts` has
/// those that are kept and have not ended, and whether they may run.
pub(crate) fn unasked(
    runs: &BTreeMap<String, Run>,
    contracts: &BTreeMap<ContractId, bool>,
    wants: &[Want],
) -> Vec<String> {
    let is_wanted = |id: &str| {
        wants.iter().any(|want| want.id == id && matches!(want.kind, Kind::Container { .. }))
    };
    let is_asked = |id: &str| {
        let mut of = contracts.iter().filter(|(contract, _)| id.starts_with(&prefix(contract)));
        of.any(|(_, may_run)| !may_run || is_wanted(id))
    };
    let over = runs.iter().filter(|(_, run)| run.is_over());
    over.filter(|(id, _)| !is_asked(id)).map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests;
