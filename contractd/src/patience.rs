//! How long the node waits for the right time before it judges, and before it signs. Pure.
//!
//! A wrong clock must not end a contract, nor stand in a statement; and a node that never hears of a
//! time server must start what it keeps. All times are of the boot clock, in milliseconds.

use node_api::netd;

/// The longest wait: from the start of contractd, and again from the first address.
const TIME_WAIT_MS: u64 = 20_000;

/// What the node has waited for so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Of the first look.
    since_ms: u64,
    /// Of the first address; `None`: none yet.
    addressed_ms: Option<u64>,
    /// Once the node judges, it goes on.
    judges: bool,
}

impl Patience {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { since_ms: now_ms, addressed_ms: None, judges: false }
    }

    /// Takes note of how the network is now.
    pub(crate) fn note(&mut self, network: &netd::StatusReply, now_ms: u64) {
        if network.links.iter().any(|link| !link.addresses.is_empty()) {
            self.addressed_ms.get_or_insert(now_ms);
        }
        self.judges |= self.may_sign(network, now_ms)
            || network.time.synchronised
            || (self.addressed_ms.is_none() && is_over(self.since_ms, now_ms));
    }

    /// Whether the other daemons may still be starting.
    pub(crate) fn is_early(&self, now_ms: u64) -> bool {
        !is_over(self.since_ms, now_ms)
    }

    /// Whether contracts may be judged: the time is as right as it will soon be.
    pub(crate) fn may_judge(&self) -> bool {
        self.judges
    }

    /// Whether statements may be signed: only with an address can they be sent, and then there may be
    /// a time server that answers in a moment.
    pub(crate) fn may_sign(&self, network: &netd::StatusReply, now_ms: u64) -> bool {
        let time = &network.time;
        self.addressed_ms.is_some_and(|since_ms| {
            time.synchronised || !time.server_known || is_over(since_ms, now_ms)
        })
    }
}

fn is_over(since_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(since_ms) >= TIME_WAIT_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Server {
        None,
        Asked,
        Answered,
    }

    fn network(address: Option<&str>, server: Server) -> netd::StatusReply {
        let link = netd::Link {
            name: "eth0".into(),
            mac: String::new(),
            driver: String::new(),
            carrier: true,
            addresses: address.iter().map(ToString::to_string).collect(),
            problem: None,
        };
        let time = netd::Time {
            synchronised: matches!(server, Server::Answered),
            server_known: !matches!(server, Server::None),
            source: String::new(),
        };
        netd::StatusReply { links: vec![link], gateways: vec![], dns: vec![], time }
    }

    /// Each row: time, address, server; whether it judges and signs from then on. It begins at 30 s,
    /// because the machine was slow.
    fn check(rows: &[(u64, Option<&str>, Server, bool, bool)]) {
        let mut patience = Patience::new(30_000);
        for (now_ms, address, server, judges, signs) in rows {
            let network = network(*address, *server);
            patience.note(&network, *now_ms);
            let found = (patience.may_judge(), patience.may_sign(&network, *now_ms));
            assert_eq!(found, (*judges, *signs), "at {now_ms}");
        }
    }

    const ADDRESS: Option<&str> = Some("10.0.2.15/24");

    /// A slow machine signed its first statement with the time at which its image was built, though the
    /// time server answered a second later.
    #[test]
    fn the_wait_for_a_time_server_begins_with_the_address() {
        check(&[
            (30_000, None, Server::Asked, false, false),
            (40_000, ADDRESS, Server::Asked, false, false),
            (59_999, ADDRESS, Server::Asked, false, false),
            (60_000, ADDRESS, Server::Asked, true, true),
        ]);
        check(&[
            (30_000, ADDRESS, Server::Asked, false, false),
            (31_000, ADDRESS, Server::Answered, true, true),
        ]);
    }

    #[test]
    fn with_nobody_to_ask_nothing_waits() {
        check(&[(30_000, ADDRESS, Server::None, true, true)]);
    }

    #[test]
    fn without_a_network_the_node_judges_after_a_while_and_signs_when_it_has_the_time() {
        check(&[
            (49_999, None, Server::None, false, false),
            (50_000, None, Server::None, true, false),
            (90_000, ADDRESS, Server::Asked, true, false),
            (91_000, ADDRESS, Server::Answered, true, true),
        ]);
    }
}
