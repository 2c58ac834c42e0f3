//! What a hostile node may try with each message, and what comes of it.

use super::*;
use crate::wire::{MAX_NEIGHBORS, Packet};

/// A machine in the middle of a lookup, and the query that it sent to `teller`.
fn asking(teller: &Peer) -> (Solo, Outgoing) {
    let mut solo = Solo::knowing(config(), &[teller]);
    let outs = solo.tell(In::Lookup { token: 1, target: Peer::new(500).id });
    let find = finds(&outs).pop().expect("a query");
    (solo, find)
}

#[test]
fn answers_that_were_not_asked_for_change_nothing() {
    let (teller, told) = (Peer::new(1), Peer::new(2));
    let (mut solo, find) = asking(&teller);
    let stranger = Peer::new(3);
    let elsewhere = Peer { addr: SocketAddr::from(([20, 0, 1, 1], 1_111)), ..teller.clone() };
    let mut late = find.clone();
    late.packet.nonce.counter = late.packet.nonce.counter.wrapping_add(1);
    for hostile in [
        stranger.neighbors(&find, &[&told]),
        elsewhere.neighbors(&find, &[&told]),
        teller.neighbors(&late, &[&told]),
        teller.answers(&find, Message::Pong { record_seq: 9, observed: teller.addr }),
        teller.shows_record(&find),
        stranger.says(find.packet.nonce, Cookie([6; 16]), Message::Cookie),
    ] {
        assert_eq!(solo.tell(hostile), [Out::Drop(DropReason::Unsolicited)]);
    }
    assert!(!solo.knows(&told));
    assert_eq!(solo.machine().table.len(), 1);
}

#[test]
fn a_flood_of_neighbors_is_cut_at_what_was_asked_for() {
    let teller = Peer::new(1);
    let (mut solo, find) = asking(&teller);
    let told: Vec<Peer> = (100..200).map(Peer::new).collect();
    let mut excess = 0;
    for (index, some) in told.chunks(10).enumerate() {
        let records = some.iter().map(|peer| peer.record.clone().into_inner()).collect();
        let message = Message::Neighbors { index: index as u8, total: 16, records };
        let outs = solo.tell(teller.answers(&find, message));
        excess += drops(&outs).len();
    }
    let known = told.iter().filter(|peer| solo.knows(peer)).count();
    assert!(known <= MAX_NEIGHBORS, "{known}");
    assert!(excess >= 8, "{excess}");
}

#[test]
fn a_packet_of_an_answer_counts_once() {
    let (teller, told) = (Peer::new(1), Peer::new(2));
    let (mut solo, find) = asking(&teller);
    let packet = || {
        let records = vec![told.record.clone().into_inner()];
        teller.answers(&find, Message::Neighbors { index: 0, total: 2, records })
    };
    solo.tell(packet());
    assert_eq!(solo.tell(packet()), [Out::Drop(DropReason::Excess)]);
}

#[test]
fn forged_foreign_and_unreachable_records_are_left_out() {
    let teller = Peer::new(1);
    let (mut solo, find) = asking(&teller);
    let forged = {
        let mut bytes = Peer::new(10).record.bytes().to_vec();
        *bytes.last_mut().expect("a signature") ^= 1;
        NodeRecord::decode(&bytes).expect("well-formed")
    };
    let at = |text: &str| text.parse::<SocketAddr>().expect("address");
    let foreign = RecordDraft::new(1, NetworkId::named("other")).address(address::from_udp(at("20.5.5.5:30303")));
    let foreign = Peer::with(11, at("20.5.5.5:30303"), foreign);
    let mut records = vec![forged, foreign.record.into_inner(), solo.me.record.clone().into_inner()];
    for (number, told) in [
        (12, "127.0.0.1:30303"),
        (13, "192.168.0.1:30303"),
        (14, "0.0.0.0:30303"),
        (15, "224.0.0.1:30303"),
        (16, "20.6.6.6:53"),
        (17, "[fe80::1]:30303"),
        (18, "[::1]:30303"),
    ] {
        records.push(Peer::at(number, at(told), 1).record.into_inner());
    }
    let nowhere = Peer::with(19, at("20.7.7.7:1"), RecordDraft::new(1, network()));
    records.push(nowhere.record.into_inner());
    let outs = solo.tell(teller.answers(&find, Message::Neighbors { index: 0, total: 1, records }));
    assert_eq!(drops(&outs).iter().filter(|reason| **reason == DropReason::ForeignRecord).count(), 1);
    assert_eq!(drops(&outs).iter().filter(|reason| **reason == DropReason::RelayAddress).count(), 8);
    assert_eq!(solo.machine().table.len(), 1);
    assert_eq!(requests(&outs), []);
}

#[test]
fn a_liars_neighbors_take_two_places_of_a_bucket_and_ten_of_the_table() {
    let teller = Peer::new(1);
    let mut solo = Solo::knowing(config(), &[&teller]);
    for round in 0..30u16 {
        let outs = solo.tell(In::Lookup { token: round.into(), target: Peer::new(2_000 + round).id });
        let Some(find) = finds(&outs).into_iter().find(|find| find.to == teller.id) else { continue };
        let sybils: Vec<Peer> = (0..16)
            .map(|n| Peer::at(3_000 + round * 16 + n, SocketAddr::from(([66, 6, 6, n as u8], 30303)), 1))
            .collect();
        solo.tell(teller.neighbors(&find, &sybils.iter().collect::<Vec<_>>()));
        solo.pass(Duration::from_millis(1));
    }
    assert!(solo.machine().table.len() <= 11, "{:?}", solo.machine().table_sizes());
    assert!(solo.machine().table_sizes().iter().all(|size| *size <= 3));
}

#[test]
fn a_node_cannot_answer_with_anothers_record() {
    let (peer, other) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::first(config());
    let outs = solo.tell(peer.asks(Message::Ping { record_seq: 1 }));
    let request = only_request(&outs, Message::RecordRequest);
    let record = other.record.clone().into_inner();
    let outs = solo.tell(peer.answers(&request, Message::RecordResponse { record }));
    assert_eq!(drops(&outs), [DropReason::BadRecord]);
    assert!(!solo.knows(&peer) && !solo.knows(&other));
}

#[test]
fn a_node_cannot_answer_with_a_forged_or_a_foreign_record() {
    let peer = Peer::new(1);
    let mut bytes = peer.record.bytes().to_vec();
    *bytes.last_mut().expect("a signature") ^= 1;
    let forged = NodeRecord::decode(&bytes).expect("well-formed");
    let foreign = Peer::with(1, peer.addr, RecordDraft::new(1, NetworkId::named("other"))).record.into_inner();
    for (record, reason) in [(forged, DropReason::BadRecord), (foreign, DropReason::ForeignRecord)] {
        let mut solo = Solo::first(config());
        let outs = solo.tell(peer.asks(Message::Ping { record_seq: 1 }));
        let request = only_request(&outs, Message::RecordRequest);
        let outs = solo.tell(peer.answers(&request, Message::RecordResponse { record }));
        assert_eq!(drops(&outs), [reason]);
        assert!(!solo.knows(&peer));
    }
}

#[test]
fn pingers_of_one_site_are_not_asked_for_more_records_than_could_enter() {
    let mut solo = Solo::first(config());
    let mut asked = 0;
    for number in 0..400u16 {
        let sybil = Peer::at(4_000 + number, SocketAddr::from(([66, 6, 6, number as u8], 30303)), 1);
        let outs = solo.tell(sybil.asks(Message::Ping { record_seq: 1 }));
        for request in requests(&outs).iter().filter(|r| r.packet.message == Message::RecordRequest) {
            asked += 1;
            solo.tell(sybil.shows_record(request));
        }
    }
    assert!(solo.machine().table.len() <= 10);
    assert!(asked <= 10, "{asked} asked");
}

#[test]
fn pinging_again_and_again_asks_nothing_new_of_us() {
    let peer = Peer::new(1);
    let mut solo = Solo::first(config());
    let outs = solo.tell(peer.asks(Message::Ping { record_seq: 1 }));
    only_request(&outs, Message::RecordRequest);
    for _ in 0..10 {
        solo.now += Duration::from_millis(600);
        solo.pass(Duration::from_millis(1));
        assert_eq!(requests(&solo.tell(peer.asks(Message::Ping { record_seq: u64::MAX }))), []);
    }
}

#[test]
fn what_is_remembered_of_strangers_is_bounded() {
    let mut solo = Solo::first(Config { max_requests: 100_000, ..config() });
    for number in 0..3_000u16 {
        let stranger = Peer::new(number);
        let packet =
            Packet { nonce: Nonce::default(), cookie: Cookie::NONE, expiry: 0, message: Message::RecordRequest };
        solo.tell(In::Packet(Inbound { from: stranger.id, addr: stranger.addr, packet }));
    }
    assert!(solo.machine().learning.len() <= 1_024);
    assert!(solo.machine().under_way().0 <= 1_024);
    assert!(solo.machine().cookies.is_empty());
    solo.pass(Duration::from_secs(1));
    assert_eq!(solo.machine().under_way(), (0, 0));
}

#[test]
fn a_verdict_on_records_that_nobody_asked_for_is_ignored() {
    let mut solo = Solo::first(config());
    let outs = solo.tell(In::Verified { token: 99, records: vec![Peer::new(1).record] });
    assert_eq!(outs, []);
    assert_eq!(solo.machine().table.len(), 0);
}

#[test]
fn a_lookup_led_on_by_a_liar_ends() {
    let mut solo = Solo::first(Config { exempt_local: true, ..config() });
    let local = |number: u16| Peer::at(number, SocketAddr::from(([127, 0, 0, 1], 10_000 + number)), 1);
    let first = local(1);
    solo.meet(&first);
    let mut waiting = finds(&solo.tell(In::Lookup { token: 1, target: Peer::new(9).id }));
    let (mut next, mut queries) = (2, 0);
    while let Some(request) = waiting.pop() {
        queries += 1;
        let liar = Peer { id: request.to, addr: request.addr, ..first.clone() };
        let invented: Vec<Peer> = (next..next + 16).map(local).collect();
        next += 16;
        waiting.extend(finds(&solo.tell(liar.neighbors(&request, &invented.iter().collect::<Vec<_>>()))));
    }
    assert!(queries <= 200, "{queries}");
    assert_eq!(solo.machine().under_way().1, 0);
}
