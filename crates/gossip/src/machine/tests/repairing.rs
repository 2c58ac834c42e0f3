//! Lazy repair: what is announced, asked for and served.

use super::*;

/// A node with one message that it got from peer 9, and its id.
pub(super) fn holder(peers: impl IntoIterator<Item = u64>) -> (Node, MessageId) {
    let mut node = Node::subscribed(Policy::Signed, [9]);
    let message = parcel(50, 1, at(0), b"hi");
    node.inbound(at(0), 9, message.bytes.clone());
    for n in peers {
        node.peer(n);
    }
    (node, message.id())
}

#[test]
fn messages_are_announced_once_to_those_who_lack_them() {
    let (mut node, id) = holder([1]);
    assert_eq!(told(&node.expire(at(1_200))), [(1, vec![id])], "not to peer 9, which sent it");
    assert_eq!(told(&node.expire(at(2_400))), [], "it was told");
    for n in 2..6 {
        node.peer(n);
        node.inbound(at(2_500), n, wire::i_have(&topic(), &[id]));
    }
    assert_eq!(told(&node.expire(at(3_600))), [], "they say that they have it");
}

/// Nobody pulls it from there.
#[test]
fn what_a_guest_published_is_announced_as_long_as_it_is_kept() {
    let mut node = Node::new(0);
    node.publish(at(0), Policy::Signed, "hi");
    for millis in 1..100 {
        node.expire(at(1_000 * millis));
    }
    node.peer(1);
    assert_eq!(told(&node.expire(at(101_500))).len(), 1);
    assert_eq!(told(&node.expire(at(103_000))).len(), 0, "once");
}

#[test]
fn old_messages_are_not_announced() {
    let (mut node, _) = holder([]);
    node.expire(at(10_500));
    node.peer(1);
    assert_eq!(told(&node.expire(at(12_000))), [], "they are for pull repair");
}

#[test]
fn a_message_is_announced_to_those_a_push_failed_to_reach() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let outs = node.publish(at(0), Policy::Signed, "hi");
    let push = pushes(&outs).find(|push| push.lane == Lane::Normal).expect("pushed");
    assert_eq!(told(&node.expire(at(1_200))), [], "it is on its way");
    node.feed(at(1_300), In::SendFailed { session: SessionId(1), tag: push.tag });
    assert_eq!(told(&node.expire(at(2_500))).len(), 1);
}

#[test]
fn an_announcement_that_did_not_go_out_is_made_again() {
    let (mut node, id) = holder([1]);
    assert_eq!(told(&node.expire(at(1_200))).len(), 1);
    node.feed(at(1_300), In::SendFailed { session: SessionId(1), tag: tag::ANNOUNCEMENT });
    assert_eq!(told(&node.expire(at(2_500))), [(1, vec![id])]);
}

#[test]
fn a_few_peers_are_told_at_each_heartbeat_newest_first_and_so_many_ids() {
    let mut node = Node::with(0, Config { announce_ids: 10, ..Config::test() });
    node.subscribe(Policy::Signed);
    let mut ids = Vec::new();
    for n in 0..25 {
        let outs = node.publish(at(n), Policy::Signed, "hi");
        let id = outs.iter().find_map(|out| if let Out::Remember(id) = out { Some(*id) } else { None });
        ids.push(id.expect("published"));
    }
    (1..=20).for_each(|n| node.peer(n));
    let first = told(&node.expire(at(1_200)));
    assert_eq!(first.len(), Config::test().announce_peers);
    let newest: Vec<MessageId> = ids.iter().rev().take(10).copied().collect();
    assert!(first.iter().all(|(_, told)| *told == newest));
}

#[test]
fn a_message_just_come_is_left_to_pushing() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    node.expire(at(1_050));
    node.publish(at(1_900), Policy::Signed, "hi");
    node.feed(at(1_901), In::SendFailed { session: SessionId(1), tag: 16 });
    let beat = node.driver.next_deadline().expect("it beats");
    if beat.since(at(1_900)) < Config::test().announce_after {
        assert_eq!(told(&node.expire(beat)), []);
    }
    assert_eq!(told(&node.expire(at(4_000))).len(), 1);
}

#[test]
fn unseen_ids_are_asked_of_one_peer_at_a_time() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    let message = parcel(50, 1, at(0), b"hi");
    let (id, other) = (message.id(), MessageId([7; 32]));
    assert_eq!(asked(&node.inbound(at(0), 1, wire::i_have(&topic(), &[id, other]))), [(1, vec![id, other])]);
    assert_eq!(asked(&node.inbound(at(10), 2, wire::i_have(&topic(), &[id]))), []);
    assert_eq!(asked(&node.inbound(at(20), 3, wire::i_have(&topic(), &[id]))), []);
    let outs = node.expire(at(2_001));
    assert_eq!(asked(&outs), [(1, vec![other]), (2, vec![id])], "nobody else has the other one");
    assert_eq!(drops(&outs), [DropReason::BrokenPromise, DropReason::BrokenPromise]);
    assert_eq!(asked(&node.feed(at(2_500), In::PeerDown { session: SessionId(2) })), [(3, vec![id])]);
    assert_eq!(delivered(&node.inbound(at(2_600), 3, message.bytes)).len(), 1);
    assert_eq!(asked(&node.expire(at(4_100))), [(1, vec![other])]);
    assert_eq!(asked(&node.expire(at(6_200))), [], "1 was asked for the other one three times");
    assert_eq!(node.stats().wanted, 0);
}

#[test]
fn who_announced_a_message_is_not_sent_it() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    let message = parcel(50, 1, at(0), b"hi");
    node.inbound(at(0), 1, wire::i_have(&topic(), &[message.id()]));
    node.inbound(at(0), 2, wire::i_have(&topic(), &[message.id()]));
    assert_eq!(pushed(&node.inbound(at(10), 1, message.bytes)), [3]);
}

#[test]
fn what_is_seen_or_of_another_topic_is_not_asked_for() {
    let (mut node, id) = holder([1]);
    assert_eq!(asked(&node.inbound(at(1), 1, wire::i_have(&topic(), &[id]))), []);
    let other = Topic::new("other").expect("short");
    let outs = node.inbound(at(1), 1, wire::i_have(&other, &[MessageId([7; 32])]));
    assert_eq!((asked(&outs), drops(&outs)), (vec![], vec![DropReason::UnknownTopic]));
}

#[test]
fn requests_are_answered_so_often_whatever_becomes_of_the_answers() {
    let (mut node, id) = holder([1]);
    let ask = wire::i_want(&[id]);
    let mut tag = 0;
    for _ in 0..Config::test().serves_per_peer {
        let outs = node.inbound(at(1), 1, ask.clone());
        assert_eq!(pushed(&outs), [1]);
        tag = pushes(&outs).next().expect("served").tag;
    }
    assert_eq!(drops(&node.inbound(at(1), 1, ask.clone())), [DropReason::ServedEnough]);
    // A peer that asks and does not read makes its own answers fail.
    node.feed(at(2), In::SendFailed { session: SessionId(1), tag });
    assert_eq!(drops(&node.inbound(at(3), 1, ask.clone())), [DropReason::ServedEnough]);
    assert_eq!(drops(&node.inbound(at(3), 1, wire::i_want(&[MessageId([7; 32])]))), [DropReason::NotKept]);
    node.expire(at(130_000));
    assert_eq!(node.stats().cached, 0, "kept for two minutes");
    assert_eq!(drops(&node.inbound(at(130_000), 9, ask)), [DropReason::NotKept]);
}

#[test]
fn who_asks_for_our_topics_may_have_forgotten_what_it_was_told() {
    let (mut node, id) = holder([1]);
    assert_eq!(told(&node.expire(at(1_200))).len(), 1);
    node.inbound(at(1_300), 1, wire::topics(true, [&topic()]));
    assert_eq!(told(&node.expire(at(2_500))), [(1, vec![id])]);
}

/// Each question may come from a new life of the peer, which knows nothing of what it was told since the last one.
#[test]
fn a_peer_that_asks_again_before_the_answer_is_told_again_of_all_it_was_told() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    for (millis, payload) in [(0, "hi"), (200, "ho")] {
        node.publish(at(millis), Policy::Signed, payload);
        node.inbound(at(millis + 100), 1, wire::topics(true, [&topic()]));
    }
    let told = told(&node.expire(at(2_500)));
    assert_eq!(told.iter().map(|(session, ids)| (*session, ids.len())).collect::<Vec<_>>(), [(1, 2)]);
}

#[test]
fn what_this_node_sheds_is_announced_later_and_is_not_held_against_the_peer() {
    let after = |input: fn(u64) -> In| {
        let mut node = Node::subscribed(Policy::Signed, [1]);
        let outs = node.publish(at(0), Policy::Signed, "hi");
        let push = pushes(&outs).find(|push| push.lane == Lane::Normal).expect("pushed");
        (0..10).for_each(|_| drop(node.feed(at(1_300), input(push.tag))));
        let slow = node.driver.machine().standings(at(1_300))[0].score.slow;
        (slow, told(&node.expire(at(2_500))).len())
    };
    assert!(after(|tag| In::SendFailed { session: SessionId(1), tag }).0 < 0, "a peer that does not read is slow");
    assert_eq!(after(|tag| In::Shed { session: SessionId(1), tag }), (0, 1));
}

#[test]
fn what_this_node_sheds_does_not_count_as_served() {
    let (mut node, id) = holder([1]);
    let ask = wire::i_want(&[id]);
    for _ in 0..3 * Config::test().serves_per_peer {
        let outs = node.inbound(at(1), 1, ask.clone());
        let tag = pushes(&outs).next().expect("served").tag;
        node.feed(at(1), In::Shed { session: SessionId(1), tag });
    }
    assert_eq!(pushed(&node.inbound(at(1), 1, ask)), [1], "as soon as there is room again");
}
