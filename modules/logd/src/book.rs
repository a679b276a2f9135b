//! The lines of one workload on disk: segments of bounded size, the oldest of which go.
//!
//! A directory holds `<number before the first record>.log`. One process appends, and any number
//! of readers follow. Start = recover: what a power cut tore off is cut from the newest segment; a
//! segment without a header never was one.

use crate::record::{self, Found, HEADER_SIZE, Header, RECORD_MAX};
use node_api::init::Line;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A segment is full at this size, and a small book is divided into so many of them: what goes when
/// a book has to be smaller is never much, and never more has to stay.
const SEGMENT_SIZE: u64 = 32 << 10;
const SEGMENTS: u64 = 4;
/// Segments are never more than this, however often the machine was started.
const SEGMENTS_MAX: usize = 64;
/// Largest segment that is read: what another version of this program may have written.
const SEGMENT_MAX: u64 = 4 << 20;
/// A file takes whole blocks.
const BLOCK: u64 = 4096;
/// What a reader takes at once: some bytes, and as many lines. Each sink may hold so much.
const READ_MAX: usize = 8 << 10;
const LINES_MAX: usize = 128;
/// Pieces that are looked at for lines in one call: more than a book has.
const TURNS_MAX: usize = 512;

/// Appends that find no room until another segment goes for it: some of one minute. A disk that others
/// have filled is no fuller by old lines.
const REFUSALS_MAX: u32 = 120;

/// What a book says where it goes on with another ring.
const NEW_LIFE: &str = "[counted anew: lines of the last moments before this may be missing]";

/// Appends to the lines of one workload.
#[derive(Debug)]
pub struct Book {
    directory: PathBuf,
    /// First name and size of each segment, oldest first.
    segments: Vec<(u64, u64)>,
    /// Of the newest segment.
    header: Option<Header>,
    /// Number of the newest line; 0 before the first.
    last: u64,
    /// Number of the newest line that a power cut cannot take away.
    synced: u64,
    /// The disk has failed to take the newest segment. It says so once: asked again, it says that all
    /// is well, although what it has not taken is lost.
    is_lost: bool,
    /// Appends that have found no room since one has.
    n_refusals: u32,
}

impl Book {
    /// Opens what is there, and cuts what is torn.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut segments = list(directory)?;
        let mut header = None;
        let mut last = 0;
        while let Some((name, size)) = segments.last_mut() {
            let path = segment_path(directory, *name);
            let mut bytes = Vec::new();
            File::open(&path)?.take(SEGMENT_MAX).read_to_end(&mut bytes)?;
            if let Some(scan) = record::scan(&bytes) {
                let whole = scan.size as u64;
                if whole < *size {
                    OpenOptions::new().write(true).open(&path)?.set_len(whole)?;
                }
                *size = whole;
                header = Some(scan.header);
                last = scan.last.unwrap_or(*name);
                break;
            }
            fs::remove_file(&path)?;
            segments.pop();
        }
        // Who was here before may have been killed before it was on the disk.
        let directory = directory.to_owned();
        Ok(Self { directory, segments, header, last, synced: 0, is_lost: false, n_refusals: 0 })
    }

    /// Number of the newest line that survives a power cut. Numbers above it may be given again.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether there are lines that a power cut takes away, and that may still be brought to the disk.
    pub fn is_dirty(&self) -> bool {
        self.synced < self.last && !self.is_lost
    }

    /// The disk has failed to take some of the lines. Nothing after them counts as safe before it stands
    /// in another segment, which a start finds behind whatever is left of this one.
    pub fn was_lost(&mut self) {
        self.is_lost = true;
    }

    /// The lines up to this number have reached the disk.
    pub fn was_synced(&mut self, last: u64) {
        self.synced = self.synced.max(last.min(self.last));
    }

    /// Number of the newest line; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Where to go on in the ring of init that has this life: behind this number of its.
    pub fn position(&self, life: u64) -> u64 {
        self.header
            .filter(|header| header.life == life)
            .map_or(0, |header| self.last.saturating_sub(header.offset))
    }

    /// Adds lines of the ring with this life, numbered as there, and lets old ones go before, so that
    /// there are at most about `size_max` bytes. What fails was not done, and may be done again.
    pub fn append(&mut self, life: u64, lines: &[Line], size_max: u64) -> io::Result<()> {
        let mut lines = lines;
        while !lines.is_empty() {
            let mut done = self.append_some(life, lines, size_max);
            // The room that there should be is not there: old lines of its own are what it can give.
            if done.as_ref().is_err_and(is_full) && self.segments.len() > 1 {
                if self.n_refusals.is_multiple_of(REFUSALS_MAX) {
                    self.remove_oldest()?;
                    done = self.append_some(life, lines, size_max);
                }
                self.n_refusals = self.n_refusals.wrapping_add(1);
            }
            lines = &lines[done?..];
            self.n_refusals = 0;
        }
        Ok(())
    }

    /// Adds lines to the newest segment while it is not full. Returns how many.
    fn append_some(&mut self, life: u64, lines: &[Line], size_max: u64) -> io::Result<usize> {
        let segment_max = (size_max / SEGMENTS).min(SEGMENT_SIZE);
        let is_full = self.segments.last().is_none_or(|(_, size)| *size >= segment_max);
        if is_full || self.is_lost || self.header.is_none_or(|header| header.life != life) {
            let room = segment_max + RECORD_MAX as u64 + BLOCK;
            self.shrink(size_max.saturating_sub(room), SEGMENTS_MAX - 1)?;
            self.begin(life, lines.first().map_or(0, |line| line.time_ms))?;
        }
        let (Some((name, size)), Some(header)) = (self.segments.last_mut(), self.header) else {
            return Ok(0);
        };
        let (mut bytes, mut n, mut last) = (Vec::new(), 0, self.last);
        for line in lines {
            let number = line.number.saturating_add(header.offset);
            if n > 0 && *size + bytes.len() as u64 >= segment_max {
                break;
            }
            n += 1;
            // A line that is there already, or one of a ring that does not count as it should.
            if number > last {
                record::encode(&Line { number, ..line.clone() }, &mut bytes);
                last = number;
            }
        }
        let file = OpenOptions::new().write(true).open(segment_path(&self.directory, *name))?;
        if let Err(error) = file.write_all_at(&bytes, *size) {
            // Half a record: the next one is written over it, and a reader stops before it.
            file.set_len(*size).ok();
            return Err(error);
        }
        *size += bytes.len() as u64;
        self.last = last;
        Ok(n)
    }

    /// Begins a segment. Where another life ended, a line says so: nobody knows what it has said since
    /// it was asked the last time.
    fn begin(&mut self, life: u64, time_ms: u64) -> io::Result<()> {
        let same = self.header.filter(|header| header.life == life);
        let is_another = same.is_none() && self.last > 0;
        let last = self.last.saturating_add(u64::from(is_another));
        let header = same.unwrap_or(Header { life, offset: last });
        let mut bytes = record::encode_header(header).to_vec();
        if is_another {
            let text = NEW_LIFE.to_owned();
            record::encode(&Line { number: last, time_ms, n_dropped: 1, text }, &mut bytes);
        }
        // The newest segment holds nothing: its place is taken.
        self.segments.retain(|(name, _)| *name != self.last);
        fs::write(segment_path(&self.directory, self.last), &bytes)?;
        self.segments.push((self.last, bytes.len() as u64));
        self.header = Some(header);
        self.last = last;
        self.is_lost = false;
        Ok(())
    }

    /// Lets old lines go until it takes at most about `size_max` bytes.
    pub fn trim(&mut self, size_max: u64) -> io::Result<()> {
        self.shrink(size_max, SEGMENTS_MAX)
    }

    fn shrink(&mut self, size_max: u64, segments_max: usize) -> io::Result<()> {
        while self.segments.len() > 1
            && (self.size() > size_max || self.segments.len() > segments_max)
        {
            self.remove_oldest()?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        match fs::remove_file(segment_path(&self.directory, self.segments[0].0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.segments.remove(0);
        Ok(())
    }

    /// What it takes of the disk in bytes.
    fn size(&self) -> u64 {
        self.segments.iter().map(|(_, size)| size.next_multiple_of(BLOCK)).sum()
    }

    /// What has to be brought to the disk, in this order, so that its lines survive a power cut.
    pub fn unsynced(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for (name, _) in self.segments.iter().rev() {
            paths.push(segment_path(&self.directory, *name));
            // The older ones hold nothing that is newer.
            if *name <= self.synced {
                break;
            }
        }
        // The newest one has its name on the disk since a line of it is there.
        if self.segments.last().is_some_and(|(name, _)| *name >= self.synced) {
            paths.push(self.directory.clone());
        }
        paths
    }
}

/// Whether there is no room on the disk, or none in its share.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Follows the lines of one workload.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    /// Number of the last line that was given.
    last: u64,
    /// Name of the segment that it stands in, and how far.
    place: Option<(u64, u64)>,
}

impl Reader {
    /// Begins behind line `after`.
    pub fn new(directory: &Path, after: u64) -> Self {
        Self { directory: directory.to_owned(), last: after, place: None }
    }

    /// The next lines up to number `limit`, a bounded number of them; none when there are no more yet.
    /// Where numbers are left out, lines are gone.
    pub fn read(&mut self, limit: u64) -> io::Result<Vec<Line>> {
        let directory = self.directory.clone();
        self.read_by(limit, || names(&directory))
    }

    fn read_by(
        &mut self,
        limit: u64,
        mut names: impl FnMut() -> io::Result<Vec<u64>>,
    ) -> io::Result<Vec<Line>> {
        // Looked at when a segment has ended or gone only, not for each piece.
        let mut segments = None;
        for _ in 0..TURNS_MAX {
            let Some((name, from)) = self.place else {
                let known = names()?;
                let holds_next = known.iter().rev().find(|name| **name <= self.last);
                let Some(name) = holds_next.or(known.first()) else { return Ok(Vec::new()) };
                self.place = Some((*name, HEADER_SIZE as u64));
                segments = Some(known);
                continue;
            };
            let Some((lines, next, is_limited)) = self.read_segment(name, from, limit)? else {
                self.place = None;
                continue;
            };
            self.place = Some((name, next));
            if let Some(line) = lines.last() {
                self.last = line.number;
                return Ok(lines);
            }
            if is_limited {
                return Ok(lines);
            }
            // What it has read was given before: there may be more of it.
            if next > from {
                continue;
            }
            // Only a segment that ended when a newer one was there already has ended for good.
            let Some(known) = &segments else {
                segments = Some(names()?);
                continue;
            };
            let Some(newer) = known.iter().find(|other| **other > name) else {
                return Ok(Vec::new());
            };
            self.place = Some((*newer, HEADER_SIZE as u64));
        }
        Ok(Vec::new())
    }

    /// Lines of a segment, how far they reach, and whether the next one is above the limit; nothing
    /// when it has gone, because it was the oldest.
    fn read_segment(
        &self,
        name: u64,
        from: u64,
        limit: u64,
    ) -> io::Result<Option<(Vec<Line>, u64, bool)>> {
        let mut file = match File::open(segment_path(&self.directory, name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take((READ_MAX + RECORD_MAX) as u64).read_to_end(&mut bytes)?;
        let (mut lines, mut at, mut is_limited) = (Vec::new(), 0, false);
        while at < READ_MAX
            && lines.len() < LINES_MAX
            && let Found::Record(line, size) = record::decode(&bytes[at..])
        {
            is_limited = line.number > limit;
            if is_limited {
                break;
            }
            at += size;
            if line.number > lines.last().map_or(self.last, |line: &Line| line.number) {
                lines.push(line);
            }
        }
        Ok(Some((lines, from + at as u64, is_limited)))
    }
}

/// When the newest line of the book in this directory was written.
pub(crate) fn written(directory: &Path) -> io::Result<SystemTime> {
    let newest = names(directory)?.pop().ok_or(io::ErrorKind::NotFound)?;
    fs::metadata(segment_path(directory, newest))?.modified()
}

/// Names and sizes of the segments, oldest first.
fn list(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let size = |name| Ok((name, fs::metadata(segment_path(directory, name))?.len()));
    names(directory)?.into_iter().map(size).collect()
}

/// Names of the segments, oldest first.
fn names(directory: &Path) -> io::Result<Vec<u64>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()));
    }
    names.sort_unstable();
    Ok(names)
}

fn segment_path(directory: &Path, name: u64) -> PathBuf {
    directory.join(format!("{name:020}.log"))
}

#[cfg(test)]
mod tests;
