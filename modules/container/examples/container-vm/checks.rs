//! Commands of health checks on the kernel: they have the walls of the container's program, bring nothing
//! of the node along, and end with all that they start, whatever they do. What must not work stands beside
//! what must.

use crate::node::{Node, Running, shell};
use container::usage;
use node_api::{
    launcher::{Check, CheckEnd, CheckReply, Mount, MountSource, Start},
    paths,
};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Above all that a check takes here.
const PATIENCE: Duration = Duration::from_mins(2);
/// A program that says that it is up, and waits.
pub(crate) const WAIT: &str = "echo up; while :; do sleep 1; done";

pub(crate) fn run(node: &mut Node) {
    ends(node);
    walls(node);
    programs(node);
    residue(node);
    strangers(node);
    crowd(node);
    spies(node);
    deaths(node);
    memory(node);
}

fn check(running: &Running, command: &[&str]) -> Check {
    Check {
        id: running.id.clone(),
        pid: running.reply.pid,
        command: command.iter().map(|&word| word.to_owned()).collect(),
        env: vec!["PATH=/bin:/usr/bin".to_owned(), "MARK=check".to_owned()],
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        timeout_s: 30,
    }
}

fn ask(check: &Check) -> Result<CheckReply, ipc::CallError> {
    ipc::Client::connect(paths::LAUNCHER_SOCKET)?.with_timeout(PATIENCE).call(check)
}

/// What a script says as a check, and how it ends.
pub(crate) fn said(running: &Running, script: &str) -> String {
    match ask(&check(running, &["sh", "-c", script])) {
        Ok(CheckReply { end: CheckEnd::Exited(0), said }) => said,
        other => format!("{other:?}"),
    }
}

fn refusal(check: &Check) -> String {
    match ask(check) {
        Err(ipc::CallError::Refused { failure, .. }) => failure.name,
        other => format!("{other:?}"),
    }
}

fn group(id: &str) -> PathBuf {
    Path::new(paths::CGROUP_WORK).join(id).join("check")
}

/// The program has said that it is up; gives all that it said before.
pub(crate) fn up(running: &Running) -> String {
    let (mut output, mut some) = (Vec::new(), [0; 4096]);
    while !output.ends_with(b"up\n") {
        match rustix::io::read(&running.log, &mut some) {
            Ok(0) | Err(_) => break,
            Ok(n) => output.extend_from_slice(&some[..n]),
        }
    }
    String::from_utf8_lossy(&output).into_owned()
}

/// Starts a container that waits for its end.
fn waiting(node: &mut Node) -> Running {
    let start = node.request(&["sh", "-c", WAIT]);
    started(node, &start)
}

pub(crate) fn started(node: &mut Node, start: &Start) -> Running {
    let running = node.start(start).expect("a container starts");
    up(&running);
    running
}

fn end(running: Running) {
    running.signal(Signal::KILL);
    running.wait();
}

/// Waits for what comes by itself, and tells whether it came.
fn until(what: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !what() && Instant::now() < deadline {
        thread::yield_now();
    }
    what()
}

fn ends(node: &mut Node) {
    let running = waiting(node);
    for (what, script, end, says) in [
        ("returns 0", "echo fine", CheckEnd::Exited(0), "fine\n"),
        ("returns another code", "echo bad >&2; exit 7", CheckEnd::Exited(7), "bad\n"),
        ("is ended by a signal", "kill -11 $$", CheckEnd::Killed(11), ""),
        ("is killed", "kill -9 $$", CheckEnd::Killed(9), ""),
    ] {
        let reply = ask(&check(&running, &["sh", "-c", script]));
        let good = reply.as_ref().is_ok_and(|reply| reply.end == end && reply.said == says);
        node.check(&format!("check: its command {what}"), good, &reply);
    }
    let reply = ask(&check(&running, &["sh", "-c", "busybox seq 1 20000; echo last"]));
    let good = reply.as_ref().is_ok_and(|reply| {
        reply.end == CheckEnd::Exited(0)
            && reply.said.ends_with("\n20000\nlast\n")
            && reply.said.len() <= 1024
    });
    node.check("check: of what it says the end is kept", good, &reply);
    let mut endless = check(&running, &["sh", "-c", "while :; do echo more; done"]);
    endless.timeout_s = 1;
    let reply = ask(&endless);
    let late = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Late);
    node.check("check: who never stops talking is late", late, &reply);
    let output =
        said(&running, "echo $MARK; pwd; busybox wc -c < /dev/stdin; echo x > /dev/stderr");
    node.check("check: it has its words and streams", output == "check\n/\n0\nx\n", &output);
    end(running);
}

/// Everything that holds the program of a container holds what a check executes in it.
fn walls(node: &mut Node) {
    let look = "busybox grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Sig(Ign|Blk)):' /proc/self/status; cat /proc/self/uid_map /proc/self/oom_score_adj /proc/self/limits; umask; busybox readlink /proc/self/root /proc/self/cwd; for n in cgroup ipc mnt net pid user uts; do busybox readlink /proc/self/ns/$n; done; busybox cut -d' ' -f3- /proc/self/mountinfo";
    let sum = format!("({look}) 2>&1 | busybox sha256sum");
    for (uid, gid) in [(0, 0), (33, 44)] {
        let mut start = node.request(&["sh", "-c", &format!("{sum}; {WAIT}")]);
        (start.uid, start.gid) = (uid, gid);
        let running = node.start(&start).expect("a container starts");
        let program = up(&running);
        let asked = |script: &str| {
            let mut asked = check(&running, &["sh", "-c", script]);
            (asked.uid, asked.gid) = (uid, gid);
            ask(&asked).map(|reply| reply.said).unwrap_or_default()
        };
        let same = asked(&sum);
        // The lines that have to be known; more than these are not kept of what a check says.
        let output = asked(&format!("({look}) 2>&1 | busybox head -n 16"));
        let has = |line: &str| {
            output.lines().any(|have| have.split_whitespace().eq(line.split_whitespace()))
        };
        let capabilities = if uid == 0 { "5fb" } else { "000" };
        let expected = [
            format!("Uid: {uid} {uid} {uid} {uid}"),
            format!("CapEff: 0000000000000{capabilities}"),
            format!("CapBnd: 0000000000000{capabilities}"),
            "NoNewPrivs: 1".to_owned(),
            "Seccomp: 2".to_owned(),
            "Seccomp_filters: 2".to_owned(),
            "0 1048576 65536".to_owned(),
        ];
        let is_same = !same.is_empty() && program == format!("{same}up\n");
        node.check(
            &format!("check: as user {uid} it has the walls and namespaces of the program"),
            is_same && expected.iter().all(|one| has(one)),
            (program, &same, &output),
        );
        end(running);
    }
    let running = waiting(node);
    let output =
        said(&running, "cat /proc/self/cgroup; busybox mkdir /sys/fs/cgroup/x 2>&1 || echo no");
    let good = output.starts_with("0::/check\n") && output.ends_with("no\n");
    node.check("check: it is in a group inside that of its container", good, &output);
    let reply = ask(&check(&running, &["/bin/probe", "probe", "calls"]));
    let output = reply.map(|reply| reply.said).unwrap_or_default();
    let refused = ["setns", "mount", "open_tree", "pivot_root", "packet-socket"];
    let refused = refused.iter().all(|call| output.contains(&format!("{call}=Os {{ code: 1,")));
    let landlock = output.contains("mknod=Os { code: 13,");
    let control = ["getcwd=done", "socket=done", "thread=true"];
    let control = control.iter().all(|wanted| output.lines().any(|line| line == *wanted));
    node.check("check: filters and Landlock hold it", refused && landlock && control, &output);
    let reply = ask(&check(&running, &["/bin/probe", "probe", "fds"]));
    let output = reply.map(|reply| reply.said).unwrap_or_default();
    let fds: Vec<&str> = output.lines().collect();
    let streams = matches!(fds.as_slice(), [a, b, c]
        if *a == "0=/dev/null" && b.starts_with("1=pipe:") && c.starts_with("2=pipe:"));
    node.check("check: it has three descriptors and no other", streams, &output);
    // Landlock: a check is no part of the program, though it is beside it.
    let output =
        said(&running, "kill -0 1 2>/dev/null || echo refused; kill -0 $$ && echo control");
    node.check("check: it sends no signal to the program", output == "refused\ncontrol\n", &output);
    end(running);
}

/// It executes what the container's program could execute, and that by itself.
fn programs(node: &mut Node) {
    shell("mkdir -p /pools/check && cp /bin/busybox /pools/check/program");
    let mut start = node.request(&[
        "sh",
        "-c",
        &format!(
            "busybox cp /bin/busybox /tmp/program; busybox ln -s /bin/busybox /tmp/link; {WAIT}"
        ),
    ]);
    start.mounts.push(Mount {
        path: "/data".to_owned(),
        source: MountSource::Directory { path: "/pools/check".to_owned() },
    });
    let running = started(node, &start);
    for (what, program) in [
        ("along PATH", "busybox"),
        ("by its path", "/bin/busybox"),
        ("by a link of the flist", "/usr/bin/busybox"),
    ] {
        let reply = ask(&check(&running, &[program, "true"]));
        let good = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Exited(0));
        node.check(&format!("check: a program {what}"), good, &reply);
    }
    let reply = ask(&check(&running, &["script", "one"]));
    let good = reply.as_ref().is_ok_and(|reply| reply.said == "script /bin/script one\n");
    node.check("check: a script of the flist", good, &reply);
    for (what, program) in [
        ("that is missing", "/bin/none"),
        ("that is not there along PATH", "none"),
        ("that is a directory", "/bin"),
        ("without x", "/etc/passwd"),
        ("that was written to memory", "/tmp/program"),
        ("that was written to a volume", "/data/program"),
        ("behind a link that was written", "/tmp/link"),
    ] {
        let name = refusal(&check(&running, &[program, "true"]));
        node.check(&format!("check: a program {what}"), name == "entrypoint_missing", &name);
    }
    // It is there, and the disk has something else: that is not held against the container.
    let name = refusal(&check(&running, &["/bin/damaged"]));
    node.check("check: a program that is damaged", name == "root_mount_failed", &name);
    // CVE-2019-5736, CVE-2024-21626: what enters is a copy of the launcher, with its descriptors.
    let own: Vec<String> = ["/proc/self/exe", "/proc/thread-self/exe"]
        .map(|program| refusal(&check(&running, &[program, "true"])))
        .into();
    let good = own.iter().all(|name| name == "entrypoint_missing");
    node.check("check: CVE-2019-5736: the program of the launcher is not executed", good, &own);
    let in_directory = |cwd: &str| {
        let mut asked = check(&running, &["busybox", "pwd"]);
        cwd.clone_into(&mut asked.cwd);
        match ask(&asked) {
            Ok(reply) => reply.said,
            Err(ipc::CallError::Refused { failure, .. }) => failure.name,
            Err(error) => error.to_string(),
        }
    };
    let names: Vec<String> =
        (3..16).map(|number| in_directory(&format!("/proc/self/fd/{number}"))).collect();
    let control = in_directory("/srv");
    let good = names.iter().all(|name| name == "cwd_missing") && control == "/srv\n";
    node.check(
        "check: CVE-2024-21626: no descriptor of the launcher is its directory",
        good,
        (&names, &control),
    );
    end(running);
}

/// Nothing stays of a check, also of what it has detached.
fn residue(node: &mut Node) {
    let running = waiting(node);
    let left = || {
        let n = shell("ps -o args | grep -c '^sleep 7777' || true");
        (n.trim().to_owned(), group(&running.id).exists())
    };
    let none = ("0".to_owned(), false);
    let children = "sleep 7777 & busybox setsid sleep 7777 & (sleep 7777 &) ; ";
    let mut late = check(&running, &["sh", "-c", &format!("{children} trap '' TERM; sleep 7777")]);
    late.timeout_s = 20;
    let asked = thread::spawn(move || ask(&late));
    let seen = until(|| left() == ("4".to_owned(), true));
    let reply = asked.join().expect("it asks");
    let good = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Late);
    node.check("check: who is late is killed", seen && good, &reply);
    node.check("check: and all that it has started", left() == none, left());
    let reply = ask(&check(&running, &["sh", "-c", &format!("{children} exit 0")]));
    let good = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Exited(0));
    node.check("check: who ends leaves nothing either", good && left() == none, (&reply, left()));
    let procs = fs::read_to_string(group(&running.id).with_file_name("cgroup.procs"));
    let alive =
        procs.is_ok_and(|text| text.lines().any(|pid| pid == running.reply.pid.to_string()));
    node.check("check: the container goes on", alive, alive);
    end(running);
}

/// A number that is not that of the container's first process leads nowhere.
fn strangers(node: &mut Node) {
    let start = node.request(&["sh", "-c", &format!("sleep 7777 & {WAIT}")]);
    let (one, other) = (started(node, &start), waiting(node));
    let launcher = i32::try_from(node.launcher.id()).expect("a pid");
    let procs = Path::new(paths::CGROUP_WORK).join(&one.id).join("cgroup.procs");
    // The program's other child ends within a second.
    let second = || {
        let lasts = |pid: &&str| {
            let words = fs::read(format!("/proc/{pid}/cmdline"));
            words.is_ok_and(|words| words == b"sleep\x007777\x00")
        };
        fs::read_to_string(&procs).ok()?.lines().find(lasts)?.parse::<i32>().ok()
    };
    until(|| second().is_some());
    let second = second();
    node.check("check: a later process is there", second.is_some(), second);
    let second = second.unwrap_or_default();
    for (what, pid, wanted) in [
        ("of another container", other.reply.pid, "namespace_failed"),
        ("of the launcher", launcher, "namespace_failed"),
        ("of a later process of it", second, "namespace_failed"),
        ("of nobody", 4_000_000, "namespace_failed"),
        ("of init", 1, "plan_invalid"),
    ] {
        let name = refusal(&Check { pid, ..check(&one, &["busybox", "true"]) });
        node.check(&format!("check: by the number {what}"), name == wanted, (&name, pid));
    }
    let reply = ask(&check(&one, &["busybox", "true"]));
    let good = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Exited(0));
    node.check("check: by its own number", good, &reply);
    let bad = Check { id: "../system".to_owned(), ..check(&one, &["busybox", "true"]) };
    let name = refusal(&bad);
    node.check("check: an id leaves no directory", name == "plan_invalid", &name);
    end(one);
    end(other);
}

/// However many hang, others are started and checked.
fn crowd(node: &mut Node) {
    let all: Vec<Running> = (0..8).map(|_| waiting(node)).collect();
    let hang = |running: &Running| -> JoinHandle<_> {
        let mut hanging = check(running, &["sh", "-c", "sleep 7777"]);
        hanging.timeout_s = 60;
        thread::spawn(move || ask(&hanging))
    };
    let hanging: Vec<_> = all.iter().map(hang).collect();
    let hang = until(|| all.iter().all(|running| group(&running.id).exists()));
    let start = node.request(&["sh", "-c", "echo ran"]);
    let ended = node.run(&start);
    let free = waiting(node);
    let reply = ask(&check(&free, &["busybox", "true"]));
    let nobody_ended = hanging.iter().all(|asked| !asked.is_finished());
    let good = ended.as_ref().is_ok_and(|ended| ended.output == "ran\n")
        && reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Exited(0));
    node.check(
        "check: those that hang hold nobody up",
        hang && good && nobody_ended,
        (hang, &ended, &reply, nobody_ended),
    );
    let name = all.first().map(|one| refusal(&check(one, &["busybox", "true"])));
    let good = name.as_deref() == Some("already_running");
    node.check("check: one at a time in each container", good, &name);
    // A container ends in the middle of its check, and is not held by it.
    for running in all {
        end(running);
    }
    let replies: Vec<_> = hanging.into_iter().map(|asked| asked.join().expect("it asks")).collect();
    let no_answer = |reply: &Result<CheckReply, _>| matches!(reply, Err(ipc::CallError::Refused { failure, .. }) if failure.name == "namespace_failed");
    node.check(
        "check: it ends with its container, which is no answer",
        replies.iter().all(no_answer),
        &replies,
    );
    end(free);
}

/// A container that looks at whoever enters sees its own programs alone. Each check lasts until the container
/// has looked around and sent its signals, which have killed a program of its own.
fn spies(node: &mut Node) {
    let script = ": > /tmp/killed; echo up; while :; do sleep 7777 & for p in /proc/[0-9]*; do (busybox readlink $p/exe; busybox readlink $p/cwd; ls -l $p/fd; cat $p/environ) >> /tmp/seen 2>/dev/null; done; kill -9 -1; kill -19 -1; wait $!; echo $? >> /tmp/killed; done 2>/dev/null";
    let patient = "seen() { busybox grep -c '^137$' /tmp/killed; }; n=$(($(seen) + 2)); while [ $(seen) -lt $n ]; do sleep 1; done; echo here";
    let start = node.request(&["sh", "-c", script]);
    let running = started(node, &start);
    let replies: Vec<_> = (0..4).map(|_| ask(&check(&running, &["sh", "-c", patient]))).collect();
    let passed = |reply: &Result<CheckReply, _>| matches!(reply, Ok(reply) if reply.end == CheckEnd::Exited(0) && reply.said == "here\n");
    let good = replies.iter().all(passed);
    node.check("check: the container's signals do not reach it", good, &replies);
    let output = said(
        &running,
        "busybox grep -q /bin/busybox /tmp/seen && echo control; busybox grep -E -m 5 'launcher|/run/zos|socket:|net:|mnt:' /tmp/seen; echo end",
    );
    node.check("check: who enters is not looked into", output == "control\nend\n", &output);
    end(running);
}

/// The launcher ends in the middle of a check: the next one ends what is left, and checks again.
fn deaths(node: &mut Node) {
    let running = waiting(node);
    let hanging = check(&running, &["sh", "-c", "sleep 7777 & sleep 7777"]);
    let asked = thread::spawn(move || ask(&hanging));
    let sleeps = || shell("ps -o args | grep -c '^sleep 7777' || true").trim().to_owned();
    let hangs = until(|| sleeps() == "2");
    node.restart_launcher();
    let gone = until(|| sleeps() == "0");
    node.check(
        "check: the next launcher ends what one that died has left",
        hangs && gone,
        sleeps(),
    );
    // Its minder has outlived it here, where no init ends it, and has itself killed nothing.
    let reply = asked.join().expect("it asks");
    let good = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Killed(9));
    node.check("check: before its time is over", good, &reply);
    let reply = ask(&check(&running, &["busybox", "true"]));
    let good = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Exited(0));
    node.check("check: and executes others", good, &reply);
    end(running);
}

/// What a check takes, its container takes.
fn memory(node: &mut Node) {
    let mut start = node.request(&["sh", "-c", WAIT]);
    start.limits.memory_bytes = 48 << 20;
    let running = started(node, &start);
    let reply = ask(&check(&running, &["/bin/probe", "probe", "eat"]));
    running.until_end();
    let usage = usage::read(&Path::new(paths::CGROUP_WORK).join(&running.id));
    let told = usage.ok().and_then(|usage| usage.limit_met());
    let ended = running.wait();
    let good = ended.signal == Some(9)
        && told.as_ref().is_some_and(|why| why.contains("more memory than its contract"));
    node.check("check: its memory is the container's", good, (&reply, &ended, told));
    let mut start = node.request(&["sh", "-c", WAIT]);
    start.limits.pids_max = 8;
    let running = started(node, &start);
    let reply = ask(&check(
        &running,
        &["sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do sleep 7777 & done; wait"],
    ));
    let good = reply.as_ref().is_ok_and(|reply| {
        matches!(reply.end, CheckEnd::Exited(1..)) && reply.said.contains("fork")
    });
    node.check("check: so are its processes", good, &reply);
    let reply = ask(&check(&running, &["busybox", "true"]));
    let good = reply.as_ref().is_ok_and(|reply| reply.end == CheckEnd::Exited(0));
    node.check("check: for one there is room again", good, &reply);
    end(running);
}
