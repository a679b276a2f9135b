//! PostgreSQL: sessions over a Unix socket or the loopback interface.
//!
//! A thread of its own moves the bytes of each session; whoever asks waits for it as one waits for a
//! file. A session never comes back: what was lost with it is for its owner to decide.

use super::{Access, Argument, Cause, Connection, Inner, InnerRow, Kind, Row, SqlError, Value};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    error::Error as _,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{Arc, mpsc},
    task::{Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, time::timeout};
use tokio_postgres::{
    Client, Config, NoTls, Statement,
    config::Host,
    error::{Severity, SqlState},
    types::{ToSql, Type},
};

/// A session whose server says nothing for so long is given up.
const TIMEOUT_ANSWER: Duration = Duration::from_mins(2);
/// So long a server may take to let somebody in.
const TIMEOUT_CONNECT: Duration = Duration::from_secs(5);
/// The same for what begins once and may read every statement.
const TIMEOUT_LONG: Duration = Duration::from_hours(24);
/// A reader's question ends on the server before it is given up here.
const TIMEOUT_QUESTION: Duration = Duration::from_secs(110);
/// What is left of a process that was killed ends meanwhile, and its lock with it.
const TIMEOUT_LOCK: Duration = Duration::from_secs(5);
/// A tunnel that has gone without a word is noticed after so long.
const TIMEOUT_TCP: Duration = Duration::from_secs(30);
/// A session that is given up may say so for so long.
const TIMEOUT_END: Duration = Duration::from_secs(1);
/// Texts of SQL that a session keeps prepared: more than the registry has.
const STATEMENTS_MAX: usize = 128;
/// The lock of whoever writes; each database has its own.
const LOCK: i64 = i64::from_be_bytes(*b"zos-regi");
/// Says that a session is not its owner's alone, or has lost its lock: it is of no more use.
const UNFIT: &str = "ZOS01";

/// Takes the lock, and another that only this session knows. A session that is new has none: one that
/// has was lent before, and there a lock is granted to whoever asks.
fn lock(own: i64) -> String {
    format!(
        "BEGIN;
        SET LOCAL lock_timeout = {timeout};
        SET LOCAL statement_timeout = 0;
        DO $$ BEGIN
            IF EXISTS (
                SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
            ) THEN
                RAISE EXCEPTION USING ERRCODE = '{UNFIT}', MESSAGE = 'this session was lent out before: \
                    nothing that lends sessions may be between the registry and its database';
            END IF;
            PERFORM pg_advisory_lock({LOCK});
            PERFORM pg_advisory_lock({own});
        END $$;
        COMMIT",
        timeout = TIMEOUT_LOCK.as_millis()
    )
}

/// Who writes asks where it matters whether this is the session that it took its own lock in: behind
/// something that lends sessions out, such as a pooler, it need not be. Also whether an answer says
/// that it is on the disk. The question fails where something has failed before: the bare COMMIT of
/// such a transaction is answered with success, and keeps nothing.
fn commit(own: i64) -> String {
    let [high, low] = [own >> 32, own & 0xffff_ffff].map(|half| half & 0xffff_ffff);
    format!(
        "DO $$ BEGIN
            IF current_setting('synchronous_commit') = 'off' OR NOT EXISTS (
                SELECT FROM pg_locks
                WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND classid = '{high}'::oid AND objid = '{low}'::oid AND objsubid = 1
            ) THEN
                RAISE EXCEPTION USING ERRCODE = '{UNFIT}', MESSAGE = 'this session has not the lock of the \
                    registry: nothing that lends sessions may be between the registry and its database';
            END IF;
        END $$;
        COMMIT"
    )
}

pub(super) struct Session {
    client: Client,
    /// By their text, of which the registry has a fixed number.
    statements: RefCell<BTreeMap<String, Statement>>,
    /// How long an answer may take.
    limit: Cell<Duration>,
    /// It has not answered in time: what it does is not known any more.
    silent: Cell<bool>,
    access: Access,
    commit: String,
    /// The thread that moves the bytes ends with it, also where an answer is missing.
    _held: oneshot::Sender<()>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// Where a database is, from a URL or from words such as `host=/run/postgresql dbname=registry`.
/// Refuses what would be sent over a network: nothing there would keep it from others.
pub fn parse(text: &str, password: Option<&str>) -> anyhow::Result<Config> {
    // The text may hold a password, and so may what is said about it.
    let Ok(mut config) = text.parse::<Config>() else {
        anyhow::bail!(
            "the address of the database is not understood: name it such as \
             postgres:///registry?host=/run/postgresql"
        );
    };
    if let (None, Some(password)) = (config.get_password(), password) {
        config.password(password);
    }
    let addresses = config.get_hostaddrs();
    let [host] = config.get_hosts() else {
        anyhow::bail!(
            "the address of the database names {} hosts: name one, such as \
             postgres:///registry?host=/run/postgresql",
            config.get_hosts().len()
        );
    };
    let here = match host {
        Host::Unix(_) => addresses.is_empty(),
        Host::Tcp(name) => match addresses {
            [] => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
            addresses => addresses.iter().all(IpAddr::is_loopback),
        },
    };
    anyhow::ensure!(
        here,
        "the database is on another machine, and registryd speaks to PostgreSQL without TLS: use a \
         Unix socket or the loopback interface, which may be the end of a tunnel"
    );
    let named = *host == Host::Tcp("localhost".into()) && addresses.is_empty();
    if named {
        // Whatever the name leads to.
        config.hostaddr(Ipv4Addr::LOCALHOST.into());
    }
    config.tcp_user_timeout(TIMEOUT_TCP).keepalives_idle(TIMEOUT_TCP);
    config.application_name("registryd");
    Ok(config)
}

impl Connection {
    /// Opens a session with PostgreSQL. Whoever writes is alone, as long as the session lasts: every
    /// write goes through the session that holds the lock.
    pub fn postgres(config: &Config, access: Access) -> Result<Self, SqlError> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| SqlError::Start(io::Error::other(error.to_string())))?;
        let key = i64::from_ne_bytes(seed);
        let session = Session::open(config, access, commit(key))?;
        let own = Self(Inner::Postgres(Box::new(session)));
        if access == Access::Read {
            let limit = TIMEOUT_QUESTION.as_millis();
            own.execute_batch(&format!("SET statement_timeout = {limit}"))?;
            return Ok(own);
        }
        own.execute_batch(&lock(key)).map_err(taken)?;
        let sql = "SELECT current_setting('server_encoding')";
        let encoding: String = own.query_one(sql, &[], |row| row.get(0))?;
        if encoding != "UTF8" {
            return Err(SqlError::Encoding(encoding));
        }
        // A server may be told to answer before it has written, to be faster.
        own.execute(
            "SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') = 'off'",
            &[],
        )?;
        Ok(own)
    }
}

fn taken(error: SqlError) -> SqlError {
    match &error {
        SqlError::Postgres(cause) if cause.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            SqlError::Taken
        }
        _ => error,
    }
}

pub(super) fn begin(access: Access) -> &'static str {
    match access {
        Access::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        Access::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
    }
}

/// The server's own words on one line, or what happened on the way there with its cause.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => crate::chain(error),
    }
}

pub(super) fn cause(error: &tokio_postgres::Error) -> Cause {
    let Some(said) = error.as_db_error() else {
        let broken = error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>);
        return if error.is_closed() || broken { Cause::Lost } else { Cause::Other };
    };
    match said.parsed_severity() {
        // With these words the server ends the session.
        Some(Severity::Fatal | Severity::Panic) => Cause::Lost,
        _ if said.code().code() == UNFIT => Cause::Lost,
        _ if *said.code() == SqlState::DISK_FULL => Cause::Full,
        _ => Cause::Other,
    }
}

/// A schema in the words of SQLite, in those of PostgreSQL.
pub(super) fn schema(sql: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        (") STRICT, WITHOUT ROWID;", ");"),
        (") STRICT;", ");"),
        ("arrival INTEGER PRIMARY KEY", "arrival BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
        ("INTEGER", "BIGINT"),
        ("BLOB", "BYTEA"),
        ("x''", "''"),
    ];
    WORDS.into_iter().fold(sql.to_owned(), |sql, (theirs, ours)| sql.replace(theirs, ours))
}

/// `?1` is `$1`. No text of the registry has a question mark elsewhere.
fn numbered(sql: &str) -> String {
    debug_assert!(
        sql.split('?').skip(1).all(|rest| rest.starts_with(|c: char| c.is_ascii_digit())),
        "{sql}"
    );
    sql.replace('?', "$")
}

struct Parker(Thread);

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on any thread, as for a file: also on one that runs tasks, where a runtime would not start.
fn wait<T>(future: impl Future<Output = T>, limit: Duration) -> Option<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Parker(thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let begun = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

/// Moves the bytes of a session until it ends, or nobody has it any more: a server that is silent
/// would keep it for ever.
async fn carry(
    config: Config,
    sender: mpsc::SyncSender<Result<Client, SqlError>>,
    let_go: oneshot::Receiver<()>,
) {
    let connected = timeout(TIMEOUT_CONNECT, config.connect(NoTls)).await;
    match connected.map_err(|_| SqlError::Silent).and_then(|connected| Ok(connected?)) {
        Ok((client, mut connection)) => {
            if sender.send(Ok(client)).is_ok() {
                // Whoever asks next hears how it ended.
                tokio::select! {
                    _ = &mut connection => {}
                    _ = let_go => drop(timeout(TIMEOUT_END, connection).await),
                }
            }
        }
        Err(error) => drop(sender.send(Err(error))),
    }
}

impl Session {
    fn open(config: &Config, access: Access, commit: String) -> Result<Self, SqlError> {
        let (sender, opened) = mpsc::sync_channel(1);
        let (held, let_go) = oneshot::channel();
        let config = config.clone();
        let moves = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(carry(config, sender, let_go)),
                // The one who waits is there until it hears something.
                Err(error) => drop(sender.send(Err(SqlError::Start(error)))),
            }
        };
        thread::Builder::new().name("postgres".into()).spawn(moves).map_err(SqlError::Start)?;
        let client = opened.recv().map_err(|_| SqlError::Silent)??;
        Ok(Self {
            client,
            statements: RefCell::default(),
            limit: Cell::new(TIMEOUT_ANSWER),
            silent: Cell::new(false),
            access,
            commit,
            _held: held,
        })
    }

    pub(super) fn wait_long(&self, long: bool) {
        self.limit.set(if long { TIMEOUT_LONG } else { TIMEOUT_ANSWER });
    }

    pub(super) fn commit(&self) -> Result<(), SqlError> {
        self.execute_batch(&self.commit)
    }

    fn wait<T>(
        &self,
        future: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SqlError> {
        if self.silent.get() {
            return Err(SqlError::Silent);
        }
        let Some(outcome) = wait(future, self.limit.get()) else {
            self.silent.set(true);
            return Err(SqlError::Silent);
        };
        Ok(outcome?)
    }

    fn prepare(&self, sql: &str, arguments: &[&dyn Argument]) -> Result<Statement, SqlError> {
        if let Some(known) = self.statements.borrow().get(sql) {
            return Ok(known.clone());
        }
        let types: Vec<Type> = arguments
            .iter()
            .map(|argument| match argument.kind() {
                Kind::Integer => Type::INT8,
                Kind::Text => Type::TEXT,
                Kind::Bytes => Type::BYTEA,
            })
            .collect();
        let statement = self.wait(self.client.prepare_typed(&numbered(sql), &types))?;
        let mut statements = self.statements.borrow_mut();
        statements.insert(sql.to_owned(), statement.clone());
        debug_assert!(statements.len() <= STATEMENTS_MAX, "a text that differs each time: {sql}");
        Ok(statement)
    }

    pub(super) fn execute(&self, sql: &str, arguments: &[&dyn Argument]) -> Result<u64, SqlError> {
        let statement = self.prepare(sql, arguments)?;
        let values: Vec<_> = arguments.iter().map(|argument| parameter(*argument)).collect();
        let values: Vec<_> = values.iter().map(AsRef::as_ref).collect();
        self.wait(self.client.execute(&statement, &values))
    }

    pub(super) fn query<T>(
        &self,
        sql: &str,
        arguments: &[&dyn Argument],
        mut read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let statement = self.prepare(sql, arguments)?;
        let values: Vec<_> = arguments.iter().map(|argument| parameter(*argument)).collect();
        let values: Vec<_> = values.iter().map(AsRef::as_ref).collect();
        let rows = self.wait(self.client.query(&statement, &values))?;
        rows.iter().map(|row| read(&Row(InnerRow::Postgres(row)))).collect()
    }

    pub(super) fn execute_batch(&self, sql: &str) -> Result<(), SqlError> {
        self.wait(self.client.batch_execute(sql))
    }

    /// The lock is free when this returns, and not only when the server has noticed the end.
    pub(super) fn close(self) -> Result<(), SqlError> {
        match self.access {
            Access::Write => self.execute_batch("SELECT pg_advisory_unlock_all()"),
            Access::Read => Ok(()),
        }
    }
}

/// A null has its type as well.
fn parameter<'a>(argument: &'a dyn Argument) -> Box<dyn ToSql + Sync + 'a> {
    match (argument.value(), argument.kind()) {
        (Some(Value::Integer(number)), _) => Box::new(number),
        (Some(Value::Text(text)), _) => Box::new(text),
        (Some(Value::Bytes(bytes)), _) => Box::new(bytes),
        (None, Kind::Integer) => Box::new(None::<i64>),
        (None, Kind::Text) => Box::new(None::<&str>),
        (None, Kind::Bytes) => Box::new(None::<&[u8]>),
    }
}

pub(super) fn value(
    row: &tokio_postgres::Row,
    column: usize,
) -> Result<Option<Value<'_>>, SqlError> {
    let kind = row.columns().get(column).map(|column| column.type_().clone());
    Ok(match kind {
        Some(Type::INT8) => row.try_get::<_, Option<i64>>(column)?.map(Value::Integer),
        // What LENGTH gives.
        Some(Type::INT4) => {
            row.try_get::<_, Option<i32>>(column)?.map(|number| Value::Integer(number.into()))
        }
        Some(Type::TEXT) => row.try_get::<_, Option<&str>>(column)?.map(Value::Text),
        Some(Type::BYTEA) => row.try_get::<_, Option<&[u8]>>(column)?.map(Value::Bytes),
        Some(_) | None => return Err(SqlError::Column(column)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_of_sqlite_becomes_one_of_postgresql() {
        let theirs =
            "CREATE TABLE a (arrival INTEGER PRIMARY KEY, id BLOB NOT NULL, n INTEGER) STRICT;
            CREATE TABLE b (id BLOB DEFAULT x'' PRIMARY KEY) STRICT, WITHOUT ROWID;";
        let ours = "CREATE TABLE a (arrival BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
            id BYTEA NOT NULL, n BIGINT);
            CREATE TABLE b (id BYTEA DEFAULT '' PRIMARY KEY);";
        assert_eq!(schema(theirs), ours);
    }

    #[test]
    fn a_database_on_another_machine_is_refused_and_no_password_told() {
        for here in [
            "postgres:///registry?host=/run/postgresql",
            "host=/run/postgresql dbname=registry",
            "postgres://me:secret@localhost/registry",
            "postgres://127.0.0.1:5433/registry",
            "postgres://[::1]/registry",
            "host=elsewhere.example hostaddr=127.0.0.1",
        ] {
            assert!(parse(here, None).is_ok(), "{here}");
        }
        for (elsewhere, reason) in [
            ("postgres://me:secret@db.example/registry", "another machine"),
            ("postgres://me:secret@192.0.2.1/registry", "another machine"),
            ("host=localhost hostaddr=192.0.2.1 password=secret", "another machine"),
            ("host=localhost,localhost password=secret", "2 hosts"),
            ("dbname=registry password=secret", "0 hosts"),
            ("secret", "not understood"),
            ("postgres://localhost/registry?secret=1", "not understood"),
        ] {
            let said = format!("{:#}", parse(elsewhere, None).unwrap_err());
            assert!(said.contains(reason) && !said.contains("secret"), "{elsewhere}: {said}");
        }
        let password =
            |text| parse(text, Some("other")).unwrap().get_password().map(<[u8]>::to_vec);
        assert_eq!(password("host=localhost").unwrap(), b"other");
        assert_eq!(password("host=localhost password=own").unwrap(), b"own");
    }

    #[test]
    fn a_wait_ends_with_its_answer_or_with_its_time() {
        assert_eq!(wait(async { 7 }, Duration::ZERO), Some(7));
        assert_eq!(wait(std::future::pending::<()>(), Duration::from_millis(1)), None);
        let (sender, receiver) = oneshot::channel();
        let other = thread::spawn(move || sender.send(7));
        assert_eq!(wait(receiver, Duration::from_secs(60)), Some(Ok(7)));
        other.join().unwrap().unwrap();
    }
}
