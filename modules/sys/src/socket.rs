//! What a socket has not brought to the other side yet.

#![expect(unsafe_code, reason = "nix and rustix have no SIOCOUTQ")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

mod raw {
    // SIOCOUTQ of linux/sockios.h is TIOCOUTQ.
    nix::ioctl_read_bad!(unacknowledged, libc::TIOCOUTQ, libc::c_int);
}

/// How many bytes were written to a TCP socket and are not acknowledged by the other side.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut n: libc::c_int = 0;
    // SAFETY: the kernel stores exactly one int, and `n` outlives the call; what is no socket or
    // terminal answers ENOTTY and stores nothing.
    unsafe { raw::unacknowledged(socket.as_fd().as_raw_fd(), &raw mut n) }?;
    usize::try_from(n).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    #[test]
    fn what_nobody_reads_is_not_acknowledged_until_somebody_does() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&writer).unwrap(), 0);
        writer.set_nonblocking(true).unwrap();
        let (piece, mut n_written) = (vec![0; 64 << 10], 0);
        while let Ok(n) = writer.write(&piece) {
            n_written += n;
        }
        assert!((1..=n_written).contains(&unacknowledged(&writer).unwrap()));
        reader.read_exact(&mut vec![0; n_written]).unwrap();
        let start = Instant::now();
        while unacknowledged(&writer).unwrap() > 0 {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
        assert!(unacknowledged(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
