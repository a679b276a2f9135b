//! Ways out of a container and from one container to another, tried on the command line of the OCI
//! runtime specification. What must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci::{BUNDLE, ROOT, config, has, quiet, run_config, state, until, with_shared, write},
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
