//! What the OCI runtime specification demands and no other check has met on its way. With the others,
//! docs/oci-conformance.md names it.

use crate::{
    node::{Node, shell},
    oci::{BUNDLE, ROOT, config, oci, quiet, run_config, state, until, with_shared, write},
};
use serde_json::{Value, json};
use std::path::Path;

/// What each option of a mount shows in the kernel's list, if anything: on the mount, or on its file
/// system.
const OPTIONS: [(&str, &str); 34] = [
    ("async", "rw"),
    ("atime", "relatime"),
    ("defaults", "rw"),
    ("dev", "nodev"),
    ("diratime", "relatime"),
    ("dirsync", "dirsync"),
    ("exec", "rw"),
    ("iversion", "rw"),
    ("lazytime", "lazytime"),
    ("loud", "rw"),
    ("noatime", "noatime"),
    ("nodev", "nodev"),
    ("nodiratime", "nodiratime"),
    ("noexec", "noexec"),
    ("noiversion", "rw"),
    ("nolazytime", "rw"),
    ("norelatime", "rw"),
    ("nostrictatime", "relatime"),
    ("nosuid", "nosuid"),
    ("private", "rw"),
    ("relatime", "relatime"),
    ("ro", "ro"),
    ("rprivate", "rw"),
    ("rshared", "rw"),
    ("rslave", "rw"),
    ("runbindable", "rw"),
    ("rw", "rw"),
    ("shared", "rw"),
    ("silent", "rw"),
    ("slave", "rw"),
    ("strictatime", "rw"),
    ("suid", "rw"),
    ("sync", "sync"),
    ("unbindable", "rw"),
];

/// Those of a bind mount that show. The others are the source's, or ask for nothing.
const OF_BINDS: [&str; 3] = ["noexec", "nosuid", "ro"];

pub(crate) fn run(node: &mut Node) {
    arguments(node);
    options(node);
    process(node);
    versions(node);
    refusals(node);
    place_of_group(node);
}

fn arguments(node: &mut Node) {
    write(&config("exit 0"));
    for operation in ["state", "create", "start", "kill", "delete", "run", "exec"] {
        let refused = !oci(&[operation]).status.success();
        node.check(&format!("oci: {operation} names a container"), refused, ());
    }
    let created = quiet(&["create", "-b", "/pools/oci/none", "c"]);
    node.check("oci: create names a bundle that is there", !created, ());
}

fn options(node: &mut Node) {
    let mut config = with_shared(&config("cat /proc/self/mountinfo"));
    let mounts = config["mounts"].as_array_mut().expect("there are mounts");
    for (option, _) in OPTIONS {
        mounts.push(json!({
            "destination": format!("/shared/new-{option}"), "type": "tmpfs", "options": ["size=64k", option]
        }));
        mounts.push(json!({
            "destination": format!("/shared/old-{option}"), "source": "/pools/oci/shared",
            "options": ["bind", option]
        }));
    }
    mounts.push(json!({
        "destination": "/shared/again", "source": "/pools/oci/shared", "options": ["bind", "remount", "ro"]
    }));
    mounts.push(json!({ "destination": "shared/relative", "type": "tmpfs" }));
    let ran = run_config(&config);
    let line = |place: &str| {
        ran.0.lines().find(|line| line.split(' ').nth(4) == Some(place)).unwrap_or_default()
    };
    let words = |place: &str| -> Vec<&str> { line(place).split([' ', ',']).collect() };
    let lacks: Vec<_> = OPTIONS
        .iter()
        .filter(|(option, want)| {
            let is_new = words(&format!("/shared/new-{option}")).contains(want);
            let old = format!("/shared/old-{option}");
            let is_old = !line(&old).is_empty()
                && OF_BINDS.iter().all(|word| words(&old).contains(word) == (option == word));
            !(is_new && is_old)
        })
        .collect();
    node.check("oci: every option of mounts", lacks.is_empty(), (&lacks, &ran));
    let again = words("/shared/again").contains(&"ro") && !words("/shared").contains(&"ro");
    node.check("oci: a bind mount with other attributes", again, &ran);
    let relative = !line("/shared/relative").is_empty();
    node.check("oci: a relative place of a mount", relative, &ran);
    shell("cd /pools/oci/shared && rmdir new-* old-* again relative");
}

fn process(node: &mut Node) {
    let script = "cat /proc/self/oom_score_adj; for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done; exit 0";
    let mut config = config(script);
    config["process"]["consoleSize"] = json!({ "height": 9, "width": 9 });
    let score = shell("cat /proc/self/oom_score_adj");
    let ran = run_config(&config);
    let good = ran == (format!("{score}0\n1\n2\n"), Some(0));
    node.check("oci: three descriptors, and a score that stays", good, (&score, &ran));
}

fn versions(node: &mut Node) {
    let features: Value = serde_json::from_slice(&oci(&["features"]).stdout).unwrap_or_default();
    for end in ["ociVersionMin", "ociVersionMax"] {
        let mut config = config("exit 0");
        config["ociVersion"] = features[end].clone();
        let ran = run_config(&config);
        node.check(&format!("oci: a bundle of {end}"), ran.1 == Some(0), (&features, &ran));
    }
}

fn refusals(node: &mut Node) {
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 10 });
    let rows: [(&str, &str, Value); 9] = [
        ("no process", "process", Value::Null),
        ("a root that is missing", "root/path", json!("none")),
        ("a limit twice", "process/rlimits", json!([limit, limit])),
        (
            "a limit that the kernel does not know",
            "process/rlimits",
            json!([{ "type": "RLIMIT_NONE", "soft": 1, "hard": 1 }]),
        ),
        (
            "a namespace twice",
            "linux/namespaces",
            json!([{ "type": "mount" }, { "type": "pid" }, { "type": "pid" }]),
        ),
        (
            "a namespace at a relative path",
            "linux/namespaces",
            json!([{ "type": "mount" }, { "type": "network", "path": "proc/self/ns/net" }]),
        ),
        (
            "a hook without time",
            "hooks",
            json!({ "poststop": [{ "path": "/bin/true", "timeout": 0 }] }),
        ),
        ("limits of no controller", "linux/resources/unified", json!({ "none.max": "1" })),
        ("a relative masked path", "linux/maskedPaths", json!(["proc/kcore"])),
    ];
    for (what, path, value) in rows {
        let mut config = config("exit 0");
        let place = path.split('/').fold(&mut config, |value, name| &mut value[name]);
        *place = value;
        write(&config);
        let refused = !quiet(&["create", "-b", BUNDLE, "c"]);
        node.check(&format!("oci: not created: {what}"), refused, ());
        if !refused {
            quiet(&["delete", "--force", "c"]);
        }
    }
    let records = shell(&format!("ls -A {ROOT}"));
    let group = Path::new("/sys/fs/cgroup/zos-oci/c").exists();
    node.check("oci: what is not created leaves nothing", records.is_empty() && !group, &records);
    // The control, which also shows that a program needs nobody to wait for it.
    write(&config("exit 0"));
    let made = quiet(&["create", "-b", BUNDLE, "c"]) && quiet(&["start", "c"]);
    let ended = made && until(|| state("c")["status"] == "stopped") && quiet(&["delete", "c"]);
    node.check("oci: created, started, ended, deleted", ended, state("c"));
}

/// One path, one place: below the root of the hierarchy.
fn place_of_group(node: &mut Node) {
    for path in ["oci-musts/c", "/oci-musts/c"] {
        let mut config = config("cat /proc/self/cgroup");
        config["linux"]["cgroupsPath"] = json!(path);
        let spaces = config["linux"]["namespaces"].as_array_mut().expect("there are some");
        spaces.retain(|space| space["type"] != "cgroup");
        let mounts = config["mounts"].as_array_mut().expect("there are mounts");
        mounts.retain(|mount| mount["type"] != "cgroup");
        let ran = run_config(&config);
        node.check(&format!("oci: a cgroup at {path}"), ran.0 == "0::/oci-musts/c\n", &ran);
    }
    shell("rmdir /sys/fs/cgroup/oci-musts");
}
