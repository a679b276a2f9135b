//! The file in which a person writes a contract, in TOML or YAML.
//!
//! Owns the words of that file and their defaults. Refuses unknown words, with line and column. What
//! the file means for nodes is decided in [`crate::plan`]; nothing here reads anything but the text.

pub mod template;
pub mod units;

use contract::{
    FlistId, PublicKey,
    header::Role,
    workload::{Medium, Protocol, Restart, Sink},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer as _, value::MapAccessDeserializer},
};
use std::{collections::BTreeMap, fmt, path::PathBuf};
pub use units::{Cpu, Size, Span, When};

/// Largest source file in bytes.
pub const SOURCE_MAX: usize = 1024 * 1024;

/// A contract as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Short name, for people.
    pub title: String,
    /// What it is for; stakeholders judge it by this.
    pub purpose: String,
    /// Who pays and signs: a key, a contact or an identity id. The signing key unless given.
    pub owner: Option<String>,
    /// Statement id of the capacity grant.
    pub pool: String,
    /// When everything stops.
    pub expires: When,
    /// Until when decisions count; 14 days, or `expires` when that is sooner.
    pub approve_by: Option<When>,
    /// When it may start; at once unless given.
    pub not_before: Option<When>,
    /// When it may start at the latest; `expires` unless given.
    pub start_by: Option<When>,
    /// Node ids on which every workload runs that does not name its own.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// What a node does that cannot reach the registry.
    #[serde(default)]
    pub on_partition: OnPartition,
    /// Who decides.
    pub stakeholders: Vec<Stakeholder>,
    /// What it takes to agree.
    #[serde(default)]
    pub policy: Policy,
    /// Flists that several containers share, by name.
    #[serde(default)]
    pub flists: BTreeMap<String, Flist>,
    /// Containers, by name.
    #[serde(default)]
    pub containers: BTreeMap<String, Container>,
    /// Volumes, by name.
    #[serde(default)]
    pub volumes: BTreeMap<String, Volume>,
}

/// Somebody whose decision counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stakeholder {
    /// A key, a contact or an identity id.
    #[serde(alias = "name")]
    pub identity: String,
    /// What they answer for.
    pub role: Role,
    /// What their approval weighs; 1 unless given.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// Rules for the three actions. `update` and `cancel` are as `create` unless given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// To start; every stakeholder must approve unless given.
    pub create: Option<Rule>,
    /// To change.
    pub update: Option<Rule>,
    /// To end early.
    pub cancel: Option<Rule>,
}

/// What it takes to agree.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Each of these must approve.
    #[serde(default)]
    pub required: Vec<String>,
    /// So many of a role must approve.
    #[serde(default)]
    pub roles: BTreeMap<Role, u32>,
    /// Weights of those who approve must reach this; 1 unless given.
    #[serde(default = "one")]
    pub min_weight: u32,
    /// A reject of anybody in such a role blocks.
    #[serde(default)]
    pub veto_roles: Vec<Role>,
}

/// What a node does that cannot reach the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartition {
    /// Goes on until the contract expires.
    #[default]
    Keep,
    /// Stops after this time.
    StopAfter(Span),
}

/// Where an flist is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flist {
    /// Its id; may be left out when `dir` holds exactly one flist.
    pub id: Option<FlistId>,
    /// A directory made by `3bot flist build`, relative to the source file.
    pub dir: Option<PathBuf>,
    /// Where nodes fetch it; the registry's content store unless given.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Who has to have signed it.
    pub publisher: Option<Box<Publisher>>,
}

/// Whose flist it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// The publisher's public key.
    pub key: PublicKey,
    /// The lowest revision that will do; 1 unless given.
    #[serde(default = "first")]
    pub revision: u64,
}

fn first() -> u64 {
    1
}

/// The flist of a container: one of [`Source::flists`] by name, or given in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlistRef {
    /// A name in [`Source::flists`].
    Named(String),
    /// Given in place: an id, a URL that ends in `/flists/<id>`, or a table.
    Inline(Flist),
}

/// Processes in a verified, read-only root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// What it runs.
    pub flist: FlistRef,
    /// Where it runs; everywhere unless given.
    pub nodes: Option<Vec<String>>,
    /// Program and arguments, instead of the flist's.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables, added to the flist's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory, instead of the flist's.
    pub cwd: Option<String>,
    /// `uid[:gid]`, instead of the flist's.
    pub user: Option<String>,
    /// Share of logical cores.
    pub cpu: Cpu,
    /// Memory limit.
    pub memory: Size,
    /// Limit of processes and threads; 256 unless given.
    #[serde(default = "pids")]
    pub pids: u32,
    /// Writable places.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// `HOST:CONTAINER/PROTOCOL`.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Workloads that must be up first.
    #[serde(default)]
    pub needs: Vec<String>,
    /// How it is asked to end.
    #[serde(default)]
    pub stop: Stop,
    /// How the node finds out whether it works; while it runs, unless given.
    pub health: Option<Health>,
    /// Where its output is sent, line by line.
    #[serde(default)]
    pub logs: Vec<Sink>,
    /// Where what it uses is sent, sample by sample.
    #[serde(default)]
    pub stats: Vec<Sink>,
    /// Whether it is started again when it has ended; always, unless given.
    #[serde(default)]
    pub restart: Restart,
    /// Limits of its reading and writing on each disk; none, unless given.
    pub disk: Option<Disk>,
}

/// Limits on each disk, in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// How much is read.
    pub read: Option<Size>,
    /// How much is written.
    pub write: Option<Size>,
    /// How often it is read.
    pub read_ops: Option<u64>,
    /// How often it is written.
    pub write_ops: Option<u64>,
}

fn pids() -> u32 {
    256
}

/// A writable place: of memory, of a volume, or the flist's own directory with its changes on a volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path; a directory of the flist.
    pub path: String,
    /// Size of a memory file system.
    pub tmpfs: Option<Size>,
    /// Name of a volume.
    pub volume: Option<String>,
    /// Name of the volume that keeps what changes in the flist's directory.
    pub overlay: Option<String>,
}

/// A port of the node that leads to the container, written `8080:80/tcp` or `8080:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Port of the node.
    pub host: u16,
    /// Port in the container.
    pub container: u16,
    /// Transport protocol; TCP unless given.
    pub protocol: Protocol,
}

/// How a container is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// Signal number.
    pub signal: u8,
    /// Time until it is killed.
    pub grace: Span,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: 15, grace: Span { seconds: 10 } }
    }
}

/// How the node finds out whether a container works: by `http`, by `tcp` or by `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A GET request.
    pub http: Option<HttpProbe>,
    /// A connection to this port of the container.
    pub tcp: Option<u16>,
    /// A program of the flist and its arguments, executed in the container.
    pub exec: Option<Vec<String>>,
    /// Time between two questions.
    #[serde(default = "ten_seconds")]
    pub interval: Span,
    /// Time after which no answer is a bad one.
    #[serde(default = "five_seconds")]
    pub timeout: Span,
    /// After so many bad answers in a row it is stopped and started again.
    #[serde(default = "three")]
    pub retries: u32,
    /// Time after the start in which bad answers do not count before the first good one.
    #[serde(default = "half_a_minute")]
    pub start_period: Span,
}

/// A GET request to a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// Port in the container.
    pub port: u16,
    /// Path and query.
    #[serde(default = "root")]
    pub path: String,
    /// The lowest and the highest status that is a good answer.
    #[serde(default = "success")]
    pub status: [u16; 2],
}

fn ten_seconds() -> Span {
    Span { seconds: 10 }
}

fn five_seconds() -> Span {
    Span { seconds: 5 }
}

fn half_a_minute() -> Span {
    Span { seconds: 30 }
}

fn three() -> u32 {
    3
}

fn root() -> String {
    "/".to_owned()
}

fn success() -> [u16; 2] {
    [200, 399]
}

/// Storage that outlives the containers that use it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Quota.
    pub size: Size,
    /// Medium; flash unless given.
    #[serde(default = "flash")]
    pub medium: Medium,
    /// Where it is; everywhere unless given.
    pub nodes: Option<Vec<String>>,
}

fn flash() -> Medium {
    Medium::Ssd
}

/// In which language a source file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// toml.io, version 1.
    Toml,
    /// YAML 1.2, one document.
    Yaml,
}

impl Language {
    /// By the ending of a file's name: `.yaml` and `.yml` are YAML, everything else is TOML.
    pub fn of(path: &std::path::Path) -> Self {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Toml,
        }
    }
}

/// Why a text is no contract source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// More than [`SOURCE_MAX`].
    #[error("the file has {0} bytes, where at most {SOURCE_MAX} are read")]
    TooLarge(usize),
    /// Not TOML, or an unknown word, or a value that means nothing. Shows the line.
    #[error("{0}")]
    Toml(String),
    /// The same for YAML.
    #[error("{0}")]
    Yaml(String),
}

/// Reads a contract source.
pub fn parse(text: &str, language: Language) -> Result<Source, SourceError> {
    if text.len() > SOURCE_MAX {
        return Err(SourceError::TooLarge(text.len()));
    }
    match language {
        Language::Toml => {
            toml::from_str(text).map_err(|error| SourceError::Toml(toml_problem(text, &error)))
        }
        Language::Yaml => {
            serde_norway::from_str(text).map_err(|error| SourceError::Yaml(error.to_string()))
        }
    }
}

impl Source {
    /// Where the ids of the [`template`] still stand, which belong to nothing.
    pub fn unfilled(&self) -> Vec<String> {
        let empty = |id: &str| !id.is_empty() && id.bytes().all(|digit| digit == b'0');
        let mut places = Vec::new();
        if empty(&self.pool) {
            places.push("pool".to_owned());
        }
        if self.nodes.iter().any(|node| empty(node)) {
            places.push("nodes".to_owned());
        }
        let unset = |flist: &Flist| flist.id == Some(FlistId([0; 32]));
        let unset = self.flists.iter().filter(|(_, flist)| unset(flist));
        places.extend(unset.map(|(name, _)| format!("flists.{name}")));
        places
    }
}

/// What is wrong with a TOML text and where, in one line. The text is not quoted: a line of it may
/// be of any length.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else { return message };
    let (line, column) = (before.matches('\n').count() + 1, before.lines().last());
    let column = if before.ends_with('\n') { None } else { column };
    let column = column.map_or(0, |line| line.chars().count()) + 1;
    format!("line {line}, column {column}: {message}")
}

impl<'de> Deserialize<'de> for FlistRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> de::Visitor<'de> for Reader {
            type Value = FlistRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an flist: a name, an id, a URL, or a table with id, dir, urls and publisher",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FlistRef, E> {
                if let Ok(id) = text.parse() {
                    return Ok(FlistRef::Inline(Flist { id: Some(id), ..Flist::default() }));
                }
                if !text.contains('/') {
                    return Ok(FlistRef::Named(text.to_owned()));
                }
                let (base, id) = text
                    .rsplit_once("/flists/")
                    .ok_or_else(|| E::custom("the URL of an flist ends in /flists/<id>"))?;
                let id = FlistId::deserialize(id.into_deserializer())?;
                let urls = vec![base.to_owned()];
                Ok(FlistRef::Inline(Flist { id: Some(id), urls, ..Flist::default() }))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<FlistRef, A::Error> {
                Flist::deserialize(MapAccessDeserializer::new(map)).map(FlistRef::Inline)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_port(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is no port: write HOST:CONTAINER/PROTOCOL, as in \"8080:80/tcp\""
            ))
        })
    }
}

fn parse_port(text: &str) -> Option<Port> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return None,
    };
    let (host, container) = ports.split_once(':')?;
    let number = |text: &str| text.parse().ok().filter(|port| *port != 0_u16);
    Some(Port { host: number(host)?, container: number(container)?, protocol })
}

#[cfg(test)]
mod tests;
