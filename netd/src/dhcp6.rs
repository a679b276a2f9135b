//! DHCPv6: one task for each link, which asks when the link's routers say so.
//!
//! [`message`] is bytes, [`client`] decides, and [`task`] touches the net. Reports leases and servers;
//! refuses to change addresses.

pub(crate) mod task;

pub(crate) use netd::dhcp6::{client, message};
