//! Exports a published flist for other programs: a tar file, or an OCI image layout.
//!
//! The same flist gives the same bytes. Building again from a layout gives the same flist; a tar file
//! has the files only, so that the run configuration has to be given again.

use super::{CreateError, Summary, reader::Reader, tar_file};
use crate::{FlistId, Progress, Source, Stage, body::Body, check::shown};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};
use tempfile::NamedTempFile;

/// Writes the files of a published flist into the new file `to`.
pub fn export_tar(
    source: &Source,
    identity: FlistId,
    to: &Path,
    progress: &dyn Progress,
) -> Result<Summary, CreateError> {
    let mut reader = Reader::new(source, identity)?;
    progress.begin(Stage::Reading, reader.flist.body().content_bytes());
    if fs::symlink_metadata(to).is_ok() {
        return Err(CreateError::input(to.display().to_string(), "exists already"));
    }
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let (file, _) = tar(&mut reader, directory.unwrap_or(Path::new(".")), progress)?;
    finish(file, to)?;
    Ok(Summary::of(&reader.flist))
}

/// Writes a published flist into `to`, a new or empty directory, as an OCI image layout with one
/// image of one layer. `reference` is the name of the image, if it needs one.
///
/// The layer is not compressed, so that the digest of the image follows from the flist alone.
pub fn export_oci(
    source: &Source,
    identity: FlistId,
    to: &Path,
    reference: Option<&str>,
    progress: &dyn Progress,
) -> Result<Summary, CreateError> {
    let mut reader = Reader::new(source, identity)?;
    let flist = reader.flist.clone();
    refuse_whiteouts(flist.body())?;
    progress.begin(Stage::Reading, flist.body().content_bytes());
    let blobs = to.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(CreateError::io("making directory", &blobs))?;
    let listing = || CreateError::io("listing", to);
    if fs::read_dir(to).map_err(listing())?.count() != 1
        || fs::read_dir(&blobs).map_err(listing())?.next().is_some()
    {
        return Err(CreateError::input(to.display().to_string(), "is not empty"));
    }
    let (layer, layer_size) = {
        let (file, hash) = tar(&mut reader, &blobs, progress)?;
        let size = file.as_file().metadata().map_err(CreateError::io("looking at", &blobs))?.len();
        finish(file, &blobs.join(&hash))?;
        (format!("sha256:{hash}"), size)
    };
    let put = |text: String| {
        let hash = hex::encode(Sha256::digest(&text));
        write_new(&blobs.join(&hash), text.as_bytes())?;
        Ok::<_, CreateError>((format!("sha256:{hash}"), text.len()))
    };
    let (config, config_size) = put(configuration(flist.body(), &layer))?;
    // Keys are sorted, so that it does not matter whether a map keeps an order.
    let manifest = json!({
        "config": {
            "digest": config,
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": config_size,
        },
        "layers": [{
            "digest": layer,
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "size": layer_size,
        }],
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "schemaVersion": 2,
    });
    let (manifest, manifest_size) = put(manifest.to_string())?;
    let names = reference.map(|name| json!({ "org.opencontainers.image.ref.name": name }));
    let index = json!({
        "manifests": [{
            "annotations": names.unwrap_or_else(|| json!({})),
            "digest": manifest,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "platform": { "architecture": "amd64", "os": "linux" },
            "size": manifest_size,
        }],
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "schemaVersion": 2,
    });
    write_new(&to.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    // Last: who sees it finds everything.
    write_new(&to.join("index.json"), index.to_string().as_bytes())?;
    Ok(Summary::of(&flist))
}

/// In a layer, such names do not stand for themselves.
fn refuse_whiteouts(body: &Body) -> Result<(), CreateError> {
    let hides = |path: &[u8]| path.split(|c| *c == b'/').any(|name| name.starts_with(b".wh."));
    match body.entries.iter().find(|entry| hides(&entry.path)) {
        Some(entry) => {
            let problem = "begins with .wh., which would hide something in an image";
            Err(CreateError::input(shown(&entry.path), problem))
        }
        None => Ok(()),
    }
}

fn configuration(body: &Body, layer: &str) -> String {
    let run = &body.run;
    let config = json!({
        "architecture": "amd64",
        "config": {
            "Cmd": run.arguments,
            "Entrypoint": run.entrypoint,
            "Env": run.env,
            "User": format!("{}:{}", run.uid, run.gid),
            "WorkingDir": run.cwd,
        },
        "os": "linux",
        "rootfs": { "diff_ids": [layer], "type": "layers" },
    });
    config.to_string()
}

/// A temporary file in `directory` with the tar file, and its SHA-256.
fn tar(
    reader: &mut Reader<'_>,
    directory: &Path,
    progress: &dyn Progress,
) -> Result<(NamedTempFile, String), CreateError> {
    let file = NamedTempFile::new_in(directory)
        .map_err(CreateError::io("making a temporary file in", directory))?;
    let mut out = BufWriter::new(Hashed { file, hash: Sha256::new() });
    tar_file::write(reader, &mut out, progress)?;
    let Hashed { file, hash } = out
        .into_inner()
        .map_err(|error| CreateError::io("writing in", directory)(error.into_error()))?;
    Ok((file, hex::encode(hash.finalize())))
}

struct Hashed {
    file: NamedTempFile,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives a finished file its name and the rights of any file.
fn finish(file: NamedTempFile, to: &Path) -> Result<(), CreateError> {
    let failed = || CreateError::io("writing", to);
    file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(failed())?;
    file.persist_noclobber(to).map_err(|error| failed()(error.error))?;
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), CreateError> {
    fs::write(path, bytes).map_err(CreateError::io("writing", path))
}
