//! Serves the page of figures: `GET /metrics`, and nothing else.
//!
//! Whoever reads it changes nothing and costs little: a page is read from the kernel at most every two
//! seconds, by one reader, and shared by all visitors. There are few visitors at a time; each asks in few
//! bytes and in little time, gets one answer, and goes. The firewall says who comes here at all; whom it
//! lets in by mistake is not heard here either.

use node_api::boot::Metrics;
use rustix::io::Errno;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

/// A page is not read again for so long. It counts from the end of the reading: that takes at most a part
/// of the time, however long it takes.
const FRESH: Duration = Duration::from_secs(2);
/// Visitors at the same time; more are turned away.
const VISITORS_MAX: usize = 16;
/// Whoever has not asked, or has not taken the page, by then is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest question.
pub const QUESTION_MAX: usize = 8 << 10;
/// The pause when no visitor can be let in, because there are no descriptors, or when the port cannot be
/// had.
const PAUSE: Duration = Duration::from_secs(1);

/// A page, and when it was read.
type Page = Option<(Instant, Arc<str>)>;

/// Where visitors get the page from.
#[derive(Debug, Clone)]
pub struct Pages {
    asked: Arc<Notify>,
    shown: watch::Receiver<Page>,
}

impl Pages {
    /// Reads pages by `read`, one at a time, when they are asked for. Needs a runtime.
    pub fn new(read: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let (shown_in, shown) = watch::channel(None);
        let asked = Arc::new(Notify::new());
        tokio::spawn(read_all(Arc::new(read), Arc::clone(&asked), shown_in));
        Self { asked, shown }
    }

    /// A page that is fresh; nothing when there is no reader any more.
    async fn get(&self) -> Option<Arc<str>> {
        let mut shown = self.shown.clone();
        if let Some(page) = fresh(&shown.borrow_and_update()) {
            return Some(page);
        }
        self.asked.notify_one();
        shown.changed().await.ok()?;
        shown.borrow().as_ref().map(|(_, page)| Arc::clone(page))
    }
}

async fn read_all(
    read: Arc<impl Fn() -> String + Send + Sync + 'static>,
    asked: Arc<Notify>,
    shown: watch::Sender<Page>,
) {
    while !shown.is_closed() {
        asked.notified().await;
        // Asked for by several before the first of them had it.
        if fresh(&shown.borrow()).is_some() {
            continue;
        }
        let read = Arc::clone(&read);
        match spawn_blocking(move || read()).await {
            Ok(page) => drop(shown.send_replace(Some((Instant::now(), page.into())))),
            Err(error) => return daemon::error!("reading figures: {error}"),
        }
    }
}

fn fresh(page: &Page) -> Option<Arc<str>> {
    let (at, page) = page.as_ref()?;
    (at.elapsed() < FRESH).then(|| Arc::clone(page))
}

/// Serves at this port of all addresses, to those who may ask.
pub async fn run(metrics: Metrics, pages: Pages) {
    let Metrics { port, from } = metrics;
    let mut said = String::new();
    let listener = loop {
        match listen(port).await {
            Ok(listener) => break listener,
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    daemon::error!("zos.metrics: listening at port {port}: {error}; trying again");
                    said = error;
                }
                sleep(PAUSE).await;
            }
        }
    };
    serve(listener, from, &pages).await;
}

/// IPv6 takes those of IPv4 too, where there is any IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
            ) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        Err(error) => Err(error),
    }
}

/// Whether one with this address may ask.
fn may_ask(from: &[(IpAddr, u8)], peer: IpAddr) -> bool {
    // One of IPv4 comes to a socket of IPv6 in the form of IPv6.
    let peer = peer.to_canonical();
    from.iter().any(|(address, prefix)| match (address, peer) {
        (IpAddr::V4(address), IpAddr::V4(peer)) => {
            let differs = address.to_bits() ^ peer.to_bits();
            differs.leading_zeros() >= u32::from(*prefix)
        }
        (IpAddr::V6(address), IpAddr::V6(peer)) => {
            let differs = address.to_bits() ^ peer.to_bits();
            differs.leading_zeros() >= u32::from(*prefix)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    })
}

async fn serve(listener: TcpListener, from: Vec<(IpAddr, u8)>, pages: &Pages) -> ! {
    let places = Arc::new(Semaphore::new(VISITORS_MAX));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        if !may_ask(&from, peer.ip()) {
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let pages = pages.clone();
        tokio::spawn(async move {
            // One who leaves, or is too slow, is gone: nobody else hears of it.
            drop(timeout(PATIENCE, visit(stream, &pages)).await);
            drop(place);
        });
    }
}

async fn visit(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    let mut asked = Vec::new();
    let question = loop {
        if let Some(question) = question(&asked) {
            break question;
        }
        let mut piece = [0; 1024];
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&piece[..n]);
    };
    let page = match question {
        Question::Page => pages.get().await.ok_or("503 Service Unavailable"),
        Question::Missing => Err("404 Not Found"),
        Question::Head | Question::Other => Err("405 Method Not Allowed\r\nAllow: GET"),
        Question::Bad => Err("400 Bad Request"),
    };
    let (status, kind, body) = match &page {
        Ok(page) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", &**page),
        Err(status) => (*status, "text/plain; charset=utf-8", "The figures are at /metrics.\n"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    // Who asks with HEAD takes what follows the head for another answer.
    if question != Question::Head {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await?;
    // What a visitor has said and nobody has read takes the answer away from him.
    tokio::io::copy(&mut stream.take(QUESTION_MAX as u64), &mut tokio::io::sink()).await.map(drop)
}

/// What a visitor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The page.
    Page,
    /// Another one.
    Missing,
    /// Only the head of an answer.
    Head,
    /// To do something.
    Other,
    /// Nothing that is understood.
    Bad,
}

/// Understands the head of a request, when it is there as a whole; a longer one than is needed is bad.
pub fn question(bytes: &[u8]) -> Option<Question> {
    let is_whole = bytes.windows(4).any(|four| four == b"\r\n\r\n");
    if !is_whole {
        return (bytes.len() > QUESTION_MAX).then_some(Question::Bad);
    }
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words = str::from_utf8(line).map(|line| line.split(' ').collect::<Vec<_>>());
    let question = match words.as_deref() {
        Ok(["GET", target, "HTTP/1.1" | "HTTP/1.0"]) => match target.split('?').next() {
            Some("/metrics") => Question::Page,
            Some(_) | None => Question::Missing,
        },
        Ok(["HEAD", _, "HTTP/1.1" | "HTTP/1.0"]) => Question::Head,
        Ok([_, _, "HTTP/1.1" | "HTTP/1.0"]) => Question::Other,
        Ok(_) | Err(_) => Question::Bad,
    };
    Some(question)
}

#[cfg(test)]
mod tests;
