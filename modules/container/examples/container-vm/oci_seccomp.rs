//! `linux.seccomp` on the kernel: each profile beside the same container without it, or with an
//! argument that it allows.

use crate::{
    node::Node,
    oci::{BUNDLE, config, has, oci, quiet, run_config, state, until, with_shared, write},
};
use serde_json::{Value, json};
use std::fs;

/// Every call that there is a number for.
const CALLS: &str = include_str!("../../src/oci/calls.txt");

pub(crate) fn run(node: &mut Node) {
    answers(node);
    arguments(node);
    privileges(node);
    life(node);
    words(node);
}

fn under(script: &str, profile: Value) -> Value {
    let mut config = config(script);
    config["linux"]["seccomp"] = profile;
    config
}

/// All is allowed but these.
fn open(names: &[&str], action: &str, errno: Option<u32>) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": names, "action": action, "errnoRet": errno }]
    })
}

/// All is refused but what there is and is not among `without`, and what `more` says.
fn closed(without: &[&str], more: &[Value]) -> Value {
    let words = CALLS.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let names = words.filter_map(|word| Some(word.split_once('=')?.0));
    let names: Vec<&str> = names.filter(|name| !without.contains(name)).collect();
    let mut syscalls = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    syscalls.extend_from_slice(more);
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls": syscalls
    })
}

fn answers(node: &mut Node) {
    let script = "busybox mkdir /dev/shm/a; echo status $?; echo after";
    let making = ["mkdir", "mkdirat"];
    let (free, _) = run_config(&config(script));
    node.check("oci: without a filter a directory is made", has(&free, "status 0"), &free);
    let (output, code) = run_config(&under(script, open(&making, "SCMP_ACT_ERRNO", Some(28))));
    let good =
        output.contains("No space left") && has(&output, "status 1") && has(&output, "after");
    node.check("oci: a filter gives its error number", good && code == Some(0), &output);
    let (output, code) = run_config(&under(script, open(&making, "SCMP_ACT_KILL_PROCESS", None)));
    let good = has(&output, "status 159") && has(&output, "after");
    node.check("oci: a filter kills who calls, nobody else", good && code == Some(0), &output);
    let (output, _) = run_config(&under(script, open(&making, "SCMP_ACT_LOG", None)));
    node.check("oci: a filter that only logs", has(&output, "status 0"), &output);
    let (output, _) = run_config(&under(script, closed(&making, &[])));
    let good = output.contains("Operation not permitted") && has(&output, "after");
    node.check("oci: what a filter does not name", good, &output);
    let (output, _) = run_config(&under(script, closed(&[], &[])));
    node.check("oci: and what it names", has(&output, "status 0"), &output);
}

fn arguments(node: &mut Node) {
    let condition =
        |index: u32, value: u64, op: &str| json!({ "index": index, "value": value, "op": op });
    let allow = |name: &str, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
    let script = "busybox sleep 100 & kill -0 $! && echo asked; kill -9 $! && echo killed";
    let (free, _) = run_config(&config(script));
    node.check(
        "oci: without a filter signals go",
        has(&free, "asked") && has(&free, "killed"),
        &free,
    );
    let zero = allow("kill", json!([condition(1, 0, "SCMP_CMP_EQ")]));
    let (output, _) = run_config(&under(script, closed(&["kill"], &[zero])));
    let good = has(&output, "asked") && !has(&output, "killed");
    node.check("oci: a filter that looks at an argument", good, &output);

    // On both sides of a value with two halves.
    let script = "for n in 1000 4294967295 4294967296 4294967297 8589934592; do busybox truncate -s $n /dev/shm/f && echo at $n; done";
    let (small, middle, large) = (0xffff_ffff_u64, 0x1_0000_0000_u64, 0x1_0000_0001_u64);
    let masked =
        json!({ "index": 1, "value": u64::MAX << 33, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" });
    let rows = [
        ("SCMP_CMP_EQ", json!(condition(1, middle, "SCMP_CMP_EQ")), vec![middle]),
        (
            "SCMP_CMP_NE",
            json!(condition(1, middle, "SCMP_CMP_NE")),
            vec![1000, small, large, 0x2_0000_0000],
        ),
        ("SCMP_CMP_LT", json!(condition(1, middle, "SCMP_CMP_LT")), vec![1000, small]),
        ("SCMP_CMP_LE", json!(condition(1, middle, "SCMP_CMP_LE")), vec![1000, small, middle]),
        (
            "SCMP_CMP_GE",
            json!(condition(1, middle, "SCMP_CMP_GE")),
            vec![middle, large, 0x2_0000_0000],
        ),
        ("SCMP_CMP_GT", json!(condition(1, middle, "SCMP_CMP_GT")), vec![large, 0x2_0000_0000]),
        ("SCMP_CMP_MASKED_EQ", masked, vec![1000, small, middle, large]),
    ];
    for (op, condition, want) in rows {
        let profile = closed(&["ftruncate"], &[allow("ftruncate", json!([condition]))]);
        let (output, _) = run_config(&under(script, profile));
        let said: Vec<u64> =
            output.lines().filter_map(|line| line.strip_prefix("at ")?.parse().ok()).collect();
        node.check(&format!("oci: {op} over 64 bits"), said == want, (&said, &output));
    }
}

fn privileges(node: &mut Node) {
    let script = "cat /proc/self/status";
    let (output, _) = run_config(&config(script));
    node.check("oci: no filter unless asked for", has(&output, "Seccomp: 0"), &output);
    let (output, _) = run_config(&under(script, closed(&[], &[])));
    let good = has(&output, "Seccomp: 2") && has(&output, "Seccomp_filters: 1");
    node.check("oci: one filter for a profile", good && has(&output, "NoNewPrivs: 1"), &output);
    for (who, uid, want) in [("root", 0, "0000000020000420"), ("a user", 33, "0000000000000000")] {
        let mut config = under(script, closed(&[], &[]));
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["user"] = json!({ "uid": uid, "gid": uid });
        let (output, _) = run_config(&config);
        let good = has(&output, "Seccomp: 2")
            && has(&output, "NoNewPrivs: 0")
            && has(&output, &format!("CapPrm: {want}"))
            && has(&output, &format!("CapEff: {want}"))
            && has(&output, "CapBnd: 0000000020000420");
        let what =
            format!("oci: a filter with new privileges leaves {who} none that was not asked for");
        node.check(&what, good, &output);
    }
}

/// The process waits under its filter, and executes after that.
fn life(node: &mut Node) {
    let script =
        "busybox mkdir /dev/shm/a || echo refused > /shared/said; echo end >> /shared/said";
    let profile = closed(&["mkdir", "mkdirat"], &[]);
    write(&with_shared(&under(script, profile)));
    let created = quiet(&["create", "-b", BUNDLE, "c"]);
    let before = state("c");
    let started = quiet(&["start", "c"]);
    let ended = until(|| state("c")["status"] == "stopped");
    let said = fs::read_to_string("/pools/oci/shared/said").unwrap_or_default();
    let good = created && started && ended && before["status"] == "created";
    node.check("oci: create and start under a filter", good && said == "refused\nend\n", &said);
    let deleted = quiet(&["delete", "c"]);
    node.check("oci: and delete", deleted, deleted);
    fs::remove_file("/pools/oci/shared/said").ok();
}

fn words(node: &mut Node) {
    let features: Value = serde_json::from_slice(&oci(&["features"]).stdout).unwrap_or_default();
    let seccomp = &features["linux"]["seccomp"];
    let good = seccomp["enabled"] == true && seccomp["archs"] == json!(["SCMP_ARCH_X86_64"]);
    node.check("oci: features names the filter", good, &features);

    let log = "/pools/oci/warnings";
    let foreign = json!({ "names": ["chown32", "getcwd"], "action": "SCMP_ACT_ALLOW" });
    write(&under("exit 5", closed(&[], &[foreign])));
    let output = oci(&["--log", log, "--log-format", "json", "run", "-b", BUNDLE, "c"]);
    let line = fs::read_to_string(log).unwrap_or_default();
    let logged: Value = serde_json::from_str(&line).unwrap_or_default();
    let warned = logged["level"] == "warning"
        && logged["msg"].as_str().is_some_and(|text| text.ends_with("skipped: chown32"));
    let good = warned && output.status.code() == Some(5) && output.stderr.is_empty();
    node.check("oci: calls of others are skipped, and the log has them", good, (&line, &output));

    let kill = |action: &str| json!({ "names": ["kill"], "action": action });
    for (what, profile, want) in [
        (
            "a filter under which nothing executes",
            open(&["execveat"], "SCMP_ACT_ERRNO", None),
            "execveat",
        ),
        (
            "a filter for a call that nobody knows",
            open(&["newcall"], "SCMP_ACT_KILL", None),
            "newcall",
        ),
        (
            "a filter with two answers",
            closed(&["kill"], &[kill("SCMP_ACT_ALLOW"), kill("SCMP_ACT_TRAP")]),
            "different answers",
        ),
    ] {
        let ran = run_config(&under("echo ran", profile));
        let good = ran.1 == Some(1) && ran.0.contains(want) && !has(&ran.0, "ran");
        node.check(&format!("oci: refused: {what}"), good, &ran);
    }
}
