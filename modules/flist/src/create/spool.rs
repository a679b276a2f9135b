//! Where the bytes of files are until they are packed, and how compressed input is read.

use super::{CreateError, Options};
use crate::body::BODY_MAX;
use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

/// Bytes of all names, targets and attributes of an input: some times what an flist can hold, for what
/// layers hide again.
const WORDS_MAX: u64 = 4 * BODY_MAX as u64;
/// Frames that need more memory to decompress are refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The bytes of a file.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Vec<u8>),
    /// A file of the host that had this size.
    Path(PathBuf, u64),
    /// A part of a spool.
    Spool {
        file: Rc<File>,
        offset: u64,
        size: u64,
    },
}

impl Source {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Path(_, size) | Self::Spool { size, .. } => *size,
        }
    }

    pub(super) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::Memory(bytes) => Ok(Box::new(bytes.as_slice())),
            Self::Path(path, _) => {
                let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits())
                    .expect("flags of open are an int");
                Ok(Box::new(OpenOptions::new().read(true).custom_flags(nofollow).open(path)?))
            }
            Self::Spool { file, offset, size } => {
                Ok(Box::new(Part { file, offset: *offset, left: *size }))
            }
        }
    }
}

/// A part of a file that others read as well.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A nameless temporary file that takes the contents of one archive after the other.
pub(super) struct Spool {
    file: Rc<File>,
    size: u64,
    directory: PathBuf,
    /// Bytes that the input may still unpack to, whether they are kept or read over.
    left: Rc<Cell<u64>>,
}

impl Spool {
    pub(super) fn new(options: &Options) -> Result<Self, CreateError> {
        let directory = &options.scratch;
        let file = tempfile::tempfile_in(directory)
            .map_err(CreateError::io("making a temporary file in", directory))?;
        let left = Rc::new(Cell::new(options.unpacked_bytes_max));
        Ok(Self { file: Rc::new(file), size: 0, directory: directory.clone(), left })
    }

    /// Takes exactly `size` bytes.
    pub(super) fn keep(&mut self, reader: &mut dyn Read, size: u64) -> Result<Source, CreateError> {
        let offset = self.size;
        let failed = || CreateError::io("writing a temporary file in", &self.directory);
        let mut file = &*self.file;
        let copied = io::copy(&mut reader.take(size), &mut file).map_err(failed())?;
        file.flush().map_err(failed())?;
        if copied < size {
            return Err(CreateError::input("the input", "ends in the middle of a file"));
        }
        self.size += size;
        Ok(Source::Spool { file: Rc::clone(&self.file), offset, size })
    }
}

/// A file that is kept in several pieces.
impl Spool {
    /// Where the next piece will be.
    pub(super) fn position(&self) -> u64 {
        self.size
    }

    /// Everything that was kept since that position.
    pub(super) fn since(&self, position: u64) -> Source {
        let size = self.size - position;
        Source::Spool { file: Rc::clone(&self.file), offset: position, size }
    }
}

/// Names, targets and attributes of an input, which are held in memory.
#[derive(Debug, Default)]
pub(super) struct Words {
    bytes: u64,
}

impl Words {
    /// Counts words of this many bytes.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), CreateError> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > WORDS_MAX {
            return Err(CreateError::input("the input", "has more than 256 MiB of names"));
        }
        Ok(())
    }
}

/// Reads `input` as gzip or zstd if it begins like that, and as it is otherwise; no more than what
/// the input may still unpack to.
pub(super) fn decompressed<'a>(
    input: Box<dyn Read + 'a>,
    path: &Path,
    spool: &Spool,
) -> Result<Box<dyn Read + 'a>, CreateError> {
    let plain = plain(input, path)?;
    Ok(Box::new(Bounded { plain, left: Rc::clone(&spool.left) }))
}

struct Bounded<'a> {
    plain: Box<dyn Read + 'a>,
    left: Rc<Cell<u64>>,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("it unpacks to more than is allowed"))?);
        Ok(count)
    }
}

fn plain<'a>(input: Box<dyn Read + 'a>, path: &Path) -> Result<Box<dyn Read + 'a>, CreateError> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let start = input.fill_buf().map_err(CreateError::io("reading", path))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let failed = || CreateError::io("decompressing", path);
        let mut plain = zstd::stream::read::Decoder::with_buffer(input).map_err(failed())?;
        plain.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed())?;
        Ok(Box::new(plain))
    } else {
        Ok(Box::new(input))
    }
}
