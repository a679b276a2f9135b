//! What nodes report, and when: what a dishonest one could leave out, and what an honest one cannot help.

use crate::life::{Life, again, at, codes, ran, running};
use contract::{
    ContractId, Envelope, FlistId, NodeId, SigningKey,
    decision::{Action, Decision},
    header::{Header, OnPartition},
    report::{Report, State},
    testkit::seal,
};
use threebot::audit::Code;

/// A report of the same boot about something else: the node is there, and says no word of an end.
fn about_others(life: &mut Life, when: i64) {
    life.tell_by(0, (when, 0, None, State::Refused, None), |report| {
        report.contract = ContractId([8; 32]);
    });
}

#[test]
fn what_runs_on_after_any_news_that_ends_it_is_found() {
    let news = |what: usize| {
        let mut life = Life::new();
        if what == 2 {
            let mut pool = life.world.pool();
            pool.expires = at(600);
            life.evidence.pools = vec![seal(&pool, life.world.key("farm"))];
        }
        let pool = life.evidence.pools[0].id().unwrap();
        life.propose(|header| header.pool = pool);
        life.approve(1, 10);
        life.tell(running(30, 1));
        match what {
            0 => life.decide("legal", 1, Decision::Withdraw, 600),
            1 => life.decide("legal", 1, Decision::Reject, 600),
            _ => {}
        }
        life
    };
    for what in 0..3 {
        let mut silent = news(what);
        about_others(&mut silent, 5000);
        assert_eq!(silent.codes(), [Code::RanOn], "{what}");
        let mut honest = news(what);
        honest.tell((605, 0, None, State::Refused, None));
        about_others(&mut honest, 5000);
        assert_eq!(honest.codes(), [], "{what}");
    }
    let mut agreed = news(3);
    about_others(&mut agreed, 5000);
    assert_eq!(agreed.codes(), [], "nothing had ended it");
}

#[test]
fn bytes_of_an_earlier_version_end_when_a_later_one_names_others() {
    let updated = |flist: u8| {
        let mut life = Life::that_runs();
        let edit = |header: &mut Header| header.flists[0].digest = FlistId([flist; 32]);
        life.propose(edit);
        life.approve(2, 100);
        life
    };
    let mut ignored = updated(8);
    about_others(&mut ignored, 5000);
    assert_eq!(ignored.codes(), [Code::RanOn]);
    // It takes long to fetch the files of the later one.
    let mut honest = updated(8);
    honest.tell((105, 2, None, State::Accepted, None));
    honest.tell((3000, 2, Some("web"), State::Running, Some(ran(8))));
    let found = honest.audit();
    assert_eq!((codes(&found), found.runs[0].until), (vec![], Some(at(105))));
    let mut same = updated(9);
    about_others(&mut same, 5000);
    assert_eq!(same.codes(), [], "they are the bytes of both");
}

#[test]
fn what_was_wiped_may_not_have_run_other_bytes() {
    let wiped = |ran| {
        let mut life = Life::that_runs();
        life.cancel(100, 200, &["it", "legal"]);
        life.tell((205, 1, None, State::Stopped, None));
        life.tell((210, 1, Some("web"), State::Wiped, ran));
        life.codes()
    };
    assert_eq!(wiped(None), []);
    assert_eq!(wiped(Some(ran(8))), [Code::Ended]);
}

/// Its verdict was right when it was made: what came afterwards it may not have heard of.
#[test]
fn between_two_statements_of_one_minute_a_node_may_know_the_first_alone() {
    type News = fn() -> Life;
    let updated = || {
        let mut life = Life::that_runs();
        life.propose(|_| {});
        life.approve(2, 200);
        life
    };
    let cancelled = || {
        let mut life = Life::that_runs();
        life.cancel(119, 120, &["it", "legal"]);
        life
    };
    let withdrawn = || {
        let mut life = Life::that_runs();
        life.decide("legal", 1, Decision::Withdraw, 100);
        life
    };
    let rows: [(News, i64, Code); 3] = [
        (updated, 205, Code::WentBack),
        (cancelled, 200, Code::Ended),
        (withdrawn, 150, Code::NotAgreed),
    ];
    for (news, soon, code) in rows {
        let mut honest = news();
        honest.tell(running(soon, 1));
        assert_eq!(honest.codes(), [], "{code:?}");
        let mut ignored = news();
        ignored.tell(running(soon + 400, 1));
        assert_eq!(ignored.codes(), [code]);
    }
}

#[test]
fn a_clock_that_runs_backwards_hides_no_run() {
    let told = |first: i64, then: i64, boot: &'static str| {
        let mut life = Life::that_runs();
        life.tell(running(first, 1));
        life.tell_by(0, running(then, 1), |report| report.boot = boot.into());
        life.codes()
    };
    assert_eq!(told(1000, 699, "b1"), [Code::TimeBack]);
    assert_eq!(told(1000, 700, "b1"), [], "a time server has set it");
    assert_eq!(told(1000, 699, "b2"), [], "a machine without a clock was started again");
}

/// The end of an order is what the node acted on, and not what it could not know of.
#[test]
fn an_end_is_final_once_the_node_has_reported_it() {
    let stopped = |code: &'static str, then: i64| {
        let mut life = Life::that_runs();
        life.cancel(100, 200, &["it", "legal"]);
        life.tell_by(0, (205, 1, None, State::Stopped, None), |report| report.code = code.into());
        let mut back = life.world.decision("legal", &life.evidence.headers[0], Decision::Withdraw);
        (back.subject, back.action) = (life.evidence.cancels[0].id().unwrap(), Action::Cancel);
        back.issued = at(210);
        let back = seal(&back, life.world.key("legal"));
        life.logged.push(back.clone());
        life.evidence.approvals.push(back);
        life.tell(running(then, 1));
        life.codes()
    };
    assert_eq!(stopped("cancelled", 400), [Code::Ended]);
    assert_eq!(stopped("cancelled", 150), [Code::Ended], "with a time of before");
    assert_eq!(stopped("partitioned", 400), [], "it had no contact, and the order is taken back");
}

#[test]
fn a_node_that_no_version_names_spoils_nothing() {
    let mut life = Life::that_runs();
    let stranger = life.second_node();
    life.tell_by(1, (40, 9, None, State::Accepted, None), |_| {});
    life.tell_by(1, (50, 1, Some("miner"), State::Running, Some(ran(8))), |_| {});
    let found = life.audit();
    assert_eq!((codes(&found), found.runs.len()), (vec![], 1));
    assert_eq!((found.strangers, found.nodes.len()), (vec![stranger], 1));
    let key = SigningKey::from_seed(&[78; 32]);
    let forged = |reports: &mut Vec<Envelope>| {
        again::<Report>(&mut reports[2], &key, |report| report.node = NodeId([5; 32]));
    };
    assert_eq!(life.changed(|evidence| forged(&mut evidence.reports)), []);

    let mut named = Life::on_two_nodes(&[0]);
    named.tell_by(1, (50, 1, Some("miner"), State::Running, Some(ran(8))), |_| {});
    assert_eq!(named.codes(), [Code::NotAgreed], "positive control");
}

#[test]
fn a_node_that_was_dropped_before_it_was_heard_is_not_missed() {
    let dropped = |is_agreed: bool| {
        let mut life = Life::on_two_nodes(&[0]);
        let pool = life.evidence.pools[0].id().unwrap();
        life.propose(|header| header.pool = pool);
        if is_agreed {
            life.approve(2, 100);
        }
        life.codes()
    };
    assert_eq!(dropped(true), []);
    assert_eq!(dropped(false), [Code::NoReports]);
}

/// A version was replaced, and with it whoever only that one asked.
#[test]
fn a_decision_on_a_version_that_is_not_there_is_not_looked_into() {
    let decided = |version: usize| {
        let mut life = Life::that_runs();
        life.evidence.identities.retain(|one| *one != life.world.identity("stranger"));
        life.propose(|_| {});
        life.decide("stranger", version, Decision::Reject, 100);
        life.evidence.headers.pop();
        life.propose(|header| header.title = "another".into());
        life.codes()
    };
    assert_eq!(decided(2), []);
    assert_eq!(decided(1), [Code::Unsigned], "positive control");
}

/// Whether it had contact no report tells, so this has a word of its own.
#[test]
fn what_a_node_without_contact_may_run_on_is_told_apart() {
    let withdrawn = |alone: OnPartition| {
        let mut life = Life::new();
        life.propose(|header| header.execution.on_partition = alone);
        life.approve(1, 10);
        life.tell(running(30, 1));
        life.decide("legal", 1, Decision::Withdraw, 600);
        life
    };
    let rows = [
        (OnPartition::Keep, vec![Code::Unheard], Code::Unheard),
        (OnPartition::StopAfterS(5000), vec![Code::Unheard], Code::Unheard),
        (OnPartition::StopAfterS(60), vec![Code::NotAgreed, Code::RanOn], Code::RanOn),
    ];
    for (alone, reported, silent) in rows {
        let mut life = withdrawn(alone);
        life.tell(running(4000, 1));
        assert_eq!(life.codes(), reported, "{alone:?}");
        let mut life = withdrawn(alone);
        about_others(&mut life, 4000);
        assert_eq!(life.codes(), [silent], "{alone:?}");
    }
    let mut never = Life::new();
    never.propose(|header| header.execution.on_partition = OnPartition::Keep);
    never.tell(running(30, 1));
    assert_eq!(never.codes(), [Code::NotAgreed], "it never might run");
    let mut expired = withdrawn(OnPartition::Keep);
    expired.tell(running(20_000, 1));
    assert_eq!(expired.codes(), [Code::Ended, Code::RanOn], "no news is needed for that");
}
