//! What is told of a container, and how seldom.

use super::*;
use container::usage::{MemoryEvents, Stall};

const MINUTE: u64 = 60_000;

/// Some waited for memory so long, in percent.
fn pressed(some: u32) -> Usage {
    let some = Stall { avg60: some * 100, ..Stall::default() };
    let full = Stall { avg60: some.avg60 / 2, ..Stall::default() };
    Usage { memory_pressure: Pressure { some, full }, ..Usage::default() }
}

fn met(max: u64) -> Usage {
    Usage { memory_events: MemoryEvents { max, ..MemoryEvents::default() }, ..Usage::default() }
}

/// Looks every five seconds for so long; gives when what is said has changed, and to what.
fn follow(
    strains: &mut Strains,
    from_ms: u64,
    for_ms: u64,
    mut usage: impl FnMut(u64) -> Option<Usage>,
) -> Vec<(u64, String)> {
    let mut said = strains.sentence();
    let mut changes = Vec::new();
    for now_ms in (from_ms..from_ms + for_ms).step_by(5_000) {
        let is_news = strains.look(now_ms, usage(now_ms).as_ref());
        let says = strains.sentence();
        assert!(says == said || is_news, "what was told is remembered");
        if says != said {
            said.clone_from(&says);
            changes.push((now_ms, says));
        }
    }
    changes
}

#[test]
fn nothing_is_said_of_a_container_at_ease() {
    let mut strains = Strains::default();
    let calm = |now_ms| Some(Usage { cpu_us: now_ms, pids: 3, cpu_periods: now_ms, ..pressed(9) });
    assert_eq!(follow(&mut strains, 0, 10 * MINUTE, calm), []);
    assert_eq!(strains.sentence(), "");
}

#[test]
fn every_strain_has_its_number() {
    let waits = |some: u32, full: u32| Pressure {
        some: Stall { avg60: some, ..Stall::default() },
        full: Stall { avg60: full, ..Stall::default() },
    };
    let usage = |now_ms: u64| Usage {
        memory_events: MemoryEvents { max: 2117, oom: 3, oom_kill: 1 },
        pids_refused: 1,
        cpu_periods: now_ms / 100,
        cpu_periods_throttled: now_ms / 100 * 3 / 4,
        cpu_pressure: waits(5_000, 0),
        memory_pressure: waits(1_234, 605),
        io_pressure: waits(9_999, 9_998),
        ..Usage::default()
    };
    let mut strains = Strains::default();
    follow(&mut strains, MINUTE, MINUTE, |now_ms| Some(usage(now_ms)));
    assert_eq!(
        strains.sentence(),
        "; it met its limit of memory 2117 times; it ran out of memory 3 times, 1 process was killed; \
         it met its limit of processes once; its share of processors was used up in 74.00 % of its time; \
         it waited for a processor 50.00 % of a minute, as a whole 0.00 %; \
         it waited for memory 12.34 % of a minute, as a whole 6.05 %; \
         it waited for disks 99.99 % of a minute, as a whole 99.98 %"
    );
}

#[test]
fn pressure_counts_when_it_stays_and_is_over_when_it_stays_away() {
    let mut strains = Strains::default();
    // Up and down around the threshold, and for less than half a minute above it.
    let short = |now_ms: u64| Some(pressed(if now_ms.is_multiple_of(30_000) { 9 } else { 90 }));
    assert_eq!(follow(&mut strains, 0, 10 * MINUTE, short), []);
    follow(&mut strains, 10 * MINUTE - 5_000, 5_000, |_| Some(pressed(9)));
    let begun = follow(&mut strains, 10 * MINUTE, 10 * MINUTE, |_| Some(pressed(34)));
    let said = "; it waited for memory 34.00 % of a minute, as a whole 17.00 %".to_owned();
    assert_eq!(begun, [(10 * MINUTE + BEGIN_MS, said)], "after 30 s, and once");
    // Above half of it, it is the same strain, whatever it is exactly; so it is after short rests.
    let wavering = |now_ms: u64| Some(pressed([6, 60, 2, 2][(now_ms / MINUTE % 4) as usize]));
    assert_eq!(follow(&mut strains, 20 * MINUTE, 60 * MINUTE, wavering), []);
    let ended = follow(&mut strains, 80 * MINUTE, 10 * MINUTE, |_| Some(pressed(4)));
    assert_eq!(ended.len(), 1);
    assert!(ended[0].0 >= 80 * MINUTE + END_MS - 2 * MINUTE && ended[0].1.is_empty(), "{ended:?}");
}

/// A strain came and went with every look at a cgroup that failed.
#[test]
fn without_a_sample_nothing_changes() {
    let sometimes =
        |usage: Usage| move |now_ms: u64| now_ms.is_multiple_of(10_000).then_some(usage);
    let mut strains = Strains::default();
    let begun = follow(&mut strains, 0, 5 * MINUTE, sometimes(pressed(50)));
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!(begun[0].0, BEGIN_MS, "what failed between did not begin the time anew");
    assert_eq!(follow(&mut strains, 5 * MINUTE, 60 * MINUTE, |_| None), []);
    assert!(!strains.sentence().is_empty());
    let ended = follow(&mut strains, 65 * MINUTE, 10 * MINUTE, sometimes(pressed(0)));
    assert_eq!(ended, [(65 * MINUTE + END_MS, String::new())]);
}

/// A minute of pressure, an hour without a look and another moment of it were one long strain.
#[test]
fn what_nobody_has_seen_did_not_last() {
    let mut strains = Strains::default();
    let mut look = |at_ms: u64, some| {
        strains.look(at_ms, Some(&pressed(some)));
        !strains.sentence().is_empty()
    };
    assert!(!look(0, 50) && !look(20_000, 50));
    assert!(!look(20_001 + GAP_MS, 50), "it begins anew");
    assert!(!look(40_000 + GAP_MS, 50));
    assert!(look(20_001 + GAP_MS + BEGIN_MS, 50));
    // Its end is seen as well, or it has not ended.
    assert!(look(MINUTE * 3, 0) && look(MINUTE * 60, 0));
    for at_ms in (MINUTE * 60..MINUTE * 60 + END_MS).step_by(10_000) {
        assert!(look(at_ms, 0), "{at_ms}");
    }
    assert!(!look(MINUTE * 60 + END_MS, 0));
}

/// A container that met its limit and ended, over and over, was told of in each of its lives.
#[test]
fn the_next_life_begins_without_strains_but_with_their_pauses() {
    let mut strains = Strains::default();
    let usage = |now_ms| Some(Usage { memory_events: met(now_ms).memory_events, ..pressed(50) });
    follow(&mut strains, MINUTE, 20 * MINUTE, usage);
    let mut next = strains.of_next_life();
    assert_eq!((next.sentence(), next.looked_ms()), (String::new(), 0));
    assert_eq!(next.memory.pause, strains.memory.pause);
    let over_ms = strains.memory.pause.until_ms;
    assert!(over_ms > 21 * MINUTE);
    follow(&mut next, 21 * MINUTE, over_ms - 21 * MINUTE, |_| Some(met(7)));
    assert_eq!(next.sentence(), "", "not before the pause is over");
    let told = follow(&mut next, over_ms, 5_000, |_| Some(met(7)));
    assert_eq!(told, [(over_ms, "; it met its limit of memory 7 times".to_owned())]);
    let first = Strains::default().of_next_life();
    assert_eq!(first, Strains::default());
}

#[test]
fn a_limit_that_is_met_all_day_is_told_a_few_times() {
    let mut strains = Strains::default();
    let day = 24 * 60 * MINUTE;
    let told = follow(&mut strains, MINUTE, 3 * day, |now_ms| Some(met(now_ms)));
    assert!((10..=14).contains(&told.len()), "{}", told.len());
    assert_eq!(told[0], (MINUTE, "; it met its limit of memory 60000 times".to_owned()));
    assert_eq!(told[1].0, 2 * MINUTE);
    assert_eq!(told[2].0, 4 * MINUTE);
    let gaps: Vec<u64> = told.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.is_sorted() && gaps.last() == Some(&PAUSE_MAX_MS), "{gaps:?}");
    // What is met again after a long rest is told at once, and soon again.
    let (rest, n) = (10 * day, 3 * day + 1);
    follow(&mut strains, 4 * day, MINUTE, |_| Some(met(n)));
    let again = follow(&mut strains, rest, 3 * MINUTE, |now_ms| Some(met(now_ms)));
    let at: Vec<u64> = again.iter().map(|(at, _)| at - rest).collect();
    assert_eq!(at, [0, MINUTE]);
}

#[test]
fn one_kind_does_not_keep_another_waiting() {
    let mut strains = Strains::default();
    follow(&mut strains, MINUTE, 24 * 60 * MINUTE, |now_ms| Some(met(now_ms)));
    let now_ms = 24 * 60 * MINUTE + 2 * MINUTE;
    let usage = |_| Some(Usage { pids_refused: 7, ..met(now_ms) });
    let told = follow(&mut strains, now_ms, 5_000, usage);
    assert_eq!(told.len(), 1);
    assert!(told[0].1.ends_with("; it met its limit of processes 7 times"), "{told:?}");
}

/// What came back after twice the pause began anew with the shortest one: two hundred results in a day.
#[test]
fn pressure_that_comes_and_goes_is_told_more_and_more_seldom() {
    let mut strains = Strains::default();
    let waves =
        |now_ms: u64| Some(pressed(if (now_ms / (6 * MINUTE)).is_multiple_of(2) { 40 } else { 0 }));
    let told = follow(&mut strains, 0, 24 * 60 * MINUTE, waves);
    assert!((3..=24).contains(&told.len()), "{told:?}");
}

/// All that was told was told again, whenever contractd was started.
#[test]
fn what_was_told_is_not_told_again_by_another_contractd() {
    let mut strains = Strains::default();
    let usage =
        |now_ms: u64| Some(Usage { memory_events: met(now_ms).memory_events, ..pressed(50) });
    follow(&mut strains, MINUTE, 20 * MINUTE, usage);
    let text = serde_json::to_string(&strains).unwrap();
    let mut next: Strains = serde_json::from_str(&text).unwrap();
    assert_eq!(next.sentence(), strains.sentence());
    let before = strains.sentence();
    let told = follow(&mut next, 21 * MINUTE, 5 * MINUTE, usage);
    assert_eq!(told, [], "the pause is remembered too");
    assert_eq!(next.sentence(), before);
    // Also of a run that was written down before there were strains.
    assert_eq!(serde_json::from_str::<Strains>("{}").unwrap(), Strains::default());
}

#[test]
fn a_part_is_of_what_has_passed_since() {
    for (former, now, wanted) in [
        ((0, 0), (0, 0), 0),
        ((10, 5), (10, 5), 0),
        ((10, 5), (20, 10), 5_000),
        ((10, 5), (20, 99), 10_000),
        ((10, 5), (9, 4), 0),
        ((0, 0), (u64::MAX, u64::MAX), 1),
    ] {
        assert_eq!(part(former, now), wanted, "{former:?} {now:?}");
    }
}
