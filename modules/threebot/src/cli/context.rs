//! Settings: from the command line, the environment and `config.toml`, in this order.

use super::{Global, output::Output};
use anyhow::Context as _;
use contract::{IdentityId, Timestamp};
use identity::{Keys, Name};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::SystemTime,
};
use threebot::{Actor, Grid, People, source::When};

/// The grid unless the user says otherwise.
const NETWORK: &str = "main";

/// A mistake of the user in words or settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// What `config.toml` may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    registry: OneOrMany,
    network: Option<String>,
    key: Option<String>,
    content: OneOrMany,
    contacts: BTreeMap<String, IdentityId>,
}

/// `"a"` or `["a", "b"]`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a URL in quotes, or a list of them")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// The settings in effect.
#[derive(Debug)]
pub(crate) struct Context {
    home: PathBuf,
    registries: Vec<String>,
    /// The grid.
    pub(crate) network: String,
    key: Option<Name>,
    /// Where nodes fetch content; the registry's store if empty.
    pub(crate) content: Vec<String>,
    contacts: BTreeMap<String, IdentityId>,
}

impl Context {
    pub(crate) fn new(global: &Global) -> anyhow::Result<Self> {
        let home = match &global.home {
            Some(home) => home.clone(),
            None => identity::home(|name| std::env::var_os(name))
                .ok_or_else(|| Usage("no home directory: set ZOS_HOME, or give --home".into()))?,
        };
        let config = load(&home.join("config.toml"))?;
        let network =
            global.network.clone().or(config.network).unwrap_or_else(|| NETWORK.to_owned());
        network.parse::<Name>().map_err(|_| {
            Usage(format!("{network:?} names no network: a name has 1 to 32 of a-z, 0-9 and -"))
        })?;
        let key = global.signer.clone().or(config.key);
        let key =
            key.map(|key| key.parse()).transpose().map_err(|error| Usage(format!("{error}")))?;
        let registries = if global.registry.is_empty() {
            config.registry.list()
        } else {
            global.registry.clone()
        };
        let (content, contacts) = (config.content.list(), config.contacts);
        Ok(Self { home, registries, network, key, content, contacts })
    }

    /// The keys of this user.
    pub(crate) fn keys(&self) -> Keys {
        Keys::at(&self.home)
    }

    /// The registry of the network.
    pub(crate) fn grid(&self) -> anyhow::Result<Grid> {
        if self.registries.is_empty() {
            let text = "no registry: give --registry URL, set ZOS_REGISTRY, or put `registry` into";
            let config = self.home.join("config.toml");
            return Err(Usage(format!("{text} {}", config.display())).into());
        }
        Ok(Grid::new(&self.network, &self.registries)?)
    }

    /// Who signs: `--as`, the configured key, or the only key there is.
    pub(crate) fn signer(&self) -> anyhow::Result<Name> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let mut names = self.keys().list()?;
        match names.len() {
            1 => Ok(names.remove(0)),
            0 => Err(Usage("no key: make one with `3bot key new NAME`".into()).into()),
            _ => {
                let names: Vec<_> = names.iter().map(Name::as_str).collect();
                let text = "several keys: say which one signs by --as";
                Err(Usage(format!("{text} ({})", names.join(", "))).into())
            }
        }
    }

    /// The one who signs, with their identity on the network.
    pub(crate) fn actor(&self) -> anyhow::Result<Actor> {
        Ok(Actor::load(&self.keys(), &self.signer()?, &self.network)?)
    }

    /// Names of contacts and own keys. A key that cannot be used names nobody.
    pub(crate) fn people(&self) -> anyhow::Result<People> {
        let mut people = People::default();
        for (name, id) in &self.contacts {
            people.know(name, *id);
        }
        let keys = self.keys();
        for name in keys.list()? {
            if let Ok(actor) = Actor::load(&keys, &name, &self.network) {
                people.know(name.as_str(), actor.id());
            }
        }
        Ok(people)
    }

    /// Every own key, with its identity on the network.
    pub(crate) fn own(&self) -> anyhow::Result<Vec<Actor>> {
        let keys = self.keys();
        let actors = keys.list()?.into_iter().map(|name| Actor::load(&keys, &name, &self.network));
        Ok(actors.collect::<Result<_, _>>()?)
    }

    /// Who is meant by a name or id.
    pub(crate) fn find(&self, text: &str) -> anyhow::Result<IdentityId> {
        let found = self.people()?.find(text);
        let unknown = || {
            let config = self.home.join("config.toml");
            let config = config.display();
            Usage(format!("{text:?} is no identity id, no own key, and no contact in {config}"))
        };
        Ok(found.ok_or_else(unknown)?)
    }

    /// Shows the settings.
    pub(crate) fn show(&self, output: &Output) {
        let key = self.key.as_ref().map(Name::as_str);
        output.answer(&serde_json::json!({
            "home": self.home,
            "registry": self.registries,
            "network": self.network,
            "key": key,
            "content": self.content,
            "contacts": self.contacts,
        }));
        let list = |list: &[String], none: &str| {
            if list.is_empty() { none.to_owned() } else { list.join(", ") }
        };
        output.say(format_args!("home      {}", self.home.display()));
        output.say(format_args!("registry  {}", list(&self.registries, "(none)")));
        output.say(format_args!("network   {}", self.network));
        // What a command that signs would take, or say.
        match self.signer() {
            Ok(name) if key.is_some() => output.say(format_args!("key       {name}")),
            Ok(name) => output.say(format_args!("key       {name} (the only one)")),
            Err(error) => output.say(format_args!("key       ({error})")),
        }
        output.say(format_args!("content   {}", list(&self.content, "(the registry's store)")));
        for (name, id) in &self.contacts {
            output.say(format_args!("contact   {name} {id}"));
        }
    }
}

fn load(path: &Path) -> anyhow::Result<Config> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            parse(&text).map_err(|problem| Usage(format!("{}: {problem}", path.display())).into())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn parse(text: &str) -> Result<Config, String> {
    toml::from_str(text).map_err(|error| threebot::source::toml_problem(text, &error))
}

/// A time for something to end, which must not have passed already.
pub(crate) fn later(when: When, now: Timestamp, option: &str) -> Result<Timestamp, Usage> {
    let at = when.resolve(now);
    if at > now { Ok(at) } else { Err(Usage(format!("{option}: {at} is not in the future"))) }
}

/// The clock of this machine.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_seconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_or_refused_at_its_line() {
        let id = "ab".repeat(32);
        let text = format!(
            "registry = \"http://r\"\ncontent = [\"http://c\"]\n[contacts]\nbob = \"{id}\""
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.registry.list(), ["http://r"]);
        assert_eq!(config.contacts["bob"].to_string(), id);
        let error = parse("network = \"test\"\nregistri = 1\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("registri"), "{error}");
        let error = parse("network = \"test\"\n\nregistry = 5\n").unwrap_err();
        assert_eq!(error, "line 3, column 12: expected a URL in quotes, or a list of them");
        let error = parse(&format!("network = \"{}\" x\n", "y".repeat(100_000))).unwrap_err();
        assert!(error.starts_with("line 1, column 100014: ") && error.len() < 200, "{error}");
    }
}
