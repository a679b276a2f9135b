//! Farm, token, pool, contract, approvals and results through a real registry on loopback; the
//! verdict at the end is the node's own rule, computed here.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{FakeNode, World, capacity, decide, grant, now, plan, propose, source};
use contract::{
    Trust, Verdict,
    capacity::Amounts,
    decision::{Decision, Retention},
    report::State,
    verdict,
};
use registry_api::{Fetched, view::ContractState};

use threebot::{
    BotError, content, customer,
    diff::Line,
    farmer,
    plan::world::Severity,
    results::{Chained, results},
    stakeholder::{self, Matter},
    status::status,
};

async fn judge(world: &World, contract: contract::ContractId, node: &FakeNode) -> Verdict {
    let found = world.grid.client.bundle_for(&contract, &node.id(), None).await.unwrap();
    let Fetched::New { body, .. } = found else { panic!("nothing was known before") };
    let trust = Trust {
        network: common::NETWORK.into(),
        farm: world.actor("farmer").id(),
        node: node.id(),
        free: capacity(),
        past: contract::Past::default(),
    };
    verdict(&body, &trust, now())
}

#[tokio::test]
async fn a_contract_runs_once_everybody_has_approved() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let dir = world.flist();
    assert_eq!(content::push_directory(&world.grid, &dir).await.unwrap(), 2);
    assert_eq!(content::push_directory(&world.grid, &dir).await.unwrap(), 0, "all is there");
    let pool = grant(&world, &node).await;
    let text = source(&pool, &node.id(), &dir, "");
    let contract = propose(&world, &text, None).await;

    let people = world.people();
    let proposed = status(&world.grid, &contract, &people, now()).await.unwrap();
    assert_eq!(proposed.state, ContractState::Proposed);
    assert_eq!(proposed.stakeholders.iter().filter(|holder| holder.awaited).count(), 3);

    for name in ["it", "legal", "budget"] {
        let Verdict::Refuse(refusal) = judge(&world, contract, &node).await else {
            panic!("it must not run before {name} has approved")
        };
        assert_eq!(refusal.code, verdict::Code::QuorumMissing);
        let review = decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
        assert_eq!(review.since, None, "{name} reads everything at first");
        assert!(review.text.iter().any(|line| line.contains("tcp port 8080")));
    }
    let Verdict::Run(agreed) = judge(&world, contract, &node).await else {
        panic!("everybody has approved")
    };
    assert_eq!(agreed.document.workloads.len(), 2);

    let state = async || status(&world.grid, &contract, &people, now()).await.unwrap().state;
    assert_eq!(state().await, ContractState::Agreed);
    node.report(&world.grid, contract, 1, None, State::Accepted).await;
    assert_eq!(state().await, ContractState::Deploying);
    node.report(&world.grid, contract, 1, Some("data"), State::Running).await;
    node.report(&world.grid, contract, 1, Some("web"), State::Failed).await;
    assert_eq!(state().await, ContractState::Degraded);
    node.report(&world.grid, contract, 1, Some("web"), State::Running).await;
    assert_eq!(state().await, ContractState::Running);

    let running = status(&world.grid, &contract, &people, now()).await.unwrap();
    let told = running.nodes[0].workloads[1].last.as_ref().unwrap();
    assert_eq!((told.seq, told.chained), (4, Chained::Yes));
    let (all, unproven) = results(&world.grid, &contract).await.unwrap();
    assert_eq!((all.len(), unproven), (4, 0));
    assert!(all.iter().all(|one| one.chained == Chained::Yes), "{all:?}");
}

#[tokio::test]
async fn an_update_shows_each_stakeholder_what_changed_since_their_approval() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let dir = world.flist();
    content::push_directory(&world.grid, &dir).await.unwrap();
    let pool = grant(&world, &node).await;
    let contract = propose(&world, &source(&pool, &node.id(), &dir, ""), None).await;
    let early = plan(&world, &source(&pool, &node.id(), &dir, ""), Some(contract)).await;
    assert!(early.unwrap_err().to_string().contains("agreed"), "version 1 is still open");
    for name in ["it", "legal", "budget"] {
        decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
    }

    let changed = source(&pool, &node.id(), &dir, "pids = 99");
    let changed = changed.replace("8080:80/tcp", "8081:80/tcp");
    let again = propose(&world, &changed, Some(contract)).await;
    assert_eq!(again, contract);
    let Verdict::Run(agreed) = judge(&world, contract, &node).await else { panic!() };
    assert_eq!(agreed.header.version, 1, "until it is agreed on, the old version runs");

    let review = decide(&world, "it", contract, Matter::Newest, Decision::Approve).await;
    assert_eq!(review.version, 2);
    let (since, lines) = review.since.unwrap();
    assert_eq!(since, 1);
    let has = |wanted: &str, added: bool| {
        lines.iter().any(|line| match line {
            Line::Added(text) => added && text.contains(wanted),
            Line::Removed(text) => !added && text.contains(wanted),
            Line::Same(_) => false,
        })
    };
    assert!(has("port 8080", false) && has("port 8081", true) && has("99 processes", true));
    assert!(!has("title", true) && !has("volume data: 1 GiB", true));

    for name in ["legal", "budget"] {
        decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
    }
    let Verdict::Run(agreed) = judge(&world, contract, &node).await else { panic!() };
    assert_eq!(agreed.header.version, 2);
}

#[tokio::test]
async fn a_rejected_contract_never_runs_and_a_withdrawn_reject_lets_it() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let dir = world.flist();
    content::push_directory(&world.grid, &dir).await.unwrap();
    let pool = grant(&world, &node).await;
    let contract = propose(&world, &source(&pool, &node.id(), &dir, ""), None).await;
    decide(&world, "legal", contract, Matter::Newest, Decision::Reject).await;
    let people = world.people();
    let found = status(&world.grid, &contract, &people, now()).await.unwrap();
    assert_eq!(found.state, ContractState::Rejected);
    let Verdict::Refuse(refusal) = judge(&world, contract, &node).await else { panic!() };
    assert_eq!(refusal.code, verdict::Code::Rejected);

    decide(&world, "legal", contract, Matter::Newest, Decision::Withdraw).await;
    let found = status(&world.grid, &contract, &people, now()).await.unwrap();
    assert_eq!(found.state, ContractState::Proposed);
    for name in ["it", "legal", "budget"] {
        decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
    }
    assert!(matches!(judge(&world, contract, &node).await, Verdict::Run(_)));

    let stranger = world.actor("stranger").id();
    let review =
        stakeholder::review(&world.grid, &contract, Matter::Newest, &stranger, &people).await;
    assert!(matches!(review, Err(BotError::NotAStakeholder { .. })));
}

#[tokio::test]
async fn a_cancel_with_quorum_ends_the_contract() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let dir = world.flist();
    content::push_directory(&world.grid, &dir).await.unwrap();
    let pool = grant(&world, &node).await;
    let contract = propose(&world, &source(&pool, &node.id(), &dir, ""), None).await;
    for name in ["it", "legal", "budget"] {
        decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
    }
    let ending = customer::Ending {
        reason: "moved".into(),
        effective_at: now(),
        retention: Retention::Wipe,
    };
    let by_another =
        customer::cancel(&world.grid, &world.actor("it"), &contract, &ending, now()).await;
    assert!(matches!(by_another, Err(BotError::NotTheOwner { .. })));
    let order = customer::cancel(&world.grid, &world.actor("owner"), &contract, &ending, now())
        .await
        .unwrap();
    assert!(matches!(judge(&world, contract, &node).await, Verdict::Run(_)), "not approved yet");
    for name in ["it", "legal", "budget"] {
        let review = decide(&world, name, contract, Matter::Cancel(None), Decision::Approve).await;
        assert_eq!(review.subject, order);
        assert!(review.text.iter().any(|line| line.contains("deleted as soon as")));
    }
    let Verdict::Stop(ended) = judge(&world, contract, &node).await else { panic!() };
    let wanted = verdict::Cause::Cancelled { order, retention: Retention::Wipe };
    assert_eq!(ended.cause, wanted);
    let people = world.people();
    let state = async || status(&world.grid, &contract, &people, now()).await.unwrap().state;
    assert_eq!(state().await, ContractState::Cancelled);
    node.report(&world.grid, contract, 1, None, State::Wiped).await;
    assert_eq!(state().await, ContractState::Wiped);
}

#[tokio::test]
async fn a_plan_that_a_node_would_refuse_is_refused_here() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let dir = world.flist();
    let pool = grant(&world, &node).await;
    let text = source(&pool, &node.id(), &dir, "");
    assert_eq!(plan(&world, &text, None).await.unwrap().findings, []);

    let greedy = text.replace("256 MiB", "9 GiB").replace("cpu = 0.5", "cpu = 5");
    let findings = plan(&world, &greedy, None).await.unwrap().findings;
    let texts: Vec<_> = findings.iter().map(|finding| finding.text.as_str()).collect();
    assert!(
        texts.iter().any(|text| text.contains("CPU: 5 cores needed, 4 cores free")),
        "{texts:?}"
    );
    assert!(findings.iter().all(|finding| finding.severity == Severity::Refusal));

    let stranger = FakeNode::new(9, &world.actor("farmer").own.signer);
    stranger.register(&world.grid).await;
    let elsewhere = source(&pool, &stranger.id(), &dir, "");
    let findings = plan(&world, &elsewhere, None).await.unwrap().findings;
    let texts: Vec<_> = findings.iter().map(|finding| finding.text.as_str()).collect();
    assert!(texts.contains(&"the pool does not name this node"), "{texts:?}");
    assert!(texts.contains(&"its farm has not adopted it yet"), "{texts:?}");

    let unadopted = farmer::Grant {
        owner: world.actor("owner").id(),
        nodes: vec![stranger.id()],
        amounts: Amounts::default(),
        expires: now().plus(100),
    };
    let farmer = world.actor("farmer");
    let refused = farmer::grant_pool(&world.grid, &farmer, &unadopted, now()).await.unwrap_err();
    assert!(refused.to_string().contains("3bot farm approve"), "{refused}");
    farmer::approve_node(&world.grid, &farmer, stranger.id(), now()).await.unwrap();
    farmer::grant_pool(&world.grid, &farmer, &unadopted, now()).await.unwrap();
    let other = farmer::approve_node(&world.grid, &world.actor("it"), stranger.id(), now()).await;
    other.expect("an adopted node stays adopted, whoever asks");
}
