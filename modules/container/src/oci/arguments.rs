//! The words on the command line. Options stand before or after the command, as callers of other
//! runtimes write them; what we do not know is refused.

use super::{
    OciError,
    exec::{self, Tty, Words},
    life::{Force, Wanted, Whom},
    plan::Reach,
};
use rustix::process::Signal;
use std::{ffi::OsString, path::PathBuf, str::FromStr as _};

/// Words that are read. More than programs get.
const WORDS_MAX: usize = 4096;
/// Where records are unless `--root` says otherwise.
const ROOT: &str = "/run/zos/oci";

/// Everything that was said.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) root: PathBuf,
    pub(super) log: Option<PathBuf>,
    pub(super) log_format: Format,
    pub(super) command: Command,
}

/// How lists and logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Command {
    Help,
    Version,
    Features,
    Spec { bundle: Option<PathBuf> },
    Create { id: String, wanted: Wanted },
    Run { id: String, wanted: Wanted, detach: bool },
    Start { id: String },
    State { id: String },
    Kill { id: String, signal: Signal, whom: Whom },
    Delete { id: String, force: Force },
    Exec { id: String, wanted: exec::Wanted },
    List { format: Format, only_ids: bool },
}

/// Options as they are found; which of them belong together is decided at the end.
#[derive(Debug, Default)]
struct Options {
    root: Option<PathBuf>,
    log: Option<PathBuf>,
    log_format: Option<String>,
    bundle: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    format: Option<String>,
    process: Option<PathBuf>,
    env: Vec<String>,
    cwd: Option<String>,
    user: Option<String>,
    groups: Vec<String>,
    capabilities: Vec<String>,
    no_new_privileges: bool,
    tty: Tty,
    console_socket: Option<PathBuf>,
    /// One that means something to `exec` alone.
    of_exec: Option<String>,
    detach: bool,
    all: bool,
    force: bool,
    quiet: bool,
    privileged: bool,
    help: bool,
    version: bool,
}

fn usage<T>(why: impl Into<String>) -> Result<T, OciError> {
    Err(OciError::Usage(why.into()))
}

/// Understands the words after the program's name.
pub(super) fn parse(words: impl Iterator<Item = OsString>) -> Result<Arguments, OciError> {
    let mut words = words.zip(0..).map(|(word, number)| match word.into_string() {
        _ if number == WORDS_MAX => usage(format!("at most {WORDS_MAX} words")),
        Ok(word) => Ok(word),
        Err(word) => usage(format!("{} is not UTF-8", word.display())),
    });
    let mut options = Options::default();
    let mut places = Vec::new();
    while let Some(word) = words.next().transpose()? {
        // What follows the container belongs to the program.
        let is_programs = places.len() > 1 && places.first().is_some_and(|name| name == "exec");
        if is_programs || !word.starts_with('-') || word.len() == 1 {
            places.push(word);
            continue;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => {
                (name.to_owned(), Some(value.to_owned()))
            }
            _ => (word, None),
        };
        if options.set_flag(&name) {
            if let Some(value) = value.filter(|value| value != "true") {
                return usage(format!("{name} takes no value {value:?}"));
            }
            continue;
        }
        if !Options::has(&name) {
            return usage(format!("there is no option {name}"));
        }
        let value = match value {
            Some(value) => value,
            None => match words.next().transpose()? {
                Some(value) => value,
                None => return usage(format!("{name} needs a value")),
            },
        };
        options.set(&name, value)?;
    }
    options.finish(&places)
}

impl Options {
    /// Options without a value.
    fn set_flag(&mut self, name: &str) -> bool {
        match name {
            "-d" | "--detach" => self.detach = true,
            "-a" | "--all" => self.all = true,
            "-f" | "--force" => self.force = true,
            "-q" | "--quiet" => self.quiet = true,
            "-t" | "--tty" => self.tty = Tty::Yes,
            "--no-new-privs" => self.no_new_privileges = true,
            "--privileged" => self.privileged = true,
            "-h" | "--help" => self.help = true,
            "-v" | "--version" => self.version = true,
            // There is no more to tell, and no keyring is made.
            "--debug" | "--no-new-keyring" => {}
            _ => return false,
        }
        self.note(name);
        true
    }

    fn has(name: &str) -> bool {
        [
            "--root",
            "--log",
            "--log-format",
            "-b",
            "--bundle",
            "--pid-file",
            "--format",
            "--console-socket",
            "--preserve-fds",
        ]
        .contains(&name)
            || Self::is_of_exec(name)
    }

    fn is_of_exec(name: &str) -> bool {
        [
            "-p",
            "--process",
            "-e",
            "--env",
            "--cwd",
            "-u",
            "--user",
            "-g",
            "--additional-gids",
            "-c",
            "--cap",
        ]
        .contains(&name)
    }

    fn note(&mut self, name: &str) {
        if Self::is_of_exec(name) || ["-t", "--tty", "--no-new-privs"].contains(&name) {
            self.of_exec = Some(name.to_owned());
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), OciError> {
        self.note(name);
        match name {
            "-p" | "--process" => self.process = Some(value.into()),
            "-e" | "--env" => self.env.push(value),
            "--cwd" => self.cwd = Some(value),
            "-u" | "--user" => self.user = Some(value),
            "-g" | "--additional-gids" => self.groups.push(value),
            "-c" | "--cap" => self.capabilities.push(value),
            "--console-socket" => self.console_socket = Some(value.into()),
            "--root" => self.root = Some(value.into()),
            "--log" => self.log = Some(value.into()),
            "--log-format" => self.log_format = Some(value),
            "-b" | "--bundle" => self.bundle = Some(value.into()),
            "--pid-file" => self.pid_file = Some(value.into()),
            "--format" => self.format = Some(value),
            _ if value == "0" => {}
            _ => return usage("--preserve-fds: no descriptor but the first three is passed on"),
        }
        Ok(())
    }

    fn finish(self, places: &[String]) -> Result<Arguments, OciError> {
        let log_format = format(self.log_format.as_deref().unwrap_or("text"))?;
        let root = self.root.clone().unwrap_or_else(|| PathBuf::from(ROOT));
        let log = self.log.clone();
        let command = self.command(places)?;
        Ok(Arguments { root, log, log_format, command })
    }

    fn command(self, places: &[String]) -> Result<Command, OciError> {
        if self.help {
            return Ok(Command::Help);
        }
        if self.version {
            return Ok(Command::Version);
        }
        if let (Some(option), false) =
            (&self.of_exec, places.first().is_some_and(|name| name == "exec"))
        {
            return usage(format!("{option} is an option of exec"));
        }
        let reach = if self.privileged { Reach::Machine } else { Reach::Container };
        let wanted = Wanted {
            bundle: self.bundle.clone(),
            pid_file: self.pid_file,
            console_socket: self.console_socket,
            reach,
        };
        let is_with_process = ["create", "run", "exec"];
        if wanted.console_socket.is_some()
            && !places.first().is_some_and(|name| is_with_process.contains(&name.as_str()))
        {
            return usage("--console-socket: no terminal is made here");
        }
        let words: Vec<&str> = places.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["help"] => Ok(Command::Help),
            ["features"] => Ok(Command::Features),
            ["spec"] => Ok(Command::Spec { bundle: self.bundle }),
            ["create", id] => Ok(Command::Create { id: (*id).to_owned(), wanted }),
            ["run", id] => Ok(Command::Run { id: (*id).to_owned(), wanted, detach: self.detach }),
            ["start", id] => Ok(Command::Start { id: (*id).to_owned() }),
            ["state", id] => Ok(Command::State { id: (*id).to_owned() }),
            ["kill", id, rest @ ..] if rest.len() <= 1 => Ok(Command::Kill {
                id: (*id).to_owned(),
                signal: signal(rest.first().unwrap_or(&"TERM"))?,
                whom: if self.all { Whom::All } else { Whom::First },
            }),
            ["delete", id] => Ok(Command::Delete {
                id: (*id).to_owned(),
                force: if self.force { Force::Yes } else { Force::No },
            }),
            ["exec", id, args @ ..] => {
                let words = Words {
                    args: args.iter().map(|&arg| arg.to_owned()).collect(),
                    env: self.env,
                    cwd: self.cwd,
                    user: self.user.as_deref().map(user).transpose()?,
                    groups: self
                        .groups
                        .iter()
                        .map(|group| number(group))
                        .collect::<Result<_, _>>()?,
                    capabilities: self.capabilities,
                    no_new_privileges: self.no_new_privileges,
                };
                if self.process.is_some() && words != Words::default() {
                    return usage("exec: either --process, or a program and what it gets");
                }
                let process = self.process;
                let Wanted { pid_file, console_socket, reach, .. } = wanted;
                let (id, tty, detach) = ((*id).to_owned(), self.tty, self.detach);
                let wanted =
                    exec::Wanted { process, words, tty, console_socket, pid_file, detach, reach };
                Ok(Command::Exec { id, wanted })
            }
            ["list"] => {
                let format = match self.format.as_deref() {
                    None | Some("table") => Format::Text,
                    Some(other) => format(other)?,
                };
                Ok(Command::List { format, only_ids: self.quiet })
            }
            [] => usage("no command was given"),
            [name, ..] => usage(format!("there is no such use of {name:?}")),
        }
    }
}

fn format(name: &str) -> Result<Format, OciError> {
    match name {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => usage(format!("there is no format {name:?}")),
    }
}

/// `UID` or `UID:GID`; names are for those who have read the files of the image.
fn user(text: &str) -> Result<(u32, Option<u32>), OciError> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

fn number(text: &str) -> Result<u32, OciError> {
    text.parse().or_else(|_| usage(format!("{text:?} is not the number of a user or group")))
}

/// `9`, `KILL` or `SIGKILL`, in any case.
fn signal(name: &str) -> Result<Signal, OciError> {
    let number = name.parse::<i32>().ok().or_else(|| {
        let upper = name.to_ascii_uppercase();
        let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        nix::sys::signal::Signal::from_str(&full).ok().map(|signal| signal as i32)
    });
    match number.and_then(Signal::from_named_raw) {
        Some(signal) => Ok(signal),
        None => usage(format!("there is no signal {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, OciError> {
        parse(line.split_ascii_whitespace().map(OsString::from))
    }

    #[test]
    fn callers_of_other_runtimes_are_understood() {
        let line = "--root /run/r --log /l --log-format json create --bundle /b --pid-file=/p --no-new-keyring c1";
        let all = read(line).unwrap();
        assert_eq!((all.root, all.log), (PathBuf::from("/run/r"), Some(PathBuf::from("/l"))));
        assert_eq!(all.log_format, Format::Json);
        let Command::Create { id, wanted } = all.command else { panic!() };
        assert_eq!((id.as_str(), wanted.bundle), ("c1", Some(PathBuf::from("/b"))));
        assert_eq!(wanted.pid_file, Some(PathBuf::from("/p")));
        assert_eq!(wanted.reach, Reach::Container);
        let Command::Run { wanted, .. } = read("--privileged run c").unwrap().command else {
            panic!()
        };
        assert_eq!(wanted.reach, Reach::Machine);
        let Command::Run { detach, .. } = read("run -d -b /b c").unwrap().command else { panic!() };
        assert!(detach);
        let Command::Delete { force, .. } = read("delete --force c").unwrap().command else {
            panic!()
        };
        assert_eq!(force, Force::Yes);
        assert_eq!(read("list").unwrap().root, PathBuf::from(ROOT));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (line, want) in [
            ("kill c", Some(Signal::TERM)),
            ("kill c 9", Some(Signal::KILL)),
            ("kill c KILL", Some(Signal::KILL)),
            ("kill c SIGKILL", Some(Signal::KILL)),
            ("kill --all c sigusr1", Some(Signal::USR1)),
            ("kill c 0", None),
            ("kill c 99", None),
            ("kill c SIGNOTHING", None),
            ("kill c 9 9", None),
        ] {
            let signal = match read(line).map(|all| all.command) {
                Ok(Command::Kill { signal, .. }) => Some(signal),
                _ => None,
            };
            assert_eq!(signal, want, "{line}");
        }
    }

    #[test]
    fn what_follows_a_container_is_its_programs() {
        let line = "exec -d --user 5:6 -e A=1 --env B=2 --cwd /tmp --pid-file /p -g 7 --cap CAP_KILL --no-new-privs c ls --all -e x";
        let Command::Exec { id, wanted } = read(line).unwrap().command else { panic!() };
        assert_eq!((id.as_str(), wanted.detach), ("c", true));
        assert_eq!(wanted.pid_file, Some(PathBuf::from("/p")));
        let Words { args, env, cwd, user, groups, capabilities, no_new_privileges } = wanted.words;
        assert_eq!(args, ["ls", "--all", "-e", "x"]);
        assert_eq!(
            (env.join(" "), cwd, user),
            ("A=1 B=2".into(), Some("/tmp".into()), Some((5, Some(6))))
        );
        assert_eq!(
            (groups, capabilities.join(" "), no_new_privileges),
            (vec![7], "CAP_KILL".into(), true)
        );
        let line = "exec --tty --console-socket /s --process /p c";
        let Command::Exec { wanted, .. } = read(line).unwrap().command else { panic!() };
        assert_eq!((wanted.tty, wanted.console_socket), (Tty::Yes, Some("/s".into())));
        assert_eq!((wanted.process, wanted.words), (Some("/p".into()), Words::default()));
        let many = format!("exec c {}", "x ".repeat(WORDS_MAX - 2));
        assert!(read(&many).is_ok());
        assert!(read(&format!("{many} x")).is_err());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in [
            "",
            "create",
            "create a b",
            "frobnicate c",
            "start --console-socket /s c",
            "run --tty c",
            "create --preserve-fds 1 c",
            "--systemd-cgroup create c",
            "--root",
            "--log-format xml list",
            "list --format yaml",
            "run --detach=maybe c",
            "run --cwd / c",
            "state -u 0 c",
            "exec",
            "exec --process /p c ls",
            "exec --process /p --user 5 c",
            "exec --process /p --cap CAP_KILL c",
            "run --no-new-privs c",
            "exec --additional-gids users c ls",
            "exec --user root c ls",
            "exec --user 5: c ls",
            "exec --user -5 c ls",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        assert!(read("create --preserve-fds 0 c").is_ok());
    }
}
