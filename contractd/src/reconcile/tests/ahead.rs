//! What is fetched before its time, and what that may not stand in the way of.

use super::*;
use crate::plan::{Haste, prefix, workload_id};
use contract::verdict::Code;

/// The bench, before the time of a contract that is agreed on; and what that wants.
fn before_its_time() -> (Bench, (ContractId, FlistId)) {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    let verdict = bench.judge(-100);
    assert!(matches!(verdict, Verdict::Refuse(refusal) if refusal.code == Code::NotYet));
    look(&mut bench);
    let upcoming = &bench.reconciler.ahead.upcoming;
    let of = (upcoming[0].contract, upcoming[0].flist);
    (bench, of)
}

fn look(bench: &mut Bench) {
    let now = bench.world.at(-100);
    let this = &mut bench.reconciler;
    this.ahead.upcoming = judge::upcoming(&this.contracts, &this.verdicts, &this.trust, now);
}

fn words(bench: &Bench, contract: ContractId) -> Option<String> {
    bench.reconciler.ahead_in_words().remove(&contract)
}

#[test]
fn what_was_fetched_early_is_wanted_at_once_when_its_time_has_come() {
    let (mut bench, of) = before_its_time();
    let this = &mut bench.reconciler;
    let (none, have) = (BTreeSet::new(), Have::default());
    this.look_ahead(&none);
    let steps = this.fetches_ahead(&none, &have);
    assert!(matches!(&steps[..], [Step::Fetch { haste: Haste::Early, .. }]), "{steps:?}");
    this.apply(steps[0].clone(), &Have::default()).unwrap();
    let ordered = bench.orders.try_recv();
    assert!(matches!(&ordered, Ok(Order::Fetch(wanted)) if wanted.haste == Haste::Early));
    assert_eq!(words(&bench, of.0).unwrap(), "its files are on their way");

    // It fails, waits for longer each time, and says so once, whatever is said of it.
    let mut tries = 0;
    let mut failed = || {
        tries += 1;
        Err(("source_unreachable", format!("nobody answers, try {tries}")))
    };
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.reconciler.take_fetched(of.0, of.1, failed());
        waits.push(bench.reconciler.unfetched[&of].delay_ms);
        let said = words(&bench, of.0).unwrap();
        bench.reconciler.files.insert(of, Files::Fetching);
        assert_eq!(words(&bench, of.0).unwrap(), said);
        assert_eq!(said, "its files could not be had yet: source_unreachable");
    }
    assert_eq!((waits[0], waits[11]), (RETRY_MS, RETRY_AHEAD_MAX_MS));
    bench.reconciler.take_fetched(of.0, of.1, failed());

    assert!(matches!(bench.judge(10), Verdict::Run(_)));
    look(&mut bench);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let this = &mut bench.reconciler;
    this.look_ahead(&store::flists_of(&wants).collect());
    assert!(this.files.is_empty() && this.unfetched.is_empty());
    assert!(this.ahead_in_words().is_empty());
}

#[test]
fn what_is_here_before_its_time_stays_and_says_so() {
    let (mut bench, of) = before_its_time();
    bench.reconciler.look_ahead(&BTreeSet::new());
    bench.reconciler.take_fetched(of.0, of.1, Ok(()));
    bench.reconciler.forget_fetches(&BTreeSet::from([of]));
    assert_eq!(words(&bench, of.0).unwrap(), "its files are here");
    let this = &mut bench.reconciler;
    let have = Have { ahead: this.ahead_in_words(), ..Have::default() };
    let line = status::contract(&of.0, &this.verdicts[&of.0], &have, None);
    assert_eq!((line.state, line.code.as_str()), (State::Refused, "not_yet"));
    assert!(line.message.ends_with("Z; its files are here"), "{}", line.message);
    bench.judge(10);
    look(&mut bench);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let needed = store::flists_of(&wants).collect();
    bench.reconciler.look_ahead(&needed);
    bench.reconciler.forget_fetches(&needed);
    assert_eq!(bench.reconciler.files, BTreeMap::from([(of, Files::Ready)]));
    // Its fetch ends when the contract does.
    bench.reconciler.files.insert(of, Files::Fetching);
    bench.reconciler.forget_fetches(&BTreeSet::new());
    let orders: Vec<_> = std::iter::from_fn(|| bench.orders.try_recv().ok()).collect();
    assert!(matches!(orders[..], [Order::Forget(one, flist)] if (one, flist) == of));
}

/// One early fetch from a server that drips kept files from being removed, and user ids from being free.
#[test]
fn early_fetches_hold_up_no_sweep_and_go_on_behind_it() {
    let (mut bench, of) = before_its_time();
    let image = FlistId([7; 32]);
    let path = bench.directory.path().join(format!("store/images/{image}.flist"));
    std::fs::write(&path, "anything").unwrap();
    let this = &mut bench.reconciler;
    (this.pulled, this.worth) = (true, Worth::Confirmed);
    let none = BTreeSet::new();
    this.look_ahead(&none);
    let mut have = Have { now_ms: 1, ..Have::default() };
    let steps = this.fetches_ahead(&none, &have);
    this.apply(steps[0].clone(), &have).unwrap();
    this.keep_house(&[], &have).unwrap();
    assert_eq!(this.files.get(&of), Some(&Files::Fetching), "nothing may go yet");
    have.now_ms += 2 * 3_600_000;
    this.keep_house(&[], &have).unwrap();
    assert!(this.files.is_empty() && path.exists(), "it is stopped");
    assert_eq!(this.fetches_ahead(&none, &have), [], "until that is done");
    this.keep_house(&[], &have).unwrap();
    assert!(!path.exists());
    assert!(matches!(this.fetches_ahead(&none, &have)[..], [Step::Fetch { .. }]));
    let orders: Vec<_> = std::iter::from_fn(|| bench.orders.try_recv().ok()).collect();
    assert!(
        matches!(orders[..], [Order::Fetch(_), Order::Forget(one, flist)] if (one, flist) == of)
    );
}

/// What was fetched early for a contract that will not come about stayed for as long as its term.
#[test]
fn early_files_stay_until_their_contract_is_not_about_to_run() {
    for (is_upcoming, stays) in [(true, true), (false, false)] {
        let (mut bench, of) = before_its_time();
        let path = bench.directory.path().join(format!("store/images/{}.flist", of.1));
        std::fs::write(&path, "anything").unwrap();
        let this = &mut bench.reconciler;
        (this.pulled, this.worth) = (true, Worth::Confirmed);
        if !is_upcoming {
            this.ahead.upcoming.clear();
        }
        for now_ms in [1, 2 * 3_600_000] {
            this.keep_house(&[], &Have { now_ms, ..Have::default() }).unwrap();
        }
        assert_eq!(path.exists(), stays);
    }
}

/// An old version that goes on was taken for one that is ending, for ten minutes.
#[test]
fn an_update_that_waits_holds_up_no_sweep() {
    for (is_held, stays) in [(true, false), (false, true)] {
        let mut bench = Bench::new();
        let contract = bench.world.contract();
        let path = bench.directory.path().join(format!("store/images/{}.flist", FlistId([7; 32])));
        std::fs::write(&path, "anything").unwrap();
        let this = &mut bench.reconciler;
        this.pulled = true;
        let mut have = Have::default();
        have.processes.insert(workload_id(&contract, "gone"), init::ProcessState::Running);
        have.held.extend(is_held.then_some(contract));
        for now_ms in [1, 2 * 3_600_000] {
            have.now_ms = now_ms;
            this.keep_house(&[], &have).unwrap();
        }
        assert_eq!(path.exists(), stays);
    }
}

#[test]
fn an_old_version_goes_on_for_a_time_and_not_for_ever() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let contract = wants[0].contract;
    let id = workload_id(&contract, "web");
    assert!(id.starts_with(&prefix(&contract)));
    let mut have = Have { now_ms: 5, ..Have::default() };
    have.processes.insert(id, init::ProcessState::Running);
    let this = &mut bench.reconciler;
    for (now_ms, is_held) in [(5, true), (600_004, true), (600_005, false), (700_000, false)] {
        have.now_ms = now_ms;
        have.held = this.hold_updates(&wants, &have);
        assert_eq!(have.held.contains(&contract), is_held, "{now_ms}");
        let told = status::contract(&contract, &this.verdicts[&contract], &have, None).message;
        let old = if is_held { "; the one before goes on until its files are here" } else { "" };
        assert_eq!(told, format!("version 1 is agreed on{old}"));
    }
    // The next update has its own time.
    assert_eq!(this.hold_updates(&[], &have), BTreeSet::new());
    assert_eq!(this.hold_updates(&wants, &have), BTreeSet::from([contract]));
}
