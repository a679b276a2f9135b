//! How far each sink is, in a file beside the lines: what it has is not sent again after a restart.
//!
//! Written rarely, so that a restart sends the lines of two seconds twice. A file that cannot be
//! read means that nothing was sent.

use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The file of a sink, in the directory of its workload.
pub(crate) fn path(directory: &Path, url: &str) -> PathBuf {
    directory.join(format!("{}.sent", hex::encode(&Sha256::digest(url.as_bytes())[..8])))
}

/// Number of the last line that the sink has.
pub(crate) fn load(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Remembers it.
pub(crate) fn store(path: &Path, number: u64) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, number.to_string())?;
    fs::rename(fresh, path)
}

/// Forgets sinks that are not among `urls`.
pub(crate) fn retain(directory: &Path, urls: &[String]) -> io::Result<()> {
    let wanted: Vec<PathBuf> = urls.iter().map(|url| path(directory, url)).collect();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let is_position = path.extension().is_some_and(|it| it == "sent" || it == "new");
        if is_position && !wanted.contains(&path.with_extension("sent")) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_kept_while_its_sink_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let urls = ["redis://a/x".to_owned(), "redis://b/x".to_owned()];
        let [a, b] = urls.each_ref().map(|url| path(directory.path(), url));
        assert_eq!(load(&a), 0);
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
