//! What can go wrong when the SDK talks to a registry.

use contract::{ContractId, IdentityId, NodeId, envelope::OpenError};
use registry_api::ClientError;

/// Why an action of the SDK did not happen.
#[derive(Debug, thiserror::Error)]
pub enum BotError {
    /// The registry does not answer, or refuses.
    #[error("{attempt}")]
    Registry {
        /// What was tried.
        attempt: String,
        /// What came of it.
        #[source]
        source: ClientError,
    },
    /// A statement cannot be made.
    #[error("writing the {0} statement")]
    Write(&'static str, #[source] OpenError),
    /// A statement that the registry delivered does not parse.
    #[error("reading {0} that the registry delivered")]
    Delivered(String, #[source] OpenError),
    /// A statement that the registry delivered proves something else than it should.
    #[error("the registry delivered {what}, which is not valid: {problem}")]
    Unproven {
        /// What was delivered.
        what: String,
        /// What is wrong with it, as a sentence.
        problem: String,
    },
    /// The contract breaks a rule, as a node would find.
    #[error("contract {contract} breaks rule {}: {}", refusal.code.rule(), refusal.message)]
    Refused {
        /// Which contract.
        contract: ContractId,
        /// What a node would say.
        refusal: contract::verdict::Refusal,
    },
    /// This identity has no say in the matter.
    #[error("{identity} is no stakeholder of {contract}")]
    NotAStakeholder {
        /// Who wanted to decide.
        identity: IdentityId,
        /// On what.
        contract: ContractId,
    },
    /// Only the owner may do that.
    #[error("{owner} owns {contract}; only they may do that, with their key")]
    NotTheOwner {
        /// Who it is.
        owner: IdentityId,
        /// Of what.
        contract: ContractId,
    },
    /// There is nothing like that to act on.
    #[error("{0}")]
    Nothing(String),
    /// The node belongs to another farm.
    #[error("node {node} wants to belong to the farm {farm}, which is not yours")]
    OtherFarm {
        /// The node.
        node: NodeId,
        /// The farm that it names.
        farm: IdentityId,
    },
    /// The operating system gives no randomness.
    #[error("asking the operating system for random bytes")]
    Random(#[source] getrandom::Error),
    /// An flist cannot be read or fetched.
    #[error("looking up flist {name}")]
    Flist {
        /// Its name in the source.
        name: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the caller cannot be read or written.
    #[error("{doing} {}", path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The plan cannot be made.
    #[error("the contract cannot be planned")]
    Plan(#[from] crate::plan::Refused),
}

impl BotError {
    pub(crate) fn asking(attempt: impl Into<String>) -> impl FnOnce(ClientError) -> Self {
        let attempt = attempt.into();
        |source| Self::Registry { attempt, source }
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some libraries repeat their cause; once is enough.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
