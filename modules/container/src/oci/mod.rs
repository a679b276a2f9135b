//! The command line of the OCI runtime specification, for engines and for the suites of others.
//!
//! ```text
//! config.json ─ config ─► plan (pure) ─► launch::create ─► record ─► start, kill, delete …
//! ```
//!
//! The launcher's own code makes the process; what a configuration asks for decides about its walls
//! here, where the node's containers have the node's. Refuses what it cannot do and what would open
//! the node, instead of leaving it out.

mod arguments;
mod bpf;
pub mod config;
pub(crate) mod devices;
mod exec;
pub(crate) mod group;
pub(crate) mod hooks;
mod life;
pub(crate) mod mounts;
mod own;
pub mod plan;
mod record;
mod resources;
mod seccomp;
pub(crate) mod terminal;
mod texts;
mod time;

use crate::{check::Invalid, launch::Failure, reason::Reason};
use arguments::{Arguments, Command, Format};
use config::ConfigError;
use life::{Force, Then};
use rustix::{fs::Mode, process::DumpableBehavior};
use serde_json::{Value, json};
use std::{
    error::Error,
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

/// What went wrong, as a sentence.
#[derive(Debug, thiserror::Error)]
enum OciError {
    #[error("{0}; see container --help")]
    Usage(String),
    #[error("opening {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("container with id {0} exists already")]
    Exists(String),
    #[error("container {0} does not exist")]
    Missing(String),
    #[error("container {0} is being created, or its creator was killed")]
    Creating(String),
    #[error("another command is at work on container {0}")]
    Busy(String),
    #[error("container {0} is not running: container not running")]
    NotRunning(String),
    #[error("container {id} is {status} and cannot be {what}")]
    State { id: String, what: &'static str, status: &'static str },
    #[error("keeping the record of container {id}")]
    Record {
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("sending a signal to container {id}")]
    Signal {
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}: this runtime sets no labels of SELinux")]
    Label(&'static str),
    #[error("cgroup {} exists already: another container may be in it", .0.display())]
    Group(PathBuf),
    #[error("there is no cgroup v2 at /sys/fs/cgroup or /sys/fs/cgroup/unified")]
    NoCgroup,
    #[error("executable file not found in $PATH or not executable")]
    NoProgram(#[source] Failure),
    #[error("executing a sealed copy of this program")]
    Own(#[source] io::Error),
    #[error("making the container")]
    Launch(#[source] Failure),
    #[error(transparent)]
    Hook(Failure),
    #[error("entering container {id}")]
    Enter {
        id: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("waiting for the container")]
    Wait(#[source] io::Error),
    #[error("writing the answer")]
    Answer(#[source] io::Error),
}

impl OciError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

impl From<Failure> for OciError {
    fn from(failure: Failure) -> Self {
        match failure.reason {
            Reason::EntrypointMissing => Self::NoProgram(failure),
            _ => Self::Launch(failure),
        }
    }
}

/// Runs the program with these arguments, its own name first.
pub fn command_line(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match arguments::parse(words.into_iter().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            tell(&error);
            return ExitCode::FAILURE;
        }
    };
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            tell(&error);
            if let Some(path) = &arguments.log {
                // Whoever asked for the log misses it; the error itself was told.
                log(path, arguments.log_format, "error", &daemon::chain(&error)).ok();
            }
            ExitCode::FAILURE
        }
    }
}

fn tell(error: &dyn Error) {
    // There is nobody else to tell.
    writeln!(io::stderr(), "container: {}", daemon::chain(error)).ok();
}

/// One line for each message, as engines read it.
fn log(path: &Path, format: Format, level: &str, message: &str) -> io::Result<()> {
    let time = time::rfc3339(SystemTime::now());
    let line = match format {
        Format::Json => format!("{}\n", json!({ "level": level, "msg": message, "time": time })),
        Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    };
    OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
}

fn run(arguments: &Arguments) -> Result<ExitCode, OciError> {
    let root = arguments.root.as_path();
    // Stderr is the container's.
    let warn = |message: &str| match &arguments.log {
        Some(path) => log(path, arguments.log_format, "warning", message)
            .map_err(|source| OciError::file(path, source)),
        None => Ok(()),
    };
    match &arguments.command {
        Command::Help => answer(texts::HELP)?,
        Command::Version => answer(texts::VERSION)?,
        Command::Features => answer(texts::FEATURES)?,
        Command::Spec { bundle } => spec(bundle.as_deref().unwrap_or(Path::new(".")))?,
        Command::Create { id, wanted } => {
            become_launcher()?;
            life::create(root, id, wanted, Then::Wait, &warn)?;
        }
        Command::Run { id, wanted, detach } => {
            become_launcher()?;
            if *detach {
                life::create(root, id, wanted, Then::Execute, &warn)?;
            } else {
                // Before there is a child whose signals could be missed.
                let signals = life::block_signals().map_err(OciError::Wait)?;
                let process = life::create(root, id, wanted, Then::Execute, &warn)?;
                let code = life::wait(&process, &signals).map_err(OciError::Wait)?;
                match life::delete(root, id, Force::No, &warn) {
                    // Somebody else was faster.
                    Ok(()) | Err(OciError::Missing(_)) => {}
                    Err(error) => return Err(error),
                }
                return Ok(ExitCode::from(code));
            }
        }
        Command::Exec { id, wanted } => {
            become_launcher()?;
            if wanted.detach {
                exec::exec(root, id, wanted, &warn)?;
            } else {
                let signals = life::block_signals().map_err(OciError::Wait)?;
                let process = exec::exec(root, id, wanted, &warn)?;
                let code = life::wait(&process, &signals).map_err(OciError::Wait)?;
                return Ok(ExitCode::from(code));
            }
        }
        Command::Start { id } => {
            // Hooks are copies of us until they execute.
            become_launcher()?;
            life::start(root, id, &warn)?;
        }
        Command::State { id } => state(root, id)?,
        Command::Kill { id, signal, whom } => life::kill(root, id, *signal, *whom)?,
        Command::Delete { id, force } => life::delete(root, id, *force, &warn)?,
        Command::List { format, only_ids } => list(root, *format, *only_ids)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A child is a copy of us until it executes; nobody may look into it, and the program that it leads
/// to is not the one on the disk. What is made for the container has the modes that it is made with.
fn become_launcher() -> Result<(), OciError> {
    own::execute_copy().map_err(OciError::Own)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| OciError::Wait(errno.into()))
}

fn answer(text: &str) -> Result<(), OciError> {
    io::stdout().write_all(text.as_bytes()).map_err(OciError::Answer)
}

fn answer_json(value: &Value) -> Result<(), OciError> {
    answer(&format!("{value:#}\n"))
}

fn spec(bundle: &Path) -> Result<(), OciError> {
    let path = bundle.join("config.json");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(texts::SPEC.as_bytes()))
        .map_err(|source| OciError::file(&path, source))
}

fn state(root: &Path, id: &str) -> Result<(), OciError> {
    let (place, record) = life::find(root, id)?;
    let status = life::status(&place, &record)?;
    let stopped = matches!(status, record::Status::Stopped);
    answer_json(&json!({
        "ociVersion": texts::OCI_VERSION,
        "id": record.id,
        "status": status.name(),
        "pid": if stopped { 0 } else { record.pid },
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": record.annotations,
    }))
}

/// Those that disappear meanwhile, or are not there yet, are left out.
fn list(root: &Path, format: Format, only_ids: bool) -> Result<(), OciError> {
    let mut all = Vec::new();
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        done => Some(done.map_err(|source| OciError::file(root, source))?),
    };
    for entry in entries.into_iter().flatten().take(record::LISTED_MAX) {
        let entry = entry.map_err(|source| OciError::file(root, source))?;
        let Some(id) = entry.file_name().to_str().map(str::to_owned) else { continue };
        match life::find(root, &id) {
            Ok((place, record)) => {
                let name = life::status(&place, &record)?.name();
                all.push((record, name));
            }
            Err(OciError::Missing(_) | OciError::Creating(_) | OciError::Invalid(_)) => {}
            Err(error) => return Err(error),
        }
    }
    all.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    if only_ids {
        return answer(&all.iter().map(|(one, _)| format!("{}\n", one.id)).collect::<String>());
    }
    let pid = |status: &str, pid: i32| if status == "stopped" { 0 } else { pid };
    match format {
        Format::Json => {
            let all = all.into_iter().map(|(one, status)| {
                json!({
                    "ociVersion": texts::OCI_VERSION,
                    "id": one.id,
                    "pid": pid(status, one.pid),
                    "status": status,
                    "bundle": one.bundle,
                    "rootfs": one.rootfs,
                    "created": one.created,
                    "annotations": one.annotations,
                    "owner": "root",
                })
            });
            answer_json(&Value::Array(all.collect()))
        }
        Format::Text => {
            let mut text = format!("{:<24} {:<8} {:<8} BUNDLE\n", "ID", "PID", "STATUS");
            for (one, status) in all {
                let (pid, bundle) = (pid(status, one.pid), one.bundle.display());
                text.push_str(&format!("{:<24} {pid:<8} {status:<8} {bundle}\n", one.id));
            }
            answer(&text)
        }
    }
}
