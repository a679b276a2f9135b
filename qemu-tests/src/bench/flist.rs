//! What it costs that every byte is verified: making an flist beside `tar | zstd`, bringing it into a
//! store beside plain copies, reading through the root of a container beside plain btrfs, and a hundred
//! containers of one image beside one.
//!
//! Making runs on this machine, the rest inside a virtual one (`modules/container/examples/measure-vm.rs`).

use super::{Figure, exact, inside, median};
use crate::{content, machine::Machine, machine::blank_disk, media::Image, trial};
use anyhow::{Context as _, Result, ensure};
use flist::create::{Options, build_directory, publish};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Rounds of each comparison unless another number is given.
pub(super) const RUNS: usize = 5;
/// What measures inside the machine, static and optimised.
const PROGRAM: &str = "ZOS_MEASURE_VM";
const CONTAINERS: usize = 100;
const MEMORY_MIB: u32 = 2048;
/// For the tree in all its forms, twice.
const DISK_MIB: u64 = 3072;
const SOURCE_MIB: u64 = 1024;
/// Bytes that are hashed on this machine, beside what the guest's kernel does.
const HASHED: usize = 64_000_000;
/// Between two lines of the guest lies at most one round, or a few dozen containers.
const NEXT_LINE: Duration = Duration::from_secs(1200);

/// Files of the tree: as many of each size, in bytes, so that most are small and most bytes are in large
/// ones, as in images of Linux distributions.
const FILES: [(usize, usize); 8] = [
    (1200, 300),
    (1000, 2_000),
    (800, 6_000),
    (500, 20_000),
    (300, 60_000),
    (90, 250_000),
    (24, 1_000_000),
    (8, 4_000_000),
];
/// Of the part that every one of the many containers reads.
const SHARED: (usize, usize) = (8, 4_000_000);

pub(super) fn measure(n_runs: usize, tell: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let temporary = crate::scratch()?;
    let directory = temporary.path();
    let source = directory.join("source");
    let tree = source.join("tree");
    let n_bytes = make_tree(&tree)?;
    tell(&format!("a tree of {} MB", n_bytes / 1_000_000));
    let published = source.join("published");
    let archive = source.join("tree.tar.zst");
    let mut took: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    let mut identity = String::new();
    let to_hash = Random(1).bytes(HASHED, 0);
    for round in 1..=n_runs {
        tell(&format!("making it, {round} of {n_runs}"));
        let mut timed = |what: &str, who: &str, make: &mut dyn FnMut() -> Result<()>| {
            let begun = Instant::now();
            make()?;
            let times = took.entry((what.to_owned(), who.to_owned())).or_default();
            times.push(begun.elapsed().as_secs_f64());
            Ok::<_, anyhow::Error>(())
        };
        timed("build", "ours", &mut || {
            let options = Options { scratch: directory.to_owned(), ..Options::default() };
            let built = build_directory(&tree, &options, &())?;
            publish(&built, &published)?;
            identity = built.flist.identity().to_string();
            Ok(())
        })?;
        timed("build", "tar_zstd", &mut || tar_zstd(&tree, 3, &archive))?;
        timed("build", "tar_zstd_9", &mut || tar_zstd(&tree, 9, &archive))?;
        timed("hash", "ours", &mut || {
            std::hint::black_box(flist::verity::digest(&to_hash));
            Ok(())
        })?;
    }
    let sizes = [size_of(&published)?, fs::metadata(&archive)?.len()];

    let image = Image::find()?;
    let mut machine = Machine::new("flist");
    machine.memory_mib = MEMORY_MIB;
    let disk = blank_disk(&directory.join("source.img"), SOURCE_MIB)?;
    let mut mkfs = Command::new("/sbin/mkfs.btrfs");
    let made = mkfs.arg("-q").arg("--rootdir").args([&source, &disk]).output()?;
    ensure!(made.status.success(), "mkfs.btrfs: {}", String::from_utf8_lossy(&made.stderr));
    machine.disks.push((inside::disk(directory, DISK_MIB)?, "STORE".to_owned()));
    machine.disks.push((disk, "SOURCE".to_owned()));
    let plan = format!("{identity} {n_runs} {CONTAINERS}");
    machine.overlay = Some(overlay(&image, directory, &plan)?);
    let heard = inside::hear(&machine, &image, directory, NEXT_LINE, tell)?;
    let mut memory = BTreeMap::new();
    let mut read = Vec::new();
    for line in &heard.lines {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["took", what, who, us] => {
                let us: u64 = us.parse().with_context(|| format!("no time in {line:?}"))?;
                let times = took.entry((what.to_owned(), who.to_owned())).or_default();
                times.push(exact(us) / 1e6 * heard.scale);
            }
            ["memory", number, ref pairs @ ..] => {
                let number: usize = number.parse()?;
                for (name, bytes) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
                    memory.insert((number, name.to_owned()), bytes.parse::<u64>()?);
                }
            }
            ["read", _, files, bytes] => {
                read.push((files.parse::<u64>()?, bytes.parse::<u64>()?));
            }
            _ => {}
        }
    }
    ensure!(read.len() == 2 && read[0] == read[1], "not the same was read: {read:?}");
    figures(&took, &memory, [n_bytes, read[0].1], sizes, n_runs)
}

/// Throughputs from times, so that more is better; and bytes of memory.
fn figures(
    took: &BTreeMap<(String, String), Vec<f64>>,
    memory: &BTreeMap<(usize, String), u64>,
    [n_bytes, n_read]: [u64; 2],
    [published, archive]: [u64; 2],
    n_runs: usize,
) -> Result<Vec<Figure>> {
    let speed = |what: &str, who: &str, n_bytes: u64| {
        let times = took.get(&(what.to_owned(), who.to_owned())).map_or(&[][..], Vec::as_slice);
        ensure!(times.len() == n_runs, "{} times of {what}, {who}", times.len());
        Ok(exact(n_bytes) / 1e6 / median(times))
    };
    let mut figures = Vec::new();
    let mut compare = |id: &str, what: &str, peer: &'static str, n_bytes: u64| {
        let figure = Figure::new(id, "MB/s", speed(what, "ours", n_bytes)?, n_runs);
        figures.push(figure.beside(peer, speed(what, peer, n_bytes)?));
        Ok::<_, anyhow::Error>(())
    };
    compare("flist.build_vs_tar_zstd", "build", "tar_zstd", n_bytes)?;
    compare("flist.build_vs_tar_zstd_9", "build", "tar_zstd_9", n_bytes)?;
    compare("flist.ingest_vs_copy", "ingest", "copy", n_bytes)?;
    compare("flist.ingest_vs_tar_zstd", "ingest", "tar", n_bytes)?;
    compare("flist.read_vs_btrfs_cold", "cold", "btrfs", n_read)?;
    compare("flist.read_vs_btrfs_warm", "warm", "btrfs", n_read)?;
    // What reading through the root takes longer is the kernel's hashing, nearly all of it.
    let seconds = |who| Ok::<_, anyhow::Error>(exact(n_read) / 1e6 / speed("cold", who, n_read)?);
    let hashing = exact(n_read) / 1e6 / (seconds("ours")? - seconds("btrfs")?).max(f64::EPSILON);
    let hashing = Figure::new("flist.verify_vs_unemulated", "MB/s", hashing, n_runs);
    figures.push(hashing.beside("unemulated", speed("hash", "ours", HASHED as u64)?));
    let size = Figure::new("flist.published_bytes", "bytes", exact(published), 1);
    figures.push(size.beside("tar_zstd_9", exact(archive)));
    let between = |name: &str, from: usize, to: usize| {
        let of = |number| memory.get(&(number, name.to_owned())).copied();
        let both = of(from).zip(of(to)).with_context(|| format!("nobody said {name}"))?;
        Ok::<_, anyhow::Error>(exact(both.1.saturating_sub(both.0)))
    };
    let cached = between("cached", 0, CONTAINERS)?;
    let cached = Figure::new("flist.memory_cached_of_100_bytes", "bytes", cached, 1);
    figures.push(cached.beside("one", between("cached", 0, 1)?));
    let each = between("other", 1, CONTAINERS)? / exact(CONTAINERS as u64 - 1);
    figures.push(Figure::new("flist.memory_other_each_bytes", "bytes", each, 1));
    Ok(figures)
}

fn overlay(image: &Image, directory: &Path, plan: &str) -> Result<PathBuf> {
    let path = trial::overlay(image, &inside::program(PROGRAM)?, directory)?;
    let mut files = BTreeMap::from([("usr/bin/bench-plan".to_owned(), plan.as_bytes().to_vec())]);
    inside::add_package(&mut files, "zstd", "usr/bin/zstd")?;
    inside::append(&path, &files)?;
    Ok(path)
}

fn tar_zstd(tree: &Path, level: u32, archive: &Path) -> Result<()> {
    let script = format!("tar -C \"$1\" -cf - . | zstd -q -f -T1 -{level} -o \"$2\"");
    let status = Command::new("sh").args(["-c", &script, "sh"]).args([tree, archive]).status()?;
    ensure!(status.success(), "tar | zstd has failed");
    Ok(())
}

/// Bytes of all files below a directory.
fn size_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            size_of(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}

/// The same tree each time; gives the bytes of its files. One file in three is random, one is text, one is
/// in between, as programs are. Busybox is what its containers run.
fn make_tree(tree: &Path) -> Result<u64> {
    let package = content::unpack_package("busybox-static")?;
    let busybox = ["usr/bin/busybox", "bin/busybox"].map(|path| package.path().join(path));
    let busybox = busybox.iter().find(|path| path.is_file()).context("no busybox")?;
    fs::create_dir_all(tree.join("bin"))?;
    fs::copy(busybox, tree.join("bin/busybox"))?;
    for applet in ["cat", "sh", "sleep"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet))?;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut n_files = 0;
    let mut n_bytes = fs::metadata(busybox)?.len();
    let mut write = |directory: &Path, size: usize| {
        fs::create_dir_all(directory)?;
        // Between half of the size and one and a half.
        let size = size / 2 + random.below(size);
        let bytes = random.bytes(size, n_files % 3);
        n_bytes += size as u64;
        n_files += 1;
        fs::write(directory.join(format!("file-{n_files}")), bytes)
    };
    for (number, size) in FILES {
        for index in 0..number {
            // A few dozen files in each directory.
            write(&tree.join(format!("srv/{size}/{}", index / 40)), size)?;
        }
    }
    for _ in 0..SHARED.0 {
        write(&tree.join("srv/shared"), SHARED.1)?;
    }
    Ok(n_bytes)
}

/// xorshift64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    /// Kind 0: nothing can be compressed. 1: words. 2: random bytes with repeated ones between them.
    fn bytes(&mut self, size: usize, kind: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 32);
        while bytes.len() < size {
            match kind {
                0 => bytes.extend(self.next().to_le_bytes()),
                1 => bytes.extend(format!("word{} ", self.next() % 4096).into_bytes()),
                _ => {
                    bytes.extend(self.next().to_le_bytes());
                    let length = self.below(24);
                    let from = self.below(bytes.len());
                    let to = (from + length).min(bytes.len());
                    bytes.extend_from_within(from..to);
                }
            }
        }
        bytes.truncate(size);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_stands_beside_that_of_a_peer_and_memory_beside_one() {
        let mut took = BTreeMap::new();
        let times = [
            ("build", "ours", 2.0),
            ("build", "tar_zstd", 1.0),
            ("build", "tar_zstd_9", 4.0),
            ("ingest", "ours", 2.0),
            ("ingest", "copy", 1.0),
            ("ingest", "tar", 1.0),
            ("cold", "ours", 1.0),
            ("cold", "btrfs", 0.5),
            ("warm", "ours", 0.5),
            ("warm", "btrfs", 0.5),
            ("hash", "ours", 4.0),
        ];
        for (what, who, time) in times {
            took.insert((what.to_owned(), who.to_owned()), vec![time]);
        }
        let mut memory = BTreeMap::new();
        for (number, cached, other) in [(0, 10, 100), (1, 50, 101), (CONTAINERS, 60, 299)] {
            memory.insert((number, "cached".to_owned()), cached);
            memory.insert((number, "other".to_owned()), other);
        }
        let all = figures(&took, &memory, [4_000_000, 2_000_000], [3, 4], 1).unwrap();
        let of = |id: &str| all.iter().find(|figure| figure.id == id).unwrap();
        for (id, ours, ratio) in [
            ("flist.build_vs_tar_zstd", 2.0, 0.5),
            ("flist.build_vs_tar_zstd_9", 2.0, 2.0),
            ("flist.ingest_vs_copy", 2.0, 0.5),
            ("flist.read_vs_btrfs_cold", 2.0, 0.5),
            ("flist.read_vs_btrfs_warm", 4.0, 1.0),
            ("flist.verify_vs_unemulated", 4.0, 0.25),
            ("flist.memory_cached_of_100_bytes", 50.0, 1.25),
        ] {
            assert_eq!((of(id).ours, of(id).ratio()), (ours, Some(ratio)), "{id}");
        }
        let each = of("flist.memory_other_each_bytes");
        assert_eq!((each.ours, each.ratio()), (2.0, None));
        // A time that is missing is no figure.
        took.remove(&("cold".to_owned(), "btrfs".to_owned()));
        assert!(figures(&took, &memory, [4, 2], [3, 4], 1).is_err());
    }

    #[test]
    fn the_tree_is_the_same_each_time() {
        let bytes = |kind| Random(1).bytes(1000, kind);
        for kind in 0..3 {
            assert_eq!(bytes(kind), bytes(kind));
            assert_eq!(bytes(kind).len(), 1000);
        }
        assert_ne!(bytes(0), bytes(2));
    }
}
