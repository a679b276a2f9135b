//! Fetching over HTTP from good, bad, short and dead servers.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

use contract::{Release, SigningKey, Timestamp, header::Publisher};
use flist::{
    Cancel, Flist, FlistId, Progress, Source, Stage,
    create::{self, Options},
    fetch,
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    IgnoresRanges,
    AnswersError,
    ClosesEarly,
    CorruptsPacks,
    /// Serves this many requests, then answers with errors.
    DiesAfter(usize),
    /// Answers everything with a redirect to the same path below this.
    RedirectsTo(&'static str),
    /// Sends a byte now and then.
    Drips,
}

struct Server {
    url: String,
    /// Paths asked for, with ranges.
    requests: Arc<Mutex<Vec<String>>>,
    bytes: Arc<AtomicU64>,
}

impl Server {
    fn start(root: &Path, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/base", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let bytes = Arc::<AtomicU64>::default();
        let (root, log, sum) = (root.to_owned(), Arc::clone(&requests), Arc::clone(&bytes));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (root, log, sum) = (root.clone(), Arc::clone(&log), Arc::clone(&sum));
                // A client that goes away is its own affair.
                std::thread::spawn(move || serve(&stream.unwrap(), &root, fault, &log, &sum).ok());
            }
        });
        Self { url, requests, bytes }
    }

    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn serve(
    stream: &TcpStream,
    root: &Path,
    fault: Fault,
    log: &Mutex<Vec<String>>,
    sum: &AtomicU64,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    loop {
        let (mut path, mut range, mut number) = (PathBuf::new(), None, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("GET /base/") {
                path = root.join(rest.split(' ').next().unwrap());
                let mut log = log.lock().unwrap();
                log.push(rest.to_owned());
                number = log.len();
            }
            if let Some(rest) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                let (first, last) = rest.split_once('-').unwrap();
                range = Some((first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap()));
            }
            if line.is_empty() {
                break;
            }
        }
        if let Fault::RedirectsTo(base) = fault {
            let path = path.strip_prefix(root).unwrap().display();
            write!(
                out,
                "HTTP/1.1 302 There\r\nLocation: {base}/{path}\r\nContent-Length: 0\r\n\r\n"
            )?;
            continue;
        }
        let dead = matches!(fault, Fault::DiesAfter(most) if number > most);
        let body = match fs::read(&path) {
            Ok(_) if dead || fault == Fault::AnswersError => {
                write!(out, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            Ok(body) => body,
            Err(_) => {
                write!(out, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
        };
        let (mut bytes, head) = match range.filter(|_| fault != Fault::IgnoresRanges) {
            Some((first, last)) => (
                body[first..=last].to_vec(),
                format!("HTTP/1.1 206 Some\r\nContent-Range: bytes {first}-{last}/{}", body.len()),
            ),
            None => (body, "HTTP/1.1 200 All".to_owned()),
        };
        if fault == Fault::CorruptsPacks && range.is_some() {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        write!(out, "{head}\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
        sum.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if fault == Fault::Drips {
            for byte in &bytes {
                out.write_all(&[*byte])?;
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        if fault == Fault::ClosesEarly {
            out.write_all(&bytes[..bytes.len() / 2])?;
            return Ok(());
        }
        out.write_all(&bytes)?;
    }
}

/// A published flist with a file of several chunks and many small ones.
fn published() -> (TempDir, Flist) {
    let (tree, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut state = 7_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    fs::write(tree.path().join("big"), noise(5 << 20)).unwrap();
    for number in 0..200 {
        fs::write(tree.path().join(format!("small{number}")), noise(1000 + number)).unwrap();
    }
    let built = create::build_directory(tree.path(), &Options::default(), &()).unwrap();
    create::publish(&built, out.path()).unwrap();
    (out, built.flist)
}

fn fetch_all(flist: &Flist, urls: &[&str], staging: &Path) -> Result<(), flist::FetchError> {
    let source = Source::new(urls).unwrap();
    let all: Vec<u32> = (0..).take(flist.body().contents.len()).collect();
    fetch::contents(flist, &all, &source, staging, &(), &Cancel::default())
}

fn assert_staged(flist: &Flist, staging: &Path) {
    for content in &flist.body().contents {
        let bytes = fs::read(staging.join(hex::encode(content.digest))).unwrap();
        assert_eq!(flist::verity::digest(&bytes), content.digest);
    }
}

#[test]
fn everything_arrives_with_few_requests() {
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), Fault::None);
    let source = Source::new([&server.url]).unwrap();
    let body = fetch::body(&source, flist.identity(), &Cancel::default()).unwrap();
    assert_eq!(body, flist);
    fetch_all(&flist, &[&server.url], staging.path()).unwrap();
    assert_staged(&flist, staging.path());
    // 5.3 MiB in ranges of 2 MiB, instead of 206 chunks.
    assert!(server.requests() < 10, "{} requests", server.requests());
    // What is staged is not fetched again.
    let before = server.requests();
    fetch_all(&flist, &[&server.url], staging.path()).unwrap();
    assert_eq!(server.requests(), before);
}

#[test]
fn a_server_without_ranges_will_do() {
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), Fault::IgnoresRanges);
    fetch_all(&flist, &[&server.url], staging.path()).unwrap();
    assert_staged(&flist, staging.path());
}

/// A server could have the node ask whatever address it liked in the network of its farmer.
#[test]
fn a_redirect_is_followed_to_the_same_host_only() {
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let good = Server::start(root.path(), Fault::None);
    // The same server by another name is another host.
    let elsewhere = good.url.replace("127.0.0.1", "localhost").leak();
    let server = Server::start(root.path(), Fault::RedirectsTo(elsewhere));
    let error = fetch_all(&flist, &[&server.url], staging.path()).unwrap_err();
    assert_eq!(error.reason.code(), "source_unreachable");
    assert_eq!(good.requests(), 0);
    let server = Server::start(root.path(), Fault::RedirectsTo(good.url.clone().leak()));
    fetch_all(&flist, &[&server.url], staging.path()).unwrap();
    assert_staged(&flist, staging.path());
}

/// Two servers that dripped held both places of a node for as long as they liked.
#[test]
fn a_fetch_that_is_stopped_ends_in_the_middle_of_an_answer() {
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), Fault::Drips);
    let source = Source::new([&server.url]).unwrap();
    let all: Vec<u32> = (0..).take(flist.body().contents.len()).collect();
    let cancel = Cancel::default();
    let begun = Instant::now();
    let ended = std::thread::scope(|scope| {
        let fetched =
            scope.spawn(|| fetch::contents(&flist, &all, &source, staging.path(), &(), &cancel));
        while server.requests() == 0 {
            std::thread::yield_now();
        }
        cancel.cancel();
        fetched.join().unwrap()
    });
    assert_eq!(ended.unwrap_err().reason.code(), "cancelled");
    // Far below the time after which a slow server is given up on.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// Stakeholders signed that an flist has one megabyte, and nodes fetched a hundred.
#[test]
fn nothing_is_fetched_of_an_flist_that_is_larger_than_agreed() {
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), Fault::None);
    let all: Vec<u32> = (0..).take(flist.body().contents.len()).collect();
    let fetch = |bytes_max| {
        let source = Source::new([&server.url]).unwrap().at_most(bytes_max);
        fetch::contents(&flist, &all, &source, staging.path(), &(), &Cancel::default())
    };
    let size = flist.body().content_bytes();
    assert_eq!(fetch(size - 1).unwrap_err().reason.code(), "flist_too_large");
    assert_eq!(server.requests(), 0);
    fetch(size).unwrap();
    assert_staged(&flist, staging.path());
}

#[test]
fn every_failure_has_its_code_and_names_file_and_place() {
    let (root, flist) = published();
    let empty = tempfile::tempdir().unwrap();
    let rows = [
        (empty.path(), Fault::None, "content_missing"),
        (root.path(), Fault::AnswersError, "source_unreachable"),
        (root.path(), Fault::CorruptsPacks, "content_mismatch"),
    ];
    for (root, fault, code) in rows {
        let staging = tempfile::tempdir().unwrap();
        let server = Server::start(root, fault);
        let error = fetch_all(&flist, &[&server.url], staging.path()).unwrap_err();
        assert_eq!(error.reason.code(), code, "{error:?}");
        let text = error.to_string();
        assert!(text.contains("/small") || text.contains("/big"), "{text}");
        assert!(text.contains(&format!("{}/packs/", server.url)), "{text}");
    }
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), Fault::ClosesEarly);
    let error = fetch_all(&flist, &[&server.url], staging.path()).unwrap_err();
    let codes = ["content_truncated", "source_unreachable"];
    assert!(codes.contains(&error.reason.code()), "{error:?}");
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fetch_all(&flist, &[&format!("http://{free}")], staging.path()).unwrap_err();
    assert_eq!(error.reason.code(), "source_unreachable");
    // A directory that is shorter than it says.
    for pack in fs::read_dir(root.path().join("packs")).unwrap() {
        let pack = fs::File::options().write(true).open(pack.unwrap().path()).unwrap();
        pack.set_len(100).unwrap();
    }
    let place = root.path().to_str().unwrap();
    let error = fetch_all(&flist, &[place], staging.path()).unwrap_err();
    assert_eq!(error.reason.code(), "content_truncated");
    // A staging directory that does not exist.
    let (root, flist) = published();
    let place = root.path().to_str().unwrap();
    let error = fetch_all(&flist, &[place], Path::new("/nowhere")).unwrap_err();
    assert_eq!(error.reason.code(), "store_failed");
}

#[test]
fn another_place_helps_out() {
    let (root, flist) = published();
    let empty = tempfile::tempdir().unwrap();
    for (bad_root, fault) in [
        (empty.path(), Fault::None),
        (root.path(), Fault::AnswersError),
        (root.path(), Fault::CorruptsPacks),
        (root.path(), Fault::ClosesEarly),
    ] {
        let staging = tempfile::tempdir().unwrap();
        let bad = Server::start(bad_root, fault);
        let good = Server::start(root.path(), Fault::None);
        fetch_all(&flist, &[&bad.url, &good.url], staging.path()).unwrap();
        assert_staged(&flist, staging.path());
    }
}

#[test]
fn a_fetch_goes_on_where_it_was_stopped() {
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let dying = Server::start(root.path(), Fault::DiesAfter(1));
    fetch_all(&flist, &[&dying.url], staging.path()).unwrap_err();
    let whole: u64 = flist.body().packs.iter().map(|pack| pack.size).sum();
    let first = dying.bytes.load(Ordering::Relaxed);
    assert!(first > 0 && first < whole);
    let good = Server::start(root.path(), Fault::None);
    fetch_all(&flist, &[&good.url], staging.path()).unwrap();
    assert_staged(&flist, staging.path());
    let second = good.bytes.load(Ordering::Relaxed);
    // Gaps between chunks are read over, so a little may come twice.
    assert!(first + second < whole + (128 << 10), "{first} and {second} of {whole} bytes");
}

#[test]
fn a_staged_byte_that_changed_is_fetched_again() {
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let place = root.path().to_str().unwrap();
    fetch_all(&flist, &[place], staging.path()).unwrap();
    let big = flist.body().contents.iter().max_by_key(|content| content.size).unwrap();
    let path = staging.path().join(hex::encode(big.digest));
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 << 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let server = Server::start(root.path(), Fault::None);
    fetch_all(&flist, &[&server.url], staging.path()).unwrap();
    assert_eq!(server.requests(), 1);
    assert_staged(&flist, staging.path());
}

#[test]
fn progress_adds_up_and_a_cancelled_fetch_ends() {
    #[derive(Default)]
    struct Sum(AtomicU64, AtomicU64);
    impl Progress for Sum {
        fn begin(&self, stage: Stage, total: u64) {
            assert_eq!(stage, Stage::Fetching);
            self.0.store(total, Ordering::Relaxed);
        }
        fn advance(&self, bytes: u64) {
            self.1.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    let (root, flist) = published();
    let staging = tempfile::tempdir().unwrap();
    let source = Source::new([root.path().to_str().unwrap()]).unwrap();
    let all: Vec<u32> = (0..).take(flist.body().contents.len()).collect();
    let (sum, cancel) = (Sum::default(), Cancel::default());
    cancel.cancel();
    let stopped = fetch::contents(&flist, &all, &source, staging.path(), &(), &cancel);
    assert_eq!(stopped.unwrap_err().reason.code(), "cancelled");
    fetch::contents(&flist, &all, &source, staging.path(), &sum, &Cancel::default()).unwrap();
    assert_eq!(sum.1.into_inner(), flist.body().content_bytes());
    assert_eq!(sum.0.into_inner(), flist.body().content_bytes());
}

#[test]
fn a_body_that_is_not_the_one_asked_for_is_refused() {
    let (root, flist) = published();
    let other = FlistId([9; 32]);
    let flists = root.path().join("flists");
    fs::copy(flists.join(flist.identity().to_string()), flists.join(other.to_string())).unwrap();
    let source = Source::new([root.path().to_str().unwrap()]).unwrap();
    let error = fetch::body(&source, other, &Cancel::default()).unwrap_err();
    assert_eq!(error.reason.code(), "content_mismatch");
    fs::write(flists.join(FlistId::of(b"junk").to_string()), b"junk").unwrap();
    let error = fetch::body(&source, FlistId::of(b"junk"), &Cancel::default()).unwrap_err();
    assert_eq!(error.reason.code(), "flist_refused");
}

#[test]
fn sources_are_urls_and_absolute_paths() {
    for good in ["http://host/path/", "/path", "file:///path"] {
        Source::new([good]).unwrap();
    }
    for bad in ["relative/path", "ftp://host", "", "http//host"] {
        assert!(Source::new([bad]).is_err(), "{bad}");
    }
    assert!(Source::new([""; 0]).is_err());
}

#[test]
fn a_release_is_taken_when_it_is_what_is_demanded_and_has_a_code_when_it_is_not() {
    let place = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let key = SigningKey::from_seed(&[1; 32]);
    let flist = FlistId([7; 32]);
    let at = Timestamp::from_seconds;
    let release = Release {
        flist,
        publisher: key.public(),
        name: "web".into(),
        revision: 3,
        not_after: Some(at(1_000)),
    };
    let record = release.seal(&key).unwrap();
    let put = |place: &Path, publisher: &SigningKey, bytes: &[u8]| {
        let folder = place.join("releases").join(flist.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(publisher.public().to_string()), bytes).unwrap();
    };
    let get = |places: &[&Path], key: &SigningKey, revision, now| {
        let source = Source::new(places.iter().map(|one| one.to_str().unwrap())).unwrap();
        let demanded = Publisher { key: key.public(), revision };
        let got = fetch::release(&source, flist, &demanded, at(now), &Cancel::default());
        got.map_err(|error| error.reason.code())
    };
    let stranger = SigningKey::from_seed(&[2; 32]);
    assert_eq!(get(&[place.path()], &key, 1, 0), Err("publisher_unsigned"));
    put(place.path(), &key, &record);
    for (revision, now) in [(1, 0), (3, 1_000)] {
        assert_eq!(get(&[place.path()], &key, revision, now), Ok(record.clone()));
    }
    assert_eq!(get(&[place.path()], &key, 4, 0), Err("publisher_revision"));
    assert_eq!(get(&[place.path()], &key, 3, 1_001), Err("publisher_expired"));
    assert_eq!(get(&[place.path()], &stranger, 1, 0), Err("publisher_unsigned"));
    // A place that gives one publisher's word for another's.
    put(place.path(), &stranger, &record);
    assert_eq!(get(&[place.path()], &stranger, 1, 0), Err("publisher_invalid"));
    let elsewhere = Release { flist: FlistId([8; 32]), ..release.clone() }.seal(&key).unwrap();
    for bad in [&elsewhere[..], b"", b"{}", &[b' '; 5000]] {
        put(other.path(), &key, bad);
        assert_eq!(get(&[other.path()], &key, 1, 0), Err("publisher_invalid"));
        // Another place has it.
        assert_eq!(get(&[other.path(), place.path()], &key, 1, 0), Ok(record.clone()));
    }
    // Whatever the order of places, what is nearest to right is told.
    let nothing = tempfile::tempdir().unwrap();
    put(other.path(), &key, b"{}");
    let old = tempfile::tempdir().unwrap();
    put(old.path(), &key, &Release { revision: 2, ..release.clone() }.seal(&key).unwrap());
    for (far, near, code) in [
        (nothing.path(), other.path(), "publisher_invalid"),
        (other.path(), old.path(), "publisher_revision"),
        (old.path(), place.path(), "publisher_expired"),
        (nothing.path(), place.path(), "publisher_expired"),
    ] {
        for places in [[far, near], [near, far]] {
            assert_eq!(get(&places, &key, 3, 1_001), Err(code));
        }
    }
    // It was signed again.
    let longer = Release { not_after: None, ..release }.seal(&key).unwrap();
    put(other.path(), &key, &longer);
    assert_eq!(get(&[place.path(), other.path()], &key, 3, 1_001), Ok(longer));
}
