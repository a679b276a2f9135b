//! The loop: take in what has come, look at the node, decide, do, report.
//!
//! One thread owns all state. It never waits for the network: fetching and the registry have
//! threads of their own, which send [`Event`]s. Whatever is lost or fails is found again at the
//! next look.

mod ahead;
mod health;
mod lines;
pub(crate) mod log;
mod releases;
mod start;
mod store;
mod strain;
mod upkeep;

use crate::{
    checks::Checks,
    clock::{self, Now, Worth},
    contact::{self, Contact},
    database::{BUNDLES_BYTES_MAX, Database, DatabaseError, Kept},
    evidence::{Evidence, SIGNATURES_MAX},
    fetches, jobs, judge, merge,
    network::Order,
    node_calls,
    orders::Orders,
    plan::{self, Cause, End, Failure, Files, Have, Kind, Phase, Run, Step, Stop, Want},
    probe::Probes,
    results::Results,
    rounds::Rounds,
    scrub::Scrubs,
    status,
    storage::{self, Storage},
};
use contract::{
    Bundle, Capacity, ContractId, FlistId, StatementId, Timestamp, Trust, Verdict,
    bundle::BUNDLE_BYTES_MAX,
    report::{Standing, State},
    verdict::Agreed,
};
use flist::Store;
use node_api::{init, netd, paths, storaged};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::mpsc::UnboundedSender;

/// A failed fetch or volume is tried again after so long at first; the wait doubles up to the bound.
const RETRY_MS: u64 = 2_000;
const RETRY_MAX_MS: u64 = 120_000;
/// And for carriers that come, one after the other, not more often than this.
const CARRIERS_MS: u64 = 10_000;
/// The same for what is fetched ahead: when it may run, it is tried at once.
const RETRY_AHEAD_MAX_MS: u64 = 900_000;
/// Steps are taken for at most about this long between two looks.
const STEPS_MS: u64 = 1_000;

/// Verdicts are made anew this often, because time passes, and whenever a contract comes.
const JUDGE_MS: u64 = 1_000;

/// The threads that work for the loop.
pub(crate) struct Threads {
    pub(crate) orders: UnboundedSender<Order>,
    pub(crate) probes: Probes,
    pub(crate) scrubs: Scrubs,
}

/// How a fetch failed, and the wait before the next try.
#[derive(Debug)]
struct Unfetched {
    code: &'static str,
    delay_ms: u64,
}

/// Everything that the loop knows.
pub(crate) struct Reconciler {
    pub(crate) trust: Trust,
    pub(crate) boot: String,
    pub(crate) database: Database,
    pub(crate) results: Results,
    /// The pools, as they were at the last look at the machine.
    pub(crate) pools: Vec<storage::Pool>,
    /// What the time of day is worth.
    pub(crate) worth: Worth,
    /// Whether the number of the node's last result is known. A node that lost its state counts on
    /// from what the registry has, and reports nothing before it knows.
    pub(crate) chain_is_known: bool,
    /// Whether all contracts that the registry has were heard since the start of this process.
    pulled: bool,
    contact: Contact,
    pub(crate) log: log::Watch,
    /// Contracts whose workloads wait for contact to the registry.
    partitioned: BTreeSet<ContractId>,
    store: Arc<Store>,
    orders: UnboundedSender<Order>,
    contracts: BTreeMap<ContractId, Kept>,
    verdicts: BTreeMap<ContractId, Verdict>,
    storage: Storage,
    /// Boot clock of the last judgement; `None` when a contract has come since.
    judged_ms: Option<u64>,
    pub(crate) free: Capacity,
    runs: BTreeMap<String, Run>,
    files: BTreeMap<(ContractId, FlistId), Files>,
    /// How the last fetch failed, of flists whose last fetch failed.
    unfetched: BTreeMap<(ContractId, FlistId), Unfetched>,
    /// What publishers have signed, where contracts demand it.
    releases: releases::Releases,
    ahead: ahead::Ahead,
    /// Volumes that could not be made.
    failures: BTreeMap<String, Failure>,
    checks: Checks,
    probes: Probes,
    /// Commands of health checks, each of a process that was started then.
    commands: BTreeMap<String, (u64, node_api::launcher::Check)>,
    upkeep: upkeep::Upkeep,
    scrubs: Scrubs,
    rounds: Rounds,
    orders_to_read: Orders,
    /// Boot clock of the next look at what the disks have reported.
    errors_at_ms: u64,
    lines: lines::Lines,
    /// Flists of which files in the store were found changed.
    damaged: BTreeSet<FlistId>,
    /// Containers that run from such files, with the reason.
    spoilt: BTreeMap<String, String>,
    /// A carrier has come, and since when what failed may be tried again for that.
    carrier_came: bool,
    carriers_at_ms: u64,
    /// How a step failed last, to say it once.
    complaints: BTreeMap<String, String>,
    /// Whether the last look ended before everything that followed from it was done.
    pub(crate) is_behind: bool,
    /// The last step that was taken then.
    last_step: Option<Step>,
}

impl Reconciler {
    /// Takes up where the last contractd ended.
    pub(crate) fn new(
        trust: Trust,
        boot: String,
        database: Database,
        results: Results,
        store: Arc<Store>,
        Threads { orders, probes, scrubs }: Threads,
    ) -> Result<Self, DatabaseError> {
        let contracts = database.contracts()?.into_iter().map(|kept| (kept.id, kept)).collect();
        let chain_is_known = database.chain()?.is_some();
        let contact = Contact::read(database.fact("contact")?.as_deref(), &boot);
        let mut rounds = Rounds::read(database.fact("scrub")?.as_deref());
        let orders_to_read = Orders::read(database.fact("scrub-order")?.as_deref());
        if orders_to_read.is_open() {
            rounds.read_all();
        }
        let releases = releases::Releases::read(&database)?;
        let mut runs = BTreeMap::new();
        for (id, text) in database.runs()? {
            let run = serde_json::from_str::<Run>(&text).ok();
            match run.and_then(|run| jobs::in_this_boot(run, &boot)) {
                Some(run) => drop(runs.insert(id, run)),
                // Of another boot: what was started then is gone.
                None => database.set_run(&id, None)?,
            }
        }
        Ok(Self {
            free: trust.free,
            trust,
            boot,
            database,
            results,
            pools: Vec::new(),
            worth: Worth::Unconfirmed,
            chain_is_known,
            pulled: false,
            contact,
            log: log::Watch::default(),
            partitioned: BTreeSet::new(),
            store,
            orders,
            contracts,
            verdicts: BTreeMap::new(),
            storage: Storage::default(),
            judged_ms: None,
            runs,
            files: BTreeMap::new(),
            unfetched: BTreeMap::new(),
            releases,
            ahead: ahead::Ahead::default(),
            failures: BTreeMap::new(),
            checks: Checks::default(),
            probes,
            commands: BTreeMap::new(),
            upkeep: upkeep::Upkeep::default(),
            scrubs,
            rounds,
            orders_to_read,
            errors_at_ms: 0,
            lines: lines::Lines::default(),
            damaged: BTreeSet::new(),
            spoilt: BTreeMap::new(),
            carrier_came: false,
            carriers_at_ms: 0,
            complaints: BTreeMap::new(),
            is_behind: false,
            last_step: None,
        })
    }

    /// Takes in a contract as a registry or a carrier has it.
    pub(crate) fn take_bundle(
        &mut self,
        id: ContractId,
        offered: &Bundle,
    ) -> Result<(), DatabaseError> {
        let mut kept = self.contracts.get(&id).cloned().unwrap_or_else(|| {
            let new = Kept::new(id);
            Kept { bundle: new.bundle.logged(self.log.logged(0)), ..new }
        });
        if kept.past.ended.is_some() {
            return Ok(());
        }
        let is_new = !self.contracts.contains_key(&id);
        if is_new && !merge::is_granted(offered, id, self.trust.farm, self.trust.node) {
            self.complain(
                "offers",
                "a contract without a pool of this farm was offered".to_owned(),
            );
            return Ok(());
        }
        let mut own = merge::standing::of_node(offered, &self.trust.node);
        if own.signatures() > SIGNATURES_MAX {
            self.complain("contracts", format!("contract {} has too many signatures", id.short()));
            own = merge::standing::stops(&own);
        }
        let mut merged = merge::merge(&kept.bundle, &own, kept.past.version);
        let bytes = size(&merged);
        let about_it = merged.case().is_ok_and(|case| case.headers()[0].body.contract == id);
        if !about_it || *merged == *kept.bundle {
            return Ok(());
        }
        // What was offered may have named a pool that the owner did not.
        if is_new && merged.pools.is_empty() {
            return Ok(());
        }
        if is_new {
            self.make_room(bytes)?;
        }
        // An image before did not write it down.
        kept.past.version = kept.past.version.max(kept.bundle.in_force());
        let mut version = kept.past.version.max(merged.in_force());
        let has_room = bytes <= BUNDLE_BYTES_MAX && merged.signatures() <= SIGNATURES_MAX;
        if !has_room || !self.write(&id, &merged, version, BUNDLES_BYTES_MAX)? {
            self.complain("contracts", format!("there is no room for contract {}", id.short()));
            self.upkeep.ask_later(id);
            // What stops it is taken all the same, on top of what is kept, and counts until the next
            // restart even if it cannot be written.
            merged = merge::merge(&kept.bundle, &merge::standing::stops(&own), kept.past.version);
            if is_new || *merged == *kept.bundle {
                return Ok(());
            }
            version = kept.past.version.max(merged.in_force());
            self.write(&id, &merged, version, usize::MAX)?;
        }
        kept.past.version = version;
        kept.bundle = merged;
        self.settle(&mut kept)?;
        self.contracts.insert(id, kept);
        self.judged_ms = None;
        Ok(())
    }

    /// Writes a contract down, if all bundles together then take at most so many bytes. A disk that is
    /// full, or fails, is no reason to begin anew.
    fn write(
        &mut self,
        id: &ContractId,
        bundle: &Bundle,
        version: u64,
        bytes_max: usize,
    ) -> Result<bool, DatabaseError> {
        match self.database.keep(id, bundle, version, bytes_max) {
            Err(error) if !error.is_damage() => {
                self.complain("state", daemon::chain(&error));
                Ok(false)
            }
            outcome => {
                self.complaints.remove("state");
                outcome
            }
        }
    }

    /// Takes in that a carrier came, or went: what could not be had may be there now.
    pub(crate) fn take_carriers(&mut self, came: bool, went: bool) {
        self.carrier_came |= came;
        if came || went {
            self.complaints.remove("carried log");
        }
    }

    /// Tries again what could not be had, if a carrier came. A plug that is loose does not make it so at once
    /// each time.
    fn try_carriers(&mut self, now_ms: u64) {
        if self.carrier_came && now_ms >= self.carriers_at_ms {
            self.carrier_came = false;
            self.carriers_at_ms = now_ms.saturating_add(CARRIERS_MS);
            self.files.retain(|_, files| !matches!(files, Files::Failed { .. }));
            self.log.look_soon();
        }
    }

    /// Takes in that the registry has answered.
    pub(crate) fn take_contact(&mut self) {
        self.contact.note(clock::boot_ms().unwrap_or(0));
    }

    /// Takes in that every contract of the registry has been heard.
    pub(crate) fn take_pulled(&mut self) {
        if !self.pulled {
            self.pulled = true;
            self.judged_ms = None;
        }
    }

    /// Takes in the last result of this node that the registry has.
    pub(crate) fn take_last_result(
        &mut self,
        last: Option<(u64, StatementId)>,
    ) -> Result<(), DatabaseError> {
        if self.chain_is_known {
            return Ok(());
        }
        if let Some((seq, id)) = last {
            daemon::info!("reports go on after number {seq}");
            self.database.set_chain(seq, &id)?;
        }
        self.chain_is_known = true;
        Ok(())
    }

    /// One look at the node, and everything that follows from it.
    pub(crate) fn turn(&mut self) -> Result<(), DatabaseError> {
        self.is_behind = false;
        let (Ok(at), Ok(now_ms)) = (clock::now(), clock::boot_ms()) else { return Ok(()) };
        let now = Now { at, worth: self.worth };
        self.hear_containers();
        let (mut have, volumes) = match node_calls::observe() {
            Ok(seen) => seen,
            // Without eyes nothing is decided.
            Err(error) => {
                self.complain("observing", daemon::chain(&error));
                return Ok(());
            }
        };
        self.complaints.remove("observing");
        self.storage = Storage { pools: self.pools.clone(), volumes };
        if self.judged_ms.is_none_or(|judged| now_ms.saturating_sub(judged) >= JUDGE_MS) {
            (self.verdicts, self.free) =
                judge::judge(&self.contracts, &self.trust, &self.storage, at);
            self.ahead.upcoming = judge::upcoming(&self.contracts, &self.verdicts, &self.trust, at);
            self.judged_ms = Some(now_ms);
            self.note_starts(&have)?;
            self.note_ends()?;
            self.try_carriers(now_ms);
            self.look_at_log(now_ms);
        }
        self.look_at_store(now, now_ms)?;
        let mut wants = self.wants(now_ms)?;
        plan::go_on_after(&mut wants, self.last_step.take().as_ref());
        let needed: BTreeSet<(ContractId, FlistId)> = store::flists_of(&wants).collect();
        self.look_ahead(&needed);
        let upcoming = self.ahead.upcoming.clone();
        let demands =
            upcoming.iter().map(|one| (one.contract, one.flist, one.publisher.as_deref()));
        self.look_for_files(store::demands_of(&wants).chain(demands), at);
        self.forget_fetches(&needed.iter().copied().chain(self.ahead.flists()).collect());
        self.forget_failures(&wants, &have);
        have.now_ms = now_ms;
        have.partitioned.clone_from(&self.partitioned);
        self.note_risen(&have)?;
        have.runs = self.runs.clone();
        have.flists = self.files.clone();
        have.failures = self.failures.clone();
        self.look_at_health(&wants, &mut have)?;
        if !self.pulled {
            have.spared = plan::strangers(&have.processes, self.contracts.keys());
        }
        have.held = self.hold_updates(&wants, &have);
        let wipes = judge::wipes(&self.contracts, now);
        let begun_ms = clock::boot_ms().unwrap_or(now_ms);
        let mut steps = plan::plan(&wants, &have, &wipes);
        steps.extend(self.fetches_ahead(&needed, &have));
        let mut steps = steps.into_iter();
        while let Some(step) = steps.next() {
            self.apply(step.clone(), &have)?;
            // The next look finds the rest: reports and signs of life do not wait for all of it.
            let is_late = clock::boot_ms().is_ok_and(|ms| ms.saturating_sub(begun_ms) >= STEPS_MS);
            if is_late && steps.len() > 0 {
                self.is_behind = true;
                self.last_step = Some(step);
                break;
            }
        }
        self.look_at_strains(&have)?;
        have.runs = self.runs.clone();
        have.flists = self.files.clone();
        have.unfetched = self.unfetched.iter().map(|(of, one)| (*of, one.code)).collect();
        have.ahead = self.ahead_in_words();
        have.failures = self.failures.clone();
        self.send_lines(&wants, &have, &wipes);
        let reported = self.report(&wants, &have, &wipes, at);
        self.bear("results", reported)?;
        self.keep_house(&wants, &have)
    }

    /// What is to be there now: without contact to the registry, no containers of those whom their
    /// contract then stops. Their volumes stay.
    fn wants(&mut self, now_ms: u64) -> Result<Vec<Want>, DatabaseError> {
        if let Some(text) = self.contact.take_due(&self.verdicts, &self.boot) {
            self.database.set_fact("contact", &text)?;
        }
        self.partitioned = self.contact.partitioned(&self.verdicts, now_ms);
        let mut wants = judge::wants(&self.verdicts);
        wants.retain(|want| {
            matches!(want.kind, Kind::Volume { .. }) || !self.partitioned.contains(&want.contract)
        });
        Ok(wants)
    }

    /// A contract that may run keeps its place, and holds what it takes, from now on. One that was
    /// started and may not run any more holds nothing, so that it is not given to two.
    fn note_starts(&mut self, have: &Have) -> Result<(), DatabaseError> {
        let ending = plan::ending(&judge::wants(&self.verdicts), &have.processes, &self.runs);
        let mut last = self.contracts.values().filter_map(|kept| kept.started).max();
        for (id, verdict) in &self.verdicts {
            let Some(kept) = self.contracts.get_mut(id) else { continue };
            let prefix = plan::prefix(id);
            let is_ending = ending.iter().any(|process| process.starts_with(&prefix));
            let holds = judge::holds(kept, verdict, is_ending, self.worth);
            if let Some(demand) = holds.filter(|_| kept.past.holds != holds) {
                self.database.note_start(id, &demand)?;
                kept.past.holds = holds;
                if kept.started.is_none() {
                    last = Some(last.unwrap_or(0) + 1);
                    kept.started = last;
                }
            }
        }
        Ok(())
    }

    /// A contract that has ended by an order is that, and nothing else, for ever.
    fn note_ends(&mut self) -> Result<(), DatabaseError> {
        for ended in judge::ends(&self.contracts, &self.verdicts, self.worth) {
            if self.database.note_end(&ended)?
                && let Some(kept) = self.contracts.get_mut(&ended.contract)
            {
                daemon::info!("contract {} has ended by an order", ended.contract.short());
                kept.bundle = Evidence::of(merge::empty());
                kept.past.ended = Some(ended);
            }
        }
        Ok(())
    }

    /// Volumes that are as they should be, and those that nobody wants, do not fail any more.
    fn forget_failures(&mut self, wants: &[Want], have: &Have) {
        let is_missing = |id: &String| {
            wants.iter().any(|want| match &want.kind {
                Kind::Volume { size_bytes, .. } => {
                    want.id == *id && have.volumes.get(id) != Some(size_bytes)
                }
                Kind::Container { .. } => false,
            })
        };
        self.failures.retain(|id, _| is_missing(id));
    }

    fn apply(&mut self, step: Step, have: &Have) -> Result<(), DatabaseError> {
        match step {
            Step::Fetch { contract, flist, urls, bytes, publisher, haste } => {
                self.files.insert((contract, flist), Files::Fetching);
                let repair = self.damaged.contains(&flist);
                let now = clock::now().unwrap_or(Timestamp::from_seconds(0));
                // Nobody is asked again for what is known already: files that were begun with are
                // repaired also when the time to begin is over.
                let publisher =
                    publisher.filter(|one| !self.releases.allow(contract, flist, Some(one), now));
                let wanted =
                    fetches::Wanted { contract, flist, urls, bytes, publisher, repair, haste };
                self.order(Order::Fetch(wanted));
            }
            Step::EnsureVolume { id, size_bytes, class } => {
                match node_calls::volume(&id, size_bytes, class) {
                    Ok(_) => drop(self.failures.remove(&id)),
                    Err(error) => self.note_failure(id, error, have.now_ms),
                }
            }
            Step::Start { want } => self.start(&want, have)?,
            Step::Signal { id, signal, kill_at_ms, fault } => {
                if let Some(fault) = &fault {
                    daemon::warn!("{id}: {}", fault.message);
                    // A program that cannot read its own pages fails in many ways.
                    let ran = self.runs.get(&id).and_then(|run| run.flist);
                    if let Some(flist) = ran.filter(|_| fault.cause == Cause::Unhealthy) {
                        self.rounds.suspect(flist);
                    }
                }
                self.call(&id, paths::INIT_SOCKET, &init::Signal { id: id.clone(), signal });
                if let Some(run) = self.runs.get_mut(&id) {
                    run.phase = Phase::Stopping { kill_at_ms, fault };
                } else {
                    let run = Run {
                        boot: self.boot.clone(),
                        revision: String::new(),
                        flist: None,
                        phase: Phase::Stopping { kill_at_ms, fault },
                        delay_ms: None,
                        stop: Stop { signal, grace_ms: 0 },
                        restart: contract::workload::Restart::Always,
                        volumes: None,
                        passed: true,
                        ran: None,
                        strains: crate::strain::Strains::default(),
                        announced: None,
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

    fn note_failure(&mut self, id: String, error: node_calls::StartError, now_ms: u64) {
        let before = self.failures.get(&id);
        if before.is_none_or(|before| before.message != error.message) {
            daemon::warn!("volume {id}: {}: {}", error.code, error.message);
        }
        let delay_ms = retry_delay(before.map(|before| before.delay_ms), RETRY_MAX_MS);
        let until_ms = now_ms.saturating_add(delay_ms);
        let (code, message) = (error.code, error.message);
        self.failures.insert(id, Failure { until_ms, delay_ms, code, message });
    }

    /// Writes a result for every line of status that has changed.
    fn report(
        &mut self,
        wants: &[Want],
        have: &Have,
        wipes: &BTreeMap<ContractId, StatementId>,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        if !self.chain_is_known {
            return Ok(());
        }
        let mut workloads = status::workloads(wants, have);
        for (id, verdict) in &self.verdicts {
            let Some(kept) = self.contracts.get_mut(id) else { continue };
            let mut lines = vec![(None, status::contract(id, verdict, have, wipes.get(id)))];
            let names: Vec<_> =
                workloads.keys().filter(|(owner, _)| owner == id).cloned().collect();
            lines.extend(names.into_iter().filter_map(|key| {
                let line = workloads.remove(&key)?;
                Some((Some(key.1), line))
            }));
            let (version, header) = status::version(verdict);
            self.results.post(&mut self.database, kept, (version, header), &lines, now)?;
        }
        Ok(())
    }

    /// The contracts in one word each, for heartbeat and console; those that have ended last.
    pub(crate) fn standings(&self) -> Vec<(Standing, String)> {
        let has_ended = |verdict: &Verdict| matches!(verdict, Verdict::Stop(_));
        let living = self.verdicts.iter().filter(|(_, verdict)| !has_ended(verdict));
        living
            .chain(self.verdicts.iter().filter(|(_, verdict)| has_ended(verdict)))
            .map(|(contract, verdict)| {
                let (version, _) = status::version(verdict);
                let (state, text) = match verdict {
                    Verdict::Run(_) if self.partitioned.contains(contract) => {
                        (State::Stopped, format!("{}: {}", contact::CODE, contact::MESSAGE))
                    }
                    Verdict::Run(agreed) => self.standing_of(agreed, contract),
                    Verdict::Refuse(refusal) => {
                        (State::Refused, format!("{}: {}", refusal.code, refusal.message))
                    }
                    Verdict::Stop(_) => (State::Stopped, "has ended".to_owned()),
                };
                (Standing { contract: *contract, version, state }, text)
            })
            .collect()
    }

    fn standing_of(&self, agreed: &Agreed, contract: &ContractId) -> (State, String) {
        let (title, prefix) = (&agreed.header.title, plan::prefix(contract));
        let wants = judge::wants_of(agreed);
        // What a job was in a version before says nothing about this one.
        let counts = |id: &str, run: &Run| !run.is_over() || plan::is_over(id, run, &wants);
        let runs = || {
            let ours = self.runs.iter().filter(|(id, _)| id.starts_with(&prefix));
            ours.filter(|(id, run)| counts(id, run))
        };
        let failing = runs().find_map(|(_, run)| match &run.phase {
            Phase::Waiting { code, message, .. } => Some(format!("{title}: {code}: {message}")),
            Phase::Stopping { fault: Some(fault), .. } => {
                Some(format!("{title}: {}: {}", fault.cause.code(), fault.message))
            }
            Phase::Over { end: End::Badly, message } => {
                Some(format!("{title}: {}: {message}", status::NOT_RESTARTED))
            }
            Phase::Up { .. } | Phase::Stopping { .. } | Phase::Over { .. } => None,
        });
        let missing = || {
            let mut failures = self.failures.iter().filter(|(id, _)| id.starts_with(&prefix));
            failures.next().map(|(_, one)| format!("{title}: {}: {}", one.code, one.message))
        };
        let up = runs().next().is_some();
        let starting = runs().any(|(_, run)| !run.passed);
        let over = runs().filter(|(_, run)| run.is_over()).count();
        let done = up && over == agreed.document.containers().count();
        match failing.or_else(missing) {
            Some(text) => (State::Failed, text),
            None if starting => {
                (State::Accepted, format!("{title}: {}: no good answer yet", status::STARTING))
            }
            None if done => (State::Done, format!("{title}: done")),
            None if up => (State::Running, format!("{title}: running")),
            None => (State::Accepted, format!("{title}: agreed, fetching its files")),
        }
    }

    /// What failed last, for the console.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = (&String, &String)> {
        self.complaints.iter()
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

    /// Whether something was written that can be written later as well: a disk that is full is no reason
    /// to end. A file that is damaged is one.
    fn bear(
        &mut self,
        about: &str,
        done: Result<(), DatabaseError>,
    ) -> Result<bool, DatabaseError> {
        match done {
            Ok(()) => {
                self.complaints.remove(about);
                Ok(true)
            }
            Err(error) if error.is_damage() => Err(error),
            Err(error) => {
                self.complain(about, daemon::chain(&error));
                Ok(false)
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

/// Bytes of a bundle as it is kept.
fn size(bundle: &Bundle) -> usize {
    serde_json::to_vec(bundle).map_or(usize::MAX, |bytes| bytes.len())
}

/// The wait after a failure that followed a wait of so long.
fn retry_delay(before_ms: Option<u64>, most_ms: u64) -> u64 {
    before_ms.map_or(RETRY_MS, |before| before.saturating_mul(2).min(most_ms))
}

#[cfg(test)]
mod tests;
