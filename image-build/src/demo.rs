//! `cargo xtask demo`: the whole story on one machine, from a farm to two refused attacks.
//!
//! Installs what is missing, builds the image and the programs of the people, and hands over to
//! the `demo` program of `qemu-tests`, which tells the story.

use crate::image::{self, Options};
use crate::packages::{self, Task};
use crate::process;
use crate::progress;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the demo runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demo {
    /// End after the story, instead of leaving everything up.
    pub once: bool,
    /// Print a report as JSON on standard output.
    pub json: bool,
    /// Keep keys, registry and disks here.
    pub directory: Option<PathBuf>,
    /// Compile the node's programs quickly instead of small.
    pub dev: bool,
}

/// Prepares and runs the demo.
pub fn run(demo: &Demo) -> Result<()> {
    packages::ensure(Task::Demo)?;
    let root = image::checkout();
    let options = Options { test_media: true, dev: demo.dev, fast: demo.dev, ..Options::default() };
    let outputs = image::build(&options)?;
    build_people(&root)?;
    let mut story = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    story
        .current_dir(&root)
        .args(["run", "--quiet", "-p", "qemu-tests", "--bin", "demo", "--"])
        .args(demo.once.then_some("--once"))
        .args(demo.json.then_some("--json"))
        .env("ZOS_IMAGE_DIR", &outputs.directory);
    if let Some(directory) = &demo.directory {
        let directory = std::path::absolute(directory)
            .with_context(|| format!("finding {}", directory.display()))?;
        story.env("ZOS_DEMO_DIR", directory);
    }
    process::run_shown(&mut story)
}

/// Builds what runs off the node: registry, command line, and the helpers of the virtual machines.
pub(crate) fn build_people(root: &Path) -> Result<()> {
    let step = progress::step("Building the registry, 3bot and the machines' helpers");
    process::run(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root)
            .args(["build", "--quiet", "-p", "registryd", "-p", "threebot", "-p", "qemu-tests"])
            .arg("--bins"),
    )?;
    step.done("");
    Ok(())
}
