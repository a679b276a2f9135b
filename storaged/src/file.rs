//! Replaces a small file whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts `content` into `directory/name`, readable by root alone and durable on return. After a
/// power cut the file holds the former content or the new one.
pub(crate) fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let fresh = directory.join(format!(".{name}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replaced_file_is_whole_private_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".a.new"), "left by a power cut, and longer").unwrap();
        replace(directory.path(), "a", b"one").unwrap();
        replace(directory.path(), "a", b"two").unwrap();
        assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"two");
        let mode = fs::metadata(directory.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
