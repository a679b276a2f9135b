//! Turns of the collector on real files, with an init of our own, and what makes room for what.

use super::*;
use ipc::Method as _;
use node_api::init::{Line, LogReply, LogsReply};
use std::thread;

fn collector(logs: &Path) -> Collector {
    let init = logs.join("init");
    let mut collector = Collector::new(&init, Syncer::start().unwrap());
    collector.kept = look(logs).unwrap();
    collector
}

#[test]
fn all_lines_together_take_half_of_what_the_state_may_have_at_most() {
    for gib in [4_u64, 8, 10, 20, 48, 100, 1000] {
        let system = gib << 30;
        let room = Room::on(system, false);
        // As storaged limits the state: a twentieth of what is usable.
        let state = (system - (system / 16).max(256 << 20)) / 20;
        for n_books in [0, 1, 10, 500, room.n_books] {
            let all = room.share(n_books) * n_books as u64;
            // Each block may be held by an extent of two.
            assert!(all * 2 <= state / 2, "{n_books} books on {gib} GiB");
        }
    }
    let memory = Room::on(64 << 20, true);
    assert_eq!(memory, Room { size: 16 << 20, n_books: 256 });
    assert_eq!(memory.share(256), BOOK_SIZE_MIN);
    assert_eq!(Room::on(100 << 30, false), Room { size: SIZE_MAX, n_books: 4096 });
    assert_eq!(Room::on(100 << 30, false).share(1), BOOK_SIZE_MAX);
    assert_eq!(Room::on(0, false), Room { size: 0, n_books: 1 });
}

/// A book of so many lines of some 100 bytes, of this age in seconds.
fn book(logs: &Path, id: &str, n_lines: u64, age: u64) -> Book {
    let mut book = Book::open(&logs.join(id)).unwrap();
    let text = "x".repeat(80);
    let line = |number| Line { number, time_ms: 1, n_dropped: 0, text: text.clone() };
    book.append(7, &(1..=n_lines).map(line).collect::<Vec<_>>(), 2 * BOOK_SIZE_MAX).unwrap();
    let then = SystemTime::now() - Duration::from_secs(age);
    fs::File::open(segments(logs, id).pop().unwrap()).unwrap().set_modified(then).unwrap();
    book
}

/// Oldest first.
fn segments(logs: &Path, id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(logs.join(id)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The workloads of contracts that have ended were enough to keep everybody else's lines away.
#[test]
fn the_oldest_book_that_nobody_uses_makes_room() {
    let logs = tempfile::tempdir().unwrap();
    let logs = logs.path();
    let mut collector = collector(logs);
    for (id, age) in [("c-1-a", 50), ("c-1-b", 40), ("c-2-a", 30), ("c-3-a", 20)] {
        collector.books.insert(id.to_owned(), book(logs, id, 2000, age));
        collector.kept.insert(id.to_owned());
    }
    // The old ones become smaller last, and are no newer for it.
    for (id, age) in [("c-3-a", 4), ("c-2-a", 3), ("c-1-b", 2), ("c-1-a", 1)] {
        let before = segments(logs, id).len();
        collector.books.get_mut(id).unwrap().trim(BOOK_SIZE_MIN).unwrap();
        assert!((1..before).contains(&segments(logs, id).len()));
        let then = SystemTime::now() - Duration::from_secs(age);
        fs::File::open(logs.join(id)).unwrap().set_modified(then).unwrap();
    }
    let room = Room { size: 0, n_books: 4 };
    let mut make = |used: Option<&[&str]>, room: &Room| {
        let used = used.map(|used| used.iter().copied().collect());
        let done = collector.make_room(logs, room, "c-9-new", used.as_ref());
        (done.is_ok(), collector.kept.iter().cloned().collect::<Vec<_>>().join(" "))
    };
    let roomy = Room { size: 0, n_books: 5 };
    assert_eq!(make(Some(&[]), &roomy), (true, "c-1-a c-1-b c-2-a c-3-a".into()));
    let all = "c-1-a c-1-b c-2-a c-3-a".to_owned();
    assert_eq!(make(None, &room), (false, all), "nobody has said what is used");
    assert_eq!(make(Some(&["c-1-a"]), &room), (true, "c-1-a c-2-a c-3-a".into()));
    assert!(!logs.join("c-1-b").exists());
    let room = Room { size: 0, n_books: 3 };
    assert!(!make(Some(&["c-1-a", "c-2-a", "c-3-a"]), &room).0);
    assert_eq!(make(Some(&["c-1-a", "c-3-a"]), &room), (true, "c-1-a c-3-a".into()));
}

#[test]
fn one_contract_pushes_out_its_own_books_only() {
    let logs = tempfile::tempdir().unwrap();
    let logs = logs.path();
    fs::create_dir(logs.join("c-1-old")).unwrap();
    for n in 0..BOOKS_UNUSED_MAX {
        fs::create_dir(logs.join(format!("c-2-{n}"))).unwrap();
    }
    let mut collector = collector(logs);
    let room = Room { size: 0, n_books: 4096 };
    let used = BTreeSet::from(["c-2-0"]);
    collector.make_room(logs, &room, "c-2-new", Some(&used)).unwrap();
    assert_eq!(collector.kept.len(), BOOKS_UNUSED_MAX + 1, "255 of them are not used");
    collector.make_room(logs, &room, "c-2-new", Some(&BTreeSet::new())).unwrap();
    assert_eq!(collector.kept.len(), BOOKS_UNUSED_MAX);
    assert!(collector.kept.contains("c-1-old"));
    assert_eq!(contract("c-0f-my-web"), "c-0f");
    assert_eq!(contract("odd"), "odd");
}

/// Each turn tried the same ones, and the lines of all others were never sent.
#[test]
fn books_that_fail_keep_no_others_closed() {
    let logs = tempfile::tempdir().unwrap();
    let logs = logs.path();
    let bad: Vec<String> = (0..OPENS_MAX).map(|n| format!("c-1-{n}")).collect();
    for id in &bad {
        fs::create_dir_all(logs.join(id).join("00000000000000000005.log")).unwrap();
    }
    book(logs, "c-2", 1, 0);
    let mut collector = collector(logs);
    let wanted = bad.iter().cloned().collect();
    collector.open_some(logs, &wanted).unwrap_err();
    assert!(collector.books.is_empty());
    collector.open_some(logs, &wanted).unwrap();
    assert!(collector.books.keys().eq(["c-2"]));
    fs::remove_dir(logs.join("c-1-0").join("00000000000000000005.log")).unwrap();
    collector.open_some(logs, &wanted).unwrap_err();
    assert!(collector.books.keys().eq(["c-1-0", "c-2"]), "they are tried again");
}

/// What init says it has: each line of each of these, and heads of who is silent.
fn answer_for_init(logs: &Path, rings: &'static [(&str, u64)]) {
    let listener = ipc::listen(&logs.join("init")).unwrap();
    let line = |number| Line { number, time_ms: 1, n_dropped: 0, text: "x".into() };
    let answer = move |call: ipc::Call| match call.method() {
        Logs::NAME => call.answer(|Logs {}| {
            let head =
                |(id, last): &(&str, u64)| LogHead { id: (*id).into(), life: 7, last: *last };
            Ok::<_, ipc::Failure>(LogsReply { logs: rings.iter().map(head).collect() })
        }),
        Log::NAME => call.answer(|Log { name, after, .. }| {
            let (_, last) = *rings.iter().find(|(id, _)| *id == name).unwrap();
            let lines = (after.unwrap() + 1..=last).map(line).collect();
            Ok::<_, ipc::Failure>(LogReply { life: 7, last, lines, dropped: 0 })
        }),
        _ => call.unknown(),
    };
    thread::spawn(move || ipc::serve(&listener, answer));
}

#[test]
fn a_turn_keeps_what_is_said_and_makes_the_others_smaller() {
    let logs = tempfile::tempdir().unwrap();
    let logs = logs.path();
    answer_for_init(logs, &[("c-1-old", 0), ("c-2-new", 3), ("c-3-silent", 0)]);
    let size = |id| -> u64 {
        segments(logs, id).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    };
    drop(book(logs, "c-1-old", 15_000, 0));
    assert!(size("c-1-old") > BOOK_SIZE_MAX);
    let mut collector = collector(logs);
    let start = Instant::now();
    while collector.books.get("c-2-new").is_none_or(Book::is_dirty)
        || size("c-1-old") > BOOK_SIZE_MAX
    {
        collector.turn(logs, Some(&BTreeSet::new())).unwrap();
        // The next round to the disk is due.
        collector.synced = start.checked_sub(SYNC_INTERVAL);
        assert!(start.elapsed() < Duration::from_secs(30), "{collector:?}");
    }
    assert_eq!(collector.books["c-2-new"].synced(), 3);
    assert_eq!(collector.books["c-1-old"].last(), 15_000);
    assert!(!logs.join("c-3-silent").exists(), "nothing is kept of who says nothing");
}

#[test]
fn a_book_that_cannot_become_smaller_keeps_no_other_from_it() {
    let logs = tempfile::tempdir().unwrap();
    let logs = logs.path();
    let mut collector = collector(logs);
    for id in ["c-1", "c-2", "c-3"] {
        collector.books.insert(id.to_owned(), book(logs, id, 2000, 0));
    }
    let before = segments(logs, "c-2").len();
    let oldest = segments(logs, "c-2").remove(0);
    fs::remove_file(&oldest).unwrap();
    fs::create_dir(&oldest).unwrap();
    collector.kept = ["c-1", "c-2", "c-3"].map(String::from).into();
    let room = Room { size: 0, n_books: 4 };
    let error = collector.trim(&room).unwrap_err();
    assert!(matches!(error, CollectError::Keep { id, .. } if id == "c-2"));
    let left = ["c-1", "c-2", "c-3"].map(|id| segments(logs, id).len());
    assert!(left[0] < before && left[1] == before && left[2] < before, "{left:?}");
}

#[test]
fn only_what_is_kept_is_deleted() {
    let parent = tempfile::tempdir().unwrap();
    let (logs, other) = (parent.path().join("logs"), parent.path().join("other"));
    for id in [logs.join("c-1"), logs.join("c-2"), other.clone()] {
        fs::create_dir_all(id).unwrap();
    }
    let mut collector = collector(&logs);
    for id in ["../other", "c-1", "c-1", ".."] {
        let doomed = Doomed { id: id.to_owned(), order: String::new() };
        collector.delete(&logs, doomed).unwrap();
    }
    assert!(other.exists());
    assert_eq!(look(&logs).unwrap(), collector.kept);
    assert_eq!(collector.kept.into_iter().collect::<Vec<_>>(), ["c-2"]);
}
