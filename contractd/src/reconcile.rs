//! The loop: take in what has come, look at the node, decide, do, report.
//!
//! One thread owns all state. It never waits for the network: fetching and the registry have
//! threads of their own, which send [`Event`]s. Whatever is lost or fails is found again at the
//! next look.

use crate::{
    clock,
    database::{Database, DatabaseError, Kept},
    judge, merge,
    network::Order,
    node_calls,
    plan::{self, Files, Have, Kind, Phase, Run, Step, Stop, Want},
    results::Results,
    status,
};
use contract::{
    Bundle, Capacity, ContractId, FlistId, Signed, Timestamp, Trust, Verdict,
    bundle::BUNDLE_BYTES_MAX,
    farm::Pool,
    report::{Ran, Standing, State},
};
use flist::Store;
use node_api::{
    init::{self, ProcessState},
    netd, paths, storaged,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc::UnboundedSender;

/// A failed fetch is tried again after so long at first; the wait doubles up to the bound.
const FETCH_RETRY_MS: u64 = 2_000;
const FETCH_RETRY_MAX_MS: u64 = 120_000;

/// Verdicts are made anew this often, because time passes, and whenever a contract comes.
const JUDGE_MS: u64 = 1_000;

/// Everything that the loop knows.
pub(crate) struct Reconciler {
    pub(crate) trust: Trust,
    pub(crate) boot: String,
    pub(crate) database: Database,
    pub(crate) results: Results,
    store: Arc<Store>,
    orders: UnboundedSender<Order>,
    contracts: BTreeMap<ContractId, Kept>,
    verdicts: BTreeMap<ContractId, Verdict>,
    /// Boot clock of the last judgement; `None` when a contract has come since.
    judged_ms: Option<u64>,
    pub(crate) free: Capacity,
    runs: BTreeMap<String, Run>,
    files: BTreeMap<FlistId, Files>,
    /// The wait before the next try of a fetch, for flists whose last fetch failed.
    fetch_delay_ms: BTreeMap<FlistId, u64>,
    /// Flists of which files in the store were found changed.
    damaged: BTreeSet<FlistId>,
    /// How a step failed last, to say it once.
    complaints: BTreeMap<String, String>,
}

impl Reconciler {
    /// Takes up where the last contractd ended.
    pub(crate) fn new(
        trust: Trust,
        boot: String,
        database: Database,
        results: Results,
        store: Arc<Store>,
        orders: UnboundedSender<Order>,
    ) -> Result<Self, DatabaseError> {
        let contracts = database.contracts()?.into_iter().map(|kept| (kept.id, kept)).collect();
        let runs = database
            .runs()?
            .into_iter()
            .filter_map(|(id, text)| Some((id, serde_json::from_str::<Run>(&text).ok()?)))
            .filter(|(_, run)| run.boot == boot)
            .collect();
        Ok(Self {
            free: trust.free,
            trust,
            boot,
            database,
            results,
            store,
            orders,
            contracts,
            verdicts: BTreeMap::new(),
            judged_ms: None,
            runs,
            files: BTreeMap::new(),
            fetch_delay_ms: BTreeMap::new(),
            damaged: BTreeSet::new(),
            complaints: BTreeMap::new(),
        })
    }

    /// Takes in a contract as the registry has it.
    pub(crate) fn take_bundle(
        &mut self,
        id: ContractId,
        offered: &Bundle,
    ) -> Result<(), DatabaseError> {
        let known = self.contracts.get(&id).map_or_else(merge::empty, |kept| kept.bundle.clone());
        let merged = merge::merge(&known, offered);
        let about_it = contract::verdict::Case::read(&merged)
            .is_ok_and(|case| case.headers()[0].body.contract == id);
        if !about_it || merged == known {
            return Ok(());
        }
        if !self.contracts.contains_key(&id) && !self.is_granted(&merged) {
            self.complain("inbox", format!("contract {} has no pool of this farm", id.short()));
            return Ok(());
        }
        let size = serde_json::to_vec(&merged).map_or(usize::MAX, |bytes| bytes.len());
        if size > BUNDLE_BYTES_MAX {
            self.complain("inbox", format!("contract {} is too large to keep", id.short()));
            return Ok(());
        }
        if self.database.keep(&id, &merged)? {
            let kept = self.contracts.entry(id).or_insert_with(|| Kept {
                id,
                bundle: merge::empty(),
                started: None,
                reported: "{}".to_owned(),
            });
            kept.bundle = merged;
            self.judged_ms = None;
        } else {
            self.complain("contracts", "the node keeps no more contracts than it does".to_owned());
        }
        Ok(())
    }

    /// Whether this node's farm has granted a pool for it here. Strangers' contracts do not fill the
    /// node's state.
    fn is_granted(&self, bundle: &Bundle) -> bool {
        bundle.pools.iter().filter_map(|one| Signed::<Pool>::open(one).ok()).any(|pool| {
            pool.body.farm == self.trust.farm && pool.body.nodes.contains(&self.trust.node)
        })
    }

    /// Takes in the outcome of a fetch.
    pub(crate) fn take_fetched(
        &mut self,
        flist: FlistId,
        outcome: Result<(), (&'static str, String)>,
    ) {
        let files = match outcome {
            Ok(()) => {
                self.fetch_delay_ms.remove(&flist);
                self.damaged.remove(&flist);
                Files::Ready
            }
            Err((code, message)) => {
                let delay = self.fetch_delay_ms.get(&flist).map_or(FETCH_RETRY_MS, |delay| {
                    delay.saturating_mul(2).min(FETCH_RETRY_MAX_MS)
                });
                self.fetch_delay_ms.insert(flist, delay);
                daemon::warn!("flist {}: {code}: {message}", flist.short());
                let until_ms = clock::boot_ms().unwrap_or(0).saturating_add(delay);
                Files::Failed { until_ms, code, message }
            }
        };
        self.files.insert(flist, files);
    }

    /// One look at the node, and everything that follows from it.
    pub(crate) fn turn(&mut self) -> Result<(), DatabaseError> {
        let (Ok(now), Ok(now_ms)) = (clock::now(), clock::boot_ms()) else { return Ok(()) };
        let mut have = match node_calls::observe() {
            Ok(have) => have,
            // Without eyes nothing is decided.
            Err(error) => {
                self.complain("observing", daemon::chain(&error));
                return Ok(());
            }
        };
        self.complaints.remove("observing");
        if self.judged_ms.is_none_or(|judged| now_ms.saturating_sub(judged) >= JUDGE_MS) {
            (self.verdicts, self.free) = judge::judge(&self.contracts, &self.trust, now);
            self.judged_ms = Some(now_ms);
        }
        let wants = judge::wants(&self.verdicts);
        self.note_starts(&wants)?;
        self.look_for_files(&wants);
        have.now_ms = now_ms;
        have.runs = self.runs.clone();
        have.flists = self.files.clone();
        let wipes = judge::wipes(&self.verdicts, now);
        for step in plan::plan(&wants, &have, &wipes) {
            self.apply(step, &have)?;
        }
        have.runs = self.runs.clone();
        have.flists = self.files.clone();
        self.report(&wants, &have, now)
    }

    /// A contract that may run keeps its place from now on.
    fn note_starts(&mut self, wants: &[Want]) -> Result<(), DatabaseError> {
        for want in wants {
            let Some(kept) = self.contracts.get_mut(&want.contract) else { continue };
            if kept.started.is_none() {
                self.database.note_start(&want.contract)?;
                let last = self.contracts.values().filter_map(|kept| kept.started).max();
                if let Some(kept) = self.contracts.get_mut(&want.contract) {
                    kept.started = Some(last.unwrap_or(0) + 1);
                }
            }
        }
        Ok(())
    }

    /// Flists that are in the store already need no fetch: every file is measured instead.
    fn look_for_files(&mut self, wants: &[Want]) {
        for want in wants {
            let Kind::Container { flist, .. } = &want.kind else { continue };
            if !self.files.contains_key(flist)
                && !self.damaged.contains(flist)
                && self
                    .store
                    .verify(*flist, flist::Depth::Measure)
                    .is_ok_and(|faults| faults.is_empty())
            {
                self.files.insert(*flist, Files::Ready);
            }
        }
    }

    fn apply(&mut self, step: Step, have: &Have) -> Result<(), DatabaseError> {
        match step {
            Step::Fetch { flist, urls } => {
                self.files.insert(flist, Files::Fetching);
                let repair = self.damaged.contains(&flist);
                self.order(Order::Fetch { flist, urls, repair });
            }
            Step::EnsureVolume { id, size_bytes, class } => {
                match node_calls::volume(&id, size_bytes, class) {
                    Ok(_) => drop(self.complaints.remove(&id)),
                    Err(error) => self.complain(&id, error.message),
                }
            }
            Step::Start { want } => self.start(&want, have)?,
            Step::Signal { id, signal, kill_at_ms } => {
                self.call(&id, paths::INIT_SOCKET, &init::Signal { id: id.clone(), signal });
                if let Some(run) = self.runs.get_mut(&id) {
                    run.phase = Phase::Stopping { kill_at_ms };
                } else {
                    let run = Run {
                        boot: self.boot.clone(),
                        revision: String::new(),
                        phase: Phase::Stopping { kill_at_ms },
                        delay_ms: None,
                        stop: Stop { signal, grace_ms: 0 },
                        ran: None,
                    };
                    self.runs.insert(id.clone(), run);
                }
                self.save_run(&id)?;
            }
            Step::Kill { id } => {
                self.call(&id, paths::INIT_SOCKET, &init::Kill { id: id.clone() });
            }
            Step::Reap { id, state, wanted } => self.reap(&id, state, wanted, have.now_ms)?,
            Step::Detach { id } => {
                self.call(&id, paths::NETD_SOCKET, &netd::Detach { id: id.clone() });
            }
            Step::DeleteVolume { id, order } => {
                let delete = storaged::VolumeDelete { id: id.clone(), order: order.to_string() };
                self.call(&id, paths::STORAGED_SOCKET, &delete);
            }
        }
        Ok(())
    }

    fn start(&mut self, want: &Want, have: &Have) -> Result<(), DatabaseError> {
        let Kind::Container { container, flist, revision, volumes, .. } = &want.kind else {
            return Ok(());
        };
        // The verdict once more, on the bytes that are kept, at the moment of the start.
        let (verdicts, _) = judge::judge(
            &self.contracts,
            &self.trust,
            clock::now().unwrap_or(Timestamp::from_seconds(0)),
        );
        if !matches!(verdicts.get(&want.contract), Some(Verdict::Run(_))) {
            return Ok(());
        }
        let outcome = self.id_base(&want.id)?.and_then(|id_base| {
            let mut directories = BTreeMap::new();
            for (name, id) in volumes {
                let size = have.volumes.get(id).copied().unwrap_or(0);
                let medium = contract::workload::Medium::Hdd;
                directories.insert(name.clone(), node_calls::volume(id, size, medium)?);
            }
            node_calls::start(want, &self.store, id_base, directories)
        });
        let previous = self.runs.get(&want.id).filter(|run| run.revision == *revision);
        let delay_ms = previous.and_then(|run| run.delay_ms);
        let mut run = Run {
            boot: self.boot.clone(),
            revision: revision.clone(),
            phase: Phase::Up { since_ms: have.now_ms },
            delay_ms,
            stop: Stop {
                signal: i32::from(container.stop.signal),
                grace_ms: u64::from(container.stop.grace_s) * 1000,
            },
            ran: None,
        };
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
                    // Every byte is read again, and exactly the bad objects are fetched.
                    self.files.remove(flist);
                    self.damaged.insert(*flist);
                }
                let delay = restart_delay(delay_ms, 0);
                run.delay_ms = Some(delay);
                let until_ms = have.now_ms.saturating_add(delay);
                let (code, message) = (error.code, error.message);
                run.phase = Phase::Waiting { until_ms, code, message };
            }
        }
        self.runs.insert(want.id.clone(), run);
        self.save_run(&want.id)
    }

    /// The user ids of a workload: given once, kept as long as the node knows the workload.
    fn id_base(&self, id: &str) -> Result<Result<u32, node_calls::StartError>, DatabaseError> {
        let name = "user-ids";
        let table = self.database.fact(name)?.unwrap_or_default();
        let mut table: BTreeMap<String, u32> = serde_json::from_str(&table).unwrap_or_default();
        match container::ids::base(&table, id) {
            Ok(base) => {
                if table.insert(id.to_owned(), base).is_none() {
                    let text = serde_json::to_string(&table).expect("strings and numbers");
                    self.database.set_fact(name, &text)?;
                }
                Ok(Ok(base))
            }
            Err(error) => Ok(Err(node_calls::StartError::new("ids_exhausted", error.to_string()))),
        }
    }

    fn reap(
        &mut self,
        id: &str,
        state: ProcessState,
        wanted: bool,
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        // Counted once: when init still has the entry, it comes again with the next look.
        if !self.call(id, paths::INIT_SOCKET, &init::Forget { id: id.to_owned() }) {
            return Ok(());
        }
        let ended = match state {
            ProcessState::Exited(code) => format!("its program returned {code}"),
            ProcessState::Killed(signal) => format!("its program was ended by signal {signal}"),
            ProcessState::Running => return Ok(()),
        };
        daemon::info!("{id}: {ended}");
        match self.runs.get_mut(id) {
            Some(run) if wanted && matches!(run.phase, Phase::Up { .. }) => {
                let since_ms = match run.phase {
                    Phase::Up { since_ms } => since_ms,
                    Phase::Stopping { .. } | Phase::Waiting { .. } => now_ms,
                };
                let delay = restart_delay(run.delay_ms, now_ms.saturating_sub(since_ms));
                run.delay_ms = Some(delay);
                run.phase = Phase::Waiting {
                    until_ms: now_ms.saturating_add(delay),
                    code: "exited".to_owned(),
                    message: ended,
                };
            }
            // Stopped on purpose: nothing is held against the next start.
            Some(_) | None => drop(self.runs.remove(id)),
        }
        self.save_run(id)
    }

    /// Writes a result for every line of status that has changed.
    fn report(&mut self, wants: &[Want], have: &Have, now: Timestamp) -> Result<(), DatabaseError> {
        let mut workloads = status::workloads(wants, have);
        for (id, verdict) in &self.verdicts {
            let Some(kept) = self.contracts.get_mut(id) else { continue };
            let mut lines = vec![(None, status::contract(id, verdict, have, now))];
            let names: Vec<_> =
                workloads.keys().filter(|(owner, _)| owner == id).cloned().collect();
            lines.extend(names.into_iter().filter_map(|key| {
                let line = workloads.remove(&key)?;
                Some((Some(key.1), line))
            }));
            let (version, header) = status::version(verdict);
            for (workload, line) in lines {
                self.results.post(
                    &mut self.database,
                    kept,
                    (version, header),
                    workload.as_deref(),
                    &line,
                    now,
                )?;
            }
        }
        Ok(())
    }

    /// The contracts in one word each, for heartbeat and console.
    pub(crate) fn standings(&self) -> Vec<(Standing, String)> {
        self.verdicts
            .iter()
            .map(|(contract, verdict)| {
                let (version, _) = status::version(verdict);
                let (state, text) = match verdict {
                    Verdict::Run(agreed) => self.standing_of(&agreed.header.title, contract),
                    Verdict::Refuse(refusal) => {
                        (State::Refused, format!("{}: {}", refusal.code, refusal.message))
                    }
                    Verdict::Stop(_) => (State::Stopped, "has ended".to_owned()),
                };
                (Standing { contract: *contract, version, state }, text)
            })
            .collect()
    }

    fn standing_of(&self, title: &str, contract: &ContractId) -> (State, String) {
        let prefix = plan::prefix(contract);
        let failing = self.runs.iter().find_map(|(id, run)| match &run.phase {
            Phase::Waiting { code, message, .. } if id.starts_with(&prefix) => {
                Some(format!("{title}: {code}: {message}"))
            }
            Phase::Waiting { .. } | Phase::Up { .. } | Phase::Stopping { .. } => None,
        });
        let up = self.runs.keys().any(|id| id.starts_with(&prefix));
        match failing {
            Some(text) => (State::Failed, text),
            None if up => (State::Running, format!("{title}: running")),
            None => (State::Accepted, format!("{title}: agreed, fetching its files")),
        }
    }

    /// What failed last, for the console.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = (&String, &String)> {
        self.complaints.iter()
    }

    fn save_run(&self, id: &str) -> Result<(), DatabaseError> {
        let run = self
            .runs
            .get(id)
            .map(|run| serde_json::to_string(run).expect("a run is strings and numbers"));
        self.database.set_run(id, run.as_deref())
    }

    /// Whether the call was done; a failure is shown and tried again with the next look.
    fn call<M: ipc::Method>(&mut self, about: &str, socket: &str, call: &M) -> bool {
        match ipc::call(socket, call) {
            Ok(_) => {
                self.complaints.remove(about);
                true
            }
            Err(error) => {
                self.complain(about, daemon::chain(&error));
                false
            }
        }
    }

    fn complain(&mut self, about: &str, text: String) {
        if self.complaints.get(about) != Some(&text) {
            daemon::warn!("{about}: {text}");
            self.complaints.insert(about.to_owned(), text);
        }
    }

    pub(crate) fn order(&self, order: Order) {
        // The network thread ends only with the process; then nothing matters any more.
        drop(self.orders.send(order));
    }
}

/// Milliseconds to wait before the next start of a container that was up for so long.
fn restart_delay(previous_ms: Option<u64>, up_ms: u64) -> u64 {
    let previous = previous_ms.map(Duration::from_millis);
    let delay = container::restart::next(previous, Duration::from_millis(up_ms));
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}
