//! Where the bytes of files are until they are packed, and how compressed input is read.

use super::CreateError;
use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

/// What a layer may unpack to.
const SPOOL_MAX: u64 = 64 << 30;
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
}

impl Spool {
    pub(super) fn new(directory: &Path) -> Result<Self, CreateError> {
        let file = tempfile::tempfile_in(directory)
            .map_err(CreateError::io("making a temporary file in", directory))?;
        Ok(Self { file: Rc::new(file), size: 0, directory: directory.to_owned() })
    }

    /// Takes exactly `size` bytes.
    pub(super) fn keep(&mut self, reader: &mut dyn Read, size: u64) -> Result<Source, CreateError> {
        let offset = self.size;
        if size > SPOOL_MAX - offset {
            return Err(CreateError::input("the input", "unpacks to more than 64 GiB"));
        }
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

/// Reads `input` as gzip or zstd if it begins like that, and as it is otherwise.
pub(super) fn decompressed<'a>(
    input: Box<dyn Read + 'a>,
    path: &Path,
) -> Result<Box<dyn Read + 'a>, CreateError> {
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
