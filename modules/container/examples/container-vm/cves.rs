//! Each class of holes that container runtimes have had, as a check that bears its numbers. The
//! table is in docs/containers.md, and a test holds the two together.

use crate::{
    cases::{lines, linked_image},
    node::{self, Node, shell},
};
use node_api::launcher::{Mount, MountSource};
use std::path::Path;

pub(crate) fn run(node: &mut Node) {
    programs(node);
    descriptors(node);
    masks(node);
    kernel_files(node);
    links(node);
    identity(node);
    names(node);
    surface(node);
}

/// What a shell script says in a container.
fn said(node: &mut Node, script: &str) -> String {
    let start = node.request(&["sh", "-c", script]);
    node.run(&start).map(|ended| ended.output).unwrap_or_default()
}

fn has(output: &str, line: &str) -> bool {
    output.lines().any(|have| have.split_whitespace().eq(line.split_whitespace()))
}

fn directory(path: &str, source: &str) -> Mount {
    Mount { path: path.to_owned(), source: MountSource::Directory { path: source.to_owned() } }
}

fn programs(node: &mut Node) {
    let output = said(
        node,
        "for p in /proc/[0-9]*; do busybox readlink $p/exe; done; echo x > /proc/1/exe || echo refused; echo x > /proc/self/exe || echo refused",
    );
    let good = lines(&output, "/") == ["/bin/busybox"] && lines(&output, "refused").len() == 2;
    node.check("CVE-2019-5736: no program but its own, and that one unwritable", good, &output);
}

fn descriptors(node: &mut Node) {
    let mut outcome = |cwd: &str| {
        let mut start = node.request(&["busybox", "pwd"]);
        cwd.clone_into(&mut start.cwd);
        match node.run(&start) {
            Ok(ended) => ended.output,
            Err(ipc::CallError::Refused { failure, .. }) => failure.name,
            Err(error) => error.to_string(),
        }
    };
    let refused: Vec<String> =
        (3..16).map(|number| outcome(&format!("/proc/self/fd/{number}"))).collect();
    // The control: a directory of the image is entered.
    let good = outcome("/srv") == "/srv\n" && refused.iter().all(|name| name == "cwd_missing");
    node.check(
        "CVE-2024-21626, CVE-2016-9962: no descriptor of the launcher is a working directory",
        good,
        &refused,
    );
}

fn masks(node: &mut Node) {
    let mut body = node::body();
    for (path, target) in [
        ("dev/.zos", "/etc"),
        ("dev/console", "/proc/sys/kernel/core_pattern"),
        ("dev/null", "/proc/sys/kernel/core_pattern"),
        ("dev/pts", "/etc"),
    ] {
        body.entries.push(node::link(path, target));
    }
    body.entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut start = node.request(&["sh", "-c", "busybox stat -c %F,%t,%T /dev/null; cat /proc/kcore | busybox wc -c; busybox wc -c < /proc/cmdline; ls -A /proc/acpi | busybox wc -l; busybox stat -f -c %t /dev/pts; ls -A /dev/console; echo end"]);
    start.root = node::image("cve-masks", &body);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    let good = output.starts_with("character special file,1,3\n0\n0\n0\n1cd1\nls: ")
        && output.ends_with("end\n");
    node.check(
        "CVE-2025-31133, CVE-2025-52565: what masks is the node's, whatever the image has in /dev",
        good,
        &output,
    );
}

fn kernel_files(node: &mut Node) {
    let mut refused = Vec::new();
    for path in ["/proc", "/proc/self/attr", "/proc/sys/kernel", "/sys/fs/cgroup", "/dev/null"] {
        let mut start = node.request(&["sh", "-c", "echo ran"]);
        start.mounts = vec![directory(path, "/pools/volume")];
        refused.push(node.refusal(&start));
    }
    let good = refused.iter().all(|name| name == "plan_invalid");
    node.check(
        "CVE-2019-19921, CVE-2023-28642: nothing is mounted on /proc, /sys or /dev",
        good,
        &refused,
    );
    let mut start = node.request(&["sh", "-c", "echo ran"]);
    start.root = linked_image("cve-proc", "proc", "srv");
    let refused = node.refusal(&start);
    let output = said(
        node,
        "busybox stat -f -c %t /proc; echo x > /proc/sys/kernel/core_pattern || echo refused; echo x > /proc/sysrq-trigger || echo refused",
    );
    // The magic number of procfs.
    let good = refused == "root_mount_failed"
        && output.starts_with("9fa0\n")
        && lines(&output, "refused").len() == 2;
    node.check(
        "CVE-2025-52881: /proc is the kernel's, and its settings are read-only",
        good,
        (&refused, &output),
    );
}

fn links(node: &mut Node) {
    shell("mkdir -p /pools/tenant && ln -s /proc /pools/tenant/link");
    let mut start = node.request(&["sh", "-c", "echo ran"]);
    start.mounts =
        vec![directory("/data", "/pools/tenant"), directory("/data/link", "/pools/volume")];
    let refused = node.refusal(&start);
    node.check(
        "CVE-2021-30465, CVE-2023-27561: a mount follows no link that a tenant left",
        refused == "mount_target_missing",
        &refused,
    );
    start.mounts =
        vec![directory("/data", "/pools/tenant"), directory("/data/made/here", "/pools/volume")];
    let refused = node.refusal(&start);
    let made = Path::new("/pools/tenant/made").exists();
    node.check(
        "CVE-2024-45310: nothing is made on the way to a mount",
        refused == "mount_target_missing" && !made,
        (&refused, made),
    );
    let mut refused = Vec::new();
    for (number, target) in ["/srv", "/proc/self/fd"].into_iter().enumerate() {
        let mut start = node.request(&["sh", "-c", "echo ran"]);
        start.root = linked_image(&format!("cve-dev{number}"), "dev", target);
        refused.push(node.refusal(&start));
    }
    let good = refused.iter().all(|name| name == "root_mount_failed");
    node.check("CVE-2026-41579, CVE-2026-47766: /dev of an image is no link", good, &refused);
}

fn identity(node: &mut Node) {
    let mut start = node.request(&["cat", "/proc/self/status"]);
    (start.uid, start.gid) = (33, 44);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    let good = ["Uid: 33 33 33 33", "Gid: 44 44 44 44", "Groups:", "CapEff: 0000000000000000"]
        .iter()
        .all(|line| has(&output, line));
    node.check("CVE-2026-30892: it runs as the user of the request in every id", good, &output);

    let output = said(node, "cat /proc/self/status");
    // The control: it has capabilities, in the sets where they belong.
    let good = ["CapInh: 0000000000000000", "CapAmb: 0000000000000000", "CapEff: 00000000000005fb"]
        .iter()
        .all(|line| has(&output, line));
    node.check("CVE-2022-29162: no capability is inheritable or ambient", good, &output);
}

fn names(node: &mut Node) {
    let long = "a".repeat(65);
    let mut refused = Vec::new();
    for id in ["", ".", "..", "../../system", "a/b", "/", "A", "a.b", "a\0b", "a\nb", &long] {
        let mut start = node.request(&["sh", "-c", "echo ran"]);
        id.clone_into(&mut start.id);
        refused.push(node.refusal(&start));
    }
    let good = refused.iter().all(|name| name == "plan_invalid");
    node.check("path traversal: an id leaves no directory", good, &refused);
}

fn surface(node: &mut Node) {
    let output = said(node, "for p in /proc/[0-9]*; do echo $p; done");
    node.check(
        "Dirty runc init: a process sees its own container alone",
        output == "/proc/1\n",
        &output,
    );
    let output = said(node, "cat /proc/sys/user/max_user_namespaces");
    node.check(
        "kernel surface: no user namespace inside, also behind the filter",
        output == "0\n",
        &output,
    );
}
