//! Those who ask the registry: people with contracts, nodes that beat. Everything is signed before
//! anything is measured; then each client sends one request after the other, all clients at once.

use crate::wire::{self, Line};
use anyhow::{Context as _, Result, ensure};
use contract::{
    Envelope, NodeId, SigningKey, StatementId, Timestamp,
    header::Nonce,
    id::sha256,
    testkit::{World, seal},
};
use registry_api::paths;
use std::{
    net::SocketAddr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// Whether a client keeps its connection, or makes a new one for each request, as who asks once in
/// a minute does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    Kept,
    Fresh,
}

/// A request that was answered as it should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) begun: Instant,
    pub(super) took: Duration,
}

/// Sends the requests of each client, all clients at once, and wants this status each time. Gives
/// for each client what it sent, in order, and how long all of it took.
pub(super) fn send(
    address: SocketAddr,
    clients: &[Vec<Vec<u8>>],
    connection: Connection,
    status: u16,
) -> Result<(Vec<Vec<Sent>>, Duration)> {
    let together = Barrier::new(clients.len() + 1);
    let client = |requests: &[Vec<u8>]| -> Result<Vec<Sent>> {
        let line = Line::open(address);
        // Also who cannot begin, or the others wait for ever.
        together.wait();
        let mut line = line?;
        let mut sent = Vec::with_capacity(requests.len());
        for (number, request) in requests.iter().enumerate() {
            let begun = Instant::now();
            if connection == Connection::Fresh && number > 0 {
                line = Line::open(address)?;
            }
            let answer = line.ask(request)?;
            let said = || String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(answer.status == status, "status {}: {}", answer.status, said());
            sent.push(Sent { begun, took: begun.elapsed() });
        }
        Ok(sent)
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            clients.iter().map(|requests| scope.spawn(|| client(requests))).collect();
        together.wait();
        let begun = Instant::now();
        let ended = threads.into_iter().map(|one| one.join().expect("a client does not panic"));
        let sent = ended.collect::<Result<Vec<_>>>().context("asking the registry")?;
        Ok((sent, begun.elapsed()))
    })
}

/// A statement as a request.
pub(crate) fn post(envelope: &Envelope) -> Result<Vec<u8>> {
    Ok(wire::send("POST", paths::STATEMENTS, &serde_json::to_vec(envelope)?))
}

/// A key that nothing else here has.
pub(crate) fn key(of: &str, number: usize) -> SigningKey {
    SigningKey::from_seed(&sha256(format!("{of} {number}").as_bytes()))
}

/// People, a farm with nodes, and the statements that make them known.
pub(super) struct Grid {
    pub(super) world: World,
    pub(super) statements: Vec<Envelope>,
    pub(super) nodes: Vec<NodeId>,
}

impl Grid {
    /// `nodes` adopted nodes.
    pub(super) fn new(now: Timestamp, nodes: usize) -> Self {
        let mut world = World::new(now);
        let mut statements: Vec<_> = world.keys.keys().map(|name| world.identity(name)).collect();
        statements.push(seal(&world.farm(1), world.key("farm")));
        let mut ids = Vec::with_capacity(nodes);
        for number in 0..nodes {
            world.node_key = key("node", number);
            ids.push(world.node_id());
            statements.push(seal(&world.node(1), &world.node_key));
            statements.push(seal(&world.adoption(), &world.token));
        }
        Self { world, statements, nodes: ids }
    }

    /// For each of so many clients, `each` heartbeats of each of its nodes, after the first `past`.
    pub(super) fn heartbeats(
        &mut self,
        clients: usize,
        each: usize,
        past: usize,
    ) -> Result<Vec<Vec<Vec<u8>>>> {
        let mut all = vec![Vec::new(); clients];
        for number in past..past + each {
            for index in 0..self.nodes.len() {
                self.world.node_key = key("node", index);
                let beat = self.world.heartbeat("b1", number as u64 + 1, 0);
                let body = serde_json::to_vec(&seal(&beat, &self.world.node_key))?;
                all[index % clients].push(wire::send("POST", paths::HEARTBEATS, &body));
            }
        }
        Ok(all)
    }
}

/// A customer who proposes contracts, each approved by two others.
pub(crate) struct Customer {
    /// Has to be there before: the identity, and a pool of the farm.
    pub(crate) before: [Envelope; 2],
    /// In this order: of each contract the header and its approvals.
    pub(crate) statements: Vec<Envelope>,
}

impl Customer {
    pub(crate) fn new(now: Timestamp, number: usize, contracts: usize) -> Self {
        let mut world = World::new(now);
        world.keys.insert("owner", key("owner", number));
        let before = [world.identity("owner"), seal(&world.pool(), world.key("farm"))];
        let mut statements = Vec::with_capacity(contracts * 3);
        for number in 0..contracts {
            world.nonce = Nonce(format!("{number:032x}"));
            let header = seal(&world.header(1, None), world.key("owner"));
            let approvals = ["it", "legal"].map(|name| world.approve(name, &header));
            statements.push(header);
            statements.extend(approvals);
        }
        Self { before, statements }
    }

    /// What it sends, and the id of each.
    pub(crate) fn requests(&self) -> Result<(Vec<Vec<u8>>, Vec<StatementId>)> {
        let requests = self.statements.iter().map(post).collect::<Result<_>>()?;
        let ids = self.statements.iter().map(Envelope::id).collect::<Result<_, _>>()?;
        Ok((requests, ids))
    }
}
