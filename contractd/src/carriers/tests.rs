//! Sticks as somebody else's program makes them, and as nobody should.

use super::*;
use crate::log::tests::TestLog;
use contract::{Envelope, Timestamp, testkit::World};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use registry_api::log::{Known, ask};
use std::{
    io::{Read as _, Seek as _, Write as _},
    sync::mpsc::{TryRecvError, channel},
};

fn world() -> World {
    World::new(Timestamp::from_seconds(1_800_000_000))
}

/// A stick with these files.
fn stick(files: &[(String, Vec<u8>)]) -> File {
    let mut disk = tempfile::tempfile().unwrap();
    disk.set_len(16 << 20).unwrap();
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new()).unwrap();
    let system = FileSystem::new(disk.try_clone().unwrap(), FsOptions::new()).unwrap();
    for (path, bytes) in files {
        let mut folder = system.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for name in folders.split('/').filter(|name| !name.is_empty()) {
            folder = folder.create_dir(name).unwrap();
        }
        folder.create_file(name).unwrap().write_all(bytes).unwrap();
    }
    drop(system);
    disk
}

fn json(bundle: &Bundle) -> Vec<u8> {
    serde_json::to_vec(bundle).unwrap()
}

fn stranger(name: &str, sequence: u64) -> Stranger {
    Stranger { name: name.into(), sequence, size_bytes: 16 << 20 }
}

fn lent(file: &File) -> impl Fn(&Stranger) -> io::Result<Option<Device>> {
    |disk| Ok(Some(Device::new(file.try_clone()?, disk.size_bytes)))
}

fn opened(file: File) -> Stick {
    Stick::open("sda", Device::new(file, 16 << 20), TIME_MAX).unwrap().unwrap()
}

/// A thread that watches, and what it says.
struct Bench {
    watch: Watch,
    heard: Receiver<Event>,
}

/// What was heard: contracts with their bundles, and the last facts.
type Heard = (Vec<(ContractId, Bundle)>, Option<Vec<(String, Level)>>);

impl Bench {
    fn new(node: NodeId) -> Self {
        let (events, heard) = channel();
        let (carriers, _) = Carriers::new();
        Self { watch: Watch::new(node, carriers, events), heard }
    }

    /// While `act` runs, everything is taken at once.
    fn hear(&mut self, act: impl FnOnce(&mut Watch) + Send) -> Heard {
        let (mut bundles, mut facts) = (Vec::new(), None);
        let mut take = |event| match event {
            Event::Carried { contract, bundle, room } => {
                bundles.push((contract, *bundle));
                drop(room);
            }
            Event::Carriers { facts: all, .. } => {
                facts = Some(all.into_iter().map(|one| (one.text, one.level)).collect());
            }
            other => panic!("{other:?}"),
        };
        let Self { watch, heard } = self;
        thread::scope(|scope| {
            let work = scope.spawn(|| act(watch));
            while !work.is_finished() {
                match heard.try_recv() {
                    Ok(event) => take(event),
                    Err(TryRecvError::Empty) => thread::yield_now(),
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            work.join().unwrap();
        });
        heard.try_iter().for_each(take);
        (bundles, facts)
    }

    fn look(&mut self, present: &[Stranger], file: &File) -> Heard {
        let present = present.to_vec();
        self.hear(|watch| watch.look(present, lent(file)))
    }
}

#[test]
fn contracts_for_this_node_are_read_once_for_each_time_that_a_stick_comes() {
    let world = world();
    let (node, other, contract) = (world.node_id(), NodeId([9; 32]), world.contract());
    let bundle = world.agreed();
    let file = stick(&[
        (carry::bundle(&node, &contract), json(&bundle)),
        (carry::bundle(&other, &ContractId([7; 32])), json(&bundle)),
        (format!("{}/._{contract}", carry::bundles(&node)), b"of another system".to_vec()),
        (format!("{}/{}", carry::bundles(&node), "0".repeat(200)), b"no id".to_vec()),
    ]);
    let mut bench = Bench::new(node);
    let (bundles, facts) = bench.look(&[stranger("sda", 3)], &file);
    assert_eq!(bundles, [(contract, bundle.clone())]);
    let facts = facts.unwrap();
    assert!(facts[0].0.starts_with("contracts read: 1") && facts[0].1 == Level::Good, "{facts:?}");
    assert_eq!(bench.look(&[stranger("sda", 3)], &file), (vec![], None), "it is the same");
    assert_eq!(bench.watch.carriers.sticks().len(), 1);
    let read = bench.hear(|watch| watch.read_again(&contract));
    assert_eq!(read.0.len(), 1, "there is room for it now");
    let unknown = bench.hear(|watch| watch.read_again(&ContractId([7; 32])));
    assert_eq!(unknown, (vec![], None), "that is for another node");

    assert_eq!(bench.look(&[], &file), (vec![], Some(vec![])), "it was pulled out");
    assert!(bench.watch.carriers.sticks().is_empty());
    assert_eq!(bench.look(&[stranger("sda", 4)], &file).0.len(), 1, "it is back");

    let (bundles, facts) = Bench::new(NodeId([8; 32])).look(&[stranger("sda", 3)], &file);
    assert!(bundles.is_empty());
    assert_eq!(facts.unwrap()[0].0, "has no contract for this node");
    let photos = stick(&[("photos/a".to_owned(), vec![1])]);
    assert_eq!(Bench::new(node).look(&[stranger("sda", 3)], &photos), (vec![], None));
}

#[test]
fn what_cannot_be_read_is_told_and_hides_nothing_else() {
    let world = world();
    let (node, contract) = (world.node_id(), world.contract());
    let good = json(&world.agreed());
    let half = good[..good.len() / 2].to_vec();
    for broken in [b"junk".to_vec(), half, Vec::new()] {
        let file = stick(&[
            (carry::bundle(&node, &ContractId([0; 32])), broken),
            (carry::bundle(&node, &contract), good.clone()),
        ]);
        let (bundles, facts) = Bench::new(node).look(&[stranger("sda", 1)], &file);
        assert_eq!(bundles.len(), 1);
        let facts = facts.unwrap();
        assert!(facts[0].0.starts_with("read 1 of 2 contracts; contract 0000"), "{facts:?}");
        assert_eq!(facts[0].1, Level::Warning);
    }
}

#[test]
fn a_file_that_is_larger_than_its_bound_is_not_read() {
    let file = stick(&[(carry::checkpoint(), vec![b'x'; 100])]);
    let stick = opened(file);
    assert_eq!(stick.whole(&carry::checkpoint(), 100).unwrap().len(), 100);
    let error = stick.whole(&carry::checkpoint(), 99).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_stick_that_is_pulled_out_while_it_is_read_is_told_and_is_no_harm() {
    let world = world();
    let (node, contract) = (world.node_id(), world.contract());
    let bundle = json(&world.agreed());
    let file = stick(&[(carry::bundle(&node, &contract), bundle.clone())]);
    let at = {
        let mut whole = Vec::new();
        rewound(&file).read_to_end(&mut whole).unwrap();
        whole.windows(16).position(|window| window == &bundle[..16]).unwrap() as u64
    };
    let whole = file.metadata().unwrap().len();
    file.set_len(at + 10).unwrap();
    let mut bench = Bench::new(node);
    let (bundles, facts) = bench.look(&[stranger("sda", 1)], &file);
    assert!(bundles.is_empty());
    assert!(facts.unwrap()[0].0.starts_with("read 0 of 1 contracts"));
    // Positive control: nothing else was wrong with it.
    let file = stick(&[(carry::bundle(&node, &contract), bundle)]);
    assert_eq!(file.metadata().unwrap().len(), whole);
    assert_eq!(bench.look(&[stranger("sda", 2)], &file).0.len(), 1);
}

fn rewound(file: &File) -> File {
    let mut file = file.try_clone().unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_disk_that_cannot_be_read_is_tried_a_few_times_and_then_told() {
    let mut bench = Bench::new(NodeId([1; 32]));
    let tried = std::sync::atomic::AtomicU32::new(0);
    let mut look = || {
        bench.hear(|watch| {
            watch.look(vec![stranger("sda", 1)], |_| {
                tried.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::other("a bad cable"))
            });
        })
    };
    for _ in 1..TRIES_MAX {
        assert_eq!(look(), (vec![], None));
    }
    let facts = look().1.unwrap();
    assert_eq!(facts, [("cannot be read: a bad cable".to_owned(), Level::Warning)]);
    assert_eq!(look(), (vec![], None));
    assert_eq!(tried.into_inner(), TRIES_MAX);
}

/// Only so many are held open, whatever is plugged in.
#[test]
fn of_many_carriers_the_first_ones_are_read() {
    let node = NodeId([1; 32]);
    let file = stick(&[(carry::bundle(&node, &ContractId([7; 32])), b"{}".to_vec())]);
    let all: Vec<Stranger> =
        (0..=STICKS_MAX as u64).map(|n| stranger(&format!("sd{n}"), n)).collect();
    let mut bench = Bench::new(node);
    let facts = bench.look(&all, &file).1.unwrap();
    assert_eq!(bench.watch.carriers.sticks().len(), STICKS_MAX);
    assert_eq!(facts[STICKS_MAX].0, "not read: there are others");
    assert_eq!(bench.look(&all, &file), (vec![], None));
    // Whatever goes makes room for it.
    let facts = bench.look(&all[1..], &file).1.unwrap();
    assert_eq!((facts.len(), bench.watch.carriers.sticks().len()), (STICKS_MAX, STICKS_MAX));
    assert!(facts.iter().all(|(text, _)| text.starts_with("read 0 of 1")), "{facts:?}");
}

#[test]
fn files_of_flists_are_read_from_a_stick_and_from_nowhere_else_on_it() {
    let file = stick(&[
        (carry::content("packs/aa"), b"0123456789".to_vec()),
        ("secret".to_owned(), b"x".to_vec()),
    ]);
    let stick = opened(file);
    let cancel = Cancel::default();
    assert_eq!(stick.read_at("packs/aa", 3, 4, &cancel).unwrap(), b"3456");
    assert_eq!(stick.read_at("packs/aa", 8, 4, &cancel).unwrap(), b"89");
    assert_eq!(Files::url(&stick, "packs/aa"), "sda:zos-carry/content/packs/aa");
    for name in ["packs/bb", "../../secret", "packs/../../../secret"] {
        assert_eq!(stick.read_at(name, 0, 1, &cancel).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

/// A stick with all that a log shows of these statements.
pub(crate) fn with_log(log: &TestLog, statements: &[&Envelope]) -> Stick {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut put = |path: String, served: &str| {
        files.extend(log.serve(served).map(|bytes| (path, bytes)));
    };
    put(carry::checkpoint(), paths::CHECKPOINT);
    for statement in statements {
        let id = statement.id().unwrap();
        put(carry::proof(&id), &paths::proof(&id));
    }
    for width in 1..=255 {
        let name = format!("tile/0/000.p/{width}");
        put(carry::tile(&name), &paths::tile(&name));
    }
    opened(stick(&files))
}

#[test]
fn what_a_log_shows_is_read_from_a_stick_as_from_a_registry() {
    let world = world();
    let bundle = world.agreed();
    let mut log = TestLog::new();
    log.add(&world.identity("owner"));
    bundle.headers.iter().chain(&bundle.approvals).for_each(|one| log.add(one));
    let stick = with_log(&log, &[&bundle.headers[0]]);
    let (id, other) = (bundle.headers[0].id().unwrap(), bundle.approvals[0].id().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let known = Known { size: 2, pinned: None };
    let answer = runtime.block_on(ask(&stick, known, &[other, id]));
    assert_eq!(answer.asked, 2);
    assert!(answer.problem.is_some(), "the other one was not carried");
    let first = log.show(2, None);
    assert_eq!(answer.shown[0].note, first.note);
    assert_eq!(answer.shown[0].consistency, first.consistency);
    assert!(!first.consistency.is_empty());
    assert_eq!(answer.shown[1].proof.as_ref().map(|(id, _)| *id), Some(id));
}

/// A stick that is too slow is let go; one whose reader was told to stop is not.
#[test]
fn a_stick_that_is_too_slow_is_not_read_any_more_and_one_that_was_cancelled_is() {
    let world = world();
    let (node, contract) = (world.node_id(), world.contract());
    let file = stick(&[
        (carry::bundle(&node, &contract), json(&world.agreed())),
        (carry::content("packs/aa"), b"0123456789".to_vec()),
    ]);
    let mut bench = Bench::new(node);
    bench.watch.time_max = Duration::ZERO;
    let (bundles, facts) = bench.look(&[stranger("sda", 1)], &file);
    assert!(bundles.is_empty());
    assert!(facts.unwrap()[0].0.contains("given up"), "and not tried again");
    assert_eq!(bench.look(&[stranger("sda", 1)], &file), (vec![], None));

    bench.watch.time_max = TIME_MAX;
    assert_eq!(bench.look(&[stranger("sda", 2)], &file).0.len(), 1, "positive control");
    let stick = bench.watch.carriers.sticks().pop().unwrap();
    let stopped = Cancel::default();
    stopped.cancel();
    let error = stick.read_at("packs/aa", 0, 4, &stopped).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(bench.watch.carriers.sticks().len(), 1);
    assert_eq!(stick.read_at("packs/aa", 0, 4, &Cancel::default()).unwrap(), b"0123");
    drop(stick);

    // It becomes slow while it is here.
    let mut slow = opened(file.try_clone().unwrap());
    slow.time_max = Duration::ZERO;
    assert!(slow.read_at("packs/aa", 0, 4, &Cancel::default()).is_err());
    let fact = say(&stranger("sda", 2), "contracts read: 1", Level::Good);
    bench.watch.seen.insert(stranger("sda", 2), Seen::Carrier(Arc::new(slow), fact));
    let facts = bench.look(&[stranger("sda", 2)], &file).1.unwrap();
    assert_eq!(facts[0].0, "too slow: it is not read any more");
    assert!(bench.watch.carriers.sticks().is_empty());
}

#[test]
fn a_disk_that_is_not_lent_carries_nothing() {
    let mut bench = Bench::new(NodeId([1; 32]));
    let heard = bench.hear(|watch| watch.look(vec![stranger("sda", 1)], |_| Ok(None)));
    assert_eq!(heard, (vec![], None));
}
