//! Requests, answers, bootnodes, refresh and revalidation.

use super::*;
use crate::key::Key;
use crate::machine::origin::Origin;

#[test]
fn a_bootnode_is_asked_at_once_and_again_with_the_cookie_it_gives() {
    let boot = Peer::new(1);
    let mut solo = Solo::new(config(), &[&boot]);
    let outs = solo.tell(In::Start);
    let first = only_request(&outs, Message::RecordRequest);
    assert_eq!((first.to, first.addr, first.packet.cookie), (boot.id, boot.addr, Cookie::NONE));
    assert_eq!(first.packet.expiry, solo.now.unix().as_secs() + 20);
    let outs = solo.tell(boot.says(first.packet.nonce, Cookie([5; 16]), Message::Cookie));
    let second = only_request(&outs, Message::RecordRequest);
    assert_eq!(second.packet.cookie, Cookie([5; 16]));
    assert_ne!(second.packet.nonce, first.packet.nonce);
    let outs = solo.tell(boot.shows_record(&second));
    assert!(solo.machine().is_live(boot.id));
    let find = finds(&outs);
    assert_eq!(find.len(), 1, "the lookup for ourselves begins");
    assert_eq!(find[0].packet.message, Message::FindNode { target: Key::of(solo.me.id) });
    assert_eq!(find[0].packet.cookie, Cookie([5; 16]), "the cookie is remembered");
}

#[test]
fn a_request_is_retried_for_a_cookie_once() {
    let boot = Peer::new(1);
    let mut solo = Solo::new(config(), &[&boot]);
    let first = only_request(&solo.tell(In::Start), Message::RecordRequest);
    let outs = solo.tell(boot.says(first.packet.nonce, Cookie([5; 16]), Message::Cookie));
    let second = only_request(&outs, Message::RecordRequest);
    let again = solo.tell(boot.says(first.packet.nonce, Cookie([6; 16]), Message::Cookie));
    assert_eq!(again, [Out::Drop(DropReason::Unsolicited)], "the first request is closed");
    let outs = solo.tell(boot.says(second.packet.nonce, Cookie([6; 16]), Message::Cookie));
    assert_eq!(outs, [Out::Drop(DropReason::Excess)]);
}

#[test]
fn an_answer_after_the_time_out_is_unsolicited() {
    let boot = Peer::new(1);
    let mut solo = Solo::new(config(), &[&boot]);
    let request = only_request(&solo.tell(In::Start), Message::RecordRequest);
    let outs = solo.pass(Duration::from_millis(499));
    assert!(!outs.contains(&Out::Event(Event::Timeout)));
    let outs = solo.pass(Duration::from_millis(1));
    assert!(outs.contains(&Out::Event(Event::Timeout)));
    assert_eq!(drops(&solo.tell(boot.shows_record(&request))), [DropReason::Unsolicited]);
    assert!(!solo.knows(&boot));
}

#[test]
fn bootnodes_are_retried_ever_more_slowly_while_the_table_is_empty() {
    let (one, two) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::new(config(), &[&one, &two]);
    assert_eq!(requests(&solo.tell(In::Start)).len(), 2);
    let count = |solo: &mut Solo, seconds| {
        let outs = solo.pass(Duration::from_secs(seconds));
        outs.iter().filter(|out| **out == Out::Event(Event::Bootstrap)).count()
    };
    let early = count(&mut solo, 30);
    assert!((3..=8).contains(&early), "{early} attempts in the first 30 s");
    let late = count(&mut solo, 600);
    assert!((9..=25).contains(&late), "{late} attempts in the next 10 min");
    // And when everybody is lost, they are tried again.
    let mut solo = Solo::new(config(), &[&one]);
    let request = only_request(&solo.tell(In::Start), Message::RecordRequest);
    let outs = solo.tell(one.shows_record(&request));
    solo.settle(outs, &one);
    assert!(solo.knows(&one));
    let outs = solo.pass(Duration::from_secs(60));
    assert!(!solo.knows(&one), "it never answered again");
    assert!(outs.contains(&Out::Event(Event::Bootstrap)));
    let last = requests(&outs).into_iter().rev().find(|request| request.packet.message == Message::RecordRequest);
    assert_eq!(last.map(|request| request.to), Some(one.id));
}

#[test]
fn a_ping_is_answered_and_the_pinger_enters_the_table_once_it_has_shown_its_record() {
    let peer = Peer::new(3);
    let mut solo = Solo::first(config());
    let outs = solo.tell(peer.asks(Message::Ping { record_seq: 1 }));
    let pong = &sent(&outs)[0];
    let seq = solo.me.record.seq();
    assert_eq!(pong.packet.message, Message::Pong { record_seq: seq, observed: peer.addr });
    assert_eq!((pong.to, pong.addr, pong.packet.nonce.counter), (peer.id, peer.addr, 77));
    assert_eq!(pong.packet.nonce.mac, [7; 8], "the nonce is echoed whole");
    assert!(!solo.knows(&peer));
    let request = only_request(&outs, Message::RecordRequest);
    solo.tell(peer.shows_record(&request));
    assert!(solo.machine().is_live(peer.id));
}

#[test]
fn nobody_enters_before_the_first_refresh_has_ended() {
    let (boot, early) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::new(config(), &[&boot]);
    solo.tell(In::Start);
    let outs = solo.tell(early.asks(Message::Ping { record_seq: 1 }));
    assert_eq!(sent(&outs).len(), 1, "a pong and nothing else: {outs:?}");
    // When no bootnode is there, this node may be the first of its network.
    solo.pass(Duration::from_secs(1));
    let outs = solo.tell(early.asks(Message::Ping { record_seq: 1 }));
    only_request(&outs, Message::RecordRequest);
}

#[test]
fn a_node_we_know_is_asked_for_its_record_only_if_it_has_a_newer_one() {
    let peer = Peer::new(3);
    let mut solo = Solo::knowing(config(), &[&peer]);
    solo.pass(Duration::from_secs(1));
    solo.now += Duration::from_secs(60);
    assert_eq!(requests(&solo.tell(peer.asks(Message::Ping { record_seq: 1 }))), []);
    let newer = Peer::at(3, peer.addr, 2);
    let outs = solo.tell(peer.asks(Message::Ping { record_seq: 2 }));
    let request = only_request(&outs, Message::RecordRequest);
    solo.tell(newer.shows_record(&request));
    assert_eq!(solo.machine().table.get(peer.id).map(|entry| entry.contact.record.seq()), Some(2));
}

#[test]
fn a_pong_with_a_newer_sequence_fetches_the_record() {
    let peer = Peer::new(3);
    let mut solo = Solo::knowing(config(), &[&peer]);
    solo.now += Duration::from_secs(60);
    let ping = solo.check_of(&peer);
    let outs = solo.tell(peer.answers(&ping, Message::Pong { record_seq: 2, observed: solo.me.addr }));
    only_request(&outs, Message::RecordRequest);
    let entry = solo.machine().table.get(peer.id).expect("known");
    assert_eq!((entry.list, entry.checks), (List::Slow, 2));
}

#[test]
fn an_outcome_at_an_old_address_says_nothing_of_the_new_one() {
    let peer = Peer::new(3);
    let mut solo = Solo::knowing(config(), &[&peer]);
    let (old, new) = (peer.addr, SocketAddr::from(([20, 99, 1, 1], 30303)));
    let moved = Peer::at(3, new, 2);
    let machine = solo.driver.machine_mut();
    machine.table.heard_of(Contact::new(new, moved.record), Origin::Chosen);
    machine.table.check_passed(Time::ZERO, peer.id, old);
    let entry = machine.table.get(peer.id).expect("known");
    assert_eq!((entry.live, entry.list), (false, List::Fast));
}

#[test]
fn a_node_removed_while_it_was_checked_does_not_come_back() {
    let (peer, other) = (Peer::new(3), Peer::new(4));
    let mut solo = Solo::knowing(config(), &[&peer, &other]);
    let ping = solo.check_of(&peer);
    solo.driver.machine_mut().table.remove(peer.id, &mut Rng::new(1));
    solo.tell(peer.answers(&ping, Message::Pong { record_seq: 1, observed: solo.me.addr }));
    assert!(!solo.knows(&peer));
}

#[test]
fn checks_go_on_when_every_node_is_being_checked() {
    let peer = Peer::new(3);
    let config = Config { request_timeout: Duration::from_secs(15), ..config() };
    let mut solo = Solo::knowing(config, &[&peer]);
    let pings = |outs: &[Out]| {
        requests(outs).iter().filter(|request| matches!(request.packet.message, Message::Ping { .. })).count()
    };
    assert_eq!(pings(&solo.pass(Duration::from_secs(10))), 1, "one at a time");
    assert!(pings(&solo.pass(Duration::from_secs(20))) >= 1, "and again after its end");
}

#[test]
fn find_node_is_answered_with_the_sixteen_nearest_without_the_asker() {
    let peers: Vec<Peer> = (1..60).map(Peer::new).collect();
    let mut solo = Solo::knowing(config(), &peers.iter().collect::<Vec<_>>());
    let asker = peers.iter().find(|peer| solo.knows(peer)).expect("somebody").clone();
    let outs = solo.tell(asker.asks(Message::FindNode { target: Key::of(asker.id) }));
    let mut told = Vec::new();
    let packets = sent(&outs);
    for (expected, packet) in packets.iter().enumerate() {
        let Message::Neighbors { index, total, records } = &packet.packet.message else { panic!("{packet:?}") };
        assert_eq!((usize::from(*index), usize::from(*total)), (expected, packets.len()));
        assert_eq!(packet.packet.nonce.counter, 77);
        told.extend(records.iter().map(NodeRecord::id));
    }
    let mut known: Vec<NodeId> = solo.machine().table_records().map(|record| record.id()).collect();
    known.retain(|id| *id != asker.id);
    known.sort_by_key(|id| Key::of(*id).distance(&Key::of(asker.id)));
    known.truncate(16);
    assert_eq!(told, known);
}

#[test]
fn local_nodes_are_not_told_to_the_open_network() {
    let lan = Peer::at(1, SocketAddr::from(([192, 168, 1, 7], 30303)), 1);
    let open = Peer::new(2);
    let mut solo = Solo::knowing(config(), &[&lan, &open]);
    let mut told_to = |asker: &Peer| {
        let outs = solo.tell(asker.asks(Message::FindNode { target: Key::of(asker.id) }));
        match &sent(&outs)[0].packet.message {
            Message::Neighbors { records, .. } => records.iter().map(NodeRecord::id).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told_to(&Peer::new(3)), [open.id]);
    assert_eq!(told_to(&Peer::at(4, SocketAddr::from(([192, 168, 1, 8], 30303)), 1)).len(), 2);
}

#[test]
fn a_small_table_is_refreshed_soon_and_then_ever_later() {
    let peer = Peer::new(3);
    let mut solo = Solo::knowing(config(), &[&peer]);
    let mut refreshes = Vec::new();
    let start = solo.now;
    while solo.now.since(start) < Duration::from_secs(120) {
        let mut outs = solo.pass(Duration::from_millis(100));
        if outs.contains(&Out::Event(Event::Refresh)) {
            refreshes.push(solo.now.since(start));
        }
        while let Some(request) = requests(&outs).first() {
            let answer = match request.packet.message {
                Message::FindNode { .. } => peer.neighbors(request, &[]),
                _ => peer.answers(request, Message::Pong { record_seq: 1, observed: solo.me.addr }),
            };
            outs = solo.tell(answer);
        }
    }
    assert!(refreshes[0] <= Duration::from_millis(2_500), "{refreshes:?}");
    assert!((4..=9).contains(&refreshes.len()), "{refreshes:?}");
    let pauses: Vec<_> = refreshes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.last() > pauses.first(), "{pauses:?}");
}

#[test]
fn a_stepped_wall_clock_moves_no_deadline() {
    let boot = Peer::new(1);
    let mut solo = Solo::new(config(), &[&boot]);
    solo.tell(In::Start);
    solo.now = Time::new(solo.now.running() + Duration::from_millis(100), Duration::from_secs(5));
    assert!(!solo.pass(Duration::ZERO).contains(&Out::Event(Event::Timeout)));
    assert!(solo.pass(Duration::from_millis(400)).contains(&Out::Event(Event::Timeout)));
}

#[test]
fn unanswered_requests_have_a_limit() {
    let peers: Vec<Peer> = (1..40).map(Peer::new).collect();
    let mut solo = Solo::first(Config { max_requests: 5, ..config() });
    let mut outs = Vec::new();
    for peer in &peers {
        outs.extend(solo.tell(peer.asks(Message::Ping { record_seq: 1 })));
    }
    assert_eq!(requests(&outs).len(), 5);
    assert!(drops(&outs).contains(&DropReason::TooManyRequests));
    assert_eq!(solo.machine().under_way().0, 5);
}

#[test]
fn bootnodes_that_become_known_later_are_asked_at_once_and_replace_those_of_their_source() {
    let (old, new) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::first(config());
    let told = |peers: &[&Peer]| In::Bootnodes {
        source: Source::Bootnode,
        nodes: peers.iter().map(|peer| peer.bootnode()).collect(),
    };
    let asked = |outs: &[Out]| requests(outs).iter().map(|request| request.to).collect::<Vec<_>>();
    let outs = solo.tell(told(&[&old]));
    assert_eq!(asked(&outs), [old.id]);
    let outs = solo.tell(told(&[&old]));
    assert_eq!(asked(&outs), [], "nothing new");
    let outs = solo.tell(told(&[&new]));
    assert_eq!(asked(&outs), [new.id], "its name leads elsewhere now");
    let own = Bootnode { id: solo.me.id, addr: solo.me.addr };
    let outs = solo.tell(In::Bootnodes { source: Source::File, nodes: vec![own] });
    assert_eq!(asked(&outs), [], "itself, and the other is asked already");
}
