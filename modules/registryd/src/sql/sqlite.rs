//! SQLite: one file in the data directory.

use super::{Access, Argument, Cause, Connection, Inner, InnerRow, Row, SqlError, Value};
use rusqlite::{
    ErrorCode, OpenFlags, ToSql, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};
use std::{path::Path, time::Duration};

/// A reader waits this long for a checkpoint that blocks it.
const TIMEOUT_BUSY: Duration = Duration::from_secs(10);
/// Texts that a connection keeps prepared: more than the registry has.
const STATEMENTS_MAX: usize = 128;

impl Connection {
    /// Opens a database of SQLite; whoever writes makes it when it is missing.
    pub fn sqlite(path: &Path, access: Access) -> Result<Self, SqlError> {
        let connection = match access {
            Access::Write => rusqlite::Connection::open(path)?,
            Access::Read => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                rusqlite::Connection::open_with_flags(path, flags)?
            }
        };
        connection.busy_timeout(TIMEOUT_BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        if access == Access::Write {
            connection.execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA foreign_keys = ON;
                 PRAGMA trusted_schema = OFF;",
            )?;
        }
        Ok(Self(Inner::Sqlite(connection)))
    }
}

/// Leaves one file behind instead of three; what is in the WAL is safe in any case.
pub(super) fn close(connection: rusqlite::Connection) -> Result<(), SqlError> {
    if !connection.is_readonly("main")? {
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    }
    connection.close().map_err(|(_, error)| error.into())
}

pub(super) fn begin(access: Access) -> &'static str {
    match access {
        Access::Read => "BEGIN",
        Access::Write => "BEGIN IMMEDIATE",
    }
}

pub(super) fn cause(error: &rusqlite::Error) -> Cause {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Cause::Full,
        Some(_) | None => Cause::Other,
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Integer(number) => ValueRef::Integer(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

pub(super) fn execute(
    connection: &rusqlite::Connection,
    sql: &str,
    arguments: &[&dyn Argument],
) -> Result<u64, SqlError> {
    let values = params_from_iter(arguments.iter().map(|argument| argument.value()));
    Ok(connection.prepare_cached(sql)?.execute(values)? as u64)
}

pub(super) fn query<T>(
    connection: &rusqlite::Connection,
    sql: &str,
    arguments: &[&dyn Argument],
    mut read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
) -> Result<Vec<T>, SqlError> {
    let mut statement = connection.prepare_cached(sql)?;
    let values = params_from_iter(arguments.iter().map(|argument| argument.value()));
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&Row(InnerRow::Sqlite(row)))?);
    }
    Ok(found)
}

pub(super) fn value<'a>(
    row: &'a rusqlite::Row<'_>,
    column: usize,
) -> Result<Option<Value<'a>>, SqlError> {
    Ok(Some(match row.get_ref(column)? {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Text(text) => {
            Value::Text(std::str::from_utf8(text).map_err(|_| SqlError::Column(column))?)
        }
        ValueRef::Blob(bytes) => Value::Bytes(bytes),
        ValueRef::Real(_) => return Err(SqlError::Column(column)),
    }))
}
