//! Fetches what the log shows: its newest checkpoint, proofs of statements, and for each checkpoint the
//! hashes by which it continues the one before. Judges nothing of it.

use crate::client::{Client, ClientError};
use contract::StatementId;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tlog::{
    Checkpoint, Hash, Note, Proof, Tile,
    note::BadNote,
    proof::BadProof,
    tile::{BadContent, WIDTH_MAX},
    tree::{self, Node},
};

/// Tiles that are fetched for one checkpoint: two for each level of the largest tree.
const TILES_MAX: usize = 16;
/// A registry that is in trouble, or waits for its witnesses, is not asked for everything at once.
const FAILURES_MAX: usize = 8;
/// No further question is asked after this time; what came until then is given.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Whoever can be asked what a log shows: a registry, or what was carried from one. Nothing of it is
/// checked.
pub trait Shows: Sync {
    /// The newest checkpoint.
    fn checkpoint(&self) -> impl Future<Output = Result<Vec<u8>, ClientError>> + Send;
    /// The proof that a statement is in the log.
    fn proof(&self, id: &StatementId) -> impl Future<Output = Result<Vec<u8>, ClientError>> + Send;
    /// A tile by its name.
    fn tile(&self, name: &str) -> impl Future<Output = Result<Vec<u8>, ClientError>> + Send;
}

impl Shows for Client {
    async fn checkpoint(&self) -> Result<Vec<u8>, ClientError> {
        self.checkpoint().await
    }

    async fn proof(&self, id: &StatementId) -> Result<Vec<u8>, ClientError> {
        self.proof(id).await
    }

    async fn tile(&self, name: &str) -> Result<Vec<u8>, ClientError> {
        self.tile(name).await
    }
}

/// A checkpoint that the registry has shown, and what it says of it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The checkpoint with its signatures.
    pub note: Note,
    /// Entries of the tree that it is shown to continue.
    pub from: u64,
    /// That it continues that one.
    pub consistency: Vec<Hash>,
    /// The same for the entries that were pinned, if there were any and this came first.
    pub pinned: Option<(u64, Vec<Hash>)>,
    /// The proof under it.
    pub proof: Option<(StatementId, Proof)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The registry does not give it.
    #[error("asking the log")]
    Client(#[source] ClientError),
    /// What should be a checkpoint is no note.
    #[error("reading the checkpoint of the log")]
    Note(#[source] BadNote),
    /// The note is about something else.
    #[error("the log shows no checkpoint")]
    Checkpoint,
    /// What should be a proof is none.
    #[error("reading a proof of the log")]
    Proof(#[source] BadProof),
    /// What should be a tile is none.
    #[error("reading a tile of the log")]
    Tile(#[source] BadContent),
    /// A tree that no log has.
    #[error("the log shows {size} entries, more than can be held against {known}")]
    Size {
        /// Entries that are known.
        known: u64,
        /// Entries that it shows.
        size: u64,
    },
}

impl AskError {
    /// Whether another question may be answered: this one was about one statement.
    fn is_about_one(&self) -> bool {
        matches!(self, Self::Client(ClientError::Problem { .. }) | Self::Proof(_))
    }
}

/// What came of a question.
#[derive(Debug)]
pub struct Answer {
    /// In the order in which it was shown.
    pub shown: Vec<Shown>,
    /// The statements that were asked for: the first of those that were given.
    pub asked: usize,
    /// The last problem.
    pub problem: Option<AskError>,
}

/// What is known of a log before it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Entries of the newest tree that it has shown.
    pub size: u64,
    /// Entries of one that it has yet to be held against.
    pub pinned: Option<u64>,
}

/// What the log shows of itself and of these statements, from what is known on. Ends with
/// the first problem that may meet all of them, after a few that meet one, and after a minute, but not
/// before one of them was asked for.
pub async fn ask(client: &impl Shows, mut known: Known, statements: &[StatementId]) -> Answer {
    let mut answer =
        Answer { shown: Vec::with_capacity(statements.len() + 1), asked: 0, problem: None };
    let mut failures = 0;
    let begun = Instant::now();
    for of in std::iter::once(None).chain(statements.iter().map(Some)) {
        let is_over = answer.asked > 0 && begun.elapsed() > TIME_MAX;
        if is_over || failures == FAILURES_MAX {
            break;
        }
        answer.asked += usize::from(of.is_some());
        match show(client, known, of).await {
            Ok((size, shown)) => {
                known = Known { size: known.size.max(size), pinned: None };
                answer.shown.push(shown);
            }
            Err(error) => {
                let goes_on = of.is_some() && error.is_about_one();
                answer.problem = Some(error);
                failures += 1;
                if !goes_on {
                    break;
                }
            }
        }
    }
    answer
}

async fn show(
    client: &impl Shows,
    known: Known,
    of: Option<&StatementId>,
) -> Result<(u64, Shown), AskError> {
    let (note, proof) = match of {
        None => {
            let bytes = client.checkpoint().await.map_err(AskError::Client)?;
            (Note::read(&bytes).map_err(AskError::Note)?, None)
        }
        Some(id) => {
            let bytes = client.proof(id).await.map_err(AskError::Client)?;
            let proof = Proof::read(&bytes).map_err(AskError::Proof)?;
            (proof.note.clone(), Some((*id, proof)))
        }
    };
    let checkpoint: Checkpoint = note.text().parse().map_err(|_| AskError::Checkpoint)?;
    let size = checkpoint.size;
    let continued = consistency(client, known.size, size).await?;
    let pinned = match known.pinned {
        Some(pinned) => Some((pinned, consistency(client, pinned, size).await?)),
        None => None,
    };
    Ok((size, Shown { note, from: known.size, consistency: continued, pinned, proof }))
}

/// The proof that the tree of `size` entries begins with that of `known`, from tiles. Nothing where
/// there is none.
async fn consistency(client: &impl Shows, known: u64, size: u64) -> Result<Vec<Hash>, AskError> {
    let Some(ranges) = tree::consistency(known, size) else { return Ok(Vec::new()) };
    let too_large = || AskError::Size { known, size };
    let mut tiles: BTreeMap<Tile, Vec<Hash>> = BTreeMap::new();
    let mut hashes: BTreeMap<Node, Hash> = BTreeMap::new();
    for node in ranges.iter().cloned().flat_map(tree::nodes) {
        let tile = Tile::of(node, size).ok_or_else(too_large)?;
        if !tiles.contains_key(&tile) {
            if tiles.len() == TILES_MAX {
                return Err(too_large());
            }
            tiles.insert(tile, fetch(client, tile).await?);
        }
        hashes.insert(node, tile.hash(&tiles[&tile], node).ok_or_else(too_large)?);
    }
    tree::hashes(ranges, |node| hashes.get(&node).copied().ok_or_else(too_large))
}

async fn fetch(client: &impl Shows, tile: Tile) -> Result<Vec<Hash>, AskError> {
    let full = Tile { width: WIDTH_MAX, ..tile };
    let (found, bytes) = match client.tile(&tile.to_string()).await {
        // A partial tile goes when the full one has come.
        Err(ClientError::Problem { .. }) if tile.width < WIDTH_MAX => {
            (full, client.tile(&full.to_string()).await)
        }
        answer => (tile, answer),
    };
    let mut hashes = found.read(&bytes.map_err(AskError::Client)?).map_err(AskError::Tile)?;
    hashes.truncate(tile.width.into());
    Ok(hashes)
}
