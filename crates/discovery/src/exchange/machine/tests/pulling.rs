//! Asking: how often, of whom, and what is made of answers, honest and not.

use std::collections::BTreeSet;

use peerage_machine::Bloom;
use peerage_wire::Admission;

use super::*;

fn shows(pull: &Item, id: NodeId) -> bool {
    let Item::Pull { salt, known } = pull else { panic!("not a pull: {pull:?}") };
    known.contains(wire::place(salt, &id))
}

fn bloom_of(pull: Item) -> Bloom {
    let Item::Pull { known, .. } = pull else { panic!("not a pull: {pull:?}") };
    known
}

#[test]
fn a_hungry_node_asks_at_once_then_every_few_seconds_and_a_fed_one_every_minute() {
    let mut node = Node::new();
    node.up(1);
    let outs = node.pass(SECOND);
    assert_eq!(events(&outs, Event::Pulled), 1, "one that has just begun does not wait");
    node.told(1, plain(10..14));
    // Four are not enough.
    let outs = node.pass(8 * SECOND);
    assert_eq!(events(&outs, Event::Pulled), 1);
    node.told(1, plain(14..29));
    let outs = node.pass(45 * SECOND);
    assert_eq!(events(&outs, Event::Pulled), 1, "the one that was due; then a minute passes");
    node.told(1, Vec::new());
    // … unless the dialer wants somebody.
    node.pass(10 * SECOND);
    let wanted = node.tell(In::Want { count: 5, supply: false });
    assert_eq!(candidates(&wanted), [], "discovery has them, and hands them on");
    assert_eq!(events(&node.pass(SECOND), Event::Pulled), 1);
}

#[test]
fn answers_without_news_make_a_hungry_node_ask_more_rarely() {
    let mut node = Node::new();
    node.up(1);
    let mut pulls = 0;
    for _ in 0..600 {
        let outs = node.pass(SECOND);
        if events(&outs, Event::Pulled) > 0 {
            pulls += 1;
            node.told(1, Vec::new());
        }
    }
    assert!((14..=22).contains(&pulls), "{pulls} in ten minutes: every 30 s to 45 s in the end");
}

#[test]
fn no_peer_is_asked_more_often_than_it_answers_and_all_are_asked() {
    let mut node = Node::new();
    for n in 1..=4 {
        node.up(n);
    }
    let mut asked = BTreeSet::new();
    for _ in 0..60 {
        let outs = node.pass(SECOND);
        for n in 1..=4 {
            if sent(&outs, n).iter().any(|item| matches!(item, Item::Pull { .. })) {
                asked.insert(n);
                node.told(n, Vec::new());
            }
        }
    }
    assert_eq!(asked.len(), 4);
    // One that is asked under way is not asked again.
    let mut node = Node::new();
    node.up(1);
    assert_eq!(events(&node.pass(9 * SECOND), Event::Pulled), 1);
}

#[test]
fn every_filter_has_a_salt_of_its_own() {
    let mut node = Node::new();
    node.up(1);
    let mut salts = BTreeSet::new();
    for _ in 0..5 {
        let Item::Pull { salt, .. } = node.pulled(1) else { panic!("not a pull") };
        salts.insert(salt);
        node.told(1, Vec::new());
    }
    assert_eq!(salts.len(), 5, "whom one filter hides by mistake the next one does not");
}

#[test]
fn the_filter_shows_itself_its_peers_and_whom_it_was_told_of_and_grows_with_them() {
    let mut node = Node::new();
    node.up(1);
    node.up_at(2, home(2), false, record(2));
    let few = node.pulled(2);
    assert!(shows(&few, id(0)) && shows(&few, id(1)) && shows(&few, id(2)));
    assert!(!shows(&few, id(10)));
    node.told(2, plain(10..26));
    let more = node.pulled(1);
    assert!((10..26).all(|n| shows(&more, id(n))));
    node.told(1, plain(26..42));
    let (few, many) = (bloom_of(few), bloom_of(node.pulled(1)));
    assert!(few.bits().len() < many.bits().len(), "{} bytes and {}", few.bits().len(), many.bits().len());
}

#[test]
fn a_node_with_many_records_is_in_the_filter_once_and_in_the_book_once() {
    let mut node = Node::new();
    node.up(1);
    for seq in 1..20 {
        node.pulled(1);
        node.told(1, vec![record_at(10, seq, "test", &[home(10)]).into_inner()]);
        assert_eq!(node.driver.machine().known(), 1);
    }
    let set: u32 = bloom_of(node.pulled(1)).bits().iter().map(|byte| byte.count_ones()).sum();
    assert!(set <= 3 * 7, "itself, its peer, and one node: {set} bits");
}

#[test]
fn news_is_offered_to_discovery_once_it_has_taken_the_last() {
    let mut node = Node::new();
    node.up(1);
    node.pulled(1);
    let outs = node.told(1, plain(10..12));
    assert_eq!(offers(&outs).len(), 2);
    assert_eq!(candidates(&outs), [], "nobody asked here");
    for n in 2..8 {
        node.pulled(1);
        let outs = node.told(1, plain(n * 16..n * 16 + 16));
        assert_eq!(offers(&outs), [], "it is busy");
    }
    let offered = node.tell(In::Offered);
    assert_eq!(offers(&offered).len(), crate::MAX_OFFER, "the newest of 96");
    assert!(offers(&offered).contains(&id(7 * 16 + 15)));
    assert_eq!(node.tell(In::Offered), []);
}

#[test]
fn a_dialer_whom_discovery_cannot_serve_gets_nodes_as_they_are_learnt() {
    let mut node = Node::new();
    node.up(1);
    node.tell(In::Want { count: 6, supply: true });
    node.pulled(1);
    let outs = node.told(1, plain(10..14));
    assert_eq!(candidates(&outs).len(), 4);
    let Some(Out::Candidates(found)) = outs.iter().find(|out| matches!(out, Out::Candidates(_))) else { panic!() };
    assert!(found.iter().all(|(record, sockets)| sockets[..] == record.tcp_sockets()[..]));
    node.pulled(1);
    let outs = node.told(1, plain(20..30));
    assert_eq!(candidates(&outs).len(), 2, "no more than it wanted");
    assert_eq!(candidates(&node.tell(In::Want { count: 100, supply: true })).len(), 8, "those it never got");
}

#[test]
fn the_dialer_gets_whose_record_says_what_it_must() {
    let key = b"fork".to_vec();
    let rule = crate::EntryRule::OneOf { key: key.clone(), values: vec![vec![1]] };
    let mut node = Node::with(Config { filter: vec![rule], ..Config::recommended() });
    node.up(1);
    node.tell(In::Want { count: 9, supply: true });
    node.pulled(1);
    let forked = |n: u16, fork: u8| {
        let draft = RecordDraft::new(1, NetworkId::named("test")).address(address::from_tcp(home(n)));
        draft.entry(key.clone(), [fork]).sign(&keys(n)).expect("small").into_inner()
    };
    let outs = node.told(1, vec![forked(10, 1), forked(11, 2), record(12).into_inner()]);
    assert_eq!(candidates(&outs), [id(10)]);
    let rest = candidates(&node.tell(In::Filter(Vec::new())));
    assert_eq!(rest.len(), 2, "{rest:?}");
}

#[test]
fn who_could_not_be_dialled_waits_longer_and_is_forgotten_at_last() {
    let mut node = Node::with(Config { known_for: 24 * 3600 * SECOND, ..Config::recommended() });
    node.up(1);
    node.pulled(1);
    node.told(1, plain([10]));
    assert_eq!(candidates(&node.tell(In::Want { count: 1, supply: true })), [id(10)]);
    for pause in [35, 70] {
        node.tell(In::Outcome { id: id(10), ok: false });
        assert_eq!(candidates(&node.tell(In::Want { count: 1, supply: true })), []);
        let mut waited = 1;
        while candidates(&node.pass(SECOND)).is_empty() {
            waited += 1;
            assert!(waited < 200);
        }
        assert_eq!(waited, pause);
    }
    let outs = node.tell(In::Outcome { id: id(10), ok: false });
    assert_eq!(events(&outs, Event::GivenUp), 1);
    assert_eq!(node.driver.machine().known(), 0);
}

#[test]
fn a_teller_of_many_is_heard_in_turn_with_one_of_few() {
    let mut node = Node::new();
    node.up(1);
    node.up(2);
    for round in 0..8 {
        match node.anyone_pulled() {
            (1, _) => node.told(1, plain(100 + 16 * round..116 + 16 * round)),
            (n, _) => node.told(n, plain(10..14)),
        };
    }
    assert!(node.driver.machine().known() > 40);
    let handed = candidates(&node.tell(In::Want { count: 8, supply: true }));
    assert_eq!(handed.iter().filter(|handed| (10..14).any(|n| id(n) == **handed)).count(), 4);
}

#[test]
fn a_slow_peer_is_waited_for_ten_seconds_and_its_late_answer_overlooked() {
    let mut node = Node::new();
    node.up(1);
    node.pass(SECOND);
    let outs = node.pass(10 * SECOND);
    assert_eq!(events(&outs, Event::TimedOut), 1);
    let outs = node.told(1, plain(10..12));
    assert_eq!((drops(&outs, DropReason::Late), reports(&outs).len()), (1, 0));
    assert_eq!(node.driver.machine().known(), 0);
}

#[test]
fn who_never_answers_is_asked_ever_more_rarely() {
    let mut node = Node::new();
    node.up(1);
    let first = events(&node.pass(120 * SECOND), Event::Pulled);
    let later = events(&node.pass(120 * SECOND), Event::Pulled);
    assert!(later < first && later <= 1, "{first}, then {later}");
}

#[test]
fn records_that_nobody_asked_for_are_dropped_unchecked_and_who_goes_on_is_reported() {
    let mut node = Node::new();
    node.up(1);
    let mut reported = Vec::new();
    for _ in 0..20 {
        let outs = node.hear(1, &Item::Records(plain(10..12)));
        assert_eq!(drops(&outs, DropReason::Unsolicited), 1);
        assert_eq!(to_verify(&outs), None, "no signature is looked at");
        reported.extend(reports(&outs));
    }
    assert_eq!(reported, [(1, Penalty::ControlFlood); 12], "eight a minute are overlooked");
    assert_eq!(node.driver.machine().known(), 0);
}

#[test]
fn records_that_are_of_no_use_are_dropped_before_their_signature_is_looked_at() {
    let mut node = Node::new();
    let denied = Admission { denied: vec!["20.0.66.0/24".parse().expect("network")], ..Admission::open() };
    node.tell(In::Admission(std::sync::Arc::new(denied)));
    node.up(1);
    node.up(2);
    let pull = |node: &mut Node, records: Vec<Verified<NodeRecord>>| {
        node.pulled(1);
        let outs = node.hear(1, &Item::Records(records.into_iter().map(Verified::into_inner).collect()));
        assert_eq!(to_verify(&outs), None);
        assert_eq!(reports(&outs), []);
        outs
    };
    let at = |text: &str| record_at(9, 1, "test", &[socket(text)]);
    for (records, reason) in [
        (vec![record_at(9, 1, "other", &[home(9)])], DropReason::ForeignRecord),
        (vec![record_at(0, 9, "test", &[home(0)])], DropReason::OwnRecord),
        (vec![record(2)], DropReason::Known),
        (vec![record_at(9, 1, "test", &[])], DropReason::RelayAddress),
        (vec![at("192.168.1.1:30303")], DropReason::RelayAddress),
        (vec![at("127.0.0.1:30303")], DropReason::RelayAddress),
        (vec![at("20.0.5.1:22")], DropReason::RelayAddress),
        (vec![at("0.0.0.0:30303")], DropReason::RelayAddress),
        (vec![at("20.0.66.1:30303")], DropReason::NotAdmitted),
    ] {
        let outs = pull(&mut node, records);
        assert_eq!(drops(&outs, reason), 1, "{outs:?}");
    }
    assert_eq!(node.driver.machine().known(), 0);
}

#[test]
fn who_tells_of_forged_records_is_reported_and_the_others_of_its_answer_count() {
    let mut node = Node::new();
    node.up(1);
    node.pulled(1);
    let mut forged = record(11).bytes().to_vec();
    *forged.last_mut().expect("long") ^= 1;
    let forged = NodeRecord::decode(&forged).expect("well formed");
    let outs = node.told(1, vec![record(10).into_inner(), forged]);
    assert_eq!(reports(&outs), [(1, Penalty::InvalidMessage)]);
    assert_eq!((offers(&outs), drops(&outs, DropReason::BadRecord)), (vec![id(10)], 1));
}

#[test]
fn a_record_twice_in_an_answer_is_checked_once() {
    let mut node = Node::new();
    node.up(1);
    node.pulled(1);
    let outs = node.told(1, plain([10, 10, 10]));
    assert_eq!((drops(&outs, DropReason::Repeated), node.driver.machine().known()), (2, 1));
}

#[test]
fn one_teller_cannot_crowd_out_what_others_told_nor_one_site_all() {
    let mut node = Node::with(Config { max_known: 40, max_told: 30, ..Config::recommended() });
    node.up(1);
    node.up(2);
    node.pulled(2);
    node.told(2, plain(10..20));
    for next in (1_000..1_160).step_by(16) {
        node.pulled(1);
        node.told(1, plain(next..next + 16));
        assert!(node.driver.machine().known() <= 40);
    }
    assert_eq!(node.driver.machine().known(), 40);
    let pull = node.pulled(1);
    assert!((10..20).all(|n| shows(&pull, id(n))), "the honest peer's are all there");
    let crowd = |host: u16| {
        let [_, low] = host.to_be_bytes();
        record_at(5_000 + host, 1, "test", &[SocketAddr::from(([20, 200, 1, low], 30303))]).into_inner()
    };
    let mut node = Node::new();
    node.up(1);
    let mut refused = 0;
    for round in 0..4 {
        node.pulled(1);
        let outs = node.told(1, (round * 16..round * 16 + 16).map(crowd).collect());
        refused += drops(&outs, DropReason::SiteLimit);
    }
    assert_eq!((node.driver.machine().known(), refused), (16, 48));
}

#[test]
fn what_was_told_is_forgotten_after_an_hour_and_a_peer_that_left_is_remembered() {
    let mut node = Node::new();
    node.up(1);
    node.up(2);
    node.down(2);
    assert_eq!(node.driver.machine().known(), 1);
    node.pulled(1);
    node.told(1, plain(10..14));
    assert_eq!(node.driver.machine().known(), 5);
    node.pass(3_600 * SECOND);
    node.pulled(1);
    node.told(1, plain([30]));
    assert_eq!(node.driver.machine().known(), 1);
    assert_eq!(candidates(&node.tell(In::Want { count: 9, supply: true })), [id(30)]);
    node.up(30);
    assert_eq!(node.driver.machine().known(), 0, "who is connected is no candidate");
}

#[test]
fn a_session_that_ended_while_its_answer_was_checked_does_no_harm() {
    let mut node = Node::new();
    node.up(1);
    node.pulled(1);
    let outs = node.hear(1, &Item::Records(plain([10])));
    let (token, records) = to_verify(&outs).expect("checked");
    node.down(1);
    let records: Vec<_> = records.into_iter().map(|record| record.verify().expect("signed")).collect();
    assert_eq!(offers(&node.tell(In::Verified { token, records: records.clone() })), [id(10)]);
    assert_eq!(node.tell(In::Verified { token, records }), [], "an answer counts once");
    assert_eq!(events(&node.pass(200 * SECOND), Event::Pulled), 0, "there is nobody to be asked");
}
