//! How far each sink is, in a file beside the lines: what it has is not sent again after a restart.
//!
//! Written rarely, so that a restart sends the lines of two seconds twice, and by a thread of its own: a
//! write may wait while btrfs commits, and sinks do not. A file that cannot be read means that nothing was
//! sent.

use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

/// Notes that wait: one of each sink that there may be. More come again.
const NOTES_MAX: usize = 1024;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Note {
    Taken { position: PathBuf, number: u64 },
    Wanted { book: PathBuf, urls: Vec<String> },
}

/// The thread that writes, as those see it who have something to be written.
#[derive(Debug, Clone)]
pub struct Notes(SyncSender<Note>);

impl Notes {
    /// Starts the thread. It ends with this.
    pub fn start() -> io::Result<Self> {
        let (notes, receiver) = sync_channel(NOTES_MAX);
        thread::Builder::new().name("positions".to_owned()).spawn(move || run(&receiver))?;
        Ok(Self(notes))
    }

    /// Has it written how far a sink is. Whether it takes note; what fails then is sent again after a
    /// restart.
    pub(crate) fn taken(&self, position: &Path, number: u64) -> bool {
        self.0.try_send(Note::Taken { position: position.to_owned(), number }).is_ok()
    }

    /// Has it forget sinks of a book that are not among `urls`. Without room for that they are
    /// remembered until it is asked again.
    pub(crate) fn wanted(&self, book: &Path, urls: Vec<String>) {
        self.0.try_send(Note::Wanted { book: book.to_owned(), urls }).ok();
    }
}

fn run(notes: &Receiver<Note>) {
    for note in notes {
        match note {
            // Its directory may be gone, or its disk full.
            Note::Taken { position, number } => drop(store(&position, number)),
            Note::Wanted { book, urls } => {
                if let Err(error) = retain(&book, &urls) {
                    daemon::warn!("looking at {}: {error}", book.display());
                }
            }
        }
    }
}

/// The file of a sink, in the directory of its workload.
pub(crate) fn path(directory: &Path, url: &str) -> PathBuf {
    directory.join(format!("{}.sent", hex::encode(&Sha256::digest(url.as_bytes())[..8])))
}

/// Number of the last line that the sink has.
pub(crate) fn load(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Remembers it, in the place of what was there and as long as that: a power cut leaves one or the other.
/// Of another file under its name, which nobody synced, it may leave the name alone, and all lines would
/// be sent again.
pub(crate) fn store(path: &Path, number: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(format!("{number:020}\n").as_bytes(), 0)
}

/// Forgets sinks that are not among `urls`.
fn retain(directory: &Path, urls: &[String]) -> io::Result<()> {
    let wanted: Vec<PathBuf> = urls.iter().map(|url| path(directory, url)).collect();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let is_position = path.extension().is_some_and(|it| it == "sent");
        if is_position && !wanted.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The disk does not answer: nobody empties the queue.
    pub(crate) fn stuck() -> (Notes, Receiver<Note>) {
        let (notes, receiver) = sync_channel(1);
        (Notes(notes), receiver)
    }

    #[test]
    fn a_position_is_kept_while_its_sink_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let urls = ["redis://a/x".to_owned(), "redis://b/x".to_owned()];
        let [a, b] = urls.each_ref().map(|url| path(directory.path(), url));
        assert_eq!(load(&a), 0);
        store(&a, u64::MAX).unwrap();
        store(&a, 7).unwrap();
        store(&b, 8).unwrap();
        fs::write(directory.path().join("0.log"), "").unwrap();
        retain(directory.path(), &urls[..1]).unwrap();
        assert_eq!((load(&a), load(&b)), (7, 0));
        assert!(directory.path().join("0.log").exists());
        fs::write(&a, "").unwrap();
        assert_eq!(load(&a), 0);
        retain(Path::new("/does/not/exist"), &urls).unwrap();
    }
}
