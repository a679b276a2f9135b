//! What netd understands of the net's bytes, and what follows from them: no socket, no netlink.
//!
//! A library of its own so that others can try these parsers; the daemon is `main.rs`.

#![forbid(unsafe_code)]

pub mod clock;
pub mod rdnss;
pub mod sntp;

/// DHCPv4 without the sockets: bytes and decisions.
pub mod dhcp {
    pub mod client;
    pub mod frame;
    pub mod message;

    #[cfg(test)]
    mod client_tests;
}

/// DHCPv6 without the sockets: bytes and decisions.
pub mod dhcp6 {
    pub mod client;
    pub mod message;

    #[cfg(test)]
    mod client_tests;
}
