//! `cargo xtask check` and `cargo xtask test`: what a change must pass, in the order of cost.

use crate::binaries::{self, Profile};
use crate::image::{self, Options};
use crate::packages::{self, Task};
use crate::process;
use crate::progress;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// Whether `cargo xtask check` may install cargo-deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deny {
    /// Run it when it is installed, else say that it is not.
    IfInstalled,
    /// Install it when it is missing.
    Install,
}

/// How much `cargo xtask test` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Only what needs no virtual machine.
    Host,
    /// Everything.
    Full,
}

/// Format, lints, licences and advisories, layers and house rules.
pub fn check(deny: Deny) -> Result<()> {
    let root = image::checkout();
    format_and_lints(&root)?;
    licences(&root, deny)?;
    shown(
        "Layers and house rules",
        process::cargo(&root).args([
            "test",
            "--quiet",
            "-p",
            "image-build",
            "--test",
            "layers",
            "--test",
            "tidy",
        ]),
    )
}

/// Format, lints, all tests of the workspace, and the virtual machines.
pub fn test(extent: Extent) -> Result<()> {
    packages::ensure(Task::Test)?;
    let root = image::checkout();
    format_and_lints(&root)?;
    shown(
        "Tests without virtual machines",
        process::cargo(&root).args([
            "test",
            "--quiet",
            "--workspace",
            "--exclude",
            "qemu-tests",
            "--no-fail-fast",
        ]),
    )?;
    shown(
        "Tests of the registry, over PostgreSQL",
        process::cargo(&root)
            .args(["test", "--quiet", "-p", "registryd", "--no-fail-fast"])
            // Those that are for PostgreSQL alone fail without the variable.
            .args(["--", "--include-ignored"])
            .env("ZOS_TEST_DATABASE", "postgres"),
    )?;
    if extent == Extent::Host {
        return Ok(());
    }
    let options = Options { test_media: true, ..Options::default() };
    let outputs = image::build(&options)?;
    image::check_reproducible(&options)?;
    crate::sizes::show(Some(&outputs.directory))?;
    crate::machines::build_programs(&root)?;
    let trial = binaries::build_example(&root, "container", "container-vm", Profile::Dev)?;
    // A failing boot shall not be hidden by another that runs beside it and takes its processor.
    shown(
        "Tests in virtual machines",
        process::cargo(&root)
            .args(["test", "-p", "qemu-tests", "--no-fail-fast", "--", "--test-threads=1"])
            .env("ZOS_IMAGE_DIR", &outputs.directory)
            .env("ZOS_CONTAINER_TRIAL", trial),
    )
}

fn format_and_lints(root: &Path) -> Result<()> {
    shown("Format", process::cargo(root).args(["fmt", "--all", "--check"]))?;
    shown(
        "Lints",
        process::cargo(root).args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )
}

fn licences(root: &Path, deny: Deny) -> Result<()> {
    if !process::exists_with("cargo-deny", &["--version"]) {
        match deny {
            Deny::IfInstalled => {
                progress::say(
                    "Licences and advisories: not checked, cargo-deny is missing (`cargo xtask check --deny` installs it)",
                );
                return Ok(());
            }
            Deny::Install => {
                progress::say("cargo-deny is missing and is compiled now; this takes some minutes");
                shown(
                    "Installing cargo-deny",
                    process::cargo(root).args(["install", "--locked", "cargo-deny"]),
                )?;
            }
        }
    }
    let deny = |checks: &[&str]| {
        let mut command = process::cargo(root);
        command.args(["deny", "--log-level", "error", "--all-features", "check"]).args(checks);
        command
    };
    shown("Licences, banned crates and sources", &mut deny(&["licenses", "bans", "sources"]))?;
    progress::say("== Advisories");
    match process::run(&mut deny(&["advisories"])) {
        // Without the network nothing is known about the crates, neither good nor bad.
        Err(error) if format!("{error:#}").contains("failed to fetch advisory database") => {
            progress::say("not checked: the advisory database cannot be reached");
            Ok(())
        }
        result => result,
    }
}

fn shown(what: &str, command: &mut Command) -> Result<()> {
    progress::say(&format!("== {what}"));
    process::run_shown(command).with_context(|| format!("{what} did not pass"))
}
