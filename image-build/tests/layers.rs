//! The floors of the house: a crate depends only on crates of strictly lower floors.
//!
//! Each crate states its floor in its Cargo.toml, `package.metadata.zos.floor`. Dependencies of
//! tests alone may point anywhere.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests, and a checkout that cannot be read fails them"
)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Who may use a neighbour of the same floor, and why.
const NEIGHBOURS: [(&str, &str, &str); 2] = [
    (
        "daemon",
        "node-api",
        "every daemon's main reads the boot configuration, which is an agreement",
    ),
    ("tlog", "contract", "the log has the tree, the keys and the signatures of statements"),
];
/// The highest floor: tools.
const FLOOR_MAX: u64 = 6;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is wrong with the floors, as sentences.
fn violations(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let floor = |package: &Value| package["metadata"]["zos"]["floor"].as_u64();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let floors: BTreeMap<String, Option<u64>> =
        packages.iter().map(|package| (name(package), floor(package))).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = name(package);
        let Some(own) = floor(package).filter(|floor| *floor <= FLOOR_MAX) else {
            wrong.push(format!("{name} states no floor from 0 to {FLOOR_MAX}"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let needed = dependency["name"].as_str().unwrap();
            let is_ours = dependency["path"].is_string();
            if !is_ours || dependency["kind"] == "dev" {
                continue;
            }
            if let Some(Some(theirs)) = floors.get(needed)
                && *theirs >= own
                && !(*theirs == own && is_neighbour(&name, needed))
            {
                wrong.push(format!("{name} (floor {own}) depends on {needed} (floor {theirs})"));
            }
        }
    }
    wrong
}

fn is_neighbour(name: &str, needed: &str) -> bool {
    NEIGHBOURS.iter().any(|(user, used, _)| *user == name && *used == needed)
}

#[test]
fn every_dependency_points_to_a_lower_floor() {
    let wrong = violations(&metadata());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_dependency_upwards_sideways_or_without_a_floor_is_found() {
    let of = |name: &str, floor: Value, needs: &[(&str, Value)]| {
        let needs: Vec<Value> = needs
            .iter()
            .map(|(name, kind)| serde_json::json!({ "name": name, "kind": kind, "path": "/x" }))
            .collect();
        serde_json::json!({ "name": name, "metadata": { "zos": { "floor": floor } }, "dependencies": needs })
    };
    let packages = [
        of("words", 0.into(), &[]),
        of("good", 3.into(), &[("words", Value::Null), ("daemon", "dev".into())]),
        of("daemon", 4.into(), &[("good", Value::Null)]),
        of("sideways", 4.into(), &[("daemon", Value::Null)]),
        of("upwards", 1.into(), &[("good", "build".into())]),
        of("lost", Value::Null, &[]),
    ];
    let wrong = violations(&serde_json::json!({ "packages": packages }));
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[0].starts_with("sideways") && wrong[1].starts_with("upwards"));
    assert!(wrong[2].starts_with("lost states no floor"));
}
