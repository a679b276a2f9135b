//! What a registry on this machine does in a second, beside what the disk and the processor allow:
//! real programs on the loopback address, with a log and three witnesses, no virtual machine. Once on
//! SQLite and once on PostgreSQL.
//!
//! `_per_core_s` is by processor time of the registry, so that it does not hang on who else computes
//! meanwhile. Statements are signed before anything is measured.

mod arithmetic;
mod cluster;
pub(crate) mod crowd;
mod floor;
mod proofs;
mod wide;

use super::{Figure, median};
use crate::{
    house::{self, House},
    wire::{self, Line},
};
use anyhow::{Context as _, Result, ensure};
use arithmetic::{cores_for, count, ms, per_second, percentile};
use cluster::Cluster;
use contract::{Envelope, StatementId, Timestamp, testkit::World};
use crowd::{Connection, Customer, Grid, Sent, post, send};
use floor::Floor;
use registry_api::paths;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// So often unless another number is given.
pub(super) const RUNS: usize = 3;
/// Clients that send statements or heartbeats at once.
const CLIENTS: usize = 24;
/// Contracts of each of them in one run, of three statements each.
const CONTRACTS: usize = 20;
/// Statements of a client that is alone.
const ALONE: usize = 60;
/// Every so many statements, one is asked for its place in the log.
const SAMPLE: usize = 4;
/// Nodes that poll and beat.
const NODES: usize = 96;
/// Heartbeats of each in one run.
const BEATS: usize = 25;
/// Clients that poll at once, and what each asks in one run.
const POLLERS: usize = 4;
const POLLS: usize = 1500;
/// The same with a connection for each question: few, because ports are.
const POLLS_FRESH: usize = 750;
/// Whole bundles that each of them downloads in one run.
const BUNDLES: usize = 24;
/// Verdicts in one run.
const VERDICTS: usize = 100;
/// For how many nodes it is extrapolated, and how often each asks.
const MANY: usize = 1_000_000;
const INTERVAL: Duration = Duration::from_secs(60);
/// Sizes of logs whose proofs are weighed.
const LOGS: [(u64, &str); 4] =
    [(1000, "1e3"), (10_000, "1e4"), (100_000, "1e5"), (1_000_000, "1e6")];
/// How often the checkpoint is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Witnesses of this machine have cosigned by then.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(n_runs: usize, tell: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    ensure!(
        !cfg!(debug_assertions),
        "these programs are not optimised: `cargo xtask bench registry` builds what is measured"
    );
    // First, so that whoever lacks it hears so before anything is measured.
    let cluster = Cluster::start()?;
    let mut figures = measure_on(None, "registry", n_runs, tell)?;
    figures.extend(proofs()?);
    figures.extend(measure_on(Some(cluster.url()), "registry.postgres", n_runs, tell)?);
    Ok(figures)
}

/// What hangs on the database, in ids that begin with `name`.
fn measure_on(
    database: Option<String>,
    name: &'static str,
    n_runs: usize,
    tell: &dyn Fn(&str),
) -> Result<Vec<Figure>> {
    let temporary = crate::scratch()?;
    let house = House::start(temporary.path(), database)?;
    let mut grid = Grid::new(now()?, NODES);
    for statement in &grid.statements {
        learn(&house, statement)?;
    }
    let mut found = Found::new(name);
    for run in 0..n_runs {
        tell(&format!("{name}: statements, run {} of {n_runs}", run + 1));
        statements(&house, run, temporary.path(), &mut found)?;
    }
    tell(&format!("{name}: a contract over 10,000 nodes"));
    grid.world.now = now()?;
    let wide = wide::contract(&grid.world, &grid.nodes)?;
    for statement in &wide.statements {
        learn(&house, statement)?;
    }
    house.ask(&wide.documents, 201).context("sending the documents")?;
    for run in 0..n_runs {
        tell(&format!("{name}: nodes, run {} of {n_runs}", run + 1));
        nodes(&house, &mut grid, run, &mut found)?;
    }
    let mut figures = found.figures();
    figures.extend(weights(&house, &grid, name)?);
    Ok(figures)
}

/// What was measured several times: values and those of peers, by the figure's id.
struct Found {
    /// Ids begin with it.
    name: &'static str,
    order: Vec<(&'static str, &'static str)>,
    ours: BTreeMap<&'static str, Vec<f64>>,
    peers: BTreeMap<(&'static str, &'static str), Vec<f64>>,
}

impl Found {
    fn new(name: &'static str) -> Self {
        Self { name, order: Vec::new(), ours: BTreeMap::new(), peers: BTreeMap::new() }
    }

    fn add(
        &mut self,
        id: &'static str,
        unit: &'static str,
        value: f64,
        peers: &[(&'static str, f64)],
    ) {
        if !self.ours.contains_key(id) {
            self.order.push((id, unit));
        }
        self.ours.entry(id).or_default().push(value);
        for (name, value) in peers {
            self.peers.entry((id, name)).or_default().push(*value);
        }
    }

    /// The median of each, in the order in which they were measured first.
    fn figures(&self) -> Vec<Figure> {
        let figure = |(id, unit): &(&'static str, &'static str)| {
            let values = &self.ours[id];
            let figure =
                Figure::new(&format!("{}.{id}", self.name), unit, median(values), values.len());
            let peers = self.peers.iter().filter(|((of, _), _)| of == id);
            peers.fold(figure, |figure, ((_, name), all)| figure.beside(name, median(all)))
        };
        self.order.iter().map(figure).collect()
    }
}

pub(crate) fn now() -> Result<Timestamp> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Timestamp::from_seconds(i64::try_from(seconds)?))
}

/// People send contracts and approvals: all at once, then one of them alone. What the disk allows
/// is measured directly before each: it changes with what others do.
fn statements(house: &House, run: usize, directory: &Path, found: &mut Found) -> Result<()> {
    let now = now()?;
    let first = run * (CLIENTS + 1);
    let customer = |number| Customer::new(now, first + number, CONTRACTS);
    let customers: Vec<Customer> = (0..=CLIENTS).map(customer).collect();
    for statement in customers.iter().flat_map(|customer| &customer.before) {
        learn(house, statement)?;
    }
    let mut line = Line::open(house.address())?;
    let old = settled(house, &mut line)?;
    let (requests, ids): (Vec<_>, Vec<_>) =
        customers.iter().map(Customer::requests).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let (alone, together) = requests.split_last().context("there are clients")?;
    let wanted = old + together.iter().map(Vec::len).sum::<usize>() as u64;

    let (disk, sync_ms) = peers(&floor::measure(directory)?);
    let (((sent, took), spent), shown) = while_watched(house, wanted, || {
        house.cost(|| send(house.address(), together, Connection::Kept, 201))
    })?;
    let total: usize = sent.iter().map(Vec::len).sum();
    let begun = sent.iter().flatten().map(|one| one.begun).min().context("nothing was sent")?;
    let until_all = shown.last().context("nothing was shown")?.0 - begun;
    let acked: Vec<f64> = sent.iter().flatten().map(|one| ms(one.took)).collect();
    let until_shown = until_shown(house, &ids, &sent, &shown)?;
    found.add("statements_per_s", "1/s", per_second(total, took), &disk);
    found.add("statements_ack_p50_ms", "ms", percentile(&acked, 0.5), &sync_ms);
    found.add("statements_ack_p99_ms", "ms", percentile(&acked, 0.99), &sync_ms);
    found.add("statements_shown_per_s", "1/s", per_second(total, until_all), &disk);
    found.add("statements_shown_p50_ms", "ms", percentile(&until_shown, 0.5), &sync_ms);
    found.add("statements_shown_p99_ms", "ms", percentile(&until_shown, 0.99), &sync_ms);
    found.add("statements_per_core_s", "1/s", per_second(total, spent), &[]);

    let (_, sync_ms) = peers(&floor::measure(directory)?);
    let alone = [alone[..ALONE.min(alone.len())].to_vec()];
    let (sent, _) = send(house.address(), &alone, Connection::Kept, 201)?;
    let acked: Vec<f64> = sent.iter().flatten().map(|one| ms(one.took)).collect();
    found.add("statement_alone_ack_p50_ms", "ms", percentile(&acked, 0.5), &sync_ms);
    Ok(())
}

/// Figures of the disk, by name.
type Peers = [(&'static str, f64); 2];

/// What the disk allows: in one second, and the milliseconds of one.
fn peers(floor: &Floor) -> (Peers, Peers) {
    let per_second = [("fsync", floor.fsync), ("sqlite", floor.sqlite)];
    (per_second, per_second.map(|(name, number)| (name, 1e3 / number)))
}

/// Sends a statement that others need.
fn learn(house: &House, statement: &Envelope) -> Result<()> {
    house.ask(&post(statement)?, 201).map(drop).context("filling the registry")
}

/// Waits until everything is shown that is there, and says how much that is.
fn settled(house: &House, line: &mut Line) -> Result<u64> {
    let health = house.ask(&wire::get(paths::HEALTHZ, None), 200)?;
    let text = String::from_utf8_lossy(&health.body).into_owned();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let entries = words.iter().position(|word| word.starts_with("entries"));
    let size = entries.and_then(|at| words[at - 1].parse().ok());
    let size: u64 = size.with_context(|| format!("no size of the log in {text:?}"))?;
    watch(house, line, size, &AtomicBool::new(false))?;
    Ok(size)
}

/// When the checkpoint that is shown was first seen with so many entries.
type Shown = Vec<(Instant, u64)>;

/// Looks at the checkpoint until it covers so many entries.
fn watch(house: &House, line: &mut Line, wanted: u64, given_up: &AtomicBool) -> Result<Shown> {
    let mut seen = Shown::new();
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let size = house.shown(line)?;
        if seen.last().is_none_or(|(_, last)| *last < size) {
            deadline = Instant::now() + PATIENCE;
            seen.push((Instant::now(), size));
        }
        if size >= wanted {
            return Ok(seen);
        }
        ensure!(!given_up.load(Ordering::Relaxed), "nothing more will come");
        ensure!(Instant::now() < deadline, "{size} entries are shown instead of {wanted}");
        thread::park_timeout(LOOK);
    }
}

/// Does `work`, which makes the log grow to this size, and looks at what is shown meanwhile.
fn while_watched<T>(
    house: &House,
    wanted: u64,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Shown)> {
    let given_up = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher =
            scope.spawn(|| watch(house, &mut Line::open(house.address())?, wanted, &given_up));
        let done = work();
        given_up.store(done.is_err(), Ordering::Relaxed);
        let shown = watcher.join().expect("the watcher does not panic");
        Ok((done?, shown?))
    })
}

/// Of some statements: milliseconds from the request until a checkpoint covers them.
fn until_shown(
    house: &House,
    ids: &[Vec<StatementId>],
    sent: &[Vec<Sent>],
    shown: &Shown,
) -> Result<Vec<f64>> {
    let mut line = Line::open(house.address())?;
    let mut times = Vec::new();
    // The last list of ids belongs to whom nobody has heard yet.
    for (id, sent) in ids.iter().flatten().zip(sent.iter().flatten()).step_by(SAMPLE) {
        let answer = line.ask(&wire::get(&paths::proof(id), None))?;
        let proof = tlog::Proof::read(&answer.body).context("reading a proof")?;
        let at = shown.iter().find(|(_, size)| *size > proof.index);
        let (at, _) = at.context("a proof is of what is not shown")?;
        times.push(ms(at.saturating_duration_since(sent.begun)));
    }
    Ok(times)
}

/// Nodes ask for what has not changed, say that they live, and download the contract.
fn nodes(house: &House, grid: &mut Grid, run: usize, found: &mut Found) -> Result<()> {
    let mut polls = Vec::new();
    for node in &grid.nodes {
        let path = paths::inbox(node);
        let etag = house.ask(&wire::get(&path, None), 200)?.etag;
        polls.push(wire::get(&path, Some(&etag.context("an inbox without a validator")?)));
    }
    let rounds = |requests: &[Vec<u8>], each: usize| -> Vec<Vec<Vec<u8>>> {
        let all = requests.iter().cycle().take(each * POLLERS).cloned().collect::<Vec<_>>();
        all.chunks(each).map(<[_]>::to_vec).collect()
    };
    // By processor time and by the clock.
    let rates = |clients: &[Vec<Vec<u8>>], connection, status| -> Result<(f64, f64)> {
        let work = || send(house.address(), clients, connection, status);
        let ((sent, took), spent) = house.cost(work)?;
        let total = sent.iter().map(Vec::len).sum();
        Ok((per_second(total, spent), per_second(total, took)))
    };
    let checkpoint = [wire::get("/checkpoint", None)];
    let (least, _) = rates(&rounds(&checkpoint, POLLS), Connection::Kept, 200)?;
    let (kept, by_clock) = rates(&rounds(&polls, POLLS), Connection::Kept, 304)?;
    found.add("polls_304_per_core_s", "1/s", kept, &[("checkpoint", least)]);
    found.add("polls_304_per_s", "1/s", by_clock, &[]);
    let (least, _) = rates(&rounds(&checkpoint, POLLS_FRESH), Connection::Fresh, 200)?;
    let (fresh, _) = rates(&rounds(&polls, POLLS_FRESH), Connection::Fresh, 304)?;
    found.add("polls_304_new_connection_per_core_s", "1/s", fresh, &[("checkpoint", least)]);
    let cores = cores_for(MANY, INTERVAL, fresh);
    found.add("polls_1e6_nodes_60s_extrapolated", "cores", cores, &[]);

    let beats = grid.heartbeats(CLIENTS, BEATS, run * BEATS)?;
    let (per_core, by_clock) = rates(&beats, Connection::Kept, 200)?;
    found.add("heartbeats_per_core_s", "1/s", per_core, &[]);
    found.add("heartbeats_per_s", "1/s", by_clock, &[]);
    let cores = cores_for(MANY, INTERVAL, per_core);
    found.add("heartbeats_1e6_nodes_60s_extrapolated", "cores", cores, &[]);

    let contract = grid.world.contract();
    let bundle = |node| wire::get(&paths::bundle_for(&contract, node), None);
    let bundles: Vec<_> = grid.nodes.iter().map(bundle).collect();
    let (per_core, _) = rates(&rounds(&bundles, BUNDLES), Connection::Kept, 200)?;
    found.add("contract_1e4_bundles_per_core_s", "1/s", per_core, &[]);

    let node = *grid.nodes.first().context("there are nodes")?;
    let body = house.ask(&bundle(&node), 200)?.body;
    let judge = |body: &[u8], node| -> Result<f64> {
        let spent = wide::judge(body, &grid.world, node, now()?, VERDICTS)?;
        Ok(per_second(VERDICTS, spent))
    };
    // The same contract, but that it and the pool name one node.
    let narrow = serde_json::to_vec(&grid.world.agreed())?;
    let peer = judge(&narrow, grid.world.node_id())?;
    let verdicts = judge(&body, node)?;
    found.add("contract_1e4_verdicts_per_core_s", "1/s", verdicts, &[("one_node", peer)]);
    Ok(())
}

/// Bytes of the bundle, which do not hang on the machine.
fn weights(house: &House, grid: &Grid, name: &str) -> Result<Vec<Figure>> {
    let node = grid.nodes.first().context("there are nodes")?;
    let path = paths::bundle_for(&grid.world.contract(), node);
    let weight = wide::weigh(&house.ask(&wire::get(&path, None), 200)?.body)?;
    let figure = |id: &str, number| Figure::new(&format!("{name}.{id}"), "bytes", count(number), 1);
    Ok(vec![
        figure("contract_1e4_node_bytes", weight.all),
        figure("contract_1e4_node_pool_bytes", weight.pool),
        figure("contract_1e4_node_identities_bytes", weight.identities),
        figure("contract_1e4_node_own_bytes", weight.own),
        figure("contract_1e4_node_path_bytes", weight.path),
    ])
}

/// Bytes of proofs, which hang on nothing but the size of the log.
fn proofs() -> Result<Vec<Figure>> {
    let statement = World::new(now()?).identity("owner");
    let mut figures = Vec::new();
    for (entries, name) in LOGS {
        let size = proofs::size(&statement, entries, house::QUORUM)?;
        let figure = |what: &str, unit, number| {
            Figure::new(&format!("registry.proof_{name}_{what}"), unit, count(number), 1)
        };
        figures.push(figure("bytes", "bytes", size.bytes));
        figures.push(figure("hashes", "count", size.hashes));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_each_is_reported_with_that_of_its_peers() {
        let mut found = Found::new("registry");
        for (ours, disk) in [(3.0, 10.0), (1.0, 30.0), (2.0, 20.0)] {
            found.add("second_first", "1/s", ours, &[("fsync", disk)]);
            found.add("first", "ms", ours * 2.0, &[]);
        }
        let figures = found.figures();
        assert_eq!(figures[0].id, "registry.second_first", "in order of their coming");
        assert_eq!((figures[0].ours, figures[0].n_runs), (2.0, 3));
        assert_eq!(figures[0].ratio(), Some(0.1));
        assert_eq!((figures[1].ours, figures[1].unit), (4.0, "ms"));
        assert!(figures[1].peers.is_empty());
    }
}
