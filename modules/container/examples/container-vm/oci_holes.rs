//! Ways out of a container and from one container to another, tried on the command line of the OCI
//! runtime specification. What must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci::{BUNDLE, ROOT, config, has, quiet, state, until, with_shared, write},
};
use serde_json::json;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

pub(crate) fn run(node: &mut Node) {
    own_program(node);
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
