//! Inside a container: tries things and prints what the kernel says.

use crate::{overlays, ways};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{FsOpenFlags, MountFlags, OpenTreeFlags},
};
use std::{
    fs,
    os::{fd::IntoRawFd as _, unix::process::CommandExt as _},
    process::ExitCode,
};

pub(crate) fn run(what: &[&str]) -> ExitCode {
    match what {
        ["calls"] => calls(),
        ["fds"] => fds(),
        ["btrfs", directory] => btrfs(directory),
        ["mounts"] => print!("{}", fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        ["eat"] => eat(),
        ["ways"] => ways::probe(),
        ["overlay"] => overlays::probe(),
        ["execveat", path] => return ExitCode::from(ways::execveat(path)),
        ["fork-bomb"] => fork_bomb(),
        // As the interpreter of a script, whose name comes last.
        ["/bin/own"] => overwrite(),
        _ => println!("unknown probe {what:?}"),
    }
    ExitCode::SUCCESS
}

fn say<T>(name: &str, result: &Result<T, Errno>) {
    match result {
        Ok(_) => println!("{name}=done"),
        Err(errno) => println!("{name}={errno:?}"),
    }
}

fn calls() {
    use nix::sched::{CloneFlags, setns, unshare};
    let from = |result: nix::Result<()>| result.map_err(|e| Errno::from_raw_os_error(e as i32));
    say("unshare-user", &from(unshare(CloneFlags::CLONE_NEWUSER)));
    say("unshare-mount", &from(unshare(CloneFlags::CLONE_NEWNS)));
    let namespace = fs::File::open("/proc/self/ns/net").expect("our own");
    say("setns", &from(setns(&namespace, CloneFlags::CLONE_NEWNET)));
    say("mount", &rustix::mount::mount("none", "/tmp", "tmpfs", MountFlags::empty(), None));
    say("umount", &rustix::mount::unmount("/proc", rustix::mount::UnmountFlags::DETACH));
    say("fsopen", &rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC));
    say("open_tree", &rustix::mount::open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLONE));
    say("pivot_root", &rustix::process::pivot_root(".", "."));
    say("chroot", &rustix::process::chroot("/"));
    say("sethostname", &from(nix::unistd::sethostname("other")));
    say("remount", &rustix::mount::mount_remount("/", MountFlags::empty(), ""));
    // The positive control: calls that every program needs.
    say("getcwd", &rustix::process::getcwd(Vec::new()));
    say(
        "socket",
        &rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        ),
    );
    say(
        "packet-socket",
        &rustix::net::socket(
            rustix::net::AddressFamily::PACKET,
            rustix::net::SocketType::RAW,
            None,
        ),
    );
    say(
        "mknod",
        &rustix::fs::mknodat(
            CWD,
            "/tmp/device",
            rustix::fs::FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, 3),
        ),
    );
    println!("thread={}", std::thread::spawn(|| 5).join().is_ok());
}

/// Requests of btrfs in a directory of it.
fn btrfs(directory: &str) {
    let own = fs::File::open(directory).expect("it was mounted");
    let made = sys::btrfs::subvolume_create(&own, "made");
    say("subvolume", &made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)));
    let file = |name: &str| {
        let flags = OFlags::RDWR | OFlags::CREATE;
        rustix::fs::openat(&own, name, flags, Mode::RUSR | Mode::WUSR).expect("it is writable")
    };
    let (from, to) = (file("from"), file("to"));
    rustix::io::write(&from, &[7; 8192]).expect("there is room");
    say("copy", &rustix::fs::ioctl_ficlone(&to, &from));
}

fn fds() {
    let mut numbers: Vec<String> = fs::read_dir("/proc/self/fd")
        .expect("there is /proc")
        .filter_map(Result::ok)
        .map(|entry| {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            format!("{}={}", entry.file_name().to_string_lossy(), target.display())
        })
        // The directory that is being read.
        .filter(|line| !line.ends_with("/fd"))
        .collect();
    numbers.sort();
    println!("{}", numbers.join("\n"));
}

fn eat() {
    let mut all = Vec::new();
    for _ in 0..4096 {
        all.push(vec![1_u8; 1 << 20]);
    }
    println!("ate {} MiB", all.len());
}

fn fork_bomb() {
    let mut children = Vec::new();
    let refused = loop {
        if children.len() > 1000 {
            break false;
        }
        match std::thread::Builder::new().stack_size(64 << 10).spawn(std::thread::park) {
            Ok(child) => children.push(child),
            Err(_) => break true,
        }
    };
    println!("threads={} refused={refused}", children.len());
}

/// Keeps a way to its own program and to a file of the node, becomes another program, and writes to
/// both for as long as it takes the launcher to be gone.
fn overwrite() {
    println!("reached {:?}", fs::read_link("/proc/self/exe"));
    let keep = |path: &str| {
        let file = rustix::fs::open(path, OFlags::PATH, Mode::empty()).expect("it is there");
        file.into_raw_fd()
    };
    let (program, control) = (keep("/proc/self/exe"), keep("/shared/control"));
    let script = format!(
        "echo overwritten > /proc/self/fd/{control}; n=0; while [ $n -lt 8 ]; do echo overwritten > /proc/self/fd/{program} && echo done; n=$((n + 1)); sleep 0.1; done; echo x > /shared/end"
    );
    let error = std::process::Command::new("/bin/busybox").args(["sh", "-c", &script]).exec();
    println!("busybox: {error}");
}
