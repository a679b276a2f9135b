//! The witness's secret key: one line in a file that only its owner reads.

use crate::store;
use anyhow::Context as _;
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};
use tlog::{Algorithm, Signer, note::NAME_BYTES_MAX};
use zeroize::Zeroizing;

/// Bytes of the file: a name and little else.
const KEY_BYTES_MAX: u64 = NAME_BYTES_MAX as u64 + 256;

/// Makes a key in a new file, and gives its public half. An old file is never written over: a
/// witness that loses its key has to be taken into every policy again.
pub fn create(path: &Path, name: &str) -> anyhow::Result<String> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).context("asking for random bytes")?;
    let text = Signer::write(name, Algorithm::Cosignature, &seed)?;
    let writing = || format!("writing {}", path.display());
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(path).with_context(writing)?;
    writeln!(file, "{}", *text).and_then(|()| file.sync_all()).with_context(writing)?;
    // The name as well: whoever has read the public half counts on it.
    store::sync_above(path).with_context(writing)?;
    Ok(Signer::read(&text)?.verifier().to_string())
}

/// Reads a key. One that others may read is refused.
pub fn load(path: &Path) -> anyhow::Result<Signer> {
    let reading = || format!("reading the key {}", path.display());
    let file = fs::File::open(path).with_context(reading)?;
    let mode = file.metadata().with_context(reading)?.permissions().mode();
    let others = 0o077;
    anyhow::ensure!(
        mode & others == 0,
        "the key {} may be read by others: chmod 600",
        path.display()
    );
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_BYTES_MAX).read_to_string(&mut text).with_context(reading)?;
    let signer = Signer::read(text.trim_end()).with_context(reading)?;
    anyhow::ensure!(
        signer.verifier().algorithm() == Algorithm::Cosignature,
        "the key {} is a log's: a witness needs one of its own",
        path.display()
    );
    Ok(signer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let public = create(&path, "witness.example/1").unwrap();
        assert_eq!(load(&path).unwrap().verifier().to_string(), public);
        assert!(create(&path, "witness.example/1").is_err(), "it is there");
        assert_eq!(load(&path).unwrap().verifier().to_string(), public);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(format!("{:#}", load(&path).unwrap_err()).contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_of_a_witness_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(create(&path, "a name").is_err());
        assert!(load(&path).is_err(), "nothing was written");
        let log = Signer::write("log.example", Algorithm::Ed25519, &[1; 32]).unwrap();
        for (text, reason) in [(log.as_str(), "is a log's"), ("", "NAME+ID+KEY")] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = format!("{:#}", load(&path).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }
}
