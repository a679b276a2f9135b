//! The terminals that the kernel calls its console: lines on serial ones, a screen on the others.
//!
//! Writes only, and never waits: a terminal that does not take its bytes loses them. Nothing is
//! read, so there is nothing to log in to.

use crate::board::{Board, clean};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    time::{Duration, Instant},
};

/// Names of the kernel's consoles.
const ACTIVE: &str = "/sys/class/tty/console/active";
/// What waits for a slow serial line.
const QUEUE_MAX: usize = 64 << 10;
/// Many facts change at once while a node boots.
const REDRAW_INTERVAL: Duration = Duration::from_millis(500);
/// Kernel messages may have written over the screen.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Terminal {
    device: fs::File,
    queue: Vec<u8>,
}

impl Terminal {
    fn open(name: &str) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).expect("open flags are an int");
        let path = format!("/dev/{name}");
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        // What somebody types shall not appear.
        if let Ok(mut modes) = tcgetattr(&device) {
            modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
            tcsetattr(&device, OptionalActions::Now, &modes)?;
        }
        Ok(Self { device, queue: Vec::new() })
    }

    fn write(&mut self, text: &str) {
        if self.queue.len() + text.len() <= QUEUE_MAX {
            self.queue.extend_from_slice(text.as_bytes());
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.queue.is_empty() {
            match self.device.write(&self.queue) {
                Ok(0) => break,
                Ok(n) => drop(self.queue.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A terminal that fails has nobody who watches.
                Err(_) => self.queue.clear(),
            }
        }
    }
}

/// Every terminal of the node.
#[derive(Debug, Default)]
pub(crate) struct Console {
    serial: Vec<Terminal>,
    screens: Vec<Terminal>,
    is_dirty: bool,
    drawn: Option<Instant>,
}

impl Console {
    /// Opens what the kernel uses as its console. Terminals that cannot be opened are left out.
    pub(crate) fn open() -> Self {
        let active = fs::read_to_string(ACTIVE).unwrap_or_default();
        let mut console = Self { is_dirty: true, ..Self::default() };
        for name in active.split_ascii_whitespace() {
            // tty0 is whichever virtual terminal is shown; the first one is ours.
            let is_screen = name.strip_prefix("tty").is_some_and(|n| n.parse::<u8>().is_ok());
            let (name, place) = if is_screen {
                ("tty1", &mut console.screens)
            } else {
                (name, &mut console.serial)
            };
            if let Ok(terminal) = Terminal::open(name) {
                place.push(terminal);
            }
        }
        console
    }

    /// One line of news, on the serial consoles.
    pub(crate) fn line(&mut self, text: &str) {
        let line = format!("zos: {}\n", clean(text));
        for terminal in &mut self.serial {
            terminal.write(&line);
        }
    }

    /// The screens show something that is not so any more.
    pub(crate) fn mark(&mut self) {
        self.is_dirty = true;
    }

    /// Sends what waits, and draws the screens if it is time for it.
    pub(crate) fn update(&mut self, board: &Board, title: &str, now: Instant) {
        for terminal in &mut self.serial {
            terminal.flush();
        }
        if self.deadline(now).is_none_or(|due| now < due) {
            return;
        }
        for terminal in &mut self.screens {
            let (columns, rows) = match tcgetwinsize(&terminal.device) {
                Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
                _ => (80, 24),
            };
            let screen = board.screen(title, columns.into(), rows.into());
            terminal.write(&screen);
        }
        self.is_dirty = false;
        self.drawn = Some(now);
    }

    /// When [`Console::update`] has something to do.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let interval = if self.is_dirty { REDRAW_INTERVAL } else { REFRESH_INTERVAL };
        let due = self.drawn.map_or(now, |drawn| drawn + interval);
        (!self.screens.is_empty()).then_some(due)
    }

    /// Terminals that did not take all of their lines yet.
    pub(crate) fn pending(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let slow = self.serial.iter().filter(|terminal| !terminal.queue.is_empty());
        slow.map(|terminal| terminal.device.as_fd())
    }
}
