//! Links, addresses, time, and the network of each container.

use crate::{init::Done, method};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The network of the node itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {}
method!(Status, "io.zeroos.netd.Status", StatusReply);

/// Answer to [`Status`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReply {
    /// Physical links, sorted by name.
    pub links: Vec<Link>,
    /// Where packets for other networks go.
    pub gateways: Vec<IpAddr>,
    /// Name servers in use.
    pub dns: Vec<IpAddr>,
    /// State of the clock.
    pub time: Time,
}

/// A physical link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Kernel name.
    pub name: String,
    /// Hardware address, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Kernel driver.
    pub driver: String,
    /// Whether a cable with a live other end is plugged in.
    pub carrier: bool,
    /// Addresses with prefix length, `10.0.0.2/24`.
    pub addresses: Vec<String>,
    /// What it waits for or what failed, as a sentence; `None` when all is well.
    pub problem: Option<String>,
}

/// State of the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Whether a time server has confirmed it since boot.
    pub synchronised: bool,
    /// Whether there is a time server to ask. Without one, waiting for the time is in vain.
    pub server_known: bool,
    /// The server, or why there was none.
    pub source: String,
}

/// Makes the network of a container: namespace, link, address, published ports.
///
/// Calling it twice changes nothing; another set of ports replaces the former one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attach {
    /// Id of the workload.
    pub id: String,
    /// Ports of the node that lead to the container.
    pub ports: Vec<Port>,
}
method!(Attach, "io.zeroos.netd.Attach", AttachReply);

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// Port of the node.
    pub host: u16,
    /// Port inside the container.
    pub container: u16,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Answer to [`Attach`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachReply {
    /// File of the network namespace.
    pub netns: String,
    /// Address of the container inside the node.
    pub address: IpAddr,
    /// Name servers that the container reaches.
    pub dns: Vec<IpAddr>,
}

/// Removes the network of a container. One that does not exist is not an error.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Detach {
    /// Id of the workload.
    pub id: String,
}
method!(Detach, "io.zeroos.netd.Detach", Done);

/// Makes an IPv4 socket inside the network of a container: whoever uses it reaches what the container
/// reaches, and nothing else. One file descriptor travels with the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Socket {
    /// Id of the workload.
    pub id: String,
    /// Kind of the socket.
    pub protocol: Protocol,
}
method!(Socket, "io.zeroos.netd.Socket", Done);

/// Every attached container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Attachments {}
method!(Attachments, "io.zeroos.netd.Attachments", AttachmentsReply);

/// Answer to [`Attachments`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentsReply {
    /// Sorted by id.
    pub attachments: Vec<Attachment>,
}

/// An attached container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Id of the workload.
    pub id: String,
    /// Its address inside the node.
    pub address: IpAddr,
    /// The node's end of its cable.
    pub link: String,
}
