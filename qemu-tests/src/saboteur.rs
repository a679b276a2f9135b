//! Puts the saboteur (`guest/saboteur.rs`) into a test machine, and gives it commands.

use crate::{machine::Running, media::Image, wait};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// An archive for [`crate::machine::Machine::overlay`]: the saboteur as `/bin/netd`, and the
/// image's netd beside it.
pub fn overlay(image: &Image, directory: &Path) -> Result<PathBuf> {
    let program = directory.join("saboteur");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/saboteur.rs");
    let status = Command::new("rustc")
        .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"])
        .args([&program, &source])
        .status()
        .context("running rustc")?;
    ensure!(status.success(), "the saboteur does not compile");
    let initramfs = fs::read(image.file("initramfs.cpio"))?;
    let netd = member(&initramfs, "bin/netd")?;
    let mut archive = Vec::new();
    append(&mut archive, "bin/netd", &fs::read(&program)?);
    append(&mut archive, "bin/netd.real", netd);
    append(&mut archive, "TRAILER!!!", &[]);
    let path = directory.join("saboteur.cpio");
    fs::write(&path, archive)?;
    Ok(path)
}

/// Length of a header of the newc format (cpio(5)): six digits and thirteen numbers of eight.
const HEADER: usize = 6 + 13 * 8;

/// Content of a file in a newc archive.
fn member<'a>(archive: &'a [u8], wanted: &str) -> Result<&'a [u8]> {
    let mut at = 0;
    while let Some(header) = archive.get(at..at + HEADER) {
        ensure!(header.starts_with(b"070701"), "no newc archive");
        let number = |index: usize| {
            let digits = &header[6 + index * 8..14 + index * 8];
            let digits = std::str::from_utf8(digits).context("no number in a header")?;
            usize::from_str_radix(digits, 16).context("no number in a header")
        };
        let (size, name_size) = (number(6)?, number(11)?);
        let name_at = at + HEADER;
        let content_at = (name_at + name_size).next_multiple_of(4);
        let name = archive.get(name_at..name_at + name_size - 1).context("a cut name")?;
        let name = name.strip_prefix(b"./").unwrap_or(name);
        if name == wanted.as_bytes() {
            return archive.get(content_at..content_at + size).context("a cut file");
        }
        at = (content_at + size).next_multiple_of(4);
    }
    bail!("{wanted} is not in the initramfs")
}

fn append(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    let fields = [0, 0o100_755, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
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
            if self.line.read_line(&mut line)? == 0 {
                break;
            }
            if let Some(at) = line.find(&wanted) {
                return Ok(line[at + "saboteur: ".len()..].trim().to_owned());
            }
        }
        bail!("the saboteur does not answer {command}")
    }

    /// Kills a service.
    pub fn kill(&mut self, service: &str) -> Result<()> {
        self.order(&format!("kill {service}"), &format!("killed {service}")).map(drop)
    }
}
