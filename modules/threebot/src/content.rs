//! Flists: where they are looked up, and how they get to the registry's content store.

use crate::{error::BotError, grid::Grid, plan::KnownFlist, source};
use contract::FlistId;
use flist::{Cancel, Flist, create};
use registry_api::{Client, paths};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Flists in one directory; more is a mistake.
const DIRECTORY_MAX: usize = 10_000;
/// Largest body, as the flist format has it.
const BODY_MAX: u64 = flist::body::BODY_MAX as u64;

/// Looks up flists: in directories relative to `base`, or where nodes will fetch them.
///
/// `content` is where nodes fetch those for which the source names no place.
pub async fn look_up(
    wanted: &BTreeMap<String, source::Flist>,
    base: &Path,
    content: &[String],
) -> Result<BTreeMap<String, KnownFlist>, BotError> {
    let mut found = BTreeMap::new();
    for (name, written) in wanted {
        let urls = if written.urls.is_empty() { content } else { &written.urls };
        let (written, base, from) = (written.clone(), base.to_owned(), urls.to_owned());
        let read = tokio::task::spawn_blocking(move || read(&written, &base, &from)).await;
        let failed = |source| BotError::Flist { name: name.clone(), source };
        let flist = read.map_err(|error| failed(error.into()))?.map_err(failed)?;
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        found.insert(name.clone(), KnownFlist { flist, urls });
    }
    Ok(found)
}

fn read(
    written: &source::Flist,
    base: &Path,
    urls: &[String],
) -> Result<Flist, Box<dyn std::error::Error + Send + Sync>> {
    match (&written.dir, written.id) {
        (Some(dir), id) => {
            let dir = base.join(dir);
            let id = match id {
                Some(id) => id,
                None => only_flist(&dir)?,
            };
            Ok(read_published(&dir, id)?)
        }
        (None, Some(id)) => {
            let source = flist::Source::new(urls)?;
            Ok(flist::fetch::body(&source, id, &Cancel::default())?)
        }
        (None, None) => Err("an flist needs an `id` or a `dir`".into()),
    }
}

/// The flist of a directory that holds exactly one.
pub fn only_flist(dir: &Path) -> io::Result<FlistId> {
    let ids = published_flists(dir)?;
    match ids.as_slice() {
        [id] => Ok(*id),
        [] => Err(other(format!("{} holds no flist", dir.display()))),
        _ => Err(other(format!(
            "{} holds {} flists: say which one by its id",
            dir.display(),
            ids.len()
        ))),
    }
}

/// Ids of the flists that were published into a directory, sorted.
pub fn published_flists(dir: &Path) -> io::Result<Vec<FlistId>> {
    let listed = dir.join("flists");
    let entries = fs::read_dir(&listed).map_err(|error| {
        let text =
            format!("{}: {error}; `3bot flist build` makes one with --out", listed.display());
        io::Error::new(error.kind(), text)
    })?;
    let mut ids = Vec::new();
    for entry in entries.take(DIRECTORY_MAX) {
        ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<FlistId>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Reads the body of a published flist. Its bytes must have its id.
pub fn read_published(dir: &Path, id: FlistId) -> io::Result<Flist> {
    let path = dir.join("flists").join(id.to_string());
    let bytes = read_file(&path)?;
    Flist::decode_as(id, &bytes).map_err(|refusal| other(format!("{}: {refusal}", path.display())))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let size = fs::metadata(path).map_err(named)?.len();
    if size > BODY_MAX {
        return Err(other(format!("{} is larger than any flist", path.display())));
    }
    fs::read(path).map_err(named)
}

fn other(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub kind: UploadKind,
}

/// What a file of a published directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadKind {
    /// `packs/<id>`.
    Pack(FlistId),
    /// `flists/<id>`.
    Body(FlistId),
}

/// The files of published flists, packs first: whoever sees a body finds its packs.
pub fn uploads(dir: &Path, ids: &[FlistId]) -> io::Result<Vec<Upload>> {
    let mut files: Vec<Upload> = Vec::new();
    for id in ids {
        let flist = read_published(dir, *id)?;
        for name in create::published_files(&flist) {
            let kind = match name.split_once('/') {
                Some(("packs", pack)) => UploadKind::Pack(
                    pack.parse().map_err(|_| other(format!("{name} is no name of a pack")))?,
                ),
                _ => UploadKind::Body(*id),
            };
            let path = dir.join(&name);
            let bytes = fs::metadata(&path)
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?
                .len();
            if !files.iter().any(|file| file.kind == kind) {
                files.push(Upload { path, bytes, kind });
            }
        }
    }
    files.sort_by_key(|file| matches!(file.kind, UploadKind::Body(_)));
    Ok(files)
}

/// Uploads one file, unless it is there. Answers whether it was not.
pub async fn upload(client: &Client, file: &Upload) -> Result<bool, BotError> {
    let path = match file.kind {
        UploadKind::Pack(id) => paths::pack(&id),
        UploadKind::Body(id) => paths::flist(&id),
    };
    if client.has_content(&path).await {
        return Ok(false);
    }
    match file.kind {
        UploadKind::Pack(id) => client.push_pack(&id, &file.path).await,
        UploadKind::Body(id) => client.push_flist(&id, &file.path).await,
    }
    .map_err(BotError::asking(format!("uploading {}", file.path.display())))?;
    Ok(true)
}

/// Uploads every flist of a published directory. Answers how many files were new.
pub async fn push_directory(grid: &Grid, dir: &Path) -> Result<usize, BotError> {
    let listed = published_flists(dir).and_then(|ids| uploads(dir, &ids));
    let failed = |source: io::Error| BotError::Flist {
        name: dir.display().to_string(),
        source: source.into(),
    };
    let mut new = 0;
    for file in listed.map_err(failed)? {
        new += usize::from(upload(&grid.client, &file).await?);
    }
    Ok(new)
}
