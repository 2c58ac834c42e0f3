//! Proofs are bounded, lost nodes are asked again, random nodes are spread.

use super::*;

fn pings(outs: &[Out]) -> Vec<Outgoing> {
    requests(outs).into_iter().filter(|request| matches!(request.packet.message, Message::Ping { .. })).collect()
}

fn offer(peers: &[Peer]) -> In {
    In::Offer { source: Source::File, records: peers.iter().map(|peer| peer.record.clone()).collect() }
}

/// With nodes that have a UDP socket only, so that the dialer waits for them.
fn udp_only(numbers: std::ops::Range<u16>) -> Vec<Peer> {
    numbers
        .map(|number| {
            let addr = Peer::new(number).addr;
            Peer::with(number, addr, RecordDraft::new(1, network()).address(address::from_udp(addr)))
        })
        .collect()
}

#[test]
fn whoever_tells_of_many_nodes_makes_us_ask_sixteen_at_once() {
    let mut solo = Solo::knowing(config(), &[&Peer::new(50)]);
    solo.tell(In::Want(50));
    let peers = udp_only(1..41);
    let mut under_way = pings(&solo.tell(offer(&peers)));
    assert_eq!(under_way.len(), 16);
    // Each that answers, or does not, lets one more be asked, until everybody was, once.
    let mut asked = Vec::new();
    while let Some(request) = under_way.pop() {
        asked.push(request.to);
        let peer = peers.iter().find(|peer| peer.id == request.to).expect("one of them");
        let outs = solo.tell(peer.answers(&request, Message::Pong { record_seq: 1, observed: solo.me.addr }));
        assert!(pings(&outs).len() <= 1);
        under_way.extend(pings(&outs));
    }
    let in_table = peers.iter().filter(|peer| solo.knows(peer)).count();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), in_table);
    assert!(in_table > 20, "{in_table}");
}

#[test]
fn first_signs_of_life_are_asked_for_without_haste_while_the_dialer_does_not_wait() {
    let mut solo = Solo::knowing(config(), &[&Peer::new(50)]);
    assert_eq!(pings(&solo.tell(offer(&udp_only(1..41)))).len(), 2);
    assert_eq!(pings(&solo.tell(In::Want(2))).len(), 14, "sixteen in all, as nobody but the first can be handed out");
}

#[test]
fn a_crowd_of_one_site_that_speaks_to_us_has_two_of_sixteen_questions() {
    let mut solo = Solo::first(config());
    let mut asked = 0;
    for number in 0..40u8 {
        let peer = Peer::at(number.into(), SocketAddr::from(([20, 0, 0, number], 30303)), 1);
        asked += requests(&solo.tell(peer.asks(Message::Ping { record_seq: 1 }))).len();
    }
    assert_eq!(asked, 2);
    let honest = Peer::at(900, "21.0.0.1:30303".parse().expect("address"), 1);
    let outs = solo.tell(honest.asks(Message::Ping { record_seq: 1 }));
    only_request(&outs, Message::RecordRequest);
}

/// One node knows some others, and none of them answers any more.
fn abandoned(peers: &[Peer]) -> Solo {
    let mut solo = Solo::knowing(config(), &peers.iter().collect::<Vec<_>>());
    for _ in 0..600 {
        solo.pass(Duration::from_secs(1));
        if solo.machine().table.is_empty() {
            return solo;
        }
    }
    panic!("{} nodes that do not answer are still there", solo.machine().table.len());
}

#[test]
fn a_lost_node_is_asked_again_and_comes_back() {
    let peers: Vec<Peer> = (1..4).map(Peer::new).collect();
    let mut solo = abandoned(&peers);
    for _ in 0..4 * 1_200 {
        let outs = solo.pass(Duration::from_millis(250));
        let Some(ping) = pings(&outs).into_iter().find(|ping| ping.to == peers[0].id) else { continue };
        let outs = solo.tell(peers[0].answers(&ping, Message::Pong { record_seq: 1, observed: solo.me.addr }));
        let request = only_request(&outs, Message::RecordRequest);
        solo.tell(peers[0].shows_record(&request));
        assert!(solo.machine().is_live(peers[0].id));
        return;
    }
    panic!("not asked again within 20 minutes");
}

#[test]
fn what_is_asked_of_lost_nodes_gets_less_and_ends() {
    let peers: Vec<Peer> = (1..4).map(Peer::new).collect();
    let mut solo = abandoned(&peers);
    let mut asked = |seconds| pings(&solo.pass(Duration::from_secs(seconds))).len();
    let first = asked(600);
    asked(3_600 * 3);
    assert!((3..=3 * 8).contains(&first), "{first} in the first ten minutes");
    assert_eq!(asked(3_600), 0, "after hours they are given up");
}

#[test]
fn as_many_lost_nodes_as_can_be_remembered_and_two_of_a_site() {
    let mut solo = Solo::first(config());
    let contact = |addr: [u8; 4], number| {
        let peer = Peer::at(number, SocketAddr::from((addr, 30303)), 1);
        Contact::new(peer.addr, peer.record)
    };
    let mut fx = Effects::default();
    let now = solo.now;
    let machine = solo.driver.machine_mut();
    for number in 0..100u8 {
        machine.lose(now, contact([20, 0, 0, number], number.into()), &mut fx);
    }
    assert_eq!(machine.lost.len(), 2);
    for number in 0..100u8 {
        machine.lose(now, contact([20, 1, number, 1], 200 + u16::from(number)), &mut fx);
    }
    assert_eq!(machine.lost.len(), 32);
}

#[test]
fn random_nodes_are_distinct_and_of_every_bucket_and_none_come_before_the_first_refresh() {
    let peers: Vec<Peer> = (1..120).map(Peer::new).collect();
    let mut solo = Solo::knowing(config(), &peers.iter().collect::<Vec<_>>());
    let buckets = solo.machine().table_sizes().iter().filter(|size| **size > 0).count();
    let got = answer(&solo.tell(In::Random { token: 7, count: buckets }), 7).expect("an answer");
    let mine = Key::of(solo.me.id);
    let mut of: Vec<usize> = got.iter().map(|id| mine.distance(&Key::of(*id)).bucket()).collect();
    of.sort_unstable();
    of.dedup();
    assert_eq!(of.len(), buckets, "one of each");
    let mut all = answer(&solo.tell(In::Random { token: 8, count: 1_000 }), 8).expect("an answer");
    all.sort();
    let many = all.len();
    all.dedup();
    assert_eq!((all.len(), many), (many, solo.machine().table.len()));
    // Before the first refresh.
    let bootnode = Peer::new(500);
    let mut young = Solo::new(config(), &[&bootnode]);
    let outs = young.tell(In::Start);
    young.tell(bootnode.shows_record(&only_request(&outs, Message::RecordRequest)));
    assert!(young.knows(&bootnode));
    assert_eq!(answer(&young.tell(In::Random { token: 9, count: 9 }), 9), Some(Vec::new()));
}
