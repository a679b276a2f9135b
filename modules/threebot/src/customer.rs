//! What the owner of a contract does: plan it against the grid, sign it, push it, end it.

use crate::{
    content, documents,
    error::BotError,
    grid::{Actor, Grid, is_missing},
    people::People,
    plan::{
        self, Follows, Inputs, Plan,
        file::Sealed,
        world::{Finding, NodeFacts, World, findings},
    },
    source::Source,
};
use contract::{
    Bundle, ContractId, Envelope, IdentityId, Signed, StatementId, Timestamp,
    decision::{Cancel, Retention},
    header::{Header, Nonce},
    verdict::Case,
    workload::Document,
};
use std::path::Path;

/// What a plan is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// What the person wrote.
    pub source: &'a Source,
    /// Directories in the source are relative to this one.
    pub base: &'a Path,
    /// Whom the source's names mean.
    pub people: &'a People,
    /// Who will sign.
    pub signer: IdentityId,
    /// Lengths of time count from here.
    pub now: Timestamp,
    /// Where nodes fetch flists for which the source names no place; the registry's store if empty.
    pub content: &'a [String],
    /// The contract of which this is the next version; `None` for a new one.
    pub update: Option<ContractId>,
}

/// A plan, held against the grid.
#[derive(Debug)]
pub struct Planned {
    /// The exact bytes.
    pub plan: Plan,
    /// What stands against it; a refusal among them means that it cannot work.
    pub findings: Vec<Finding>,
    /// The version in force that it replaces, with its documents if the registry has them all.
    pub replaces: Option<(Header, Option<Vec<Document>>)>,
}

/// Makes a plan: looks up flists, pool and nodes, makes the bytes, and holds them against the grid.
pub async fn plan(grid: &Grid, request: &Request<'_>) -> Result<Planned, BotError> {
    let before = match &request.update {
        None => None,
        Some(contract) => Some(in_force(grid, contract).await?),
    };
    let wanted = plan::wanted_flists(request.source)?;
    let registry = [grid.client.content_url()];
    let content = if request.content.is_empty() { &registry[..] } else { request.content };
    let begun = before.as_ref().map_or(&[][..], |(header, _)| &header.body.flists);
    let (flists, over) =
        content::look_up(&wanted, request.base, content, request.now, begun).await?;
    let follows = match &before {
        Some((header, _)) => Follows::Version(&header.body, header.id),
        None => Follows::Nothing(fresh_nonce()?),
    };
    let inputs = Inputs {
        source: request.source,
        network: &grid.network,
        now: request.now,
        signer: request.signer,
        people: request.people,
        flists: &flists,
        follows,
    };
    let plan = plan::plan(&inputs)?;
    let replaces = before.map(|(header, documents)| (header.body, documents));
    let world =
        world(grid, &plan, replaces.as_ref().and_then(|(_, documents)| documents.as_deref()))
            .await?;
    let mut findings = findings(&plan, &world, request.now);
    findings.extend(over);
    findings.sort_by_key(|finding| (finding.severity, finding.node));
    Ok(Planned { plan, findings, replaces })
}

/// 16 fresh random bytes, as a nonce.
pub fn fresh_nonce() -> Result<Nonce, BotError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(BotError::Random)?;
    Ok(Nonce(hex::encode(bytes)))
}

/// What the registry knows about the nodes and the pool of a plan.
async fn world(grid: &Grid, plan: &Plan, replaced: Option<&[Document]>) -> Result<World, BotError> {
    let pool = match grid.statement(&plan.header.pool).await {
        Ok(pool) => Some(pool),
        Err(BotError::Registry { source, .. }) if is_missing(&source) => None,
        Err(error) => return Err(error),
    };
    let mut world = World { pool, ..World::default() };
    if let Some(pool) = &world.pool {
        world.farm = Some(grid.signer(&pool.body.farm).await?);
    }
    for document in &plan.documents {
        if let Some(node) = grid.find_node(&document.node).await? {
            let facts = NodeFacts {
                farm: node.statement.body.farm,
                adopted: node.consent_verified,
                online: node.view.online,
                capacity: node.statement.body.capacity,
                free: node.view.free,
                degraded: node.statement.body.degraded,
            };
            world.nodes.insert(document.node, facts);
        }
    }
    let taken = replaced.unwrap_or_default().iter();
    world.taken = taken.map(|document| (document.node, document.demand())).collect();
    Ok(world)
}

/// Signs the header of a plan. Only its owner can.
pub fn sign(sealed: &mut Sealed, actor: &Actor) -> Result<(), BotError> {
    let header = &sealed.plan.header;
    if header.owner != actor.id() {
        return Err(BotError::NotTheOwner { owner: header.owner, contract: header.contract });
    }
    sealed.envelope.sign(&actor.key.secret).map_err(|source| BotError::Write("contract", source))
}

/// What came of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The header statement: what stakeholders approve.
    pub header: StatementId,
    /// Whether the registry learned something.
    pub new: bool,
}

/// Uploads identities, header and documents. A second time does nothing.
///
/// Refuses a plan that its owner has not signed. `identities` are statements that the registry may
/// lack; the owner's is among them or known there already.
pub async fn push(
    grid: &Grid,
    sealed: &Sealed,
    identities: &[Envelope],
) -> Result<Pushed, BotError> {
    for identity in identities {
        grid.push(identity, "registering an identity").await?;
    }
    let plan = &sealed.plan;
    let owner = grid.signer(&plan.header.owner).await?;
    let signed = Signed::<Header>::open(&sealed.envelope)
        .map_err(|source| BotError::Delivered("the plan".to_owned(), source))?;
    if !owner.signed(&signed) {
        return Err(BotError::Nothing(format!(
            "the plan is not signed by its owner {}; do so with `3bot contract sign`",
            plan.header.owner.short()
        )));
    }
    let asking = BotError::asking("pushing the contract");
    let accepted = grid.client.push(&sealed.envelope).await.map_err(asking)?;
    let documents = grid
        .client
        .push_documents(&plan.header.contract, plan.header.version, &plan.document_bytes)
        .await
        .map_err(BotError::asking("pushing the deployment documents"))?;
    Ok(Pushed { header: accepted.id, new: accepted.new || documents.new })
}

/// A contract as the registry delivers it, parsed.
pub(crate) async fn case(grid: &Grid, contract: &ContractId) -> Result<(Bundle, Case), BotError> {
    let asking = BotError::asking(format!("fetching the contract {}", contract.short()));
    let bundle = grid.client.bundle(contract).await.map_err(asking)?;
    let refused = |refusal| BotError::Refused { contract: *contract, refusal };
    let case = Case::read(&bundle).map_err(refused)?;
    let first = &case.headers()[0].body;
    if first.contract != *contract || first.network != grid.network {
        return Err(BotError::Unproven {
            what: format!("the contract {}", contract.short()),
            problem: format!("it is {} of the network {}", first.contract, first.network),
        });
    }
    Ok((bundle, case))
}

/// The version in force, with its documents if the registry has them all.
async fn in_force(
    grid: &Grid,
    contract: &ContractId,
) -> Result<(Signed<Header>, Option<Vec<Document>>), BotError> {
    let (bundle, case) = case(grid, contract).await?;
    let refused = |refusal| BotError::Refused { contract: *contract, refusal };
    let Some(header) = case.in_force().map_err(refused)? else {
        return Err(BotError::Nothing(format!(
            "no version of {} has been agreed on yet, so there is nothing to update: let it be \
             approved first, or make a new contract",
            contract.short()
        )));
    };
    let documents = documents::fetch(grid, contract, &bundle, case.headers()).await?;
    let documents = documents.of(header.body.version).map(<[Document]>::to_vec);
    Ok((header.clone(), documents))
}

/// How a contract is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// For people.
    pub reason: String,
    /// When the workloads stop.
    pub effective_at: Timestamp,
    /// What becomes of the data.
    pub retention: Retention,
}

/// Orders the end of a contract. It takes effect once the stakeholders approve the order.
pub async fn cancel(
    grid: &Grid,
    actor: &Actor,
    contract: &ContractId,
    ending: &Ending,
    now: Timestamp,
) -> Result<StatementId, BotError> {
    let (_, case) = case(grid, contract).await?;
    let refused = |refusal| BotError::Refused { contract: *contract, refusal };
    let Some(header) = case.in_force().map_err(refused)? else {
        return Err(BotError::Nothing(format!(
            "no version of {} has been agreed on, so there is nothing to end",
            contract.short()
        )));
    };
    if header.body.owner != actor.id() {
        return Err(BotError::NotTheOwner { owner: header.body.owner, contract: *contract });
    }
    let order = Cancel {
        network: grid.network.clone(),
        contract: *contract,
        version: header.body.version,
        reason: ending.reason.clone(),
        issued: now,
        effective_at: ending.effective_at,
        retention: ending.retention,
    };
    grid.push(&actor.seal(&order)?, "pushing the order to end the contract").await
}
