//! docs/oci-conformance.md names the checks of what the OCI specification demands; this holds it to
//! them. That they pass is for the virtual machine to say.

#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const TABLES: &str = include_str!("../../../docs/oci-conformance.md");

/// What stands between quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn sources() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/container-vm");
    let files = fs::read_dir(directory).expect("the checks are there");
    let paths = files.map(|file| file.expect("it can be listed").path());
    let is_oci = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"oci"))
    };
    let read = |path| fs::read_to_string(path).expect("it can be read");
    paths.filter(is_oci).map(read).collect()
}

/// Whether a check has this name, or one with a place for a word that stands elsewhere in the file.
fn is_made(name: &str, source: &str) -> bool {
    let name = format!("oci: {name}");
    quoted(source).any(|literal| match literal.split_once('{') {
        None => literal == name,
        Some((before, rest)) => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            let word = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            before.starts_with("oci: ")
                && word.is_some_and(|word| quoted(source).any(|other| other == word))
        }
    })
}

#[test]
fn every_demand_of_the_specification_has_a_check() {
    let sources = sources();
    let kept = TABLES.split("## Not kept").next().unwrap_or_default();
    let rows = kept.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| checks |"));
    let mut n_rows = 0;
    for row in rows {
        n_rows += 1;
        assert!(quoted(row).count() > 0, "nothing shows this: {row}");
        for name in quoted(row) {
            let made = sources.iter().any(|source| is_made(name, source));
            assert!(made, "the table names {name:?}, which nobody checks");
        }
    }
    assert!(n_rows >= 60, "only {n_rows} demands");
}

#[test]
fn a_name_that_nobody_checks_is_found() {
    let source =
        r#"for what in ["one", "two"] { node.check(&format!("oci: number {what}"), x, y) }"#;
    assert!(is_made("number one", source));
    assert!(!is_made("number three", source) && !is_made("one", source));
}
