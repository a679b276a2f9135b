//! The SQL of the registry, said once and spoken to SQLite or to PostgreSQL. Knows no table.
//!
//! What both understand in the same way is all there is: parameters are `?1`, `?2`, …; columns are
//! integers of 64 bits, texts and bytes; conflicts are named with `ON CONFLICT`. Whoever needs a
//! word that only one of them has puts it into the file of that one.

pub mod postgres;
mod sqlite;

use std::io;

/// A connection to a database. One thread at a time uses it.
#[derive(Debug)]
pub struct Connection(Inner);

#[derive(Debug)]
enum Inner {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Session>),
}

/// Whether a connection writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It sees one unchanging state in each transaction, and changes nothing.
    Read,
    /// It is the only one that writes.
    Write,
}

/// Why a database did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// SQLite says why.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL, or the way there, says why.
    #[error("{}", postgres::words(.0))]
    Postgres(tokio_postgres::Error),
    /// The thread that moves the bytes of a connection could not be started.
    #[error("starting a connection")]
    Start(#[source] io::Error),
    /// PostgreSQL says nothing any more.
    #[error("the database does not answer")]
    Silent,
    /// Another process writes.
    #[error("another registryd uses this database: stop it first, or name another one")]
    Taken,
    /// Not every text could be stored.
    #[error("the database is encoded in {0}: create one with ENCODING 'UTF8'")]
    Encoding(String),
    /// The name leads to another database than before, or it is not whole.
    #[error(
        "the database is not the one that belongs to this directory, or not whole: name its own one, or \
         put it back"
    )]
    Strange,
    /// A query gives no row where one has to be.
    #[error("the database lacks a row that has to be there")]
    NoRow,
    /// A column holds something else than it is read as.
    #[error("column {0} of a row is not what it has to be")]
    Column(usize),
    /// The transaction that this was in has not been committed.
    #[error("the commit failed: {0}")]
    NotCommitted(Cause),
}

/// What an error comes from, as far as somebody acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The disk of the database is full.
    #[error("the disk of the database is full")]
    Full,
    /// The connection is gone. Whether a commit has been done that had not been answered is not known.
    #[error("the connection to the database is lost")]
    Lost,
    /// Anything else.
    #[error("the database refused it")]
    Other,
}

impl SqlError {
    /// What it comes from.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Sqlite(error) => sqlite::cause(error),
            Self::Postgres(error) => postgres::cause(error),
            Self::Start(_) | Self::Silent | Self::Taken | Self::Strange => Cause::Lost,
            Self::Encoding(_) | Self::NoRow | Self::Column(_) => Cause::Other,
            Self::NotCommitted(cause) => *cause,
        }
    }

    /// Whether nothing more can be asked in the same transaction: of PostgreSQL, after any error.
    pub fn ends_transaction(&self) -> bool {
        matches!(self, Self::Postgres(_)) || self.cause() == Cause::Lost
    }
}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// What a parameter or a column holds, if it is not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Integer(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// The type of a parameter, also of one that is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Integer,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
}

/// What can stand for a parameter.
pub trait Argument {
    /// Its type.
    fn kind(&self) -> Kind;
    /// What it holds; `None` is null.
    fn value(&self) -> Option<Value<'_>>;
}

/// What a column can be read as.
pub trait Column: Sized {
    /// `None` when it is something else.
    fn read(value: Option<Value<'_>>) -> Option<Self>;
}

/// The two directions of one type.
macro_rules! holds {
    ($type:ty, $kind:ident, |$own:ident| $out:expr, |$value:ident| $read:expr) => {
        impl Argument for $type {
            fn kind(&self) -> Kind {
                Kind::$kind
            }

            fn value(&self) -> Option<Value<'_>> {
                let $own = self;
                Some(Value::$kind($out))
            }
        }

        impl Column for $type {
            fn read(value: Option<Value<'_>>) -> Option<Self> {
                let Value::$kind($value) = value? else { return None };
                $read
            }
        }

        impl Argument for Option<$type> {
            fn kind(&self) -> Kind {
                Kind::$kind
            }

            fn value(&self) -> Option<Value<'_>> {
                self.as_ref().and_then(Argument::value)
            }
        }
    };
}

holds!(i64, Integer, |own| *own, |value| Some(value));
holds!(String, Text, |own| own, |value| Some(value.to_owned()));
holds!(Vec<u8>, Bytes, |own| own, |value| Some(value.to_vec()));
holds!([u8; 32], Bytes, |own| own, |value| value.try_into().ok());

impl<T: Column> Column for Option<T> {
    fn read(value: Option<Value<'_>>) -> Option<Self> {
        match value {
            None => Some(None),
            Some(_) => T::read(value).map(Some),
        }
    }
}

impl Argument for &str {
    fn kind(&self) -> Kind {
        Kind::Text
    }

    fn value(&self) -> Option<Value<'_>> {
        Some(Value::Text(self))
    }
}

impl Argument for &[u8] {
    fn kind(&self) -> Kind {
        Kind::Bytes
    }

    fn value(&self) -> Option<Value<'_>> {
        Some(Value::Bytes(self))
    }
}

/// One row of an answer.
#[derive(Debug)]
pub struct Row<'a>(InnerRow<'a>);

#[derive(Debug)]
enum InnerRow<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// A column, counted from 0.
    pub fn get<T: Column>(&self, column: usize) -> Result<T, SqlError> {
        let value = match self.0 {
            InnerRow::Sqlite(row) => sqlite::value(row, column)?,
            InnerRow::Postgres(row) => postgres::value(row, column)?,
        };
        T::read(value).ok_or(SqlError::Column(column))
    }
}

impl Connection {
    /// Does something. Returns how many rows it has changed.
    pub fn execute(&self, sql: &str, arguments: &[&dyn Argument]) -> Result<u64, SqlError> {
        match &self.0 {
            Inner::Sqlite(connection) => sqlite::execute(connection, sql, arguments),
            Inner::Postgres(session) => session.execute(sql, arguments),
        }
    }

    /// All rows of an answer: whoever asks bounds them.
    pub fn query<T>(
        &self,
        sql: &str,
        arguments: &[&dyn Argument],
        read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        match &self.0 {
            Inner::Sqlite(connection) => sqlite::query(connection, sql, arguments, read),
            Inner::Postgres(session) => session.query(sql, arguments, read),
        }
    }

    /// The first row of an answer, if there is one. All are read: whoever asks bounds them.
    pub fn query_optional<T>(
        &self,
        sql: &str,
        arguments: &[&dyn Argument],
        read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<Option<T>, SqlError> {
        Ok(self.query(sql, arguments, read)?.into_iter().next())
    }

    /// The first row of an answer that has one.
    pub fn query_one<T>(
        &self,
        sql: &str,
        arguments: &[&dyn Argument],
        read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.query_optional(sql, arguments, read)?.ok_or(SqlError::NoRow)
    }

    /// Does several things that have no parameters.
    pub fn execute_batch(&self, sql: &str) -> Result<(), SqlError> {
        match &self.0 {
            Inner::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Inner::Postgres(session) => session.execute_batch(sql),
        }
    }

    /// Changes the schema, in the words of SQLite.
    pub fn migrate(&self, sql: &str) -> Result<(), SqlError> {
        match &self.0 {
            Inner::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Inner::Postgres(session) => session.execute_batch(&postgres::schema(sql)),
        }
    }

    /// Begins a transaction. Nothing has been done when it fails.
    pub fn begin(&self, access: Access) -> Result<(), SqlError> {
        self.execute_batch(match &self.0 {
            Inner::Sqlite(_) => sqlite::begin(access),
            Inner::Postgres(_) => postgres::begin(access),
        })
    }

    /// Ends the transaction. What it did is on the disk when this returns without an error.
    pub fn commit(&self) -> Result<(), SqlError> {
        match &self.0 {
            Inner::Sqlite(_) => self.execute_batch("COMMIT"),
            Inner::Postgres(session) => session.commit(),
        }
    }

    /// Whether an answer may take as long as reading every statement does.
    pub fn wait_long(&self, long: bool) {
        match &self.0 {
            // It takes what it takes.
            Inner::Sqlite(_) => {}
            Inner::Postgres(session) => session.wait_long(long),
        }
    }

    /// Undoes the transaction, if there is one.
    pub fn rollback(&self) -> Result<(), SqlError> {
        match &self.0 {
            // An error may have ended it already.
            Inner::Sqlite(connection) if connection.is_autocommit() => Ok(()),
            Inner::Sqlite(_) | Inner::Postgres(_) => self.execute_batch("ROLLBACK"),
        }
    }

    /// Ends the connection in order.
    pub fn close(self) -> Result<(), SqlError> {
        match self.0 {
            Inner::Sqlite(connection) => sqlite::close(connection),
            Inner::Postgres(session) => session.close(),
        }
    }
}
