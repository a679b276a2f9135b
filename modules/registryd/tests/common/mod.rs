//! A grid for tests: people, a farm with a node, a contract between them, and a registry that
//! serves real HTTP from a real database.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(dead_code, reason = "each test file uses its part")]

use contract::{
    Bundle, Capacity, ContractId, Envelope, FlistId, IdentityId, NodeId, SigningKey, Statement,
    StatementId, Timestamp,
    capacity::{Amounts, GIB},
    decision::{Action, Approval, Cancel, Decision, Retention},
    farm::{Adoption, EnrolmentKey, Farm, Pool},
    header::{
        Deployments, Execution, Flist, Header, Nonce, OnPartition, Policy, Role, RoleQuorum, Rule,
        Stakeholder, contract_id,
    },
    identity::Identity,
    merkle,
    node::{Disk, Evidence, Hardware, Nic, Node, node_id},
    report::{Heartbeat, Report, State},
    strict::Extensions,
    workload::{Container, Document, Spec, Stop, Workload},
};
use registry_api::Client;
use registryd::{
    content::Access,
    server::{Server, Settings, start, system_clock},
};
use std::{collections::BTreeMap, path::Path};

pub(crate) const NETWORK: &str = "test";

/// Everybody's keys.
pub(crate) struct World {
    pub(crate) keys: BTreeMap<&'static str, SigningKey>,
    pub(crate) node_key: SigningKey,
    pub(crate) token: SigningKey,
    pub(crate) now: Timestamp,
}

pub(crate) fn seal<T: Statement>(body: &T, key: &SigningKey) -> Envelope {
    Envelope::seal(body, &[key]).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let names = ["owner", "it", "legal", "budget", "farm", "stranger"];
        let key = |(n, name)| (name, SigningKey::from_seed(&[u8::try_from(n).unwrap() + 1; 32]));
        Self {
            keys: names.into_iter().enumerate().map(key).collect(),
            node_key: SigningKey::from_seed(&[77; 32]),
            token: SigningKey::from_seed(&[88; 32]),
            now: system_clock(),
        }
    }

    pub(crate) fn key(&self, name: &'static str) -> &SigningKey {
        &self.keys[name]
    }

    pub(crate) fn at(&self, offset: i64) -> Timestamp {
        self.now.plus(offset)
    }

    pub(crate) fn identity(&self, name: &'static str) -> Envelope {
        let key = self.key(name);
        let identity = Identity {
            network: NETWORK.into(),
            version: 1,
            prev: None,
            name: format!("{name} <b>&"),
            keys: vec![key.public()],
            threshold: 1,
        };
        seal(&identity, key)
    }

    pub(crate) fn id(&self, name: &'static str) -> IdentityId {
        IdentityId(self.identity(name).id().unwrap().0)
    }

    pub(crate) fn node_id(&self) -> NodeId {
        node_id(&self.node_key.public())
    }

    pub(crate) fn farm(&self, version: u64) -> Farm {
        Farm {
            network: NETWORK.into(),
            farm: self.id("farm"),
            version,
            name: "Farm <script>".into(),
            location: "Gent".into(),
            enrolment: vec![EnrolmentKey { key: self.token.public(), expires: self.at(3600) }],
        }
    }

    pub(crate) fn node(&self, version: u64) -> Node {
        Node {
            network: NETWORK.into(),
            key: self.node_key.public(),
            farm: self.id("farm"),
            version,
            issued: self.now,
            image: "zos 0.1".into(),
            hardware: Hardware {
                vendor: "QEMU".into(),
                product: "<img src=x>".into(),
                cpu: "cpu".into(),
                cores: 4,
                memory_bytes: 8 * GIB,
                disks: vec![Disk {
                    name: "vda".into(),
                    model: "disk".into(),
                    size_bytes: 100 * GIB,
                    class: "ssd".into(),
                    state: "foreign".into(),
                    reason: "it carries a \"filesystem\" & data".into(),
                }],
                nics: vec![Nic {
                    name: "eth0".into(),
                    mac: "52:54:00:00:00:01".into(),
                    driver: "virtio_net".into(),
                    addresses: vec!["10.0.2.15/24".into()],
                }],
            },
            capacity: Capacity {
                cru_milli: 4000,
                mru_bytes: 6 * GIB,
                sru_bytes: 90 * GIB,
                hru_bytes: 0,
            },
            evidence: Evidence::SelfReported,
            degraded: vec!["vda is not <used>".into()],
        }
    }

    pub(crate) fn adoption(&self) -> Adoption {
        Adoption {
            network: NETWORK.into(),
            farm: self.id("farm"),
            node: self.node_id(),
            issued: self.now,
        }
    }

    pub(crate) fn pool(&self) -> Pool {
        Pool {
            network: NETWORK.into(),
            farm: self.id("farm"),
            owner: self.id("owner"),
            nodes: vec![self.node_id()],
            amounts: Amounts { cu_seconds: 100_000_000, su_seconds: 0, ipv4_seconds: 0 },
            expires: self.at(1_000_000),
            serial: 1,
        }
    }

    pub(crate) fn contract(&self) -> ContractId {
        contract_id(&self.id("owner"), &nonce())
    }

    pub(crate) fn document(&self, version: u64) -> Vec<u8> {
        let container = Container {
            flist: "web".into(),
            command: vec![],
            env: vec![],
            cwd: None,
            user: None,
            cpu_milli: 500,
            memory_bytes: GIB,
            pids_max: 10,
            mounts: vec![],
            ports: vec![],
            stop: Stop { signal: 15, grace_s: 10 },
        };
        let workload =
            Workload { name: "web".into(), spec: Spec::Container(container), needs: vec![] };
        let document = Document {
            contract: self.contract(),
            version,
            node: self.node_id(),
            workloads: vec![workload],
        };
        serde_json::to_vec(&document).unwrap()
    }

    pub(crate) fn header(&self, version: u64, prev: Option<StatementId>) -> Header {
        let mut stakeholders: Vec<_> =
            [("it", Role::It), ("legal", Role::Legal), ("budget", Role::Budget)]
                .into_iter()
                .map(|(name, role)| Stakeholder { identity: self.id(name), role, weight: 1 })
                .collect();
        stakeholders.sort_by_key(|holder| holder.identity);
        let rule = Rule {
            required: vec![self.id("it")],
            roles: vec![RoleQuorum { role: Role::Legal, min: 1 }],
            min_weight: 2,
            veto_roles: vec![Role::Legal],
        };
        Header {
            network: NETWORK.into(),
            contract: self.contract(),
            nonce: nonce(),
            version,
            prev,
            owner: self.id("owner"),
            title: "Web <i>page".into(),
            purpose: "A page & more".into(),
            policy: Policy { create: rule.clone(), update: rule.clone(), cancel: rule },
            stakeholders,
            approve_by: self.at(1000),
            not_before: self.at(-10),
            start_by: self.at(5000),
            expires: self.at(10_000),
            pool: seal(&self.pool(), self.key("farm")).id().unwrap(),
            flists: vec![Flist {
                name: "web".into(),
                digest: FlistId([9; 32]),
                bytes: 1,
                urls: vec!["http://content.test/".into()],
            }],
            deployments: Deployments {
                count: 1,
                root: StatementId(merkle::root(&[merkle::leaf(&self.document(version))])),
            },
            execution: Execution { on_partition: OnPartition::Keep },
            extensions: Extensions::default(),
        }
    }

    pub(crate) fn decision(
        &self,
        name: &'static str,
        header: &Envelope,
        what: Decision,
    ) -> Approval {
        let header = contract::Signed::<Header>::open(header).unwrap();
        Approval {
            network: NETWORK.into(),
            contract: header.body.contract,
            version: header.body.version,
            subject: header.id,
            action: if header.body.version == 1 { Action::Create } else { Action::Update },
            decision: what,
            signer: self.id(name),
            issued: self.now,
            comment: String::new(),
        }
    }

    pub(crate) fn approve(&self, name: &'static str, header: &Envelope) -> Envelope {
        seal(&self.decision(name, header, Decision::Approve), self.key(name))
    }

    pub(crate) fn cancel(&self) -> Cancel {
        Cancel {
            network: NETWORK.into(),
            contract: self.contract(),
            version: 1,
            reason: "done".into(),
            issued: self.now,
            effective_at: self.at(-5),
            retention: Retention::Wipe,
        }
    }

    pub(crate) fn report(&self, seq: u64, prev: Option<StatementId>, state: State) -> Report {
        Report {
            network: NETWORK.into(),
            node: self.node_id(),
            boot: "b1".into(),
            seq,
            prev,
            at: self.now,
            contract: self.contract(),
            version: 1,
            header: None,
            workload: Some("web".into()),
            state,
            code: "started".into(),
            message: "it <runs>".into(),
            ran: None,
        }
    }

    pub(crate) fn heartbeat(&self, boot: &str, seq: u64, offset: i64) -> Heartbeat {
        Heartbeat {
            network: NETWORK.into(),
            node: self.node_id(),
            boot: boot.into(),
            seq,
            at: self.at(offset),
            uptime_s: 60,
            image: "zos 0.1".into(),
            free: Capacity { cru_milli: 3500, mru_bytes: 5 * GIB, ..Capacity::default() },
            contracts: vec![],
        }
    }

    /// Everything up to an adopted node with a pool.
    pub(crate) async fn prepare(&self, client: &Client) {
        for name in self.keys.keys() {
            client.push(&self.identity(name)).await.unwrap();
        }
        client.push(&seal(&self.farm(1), self.key("farm"))).await.unwrap();
        client.push(&seal(&self.node(1), &self.node_key)).await.unwrap();
        client.push(&seal(&self.adoption(), &self.token)).await.unwrap();
        client.push(&seal(&self.pool(), self.key("farm"))).await.unwrap();
    }

    /// A contract with its documents, not approved yet.
    pub(crate) async fn propose(&self, client: &Client) -> Envelope {
        let header = seal(&self.header(1, None), self.key("owner"));
        client.push(&header).await.unwrap();
        client.push_documents(&self.contract(), 1, &[self.document(1)]).await.unwrap();
        header
    }

    /// A contract that everybody has approved who must.
    pub(crate) async fn agree(&self, client: &Client) -> Envelope {
        let header = self.propose(client).await;
        for name in ["it", "legal"] {
            client.push(&self.approve(name, &header)).await.unwrap();
        }
        header
    }

    pub(crate) fn judge(&self, bundle: &Bundle) -> contract::Verdict {
        let trust = contract::Trust {
            network: NETWORK.into(),
            farm: self.id("farm"),
            node: self.node_id(),
            free: self.node(1).capacity,
            started: false,
        };
        contract::verdict(bundle, &trust, system_clock())
    }
}

fn nonce() -> Nonce {
    Nonce("00112233445566778899aabbccddeeff".into())
}

/// A registry in this process, and a client of it.
pub(crate) struct Registry {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) base: String,
}

impl Registry {
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(data, Access::Writable).await
    }

    pub(crate) async fn start_with(data: &Path, content: Access) -> Self {
        let settings = Settings {
            data: data.into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            network: NETWORK.into(),
            content,
            now: system_clock,
        };
        let server = start(settings).await.unwrap();
        let base = format!("http://{}", server.address);
        Self { client: Client::new([&base]).unwrap(), server, base }
    }
}
