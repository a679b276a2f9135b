//! A disk that forgets: what a guest writes is on it only after a flush, and a power cut leaves any part
//! of the rest. QEMU reaches it over a unix socket by the NBD protocol (the fixed newstyle handshake
//! and simple replies of its `doc/proto.md`). Owns the bytes; refuses nothing but nonsense.
//!
//! ```text
//! write ──► now, dirty ──flush──► durable          power cut: of each dirty block, `now` or `durable`
//! ```

use crate::chance::Chance;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// What is written whole or not at all, as disks of today promise it.
const BLOCK: usize = 4096;
/// One request of QEMU, which splits larger ones.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Options of one handshake, and bytes of each.
const OPTIONS_MAX: usize = 64;
const OPTION_BYTES_MAX: usize = 4096;

/// Names of the protocol.
mod word {
    pub(super) const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";
    pub(super) const OPTION: u64 = 0x4948_4156_454f_5054;
    pub(super) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
    pub(super) const REQUEST: u32 = 0x2560_9513;
    pub(super) const REPLY: u32 = 0x6744_6698;
    /// Fixed newstyle, no zeroes at the end of the handshake.
    pub(super) const HANDSHAKE: u16 = 1 | 2;
    pub(super) const GO: u32 = 7;
    pub(super) const ACKNOWLEDGED: u32 = 1;
    pub(super) const INFORMATION: u32 = 3;
    pub(super) const UNSUPPORTED: u32 = (1 << 31) | 1;
    /// There are flags; flush and FUA are understood.
    pub(super) const EXPORT: u16 = 1 | 4 | 8;
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const END: u16 = 2;
    pub(super) const FLUSH: u16 = 3;
    pub(super) const AT_ONCE: u16 = 1;
    pub(super) const INVALID: u32 = 22;
}

/// The disk. Its content lives as long as the value.
#[derive(Debug)]
pub(crate) struct VolatileDisk {
    blocks: Arc<Mutex<Blocks>>,
    socket: PathBuf,
    /// Serves the machine that is plugged in, until that goes away.
    serving: Option<JoinHandle<Result<()>>>,
}

impl VolatileDisk {
    /// A disk with the content of a file, which is only read.
    pub(crate) fn new(content: &Path, socket: &Path) -> Result<Self> {
        let mut file = File::open(content).context("opening the disk's content")?;
        let size = usize::try_from(file.metadata()?.len())?;
        ensure!(size.is_multiple_of(BLOCK), "a disk has whole blocks");
        let mut durable = vec![0; size];
        let mut block = [0; BLOCK];
        for place in durable.chunks_exact_mut(BLOCK) {
            file.read_exact(&mut block)?;
            // Untouched memory costs nothing.
            if block.iter().any(|byte| *byte != 0) {
                place.copy_from_slice(&block);
            }
        }
        let now = sparse_copy(&durable);
        let blocks = Blocks { now, durable, dirty: BTreeSet::new(), left: None };
        let blocks = Arc::new(Mutex::new(blocks));
        Ok(Self { blocks, socket: socket.to_owned(), serving: None })
    }

    /// Arguments of QEMU for a machine with this disk, which can then be started.
    pub(crate) fn plug(&mut self) -> Result<Vec<String>> {
        self.unplugged()?;
        if self.socket.exists() {
            std::fs::remove_file(&self.socket)?;
        }
        let listener = UnixListener::bind(&self.socket).context("listening for QEMU")?;
        let blocks = Arc::clone(&self.blocks);
        self.serving = Some(thread::spawn(move || serve(&listener.accept()?.0, &blocks)));
        // Write-back: a flush of the guest is a flush here, and nothing else is.
        let drive = format!(
            "driver=nbd,server.type=unix,server.path={},if=none,id=volatile,cache=writeback",
            self.socket.display()
        );
        let device = "virtio-blk-pci,drive=volatile,serial=volatile";
        Ok(["-drive", &drive, "-device", device].map(str::to_owned).to_vec())
    }

    /// From now on the disk takes so many writes and flushes, and then nothing more: it says no word
    /// until the machine is gone.
    pub(crate) fn freeze_after(&self, requests: usize) {
        lock(&self.blocks).left = Some(requests);
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_frozen(&self) -> bool {
        lock(&self.blocks).left == Some(0)
    }

    /// The power was cut, and the machine is gone. Of each block that was written since the last flush,
    /// chance decides whether the disk has it. Says how many it has and how many it has not.
    pub(crate) fn cut(&mut self, chance: &Chance) -> Result<(usize, usize)> {
        self.unplugged()?;
        // Nearly nothing, a half, or nearly all of it.
        let share = chance.one_of(5);
        Ok(lock(&self.blocks).cut(|| chance.one_of(4) < share))
    }

    /// Waits until the machine is gone.
    fn unplugged(&mut self) -> Result<()> {
        let Some(serving) = self.serving.take() else { return Ok(()) };
        // In the place of a machine that never came; else nobody listens.
        drop(UnixStream::connect(&self.socket));
        serving.join().expect("serving does not panic").context("serving a disk")
    }
}

fn sparse_copy(bytes: &[u8]) -> Vec<u8> {
    let mut copy = vec![0; bytes.len()];
    for (to, from) in copy.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK)) {
        if from.iter().any(|byte| *byte != 0) {
            to.copy_from_slice(from);
        }
    }
    copy
}

fn lock(blocks: &Mutex<Blocks>) -> MutexGuard<'_, Blocks> {
    blocks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Blocks {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Blocks that differ.
    dirty: BTreeSet<usize>,
    /// Writes and flushes that are still taken; `None`: all.
    left: Option<usize>,
}

impl Blocks {
    fn range(&self, offset: u64, length: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length).filter(|end| *end <= self.now.len())?;
        Some(start..end)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Option<()> {
        let range = self.range(offset, bytes.len())?;
        self.dirty.extend(blocks_of(&range));
        self.now[range].copy_from_slice(bytes);
        Some(())
    }

    fn flush(&mut self) {
        for block in std::mem::take(&mut self.dirty) {
            self.keep(block);
        }
    }

    /// What is written with FUA is durable by itself, and nothing else is.
    fn flush_only(&mut self, offset: u64, length: usize) {
        let Some(range) = self.range(offset, length) else { return };
        for block in blocks_of(&range) {
            if self.dirty.remove(&block) {
                self.keep(block);
            }
        }
    }

    fn keep(&mut self, block: usize) {
        let range = block * BLOCK..(block + 1) * BLOCK;
        self.durable[range.clone()].copy_from_slice(&self.now[range]);
    }

    /// Counts a write or a flush. Says whether it is taken.
    fn takes_one(&mut self) -> bool {
        let is_taken = self.left != Some(0);
        self.left = self.left.map(|left| left.saturating_sub(1));
        is_taken
    }

    fn cut(&mut self, mut survives: impl FnMut() -> bool) -> (usize, usize) {
        self.left = None;
        let (mut kept, mut lost) = (0, 0);
        for block in std::mem::take(&mut self.dirty) {
            if survives() {
                self.keep(block);
                kept += 1;
            } else {
                let range = block * BLOCK..(block + 1) * BLOCK;
                self.now[range.clone()].copy_from_slice(&self.durable[range]);
                lost += 1;
            }
        }
        (kept, lost)
    }
}

fn blocks_of(range: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

/// Serves one machine until it goes away, which may be at any byte.
fn serve(stream: &UnixStream, blocks: &Mutex<Blocks>) -> Result<()> {
    let mut from = BufReader::new(stream);
    match shake_hands(&mut from, stream, blocks)
        .and_then(|()| answer_all(&mut from, stream, blocks))
    {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind()))
}

fn number<const N: usize>(from: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map(|()| bytes)
}

fn shake_hands(from: &mut impl Read, mut to: impl Write, blocks: &Mutex<Blocks>) -> Result<()> {
    to.write_all(word::GREETING)?;
    to.write_all(&word::HANDSHAKE.to_be_bytes())?;
    number::<4>(from)?;
    for _ in 0..OPTIONS_MAX {
        ensure!(u64::from_be_bytes(number(from)?) == word::OPTION, "this is no option");
        let option = u32::from_be_bytes(number(from)?);
        let length = usize::try_from(u32::from_be_bytes(number(from)?))?;
        ensure!(length <= OPTION_BYTES_MAX, "an option of {length} bytes");
        let mut ignored = vec![0; length];
        from.read_exact(&mut ignored)?;
        let mut reply = |kind: u32, body: &[u8]| -> Result<()> {
            let length = u32::try_from(body.len())?;
            to.write_all(&word::OPTION_REPLY.to_be_bytes())?;
            to.write_all(&option.to_be_bytes())?;
            to.write_all(&kind.to_be_bytes())?;
            to.write_all(&length.to_be_bytes())?;
            Ok(to.write_all(body)?)
        };
        if option == word::GO {
            // Of the kind 0: size and flags of the export.
            let size = (lock(blocks).now.len() as u64).to_be_bytes();
            let body = [&[0, 0], size.as_slice(), &word::EXPORT.to_be_bytes()].concat();
            reply(word::INFORMATION, &body)?;
            return reply(word::ACKNOWLEDGED, &[]);
        }
        reply(word::UNSUPPORTED, &[])?;
    }
    bail!("the handshake has no end")
}

fn answer_all(from: &mut impl Read, mut to: impl Write, blocks: &Mutex<Blocks>) -> Result<()> {
    loop {
        ensure!(u32::from_be_bytes(number(from)?) == word::REQUEST, "this is no request");
        let flags = u16::from_be_bytes(number(from)?);
        let kind = u16::from_be_bytes(number(from)?);
        let cookie: [u8; 8] = number(from)?;
        let offset = u64::from_be_bytes(number(from)?);
        let length = usize::try_from(u32::from_be_bytes(number(from)?))?;
        ensure!(length <= REQUEST_BYTES_MAX, "a request of {length} bytes");
        if [word::WRITE, word::FLUSH].contains(&kind) && !lock(blocks).takes_one() {
            return Ok(std::io::copy(from, &mut std::io::sink()).map(drop)?);
        }
        let answer = match kind {
            word::READ => {
                let blocks = lock(blocks);
                blocks.range(offset, length).map(|range| blocks.now[range].to_vec())
            }
            word::WRITE => {
                let mut bytes = vec![0; length];
                from.read_exact(&mut bytes)?;
                let mut blocks = lock(blocks);
                let written = blocks.write(offset, &bytes);
                if flags & word::AT_ONCE != 0 {
                    blocks.flush_only(offset, length);
                }
                written.map(|()| Vec::new())
            }
            word::FLUSH => {
                lock(blocks).flush();
                Some(Vec::new())
            }
            word::END => return Ok(()),
            _ => None,
        };
        let error = if answer.is_some() { 0 } else { word::INVALID };
        let mut reply = word::REPLY.to_be_bytes().to_vec();
        reply.extend(error.to_be_bytes());
        reply.extend(cookie);
        reply.extend(answer.unwrap_or_default());
        to.write_all(&reply)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(directory: &Path) -> VolatileDisk {
        let content = directory.join("content");
        std::fs::write(&content, [7; 4 * BLOCK]).unwrap();
        VolatileDisk::new(&content, &directory.join("socket")).unwrap()
    }

    /// A machine by the protocol.
    struct Guest(UnixStream);

    impl Guest {
        fn boot(disk: &mut VolatileDisk) -> Self {
            disk.plug().unwrap();
            let mut stream = UnixStream::connect(&disk.socket).unwrap();
            assert_eq!(number::<18>(&mut stream).unwrap(), *b"NBDMAGICIHAVEOPT\0\x03");
            stream.write_all(&3_u32.to_be_bytes()).unwrap();
            // One option that is not known, and then the one that begins.
            for (option, length) in [(8_u32, 16 + 4), (7, 16 + 4 + 2 + 8 + 2 + 20)] {
                stream.write_all(b"IHAVEOPT").unwrap();
                stream.write_all(&option.to_be_bytes()).unwrap();
                stream.write_all(&6_u32.to_be_bytes()).unwrap();
                stream.write_all(&[0; 6]).unwrap();
                let mut reply = vec![0; length];
                stream.read_exact(&mut reply).unwrap();
            }
            Self(stream)
        }

        fn ask(&mut self, flags: u16, kind: u16, offset: u64, bytes: &[u8], length: u32) -> u32 {
            let stream = &mut self.0;
            stream.write_all(&word::REQUEST.to_be_bytes()).unwrap();
            stream.write_all(&flags.to_be_bytes()).unwrap();
            stream.write_all(&kind.to_be_bytes()).unwrap();
            stream.write_all(&[9; 8]).unwrap();
            stream.write_all(&offset.to_be_bytes()).unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            stream.write_all(bytes).unwrap();
            assert_eq!(u32::from_be_bytes(number(stream).unwrap()), word::REPLY);
            let error = u32::from_be_bytes(number(stream).unwrap());
            assert_eq!(number::<8>(stream).unwrap(), [9; 8]);
            error
        }

        fn write(&mut self, flags: u16, block: u64, byte: u8) {
            let bytes = [byte; BLOCK];
            let length = u32::try_from(BLOCK).unwrap();
            assert_eq!(self.ask(flags, word::WRITE, block * BLOCK as u64, &bytes, length), 0);
        }

        fn flush(&mut self) {
            assert_eq!(self.ask(0, word::FLUSH, 0, &[], 0), 0);
        }

        fn first_bytes(&mut self) -> [u8; 4] {
            [0, 1, 2, 3].map(|block| {
                let error = self.ask(0, word::READ, block * BLOCK as u64, &[], 1);
                assert_eq!(error, 0);
                number::<1>(&mut self.0).unwrap()[0]
            })
        }
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_any_part_of_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = disk(directory.path());
        let mut guest = Guest::boot(&mut disk);
        assert_eq!(guest.first_bytes(), [7; 4]);
        guest.write(0, 0, 1);
        guest.flush();
        guest.write(0, 0, 2);
        guest.write(word::AT_ONCE, 1, 3);
        guest.write(0, 2, 4);
        assert_eq!(guest.first_bytes(), [2, 3, 4, 7], "it reads what it has written");
        drop(guest);
        disk.unplugged().unwrap();
        assert_eq!(lock(&disk.blocks).cut(|| false), (0, 2));
        let mut guest = Guest::boot(&mut disk);
        assert_eq!(guest.first_bytes(), [1, 3, 7, 7]);
        guest.write(0, 2, 5);
        guest.write(0, 3, 6);
        drop(guest);
        disk.unplugged().unwrap();
        let mut turns = [true, false].into_iter();
        assert_eq!(lock(&disk.blocks).cut(|| turns.next().unwrap()), (1, 1));
        let mut guest = Guest::boot(&mut disk);
        assert_eq!(guest.first_bytes(), [1, 3, 5, 7]);
        drop(guest);
        assert_eq!(disk.cut(&Chance::new(1)).unwrap(), (0, 0));
    }

    #[test]
    fn a_disk_that_is_frozen_takes_and_answers_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = disk(directory.path());
        let mut guest = Guest::boot(&mut disk);
        disk.freeze_after(2);
        guest.write(0, 0, 1);
        assert!(!disk.is_frozen());
        guest.flush();
        assert!(disk.is_frozen());
        let stream = &mut guest.0;
        let header = [&word::REQUEST.to_be_bytes()[..], &[0, 0, 0, 1], &[0; 16], &[0, 0, 0, 1]];
        stream.write_all(&header.concat()).unwrap();
        stream.write_all(&[9]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the line ends, and no answer came");
        assert_eq!(disk.cut(&Chance::new(1)).unwrap(), (0, 0));
        assert_eq!(Guest::boot(&mut disk).first_bytes(), [1, 7, 7, 7]);
    }

    #[test]
    fn what_lies_beyond_the_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = disk(directory.path());
        let mut guest = Guest::boot(&mut disk);
        let end = 4 * BLOCK as u64;
        assert_eq!(guest.ask(0, word::READ, end - 1, &[], 2), word::INVALID);
        assert_eq!(guest.ask(0, word::WRITE, end, &[1], 1), word::INVALID);
        assert_eq!(guest.ask(0, 4, 0, &[], 1), word::INVALID, "no trim");
        assert_eq!(guest.first_bytes(), [7; 4]);
        guest.0.write_all(b"nonsense").unwrap();
        assert!(disk.unplugged().is_err());
    }
}
