//! What a node starts that asks for the log, and what it lets run on.

use super::*;
use crate::{
    log::{Asked, Terms, tests::TestLog},
    network::CarriedLog,
};
use contract::verdict::Code;
use registry_api::log::Shown;

/// A node that asks for the log, and a log that has all of these.
fn asking(bundle: impl Fn(&World) -> Bundle) -> (Bench, TestLog, Bundle) {
    let mut bench = Bench::new();
    let mut log = TestLog::new();
    let bundle = bundle(&bench.world);
    log.add(&bench.world.identity("owner"));
    bundle.headers.iter().chain(&bundle.approvals).for_each(|one| log.add(one));
    bench.ask(&log);
    (bench, log, bundle)
}

/// The same with a contract that was heard of and proven, and not judged since.
fn proven() -> (Bench, TestLog, Bundle) {
    let (mut bench, log, bundle) = asking(World::agreed);
    bench.hear(&bundle);
    bench.judge(50);
    bench.prove(&log, &bundle);
    (bench, log, bundle)
}

impl Bench {
    fn ask(&mut self, log: &TestLog) {
        self.reconciler.ask_log(Asked::Log(Box::new(log.terms(2)))).unwrap();
    }

    /// The log answers this.
    fn shown(&mut self, shown: Vec<Shown>) {
        self.reconciler.take_log(shown, &[], None, self.world.now).unwrap();
    }

    /// It does not answer what it was asked.
    fn silence(&mut self, asked: &[StatementId]) {
        let problem = Some("no answer".into());
        self.reconciler.take_log(vec![], asked, problem, self.world.now).unwrap();
    }

    /// One stick has this of it.
    fn carried(&mut self, by: &str, shown: Vec<Shown>) {
        let one = CarriedLog { by: by.to_owned(), shown, problem: None };
        self.reconciler.take_carried_log(vec![one], &[], self.world.now).unwrap();
    }

    /// What the node asks carriers now.
    fn question_to_carriers(&mut self) -> Option<(u64, Vec<StatementId>)> {
        std::iter::from_fn(|| self.orders.try_recv().ok()).find_map(|order| match order {
            Order::CarriedLog { known, statements } => Some((known.size, statements)),
            _ => None,
        })
    }

    /// What the node asks the log now.
    fn question(&mut self) -> Option<(u64, Vec<StatementId>)> {
        self.reconciler.look_at_log(u64::MAX);
        std::iter::from_fn(|| self.orders.try_recv().ok()).find_map(|order| match order {
            Order::Log { known, statements } => Some((known.size, statements)),
            _ => None,
        })
    }

    /// A whole round: the node asks, the log shows all that it has of it.
    fn prove(&mut self, log: &TestLog, bundle: &Bundle) -> usize {
        let (known, statements) = self.question().unwrap();
        let all = bundle.headers.iter().chain(&bundle.approvals);
        let asked: Vec<&Envelope> =
            all.filter(|one| statements.contains(&one.id().unwrap())).collect();
        assert_eq!(asked.len(), statements.len());
        let first = log.show(known, None);
        let size = first.note.text().lines().nth(1).unwrap().parse().unwrap();
        let rest = asked.iter().map(|one| log.show(size, Some(one)));
        self.shown(std::iter::once(first).chain(rest).collect());
        asked.len()
    }
}

fn code(verdict: &Verdict) -> Option<Code> {
    match verdict {
        Verdict::Refuse(refusal) => Some(refusal.code),
        Verdict::Run(_) | Verdict::Stop(_) => None,
    }
}

#[test]
fn a_contract_starts_when_the_log_has_it_and_says_so_until_then() {
    let (mut bench, log, bundle) = asking(World::agreed);
    bench.hear(&bundle);
    assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));
    bench.reconciler.chain_is_known = true;
    bench.report();
    assert_eq!(bench.results()[0].code, "not_logged");
    assert_eq!(bench.prove(&log, &bundle), 3);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    let written = bench.reconciler.database.fact("checkpoint log.example/test").unwrap().unwrap();
    assert_eq!(written, log.note(4, 2).to_string());
    assert_eq!(bench.reconciler.log.alarm(), None);
    // Nothing more to ask, but whether the log has only grown.
    assert_eq!(bench.question(), Some((4, vec![])));
}

#[test]
fn a_node_without_a_log_in_its_options_asks_nobody() {
    let mut bench = Bench::new();
    let bundle = bench.world.agreed();
    bench.hear(&bundle);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    assert_eq!(bench.question(), None);
    assert_eq!(bench.reconciler.log.alarm(), None);
    assert!(bench.reconciler.log.fact().text.starts_with("not asked"));
}

/// Also what was proven to be in another log before.
#[test]
fn options_that_mean_no_log_start_nothing_and_are_an_alarm() {
    let (mut bench, log, _) = proven();
    assert!(matches!(bench.judge(50), Verdict::Run(_)), "positive control");
    let mut bench = bench.restarted();
    let options = node_api::boot::BootConfig::parse("zos.log=x").log;
    bench.reconciler.ask_log(Asked::read(&options)).unwrap();
    assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));
    assert_eq!(bench.question(), None);
    assert!(bench.reconciler.log.alarm().is_some());
    // The word is put right.
    let mut bench = bench.restarted();
    bench.ask(&log);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
}

/// While everything was proven anew, what was proven first took the place of what had run.
#[test]
fn what_waits_for_its_proof_keeps_its_place() {
    let (mut bench, log, _) = proven();
    bench.judge(50);
    let holds = bench.reconciler.contracts[&bench.world.contract()].past.holds;
    assert!(holds.is_some_and(|holds| holds != Capacity::default()));
    let mut bench = bench.restarted();
    bench.reconciler.ask_log(Asked::Log(Box::new(log.terms(1)))).unwrap();
    assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));
    assert_eq!(bench.reconciler.contracts[&bench.world.contract()].past.holds, holds);
}

/// Anybody with a contract of the node's farm can let its statements out of the log.
#[test]
fn what_never_comes_into_the_log_keeps_nothing_else_waiting() {
    let (mut bench, _, bundle) = asking(World::agreed);
    bench.hear(&bundle);
    bench.judge(50);
    let (_, vain) = bench.question().unwrap();
    assert_eq!(vain.len(), 3);
    bench.silence(&vain[..2]);
    let other = World::new(bench.world.now).with_contract(2);
    bench.reconciler.take_bundle(other.contract(), &other.agreed()).unwrap();
    bench.judge(50);
    let (_, asked) = bench.question().unwrap();
    assert_eq!(asked.len(), 6, "positive control: all are asked for again");
    assert_eq!(asked[4..], vain[..2], "those that were missed come last");
    bench.silence(&asked[..4]);
    assert_eq!(bench.question().unwrap().1[..2], vain[..2], "and have their turn");
}

#[test]
fn a_log_that_proves_nothing_is_asked_less_and_less() {
    let (mut bench, log, bundle) = asking(World::agreed);
    // What was shown while there was nothing to prove does not count.
    for now_ms in [0, 30_000, 60_000, 90_000, 120_000] {
        bench.reconciler.look_at_log(now_ms);
        bench.shown(vec![log.show(0, None)]);
    }
    bench.hear(&bundle);
    bench.judge(50);
    let mut now_ms = 200_000;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        bench.reconciler.look_at_log(now_ms);
        let begun = now_ms;
        bench.silence(&[]);
        while bench.orders.try_recv().is_ok() {}
        while bench.orders.try_recv().is_err() {
            now_ms += 1000;
            bench.reconciler.look_at_log(now_ms);
        }
        pauses.push((now_ms - begun) / 1000);
        bench.silence(&[]);
    }
    assert!(pauses.is_sorted() && pauses[0] <= 4, "{pauses:?}");
    assert_eq!(pauses.last(), Some(&30));
    assert_eq!(bench.prove(&log, &bundle), 3, "and believed as soon as it does");
}

/// The log has another key, by new options, and begins anew under its old name.
#[test]
fn a_log_with_another_key_is_another_log() {
    let (mut bench, log, bundle) = asking(World::agreed);
    bench.shown(vec![log.show(0, None)]);
    let mut other = TestLog::with_key(7);
    bundle.headers.iter().for_each(|one| other.add(one));
    bench.ask(&other);
    bench.shown(vec![other.show(0, None)]);
    assert_eq!(bench.reconciler.log.alarm(), None);
    // Positive control: the same log with fewer entries.
    let mut shorter = TestLog::with_key(7);
    bench.ask(&other);
    shorter.add(&bench.world.identity("owner"));
    other.add(&bundle.approvals[0]);
    bench.shown(vec![other.show(1, None)]);
    bench.shown(vec![shorter.show(2, None)]);
    assert!(bench.reconciler.log.alarm().is_some());
}

/// The registry shows another list: what runs stays, nothing new starts, and the node says why.
#[test]
fn a_forked_log_starts_nothing_and_stops_nothing() {
    let (mut bench, log, _) = proven();
    assert!(matches!(bench.judge(50), Verdict::Run(_)));

    let second = bench.world.updated(|_| {}, &["it", "legal"]);
    let other = World::new(bench.world.now).with_contract(2).agreed();
    let all = [&second, &other].map(|one| one.headers.iter().chain(&one.approvals));
    let mut fork = TestLog::new();
    all.into_iter().flatten().for_each(|one| fork.add(one));
    bench.hear(&second);
    let other_id = World::new(bench.world.now).with_contract(2).contract();
    bench.reconciler.take_bundle(other_id, &other).unwrap();
    bench.judge(50);
    let (known, statements) = bench.question().unwrap();
    assert_eq!((known, statements.len()), (4, 6));
    for shown in [fork.show(known, None), fork.show(known, Some(&other.headers[0]))] {
        bench.shown(vec![shown]);
        assert!(bench.reconciler.log.alarm().unwrap().contains("nothing new starts"));
    }
    // Neither silence nor junk ends it.
    bench.silence(&[]);
    let junk = Shown { note: fork.note(4, 0), ..fork.show(known, None) };
    bench.shown(vec![junk]);
    assert!(bench.reconciler.log.alarm().is_some());
    let runs = bench.judge(50);
    assert!(matches!(runs, Verdict::Run(agreed) if agreed.header.version == 1));
    assert_eq!(code(&bench.reconciler.verdicts[&other_id]), Some(Code::NotLogged));
    let written = bench.reconciler.database.fact("checkpoint log.example/test").unwrap().unwrap();
    assert_eq!(written, log.note(4, 2).to_string(), "it never goes back");

    // Positive control: the log itself, grown by the same statements.
    let mut log = log;
    let all = [&second, &other].map(|one| one.headers.iter().chain(&one.approvals));
    all.into_iter().flatten().for_each(|one| log.add(one));
    let both = Bundle {
        headers: [second.headers.as_slice(), &other.headers].concat(),
        approvals: [second.approvals.as_slice(), &other.approvals].concat(),
        ..second.clone()
    };
    bench.prove(&log, &both);
    assert_eq!(bench.reconciler.log.alarm(), None);
    assert!(matches!(bench.judge(50), Verdict::Run(agreed) if agreed.header.version == 2));
    assert_eq!(code(&bench.reconciler.verdicts[&other_id]), None);
}

#[test]
fn two_lists_of_one_length_are_kept_as_evidence() {
    let (mut bench, log, _) = asking(World::agreed);
    bench.shown(vec![log.show(0, None)]);
    let mut fork = TestLog::new();
    for name in ["it", "legal", "owner", "farm"] {
        fork.add(&bench.world.identity(name));
    }
    bench.shown(vec![fork.show(4, None)]);
    assert!(bench.reconciler.log.alarm().is_some());
    let evidence = bench.reconciler.database.fact("fork log.example/test").unwrap().unwrap();
    assert_eq!(evidence, format!("{}\n{}", log.note(4, 2), fork.note(4, 2)));
}

#[test]
fn what_was_proven_runs_after_a_restart_with_nobody_to_ask() {
    let (mut bench, log, bundle) = proven();
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    let mut bench = bench.restarted();
    bench.ask(&log);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    // A new decision of the same stakeholder stops nothing while its proof is on its way.
    let mut again = bundle.clone();
    again.approvals[0] = bench.world.decide("it", &bundle.headers[0], Decision::Approve, 20);
    bench.hear(&again);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    assert_eq!(bench.question(), Some((4, vec![])), "the log is still where it was");
    // Whoever asks for more witnesses wants it proven by them.
    let mut bench = bench.restarted();
    bench.reconciler.ask_log(Asked::Log(Box::new(log.terms(1)))).unwrap();
    assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));
}

#[test]
fn a_version_that_runs_keeps_its_document_while_the_next_is_not_proven() {
    let (mut bench, _, _) = proven();
    bench.judge(50);
    bench.hear(&bench.world.updated(|_| {}, &["it", "legal"]));
    let runs = bench.judge(50);
    assert!(matches!(runs, Verdict::Run(agreed) if agreed.header.version == 1));
    let kept = &bench.reconciler.contracts[&bench.world.contract()];
    assert_eq!((kept.bundle.documents.len(), kept.past.version), (2, 1));
}

fn pinned(log: &TestLog, size: usize) -> Asked {
    Asked::Log(Box::new(log.terms_from(size)))
}

/// Until the log was held against what the farmer has pinned, also by a node that knew the log before.
#[test]
fn a_log_continues_what_is_pinned_or_proves_nothing() {
    for size in [0, 4] {
        let (mut bench, log, bundle) = asking(World::agreed);
        if size > 0 {
            bench.shown(vec![log.show(0, None)]);
        }
        let mut other = TestLog::new();
        other.add(&bench.world.identity("it"));
        bench.reconciler.ask_log(pinned(&other, 1)).unwrap();
        bench.hear(&bundle);
        bench.judge(50);
        let proof = log.show(size, Some(&bundle.headers[0]));
        bench.shown(vec![log.show_from(1, size), proof.clone()]);
        let alarm = bench.reconciler.log.alarm().unwrap();
        assert!(alarm.contains("is not shown to continue zos.checkpoint"), "{alarm}");
        assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));

        let mut bench = bench.restarted();
        bench.reconciler.ask_log(pinned(&log, 2)).unwrap();
        bench.judge(50);
        bench.reconciler.look_at_log(u64::MAX);
        let orders = std::iter::from_fn(|| bench.orders.try_recv().ok());
        let known = orders.into_iter().find_map(|order| match order {
            Order::Log { known, .. } => Some(known),
            _ => None,
        });
        assert_eq!(known, Some(registry_api::log::Known { size, pinned: Some(2) }));
        // Its first answer does not count by the witnesses, so that the next one is held against nothing.
        let uncounted = Shown { note: log.note(4, 0), ..log.show_from(2, size) };
        bench.shown(vec![uncounted, proof]);
        assert_eq!(bench.reconciler.log.alarm(), None);
        assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));
        let proofs = bundle.headers.iter().chain(&bundle.approvals);
        let proofs = proofs.map(|one| log.show(4, Some(one)));
        bench.shown(std::iter::once(log.show_from(2, size)).chain(proofs).collect());
        assert!(matches!(bench.judge(50), Verdict::Run(_)));

        // It was once, and need not be again.
        let mut bench = bench.restarted();
        bench.reconciler.ask_log(pinned(&log, 2)).unwrap();
        bench.shown(vec![log.show(4, None)]);
        assert!(bench.reconciler.log.fact().text.starts_with("what starts is in"));
        // Another one has to be. What was proven before goes on.
        let mut bench = bench.restarted();
        bench.reconciler.ask_log(pinned(&log, 3)).unwrap();
        bench.shown(vec![log.show(4, None)]);
        assert!(bench.reconciler.log.fact().text.contains("was not yet asked"));
        assert!(matches!(bench.judge(50), Verdict::Run(_)));
    }
}

/// Under the same name, and after a boot in which nothing was pinned.
#[test]
fn a_log_with_another_key_has_to_continue_it_itself() {
    let (mut bench, log, bundle) = asking(World::agreed);
    bench.reconciler.ask_log(pinned(&log, 2)).unwrap();
    bench.shown(vec![log.show_from(2, 0)]);
    assert!(bench.reconciler.log.fact().text.starts_with("what starts is in"), "positive control");
    let mut other = TestLog::with_key(7);
    bundle.headers.iter().for_each(|one| other.add(one));
    bench.ask(&other);
    bench.shown(vec![other.show(0, None)]);
    let terms = Terms { pinned: log.terms_from(2).pinned, ..other.terms(2) };
    bench.reconciler.ask_log(Asked::Log(Box::new(terms))).unwrap();
    bench.shown(vec![other.show_from(2, 1)]);
    assert!(bench.reconciler.log.alarm().is_some());
}

#[test]
fn what_is_proven_by_an_old_checkpoint_waits_and_what_runs_goes_on() {
    let (mut bench, log, bundle) = asking(World::agreed);
    let fresh = || Asked::Log(Box::new(Terms { fresh_s: Some(900), ..log.terms(2) }));
    bench.reconciler.ask_log(fresh()).unwrap();
    bench.hear(&bundle);
    bench.judge(50);
    let show = |bench: &mut Bench, late_s| {
        let all = bundle.headers.iter().chain(&bundle.approvals);
        let shown = all.map(|one| log.show(4, Some(one)));
        let shown = std::iter::once(log.show(0, None)).chain(shown).collect();
        let now = Timestamp::from_seconds(bench.world.now.seconds() + late_s);
        bench.reconciler.take_log(shown, &[], None, now).unwrap();
    };
    show(&mut bench, 901);
    assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));
    assert_eq!(bench.reconciler.log.alarm(), None);
    assert!(bench.reconciler.log.fact().text.contains("longer ago than zos.fresh allows"));
    show(&mut bench, 900);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    show(&mut bench, 1_000_000);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    let mut bench = bench.restarted();
    bench.reconciler.ask_log(fresh()).unwrap();
    assert!(matches!(bench.judge(50), Verdict::Run(_)), "also after a restart, with nobody to ask");
}

/// What a carrier has of the log, asked as the network thread asks it.
fn carried(log: &TestLog, known: registry_api::log::Known, of: &Bundle) -> Vec<Shown> {
    let all: Vec<&Envelope> = of.headers.iter().chain(&of.approvals).collect();
    let stick = crate::carriers::tests::with_log(log, &all);
    let ids: Vec<StatementId> = all.iter().map(|one| one.id().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(registry_api::log::ask(&stick, known, &ids)).shown
}

#[test]
fn what_was_carried_of_the_log_starts_a_contract_by_the_same_rule() {
    let (mut bench, log, bundle) = asking(World::agreed);
    bench.hear(&bundle);
    let known = registry_api::log::Known::default();
    // Of another log.
    let mut other = TestLog::with_key(7);
    bundle.headers.iter().chain(&bundle.approvals).for_each(|one| other.add(one));
    let shown = carried(&other, known, &bundle);
    bench.carried("sda", shown);
    assert_eq!(code(&bench.judge(50)), Some(Code::NotLogged));
    assert!(bench.reconciler.complaints.contains_key("carried log"));
    let shown = carried(&log, known, &bundle);
    bench.carried("sda", shown);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    assert!(!bench.reconciler.complaints.contains_key("carried log"));
    let written = bench.reconciler.database.fact("checkpoint log.example/test").unwrap().unwrap();
    assert_eq!(written, log.note(4, 2).to_string(), "on the disk, as from a registry");
}

/// A stick that was written last week is no sign of a log that goes back. A registry is.
#[test]
fn a_carrier_that_is_older_than_what_is_known_is_no_alarm_and_a_fork_is_one() {
    let (mut bench, mut log, bundle) = proven();
    let old = log.show(0, None);
    log.add(&bench.world.identity("it"));
    let newer = log.show(4, None);
    bench.shown(vec![newer]);
    bench.carried("sda", vec![old.clone()]);
    assert_eq!(bench.reconciler.log.alarm(), None);
    assert!(bench.reconciler.complaints["carried log"].contains("now shows 4"));
    assert!(matches!(bench.judge(50), Verdict::Run(_)), "what was proven stays proven");
    bench.shown(vec![old]);
    assert!(bench.reconciler.log.alarm().is_some(), "positive control");
    // Silence, and a carrier, do not end it.
    let known = registry_api::log::Known { size: 5, pinned: None };
    let shown = carried(&log, known, &bundle);
    bench.carried("sda", shown);
    assert!(bench.reconciler.log.alarm().is_some());
    bench.shown(vec![log.show(5, None)]);
    assert_eq!(bench.reconciler.log.alarm(), None);

    let mut fork = TestLog::new();
    for name in ["owner", "it", "legal", "budget", "farm"] {
        fork.add(&bench.world.identity(name));
    }
    bench.carried("sda", vec![fork.show(5, None)]);
    assert!(bench.reconciler.log.alarm().is_some());
}

/// Whoever answers as the registry can claim any size.
#[test]
fn carriers_are_asked_from_what_was_taken_and_one_time_after_the_other() {
    let (mut bench, log, bundle) = asking(World::agreed);
    bench.shown(vec![log.show(0, None)]);
    assert_eq!(bench.question_to_carriers(), None, "there is nothing to prove");
    bench.hear(&bundle);
    bench.judge(50);
    let mut other = TestLog::with_key(7);
    for name in ["owner", "it", "legal", "budget", "farm"] {
        other.add(&bench.world.identity(name));
    }
    let large = other.show(0, None);
    let (known, asked) = bench.question().unwrap();
    bench.shown(vec![large.clone()]);
    let (from, wanted) = bench.question_to_carriers().unwrap();
    assert_eq!((from, &wanted), (known, &asked));
    // However often the registry is asked meanwhile, a stick that is slow is asked once.
    bench.shown(vec![large.clone()]);
    bench.silence(&asked);
    assert_eq!(bench.question_to_carriers(), None);
    bench.carried("sda", vec![]);
    bench.shown(vec![large]);
    assert!(bench.question_to_carriers().is_some(), "positive control");
    // And what it has proves.
    let shown = carried(&log, registry_api::log::Known { size: from, pinned: None }, &bundle);
    bench.carried("sda", shown);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    bench.shown(vec![log.show(4, None)]);
    assert_eq!(bench.question_to_carriers(), None);
}

/// The stick was written where the log had gone on already.
#[test]
fn a_registry_that_is_behind_a_carrier_is_no_alarm_and_one_behind_itself_is() {
    let (mut bench, mut log, _) = proven();
    let own = log.show(4, None);
    log.add(&bench.world.identity("it"));
    bench.carried("sda", vec![log.show(4, None)]);
    for restart in [false, true] {
        if restart {
            bench = bench.restarted();
            bench.ask(&log);
        }
        bench.shown(vec![own.clone()]);
        assert_eq!(bench.reconciler.log.alarm(), None, "restart {restart}");
        assert!(bench.reconciler.log.fact().text.contains("now shows 4"));
    }
    bench.shown(vec![log.show(5, None)]);
    assert!(bench.reconciler.log.fact().text.starts_with("what starts is in"));
    // From now on it has shown that itself.
    bench.shown(vec![own]);
    assert!(bench.reconciler.log.alarm().is_some(), "positive control");
}

#[test]
fn what_is_wrong_with_a_stick_is_told_by_its_name_until_one_comes_or_goes() {
    let (mut bench, mut log, _) = proven();
    let old = log.show(0, None);
    log.add(&bench.world.identity("it"));
    bench.shown(vec![log.show(4, None)]);
    let newest = log.show(5, None);
    let one = |by: &str, shown| CarriedLog { by: by.into(), shown: vec![shown], problem: None };
    let now = bench.world.now;
    let both = || vec![one("sda", old.clone()), one("sdb", newest.clone())];
    for shown in [both(), both().into_iter().rev().collect()] {
        bench.reconciler.take_carried_log(shown, &[], now).unwrap();
        let said = &bench.reconciler.complaints["carried log"];
        assert!(said.starts_with("sda: the log has shown 5") && !said.contains("sdb"), "{said}");
    }
    bench.reconciler.take_carriers(false, false);
    assert!(bench.reconciler.complaints.contains_key("carried log"));
    bench.reconciler.take_carriers(false, true);
    assert!(!bench.reconciler.complaints.contains_key("carried log"));
}

/// A plug that is loose makes nobody ask all mirrors anew every two seconds.
#[test]
fn what_failed_is_tried_again_when_a_carrier_comes_and_not_more_often() {
    let mut bench = Bench::new();
    let flist = FlistId([1; 32]);
    let failed = || Files::Failed { until_ms: u64::MAX, code: "x", message: String::new() };
    let mut after = |came: bool, went: bool, now_ms: u64| {
        let reconciler = &mut bench.reconciler;
        reconciler.files.insert((bench.world.contract(), flist), failed());
        reconciler.take_carriers(came, went);
        reconciler.try_carriers(now_ms);
        reconciler.files.is_empty()
    };
    assert!(!after(false, true, 0), "nothing more can be had when one goes");
    assert!(!after(false, false, 0));
    assert!(after(true, false, 1000));
    assert!(!after(true, false, 1000 + CARRIERS_MS - 1), "too soon");
    assert!(after(false, false, 1000 + CARRIERS_MS), "and not forgotten");
}

/// A contract that stops without contact does so beside a stick.
#[test]
fn a_carrier_is_no_contact_and_takes_nothing_back() {
    let (mut bench, log, bundle) = proven();
    let before = format!("{:?}", bench.reconciler.contact);
    bench.hear(&bundle);
    bench.carried("sda", vec![log.show(4, None)]);
    bench.reconciler.take_carriers(true, true);
    assert_eq!(format!("{:?}", bench.reconciler.contact), before);
    assert!(!bench.reconciler.pulled);
    let mut old = bundle.clone();
    old.approvals.clear();
    bench.hear(&old);
    assert!(matches!(bench.judge(50), Verdict::Run(_)));
    bench.reconciler.take_contact();
    bench.reconciler.take_pulled();
    assert_ne!(format!("{:?}", bench.reconciler.contact), before, "positive control");
    assert!(bench.reconciler.pulled);
}
