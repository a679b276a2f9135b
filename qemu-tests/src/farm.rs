//! A registry and people with keys, as real programs: `registryd` and `3bot`.

use crate::{machine::free_port, wait};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A program of the project, built beside this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("finding the own program")?;
    let mut places = own.ancestors().skip(1).take(3).map(|directory| directory.join(name));
    places.find(|path| path.is_file()).with_context(|| {
        format!(
            "{name} is not built: `cargo build -p registryd -p witnessd -p threebot -p qemu-tests`"
        )
    })
}

/// A running registry. Ended when dropped; its data stays in its directory.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// Its port on the loopback address.
    pub port: u16,
    data: PathBuf,
}

impl Registry {
    /// Starts a registry on `data`, on a port of its own or on the one that it had before.
    pub fn start(data: &Path, port: Option<u16>) -> Result<Self> {
        let port = port.map_or_else(free_port, Ok)?;
        let mut child = Command::new(program("registryd")?)
            .args(["--network", "test", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(data.with_extension("log"))?)
            .spawn()
            .context("starting registryd")?;
        let output = child.stdout.take().context("registryd has no output")?;
        let listening = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("listening on"));
        if !listening {
            drop(child.kill());
            bail!("registryd has ended; see {}", data.with_extension("log").display());
        }
        Ok(Self { child, port, data: data.to_owned() })
    }

    /// Begins the log of a registry that is stopped; gives its public key.
    pub fn begin_log(data: &Path, origin: &str) -> Result<String> {
        let begun = Command::new(program("registryd")?)
            .args(["begin-log", "--origin", origin, "--data"])
            .arg(data)
            .output()
            .context("running registryd")?;
        let said = String::from_utf8_lossy(&begun.stderr);
        ensure!(begun.status.success(), "registryd begin-log: {said}");
        Ok(String::from_utf8(begun.stdout)?.trim().to_owned())
    }

    /// Its address for people on this machine.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it, as a crash would.
    pub fn stop(mut self) -> (PathBuf, u16) {
        self.end();
        (self.data.clone(), self.port)
    }

    /// Where it keeps flists and packs.
    pub fn content(&self) -> PathBuf {
        self.data.join("content")
    }

    fn end(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

/// Somebody's `3bot`: keys in a directory, and a registry.
#[derive(Debug, Clone)]
pub struct Bot {
    home: PathBuf,
    registry: String,
    /// Whether each command is shown before it is run.
    pub show: bool,
}

/// What a command of `3bot` gave.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Bot {
    /// Keys are kept below `home`.
    pub fn new(home: &Path, registry: &str) -> Self {
        Self { home: home.to_owned(), registry: registry.to_owned(), show: false }
    }

    /// Runs a command, whatever its exit code.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Said> {
        let words: Vec<_> =
            arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
        if self.show {
            let shown = words.iter().filter(|word| *word != "--json").map(|word| shell(word));
            let line = shown.collect::<Vec<_>>().join(" ");
            // Nobody watches any more: then there is nothing to show.
            drop(writeln!(std::io::stderr(), "         $ 3bot {line}"));
        }
        let output = Command::new(program("3bot")?)
            .args(arguments)
            .env("ZOS_HOME", &self.home)
            .env("ZOS_REGISTRY", &self.registry)
            .env("ZOS_NETWORK", "test")
            .stdin(Stdio::null())
            .output()
            .context("running 3bot")?;
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The same people, and nobody watches: for questions that are asked again and again.
    pub fn quiet(&self) -> Self {
        Self { show: false, ..self.clone() }
    }

    /// Runs a command that has to end with 0, and reads its `--json` answer.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let said = self.run(&arguments)?;
        if said.code != 0 {
            bail!(
                "3bot {} ended with {}: {}{}",
                arguments.join(" "),
                said.code,
                said.err,
                said.out
            );
        }
        serde_json::from_str(&said.out).with_context(|| {
            format!("reading the answer of 3bot {}: {}", arguments.join(" "), said.out)
        })
    }
}

/// A word as one would type it into a shell.
fn shell(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

/// A text at a path of JSON objects.
pub fn text(value: &Value, path: &str) -> Result<String> {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("no {path} in {value}"))
}

/// The body of a page, when it answers with 200.
pub fn page(url: &str) -> Result<Option<String>> {
    let rest = url.strip_prefix("http://").context("only http is spoken here")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Ok(mut stream) = std::net::TcpStream::connect(host) else { return Ok(None) };
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return Ok(None);
    }
    let mut answer = Vec::new();
    if stream.take(1 << 20).read_to_end(&mut answer).is_err() {
        return Ok(None);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Ok(None) };
    let good = head.lines().next().is_some_and(|line| line.contains(" 200 "));
    Ok(good.then(|| body.to_owned()))
}

/// Waits until a page answers.
pub fn wait_page(url: &str, limit: Duration) -> Result<String> {
    wait::until(&format!("the page {url}"), limit, || page(url))
}
