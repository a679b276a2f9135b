//! Runs the groups of a suite against two OCI runtimes in turns, inside a test machine. It goes by the
//! name of the checks that `guest/trial.rs` starts, and what it prints goes to the machine's second
//! serial line. One file, the standard library only, compiled by `rustc` alone.
//!
//! ```text
//! begin RUNTIME GROUP
//! | A LINE OF ITS OUTPUT
//! ! A LINE OF ITS ERRORS
//! end RUNTIME GROUP ok | HOW IT ENDED
//! clock MICROSECONDS                       before and after all of these
//! done | failed: WHY                       the last line
//! ```

#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The runtimes, each with how it is called. Groups ask for all capabilities, which ours gives only when
/// it is told to.
const RUNTIMES: [(&str, &str); 2] =
    [("ours", "/bin/container --privileged"), ("crun", "/bin/crun")];
/// Where the machine's maker put the suite, and the names of its groups, one in a line.
const PROGRAMS: &str = "/bin";
const PLAN: &str = "/bin/suite-plan";
/// What every group finds in its working directory.
const RUNTIMETEST: &str = "runtimetest";
const ROOTFS: &str = "rootfs-amd64.tar.gz";
const BUSYBOX: &str = "/bin/busybox";
/// What groups call, besides `unshare` of util-linux.
const APPLETS: [&str; 5] = ["sh", "ls", "sleep", "tar", "true"];
const PLACE: &str = "/run/suite";
/// A group that takes longer hangs, on a machine whose clock may be several times too fast.
const HANG: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(20);
/// What is passed on of the output of one group.
const OUTPUT_MAX: u64 = 1 << 20;
const LINE_MAX: usize = 500;
const ERROR_LINES_MAX: usize = 40;
const CGROUPS: &str = "/sys/fs/cgroup";
/// The kernel removes a cgroup some time after its last process has ended.
const REMOVE_TRIES: u32 = 200;

fn main() -> ExitCode {
    match run() {
        Ok(()) => {
            say("done");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let plan = fs::read_to_string(PLAN)?;
    prepare()?;
    let groups_before = directories(Path::new(CGROUPS));
    let begun = Instant::now();
    let clock = || say(&format!("clock {}", begun.elapsed().as_micros()));
    clock();
    for group in plan.lines() {
        for (name, _) in RUNTIMES {
            say(&format!("begin {name} {group}"));
            let ended = one(name, group)?;
            say(&format!("end {name} {group} {ended}"));
            clean(name, &groups_before)?;
        }
    }
    clock();
    Ok(())
}

fn prepare() -> io::Result<()> {
    fs::create_dir_all(PLACE)?;
    let mounted = Command::new(BUSYBOX)
        .args(["mount", "-t", "tmpfs", "-o", "mode=755", "none", PLACE])
        .status()?;
    if !mounted.success() {
        return Err(io::Error::other("no tmpfs"));
    }
    fs::create_dir(format!("{PLACE}/bin"))?;
    for applet in APPLETS {
        symlink(BUSYBOX, format!("{PLACE}/bin/{applet}"))?;
    }
    for (name, words) in RUNTIMES {
        // Groups send signals to shells that they have just started, without waiting until these have set
        // their traps; in an emulated machine that takes a while.
        let script = format!(
            "#!{PLACE}/bin/sh\n[ \"$1\" != kill ] || sleep 1\nexec {words} \"$@\"\n"
        );
        fs::write(runtime(name), script)?;
        fs::set_permissions(runtime(name), fs::Permissions::from_mode(0o755))?;
    }
    fs::copy(format!("{PROGRAMS}/{RUNTIMETEST}"), format!("{PLACE}/{RUNTIMETEST}"))?;
    // Busybox has to be told that an archive is compressed, and nobody tells it.
    let unpacked = Command::new(BUSYBOX)
        .args(["gunzip", "-c", &format!("{PROGRAMS}/{ROOTFS}")])
        .stdout(fs::File::create(format!("{PLACE}/{ROOTFS}"))?)
        .status()?;
    if !unpacked.success() {
        return Err(io::Error::other(format!("{ROOTFS} is no gzip file")));
    }
    // Groups mount directories of the machine.
    for directory in ["/etc", "/tmp"] {
        fs::create_dir_all(directory)?;
    }
    // crun executes a copy of itself from memory, which a node does not allow.
    fs::write("/proc/sys/vm/memfd_noexec", "0")
}

fn runtime(name: &str) -> String {
    format!("{PLACE}/bin/{name}")
}

/// Runs one group. Says how it ended.
fn one(name: &str, group: &str) -> io::Result<String> {
    let temporary = format!("{PLACE}/tmp");
    let (output, errors) = (format!("{PLACE}/output"), format!("{PLACE}/errors"));
    fs::create_dir(&temporary)?;
    let mut child = Command::new(format!("{PROGRAMS}/{group}.t"))
        .current_dir(PLACE)
        .env_clear()
        .env("RUNTIME", runtime(name))
        .env("TMPDIR", &temporary)
        .env("PATH", format!("{PLACE}/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
        .stdin(Stdio::null())
        .stdout(fs::File::create(&output)?)
        .stderr(fs::File::create(&errors)?)
        .process_group(0)
        .spawn()?;
    let deadline = Instant::now() + HANG;
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break if status.success() { "ok".to_owned() } else { status.to_string() };
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break "it hung and was killed".to_owned();
        }
        thread::park_timeout(LOOK);
    };
    // What it has started and not ended.
    let all = format!("-{}", child.id());
    Command::new(BUSYBOX).args(["kill", "-9", "--", &all]).stderr(Stdio::null()).status()?;
    pass_on(&output, '|', usize::MAX)?;
    pass_on(&errors, '!', ERROR_LINES_MAX)?;
    Ok(ended)
}

fn pass_on(path: &str, sign: char, lines_max: usize) -> io::Result<()> {
    let file = BufReader::new(fs::File::open(path)?.take(OUTPUT_MAX));
    for line in file.split(b'\n').take(lines_max) {
        let line = line?;
        let line = &line[..line.len().min(LINE_MAX)];
        say(&format!("{sign} {}", String::from_utf8_lossy(line).trim_end()));
    }
    Ok(())
}

/// Removes what a group has left, so that no other finds it.
fn clean(name: &str, groups_before: &[PathBuf]) -> io::Result<()> {
    let listed = Command::new(runtime(name)).args(["list", "-q"]).output()?;
    for id in String::from_utf8_lossy(&listed.stdout).lines() {
        let mut delete = Command::new(runtime(name));
        delete.args(["delete", "--force", id]).stdin(Stdio::null()).stdout(Stdio::null());
        delete.stderr(Stdio::null()).status()?;
    }
    let new = |path: &&PathBuf| !groups_before.contains(path);
    for group in directories(Path::new(CGROUPS)).iter().filter(new).rev() {
        // One that went meanwhile needs no help.
        fs::write(group.join("cgroup.kill"), "1").ok();
        for _ in 0..REMOVE_TRIES {
            if fs::remove_dir(group).is_ok() || !group.exists() {
                break;
            }
            thread::park_timeout(LOOK);
        }
    }
    let temporary = format!("{PLACE}/tmp");
    for mount in mounts_below(&temporary)?.iter().rev() {
        Command::new(BUSYBOX).args(["umount", "-l", mount]).status()?;
    }
    fs::remove_dir_all(temporary)
}

/// All of them, each before those below it.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below
        .flat_map(|entry| {
            let mut all = vec![entry.path()];
            all.extend(directories(&entry.path()));
            all
        })
        .collect()
}

fn mounts_below(path: &str) -> io::Result<Vec<String>> {
    let all = fs::read_to_string("/proc/self/mountinfo")?;
    let places = all.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(places.filter(|place| place.starts_with(path)).map(str::to_owned).collect())
}

fn say(text: &str) {
    // Nobody listens any more: then there is nothing to tell.
    writeln!(io::stdout(), "{text}").ok();
}
