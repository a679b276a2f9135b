//! Measures three OCI runtimes in turns, inside a test machine, and counts what ours leaves behind. It
//! goes by the name of the checks that `guest/trial.rs` starts, and what it prints goes to the machine's
//! second serial line. One file, the standard library only, compiled by `rustc` alone.
//!
//! ```text
//! took WHAT RUNTIME MICROSECONDS           one measurement
//! clock MICROSECONDS                       before and after all of these, for who has a better clock
//! left THING BEFORE AFTER                  how many there were, and are
//! hung RUNTIME COMMAND                     it took too long and was killed
//! done | failed: WHY                       the last line
//! ```

#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The runtimes, ours first. They understand the same words.
const RUNTIMES: [(&str, &str); 3] =
    [("ours", "/bin/container"), ("crun", "/bin/crun"), ("runc", "/bin/runc")];
/// Mounts a root whose files the kernel verifies. In it every container finds busybox, static, as its
/// `/bin/true`: by its name that decides what it does.
const VERIFIED_ROOT: &str = "/bin/measure-vm";
const DISK: &str = "/dev/vda";
const BUSYBOX: &str = "/bin/busybox";
/// The bundle, with what the machine's maker put beside the programs.
const CONFIG: &str = "/bin/bench-config.json";
/// `SOLO ROUNDS`: so often ours alone, so often all in turns.
const PLAN: &str = "/bin/bench-plan";
const PLACE: &str = "/run/bench";
const BUNDLE: &str = "/run/bench/bundle";
const ERRORS: &str = "/run/bench/errors";
const PID_FILE: &str = "/run/bench/pid";
const ID: &str = "c";
/// A command that takes longer hangs, also on a slow, busy machine, whose guests have clocks that may be
/// several times too fast.
const HANG: Duration = Duration::from_secs(300);
/// The kernel removes a network namespace some time after its last process has ended.
const SETTLE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(2);
/// How far it is, every so many runs.
const TELL_RUNS: u32 = 100;
/// Bytes of errors that are told.
const ERRORS_MAX: usize = 2000;
/// What is counted, in the order of [`count`].
const THINGS: [&str; 4] = ["cgroups", "mounts", "netns", "processes"];

/// More than these, and there is no use in going on.
const HANGS_MAX: u32 = 10;

type Done<T> = Result<T, Failed>;

/// What went wrong, as a sentence.
enum Failed {
    Hung(String),
    Wrong(String),
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => {
            say("done");
            ExitCode::SUCCESS
        }
        Err(Failed::Hung(why) | Failed::Wrong(why)) => {
            say(&format!("failed: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Done<()> {
    let plan = fs::read_to_string(PLAN).map_err(|error| format!("{PLAN}: {error}"))?;
    let numbers: Vec<u32> = plan.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [n_solo, n_rounds] = numbers[..] else { return Err(format!("{PLAN}: {plan}").into()) };
    prepare().map_err(|error| format!("preparing the bundle: {error}"))?;
    let watch = Watch::start();
    let [ours, ..] = RUNTIMES;
    // The first of each kind finds nothing in the caches, and makes what stays.
    for runtime in RUNTIMES {
        run(&watch, runtime)?;
        create_start_delete(&watch, runtime)?;
    }
    let before = settled(None);
    seen(&watch, ours, before)?;
    let mut n_hung = 0;
    for number in 1..=n_solo {
        match run(&watch, ours) {
            Err(Failed::Hung(what)) if n_hung < HANGS_MAX => {
                n_hung += 1;
                say(&format!("hung {what}"));
                watch.call(ours, &["delete", "--force", ID])?;
            }
            done => drop(done?),
        }
        if number % TELL_RUNS == 0 {
            say(&format!("ours {number} of {n_solo}"));
        }
    }
    let after = settled(Some(before));
    for ((thing, before), after) in THINGS.iter().zip(before).zip(after) {
        say(&format!("left {thing} {before} {after}"));
    }
    let begun = Instant::now();
    let clock = || say(&format!("clock {}", begun.elapsed().as_micros()));
    clock();
    for _ in 0..n_rounds {
        for runtime in RUNTIMES {
            say(&format!("took run {} {}", runtime.0, run(&watch, runtime)?.as_micros()));
        }
        for runtime in RUNTIMES {
            let time = create_start_delete(&watch, runtime)?;
            say(&format!("took life {} {}", runtime.0, time.as_micros()));
        }
    }
    clock();
    Ok(())
}

fn prepare() -> io::Result<()> {
    fs::create_dir_all(PLACE)?;
    busybox(&["mount", "-t", "tmpfs", "-o", "mode=755", "none", PLACE])?;
    let root = format!("{BUNDLE}/rootfs");
    fs::create_dir_all(&root)?;
    let status = Command::new(VERIFIED_ROOT).args(["root", DISK, &root]).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{VERIFIED_ROOT}: {status}")));
    }
    fs::copy(CONFIG, format!("{BUNDLE}/config.json"))?;
    // crun and runc execute copies of themselves from memory, which a node does not allow.
    fs::write("/proc/sys/vm/memfd_noexec", "0")
}

fn busybox(words: &[&str]) -> io::Result<()> {
    let status = Command::new(BUSYBOX).args(words).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{words:?}: {status}"))) }
}

/// From `run` until it has returned.
fn run(watch: &Watch, runtime: (&str, &str)) -> Done<Duration> {
    watch.call(runtime, &["run", "-b", BUNDLE, ID])
}

/// The three commands together. The time that the program itself takes between them does not count.
fn create_start_delete(watch: &Watch, runtime: (&str, &str)) -> Done<Duration> {
    let create = create(watch, runtime)?;
    let start = watch.call(runtime, &["start", ID])?;
    let pid = fs::read_to_string(PID_FILE).map_err(|error| format!("{PID_FILE}: {error}"))?;
    let deadline = Instant::now() + HANG;
    while is_alive(pid.trim()) {
        if Instant::now() > deadline {
            return Err(format!("what {} has started does not end", runtime.0).into());
        }
        thread::park_timeout(LOOK);
    }
    Ok(create + start + watch.call(runtime, &["delete", ID])?)
}

fn create(watch: &Watch, runtime: (&str, &str)) -> Done<Duration> {
    watch.call(runtime, &["create", "-b", BUNDLE, "--pid-file", PID_FILE, ID])
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// What is counted is counted: all goes up by what a waiting container and a mount are, and down again.
fn seen(watch: &Watch, runtime: (&str, &str), before: [u64; 4]) -> Done<()> {
    create(watch, runtime)?;
    let mount = format!("{PLACE}/mount");
    let mounted =
        fs::create_dir(&mount).and_then(|()| busybox(&["mount", "-t", "tmpfs", "none", &mount]));
    mounted.map_err(|error| format!("a mount to count: {error}"))?;
    let with_one = count();
    busybox(&["umount", &mount]).map_err(|error| format!("unmounting: {error}"))?;
    watch.call(runtime, &["delete", "--force", ID])?;
    if before.iter().zip(with_one).all(|(before, with_one)| *before < with_one) {
        return Ok(());
    }
    Err(format!("{THINGS:?} were {before:?}, and with one container and mount {with_one:?}").into())
}

/// Counts when nothing changes any more: either all is as it was, or time is up. Without an earlier
/// count, when two in a row are the same.
fn settled(before: Option<[u64; 4]>) -> [u64; 4] {
    let deadline = Instant::now() + SETTLE;
    let mut last = None;
    loop {
        let now = count();
        let is_back = |before: [u64; 4]| before.iter().zip(now).all(|(before, now)| now <= *before);
        let is_quiet = before.map_or(last == Some(now), is_back);
        if is_quiet || Instant::now() > deadline {
            return now;
        }
        last = Some(now);
        thread::park_timeout(Duration::from_secs(2));
    }
}

fn count() -> [u64; 4] {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count();
    [
        n_directories(Path::new("/sys/fs/cgroup")),
        mounts as u64,
        n_network_namespaces(),
        n_processes(),
    ]
}

fn n_directories(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + below.map(|entry| n_directories(&entry.path())).sum::<u64>()
}

/// As the kernel's allocator counts them, so that one that nobody can reach counts as well. Shrunk
/// first: otherwise free ones that wait for their next use count too.
fn n_network_namespaces() -> u64 {
    fs::write("/sys/kernel/slab/net_namespace/shrink", "1").ok();
    let text = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("net_namespace "));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Without those of the kernel, which come and go. Ours and what waits to be reaped count.
fn n_processes() -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &str| {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        name != "2" && parent.is_some_and(|parent: u32| parent != 2)
    };
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_process)).count() as u64
}

/// Kills a command that hangs. Looks at what is being called from time to time, so that a call costs
/// nothing but to say that it was begun.
struct Watch(Arc<(AtomicU64, AtomicU32)>);

impl Watch {
    fn start() -> Self {
        let shared = Arc::new((AtomicU64::new(0), AtomicU32::new(0)));
        let watched = Arc::clone(&shared);
        thread::spawn(move || {
            let mut last = (0, 0);
            loop {
                thread::park_timeout(HANG);
                let now = (watched.0.load(Ordering::SeqCst), watched.1.load(Ordering::SeqCst));
                if now == last && now.1 != 0 {
                    busybox(&["kill", "-9", &now.1.to_string()]).ok();
                }
                last = now;
            }
        });
        Self(shared)
    }

    /// How long it takes, from the making of its process until that has ended.
    fn call(&self, (name, program): (&str, &str), words: &[&str]) -> Done<Duration> {
        let why = |error: &dyn std::fmt::Display| {
            let errors = fs::read(ERRORS).unwrap_or_default();
            let errors = &errors[..errors.len().min(ERRORS_MAX)];
            let errors = String::from_utf8_lossy(errors).replace('\n', " ");
            format!("{name} {}: {error}: {errors}", words.join(" "))
        };
        let errors = fs::File::create(ERRORS).map_err(|error| why(&error))?;
        let mut command = Command::new(program);
        command.args(["--root", &format!("/run/bench/{name}")]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let begun = Instant::now();
        let mut child = command.spawn().map_err(|error| why(&error))?;
        let status = self.wait(&mut child).map_err(|error| why(&error))?;
        let took = begun.elapsed();
        match status.success() {
            true => Ok(took),
            false if took >= HANG => Err(Failed::Hung(why(&status))),
            false => Err(Failed::Wrong(why(&status))),
        }
    }

    fn wait(&self, child: &mut Child) -> io::Result<std::process::ExitStatus> {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.1.store(child.id(), Ordering::SeqCst);
        let status = child.wait();
        self.0.1.store(0, Ordering::SeqCst);
        status
    }
}

fn say(text: &str) {
    // Nobody listens any more: then there is nothing to tell.
    writeln!(io::stdout(), "{text}").ok();
}
