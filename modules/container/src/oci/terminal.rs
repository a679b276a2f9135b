//! What a configuration says of a terminal, and the socket at which its other end is awaited.

use super::{
    OciError,
    config::Process,
    mounts::{Mount, What},
};
use crate::check::{Invalid, refuse};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::{os::unix::net::UnixStream, path::Path};

/// A terminal that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Rows and columns.
    pub(crate) size: Option<(u16, u16)>,
}

/// Decides about the terminal of a process. Its size means nothing without one.
pub(super) fn plan(process: &Process, mounts: &[Mount]) -> Result<Option<Terminal>, Invalid> {
    if !process.terminal {
        return Ok(None);
    }
    let is_devpts = |what: &What| matches!(what, What::New { kind, .. } if *kind == c"devpts");
    let place = |mount: &&Mount| mount.target.as_c_str() == c"dev/pts";
    if !mounts.iter().rfind(place).is_some_and(|mount| is_devpts(&mount.what)) {
        return refuse("process.terminal: there is no devpts at /dev/pts");
    }
    let Some(size) = &process.console_size else { return Ok(Some(Terminal { size: None })) };
    match (u16::try_from(size.height), u16::try_from(size.width)) {
        (Ok(rows), Ok(columns)) => Ok(Some(Terminal { size: Some((rows, columns)) })),
        _ => refuse("process.consoleSize: at most 65535 rows and columns"),
    }
}

/// Connects to whoever awaits the terminal. A terminal that nobody awaits is refused, and somebody who
/// awaits none that is made.
pub(super) fn connect(
    terminal: Option<Terminal>,
    socket: Option<&Path>,
) -> Result<Option<UnixStream>, OciError> {
    match (terminal, socket) {
        (None, None) => Ok(None),
        (Some(_), Some(path)) => {
            connected(path).map(Some).map_err(|errno| OciError::file(path, errno.into()))
        }
        (Some(_), None) => Ok(refuse("process.terminal: a terminal needs --console-socket")?),
        (None, Some(_)) => Ok(refuse("process.terminal: there is none for the --console-socket")?),
    }
}

/// Never waits, here or when it is written to: whoever listens has room for one more, or is refused.
fn connected(path: &Path) -> rustix::io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::config;
    use serde_json::json;

    fn planned(
        process: &serde_json::Value,
        mounts: &serde_json::Value,
    ) -> Result<Option<Terminal>, Invalid> {
        let config = json!({ "ociVersion": "1.2.0", "process": process, "mounts": mounts });
        let config = config::parse(config.to_string().as_bytes()).unwrap();
        let mounts =
            super::super::mounts::plan(config.mounts, Path::new("/b"), true, true).unwrap();
        plan(&config.process.unwrap(), &mounts)
    }

    #[test]
    fn a_terminal_needs_its_file_system() {
        let devpts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts" });
        let tmpfs = json!({ "destination": "/dev/pts", "type": "tmpfs", "source": "tmpfs" });
        let terminal = json!({ "terminal": true });
        assert_eq!(planned(&terminal, &json!([devpts])).unwrap(), Some(Terminal { size: None }));
        assert_eq!(planned(&json!({}), &json!([])).unwrap(), None);
        assert!(planned(&terminal, &json!([])).is_err());
        assert!(planned(&terminal, &json!([devpts, tmpfs])).is_err());
        assert!(planned(&terminal, &json!([tmpfs, devpts])).is_ok());
    }

    #[test]
    fn a_size_is_that_of_a_terminal() {
        let devpts = json!([{ "destination": "/dev/pts", "type": "devpts", "source": "devpts" }]);
        let size = |terminal: bool, height: u64| {
            let size = json!({ "height": height, "width": 80 });
            planned(&json!({ "terminal": terminal, "consoleSize": size }), &devpts)
        };
        assert_eq!(size(true, 24).unwrap(), Some(Terminal { size: Some((24, 80)) }));
        assert!(size(true, 65_536).is_err());
        // It is ignored.
        assert_eq!(size(false, 65_536).unwrap(), None);
    }

    #[test]
    fn who_waits_and_what_is_made_belong_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let terminal = Some(Terminal { size: None });
        assert!(connect(terminal, Some(&path)).is_err());
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(connect(terminal, Some(&path)).unwrap().is_some());
        assert!(connect(None, None).unwrap().is_none());
        assert!(connect(terminal, None).is_err());
        assert!(connect(None, Some(&path)).is_err());
    }
}
