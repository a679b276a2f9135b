//! Decides what to do next for the workloads of this node, from what is wanted and what is there.
//!
//! Pure: no I/O and no clock. The loop in `reconcile` looks, plans, and applies; whatever fails is
//! there again at the next look. Nothing is stopped that is wanted, and a contract whose new version
//! has not arrived completely goes on in the old one, for a time; then each container for itself.
//!
//! ```text
//! flist missing → Fetch → ready → Attach, EnsureVolume → Start → Up ──exit──► Waiting ─┐
//!                                       ▲                                             │
//!                                       └──────────────── back-off over ──────────────┘
//! no longer wanted: Up → Signal → Stopping ──exit or Kill──► Forget → Detach
//! does not work:    Up → Signal → Stopping ──exit or Kill──► Waiting
//! files are bad:    Up → Signal → Stopping ──exit or Kill──► Waiting → Fetch → ready → Start
//! a job has ended:  Up ──exit──► Over, until its contract wants it otherwise
//! ```

use crate::strain::Strains;
use contract::{
    ContractId, FlistId, StatementId,
    header::Publisher,
    report::Ran,
    workload::{Container, Medium, MountSource, Restart},
};
use node_api::init::ProcessState;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A stop that names no signal sends SIGTERM.
const SIGTERM: i32 = 15;
/// Grace of a process whose contract is no longer known, in milliseconds.
const GRACE_MS: u64 = 10_000;
/// A start of which nothing was heard for so long has failed, in milliseconds: ten times what its caller
/// waits for the answer.
const UNHEARD_MS: u64 = 300_000;

/// One workload that a verdict allows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Want {
    /// Id of the workload on this node.
    pub(crate) id: String,
    pub(crate) contract: ContractId,
    /// Name in the contract.
    pub(crate) name: String,
    /// Ids of workloads that must be up first.
    pub(crate) needs: Vec<String>,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Container {
        container: Box<Container>,
        flist: FlistId,
        urls: Vec<String>,
        /// The flist's size, as it was signed.
        bytes: u64,
        /// Who has to have signed it.
        publisher: Option<Box<Publisher>>,
        /// Changes with everything that a running process cannot take up.
        revision: String,
        /// Volumes to mount: name in the contract and id on this node.
        volumes: Vec<(String, String)>,
    },
    Volume {
        size_bytes: u64,
        class: Medium,
    },
}

/// What contractd remembers of a container that it started, or tried to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The boot in which this happened; in another, only what became of jobs is of use.
    pub(crate) boot: String,
    pub(crate) revision: String,
    /// What it was started from; `None` for one of which nothing is known.
    pub(crate) flist: Option<FlistId>,
    pub(crate) phase: Phase,
    /// The wait before the last start, if there was one.
    pub(crate) delay_ms: Option<u64>,
    pub(crate) stop: Stop,
    /// As its contract said when it was started.
    #[serde(default)]
    pub(crate) restart: Restart,
    /// Ids of the volumes that may be mounted in what runs; `None` when nobody knows.
    #[serde(default)]
    pub(crate) volumes: Option<BTreeSet<String>>,
    /// Whether it works: it has passed its health check since its start, or has none.
    pub(crate) passed: bool,
    /// What the kernel measured when it was started.
    pub(crate) ran: Option<Ran>,
    /// What strains it since.
    #[serde(default)]
    pub(crate) strains: Strains,
    /// While it waits: the start before that nobody has answered. If there is a process after all, it is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) announced: Option<Box<Self>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Started, or about to be: written down before the launcher is called, so that whoever finds
    /// the process knows that it is the wanted one. In milliseconds of the boot clock.
    Up { since_ms: u64 },
    /// Asked to end, perhaps because it does not work; killed at this time.
    Stopping { kill_at_ms: u64, fault: Option<Fault> },
    /// Ended or could not be started; tried again at this time.
    Waiting { until_ms: u64, code: String, message: String },
    /// A job that is not started again. Kept over boots, and while its contract may not run.
    Over { end: End, message: String },
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// By itself, with 0.
    Well,
    /// In any other way.
    Badly,
}

/// Why a container is ended that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) message: String,
    /// How long it was up until then; zero when it has never worked.
    pub(crate) up_ms: u64,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// Its own: it does not work.
    Unhealthy,
    /// The disk's: files in the store are not as signed any more.
    Damaged,
}

impl Cause {
    /// Code in results.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Damaged => STORE_DAMAGED,
        }
    }
}

/// How the process wants to be ended, as it was when it was started.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) signal: i32,
    pub(crate) grace_ms: u64,
}

/// Code of a container that cannot be started, or go on, because files of the store are not as signed.
pub(crate) const STORE_DAMAGED: &str = "store_damaged";

/// State of an flist's files in the store, for a contract that wants it: each fetches it from where it
/// says itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Files {
    /// On their way.
    Fetching,
    /// Every file is there and was measured.
    Ready,
    /// Could not be had; tried again at this time.
    Failed { until_ms: u64, code: &'static str, message: String },
}

/// An flist of a contract that is agreed on and whose time comes soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upcoming {
    pub(crate) contract: ContractId,
    pub(crate) flist: FlistId,
    pub(crate) urls: Vec<String>,
    /// Its size, as it was signed.
    pub(crate) bytes: u64,
    /// Who has to have signed it.
    pub(crate) publisher: Option<Box<Publisher>>,
}

/// When files are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Haste {
    /// By what may run.
    Now,
    /// By what may run later.
    Early,
}

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Have {
    /// Boot clock in milliseconds.
    pub(crate) now_ms: u64,
    pub(crate) processes: BTreeMap<String, ProcessState>,
    /// The number of each of these processes.
    pub(crate) pids: BTreeMap<String, i32>,
    pub(crate) runs: BTreeMap<String, Run>,
    /// Address of each attached container, by its id.
    pub(crate) attachments: BTreeMap<String, IpAddr>,
    /// The node's end of its cable.
    pub(crate) links: BTreeMap<String, String>,
    /// Quota in bytes, by id.
    pub(crate) volumes: BTreeMap<String, u64>,
    /// Volumes that could not be made, or found.
    pub(crate) failures: BTreeMap<String, Failure>,
    pub(crate) flists: BTreeMap<(ContractId, FlistId), Files>,
    /// How the last fetch failed of those whose last fetch failed.
    pub(crate) unfetched: BTreeMap<(ContractId, FlistId), &'static str>,
    /// How far the files of contracts are whose time comes soon.
    pub(crate) ahead: BTreeMap<ContractId, String>,
    /// Contracts whose old version goes on until all files of the new one are there.
    pub(crate) held: BTreeSet<ContractId>,
    /// Processes of which it is not certain yet that nobody wants them.
    pub(crate) spared: BTreeSet<String>,
    /// Containers that cannot go on as they are, and why.
    pub(crate) faults: BTreeMap<String, (Cause, String)>,
    /// Contracts whose workloads wait for contact to the registry.
    pub(crate) partitioned: BTreeSet<ContractId>,
}

impl Have {
    /// Whether this container is of a contract whose old version goes on.
    pub(crate) fn holds(&self, id: &str) -> bool {
        self.held.iter().any(|contract| id.starts_with(&prefix(contract)))
    }
}

/// Why something could not be done, and when it is tried again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) until_ms: u64,
    /// The wait before that try.
    pub(crate) delay_ms: u64,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// One thing to do. Doing it twice changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Fetch {
        contract: ContractId,
        flist: FlistId,
        urls: Vec<String>,
        bytes: u64,
        publisher: Option<Box<Publisher>>,
        haste: Haste,
    },
    EnsureVolume {
        id: String,
        size_bytes: u64,
        class: Medium,
    },
    Start {
        want: Want,
    },
    Signal {
        id: String,
        signal: i32,
        kill_at_ms: u64,
        fault: Option<Fault>,
    },
    Kill {
        id: String,
    },
    /// The process has ended: take note, and count its restarts when it is still wanted.
    Reap {
        id: String,
        state: ProcessState,
        wanted: bool,
    },
    Detach {
        id: String,
    },
    DeleteVolume {
        id: String,
        order: StatementId,
    },
}

/// Digits of a contract's id in the ids of its workloads: with `c-`, a dash and a name of at most 32
/// characters, an id has the 64 that the other daemons take.
const DIGITS: usize = 29;

/// The prefix of the ids of all workloads of a contract.
pub(crate) fn prefix(contract: &ContractId) -> String {
    format!("c-{}-", &contract.to_string()[..DIGITS])
}

/// The prefix of an id of a workload.
pub(crate) fn prefix_of(id: &str) -> &str {
    id.get(.."c-".len() + DIGITS + "-".len()).unwrap_or(id)
}

/// The id of a workload on a node.
pub(crate) fn workload_id(contract: &ContractId, name: &str) -> String {
    prefix(contract) + name
}

/// What to do now. `wipe` names the cancelled contracts whose data is to be deleted, with the order.
pub(crate) fn plan(
    wants: &[Want],
    have: &Have,
    wipe: &BTreeMap<ContractId, StatementId>,
) -> Vec<Step> {
    let wanted: BTreeMap<&str, &Want> = wants.iter().map(|want| (want.id.as_str(), want)).collect();
    let is_container =
        |id: &str| wanted.get(id).is_some_and(|want| matches!(want.kind, Kind::Container { .. }));
    let goes_on = |id: &str| {
        let is_stopping =
            have.runs.get(id).is_some_and(|run| matches!(run.phase, Phase::Stopping { .. }));
        !is_stopping && damage(id, have).is_none() && have.holds(id)
    };
    let mut steps = Vec::new();
    for (id, state) in &have.processes {
        match state {
            ProcessState::Exited(_) | ProcessState::Killed(_) => {
                let (id, state, wanted) = (id.clone(), *state, is_container(id));
                steps.push(Step::Reap { id, state, wanted });
            }
            ProcessState::Running
                if !is_container(id) && !have.spared.contains(id) && !goes_on(id) =>
            {
                steps.extend(stop(id, damage(id, have), have));
            }
            ProcessState::Running => {}
        }
    }
    // What ran there before may hold a port that another one gets in the new version.
    let is_current = |id: &str| match (wanted.get(id).map(|want| &want.kind), have.runs.get(id)) {
        (Some(Kind::Container { revision, .. }), Some(run)) => run.revision == *revision,
        (Some(Kind::Container { .. } | Kind::Volume { .. }) | None, _) => false,
    };
    // A job that is over keeps its network in this boot: its last lines may still be on their way.
    for id in have.attachments.keys() {
        if !is_current(id) && !have.processes.contains_key(id) {
            steps.push(Step::Detach { id: id.clone() });
        }
    }
    for (contract, order) in wipe {
        let prefix = prefix(contract);
        let busy = have.processes.keys().any(|id| id.starts_with(&prefix));
        let ids = have.volumes.keys().filter(|id| !busy && id.starts_with(&prefix));
        steps.extend(ids.map(|id| Step::DeleteVolume { id: id.clone(), order: *order }));
    }
    let old = ending(wants, &have.processes, &have.runs);
    for want in wants {
        match &want.kind {
            Kind::Volume { size_bytes, class } => {
                let waits =
                    have.failures.get(&want.id).is_some_and(|one| one.until_ms > have.now_ms);
                if have.volumes.get(&want.id) != Some(size_bytes) && !waits {
                    let (id, size_bytes, class) = (want.id.clone(), *size_bytes, *class);
                    steps.push(Step::EnsureVolume { id, size_bytes, class });
                }
            }
            Kind::Container { flist, urls, bytes, publisher, revision, .. } => {
                let fetch = || Step::Fetch {
                    contract: want.contract,
                    flist: *flist,
                    urls: urls.clone(),
                    bytes: *bytes,
                    publisher: publisher.clone(),
                    haste: Haste::Now,
                };
                let step = container(want, *flist, fetch, revision, &wanted, have);
                let comes_too_early = |step: &Step| {
                    matches!(step, Step::Start { .. }) && shares_its_overlays(want, &old, have)
                };
                steps.extend(step.filter(|step| !comes_too_early(step)));
            }
        }
    }
    steps
}

/// The fetches for contracts whose time comes soon. What is `needed` now by others is not early.
pub(crate) fn ahead(upcoming: &[Upcoming], needed: &BTreeSet<FlistId>, have: &Have) -> Vec<Step> {
    let step = |one: &Upcoming| {
        let haste = if needed.contains(&one.flist) { Haste::Now } else { Haste::Early };
        let (contract, flist, bytes) = (one.contract, one.flist, one.bytes);
        let (urls, publisher) = (one.urls.clone(), one.publisher.clone());
        Step::Fetch { contract, flist, urls, bytes, publisher, haste }
    };
    let due = upcoming.iter().filter(|one| is_due((one.contract, one.flist), have));
    due.map(step).collect()
}

/// Contracts of which something runs in an old version, while files of the new one are not there.
pub(crate) fn updating(wants: &[Want], have: &Have) -> BTreeSet<ContractId> {
    let is_missing = |want: &&Want| match &want.kind {
        Kind::Container { flist, revision, .. } => {
            have.flists.get(&(want.contract, *flist)) != Some(&Files::Ready)
                && !have.runs.get(&want.id).is_some_and(|run| run.is_over_as(revision))
        }
        Kind::Volume { .. } => false,
    };
    let missing: BTreeSet<ContractId> =
        wants.iter().filter(is_missing).map(|want| want.contract).collect();
    let old = ending(wants, &have.processes, &have.runs);
    let runs_on = |contract: &ContractId| {
        let prefix = prefix(contract);
        old.iter().any(|id| id.starts_with(&prefix))
    };
    missing.into_iter().filter(runs_on).collect()
}

/// Turns the list so that it begins behind what the last step of a look was about, when there was no
/// time for more: whoever needs many steps keeps nobody from theirs.
pub(crate) fn go_on_after(wants: &mut [Want], last: Option<&Step>) {
    let is_about = |want: &Want| match last {
        Some(Step::Start { want: started }) => started.id == want.id,
        Some(
            Step::EnsureVolume { id, .. }
            | Step::Signal { id, .. }
            | Step::Kill { id }
            | Step::Reap { id, .. }
            | Step::Detach { id }
            | Step::DeleteVolume { id, .. },
        ) => *id == want.id,
        Some(Step::Fetch { contract, flist: fetched, .. }) => {
            matches!(&want.kind, Kind::Container { flist, .. } if flist == fetched)
                && want.contract == *contract
        }
        None => false,
    };
    if let Some(at) = wants.iter().position(is_about) {
        wants.rotate_left(at + 1);
    }
}

/// The containers that run and are not wanted as they are.
pub(crate) fn ending<'a>(
    wants: &[Want],
    processes: &'a BTreeMap<String, ProcessState>,
    runs: &BTreeMap<String, Run>,
) -> Vec<&'a str> {
    let wanted: BTreeMap<&str, &str> = wants
        .iter()
        .filter_map(|want| match &want.kind {
            Kind::Container { revision, .. } => Some((want.id.as_str(), revision.as_str())),
            Kind::Volume { .. } => None,
        })
        .collect();
    let is_current = |id: &String| {
        runs.get(id).is_some_and(|run| wanted.get(id.as_str()) == Some(&run.revision.as_str()))
    };
    let running = processes.iter().filter(|(_, state)| **state == ProcessState::Running);
    running.filter(|(id, _)| !is_current(id)).map(|(id, _)| id.as_str()).collect()
}

/// Whether this is a job that is over as it is wanted now.
pub(crate) fn is_over(id: &str, run: &Run, wants: &[Want]) -> bool {
    wants.iter().any(|want| match &want.kind {
        Kind::Container { revision, .. } => want.id == id && run.is_over_as(revision),
        Kind::Volume { .. } => false,
    })
}

/// Whether another container may write where this one's overlays do: one at a time has a volume of
/// overlays. That is one of an earlier version, `old`, or one whose start may still succeed.
fn shares_its_overlays(want: &Want, old: &[&str], have: &Have) -> bool {
    let Kind::Container { container, volumes, .. } = &want.kind else { return false };
    let is_overlay = |name: &String| {
        let source = MountSource::Overlay(name.clone());
        container.mounts.iter().any(|mount| mount.source == source)
    };
    let shared = |id: &str| {
        let theirs = have.runs.get(id).and_then(|run| run.volumes.as_ref());
        volumes.iter().any(|(name, volume)| {
            is_overlay(name) && theirs.is_none_or(|theirs| theirs.contains(volume))
        })
    };
    let unheard = have
        .runs
        .iter()
        .filter(|(id, run)| !have.processes.contains_key(*id) && may_still_start(run, have.now_ms));
    let mut others = old.iter().copied().chain(unheard.map(|(id, _)| id.as_str()));
    // Of the same name there is one: the launcher sees to that.
    others.any(|id| id != want.id && prefix_of(id) == prefix(&want.contract) && shared(id))
}

/// Whether a start that was announced, and not seen to succeed, may still do so.
fn may_still_start(run: &Run, now_ms: u64) -> bool {
    let started = match run.phase {
        Phase::Waiting { .. } => run.announced.as_deref(),
        Phase::Up { .. } | Phase::Stopping { .. } | Phase::Over { .. } => Some(run),
    };
    matches!(started.map(|run| &run.phase), Some(Phase::Up { since_ms })
        if now_ms < since_ms.saturating_add(UNHEARD_MS))
}

/// What to do for one wanted container.
fn container(
    want: &Want,
    flist: FlistId,
    fetch: impl Fn() -> Step,
    revision: &str,
    wanted: &BTreeMap<&str, &Want>,
    have: &Have,
) -> Option<Step> {
    let run = have.runs.get(&want.id);
    let current = run.is_some_and(|run| run.revision == revision);
    let stopping = run.is_some_and(|run| matches!(run.phase, Phase::Stopping { .. }));
    let process = have.processes.get(&want.id);
    let fault = fault(&want.id, have);
    let is_over = run.is_some_and(|run| run.is_over_as(revision));
    if is_over && process != Some(&ProcessState::Running) {
        return None;
    }
    // What runs from bad files is stopped in whatever version, also when the next one cannot be had.
    let damaged = damage(&want.id, have).is_some();
    if process == Some(&ProcessState::Running) && (current || stopping || damaged) {
        return if stopping || fault.is_some() { stop(&want.id, fault, have) } else { None };
    }
    if have.flists.get(&(want.contract, flist)) != Some(&Files::Ready) {
        return is_due((want.contract, flist), have).then(fetch);
    }
    let held = have.held.contains(&want.contract);
    let is_job = is_job(want) || run.is_some_and(|run| run.restart != Restart::Always);
    match process {
        // Of another version: it goes on until everything of this one is there.
        Some(ProcessState::Running) if held => None,
        // It goes, and the next look starts the new one.
        Some(ProcessState::Running) => stop(&want.id, None, have),
        // Reaped first.
        Some(ProcessState::Exited(_) | ProcessState::Killed(_)) => None,
        // Only in the new version: it comes with the others, also in place of a job that
        // was to be tried again.
        None if held && run.is_none_or(|run| run.is_over() || (is_job && !current)) => None,
        None => {
            let waits = match run.map(|run| &run.phase) {
                // A new version does not wait for the failures of the old one.
                Some(Phase::Waiting { until_ms, .. }) => current && *until_ms > have.now_ms,
                Some(Phase::Up { .. } | Phase::Stopping { .. } | Phase::Over { .. }) | None => {
                    false
                }
            };
            let ready = !waits && want.needs.iter().all(|id| is_up(id, wanted, have));
            ready.then(|| Step::Start { want: want.clone() })
        }
    }
}

/// Whether an flist is to be fetched now.
fn is_due(of: (ContractId, FlistId), have: &Have) -> bool {
    match have.flists.get(&of) {
        None => true,
        Some(Files::Failed { until_ms, .. }) => *until_ms <= have.now_ms,
        Some(Files::Fetching | Files::Ready) => false,
    }
}

/// The record of a container that is about to be started.
pub(crate) fn intent(
    boot: &str,
    revision: &str,
    (container, flist, volumes): (&Container, FlistId, &[(String, String)]),
    previous: Option<&Run>,
    now_ms: u64,
) -> Run {
    let volumes = volumes.iter().map(|(_, id)| id.clone()).collect();
    Run {
        boot: boot.to_owned(),
        revision: revision.to_owned(),
        flist: Some(flist),
        phase: Phase::Up { since_ms: now_ms },
        // A new version does not pay for the failures of the old one.
        delay_ms: previous.filter(|run| run.revision == revision).and_then(|run| run.delay_ms),
        stop: Stop {
            signal: i32::from(container.stop.signal),
            grace_ms: u64::from(container.stop.grace_s) * 1000,
        },
        restart: container.restart,
        // What comes up may be what was announced before.
        volumes: match previous.filter(|run| may_still_start(run, now_ms)) {
            Some(run) => run.volumes.as_ref().map(|before| before | &volumes),
            None => Some(volumes),
        },
        passed: container.health.is_none(),
        ran: None,
        strains: previous
            .filter(|run| run.revision == revision)
            .map_or_else(Strains::default, |run| run.strains.of_next_life()),
        announced: None,
    }
}

/// Containers that run, or have run, although their start was given up on: it had succeeded after all.
pub(crate) fn risen(have: &Have, runs: &BTreeMap<String, Run>) -> Vec<String> {
    let has_come = |id: &String, run: &Run| match have.processes.get(id) {
        Some(ProcessState::Running) => true,
        // The launcher leaves an ended process also of a start that it has refused.
        Some(ProcessState::Exited(_) | ProcessState::Killed(_)) => run.announced.is_some(),
        None => false,
    };
    let waits = |run: &Run| matches!(run.phase, Phase::Waiting { .. });
    let risen = runs.iter().filter(|(id, run)| waits(run) && has_come(id, run));
    risen.map(|(id, _)| id.clone()).collect()
}

/// The start that nobody has answered before the one that is tried now: it may still have succeeded, with
/// the words and the files of its time.
pub(crate) fn announced(previous: Option<&Run>) -> Option<Box<Run>> {
    let previous = previous?;
    match previous.phase {
        Phase::Up { .. } => Some(Box::new(previous.clone())),
        Phase::Waiting { .. } => previous.announced.clone(),
        Phase::Stopping { .. } | Phase::Over { .. } => None,
    }
}

/// Running processes of contracts that the node does not know. Its state may have been lost, so
/// nobody can say yet that they are not wanted.
pub(crate) fn strangers<'c>(
    processes: &BTreeMap<String, ProcessState>,
    known: impl Iterator<Item = &'c ContractId>,
) -> BTreeSet<String> {
    let known: Vec<String> = known.map(prefix).collect();
    let is_strange = |id: &&String| !known.iter().any(|prefix| id.starts_with(prefix));
    processes.keys().filter(is_strange).cloned().collect()
}

/// Whether what needs it may start: a container is up when it runs and works, a job when it has ended
/// well, as it is wanted now.
fn is_up(id: &str, wanted: &BTreeMap<&str, &Want>, have: &Have) -> bool {
    let run = have.runs.get(id);
    if let Some(want) = wanted.get(id)
        && let Kind::Container { revision, .. } = &want.kind
        && is_job(want)
    {
        let well = |run: &Run| matches!(run.phase, Phase::Over { end: End::Well, .. });
        return run.is_some_and(|run| run.revision == *revision && well(run));
    }
    have.volumes.contains_key(id)
        || (have.processes.get(id) == Some(&ProcessState::Running)
            && run.is_none_or(|run| run.passed))
}

/// Whether it is to be done, and not to run for ever.
fn is_job(want: &Want) -> bool {
    match &want.kind {
        Kind::Container { container, .. } => container.restart != Restart::Always,
        Kind::Volume { .. } => false,
    }
}

/// What is wrong with a container that runs, if anything is.
fn fault(id: &str, have: &Have) -> Option<Fault> {
    let ((cause, message), run) = (have.faults.get(id)?.clone(), have.runs.get(id)?);
    let Phase::Up { since_ms } = run.phase else { return None };
    let up_ms = if run.passed { have.now_ms.saturating_sub(since_ms) } else { 0 };
    Some(Fault { cause, message, up_ms })
}

/// The fault of a container that runs from bad files.
fn damage(id: &str, have: &Have) -> Option<Fault> {
    fault(id, have).filter(|fault| fault.cause == Cause::Damaged)
}

/// The next step in ending a running process.
fn stop(id: &str, fault: Option<Fault>, have: &Have) -> Option<Step> {
    let run = have.runs.get(id);
    match run.map(|run| &run.phase) {
        Some(Phase::Stopping { kill_at_ms, .. }) => {
            (*kill_at_ms <= have.now_ms).then(|| Step::Kill { id: id.to_owned() })
        }
        Some(Phase::Up { .. } | Phase::Waiting { .. } | Phase::Over { .. }) | None => {
            let stop = run.map_or(Stop { signal: SIGTERM, grace_ms: GRACE_MS }, |run| run.stop);
            Some(Step::Signal {
                id: id.to_owned(),
                signal: stop.signal,
                kill_at_ms: have.now_ms.saturating_add(stop.grace_ms),
                fault,
            })
        }
    }
}

#[cfg(test)]
mod tests;
