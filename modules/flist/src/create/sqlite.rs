//! Opens databases that came from anywhere, to read ordinary tables of theirs.
//!
//! A copy is read: nothing beside the file counts (journals), and nothing is written to it. Schemas
//! are not trusted, views and virtual tables are not read, values and work are bounded.

use super::CreateError;
use rusqlite::{Connection, OpenFlags, config::DbConfig, limits::Limit};
use std::{
    io::{self, Read},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::NamedTempFile;

/// Bytes of a database: about a thousand for each of a million files.
const DATABASE_MAX: u64 = 1 << 30;
/// Bytes of one value: a directory with several hundred thousand names.
const VALUE_MAX: i32 = 64 << 20;
/// Steps of SQLite's machine between two looks at the clock, so to say, and how many looks.
const STEPS: i32 = 100_000;
const LOOKS_MAX: u32 = 50_000;

/// A database, and the copy that goes away with it.
pub(super) struct Database {
    connection: Connection,
    _copy: NamedTempFile,
}

pub(super) fn wrong(error: &rusqlite::Error) -> CreateError {
    CreateError::input("the database of the flist", format!("cannot be read: {error}"))
}

impl Database {
    /// Copies the database into `scratch` and opens it; all these tables must be there.
    pub(super) fn open(
        bytes: &mut dyn Read,
        scratch: &Path,
        tables: &[&str],
    ) -> Result<Self, CreateError> {
        let failed = || CreateError::io("copying the database to", scratch);
        let mut copy = NamedTempFile::new_in(scratch).map_err(failed())?;
        let size = io::copy(&mut bytes.take(DATABASE_MAX + 1), &mut copy).map_err(failed())?;
        if size > DATABASE_MAX {
            return Err(CreateError::input("the database of the flist", "is larger than 1 GiB"));
        }
        let connection = connect(copy.path()).map_err(|error| wrong(&error))?;
        for table in tables {
            let kind = connection.query_row(
                "SELECT type FROM pragma_table_list WHERE schema = 'main' AND name = ?1",
                [table],
                |row| row.get::<_, String>(0),
            );
            if !kind.is_ok_and(|kind| kind == "table") {
                let problem = format!("has no table {table}");
                return Err(CreateError::input("the database of the flist", problem));
            }
        }
        Ok(Self { connection, _copy: copy })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path), flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    let looks = AtomicU32::new(0);
    let tired = move || looks.fetch_add(1, Ordering::Relaxed) > LOOKS_MAX;
    connection.progress_handler(STEPS, Some(tired))?;
    Ok(connection)
}

/// Immutable: SQLite looks for no journal and takes no lock.
fn uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri + "?immutable=1"
}
