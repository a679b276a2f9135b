//! What is done about containers that work, and those that do not, or whose files are damaged.

use super::Reconciler;
use crate::{
    checks::{Answer, Outcome, Question},
    database::DatabaseError,
    node_calls,
    plan::{Cause, Have, Phase, Want},
    probe::By,
};
use contract::workload::Probe;

/// What is said of a container that could not be asked begins so.
const ABOUT: &str = "health check of ";

impl Reconciler {
    /// Takes in what containers have answered. Before the look at the node: one that has ended since it
    /// answered is seen to have.
    pub(super) fn hear_containers(&mut self) {
        // Of each container at most one answer is on its way.
        while let Ok(answer) = self.probes.answers.try_recv() {
            self.take_answer(&answer);
        }
    }

    /// Sees what the answers mean, and asks those whose time has come.
    pub(super) fn look_at_health(
        &mut self,
        wants: &[Want],
        have: &mut Have,
    ) -> Result<(), DatabaseError> {
        let lives = |id: &str| have.processes.contains_key(id);
        self.commands.retain(|id, _| lives(id));
        self.complaints.retain(|about, _| about.strip_prefix(ABOUT).is_none_or(lives));
        for question in self.checks.follow(wants, have) {
            match self.by(&question, wants, have) {
                // The thread of the probes ends only with the process.
                Ok(by) => drop(self.probes.questions.send((question, by))),
                Err(why) => {
                    let Question { id, since_ms, .. } = question;
                    self.take_answer(&Answer { id, since_ms, outcome: Outcome::Unasked(why) });
                }
            }
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

    fn take_answer(&mut self, answer: &Answer) {
        let about = format!("{ABOUT}{}", answer.id);
        match &answer.outcome {
            Outcome::Good | Outcome::Bad(_) => drop(self.complaints.remove(&about)),
            Outcome::Unasked(why) => self.complain(&about, why.clone()),
        }
        self.checks.take(answer);
    }

    /// How a container is asked. What a command needs to know is looked for once in the life of a process:
    /// the flist may be large.
    fn by(&mut self, question: &Question, wants: &[Want], have: &Have) -> Result<By, String> {
        let Probe::Exec { command } = &question.health.probe else { return Ok(By::Network) };
        let Question { id, since_ms, health, .. } = question;
        if let Some((of, known)) = self.commands.get(id)
            && of == since_ms
        {
            return Ok(By::Command(Box::new(known.clone())));
        }
        let want = wants.iter().find(|want| want.id == *id);
        let (Some(want), Some(pid)) = (want, have.pids.get(id)) else {
            return Err("it has no process".to_owned());
        };
        let check = node_calls::command(want, &self.store, *pid, (command, health.timeout_s))
            .map_err(|error| format!("{}: {}", error.code, error.message))?;
        self.commands.insert(id.clone(), (*since_ms, check.clone()));
        Ok(By::Command(Box::new(check)))
    }
}
