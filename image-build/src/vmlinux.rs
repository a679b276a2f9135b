//! Takes the ELF kernel out of a bzImage, for virtual machines that start it directly.

use anyhow::{Context, Result, ensure};
use std::io::Read;

/// A kernel that unpacks to more than this is no kernel.
const VMLINUX_MAX: u64 = 512 << 20;

/// The ELF file inside `vmlinuz`. Only zstd, which Debian uses, is understood.
pub(crate) fn extract(vmlinuz: &[u8]) -> Result<Vec<u8>> {
    // Documentation/arch/x86/boot.rst: the setup header.
    ensure!(vmlinuz.get(0x202..0x206) == Some(b"HdrS"), "the kernel file is no bzImage");
    let setup_sectors = match vmlinuz[0x1f1] {
        0 => 4, // the header's own rule for very old kernels
        n => usize::from(n),
    };
    let offset = word(vmlinuz, 0x248)?;
    let length = word(vmlinuz, 0x24c)?;
    let start = (setup_sectors + 1) * 512 + offset;
    let payload =
        vmlinuz.get(start..start + length).context("the kernel file ends before its payload")?;
    ensure!(
        payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]),
        "the kernel is not compressed with zstd"
    );
    let decoder = zstd::Decoder::new(payload).context("starting to unpack the kernel")?;
    let mut elf = Vec::new();
    // The payload ends with the unpacked size, which is no zstd frame: read one frame only.
    decoder
        .single_frame()
        .take(VMLINUX_MAX)
        .read_to_end(&mut elf)
        .context("unpacking the kernel")?;
    ensure!(elf.starts_with(b"\x7fELF"), "the unpacked kernel is no ELF file");
    Ok(elf)
}

/// The kernel's release, as in `uname -r`, from the version string in the setup header.
pub(crate) fn release(vmlinuz: &[u8]) -> Result<String> {
    let pointer = vmlinuz.get(0x20e..0x210).context("the kernel file is too short")?;
    let start = usize::from(u16::from_le_bytes([pointer[0], pointer[1]])) + 0x200;
    let text = vmlinuz.get(start..).context("the kernel file has no version")?;
    let end =
        text.iter().position(|byte| *byte == b' ').context("the kernel's version has no end")?;
    String::from_utf8(text[..end].to_vec()).context("the kernel's version is no text")
}

fn word(bytes: &[u8], at: usize) -> Result<usize> {
    let four = bytes.get(at..at + 4).context("the kernel file is too short")?;
    let value = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    usize::try_from(value).context("an offset of the kernel file is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[0x1f1] = 1;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        file[0x300..0x30e].copy_from_slice(b"6.12.1+x (abc)");
        file[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        file[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        file.extend_from_slice(&[0; 16]);
        file.extend_from_slice(payload);
        file
    }

    #[test]
    fn the_elf_file_comes_out_of_the_payload() {
        let mut payload = zstd::encode_all(&b"\x7fELF and more"[..], 3).unwrap();
        payload.extend_from_slice(&13_u32.to_le_bytes());
        let file = bzimage(&payload);
        assert_eq!(extract(&file).unwrap(), b"\x7fELF and more");
        assert_eq!(release(&file).unwrap(), "6.12.1+x");
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(extract(b"short").is_err());
        assert!(extract(&bzimage(b"not zstd")).is_err());
        assert!(extract(&bzimage(&zstd::encode_all(&b"no elf"[..], 3).unwrap())).is_err());
        let cut = bzimage(&zstd::encode_all(&b"\x7fELF"[..], 3).unwrap());
        assert!(extract(&cut[..cut.len() - 2]).is_err());
    }
}
