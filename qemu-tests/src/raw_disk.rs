//! Damage to what a node has on a disk, from outside, as failing hardware does it: a bit is another
//! one. Also while the node runs, which then has its own memory of the disk.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// File systems place and check data in blocks of this size.
const BLOCK: usize = 4096;
/// Bytes that are looked at at once.
const PIECE: usize = 1024 * BLOCK;
/// Where an EROFS image says that it is one, and how.
const EROFS_MAGIC: (usize, [u8; 4]) = (1024, [0xe2, 0xe1, 0xf5, 0xe0]);

/// Flips a bit wherever the disk has a block of a file.
pub fn flip_block(disk: &Path, file: &Path, number: usize) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let wanted = bytes.chunks_exact(BLOCK).nth(number).context("the file is shorter")?;
    flip(disk, |block| (block == wanted).then_some(BLOCK / 2))
}

/// Flips a bit in the first block of each metadata image.
pub fn flip_images(disk: &Path) -> Result<()> {
    flip(disk, |block| is_image(block).then_some(EROFS_MAGIC.0))
}

fn is_image(block: &[u8]) -> bool {
    let (at, magic) = EROFS_MAGIC;
    block[at..at + magic.len()] == magic
}

/// Flips a bit in each block for which `victim` gives the place of a byte. There must be one.
fn flip(disk: &Path, mut victim: impl FnMut(&[u8]) -> Option<usize>) -> Result<()> {
    let failed = || format!("damaging {}", disk.display());
    let mut file = File::options().read(true).write(true).open(disk).with_context(failed)?;
    let (mut piece, mut at, mut flipped) = (vec![0; PIECE], 0_u64, 0_u32);
    loop {
        file.seek(SeekFrom::Start(at)).with_context(failed)?;
        let n = (&file).take(PIECE as u64).read(&mut piece).with_context(failed)?;
        if n < BLOCK {
            break;
        }
        for (number, block) in piece[..n].chunks_exact_mut(BLOCK).enumerate() {
            let Some(place) = victim(block) else { continue };
            block[place] ^= 1;
            let start = at + (number * BLOCK) as u64;
            file.seek(SeekFrom::Start(start)).with_context(failed)?;
            file.write_all(block).with_context(failed)?;
            flipped += 1;
        }
        at += (n / BLOCK * BLOCK) as u64;
    }
    ensure!(flipped > 0, "what is to be damaged is not on {}", disk.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_bit_of_what_was_meant_is_another() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![7; 4 * BLOCK];
        bytes[BLOCK + 1024..][..4].copy_from_slice(&EROFS_MAGIC.1);
        std::fs::write(file.path(), &bytes).unwrap();
        let changed = || -> Vec<usize> {
            let now = std::fs::read(file.path()).unwrap();
            let places = now.iter().zip(&bytes).enumerate();
            places.filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect()
        };
        flip_images(file.path()).unwrap();
        assert_eq!(changed(), [BLOCK + 1024]);
        assert!(flip_images(file.path()).is_err(), "there is no image any more");
        let victim = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(victim.path(), &bytes[..BLOCK]).unwrap();
        flip_block(file.path(), victim.path(), 0).unwrap();
        let middle = |block| block * BLOCK + BLOCK / 2;
        assert_eq!(changed(), [middle(0), BLOCK + 1024, middle(2), middle(3)]);
        assert!(flip_block(file.path(), victim.path(), 1).is_err());
    }
}
