//! DHCPv4: one task for each link with a cable.
//!
//! [`message`] and [`frame`] are bytes, [`client`] decides, [`socket`] touches the net, and
//! [`task`] ties them together. Reports leases; refuses to change addresses or routes.

mod socket;
pub(crate) mod task;

use netd::dhcp::frame;
pub(crate) use netd::dhcp::{client, message};
