//! What the reconciler keeps of what it hears, with a real database and store.

mod ahead;
mod cost;
mod files;
mod log;
mod releases;

use super::*;
use contract::{
    Envelope, Signed, SigningKey,
    decision::{Action, Approval, Decision},
    report::Report,
    testkit::{NETWORK, World, seal},
};
use proptest::prelude::*;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

struct Bench {
    world: World,
    directory: tempfile::TempDir,
    reconciler: Reconciler,
    orders: UnboundedReceiver<Order>,
}

/// Nobody is asked, and nobody answers.
fn no_probes() -> Probes {
    Probes { questions: unbounded_channel().0, answers: std::sync::mpsc::channel().1 }
}

fn open(world: &World, directory: &std::path::Path) -> (Reconciler, UnboundedReceiver<Order>) {
    let (database, problem) = Database::open(directory).unwrap();
    assert_eq!(problem, None);
    let trust = Trust {
        network: NETWORK.into(),
        farm: world.id("farm"),
        node: world.node_id(),
        free: world.node(1).capacity,
        past: contract::Past::default(),
    };
    let key = SigningKey::from_seed(&[77; 32]);
    assert_eq!(key.public(), world.node_key.public());
    let results =
        Results { network: NETWORK.into(), node: world.node_id(), boot: "boot".into(), key };
    let store = Arc::new(Store::open(&directory.join("store")).unwrap());
    let (orders, taken) = unbounded_channel();
    let threads = Threads { orders, probes: no_probes(), scrubs: Scrubs::none() };
    let reconciler =
        Reconciler::new(trust, "boot".into(), database, results, store, threads).unwrap();
    (reconciler, taken)
}

impl Bench {
    fn new() -> Self {
        let world = World::new(Timestamp::from_seconds(1_800_000_000));
        let directory = tempfile::tempdir().unwrap();
        let (reconciler, orders) = open(&world, directory.path());
        Self { world, directory, reconciler, orders }
    }

    /// As if the process had ended and begun anew.
    fn restarted(self) -> Self {
        let Self { world, directory, reconciler, .. } = self;
        drop(reconciler);
        let (reconciler, orders) = open(&world, directory.path());
        Self { world, directory, reconciler, orders }
    }

    fn hear(&mut self, bundle: &Bundle) {
        self.reconciler.take_bundle(self.world.contract(), bundle).unwrap();
    }

    fn judge(&mut self, offset: i64) -> Verdict {
        let this = &mut self.reconciler;
        let now = self.world.at(offset);
        (this.verdicts, this.free) = judge::judge(&this.contracts, &this.trust, &this.storage, now);
        this.note_starts(&Have::default()).unwrap();
        this.note_ends().unwrap();
        this.verdicts[&self.world.contract()].clone()
    }

    fn results(&self) -> Vec<Report> {
        let open = |one: &Envelope| Signed::<Report>::open(one).unwrap().body;
        self.reconciler.database.outbox(100).unwrap().iter().map(open).collect()
    }

    fn report(&mut self) {
        let now = self.world.at(10);
        self.reconciler.report(&[], &Have::default(), &BTreeMap::new(), now).unwrap();
    }
}

fn cancel(world: &World, bundle: &mut Bundle) {
    let order = seal(&world.cancel(), world.key("owner"));
    for name in ["it", "legal"] {
        let about = world.decision(name, &bundle.headers[0], Decision::Approve);
        let subject = order.id().unwrap();
        let approval = Approval { subject, action: Action::Cancel, ..about };
        bundle.approvals.push(seal(&approval, world.key(name)));
    }
    bundle.cancels.push(order);
}

/// An inbox full of invented contracts filled the node's state.
#[test]
fn a_contract_is_kept_only_with_a_grant_of_the_farm() {
    let mut bench = Bench::new();
    let agreed = bench.world.agreed();
    let mut invented = agreed.clone();
    invented.pools[0].signatures.clear();
    bench.hear(&invented);
    assert!(bench.reconciler.contracts.is_empty());
    assert!(bench.reconciler.complaints.contains_key("offers"));
    bench.hear(&agreed);
    assert_eq!(bench.reconciler.contracts.len(), 1);
    // One that is kept already needs no second proof.
    let mut more = bench.world.updated(|_| {}, &["it", "legal"]);
    more.pools.clear();
    bench.hear(&more);
    let kept = &bench.reconciler.contracts[&bench.world.contract()];
    assert_eq!((kept.bundle.headers.len(), kept.bundle.pools.len()), (2, 1));
}

/// A contract that was rejected and approved again ran beside the one that had got its place.
#[test]
fn what_may_not_run_any_more_holds_nothing() {
    let mut bench = Bench::new();
    let other = World::new(bench.world.now).with_contract(2);
    let (mut first, second) = (bench.world.agreed(), other.agreed());
    let demand = bench.world.document(1).demand();
    bench.reconciler.trust.free = demand;
    let judge = |bench: &mut Bench| {
        let first = matches!(bench.judge(50), Verdict::Run(_));
        let second = bench.reconciler.verdicts.get(&other.contract());
        (first, matches!(second, Some(Verdict::Run(_))))
    };
    bench.hear(&first);
    assert_eq!(judge(&mut bench), (true, false));
    bench.reconciler.take_bundle(other.contract(), &second).unwrap();
    assert_eq!(judge(&mut bench), (true, false), "it does not fit beside the first");
    let header = first.headers[0].clone();
    first.approvals.push(bench.world.decide("legal", &header, Decision::Reject, 20));
    bench.hear(&first);
    assert_eq!(judge(&mut bench), (false, false), "what it gives back is there at the next look");
    assert_eq!(judge(&mut bench), (false, true));
    first.approvals.push(bench.world.decide("legal", &header, Decision::Approve, 30));
    bench.hear(&first);
    for _ in 0..2 {
        assert_eq!(judge(&mut bench), (false, true));
        assert_eq!(bench.reconciler.free, Capacity::default());
        bench = bench.restarted();
        bench.reconciler.trust.free = demand;
    }
    // When there is room, it goes on, although the time for a first start is over.
    bench.reconciler.trust.free = demand.plus(&demand);
    assert!(matches!(bench.judge(6000), Verdict::Run(_)));
    assert_eq!(judge(&mut bench), (true, true));
}

/// A version that had been withheld arrived after the end, and ran.
#[test]
fn nothing_that_arrives_after_an_end_is_taken() {
    let mut bench = Bench::new();
    let mut bundle = bench.world.agreed();
    bench.hear(&bundle);
    assert!(matches!(bench.judge(10), Verdict::Run(_)));
    cancel(&bench.world, &mut bundle);
    bench.hear(&bundle);
    assert!(matches!(bench.judge(10), Verdict::Stop(_)));
    let second = bench.world.updated(|_| {}, &["it", "legal"]);
    bench.hear(&second);
    assert!(matches!(bench.judge(10), Verdict::Stop(_)));
    let mut bench = bench.restarted();
    bench.hear(&second);
    assert!(matches!(bench.judge(10), Verdict::Stop(_)));
    let kept = &bench.reconciler.contracts[&bench.world.contract()];
    assert_eq!(*kept.bundle, merge::empty());
}

#[test]
fn a_version_that_was_pushed_out_is_remembered_over_a_restart() {
    let mut bench = Bench::new();
    let mut bundle = bench.world.updated(|_| {}, &["it", "legal"]);
    bench.hear(&bundle);
    assert!(matches!(bench.judge(10), Verdict::Run(agreed) if agreed.header.version == 2));
    let second = bundle.headers[1].clone();
    bundle.approvals.push(bench.world.decide("legal", &second, Decision::Reject, 500));
    bench.hear(&bundle);
    assert!(matches!(bench.judge(10), Verdict::Refuse(_)));
    let mut bench = bench.restarted();
    assert!(matches!(bench.judge(10), Verdict::Refuse(_)));
}

/// The state was lost, and the numbers of the node's results began again.
#[test]
fn reports_wait_for_the_last_one_and_go_on_after_it() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    bench.report();
    assert_eq!(bench.results(), []);
    let last = StatementId([5; 32]);
    bench.reconciler.take_last_result(Some((41, last))).unwrap();
    bench.report();
    let results = bench.results();
    assert_eq!((results[0].seq, results[0].prev), (42, Some(last)));
    // Known once, it is not believed again.
    bench.reconciler.take_last_result(Some((7, last))).unwrap();
    let bench = bench.restarted();
    assert!(bench.reconciler.chain_is_known);
}

#[test]
fn a_node_that_never_reported_counts_from_one() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    bench.reconciler.take_last_result(None).unwrap();
    bench.report();
    assert_eq!(bench.results()[0].seq, 1);
}

#[test]
fn what_runs_is_said_in_each_boot_and_what_has_ended_once() {
    let mut bench = Bench::new();
    let mut bundle = bench.world.agreed();
    bench.hear(&bundle);
    bench.reconciler.take_last_result(None).unwrap();
    let count = |bench: &mut Bench, boot: &str| {
        bench.reconciler.results.boot = boot.into();
        bench.judge(10);
        bench.report();
        bench.results().len()
    };
    assert_eq!(count(&mut bench, "a"), 1);
    assert_eq!(count(&mut bench, "a"), 1);
    assert_eq!(count(&mut bench, "b"), 2);
    cancel(&bench.world, &mut bundle);
    bench.hear(&bundle);
    assert_eq!(count(&mut bench, "b"), 3);
    assert_eq!(count(&mut bench, "c"), 3);
}

#[test]
fn files_go_when_no_kept_contract_names_them_and_the_registry_was_heard() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    let images = bench.directory.path().join("store/staging");
    let [named, idle] = [9, 8].map(|n| images.join(FlistId([n; 32]).to_string()));
    for directory in [&named, &idle] {
        std::fs::create_dir(directory).unwrap();
    }
    bench.judge(10);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let look_with = |bench: &mut Bench, wants: &[Want], now_ms| {
        let have = Have { now_ms, ..Have::default() };
        bench.reconciler.keep_house(wants, &have).unwrap();
        (named.exists(), idle.exists())
    };
    let look = |bench: &mut Bench, now_ms| look_with(bench, &[], now_ms);
    let day_ms = 86_400_000;
    assert_eq!(look(&mut bench, 1), (true, true));
    assert_eq!(look(&mut bench, day_ms), (true, true), "the registry was not heard");
    bench.reconciler.take_pulled();
    assert_eq!(look(&mut bench, 2 * day_ms), (true, true), "not needed from now on");
    let fetched = store::flists_of(&wants).next().unwrap();
    bench.reconciler.files.insert(fetched, Files::Fetching);
    let while_fetched = look_with(&mut bench, &wants, 3 * day_ms);
    assert_eq!(while_fetched, (true, true), "something that may run is fetched");
    bench.reconciler.files.clear();
    assert_eq!(look(&mut bench, 4 * day_ms), (true, false));
}

#[test]
fn user_ids_are_given_back_with_the_contract() {
    let mut bench = Bench::new();
    let web = plan::workload_id(&bench.world.contract(), "web");
    bench.reconciler.database.set_user_ids(&BTreeMap::from([(web.clone(), 1 << 20)])).unwrap();
    let mut bundle = bench.world.agreed();
    bench.hear(&bundle);
    bench.judge(10);
    bench.reconciler.take_pulled();
    let look = |bench: &mut Bench, now_ms| {
        let have = Have { now_ms, ..Have::default() };
        bench.reconciler.keep_house(&[], &have).unwrap();
        bench.reconciler.database.user_ids().unwrap().contains_key(&web)
    };
    assert!(look(&mut bench, 60_000));
    cancel(&bench.world, &mut bundle);
    bench.hear(&bundle);
    bench.judge(10);
    assert!(!look(&mut bench, 120_000));
}

#[test]
fn a_volume_that_cannot_be_made_says_why_and_waits_longer_each_time() {
    let mut bench = Bench::new();
    let error = || node_calls::StartError::new("pool_failed", "its disk is gone");
    let mut waits = Vec::new();
    for _ in 0..3 {
        bench.reconciler.note_failure("v".into(), error(), 0);
        waits.push(bench.reconciler.failures["v"].until_ms);
    }
    assert_eq!(waits, [RETRY_MS, 2 * RETRY_MS, 4 * RETRY_MS]);
    bench.reconciler.forget_failures(&[], &Have::default());
    assert!(bench.reconciler.failures.is_empty());
}

#[test]
fn what_was_started_in_another_boot_is_forgotten() {
    let bench = Bench::new();
    let run = |boot: &str| {
        let stop = Stop { signal: 15, grace_ms: 1 };
        let phase = Phase::Up { since_ms: 1 };
        let run = Run {
            boot: boot.into(),
            revision: "r".into(),
            flist: None,
            phase,
            delay_ms: None,
            stop,
            restart: contract::workload::Restart::Always,
            volumes: None,
            passed: true,
            ran: None,
            strains: crate::strain::Strains::default(),
            announced: None,
        };
        serde_json::to_string(&run).unwrap()
    };
    for (id, boot) in [("now", "boot"), ("before", "other")] {
        bench.reconciler.database.set_run(id, Some(&run(boot))).unwrap();
    }
    let bench = bench.restarted();
    assert_eq!(bench.reconciler.runs.keys().collect::<Vec<_>>(), ["now"]);
    assert_eq!(bench.reconciler.database.runs().unwrap().len(), 1);
}

#[test]
fn a_full_table_takes_another_contract_in_place_of_one_that_never_started() {
    let mut bench = Bench::new();
    let id = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        ContractId(id)
    };
    let this = &mut bench.reconciler;
    for n in 0..crate::database::CONTRACTS_MAX {
        assert!(this.database.keep(&id(n), &merge::empty(), 0, usize::MAX).unwrap());
        this.contracts.insert(id(n), Kept { started: Some(1), ..Kept::new(id(n)) });
    }
    bench.hear(&bench.world.agreed());
    assert!(!bench.reconciler.contracts.contains_key(&bench.world.contract()), "all have started");
    let refusal = contract::verdict::Refusal {
        code: contract::verdict::Code::QuorumMissing,
        message: String::new(),
    };
    bench.reconciler.verdicts.insert(id(5), Verdict::Refuse(refusal));
    bench.reconciler.contracts.insert(id(5), Kept::new(id(5)));
    bench.hear(&bench.world.agreed());
    let kept = &bench.reconciler.contracts;
    assert!(kept.contains_key(&bench.world.contract()) && !kept.contains_key(&id(5)));
    assert_eq!(bench.reconciler.database.contracts().unwrap().len(), kept.len());
}

/// What a registry may say next.
#[derive(Debug, Clone, Copy)]
enum Said {
    First,
    Second,
    Cancel,
    Nothing,
    RejectSecond(i64),
    WithdrawFirst(i64),
    WithdrawCancel(i64),
    /// contractd ends and begins anew.
    Restart,
}

fn said() -> impl Strategy<Value = Said> {
    let time = -500_i64..900;
    prop_oneof![
        Just(Said::First),
        Just(Said::Second),
        Just(Said::Cancel),
        Just(Said::Nothing),
        time.clone().prop_map(Said::RejectSecond),
        time.clone().prop_map(Said::WithdrawFirst),
        time.prop_map(Said::WithdrawCancel),
        Just(Said::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn in_whatever_order_it_hears_it_a_node_goes_forward_only(
        story in proptest::collection::vec(said(), 1..8),
    ) {
        let mut bench = Bench::new();
        let world = World::new(bench.world.now);
        let second = world.updated(|_| {}, &["it", "legal"]);
        let (mut running, mut ended) = (0, false);
        bench.hear(&world.agreed());
        for said in story {
            let mut bundle = match said {
                Said::Second | Said::RejectSecond(_) => second.clone(),
                Said::Nothing | Said::Restart => merge::empty(),
                Said::First | Said::Cancel | Said::WithdrawFirst(_) | Said::WithdrawCancel(_) => {
                    world.agreed()
                }
            };
            match said {
                Said::RejectSecond(time) => {
                    let about = bundle.headers[1].clone();
                    bundle.approvals.push(world.decide("legal", &about, Decision::Reject, time));
                }
                Said::WithdrawFirst(time) => {
                    let about = bundle.headers[0].clone();
                    bundle.approvals.push(world.decide("it", &about, Decision::Withdraw, time));
                }
                Said::WithdrawCancel(time) => {
                    cancel(&world, &mut bundle);
                    let last = bundle.approvals.last().unwrap();
                    let decided = Signed::<Approval>::open(last).unwrap().body;
                    let decision = Decision::Withdraw;
                    let back = Approval { decision, issued: world.at(time), ..decided };
                    bundle.approvals.push(seal(&back, world.key("legal")));
                }
                Said::Cancel => cancel(&world, &mut bundle),
                Said::Restart => bench = bench.restarted(),
                Said::First | Said::Second | Said::Nothing => {}
            }
            bench.hear(&bundle);
            match bench.judge(10) {
                Verdict::Run(agreed) => {
                    prop_assert!(!ended && agreed.header.version >= running);
                    running = agreed.header.version;
                }
                Verdict::Stop(_) => ended = true,
                Verdict::Refuse(_) => prop_assert!(!ended),
            }
        }
    }
}

/// A document of so many KiB.
fn large_document(world: &World, version: u64, kib: usize) -> Vec<u8> {
    let mut document = world.document(version);
    if let contract::workload::Spec::Container(container) = &mut document.workloads[0].spec {
        let value = "x".repeat(16 * 1024 - 10);
        container.env = (0..kib / 16).map(|n| format!("V{n}={value}")).collect();
    }
    contract::testkit::bytes(&document)
}

/// After many updates with large documents, what was kept was as large as it may be: later versions
/// and a cancel with quorum were ignored for ever.
#[test]
fn many_large_versions_do_not_keep_a_cancel_out() {
    use contract::{bundle::Deployment, merkle};
    let mut bench = Bench::new();
    let world = World::new(bench.world.now);
    let mut bundle = world.agreed();
    bundle.headers.clear();
    bundle.approvals.clear();
    bundle.documents.clear();
    for version in 1..=16_u64 {
        let document = large_document(&world, version, 900);
        let leaf = merkle::leaf(&document);
        let prev = bundle.headers.last().and_then(|one| one.id().ok());
        let mut header = world.header(version, prev);
        header.deployments.root = StatementId(merkle::root(&[leaf]));
        let header = seal(&header, world.key("owner"));
        bundle.approvals.extend(["it", "legal"].map(|name| world.approve(name, &header)));
        bundle.headers.push(header);
        bundle.documents = vec![Deployment::new(&document, merkle::path(&[leaf], 0).unwrap())];
        bench.hear(&bundle);
        assert!(
            matches!(bench.judge(20), Verdict::Run(agreed) if agreed.header.version == version)
        );
        let kept = &bench.reconciler.contracts[&world.contract()].bundle;
        assert_eq!(kept.documents.len(), 1);
    }
    cancel_last(&world, &mut bundle);
    bench.hear(&bundle);
    assert!(matches!(bench.judge(30), Verdict::Stop(_)));
}

/// An order to end the last version, with quorum.
fn cancel_last(world: &World, bundle: &mut Bundle) {
    let header = bundle.headers.last().unwrap();
    let version = Signed::<contract::header::Header>::open(header).unwrap().body.version;
    let order = contract::decision::Cancel { version, ..world.cancel() };
    let order = seal(&order, world.key("owner"));
    for name in ["it", "legal"] {
        let about = world.decision(name, header, Decision::Approve);
        let subject = order.id().unwrap();
        let approval = Approval { subject, action: Action::Cancel, ..about };
        bundle.approvals.push(seal(&approval, world.key(name)));
    }
    bundle.cancels.push(order);
}

/// Documents of proposals that nobody decides on may fill it all the same.
#[test]
fn a_full_contract_takes_what_stops_it_and_nothing_else() {
    use contract::{bundle::Deployment, merkle};
    for stop in ["reject", "cancel"] {
        let mut bench = Bench::new();
        let world = World::new(bench.world.now);
        let mut agreed = world.agreed();
        let mut offered = agreed.clone();
        let propose = |offered: &mut Bundle, version| {
            let document = large_document(&world, version, 900);
            let leaf = merkle::leaf(&document);
            let mut header = world.header(version, offered.headers.last().unwrap().id().ok());
            header.deployments.root = StatementId(merkle::root(&[leaf]));
            offered.headers.push(seal(&header, world.key("owner")));
            offered.documents.push(Deployment::new(&document, merkle::path(&[leaf], 0).unwrap()));
        };
        for version in 2..=14_u64 {
            propose(&mut offered, version);
        }
        bench.hear(&offered);
        assert!(matches!(bench.judge(10), Verdict::Run(_)));
        assert!(!bench.reconciler.complaints.contains_key("contracts"), "all of it fits");
        // What stops it comes with another document, which does not.
        offered.documents.clear();
        propose(&mut offered, 15);
        if stop == "reject" {
            let first = agreed.headers[0].clone();
            offered.approvals.push(world.decide("legal", &first, Decision::Reject, 15));
        } else {
            cancel(&world, &mut agreed);
            offered.approvals.clone_from(&agreed.approvals);
            offered.cancels.clone_from(&agreed.cancels);
        }
        bench.hear(&offered);
        assert!(bench.reconciler.complaints.contains_key("contracts"));
        let kept = &bench.reconciler.contracts[&world.contract()].bundle;
        assert_eq!((kept.headers.len(), kept.documents.len()), (14, 14));
        match (stop, bench.judge(20)) {
            ("reject", Verdict::Refuse(_)) | ("cancel", Verdict::Stop(_)) => {}
            (_, other) => panic!("{stop}: {other:?}"),
        }
    }
}

/// It was signed and shown, and no node did it.
#[test]
fn without_contact_the_containers_stop_and_it_is_said() {
    for (policy, stops) in [
        (contract::header::OnPartition::StopAfterS(60), true),
        (contract::header::OnPartition::Keep, false),
    ] {
        let mut bench = Bench::new();
        let mut bundle = bench.world.agreed();
        let mut header = bench.world.header(1, None);
        header.execution.on_partition = policy;
        let header = seal(&header, bench.world.key("owner"));
        bundle.approvals = ["it", "legal"].map(|name| bench.world.approve(name, &header)).to_vec();
        bundle.headers = vec![header];
        bench.hear(&bundle);
        bench.reconciler.take_last_result(None).unwrap();
        assert!(matches!(bench.judge(10), Verdict::Run(_)));
        let look = |bench: &mut Bench, now_ms| {
            let this = &mut bench.reconciler;
            let wants = this.wants(now_ms).unwrap();
            let have = Have { partitioned: this.partitioned.clone(), ..Have::default() };
            let now = bench.world.at(10);
            this.report(&wants, &have, &BTreeMap::new(), now).unwrap();
            let said = this.standings()[0].0.state;
            let last = bench.results().last().unwrap().clone();
            (wants.is_empty(), said == State::Stopped, last.code == "partitioned")
        };
        bench.reconciler.contact.note(100_000);
        assert_eq!(look(&mut bench, 160_000), (false, false, false));
        assert_eq!(look(&mut bench, 160_001), (stops, stops, stops));
        // contractd begins anew, without contact: it does not count from then on.
        let mut bench = bench.restarted();
        bench.judge(10);
        assert_eq!(look(&mut bench, 160_001), (stops, stops, stops));
        bench.reconciler.contact.note(170_000);
        assert_eq!(look(&mut bench, 170_001), (false, false, false));
    }
}

/// Whatever ends between the end of a job and the next look, it is not started again, and its end is told once.
#[test]
fn a_job_that_has_ended_well_stays_so_over_restarts_and_boots() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.reconciler.take_last_result(None).unwrap();
    bench.judge(10);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let job = wants.iter().find(|want| want.name == "web").unwrap();
    let Kind::Container { revision, flist, .. } = &job.kind else { panic!() };
    let ran = contract::report::Ran {
        flist: FlistId([9; 32]),
        image: FlistId([8; 32]),
        entrypoint: FlistId([7; 32]),
        files: 2,
    };
    let up = Run {
        boot: "boot".into(),
        revision: revision.clone(),
        flist: Some(*flist),
        phase: Phase::Up { since_ms: 1 },
        delay_ms: None,
        stop: Stop { signal: 15, grace_ms: 1 },
        restart: contract::workload::Restart::OnFailure,
        volumes: None,
        passed: true,
        ran: Some(ran.clone()),
        strains: crate::strain::Strains::default(),
        announced: None,
    };
    bench.reconciler.runs.insert(job.id.clone(), up);
    bench.reconciler.save_run(&job.id).unwrap();
    // There is no init here that could forget the process: as if all had ended just before that.
    let state = init::ProcessState::Exited(0);
    bench.reconciler.reap(&job.id, state, true, 5).unwrap();
    // If init did forget it, and only its answer was lost, nothing is started either.
    let this = &bench.reconciler;
    assert!(this.runs[&job.id].is_over_as(revision));
    assert_eq!(this.runs[&job.id].flist, None, "nothing runs from its files any more");
    let have = Have {
        runs: this.runs.clone(),
        flists: [((job.contract, *flist), Files::Ready)].into(),
        ..Have::default()
    };
    let steps = plan::plan(std::slice::from_ref(job), &have, &BTreeMap::new());
    assert_eq!(steps, [], "not even the fetch of its files");
    for boot in ["boot", "later", "latest"] {
        bench = bench.restarted();
        // `open` always says the same; what is on disk is then of another boot.
        let this = &mut bench.reconciler;
        let kept = this.runs[&job.id].clone();
        assert!(kept.is_over_as(revision), "{boot}: {kept:?}");
        this.runs.insert(job.id.clone(), Run { boot: boot.into(), ..kept });
        this.save_run(&job.id).unwrap();
        boot.clone_into(&mut this.results.boot);
        this.take_last_result(None).unwrap();
        bench.judge(10);
        let this = &mut bench.reconciler;
        let have = Have { runs: this.runs.clone(), ..Have::default() };
        let now = bench.world.at(10);
        this.report(&wants, &have, &BTreeMap::new(), now).unwrap();
        this.forget_jobs().unwrap();
    }
    let told: Vec<Report> =
        bench.results().into_iter().filter(|one| one.workload.as_deref() == Some("web")).collect();
    let [told] = &*told else { panic!("{told:?}") };
    assert_eq!((told.state, told.code.as_str()), (State::Done, "returned_0"));
    assert_eq!(told.ran, Some(ran));
    // Its contract has ended by an order: nobody asks for it any more.
    let mut bundle = bench.world.agreed();
    cancel(&bench.world, &mut bundle);
    bench.hear(&bundle);
    assert!(matches!(bench.judge(10), Verdict::Stop(_)));
    bench.reconciler.forget_jobs().unwrap();
    assert!(bench.reconciler.runs.is_empty());
    assert!(bench.reconciler.database.runs().unwrap().is_empty());
}

/// A container of the contract, as the verdict in force wants it.
fn job_of(bench: &mut Bench) -> (Want, Run) {
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let want = wants.into_iter().find(|want| want.name == "web").unwrap();
    let Kind::Container { revision, flist, .. } = &want.kind else { panic!() };
    let run = Run {
        boot: "boot".into(),
        revision: revision.clone(),
        flist: Some(*flist),
        phase: Phase::Up { since_ms: 1 },
        delay_ms: None,
        stop: Stop { signal: 15, grace_ms: 1 },
        restart: contract::workload::Restart::Never,
        volumes: None,
        passed: true,
        ran: None,
        strains: crate::strain::Strains::default(),
        announced: None,
    };
    (want, run)
}

fn over(run: &Run) -> Run {
    jobs::ended(run, init::ProcessState::Exited(0), "it returned 0").unwrap()
}

/// A version that was never executed was done, because the one before it returned 0.
#[test]
fn what_ends_is_the_job_whose_start_nobody_has_answered() {
    let mut bench = Bench::new();
    let (want, before) = job_of(&mut bench);
    let this = &mut bench.reconciler;
    let phase = Phase::Waiting { until_ms: 1, code: "refused".into(), message: String::new() };
    let now = Run { revision: "later".into(), phase, ..before.clone() };
    let state = init::ProcessState::Exited(0);
    let have = Have { processes: [(want.id.clone(), state)].into(), ..Have::default() };
    for (announced, is_over) in [(Some(Box::new(before.clone())), true), (None, false)] {
        this.runs.insert(want.id.clone(), Run { announced, ..now.clone() });
        this.note_risen(&have).unwrap();
        this.reap(&want.id, state, true, 5).unwrap();
        let kept = &this.runs[&want.id];
        assert_eq!(kept.is_over_as(&before.revision), is_over, "{kept:?}");
        assert!(!kept.is_over_as("later"), "{kept:?}");
    }
}

#[test]
fn an_end_is_kept_until_all_contracts_are_heard_and_needs_no_files() {
    let mut bench = Bench::new();
    let (_, run) = job_of(&mut bench);
    let gone = plan::workload_id(&ContractId([7; 32]), "job");
    let flist = FlistId([7; 32]);
    let path = bench.directory.path().join(format!("store/images/{flist}.flist"));
    std::fs::write(&path, "anything").unwrap();
    let this = &mut bench.reconciler;
    this.worth = Worth::Confirmed;
    let run = Run { flist: Some(flist), ..run };
    let other = plan::workload_id(&ContractId([7; 32]), "web");
    this.runs = [(gone.clone(), over(&run)), (other.clone(), run)].into();
    let mut have = Have { now_ms: 1, ..Have::default() };
    let mut look = |this: &mut Reconciler| {
        have.now_ms += 2 * 3_600_000;
        this.keep_house(&[], &have).unwrap();
    };
    look(this);
    assert!(this.runs.contains_key(&gone), "its contract may still be heard");
    this.pulled = true;
    look(this);
    look(this);
    assert!(!this.runs.contains_key(&gone));
    assert!(path.exists(), "another runs from it");
    // That one ends as well, and is kept: its contract may not run at the moment.
    let run = over(&this.runs[&other]);
    let kept = bench.world.contract();
    this.verdicts.clear();
    this.runs = [(plan::workload_id(&kept, "web"), run)].into();
    look(this);
    look(this);
    assert_eq!(this.runs.len(), 1);
    assert!(!path.exists());
}

/// The end of a job in an earlier version, or of one that is no more, was the standing of the whole.
#[test]
fn the_standing_counts_ends_of_this_version_only() {
    let mut bench = Bench::new();
    let (want, run) = job_of(&mut bench);
    let this = &mut bench.reconciler;
    let prefix = plan::prefix(&want.contract);
    let badly = |run: &Run| jobs::ended(run, init::ProcessState::Exited(1), "1").unwrap();
    let old = Run { revision: "r0".into(), ..run.clone() };
    for (id, run, state) in [
        (want.id.clone(), badly(&run), State::Failed),
        (want.id.clone(), badly(&old), State::Accepted),
        (want.id.clone(), over(&old), State::Accepted),
        (format!("{prefix}dropped"), badly(&run), State::Accepted),
        (format!("{prefix}dropped"), over(&run), State::Accepted),
        (want.id.clone(), over(&run), State::Done),
    ] {
        this.runs = [(id, run)].into();
        assert_eq!(this.standings()[0].0.state, state, "{:?}", this.runs);
    }
}
