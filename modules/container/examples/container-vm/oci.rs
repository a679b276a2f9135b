//! The command line of the OCI runtime specification, MUST by MUST: the same code as in the program
//! `container`, called by its arguments. What must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci_devices as devices, oci_exec as exec, oci_holes as holes, oci_hooks as hooks,
    oci_musts as musts, oci_seccomp as seccomp, oci_terminal as terminal,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub(crate) const BUNDLE: &str = "/pools/oci/bundle";
pub(crate) const ROOT: &str = "/pools/oci/records";
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(node: &mut Node) {
    shell(&format!(
        "mkdir -p /pools/oci && mount -t tmpfs none /pools/oci && mkdir -p {BUNDLE}/rootfs/bin {BUNDLE}/rootfs/proc /pools/oci/shared && cd {BUNDLE}/rootfs && cp /bin/busybox bin/ && for a in sh cat ls id sleep true stat; do ln -s busybox bin/$a; done && printf '#!/bin/sh\\necho script $0 $1\\n' > bin/script && chmod 755 bin/script && ln -s /../../../outside link && mknod device c 1 3 && echo found > /pools/oci/shared/file",
    ));
    programs(node);
    life(node);
    process(node);
    namespaces(node);
    file_system(node);
    limits(node);
    refusals(node);
    musts::run(node);
    devices::run(node);
    seccomp::run(node);
    hooks::run(node);
    exec::run(node);
    terminal::run(node);
    holes::run(node);
    deaths(node);
    residue(node);
}

/// What `spec` writes, with a shell script as the program.
pub(crate) fn config(script: &str) -> Value {
    let path = format!("{BUNDLE}/config.json");
    // It may be there from the check before.
    fs::remove_file(&path).ok();
    oci(&["spec", "-b", BUNDLE]);
    let text = fs::read_to_string(&path).expect("spec writes it");
    let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
    config["process"]["args"] = json!(["sh", "-c", script]);
    config
}

pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["oci", "--root", ROOT]).args(words).stdin(Stdio::null());
    command
}

pub(crate) fn oci(words: &[&str]) -> Output {
    command(words).output().expect("we can be executed")
}

pub(crate) fn write(config: &Value) {
    fs::write(format!("{BUNDLE}/config.json"), config.to_string()).expect("there is room");
}

/// Runs a configuration to its end: what was said, and the exit code.
pub(crate) fn run_config(config: &Value) -> (String, Option<i32>) {
    write(config);
    let output = oci(&["run", "-b", BUNDLE, "c"]);
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.code())
}

/// Whether it went well, for calls without an answer. A container that is created inherits our
/// streams, so nobody waits for their end.
pub(crate) fn quiet(words: &[&str]) -> bool {
    let status = command(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("we can be executed").success()
}

pub(crate) fn state(id: &str) -> Value {
    serde_json::from_slice(&oci(&["state", id]).stdout).unwrap_or_default()
}

pub(crate) fn until(mut what: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if what() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn programs(node: &mut Node) {
    let ran = run_config(&config("echo out; echo err >&2; exit 7"));
    node.check("oci: run gives output and exit code", ran == ("out\nerr\n".into(), Some(7)), &ran);
    let ran = run_config(&config("kill -9 $$; kill -9 1; busybox kill -SEGV 1; exit 3"));
    node.check("oci: it is process 1, which cannot kill itself", ran.1 == Some(3), &ran);
    let rows: [(&str, &[&str], &str, Option<i32>); 4] = [
        ("along PATH", &["script", "one"], "script /bin/script one\n", Some(0)),
        ("by its path", &["/bin/busybox", "echo", "two"], "two\n", Some(0)),
        ("that is missing", &["none"], "executable file not found", Some(1)),
        // The file of the runtime, CVE-2019-5736.
        ("that is the runtime's own", &["/proc/self/exe"], "executable file not found", Some(1)),
    ];
    for (what, args, want, code) in rows {
        let mut config = config("");
        config["process"]["args"] = json!(args);
        let ran = run_config(&config);
        node.check(&format!("oci: a program {what}"), ran.0.contains(want) && ran.1 == code, &ran);
    }
    let shared = with_shared(&config(
        "trap 'exit 9' TERM; echo up > /shared/up; while :; do sleep 0.1; done",
    ));
    write(&shared);
    let mut child = command(&["run", "-b", BUNDLE, "c"]).spawn().expect("we can be executed");
    let up = until(|| Path::new("/pools/oci/shared/up").exists());
    shell(&format!("kill -TERM {}", child.id()));
    let code = child.wait().ok().and_then(|status| status.code());
    node.check("oci: run passes signals on", up && code == Some(9), code);
    fs::remove_file("/pools/oci/shared/up").ok();
}

/// With a directory of the node at `/shared`, which the root lacks.
pub(crate) fn with_shared(config: &Value) -> Value {
    let mut config = config.clone();
    let mounts = config["mounts"].as_array_mut().expect("there are mounts");
    mounts.push(json!({
        "destination": "/shared", "type": "bind", "source": "/pools/oci/shared", "options": ["rbind", "rw"]
    }));
    config
}

fn life(node: &mut Node) {
    let script = "echo ran > /shared/ran; while :; do sleep 0.1; done";
    let mut config = with_shared(&config(script));
    config["annotations"] = json!({ "org.example": "kept" });
    write(&config);
    let pid_file = "/pools/oci/pid";
    let created = quiet(&["create", "-b", BUNDLE, "--pid-file", pid_file, "c"]);
    node.check("oci: create", created, created);
    let before = state("c");
    node.check("oci: it is created", before["status"] == "created", &before);
    let good = before["id"] == "c"
        && before["bundle"] == BUNDLE
        && before["ociVersion"] == "1.2.0"
        && before["annotations"]["org.example"] == "kept";
    node.check("oci: its state says what it is", good, &before);
    let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.parse::<i64>().ok());
    let same = pid.is_some() && before["pid"].as_i64() == pid;
    node.check("oci: the pid file has its pid", same, pid);
    let ran = Path::new("/pools/oci/shared/ran").exists();
    node.check("oci: create executes nothing", !ran, ran);
    node.check("oci: an id is used once", !quiet(&["create", "-b", BUNDLE, "c"]), ());
    node.check("oci: a created container is not deleted", !quiet(&["delete", "c"]), ());
    // What changes now comes too late.
    config["process"]["args"] = json!(["sh", "-c", "echo changed > /shared/changed"]);
    write(&config);
    node.check("oci: start", quiet(&["start", "c"]), ());
    let ran = until(|| Path::new("/pools/oci/shared/ran").exists());
    let changed = Path::new("/pools/oci/shared/changed").exists();
    node.check("oci: start executes what was created", ran && !changed, (ran, changed));
    let running = state("c");
    let same = running["status"] == "running" && running["pid"] == before["pid"];
    node.check("oci: it runs", same, &running);
    let listed = String::from_utf8_lossy(&oci(&["list", "-q"]).stdout).into_owned();
    node.check("oci: it is listed", listed == "c\n", &listed);
    node.check("oci: it is not started again", !quiet(&["start", "c"]), ());
    node.check("oci: it is not deleted while it runs", !quiet(&["delete", "c"]), ());
    node.check("oci: kill", quiet(&["kill", "c", "KILL"]), ());
    let stopped = until(|| state("c")["status"] == "stopped");
    node.check("oci: a killed container has stopped", stopped, state("c"));
    node.check("oci: what has stopped is not killed", !quiet(&["kill", "c", "KILL"]), ());
    node.check("oci: what has stopped is not started", !quiet(&["start", "c"]), ());
    node.check("oci: delete", quiet(&["delete", "c"]), ());
    let gone = oci(&["state", "c"]);
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    node.check("oci: what is deleted does not exist", said.contains("does not exist"), &said);
    for words in [["start", "c"], ["delete", "c"], ["kill", "c"]] {
        node.check(&format!("oci: nor for {}", words[0]), !quiet(&words), ());
    }
    node.check("oci: delete --force of nothing", quiet(&["delete", "--force", "c"]), ());
    write(&with_shared(&self::config(script)));
    let again = quiet(&["create", "-b", BUNDLE, "c"]);
    node.check("oci: the id is free again", again, again);
    node.check("oci: delete --force kills", quiet(&["delete", "--force", "c"]), ());
    shell("rm -f /pools/oci/shared/ran");
}

pub(crate) fn has(output: &str, text: &str) -> bool {
    output.lines().any(|line| line.split_whitespace().eq(text.split_whitespace()))
}

fn process(node: &mut Node) {
    let script = "cat /proc/self/status /proc/self/limits /proc/self/oom_score_adj; echo pwd $PWD; echo mark $MARK; umask; busybox wc -c /proc/self/environ; ls /proc/self/fd";
    let mut config = config(script);
    config["process"]["user"] =
        json!({ "uid": 33, "gid": 44, "additionalGids": [55, 66], "umask": 0o77 });
    config["process"]["env"] = json!(["PATH=/bin", "MARK=here"]);
    config["process"]["cwd"] = json!("/proc");
    config["process"]["oomScoreAdj"] = json!(321);
    let two = json!(["CAP_KILL", "CAP_CHOWN"]);
    let one = json!(["CAP_KILL"]);
    config["process"]["capabilities"] = json!({
        "bounding": two, "permitted": two, "effective": one, "inheritable": one, "ambient": one
    });
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    let (output, _) = run_config(&config);
    for (what, want) in [
        ("user", "Uid: 33 33 33 33"),
        ("group", "Gid: 44 44 44 44"),
        ("more groups", "Groups: 55 66"),
        ("bounding set", "CapBnd: 0000000000000021"),
        ("ambient set", "CapAmb: 0000000000000020"),
        ("inheritable set", "CapInh: 0000000000000020"),
        // Of these, a user keeps what is ambient.
        ("effective set of a user", "CapEff: 0000000000000020"),
        ("permitted set of a user", "CapPrm: 0000000000000020"),
        ("no new privileges", "NoNewPrivs: 1"),
        ("resource limit", "Max open files 100 200 files"),
        ("score of the memory killer", "321"),
        ("working directory", "pwd /proc"),
        ("variable", "mark here"),
        ("umask", "0077"),
        ("no signal ignored", "SigIgn: 0000000000000000"),
        ("no signal blocked", "SigBlk: 0000000000000000"),
    ] {
        node.check(&format!("oci: {what}"), has(&output, want), &output);
    }
    let mut other = self::config("cat /proc/self/status");
    other["process"]["noNewPrivileges"] = json!(false);
    let (output, _) = run_config(&other);
    node.check(
        "oci: new privileges when they are asked for",
        has(&output, "NoNewPrivs: 0"),
        &output,
    );
}

fn namespaces(node: &mut Node) {
    let inside = |config: &Value, kind: &str| {
        let mut config = config.clone();
        config["process"]["args"] = json!(["busybox", "readlink", format!("/proc/self/ns/{kind}")]);
        run_config(&config).0
    };
    let ours = |kind: &str| shell(&format!("readlink /proc/self/ns/{kind}"));
    let all = config("");
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let theirs = inside(&all, kind);
        let own = theirs.starts_with(kind) && theirs != ours(kind);
        node.check(&format!("oci: its own {kind} namespace"), own, &theirs);
    }
    let mut few = config("");
    few["linux"]["namespaces"] =
        json!([{ "type": "mount" }, { "type": "pid" }, { "type": "cgroup" }]);
    few["hostname"] = Value::Null;
    for kind in ["net", "ipc", "uts", "user"] {
        let theirs = inside(&few, kind);
        node.check(&format!("oci: our {kind} namespace"), theirs == ours(kind), &theirs);
    }
    shell(
        "touch /pools/oci/netns && busybox unshare -n busybox mount --bind /proc/self/ns/net /pools/oci/netns",
    );
    let wanted = shell("busybox stat -c %i /pools/oci/netns");
    let mut joined = config("");
    joined["linux"]["namespaces"] = json!([
        { "type": "mount" }, { "type": "pid" }, { "type": "cgroup" },
        { "type": "network", "path": "/pools/oci/netns" }
    ]);
    joined["hostname"] = Value::Null;
    let theirs = inside(&joined, "net");
    node.check("oci: a namespace of others", theirs.contains(wanted.trim()), (&theirs, &wanted));
    joined["linux"]["namespaces"][3]["path"] = json!("/proc/self/ns/uts");
    let ran = run_config(&joined);
    node.check("oci: a namespace of another type", ran.1 == Some(1), &ran);
    shell("busybox umount /pools/oci/netns");

    let mut config = config(
        "busybox hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax",
    );
    config["hostname"] = json!("other");
    config["domainname"] = json!("example");
    config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "4096" });
    let before = shell("hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax");
    let ran = run_config(&config);
    node.check("oci: names and settings", ran.0 == "other\nexample\n1\n4096\n", &ran);
    let after = shell("hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax");
    node.check("oci: and those of the node stay", before == after, (&before, &after));

    let mut config = self::config(
        "cat /proc/self/uid_map; busybox id -u; echo x > /dev/null && echo null; echo y > /dev/own && ls -ln /dev/own; ls -ln /bin/busybox",
    );
    let spaces = config["linux"]["namespaces"].as_array_mut().expect("there are some");
    spaces.push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    // Engines give the root to the user who is root inside.
    shell(&format!("chown -R 100000:100000 {BUNDLE}/rootfs"));
    let (output, _) = run_config(&config);
    shell(&format!("chown -R 0:0 {BUNDLE}/rootfs"));
    for (what, good) in [
        ("ids are mapped", has(&output, "0 100000 1000")),
        ("root inside", has(&output, "0")),
        ("devices work with mapped ids", has(&output, "null")),
        ("/dev is root's", output.contains("0        0") && output.contains("/dev/own")),
    ] {
        node.check(&format!("oci: {what}"), good, &output);
    }
}

fn file_system(node: &mut Node) {
    let script = "echo x > /new && echo wrote; busybox stat -c %F,%t,%T /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; for l in fd stdin stdout stderr ptmx; do busybox readlink /dev/$l; done; echo x > /device && echo opened; echo x > /dev/null && echo null; cat /proc/kcore | busybox wc -c; ls -A /proc/acpi | busybox wc -l; echo 1 > /proc/sys/kernel/panic; ls -A /dev";
    let (output, _) = run_config(&config(script));
    node.check("oci: a read-only root", !has(&output, "wrote"), &output);
    for (device, numbers) in [
        ("null", "1,3"),
        ("zero", "1,5"),
        ("full", "1,7"),
        ("random", "1,8"),
        ("urandom", "1,9"),
        ("tty", "5,0"),
    ] {
        let want = format!("character special file,{numbers}");
        node.check(&format!("oci: /dev/{device}"), has(&output, &want), &output);
    }
    for link in
        ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]
    {
        node.check(&format!("oci: a link to {link}"), has(&output, link), &output);
    }
    node.check("oci: a device of the root cannot be opened", !has(&output, "opened"), &output);
    node.check("oci: that of /dev can", has(&output, "null"), &output);
    node.check("oci: masked paths are empty", output.contains("\n0\n0\n"), &output);
    node.check(
        "oci: read-only paths",
        output.contains("can't create /proc/sys/kernel/panic"),
        &output,
    );
    node.check("oci: nothing of ours is in /dev", !output.contains(".zos"), &output);

    let mut config = with_shared(&config(
        "echo x > /new && echo wrote; cat /shared/file; cat /one; echo y > /one && echo two; ls /link/inner; cat /var/deep/file",
    ));
    config["root"]["readonly"] = json!(false);
    let mounts = config["mounts"].as_array_mut().expect("there are mounts");
    let bind = |to: &str, from: &str, options: &[&str]| json!({ "destination": to, "type": "bind", "source": from, "options": options });
    mounts.push(bind("/one", "/pools/oci/shared/file", &["bind", "ro"]));
    mounts.push(json!({ "destination": "/var", "type": "tmpfs", "source": "tmpfs" }));
    mounts.push(bind("/var/deep", "/pools/oci/shared", &["rbind"]));
    mounts.push(bind("/link/inner", "/pools/oci/shared", &["rbind"]));
    shell(&format!("mkdir -p {BUNDLE}/rootfs/outside"));
    let (output, _) = run_config(&config);
    node.check("oci: a root that can be written", has(&output, "wrote"), &output);
    let n_found = output.lines().filter(|line| *line == "found").count();
    node.check(
        "oci: files and directories, in order, at places that are made",
        n_found == 3,
        &output,
    );
    node.check("oci: a read-only mount", output.contains("/one: Read-only"), &output);
    node.check("oci: links lead around inside the root", has(&output, "file"), &output);
    let outside = Path::new("/outside").exists();
    node.check("oci: and nothing is made outside", !outside, outside);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let leaked = mounts.lines().filter(|line| line.contains("/pools/oci/bundle")).count();
    node.check("oci: no mount reaches the node", leaked == 0, &mounts);
    config["mounts"][0]["source"] = json!("/pools/oci/none");
    config["mounts"][0]["type"] = json!("bind");
    let ran = run_config(&config);
    node.check("oci: a source that is missing", ran.1 == Some(1), &ran);
}

fn limits(node: &mut Node) {
    let mut config = config("sleep 100");
    config["linux"]["cgroupsPath"] = json!("/oci-checks/deep/c");
    config["linux"]["resources"] = json!({
        "memory": { "limit": 67_108_864 }, "pids": { "limit": 20 },
        "cpu": { "quota": 50_000, "period": 100_000, "shares": 1024 },
        "unified": { "memory.high": "33554432" }
    });
    write(&config);
    let ran = quiet(&["run", "--detach", "-b", BUNDLE, "c"]);
    node.check("oci: run --detach", ran && state("c")["status"] == "running", state("c"));
    let values = shell(
        "cd /sys/fs/cgroup/oci-checks/deep/c && cat memory.max pids.max cpu.max cpu.weight memory.high",
    );
    let want = "67108864\n20\n50000 100000\n39\n33554432\n";
    node.check("oci: limits are as asked", values == want, &values);
    node.check("oci: kill --all", quiet(&["kill", "--all", "c", "KILL"]), ());
    let stopped = until(|| state("c")["status"] == "stopped");
    node.check("oci: ends all of it", stopped && quiet(&["delete", "c"]), stopped);
    let left = Path::new("/sys/fs/cgroup/oci-checks/deep/c").exists();
    node.check("oci: its cgroup goes with it", !left, left);
    shell("cd /sys/fs/cgroup && rmdir oci-checks/deep oci-checks");
}

fn refusals(node: &mut Node) {
    let mut news = config("exit 0");
    news["something"] = json!({ "new": true });
    let ran = run_config(&news);
    node.check("oci: an unknown property is skipped", ran.1 == Some(0), &ran);
    let rows: [(&str, &str, Value); 8] = [
        ("a version of the future", "/ociVersion", json!("9.0.0")),
        ("a relative working directory", "/process/cwd", json!("tmp")),
        ("no program", "/process/args", json!([])),
        ("a relative hook", "/hooks", json!({ "prestart": [{ "path": "bin/true" }] })),
        (
            "a filter that asks somebody",
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
        ),
        ("a setting of the node", "/linux/sysctl", json!({ "kernel.panic": "1" })),
        ("no mount namespace", "/linux/namespaces", json!([{ "type": "pid" }])),
        (
            "all capabilities",
            "/process/capabilities",
            json!({ "bounding": ["CAP_SYS_ADMIN", "CAP_MKNOD"] }),
        ),
    ];
    for (what, path, value) in rows {
        let mut config = config("exit 0");
        let (parent, name) = path.rsplit_once('/').expect("it is a path");
        config.pointer_mut(parent).expect("the parent is there")[name] = value;
        let ran = run_config(&config);
        node.check(&format!("oci: refused: {what}"), ran.1 == Some(1), &ran);
    }
    fs::remove_file(format!("{BUNDLE}/config.json")).ok();
    node.check(
        "oci: refused: a bundle without configuration",
        !quiet(&["run", "-b", BUNDLE, "c"]),
        (),
    );
    write(&config("exit 0"));
    node.check("oci: refused: a bad id", !quiet(&["run", "-b", BUNDLE, "../c"]), ());
    let output = oci(&["--log", "/pools/oci/log", "--log-format", "json", "state", "none"]);
    let line = fs::read_to_string("/pools/oci/log").unwrap_or_default();
    let logged: Value = serde_json::from_str(&line).unwrap_or_default();
    let good = logged["level"] == "error"
        && logged["msg"].as_str().is_some_and(|text| text.contains("does not exist"));
    node.check("oci: errors are logged as asked", good && !output.status.success(), &line);
}

/// `create` is killed at any moment, twelve times: no process stays, and the id can be used again.
fn deaths(node: &mut Node) {
    let mut config = with_shared(&config("while :; do sleep 1; done"));
    config["linux"]["cgroupsPath"] = json!("/oci-deaths/c");
    write(&config);
    // Also when no creator comes so far.
    shell("mkdir -p /sys/fs/cgroup/oci-deaths");
    let processes =
        || fs::read_to_string("/sys/fs/cgroup/oci-deaths/c/cgroup.procs").unwrap_or_default();
    let (mut made, mut clean) = (0, 0);
    for round in 0..12_u32 {
        let mut child: Child = command(&["create", "-b", BUNDLE, "c"]).spawn().expect("ourselves");
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(u64::from(round) * 60) {
            std::thread::yield_now();
        }
        child.kill().ok();
        child.wait().ok();
        if state("c")["status"] == "created" {
            made += 1;
        } else {
            // It waited at a gate that its creator held, or was never made.
            clean += u32::from(until(|| processes().is_empty()));
        }
        quiet(&["delete", "--force", "c"]);
    }
    println!("     {made} creations were faster, {clean} were lost");
    node.check("oci: a killed creator leaves no process", made + clean == 12, (made, clean));
    node.check("oci: and nothing of a deleted one", processes().is_empty(), processes());
    // A creator that was killed before the record could not say which group was its.
    shell("cd /sys/fs/cgroup && rmdir oci-deaths/c 2>/dev/null; rmdir oci-deaths");
    let ran = run_config(&self::config("echo again"));
    node.check("oci: and the id can be used", ran.0 == "again\n", &ran);
}

fn residue(node: &mut Node) {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count();
    let before = mounts();
    let mut config = config("");
    config["process"]["args"] = json!(["true"]);
    let started = Instant::now();
    let good = (0..40).filter(|_| run_config(&config).1 == Some(0)).count();
    println!("     40 runs in {:?}", started.elapsed());
    node.check("oci: forty runs, each to its end", good == 40, good);
    node.check("oci: no mount is left", mounts() == before, (before, mounts()));
    let records = shell(&format!("ls -A {ROOT}"));
    node.check("oci: no record is left", records.is_empty(), &records);
    let groups = shell("cd /sys/fs/cgroup/zos-oci && ls -d */ 2>/dev/null || true");
    node.check("oci: no cgroup is left", groups.is_empty(), &groups);
    shell("rmdir /sys/fs/cgroup/zos-oci; umount /pools/oci");
}
