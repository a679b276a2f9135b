//! Part of `cargo xtask bench container` and `cargo xtask bench flist`, run as root inside a virtual
//! machine.
//!
//! `measure-vm root BTRFS_DEVICE DIRECTORY` mounts a root there that the kernel verifies, with busybox as
//! `/bin/true`. `measure-vm LAUNCHER BTRFS_DEVICE` measures the store and what it costs to read through
//! the root of a container, and says one line for each figure; see `measure-vm/reads.rs`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a measuring program talks to its caller")]

#[expect(dead_code, reason = "the checks of the launcher use all of it")]
#[path = "container-vm/node.rs"]
mod node;
#[path = "measure-vm/reads.rs"]
mod reads;

use flist::{
    body::{Body, Content, Data, Entry, FORMAT, MAGIC, Meta, Node as Kind, Run},
    verity,
};
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};
use std::{fs, io, os::fd::OwnedFd, process::ExitCode};

/// Where the metadata image of [`verified_root`] is mounted.
const METADATA: &str = "/run/measure-vm";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "root", device, directory] => {
            verified_root(device, directory).expect("the kernel mounts it");
        }
        [_, launcher, device] => reads::measure(launcher, device),
        _ => {
            println!("failed: measure-vm root DEVICE DIRECTORY, or measure-vm LAUNCHER DEVICE");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// The layers of the launcher (`launch/root.rs`) without the user namespace of a container, which every
/// runtime makes for itself.
fn verified_root(device: &str, directory: &str) -> io::Result<()> {
    node::shell(&format!("mkdir -p /pools {METADATA} && mount -t btrfs {device} /pools"));
    let busybox = fs::read("/bin/busybox")?;
    let content = Content {
        digest: verity::digest(&busybox),
        size: busybox.len() as u64,
        chunks: Vec::new(),
    };
    node::add(&node::object(&content.digest), &busybox);
    let meta = Meta { mode: 0o755, ..Meta::default() };
    let mut entries: Vec<Entry> = ["", "bin", "dev", "proc", "sys"]
        .map(|path| Entry { path: path.into(), node: Kind::Directory(meta.clone()) })
        .into();
    let node = Kind::File(meta, Data::Content(0));
    entries.insert(2, Entry { path: "bin/true".into(), node });
    let (contents, run) = (vec![content], Run::default());
    let body = Body { magic: MAGIC, format: FORMAT, run, packs: Vec::new(), contents, entries };
    let root = node::image("true.erofs", &body);
    let attach = |kind: &str, settings: &[(&str, &str)], place: &str| {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_flag(&context, "ro")?;
        for (key, value) in settings {
            fsconfig_set_string(&context, *key, *value)?;
        }
        fsconfig_create(&context)?;
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let mount: OwnedFd = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        move_mount(&mount, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    attach("erofs", &[("source", &root.image)], METADATA)?;
    let layers = format!("{METADATA}::{}", root.objects);
    let overlay = [
        ("metacopy", "on"),
        ("redirect_dir", "on"),
        ("verity", "require"),
        ("lowerdir", layers.as_str()),
    ];
    Ok(attach("overlay", &overlay, directory)?)
}
