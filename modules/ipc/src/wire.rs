//! The bytes of one message: framing, file descriptors, requests and answers.
//!
//! Pure but for [`Incoming::receive`] and [`send`], which make one system call at a time, so that
//! threads and poll loops share them.

use crate::Method;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    error::Error,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use thiserror::Error;

/// A peer may hold this much of our memory with one message.
pub const MESSAGE_MAX: usize = 4 << 20;
/// A message carries at most this many file descriptors.
pub const FDS_MAX: usize = 8;
/// How much is read by one system call.
const READ_SIZE: usize = 16 << 10;

/// The peer does not speak the protocol; the connection is of no more use.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// More than [`MESSAGE_MAX`] bytes without an end.
    #[error("a message is longer than {MESSAGE_MAX} bytes")]
    TooLong,
    /// More than [`FDS_MAX`] descriptors for one message.
    #[error("a message carries more than {FDS_MAX} file descriptors")]
    TooManyFds,
    /// Not the JSON that it should be.
    #[error("parsing a message")]
    Malformed(#[source] serde_json::Error),
}

/// The bytes between two NULs, and the descriptors that came with them.
#[derive(Debug)]
pub struct Message {
    /// JSON, not parsed yet.
    pub bytes: Vec<u8>,
    /// In the order in which the peer gave them.
    pub fds: Vec<OwnedFd>,
}

/// What one read from a connection brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Bytes; there may be a whole message now.
    Bytes,
    /// The peer closed its side.
    End,
}

/// What a connection has received and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    /// No NUL is before this offset, so that a long message is searched once.
    searched: usize,
    fds: Vec<OwnedFd>,
}

impl Incoming {
    /// Reads once from `socket`.
    ///
    /// Fails with `WouldBlock` when the socket is non-blocking (or has a time limit) and has
    /// nothing to give.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<Received> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = [0; READ_SIZE];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut control, flags)?;
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = ancillary {
                self.fds.extend(fds);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(ProtocolError::TooManyFds));
        }
        self.bytes.extend_from_slice(&chunk[..got.bytes]);
        Ok(if got.bytes == 0 { Received::End } else { Received::Bytes })
    }

    /// Adds bytes that came by another way than [`Incoming::receive`].
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first whole message, if there is one.
    ///
    /// Peers wait for the answer before they send the next request, so every descriptor that has
    /// arrived belongs to it.
    pub fn parse(&mut self) -> Result<Option<Message>, ProtocolError> {
        if self.fds.len() > FDS_MAX {
            return Err(ProtocolError::TooManyFds);
        }
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == 0);
        let Some(end) = end.map(|offset| self.searched + offset) else {
            self.searched = self.bytes.len();
            return if self.searched > MESSAGE_MAX {
                Err(ProtocolError::TooLong)
            } else {
                Ok(None)
            };
        };
        if end > MESSAGE_MAX {
            return Err(ProtocolError::TooLong);
        }
        let rest = self.bytes.split_off(end + 1);
        let mut bytes = std::mem::replace(&mut self.bytes, rest);
        bytes.pop();
        self.searched = 0;
        Ok(Some(Message { bytes, fds: std::mem::take(&mut self.fds) }))
    }
}

/// Writes once to `socket`; the descriptors travel with the first byte. Returns how many bytes went.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, ProtocolError::TooManyFds));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRequest<P> {
    method: String,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    parameters: Option<P>,
}

#[derive(Serialize, Deserialize)]
struct WireAnswer<P> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    parameters: Option<P>,
}

/// A request as the serving side sees it.
#[derive(Debug)]
pub struct Call {
    method: String,
    parameters: Value,
    fds: Vec<OwnedFd>,
}

/// What the serving side gives back.
#[derive(Debug, Default)]
pub struct Answer {
    /// The reply, as JSON.
    pub parameters: Value,
    /// Descriptors that travel with it.
    pub fds: Vec<OwnedFd>,
}

impl Answer {
    /// A reply without descriptors.
    pub fn of(reply: impl Serialize) -> Outcome {
        Ok(Self { parameters: serde_json::to_value(reply)?, fds: Vec::new() })
    }
}

/// How a call ended.
pub type Outcome = Result<Answer, Failure>;

/// A call that could not be done, as it is told to the caller.
///
/// `?` makes one from any error: named `Failed`, with the whole chain of causes as its message.
/// It is no `Error` itself, because that conversion would not be possible otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Short name, for example `NoSpace`; the wire puts the daemon's prefix before it.
    pub name: String,
    /// Sentence for a human.
    pub message: String,
}

impl Failure {
    /// A failure that the caller may want to tell from others by its name.
    pub fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), message: message.into() }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::new("Failed", message)
    }
}

impl Call {
    /// Understands a request.
    pub fn parse(message: Message) -> Result<Self, ProtocolError> {
        let request: WireRequest<Value> =
            serde_json::from_slice(&message.bytes).map_err(ProtocolError::Malformed)?;
        let parameters =
            request.parameters.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Ok(Self { method: request.method, parameters, fds: message.fds })
    }

    /// Name of the method, for the `match` that finds who answers.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Answers with what `body` makes of the parameters.
    pub fn answer<M, E>(self, body: impl FnOnce(M) -> Result<M::Reply, E>) -> Outcome
    where
        M: Method,
        E: Into<Failure>,
    {
        self.answer_with_fds(|parameters, _fds| body(parameters).map(|reply| (reply, Vec::new())))
    }

    /// Like [`Call::answer`], with descriptors in both directions.
    pub fn answer_with_fds<M, E>(
        self,
        body: impl FnOnce(M, Vec<OwnedFd>) -> Result<(M::Reply, Vec<OwnedFd>), E>,
    ) -> Outcome
    where
        M: Method,
        E: Into<Failure>,
    {
        let parameters = understand(&self.method, self.parameters)?;
        let (reply, fds) = body(parameters, self.fds).map_err(Into::into)?;
        Ok(Answer { parameters: serde_json::to_value(reply)?, fds })
    }

    /// What it asks for, to be answered by somebody else.
    pub fn parameters<M: Method>(self) -> Result<M, Failure> {
        understand(&self.method, self.parameters)
    }

    /// Answers a method that this daemon does not have.
    pub fn unknown(self) -> Outcome {
        Err(Failure::new("MethodNotFound", format!("there is no method {}", self.method)))
    }
}

fn understand<M: Method>(method: &str, parameters: Value) -> Result<M, Failure> {
    serde_json::from_value(parameters)
        .map_err(|error| Failure::new("InvalidParameter", format!("{method}: {error}")))
}

/// Bytes of a request.
pub(crate) fn encode_call<M: Method>(parameters: &M) -> Result<Vec<u8>, ProtocolError> {
    encode(&WireRequest { method: M::NAME.to_owned(), parameters: Some(parameters) })
}

/// Bytes of an answer to `method`. The daemon's prefix for errors is that of the method.
pub fn encode_outcome(method: &str, outcome: &Outcome) -> Vec<u8> {
    let encoded = match outcome {
        Ok(answer) => encode(&WireAnswer { error: None, parameters: Some(&answer.parameters) }),
        Err(failure) => encode_failure(method, failure),
    };
    encoded.unwrap_or_else(|error| {
        encode_failure(method, &Failure::from(error)).expect("a short sentence is always JSON")
    })
}

fn encode_failure(method: &str, failure: &Failure) -> Result<Vec<u8>, ProtocolError> {
    let prefix = match failure.name.as_str() {
        "MethodNotFound" | "InvalidParameter" => "org.varlink.service",
        _ => method.rsplit_once('.').map_or("io.zeroos", |(interface, _)| interface),
    };
    encode(&WireAnswer {
        error: Some(format!("{prefix}.{}", failure.name)),
        parameters: Some(serde_json::json!({ "message": failure.message })),
    })
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, ProtocolError> {
    let mut bytes = serde_json::to_vec(message).map_err(ProtocolError::Malformed)?;
    if bytes.len() > MESSAGE_MAX {
        return Err(ProtocolError::TooLong);
    }
    bytes.push(0);
    Ok(bytes)
}

/// Understands an answer.
pub(crate) fn decode_answer<R: DeserializeOwned>(
    bytes: &[u8],
) -> Result<Result<R, Failure>, ProtocolError> {
    let answer: WireAnswer<Value> =
        serde_json::from_slice(bytes).map_err(ProtocolError::Malformed)?;
    let parameters = answer.parameters.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    match answer.error {
        None => serde_json::from_value(parameters).map(Ok).map_err(ProtocolError::Malformed),
        Some(error) => {
            let message = parameters.get("message").and_then(Value::as_str).unwrap_or_default();
            let name = error.rsplit_once('.').map_or(error.as_str(), |(_, name)| name);
            Ok(Err(Failure::new(name, message)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Double {
        number: u64,
    }
    impl Method for Double {
        const NAME: &'static str = "io.zeroos.test.Double";
        type Reply = u64;
    }

    fn incoming(bytes: &[u8]) -> Incoming {
        let mut incoming = Incoming::default();
        incoming.push(bytes);
        incoming
    }

    fn call(bytes: &[u8]) -> Result<Call, ProtocolError> {
        Call::parse(Message { bytes: bytes.to_vec(), fds: Vec::new() })
    }

    #[test]
    fn messages_come_out_whole_whatever_the_pieces() {
        let mut incoming = Incoming::default();
        let mut seen = Vec::new();
        for byte in b"{\"a\":1}\0{}\0rest" {
            incoming.push(&[*byte]);
            seen.extend(incoming.parse().unwrap().map(|message| message.bytes));
        }
        assert_eq!(seen, [b"{\"a\":1}".to_vec(), b"{}".to_vec()]);
    }

    #[test]
    fn a_message_may_be_as_long_as_the_bound_and_no_longer() {
        let mut bytes = vec![b' '; MESSAGE_MAX];
        bytes.push(0);
        assert_eq!(incoming(&bytes).parse().unwrap().unwrap().bytes.len(), MESSAGE_MAX);
        bytes.insert(0, b' ');
        assert!(matches!(incoming(&bytes).parse(), Err(ProtocolError::TooLong)));
        bytes.pop();
        assert!(matches!(incoming(&bytes).parse(), Err(ProtocolError::TooLong)));
    }

    #[test]
    fn a_request_is_understood_and_answered() {
        let request = encode_call(&Double { number: 21 }).unwrap();
        let message = incoming(&request).parse().unwrap().unwrap();
        let call = Call::parse(message).unwrap();
        assert_eq!(call.method(), Double::NAME);
        let outcome = call.answer(|Double { number }| Ok::<_, Failure>(number * 2));
        let bytes = encode_outcome(Double::NAME, &outcome);
        assert_eq!(bytes, b"{\"parameters\":42}\0");
        assert_eq!(decode_answer::<u64>(&bytes[..bytes.len() - 1]).unwrap(), Ok(42));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        call(br#"{"method":"a.B","parameters":{}}"#).unwrap();
        call(br#"{"method":"a.B"}"#).unwrap();
        for bad in [
            &b""[..],
            b"null",
            b"[]",
            b"{}",
            b"\xff",
            br#"{"method":1}"#,
            br#"{"method":"a.B","oneway":true}"#,
            br#"{"method":"a.B"} x"#,
        ] {
            assert!(call(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn errors_carry_the_prefix_of_the_daemon_and_all_their_causes() {
        #[derive(Debug, Error)]
        #[error("reading table")]
        struct Outer(#[source] io::Error);

        let failure = Failure::from(Outer(io::Error::other("disk on fire")));
        let bytes = encode_outcome("io.zeroos.test.Double", &Err(failure));
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "{\"error\":\"io.zeroos.test.Failed\",\"parameters\":{\"message\":\"reading table: disk on fire\"}}\0"
        );
        let back = decode_answer::<u64>(text.trim_end_matches('\0').as_bytes()).unwrap();
        assert_eq!(back, Err(Failure::new("Failed", "reading table: disk on fire")));
    }

    #[test]
    fn wrong_parameters_and_unknown_methods_are_told_apart() {
        let wrong =
            call(br#"{"method":"io.zeroos.test.Double","parameters":{"number":"x"}}"#).unwrap();
        let failure = wrong.answer(|Double { number }| Ok::<_, Failure>(number)).unwrap_err();
        assert_eq!(failure.name, "InvalidParameter");
        let failure =
            call(br#"{"method":"io.zeroos.test.Nothing"}"#).unwrap().unknown().unwrap_err();
        assert_eq!(failure.name, "MethodNotFound");
    }
}
