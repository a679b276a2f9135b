//! What there is to report: the state of each contract and of each of its workloads, in one word,
//! a code for programs and a sentence for people. Pure.

use crate::{
    contact,
    plan::{End, Files, Have, Kind, Phase, Want, prefix},
};
use contract::{
    ContractId, StatementId, Verdict,
    report::{Ran, State},
    verdict::Cause,
};
use node_api::init::ProcessState;
use std::collections::BTreeMap;

/// Code of a container that runs and has not passed its health check yet.
pub(crate) const STARTING: &str = "starting";
/// Codes of jobs that are over.
const RETURNED_0: &str = "returned_0";
pub(crate) const NOT_RESTARTED: &str = "not_restarted";

/// One line of status; changes of it are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) state: State,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) ran: Option<Ran>,
    /// Whether it holds in the next boot as well.
    pub(crate) is_final: bool,
}

impl Line {
    fn new(state: State, code: &str, message: impl Into<String>) -> Self {
        Self { state, code: code.to_owned(), message: message.into(), ran: None, is_final: false }
    }

    /// What must differ for a new result to be written.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:?} {} {}", self.state, self.code, self.message)
    }
}

/// The version that a verdict is about, and its header, when it says so.
pub(crate) fn version(verdict: &Verdict) -> (u64, Option<StatementId>) {
    match verdict {
        Verdict::Run(agreed) => (agreed.header.version, Some(agreed.header_id)),
        Verdict::Stop(ended) => (ended.version, Some(ended.header_id)),
        Verdict::Refuse(_) => (0, None),
    }
}

/// Status of a contract as a whole. `wipe` is the order to delete its data, when that is due.
pub(crate) fn contract(
    id: &ContractId,
    verdict: &Verdict,
    have: &Have,
    wipe: Option<&StatementId>,
) -> Line {
    let prefix = prefix(id);
    let running = have
        .processes
        .iter()
        .any(|(id, state)| id.starts_with(&prefix) && *state == ProcessState::Running);
    let data = have.volumes.keys().any(|id| id.starts_with(&prefix));
    match verdict {
        Verdict::Run(_) if have.partitioned.contains(id) => {
            Line::new(State::Stopped, contact::CODE, contact::MESSAGE)
        }
        Verdict::Run(agreed) => {
            let version = agreed.header.version;
            let held = have.held.contains(id);
            let old = if held { "; the one before goes on until its files are here" } else { "" };
            Line::new(State::Accepted, "agreed", format!("version {version} is agreed on{old}"))
        }
        Verdict::Refuse(refusal) => {
            let ahead = have.ahead.get(id).map(|ahead| format!("; {ahead}")).unwrap_or_default();
            let message = format!("{}{ahead}", refusal.message);
            Line::new(State::Refused, refusal.code.name(), message)
        }
        Verdict::Stop(ended) => {
            let (code, what) = match ended.cause {
                Cause::Expired => ("expired", "the contract has expired"),
                Cause::Cancelled { .. } => ("cancelled", "the contract is cancelled"),
            };
            if running {
                Line::new(State::Stopped, code, format!("{what}; its workloads are ending"))
            } else if wipe.is_some() && !data {
                Line::new(State::Wiped, code, format!("{what}; its data is deleted"))
            } else {
                Line::new(State::Stopped, code, format!("{what}; its data is kept"))
            }
        }
    }
}

/// Status of each workload that a verdict allows, by name. A workload about which there is nothing
/// to say yet, because it is on its way, has none.
pub(crate) fn workloads(wants: &[Want], have: &Have) -> BTreeMap<(ContractId, String), Line> {
    let line = |want: &Want| Some(((want.contract, want.name.clone()), workload(want, have)?));
    wants.iter().filter_map(line).collect()
}

fn workload(want: &Want, have: &Have) -> Option<Line> {
    let (flist, revision, volumes) = match &want.kind {
        Kind::Container { flist, revision, volumes, .. } => (flist, revision, volumes),
        Kind::Volume { .. } => {
            let ready = || Line::new(State::Running, "ready", "the volume is ready");
            return failure(&want.id, have)
                .or_else(|| have.volumes.contains_key(&want.id).then(ready));
        }
    };
    let run = have.runs.get(&want.id);
    if let Some(run) = run
        && run.revision == *revision
    {
        match &run.phase {
            // A start that was given up on may have succeeded after all.
            Phase::Waiting { code, message, .. } if !have.processes.contains_key(&want.id) => {
                let mut message = message.clone();
                // The same while it is tried again: each change of this is a signed result.
                if let Some(code) = have.unfetched.get(&(want.contract, *flist)) {
                    message += &format!("; its files could not be had again: {code}");
                }
                return Some(Line::new(State::Failed, code, message));
            }
            Phase::Stopping { fault: Some(fault), .. } => {
                return Some(Line::new(State::Failed, fault.cause.code(), fault.message.clone()));
            }
            Phase::Up { .. } if have.processes.contains_key(&want.id) => {
                let mut line = if run.passed {
                    Line::new(State::Running, "running", "its processes run")
                } else {
                    Line::new(State::Accepted, STARTING, "its processes run; no good answer yet")
                };
                line.message += &run.strains.sentence();
                line.ran.clone_from(&run.ran);
                return Some(line);
            }
            Phase::Over { end: End::Well, message } => {
                let line = Line::new(State::Done, RETURNED_0, message.clone());
                return Some(Line { ran: run.ran.clone(), is_final: true, ..line });
            }
            Phase::Over { end: End::Badly, message } => {
                let line = Line::new(State::Failed, NOT_RESTARTED, message.clone());
                return Some(Line { is_final: true, ..line });
            }
            Phase::Waiting { .. } | Phase::Up { .. } | Phase::Stopping { .. } => {}
        }
    }
    let missing = |(name, id): &(String, String)| {
        let line = failure(id, have).filter(|_| !have.volumes.contains_key(id))?;
        Some(Line { message: format!("it waits for volume {name}: {}", line.message), ..line })
    };
    if let Some(line) = volumes.iter().find_map(missing)
        && !have.processes.contains_key(&want.id)
    {
        return Some(line);
    }
    match have.flists.get(&(want.contract, *flist)) {
        Some(Files::Failed { code, message, .. }) => {
            let state = if is_refusal(code) { State::Refused } else { State::Failed };
            Some(Line::new(state, code, message.clone()))
        }
        Some(Files::Fetching | Files::Ready) | None => None,
    }
}

fn failure(id: &str, have: &Have) -> Option<Line> {
    let failure = have.failures.get(id)?;
    Some(Line::new(State::Failed, &failure.code, failure.message.clone()))
}

/// Codes of files that are there and are not what was signed (rule 7), as opposed to files that
/// could not be had.
fn is_refusal(code: &str) -> bool {
    ["content_mismatch", "content_truncated", "flist_refused"].contains(&code)
        || code.starts_with("publisher_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Cause, Fault, Run, Stop};
    use contract::FlistId;

    /// Status of a container whose run is in this phase, and whose process is there.
    fn line(phase: Phase, passed: bool) -> Option<Line> {
        line_with(phase, passed, &[ProcessState::Running], None, None)
    }

    fn line_with(
        phase: Phase,
        passed: bool,
        process: &[ProcessState],
        files: Option<Files>,
        unfetched: Option<&'static str>,
    ) -> Option<Line> {
        let world = contract::testkit::World::new(contract::Timestamp::from_seconds(1_800_000_000));
        let document = world.document(1);
        let container = document.containers().next()?;
        let id = "web".to_owned();
        let kind = Kind::Container {
            container: Box::new(container.clone()),
            flist: FlistId([1; 32]),
            urls: vec![],
            bytes: 7,
            publisher: None,
            revision: "r1".into(),
            volumes: vec![],
        };
        let name = "web".to_owned();
        let want = Want { id: id.clone(), contract: world.contract(), name, needs: vec![], kind };
        let run = Run {
            boot: "boot".into(),
            revision: "r1".into(),
            flist: None,
            phase,
            delay_ms: None,
            stop: Stop { signal: 15, grace_ms: 5000 },
            restart: contract::workload::Restart::Always,
            volumes: None,
            passed,
            ran: None,
            strains: crate::strain::Strains::default(),
            announced: None,
        };
        let have = Have {
            processes: process.iter().map(|state| (id.clone(), *state)).collect(),
            runs: [(id, run)].into(),
            flists: files
                .map(|files| ((world.contract(), FlistId([1; 32])), files))
                .into_iter()
                .collect(),
            unfetched: unfetched
                .map(|code| ((world.contract(), FlistId([1; 32])), code))
                .into_iter()
                .collect(),
            ..Have::default()
        };
        workload(&want, &have)
    }

    #[test]
    fn a_container_starts_works_and_does_not_work() {
        let because = |cause| {
            let fault = Fault { cause, message: "no connection".into(), up_ms: 0 };
            Phase::Stopping { kill_at_ms: 1, fault: Some(fault) }
        };
        let stopping = because(Cause::Unhealthy);
        for (phase, passed, state, code) in [
            (Phase::Up { since_ms: 1 }, false, State::Accepted, "starting"),
            (Phase::Up { since_ms: 1 }, true, State::Running, "running"),
            (stopping.clone(), true, State::Failed, "unhealthy"),
            (stopping, false, State::Failed, "unhealthy"),
            (because(Cause::Damaged), true, State::Failed, "store_damaged"),
        ] {
            let line = line(phase, passed).unwrap();
            assert_eq!((line.state, line.code.as_str()), (state, code));
        }
        assert_eq!(line(Phase::Stopping { kill_at_ms: 1, fault: None }, true), None);
    }

    /// A container that waited for its files said for ever why it had ended, and not what it waits for.
    /// Then each try of a dead source was two results.
    #[test]
    fn what_waits_for_files_that_cannot_be_had_again_says_so_once() {
        let said = |files: Option<Files>, unfetched: Option<&'static str>| {
            let waiting =
                Phase::Waiting { until_ms: 1, code: "store_damaged".into(), message: "bad".into() };
            line_with(waiting, true, &[], files, unfetched).unwrap().fingerprint()
        };
        let first = said(Some(Files::Fetching), None);
        assert!(first.ends_with("store_damaged bad"), "{first}");
        let failed = |message: &str| {
            let (code, message) = ("source_unreachable", message.to_owned());
            Some(Files::Failed { until_ms: 1, code, message })
        };
        let dead = Some("source_unreachable");
        let second = said(failed("nobody answers"), dead);
        assert!(second.ends_with("bad; its files could not be had again: source_unreachable"));
        for again in [Some(Files::Fetching), failed("another reason")] {
            assert_eq!(said(again, dead), second);
        }
        assert_ne!(said(failed("nobody answers"), Some("content_missing")), second);
    }
}
