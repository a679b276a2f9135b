//! The log's secret key: made when the log begins, in a file of the data directory that only its
//! owner reads. Whoever has it can sign another history, which witnesses then see.

use super::Head;
use anyhow::Context as _;
use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use tlog::{Algorithm, Signer};
use zeroize::Zeroizing;

/// Bytes of the file: a name and little else.
const KEY_BYTES_MAX: u64 = 512;

fn path(data: &Path) -> PathBuf {
    data.join("log.key")
}

/// Makes a key. One that is there from an attempt that was cut off is used.
pub(super) fn create(data: &Path, origin: &str) -> anyhow::Result<Signer> {
    let path = path(data);
    let writing = || format!("writing {}", path.display());
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).context("asking for random bytes")?;
    let text = Signer::write(origin, Algorithm::Ed25519, &seed)
        .with_context(|| format!("{origin:?} cannot be the origin of a log"))?;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            writeln!(file, "{}", *text).and_then(|()| file.sync_all()).with_context(writing)?;
            fs::File::open(data).and_then(|folder| folder.sync_all()).with_context(writing)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(writing),
    }
    let signer = read(&path)?;
    anyhow::ensure!(
        signer.verifier().name() == origin,
        "{} is the key of the log {}",
        path.display(),
        signer.verifier().name()
    );
    Ok(signer)
}

/// Reads the key, which has to be that of the log.
pub(super) fn load(data: &Path, head: &Head) -> anyhow::Result<Signer> {
    let path = path(data);
    let signer = read(&path)?;
    anyhow::ensure!(
        signer.verifier().to_string() == head.key,
        "{} is not the key {} of the log",
        path.display(),
        head.key
    );
    Ok(signer)
}

fn read(path: &Path) -> anyhow::Result<Signer> {
    let reading = || format!("reading the log's key {}", path.display());
    let file = fs::File::open(path).with_context(reading)?;
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_BYTES_MAX).read_to_string(&mut text).with_context(reading)?;
    let signer = Signer::read(text.trim_end()).with_context(reading)?;
    anyhow::ensure!(
        signer.verifier().algorithm() == Algorithm::Ed25519,
        "{} is the key of a witness",
        path.display()
    );
    Ok(signer)
}
