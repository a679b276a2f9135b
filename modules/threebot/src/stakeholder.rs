//! What a stakeholder does: read what is to be signed, and decide.
//!
//! Nothing is believed because the registry says it: the bundle is parsed and its signatures are
//! verified here, the documents must hash into the header, and what is shown is what is signed.

use crate::{
    customer::case,
    diff::{self, Line},
    documents,
    error::BotError,
    grid::{Actor, Grid},
    people::People,
    text,
};
use contract::{
    Bundle, ContractId, IdentityId, Signed, StatementId, Timestamp,
    decision::{Action, Approval, CANCEL_OPEN_S, Decision},
    header::Header,
    identity::Identity,
    tally::{Question, Tally, decisions},
    verdict::Case,
};

/// What is to be decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matter {
    /// The newest version.
    Newest,
    /// An order to end the contract: this one, or the only one that is open.
    Cancel(Option<StatementId>),
}

/// Everything that a stakeholder should see before deciding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// The contract.
    pub contract: ContractId,
    /// Its version.
    pub version: u64,
    /// What a decision will name: the hash of the exact bytes.
    pub subject: StatementId,
    /// What is to be done.
    pub action: Action,
    /// For people.
    pub title: String,
    /// The whole matter in words.
    pub text: Vec<String>,
    /// The version that this stakeholder approved last, and what has changed since.
    pub since: Option<(u64, Vec<Line>)>,
    /// Decisions made later do not count.
    pub until: Timestamp,
    /// How far the decision has come.
    pub tallies: Vec<Tally>,
    /// What this stakeholder has decided so far.
    pub decided: Option<Decision>,
    /// When that was.
    pub decided_at: Option<Timestamp>,
}

/// Shows a matter to a stakeholder, after verifying it.
pub async fn review(
    grid: &Grid,
    contract: &ContractId,
    matter: Matter,
    me: &IdentityId,
    people: &People,
) -> Result<Review, BotError> {
    let (bundle, case) = case(grid, contract).await?;
    let people = &with_names(people, &bundle);
    match matter {
        Matter::Newest => review_newest(grid, &bundle, &case, me, people).await,
        Matter::Cancel(id) => review_cancel(&bundle, &case, id, me),
    }
}

async fn review_newest(
    grid: &Grid,
    bundle: &Bundle,
    case: &Case,
    me: &IdentityId,
    people: &People,
) -> Result<Review, BotError> {
    let index = case.headers().len() - 1;
    let header = &case.headers()[index];
    let body = &header.body;
    signed_by_owner(case, header)?;
    // Who had a say in the version before has one in replacing it, even when it drops them.
    let before = index.checked_sub(1).map(|before| &case.headers()[before].body);
    if !before.is_some_and(|before| is_stakeholder(before, me)) {
        must_be_stakeholder(body, me)?;
    }
    let documents = documents::fetch(grid, &body.contract, bundle, case.headers()).await?;
    let describe = |header: &Header| -> Result<Vec<String>, BotError> {
        Ok(text::version(header, documents.need(header)?, people))
    };
    let text = describe(body)?;
    let since = approved_before(case, index, me);
    let since = match since {
        None => None,
        Some(old) => {
            let old = &case.headers()[old].body;
            // An old document may be gone from the registry; then the header alone is compared.
            let old_documents = documents.of(old.version).unwrap_or_default();
            let old_text = text::version(old, old_documents, people);
            Some((old.version, diff::lines(&old_text, &text)))
        }
    };
    Ok(Review {
        contract: body.contract,
        version: body.version,
        subject: header.id,
        action: if body.version == 1 { Action::Create } else { Action::Update },
        title: body.title.clone(),
        text,
        since,
        until: body.approve_by,
        tallies: case.tallies(index),
        decided: case.decisions_on(index).get(me).copied(),
        decided_at: last_decision(bundle, case, header.id, me),
    })
}

fn review_cancel(
    bundle: &Bundle,
    case: &Case,
    wanted: Option<StatementId>,
    me: &IdentityId,
) -> Result<Review, BotError> {
    let first = &case.headers()[0].body;
    let contract = first.contract;
    let refused = |refusal| BotError::Refused { contract, refusal };
    let nothing =
        |text: &str| Err(BotError::Nothing(format!("{text} of the contract {}", contract.short())));
    let Some(header) = case.in_force().map_err(refused)? else {
        return nothing("there is no version in force");
    };
    must_be_stakeholder(&header.body, me)?;
    let fits = |id: StatementId| wanted.is_none_or(|wanted| wanted == id);
    let mut orders = case.cancels(header);
    orders.retain(|(order, _)| fits(order.id));
    let (order, tally) = match orders.as_slice() {
        [] => return nothing("there is no order to end the version in force"),
        [one] => one,
        _ => {
            let ids: Vec<_> = orders.iter().map(|(order, _)| order.id.to_string()).collect();
            return Err(BotError::Nothing(format!(
                "there are several orders to end it, choose one by its id: {}",
                ids.join(", ")
            )));
        }
    };
    let until = order.body.issued.plus(CANCEL_OPEN_S);
    let question = Question {
        header: &header.body,
        version: header.body.version,
        subject: order.id,
        action: Action::Cancel,
        until,
    };
    let approvals: Vec<_> =
        bundle.approvals.iter().filter_map(|one| Signed::open(one).ok()).collect();
    let signers: Vec<_> = case.signer(me).cloned().into_iter().collect();
    Ok(Review {
        contract,
        version: header.body.version,
        subject: order.id,
        action: Action::Cancel,
        title: header.body.title.clone(),
        text: text::cancel(&order.body),
        since: None,
        until,
        tallies: vec![tally.clone()],
        decided: decisions(&question, &approvals, &signers).get(me).copied(),
        decided_at: last_decision(bundle, case, order.id, me),
    })
}

/// When a stakeholder decided last on a statement.
fn last_decision(
    bundle: &Bundle,
    case: &Case,
    subject: StatementId,
    me: &IdentityId,
) -> Option<Timestamp> {
    let signer = case.signer(me)?;
    let approvals = bundle.approvals.iter().filter_map(|one| Signed::<Approval>::open(one).ok());
    let own = approvals.filter(|one| one.body.subject == subject && one.body.signer == *me);
    own.filter(|one| signer.signed(one)).map(|one| one.body.issued).max()
}

/// The last version before `index` that this stakeholder approved.
fn approved_before(case: &Case, index: usize, me: &IdentityId) -> Option<usize> {
    let approved = |index: &usize| case.decisions_on(*index).get(me) == Some(&Decision::Approve);
    (0..index).rev().find(approved)
}

pub(crate) fn signed_by_owner(case: &Case, header: &Signed<Header>) -> Result<(), BotError> {
    let owner = &header.body.owner;
    if case.signer(owner).is_some_and(|signer| signer.signed(header)) {
        return Ok(());
    }
    Err(BotError::Unproven {
        what: format!("version {} of {}", header.body.version, header.body.contract.short()),
        problem: format!("its owner {} has not signed it", owner.short()),
    })
}

fn is_stakeholder(header: &Header, id: &IdentityId) -> bool {
    header.stakeholders.iter().any(|holder| holder.identity == *id)
}

fn must_be_stakeholder(header: &Header, me: &IdentityId) -> Result<(), BotError> {
    if is_stakeholder(header, me) {
        return Ok(());
    }
    Err(BotError::NotAStakeholder { identity: *me, contract: header.contract })
}

/// The user's names, and what the identities of the bundle call themselves.
pub(crate) fn with_names(people: &People, bundle: &Bundle) -> People {
    let mut people = people.clone();
    for statement in &bundle.identities {
        if let Ok(identity) = Signed::<Identity>::open(statement) {
            people.told(IdentityId(identity.id.0), &text::clean(&identity.body.name));
        }
    }
    people
}

/// Signs a decision on exactly what was reviewed, and pushes it.
pub async fn decide(
    grid: &Grid,
    actor: &Actor,
    review: &Review,
    decision: Decision,
    comment: &str,
    now: Timestamp,
) -> Result<StatementId, BotError> {
    // Of two decisions in one second the stronger stands, whichever came last.
    let issued = review.decided_at.map_or(now, |last| now.max(last.plus(1)));
    if issued > review.until {
        return Err(BotError::Nothing(format!(
            "decisions counted until {}; the owner has to propose it again",
            review.until
        )));
    }
    grid.register(&actor.own).await?;
    let approval = Approval {
        network: grid.network.clone(),
        contract: review.contract,
        version: review.version,
        subject: review.subject,
        action: review.action,
        decision,
        signer: actor.id(),
        issued,
        comment: comment.to_owned(),
    };
    grid.push(&actor.seal(&approval)?, "pushing the decision").await
}
