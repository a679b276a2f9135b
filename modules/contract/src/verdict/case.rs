//! A bundle that has been opened: every statement parsed, every signature checked, every vote counted.
//!
//! None of that depends on the time, on the node or on what is free there, so it is done once for a
//! bundle and the verdict follows from it as often as it is asked for. When a bundle has grown, only
//! the signatures of its new statements are checked.

use super::{Code, Refusal, chain, refuse};
use crate::{
    bundle::{Bundle, Deployment, STATEMENTS_MAX, VERSIONS_MAX},
    decision::{Action, Approval, CANCEL_OPEN_S, Cancel, Decision},
    envelope::{Envelope, Signed, Statement},
    farm::Pool,
    header::{Header, Rule, Stakeholder},
    id::{DocumentId, IdentityId, NodeId, StatementId},
    identity::{Identity, Signer},
    logged::Logged,
    merkle,
    proven::Proven,
    strict,
    tally::{Question, Tally, tally},
    workload::{DOCUMENT_BYTES_MAX, Document},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    sync::Arc,
    vec::Vec,
};

/// A bundle whose statements have been parsed and verified.
#[derive(Debug)]
pub struct Case {
    parts: Parts,
    /// For each version: see [`Case::tallies`].
    tallies: Vec<Vec<Tally>>,
    /// How many versions are agreed on.
    agreed: Result<usize, Refusal>,
    /// And, as far as that is asked for, in the log.
    in_force: Result<usize, Refusal>,
    unlogged: Vec<StatementId>,
    proven: Proven,
}

/// The statements, before anything is counted.
#[derive(Debug)]
struct Parts {
    headers: Vec<Signed<Header>>,
    signers: Arc<BTreeMap<IdentityId, Signer>>,
    approvals: Approvals,
    cancels: Vec<Order>,
    pools: Arc<[Grant]>,
    documents: Arc<[Opened]>,
}

/// A decision that stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Its statement.
    pub statement: StatementId,
    /// What was decided, and when.
    pub approval: &'a Approval,
    /// As what it counts.
    pub holder: &'a Stakeholder,
}

/// Those that their signers have signed, by the statement that they are about.
type Approvals = BTreeMap<StatementId, Vec<(StatementId, Approval)>>;

/// An order to end a version.
#[derive(Debug)]
struct Order {
    cancel: Signed<Cancel>,
    /// By the owner.
    is_signed: bool,
    /// `None`: of another contract, or not signed.
    tally: Option<Tally>,
}

#[derive(Debug)]
struct Grant {
    pool: Signed<Pool>,
    /// By the farm that it names.
    is_signed: bool,
}

#[derive(Debug)]
struct Opened {
    /// Versions under whose root it is.
    versions: Vec<u64>,
    id: DocumentId,
    document: Result<Document, Refusal>,
}

/// Checks signatures, but for those that are known to be right.
struct Checker<'a> {
    known: &'a Proven,
    proven: Proven,
}

impl Checker<'_> {
    fn signed<T: Statement>(&mut self, signer: &Signer, statement: &Signed<T>) -> bool {
        self.proven.signed_after(self.known, signer, statement)
    }
}

impl Case {
    /// Opens a bundle. A header that does not parse is refused; any other statement that does not is
    /// left out, for whoever delivers the bundle could have left it out as well.
    pub fn read(bundle: &Bundle) -> Result<Self, Refusal> {
        Self::read_after(bundle, &Proven::default(), &Logged::NotAsked)
    }

    /// The same, without another look at signatures that are known to be right, and by what is known to
    /// be in the log.
    pub fn read_after(bundle: &Bundle, known: &Proven, logged: &Logged) -> Result<Self, Refusal> {
        let others = [&bundle.approvals, &bundle.cancels, &bundle.identities, &bundle.pools];
        if bundle.headers.len() > VERSIONS_MAX
            || others.iter().any(|list| list.len() > STATEMENTS_MAX)
        {
            return refuse(Code::TooLarge, "the bundle holds too many statements");
        }
        let mut headers: Vec<Signed<Header>> = Vec::with_capacity(bundle.headers.len());
        for envelope in &bundle.headers {
            match Signed::open(envelope) {
                Ok(header) => headers.push(header),
                Err(error) => return refuse(Code::Malformed, chain(&error)),
            }
        }
        check_chain(&headers)?;
        let mut checker = Checker { known, proven: Proven::default() };
        let signers = signers(&bundle.identities, &mut checker);
        let cancels: Vec<Signed<Cancel>> = readable(&bundle.cancels);
        let subjects: BTreeSet<StatementId> = headers
            .iter()
            .map(|header| header.id)
            .chain(cancels.iter().map(|cancel| cancel.id))
            .collect();
        let mut approvals = Approvals::new();
        for approval in readable::<Approval>(&bundle.approvals) {
            let signer = signers.get(&approval.body.signer);
            if subjects.contains(&approval.body.subject)
                && signer.is_some_and(|signer| checker.signed(signer, &approval))
            {
                let made = approvals.entry(approval.body.subject).or_default();
                made.push((approval.id, approval.body));
            }
        }
        let pools = readable::<Pool>(&bundle.pools).into_iter().map(|pool| {
            let farm = signers.get(&pool.body.farm);
            let is_signed = farm.is_some_and(|farm| checker.signed(farm, &pool));
            Grant { pool, is_signed }
        });
        let pools: Vec<Grant> = pools.collect();
        let owner = signers.get(&headers[0].body.owner);
        let cancels = cancels.into_iter().map(|cancel| {
            let is_signed = owner.is_some_and(|owner| checker.signed(owner, &cancel));
            Order { cancel, is_signed, tally: None }
        });
        let cancels: Vec<Order> = cancels.collect();
        let documents = bundle.documents.iter().filter_map(|one| open(one, &headers)).collect();
        let pools = pools.into();
        let signers = Arc::new(signers);
        let parts = Parts { headers, signers, approvals, cancels, pools, documents };
        Ok(Self::count(parts, checker, logged))
    }

    /// The case as it stands when only these versions, decisions and orders are there, as at an earlier
    /// time. A version that is not there takes those after it away. No signature is looked at again.
    pub fn with_only(&self, is_there: impl Fn(&StatementId) -> bool) -> Result<Self, Refusal> {
        let headers = self.parts.headers.iter().take_while(|header| is_there(&header.id));
        let headers: Vec<_> = headers.cloned().collect();
        check_chain(&headers)?;
        let approvals = self.parts.approvals.iter().map(|(subject, made)| {
            (*subject, made.iter().filter(|(id, _)| is_there(id)).cloned().collect())
        });
        let cancels = self.parts.cancels.iter().filter(|order| is_there(&order.cancel.id));
        let cancels = cancels.map(|Order { cancel, is_signed, .. }| Order {
            cancel: cancel.clone(),
            is_signed: *is_signed,
            tally: None,
        });
        let parts = Parts {
            signers: Arc::clone(&self.parts.signers),
            approvals: approvals.collect(),
            cancels: cancels.collect(),
            pools: Arc::clone(&self.parts.pools),
            documents: Arc::clone(&self.parts.documents),
            headers,
        };
        let checker = Checker { known: &self.proven, proven: Proven::default() };
        Ok(Self::count(parts, checker, &Logged::NotAsked))
    }

    fn count(mut parts: Parts, mut checker: Checker<'_>, logged: &Logged) -> Self {
        let Parts { headers, signers, approvals, cancels, .. } = &mut parts;
        for order in cancels {
            let count = || cancel_tally(&order.cancel, headers, approvals);
            order.tally = order.is_signed.then(count).flatten();
        }
        let owner = signers.get(&headers[0].body.owner);
        let tallies: Vec<Vec<Tally>> =
            (0..headers.len()).map(|index| tallies(index, headers, approvals)).collect();
        let agreed = agreed(headers, &tallies, owner, &mut checker);
        let unproven = |index| unproven(index, headers, approvals, logged);
        let in_force = agreed
            .clone()
            .map(|agreed| (0..agreed).find(|index| !unproven(*index).is_empty()).unwrap_or(agreed));
        let unlogged = match (&in_force, &agreed) {
            (Ok(first), Ok(agreed)) => (*first..*agreed).flat_map(unproven).collect(),
            (Ok(_) | Err(_), _) => Vec::new(),
        };
        let proven = checker.proven;
        Self { parts, tallies, agreed, in_force, unlogged, proven }
    }

    /// The signatures that were found right.
    pub fn proven(&self) -> &Proven {
        &self.proven
    }

    /// The grid that the contract belongs to.
    pub fn network(&self) -> &str {
        &self.parts.headers[0].body.network
    }

    /// Every version, from 1 up; at least one.
    pub fn headers(&self) -> &[Signed<Header>] {
        &self.parts.headers
    }

    /// The identity of this id, when the bundle has it and it is signed by its own keys.
    pub fn signer(&self, id: &IdentityId) -> Option<&Signer> {
        self.parts.signers.get(id)
    }

    /// Statements whose proof is all that is missing: of the versions that are agreed on after the one
    /// in force.
    pub fn unlogged(&self) -> &[StatementId] {
        &self.unlogged
    }

    /// The highest version up to which every version was agreed on and is in the log, as far as that is
    /// asked for.
    pub fn in_force(&self) -> Result<Option<&Signed<Header>>, Refusal> {
        let agreed = self.in_force.clone()?;
        Ok(agreed.checked_sub(1).map(|index| &self.parts.headers[index]))
    }

    /// The highest version up to which every version was agreed on, whatever the log has; 0: none.
    pub(super) fn agreed(&self) -> u64 {
        let last = self.agreed.as_ref().ok().and_then(|agreed| agreed.checked_sub(1));
        last.map_or(0, |index| self.parts.headers[index].body.version)
    }

    /// How far the decision on a version has come: under its own policy, and for an update also
    /// under the policy of the version before.
    pub fn tallies(&self, index: usize) -> Vec<Tally> {
        self.tallies[index].clone()
    }

    /// Decisions that count on a version, by the stakeholders of that version.
    pub fn decisions_on(&self, index: usize) -> BTreeMap<IdentityId, Decision> {
        let subject = &self.parts.headers[index];
        made(&question(subject, subject), &self.parts.approvals)
    }

    /// The decisions that stand on a version, by its own stakeholders and by those of the version before.
    pub fn standing_on(&self, index: usize) -> Vec<Standing<'_>> {
        let subject = &self.parts.headers[index];
        let judges = &self.parts.headers[index.saturating_sub(1)..=index];
        let all = judges.iter().flat_map(|judge| self.standing(&question(judge, subject)));
        // Who is asked twice is shown as what they are under the version itself.
        let all: BTreeMap<_, _> = all.map(|one| (one.holder.identity, one)).collect();
        all.into_values().collect()
    }

    /// The decisions that stand on an order to end a version.
    pub fn standing_on_order(&self, order: &Signed<Cancel>) -> Vec<Standing<'_>> {
        let question = cancel_question(order, &self.parts.headers);
        question.map(|question| self.standing(&question)).unwrap_or_default()
    }

    fn standing<'a>(&'a self, question: &Question<'a>) -> Vec<Standing<'a>> {
        let standing = standing(question, &self.parts.approvals);
        let holders = question.header.stakeholders.iter();
        let of = |holder: &'a Stakeholder| {
            let (statement, approval) = standing.get(&holder.identity)?;
            Some(Standing { statement: *statement, approval, holder })
        };
        holders.filter_map(of).collect()
    }

    /// A cancel of the version in force that its owner signed and that has quorum. Of several,
    /// the one that takes effect first.
    pub fn cancelled(&self, in_force: &Signed<Header>) -> Option<&Signed<Cancel>> {
        self.orders(in_force)
            .filter(|(_, tally)| **tally == Tally::Agreed)
            .map(|(cancel, _)| cancel)
            .min_by_key(|cancel| (cancel.body.effective_at, cancel.id))
    }

    /// Every cancel of the version in force, with how far the decision has come.
    pub fn cancels(&self, in_force: &Signed<Header>) -> Vec<(&Signed<Cancel>, Tally)> {
        self.orders(in_force).map(|(cancel, tally)| (cancel, tally.clone())).collect()
    }

    fn orders(&self, header: &Signed<Header>) -> impl Iterator<Item = (&Signed<Cancel>, &Tally)> {
        let version = header.body.version;
        let of_it = move |order: &&Order| order.cancel.body.version == version;
        self.parts
            .cancels
            .iter()
            .filter(of_it)
            .filter_map(|order| Some((&order.cancel, order.tally.as_ref()?)))
    }

    /// This version, when the bundle has it.
    pub(super) fn version(&self, version: u64) -> Option<&Signed<Header>> {
        version_of(&self.parts.headers, version)
    }

    /// Why the version after `agreed`, the last that is, is not agreed on.
    pub(super) fn why_open(&self, agreed: u64) -> (Code, String) {
        let index = usize::try_from(agreed).unwrap_or(usize::MAX);
        let Some(tallies) = self.tallies.get(index) else {
            return (Code::BrokenChain, format!("version {} is missing", agreed.saturating_add(1)));
        };
        if !self.unlogged.is_empty() {
            let (version, count) = (agreed.saturating_add(1), self.unlogged.len());
            let message = format!(
                "version {version} is agreed on, and not proven to be in the log: {count} proofs missing"
            );
            return (Code::NotLogged, message);
        }
        let rejected = tallies.iter().any(|tally| matches!(tally, Tally::Rejected(_)));
        let code = if rejected { Code::Rejected } else { Code::QuorumMissing };
        let reasons: Vec<_> = tallies.iter().filter_map(Tally::reason).collect();
        (code, reasons.join("; "))
    }

    /// The pool of this id, and whether the farm that it names has signed it.
    pub(super) fn pool(&self, id: &StatementId) -> Option<(&Pool, bool)> {
        // A copy without the signature may stand in front of it.
        let copies = self.parts.pools.iter().filter(|grant| grant.pool.id == *id);
        let grant = copies.max_by_key(|grant| grant.is_signed)?;
        Some((&grant.pool.body, grant.is_signed))
    }

    /// The documents of a version that can be read.
    pub fn documents(&self, version: u64) -> impl Iterator<Item = &Document> {
        let of_it = self.parts.documents.iter().filter(move |one| one.versions.contains(&version));
        of_it.filter_map(|opened| opened.document.as_ref().ok())
    }

    /// What a node has to do under a version.
    pub fn document(
        &self,
        header: &Header,
        node: &NodeId,
    ) -> Result<(&Document, DocumentId), Refusal> {
        // An older version's document may travel along: take the one that hashes into this root.
        let mut mismatch = false;
        for opened in self.parts.documents.iter() {
            if !opened.versions.contains(&header.version) {
                mismatch = true;
                continue;
            }
            let document = opened.document.as_ref().map_err(Clone::clone)?;
            if document.node != *node {
                continue;
            }
            if document.contract != header.contract || document.version != header.version {
                return refuse(
                    Code::DocumentMismatch,
                    "the document names another contract or version",
                );
            }
            for container in document.containers() {
                if !header.flists.iter().any(|flist| flist.name == container.flist) {
                    let message = format!("the contract names no flist {}", container.flist);
                    return refuse(Code::DocumentMismatch, message);
                }
            }
            return Ok((document, opened.id));
        }
        if mismatch {
            refuse(Code::DocumentMismatch, "the document does not hash into the contract's root")
        } else {
            refuse(Code::WrongNode, "the contract holds no document for this node")
        }
    }
}

/// Those whose identity is signed by its own keys.
fn signers(identities: &[Envelope], checker: &mut Checker<'_>) -> BTreeMap<IdentityId, Signer> {
    let mut signers = BTreeMap::new();
    for identity in readable::<Identity>(identities) {
        let signer = Signer { id: IdentityId(identity.id.0), identity: identity.body.clone() };
        if checker.signed(&signer, &identity) {
            signers.insert(signer.id, signer);
        }
    }
    signers
}

/// How many versions are agreed on, one after the other.
fn agreed(
    headers: &[Signed<Header>],
    tallies: &[Vec<Tally>],
    owner: Option<&Signer>,
    checker: &mut Checker<'_>,
) -> Result<usize, Refusal> {
    let short = headers[0].body.owner.short();
    let Some(owner) = owner else {
        let message = format!("no valid identity statement of the owner {short}");
        return refuse(Code::UnknownIdentity, message);
    };
    for (index, header) in headers.iter().enumerate() {
        if !checker.signed(owner, header) {
            if index > 0 {
                // Not signed: not a version, and nothing that follows it is one either.
                return Ok(index);
            }
            return refuse(Code::OwnerSignature, format!("{short} has not signed version 1"));
        }
        if tallies[index].iter().any(|tally| *tally != Tally::Agreed) {
            return Ok(index);
        }
    }
    Ok(headers.len())
}

fn tallies(index: usize, headers: &[Signed<Header>], approvals: &Approvals) -> Vec<Tally> {
    let subject = &headers[index];
    // Of version 1 the first alone, of every other the one before and itself.
    let judges = &headers[index.saturating_sub(1)..=index];
    let count = |judge: &Signed<Header>| {
        let question = question(judge, subject);
        let rule = rule(&judge.body, question.action);
        tally(rule, &judge.body.stakeholders, &made(&question, approvals))
    };
    judges.iter().map(count).collect()
}

/// What has to be proven to be in the log before a version that is agreed on may run; nothing once that
/// what is proven is enough.
fn unproven(
    index: usize,
    headers: &[Signed<Header>],
    approvals: &Approvals,
    logged: &Logged,
) -> Vec<StatementId> {
    let subject = &headers[index];
    let version = subject.body.version;
    let made = approvals.get(&subject.id).map(Vec::as_slice).unwrap_or_default();
    let counts = |(id, approval): &&(_, Approval)| logged.counts(version, id, approval);
    let has_header = logged.has(version, &subject.id);
    if has_header && made.iter().all(|one| counts(&one)) {
        return Vec::new();
    }
    let counted = made.iter().filter(counts).cloned().collect();
    let counted = Approvals::from([(subject.id, counted)]);
    if has_header && tallies(index, headers, &counted).iter().all(|one| *one == Tally::Agreed) {
        return Vec::new();
    }
    let judges = &headers[index.saturating_sub(1)..=index];
    let matters =
        |approval: &Approval| judges.iter().any(|judge| question(judge, subject).asks(approval));
    let approvals = made.iter().filter(|one| !counts(one) && matters(&one.1)).map(|(id, _)| *id);
    let header = (!has_header).then_some(subject.id);
    header.into_iter().chain(approvals).collect()
}

/// `None` for a cancel that is about another contract, or a version that is not there.
fn cancel_tally(
    cancel: &Signed<Cancel>,
    headers: &[Signed<Header>],
    approvals: &Approvals,
) -> Option<Tally> {
    let question = cancel_question(cancel, headers)?;
    let Header { policy, stakeholders, .. } = question.header;
    Some(tally(&policy.cancel, stakeholders, &made(&question, approvals)))
}

fn cancel_question<'a>(
    cancel: &Signed<Cancel>,
    headers: &'a [Signed<Header>],
) -> Option<Question<'a>> {
    let header = &version_of(headers, cancel.body.version)?.body;
    let is_of_it = cancel.body.network == header.network && cancel.body.contract == header.contract;
    is_of_it.then(|| Question {
        header,
        version: header.version,
        subject: cancel.id,
        action: Action::Cancel,
        until: cancel.body.issued.plus(CANCEL_OPEN_S),
    })
}

fn version_of(headers: &[Signed<Header>], version: u64) -> Option<&Signed<Header>> {
    headers.get(usize::try_from(version.checked_sub(1)?).ok()?)
}

/// The decisions that count on a question.
fn made(question: &Question<'_>, approvals: &Approvals) -> BTreeMap<IdentityId, Decision> {
    let decided = |(identity, (_, approval)): (_, &(_, Approval))| (identity, approval.decision);
    standing(question, approvals).into_iter().map(decided).collect()
}

/// Of each stakeholder who has decided, the decision that stands.
fn standing<'a>(
    question: &Question<'_>,
    approvals: &'a Approvals,
) -> BTreeMap<IdentityId, &'a (StatementId, Approval)> {
    let mut latest: BTreeMap<IdentityId, &(StatementId, Approval)> = BTreeMap::new();
    let on_it = approvals.get(&question.subject).into_iter().flatten();
    for one in on_it.filter(|(_, approval)| question.asks(approval)) {
        let rank = |one: &(_, Approval)| (one.1.issued, one.1.decision);
        let standing = latest.entry(one.1.signer).or_insert(one);
        if rank(standing) < rank(one) {
            *standing = one;
        }
    }
    latest
}

/// The question whether version `subject` is agreed on, put to the stakeholders of `judge`.
fn question<'a>(judge: &'a Signed<Header>, subject: &Signed<Header>) -> Question<'a> {
    Question {
        header: &judge.body,
        version: subject.body.version,
        subject: subject.id,
        action: if subject.body.version == 1 { Action::Create } else { Action::Update },
        until: subject.body.approve_by,
    }
}

/// The rule of a policy for an action.
pub fn rule(header: &Header, action: Action) -> &Rule {
    match action {
        Action::Create => &header.policy.create,
        Action::Update => &header.policy.update,
        Action::Cancel => &header.policy.cancel,
    }
}

fn readable<T: Statement>(envelopes: &[Envelope]) -> Vec<Signed<T>> {
    envelopes.iter().filter_map(|envelope| Signed::open(envelope).ok()).collect()
}

/// `None` when its bytes cannot be had.
fn open(deployment: &Deployment, headers: &[Signed<Header>]) -> Option<Opened> {
    let bytes = deployment.bytes()?;
    let leaf = merkle::leaf(&bytes);
    let proves = |header: &&Signed<Header>| {
        let root = &header.body.deployments;
        merkle::proves(&leaf, &deployment.path, root.count, &root.root.0)
    };
    let versions = headers.iter().filter(proves).map(|header| header.body.version).collect();
    Some(Opened { versions, id: DocumentId::of(&bytes), document: read_document(&bytes) })
}

fn read_document(bytes: &[u8]) -> Result<Document, Refusal> {
    let document: Document = match strict::read(bytes, DOCUMENT_BYTES_MAX) {
        Ok(document) => document,
        Err(error) => return refuse(Code::Malformed, chain(&error)),
    };
    match document.check() {
        Ok(()) => Ok(document),
        Err(rule) => refuse(Code::Malformed, format!("the deployment document: {rule}")),
    }
}

/// Versions count from 1 without gaps; contract, network, owner and nonce never change; each names
/// the one before.
fn check_chain(headers: &[Signed<Header>]) -> Result<(), Refusal> {
    let Some(first) = headers.first() else {
        return refuse(Code::BrokenChain, "the bundle holds no version");
    };
    for (index, header) in headers.iter().enumerate() {
        let same = header.body.contract == first.body.contract
            && header.body.network == first.body.network
            && header.body.owner == first.body.owner;
        let prev = index.checked_sub(1).map(|before| headers[before].id);
        if !same || header.body.version != index as u64 + 1 || header.body.prev != prev {
            let message = format!("version {} does not follow from those before it", index + 1);
            return refuse(Code::BrokenChain, message);
        }
    }
    Ok(())
}
