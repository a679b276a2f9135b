//! A disk of a number of bytes, and fetches that fill it.

use super::*;
use proptest::prelude::*;

const fn id(n: u8) -> FlistId {
    FlistId([n; 32])
}

/// What really is on the disk.
#[derive(Debug, Default)]
struct Disk {
    size: u64,
    used: u64,
    /// What each flist has written; staged, or complete.
    written: BTreeMap<FlistId, u64>,
    room: Room,
}

impl Disk {
    fn free(&self) -> u64 {
        self.size - self.used
    }

    /// Asks for what is missing of an flist of so many bytes.
    fn ask(&mut self, n: u8, size: u64, leave: u64, now: Instant) -> Result<(), Shortage> {
        let bytes = size - self.written.get(&id(n)).copied().unwrap_or(0).min(size);
        let (promised, free) = (self.room.promises(), self.free());
        let ask = Ask { bytes, whole: size, leave };
        self.room.admit(id(n), ask, (&promised, Space { free, size: self.size }), now)
    }

    fn write(&mut self, n: u8, bytes: u64) {
        let most = self.room.promised.get(&id(n)).copied().unwrap_or(0);
        let bytes = bytes.min(most);
        assert_eq!(self.room.wrote(id(n), bytes), self.room.promised.contains_key(&id(n)));
        self.used += bytes;
        *self.written.entry(id(n)).or_default() += bytes;
    }

    fn remove(&mut self, n: u8) {
        self.used -= self.written.remove(&id(n)).unwrap_or(0);
    }

    fn promised(&self) -> u64 {
        self.room.promised.values().sum()
    }
}

#[test]
fn two_do_not_count_on_the_same_bytes_and_what_ends_gives_its_room_back() {
    let (mut disk, now) = (Disk { size: 100, ..Disk::default() }, Instant::now());
    disk.ask(1, 60, 0, now).unwrap();
    let shortage = disk.ask(2, 60, 0, now).unwrap_err();
    let (needed, size) = (60, 100);
    let expected =
        Shortage { needed, whole: needed, size, free: 100, promised: 60, kept: 0, left: 0 };
    assert_eq!(shortage, expected);
    // What was written is on the disk and not promised.
    disk.write(1, 20);
    assert_eq!(disk.ask(2, 41, 0, now).unwrap_err().promised, 40);
    disk.ask(2, 40, 0, now).unwrap();
    // Its next turn, with what it has written.
    disk.ask(1, 60, 0, now).unwrap();
    assert_eq!((disk.promised(), disk.free()), (80, 80));
    disk.room.end(id(2));
    disk.ask(3, 40, 0, now).unwrap();
}

#[test]
fn who_comes_early_leaves_room_and_has_none_kept() {
    let (mut disk, now) = (Disk { size: 100, ..Disk::default() }, Instant::now());
    assert_eq!(disk.ask(1, 60, 50, now).unwrap_err().left, 50);
    assert!(disk.room.claim.is_none());
    disk.ask(1, 50, 50, now).unwrap();
    disk.ask(2, 50, 0, now).unwrap();
}

/// What was to run at once waited for a contract of next week.
#[test]
fn what_is_promised_early_is_taken_back_when_it_is_needed_now() {
    let (mut disk, now) = (Disk { size: 100, ..Disk::default() }, Instant::now());
    disk.ask(1, 60, 10, now).unwrap();
    disk.write(1, 20);
    disk.ask(2, 30, 0, now).unwrap();
    assert_eq!(disk.promised(), 70, "there was room for both");
    // It would not fit without the early one either, which goes on.
    disk.ask(3, 51, 0, now).unwrap_err();
    assert!(disk.room.wrote(id(1), 0));
    disk.room.forget(id(3));
    disk.ask(4, 50, 0, now).unwrap();
    assert_eq!(disk.promised(), 80, "the early one has none");
    assert!(!disk.room.wrote(id(1), 1), "it stops");
    disk.ask(1, 60, 10, now).unwrap_err();
    // No early one takes from another, and what is needed by now is early no more.
    let mut disk = Disk { size: 100, ..Disk::default() };
    disk.ask(1, 60, 10, now).unwrap();
    disk.ask(2, 40, 10, now).unwrap_err();
    disk.ask(1, 60, 0, now).unwrap();
    disk.ask(2, 50, 0, now).unwrap_err();
    assert!(disk.room.wrote(id(1), 1));
}

/// Small ones took each byte that came free, and a large one waited for ever.
#[test]
fn what_becomes_free_is_kept_for_the_one_that_waits() {
    let (mut disk, now) = (Disk { size: 100, ..Disk::default() }, Instant::now());
    for n in 1..=8 {
        disk.ask(n, 10, 0, now).unwrap();
        disk.write(n, 10);
        disk.room.end(id(n));
    }
    let large = 99;
    disk.ask(large, 50, 0, now).unwrap_err();
    // What was free before is for everybody.
    disk.ask(20, 10, 0, now).unwrap();
    for n in 1..=3 {
        disk.remove(n);
        disk.ask(30, 20, 0, now).unwrap_err();
        disk.ask(large, 50, 0, now).unwrap_err();
    }
    disk.ask(31, 10, 0, now).unwrap();
    assert_eq!(disk.ask(32, 1, 0, now).unwrap_err().kept, 30);
    for n in [4, 5] {
        disk.remove(n);
    }
    disk.ask(large, 50, 0, now).unwrap();
    assert_eq!(disk.promised(), 70);
}

#[test]
fn room_is_kept_for_a_time_and_while_somebody_wants_it() {
    let now = Instant::now();
    let full = || {
        let mut disk = Disk { size: 100, ..Disk::default() };
        disk.ask(1, 100, 0, now).unwrap();
        disk.write(1, 100);
        disk.room.end(id(1));
        disk.ask(2, 100, 0, now).unwrap_err();
        disk.remove(1);
        assert_eq!(disk.ask(3, 1, 0, now).unwrap_err().kept, 100);
        disk
    };
    full().ask(3, 100, 0, now + CLAIM).unwrap();
    let mut disk = full();
    disk.room.forget(id(2));
    disk.ask(3, 100, 0, now).unwrap();
}

#[test]
fn a_shortage_is_told_in_numbers() {
    let (needed, whole, size) = (3 * MIB + 1, 5 * MIB, 9 * MIB);
    let short = Shortage { needed, whole, size, free: 3 * MIB, promised: 0, kept: 0, left: 0 };
    assert_eq!(short.to_string(), "its files need 4 MiB more, and the store has 3 MiB");
    let short = Shortage { promised: MIB, kept: 2 * MIB, left: 1, ..short };
    let said = ", 1 MiB of it promised to other fetches, 2 MiB of it kept for an flist that waits for \
                room, 1 MiB of it left for what may run now";
    assert!(short.to_string().ends_with(said), "{short}");
    let never = Shortage { whole: size + 1, ..short };
    assert_eq!(never.to_string(), "its files need 10 MiB, and the whole store has 9 MiB");
    assert_eq!(
        [never.is_for_ever(), Shortage { whole: size, ..short }.is_for_ever()],
        [true, false]
    );
}

/// A server that did not answer once cost a fetch its room and what it had staged, for an hour.
#[test]
fn who_fails_finds_its_room_again_and_who_gives_it_up_does_not() {
    type Ends = fn(&mut Room);
    let rows: [(&str, Ends, bool); 3] = [
        ("it failed", |room| room.end(id(1)), true),
        ("its turn was over", |_| {}, true),
        ("nobody wants it", |room| room.forget(id(1)), false),
    ];
    for (why, ends, is_there) in rows {
        let (mut disk, now) = (Disk { size: 100, ..Disk::default() }, Instant::now());
        disk.ask(1, 70, 0, now).unwrap();
        disk.write(1, 10);
        disk.ask(2, 80, 0, now).unwrap_err();
        ends(&mut disk.room);
        assert_eq!(disk.ask(1, 70, 0, now).is_ok(), is_there, "{why}");
        // The one that waits has it once the other is gone.
        disk.room.forget(id(1));
        disk.remove(1);
        disk.ask(2, 80, 0, now).unwrap();
    }
}

/// All room was kept for it, in vain.
#[test]
fn nothing_is_kept_for_what_is_larger_than_the_store() {
    let now = Instant::now();
    for (size, kept) in [(101, 0), (100, 50)] {
        let mut disk = Disk { size: 100, ..Disk::default() };
        disk.ask(1, 50, 0, now).unwrap();
        disk.write(1, 50);
        disk.room.end(id(1));
        let short = disk.ask(2, size, 0, now).unwrap_err();
        assert_eq!(short.is_for_ever(), size > 100);
        disk.remove(1);
        assert_eq!(disk.ask(3, 60, 0, now).is_err(), kept > 0);
        // What it shares with others does not help: there is no room for both.
        disk.written.insert(id(4), 80);
        assert!(disk.ask(4, 101, 0, now).unwrap_err().is_for_ever());
    }
}

#[derive(Debug, Clone)]
enum Event {
    Ask {
        n: u8,
        size: u64,
        leave: u64,
    },
    Write {
        n: u8,
        bytes: u64,
    },
    /// It is complete, or has failed and what it has staged stays.
    End(u8),
    /// It has failed, and asks again.
    Fail(u8),
    Forget(u8),
    /// What it has written goes.
    Remove(u8),
    Restart,
    Later(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..6_u8;
    prop_oneof![
        4 => (n.clone(), 0..120_u64, prop_oneof![3 => Just(0), 1 => 0..40_u64])
            .prop_map(|(n, size, leave)| Event::Ask { n, size, leave }),
        4 => (n.clone(), 0..60_u64).prop_map(|(n, bytes)| Event::Write { n, bytes }),
        1 => n.clone().prop_map(Event::End),
        1 => n.clone().prop_map(Event::Fail),
        1 => n.clone().prop_map(Event::Forget),
        1 => n.prop_map(Event::Remove),
        1 => Just(Event::Restart),
        1 => (0..5000_u64).prop_map(Event::Later),
    ]
}

proptest! {
    /// Whatever happens, whoever was promised room can write all of it.
    #[test]
    fn nobody_is_promised_what_is_not_there(events in prop::collection::vec(event(), 0..200)) {
        let (mut disk, mut now) = (Disk { size: 200, ..Disk::default() }, Instant::now());
        for event in events {
            match event {
                Event::Ask { n, size, leave } => {
                    let before = disk.promised() - disk.room.promised.get(&id(n)).unwrap_or(&0);
                    let is_early = |room: &Room, n| room.early.contains(&id(n));
                    let sure = (0..6).filter(|one| *one != n && !is_early(&disk.room, *one));
                    let sure: Vec<_> = sure.filter_map(|one| Some((one, *disk.room.promised.get(&id(one))?))).collect();
                    let asked = disk.ask(n, size, leave, now);
                    for (one, bytes) in sure {
                        prop_assert_eq!(disk.room.promised.get(&id(one)), Some(&bytes));
                    }
                    match asked {
                        // Who needs nothing more takes nothing from anybody.
                        Ok(()) if disk.room.promised[&id(n)] == 0 => {}
                        Ok(()) => prop_assert!(disk.free() - disk.promised() >= leave),
                        Err(short) => {
                            let taken = short.promised + short.kept + short.left;
                            prop_assert!(short.needed > short.free.saturating_sub(taken));
                            prop_assert_eq!(disk.promised(), before, "a refusal keeps nothing");
                        }
                    }
                }
                Event::Write { n, bytes } => disk.write(n, bytes),
                Event::End(n) => disk.room.end(id(n)),
                Event::Fail(n) => {
                    let Some(unwritten) = disk.room.promised.get(&id(n)).copied() else { continue };
                    if disk.room.early.contains(&id(n)) {
                        continue;
                    }
                    let size = unwritten + disk.written.get(&id(n)).unwrap_or(&0);
                    disk.room.end(id(n));
                    prop_assert!(disk.ask(n, size, 0, now).is_ok(), "{disk:?}");
                }
                Event::Forget(n) => disk.room.forget(id(n)),
                // Nothing is swept while it is fetched.
                Event::Remove(n) if disk.room.promised.contains_key(&id(n)) => {}
                Event::Remove(n) => disk.remove(n),
                Event::Restart => disk.room = Room::default(),
                Event::Later(seconds) => now += Duration::from_secs(seconds),
            }
            prop_assert!(disk.promised() <= disk.free(), "{disk:?}");
        }
    }

    /// Whoever waits first gets its room once as much has become free, however many small ones come.
    #[test]
    fn the_large_one_is_not_starved(
        sizes in prop::collection::vec(1..20_u64, 10..40),
        small in prop::collection::vec(1..20_u64, 1..10),
        share in 1..100_u64,
    ) {
        let now = Instant::now();
        let mut disk = Disk { size: sizes.iter().sum(), ..Disk::default() };
        for (n, size) in (0..).zip(&sizes) {
            disk.ask(n, *size, 0, now).unwrap();
            disk.write(n, *size);
            disk.room.end(id(n));
        }
        let wanted = (disk.size * share / 100).max(1);
        disk.ask(200, wanted, 0, now).unwrap_err();
        let mut freed = 0;
        for (n, size) in (0..).zip(&sizes) {
            for (other, bytes) in (100..).zip(&small) {
                prop_assert!(disk.ask(other, *bytes, 0, now).is_err());
            }
            disk.remove(n);
            freed += size;
            prop_assert_eq!(disk.ask(200, wanted, 0, now).is_ok(), freed >= wanted);
            if freed >= wanted {
                break;
            }
        }
    }
}
