//! The one owner of the node's network: hears, reads, plans, applies, and answers.
//!
//! ```text
//!   calls ───────────┐
//!   link events ─────┤                ┌► dhcp tasks (carrier)
//!   dhcp tasks ──────┼──► Owner ──────┼► kernel, firewall
//!   time thread ─────┤                ├► time thread (servers)
//!   audit timer ─────┘                └► resolv.conf
//! ```
//!
//! Whatever wakes it, it does the same: [`Owner::converge`]. A lost event costs time, until the
//! next audit, and nothing else.

use crate::{
    apply,
    containers::{self, Containers, Refusal},
    dhcp::{
        client::Lease,
        message::Mac,
        task::{self, Target, View},
    },
    dhcp6,
    firewall::{self, FirewallError},
    kernel::{self, Insides, Nic, ReadError, Uplinks},
    namespace,
    paths::RESOLV_CONF,
    plan::{Fact, Net, Step, plan},
    status,
    store::{self, Store, StoreError},
    want::{self, NameServer, Uplink},
};
use netd::{clock, rdnss::Announced};
use node_api::{
    boot::{AddressConfig, BootConfig},
    netd::{AttachReply, Attachment, Port, StatusReply, Time},
    paths::{ALL_READY, NETNS},
};
use rtnetlink::Handle;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::mpsc::Sender,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

/// What the kernel has is compared with what it should have at least this often.
const AUDIT: Duration = Duration::from_mins(1);
/// The same, while something could not be done.
const RETRY: Duration = Duration::from_secs(5);
/// The services start within this time, or the network does not wait for them.
const SERVICES_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether they have.
const SERVICES_LOOK: Duration = Duration::from_millis(100);
/// Link events come in bursts; a burst is one change.
const SETTLE: Duration = Duration::from_millis(50);
/// What is heard so soon after a container came or went is mostly of its own cable, which is known.
const ECHO: Duration = Duration::from_secs(1);
/// The kernel may take along more than was removed, which the next round repairs.
const ROUNDS_MAX: usize = 4;
/// A node with more network cards than this is left with some unused.
const NICS_MAX: usize = 32;
const CONTAINERS_FILE: &str = "containers.json";

/// A call, with the way back to the caller.
#[derive(Debug)]
pub(crate) enum Request {
    Status(oneshot::Sender<Result<StatusReply, ReadError>>),
    Attach(String, Vec<Port>, oneshot::Sender<Result<AttachReply, CallError>>),
    Detach(String, oneshot::Sender<Result<(), CallError>>),
    Attachments(oneshot::Sender<Vec<Attachment>>),
}

/// Why a container could not be attached or detached.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("remembering the container")]
    Store(#[from] StoreError),
    #[error("the firewall is not in force: {0}")]
    Firewall(String),
    #[error("the network of container {id} is not complete: {problem}")]
    Incomplete { id: String, problem: String },
}

/// The daemon cannot go on; init starts it again.
#[derive(Debug, Error)]
pub(crate) enum OwnerError {
    #[error("the kernel's link events ended")]
    EventsEnded,
}

/// What the owner is given at the start.
pub(crate) struct Parts {
    pub(crate) config: BootConfig,
    pub(crate) node: Handle,
    pub(crate) store: Store,
    pub(crate) time: watch::Receiver<Time>,
    pub(crate) time_servers: Sender<Vec<String>>,
    /// Name servers that routers announce.
    pub(crate) announced: watch::Receiver<Vec<Announced>>,
}

/// The state that only the owner changes.
pub(crate) struct Owner {
    parts: Parts,
    containers: Containers,
    clients: BTreeMap<String, Client>,
    /// Names of the physical links by their numbers.
    links: BTreeMap<u32, String>,
    /// Cloned into every client; what comes out says that some lease changed.
    lease_changed: mpsc::Sender<()>,
    /// The rules in force.
    rules: Option<String>,
    insides: Insides,
    /// When a container came or went last.
    rewired: Option<Instant>,
    problems: Problems,
    /// As told to the time thread.
    time_servers: Vec<String>,
}

/// The DHCP clients of one link.
struct Client {
    mac: Mac,
    carrier: watch::Sender<bool>,
    view: watch::Receiver<View>,
    /// For DHCPv6.
    link: watch::Sender<dhcp6::task::Link>,
    view6: watch::Receiver<dhcp6::task::View>,
    tasks: [AbortHandle; 4],
}

impl Client {
    /// Whether one that has not answered yet may name a time server: an address that a router gives
    /// is there long before.
    fn may_name_servers(&self) -> bool {
        /// Whoever has not answered by then is not there.
        const TRIES_MAX: u32 = 3;
        let is_waiting = |unanswered: Option<(u32, Duration)>| {
            unanswered.is_some_and(|(tries, _)| tries < TRIES_MAX)
        };
        let (v4, v6) = (self.view.borrow(), self.view6.borrow());
        *self.carrier.borrow()
            && ((v4.lease.is_none() && is_waiting(v4.unanswered))
                || (v6.lease.is_none() && is_waiting(v6.unanswered)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What did not work in the last round.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Problems {
    pub(crate) firewall: Option<String>,
    pub(crate) read: Option<String>,
    /// The step that failed, and why.
    pub(crate) steps: Vec<(Step, String)>,
}

impl Problems {
    fn any(&self) -> bool {
        self.firewall.is_some() || self.read.is_some() || !self.steps.is_empty()
    }
}

/// Runs until nobody can call any more. `events` brings one item for each change of a link.
pub(crate) async fn run(
    parts: Parts,
    mut requests: mpsc::Receiver<Request>,
    mut events: mpsc::Receiver<()>,
) -> Result<(), OwnerError> {
    let (lease_changed, mut lease_changes) = mpsc::channel(1);
    let mut owner = Owner::start(parts, lease_changed).await;
    owner.let_services_start(&mut requests).await;
    let mut audit = Instant::now() + AUDIT;
    loop {
        // Whatever woke us last: the kernel is read again, and then on every event.
        owner.converge().await;
        if owner.problems.any() {
            audit = audit.min(Instant::now() + RETRY);
        }
        let mut due = audit;
        // Calls are answered between two looks; those that change something converge themselves.
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => owner.serve(request).await,
                    None => return Ok(()),
                },
                event = events.recv() => {
                    event.ok_or(OwnerError::EventsEnded)?;
                    let now = Instant::now();
                    let is_echo = owner.rewired.is_some_and(|at| now < at + ECHO);
                    due = due.min(now + if is_echo { ECHO } else { SETTLE });
                }
                _ = lease_changes.recv() => break,
                // The next audit forgets what has ended.
                Ok(()) = owner.parts.announced.changed() => break,
                () = sleep_until(due) => {
                    if due == audit {
                        audit = Instant::now() + AUDIT;
                        // Replacing rules by the same ones costs no packet, so nobody asks whether
                        // they are still there.
                        owner.rules = None;
                        owner.insides.forget_all();
                    }
                    break;
                }
            }
        }
    }
}

impl Owner {
    async fn start(parts: Parts, lease_changed: mpsc::Sender<()>) -> Self {
        if let Err(error) = namespace::sweep() {
            daemon::warn!("removing leftovers in {NETNS}: {error}");
        }
        let containers = match parts.store.read(CONTAINERS_FILE) {
            Ok(Some(containers)) => containers,
            Ok(None) => rebuild(&parts.node).await,
            Err(error) => {
                daemon::warn!("the list of containers is lost: {}", daemon::chain(&error));
                rebuild(&parts.node).await
            }
        };
        Self {
            parts,
            containers,
            clients: BTreeMap::new(),
            links: BTreeMap::new(),
            lease_changed,
            rules: None,
            insides: Insides::default(),
            rewired: None,
            problems: Problems::default(),
            time_servers: Vec::new(),
        }
    }

    /// Leaves the processor to the services that start: nft is a large program, and nobody has an
    /// address yet who could need its rules. Who wants a container is not kept waiting.
    async fn let_services_start(&mut self, requests: &mut mpsc::Receiver<Request>) {
        let patience = Instant::now() + SERVICES_MAX;
        while Instant::now() < patience && !Path::new(ALL_READY).exists() {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request @ Request::Status(_)) => self.serve(request).await,
                    Some(request) => return self.serve(request).await,
                    None => return,
                },
                () = sleep(SERVICES_LOOK) => {}
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        // A caller who is gone needs no answer.
        match request {
            Request::Status(reply) => drop(reply.send(self.status().await)),
            Request::Attach(id, ports, reply) => drop(reply.send(self.attach(&id, &ports).await)),
            Request::Detach(id, reply) => drop(reply.send(self.detach(&id).await)),
            Request::Attachments(reply) => drop(reply.send(self.containers.addresses())),
        }
    }

    async fn status(&self) -> Result<StatusReply, ReadError> {
        let uplinks = kernel::read_uplinks(&self.parts.node).await?;
        let views = self.clients.iter().map(|(link, client)| {
            let views = (client.view.borrow().clone(), client.view6.borrow().clone());
            (link.clone(), views)
        });
        let server_known = !self.time_servers.is_empty()
            || !self.parts.config.ntp.is_empty()
            || self.clients.values().any(Client::may_name_servers);
        let time = Time { server_known, ..self.parts.time.borrow().clone() };
        Ok(status::reply(&uplinks, &views.collect(), &self.problems, self.dns(), time))
    }

    async fn attach(&mut self, id: &str, ports: &[Port]) -> Result<AttachReply, CallError> {
        containers::check_metrics(ports, self.parts.config.metrics.as_ref())?;
        let former = self.containers.clone();
        let dns = self.dns();
        let next = former.attach(id, ports, &dns)?;
        let is_new = !former.table.contains_key(id);
        self.remember(next)?;
        let facts = self.converge().await;
        self.rewired = Some(Instant::now());
        if let Err(error) = self.check_attached(id, &facts) {
            self.remember(former)?;
            self.converge().await;
            return Err(error);
        }
        let address = self.containers.table[id].address();
        if is_new {
            daemon::info!("container {id} attached with address {address}");
        }
        Ok(AttachReply {
            netns: namespace::path(id).to_string_lossy().into_owned(),
            address: address.into(),
            dns,
        })
    }

    fn check_attached(&self, id: &str, have: &BTreeSet<Fact>) -> Result<(), CallError> {
        if let Some(problem) = &self.problems.firewall {
            return Err(CallError::Firewall(problem.clone()));
        }
        let missing = want::container_facts(id, &self.containers.table[id])
            .into_iter()
            .find(|fact| !have.contains(fact));
        match missing {
            None => Ok(()),
            Some(fact) => Err(self.incomplete(id, &fact)),
        }
    }

    async fn detach(&mut self, id: &str) -> Result<(), CallError> {
        containers::check_id(id)?;
        let was_attached = self.containers.table.contains_key(id);
        self.remember(self.containers.detach(id))?;
        let facts = self.converge().await;
        self.rewired = Some(Instant::now());
        let left = facts.iter().find(|fact| fact.is_of_container(id));
        if let Some(fact) = left {
            return Err(self.incomplete(id, fact));
        }
        if was_attached {
            daemon::info!("container {id} detached");
        }
        Ok(())
    }

    fn incomplete(&self, id: &str, fact: &Fact) -> CallError {
        let said = self.problems.steps.iter().find(|(step, _)| step.fact() == fact);
        let said = said.map(|(_, problem)| problem.clone()).or_else(|| self.problems.read.clone());
        let problem = said.unwrap_or_else(|| fact.to_string());
        CallError::Incomplete { id: id.to_owned(), problem }
    }

    fn remember(&mut self, containers: Containers) -> Result<(), StoreError> {
        if containers != self.containers {
            self.parts.store.write(CONTAINERS_FILE, &containers)?;
            self.containers = containers;
        }
        Ok(())
    }

    /// Makes the kernel hold what it should, as far as that can be done now. Gives what it holds.
    async fn converge(&mut self) -> BTreeSet<Fact> {
        let mut problems = Problems { firewall: self.enforce_rules().await, ..Problems::default() };
        let mut facts = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let uplinks;
            (uplinks, facts) = match kernel::read(&self.parts.node, &mut self.insides).await {
                Ok(read) => read,
                Err(error) => {
                    problems.read = Some(daemon::chain(&error));
                    break;
                }
            };
            self.follow(&uplinks.nics);
            self.links = uplinks.nics.iter().map(|nic| (nic.index, nic.link.clone())).collect();
            let steps = plan(&self.want(&uplinks), &facts);
            if steps.is_empty() || !problems.steps.is_empty() {
                break;
            }
            let failures = apply::apply(&self.parts.node, &steps).await;
            self.insides.forget(&steps);
            let has_removed = steps.iter().any(|step| matches!(step, Step::Remove(_)));
            if failures.is_empty() && !has_removed {
                // The kernel has confirmed each. Only removing takes along what nobody named.
                facts.extend(steps.iter().map(|step| step.fact().clone()));
                break;
            }
            problems.steps = failures
                .into_iter()
                .map(|failure| (failure.step.clone(), daemon::chain(&failure)))
                .collect();
        }
        self.spread_servers();
        self.note(problems);
        facts
    }

    /// Closes before it opens: the rules come first, and stay when the rest fails.
    async fn enforce_rules(&mut self) -> Option<String> {
        let BootConfig { lan, metrics, .. } = &self.parts.config;
        let rules = firewall::rules(&self.containers, *lan, metrics.as_ref(), &self.dns());
        if self.rules.as_ref() == Some(&rules) {
            return None;
        }
        match firewall::apply(&rules).await {
            Ok(()) => {
                self.rules = Some(rules);
                None
            }
            Err(
                error @ (FirewallError::Run(_) | FirewallError::Stuck | FirewallError::Refused(_)),
            ) => Some(daemon::chain(&error)),
        }
    }

    /// Logs what is new among the problems.
    fn note(&mut self, problems: Problems) {
        let before = self.problems.sentences();
        for sentence in problems.sentences() {
            if !before.contains(&sentence) {
                daemon::warn!("{sentence}");
            }
        }
        self.problems = problems;
    }

    /// One DHCP client for each physical link, and none for links that are gone.
    fn follow(&mut self, nics: &[Nic]) {
        match self.parts.config.address {
            AddressConfig::Static { .. } => {}
            AddressConfig::Automatic => {
                let macs: BTreeMap<&str, Mac> =
                    nics.iter().map(|nic| (nic.link.as_str(), nic.mac)).collect();
                self.clients.retain(|link, client| macs.get(link.as_str()) == Some(&client.mac));
                for nic in nics.iter().take(NICS_MAX) {
                    self.follow_one(nic);
                }
            }
        }
    }

    fn follow_one(&mut self, nic: &Nic) {
        let told = dhcp6::task::Link { carrier: nic.carrier, need: nic.need };
        if let Some(client) = self.clients.get(&nic.link) {
            client
                .carrier
                .send_if_modified(|carrier| std::mem::replace(carrier, nic.carrier) != nic.carrier);
            client.link.send_if_modified(|link| std::mem::replace(link, told) != told);
            return;
        }
        daemon::info!("{}: {} with driver {}", nic.link, status::mac(nic.mac), nic.driver);
        let target = Target { link: nic.link.clone(), mac: nic.mac };
        let (carrier, carrier_seen) = watch::channel(nic.carrier);
        let (view_shown, view) = watch::channel(View::default());
        let (link, link_seen) = watch::channel(told);
        let (view6_shown, view6) = watch::channel(dhcp6::task::View::default());
        let (store, changed) = (&self.parts.store, &self.lease_changed);
        let tasks = [
            tokio::spawn(task::run(target.clone(), store.clone(), carrier_seen, view_shown)),
            tokio::spawn(dhcp6::task::run(target, store.clone(), link_seen, view6_shown)),
            tokio::spawn(tell_changes(view.clone(), |view| view.lease.clone(), changed.clone())),
            tokio::spawn(tell_changes(
                view6.clone(),
                |view| (view.lease.clone(), view.servers.clone()),
                changed.clone(),
            )),
        ];
        let tasks = tasks.map(|task| task.abort_handle());
        let client = Client { mac: nic.mac, carrier, view, link, view6, tasks };
        self.clients.insert(nic.link.clone(), client);
    }

    fn want(&self, uplinks: &Uplinks) -> BTreeSet<Fact> {
        let nics = &uplinks.nics;
        let wanted: Vec<Uplink> = match &self.parts.config.address {
            AddressConfig::Static { address, prefix, gateway } => {
                let net = Net { address: *address, prefix: *prefix };
                static_uplinks(nics, net, *gateway)
            }
            AddressConfig::Automatic => nics.iter().map(|nic| self.leased_uplink(nic)).collect(),
        };
        want::facts(&wanted, &self.containers)
    }

    fn leased_uplink(&self, nic: &Nic) -> Uplink {
        let lease =
            self.clients.get(&nic.link).and_then(|client| client.view.borrow().lease.clone());
        let net = |lease: &Lease| Net { address: lease.address.into(), prefix: lease.prefix };
        Uplink {
            link: nic.link.clone(),
            carrier: nic.carrier,
            address: lease.as_ref().map(net),
            gateway: lease.and_then(|lease| lease.router).map(IpAddr::V4),
            address6: self
                .clients
                .get(&nic.link)
                .and_then(|client| client.view6.borrow().lease.as_ref().map(|lease| lease.address)),
        }
    }

    /// Name servers in use.
    fn name_servers(&self) -> Vec<NameServer> {
        let v4 = self.leased(|view| view.lease.iter().flat_map(|l| l.dns.clone()).collect());
        let v6 = self.leased6(|view| view.servers.dns.clone());
        let v4 = v4.into_iter().map(IpAddr::V4).map(NameServer::from);
        let v6 = v6.into_iter().map(IpAddr::V6).map(NameServer::from);
        let all: Vec<NameServer> = v4.chain(v6).chain(self.announced()).collect();
        want::dns(&self.parts.config.dns, &all)
    }

    /// Name servers that routers announce.
    fn announced(&self) -> Vec<NameServer> {
        let now = clock::since_boot();
        let table = self.parts.announced.borrow();
        let alive = table.iter().filter(|known| now < known.ends_at);
        let server = |known: &Announced| {
            let is_local = known.server.is_unicast_link_local();
            let link = self.links.get(&known.link).cloned();
            (!is_local || link.is_some()).then(|| NameServer {
                address: known.server.into(),
                link: link.filter(|_| is_local),
            })
        };
        alive.filter_map(server).collect()
    }

    /// The same, for those who reach them without naming a link.
    fn dns(&self) -> Vec<IpAddr> {
        let servers = self.name_servers().into_iter().filter(|server| server.link.is_none());
        servers.map(|server| server.address).collect()
    }

    fn leased<T>(&self, get: impl Fn(&View) -> Vec<T>) -> Vec<T> {
        self.clients.values().flat_map(|client| get(&client.view.borrow())).collect()
    }

    fn leased6<T>(&self, get: impl Fn(&dhcp6::task::View) -> Vec<T>) -> Vec<T> {
        self.clients.values().flat_map(|client| get(&client.view6.borrow())).collect()
    }

    /// Tells the rest of the node which servers to use.
    fn spread_servers(&mut self) {
        let text = want::resolv_conf(&self.name_servers());
        if let Err(error) = store::replace(Path::new(RESOLV_CONF), text.as_bytes()) {
            daemon::warn!("{}", daemon::chain(&error));
        }
        let mut leased = self.leased(|view| {
            view.lease.iter().flat_map(|lease| &lease.ntp).map(ToString::to_string).collect()
        });
        leased.extend(
            self.leased6(|view| view.servers.ntp.iter().map(ToString::to_string).collect()),
        );
        let servers = want::time_servers(&self.parts.config.ntp, &leased);
        if servers != self.time_servers {
            self.time_servers.clone_from(&servers);
            if self.parts.time_servers.send(servers).is_err() {
                daemon::error!("the time thread is gone");
            }
        }
    }
}

/// The static address stays on the link that has it, as long as no other is better.
fn static_uplinks(nics: &[Nic], net: Net, gateway: Option<IpAddr>) -> Vec<Uplink> {
    let links: Vec<(String, bool)> =
        nics.iter().map(|nic| (nic.link.clone(), nic.carrier)).collect();
    let present = nics.iter().find(|nic| nic.addresses.contains(&net));
    let chosen = want::static_link(&links, present.map(|nic| nic.link.as_str()));
    let uplink = |(link, carrier): &(String, bool)| {
        let has_it = Some(link.as_str()) == chosen;
        Uplink {
            link: link.clone(),
            carrier: *carrier,
            address: has_it.then_some(net),
            gateway: gateway.filter(|_| has_it),
            address6: None,
        }
    };
    links.iter().map(uplink).collect()
}

impl Problems {
    fn sentences(&self) -> Vec<String> {
        let steps = self.steps.iter().map(|(_, problem)| problem.clone());
        self.firewall.iter().chain(&self.read).cloned().chain(steps).collect()
    }
}

/// The table of containers as the kernel shows it; empty when it cannot be read.
async fn rebuild(node: &Handle) -> Containers {
    match kernel::read(node, &mut Insides::default()).await {
        Ok((_, facts)) => Containers::rebuilt(&facts),
        Err(error) => {
            daemon::error!("looking for containers: {}", daemon::chain(&error));
            Containers::default()
        }
    }
}

/// What a client was given is a reason to converge; a query that went out is none.
async fn tell_changes<V, T: PartialEq + Default>(
    mut view: watch::Receiver<V>,
    given: impl Fn(&V) -> T,
    changed: mpsc::Sender<()>,
) {
    let mut known = T::default();
    loop {
        let fresh = given(&view.borrow_and_update());
        if fresh != known {
            known = fresh;
            match changed.try_send(()) {
                // A full channel says the same already.
                Ok(()) | Err(TrySendError::Full(())) => {}
                Err(TrySendError::Closed(())) => return,
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}
