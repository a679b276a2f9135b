//! The store on a real kernel: ingest, mount, read, execute, damage, repair, sweep.
//!
//! `store_trial publish DIRECTORY OUT` runs on a host and prints the identity. `store_trial` runs as
//! root in a throw-away machine: `/dev/vda` is an empty btrfs, `/extra/public` a published
//! directory with the one flist whose identity is in `/extra/identity`. It prints one line for each
//! step, and `store trial: all good` at the end. `store_trial crash N` ingests in the same machine,
//! which is switched off without a warning at the N-th step of progress; booted again on the same
//! disk until it ends by itself, it shows that no crash harms the store. Run by hand; what a node makes of a
//! damaged store is in `qemu-tests/tests/disks.rs`.

#![allow(clippy::print_stdout, reason = "its output is its result")]

use flist::{
    Cancel, Depth, FaultKind, Flist, FlistId, Progress, Root, Source, Stage, Store,
    body::{Data, Node},
    create,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{
    collections::BTreeSet,
    error::Error,
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const DISK: &str = "/dev/vda";
const STORE: &str = "/store";
const EIO: i32 = 5;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["publish", directory, out] => {
            let options = create::Options { owner: Some((0, 0)), ..create::Options::default() };
            let built = create::build_directory(directory.as_ref(), &options, &())?;
            create::publish(&built, out.as_ref())?;
            println!("{}", built.flist.identity());
            Ok(())
        }
        ["crash", step] => crash(step.parse()?),
        _ => trial(),
    }
}

fn trial() -> Outcome<()> {
    let identity: FlistId = fs::read_to_string("/extra/identity")?.trim().parse()?;
    let good = Source::new(["/extra/public"])?;
    let none = Source::new(["/nowhere"])?;
    let cancel = Cancel::default();
    for directory in [STORE, "/image", "/merged"] {
        fs::create_dir_all(directory)?;
    }
    // A store of memory has no fs-verity, and a small one has no room.
    for (size, code) in [("size=16m", "store_too_small"), ("size=200m", "no_verity")] {
        let options = CString::new(size)?;
        mount("none", STORE, "tmpfs", MountFlags::empty(), options.as_c_str())?;
        let refused = Store::open(STORE.as_ref())?.ingest(identity, &good, &(), &cancel);
        expect(size, refused.err().map(|error| error.code()), Some(code))?;
        unmount(STORE, UnmountFlags::empty())?;
    }
    mount_store()?;

    let store = Store::open(STORE.as_ref())?;
    let refused =
        store.ingest(identity, &none, &(), &cancel).err().ok_or("fetched from nowhere")?;
    expect("a source without the flist", refused.code(), "content_missing")?;

    // What a crash may leave: a file with other bytes, and one sealed without its name.
    let flist = flist::fetch::body(&good, identity, &cancel)?;
    let staging = PathBuf::from(STORE).join("staging").join(identity.to_string());
    fs::create_dir_all(&staging)?;
    let sealed = staging.join(hex::encode(flist.body().contents[0].digest));
    fs::write(
        &sealed,
        b"not what it should be, but long enough to be an object of the store ......",
    )?;
    sys::verity::enable(File::open(&sealed)?)?;

    let root = store.ingest(identity, &good, &(), &cancel)?;
    println!("ingested {identity}");
    expect("faults", store.verify(identity, Depth::Read)?, vec![])?;
    expect("listed", store.list()?, BTreeSet::from([identity]))?;
    expect(
        "complete without a source",
        store.ingest(identity, &none, &(), &cancel)?,
        root.clone(),
    )?;
    expect("the same root", store.root(identity)?, root.clone())?;
    println!("verified");

    let measured = sys::verity::measure(File::open(&root.image)?)?;
    expect("the image's digest", measured, Some(root.image_digest))?;
    mount_root(&root)?;
    compare(&flist)?;
    run("/merged/bin/busybox", "echo executed from the verified root")?;
    unmount_root()?;
    println!("read and executed");

    // Another file with fs-verity under the name of an object.
    let victim = biggest(&flist);
    let object = object(&root, &flist.body().contents[victim].digest);
    fs::remove_file(&object)?;
    fs::write(&object, b"something else")?;
    sys::verity::enable(File::open(&object)?)?;
    check_damage(&store, identity, &root, &flist, victim, FaultKind::WrongDigest, Depth::Measure)?;
    store.ingest(identity, &good, &(), &cancel)?;
    check_repaired(&store, identity, &root, &flist)?;
    println!("replaced object: refused, repaired");

    fs::remove_file(&object)?;
    expect("missing", fault_kinds(&store, identity, Depth::Measure)?, vec![FaultKind::Missing])?;
    store.ingest(identity, &good, &(), &cancel)?;
    check_repaired(&store, identity, &root, &flist)?;
    println!("missing object: found, repaired");

    // The disk itself changes a byte of an object.
    unmount(STORE, UnmountFlags::empty())?;
    flip_byte(&flist, victim, &good)?;
    mount_store()?;
    let measured = fault_kinds(&store, identity, Depth::Measure)?;
    expect("a changed block is not seen by measuring", measured, vec![])?;
    check_damage(&store, identity, &root, &flist, victim, FaultKind::Unreadable, Depth::Read)?;
    store.repair(identity, &good, &(), &cancel)?;
    check_repaired(&store, identity, &root, &flist)?;
    println!("damaged block: EIO, repaired");

    expect("kept", store.sweep(&BTreeSet::from([identity]))?.objects, 0)?;
    check_repaired(&store, identity, &root, &flist)?;
    let swept = store.sweep(&BTreeSet::new())?;
    expect("swept objects", swept.objects, flist.body().contents.len() as u64)?;
    expect("swept images", swept.images, 1)?;
    expect("listed", store.list()?, BTreeSet::new())?;
    println!("swept {} bytes", swept.bytes);
    println!("store trial: all good");
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "calls read better without borrows")]
fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}").into())
}

/// Ends the machine at a step of progress, with whatever the disk has by then.
struct Crasher(AtomicU64);

impl Progress for Crasher {
    fn begin(&self, stage: Stage, total: u64) {
        println!("{stage:?}: {total} bytes");
    }

    fn advance(&self, _bytes: u64) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            println!("switching off");
            fs::write("/proc/sysrq-trigger", "b").expect("sysrq is compiled in");
        }
    }
}

fn crash(step: u64) -> Outcome<()> {
    let identity: FlistId = fs::read_to_string("/extra/identity")?.trim().parse()?;
    let source = Source::new(["/extra/public"])?;
    for directory in [STORE, "/image", "/merged"] {
        fs::create_dir_all(directory)?;
    }
    mount_store()?;
    let store = Store::open(STORE.as_ref())?;
    // What has a name is right, after any crash.
    for complete in store.list()? {
        expect("faults after a crash", store.verify(complete, Depth::Read)?, vec![])?;
    }
    let flist = flist::fetch::body(&source, identity, &Cancel::default())?;
    println!("{} bytes are missing", store.missing_bytes(&flist)?);
    let root =
        store.ingest(identity, &source, &Crasher(AtomicU64::new(step)), &Cancel::default())?;
    check_repaired(&store, identity, &root, &flist)?;
    println!("store trial: survived");
    Ok(())
}

fn mount_store() -> io::Result<()> {
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    Ok(mount(DISK, STORE, "btrfs", flags, None)?)
}

fn mount_root(root: &Root) -> Outcome<()> {
    mount(&root.image, "/image", "erofs", MountFlags::RDONLY, None)?;
    let layers = format!("lowerdir=/image::{}", root.objects.display());
    let options = CString::new(layers + ",metacopy=on,redirect_dir=on,verity=require")?;
    Ok(mount("overlay", "/merged", "overlay", MountFlags::RDONLY, options.as_c_str())?)
}

fn unmount_root() -> io::Result<()> {
    unmount("/merged", UnmountFlags::empty())?;
    Ok(unmount("/image", UnmountFlags::empty())?)
}

/// Every name in the mounted root is what the flist says.
fn compare(flist: &Flist) -> Outcome<()> {
    let body = flist.body();
    for entry in &body.entries {
        let path = Path::new("/merged").join(OsStr::from_bytes(&entry.path));
        let found = fs::symlink_metadata(&path)?;
        let node = match &entry.node {
            Node::Link(first) => &body.entries[*first as usize].node,
            node => node,
        };
        let name = path.display().to_string();
        let (meta, kind, size) = match node {
            Node::Directory(meta) => (meta, 0o040_000, found.size()),
            Node::Symlink(meta, target) => {
                expect(&name, fs::read_link(&path)?.as_os_str().as_bytes(), &target[..])?;
                (meta, 0o120_000, target.len() as u64)
            }
            Node::File(meta, Data::Inline(bytes)) => {
                expect(&name, &fs::read(&path)?, bytes)?;
                (meta, 0o100_000, bytes.len() as u64)
            }
            Node::File(meta, Data::Content(content)) => {
                let content = &body.contents[*content as usize];
                let digest = flist::verity::digest_reader(&mut File::open(&path)?)?;
                expect(&name, digest, content.digest)?;
                (meta, 0o100_000, content.size)
            }
            Node::Link(_) => return Err("a link leads to a link".into()),
        };
        expect(&name, found.mode(), kind | u32::from(meta.mode))?;
        expect(&name, (found.uid(), found.gid()), (meta.uid, meta.gid))?;
        expect(&name, (found.mtime(), found.size()), (meta.mtime.try_into()?, size))?;
        for xattr in &meta.xattrs {
            let mut value = vec![0; 64 << 10];
            let size = rustix::fs::lgetxattr(&path, &xattr.name[..], &mut value[..])?;
            expect(&name, &value[..size], &xattr.value[..])?;
        }
    }
    println!("compared {} names", body.entries.len());
    Ok(())
}

fn run(program: &str, arguments: &str) -> Outcome<()> {
    let status = Command::new(program).args(arguments.split(' ')).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}").into()) }
}

fn object(root: &Root, digest: &[u8; 32]) -> PathBuf {
    let name = hex::encode(digest);
    root.objects.join(&name[..2]).join(&name[2..])
}

fn biggest(flist: &Flist) -> usize {
    let contents = flist.body().contents.iter().enumerate();
    contents.max_by_key(|(_, content)| content.size).map_or(0, |(index, _)| index)
}

fn fault_kinds(store: &Store, identity: FlistId, depth: Depth) -> Outcome<Vec<FaultKind>> {
    Ok(store.verify(identity, depth)?.into_iter().map(|fault| fault.kind).collect())
}

/// The store tells which file is damaged, the kernel refuses it, and serves the others.
fn check_damage(
    store: &Store,
    identity: FlistId,
    root: &Root,
    flist: &Flist,
    victim: usize,
    kind: FaultKind,
    depth: Depth,
) -> Outcome<()> {
    expect("faults", fault_kinds(store, identity, depth)?, vec![kind])?;
    mount_root(root)?;
    let paths = flist.body().paths_of_contents();
    for (index, path) in paths.iter().enumerate() {
        let path = Path::new("/merged").join(OsStr::from_bytes(path));
        let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        let errno = read.err().and_then(|error| error.raw_os_error());
        let expected = (index == victim).then_some(EIO);
        expect(&path.display().to_string(), errno, expected)?;
    }
    unmount_root()?;
    Ok(())
}

fn check_repaired(store: &Store, identity: FlistId, root: &Root, flist: &Flist) -> Outcome<()> {
    expect("faults", store.verify(identity, Depth::Read)?, vec![])?;
    let mode = fs::metadata(object(root, &flist.body().contents[0].digest))?.permissions().mode();
    expect("mode of an object", mode & 0o7777, 0o444)?;
    mount_root(root)?;
    compare(flist)?;
    unmount_root()?;
    Ok(())
}

/// Finds the victim's bytes on the raw disk and changes one.
fn flip_byte(flist: &Flist, victim: usize, source: &Source) -> Outcome<()> {
    let unpacked = Path::new("/tmp/unpacked");
    create::unpack(source, flist.identity(), unpacked, &())?;
    let path = unpacked.join(OsStr::from_bytes(flist.body().paths_of_contents()[victim]));
    let bytes = fs::read(path)?;
    let wanted = &bytes[1 << 20..][..4096];
    let mut disk = File::options().read(true).write(true).open(DISK)?;
    let mut block = vec![0; 4096];
    let mut found = 0;
    for number in 0.. {
        disk.seek(SeekFrom::Start(number * 4096))?;
        if disk.read(&mut block)? < block.len() {
            break;
        }
        if block == wanted {
            disk.seek(SeekFrom::Start(number * 4096 + 100))?;
            disk.write_all(&[block[100] ^ 1])?;
            found += 1;
        }
    }
    disk.sync_all()?;
    if found == 0 { Err("the bytes are not on the disk".into()) } else { Ok(()) }
}
