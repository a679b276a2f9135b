//! `cargo xtask demo`, `bench`, `oci-suite` and `kills`: builds what the programs of `qemu-tests` need,
//! and runs them with the image.

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
    let is = |benchmark| arguments.iter().any(|word| word == benchmark);
    let mut command = process::cargo(&root);
    command.args(["run", "--quiet", "-p", "qemu-tests", "--bin", name]);
    if is("flist") {
        // Part of what is measured runs in this very program.
        command.args(["--profile", "measured"]);
    }
    command.arg("--").args(arguments);
    command.env("ZOS_IMAGE_DIR", &outputs.directory);
    if is("container") || name == "oci-suite" {
        command.env("ZOS_CONTAINER", build_container(&root)?);
    }
    if is("container") || is("flist") {
        let helper = binaries::build_example(&root, "container", "measure-vm", Profile::Measured)?;
        command.env("ZOS_MEASURE_VM", helper);
    }
    process::run_shown(&mut command).with_context(|| format!("{name} did not succeed"))
}

/// Measures a registry: needs no image, no virtual machine and of packages only `postgresql`, and
/// programs that are optimised. These are built apart, so that what is measured has nothing of who measures.
pub fn bench_registry(arguments: &[String]) -> Result<()> {
    packages::ensure(Task::Registry)?;
    let root = image::checkout();
    let cargo = |words: &[&str]| {
        let mut command = process::cargo(&root);
        command.args(words).args(["--profile", "measured"]);
        command
    };
    progress::say("== The registry and its witnesses, optimised; then what measures them");
    let mut programs = cargo(&["build", "-p", "registryd", "-p", "witnessd", "--bins"]);
    process::run_shown(&mut programs).context("building the programs")?;
    let bench = ["-p", "qemu-tests", "--bin", "bench"];
    process::run_shown(cargo(&["build"]).args(bench)).context("building the benchmark")?;
    progress::say("== bench registry");
    let mut run = cargo(&["run", "--quiet"]);
    process::run_shown(run.args(bench).args(["--", "registry"]).args(arguments))
        .context("bench did not succeed")
}

/// Kills a registry and its witnesses again and again: needs no image and no virtual machine.
pub fn kills(arguments: &[String]) -> Result<()> {
    let root = image::checkout();
    build_programs(&root)?;
    progress::say("== kills");
    let mut command = process::cargo(&root);
    command.args(["run", "--quiet", "-p", "qemu-tests", "--bin", "kills", "--"]).args(arguments);
    process::run_shown(&mut command).context("kills did not succeed")
}

/// The programs that run beside the machines: the registry, its witnesses, the command line, the
/// harness.
pub(crate) fn build_programs(root: &Path) -> Result<()> {
    progress::say("== The registry, its witnesses, 3bot and the machine harness");
    let mut command = process::cargo(root);
    command.args(["build", "-p", "registryd", "-p", "witnessd", "-p", "threebot"]);
    command.args(["-p", "qemu-tests"]);
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
