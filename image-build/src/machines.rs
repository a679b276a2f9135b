//! `cargo xtask demo` and `cargo xtask bench`: builds what the programs of `qemu-tests` need, and runs
//! them with the image.

use crate::binaries::{self, Profile};
use crate::image::{self, Options};
use crate::packages::{self, Task};
use crate::process;
use crate::progress;
use crate::recipe::Binary;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Builds everything, then runs the program `name` of `qemu-tests` with these arguments.
pub fn run(task: Task, name: &str, arguments: &[String]) -> Result<()> {
    packages::ensure(task)?;
    let root = image::checkout();
    build_programs(&root)?;
    let outputs = image::build(&Options { test_media: true, ..Options::default() })?;
    progress::say(&format!("== {name}"));
    let mut command = process::cargo(&root);
    command.args(["run", "--quiet", "-p", "qemu-tests", "--bin", name, "--"]).args(arguments);
    command.env("ZOS_IMAGE_DIR", &outputs.directory);
    if arguments.iter().any(|word| word == "container") {
        command.env("ZOS_CONTAINER", build_container(&root)?);
    }
    process::run_shown(&mut command).with_context(|| format!("{name} did not succeed"))
}

/// The programs that run beside the machines: the registry, the command line, the harness.
pub(crate) fn build_programs(root: &Path) -> Result<()> {
    progress::say("== The registry, 3bot and the machine harness");
    let mut command = process::cargo(root);
    command.args(["build", "-p", "registryd", "-p", "threebot", "-p", "qemu-tests"]);
    process::run_shown(&mut command).context("building the programs")
}

/// Our OCI runtime, which no image has, built as the node's own programs are.
fn build_container(root: &Path) -> Result<PathBuf> {
    let container = Binary {
        package: "container".to_owned(),
        name: "container".to_owned(),
        path: String::new(),
        alone: false,
    };
    let files = binaries::build(root, &[container], Profile::Release)?;
    files.into_iter().next().context("cargo has built nothing")
}
