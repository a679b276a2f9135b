//! The durable state of contractd: contracts seen, what was started, results not yet acknowledged.
//!
//! SQLite, WAL, `synchronous=FULL`: a commit survives a power cut. A database that cannot be read
//! is moved aside and begun anew, because contracts come again from the registry and what runs is
//! known to the kernel; the node never refuses to start for it.

use crate::{evidence::Evidence, merge};
use contract::{
    Bundle, Capacity, ContractId, Envelope, FlistId, Past, StatementId, Timestamp,
    bundle::BUNDLE_BYTES_MAX,
    decision::Retention,
    strict,
    verdict::{Cause, Ended, ToldBy},
};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The fact that says what the log that is asked was shown to continue, as the boot options name it.
pub(crate) const LOG_HELD: &str = "log-held";
/// Contracts that one node keeps and that have not ended by an order.
pub(crate) const CONTRACTS_MAX: u32 = 1024;
/// Contracts that have ended by an order: of each, only that is kept.
pub(crate) const ENDED_MAX: u32 = 4096;
/// All bundles together, on the disk and in memory, without decisions that may stop a contract.
pub(crate) const BUNDLES_BYTES_MAX: usize = 2 * BUNDLE_BYTES_MAX;
/// A bundle as it is kept: the largest that comes, and every decision that may stop it on top.
const KEPT_BYTES_MAX: usize = 96 * 1024 * 1024;
/// Results that wait for the registry; beyond that, new ones wait for room.
pub(crate) const OUTBOX_MAX: u32 = 10_000;

/// Steps from an empty file to the present form; those that an image before took are not repeated.
const STEPS: [&str; 4] = [FIRST, PAST, LOGGED, RELEASES];

const FIRST: &str = "
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

/// What is final about a contract; see `contract::past`.
const PAST: &str = "
    ALTER TABLE contract ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE contract ADD COLUMN holds TEXT;
    -- Not NULL: it has ended by an order, and its bundle is gone.
    ALTER TABLE contract ADD COLUMN ended TEXT;
";

const LOGGED: &str = "
    -- The highest version that was proven to be in the log, with its quorum.
    ALTER TABLE contract ADD COLUMN logged INTEGER NOT NULL DEFAULT 0;
";

const RELEASES: &str = "
    CREATE TABLE IF NOT EXISTS release (
        contract TEXT NOT NULL,
        flist TEXT NOT NULL,
        -- The record as its publisher signed it.
        record BLOB NOT NULL,
        -- 1: the contract was started with it, so that it counts also when its time is over.
        begun INTEGER NOT NULL,
        PRIMARY KEY (contract, flist)
    ) STRICT;
";

/// The end of a contract as it is stored.
#[derive(Serialize, Deserialize)]
struct End {
    version: u64,
    header: StatementId,
    order: StatementId,
    retention: Retention,
    expires: Timestamp,
}

impl End {
    fn ended(self, contract: ContractId) -> Ended {
        let Self { version, header, order, retention, expires } = self;
        Ended {
            contract,
            version,
            header_id: header,
            cause: Cause::Cancelled { order, retention },
            expires,
            // It was stored because its time had come for certain.
            told_by: ToldBy::Order,
        }
    }
}

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
    pub(crate) fn is_damage(&self) -> bool {
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
    /// Empty once it has ended by an order: then nothing in it matters any more.
    pub(crate) bundle: Evidence,
    pub(crate) started: Option<u64>,
    pub(crate) reported: String,
    pub(crate) past: Past,
    /// The highest version that was proven to be in the log, with its quorum.
    pub(crate) logged: u64,
}

impl Kept {
    /// A contract of which nothing is known yet.
    pub(crate) fn new(id: ContractId) -> Self {
        Self {
            id,
            bundle: Evidence::of(merge::empty()),
            started: None,
            reported: "{}".to_owned(),
            past: Past::default(),
            logged: 0,
        }
    }
}

/// A release as it is kept.
#[derive(Debug)]
pub(crate) struct KeptRelease {
    pub(crate) contract: ContractId,
    pub(crate) flist: FlistId,
    /// As its publisher signed it.
    pub(crate) record: Vec<u8>,
    /// Its contract was started with it.
    pub(crate) begun: bool,
}

/// Whether there is room for one more contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// As many as can be are kept that have not ended.
    FullOfLiving,
    /// And as many as can be that have.
    FullOfEnded,
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
            let taken: u32 =
                connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            for (number, step) in (1..).zip(STEPS).skip(taken as usize) {
                connection.execute_batch(&format!(
                    "BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;"
                ))?;
            }
            Ok(())
        };
        setup().map_err(failed("checking the state"))?;
        Ok(Self(connection))
    }

    /// Every contract that is kept and can be read.
    pub(crate) fn contracts(&self) -> Result<Vec<Kept>, DatabaseError> {
        let read = || -> rusqlite::Result<Vec<Kept>> {
            let mut query = self.0.prepare(
                "SELECT id, bundle, started, reported, version, holds, ended, logged
                 FROM contract ORDER BY id",
            )?;
            let rows = query.query_map([], |row| {
                let (id, bundle): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
                let (started, reported): (Option<u64>, String) = (row.get(2)?, row.get(3)?);
                let (version, holds, ended) = (row.get(4)?, row.get(5)?, row.get(6)?);
                let logged: u64 = row.get(7)?;
                let holds: Option<String> = holds;
                let ended: Option<String> = ended;
                Ok((|| {
                    let id: ContractId = id.parse().ok()?;
                    let bundle = match ended {
                        None => strict::read(&bundle, KEPT_BYTES_MAX).ok()?,
                        Some(_) => merge::empty(),
                    };
                    let bundle = Evidence::of(bundle);
                    let ended = match ended {
                        Some(text) => Some(serde_json::from_str::<End>(&text).ok()?.ended(id)),
                        None => None,
                    };
                    let held = holds.and_then(|text| serde_json::from_str(&text).ok());
                    // An image before did not write down how much.
                    let holds = started.map(|_| held.unwrap_or_default());
                    let past = Past { holds, version, ended };
                    Some(Kept { id, bundle, started, reported, past, logged })
                })())
            })?;
            rows.filter_map(Result::transpose).collect()
        };
        read().map_err(failed("reading the contracts"))
    }

    /// Whether another contract with so many bytes can be kept, if this one goes.
    pub(crate) fn room(
        &self,
        bytes: usize,
        without: Option<&ContractId>,
    ) -> Result<Room, DatabaseError> {
        let sql = "SELECT count(*) - count(ended), count(ended), ifnull(sum(length(bundle)), 0)
                   FROM contract WHERE id IS NOT ?1";
        let counted = self.0.query_row(sql, [without.map(ToString::to_string)], |row| {
            let (living, ended, kept): (u32, u32, usize) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(if living >= CONTRACTS_MAX || kept.saturating_add(bytes) > BUNDLES_BYTES_MAX {
                Room::FullOfLiving
            } else if living + ended >= CONTRACTS_MAX + ENDED_MAX {
                Room::FullOfEnded
            } else {
                Room::Enough
            })
        });
        counted.map_err(failed("counting the contracts"))
    }

    /// Keeps a contract's bundle and the highest version that was in force. `false`: it has ended,
    /// there is no room for another contract, or all bundles would take more than `bytes_max`.
    pub(crate) fn keep(
        &self,
        id: &ContractId,
        bundle: &Bundle,
        version: u64,
        bytes_max: usize,
    ) -> Result<bool, DatabaseError> {
        let bytes = serde_json::to_vec(bundle).expect("a bundle is strings and numbers");
        let changed = self.0.execute(
            "INSERT INTO contract (id, bundle, version) SELECT ?1, ?2, ?3
             WHERE (EXISTS (SELECT 1 FROM contract WHERE id = ?1)
                OR (SELECT count(*) - count(ended) < ?4 AND count(*) < ?4 + ?5 FROM contract))
               AND (SELECT ifnull(sum(length(bundle)), 0) + length(?2) <= ?6 FROM contract
                    WHERE id != ?1)
             ON CONFLICT (id) DO UPDATE
                SET bundle = excluded.bundle, version = max(version, excluded.version)
                WHERE ended IS NULL",
            params![
                id.to_string(),
                bytes,
                version,
                CONTRACTS_MAX,
                ENDED_MAX,
                i64::try_from(bytes_max).unwrap_or(i64::MAX)
            ],
        );
        changed.map(|rows| rows > 0).map_err(failed("keeping a contract"))
    }

    /// Forgets a contract altogether.
    pub(crate) fn evict(&self, id: &ContractId) -> Result<(), DatabaseError> {
        let changed = self.0.execute("DELETE FROM contract WHERE id = ?1", [id.to_string()]);
        changed.map(drop).map_err(failed("forgetting a contract"))
    }

    /// Notes what the contract holds of the node, and that it is started when it was not before.
    pub(crate) fn note_start(
        &self,
        id: &ContractId,
        holds: &Capacity,
    ) -> Result<(), DatabaseError> {
        let holds = serde_json::to_string(holds).expect("numbers");
        let changed = self.0.execute(
            "UPDATE contract SET holds = ?2, started = ifnull(
                started, (SELECT ifnull(max(started), 0) + 1 FROM contract))
             WHERE id = ?1",
            params![id.to_string(), holds],
        );
        changed.map(drop).map_err(failed("noting a start"))
    }

    /// Notes that the contract has ended by an order, for ever. What it was made of goes. `false`:
    /// it was no order that ended it.
    pub(crate) fn note_end(&self, ended: &Ended) -> Result<bool, DatabaseError> {
        let Cause::Cancelled { order, retention } = ended.cause else { return Ok(false) };
        let (version, header, expires) = (ended.version, ended.header_id, ended.expires);
        let end = serde_json::to_string(&End { version, header, order, retention, expires })
            .expect("strings and numbers");
        let changed = self.0.execute(
            "UPDATE contract SET ended = ?2, bundle = x'', version = max(version, ?3)
             WHERE id = ?1 AND ended IS NULL",
            params![ended.contract.to_string(), end, version],
        );
        changed.map(|rows| rows > 0).map_err(failed("noting an end"))
    }

    /// Notes that a version was proven to be in the log, so that it is in force.
    pub(crate) fn note_logged(&self, id: &ContractId, version: u64) -> Result<(), DatabaseError> {
        let changed = self.0.execute(
            "UPDATE contract SET logged = max(logged, ?2), version = max(version, ?2)
             WHERE id = ?1 AND ended IS NULL",
            params![id.to_string(), version],
        );
        changed.map(drop).map_err(failed("noting what is in the log"))
    }

    /// From now on these keys say what is in the log. `false`: it were others before, and what was
    /// proven by them has to be proven again, [`LOG_HELD`] as well.
    pub(crate) fn ask_log(&mut self, keys: &str) -> Result<bool, DatabaseError> {
        let mut write = || -> rusqlite::Result<bool> {
            let transaction = self.0.transaction()?;
            let known: Option<String> = transaction
                .query_row("SELECT value FROM fact WHERE name = 'log-keys'", [], |row| row.get(0))
                .optional()?;
            let is_same = known.as_deref() == Some(keys);
            if !is_same {
                transaction.execute("UPDATE contract SET logged = 0", [])?;
                transaction.execute("DELETE FROM fact WHERE name = ?1", params![LOG_HELD])?;
                transaction.execute(
                    "INSERT OR REPLACE INTO fact VALUES ('log-keys', ?1)",
                    params![keys],
                )?;
            }
            transaction.commit()?;
            Ok(is_same)
        };
        write().map_err(failed("noting which log is asked"))
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

    /// Every release that is kept.
    pub(crate) fn releases(&self) -> Result<Vec<KeptRelease>, DatabaseError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let mut query = self.0.prepare("SELECT contract, flist, record, begun FROM release")?;
            let rows = query.query_map([], |row| {
                let (contract, flist): (String, String) = (row.get(0)?, row.get(1)?);
                let (record, begun) = (row.get(2)?, row.get(3)?);
                Ok((|| {
                    let (contract, flist) = (contract.parse().ok()?, flist.parse().ok()?);
                    Some(KeptRelease { contract, flist, record, begun })
                })())
            })?;
            rows.filter_map(Result::transpose).collect()
        };
        read().map_err(failed("reading the releases"))
    }

    /// Keeps a release, in the place of the one before it.
    pub(crate) fn keep_release(
        &self,
        contract: &ContractId,
        flist: &FlistId,
        record: &[u8],
        begun: bool,
    ) -> Result<(), DatabaseError> {
        let (contract, flist) = (contract.to_string(), flist.to_string());
        let changed = self.0.execute(
            "INSERT OR REPLACE INTO release VALUES (?1, ?2, ?3, ?4)",
            params![contract, flist, record, begun],
        );
        changed.map(drop).map_err(failed("keeping a release"))
    }

    /// Notes that the contract was started with a release that is kept.
    pub(crate) fn note_begun(
        &self,
        contract: &ContractId,
        flist: &FlistId,
    ) -> Result<(), DatabaseError> {
        let changed = self.0.execute(
            "UPDATE release SET begun = 1 WHERE contract = ?1 AND flist = ?2",
            params![contract.to_string(), flist.to_string()],
        );
        changed.map(drop).map_err(failed("noting that a release was begun with"))
    }

    /// Forgets a release.
    pub(crate) fn forget_release(
        &self,
        contract: &ContractId,
        flist: &FlistId,
    ) -> Result<(), DatabaseError> {
        let changed = self.0.execute(
            "DELETE FROM release WHERE contract = ?1 AND flist = ?2",
            params![contract.to_string(), flist.to_string()],
        );
        changed.map(drop).map_err(failed("forgetting a release"))
    }

    /// A single remembered value.
    pub(crate) fn fact(&self, name: &str) -> Result<Option<String>, DatabaseError> {
        self.0
            .query_row("SELECT value FROM fact WHERE name = ?1", params![name], |row| row.get(0))
            .optional()
            .map_err(failed("reading a fact"))
    }

    /// Remembers all of these values, or none.
    pub(crate) fn set_facts(&self, facts: &[(&str, String)]) -> Result<(), DatabaseError> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.0.unchecked_transaction()?;
            for (name, value) in facts {
                let insert = "INSERT OR REPLACE INTO fact VALUES (?1, ?2)";
                transaction.execute(insert, params![name, value])?;
            }
            transaction.commit()
        };
        write().map_err(failed("remembering facts"))
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

    /// Goes on after this result: the state that knew the last one was lost.
    pub(crate) fn set_chain(&self, seq: u64, id: &StatementId) -> Result<(), DatabaseError> {
        self.set_fact("chain", &format!("{seq} {id}"))
    }

    /// The first user id of every container, by its id.
    pub(crate) fn user_ids(&self) -> Result<BTreeMap<String, u32>, DatabaseError> {
        let table = self.fact("user-ids")?.unwrap_or_default();
        Ok(serde_json::from_str(&table).unwrap_or_default())
    }

    /// Replaces that table.
    pub(crate) fn set_user_ids(&self, table: &BTreeMap<String, u32>) -> Result<(), DatabaseError> {
        let text = serde_json::to_string(table).expect("strings and numbers");
        self.set_fact("user-ids", &text)
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

    /// Drops acknowledged results; says how many of them had waited.
    pub(crate) fn acknowledge(&mut self, seqs: &[u64]) -> Result<usize, DatabaseError> {
        let mut write = || -> rusqlite::Result<usize> {
            let transaction = self.0.transaction()?;
            let mut dropped = 0;
            for seq in seqs {
                dropped +=
                    transaction.execute("DELETE FROM outbox WHERE seq = ?1", params![seq])?;
            }
            transaction.commit()?;
            Ok(dropped)
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
mod tests;
