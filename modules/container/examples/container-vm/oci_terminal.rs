//! Terminals on the kernel: the checks are the engine that awaits their other end at a socket. What
//! must not work stands beside what must.

use crate::{
    node::{Node, shell},
    oci::{BUNDLE, command, config, quiet, run_config, state, until, write},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const SOCKET: &str = "/pools/oci/console";
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(node: &mut Node) {
    let listener = UnixListener::bind(SOCKET).expect("there is room");
    listener.set_nonblocking(true).expect("it is a socket");
    created(node, &listener);
    users(node, &listener);
    entered(node, &listener);
    consoles(node, &listener);
    refused(node);
    fs::remove_file(SOCKET).expect("it was bound");
}

/// The other end of a terminal, and what has come over it.
struct Other {
    file: File,
    text: String,
}

impl Other {
    /// Whether this comes.
    fn says(&mut self, what: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !self.text.contains(what) {
            if !comes(&self.file, deadline.saturating_duration_since(Instant::now())) {
                return false;
            }
            let mut bytes = [0; 4096];
            match self.file.read(&mut bytes) {
                Ok(n) if n > 0 => self.text.push_str(&String::from_utf8_lossy(&bytes[..n])),
                // Its last process has ended.
                _ => return self.text.contains(what),
            }
        }
        true
    }

    fn write(&mut self, text: &str) {
        // One that is closed says nothing, which is seen.
        self.file.write_all(text.as_bytes()).ok();
    }
}

/// Whether something can be read, or will never be.
fn comes(fd: impl AsFd, patience: Duration) -> bool {
    let timeout = Timespec::try_from(patience).expect("it is short");
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|n| n > 0)
}

/// Runs a command to its end and receives what it sent: its exit code, the name and the descriptors.
fn with_socket(listener: &UnixListener, words: &[&str]) -> (Option<i32>, String, Vec<OwnedFd>) {
    let mut child = spawn(words);
    let code = child.wait().ok().and_then(|status| status.code());
    let (name, fds) = receive(listener);
    (code, name, fds)
}

fn spawn(words: &[&str]) -> Child {
    let mut command = command(words);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("we can be executed")
}

/// What whoever has connected sends, or has sent.
fn receive(listener: &UnixListener) -> (String, Vec<OwnedFd>) {
    let mut fds = Vec::new();
    let Ok((socket, _)) = listener.accept() else { return ("nobody".to_owned(), fds) };
    comes(&socket, PATIENCE);
    let mut name = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut name)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let n = recvmsg(&socket, &mut into, &mut control, flags).map_or(0, |message| message.bytes);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    (String::from_utf8_lossy(&name[..n]).into_owned(), fds)
}

fn other(fds: &mut Vec<OwnedFd>) -> Option<Other> {
    Some(Other { file: fds.pop()?.into(), text: String::new() })
}

fn with_terminal(script: &str) -> Value {
    let mut config = config(script);
    config["process"]["terminal"] = json!(true);
    config["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    config
}

fn stop() -> bool {
    quiet(&["delete", "--force", "c"])
}

fn created(node: &mut Node, listener: &UnixListener) {
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo three; busybox tty; busybox stty size; echo from-console > /dev/console; echo from-tty > /dev/tty; busybox stat -c '%t,%T %n' /dev/console /dev/pts/0; ls /proc/self/fd | busybox wc -l; trap 'echo interrupted; exit 4' INT; read line; echo got $line; while :; do sleep 0.1; done";
    write(&with_terminal(script));
    let (code, name, mut fds) =
        with_socket(listener, &["create", "-b", BUNDLE, "--console-socket", SOCKET, "c"]);
    let one = fds.len() == 1 && name == "/dev/pts/ptmx";
    node.check(
        "oci: a terminal is sent by create",
        one && code == Some(0),
        (code, &name, fds.len()),
    );
    let Some(mut other) = other(&mut fds) else { return };
    quiet(&["start", "c"]);
    // All that comes before the program reads: what is typed is seen too.
    let waits = other.says("88,0 /dev/pts/0\r\n4\r\n");
    other.write("words\n");
    let got = other.says("got words");
    for (what, want) in [
        ("it is stdin, stdout and stderr", "three\r\n"),
        ("it has its size", "33 77\r\n"),
        ("it is the container's own", "/dev/pts/0\r\n"),
        ("it is /dev/console", "from-console\r\n"),
        ("and no other file", "88,0 /dev/console\r\n88,0 /dev/pts/0\r\n"),
        ("it controls the session", "from-tty\r\n"),
        ("no descriptor comes with it", "/dev/pts/0\r\n4\r\n"),
    ] {
        node.check(
            &format!("oci: a terminal: {what}"),
            waits && other.text.contains(want),
            &other.text,
        );
    }
    node.check("oci: a terminal: what is typed is read", got, &other.text);
    other.write("\x03");
    let said = other.says("interrupted");
    let stopped = until(|| state("c")["status"] == "stopped");
    node.check("oci: a terminal: and interrupts", said && stopped, &other.text);
    stop();
    // A size without a terminal means nothing, and there is no console then.
    let mut config = config("[ -t 0 ] || echo none; ls /dev/console");
    config["process"]["consoleSize"] = json!({ "height": 99_999, "width": 77 });
    let ran = run_config(&config);
    let good = ran.0.starts_with("none\n") && ran.0.contains("No such file");
    node.check("oci: without a terminal there is no console", good, &ran);
}

fn users(node: &mut Node, listener: &UnixListener) {
    let script = "echo again > $(busybox tty); echo console > /dev/console; busybox stat -c 'of %u' /dev/pts/0; sleep 1000";
    let mut config = with_terminal(script);
    config["process"]["user"] = json!({ "uid": 33, "gid": 44 });
    // Fewer descriptors than there are before the program is executed.
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 12, "hard": 12 }]);
    for kind in ["the machine's ids", "mapped ids"] {
        if kind == "mapped ids" {
            let spaces = config["linux"]["namespaces"].as_array_mut().expect("there are some");
            spaces.push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            shell(&format!("chown -R 100000:100000 {BUNDLE}/rootfs"));
        }
        write(&config);
        let words = ["run", "--detach", "-b", BUNDLE, "--console-socket", SOCKET, "c"];
        let (code, _, mut fds) = with_socket(listener, &words);
        let mut other = other(&mut fds);
        let said = other.as_mut().is_some_and(|other| {
            other.says("of 33") && other.says("again") && other.says("console")
        });
        let text = other.as_ref().map(|other| &other.text);
        node.check(&format!("oci: a terminal is its user's: {kind}"), said, (code, text));
        stop();
    }
    shell(&format!("chown -R 0:0 {BUNDLE}/rootfs"));
}

fn entered(node: &mut Node, listener: &UnixListener) {
    write(&config("while :; do sleep 0.1; done"));
    quiet(&["run", "--detach", "-b", BUNDLE, "c"]);
    let script = "busybox tty; echo from-tty > /dev/tty; ls /dev/console; trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = spawn(&["exec", "--tty", "--console-socket", SOCKET, "c", "sh", "-c", script]);
    let connected = comes(listener, PATIENCE);
    let (name, mut fds) = receive(listener);
    let mut other = other(&mut fds);
    let said = other.as_mut().is_some_and(|other| {
        other.says("ready") && other.text.contains("/dev/pts/0") && other.text.contains("from-tty")
    });
    let text = other.as_ref().map(|other| other.text.clone());
    node.check("oci: exec with a terminal", connected && said, (&name, &text));
    let no_console = text.as_ref().is_some_and(|text| text.contains("No such file"));
    node.check("oci: which is not the container's console", no_console, &text);
    if let Some(other) = &mut other {
        other.write("\x03");
    }
    let code = child.wait().ok().and_then(|status| status.code());
    node.check("oci: and interrupts what it started", code == Some(4), code);
    stop();
}

/// What an image or a mount has in the place of the console is covered, or refused, and never followed.
fn consoles(node: &mut Node, listener: &UnixListener) {
    let (root, fake) = (format!("{BUNDLE}/rootfs"), "/pools/oci/fake");
    shell(&format!(
        "mkdir -p {fake}/pts {fake}/shm {fake}/mqueue && ln -s /dev {root}/cover && echo secret > {root}/secret"
    ));
    let mut config = with_terminal("echo to-console > /dev/console; cat /secret; sleep 1000");
    let mounts = config["mounts"].as_array_mut().expect("there are mounts");
    let dev = mounts.iter().position(|mount| mount["destination"] == "/dev").expect("it is there");
    let cover =
        json!({ "destination": "/cover", "type": "bind", "source": fake, "options": ["rbind"] });
    mounts.insert(dev + 1, cover);
    for (check, make, good) in [
        (
            "oci: CVE-2025-52565: a console in the place of a file",
            format!("echo before > {fake}/console"),
            true,
        ),
        (
            "oci: CVE-2025-52565: a console in the place of a link",
            format!("rm {fake}/console; ln -s /secret {fake}/console"),
            false,
        ),
    ] {
        shell(&make);
        write(&config);
        let words = ["run", "--detach", "-b", BUNDLE, "--console-socket", SOCKET, "c"];
        let (code, name, mut fds) = with_socket(listener, &words);
        let mut other = other(&mut fds);
        let said =
            other.as_mut().is_some_and(|other| other.says("to-console") && other.says("secret"));
        let text = other.as_ref().map(|other| &other.text);
        let kept =
            shell(&format!("cat {root}/secret; [ -h {fake}/console ] || cat {fake}/console"));
        let same = kept == if good { "secret\nbefore\n" } else { "secret\n" };
        let right = if good { said && code == Some(0) } else { code == Some(1) };
        node.check(check, right && same, (code, &name, text, &kept));
        stop();
    }
    shell(&format!("rm -r {fake} {root}/cover {root}/secret"));
}

fn refused(node: &mut Node) {
    let mut small = with_terminal("true");
    small["process"]["consoleSize"]["width"] = json!(70_000);
    let mut bare = with_terminal("true");
    let mounts = bare["mounts"].as_array_mut().expect("there are mounts");
    mounts.retain(|mount| mount["destination"] != "/dev/pts");
    for (what, config, socket, want) in [
        ("that nobody awaits", with_terminal("true"), None, "--console-socket"),
        ("where nobody listens", with_terminal("true"), Some("/pools/oci/nobody"), "opening"),
        ("that is not made", config("true"), Some(SOCKET), "there is none"),
        ("that is too wide", small, Some(SOCKET), "process.consoleSize"),
        ("without its file system", bare, Some(SOCKET), "no devpts"),
    ] {
        write(&config);
        let mut command = command(&["run", "-b", BUNDLE, "c"]);
        if let Some(socket) = socket {
            command.args(["--console-socket", socket]);
        }
        let output = command.output().expect("we can be executed");
        let said = String::from_utf8_lossy(&output.stderr);
        let good = output.status.code() == Some(1) && said.contains(want);
        node.check(&format!("oci: refused: a terminal {what}"), good, &said);
    }
}
