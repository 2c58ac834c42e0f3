//! Which peers have a topic in common with this node.

use super::*;

fn other() -> Topic {
    Topic::new("other").expect("short")
}

fn told_useful(outs: &[Out]) -> Vec<(u64, bool)> {
    let told = |out: &Out| if let Out::Useful { session, useful } = out { Some((session.0, *useful)) } else { None };
    outs.iter().filter_map(told).collect()
}

fn up(node: &mut Node, session: u64) -> Vec<Out> {
    let id = keys(100 + u8::try_from(session).expect("few peers")).id();
    node.feed(at(0), In::PeerUp(PeerUp::new(SessionId(session), id, ChannelId(1))))
}

#[test]
fn a_peer_is_useful_while_there_is_a_common_topic_and_only_changes_are_told() {
    let mut node = Node::new(0);
    node.subscribe(Policy::Signed);
    assert_eq!(told_useful(&up(&mut node, 1)), []);
    assert_eq!(told_useful(&node.inbound(at(1), 1, wire::topics(false, [&other()]))), []);
    assert_eq!(told_useful(&node.inbound(at(2), 1, wire::subscribe(&topic()))), [(1, true)]);
    assert_eq!(told_useful(&node.inbound(at(3), 1, wire::topics(false, [&topic(), &other()]))), []);
    assert_eq!(told_useful(&node.inbound(at(4), 1, wire::unsubscribe(&other()))), []);
    assert_eq!(told_useful(&node.inbound(at(5), 1, wire::unsubscribe(&topic()))), [(1, false)]);
}

#[test]
fn what_this_node_subscribes_to_and_leaves_makes_peers_useful_and_useless() {
    let mut node = Node::new(0);
    for session in 1..=2 {
        up(&mut node, session);
        node.inbound(at(1), session, wire::topics(false, [&topic()]));
    }
    up(&mut node, 3);
    node.inbound(at(1), 3, wire::topics(false, [&other()]));
    let subscribe = In::Subscribe { token: 0, topic: topic(), policy: Policy::Signed };
    assert_eq!(told_useful(&node.feed(at(2), subscribe)), [(1, true), (2, true)]);
    let outs = node.feed(at(3), In::Unsubscribe { topic: topic() });
    assert_eq!(told_useful(&outs), [(1, false), (2, false)]);
}

#[test]
fn a_peer_that_changes_its_mind_within_one_message_is_told_of_at_most_once() {
    let mut node = Node::subscribed(Policy::Signed, []);
    up(&mut node, 1);
    let there_and_back: Bytes = [wire::subscribe(&topic()), wire::unsubscribe(&topic())].concat().repeat(4).into();
    assert_eq!(told_useful(&node.inbound(at(1), 1, there_and_back.clone())), []);
    let and_again: Bytes = [there_and_back, wire::subscribe(&topic())].concat().into();
    assert_eq!(told_useful(&node.inbound(at(2), 1, and_again)), [(1, true)]);
}

#[test]
fn how_often_a_peer_can_change_it_between_heartbeats_is_bounded() {
    let mut node = Node::subscribed(Policy::Signed, []);
    up(&mut node, 1);
    let mut told = 0;
    for _ in 0..1_000 {
        told += told_useful(&node.inbound(at(1), 1, wire::subscribe(&topic()))).len();
        told += told_useful(&node.inbound(at(1), 1, wire::unsubscribe(&topic()))).len();
    }
    assert_eq!(told, 8 * (Config::test().max_topics + 1));
}

#[test]
fn a_new_life_tells_again_of_every_peer_that_is_or_was_useful_once_it_has_said_its_topics() {
    let mut node = Node::new(0);
    let useful = [SessionId(1), SessionId(2), SessionId(9)].into();
    node.feed(at(0), In::Restore { seen: vec![], sequence: 0, useful });
    node.subscribe(Policy::Signed);
    for session in 1..=4 {
        assert_eq!(told_useful(&up(&mut node, session)), [], "not before it is known");
    }
    assert_eq!(told_useful(&node.inbound(at(1), 1, wire::topics(false, [&topic()]))), [(1, true)]);
    assert_eq!(told_useful(&node.inbound(at(1), 2, wire::topics(false, []))), [(2, false)]);
    assert_eq!(told_useful(&node.inbound(at(1), 3, wire::topics(false, []))), []);
    assert_eq!(told_useful(&node.inbound(at(1), 4, wire::topics(false, [&topic()]))), [(4, true)]);
}

#[test]
fn nothing_is_told_of_a_peer_that_is_gone() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    assert_eq!(told_useful(&node.feed(at(1), In::PeerDown { session: SessionId(1) })), []);
    assert_eq!(told_useful(&node.feed(at(2), In::Unsubscribe { topic: topic() })), []);
}
