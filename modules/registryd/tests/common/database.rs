//! The database of each test: SQLite, or one of its own in a private cluster of PostgreSQL when
//! `ZOS_TEST_DATABASE=postgres` asks for it. The same tests run over both.
//!
//! The cluster listens on a Unix socket in a directory of its own, and ends with the tests that
//! started it. Nothing that Debian runs is used or touched.

use contract::id::sha256;
use registryd::{
    db::{self, Database},
    sql::{Access, Connection, postgres},
};
use std::{
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
};

/// Who a cluster runs as when the tests run as root, which PostgreSQL refuses. Debian has it always.
const NOBODY: u32 = 65534;
/// Its standard input is open as long as the tests run, whatever ends them.
const START: &str =
    r#"trap '' INT; home=$1; shift; "$@" </dev/null & cat; kill -INT $!; wait $!; rm -rf "$home""#;
/// The database that every cluster has.
const FIRST: &str = "postgres";

/// Whether the tests run over PostgreSQL.
pub(crate) fn in_postgres() -> bool {
    match env::var("ZOS_TEST_DATABASE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(env::VarError::NotPresent) => false,
        other => panic!("ZOS_TEST_DATABASE is sqlite or postgres, and not {other:?}"),
    }
}

/// The newest that is installed; Debian has none of them in PATH.
fn programs() -> PathBuf {
    let version = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let found = found.map(|entry| entry.unwrap().path()).filter(|path| version(path).is_some());
    let newest = found.max_by_key(version).expect(
        "PostgreSQL is missing: `apt-get install postgresql`, or let `cargo xtask test --host` do it",
    );
    newest.join("bin")
}

/// Where the cluster's socket is.
fn cluster() -> &'static Path {
    static CLUSTER: OnceLock<PathBuf> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let home = tempfile::tempdir().unwrap().keep();
        let mut words: Vec<OsString> = Vec::new();
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
            words = ["setpriv", "--clear-groups"].map(OsString::from).to_vec();
            words.extend(["reuid", "regid"].map(|what| format!("--{what}={NOBODY}").into()));
        }
        let data = home.join("data");
        let program = |name: &str| {
            let mut all = words.clone();
            all.extend([programs().join(name).into(), "-D".into(), data.clone().into()]);
            all
        };
        let init = program("initdb");
        let mut made = Command::new(&init[0]);
        made.args(&init[1..]).current_dir(&home);
        made.args(["--username=registry", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        let made = made.arg("--no-sync").output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut server = Command::new("sh");
        server.args(["-c", START, "sh"]).arg(&home).args(program("postgres")).arg("-k").arg(&home);
        // Nothing cuts its power.
        for setting in ["listen_addresses=", "fsync=off", "max_connections=500"] {
            server.args(["-c", setting]);
        }
        server.current_dir(&home).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut server = server.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stderr.take().unwrap()).lines();
        let ready = said.find(|line| line.as_ref().unwrap().contains("is ready to accept"));
        assert!(ready.is_some(), "PostgreSQL does not start");
        thread::spawn(move || {
            // So that it never waits for a reader; and its input is held until this process ends.
            said.for_each(drop);
            drop(server);
        });
        home
    })
}

fn address(name: &str) -> String {
    format!("postgres:///{name}?host={}&user=registry", cluster().display())
}

fn name(data: &Path) -> String {
    format!("zos_{}", hex::encode(&sha256(data.as_os_str().as_encoded_bytes())[..12]))
}

/// A session that does not write as a registry does, and so takes nothing from one.
fn beside(name: &str) -> Connection {
    let config = postgres::parse(&address(name), None).unwrap();
    Connection::postgres(&config, Access::Read).unwrap()
}

/// Something about databases as a whole.
pub(crate) fn administer(sql: &str) {
    beside(FIRST).execute_batch(sql).unwrap();
}

/// Where the statements of the registry of a data directory are, for the program.
pub(crate) fn url(data: &Path) -> Option<String> {
    static MADE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !in_postgres() {
        return None;
    }
    let name = name(data);
    if MADE.lock().unwrap().insert(name.clone()) {
        administer(&format!("CREATE DATABASE {name}"));
    }
    Some(address(&name))
}

/// The same for the library.
pub(crate) fn of(data: &Path) -> Database {
    match url(data) {
        None => Database::Sqlite,
        Some(url) => Database::Postgres(Box::new(postgres::parse(&url, None).unwrap())),
    }
}

/// As a registry opens it that is to write.
pub(crate) fn open(data: &Path) -> Connection {
    of(data).open(data).unwrap()
}

/// As somebody opens it who changes it under a registry.
pub(crate) fn tamper(data: &Path) -> Connection {
    match url(data) {
        None => Connection::sqlite(&db::path(data), Access::Write).unwrap(),
        Some(_) => beside(&name(data)),
    }
}

/// A program that finds the database of this data directory.
pub(crate) fn program(path: impl AsRef<OsStr>, data: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_remove("ZOS_DATABASE").env_remove("PGPASSWORD");
    command.envs(url(data).map(|url| ("ZOS_DATABASE", url)));
    command
}

/// The database as it is now, for [`Backup::restore`]. No registry uses it meanwhile.
pub(crate) struct Backup {
    data: PathBuf,
    file: Vec<u8>,
}

impl Backup {
    pub(crate) fn of(data: &Path) -> Self {
        // Whoever wrote last leaves one file behind when it ends, which takes a moment.
        open(data).close().unwrap();
        let file = if in_postgres() {
            let name = name(data);
            administer(&format!("CREATE DATABASE {name}_backup TEMPLATE {name}"));
            Vec::new()
        } else {
            fs::read(db::path(data)).unwrap()
        };
        Self { data: data.into(), file }
    }

    pub(crate) fn restore(self) {
        if in_postgres() {
            let name = name(&self.data);
            administer(&format!("DROP DATABASE {name} WITH (FORCE)"));
            administer(&format!("ALTER DATABASE {name}_backup RENAME TO {name}"));
            return;
        }
        open(&self.data).close().unwrap();
        let path = db::path(&self.data);
        for name in ["-wal", "-shm"] {
            drop(fs::remove_file(format!("{}{name}", path.display())));
        }
        fs::write(path, self.file).unwrap();
    }
}
