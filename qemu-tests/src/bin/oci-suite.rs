//! `oci-suite --suite DIR [--json] [GROUP ...]`: the OCI validation suite against our runtime and crun.
//! `cargo xtask oci-suite` builds what this needs.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use qemu_tests::suite;
use std::{env, io::Write as _, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    match run(env::args().skip(1)) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<ExitCode> {
    let (mut directory, mut as_json, mut only) = (None, false, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => as_json = true,
            "--suite" => {
                directory = Some(PathBuf::from(arguments.next().context("--suite needs DIR")?));
            }
            group if !group.starts_with('-') => only.push(argument),
            other => bail!("{other} is not understood: oci-suite --suite DIR [--json] [GROUP ...]"),
        }
    }
    let directory = directory.context("--suite DIR is missing")?;
    let report = suite::run(&directory, &only, &tell)?;
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{}", report.table())?;
    }
    Ok(if report.is_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(text: &str) {
    // Nobody listens any more: then there is nothing to tell.
    drop(writeln!(std::io::stderr(), "{text}"));
}
