//! The thread that talks to the outside: the registry, and the places where flists are.
//!
//! It holds no state that matters and decides nothing. Orders come in, events go out; an order
//! that fails is an event as well, and the reconciler gives it again when it is still right.

use crate::{
    carriers::Carriers,
    database::CONTRACTS_MAX,
    fetches::{self, Message, Outcome},
};
use contract::{
    Bundle, ContractId, Envelope, FlistId, NodeId, PublicKey, Signed, StatementId, report::Report,
};
use flist::Store;
use node_api::init::Fact;
use registry_api::{
    Client, ClientError, Fetched, client::ResultFilter, log::Known, log::Shown, problem::codes,
    view::Ordered,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Sender, SyncSender},
    },
    time::Duration,
};
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::JoinHandle,
    time,
};

/// How often the inbox is asked for; an unchanged one costs a 304.
const POLL: Duration = Duration::from_secs(2);
/// The longest pause between two tries while the registry does not answer.
const POLL_MAX: Duration = Duration::from_secs(30);
/// Pages of results that are looked through for the last one.
const RESULT_PAGES_MAX: u32 = 10_000;
/// Results of which the last one that is truly the node's is taken.
const LAST_RESULTS: usize = 8;
/// Contracts of an inbox that are asked for: those that a node keeps, and as many that it refuses.
const INBOX_MAX: usize = 2 * CONTRACTS_MAX as usize;
/// Bundles that are on their way to the reconciler: each may take 16 MiB, and more when it is read.
const BUNDLES_MAX: usize = 1;

/// Something to do outside.
#[derive(Debug)]
pub(crate) enum Order {
    Register {
        node: Box<Envelope>,
        adoption: Option<Box<Envelope>>,
    },
    Results(Vec<Envelope>),
    Heartbeat(Box<Envelope>),
    /// Find the last result that the registry has of the node with this key.
    LastResult(PublicKey),
    Fetch(fetches::Wanted),
    /// The contract does not want it any more.
    Forget(ContractId, FlistId),
    /// What the log shows of itself and of these statements, from what is known on.
    Log {
        known: Known,
        statements: Vec<StatementId>,
    },
    /// The same of carriers: proofs that no registry has given.
    CarriedLog {
        known: Known,
        statements: Vec<StatementId>,
    },
    /// Ask for a contract again that there was no room for.
    AskAgain(ContractId),
}

/// Something that came from outside.
#[derive(Debug)]
pub(crate) enum Event {
    /// A contract that concerns this node. The next one is asked for when `room` is given back.
    Bundle { contract: ContractId, bundle: Box<Bundle>, room: OwnedSemaphorePermit },
    /// The same from a carrier, which reads the next one when `room` is dropped.
    Carried { contract: ContractId, bundle: Box<Bundle>, room: SyncSender<()> },
    /// What is to be said of the carriers that are here now, and whether one came or went.
    Carriers { facts: Vec<Fact>, came: bool, went: bool },
    /// What each carrier has of the log, and the statements that they were asked for.
    CarriedLog { shown: Vec<CarriedLog>, asked: Vec<StatementId> },
    /// The registry has stored these results; perhaps none of those that were sent.
    Acknowledged(Vec<u64>),
    /// The registry knows the node; whether its farm has consented.
    Registered { adopted: bool },
    /// The registry does not answer as it should: why. `None`: it does.
    Registry(Option<String>),
    /// The registry has told which contracts it has for this node.
    Contact,
    /// And every one of them was passed on.
    Pulled,
    /// The last order of a farm to read the store through that the registry has. Nobody has judged it.
    Ordered(Option<Box<Ordered>>),
    /// The registry takes no statement of the node that says what became of such an order.
    OrdersUnknown,
    /// The last result of this node that the registry has: its number and id.
    LastResult(Option<(u64, StatementId)>),
    /// What the log has shown, the statements that it was asked for, and why there is not more of it.
    Log { shown: Vec<Shown>, asked: Vec<StatementId>, problem: Option<String> },
    /// The registry does not know this node any more.
    Unknown,
    /// Seconds until the next heartbeat.
    Interval(u32),
    /// The publisher that this contract demands has signed the flist, with this record.
    Released { contract: ContractId, flist: FlistId, record: Vec<u8> },
    /// A fetch has ended, with a code and a reason when it failed.
    Fetched { contract: ContractId, flist: FlistId, outcome: Outcome },
}

/// What one carrier has of the log.
#[derive(Debug)]
pub(crate) struct CarriedLog {
    /// The name of its disk.
    pub(crate) by: String,
    pub(crate) shown: Vec<Shown>,
    /// Why there is nothing.
    pub(crate) problem: Option<String>,
}

/// Serves until the reconciler is gone. Without a client, flists are fetched all the same.
pub(crate) async fn serve(
    client: Option<Client>,
    node: NodeId,
    store: Arc<Store>,
    carriers: Arc<Carriers>,
    mut orders: UnboundedReceiver<Order>,
    events: Sender<Event>,
) {
    let (fetching, heard) = unbounded_channel();
    let files = fetches::Stores { store, carriers: Arc::clone(&carriers) };
    tokio::spawn(fetches::serve(files, fetching.clone(), heard, events.clone()));
    let Some(client) = client else {
        fetch_only(&mut orders, &fetching, &carriers, &events).await;
        return;
    };
    let client = Arc::new(client);
    let (again, unheard) = unbounded_channel();
    let pulling = tokio::spawn(pull(Arc::clone(&client), node, unheard, events.clone()));
    let mut search: Option<JoinHandle<()>> = None;
    while let Some(order) = orders.recv().await {
        let (client, events) = (Arc::clone(&client), events.clone());
        match order {
            Order::Fetch(wanted) => tell_fetches(&fetching, Message::Fetch(wanted)),
            Order::Forget(contract, flist) => {
                tell_fetches(&fetching, Message::Forget(contract, flist));
            }
            Order::Register { node, adoption } => {
                tokio::spawn(register(client, node, adoption, events));
            }
            Order::Results(results) => {
                tokio::spawn(push_results(client, results, events));
            }
            Order::AskAgain(contract) => {
                carriers.read_again(contract);
                again.send(contract).unwrap_or_default();
            }
            Order::Log { known, statements: mut asked } => {
                tokio::spawn(async move {
                    let answer = registry_api::log::ask(&*client, known, &asked).await;
                    asked.truncate(answer.asked);
                    let problem = answer.problem.map(|error| daemon::chain(&error));
                    tell(&events, Event::Log { shown: answer.shown, asked, problem });
                });
            }
            Order::CarriedLog { known, statements } => {
                tokio::spawn(ask_carriers(Arc::clone(&carriers), known, statements, events));
            }
            // One search at a time, however long it takes.
            Order::LastResult(_) if search.as_ref().is_some_and(|task| !task.is_finished()) => {}
            Order::LastResult(key) => {
                search = Some(tokio::spawn(async move {
                    match last_result(&client, node, &key).await {
                        Ok(last) => tell(&events, Event::LastResult(last)),
                        Err(error) => complain(&events, &error),
                    }
                }));
            }
            Order::Heartbeat(heartbeat) => {
                tokio::spawn(async move {
                    match client.heartbeat(&heartbeat).await {
                        Ok(answer) => tell(&events, Event::Interval(answer.interval_s)),
                        Err(error) => complain(&events, &error),
                    }
                });
            }
        }
    }
    pulling.abort();
}

async fn fetch_only(
    orders: &mut UnboundedReceiver<Order>,
    fetching: &UnboundedSender<Message>,
    carriers: &Arc<Carriers>,
    events: &Sender<Event>,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Fetch(wanted) => tell_fetches(fetching, Message::Fetch(wanted)),
            Order::Forget(contract, flist) => {
                tell_fetches(fetching, Message::Forget(contract, flist));
            }
            Order::Results(_) => tell(events, Event::Acknowledged(Vec::new())),
            Order::Log { .. } => {
                let problem = Some("there is no registry to ask".to_owned());
                tell(events, Event::Log { shown: Vec::new(), asked: Vec::new(), problem });
            }
            Order::CarriedLog { known, statements } => {
                let carriers = Arc::clone(carriers);
                tokio::spawn(ask_carriers(carriers, known, statements, events.clone()));
            }
            Order::AskAgain(contract) => carriers.read_again(contract),
            Order::Register { .. } | Order::Heartbeat(_) | Order::LastResult(_) => {}
        }
    }
}

/// Asks every carrier. Whoever orders it waits for the answer before the next one: it holds a thread for as
/// long as they take.
async fn ask_carriers(
    carriers: Arc<Carriers>,
    known: Known,
    mut statements: Vec<StatementId>,
    events: Sender<Event>,
) {
    let runtime = tokio::runtime::Handle::current();
    let work = tokio::task::spawn_blocking(move || {
        let (mut shown, mut asked) = (Vec::new(), 0);
        for stick in carriers.sticks() {
            let answer = runtime.block_on(registry_api::log::ask(&*stick, known, &statements));
            asked = asked.max(answer.asked);
            // That one statement has no proof there is nothing to tell.
            let problem = answer.problem.filter(|_| answer.shown.is_empty());
            let problem = problem.map(|error| daemon::chain(&error));
            shown.push(CarriedLog { by: stick.name().to_owned(), shown: answer.shown, problem });
        }
        statements.truncate(asked);
        (shown, statements)
    });
    let (shown, asked) = work.await.unwrap_or_else(|error| {
        daemon::warn!("reading what was carried of the log: {error}");
        (Vec::new(), Vec::new())
    });
    tell(&events, Event::CarriedLog { shown, asked });
}

/// Sends an event. Nobody listens any more only when the process ends.
fn tell(events: &Sender<Event>, event: Event) {
    drop(events.send(event));
}

/// The same for the fetching.
fn tell_fetches(fetching: &UnboundedSender<Message>, message: Message) {
    drop(fetching.send(message));
}

fn complain(events: &Sender<Event>, error: &ClientError) {
    if error.code() == Some(codes::UNKNOWN_NODE) {
        tell(events, Event::Unknown);
    }
    tell(events, Event::Registry(Some(daemon::chain(error))));
}

/// Asks for the node's contracts, again and again, and passes on those that changed.
async fn pull(
    client: Arc<Client>,
    node: NodeId,
    mut unheard: UnboundedReceiver<ContractId>,
    events: Sender<Event>,
) {
    let mut inbox = Inbox { tag: None, bundle_tags: BTreeMap::new() };
    let room = Arc::new(Semaphore::new(BUNDLES_MAX));
    let mut pause = POLL;
    let mut heard = true;
    while heard {
        while let Ok(contract) = unheard.try_recv() {
            inbox.forget(&contract);
        }
        heard = match inbox.pull(&client, &node, &room, &events).await {
            Ok(()) => {
                pause = POLL;
                tell(&events, Event::Pulled);
                events.send(Event::Registry(None)).is_ok()
            }
            Err(error) => {
                pause = pause.saturating_mul(2).min(POLL_MAX);
                complain(&events, &error);
                true
            }
        };
        // Whoever is behind with what came is not told more.
        let Ok(_) = room.acquire().await else { return };
        time::sleep(pause).await;
    }
}

/// What the registry has said last of the node's contracts.
struct Inbox {
    tag: Option<String>,
    bundle_tags: BTreeMap<ContractId, String>,
}

impl Inbox {
    /// The next pull asks for this contract again.
    fn forget(&mut self, contract: &ContractId) {
        if self.bundle_tags.remove(contract).is_some() {
            self.tag = None;
        }
    }

    async fn pull(
        &mut self,
        client: &Client,
        node: &NodeId,
        room: &Arc<Semaphore>,
        events: &Sender<Event>,
    ) -> Result<(), ClientError> {
        let answer = client.inbox(node, self.tag.as_deref()).await?;
        // Whatever becomes of the bundles: one that cannot be had stops nobody else's contract.
        tell(events, Event::Contact);
        let Fetched::New { body, etag } = answer else { return Ok(()) };
        tell(events, Event::Ordered(body.scrub.map(Box::new)));
        let mut entries = body.contracts;
        entries.truncate(INBOX_MAX);
        let listed: BTreeSet<ContractId> = entries.iter().map(|entry| entry.contract).collect();
        self.bundle_tags.retain(|contract, _| listed.contains(contract));
        let mut failed: Option<ClientError> = None;
        for entry in entries {
            let known = self.bundle_tags.get(&entry.contract);
            if known == Some(&entry.etag) {
                continue;
            }
            // Before it is asked for: what nobody has taken yet fills no memory.
            let Ok(room) = Arc::clone(room).acquire_owned().await else { return Ok(()) };
            match client.bundle_for(&entry.contract, node, known.map(String::as_str)).await {
                Ok(Fetched::New { body, etag }) => {
                    let (contract, bundle) = (entry.contract, Box::new(body));
                    tell(events, Event::Bundle { contract, bundle, room });
                    self.bundle_tags.insert(contract, etag);
                }
                Ok(Fetched::Same) => {}
                // One contract that cannot be had does not hide the others.
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // Only now: a bundle that could not be had is asked for again.
        self.tag = Some(etag);
        Ok(())
    }
}

async fn register(
    client: Arc<Client>,
    node: Box<Envelope>,
    adoption: Option<Box<Envelope>>,
    events: Sender<Event>,
) {
    let opened = Signed::<contract::node::Node>::open(&node);
    let tells_of_orders = opened.as_ref().is_ok_and(|node| node.body.scrub.is_some());
    let pushed = async {
        // A statement that is not newer than the registry's own copy is there already.
        if let Err(error) = client.push(&node).await
            && error.code() != Some(codes::OLD_VERSION)
        {
            // One that is older than orders would otherwise never hear of this node again.
            if tells_of_orders && error.code() == Some(codes::MALFORMED) {
                tell(&events, Event::OrdersUnknown);
            }
            return Err(error);
        }
        if let Some(adoption) = adoption {
            client.push(&adoption).await?;
        }
        let Ok(statement) = opened else { return Ok(false) };
        let node = contract::node::node_id(&statement.body.key);
        Ok::<_, ClientError>(client.node(&node).await?.adopted)
    };
    match pushed.await {
        Ok(adopted) => tell(&events, Event::Registered { adopted }),
        Err(error) => complain(&events, &error),
    }
}

/// Looks through all results of the node for the last. Counted is what the node's key has signed: a
/// registry can leave out results, and cannot invent one.
async fn last_result(
    client: &Client,
    node: NodeId,
    key: &PublicKey,
) -> Result<Option<(u64, StatementId)>, ClientError> {
    let mut seen: Vec<(u64, StatementId)> = Vec::new();
    let mut after = 0;
    for _ in 0..RESULT_PAGES_MAX {
        let filter = ResultFilter { contract: None, node: Some(node), after };
        let page = client.results(&filter).await?;
        seen.extend(page.results.iter().filter(|one| !one.conflict).map(|one| (one.seq, one.id)));
        seen.sort_unstable();
        seen.drain(..seen.len().saturating_sub(LAST_RESULTS));
        if page.results.is_empty() || page.next <= after {
            break;
        }
        after = page.next;
    }
    for (seq, id) in seen.into_iter().rev() {
        let envelope = client.statement(&id).await?;
        let report = Signed::<Report>::open(&envelope);
        if report.is_ok_and(|one| one.body.seq == seq && one.id == id && one.signed_by(key)) {
            return Ok(Some((seq, id)));
        }
    }
    Ok(None)
}

async fn push_results(client: Arc<Client>, results: Vec<Envelope>, events: Sender<Event>) {
    match client.push_results(&results).await {
        Ok(answer) => {
            let mut done = answer.accepted;
            for refused in answer.refused {
                daemon::warn!(
                    "result {:?} refused: {}: {}",
                    refused.seq,
                    refused.code,
                    refused.detail
                );
                // Sending it again would change nothing, and would hold up all that follow. Only a
                // registry that does not know the node yet will take it later.
                if refused.code != codes::UNKNOWN_NODE {
                    done.extend(refused.seq);
                }
            }
            tell(&events, Event::Acknowledged(done));
        }
        Err(error) => {
            tell(&events, Event::Acknowledged(Vec::new()));
            complain(&events, &error);
        }
    }
}

#[cfg(test)]
mod tests;
