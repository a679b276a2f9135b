//! Flists: where they are looked up, and how they get to the registry's content store.

use crate::{
    error::BotError,
    grid::Grid,
    plan::{
        self, KnownFlist,
        world::{Finding, Severity},
    },
    source,
};
use contract::{
    FlistId, PublicKey, Release, SigningKey, Timestamp, header, release::RECORD_BYTES_MAX,
};
use flist::{Cancel, Flist, body::PACK_MAX, create, fetch::Reason};
use registry_api::{Client, paths};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Flists in one directory; more is a mistake.
const DIRECTORY_MAX: usize = 10_000;
/// Publishers of one flist in one directory; more is a mistake.
const RELEASES_MAX: usize = 1_000;
/// Largest body, as the flist format has it.
const BODY_MAX: u64 = flist::body::BODY_MAX as u64;
/// Largest published file.
const FILE_MAX: u64 = if BODY_MAX > PACK_MAX { BODY_MAX } else { PACK_MAX };

/// Looks up flists: in directories relative to `base`, or where nodes will fetch them. What a publisher has
/// to have signed must be there too, as a node wants it `now`.
///
/// `content` is where nodes fetch those for which the source names no place. With what `begun` names nodes have
/// begun: that the time to begin is over is then only a finding.
pub async fn look_up(
    wanted: &BTreeMap<String, source::Flist>,
    base: &Path,
    content: &[String],
    now: Timestamp,
    begun: &[header::Flist],
) -> Result<(BTreeMap<String, KnownFlist>, Vec<Finding>), BotError> {
    let mut found = BTreeMap::new();
    let mut findings = Vec::new();
    for (name, written) in wanted {
        let urls = if written.urls.is_empty() { content } else { &written.urls };
        let (written, base, from) = (written.clone(), base.to_owned(), urls.to_owned());
        let begun = begun.to_vec();
        let read =
            tokio::task::spawn_blocking(move || read(&written, &base, &from, now, &begun)).await;
        let failed = |source| BotError::Flist { name: name.clone(), source };
        let (flist, over) = read.map_err(|error| failed(error.into()))?.map_err(failed)?;
        findings.extend(over.map(|over| Finding {
            severity: Severity::Warning,
            node: None,
            text: format!(
                "flist {name}: {over}; nodes that have begun with it go on, and no other node begins \
                 until it is signed again"
            ),
        }));
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        found.insert(name.clone(), KnownFlist { flist, urls });
    }
    Ok((found, findings))
}

/// The flist, and why no further node begins with it.
fn read(
    written: &source::Flist,
    base: &Path,
    urls: &[String],
    now: Timestamp,
    begun: &[header::Flist],
) -> Result<(Flist, Option<String>), Box<dyn std::error::Error + Send + Sync>> {
    let (source, flist) = match (&written.dir, written.id) {
        (Some(dir), id) => {
            let dir = base.join(dir);
            let id = match id {
                Some(id) => id,
                None => only_flist(&dir)?,
            };
            let path = fs::canonicalize(&dir)?;
            let path = path.to_str().ok_or("the directory's name is not UTF-8")?;
            (flist::Source::new([path])?, read_published(&dir, id)?)
        }
        (None, Some(id)) => {
            let source = flist::Source::new(urls)?;
            let flist = flist::fetch::body(&source, id, &Cancel::default())?;
            (source, flist)
        }
        (None, None) => return Err("an flist needs an `id` or a `dir`".into()),
    };
    if let Some(publisher) = &written.publisher {
        let demanded = plan::demanded(publisher);
        let cancel = Cancel::default();
        let got = flist::fetch::release(&source, flist.identity(), &demanded, now, &cancel);
        if let Err(error) = got {
            // All but the end was as demanded, or it would have another reason.
            let is_begun = begun.iter().any(|known| {
                known.digest == flist.identity()
                    && known.publisher.as_ref().is_some_and(|known| {
                        known.key == demanded.key && known.revision >= demanded.revision
                    })
            });
            if error.reason != Reason::PublisherExpired || !is_begun {
                return Err(error.into());
            }
            return Ok((flist, Some(crate::error::chain(&error))));
        }
    }
    Ok((flist, None))
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
    let size = fs::metadata(path).map_err(named(path))?.len();
    if size > BODY_MAX {
        return Err(other(format!("{} is larger than any flist", path.display())));
    }
    fs::read(path).map_err(named(path))
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// What publishers have signed of an flist in a published directory, sorted by publisher. One that does not
/// verify, or stands under another name than its own, is an error.
pub fn releases(dir: &Path, id: FlistId) -> io::Result<Vec<Release>> {
    let folder = release_folder(dir, id);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(named(&folder)(error)),
    };
    let mut releases = Vec::new();
    for (number, entry) in entries.enumerate() {
        if number >= RELEASES_MAX {
            return Err(other(format!("{} has more than {RELEASES_MAX} names", folder.display())));
        }
        let name = entry.map_err(named(&folder))?.file_name();
        let Some(publisher) = name.to_str().and_then(|name| name.parse::<PublicKey>().ok()) else {
            continue;
        };
        releases.extend(release(dir, id, &publisher)?);
    }
    releases.sort_unstable_by_key(|release| release.publisher);
    Ok(releases)
}

/// What this publisher has signed of an flist in a published directory.
fn release(dir: &Path, id: FlistId, publisher: &PublicKey) -> io::Result<Option<Release>> {
    let path = release_folder(dir, id).join(publisher.to_string());
    let record = match fs::File::open(&path) {
        Ok(file) => {
            let mut record = Vec::new();
            file.take(RECORD_BYTES_MAX as u64 + 1)
                .read_to_end(&mut record)
                .map_err(named(&path))?;
            record
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(&path)(error)),
    };
    let wrong = |error: &dyn std::error::Error| {
        other(format!("{}: {}", path.display(), crate::error::chain(error)))
    };
    let release = Release::open(&record).map_err(|error| wrong(&error))?;
    release.fits(&id, publisher, 1).map_err(|error| wrong(&error))?;
    Ok(Some(release))
}

/// Signs an flist of a published directory, in the place of what the same publisher has signed before. One
/// that says no more than that is refused: whoever has the earlier one would have more.
pub fn sign(dir: &Path, release: &Release, key: &SigningKey) -> io::Result<()> {
    let _publishing = create::publishing(dir).map_err(named(dir))?;
    read_published(dir, release.flist)?;
    if let Some(known) = self::release(dir, release.flist, &release.publisher)?
        && !release.replaces(&known)
    {
        let end = known.not_after.map_or("for ever".to_owned(), |end| format!("until {end}"));
        return Err(other(format!(
            "revision {} is signed already, {end}: sign a later one, or one that lasts longer",
            known.revision
        )));
    }
    let record = release.seal(key).map_err(|error| other(crate::error::chain(&error)))?;
    let folder = release_folder(dir, release.flist);
    fs::create_dir_all(&folder).map_err(named(&folder))?;
    let path = folder.join(release.publisher.to_string());
    create::write_new(&path, &mut record.as_slice()).map_err(named(&path))?;
    fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(named(&folder))
}

fn release_folder(dir: &Path, id: FlistId) -> PathBuf {
    dir.join("releases").join(id.to_string())
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadKind {
    /// `packs/<id>`.
    Pack(FlistId),
    /// `flists/<id>`.
    Body(FlistId),
    /// `releases/<id>/<publisher>`.
    Release(Box<Release>),
}

/// The files of published flists, bodies last: whoever sees one finds its packs and releases.
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
        for release in releases(dir, *id)? {
            let path = release_folder(dir, *id).join(release.publisher.to_string());
            let bytes = fs::metadata(&path).map_err(named(&path))?.len();
            files.push(Upload { path, bytes, kind: UploadKind::Release(Box::new(release)) });
        }
    }
    files.sort_by_key(|file| matches!(file.kind, UploadKind::Body(_)));
    Ok(files)
}

/// Reads a file to upload, if it is what its name says: a place that checks nothing must not get another.
pub fn read_upload(file: &Upload) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(&file.path)
        .and_then(|opened| opened.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(named(&file.path))?;
    let is_right = match &file.kind {
        UploadKind::Pack(id) => create::pack_id(&bytes) == id.0,
        UploadKind::Body(id) => FlistId::of(&bytes) == *id,
        UploadKind::Release(release) => Release::open(&bytes).is_ok_and(|read| read == **release),
    };
    if is_right {
        return Ok(bytes);
    }
    let text = "is not what its name says: build and sign the flist again, in another directory";
    Err(other(format!("{} {text}", file.path.display())))
}

/// Uploads one file, unless it is there. Answers whether it was not.
pub async fn upload(client: &Client, file: &Upload) -> Result<bool, BotError> {
    let sent = match &file.kind {
        UploadKind::Pack(id) if client.has_content(&paths::pack(id)).await => Ok(false),
        UploadKind::Body(id) if client.has_content(&paths::flist(id)).await => Ok(false),
        UploadKind::Pack(id) => client.push_pack(id, &file.path).await.map(|()| true),
        UploadKind::Body(id) => client.push_flist(id, &file.path).await.map(|()| true),
        UploadKind::Release(release) => client.push_release(release, &file.path).await,
    };
    sent.map_err(BotError::asking(format!("uploading {}", file.path.display())))
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
