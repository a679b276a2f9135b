//! Files that appear whole or not at all, and never replace another.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Its owner.
    Private,
    /// Everybody.
    Public,
}

/// Makes the directory, and those above it, for the owner alone.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file. After a power cut it is there with all its bytes, or not at all.
///
/// Fails with `AlreadyExists` when the name is taken, and leaves that file as it is.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut staged = std::ffi::OsString::from(".");
    staged.push(name);
    staged.push(format!(".{}.new", std::process::id()));
    let staged = directory.join(staged);
    let written = write(&staged, bytes, mode)
        // A link, unlike a rename, does not replace what is there.
        .and_then(|()| fs::hard_link(&staged, path))
        .and_then(|()| File::open(directory)?.sync_all());
    match fs::remove_file(&staged) {
        // What matters is the file itself; a left-over is private and harmless.
        Ok(()) | Err(_) => written,
    }
}

fn write(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let mode = match mode {
        Mode::Private => 0o600,
        Mode::Public => 0o644,
    };
    // A left-over of a process that had the same id and was killed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The bytes of a file of at most `size_max` bytes, and its permission bits.
pub(crate) fn read(path: &Path, size_max: u64) -> io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    let mut bytes = Vec::new();
    file.take(size_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > size_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    Ok((bytes, mode))
}
