//! Talks to registries. Tries several in order, and believes none of them.
//!
//! Every request may be repeated without harm, so the next registry is asked whenever one does not
//! answer, or answers nonsense. A problem below status 500 is an answer: nobody else is asked then.
//! Refuses answers above their bound, redirects and proxies.

use crate::{
    paths,
    problem::{Problem, codes},
    view,
    write::{Accepted, DocumentsAnswer, HeartbeatAnswer, ResultsAnswer},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Bundle, ContractId, Envelope, FlistId, IdentityId, NodeId, Release, StatementId,
    bundle::BUNDLE_BYTES_MAX,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use std::{error::Error, path::Path, sync::Arc, time::Duration};

/// A registry that has not accepted a connection by then is taken for dead.
const TIMEOUT_CONNECT: Duration = Duration::from_secs(5);
/// For a whole exchange of statements.
const TIMEOUT_EXCHANGE: Duration = Duration::from_secs(30);
/// For documents and content, up to 64 MiB.
const TIMEOUT_UPLOAD: Duration = Duration::from_mins(10);
/// Longest header that is read; without its tag, the whole answer comes again.
const HEADER_BYTES_MAX: usize = 128;
/// Registries that one client knows.
const BASES_MAX: usize = 16;

/// A client of one or several registries that hold the same statements.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    bases: Vec<String>,
    network: Option<Arc<str>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No base URL, too many, or one that this build cannot ask.
    #[error("{0} is no URL that this build can ask (http://host[:port][/path])")]
    BadBase(String),
    /// The HTTP client cannot be made.
    #[error("making the HTTP client")]
    Setup(#[source] Box<dyn Error + Send + Sync>),
    /// No registry answers.
    #[error("asking {url}")]
    Unreachable {
        /// The last one that was tried.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer is not of the protocol: too long, not JSON, or not what was asked for.
    #[error("{url} answers nonsense: {reason}")]
    BadAnswer {
        /// Where it came from.
        url: String,
        /// What is wrong with it, as a sentence.
        reason: String,
    },
    /// The registry belongs to another network, so it knows nothing of what is asked.
    #[error("{url} is a registry of the network {found:?}, and {wanted:?} is asked for")]
    OtherNetwork {
        /// Where it is.
        url: String,
        /// What the caller works on.
        wanted: String,
        /// What it serves.
        found: String,
    },
    /// The registry says what is wrong.
    #[error("{url} refuses: {problem}")]
    Problem {
        /// Which one.
        url: String,
        /// What it says.
        problem: Box<Problem>,
    },
}

impl ClientError {
    /// The stable word of a problem (one of [`crate::problem::codes`]).
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem { problem, .. } => Some(&problem.code),
            Self::BadBase(_)
            | Self::Setup(_)
            | Self::Unreachable { .. }
            | Self::BadAnswer { .. }
            | Self::OtherNetwork { .. } => None,
        }
    }

    /// Whether it may go better later, without any change on this side.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BadAnswer { .. } => true,
            Self::Problem { problem, .. } => problem.status >= 500 || problem.status == 429,
            Self::BadBase(_) | Self::Setup(_) | Self::OtherNetwork { .. } => false,
        }
    }
}

/// An answer that may be the one that the caller already has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched<T> {
    /// The tag that was given is still right.
    Same,
    /// Something else.
    New {
        /// What was asked for.
        body: T,
        /// To be given with the next request.
        etag: String,
    },
}

/// Which contracts are wanted; all that are set must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContractFilter {
    /// Of this owner.
    pub owner: Option<IdentityId>,
    /// In this state.
    pub state: Option<view::ContractState>,
    /// Waiting for this stakeholder.
    pub signer: Option<IdentityId>,
}

/// Which results are wanted; all that are set must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultFilter {
    /// About this contract.
    pub contract: Option<ContractId>,
    /// Of this node.
    pub node: Option<NodeId>,
    /// That arrived after this one.
    pub after: u64,
}

impl Client {
    /// For registries at these base URLs, tried in this order. Makes no connection.
    ///
    /// With https built in, the first call also makes ring the process's TLS provider.
    pub fn new<I: IntoIterator<Item = T>, T: AsRef<str>>(bases: I) -> Result<Self, ClientError> {
        let bases: Vec<String> =
            bases.into_iter().map(|url| base(url.as_ref())).collect::<Result<_, _>>()?;
        if bases.is_empty() || bases.len() > BASES_MAX {
            return Err(ClientError::BadBase(format!("a list of {} URLs", bases.len())));
        }
        let http = http()?;
        Ok(Self { http, bases, network: None })
    }

    /// Takes no answer from a registry that says that it belongs to another network.
    #[must_use]
    pub fn of_network(self, network: &str) -> Self {
        Self { network: Some(network.into()), ..self }
    }

    /// The base URLs, in the order in which they are tried.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// Where the first registry serves content: a base URL for flist fetches.
    pub fn content_url(&self) -> String {
        format!("{}{}", self.bases[0], paths::CONTENT)
    }

    /// Gives a statement of any kind, or further signatures on one.
    pub async fn push(&self, envelope: &Envelope) -> Result<Accepted, ClientError> {
        self.send(Method::POST, paths::STATEMENTS, envelope, TIMEOUT_EXCHANGE).await
    }

    /// Gives all deployment documents of a version, sorted by node id. The header comes first.
    pub async fn push_documents(
        &self,
        contract: &ContractId,
        version: u64,
        documents: &[Vec<u8>],
    ) -> Result<DocumentsAnswer, ClientError> {
        let list: Vec<String> = documents.iter().map(|bytes| BASE64.encode(bytes)).collect();
        let path = paths::documents(contract, version);
        self.send(Method::PUT, &path, &list, TIMEOUT_UPLOAD).await
    }

    /// Gives results. At most [`paths::RESULTS_MAX`] at a time.
    pub async fn push_results(&self, results: &[Envelope]) -> Result<ResultsAnswer, ClientError> {
        self.send(Method::POST, paths::RESULTS, results, TIMEOUT_EXCHANGE).await
    }

    /// Gives a sign of life.
    pub async fn heartbeat(&self, heartbeat: &Envelope) -> Result<HeartbeatAnswer, ClientError> {
        self.send(Method::POST, paths::HEARTBEATS, heartbeat, TIMEOUT_EXCHANGE).await
    }

    /// The envelope of a statement. Its payload hashes to the id; its signatures are not judged.
    pub async fn statement(&self, id: &StatementId) -> Result<Envelope, ClientError> {
        let path = paths::statement(id);
        let envelope: Envelope = self.get(&path).await?;
        if envelope.id().ok() == Some(*id) {
            Ok(envelope)
        } else {
            let reason = "the statement does not hash to its id".into();
            Err(ClientError::BadAnswer { url: path, reason })
        }
    }

    /// The proof that a statement is in the log, as it came: nothing of it is checked.
    pub async fn proof(&self, id: &StatementId) -> Result<Vec<u8>, ClientError> {
        self.bytes(&paths::proof(id), paths::PROOF_BYTES_MAX).await
    }

    /// The newest checkpoint of the log, as it came: nothing of it is checked.
    pub async fn checkpoint(&self) -> Result<Vec<u8>, ClientError> {
        self.bytes(paths::CHECKPOINT, paths::CHECKPOINT_BYTES_MAX).await
    }

    /// A tile of the log by its name, as it came.
    pub async fn tile(&self, name: &str) -> Result<Vec<u8>, ClientError> {
        self.bytes(&paths::tile(name), paths::TILE_BYTES_MAX).await
    }

    async fn bytes(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, ClientError> {
        let make = |url: &str| self.http.get(url).timeout(TIMEOUT_EXCHANGE);
        let (_, answer) = self.ask(path, make, bytes_max).await?;
        Ok(answer.bytes)
    }

    /// Contracts that concern a node.
    pub async fn inbox(
        &self,
        node: &NodeId,
        etag: Option<&str>,
    ) -> Result<Fetched<view::Inbox>, ClientError> {
        self.get_tagged(&paths::inbox(node), etag, json).await
    }

    /// A contract with the documents of one node, to be judged by `contract::verdict`.
    pub async fn bundle_for(
        &self,
        contract: &ContractId,
        node: &NodeId,
        etag: Option<&str>,
    ) -> Result<Fetched<Bundle>, ClientError> {
        self.get_tagged(&paths::bundle_for(contract, node), etag, bundle).await
    }

    /// A contract for a reader: without documents.
    pub async fn bundle(&self, contract: &ContractId) -> Result<Bundle, ClientError> {
        match self.get_tagged(&paths::bundle(contract), None, bundle).await? {
            Fetched::New { body, .. } => Ok(body),
            Fetched::Same => Err(ClientError::BadAnswer {
                url: paths::bundle(contract),
                reason: "not modified, where nothing was known before".into(),
            }),
        }
    }

    /// An identity and its statement.
    pub async fn identity(&self, id: &IdentityId) -> Result<view::IdentityView, ClientError> {
        self.get(&paths::identity(id)).await
    }

    /// Farms.
    pub async fn farms(&self) -> Result<view::Farms, ClientError> {
        self.get(paths::FARMS).await
    }

    /// A farm.
    pub async fn farm(&self, id: &IdentityId) -> Result<view::FarmView, ClientError> {
        self.get(&paths::farm(id)).await
    }

    /// Nodes, of one farm or all.
    pub async fn nodes(&self, farm: Option<&IdentityId>) -> Result<view::Nodes, ClientError> {
        let query = farm.map(|id| format!("?farm={id}")).unwrap_or_default();
        self.get(&format!("{}{query}", paths::NODES)).await
    }

    /// A node.
    pub async fn node(&self, id: &NodeId) -> Result<view::NodeView, ClientError> {
        self.get(&paths::node(id)).await
    }

    /// Contracts.
    pub async fn contracts(&self, filter: &ContractFilter) -> Result<view::Contracts, ClientError> {
        let mut query = Vec::new();
        query.extend(filter.owner.map(|id| format!("owner={id}")));
        query.extend(filter.state.map(|state| format!("state={}", state.name())));
        query.extend(filter.signer.map(|id| format!("signer={id}")));
        self.get(&format!("{}?{}", paths::CONTRACTS, query.join("&"))).await
    }

    /// A contract with all that is known of it.
    pub async fn contract(&self, id: &ContractId) -> Result<view::ContractView, ClientError> {
        self.get(&paths::contract(id)).await
    }

    /// Every decision on a contract that arrived after this place, in the order of arrival.
    pub async fn approvals(
        &self,
        contract: &ContractId,
        after: u64,
    ) -> Result<view::Decisions, ClientError> {
        self.get(&format!("{}?after={after}", paths::approvals(contract))).await
    }

    /// Results in the order of their arrival.
    pub async fn results(&self, filter: &ResultFilter) -> Result<view::Results, ClientError> {
        let mut query = vec![format!("after={}", filter.after)];
        query.extend(filter.contract.map(|id| format!("contract={id}")));
        query.extend(filter.node.map(|id| format!("node={id}")));
        self.get(&format!("{}?{}", paths::RESULTS, query.join("&"))).await
    }

    /// Publishes an flist's body from a file. Streams; a second time does nothing.
    pub async fn push_flist(&self, id: &FlistId, file: &Path) -> Result<(), ClientError> {
        self.put_file(&paths::flist(id), file).await.map(drop)
    }

    /// Publishes a pack from a file, by its BLAKE3. Streams; a second time does nothing.
    pub async fn push_pack(&self, id: &FlistId, file: &Path) -> Result<(), ClientError> {
        self.put_file(&paths::pack(id), file).await.map(drop)
    }

    /// Publishes the record of a release. `false`: it was there, or one that says more.
    pub async fn push_release(&self, release: &Release, file: &Path) -> Result<bool, ClientError> {
        match self.put_file(&paths::release(&release.flist, &release.publisher), file).await {
            Ok(status) => Ok(status == StatusCode::CREATED),
            Err(error) if error.code() == Some(codes::OLD_VERSION) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a path of [`paths::flist`] or [`paths::pack`] is published at the first registry
    /// that answers. Any doubt is a no: publishing again does no harm.
    pub async fn has_content(&self, path: &str) -> bool {
        for base in &self.bases {
            let request = self.http.head(format!("{base}{path}")).timeout(TIMEOUT_EXCHANGE);
            if let Ok(response) = request.send().await {
                return response.status().is_success();
            }
        }
        false
    }

    async fn put_file(&self, path: &str, file: &Path) -> Result<StatusCode, ClientError> {
        let mut last = None;
        for base in &self.bases {
            let url = format!("{base}{path}");
            let unreachable = |source: Box<dyn Error + Send + Sync>| ClientError::Unreachable {
                url: url.clone(),
                source,
            };
            let open = tokio::fs::File::open(file).await.map_err(|error| {
                let text = format!("reading {}: {error}", file.display());
                unreachable(text.into())
            })?;
            let request = self.http.put(&url).timeout(TIMEOUT_UPLOAD).body(open);
            match self.answer(&url, request, 64 * 1024).await {
                Ok(answer) => return Ok(answer.status),
                Err(error) if elsewhere(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("a client has at least one base"))
    }

    async fn send<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let make = |url: &str| self.http.request(method.clone(), url).timeout(timeout).json(body);
        let (url, answer) = self.ask(path, make, paths::ANSWER_BYTES_MAX).await?;
        json(&url, &answer.bytes)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let make = |url: &str| self.http.get(url).timeout(TIMEOUT_EXCHANGE);
        let (url, answer) = self.ask(path, make, paths::ANSWER_BYTES_MAX).await?;
        json(&url, &answer.bytes)
    }

    async fn get_tagged<T>(
        &self,
        path: &str,
        etag: Option<&str>,
        read: fn(&str, &[u8]) -> Result<T, ClientError>,
    ) -> Result<Fetched<T>, ClientError> {
        let make = |url: &str| {
            let request = self.http.get(url).timeout(TIMEOUT_EXCHANGE);
            match etag {
                Some(etag) => request.header(header::IF_NONE_MATCH, etag),
                None => request,
            }
        };
        let (url, answer) = self.ask(path, make, BUNDLE_BYTES_MAX).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::Same);
        }
        let etag = answer.etag.unwrap_or_default();
        Ok(Fetched::New { body: read(&url, &answer.bytes)?, etag })
    }

    async fn ask(
        &self,
        path: &str,
        make: impl Fn(&str) -> RequestBuilder,
        bytes_max: usize,
    ) -> Result<(String, Answer), ClientError> {
        let mut last = None;
        for base in &self.bases {
            let url = format!("{base}{path}");
            match self.answer(&url, make(&url), bytes_max).await {
                Ok(answer) => return Ok((url, answer)),
                Err(error) if elsewhere(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("a client has at least one base"))
    }

    async fn answer(
        &self,
        url: &str,
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<Answer, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            url: url.into(),
            source: error.into(),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let found = text(&response, paths::NETWORK_HEADER);
        if let (Some(wanted), Some(found)) = (self.network.as_deref(), found)
            && found != wanted
        {
            let (url, wanted) = (url.to_owned(), wanted.to_owned());
            return Err(ClientError::OtherNetwork { url, wanted, found });
        }
        let etag = text(&response, header::ETAG.as_str());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > bytes_max {
                let reason = format!("more than {bytes_max} bytes");
                return Err(ClientError::BadAnswer { url: url.into(), reason });
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(Answer { status, etag, bytes });
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) if problem.status == status.as_u16() => {
                Err(ClientError::Problem { url: url.into(), problem: Box::new(problem) })
            }
            Ok(_) | Err(_) => {
                let reason = format!("status {status} without a problem");
                Err(ClientError::BadAnswer { url: url.into(), reason })
            }
        }
    }
}

/// Whether another registry may do better.
fn elsewhere(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::BadAnswer { .. }
        | ClientError::OtherNetwork { .. } => true,
        ClientError::Problem { problem, .. } => problem.status >= 500,
        ClientError::BadBase(_) | ClientError::Setup(_) => false,
    }
}

struct Answer {
    status: StatusCode,
    etag: Option<String>,
    bytes: Vec<u8>,
}

fn text(response: &Response, header: &str) -> Option<String> {
    let text = response.headers().get(header)?.to_str().ok()?;
    (text.len() <= HEADER_BYTES_MAX).then(|| text.to_owned())
}

fn json<T: DeserializeOwned>(url: &str, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ClientError::BadAnswer { url: url.into(), reason: error.to_string() })
}

fn bundle(url: &str, bytes: &[u8]) -> Result<Bundle, ClientError> {
    Bundle::read(bytes)
        .map_err(|error| ClientError::BadAnswer { url: url.into(), reason: error.to_string() })
}

/// An HTTP client as this one has it: https if this build has it, and no redirects. The first call
/// also makes ring the process's TLS provider then.
pub fn http() -> Result<reqwest::Client, ClientError> {
    let builder = reqwest::Client::builder()
        .connect_timeout(TIMEOUT_CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("zero-os/", env!("CARGO_PKG_VERSION")));
    #[cfg(feature = "https")]
    let builder = builder.tls_backend_preconfigured(tls());
    builder.build().map_err(|error| ClientError::Setup(error.into()))
}

/// A base URL without a slash at its end, if this build can ask it.
pub fn base(base: &str) -> Result<String, ClientError> {
    let bad = || ClientError::BadBase(base.to_owned());
    let url = reqwest::Url::parse(base).map_err(|_| bad())?;
    let schemes: &[&str] = if cfg!(feature = "https") { &["http", "https"] } else { &["http"] };
    if !schemes.contains(&url.scheme())
        || !url.has_host()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(bad());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// TLS with ring and the root certificates that are built in: a node has no files to read them
/// from. Nothing rests on it, as statements prove themselves; it hides who asks for what.
#[cfg(feature = "https")]
fn tls() -> rustls::ClientConfig {
    // An error only says that the process has a provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the versions that rustls thinks safe")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_cleaned_or_refused() {
        let check = |text: &str, wanted: Option<&str>| {
            let found = Client::new([text]).ok().map(|client| client.bases()[0].clone());
            assert_eq!(found.as_deref(), wanted, "{text}");
        };
        check("http://registry.test", Some("http://registry.test"));
        check("http://registry.test:8000/", Some("http://registry.test:8000"));
        check("http://registry.test/main/", Some("http://registry.test/main"));
        check("ftp://registry.test", None);
        check("registry.test:8000", None);
        check("http://registry.test/?x=1", None);
        check("", None);
        assert_eq!(
            Client::new(["https://registry.test"]).is_ok(),
            cfg!(feature = "https"),
            "https when it is built in"
        );
        assert!(Client::new(Vec::<String>::new()).is_err());
    }
}
