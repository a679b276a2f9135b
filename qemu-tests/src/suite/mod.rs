//! The validation suite of opencontainers runtime-tools against our OCI runtime, beside Debian's crun in
//! the same machine: which groups of tests each passes. `guest/suite.rs` runs them.
//!
//! The suite itself is nobody's part of this project: its executables come from a directory that
//! whoever calls has filled.

mod reasons;
mod tap;

use crate::{archive, bench::inside, machine::Machine, media::Image, trial};
use anyhow::{Context as _, Result, bail, ensure};
use reasons::{REASONS, SILENT};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tap::{Outcome, Silence, judge};

/// Where our runtime was built: static and small, as the node's own programs are.
const PROGRAM: &str = "ZOS_CONTAINER";
/// Debian's: the other runtime, and what groups call to make namespaces.
const PACKAGES: [(&str, &str); 2] = [("crun", "usr/bin/crun"), ("util-linux", "usr/bin/unshare")];
/// The suite's own files that its groups need.
const FILES: [&str; 2] = ["runtimetest", "rootfs-amd64.tar.gz"];
/// Groups below this directory of the suite, as its build leaves them.
const GROUPS: &str = "validation";
/// Groups of the suite. It has some sixty.
const GROUPS_MAX: usize = 200;
/// Room for the suite's programs, which link everything.
const MEMORY_MIB: u32 = 3072;
/// Two groups, on a slow, busy machine.
const NEXT_LINE: Duration = Duration::from_secs(1800);
/// Of all groups, Debian 12's crun passes 28 here. One that passes fewer than this says that the machine
/// or the suite is broken, and then nothing was compared.
const WHOLE_LEAST: usize = 25;
/// Beside a group that passes without a word.
const BY_ITS_END: &str = "it says nothing: judged by how it ended";
/// Longest reason in the table.
const WHY_MAX: usize = 110;

const PASSED: &str = "passed";
const FAILED: &str = "failed";
const SKIPPED: &str = "skipped";

/// One group of tests, run against both.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    name: String,
    ours: tap::Report,
    crun: tap::Report,
    reason: Option<&'static str>,
}

/// Whose result.
#[derive(Debug, Clone, Copy)]
enum Who {
    Ours,
    Crun,
}

impl Group {
    fn of(&self, who: Who) -> &tap::Report {
        match who {
            Who::Ours => &self.ours,
            Who::Crun => &self.crun,
        }
    }

    fn passes(&self, who: Who) -> bool {
        self.of(who).outcome == Outcome::Passed
    }

    /// Passed by ending well, without a point.
    fn is_silent(&self, who: Who) -> bool {
        self.passes(who) && self.of(who).n_good == 0
    }
}

/// Which groups were run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Named,
}

/// What all groups together say.
#[derive(Debug)]
pub struct Report {
    groups: Vec<Group>,
    extent: Extent,
}

/// Runs the groups of the suite in `suite`, all of them or those that are named.
pub fn run(suite: &Path, only: &[String], tell: &dyn Fn(&str)) -> Result<Report> {
    let mut groups = groups(suite)?;
    if let Some(unknown) = only.iter().find(|name| !groups.contains_key(*name)) {
        bail!("{} has no group {unknown}", suite.display());
    }
    let extent = if only.is_empty() { Extent::Whole } else { Extent::Named };
    groups.retain(|name, _| extent == Extent::Whole || only.contains(name));
    let temporary = crate::scratch()?;
    let directory = temporary.path();
    let image = Image::find()?;
    let mut machine = Machine::new("suite");
    machine.memory_mib = MEMORY_MIB;
    machine.overlay = Some(overlay(&image, suite, &groups, directory)?);
    let heard = inside::hear(&machine, &image, directory, NEXT_LINE, tell)?;
    report(&heard.lines, groups.keys(), extent)
}

/// Name and file of each executable group.
fn groups(suite: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let missing = FILES.iter().find(|file| !suite.join(file).is_file());
    if let Some(file) = missing {
        bail!("{} has no {file}; docs/containers.md says what must be there", suite.display());
    }
    let mut groups = BTreeMap::new();
    let list = |directory: &Path| -> Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    for path in list(&suite.join(GROUPS))? {
        let files = if path.is_dir() { list(&path)? } else { vec![path] };
        let tests = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "t"));
        for test in tests {
            let name = test.file_stem().and_then(|name| name.to_str()).context("a name")?;
            if let Some(other) = groups.insert(name.to_owned(), test.clone()) {
                bail!("{} and {} have one name", other.display(), test.display());
            }
        }
    }
    ensure!(!groups.is_empty(), "{} has no built groups", suite.join(GROUPS).display());
    ensure!(groups.len() <= GROUPS_MAX, "{} has too many groups", suite.display());
    Ok(groups)
}

/// The runner of the launcher's checks with `guest/suite.rs` in their place, both runtimes, the suite.
fn overlay(
    image: &Image,
    suite: &Path,
    groups: &BTreeMap<String, PathBuf>,
    directory: &Path,
) -> Result<PathBuf> {
    let plan: Vec<&str> = groups.keys().map(String::as_str).collect();
    let mut files =
        BTreeMap::from([("usr/bin/suite-plan".to_owned(), plan.join("\n").into_bytes())]);
    inside::add_program(&mut files, &inside::program(PROGRAM)?)?;
    for (package, program) in PACKAGES {
        inside::add_package(&mut files, package, program)?;
    }
    for file in FILES {
        files.insert(format!("usr/bin/{file}"), inside::read(&suite.join(file))?);
    }
    for (name, path) in groups {
        files.insert(format!("usr/bin/{name}.t"), inside::read(path)?);
    }
    let runner = archive::guest_program("suite", directory)?;
    let path = trial::overlay(image, &runner, directory)?;
    inside::append(&path, &files)?;
    Ok(path)
}

/// What the guest said, judged.
fn report<'a>(
    said: &[String],
    names: impl Iterator<Item = &'a String>,
    extent: Extent,
) -> Result<Report> {
    let group = |name: &'a String| -> Result<Group> {
        let silence =
            if SILENT.contains(&name.as_str()) { Silence::Passes } else { Silence::Fails };
        let of = |runtime: &str| {
            let begin = said.iter().position(|line| *line == format!("begin {runtime} {name}"));
            let rest =
                &said[begin.with_context(|| format!("{name} never ran with {runtime}"))?..];
            let end = format!("end {runtime} {name} ");
            let end =
                rest.iter().enumerate().find_map(|(n, line)| Some((n, line.strip_prefix(&end)?)));
            let (length, ended) =
                end.with_context(|| format!("{name} never ended with {runtime}"))?;
            let mut errors = rest[..length].iter().filter_map(|line| line.strip_prefix("! "));
            let ended = match (ended, errors.next_back()) {
                ("ok", _) => Ok(()),
                (ended, None) => Err(ended.to_owned()),
                (ended, Some(error)) => Err(format!("{ended}: {error}")),
            };
            let lines = rest[..length].iter().filter_map(|line| line.strip_prefix("| "));
            Ok::<_, anyhow::Error>(judge(lines, ended, silence))
        };
        let ours = of("ours")?;
        let is_it = |group: &str, fails: &str| {
            group == name && matches!(&ours.outcome, Outcome::Failed(why) if why == fails)
        };
        let reason = REASONS.iter().find(|(group, fails, _)| is_it(group, fails));
        let reason = reason.map(|(.., reason)| *reason);
        Ok(Group { name: name.clone(), ours, crun: of("crun")?, reason })
    };
    Ok(Report { groups: names.map(group).collect::<Result<_>>()?, extent })
}

impl Report {
    fn count(&self, who: Who, wanted: &str) -> usize {
        self.groups.iter().filter(|group| word(group.of(who)).0 == wanted).count()
    }

    /// Groups that crun passes and we do not, without a reason that is written down.
    fn unexcused(&self) -> impl Iterator<Item = &str> {
        let missed = |group: &&Group| {
            group.passes(Who::Crun) && !group.passes(Who::Ours) && group.reason.is_none()
        };
        self.groups.iter().filter(missed).map(|group| group.name.as_str())
    }

    /// Groups that neither passes: they say nothing about the one or the other.
    fn not_compared(&self) -> impl Iterator<Item = &str> {
        let neither = |group: &&Group| !group.passes(Who::Ours) && !group.passes(Who::Crun);
        self.groups.iter().filter(neither).map(|group| group.name.as_str())
    }

    /// Reasons that excuse nothing: ours passes that group, or the suite has none of that name.
    fn stale(&self) -> impl Iterator<Item = &'static str> {
        let is_stale = |name: &&str| match self.groups.iter().find(|group| group.name == **name) {
            Some(group) => group.passes(Who::Ours),
            None => self.extent == Extent::Whole,
        };
        REASONS.iter().map(|(name, ..)| *name).filter(is_stale)
    }

    /// What crun has to pass, or there was nothing to be measured by.
    fn least(&self) -> usize {
        match self.extent {
            Extent::Whole => WHOLE_LEAST,
            Extent::Named => 1,
        }
    }

    /// Whether crun passes what makes it a measure, we pass no fewer groups, and say why of each that only
    /// crun passes, and of no other.
    pub fn is_kept(&self) -> bool {
        let crun = self.count(Who::Crun, PASSED);
        self.unexcused().next().is_none()
            && self.stale().next().is_none()
            && crun >= self.least()
            && self.count(Who::Ours, PASSED) >= crun
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let one = |report: &tap::Report| {
            let (word, why) = word(report);
            json!({ "outcome": word, "why": why, "good": report.n_good, "bad": report.n_bad })
        };
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|group| {
                json!({
                    "group": group.name,
                    "ours": one(&group.ours),
                    "crun": one(&group.crun),
                    "reason": group.reason,
                })
            })
            .collect();
        json!({
            "groups": groups,
            "passed": {
                "ours": self.count(Who::Ours, PASSED),
                "crun": self.count(Who::Crun, PASSED),
            },
            "not_compared": self.not_compared().collect::<Vec<_>>(),
            "kept": self.is_kept(),
        })
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let width = self.groups.iter().map(|group| group.name.len()).max().unwrap_or(0);
        let mut text = format!("{:width$}  ours     crun\n", "group");
        let mut line = |group: &Group| {
            let ((ours, why), (crun, other)) = (word(&group.ours), word(&group.crun));
            let is_silent = group.is_silent(Who::Ours) || group.is_silent(Who::Crun);
            let by_its_end = is_silent.then_some(BY_ITS_END);
            let why = group.reason.or(why).or(other).or(by_its_end).unwrap_or_default();
            let why: String = why.chars().take(WHY_MAX).collect();
            let line = format!("{:width$}  {ours:7}  {crun:7}  {why}", group.name);
            writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
        };
        self.groups.iter().for_each(&mut line);
        for (name, who) in [("ours", Who::Ours), ("crun", Who::Crun)] {
            let [passed, failed, skipped] =
                [PASSED, FAILED, SKIPPED].map(|word| self.count(who, word));
            writeln!(text, "{name}: {passed} passed, {failed} failed, {skipped} skipped")
                .expect("a String takes everything");
        }
        let not_compared: Vec<_> = self.not_compared().collect();
        if !not_compared.is_empty() {
            writeln!(text, "not compared, since neither passes: {}", not_compared.join(", "))
                .expect("a String takes everything");
        }
        if self.count(Who::Crun, PASSED) < self.least() {
            writeln!(text, "crun passes fewer than {}: it is no measure here", self.least())
                .expect("a String takes everything");
        }
        for name in self.stale() {
            writeln!(text, "the reason that is written down for {name} excuses nothing")
                .expect("a String takes everything");
        }
        for name in self.unexcused() {
            writeln!(text, "crun passes {name}, ours does not, and nobody wrote down why")
                .expect("a String takes everything");
        }
        text
    }
}

fn word(report: &tap::Report) -> (&'static str, Option<&str>) {
    match &report.outcome {
        Outcome::Passed => (PASSED, None),
        Outcome::Skipped(why) => (SKIPPED, Some(why)),
        Outcome::Failed(why) => (FAILED, Some(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(group: &str, ours: &str, crun: &str) -> Vec<String> {
        let one = |who: &str, points: &str| {
            let points = points.lines().map(|line| format!("| {line}"));
            let begin = format!("begin {who} {group}");
            let end = ["! a complaint".to_owned(), format!("end {who} {group} ok")];
            [begin].into_iter().chain(points).chain(end).collect::<Vec<_>>()
        };
        [one("ours", ours), one("crun", crun)].concat()
    }

    const GOOD: &str = "ok 1 - a\n1..1";
    const BAD: &str = "not ok 1 - b\n1..1";

    fn reported(groups: &[(&str, &str, &str)], extent: Extent) -> Report {
        let names: Vec<_> = groups.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let lines: Vec<_> =
            groups.iter().flat_map(|(name, ours, crun)| said(name, ours, crun)).collect();
        report(&lines, names.iter(), extent).unwrap()
    }

    #[test]
    fn what_only_crun_passes_needs_a_reason_and_passes_that_make_up_for_it() {
        let (excused, fails, _) = REASONS[0];
        let excuse = format!("not ok 1 - {fails}\n1..1");
        for (groups, is_kept) in [
            (&[("x", GOOD, GOOD)][..], true),
            (&[("x", BAD, GOOD), ("y", GOOD, BAD)], false),
            (&[(excused, &excuse, GOOD)], false),
            (&[(excused, &excuse, GOOD), ("y", GOOD, BAD)], true),
            // It fails, and not as it was written down.
            (&[(excused, BAD, GOOD), ("y", GOOD, BAD)], false),
            // It does not fail any more.
            (&[(excused, GOOD, GOOD)], false),
        ] {
            let report = reported(groups, Extent::Named);
            assert_eq!(report.is_kept(), is_kept, "{}", report.table());
            assert_eq!(report.json()["kept"], is_kept);
        }
    }

    #[test]
    fn where_crun_passes_next_to_nothing_nothing_was_compared() {
        for (groups, is_kept) in [
            (&[("x", BAD, BAD)][..], false),
            (&[("x", GOOD, BAD)], false),
            (&[("x", "1..0", "1..0")], false),
            (&[("x", BAD, BAD), ("y", GOOD, GOOD)], true),
        ] {
            let report = reported(groups, Extent::Named);
            assert_eq!(report.is_kept(), is_kept, "{}", report.table());
        }
        let names: Vec<_> = (0..WHOLE_LEAST).map(|n| format!("x{n}")).collect();
        let mut groups: Vec<_> = REASONS.iter().map(|(name, ..)| (*name, BAD, BAD)).collect();
        groups.extend(names.iter().map(|name| (name.as_str(), GOOD, GOOD)));
        assert!(reported(&groups, Extent::Whole).is_kept(), "the control");
        groups.pop();
        let report = reported(&groups, Extent::Whole);
        assert!(!report.is_kept());
        assert!(report.table().contains("it is no measure here"));
    }

    #[test]
    fn only_groups_that_are_known_to_be_silent_pass_without_a_word() {
        let quiet = |name: &str| -> Vec<String> {
            let one = |who| [format!("begin {who} {name}"), format!("end {who} {name} ok")];
            [one("ours"), one("crun")].concat()
        };
        for (name, passes) in [(SILENT[0], true), ("x", false)] {
            let report = report(&quiet(name), [name.to_owned()].iter(), Extent::Named).unwrap();
            assert_eq!(report.is_kept(), passes);
            assert_eq!(report.table().contains(BY_ITS_END), passes, "{}", report.table());
        }
    }

    #[test]
    fn what_neither_passes_is_listed() {
        let report =
            reported(&[("x", BAD, BAD), ("y", GOOD, GOOD), ("z", "1..0", BAD)], Extent::Named);
        assert!(report.table().contains("not compared, since neither passes: x, z\n"));
        assert_eq!(report.json()["not_compared"], json!(["x", "z"]));
    }

    #[test]
    fn two_groups_of_one_name_are_an_error() {
        let directory = crate::scratch().unwrap();
        let suite = directory.path();
        for file in FILES {
            fs::write(suite.join(file), "").unwrap();
        }
        for one in ["a", "b"] {
            fs::create_dir_all(suite.join(GROUPS).join(one)).unwrap();
        }
        fs::write(suite.join(GROUPS).join("a/x.t"), "").unwrap();
        fs::write(suite.join(GROUPS).join("b/y.t"), "").unwrap();
        assert_eq!(groups(suite).unwrap().len(), 2, "the control");
        fs::write(suite.join(GROUPS).join("b/x.t"), "").unwrap();
        assert!(groups(suite).is_err());
    }

    #[test]
    fn a_group_that_never_ended_is_an_error() {
        let mut lines = said("x", "1..0", "1..0");
        lines.pop();
        assert!(report(&lines, ["x".to_owned()].iter(), Extent::Named).is_err());
    }
}
