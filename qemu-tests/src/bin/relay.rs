//! Joins stdin and stdout to a port of the loopback address: QEMU runs it for each connection that a
//! guest makes to the registry. Refuses every other address.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use std::{
    env, io,
    net::{Ipv4Addr, Shutdown, TcpStream},
    thread,
};

fn main() -> Result<()> {
    let port: u16 = env::args().nth(1).and_then(|text| text.parse().ok()).context("which port?")?;
    let mut to_host = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting")?;
    let mut from_host = to_host.try_clone()?;
    // QEMU hands over its own end as both; when either side closes, the process ends.
    thread::spawn(move || {
        drop(copy(&mut io::stdin().lock(), &mut to_host));
        // The peer may have closed first.
        drop(to_host.shutdown(Shutdown::Write));
    });
    copy(&mut from_host, &mut io::stdout().lock()).context("relaying")
}

/// Copies and flushes after each piece: neither side waits for a full buffer.
fn copy(from: &mut dyn io::Read, to: &mut dyn io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
        to.flush()?;
    }
}
