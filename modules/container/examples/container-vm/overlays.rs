//! Directories of the flist that a container changes: what is kept, what is still verified, and what
//! cannot be forged. That nothing there is executed is in `ways`.

use crate::{
    checks,
    node::{self, Node, shell},
};
use flist::body::{Data, Entry, Meta, Node as Kind};
use node_api::launcher::{Mount, MountSource, Start};
use rustix::{
    fs::{CWD, FileType, Mode, RenameFlags, XattrFlags, lsetxattr, mknodat, renameat_with},
    io::Errno,
    process::Signal,
};
use std::fs::{self, File};

/// Of the volume that becomes full.
const QUOTA_BYTES: u64 = 8 << 20;
/// Orders to an overlay, with values that it would follow.
const ORDERS: [(&str, &[u8]); 4] =
    [("opaque", b"y"), ("redirect", b"/bin/busybox"), ("metacopy", b""), ("whiteout", b"y")];

/// Where a container tries to write them: files and directories, its own and of the flist.
const PLACES: [&str; 4] = ["/srv/file", "/srv/inner", "/srv/made", "/srv"];

pub(crate) fn run(node: &mut Node) {
    kept(node);
    updated(node);
    owners(node);
    verified(node);
    covered(node);
    forged(node);
    used_before(node);
    nested(node);
    watched(node);
    quota(node);
    full(node);
    own_files(node);
    refused(node);
}

pub(crate) fn mount(path: &str, volume: &str) -> Mount {
    Mount { path: path.to_owned(), source: MountSource::Overlay { path: volume.to_owned() } }
}

/// A container with overlays of these directories on one volume, which is made.
fn request(node: &mut Node, volume: &str, paths: &[&str], script: &str) -> Start {
    shell(&format!("mkdir -p {volume}"));
    let mut start = node.request(&["sh", "-c", script]);
    start.mounts.extend(paths.iter().map(|path| mount(path, volume)));
    start
}

fn output(node: &mut Node, start: &Start) -> String {
    match node.run(start) {
        Ok(ended) => ended.output,
        Err(error) => daemon::chain(&error),
    }
}

const CHANGE: &str = "echo changed > /etc/passwd; echo new > /etc/new; busybox rm /etc/removed; busybox mv /srv/inner /srv/moved && echo in > /srv/moved/file; cat /etc/resolv.conf; echo no > /usr/new || echo root is read-only";
const LOOK: &str =
    "cat /etc/passwd /etc/new /srv/moved/file; ls /etc/removed /srv/inner; cat /etc/resolv.conf";
const KEPT: &str = "changed\nnew\nin\nls: /etc/removed: No such file or directory\nls: /srv/inner: No such file or directory\nnameserver 10.1.2.3\n";

fn kept(node: &mut Node) {
    let paths = ["/etc", "/srv"];
    let first = request(node, "/pools/kept", &paths, CHANGE);
    let said = output(node, &first);
    let good = said.contains("nameserver 10.1.2.3\n") && said.contains("root is read-only");
    node.check("overlay: name servers are there also when it is over /etc", good, &said);
    let second = request(node, "/pools/kept", &paths, LOOK);
    let said = output(node, &second);
    node.check("overlay: what was changed, added, removed and moved stays so", said == KEPT, &said);
    node.restart_launcher();
    let third = request(node, "/pools/kept", &paths, LOOK);
    let said = output(node, &third);
    node.check("overlay: also for another launcher", said == KEPT, &said);
    let other = request(node, "/pools/other", &paths, "busybox head -n 2 /etc/passwd; ls /srv");
    let said = output(node, &other);
    let good = said == "#!/bin/sh\nroot:x:0:0::/:/bin/sh\ndamaged\ninner\nown\n";
    node.check("overlay: another volume has the files of the flist", good, &said);
    let strict = node.request(&["sh", "-c", "busybox head -n 2 /etc/passwd; ls /srv"]);
    let said = output(node, &strict);
    node.check("overlay: and so has the flist", good && said.contains("inner"), &said);
}

/// The same volume over another flist.
fn updated(node: &mut Node) {
    let mut body = node::body();
    let inline =
        |text: &str| Kind::File(Meta { mode: 0o644, ..Meta::default() }, Data::Inline(text.into()));
    for entry in &mut body.entries {
        match entry.path.as_slice() {
            b"etc/passwd" => entry.node = inline("updated\n"),
            b"etc/removed" => entry.node = inline("back\n"),
            _ => {}
        }
    }
    body.entries.push(Entry { path: "etc/later".into(), node: inline("later\n") });
    body.entries.sort_by(|a, b| a.path.cmp(&b.path));
    let root = node::image("updated.erofs", &body);
    let script = format!("cat /etc/later; {LOOK}");
    let mut start = request(node, "/pools/kept", &["/etc", "/srv"], &script);
    start.root = root.clone();
    let said = output(node, &start);
    let good = said == format!("later\n{KEPT}");
    node.check(
        "overlay: over another flist, changes stay and the rest is of that one",
        good,
        &said,
    );
    let mut start = node.request(&["sh", "-c", "cat /etc/passwd /etc/removed"]);
    start.root = root;
    let said = output(node, &start);
    node.check("overlay: which itself has other files", said == "updated\nback\n", &said);
}

fn owners(node: &mut Node) {
    let script = "echo mine > /data/file && busybox mkdir /data/d && ls -ln /data; echo no > /etc/passwd || echo refused";
    let mut start = request(node, "/pools/owned", &["/data", "/etc"], script);
    (start.uid, start.gid) = (33, 33);
    let said = output(node, &start);
    let good = said.contains(" 33       33 ") && said.contains("refused");
    node.check("overlay: directories and files belong to whom the flist says", good, &said);
    let disk = shell("cd /pools/owned; stat -c %u data/upper data/upper/file etc/upper etc/work");
    node.check("overlay: ids on disk are not shifted", disk == "33\n33\n0\n0\n", &disk);
}

/// What comes from the flist is verified below an overlay as everywhere.
fn verified(node: &mut Node) {
    let script = "cat /srv/damaged; echo more >> /srv/damaged || echo not copied; busybox chmod 700 /srv/damaged || echo not copied; echo more >> /srv/own && echo copied";
    let start = request(node, "/pools/verified", &["/srv"], script);
    let said = output(node, &start);
    let good = said.contains("Input/output error")
        && said.matches("not copied").count() == 2
        && !said.contains("instead")
        && said.ends_with("copied\n");
    node.check("overlay: a damaged object is neither read nor copied", good, &said);
    let run = "/srv/own one; echo $?";
    let strict = node.request(&["sh", "-c", run]);
    let said = output(node, &strict);
    node.check(
        "overlay: without one, this program of the flist runs",
        said == "script /srv/own one\n0\n",
        &said,
    );
    let start = request(node, "/pools/unused", &["/srv"], run);
    let said = output(node, &start);
    node.check("overlay: below one, it does not", said.ends_with("126\n"), &said);
}

/// The container's own program is the flist's file, whatever covers it.
fn covered(node: &mut Node) {
    shell("mkdir -p /pools/covered");
    let mut start = node.request(&["/bin/probe", "probe", "fds"]);
    start.mounts.push(mount("/bin", "/pools/covered"));
    let said = output(node, &start);
    let good = said.lines().count() == 3 && said.starts_with("0=/dev/null\n");
    node.check("overlay: the container's own program runs, also below one", good, &said);
}

/// What a container writes below an overlay means nothing to the kernel.
fn forged(node: &mut Node) {
    let volume = "/pools/forged";
    shell(&format!("mkdir -p {volume}"));
    let mut start = node.request(&["/bin/probe", "probe", "overlay"]);
    start.mounts.push(mount("/srv", volume));
    let said = output(node, &start);
    for (order, _) in ORDERS {
        let n = |outcome: &str| said.lines().filter(|line| *line == outcome).count();
        let good = n(&format!("trusted.overlay.{order}=EPERM")) == PLACES.len()
            && !said.contains(&format!("trusted.overlay.{order}=done"))
            && n(&format!("user.overlay.{order}=done")) == PLACES.len();
        node.check(&format!("overlay: no container sets trusted.overlay.{order}"), good, &said);
    }
    let good = said.contains("\nwhiteout=EPERM") && said.contains("rename=EINVAL");
    node.check("overlay: nor makes a whiteout by itself", good, &said);
    let good = said.contains("device=EACCES") && said.contains("control=done");
    node.check("overlay: nor a device", good, &said);
    // As if it had been the kernel's word, the next mount would follow it.
    let look = "cat /srv/file; ls /srv/inner /srv/made; cat /srv/made/file; busybox rm /srv/file && ls /srv";
    let start = request(node, volume, &["/srv"], look);
    let said = output(node, &start);
    let want = "its own\n/srv/inner:\n\n/srv/made:\nfile\nmade\ndamaged\ninner\nmade\nown\n";
    node.check("overlay: orders of the container mean nothing", said == want, &said);
    // What another container left there, or somebody with the disk in their hands.
    shell(&format!("mknod -m 666 {volume}/srv/upper/null c 1 3"));
    let start = request(node, volume, &["/srv"], "cat /srv/null; cat /dev/null && echo control");
    let said = output(node, &start);
    let good = said.contains("'/srv/null': Permission denied") && said.ends_with("control\n");
    node.check("overlay: a device node there opens nothing", good, &said);
    let script = "busybox cp /bin/busybox /srv/su; busybox chmod 6755 /srv/su; ls -l /srv/su";
    let start = request(node, volume, &["/srv"], script);
    let said = output(node, &start);
    let good = said.starts_with("-rwsr-sr-x");
    node.check("overlay: a set-user-id bit can be set, and is only seen", good, &said);
    let held = mounts(node);
    node.check("overlay: nothing stays attached", !held.contains("overlay"), &held);
    heeded(node, volume);
    let mut start = node.request(&["/bin/probe", "probe", "mounts"]);
    start.mounts.push(mount("/srv", volume));
    let said = output(node, &start);
    let line = said.lines().find(|line| line.split(' ').nth(4) == Some("/srv"));
    let options = line.and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
    let walls = ["rw", "nosuid", "nodev", "noexec"];
    let good = walls.iter().all(|wall| options.split(',').any(|option| option == *wall));
    node.check("overlay: it is mounted nosuid, nodev and noexec", good, line);
}

/// The control of [`forged`]: the same order, written by the node, is followed.
fn heeded(node: &mut Node, volume: &str) {
    let mut body = node::body();
    let file = Kind::File(Meta { mode: 0o644, ..Meta::default() }, Data::Inline("deep\n".into()));
    body.entries.push(Entry { path: "srv/inner/deep".into(), node: file });
    body.entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut start = request(node, volume, &["/srv"], "ls /srv/inner; echo seen");
    start.root = node::image("deep.erofs", &body);
    let said = output(node, &start);
    node.check(
        "overlay: a directory of the container hides nothing",
        said == "deep\nseen\n",
        &said,
    );
    let upper = format!("{volume}/srv/upper/inner");
    lsetxattr(&upper, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .expect("the node may, and the container has made it");
    let root = start.root;
    let mut start = request(node, volume, &["/srv"], "ls /srv/inner; echo seen");
    start.root = root;
    let said = output(node, &start);
    node.check("overlay: unless the node says so", said == "seen\n", &said);
}

/// The mounts that the launcher sees.
fn mounts(node: &Node) -> String {
    fs::read_to_string(format!("/proc/{}/mountinfo", node.launcher.id())).unwrap_or_default()
}

/// A container that had the volume without overlays has made their directories, and so has somebody
/// with the disk in their hands.
fn used_before(node: &mut Node) {
    let volume = "/pools/before";
    let script = "busybox mkdir -p /data/srv/upper /data/srv/work/work/d && cd /data/srv && echo linked > upper/hard; busybox mknod upper/own c 0 0 && echo whiteout; busybox mknod upper/null c 1 3 || echo no device; busybox ln upper/hard work/work/hard || echo no link; echo control > work/work/file && busybox ln work/work/file work/work/same && echo prepared";
    shell(&format!("mkdir -p {volume}"));
    let mut start = node.request(&["sh", "-c", script]);
    let source = MountSource::Directory { path: volume.to_owned() };
    start.mounts.push(Mount { path: "/data".to_owned(), source });
    let said = output(node, &start);
    let good = ["whiteout\n", "no device\n", "no link\n", "prepared\n"]
        .iter()
        .all(|one| said.contains(one));
    node.check(
        "overlay: without one, whiteouts can be made, no other devices and no links",
        good,
        &said,
    );
    shell(&format!(
        "cd {volume}/srv; ln upper/hard work/work/d/hard; ln upper/hard work/work/hard"
    ));
    let look = "cat /srv/hard; ls /srv; echo more > /srv/new && echo written";
    let start = request(node, volume, &["/srv"], look);
    let said = output(node, &start);
    // The device 0:0 is how the kernel itself says that a file was removed: this one harms its own.
    let good = said == "linked\ndamaged\nhard\ninner\nwritten\n";
    node.check("overlay: with both, a file is missing and no other is", good, &said);
    let left = shell(&format!("ls {volume}/srv/work/work; cat {volume}/srv/upper/hard"));
    node.check(
        "overlay: and the kernel empties its own directory alone",
        left == "linked\n",
        &left,
    );
}

fn nested(node: &mut Node) {
    let script = "echo out > /srv/out; echo in > /srv/inner/in; cat /srv/out /srv/inner/in";
    let start = request(node, "/pools/nested", &["/srv", "/srv/inner"], script);
    let said = output(node, &start);
    node.check("overlay: one lies below another", said == "out\nin\n", &said);
    let disk = shell("cd /pools/nested; ls srv/upper srv%2finner/upper");
    let good = disk == "srv%2finner/upper:\nin\n\nsrv/upper:\nout\n"
        || disk == "srv/upper:\nout\n\nsrv%2finner/upper:\nin\n";
    node.check("overlay: and each keeps its own", good, &disk);
    let script = "echo mine > /tmp/mine && cat /tmp/mine";
    let mut start = request(node, "/pools/skeleton", &[], script);
    start.mounts = vec![mount("/tmp", "/pools/skeleton")];
    (start.uid, start.gid) = (33, 33);
    let said = output(node, &start);
    node.check("overlay: everybody may write to a /tmp of the node", said == "mine\n", &said);
    shell("chmod 700 /pools/skeleton/tmp/upper; rm /pools/skeleton/tmp/upper/mine");
    let mut start = request(node, "/pools/skeleton", &[], "busybox stat -c %a /tmp");
    start.mounts = vec![mount("/tmp", "/pools/skeleton")];
    let said = output(node, &start);
    node.check("overlay: a mode that was changed stays", said == "700\n", &said);
}

/// A command of a health check sees what the program wrote, and executes nothing there.
fn watched(node: &mut Node) {
    let script =
        format!("busybox cp /bin/busybox /srv/copy; echo mine > /srv/mine; {}", checks::WAIT);
    let start = request(node, "/pools/watched", &["/srv"], &script);
    let running = checks::started(node, &start);
    let said = checks::said(&running, "cat /srv/mine; /srv/copy true; echo $?");
    let good = said.contains("mine\n") && said.ends_with("126\n");
    node.check("overlay: a command of a check sees it, and executes nothing there", good, &said);
    running.signal(Signal::KILL);
    running.wait();
}

/// Inside the container.
pub(crate) fn probe() {
    let say = |name: &str, outcome: Result<(), Errno>| match outcome {
        Ok(()) => println!("{name}=done"),
        Err(Errno::PERM) => println!("{name}=EPERM"),
        Err(Errno::ACCESS) => println!("{name}=EACCES"),
        Err(Errno::INVAL) => println!("{name}=EINVAL"),
        Err(errno) => println!("{name}={errno:?}"),
    };
    fs::write("/srv/file", "its own\n").expect("it is writable");
    fs::create_dir("/srv/made").expect("it is writable");
    fs::write("/srv/made/file", "made\n").expect("it is writable");
    for (order, value) in ORDERS {
        for path in PLACES {
            for prefix in ["trusted.overlay", "user.overlay"] {
                let name = format!("{prefix}.{order}");
                say(&name, lsetxattr(path, &name, value, XattrFlags::empty()));
            }
        }
    }
    let node =
        |path: &str, device| mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, device);
    say("whiteout", node("/srv/whiteout", 0));
    say("device", node("/srv/device", rustix::fs::makedev(1, 3)));
    say("control", mknodat(CWD, "/srv/pipe", FileType::Fifo, Mode::RUSR, 0));
    fs::remove_file("/srv/pipe").expect("it was made");
    let whiteout = RenameFlags::WHITEOUT;
    say("rename", renameat_with(CWD, "/srv/file", CWD, "/srv/renamed", whiteout));
}

fn quota(node: &mut Node) {
    let pools = File::open("/pools").expect("the pool");
    sys::btrfs::quota_enable(&pools).expect("btrfs has simple quotas");
    for name in ["small", "large"] {
        sys::btrfs::subvolume_create(&pools, name).expect("there is room");
    }
    let small = File::open("/pools/small").expect("it was made");
    sys::btrfs::quota_limit(&small, Some(QUOTA_BYTES)).expect("quotas are on");
    // Also a copy of a large file of the flist, of which one byte is changed, takes its room.
    let fill = "busybox dd if=/dev/zero of=/srv/big bs=64k count=512 conv=fsync 2>&1 && echo all; cat /bin/probe >> /srv/own || echo full; busybox rm /srv/big && echo x > /srv/small && echo free";
    let start = request(node, "/pools/small", &["/srv"], fill);
    let said = output(node, &start);
    let over = said.contains("quota exceeded") || said.contains("No space left");
    let good = over && !said.contains("all") && said.contains("full") && said.ends_with("free\n");
    node.check("overlay: the quota of its volume holds", good, &said);
    let start = request(node, "/pools/large", &["/srv"], fill);
    let said = output(node, &start);
    node.check("overlay: another volume takes the same", said.contains("all\n"), &said);
}

/// A container that has filled its volume is started again when that is larger: the kernel needs room
/// to mount.
fn full(node: &mut Node) {
    let pools = File::open("/pools").expect("the pool");
    sys::btrfs::subvolume_create(&pools, "full").expect("there is room");
    let full = File::open("/pools/full").expect("it was made");
    sys::btrfs::quota_limit(&full, Some(QUOTA_BYTES)).expect("quotas are on");
    let fill = "for size in 64k 4k 512 16; do busybox dd if=/dev/zero bs=$size count=512 conv=fsync 2>/dev/null >> /srv/$size || echo full; done; i=0; while echo $i 2>/dev/null > /srv/f$i; do i=$((i+1)); [ $i -lt 5000 ] || break; done; echo filled";
    let start = request(node, "/pools/full", &["/srv"], fill);
    let said = output(node, &start);
    let good = said.contains("full\n") && said.ends_with("filled\n");
    node.check("overlay: a volume can be filled", good, &said);
    let start = request(node, "/pools/full", &["/srv"], "busybox rm /srv/64k && echo freed");
    let said = output(node, &start);
    node.check("overlay: which keeps it from starting", said.contains("mount_failed"), &said);
    sys::btrfs::quota_limit(&full, Some(2 * QUOTA_BYTES)).expect("quotas are on");
    let start = request(node, "/pools/full", &["/srv"], "busybox rm /srv/64k; echo up");
    let said = output(node, &start);
    node.check("overlay: with a larger volume it starts again", said == "up\n", &said);
}

/// Files that the node has in /etc, when something else is there.
fn own_files(node: &mut Node) {
    let mut start = node.request(&["sh", "-c", "ls /etc; echo up"]);
    let source = MountSource::Tmpfs { size_bytes: 1 << 20 };
    start.mounts.push(Mount { path: "/etc".to_owned(), source });
    let said = output(node, &start);
    node.check("own files: none in a tmpfs over /etc", said == "up\n", &said);
    shell("mkdir -p /pools/etc/hosts; touch /pools/etc/resolv.conf");
    let look = "cat /etc/resolv.conf; ls -d /etc/hosts/ /etc/hostname";
    let mut start = node.request(&["sh", "-c", look]);
    let source = MountSource::Directory { path: "/pools/etc".to_owned() };
    start.mounts.push(Mount { path: "/etc".to_owned(), source });
    let said = output(node, &start);
    let good = said.contains("nameserver 10.1.2.3\n")
        && said.contains("/etc/hosts/\n")
        && said.contains("/etc/hostname: No such file");
    node.check("own files: in a volume, over the files that it has", good, &said);
    shell("mkdir -p /pools/whited/etc/upper; mknod /pools/whited/etc/upper/resolv.conf c 0 0");
    let start = request(node, "/pools/whited", &["/etc"], "ls /etc/resolv.conf; echo up");
    let said = output(node, &start);
    let good = said.contains("/etc/resolv.conf: No such file") && said.ends_with("up\n");
    node.check("own files: what a container has removed there stays so", good, &said);
}

fn refused(node: &mut Node) {
    let before = mounts(node);
    for (what, path, setup, wanted) in [
        ("a place that is not there", "/missing", "true", "mount_target_missing"),
        ("a place behind a link", "/link/inner", "true", "mount_target_missing"),
        ("a place that is a file", "/bin/busybox", "true", "mount_target_missing"),
        ("a volume that is not there", "/srv", "rm -r ../bad", "mount_failed"),
        ("a volume that is a link", "/srv", "rm -r ../bad; ln -s / ../bad", "mount_failed"),
        ("layers that a link leads to", "/srv", "ln -s / srv", "mount_failed"),
        ("what was written, by a link", "/srv", "mkdir srv; ln -s / srv/upper", "mount_failed"),
        ("a file in the place of one", "/srv", "mkdir srv; touch srv/work", "mount_failed"),
        ("work that is not the kernel's", "/srv", "mkdir -p srv/work/work/a/b/c/d", "mount_failed"),
        (
            "more than the kernel leaves",
            "/srv",
            "mkdir -p srv/work/work/a; cd srv/work/work/a; i=0; while [ $i -le 10000 ]; do : > $i; i=$((i+1)); done",
            "mount_failed",
        ),
    ] {
        shell(&format!("cd /pools; rm -rf bad; mkdir bad; cd bad; {setup}"));
        let mut start = node.request(&["sh", "-c", "echo ran"]);
        start.mounts.push(mount(path, "/pools/bad"));
        let refused = node.refusal(&start);
        let good = refused == wanted && mounts(node) == before;
        node.check(&format!("overlay: refused: {what}"), good, &refused);
    }
    shell("cd /pools; rm -rf bad; mkdir -p bad/srv");
    let layers = File::open("/pools/bad/srv").expect("it was made");
    sys::btrfs::subvolume_create(&layers, "upper").expect("there is room");
    let start = request(node, "/pools/bad", &["/srv"], "echo ran");
    let refused = node.refusal(&start);
    node.check("overlay: refused: a volume in the volume", refused == "mount_failed", &refused);
    shell("mkdir -p /pools/good");
    let start = request(node, "/pools/good", &["/srv", "/missing"], "echo ran");
    let refused = node.refusal(&start);
    let good = refused == "mount_target_missing" && mounts(node) == before;
    node.check("overlay: refused: a second one that cannot be", good, &refused);
    let start = request(node, "/pools/good", &["/srv"], "echo ran");
    let said = output(node, &start);
    node.check("overlay: the first by itself is taken", said == "ran\n", &said);
    shell("cd /pools; rm -rf bad; mkdir bad");
    let start = request(node, "/pools/bad", &["/srv"], "echo ran");
    let said = output(node, &start);
    node.check("overlay: and taken, as it should be", said == "ran\n", &said);
}
