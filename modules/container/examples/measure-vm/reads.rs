//! The store beside plain files, on one file system: how long it takes to bring a tree in, to read it
//! through the root of a running container, and what a hundred containers of it take.
//!
//! The second disk has the tree itself (`tree`), the same compressed (`tree.tar.zst`) and published
//! (`published`). `/bin/bench-plan` says `FLIST ROUNDS CONTAINERS`. What is said:
//!
//! ```text
//! took ingest ours|copy|tar MICROSECONDS        into the file system, synced; caches dropped before
//! took cold|warm ours|btrfs MICROSECONDS        every byte of every file, found by listing directories
//! read ours|btrfs FILES BYTES                   the same for both, or `failed:`
//! memory N NAME=BYTES …                         with N containers that have read `shared`
//! clock MICROSECONDS                            before and after, for who has a better clock
//! done | failed: WHY                            the last line
//! ```

use crate::node::{Node, shell};
use contract::FlistId;
use flist::{Cancel, Root, Source, Store};
use node_api::launcher;
use std::{
    env,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const SOURCE: &str = "/run/source";
const SOURCE_DEVICE: &str = "/dev/vdb";
const PLAN: &str = "/bin/bench-plan";
const PLACE: &str = "/pools/measured";
/// Where the files are, seen from the root.
const READ_PLACE: &str = "srv";
/// What a program reads at once: as `cat` and web servers do.
const BUFFER: usize = 128 << 10;
/// A container that has read its files says so.
const READ: &str = "read";
const CONTAINER_MAX: Duration = Duration::from_mins(5);

pub(crate) fn measure(launcher: &str, device: &str) {
    match try_measure(launcher, device) {
        Ok(()) => println!("done"),
        Err(why) => println!("failed: {why}"),
    }
}

type Done<T> = Result<T, Box<dyn std::error::Error>>;

fn try_measure(launcher: &str, device: &str) -> Done<()> {
    let plan = fs::read_to_string(PLAN)?;
    let words: Vec<&str> = plan.split_whitespace().collect();
    let [identity, n_rounds, n_containers] = words[..] else { return Err(plan.into()) };
    let (identity, n_rounds) = (identity.parse::<FlistId>()?, n_rounds.parse::<usize>()?);
    let n_containers: usize = n_containers.parse()?;
    let mut node = Node::new(launcher, device);
    // As storaged mounts a pool.
    shell("mount -o remount,noatime /pools");
    shell(&format!("mkdir -p {SOURCE} {PLACE} && mount -t btrfs -o ro {SOURCE_DEVICE} {SOURCE}"));
    println!("{}", hashes());
    let begun = Instant::now();
    let clock = || println!("clock {}", begun.elapsed().as_micros());
    clock();
    let source = Source::new([format!("{SOURCE}/published")])?;
    let mut root = None;
    for round in 0..n_rounds {
        println!("bringing it in, {} of {n_rounds}", round + 1);
        for what in ["ours", "copy", "tar"] {
            let place = PathBuf::from(format!("{PLACE}/{what}-{round}"));
            fs::create_dir(&place)?;
            drop_caches()?;
            let begun = Instant::now();
            match what {
                "ours" => {
                    let ingested =
                        Store::open(&place)?.ingest(identity, &source, &(), &Cancel::default())?;
                    root = Some(ingested);
                }
                "copy" => copy(Path::new(SOURCE).join("tree").as_path(), &place)?,
                _ => untar(&place)?,
            }
            rustix::fs::syncfs(File::open(&place)?)?;
            println!("took ingest {what} {}", begun.elapsed().as_micros());
            // The last of each is read below.
            if round + 1 < n_rounds {
                fs::remove_dir_all(&place)?;
            }
        }
    }
    let root = root.ok_or("no round")?;
    let plain = PathBuf::from(format!("{PLACE}/copy-{}", n_rounds - 1));
    let reader = start(&mut node, &root, "one", "echo read; exec sleep 1000000")?;
    reads(&format!("/proc/{}/root", reader.reply.pid), &plain, n_rounds)?;
    env::set_current_dir("/")?;
    memory(&mut node, &root, n_containers, reader)?;
    clock();
    Ok(())
}

/// Which of the kernel's SHA-256 fs-verity uses: the first of the highest priority.
fn hashes() -> String {
    let text = fs::read_to_string("/proc/crypto").unwrap_or_default();
    let field = |entry: &str, name: &str| {
        let line =
            entry.lines().find(|line| line.split(':').next().is_some_and(|one| one.trim() == name));
        line.and_then(|line| line.split(':').nth(1)).map(|value| value.trim().to_owned())
    };
    let all = text.split("\n\n").filter(|entry| field(entry, "name").as_deref() == Some("sha256"));
    let best = all
        .max_by_key(|entry| field(entry, "priority").and_then(|number| number.parse::<u32>().ok()));
    format!("SHA-256: {}", best.and_then(|entry| field(entry, "driver")).unwrap_or_default())
}

/// From the root itself, as the container finds it, and not through `/proc`.
fn reads(ours: &str, plain: &Path, n_rounds: usize) -> Done<()> {
    let both = [("ours", Path::new(ours)), ("btrfs", plain)];
    let mut seen = Vec::new();
    for round in 0..n_rounds {
        println!("reading, {} of {n_rounds}", round + 1);
        for (who, path) in both {
            env::set_current_dir(path)?;
            drop_caches()?;
            let begun = Instant::now();
            let read = read_all(Path::new(READ_PLACE))?;
            println!("took cold {who} {}", begun.elapsed().as_micros());
            seen.push(read);
            if round == 0 {
                println!("read {who} {} {}", read.0, read.1);
            }
        }
        for (who, path) in both {
            env::set_current_dir(path)?;
            read_all(Path::new(READ_PLACE))?;
            let begun = Instant::now();
            seen.push(read_all(Path::new(READ_PLACE))?);
            println!("took warm {who} {}", begun.elapsed().as_micros());
        }
    }
    seen.dedup();
    if seen.len() == 1 { Ok(()) } else { Err(format!("not always the same: {seen:?}").into()) }
}

/// Files and bytes below a directory, all of them read.
fn read_all(directory: &Path) -> io::Result<(u64, u64)> {
    let (mut n_files, mut n_bytes) = (0, 0);
    let mut buffer = vec![0; BUFFER];
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
                continue;
            }
            let mut file = File::open(entry.path())?;
            n_files += 1;
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    n => n_bytes += n as u64,
                }
            }
        }
    }
    Ok((n_files, n_bytes))
}

/// One container, then all, each having read the same part of the image.
fn memory(node: &mut Node, root: &Root, n: usize, idle: crate::node::Running) -> Done<()> {
    let program = "cat /srv/shared/* > /dev/null; echo read; exec sleep 1000000";
    drop(idle.log);
    drop_caches()?;
    // The first of everything, which stays with the machine and not with a container.
    let warm = start(node, root, "warm", program)?;
    warm.signal(rustix::process::Signal::KILL);
    warm.wait();
    drop_caches()?;
    let mut running = Vec::new();
    println!("memory 0 {}", meminfo()?);
    for number in 1..=n {
        running.push(start(node, root, &format!("many-{number}"), program)?);
        if number == 1 || number == n {
            println!("memory {number} {}", meminfo()?);
        }
    }
    Ok(())
}

/// What is used by whom, after what can be freed without loss of cached files was.
fn meminfo() -> Done<String> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib =
            line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| format!("/proc/meminfo has no {name}"))
    };
    let cached = bytes("Cached")?;
    let used = bytes("MemTotal")? - bytes("MemFree")? - bytes("Buffers")? - cached;
    Ok(format!("cached={cached} other={used} anonymous={}", bytes("AnonPages")?))
}

/// A container in which busybox's shell does this; until it has said that it has read.
fn start(node: &mut Node, root: &Root, id: &str, script: &str) -> Done<crate::node::Running> {
    let mut request = node.request(&["/bin/busybox", "sh", "-c", script]);
    id.clone_into(&mut request.id);
    request.env = vec!["PATH=/bin".to_owned()];
    request.root = launcher::Root {
        image: root.image.display().to_string(),
        image_digest: FlistId(root.image_digest).to_string(),
        objects: root.objects.display().to_string(),
    };
    let running = node.start(&request).map_err(|error| daemon::chain(&error))?;
    let deadline = Instant::now() + CONTAINER_MAX;
    let mut said = String::new();
    let mut bytes = [0; 512];
    while !said.contains(READ) {
        match rustix::io::read(&running.log, &mut bytes)? {
            0 => return Err(format!("{id} has ended: {said}").into()),
            n => said += &String::from_utf8_lossy(&bytes[..n]),
        }
        if Instant::now() > deadline {
            return Err(format!("{id} does not read: {said}").into());
        }
    }
    Ok(running)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let (entry, kind) = {
            let entry = entry?;
            let kind = entry.file_type()?;
            (entry, kind)
        };
        let to = to.join(entry.file_name());
        if kind.is_dir() {
            fs::create_dir(&to)?;
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn untar(place: &Path) -> Done<()> {
    let script = format!("zstd -dc {SOURCE}/tree.tar.zst | busybox tar -x -C {}", place.display());
    let status = Command::new("/bin/busybox").args(["sh", "-c", &script]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
}

fn drop_caches() -> io::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
}
