//! Ways to sinks: addresses of names, and sockets in networks of containers.
//!
//! Both are asked for by calls that block, each in a thread, and nobody can end one that has begun. So
//! a place is taken before one begins, and is free when it has ended, whatever became of who asked:
//! threads are never more than places, and nothing waits but those who ask. A contract has a share of
//! the places for names, because its sinks may stand under names that nobody ever answers for. Who
//! waits for a place is not late.

use crate::connection::SinkError;
use contract::workload::Target;
use node_api::netd::{Protocol, Socket};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};

/// Names that are looked up at the same time, and how many of one contract.
const LOOKUPS_MAX: usize = 32;
const LOOKUPS_SHARE: usize = 2;
/// netd is asked for so many sockets at the same time: it has other callers too.
const SOCKETS_MAX: usize = 2;
/// Threads that all this takes.
pub const THREADS_MAX: usize = LOOKUPS_MAX + SOCKETS_MAX;
/// netd answers at once.
const PATIENCE_NETD: Duration = Duration::from_secs(5);
/// A name whose address is not known by then has none.
const PATIENCE_LOOKUP: Duration = Duration::from_secs(20);

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What all sinks of a node are reached by.
pub struct Reach {
    netd: PathBuf,
    resolve: Arc<Resolve>,
    pub(crate) tls: TlsConnector,
    lookups: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
    /// By contract.
    shares: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reach").field("netd", &self.netd).finish_non_exhaustive()
    }
}

impl Reach {
    /// By the netd that listens there, the node's name servers, and the authorities that browsers
    /// know.
    pub fn new(netd: &Path) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let resolve = |host: &str, port: u16| Ok((host, port).to_socket_addrs()?.collect());
        Self::by(netd, Arc::new(resolve), roots)
    }

    pub(crate) fn by(netd: &Path, resolve: Arc<Resolve>, roots: RootCertStore) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for the usual versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            netd: netd.to_owned(),
            resolve,
            tls: TlsConnector::from(Arc::new(config)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
            shares: Mutex::default(),
        }
    }

    /// The places for names that a contract has. Whoever looks up for it holds this.
    pub(crate) fn share(&self, contract: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(contract).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(LOOKUPS_SHARE));
        shares.insert(contract.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Where a sink is. An address needs no place.
    pub(crate) async fn address(
        &self,
        share: &Arc<Semaphore>,
        target: &Target<'_>,
    ) -> Result<SocketAddr, SinkError> {
        let (host, port) = (target.host.to_owned(), target.port);
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok((address, port).into());
        }
        let places = (place(share).await, place(&self.lookups).await);
        let resolve = Arc::clone(&self.resolve);
        let asked = spawn_blocking(move || {
            let _places = places;
            resolve(&host, port)
        });
        let asked = timeout(PATIENCE_LOOKUP, asked).await.map_err(|_| SinkError::Late)?;
        let lookup = |source| SinkError::Lookup { host: target.host.to_owned(), source };
        let found = asked.map_err(io::Error::other).flatten().map_err(lookup)?;
        // Containers speak IPv4 only.
        let found = found.into_iter().find(SocketAddr::is_ipv4);
        found.ok_or_else(|| SinkError::NoAddress(target.host.to_owned()))
    }

    /// A socket inside the network of a container.
    pub(crate) async fn socket(&self, id: &str, protocol: Protocol) -> io::Result<OwnedFd> {
        let place = place(&self.sockets).await;
        let (netd, id) = (self.netd.clone(), id.to_owned());
        let ask = move || {
            let _place = place;
            let mut client = ipc::Client::connect(&netd)?.with_timeout(PATIENCE_NETD);
            client.call_with_fds(&Socket { id, protocol }, &[])
        };
        let made = spawn_blocking(ask).await.map_err(io::Error::other)?;
        let (_, mut fds) = made.map_err(io::Error::other)?;
        fds.pop().ok_or_else(|| io::Error::other("netd sent no socket"))
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("nobody closes it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::workload::{Sink, SinkProtocol};
    use std::sync::{
        RwLock,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::{task::JoinSet, time::sleep};

    /// Nothing here takes a tenth of it.
    const LIMIT: Duration = Duration::from_secs(30);

    fn target(host: &str) -> Target<'_> {
        Target { host, port: 1, protocol: SinkProtocol::SyslogUdp }
    }

    /// Names that begin with `dead` are answered for when the gate is opened; the count of those that
    /// were begun.
    fn reach(gate: &Arc<RwLock<()>>) -> (Arc<Reach>, Arc<AtomicUsize>) {
        let (gate, begun) = (Arc::clone(gate), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&begun);
        let resolve = move |host: &str, port: u16| {
            if host.starts_with("dead") {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(gate.read());
                return Err(io::Error::other("no answer"));
            }
            Ok(vec![(Ipv4Addr::LOCALHOST, port).into()])
        };
        let none = Path::new("/does/not/exist");
        let reach = Reach::by(none, Arc::new(resolve), RootCertStore::empty());
        (Arc::new(reach), begun)
    }

    /// As many threads as the daemon has.
    fn run<T>(body: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(THREADS_MAX).build().unwrap();
        runtime.block_on(async { timeout(LIMIT, body).await.expect("it takes too long") })
    }

    /// Asks for a name of a contract.
    async fn ask(reach: Arc<Reach>, contract: String, host: String) -> Result<(), SinkError> {
        let share = reach.share(&contract);
        reach.address(&share, &target(&host)).await.map(drop)
    }

    async fn until(begun: &AtomicUsize, n: usize) {
        while begun.load(Ordering::SeqCst) < n {
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn dead_names_of_one_contract_are_in_nobody_elses_way() {
        let gate = Arc::new(RwLock::new(()));
        let closed = gate.write().unwrap();
        let (reach, begun) = reach(&gate);
        run(async {
            let mut asking = JoinSet::new();
            for n in 0..200 {
                asking.spawn(ask(Arc::clone(&reach), "bad".into(), format!("dead-{n}")));
            }
            until(&begun, LOOKUPS_SHARE).await;
            for host in ["alive", "logs.example"] {
                ask(Arc::clone(&reach), "good".into(), host.into()).await.unwrap();
            }
            assert_eq!(begun.load(Ordering::SeqCst), LOOKUPS_SHARE);
            // Who has gone leaves nothing behind that would still be begun.
            asking.abort_all();
            while asking.join_next().await.is_some() {}
            drop(closed);
            ask(Arc::clone(&reach), "bad".into(), "alive".into()).await.unwrap();
            assert_eq!(begun.load(Ordering::SeqCst), LOOKUPS_SHARE);
        });
    }

    #[test]
    fn dead_names_of_many_contracts_are_in_no_addresss_way() {
        let gate = Arc::new(RwLock::new(()));
        let closed = gate.write().unwrap();
        let (reach, begun) = reach(&gate);
        run(async {
            let mut asking = JoinSet::new();
            for n in 0..100 {
                asking.spawn(ask(Arc::clone(&reach), n.to_string(), format!("dead-{n}")));
            }
            until(&begun, LOOKUPS_MAX).await;
            ask(Arc::clone(&reach), "good".into(), "192.0.2.1".into()).await.unwrap();
            // Nor in that of netd, which is not there.
            reach.socket("c-1", Protocol::Tcp).await.unwrap_err();
            let mut late = Box::pin(ask(Arc::clone(&reach), "good".into(), "alive".into()));
            assert!(timeout(Duration::from_millis(50), &mut late).await.is_err(), "no place");
            assert_eq!(begun.load(Ordering::SeqCst), LOOKUPS_MAX);
            drop(closed);
            late.await.unwrap();
            while let Some(asked) = asking.join_next().await {
                assert!(matches!(asked.unwrap(), Err(SinkError::Lookup { .. })));
            }
        });
    }

    #[test]
    fn a_share_goes_with_its_last_user() {
        let (reach, _) = reach(&Arc::default());
        let share = reach.share("a");
        assert!(Arc::ptr_eq(&share, &reach.share("a")));
        assert!(!Arc::ptr_eq(&share, &reach.share("b")));
        assert_eq!(reach.shares.lock().unwrap().len(), 2);
        drop(share);
        drop(reach.share("c"));
        assert_eq!(reach.shares.lock().unwrap().keys().collect::<Vec<_>>(), ["c"]);
        let sink = Sink { to: "syslog://192.0.2.1".into() };
        assert_eq!(sink.target().unwrap().host.parse(), Ok(Ipv4Addr::new(192, 0, 2, 1)));
    }
}
