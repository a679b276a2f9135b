//! The grid of `contract::testkit` in a registry that serves real HTTP from a real database.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub(crate) mod chromium;
pub(crate) mod database;
pub(crate) mod process;
pub(crate) mod story;

pub(crate) use contract::testkit::{NETWORK, World, seal};

use contract::{Bundle, Envelope, Past, Trust, Verdict};
use registry_api::Client;
use registryd::{
    content::Access,
    server::{Server, Settings, start, system_clock},
};
use std::path::{Path, PathBuf};

/// The grid, now.
pub(crate) fn world() -> World {
    World::new(system_clock())
}

/// Everything up to an adopted node with a pool.
pub(crate) async fn prepare(world: &World, client: &Client) {
    for name in world.keys.keys() {
        client.push(&world.identity(name)).await.unwrap();
    }
    client.push(&seal(&world.farm(1), world.key("farm"))).await.unwrap();
    client.push(&seal(&world.node(1), &world.node_key)).await.unwrap();
    client.push(&seal(&world.adoption(), &world.token)).await.unwrap();
    client.push(&seal(&world.pool(), world.key("farm"))).await.unwrap();
}

/// A contract with its documents, not approved yet.
pub(crate) async fn propose(world: &World, client: &Client) -> Envelope {
    let header = seal(&world.header(1, None), world.key("owner"));
    client.push(&header).await.unwrap();
    client.push_documents(&world.contract(), 1, &[world.document_bytes(1)]).await.unwrap();
    header
}

/// A contract that everybody has approved who must.
pub(crate) async fn agree(world: &World, client: &Client) -> Envelope {
    let header = propose(world, client).await;
    for name in ["it", "legal"] {
        client.push(&world.approve(name, &header)).await.unwrap();
    }
    header
}

/// What the node does about it.
pub(crate) fn judge(world: &World, bundle: &Bundle) -> Verdict {
    let trust = Trust {
        network: NETWORK.into(),
        farm: world.id("farm"),
        node: world.node_id(),
        free: world.node(1).capacity,
        past: Past::default(),
    };
    contract::verdict(bundle, &trust, system_clock())
}

/// A registry in this process, and a client of it.
pub(crate) struct Registry {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) base: String,
}

impl Registry {
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(data, Access::Writable, None).await
    }

    pub(crate) async fn start_with(
        data: &Path,
        content: Access,
        witnesses: Option<PathBuf>,
    ) -> Self {
        let settings = Settings {
            data: data.into(),
            database: database::of(data),
            listen: "127.0.0.1:0".parse().unwrap(),
            network: NETWORK.into(),
            content,
            witnesses,
            now: system_clock,
        };
        let server = start(settings).await.unwrap();
        let base = format!("http://{}", server.address);
        Self { client: Client::new([&base]).unwrap(), server, base }
    }
}
