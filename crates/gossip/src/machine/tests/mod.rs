//! The machine as a whole: a harness that signs and checks at once, and the rules in the order of a
//! message's life.

mod attacks;
#[cfg(feature = "actor")]
mod coding;
mod confirming;
mod histories;
mod meshes;
mod network;
mod publishing;
mod reconciling;
mod repairing;
mod useful;
mod validating;

use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Driver, Time};
use peerage_queue::{ChannelId, SessionId};
use peerage_wire::{Keypair, Penalty};

use super::*;
use crate::message::{Claim, Origin};

/// An instant of the tests' era, so that issue times have a past.
pub(super) fn at(millis: u64) -> Time {
    Time::new(Duration::from_millis(millis), Duration::from_secs(1_800_000_000) + Duration::from_millis(millis))
}

pub(super) fn topic() -> Topic {
    Topic::new("news").expect("short")
}

pub(super) fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

/// A machine whose shell signs, and checks unless told not to.
pub(super) struct Node {
    pub(super) driver: Driver<GossipMachine>,
    pub(super) keys: Keypair,
    pub(super) checks: bool,
}

impl Node {
    pub(super) fn new(n: u8) -> Node {
        Node::with(n, Config::test())
    }

    pub(super) fn with(n: u8, config: Config) -> Node {
        config.validate().expect("adds up");
        let keys = keys(n);
        Node { driver: Driver::new(GossipMachine::new(config, keys.id(), u64::from(n))), keys, checks: true }
    }

    /// A node that is subscribed to the tests' topic and has these peers, which are subscribed too.
    pub(super) fn subscribed(policy: Policy, peers: impl IntoIterator<Item = u64>) -> Node {
        let mut node = Node::new(0);
        node.subscribe(policy);
        for n in peers {
            node.peer(n);
        }
        node
    }

    pub(super) fn subscribe(&mut self, policy: Policy) {
        self.feed(at(0), In::Subscribe { token: 0, topic: topic(), policy });
    }

    /// Session `n` of the node with keys 100 + n, subscribed to the tests' topic.
    pub(super) fn peer(&mut self, n: u64) {
        let id = keys(100 + u8::try_from(n).expect("few peers")).id();
        self.feed(at(0), In::PeerUp(PeerUp::new(SessionId(n), id, ChannelId(1))));
        self.inbound(at(0), n, wire::topics(false, [&topic()]));
    }

    pub(super) fn feed(&mut self, now: Time, input: In) -> Vec<Out> {
        self.driver.handle(now, input);
        self.settle(now)
    }

    pub(super) fn inbound(&mut self, now: Time, session: u64, payload: Bytes) -> Vec<Out> {
        self.feed(now, In::Inbound { session: SessionId(session), payload })
    }

    pub(super) fn publish(&mut self, now: Time, policy: Policy, payload: &'static str) -> Vec<Out> {
        self.feed(now, In::Publish { token: 9, topic: topic(), policy, payload: payload.into(), pressed: false })
    }

    pub(super) fn expire(&mut self, now: Time) -> Vec<Out> {
        self.driver.expire_due(now);
        self.settle(now)
    }

    fn settle(&mut self, now: Time) -> Vec<Out> {
        let mut outs = Vec::new();
        loop {
            let drained: Vec<Out> = self.driver.drain().collect();
            if drained.is_empty() {
                return outs;
            }
            for out in drained {
                match out {
                    Out::Sign { token, claim, .. } => {
                        let signature = claim.sign(&self.keys);
                        self.driver.handle(now, In::Signed { token, signature });
                    }
                    Out::Verify { token, check, .. } if self.checks => {
                        self.driver.handle(now, In::Verified { token, ok: check.holds() });
                    }
                    out => outs.push(out),
                }
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.driver.machine().stats()
    }
}

/// A message as its publisher would send it.
pub(super) fn parcel(publisher: u8, sequence: u64, now: Time, payload: &[u8]) -> Parcel {
    let keys = keys(publisher);
    let id = MessageId::signed(&topic(), &keys.id(), sequence, payload);
    let issued = now.unix_millis();
    let signature = Claim { id, issued }.sign(&keys);
    Parcel::new(topic(), Some(Origin { publisher: keys.id(), sequence, issued, signature }), payload)
}

/// The same message with a signature that is not its publisher's.
pub(super) fn forged(parcel: &Parcel, salt: u8) -> Parcel {
    let origin = parcel.origin.clone().map(|origin| Origin { signature: [salt; 64], ..origin });
    Parcel::new(parcel.topic.clone(), origin, &parcel.payload)
}

pub(super) fn delivered(outs: &[Out]) -> Vec<Bytes> {
    let payload = |out: &Out| if let Out::Deliver(message) = out { Some(message.payload.clone()) } else { None };
    outs.iter().filter_map(payload).collect()
}

/// Whom messages were pushed to.
pub(super) fn pushed(outs: &[Out]) -> Vec<u64> {
    let mut sessions: Vec<u64> = pushes(outs)
        .filter(|push| push.lane == Lane::Normal)
        .flat_map(|push| push.to.iter().map(|recipient| recipient.session.0))
        .collect();
    sessions.sort_unstable();
    sessions
}

pub(super) fn pushes(outs: &[Out]) -> impl Iterator<Item = &Outgoing> {
    outs.iter().filter_map(|out| if let Out::Push(push) = out { Some(push) } else { None })
}

pub(super) fn reports(outs: &[Out]) -> Vec<(u64, Penalty)> {
    let report =
        |out: &Out| if let Out::Report { session, penalty } = out { Some((session.0, *penalty)) } else { None };
    outs.iter().filter_map(report).collect()
}

pub(super) fn drops(outs: &[Out]) -> Vec<DropReason> {
    let reason = |out: &Out| if let Out::Count(Count::Dropped(reason)) = out { Some(*reason) } else { None };
    outs.iter().filter_map(reason).collect()
}

pub(super) fn checks(outs: &[Out]) -> Vec<u64> {
    outs.iter().filter_map(|out| if let Out::Verify { token, .. } = out { Some(*token) } else { None }).collect()
}

/// The ids asked of each session.
pub(super) fn asked(outs: &[Out]) -> Vec<(u64, Vec<MessageId>)> {
    let ids = |push: &Outgoing| match wire::items(push.bytes.clone(), 0).next() {
        Some(Ok(wire::Item::IWant { ids })) => Some((push.to.first()?.session.0, ids)),
        _ => None,
    };
    pushes(outs).filter_map(ids).collect()
}

/// The ids announced to each session.
pub(super) fn told(outs: &[Out]) -> Vec<(u64, Vec<MessageId>)> {
    let ids = |push: &Outgoing| match wire::items(push.bytes.clone(), 0).next() {
        Some(Ok(wire::Item::IHave { ids, .. })) => Some((push.to.first()?.session.0, ids)),
        _ => None,
    };
    pushes(outs).filter_map(ids).collect()
}

#[test]
fn a_message_is_checked_once_delivered_once_and_sent_on_as_it_came() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    node.checks = false;
    let message = parcel(50, 1, at(0), b"hi");
    let outs = node.inbound(at(1), 1, message.bytes.clone());
    let tokens = checks(&outs);
    assert_eq!((tokens.len(), delivered(&outs).len(), pushed(&outs).len()), (1, 0, 0), "nothing before the check");
    let outs = node.inbound(at(1), 2, message.bytes.clone());
    assert_eq!((checks(&outs).len(), delivered(&outs).len()), (0, 0), "copies wait for the one check");
    let outs = node.feed(at(2), In::Verified { token: tokens[0], ok: true });
    assert_eq!(delivered(&outs), ["hi"]);
    assert_eq!(pushed(&outs), [3], "not to those it came from");
    let push = pushes(&outs).next().expect("one push");
    assert_eq!(push.bytes.as_ptr(), message.bytes.as_ptr(), "the received bytes, not a re-encoding");
    let outs = node.inbound(at(3), 3, message.bytes);
    assert_eq!(outs, [Out::Count(Count::Duplicate)]);
    assert_eq!(node.stats().in_flight, 0);
}

#[test]
fn the_planted_bug_delivers_a_message_once_for_each_peer_that_sent_it_and_sends_it_on_once() {
    let mut machine = GossipMachine::new(Config::test(), keys(0).id(), 0);
    machine.plant_bug();
    let mut node = Node { driver: Driver::new(machine), keys: keys(0), checks: true };
    node.subscribe(Policy::Signed);
    (1..=3).for_each(|n| node.peer(n));
    let message = parcel(50, 1, at(0), b"hi");
    let counts: Vec<_> = [1, 2, 2, 1]
        .map(|session| node.inbound(at(1), session, message.bytes.clone()))
        .map(|outs| (delivered(&outs).len(), pushed(&outs).len()))
        .into();
    assert_eq!(counts, [(1, 2), (1, 0), (0, 0), (0, 0)]);
}

#[test]
fn a_delivered_message_says_who_published_and_who_sent_it() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let outs = node.inbound(at(1), 1, parcel(50, 1, at(0), b"hi").bytes);
    let Some(Out::Deliver(message)) = outs.iter().find(|out| matches!(out, Out::Deliver(_))) else {
        panic!("delivered")
    };
    assert_eq!((message.publisher, message.from), (Some(keys(50).id()), Some(keys(101).id())));
    assert_eq!(message.issued, Some(at(0).unix_millis()));
    assert!(outs.contains(&Out::Remember(message.id)));
}

#[test]
fn a_message_is_not_sent_to_its_publisher() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    let outs = node.inbound(at(1), 1, parcel(102, 1, at(0), b"hi").bytes);
    assert_eq!(pushed(&outs), [3]);
}

#[test]
fn a_nodes_own_small_messages_go_to_all_and_others_to_its_mesh() {
    let mut node = Node::subscribed(Policy::Signed, 1..=30);
    assert_eq!(pushed(&node.publish(at(1), Policy::Signed, "a")), Vec::from_iter(1..=30));
    let first = pushed(&node.inbound(at(2), 30, parcel(50, 1, at(0), b"b").bytes));
    assert_eq!(first.len(), Config::test().mesh.degree);
    let outs = node.inbound(at(3), 30, parcel(50, 2, at(0), b"c").bytes);
    assert_eq!(pushed(&outs), first);
    assert_eq!(pushes(&outs).count(), 1, "encoded once for all");
    let large = vec![1; Config::test().flood_publish];
    let publish =
        In::Publish { token: 9, topic: topic(), policy: Policy::Signed, payload: large.into(), pressed: false };
    let outs = node.feed(at(4), publish);
    let to: Vec<u64> = pushes(&outs)
        .filter(|push| push.lane == Lane::Normal)
        .flat_map(|push| &push.to)
        .map(|to| to.session.0)
        .collect();
    assert_eq!(to, first, "to all of them it would take the node's line for long");
}

#[test]
fn only_peers_that_want_the_topic_get_it() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    node.inbound(at(1), 1, wire::unsubscribe(&topic()));
    node.inbound(at(1), 2, wire::topics(false, [&Topic::new("other").expect("short")]));
    assert_eq!(pushed(&node.publish(at(2), Policy::Signed, "a")), [3]);
    node.inbound(at(3), 1, wire::subscribe(&topic()));
    assert_eq!(pushed(&node.publish(at(4), Policy::Signed, "b")), [1, 3]);
    node.feed(at(5), In::PeerDown { session: SessionId(1) });
    assert_eq!(pushed(&node.publish(at(6), Policy::Signed, "c")), [3]);
}

#[test]
fn peers_are_told_our_topics_when_they_come_and_when_they_ask() {
    let mut node = Node::subscribed(Policy::Signed, []);
    let up = In::PeerUp(PeerUp::new(SessionId(1), keys(1).id(), ChannelId(3)));
    let outs = node.feed(at(0), up.clone());
    let greeting = pushes(&outs).next().expect("told");
    assert_eq!(greeting.bytes, wire::topics(true, [&topic()]));
    assert_eq!((greeting.to[0].channel, greeting.lane), (ChannelId(3), Lane::Control));
    assert!(node.feed(at(0), up).is_empty(), "known already");

    let ask = wire::topics(true, []);
    let outs = node.inbound(at(1), 1, ask.clone());
    assert_eq!(pushes(&outs).next().expect("answered").bytes, wire::topics(false, [&topic()]));
    assert!(node.inbound(at(2), 1, ask).is_empty(), "once a heartbeat");
    let outs = node.expire(at(1_200));
    assert_eq!(pushes(&outs).next().expect("answered later").bytes, wire::topics(false, [&topic()]));

    node.feed(at(1_300), In::SendFailed { session: SessionId(1), tag: tag::TOPICS });
    let outs = node.expire(at(2_500));
    assert_eq!(
        pushes(&outs).next().expect("again").bytes,
        wire::topics(true, [&topic()]),
        "what was lost is said again"
    );
}

#[test]
fn a_peer_that_has_not_said_its_topics_is_asked_again() {
    let mut node = Node::subscribed(Policy::Signed, []);
    node.feed(at(0), In::PeerUp(PeerUp::new(SessionId(1), keys(1).id(), ChannelId(1))));
    assert_eq!(pushes(&node.expire(at(1_200))).count(), 0);
    let outs = node.expire(at(5_100));
    assert_eq!(pushes(&outs).next().expect("asked").bytes, wire::topics(true, [&topic()]));
    node.inbound(at(6_000), 1, wire::topics(false, []));
    assert_eq!(pushes(&node.expire(at(20_000))).count(), 0);
}

#[test]
fn peers_are_told_of_topics_joined_and_left() {
    let mut node = Node::new(0);
    node.peer(1);
    let outs = node.feed(at(1), In::Subscribe { token: 4, topic: topic(), policy: Policy::Signed });
    assert_eq!(pushes(&outs).next().expect("told").bytes, wire::subscribe(&topic()));
    assert!(outs.contains(&Out::Subscribed { token: 4, result: Ok(()) }));
    let outs = node.feed(at(1), In::Unsubscribe { topic: topic() });
    let told: Vec<Bytes> = pushes(&outs).map(|push| push.bytes.clone()).collect();
    assert_eq!(told, [wire::prune(&topic(), 10), wire::unsubscribe(&topic())]);
    assert!(node.feed(at(1), In::Unsubscribe { topic: topic() }).is_empty());
}

#[test]
fn a_topic_has_one_policy_and_a_node_so_many_topics() {
    let mut node = Node::subscribed(Policy::Signed, []);
    let mut subscribe = |topic, policy| match &node.feed(at(0), In::Subscribe { token: 1, topic, policy })[..] {
        [.., Out::Subscribed { result, .. }] => *result,
        other => panic!("{other:?}"),
    };
    assert_eq!(subscribe(topic(), Policy::Signed), Ok(()));
    assert_eq!(subscribe(topic(), Policy::Anonymous), Err(SubscribeError::Policy(Policy::Signed)));
    let limit = Config::test().max_topics;
    for n in 1..limit {
        assert_eq!(subscribe(Topic::new(&n.to_string()).expect("short"), Policy::Signed), Ok(()));
    }
    assert_eq!(subscribe(Topic::new("x").expect("short"), Policy::Signed), Err(SubscribeError::TooMany(limit)));
}

#[test]
fn a_message_for_a_topic_left_during_its_check_is_not_marked_as_seen() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    node.checks = false;
    let message = parcel(50, 1, at(0), b"hi");
    let tokens = checks(&node.inbound(at(1), 1, message.bytes.clone()));
    node.feed(at(2), In::Unsubscribe { topic: topic() });
    let outs = node.feed(at(3), In::Verified { token: tokens[0], ok: true });
    assert_eq!((delivered(&outs).len(), drops(&outs)), (0, vec![DropReason::UnknownTopic]));
    node.checks = true;
    node.subscribe(Policy::Signed);
    assert_eq!(delivered(&node.inbound(at(4), 1, message.bytes)).len(), 1);
}

#[test]
fn what_an_earlier_life_had_seen_is_not_delivered_again() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let message = parcel(50, 1, at(0), b"hi");
    node.feed(at(0), In::Restore { seen: vec![(message.id(), at(0))], sequence: 0, useful: BTreeSet::new() });
    assert_eq!(delivered(&node.inbound(at(1), 1, message.bytes)).len(), 0);
}

#[test]
fn an_anonymous_message_may_come_again_after_the_window() {
    let mut node = Node::subscribed(Policy::Anonymous, [1]);
    let message = Parcel::new(topic(), None, b"hi");
    assert_eq!(delivered(&node.inbound(at(0), 1, message.bytes.clone())).len(), 1);
    let window = u64::try_from(Config::test().seen_for().as_millis()).expect("minutes");
    for (later, copies) in [(window - 5_000, 0), (window + 5_000, 1)] {
        node.expire(at(later));
        assert_eq!(delivered(&node.inbound(at(later), 1, message.bytes.clone())).len(), copies, "after {later} ms");
    }
}

#[test]
fn an_idle_node_sets_no_timer() {
    let mut node = Node::subscribed(Policy::Signed, []);
    assert_eq!(node.driver.next_deadline(), None);
    node.peer(1);
    assert!(node.driver.next_deadline().is_some());
    node.feed(at(1), In::PeerDown { session: SessionId(1) });
    node.expire(at(5_000));
    assert_eq!(node.driver.next_deadline(), None);
}
