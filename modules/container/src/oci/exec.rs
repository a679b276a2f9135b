//! `exec`: one more process in a container that runs, with what the configuration of the container
//! gives its own.
//!
//! It is decided about as if it were the container's program: the configuration that was kept is
//! planned again with this process in the place of its own. So nothing can be had by entering that a
//! container cannot be made with, and the filter of system calls is that of the container.

use super::{
    OciError,
    config::{self, Process},
    life::{self, Warn},
    plan::{self, Reach},
    record::Status,
    terminal,
};
use crate::{
    check::{Invalid, refuse},
    launch::{self, Console},
    reason::Reason,
};
use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// What `exec` is told besides the container.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// A file with a `process` of the specification.
    pub(super) process: Option<PathBuf>,
    /// The program and its arguments, if there is no such file.
    pub(super) words: Words,
    pub(super) tty: Tty,
    pub(super) console_socket: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) detach: bool,
    pub(super) reach: Reach,
}

/// What is otherwise than for the container's program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) args: Vec<String>,
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) cwd: Option<String>,
    pub(super) user: Option<(u32, Option<u32>)>,
    /// In addition.
    pub(super) groups: Vec<u32>,
    /// In addition, bounding, permitted and effective.
    pub(super) capabilities: Vec<String>,
    /// Set-user-id bits and file capabilities count for nothing, also where they do for the program.
    pub(super) no_new_privileges: bool,
}

/// Whether a terminal is asked for beside the words or the file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tty {
    #[default]
    NotSaid,
    Yes,
}

/// Starts the process. Returns it, a child of ours.
pub(super) fn exec(
    root: &Path,
    id: &str,
    wanted: &Wanted,
    warn: Warn<'_>,
) -> Result<OwnedFd, OciError> {
    let (place, record) = life::find(root, id)?;
    let first = match life::status(&place, &record)? {
        Status::Running(process) => process,
        other @ (Status::Created(..) | Status::Stopped) => {
            let status = other.name();
            return Err(OciError::State { id: id.to_owned(), what: "entered", status });
        }
    };
    let Some((mut config, bundle)) = life::kept(id, &place)? else {
        return Err(OciError::Missing(id.to_owned()));
    };
    let own = config.process.take().unwrap_or_default();
    let mut process = match &wanted.process {
        Some(file) => config::parse_process(&life::read(file)?)?,
        None => with(own, &wanted.words)?,
    };
    process.terminal |= wanted.tty == Tty::Yes;
    config.process = Some(process);
    let plan = plan::plan(id, &bundle, config, wanted.reach)?;
    life::check_label(&plan, warn)?;
    let hand_over = |pid: i32| match &wanted.pid_file {
        Some(path) => life::write_whole(path, &pid.to_string()),
        None => Ok(()),
    };
    let socket = terminal::connect(plan.terminal, wanted.console_socket.as_deref())?;
    let terminal = life::terminal(&plan, socket.as_ref(), Console::Leave);
    let entered = life::inside(&record, &first, |container| {
        launch::exec(&plan, container, terminal, hand_over)
    })?;
    entered.map_err(|failure| match failure.reason {
        Reason::EntrypointMissing => OciError::NoProgram(failure),
        _ => OciError::Enter { id: id.to_owned(), source: Box::new(failure) },
    })
}

/// The process of a container, with other words.
fn with(own: Process, words: &Words) -> Result<Process, Invalid> {
    let Words { args, env, cwd, user, groups, capabilities, no_new_privileges } = words;
    let mut process = Process { args: Some(args.clone()), terminal: false, ..own };
    let variables = process.env.get_or_insert_default();
    for new in env {
        let Some((name, _)) = new.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return refuse(format!("--env {new:?} is not NAME=value"));
        };
        variables.retain(|old| old.split_once('=').is_none_or(|(known, _)| known != name));
        variables.push(new.clone());
    }
    if let Some(cwd) = cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = *user {
        // Groups belong to the user who has them.
        process.user.additional_gids = None;
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.get_or_insert_default().extend(groups);
    if !capabilities.is_empty() {
        let own = process.capabilities.get_or_insert_default();
        for set in [&mut own.bounding, &mut own.permitted, &mut own.effective] {
            set.get_or_insert_default().extend_from_slice(capabilities);
        }
    }
    process.no_new_privileges |= no_new_privileges;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Process {
        serde_json::from_str(
            r#"{
                "terminal": true, "cwd": "/srv", "args": ["server"], "env": ["A=1", "B=2"],
                "user": { "uid": 5, "gid": 6, "additionalGids": [7], "umask": 63 },
                "noNewPrivileges": true
            }"#,
        )
        .unwrap()
    }

    fn words(args: &[&str]) -> Words {
        Words { args: args.iter().map(|&arg| arg.to_owned()).collect(), ..Words::default() }
    }

    #[test]
    fn what_is_not_said_is_as_for_the_program() {
        let process = with(own(), &words(&["ls", "-l"])).unwrap();
        assert_eq!(process.args.unwrap(), ["ls", "-l"]);
        assert_eq!(
            (process.cwd.as_str(), process.env.unwrap().join(" ")),
            ("/srv", "A=1 B=2".into())
        );
        assert_eq!((process.user.uid, process.user.gid), (5, 6));
        assert_eq!(process.user.additional_gids, Some(vec![7]));
        assert!(process.no_new_privileges && !process.terminal);
    }

    #[test]
    fn what_is_said_takes_its_place() {
        let said = Words {
            env: vec!["A=3=4".into(), "C=".into()],
            cwd: Some("/".into()),
            user: Some((8, None)),
            ..words(&["ls"])
        };
        let process = with(own(), &said).unwrap();
        assert_eq!(process.env.unwrap(), ["B=2", "A=3=4", "C="]);
        assert_eq!((process.cwd.as_str(), process.user.uid, process.user.gid), ("/", 8, 6));
        assert_eq!(process.user.additional_gids, Some(vec![]));
        let said = Words { user: Some((8, Some(9))), ..words(&["ls"]) };
        assert_eq!(with(own(), &said).unwrap().user.gid, 9);
        let said = Words {
            groups: vec![9],
            capabilities: vec!["CAP_KILL".into()],
            no_new_privileges: true,
            ..words(&["ls"])
        };
        let process = Process { no_new_privileges: false, ..own() };
        let process = with(process, &said).unwrap();
        assert_eq!(process.user.additional_gids, Some(vec![7, 9]));
        assert!(process.no_new_privileges);
        let sets = process.capabilities.unwrap();
        for set in [&sets.bounding, &sets.permitted, &sets.effective] {
            assert_eq!(set.as_deref(), Some(&["CAP_KILL".to_owned()][..]));
        }
        assert!(sets.inheritable.is_none() && sets.ambient.is_none());
        for env in ["A", "=1", ""] {
            let said = Words { env: vec![env.to_owned()], ..words(&["ls"]) };
            assert!(with(own(), &said).is_err(), "{env}");
        }
    }
}
