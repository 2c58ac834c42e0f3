//! Why peers are missing: when it is said, and what.

use peerage_wire::DisconnectReason;

use super::*;

fn wants(max_dial_peers: u32) -> Config {
    Config { max_dial_peers, ..config() }
}

fn only_report(rig: &mut Rig) -> Diagnosis {
    match &rig.reports()[..] {
        [Some(diagnosis)] => diagnosis.clone(),
        other => panic!("not one report: {other:?}"),
    }
}

#[test]
fn a_report_counts_what_happened_since_the_last_one() {
    use DisconnectReason as R;
    let mut rig = Rig::new(wants(16));
    rig.up(20, true);
    rig.tell(In::Candidates(records([1, 2, 3, 4, 5, 20, 20])));
    let dials = rig.dials();
    rig.done(dials[0].0, DialOutcome::HandshakeFailed(R::TooManyPeers));
    rig.done(dials[1].0, DialOutcome::HandshakeFailed(R::TooManyPeers));
    rig.done(dials[2].0, DialOutcome::HandshakeFailed(R::WrongNetwork));
    rig.done(dials[3].0, DialOutcome::ConnectFailed);
    rig.tell(In::Candidates(records([1])));
    rig.pass(secs(10));
    let report = only_report(&mut rig);
    let causes =
        [(Cause::Saturated, 2), (Cause::Unreachable, 1), (Cause::Useless, 1), (Cause::HeldBack, 1), (Cause::Known, 1)];
    assert_eq!(report.causes, causes.into(), "20 came twice and is one node");
    assert_eq!((report.dialled, report.wanted, report.tried, report.found), (1, 16, 4, 8));
    assert_eq!(report.dominant(), Some(Cause::Saturated));

    rig.done(dials[4].0, DialOutcome::TimedOut);
    rig.pass(secs(10));
    let next = only_report(&mut rig);
    assert_eq!((next.tried, next.count(Cause::Unreachable), next.count(Cause::Saturated)), (1, 1, 0));
}

#[test]
fn nobody_found_is_said_every_ten_seconds() {
    let mut rig = Rig::new(wants(16));
    let mut said = Vec::new();
    for second in 1..=30 {
        rig.pass(secs(1));
        for report in rig.reports() {
            said.push((second, report.expect("still missing").dominant()));
        }
    }
    assert_eq!(said, [10, 20, 30].map(|second| (second, Some(Cause::Empty))));
}

#[test]
fn a_node_that_has_its_peers_says_so_once_and_nothing_more() {
    let mut rig = Rig::new(wants(1));
    rig.pass(secs(10));
    assert_eq!(rig.reports().len(), 1);
    rig.up(1, true);
    assert_eq!(rig.reports(), [None]);
    rig.up(2, false);
    rig.pass(secs(600));
    assert_eq!(rig.reports(), []);
    // The count begins anew, ten seconds before it is told.
    rig.down(1, true, secs(1));
    rig.pass(secs(9));
    assert_eq!(rig.reports(), []);
    rig.pass(secs(1));
    let report = only_report(&mut rig);
    assert_eq!((report.dialled, report.count(Cause::Dropped)), (0, 1), "it came and went");
}

#[test]
fn peers_that_come_before_the_first_report_leave_nothing_to_say() {
    let mut rig = Rig::new(wants(1));
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.connect(attempt, 1);
    rig.pass(secs(60));
    assert_eq!(rig.reports(), []);
}

#[test]
fn nothing_is_said_while_all_slots_are_still_being_tried() {
    let mut rig = Rig::new(wants(1));
    rig.tell(In::Candidates(records([1, 2])));
    rig.pass(secs(10));
    rig.take();
    rig.pass(secs(10));
    assert_eq!(rig.reports(), []);
}

#[test]
fn a_policy_that_leaves_everybody_out_is_the_cause() {
    let mut rig = Rig::new(wants(16));
    rig.admit(Admission { denied: vec!["192.0.2.0/24".parse().expect("network")], ..Admission::open() });
    rig.tell(In::Candidates(records([1, 2, 3])));
    rig.pass(secs(10));
    let report = only_report(&mut rig);
    assert_eq!((report.dominant(), report.count(Cause::Restricted)), (Some(Cause::Restricted), 3));
}

#[test]
fn static_peers_are_counted_by_themselves() {
    let mut rig = Rig::new(wants(16));
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::HandshakeFailed(DisconnectReason::TooManyPeers));
    rig.pass(secs(10));
    let report = only_report(&mut rig);
    assert_eq!((report.tried, report.dominant()), (0, Some(Cause::Empty)));
    assert_eq!((report.statics, report.statics_connected), (1, 0));
    assert_eq!(report.static_causes, [(Cause::Saturated, 1)].into());
}

#[test]
fn a_node_that_has_nobody_but_static_peers_says_why_they_are_missing() {
    for quiet in [Config { candidates: false, ..config() }, wants(0)] {
        let mut rig = Rig::new(quiet);
        rig.pass(secs(60));
        assert_eq!(rig.reports(), [], "nobody is missing");
        for n in [1, 2, 3] {
            rig.tell(In::AddStatic(if n == 3 { StaticPeer::new(node(3), []) } else { named(n) }));
        }
        rig.up(1, false);
        let mut said = None;
        for _ in 0..10 {
            rig.pass(secs(1));
            for out in rig.take() {
                match out {
                    Out::Dial { attempt, .. } => rig.done(attempt, DialOutcome::ConnectFailed),
                    Out::Resolve { attempt, .. } => rig.resolved(attempt, None),
                    Out::Seeking(report) => said = said.or(report),
                    _ => {}
                }
            }
        }
        let said = said.expect("static peers are missing");
        let told = "static peers: 1 of 3 connected; 1 did not answer, 1 without a known address";
        assert_eq!(said.to_string(), told);
        assert!(said.advice().contains("static peers do not answer"), "{}", said.advice());
        rig.up(2, true);
        assert_eq!(rig.reports(), [], "one is missing");
        rig.up(3, true);
        assert_eq!(rig.reports(), [None]);
    }
}

#[test]
fn a_node_that_can_ask_nobody_does_not_say_that_nobody_was_found() {
    let mut rig = Rig::stopped(Config { candidates: false, ..config() }, 7);
    rig.tell(In::Bootnodes(vec![named(1)]));
    rig.tell(In::Start);
    rig.pass(secs(20));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::ConnectFailed);
    rig.pass(secs(10));
    let report = only_report(&mut rig);
    assert_eq!(report.to_string(), "0 of 16 dialled; 1 tried: 1 did not answer");
    rig.up(2, false);
    assert_eq!(rig.reports(), [None], "that is all it can have");
}

#[test]
fn a_static_peer_that_the_policy_leaves_out_is_told_of() {
    let mut rig = Rig::stopped(Config { candidates: false, ..config() }, 7);
    rig.admit(Admission { denied: vec!["192.0.2.0/24".parse().expect("network")], ..Admission::open() });
    rig.tell(In::AddStatic(named(1)));
    rig.tell(In::Start);
    rig.pass(secs(10));
    let told = "static peers: 0 of 1 connected; 1 left out by the admission policy";
    assert_eq!(only_report(&mut rig).to_string(), told);
    rig.pass(secs(60));
    assert_eq!(rig.reports(), [], "once, as nothing happens");
}

#[test]
fn what_is_told_apart_between_two_reports_is_bounded() {
    let many = Config { max_dial_peers: 2_000, max_active_dials: 2_000, max_static_dials: 1, ..config() };
    let mut rig = Rig::stopped(many, 7);
    rig.admit(Admission { denied: vec!["192.0.2.0/24".parse().expect("network")], ..Admission::open() });
    rig.tell(In::Start);
    let record = |n: u16| {
        let mut seed = [9; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        let draft = RecordDraft::new(1, NetworkId::named("test"));
        draft.address("/ip4/192.0.2.1/tcp/1".parse().expect("multiaddr")).sign(&Keypair::from_seed(seed)).expect("fits")
    };
    rig.tell(In::Candidates((0..1_100).map(record).map(found).collect()));
    rig.pass(secs(10));
    assert_eq!(only_report(&mut rig).count(Cause::Restricted), 1_024);
}
