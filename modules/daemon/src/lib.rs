//! What the `main` of every daemon shares: how it starts, says that it is ready, speaks and ends.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     daemon::run("exampled", || {
//!         let boot = daemon::boot_config()?;
//!         let listener = daemon::listen(node_api::paths::NETD_SOCKET.as_ref())?;
//!         daemon::ready()?;
//!         daemon::info!("serving network {}", boot.network);
//!         Err::<(), _>(ipc::serve(&listener, |call| call.unknown()))
//!     })
//! }
//! ```
//!
//! Refuses to catch signals: a daemon recovers when it starts, so SIGTERM may simply end it.

#![forbid(unsafe_code)]

pub mod log;

pub use ipc::listen;
use node_api::boot::BootConfig;
use std::{
    error::Error,
    fs::File,
    io::{self, Write},
    process::ExitCode,
};

/// Environment variable with the number of the descriptor that takes one byte at readiness.
pub const READY_FD: &str = "ZOS_READY_FD";

/// Runs `body`, and prints why it ended, with all causes, once.
pub fn run<E>(name: &str, body: impl FnOnce() -> Result<(), E>) -> ExitCode
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    match body() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{name}: {}", chain(&*error.into()));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes on one line, outermost first.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Tells init that this daemon serves. Does nothing when nobody asked, as in tests.
///
/// Call it once. It is the first use of the descriptor, which init guarantees to be open.
pub fn ready() -> io::Result<()> {
    let Some(number) = std::env::var_os(READY_FD) else { return Ok(()) };
    let number = number
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other(format!("{READY_FD} is not a number")))?;
    File::from(sys::process::inherited_fd(number)?).write_all(b"1")
}

/// What the kernel command line says to the node.
pub fn boot_config() -> io::Result<BootConfig> {
    std::fs::read_to_string("/proc/cmdline").map(|text| BootConfig::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes() {
        let inner = io::Error::other("no space");
        let outer = node_api_error(inner);
        assert_eq!(chain(&outer), "calling io.zeroos.netd.Status: no space");
    }

    fn node_api_error(source: io::Error) -> ipc::CallError {
        ipc::CallError::Broken { method: "io.zeroos.netd.Status", source }
    }
}
