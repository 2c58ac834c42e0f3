//! What becomes of a publication.

use super::*;

fn results(outs: &[Out]) -> Vec<Result<Published, PublishError>> {
    outs.iter().filter_map(|out| if let Out::Published { result, .. } = out { Some(*result) } else { None }).collect()
}

fn relay(outs: &[Out], to: &mut Node) -> Vec<Out> {
    let messages: Vec<Bytes> =
        pushes(outs).filter(|push| push.lane == Lane::Normal).map(|push| push.bytes.clone()).collect();
    messages.into_iter().flat_map(|bytes| to.inbound(at(10), 1, bytes)).collect()
}

#[test]
fn hi_twice_arrives_twice_on_a_signed_topic_and_once_on_an_anonymous_one() {
    for (policy, copies) in [(Policy::Signed, 2), (Policy::Anonymous, 1)] {
        let mut publisher = Node::subscribed(policy, [1]);
        let mut reader = Node::subscribed(policy, [1]);
        let mut outs = publisher.publish(at(5), policy, "hi");
        outs.extend(publisher.publish(at(5), policy, "hi"));
        assert_eq!(results(&outs).len(), 2);
        assert!(results(&outs).iter().all(Result::is_ok));
        assert_eq!(delivered(&outs).len(), copies, "to its own subscribers, {policy:?}");
        assert_eq!(delivered(&relay(&outs, &mut reader)).len(), copies, "to others, {policy:?}");
    }
}

#[test]
fn a_node_does_not_deliver_its_own_message_when_it_comes_back() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let outs = node.publish(at(5), Policy::Signed, "hi");
    let own = pushes(&outs).next().expect("pushed").bytes.clone();
    assert_eq!(delivered(&node.inbound(at(6), 1, own)).len(), 0);
}

#[test]
fn sequences_start_at_the_clock_and_rise_even_when_it_is_set_back() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let mut sequence = |now| {
        let outs = node.publish(now, Policy::Signed, "hi");
        let bytes = pushes(&outs).next().expect("pushed").bytes.clone();
        match wire::items(bytes, 100).next() {
            Some(Ok(wire::Item::Message(parcel))) => parcel.origin.expect("signed").sequence,
            other => panic!("{other:?}"),
        }
    };
    let first = sequence(at(0));
    assert_eq!(u128::from(first), at(0).unix().as_nanos());
    assert_eq!(sequence(at(0)), first + 1);
    assert_eq!(sequence(Time::new(Duration::from_secs(9), Duration::ZERO)), first + 2);
    node.feed(at(0), In::Restore { seen: vec![], sequence: u64::MAX, useful: BTreeSet::new() });
    assert!(results(&node.publish(at(1), Policy::Signed, "last"))[0].is_ok(), "the last sequence does not overflow");
}

#[test]
fn a_topic_not_subscribed_to_can_be_published_to() {
    let mut node = Node::new(0);
    node.peer(1);
    let outs = node.publish(at(5), Policy::Signed, "hi");
    assert!(matches!(results(&outs)[..], [Ok(Published { peers: 1, .. })]));
    assert_eq!((delivered(&outs).len(), pushed(&outs)), (0, vec![1]));
}

#[test]
fn what_was_published_without_a_peer_goes_to_the_first_that_comes() {
    let mut node = Node::subscribed(Policy::Signed, []);
    let outs = node.publish(at(5), Policy::Signed, "hi");
    let [Ok(Published { id, peers: 0 })] = results(&outs)[..] else { panic!("{outs:?}") };
    node.expire(at(1_200));
    for (session, expected) in [(1, vec![1]), (2, vec![])] {
        let up = PeerUp::new(SessionId(session), keys(100 + session as u8).id(), ChannelId(1));
        node.feed(at(2_000), In::PeerUp(up));
        assert_eq!(pushed(&node.inbound(at(2_000), session, wire::topics(false, [&topic()]))), expected);
    }
    assert_eq!(told(&node.expire(at(3_000))), [(2, vec![id])], "others hear of it");
}

#[test]
fn a_publisher_is_told_to_wait_while_the_lanes_are_over_half_full() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let publish = In::Publish { token: 9, topic: topic(), policy: Policy::Signed, payload: "hi".into(), pressed: true };
    let outs = node.feed(at(0), publish);
    let retry_after = Config::test().retry_after;
    assert_eq!(results(&outs), [Err(PublishError::Busy { retry_after })]);
    assert_eq!((delivered(&outs).len(), pushed(&outs).len(), drops(&outs)), (0, 0, vec![DropReason::Busy]));
}

#[test]
fn what_the_network_would_refuse_is_not_published() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let limit = Config::test().max_payload;
    let mut publish = |policy, bytes| {
        let payload = Bytes::from(vec![0; bytes]);
        results(&node.feed(at(0), In::Publish { token: 9, topic: topic(), policy, payload, pressed: false }))[0]
    };
    assert_eq!(publish(Policy::Signed, limit + 1), Err(PublishError::TooLarge { bytes: limit + 1, limit }));
    assert_eq!(publish(Policy::Anonymous, 1), Err(PublishError::Policy(Policy::Signed)));
    assert!(publish(Policy::Signed, limit).is_ok());
}
