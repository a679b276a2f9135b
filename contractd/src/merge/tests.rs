//! What a registry can and cannot do to what a node has seen.

use super::*;
use contract::{
    FlistId, IdentityId, SigningKey, Timestamp,
    bundle::Deployment,
    decision::{Action, Decision},
    header::{
        Deployments, Execution, Flist, Nonce, OnPartition, Policy, Role, Rule, Stakeholder,
        contract_id,
    },
    merkle,
    strict::Extensions,
};

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds)
}

fn identity(n: u8) -> Envelope {
    let key = key(n);
    let body = Identity {
        network: "test".into(),
        version: 1,
        prev: None,
        name: format!("P{n}"),
        keys: vec![key.public()],
        threshold: 1,
    };
    Envelope::seal(&body, &[&key]).unwrap()
}

fn id(n: u8) -> IdentityId {
    IdentityId(identity(n).id().unwrap().0)
}

/// A version owned by person 1, decided on by person 2.
fn header(version: u64, prev: Option<StatementId>, title: &str) -> Envelope {
    let nonce = Nonce("00".repeat(16));
    let rule = Rule { required: vec![id(2)], roles: vec![], min_weight: 1, veto_roles: vec![] };
    let body = Header {
        network: "test".into(),
        contract: contract_id(&id(1), &nonce),
        nonce,
        version,
        prev,
        owner: id(1),
        title: title.into(),
        purpose: String::new(),
        policy: Policy { create: rule.clone(), update: rule.clone(), cancel: rule },
        stakeholders: vec![Stakeholder { identity: id(2), role: Role::It, weight: 1 }],
        approve_by: at(100),
        not_before: at(0),
        start_by: at(100),
        expires: at(1000),
        pool: StatementId([0; 32]),
        flists: vec![Flist {
            name: "web".into(),
            digest: FlistId([0; 32]),
            bytes: 1,
            urls: vec!["http://a".into()],
            publisher: None,
        }],
        deployments: Deployments { count: 1, root: StatementId(merkle::leaf(b"document")) },
        execution: Execution { on_partition: OnPartition::Keep },
        extensions: Extensions::default(),
    };
    Envelope::seal(&body, &[&key(1)]).unwrap()
}

fn approval(of: &Envelope, signer: u8) -> Envelope {
    decision(of, signer, Decision::Approve, 1)
}

fn decision(of: &Envelope, signer: u8, decision: Decision, seconds: i64) -> Envelope {
    let signed = Signed::<Header>::open(of).unwrap();
    let body = Approval {
        network: "test".into(),
        contract: signed.body.contract,
        version: signed.body.version,
        subject: signed.id,
        action: if signed.body.version == 1 { Action::Create } else { Action::Update },
        decision,
        signer: id(signer),
        issued: at(seconds),
        comment: String::new(),
    };
    Envelope::seal(&body, &[&key(signer)]).unwrap()
}

fn bundle() -> Bundle {
    let first = header(1, None, "one");
    Bundle {
        approvals: vec![approval(&first, 2)],
        headers: vec![first],
        cancels: vec![],
        identities: vec![identity(1), identity(2)],
        pools: vec![],
        documents: vec![Deployment::new(b"document", merkle::Path { index: 0, siblings: vec![] })],
    }
}

/// As on a node on which no version was ever in force.
fn merge(known: &Bundle, offered: &Bundle) -> Bundle {
    merge_after(known, offered, 0)
}

fn merge_after(known: &Bundle, offered: &Bundle, settled: u64) -> Bundle {
    (*super::merge(&Evidence::of(known.clone()), offered, settled)).clone()
}

fn in_force(bundle: &Bundle) -> u64 {
    Evidence::of(bundle.clone()).in_force()
}

#[test]
fn a_sound_bundle_is_taken_whole() {
    assert_eq!(merge(&empty(), &bundle()), bundle());
}

#[test]
fn less_or_nothing_takes_nothing_away() {
    let known = bundle();
    assert_eq!(merge(&known, &empty()), known);
    for cut in 0..4 {
        let mut less = bundle();
        match cut {
            0 => less.approvals.clear(),
            1 => less.identities.clear(),
            2 => less.documents.clear(),
            _ => less.headers.clear(),
        }
        assert_eq!(merge(&known, &less), known);
    }
}

#[test]
fn a_later_version_is_added_and_an_earlier_one_never_replaced() {
    let known = bundle();
    let mut newer = bundle();
    newer.headers.push(header(2, Some(known.headers[0].id().unwrap()), "two"));
    let merged = merge(&known, &newer);
    assert_eq!(merged.headers.len(), 2);
    // Going back is not possible.
    assert_eq!(merge(&merged, &known), merged);
    // Nor is another form of a version in force, even with the owner's signature.
    let mut other = bundle();
    other.headers = vec![header(1, None, "another")];
    assert_eq!(merge(&merged, &other), merged);
}

#[test]
fn a_proposal_that_nobody_agreed_on_gives_way_to_another() {
    let known = bundle();
    let prev = Some(known.headers[0].id().unwrap());
    let (first, second) = (header(2, prev, "two"), header(2, prev, "two again"));
    let mut offered = bundle();
    offered.headers.push(first);
    let merged = merge(&known, &offered);
    offered.headers[1] = second.clone();
    assert_eq!(merge(&merged, &offered).headers[1], second);
    // Once agreed on, it stays.
    offered.approvals.push(approval(&second, 2));
    let agreed = merge(&merged, &offered);
    offered.headers[1] = header(2, prev, "two once more");
    assert_eq!(merge(&agreed, &offered).headers[1], second);
}

/// Otherwise the owner and one stakeholder together could put another contract in the place of the one
/// that everybody had agreed on, and have its data.
#[test]
fn a_version_that_was_in_force_and_is_rejected_since_is_not_replaced() {
    let mut known = bundle();
    let against = decision(&known.headers[0], 2, Decision::Reject, 2);
    known = merge(&known, &Bundle { approvals: vec![against], ..bundle() });
    assert_eq!(in_force(&known), 0, "it is rejected");
    let other = Bundle { headers: vec![header(1, None, "another")], ..bundle() };
    assert_eq!(merge(&known, &other).headers, other.headers, "it never was in force");
    assert_eq!(merge_after(&known, &other, 1), known);
}

#[test]
fn what_is_not_signed_by_whom_it_must_be_is_left_out() {
    let mut offered = bundle();
    offered.headers[0].signatures.clear();
    assert!(merge(&empty(), &offered).headers.is_empty());

    let mut offered = bundle();
    let mut forged = approval(&offered.headers[0], 2);
    forged.signatures.clear();
    forged.sign(&key(3)).unwrap();
    offered.approvals = vec![forged];
    let merged = merge(&empty(), &offered);
    assert_eq!((merged.headers.len(), merged.approvals.len()), (1, 0));
}

#[test]
fn rubbish_and_what_belongs_elsewhere_is_left_out() {
    let known = bundle();
    let mut offered = bundle();
    let rubbish = Envelope { payload_type: "x".into(), payload: "eA==".into(), signatures: vec![] };
    offered.headers.insert(0, rubbish.clone());
    offered.approvals.push(rubbish.clone());
    offered.cancels.push(rubbish.clone());
    offered.identities.push(rubbish.clone());
    offered.pools.push(rubbish);
    let path = merkle::Path { index: 0, siblings: vec![] };
    offered.documents.push(Deployment::new(b"another document", path));
    assert_eq!(merge(&known, &offered), known);
}

#[test]
fn merging_twice_changes_nothing() {
    let once = merge(&empty(), &bundle());
    assert_eq!(merge(&once, &bundle()), once);
}

#[test]
fn a_pool_counts_only_with_its_farms_signature() {
    let pool = Pool {
        network: "test".into(),
        farm: id(4),
        owner: id(1),
        nodes: vec![NodeId([7; 32])],
        amounts: contract::capacity::Amounts::default(),
        expires: at(1000),
        serial: 1,
    };
    let signed = Envelope::seal(&pool, &[&key(4)]).unwrap();
    let mut header = Signed::<Header>::open(&header(1, None, "one")).unwrap().body;
    header.pool = signed.id().unwrap();
    let mut offered = bundle();
    offered.headers = vec![Envelope::seal(&header, &[&key(1)]).unwrap()];
    offered.identities.push(identity(4));
    offered.pools = vec![Envelope { signatures: vec![], ..signed.clone() }];
    let poisoned = merge(&empty(), &offered);
    assert!(poisoned.pools.is_empty());
    // The unsigned one does not stand in the way of the signed one.
    offered.pools = vec![signed.clone()];
    assert_eq!(merge(&poisoned, &offered).pools, [signed]);
}

#[test]
fn strangers_do_not_fill_the_bundle() {
    let mut offered = bundle();
    offered.identities.push(identity(9));
    offered.approvals.push(approval(&offered.headers[0], 9));
    assert_eq!(merge(&empty(), &offered), bundle());
}

fn granted_bundle() -> (Bundle, ContractId) {
    let pool = Pool {
        network: "test".into(),
        farm: id(4),
        owner: id(1),
        nodes: vec![NodeId([7; 32])],
        amounts: contract::capacity::Amounts::default(),
        expires: at(1000),
        serial: 1,
    };
    let signed = Envelope::seal(&pool, &[&key(4)]).unwrap();
    let mut header = Signed::<Header>::open(&header(1, None, "one")).unwrap().body;
    header.pool = signed.id().unwrap();
    let mut offered = bundle();
    offered.headers = vec![Envelope::seal(&header, &[&key(1)]).unwrap()];
    offered.identities.push(identity(4));
    offered.pools = vec![signed];
    (offered, header.contract)
}

/// A registry invented contracts with pools that said the farm's name, and the node looked at every
/// signature in them and kept them.
#[test]
fn a_grant_is_this_farms_signed_word_about_this_node_and_this_contract() {
    let (offered, contract) = granted_bundle();
    let node = NodeId([7; 32]);
    assert!(is_granted(&offered, contract, id(4), node));
    assert_eq!(merge(&empty(), &offered), offered);

    let check = |why: &str, bundle: &Bundle, contract: ContractId, farm: u8, node: NodeId| {
        assert!(!is_granted(bundle, contract, id(farm), node), "{why}");
    };
    check("another farm", &offered, contract, 5, node);
    check("another node", &offered, contract, 4, NodeId([8; 32]));
    check("another contract", &offered, ContractId([1; 32]), 4, node);
    let mut less = offered.clone();
    less.pools[0].signatures.clear();
    check("a pool that nobody signed", &less, contract, 4, node);
    let mut other = offered.clone();
    other.headers = bundle().headers;
    check("a pool that the contract does not name", &other, contract, 4, node);
    let mut nobody = offered;
    nobody.identities.retain(|one| *one != identity(4));
    check("a farm that is not there", &nobody, contract, 4, node);
}

/// Thousands of identities with sixteen keys each kept the node busy for as long as the registry liked.
#[test]
fn forged_statements_are_looked_at_up_to_a_bound() {
    let sound = bundle();
    let mut forged = approval(&sound.headers[0], 2);
    forged.signatures.clear();
    let looked_at = std::cell::Cell::new(0);
    let look = |offered: &[Envelope]| {
        looked_at.set(0);
        let mut known = Vec::new();
        add(&mut known, offered, STATEMENTS_MAX, |one| {
            looked_at.set(looked_at.get() + 1);
            Some(!one.signatures.is_empty())
        });
        known.len()
    };
    let mut offered = vec![forged; 1000];
    offered.push(sound.approvals[0].clone());
    assert_eq!((look(&offered), looked_at.get()), (0, FORGED_MAX + 1));
    // As many as are borne do not hide what is sound.
    let few = &offered[1000 - FORGED_MAX..];
    assert_eq!((look(few), looked_at.get()), (1, FORGED_MAX + 1));
}

fn decided(of: &Envelope, signer: u8, decision: Decision, seconds: i64, comment: &str) -> Envelope {
    let body = Signed::<Approval>::open(&approval(of, signer)).unwrap().body;
    let body = Approval { decision, issued: at(seconds), comment: comment.into(), ..body };
    Envelope::seal(&body, &[&key(signer)]).unwrap()
}

#[test]
fn of_decisions_that_are_repeated_one_stays() {
    let first = header(1, None, "one");
    let mut known = bundle();
    for n in 2..40 {
        let mut offered = bundle();
        let padded = "x".repeat(4000);
        offered.approvals = vec![decided(&first, 2, Decision::Approve, n, &padded)];
        known = merge(&known, &offered);
        assert_eq!(known.approvals, offered.approvals);
    }
    // An older one, and the same again in other words, change nothing.
    let mut offered = bundle();
    offered.approvals.push(decided(&first, 2, Decision::Approve, 39, "again"));
    assert_eq!(merge(&known, &offered), known);
    // Of the same second, the stronger stands; too late is too late.
    offered.approvals = vec![decided(&first, 2, Decision::Reject, 39, "")];
    let rejected = merge(&known, &offered);
    assert_eq!(rejected.approvals, offered.approvals);
    offered.approvals = vec![decided(&first, 2, Decision::Approve, 101, "")];
    assert_eq!(merge(&rejected, &offered), rejected);
}

#[test]
fn decisions_on_what_the_node_does_not_have_do_not_fill_the_bundle() {
    let prev = bundle().headers[0].id().ok();
    let stray = |n: i64| {
        let title = format!("proposal {n}");
        decided(&header(2, prev, &title), 2, Decision::Approve, n % 50, "")
    };
    let mut offered = bundle();
    offered.approvals.extend((0..40).map(stray));
    let reject = decided(&header(2, prev, "bad"), 2, Decision::Reject, 0, "");
    offered.approvals.push(reject.clone());
    let merged = merge(&empty(), &offered);
    assert_eq!(merged.approvals.len(), 1 + standing::STRAYS_MAX);
    assert!(
        merged.approvals.contains(&reject) && merged.approvals.contains(&bundle().approvals[0])
    );
    assert_eq!(merge(&merged, &offered), merged);
}

#[test]
fn documents_stay_while_their_version_may_be_in_force() {
    let mut known = bundle();
    let first = known.headers[0].clone();
    let mut second = Signed::<Header>::open(&header(2, first.id().ok(), "two")).unwrap().body;
    second.deployments.root = StatementId(merkle::leaf(b"new"));
    let second = Envelope::seal(&second, &[&key(1)]).unwrap();
    let path = merkle::Path { index: 0, siblings: vec![] };
    let new = Deployment::new(b"new", path);
    known.headers.push(second.clone());
    known.documents.push(new.clone());
    let open = merge(&empty(), &known);
    assert_eq!(open.documents.len(), 2, "version 1 is in force");
    known.approvals.push(approval(&second, 2));
    assert_eq!(merge(&open, &known).documents, [new]);
}

#[test]
fn of_many_cancels_the_one_with_quorum_stays() {
    let first = Signed::<Header>::open(&header(1, None, "one")).unwrap();
    let cancel = |n: i64, version: u64| {
        let body = Cancel {
            network: "test".into(),
            contract: first.body.contract,
            version,
            reason: String::new(),
            issued: at(n),
            effective_at: at(500),
            retention: contract::decision::Retention::Wipe,
        };
        Envelope::seal(&body, &[&key(1)]).unwrap()
    };
    let agreed = cancel(0, 1);
    let mut offered = bundle();
    offered.cancels = vec![agreed.clone(), cancel(0, 9)];
    offered.cancels.extend((1..100).map(|n| cancel(n, 1)));
    let without = merge(&empty(), &offered);
    assert_eq!(without.cancels.len(), standing::CANCELS_MAX);
    assert!(!without.cancels.contains(&agreed), "nobody has agreed to it");
    let about = Signed::<Approval>::open(&bundle().approvals[0]).unwrap().body;
    let yes = Approval { subject: agreed.id().unwrap(), action: Action::Cancel, ..about };
    offered.approvals.push(Envelope::seal(&yes, &[&key(2)]).unwrap());
    let merged = merge(&without, &offered);
    assert!(merged.cancels.contains(&agreed));
    assert_eq!((merged.cancels.len(), merged.approvals.len()), (standing::CANCELS_MAX, 2));
    assert_eq!(merge(&merged, &offered), merged);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]

    /// Held against a bundle that keeps everything.
    #[test]
    fn what_is_left_out_changes_no_verdict(
        said in proptest::collection::vec((0..2_usize, 0..3_usize, 0..6_i64), 1..12),
    ) {
        let mut all = bundle();
        all.headers.push(header(2, all.headers[0].id().ok(), "two"));
        let mut known = merge(&empty(), &all);
        for (subject, decision, time) in said {
            let decision =
                [Decision::Approve, Decision::Withdraw, Decision::Reject][decision];
            // The last is too late.
            let one = decided(&all.headers[subject], 2, decision, time * 20 + 1, "");
            let offered = Bundle { approvals: vec![one.clone()], ..all.clone() };
            known = merge(&known, &offered);
            all.approvals.push(one);
            proptest::prop_assert_eq!(in_force(&known), in_force(&all));
            proptest::prop_assert!(known.approvals.len() <= 2);
        }
    }
}
