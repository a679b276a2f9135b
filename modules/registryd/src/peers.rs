//! How much of something one address may hold at a time, so that nobody takes all of it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whoever is behind an address. With IPv6 that is a network of 64 bits: a client has all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        let network = |address: Ipv6Addr| Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(network(address).into()),
        }
    }
}

/// Shares of one thing, each held by a peer.
#[derive(Debug)]
pub struct Shares {
    each_max: usize,
    /// Nobody is in here who holds nothing.
    held: Arc<Mutex<BTreeMap<Peer, usize>>>,
}

/// A share; dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    peer: Peer,
    held: Arc<Mutex<BTreeMap<Peer, usize>>>,
}

impl Shares {
    /// Nobody holds more than `each_max`.
    pub fn new(each_max: usize) -> Self {
        Self { each_max, held: Arc::default() }
    }

    /// One more for `peer`, unless it has enough.
    pub fn take(&self, peer: Peer) -> Option<Share> {
        let mut held = lock(&self.held);
        let count = held.get(&peer).copied().unwrap_or(0);
        if count >= self.each_max {
            return None;
        }
        held.insert(peer, count + 1);
        Some(Share { peer, held: Arc::clone(&self.held) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        match held.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(held.remove(&self.peer)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn one_peer_has_its_share_and_others_theirs() {
        let shares = Shares::new(2);
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        let first = shares.take(one).unwrap();
        let second = shares.take(one).unwrap();
        assert!(shares.take(one).is_none());
        assert!(shares.take(other).is_some());
        drop(first);
        assert!(shares.take(one).is_some());
        drop(second);
        assert!(lock(&shares.held).is_empty(), "nothing is kept of those who have gone");
    }

    #[test]
    fn an_address_is_whoever_has_it() {
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:0:0:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }
}
