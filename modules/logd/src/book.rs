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
};

/// A book is divided into so many segments, so that a quarter of it goes at a time.
const SEGMENTS: u64 = 4;
/// Segments are never more than this, however often the machine was started.
const SEGMENTS_MAX: usize = 64;
/// Largest segment that is read: what another version of this program may have written.
const SEGMENT_MAX: u64 = 4 << 20;
/// What a reader takes at once.
const READ_MAX: usize = 64 << 10;
/// Pieces that are looked at for lines in one call: more than a book has.
const TURNS_MAX: usize = 512;

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
        Ok(Self { directory: directory.to_owned(), segments, header, last, synced: 0 })
    }

    /// Number of the newest line that survives a power cut. Numbers above it may be given again.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether there are lines that a power cut takes away.
    pub fn is_dirty(&self) -> bool {
        self.synced < self.last
    }

    /// Everything that was written to its file system has reached the disk.
    pub fn was_synced(&mut self) {
        self.synced = self.last;
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

    /// Adds lines of the ring with this life, numbered as there, and lets old ones go so that there
    /// are at most about `size_max` bytes. What fails was not done, and may be done again.
    pub fn append(&mut self, life: u64, lines: &[Line], size_max: u64) -> io::Result<()> {
        let segment_max = size_max / SEGMENTS;
        let mut lines = lines;
        while !lines.is_empty() {
            let is_full = self.segments.last().is_none_or(|(_, size)| *size >= segment_max);
            if is_full || self.header.is_none_or(|header| header.life != life) {
                self.begin(life)?;
            }
            let n = self.append_some(lines, segment_max)?;
            lines = &lines[n..];
        }
        self.trim(size_max)
    }

    /// Adds lines to the newest segment while it is not full. Returns how many.
    fn append_some(&mut self, lines: &[Line], segment_max: u64) -> io::Result<usize> {
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

    fn begin(&mut self, life: u64) -> io::Result<()> {
        let same = self.header.filter(|header| header.life == life);
        let header = same.unwrap_or(Header { life, offset: self.last });
        // The newest segment holds nothing: its place is taken.
        self.segments.retain(|(name, _)| *name != self.last);
        let path = segment_path(&self.directory, self.last);
        fs::write(path, record::encode_header(header))?;
        self.segments.push((self.last, HEADER_SIZE as u64));
        self.header = Some(header);
        Ok(())
    }

    fn trim(&mut self, size_max: u64) -> io::Result<()> {
        let size = |segments: &[(u64, u64)]| segments.iter().map(|(_, size)| size).sum::<u64>();
        while self.segments.len() > 1
            && (size(&self.segments) > size_max || self.segments.len() > SEGMENTS_MAX)
        {
            fs::remove_file(segment_path(&self.directory, self.segments[0].0))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Makes what was added since the last time survive a power cut.
    pub fn sync(&mut self) -> io::Result<()> {
        // Lines that were added since may have filled more than one.
        for (name, _) in self.segments.iter().rev() {
            File::open(segment_path(&self.directory, *name))?.sync_data()?;
            if *name <= self.synced {
                break;
            }
        }
        File::open(&self.directory)?.sync_all()?;
        self.was_synced();
        Ok(())
    }
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
        let segments = list(&self.directory)?;
        for _ in 0..TURNS_MAX {
            let Some((name, from)) = self.locate(&segments) else { return Ok(Vec::new()) };
            let (lines, next) = self.read_segment(name, from, limit)?;
            self.place = Some((name, next));
            if let Some(line) = lines.last() {
                self.last = line.number;
                return Ok(lines);
            }
            let Some((newer, _)) = segments.iter().find(|(other, _)| *other > name) else {
                return Ok(Vec::new());
            };
            if next == from {
                self.place = Some((*newer, HEADER_SIZE as u64));
            }
        }
        Ok(Vec::new())
    }

    /// Where to read on: in the segment that it stands in, or in the one that holds the next number.
    fn locate(&self, segments: &[(u64, u64)]) -> Option<(u64, u64)> {
        let still = self.place.filter(|(name, _)| segments.iter().any(|(other, _)| other == name));
        let found = || {
            let before = segments.iter().rev().find(|(name, _)| *name <= self.last);
            before.or(segments.first()).map(|(name, _)| (*name, HEADER_SIZE as u64))
        };
        still.or_else(found)
    }

    fn read_segment(&self, name: u64, from: u64, limit: u64) -> io::Result<(Vec<Line>, u64)> {
        let mut file = match File::open(segment_path(&self.directory, name)) {
            Ok(file) => file,
            // It has just gone, because it was the oldest.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take((READ_MAX + RECORD_MAX) as u64).read_to_end(&mut bytes)?;
        let (mut lines, mut at) = (Vec::new(), 0);
        while at < READ_MAX
            && let Found::Record(line, size) = record::decode(&bytes[at..])
            && line.number <= limit
        {
            at += size;
            if line.number > lines.last().map_or(self.last, |line: &Line| line.number) {
                lines.push(line);
            }
        }
        Ok((lines, from + at as u64))
    }
}

/// Names and sizes of the segments, oldest first.
fn list(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut segments = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        // One that is gone since is not there.
        if let (Some(name), Ok(known)) = (name, entry.metadata()) {
            segments.push((name, known.len()));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn segment_path(directory: &Path, name: u64) -> PathBuf {
    directory.join(format!("{name:020}.log"))
}

#[cfg(test)]
mod tests;
