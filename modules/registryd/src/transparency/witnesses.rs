//! The witnesses of this log, from a policy file (c2sp.org/tlog-policy), and the conversation with
//! one of them. Believes no answer: a cosignature is checked, a size is held against the log, and
//! both have to come soon and be small.

use super::{Head, files::Files};
use anyhow::Context as _;
use reqwest::StatusCode;
use std::{
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};
use tlog::{
    Checkpoint, Hash, Note, PolicyFile, Verifier,
    note::Line,
    policy_file::POLICY_BYTES_MAX,
    tree,
    witness::{ANSWER_BYTES_MAX, AddCheckpoint, cosignature, size},
};

/// Witnesses of one log: each takes part in every round.
const WITNESSES_MAX: usize = 32;
/// A witness answers within this time, or counts as down for now. It waits for its disk meanwhile.
const TIMEOUT_ANSWER: Duration = Duration::from_secs(5);
/// Requests of one turn: a second one with the size that the witness has named.
const REQUESTS_MAX: usize = 2;

/// Who cosigns, and how many have to.
#[derive(Debug, Clone, Default)]
pub(super) struct Witnesses {
    pub(super) quorum: usize,
    pub(super) list: Vec<Witness>,
}

/// One witness.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    pub(super) key: Verifier,
    /// Where checkpoints are sent.
    url: String,
}

/// Where a witness is, for those who look after the registry.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Name of its key.
    pub name: String,
    /// Entries that it has cosigned, as far as its signatures show.
    pub size: u64,
    /// When it cosigned last, if it has since this process began.
    pub at: Option<Instant>,
    /// Why it has not cosigned when it was asked last.
    pub problem: Option<String>,
}

/// What came of a turn.
#[derive(Debug)]
pub(super) enum Told {
    /// Its cosignature, which fits.
    Cosigned(Line),
    /// The size of the tree that it has cosigned, larger than what it was asked about.
    Ahead(u64),
}

/// Why a witness has not cosigned.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It does not answer.
    #[error("no answer")]
    Unreachable(#[source] reqwest::Error),
    /// It does not answer in time.
    #[error("no answer within {} seconds", TIMEOUT_ANSWER.as_secs())]
    Slow,
    /// It answers with more than there can be to say.
    #[error("an answer of more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// Its answer holds no cosignature.
    #[error("status 200 without a cosignature of this checkpoint")]
    Lines(#[source] tlog::witness::BadAnswer),
    /// It has another tree of the same size.
    #[error("it says that it has cosigned another tree of {0} entries")]
    Fork(u64),
    /// It has seen more than there is.
    #[error("it says that it has cosigned {0} entries, more than the log has")]
    Beyond(u64),
    /// It names one size after the other, or none.
    #[error("status 409, again or without a size")]
    Conflict,
    /// It refuses, or has a fault of its own.
    #[error("status {0}{hint}", hint = hint(*.0))]
    Refused(StatusCode),
    /// Our own doing.
    #[error("proving that the log has grown")]
    Proof(#[source] anyhow::Error),
}

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        403 => ": it does not know the key of this log",
        404 => ": it does not watch this log, or is no witness",
        422 => ": it says that nothing shows that the log only grew",
        _ => "",
    }
}

impl Witnesses {
    /// Reads a policy, which has to be about this log and to say where its witnesses are.
    pub(super) fn load(path: &Path, head: &Head) -> anyhow::Result<Self> {
        let reading = || format!("reading the policy {}", path.display());
        let mut bytes = Vec::new();
        let most = u64::try_from(POLICY_BYTES_MAX + 1).context("a policy is small")?;
        let file = fs::File::open(path).with_context(reading)?;
        file.take(most).read_to_end(&mut bytes).with_context(reading)?;
        Self::parse(&bytes, head).with_context(reading)
    }

    fn parse(bytes: &[u8], head: &Head) -> anyhow::Result<Self> {
        let PolicyFile { policy, urls } = PolicyFile::read(bytes)?;
        let is_own = policy.keys().iter().any(|key| key.to_string() == head.key);
        anyhow::ensure!(is_own, "it does not name the key {} of this log", head.key);
        anyhow::ensure!(urls.len() <= WITNESSES_MAX, "it has more than {WITNESSES_MAX} witnesses");
        let witness = |(key, url): (&Verifier, Option<String>)| {
            let url = url.with_context(|| format!("the witness {} has no URL", key.name()))?;
            let url = registry_api::client::base(&url)
                .with_context(|| format!("the URL of the witness {}", key.name()))?;
            Ok(Witness { key: key.clone(), url: format!("{url}/add-checkpoint") })
        };
        let list = policy.witnesses().iter().zip(urls).map(witness);
        Ok(Self { quorum: policy.quorum(), list: list.collect::<anyhow::Result<_>>()? })
    }
}

impl Standing {
    pub(super) fn new(name: &str, size: u64) -> Self {
        Self { name: name.into(), size, at: None, problem: None }
    }

    /// Takes what came of a turn about the tree of this size. Tells the operator when it is another
    /// thing than before.
    pub(super) fn take(&mut self, size: u64, told: Result<Told, AskError>) {
        let name = &self.name;
        match told {
            Ok(told) => {
                if self.problem.take().is_some() {
                    crate::log(&format!("the witness {name} answers again"));
                }
                match told {
                    Told::Cosigned(_) => (self.size, self.at) = (size, Some(Instant::now())),
                    // It says so, and has not signed it.
                    Told::Ahead(_) => {}
                }
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    let why = crate::chain(&error);
                    crate::log(&format!("the witness {name} does not cosign: {why}"));
                }
                self.problem = Some(problem);
            }
        }
    }
}

impl Witness {
    /// Asks for a cosignature on a note of this log. `old` is what it has cosigned last, as far as is
    /// known; `newest` is how far the log is by now.
    pub(super) async fn ask(
        &self,
        http: &reqwest::Client,
        files: &Files,
        note: &Note,
        old: u64,
        newest: u64,
    ) -> Result<Told, AskError> {
        let talk = self.talk(http, files, note, old, newest);
        tokio::time::timeout(TIMEOUT_ANSWER, talk).await.unwrap_or(Err(AskError::Slow))
    }

    async fn talk(
        &self,
        http: &reqwest::Client,
        files: &Files,
        note: &Note,
        mut old: u64,
        newest: u64,
    ) -> Result<Told, AskError> {
        let checkpoint: Checkpoint =
            note.text().parse().map_err(|error| AskError::Proof(anyhow::Error::new(error)))?;
        let target = checkpoint.size;
        for _ in 0..REQUESTS_MAX {
            let proof = proof(files, old, target).await.map_err(AskError::Proof)?;
            let (checkpoint, note) = (checkpoint.clone(), note.clone());
            let request = AddCheckpoint { old, proof, checkpoint, note };
            let (status, body) = self.post(http, request.to_string()).await?;
            match status {
                StatusCode::OK => {
                    let line = cosignature(&request.note, &self.key, &body);
                    return line.map(Told::Cosigned).map_err(AskError::Lines);
                }
                StatusCode::CONFLICT => {
                    let size = size(&body).ok_or(AskError::Conflict)?;
                    if size > newest {
                        return Err(AskError::Beyond(size));
                    }
                    if size > target {
                        return Ok(Told::Ahead(size));
                    }
                    if size == old {
                        return Err(AskError::Fork(size));
                    }
                    old = size;
                }
                other => return Err(AskError::Refused(other)),
            }
        }
        Err(AskError::Conflict)
    }

    async fn post(
        &self,
        http: &reqwest::Client,
        body: String,
    ) -> Result<(StatusCode, Vec<u8>), AskError> {
        let sent = http.post(&self.url).body(body).send().await;
        let mut response = sent.map_err(AskError::Unreachable)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(AskError::Unreachable)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(AskError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((response.status(), bytes))
    }
}

/// The proof that the log has only grown between two sizes. Reads files.
async fn proof(files: &Files, old: u64, new: u64) -> anyhow::Result<Vec<Hash>> {
    let ranges = tree::consistency(old, new).context("a log does not shrink")?;
    let files = files.clone();
    let hashes = move || tree::hashes(ranges, |node| files.hash(node, new));
    tokio::task::spawn_blocking(hashes).await.context("reading tiles")?
}
