//! A private cluster of PostgreSQL, as durable as it comes: on a Unix socket in a directory of its own,
//! for as long as the value lives. Nothing that Debian runs is used.

use anyhow::{Context as _, Result, ensure};
use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, chown},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};
use tempfile::TempDir;

/// Who it runs as when we are root, which PostgreSQL refuses. Debian has it always.
const NOBODY: u32 = 65534;
/// It ends with its standard input, and so with us, whatever ends us: Ctrl-C is for us.
const START: &str = r#"trap '' INT; home=$1; shift
    "$@" </dev/null & cat; kill -INT $!; wait $!; rm -rf "$home""#;

pub(super) struct Cluster {
    server: Child,
    home: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        // It has been told, and nobody is left to hear how it went.
        drop(self.server.wait());
    }
}

/// The newest that is installed; Debian has none of them in PATH.
fn programs() -> Result<PathBuf> {
    let version = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = found.map(|entry| entry.path()).filter(|path| version(path).is_some());
    let newest = found.max_by_key(version);
    let newest = newest.context("PostgreSQL is missing: `apt-get install postgresql`")?;
    Ok(newest.join("bin"))
}

impl Cluster {
    /// Returns when it serves.
    pub(super) fn start() -> Result<Self> {
        let home = crate::scratch()?;
        let mut user: Vec<OsString> = Vec::new();
        if fs::metadata("/proc/self")?.uid() == 0 {
            chown(home.path(), Some(NOBODY), Some(NOBODY))?;
            user = ["setpriv", "--clear-groups"].map(OsString::from).to_vec();
            user.extend(["reuid", "regid"].map(|what| format!("--{what}={NOBODY}").into()));
        }
        let (programs, data) = (programs()?, home.path().join("data"));
        let words = |name: &str| {
            let program = [programs.join(name).into(), "-D".into(), data.clone().into()];
            user.iter().cloned().chain(program).collect::<Vec<OsString>>()
        };
        let init = words("initdb");
        let mut made = Command::new(&init[0]);
        made.args(&init[1..]).current_dir(home.path());
        made.args(["--username=registry", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        let made = made.output().context("starting initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = Command::new("sh");
        server.args(["-c", START, "sh"]).arg(home.path());
        server.args(words("postgres")).arg("-k").arg(home.path());
        server.args(["-c", "listen_addresses="]).current_dir(home.path());
        server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = server.spawn().context("starting PostgreSQL")?;
        let said = server.stderr.take().context("PostgreSQL has no standard error")?;
        let mut said = BufReader::new(said).lines();
        let cluster = Self { server, home };
        let is_ready = |line: String| line.contains("is ready to accept");
        let ready = said.any(|line| line.is_ok_and(is_ready));
        ensure!(ready, "PostgreSQL does not start");
        // So that it never waits for a reader.
        thread::spawn(move || said.for_each(drop));
        Ok(cluster)
    }

    /// Its first database, as registryd takes it.
    pub(super) fn url(&self) -> String {
        format!("postgres:///postgres?host={}&user=registry", self.home.path().display())
    }
}
