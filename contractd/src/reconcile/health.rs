//! What is done about containers that work, and those that do not, or whose files are damaged.

use super::Reconciler;
use crate::{
    database::DatabaseError,
    plan::{Cause, Have, Phase, Want},
};

impl Reconciler {
    /// Takes in what containers have answered, and asks those whose time has come.
    pub(super) fn look_at_health(
        &mut self,
        wants: &[Want],
        have: &mut Have,
    ) -> Result<(), DatabaseError> {
        // Of each container at most one answer is on its way.
        while let Ok(answer) = self.probes.answers.try_recv() {
            self.checks.take(&answer);
        }
        for question in self.checks.follow(wants, have) {
            // The thread of the probes ends only with the process.
            drop(self.probes.questions.send(question));
        }
        let is_new = |id: &&String| self.runs.get(*id).is_some_and(|run| !run.passed);
        let passed: Vec<String> = self.checks.healthy().filter(is_new).cloned().collect();
        for id in passed {
            daemon::info!("{id}: its health check has passed");
            for runs in [&mut self.runs, &mut have.runs] {
                if let Some(run) = runs.get_mut(&id) {
                    run.passed = true;
                }
            }
            self.save_run(&id)?;
        }
        let faults = self.checks.faults().into_iter();
        have.faults = faults.map(|(id, message)| (id, (Cause::Unhealthy, message))).collect();
        let runs = &self.runs;
        let is_up =
            |id: &String| runs.get(id).is_some_and(|run| matches!(run.phase, Phase::Up { .. }));
        self.spoilt.retain(|id, _| is_up(id));
        let spoilt = self.spoilt.iter();
        have.faults.extend(spoilt.map(|(id, why)| (id.clone(), (Cause::Damaged, why.clone()))));
        Ok(())
    }
}
