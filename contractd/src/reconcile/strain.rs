//! Looks at what containers that run use and wait for; what strains them is in their status.

use super::Reconciler;
use crate::{
    database::DatabaseError,
    plan::{Have, Phase, Run},
    strain::LOOK_MS,
};
use container::usage;
use node_api::{init::ProcessState, paths};
use std::path::Path;

/// Containers that are looked at in one turn: a dozen small files each.
const LOOKS_MAX: usize = 32;

impl Reconciler {
    /// Looks at those that nobody has looked at for the longest time.
    pub(super) fn look_at_strains(&mut self, have: &Have) -> Result<(), DatabaseError> {
        let is_due = |(id, run): &(&String, &Run)| {
            matches!(run.phase, Phase::Up { .. })
                && have.processes.get(*id) == Some(&ProcessState::Running)
                && have.now_ms.saturating_sub(run.strains.looked_ms()) >= LOOK_MS
        };
        let due = self.runs.iter().filter(is_due);
        let mut due: Vec<(u64, String)> =
            due.map(|(id, run)| (run.strains.looked_ms(), id.clone())).collect();
        due.sort();
        for (_, id) in due.into_iter().take(LOOKS_MAX) {
            // One that cannot be seen now, because it is just ending, is not seen to have changed.
            let seen = usage::read(&Path::new(paths::CGROUP_WORK).join(&id)).ok();
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let mut next = run.clone();
            if !next.strains.look(have.now_ms, seen.as_ref()) {
                *run = next;
                continue;
            }
            // What is not on disk is not told: another contractd would tell it again. It can wait.
            let saved = self.record_run(&id, Some(&next));
            if self.bear("strains", saved)? {
                self.runs.insert(id, next);
            } else if let Some(run) = self.runs.get_mut(&id) {
                run.strains.look(have.now_ms, None);
            }
        }
        Ok(())
    }
}
