//! The listener: bounded connections, bounded headers, bounded times, and an orderly end.

use crate::{
    content::{Access, Content},
    db::{self, Database, Db},
    http,
    peers::{Peer, Shares},
    transparency,
};
use anyhow::Context as _;
use axum::Extension;
use contract::Timestamp;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustix::net::sockopt::set_tcp_user_timeout;
use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    time::timeout,
};
use tower::Layer as _;

/// Connections at a time; more wait in the kernel's queue. Leaves descriptors for files below the
/// usual limit of 1024.
const CONNECTIONS_MAX: usize = 900;
/// Connections from one address; more are closed. A proxy in front of the registry has one address
/// for everybody, so that it is no less.
const CONNECTIONS_EACH_MAX: usize = CONNECTIONS_MAX / 2;
/// A client must have sent its headers by then. Also ends idle connections: nodes come back twice
/// a minute, and one that holds a connection meanwhile takes the place of another.
const TIMEOUT_HEADERS: Duration = Duration::from_secs(20);
/// The same while few connections are left: those who only hold one then give it back soon.
const TIMEOUT_HEADERS_CROWDED: Duration = Duration::from_secs(2);
/// Connections that must be left, or the registry is crowded.
const CONNECTIONS_SPARE: usize = CONNECTIONS_MAX / 4;
/// A client that takes none of what it asked for within this time is gone.
const TIMEOUT_UNREAD: Duration = Duration::from_mins(1);
/// No connection lasts longer, whatever it does.
const LIFETIME_MAX: Duration = Duration::from_hours(1);
/// Bytes of headers and buffers of one connection.
const BUFFER_MAX: usize = 64 * 1024;
/// Header fields of one request.
const HEADERS_MAX: usize = 64;
/// Requests that run at the end have this long to finish.
const TIMEOUT_SHUTDOWN: Duration = Duration::from_secs(10);
/// After an error of accept, such as too many open files.
const ACCEPT_DELAY: Duration = Duration::from_millis(100);

/// What an operator chooses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Everything is kept here, but for statements that are in PostgreSQL.
    pub data: PathBuf,
    /// Where the statements are.
    pub database: Database,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The grid.
    pub network: String,
    /// Whether flists and packs can be published here.
    pub content: Access,
    /// File that names the witnesses of the log (c2sp.org/tlog-policy).
    pub witnesses: Option<PathBuf>,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// A registry that serves. Dropping it lets it go on until the process ends.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// The time of day.
pub fn system_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_seconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Opens the store and listens. Requests are answered from now on.
pub async fn start(settings: Settings) -> anyhow::Result<Server> {
    let data = settings.data.clone();
    make_folder(&data).with_context(|| format!("making {}", data.display()))?;
    let taken = db::take(&data)?;
    let db = Db::start(&data, &settings.database)?;
    let content = Arc::new(Content::open(&data, settings.content)?);
    let log = transparency::start(&db, &data, settings.witnesses.as_deref()).await?;
    let (log, logging) = log.unzip();
    let app = http::App {
        db: db.clone(),
        content,
        log,
        network: settings.network.into(),
        now: settings.now,
    };
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listening on {}", settings.listen))?;
    let address = listener.local_addr().context("asking for the address")?;
    let (stop, stopped) = oneshot::channel();
    let router = http::router(app);
    let ended = tokio::spawn(async move {
        serve(listener, router, stopped).await;
        if let Some(mut logging) = logging {
            // It may be cut off at any point.
            logging.shutdown().await;
        }
        let outcome = db.stop().await;
        // Only now may another process have it.
        drop(taken);
        outcome
    });
    Ok(Server { address, stop, ended })
}

impl Server {
    /// Takes no more requests, waits for those that run, and leaves a database of SQLite in one file.
    pub async fn stop(self) -> anyhow::Result<()> {
        if self.stop.send(()).is_err() {
            crate::log("the server had ended before it was stopped");
        }
        self.ended.await.context("ending")?
    }
}

/// The name of a new one has to be on the disk, or a power cut takes it with everything that was
/// synced inside.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

async fn serve(listener: TcpListener, router: axum::Router, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let shares = Shares::new(CONNECTIONS_EACH_MAX);
    loop {
        let accepted = async {
            let permit = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            _ = &mut stopped => break,
        };
        let (stream, peer): (TcpStream, Peer) = match accepted {
            Ok((stream, address)) => (stream, address.ip().into()),
            Err(error) => {
                crate::log(&format!("accepting a connection: {error}"));
                tokio::time::sleep(ACCEPT_DELAY).await;
                continue;
            }
        };
        let Some(share) = shares.take(peer) else { continue };
        // Small answers go out at once; without it they only take longer.
        drop(stream.set_nodelay(true));
        if let Err(error) = set_tcp_user_timeout(&stream, millis(TIMEOUT_UNREAD)) {
            crate::log(&format!("limiting a connection: {error}"));
            continue;
        }
        let crowded = slots.available_permits() < CONNECTIONS_SPARE;
        let patience = if crowded { TIMEOUT_HEADERS_CROWDED } else { TIMEOUT_HEADERS };
        let service = TowerToHyperService::new(Extension(peer).layer(router.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(BUFFER_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A connection that breaks, or is cut off, is the client's business.
            drop(timeout(LIFETIME_MAX, connection).await);
            drop((permit, share));
        });
    }
    drop(listener);
    drop(router);
    if timeout(TIMEOUT_SHUTDOWN, graceful.shutdown()).await.is_err() {
        crate::log("requests still ran at the end");
    }
}
