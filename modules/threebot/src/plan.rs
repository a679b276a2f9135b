//! From a source to exact bytes: the header that will be signed, and a document for each node.
//!
//! Pure: the same inputs give the same bytes. Everything that can be known to be wrong is said here,
//! all of it at once, before anybody has signed.

pub mod file;
pub mod world;

use crate::{
    people::People,
    source::{self, FlistRef, Source},
};
use contract::{
    ContractId, FlistId, IdentityId, NodeId, Statement as _, StatementId, Timestamp,
    header::{
        Deployments, Execution, Flist, Header, Nonce, OnPartition, Policy, Publisher, RoleQuorum,
        Rule, Stakeholder, contract_id,
    },
    merkle,
    workload::{
        Container, DiskLimits, Document, Health, Mount, MountSource, Port, Probe, Spec, Stop,
        Volume, Workload,
    },
};
use flist::{
    Flist as FlistBody,
    body::{Node as Entry, Run},
};
use std::collections::{BTreeMap, BTreeSet};

/// Decisions count for this long unless the source says otherwise.
const APPROVE_BY_S: i64 = 14 * 24 * 3600;

/// Everything that a plan is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the person wrote.
    pub source: &'a Source,
    /// The grid.
    pub network: &'a str,
    /// Lengths of time in the source count from here.
    pub now: Timestamp,
    /// Who signs, unless the source names an owner.
    pub signer: IdentityId,
    /// Whom the source's names mean.
    pub people: &'a People,
    /// The flists that the source uses (see [`wanted_flists`]), under the same names.
    pub flists: &'a BTreeMap<String, KnownFlist>,
    /// A first version, or the next one.
    pub follows: Follows<'a>,
}

/// What a plan continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follows<'a> {
    /// Nothing: a new contract with this nonce.
    Nothing(Nonce),
    /// The version in force.
    Version(&'a Header, StatementId),
}

/// An flist that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFlist {
    /// What it contains.
    pub flist: FlistBody,
    /// Where nodes fetch it.
    pub urls: Vec<String>,
}

/// A contract version as exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What will be signed.
    pub header: Header,
    /// Its exact bytes.
    pub payload: Vec<u8>,
    /// What each node has to do, sorted by node.
    pub documents: Vec<Document>,
    /// Their exact bytes, in the same order.
    pub document_bytes: Vec<Vec<u8>>,
}

impl Plan {
    /// Id of the header statement.
    pub fn id(&self) -> StatementId {
        StatementId::of(&self.payload)
    }

    /// Id of the contract.
    pub fn contract(&self) -> ContractId {
        self.header.contract
    }
}

/// Why there is no plan: everything that is wrong, as sentences.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct Refused {
    /// At least one.
    pub problems: Vec<String>,
}

/// Collects problems, so that a person sees all of them at once.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// The value, or a problem and nothing.
    fn need<T>(&mut self, value: Option<T>, problem: impl FnOnce() -> String) -> Option<T> {
        if value.is_none() {
            self.0.push(problem());
        }
        value
    }

    fn done<T>(self, value: T) -> Result<T, Refused> {
        if self.0.is_empty() { Ok(value) } else { Err(Refused { problems: self.0 }) }
    }
}

/// The flists that containers use, by the name that they get in the header: their name in the
/// source, or the container's for one that is given in place. Unused ones are left out.
pub fn wanted_flists(source: &Source) -> Result<BTreeMap<String, source::Flist>, Refused> {
    let mut problems = Problems::default();
    let mut wanted = BTreeMap::new();
    for (name, container) in &source.containers {
        match &container.flist {
            FlistRef::Named(flist) => match source.flists.get(flist) {
                Some(found) => {
                    wanted.insert(flist.clone(), found.clone());
                }
                None => problems.add(format!(
                    "container {name}: there is no [flists.{flist}] (an flist given in place is an \
                     id, a URL or a table)"
                )),
            },
            FlistRef::Inline(_) if source.flists.contains_key(name) => problems.add(format!(
                "container {name} gives its flist in place, and [flists.{name}] has the same name"
            )),
            FlistRef::Inline(flist) => {
                wanted.insert(name.clone(), flist.clone());
            }
        }
    }
    problems.done(wanted)
}

/// Makes the bytes.
pub fn plan(inputs: &Inputs<'_>) -> Result<Plan, Refused> {
    let mut problems = Problems::default();
    let source = inputs.source;
    let owner = match &source.owner {
        None => Some(inputs.signer),
        Some(name) => problems.need(inputs.people.find(name), || unknown("owner", name)),
    };
    let stakeholders = stakeholders(inputs, &mut problems);
    let policy = policy(inputs, &stakeholders, &mut problems);
    let pool = problems.need(source.pool.parse().ok(), || {
        format!("pool {:?} is no statement id: 64 hexadecimal digits", source.pool)
    });
    let flists = header_flists(inputs, &mut problems);
    let parts = workloads(inputs, &mut problems);
    let (Some(owner), Some(pool)) = (owner, pool) else {
        return Err(Refused { problems: problems.0 });
    };

    let (contract, nonce, version, prev) = match &inputs.follows {
        Follows::Nothing(nonce) => (contract_id(&owner, nonce), nonce.clone(), 1, None),
        Follows::Version(header, id) => {
            if header.owner != owner {
                problems.add("an update has the same owner as the version before");
            }
            (header.contract, header.nonce.clone(), header.version + 1, Some(*id))
        }
    };
    let documents: Vec<_> = parts
        .into_iter()
        .map(|(node, workloads)| Document { contract, version, node, workloads })
        .collect();
    for document in &documents {
        if let Err(rule) = document.check() {
            problems.add(format!("node {}: {rule}", document.node.short()));
        }
    }
    let document_bytes: Vec<_> = documents.iter().map(bytes).collect();
    let leaves: Vec<_> = document_bytes.iter().map(|bytes| merkle::leaf(bytes)).collect();

    let now = inputs.now;
    let expires = source.expires.resolve(now);
    let at = |when: Option<source::When>, default| when.map_or(default, |when| when.resolve(now));
    let header = Header {
        network: inputs.network.to_owned(),
        contract,
        nonce,
        version,
        prev,
        owner,
        title: source.title.clone(),
        purpose: source.purpose.trim().to_owned(),
        policy,
        stakeholders,
        approve_by: at(source.approve_by, now.plus(APPROVE_BY_S).min(expires)),
        not_before: at(source.not_before, now),
        start_by: at(source.start_by, expires),
        expires,
        pool,
        flists,
        deployments: Deployments {
            count: documents.len() as u64,
            root: StatementId(merkle::root(&leaves)),
        },
        execution: Execution { on_partition: partition(source.on_partition) },
        extensions: contract::strict::Extensions::default(),
    };
    if expires <= now {
        problems.add(format!("expires {expires} has passed"));
    }
    if header.approve_by <= now {
        problems.add(format!("approve_by {} has passed", header.approve_by));
    }
    // Without workloads the header breaks a rule as well, which would say the same again.
    if problems.0.is_empty()
        && let Err(rule) = header.check()
    {
        problems.add(format!("the contract: {rule}"));
    }
    let payload = bytes(&header);
    if payload.len() > Header::BYTES_MAX {
        problems.add(format!("the header has {} bytes, which is too large", payload.len()));
    }
    problems.done(Plan { header, payload, documents, document_bytes })
}

fn unknown(what: &str, name: &str) -> String {
    format!("{what} {name:?} is no identity id, key or contact (see `3bot key list`)")
}

fn bytes(body: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings, numbers and lists always serialise")
}

fn partition(source: source::OnPartition) -> OnPartition {
    match source {
        source::OnPartition::Keep => OnPartition::Keep,
        source::OnPartition::StopAfter(span) => OnPartition::StopAfterS(span.seconds),
    }
}

fn stakeholders(inputs: &Inputs<'_>, problems: &mut Problems) -> Vec<Stakeholder> {
    let mut found = Vec::new();
    for holder in &inputs.source.stakeholders {
        let name = &holder.identity;
        if let Some(identity) =
            problems.need(inputs.people.find(name), || unknown("stakeholder", name))
        {
            found.push(Stakeholder { identity, role: holder.role, weight: holder.weight });
        }
    }
    found.sort_by_key(|holder| holder.identity);
    if found.is_empty() && problems.0.is_empty() {
        problems.add("a contract has at least one stakeholder who approves it");
    }
    for pair in found.windows(2).filter(|pair| pair[0].identity == pair[1].identity) {
        let who = inputs.people.show(&pair[0].identity);
        problems.add(format!("{who} is a stakeholder twice; one identity has one role"));
    }
    found
}

fn policy(inputs: &Inputs<'_>, stakeholders: &[Stakeholder], problems: &mut Problems) -> Policy {
    let everybody = Rule {
        required: stakeholders.iter().map(|holder| holder.identity).collect(),
        roles: Vec::new(),
        min_weight: 1,
        veto_roles: Vec::new(),
    };
    let written = &inputs.source.policy;
    let mut choose = |name: &str, written: Option<&source::Rule>, default: &Rule| match written {
        Some(written) => rule(name, written, inputs, stakeholders, problems),
        None => default.clone(),
    };
    let create = choose("create", written.create.as_ref(), &everybody);
    let update = choose("update", written.update.as_ref(), &create);
    let cancel = choose("cancel", written.cancel.as_ref(), &create);
    Policy { create, update, cancel }
}

fn rule(
    action: &str,
    written: &source::Rule,
    inputs: &Inputs<'_>,
    stakeholders: &[Stakeholder],
    problems: &mut Problems,
) -> Rule {
    let what = format!("policy.{action}: required");
    let required: BTreeSet<_> = written
        .required
        .iter()
        .filter_map(|name| problems.need(inputs.people.find(name), || unknown(&what, name)))
        .collect();
    for id in &required {
        if !stakeholders.iter().any(|holder| holder.identity == *id) {
            let who = inputs.people.show(id);
            problems.add(format!("{what}: {who} is no stakeholder"));
        }
    }
    // A rule that nobody could ever fulfil is a mistake, although the format allows it.
    for (role, min) in &written.roles {
        let have = stakeholders.iter().filter(|holder| holder.role == *role).count();
        if (have as u64) < u64::from(*min) {
            problems.add(format!(
                "policy.{action}: {min} of role {role} can never approve: there are {have}"
            ));
        }
    }
    let weight: u64 = stakeholders.iter().map(|holder| u64::from(holder.weight)).sum();
    if weight < u64::from(written.min_weight) {
        problems.add(format!(
            "policy.{action}: min_weight {} can never be reached: all together weigh {weight}",
            written.min_weight
        ));
    }
    let veto_roles: BTreeSet<_> = written.veto_roles.iter().copied().collect();
    Rule {
        required: required.into_iter().collect(),
        roles: written.roles.iter().map(|(&role, &min)| RoleQuorum { role, min }).collect(),
        min_weight: written.min_weight,
        veto_roles: veto_roles.into_iter().collect(),
    }
}

fn header_flists(inputs: &Inputs<'_>, problems: &mut Problems) -> Vec<Flist> {
    match wanted_flists(inputs.source) {
        Err(refused) => {
            problems.0.extend(refused.problems);
            Vec::new()
        }
        Ok(wanted) => wanted
            .iter()
            .filter_map(|(name, written)| {
                let known = inputs.flists.get(name);
                let known = problems.need(known, || format!("flist {name} was not looked up"))?;
                Some(Flist {
                    name: name.clone(),
                    digest: known.flist.identity(),
                    bytes: known.flist.body().content_bytes(),
                    urls: known.urls.clone(),
                    publisher: written.publisher.as_deref().map(demanded),
                })
            })
            .collect(),
    }
}

/// As the contract says it.
pub(crate) fn demanded(written: &source::Publisher) -> Publisher {
    Publisher { key: written.key, revision: written.revision }
}

/// The workloads of each node, sorted by name.
fn workloads(inputs: &Inputs<'_>, problems: &mut Problems) -> BTreeMap<NodeId, Vec<Workload>> {
    let source = inputs.source;
    let all = node_ids(&source.nodes, "nodes", problems);
    let mut parts: BTreeMap<NodeId, Vec<Workload>> = BTreeMap::new();
    let mut place = |name: &String,
                     nodes: Option<&Vec<String>>,
                     needs: &[String],
                     spec: &Spec,
                     problems: &mut Problems| {
        let own = nodes.map(|nodes| node_ids(nodes, &format!("{name}: nodes"), problems));
        let nodes = own.as_ref().unwrap_or(&all);
        if nodes.is_empty() {
            problems.add(format!("{name} runs nowhere: give it `nodes`, or the contract"));
        }
        for node in nodes {
            let workload =
                Workload { name: name.clone(), spec: spec.clone(), needs: needs.to_vec() };
            parts.entry(*node).or_default().push(workload);
        }
    };
    for (name, volume) in &source.volumes {
        let spec = Spec::Volume(Volume { size_bytes: volume.size.bytes, class: volume.medium });
        place(name, volume.nodes.as_ref(), &[], &spec, problems);
    }
    for (name, written) in &source.containers {
        if source.volumes.contains_key(name) {
            problems.add(format!("{name} is the name of a container and of a volume"));
        }
        let container = container(name, written, inputs, problems);
        let spec = Spec::Container(container);
        place(name, written.nodes.as_ref(), &written.needs, &spec, problems);
    }
    if source.containers.is_empty() && source.volumes.is_empty() {
        problems.add("the contract has no containers and no volumes");
    }
    for node in all.iter().filter(|node| !parts.contains_key(node)) {
        problems.add(format!("nothing runs on node {}, which `nodes` names", node.short()));
    }
    for workloads in parts.values_mut() {
        workloads.sort_by(|a, b| a.name.cmp(&b.name));
    }
    parts
}

fn node_ids(texts: &[String], what: &str, problems: &mut Problems) -> BTreeSet<NodeId> {
    texts
        .iter()
        .filter_map(|text| {
            problems.need(text.parse().ok(), || {
                format!("{what}: {text:?} is no node id (see `3bot node list`)")
            })
        })
        .collect()
}

fn container(
    name: &str,
    written: &source::Container,
    inputs: &Inputs<'_>,
    problems: &mut Problems,
) -> Container {
    let flist = match &written.flist {
        FlistRef::Named(flist) => flist.clone(),
        FlistRef::Inline(_) => name.to_owned(),
    };
    let mounts = written
        .mounts
        .iter()
        .filter_map(|mount| {
            let source = match (&mount.tmpfs, &mount.volume, &mount.overlay) {
                (Some(size), None, None) => MountSource::Tmpfs(size.bytes),
                (None, Some(volume), None) => MountSource::Volume(volume.clone()),
                (None, None, Some(volume)) => MountSource::Overlay(volume.clone()),
                (_, _, _) => {
                    problems.add(format!(
                        "container {name}: the mount at {} has one of `tmpfs`, `volume` and `overlay`",
                        mount.path
                    ));
                    return None;
                }
            };
            let volume = source.volume().filter(|name| !inputs.source.volumes.contains_key(*name));
            if let Some(volume) = volume {
                problems.add(format!("container {name}: there is no [volumes.{volume}]"));
            }
            if mount.path == "/" {
                problems.add(format!(
                    "container {name}: nothing is mounted on /: name the directories that it writes to"
                ));
            }
            Some(Mount { path: mount.path.clone(), source })
        })
        .collect();
    let container = Container {
        flist,
        command: written.command.clone(),
        env: written.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        cwd: written.cwd.clone(),
        user: written.user.clone(),
        cpu_milli: written.cpu.milli,
        memory_bytes: written.memory.bytes,
        pids_max: written.pids,
        mounts,
        ports: written
            .ports
            .iter()
            .map(|port| Port {
                protocol: port.protocol,
                host: port.host,
                container: port.container,
            })
            .collect(),
        stop: Stop { signal: written.stop.signal, grace_s: written.stop.grace.seconds },
        health: written
            .health
            .as_ref()
            .and_then(|written| health(name, written, problems))
            .map(Box::new),
        logs: written.logs.clone(),
        stats: written.stats.clone(),
        restart: written.restart,
        disk: written.disk.map(|disk| DiskLimits {
            read_bytes_s: disk.read.map(|size| size.bytes),
            write_bytes_s: disk.write.map(|size| size.bytes),
            read_ops_s: disk.read_ops,
            write_ops_s: disk.write_ops,
        }),
    };
    for sink in container.logs.iter().chain(&container.stats) {
        if let Err(problem) = sink.target() {
            problems.add(format!("container {name}: {:?}: {problem}", sink.to));
        }
    }
    if let Some(known) = inputs.flists.get(&container.flist) {
        let fits = fits_flist(&container, &known.flist);
        problems.0.extend(fits.into_iter().map(|problem| format!("container {name}: {problem}")));
    }
    container
}

fn health(name: &str, written: &source::Health, problems: &mut Problems) -> Option<Health> {
    let probe = match (&written.http, written.tcp, &written.exec) {
        (Some(http), None, None) => {
            let [status_min, status_max] = http.status;
            Probe::Http { port: http.port, path: http.path.clone(), status_min, status_max }
        }
        (None, Some(port), None) => Probe::Tcp { port },
        (None, None, Some(command)) => Probe::Exec { command: command.clone() },
        _ => {
            problems.add(format!("container {name}: `health` has one of `http`, `tcp` and `exec`"));
            return None;
        }
    };
    Some(Health {
        probe,
        interval_s: written.interval.seconds,
        timeout_s: written.timeout.seconds,
        retries: written.retries,
        start_period_s: written.start_period.seconds,
    })
}

/// What the flist lacks that the container needs.
fn fits_flist(container: &Container, flist: &FlistBody) -> Vec<String> {
    let mut problems = Vec::new();
    let Run { entrypoint, arguments, .. } = &flist.body().run;
    let own = entrypoint.iter().chain(arguments).next();
    let program = container.command.first().or(own);
    if program.is_none() {
        problems.push("the flist names no program: give it a `command`".to_owned());
    }
    let asked = match container.health.as_deref().map(|health| &health.probe) {
        Some(Probe::Exec { command }) => command.first(),
        Some(Probe::Tcp { .. } | Probe::Http { .. }) | None => None,
    };
    // The others are found by the PATH of the container.
    for program in program.into_iter().chain(asked).filter(|program| program.starts_with('/')) {
        match entry(flist, program) {
            Found::Nothing => problems.push(format!("the flist has no file {program}")),
            Found::Directory => problems.push(format!("{program} is a directory of the flist")),
            Found::File | Found::BehindLink => {}
        }
    }
    for mount in &container.mounts {
        match entry(flist, &mount.path) {
            Found::Nothing | Found::File => problems.push(format!(
                "the flist has no directory {} to mount on; make it and build the flist again",
                mount.path
            )),
            Found::Directory | Found::BehindLink => {}
        }
    }
    problems
}

/// What stands at a path of an flist.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    File,
    Directory,
    /// The path leads through a symbolic link, which only a mounted root can follow.
    BehindLink,
}

fn entry(flist: &FlistBody, path: &str) -> Found {
    let entries = &flist.body().entries;
    let at = |path: &str| {
        let found = entries.binary_search_by(|entry| entry.path.as_slice().cmp(path.as_bytes()));
        found.ok().map(|index| &entries[index].node)
    };
    let path = path.trim_matches('/');
    let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
    for part in parents.chain([path]) {
        match at(part) {
            Some(Entry::Symlink(..)) => return Found::BehindLink,
            Some(Entry::Directory(_)) if part == path => return Found::Directory,
            Some(Entry::File(..) | Entry::Link(_)) if part == path => return Found::File,
            Some(Entry::Directory(_)) => {}
            None | Some(Entry::File(..) | Entry::Link(_)) => return Found::Nothing,
        }
    }
    Found::Nothing
}

/// Ids of the flists that a plan names, sorted.
pub fn flist_ids(header: &Header) -> BTreeSet<FlistId> {
    header.flists.iter().map(|flist| flist.digest).collect()
}

#[cfg(test)]
pub(crate) mod tests;
