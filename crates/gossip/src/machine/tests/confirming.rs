//! How many peers have a message: who is asked, who is believed, and that each question has one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::super::confirming::MAX_CONFIRMING;
use super::*;

fn many(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("some")
}

fn confirm(node: &mut Node, now: Time, token: u64, id: MessageId, peers: usize) -> Vec<Out> {
    node.feed(now, In::Confirm { token, id, peers: many(peers), within: Duration::from_secs(5) })
}

fn published(outs: &[Out]) -> MessageId {
    let id = |out: &Out| if let Out::Published { result: Ok(published), .. } = out { Some(published.id) } else { None };
    outs.iter().find_map(id).expect("published")
}

fn answers(outs: &[Out]) -> Vec<(u64, Result<Confirmed, ConfirmError>)> {
    let answer = |out: &Out| if let Out::Confirmed { token, result } = out { Some((*token, *result)) } else { None };
    outs.iter().filter_map(answer).collect()
}

/// Whom it is asked of.
fn questioned(outs: &[Out]) -> BTreeSet<u64> {
    let to = |push: &Outgoing| match wire::items(push.bytes.clone(), 0).next() {
        Some(Ok(wire::Item::Confirm { .. })) => push.to.iter().map(|to| to.session.0).collect(),
        _ => Vec::new(),
    };
    pushes(outs).flat_map(to).collect()
}

/// To whom it is said which messages are here.
fn receipts(outs: &[Out]) -> Vec<(u64, Vec<MessageId>)> {
    let said = |push: &Outgoing| match wire::items(push.bytes.clone(), 0).next() {
        Some(Ok(wire::Item::Receipts { ids })) => push.to.iter().map(|to| (to.session.0, ids.clone())).collect(),
        _ => Vec::new(),
    };
    pushes(outs).flat_map(said).collect()
}

#[test]
fn enough_different_nodes_that_say_so_confirm_a_message() {
    let mut node = Node::subscribed(Policy::Signed, 1..=5);
    // One more session of the node of session 1.
    node.feed(at(0), In::PeerUp(PeerUp::new(SessionId(9), keys(101).id(), ChannelId(1))));
    node.inbound(at(0), 9, wire::topics(false, [&topic()]));
    let id = published(&node.publish(at(1), Policy::Signed, "a"));
    let outs = confirm(&mut node, at(2), 7, id, 3);
    assert_eq!((answers(&outs).len(), questioned(&outs).len()), (0, 6));
    assert!(pushes(&outs).all(|push| push.lane == Lane::Normal), "behind the message, not before it");
    for session in [1, 1, 9] {
        assert!(answers(&node.inbound(at(3), session, wire::receipts(&[id]))).is_empty(), "one node");
    }
    assert!(answers(&node.inbound(at(3), 2, wire::receipts(&[MessageId([9; 32])]))).is_empty(), "another message");
    assert!(answers(&node.inbound(at(3), 3, wire::i_dont_want(&[id]))).is_empty(), "it may still be judging it");
    assert!(answers(&node.inbound(at(3), 3, wire::receipts(&[id]))).is_empty(), "two nodes");
    let outs = node.inbound(at(4), 4, wire::i_have(&topic(), &[id]));
    assert_eq!(answers(&outs), [(7, Ok(Confirmed { id, peers: 3 }))]);
    assert!(answers(&node.inbound(at(4), 5, wire::receipts(&[id]))).is_empty(), "one answer");
    assert_eq!(node.stats().confirming, 0);
    assert_eq!(answers(&confirm(&mut node, at(5), 8, id, 2)), [(8, Ok(Confirmed { id, peers: 4 }))], "known already");
}

#[test]
fn while_too_few_have_it_others_are_sent_it_and_the_deadline_ends_it() {
    let mut node = Node::subscribed(Policy::Signed, 1..=30);
    let large = vec![1; Config::test().flood_publish + 1];
    let publish =
        In::Publish { token: 9, topic: topic(), policy: Policy::Signed, payload: large.into(), pressed: false };
    let outs = node.feed(at(1), publish);
    let id = published(&outs);
    let mut sent: BTreeSet<u64> = pushes(&outs).flat_map(|push| &push.to).map(|to| to.session.0).collect();
    let first = sent.len();
    assert!(first < 15, "the mesh");
    let mut seen = BTreeSet::new();
    confirm(&mut node, at(2), 7, id, 20);
    for second in 1..5 {
        let outs = node.expire(at(2 + 1_000 * second));
        assert!(answers(&outs).is_empty());
        sent.extend(pushes(&outs).filter(|push| push.drop_oldest).flat_map(|push| &push.to).map(|to| to.session.0));
        seen.extend(questioned(&outs));
    }
    // Who was announced it need not be sent it: the question is an announcement too.
    assert!(sent.len() > first, "{} {first}", sent.len());
    assert_eq!(seen.len(), 30, "everybody that wants the topic is asked");
    node.inbound(at(4_500), 3, wire::receipts(&[id]));
    let outs = node.expire(at(5_002));
    assert_eq!(answers(&outs), [(7, Err(ConfirmError::TooFew { confirmed: 1, wanted: 20 }))]);
    assert_eq!(node.stats().confirming, 0);
}

#[test]
fn only_what_is_kept_is_confirmed_and_so_much_at_a_time() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let outs = confirm(&mut node, at(1), 1, MessageId([1; 32]), 1);
    assert_eq!(answers(&outs), [(1, Err(ConfirmError::NotKept))]);
    let id = published(&node.publish(at(1), Policy::Signed, "a"));
    for token in 0..MAX_CONFIRMING as u64 {
        assert!(answers(&confirm(&mut node, at(2), token, id, 2)).is_empty());
    }
    let outs = confirm(&mut node, at(2), 999, id, 2);
    assert_eq!(answers(&outs), [(999, Err(ConfirmError::TooMany(MAX_CONFIRMING)))]);
    assert_eq!(answers(&node.expire(at(4_000))).len(), 0);
    assert_eq!(answers(&node.expire(at(6_000))).len(), MAX_CONFIRMING);
}

#[test]
fn a_peer_that_asks_is_told_when_the_message_is_taken_in_and_not_before() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    node.checks = false;
    let message = parcel(50, 1, at(0), b"hi");
    let outs = node.inbound(at(1), 1, wire::confirm(&topic(), &[message.id()]));
    assert_eq!((receipts(&outs).len(), asked(&outs)), (0, vec![(1, vec![message.id()])]), "it is an announcement too");
    let tokens = checks(&node.inbound(at(2), 2, message.bytes.clone()));
    let outs = node.inbound(at(2), 3, wire::confirm(&topic(), &[message.id()]));
    assert!(receipts(&outs).is_empty(), "not before its signature has held");
    let outs = node.feed(at(3), In::Verified { token: tokens[0], ok: true });
    assert_eq!(receipts(&outs), [(1, vec![message.id()]), (3, vec![message.id()])]);
    let outs = node.inbound(at(4), 2, wire::confirm(&topic(), &[message.id()]));
    assert_eq!(receipts(&outs), [(2, vec![message.id()])], "at once from then on");
    assert_eq!(node.driver.machine().receipts.len(), (0, 0));
    let other = Topic::new("other").expect("short");
    assert!(receipts(&node.inbound(at(5), 2, wire::confirm(&other, &[message.id()]))).is_empty());
}

#[test]
fn what_the_application_rejects_is_never_confirmed() {
    let mut node = Node::new(0);
    let config = Box::new(crate::config::TopicConfig::signed());
    node.feed(at(0), In::SubscribeWith { token: 1, topic: topic(), config, validated: true });
    (1..=2).for_each(|n| node.peer(n));
    let message = parcel(50, 1, at(0), b"bad");
    node.inbound(at(1), 1, message.bytes.clone());
    assert!(receipts(&node.inbound(at(1), 1, wire::confirm(&topic(), &[message.id()]))).is_empty());
    assert!(receipts(&node.feed(at(2), In::Verdict { token: 0, verdict: Verdict::Reject })).is_empty());
    assert!(receipts(&node.inbound(at(3), 2, wire::confirm(&topic(), &[message.id()]))).is_empty());
    assert_eq!(node.driver.machine().receipts.len(), (0, 0));
}

#[test]
fn a_flood_of_questions_is_bounded_and_blamed() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let id = |n: u64| MessageId(*blake3::hash(&n.to_be_bytes()).as_bytes());
    let mut blamed = Vec::new();
    for batch in 0..10 {
        let ids: Vec<MessageId> = (0..1_000).map(|n| id(batch * 1_000 + n)).collect();
        blamed.extend(reports(&node.inbound(at(1), 1, wire::confirm(&topic(), &ids))));
    }
    assert_eq!(blamed, [(1, Penalty::ControlFlood)]);
    let (ids, owed) = node.driver.machine().receipts.len();
    assert!(ids == owed && owed <= 256, "{ids} {owed}");
    node.feed(at(2), In::PeerDown { session: SessionId(1) });
    assert_eq!(node.driver.machine().receipts.len(), (0, 0));
}

proptest! {
    #[test]
    fn every_question_has_one_answer_and_nothing_is_left(
        steps in proptest::collection::vec((0u8..6, 1u64..6, 1usize..5, 0u64..1_500), 1..60)
    ) {
        let mut node = Node::subscribed(Policy::Signed, 1..=5);
        let (mut now, mut token, mut ids) = (1, 0, Vec::new());
        let mut answered: BTreeMap<u64, usize> = BTreeMap::new();
        let mut note = |outs: &[Out]| answers(outs).into_iter().for_each(|(token, _)| *answered.entry(token).or_default() += 1);
        for (what, session, peers, millis) in steps {
            now += millis;
            note(&node.expire(at(now)));
            let last = ids.last().copied().unwrap_or(MessageId([0; 32]));
            let outs = match what {
                0 => {
                    let outs = node.publish(at(now), Policy::Signed, "again");
                    ids.push(published(&outs));
                    outs
                }
                1 => {
                    token += 1;
                    confirm(&mut node, at(now), token, last, peers)
                }
                2 => node.inbound(at(now), session, wire::receipts(&[last])),
                3 => node.inbound(at(now), session, wire::confirm(&topic(), &[MessageId([peers as u8; 32]), last])),
                4 => node.feed(at(now), In::PeerDown { session: SessionId(session) }),
                _ => { node.peer(session); Vec::new() }
            };
            note(&outs);
        }
        (1..=6).for_each(|n| note(&node.feed(at(now), In::PeerDown { session: SessionId(n) })));
        note(&node.expire(at(now + 6_000)));
        prop_assert_eq!(answered.len() as u64, token);
        prop_assert!(answered.values().all(|count| *count == 1));
        prop_assert_eq!(node.stats().confirming, 0);
        prop_assert_eq!(node.driver.machine().receipts.len(), (0, 0));
    }
}
