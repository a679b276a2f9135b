//! As much HTTP/1.1 as a client needs that shall cost next to nothing beside the server it measures.
//! Speaks to servers of this machine only. Refuses answers without a length.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A server that says nothing for so long has hung.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of a head, and bytes of each.
const HEAD_LINES_MAX: usize = 64;
const LINE_BYTES_MAX: u64 = 4096;
/// The largest answer: a bundle.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A connection.
pub(crate) struct Line(BufReader<TcpStream>);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The validator, if there is one.
    pub(crate) etag: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Line {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("reaching {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.0.get_mut().write_all(request).context("sending a request")?;
        read(&mut self.0).context("reading an answer")
    }
}

/// A `GET`, with the validator of what is there already.
pub(crate) fn get(path: &str, etag: Option<&str>) -> Vec<u8> {
    let condition = etag.map(|etag| format!("if-none-match: {etag}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nhost: registry\r\n{condition}\r\n").into_bytes()
}

/// A request with a body.
pub(crate) fn send(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: registry\r\ncontent-length: {length}");
    [head.as_bytes(), b"\r\ncontent-type: application/json\r\n\r\n", body].concat()
}

fn read(from: &mut impl BufRead) -> Result<Answer> {
    let mut line = String::new();
    let mut next = |from: &mut dyn BufRead| -> Result<String> {
        line.clear();
        from.take(LINE_BYTES_MAX).read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").context("the answer breaks off in its head")?;
        Ok(line.to_owned())
    };
    let first = next(from)?;
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status: u16 = status.with_context(|| format!("{first:?} begins no answer"))?;
    let (mut length, mut etag) = (None, None);
    for _ in 0..HEAD_LINES_MAX {
        let line = next(from)?;
        if line.is_empty() {
            // What has not changed has no body, whatever length its head may name.
            let length = if status == 304 { Some(0) } else { length };
            let length = length.context("the answer has no length")?;
            ensure!(length <= BODY_BYTES_MAX, "the answer has {length} bytes");
            let mut body = vec![0; length];
            from.read_exact(&mut body)?;
            return Ok(Answer { status, etag, body });
        }
        let Some((name, value)) = line.split_once(':') else { bail!("{line:?} is no field") };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse()?),
            "etag" => etag = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    bail!("the head of the answer has more than {HEAD_LINES_MAX} lines")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_after_the_other() {
        let mut wire: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 9\r\n\r\n\
            HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let first = read(&mut wire).unwrap();
        assert_eq!((first.status, first.etag, &first.body[..]), (201, None, &b"abc"[..]));
        let second = read(&mut wire).unwrap();
        assert_eq!((second.status, second.etag.as_deref()), (304, Some("\"x\"")));
        assert_eq!(read(&mut wire).unwrap().status, 200);
        assert!(read(&mut wire).is_err(), "there is no more");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "",
            "SSH-2.0\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        ] {
            assert!(read(&mut text.as_bytes()).is_err(), "{text}");
        }
    }
}
