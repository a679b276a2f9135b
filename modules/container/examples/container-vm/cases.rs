//! The checks, in the order in which a container meets its walls.

use crate::{
    checks, cves, disks,
    node::{self, Node, shell},
    oci, overlays, ways,
};
use container::usage;
use node_api::{
    launcher::{Mount, MountSource, Root},
    paths,
};
use rustix::process::Signal;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// The launcher closes the connection of a caller that is gone by then.
const LAST_CALLER: Duration = Duration::from_secs(10);

pub(crate) fn run(node: &mut Node) {
    programs(node);
    identity(node);
    file_system(node);
    walls(node);
    ways::run(node);
    volumes(node);
    overlays::run(node);
    network(node);
    limits(node);
    disks::run(node);
    refusals(node);
    hostile(node);
    cves::run(node);
    checks::run(node);
    deaths(node);
    residue(node);
    oci::run(node);
}

pub(crate) fn lines<'a>(output: &'a str, start: &str) -> Vec<&'a str> {
    output.lines().filter(|line| line.starts_with(start)).collect()
}

fn programs(node: &mut Node) {
    let start = node.request(&["/bin/probe", "probe", "fds"]);
    let digest = node.probe_digest.clone();
    match node.start(&start) {
        Ok(running) => {
            let seen = running.reply.entrypoint_digest.clone();
            let ended = running.wait();
            node.check("a verified program runs", ended.code == Some(0), &ended);
            node.check("its digest is reported as measured", seen == digest, &seen);
            let fds: Vec<&str> = ended.output.lines().collect();
            let streams = matches!(fds.as_slice(), [a, b, c]
                if *a == "0=/dev/null" && b.starts_with("1=pipe:") && c.starts_with("2=pipe:"));
            node.check("it has three descriptors and no other", streams, &fds);
        }
        Err(error) => {
            let why = daemon::chain(&error);
            node.check("a verified program runs", false, why);
        }
    }
    let rows: [(&str, &[&str], &str); 5] = [
        ("a program is found along PATH", &["sh", "-c", "echo $0 $MARK"], "sh here\n"),
        ("a script runs under its own name", &["script", "one"], "script /bin/script one\n"),
        ("a script inside the image runs", &["tiny", "two"], "tiny two\n"),
        (
            "links stay inside the root",
            &["/bin/escape", "echo", "in"],
            "escape: applet not found\n",
        ),
        ("links of directories work", &["/usr/bin/sh", "-c", "exit 7"], ""),
    ];
    for (what, command, want) in rows {
        let start = node.request(command);
        let ended = node.run(&start);
        let good = ended.as_ref().is_ok_and(|ended| ended.output == want);
        node.check(what, good, &ended);
    }
    let start = node.request(&["sh", "-c", "kill -0 1 && echo pid $$ && trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 1; done"]);
    if let Ok(running) = node.start(&start) {
        let mut first = [0; 64];
        while !String::from_utf8_lossy(&first).contains("up") {
            let n = rustix::io::read(&running.log, &mut first).unwrap_or(0);
            if n == 0 {
                break;
            }
        }
        running.signal(Signal::TERM);
        let ended = running.wait();
        node.check("a handler of SIGTERM runs in PID 1", ended.code == Some(3), &ended);
    }
}

fn identity(node: &mut Node) {
    let script = "echo $$; cat /proc/self/status; cat /proc/self/uid_map; hostname; cat /proc/self/cgroup; cat /proc/self/oom_score_adj; cat /proc/sys/user/max_user_namespaces /proc/sys/vm/memfd_noexec";
    let start = node.request(&["sh", "-c", &script.replace("hostname", "busybox hostname")]);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    let has =
        |text: &str| output.lines().any(|line| line.split_whitespace().eq(text.split_whitespace()));
    let rows = [
        ("it is process 1 of its namespace", "1"),
        ("its ids are shifted", "0 1048576 65536"),
        ("it has a host name", "vmtest"),
        ("its cgroup is the root of what it sees", "0::/"),
        ("no new privileges", "NoNewPrivs: 1"),
        ("two filters", "Seccomp_filters: 2"),
        ("root keeps nine capabilities", "CapEff: 00000000000005fb"),
        ("and can get no other", "CapBnd: 00000000000005fb"),
        ("none is inheritable", "CapInh: 0000000000000000"),
        ("none is ambient", "CapAmb: 0000000000000000"),
        ("no extra groups", "Groups:"),
        ("no signal is ignored", "SigIgn: 0000000000000000"),
        ("no signal is blocked", "SigBlk: 0000000000000000"),
        ("memory files are never executable", "2"),
    ];
    for (what, want) in rows {
        node.check(what, has(want), &output);
    }
    let mut start = node.request(&[
        "sh",
        "-c",
        "cat /proc/self/status; echo x > /tmp/f; ls -ln /tmp; echo again > /dev/stdout",
    ]);
    (start.uid, start.gid) = (33, 44);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    let has =
        |text: &str| output.lines().any(|line| line.split_whitespace().eq(text.split_whitespace()));
    node.check("another user has no capability", has("CapBnd: 0000000000000000"), &output);
    node.check("nor an effective one", has("CapEff: 0000000000000000"), &output);
    node.check("all its user ids are the same", has("Uid: 33 33 33 33"), &output);
    node.check("all its group ids are the same", has("Gid: 44 44 44 44"), &output);
    node.check("its files are its own", output.contains(" 33       44 "), &output);
    node.check("it may open its stdout again", output.contains("again"), &output);
}

fn file_system(node: &mut Node) {
    let script = "echo a > /new; echo a > /etc/passwd; echo a > /bin/x; busybox mkdir /sys/fs/cgroup/x; echo 1 > /proc/sys/kernel/panic; echo h > /proc/sysrq-trigger; echo 1 > /dev/new; busybox rm /dev/null; cat /proc/kcore | busybox wc -c; ls /sys/firmware | busybox wc -l; ls -A /proc/acpi | busybox wc -l; busybox wc -c < /proc/cmdline; echo end";
    let start = node.request(&["sh", "-c", script]);
    let ended = node.run(&start);
    let output = ended.as_ref().map(|ended| ended.output.clone()).unwrap_or_default();
    let read_only = lines(&output, "sh: can't create").len()
        + lines(&output, "mkdir: ").len()
        + lines(&output, "rm: ").len();
    node.check("nothing of the root can be written", read_only == 8, &output);
    let end: Vec<&str> = output.lines().rev().take(5).collect();
    node.check("masked files are empty", end == ["end", "0", "0", "0", "0"], &output);

    let start = node.request(&["sh", "-c", "cat /etc/resolv.conf /etc/hostname; ls -l /etc/hosts; busybox stat -c %F,%t,%T /dev/null /dev/tty /dev/urandom /dev/ptmx; echo > /dev/null; busybox head -c 8 /dev/urandom | busybox wc -c; ls /dev/shm /dev/pts /dev/mqueue; echo x > /dev/shm/x && echo shm"]);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    for (what, want) in [
        ("name servers are there", "nameserver 10.1.2.3\n"),
        ("a link of the image is covered and not followed", " 78 "),
        ("devices are devices", "character special file,1,3\n"),
        ("random bytes come", "\n8\n"),
        ("shared memory works", "shm\n"),
        ("ptmx is that of the own devpts", "ptmx\n"),
    ] {
        node.check(what, output.contains(want), &output);
    }

    let start = node.request(&["/bin/probe", "probe", "mounts"]);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    let foreign: Vec<&str> = output
        .lines()
        .filter(|line| {
            let options = line.split_whitespace().nth(5).unwrap_or_default();
            let target = line.split_whitespace().nth(4).unwrap_or_default();
            let all = ["nosuid", "noexec"].iter().all(|flag| options.contains(flag));
            // The root alone is executable, and read-only.
            let root = target == "/" && options.starts_with("ro") && options.contains("nosuid");
            !(all || root)
        })
        .collect();
    node.check(
        "every mount but the root is nosuid and noexec",
        !output.is_empty() && foreign.is_empty(),
        &foreign,
    );
    node.check(
        "nothing of the node is mounted",
        !output.contains(" /run") && !output.contains("btrfs"),
        &output,
    );
}

fn walls(node: &mut Node) {
    let start = node.request(&["/bin/probe", "probe", "calls"]);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    for call in [
        "unshare-user",
        "unshare-mount",
        "setns",
        "mount",
        "umount",
        "fsopen",
        "open_tree",
        "pivot_root",
        "chroot",
        "sethostname",
        "remount",
        "packet-socket",
    ] {
        let good = output.contains(&format!("{call}=Os {{ code: 1,"));
        node.check(&format!("{call} is not permitted"), good, &output);
    }
    // EACCES is Landlock's: the missing capability alone would be EPERM.
    let good = output.contains("mknod=Os { code: 13,");
    node.check("mknod is stopped by Landlock", good, &output);
    for call in ["getcwd=done", "socket=done", "thread=true"] {
        node.check(
            &format!("{call}, the control"),
            output.lines().any(|line| line == call),
            &output,
        );
    }
    keyring(node);
}

/// The launcher makes it as the node's root, whose keys are counted.
fn keyring(node: &mut Node) {
    let count = || {
        let users = shell("cat /proc/key-users");
        let root = users.lines().find_map(|line| line.trim().strip_prefix("0:"));
        let keys = root.and_then(|numbers| numbers.split_whitespace().nth(2));
        keys.and_then(|keys| keys.split_once('/')?.0.parse::<u32>().ok())
    };
    // Keyrings of the containers before are let go when the kernel has time.
    let since = Instant::now();
    let mut before = count();
    while since.elapsed() < Duration::from_secs(1) {
        before = before.min(count());
    }
    let start = node.request(&["sleep", "100"]);
    let Ok(running) = node.start(&start) else {
        return node.check("it has a session keyring of its own", false, "it does not start");
    };
    let with = count();
    running.signal(Signal::KILL);
    running.wait();
    let one_more = before.is_some() && with == before.map(|n| n + 1);
    node.check("it has a session keyring of its own", one_more, (before, with));
}

fn volumes(node: &mut Node) {
    shell(
        "mkdir -p /pools/volume /pools/used && echo old > /pools/used/file && ln -s / /pools/trap",
    );
    let directory = |path: &str, source: &str| Mount {
        path: path.to_owned(),
        source: MountSource::Directory { path: source.to_owned() },
    };
    let mut start = node.request(&["sh", "-c", "echo hi > /data/file && ls -ln /data; cat /srv/inner/file; busybox cp /bin/busybox /data/b && /data/b true; echo code $?"]);
    (start.uid, start.gid) = (33, 33);
    start.mounts =
        vec![directory("/data", "/pools/volume"), directory("/srv/inner", "/pools/used")];
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    node.check(
        "an empty volume belongs to the image's owner",
        output.contains(" 33       33 "),
        &output,
    );
    node.check("a used volume keeps its files", output.contains("old\n"), &output);
    node.check("nothing in a volume can be executed", output.contains("code 126"), &output);
    let disk = shell("stat -c %u /pools/volume/file /pools/used; cat /pools/volume/file");
    node.check("ids on disk are not shifted", disk == "33\n0\nhi\n", &disk);

    let mut start = node.request(&["/bin/probe", "probe", "btrfs", "/data"]);
    start.mounts = vec![directory("/data", "/pools/volume")];
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    let refused = output.contains("subvolume=Os { code: 1,");
    node.check("no subvolume, which no quota would know, is made in a volume", refused, &output);
    let copied = output.lines().any(|line| line == "copy=done");
    node.check("copies that share their blocks are made, the control", copied, &output);
    let volume = fs::File::open("/pools/volume").expect("it was made above");
    let made = sys::btrfs::subvolume_create(&volume, "made")
        .and_then(|()| sys::btrfs::subvolume_delete(&volume, "made"));
    node.check("the node makes subvolumes there, the control", made.is_ok(), &made);

    let mut start = node.request(&["sh", "-c", "echo ran"]);
    start.mounts = vec![directory("/missing", "/pools/volume")];
    let refused = node.refusal(&start);
    node.check("a place that is not there", refused == "mount_target_missing", &refused);
    start.mounts = vec![directory("/link/inner", "/pools/volume")];
    let refused = node.refusal(&start);
    node.check("a place behind a link", refused == "mount_target_missing", &refused);
    start.mounts = vec![directory("/bin/busybox", "/pools/volume")];
    let refused = node.refusal(&start);
    node.check("a place that is a file", refused == "mount_target_missing", &refused);
    start.mounts = vec![directory("/data", "/pools/trap")];
    let refused = node.refusal(&start);
    node.check("a source that is a link", refused == "mount_failed", &refused);
}

fn network(node: &mut Node) {
    let start = node.request(&["sh", "-c", "ls /sys/class/net; busybox timeout 1 busybox nc -l -p 80; echo $?; cat /proc/sys/net/ipv4/ping_group_range"]);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    node.check("an empty network has its loopback only", output.starts_with("lo\n"), &output);
    node.check("port 80 can be bound", output.contains("\n143\n"), &output);
    let mut start = node.request(&["ls", "/sys/class/net"]);
    shell(
        "mkdir -p /run/zos/netns && touch /run/zos/netns/x && busybox unshare -n sh -c 'busybox ip link add dummyx type veth peer name dummyy && busybox mount --bind /proc/self/ns/net /run/zos/netns/x'",
    );
    start.netns = Some("/run/zos/netns/x".to_owned());
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    node.check("a given network is joined", output == "dummyx\nlo\nveth0\n", &output);
    start.netns = Some("/run/zos/netns/none".to_owned());
    let refused = node.refusal(&start);
    node.check("a network that is not there", refused == "network_missing", &refused);
    start.netns = Some("/proc/self/ns/uts".to_owned());
    let refused = node.refusal(&start);
    node.check("a namespace of another kind", refused == "network_missing", &refused);
}

fn limits(node: &mut Node) {
    let mut start = node.request(&["/bin/probe", "probe", "eat"]);
    start.limits.memory_bytes = 48 << 20;
    let (ended, limit) = run_to_limit(node, &start);
    let killed = ended.as_ref().is_ok_and(|ended| ended.signal == Some(9));
    node.check("too much memory kills the container", killed, &ended);
    let told = limit.as_ref().is_some_and(|why| why.contains("more memory than its contract"));
    node.check("and it is known why", told, limit);
    let mut start = node.request(&["/bin/probe", "probe", "fork-bomb"]);
    start.limits.pids_max = 20;
    let (ended, limit) = run_to_limit(node, &start);
    let bounded = ended.as_ref().is_ok_and(|ended| ended.output == "threads=19 refused=true\n");
    node.check("threads are bounded", bounded, &ended);
    let told = limit.as_ref().is_some_and(|why| why.contains("more processes"));
    node.check("which is known as well", told, limit);
    let start = node.request(&["sh", "-c", "echo fine"]);
    let (_, limit) = run_to_limit(node, &start);
    node.check("a container that met no limit is not said to have", limit.is_none(), limit);
    let mut start = node.request(&["sleep", "100"]);
    // Not what the kernel has without being asked.
    start.limits.cpu_milli = 500;
    if let Ok(running) = node.start(&start) {
        let cgroup = format!("{}/{}", paths::CGROUP_WORK, start.id);
        let values = shell(&format!(
            "cd {cgroup} && cat cpu.weight cpu.max memory.max memory.high memory.oom.group pids.max memory.swap.max"
        ));
        node.check(
            "limits are as asked",
            values == "50\n50000 100000\n134217728\nmax\n1\n64\n0\n",
            &values,
        );
        let usage = usage::read(Path::new(&cgroup));
        let counted = usage
            .as_ref()
            .is_ok_and(|usage| usage.pids == 1 && usage.cpu_us > 0 && usage.memory_peak_bytes > 0);
        node.check("what it uses is counted", counted, &usage);
        let pressure =
            shell(&format!("cd {cgroup} && cat cpu.pressure memory.pressure io.pressure"));
        let n_known = lines(&pressure, "some avg10=").len() + lines(&pressure, "full avg10=").len();
        node.check("so is what it waits for", n_known == 6, &pressure);
        let refused = node.refusal(&start);
        node.check("one process for each workload", refused == "already_running", &refused);
        node.restart_launcher();
        let alive =
            !fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap_or_default().is_empty();
        node.check("the death of the launcher touches no container", alive, alive);
        running.signal(Signal::KILL);
        let ended = running.wait();
        node.check("a kill ends it", ended.signal == Some(9), &ended);
    }
    let start = node.request(&["sh", "-c", "echo back"]);
    let ended = node.run(&start);
    let good = ended.as_ref().is_ok_and(|ended| ended.output == "back\n");
    node.check("a new launcher starts containers", good, &ended);
}

/// Runs a container, and looks at its cgroup between its end and its removal, as contractd does.
fn run_to_limit(
    node: &mut Node,
    start: &node_api::launcher::Start,
) -> (Result<node::Ended, ipc::CallError>, Option<String>) {
    let running = match node.start(start) {
        Ok(running) => running,
        Err(error) => return (Err(error), None),
    };
    running.until_end();
    let usage = usage::read(&Path::new(paths::CGROUP_WORK).join(&start.id));
    (Ok(running.wait()), usage.ok().and_then(|usage| usage.limit_met()))
}

fn refusals(node: &mut Node) {
    type Change = fn(&mut node_api::launcher::Start);
    let rows: [(&str, Change, &str); 14] = [
        ("another digest", |s| s.root.image_digest = "ab".repeat(32), "image_digest_mismatch"),
        ("no image", |s| s.root.image = "/pools/none".into(), "image_missing"),
        ("an image without verity", |s| s.root.image = "/pools/used/file".into(), "image_missing"),
        ("no objects", |s| s.root.objects = "/pools/none".into(), "root_mount_failed"),
        ("no such program", |s| s.command[0] = "/bin/none".into(), "entrypoint_missing"),
        ("no such program along PATH", |s| s.command[0] = "none".into(), "entrypoint_missing"),
        ("a program that is a directory", |s| s.command[0] = "/bin".into(), "entrypoint_missing"),
        ("a program without x", |s| s.command[0] = "/etc/passwd".into(), "entrypoint_missing"),
        (
            "a damaged program",
            |s| s.command[0] = "/bin/damaged".into(),
            "entrypoint_digest_mismatch",
        ),
        (
            "a program whose content is gone",
            |s| s.command[0] = "/bin/gone".into(),
            "entrypoint_digest_mismatch",
        ),
        ("no working directory", |s| s.cwd = "/none".into(), "cwd_missing"),
        ("a bad id", |s| s.id = "../../system".into(), "plan_invalid"),
        ("ids of the node", |s| s.id_base = 0, "plan_invalid"),
        ("init refuses", |s| s.id = "refused".into(), "adopt_failed"),
    ];
    for (what, change, want) in rows {
        let mut start = node.request(&["sh", "-c", "echo ran"]);
        change(&mut start);
        let refused = node.refusal(&start);
        node.check(what, refused == want, &refused);
    }
}

/// Images and requests made by somebody who wants out.
fn hostile(node: &mut Node) {
    let start = node.request(&[
        "sh",
        "-c",
        "busybox readlink /proc/1/exe; busybox readlink /proc/self/cwd",
    ]);
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    node.check("no program of the node is in sight", output == "/bin/busybox\n/\n", &output);

    let mut start = node.request(&["/usr/busybox", "id", "-u"]);
    start.uid = 33;
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    node.check("a set-user-id program gives nothing", output == "33\n", &output);

    let mut start = node.request(&["sh", "-c", "echo ran"]);
    start.root = linked_image("hostile-sys", "sys", "/srv");
    let refused = node.refusal(&start);
    node.check("/sys of the image leads to /srv", refused == "root_mount_failed", &refused);
    let mut start = node.request(&["sh", "-c", "echo ran; ls -A /srv"]);
    start.root = linked_image("hostile-etc", "etc", "/srv");
    let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
    node.check("a linked /etc gets no files", output == "ran\ndamaged\ninner\nown\n", &output);
}

/// The image of the checks with a symbolic link in the place of a directory.
pub(crate) fn linked_image(name: &str, path: &str, target: &str) -> Root {
    let mut body = node::body();
    let below = format!("{path}/");
    body.entries
        .retain(|entry| entry.path != path.as_bytes() && !entry.path.starts_with(below.as_bytes()));
    body.entries.push(node::link(path, target));
    body.entries.sort_by(|a, b| a.path.cmp(&b.path));
    node::image(name, &body)
}

/// The launcher dies at any moment of a start, forty times.
fn deaths(node: &mut Node) {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count();
    let before = mounts();
    let (mut ran, mut lost) = (0, 0);
    for round in 0..40_u32 {
        let mut start = node.request(&["/bin/busybox", "echo", "ran"]);
        start.mounts.push(overlays::mount("/srv", "/pools/kept"));
        let caller = std::thread::spawn(move || ipc::call(paths::LAUNCHER_SOCKET, &start).is_ok());
        // Spins for a time that differs from round to round; a start takes some 100 ms here.
        let wait = Duration::from_millis(u64::from(round) * 25);
        let since = Instant::now();
        while since.elapsed() < wait && !caller.is_finished() {
            std::thread::yield_now();
        }
        node.restart_launcher();
        if caller.join().unwrap_or(false) {
            ran += 1;
        } else {
            lost += 1;
        }
        node.bury();
    }
    println!("     {ran} starts were faster, {lost} were lost");
    let script = format!("cat {}/*/cgroup.procs 2>/dev/null || true", paths::CGROUP_WORK);
    let mut processes = shell(&script);
    // The last one may be on its way out.
    for _ in 0..100 {
        if processes.is_empty() {
            break;
        }
        processes = shell(&script);
    }
    node.check("a killed launcher leaves no process", processes.is_empty(), &processes);
    // It removes the cgroups that have become empty.
    node.restart_launcher();
    node.check("and no mount", mounts() == before, mounts());
    let start = node.request(&["sh", "-c", "echo still"]);
    let ended = node.run(&start);
    let good = ended.as_ref().is_ok_and(|ended| ended.output == "still\n");
    node.check("and the next one starts containers", good, &ended);
}

fn residue(node: &mut Node) {
    let state = |node: &Node| {
        let pid = node.launcher.id();
        let count = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
        let fds = count(&format!("/proc/{pid}/fd"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count();
        let groups: Vec<String> = fs::read_dir(paths::CGROUP_WORK)
            .map(|all| {
                all.filter_map(Result::ok)
                    .filter(|e| e.path().is_dir())
                    .map(|e| e.file_name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default();
        (fds, mounts, groups)
    };
    let before = state(node);
    node.check("no cgroup is left", before.2.is_empty(), &before);
    let started = Instant::now();
    let (mut good, mut bad) = (0, 0);
    for round in 0..100 {
        let mut start = node.request(&["/bin/busybox", "true"]);
        if round % 4 == 3 {
            start.cwd = "/none".into();
            bad += i32::from(node.run(&start).is_err());
        } else {
            good += i32::from(node.run(&start).is_ok_and(|ended| ended.code == Some(0)));
        }
    }
    println!("     100 starts in {:?}", started.elapsed());
    node.check("a hundred starts, each as it should", (good, bad) == (75, 25), (good, bad));
    // The launcher may not have seen yet that the last caller is gone; before, as well as now.
    let is_clean = |(fds, mounts, groups): &(usize, usize, Vec<String>)| {
        *fds <= before.0 && (mounts, groups) == (&before.1, &before.2)
    };
    let deadline = Instant::now() + LAST_CALLER;
    let mut after = state(node);
    while !is_clean(&after) && Instant::now() < deadline {
        std::thread::yield_now();
        after = state(node);
    }
    node.check("nothing of them is left", is_clean(&after), (&before, &after));
    let leftovers = shell("ps -o stat,args | grep -c '^Z' || true");
    println!("     zombies that init has to reap: {}", leftovers.trim());
}
