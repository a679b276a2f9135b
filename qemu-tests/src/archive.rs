//! Archives of the newc format (cpio(5)), as the kernel unpacks them, and programs for guests.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Length of a header: six digits and thirteen numbers of eight.
const HEADER: usize = 6 + 13 * 8;

/// Compiles the program `guest/NAME.rs` into a directory, static, by `rustc` alone.
pub(crate) fn guest_program(name: &str, directory: &Path) -> Result<PathBuf> {
    let program = directory.join(name);
    let source = crate::own_directory().join(format!("guest/{name}.rs"));
    let status = Command::new("rustc")
        .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"])
        .args([&program, &source])
        .status()
        .context("running rustc")?;
    ensure!(status.success(), "guest/{name}.rs does not compile");
    Ok(program)
}

/// Content of a file in an archive.
pub(crate) fn member<'a>(archive: &'a [u8], wanted: &str) -> Result<&'a [u8]> {
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
    bail!("{wanted} is not in the archive")
}

/// An archive of programs, each with its path.
pub(crate) fn programs(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        append(&mut archive, name, content);
    }
    append(&mut archive, "TRAILER!!!", &[]);
    archive
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_found_and_nothing_else() {
        let archive = programs(&[("init", b"one"), ("bin/netd", b"")]);
        assert_eq!(member(&archive, "init").unwrap(), b"one");
        assert_eq!(member(&archive, "bin/netd").unwrap(), b"");
        assert!(member(&archive, "netd").is_err());
        assert!(member(b"no archive".repeat(20).as_slice(), "init").is_err());
    }
}
