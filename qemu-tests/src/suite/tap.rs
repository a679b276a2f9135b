//! Understands what one test prints by the Test Anything Protocol, version 13: a plan and points.
//! Diagnostics are skipped, and whatever else stands between the points.
//!
//! Refuses nothing: a report that is cut, empty or nonsense is a failure with a reason.

/// Points of one group. The largest of the suite has some five hundred.
const POINTS_MAX: usize = 10_000;

/// How one group of tests ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every point is good.
    Passed,
    /// The group says itself that it cannot tell.
    Skipped(String),
    /// Why: the first bad point, or what is missing.
    Failed(String),
}

/// A report, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// How it ended.
    pub(super) outcome: Outcome,
    /// Good points that were not skipped.
    pub(super) n_good: usize,
    /// Bad points.
    pub(super) n_bad: usize,
}

/// What it means that a group prints nothing and ends well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// It only wants a command to fail, and says so by how it ends.
    Passes,
    Fails,
}

/// One line that is a point.
struct Point<'a> {
    is_good: bool,
    description: &'a str,
    directive: Option<Directive<'a>>,
}

enum Directive<'a> {
    Skip(&'a str),
    Todo,
}

/// Judges the lines that a test printed, and whether it ended well.
pub(super) fn judge<'a>(
    lines: impl Iterator<Item = &'a str>,
    ended: Result<(), String>,
    silence: Silence,
) -> Report {
    let (mut n_good, mut n_bad, mut n_skipped) = (0, 0, 0);
    let (mut planned, mut bad, mut skipped) = (None, None, None);
    let mut lines = lines.peekable();
    let is_silent = lines.peek().is_none();
    for line in lines {
        if let Some(plan) = plan(line) {
            // One report may follow another, each with its plan.
            planned = Some(planned.unwrap_or(0_usize).saturating_add(plan));
            continue;
        }
        let Some(point) = point(line) else { continue };
        if n_good + n_bad + n_skipped >= POINTS_MAX {
            bad.get_or_insert(format!("more than {POINTS_MAX} points"));
            break;
        }
        match (point.is_good, point.directive) {
            // A point that is to come is no promise yet, however it stands.
            (_, Some(Directive::Todo)) => n_skipped += 1,
            (true, Some(Directive::Skip(why))) => {
                n_skipped += 1;
                skipped.get_or_insert_with(|| why.to_owned());
            }
            (true, None) => n_good += 1,
            (false, _) => {
                n_bad += 1;
                bad.get_or_insert_with(|| point.description.to_owned());
            }
        }
    }
    let n_points = n_good + n_bad + n_skipped;
    let outcome = match (ended, bad, planned) {
        (_, Some(why), _) | (Err(why), None, _) => Outcome::Failed(why),
        (Ok(()), None, None) if is_silent && silence == Silence::Passes => Outcome::Passed,
        (Ok(()), None, None) if is_silent => Outcome::Failed("it printed nothing".to_owned()),
        (Ok(()), None, None) => Outcome::Failed("it printed no plan".to_owned()),
        (Ok(()), None, Some(plan)) if plan != n_points => {
            Outcome::Failed(format!("{plan} points were planned, {n_points} came"))
        }
        (Ok(()), None, Some(_)) if n_good == 0 => {
            Outcome::Skipped(skipped.unwrap_or_else(|| "it tests nothing".to_owned()))
        }
        (Ok(()), None, Some(_)) => Outcome::Passed,
    };
    Report { outcome, n_good, n_bad }
}

/// `1..N`
fn plan(line: &str) -> Option<usize> {
    let number = line.strip_prefix("1..")?;
    number.split(' ').next()?.parse().ok()
}

/// `ok 1 - what # SKIP why`
fn point(line: &str) -> Option<Point<'_>> {
    let (is_good, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    let rest = rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    // Descriptions have such signs too.
    let mut signs = rest.match_indices("# ");
    let found = signs.find_map(|(at, sign)| {
        let (description, rest) = (rest.get(..at)?, rest.get(at + sign.len()..)?);
        Some((description.trim_end(), directive(rest)?))
    });
    let (description, directive) = found.unzip();
    let description = description.unwrap_or(rest);
    Some(Point { is_good, description, directive })
}

fn directive(text: &str) -> Option<Directive<'_>> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word.to_ascii_uppercase().as_str() {
        "TODO" => Some(Directive::Todo),
        "SKIP" => Some(Directive::Skip(rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Outcome {
        judge(text.lines(), Ok(()), Silence::Fails).outcome
    }

    #[test]
    fn a_group_passes_when_all_that_is_planned_is_good() {
        let text = "TAP version 13\nok 1 - a\n  ---\n  {\n    \"not ok\": 1\n  }\n  ...\nok 2 - b # SKIP c\n1..2\n";
        let report = judge(text.lines(), Ok(()), Silence::Fails);
        assert_eq!(report, Report { outcome: Outcome::Passed, n_good: 1, n_bad: 0 });
        assert_eq!(outcome("ok 1 - a\n1..1\nok 1 - b\nok 2 - c\n1..2"), Outcome::Passed);
    }

    #[test]
    fn a_group_that_prints_nothing_fails_unless_its_end_says_all() {
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        assert_eq!(outcome(""), failed("it printed nothing"));
        let silent = |text: &str, ended| judge(text.lines(), ended, Silence::Passes).outcome;
        assert_eq!(silent("", Ok(())), Outcome::Passed);
        assert_eq!(silent("", Err("exit status: 1".to_owned())), failed("exit status: 1"));
        assert_eq!(silent("words", Ok(())), failed("it printed no plan"));
    }

    #[test]
    fn what_is_bad_missing_or_broken_is_a_failure_with_a_reason() {
        for (text, why) in [
            ("ok 1 - a\nnot ok 2 - b\nnot ok 3 - c\n1..3", "b"),
            ("ok 1 - a\n1..3", "3 points were planned, 1 came"),
            ("1..2\nok 1 - a\nok 2 - b\nok 3 - c\n1..0", "2 points were planned, 3 came"),
            ("ok 1 - a\n1..1\n1..1", "2 points were planned, 1 came"),
            ("not ok 1 - a # b", "a # b"),
            ("ok 1 - a\n", "it printed no plan"),
            ("# nothing", "it printed no plan"),
            ("okay\n1..1", "1 points were planned, 0 came"),
            ("not ok 1 - a # SKIP b\n1..1", "a"),
        ] {
            assert_eq!(outcome(text), Outcome::Failed(why.to_owned()), "{text}");
        }
        let many = "ok\n".repeat(POINTS_MAX + 1);
        assert!(matches!(outcome(&many), Outcome::Failed(_)));
        let ended = Err("exit status: 1".to_owned());
        let ended = judge("ok 1\n1..1".lines(), ended, Silence::Fails);
        assert_eq!(ended.outcome, Outcome::Failed("exit status: 1".to_owned()));
    }

    #[test]
    fn a_group_without_a_single_good_point_is_skipped() {
        let skipped = |why: &str| Outcome::Skipped(why.to_owned());
        assert_eq!(outcome("ok 1 # SKIP no such thing here\n1..1"), skipped("no such thing here"));
        assert_eq!(outcome("ok 1 - C# or D # skip no such thing\n1..1"), skipped("no such thing"));
        assert_eq!(outcome("ok 1 - a # b # SKIP c\n1..1"), skipped("c"));
        assert_eq!(outcome("1..0"), skipped("it tests nothing"));
        assert_eq!(outcome("not ok 1 - a # TODO later\n1..1"), skipped("it tests nothing"));
    }
}
