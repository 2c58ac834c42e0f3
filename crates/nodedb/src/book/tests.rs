use std::net::Ipv4Addr;

use peerage_wire::{Keypair, NetworkId, RecordDraft};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
const START: Time = Time::new(Duration::ZERO, Duration::from_secs(1_700_000_000));
const FIVE_DAYS: Duration = Duration::from_secs(5 * 24 * 3_600);

fn id(n: u64) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn ip(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))
}

fn net(text: &str) -> Banned {
    Banned::Network(text.parse().expect("network"))
}

fn record(seed: u8, seq: u64) -> Verified<NodeRecord> {
    RecordDraft::new(seq, NetworkId::named("test"))
        .address(format!("/ip4/{}/udp/30303", ip(seed.into())).parse().expect("multiaddr"))
        .sign(&Keypair::from_seed([seed; 32]))
        .expect("short")
}

/// A clock that runs on while its wall clock reads this much earlier.
fn set_back(now: Time, by: Duration) -> Time {
    Time::new(now.running(), now.unix() - by)
}

fn small() -> Config {
    Config {
        nodes: 8,
        nodes_per_site: 3,
        addresses: 2,
        bans_by_id: 3,
        bans_by_network: 2,
        scores: 3,
        anchors: 2,
        ..Config::recommended()
    }
}

fn book() -> Book {
    Book::new(small())
}

fn pong(book: &mut Book, id: NodeId, ip: IpAddr, now: Time) {
    book.prove(id, ip, now, |proof, now| proof.pong = now);
}

fn ping(book: &mut Book, id: NodeId, ip: IpAddr, now: Time) {
    book.prove(id, ip, now, |proof, now| proof.ping = now);
}

fn last_pong(book: &Book, id: NodeId, ip: IpAddr, now: Time) -> u64 {
    book.proof(&id, ip, now).map_or(0, |proof| proof.pong)
}

#[test]
fn what_was_stored_is_fetched_and_nothing_is_known_of_others() {
    let mut book = book();
    let (first, at) = (record(1, 5), START + HOUR);
    let own = first.id();
    assert!(book.proof(&own, ip(1), at).is_none() && book.record(&own).is_none());
    ping(&mut book, own, ip(1), START);
    pong(&mut book, own, ip(1), at);
    book.prove(own, ip(1), at, |proof, _| proof.failures = 3);
    let expected = Proof { ping: START.unix_millis(), pong: at.unix_millis(), failures: 3, touched: at.unix_millis() };
    assert_eq!(book.proof(&own, ip(1), at), Some(expected));
    assert_eq!(book.proof(&own, "::ffff:10.0.0.1".parse().expect("ip"), at), Some(expected), "the same address");
    assert_eq!(book.proof(&own, ip(2), at), None, "a proof is of one address");
    assert_eq!(book.proof(&id(2), ip(1), at), None, "and of one node");

    assert!(book.put_record(&first, at));
    assert_eq!(book.record(&own), Some(first));
    assert_eq!(book.entries(), Entries { records: 1, proofs: 1, ..Entries::default() });
}

#[test]
fn a_record_that_is_not_newer_is_ignored() {
    let mut book = book();
    let (older, newer) = (record(1, 5), record(1, 6));
    assert!(book.put_record(&newer, START));
    assert!(!book.put_record(&older, START) && !book.put_record(&newer, START));
    assert_eq!(book.record(&newer.id()), Some(newer));
    assert_eq!(book.entries().records, 1);
}

#[test]
fn seeds_are_fresh_distinct_and_as_many_as_asked_for() {
    let mut book = Book::new(Config { nodes: 64, ..Config::recommended() });
    let now = START + FIVE_DAYS * 2;
    for seed in 1..=20 {
        let record = record(seed, 1);
        book.put_record(&record, START);
        let age = if seed <= 12 { HOUR } else { FIVE_DAYS + HOUR };
        pong(&mut book, record.id(), ip(seed.into()), set_back(now, age));
    }
    // No pong; a pong and no record; a pong from an address that the record does not name.
    book.put_record(&record(30, 1), START);
    ping(&mut book, record(30, 1).id(), ip(30), now);
    pong(&mut book, id(31), ip(31), now);
    book.put_record(&record(32, 1), START);
    pong(&mut book, record(32, 1).id(), ip(99), now);

    let fresh: Vec<NodeId> = (1..=12).map(|seed| record(seed, 1).id()).collect();
    for (count, expected) in [(0, 0), (5, 5), (12, 12), (30, 12)] {
        let seeds = book.seeds(count, FIVE_DAYS, now, &mut Rng::new(3));
        let mut ids: Vec<NodeId> = seeds.iter().map(|seed| seed.id()).collect();
        assert!(ids.iter().all(|id| fresh.contains(id)));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((seeds.len(), ids.len()), (expected, expected), "of {count} asked for");
    }
    let draw = |book: &mut Book, seed| book.seeds(5, FIVE_DAYS, now, &mut Rng::new(seed));
    assert_eq!(draw(&mut book, 1), draw(&mut book, 1), "equal seeds draw equally");
    assert_ne!(draw(&mut book, 1), draw(&mut book, 2));
}

/// geth's TestDBExpiration: its cases, and the ones that it leaves to stay for ever.
#[test]
fn proofs_expire_by_address_and_nodes_by_their_youngest_pong() {
    let mut book = book();
    let now = START + HOUR * 48;
    let (fresh, stale) = (set_back(now, HOUR * 24 - MINUTE), set_back(now, HOUR * 24 + MINUTE));
    let record_of = |seed| record(seed, 1).id();
    for seed in [1, 2, 3, 4, 5] {
        book.put_record(&record(seed, 1), if seed == 5 { fresh } else { stale });
    }
    pong(&mut book, record_of(1), ip(1), fresh);
    pong(&mut book, record_of(2), ip(2), stale);
    pong(&mut book, record_of(3), ip(1), stale);
    pong(&mut book, record_of(3), ip(2), fresh);
    // Of 4 and 5 there never was a pong. These have no record:
    pong(&mut book, id(6), ip(6), stale);
    ping(&mut book, id(7), ip(7), stale);
    ping(&mut book, id(8), ip(8), fresh);

    assert_eq!(book.expire(now), 4, "2, 4, 6 and 7");
    for (seed, kept) in [(1, true), (2, false), (3, true), (4, false), (5, true)] {
        assert_eq!(book.record(&record_of(seed)).is_some(), kept, "node {seed}");
    }
    assert_eq!(last_pong(&book, record_of(3), ip(1), now), 0, "the stale address of a node that is kept");
    assert!(last_pong(&book, record_of(3), ip(2), now) > 0 && last_pong(&book, record_of(1), ip(1), now) > 0);
    assert!(book.proof(&id(7), ip(7), now).is_none() && book.proof(&id(8), ip(8), now).is_some());
    assert_eq!(book.entries(), Entries { records: 3, proofs: 3, ..Entries::default() });
    assert_eq!(book.expire(now), 0);
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_eternal() {
    let mut book = book();
    let own = record(1, 1).id();
    book.put_record(&record(1, 1), START);
    pong(&mut book, own, ip(1), START);
    ping(&mut book, own, ip(2), START);
    book.ban(Banned::Id(id(9)), START.unix() + HOUR, START);
    book.set_score(own, 5_000, START.unix());
    book.set_anchors(vec![Anchor { record: record(1, 1), since: START.unix(), lived: HOUR }]);

    // A year back: all of this is in the future now, and counts from now.
    let mut now = set_back(START, HOUR * 24 * 365);
    assert_eq!(last_pong(&book, own, ip(1), now), now.unix_millis());
    assert_eq!(book.seeds(9, HOUR, now, &mut Rng::new(1)).len(), 1);
    assert_eq!(book.bans(now), [(Banned::Id(id(9)), now.unix() + HOUR)], "as long as it was meant to be");
    assert_eq!(book.scores(now), [(own, 5_000, now.unix())]);
    assert_eq!(book.anchors(now)[0].since, now.unix());
    assert_eq!(book.expire(now), 0);
    now += HOUR + MINUTE;
    assert_eq!((book.expire(now), book.bans(now).len(), book.entries().bans), (0, 0, 0));
    now += HOUR * 24;
    assert_eq!(book.expire(now), 1);
    now += HOUR * 24 * 7;
    book.expire(now);
    assert_eq!(book.entries(), Entries { anchors: 1, ..Entries::default() });
}

#[test]
fn bans_end_by_themselves_or_by_hand_and_one_network_is_one_ban() {
    let mut book = book();
    let until = |hours: u32| START.unix() + HOUR * hours;
    assert!(book.ban(Banned::Id(id(1)), until(1), START));
    assert!(book.ban(net("192.0.2.77/24"), until(2), START));
    assert!(book.ban(net("192.0.2.0/24"), until(3), START), "the same network: its new end counts");
    assert!(book.ban(net("::ffff:192.0.2.0/120"), until(4), START), "and again");
    assert!(!book.ban(Banned::Id(id(2)), START.unix(), START), "one that has ended already");
    let network = (net("192.0.2.0/24"), until(4));
    assert_eq!(book.bans(START), [(Banned::Id(id(1)), until(1)), network]);
    assert_eq!(book.bans(START + HOUR), [network]);
    assert_eq!(book.entries().bans, 2);
    book.expire(START + HOUR);
    assert_eq!(book.entries().bans, 1);
    assert!(book.unban(net("192.0.2.5/24")) && !book.unban(net("192.0.2.0/24")));
    assert!(book.ban(Banned::Id(id(3)), Duration::MAX, START));
    book.expire(START + HOUR * 24 * 3_650);
    assert_eq!(book.entries().bans, 1, "a ban without an end");
}

#[test]
fn the_ban_that_ends_first_makes_room_and_it_may_be_the_new_one() {
    let mut book = book();
    let until = |hours: u32| START.unix() + HOUR * hours;
    for n in 1..=3 {
        assert!(book.ban(Banned::Id(id(n)), until(n as u32 * 10), START));
    }
    assert!(book.ban(Banned::Id(id(4)), until(15), START));
    assert!(!book.ban(Banned::Id(id(5)), until(1), START));
    let ids: Vec<Banned> = book.bans(START).into_iter().map(|(banned, _)| banned).collect();
    assert_eq!(ids, [2, 3, 4].map(|n| Banned::Id(id(n))));
    (0..100).for_each(|n| _ = book.ban(net(&format!("10.{n}.0.0/16")), until(n + 1), START));
    assert_eq!(book.bans(START).len(), 3 + 2, "each kind has its own room");
}

#[test]
fn scores_keep_the_highest_and_zero_is_forgotten() {
    let mut book = book();
    for (n, points) in [(1, 10), (2, 30), (3, 20), (4, 40), (5, 5)] {
        book.set_score(id(n), points, START.unix());
    }
    let known = |book: &Book| book.scores(START).into_iter().map(|(id, points, _)| (id, points)).collect::<Vec<_>>();
    assert_eq!(known(&book), [(id(2), 30), (id(3), 20), (id(4), 40)]);
    book.set_score(id(2), 0, START.unix());
    assert_eq!(known(&book), [(id(3), 20), (id(4), 40)]);
    book.expire(START + HOUR * 24 * 8);
    assert!(known(&book).is_empty());
}

#[test]
fn anchors_are_kept_in_order_and_as_many_as_there_may_be() {
    let mut book = book();
    let anchor = |seed| Anchor { record: record(seed, 1), since: START.unix(), lived: HOUR * u32::from(seed) };
    book.set_anchors(vec![anchor(3), anchor(1), anchor(2)]);
    assert_eq!(book.anchors(START), [anchor(3), anchor(1)]);
    book.set_anchors(vec![anchor(2)]);
    assert_eq!(book.anchors(START), [anchor(2)]);
    assert_eq!(book.anchors(START)[0].id(), record(2, 1).id());
}

#[test]
fn whoever_invents_ids_pushes_out_no_node_that_answered() {
    let mut book = Book::new(Config { nodes: 64, ..Config::recommended() });
    for seed in 1..=32 {
        let record = record(seed, 1);
        book.put_record(&record, START);
        pong(&mut book, record.id(), ip(seed.into()), START);
    }
    for n in 0..20_000 {
        let at = START + Duration::from_millis(n);
        ping(&mut book, id(n), ip(n as u32), at);
        book.prove(id(n), ip(n as u32 + 1), at, |proof, _| proof.failures = u32::MAX);
    }
    assert_eq!(book.nodes.len(), 64);
    assert_eq!(book.entries().proofs, 32 + 32 * 2, "of those who never answered, the newest");
    assert_eq!(book.seeds(64, FIVE_DAYS, START + HOUR, &mut Rng::new(1)).len(), 32);
}

#[test]
fn whoever_answers_under_endless_ids_from_one_site_pushes_out_its_own() {
    let mut book = Book::new(Config { nodes: 64, nodes_per_site: 4, ..Config::recommended() });
    let far = |n: u32| IpAddr::V4(Ipv4Addr::from(0x2000_0000 + (n << 8)));
    for n in 0..30 {
        pong(&mut book, id(n), far(n as u32), START);
    }
    for n in 1_000..21_000u32 {
        let crowded = IpAddr::V4(Ipv4Addr::from(0xc000_0200 + n % 256));
        pong(&mut book, id(n.into()), crowded, START + Duration::from_millis(n.into()));
    }
    assert_eq!((book.nodes.len(), book.sites.len()), (34, 34));
    assert!((0..30).all(|n| book.nodes.get(&id(n)).is_some()));
    assert!((20_996..21_000).all(|n| book.nodes.get(&id(n)).is_some()), "the newest of the site");
    // One that moves away makes room.
    pong(&mut book, id(20_996), far(77), START + HOUR);
    pong(&mut book, id(5), far(5), START + HOUR);
    pong(&mut book, id(50_000), IpAddr::V4(Ipv4Addr::from(0xc000_0200)), START + HOUR);
    assert_eq!((book.nodes.len(), book.sites.len()), (35, 35));
    book.expire(START + HOUR * 26);
    assert_eq!((book.nodes.len(), book.sites.len()), (0, 0));
}

#[test]
fn one_node_with_endless_addresses_keeps_the_newest_and_those_that_answered() {
    let mut book = book();
    pong(&mut book, id(1), ip(0), START);
    for n in 1..1_000 {
        ping(&mut book, id(1), ip(n), START + Duration::from_secs(n.into()));
    }
    assert_eq!(book.entries().proofs, 2);
    let now = START + HOUR;
    assert!(last_pong(&book, id(1), ip(0), now) > 0 && book.proof(&id(1), ip(999), now).is_some());
}

#[test]
fn a_capacity_of_nothing_remembers_nothing() {
    let nothing =
        Config { nodes: 0, addresses: 0, bans_by_id: 0, bans_by_network: 0, scores: 0, anchors: 0, ..small() };
    let mut book = Book::new(nothing);
    assert!(!book.put_record(&record(1, 1), START));
    pong(&mut book, id(1), ip(1), START);
    assert!(!book.ban(Banned::Id(id(1)), Duration::MAX, START) && !book.ban(net("10.0.0.0/8"), Duration::MAX, START));
    book.set_score(id(1), 1, START.unix());
    book.set_anchors(vec![Anchor { record: record(1, 1), since: START.unix(), lived: HOUR }]);
    assert_eq!(book.entries(), Entries::default());
    let mut book = Book::new(Config { addresses: 0, ..small() });
    book.put_record(&record(1, 1), START);
    pong(&mut book, record(1, 1).id(), ip(1), START);
    assert_eq!(book.entries(), Entries { records: 1, ..Entries::default() });
}

#[test]
fn the_counts_hold_whatever_happens() {
    let (mut book, mut rng) = (book(), Rng::new(11));
    let records: Vec<_> = (1..=20).map(|seed| record(seed, 1)).collect();
    for step in 0..5_000u64 {
        let now = START + MINUTE * step as u32;
        let who = &records[rng.below(20) as usize];
        match rng.below(5) {
            0 => _ = book.put_record(who, now),
            1 => pong(&mut book, who.id(), IpAddr::from([192, 0, rng.below(3) as u8, 1]), now),
            2 => ping(&mut book, who.id(), ip(rng.below(4) as u32), now),
            3 => _ = book.record(&who.id()),
            _ => _ = (rng.below(50) == 0).then(|| book.expire(now)),
        }
        let nodes: Vec<Node> = book.nodes.iter().map(|(_, node)| node.clone()).collect();
        assert_eq!(book.entries().records, nodes.iter().filter(|node| node.record.is_some()).count());
        assert_eq!(book.entries().proofs, nodes.iter().map(|node| node.proofs.len()).sum::<usize>());
        assert_eq!(book.sites.len(), nodes.iter().filter(|node| node.site().is_some()).count());
        assert!(nodes.len() <= 8 && nodes.iter().all(|node| node.proofs.len() <= 2 && !node.is_empty()));
    }
}
