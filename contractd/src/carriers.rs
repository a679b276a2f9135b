//! What was carried here by hand: looks at the disks that are not the node's, and reads contracts, proofs
//! of the log and files of flists from those that have the folder of [`carry`].
//!
//! Whoever carries is trusted with nothing: a bundle takes the same way as one of a registry, what the log
//! shows is judged by the same rules, and files are verified like those of every mirror. A disk is read
//! through a descriptor that storaged gives, never mounted and never written; it is read once, when it
//! comes, and again when a contract that there was no room for has room.

use crate::{console::fact, database::CONTRACTS_MAX, network::Event};
use carry::{Device, Part, Until, Volume};
use contract::{Bundle, ContractId, NodeId, StatementId, bundle::BUNDLE_BYTES_MAX};
use flist::{Cancel, Files};
use node_api::{
    init::{Fact, Level},
    paths as node_paths,
    storaged::{Lend, Stranger, Strangers},
};
use registry_api::{ClientError, Problem, log::Shows, paths, problem::codes};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// How often storaged is asked which disks there are.
const LOOK: Duration = Duration::from_secs(2);
/// Carriers at one time; of more, those that came first.
const STICKS_MAX: usize = 8;
/// Contracts of one carrier that are looked at: those that a node keeps, and as many that it refuses.
const BUNDLES_MAX: usize = 2 * CONTRACTS_MAX as usize;
/// A disk that cannot be read is tried so often: right after it came, it may not be ready.
const TRIES_MAX: u32 = 3;
/// Whatever is read of one takes no longer than this: what is slower is no use, and somebody waits.
const TIME_MAX: Duration = Duration::from_mins(1);
/// Contracts that wait to be read again: as many as there are.
const AGAIN_MAX: usize = CONTRACTS_MAX as usize;

/// The carriers that are here now, for whoever reads from them.
#[derive(Debug)]
pub(crate) struct Carriers {
    here: Mutex<Vec<Arc<Stick>>>,
    again: SyncSender<ContractId>,
}

impl Carriers {
    /// None, and where it is heard which contracts are to be read again.
    pub(crate) fn new() -> (Arc<Self>, Receiver<ContractId>) {
        let (again, heard) = sync_channel(AGAIN_MAX);
        (Arc::new(Self { here: Mutex::default(), again }), heard)
    }

    /// Those that are not too slow.
    pub(crate) fn sticks(&self) -> Vec<Arc<Stick>> {
        let here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.iter().filter(|stick| !stick.is_slow()).cloned().collect()
    }

    /// There is room for a contract that there was none for.
    pub(crate) fn read_again(&self, contract: ContractId) {
        // While a stick hangs, they pile up: what does not fit is asked for again.
        self.again.try_send(contract).unwrap_or_default();
    }

    fn set(&self, sticks: Vec<Arc<Stick>>) {
        *self.here.lock().unwrap_or_else(PoisonError::into_inner) = sticks;
    }
}

/// One carrier.
#[derive(Debug)]
pub(crate) struct Stick {
    name: String,
    volume: Volume<Part<Device>>,
    time_max: Duration,
    /// It took longer than that once, and is not read any more.
    is_slow: AtomicBool,
}

impl Stick {
    /// `None`: the disk carries nothing.
    fn open(name: &str, device: Device, time_max: Duration) -> io::Result<Option<Self>> {
        let until = Instant::now() + time_max;
        let volume = carry::find(device, &|| Instant::now() >= until)?;
        let is_slow = AtomicBool::new(false);
        Ok(volume.map(|volume| Self { name: name.to_owned(), volume, time_max, is_slow }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Reads until it takes too long, or is cancelled.
    fn read<T>(
        &self,
        cancel: &Cancel,
        read: impl FnOnce(Volume<Until<'_, Part<Device>>>) -> io::Result<T>,
    ) -> io::Result<T> {
        let until = Instant::now() + self.time_max;
        let stop = || self.is_slow() || cancel.is_cancelled() || Instant::now() >= until;
        let answer = read(self.volume.until(&stop));
        let gave_up = matches!(&answer, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        if gave_up && Instant::now() >= until {
            self.is_slow.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// The contracts for this node, and whether there are more than are looked at.
    fn contracts(&self, node: &NodeId) -> io::Result<(BTreeSet<ContractId>, bool)> {
        let folder = carry::bundles(node);
        // Other systems put files of their own beside them.
        let listed = self.read(&Cancel::default(), |volume| volume.list(&folder, usize::MAX));
        let (entries, _) = match listed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
            listed => listed?,
        };
        let names = entries.iter().map(|entry| entry.name.to_ascii_lowercase());
        let mut found: BTreeSet<ContractId> = names.filter_map(|name| name.parse().ok()).collect();
        let more = found.len() > BUNDLES_MAX;
        while found.len() > BUNDLES_MAX {
            found.pop_last();
        }
        Ok((found, more))
    }

    fn bundle(&self, node: &NodeId, contract: &ContractId) -> io::Result<Bundle> {
        let bytes = self.whole(&carry::bundle(node, contract), BUNDLE_BYTES_MAX)?;
        Bundle::read(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// A whole file, if it has no more bytes than this.
    fn whole(&self, path: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
        let length = bytes_max as u64 + 1;
        let bytes = self.read(&Cancel::default(), |volume| volume.read_at(path, 0, length))?;
        if bytes.len() > bytes_max {
            let text = format!("{path} has more than {bytes_max} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(bytes)
    }

    fn log_file(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, ClientError> {
        let url = format!("{}:{path}", self.name);
        self.whole(path, bytes_max).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                let problem =
                    Problem::new(404, "Not Found", codes::NOT_FOUND, "it was not carried");
                ClientError::Problem { url, problem: Box::new(problem) }
            } else {
                ClientError::Unreachable { url, source: error.into() }
            }
        })
    }
}

impl Files for Stick {
    fn url(&self, name: &str) -> String {
        format!("{}:{}", self.name, carry::content(name))
    }

    fn read_at(
        &self,
        name: &str,
        offset: u64,
        length: u64,
        cancel: &Cancel,
    ) -> io::Result<Vec<u8>> {
        self.read(cancel, |volume| volume.read_at(&carry::content(name), offset, length))
    }
}

/// Reads: whoever asks uses a thread that may block.
impl Shows for Stick {
    async fn checkpoint(&self) -> Result<Vec<u8>, ClientError> {
        self.log_file(&carry::checkpoint(), paths::CHECKPOINT_BYTES_MAX)
    }

    async fn proof(&self, id: &StatementId) -> Result<Vec<u8>, ClientError> {
        self.log_file(&carry::proof(id), paths::PROOF_BYTES_MAX)
    }

    async fn tile(&self, name: &str) -> Result<Vec<u8>, ClientError> {
        self.log_file(&carry::tile(name), paths::TILE_BYTES_MAX)
    }
}

/// Starts the thread that looks for carriers.
pub(crate) fn spawn(
    node: NodeId,
    carriers: Arc<Carriers>,
    again: Receiver<ContractId>,
    events: Sender<Event>,
) -> io::Result<()> {
    let mut watch = Watch::new(node, carriers, events);
    let name = thread::Builder::new().name("carriers".to_owned());
    name.spawn(move || {
        let mut trouble = None;
        loop {
            let found = ipc::call(node_paths::STORAGED_SOCKET, &Strangers {});
            let problem = found.as_ref().err().map(|error| daemon::chain(error));
            if let Some(problem) = problem.as_ref().filter(|one| trouble.as_ref() != Some(*one)) {
                daemon::warn!("looking for carriers: {problem}");
            }
            trouble = problem;
            if let Ok(found) = found {
                watch.look(found.disks, lend);
            }
            match again.recv_timeout(LOOK) {
                Ok(contract) => watch.read_again(&contract),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    })?;
    Ok(())
}

/// `None`: it is not lent.
fn lend(disk: &Stranger) -> io::Result<Option<Device>> {
    let mut client = ipc::Client::connect(node_paths::STORAGED_SOCKET).map_err(io::Error::other)?;
    let lent = client.call_with_fds(&Lend { disk: disk.clone() }, &[]);
    let (_, mut fds) = lent.map_err(io::Error::other)?;
    Ok(fds.pop().map(|fd| Device::new(File::from(fd), disk.size_bytes)))
}

fn say(disk: &Stranger, text: &str, level: Level) -> Fact {
    fact(disk.name.as_str(), text, level)
}

/// What the thread remembers of the disks that are here.
struct Watch {
    node: NodeId,
    carriers: Arc<Carriers>,
    events: Sender<Event>,
    seen: BTreeMap<Stranger, Seen>,
    shown: Vec<Fact>,
    /// The carriers of which it was told last.
    told: Vec<Arc<Stick>>,
    time_max: Duration,
}

enum Seen {
    /// It carries nothing.
    Nothing,
    /// There are as many others as are read.
    NoRoom(Fact),
    /// It could not be read; how often.
    Failed(u32, Fact),
    Carrier(Arc<Stick>, Fact),
}

impl Watch {
    fn new(node: NodeId, carriers: Arc<Carriers>, events: Sender<Event>) -> Self {
        Self {
            node,
            carriers,
            events,
            seen: BTreeMap::new(),
            shown: Vec::new(),
            told: Vec::new(),
            time_max: TIME_MAX,
        }
    }

    /// Takes in which disks are here now; those that are new are read.
    fn look(
        &mut self,
        present: Vec<Stranger>,
        lend: impl Fn(&Stranger) -> io::Result<Option<Device>>,
    ) {
        self.seen.retain(|disk, _| present.contains(disk));
        // What is gone is let go before anything else is read.
        self.publish();
        for disk in present {
            let has_room = self.told.len() < STICKS_MAX;
            let tries = match self.seen.get(&disk) {
                None => 0,
                Some(Seen::Failed(tries, _)) if *tries < TRIES_MAX => *tries,
                Some(Seen::NoRoom(_)) if has_room => 0,
                Some(Seen::Failed(..) | Seen::NoRoom(_) | Seen::Nothing | Seen::Carrier(..)) => {
                    continue;
                }
            };
            let opened = lend(&disk).and_then(|device| {
                let open = |device| Stick::open(&disk.name, device, self.time_max);
                device.map_or(Ok(None), open)
            });
            let seen = match opened {
                Ok(None) => Seen::Nothing,
                Ok(Some(_)) if !has_room => {
                    let text = "not read: there are others";
                    Seen::NoRoom(say(&disk, text, Level::Warning))
                }
                Ok(Some(stick)) => {
                    let stick = Arc::new(stick);
                    let reading = say(&disk, "is read", Level::Plain);
                    self.seen.insert(disk.clone(), Seen::Carrier(Arc::clone(&stick), reading));
                    // Its files and proofs first: contracts look for them at once.
                    self.publish();
                    let (text, level) = self.read(&stick);
                    daemon::info!("carried: {}: {text}", disk.name);
                    Seen::Carrier(stick, say(&disk, &text, level))
                }
                Err(error) => {
                    let text = format!("cannot be read: {}", daemon::chain(&error));
                    let is_slow = error.kind() == io::ErrorKind::TimedOut;
                    let tries = if is_slow { TRIES_MAX } else { tries + 1 };
                    Seen::Failed(tries, say(&disk, &text, Level::Warning))
                }
            };
            self.seen.insert(disk, seen);
        }
        self.publish();
    }

    /// Shows what is here to those who read from it, and on the screen.
    fn publish(&mut self) {
        for (disk, seen) in &mut self.seen {
            if let Seen::Carrier(stick, said) = seen
                && stick.is_slow()
            {
                *said = say(disk, "too slow: it is not read any more", Level::Warning);
            }
        }
        let stick = |seen: &Seen| match seen {
            Seen::Carrier(stick, _) => Some(Arc::clone(stick)),
            Seen::Nothing | Seen::NoRoom(_) | Seen::Failed(..) => None,
        };
        let said = |seen: &Seen| match seen {
            Seen::Carrier(_, fact) | Seen::NoRoom(fact) => Some(fact.clone()),
            // Disks of others may fail for many reasons; it is told when nothing more is tried.
            Seen::Failed(tries, fact) => (*tries >= TRIES_MAX).then(|| fact.clone()),
            Seen::Nothing => None,
        };
        let sticks: Vec<_> = self.seen.values().filter_map(stick).collect();
        let is_known =
            |of: &[Arc<Stick>], one: &Arc<Stick>| of.iter().any(|it| Arc::ptr_eq(it, one));
        let came = sticks.iter().any(|one| !is_known(&self.told, one));
        let went = self.told.iter().any(|one| !is_known(&sticks, one));
        self.carriers.set(sticks.clone());
        self.told = sticks;
        let facts: Vec<Fact> = self.seen.values().filter_map(said).collect();
        if came || went || facts != self.shown {
            self.shown.clone_from(&facts);
            // Nobody listens any more only when the process ends.
            drop(self.events.send(Event::Carriers { facts, came, went }));
        }
    }

    /// Passes on every contract for this node; says what came of it.
    fn read(&self, stick: &Stick) -> (String, Level) {
        let (contracts, more) = match stick.contracts(&self.node) {
            Ok(listed) => listed,
            Err(error) => return (format!("cannot be read: {error}"), Level::Warning),
        };
        let mut problem = None;
        let mut read = 0_usize;
        for contract in &contracts {
            match stick.bundle(&self.node, contract) {
                Ok(bundle) => {
                    read += 1;
                    self.pass_on(*contract, bundle);
                }
                Err(error) => {
                    let is_slow = error.kind() == io::ErrorKind::TimedOut;
                    problem =
                        Some(format!("contract {}: {}", contract.short(), daemon::chain(&error)));
                    if is_slow {
                        break;
                    }
                }
            }
        }
        match (problem, more, contracts.len()) {
            (Some(problem), ..) => {
                (format!("read {read} of {} contracts; {problem}", contracts.len()), Level::Warning)
            }
            (None, true, _) => {
                (format!("read {read} contracts; there are more than that"), Level::Warning)
            }
            (None, false, 0) => ("has no contract for this node".to_owned(), Level::Warning),
            (None, false, _) => {
                let text = "what became of them stands under contracts";
                (format!("contracts read: {read}; {text}"), Level::Good)
            }
        }
    }

    fn read_again(&self, contract: &ContractId) {
        for stick in self.carriers.sticks() {
            match stick.bundle(&self.node, contract) {
                Ok(bundle) => self.pass_on(*contract, bundle),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => daemon::warn!("carried: {}: {error}", stick.name),
            }
        }
    }

    /// Waits until it was taken: each may take 16 MiB, and more when it is read.
    fn pass_on(&self, contract: ContractId, bundle: Bundle) {
        let (room, taken) = sync_channel::<()>(0);
        let event = Event::Carried { contract, bundle: Box::new(bundle), room };
        if self.events.send(event).is_ok() {
            // Nothing is ever sent: it ends when the event is dropped.
            taken.recv().unwrap_or_default();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
