//! The durable state of contractd: contracts seen, what was started, results not yet acknowledged.
//!
//! SQLite, WAL, `synchronous=FULL`: a commit survives a power cut. A database that cannot be read
//! is moved aside and begun anew, because contracts come again from the registry and what runs is
//! known to the kernel; the node never refuses to start for it.

use contract::{Bundle, ContractId, Envelope, StatementId};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Contracts that one node keeps.
pub(crate) const CONTRACTS_MAX: u32 = 1024;
/// Results that wait for the registry; beyond that, new ones wait for room.
pub(crate) const OUTBOX_MAX: u32 = 10_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS contract (
        id TEXT PRIMARY KEY,
        bundle BLOB NOT NULL,
        -- Order of the first start on this node; NULL: never started.
        started INTEGER,
        -- The last result of the contract and of each workload, to report changes only.
        reported TEXT NOT NULL DEFAULT '{}'
    ) STRICT;
    CREATE TABLE IF NOT EXISTS run (
        id TEXT PRIMARY KEY,
        run TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS outbox (
        seq INTEGER PRIMARY KEY,
        envelope TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS fact (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
";

/// The database could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub(crate) struct DatabaseError {
    attempt: String,
    #[source]
    source: rusqlite::Error,
}

impl DatabaseError {
    /// Whether the file is no database any more, as opposed to one that cannot be used now.
    fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(self.source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
            || matches!(self.source, rusqlite::Error::InvalidParameterName(_))
    }
}

fn failed(attempt: &str) -> impl FnOnce(rusqlite::Error) -> DatabaseError {
    let attempt = attempt.to_owned();
    move |source| DatabaseError { attempt, source }
}

/// A contract as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) id: ContractId,
    pub(crate) bundle: Bundle,
    pub(crate) started: Option<u64>,
    pub(crate) reported: String,
}

#[derive(Debug)]
pub(crate) struct Database(Connection);

impl Database {
    /// Opens the database in `directory`. Gives the reason too when an earlier one was set aside.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Option<String>), DatabaseError> {
        let path = directory.join("contractd.db");
        match Self::open_file(&path) {
            Ok(database) => Ok((database, None)),
            // A full or failing disk is no reason to throw away what is there.
            Err(error) if !error.is_damage() => Err(error),
            Err(error) => {
                let aside = set_aside(&path);
                let reason = format!(
                    "the state could not be read ({}); it is kept as {} and begun anew",
                    daemon::chain(&error),
                    aside.display()
                );
                Self::open_file(&path).map(|database| (database, Some(reason)))
            }
        }
    }

    fn open_file(path: &Path) -> Result<Self, DatabaseError> {
        let connection = Connection::open(path).map_err(failed("opening the state"))?;
        let setup = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "trusted_schema", "OFF")?;
            let check: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
            if check != "ok" {
                // The one error of this type that carries a text; see `is_damage`.
                return Err(rusqlite::Error::InvalidParameterName(check));
            }
            connection.execute_batch(SCHEMA)
        };
        setup().map_err(failed("checking the state"))?;
        Ok(Self(connection))
    }

    /// Every contract that is kept and can be read.
    pub(crate) fn contracts(&self) -> Result<Vec<Kept>, DatabaseError> {
        let read = || -> rusqlite::Result<Vec<Kept>> {
            let mut query =
                self.0.prepare("SELECT id, bundle, started, reported FROM contract ORDER BY id")?;
            let rows = query.query_map([], |row| {
                let (id, bundle): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
                let (started, reported) = (row.get(2)?, row.get(3)?);
                let kept = id.parse().ok().zip(Bundle::read(&bundle).ok());
                Ok(kept.map(|(id, bundle)| Kept { id, bundle, started, reported }))
            })?;
            rows.filter_map(Result::transpose).collect()
        };
        read().map_err(failed("reading the contracts"))
    }

    /// Keeps a contract's bundle. `false`: there is no room for another contract.
    pub(crate) fn keep(&self, id: &ContractId, bundle: &Bundle) -> Result<bool, DatabaseError> {
        let bytes = serde_json::to_vec(bundle).expect("a bundle is strings and numbers");
        let changed = self.0.execute(
            "INSERT INTO contract (id, bundle) SELECT ?1, ?2
             WHERE EXISTS (SELECT 1 FROM contract WHERE id = ?1)
                OR (SELECT count(*) FROM contract) < ?3
             ON CONFLICT (id) DO UPDATE SET bundle = excluded.bundle",
            params![id.to_string(), bytes, CONTRACTS_MAX],
        );
        changed.map(|rows| rows > 0).map_err(failed("keeping a contract"))
    }

    /// Notes that the contract is started here for the first time.
    pub(crate) fn note_start(&self, id: &ContractId) -> Result<(), DatabaseError> {
        let changed = self.0.execute(
            "UPDATE contract SET started = (SELECT ifnull(max(started), 0) + 1 FROM contract)
             WHERE id = ?1 AND started IS NULL",
            params![id.to_string()],
        );
        changed.map(drop).map_err(failed("noting a start"))
    }

    /// What was started in this boot, as JSON by workload id.
    pub(crate) fn runs(&self) -> Result<BTreeMap<String, String>, DatabaseError> {
        let read = || -> rusqlite::Result<BTreeMap<String, String>> {
            let mut query = self.0.prepare("SELECT id, run FROM run")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(failed("reading the runs"))
    }

    /// Replaces the record of a run; `None` removes it.
    pub(crate) fn set_run(&self, id: &str, run: Option<&str>) -> Result<(), DatabaseError> {
        let changed = match run {
            Some(run) => {
                self.0.execute("INSERT OR REPLACE INTO run VALUES (?1, ?2)", params![id, run])
            }
            None => self.0.execute("DELETE FROM run WHERE id = ?1", params![id]),
        };
        changed.map(drop).map_err(failed("recording a run"))
    }

    /// A single remembered value.
    pub(crate) fn fact(&self, name: &str) -> Result<Option<String>, DatabaseError> {
        self.0
            .query_row("SELECT value FROM fact WHERE name = ?1", params![name], |row| row.get(0))
            .optional()
            .map_err(failed("reading a fact"))
    }

    /// Remembers a single value.
    pub(crate) fn set_fact(&self, name: &str, value: &str) -> Result<(), DatabaseError> {
        self.0
            .execute("INSERT OR REPLACE INTO fact VALUES (?1, ?2)", params![name, value])
            .map(drop)
            .map_err(failed("remembering a fact"))
    }

    /// Adds a result to the outbox and moves the chain on, all or nothing. `false`: it is full.
    pub(crate) fn post(
        &mut self,
        contract: &ContractId,
        reported: &str,
        seq: u64,
        id: &StatementId,
        envelope: &Envelope,
    ) -> Result<bool, DatabaseError> {
        let text = serde_json::to_string(envelope).expect("an envelope is strings");
        let mut write = || -> rusqlite::Result<bool> {
            let transaction = self.0.transaction()?;
            let waiting: u32 =
                transaction.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?;
            if waiting >= OUTBOX_MAX {
                return Ok(false);
            }
            transaction.execute("INSERT INTO outbox VALUES (?1, ?2)", params![seq, text])?;
            transaction.execute(
                "UPDATE contract SET reported = ?2 WHERE id = ?1",
                params![contract.to_string(), reported],
            )?;
            let chain = format!("{seq} {id}");
            transaction
                .execute("INSERT OR REPLACE INTO fact VALUES ('chain', ?1)", params![chain])?;
            transaction.commit()?;
            Ok(true)
        };
        write().map_err(failed("posting a result"))
    }

    /// The last result of this node: its number and id.
    pub(crate) fn chain(&self) -> Result<Option<(u64, StatementId)>, DatabaseError> {
        Ok(self.fact("chain")?.and_then(|text| {
            let (seq, id) = text.split_once(' ')?;
            Some((seq.parse().ok()?, id.parse().ok()?))
        }))
    }

    /// The oldest results that the registry has not acknowledged.
    pub(crate) fn outbox(&self, most: u32) -> Result<Vec<Envelope>, DatabaseError> {
        let read = || -> rusqlite::Result<Vec<Envelope>> {
            let mut query = self.0.prepare("SELECT envelope FROM outbox ORDER BY seq LIMIT ?1")?;
            let rows = query.query_map(params![most], |row| row.get::<_, String>(0))?;
            rows.filter_map(|text| text.map(|text| serde_json::from_str(&text).ok()).transpose())
                .collect()
        };
        read().map_err(failed("reading the outbox"))
    }

    /// Drops acknowledged results.
    pub(crate) fn acknowledge(&mut self, seqs: &[u64]) -> Result<(), DatabaseError> {
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self.0.transaction()?;
            for seq in seqs {
                transaction.execute("DELETE FROM outbox WHERE seq = ?1", params![seq])?;
            }
            transaction.commit()
        };
        write().map_err(failed("dropping acknowledged results"))
    }
}

/// Moves the database and its log out of the way; what cannot be moved is left.
fn set_aside(path: &Path) -> PathBuf {
    let aside = (1..1000)
        .map(|n| path.with_extension(format!("unreadable-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| path.with_extension("unreadable"));
    for (from, to) in [
        (path.to_owned(), aside.clone()),
        (suffixed(path, "-wal"), suffixed(&aside, "-wal")),
        (suffixed(path, "-shm"), suffixed(&aside, "-shm")),
    ] {
        if let Err(error) = std::fs::rename(&from, &to)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            daemon::warn!("moving {} aside: {error}", from.display());
        }
    }
    aside
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::empty;

    fn open(directory: &Path) -> Database {
        let (database, problem) = Database::open(directory).unwrap();
        assert_eq!(problem, None);
        database
    }

    #[test]
    fn contracts_and_facts_survive_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let id = ContractId([1; 32]);
        {
            let database = open(directory.path());
            assert!(database.keep(&id, &empty()).unwrap());
            database.note_start(&id).unwrap();
            database.set_fact("a", "b").unwrap();
        }
        let database = open(directory.path());
        let kept = database.contracts().unwrap();
        assert_eq!((kept[0].id, kept[0].started), (id, Some(1)));
        assert_eq!(database.fact("a").unwrap().as_deref(), Some("b"));
    }

    #[test]
    fn the_order_of_first_starts_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(directory.path());
        let ids = [ContractId([2; 32]), ContractId([1; 32])];
        for id in &ids {
            assert!(database.keep(id, &empty()).unwrap());
        }
        for id in ids.iter().chain(&ids) {
            database.note_start(id).unwrap();
        }
        let order: Vec<_> = database.contracts().unwrap().iter().map(|kept| kept.started).collect();
        assert_eq!(order, [Some(2), Some(1)]);
    }

    #[test]
    fn a_result_leaves_the_outbox_only_when_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let mut database = open(directory.path());
        let contract = ContractId([1; 32]);
        let envelope =
            Envelope { payload_type: "t".into(), payload: "cA==".into(), signatures: vec![] };
        for seq in 1..=3 {
            let id = StatementId([u8::try_from(seq).unwrap(); 32]);
            assert!(database.post(&contract, "{}", seq, &id, &envelope).unwrap());
        }
        assert_eq!(database.outbox(10).unwrap().len(), 3);
        database.acknowledge(&[1, 2]).unwrap();
        assert_eq!(database.outbox(10).unwrap().len(), 1);
        assert_eq!(database.chain().unwrap(), Some((3, StatementId([3; 32]))));
    }

    #[test]
    fn an_unreadable_database_is_kept_aside_and_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let rubbish = vec![0x5a; 8192];
        std::fs::write(directory.path().join("contractd.db"), &rubbish).unwrap();
        let (database, problem) = Database::open(directory.path()).unwrap();
        assert!(problem.unwrap().contains("unreadable-1"));
        assert!(database.contracts().unwrap().is_empty());
        let aside = std::fs::read(directory.path().join("contractd.unreadable-1")).unwrap();
        assert_eq!(aside, rubbish);
    }
}
