//! House rules that a machine can check, over every Rust file of the checkout.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests, and a checkout that cannot be read fails them"
)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// A file that is longer has more than one purpose.
const LINES_MAX: usize = 900;
/// Directories that hold no source of ours.
const SKIPPED: [&str; 3] = ["target", "build", ".git"];
/// The only crate that may hold unsafe code.
const UNSAFE_CRATE: &str = "modules/sys/";

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn checkout_text() -> String {
    checkout().to_str().unwrap().to_owned()
}

/// Every Rust file, by its path in the checkout, with its text.
fn sources() -> Vec<(String, String)> {
    let root = checkout();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let place = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push((place, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// What is wrong with one file, as sentences.
fn violations(place: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut complain = |what: String| wrong.push(format!("{place}: {what}"));
    let mut opening = text.lines().skip_while(|line| line.starts_with("#!["));
    if !opening.next().is_some_and(|line| line.starts_with("//! ")) {
        complain("does not open with a //! header that says what it owns".into());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complain(format!("has {lines} lines, more than {LINES_MAX}"));
    }
    if is_crate_root(place)
        && !place.starts_with(UNSAFE_CRATE)
        && !text.contains("#![forbid(unsafe_code)]")
    {
        complain("is a crate root without #![forbid(unsafe_code)]".into());
    }
    let homes =
        ["work", "root"].map(|name| format!("\"/{name}/")).into_iter().chain([checkout_text()]);
    let homes: Vec<String> = homes.collect();
    let mut before = "";
    for (number, line) in (1..).zip(text.lines()) {
        if homes.iter().any(|home| line.contains(home)) {
            complain(format!("line {number} names a directory of somebody's machine"));
        }
        // Put together here, so that this file does not find itself.
        for stub in ["todo", "unimplemented"].map(|name| format!("{name}!(")) {
            if line.contains(&stub) {
                complain(format!("line {number} is a stub"));
            }
        }
        let ignored = format!("#[{}", "ignore");
        if line.contains(&ignored)
            && !line.contains(&format!("{ignored} = \""))
            && !before.trim_start().starts_with("//")
        {
            complain(format!("line {number} ignores a test without a reason"));
        }
        before = line;
    }
    wrong
}

fn is_crate_root(place: &str) -> bool {
    place.ends_with("src/lib.rs") || place.ends_with("src/main.rs") || place.contains("/src/bin/")
}

/// Files below a `src/` that no `mod` names: they are never compiled, and their tests never run.
fn orphans(sources: &[(String, String)]) -> Vec<&str> {
    let named: BTreeSet<PathBuf> =
        sources.iter().flat_map(|(place, text)| modules(Path::new(place), text)).collect();
    let places = sources.iter().map(|(place, _)| place.as_str());
    places
        .filter(|place| place.contains("/src/") && !is_crate_root(place))
        .filter(|place| !named.contains(Path::new(place)))
        .collect()
}

/// The files that the modules of a file may be in.
fn modules(place: &Path, text: &str) -> Vec<PathBuf> {
    let parent = place.parent().unwrap();
    let stem = place.file_stem().unwrap().to_str().unwrap();
    let is_top = ["lib", "main", "mod"].contains(&stem) || parent.ends_with("src/bin");
    let mut directory = if is_top { parent.to_owned() } else { parent.join(stem) };
    // Where modules with a body begin, as rustfmt indents them.
    let mut open = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let words = line.trim_start();
        let indent = &line[..line.len() - words.len()];
        if open.last().is_some_and(|indent| line == format!("{indent}}}")) {
            open.pop();
            directory.pop();
        }
        if let Some(file) = words.strip_prefix("#[path = \"") {
            found.extend(file.strip_suffix("\"]").map(|file| parent.join(file)));
        }
        let Some((before, rest)) = words.split_once("mod ") else { continue };
        if !(before.is_empty() || before.starts_with("pub")) {
            continue;
        }
        if let Some(name) = rest.strip_suffix(';') {
            found.push(directory.join(format!("{name}.rs")));
            found.push(directory.join(name).join("mod.rs"));
        } else if let Some(name) = rest.strip_suffix(" {") {
            open.push(indent);
            directory.push(name);
        }
    }
    found
}

/// Tests that the table of invariants names and that are not there.
fn missing_tests<'a>(page: &'a str, sources: &[(String, String)]) -> Vec<&'a str> {
    let rows = page.lines().filter(|line| line.starts_with("| I"));
    let named = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let is_there = |name: &&str| {
        let start = format!("fn {name}(");
        sources.iter().any(|(_, text)| text.contains(&start))
    };
    named.filter(|name| !is_there(name)).collect()
}

#[test]
fn the_table_of_invariants_names_tests_that_are_there() {
    let page = std::fs::read_to_string(checkout().join("docs/contract.md")).unwrap();
    let sources = sources();
    assert_eq!(missing_tests(&page, &sources), Vec::<&str>::new());
    assert_eq!(page.lines().filter(|line| line.starts_with("| I")).count(), 11);
    assert_eq!(missing_tests("| I1 | x | `no_such`, `checkout` |", &sources), ["no_such"]);
}

#[test]
fn every_file_is_compiled() {
    assert_eq!(orphans(&sources()), Vec::<&str>::new(), "no `mod` names them");
}

#[test]
fn a_file_that_no_module_names_is_found() {
    let file = |place: &str, text: &str| (place.to_owned(), text.to_owned());
    let mut sources = vec![
        file("a/src/lib.rs", "pub mod in_one {\n    mod deep;\n}\nmod one;\npub(crate) mod two;\n"),
        file("a/src/in_one/deep.rs", ""),
        file("a/src/one.rs", "#[path = \"one_checks.rs\"]\nmod checks;\nmod tests;\n"),
        file("a/src/one_checks.rs", ""),
        file("a/src/one/tests.rs", ""),
        file("a/src/two/mod.rs", "mod deep;\n"),
        file("a/src/two/deep.rs", ""),
        file("a/src/bin/tool.rs", "mod part;\n"),
        file("a/src/bin/part.rs", ""),
        file("a/tests/outside.rs", ""),
    ];
    assert_eq!(orphans(&sources), Vec::<&str>::new());
    sources.push(file("a/src/one/past.rs", "use super::*;\n"));
    assert_eq!(orphans(&sources), ["a/src/one/past.rs"]);
}

#[test]
fn every_file_keeps_the_house_rules() {
    let sources = sources();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    let wrong: Vec<String> =
        sources.iter().flat_map(|(place, text)| violations(place, text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_rule_finds_its_violation_and_a_good_file_has_none() {
    let good = "//! Owns nothing.\n\n#![forbid(unsafe_code)]\n";
    assert!(violations("a/src/lib.rs", good).is_empty());
    let rows = [
        ("a/src/x.rs", "fn main() {}\n".to_owned()),
        ("a/src/x.rs", format!("//! Long.\n{}", "\n".repeat(LINES_MAX))),
        ("a/src/main.rs", "//! Root.\n".to_owned()),
        ("a/src/bin/x.rs", "//! Root.\n".to_owned()),
        ("a/src/x.rs", format!("//! Path.\nconst P: &str = \"/{}/me\";\n", "root")),
        ("a/src/x.rs", format!("//! Stub.\nfn f() {{ {}!() }}\n", "todo")),
        ("a/src/x.rs", format!("//! Ignored.\n#[test]\n#[{}]\nfn f() {{}}\n", "ignore")),
    ];
    for (place, text) in rows {
        assert_eq!(violations(place, &text).len(), 1, "{text}");
    }
    let reason = format!("//! Ignored.\n#[{} = \"needs a moon\"]\nfn f() {{}}\n", "ignore");
    assert!(violations("a/src/x.rs", &reason).is_empty());
    assert!(violations("modules/sys/src/lib.rs", "//! The only unsafe.\n").is_empty());
}
