//! Sits in a test machine in the place of netd, and does damage on command; it is in no image.
//!
//! It starts a second copy of itself that obeys the machine's second serial line, then becomes the
//! real netd. Commands are lines: `kill NAME` kills a service with everything in its cgroup, as
//! SIGKILL does; `memory` tells the proportional set size of each service in bytes; `processor` the time
//! that each has taken; `status` asks the daemons that answer how they are, and tells how long each took;
//! `machine` tells what the machine has; `volumes` names the volumes on all disks. `spoil FLIST OBJECTS`
//! damages the node's store, `check` reads all its objects, `end ID` kills a container, `forget` drops what
//! the machine remembers of its disks.
//! One file, the standard library only, compiled by `rustc` alone.

#![forbid(unsafe_code)]

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const SERVICES: &str = "/sys/fs/cgroup/system";
const WORK: &str = "/sys/fs/cgroup/work";
const STORE: &str = "/store";
/// What each is asked.
const QUESTIONS: [(&str, &str); 3] = [
    ("init", "io.zeroos.init.Status"),
    ("storaged", "io.zeroos.storaged.Disks"),
    ("netd", "io.zeroos.netd.Status"),
];
const ANSWER_MAX: Duration = Duration::from_secs(50);

fn main() -> io::Result<()> {
    if env::args().nth(1).as_deref() == Some("obey") {
        return obey();
    }
    Command::new("/bin/netd").arg("obey").spawn()?;
    Err(Command::new("/bin/netd.real").args(env::args_os().skip(1)).exec())
}

fn obey() -> io::Result<()> {
    let line = OpenOptions::new().read(true).write(true).open("/dev/ttyS1")?;
    let mut answers = line.try_clone()?;
    writeln!(answers, "saboteur: here")?;
    for command in BufReader::new(line).lines() {
        let command = command?;
        let answer = match command.trim().split_once(' ') {
            Some(("kill", name)) => {
                // Before it is done: killing netd ends this program too.
                writeln!(answers, "saboteur: kills {name}")?;
                match kill(name) {
                    Ok(()) => continue,
                    Err(error) => format!("failed {name}: {error}"),
                }
            }
            Some(("spoil", files)) => told(spoil(files)),
            Some(("end", id)) => told(end(id)),
            None if command.trim() == "forget" => told(forget()),
            None if command.trim() == "check" => told(check()),
            None if command.trim() == "memory" => memory()?,
            None if command.trim() == "processor" => processor()?,
            None if command.trim() == "status" => status(),
            None if command.trim() == "machine" => machine()?,
            None if command.trim() == "volumes" => volumes()?,
            _ => continue,
        };
        writeln!(answers, "saboteur: {answer}")?;
    }
    Ok(())
}

fn told(outcome: io::Result<String>) -> String {
    outcome.unwrap_or_else(|error| format!("failed: {error}"))
}

/// Takes three objects and a metadata image away from under their names, which are given by their
/// digests: the first object is missing, the second is the third, which is sealed as well, the fourth has
/// the right bytes and no seal; so has the image.
fn spoil(files: &str) -> io::Result<String> {
    let words: Vec<&str> = files.split(' ').collect();
    let [flist, objects @ ..] = &words[..] else { return Err(io::ErrorKind::InvalidInput.into()) };
    let object = |digest: &&str| {
        let (first, rest) = digest.split_at_checked(2)?;
        Some(Path::new(STORE).join("objects").join(first).join(rest))
    };
    let paths: Option<Vec<_>> = objects.iter().map(object).collect();
    let paths = paths.unwrap_or_default();
    let [first, second, third, fourth] = &paths[..] else {
        return Err(io::Error::other("four objects are spoilt"));
    };
    let aside = Path::new(STORE).join("staging/aside");
    fs::remove_file(first)?;
    fs::hard_link(third, &aside)?;
    fs::rename(&aside, second)?;
    for file in [fourth.clone(), Path::new(STORE).join(format!("images/{flist}.erofs"))] {
        fs::copy(&file, &aside)?;
        fs::rename(&aside, file)?;
    }
    Ok("spoilt".to_owned())
}

/// `checked OBJECTS bad OBJECTS`: how many there are, and cannot be read.
fn check() -> io::Result<String> {
    let (mut all, mut bad) = (0, 0);
    for shelf in fs::read_dir(Path::new(STORE).join("objects"))? {
        for object in fs::read_dir(shelf?.path())? {
            all += 1;
            bad += u32::from(fs::read(object?.path()).is_err());
        }
    }
    Ok(format!("checked {all} bad {bad}"))
}

fn end(id: &str) -> io::Result<String> {
    fs::write(Path::new(WORK).join(id).join("cgroup.kill"), "1")?;
    Ok(format!("ended {id}"))
}

fn forget() -> io::Result<String> {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    Ok("forgot".to_owned())
}

fn kill(service: &str) -> io::Result<()> {
    fs::write(Path::new(SERVICES).join(service).join("cgroup.kill"), "1")
}

/// `memory init=BYTES storaged=BYTES …`
fn memory() -> io::Result<String> {
    let mut text = format!("memory init={}", pss("1"));
    for service in fs::read_dir(SERVICES)? {
        let service = service?;
        let Ok(pids) = fs::read_to_string(service.path().join("cgroup.procs")) else { continue };
        let own = std::process::id().to_string();
        let bytes: u64 = pids.lines().filter(|pid| *pid != own).map(pss).sum();
        text += &format!(" {}={bytes}", service.file_name().to_string_lossy());
    }
    Ok(text)
}

/// `processor init=MICROSECONDS … all=MICROSECONDS`, the last of everything that runs.
fn processor() -> io::Result<String> {
    let used = |path: &Path| {
        let text = fs::read_to_string(path.join("cpu.stat")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        line.and_then(|us| us.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut text = "processor".to_owned();
    for service in fs::read_dir(SERVICES)? {
        let service = service?;
        if !service.file_type()?.is_dir() {
            continue;
        }
        let us = used(&service.path());
        text += &format!(" {}={us}", service.file_name().to_string_lossy());
    }
    Ok(format!("{text} all={}", used(Path::new("/sys/fs/cgroup"))))
}

/// `status init=MICROSECONDS …`, or `failed: WHO: WHY`
fn status() -> String {
    let mut text = "status".to_owned();
    for (name, method) in QUESTIONS {
        let begun = Instant::now();
        match ask(name, method) {
            Ok(answer) if answer.contains("\"parameters\"") && !answer.contains("\"error\"") => {
                text += &format!(" {name}={}", begun.elapsed().as_micros());
            }
            Ok(answer) => return format!("failed: {name}: {answer}"),
            Err(error) => return format!("failed: {name}: {error}"),
        }
    }
    text
}

/// A call and its answer, each of which ends with a zero.
fn ask(name: &str, method: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(format!("/run/zos/{name}.sock"))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "{{\"method\":\"{method}\",\"parameters\":{{}}}}\0")?;
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(0, &mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// `machine total=BYTES available=BYTES`
fn machine() -> io::Result<String> {
    let text = fs::read_to_string("/proc/meminfo")?;
    Ok(format!(
        "machine total={} available={}",
        kib(&text, "MemTotal:"),
        kib(&text, "MemAvailable:")
    ))
}

/// `volumes NAME …`, sorted
fn volumes() -> io::Result<String> {
    let mut names = Vec::new();
    for pool in fs::read_dir("/pools")? {
        // A directory without a pool has no volumes.
        let Ok(volumes) = fs::read_dir(pool?.path().join("@volumes")) else { continue };
        for volume in volumes {
            names.push(volume?.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(format!("volumes {}", names.join(" ")))
}

/// Proportional set size in bytes (`/proc/PID/smaps_rollup`); 0 for a process that has ended.
fn pss(pid: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    kib(&rollup, "Pss:")
}

/// A line of /proc as `Name:  12 kB`, in bytes; 0 when there is none.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
