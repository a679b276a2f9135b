//! Fetches missing content into a staging directory, from several places at once.
//!
//! Owns the plan (which ranges of which packs) and its execution. What it writes is only probably
//! right: BLAKE3 finds bad places early, the kernel's digest decides later. Stopping at any moment
//! loses no chunk: the next call looks at what is staged and fetches the rest.

use crate::{
    body::{BODY_MAX, Body, Chunk},
    check::shown,
    codec::Flist,
    progress::{Cancel, Progress, Stage},
    source::{GetError, Place, Source, Wanted},
    store_path,
};
use contract::{
    FlistId, Release, Timestamp,
    header::Publisher,
    release::{RECORD_BYTES_MAX, Unfit},
};
use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Requests at the same time.
const WORKERS: usize = 4;
/// Bytes of one request.
const RANGE_MAX: u64 = 2 << 20;
/// Plain bytes of one request: a hostile pack may compress a thousandfold.
const PLAIN_MAX: u64 = 8 << 20;
/// Bytes between two chunks that are cheaper to read over than to ask again.
const GAP_MAX: u64 = 64 << 10;
/// Rounds over all places before a request fails.
const ROUNDS_MAX: u32 = 4;
/// Before the second round; doubles each time.
const ROUND_DELAY: Duration = Duration::from_millis(250);

/// Why an flist or its content could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{}: {file} from {url}: {}", .reason.code(), .reason.sentence())]
pub struct FetchError {
    /// What kind of failure.
    pub reason: Reason,
    /// Path of a file that needs it, or the identity of the flist.
    pub file: String,
    /// Where it was asked for last.
    pub url: String,
    /// What the network, the disk or the decoder said.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Kinds of failures. Their codes are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No place has it.
    ContentMissing,
    /// The bytes are not what the flist says.
    ContentMismatch,
    /// A place gave fewer bytes than the flist says.
    ContentTruncated,
    /// No place answered.
    SourceUnreachable,
    /// The body is not acceptable.
    FlistRefused,
    /// It says more bytes than the caller allows.
    FlistTooLarge,
    /// The staging directory cannot be written.
    StagingFailed,
    /// The staging directory is full.
    StoreFull,
    /// The caller stopped it.
    Cancelled,
    /// No place has a release of the publisher that is demanded.
    PublisherUnsigned,
    /// What stands for a release of the publisher is none.
    PublisherInvalid,
    /// The release is of an earlier revision than is demanded.
    PublisherRevision,
    /// The time to begin with the release is over.
    PublisherExpired,
}

impl Reason {
    /// Stable code, for results and tests.
    pub fn code(self) -> &'static str {
        match self {
            Self::ContentMissing => "content_missing",
            Self::ContentMismatch => "content_mismatch",
            Self::ContentTruncated => "content_truncated",
            Self::SourceUnreachable => "source_unreachable",
            Self::FlistRefused => "flist_refused",
            Self::FlistTooLarge => "flist_too_large",
            Self::StagingFailed => "store_failed",
            Self::StoreFull => "store_full",
            Self::Cancelled => "cancelled",
            Self::PublisherUnsigned => "publisher_unsigned",
            Self::PublisherInvalid => "publisher_invalid",
            Self::PublisherRevision => "publisher_revision",
            Self::PublisherExpired => "publisher_expired",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::ContentMissing => "there is no such file",
            Self::ContentMismatch => "the bytes are not what the flist says",
            Self::ContentTruncated => "the file is shorter than the flist says",
            Self::SourceUnreachable => "no usable answer",
            Self::FlistRefused => "the flist breaks a rule",
            Self::FlistTooLarge => "its files are more bytes than was agreed on",
            Self::StagingFailed => "the staging directory cannot be used",
            Self::StoreFull => "the store is full",
            Self::Cancelled => "the caller stopped it",
            Self::PublisherUnsigned => "the publisher that is demanded has not signed it",
            Self::PublisherInvalid => "this is no release of the publisher that is demanded",
            Self::PublisherRevision => "an earlier revision than is demanded",
            Self::PublisherExpired => "the publisher lets nobody begin with it any more",
        }
    }

    /// Which of several places is told of, the lowest first, whatever their order: what is nearly right tells
    /// more than a place that may have it, and that more than one that has something else, or nothing.
    fn tells(self) -> u8 {
        match self {
            Self::PublisherExpired => 0,
            Self::PublisherRevision => 1,
            Self::SourceUnreachable | Self::ContentTruncated => 2,
            Self::ContentMissing => 4,
            _ => 3,
        }
    }

    /// Whether asking the same place again may help.
    fn passes(self) -> bool {
        matches!(self, Self::SourceUnreachable | Self::ContentTruncated)
    }
}

/// Fetches and checks the body of an flist.
pub fn body(source: &Source, identity: FlistId, cancel: &Cancel) -> Result<Flist, FetchError> {
    let name = store_path::published_body(identity);
    let file = format!("flist {identity}");
    let wanted = Wanted::AtMost(BODY_MAX as u64);
    let flist = from_any_place(source, &name, &file, wanted, cancel, |bytes| {
        Flist::decode_as(identity, &bytes).map_err(|refusal| {
            let code = refusal.code;
            let reason = if code == crate::RefusalCode::WrongIdentity {
                Reason::ContentMismatch
            } else {
                Reason::FlistRefused
            };
            (reason, Some(Box::new(refusal) as Box<_>))
        })
    })?;
    agreed(&flist, source)?;
    Ok(flist)
}

/// Fetches the record of the release that a contract demands of an flist. It is right, and somebody may
/// begin with it `now`.
pub fn release(
    source: &Source,
    identity: FlistId,
    demanded: &Publisher,
    now: Timestamp,
    cancel: &Cancel,
) -> Result<Vec<u8>, FetchError> {
    let name = store_path::published_release(identity, &demanded.key);
    let file = format!("release of flist {identity}");
    let wanted = Wanted::AtMost(RECORD_BYTES_MAX as u64);
    let record = from_any_place(source, &name, &file, wanted, cancel, |bytes| {
        released(&bytes, identity, demanded, now).map(|()| bytes)
    });
    record.map_err(|error| match error.reason {
        Reason::ContentMissing => FetchError { reason: Reason::PublisherUnsigned, ..error },
        Reason::ContentMismatch => FetchError { reason: Reason::PublisherInvalid, ..error },
        _ => error,
    })
}

/// Whether a record is the release that is demanded, and may be begun with.
fn released(
    record: &[u8],
    identity: FlistId,
    demanded: &Publisher,
    now: Timestamp,
) -> Result<(), Failure> {
    let release = Release::open(record)
        .map_err(|error| (Reason::PublisherInvalid, Some(Box::new(error) as Box<_>)))?;
    release.fits(&identity, &demanded.key, demanded.revision).map_err(|unfit| {
        let reason = match unfit {
            Unfit::Revision { .. } => Reason::PublisherRevision,
            Unfit::OtherFlist(_) | Unfit::OtherPublisher => Reason::PublisherInvalid,
        };
        (reason, Some(Box::new(unfit) as Box<_>))
    })?;
    match release.not_after {
        Some(end) if !release.begins(now) => {
            Err((Reason::PublisherExpired, Some(format!("it ended at {end}").into())))
        }
        Some(_) | None => Ok(()),
    }
}

/// Fetches a whole pack and compares its hash. `file` says in errors what needs it.
#[cfg(feature = "create")]
pub fn pack(
    source: &Source,
    pack: &crate::body::Pack,
    file: &str,
    cancel: &Cancel,
) -> Result<Vec<u8>, FetchError> {
    let name = store_path::published_pack(&pack.id);
    from_any_place(source, &name, file, Wanted::AtMost(pack.size), cancel, |bytes| {
        if (bytes.len() as u64) < pack.size {
            Err((Reason::ContentTruncated, None))
        } else if *blake3::hash(&bytes).as_bytes() != pack.id {
            Err((Reason::ContentMismatch, None))
        } else {
            Ok(bytes)
        }
    })
}

/// Fetches a file of at most `most` bytes that `right` knows to be the right one.
#[cfg(feature = "create")]
pub(crate) fn checked(
    source: &Source,
    name: &str,
    file: &str,
    most: u64,
    right: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, FetchError> {
    from_any_place(source, name, file, Wanted::AtMost(most), &Cancel::default(), |bytes| {
        if right(&bytes) { Ok(bytes) } else { Err((Reason::ContentMismatch, None)) }
    })
}

/// Fetches `contents` (indices of the body) into files of `staging` named by their digest.
pub fn contents(
    flist: &Flist,
    contents: &[u32],
    source: &Source,
    staging: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), FetchError> {
    agreed(flist, source)?;
    let body = flist.body();
    let pieces = unstaged(body, contents, staging);
    let total = pieces.iter().map(|piece| piece.plain(body) as u64).sum();
    progress.begin(Stage::Fetching, total);
    let jobs = plan(body, &pieces);
    let work = Work { body, paths: body.paths_of_contents(), source, staging, progress, cancel };
    run(jobs, &work)
}

/// An flist is no larger than was agreed on. Asked before its files are looked at, or room for them.
fn agreed(flist: &Flist, source: &Source) -> Result<(), FetchError> {
    let (bytes, bytes_max) = (flist.body().content_bytes(), source.content_bytes_max());
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(FetchError {
        reason: Reason::FlistTooLarge,
        file: format!("flist {}", flist.identity()),
        url: source.places()[0].url(&store_path::published_body(flist.identity())),
        source: Some(format!("{bytes} bytes, and {bytes_max} were agreed on").into()),
    })
}

/// A chunk of a content that has to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    content: u32,
    number: u32,
}

impl Piece {
    fn chunk(self, body: &Body) -> Chunk {
        body.contents[self.content as usize].chunks[self.number as usize]
    }

    fn plain(self, body: &Body) -> usize {
        body.contents[self.content as usize].chunk_size(self.number as usize)
    }
}

/// One request.
#[derive(Debug, PartialEq, Eq)]
struct Job {
    pack: u32,
    offset: u64,
    length: u64,
    /// Bytes of all pieces when unpacked.
    plain: u64,
    /// Sorted by offset; pieces with the same chunk are neighbours.
    pieces: Vec<Piece>,
}

/// Pieces that are near each other in a pack come with one request.
fn plan(body: &Body, pieces: &[Piece]) -> VecDeque<Job> {
    let mut sorted = pieces.to_vec();
    sorted.sort_by_key(|piece| {
        let chunk = piece.chunk(body);
        (chunk.pack, chunk.offset, chunk.packed, *piece)
    });
    let mut jobs: VecDeque<Job> = VecDeque::new();
    for piece in sorted {
        let chunk = piece.chunk(body);
        let end = chunk.offset + u64::from(chunk.packed);
        let plain = piece.plain(body) as u64;
        if let Some(job) = jobs.back_mut()
            && job.pack == chunk.pack
            && chunk.offset <= job.offset + job.length + GAP_MAX
            && end.max(job.offset + job.length) - job.offset <= RANGE_MAX
            && job.plain + plain <= PLAIN_MAX
        {
            job.length = job.length.max(end - job.offset);
            job.plain += plain;
            job.pieces.push(piece);
        } else {
            let length = u64::from(chunk.packed);
            let (pack, offset, pieces) = (chunk.pack, chunk.offset, vec![piece]);
            jobs.push_back(Job { pack, offset, length, plain, pieces });
        }
    }
    jobs
}

/// The chunks that are not in their staged file with the right bytes.
fn unstaged(body: &Body, contents: &[u32], staging: &Path) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for &content in contents {
        let wanted = &body.contents[content as usize];
        let file = File::open(staging.join(hex::encode(wanted.digest))).ok();
        let mut bytes = Vec::new();
        for (number, chunk) in wanted.chunks.iter().enumerate() {
            let mut staged = || {
                bytes.resize(wanted.chunk_size(number), 0);
                let offset = number as u64 * crate::body::CHUNK;
                file.as_ref()?.read_exact_at(&mut bytes, offset).ok()?;
                (*blake3::hash(&bytes).as_bytes() == chunk.id).then_some(())
            };
            if staged().is_none() {
                let number = u32::try_from(number).expect("a body has fewer chunks, by its size");
                pieces.push(Piece { content, number });
            }
        }
    }
    pieces
}

/// What every worker needs.
struct Work<'a> {
    body: &'a Body,
    paths: Vec<&'a [u8]>,
    source: &'a Source,
    staging: &'a Path,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

fn run(jobs: VecDeque<Job>, work: &Work<'_>) -> Result<(), FetchError> {
    let state = Mutex::new((jobs, None));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(job) = lock(&state).0.pop_front() else { return };
                    if let Err(error) = work.job(&job) {
                        let mut state = lock(&state);
                        state.0.clear();
                        state.1.get_or_insert(error);
                    }
                }
            });
        }
    });
    let (_, failure) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(()), Err)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Failure = (Reason, Option<Box<dyn Error + Send + Sync>>);

impl Work<'_> {
    fn job(&self, job: &Job) -> Result<(), FetchError> {
        let name = store_path::published_pack(&self.body.packs[job.pack as usize].id);
        let file = shown(self.paths[job.pieces[0].content as usize]);
        let wanted = Wanted::Range { offset: job.offset, length: job.length };
        let chunks = from_any_place(self.source, &name, &file, wanted, self.cancel, |bytes| {
            self.unpack(job, &bytes)
        })?;
        for piece in &job.pieces {
            let plain = &chunks[&piece.chunk(self.body).offset];
            self.write(*piece, plain).map_err(|source| FetchError {
                reason: out_of_space(&source, Reason::StagingFailed),
                file: shown(self.paths[piece.content as usize]),
                url: self.staging.display().to_string(),
                source: Some(source.into()),
            })?;
            self.progress.advance(plain.len() as u64);
        }
        Ok(())
    }

    /// Plain bytes of every chunk of the job, by its offset in the pack.
    fn unpack(&self, job: &Job, bytes: &[u8]) -> Result<BTreeMap<u64, Vec<u8>>, Failure> {
        let mut chunks: BTreeMap<u64, (Chunk, Vec<u8>)> = BTreeMap::new();
        for piece in &job.pieces {
            let chunk = piece.chunk(self.body);
            let plain_size = piece.plain(self.body);
            match chunks.get(&chunk.offset) {
                Some((known, plain)) if *known == chunk && plain.len() == plain_size => continue,
                // Two chunks in one place cannot both be right.
                Some(_) => return Err((Reason::ContentMismatch, None)),
                None => {}
            }
            let start = usize::try_from(chunk.offset - job.offset).expect("within a request");
            let packed = &bytes[start..start + chunk.packed as usize];
            let plain = unpack_chunk(&chunk, plain_size, packed)
                .map_err(|source| (Reason::ContentMismatch, Some(source.into())))?;
            chunks.insert(chunk.offset, (chunk, plain));
        }
        Ok(chunks.into_iter().map(|(offset, (_, plain))| (offset, plain)).collect())
    }

    fn write(&self, piece: Piece, plain: &[u8]) -> io::Result<()> {
        let digest = &self.body.contents[piece.content as usize].digest;
        let path = self.staging.join(hex::encode(digest));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(plain, u64::from(piece.number) * crate::body::CHUNK)
    }
}

/// Decompresses one chunk into exactly its declared size, and compares its hash.
pub(crate) fn unpack_chunk(chunk: &Chunk, plain_size: usize, packed: &[u8]) -> io::Result<Vec<u8>> {
    let plain = zstd::bulk::decompress(packed, plain_size)?;
    if plain.len() != plain_size || *blake3::hash(&plain).as_bytes() != chunk.id {
        return Err(io::Error::other("the chunk has another size or BLAKE3 hash"));
    }
    Ok(plain)
}

/// `ENOSPC` and `EDQUOT` are the same to the caller.
pub(crate) fn out_of_space(error: &io::Error, otherwise: Reason) -> Reason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::StoreFull,
        _ => otherwise,
    }
}

/// Asks one place after the other, and again after a while if that may help.
fn from_any_place<T>(
    source: &Source,
    name: &str,
    file: &str,
    wanted: Wanted,
    cancel: &Cancel,
    accept: impl Fn(Vec<u8>) -> Result<T, Failure>,
) -> Result<T, FetchError> {
    let mut failures = Vec::new();
    for round in 0..ROUNDS_MAX {
        if round > 0 {
            cancel.wait(ROUND_DELAY * 2_u32.pow(round - 1));
        }
        failures.clear();
        for place in source.places() {
            let error = |reason, source| FetchError {
                reason,
                file: file.to_owned(),
                url: place.url(name),
                source,
            };
            if cancel.is_cancelled() {
                return Err(error(Reason::Cancelled, None));
            }
            match get(source, place, name, wanted, cancel).and_then(&accept) {
                Ok(accepted) => return Ok(accepted),
                Err(_) if cancel.is_cancelled() => return Err(error(Reason::Cancelled, None)),
                Err((reason, cause)) => failures.push(error(reason, cause)),
            }
        }
        if !failures.iter().any(|failure| failure.reason.passes()) {
            break;
        }
    }
    let place = (0..failures.len()).min_by_key(|place| failures[*place].reason.tells());
    Err(failures.swap_remove(place.unwrap_or(0)))
}

fn get(
    source: &Source,
    place: &Place,
    name: &str,
    wanted: Wanted,
    cancel: &Cancel,
) -> Result<Vec<u8>, Failure> {
    source.get(place, name, wanted, cancel).map_err(|error| match error {
        GetError::Missing => (Reason::ContentMissing, None),
        GetError::Truncated => (Reason::ContentTruncated, None),
        GetError::TooLarge => (Reason::ContentMismatch, None),
        GetError::Unreachable(source) => (Reason::SourceUnreachable, Some(source)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Content, FORMAT, MAGIC, Pack, Run};

    /// A body with one content for each chunk, which is all that the plan looks at.
    fn body(chunks: &[(u32, u64, u32)]) -> Body {
        let content = |&(pack, offset, packed)| Content {
            digest: [0; 32],
            size: 1 << 20,
            chunks: vec![Chunk { id: [0; 32], pack, offset, packed }],
        };
        Body {
            magic: MAGIC,
            format: FORMAT,
            run: Run::default(),
            packs: vec![Pack { id: [0; 32], size: 64 << 20 }; 2],
            contents: chunks.iter().map(content).collect(),
            entries: Vec::new(),
        }
    }

    fn check(chunks: &[(u32, u64, u32)], expected: &[(u32, u64, u64, &[u32])]) {
        let pieces: Vec<_> = (0..).take(chunks.len()).collect();
        let pieces: Vec<_> =
            pieces.into_iter().map(|content| Piece { content, number: 0 }).collect();
        let jobs = plan(&body(chunks), &pieces);
        let found: Vec<(u32, u64, u64, Vec<u32>)> = jobs
            .into_iter()
            .map(|job| {
                let contents = job.pieces.iter().map(|piece| piece.content).collect();
                (job.pack, job.offset, job.length, contents)
            })
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(a, b, c, contents)| (*a, *b, *c, contents.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn neighbours_come_together_and_strangers_do_not() {
        check(&[], &[]);
        check(&[(0, 100, 50), (0, 0, 100)], &[(0, 0, 150, &[1, 0])]);
        check(&[(0, 0, 9), (1, 9, 9)], &[(0, 0, 9, &[0]), (1, 9, 9, &[1])]);
        let gap = GAP_MAX;
        check(&[(0, 0, 9), (0, 9 + gap, 9)], &[(0, 0, 18 + gap, &[0, 1])]);
        check(&[(0, 0, 9), (0, 10 + gap, 9)], &[(0, 0, 9, &[0]), (0, 10 + gap, 9, &[1])]);
    }

    #[test]
    fn the_same_chunk_is_asked_for_once() {
        check(&[(0, 5, 9), (0, 5, 9), (0, 5, 9)], &[(0, 5, 9, &[0, 1, 2])]);
    }

    #[test]
    fn no_request_is_larger_than_its_bounds() {
        let large = 1 << 20;
        let chunks = [(0, 0, large), (0, 1 << 20, large), (0, 2 << 20, large)];
        check(&chunks, &[(0, 0, 2 << 20, &[0, 1]), (0, 2 << 20, 1 << 20, &[2])]);
        // Ten chunks of a few bytes that say to be a MiB each.
        let chunks: Vec<_> = (0..10).map(|n| (0, n * 40, 40)).collect();
        check(&chunks, &[(0, 0, 320, &[0, 1, 2, 3, 4, 5, 6, 7]), (0, 320, 80, &[8, 9])]);
    }
}
