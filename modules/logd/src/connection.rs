//! One connection to a sink, made inside the network of the container whose lines it takes.
//!
//! A sink says that it has taken lines: Redis by its answers, a websocket by the pong to a ping
//! behind them. Syslog has no such word: what was written to a connection that still stood counts.
//! Everything that a sink says is bounded, and everything here ends: the caller gives it a time.

use crate::{
    message::{self, Origin},
    redis::{self, Answer},
};
use contract::workload::{SinkProtocol, Target};
use futures_util::{SinkExt as _, StreamExt as _};
use node_api::{
    init::Line,
    netd::{Protocol, Socket},
    paths,
};
use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket, lookup_host},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

/// netd answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest message of a websocket's server; none is needed.
const MESSAGE_MAX: usize = 4 << 10;
/// Messages that a server may send on one connection.
const MESSAGES_MAX: u32 = 10_000;
/// What is said behind lines, to hear that they have come.
const PING: &[u8] = b"zos";

/// Why a sink could not be reached, or does not take lines.
#[derive(Debug, Error)]
pub(crate) enum SinkError {
    #[error("taking a socket of netd")]
    Socket(#[source] io::Error),
    #[error("looking up {host}")]
    Lookup {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("{0} has no IPv4 address")]
    NoAddress(String),
    #[error("connecting to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("beginning TLS")]
    Tls(#[source] io::Error),
    #[error("the name cannot be that of a TLS server")]
    TlsName,
    #[error("beginning a websocket")]
    Handshake(#[source] Box<tungstenite::Error>),
    #[error("speaking with the sink")]
    Io(#[from] io::Error),
    #[error("speaking by websocket")]
    Ws(#[source] Box<tungstenite::Error>),
    #[error("the sink closed the connection")]
    Closed,
    #[error("the sink refused a line: {0:?}")]
    Refused(String),
    #[error("the sink answers nonsense")]
    Nonsense,
    #[error("the sink takes too long")]
    Late,
}

/// A stream that a websocket runs on.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// An open connection.
pub(crate) enum Connection {
    Datagrams(UdpSocket),
    Syslog(TcpStream),
    Redis { stream: TcpStream, channel: String },
    Ws { stream: Box<WebSocketStream<Box<dyn Wire>>>, n_heard: u32 },
}

impl Connection {
    /// Connects from inside the network of container `id`.
    pub(crate) async fn open(id: &str, target: &Target<'_>) -> Result<Self, SinkError> {
        let address = look_up(target).await?;
        let protocol = match target.protocol {
            SinkProtocol::SyslogUdp => Protocol::Udp,
            SinkProtocol::SyslogTcp
            | SinkProtocol::Redis(_)
            | SinkProtocol::Ws(_)
            | SinkProtocol::Wss(_) => Protocol::Tcp,
        };
        let socket = socket(id.to_owned(), protocol).await.map_err(SinkError::Socket)?;
        Self::over(socket, address, target).await
    }

    /// Connects a socket to where the sink is, and begins what is spoken there.
    async fn over(
        socket: OwnedFd,
        address: SocketAddr,
        target: &Target<'_>,
    ) -> Result<Self, SinkError> {
        let connect = |source| SinkError::Connect { address, source };
        if target.protocol == SinkProtocol::SyslogUdp {
            let socket = UdpSocket::from_std(socket.into())?;
            socket.connect(address).await.map_err(connect)?;
            return Ok(Self::Datagrams(socket));
        }
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.set_keepalive(true)?;
        let stream = socket.connect(address).await.map_err(connect)?;
        Ok(match target.protocol {
            SinkProtocol::SyslogUdp | SinkProtocol::SyslogTcp => Self::Syslog(stream),
            SinkProtocol::Redis(channel) => Self::Redis { stream, channel: channel.to_owned() },
            SinkProtocol::Ws(path) => {
                websocket(Box::new(stream), &format!("ws://{}", authority(target)), path).await?
            }
            SinkProtocol::Wss(path) => {
                let name = ServerName::try_from(target.host.to_owned());
                let name = name.map_err(|_| SinkError::TlsName)?;
                let stream = tls().connect(name, stream).await.map_err(SinkError::Tls)?;
                websocket(Box::new(stream), &format!("wss://{}", authority(target)), path).await?
            }
        })
    }

    /// Sends lines; returns when the sink has them, as far as it says so.
    pub(crate) async fn send(&mut self, origin: &Origin, lines: &[Line]) -> Result<(), SinkError> {
        match self {
            Self::Datagrams(socket) => {
                for line in lines {
                    socket.send(message::syslog(origin, line).as_bytes()).await?;
                }
                Ok(())
            }
            Self::Syslog(stream) => {
                let mut bytes = Vec::new();
                for line in lines {
                    let text = message::syslog(origin, line);
                    bytes.extend_from_slice(format!("{} {text}", text.len()).as_bytes());
                }
                Ok(stream.write_all(&bytes).await?)
            }
            Self::Redis { stream, channel } => {
                let mut bytes = Vec::new();
                for line in lines {
                    redis::publish(channel, &message::json(origin, line), &mut bytes);
                }
                stream.write_all(&bytes).await?;
                answers(stream, lines.len()).await
            }
            Self::Ws { stream, n_heard } => {
                let ws = |error| SinkError::Ws(Box::new(error));
                for line in lines {
                    let text = message::json(origin, line);
                    stream.feed(Message::text(text)).await.map_err(ws)?;
                }
                stream.send(Message::Ping(PING.into())).await.map_err(ws)?;
                loop {
                    if let Message::Pong(payload) = heard(stream, n_heard).await?
                        && payload == PING
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits until the sink ends the connection, or says what nobody asked for.
    pub(crate) async fn watch(&mut self) -> SinkError {
        match self {
            // Whether somebody is there is not told. Errors come with the next datagram.
            Self::Datagrams(_) => std::future::pending().await,
            Self::Syslog(stream) | Self::Redis { stream, .. } => {
                match stream.read(&mut [0; 1]).await {
                    Ok(0) => SinkError::Closed,
                    Ok(_) => SinkError::Nonsense,
                    Err(error) => error.into(),
                }
            }
            Self::Ws { stream, n_heard } => loop {
                // Pings are answered below us.
                if let Err(error) = heard(stream, n_heard).await {
                    return error;
                }
            },
        }
    }
}

/// The next message of a websocket, within their bound.
async fn heard(
    stream: &mut WebSocketStream<Box<dyn Wire>>,
    n_heard: &mut u32,
) -> Result<Message, SinkError> {
    *n_heard += 1;
    if *n_heard > MESSAGES_MAX {
        return Err(SinkError::Nonsense);
    }
    match stream.next().await {
        None | Some(Ok(Message::Close(_))) => Err(SinkError::Closed),
        Some(message) => message.map_err(|error| SinkError::Ws(Box::new(error))),
    }
}

/// Waits for so many answers of Redis.
async fn answers(stream: &mut TcpStream, n_wanted: usize) -> Result<(), SinkError> {
    let mut bytes = Vec::new();
    let mut n_answers = 0;
    while n_answers < n_wanted {
        let mut piece = [0; redis::ANSWER_MAX];
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            return Err(SinkError::Closed);
        }
        bytes.extend_from_slice(&piece[..n]);
        loop {
            match redis::answer(&bytes) {
                Answer::Short => break,
                Answer::Taken(size) => {
                    bytes.drain(..size);
                    n_answers += 1;
                }
                Answer::Refused(text) => return Err(SinkError::Refused(text)),
                Answer::Bad => return Err(SinkError::Nonsense),
            }
        }
    }
    // More answers than there were messages.
    if n_answers > n_wanted || !bytes.is_empty() {
        return Err(SinkError::Nonsense);
    }
    Ok(())
}

async fn look_up(target: &Target<'_>) -> Result<SocketAddr, SinkError> {
    let lookup = |source| SinkError::Lookup { host: target.host.to_owned(), source };
    let mut found = lookup_host((target.host, target.port)).await.map_err(lookup)?;
    // Containers speak IPv4 only.
    found.find(SocketAddr::is_ipv4).ok_or_else(|| SinkError::NoAddress(target.host.to_owned()))
}

/// A socket inside the network of a container.
async fn socket(id: String, protocol: Protocol) -> io::Result<OwnedFd> {
    let ask = move || {
        let mut client = ipc::Client::connect(paths::NETD_SOCKET)?.with_timeout(PATIENCE);
        client.call_with_fds(&Socket { id, protocol }, &[])
    };
    let made = tokio::task::spawn_blocking(ask).await.map_err(io::Error::other)?;
    let (_, mut fds) = made.map_err(io::Error::other)?;
    fds.pop().ok_or_else(|| io::Error::other("netd sent no socket"))
}

fn authority(target: &Target<'_>) -> String {
    format!("{}:{}", target.host, target.port)
}

async fn websocket(stream: Box<dyn Wire>, base: &str, path: &str) -> Result<Connection, SinkError> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
        .read_buffer_size(MESSAGE_MAX);
    let path = if path.is_empty() { "/" } else { path };
    let begun = client_async_with_config(format!("{base}{path}"), stream, Some(config)).await;
    let (stream, _) = begun.map_err(|error| SinkError::Handshake(Box::new(error)))?;
    Ok(Connection::Ws { stream: Box::new(stream), n_heard: 0 })
}

/// Who may say that a server has its name: the authorities that browsers know.
fn tls() -> TlsConnector {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for the usual versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[cfg(test)]
pub(crate) mod tests;
