//! Shows how two flists differ, for people and for programs.

use super::super::{
    Exit,
    output::{Colour, Output},
};
use flist::{
    Flist,
    create::{Diff, Fact, Named, diff},
};
use serde_json::{Value, json};
use threebot::source::units::show_bytes;

/// The exit code says whether there is a difference.
pub(super) fn show(output: &Output, old: &Flist, new: &Flist) -> Exit {
    let diff = diff(old, new);
    output.answer(&answer(&diff, old, new));
    for gone in &diff.removed {
        output.say_in(Colour::Red, format_args!("- {}", named(gone)));
    }
    for come in &diff.added {
        output.say_in(Colour::Green, format_args!("+ {}", named(come)));
    }
    for changed in &diff.changed {
        output.say_in(Colour::Yellow, format_args!("~ {}", changed.path));
        changed.facts.iter().for_each(|fact| output.say(line(fact)));
    }
    if !diff.run.is_empty() {
        output.say_in(Colour::Yellow, "~ how it is started");
        diff.run.iter().for_each(|fact| output.say(line(fact)));
    }
    if diff.is_empty() {
        output.say("both are the same");
        return Exit::Done;
    }
    if diff.repacked {
        output.say("the same files, packed differently");
    } else {
        output.say(format_args!(
            "{} added, {} removed, {} changed",
            diff.added.len(),
            diff.removed.len(),
            diff.changed.len()
        ));
    }
    Exit::Different
}

fn answer(diff: &Diff, old: &Flist, new: &Flist) -> Value {
    let named = |all: &[Named]| {
        let all = all.iter();
        all.map(|one| json!({ "path": one.path, "kind": one.kind, "size": one.size }))
            .collect::<Vec<_>>()
    };
    let facts = |facts: &[Fact]| {
        let facts = facts.iter();
        facts
            .map(|fact| json!({ "what": fact.what, "old": fact.old, "new": fact.new }))
            .collect::<Vec<_>>()
    };
    let changed = diff.changed.iter();
    let changed = changed.map(|one| json!({ "path": one.path, "facts": facts(&one.facts) }));
    json!({
        "old": old.identity(),
        "new": new.identity(),
        "same": diff.is_empty(),
        "repacked": diff.repacked,
        "added": named(&diff.added),
        "removed": named(&diff.removed),
        "changed": changed.collect::<Vec<_>>(),
        "run": facts(&diff.run),
    })
}

fn named(named: &Named) -> String {
    match named.kind {
        "file" => format!("{} ({})", named.path, show_bytes(named.size)),
        kind => format!("{} ({kind})", named.path),
    }
}

fn line(fact: &Fact) -> String {
    let shown = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
    format!("    {}: {} -> {}", fact.what, shown(&fact.old), shown(&fact.new))
}
