//! Writes what nodes need of a contract into a folder that somebody carries to them by hand.
//!
//! What the registry delivers is verified before it is written, but for the signatures of the log, whose keys
//! the node knows; and nothing is believed by the node that reads it. Each file is written beside its place, synced, and renamed; what is there already and right is
//! left, so that the same command goes on where it was interrupted. A registry that is behind the folder takes
//! nothing away from it. Several contracts may be written into one
//! folder, of one registry and one log.

use crate::{
    customer::case,
    documents::{self, Documents},
    error::BotError,
    grid::{Grid, is_missing},
};
use contract::{
    Bundle, ContractId, FlistId, IdentityId, NodeId, Signed, StatementId, Timestamp,
    bundle::BUNDLE_BYTES_MAX,
    decision::Approval,
    header::{Flist, Header},
    merkle,
    verdict::Case,
    workload::Document,
};
use flist::{Cancel, create, fetch};
use registry_api::Fetched;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use tlog::{Checkpoint, Hash, Note, Proof, Tile, tile, tree};

/// Entries of the largest log that is carried: 130 MB of hashes.
const LOG_MAX: u64 = 1 << 22;
/// Proofs of other contracts in the folder; more is a mistake.
const PROOFS_MAX: usize = 100_000;
/// While its proofs are fetched, a log goes on: as often as this they are fetched anew.
const ROUNDS_MAX: usize = 10;

/// What is to be carried, and where to.
#[derive(Debug)]
pub struct Request<'a> {
    /// The contract.
    pub contract: ContractId,
    /// The folder, such as the place where a stick is mounted.
    pub to: &'a Path,
    /// Where flists are looked for besides the places that the contract names; `None`: without files.
    pub content: Option<&'a [String]>,
    /// For the releases of publishers.
    pub now: Timestamp,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// The newest version.
    pub version: u64,
    /// The version that was agreed on, when there is one.
    pub in_force: Option<u64>,
    /// The nodes that have a document.
    pub nodes: Vec<NodeId>,
    /// Statements with a proof that they are in the log; `None`: the registry has none.
    pub proofs: Option<usize>,
    /// Statements that the log does not have.
    pub unproven: usize,
    /// The flists with their files.
    pub flists: Vec<FlistId>,
    /// Releases that could not be had, as sentences.
    pub missing: Vec<String>,
    /// Bytes that were not there before.
    pub bytes: u64,
}

/// Writes all of it. `tell` hears how many bytes were written so far.
pub async fn carry(
    grid: &Grid,
    request: &Request<'_>,
    tell: &dyn Fn(u64),
) -> Result<Carried, BotError> {
    let Request { contract, to, content, now } = request;
    let (bundle, case) = case(grid, contract).await?;
    let headers = case.headers();
    let refused = |refusal| BotError::Refused { contract: *contract, refusal };
    let in_force = case.in_force().map_err(refused)?.map(|header| header.body.version);
    let newest = headers.last().map_or(0, |header| header.body.version);
    let mut folder = Folder { root: to.to_path_buf(), bytes: 0 };
    let mut carried = Carried { version: newest, in_force, ..Carried::default() };
    // Files first, then proofs, then contracts: whoever pulls the stick too early has no contract whose
    // files are missing.
    if let Some(content) = content {
        let mut places = vec![grid.client.content_url()];
        places.extend(content.iter().cloned());
        let wanted = headers.iter().filter(|header| {
            header.body.version == newest || Some(header.body.version) == in_force
        });
        let flists: Vec<Flist> =
            wanted.flat_map(|header| header.body.flists.iter().cloned()).collect();
        for flist in flists {
            let (mut places, now, mut writing) = (places.clone(), *now, folder);
            places.extend(flist.urls.iter().cloned());
            let digest = flist.digest;
            let work = tokio::task::spawn_blocking(move || {
                let missing = files(&flist, &places, now, &mut writing)?;
                Ok::<_, BotError>((writing, missing))
            });
            let failed = |error: tokio::task::JoinError| BotError::Nothing(error.to_string());
            let (writing, missing) = work.await.map_err(failed)??;
            folder = writing;
            carried.missing.extend(missing);
            if !carried.flists.contains(&digest) {
                carried.flists.push(digest);
            }
            tell(folder.bytes);
        }
    }
    let nodes = documents::candidates(grid, contract, &bundle).await?;
    let mut bundles: Vec<(NodeId, Bundle)> = Vec::new();
    for node in nodes {
        let asking = BotError::asking(format!("fetching the documents for {}", node.short()));
        match grid.client.bundle_for(contract, &node, None).await {
            Ok(Fetched::New { body, .. }) => {
                if concerns(&body, &node, headers)? {
                    agrees(&body, &node, &case, *contract)?;
                    bundles.push((node, body));
                }
            }
            Ok(Fetched::Same) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(asking(error)),
        }
    }
    let all: Vec<_> = bundles.iter().flat_map(|(_, one)| one.documents.iter().cloned()).collect();
    let shown = headers.iter().find(|one| Some(one.body.version) == in_force);
    if let Some(shown) = shown.or(headers.last()) {
        Documents::of_all(headers, &all).need(&shown.body)?;
    }
    let all = bundles.iter().map(|(_, one)| one).chain([&bundle]);
    let statements = all.flat_map(|one| one.headers.iter().chain(&one.approvals));
    let statements: BTreeSet<StatementId> = statements.filter_map(|one| one.id().ok()).collect();
    for (node, bundle) in &bundles {
        folder.is_behind(node, contract, bundle)?;
    }
    (carried.proofs, carried.unproven) = log(grid, &statements, &mut folder, tell).await?;
    for (node, bundle) in bundles {
        let bytes = serde_json::to_vec(&bundle).expect("a bundle is strings and numbers");
        if bytes.len() > BUNDLE_BYTES_MAX {
            let text = format!(
                "the bundle for node {} has {} bytes, more than a node reads",
                node.short(),
                bytes.len()
            );
            return Err(BotError::Nothing(text));
        }
        folder.write(&carry::bundle(&node, contract), &bytes)?;
        carried.nodes.push(node);
        tell(folder.bytes);
    }
    carried.bytes = folder.bytes;
    Ok(carried)
}

/// What is written for a node says the same as what is told of the contract: its versions, and which of
/// them is in force.
fn agrees(
    bundle: &Bundle,
    node: &NodeId,
    case: &Case,
    contract: ContractId,
) -> Result<(), BotError> {
    let refused = |refusal| BotError::Refused { contract, refusal };
    let own = Case::read(bundle).map_err(refused)?;
    let versions = |case: &Case| case.headers().iter().map(|one| one.id).collect::<Vec<_>>();
    let in_force =
        |case: &Case| case.in_force().map(|one| one.map(|header| header.id)).map_err(refused);
    if versions(&own) != versions(case) || in_force(&own)? != in_force(case)? {
        return Err(BotError::Unproven {
            what: format!("the bundle for node {}", node.short()),
            problem: "the registry tells other versions or decisions to others: try again"
                .to_owned(),
        });
    }
    Ok(())
}

/// Whether a bundle has documents for a node. Each must be of this node, and of one of the versions.
fn concerns(bundle: &Bundle, node: &NodeId, headers: &[Signed<Header>]) -> Result<bool, BotError> {
    for deployment in &bundle.documents {
        let bytes = deployment.bytes().unwrap_or_default();
        let leaf = merkle::leaf(&bytes);
        let is_of = |header: &Signed<Header>| {
            let wanted = &header.body.deployments;
            merkle::proves(&leaf, &deployment.path, wanted.count, &wanted.root.0)
        };
        let read =
            contract::strict::read::<Document>(&bytes, contract::workload::DOCUMENT_BYTES_MAX);
        if !headers.iter().any(is_of) || !read.is_ok_and(|document| document.node == *node) {
            return Err(BotError::Unproven {
                what: format!("a document for node {}", node.short()),
                problem: "it is no document of this contract for this node".to_owned(),
            });
        }
    }
    Ok(!bundle.documents.is_empty())
}

/// The files of one flist; a sentence when its publisher's release cannot be had.
fn files(
    wanted: &Flist,
    places: &[String],
    now: Timestamp,
    folder: &mut Folder,
) -> Result<Option<String>, BotError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| BotError::Flist {
        name: wanted.name.clone(),
        source,
    };
    let source = flist::Source::new(places).map_err(|error| failed(error.into()))?;
    let source = source.at_most(wanted.bytes);
    let cancel = Cancel::default();
    let found =
        fetch::body(&source, wanted.digest, &cancel).map_err(|error| failed(error.into()))?;
    for pack in &found.body().packs {
        let name = carry::content(&format!("packs/{}", FlistId(pack.id)));
        let is_right = |bytes: &[u8]| create::pack_id(bytes) == pack.id;
        if !folder.has(&name, pack.size, is_right) {
            let bytes =
                fetch::pack(&source, pack, &name, &cancel).map_err(|error| failed(error.into()))?;
            folder.write(&name, &bytes)?;
        }
    }
    let mut missing = None;
    if let Some(publisher) = &wanted.publisher {
        match fetch::release(&source, wanted.digest, publisher, now, &cancel) {
            Ok(record) => {
                let name = contract::release::name(&wanted.digest, &publisher.key);
                folder.write(&carry::content(&name), &record)?;
            }
            // A node that has begun with it goes on without one.
            Err(error) => missing = Some(crate::error::chain(&error)),
        }
    }
    let name = carry::content(&format!("flists/{}", wanted.digest));
    folder.write(&name, &found.encode())?;
    Ok(missing)
}

/// What the log shows of these statements, and of those that are in the folder already: all under one
/// checkpoint. How many have a proof, if there is a log, and how many have none.
async fn log(
    grid: &Grid,
    statements: &BTreeSet<StatementId>,
    folder: &mut Folder,
    tell: &dyn Fn(u64),
) -> Result<(Option<usize>, usize), BotError> {
    let mut wanted = folder.statements()?;
    wanted.extend(statements);
    for _ in 0..ROUNDS_MAX {
        let checkpoint = match grid.client.checkpoint().await {
            Ok(checkpoint) => checkpoint,
            Err(error) if is_missing(&error) => return Ok((None, 0)),
            Err(error) => return Err(BotError::asking("asking the log")(error)),
        };
        let newest = read_checkpoint(&checkpoint)?;
        let Some(proofs) = proofs(grid, &wanted, &newest).await? else { continue };
        folder.is_of(&newest)?;
        tiles(grid, &newest, folder, tell).await?;
        let proven = proofs.iter().filter(|(id, _)| statements.contains(id)).count();
        for (id, proof) in &proofs {
            folder.write(&carry::proof(id), proof)?;
        }
        // Of an older checkpoint, and no use beside this one.
        let proven_now: BTreeSet<_> = proofs.iter().map(|(id, _)| *id).collect();
        for id in wanted.difference(&proven_now) {
            folder.remove(&carry::proof(id))?;
        }
        folder.write(&carry::checkpoint(), &checkpoint)?;
        return Ok((Some(proven), statements.len() - proven));
    }
    let text =
        "the log goes on faster than its proofs can be fetched: try again when it is quieter";
    Err(BotError::Nothing(text.to_owned()))
}

fn read_checkpoint(bytes: &[u8]) -> Result<Checkpoint, BotError> {
    let wrong = |problem: String| BotError::Unproven { what: "a checkpoint".to_owned(), problem };
    let note = Note::read(bytes).map_err(|error| wrong(error.to_string()))?;
    note.text().parse().map_err(|_| wrong("it is no checkpoint".to_owned()))
}

/// The proofs that the log has. `None`: it went on meanwhile.
async fn proofs(
    grid: &Grid,
    wanted: &BTreeSet<StatementId>,
    newest: &Checkpoint,
) -> Result<Option<Vec<(StatementId, Vec<u8>)>>, BotError> {
    let mut found = Vec::new();
    for id in wanted {
        let bytes = match grid.client.proof(id).await {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(BotError::asking("asking the log for a proof")(error)),
        };
        if !proves(&bytes, id, newest)? {
            return Ok(None);
        }
        found.push((*id, bytes));
    }
    Ok(Some(found))
}

/// Whether a proof is under this checkpoint. One that is, and proves something else, is an error.
fn proves(bytes: &[u8], id: &StatementId, newest: &Checkpoint) -> Result<bool, BotError> {
    let problem = |error: &dyn std::error::Error| BotError::Unproven {
        what: format!("the proof of statement {}", id.short()),
        problem: crate::error::chain(error),
    };
    let proof = Proof::read(bytes).map_err(|error| problem(&error))?;
    let under = read_checkpoint(proof.note.to_string().as_bytes())?;
    if under.size != newest.size {
        return Ok(false);
    }
    proof.holds_statement(id, newest).map_err(|error| problem(&error))?;
    Ok(true)
}

/// All tiles of the log, by which a node sees that it continues whatever the node knows.
async fn tiles(
    grid: &Grid,
    newest: &Checkpoint,
    folder: &mut Folder,
    tell: &dyn Fn(u64),
) -> Result<(), BotError> {
    if newest.size > LOG_MAX {
        let text = format!("the log has {} entries, more than can be carried", newest.size);
        return Err(BotError::Nothing(text));
    }
    for tile in tile::new_tiles(0, newest.size) {
        let name = carry::tile(&tile.to_string());
        let is_right = |bytes: &[u8]| tile.read(bytes).is_ok();
        if folder.has(&name, u64::from(tile.width) * 32, is_right) {
            continue;
        }
        let asking = BotError::asking(format!("fetching {tile} of the log"));
        let bytes = grid.client.tile(&tile.to_string()).await.map_err(asking)?;
        tile.read(&bytes).map_err(|error| BotError::Unproven {
            what: "a tile of the log".to_owned(),
            problem: error.to_string(),
        })?;
        folder.write(&name, &bytes)?;
        tell(folder.bytes);
    }
    let root = tree::root(newest.size, |node| folder.hash(node, newest.size))?;
    if root != newest.root {
        let text = format!(
            "the tiles of the log do not make its checkpoint: remove {} and try again",
            folder.root.join(carry::ROOT).join("log").display()
        );
        return Err(BotError::Nothing(text));
    }
    Ok(())
}

/// The folder that is written.
struct Folder {
    root: PathBuf,
    /// Bytes that were written.
    bytes: u64,
}

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Whether a file is there with so many bytes, and these are right.
    fn has(&self, name: &str, size: u64, is_right: impl Fn(&[u8]) -> bool) -> bool {
        let path = self.path(name);
        fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == size)
            && fs::read(&path).is_ok_and(|bytes| is_right(&bytes))
    }

    /// Writes a file as a whole, if it is not there as it should be. Nobody else may read it, where the file
    /// system knows that: documents hold environment variables.
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), BotError> {
        if self.has(name, bytes.len() as u64, |found| found == bytes) {
            return Ok(());
        }
        let path = self.path(name);
        let directory = path.parent().unwrap_or(&self.root);
        let staged = self.path(&format!("{name}.new"));
        let written = (|| {
            make_folder(directory)?;
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&staged, &path)?;
            File::open(directory)?.sync_all()
        })();
        if written.is_err() {
            // The room that it takes is what may be missing. The error that led here is told.
            fs::remove_file(&staged).unwrap_or_default();
        }
        written.map_err(|source| BotError::Disk {
            doing: "writing",
            path: path.clone(),
            source,
        })?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Removes a file, if it is there.
    fn remove(&self, name: &str) -> Result<(), BotError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| BotError::Disk { doing: "removing", path, source }),
        }
    }

    /// A bundle that is here has nothing that the new one lacks: no version, no order to end it, and nobody's
    /// decision.
    fn is_behind(
        &self,
        node: &NodeId,
        contract: &ContractId,
        new: &Bundle,
    ) -> Result<(), BotError> {
        let path = self.path(&carry::bundle(node, contract));
        let known = read_at_most(&path, BUNDLE_BYTES_MAX as u64);
        // What was half written says nothing.
        let Some(known) = known.and_then(|bytes| Bundle::read(&bytes).ok()) else {
            return Ok(());
        };
        if said(&known).is_subset(&said(new)) {
            return Ok(());
        }
        Err(BotError::Nothing(format!(
            "{} has statements that this registry lacks: ask one that has them, or remove the file",
            path.display()
        )))
    }

    /// The statements whose proofs are here.
    fn statements(&self) -> Result<BTreeSet<StatementId>, BotError> {
        let path = self.path(&carry::proofs());
        let failed =
            |source: io::Error| BotError::Disk { doing: "listing", path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<StatementId>().ok()));
            if found.len() > PROOFS_MAX {
                let text = format!("{} has more than {PROOFS_MAX} proofs", path.display());
                return Err(BotError::Nothing(text));
            }
        }
        Ok(found)
    }

    /// Proofs and tiles of two logs cannot be told apart.
    fn is_of(&self, newest: &Checkpoint) -> Result<(), BotError> {
        let path = self.path(&carry::checkpoint());
        let known = read_at_most(&path, registry_api::paths::CHECKPOINT_BYTES_MAX as u64);
        let known = known.and_then(|bytes| read_checkpoint(&bytes).ok());
        match known {
            Some(known) if known.origin != newest.origin => {
                let (log, other) = (&known.origin, &newest.origin);
                let path = self.root.join(carry::ROOT).join("log");
                Err(BotError::Nothing(format!(
                    "the folder has the log {log}, and this registry has {other}: use another \
                     folder, or remove {}",
                    path.display()
                )))
            }
            Some(known) if known.size > newest.size => Err(BotError::Nothing(format!(
                "the folder has a log of {} entries, and this registry shows {}: ask one that is not \
                 behind, or use another folder",
                known.size, newest.size
            ))),
            Some(known) if known.size == newest.size && known.root != newest.root => {
                Err(BotError::Nothing(format!(
                    "the log shows two different lists of {} entries, that of the folder and that of this \
                     registry: keep {}, it may be the proof of it",
                    known.size,
                    path.display()
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The hash of a complete subtree of the log, from the tiles that are here.
    fn hash(&self, node: tree::Node, size: u64) -> Result<Hash, BotError> {
        let missing = || BotError::Nothing("a tile of the log is missing".to_owned());
        let tile = Tile::of(node, size).ok_or_else(missing)?;
        let path = self.path(&carry::tile(&tile.to_string()));
        let bytes =
            fs::read(&path).map_err(|source| BotError::Disk { doing: "reading", path, source })?;
        let hashes = tile.read(&bytes).map_err(|_| missing())?;
        tile.hash(&hashes, node).ok_or_else(missing)
    }
}

/// What a bundle says, by whom and of what: a later decision of the same takes the place of an earlier one.
fn said(bundle: &Bundle) -> BTreeSet<(StatementId, Option<IdentityId>)> {
    let whole = bundle.headers.iter().chain(&bundle.cancels).filter_map(|one| one.id().ok());
    let decisions = bundle.approvals.iter().filter_map(|one| Signed::<Approval>::open(one).ok());
    whole
        .map(|id| (id, None))
        .chain(decisions.map(|one| (one.body.subject, Some(one.body.signer))))
        .collect()
}

fn read_at_most(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Makes a folder and those above it that are missing, and syncs where each was made.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return Err(io::ErrorKind::NotFound.into()) };
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder { root: directory.path().to_path_buf(), bytes: 0 };
        (directory, folder)
    }

    fn checkpoint(size: u64, byte: u8) -> Checkpoint {
        Checkpoint {
            origin: "log.example/test".into(),
            size,
            root: [byte; 32],
            extensions: Vec::new(),
        }
    }

    #[test]
    fn a_log_that_is_behind_the_folder_or_another_list_is_refused() {
        let (_directory, mut folder) = folder();
        let known = noted(&checkpoint(12, 1));
        folder.write(&carry::checkpoint(), known.as_bytes()).unwrap();
        assert!(read_checkpoint(known.as_bytes()).is_ok(), "it is read");
        for good in [checkpoint(12, 1), checkpoint(13, 2)] {
            folder.is_of(&good).unwrap();
        }
        let behind = folder.is_of(&checkpoint(9, 1)).unwrap_err().to_string();
        assert!(behind.contains("this registry shows 9"), "{behind}");
        let fork = folder.is_of(&checkpoint(12, 2)).unwrap_err().to_string();
        assert!(fork.contains("two different lists"), "{fork}");
    }

    fn noted(checkpoint: &Checkpoint) -> String {
        format!("{checkpoint}\n\u{2014} x AAAAAAAA\n")
    }

    /// A registry says to the nodes what it does not say to whoever carries.
    #[test]
    fn a_bundle_for_a_node_that_says_something_else_is_refused() {
        let world = contract::testkit::World::new(Timestamp::from_seconds(1_800_000_000));
        let (node, contract) = (world.node_id(), world.contract());
        let whole = world.agreed();
        let case = Case::read(&whole).unwrap();
        agrees(&whole, &node, &case, contract).unwrap();
        let less = Bundle { approvals: whole.approvals[1..].to_vec(), ..whole.clone() };
        let error = agrees(&less, &node, &case, contract).unwrap_err().to_string();
        assert!(error.contains("other versions or decisions"), "{error}");
        let none = Bundle { headers: Vec::new(), ..whole };
        assert!(agrees(&none, &node, &case, contract).is_err());
    }

    #[test]
    fn a_proof_of_something_else_is_refused() {
        let world = contract::testkit::World::new(Timestamp::from_seconds(1_800_000_000));
        let bundle = world.agreed();
        let entry = tlog::record::Record::of(&bundle.headers[0]).unwrap().write();
        let newest = Checkpoint { size: 1, root: tree::leaf(&entry), ..checkpoint(1, 0) };
        let note = Note::read(noted(&newest).as_bytes()).unwrap();
        let proof =
            Proof { extra: Some(entry.to_vec()), index: 0, path: Vec::new(), note }.to_string();
        let id = bundle.headers[0].id().unwrap();
        assert!(proves(proof.as_bytes(), &id, &newest).unwrap());
        let larger = Checkpoint { size: 2, ..newest.clone() };
        assert!(!proves(proof.as_bytes(), &id, &larger).unwrap(), "the log went on");
        let other = bundle.approvals[0].id().unwrap();
        assert!(proves(proof.as_bytes(), &other, &newest).is_err());
        assert!(proves(proof.as_bytes(), &id, &checkpoint(1, 5)).is_err(), "not of this list");
        assert!(proves(b"junk", &id, &newest).is_err());
    }

    #[test]
    fn a_bundle_that_has_less_than_the_folder_is_refused() {
        let world = contract::testkit::World::new(Timestamp::from_seconds(1_800_000_000));
        let (_directory, mut folder) = folder();
        let (node, contract) = (world.node_id(), world.contract());
        let whole = world.agreed();
        let name = carry::bundle(&node, &contract);
        folder.write(&name, &serde_json::to_vec(&whole).unwrap()).unwrap();
        folder.is_behind(&node, &contract, &whole).unwrap();
        for less in [
            Bundle { approvals: whole.approvals[1..].to_vec(), ..whole.clone() },
            Bundle { headers: Vec::new(), ..whole.clone() },
        ] {
            let error = folder.is_behind(&node, &contract, &less).unwrap_err().to_string();
            assert!(error.contains("statements that this registry lacks"), "{error}");
        }
        // What was half written is in nobody's way.
        fs::write(folder.path(&name), b"{").unwrap();
        folder.is_behind(&node, &contract, &Bundle { approvals: vec![], ..whole }).unwrap();
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind_and_files_are_for_their_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_directory, mut folder) = folder();
        folder.write("a/b/file.with.dots", b"text").unwrap();
        let path = folder.path("a/b/file.with.dots");
        assert_eq!(fs::read(&path).unwrap(), b"text");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A folder stands where the file should be.
        fs::create_dir(folder.path("a/b/taken")).unwrap();
        assert!(folder.write("a/b/taken", b"text").is_err());
        let names: BTreeSet<_> =
            fs::read_dir(folder.path("a/b")).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(names, ["file.with.dots", "taken"].map(Into::into).into());
        assert_eq!(folder.bytes, 4);
    }
}
