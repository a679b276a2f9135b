//! Samples on their way to real sockets: of now or not at all, and what is not sent is counted.

use super::*;
use crate::{
    reach::THREADS_MAX,
    send::{
        jobs,
        tests::{LIMIT, Node},
    },
};
use container::usage::Usage;
use node_api::logd::{self, Source};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
};
use tokio::sync::oneshot;

const ID: &str = "c-1";

/// Sends in the background until it is dropped.
struct Sending {
    rounds: watch::Sender<Round>,
    n_dropped: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    _jobs: watch::Sender<Option<Vec<Job>>>,
}

impl Sending {
    fn begin(node: &Node, urls: &[&str]) -> Self {
        let stats = urls.iter().map(|url| (*url).to_owned()).collect();
        let (contract, workload) = ("c".into(), "w".into());
        let source = Source { id: ID.into(), contract, workload, logs: vec![], stats };
        let wanted = logd::Send { sources: vec![source], ..logd::Send::default() };
        let (rounds, rounds_out) = watch::channel(Round::default());
        let (jobs_in, jobs_out) = watch::channel(None);
        let (stop, stopped) = oneshot::channel::<()>();
        let n_dropped = Arc::<AtomicU64>::default();
        let (reach, counted) = (node.reach(), Arc::clone(&n_dropped));
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().max_blocking_threads(THREADS_MAX).build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = run(&reach, jobs_out, rounds_out, &counted) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        jobs_in.send_replace(jobs(wanted).ok());
        Self { rounds, n_dropped, stop: Some(stop), thread: Some(thread), _jobs: jobs_in }
    }

    /// The container is sampled.
    fn sample(&self, count: u64) {
        let usage = Usage { cpu_us: count, ..Usage::default() };
        let sample = Sample { number: count + 70, count, time_ms: 1, usage, traffic: None };
        self.rounds.send_replace(Arc::new(BTreeMap::from([(ID.to_owned(), sample)])));
    }

    /// Samples until one arrives; the count of the last, and what has arrived.
    fn until_heard(&self, mut count: u64, heard: &mpsc::Receiver<Value>) -> (u64, Value) {
        let start = Instant::now();
        loop {
            count += 1;
            self.sample(count);
            if let Ok(message) = heard.recv_timeout(Duration::from_millis(50)) {
                return (count, message);
            }
            assert!(start.elapsed() < LIMIT, "nothing comes");
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(thread::JoinHandle::join);
    }
}

/// What a sink does with its first connections; then it takes everything.
#[derive(Clone, Copy)]
enum Mood {
    HangsUp,
    NeverAnswers,
}

/// A Redis: its URL, and the messages that it has answered for.
fn sink(moods: &'static [Mood]) -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("redis://127.0.0.1:{}/c", listener.local_addr().unwrap().port());
    let (heard, messages) = mpsc::channel();
    thread::spawn(move || {
        let (mut moods, mut kept) = (moods.iter(), Vec::new());
        for stream in listener.incoming().map_while(Result::ok) {
            match moods.next() {
                Some(Mood::HangsUp) => {}
                Some(Mood::NeverAnswers) => kept.push(stream),
                None => take(&stream, &heard),
            }
        }
    });
    (url, messages)
}

fn take(stream: &TcpStream, heard: &mpsc::Sender<Value>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if let Ok(message @ Value::Object(_)) = serde_json::from_str(&line) {
            let mut writer = stream;
            if writer.write_all(b":1\r\n").is_err() || heard.send(message).is_err() {
                return;
            }
        }
    }
}

fn count(message: &Value) -> u64 {
    message["stats"]["cpu_us"].as_u64().unwrap()
}

fn dropped(message: &Value) -> u64 {
    message["dropped"].as_u64().unwrap_or(0)
}

#[test]
fn a_sink_hears_each_sample_when_it_is_taken() {
    let node = Node::new();
    let (url, heard) = sink(&[]);
    let sending = Sending::begin(&node, &[&url]);
    // Of another container: nobody connects for it.
    sending.rounds.send_replace(Arc::new(BTreeMap::new()));
    let (mut last, first) = sending.until_heard(0, &heard);
    // The first was needed to know that it runs.
    assert_eq!(dropped(&first), count(&first) - 2, "{first}");
    assert_eq!(first["number"].as_u64(), Some(count(&first) + 70));
    // More may have been taken before the first was heard of.
    let mut heard_last = count(&first);
    while heard_last < last {
        let next = heard.recv_timeout(LIMIT).unwrap();
        assert_eq!(dropped(&next), count(&next) - heard_last - 1, "{next}");
        heard_last = count(&next);
    }
    for _ in 0..10 {
        last += 1;
        sending.sample(last);
        let next = heard.recv_timeout(LIMIT).unwrap();
        assert_eq!((count(&next), dropped(&next)), (last, 0), "{next}");
    }
}

#[test]
fn what_a_sink_that_was_away_has_missed_is_counted_and_not_sent() {
    let node = Node::new();
    let (url, heard) = sink(&[Mood::HangsUp, Mood::HangsUp]);
    let sending = Sending::begin(&node, &[&url]);
    let start = Instant::now();
    let (_, first) = sending.until_heard(0, &heard);
    assert!(start.elapsed() >= PAUSE + 2 * PAUSE, "it is not tried again at once");
    // All but the first, which said that it runs: what comes first is none of them.
    assert!(dropped(&first) >= 1 && dropped(&first) == count(&first) - 2, "{first}");
    assert!(sending.n_dropped.load(Ordering::Relaxed) >= dropped(&first));
}

#[test]
fn a_sink_that_is_stuck_holds_up_no_other() {
    let node = Node::new();
    let (stuck, nothing) = sink(&[Mood::NeverAnswers]);
    let (healthy, heard) = sink(&[]);
    let sending = Sending::begin(&node, &[&stuck, &healthy]);
    let (last, _) = sending.until_heard(0, &heard);
    for count in last + 1..last + 20 {
        sending.sample(count);
        heard.recv_timeout(LIMIT).unwrap();
    }
    assert!(nothing.try_recv().is_err());
}

/// A sink that took every connection and closed it was connected to every second, for ever.
#[test]
fn only_a_connection_that_has_lasted_makes_the_pause_short_again() {
    let s = Duration::from_secs;
    for (pause, lasted, wanted) in [
        (s(0), s(0), s(1)),
        (s(1), s(0), s(2)),
        (s(2), s(3), s(4)),
        (s(32), s(30), s(60)),
        (s(60), s(59), s(60)),
        (s(60), s(60), s(1)),
        (s(0), s(3600), s(1)),
    ] {
        assert_eq!(next_pause(pause, lasted), wanted, "{pause:?} {lasted:?}");
    }
}
