//! Hooks of a bundle on the kernel: when, where and with what each is run, and what one that fails
//! ends. What must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci::{BUNDLE, ROOT, config, oci, quiet, run_config, state, until, with_shared, write},
};
use serde_json::{Map, Value, json};
use std::{fs, path::Path};

const LOG: &str = "/pools/oci/shared/log";
/// Adds a line to the log: name, namespaces, directory, and the state from stdin.
const TELL: &str = "state=$(busybox cat); for n in mnt net pid user; do ns=$ns$(busybox readlink /proc/self/ns/$n)' '; done; echo \"$0|$ns|$PWD|$MARK|$state\" >> ";
const STAGES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

pub(crate) fn run(node: &mut Node) {
    shell(&format!("touch {LOG} && chmod 666 {LOG}"));
    order(node);
    places(node);
    walls(node);
    failures(node);
    nowhere_to_warn(node);
    times(node);
    shell(&format!("rm {LOG}"));
}

/// What one hook tells.
#[derive(Debug)]
struct Told {
    name: String,
    /// Mounts, network, processes, user.
    namespaces: Vec<String>,
    directory: String,
    mark: String,
    state: Value,
}

/// The log, which is empty afterwards.
fn told() -> Vec<Told> {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    fs::write(LOG, "").expect("there is room");
    let line = |line: &str| {
        let mut parts = line.splitn(5, '|').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (name, namespaces) = (next(), next());
        let namespaces = namespaces.split_whitespace().map(str::to_owned).collect();
        let (directory, mark, state) = (next(), next(), next());
        let state = serde_json::from_str(&state).unwrap_or_default();
        Told { name, namespaces, directory, mark, state }
    };
    text.lines().map(line).collect()
}

fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|one| one.name.as_str()).collect()
}

/// A hook that tells, then runs `more`. Those in the container have its busybox and `/shared`.
fn hook(stage: &str, name: &str, more: &str) -> Value {
    let log = if stage == "startContainer" { "/shared/log" } else { LOG };
    json!({
        "path": "/bin/busybox",
        "args": ["sh", "-c", format!("{TELL}{log}; {more}"), name],
        "env": ["PATH=/bin", format!("MARK={stage}")],
    })
}

/// Two hooks at each point that tell, around `script`.
fn with_hooks(script: &str) -> Value {
    let mut config = with_shared(&config(script));
    let both = |stage: &str| {
        let name = |n| format!("{stage}{n}");
        json!([hook(stage, &name(1), "true"), hook(stage, &name(2), "true")])
    };
    let hooks = STAGES.iter().map(|stage| ((*stage).to_owned(), both(stage)));
    config["hooks"] = Value::Object(hooks.collect::<Map<_, _>>());
    config
}

fn expected(stages: &[&str]) -> Vec<String> {
    stages.iter().flat_map(|stage| [format!("{stage}1"), format!("{stage}2")]).collect()
}

fn order(node: &mut Node) {
    let mut config = with_hooks("echo program >> /shared/log; while :; do sleep 0.1; done");
    config["annotations"] = json!({ "org.example": "kept" });
    write(&config);
    let created = quiet(&["create", "-b", BUNDLE, "c"]);
    let pid = state("c")["pid"].clone();
    let first = told();
    node.check(
        "oci: hooks of the creation, in their order",
        created && names(&first) == expected(&STAGES[..3]),
        &first,
    );
    // What changes now comes too late.
    config["hooks"] = json!({});
    write(&config);
    let started = quiet(&["start", "c"]);
    let program = until(|| fs::read_to_string(LOG).is_ok_and(|log| log.contains("program")));
    let second = told();
    let mut seen = names(&second);
    let at = seen.iter().position(|name| *name == "program");
    // The program runs beside the hooks after it.
    seen.retain(|name| *name != "program");
    node.check(
        "oci: hooks of the start, around the program",
        started && program && seen == expected(&STAGES[3..5]) && at >= Some(2),
        &second,
    );
    let deleted = quiet(&["kill", "c", "KILL"])
        && until(|| state("c")["status"] == "stopped")
        && quiet(&["delete", "c"]);
    let third = told();
    node.check(
        "oci: hooks of the end",
        deleted && names(&third) == expected(&STAGES[5..]),
        (deleted, &third),
    );
    let all: Vec<Told> =
        first.into_iter().chain(second).filter(|one| one.name != "program").chain(third).collect();
    let statuses: Vec<_> = all.iter().map(|one| one.state["status"].as_str()).collect();
    let mut want = vec![Some("created"); 8];
    want.extend([Some("running"), Some("running"), Some("stopped"), Some("stopped")]);
    node.check("oci: hooks are told the status", statuses == want, &all);
    let good = all.iter().all(|one| {
        one.state["id"] == "c"
            && one.state["bundle"] == BUNDLE
            && one.state["ociVersion"] == "1.2.0"
            && one.state["annotations"]["org.example"] == "kept"
    });
    node.check("oci: and which container it is", good && all.len() == 12, &all);
    let good = all.iter().all(|one| {
        let want = match one.mark.as_str() {
            "createContainer" | "startContainer" => json!(1),
            "poststop" => json!(0),
            _ => pid.clone(),
        };
        one.state["pid"] == want
    });
    node.check("oci: and its pid as they see it", good && pid.as_i64() > Some(1), (&pid, &all));
}

/// In which namespaces, with which files in sight.
fn places(node: &mut Node) {
    let link = |kind: &str| shell(&format!("readlink /proc/self/ns/{kind}")).trim().to_owned();
    let ours = ["mnt", "net", "pid", "user"].map(link);
    shell(
        "touch /pools/oci/netns && busybox unshare -n busybox mount --bind /proc/self/ns/net /pools/oci/netns",
    );
    let joined = format!("net:[{}]", shell("busybox stat -c %i /pools/oci/netns").trim());
    let mut config = with_hooks(
        "echo \"program|$(for n in mnt net pid user; do busybox readlink /proc/self/ns/$n; done | busybox tr '\\n' ' ')\" >> /shared/log",
    );
    config["linux"]["namespaces"] = json!([
        { "type": "mount" }, { "type": "pid" }, { "type": "cgroup" }, { "type": "user" },
        { "type": "network", "path": "/pools/oci/netns" }
    ]);
    config["hostname"] = Value::Null;
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    let unmounted = ["sysfs", "mqueue"].map(Value::from);
    let mounts = config["mounts"].as_array_mut().expect("there are mounts");
    mounts.retain(|mount| !unmounted.contains(&mount["type"]));
    shell(&format!("chown -R 100000:100000 {BUNDLE}/rootfs; chmod 755 /pools/oci"));
    let see = "ls -d /pools/oci/bundle/rootfs/proc/self > /dev/null 2>&1 && echo mounted >> ";
    config["hooks"]["createContainer"] = json!([
        hook("createContainer", "createContainer1", "id -u >> /pools/oci/shared/log"),
        hook("createContainer", "createContainer2", &format!("{see}{LOG} || true"))
    ]);
    config["hooks"]["createRuntime"] = json!([
        hook("createRuntime", "createRuntime1", "id -u >> /pools/oci/shared/log"),
        hook("createRuntime", "createRuntime2", &format!("{see}{LOG} || true"))
    ]);
    let ran = run_config(&config);
    shell(&format!("chown -R 0:0 {BUNDLE}/rootfs; busybox umount /pools/oci/netns"));
    let all = told();
    let of = |stage: &str| -> Vec<&[String]> {
        let those = all.iter().filter(|one| one.name.starts_with(stage));
        those.map(|one| one.namespaces.as_slice()).collect()
    };
    let program = of("program");
    let own = program.first().is_some_and(|program| {
        program.len() == 4 && program[1] == joined && (0..4).all(|kind| program[kind] != ours[kind])
    });
    for stage in ["prestart", "createRuntime", "poststart", "poststop"] {
        let seen = of(stage);
        let good = own && seen.len() == 2 && seen.iter().all(|seen| *seen == ours);
        node.check(&format!("oci: {stage} runs in our namespaces"), good, (&ran, &all));
    }
    for stage in ["createContainer", "startContainer"] {
        let seen = of(stage);
        let good = own && seen.len() == 2 && seen.iter().all(|seen| *seen == program[0]);
        node.check(&format!("oci: {stage} runs in the container's"), good, (&ran, &all));
    }
    // Root of the container, which is a user of the machine, and root of the machine.
    let after = |name: &str| {
        let at = all.iter().position(|one| one.name == name);
        at.and_then(|at| all.get(at + 1)).map_or("", |one| one.name.as_str())
    };
    node.check("oci: each as root of its place", after("createRuntime1") == "0", &all);
    node.check("oci: and in the container's as its root", after("createContainer1") == "0", &all);
    let good = after("createContainer2") == "mounted" && after("createRuntime2") != "mounted";
    node.check("oci: the mounts are made before the hooks, in the container's", good, &all);
    let directory = |stage: &str| {
        let one = all.iter().find(|one| one.name.starts_with(stage));
        one.map_or("", |one| one.directory.as_str())
    };
    let good = directory("prestart") == BUNDLE
        && directory("createContainer") == "/"
        && directory("startContainer") == "/";
    node.check("oci: hooks begin in the bundle or in the root", good, &all);
}

/// What is executed from the image is held as the program is.
fn walls(node: &mut Node) {
    let look = "busybox grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp|Uid):' /proc/self/status; cat /proc/self/cgroup /proc/self/oom_score_adj; busybox ls /proc/self/fd | busybox wc -l; env | busybox grep SECRET";
    let mut config = with_shared(&config(&format!(
        "({look}) > /dev/shm/program; busybox diff /dev/shm/hook /dev/shm/program && echo same && cat /dev/shm/hook"
    )));
    config["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    config["process"]["oomScoreAdj"] = json!(55);
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 64 }]);
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]
    });
    let inside = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }]);
    config["hooks"] = json!({ "startContainer": inside(&format!("({look}) > /dev/shm/hook; busybox mkdir /dev/shm/made; true")) });
    let (output, code) = run_config(&config);
    let good = code == Some(0)
        && output.contains("same\n")
        && output.contains("\t0000000000000000")
        && output.contains("Seccomp:\t2")
        && output.contains("Uid:\t33")
        && output.contains("\n55\n");
    node.check("oci: a hook of the image has the walls of the program", good, (&output, code));
    config["hooks"] = json!({ "startContainer": inside("busybox mkdir /dev/shm/made") });
    let (output, code) = run_config(&config);
    let good =
        code == Some(1) && output.contains("exit code 1") && output.contains("not permitted");
    node.check("oci: its filter too", good, (&output, code));
    // The control.
    config["linux"]["seccomp"] = Value::Null;
    config["process"]["args"] = json!(["ls", "-d", "/dev/shm/made"]);
    let (output, code) = run_config(&config);
    node.check("oci: without a filter it is done", code == Some(0), (&output, code));
    // A file of the machine that the image lacks, the other way round.
    config["hooks"] = json!({ "startContainer": [{ "path": "/bin/container-vm" }] });
    let (output, code) = run_config(&config);
    let good = code == Some(1) && output.contains("No such file");
    node.check("oci: a hook of the image is no file of the machine", good, (&output, code));
    config["hooks"] = json!({ "startContainer": [{ "path": "/proc/self/exe" }] });
    let (output, code) = run_config(&config);
    let good = code == Some(1) && output.contains("symbolic link");
    node.check("oci: CVE-2019-5736: nor the runtime's", good, (&output, code));
}

fn left() -> bool {
    let records = shell(&format!("ls -A {ROOT}"));
    !records.is_empty() || Path::new("/sys/fs/cgroup/zos-oci/c").exists()
}

/// A hook before the program that fails ends the container.
fn failures(node: &mut Node) {
    for (at, stage) in STAGES.iter().enumerate() {
        let mut config = with_hooks("echo program >> /shared/log; while :; do sleep 0.1; done");
        config["hooks"][stage][0] =
            hook(stage, &format!("{stage}1"), "echo first; echo because >&2; exit 3");
        write(&config);
        let words: &[&str] = if at < 3 {
            &["create", "-b", BUNDLE, "c"]
        } else {
            // It inherits no stream that anybody reads to its end.
            assert!(quiet(&["create", "-b", BUNDLE, "c"]), "the hooks before are good");
            &["start", "c"]
        };
        if at >= 4 {
            late(node, stage);
            continue;
        }
        let output = oci(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let good = !output.status.success()
            && said.contains(&format!("hook {stage} /bin/busybox: exit code 3: because"));
        node.check(&format!("oci: a failed hook is told: {stage}"), good, &said);
        let seen = told();
        let mut want = expected(&STAGES[..=at]);
        want.pop();
        want.extend(expected(&STAGES[5..]));
        let good = names(&seen) == want && !left();
        node.check(&format!("oci: and ends the container: {stage}"), good, (&seen, left()));
    }
}

/// A hook that fails when nothing can be kept from happening any more, in a container that is created.
fn late(node: &mut Node, stage: &str) {
    let warnings = "/pools/oci/hook-warnings";
    let end = |words: &[&str]| {
        let words = [&["--log", warnings][..], words].concat();
        oci(&words).status.success()
    };
    let started = end(&["start", "c"]);
    let runs = state("c")["status"] == "running";
    quiet(&["kill", "c", "KILL"]);
    until(|| state("c")["status"] == "stopped");
    let deleted = end(&["delete", "c"]);
    let seen = told();
    let mut got = names(&seen);
    got.retain(|name| *name != "program");
    let good = started && runs && deleted && got == expected(&STAGES) && !left();
    node.check(&format!("oci: all goes on when a hook fails: {stage}"), good, &seen);
    let log = fs::read_to_string(warnings).unwrap_or_default();
    let good = log.lines().count() == 1
        && log.contains("level=warning")
        && log.contains(&format!("hook {stage} /bin/busybox: exit code 3: because"));
    node.check(&format!("oci: which is logged: {stage}"), good, &log);
    fs::remove_file(warnings).ok();
}

/// A start that fails for another reason than a hook before the program: `run` leaves nothing that nobody
/// waits for. The control is the same with a log that can be written.
fn nowhere_to_warn(node: &mut Node) {
    let mut config = config("while :; do sleep 0.1; done");
    config["hooks"] = json!({ "poststart": [{ "path": "/bin/busybox", "args": ["false"] }] });
    write(&config);
    let run = |log: &str| quiet(&["--log", log, "run", "--detach", "-b", BUNDLE, "c"]);
    let begun = run("/pools/oci/hook-warnings") && state("c")["status"] == "running";
    quiet(&["delete", "--force", "c"]);
    fs::remove_file("/pools/oci/hook-warnings").ok();
    let again = run("/pools/oci/none/hook-warnings");
    let good = begun && !again && !left();
    node.check("oci: what cannot begin is ended", good, (begun, again, left()));
    quiet(&["delete", "--force", "c"]);
}

fn times(node: &mut Node) {
    let mut config = config("echo program");
    let hooks = |script: &str, timeout: u32| {
        let hook =
            json!({ "path": "/bin/busybox", "args": ["sh", "-c", script], "timeout": timeout });
        json!({ "prestart": [hook.clone()], "createContainer": [hook] })
    };
    config["hooks"] = hooks("busybox sleep 0.1", 20);
    let ran = run_config(&config);
    node.check("oci: a hook that ends in time", ran == ("program\n".into(), Some(0)), &ran);
    let processes = || shell("busybox ps -o args | busybox grep -c '[s]leep 7654' || true");
    for stage in ["prestart", "createContainer"] {
        let late = hooks("busybox sleep 7654 & busybox sleep 7654", 1);
        config["hooks"] = json!({ stage: late[stage] });
        let ran = run_config(&config);
        let good = ran.1 == Some(1) && ran.0.contains("it took too long");
        node.check(&format!("oci: a hook that does not: {stage}"), good && !left(), &ran);
        let gone = until(|| processes().trim() == "0");
        node.check(&format!("oci: ends with what it started: {stage}"), gone, processes());
    }
    // Nor does talking without end, in the container or outside, make it longer.
    for stage in ["createRuntime", "startContainer"] {
        let script = json!(["sh", "-c", "busybox yes & busybox yes"]);
        let hook = json!({ "path": "/bin/busybox", "args": script, "timeout": 1 });
        config["hooks"] = json!({ stage: [hook] });
        let ran = run_config(&config);
        let good = ran.1 == Some(1) && ran.0.contains("it took too long");
        node.check(&format!("oci: a hook that talks without end: {stage}"), good && !left(), &ran);
    }
    // What says more than a pipe holds, and what leaves something behind that keeps the pipe.
    config["hooks"] = hooks("busybox head -c 300000 /dev/zero; busybox sleep 3 & exit 0", 20);
    let ran = run_config(&config);
    node.check("oci: nobody waits for what a hook says", ran.1 == Some(0), &ran);
}
