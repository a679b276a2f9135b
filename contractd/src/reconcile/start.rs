//! The life of one container: started, written down, reaped.

use super::Reconciler;
use crate::{
    clock,
    database::DatabaseError,
    jobs, judge, node_calls,
    plan::{self, Fault, Have, Kind, Phase, Run, STORE_DAMAGED, Want},
};
use contract::{FlistId, Timestamp, report::Ran};
use node_api::{
    init::{self, ProcessState},
    paths,
};
use std::{collections::BTreeMap, mem, path::Path, time::Duration};

impl Reconciler {
    /// Starts a container, and writes down what became of it.
    pub(super) fn start(&mut self, want: &Want, have: &Have) -> Result<(), DatabaseError> {
        let Kind::Container { container, flist, publisher, revision, volumes, .. } = &want.kind
        else {
            return Ok(());
        };
        // The verdict once more, on the bytes that are kept, at the moment of the start.
        let now = clock::now().unwrap_or(Timestamp::from_seconds(0));
        let kept = self.contracts.get(&want.contract);
        if !kept.is_some_and(|kept| judge::still_runs(kept, &self.trust, now))
            || !self.releases.allow(want.contract, *flist, publisher.as_deref(), now)
        {
            return Ok(());
        }
        if publisher.is_some() {
            self.note_begun(want.contract, *flist)?;
        }
        // Written down first: if this process ends before the launcher answers, the next one finds a
        // container that runs as it is wanted, and leaves it alone.
        let previous = self.runs.get(&want.id);
        let mut run =
            plan::intent(&self.boot, revision, (container, *flist, volumes), previous, have.now_ms);
        let announced = plan::announced(previous);
        self.runs.insert(want.id.clone(), run.clone());
        self.save_run(&want.id)?;
        let outcome = self.id_base(&want.id)?.and_then(|id_base| {
            let mut directories = BTreeMap::new();
            for (name, id) in volumes {
                let size = have.volumes.get(id).copied().unwrap_or(0);
                let medium = contract::workload::Medium::Hdd;
                directories.insert(name.clone(), node_calls::volume(id, size, medium)?);
            }
            let disks = node_calls::disks(container, directories.values())?;
            node_calls::start(want, &self.store, id_base, directories, disks)
        });
        match outcome {
            Ok(started) => {
                daemon::info!("started {}", want.id);
                run.ran = Some(Ran {
                    flist: *flist,
                    image: FlistId(started.image_digest),
                    entrypoint: started.entrypoint_digest.parse().unwrap_or(FlistId([0; 32])),
                    files: started.files,
                });
            }
            Err(error) => {
                daemon::warn!("starting {}: {}: {}", want.id, error.code, error.message);
                if node_calls::DAMAGE.contains(&error.code.as_str()) {
                    self.distrust(*flist);
                } else if node_calls::PERHAPS_DAMAGE.contains(&error.code.as_str()) {
                    self.rounds.suspect(*flist);
                }
                let delay = restart_delay(run.delay_ms, 0);
                run.delay_ms = Some(delay);
                let until_ms = have.now_ms.saturating_add(delay);
                // The later one: when it was tried, there was no process of the one before.
                run.announced = if error.is_open { Some(Box::new(run.clone())) } else { announced };
                let (code, message) = (error.code, error.message);
                run.phase = Phase::Waiting { until_ms, code, message };
            }
        }
        self.runs.insert(want.id.clone(), run);
        self.save_run(&want.id)
    }

    /// The user ids of a workload: given once, kept as long as the node knows the workload.
    fn id_base(&self, id: &str) -> Result<Result<u32, node_calls::StartError>, DatabaseError> {
        let mut table = self.database.user_ids()?;
        match container::ids::base(&table, id) {
            Ok(base) => {
                if table.insert(id.to_owned(), base).is_none() {
                    self.database.set_user_ids(&table)?;
                }
                Ok(Ok(base))
            }
            Err(error) => Ok(Err(node_calls::StartError::new("ids_exhausted", error.to_string()))),
        }
    }

    /// Takes note of containers whose start succeeded after it was given up on. What was blamed on one
    /// meanwhile holds for what runs: it may have its files open as they were.
    pub(super) fn note_risen(&mut self, have: &Have) -> Result<(), DatabaseError> {
        for id in plan::risen(have, &self.runs) {
            if let Some(run) = self.runs.get_mut(&id) {
                let announced = run.announced.take().map_or_else(|| run.clone(), |one| *one);
                let up = Run { phase: Phase::Up { since_ms: have.now_ms }, ..announced };
                if let Phase::Waiting { code, message, .. } = mem::replace(run, up).phase
                    && code == STORE_DAMAGED
                {
                    self.spoilt.insert(id.clone(), message);
                }
            }
            self.save_run(&id)?;
        }
        Ok(())
    }

    /// Takes note of an ended process.
    pub(super) fn reap(
        &mut self,
        id: &str,
        state: ProcessState,
        wanted: bool,
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        // The cgroup goes with init's entry.
        let limit = container::usage::read(&Path::new(paths::CGROUP_WORK).join(id))
            .ok()
            .and_then(|usage| usage.limit_met());
        let ended = match state {
            ProcessState::Exited(code) => format!("its program returned {code}"),
            ProcessState::Killed(signal) => format!("its program was ended by signal {signal}"),
            ProcessState::Running => return Ok(()),
        };
        let ended = match limit {
            Some(limit) => format!("{ended}; {limit}"),
            None => ended,
        };
        let ran = self.ran_to_its_end(id).filter(|_| wanted && state != ProcessState::Exited(0));
        let over = self.runs.get(id).and_then(|run| jobs::ended(run, state, &ended));
        if let Some(over) = &over {
            // Known before the call, which may be done although it fails: then there is no process any more,
            // and what was up without one would be started.
            self.runs.insert(id.to_owned(), over.clone());
            self.save_run(id)?;
        }
        // Counted once: when init still has the entry, it comes again with the next look.
        if !self.call(id, paths::INIT_SOCKET, &init::Forget { id: id.to_owned() }) {
            return Ok(());
        }
        daemon::info!("{id}: {ended}");
        // A program that cannot read its own pages ends in many ways.
        if let Some(ran) = ran {
            self.rounds.suspect(ran);
        }
        if over.is_some() {
            return Ok(());
        }
        let run = self.runs.remove(id).filter(|_| wanted);
        if let Some(mut run) = run.and_then(|run| reaped(run, ended, now_ms)) {
            // It has ended before it could be stopped.
            if let Some(text) = self.spoilt.remove(id) {
                blame(&mut run.phase, &text);
            }
            self.runs.insert(id.to_owned(), run);
        }
        self.save_run(id)
    }

    /// What ran that nobody has asked to end.
    fn ran_to_its_end(&self, id: &str) -> Option<FlistId> {
        self.runs.get(id).filter(|run| matches!(run.phase, Phase::Up { .. }))?.flist
    }

    pub(super) fn save_run(&self, id: &str) -> Result<(), DatabaseError> {
        self.record_run(id, self.runs.get(id))
    }

    pub(super) fn record_run(&self, id: &str, run: Option<&Run>) -> Result<(), DatabaseError> {
        let run = run.map(|run| serde_json::to_string(run).expect("a run is strings and numbers"));
        self.database.set_run(id, run.as_deref())
    }
}

/// Takes note of bad files as what a container waits for. It may have ended for that; nobody can say so
/// for certain. Says whether that is news.
pub(super) fn blame(phase: &mut Phase, text: &str) -> bool {
    match phase {
        Phase::Waiting { code, message, .. } if code != STORE_DAMAGED => {
            *message = format!("{text}; before that, {code}: {message}");
            STORE_DAMAGED.clone_into(code);
            true
        }
        Phase::Waiting { .. } | Phase::Up { .. } | Phase::Stopping { .. } | Phase::Over { .. } => {
            false
        }
    }
}

/// What is remembered of a container that is wanted, when its process has ended.
fn reaped(mut run: Run, ended: String, now_ms: u64) -> Option<Run> {
    let (up_ms, code, message) = match run.phase {
        Phase::Up { since_ms } => (now_ms.saturating_sub(since_ms), "exited", ended),
        Phase::Stopping { fault: Some(Fault { cause, message, up_ms }), .. } => {
            (up_ms, cause.code(), message)
        }
        // Its start has failed, and is tried again after the wait that follows from that.
        Phase::Waiting { .. } | Phase::Over { .. } => return Some(run),
        // Stopped on purpose: nothing is held against the next start.
        Phase::Stopping { fault: None, .. } => return None,
    };
    let delay = restart_delay(run.delay_ms, up_ms);
    run.delay_ms = Some(delay);
    let until_ms = now_ms.saturating_add(delay);
    run.phase = Phase::Waiting { until_ms, code: code.to_owned(), message };
    Some(run)
}

/// Milliseconds to wait before the next start of a container that was up for so long.
fn restart_delay(previous_ms: Option<u64>, up_ms: u64) -> u64 {
    let previous = previous_ms.map(Duration::from_millis);
    let delay = container::restart::next(previous, Duration::from_millis(up_ms));
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Cause, Stop};

    #[test]
    fn only_a_container_that_was_stopped_starts_again_without_a_wait() {
        let check = |phase: Phase, wanted: Option<(u64, &str)>| {
            let stop = Stop { signal: 15, grace_ms: 1 };
            let run = Run {
                boot: String::new(),
                revision: String::new(),
                flist: None,
                phase,
                delay_ms: Some(2000),
                stop,
                restart: contract::workload::Restart::Always,
                volumes: None,
                passed: true,
                ran: None,
                strains: crate::strain::Strains::default(),
                announced: None,
            };
            let waits = match reaped(run, "its program returned 1".into(), 10_000) {
                None => None,
                Some(Run { phase: Phase::Waiting { until_ms, code, .. }, .. }) => {
                    Some((until_ms, code))
                }
                Some(other) => panic!("{other:?}"),
            };
            assert_eq!(waits, wanted.map(|(until_ms, code)| (until_ms, code.to_owned())));
        };
        check(Phase::Up { since_ms: 9_000 }, Some((14_000, "exited")));
        check(Phase::Stopping { kill_at_ms: 11_000, fault: None }, None);
        // One that did not work had been up for some time, or for none.
        let stopped = |cause, up_ms| Phase::Stopping {
            kill_at_ms: 11_000,
            fault: Some(Fault { cause, message: "no connection".to_owned(), up_ms }),
        };
        check(stopped(Cause::Unhealthy, 0), Some((14_000, "unhealthy")));
        check(stopped(Cause::Unhealthy, 60_000), Some((11_000, "unhealthy")));
        check(stopped(Cause::Damaged, 60_000), Some((11_000, "store_damaged")));
        let (code, message) = ("exec_failed".to_owned(), String::new());
        check(Phase::Waiting { until_ms: 12_000, code, message }, Some((12_000, "exec_failed")));
    }

    /// One that failed again before it was stopped said that it had exited, and not that its files were bad.
    #[test]
    fn bad_files_are_blamed_once_and_what_was_said_before_stays() {
        let (code, message) = ("exited".to_owned(), "by signal 7".to_owned());
        let mut phase = Phase::Waiting { until_ms: 5, code, message };
        assert!(blame(&mut phase, "/bin/web cannot be read"));
        let message = "/bin/web cannot be read; before that, exited: by signal 7".to_owned();
        let told = Phase::Waiting { until_ms: 5, code: "store_damaged".to_owned(), message };
        assert_eq!(phase, told);
        assert!(!blame(&mut phase, "/bin/web cannot be read"));
        assert_eq!(phase, told);
        assert!(!blame(&mut Phase::Up { since_ms: 1 }, "it is stopped instead"));
    }
}
