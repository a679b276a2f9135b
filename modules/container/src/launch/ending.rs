//! The end of a process of ours, and what it says until then.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Instant,
};

/// Bytes of what a process says that are kept.
pub(super) const SAID_MAX: usize = 1024;
/// What a pipe holds.
const PIPE_BYTES: usize = 64 << 10;

/// What was seen of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether it ended before the deadline.
    pub(super) ended: bool,
    /// The last that it said.
    pub(super) said: Vec<u8>,
}

/// Waits for the end of a process, and reads what it says meanwhile. Who says more than `heard_max`
/// bytes is not heard any longer, and waits when the pipe is full. The process is not reaped.
pub(super) fn watch(
    pidfd: BorrowedFd<'_>,
    said: OwnedFd,
    deadline: Instant,
    heard_max: usize,
) -> io::Result<Seen> {
    fcntl_setfl(&said, OFlags::NONBLOCK)?;
    let (mut said, mut text, mut heard) = (File::from(said), Vec::new(), Heard::More(0));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let is_open = matches!(heard, Heard::More(n) if n < heard_max);
        let wanted = if is_open { PollFlags::IN } else { PollFlags::empty() };
        let mut both =
            [PollFd::new(&pidfd, PollFlags::IN), PollFd::from_borrowed_fd(said.as_fd(), wanted)];
        // A pipe without writers would wake us for ever.
        let watched = if is_open { &mut both[..] } else { &mut both[..1] };
        match poll(watched, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            done => done?,
        };
        let ended = !both[0].revents().is_empty();
        // Not by what `poll` gives: whoever never stops talking is late too.
        if !ended && left.is_zero() {
            return Ok(Seen { ended, said: text });
        }
        if is_open {
            heard = hear(&mut said, &mut text, heard);
        }
        if ended {
            // What is in the pipe still.
            for _ in 0..PIPE_BYTES / SAID_MAX {
                heard = hear(&mut said, &mut text, heard);
            }
            return Ok(Seen { ended, said: text });
        }
    }
}

/// How much was heard, and whether more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    More(usize),
    All,
}

/// Reads what is there. The end of it is kept.
fn hear(said: &mut File, text: &mut Vec<u8>, before: Heard) -> Heard {
    let Heard::More(n_before) = before else { return before };
    let mut some = [0; SAID_MAX];
    match said.read(&mut some) {
        Ok(0) => Heard::All,
        Ok(n) => {
            text.extend_from_slice(&some[..n]);
            text.drain(..text.len().saturating_sub(SAID_MAX));
            Heard::More(n_before.saturating_add(n))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => before,
            _ => Heard::All,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::{
        io::Write as _,
        process::{Child, Command, Stdio},
        time::Duration,
    };

    /// Far above what anything takes here on a busy machine.
    const PATIENCE: Duration = Duration::from_mins(1);

    #[test]
    fn of_what_is_said_the_end_is_kept() {
        let (read, mut write) = io::pipe().unwrap();
        let mut read = File::from(OwnedFd::from(read));
        let mut text = Vec::new();
        let mut heard = Heard::More(0);
        for word in ["a", "b", "c"] {
            write.write_all(word.repeat(SAID_MAX / 2).as_bytes()).unwrap();
            heard = hear(&mut read, &mut text, heard);
        }
        assert_eq!(heard, Heard::More(SAID_MAX / 2 * 3));
        assert_eq!(text, ["b", "c"].map(|word| word.repeat(SAID_MAX / 2)).concat().as_bytes());
        drop(write);
        assert_eq!(hear(&mut read, &mut text, heard), Heard::All);
    }

    fn shell(script: &str) -> (Child, OwnedFd, OwnedFd) {
        let mut shell = Command::new("/bin/sh");
        let mut child = shell.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let said = OwnedFd::from(child.stdout.take().unwrap());
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (child, pidfd, said)
    }

    #[test]
    fn the_end_is_seen_whoever_else_holds_the_pipe() {
        let (mut child, pidfd, said) = shell("sleep 100 & echo $!");
        let seen = watch(pidfd.as_fd(), said, Instant::now() + PATIENCE, usize::MAX).unwrap();
        assert!(seen.ended);
        let other: i32 = String::from_utf8(seen.said).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(other).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_does_not_end_or_never_stops_talking_is_late() {
        for (script, heard_max) in [
            ("exec sleep 100", usize::MAX),
            ("while :; do echo x; done", usize::MAX),
            // It waits for a reader that does not come.
            ("while :; do echo x; done", SAID_MAX),
        ] {
            let (mut child, pidfd, said) = shell(script);
            let soon = Instant::now() + Duration::from_millis(200);
            let seen = watch(pidfd.as_fd(), said, soon, heard_max).unwrap();
            assert!(!seen.ended, "{script}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
