//! Stores with good and bad files. What the kernel does is computed here: a file is sealed if its digest
//! is right, and its disk has lost a page if it says so in a name beside it.

use super::*;
use crate::{
    Cancel, Fault, Source,
    create::{self, Options},
    store::seal::{Kernel, Sealed},
    verity,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

/// What stands beside a file of which a page is lost, or was lost for one reading.
const LOST: &str = "lost";
const FLAKY: &str = "flaky";
/// The size of each file of an flist.
const OBJECT_BYTES: usize = 9000;

fn seal(path: &Path, digest: &[u8; 32]) -> Result<Sealed, StoreError> {
    let bytes = fs::read(path).map_err(StoreError::io("reading", path))?;
    let right = verity::digest(&bytes) == *digest;
    Ok(if right { Sealed::Yes } else { Sealed::OtherDigest })
}

fn fault(
    path: &Path,
    digest: &[u8; 32],
    depth: Depth,
    pace: Pace<'_>,
) -> Result<Option<FaultKind>, StoreError> {
    if !path.exists() {
        return Ok(Some(FaultKind::Missing));
    }
    let bytes = fs::read(path).map_err(StoreError::io("reading", path))?;
    if depth == Depth::Read {
        pace(bytes.len() as u64);
        let lost = fs::read(path.with_extension(LOST)).is_ok_and(|inode| inode == inode_of(path));
        if lost || fs::remove_file(path.with_extension(FLAKY)).is_ok() {
            return Ok(Some(FaultKind::Unreadable));
        }
    }
    Ok((verity::digest(&bytes) != *digest).then_some(FaultKind::WrongDigest))
}

/// What is lost is lost of one file, not of the next one with its name.
fn inode_of(path: &Path) -> Vec<u8> {
    // File systems give the numbers of inodes again.
    let written = fs::metadata(path).and_then(|found| found.modified()).unwrap();
    format!("{:?} {written:?}", seal::identity(path).unwrap()).into_bytes()
}

fn lose(path: &Path) {
    fs::write(path.with_extension(LOST), inode_of(path)).unwrap();
}

const COMPUTED: Kernel = Kernel { seal, fault, again: Duration::ZERO };

/// A store with two flists, which share a file.
struct Bench {
    store: Store,
    root: tempfile::TempDir,
    published: tempfile::TempDir,
    one: Flist,
    other: Flist,
}

impl Bench {
    fn new() -> Self {
        let (root, published) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store { kernel: COMPUTED, ..Store::open(root.path()).unwrap() };
        let flist = |own: u8| {
            let tree = tempfile::tempdir().unwrap();
            for (name, byte) in [("shared", 1), ("own", own), ("more", own + 1)] {
                fs::write(tree.path().join(name), vec![byte; OBJECT_BYTES]).unwrap();
            }
            let built = create::build_directory(tree.path(), &Options::default(), &()).unwrap();
            create::publish(&built, published.path()).unwrap();
            built.flist
        };
        let (one, other) = (flist(10), flist(20));
        let bench = Self { store, root, published, one, other };
        bench.ingest(&bench.one);
        bench.ingest(&bench.other);
        assert_eq!(bench.store.take_findings(), BTreeMap::new(), "nothing was there before");
        bench
    }

    fn ingest(&self, flist: &Flist) {
        let source = Source::new([self.published.path().to_str().unwrap()]).unwrap();
        self.store.repair(flist.identity(), &source, &(), &Cancel::default()).unwrap();
    }

    fn object(&self, flist: &Flist, name: &str) -> PathBuf {
        let body = flist.body();
        let paths = body.paths_of_contents();
        let at = paths.iter().position(|path| *path == name.as_bytes()).unwrap();
        self.store.object(&body.contents[at].digest)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = (0..=SHELVES)
            .flat_map(|shelf| self.store.shelf(shelf).unwrap())
            .map(|place| match place {
                Place::Image(flist) => store_path::image(self.root.path(), flist),
                Place::Object(digest) => self.store.object(&digest),
            })
            .filter(|path| path.exists())
            .collect();
        files.sort();
        files
    }

    fn found(&self) -> Vec<(FlistId, String)> {
        let found = self.store.take_findings().into_iter();
        let one = |(flist, faults): (FlistId, Vec<Fault>)| {
            faults.into_iter().map(move |fault| (flist, fault.to_string()))
        };
        let mut found: Vec<_> = found.flat_map(one).collect();
        found.sort();
        found
    }

    fn scrub(&self) -> Scrubbed {
        self.store.scrub(None, u64::MAX, &mut |_| {})
    }
}

/// What is told of these flists.
fn of(faults: &[(&Flist, &str)]) -> Vec<(FlistId, String)> {
    let mut faults: Vec<_> =
        faults.iter().map(|(flist, fault)| (flist.identity(), (*fault).to_owned())).collect();
    faults.sort();
    faults
}

#[test]
fn places_are_read_as_they_are_written() {
    for place in [Place::Image(FlistId([7; 32])), Place::Object([200; 32])] {
        assert_eq!(place.to_string().parse(), Ok(place));
    }
    for bad in ["", "image", "object 12", "images/aa", &format!("file {}", "a".repeat(64))] {
        assert_eq!(bad.parse::<Place>(), Err(NotAPlace), "{bad}");
    }
}

#[test]
fn exactly_the_bad_files_go_everybody_who_needs_them_is_told_and_they_come_back() {
    let bench = Bench::new();
    let all = bench.files();
    assert_eq!(all.len(), 2 + 5, "two images, five objects");
    let scrubbed = bench.scrub();
    assert!(scrubbed.problem.is_none() && scrubbed.doubted == 0 && scrubbed.next.is_none());
    assert_eq!(bench.files(), all, "good files stay");
    assert_eq!((scrubbed.files, scrubbed.bad, scrubbed.damaged.len()), (7, 0, 0));
    assert!(scrubbed.bytes >= 5 * OBJECT_BYTES as u64, "{scrubbed:?}");

    lose(&bench.object(&bench.one, "shared"));
    fs::write(bench.object(&bench.one, "own"), "another").unwrap();
    fs::remove_file(bench.object(&bench.other, "own")).unwrap();
    let image = store_path::image(bench.root.path(), bench.other.identity());
    fs::write(&image, "another").unwrap();
    fs::remove_file(store_path::image(bench.root.path(), bench.one.identity())).unwrap();
    let scrubbed = bench.scrub();
    assert!(scrubbed.problem.is_none(), "{scrubbed:?}");
    let gone = [
        bench.object(&bench.one, "shared"),
        bench.object(&bench.one, "own"),
        bench.object(&bench.other, "own"),
        image,
        store_path::image(bench.root.path(), bench.one.identity()),
    ];
    let left: Vec<_> = all.iter().filter(|path| !gone.contains(path)).cloned().collect();
    assert_eq!(bench.files(), left, "exactly the bad files go");
    // The object that both need is one.
    let both = [bench.one.identity(), bench.other.identity()].into();
    assert_eq!((scrubbed.bad, scrubbed.damaged), (5, both));
    let (one, other) = (&bench.one, &bench.other);
    let told = of(&[
        (one, "/own has another digest, or none"),
        (one, "/shared cannot be read"),
        (one, "the image of the tree is missing"),
        (other, "/own is missing"),
        (other, "/shared cannot be read"),
        (other, "the image of the tree has another digest, or none"),
    ]);
    assert_eq!(bench.found(), told);
    assert_eq!(bench.found(), [], "told once");

    bench.ingest(&bench.one);
    bench.ingest(&bench.other);
    assert_eq!(bench.files(), all);
    let scrubbed = bench.scrub();
    assert_eq!((scrubbed.doubted, scrubbed.bad), (0, 0));
}

#[test]
fn one_flist_is_read_and_no_other() {
    let bench = Bench::new();
    lose(&bench.object(&bench.one, "own"));
    lose(&bench.object(&bench.one, "shared"));
    lose(&bench.object(&bench.other, "own"));
    let scrubbed = bench.store.scrub_one(bench.one.identity(), &mut |_| {});
    assert_eq!((scrubbed.doubted, scrubbed.problem.is_none()), (2, true));
    let (one, other) = (&bench.one, &bench.other);
    let told = [(one, "/own cannot be read"), (one, "/shared cannot be read")];
    assert_eq!(bench.found(), of(&[told[0], told[1], (other, told[1].1)]));
    assert!(bench.object(other, "own").exists() && bench.object(one, "more").exists());
    // One that is not there, or was swept meanwhile, is no problem.
    let scrubbed = bench.store.scrub_one(FlistId([1; 32]), &mut |_| {});
    assert_eq!((scrubbed.doubted, scrubbed.problem.is_none()), (0, true));
}

/// One reset of a controller took a good file away, and stopped whoever used it.
#[test]
fn a_file_that_can_be_read_the_second_time_stays() {
    let bench = Bench::new();
    let all = bench.files();
    let object = bench.object(&bench.one, "own");
    fs::write(object.with_extension(FLAKY), "").unwrap();
    let scrubbed = bench.scrub();
    assert_eq!((scrubbed.doubted, scrubbed.bad), (1, 0));
    fs::write(object.with_extension(FLAKY), "").unwrap();
    bench.ingest(&bench.one);
    assert!(!object.with_extension(FLAKY).exists(), "the repair has seen it as well");
    assert_eq!((bench.files(), bench.found()), (all, vec![]));
}

/// The file that replaced a bad one lost its name, for what had been read was the old one.
#[test]
fn a_file_that_was_replaced_meanwhile_keeps_its_name() {
    let bench = Bench::new();
    let object = bench.object(&bench.one, "own");
    let old = seal::identity(&object).unwrap();
    let aside = bench.root.path().join("aside");
    fs::copy(&object, &aside).unwrap();
    fs::rename(&aside, &object).unwrap();
    assert!(!bench.store.take_name(&object, old).unwrap());
    assert!(object.exists());
    let new = seal::identity(&object).unwrap();
    assert!(bench.store.take_name(&object, new).unwrap());
    assert!(!object.exists());
    assert!(!bench.store.take_name(&object, new).unwrap(), "it has gone by itself");
}

/// Whoever had the old file open went on with its bad pages, and nobody heard of it.
#[test]
fn a_repair_of_one_flist_tells_the_others_whose_files_it_replaced() {
    let bench = Bench::new();
    lose(&bench.object(&bench.one, "shared"));
    fs::remove_file(bench.object(&bench.one, "own")).unwrap();
    bench.ingest(&bench.one);
    let (one, other) = (&bench.one, &bench.other);
    let shared = "/shared cannot be read";
    let told = of(&[(one, "/own is missing"), (one, shared), (other, shared)]);
    assert_eq!(bench.found(), told);
    assert_eq!(bench.scrub().doubted, 0);
}

#[test]
fn of_many_bad_files_some_are_told() {
    use crate::store::findings::{FAULTS_MAX, Findings};
    let bench = Bench::new();
    let mut findings = Findings::default();
    let mut tell = |place, kind| {
        bench.store.tell(findings.of_file(&bench.store, place, kind).unwrap());
    };
    let flist = bench.one.identity();
    let objects = bench.one.body().contents.iter().map(|content| Place::Object(content.digest));
    for kind in [FaultKind::Missing, FaultKind::Unreadable, FaultKind::WrongDigest].repeat(9) {
        for object in objects.clone() {
            tell(object, kind);
        }
    }
    tell(Place::Image(FlistId([1; 32])), FaultKind::Missing);
    let found = bench.store.take_findings();
    assert_eq!(found[&flist].len(), FAULTS_MAX);
    assert!(!found.contains_key(&FlistId([1; 32])), "nobody is told of what is not complete");
    // A container that was repaired and started during one long look was not told of the next.
    for object in objects {
        tell(object, FaultKind::Missing);
    }
    assert_eq!(bench.store.take_findings()[&flist].len(), 3, "whatever was told before");
}

/// Whoever had a bad file open was told only when everything else that was doubted had been read again,
/// which takes minutes: it had been fetched by then, and what was stopped ran from good files.
#[test]
fn what_has_lost_its_name_was_told_before_anything_else_is_read() {
    let bench = Bench::new();
    let bad = ["own", "more"].map(|name| bench.object(&bench.one, name));
    for path in &bad {
        lose(path);
    }
    let (mut told, mut counts) = (0, BTreeSet::new());
    bench.store.scrub_one(bench.one.identity(), &mut |_| {
        told += bench.found().len();
        counts.insert((bad.iter().filter(|path| !path.exists()).count(), told));
    });
    assert_eq!(counts, [(0, 0), (1, 1)].into());
    assert_eq!(told + bench.found().len(), 2);
}

/// What ran from the first bad file of a large flist went on until all of it had been read.
#[test]
fn what_is_not_right_does_not_wait_for_a_large_file() {
    let bench = Bench::new();
    let contents = &bench.one.body().contents;
    let [first, large] =
        [contents.first(), contents.last()].map(|one| bench.store.object(&one.unwrap().digest));
    lose(&first);
    fs::File::options().write(true).open(&large).unwrap().set_len(DOUBT_BYTES).unwrap();
    lose(&large);
    let mut is_read = false;
    let scrubbed = bench.store.scrub_one(bench.one.identity(), &mut |bytes| {
        if bytes == DOUBT_BYTES && !is_read {
            is_read = true;
            assert!(!first.exists(), "before the large file is read");
        }
    });
    assert!(is_read && !large.exists() && scrubbed.doubted == 2, "{scrubbed:?}");
}

/// It had lost its name when it turned out that nobody knew who needs it; no later look came upon it.
#[test]
fn a_bad_file_keeps_its_name_while_nobody_knows_whom_it_concerns() {
    let bench = Bench::new();
    let bad = bench.object(&bench.one, "own");
    lose(&bad);
    let images = bench.root.path().join("images");
    let aside = bench.root.path().join("aside");
    let scrubbed = bench.store.scrub_one(bench.one.identity(), &mut |bytes| {
        if bytes == OBJECT_BYTES as u64 && images.exists() {
            fs::rename(&images, &aside).unwrap();
        }
    });
    assert!(matches!(scrubbed.problem, Some(StoreError::Io { .. })), "{scrubbed:?}");
    assert!(bad.exists());
    fs::rename(&aside, &images).unwrap();
    // The list of another cannot be looked at, and is not damaged.
    let record = store_path::record(bench.root.path(), bench.other.identity());
    fs::rename(&record, &aside).unwrap();
    fs::create_dir(&record).unwrap();
    let scrubbed = bench.store.scrub_one(bench.one.identity(), &mut |_| {});
    assert!(matches!(scrubbed.problem, Some(StoreError::Io { .. })), "{scrubbed:?}");
    assert!(bad.exists());
    fs::remove_dir(&record).unwrap();
    fs::rename(&aside, &record).unwrap();
    bench.scrub();
    assert!(!bad.exists());
    assert_eq!(bench.found(), of(&[(&bench.one, "/own cannot be read")]));
}

#[test]
fn a_look_in_pieces_sees_every_file_once_and_takes_the_bad_ones() {
    let bench = Bench::new();
    let all = bench.files();
    let (bad, junk) = (bench.object(&bench.other, "more"), bench.root.path().join("objects/41"));
    lose(&bad);
    fs::create_dir_all(&junk).unwrap();
    fs::write(junk.join("junk"), "none of ours").unwrap();
    let (mut after, mut seen) = (None, 0);
    loop {
        let scrubbed = bench.store.scrub(after, 0, &mut |_| {});
        assert!(scrubbed.problem.is_none());
        assert!(scrubbed.next.is_none_or(|next| after.is_none_or(|after| next > after)));
        after = scrubbed.next;
        if after.is_none() {
            break;
        }
        seen += 1;
    }
    assert_eq!(seen, all.len());
    let left: Vec<_> = all.into_iter().filter(|path| *path != bad).collect();
    assert_eq!(bench.files(), left);
    assert_eq!(bench.found(), of(&[(&bench.other, "/more cannot be read")]));
    assert!(junk.join("junk").exists());
}

/// One directory that could not be listed kept everything behind it from being read, for ever.
#[test]
fn a_look_goes_on_behind_what_cannot_be_looked_at() {
    let bench = Bench::new();
    let bad = bench.object(&bench.one, "own");
    lose(&bad);
    fs::write(bench.root.path().join("objects/zz"), "").unwrap();
    // A file where a directory has to be, on a shelf before all others that is not used.
    let free = (0..=255).map(|n| bench.root.path().join(format!("objects/{n:02x}")));
    let free = free.into_iter().find(|path| !path.exists()).unwrap();
    fs::write(&free, "").unwrap();
    let scrubbed = bench.scrub();
    assert!(matches!(scrubbed.problem, Some(StoreError::Io { .. })), "{scrubbed:?}");
    assert!(scrubbed.next.is_none() && !bad.exists());
}

/// Without its name, it no longer kept a sweep from the objects that it alone names.
#[test]
fn a_damaged_record_is_told_and_stays_until_it_is_replaced() {
    let bench = Bench::new();
    let (flist, all) = (bench.one.identity(), bench.files());
    fs::write(store_path::record(bench.root.path(), flist), "junk").unwrap();
    bench.scrub();
    let told = of(&[(&bench.one, "the list of files cannot be read")]);
    assert_eq!(bench.found(), told);
    let pinned = [flist, bench.other.identity()].into();
    assert_eq!(bench.store.sweep(&pinned).unwrap_err().code(), "record_damaged");
    assert_eq!(bench.files(), all);
    bench.ingest(&bench.one);
    assert_eq!(bench.store.flist(flist).unwrap(), bench.one);
    bench.store.sweep(&pinned).unwrap();
    assert_eq!((bench.files(), bench.found()), (all, vec![]));
}

#[test]
fn what_is_measured_and_computed_takes_its_time_as_well() {
    let bench = Bench::new();
    let mut counted = 0;
    bench.store.scrub_one(bench.one.identity(), &mut |bytes| counted += bytes);
    let read = 3 * OBJECT_BYTES as u64;
    assert!(counted > read + 5 * FILE_BYTES, "{counted}");
}

/// Stops a fetch once it has its room.
struct Stopper(Cancel);

impl crate::Progress for Stopper {
    fn begin(&self, stage: crate::Stage, _total: u64) {
        if stage == crate::Stage::Fetching {
            self.0.cancel();
        }
    }

    fn advance(&self, _bytes: u64) {}
}

/// Whoever gave way to others had lost its room to them, with half of its files staged.
#[test]
fn a_fetch_that_is_stopped_keeps_its_room_and_one_that_ends_does_not() {
    let bench = Bench::new();
    let promised = || bench.store.room().promises();
    assert_eq!(promised(), BTreeMap::new(), "both are complete");
    let (identity, size) = (bench.one.identity(), OBJECT_BYTES as u64);
    for name in ["own", "more"] {
        fs::remove_file(bench.object(&bench.one, name)).unwrap();
    }
    let source = |place: &Path| Source::new([place.to_str().unwrap()]).unwrap();
    let (good, cancel) = (source(bench.published.path()), Cancel::default());
    let stopped = bench.store.ingest(identity, &good, &Stopper(cancel.clone()), &cancel);
    assert_eq!(stopped.unwrap_err().code(), "cancelled");
    // What the flist shares with the other is there.
    let block = |bytes: u64| bytes.next_multiple_of(4096);
    let needed = 2 * block(size) + block(bench.one.encode().len() as u64);
    assert_eq!(promised(), BTreeMap::from([(identity, needed + needed / 100)]));
    bench.store.give_up(identity);
    assert_eq!(promised(), BTreeMap::new());
    let nothing = tempfile::tempdir().unwrap();
    let failed = bench.store.ingest(identity, &source(nothing.path()), &(), &Cancel::default());
    assert_eq!(failed.unwrap_err().code(), "content_missing");
    assert_eq!(promised(), BTreeMap::new());
    let stopped = bench.store.ingest(identity, &good, &Stopper(cancel.clone()), &cancel);
    assert_eq!(stopped.unwrap_err().code(), "cancelled");
    bench.store.ingest(identity, &good, &(), &Cancel::default()).unwrap();
    assert_eq!(promised(), BTreeMap::new());
}

/// A server that lies about the size had its files looked for, and room promised.
#[test]
fn what_is_larger_than_agreed_on_is_refused_when_its_list_is_here() {
    let bench = Bench::new();
    let (identity, size) = (bench.one.identity(), bench.one.body().content_bytes());
    let at_most = |bytes| {
        fs::remove_file(store_path::record(&bench.store.root, identity)).unwrap();
        let place = bench.published.path().to_str().unwrap();
        let source = Source::new([place]).unwrap().at_most(bytes);
        bench.store.ingest(identity, &source, &(), &Cancel::default())
    };
    // Although every object is there.
    at_most(size).unwrap();
    assert_eq!(at_most(size - 1).unwrap_err().code(), "flist_too_large");
}

struct Panics;

impl crate::Progress for Panics {
    fn begin(&self, stage: crate::Stage, _total: u64) {
        assert!(stage != crate::Stage::Fetching, "as if there were a mistake");
    }

    fn advance(&self, _bytes: u64) {}
}

#[test]
fn a_fetch_that_panics_keeps_no_room() {
    let bench = Bench::new();
    let identity = bench.one.identity();
    fs::remove_file(bench.object(&bench.one, "own")).unwrap();
    let source = Source::new([bench.published.path().to_str().unwrap()]).unwrap();
    let fetch = || bench.store.ingest(identity, &source, &Panics, &Cancel::default());
    let ended = std::thread::scope(|scope| scope.spawn(fetch).join());
    assert!(ended.is_err());
    assert_eq!(bench.store.room().promises(), BTreeMap::new());
    bench.store.ingest(identity, &source, &(), &Cancel::default()).unwrap();
}
