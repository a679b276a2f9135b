//! `3bot contract export` and `audit`: the life of a contract from a file, and what is found in one
//! that was tampered with.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{FakeNode, World, bot, decide, grant, propose, source};
use contract::{
    ContractId, Envelope, FlistId, Signed, SigningKey, Timestamp,
    decision::Decision,
    report::{Ran, Report, State},
};
use registryd::{db, transparency};
use std::fs;
use threebot::{
    audit::{Audit, Code, audit},
    evidence::{Evidence, gather},
    stakeholder::Matter,
};

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
        audit(evidence, Some(self.policy.as_bytes()), &self.world.people()).unwrap()
    }

    fn codes(&self, evidence: &Evidence) -> Vec<Code> {
        let mut codes: Vec<_> =
            self.audit(evidence).findings.into_iter().map(|finding| finding.code).collect();
        codes.dedup();
        codes
    }
}

/// The place of a report in the evidence, by its number on the chain.
fn place(evidence: &Evidence, seq: u64) -> usize {
    let is_it = |envelope: &Envelope| Signed::<Report>::open(envelope).unwrap().body.seq == seq;
    evidence.reports.iter().position(is_it).unwrap()
}

/// A report that the node signs in place of another; the proof of the former is gone with it.
fn signed_again(evidence: &mut Evidence, seq: u64, edit: impl Fn(&mut Report)) {
    let at = place(evidence, seq);
    let mut report = Signed::<Report>::open(&evidence.reports[at]).unwrap().body;
    edit(&mut report);
    // The seed of the node in the tests' world.
    evidence.reports[at] = Envelope::seal(&report, &[&SigningKey::from_seed(&[7; 32])]).unwrap();
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

    let words = ["contract", "audit", &file, "--policy", &policy];
    let (code, found, said) = bot(&story.world, NOBODY, &words).await;
    assert_eq!((code, &found["findings"]), (0, &serde_json::json!([])), "{said}");
    let version = &found["versions"][0];
    assert_eq!(version["agreed"], true);
    let decisions = version["decisions"].as_array().unwrap();
    assert!(decisions.iter().all(|one| one["decision"] == "approve" && one["entry"].is_u64()));
    assert_eq!(decisions.len(), 3);
    let runs = found["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["ran"]["flist"], story.ran.flist.to_string());
    assert!(runs[0]["until"].is_string() && runs[1]["until"].is_null());
    assert_eq!(found["logged"], 1 + 3 + 4, "header, approvals, reports");

    // Without a policy the log is not looked at, and the answer says so.
    let (code, found, _) = bot(&story.world, NOBODY, &words[..3]).await;
    assert_eq!((code, &found["logged"]), (0, &serde_json::Value::Null));

    let other = path("other.policy");
    let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    fs::write(&other, format!("log {key}\nquorum none\n")).unwrap();
    let (code, found, said) =
        bot(&story.world, NOBODY, &["contract", "audit", &file, "--policy", &other]).await;
    assert_eq!((code, &found["findings"][0]["code"]), (4, &"bad_proof".into()), "{said}");
    fs::write(&file, "{}").unwrap();
    let (code, _, said) = bot(&story.world, NOBODY, &words).await;
    assert!(code == 1 && said.contains("reading the evidence"), "{said}");
}

#[tokio::test]
async fn what_does_not_fit_together_is_found() {
    let story = Story::tell().await;
    story.run().await;
    let whole = story.evidence().await;
    assert_eq!(story.codes(&whole), [], "positive control");

    let changed = |edit: &dyn Fn(&mut Evidence)| {
        let mut evidence = whole.clone();
        edit(&mut evidence);
        story.codes(&evidence)
    };
    // The last report stands at the end of the chain, so that another in its place breaks none.
    let last = |edit: &dyn Fn(&mut Report)| changed(&|evidence| signed_again(evidence, 5, edit));
    let other_bytes = last(&|report| report.ran.as_mut().unwrap().flist = FlistId([8; 32]));
    assert_eq!(other_bytes, [Code::OtherBytes, Code::NotLogged]);
    assert_eq!(last(&|report| report.version = 2), [Code::NotAgreed, Code::NotLogged]);
    let other_name = last(&|report| report.workload = Some("miner".into()));
    assert_eq!(other_name, [Code::NotAgreed, Code::NotLogged]);
    let other_header = last(&|report| report.header = Some(contract::StatementId([3; 32])));
    assert_eq!(other_header, [Code::NotAgreed, Code::NotLogged]);
    let late = Timestamp::from_seconds(4_000_000_000);
    assert_eq!(last(&|report| report.at = late), [Code::Expired, Code::NotLogged]);

    let gap = changed(&|evidence| drop(evidence.reports.remove(place(evidence, 4))));
    assert_eq!(gap, [Code::Gap]);
    let forked = changed(&|evidence| signed_again(evidence, 4, |report| report.message.clear()));
    assert_eq!(forked, [Code::Forked], "it is not about this contract, so no proof is missing");
    let twice = changed(&|evidence| {
        let copy = evidence.reports[place(evidence, 5)].clone();
        signed_again(evidence, 5, |report| report.message.clear());
        evidence.reports.push(copy);
    });
    assert_eq!(twice, [Code::Forked, Code::NotLogged]);
    let unsigned = changed(&|evidence| {
        let at = place(evidence, 5);
        let report = Signed::<Report>::open(&evidence.reports[at]).unwrap().body;
        let stranger = SigningKey::from_seed(&[8; 32]);
        evidence.reports[at].signatures = Envelope::seal(&report, &[&stranger]).unwrap().signatures;
    });
    assert_eq!(unsigned, [Code::Unsigned]);
    assert_eq!(changed(&|evidence| evidence.nodes.clear()), [Code::Unsigned]);
    let no_document = changed(&|evidence| evidence.bundle.documents.clear());
    assert_eq!(no_document, [Code::NoDocument]);
    // An approval is left out: then it was not agreed on.
    let not_agreed = changed(&|evidence| drop(evidence.bundle.approvals.pop()));
    assert_eq!(not_agreed, [Code::NotAgreed]);

    assert_eq!(changed(&|evidence| drop(evidence.proofs.pop())), [Code::NotLogged]);
    let swapped = changed(&|evidence| {
        let other = evidence.proofs[1].proof.clone();
        evidence.proofs[0].proof = other;
    });
    assert_eq!(swapped, [Code::BadProof]);
}

/// What a file is made of has targets of its own in `fuzz`; this is what holds them together.
#[tokio::test]
async fn no_change_of_a_file_stops_the_audit_in_the_middle() {
    let story = Story::tell().await;
    story.run().await;
    let bytes = serde_json::to_vec(&story.evidence().await).unwrap();
    let (mut taken, mut found) = (0, 0);
    for round in 0..400_usize {
        let mut changed = bytes.clone();
        // A prime, so that the places are spread over the whole file.
        let at = round * 7919 % bytes.len();
        changed[at] = b"0aA\"}],"[round % 7];
        let Ok(evidence) = Evidence::read(&changed) else { continue };
        taken += 1;
        let audited = audit(&evidence, Some(story.policy.as_bytes()), &story.world.people());
        found += usize::from(!audited.is_ok_and(|audit| audit.findings.is_empty()));
    }
    assert!(taken > 100, "most places are inside of strings: {taken}");
    assert!(found > taken / 2, "and are seen: {found} of {taken}");
}
