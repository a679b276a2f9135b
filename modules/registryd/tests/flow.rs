//! The way of a contract through the registry: from identities to a verdict, and back as results.

#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, agree, database, judge, prepare, propose, seal, world};
use contract::{Verdict, decision::Decision, header::Role, report::State};
use registry_api::{
    Fetched,
    client::{ContractFilter, ResultFilter},
    view::{ContractState, DECISIONS_MAX, Decisions, Inbox},
};
use registryd::{
    db::{self, Fault},
    store,
};

#[tokio::test]
async fn an_approved_contract_reaches_its_node_and_may_run() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let header = propose(&world, client).await;

    let judge = async || {
        let fetched = client.bundle_for(&world.contract(), &world.node_id(), None).await.unwrap();
        let Fetched::New { body, .. } = fetched else { panic!("nothing was known before") };
        judge(&world, &body)
    };
    let Verdict::Refuse(refusal) = judge().await else { panic!("nobody has approved") };
    assert_eq!(refusal.code.name(), "quorum_missing");
    client.push(&world.approve("it", &header)).await.unwrap();
    assert!(matches!(judge().await, Verdict::Refuse(_)));
    client.push(&world.approve("legal", &header)).await.unwrap();
    let verdict = judge().await;
    let Verdict::Run(agreed) = verdict else { panic!("{verdict:?}") };
    assert_eq!(agreed.document.node, world.node_id());

    // A cancel with quorum ends it.
    let cancel = seal(&world.cancel(), world.key("owner"));
    client.push(&cancel).await.unwrap();
    assert!(matches!(judge().await, Verdict::Run(_)));
    for name in ["it", "legal"] {
        let mut approval = world.decision(name, &header, Decision::Approve);
        approval.action = contract::decision::Action::Cancel;
        approval.subject = cancel.id().unwrap();
        client.push(&seal(&approval, world.key(name))).await.unwrap();
    }
    assert!(matches!(judge().await, Verdict::Stop(_)));
}

#[tokio::test]
async fn every_decision_is_told_in_the_order_of_arrival_and_a_bundle_has_what_stands() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let header = propose(&world, client).await;
    let contract = world.contract();
    let told = async |after| client.approvals(&contract, after).await.unwrap();
    assert_eq!(told(0).await, Decisions::default(), "nobody has decided");

    let decide = |what, offset| world.decide("it", &header, what, offset);
    let made =
        [decide(Decision::Withdraw, 2), decide(Decision::Approve, 1), decide(Decision::Reject, 3)];
    for decision in &made {
        client.push(decision).await.unwrap();
    }
    let all = told(0).await;
    assert_eq!(all.approvals, made);
    assert_eq!(client.bundle(&contract).await.unwrap().approvals, made[2..]);
    let last = Decisions { approvals: vec![], next: all.next };
    assert_eq!(told(all.next).await, last, "nothing follows");

    // More than one answer holds.
    let more: Vec<_> = (4..4 + 256).map(|offset| decide(Decision::Approve, offset)).collect();
    for decision in &more {
        client.push(decision).await.unwrap();
    }
    let first = told(all.next - 1).await;
    assert_eq!(first.approvals.len(), DECISIONS_MAX);
    assert_eq!(told(first.next).await.approvals, more[255..]);
}

#[tokio::test]
async fn tags_change_exactly_when_the_content_does() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let header = propose(&world, client).await;
    let node = world.node_id();

    let Fetched::New { body, etag } = client.inbox(&node, None).await.unwrap() else { panic!() };
    assert!(body.adopted);
    assert_eq!(body.contracts[0].contract, world.contract());
    let bundle_tag = body.contracts[0].etag.clone();
    assert_eq!(client.inbox(&node, Some(&etag)).await.unwrap(), Fetched::Same);
    let same = client.bundle_for(&world.contract(), &node, Some(&bundle_tag)).await.unwrap();
    assert_eq!(same, Fetched::Same);

    client.push(&world.approve("it", &header)).await.unwrap();
    let Fetched::New { body, .. } = client.inbox(&node, Some(&etag)).await.unwrap() else {
        panic!("an approval came")
    };
    let fetched = client.bundle_for(&world.contract(), &node, Some(&bundle_tag)).await.unwrap();
    let Fetched::New { etag, .. } = fetched else { panic!("an approval came") };
    assert_eq!(etag, body.contracts[0].etag);
}

#[tokio::test]
async fn results_are_stored_once_and_contradictions_are_kept_apart() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    agree(&world, client).await;

    let first = seal(&world.report(1, None, State::Accepted), &world.node_key);
    let second = world.report(2, Some(first.id().unwrap()), State::Running);
    let second = seal(&second, &world.node_key);
    let forged = seal(&world.report(3, first.id().ok(), State::Running), &world.token);
    let batch = [first.clone(), second.clone(), forged];
    let answer = client.push_results(&batch).await.unwrap();
    assert_eq!(answer.accepted, [1, 2]);
    assert_eq!(answer.refused.len(), 1);
    assert_eq!((answer.refused[0].index, answer.refused[0].code.as_str()), (2, "bad_signature"));

    let again = client.push_results(&[first.clone(), second]).await.unwrap();
    assert_eq!(again.accepted, [1, 2]);
    assert!(again.refused.is_empty());

    let other = world.report(2, Some(first.id().unwrap()), State::Failed);
    let answer = client.push_results(&[seal(&other, &world.node_key)]).await.unwrap();
    assert!(answer.accepted.is_empty());
    assert_eq!(answer.refused[0].code, "conflict");
    assert_eq!(answer.refused[0].seq, Some(2));
}

/// A text of PostgreSQL has none. One that was taken once counts for ever.
#[tokio::test]
async fn a_name_with_a_zero_byte_is_refused_and_keeps_no_registry_from_its_start() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let good = seal(&world.report(1, None, State::Running), &world.node_key);
    let mut odd = world.report(2, good.id().ok(), State::Running);
    odd.workload = Some("a\0b".into());
    let odd = seal(&odd, &world.node_key);
    let refused = client.push(&odd).await.unwrap_err();
    assert_eq!(refused.code().unwrap(), "malformed");
    let answer = client.push_results(&[odd.clone(), good]).await.unwrap();
    assert_eq!(answer.accepted, [1]);
    assert_eq!(answer.refused.len(), 1);
    assert_eq!((answer.refused[0].index, answer.refused[0].code.as_str()), (0, "malformed"));
    registry.server.stop().await.unwrap();
    if database::in_postgres() {
        // It never took one.
        return;
    }
    let db = database::open(data.path());
    let take = || -> Result<(), Fault> {
        let (kind, id) = (odd.kind().unwrap(), odd.id().unwrap());
        store::insert(&db, kind, &id, &odd.payload_bytes().unwrap(), 0)?;
        store::insert_signatures(&db, &id, &odd.signatures)?;
        store::complete(&db, &id, 0).map(drop)
    };
    take().map_err(Fault::into_error).unwrap();
    let sql = "SELECT COUNT(*) FROM results";
    let count = || db.query_one(sql, &[], |row| row.get::<i64>(0)).unwrap();
    assert_eq!(count(), 1);
    db::rebuild(&db).unwrap();
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn a_heartbeat_is_answered_with_an_interval_and_never_goes_back() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let send = async |boot: &str, seq, offset, key: &contract::SigningKey| {
        let beat = seal(&world.heartbeat(boot, seq, offset), key);
        client.heartbeat(&beat).await.map_err(|error| error.code().unwrap().to_owned())
    };
    assert!(send("b1", 2, 0, &world.node_key).await.unwrap().interval_s > 0);
    assert!(send("b1", 2, 0, &world.node_key).await.is_ok(), "the same again");
    assert_eq!(send("b1", 1, 0, &world.node_key).await.unwrap_err(), "stale");
    assert_eq!(send("b0", 9, -50, &world.node_key).await.unwrap_err(), "stale");
    assert!(send("b2", 1, 50, &world.node_key).await.is_ok(), "a new boot");
    let as_statement = seal(&world.heartbeat("b2", 5, 55), &world.node_key);
    assert!(client.push(&as_statement).await.unwrap().new);
    assert_eq!(send("b2", 4, 54, &world.node_key).await.unwrap_err(), "stale");
    assert_eq!(client.node(&world.node_id()).await.unwrap().uptime_s, Some(60));
    assert_eq!(send("b2", 6, 60, &world.token).await.unwrap_err(), "bad_signature");
}

#[tokio::test]
async fn a_contract_tells_where_it_stands_and_who_has_to_sign() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let header = propose(&world, client).await;
    let view = async || client.contract(&world.contract()).await.unwrap();
    let waits = async |name| {
        let filter = ContractFilter { signer: Some(world.id(name)), ..Default::default() };
        !client.contracts(&filter).await.unwrap().contracts.is_empty()
    };

    let proposed = view().await.summary;
    assert_eq!(proposed.state, ContractState::Proposed);
    let mut roles: Vec<_> = proposed.awaited.iter().map(|one| one.role).collect();
    roles.sort();
    assert_eq!(roles, [Role::Budget, Role::It, Role::Legal]);
    assert!(waits("it").await && waits("budget").await && !waits("stranger").await);

    client.push(&world.approve("it", &header)).await.unwrap();
    assert!(!waits("it").await && waits("legal").await);
    client.push(&world.approve("legal", &header)).await.unwrap();
    let agreed = view().await;
    assert_eq!(agreed.summary.state, ContractState::Agreed);
    assert!(agreed.summary.awaited.is_empty() && !waits("legal").await);
    assert_eq!(agreed.deployments[0].workloads[0].name, "web");

    let mut prev = None;
    for (seq, state, expected) in [
        (1, State::Accepted, ContractState::Deploying),
        (2, State::Running, ContractState::Running),
        (3, State::Failed, ContractState::Degraded),
        (4, State::Running, ContractState::Running),
    ] {
        let report = seal(&world.report(seq, prev, state), &world.node_key);
        prev = report.id().ok();
        client.push_results(&[report]).await.unwrap();
        let summary = view().await.summary;
        assert_eq!(summary.state, expected, "{:?}", summary.reasons);
    }
    let filter = ContractFilter { state: Some(ContractState::Running), ..Default::default() };
    assert_eq!(client.contracts(&filter).await.unwrap().contracts.len(), 1);
    let filter = ContractFilter { owner: Some(world.id("it")), ..Default::default() };
    assert!(client.contracts(&filter).await.unwrap().contracts.is_empty());

    let results = client.results(&ResultFilter::default()).await.unwrap();
    let seqs: Vec<_> = results.results.iter().map(|one| one.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    let later = ResultFilter {
        contract: Some(world.contract()),
        node: Some(world.node_id()),
        after: results.results[2].arrival,
    };
    assert_eq!(client.results(&later).await.unwrap().results.len(), 1);
}

#[tokio::test]
async fn a_rejection_is_told_and_ends_the_wait() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let header = propose(&world, client).await;
    let reject = world.decision("legal", &header, Decision::Reject);
    client.push(&seal(&reject, world.key("legal"))).await.unwrap();
    let summary = client.contract(&world.contract()).await.unwrap().summary;
    assert_eq!(summary.state, ContractState::Rejected);
    assert!(summary.awaited.is_empty());
    assert!(summary.reasons[0].starts_with("rejected by"));
}

#[tokio::test]
async fn a_node_shows_what_it_is_and_whether_it_lives() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let node = client.node(&world.node_id()).await.unwrap();
    assert!(node.adopted && !node.online && node.free.is_none());
    assert_eq!(node.hardware.disks[0].state, "foreign");
    assert_eq!(node.degraded.len(), 1);
    let beat = seal(&world.heartbeat("b1", 1, 0), &world.node_key);
    client.heartbeat(&beat).await.unwrap();
    let nodes = client.nodes(Some(&world.id("farm"))).await.unwrap().nodes;
    assert!(nodes[0].online);
    assert_eq!(nodes[0].free.unwrap().cru_milli, 3500);
    let farm = client.farm(&world.id("farm")).await.unwrap();
    assert_eq!((farm.nodes, farm.online, farm.waiting), (1, 1, 0));
    assert!(client.nodes(Some(&world.id("it"))).await.unwrap().nodes.is_empty());
}

#[tokio::test]
async fn a_node_without_consent_gets_nothing() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    for name in world.keys.keys() {
        client.push(&world.identity(name)).await.unwrap();
    }
    client.push(&seal(&world.node(1), &world.node_key)).await.unwrap();
    propose(&world, client).await;
    let inbox = async || {
        let fetched = client.inbox(&world.node_id(), None).await.unwrap();
        let Fetched::New { body, .. } = fetched else { panic!() };
        body
    };
    let nothing = |adopted| Inbox { adopted, contracts: vec![], oversize: vec![], scrub: None };
    assert_eq!(inbox().await, nothing(false));
    client.push(&seal(&world.farm(1), world.key("farm"))).await.unwrap();
    client.push(&seal(&world.adoption(), world.key("farm"))).await.unwrap();
    // Anybody can write a contract for any node.
    assert_eq!(inbox().await, nothing(true));
    client.push(&seal(&world.pool(), world.key("farm"))).await.unwrap();
    assert_eq!(inbox().await.contracts.len(), 1);
}
