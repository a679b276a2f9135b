//! Hooks: programs that a bundle wants to be run at points of its container's life. Pure.
//!
//! ```text
//! create: namespaces, mounts ─► prestart ─► createRuntime ─► createContainer ─► the container's root
//! start:  startContainer ─► the program ─► poststart
//! delete: the container is gone ─► poststop
//! ```

use super::{config, plan::STRINGS_BYTES_MAX, texts::OCI_VERSION};
use crate::check::{Invalid, refuse};
use serde_json::json;
use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::CString,
    path::{Path, PathBuf},
    time::Duration,
};

/// Hooks of one point.
const HOOKS_MAX: usize = 64;
/// The specification knows no end for a hook without a timeout. A command that waits for one holds
/// the lock of its container.
const TIME: Duration = Duration::from_mins(10);
/// The longest timeout, in seconds: a day.
const TIME_MAX_S: u32 = 86_400;

/// A point of a container's life, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    /// As the specification calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Where the container is in its life meanwhile. It is being created up to step 2 of the
    /// specification's life cycle; the first hooks are step 3.
    fn status(self) -> &'static str {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer | Self::StartContainer => {
                "created"
            }
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Absolute.
    pub(crate) path: CString,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) time: Duration,
}

/// All hooks of a bundle.
#[derive(Debug, Default)]
pub(crate) struct Hooks(BTreeMap<Stage, Vec<Hook>>);

impl Hooks {
    /// Those of one point, in their order.
    pub(crate) fn at(&self, stage: Stage) -> &[Hook] {
        self.0.get(&stage).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What hooks are told of the container.
#[derive(Debug)]
pub(crate) struct Subject {
    id: String,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
    was_told: Cell<bool>,
}

impl Subject {
    pub(crate) fn new(id: &str, bundle: PathBuf, annotations: BTreeMap<String, String>) -> Self {
        Self { id: id.to_owned(), bundle, annotations, was_told: Cell::new(false) }
    }

    /// Where the hooks for the machine run.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Whether any hook was told of it. What that did, those of the end have to know.
    pub(crate) fn was_told(&self) -> bool {
        self.was_told.get()
    }

    /// The state that a hook reads from stdin. `pid` is that of the container's process, as the hook
    /// sees it.
    pub(crate) fn state(&self, stage: Stage, pid: i32) -> String {
        self.was_told.set(true);
        json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": stage.status(),
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.annotations,
        })
        .to_string()
    }
}

/// Decides about all hooks.
pub(super) fn plan(all: config::Hooks) -> Result<Hooks, Invalid> {
    let mut planned = BTreeMap::new();
    for (stage, hooks) in [
        (Stage::Prestart, all.prestart),
        (Stage::CreateRuntime, all.create_runtime),
        (Stage::CreateContainer, all.create_container),
        (Stage::StartContainer, all.start_container),
        (Stage::Poststart, all.poststart),
        (Stage::Poststop, all.poststop),
    ] {
        let hooks = hooks.unwrap_or_default();
        let name = stage.name();
        if hooks.len() > HOOKS_MAX {
            return refuse(format!("hooks.{name}: at most {HOOKS_MAX}"));
        }
        let hooks: Vec<_> =
            hooks.into_iter().map(|hook| one(name, hook)).collect::<Result<_, _>>()?;
        if !hooks.is_empty() {
            planned.insert(stage, hooks);
        }
    }
    Ok(Hooks(planned))
}

fn one(stage: &str, hook: config::Hook) -> Result<Hook, Invalid> {
    let config::Hook { path, args, env, timeout } = hook;
    if !path.starts_with('/') {
        return refuse(format!("hooks.{stage}: path {path:?} is not absolute"));
    }
    let argv = args.filter(|args| !args.is_empty()).unwrap_or_else(|| vec![path.clone()]);
    let env = env.unwrap_or_default();
    let bytes: usize = argv.iter().chain(&env).map(|string| string.len() + 1).sum();
    if bytes > STRINGS_BYTES_MAX {
        return refuse(format!(
            "hooks.{stage}: arguments and variables fit into {STRINGS_BYTES_MAX}"
        ));
    }
    if argv.iter().chain(&env).any(|string| string.contains('\0')) {
        return refuse(format!("hooks.{stage}: a string has a NUL"));
    }
    let time = match timeout.map(u32::try_from) {
        None => TIME,
        Some(Ok(seconds @ 1..=TIME_MAX_S)) => Duration::from_secs(seconds.into()),
        Some(_) => {
            return refuse(format!("hooks.{stage}: a timeout is 1 to {TIME_MAX_S} seconds"));
        }
    };
    let path = CString::new(path).or_else(|_| refuse(format!("hooks.{stage}: path has a NUL")))?;
    Ok(Hook { path, argv, env, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Hooks, Invalid> {
        plan(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn hooks_keep_their_points_and_their_order() {
        let hooks = read(
            r#"{
                "createRuntime": [
                    { "path": "/a", "args": ["one", "two"], "env": ["A=1"], "timeout": 5 },
                    { "path": "/b" }
                ],
                "poststop": [{ "path": "/c", "args": [] }],
                "poststart": null,
                "ofTomorrow": [{ "path": "d" }]
            }"#,
        )
        .unwrap();
        let [first, second] = hooks.at(Stage::CreateRuntime) else { panic!("{hooks:?}") };
        assert_eq!((first.argv.join(" "), first.env.join(" ")), ("one two".into(), "A=1".into()));
        assert_eq!((first.time, second.time), (Duration::from_secs(5), TIME));
        assert_eq!(
            (second.path.as_c_str(), second.argv.as_slice()),
            (c"/b", &["/b".to_owned()][..])
        );
        assert!(second.env.is_empty(), "nothing of ours is inherited");
        assert_eq!(hooks.at(Stage::Poststop)[0].argv, ["/c"]);
        assert!(hooks.at(Stage::Prestart).is_empty() && !hooks.is_empty());
        assert!(read(r#"{ "prestart": [] }"#).unwrap().is_empty());
    }

    #[test]
    fn hooks_that_mean_nothing_are_refused() {
        let check = |hook: &str| read(&format!(r#"{{ "poststart": [{hook}] }}"#)).is_ok();
        assert!(check(r#"{ "path": "/a", "timeout": 86400 }"#), "the control");
        for hook in [
            "{}",
            r#"{ "path": "a" }"#,
            r#"{ "path": "/a\u0000b" }"#,
            r#"{ "path": "/a", "args": ["a\u0000b"] }"#,
            r#"{ "path": "/a", "env": ["a\u0000b"] }"#,
            r#"{ "path": "/a", "timeout": 0 }"#,
            r#"{ "path": "/a", "timeout": -1 }"#,
            r#"{ "path": "/a", "timeout": 86401 }"#,
            r#"{ "path": "/a", "timeout": 9223372036854775807 }"#,
        ] {
            assert!(!check(hook), "{hook}");
        }
        let many = vec![r#"{ "path": "/a" }"#; HOOKS_MAX + 1];
        assert!(!check(&many.join(",")));
        assert!(check(&many[1..].join(",")), "the control");
    }

    #[test]
    fn a_state_says_where_the_container_is() {
        let subject = Subject::new("c", "/b".into(), BTreeMap::new());
        assert!(!subject.was_told());
        let state: serde_json::Value =
            serde_json::from_str(&subject.state(Stage::CreateContainer, 1)).unwrap();
        assert_eq!((&state["status"], &state["pid"]), (&json!("created"), &json!(1)));
        assert_eq!((&state["bundle"], &state["id"]), (&json!("/b"), &json!("c")));
        assert!(subject.was_told());
    }
}
