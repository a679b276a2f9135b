//! Builds the project's own programs for the node: static, and the same bytes from the same source.
//!
//! PID 1 is built in a cargo call of its own: cargo unites the features of all packages in one
//! call, and PID 1 shall contain nothing that only another daemon needs.

use crate::process;
use crate::progress;
use crate::recipe::Binary;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How the programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What ships: small and slow to build.
    Release,
    /// What is measured and does not ship: optimised, without the slow link.
    Measured,
    /// For a quick try: large and fast to build.
    Dev,
}

/// Builds all programs and returns the file of each, in the same order.
pub(crate) fn build(root: &Path, binaries: &[Binary], profile: Profile) -> Result<Vec<PathBuf>> {
    let (alone, together): (Vec<&Binary>, Vec<&Binary>) =
        binaries.iter().partition(|binary| binary.alone);
    let calls = alone.into_iter().map(|binary| vec![binary]).chain([together]);
    for call in calls.filter(|call| !call.is_empty()) {
        let names: Vec<&str> = call.iter().map(|binary| binary.name.as_str()).collect();
        let step = progress::step(format!("Building {}", names.join(", ")));
        cargo(root, &call, profile)?;
        step.done("");
    }
    let directory = directory(root, profile);
    let files: Vec<PathBuf> = binaries.iter().map(|binary| directory.join(&binary.name)).collect();
    match profile {
        Profile::Release | Profile::Measured => Ok(files),
        Profile::Dev => stripped(&files),
    }
}

/// Builds an example of a package for a test machine, and returns its file.
pub(crate) fn build_example(
    root: &Path,
    package: &str,
    name: &str,
    profile: Profile,
) -> Result<PathBuf> {
    let step = progress::step(format!("Building {name}"));
    let mut command = static_build(root, profile)?;
    command.args(["-p", package, "--example", name]);
    process::run(&mut command).with_context(|| format!("building the example {name}"))?;
    step.done("");
    let file = directory(root, profile).join("examples").join(name);
    Ok(stripped(&[file])?.remove(0))
}

/// Where cargo puts what it builds.
fn directory(root: &Path, profile: Profile) -> PathBuf {
    let (target, folder) = match profile {
        Profile::Release => ("target/node", "release"),
        Profile::Measured => ("target/vm", "measured"),
        Profile::Dev => ("target/vm", "debug"),
    };
    root.join(target).join(TARGET).join(folder)
}

/// Copies without debug information, which is five times the program and would fill a small guest.
fn stripped(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let strip = |file: &PathBuf| {
        let small = file.with_extension("stripped");
        process::run(Command::new("objcopy").arg("--strip-all").arg(file).arg(&small))?;
        Ok(small)
    };
    files.iter().map(strip).collect()
}

fn cargo(root: &Path, binaries: &[&Binary], profile: Profile) -> Result<()> {
    let mut command = static_build(root, profile)?;
    for binary in binaries {
        command.args(["-p", &binary.package, "--bin", &binary.name]);
    }
    process::run(&mut command).context("building the node's programs")
}

/// A call of cargo that builds static programs.
fn static_build(root: &Path, profile: Profile) -> Result<Command> {
    let mut command = process::cargo(root);
    command.args(["build", "--locked", "--quiet", "--target", TARGET]);
    match profile {
        Profile::Release => command.args(["--release", "--target-dir", "target/node"]),
        Profile::Measured => command.args(["--profile", "measured", "--target-dir", "target/vm"]),
        Profile::Dev => command.args(["--target-dir", "target/vm"]),
    };
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    if profile == Profile::Release {
        // Neither the checkout's place nor cargo's may show in the bytes.
        let home = cargo_home()?;
        flags.push(format!("--remap-path-prefix={}=/zos", root.display()));
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
        let c_flags = format!(
            "-ffile-prefix-map={}=/zos -ffile-prefix-map={}=/cargo",
            root.display(),
            home.display()
        );
        command.env("CFLAGS_x86_64_unknown_linux_gnu", c_flags);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env_remove("RUSTFLAGS");
    Ok(command)
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}
