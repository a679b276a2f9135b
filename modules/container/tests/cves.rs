//! docs/containers.md names the check of each class of holes; this holds it to the checks.

#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

const TABLE: &str = include_str!("../../../docs/containers.md");
const CHECKS: [&str; 6] = [
    include_str!("../examples/container-vm/cves.rs"),
    include_str!("../examples/container-vm/cases.rs"),
    include_str!("../examples/container-vm/checks.rs"),
    include_str!("../examples/container-vm/oci_holes.rs"),
    include_str!("../examples/container-vm/oci_exec.rs"),
    include_str!("../examples/container-vm/oci_terminal.rs"),
];

/// Names of checks in the table stand in quotes.
fn named() -> Vec<&'static str> {
    let rows = TABLE.lines().filter(|line| line.starts_with("| "));
    rows.flat_map(|row| row.split('"').skip(1).step_by(2)).collect()
}

#[test]
fn every_check_that_the_table_names_is_made() {
    assert!(named().len() >= 12);
    for name in named() {
        let literal = format!("\"{name}\"");
        let made = CHECKS.iter().any(|source| source.contains(&literal));
        assert!(made, "the table names {name:?}, which nobody checks");
    }
}

#[test]
fn every_check_with_a_number_is_in_the_table() {
    let numbered = |line: &&str| line.contains("\"CVE-");
    let count = CHECKS[0].lines().filter(numbered).count();
    assert!(count >= 10);
    for line in CHECKS[0].lines().filter(numbered) {
        let name = line.split('"').nth(1).unwrap_or_default();
        assert!(named().contains(&name), "{name:?} is not in the table");
    }
}
