//! Where published flists come from: web servers and directories with `flists/` and `packs/`.
//!
//! Nothing that arrives is believed: whoever asked compares hashes. Every answer is bounded by the
//! length that was asked for.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
};

/// Places that hold the same files, tried in order.
#[derive(Debug)]
pub struct Source {
    places: Vec<Place>,
    /// Only when a place is on the web: the client starts a thread.
    #[cfg(feature = "http")]
    web: Option<crate::web::Web>,
}

/// One of the places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Directory(PathBuf),
    #[cfg(feature = "http")]
    Web(String),
}

/// A text that names no place, or a web client that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Neither `http://…` nor an absolute path.
    #[error("{0} is neither a URL that this build can fetch from nor an absolute path")]
    Unknown(String),
    /// None was given.
    #[error("an flist needs at least one place to fetch from")]
    Empty,
    /// The HTTP client cannot be made.
    #[error("making the HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why one place did not give a file.
#[derive(Debug)]
pub(crate) enum GetError {
    /// It has no such file.
    Missing,
    /// Fewer bytes than asked for, or than announced.
    Truncated,
    /// More bytes than allowed.
    TooLarge,
    /// It does not answer, or with an error.
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
}

impl From<io::Error> for GetError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Unreachable(error.into()),
        }
    }
}

/// Which bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All, but not more than this.
    AtMost(u64),
    /// `length` bytes from `offset`.
    Range { offset: u64, length: u64 },
}

impl Source {
    /// Understands `http://host/path`, `https://…` (when built in), `file:///path` and `/path`.
    ///
    /// With a URL among them, this, every fetch and the drop must happen outside of async code, for
    /// example in `spawn_blocking`: the HTTP client panics otherwise.
    pub fn new<I: IntoIterator<Item = T>, T: AsRef<str>>(texts: I) -> Result<Self, SourceError> {
        let places: Vec<_> =
            texts.into_iter().map(|text| place(text.as_ref())).collect::<Result<_, _>>()?;
        if places.is_empty() {
            return Err(SourceError::Empty);
        }
        #[cfg(feature = "http")]
        let web = if places.iter().any(|place| matches!(place, Place::Web(_))) {
            Some(crate::web::Web::new()?)
        } else {
            None
        };
        Ok(Self {
            places,
            #[cfg(feature = "http")]
            web,
        })
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Reads from one place.
    pub(crate) fn get(
        &self,
        place: &Place,
        name: &str,
        wanted: Wanted,
    ) -> Result<Vec<u8>, GetError> {
        match place {
            Place::Directory(directory) => read(&directory.join(name), wanted),
            #[cfg(feature = "http")]
            Place::Web(base) => match &self.web {
                Some(web) => web.get(&format!("{base}/{name}"), wanted),
                None => Err(GetError::Missing),
            },
        }
    }
}

impl Place {
    /// For messages.
    pub(crate) fn url(&self, name: &str) -> String {
        match self {
            Self::Directory(directory) => directory.join(name).display().to_string(),
            #[cfg(feature = "http")]
            Self::Web(base) => format!("{base}/{name}"),
        }
    }
}

fn place(text: &str) -> Result<Place, SourceError> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    if path.starts_with('/') {
        return Ok(Place::Directory(PathBuf::from(path)));
    }
    #[cfg(feature = "http")]
    if text.starts_with("http://") || (cfg!(feature = "https") && text.starts_with("https://")) {
        return Ok(Place::Web(text.trim_end_matches('/').to_owned()));
    }
    Err(SourceError::Unknown(text.to_owned()))
}

fn read(path: &std::path::Path, wanted: Wanted) -> Result<Vec<u8>, GetError> {
    let mut file = File::open(path)?;
    if let Wanted::Range { offset, .. } = wanted {
        file.seek(SeekFrom::Start(offset))?;
    }
    take(&mut file, wanted)
}

/// Reads what is wanted from a reader that stands at its first byte.
pub(crate) fn take(reader: &mut dyn Read, wanted: Wanted) -> Result<Vec<u8>, GetError> {
    let mut bytes = Vec::new();
    match wanted {
        Wanted::AtMost(most) => {
            reader.take(most + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > most {
                return Err(GetError::TooLarge);
            }
        }
        Wanted::Range { length, .. } => {
            reader.take(length).read_to_end(&mut bytes)?;
            if (bytes.len() as u64) < length {
                return Err(GetError::Truncated);
            }
        }
    }
    Ok(bytes)
}
