//! Nodes of other sources, beside those of the table.

use super::*;
use crate::source::{MAX_OFFER, Source};

fn offer(source: Source, peers: &[Peer]) -> In {
    In::Offer { source, records: peers.iter().map(|peer| peer.record.clone()).collect() }
}

fn peers(numbers: std::ops::Range<u16>) -> Vec<Peer> {
    numbers.map(Peer::new).collect()
}

fn drops(outs: &[Out], reason: DropReason) -> usize {
    outs.iter().filter(|out| **out == Out::Drop(reason)).count()
}

#[test]
fn every_source_is_served_in_turn_however_much_one_of_them_offers() {
    let mut solo = Solo::first(config());
    let (many, few) = (peers(1..61), peers(100..103));
    solo.tell(offer(Source::Dns, &many));
    solo.tell(offer(Source::File, &few));
    let outs = solo.tell(In::Want(6));
    let handed: Vec<Source> =
        outs.iter().filter_map(|out| if let Out::Handed(source) = out { Some(*source) } else { None }).collect();
    assert_eq!(handed.iter().filter(|source| **source == Source::Dns).count(), 3);
    assert_eq!(handed.iter().filter(|source| **source == Source::File).count(), 3);
    let got = candidates(&outs);
    assert!(few.iter().all(|peer| got.contains(&peer.id)), "the short list is not starved by the long one");
    assert_eq!(candidates(&solo.tell(In::Want(100))).len(), 57, "a source that has nothing left is passed over");
}

#[test]
fn the_table_is_a_source_among_the_others() {
    let known = peers(1..9);
    let mut solo = Solo::knowing(config(), &known.iter().collect::<Vec<_>>());
    solo.tell(offer(Source::Dns, &peers(100..160)));
    let got = candidates(&solo.tell(In::Want(16)));
    assert_eq!(got.iter().filter(|id| known.iter().any(|peer| peer.id == **id)).count(), 8);
}

#[test]
fn a_node_that_two_sources_know_is_handed_out_once() {
    let known = peers(1..4);
    let mut solo = Solo::knowing(config(), &known.iter().collect::<Vec<_>>());
    solo.tell(offer(Source::Dns, &known));
    solo.tell(offer(Source::File, &known));
    let mut got = candidates(&solo.tell(In::Want(9)));
    got.sort();
    let mut expected: Vec<NodeId> = known.iter().map(|peer| peer.id).collect();
    expected.sort();
    assert_eq!(got, expected);
}

#[test]
fn what_peers_tell_is_dialled_only_after_it_answered_unless_nobody_answers() {
    // Somebody answers over UDP: a record of hearsay may name a bystander, and has to prove itself first.
    let known = peers(1..2);
    let mut solo = Solo::knowing(config(), &known.iter().collect::<Vec<_>>());
    solo.tell(In::Want(1));
    solo.tell(offer(Source::Exchange, &peers(50..53)));
    assert_eq!(candidates(&solo.tell(In::Want(9))), []);
    // Nobody does.
    let mut solo = Solo::first(config());
    solo.tell(offer(Source::Exchange, &peers(50..53)));
    assert_eq!(candidates(&solo.tell(In::Want(9))).len(), 3);
    // And even then nobody can send us into our own network.
    let local = Peer::at(60, "127.0.0.1:22".parse().expect("address"), 1);
    solo.tell(offer(Source::Exchange, std::slice::from_ref(&local)));
    assert_eq!(candidates(&solo.tell(In::Want(9))), []);
}

#[test]
fn the_local_network_tells_of_local_addresses_only() {
    let mut solo = Solo::first(config());
    let near = Peer::at(1, "192.168.1.7:30303".parse().expect("address"), 1);
    solo.tell(offer(Source::Mdns, &[near.clone(), Peer::new(2)]));
    assert_eq!(candidates(&solo.tell(In::Want(9))), [near.id]);
}

#[test]
fn an_offer_is_bounded_and_so_is_what_waits() {
    let mut solo = Solo::first(config());
    let outs = solo.tell(offer(Source::Dns, &peers(1..(MAX_OFFER as u16 + 11))));
    assert_eq!(drops(&outs, DropReason::Excess), 10);
    for start in (1_000..1_640).step_by(MAX_OFFER) {
        solo.tell(offer(Source::Dns, &peers(start..start + MAX_OFFER as u16)));
    }
    let got = candidates(&solo.tell(In::Want(10_000)));
    assert_eq!(got.len(), 128, "the oldest made room");
    assert!(got.contains(&Peer::new(1_639).id));
}

#[test]
fn records_of_another_network_or_not_admitted_are_dropped() {
    let mut solo = Solo::first(config());
    let mut foreign = Peer::new(1);
    let draft = RecordDraft::new(1, NetworkId::named("another")).address(address::from_tcp(foreign.addr));
    foreign.record = draft.sign(&Keypair::from_seed([9; 32])).expect("small");
    assert_eq!(drops(&solo.tell(offer(Source::Dns, &[foreign])), DropReason::ForeignRecord), 1);
    let only = Admission { only: Some([Peer::new(3).id].into()), ..Admission::open() };
    solo.tell(offer(Source::Dns, &peers(2..4)));
    solo.tell(In::Admission(Arc::new(only)));
    assert_eq!(drops(&solo.tell(offer(Source::Dns, &peers(5..6))), DropReason::NotAdmitted), 1);
    assert_eq!(candidates(&solo.tell(In::Want(9))), [Peer::new(3).id]);
}

#[test]
fn a_node_whose_dials_fail_again_and_again_is_forgotten_until_it_is_told_of_again() {
    let mut solo = Solo::first(config());
    let peer = Peer::with(
        1,
        "20.0.0.1:1".parse().expect("address"),
        RecordDraft::new(1, network()).address(address::from_tcp("20.0.0.1:7777".parse().expect("address"))),
    );
    solo.tell(offer(Source::File, std::slice::from_ref(&peer)));
    solo.tell(In::Want(100));
    for _ in 0..5 {
        solo.tell(In::Outcome { id: peer.id, ok: false });
    }
    let later = solo.pass(Duration::from_secs(3_600 * 24));
    assert_eq!(candidates(&later), []);
    assert_eq!(candidates(&solo.tell(offer(Source::File, std::slice::from_ref(&peer)))), [peer.id]);
}

#[test]
fn an_offered_node_enters_the_table_by_answering() {
    let mut solo = Solo::first(config());
    let peer = Peer::new(1);
    solo.tell(offer(Source::File, std::slice::from_ref(&peer)));
    assert_eq!(solo.machine().table.len(), 1);
    assert!(!solo.machine().is_live(peer.id));
}

#[test]
fn only_records_that_say_what_they_must_are_dialled_and_the_others_keep_their_place_in_the_table() {
    let with = |number: u16, fork: u8| {
        let addr = Peer::new(number).addr;
        let draft = RecordDraft::new(1, network()).address(address::from_tcp(addr)).address(address::from_udp(addr));
        Peer::with(number, addr, draft.entry("fork", [fork]))
    };
    let peers = [with(1, 1), with(2, 2), with(3, 1), Peer::new(4)];
    let rule = |fork: u8| EntryRule::OneOf { key: b"fork".to_vec(), values: vec![vec![fork]] };
    let config = Config { filter: vec![rule(1)], ..config() };
    let mut solo = Solo::knowing(config, &[&peers[0], &peers[1]]);
    solo.tell(offer(Source::Dns, &peers[2..]));
    let mut got = candidates(&solo.tell(In::Want(9)));
    got.sort();
    let mut expected = [peers[0].id, peers[2].id];
    expected.sort();
    assert_eq!(got, expected);
    assert_eq!(solo.machine().table.len(), 4);
    assert_eq!(candidates(&solo.tell(In::Filter(vec![rule(2)]))), [peers[1].id], "a rule can change");
}
