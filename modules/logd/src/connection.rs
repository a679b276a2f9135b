//! One connection to a sink, made inside the network of the container whose lines or samples it takes.
//!
//! A sink says that it has taken lines: Redis by its answers, a websocket by the pong to a ping
//! behind them. Syslog has no such word: what its machine has acknowledged counts, and of datagrams what
//! was sent.
//! Everything that a sink says is bounded, and everything here ends: the caller gives it a time.

use crate::{
    message::{Message as Told, Origin},
    reach::Reach,
    redis::{self, Answer},
};
use contract::workload::{SinkProtocol, Target};
use futures_util::{SinkExt as _, StreamExt as _};
use node_api::netd::Protocol;
use rustix::net::sockopt::{set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout};
use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

/// A sink that is not reached, or has not taken what was sent, by then has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The other side is asked whether it is still there when it was silent for this long, and is gone
/// when it says nothing for [`PATIENCE`]: a container that gets another network leaves connections in
/// the former one, where nobody ends them.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How soon it is looked whether all that was sent is acknowledged, and the longest pause.
const LOOK: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// Largest message of a websocket's server; none is needed.
const MESSAGE_MAX: usize = 4 << 10;
/// Messages that a server may send between two pongs.
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
    /// Connects from inside the network of container `id`. `share` is what its contract has of the
    /// lookups.
    pub(crate) async fn open(
        reach: &Reach,
        share: &Arc<Semaphore>,
        id: &str,
        target: &Target<'_>,
    ) -> Result<Self, SinkError> {
        let address = reach.address(share, target).await?;
        let protocol = match target.protocol {
            SinkProtocol::SyslogUdp => Protocol::Udp,
            SinkProtocol::SyslogTcp
            | SinkProtocol::Redis(_)
            | SinkProtocol::Ws(_)
            | SinkProtocol::Wss(_) => Protocol::Tcp,
        };
        let socket = reach.socket(id, protocol).await.map_err(SinkError::Socket)?;
        late(Self::over(socket, address, target, &reach.tls)).await
    }

    /// Connects a socket to where the sink is, and begins what is spoken there.
    async fn over(
        socket: OwnedFd,
        address: SocketAddr,
        target: &Target<'_>,
        tls: &TlsConnector,
    ) -> Result<Self, SinkError> {
        let connect = |source| SinkError::Connect { address, source };
        if target.protocol == SinkProtocol::SyslogUdp {
            let socket = UdpSocket::from_std(socket.into())?;
            socket.connect(address).await.map_err(connect)?;
            return Ok(Self::Datagrams(socket));
        }
        let socket = TcpSocket::from_std_stream(socket.into());
        set_up(&socket)?;
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
                let stream = tls.connect(name, stream).await.map_err(SinkError::Tls)?;
                websocket(Box::new(stream), &format!("wss://{}", authority(target)), path).await?
            }
        })
    }

    /// Sends what there is to tell; returns when the sink has it, as far as it says so.
    pub(crate) async fn send<T: Told>(
        &mut self,
        origin: &Origin,
        lines: &[T],
    ) -> Result<(), SinkError> {
        late(self.send_all(origin, lines)).await
    }

    async fn send_all(&mut self, origin: &Origin, lines: &[impl Told]) -> Result<(), SinkError> {
        match self {
            Self::Datagrams(socket) => {
                for line in lines {
                    socket.send(line.syslog(origin).as_bytes()).await?;
                }
                Ok(())
            }
            Self::Syslog(stream) => {
                let mut bytes = Vec::new();
                for line in lines {
                    let text = line.syslog(origin);
                    bytes.extend_from_slice(format!("{} {text}", text.len()).as_bytes());
                }
                stream.write_all(&bytes).await?;
                acknowledged(stream).await
            }
            Self::Redis { stream, channel } => {
                let mut bytes = Vec::new();
                for line in lines {
                    redis::publish(channel, &line.json(origin), &mut bytes);
                }
                stream.write_all(&bytes).await?;
                answers(stream, lines.len()).await
            }
            Self::Ws { stream, n_heard } => {
                let ws = |error| SinkError::Ws(Box::new(error));
                for line in lines {
                    let text = line.json(origin);
                    stream.feed(Message::text(text)).await.map_err(ws)?;
                }
                stream.send(Message::Ping(PING.into())).await.map_err(ws)?;
                loop {
                    if let Message::Pong(payload) = heard(stream, n_heard).await?
                        && payload == PING
                    {
                        *n_heard = 0;
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
    let message = stream.next().await;
    // Nothing is counted when nobody waits any more.
    *n_heard += 1;
    if *n_heard > MESSAGES_MAX {
        return Err(SinkError::Nonsense);
    }
    match message {
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

/// Waits until the other side has acknowledged everything.
async fn acknowledged(stream: &TcpStream) -> Result<(), SinkError> {
    let mut pause = LOOK;
    while sys::socket::unacknowledged(stream)? > 0 {
        if let Some(error) = stream.take_error()? {
            return Err(error.into());
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
    // What ended the connection may have ended the waiting.
    stream.take_error()?.map_or(Ok(()), |error| Err(error.into()))
}

/// A connection whose other side is not there any more ends by itself. What is sent waits for nothing:
/// the end of what is sent at once would wait until the other side has acknowledged the rest.
fn set_up(socket: &TcpSocket) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    set_tcp_keepidle(socket, KEEPALIVE)?;
    set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    let patience = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
    Ok(set_tcp_user_timeout(socket, patience)?)
}

async fn late<T>(attempt: impl Future<Output = Result<T, SinkError>>) -> Result<T, SinkError> {
    timeout(PATIENCE, attempt).await.unwrap_or(Err(SinkError::Late))
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

#[cfg(test)]
pub(crate) mod tests;
