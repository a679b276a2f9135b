//! The listener: bounded connections, bounded headers, bounded times, and an orderly end.

use crate::{config::Config, http, key, store::Store, witness::Witness};
use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustix::net::sockopt::set_tcp_user_timeout;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};

/// Connections at a time; more wait in the kernel's queue. A witness has few clients.
const CONNECTIONS_MAX: usize = 128;
/// A client must have sent its headers by then. Also ends idle connections.
const TIMEOUT_HEADERS: Duration = Duration::from_secs(30);
/// A client that takes none of its answer within this time is gone.
const TIMEOUT_UNREAD_MS: u32 = 30_000;
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

/// A witness that serves. Dropping it lets it go on until the process ends.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// The public key of the witness.
    pub key: String,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

/// The time of day, in seconds since 1970.
pub fn system_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Takes up the logs and listens. Requests are answered from now on.
pub async fn start(config: Config) -> anyhow::Result<Server> {
    let signer = key::load(&config.key)?;
    let store = Store::open(&config.data)?;
    let witness = Witness::open(store, signer, config.logs, system_clock)?;
    let key = witness.key().to_string();
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {}", config.listen))?;
    let address = listener.local_addr().context("asking for the address")?;
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(serve(listener, http::router(Arc::new(witness)), stopped));
    Ok(Server { address, key, stop, ended })
}

impl Server {
    /// Takes no more requests, and waits for those that run.
    pub async fn stop(self) -> anyhow::Result<()> {
        if self.stop.send(()).is_err() {
            crate::log("the server had ended before it was stopped");
        }
        self.ended.await.context("ending")
    }
}

async fn serve(listener: TcpListener, router: axum::Router, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let service = TowerToHyperService::new(router);
    loop {
        let accepted = async {
            let permit = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            _ = &mut stopped => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                crate::log(&format!("accepting a connection: {error}"));
                sleep(ACCEPT_DELAY).await;
                continue;
            }
        };
        // Small answers go out at once; without it they only take longer.
        drop(stream.set_nodelay(true));
        if let Err(error) = set_tcp_user_timeout(&stream, TIMEOUT_UNREAD_MS) {
            crate::log(&format!("limiting a connection: {error}"));
            continue;
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TIMEOUT_HEADERS)
            .max_buf_size(BUFFER_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A connection that breaks, or is cut off, is the client's business.
            drop(timeout(LIFETIME_MAX, connection).await);
            drop(permit);
        });
    }
    drop(listener);
    drop(service);
    if timeout(TIMEOUT_SHUTDOWN, graceful.shutdown()).await.is_err() {
        crate::log("requests still ran at the end");
    }
}
