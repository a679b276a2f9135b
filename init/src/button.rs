//! The power button, as the kernel's input devices tell of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A machine has one or two.
const BUTTONS_MAX: usize = 4;
/// linux/input.h: two longs of time, then type, code and value.
const EVENT_SIZE: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Every power button that is open, by its device.
#[derive(Debug, Default)]
pub(crate) struct Buttons {
    pub(crate) open: BTreeMap<PathBuf, File>,
}

impl Buttons {
    /// Opens buttons that have come since.
    pub(crate) fn look(&mut self) {
        for device in found(Path::new("/sys/class/input")) {
            if self.open.len() >= BUTTONS_MAX || self.open.contains_key(&device) {
                continue;
            }
            let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
            // A button that cannot be opened is tried again with the next look.
            if let Ok(file) = fs::OpenOptions::new().read(true).custom_flags(flags).open(&device) {
                self.open.insert(device, file);
            }
        }
    }

    /// Whether one was pressed since the last call. A device that fails is closed.
    pub(crate) fn is_pressed(&mut self) -> bool {
        let mut pressed = false;
        self.open.retain(|_, device| {
            let mut events = [0; EVENT_SIZE * 16];
            match device.read(&mut events) {
                Ok(n) => {
                    pressed |= has_press(&events[..n]);
                    n > 0
                }
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
        pressed
    }
}

/// Devices named `Power Button`, as ACPI calls all of them.
fn found(class: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let names = entries.map(|entry| (entry.path(), entry.file_name()));
    let is_button = |path: &Path| {
        fs::read_to_string(path.join("device/name"))
            .is_ok_and(|name| name.trim_end() == "Power Button")
    };
    names
        .filter(|(_, name)| name.to_string_lossy().starts_with("event"))
        .filter(|(path, _)| is_button(path))
        .map(|(_, name)| Path::new("/dev/input").join(name))
        .collect()
}

fn has_press(events: &[u8]) -> bool {
    events.chunks_exact(EVENT_SIZE).any(|event| {
        let word = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        word(16) == EV_KEY && word(18) == KEY_POWER && word(20) == 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: u16) -> Vec<u8> {
        let mut event = vec![0; EVENT_SIZE];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..22].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn a_press_counts_and_a_release_does_not() {
        assert!(has_press(&[event(0, 0, 0), event(EV_KEY, KEY_POWER, 1)].concat()));
        assert!(!has_press(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!has_press(&event(EV_KEY, 30, 1)));
        assert!(!has_press(&event(EV_KEY, KEY_POWER, 1)[..EVENT_SIZE - 1]));
        assert!(!has_press(&[]));
    }
}
