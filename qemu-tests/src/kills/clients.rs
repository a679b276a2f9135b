//! Those who send: signed statements of several kinds, each one after the other, without a pause. Who
//! gets no answer sends the same again, or gives up where nothing hangs on it.

use crate::{
    bench::registry::{
        crowd::{Customer, key, post},
        now,
    },
    chance::Chance,
    wire::{self, Answer, Line},
};
use anyhow::{Context as _, Result, bail, ensure};
use contract::{
    Envelope, StatementId,
    report::State,
    testkit::{World, seal},
};
use registry_api::{
    paths,
    write::{Accepted, ResultsAnswer},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Clients: those who send at the same moment share what the log does.
const CLIENTS: usize = 9;
/// Customers of one client, at most: each has a number of its own.
const CUSTOMERS_MAX: usize = 1_000_000;
/// Contracts of one customer.
const CONTRACTS: usize = 4;
/// Results of one batch, at most.
const BATCH_MAX: usize = 8;
/// Who gets no answer gives up one time in so many, and sends what was acknowledged again as often.
const ONE_IN: usize = 4;
/// Before the same is sent again.
const PAUSE: Duration = Duration::from_millis(20);
/// A registry that was struck serves again by then.
const PATIENCE: Duration = Duration::from_secs(240);

/// What one client, or all, have sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The registry says that it has them for ever.
    pub(super) acknowledged: Vec<StatementId>,
    /// Nobody knows.
    pub(super) abandoned: Vec<StatementId>,
    /// Sent again after they had been acknowledged, and acknowledged again.
    pub(super) repeated: u64,
    /// Requests whose answer never came.
    pub(super) broken_off: u64,
}

impl Sent {
    pub(super) fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.abandoned.extend(other.abandoned);
        self.repeated += other.repeated;
        self.broken_off += other.broken_off;
    }
}

/// Somebody who sends.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    chance: Chance,
    world: World,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// New people, so many by now: each statement stands alone.
    People(usize),
    /// Contracts and their approvals, in order: what is left of this customer, and who is next.
    Contracts(VecDeque<Envelope>, usize),
    /// Results of a node, in batches, from this number on.
    Results(u64),
}

/// A request with all that hangs on it.
struct Posting {
    request: Vec<u8>,
    ids: Vec<StatementId>,
    /// Numbers of results; nothing for a statement of another kind.
    numbers: Vec<u64>,
    /// Nothing that comes later needs it.
    may_be_given_up: bool,
}

impl Client {
    /// All of them, of every kind the same number.
    pub(super) fn all(chance: &Chance) -> Result<Vec<Self>> {
        let client = |number| {
            let mut world = World::new(now()?);
            world.node_key = key("node", number);
            let work = match number % 3 {
                0 => Work::People(0),
                1 => Work::Contracts(VecDeque::new(), number * CUSTOMERS_MAX),
                _ => Work::Results(1),
            };
            Ok(Self { number, chance: Chance::new(chance.seed()), world, work })
        };
        (0..CLIENTS).map(client).collect()
    }

    /// Goes on until it is enough; what has begun is brought to its end.
    pub(super) fn send(&mut self, registry: SocketAddr, enough: &AtomicBool) -> Result<Sent> {
        let (mut sent, mut line) = (Sent::default(), None);
        while !enough.load(Ordering::Relaxed) {
            let posting = self.next()?;
            if !self.deliver(&posting, registry, &mut line, &mut sent)? {
                sent.abandoned.extend(posting.ids);
                continue;
            }
            if self.chance.one_of(ONE_IN) == 0 {
                // A second time changes nothing.
                let known = self.deliver(&posting, registry, &mut line, &mut sent)?;
                sent.repeated += if known { posting.ids.len() as u64 } else { 0 };
            }
            sent.acknowledged.extend(posting.ids);
        }
        Ok(sent)
    }

    /// Whether it was acknowledged; else it was given up.
    fn deliver(
        &self,
        posting: &Posting,
        registry: SocketAddr,
        line: &mut Option<Line>,
        sent: &mut Sent,
    ) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // Nobody is there: nothing was sent.
            let Some(mut open) = line.take().or_else(|| Line::open(registry).ok()) else {
                thread::park_timeout(PAUSE);
                continue;
            };
            let Ok(answer) = open.ask(&posting.request) else {
                sent.broken_off += 1;
                if posting.may_be_given_up && self.chance.one_of(ONE_IN) == 0 {
                    return Ok(false);
                }
                thread::park_timeout(PAUSE);
                continue;
            };
            *line = Some(open);
            match answer.status {
                200 | 201 => return posting.is_acknowledged(&answer).map(|()| true),
                // It is stored, and the log has not taken it yet.
                503 => thread::park_timeout(PAUSE),
                other => bail!("status {other}: {}", String::from_utf8_lossy(&answer.body)),
            }
        }
        bail!("no answer within {} s", PATIENCE.as_secs())
    }

    fn next(&mut self) -> Result<Posting> {
        let (number, world) = (self.number, &mut self.world);
        match &mut self.work {
            Work::People(next) => {
                world.keys.insert("stranger", key(&format!("person {number}"), *next));
                *next += 1;
                Posting::one(&world.identity("stranger"), true)
            }
            Work::Contracts(left, next) => {
                if left.is_empty() {
                    let Customer { before, statements } = Customer::new(now()?, *next, CONTRACTS);
                    left.extend(before.into_iter().chain(statements));
                    *next += 1;
                }
                let statement = left.pop_front().context("a customer has statements")?;
                Posting::one(&statement, false)
            }
            Work::Results(next) => {
                let count = 1 + self.chance.one_of(BATCH_MAX) as u64;
                let numbers: Vec<u64> = (*next..*next + count).collect();
                *next += count;
                let result = |seq: &u64| {
                    let before = (*seq > 1).then_some(StatementId([1; 32]));
                    seal(&world.report(*seq, before, State::Running), &world.node_key)
                };
                let batch: Vec<Envelope> = numbers.iter().map(result).collect();
                let request = wire::send("POST", paths::RESULTS, &serde_json::to_vec(&batch)?);
                let ids = batch.iter().map(Envelope::id).collect::<Result<_, _>>()?;
                Ok(Posting { request, ids, numbers, may_be_given_up: true })
            }
        }
    }
}

impl Posting {
    fn one(statement: &Envelope, may_be_given_up: bool) -> Result<Self> {
        let (request, ids) = (post(statement)?, vec![statement.id()?]);
        Ok(Self { request, ids, numbers: Vec::new(), may_be_given_up })
    }

    /// Whether the answer says of everything that it counts.
    fn is_acknowledged(&self, answer: &Answer) -> Result<()> {
        if self.numbers.is_empty() {
            let said: Accepted = serde_json::from_slice(&answer.body)?;
            ensure!(said.complete && [said.id] == *self.ids, "{said:?} is not what was sent");
        } else {
            let said: ResultsAnswer = serde_json::from_slice(&answer.body)?;
            ensure!(said.accepted == self.numbers && said.refused.is_empty(), "it says {said:?}");
        }
        Ok(())
    }
}

/// Makes the people, the farm and the nodes known that all else hangs on. Gives what was acknowledged.
pub(super) fn found(registry: SocketAddr, clients: &[Client]) -> Result<Vec<StatementId>> {
    let world = World::new(now()?);
    let mut statements: Vec<_> = world.keys.keys().map(|name| world.identity(name)).collect();
    statements.push(seal(&world.farm(1), world.key("farm")));
    for Client { world, .. } in clients {
        statements.push(seal(&world.node(1), &world.node_key));
        statements.push(seal(&world.adoption(), &world.token));
    }
    let (founder, mut line) = (clients.first().context("there are clients")?, None);
    let mut acknowledged = Vec::new();
    for statement in &statements {
        let posting = Posting::one(statement, false)?;
        founder.deliver(&posting, registry, &mut line, &mut Sent::default())?;
        acknowledged.extend(posting.ids);
    }
    Ok(acknowledged)
}
