//! The registry of one network, and those who act on it.

use crate::error::BotError;
use contract::{
    Envelope, IdentityId, NodeId, Signed, Statement, StatementId,
    farm::{Adoption, Farm, consents},
    identity::{Identity, Signer},
    node::{Node, node_id},
};
use identity::{Key, KeyError, Keys, Name, Own};
use registry_api::{Client, ClientError, problem::codes, view::NodeView};

/// The registries of one network.
#[derive(Debug, Clone)]
pub struct Grid {
    /// Talks to the registries.
    pub client: Client,
    /// `main`, `test`, or a private name.
    pub network: String,
}

/// Somebody who signs: a key, and its identity on the network.
#[derive(Debug)]
pub struct Actor {
    /// The key.
    pub key: Key,
    /// The identity.
    pub own: Own,
}

impl Actor {
    /// Reads a key; makes its identity for the network when there is none yet.
    pub fn load(keys: &Keys, name: &Name, network: &str) -> Result<Self, KeyError> {
        let key = keys.load(name)?;
        let own = keys.identity(&key, network)?;
        Ok(Self { key, own })
    }

    /// By which others name this actor.
    pub fn id(&self) -> IdentityId {
        self.own.id()
    }

    /// Writes and signs a statement.
    pub fn seal<T: Statement>(&self, body: &T) -> Result<Envelope, BotError> {
        Envelope::seal(body, &[&self.key.secret])
            .map_err(|source| BotError::Write(T::KIND.name(), source))
    }
}

/// A node whose statements were verified.
#[derive(Debug, Clone)]
pub struct VerifiedNode {
    /// What the registry tells of it.
    pub view: NodeView,
    /// What the node itself signed.
    pub statement: Signed<Node>,
    /// Whether the farm's consent was verified, not only claimed.
    pub consent_verified: bool,
}

impl Grid {
    /// A grid behind these registries, which are tried in order. Makes no connection.
    pub fn new<T: AsRef<str>>(
        network: &str,
        registries: impl IntoIterator<Item = T>,
    ) -> Result<Self, ClientError> {
        let client = Client::new(registries)?.of_network(network);
        Ok(Self { client, network: network.to_owned() })
    }

    /// Makes an identity known. A second time does nothing.
    pub async fn register(&self, own: &Own) -> Result<(), BotError> {
        self.push(&own.statement, "registering the identity").await.map(drop)
    }

    /// Gives a statement to the registry.
    pub async fn push(&self, statement: &Envelope, attempt: &str) -> Result<StatementId, BotError> {
        let accepted = self.client.push(statement).await.map_err(BotError::asking(attempt))?;
        Ok(accepted.id)
    }

    /// An identity whose statement proves its id.
    pub async fn signer(&self, id: &IdentityId) -> Result<Signer, BotError> {
        let asking = BotError::asking(format!("looking up the identity {}", id.short()));
        let view = self.client.identity(id).await.map_err(asking)?;
        let what = || format!("the identity {}", id.short());
        let signed = Signed::<Identity>::open(&view.statement)
            .map_err(|source| BotError::Delivered(what(), source))?;
        match Signer::from_statement(&signed) {
            Some(signer) if signer.id == *id => Ok(signer),
            Some(_) | None => Err(BotError::Unproven {
                what: what(),
                problem: "it is not signed by its own keys, or has another id".to_owned(),
            }),
        }
    }

    /// The farm statement of an owner, when the registry has a valid one.
    pub async fn farm(&self, owner: &Signer) -> Result<Option<Signed<Farm>>, BotError> {
        let what = || format!("the farm {}", owner.id.short());
        let view = match self.client.farm(&owner.id).await {
            Ok(view) => view,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(BotError::asking(format!("looking up {}", what()))(error)),
        };
        let farm = Signed::<Farm>::open(&view.statement)
            .map_err(|source| BotError::Delivered(what(), source))?;
        if farm.body.farm == owner.id && owner.signed(&farm) {
            Ok(Some(farm))
        } else {
            let problem = "its owner has not signed it".to_owned();
            Err(BotError::Unproven { what: what(), problem })
        }
    }

    /// A node, with its own statement verified, and the farm's consent if it claims one.
    pub async fn node(&self, id: &NodeId) -> Result<VerifiedNode, BotError> {
        let what = || format!("node {}", id.short());
        let asking = BotError::asking(format!("looking up {}", what()));
        let view = self.client.node(id).await.map_err(asking)?;
        let statement = verify_node(id, &view)?;
        let consent_verified = match &view.adoption {
            None => false,
            Some(adoption) => {
                let adoption = Signed::<Adoption>::open(adoption)
                    .map_err(|source| BotError::Delivered(what(), source))?;
                let owner = self.signer(&statement.body.farm).await?;
                let farm = self.farm(&owner).await?;
                adoption.body.node == *id
                    && farm.is_some_and(|farm| consents(&owner, &farm, &adoption))
            }
        };
        Ok(VerifiedNode { view, statement, consent_verified })
    }

    /// A node that may be unknown.
    pub async fn find_node(&self, id: &NodeId) -> Result<Option<VerifiedNode>, BotError> {
        match self.node(id).await {
            Ok(node) => Ok(Some(node)),
            Err(BotError::Registry { source, .. }) if is_missing(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A statement of a known kind by its id; signatures are the caller's to judge.
    pub async fn statement<T: Statement>(&self, id: &StatementId) -> Result<Signed<T>, BotError> {
        let what = format!("the {} statement {}", T::KIND.name(), id.short());
        let envelope = self
            .client
            .statement(id)
            .await
            .map_err(BotError::asking(format!("looking up {what}")))?;
        Signed::open(&envelope).map_err(|source| BotError::Delivered(what, source))
    }
}

/// The node's own statement, signed by the key whose hash is the node's id.
pub(crate) fn verify_node(id: &NodeId, view: &NodeView) -> Result<Signed<Node>, BotError> {
    let what = || format!("node {}", id.short());
    let statement = Signed::<Node>::open(&view.statement)
        .map_err(|source| BotError::Delivered(what(), source))?;
    let key = &statement.body.key;
    if node_id(key) == *id && statement.signed_by(key) {
        Ok(statement)
    } else {
        let problem = "its statement is not signed by the node".to_owned();
        Err(BotError::Unproven { what: what(), problem })
    }
}

/// Whether the registry says that there is no such thing.
pub(crate) fn is_missing(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(
            codes::NOT_FOUND
                | codes::UNKNOWN_IDENTITY
                | codes::UNKNOWN_FARM
                | codes::UNKNOWN_NODE
                | codes::UNKNOWN_CONTRACT
        )
    )
}
