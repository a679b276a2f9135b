//! Key files of people: made once, kept for their owner alone, never rewritten.
//!
//! One directory, two kinds of file. `keys/NAME.key` holds the secret seed, mode 0600. The identity
//! statement that a key makes for a network lies beside it in `keys/NAME.NETWORK.identity`, is
//! public, and is kept because its exact bytes are the identity: writing it anew could change them.
//!
//! The seed is **not** protected by a passphrase yet: whoever can read the file can sign. Refused
//! are a key file that others may read, a name that could leave the directory, and any attempt to
//! make a key that is already there.

#![forbid(unsafe_code)]

mod file;
mod name;

pub use name::{BadName, Name};

use contract::{Envelope, IdentityId, Signed, SigningKey, envelope::OpenError, identity::Signer};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

/// Largest key or identity file in bytes: an identity statement in base64 and its signatures.
const FILE_MAX: u64 = 64 * 1024;
/// Keys that one directory may hold; more is a mistake.
const KEYS_MAX: usize = 1000;
/// Ends the name of a file with a secret seed.
const KEY_SUFFIX: &str = ".key";

/// Where the files of this user are: `$ZOS_HOME`, `$XDG_CONFIG_HOME/zos` or `~/.config/zos`.
///
/// `None` when the environment names none of them. An empty variable counts as absent.
pub fn home(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let variable = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("ZOS_HOME")
        .or_else(|| variable("XDG_CONFIG_HOME").map(|config| config.join("zos")))
        .or_else(|| variable("HOME").map(|home| home.join(".config/zos")))
}

/// Why keys cannot be made, found or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or directory cannot be read or written.
    #[error("{attempt} {}", path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The name is taken.
    #[error("a key named {0} is there already, and a key is never overwritten")]
    Exists(Name),
    /// No such key.
    #[error("no key named {name} in {}; make it with `3bot key new {name}`", directory.display())]
    Unknown {
        /// The name that was asked for.
        name: Name,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// Other users may read or write the secret.
    #[error(
        "{} may be used by others (mode {mode:04o}); make it private with `chmod 600`, and replace \
         the key if they could have read it",
        path.display()
    )]
    NotPrivate {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what this crate writes.
    #[error("{} is no key file: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system gives no randomness.
    #[error("asking the operating system for random bytes")]
    Random(#[source] getrandom::Error),
    /// The network has no name that a node would take.
    #[error("{0:?} names no network: a name has 1 to 32 of a-z, 0-9 and -")]
    Network(String),
    /// The identity statement cannot be written.
    #[error("writing the identity statement")]
    Statement(#[source] OpenError),
}

/// A directory of keys. Holds no secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    directory: PathBuf,
}

/// A secret key together with its name.
#[derive(Debug)]
pub struct Key {
    /// The name of its file.
    pub name: Name,
    /// How its holder wants to be called in identity statements.
    pub display: String,
    /// Signs.
    pub secret: SigningKey,
}

/// What a key file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format: u32,
    display: String,
    public: String,
    seed: String,
}

/// The format that this crate writes.
const FORMAT: u32 = 1;

/// An identity on one network: the statement, and who it makes.
#[derive(Debug, Clone)]
pub struct Own {
    /// The statement, as it is pushed.
    pub statement: Envelope,
    /// Id, keys and threshold.
    pub signer: Signer,
}

impl Own {
    /// The id by which others name this identity.
    pub fn id(&self) -> IdentityId {
        self.signer.id
    }
}

impl Keys {
    /// The keys below a home directory (see [`home`]). Touches nothing.
    pub fn at(home: &Path) -> Self {
        Self { directory: home.join("keys") }
    }

    /// Makes a key from fresh randomness and writes its file.
    pub fn create(&self, name: &Name, display: &str) -> Result<Key, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Random)?;
        self.import(name, display, &seed)
    }

    /// Writes the file of a key whose seed is known already. The name must be free.
    pub fn import(&self, name: &Name, display: &str, seed: &[u8; 32]) -> Result<Key, KeyError> {
        let secret = SigningKey::from_seed(seed);
        let content = KeyFile {
            format: FORMAT,
            display: display.to_owned(),
            public: secret.public().to_string(),
            seed: hex::encode(seed),
        };
        let path = self.path(name);
        file::create_directory(&self.directory)
            .map_err(|source| failed("making the directory", &self.directory, source))?;
        match file::create(&path, &pretty(&content), file::Mode::Private) {
            Ok(()) => Ok(Key { name: name.clone(), display: content.display, secret }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeyError::Exists(name.clone()))
            }
            Err(source) => Err(failed("writing", &path, source)),
        }
    }

    /// Reads a key.
    pub fn load(&self, name: &Name) -> Result<Key, KeyError> {
        let path = self.path(name);
        let (bytes, mode) = match file::read(&path, FILE_MAX) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = self.directory.clone();
                return Err(KeyError::Unknown { name: name.clone(), directory });
            }
            Err(source) => return Err(failed("reading", &path, source)),
        };
        if mode & 0o077 != 0 {
            return Err(KeyError::NotPrivate { path, mode });
        }
        parse(&bytes)
            .map(|(display, secret)| Key { name: name.clone(), display, secret })
            .map_err(|problem| KeyError::Malformed { path, problem })
    }

    /// Names of all keys, sorted. A directory that does not exist holds none.
    pub fn list(&self) -> Result<Vec<Name>, KeyError> {
        let reading = |source| failed("reading the directory", &self.directory, source);
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(reading(error)),
        };
        let mut names = Vec::new();
        for entry in entries.take(2 * KEYS_MAX) {
            let file = entry.map_err(reading)?.file_name();
            let name = file.to_str().and_then(|text| text.strip_suffix(KEY_SUFFIX));
            // Anything else in the directory is none of ours.
            names.extend(name.and_then(|name| name.parse::<Name>().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// The identity of a key on a network: read, or made, signed and kept at the first use.
    pub fn identity(&self, key: &Key, network: &str) -> Result<Own, KeyError> {
        // It becomes a part of a file name, under the same rule as the name of a key.
        network.parse::<Name>().map_err(|_| KeyError::Network(network.to_owned()))?;
        let path = self.directory.join(format!("{}.{network}.identity", key.name));
        match file::read(&path, FILE_MAX) {
            Ok((bytes, _)) => own(&bytes, key, network)
                .map_err(|problem| KeyError::Malformed { path: path.clone(), problem }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let statement = make_statement(key, network).map_err(KeyError::Statement)?;
                match file::create(&path, &pretty(&statement), file::Mode::Public) {
                    Ok(()) => {}
                    // Another process was faster: what it wrote is the identity.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(failed("writing", &path, source)),
                }
                let (bytes, _) = file::read(&path, FILE_MAX)
                    .map_err(|source| failed("reading", &path, source))?;
                own(&bytes, key, network).map_err(|problem| KeyError::Malformed { path, problem })
            }
            Err(source) => Err(failed("reading", &path, source)),
        }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.directory.join(format!("{name}{KEY_SUFFIX}"))
    }
}

fn make_statement(key: &Key, network: &str) -> Result<Envelope, OpenError> {
    let identity = contract::identity::Identity {
        network: network.to_owned(),
        version: 1,
        prev: None,
        name: key.display.clone(),
        keys: vec![key.secret.public()],
        threshold: 1,
    };
    Envelope::seal(&identity, &[&key.secret])
}

/// Reads an identity file, and makes sure that it is this key's.
fn own(bytes: &[u8], key: &Key, network: &str) -> Result<Own, String> {
    let statement: Envelope =
        serde_json::from_slice(bytes).map_err(|error| format!("not an envelope: {error}"))?;
    let signed = Signed::<contract::identity::Identity>::open(&statement)
        .map_err(|error| format!("not an identity statement: {error}"))?;
    if signed.body.network != network {
        return Err(format!("it belongs to the network {}", signed.body.network));
    }
    if !signed.body.keys.contains(&key.secret.public()) {
        return Err("it names another key".to_owned());
    }
    let signer = Signer::from_statement(&signed).ok_or("it is not signed by its own keys")?;
    Ok(Own { statement, signer })
}

fn parse(bytes: &[u8]) -> Result<(String, SigningKey), String> {
    let file: KeyFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.format != FORMAT {
        return Err(format!("format {} is not known", file.format));
    }
    let mut seed = [0; 32];
    hex::decode_to_slice(&file.seed, &mut seed)
        .map_err(|_| "the seed is not 64 hexadecimal digits")?;
    let secret = SigningKey::from_seed(&seed);
    if secret.public().to_string() == file.public {
        Ok((file.display, secret))
    } else {
        Err("the public key does not belong to the seed".to_owned())
    }
}

fn pretty(content: &impl Serialize) -> Vec<u8> {
    let mut bytes =
        serde_json::to_vec_pretty(content).expect("strings and numbers always serialise");
    bytes.push(b'\n');
    bytes
}

fn failed(attempt: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::File { attempt, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
