//! Reads Cap'n Proto messages, as far as earlier flists use them: structs, text, bytes, lists of
//! structs, in one segment or several, not packed. Pure.
//!
//! Every pointer is checked against its segment. What is read is charged to a budget, because the
//! same bytes can be pointed to many times. Errors are sentences about the message.

use std::cell::Cell;

type Problem = &'static str;

const WORD: usize = 8;
/// Directories of real flists have one.
const SEGMENTS_MAX: usize = 512;
/// How many times over a message may be read.
const READ_FACTOR: usize = 8;

/// A message, cut into its segments.
pub(super) struct Message<'a> {
    segments: Vec<&'a [u8]>,
    /// Words that may still be read.
    budget: Cell<usize>,
}

/// Something that a pointer leads to.
struct Object {
    /// The pointer that says what it is.
    tag: u64,
    segment: usize,
    /// Its first word.
    word: usize,
}

/// A struct: its data, and where its pointers are. Fields that are missing have their defaults.
#[derive(Clone, Copy)]
pub(super) struct Struct<'m> {
    message: &'m Message<'m>,
    data: &'m [u8],
    segment: usize,
    pointers: usize,
    n_pointers: usize,
}

impl<'a> Message<'a> {
    /// A message with its table of segments in front.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let number = |at: usize| {
            let field = bytes.get(at * 4..at * 4 + 4).ok_or("ends in its table of segments")?;
            Ok::<_, Problem>(u32::from_le_bytes(field.try_into().expect("four bytes")) as usize)
        };
        let count = number(0)?.saturating_add(1);
        if count > SEGMENTS_MAX {
            return Err("has too many segments");
        }
        let table = (4 + 4 * count).next_multiple_of(WORD);
        let mut rest = bytes.get(table..).ok_or("ends in its table of segments")?;
        let mut segments = Vec::with_capacity(count);
        for segment in 0..count {
            let size = number(segment + 1)?.saturating_mul(WORD);
            let (segment, behind) = rest.split_at_checked(size).ok_or("is shorter than it says")?;
            segments.push(segment);
            rest = behind;
        }
        if !rest.is_empty() {
            return Err("is longer than it says");
        }
        let budget = Cell::new(bytes.len() / WORD * READ_FACTOR);
        Ok(Self { segments, budget })
    }

    /// The struct that the message is about.
    pub(super) fn root(&'a self) -> Result<Struct<'a>, Problem> {
        match self.object(0, 0)? {
            Some(object) => self.structure(&object),
            None => Err("is empty"),
        }
    }

    fn words(&self, segment: usize, word: usize, count: usize) -> Result<&'a [u8], Problem> {
        let outside = "has a pointer out of its segment";
        let segment = self.segments.get(segment).ok_or(outside)?;
        let (start, size) = (word.checked_mul(WORD), count.checked_mul(WORD));
        let start = start.ok_or(outside)?;
        let end = size.and_then(|size| start.checked_add(size)).ok_or(outside)?;
        segment.get(start..end).ok_or(outside)
    }

    fn word(&self, segment: usize, word: usize) -> Result<u64, Problem> {
        let bytes = self.words(segment, word, 1)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("one word")))
    }

    /// Nothing is charged for bytes twice the size of the message by accident; an attack runs dry.
    fn charge(&self, words: usize) -> Result<(), Problem> {
        let left = self.budget.get().checked_sub(words.max(1));
        self.budget.set(left.ok_or("points to the same bytes over and over")?);
        Ok(())
    }

    /// Follows the pointer at a place, over at most two others. `None` is the null pointer.
    fn object(&self, segment: usize, word: usize) -> Result<Option<Object>, Problem> {
        self.charge(1)?;
        let pointer = self.word(segment, word)?;
        if pointer == 0 {
            return Ok(None);
        }
        if pointer & 3 != 2 {
            return near(pointer, segment, word).map(Some);
        }
        let (segment, word) = far(pointer);
        let tag = self.word(segment, word)?;
        if pointer & 4 == 0 {
            return near(tag, segment, word).map(Some);
        }
        if tag & 7 != 2 {
            return Err("has a far pointer to something else");
        }
        let described = self.word(segment, word + 1)?;
        let (segment, word) = far(tag);
        if described & 2 != 0 {
            return Err("has a far pointer to something else");
        }
        Ok(Some(Object { tag: described, segment, word }))
    }

    fn structure(&'a self, object: &Object) -> Result<Struct<'a>, Problem> {
        if object.tag & 3 != 0 {
            return Err("has something else where a struct should be");
        }
        let (n_data, n_pointers) = sizes(object.tag);
        self.charge(n_data + n_pointers)?;
        self.element(object.segment, object.word, n_data, n_pointers)
    }

    fn element(
        &'a self,
        segment: usize,
        word: usize,
        n_data: usize,
        n_pointers: usize,
    ) -> Result<Struct<'a>, Problem> {
        self.words(segment, word, n_data + n_pointers)?;
        let data = self.words(segment, word, n_data)?;
        Ok(Struct { message: self, data, segment, pointers: word + n_data, n_pointers })
    }
}

fn near(pointer: u64, segment: usize, word: usize) -> Result<Object, Problem> {
    if pointer & 2 != 0 {
        return Err("has a pointer of an unknown kind");
    }
    // The lower half is signed; its upper thirty bits count words from behind the pointer.
    let low = u32::try_from(pointer & u64::from(u32::MAX)).expect("masked");
    let offset = isize::try_from(low.cast_signed() >> 2).expect("a pointer has 64 bits");
    let word = (word + 1).checked_add_signed(offset).ok_or("has a pointer out of its segment")?;
    Ok(Object { tag: pointer, segment, word })
}

/// Segment and word.
fn far(pointer: u64) -> (usize, usize) {
    let part = |bits: u64| usize::try_from(bits).expect("a pointer has 64 bits");
    (part(pointer >> 32), part((pointer & u64::from(u32::MAX)) >> 3))
}

/// Words of data and of pointers.
fn sizes(tag: u64) -> (usize, usize) {
    let part = |bits: u64| usize::try_from(bits & 0xffff).expect("sixteen bits");
    (part(tag >> 32), part(tag >> 48))
}

impl<'m> Struct<'m> {
    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        let field = self.data.get(at..at + N).and_then(|field| field.try_into().ok());
        field.unwrap_or([0; N])
    }

    /// The number at this byte.
    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.number(at))
    }

    /// The number at this byte.
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.number(at))
    }

    /// The number at this byte.
    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.number(at))
    }

    fn object(&self, pointer: usize) -> Result<Option<Object>, Problem> {
        if pointer >= self.n_pointers {
            return Ok(None);
        }
        self.message.object(self.segment, self.pointers + pointer)
    }

    /// The struct at this pointer; `None` when there is none.
    pub(super) fn structure(&self, pointer: usize) -> Result<Option<Struct<'m>>, Problem> {
        let object = self.object(pointer)?;
        object.map(|object| self.message.structure(&object)).transpose()
    }

    /// The bytes at this pointer.
    pub(super) fn bytes(&self, pointer: usize) -> Result<&'m [u8], Problem> {
        let Some(object) = self.object(pointer)? else { return Ok(&[]) };
        let (kind, count) = list(&object)?;
        if kind != 2 {
            return Err("has something else where bytes should be");
        }
        let words = count.div_ceil(WORD);
        self.message.charge(words)?;
        let words = self.message.words(object.segment, object.word, words)?;
        Ok(&words[..count])
    }

    /// The text at this pointer: bytes, without the NUL that ends it.
    pub(super) fn text(&self, pointer: usize) -> Result<&'m [u8], Problem> {
        match self.bytes(pointer)? {
            [] => Ok(&[]),
            [text @ .., 0] => Ok(text),
            _ => Err("has a text without its end"),
        }
    }

    /// The structs of the list at this pointer.
    pub(super) fn list(&self, pointer: usize) -> Result<Vec<Struct<'m>>, Problem> {
        let Some(object) = self.object(pointer)? else { return Ok(Vec::new()) };
        let (kind, count) = list(&object)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        if kind != 7 {
            return Err("has a list of something else than structs");
        }
        // Of such a list, `count` is its words behind a tag.
        let tag = self.message.word(object.segment, object.word)?;
        if tag & 3 != 0 {
            return Err("has a list of something else than structs");
        }
        let (n_data, n_pointers) = sizes(tag);
        let items = usize::try_from((tag & u64::from(u32::MAX)) >> 2).expect("thirty bits");
        let size = n_data + n_pointers;
        if items.saturating_mul(size) > count {
            return Err("has a list that is longer than it says");
        }
        self.message.charge(items.saturating_mul(size.max(1)))?;
        let first = object.word + 1;
        let item =
            |item| self.message.element(object.segment, first + item * size, n_data, n_pointers);
        (0..items).map(item).collect()
    }
}

/// Kind and number of the elements.
fn list(object: &Object) -> Result<(u64, usize), Problem> {
    if object.tag & 3 != 1 {
        return Err("has something else where a list should be");
    }
    let count = usize::try_from(object.tag >> 35).expect("29 bits");
    Ok(((object.tag >> 32) & 7, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of a file, a symlink and a directory, as `capnp encode` (1.0) writes it.
    fn directory() -> Vec<u8> {
        let text = concat!(
            "000000002e0000000000000002000500000000000000000005000000060000001100000012000000",
            "11000000120000001100000097000000000000000000000095000000120000007200000000000000",
            "6c000000000000000c00000003000300030000000000000001000000070000000900000000000000",
            "39000000120000003800000001000100510000001200000000000000000000000200000008000000",
            "00000000000000004500000012000000440000000000010049000000120000000000000000000000",
            "000000000000000000000000000000003d000000120000003c000000000001000000000000000000",
            "66000000000000008000000000000000010000001700000004000000000002000500000012000000",
            "050000000a00000048480000000000004b0000000000000061000000000000007300000000000000",
            "01000000120000007400000000000000610000000000000064000000000000000100000012000000",
            "6b000000000000004100000000000000"
        );
        hex::decode(text).unwrap()
    }

    #[test]
    fn what_the_reference_tool_wrote_is_understood() {
        let bytes = directory();
        let message = Message::parse(&bytes).unwrap();
        let root = message.root().unwrap();
        assert_eq!(
            (root.text(0), root.text(1), root.text(4)),
            (Ok(&b"r"[..]), Ok(&b"l"[..]), Ok(&b"A"[..]))
        );
        assert_eq!((root.u32(8), root.u32(12)), (5, 6));
        let inodes = root.list(2).unwrap();
        let names: Vec<_> = inodes.iter().map(|inode| inode.text(0).unwrap()).collect();
        assert_eq!(names, [b"f", b"s", b"d"]);
        let numbers: Vec<_> = inodes.iter().map(|inode| (inode.u16(8), inode.u32(12))).collect();
        assert_eq!(numbers, [(1, 7), (2, 8), (0, 0)]);
        assert_eq!(inodes[0].u64(0), 3);
        let file = inodes[0].structure(1).unwrap().unwrap();
        let blocks = file.list(0).unwrap();
        assert_eq!((blocks[0].bytes(0), blocks[0].bytes(1)), (Ok(&b"HH"[..]), Ok(&b"K"[..])));
        assert_eq!(inodes[1].structure(1).unwrap().unwrap().text(0), Ok(&b"t"[..]));
        assert_eq!(inodes[2].structure(1).unwrap().unwrap().text(0), Ok(&b"k"[..]));
        assert_eq!(inodes[2].text(2), Ok(&b""[..]), "what is not there is empty");

        let rights = hex::decode(concat!(
            "00000000090000000000000003000300ed8100000400000017fcffffffffffffffffffffffffffff",
            "09000000120000000900000012000000000000000000000075000000000000006700000000000000"
        ));
        let rights = rights.unwrap();
        let message = Message::parse(&rights).unwrap();
        let root = message.root().unwrap();
        assert_eq!((root.u16(0), !root.u64(8), !root.u64(16)), (0o100_755, 1000, 0));
        assert_eq!((root.text(0), root.text(1)), (Ok(&b"u"[..]), Ok(&b"g"[..])));
    }

    /// Reads everything that there is, as far as it goes.
    fn walk(bytes: &[u8]) -> Result<usize, Problem> {
        let message = Message::parse(bytes)?;
        let root = message.root()?;
        let mut read = root.text(0)?.len();
        for inode in root.list(2)? {
            read += inode.text(0)?.len() + inode.text(2)?.len();
            if let Some(inner) = inode.structure(1)? {
                read += inner.list(0).map_or(0, |list| list.len());
                read += inner.text(0).map_or(0, <[u8]>::len);
            }
        }
        Ok(read)
    }

    #[test]
    fn damaged_messages_are_refused_or_read_within_their_bytes() {
        let good = directory();
        assert_eq!(walk(&good), Ok(9));
        for length in 0..good.len() {
            assert!(walk(&good[..length]).is_err(), "cut to {length}");
        }
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[place] ^= 1 << bit;
                // Whatever it says, it says no more than it has.
                if let Ok(read) = walk(&bytes) {
                    assert!(read <= READ_FACTOR * good.len());
                }
            }
        }
    }

    #[test]
    fn pointers_over_other_segments_are_followed_twice_and_no_further() {
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // Two segments of one and three words; the root is behind a far pointer.
        let table = [1_u64 | 1 << 32, 3];
        let bytes: Vec<u8> = words(&[table[0], table[1], 2 | 1 << 32, 1 << 32, 7, 0]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.root().unwrap().u64(0), 7);
        // Over two words: where it is, and what it is.
        let bytes: Vec<u8> =
            words(&[table[0], table[1], 6 | 1 << 32, 2 | 2 << 3 | 1 << 32, 1 << 32, 7]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.root().unwrap().u64(0), 7);
        for bad in [
            [table[0], table[1], 2 | 1 << 32, 2 | 1 << 32, 7, 0],
            [table[0], table[1], 6 | 1 << 32, 1 << 32, 1 << 32, 7],
            [table[0], table[1], 2 | 9 << 32, 1 << 32, 7, 0],
            [table[0], table[1], 2 | 3 << 3 | 1 << 32, 1 << 32, 7, 0],
        ] {
            let bytes: Vec<u8> = words(&bad);
            assert!(Message::parse(&bytes).unwrap().root().is_err(), "{bad:x?}");
        }
    }

    #[test]
    fn a_list_of_nothing_costs_what_it_says() {
        // A struct with one pointer, to a list of 2^29 structs without a word.
        let words = [4_u64 << 32, 1 << 48, 1 | 7 << 32 | 1 << 35, (1 << 29) << 2, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let message = Message::parse(&bytes).unwrap();
        let list = message.root().unwrap().list(0).map(|list| list.len());
        assert_eq!(list, Err("points to the same bytes over and over"));
    }
}
