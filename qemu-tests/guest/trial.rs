//! Sits in a test machine in the place of storaged, runs the checks of the launcher on a disk, and
//! tells on the machine's second serial line what they say. In the place of netd, contractd and init's
//! own launcher it does nothing, so that nobody else mounts anything meanwhile or answers to the
//! checks. It says that it is ready, for init ends a service that does not within minutes. One file,
//! the standard library only, compiled by `rustc` alone.

#![forbid(unsafe_code)]

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
    process::Command,
};

fn main() -> io::Result<()> {
    if let Ok(number) = env::var("ZOS_READY_FD") {
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"))?.write_all(b"1")?;
    }
    if env::args().next().is_none_or(|name| !name.ends_with("storaged")) {
        for_ever();
    }
    let line = || OpenOptions::new().read(true).write(true).open("/dev/ttyS1");
    let checks = Command::new("/bin/container-vm")
        .args(["/bin/launcher-of-the-image", "/dev/vda"])
        // The number means nothing to its launchers.
        .env_remove("ZOS_READY_FD")
        .stdout(line()?)
        .stderr(line()?)
        .status();
    writeln!(line()?, "trial: {checks:?}")?;
    for_ever()
}

/// Whoever reads the line ends the machine.
fn for_ever() -> ! {
    loop {
        std::thread::park();
    }
}
