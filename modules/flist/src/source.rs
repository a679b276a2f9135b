//! Where published flists come from: web servers and directories with `flists/` and `packs/`.
//!
//! Nothing that arrives is believed: whoever asked compares hashes. Every answer is bounded by the
//! length that was asked for.

use crate::progress::Cancel;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// Places that hold the same files, tried in order; those that failed, after the others.
#[derive(Debug)]
pub struct Source {
    places: Vec<Place>,
    /// How often each place has not answered as it should.
    failures: Vec<AtomicU32>,
    content_bytes_max: u64,
    /// Only when a place is on the web: the client starts a thread.
    #[cfg(feature = "http")]
    web: Option<crate::web::Web>,
}

/// Published files that the caller can read, such as those of a stick.
pub trait Files: std::fmt::Debug + Send + Sync {
    /// Where a file is, for messages.
    fn url(&self, name: &str) -> String;
    /// At most `length` bytes of a file, from `offset` on; fewer when it ends before. Ends soon when it is
    /// cancelled.
    fn read_at(&self, name: &str, offset: u64, length: u64, cancel: &Cancel)
    -> io::Result<Vec<u8>>;
}

/// One of the places.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Lent(Arc<dyn Files>),
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
        Self::with(texts, [])
    }

    /// The same, with places that the caller reads. They are asked last: one that is slow, or has what is
    /// wrong, holds up nothing that another one gives.
    pub fn with<I: IntoIterator<Item = T>, T: AsRef<str>>(
        texts: I,
        lent: impl IntoIterator<Item = Arc<dyn Files>>,
    ) -> Result<Self, SourceError> {
        let texts = texts.into_iter().map(|text| place(text.as_ref()));
        let lent = lent.into_iter().map(|files| Ok(Place::Lent(files)));
        let places: Vec<_> = texts.chain(lent).collect::<Result<_, _>>()?;
        if places.is_empty() {
            return Err(SourceError::Empty);
        }
        #[cfg(feature = "http")]
        let web = if places.iter().any(|place| matches!(place, Place::Web(_))) {
            Some(crate::web::Web::new()?)
        } else {
            None
        };
        let failures = places.iter().map(|_| AtomicU32::new(0)).collect();
        Ok(Self {
            places,
            failures,
            content_bytes_max: u64::MAX,
            #[cfg(feature = "http")]
            web,
        })
    }

    /// Nothing is fetched of an flist whose contents are more than this.
    #[must_use]
    pub fn at_most(self, content_bytes_max: u64) -> Self {
        Self { content_bytes_max, ..self }
    }

    pub(crate) fn content_bytes_max(&self) -> u64 {
        self.content_bytes_max
    }

    /// All places, the most reliable first.
    pub(crate) fn places(&self) -> Vec<&Place> {
        let counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        let mut places: Vec<_> = counts.zip(&self.places).collect();
        places.sort_by_key(|(count, _)| *count);
        places.into_iter().map(|(_, place)| place).collect()
    }

    fn note_failure(&self, place: &Place) {
        let number = self.places.iter().position(|one| one.is(place));
        if let Some(count) = number.and_then(|number| self.failures.get(number)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads from one place. Stopped, it ends with the next bytes that come.
    pub(crate) fn get(
        &self,
        place: &Place,
        name: &str,
        wanted: Wanted,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, GetError> {
        let answer = match place {
            Place::Lent(files) => lent(&**files, name, wanted, cancel),
            Place::Directory(directory) => read(&directory.join(name), wanted),
            #[cfg(feature = "http")]
            Place::Web(base) => match &self.web {
                Some(web) => web.get(&format!("{base}/{name}"), wanted, cancel),
                None => Err(GetError::Missing),
            },
        };
        if let Err(GetError::Unreachable(_)) = &answer {
            self.note_failure(place);
        }
        answer
    }
}

impl Place {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Lent(one), Self::Lent(other)) => Arc::ptr_eq(one, other),
            (Self::Directory(one), Self::Directory(other)) => one == other,
            #[cfg(feature = "http")]
            (Self::Web(one), Self::Web(other)) => one == other,
            (_, _) => false,
        }
    }

    /// For messages.
    pub(crate) fn url(&self, name: &str) -> String {
        match self {
            Self::Lent(files) => files.url(name),
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

fn lent(
    files: &dyn Files,
    name: &str,
    wanted: Wanted,
    cancel: &Cancel,
) -> Result<Vec<u8>, GetError> {
    let (offset, length) = match wanted {
        // One byte more shows whether there are too many.
        Wanted::AtMost(most) => (0, most.saturating_add(1)),
        Wanted::Range { offset, length } => (offset, length),
    };
    take(&mut files.read_at(name, offset, length, cancel)?.as_slice(), wanted)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stick;

    impl Files for Stick {
        fn url(&self, name: &str) -> String {
            format!("stick/{name}")
        }

        fn read_at(
            &self,
            name: &str,
            offset: u64,
            length: u64,
            cancel: &Cancel,
        ) -> io::Result<Vec<u8>> {
            if cancel.is_cancelled() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let whole: Vec<u8> = match name {
                "file" => (0..100).collect(),
                "broken" => return Err(io::Error::other("it was pulled out")),
                _ => return Err(io::ErrorKind::NotFound.into()),
            };
            let number = |n: u64| usize::try_from(n).unwrap();
            Ok(whole.into_iter().skip(number(offset)).take(number(length)).collect())
        }
    }

    #[test]
    fn what_is_lent_is_asked_last_and_bounded_like_every_place() {
        let source = Source::with(["/b"], [Arc::new(Stick) as Arc<dyn Files>]).unwrap();
        let urls = || source.places().iter().map(|place| place.url("x")).collect::<Vec<_>>();
        assert_eq!(urls(), ["/b/x", "stick/x"]);
        let stick = source.places()[1].clone();
        let get = |name, wanted| source.get(&stick, name, wanted, &Cancel::default());
        let whole: Vec<u8> = (0..100).collect();
        assert_eq!(get("file", Wanted::AtMost(100)).unwrap(), whole);
        assert!(matches!(get("file", Wanted::AtMost(99)), Err(GetError::TooLarge)));
        let range = |offset, length| Wanted::Range { offset, length };
        assert_eq!(get("file", range(10, 5)).unwrap(), [10, 11, 12, 13, 14]);
        assert!(matches!(get("file", range(98, 5)), Err(GetError::Truncated)));
        assert!(matches!(get("none", Wanted::AtMost(1)), Err(GetError::Missing)));
        let stopped = Cancel::default();
        stopped.cancel();
        let answer = source.get(&stick, "file", Wanted::AtMost(100), &stopped);
        assert!(matches!(answer, Err(GetError::Unreachable(_))), "it hears that it is to stop");
        // Where the others fail, it comes first.
        let other = source.places()[0].clone();
        for _ in 0..3 {
            source.note_failure(&other);
        }
        assert_eq!(urls(), ["stick/x", "/b/x"]);
        for _ in 0..3 {
            let answer = get("broken", Wanted::AtMost(1));
            assert!(matches!(answer, Err(GetError::Unreachable(_))));
        }
        assert_eq!(urls(), ["/b/x", "stick/x"]);
    }

    /// A mirror that sent a byte now and then was asked first for each piece again.
    #[test]
    fn a_place_that_failed_is_asked_after_the_others() {
        let source = Source::new(["/a", "/b", "/c"]).unwrap();
        let order = || source.places().iter().map(|place| place.url("x")).collect::<Vec<_>>();
        assert_eq!(order(), ["/a/x", "/b/x", "/c/x"]);
        let first = source.places()[0].clone();
        source.note_failure(&first);
        assert_eq!(order(), ["/b/x", "/c/x", "/a/x"]);
        // What is not there says nothing about the place.
        let wanted = Wanted::AtMost(1);
        assert!(matches!(
            source.get(&first, "x", wanted, &Cancel::default()),
            Err(GetError::Missing)
        ));
        let second = source.places()[0].clone();
        source.note_failure(&second);
        assert_eq!(order(), ["/c/x", "/a/x", "/b/x"]);
    }
}
