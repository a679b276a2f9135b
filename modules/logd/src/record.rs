//! Records on disk: what a line looks like, and how much of a file can be believed.
//!
//! ```text
//! segment = header record*
//! header  = "ZOSLOG1\n"  life u64  offset u64  crc32 of all before u32
//! record  = length of body u32  crc32 of body u32  body
//! body    = number u64  time_ms u64  n_dropped u64  text (UTF-8)
//! ```
//!
//! Little-endian. Numbers grow. Whatever follows the first record that is not whole and right is no
//! part of the segment: a power cut leaves half a record or zeros there, and neither passes.

use node_api::init::Line;

/// Largest text of a record in bytes; a longer one is cut.
pub const TEXT_MAX: usize = 8 << 10;
const MAGIC: &[u8; 8] = b"ZOSLOG1\n";
/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 28;
/// Length and checksum in front of a body.
const FRAME_SIZE: usize = 8;
/// A body without its text.
const BODY_MIN: usize = 24;
/// Largest record in bytes.
pub const RECORD_MAX: usize = FRAME_SIZE + BODY_MIN + TEXT_MAX;

/// What all records of a segment have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The ring of init that the lines come from.
    pub life: u64,
    /// What is added to the numbers of that ring.
    pub offset: u64,
}

/// What there is at a place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A record of so many bytes.
    Record(Line, usize),
    /// Too few bytes; more may come.
    Short,
    /// No record, whatever comes.
    Bad,
}

/// What of a segment can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// The header.
    pub header: Header,
    /// Number of the newest record.
    pub last: Option<u64>,
    /// Bytes up to the end of the newest record.
    pub size: usize,
}

/// The bytes of a header.
pub fn encode_header(header: Header) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&header.life.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.offset.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..24]);
    bytes[24..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The header that a segment begins with.
pub fn decode_header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER_SIZE)?;
    let is_right = &bytes[..8] == MAGIC && crc32fast::hash(&bytes[..24]) == u32_at(bytes, 24);
    is_right.then(|| Header { life: u64_at(bytes, 8), offset: u64_at(bytes, 16) })
}

/// Adds a record to `bytes`.
pub fn encode(line: &Line, bytes: &mut Vec<u8>) {
    let text = &line.text.as_bytes()[..line.text.floor_char_boundary(TEXT_MAX)];
    let start = bytes.len();
    bytes.extend_from_slice(&[0; FRAME_SIZE]);
    for number in [line.number, line.time_ms, line.n_dropped] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(text);
    let body = &bytes[start + FRAME_SIZE..];
    let size = u32::try_from(body.len()).expect("a body has less than RECORD_MAX bytes");
    let sum = crc32fast::hash(body);
    bytes[start..start + 4].copy_from_slice(&size.to_le_bytes());
    bytes[start + 4..start + FRAME_SIZE].copy_from_slice(&sum.to_le_bytes());
}

/// The record that `bytes` begin with.
pub fn decode(bytes: &[u8]) -> Found {
    if bytes.len() < FRAME_SIZE {
        return Found::Short;
    }
    let Ok(size) = usize::try_from(u32_at(bytes, 0)) else { return Found::Bad };
    if !(BODY_MIN..=BODY_MIN + TEXT_MAX).contains(&size) {
        return Found::Bad;
    }
    let Some(body) = bytes.get(FRAME_SIZE..FRAME_SIZE + size) else { return Found::Short };
    let Ok(text) = str::from_utf8(&body[BODY_MIN..]) else { return Found::Bad };
    if crc32fast::hash(body) != u32_at(bytes, 4) {
        return Found::Bad;
    }
    let line = Line {
        number: u64_at(body, 0),
        time_ms: u64_at(body, 8),
        n_dropped: u64_at(body, 16),
        text: text.to_owned(),
    };
    // It stands for lines that there were.
    if line.number == 0 || line.n_dropped > line.number {
        return Found::Bad;
    }
    Found::Record(line, FRAME_SIZE + size)
}

/// How much of a segment can be believed; `None` without a header.
pub fn scan(bytes: &[u8]) -> Option<Scan> {
    let header = decode_header(bytes)?;
    let mut scan = Scan { header, last: None, size: HEADER_SIZE };
    while let Found::Record(line, size) = decode(&bytes[scan.size..]) {
        if scan.last.is_some_and(|last| line.number <= last) {
            break;
        }
        scan.last = Some(line.number);
        scan.size += size;
    }
    Some(scan)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, text: &str) -> Line {
        Line { number, time_ms: 7, n_dropped: 0, text: text.to_owned() }
    }

    fn segment() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = encode_header(Header { life: 5, offset: 9 }).to_vec();
        let mut ends = vec![bytes.len()];
        for (number, text) in [(10, "one"), (11, ""), (15, "Käse")] {
            encode(&line(number, text), &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let marked = Line { n_dropped: 3, ..line(8, "[3 lines dropped]") };
        encode(&marked, &mut bytes);
        assert_eq!(decode(&bytes), Found::Record(marked, bytes.len()));
        bytes.clear();
        encode(&line(1, &"ä".repeat(TEXT_MAX)), &mut bytes);
        let Found::Record(long, _) = decode(&bytes) else { panic!() };
        assert_eq!(long.text, "ä".repeat(TEXT_MAX / 2));
        assert_eq!(bytes.len(), RECORD_MAX);
    }

    /// The power was cut while a record was on its way to the disk.
    #[test]
    fn a_torn_tail_and_a_hole_of_zeros_are_cut_at_every_byte() {
        let (bytes, ends) = segment();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().rev().find(|end| **end <= cut).copied();
            assert_eq!(scan(&bytes[..cut]).map(|scan| scan.size), whole, "cut at {cut}");
            let mut holed = bytes.clone();
            holed[cut..].fill(0);
            holed.resize(bytes.len() + 4096, 0);
            let found = scan(&holed).map(|scan| scan.size);
            // A record that ends in zeros anyway is whole.
            assert!(
                found >= whole && found.is_none_or(|size| ends.contains(&size)),
                "hole at {cut}"
            );
            assert!(found <= ends.iter().find(|end| **end >= cut).copied(), "hole at {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_ends_the_segment_before_it() {
        let (bytes, ends) = segment();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let whole = ends.iter().rev().find(|end| **end <= at).copied();
            assert_eq!(scan(&flipped).map(|scan| scan.size), whole, "byte {at}");
        }
    }

    #[test]
    fn numbers_that_do_not_grow_are_no_part_of_a_segment() {
        let mut bytes = encode_header(Header { life: 5, offset: 0 }).to_vec();
        encode(&line(2, "two"), &mut bytes);
        let size = bytes.len();
        encode(&line(2, "two again"), &mut bytes);
        let header = Header { life: 5, offset: 0 };
        assert_eq!(scan(&bytes), Some(Scan { header, last: Some(2), size }));
        let mut odd = Vec::new();
        encode(&Line { n_dropped: 3, ..line(2, "") }, &mut odd);
        assert_eq!(decode(&odd), Found::Bad);
    }
}
