//! What somebody could put into a file so that an audit says what is not so; each beside the honest
//! file from which it differs by that alone.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod life;
mod reports;

use contract::{
    Envelope, SigningKey, Timestamp,
    decision::{Approval, Cancel, Decision, Retention},
    farm::{Adoption, Farm, Pool},
    header::{Header, OnPartition},
    node::Node,
    report::{Report, State},
    testkit::seal,
};
use life::{Life, Told, again, at, codes, look, policy, proofs, ran, running, signers};
use threebot::{
    audit::{Code, Expected, Refused, STOP_S},
    evidence::{Evidence, NotEvidence},
};

#[test]
fn an_honest_life_fits_together_and_says_so_in_full() {
    let life = Life::that_runs();
    let found = life.audit();
    assert_eq!(found.findings, []);
    assert_eq!((found.owner, &*found.network), (life.world.id("owner"), "test"));
    assert_eq!(found.nodes[0].farm, life.world.id("farm"));
    assert_eq!((found.nodes[0].first, found.nodes[0].last), (1, 2));
    let log = found.log.unwrap();
    assert_eq!((log.proven, log.wanted, log.size, log.quorum), (5, 5, 5, 2));
    assert_eq!(log.seen, Some(at(0)));
    let version = &found.versions[0];
    assert!(version.agreed && version.rules[0].contains(&life.world.id("it").to_string()));
    let name = &version.decisions[0].name;
    assert!(name.contains(&version.decisions[0].identity.to_string()), "the whole id: {name}");
    assert_eq!((found.runs.len(), found.runs[0].entry), (1, Some(4)));
}

/// The node ran the bytes on Monday; the stakeholders approved on Friday, with Monday's date.
#[test]
fn what_was_approved_after_it_ran_was_not_agreed_on() {
    let mut life = Life::new();
    life.propose(|_| {});
    life.decide("it", 1, Decision::Approve, 10);
    life.tell(running(30, 1));
    life.decide("legal", 1, Decision::Approve, 10);
    assert_eq!(life.codes(), [Code::NotAgreed]);
    assert!(life.audit().versions[0].agreed, "it is by now");
    assert_eq!(
        life.codes_by_times(),
        [],
        "without a log the times that they wrote are all there is"
    );

    // Nor does it help to report it late: what the node wrote is before what they wrote.
    let mut life = Life::new();
    life.propose(|_| {});
    life.approve(1, 900);
    life.tell(running(30, 1));
    assert_eq!(life.codes(), [Code::NotAgreed]);
    assert_eq!(life.codes_by_times(), [Code::NotAgreed]);

    let mut honest = Life::new();
    honest.propose(|_| {});
    honest.approve(1, 900);
    honest.tell(running(930, 1));
    assert_eq!((honest.codes(), honest.codes_by_times()), (vec![], vec![]));
    // A stakeholder's clock may be ahead of the node's.
    let mut ahead = Life::new();
    ahead.propose(|_| {});
    ahead.approve(1, 100);
    ahead.tell(running(30, 1));
    assert_eq!(ahead.codes(), []);
}

#[test]
fn a_version_that_was_logged_after_it_ran_was_not_agreed_on() {
    let mut life = Life::that_runs();
    assert_eq!(life.codes(), []);
    let header = life.logged.remove(0);
    life.logged.push(header);
    assert_eq!(life.codes(), [Code::NotAgreed]);
}

/// Allowed, and no reason to call what ran before unlawful.
#[test]
fn who_takes_an_approval_back_condemns_what_runs_afterwards_alone() {
    let mut life = Life::that_runs();
    life.decide("legal", 1, Decision::Withdraw, 600);
    let found = life.audit();
    assert_eq!((found.findings, found.versions[0].agreed), (vec![], false));
    assert_eq!(life.codes_by_times(), []);
    assert_eq!(found.versions[0].decisions.len(), 2, "with what stands now");
    // A node may not have heard of it yet.
    life.tell(running(700, 1));
    assert_eq!(life.codes(), []);
    let id = life.tell(running(1200, 1));
    let found = life.audit();
    assert_eq!(codes(&found), [Code::NotAgreed]);
    assert_eq!(found.findings[0].statement, Some(id));

    // With a time before the run, as the log shows that it came later.
    let mut life = Life::that_runs();
    life.decide("legal", 1, Decision::Reject, 11);
    assert_eq!(life.codes(), []);
    assert!(!life.audit().versions[0].agreed);
}

/// A node says once for each version that a job is done.
#[test]
fn what_is_said_again_of_a_later_version_is_one_run() {
    let done = |at, version| -> Told { (at, version, Some("web"), State::Done, Some(ran(9))) };
    let updated = || {
        let mut life = Life::that_runs();
        life.tell(done(40, 1));
        life.propose(|_| {});
        life.approve(2, 50);
        life
    };
    let mut life = updated();
    life.tell(done(60, 2));
    let found = life.audit();
    assert_eq!(codes(&found), []);
    let runs: Vec<_> = found.runs.iter().map(|run| (run.state, run.version)).collect();
    assert_eq!(runs, [(State::Running, 1), (State::Done, 1)]);
    // Positive control: it ran again.
    let mut life = updated();
    life.tell(running(60, 2));
    life.tell(done(70, 2));
    assert_eq!(life.audit().runs.len(), 4);
}

#[test]
fn what_has_ended_does_not_run() {
    let cancelled = || {
        let mut life = Life::that_runs();
        life.cancel(100, 200, &["it", "legal"]);
        life.tell((205, 1, Some("web"), State::Stopped, None));
        life
    };
    assert_eq!(cancelled().codes(), []);
    let mut again = cancelled();
    again.tell(running(9000, 1));
    assert_eq!(again.codes(), [Code::Ended], "started again after the end");
    let mut half = Life::that_runs();
    half.cancel(100, 200, &["legal"]);
    half.tell(running(9000, 1));
    assert_eq!(half.codes(), [], "positive control: too few wanted it to end");
    assert!(!half.audit().cancels[0].agreed);

    // What has ended stays ended, also when an approval of the end is taken back.
    let mut back = cancelled();
    back.tell((800, 1, None, State::Stopped, None));
    let order = back.evidence.cancels[0].id().unwrap();
    let mut decision = back.world.decision("legal", &back.evidence.headers[0], Decision::Withdraw);
    (decision.subject, decision.action) = (order, contract::decision::Action::Cancel);
    decision.issued = at(900);
    let decision = seal(&decision, back.world.key("legal"));
    back.logged.push(decision.clone());
    back.evidence.approvals.push(decision);
    assert_eq!(back.codes(), []);
    back.tell(running(2000, 1));
    assert_eq!(back.codes(), [Code::Ended]);

    // The header says 10,000, and that is when it ends, by a verdict that is two seconds old.
    for (when, wanted) in [(10_001, vec![]), (10_002, vec![Code::Ended])] {
        let mut life = Life::that_runs();
        life.tell(running(when, 1));
        assert_eq!(life.codes(), wanted, "{when}");
    }
}

#[test]
fn what_runs_on_past_the_end_is_found_by_the_report_of_its_end() {
    for (stopped, wanted) in [(10_000 + STOP_S - 1, vec![]), (10_000 + STOP_S, vec![Code::RanOn])] {
        let mut life = Life::that_runs();
        life.tell((stopped, 1, Some("web"), State::Stopped, None));
        assert_eq!(life.codes(), wanted, "{stopped}");
    }
    // A node that was off in between reports when it is back.
    let mut off = Life::that_runs();
    let stopped: Told = (50_000, 1, Some("web"), State::Stopped, None);
    off.tell_by(0, stopped, |report| report.boot = "later".into());
    assert_eq!(off.codes(), []);
    // It never says that it ended, and reports something else.
    let mut silent = Life::that_runs();
    silent.tell_by(0, (50_000, 0, None, State::Refused, None), |report| {
        report.contract = contract::ContractId([8; 32]);
    });
    assert_eq!(silent.codes(), [Code::RanOn]);
}

#[test]
fn nothing_runs_before_it_is_to_start_or_begins_too_late() {
    let from = |first: i64, not_before: i64| {
        let mut life = Life::new();
        life.propose(|header| header.not_before = at(not_before));
        life.approve(1, 10);
        life.tell(running(first, 1));
        life
    };
    assert_eq!(from(100, 100).codes(), []);
    assert_eq!(from(99, 100).codes(), [Code::TooEarly]);
    assert_eq!(from(5002, 0).codes(), []);
    assert_eq!(from(5003, 0).codes(), [Code::TooLate]);
    let mut again = from(5000, 0);
    again.tell(running(6000, 1));
    assert_eq!(again.codes(), [], "it was started in time");
    let mut accepted = Life::agreed();
    accepted.tell((20, 1, None, State::Accepted, None));
    accepted.tell(running(6000, 1));
    assert_eq!(accepted.codes(), [], "it was begun in time, and took long");
}

#[test]
fn no_version_runs_below_one_that_was_in_force() {
    let updated = |approved: i64| {
        let mut life = Life::that_runs();
        life.propose(|_| {});
        life.approve(2, approved);
        life
    };
    let mut honest = updated(300);
    honest.tell(running(320, 2));
    assert_eq!(honest.codes(), []);
    let found = honest.audit();
    assert_eq!(found.runs[0].until, Some(at(320)));
    assert_eq!(found.versions[1].rules.len(), 2, "under the old rule and the new one");

    honest.tell(running(900, 1));
    assert_eq!(honest.codes(), [Code::WentBack]);
    let mut ignored = updated(300);
    ignored.tell(running(900, 1));
    assert_eq!(ignored.codes(), [Code::WentBack], "it never ran the new one");
    // The new one is blocked: that revives no older one.
    let mut blocked = updated(300);
    blocked.tell(running(320, 2));
    blocked.decide("legal", 2, Decision::Withdraw, 400);
    assert_eq!(blocked.codes(), []);
    blocked.tell(running(900, 1));
    assert_eq!(blocked.codes(), [Code::WentBack]);
    let mut early = updated(900);
    early.tell(running(320, 2));
    assert_eq!(early.codes(), [Code::NotAgreed], "nobody had approved it");
}

#[test]
fn a_workload_that_an_update_drops_ends_with_it() {
    let mut life = Life::that_runs();
    let mut document = life.world.document(2);
    document.workloads[0].name = "other".into();
    life.propose_for(2, &[document], |_| {});
    life.approve(2, 100);
    life.tell((120, 2, None, State::Accepted, None));
    life.tell((130, 2, Some("other"), State::Running, Some(ran(9))));
    let found = life.audit();
    assert_eq!(found.findings, []);
    let until: Vec<Option<Timestamp>> = found.runs.iter().map(|run| run.until).collect();
    assert_eq!(until, [Some(at(120)), None]);
}

/// Its health check never passes, so it never reports that it runs; its processes do all the same.
#[test]
fn bytes_are_held_against_the_contract_whatever_the_report_calls_them() {
    let report = |state: State, code: &'static str, ran: Option<contract::report::Ran>| {
        let mut life = Life::agreed();
        life.tell_by(0, (30, 1, Some("web"), state, ran), |report| report.code = code.into());
        life
    };
    for (state, code) in [
        (State::Running, "running"),
        (State::Accepted, "starting"),
        (State::Failed, "exited"),
        (State::Stopped, "anything"),
    ] {
        let honest = report(state, code, Some(ran(9)));
        assert_eq!((honest.codes(), honest.audit().runs.len()), (vec![], 1), "{state:?}");
        assert_eq!(report(state, code, Some(ran(8))).codes(), [Code::OtherBytes], "{state:?}");
    }
    for (state, code) in [(State::Running, "running"), (State::Accepted, "starting")] {
        assert_eq!(report(state, code, None).codes(), [Code::Unmeasured], "{state:?}");
    }
    assert_eq!(report(State::Failed, "exited", None).codes(), [], "it says that nothing runs");
}

#[test]
fn each_field_of_a_report_counts() {
    type Edit = fn(&mut Report);
    let rows: [(&str, Edit, Option<Code>); 10] = [
        ("message", |report| report.message.clear(), None),
        ("code", |report| report.code = "other".into(), None),
        ("version", |report| report.version = 2, Some(Code::NotAgreed)),
        ("no header", |report| report.header = None, Some(Code::NotAgreed)),
        (
            "header",
            |report| report.header = Some(contract::StatementId([3; 32])),
            Some(Code::NotAgreed),
        ),
        ("workload", |report| report.workload = Some("miner".into()), Some(Code::NotAgreed)),
        ("no workload", |report| report.workload = None, Some(Code::NotAgreed)),
        ("at", |report| report.at = at(400_000_000), Some(Code::Ended)),
        ("flist", |report| report.ran = Some(ran(8)), Some(Code::OtherBytes)),
        ("network", |report| report.network = "other".into(), Some(Code::WrongNetwork)),
    ];
    for (field, edit, wanted) in rows {
        let mut life = Life::agreed();
        life.tell((20, 1, None, State::Accepted, None));
        life.tell_by(0, running(30, 1), edit);
        assert_eq!(life.codes(), wanted.into_iter().collect::<Vec<_>>(), "{field}");
    }
}

#[test]
fn a_file_that_shows_nothing_does_not_fit_together() {
    assert_eq!(Life::that_runs().codes(), [], "positive control");
    assert_eq!(Life::agreed().codes(), [Code::NoReports]);
    let open = || {
        let mut life = Life::new();
        life.propose(|_| {});
        life
    };
    let found = open().audit();
    assert!(found.findings.is_empty() && found.runs.is_empty() && !found.versions[0].agreed);

    let two_nodes = Life::on_two_nodes;
    assert_eq!(two_nodes(&[0, 1]).codes(), []);
    assert_eq!(two_nodes(&[0]).codes(), [Code::NoReports]);
    assert_eq!(two_nodes(&[1]).codes(), [Code::NoReports]);
    // It is not agreed on any more; the other node was to report all the same.
    for (reporting, wanted) in [(&[0, 1][..], vec![]), (&[0], vec![Code::NoReports])] {
        let mut withdrawn = two_nodes(reporting);
        withdrawn.decide("legal", 1, Decision::Withdraw, 600);
        assert_eq!(withdrawn.codes(), wanted);
    }
    // Without its document nobody would miss the node.
    let mut hidden = two_nodes(&[0]);
    hidden.evidence.documents.remove(1);
    assert_eq!(hidden.codes(), [Code::NoDocument]);
    let mut runs = two_nodes(&[0, 1]);
    runs.evidence.documents.remove(1);
    let found = runs.audit();
    assert_eq!(codes(&found), [Code::NoDocument]);
    // The pool names the node, so what it ran counts as well.
    assert_eq!(found.findings.len(), 2, "once for the version, once for what that node ran");
}

#[test]
fn reports_are_on_one_chain_and_what_is_cut_off_is_told() {
    let mut life = Life::that_runs();
    life.tell((40, 1, Some("web"), State::Failed, None));
    life.tell(running(50, 1));
    assert_eq!(life.codes(), []);
    assert_eq!(life.changed(|evidence| drop(evidence.reports.remove(2))), [Code::Gap]);
    let cut = |evidence: &mut Evidence| drop(evidence.reports.drain(..2));
    assert_eq!(life.changed(cut), [Code::Cut]);
    let mut short = life.proven();
    cut(&mut short);
    let found =
        look(&short, Some(&policy(2)), &Expected { from_first: false, ..life.expected() }).unwrap();
    assert_eq!((codes(&found), found.nodes[0].first, found.nodes[0].last), (vec![], 3, 4));

    // The node has signed something else for the same place; both are looked into.
    let twice = |evidence: &mut Evidence| {
        let mut other = evidence.reports[3].clone();
        let key = SigningKey::from_seed(&[77; 32]);
        again::<Report>(&mut other, &key, |report| report.ran = Some(ran(8)));
        evidence.reports.push(other);
    };
    assert_eq!(life.changed(twice), [Code::Forked, Code::OtherBytes, Code::NotLogged]);
    let forked = |evidence: &mut Evidence| {
        let key = SigningKey::from_seed(&[77; 32]);
        again::<Report>(&mut evidence.reports[2], &key, |report| report.message.clear());
    };
    assert_eq!(life.changed(forked), [Code::Forked, Code::NotLogged]);
    let stranger = |evidence: &mut Evidence| {
        again::<Report>(&mut evidence.reports[3], &SigningKey::from_seed(&[1; 32]), |_| {});
    };
    assert_eq!(life.changed(stranger), [Code::Unsigned]);
    assert_eq!(life.changed(|evidence| evidence.nodes.clear()), [Code::Unsigned, Code::NoReports]);
}

/// The owner invents a node, and signs for it.
#[test]
fn a_node_belongs_to_a_farm_that_has_adopted_it_and_granted_the_pool() {
    let life = Life::that_runs();
    assert_eq!(life.codes(), []);
    let elsewhere = |evidence: &mut Evidence| {
        let key = SigningKey::from_seed(&[77; 32]);
        again::<Node>(&mut evidence.nodes[0], &key, |node| node.network = "other".into());
    };
    assert_eq!(life.changed(elsewhere), [Code::Unsigned, Code::WrongNetwork, Code::NoReports]);

    // What consents is a grant that names the node, or else an adoption by a token of the farm's.
    let adopted = |edit: &dyn Fn(&mut Evidence)| {
        let mut life = Life::new();
        let mut pool = life.world.pool();
        pool.nodes[0].0 = [4; 32];
        life.evidence.pools = vec![seal(&pool, life.world.key("farm"))];
        let id = life.evidence.pools[0].id().unwrap();
        life.propose(|header| header.pool = id);
        life.approve(1, 10);
        life.tell((20, 1, None, State::Refused, None));
        edit(&mut life.evidence);
        life.codes()
    };
    assert_eq!(adopted(&|_| {}), []);
    assert_eq!(adopted(&|evidence| evidence.adoptions.clear()), [Code::NotAdopted]);
    assert_eq!(adopted(&|evidence| evidence.farms.clear()), [Code::NotAdopted]);
    let by_owner = |evidence: &mut Evidence| {
        again::<Adoption>(&mut evidence.adoptions[0], life.world.key("owner"), |_| {});
    };
    assert_eq!(adopted(&by_owner), [Code::NotAdopted]);
    let no_token = |evidence: &mut Evidence| {
        let farm = life.world.key("farm");
        again::<Farm>(&mut evidence.farms[0], farm, |farm| farm.enrolment.clear());
    };
    assert_eq!(adopted(&no_token), [Code::NotAdopted]);
    assert_eq!(life.changed(no_token), [], "what ran before the token was dropped was granted");

    let with_pool = |edit: &dyn Fn(&mut Pool), by: &'static str| {
        let mut life = Life::new();
        let mut pool = life.world.pool();
        edit(&mut pool);
        life.evidence.pools = vec![seal(&pool, life.world.key(by))];
        let id = life.evidence.pools[0].id().unwrap();
        life.propose(|header| header.pool = id);
        life.approve(1, 10);
        life.tell(running(30, 1));
        life.codes()
    };
    let owner = life.world.id("owner");
    let stranger = life.world.id("stranger");
    assert_eq!(with_pool(&|_| {}, "farm"), []);
    assert_eq!(with_pool(&|_| {}, "owner"), [Code::Unsigned, Code::Pool], "its own grant");
    assert_eq!(with_pool(&|pool| pool.farm = owner, "owner"), [Code::Pool], "its own farm");
    assert_eq!(with_pool(&|pool| pool.owner = stranger, "farm"), [Code::Pool]);
    assert_eq!(with_pool(&|pool| pool.nodes[0].0 = [4; 32], "farm"), [Code::Pool]);
    assert_eq!(with_pool(&|pool| pool.expires = at(28), "farm"), [Code::Pool]);
    assert_eq!(with_pool(&|pool| pool.expires = at(29), "farm"), []);
    assert_eq!(with_pool(&|pool| pool.amounts.cu_seconds = 1, "farm"), [Code::Pool]);
}

#[test]
fn evidence_about_something_else_is_refused() {
    let life = Life::that_runs();
    let (evidence, policy) = (life.proven(), policy(2));
    let refused = |expected: &Expected<'_>| {
        let refused: Refused = look(&evidence, Some(&policy), expected).unwrap_err();
        refused.code()
    };
    let contract = contract::ContractId([7; 32]);
    assert_eq!(refused(&Expected { contract, ..life.expected() }), "other_contract");
    assert_eq!(refused(&Expected { network: "main", ..life.expected() }), "wrong_network");
    let without = |edit: &dyn Fn(&mut Evidence)| {
        let mut evidence = life.proven();
        edit(&mut evidence);
        look(&evidence, Some(&policy), &life.expected()).unwrap_err().code()
    };
    assert_eq!(without(&|evidence| evidence.headers.clear()), "broken_chain");
    assert_eq!(without(&|evidence| evidence.identities.clear()), "unknown_identity");
    let key = life.world.key("stranger");
    let forged = |evidence: &mut Evidence| again::<Header>(&mut evidence.headers[0], key, |_| {});
    assert_eq!(without(&forged), "owner_signature");
}

#[test]
fn what_is_forged_or_cannot_be_read_is_told() {
    let life = Life::that_runs();
    let key = life.world.key("stranger");
    let approval = |evidence: &mut Evidence| {
        again::<Approval>(&mut evidence.approvals[0], key, |_| {});
    };
    assert_eq!(life.changed(approval), [Code::Unsigned, Code::NotAgreed]);
    let cancel = |evidence: &mut Evidence| evidence.cancels.push(seal(&life.world.cancel(), key));
    assert_eq!(life.changed(cancel), [Code::Unsigned, Code::NotLogged]);
    let mut update = Life::that_runs();
    update.propose(|_| {});
    assert_eq!(update.codes(), []);
    again::<Header>(&mut update.evidence.headers[1], update.world.key("stranger"), |_| {});
    assert_eq!(update.codes(), [Code::Unsigned]);

    let lists: [fn(&mut Evidence) -> &mut Vec<Envelope>; 8] = [
        |evidence| &mut evidence.approvals,
        |evidence| &mut evidence.cancels,
        |evidence| &mut evidence.identities,
        |evidence| &mut evidence.pools,
        |evidence| &mut evidence.nodes,
        |evidence| &mut evidence.farms,
        |evidence| &mut evidence.adoptions,
        |evidence| &mut evidence.reports,
    ];
    for (place, list) in lists.into_iter().enumerate() {
        let found = life.changed(|evidence| {
            let mut spoiled = evidence.headers[0].clone();
            spoiled.payload = "e30=".into();
            list(evidence).push(spoiled);
        });
        assert!(found.contains(&Code::Malformed), "{place}: {found:?}");
    }
    let document = |evidence: &mut Evidence| evidence.documents[0].document = "e30=".into();
    assert_eq!(life.changed(document), [Code::Malformed, Code::NoDocument]);
}

#[test]
fn data_is_deleted_by_an_order_only() {
    let wiped = |by: &[&'static str], retention: Retention| {
        let mut life = Life::that_runs();
        life.cancel(100, 200, &[]);
        again::<Cancel>(&mut life.evidence.cancels[0], life.world.key("owner"), |cancel| {
            cancel.retention = retention;
        });
        let order = life.evidence.cancels[0].clone();
        *life.logged.last_mut().unwrap() = order.clone();
        for name in by {
            let header = &life.evidence.headers[0];
            let mut decision = life.world.decision(name, header, Decision::Approve);
            (decision.subject, decision.issued) = (order.id().unwrap(), at(110));
            decision.action = contract::decision::Action::Cancel;
            let decision = seal(&decision, life.world.key(name));
            life.logged.push(decision.clone());
            life.evidence.approvals.push(decision);
        }
        life.tell((210, 1, Some("web"), State::Stopped, None));
        life.tell((600, 1, None, State::Wiped, None));
        life.codes()
    };
    assert_eq!(wiped(&["it", "legal"], Retention::Wipe), []);
    assert_eq!(wiped(&["it"], Retention::Wipe), [Code::WipedUnordered]);
    assert_eq!(wiped(&["it", "legal"], Retention::KeepUntil(at(600))), []);
    let early = wiped(&["it", "legal"], Retention::KeepUntil(at(601)));
    assert_eq!(early, [Code::WipedUnordered]);
}

#[test]
fn proofs_are_of_one_log_that_enough_witnesses_have_seen() {
    let life = Life::that_runs();
    assert_eq!(life.codes(), []);
    assert_eq!(life.changed(|evidence| drop(evidence.proofs.pop())), [Code::NotLogged]);
    let swapped = |evidence: &mut Evidence| {
        evidence.proofs[0].proof = evidence.proofs[1].proof.clone();
    };
    let found = life.changed(swapped);
    assert_eq!(found, [Code::NotAgreed, Code::BadProof], "and so the version was not there");

    let one_witness = proofs(&life.logged, &signers()[..2]);
    let with_one = |evidence: &mut Evidence| evidence.proofs = one_witness.clone();
    let found = life.changed(with_one);
    assert!(found.contains(&Code::BadProof), "{found:?}");
    let mut evidence = life.proven();
    with_one(&mut evidence);
    let found = look(&evidence, Some(&policy(1)), &life.expected()).unwrap();
    assert_eq!(codes(&found), [], "positive control: one is enough for this policy");

    // Log and witnesses sign two pasts, and each statement is proven in the one that suits.
    let mut other = life.logged.clone();
    other.swap(1, 2);
    let other = proofs(&other, &signers());
    let found = life.changed(|evidence| evidence.proofs[4] = other[4].clone());
    assert_eq!(found, [Code::ForkedLog]);
    let found = life.changed(|evidence| {
        evidence.proofs[1] =
            other.iter().find(|one| one.statement == evidence.proofs[1].statement).unwrap().clone();
    });
    assert_eq!(found, [Code::ForkedLog]);
}

/// The form of the file is for as long as somebody may have to prove something.
#[test]
fn a_file_of_this_format_is_read_and_one_of_another_is_told() {
    let mut life = Life::new();
    life.propose(|header| header.execution.on_partition = OnPartition::Keep);
    life.approve(1, 10);
    life.tell((20, 1, None, State::Accepted, None));
    life.tell(running(30, 1));
    life.cancel(100, 200, &["it", "legal"]);
    let evidence = life.proven();
    let written = serde_json::to_string(&evidence).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/evidence-1.json");
    if std::env::var_os("ZOS_WRITE_DATA").is_some() {
        std::fs::write(path, format!("{written}\n")).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(golden.trim_end(), written, "ZOS_WRITE_DATA=1 writes it, with another format");
    let read = Evidence::read(golden.trim_end().as_bytes()).unwrap();
    assert_eq!(read, evidence);
    assert_eq!(codes(&look(&read, Some(&policy(2)), &life.expected()).unwrap()), []);

    for other in [written.replace("\"format\":1", "\"format\":2"), "{\"format\":3}".into()] {
        let error = Evidence::read(other.as_bytes()).unwrap_err();
        assert!(matches!(error, NotEvidence::Format(2 | 3)), "{error}");
    }
    let error = Evidence::read(b"{\"format\":1}").unwrap_err();
    assert!(matches!(error, NotEvidence::Read(_)), "{error}");
}
