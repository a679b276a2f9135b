//! Who sends what where: on real sockets, with a netd and sinks of our own.

use super::*;
use crate::{book::Book, connection::tests::free_socket, reach::THREADS_MAX};
use ipc::Method as _;
use node_api::{
    init::{Done, Line},
    logd::Source,
    netd::Socket,
};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{RwLock, mpsc},
    thread,
};
use tokio::sync::oneshot;
use tokio_rustls::rustls::RootCertStore;

/// Nothing here takes a tenth of it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

fn wanted(urls: &[&str], id: &str) -> logd::Send {
    let logs = urls.iter().map(|url| (*url).to_owned()).collect();
    let (contract, workload) = ("c".into(), "w".into());
    let source = Source { id: id.into(), contract, workload, logs, stats: vec![] };
    logd::Send { node: "n".into(), sources: vec![source], ..logd::Send::default() }
}

#[test]
fn jobs_are_sorted_and_bounded() {
    let some = jobs(wanted(&["redis://b/x", "redis://a/x", "redis://b/x"], "c-1")).unwrap();
    assert_eq!(
        some.iter().map(|job| &*job.url).collect::<Vec<_>>(),
        ["redis://a/x", "redis://b/x"]
    );
    let urls: Vec<String> = (0..=SINKS_MAX).map(|number| format!("redis://h/{number}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    assert_eq!(jobs(wanted(&urls[1..], "c-1")).unwrap().len(), SINKS_MAX);
    assert_eq!(jobs(wanted(&urls, "c-1")).unwrap_err().name, "TooMany");
    let mut both = wanted(&urls[1..], "c-1");
    both.sources[0].stats = vec!["redis://h/0".into()];
    assert_eq!(jobs(both).unwrap_err().name, "TooMany");
    let links = ["zc2", "../..", "", "ZC3", "0123456789abcdef"];
    let links = (0..).zip(links).map(|(id, link): (u8, _)| (id.to_string(), link.to_owned()));
    let known = super::links(&logd::Send { links: links.collect(), ..logd::Send::default() });
    assert_eq!(known, BTreeMap::from([("0".to_owned(), "zc2".to_owned())]));
    for id in ["", "..", "a/b", "A"] {
        assert_eq!(jobs(wanted(&[], id)).unwrap_err().name, "BadId", "{id}");
    }
}

/// A node with books, but sockets that stand nowhere else than here.
pub(crate) struct Node {
    directory: tempfile::TempDir,
    /// Names under `dead.example` are answered for when nobody writes here.
    gate: Arc<RwLock<()>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let netd = ipc::listen(&directory.path().join("netd")).unwrap();
        thread::spawn(move || {
            ipc::serve(&netd, |call| match call.method() {
                Socket::NAME => call.answer_with_fds(|Socket { protocol, .. }, _| {
                    Ok::<_, Failure>((Done {}, vec![free_socket(protocol)]))
                }),
                _ => call.unknown(),
            })
        });
        Self { directory, gate: Arc::default() }
    }

    pub(crate) fn reach(&self) -> Arc<Reach> {
        let gate = Arc::clone(&self.gate);
        let resolve = move |host: &str, port: u16| {
            if host.ends_with("dead.example") {
                drop(gate.read());
                return Err(io::Error::other("no answer"));
            }
            Ok(vec![(Ipv4Addr::LOCALHOST, port).into()])
        };
        let netd = self.directory.path().join("netd");
        Arc::new(Reach::by(&netd, Arc::new(resolve), RootCertStore::empty()))
    }

    fn book(&self, id: &str) -> PathBuf {
        self.directory.path().join(id)
    }

    /// Adds lines up to number `last`, and gives the heads that are shown then.
    fn say(&self, id: &str, last: u64) -> Heads {
        let line = |number| Line { number, time_ms: 1, n_dropped: 0, text: "x".into() };
        let mut book = Book::open(&self.book(id)).unwrap();
        let lines: Vec<Line> = (book.last() + 1..=last).map(line).collect();
        book.append(7, &lines, 1 << 20).unwrap();
        Arc::new(BTreeMap::from([(id.to_owned(), last)]))
    }

    /// Sends in the background.
    fn send(&self, urls: &[&str], heads: Heads) -> Sending {
        self.send_by(Notes::start().unwrap(), urls, heads)
    }

    fn send_by(&self, notes: Notes, urls: &[&str], heads: Heads) -> Sending {
        let (shown, heads) = watch::channel(heads);
        let (jobs_in, jobs_out) = watch::channel(None);
        let (stop, stopped) = oneshot::channel::<()>();
        let (directory, reach) = (self.directory.path().to_owned(), self.reach());
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().max_blocking_threads(THREADS_MAX).build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = run(&directory, &reach, &notes, jobs_out, heads) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        jobs_in.send_replace(jobs(wanted(urls, "c-1")).ok());
        Sending { shown, jobs: jobs_in, stop: Some(stop), thread: Some(thread) }
    }
}

/// Ends when it is dropped, as if it was killed.
struct Sending {
    shown: watch::Sender<Heads>,
    jobs: watch::Sender<Option<Vec<Job>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(thread::JoinHandle::join);
    }
}

/// What a sink does with the first connections, one after the other; then it takes everything.
#[derive(Clone, Copy)]
enum Mood {
    HangsUp,
    NeverAnswers,
}

/// A Redis: its URL, and the numbers that it has answered for.
fn sink(moods: &'static [Mood], host: &str) -> (String, mpsc::Receiver<u64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("redis://{host}:{}/c", listener.local_addr().unwrap().port());
    let (heard, numbers) = mpsc::channel();
    thread::spawn(move || {
        let (mut moods, mut kept) = (moods.iter(), Vec::new());
        for stream in listener.incoming().map_while(Result::ok) {
            match moods.next() {
                Some(Mood::HangsUp) => {}
                Some(Mood::NeverAnswers) => kept.push(stream),
                None => drop(take(&stream, &heard)),
            }
        }
    });
    (url, numbers)
}

fn take(stream: &TcpStream, heard: &mpsc::Sender<u64>) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let number = line.split_once("\"number\":").and_then(|(_, rest)| rest.split_once(','));
        if let Some((number, _)) = number {
            let mut writer = stream;
            writer.write_all(b":1\r\n")?;
            heard.send(number.parse().unwrap()).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// The numbers that come until `last` is among them.
fn until(numbers: &mpsc::Receiver<u64>, last: u64) -> Vec<u64> {
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        heard.push(numbers.recv_timeout(LIMIT).unwrap());
    }
    heard
}

fn all(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

#[test]
fn a_sink_that_is_stuck_holds_up_no_other() {
    let node = Node::new();
    let heads = node.say("c-1", 500);
    let (stuck, nothing) = sink(&[Mood::NeverAnswers], "127.0.0.1");
    let (healthy, numbers) = sink(&[], "127.0.0.1");
    let sending = node.send(&[&stuck, &healthy], heads);
    assert_eq!(until(&numbers, 500), all(500), "in order, over many batches");
    sending.shown.send_replace(node.say("c-1", 501));
    assert_eq!(until(&numbers, 501), [501]);
    assert!(nothing.try_recv().is_err());
}

#[test]
fn a_sink_that_hung_up_hears_everything_when_it_takes_lines_again() {
    let node = Node::new();
    let (url, numbers) = sink(&[Mood::HangsUp, Mood::HangsUp], "logs.example");
    let start = Instant::now();
    let _sending = node.send(&[&url], node.say("c-1", 300));
    assert_eq!(until(&numbers, 300), all(300));
    assert!(start.elapsed() >= PAUSE + 2 * PAUSE, "it is not tried again at once");
}

#[test]
fn who_was_killed_goes_on_where_the_sink_was() {
    let node = Node::new();
    let (url, numbers) = sink(&[], "127.0.0.1");
    let sending = node.send(&[&url], node.say("c-1", 20));
    assert_eq!(until(&numbers, 20), all(20));
    let position = position::path(&node.book("c-1"), &url);
    let start = Instant::now();
    while position::load(&position) < 20 {
        assert!(start.elapsed() < LIMIT, "it is not written down how far the sink is");
        thread::yield_now();
    }
    drop(sending);
    let _sending = node.send(&[&url], node.say("c-1", 23));
    assert_eq!(until(&numbers, 23), [21, 22, 23]);
}

/// While btrfs committed, nobody heard anything.
#[test]
fn a_disk_that_takes_no_positions_holds_up_no_sink() {
    let node = Node::new();
    let (url, numbers) = sink(&[], "127.0.0.1");
    let (notes, waiting) = position::tests::stuck();
    let sending = node.send_by(notes, &[&url], node.say("c-1", 20));
    assert_eq!(until(&numbers, 20), all(20));
    // Until a position was due, which found no room.
    let (start, mut last) = (Instant::now(), 20);
    while start.elapsed() < STORE_INTERVAL + STORE_INTERVAL / 4 {
        last += 1;
        sending.shown.send_replace(node.say("c-1", last));
        assert_eq!(until(&numbers, last), [last]);
    }
    drop(sending);
    assert_eq!(waiting.iter().count(), 1, "what was wanted");
    assert_eq!(position::load(&position::path(&node.book("c-1"), &url)), 0);
}

/// The disk lost lines that the sink has: their numbers are given again.
#[test]
fn a_sink_that_has_more_than_the_disk_hears_what_comes() {
    let node = Node::new();
    let (url, numbers) = sink(&[], "127.0.0.1");
    let heads = node.say("c-1", 5);
    position::store(&position::path(&node.book("c-1"), &url), 50).unwrap();
    let sending = node.send(&[&url], heads);
    let mut last = 5;
    let first = loop {
        last += 1;
        sending.shown.send_replace(node.say("c-1", last));
        if let Ok(number) = numbers.recv_timeout(Duration::from_millis(100)) {
            break number;
        }
        assert!(last < 45, "nothing comes");
    };
    assert!((6..=last).contains(&first), "{first}");
}

#[test]
fn sinks_under_dead_names_hold_up_no_other_contract() {
    let node = Node::new();
    let closed = node.gate.write().unwrap();
    let (url, numbers) = sink(&[], "logs.example");
    let dead: Vec<String> = (0..100).map(|n| format!("redis://n{n}.dead.example/c")).collect();
    let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
    let heads = node.say("c-1", 10);
    let sending = node.send(&dead, Arc::clone(&heads));
    let heads = node.say("c-2", 10).iter().chain(&*heads).map(|(id, n)| (id.clone(), *n)).collect();
    sending.shown.send_replace(Arc::new(heads));
    let mut other = wanted(&[&url], "c-2");
    other.sources[0].contract = "other".into();
    let mut both = jobs(other).unwrap();
    sending.jobs.send_modify(|jobs| jobs.as_mut().unwrap().append(&mut both));
    assert_eq!(until(&numbers, 10), all(10));
    drop(closed);
}

#[test]
fn nothing_of_a_path_is_said() {
    assert_eq!(place("wss://logs.example/in?token=secret"), "logs.example:443");
}
