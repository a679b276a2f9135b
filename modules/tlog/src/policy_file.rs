//! Policies as files (c2sp.org/tlog-policy): which log, which witnesses and where they are, and how
//! many of them have to sign.
//!
//! Takes what a [`Policy`] can say: keys of one log, and a quorum that is `none`, one witness, or a
//! group of witnesses. A group of groups is refused, never approximated. Witnesses outside the quorum
//! are checked and then left out.

use crate::{
    note::{Algorithm, BadKey, Verifier},
    policy::{BadPolicy, Policy},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

/// The largest file.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// Words in a line: a group of as many witnesses as a policy may have.
const WORDS_MAX: usize = 128;
/// The quorum of a policy that asks for no cosignatures.
const NONE: &str = "none";

/// A policy, and where its witnesses are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// What counts.
    pub policy: Policy,
    /// The URL of each witness of the policy, in its order; below it are the paths of tlog-witness.
    pub urls: Vec<Option<String>>,
}

/// Why bytes are no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicyFile {
    /// Too large, or characters that no policy holds.
    #[error(
        "a policy is at most {POLICY_BYTES_MAX} bytes of UTF-8 without control characters, and \
         ends with a newline"
    )]
    Text,
    /// A line that does not parse.
    #[error("line {number} of the policy")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: BadLine,
    },
    /// No line says how many witnesses have to sign.
    #[error("no line of the policy says `quorum`")]
    NoQuorum,
    /// No log is named.
    #[error("no line of the policy names a log")]
    NoLog,
    /// The lines together mean nothing.
    #[error("the policy as a whole")]
    Policy(#[source] BadPolicy),
}

/// Why a line says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// None of the lines that there are.
    #[error(
        "a line is `log KEY [URL]`, `witness NAME KEY [URL]`, `group NAME all|any|NUMBER NAME...` \
         or `quorum NAME`"
    )]
    Shape,
    /// A key that does not parse.
    #[error("reading the key")]
    Key(#[source] BadKey),
    /// The key of a witness where a log's belongs, or the other way round.
    #[error("the key {name} is of the wrong kind: a log has type 1, a witness type 4")]
    Kind {
        /// Name of the key.
        name: String,
    },
    /// A key that stands there already.
    #[error("the key of {name} stands in the policy twice")]
    Twice {
        /// Name of the key.
        name: String,
    },
    /// A second log: a policy here is about one.
    #[error("the log {other} is another one than {first}, and a policy here is about one log")]
    OtherLog {
        /// Origin of the first.
        first: String,
        /// Origin of this one.
        other: String,
    },
    /// A name that is taken, or `none`.
    #[error("the name {0} is taken")]
    Taken(String),
    /// A name that no line before has defined, or one that stands in its group already.
    #[error("{0} is no witness of a line before, or is named twice")]
    Unknown(String),
    /// A group in a group.
    #[error("{0} is a group, and a group here consists of witnesses")]
    Nested(String),
    /// More than its members have to sign, or none.
    #[error("of {count} members, a number from 1 to {count} can be asked for")]
    Threshold {
        /// Members of the group.
        count: usize,
    },
    /// A second quorum.
    #[error("a policy has one quorum")]
    SecondQuorum,
}

/// What the lines so far have defined.
#[derive(Default)]
struct Lines<'a> {
    logs: Vec<Verifier>,
    witnesses: Vec<(Verifier, Option<&'a str>)>,
    keys: BTreeSet<[u8; 32]>,
    names: BTreeMap<&'a str, Named>,
    quorum: Option<Group>,
}

enum Named {
    /// By its place among the witnesses.
    Witness(usize),
    Group(Group),
}

#[derive(Clone)]
struct Group {
    threshold: usize,
    members: Vec<usize>,
}

impl PolicyFile {
    /// Reads a file.
    pub fn read(bytes: &[u8]) -> Result<Self, BadPolicyFile> {
        let text = core::str::from_utf8(bytes).map_err(|_| BadPolicyFile::Text)?;
        let is_plain = |c: char| c == '\t' || c == '\n' || !c.is_control();
        let whole = text.strip_suffix('\n').filter(|text| text.chars().all(is_plain));
        let whole = whole.filter(|_| bytes.len() <= POLICY_BYTES_MAX).ok_or(BadPolicyFile::Text)?;
        let mut lines = Lines::default();
        for (number, line) in (1..).zip(whole.split('\n')) {
            let words = line.split([' ', '\t']).filter(|word| !word.is_empty());
            let words: Vec<&str> = words.take(WORDS_MAX + 1).collect();
            lines.take(&words).map_err(|source| BadPolicyFile::Line { number, source })?;
        }
        lines.finish()
    }
}

impl<'a> Lines<'a> {
    fn take(&mut self, words: &[&'a str]) -> Result<(), BadLine> {
        match *words {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            _ if words.len() > WORDS_MAX => Err(BadLine::Shape),
            ["log", key] | ["log", key, _] => self.log(key),
            ["witness", name, key] => self.witness(name, key, None),
            ["witness", name, key, url] => self.witness(name, key, Some(url)),
            ["group", name, threshold, ref members @ ..] => self.group(name, threshold, members),
            ["quorum", name] => self.quorum(name),
            _ => Err(BadLine::Shape),
        }
    }

    fn key(&mut self, text: &str, algorithm: Algorithm) -> Result<Verifier, BadLine> {
        let key: Verifier = text.parse().map_err(BadLine::Key)?;
        if key.algorithm() != algorithm {
            return Err(BadLine::Kind { name: key.name().into() });
        }
        if !self.keys.insert(key.key().to_bytes()) {
            return Err(BadLine::Twice { name: key.name().into() });
        }
        Ok(key)
    }

    fn log(&mut self, key: &str) -> Result<(), BadLine> {
        let key = self.key(key, Algorithm::Ed25519)?;
        // The name of a log's key is the log's origin.
        if let Some(first) = self.logs.first().filter(|first| first.name() != key.name()) {
            let (first, other) = (first.name().into(), key.name().into());
            return Err(BadLine::OtherLog { first, other });
        }
        self.logs.push(key);
        Ok(())
    }

    fn define(&mut self, name: &'a str, named: Named) -> Result<(), BadLine> {
        if name == NONE || self.names.insert(name, named).is_some() {
            return Err(BadLine::Taken(name.into()));
        }
        Ok(())
    }

    fn witness(&mut self, name: &'a str, key: &str, url: Option<&'a str>) -> Result<(), BadLine> {
        let key = self.key(key, Algorithm::Cosignature)?;
        self.define(name, Named::Witness(self.witnesses.len()))?;
        self.witnesses.push((key, url));
        Ok(())
    }

    fn group(
        &mut self,
        name: &'a str,
        threshold: &str,
        members: &[&'a str],
    ) -> Result<(), BadLine> {
        let mut witnesses = Vec::new();
        for member in members {
            match self.names.get(member) {
                Some(Named::Witness(one)) if !witnesses.contains(one) => witnesses.push(*one),
                Some(Named::Group(_)) => return Err(BadLine::Nested((*member).into())),
                Some(Named::Witness(_)) | None => return Err(BadLine::Unknown((*member).into())),
            }
        }
        let count = members.len();
        let threshold = match threshold {
            "all" => Some(count),
            "any" => Some(1),
            number => crate::text::decimal(number).and_then(|number| number.try_into().ok()),
        };
        let threshold = threshold.filter(|threshold| (1..=count).contains(threshold));
        let threshold = threshold.ok_or(BadLine::Threshold { count })?;
        self.define(name, Named::Group(Group { threshold, members: witnesses }))
    }

    fn quorum(&mut self, name: &'a str) -> Result<(), BadLine> {
        let group = match self.names.get(name) {
            _ if name == NONE => Group { threshold: 0, members: Vec::new() },
            Some(Named::Witness(one)) => Group { threshold: 1, members: [*one].into() },
            Some(Named::Group(group)) => group.clone(),
            None => return Err(BadLine::Unknown(name.into())),
        };
        if self.quorum.replace(group).is_some() {
            return Err(BadLine::SecondQuorum);
        }
        Ok(())
    }

    fn finish(self) -> Result<PolicyFile, BadPolicyFile> {
        let group = self.quorum.ok_or(BadPolicyFile::NoQuorum)?;
        let origin: String = self.logs.first().ok_or(BadPolicyFile::NoLog)?.name().into();
        let members = group.members.into_iter().map(|member| &self.witnesses[member]);
        let (witnesses, urls) =
            members.map(|(key, url)| (key.clone(), url.map(Into::into))).unzip();
        let policy = Policy::new(&origin, self.logs, witnesses, group.threshold);
        Ok(PolicyFile { policy: policy.map_err(BadPolicyFile::Policy)?, urls })
    }
}
