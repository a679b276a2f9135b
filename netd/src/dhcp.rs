//! DHCPv4: one task for each link with a cable.
//!
//! [`message`] and [`frame`] are bytes, [`client`] decides, [`socket`] touches the net, and
//! [`task`] ties them together. Reports leases; refuses to change addresses or routes.

pub(crate) mod client;
mod frame;
pub(crate) mod message;
mod socket;
pub(crate) mod task;

#[cfg(test)]
#[path = "dhcp/client_tests.rs"]
mod client_tests;
