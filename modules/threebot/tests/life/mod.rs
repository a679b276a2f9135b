//! The life of a contract with a log and two witnesses, made without a registry: whoever signs can be
//! made to sign anything, in any order.

use contract::{
    Envelope, FlistId, Signed, SigningKey, Statement, StatementId, Timestamp,
    bundle::Deployment,
    decision::{Action, Approval, Cancel, Decision},
    header::{Header, OnPartition},
    merkle,
    node::{Node, node_id},
    report::{Ran, Report, State},
    testkit::{NETWORK, World, bytes, seal},
    workload::Document,
};
use std::convert::Infallible;
use threebot::{
    People,
    audit::{Audit, Code, Expected, Refused, audit},
    evidence::{Evidence, FORMAT, Proof},
};
use tlog::{Algorithm, Checkpoint, Edge, Hash, Note, Policy, Record, Signer, tree};

const ORIGIN: &str = "log.example/life";
pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) struct Life {
    pub(crate) world: World,
    /// Without proofs.
    pub(crate) evidence: Evidence,
    /// What the log has, in its order.
    pub(crate) logged: Vec<Envelope>,
    /// The nodes, and the last report of each.
    pub(crate) nodes: Vec<(SigningKey, u64, Option<StatementId>)>,
}

/// A report: when, of which version and workload, as what, and what ran.
pub(crate) type Told = (i64, u64, Option<&'static str>, State, Option<Ran>);

pub(crate) fn ran(flist: u8) -> Ran {
    let id = |byte| FlistId([byte; 32]);
    Ran { flist: id(flist), image: id(1), entrypoint: id(2), files: 3 }
}

/// It runs, with the bytes that were agreed on.
pub(crate) fn running(at: i64, version: u64) -> Told {
    (at, version, Some("web"), State::Running, Some(ran(9)))
}

pub(crate) fn at(offset: i64) -> Timestamp {
    Timestamp::from_seconds(NOW + offset)
}

impl Life {
    /// Nothing but the people, the farm and the node.
    pub(crate) fn new() -> Self {
        let world = World::new(at(0));
        let evidence = Evidence {
            format: FORMAT,
            headers: vec![],
            approvals: vec![],
            cancels: vec![],
            identities: contract::testkit::PEOPLE.map(|name| world.identity(name)).to_vec(),
            pools: vec![seal(&world.pool(), world.key("farm"))],
            documents: vec![],
            nodes: vec![seal(&world.node(1), &world.node_key)],
            farms: vec![seal(&world.farm(1), world.key("farm"))],
            adoptions: vec![seal(&world.adoption(), &world.token)],
            reports: vec![],
            proofs: vec![],
        };
        let nodes = vec![(SigningKey::from_seed(&[77; 32]), 0, None)];
        Self { world, evidence, logged: vec![], nodes }
    }

    /// Version 1, approved by two of three at 10, and logged.
    pub(crate) fn agreed() -> Self {
        let mut life = Self::new();
        life.propose(|_| {});
        life.approve(1, 10);
        life
    }

    /// The same, and it runs from 30 on.
    pub(crate) fn that_runs() -> Self {
        let mut life = Self::agreed();
        life.tell((20, 1, None, State::Accepted, None));
        life.tell(running(30, 1));
        life
    }

    /// The next version, changed by `edit`.
    pub(crate) fn propose(&mut self, edit: impl Fn(&mut Header)) {
        let version = self.evidence.headers.len() as u64 + 1;
        self.propose_for(version, &[self.world.document(version)], edit);
    }

    /// The same with other documents, which are sorted by node.
    pub(crate) fn propose_for(
        &mut self,
        version: u64,
        documents: &[Document],
        edit: impl Fn(&mut Header),
    ) {
        let prev = self.evidence.headers.last().map(|last| last.id().unwrap());
        let mut header = self.world.header(version, prev);
        let documents: Vec<_> = documents.iter().map(bytes).collect();
        let leaves: Vec<_> = documents.iter().map(|bytes| merkle::leaf(bytes)).collect();
        header.deployments.count = leaves.len() as u64;
        header.deployments.root = StatementId(merkle::root(&leaves));
        header.execution.on_partition = OnPartition::StopAfterS(60);
        edit(&mut header);
        for (index, document) in documents.iter().enumerate() {
            let path = merkle::path(&leaves, index).unwrap();
            self.evidence.documents.push(Deployment::new(document, path));
        }
        let header = seal(&header, self.world.key("owner"));
        self.logged.push(header.clone());
        self.evidence.headers.push(header);
    }

    /// IT and legal approve a version.
    pub(crate) fn approve(&mut self, version: usize, offset: i64) {
        for name in ["it", "legal"] {
            self.decide(name, version, Decision::Approve, offset);
        }
    }

    pub(crate) fn decide(&mut self, name: &'static str, version: usize, what: Decision, at: i64) {
        let header = self.evidence.headers[version - 1].clone();
        let approval = self.world.decide(name, &header, what, at);
        self.logged.push(approval.clone());
        self.evidence.approvals.push(approval);
    }

    /// An order to end version 1, approved by these one second later.
    pub(crate) fn cancel(&mut self, issued: i64, effective_at: i64, by: &[&'static str]) {
        let (issued, effective_at) = (at(issued), at(effective_at));
        let order = Cancel { issued, effective_at, ..self.world.cancel() };
        let order = seal(&order, self.world.key("owner"));
        for name in by {
            let header = &self.evidence.headers[0];
            let approval = Approval {
                subject: order.id().unwrap(),
                action: Action::Cancel,
                issued: issued.plus(1),
                ..self.world.decision(name, header, Decision::Approve)
            };
            self.evidence.approvals.push(seal(&approval, self.world.key(name)));
            self.logged.extend(self.evidence.approvals.last().cloned());
        }
        self.logged.push(order.clone());
        self.evidence.cancels.push(order);
    }

    /// A second node of the same farm.
    pub(crate) fn second_node(&mut self) -> contract::NodeId {
        let key = SigningKey::from_seed(&[78; 32]);
        let id = node_id(&key.public());
        let node = Node { key: key.public(), ..self.world.node(1) };
        self.evidence.nodes.push(seal(&node, &key));
        let adoption = contract::farm::Adoption { node: id, ..self.world.adoption() };
        self.evidence.adoptions.push(seal(&adoption, &self.world.token));
        self.nodes.push((key, 0, None));
        id
    }

    /// Version 1 for two nodes, approved at 10; those of these numbers report that it runs.
    pub(crate) fn on_two_nodes(reporting: &[usize]) -> Self {
        let mut life = Self::new();
        let second = life.second_node();
        let mut pool = life.world.pool();
        pool.nodes.push(second);
        pool.nodes.sort();
        life.evidence.pools = vec![seal(&pool, life.world.key("farm"))];
        let mut documents = vec![life.world.document(1), life.world.document(1)];
        documents[1].node = second;
        let id = life.evidence.pools[0].id().unwrap();
        life.propose_for(1, &documents, |header| header.pool = id);
        life.approve(1, 10);
        for node in reporting {
            life.tell_by(*node, running(30, 1), |_| {});
        }
        life
    }

    /// The node reports, and the log has it.
    pub(crate) fn tell(&mut self, told: Told) -> StatementId {
        self.tell_by(0, told, |_| {})
    }

    pub(crate) fn tell_by(
        &mut self,
        node: usize,
        (offset, version, workload, state, ran): Told,
        edit: impl Fn(&mut Report),
    ) -> StatementId {
        let (key, last, prev) = &mut self.nodes[node];
        let place = usize::try_from(version).unwrap().checked_sub(1);
        let header = place.and_then(|place| self.evidence.headers.get(place));
        let mut report = Report {
            node: node_id(&key.public()),
            at: at(offset),
            version,
            header: header.map(|header| header.id().unwrap()),
            workload: workload.map(str::to_owned),
            ran,
            ..self.world.report(*last + 1, *prev, state)
        };
        edit(&mut report);
        let envelope = seal(&report, key);
        let id = envelope.id().unwrap();
        (*last, *prev) = (*last + 1, Some(id));
        self.logged.push(envelope.clone());
        self.evidence.reports.push(envelope);
        id
    }

    /// The evidence with a proof for everything that was logged, under the checkpoint of all.
    pub(crate) fn proven(&self) -> Evidence {
        Evidence { proofs: proofs(&self.logged, &signers()), ..self.evidence.clone() }
    }

    pub(crate) fn audit(&self) -> Audit {
        look(&self.proven(), Some(&policy(2)), &self.expected()).unwrap()
    }

    pub(crate) fn expected(&self) -> Expected<'static> {
        Expected { contract: self.world.contract(), network: NETWORK, from_first: true }
    }

    pub(crate) fn codes(&self) -> Vec<Code> {
        codes(&self.audit())
    }

    /// The same without a policy.
    pub(crate) fn codes_by_times(&self) -> Vec<Code> {
        codes(&look(&self.proven(), None, &self.expected()).unwrap())
    }

    /// What is found in a changed file.
    pub(crate) fn changed(&self, edit: impl Fn(&mut Evidence)) -> Vec<Code> {
        let mut evidence = self.proven();
        edit(&mut evidence);
        codes(&look(&evidence, Some(&policy(2)), &self.expected()).unwrap())
    }
}

pub(crate) fn look(
    evidence: &Evidence,
    policy: Option<&Policy>,
    expected: &Expected<'_>,
) -> Result<Audit, Refused> {
    audit(evidence, policy, expected, &People::default())
}

pub(crate) fn codes(audit: &Audit) -> Vec<Code> {
    let mut codes: Vec<_> = audit.findings.iter().map(|finding| finding.code).collect();
    codes.dedup();
    codes
}

/// The log's key, and those of two witnesses.
pub(crate) fn signers() -> Vec<Signer> {
    let witness = |n: u8| {
        Signer::new(&format!("witness.example/{n}"), Algorithm::Cosignature, &[n; 32]).unwrap()
    };
    vec![Signer::new(ORIGIN, Algorithm::Ed25519, &[90; 32]).unwrap(), witness(91), witness(92)]
}

/// That so many of the witnesses have to cosign.
pub(crate) fn policy(quorum: usize) -> Policy {
    let mut keys: Vec<_> = signers().iter().map(|signer| signer.verifier().clone()).collect();
    let witnesses = keys.split_off(1);
    Policy::new(ORIGIN, keys, witnesses, quorum).unwrap()
}

/// A proof for each statement of a log, under a checkpoint that these sign.
pub(crate) fn proofs(logged: &[Envelope], signers: &[Signer]) -> Vec<Proof> {
    let records: Vec<_> =
        logged.iter().map(|one| Record::of(one).unwrap().write().to_vec()).collect();
    let leaves: Vec<Hash> = records.iter().map(|record| tree::leaf(record)).collect();
    let root_of = |leaves: &[Hash]| {
        let mut edge = Edge::default();
        for leaf in leaves {
            edge.push(*leaf, |_, _| {});
        }
        edge.root()
    };
    let size = leaves.len() as u64;
    let root = root_of(&leaves);
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size, root, extensions: vec![] };
    let mut note = Note::new(checkpoint.to_string()).unwrap();
    for signer in signers {
        note.add(signer.sign(&checkpoint.to_string(), NOW.unsigned_abs())).unwrap();
    }
    let hash_of = |node: tree::Node| {
        let first = usize::try_from(node.index << node.level).unwrap();
        Ok::<_, Infallible>(root_of(&leaves[first..first + (1 << node.level)]))
    };
    let proof = |(index, record): (usize, Vec<u8>)| {
        let index = index as u64;
        let Ok(path) = tree::hashes(tree::inclusion(index, size).unwrap(), hash_of);
        let statement = logged[usize::try_from(index).unwrap()].id().unwrap();
        let proof = tlog::Proof { extra: Some(record), index, path, note: note.clone() };
        Proof { statement, proof: proof.to_string() }
    };
    records.into_iter().enumerate().map(proof).collect()
}

/// The statement, changed and signed again by this key.
pub(crate) fn again<T: Statement>(
    envelope: &mut Envelope,
    key: &SigningKey,
    edit: impl Fn(&mut T),
) {
    let mut body = Signed::<T>::open(envelope).unwrap().body;
    edit(&mut body);
    *envelope = seal(&body, key);
}
