//! Pull repair: who is asked, what is sent, and what filters of all kinds cost.

use peerage_machine::Rng;

use super::network::{Loss, Network};
use super::*;
use crate::config::Pull;
use crate::wire::{Filter, Item, MAX_FILTER, Slice};

const ALL: Slice = Slice { bits: 0, index: 0 };

/// The filters shown to each session.
fn shown(outs: &[Out]) -> Vec<(u64, Filter)> {
    let filter = |push: &Outgoing| match wire::items(push.bytes.clone(), 0).next() {
        Some(Ok(Item::Filter(filter))) => Some((push.to.first()?.session.0, filter)),
        _ => None,
    };
    pushes(outs).filter_map(filter).collect()
}

/// The payloads that were sent for a filter, and what was said at the end.
fn answer(outs: &[Out]) -> (Vec<Bytes>, Option<(u32, bool)>) {
    let (mut payloads, mut end) = (Vec::new(), None);
    for push in pushes(outs).filter(|push| push.lane == Lane::Bulk) {
        match wire::items(push.bytes.clone(), usize::MAX).find(|item| !matches!(item, Ok(Item::Repair))) {
            Some(Ok(Item::Message(parcel))) => {
                assert_eq!(end, None, "the end comes last");
                payloads.push(parcel.payload);
            }
            Some(Ok(Item::Answered { sent, more })) => end = Some((sent, more)),
            _ => {}
        }
    }
    (payloads, end)
}

/// The filter of one who has these.
fn having(ids: &[MessageId]) -> Bytes {
    wire::filter(&Filter::new([7; 16], ALL, ids))
}

fn raw(probes: u8, bits: Vec<u8>) -> Bytes {
    let known = peerage_machine::Bloom::from_parts(bits, probes).expect("well formed");
    wire::filter(&Filter { salt: [7; 16], slice: ALL, known })
}

/// A node with so many messages of so many bytes, the first byte of each its number, and its peers 1 to 9; the time.
fn keeper(messages: u8, bytes: usize) -> (Node, Vec<MessageId>, Time) {
    let mut node = Node::subscribed(Policy::Signed, [60]);
    let parcels: Vec<Parcel> =
        (0..messages).map(|n| parcel(50, u64::from(n), at(u64::from(n)), &vec![n; bytes])).collect();
    for (n, parcel) in parcels.iter().enumerate() {
        node.inbound(at(n as u64), 60, parcel.bytes.clone());
    }
    (1..10).for_each(|n| node.peer(n));
    (node, parcels.iter().map(Parcel::id).collect(), at(10_000))
}

fn numbers(payloads: &[Bytes]) -> Vec<u8> {
    payloads.iter().filter_map(|payload| payload.first().copied()).collect()
}

#[test]
fn a_node_that_has_just_come_asks_a_peer_of_its_topic_within_seconds() {
    let mut node = Node::subscribed(Policy::Signed, []);
    node.peer(1);
    node.feed(at(0), In::PeerUp(PeerUp::new(SessionId(2), keys(102).id(), ChannelId(1))));
    node.inbound(at(0), 2, wire::topics(false, [&Topic::new("other").expect("short")]));
    let shown = shown(&node.expire(at(1_200)));
    assert_eq!(shown.iter().map(|(session, _)| *session).collect::<Vec<_>>(), [1], "the other has nothing for it");
    assert!(shown[0].1.lacks(&MessageId([9; 32])), "and it has nothing yet");
}

#[test]
fn what_was_seen_is_in_the_filter_whether_it_is_kept_or_not_and_what_is_old_is_not() {
    let mut node = Node::subscribed(Policy::Signed, []);
    let (kept, seen, old) = (parcel(50, 1, at(200_000), b"hi"), MessageId([7; 32]), MessageId([8; 32]));
    node.feed(
        at(200_000),
        In::Restore { seen: vec![(old, at(1_000)), (seen, at(150_000))], sequence: 0, useful: BTreeSet::new() },
    );
    node.peer(1);
    node.inbound(at(200_000), 1, kept.bytes.clone());
    node.checks = false;
    let checked = parcel(50, 2, at(200_000), b"ho");
    node.inbound(at(200_000), 1, checked.bytes.clone());
    let shown = shown(&node.expire(at(201_200)));
    let filter = &shown.first().expect("it asks").1;
    assert!(!filter.lacks(&kept.id()) && !filter.lacks(&seen), "seen");
    assert!(!filter.lacks(&checked.id()), "being checked");
    assert!(filter.lacks(&old), "nobody keeps it any more");
}

#[test]
fn what_is_missing_is_sent_oldest_first_as_far_as_the_budget_goes() {
    let (mut node, ids, now) = keeper(40, 4_000);
    let (payloads, end) = answer(&node.inbound(now, 1, having(&ids[3..5])));
    let numbers = numbers(&payloads);
    let expected: Vec<u8> = (0..40).filter(|n| !(3..5).contains(n)).take(numbers.len()).collect();
    assert_eq!(numbers, expected);
    let sent: usize = payloads.iter().map(Bytes::len).sum();
    assert!((60_000..=65_536).contains(&sent), "{sent} bytes");
    assert_eq!(end, Some((u32::try_from(payloads.len()).expect("few"), true)));
    let mut all: Vec<MessageId> = ids.clone();
    all.pop();
    let (payloads, end) = answer(&node.inbound(now, 1, having(&all)));
    assert_eq!((payloads.len(), end), (1, Some((1, false))));
    let (payloads, end) = answer(&node.inbound(now, 1, having(&ids)));
    assert_eq!((payloads.len(), end), (0, Some((0, false))));
}

#[test]
fn one_message_is_sent_however_large() {
    let mut node = Node::subscribed(Policy::Signed, [1, 60]);
    let budget = Pull { answer_bytes: 100, ..Pull::recommended() };
    node.driver = Driver::new(GossipMachine::new(Config { pull: budget, ..Config::test() }, keys(0).id(), 0));
    node.subscribe(Policy::Signed);
    [1, 60].into_iter().for_each(|n| node.peer(n));
    for n in 0..3 {
        node.inbound(at(n), 60, parcel(50, n, at(n), &[n as u8; 60_000]).bytes);
    }
    let (payloads, end) = answer(&node.inbound(at(10_000), 1, having(&[])));
    assert_eq!((numbers(&payloads), end), (vec![0], Some((1, true))));
}

#[test]
fn what_has_just_come_is_left_to_push() {
    let mut node = Node::subscribed(Policy::Signed, [1, 60]);
    let message = parcel(50, 1, at(0), b"hi");
    node.inbound(at(0), 60, message.bytes);
    assert_eq!(answer(&node.inbound(at(1_900), 1, having(&[]))), (vec![], Some((0, false))));
    assert_eq!(answer(&node.inbound(at(2_000), 1, having(&[]))).0.len(), 1);
}

#[test]
fn only_topics_that_the_asker_wants_are_sent() {
    let (mut node, _, now) = keeper(3, 10);
    node.inbound(now, 1, wire::topics(false, [&Topic::new("other").expect("short")]));
    assert_eq!(answer(&node.inbound(now, 1, having(&[]))), (vec![], Some((0, false))));
    let stranger = node.inbound(now, 99, having(&[]));
    assert_eq!((answer(&stranger), drops(&stranger)), ((vec![], None), vec![DropReason::UnknownSession]));
}

#[test]
fn two_filters_a_second_are_answered_and_a_flood_is_blamed() {
    let (mut node, ids, now) = keeper(3, 10);
    let full = having(&ids);
    for _ in 0..8 {
        assert_eq!(answer(&node.inbound(now, 1, full.clone())).1, Some((0, false)));
    }
    let outs = node.inbound(now, 1, full.clone());
    assert_eq!((answer(&outs).1, drops(&outs)), (None, vec![DropReason::FilterFlood]));
    assert_eq!(reports(&outs), [(1, Penalty::ControlFlood)]);
    assert_eq!(reports(&node.inbound(now, 1, full.clone())), [], "once a heartbeat");
    assert_eq!(answer(&node.inbound(now, 2, full.clone())).1, Some((0, false)), "others have their own quota");
    assert_eq!(answer(&node.inbound(now + Duration::from_millis(500), 1, full)).1, Some((0, false)));
}

/// A peer that keeps saying that it has nothing is sent each message a few times, whatever it does.
#[test]
fn a_peer_that_claims_to_have_nothing_costs_a_bounded_number_of_bytes() {
    let (mut node, _, start) = keeper(40, 4_000);
    let mut sent = 0;
    for second in 0..100 {
        let now = start + Duration::from_secs(second);
        node.expire(now);
        sent += answer(&node.inbound(now, 1, having(&[]))).0.len();
    }
    assert_eq!(sent, 40 * usize::from(Config::test().serves_per_peer));
}

#[test]
fn many_askers_share_the_bytes_of_a_heartbeat() {
    let mut node = Node::with(0, Config { cache_bytes: 4 << 20, ..Config::test() });
    node.subscribe(Policy::Signed);
    (1..=100).for_each(|n| node.peer(n));
    for n in 0..40 {
        node.inbound(at(n), 100, parcel(50, n, at(n), &[0; 4_000]).bytes);
    }
    node.expire(at(9_999));
    let answers: Vec<_> = (1..100).map(|n| answer(&node.inbound(at(10_000), n, having(&[])))).collect();
    let sent: usize = answers.iter().flat_map(|(payloads, _)| payloads).map(Bytes::len).sum();
    let most = Config::test().pull.beat_bytes;
    assert!(sent > most * 9 / 10 && sent <= most, "{sent} bytes");
    assert_eq!(answers.last(), Some(&(vec![], Some((0, true)))), "who gets nothing is told so, and not blamed");
    node.expire(at(11_200));
    assert!(!answer(&node.inbound(at(11_200), 99, having(&[]))).0.is_empty());
}

/// The largest filter that hides everything makes its answerer look at all it keeps, for nothing.
#[test]
fn many_askers_share_the_looks_of_a_heartbeat() {
    let (mut node, ids, now) = keeper(100, 10);
    (10..=59).chain(61..=130).for_each(|n| node.peer(n));
    node.expire(at(9_999));
    let full = raw(8, vec![0xff; MAX_FILTER]);
    let (looks, mut ends) = (4 * Config::test().cache_ids, Vec::new());
    for n in (1..=59).chain(61..=130) {
        ends.push(answer(&node.inbound(now, n, full.clone())).1);
    }
    assert_eq!(ends.iter().filter(|end| **end == Some((0, false))).count(), looks / ids.len());
    assert_eq!(ends.iter().filter(|end| **end == Some((0, true))).count(), 129 - looks / ids.len(), "and not blamed");
    node.expire(at(11_200));
    assert_eq!(answer(&node.inbound(at(11_200), 1, having(&ids))).1, Some((0, false)));
}

#[test]
fn what_an_answer_brings_is_announced_and_not_pushed_on() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    let asked = shown(&node.expire(at(1_200)))[0].0;
    let others: Vec<u64> = (1..=3).filter(|n| *n != asked).collect();
    let (old, live) = (parcel(50, 1, at(0), b"old"), parcel(50, 2, at(1_200), b"live"));
    let outs = node.inbound(at(1_300), asked, wire::repair(&old.bytes));
    assert_eq!((delivered(&outs), pushed(&outs)), (vec![Bytes::from("old")], vec![]));
    let outs = node.inbound(at(1_300), asked, live.bytes);
    assert_eq!(pushed(&outs), others, "what it pushes meanwhile is pushed on");
    let told = told(&node.expire(at(2_500)));
    assert_eq!(told, others.iter().map(|n| (*n, vec![old.id()])).collect::<Vec<_>>());
}

#[test]
fn what_nobody_asked_for_is_pushed_on_whatever_its_sender_calls_it() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    assert_eq!(pushed(&node.inbound(at(10), 1, wire::repair(&parcel(50, 1, at(0), b"hi").bytes))), [2, 3]);
    let asked = shown(&node.expire(at(1_200)))[0].0;
    let other = if asked == 1 { 2 } else { 1 };
    let outs = node.inbound(at(1_300), other, wire::repair(&parcel(50, 2, at(0), b"ho").bytes));
    assert_eq!(pushed(&outs).len(), 2);
    node.inbound(at(1_300), asked, wire::answered(0, false));
    let outs = node.inbound(at(1_400), asked, wire::repair(&parcel(50, 3, at(0), b"he").bytes));
    assert_eq!(pushed(&outs).len(), 2, "the answer is over");
}

#[test]
fn filters_of_all_shapes_are_answered_within_the_budget() {
    let (mut node, _, now) = keeper(40, 4_000);
    let all_ones = answer(&node.inbound(now, 1, raw(8, vec![0xff; MAX_FILTER])));
    assert_eq!(all_ones, (vec![], Some((0, false))), "it hides all from its sender");
    for (session, filter) in [(2, raw(1, vec![0; 8])), (3, raw(8, vec![0; MAX_FILTER])), (4, raw(1, vec![0x55; 8]))] {
        let (payloads, end) = answer(&node.inbound(now, session, filter));
        assert!(payloads.iter().map(Bytes::len).sum::<usize>() <= Config::test().pull.answer_bytes);
        assert!(end.is_some_and(|(sent, _)| sent as usize == payloads.len()));
    }
    let one_slice = Filter::new([7; 16], Slice { bits: 8, index: 255 }, &[]);
    assert!(answer(&node.inbound(now, 5, wire::filter(&one_slice))).0.len() < 5);
}

/// What a node asks in so many seconds of peers that answer in this way, and the bytes of its filters.
fn asked_in(seconds: u64, peers: u64, end: Option<(u32, bool)>) -> (usize, usize) {
    let mut node = Node::subscribed(Policy::Signed, 1..=peers);
    let (mut count, mut bytes) = (0, 0);
    for tenth in 1..=10 * seconds {
        let now = at(100 * tenth);
        let mut waiting = shown(&node.expire(now));
        while let Some((session, filter)) = waiting.pop() {
            count += 1;
            bytes += wire::filter(&filter).len();
            if let Some((sent, more)) = end {
                waiting.extend(shown(&node.inbound(now, session, wire::answered(sent, more))));
            }
        }
    }
    (count, bytes)
}

#[test]
fn a_node_that_lacks_nothing_asks_ever_more_rarely() {
    let (count, bytes) = asked_in(600, 20, Some((0, false)));
    assert!((36..=50).contains(&count), "{count} pulls in ten minutes");
    assert!(bytes <= 50 * 40, "{bytes} bytes");
}

#[test]
fn peers_that_claim_to_have_sent_much_are_not_asked_more_often_and_silent_ones_not_much_more() {
    let honest = asked_in(600, 20, Some((0, false))).0;
    for end in [Some((u32::MAX, true)), Some((0, true)), Some((5, false))] {
        let count = asked_in(600, 20, end).0;
        assert!(count <= honest + 2, "{count} pulls with {end:?}");
    }
    let silent = asked_in(600, 20, None).0;
    assert!(silent <= 600 / 7, "{silent} pulls without an answer");
}

#[test]
fn the_only_peer_is_asked_within_its_quota_while_it_has_more() {
    let (mut asker, (mut keeper, _, start)) = (Node::subscribed(Policy::Signed, [1]), keeper(200, 4_000));
    let mut asked = 0;
    for tenth in 0..200 {
        let now = start + Duration::from_millis(100 * tenth);
        keeper.expire(now);
        let mut waiting = shown(&asker.expire(now));
        while let Some((_, filter)) = waiting.pop() {
            asked += 1;
            let outs = keeper.inbound(now, 1, wire::filter(&filter));
            assert_eq!(reports(&outs), []);
            for push in pushes(&outs) {
                waiting.extend(shown(&asker.inbound(now, 1, push.bytes.clone())));
            }
        }
    }
    assert_eq!(asker.stats().cached, 200, "after {asked} pulls");
    assert!(asked <= 20);
}

#[test]
fn the_end_of_an_answer_that_nobody_waits_for_changes_nothing() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    assert_eq!(node.inbound(at(10), 1, wire::answered(9, true)), []);
    let asked = shown(&node.expire(at(1_200)));
    let other = if asked[0].0 == 1 { 2 } else { 1 };
    assert_eq!(node.inbound(at(1_300), other, wire::answered(9, true)), []);
}

#[test]
fn a_new_peer_is_asked_soon_although_nothing_was_missing() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    for second in 1..=120 {
        for (session, _) in shown(&node.expire(at(1_000 * second))) {
            node.inbound(at(1_000 * second), session, wire::answered(0, false));
        }
    }
    node.feed(at(120_500), In::PeerUp(PeerUp::new(SessionId(9), keys(9).id(), ChannelId(1))));
    node.inbound(at(120_500), 9, wire::topics(false, [&topic()]));
    let asked: Vec<u64> =
        (121..=127).flat_map(|second| shown(&node.expire(at(1_000 * second)))).map(|(session, _)| session).collect();
    assert_eq!(asked, [9]);
}

#[test]
fn more_ids_than_fit_a_filter_are_shown_slice_by_slice() {
    let config = Config { seen_ids: 100_000, ..Config::test() };
    let mut node = Node::with(0, config);
    node.subscribe(Policy::Signed);
    let mut rng = Rng::new(1);
    let ids: Vec<MessageId> = (0..40_000).map(|_| MessageId(rng.bytes())).collect();
    let seen = ids.iter().map(|id| (*id, at(0))).collect();
    node.feed(at(0), In::Restore { seen, sequence: 0, useful: BTreeSet::new() });
    (1..=3).for_each(|n| node.peer(n));
    let (mut slices, mut filters) = (BTreeSet::new(), Vec::new());
    for second in 1..=170 {
        for (session, filter) in shown(&node.expire(at(1_000 * second))) {
            node.inbound(at(1_000 * second), session, wire::answered(0, false));
            slices.insert((filter.slice.bits, filter.slice.index));
            filters.push(filter);
        }
    }
    assert_eq!(slices.into_iter().collect::<Vec<_>>(), [(2, 0), (2, 1), (2, 2), (2, 3)]);
    assert!(filters.iter().all(|filter| wire::filter(filter).len() < MAX_FILTER + 40));
    assert!(ids.iter().all(|id| filters.iter().all(|filter| !filter.lacks(id))), "what was seen is in its slice");
}

fn up(network: &mut Network, a: usize, b: usize) {
    for (here, there) in [(a, b), (b, a)] {
        let up = In::PeerUp(PeerUp::new(SessionId(there as u64), keys(there as u8).id(), ChannelId(1)));
        network.feed(here, up);
    }
}

fn down(network: &mut Network, a: usize, b: usize) {
    network.feed(a, In::PeerDown { session: SessionId(b as u64) });
    network.feed(b, In::PeerDown { session: SessionId(a as u64) });
}

/// Links of [`Network`].
fn neighbours(node: usize, count: usize) -> BTreeSet<usize> {
    [1, 3, 7].into_iter().flat_map(|step| [(node + step) % count, (node + count - step) % count]).collect()
}

fn pulls_alone() -> Config {
    Config { announce_for: Duration::ZERO, cache_bytes: 4 << 20, ..Config::test() }
}

fn publish_some(network: &mut Network, messages: u64, from: u64, every: u64) {
    for n in 0..messages {
        network.publish((n * 7 % 20) as usize, format!("message {n} {}", "x".repeat(1_000)));
        network.run_until(at(from + every * (n + 1)));
    }
}

/// Three pushes in ten vanish, and nothing is announced: pull alone brings everything everywhere before the window has
/// passed, although as many of the filters, of the messages in answers and of their ends vanish.
#[test]
fn pull_alone_brings_everything_everywhere_when_three_pushes_in_ten_vanish() {
    let mut network = Network::with(pulls_alone(), 20, Loss::Silent, 0, 11);
    network.run_until(at(3_000));
    network.percent = 30;
    publish_some(&mut network, 50, 3_000, 20);
    network.run_until(at(110_000));
    network.assert_all_once(50);
}

#[test]
fn a_lost_message_is_there_after_one_slow_pull() {
    let mut network = Network::with(pulls_alone(), 20, Loss::Silent, 0, 12);
    network.run_until(at(40_000));
    // Nobody gets it but the publisher's neighbours.
    network.publish(0, "hi".to_owned());
    network.percent = 100;
    network.run_until(at(40_100));
    network.percent = 0;
    let slow = Config::test().pull.slow.as_millis() as u64;
    network.run_until(at(40_100 + 3 * slow));
    network.assert_all_once(1);
}

/// Restarts node 0 after thirty seconds without it; it has the ids it had seen, or not.
fn restart(network: &mut Network, seen: bool, now: u64) {
    for other in neighbours(0, 20) {
        down(network, 0, other);
    }
    network.run_until(at(now));
    network.nodes[0] = Node::with(0, pulls_alone());
    if seen {
        let seen = network.delivered[0].keys().map(|id| (*id, at(now - 30_000))).collect();
        network.feed(0, In::Restore { seen, sequence: 0, useful: BTreeSet::new() });
    } else {
        network.delivered[0].clear();
    }
    network.nodes[0].subscribe(Policy::Signed);
    for other in neighbours(0, 20) {
        up(network, 0, other);
    }
}

#[test]
fn a_node_that_restarts_catches_up_on_the_whole_window_within_seconds() {
    let mut network = Network::with(pulls_alone(), 20, Loss::Silent, 0, 13);
    network.run_until(at(3_000));
    publish_some(&mut network, 1_000, 3_000, 20);
    restart(&mut network, false, 60_000);
    network.run_until(at(66_000));
    network.assert_all_once(1_000);
}

#[test]
fn a_node_that_restarts_with_its_seen_set_is_sent_nothing_twice() {
    let mut network = Network::with(pulls_alone(), 20, Loss::Silent, 0, 14);
    network.run_until(at(3_000));
    publish_some(&mut network, 500, 3_000, 20);
    network.run_until(at(20_000));
    for other in neighbours(0, 20) {
        down(&mut network, 0, other);
    }
    for n in 0..100 {
        network.publish(9, format!("later {n} {}", "x".repeat(1_000)));
    }
    let before = network.bytes;
    network.run_until(at(30_000));
    let others = network.bytes - before;
    restart(&mut network, true, 50_000);
    let before = network.bytes;
    network.run_until(at(55_000));
    network.assert_all_once(600);
    let cost = network.bytes - before;
    // A hundred messages of 1,150 bytes, and filters of 750; not the five hundred that it had seen.
    assert!(cost < 200_000, "{cost} bytes; the hundred cost all others {others}");
}

#[test]
fn two_halves_that_were_apart_have_everything_soon_after_one_link_joins_them() {
    let mut network = Network::with(Config::test(), 20, Loss::Silent, 0, 15);
    network.run_until(at(3_000));
    let half = |node: usize| node < 10;
    for a in 0..20 {
        for b in neighbours(a, 20).into_iter().filter(|b| half(a) != half(*b)) {
            down(&mut network, a, b);
        }
    }
    network.run_until(at(10_000));
    publish_some(&mut network, 200, 10_000, 100);
    assert!(network.delivered.iter().all(|delivered| delivered.len() < 200), "they are apart");
    network.run_until(at(40_000));
    up(&mut network, 0, 19);
    network.run_until(at(90_000));
    network.assert_all_once(200);
}

#[test]
fn a_converged_network_is_sent_nothing_by_pulls_and_an_idle_one_costs_next_to_nothing() {
    let mut network = Network::with(pulls_alone(), 20, Loss::Silent, 0, 16);
    network.run_until(at(60_000));
    let start = network.bytes;
    network.run_until(at(660_000));
    let idle = (network.bytes - start) / 20;
    // Forty filters of 34 bytes, and as many ends of answers of 11.
    assert!(idle <= 40 * 45 * 5 / 4, "{idle} bytes a node in ten minutes");
    publish_some(&mut network, 100, 660_000, 20);
    network.run_until(at(664_000));
    let start = network.bytes;
    network.run_until(at(724_000));
    let after = (network.bytes - start) / 20;
    // Four filters of 151 bytes, some more while the pauses grow.
    assert!(after <= 8 * (151 + 11), "{after} bytes a node in the minute after a hundred messages");
    network.assert_all_once(100);
}
