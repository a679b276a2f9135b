//! What is measured inside a machine: a program in the place of the launcher's checks (`guest/trial.rs`)
//! says lines on the second serial line, and the last one is `done`.

use crate::{
    archive, content,
    machine::{BOOT, Machine, blank_disk},
    media::Image,
    serial::Serial,
    wait,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Everything that was said, and the clock by which.
pub(crate) struct Heard {
    pub(crate) lines: Vec<String>,
    /// Seconds of the host in one of the guest, from its two looks at the clock: a kernel that boots on a
    /// busy host measures its processor's clock wrongly, and then a second may be several.
    pub(crate) scale: f64,
}

/// Boots the machine and listens until it is done. Lines that are no figures are told.
pub(crate) fn hear(
    machine: &Machine,
    image: &Image,
    directory: &Path,
    next_line: Duration,
    tell: &dyn Fn(&str),
) -> Result<Heard> {
    let running = machine.start(image, directory)?;
    let line = wait::until("the second serial line", Duration::from_secs(20), || {
        Ok(UnixStream::connect(&running.back_line).ok())
    })?;
    let said = Serial::record(line, &directory.join("said"))?;
    let mut limit = BOOT + next_line;
    let mut clock = Vec::new();
    for number in 0.. {
        let (_, line) = said.wait_from(number, "", limit)?;
        limit = next_line;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["done"] => break,
            ["failed:" | "trial:", ..] => bail!("in the machine: {line}"),
            ["clock", us] => clock.push((us.parse::<u64>()?, Instant::now())),
            ["took" | "left" | "memory" | "|" | "!", ..] => {}
            // A daemon's log.
            _ if line.starts_with('<') => {}
            _ => tell(&line),
        }
    }
    let problems = running.serial.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {}", problems.join("\n"));
    let [(from, begun), (to, ended)] = clock[..] else {
        bail!("{} looks at the clock", clock.len())
    };
    let guest = Duration::from_micros(to.saturating_sub(from).max(1));
    let scale = (ended - begun).as_secs_f64() / guest.as_secs_f64();
    Ok(Heard { lines: said.lines(), scale })
}

/// A program that `cargo xtask bench` has built, from the variable that names it.
pub(crate) fn program(variable: &str) -> Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} names no program; `cargo xtask bench` builds it"))
}

/// A disk with an empty btrfs, which the node leaves to who measures because it is not blank.
pub(crate) fn disk(directory: &Path, size_mib: u64) -> Result<PathBuf> {
    let disk = blank_disk(&directory.join("measured.img"), size_mib)?;
    let made = Command::new("/sbin/mkfs.btrfs").arg("-q").arg(&disk).output()?;
    ensure!(made.status.success(), "mkfs.btrfs: {}", String::from_utf8_lossy(&made.stderr));
    Ok(disk)
}

/// Adds a program of a Debian package, as [`add_program`] does.
pub(crate) fn add_package(
    files: &mut BTreeMap<String, Vec<u8>>,
    package: &str,
    program: &str,
) -> Result<()> {
    add_program(files, &content::unpack_package(package)?.path().join(program))
}

/// Adds a program as `/bin/NAME`, and its libraries.
pub(crate) fn add_program(files: &mut BTreeMap<String, Vec<u8>>, program: &Path) -> Result<()> {
    for library in content::libraries(program)? {
        // `/lib` and `/lib64` are links to their namesakes in `/usr`, here and there.
        let path = library.strip_prefix("/")?.display().to_string();
        let path = if path.starts_with("usr/") { path } else { format!("usr/{path}") };
        files.insert(path, read(&library)?);
    }
    let name = program.file_name().and_then(|name| name.to_str()).context("a program's name")?;
    files.insert(format!("usr/bin/{name}"), read(program)?);
    Ok(())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Adds files to an archive for [`Machine::overlay`].
pub(crate) fn append(archive: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let files: Vec<_> =
        files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    let mut both = read(archive)?;
    both.resize(both.len().next_multiple_of(4), 0);
    both.extend(archive::programs(&files));
    Ok(fs::write(archive, both)?)
}
