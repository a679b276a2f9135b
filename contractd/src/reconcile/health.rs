//! What is done about containers that work, and those that do not.

use super::Reconciler;
use crate::{
    database::DatabaseError,
    plan::{Have, Want},
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
        have.faults = self.checks.faults();
        Ok(())
    }
}
