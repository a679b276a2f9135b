//! Where the statements are kept, and that one process has them: SQLite in the data directory, or a
//! database of PostgreSQL. Makes and upgrades the tables.

use super::Fault;
use crate::sql::{Access, Connection, SqlError};
use anyhow::Context as _;
use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};
use tokio_postgres::Config;

/// Each entry is one step, in order; a database counts how many it has taken. Only ever append.
const MIGRATIONS: [&str; 4] = [
    include_str!("../schema.sql"),
    include_str!("../schema_changes.sql"),
    include_str!("../schema_log.sql"),
    include_str!("../schema_scrubs.sql"),
];
/// Stands in the data directory of a registry whose statements are in PostgreSQL, with the id of the
/// database that they are in: nobody starts it without them, or with others.
const MARK: &str = "postgresql";

/// Where the statements are kept.
#[derive(Debug, Clone, Default)]
pub enum Database {
    /// In a file of the data directory.
    #[default]
    Sqlite,
    /// In a database of PostgreSQL, which [`crate::sql::postgres::parse`] has found fit.
    Postgres(Box<Config>),
}

/// Where the database of SQLite is, below the data directory.
pub fn path(data: &Path) -> PathBuf {
    data.join("registry.sqlite3")
}

/// Whether a registry has begun in this directory, wherever its statements are.
pub fn has_begun(data: &Path) -> bool {
    path(data).exists() || data.join(MARK).exists()
}

/// Takes the data directory for this process, as long as what is returned lives.
pub fn take(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "another registryd uses {}: stop it first, or name another directory with --data",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(anyhow::Error::new(error).context(format!("locking {}", path.display())))
        }
    }
}

/// Opens the database of SQLite for writing, making or upgrading it first.
pub fn open(data: &Path) -> anyhow::Result<Connection> {
    Database::Sqlite.open(data)
}

impl Database {
    /// Opens it for writing, making or upgrading it first. Refuses a directory whose statements are
    /// elsewhere.
    pub fn open(&self, data: &Path) -> anyhow::Result<Connection> {
        let (file, mark) = (path(data), data.join(MARK));
        match self {
            Self::Sqlite => anyhow::ensure!(
                !mark.exists(),
                "the statements of {} are in PostgreSQL: name it with --database or ZOS_DATABASE",
                data.display()
            ),
            Self::Postgres(_) => anyhow::ensure!(
                !file.exists(),
                "the statements of {} are in SQLite: start it without --database and ZOS_DATABASE, \
                 or name another directory with --data",
                data.display()
            ),
        }
        let opening = || format!("opening {}", self.name(data));
        let connection = self.connect(data, Access::Write).with_context(opening)?;
        if let Self::Postgres(_) = self {
            settle(&connection, data).with_context(opening)?;
        }
        migrate(&connection).with_context(|| format!("upgrading {}", self.name(data)))?;
        Ok(connection)
    }

    /// Opens it as it is, once more or for reading. Makes nothing: where the name leads to another one
    /// by now, or to one that is only being put back, it is refused.
    pub(super) fn reopen(&self, data: &Path, access: Access) -> anyhow::Result<Connection> {
        let again = || -> anyhow::Result<Connection> {
            let connection = self.connect(data, access)?;
            if let Self::Postgres(_) = self {
                let ours = known(data)?.is_some() && id(&connection)? == known(data)?;
                let is_whole = ours && steps(&connection)? == MIGRATIONS.len();
                anyhow::ensure!(is_whole, SqlError::Strange);
            }
            Ok(connection)
        };
        again().with_context(|| format!("opening {}", self.name(data)))
    }

    fn connect(&self, data: &Path, access: Access) -> Result<Connection, SqlError> {
        match self {
            Self::Sqlite => Connection::sqlite(&path(data), access),
            Self::Postgres(config) => Connection::postgres(config, access),
        }
    }

    fn name(&self, data: &Path) -> String {
        match self {
            Self::Sqlite => path(data).display().to_string(),
            Self::Postgres(config) => {
                format!("the database {} of PostgreSQL", config.get_dbname().unwrap_or_default())
            }
        }
    }
}

/// Ties a directory and a database of PostgreSQL to each other, once and for ever. The database comes
/// first: what was cut off in between is taken up again, and nothing is acknowledged before.
fn settle(connection: &Connection, data: &Path) -> anyhow::Result<()> {
    let (known, found) = (known(data)?, id(connection)?);
    match (&known, found) {
        (Some(known), found) => anyhow::ensure!(found.as_ref() == Some(known), SqlError::Strange),
        (None, Some(found)) => mark(data, &found)?,
        (None, None) => {
            let mut seed = [0; 16];
            getrandom::fill(&mut seed).context("asking for random bytes")?;
            let fresh = hex::encode(seed);
            connection.begin(Access::Write)?;
            connection.execute_batch("CREATE TABLE registry (id TEXT NOT NULL)")?;
            connection.execute("INSERT INTO registry (id) VALUES (?1)", &[&fresh])?;
            connection.commit()?;
            mark(data, &fresh)?;
        }
    }
    Ok(())
}

/// The id of the database that a directory belongs to.
fn known(data: &Path) -> anyhow::Result<Option<String>> {
    let path = data.join(MARK);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// It is on the disk when this returns.
fn mark(data: &Path, id: &str) -> anyhow::Result<()> {
    let (path, fresh) = (data.join(MARK), data.join(".postgresql.new"));
    let write = || {
        let mut file = File::create(&fresh)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(data)?.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// The id of a database of PostgreSQL.
fn id(connection: &Connection) -> Result<Option<String>, SqlError> {
    if !has_table(connection, "registry")? {
        return Ok(None);
    }
    connection.query_optional("SELECT id FROM registry", &[], |row| row.get(0))
}

fn has_table(connection: &Connection, name: &str) -> Result<bool, SqlError> {
    let sql = "SELECT COUNT(*) FROM pg_tables
               WHERE schemaname = current_schema() AND tablename = ?1";
    Ok(connection.query_one(sql, &[&name], |row| row.get::<i64>(0))? > 0)
}

/// How many steps a database of PostgreSQL has taken.
fn steps(connection: &Connection) -> anyhow::Result<usize> {
    Ok(if has_table(connection, "migrations")? { taken(connection)? } else { 0 })
}

fn taken(connection: &Connection) -> anyhow::Result<usize> {
    let taken: i64 =
        connection.query_one("SELECT COUNT(*) FROM migrations", &[], |row| row.get(0))?;
    Ok(usize::try_from(taken)?)
}

fn migrate(connection: &Connection) -> anyhow::Result<()> {
    connection.migrate(
        "CREATE TABLE IF NOT EXISTS migrations (
            step INTEGER PRIMARY KEY
        ) STRICT;",
    )?;
    let taken = taken(connection)?;
    anyhow::ensure!(taken <= MIGRATIONS.len(), "it was written by a newer registryd");
    connection.wait_long(true);
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(taken) {
        connection.begin(Access::Write)?;
        connection.migrate(sql)?;
        // The last step also fills the tables that follow from the statements.
        if step + 1 == MIGRATIONS.len() {
            rebuild_in(connection)?;
        }
        let step = i64::try_from(step)?;
        connection.execute("INSERT INTO migrations (step) VALUES (?1)", &[&step])?;
        connection.commit()?;
    }
    connection.wait_long(false);
    Ok(())
}

/// Makes anew what follows from the statements. Returns how many count. A connection on which it
/// fails is of no more use.
pub fn rebuild(connection: &Connection) -> anyhow::Result<u64> {
    connection.wait_long(true);
    connection.begin(Access::Write)?;
    let count = rebuild_in(connection)?;
    connection.commit()?;
    connection.wait_long(false);
    Ok(count)
}

fn rebuild_in(connection: &Connection) -> anyhow::Result<u64> {
    match crate::project::rebuild(connection) {
        Ok(count) => Ok(count),
        Err(Fault::Broken(error)) => Err(error.context("rebuilding")),
        Err(Fault::Refused(problem)) => Err(anyhow::anyhow!("rebuilding: {problem}")),
    }
}
