//! Calls between the daemons of one node, in the varlink wire format over unix sockets.
//!
//! A request is `{"method": NAME, "parameters": {..}}`, an answer `{"parameters": {..}}` or
//! `{"error": NAME, "parameters": {"message": ..}}`; one NUL byte ends each. File descriptors travel
//! with the message that needs them. One connection carries one call at a time.
//!
//! Refuses: peers with another user id than ours, messages above [`MESSAGE_MAX`], and the varlink
//! flags `oneway`, `more` and `upgrade`. Knows no call by name: those are in `node-api`.

#![forbid(unsafe_code)]

mod client;
mod server;
mod wire;

pub use client::{CallError, Client, TIMEOUT, call};
pub use server::{CONNECTIONS_MAX, listen, peer_is_ours, serve};
pub use wire::{
    Answer, Call, FDS_MAX, Failure, Incoming, MESSAGE_MAX, Message, Outcome, ProtocolError,
    Received, encode_outcome, send,
};

use serde::{Serialize, de::DeserializeOwned};

/// One call: its name on the wire, what it takes and what it gives back.
pub trait Method: Serialize + DeserializeOwned {
    /// Fully qualified varlink name, for example `io.zeroos.netd.Status`.
    const NAME: &'static str;
    /// What the daemon answers: a struct, because the format knows only objects.
    type Reply: Serialize + DeserializeOwned;
}
