//! Reads the contents of a published flist, pack by pack. Every hash is compared.

use super::CreateError;
use crate::{
    Cancel, FetchError, Flist, FlistId, Progress, Reason, Source, body::Content, check::shown,
    fetch, verity,
};
use std::{
    collections::VecDeque,
    io::{self, Write as _},
};

/// Packs held in memory while contents are read: a content rarely spans more.
const PACKS_HELD: usize = 3;

/// Reads contents pack by pack.
pub(super) struct Reader<'a> {
    source: &'a Source,
    pub(super) flist: Flist,
    /// The packs used last.
    packs: VecDeque<(u32, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source, identity: FlistId) -> Result<Self, CreateError> {
        let flist = fetch::body(source, identity, &Cancel::default()).map_err(published)?;
        Ok(Self { source, flist, packs: VecDeque::new() })
    }

    /// In the order of paths, which is the order of packing.
    pub(super) fn contents(&self) -> Vec<(Content, Vec<u8>)> {
        let body = self.flist.body();
        let mut contents: Vec<_> = body
            .contents
            .iter()
            .zip(body.paths_of_contents())
            .map(|(content, path)| (content.clone(), path.to_vec()))
            .collect();
        contents.sort_by(|a, b| a.1.cmp(&b.1));
        contents
    }

    /// Writes a content to `out`. A chunk is written when its own hash is right; that the whole is
    /// right is known at the end.
    pub(super) fn read(
        &mut self,
        content: &Content,
        path: &[u8],
        out: &mut dyn io::Write,
        progress: &dyn Progress,
    ) -> Result<(), CreateError> {
        let wrong = |source: Option<io::Error>| FetchError {
            reason: Reason::ContentMismatch,
            file: shown(path),
            url: hex::encode(content.digest),
            source: source.map(Into::into),
        };
        let mut hasher = verity::Hasher::new();
        for (number, chunk) in content.chunks.iter().enumerate() {
            let pack = self.pack(chunk.pack, path)?;
            let start = usize::try_from(chunk.offset).expect("packs fit in memory");
            let packed = &pack[start..start + chunk.packed as usize];
            let plain = fetch::unpack_chunk(chunk, content.chunk_size(number), packed)
                .map_err(|error| published(wrong(Some(error))))?;
            hasher.write_all(&plain).expect("a hasher takes every byte");
            out.write_all(&plain).map_err(CreateError::io("writing", shown(path).as_ref()))?;
            progress.advance(plain.len() as u64);
        }
        if hasher.finish() == content.digest { Ok(()) } else { Err(published(wrong(None))) }
    }

    fn pack(&mut self, number: u32, path: &[u8]) -> Result<&[u8], CreateError> {
        if let Some(held) = self.packs.iter().position(|(held, _)| *held == number) {
            return Ok(&self.packs[held].1);
        }
        let pack = self.flist.body().packs[number as usize];
        let bytes = fetch::pack(self.source, &pack, &shown(path), &Cancel::default());
        if self.packs.len() == PACKS_HELD {
            self.packs.pop_front();
        }
        self.packs.push_back((number, bytes.map_err(published)?));
        Ok(self.packs.back().map_or(&[], |(_, bytes)| bytes))
    }
}

pub(super) fn published(source: FetchError) -> CreateError {
    CreateError::Published { file: source.file.clone(), source }
}
