//! A bucket with published flists, at anything that speaks S3.
//!
//! Owns every request that is signed with the key of a bucket. Nodes have none: they read the same names over
//! plain HTTP. What is there is not sent again; it gets a new age instead, so that whoever clears up at the same
//! time sees that it is needed. A file has 64 MiB at most and comes in one request, which a server takes whole or
//! not at all: who is stopped leaves nothing half.

mod exchange;
mod settings;

use super::PlaceError;
use crate::{
    content::{self, Upload, UploadKind},
    gc::{Found, Item},
};
use contract::{Release, Timestamp};
use flist::Progress;
use futures_util::{StreamExt as _, TryStreamExt as _, future};
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectMeta, ObjectStore as _, ObjectStoreExt as _,
    PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use settings::Settings;
use std::{collections::BTreeMap, fmt, io, sync::Arc, time::Duration};
use tokio::time;

pub use exchange::{is_listing, said};

/// Files on their way at a time; each is in memory then.
const UPLOADS: usize = 4;
/// What is younger needs no new age. With the quarter of an hour by which clocks may differ for a signature, this is
/// less than the shortest grace of whoever clears up.
const RENEW_S: i64 = 3600;
/// Of one request that fails in a way that may pass: a few seconds in all.
const RETRIES: usize = 5;
/// No retry begins later: signatures end after a quarter of an hour.
const RETRY_TIME: Duration = Duration::from_mins(3);
/// For the listing of one folder: four million names, a thousand at a time.
const LISTING_TIME: Duration = Duration::from_hours(1);

/// Of a cause, with what the server says.
const CAUSE_CHARS_MAX: usize = 1000;

/// A bucket, or what is below a prefix of one.
pub struct Bucket {
    store: AmazonS3,
    /// The same, but a copy of an object onto itself replaces what is said about it: servers take that for a new
    /// object, and refuse it without.
    renewing: AmazonS3,
    /// Without a slash at its ends; empty for the whole bucket.
    prefix: String,
    url: String,
}

/// What time it is.
pub type Clock<'a> = &'a (dyn Fn() -> Timestamp + Sync);

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Files that were not there.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there.
    pub skipped: u64,
}

/// What the server, or the way to it, says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Said(String);

/// Nothing of a key.
impl fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bucket").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Takes `s3://bucket` or `s3://bucket/prefix`, and the variables of an environment: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL` and a few more. Asks nobody
    /// yet.
    pub fn open(
        url: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, PlaceError> {
        let (bucket, prefix) = parse(url).ok_or_else(|| {
            PlaceError::Unfit(format!(
                "{url} names no bucket: write s3://bucket/prefix, with letters, digits, and any of -_. in each part"
            ))
        })?;
        let settings = Settings::read(variables)?;
        let bucket_url = settings.bucket_url(bucket)?;
        let http = registry_api::client::http()
            .map_err(|error| PlaceError::Unfit(crate::error::chain(&error)))?;
        let secrets: Arc<[String]> = settings.secrets().map(str::to_owned).collect();
        let store = |headers: HeaderMap| {
            let mut builder = AmazonS3Builder::new()
                .with_http_connector(exchange::Connector::new(&http, &secrets))
                .with_access_key_id(&settings.key_id)
                .with_secret_access_key(&settings.secret)
                .with_region(&settings.region)
                .with_bucket_name(bucket)
                // The URL is whole: nothing is put before it or behind it.
                .with_endpoint(&bucket_url)
                .with_virtual_hosted_style_request(true)
                // One request for one name: every server knows that.
                .with_disable_bulk_delete(true)
                .with_client_options(ClientOptions::new().with_default_headers(headers))
                .with_retry(RetryConfig {
                    backoff: BackoffConfig::default(),
                    max_retries: RETRIES,
                    retry_timeout: RETRY_TIME,
                });
            if let Some(token) = &settings.token {
                builder = builder.with_token(token);
            }
            builder.build().map_err(failed("using", url))
        };
        let replace = HeaderValue::from_static("REPLACE");
        let renewing = [(HeaderName::from_static("x-amz-metadata-directive"), replace)];
        Ok(Self {
            store: store(HeaderMap::new())?,
            renewing: store(HeaderMap::from_iter(renewing))?,
            prefix: prefix.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
        })
    }

    /// As it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends the files of published flists, several at a time; bodies when what they need is there. Stopped, it
    /// goes on where it was: what is there is not sent again. The clock is asked for each file, as a push may last
    /// for longer than a file stays young.
    pub async fn push(
        &self,
        files: &[Upload],
        clock: Clock<'_>,
        progress: &dyn Progress,
    ) -> Result<Sent, PlaceError> {
        let is_body = |file: &&Upload| matches!(file.kind, UploadKind::Body(_));
        let (bodies, others): (Vec<&Upload>, Vec<&Upload>) = files.iter().partition(is_body);
        let mut sent = self.send_all(&others, clock, progress).await?;
        sent.add(self.send_all(&bodies, clock, progress).await?);
        // Who clears up may have looked at a file before it was found here, and removed it since; or have seen an
        // old pack while there was no flist yet that needs it.
        for files in [&others, &bodies] {
            let again = self.send_all(files, clock, &()).await?;
            sent.add(Sent { skipped: 0, ..again });
        }
        Ok(sent)
    }

    async fn send_all(
        &self,
        files: &[&Upload],
        clock: Clock<'_>,
        progress: &dyn Progress,
    ) -> Result<Sent, PlaceError> {
        let one = |file: &Upload| {
            let file = file.clone();
            async move {
                let is_new = self.send(&file, clock).await?;
                progress.advance(file.bytes);
                Ok::<_, PlaceError>(if is_new {
                    Sent { files: 1, bytes: file.bytes, skipped: 0 }
                } else {
                    Sent { skipped: 1, ..Sent::default() }
                })
            }
        };
        let all = futures_util::stream::iter(files.iter().map(|file| one(file)));
        let all = all.buffer_unordered(UPLOADS);
        all.try_fold(Sent::default(), |mut sent, one| {
            sent.add(one);
            future::ready(Ok(sent))
        })
        .await
    }

    /// Answers whether the file was not there.
    async fn send(&self, file: &Upload, clock: Clock<'_>) -> Result<bool, PlaceError> {
        let (item, known) = match &file.kind {
            UploadKind::Pack(id) => (Item::Pack(*id), None),
            UploadKind::Body(id) => (Item::Body(*id), None),
            UploadKind::Release(release) => {
                let item = Item::Release(release.flist, release.publisher);
                let says_as_much = |known: &Vec<u8>| {
                    Release::open(known).is_ok_and(|known| {
                        known.fits(&release.flist, &release.publisher, 1).is_ok()
                            && !release.replaces(&known)
                    })
                };
                let Some(known) = self.read(&item).await?.filter(says_as_much) else {
                    self.write(&item, read(file).await?).await?;
                    return Ok(true);
                };
                (item, Some(known))
            }
        };
        let bytes = known.as_ref().map_or(file.bytes, |known| known.len() as u64);
        if self.keep(&item, bytes, clock).await? {
            return Ok(false);
        }
        let bytes = match known {
            // Ours would take back what the publisher has said since.
            Some(known) => known,
            None => read(file).await?,
        };
        self.write(&item, bytes).await?;
        Ok(true)
    }

    /// Whether a file is there as a whole, and stays for now: what is old has a new age then. Who cannot give one
    /// sends the file.
    async fn keep(&self, item: &Item, bytes: u64, clock: Clock<'_>) -> Result<bool, PlaceError> {
        let is_whole = |found: &Found| found.bytes == bytes;
        let is_young = |found: &Found| found.since > clock().plus(-RENEW_S);
        match self.look(item).await?.filter(is_whole) {
            None => return Ok(false),
            Some(found) if is_young(&found) => return Ok(true),
            Some(_) => {}
        }
        let name = self.name(item);
        if self.renewing.copy(&name, &name).await.is_err() {
            return Ok(false);
        }
        // Some servers say that they did and did not, or did and kept the age.
        Ok(self.look(item).await?.is_some_and(|found| is_whole(&found) && is_young(&found)))
    }

    async fn write(&self, item: &Item, bytes: Vec<u8>) -> Result<(), PlaceError> {
        let name = self.name(item);
        let put = self.store.put(&name, PutPayload::from(bytes)).await;
        put.map(drop).map_err(failed("writing", &name))
    }

    pub(super) async fn list(&self, names_max: usize) -> Result<Vec<Found>, PlaceError> {
        let mut found = BTreeMap::new();
        let mut names = 0;
        for folder in ["flists", "packs", "releases"] {
            let folder = self.path(folder);
            let mut listed = self.store.list(Some(&folder));
            let listing = async {
                while let Some(meta) =
                    listed.try_next().await.map_err(failed("listing", &folder))?
                {
                    names += 1;
                    if names > names_max {
                        let text = format!("more than {names_max} names in {}", self.url);
                        return Err(PlaceError::Unfit(text));
                    }
                    if let Some(item) = self.item(&meta) {
                        add(&mut found, seen(item, &meta));
                    }
                }
                Ok(())
            };
            let late = |_| PlaceError::Unfit(format!("listing {folder} took more than an hour"));
            time::timeout(LISTING_TIME, listing).await.map_err(late)??;
        }
        if found.is_empty() {
            let text = format!("there are no flists in {}: is the prefix right?", self.url);
            return Err(PlaceError::Unfit(text));
        }
        Ok(found.into_values().collect())
    }

    pub(super) async fn look(&self, item: &Item) -> Result<Option<Found>, PlaceError> {
        let name = self.name(item);
        match self.store.head(&name).await {
            Ok(meta) => Ok(Some(seen(*item, &meta))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("looking at", &name)(error)),
        }
    }

    /// A body or a release; `None`: it is not there.
    pub(super) async fn read(&self, item: &Item) -> Result<Option<Vec<u8>>, PlaceError> {
        let name = self.name(item);
        let got = match self.store.get(&name).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed("reading", &name)(error)),
        };
        // It is here already, and bounded.
        let bytes = got.bytes().await.map_err(failed("reading", &name))?;
        Ok(Some(bytes.to_vec()))
    }

    pub(super) async fn delete(&self, item: &Item) -> Result<(), PlaceError> {
        let name = self.name(item);
        match self.store.delete(&name).await {
            // Somebody else was quicker.
            Err(Error::NotFound { .. }) => Ok(()),
            removed => removed.map_err(failed("removing", &name)),
        }
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    fn name(&self, item: &Item) -> Path {
        self.path(&item.name())
    }

    /// What an object is, if its name is ours. An empty one is none: consoles make such for folders.
    fn item(&self, meta: &ObjectMeta) -> Option<Item> {
        let name = meta.location.as_ref();
        let name = match self.prefix.as_str() {
            "" => name,
            prefix => name.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Item::parse(name).filter(|_| meta.size > 0)
    }
}

impl Sent {
    fn add(&mut self, more: Self) {
        self.files += more.files;
        self.bytes += more.bytes;
        self.skipped += more.skipped;
    }
}

async fn read(file: &Upload) -> Result<Vec<u8>, PlaceError> {
    let file = file.clone();
    let name = file.path.display().to_string();
    let read = tokio::task::spawn_blocking(move || content::read_upload(&file)).await;
    read.map_err(io::Error::other).and_then(|read| read).map_err(|source| PlaceError::Io {
        doing: "reading",
        name,
        source,
    })
}

/// The library takes a slash from the end of a name, and then somebody's mark of a folder has the name of a file.
/// Of two the younger counts: in doubt nothing goes.
fn add(found: &mut BTreeMap<Item, Found>, one: Found) {
    let known = found.entry(one.item).or_insert(one);
    if one.since > known.since {
        *known = one;
    }
}

/// Bucket and prefix. Only names that every server understands in the same way.
fn parse(url: &str) -> Option<(&str, &str)> {
    let place = url.strip_prefix("s3://")?;
    let place = place.strip_suffix('/').unwrap_or(place);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_part = |part: &str| !["", ".", ".."].contains(&part) && part.chars().all(is_plain);
    place.split('/').all(is_part).then(|| place.split_once('/').unwrap_or((place, "")))
}

fn seen(item: Item, meta: &ObjectMeta) -> Found {
    let since = Timestamp::from_seconds(meta.last_modified.timestamp());
    Found { item, bytes: meta.size, since }
}

fn failed(doing: &'static str, name: impl AsRef<str>) -> impl FnOnce(Error) -> PlaceError {
    let name = name.as_ref().to_owned();
    move |error| {
        let hint = match &error {
            Error::NotFound { .. } => ": the store has no such bucket",
            _ => "",
        };
        // What is nearest to the cause: the library says all of it again at each level.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        PlaceError::Bucket {
            doing,
            name,
            hint,
            source: Said(exchange::printable(&cause.to_string(), CAUSE_CHARS_MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_prefix_have_names_that_nobody_reads_in_two_ways() {
        for (url, wanted) in [
            ("s3://b", ("b", "")),
            ("s3://b/", ("b", "")),
            ("s3://b/x", ("b", "x")),
            ("s3://my.bucket-1/x/y_z/", ("my.bucket-1", "x/y_z")),
        ] {
            assert_eq!(parse(url), Some(wanted), "{url}");
        }
        let bad = ["", "b/x", "http://b/x", "s3://", "s3:///x", "s3://b/../x", "s3://b//x"];
        let more = ["s3://b/a b", "s3://b/x//", "s3://me:secret@b", "s3://b/x?y", "s3://b/é"];
        for url in bad.iter().chain(&more) {
            assert_eq!(parse(url), None, "{url}");
        }
    }

    #[test]
    fn of_two_objects_with_one_name_the_younger_counts() {
        let item = Item::Pack(contract::FlistId([1; 32]));
        let [old, young] = [(1, 10), (2, 20)].map(|(bytes, since)| Found {
            item,
            bytes,
            since: Timestamp::from_seconds(since),
        });
        for pair in [[old, young], [young, old]] {
            let mut found = BTreeMap::new();
            for one in pair {
                add(&mut found, one);
            }
            assert_eq!(found.into_values().collect::<Vec<_>>(), [young]);
        }
    }

    #[test]
    fn a_bucket_has_an_address_or_is_refused() {
        let open = |server: &str, style: &str| {
            let variables = [
                ("AWS_ACCESS_KEY_ID", "x"),
                ("AWS_SECRET_ACCESS_KEY", "x"),
                ("AWS_ENDPOINT_URL", server),
                ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", style),
            ];
            Bucket::open("s3://b", variables.map(|(name, value)| (name.into(), value.into())))
        };
        for server in ["http://127.0.0.1:9000", "http://[::1]:9000"] {
            open(server, "false").unwrap();
            let error = open(server, "true").unwrap_err().to_string();
            assert!(error.contains("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"), "{error}");
        }
        open("http://s3.test:9000", "true").unwrap();
    }

    #[test]
    fn a_bucket_shows_nothing_of_its_key() {
        let key = [("AWS_ACCESS_KEY_ID", "hidden"), ("AWS_SECRET_ACCESS_KEY", "hidden")];
        let server = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        let variables = [key[0], key[1], server].map(|(name, value)| (name.into(), value.into()));
        let bucket = Bucket::open("s3://b/x/", variables).unwrap();
        assert_eq!(format!("{bucket:?}"), "Bucket { url: \"s3://b/x\", .. }");
        assert_eq!(bucket.path("packs/1").as_ref(), "x/packs/1");
        assert!(matches!(Bucket::open("s3://b", []), Err(PlaceError::Unfit(_))));
    }
}
