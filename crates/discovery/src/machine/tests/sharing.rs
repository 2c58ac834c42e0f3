//! Who comes first with many names does not keep the places, and who tells of many does not have all the turns.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::key::BUCKETS;

fn pings(outs: &[Out]) -> Vec<Outgoing> {
    requests(outs).into_iter().filter(|request| matches!(request.packet.message, Message::Ping { .. })).collect()
}

/// Nodes of the machine's last bucket, which half of all belong into: each of a site of its own, or all of one.
fn of_last(numbers: std::ops::RangeFrom<u16>, of_one_site: bool) -> impl Iterator<Item = Peer> {
    let own = Key::of(Peer::new(9_999).id);
    let peer = move |number: u16| match of_one_site {
        true => Peer::at(number, SocketAddr::from(([66, 6, 6, number as u8], 30303)), 1),
        false => Peer::new(number),
    };
    numbers.map(peer).filter(move |peer| own.distance(&Key::of(peer.id)).bucket() == BUCKETS - 1)
}

/// A machine whose last bucket is full: two nodes of one site that came first, and fourteen others.
fn crowded() -> (Solo, Vec<Peer>) {
    let swarm: Vec<Peer> = of_last(3_000.., true).take(2).collect();
    let others: Vec<Peer> = of_last(1.., false).take(14).collect();
    let solo = Solo::knowing(config(), &swarm.iter().chain(&others).collect::<Vec<_>>());
    assert!(swarm.iter().chain(&others).all(|peer| solo.knows(peer)));
    (solo, swarm)
}

#[test]
fn a_stranger_that_speaks_to_us_has_a_place_of_a_swarm_that_came_first() {
    let (mut solo, swarm) = crowded();
    let stranger = of_last(500.., false).next().expect("half of all");
    solo.meet(&stranger);
    assert!(solo.knows(&stranger) && solo.machine().is_live(stranger.id));
    assert_eq!(swarm.iter().filter(|peer| solo.knows(peer)).count(), 1);
    let another = of_last(600.., false).next().expect("half of all");
    solo.meet(&another);
    assert!(!solo.knows(&another), "every site has one place now");
}

#[test]
fn a_swarm_does_not_come_back_by_speaking_again() {
    let (mut solo, swarm) = crowded();
    solo.meet(&of_last(500.., false).next().expect("half of all"));
    for _ in 0..5 {
        solo.now += Duration::from_secs(60);
        swarm.iter().for_each(|peer| solo.meet(peer));
        assert_eq!(swarm.iter().filter(|peer| solo.knows(peer)).count(), 1);
    }
}

#[test]
fn who_is_told_of_and_would_have_a_place_is_asked_for_a_sign_of_life_and_has_it_by_answering() {
    let (mut solo, swarm) = crowded();
    let strangers: Vec<Peer> = of_last(500.., false).take(2).collect();
    let records = strangers.iter().map(|peer| peer.record.clone()).collect();
    let asked = pings(&solo.tell(In::Offer { source: Source::File, records }));
    assert_eq!(asked.len(), 2);
    assert!(strangers.iter().all(|peer| !solo.knows(peer)), "nobody goes for a name");
    let first = strangers.iter().find(|peer| peer.id == asked[0].to).expect("one of them");
    solo.tell(first.answers(&asked[0], Message::Pong { record_seq: 1, observed: solo.me.addr }));
    assert!(solo.knows(first) && solo.machine().is_live(first.id));
    assert_eq!(swarm.iter().filter(|peer| solo.knows(peer)).count(), 1);
}

#[test]
fn a_bucket_that_few_sites_fill_is_looked_into_until_others_are_met() {
    // A swarm of eight sites that has all places of a bucket, and asks for no more.
    let own = Key::of(Peer::new(9_999).id);
    let is_of_last = |peer: &Peer| own.distance(&Key::of(peer.id)).bucket() == BUCKETS - 1;
    let named = |number: u16| Peer::at(number, SocketAddr::from(([66, 6, (number % 8) as u8, number as u8], 30303)), 1);
    let mut of_site = [0; 8];
    let has_two = |peer: &Peer| match peer.addr.ip() {
        IpAddr::V4(ip) => {
            let held = &mut of_site[usize::from(ip.octets()[2])];
            *held += 1;
            *held <= 2
        }
        IpAddr::V6(_) => false,
    };
    let swarm: Vec<Peer> = (3_000..).map(named).filter(is_of_last).filter(has_two).take(16).collect();
    for (peers, looks) in [(swarm, true), (of_last(1.., false).take(16).collect(), false)] {
        let mut solo = Solo::knowing(config(), &peers.iter().collect::<Vec<_>>());
        let mut targets = BTreeSet::new();
        let end = solo.now + Duration::from_secs(60);
        while let Some(due) = solo.driver.next_deadline().filter(|due| *due <= end) {
            solo.now = due;
            solo.driver.expire_due(due);
            let mut questions = VecDeque::from(requests(&solo.driver.drain().collect::<Vec<_>>()));
            while let Some(asked) = questions.pop_front() {
                let peer = peers.iter().find(|peer| peer.id == asked.to).expect("nobody else is known");
                let message = match asked.packet.message {
                    Message::FindNode { target } => {
                        targets.insert(target);
                        Message::Neighbors { index: 0, total: 1, records: Vec::new() }
                    }
                    _ => Message::Pong { record_seq: 1, observed: solo.me.addr },
                };
                questions.extend(requests(&solo.tell(peer.answers(&asked, message))));
            }
        }
        let into = targets.iter().filter(|target| own.distance(target).bucket() == BUCKETS - 1).count();
        assert_eq!(into > 0, looks, "{targets:?}");
    }
}

#[test]
fn in_an_honest_crowd_of_many_sites_nobody_who_waits_is_asked() {
    let peers: Vec<Peer> = of_last(1.., false).take(20).collect();
    let mut solo = Solo::knowing(config(), &peers.iter().take(16).collect::<Vec<_>>());
    let records = peers.iter().skip(16).map(|peer| peer.record.clone()).collect();
    assert_eq!(pings(&solo.tell(In::Offer { source: Source::File, records })), []);
}

#[test]
fn one_that_tells_of_many_does_not_keep_those_waiting_whom_another_told_of() {
    let mut solo = Solo::knowing(config(), &[&Peer::new(50)]);
    let many: Vec<Peer> = (100..130).map(Peer::new).collect();
    let records = many.iter().map(|peer| peer.record.clone()).collect();
    let asked = pings(&solo.tell(In::Offer { source: Source::Exchange, records }));
    assert_eq!(asked.len(), 2, "two at once while nobody waits for them");
    let one = Peer::new(200);
    solo.tell(In::Offer { source: Source::File, records: vec![one.record.clone()] });
    let answering = many.iter().find(|peer| peer.id == asked[0].to).expect("one of them");
    let outs = solo.tell(answering.answers(&asked[0], Message::Pong { record_seq: 1, observed: solo.me.addr }));
    assert_eq!(pings(&outs).iter().map(|ping| ping.to).collect::<Vec<_>>(), [one.id]);
}
