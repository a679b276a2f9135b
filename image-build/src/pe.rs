//! Appends sections to an EFI program: how a unified kernel image is made of systemd's stub.
//!
//! The stub finds kernel, initramfs and command line by section name. Only 64-bit files whose
//! header has room for the new entries are taken; the debug symbols at the end are dropped.

use anyhow::{Context, Result, ensure};

const SECTION_HEADER: usize = 40;
/// Page-aligned, as the stub's own tools do.
const ADDRESS_ALIGNMENT: u32 = 4096;
/// Initialised data, readable.
const FLAGS: u32 = 0x4000_0040;

/// The stub with `sections` (name, content) after its own, in the given order.
pub(crate) fn append(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let pe = usize::try_from(u32_at(stub, 0x3c)?)?;
    ensure!(stub.get(pe..pe + 4) == Some(b"PE\0\0"), "the EFI stub is no PE file");
    let optional = pe + 24;
    ensure!(u16_at(stub, optional)? == 0x20b, "the EFI stub is no 64-bit PE file");
    let n_old = usize::from(u16_at(stub, pe + 6)?);
    let table = optional + usize::from(u16_at(stub, pe + 20)?);
    let file_alignment = u32_at(stub, optional + 36)?;
    ensure!(
        file_alignment.is_power_of_two(),
        "the EFI stub has a file alignment of {file_alignment}"
    );
    let headers_end = usize::try_from(u32_at(stub, optional + 60)?)?;
    let n_all = n_old + sections.len();
    ensure!(
        table + n_all * SECTION_HEADER <= headers_end,
        "the EFI stub's header has no room for {} more sections",
        sections.len()
    );

    let mut address = 0;
    let mut end_of_file = 0;
    for index in 0..n_old {
        let at = table + index * SECTION_HEADER;
        let (size, start) = (u32_at(stub, at + 8)?, u32_at(stub, at + 12)?);
        let (raw_size, raw_start) = (u32_at(stub, at + 16)?, u32_at(stub, at + 20)?);
        address = address.max(sum(start, size)?);
        end_of_file = end_of_file.max(sum(raw_start, raw_size)?);
    }
    let mut out = stub
        .get(..usize::try_from(end_of_file)?)
        .context("the EFI stub ends before its last section")?
        .to_vec();

    for (index, (name, content)) in sections.iter().enumerate() {
        ensure!(name.len() <= 8, "the section name {name} is longer than 8 bytes");
        address = align(address, ADDRESS_ALIGNMENT)?;
        let start = align(u32::try_from(out.len())?, file_alignment)?;
        out.resize(usize::try_from(start)?, 0);
        out.extend_from_slice(content);
        let size = u32::try_from(content.len()).context("a section is below 4 GiB")?;
        let raw_size = align(size, file_alignment)?;
        out.resize(usize::try_from(sum(start, raw_size)?)?, 0);

        let at = table + (n_old + index) * SECTION_HEADER;
        out[at..at + SECTION_HEADER].fill(0);
        out[at..at + name.len()].copy_from_slice(name.as_bytes());
        for (field, value) in [(8, size), (12, address), (16, raw_size), (20, start), (36, FLAGS)] {
            put(&mut out, at + field, value);
        }
        address = sum(address, size)?;
    }

    let n_all = u16::try_from(n_all).context("counting sections")?;
    out[pe + 6..pe + 8].copy_from_slice(&n_all.to_le_bytes());
    // Symbol table and its length: gone. The checksum: only drivers need one.
    put(&mut out, pe + 12, 0);
    put(&mut out, pe + 16, 0);
    put(&mut out, optional + 64, 0);
    put(&mut out, optional + 56, align(address, ADDRESS_ALIGNMENT)?);
    Ok(out)
}

fn sum(a: u32, b: u32) -> Result<u32> {
    a.checked_add(b).context("a PE file is below 4 GiB")
}

fn align(value: u32, to: u32) -> Result<u32> {
    value.checked_next_multiple_of(to).context("a PE file is below 4 GiB")
}

fn put(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let two = bytes.get(at..at + 2).context("the EFI stub is cut short")?;
    Ok(u16::from_le_bytes([two[0], two[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let four = bytes.get(at..at + 4).context("the EFI stub is cut short")?;
    Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PE file with one section of 512 bytes at address 4096.
    fn stub() -> Vec<u8> {
        let mut file = vec![0_u8; 1024 + 512 + 100];
        put(&mut file, 0x3c, 0x80);
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        file[0x86] = 1;
        file[0x94] = 240;
        file[0x98..0x9a].copy_from_slice(&0x20b_u16.to_le_bytes());
        put(&mut file, 0x98 + 36, 512);
        put(&mut file, 0x98 + 60, 1024);
        let section = 0x98 + 240;
        file[section..section + 5].copy_from_slice(b".text");
        for (field, value) in [(8, 500), (12, 4096), (16, 512), (20, 1024)] {
            put(&mut file, section + field, value);
        }
        file
    }

    #[test]
    fn sections_follow_aligned_and_in_order() {
        let out = append(&stub(), &[(".osrel", b"a"), (".linux", &[7; 600])]).unwrap();
        let section = 0x98 + 240 + 40;
        assert_eq!(u16_at(&out, 0x86).unwrap(), 3);
        assert_eq!(&out[section..section + 6], b".osrel");
        assert_eq!(u32_at(&out, section + 8).unwrap(), 1);
        assert_eq!(u32_at(&out, section + 12).unwrap(), 8192);
        assert_eq!(u32_at(&out, section + 20).unwrap(), 1536);
        assert_eq!(u32_at(&out, section + 40 + 12).unwrap(), 12288);
        let linux = usize::try_from(u32_at(&out, section + 40 + 20).unwrap()).unwrap();
        assert_eq!(&out[linux..linux + 600], &[7; 600]);
        assert_eq!(out.len(), linux + 1024);
        assert_eq!(u32_at(&out, 0x98 + 56).unwrap(), 16384);
    }

    #[test]
    fn a_full_header_or_a_damaged_file_is_refused() {
        let many: Vec<(&str, &[u8])> = vec![(".x", &[]); 20];
        assert!(append(&stub(), &many).unwrap_err().to_string().contains("no room"));
        assert!(append(&stub()[..1200], &[]).is_err());
        assert!(append(&[0; 10], &[]).is_err());
        assert!(append(&stub(), &[(".toolongname", b"")]).is_err());
    }
}
