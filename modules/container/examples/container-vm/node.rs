//! The node around the launcher: a store on btrfs, a cgroup tree, and init's side of `Adopt`.

use flist::{
    body::{Body, Content, Data, Entry, FORMAT, MAGIC, Meta, Node as Kind, Run},
    erofs, verity,
};
use ipc::{Method as _, call};
use node_api::{
    init::{Adopt, Done},
    launcher::{Limits, Mount, MountSource, Root, Start, StartReply},
    paths,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use std::{
    fs::{self, File},
    io::Read as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

const STORE: &str = "/pools/store";
/// A container of these checks that is not done by then hangs.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Node {
    pub(crate) root: Root,
    pub(crate) probe_digest: String,
    /// `MAJOR:MINOR` of the disk of the store.
    pub(crate) disk: String,
    pub(crate) launcher: Child,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    launcher_path: String,
    adopted: Receiver<(Adopt, OwnedFd, OwnedFd)>,
    n_starts: u32,
}

/// A container that was started and runs or has run.
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) reply: StartReply,
    pub(crate) pidfd: OwnedFd,
    pub(crate) log: OwnedFd,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) output: String,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Node {
    pub(crate) fn new(launcher: &str, device: &str) -> Self {
        shell(&format!("mkdir -p /pools && mount -t btrfs {device} /pools -o nodev,nosuid,noexec"));
        for path in [paths::CGROUP.into(), format!("{}/work", paths::CGROUP)] {
            fs::create_dir_all(&path).expect("cgroup v2 is mounted");
            fs::write(format!("{path}/cgroup.subtree_control"), "+cpu +memory +io +pids")
                .expect("controllers are there");
        }
        let (root, probe_digest) = make_store();
        let number = fs::metadata(device).expect("it is mounted").rdev();
        let (sender, adopted) = channel();
        serve_init(sender);
        let child = start_launcher(launcher);
        Self {
            root,
            probe_digest,
            disk: format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)),
            launcher: child,
            passed: 0,
            failed: 0,
            launcher_path: launcher.to_owned(),
            adopted,
            n_starts: 0,
        }
    }

    pub(crate) fn check(&mut self, what: &str, good: bool, seen: impl std::fmt::Debug) {
        if good {
            self.passed += 1;
            println!("PASS {what}");
        } else {
            self.failed += 1;
            println!("FAIL {what}: {seen:?}");
        }
    }

    /// A request that runs `command` as root of the container.
    pub(crate) fn request(&mut self, command: &[&str]) -> Start {
        self.n_starts += 1;
        Start {
            id: format!("c{}", self.n_starts),
            root: self.root.clone(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: vec!["PATH=/bin:/usr/bin".to_owned(), "MARK=here".to_owned()],
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            hostname: "vmtest".to_owned(),
            id_base: 1 << 20,
            mounts: vec![Mount {
                path: "/tmp".to_owned(),
                source: MountSource::Tmpfs { size_bytes: 16 << 20 },
            }],
            netns: None,
            dns: vec!["10.1.2.3".parse().expect("an address")],
            limits: Limits {
                cpu_milli: 1000,
                memory_bytes: 128 << 20,
                pids_max: 64,
                disks: Vec::new(),
            },
        }
    }

    pub(crate) fn start(&mut self, start: &Start) -> Result<Running, ipc::CallError> {
        let reply = call(paths::LAUNCHER_SOCKET, start);
        let adopted = self.adopted.try_recv().ok();
        let reply = match (reply, &adopted) {
            (Err(error), Some((_, pidfd, _))) => {
                reap(pidfd);
                return Err(error);
            }
            (reply, _) => reply?,
        };
        let (adopt, pidfd, log) = adopted.expect("the launcher calls init first");
        assert_eq!((&adopt.id, adopt.pid), (&start.id, reply.pid), "init and caller hear the same");
        Ok(Running { id: start.id.clone(), reply, pidfd, log })
    }

    /// Starts and waits.
    pub(crate) fn run(&mut self, start: &Start) -> Result<Ended, ipc::CallError> {
        Ok(self.start(start)?.wait())
    }

    /// The short name of the error, or what happened instead.
    pub(crate) fn refusal(&mut self, start: &Start) -> String {
        match self.run(start) {
            Ok(ended) => format!("it ran: {ended:?}"),
            Err(ipc::CallError::Refused { failure, .. }) => {
                println!("     {}: {}", failure.name, failure.message);
                failure.name
            }
            Err(error) => format!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }

    pub(crate) fn restart_launcher(&mut self) {
        self.launcher.kill().expect("it runs");
        self.launcher.wait().expect("it is our child");
        self.launcher = start_launcher(&self.launcher_path);
    }
}

impl Node {
    /// Reaps every child but the launcher, as init does: adopted or not.
    pub(crate) fn bury(&mut self) {
        while let Ok((_, pidfd, _log)) = self.adopted.try_recv() {
            reap(&pidfd);
        }
        let launcher = i32::try_from(self.launcher.id()).expect("a pid");
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let flags = options | WaitIdOptions::NOHANG;
            let Ok(Some(_)) = waitid(WaitId::All, flags) else { break };
            let children = format!("/proc/self/task/{}/children", std::process::id());
            let children = fs::read_to_string(children).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                if child != launcher
                    && let Some(pid) = rustix::process::Pid::from_raw(child)
                {
                    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
                }
            }
        }
    }
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).expect("the process is ours");
    }

    /// Until its main process has ended; it is not reaped.
    pub(crate) fn until_end(&self) {
        readable(&self.pidfd, Instant::now() + PATIENCE);
    }

    pub(crate) fn wait(self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let mut output = Vec::new();
        let mut chunk = [0; 4096];
        // The pipe ends when the last process of the container has.
        while readable(&self.log, deadline) {
            match rustix::io::read(&self.log, &mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(n) => output.extend_from_slice(&chunk[..n]),
            }
        }
        if !readable(&self.pidfd, deadline) {
            self.signal(Signal::KILL);
        }
        let (code, signal) = reap(&self.pidfd);
        let cgroup = format!("{}/{}", paths::CGROUP_WORK, self.id);
        for _ in 0..1000 {
            match fs::remove_dir(&cgroup) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::yield_now();
                }
                _ => break,
            }
        }
        Ended { output: String::from_utf8_lossy(&output).into_owned(), code, signal }
    }
}

fn reap(pidfd: &OwnedFd) -> (Option<i32>, Option<i32>) {
    match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => (status.exit_status(), status.terminating_signal()),
        other => panic!("the container is our child: {other:?}"),
    }
}

fn readable(fd: &OwnedFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).expect("a minute fits");
    matches!(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)), Ok(1..))
}

fn serve_init(sender: Sender<(Adopt, OwnedFd, OwnedFd)>) {
    let listener = ipc::listen(Path::new(paths::INIT_SOCKET)).expect("/run is writable");
    let sender = std::sync::Mutex::new(sender);
    std::thread::spawn(move || {
        let error = ipc::serve(&listener, move |call| match call.method() {
            Adopt::NAME => call.answer_with_fds(|adopt: Adopt, mut fds: Vec<OwnedFd>| {
                if adopt.id == "refused" {
                    return Err(ipc::Failure::new("Refused", "as the check wants it"));
                }
                let log = fds.pop().ok_or_else(|| ipc::Failure::new("Fds", "no log"))?;
                let pidfd = fds.pop().ok_or_else(|| ipc::Failure::new("Fds", "no pidfd"))?;
                let sender = sender.lock().expect("nobody panics with it");
                sender.send((adopt, pidfd, log)).expect("the checks listen");
                Ok::<_, ipc::Failure>((Done {}, Vec::new()))
            }),
            _ => call.unknown(),
        });
        println!("init socket: {error}");
    });
}

fn start_launcher(path: &str) -> Child {
    // A socket that nobody listens on may be there from the one before.
    let _gone = fs::remove_file(paths::LAUNCHER_SOCKET);
    let child = Command::new(path).spawn().expect("the launcher is a program");
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(paths::LAUNCHER_SOCKET).exists() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    child
}

pub(crate) fn shell(script: &str) -> String {
    let output = Command::new("/bin/busybox").args(["sh", "-c", script]).output();
    let output = output.expect("there is busybox");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a file with fs-verity and returns the digest that the kernel measures.
pub(crate) fn add(path: &Path, bytes: &[u8]) -> [u8; 32] {
    fs::create_dir_all(path.parent().expect("below the store")).expect("store is writable");
    fs::write(path, bytes).expect("store is writable");
    let file = File::open(path).expect("just written");
    sys::verity::enable(&file).expect("btrfs has fs-verity");
    sys::verity::measure(&file).expect("it was enabled").expect("it was enabled")
}

pub(crate) fn object(digest: &[u8; 32]) -> PathBuf {
    let name = hex::encode(digest);
    Path::new(STORE).join("objects").join(&name[..2]).join(&name[2..])
}

/// Makes an image of any body.
pub(crate) fn image(name: &str, body: &Body) -> Root {
    let mut bytes = Vec::new();
    erofs::write(body, &mut bytes).expect("a Vec takes everything");
    let path = Path::new(STORE).join("images").join(name);
    let digest = add(&path, &bytes);
    assert_eq!(digest, erofs::digest(body), "kernel and crate agree on the image");
    Root {
        image: path.to_str().expect("ASCII").to_owned(),
        image_digest: hex::encode(digest),
        objects: format!("{STORE}/objects"),
    }
}

/// The image of the checks: busybox, ourselves, scripts, and some traps.
pub(crate) fn body() -> Body {
    let meta = |mode| Meta { mode, ..Meta::default() };
    let programs: Vec<(&str, Vec<u8>)> = vec![
        ("bin/busybox", fs::read("/bin/busybox").expect("busybox")),
        ("bin/probe", read(Path::new("/proc/self/exe"))),
        ("bin/script", script("echo \"script $0 $1\"\n", 200)),
        ("bin/damaged", script("echo damaged\n", 3000)),
        ("bin/gone", script("echo gone\n", 4000)),
        ("bin/bare", script("echo bare\n", 5000)),
        // A program that needs a loader, and what it needs.
        ("bin/dynamic", read(Path::new("/bin/dynamic"))),
        ("bin/ld.so", read(Path::new("/bin/ld.so"))),
        ("bin/libc.so.6", read(Path::new("/bin/libc.so.6"))),
        ("etc/passwd", script("root:x:0:0::/:/bin/sh\n", 300)),
    ];
    let mut contents: Vec<Content> = programs
        .iter()
        .map(|(_, bytes)| Content {
            digest: verity::digest(bytes),
            size: bytes.len() as u64,
            chunks: Vec::new(),
        })
        .collect();
    contents.sort_by_key(|content| content.digest);
    let mut entries = vec![Entry { path: Vec::new(), node: Kind::Directory(meta(0o755)) }];
    // No /proc, /sys and /tmp: the skeleton adds them.
    for path in ["bin", "data", "dev", "etc", "srv", "srv/inner", "usr"] {
        let owner = if path == "data" { 33 } else { 0 };
        let node = Kind::Directory(Meta { uid: owner, gid: owner, ..meta(0o755) });
        entries.push(Entry { path: path.into(), node });
    }
    for (path, bytes) in &programs {
        let digest = verity::digest(bytes);
        let index = contents.iter().position(|content| content.digest == digest);
        let index = u32::try_from(index.expect("it is in the table")).expect("a few");
        let mode = if *path == "etc/passwd" { 0o644 } else { 0o755 };
        entries.push(Entry {
            path: (*path).into(),
            node: Kind::File(meta(mode), Data::Content(index)),
        });
    }
    for (path, target) in [
        ("bin/sh", "busybox"),
        ("bin/cat", "/bin/busybox"),
        ("bin/ls", "busybox"),
        ("bin/sleep", "../bin/busybox"),
        ("bin/escape", "../../../../../../bin/busybox"),
        ("etc/hosts", "/proc/1/environ"),
        ("link", "srv"),
        ("usr/bin", "../bin"),
    ] {
        entries.push(link(path, target));
    }
    for (path, of, mode) in [
        ("usr/busybox", "bin/busybox", 0o4755),
        ("srv/own", "bin/script", 0o755),
        ("srv/damaged", "bin/damaged", 0o755),
        ("etc/removed", "bin/script", 0o644),
    ] {
        let other = entries.iter().find(|entry| entry.path == of.as_bytes());
        if let Some(Entry { node: Kind::File(_, data), .. }) = other {
            let node = Kind::File(meta(mode), data.clone());
            entries.push(Entry { path: path.into(), node });
        }
    }
    let tiny = b"#!/bin/sh\necho tiny $1\n".to_vec();
    entries
        .push(Entry { path: "bin/tiny".into(), node: Kind::File(meta(0o755), Data::Inline(tiny)) });
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Body { magic: MAGIC, format: FORMAT, run: Run::default(), packs: Vec::new(), contents, entries }
}

pub(crate) fn link(path: &str, target: &str) -> Entry {
    let meta = Meta { mode: 0o777, ..Meta::default() };
    Entry { path: path.into(), node: Kind::Symlink(meta, target.into()) }
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("readable");
    bytes
}

/// A shell script that is too large to be inline.
pub(crate) fn script(lines: &str, size: usize) -> Vec<u8> {
    format!("#!/bin/sh\n{lines}#{}\n", "x".repeat(size)).into_bytes()
}

fn make_store() -> (Root, String) {
    let body = body();
    let put = |bytes: &[u8]| {
        let digest = verity::digest(bytes);
        assert_eq!(add(&object(&digest), bytes), digest, "kernel and crate agree");
        digest
    };
    put(&read(Path::new("/bin/busybox")));
    let probe = put(&read(Path::new("/proc/self/exe")));
    put(&script("echo \"script $0 $1\"\n", 200));
    put(&script("root:x:0:0::/:/bin/sh\n", 300));
    for file in ["dynamic", "ld.so", "libc.so.6"] {
        put(&read(&Path::new("/bin").join(file)));
    }
    // Another file under the name of this digest, as a broken disk or a thief would leave it.
    let damaged = verity::digest(&script("echo damaged\n", 3000));
    add(&object(&damaged), &script("echo instead\n", 3000));
    // The right bytes, on which the kernel enforces nothing.
    let bare = script("echo bare\n", 5000);
    let path = object(&verity::digest(&bare));
    fs::create_dir_all(path.parent().expect("below the store")).expect("store is writable");
    fs::write(path, bare).expect("store is writable");
    (image("test.erofs", &body), hex::encode(probe))
}
