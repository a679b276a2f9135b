//! What an operator writes: one TOML file. Names no secret, only the file that holds it.

use anyhow::Context as _;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use tlog::{Algorithm, Verifier, checkpoint::ORIGIN_BYTES_MAX};

/// Logs that one witness watches.
const LOGS_MAX: usize = 1024;
/// Keys of one log.
const KEYS_MAX: usize = 16;
/// Bytes of the file.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    listen: SocketAddr,
    data: PathBuf,
    key: PathBuf,
    #[serde(rename = "log", default)]
    logs: Vec<LogText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogText {
    origin: String,
    keys: Vec<String>,
}

/// What the file means. Paths are as they are written, or beside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Everything is kept here.
    pub data: PathBuf,
    /// File with the witness's secret key.
    pub key: PathBuf,
    /// The logs to watch.
    pub logs: Vec<Log>,
}

/// A log to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The first line of its checkpoints.
    pub origin: String,
    /// Its keys. Any one of them has to sign.
    pub keys: Vec<Verifier>,
}

/// Reads the file.
pub fn load(path: &Path) -> anyhow::Result<Config> {
    let size = std::fs::metadata(path).map(|file| file.len());
    let size = size.with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(size <= CONFIG_BYTES_MAX, "{} is too large", path.display());
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("reading {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, folder).with_context(|| format!("in {}", path.display()))
}

/// Reads its text.
pub fn parse(text: &str, folder: &Path) -> anyhow::Result<Config> {
    let text: Text = toml::from_str(text)?;
    anyhow::ensure!(!text.logs.is_empty(), "no [[log]] is named: there is nothing to watch");
    anyhow::ensure!(text.logs.len() <= LOGS_MAX, "more than {LOGS_MAX} logs");
    let mut origins = BTreeSet::new();
    let mut logs = Vec::new();
    for log in text.logs {
        let origin = log.origin;
        let is_line = !origin.is_empty() && !origin.contains(char::is_control);
        anyhow::ensure!(
            is_line && origin.len() <= ORIGIN_BYTES_MAX,
            "an origin is a line of 1 to {ORIGIN_BYTES_MAX} bytes, not {origin:?}"
        );
        anyhow::ensure!(origins.insert(origin.clone()), "the log {origin} is named twice");
        anyhow::ensure!(
            (1..=KEYS_MAX).contains(&log.keys.len()),
            "the log {origin} has 1 to {KEYS_MAX} keys"
        );
        let keys = log.keys.iter().map(|key| {
            let key: Verifier = key.parse().with_context(|| format!("the key {key:?}"))?;
            anyhow::ensure!(
                key.algorithm() == Algorithm::Ed25519,
                "the key {key} is a witness's, not a log's"
            );
            Ok(key)
        });
        let keys = keys.collect::<anyhow::Result<_>>();
        logs.push(Log { keys: keys.with_context(|| format!("of the log {origin}"))?, origin });
    }
    Ok(Config {
        listen: text.listen,
        data: folder.join(text.data),
        key: folder.join(text.key),
        logs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        listen = "127.0.0.1:7380"
        data = "state"
        key = "/etc/witness.key"

        [[log]]
        origin = "go.sum database tree"
        keys = ["sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"]
    "#;

    #[test]
    fn paths_stand_beside_the_file_unless_they_are_absolute() {
        let config = parse(GOOD, Path::new("/srv/w")).unwrap();
        assert_eq!(config.data, Path::new("/srv/w/state"));
        assert_eq!(config.key, Path::new("/etc/witness.key"));
        assert_eq!(config.logs[0].keys[0].name(), "sum.golang.org");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_reason() {
        let remora = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
        let sumdb = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        for (bad, reason) in [
            (GOOD.replace("listen", "listens"), "unknown field"),
            (GOOD.replace(":7380", ""), "socket address"),
            (GOOD.replace("[[log]]", "[other]"), "unknown field"),
            (GOOD.split("[[log]]").next().unwrap().to_owned(), "no [[log]] is named"),
            (format!("{GOOD}{}", &GOOD[GOOD.find("[[log]]").unwrap()..]), "is named twice"),
            (GOOD.replace("go.sum database tree", ""), "an origin is a line"),
            (GOOD.replace("go.sum database tree", "a\\nb"), "an origin is a line"),
            (GOOD.replace("033de0ae", "033de0af"), "does not fit its name and key"),
            (GOOD.replace(sumdb, remora), "is a witness's"),
            (GOOD.replace(&format!("\"{sumdb}\""), ""), "1 to 16 keys"),
        ] {
            let error = format!("{:#}", parse(&bad, Path::new("/")).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }
}
