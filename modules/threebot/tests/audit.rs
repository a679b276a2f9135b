//! `3bot contract export` and `audit` with a registry: the life of a contract from a file. What is found
//! in one that was made to deceive stands in `audit_attacks.rs`.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{FakeNode, NETWORK, World, bot, decide, grant, propose, source};
use contract::{
    ContractId, Envelope, FlistId, SigningKey,
    decision::Decision,
    report::{Ran, Report, State},
};
use registry_api::client::ResultFilter;
use registryd::{db, transparency};
use std::fs;
use threebot::{
    audit::{Audit, Code, Expected, audit},
    evidence::{Evidence, gather},
    stakeholder::Matter,
};
use tlog::PolicyFile;

const ORIGIN: &str = "registry.example/test";
const NOBODY: &str = "http://127.0.0.1:1";

/// A contract that ran, on a registry with a log.
struct Story {
    world: World,
    node: FakeNode,
    contract: ContractId,
    ran: Ran,
    policy: String,
}

impl Story {
    async fn tell() -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("registry");
        fs::create_dir(&data).unwrap();
        let key = transparency::begin(&db::open(&data).unwrap(), &data, ORIGIN).unwrap();
        let world = World::at(home).await;
        let node = world.farm_with_node().await;
        let dir = world.flist();
        let flist = fs::read_dir(dir.join("flists")).unwrap().next().unwrap().unwrap().file_name();
        let flist: FlistId = flist.to_str().unwrap().parse().unwrap();
        let pool = grant(&world, &node).await;
        let contract = propose(&world, &source(&pool, &node.id(), &dir, ""), None).await;
        for name in ["it", "legal", "budget"] {
            decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
        }
        let ran = Ran { flist, image: FlistId([1; 32]), entrypoint: FlistId([2; 32]), files: 1 };
        let policy = format!("log {key}\nquorum none\n");
        Self { world, node, contract, ran, policy }
    }

    async fn report(&self, workload: Option<&str>, state: State, ran: Option<Ran>) {
        let about = (self.contract, 1, workload);
        self.node.report_run(&self.world.grid, about, state, ran).await;
    }

    /// Started, failed, started again, stopped; with a report about another contract in between.
    async fn run(&self) {
        self.report(None, State::Accepted, None).await;
        self.report(Some("web"), State::Running, Some(self.ran.clone())).await;
        self.report(Some("web"), State::Failed, None).await;
        let other = ContractId([9; 32]);
        self.node.report(&self.world.grid, other, 1, None, State::Refused).await;
        self.report(Some("web"), State::Running, Some(self.ran.clone())).await;
    }

    async fn evidence(&self) -> Evidence {
        gather(&self.world.grid, &self.contract, &|_| ()).await.unwrap()
    }

    fn audit(&self, evidence: &Evidence) -> Audit {
        let policy = PolicyFile::read(self.policy.as_bytes()).unwrap().policy;
        let expected = Expected { contract: self.contract, network: NETWORK, from_first: true };
        audit(evidence, Some(&policy), &expected, &self.world.people()).unwrap()
    }

    fn codes(&self, evidence: &Evidence) -> Vec<Code> {
        let mut codes: Vec<_> =
            self.audit(evidence).findings.into_iter().map(|finding| finding.code).collect();
        codes.dedup();
        codes
    }
}

#[tokio::test]
async fn who_agreed_and_what_ran_is_told_by_a_file_alone() {
    let story = Story::tell().await;
    story.run().await;
    let path = |name: &str| story.world.home.path().join(name).to_str().unwrap().to_owned();
    let (file, policy) = (path("shop.evidence"), path("grid.policy"));
    fs::write(&policy, &story.policy).unwrap();
    let (url, contract) = (story.world.url(), story.contract.to_string());
    let export = ["contract", "export", &contract, "--out", &file];
    let (code, answer, said) = bot(&story.world, &url, &export).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(answer["reports"], 5, "with the one that links the others");

    assert_eq!((&answer["proofs"], &answer["wanted"]), (&8.into(), &8.into()));

    let words = ["contract", "audit", &contract, &file, "--policy", &policy, "--from-first"];
    let (code, found, said) = bot(&story.world, NOBODY, &words).await;
    assert_eq!((code, &found["findings"]), (0, &serde_json::json!([])), "{said}");
    assert_eq!(
        (&found["contract"], &found["network"]),
        (&contract.clone().into(), &NETWORK.into())
    );
    let owner = story.world.actor("owner").id().to_string();
    assert_eq!(found["owner_name"], format!("owner {owner}"), "in full");
    let version = &found["versions"][0];
    assert_eq!(version["agreed"], true);
    let decisions = version["decisions"].as_array().unwrap();
    assert!(decisions.iter().all(|one| one["decision"] == "approve" && one["entry"].is_u64()));
    assert_eq!(decisions.len(), 3);
    let runs = found["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["ran"]["flist"], story.ran.flist.to_string());
    assert!(runs[0]["until"].is_string() && runs[1]["until"].is_null());
    let farm = story.world.actor("farmer").id().to_string();
    let span = serde_json::json!([{
        "node": story.node.id(), "farm": farm, "farm_name": "Cellar", "first": 1, "last": 5
    }]);
    assert_eq!(found["nodes"], span);
    let log = &found["log"];
    assert_eq!(log["proven"], 1 + 3 + 4, "header, approvals, reports");
    assert_eq!((&log["wanted"], &log["origin"]), (&8.into(), &ORIGIN.into()));

    // Without a policy the log is not looked at, and the answer says so.
    let (code, found, _) = bot(&story.world, NOBODY, &words[..4]).await;
    assert_eq!((code, &found["log"]), (0, &serde_json::Value::Null));

    let other = path("other.policy");
    let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    fs::write(&other, format!("log {key}\nquorum none\n")).unwrap();
    let (code, found, said) =
        bot(&story.world, NOBODY, &["contract", "audit", &contract, &file, "--policy", &other])
            .await;
    let codes: Vec<_> =
        found["findings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert!(code == 4 && codes.contains(&"bad_proof".into()), "{said}");

    let nothing = "00".repeat(32);
    let (code, found, said) =
        bot(&story.world, NOBODY, &["contract", "audit", &nothing, &file]).await;
    assert_eq!((code, &found["refused"]["code"]), (4, &"other_contract".into()), "{said}");
    fs::write(&file, "{}").unwrap();
    let (code, _, said) = bot(&story.world, NOBODY, &words).await;
    assert!(code == 1 && said.contains("reading the evidence"), "{said}");
}

#[tokio::test]
async fn what_shows_nothing_is_not_called_good() {
    let story = Story::tell().await;
    let file = story.world.home.path().join("shop.evidence");
    let contract = story.contract.to_string();
    let audit = async || {
        fs::write(&file, serde_json::to_vec(&story.evidence().await).unwrap()).unwrap();
        let words = ["contract", "audit", &contract, file.to_str().unwrap()];
        let (code, found, _) = bot(&story.world, NOBODY, &words).await;
        (code, found["findings"][0]["code"].clone())
    };
    assert_eq!(audit().await, (3, "no_reports".into()));
    story.report(None, State::Accepted, None).await;
    assert_eq!(audit().await, (3, serde_json::Value::Null), "agreed on, and nothing ran");
    decide(&story.world, "legal", story.contract, Matter::Newest, Decision::Withdraw).await;
    assert_eq!(audit().await, (2, serde_json::Value::Null), "not agreed on, and nothing ran");
}

/// The registry's bundle has the last decision alone, by which the runs of before were unlawful.
#[tokio::test]
async fn decisions_that_no_longer_stand_are_exported_with_those_that_do() {
    let story = Story::tell().await;
    story.run().await;
    decide(&story.world, "legal", story.contract, Matter::Newest, Decision::Withdraw).await;
    let evidence = story.evidence().await;
    assert_eq!(evidence.approvals.len(), 4);
    let found = story.audit(&evidence);
    assert_eq!((found.findings, found.versions[0].agreed), (vec![], false));
    let bundle = story.world.grid.client.bundle(&story.contract).await.unwrap();
    let standing = Evidence { approvals: bundle.approvals, ..evidence };
    assert_eq!(story.codes(&standing), [Code::NotAgreed], "positive control");
}

/// What a node signed in place of another report is kept apart by the registry, and is evidence.
#[tokio::test]
async fn a_report_that_contradicts_another_is_exported() {
    let story = Story::tell().await;
    story.run().await;
    let last = story.world.grid.client.results(&ResultFilter::default()).await.unwrap().results;
    let last = story.world.grid.statement::<Report>(&last.last().unwrap().id).await.unwrap().body;
    let other = Report { ran: Some(Ran { flist: FlistId([8; 32]), ..story.ran.clone() }), ..last };
    // The seed of the node in the tests' world.
    let other = Envelope::seal(&other, &[&SigningKey::from_seed(&[7; 32])]).unwrap();
    story.world.grid.client.push_results(&[other]).await.unwrap();
    assert_eq!(story.codes(&story.evidence().await), [Code::Forked, Code::OtherBytes]);
}

/// Every node that has registered may sign what it likes.
#[tokio::test]
async fn reports_of_a_node_that_the_contract_does_not_name_are_not_exported() {
    let story = Story::tell().await;
    story.run().await;
    let stranger = FakeNode::new(9, &story.world.actor("farmer").own.signer);
    stranger.register(&story.world.grid).await;
    let about = (story.contract, 1, Some("miner"));
    stranger.report_run(&story.world.grid, about, State::Running, Some(story.ran.clone())).await;
    let evidence = story.evidence().await;
    assert_eq!((evidence.reports.len(), evidence.nodes.len()), (5, 1));
    assert_eq!(story.codes(&evidence), []);
}

/// More reports about others than `results` follows.
#[tokio::test]
async fn a_long_chain_is_exported_whole() {
    let story = Story::tell().await;
    story.report(Some("web"), State::Running, Some(story.ran.clone())).await;
    let other = ContractId([9; 32]);
    story.node.report_often(&story.world.grid, other, 520).await;
    story.report(Some("web"), State::Running, Some(story.ran.clone())).await;
    let evidence = story.evidence().await;
    assert_eq!((evidence.reports.len(), story.codes(&evidence)), (522, vec![]));
}
