//! `exec` on the kernel: a process enters a container behind all its walls, and brings nothing of ours
//! along. What must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci::{BUNDLE, ROOT, command, config, has, oci, quiet, state, until, with_shared, write},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

const GROUP: &str = "/sys/fs/cgroup/zos-oci/c";
/// A program that waits.
const WAIT: &str = "while :; do sleep 0.1; done";

pub(crate) fn run(node: &mut Node) {
    words(node);
    walls(node);
    users(node);
    life(node);
    own_program(node);
    spies(node);
    leavers(node);
}

/// Starts a container; it is killed by [`stop`].
fn start(config: &Value) -> bool {
    write(config);
    quiet(&["run", "--detach", "-b", BUNDLE, "c"])
}

fn stop() -> bool {
    quiet(&["delete", "--force", "c"])
}

/// What `exec` says, and its exit code.
fn exec(words: &[&str]) -> (String, Option<i32>) {
    let output = oci(&[&["exec"], words].concat());
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.code())
}

fn words(node: &mut Node) {
    let mut config = with_shared(&config(WAIT));
    config["process"]["env"] = json!(["PATH=/bin", "MARK=own"]);
    config["process"]["cwd"] = json!("/proc");
    let started = start(&config);
    let ran = exec(&["c", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let good = ran == ("out\nerr\n".into(), Some(7));
    node.check("oci: exec gives output and exit code", started && good, &ran);
    let ran = exec(&["c", "sh", "-c", "kill -9 $$"]);
    node.check("oci: exec tells a signal as a shell does", ran.1 == Some(137), &ran);
    let ran = exec(&["c", "busybox", "echo", "--all", "-d"]);
    node.check("oci: exec leaves the program its options", ran.0 == "--all -d\n", &ran);
    let ran = exec(&["c", "sh", "-c", "echo $MARK $PWD $0", "-e"]);
    node.check(
        "oci: exec has variables and directory of the container",
        ran.0 == "own /proc -e\n",
        &ran,
    );
    let ran = exec(&[
        "-e",
        "MARK=new",
        "--env",
        "MORE=1",
        "--cwd",
        "/shared",
        "c",
        "sh",
        "-c",
        "echo $MARK $MORE $PWD",
    ]);
    node.check("oci: exec with others", ran.0 == "new 1 /shared\n", &ran);
    let ran = exec(&["c", "none"]);
    let good = ran.1 == Some(1) && ran.0.contains("executable file not found");
    node.check("oci: exec of what is missing", good, &ran);
    // CVE-2024-21626: a directory of ours by the number of a descriptor. The control is one that is.
    let numbers: Vec<_> = (3..12)
        .map(|number| exec(&["--cwd", &format!("/proc/self/fd/{number}"), "c", "true"]))
        .collect();
    let refused = numbers.iter().all(|ran| ran.1 == Some(1) && ran.0.contains("working directory"));
    let control = exec(&["--cwd", "/proc/self/fdinfo", "c", "true"]);
    node.check(
        "oci: CVE-2024-21626: exec has no descriptor of ours as its directory",
        refused && control.1 == Some(0),
        (&numbers, &control),
    );
    let ran =
        exec(&["c", "sh", "-c", "for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done"]);
    node.check("oci: exec has three descriptors and no other", ran.0 == "0\n1\n2\n", &ran);
    let ran = exec(&["c", "busybox", "grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]);
    let good = ran.0.matches("\t0000000000000000").count() == 2;
    node.check("oci: exec has no signal blocked or ignored", good, &ran);
    let stopped = stop();
    node.check("oci: delete ends it", stopped, ());
}

/// Everything that holds the program of a container holds what enters it.
fn walls(node: &mut Node) {
    let look = "cat /proc/self/status | busybox grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters):'; cat /proc/self/cgroup /proc/self/oom_score_adj /proc/self/limits; umask; busybox readlink /proc/self/root; for n in cgroup ipc mnt net pid user uts; do busybox readlink /proc/self/ns/$n; done; busybox cut -d' ' -f3- /proc/self/mountinfo; busybox mkdir /dev/shm/new";
    let mut config = with_shared(&config(&format!(
        "({look}) > /shared/program 2>&1; echo > /shared/up; {WAIT}"
    )));
    config["process"]["user"] =
        json!({ "uid": 33, "gid": 44, "additionalGids": [55], "umask": 0o27 });
    config["process"]["oomScoreAdj"] = json!(77);
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 60, "hard": 70 }]);
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]
    });
    config["linux"]["resources"]["pids"] = json!({ "limit": 6 });
    shell("chmod 777 /pools/oci/shared");
    let started = start(&config);
    until(|| Path::new("/pools/oci/shared/up").exists());
    let program = fs::read_to_string("/pools/oci/shared/program").unwrap_or_default();
    // The filter counts once for the process, and the pid of the probe is its own.
    let (output, _) = exec(&["c", "sh", "-c", &format!("({look}) 2>&1")]);
    let good = started
        && output == program
        && [
            "Uid: 33 33 33 33",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "77",
            "0027",
            "Max open files 60 70 files",
        ]
        .iter()
        .all(|want| has(&output, want))
        && output.contains("No space left");
    node.check(
        "oci: exec has the walls and namespaces of the container",
        good,
        (&program, &output),
    );
    let (output, code) =
        exec(&["c", "sh", "-c", "for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"]);
    node.check(
        "oci: exec counts in the container's cgroup",
        output.contains("fork") && code != Some(0),
        &output,
    );
    let groups = shell(&format!("cat {GROUP}/pids.max {GROUP}/pids.events"));
    node.check(
        "oci: whose limit it met",
        groups.starts_with("6\n") && !groups.contains("max 0"),
        &groups,
    );
    stop();
    shell("rm -f /pools/oci/shared/up /pools/oci/shared/program");
    // The control of the filter: without it the directory is made.
    config["linux"]["seccomp"] = Value::Null;
    start(&config);
    let ran = exec(&["c", "busybox", "mkdir", "/dev/shm/other"]);
    node.check("oci: without a filter exec makes a directory", ran.1 == Some(0), &ran);
    stop();
    // A configuration that changes now means nothing.
    config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }
    ] });
    start(&config);
    config["linux"]["seccomp"] = Value::Null;
    write(&config);
    let ran = exec(&["c", "busybox", "mkdir", "/dev/shm/other"]);
    let held = ran.1 == Some(1) && ran.0.contains("not permitted");
    node.check("oci: exec is held as the container was made", held, &ran);
    stop();
    shell("rm -f /pools/oci/shared/up /pools/oci/shared/program");
}

fn users(node: &mut Node) {
    let file = "/pools/oci/process.json";
    let mut config = config(WAIT);
    config["process"]["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7] });
    start(&config);
    for (what, words, want) in [
        ("as the container's user", &["c"][..], "5 6 6 7\n"),
        ("as another", &["--user", "8:9", "c"], "8 9 9\n"),
        ("as another of its group", &["--user", "8", "c"], "8 6 6\n"),
        ("with one more group", &["--additional-gids", "9", "c"], "5 6 6 7 9\n"),
        ("as another with a group", &["--user", "8:9", "-g", "4", "c"], "8 9 9 4\n"),
    ] {
        let words = [words, &["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"]].concat();
        let ran = exec(&words);
        node.check(&format!("oci: exec {what}"), ran.0 == want, &ran);
    }
    for (what, words, want) in [
        ("with the container's capabilities", &[][..], "20000420"),
        ("with one more capability", &["--cap", "CAP_CHOWN"], "20000421"),
        (
            "refused: a capability that no container has",
            &["--cap", "CAP_SYS_ADMIN"],
            "--privileged",
        ),
    ] {
        let look = ["c", "busybox", "grep", "CapEff", "/proc/self/status"];
        let ran = exec(&[&["--user", "0:0"], words, &look[..]].concat());
        node.check(&format!("oci: exec {what}"), ran.0.contains(want), &ran);
    }
    let process = |process: Value| {
        fs::write(file, process.to_string()).expect("there is room");
        exec(&["--process", file, "c"])
    };
    let args =
        json!(["/bin/busybox", "grep", "-E", "^(Uid|CapEff|NoNewPrivs):", "/proc/self/status"]);
    let two = json!(["CAP_KILL", "CAP_CHOWN"]);
    let good = json!({
        "args": args, "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "capabilities": { "bounding": two, "permitted": two, "effective": two }
    });
    let ran = process(good.clone());
    let fine = has(&ran.0, "CapEff: 0000000000000021")
        && has(&ran.0, "NoNewPrivs: 0")
        && has(&ran.0, "Uid: 0 0 0 0");
    node.check("oci: exec as a file says", fine, &ran);
    for (what, name, value) in [
        (
            "capabilities that no container has",
            "capabilities",
            json!({ "bounding": ["CAP_SYS_ADMIN"] }),
        ),
        (
            "capabilities beyond the container",
            "capabilities",
            json!({ "bounding": ["CAP_SYS_PTRACE"] }),
        ),
        ("a profile", "apparmorProfile", json!("x")),
        ("a relative directory", "cwd", json!("tmp")),
        ("no program", "args", json!([])),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        let ran = process(bad);
        node.check(
            &format!("oci: exec refused: {what}"),
            ran.1 == Some(1) && ran.0.starts_with("container: "),
            &ran,
        );
    }
    stop();
    fs::remove_file(file).ok();

    let mut config = self::config(WAIT);
    let spaces = config["linux"]["namespaces"].as_array_mut().expect("there are some");
    spaces.push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    shell(&format!("chown -R 100000:100000 {BUNDLE}/rootfs"));
    let started = start(&config);
    let pid_file = "/pools/oci/pid";
    let detached = quiet(&["exec", "--detach", "--pid-file", pid_file, "c", "sleep", "77"]);
    let pid = fs::read_to_string(pid_file).unwrap_or_default();
    let seen = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let good = started
        && detached
        && has(&seen, "Uid: 100000 100000 100000 100000")
        && seen
            .lines()
            .any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() == 3);
    node.check("oci: exec maps ids as the container does", good, &seen);
    let ran = exec(&["c", "sh", "-c", "cat /proc/self/uid_map /proc/self/setgroups; id -u"]);
    let good = has(&ran.0, "0 100000 1000") && ran.0.ends_with("\n0\n");
    node.check("oci: and is root inside", good, &ran);
    stop();
    node.check(
        "oci: what was left to itself ends with the container",
        until(|| !Path::new(&format!("/proc/{pid}")).exists()),
        &pid,
    );
    shell(&format!("chown -R 0:0 {BUNDLE}/rootfs; rm {pid_file}"));
}

fn life(node: &mut Node) {
    node.check("oci: exec in no container", exec(&["c", "true"]).1 == Some(1), ());
    let config = with_shared(&config(WAIT));
    write(&config);
    quiet(&["create", "-b", BUNDLE, "c"]);
    let ran = exec(&["c", "true"]);
    node.check(
        "oci: exec in one that is created",
        ran.1 == Some(1) && ran.0.contains("is created"),
        &ran,
    );
    quiet(&["start", "c"]);
    let ran = exec(&["c", "true"]);
    node.check("oci: exec in one that runs", ran.1 == Some(0), &ran);
    let script = "trap 'exit 9' TERM; echo up > /shared/up; while :; do sleep 0.1; done";
    let mut child =
        command(&["exec", "c", "sh", "-c", script]).spawn().expect("we can be executed");
    let up = until(|| Path::new("/pools/oci/shared/up").exists());
    shell(&format!("kill -TERM {}", child.id()));
    let code = child.wait().ok().and_then(|status| status.code());
    node.check("oci: exec passes signals on", up && code == Some(9), code);
    let mut child = command(&["exec", "c", "sleep", "7655"]).spawn().expect("we can be executed");
    let sleeps = "busybox ps -o args | busybox grep -c '^\\({[a-z0-9-]*} \\)\\?sleep 7655' || true";
    let joined = until(|| shell(sleeps).trim() == "1");
    quiet(&["kill", "--all", "c", "KILL"]);
    let code = child.wait().ok().and_then(|status| status.code());
    node.check("oci: a signal to all reaches it", joined && code == Some(137), code);
    until(|| state("c")["status"] == "stopped");
    let ran = exec(&["c", "true"]);
    node.check(
        "oci: exec in one that has stopped",
        ran.1 == Some(1) && ran.0.contains("is stopped"),
        &ran,
    );
    stop();
    shell("rm -f /pools/oci/shared/up");
}

fn processes() -> Vec<i32> {
    let text = fs::read_to_string(format!("{GROUP}/cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// As for what is created: the program's own file is in nobody's reach.
fn own_program(node: &mut Node) {
    let program = "/pools/oci/program";
    shell(&format!(
        "cp /bin/container-vm {program}; chmod 755 {program}; printf '#!/proc/self/exe probe\\n' > {BUNDLE}/rootfs/bin/own; chmod 755 {BUNDLE}/rootfs/bin/own; echo before > /pools/oci/shared/control"
    ));
    let before = fs::read(program).expect("it was copied");
    start(&with_shared(&config(WAIT)));
    let mut command = Command::new(program);
    command.args(["oci", "--root", ROOT, "exec", "c", "own"]).stdin(Stdio::null());
    let output = command.output().expect("it can be executed");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    until(|| Path::new("/pools/oci/shared/end").exists());
    let control = shell("cat /pools/oci/shared/control");
    let same = fs::read(program).is_ok_and(|now| now == before);
    let good = said.contains("reached Ok(\"/memfd:container") && !has(&said, "done");
    node.check(
        "oci: CVE-2019-5736: exec shows a copy of the runtime, which cannot be written",
        good && same && control == "overwritten\n",
        (same, &said, &control),
    );
    let ran = exec(&["c", "/proc/self/exe"]);
    node.check("oci: CVE-2019-5736: and executes none by its link", ran.1 == Some(1), &ran);
    stop();
    shell(&format!(
        "rm -f {program} /pools/oci/shared/control /pools/oci/shared/end {BUNDLE}/rootfs/bin/own"
    ));
}

/// A process of the container, root like us, looks at everything that it can see: what enters is held
/// still on its way, before it executes.
fn spies(node: &mut Node) {
    let spy = "while :; do for p in /proc/[0-9]*; do n=$(cat $p/comm); for f in exe cwd root; do l=$(busybox readlink $p/$f) && echo \"$n $f $l\" >> /shared/seen; done; (cat $p/environ > /dev/null && echo \"$n environ\" && ls $p/fd && echo \"$n fd\") >> /shared/seen; echo \"$n done\" >> /shared/seen; done; done 2>/dev/null";
    let started = start(&with_shared(&config(spy)));
    let seen = || fs::read_to_string("/pools/oci/shared/seen").unwrap_or_default();
    let control = Path::new("/pools/oci/shared/seen");
    until(|| control.exists());
    let mut caught = None;
    for _ in 0..30 {
        let mut child: Child =
            command(&["exec", "c", "true"]).stdout(Stdio::null()).spawn().expect("ourselves");
        // Born inside and not executed yet: two numbers, and a program that is a file in memory.
        let entered = || processes().into_iter().find(|pid| is_ours_inside(*pid));
        let mut found = None;
        while matches!(child.try_wait(), Ok(None)) && found.is_none() {
            found = entered();
        }
        if found.is_some() {
            shell(&format!("kill -STOP {}", child.id()));
        }
        caught = found.filter(|pid| is_ours_inside(*pid)).map(|_| {
            let name = fs::read_to_string(format!("/proc/{}/comm", found.unwrap_or(0)));
            let name = name.unwrap_or_default().trim().to_owned();
            let line = format!("{name} done\n");
            let looked = until(|| seen().matches(&line).count() > 2);
            (looked, name)
        });
        shell(&format!("kill -CONT {} || true", child.id()));
        child.wait().ok();
        if caught.is_some() {
            break;
        }
    }
    let text = seen();
    let of = |name: &str, what: &str| text.contains(&format!("{name} {what}"));
    let control = ["exe /bin/busybox", "cwd /", "root /", "environ", "fd"]
        .iter()
        .all(|what| of("sh", what) || of("busybox", what));
    let good = caught.as_ref().is_some_and(|(looked, name)| {
        *looked && !["exe", "cwd", "root", "environ", "fd"].iter().any(|what| of(name, what))
    });
    let tail: Vec<&str> = text.lines().rev().take(40).collect();
    node.check(
        "oci: CVE-2016-9962: who enters is seen and not looked into",
        started && good,
        (&caught, &tail),
    );
    node.check("oci: CVE-2016-9962: where one of the container's own is", control, &tail);
    stop();
    shell("rm -f /pools/oci/shared/seen");
}

/// Whether a process is in the container's pid namespace, and still a copy of the runtime.
fn is_ours_inside(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let inside = status
        .lines()
        .any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() == 3);
    let exe = fs::read_link(format!("/proc/{pid}/exe"));
    inside && exe.is_ok_and(|exe| exe.to_string_lossy().starts_with("/memfd:container"))
}

/// A first process that has gone into namespaces of its own leads nobody there.
fn leavers(node: &mut Node) {
    let mut config = config("");
    for (what, args, entered) in [
        ("that stays", json!(["busybox", "sh", "-c", WAIT]), true),
        ("that has left", json!(["busybox", "unshare", "-U", "busybox", "sh", "-c", WAIT]), false),
    ] {
        config["process"]["args"] = args;
        let started = start(&config);
        // Until it is what it becomes.
        let pid = state("c")["pid"].to_string();
        let waits = until(|| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).starts_with("busybox\0sh")
        });
        let ran = exec(&["c", "true"]);
        let good = if entered {
            ran.1 == Some(0)
        } else {
            ran.1 == Some(1) && ran.0.contains("has left the namespaces")
        };
        node.check(
            &format!("oci: exec beside a process {what}"),
            started && waits && good,
            (started, waits, &ran),
        );
        stop();
    }
}
