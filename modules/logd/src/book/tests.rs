//! Books on a real file system: restarts, new lives, bounds, power cuts at every byte, damage.

use super::*;

const SIZE: u64 = 64 << 10;

fn lines(numbers: std::ops::RangeInclusive<u64>) -> Vec<Line> {
    numbers
        .map(|number| Line { number, time_ms: 1, n_dropped: 0, text: format!("line {number}") })
        .collect()
}

fn numbers(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.number).collect()
}

/// As the thread does that syncs.
fn sync(book: &mut Book) {
    crate::sync::bring(&book.unsynced()).unwrap();
    book.was_synced(book.last());
}

fn all(directory: &Path, after: u64) -> Vec<Line> {
    let mut reader = Reader::new(directory, after);
    let mut all = Vec::new();
    loop {
        let some = reader.read(u64::MAX).unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

#[test]
fn lines_go_on_where_they_were_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    assert_eq!((book.last(), book.position(7)), (0, 0));
    book.append(7, &lines(1..=3), SIZE).unwrap();
    sync(&mut book);
    let mut book = Book::open(directory.path()).unwrap();
    assert_eq!((book.last(), book.position(7)), (3, 3));
    // Told twice, kept once.
    book.append(7, &lines(2..=5), SIZE).unwrap();
    assert_eq!(all(directory.path(), 0), lines(1..=5));
    assert_eq!(numbers(&all(directory.path(), 3)), [4, 5]);
    assert!(all(directory.path(), 5).is_empty() && all(directory.path(), 50).is_empty());
}

#[test]
fn nothing_is_read_that_a_power_cut_may_take_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    sync(&mut book);
    book.append(7, &lines(4..=5), SIZE).unwrap();
    assert_eq!((book.synced(), book.is_dirty()), (3, true));
    book.was_synced(2);
    assert_eq!(book.synced(), 3);
    let mut reader = Reader::new(directory.path(), 0);
    assert_eq!(numbers(&reader.read(book.synced()).unwrap()), [1, 2, 3]);
    assert!(reader.read(book.synced()).unwrap().is_empty());
    sync(&mut book);
    assert!(!book.is_dirty());
    assert_eq!(numbers(&reader.read(book.synced()).unwrap()), [4, 5]);
    // Nobody knows what of it has reached the disk.
    assert_eq!(Book::open(directory.path()).unwrap().synced(), 0);
}

#[test]
fn a_directory_is_brought_to_the_disk_when_a_segment_began_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    let brings = |book: &mut Book, life, lines: &[Line]| {
        book.append(life, lines, SIZE).unwrap();
        let paths = book.unsynced();
        sync(book);
        (paths.len(), paths.last().unwrap() == directory.path())
    };
    assert_eq!(brings(&mut book, 7, &lines(1..=3)), (2, true));
    assert_eq!(brings(&mut book, 7, &lines(4..=5)), (1, false));
    assert_eq!(brings(&mut book, 8, &lines(1..=1)), (2, true));
    assert_eq!(brings(&mut book, 8, &lines(2..=2)), (1, false));
    let mut book = Book::open(directory.path()).unwrap();
    assert_eq!(brings(&mut book, 8, &lines(3..=3)), (3, true), "nobody knows what is there");
}

/// The disk said once that it had failed, and then that it had everything; after a power cut numbers
/// that a sink had were given to other lines.
#[test]
fn what_the_disk_has_lost_is_not_taken_for_safe() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    sync(&mut book);
    let first = segment_path(directory.path(), 0);
    let safe = usize::try_from(fs::metadata(&first).unwrap().len()).unwrap();
    book.append(7, &lines(4..=6), SIZE).unwrap();
    assert!(book.is_dirty());
    book.was_lost();
    assert!(!book.is_dirty() && book.synced() == 3, "asking again tells nothing");
    book.append(7, &lines(7..=8), SIZE).unwrap();
    assert!(book.is_dirty());
    sync(&mut book);
    assert_eq!(book.synced(), 8);
    // What was lost is seen when it is read anew.
    let mut bytes = fs::read(&first).unwrap();
    bytes[safe..].fill(0);
    fs::write(&first, bytes).unwrap();
    assert_eq!(Book::open(directory.path()).unwrap().last(), 8, "no number is given again");
    assert_eq!(numbers(&all(directory.path(), 0)), [1, 2, 3, 7, 8]);
}

/// Nobody knows what the former life said after it was asked the last time.
#[test]
fn numbers_go_on_behind_a_mark_when_the_ring_begins_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    assert_eq!(book.position(8), 0);
    book.append(8, &lines(1..=2), SIZE).unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    assert_eq!((book.last(), book.position(8)), (6, 2));
    // The ring had forgotten 3 and 4 before anybody came.
    book.append(8, &lines(5..=5), SIZE).unwrap();
    let kept = all(directory.path(), 0);
    assert_eq!(numbers(&kept), [1, 2, 3, 4, 5, 6, 9]);
    let marks: Vec<_> = kept.iter().filter(|line| line.n_dropped > 0).collect();
    assert_eq!(marks, [&Line { number: 4, time_ms: 1, n_dropped: 1, text: NEW_LIFE.into() }]);
    assert_eq!(kept[6].text, "line 5");
}

/// The process was killed when the segment of another life had its header and nothing else.
#[test]
fn a_mark_that_was_not_written_leaves_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    let header = record::encode_header(Header { life: 8, offset: 4 });
    fs::write(segment_path(directory.path(), 3), header).unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    assert_eq!((book.last(), book.position(8)), (3, 0));
    book.append(8, &lines(1..=2), SIZE).unwrap();
    assert_eq!(numbers(&all(directory.path(), 0)), [1, 2, 3, 5, 6]);
}

fn long(numbers: std::ops::RangeInclusive<u64>) -> Vec<Line> {
    let text = "x".repeat(1000);
    numbers.map(|number| Line { number, time_ms: 1, n_dropped: 0, text: text.clone() }).collect()
}

/// The disk was full of what others had written, and each book lost a segment with each turn.
#[test]
fn a_full_disk_costs_one_segment_in_a_minute_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &long(1..=200), 1 << 20).unwrap();
    let before = list(directory.path()).unwrap();
    assert!(before.len() > 4, "{before:?}");
    // Whatever is written to the newest segment finds no room.
    let newest = segment_path(directory.path(), before.last().unwrap().0);
    let real = directory.path().join("real");
    fs::rename(&newest, &real).unwrap();
    std::os::unix::fs::symlink("/dev/full", &newest).unwrap();
    let mut refused = |n_gone: usize| {
        let error = book.append(7, &long(201..=201), 1 << 20).unwrap_err();
        assert_eq!((error.kind(), book.last()), (io::ErrorKind::StorageFull, 200));
        let gone = &before[..n_gone];
        assert!(gone.iter().all(|(name, _)| !segment_path(directory.path(), *name).exists()));
        assert_eq!(names(directory.path()).unwrap().len(), before.len() - n_gone);
    };
    (0..REFUSALS_MAX).for_each(|_| refused(1));
    (0..REFUSALS_MAX).for_each(|_| refused(2));
    fs::rename(&real, &newest).unwrap();
    book.append(7, &long(201..=201), 1 << 20).unwrap();
    let kept = numbers(&all(directory.path(), before[2].0));
    assert_eq!(kept, (before[2].0 + 1..=201).collect::<Vec<_>>());
    // The next full disk costs one at once.
    fs::remove_file(&newest).unwrap();
    std::os::unix::fs::symlink("/dev/full", &newest).unwrap();
    book.append(7, &long(202..=202), 1 << 20).unwrap_err();
    assert_eq!(names(directory.path()).unwrap().len(), before.len() - 3);
}

/// The oldest segment is what stands in the way of the next one.
#[test]
fn the_room_of_the_oldest_segment_is_used_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &long(1..=100), 1 << 20).unwrap();
    let oldest = segment_path(directory.path(), 0);
    fs::remove_file(&oldest).unwrap();
    std::os::unix::fs::symlink("/dev/full", &oldest).unwrap();
    std::os::unix::fs::symlink(&oldest, segment_path(directory.path(), 100)).unwrap();
    // Another life begins another segment.
    book.append(8, &lines(1..=3), 1 << 20).unwrap();
    assert_eq!((book.last(), book.n_refusals), (104, 0));
    assert_eq!(numbers(&all(directory.path(), 99)), [100, 101, 102, 103, 104]);
}

#[test]
fn a_book_that_nobody_writes_to_shrinks_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    for round in 0..300 {
        book.append(7, &lines(round * 100 + 1..=round * 100 + 100), 1 << 20).unwrap();
    }
    let size = || -> u64 { list(directory.path()).unwrap().iter().map(|(_, size)| size).sum() };
    assert!((800 << 10..=1 << 20).contains(&size()), "{}", size());
    let mut book = Book::open(directory.path()).unwrap();
    for size_max in [256 << 10, 64 << 10] {
        book.trim(size_max).unwrap();
        assert!((1..=size_max).contains(&size()), "{} of {size_max}", size());
    }
    assert_eq!(all(directory.path(), 0).last().unwrap().number, 30_000);
    // Who has almost all of it finds the rest at once.
    let mut late = Reader::new(directory.path(), 29_999);
    assert_eq!(numbers(&late.read(u64::MAX).unwrap()), [30_000]);
}

#[test]
fn old_lines_go_and_the_size_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    let mut follower = Reader::new(directory.path(), 0);
    let mut heard = Vec::new();
    for round in 0..100 {
        book.append(7, &lines(round * 100 + 1..=round * 100 + 100), SIZE).unwrap();
        let size: u64 = list(directory.path()).unwrap().iter().map(|(_, size)| size).sum();
        assert!(size <= SIZE, "{size}");
        loop {
            let some = follower.read(u64::MAX).unwrap();
            assert!(some.len() <= LINES_MAX);
            if some.is_empty() {
                break;
            }
            heard.extend(some);
        }
    }
    assert_eq!(numbers(&heard), (1..=10_000).collect::<Vec<_>>(), "who follows misses nothing");
    let kept = all(directory.path(), 0);
    assert!(kept.len() > 500, "{}", kept.len());
    assert_eq!(kept, lines(kept[0].number..=10_000), "the newest, without a gap");
    // Who comes late goes on with the oldest that is left.
    assert_eq!(numbers(&all(directory.path(), 5))[0], kept[0].number);
    assert_eq!(Book::open(directory.path()).unwrap().last(), 10_000);
}

#[test]
fn many_lives_are_bounded_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    for life in 0..200 {
        book.append(life, &lines(1..=1), 1 << 20).unwrap();
    }
    assert_eq!(list(directory.path()).unwrap().len(), SEGMENTS_MAX);
    assert_eq!(book.last(), 399, "with a mark between each two");
}

/// The power was cut at any byte of the newest segment, or left zeros there.
#[test]
fn what_a_power_cut_leaves_is_read_and_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    book.append(8, &lines(1..=3), SIZE).unwrap();
    let path = segment_path(directory.path(), 3);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        for zeros in [0, 4096] {
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + zeros, 0);
            fs::write(&path, &bytes).unwrap();
            let mut book = Book::open(directory.path()).unwrap();
            let last = book.last();
            assert!((3..=6).contains(&last), "{last} after a cut at {cut}");
            book.append(9, &lines(1..=1), SIZE).unwrap();
            let kept = numbers(&all(directory.path(), 0));
            assert_eq!(kept, (1..=last + 2).collect::<Vec<_>>(), "cut at {cut}");
            fs::remove_file(segment_path(directory.path(), last)).unwrap();
        }
    }
}

#[test]
fn a_reader_stops_at_its_limit_although_there_is_a_newer_segment() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    book.append(8, &lines(1..=3), SIZE).unwrap();
    let mut reader = Reader::new(directory.path(), 0);
    assert_eq!(numbers(&reader.read(2).unwrap()), [1, 2]);
    assert!(reader.read(2).unwrap().is_empty());
    assert_eq!(numbers(&reader.read(5).unwrap()), [3]);
    assert_eq!(numbers(&reader.read(5).unwrap()), [4, 5]);
}

/// Between the end of a segment and a look at the directory, a line came and another segment began.
#[test]
fn a_reader_misses_nothing_when_a_segment_begins_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    let mut reader = Reader::new(directory.path(), 0);
    assert_eq!(numbers(&reader.read(u64::MAX).unwrap()), [1, 2, 3]);
    let meanwhile = || {
        book.append(7, &lines(4..=4), SIZE).unwrap();
        book.append(8, &lines(1..=1), SIZE).unwrap();
        names(directory.path())
    };
    assert_eq!(numbers(&reader.read_by(u64::MAX, meanwhile).unwrap()), [4]);
    assert_eq!(numbers(&reader.read(u64::MAX).unwrap()), [5, 6]);
}

#[test]
fn a_reader_whose_segment_has_gone_goes_on_with_the_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &long(1..=100), 1 << 20).unwrap();
    let mut reader = Reader::new(directory.path(), 0);
    let read = numbers(&reader.read(u64::MAX).unwrap()).len();
    assert!((1..30).contains(&read), "{read} of the first segment");
    book.trim(SIZE).unwrap();
    let oldest = names(directory.path()).unwrap()[0];
    assert!(oldest > 30);
    assert_eq!(reader.read(u64::MAX).unwrap()[0].number, oldest + 1);
}

#[test]
fn a_reader_stops_before_half_a_record_and_goes_on_when_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=2), SIZE).unwrap();
    let path = segment_path(directory.path(), 0);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let mut reader = Reader::new(directory.path(), 0);
    assert_eq!(numbers(&reader.read(u64::MAX).unwrap()), [1]);
    assert!(reader.read(u64::MAX).unwrap().is_empty());
    fs::write(&path, &whole).unwrap();
    assert_eq!(numbers(&reader.read(u64::MAX).unwrap()), [2]);
}

#[test]
fn damage_in_the_middle_costs_the_rest_of_its_segment() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::open(directory.path()).unwrap();
    book.append(7, &lines(1..=3), SIZE).unwrap();
    book.append(8, &lines(1..=2), SIZE).unwrap();
    let path = segment_path(directory.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(numbers(&all(directory.path(), 0)), [1, 4, 5, 6]);
}
