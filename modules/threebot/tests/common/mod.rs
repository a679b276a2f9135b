//! A registry on loopback, people with keys, and a node that signs what a node would sign.

#![allow(dead_code, reason = "each test uses its own part")]

use contract::{
    Capacity, Envelope, NodeId, Signed, SigningKey, StatementId, Timestamp,
    capacity::{Amounts, GIB},
    decision::Decision,
    farm::Adoption,
    identity::Signer,
    node::{Disk, Evidence, Hardware, Node, node_id},
    report::{Heartbeat, Ran, Report, State},
    scrub::Scrubbed,
};
use flist::create::{Options, Overrides, build_directory, publish};
use identity::{Keys, Name};
use registryd::{content::Access, server};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;
use threebot::{
    Actor, BotError, Grid, People, customer, farmer,
    plan::file::Sealed,
    source::{Language, parse},
    stakeholder::{self, Matter},
};

pub(crate) const NETWORK: &str = "test";

pub(crate) struct World {
    pub(crate) home: TempDir,
    pub(crate) registry: server::Server,
    pub(crate) grid: Grid,
    pub(crate) keys: Keys,
}

pub(crate) fn now() -> Timestamp {
    server::system_clock()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    /// With the registry's data in a folder that may be there.
    pub(crate) async fn at(home: TempDir) -> Self {
        let registry = server::start(server::Settings {
            database: registryd::db::Database::Sqlite,
            data: home.path().join("registry"),
            listen: ([127, 0, 0, 1], 0).into(),
            network: NETWORK.to_owned(),
            content: Access::Writable,
            witnesses: None,
            now: server::system_clock,
        })
        .await
        .unwrap();
        let grid = Grid::new(NETWORK, [format!("http://{}", registry.address)]).unwrap();
        let keys = Keys::at(home.path());
        for name in ["farmer", "owner", "it", "legal", "budget", "stranger"] {
            keys.create(&name.parse().unwrap(), name).unwrap();
        }
        Self { home, registry, grid, keys }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.registry.address)
    }

    pub(crate) fn actor(&self, name: &str) -> Actor {
        Actor::load(&self.keys, &name.parse::<Name>().unwrap(), NETWORK).unwrap()
    }

    pub(crate) fn people(&self) -> People {
        let mut people = People::default();
        for name in self.keys.list().unwrap() {
            people.know(name.as_str(), self.actor(name.as_str()).id());
        }
        people
    }

    /// A published flist with one program and a directory to mount on.
    pub(crate) fn flist(&self) -> PathBuf {
        let root = self.home.path().join("rootfs");
        std::fs::create_dir_all(root.join("data")).unwrap();
        // Large enough not to be kept in the body, so that there is a pack.
        std::fs::write(root.join("server"), vec![7; 100_000]).unwrap();
        let run = Overrides { entrypoint: Some(vec!["/server".into()]), ..Overrides::default() };
        let built = build_directory(&root, &Options { run, ..Options::default() }, &()).unwrap();
        let out = self.home.path().join("public");
        publish(&built, &out).unwrap();
        out
    }

    /// A farm and a node that it has adopted by a token.
    pub(crate) async fn farm_with_node(&self) -> FakeNode {
        let farmer = self.actor("farmer");
        farmer::create_farm(&self.grid, &farmer, "Cellar", "Ghent").await.unwrap();
        let token = farmer::make_token(now().plus(3600)).unwrap();
        farmer::publish_token(&self.grid, &farmer, &token, now()).await.unwrap();
        let node = FakeNode::new(7, &farmer.own.signer);
        node.register(&self.grid).await;
        let mut seed = [0; 32];
        hex::decode_to_slice(&token.seed, &mut seed).unwrap();
        node.adopt_by(&self.grid, &SigningKey::from_seed(&seed)).await;
        node.heartbeat(&self.grid, 1).await;
        node
    }
}

/// Signs what the daemons of a node would.
pub(crate) struct FakeNode {
    key: SigningKey,
    farm: Signer,
    chain: std::cell::Cell<(u64, Option<StatementId>)>,
}

pub(crate) fn capacity() -> Capacity {
    Capacity { cru_milli: 4000, mru_bytes: 8 * GIB, sru_bytes: 100 * GIB, hru_bytes: 0 }
}

impl FakeNode {
    pub(crate) fn new(n: u8, farm: &Signer) -> Self {
        let key = SigningKey::from_seed(&[n; 32]);
        Self { key, farm: farm.clone(), chain: std::cell::Cell::new((0, None)) }
    }

    pub(crate) fn id(&self) -> NodeId {
        node_id(&self.key.public())
    }

    pub(crate) async fn register(&self, grid: &Grid) {
        self.say(grid, 1, None).await;
    }

    /// The node's statement, with what became of an order to read its store through.
    pub(crate) async fn say(&self, grid: &Grid, version: u64, scrub: Option<Scrubbed>) {
        let node = Node {
            network: NETWORK.into(),
            key: self.key.public(),
            farm: self.farm.id,
            version,
            issued: now(),
            image: "0.1.0".into(),
            hardware: Hardware {
                vendor: "Maker".into(),
                product: "Machine".into(),
                cpu: "CPU".into(),
                cores: 4,
                memory_bytes: 8 * GIB,
                disks: vec![Disk {
                    name: "vda".into(),
                    model: "Disk".into(),
                    size_bytes: 100 * GIB,
                    class: "ssd".into(),
                    state: "pool".into(),
                    reason: "it was blank".into(),
                }],
                nics: vec![],
            },
            capacity: capacity(),
            evidence: Evidence::SelfReported,
            degraded: vec![],
            scrub,
        };
        grid.client.push(&self.seal(&node)).await.unwrap();
    }

    pub(crate) async fn adopt_by(&self, grid: &Grid, token: &SigningKey) {
        let adoption = Adoption {
            network: NETWORK.into(),
            farm: self.farm.id,
            node: self.id(),
            issued: now(),
        };
        grid.client.push(&Envelope::seal(&adoption, &[token]).unwrap()).await.unwrap();
    }

    pub(crate) async fn heartbeat(&self, grid: &Grid, seq: u64) {
        let heartbeat = Heartbeat {
            network: NETWORK.into(),
            node: self.id(),
            boot: "boot".into(),
            seq,
            at: now(),
            uptime_s: 60,
            image: "0.1.0".into(),
            free: capacity(),
            contracts: vec![],
        };
        grid.client.heartbeat(&self.seal(&heartbeat)).await.unwrap();
    }

    /// Reports on a contract, on the node's chain.
    pub(crate) async fn report(
        &self,
        grid: &Grid,
        contract: contract::ContractId,
        version: u64,
        workload: Option<&str>,
        state: State,
    ) -> StatementId {
        self.report_run(grid, (contract, version, workload), state, None).await
    }

    /// The same with what ran.
    pub(crate) async fn report_run(
        &self,
        grid: &Grid,
        (contract, version, workload): (contract::ContractId, u64, Option<&str>),
        state: State,
        ran: Option<Ran>,
    ) -> StatementId {
        let (last, prev) = self.chain.get();
        // As a node that has judged the version.
        let bundle = grid.client.bundle(&contract).await.ok();
        let place = usize::try_from(version).unwrap().checked_sub(1);
        let header = place.and_then(|place| bundle?.headers.get(place)?.id().ok());
        let report = Report {
            network: NETWORK.into(),
            node: self.id(),
            boot: "boot".into(),
            seq: last + 1,
            prev,
            at: now(),
            contract,
            version,
            header,
            workload: workload.map(str::to_owned),
            state,
            code: "told".into(),
            message: format!("report {}", last + 1),
            ran,
        };
        let envelope = self.seal(&report);
        let id = Signed::<Report>::open(&envelope).unwrap().id;
        let answer = grid.client.push_results(&[envelope]).await.unwrap();
        assert_eq!(answer.accepted, [last + 1], "{:?}", answer.refused);
        self.chain.set((last + 1, Some(id)));
        id
    }

    /// So many refusals of a contract that the node knows nothing of, in as few requests as can be.
    pub(crate) async fn report_often(
        &self,
        grid: &Grid,
        contract: contract::ContractId,
        count: usize,
    ) {
        let mut envelopes = Vec::new();
        for _ in 0..count {
            let (last, prev) = self.chain.get();
            let report = Report {
                network: NETWORK.into(),
                node: self.id(),
                boot: "boot".into(),
                seq: last + 1,
                prev,
                at: now(),
                contract,
                version: 0,
                header: None,
                workload: None,
                state: State::Refused,
                code: "told".into(),
                message: String::new(),
                ran: None,
            };
            envelopes.push(self.seal(&report));
            self.chain.set((last + 1, envelopes.last().unwrap().id().ok()));
        }
        for batch in envelopes.chunks(registry_api::paths::RESULTS_MAX) {
            let answer = grid.client.push_results(batch).await.unwrap();
            assert_eq!(answer.accepted.len(), batch.len(), "{:?}", answer.refused);
        }
    }

    fn seal<T: contract::Statement>(&self, body: &T) -> Envelope {
        Envelope::seal(body, &[&self.key]).unwrap()
    }
}

/// The contract of the tests, in TOML.
pub(crate) fn source(pool: &StatementId, node: &NodeId, flist: &Path, extra: &str) -> String {
    format!(
        r#"
title = "Shop"
purpose = "Sells."
owner = "owner"
pool = "{pool}"
expires = "1d"
nodes = ["{node}"]
[[stakeholders]]
identity = "it"
role = "it"
[[stakeholders]]
identity = "legal"
role = "legal"
[[stakeholders]]
identity = "budget"
role = "budget"
[containers.web]
flist = {{ dir = "{}" }}
cpu = 0.5
memory = "256 MiB"
ports = ["8080:80/tcp"]
mounts = [{{ path = "/data", volume = "data" }}]
{extra}
[volumes.data]
size = "1 GiB"
"#,
        flist.display()
    )
}

pub(crate) async fn grant(world: &World, node: &FakeNode) -> StatementId {
    let grant = farmer::Grant {
        owner: world.actor("owner").id(),
        nodes: vec![node.id()],
        amounts: Amounts { cu_seconds: 1_000_000, su_seconds: 1_000_000, ipv4_seconds: 0 },
        expires: now().plus(10 * 86_400),
    };
    farmer::grant_pool(&world.grid, &world.actor("farmer"), &grant, now()).await.unwrap()
}

pub(crate) async fn plan(
    world: &World,
    text: &str,
    update: Option<contract::ContractId>,
) -> Result<customer::Planned, BotError> {
    let request = customer::Request {
        source: &parse(text, Language::Toml).unwrap(),
        base: Path::new("/"),
        people: &world.people(),
        signer: world.actor("owner").id(),
        now: now(),
        content: &[],
        update,
    };
    customer::plan(&world.grid, &request).await
}

/// Plans, signs and pushes; through a plan file, as the command line does.
pub(crate) async fn propose(
    world: &World,
    text: &str,
    update: Option<contract::ContractId>,
) -> contract::ContractId {
    let planned = plan(world, text, update).await.unwrap();
    assert_eq!(planned.findings, []);
    let bytes = Sealed::unsigned(planned.plan).to_bytes();
    let mut sealed = Sealed::read(&bytes).unwrap();
    let owner = world.actor("owner");
    let unsigned =
        customer::push(&world.grid, &sealed, std::slice::from_ref(&owner.own.statement)).await;
    assert!(unsigned.unwrap_err().to_string().contains("not signed by its owner"));
    assert!(customer::sign(&mut sealed, &world.actor("it")).is_err(), "only the owner can sign");
    customer::sign(&mut sealed, &owner).unwrap();
    let identities: Vec<_> =
        ["owner", "it", "legal", "budget"].map(|name| world.actor(name).own.statement).into();
    let first = customer::push(&world.grid, &sealed, &identities).await.unwrap();
    let again = customer::push(&world.grid, &sealed, &identities).await.unwrap();
    assert!(first.new && !again.new, "a second push does nothing");
    sealed.plan.contract()
}

pub(crate) async fn decide(
    world: &World,
    name: &str,
    contract: contract::ContractId,
    matter: Matter,
    decision: Decision,
) -> stakeholder::Review {
    let actor = world.actor(name);
    let people = world.people();
    let review =
        stakeholder::review(&world.grid, &contract, matter, &actor.id(), &people).await.unwrap();
    stakeholder::decide(&world.grid, &actor, &review, decision, "", now()).await.unwrap();
    review
}

/// Runs `3bot` with a registry of our choice.
pub(crate) async fn bot(
    world: &World,
    registry: &str,
    words: &[&str],
) -> (i32, serde_json::Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_3bot"));
    command.args(["--json", "--network", NETWORK, "--registry", registry]);
    command.arg("--home").arg(world.home.path()).args(words);
    command.env_clear().stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = run.await.unwrap().unwrap();
    let answer = serde_json::from_slice(&stdout).unwrap_or(serde_json::Value::Null);
    (status.code().unwrap(), answer, String::from_utf8(stderr).unwrap())
}
