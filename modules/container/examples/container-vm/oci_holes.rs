//! Ways out of a container and from one container to another, tried on the command line of the OCI
//! runtime specification. What must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci::{
        BUNDLE, ROOT, command, config, has, quiet, run_config, state, until, with_shared, write,
    },
};
use serde_json::json;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

pub(crate) fn run(node: &mut Node) {
    own_program(node);
    covers(node);
    keys(node);
    groups(node);
    signals(node);
    pairs(node);
}

/// What the tenant of an image could do with a way to the program that started it. The program is a
/// copy of the checks that nothing else executes: one that runs cannot be written anyway.
fn own_program(node: &mut Node) {
    let (program, said) = ("/pools/oci/program", "/pools/oci/said");
    shell(&format!(
        "cp /bin/container-vm {program}; chmod 755 {program}; printf '#!/proc/self/exe probe\\n' > {BUNDLE}/rootfs/bin/own; chmod 755 {BUNDLE}/rootfs/bin/own; echo before > /pools/oci/shared/control"
    ));
    let before = fs::read(program).expect("it was copied");
    let mut config = with_shared(&config(""));
    config["process"]["args"] = json!(["own"]);
    write(&config);
    let output = fs::File::create(said).expect("there is room");
    let errors = output.try_clone().expect("there are descriptors");
    let mut command = Command::new(program);
    command.args(["oci", "--root", ROOT, "run", "--detach", "-b", BUNDLE, "c"]);
    let ran = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    let ended = until(|| Path::new("/pools/oci/shared/end").exists());
    let said = fs::read_to_string(said).unwrap_or_default();
    let control = shell("cat /pools/oci/shared/control");
    node.check(
        "oci: CVE-2019-5736: a script reaches a copy of the runtime, not its file",
        said.contains("reached Ok(\"/memfd:container"),
        (&ran, &said),
    );
    // The control: another file is written in the same way.
    let same = fs::read(program).is_ok_and(|now| now == before);
    node.check(
        "oci: CVE-2019-5736: and neither can be written",
        ended && same && !has(&said, "done") && control == "overwritten\n",
        (ended, same, &said, &control),
    );
    until(|| state("c")["status"] == "stopped");
    let deleted = quiet(&["delete", "c"]);
    node.check("oci: that container ended", deleted, deleted);
    shell(&format!(
        "rm /pools/oci/program /pools/oci/said /pools/oci/shared/control /pools/oci/shared/end {BUNDLE}/rootfs/bin/own"
    ));
}

/// Masks cover what they name with the node's own files, whatever an image has in its way.
fn covers(node: &mut Node) {
    let (root, fake) = (format!("{BUNDLE}/rootfs"), "/pools/oci/fake");
    shell(&format!(
        "cd {root} && mkdir secrets && echo secret > secrets/file && echo secret > secret && ln -s secret masked && ln -s /dev cover && mkdir -p {fake}/.zos/empty && echo fake > {fake}/null && echo fake > {fake}/.zos/empty/fake"
    ));
    let mut config = config(
        "cat /secret; ls -A /secrets; busybox stat -c %F,%t,%T /secret /proc/kcore; cat /dev/null",
    );
    let masked = config["linux"]["maskedPaths"].as_array_mut().expect("there are some");
    masked.extend([json!("/secret"), json!("/secrets")]);
    let mut covered = config.clone();
    let mounts = covered["mounts"].as_array_mut().expect("there are mounts");
    mounts.push(
        json!({ "destination": "/cover", "type": "bind", "source": fake, "options": ["rbind"] }),
    );
    let device = "character special file,1,3\n";
    let ran = run_config(&config);
    node.check("oci: masks", ran == (device.repeat(2), Some(0)), &ran);
    // The control is the last word: the mount did go over /dev.
    let ran = run_config(&covered);
    node.check(
        "oci: CVE-2025-31133, CVE-2025-52565: what masks is ours, also when /dev is covered",
        ran == (format!("{}fake\n", device.repeat(2)), Some(0)),
        &ran,
    );
    let left = shell(&format!("cat {fake}/null {fake}/.zos/empty/fake"));
    node.check("oci: what covers /dev stays as it is", left == "fake\nfake\n", &left);

    let mut refused = Vec::new();
    for name in ["dev", "proc", "sys"] {
        shell(&format!(
            "cd {root} && mkdir -p outside {name} && mv {name} was && ln -s outside {name}"
        ));
        refused.push(run_config(&config));
        shell(&format!("cd {root} && rm {name} && mv was {name}"));
    }
    let good =
        refused.iter().all(|(said, code)| *code == Some(1) && said.contains("Too many levels"));
    node.check(
        "oci: CVE-2026-41579, CVE-2026-47766: /dev, /proc and /sys of an image are no links",
        good,
        &refused,
    );
    let masked = config["linux"]["maskedPaths"].as_array_mut().expect("there are some");
    masked.push(json!("/masked"));
    let ran = run_config(&config);
    let good = ran.1 == Some(1) && ran.0.contains("masking files");
    node.check("oci: a masked path that is a link", good, &ran);
    shell(&format!("cd {root} && rm -r secrets secret masked cover {fake}"));
}

/// A container has a session keyring, and it is not that of its caller, which is ours.
fn keys(node: &mut Node) {
    let sessions = |keys: &str| -> Vec<String> {
        let lines = keys.lines().filter(|line| line.contains(" _ses"));
        lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    sys::keyring::join_new_session().expect("the kernel has keys");
    let ours = sessions(&shell("cat /proc/keys"));
    let mut config = config("cat /proc/keys");
    // Of the keys of others, this user sees only those that it is given.
    config["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    config["linux"]["maskedPaths"] = json!([]);
    let (output, _) = run_config(&config);
    let theirs = sessions(&output);
    let good = !ours.is_empty() && theirs.len() == 1 && !ours.contains(&theirs[0]);
    node.check("oci: its own session keyring", good, (&ours, &output));
}

/// Two containers of one name, below two `--root`s: the name of their cgroup is the same.
fn groups(node: &mut Node) {
    let group = "/sys/fs/cgroup/zos-oci/c";
    let other = |words: &[&str]| {
        let mut command = Command::new("/proc/self/exe");
        command.args(["oci", "--root", "/pools/oci/others"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let lives =
        || fs::read_to_string(format!("{group}/cgroup.procs")).is_ok_and(|all| !all.is_empty());
    write(&config("while :; do sleep 1; done"));
    let first = quiet(&["run", "--detach", "-b", BUNDLE, "c"]);
    let second = other(&["run", "--detach", "-b", BUNDLE, "c"]);
    node.check("oci: a cgroup is made, not joined", first && !second && lives(), (first, second));
    quiet(&["kill", "c", "KILL"]);
    let stopped = until(|| state("c")["status"] == "stopped");
    let second = other(&["run", "--detach", "-b", BUNDLE, "c"]);
    node.check("oci: nor is that of a container that has stopped", stopped && !second, second);
    // What an administrator may do. Now the name is the second container's.
    shell(&format!("rmdir {group}"));
    let second = other(&["run", "--detach", "-b", BUNDLE, "c"]) && lives();
    let killed = quiet(&["kill", "--all", "c", "KILL"]);
    let deleted = quiet(&["delete", "--force", "c"]);
    node.check(
        "oci: the deletion of a container ends no other of its name",
        second && !killed && deleted && lives(),
        (second, killed, deleted),
    );
    let deleted = other(&["delete", "--force", "c"]) && !Path::new(group).exists();
    node.check("oci: its own does", deleted, deleted);
}

/// `kill --all` reaches every process of a container, also in groups of its own.
fn signals(node: &mut Node) {
    let script = "trap 'echo one >> /shared/got' TERM; (trap 'echo two >> /shared/got; exit' TERM; echo up > /shared/up; while :; do sleep 0.1; done) & while :; do sleep 0.1; done";
    write(&with_shared(&config(script)));
    let ran = quiet(&["run", "--detach", "-b", BUNDLE, "c"]);
    let up = until(|| Path::new("/pools/oci/shared/up").exists());
    let first = state("c")["pid"].to_string();
    shell(&format!(
        "cd /sys/fs/cgroup/zos-oci/c && mkdir below && for p in $(cat cgroup.procs); do [ $p = {first} ] || echo $p > below/cgroup.procs || true; done"
    ));
    let sent = quiet(&["kill", "--all", "c", "TERM"]);
    let got = || {
        let text = fs::read_to_string("/pools/oci/shared/got").unwrap_or_default();
        text.contains("one") && text.contains("two")
    };
    let all = until(got);
    node.check("oci: a signal to all", ran && up && sent && all, (ran, up, sent, all));
    let running = state("c")["status"] == "running";
    let deleted = quiet(&["delete", "--force", "c"]);
    let left = Path::new("/sys/fs/cgroup/zos-oci/c").exists();
    node.check("oci: groups of its own go with it", running && deleted && !left, (running, left));
    shell("rm -f /pools/oci/shared/up /pools/oci/shared/got");
}

/// Two commands on one container at the same time.
fn pairs(node: &mut Node) {
    let spawn = |words: &[&str]| {
        let mut command = command(words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("we can be executed")
    };
    let done =
        |child: std::io::Result<std::process::ExitStatus>| child.is_ok_and(|end| end.success());
    write(&config("while :; do sleep 1; done"));
    let mut started = Vec::new();
    for _ in 0..6 {
        quiet(&["create", "-b", BUNDLE, "c"]);
        let mut both = [spawn(&["start", "c"]), spawn(&["start", "c"])];
        started.push(both.each_mut().map(|child| done(child.wait())));
        quiet(&["delete", "--force", "c"]);
    }
    let once = started.iter().all(|[a, b]| a != b);
    node.check("oci: of two starts, one starts", once, &started);

    let group = Path::new("/sys/fs/cgroup/zos-oci/c");
    let mut ends = Vec::new();
    for _ in 0..6 {
        let mut create = spawn(&["create", "-b", BUNDLE, "c"]);
        // From the moment that there is something to delete.
        until(|| Path::new(ROOT).join("c").exists() || !matches!(create.try_wait(), Ok(None)));
        let deleted = quiet(&["delete", "--force", "c"]);
        let created = done(create.wait());
        // Deleted as a whole or there as a whole, whatever comes first.
        let there = state("c")["status"] == "created";
        ends.push((created, deleted, created && there == group.exists() && there != deleted));
        quiet(&["delete", "--force", "c"]);
    }
    node.check("oci: nothing is deleted while it is made", ends.iter().all(|end| end.2), &ends);
}
