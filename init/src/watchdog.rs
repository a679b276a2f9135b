//! The hardware watchdog: a machine whose PID 1 does not come round any more starts again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    time::Duration,
};

/// Well below the shortest time-out that drivers come with (30 s).
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
const DEVICE: &str = "/dev/watchdog";

/// The device, once its driver is there.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    device: Option<File>,
}

impl Watchdog {
    /// Postpones the reset. Opens the device when there is one; a machine without one is no error.
    /// True when the device is new.
    pub(crate) fn pet(&mut self) -> io::Result<bool> {
        let is_new = self.device.is_none();
        if is_new {
            self.device = match OpenOptions::new().write(true).open(DEVICE) {
                Ok(device) => Some(device),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
        }
        if let Some(device) = &mut self.device {
            device.write_all(b"1")?;
        }
        Ok(is_new)
    }

    /// Disarms it, before the machine is switched off; a reboot keeps it armed, so that a machine
    /// that hangs on its way down starts again.
    pub(crate) fn disarm(&mut self) -> io::Result<()> {
        match self.device.take() {
            Some(mut device) => device.write_all(b"V"),
            None => Ok(()),
        }
    }
}
