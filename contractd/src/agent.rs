//! The life of contractd: finds out who the node is, then turns the reconciler for ever.

use crate::{
    carriers::{self, Carriers},
    clock::{self, Worth},
    console::{self, Console, fact},
    database::Database,
    log::Asked,
    network::{self, Event, Order},
    patience::Patience,
    probe,
    reconcile::{Reconciler, Threads},
    register::{self, Machine},
    results::Results,
    scrub,
};
use anyhow::Context as _;
use contract::{
    Capacity, Envelope, IdentityId, NodeId, SigningKey, Trust, node::node_id, report::Heartbeat,
};
use flist::Store;
use node_api::{
    boot::BootConfig,
    init::{Fact, Level},
    netd, paths,
    storaged::{self, IdentityReply},
};
use registry_api::Client;
use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The node is looked at this often even when nothing comes.
const TURN: Duration = Duration::from_millis(500);
/// Events that are taken between two looks at the node.
const EVENTS_MAX: usize = 32;
/// How often the machine's own description is looked at, in milliseconds.
const MACHINE_MS: u64 = 5_000;
/// How soon it is looked at again when something that the node waits for was missing.
const LOOK_AGAIN_MS: u64 = 500;
/// How often the node registers again: often until its farm has consented, then rarely.
const REGISTER_MS: u64 = 10_000;
const REGISTER_ADOPTED_MS: u64 = 600_000;
/// Until the registry says otherwise, in milliseconds.
const HEARTBEAT_MS: u64 = 30_000;
/// How often the registry is asked for the node's last result until it answers.
const CHAIN_MS: u64 = 10_000;
/// The pause after results that the registry did not take, and the longest one.
const RESULTS_MS: u64 = 2_000;
const RESULTS_MAX_MS: u64 = 30_000;
/// Contracts of which a heartbeat speaks: it has a largest size.
const STANDINGS_MAX: usize = 900;
/// Results that are sent at once.
const RESULTS_AT_ONCE: u32 = 64;

/// Who the node is. Fixed for the life of the process.
struct Node {
    boot: BootConfig,
    boot_id: String,
    image: String,
    id: NodeId,
    farm: Option<IdentityId>,
    seed: [u8; 32],
}

impl Node {
    fn key(&self) -> SigningKey {
        SigningKey::from_seed(&self.seed)
    }
}

/// Runs until the process is ended.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut console = Console::default();
    let boot = daemon::boot_config().context("reading the boot configuration")?;
    let boot_id = clock::boot_id().context("reading the boot id")?;
    let image = std::fs::read_to_string(paths::VERSION).unwrap_or_else(|_| "unknown".to_owned());
    let seed = identity(&mut console)?;
    let id = node_id(&SigningKey::from_seed(&seed).public());
    let farm = boot.farm.as_deref().and_then(|farm| farm.parse().ok());
    let node = Node { boot, boot_id, image: image.trim().to_owned(), id, farm, seed };

    let (database, problem) =
        Database::open(Path::new(paths::STATE)).context("opening the node's state")?;
    if let Some(problem) = problem {
        daemon::warn!("{problem}");
        console.show("state", vec![fact("state", problem, Level::Warning)]);
    }
    let store = Arc::new(Store::open(Path::new(paths::STORE)).context("opening the flist store")?);
    let (orders, take_orders) = unbounded_channel();
    let (events, take_events) = channel();
    let (carriers, again) = Carriers::new();
    carriers::spawn(node.id, Arc::clone(&carriers), again, events.clone())
        .context("starting the thread that looks for carriers")?;
    let wires = Wires { store: Arc::clone(&store), carriers, orders: take_orders, events };
    spawn_network(&node, wires)?;

    let trust = Trust {
        network: node.boot.network.clone(),
        // A node without a farm trusts nobody's pool.
        farm: node.farm.unwrap_or(IdentityId([0; 32])),
        node: node.id,
        free: Capacity::default(),
        past: contract::Past::default(),
    };
    let results = Results {
        network: node.boot.network.clone(),
        node: node.id,
        boot: node.boot_id.clone(),
        key: node.key(),
    };
    let probes = probe::spawn(paths::LAUNCHER_SOCKET.into())
        .context("starting the thread of health checks")?;
    let scrubs = scrub::spawn(&store).context("starting the threads that read the store")?;
    let threads = Threads { orders, probes, scrubs };
    let boot_id = node.boot_id.clone();
    let mut reconciler = Reconciler::new(trust, boot_id, database, results, store, threads)
        .context("reading the node's state")?;
    reconciler.ask_log(Asked::read(&node.boot.log)).context("noting which log is asked")?;
    console.show("node", console::node(&node.id.to_string(), &node.boot, &node.image));
    daemon::ready().context("saying that contractd is ready")?;
    let patience = Patience::new(clock::boot_ms().context("reading the boot clock")?);
    Agent::new(node, reconciler, console, patience).turn_for_ever(&take_events)
}

/// The node's secret, from storaged. While there is none, the reason is shown and it asks again.
fn identity(console: &mut Console) -> anyhow::Result<[u8; 32]> {
    loop {
        let IdentityReply { seed, problem, .. } =
            ipc::call(paths::STORAGED_SOCKET, &storaged::Identity {})
                .context("asking for the node's identity")?;
        let seed: Option<[u8; 32]> =
            seed.and_then(|text| text.parse::<NodeId>().ok()).map(|seed| seed.0);
        if let Some(seed) = seed {
            return Ok(seed);
        }
        let problem = problem.unwrap_or_else(|| "storaged gave none".to_owned());
        console.show("node", vec![fact("identity", problem, Level::Bad)]);
        thread::park_timeout(Duration::from_millis(MACHINE_MS));
    }
}

/// What the network thread works with.
struct Wires {
    store: Arc<Store>,
    carriers: Arc<Carriers>,
    orders: UnboundedReceiver<Order>,
    events: Sender<Event>,
}

fn spawn_network(node: &Node, wires: Wires) -> anyhow::Result<()> {
    let Wires { store, carriers, orders, events } = wires;
    let client = match node.boot.registries.as_slice() {
        [] => None,
        registries => {
            let client = Client::new(registries).context("preparing the registry's client")?;
            Some(client.of_network(&node.boot.network))
        }
    };
    if client.is_none() {
        let text = "none given: add zos.registry=http://... to the command line";
        drop(events.send(Event::Registry(Some(text.to_owned()))));
    }
    let id = node.id;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the network runtime")?;
    thread::Builder::new()
        .name("network".to_owned())
        .spawn(move || {
            runtime.block_on(network::serve(client, id, store, carriers, orders, events));
        })
        .context("starting the network thread")?;
    Ok(())
}

struct Agent {
    node: Node,
    reconciler: Reconciler,
    console: Console,
    machine: Option<Machine>,
    patience: Patience,
    /// Boot clock in milliseconds of the next look, registration and heartbeat.
    machine_at: u64,
    register_at: u64,
    heartbeat_at: u64,
    heartbeat_ms: u64,
    heartbeat_seq: u64,
    adopted: bool,
    registered: bool,
    registry_problem: Option<String>,
    /// What is to be said of the carriers that are here.
    carried: Vec<Fact>,
    results_in_flight: bool,
    /// Boot clock in milliseconds: when results may be sent again.
    results_at: u64,
    /// The pause after the last results, which grows while the registry takes none.
    results_wait_ms: u64,
    /// Boot clock of the next question for the node's last result.
    chain_at: u64,
}

impl Agent {
    fn new(node: Node, reconciler: Reconciler, console: Console, patience: Patience) -> Self {
        Self {
            node,
            reconciler,
            console,
            machine: None,
            patience,
            machine_at: 0,
            register_at: 0,
            heartbeat_at: 0,
            heartbeat_ms: HEARTBEAT_MS,
            heartbeat_seq: 0,
            adopted: false,
            registered: false,
            registry_problem: None,
            carried: Vec::new(),
            results_in_flight: false,
            results_at: 0,
            results_wait_ms: 0,
            chain_at: 0,
        }
    }

    fn turn_for_ever(&mut self, events: &Receiver<Event>) -> anyhow::Result<()> {
        loop {
            let mut wait = if self.reconciler.is_behind { Duration::ZERO } else { TURN };
            // Few between two looks at the node, and of bundles, which are work, one: whoever sends
            // many starves nobody.
            for _ in 0..EVENTS_MAX {
                let event = match events.recv_timeout(wait) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => {
                        anyhow::bail!("the network thread has ended")
                    }
                };
                let is_work = matches!(event, Event::Bundle { .. } | Event::Carried { .. });
                self.take(event)?;
                if is_work {
                    break;
                }
                wait = Duration::ZERO;
            }
            self.turn().context("using the node's state")?;
        }
    }

    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Registered { adopted } => {
                self.registered = true;
                self.adopted = adopted;
                let wait = if adopted { REGISTER_ADOPTED_MS } else { REGISTER_MS };
                self.register_at = clock::boot_ms()?.saturating_add(wait);
            }
            Event::Unknown => {
                self.registered = false;
                self.register_at = self.register_at.min(clock::boot_ms()?.saturating_add(1000));
            }
            Event::Registry(problem) => self.registry_problem = problem,
            Event::Contact => self.reconciler.take_contact(),
            Event::Pulled => self.reconciler.take_pulled(),
            Event::LastResult(last) => self.reconciler.take_last_result(last)?,
            Event::Interval(seconds) => {
                self.heartbeat_ms = u64::from(seconds.clamp(5, 3600)) * 1000;
            }
            Event::Acknowledged(seqs) => {
                self.results_in_flight = false;
                let dropped = self.reconciler.database.acknowledge(&seqs)?;
                self.results_wait_ms = if dropped == 0 {
                    (self.results_wait_ms * 2).clamp(RESULTS_MS, RESULTS_MAX_MS)
                } else {
                    0
                };
                self.results_at = clock::boot_ms()?.saturating_add(self.results_wait_ms);
            }
            Event::Bundle { contract, bundle, room } => {
                self.reconciler.take_bundle(contract, &bundle)?;
                drop((bundle, room));
            }
            Event::Carried { contract, bundle, room } => {
                self.reconciler.take_bundle(contract, &bundle)?;
                drop((bundle, room));
            }
            Event::Carriers { facts, came, went } => {
                self.reconciler.take_carriers(came, went);
                self.carried = facts;
            }
            Event::CarriedLog { shown, asked } => {
                self.reconciler.take_carried_log(shown, &asked, clock::now()?)?;
            }
            Event::Ordered(ordered) => self.reconciler.take_ordered(ordered.as_deref()),
            Event::OrdersUnknown => self.reconciler.say_nothing_of_orders(),
            Event::Log { shown, asked, problem } => {
                self.reconciler.take_log(shown, &asked, problem, clock::now()?)?;
            }
            Event::Released { contract, flist, record } => {
                self.reconciler.take_release(contract, flist, &record)?;
            }
            Event::Fetched { contract, flist, outcome } => {
                self.reconciler.take_fetched(contract, flist, outcome);
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let now_ms = clock::boot_ms()?;
        if now_ms >= self.machine_at {
            self.machine_at = now_ms.saturating_add(MACHINE_MS);
            self.look_at_machine(now_ms);
        }
        let Some(machine) = &self.machine else { return Ok(()) };
        if !self.patience.may_judge() {
            return Ok(());
        }
        let may_sign = self.patience.may_sign(&machine.network, now_ms);
        self.reconciler.turn()?;
        if may_sign {
            self.register(now_ms)?;
            self.ask_for_chain(now_ms);
            self.send_results(now_ms)?;
            self.heartbeat(now_ms)?;
        }
        self.show();
        Ok(())
    }

    /// Asks the other daemons what the machine has. What cannot be had now stays as it was.
    fn look_at_machine(&mut self, now_ms: u64) {
        let asked = (|| {
            anyhow::Ok(Machine {
                inventory: inventory::read(Path::new("/"))?,
                disks: ipc::call(paths::STORAGED_SOCKET, &storaged::Disks {})?,
                network: ipc::call(paths::NETD_SOCKET, &netd::Status {})?,
                degraded: self.reconciler.log.alarm().into_iter().collect(),
                scrubbed: self.reconciler.scrubbed(),
            })
        })();
        match asked {
            Ok(machine) => {
                self.reconciler.trust.free = register::capacity(&machine);
                self.reconciler.pools = register::pools(&machine);
                self.reconciler.worth = if machine.network.time.synchronised {
                    Worth::Confirmed
                } else {
                    Worth::Unconfirmed
                };
                self.patience.note(&machine.network, now_ms);
                if !self.patience.may_judge() {
                    // The first verdict waits for it.
                    self.machine_at = self.machine_at.min(now_ms.saturating_add(LOOK_AGAIN_MS));
                }
                self.machine = Some(machine);
            }
            Err(error) => {
                // At the first look, netd may still be starting.
                if self.machine.is_none() && self.patience.is_early(now_ms) {
                    self.machine_at = self.machine_at.min(now_ms.saturating_add(LOOK_AGAIN_MS));
                } else {
                    daemon::warn!("looking at the machine: {error:#}");
                }
            }
        }
    }

    fn register(&mut self, now_ms: u64) -> anyhow::Result<()> {
        let (Some(machine), Some(farm)) = (&self.machine, self.node.farm) else { return Ok(()) };
        let key = self.node.key();
        let network = &self.node.boot.network;
        let statement = register::describe(machine, &key, network, farm, &self.node.image);
        let database = &self.reconciler.database;
        let content = serde_json::to_string(&statement)?;
        let changed = database.fact("node-content")?.as_deref() != Some(content.as_str());
        if now_ms < self.register_at && !(changed && self.registered) {
            return Ok(());
        }
        self.register_at = now_ms.saturating_add(REGISTER_MS);
        let now = clock::now()?;
        let Some(envelope) = register::sign(statement, database, &key, now)? else { return Ok(()) };
        let token = self.node.boot.token.as_deref().and_then(|token| token.parse::<NodeId>().ok());
        let adoption = match token {
            Some(seed) => {
                let token = SigningKey::from_seed(&seed.0);
                register::adoption(database, &token, network, farm, self.node.id, now)?
            }
            None => None,
        };
        let (node, adoption) = (Box::new(envelope), adoption.map(Box::new));
        self.reconciler.order(Order::Register { node, adoption });
        Ok(())
    }

    fn ask_for_chain(&mut self, now_ms: u64) {
        if !self.reconciler.chain_is_known && self.registered && now_ms >= self.chain_at {
            self.chain_at = now_ms.saturating_add(CHAIN_MS);
            self.reconciler.order(Order::LastResult(self.node.key().public()));
        }
    }

    fn send_results(&mut self, now_ms: u64) -> anyhow::Result<()> {
        if self.results_in_flight || !self.registered || now_ms < self.results_at {
            return Ok(());
        }
        let results = self.reconciler.database.outbox(RESULTS_AT_ONCE)?;
        if !results.is_empty() {
            self.results_in_flight = true;
            self.reconciler.order(Order::Results(results));
        }
        Ok(())
    }

    fn heartbeat(&mut self, now_ms: u64) -> anyhow::Result<()> {
        if now_ms < self.heartbeat_at || !self.registered {
            return Ok(());
        }
        self.heartbeat_at = now_ms.saturating_add(self.heartbeat_ms);
        self.heartbeat_seq = self.heartbeat_seq.max(now_ms);
        let heartbeat = Heartbeat {
            network: self.node.boot.network.clone(),
            node: self.node.id,
            boot: self.node.boot_id.clone(),
            // The boot clock counts up through restarts of this process.
            seq: self.heartbeat_seq.max(1),
            at: clock::now()?,
            uptime_s: now_ms / 1000,
            image: self.node.image.clone(),
            free: self.reconciler.free,
            contracts: self
                .reconciler
                .standings()
                .into_iter()
                .map(|(one, _)| one)
                .take(STANDINGS_MAX)
                .collect(),
        };
        match Envelope::seal(&heartbeat, &[&self.node.key()]) {
            Ok(envelope) => self.reconciler.order(Order::Heartbeat(Box::new(envelope))),
            Err(error) => daemon::warn!("signing a heartbeat: {}", daemon::chain(&error)),
        }
        Ok(())
    }

    fn show(&mut self) {
        let Some(machine) = &self.machine else { return };
        self.console.show("network", console::network(machine));
        self.console.show("disks", console::disks(machine));
        let registration = match (&self.registry_problem, self.registered, self.adopted) {
            (Some(problem), ..) => fact("registry", problem, Level::Warning),
            (None, false, _) => fact("registry", "registering", Level::Plain),
            (None, true, false) => {
                let text = "registered; waits for the farm: 3bot farm approve";
                fact("registry", text, Level::Warning)
            }
            (None, true, true) => fact("registry", "registered and adopted", Level::Good),
        };
        self.console.show("registration", vec![registration, self.reconciler.log.fact()]);
        self.console.show("carried", self.carried.clone());
        self.console.show("contracts", console::contracts(&self.reconciler.standings()));
        let problems: Vec<_> = self
            .reconciler
            .complaints()
            .map(|(about, text)| fact(about, text, Level::Warning))
            .collect();
        self.console.show("problems", problems);
    }
}
