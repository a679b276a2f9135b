//! `3bot flist push` and `gc` on a bucket, against a server that speaks S3 and checks signatures, and what a node
//! reads of it over plain HTTP.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::World;
use futures_util::future::BoxFuture;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use threebot::{
    content,
    gc::{Found, Item, Keep},
    place::{Bucket, Place},
};

const KEY: &str = "AKIDTEST";
const SECRET: &str = "hidden-secret";
const PLACE: &str = "s3://bucket/grid/content";

/// A server over a directory, for as long as the test runs.
struct Server {
    url: String,
    /// What is below the prefix.
    place: PathBuf,
    /// Requests that change something, as they came.
    writes: Arc<AtomicUsize>,
    tricks: Arc<Tricks>,
}

/// What a server does beside what it should.
#[derive(Default)]
struct Tricks {
    /// Answers to come that say to try again.
    busy: AtomicUsize,
    /// What a copy is told, without one being made.
    copies: Mutex<Option<(u16, &'static str)>>,
    /// Requests that came with a session token.
    tokens: AtomicUsize,
}

impl Tricks {
    fn answer(&self, asked: &Request<Incoming>) -> Option<s3s::HttpResponse> {
        let has = |name: &str| usize::from(asked.headers().contains_key(name));
        self.tokens.fetch_add(has("x-amz-security-token"), Ordering::Relaxed);
        let copies = *self.copies.lock().unwrap();
        let less = |left: usize| left.checked_sub(1);
        let (status, body) = match copies.filter(|_| has("x-amz-copy-source") > 0) {
            Some(answer) => answer,
            None if self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() => {
                (503, "<Error><Code>SlowDown</Code></Error>")
            }
            None => return None,
        };
        let answer = s3s::HttpResponse::new(s3s::Body::from(body.to_owned()));
        let (mut head, body) = answer.into_parts();
        head.status = status.try_into().unwrap();
        Some(s3s::HttpResponse::from_parts(head, body))
    }
}

/// Everybody reads, as in a bucket from which nodes fetch; whoever has the key does the rest.
struct Public(Arc<AtomicUsize>);

impl S3Access for Public {
    fn check<'a, 'b, 'c, 'd>(
        &'a self,
        asked: &'b mut S3AccessContext<'c>,
    ) -> BoxFuture<'d, S3Result<()>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        let name = asked.s3_op().name();
        if !name.starts_with("Get") && !name.starts_with("Head") && !name.starts_with("List") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        let may = asked.credentials().is_some() || name == "GetObject";
        Box::pin(async move { if may { Ok(()) } else { Err(s3s::s3_error!(AccessDenied)) } })
    }
}

impl Server {
    async fn start(root: &Path) -> Self {
        fs::create_dir_all(root.join("bucket")).unwrap();
        let writes = Arc::new(AtomicUsize::new(0));
        let mut service =
            s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        service.set_auth(s3s::auth::SimpleAuth::from_single(KEY, SECRET));
        service.set_access(Public(Arc::clone(&writes)));
        let service = service.build();
        let tricks = Arc::new(Tricks::default());
        let tricked = Arc::clone(&tricks);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, tricks) = (service.clone(), Arc::clone(&tricked));
                let service = service_fn(move |asked| {
                    let (service, answer) = (service.clone(), tricks.answer(&asked));
                    async move {
                        match answer {
                            Some(answer) => Ok(answer),
                            None => hyper::service::Service::call(&service, asked).await,
                        }
                    }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(serving);
            }
        });
        Self { url, place: root.join("bucket/grid/content"), writes, tricks }
    }

    /// The same bucket without the command line.
    fn bucket(&self) -> Bucket {
        let variables = [
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ];
        Bucket::open(PLACE, variables.map(|(name, value)| (name.into(), value.into()))).unwrap()
    }

    fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// Names below the prefix.
    fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.place.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&self.place).unwrap().to_str().unwrap();
                    found.insert(name.to_owned());
                }
            }
        }
        found
    }

    /// As if all had come so long ago.
    fn age(&self, hours: u64) {
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        for file in self.files() {
            let file = File::options().write(true).open(self.place.join(file)).unwrap();
            file.set_modified(then).unwrap();
        }
    }

    fn young(&self) -> BTreeSet<String> {
        let begin = SystemTime::now() - Duration::from_secs(3600);
        let mut files = self.files();
        files.retain(|name| {
            fs::metadata(self.place.join(name)).unwrap().modified().unwrap() > begin
        });
        files
    }

    /// Runs `3bot` with more variables in its environment than the usual ones, and without those that are empty.
    async fn run(
        &self,
        world: &World,
        more: &[(&str, &str)],
        words: &[&str],
    ) -> (i32, Value, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_3bot"));
        command.args(["--json", "--network", common::NETWORK, "--registry", &world.url()]);
        command.arg("--home").arg(world.home.path()).args(words);
        command.env_clear().stdin(Stdio::null());
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.envs(more.iter().copied());
        let run = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let answer = serde_json::from_slice(&run.stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8(run.stderr).unwrap();
        let stdout = String::from_utf8_lossy(&run.stdout);
        for shown in [&stderr, &*stdout] {
            assert!(!shown.contains("hidden") && !shown.contains(KEY), "{shown}");
        }
        (run.status.code().unwrap(), answer, stderr)
    }

    async fn done(&self, world: &World, words: &[&str]) -> Value {
        let (code, answer, stderr) = self.run(world, &[], words).await;
        assert_eq!(code, 0, "{words:?}: {stderr}");
        answer
    }

    /// What a push has sent and what it has found.
    async fn push(&self, world: &World, dir: &Path) -> (u64, u64) {
        let words = ["flist", "push", dir.to_str().unwrap(), "--to", PLACE];
        let answer = self.done(world, &words).await;
        (answer["sent"].as_u64().unwrap(), answer["skipped"].as_u64().unwrap())
    }
}

/// One flist of one file, with one pack, in a directory of its own.
async fn build(server: &Server, world: &World, name: &str) -> (PathBuf, String) {
    let (tree, out) = (world.home.path().join(name), world.home.path().join(format!("{name}-out")));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("program"), name.repeat(50_000)).unwrap();
    let words = ["flist", "build", tree.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let built = server.done(world, &words).await;
    (out, built["flist"].as_str().unwrap().to_owned())
}

async fn sign(server: &Server, world: &World, dir: &Path, revision: &str) {
    let dir = dir.to_str().unwrap();
    let words = ["flist", "sign", dir, "--as", "owner", "--name", "x", "--revision", revision];
    server.done(world, &words).await;
}

/// Reads all of an flist over plain HTTP and without a key, as nodes do.
async fn read_as_a_node(server: &Server, flist: &str) -> Result<(), String> {
    let (url, id) = (format!("{}/bucket/grid/content", server.url), flist.parse().unwrap());
    let read = tokio::task::spawn_blocking(move || {
        let source = flist::Source::new([url]).unwrap();
        flist::create::verify_published(&source, id, &()).map(drop)
    });
    read.await.unwrap().map_err(|error| threebot::error::chain(&error))
}

/// The one pack of a place with one flist.
fn pack(dir: &Path) -> PathBuf {
    let packs: Vec<_> = fs::read_dir(dir.join("packs")).unwrap().collect();
    assert_eq!(packs.len(), 1);
    packs.into_iter().next().unwrap().unwrap().path()
}

#[tokio::test]
async fn a_bucket_gets_what_it_has_not_and_nodes_read_it() {
    let world = World::new().await;
    let server = Server::start(&world.home.path().join("s3")).await;
    let (dir, flist) = build(&server, &world, "one").await;
    sign(&server, &world, &dir, "3").await;
    assert!(read_as_a_node(&server, &flist).await.is_err(), "nothing is there");

    assert_eq!(server.push(&world, &dir).await, (3, 0));
    assert_eq!(server.files().len(), 3);
    read_as_a_node(&server, &flist).await.unwrap();
    let writes = server.writes();
    assert_eq!(server.push(&world, &dir).await, (0, 3));
    assert_eq!(server.writes(), writes, "who pushes again changes nothing");

    // Stopped before the end: only the rest is sent, and so is what is there in another size.
    let body = server.place.join("flists").join(&flist);
    fs::remove_file(&body).unwrap();
    let pack = pack(&server.place);
    File::options().write(true).open(&pack).unwrap().set_len(9).unwrap();
    assert_eq!(server.push(&world, &dir).await, (2, 1));
    read_as_a_node(&server, &flist).await.unwrap();

    // A release that says no more stays; one that says more takes its place, and so does anything for what is none.
    let release =
        server.place.join(server.files().into_iter().find(|n| n.starts_with("rel")).unwrap());
    let third = fs::read(&release).unwrap();
    sign(&server, &world, &dir, "4").await;
    assert_eq!(server.push(&world, &dir).await, (1, 2));
    let fourth = fs::read(&release).unwrap();
    assert_ne!(fourth, third);
    fs::write(dir.join(release.strip_prefix(&server.place).unwrap()), &third).unwrap();
    assert_eq!(server.push(&world, &dir).await, (0, 3));
    assert_eq!(fs::read(&release).unwrap(), fourth);
    fs::write(&release, "junk").unwrap();
    assert_eq!(server.push(&world, &dir).await, (1, 2));
    assert_eq!(fs::read(&release).unwrap(), third);
}

#[tokio::test]
async fn a_file_that_is_not_what_its_name_says_is_not_sent() {
    let world = World::new().await;
    let server = Server::start(&world.home.path().join("s3")).await;
    let (dir, flist) = build(&server, &world, "one").await;
    let good = pack(&dir);
    let bytes = fs::read(&good).unwrap();
    let mut bad = bytes.clone();
    bad[7] ^= 1;
    fs::write(&good, bad).unwrap();
    let words = ["flist", "push", dir.to_str().unwrap(), "--to", PLACE];
    let (code, _, stderr) = server.run(&world, &[], &words).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("is not what its name says"), "{stderr}");
    assert_eq!(server.files(), BTreeSet::new(), "nor is the flist that needs it");
    fs::write(&good, bytes).unwrap();
    assert_eq!(server.push(&world, &dir).await, (2, 0));
    read_as_a_node(&server, &flist).await.unwrap();
}

#[tokio::test]
async fn errors_say_what_to_look_at_and_nothing_of_a_key() {
    let world = World::new().await;
    let server = Server::start(&world.home.path().join("s3")).await;
    let (dir, _) = build(&server, &world, "one").await;
    let dir = dir.to_str().unwrap();
    let push = ["flist", "push", dir, "--to", PLACE];
    let gc = ["flist", "gc", PLACE, "--keep-newer", "10d", "--delete"];
    let refused = "the store refuses the key: look at AWS_ACCESS_KEY_ID";
    let style = "AWS_VIRTUAL_HOSTED_STYLE_REQUEST";
    for (words, more, wanted, told) in [
        (&push[..], ("AWS_SECRET_ACCESS_KEY", "hidden-wrong"), 1, refused),
        (&gc[..], ("AWS_SECRET_ACCESS_KEY", "hidden-wrong"), 1, refused),
        (&push[..], ("AWS_ACCESS_KEY_ID", "AKIDOTHER"), 1, refused),
        (
            &push[..],
            ("AWS_ACCESS_KEY_ID", ""),
            64,
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        (&push[..], ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), 1, "Connection refused"),
        (
            &push[..],
            ("AWS_ENDPOINT_URL", "http://me:hidden@s3.test"),
            64,
            "AWS_ENDPOINT_URL is no address",
        ),
        (&push[..], (style, "true"), 64, "is no address of a server"),
        (&gc[..], (style, "hidden"), 64, "is true or false"),
        (&["flist", "gc", "s3://other/x", "--keep-newer", "10d"], ("HOME", "/"), 1, "NoSuchBucket"),
        (&["flist", "push", dir, "--to", "s3://bucket//x"], ("HOME", "/"), 64, "names no bucket"),
        (&gc[..], ("HOME", "/"), 1, "is the prefix right?"),
    ] {
        let (code, _, stderr) = server.run(&world, &[more], words).await;
        assert_eq!(code, wanted, "{words:?} {more:?}: {stderr}");
        assert!(stderr.contains(told), "{words:?} {more:?}: {stderr}");
        assert_eq!(server.files(), BTreeSet::new());
    }
    assert_eq!(server.tricks.tokens.load(Ordering::Relaxed), 0);
    let token = ("AWS_SESSION_TOKEN", "hidden-token");
    assert_eq!(server.run(&world, &[token], &push).await.0, 0);
    assert!(server.tricks.tokens.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_bucket_is_cleared_of_what_nobody_needs_and_of_nothing_else() {
    let world = World::new().await;
    let server = Server::start(&world.home.path().join("s3")).await;
    let (old_dir, old) = build(&server, &world, "one").await;
    sign(&server, &world, &old_dir, "1").await;
    server.push(&world, &old_dir).await;
    let of_old = server.files();
    let (dir, kept) = build(&server, &world, "two").await;
    server.push(&world, &dir).await;
    let of_kept: BTreeSet<_> = server.files().difference(&of_old).cloned().collect();
    let foreign = ["index.html", "packs/README", "flists/x/y"].map(str::to_owned);
    for name in &foreign {
        fs::create_dir_all(server.place.join(name).parent().unwrap()).unwrap();
        fs::write(server.place.join(name), "x").unwrap();
    }
    let all = server.files();
    // Another place, whose name begins with that of this one.
    let sibling = server.place.with_file_name("content2").join("flists");
    fs::create_dir_all(&sibling).unwrap();
    fs::copy(server.place.join("flists").join(&old), sibling.join(&old)).unwrap();
    let long_ago = SystemTime::now() - Duration::from_hours(30);
    let other = File::options().write(true).open(sibling.join(&old)).unwrap();
    other.set_modified(long_ago).unwrap();
    let gc = ["flist", "gc", PLACE, "--keep", &kept];
    let delete = [&gc[..], &["--delete"]].concat();
    let names = async |words: &[&str]| {
        let answer = server.done(&world, words).await;
        let names = answer["names"].as_array().unwrap().clone();
        names.into_iter().map(|name| name.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };

    // What is young stays, with all that it needs.
    assert_eq!(names(&delete).await, BTreeSet::new());
    server.age(30);
    let newer = ["flist", "gc", PLACE, "--keep-newer", "10d", "--delete"];
    assert_eq!(names(&newer).await, BTreeSet::new());
    // In doubt all stays.
    let missing = "0".repeat(64);
    let (code, _, stderr) =
        server.run(&world, &[], &[&delete[..], &["--keep", &missing]].concat()).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("is to be kept and is not there"), "{stderr}");
    let body = server.place.join("flists").join(&kept);
    let good = fs::read(&body).unwrap();
    fs::write(&body, "junk").unwrap();
    server.age(30);
    let (code, _, stderr) = server.run(&world, &[], &delete).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("which stays, cannot be read"), "{stderr}");
    fs::write(&body, good).unwrap();
    server.age(30);
    assert_eq!(server.files(), all);

    assert_eq!(names(&gc).await, of_old, "it is only shown");
    assert_eq!(server.files(), all);
    assert_eq!(names(&delete).await, of_old);
    assert_eq!(server.files(), of_kept.into_iter().chain(foreign).collect());
    read_as_a_node(&server, &kept).await.unwrap();
    assert!(read_as_a_node(&server, &old).await.is_err());
    assert!(sibling.join(&old).exists());

    // More names than a server lists at a time.
    let many: BTreeSet<String> = (0..1001).map(|n| format!("packs/{n:064x}")).collect();
    for name in &many {
        fs::write(server.place.join(name), "x").unwrap();
    }
    server.age(30);
    assert_eq!(names(&gc).await, many);
}

/// A server that gives everybody one answer.
fn server_that_says(head: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let lines = BufReader::new(&socket).lines().map(Result::unwrap);
            assert!(lines.take_while(|line| !line.is_empty()).count() > 0);
            socket.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

/// A server told all of the request that it had refused, with the session token in it.
#[tokio::test]
async fn a_server_leads_nobody_elsewhere_and_its_errors_are_cut_to_what_helps() {
    let world = World::new().await;
    let server = Server::start(&world.home.path().join("s3")).await;
    let refusal = "<Error><Code>SignatureDoesNotMatch</Code><Message>Look at\nit: hidden, AKIDTEST.</Message>\
                   <CanonicalRequest>x-amz-security-token:hidden</CanonicalRequest></Error>";
    let moved = "301 Moved\r\nx-amz-bucket-region: eu-west-3\r\nlocation: http://127.0.0.1:1/";
    let nothing = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let endless = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x\
                   </NextContinuationToken></ListBucketResult>";
    let ok = |hours: u64| {
        let then = SystemTime::now() - Duration::from_hours(hours);
        format!("200 OK\r\ndate: {}", httpdate::fmt_http_date(then))
    };
    for (url, told) in [
        (server_that_says("403 Forbidden", refusal), "SignatureDoesNotMatch: Look at it: …, …."),
        (server_that_says("400 Bad Request", refusal), "SignatureDoesNotMatch: Look at it: …, …."),
        (server_that_says(moved, ""), "(status 301, region eu-west-3): set AWS_REGION"),
        (server_that_says(&ok(0), "<html>hello</html>"), "is no listing"),
        (server_that_says(&ok(0), endless), "is no listing"),
        (server_that_says(&ok(0), nothing), "is the prefix right?"),
        (server_that_says(&ok(2), nothing), "differ by more than a quarter of an hour"),
    ] {
        let gc = ["flist", "gc", PLACE, "--keep-newer", "10d"];
        let more = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_SESSION_TOKEN", "hidden")];
        let (code, _, stderr) = server.run(&world, &more, &gc).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
}

/// Who pushed what was there already found it cleared up a moment later.
#[tokio::test]
async fn what_is_pushed_again_while_somebody_clears_up_stays() {
    let world = World::new().await;
    let server = Server::start(&world.home.path().join("s3")).await;
    let (dir, flist) = build(&server, &world, "one").await;
    sign(&server, &world, &dir, "1").await;
    assert_eq!(server.push(&world, &dir).await, (3, 0));
    server.age(30);
    assert_eq!(server.young(), BTreeSet::new());

    // Somebody has listed what is old, and has removed nothing yet.
    let place = Place::Bucket(Box::new(server.bucket()));
    let now = common::now();
    let keep = Keep { flists: BTreeSet::new(), after: None, grace: now.plus(-24 * 3600) };
    let idle = place.idle(&keep).await.unwrap();
    assert_eq!(idle.len(), 3);
    let read = fs::read(pack(&server.place)).unwrap();
    assert_eq!(server.push(&world, &dir).await, (0, 3));
    assert_eq!(server.young(), server.files(), "without a byte sent, all has a new age");
    assert_eq!(fs::read(pack(&server.place)).unwrap(), read);
    for one in &idle {
        assert!(!place.remove(one).await.unwrap(), "{one:?}");
    }
    read_as_a_node(&server, &flist).await.unwrap();
    assert_eq!(place.idle(&keep).await.unwrap(), []);

    // What went after it was found is sent again.
    let files = content::uploads(&dir, &[flist.parse().unwrap()]).unwrap();
    let bucket = server.bucket();
    for name in server.files() {
        let gone = || fs::remove_file(server.place.join(&name)).unwrap();
        let sent = bucket.push(&files, &common::now, &AfterThird::new(gone)).await.unwrap();
        assert_eq!((sent.files, sent.skipped), (1, 3), "{name}");
        read_as_a_node(&server, &flist).await.unwrap();
    }
    assert_eq!(server.files().len(), 3);

    // A push that lasts for hours: what was young at its beginning is not at its end.
    let is_late = AtomicBool::new(false);
    let clock = || now.plus(if is_late.load(Ordering::Relaxed) { 0 } else { -3 * 3600 });
    let hours = AfterThird::new(|| {
        server.age(3);
        is_late.store(true, Ordering::Relaxed);
    });
    bucket.push(&files, &clock, &hours).await.unwrap();
    assert_eq!(server.young(), server.files());

    // As nobody pushes, what is old goes; and it goes once.
    server.age(30);
    let idle = place.idle(&keep).await.unwrap();
    assert!(matches!(idle[0].item, Item::Body(_)), "names go before what they name");
    for one in &idle {
        let renewed = Found { since: one.since.plus(-1), ..*one };
        assert!(!place.remove(&renewed).await.unwrap());
        assert!(place.remove(one).await.unwrap());
        assert!(!place.remove(one).await.unwrap());
    }
    assert_eq!(server.files(), BTreeSet::new());
}

/// Something happens when three files are there, and before the last look at them.
struct AfterThird<F>(AtomicUsize, F);

impl<F> AfterThird<F> {
    fn new(what: F) -> Self {
        Self(AtomicUsize::new(0), what)
    }
}

impl<F: Fn() + Send + Sync> flist::Progress for AfterThird<F> {
    fn begin(&self, _: flist::Stage, _: u64) {}

    fn advance(&self, _: u64) {
        if self.0.fetch_add(1, Ordering::Relaxed) == 2 {
            self.1();
        }
    }
}

#[tokio::test]
async fn where_a_copy_gives_no_new_age_what_is_there_is_sent_again() {
    let world = World::new().await;
    let server = Server::start(&world.home.path().join("s3")).await;
    let (dir, flist) = build(&server, &world, "one").await;
    sign(&server, &world, &dir, "1").await;
    let folder = Path::new("releases").join(&flist);
    let publisher = fs::read_dir(dir.join(&folder)).unwrap().next().unwrap().unwrap();
    let release = folder.join(publisher.file_name());
    let first = fs::read(dir.join(&release)).unwrap();
    sign(&server, &world, &dir, "2").await;
    let second = fs::read(dir.join(&release)).unwrap();
    // A server that has much to do is asked again.
    server.tricks.busy.store(2, Ordering::Relaxed);
    assert_eq!(server.push(&world, &dir).await, (3, 0));
    assert_eq!(server.tricks.busy.load(Ordering::Relaxed), 0);
    // Who has the earlier release must not take back the later one.
    fs::write(dir.join(&release), first).unwrap();
    let done = "<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>";
    let failed = "<Error><Code>InvalidRequest</Code><Message>no</Message></Error>";
    for answer in [(403, failed), (200, failed), (200, done)] {
        server.age(30);
        *server.tricks.copies.lock().unwrap() = Some(answer);
        assert_eq!(server.push(&world, &dir).await, (3, 0), "{answer:?}");
        assert_eq!(server.young(), server.files(), "{answer:?}");
        assert_eq!(fs::read(server.place.join(&release)).unwrap(), second);
        read_as_a_node(&server, &flist).await.unwrap();
    }
}
