//! Reads what an ELF program needs at run time: its loader and its libraries. 64-bit little-endian only.

use anyhow::{Context, Result, ensure};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
/// A program header table is short; the field allows 65535.
const SEGMENTS_MAX: u16 = 256;

/// What a dynamic program or library needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Path of the dynamic loader, for programs.
    pub(crate) loader: Option<String>,
    /// Sonames of libraries.
    pub(crate) libraries: Vec<String>,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Reads the needs of an ELF file; a static program needs nothing.
pub(crate) fn needs(file: &[u8]) -> Result<Needs> {
    ensure!(file.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    let segments = segments(file)?;
    let mut needs = Needs::default();
    if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
        needs.loader = Some(text(file, segment.offset)?);
    }
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
        return Ok(needs);
    };
    let mut names = Vec::new();
    let mut strings = None;
    for at in (dynamic.offset..dynamic.offset.saturating_add(dynamic.size)).step_by(16) {
        match (u64_at(file, at)?, u64_at(file, at.saturating_add(8))?) {
            (DT_NULL, _) => break,
            (DT_NEEDED, name) => names.push(name),
            (DT_STRTAB, address) => strings = Some(file_offset(&segments, address)?),
            _ => {}
        }
    }
    if let Some(strings) = strings {
        needs.libraries = names
            .into_iter()
            .map(|name| text(file, strings.saturating_add(name)))
            .collect::<Result<_>>()?;
    }
    Ok(needs)
}

fn segments(file: &[u8]) -> Result<Vec<Segment>> {
    let table = u64_at(file, 32)?;
    let count = u16_at(file, 56)?.min(SEGMENTS_MAX);
    let header = |index: u16| -> Result<Segment> {
        let field = |at: u64| table.saturating_add(u64::from(index) * 56 + at);
        Ok(Segment {
            kind: u32_at(file, field(0))?,
            offset: u64_at(file, field(8))?,
            address: u64_at(file, field(16))?,
            size: u64_at(file, field(32))?,
        })
    };
    (0..count).map(header).collect()
}

fn file_offset(segments: &[Segment], address: u64) -> Result<u64> {
    let mut loaded = segments.iter().filter(|segment| segment.kind == PT_LOAD);
    let segment = loaded
        .find(|segment| address.checked_sub(segment.address).is_some_and(|at| at < segment.size))
        .context("the ELF file's string table is in no segment")?;
    Ok((address - segment.address).saturating_add(segment.offset))
}

fn text(file: &[u8], at: u64) -> Result<String> {
    let tail = file.get(usize::try_from(at)?..).context("a name is beyond the end of the file")?;
    let end = tail.iter().position(|byte| *byte == 0).context("a name has no end")?;
    String::from_utf8(tail[..end].to_vec()).context("a name is no text")
}

fn bytes_at<const N: usize>(file: &[u8], at: u64) -> Result<[u8; N]> {
    let start = usize::try_from(at)?;
    let bytes = file.get(start..).and_then(|tail| tail.get(..N));
    Ok(bytes.context("the ELF file is cut short")?.try_into()?)
}

fn u16_at(file: &[u8], at: u64) -> Result<u16> {
    Ok(u16::from_le_bytes(bytes_at(file, at)?))
}

fn u32_at(file: &[u8], at: u64) -> Result<u32> {
    Ok(u32::from_le_bytes(bytes_at(file, at)?))
}

fn u64_at(file: &[u8], at: u64) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes_at(file, at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_needs_the_c_library_and_a_loader() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&program).unwrap();
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{needs:?}");
        assert!(needs.loader.unwrap().contains("ld-linux"));
    }

    #[test]
    fn damaged_files_are_errors_not_panics() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 5, 6, 40, 63, 64, 100, 500] {
            assert!(needs(&program[..length]).is_err(), "{length}");
        }
        let mut wild = program[..4096].to_vec();
        wild[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(needs(&wild).is_err());
    }
}
