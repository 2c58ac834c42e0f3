//! What the application judges: one question a message, and what comes of each answer.

use super::*;
use crate::config::TopicConfig;

/// A node on whose topic messages are judged, with these peers.
fn judging(peers: impl IntoIterator<Item = u64>) -> Node {
    judging_with(Config::test(), TopicConfig::signed(), peers)
}

fn judging_with(config: Config, topic_config: TopicConfig, peers: impl IntoIterator<Item = u64>) -> Node {
    let mut node = Node::with(0, config);
    let config = Box::new(topic_config);
    let outs = node.feed(at(0), In::SubscribeWith { token: 1, topic: topic(), config, validated: true });
    assert!(outs.contains(&Out::Subscribed { token: 1, result: Ok(()) }));
    peers.into_iter().for_each(|n| node.peer(n));
    node
}

fn asked_about(outs: &[Out]) -> Vec<u64> {
    outs.iter().filter_map(|out| if let Out::Validate { token, .. } = out { Some(*token) } else { None }).collect()
}

fn score(node: &Node, now: Time, session: u64) -> crate::score::Breakdown {
    node.driver.machine().scores.explain(now, SessionId(session))
}

#[test]
fn a_message_is_judged_once_and_only_then_delivered_and_sent_on() {
    let mut node = judging(1..=4);
    let message = parcel(50, 1, at(0), b"hi");
    let outs = node.inbound(at(1), 1, message.bytes.clone());
    let tokens = asked_about(&outs);
    assert_eq!((tokens.len(), delivered(&outs).len(), pushed(&outs).len()), (1, 0, 0), "nothing before the verdict");
    assert_eq!((node.stats().validating, node.stats().in_flight), (1, 0));
    let outs = node.inbound(at(2), 2, message.bytes.clone());
    assert_eq!((asked_about(&outs).len(), checks(&outs).len()), (0, 0), "copies wait for the one verdict");
    let told = node.inbound(at(2), 3, wire::i_have(&topic(), &[message.id()]));
    assert!(asked(&told).is_empty(), "nor is it asked for");
    let outs = node.feed(at(3), In::Verdict { token: tokens[0], verdict: Verdict::Accept });
    assert_eq!((delivered(&outs), pushed(&outs)), (vec![Bytes::from("hi")], vec![4]), "not to those that have it");
    assert!(score(&node, at(3), 1).firsts > 0 && score(&node, at(3), 2).firsts == 0);
    assert_eq!(node.stats().validating, 0);
    let outs = node.feed(at(4), In::Verdict { token: tokens[0], verdict: Verdict::Reject });
    assert_eq!(drops(&outs), [DropReason::LateVerdict], "a question has one answer");
    assert_eq!(node.inbound(at(5), 4, message.bytes), [Out::Count(Count::Duplicate)]);
}

#[test]
fn what_is_rejected_counts_against_all_that_sent_it_and_only_its_publisher_is_reported() {
    let mut node = judging(1..=4);
    // The node with keys 101 is the peer of session 1.
    let message = parcel(101, 1, at(0), b"bad");
    let tokens = asked_about(&node.inbound(at(1), 1, message.bytes.clone()));
    node.inbound(at(1), 2, message.bytes.clone());
    let outs = node.feed(at(2), In::Verdict { token: tokens[0], verdict: Verdict::Reject });
    assert_eq!((delivered(&outs).len(), pushed(&outs).len()), (0, 0));
    assert_eq!(reports(&outs), [(1, Penalty::InvalidMessage)], "a relayer is not banned for what others signed");
    let outs = node.inbound(at(3), 3, message.bytes.clone());
    assert_eq!((asked_about(&outs).len(), drops(&outs)), (0, vec![DropReason::RejectedBefore]));
    assert_eq!(reports(&outs), []);
    let invalid = |session| score(&node, at(3), session).invalid < 0;
    assert_eq!([1, 2, 3, 4].map(invalid), [true, true, true, false]);
    // Another signature of the same publisher does not bring it back, and costs no check.
    let outs = node.inbound(at(3), 4, forged(&message, 9).bytes);
    assert_eq!((checks(&outs).len(), asked_about(&outs).len()), (0, 0));
    assert!(asked(&node.inbound(at(4), 4, wire::i_have(&topic(), &[message.id()]))).is_empty());
}

#[test]
fn what_is_ignored_is_nobodys_fault_and_is_not_judged_again() {
    let mut node = judging(1..=3);
    let message = parcel(50, 1, at(0), b"stale");
    let tokens = asked_about(&node.inbound(at(1), 1, message.bytes.clone()));
    let outs = node.feed(at(2), In::Verdict { token: tokens[0], verdict: Verdict::Ignore });
    assert_eq!((delivered(&outs).len(), pushed(&outs).len(), reports(&outs).len()), (0, 0, 0));
    assert!(outs.contains(&Out::Remember(message.id())), "nor in a later life");
    let outs = node.inbound(at(3), 2, message.bytes);
    assert_eq!(drops(&outs), [DropReason::IgnoredBefore]);
    assert!([1, 2].iter().all(|session| score(&node, at(3), *session).invalid == 0));
    assert_eq!(node.stats().cached, 0);
}

#[test]
fn a_validator_that_takes_too_long_has_the_message_ignored() {
    let slow = TopicConfig::signed().with_validation(Duration::from_millis(300));
    let mut node = judging_with(Config::test(), slow, 1..=2);
    let message = parcel(50, 1, at(0), b"hard");
    let tokens = asked_about(&node.inbound(at(1), 1, message.bytes.clone()));
    assert!(drops(&node.expire(at(300))).is_empty());
    let reasons = drops(&node.expire(at(301)));
    assert_eq!(reasons, [DropReason::VerdictOverdue, DropReason::Ignored]);
    let outs = node.feed(at(302), In::Verdict { token: tokens[0], verdict: Verdict::Accept });
    assert_eq!((delivered(&outs).len(), drops(&outs)), (0, vec![DropReason::LateVerdict]));
    assert_eq!(drops(&node.inbound(at(303), 2, message.bytes)), [DropReason::IgnoredBefore]);
    assert_eq!(node.stats().validating, 0);
}

#[test]
fn a_forged_copy_neither_censors_the_true_one_nor_shares_in_its_verdict() {
    let mut node = judging(1..=3);
    let message = parcel(50, 1, at(0), b"hi");
    let outs = node.inbound(at(1), 1, forged(&message, 7).bytes);
    assert_eq!((asked_about(&outs).len(), drops(&outs)), (0, vec![DropReason::InvalidSignature]));
    let tokens = asked_about(&node.inbound(at(2), 2, message.bytes.clone()));
    assert_eq!(tokens.len(), 1, "the application is asked about what is signed, and about nothing else");
    node.inbound(at(3), 3, forged(&message, 8).bytes);
    let outs = node.feed(at(4), In::Verdict { token: tokens[0], verdict: Verdict::Accept });
    assert_eq!((delivered(&outs).len(), pushed(&outs)), (1, vec![1, 3]), "who sent a forgery has not got it");
}

#[test]
fn a_flood_of_invalid_messages_has_a_quarter_of_the_room_and_ends_with_the_peer_unheard() {
    let config = Config { in_flight: 16, ..Config::test() };
    let mut node = judging_with(config, TopicConfig::signed(), 1..=2);
    let mut tokens = Vec::new();
    for n in 0..100 {
        let outs = node.inbound(at(1), 1, parcel(101, n, at(0), b"spam").bytes);
        tokens.extend(asked_about(&outs));
        assert!(drops(&outs).iter().all(|reason| *reason == DropReason::ValidationFull), "{outs:?}");
    }
    assert_eq!((tokens.len(), node.stats().validating), (4, 4));
    let honest = asked_about(&node.inbound(at(2), 2, parcel(50, 1, at(0), b"hi").bytes));
    assert_eq!(honest.len(), 1, "another peer has room");
    for token in tokens {
        node.feed(at(3), In::Verdict { token, verdict: Verdict::Reject });
    }
    let outs = node.inbound(at(4), 1, parcel(101, 200, at(0), b"spam").bytes);
    assert_eq!(drops(&outs), [DropReason::Graylisted]);
    assert_eq!(delivered(&node.feed(at(5), In::Verdict { token: honest[0], verdict: Verdict::Accept })), ["hi"]);
    assert_eq!(node.stats().validating, 0);
}

#[test]
fn what_there_is_no_room_to_judge_is_asked_for_again_and_then_judged() {
    let mut node = judging(1..=2);
    let message = parcel(50, 1, at(0), b"hi");
    let tokens = asked_about(&node.inbound(at(1), 1, message.bytes.clone()));
    let outs = node.feed(at(2), In::NotJudged { token: tokens[0] });
    assert_eq!((drops(&outs), node.stats().validating), (vec![DropReason::ValidationFull], 0));
    let outs = node.expire(at(4_000));
    assert!(asked(&outs).contains(&(1, vec![message.id()])), "{outs:?}");
    assert_eq!(asked_about(&node.inbound(at(4_100), 1, message.bytes)).len(), 1);
}

#[test]
fn what_this_node_publishes_while_the_same_is_judged_is_delivered_once() {
    let mut node = judging_with(Config::test(), TopicConfig::anonymous(), 1..=2);
    let tokens = asked_about(&node.inbound(at(1), 1, Parcel::new(topic(), None, b"same").bytes));
    assert_eq!(delivered(&node.publish(at(2), Policy::Anonymous, "same")), ["same"]);
    let outs = node.feed(at(3), In::Verdict { token: tokens[0], verdict: Verdict::Accept });
    assert_eq!((delivered(&outs).len(), node.stats().cached), (0, 1));
}

#[test]
fn a_topic_has_its_own_limit_mesh_and_scoring_until_it_is_left() {
    let mesh = crate::config::MeshConfig {
        degree: 3,
        low: 2,
        high: 4,
        outbound: 1,
        near: 1,
        scored: 1,
        ..Config::test().mesh
    };
    let scoring = crate::score::TopicScoring { invalid_cost: 100 * POINT, ..crate::score::TopicScoring::recommended() };
    let config = TopicConfig { mesh: Some(mesh), scoring: Some(scoring), ..TopicConfig::signed().with_max_payload(10) };
    let mut node = Node::new(0);
    let subscribe = In::SubscribeWith { token: 1, topic: topic(), config: Box::new(config), validated: false };
    node.feed(at(0), subscribe.clone());
    (1..=20).for_each(|n| node.peer(n));
    assert_eq!(node.stats().links, 3);
    let outs = node.publish(at(1), Policy::Signed, "eleven byte");
    let too_large = PublishError::TooLarge { bytes: 11, limit: 10 };
    assert_eq!(outs, [Out::Published { token: 9, result: Err(too_large) }]);
    let outs = node.inbound(at(1), 5, parcel(50, 1, at(0), b"eleven byte").bytes);
    assert_eq!((drops(&outs), reports(&outs)), (vec![DropReason::TooLarge], vec![(5, Penalty::InvalidMessage)]));
    assert_eq!(score(&node, at(1), 5).invalid, -100 * POINT);
    assert_eq!(delivered(&node.inbound(at(1), 6, parcel(50, 2, at(0), b"ten bytes!").bytes)).len(), 1);

    let other = Box::new(TopicConfig::signed().with_max_payload(11));
    let outs = node.feed(at(2), In::SubscribeWith { token: 2, topic: topic(), config: other, validated: false });
    assert_eq!(outs, [Out::Subscribed { token: 2, result: Err(SubscribeError::Parameters) }]);
    let outs = node.feed(at(2), In::Subscribe { token: 3, topic: topic(), policy: Policy::Signed });
    assert_eq!(outs, [Out::Subscribed { token: 3, result: Ok(()) }], "who asks for none takes what there is");

    node.feed(at(3), In::Unsubscribe { topic: topic() });
    node.subscribe(Policy::Signed);
    assert!(node.driver.machine().parameters.is_empty() && node.driver.machine().scores.config().topics.is_empty());
    assert_eq!(delivered(&node.inbound(at(4), 7, parcel(50, 3, at(0), b"eleven byte").bytes)).len(), 1);
}

#[test]
fn parameters_that_are_refused_leave_no_trace() {
    let mut node = Node::subscribed(Policy::Anonymous, []);
    let config = Box::new(TopicConfig::signed().with_max_payload(10));
    let outs = node.feed(at(1), In::SubscribeWith { token: 1, topic: topic(), config, validated: true });
    assert_eq!(outs, [Out::Subscribed { token: 1, result: Err(SubscribeError::Policy(Policy::Anonymous)) }]);
    let config = Box::new(TopicConfig::anonymous().with_max_payload(1 << 30));
    let outs = node.feed(at(1), In::SubscribeWith { token: 2, topic: topic(), config, validated: true });
    assert!(matches!(outs[..], [Out::Subscribed { result: Err(SubscribeError::Config(_)), .. }]), "{outs:?}");
    assert!(node.driver.machine().parameters.is_empty());
}

#[test]
fn one_publisher_has_a_quarter_of_the_room_whoever_relays_its_messages() {
    let mut node = judging(1..=40);
    let quarter = Config::test().in_flight / 4;
    let asked: usize =
        (1..=40).map(|n| asked_about(&node.inbound(at(1), n, parcel(50, n, at(0), b"a lot").bytes)).len()).sum();
    assert_eq!((asked, node.stats().validating), (quarter, quarter));
    let outs = node.inbound(at(2), 1, parcel(51, 1, at(0), b"another's").bytes);
    let token = asked_about(&outs)[0];
    node.feed(at(3), In::Verdict { token, verdict: Verdict::Accept });
    for token in 0..quarter as u64 {
        node.feed(at(3), In::Verdict { token, verdict: Verdict::Accept });
    }
    assert_eq!(node.stats().validating, 0);
    let outs = node.inbound(at(4), 40, parcel(50, 40, at(0), b"a lot").bytes);
    assert_eq!(asked_about(&outs).len(), 1, "it has room again");
}

#[test]
fn what_is_large_need_not_be_sent_while_it_is_judged_and_that_is_said_once() {
    let mut node = judging(1..=4);
    let message = parcel(50, 1, at(0), &vec![7; Config::test().dont_want_from]);
    let unwanted = |outs: &[Out]| -> Vec<u64> {
        let said = pushes(outs).filter(|push| push.bytes == wire::i_dont_want(&[message.id()]));
        said.flat_map(|push| &push.to).map(|to| to.session.0).collect()
    };
    let outs = node.inbound(at(1), 1, message.bytes.clone());
    assert_eq!(unwanted(&outs), [2, 3, 4]);
    let outs = node.feed(at(3), In::Verdict { token: asked_about(&outs)[0], verdict: Verdict::Accept });
    assert_eq!((unwanted(&outs), delivered(&outs).len(), pushed(&outs)), (vec![], 1, vec![2, 3, 4]));
    // In a room of nothing it is not judged, so it may come from others yet.
    let mut full = judging_with(Config { in_flight: 4, ..Config::test() }, TopicConfig::signed(), 1..=4);
    full.inbound(at(1), 1, parcel(51, 1, at(0), b"the quarter of one peer").bytes);
    let outs = full.inbound(at(1), 1, message.bytes.clone());
    assert_eq!((asked_about(&outs).len(), unwanted(&outs)), (0, vec![]));
}
