//! A small grid for tests: people with keys, a farm with a node, and every statement between them.
//!
//! Feature `testkit`, never in what ships. Its times hang on one moment that the caller gives; all
//! else is the same each time. Names carry the characters that a page must escape.

pub mod mutate;

use crate::{
    Bundle, Capacity, ContractId, Envelope, FlistId, IdentityId, NodeId, Signed, SigningKey,
    Statement, StatementId, Timestamp,
    bundle::Deployment,
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
    scrub::{Outcome, Scrub, Scrubbed},
    strict::Extensions,
    workload::{Container, Document, Health, Probe, Sink, Spec, Stop, Workload},
};
use alloc::{boxed::Box, collections::BTreeMap, format, string::String, vec, vec::Vec};

/// The grid of the fixtures.
pub const NETWORK: &str = "test";
/// Everybody with an identity.
pub const PEOPLE: [&str; 6] = ["owner", "it", "legal", "budget", "farm", "stranger"];
const VALID: &str = "what is made here is valid";

std::thread_local! {
    /// Signatures that this thread has held against a key: what a verdict costs.
    pub static CHECKS: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

/// How many signatures `work` checks.
pub fn checks(work: impl FnOnce()) -> u64 {
    let before = CHECKS.get();
    work();
    CHECKS.get() - before
}

/// Everybody's keys, and the moment around which everything happens.
#[derive(Debug)]
pub struct World {
    /// One key for each of [`PEOPLE`].
    pub keys: BTreeMap<&'static str, SigningKey>,
    /// The node's.
    pub node_key: SigningKey,
    /// The farm's enrolment key.
    pub token: SigningKey,
    /// When it happens.
    pub now: Timestamp,
    /// Tells contracts of one owner apart.
    pub nonce: Nonce,
    /// What somebody calls themselves; ids hang on it.
    pub call: fn(&str) -> String,
}

/// Signs a statement.
pub fn seal<T: Statement>(body: &T, key: &SigningKey) -> Envelope {
    Envelope::seal(body, &[key]).expect(VALID)
}

/// The bytes of a document.
pub fn bytes(document: &Document) -> Vec<u8> {
    serde_json::to_vec(document).expect(VALID)
}

impl World {
    /// A grid at this moment.
    pub fn new(now: Timestamp) -> Self {
        let seeds = 1..;
        let key = |(seed, name): (u8, _)| (name, SigningKey::from_seed(&[seed; 32]));
        Self {
            keys: seeds.zip(PEOPLE).map(key).collect(),
            node_key: SigningKey::from_seed(&[77; 32]),
            token: SigningKey::from_seed(&[88; 32]),
            now,
            nonce: Nonce("00112233445566778899aabbccddeeff".into()),
            call: |name| format!("{name} <b>&"),
        }
    }

    /// The same people with another contract.
    pub fn with_contract(self, number: u32) -> Self {
        Self { nonce: Nonce(format!("{number:032x}")), ..self }
    }

    /// Somebody's key.
    pub fn key(&self, name: &'static str) -> &SigningKey {
        &self.keys[name]
    }

    /// So many seconds later.
    pub fn at(&self, offset: i64) -> Timestamp {
        self.now.plus(offset)
    }

    /// Somebody's identity statement.
    pub fn identity(&self, name: &'static str) -> Envelope {
        let key = self.key(name);
        let identity = Identity {
            network: NETWORK.into(),
            version: 1,
            prev: None,
            name: (self.call)(name),
            keys: vec![key.public()],
            threshold: 1,
        };
        seal(&identity, key)
    }

    /// Somebody's id.
    pub fn id(&self, name: &'static str) -> IdentityId {
        IdentityId(self.identity(name).id().expect(VALID).0)
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        node_id(&self.node_key.public())
    }

    /// The farm, with one enrolment key.
    pub fn farm(&self, version: u64) -> Farm {
        Farm {
            network: NETWORK.into(),
            farm: self.id("farm"),
            version,
            name: "Farm <script>".into(),
            location: "Gent".into(),
            enrolment: vec![EnrolmentKey { key: self.token.public(), expires: self.at(3600) }],
        }
    }

    /// The node, as it describes itself.
    pub fn node(&self, version: u64) -> Node {
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
            scrub: None,
        }
    }

    /// The farm's order to the node to read its store through.
    pub fn scrub(&self, offset: i64) -> Scrub {
        Scrub {
            network: NETWORK.into(),
            farm: self.id("farm"),
            node: self.node_id(),
            issued: self.at(offset),
        }
    }

    /// The node, when it has carried out such an order.
    pub fn node_scrubbed(&self, version: u64, order: &Scrub) -> Node {
        let outcome = Outcome::Done {
            begun: order.issued.plus(1),
            ended: order.issued.plus(9),
            files: 12,
            bytes: 3456,
            bad: 2,
            damaged: vec![FlistId([5; 32])],
            repaired: vec![FlistId([6; 32])],
            left_out: Some("a <directory> cannot be listed".into()),
        };
        let (id, issued) = (seal(order, self.key("farm")).id().expect(VALID), order.issued);
        let scrub = Some(Scrubbed { order: id, issued, outcome });
        Node { scrub, ..self.node(version) }
    }

    /// The farm's consent, to be signed by the farm or its enrolment key.
    pub fn adoption(&self) -> Adoption {
        Adoption {
            network: NETWORK.into(),
            farm: self.id("farm"),
            node: self.node_id(),
            issued: self.now,
        }
    }

    /// The farm's grant to the owner on the node.
    pub fn pool(&self) -> Pool {
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

    /// The id of the contract.
    pub fn contract(&self) -> ContractId {
        contract_id(&self.id("owner"), &self.nonce)
    }

    /// What the node has to do: one container.
    pub fn document(&self, version: u64) -> Document {
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
            health: Some(Box::new(Health {
                probe: Probe::Http { port: 80, path: "/".into(), status_min: 200, status_max: 399 },
                interval_s: 10,
                timeout_s: 5,
                retries: 3,
                start_period_s: 30,
            })),
            logs: vec![Sink { to: "redis://logs.example/web".into() }],
            stats: vec![],
            restart: crate::workload::Restart::Always,
            disk: None,
        };
        let workload =
            Workload { name: "web".into(), spec: Spec::Container(container), needs: vec![] };
        Document {
            contract: self.contract(),
            version,
            node: self.node_id(),
            workloads: vec![workload],
        }
    }

    /// Its bytes.
    pub fn document_bytes(&self, version: u64) -> Vec<u8> {
        bytes(&self.document(version))
    }

    /// A version: IT must approve, legal too, and may veto; two of three suffice.
    pub fn header(&self, version: u64, prev: Option<StatementId>) -> Header {
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
            nonce: self.nonce.clone(),
            version,
            prev,
            owner: self.id("owner"),
            title: "Web <i>page".into(),
            purpose: "A page & more".into(),
            policy: Policy { create: rule.clone(), update: rule.clone(), cancel: rule },
            stakeholders,
            approve_by: self.at(1000),
            not_before: self.now,
            start_by: self.at(5000),
            expires: self.at(10_000),
            pool: seal(&self.pool(), self.key("farm")).id().expect(VALID),
            flists: vec![Flist {
                name: "web".into(),
                digest: FlistId([9; 32]),
                bytes: 1,
                urls: vec!["http://content.test/".into()],
                publisher: None,
            }],
            deployments: Deployments {
                count: 1,
                root: StatementId(merkle::root(&[merkle::leaf(&self.document_bytes(version))])),
            },
            execution: Execution { on_partition: OnPartition::Keep },
            extensions: Extensions::default(),
        }
    }

    /// A decision on a version, made now.
    pub fn decision(&self, name: &'static str, header: &Envelope, what: Decision) -> Approval {
        let header = Signed::<Header>::open(header).expect(VALID);
        let action = if header.body.version == 1 { Action::Create } else { Action::Update };
        Approval {
            network: NETWORK.into(),
            contract: header.body.contract,
            version: header.body.version,
            subject: header.id,
            action,
            decision: what,
            signer: self.id(name),
            issued: self.now,
            comment: String::new(),
        }
    }

    /// The same at another time, signed.
    pub fn decide(
        &self,
        name: &'static str,
        header: &Envelope,
        what: Decision,
        offset: i64,
    ) -> Envelope {
        let decision = self.decision(name, header, what);
        seal(&Approval { issued: self.at(offset), ..decision }, self.key(name))
    }

    /// An approval, made now.
    pub fn approve(&self, name: &'static str, header: &Envelope) -> Envelope {
        self.decide(name, header, Decision::Approve, 0)
    }

    /// An order to end version 1 at once, to be signed by the owner.
    pub fn cancel(&self) -> Cancel {
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

    /// A result of the node.
    pub fn report(&self, seq: u64, prev: Option<StatementId>, state: State) -> Report {
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

    /// A sign of life of the node.
    pub fn heartbeat(&self, boot: &str, seq: u64, offset: i64) -> Heartbeat {
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

    /// A document with its way to the root, which it alone makes.
    pub fn deployment(&self, version: u64) -> Deployment {
        let document = self.document_bytes(version);
        let path = merkle::path(&[merkle::leaf(&document)], 0).expect(VALID);
        Deployment::new(&document, path)
    }

    /// A contract that everybody has approved who must.
    pub fn agreed(&self) -> Bundle {
        let header = seal(&self.header(1, None), self.key("owner"));
        Bundle {
            approvals: ["it", "legal"]
                .map(|name| self.decide(name, &header, Decision::Approve, 10))
                .to_vec(),
            headers: vec![header],
            cancels: vec![],
            identities: PEOPLE.map(|name| self.identity(name)).to_vec(),
            pools: vec![seal(&self.pool(), self.key("farm"))],
            documents: vec![self.deployment(1)],
        }
    }

    /// The same with version 2, changed by `edit` and approved by `by`.
    pub fn updated(&self, edit: impl Fn(&mut Header), by: &[&'static str]) -> Bundle {
        let mut bundle = self.agreed();
        let mut second = self.header(2, bundle.headers[0].id().ok());
        edit(&mut second);
        let second = seal(&second, self.key("owner"));
        let approvals = by.iter().map(|name| self.decide(name, &second, Decision::Approve, 20));
        bundle.approvals.extend(approvals);
        bundle.headers.push(second);
        bundle.documents.push(self.deployment(2));
        bundle
    }
}
