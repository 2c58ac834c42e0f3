//! Whom the node has to do with, and what it takes over from an earlier process and leaves to the next.

use std::sync::Arc;

use super::*;
use crate::key::Key;

fn denying(network: &str) -> Arc<Admission> {
    Arc::new(Admission { denied: vec![network.parse().expect("network")], ..Admission::open() })
}

fn members<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> Arc<Admission> {
    Arc::new(Admission { only: Some(peers.into_iter().map(|peer| peer.id).collect()), ..Admission::open() })
}

/// Two policies that keep a peer out, by its address and by its name, and nobody else of these tests.
fn policies(refused: &Peer, others: &[&Peer]) -> [Arc<Admission>; 2] {
    [denying(&format!("{}/32", refused.addr.ip())), members(others.iter().copied())]
}

fn alive(outs: &[Out]) -> Vec<(NodeId, u64)> {
    outs.iter()
        .filter_map(|out| if let Out::Alive(record) = out { Some((record.id(), record.seq())) } else { None })
        .collect()
}

#[test]
fn bootnodes_that_are_not_admitted_are_not_asked_until_they_are() {
    let (good, bad) = (Peer::new(1), Peer::new(2));
    for policy in policies(&bad, &[&good]) {
        let mut solo = Solo::with(config(), &[&good, &bad], |machine| machine.admitting(policy));
        assert_eq!(only_request(&solo.tell(In::Start), Message::RecordRequest).to, good.id);
        let asked: Vec<Outgoing> = requests(&solo.pass(Duration::from_secs(60)));
        assert!(!asked.is_empty() && asked.iter().all(|request| request.to == good.id));
    }
    let mut solo = Solo::with(config(), &[&bad], |machine| machine.admitting(members([&good])));
    assert_eq!(requests(&solo.tell(In::Start)), []);
    assert_eq!(requests(&solo.pass(Duration::from_secs(60))), []);
    solo.tell(In::Admission(Arc::new(Admission::open())));
    let asked = requests(&solo.pass(Duration::from_secs(2)));
    assert!(asked.iter().all(|request| request.to == bad.id) && !asked.is_empty(), "the policy was opened");
}

#[test]
fn neighbours_that_are_not_admitted_are_neither_remembered_nor_asked_nor_told() {
    let (teller, good, bad) = (Peer::new(1), Peer::new(2), Peer::new(3));
    for policy in policies(&bad, &[&teller, &good]) {
        let mut solo = Solo::knowing(config(), &[&teller]);
        solo.tell(In::Admission(policy));
        let outs = solo.tell(In::Lookup { token: 1, target: bad.id });
        let find = finds(&outs).pop().expect("a query");
        let outs = solo.tell(teller.neighbors(&find, &[&good, &bad]));
        assert_eq!(drops(&outs), [DropReason::NotAdmitted]);
        assert!(requests(&outs).iter().all(|request| request.to == good.id));
        assert!(solo.knows(&good) && !solo.knows(&bad));
        let outs = solo.pass(Duration::from_secs(5));
        assert_eq!(answer(&outs, 1), Some(vec![teller.id]));
    }
}

#[test]
fn a_record_is_used_at_the_first_of_its_addresses_that_is_admitted() {
    let (teller, told) = (Peer::new(1), Peer::new(2));
    let second = SocketAddr::from(([21, 1, 1, 1], 30303));
    let draft = RecordDraft::new(1, network()).address(address::from_udp(told.addr)).address(address::from_udp(second));
    let told = Peer::with(2, told.addr, draft);
    let mut solo = Solo::knowing(config(), &[&teller]);
    solo.tell(In::Admission(denying("20.0.2.0/24")));
    let find = finds(&solo.tell(In::Lookup { token: 1, target: told.id })).pop().expect("a query");
    let outs = solo.tell(teller.neighbors(&find, &[&told]));
    assert_eq!(requests(&outs).iter().map(|request| request.addr).collect::<Vec<_>>(), [second]);
}

#[test]
fn who_is_not_admitted_is_neither_served_nor_learnt_of() {
    let (good, bad) = (Peer::new(1), Peer::new(2));
    for policy in policies(&bad, &[&good]) {
        let mut solo = Solo::first(config());
        solo.tell(In::Admission(policy));
        for message in
            [Message::Ping { record_seq: 1 }, Message::FindNode { target: Key::of(good.id) }, Message::RecordRequest]
        {
            assert_eq!(solo.tell(bad.asks(message)), [Out::Drop(DropReason::NotAdmitted)]);
        }
        solo.meet(&good);
        assert!(solo.knows(&good));
    }
}

#[test]
fn who_is_not_admitted_any_more_leaves_the_table_and_is_handed_to_nobody() {
    let peers: Vec<Peer> = (1..=6).map(Peer::new).collect();
    let bad = &peers[3];
    let others: Vec<&Peer> = peers.iter().filter(|peer| peer.id != bad.id).collect();
    for policy in policies(bad, &others) {
        let mut solo = Solo::knowing(config(), &peers.iter().collect::<Vec<_>>());
        let outs = solo.tell(In::Admission(policy));
        assert_eq!(outs, [Out::Event(Event::NodeRemoved)]);
        assert!(!solo.knows(bad) && solo.machine().table.len() == 5);
        let wanted = candidates(&solo.tell(In::Want(6)));
        assert!(wanted.len() == 5 && !wanted.contains(&bad.id));
        let random = answer(&solo.tell(In::Random { token: 1, count: 6 }), 1).expect("at once");
        assert!(random.len() == 5 && !random.contains(&bad.id));
    }
}

#[test]
fn those_that_wait_for_a_place_leave_too_and_inherit_nothing() {
    let mut solo = Solo::first(config());
    // Half of all nodes belong into the last bucket, so that some have to wait.
    let peers: Vec<Peer> = (1..=60).map(Peer::new).collect();
    peers.iter().for_each(|peer| solo.meet(peer));
    let full = solo.machine().table.sizes().into_iter().max();
    assert_eq!(full, Some(table::BUCKET_SIZE));
    let kept = &peers[0];
    solo.tell(In::Admission(members([kept])));
    assert_eq!(solo.machine().table_records().map(|record| record.id()).collect::<Vec<_>>(), [kept.id]);
}

#[test]
fn an_answer_that_was_under_way_when_the_policy_changed_changes_nothing() {
    let bad = Peer::new(1);
    let mut solo = Solo::first(config());
    let request = requests(&solo.tell(bad.asks(Message::Ping { record_seq: 1 }))).pop().expect("asked for its record");
    // The signature of its record is being checked.
    solo.driver.handle(solo.now, bad.shows_record(&request));
    let token =
        solo.driver.drain().find_map(|out| if let Out::Verify { token, .. } = out { Some(token) } else { None });
    solo.tell(In::Admission(denying("20.0.0.0/8")));
    let records = vec![bad.record.clone()];
    let outs = solo.tell(In::Verified { token: token.expect("checked"), records });
    assert_eq!(drops(&outs), [DropReason::NotAdmitted]);
    assert!(!solo.knows(&bad));
}

#[test]
fn a_node_is_not_handed_out_at_a_tcp_address_that_is_not_admitted() {
    let addr = SocketAddr::from(([10, 1, 1, 1], 30303));
    let draft = RecordDraft::new(1, network())
        .address("/ip4/10.30.1.1/tcp/30303".parse().expect("multiaddr"))
        .address(address::from_udp(addr));
    let peer = Peer::with(1, addr, draft);
    let mut solo = Solo::knowing(config(), &[&peer]);
    solo.tell(In::Admission(denying("10.30.0.0/16")));
    assert!(solo.knows(&peer));
    assert_eq!(candidates(&solo.tell(In::Want(1))), []);
    assert_eq!(candidates(&solo.tell(In::Admission(Arc::new(Admission::open())))), [peer.id], "once it is");
}

#[test]
fn nobody_searches_for_a_node_that_is_not_admitted() {
    let (peer, bad) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::knowing(config(), &[&peer]);
    solo.tell(In::Admission(members([&peer])));
    assert_eq!(solo.tell(In::Resolve { token: 1, id: bad.id }), [Out::Answer { token: 1, records: vec![] }]);
}

#[test]
fn an_emptied_table_asks_the_bootnodes_that_are_admitted() {
    let (boot, other) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::new(config(), &[&boot]);
    let request = only_request(&solo.tell(In::Start), Message::RecordRequest);
    let outs = solo.tell(boot.shows_record(&request));
    let find = finds(&outs).pop().expect("a refresh");
    solo.tell(boot.neighbors(&find, &[&other]));
    solo.pass(Duration::from_secs(1));
    solo.tell(In::Admission(members([&other])));
    assert!(solo.knows(&other) && !solo.knows(&boot));
    solo.tell(In::Admission(members([&boot])));
    assert_eq!(solo.machine().table.len(), 0);
    let asked = requests(&solo.pass(Duration::from_secs(3)));
    assert!(asked.iter().any(|request| request.to == boot.id && request.packet.message == Message::RecordRequest));
}

#[test]
fn seeds_are_found_nodes_from_the_start_besides_the_bootnodes() {
    let boot = Peer::new(1);
    let seeds: Vec<Peer> = (2..=4).map(Peer::new).collect();
    let mut solo = Solo::with(config(), &[&boot], |machine| {
        machine.seeded(seeds.iter().map(|seed| seed.record.clone()).collect())
    });
    let outs = solo.tell(In::Start);
    assert_eq!(solo.machine().table.len(), 3);
    assert!(seeds.iter().all(|seed| !solo.machine().is_live(seed.id)), "they have to answer first");
    let asked = requests(&outs);
    assert!(asked.iter().any(|request| request.to == boot.id));
    assert_eq!(finds(&outs).len(), 3, "the walk begins with the seeds");
    assert_eq!(candidates(&solo.tell(In::Want(9))), []);
}

#[test]
fn seeds_alone_lead_into_the_network() {
    let (seed, other) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::with(config(), &[], |machine| machine.seeded(vec![seed.record.clone()]));
    let find = finds(&solo.tell(In::Start)).pop().expect("a query");
    solo.tell(seed.neighbors(&find, &[&other]));
    assert!(solo.machine().is_live(seed.id) && solo.knows(&other));
}

#[test]
fn seeds_are_bounded_and_those_that_do_not_fit_are_left_out() {
    let peers: Vec<Peer> = (1..=40).map(Peer::new).collect();
    let foreign = RecordDraft::new(1, NetworkId::named("other")).address(address::from_udp(Peer::new(60).addr));
    let foreign = Peer::with(60, Peer::new(60).addr, foreign);
    let me = Peer::new(9_999);
    let seeds = [&foreign, &me].into_iter().chain(&peers).map(|peer| peer.record.clone()).collect();
    let mut solo = Solo::with(config(), &[], |machine| machine.seeded(seeds).admitting(denying("20.0.1.0/24")));
    solo.tell(In::Start);
    assert!(![&foreign, &me, &peers[0]].into_iter().any(|peer| solo.knows(peer)));
    assert!(!peers[MAX_SEEDS - 2..].iter().any(|peer| solo.knows(peer)), "too many");
    assert!((16..MAX_SEEDS - 2).contains(&solo.machine().table.len()));
}

#[test]
fn dead_seeds_do_not_keep_the_bootnodes_from_being_asked_again() {
    let boot = Peer::new(1);
    let mut solo = Solo::with(config(), &[&boot], |machine| machine.seeded(vec![Peer::new(2).record]));
    solo.tell(In::Start);
    let asked = requests(&solo.pass(Duration::from_secs(30)));
    assert!(asked.iter().filter(|request| request.to == boot.id).count() >= 3);
}

#[test]
fn a_node_that_answers_reliably_is_told_once_an_hour_or_with_a_newer_record() {
    let peer = Peer::new(1);
    let mut solo = Solo::knowing(config(), &[&peer]);
    let pong = |solo: &mut Solo, seq| {
        let ping = solo.check_of(&peer);
        let answer = Message::Pong { record_seq: seq, observed: solo.me.addr };
        solo.tell(peer.answers(&ping, answer))
    };
    let mut told = Vec::new();
    for round in 1..=20 {
        let outs = pong(&mut solo, 1);
        told.extend(alive(&outs).into_iter().map(|(id, seq)| (round, id, seq)));
    }
    // Geth's count begins with the proof that let it in.
    assert_eq!(told, [(5, peer.id, 1)]);

    let newer = Peer::at(1, peer.addr, 2);
    let outs = pong(&mut solo, 2);
    assert_eq!(alive(&outs), []);
    let request = requests(&outs).pop().expect("asked for its record");
    solo.tell(newer.shows_record(&request));
    assert_eq!(alive(&pong(&mut solo, 2)), [(peer.id, 2)]);
    assert_eq!(alive(&pong(&mut solo, 2)), []);
}

#[test]
fn after_an_hour_it_is_told_again() {
    let peer = Peer::new(1);
    let mut solo = Solo::knowing(config(), &[&peer]);
    let (start, mut told) = (solo.now, Vec::new());
    while solo.now.since(start) < Duration::from_secs(2 * 3600) {
        let ping = solo.check_of(&peer);
        let outs = solo.tell(peer.answers(&ping, Message::Pong { record_seq: 1, observed: solo.me.addr }));
        told.extend(alive(&outs));
    }
    assert_eq!(told.len(), 2);
}

/// What is told here is remembered as proved at the record's first address, and given back as a seed after a restart.
#[test]
fn a_node_that_proved_one_address_of_its_record_does_not_make_a_restarted_node_call_at_another() {
    let addr = SocketAddr::from(([20, 1, 1, 1], 30303));
    let sly = RecordDraft::new(1, network())
        .address("/ip4/10.0.0.5/udp/5353".parse().expect("multiaddr"))
        .address(address::from_udp(addr));
    let sly = Peer::with(1, addr, sly);
    let mut solo = Solo::knowing(config(), &[&sly]);
    assert!(solo.knows(&sly), "it answered where it is");
    let mut remembered = Vec::new();
    for _ in 0..10 {
        let ping = solo.check_of(&sly);
        let outs = solo.tell(sly.answers(&ping, Message::Pong { record_seq: 1, observed: solo.me.addr }));
        remembered.extend(outs.into_iter().filter_map(|out| match out {
            Out::Alive(record) if record.udp_address() != Some(addr) => Some(record),
            _ => None,
        }));
    }
    let mut next = Solo::with(config(), &[], |machine| machine.seeded(remembered));
    let mut outs = next.tell(In::Start);
    outs.extend(next.pass(Duration::from_secs(10)));
    let called: Vec<SocketAddr> = requests(&outs).iter().map(|request| request.addr).collect();
    assert_eq!(called, [], "a device in this node's own network");
}
