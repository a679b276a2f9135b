//! Puts the saboteur (`guest/saboteur.rs`) into a test machine, and gives it commands.

use crate::{archive, machine::Running, media::Image, wait};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// An archive for [`crate::machine::Machine::overlay`]: the saboteur as `/bin/netd`, and the
/// image's netd beside it.
pub fn overlay(image: &Image, directory: &Path) -> Result<PathBuf> {
    let program = fs::read(archive::guest_program("saboteur", directory)?)?;
    let initramfs = fs::read(image.file("initramfs.cpio"))?;
    let netd = archive::member(&initramfs, "usr/bin/netd")?;
    let path = directory.join("saboteur.cpio");
    fs::write(
        &path,
        archive::programs(&[("usr/bin/netd", &program), ("usr/bin/netd.real", netd)]),
    )?;
    Ok(path)
}

/// The saboteur's line in a running machine.
#[derive(Debug)]
pub struct Saboteur {
    line: BufReader<UnixStream>,
}

impl Saboteur {
    /// Connects to the machine's second serial line.
    pub fn connect(machine: &Running) -> Result<Self> {
        let stream = wait::until("the second serial line", Duration::from_secs(20), || {
            Ok(UnixStream::connect(&machine.back_line).ok())
        })?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { line: BufReader::new(stream) })
    }

    /// Gives a command, and waits for the answer that begins with `answer`.
    pub fn order(&mut self, command: &str, answer: &str) -> Result<String> {
        writeln!(self.line.get_mut(), "{command}")?;
        let wanted = format!("saboteur: {answer}");
        for _ in 0..1000 {
            let mut line = String::new();
            let read = self.line.read_line(&mut line);
            if read.with_context(|| format!("waiting for the answer to {command}"))? == 0 {
                break;
            }
            if line.contains("saboteur: failed") {
                bail!("the saboteur could not {command}: {line}");
            }
            if let Some(at) = line.find(&wanted) {
                return Ok(line[at + "saboteur: ".len()..].trim().to_owned());
            }
        }
        bail!("the saboteur does not answer {command}")
    }

    /// Kills a service; its end is seen on the console.
    pub fn kill(&mut self, service: &str) -> Result<()> {
        self.order(&format!("kill {service}"), &format!("kills {service}")).map(drop)
    }
}
