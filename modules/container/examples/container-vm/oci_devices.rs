//! Devices, mounts that are seen elsewhere, and capabilities that reach far, on the command line of the
//! OCI runtime specification. What must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci::{BUNDLE, command, config, has, oci, quiet, run_config, state, until, with_shared, write},
};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde_json::{Value, json};
use std::{fs, path::Path};

pub(crate) fn run(node: &mut Node) {
    rules(node);
    nodes(node);
    nodes_of_mapped_ids(node);
    order(node);
    propagation(node);
    root_propagation(node);
    privileges(node);
    labels(node);
}

/// Everything is denied but what `allowed` says.
fn with_rules(config: &mut Value, allowed: &[Value]) {
    let deny = json!({ "allow": false, "access": "rwm" });
    let rules = [&[deny], allowed].concat();
    config["linux"]["resources"]["devices"] = Value::from(rules);
}

fn with_mknod(config: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
    }
}

/// Of what a container may make, it can use only what the rules allow. 10:234 is what btrfs
/// is asked by, which anybody may open.
fn rules(node: &mut Node) {
    let script = "busybox mknod /dev/made c 10 234; true < /dev/made && echo read; [ -c /dev/made ] && true >> /dev/made && echo wrote; echo y > /dev/null && echo null";
    let mut config = config(script);
    with_mknod(&mut config);
    let btrfs =
        |access| json!({ "allow": true, "type": "c", "major": 10, "minor": 234, "access": access });
    let make = json!({ "allow": true, "type": "c", "access": "m" });
    for (what, allowed, want) in [
        ("nothing is allowed", vec![], (false, false, false)),
        ("making is", vec![make.clone()], (true, false, false)),
        ("reading too", vec![make.clone(), btrfs("r")], (true, true, false)),
        ("everything", vec![btrfs("rwm")], (true, true, true)),
        (
            "and forbidden again",
            vec![
                make,
                btrfs("rw"),
                json!({ "allow": false, "type": "c", "major": 10, "minor": 234, "access": "w" }),
            ],
            (true, true, false),
        ),
    ] {
        with_rules(&mut config, &allowed);
        let (output, _) = run_config(&config);
        let made = !output.contains("mknod");
        let got = (made, has(&output, "read"), has(&output, "wrote"));
        let good = got == want && has(&output, "null");
        node.check(&format!("oci: rules for devices: {what}"), good, &output);
    }
    let disk = json!({ "allow": true, "type": "b", "major": 8, "minor": 0, "access": "r" });
    let rules =
        [json!({ "allow": true }), json!({ "allow": true, "type": "b", "access": "rw" }), disk];
    for rule in rules {
        with_rules(&mut config, &[rule]);
        let ran = run_config(&config);
        let refused = ran.1 == Some(1) && ran.0.contains("linux.resources.devices");
        node.check("oci: refused: rules that allow kinds of devices", refused, &ran);
    }
}

/// Nodes of the configuration are there as asked, and whether they can be used is for the rules.
fn nodes(node: &mut Node) {
    let script = "busybox stat -c %n,%F,%t:%T,%a,%u:%g /dev/below/btrfs /dev/pipe /dev/zero; true < /dev/below/btrfs && echo read";
    let mut config = config(script);
    config["linux"]["devices"] = json!([
        { "path": "/dev/below/btrfs", "type": "c", "major": 10, "minor": 234, "fileMode": 0o640, "uid": 0, "gid": 5 },
        { "path": "/dev/pipe", "type": "p" },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3 },
        { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "gid": 5 }
    ]);
    let want = "/dev/below/btrfs,character special file,a:ea,640,0:5\n/dev/pipe,fifo,0:0,666,0:0\n/dev/zero,character special file,1:5,640,0:5\n";
    for (what, rules, readable) in [
        ("that cannot be used", vec![], false),
        (
            "that can",
            vec![json!({ "allow": true, "type": "c", "major": 10, "minor": 234, "access": "r" })],
            true,
        ),
    ] {
        with_rules(&mut config, &rules);
        let (output, _) = run_config(&config);
        let good = output.starts_with(want) && has(&output, "read") == readable;
        node.check(&format!("oci: nodes {what}"), good, &output);
    }
    for path in ["/etc/btrfs", "/dev/pts/9", "/dev/.zos/btrfs", "/dev/../btrfs"] {
        config["linux"]["devices"][0]["path"] = json!(path);
        let ran = run_config(&config);
        let refused = ran.1 == Some(1) && ran.0.contains("linux.devices");
        node.check(&format!("oci: refused: a node at {path}"), refused, &ran);
    }
}

fn nodes_of_mapped_ids(node: &mut Node) {
    let mut config = config("busybox stat -c %u:%g /dev/btrfs; true < /dev/btrfs && echo read");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    let spaces = config["linux"]["namespaces"].as_array_mut().expect("there are some");
    spaces.push(json!({ "type": "user" }));
    config["linux"]["devices"] =
        json!([{ "path": "/dev/btrfs", "type": "c", "major": 10, "minor": 234, "gid": 7 }]);
    with_rules(
        &mut config,
        &[json!({ "allow": true, "type": "c", "major": 10, "minor": 234, "access": "r" })],
    );
    shell(&format!("chown -R 100000:100000 {BUNDLE}/rootfs"));
    let ran = run_config(&config);
    shell(&format!("chown -R 0:0 {BUNDLE}/rootfs"));
    node.check("oci: nodes of mapped ids", ran == ("0:7\nread\n".into(), Some(0)), &ran);
    config["linux"]["devices"][0]["gid"] = json!(1000);
    let ran = run_config(&config);
    let refused = ran.1 == Some(1) && ran.0.contains("no id outside");
    node.check("oci: refused: a node of nobody's", refused, &ran);
}

/// Mounts are listed as they were asked for, whoever makes them, with what they are mounted from.
fn order(node: &mut Node) {
    let mut config = with_shared(&config("cat /proc/self/mountinfo"));
    let mounts = config["mounts"].as_array_mut().expect("there are mounts");
    mounts.push(json!({
        "destination": "/later", "type": "tmpfs", "source": "named", "options": ["size=64k"]
    }));
    let asked: Vec<String> = mounts
        .iter()
        .map(|mount| mount["destination"].as_str().expect("it has a place").to_owned())
        .collect();
    let (output, _) = run_config(&config);
    let places = output.lines().filter_map(|line| line.split(' ').nth(4));
    let listed: Vec<&str> = places.filter(|place| asked.iter().any(|one| one == place)).collect();
    let in_order = asked.iter().zip(&listed).filter(|(one, other)| one == other).count();
    node.check("oci: mounts are listed in their order", in_order == asked.len(), &output);
    let named = output.lines().any(|line| line.contains("/later") && line.contains("tmpfs named"));
    node.check("oci: with the name of their source", named, &output);
}

/// What the node mounts below a source later is seen in a container that asks for that.
fn propagation(node: &mut Node) {
    let source = "/pools/oci/spread";
    shell(&format!(
        "mkdir -p {source}/later && busybox mount -t tmpfs none {source} && mkdir {source}/later"
    ));
    mount_change(source, MountPropagationFlags::SHARED).expect("it is a mount");
    for (option, want) in [("rprivate", "hidden\n"), ("rslave", "seen\n"), ("rshared", "seen\n")] {
        let script = "echo up > /shared/up; while [ ! -e /shared/go ]; do sleep 0.1; done; if [ -e /spread/later/file ]; then echo seen; else echo hidden; fi > /shared/said";
        let mut config = with_shared(&config(script));
        let mounts = config["mounts"].as_array_mut().expect("there are mounts");
        mounts.push(json!({
            "destination": "/spread", "type": "bind", "source": source, "options": ["rbind", option]
        }));
        write(&config);
        let ran = quiet(&["run", "--detach", "-b", BUNDLE, "c"]);
        let up = until(|| Path::new("/pools/oci/shared/up").exists());
        shell(&format!(
            "busybox mount -t tmpfs none {source}/later && touch {source}/later/file /pools/oci/shared/go"
        ));
        let said = || fs::read_to_string("/pools/oci/shared/said").unwrap_or_default();
        until(|| said() == "seen\n" || said() == "hidden\n");
        node.check(&format!("oci: a mount that is {option}"), said() == want, (ran, up, said()));
        until(|| state("c")["status"] == "stopped");
        quiet(&["delete", "--force", "c"]);
        shell(&format!(
            "busybox umount {source}/later; rm -f /pools/oci/shared/up /pools/oci/shared/go /pools/oci/shared/said"
        ));
    }
    goes_with_its_mounts(node, source);
    shell(&format!("busybox umount {source}; rm -r {source}"));
    let mut config = config("cat /proc/self/mountinfo");
    let mounts = config["mounts"].as_array_mut().expect("there are mounts");
    for option in ["private", "shared", "unbindable"] {
        mounts.push(json!({
            "destination": format!("/of-{option}"), "type": "tmpfs", "options": ["size=64k", option]
        }));
    }
    let (output, _) = run_config(&config);
    let line = |place: &str| output.lines().find(|line| line.contains(place)).unwrap_or_default();
    let good = !line("/of-private").contains("shared:")
        && line("/of-shared").contains("shared:")
        && line("/of-unbindable").contains("unbindable");
    node.check("oci: mounts of their own that are seen elsewhere", good, &output);
}

/// What is mounted below a source is there in the container, and still there on the node behind it.
fn goes_with_its_mounts(node: &mut Node, source: &str) {
    shell(&format!("busybox mount -t tmpfs none {source}/later && touch {source}/later/file"));
    let mounted = || shell("cat /proc/self/mountinfo");
    let before = mounted();
    for option in ["rprivate", "rslave", "rshared"] {
        let mut config = config("if [ -e /spread/later/file ]; then echo seen; fi");
        let mounts = config["mounts"].as_array_mut().expect("there are mounts");
        mounts.push(json!({
            "destination": "/spread", "type": "bind", "source": source, "options": ["rbind", option]
        }));
        let ran = run_config(&config);
        let seen = ran == ("seen\n".into(), Some(0));
        node.check(&format!("oci: with what is mounted below it: {option}"), seen, &ran);
        let after = mounted();
        node.check(&format!("oci: which stays on the machine: {option}"), after == before, &after);
    }
    shell(&format!("busybox umount {source}/later"));
}

fn root_propagation(node: &mut Node) {
    for (word, want) in
        [("private", ""), ("rprivate", ""), ("shared", "shared:"), ("unbindable", "unbindable")]
    {
        let mut config = config("cat /proc/self/mountinfo");
        config["linux"]["rootfsPropagation"] = json!(word);
        let (output, _) = run_config(&config);
        let root = output.lines().find(|line| line.split(' ').nth(4) == Some("/"));
        let root = root.unwrap_or_default();
        // The fields between the options and the dash.
        let fields: Vec<&str> = root.split(' ').skip(6).take_while(|field| *field != "-").collect();
        let good = !root.is_empty()
            && fields.join(" ").starts_with(want)
            && fields.is_empty() == want.is_empty();
        node.check(&format!("oci: a root that is {word}"), good, &output);
    }
    let mut config = config("exit 0");
    config["linux"]["rootfsPropagation"] = json!("public");
    let ran = run_config(&config);
    node.check("oci: refused: a root that is public", ran.1 == Some(1), &ran);
}

/// Whoever calls decides whether a container may do what root may, not the bundle alone.
fn privileges(node: &mut Node) {
    let script = "busybox mount -t tmpfs none /bin/../proc/fs && echo mounted; exit 0";
    let mut config = config(script);
    let all = json!(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = all.clone();
    }
    let ran = run_config(&config);
    let refused = ran.1 == Some(1) && ran.0.contains("--privileged");
    node.check("oci: refused: capabilities that reach far", refused, &ran);
    let output = oci(&["--privileged", "run", "-b", BUNDLE, "c"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    node.check("oci: and given to who says so", has(&said, "mounted"), (&said, &output.stderr));
    // The control: the same without them.
    config["process"]["capabilities"] = json!({});
    let ran = run_config(&config);
    node.check("oci: which others do not have", !has(&ran.0, "mounted"), &ran);
}

/// The kernel of a node has no `SELinux`.
fn labels(node: &mut Node) {
    let mut config = config("echo ran");
    config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    write(&config);
    fs::remove_file("/pools/oci/log").ok();
    let output = command(&["--log", "/pools/oci/log", "run", "-b", BUNDLE, "c"]).output();
    let ran = output.expect("we can be executed").stdout;
    let log = fs::read_to_string("/pools/oci/log").unwrap_or_default();
    let good = ran == b"ran\n" && log.contains("linux.mountLabel");
    node.check(
        "oci: a label that the kernel does not know is skipped, and that is said",
        good,
        &log,
    );
    config["process"]["apparmorProfile"] = json!("profile");
    let ran = run_config(&config);
    node.check("oci: refused: a profile", ran.1 == Some(1), &ran);
}
