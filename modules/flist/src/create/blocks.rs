//! Blocks of the two earlier flist formats: how they are named, found, checked and opened.
//!
//! | format   | name of a block      | packed as                | key                |
//! |----------|----------------------|--------------------------|--------------------|
//! | `.flist` | BLAKE2b-128 of bytes | XXTEA of raw snappy      | BLAKE2b-128, plain |
//! | `.fl`    | BLAKE2b-256 of bytes | AES-256-GCM of the same  | BLAKE2b-256, plain |
//!
//! Both hashes are compared: that of the bytes as they arrive, and that of the plain bytes.

use super::{CreateError, reader::published};
use crate::{FetchError, Reason, Source, fetch};
use blake2::{
    Blake2b, Digest as _,
    digest::consts::{U16, U32},
};
use ring::aead;
use std::cell::Cell;

/// Plain bytes of a block.
pub(super) const PLAIN_MAX: usize = 512 << 10;
/// What snappy and encryption may add to them.
const STORED_MAX: u64 = 1 << 20;
const XXTEA_DELTA: u32 = 0x9e37_79b9;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `.flist`: a gzipped tar file with a database of Cap'n Proto messages.
    Zflist,
    /// `.fl`: a database.
    Rfs,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) id: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Format {
    pub(super) fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Zflist => Blake2b::<U16>::digest(bytes).to_vec(),
            Self::Rfs => Blake2b::<U32>::digest(bytes).to_vec(),
        }
    }

    /// Whether name and key have the length that they have to have.
    pub(super) fn accepts(self, block: &Block) -> bool {
        let length = match self {
            Self::Zflist => 16,
            Self::Rfs => 32,
        };
        block.id.len() == length && block.key.len() == length
    }

    /// The plain bytes of a block, or what is wrong with it.
    pub(super) fn open(self, block: &Block, stored: Vec<u8>) -> Result<Vec<u8>, &'static str> {
        if !self.accepts(block) {
            return Err("has a name or a key of another length");
        }
        if self.hash(&stored) != block.id {
            return Err("has another hash than its name says");
        }
        let packed = match self {
            Self::Zflist => xxtea_open(&stored, &block.key),
            Self::Rfs => gcm_open(stored, &block.key),
        };
        let packed = packed.ok_or("does not open with its key")?;
        match snap::raw::decompress_len(&packed) {
            Ok(length) if length <= PLAIN_MAX => {}
            Ok(_) => return Err("unpacks to more than 512 KiB"),
            Err(_) => return Err("does not unpack"),
        }
        let plain =
            snap::raw::Decoder::new().decompress_vec(&packed).map_err(|_| "does not unpack")?;
        if self.hash(&plain) != block.key {
            return Err("has other contents than its key says");
        }
        Ok(plain)
    }
}

fn gcm_open(mut stored: Vec<u8>, key: &[u8]) -> Option<Vec<u8>> {
    let nonce = aead::Nonce::try_assume_unique_for_key(key.get(..12)?).ok()?;
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?);
    let length = key.open_in_place(nonce, aead::Aad::empty(), &mut stored).ok()?.len();
    stored.truncate(length);
    Some(stored)
}

/// XXTEA over little-endian words; the last word is the length of the bytes before it.
fn xxtea_open(stored: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let words = |bytes: &[u8]| -> Option<Vec<u32>> {
        let words = bytes.chunks(4).map(|word| Some(u32::from_le_bytes(word.try_into().ok()?)));
        words.collect()
    };
    let (mut text, key) = (words(stored)?, words(key)?);
    let count = text.len();
    if count < 2 || key.len() != 4 {
        return None;
    }
    let rounds = 6 + 52 / u32::try_from(count).ok()?;
    let mut sum = XXTEA_DELTA.wrapping_mul(rounds);
    let mut above = text[0];
    for _ in 0..rounds {
        let twist = (sum >> 2) & 3;
        for place in (0..count).rev() {
            let below = text[if place == 0 { count - 1 } else { place - 1 }];
            let chosen = key[(place & 3) ^ twist as usize];
            let mixed = ((below >> 5) ^ (above << 2)).wrapping_add((above >> 3) ^ (below << 4))
                ^ (sum ^ above).wrapping_add(chosen ^ below);
            text[place] = text[place].wrapping_sub(mixed);
            above = text[place];
        }
        sum = sum.wrapping_sub(XXTEA_DELTA);
    }
    let length = usize::try_from(text.pop()?).ok()?;
    let mut bytes: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).collect();
    if length > bytes.len() || length + 3 < bytes.len() {
        return None;
    }
    bytes.truncate(length);
    Some(bytes)
}

/// A place with the blocks of an flist.
pub(super) struct Blocks<'a> {
    source: &'a Source,
    pub(super) format: Format,
    /// Whether they lie beside each other, and not in directories by their first two digits.
    flat: Cell<bool>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(source: &'a Source, format: Format) -> Self {
        Self { source, format, flat: Cell::new(false) }
    }

    /// The plain bytes of a block; `file` is for messages.
    pub(super) fn get(&self, block: &Block, file: &str) -> Result<Vec<u8>, CreateError> {
        let id = hex::encode(&block.id);
        let problem = |problem: &str| CreateError::input(format!("block {id} of {file}"), problem);
        if !self.format.accepts(block) {
            return Err(problem("has a name or a key of another length"));
        }
        let fetch = |flat: bool| {
            let name = if flat { id.clone() } else { format!("{}/{id}", &id[..2]) };
            let right = |bytes: &[u8]| self.format.hash(bytes) == block.id;
            fetch::checked(self.source, &name, file, STORED_MAX, right)
        };
        let stored = match fetch(self.flat.get()) {
            Err(FetchError { reason: Reason::ContentMissing, .. }) => {
                let stored = fetch(!self.flat.get());
                if stored.is_ok() {
                    self.flat.set(!self.flat.get());
                }
                stored
            }
            stored => stored,
        };
        self.format.open(block, stored.map_err(published)?).map_err(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that implementations of XXTEA with a length word share.
    #[test]
    fn xxtea_opens_what_others_closed() {
        let stored = hex::decode(concat!(
            "427701d42d2b1d0a19d5e4623cce1db19b518bda",
            "4dae9eecaaf5fbe9c157bebac81d72fa"
        ));
        let stored = stored.unwrap();
        let key = b"1234567890\0\0\0\0\0\0";
        let plain = xxtea_open(&stored, key).unwrap();
        assert_eq!(str::from_utf8(&plain).unwrap(), "Hello World! 你好，中国！");
        assert_eq!(xxtea_open(&stored[..35], key), None);
        assert_eq!(xxtea_open(&stored[..4], key), None);
        assert_eq!(xxtea_open(&stored, b"1234567890\0\0\0\0\0\x01"), None);
        assert_eq!(xxtea_open(&stored, b"short"), None);
    }
}
