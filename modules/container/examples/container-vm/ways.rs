//! Every way to execute a binary, with every place that it may lie in: what the flist has runs, and
//! the same bytes from anywhere else do not.

use crate::{
    node::{Node, shell},
    overlays,
};
use node_api::launcher::{Mount, MountSource};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::MountFlags,
};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{fs::PermissionsExt, process::CommandExt as _},
    },
    path::Path,
    process::{Command, Stdio},
};
use sys::mapping::{Ask, Shared};

/// Directories that a container can write to, and what they are.
const PLACES: [(&str, &str); 4] = [
    ("/tmp", "a tmpfs"),
    ("/dev/shm", "/dev/shm"),
    ("/data", "a volume"),
    ("/srv", "a directory of the flist that it may change"),
];
/// How to execute a file, and what that is.
const WAYS: [(&str, &str); 7] = [
    ("path", "by its path"),
    ("descriptor", "through /proc/self/fd"),
    ("execveat", "by its descriptor"),
    ("script", "as a script"),
    ("loader", "by the loader of programs"),
    ("mapping", "by mmap(PROT_EXEC)"),
    ("mprotect", "by mprotect(PROT_EXEC)"),
];
/// What the ways execute: a static program, a script, a program that needs the loader.
const FILES: [&str; 3] = ["busybox", "script", "dynamic"];

/// Memory that has, or might have, a file without a name on any mount; what it is, and what the kernel
/// says of it in a container. Outside, each can be executed.
const MEMORY: [(&str, &str, &[&str]); 4] = [
    ("memfd", "a file in memory without a name", &["ENOSYS"]),
    ("memfd-noexec", "one that says that it is no program", &["ENOSYS"]),
    ("map-files", "shared memory, by its file in /proc", &REFUSALS),
    ("map-files-loader", "the same, by the loader of programs", &REFUSALS),
];

/// What the kernel refuses with; another failure would prove nothing.
const REFUSALS: [&str; 2] = ["EPERM", "EACCES"];

pub(crate) fn run(node: &mut Node) {
    // A volume that comes with programs, as one does that another contract's files were put into.
    shell(
        "rm -rf /pools/programs && mkdir -p /pools/programs /pools/changed && cp /bin/busybox /pools/programs/given && chmod 777 /pools/programs",
    );
    let mut start = node.request(&["/bin/probe", "probe", "ways"]);
    let source = MountSource::Directory { path: "/pools/programs".to_owned() };
    start.mounts.push(Mount { path: "/data".to_owned(), source });
    start.mounts.push(overlays::mount("/srv", "/pools/changed"));
    let ended = node.run(&start);
    let output = ended.as_ref().map(|ended| ended.output.clone()).unwrap_or_default();
    let said = |way: &str, place: &str| {
        let words =
            |line: &str| line.split_once(' ').is_some_and(|(at, _)| at == format!("{way}:{place}"));
        output.lines().find(|line| words(line)).and_then(|line| Some(line.split_once(' ')?.1))
    };
    for (way, what) in WAYS {
        let ran = said(way, "/bin") == Some("ran");
        node.check(&format!("a file of the flist is executed {what}"), ran, &ended);
        for (place, name) in PLACES {
            let refused = said(way, place).is_some_and(|said| REFUSALS.contains(&said));
            node.check(
                &format!("a written file in {name} is not executed {what}"),
                refused,
                &ended,
            );
        }
    }
    let given = said("path", "/data/given").is_some_and(|said| REFUSALS.contains(&said));
    node.check("nor is one that was in the volume before", given, &ended);
    for (kind, what, refusals) in MEMORY {
        let outside = remember(kind);
        let ran = outside.is_ok();
        node.check(&format!("outside of containers, this is executed: {what}"), ran, &outside);
        let refused = said(kind, "memory").is_some_and(|said| refusals.contains(&said));
        node.check(&format!("inside it is not: {what}"), refused, &ended);
    }
    for (way, what) in [
        ("bind", "a written file is not mounted over a program"),
        ("bind-directory", "nor its directory"),
        ("clone", "nor a copy of its mount, without noexec"),
        ("remount", "no mount loses its noexec"),
        ("link", "no file of the root gets another name"),
        ("overwrite", "no byte of a program is written"),
    ] {
        let refused = ["EPERM", "EACCES", "EROFS", "ETXTBSY"];
        let good = said(way, "mount").is_some_and(|said| refused.contains(&said));
        node.check(what, good, &ended);
    }
    damaged(node);
}

/// What the store has otherwise than the flist says is refused to programs that run already.
fn damaged(node: &mut Node) {
    for (file, what, errno) in [
        ("damaged", "another file under its digest", "Input/output error"),
        ("bare", "the right bytes without fs-verity", "Input/output error"),
        ("gone", "no object at all", "No such file or directory"),
    ] {
        let script = format!("cat /bin/{file}; /bin/{file}; busybox tail -n 1 /bin/script");
        let start = node.request(&["sh", "-c", &script]);
        let output = node.run(&start).map(|ended| ended.output).unwrap_or_default();
        let refused = output.matches(errno).count() + output.matches("not found").count();
        // The control is a file that is as it should be.
        let good =
            refused == 2 && output.contains("#xxx") && !output.contains(&format!("echo {file}"));
        node.check(&format!("{what}: refused at open and at exec"), good, &output);
    }
}

/// Inside the container.
pub(crate) fn probe() {
    for name in FILES {
        for (place, _) in PLACES {
            let to = Path::new(place).join(name);
            fs::copy(Path::new("/bin").join(name), &to).expect("there is room");
            fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).expect("it is ours");
        }
    }
    for place in ["/bin"].into_iter().chain(PLACES.map(|(place, _)| place)) {
        for (way, _) in WAYS {
            say(way, place, execute(way, Path::new(place)));
        }
    }
    say("path", "/data/given", spawn(Command::new("/data/given").arg0("true")));
    for (kind, ..) in MEMORY {
        say(kind, "memory", remember(kind));
    }
    mounts();
}

fn say(way: &str, place: &str, outcome: io::Result<()>) {
    let said = match outcome {
        Ok(()) => "ran".to_owned(),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::PERM) => "EPERM".to_owned(),
            Some(Errno::ACCESS) => "EACCES".to_owned(),
            Some(Errno::NOSYS) => "ENOSYS".to_owned(),
            Some(Errno::ROFS) => "EROFS".to_owned(),
            Some(Errno::TXTBSY) => "ETXTBSY".to_owned(),
            Some(_) | None => format!("{error}"),
        },
    };
    println!("{way}:{place} {said}");
}

fn execute(way: &str, place: &Path) -> io::Result<()> {
    let program = place.join("busybox");
    match way {
        "path" => spawn(Command::new(program).arg0("true")),
        "descriptor" => {
            let file = File::open(program)?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            spawn(Command::new(path).arg0("true"))
        }
        // In a process of its own, whose place the program takes.
        "execveat" => {
            let arguments = ["probe", "execveat", &program.display().to_string()];
            spawn(Command::new("/bin/probe").args(arguments))
        }
        "script" => spawn(Command::new(place.join("script")).arg("ran").stdout(Stdio::null())),
        "loader" => load(&place.join("dynamic")),
        "mapping" => sys::mapping::execute(File::open(program)?, Ask::AtOnce),
        "mprotect" => sys::mapping::execute(File::open(program)?, Ask::Later),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Runs a program; one that tells why it could not execute another ends with the number of the error.
fn spawn(command: &mut Command) -> io::Result<()> {
    match command.status()?.code() {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code)),
        None => Err(io::ErrorKind::Other.into()),
    }
}

/// Has the loader of the flist load a program, which reads and maps it by itself.
fn load(program: &Path) -> io::Result<()> {
    let output =
        Command::new("/bin/ld.so").args(["--library-path", "/bin"]).arg(program).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else if said.contains("failed to map segment from shared object") {
        // The loader has opened and read the program, and says of its mapping no more than this.
        Err(Errno::PERM.into())
    } else if said.contains("cannot open shared object file: Operation not permitted") {
        Err(Errno::PERM.into())
    } else {
        Err(io::Error::other(said))
    }
}

/// Becomes another program, by its descriptor; gives the number of the error when it does not.
pub(crate) fn execveat(path: &str) -> u8 {
    let strings = sys::clone::Strings::new(["true"]).expect("no NUL");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.expect("it is there");
    let error = sys::clone::execveat(file.as_fd(), c"", &strings, &strings);
    error.raw_os_error().and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

/// Fills memory with a program, and executes its file, or maps it as a loader would.
fn remember(kind: &str) -> io::Result<()> {
    use rustix::fs::MemfdFlags;
    let memfd = |flags| {
        let mut file = File::from(rustix::fs::memfd_create("program", flags)?);
        file.write_all(&fs::read("/bin/busybox")?)?;
        sys::mapping::execute(&file, Ask::AtOnce)
    };
    let shared = |program: &str| {
        let memory = Shared::filled(&fs::read(program)?)?;
        let path = format!("/proc/{}/map_files/{}", std::process::id(), memory.name());
        io::Result::Ok((memory, path))
    };
    match kind {
        "memfd" => memfd(MemfdFlags::CLOEXEC),
        "memfd-noexec" => memfd(MemfdFlags::NOEXEC_SEAL),
        "map-files" => {
            let (_memory, path) = shared("/bin/busybox")?;
            sys::mapping::execute(File::open(path)?, Ask::AtOnce)
        }
        "map-files-loader" => {
            let (_memory, path) = shared("/bin/dynamic")?;
            load(Path::new(&path))
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn mounts() {
    let bind = |from: &str, to: &str| rustix::mount::mount(from, to, "", MountFlags::BIND, None);
    say("bind", "mount", bind("/tmp/busybox", "/bin/busybox").map_err(Into::into));
    say("bind-directory", "mount", bind("/tmp", "/bin").map_err(Into::into));
    let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, "/tmp", flags);
    say("clone", "mount", tree.map(drop).map_err(Into::into));
    let remount = rustix::mount::mount_remount("/tmp", MountFlags::empty(), "");
    say("remount", "mount", remount.map_err(Into::into));
    // Of one mount: between two it is refused whatever the mounts are.
    say("link", "mount", fs::hard_link("/bin/busybox", "/bin/other"));
    let writing = File::options().write(true).open("/bin/busybox");
    say("overwrite", "mount", writing.map(drop));
}
