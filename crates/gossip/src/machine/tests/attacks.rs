//! What an attacker can send, and what it does not achieve.

use proptest::prelude::*;

use super::*;
use crate::poison;

#[test]
fn a_forged_copy_that_comes_first_does_not_censor_the_true_one() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    node.checks = false;
    let message = parcel(50, 1, at(0), b"hi");
    let forgery = forged(&message, 1);
    let first = checks(&node.inbound(at(1), 1, forgery.bytes.clone()));
    assert_eq!(checks(&node.inbound(at(1), 2, message.bytes.clone())), [], "it waits");
    let outs = node.feed(at(2), In::Verified { token: first[0], ok: false });
    assert_eq!(reports(&outs), [(1, Penalty::InvalidMessage)], "the relayer must have checked");
    let second = checks(&outs);
    assert_eq!((second.len(), delivered(&outs).len()), (1, 0), "the next copy is tried");
    let outs = node.feed(at(3), In::Verified { token: second[0], ok: true });
    assert_eq!((delivered(&outs).len(), pushed(&outs)), (1, vec![1, 3]), "1 only showed that it had a forgery");
    assert_eq!(reports(&outs), []);
}

#[test]
fn a_forged_copy_alone_leaves_no_mark_and_is_not_checked_twice() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    let message = parcel(50, 1, at(0), b"hi");
    let forgery = forged(&message, 1);
    let outs = node.inbound(at(1), 1, forgery.bytes.clone());
    assert_eq!(drops(&outs), [DropReason::InvalidSignature]);
    node.checks = false;
    let outs = node.inbound(at(2), 2, forgery.bytes);
    assert_eq!((checks(&outs), drops(&outs)), (vec![], vec![DropReason::RejectedBefore]));
    assert_eq!(reports(&outs), [(2, Penalty::InvalidMessage)]);
    node.checks = true;
    assert_eq!(delivered(&node.inbound(at(3), 3, message.bytes)).len(), 1);
}

#[test]
fn when_every_copy_was_forged_the_message_is_asked_of_who_announced_it() {
    let mut node = Node::subscribed(Policy::Signed, 1..=2);
    node.checks = false;
    let message = parcel(50, 1, at(0), b"hi");
    let tokens = checks(&node.inbound(at(1), 1, forged(&message, 1).bytes));
    assert_eq!(asked(&node.inbound(at(2), 2, wire::i_have(&topic(), &[message.id()]))), [], "it is being checked");
    let outs = node.feed(at(3), In::Verified { token: tokens[0], ok: false });
    assert_eq!(asked(&outs), [(2, vec![message.id()])]);
}

#[test]
fn messages_from_outside_the_window_are_ignored_and_nobody_is_blamed() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let now = at(1_000_000);
    let window = Config::test();
    let past = u64::try_from((window.retained + window.skew).as_millis()).expect("minutes");
    let future = u64::try_from(window.skew.as_millis()).expect("minutes");
    let cases = [
        (1_000_000 - past - 1, Some(DropReason::TooOld)),
        (1_000_000 - past, None),
        (1_000_000 + future, None),
        (1_000_000 + future + 1, Some(DropReason::FromFuture)),
    ];
    for (sequence, (issued, reason)) in (1..).zip(cases) {
        let outs = node.inbound(now, 1, parcel(50, sequence, at(issued), b"hi").bytes);
        assert_eq!((drops(&outs), reports(&outs)), (reason.into_iter().collect(), vec![]));
        assert_eq!(delivered(&outs).len(), usize::from(reason.is_none()));
    }
}

#[test]
fn a_signature_for_another_time_does_not_prolong_a_message() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let old = parcel(50, 1, at(0), b"hi");
    let now = at(10_000_000);
    let origin = old.origin.map(|origin| Origin { issued: now.unix_millis(), ..origin });
    let outs = node.inbound(now, 1, Parcel::new(topic(), origin, b"hi").bytes);
    assert_eq!((delivered(&outs).len(), drops(&outs)), (0, vec![DropReason::InvalidSignature]));
}

#[test]
fn what_is_oversized_or_malformed_is_blamed() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let limit = Config::test().max_payload;
    for bytes in [parcel(50, 1, at(0), &vec![0; limit + 1]).bytes, Bytes::from_static(&[4, 0, 0, 0, 9, 1])] {
        let outs = node.inbound(at(1), 1, bytes);
        assert_eq!(drops(&outs), [DropReason::Malformed]);
        assert_eq!(reports(&outs), [(1, Penalty::MalformedMessage)]);
    }
}

#[test]
fn other_topics_other_policies_and_unknown_sessions_get_nothing_done() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let other = Topic::new("other").expect("short");
    let outs = node.inbound(at(1), 1, Parcel::new(other, None, b"hi").bytes);
    assert_eq!(
        (drops(&outs), reports(&outs)),
        (vec![DropReason::UnknownTopic], vec![]),
        "this node may just have left it"
    );
    let outs = node.inbound(at(1), 1, Parcel::new(topic(), None, b"hi").bytes);
    assert_eq!((drops(&outs), reports(&outs)), (vec![DropReason::WrongPolicy], vec![]));
    let outs = node.inbound(at(1), 77, parcel(50, 1, at(0), b"hi").bytes);
    assert_eq!(drops(&outs), [DropReason::UnknownSession]);
    assert_eq!(node.stats().seen, 0);
}

#[test]
fn unknown_kinds_are_skipped_and_what_follows_is_read() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let bytes = [&[99, 0, 0, 0, 1, 0][..], &parcel(50, 1, at(0), b"hi").bytes].concat();
    let outs = node.inbound(at(1), 1, bytes.into());
    assert_eq!((drops(&outs), delivered(&outs).len()), (vec![DropReason::UnknownKind], 1));
}

#[test]
fn floods_of_announcements_and_requests_are_cut_off_and_blamed_once_a_heartbeat() {
    let ids: Vec<MessageId> = (0..=255).map(|n| MessageId([n; 32])).collect();
    let (have, want) = (wire::i_have(&topic(), &ids), wire::i_want(&ids));
    for (bytes, reason) in [(have, DropReason::AnnounceFlood), (want, DropReason::RequestFlood)] {
        let mut node = Node::subscribed(Policy::Signed, [1]);
        let outs: Vec<Out> = (0..100).flat_map(|_| node.inbound(at(1), 1, bytes.clone())).collect();
        let cut = drops(&outs).into_iter().filter(|drop| *drop == reason).count();
        assert_eq!(cut, 100 - Config::test().quota_ids / 256);
        assert_eq!(reports(&outs), [(1, Penalty::ControlFlood)]);
        node.expire(at(1_200));
        assert_eq!(reports(&node.inbound(at(1_300), 1, bytes)), [], "a new heartbeat");
    }
}

#[test]
fn empty_items_count_towards_the_quota() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let crowd: Bytes = wire::i_want(&[]).repeat(1_000).into();
    let outs: Vec<Out> = (0..6).flat_map(|_| node.inbound(at(1), 1, crowd.clone())).collect();
    assert_eq!(reports(&outs), [(1, Penalty::ControlFlood)]);
}

#[test]
fn invented_announcements_take_no_more_than_a_peers_share() {
    let mut node = Node::with(0, Config { wants_per_peer: 100, ..Config::test() });
    node.subscribe(Policy::Signed);
    node.peer(1);
    node.peer(2);
    let invented: Vec<MessageId> = (0..250).map(|n| MessageId([n; 32])).collect();
    node.inbound(at(1), 1, wire::i_have(&topic(), &invented));
    assert_eq!(node.stats().wanted, 100);
    let outs = node.inbound(at(2), 2, wire::i_have(&topic(), &[MessageId([255; 32])]));
    assert_eq!(asked(&outs).len(), 1, "others are not held up");
    [5_000, 10_000, 15_000].into_iter().for_each(|later| drop(node.expire(at(later))));
    assert_eq!(node.stats().wanted, 0);
}

#[test]
fn topics_are_bounded_and_changing_them_all_the_time_is_blamed() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let names: Vec<Topic> = (0..50).map(|n| Topic::new(&n.to_string()).expect("short")).collect();
    let outs = node.inbound(at(1), 1, wire::topics(false, &names));
    assert_eq!((drops(&outs), reports(&outs)), (vec![DropReason::TopicFlood], vec![(1, Penalty::ControlFlood)]));
    node.expire(at(1_200));
    let churn: Bytes = [wire::subscribe(&topic()), wire::unsubscribe(&topic())].concat().repeat(100).into();
    assert_eq!(reports(&node.inbound(at(1_300), 1, churn)), [(1, Penalty::ControlFlood)]);
}

#[test]
fn small_questions_do_not_make_large_traffic() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let questions: Bytes = wire::topics(true, []).repeat(60).into();
    assert_eq!(pushes(&node.inbound(at(1), 1, questions)).count(), 1);
}

#[test]
fn a_slow_checker_bounds_what_is_in_flight() {
    let mut node = Node::subscribed(Policy::Signed, 1..=8);
    node.checks = false;
    for n in 0..100 {
        for session in 1..=8 {
            node.inbound(at(1), session, parcel(50, 1_000 * session + n, at(0), b"hi").bytes);
        }
    }
    // Each has an equal part, and one is left for who may come.
    assert_eq!(node.stats().in_flight, 8 * (Config::test().in_flight / 9));
}

#[test]
fn a_small_message_in_a_large_one_does_not_keep_it_in_memory() {
    let mut node = Node::subscribed(Policy::Signed, [1, 2]);
    let message = parcel(50, 1, at(0), b"hi");
    let mut bytes = message.bytes.to_vec();
    bytes.extend_from_slice(&[99, 0, 0, 0x40, 0]);
    bytes.resize(bytes.len() + 0x4000, 0);
    let bytes = Bytes::from(bytes);
    let outs = node.inbound(at(1), 1, bytes.clone());
    let kept = pushes(&outs).next().expect("sent on").bytes.clone();
    assert_eq!(kept, message.bytes);
    assert!(!bytes.as_ptr_range().contains(&kept.as_ptr()));
}

/// What a panic over this is charged to.
fn charged(node: &mut Node, session: u64, bytes: Bytes) -> Handling {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.inbound(at(1), session, bytes)));
    assert!(caught.is_err());
    node.driver.machine().handling().expect("charged")
}

#[test]
fn a_panic_over_a_signed_message_is_its_publishers_and_its_relayer_goes_free() {
    for stage in [poison::UNCHECKED, poison::CHECKED] {
        let mut node = Node::subscribed(Policy::Signed, [1]);
        let message = parcel(50, 1, at(0), stage);
        let Handling::Message(suspect) = charged(&mut node, 1, message.bytes.clone()) else { panic!("a message's") };
        assert_eq!(suspect.blame(), Some(Blame::Publisher(keys(50).id())));

        let mut next_life = Node::subscribed(Policy::Signed, [1]);
        next_life.feed(at(2), In::Refuse { fingerprint: suspect.fingerprint });
        let outs = next_life.inbound(at(3), 1, message.bytes);
        assert_eq!((drops(&outs), reports(&outs)), (vec![DropReason::Poison], vec![]));
        assert_eq!(next_life.driver.machine().handling(), None);
    }
}

#[test]
fn who_sends_a_forged_message_that_panics_cannot_frame_its_publisher() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    let forgery = forged(&parcel(50, 1, at(0), poison::UNCHECKED), 1);
    let Handling::Message(suspect) = charged(&mut node, 1, forgery.bytes) else { panic!("a message's") };
    assert_eq!(suspect.blame(), Some(Blame::Session(SessionId(1))));
}

#[test]
fn a_panic_over_an_anonymous_message_is_nobodys_and_over_bytes_that_do_not_decode_the_senders() {
    let mut node = Node::subscribed(Policy::Anonymous, [1]);
    let message = Parcel::new(topic(), None, poison::CHECKED);
    let Handling::Message(suspect) = charged(&mut node, 1, message.bytes.clone()) else { panic!("a message's") };
    assert_eq!((suspect.blame(), suspect.fingerprint), (None, Fingerprint::of(&message.id(), None)));

    let mut node = Node::subscribed(Policy::Anonymous, [1]);
    let bytes = Parcel::new(topic(), None, poison::DECODE).bytes;
    assert_eq!(charged(&mut node, 1, bytes), Handling::Session(SessionId(1)));
}

#[test]
fn a_check_that_panics_is_charged_to_who_sent_that_copy_and_the_next_copy_is_checked() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    node.checks = false;
    let message = parcel(50, 1, at(0), b"hi");
    let bad = forged(&message, 1);
    let token = checks(&node.inbound(at(1), 1, bad.bytes.clone()))[0];
    node.inbound(at(1), 2, bad.bytes.clone());
    node.inbound(at(1), 3, message.bytes.clone());
    let outs = node.feed(at(2), In::CheckPanicked { token });
    let crashed: Vec<u64> = outs
        .iter()
        .filter_map(|out| if let Out::Crashed { session, .. } = out { Some(session.0) } else { None })
        .collect();
    assert_eq!((crashed, reports(&outs), drops(&outs)), (vec![1, 2], vec![], vec![DropReason::Poison]));
    let outs = node.feed(at(3), In::Verified { token: checks(&outs)[0], ok: true });
    assert_eq!((delivered(&outs).len(), reports(&outs)), (1, vec![]));
    let fresh = parcel(50, 2, at(0), b"ho");
    let bad = forged(&fresh, 1);
    let token = checks(&node.inbound(at(4), 1, bad.bytes.clone()))[0];
    node.feed(at(5), In::CheckPanicked { token });
    let outs = node.inbound(at(6), 2, bad.bytes);
    assert_eq!((checks(&outs).len(), drops(&outs)), (0, vec![DropReason::Poison]), "not checked again");
}

#[test]
fn seen_ids_are_bounded() {
    let mut node = Node::with(0, Config { seen_ids: 10, cache_ids: 10, ..Config::test() });
    node.subscribe(Policy::Anonymous);
    node.peer(1);
    let outs: Vec<Out> =
        (0..25u8).flat_map(|n| node.inbound(at(1), 1, Parcel::new(topic(), None, &[n]).bytes)).collect();
    assert_eq!((node.stats().seen, drops(&outs).len()), (10, 15));
}

/// An item of a known kind around bytes that begin like a topic, or not.
fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("short");
    [&[kind][..], &len.to_be_bytes(), body].concat()
}

proptest! {
    #[test]
    fn whatever_comes_nothing_panics_and_everything_stays_bounded(
        messages in proptest::collection::vec(
            (1u64..4, 0u8..9, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)),
            0..60,
        ),
    ) {
        let mut node = Node::subscribed(Policy::Anonymous, 1..=2);
        for (n, (session, kind, known_topic, tail)) in (0..).zip(messages) {
            let prefix: &[u8] = if known_topic { b"\x04news" } else { &[] };
            let body = [prefix, &tail[..]].concat();
            node.inbound(at(n * 50), session, item(kind, &body).into());
            node.expire(at(n * 50));
            let (stats, limits) = (node.stats(), Config::test());
            prop_assert!(stats.wanted <= 2 * limits.wants_per_peer && stats.in_flight <= limits.in_flight);
            prop_assert!(stats.cached_bytes <= limits.cache_bytes && stats.seen <= limits.seen_ids);
        }
    }
}

/// The time is not covered by the id, and is looked at before the signature: a forged one must not make the node
/// forget who else has the true message.
#[test]
fn a_copy_with_a_forged_time_does_not_keep_the_true_one_away() {
    let mut node = Node::subscribed(Policy::Signed, 1..=2);
    let message = parcel(50, 1, at(0), b"true");
    let origin = message.origin.clone().map(|origin| Origin { issued: u64::MAX, ..origin });
    let forgery = Parcel::new(topic(), origin, &message.payload);
    assert_eq!(forgery.id(), message.id());
    assert_eq!(asked(&node.inbound(at(1), 1, wire::i_have(&topic(), &[message.id()]))), [(1, vec![message.id()])]);
    node.inbound(at(1), 2, wire::i_have(&topic(), &[message.id()]));
    assert_eq!(drops(&node.inbound(at(2), 1, forgery.bytes)), [DropReason::FromFuture]);
    assert_eq!(asked(&node.expire(at(2_002))), [(2, vec![message.id()])]);
}

/// The first few to announce a message cannot keep it from the node by never sending it.
#[test]
fn an_honest_advertiser_gets_its_turn_among_many_that_send_nothing() {
    let mut node = Node::subscribed(Policy::Signed, 1..=9);
    let message = parcel(50, 1, at(0), b"true");
    let announce = wire::i_have(&topic(), &[message.id()]);
    for liar in 1..=8 {
        node.inbound(at(1), liar, announce.clone());
    }
    let mut honest_asked = false;
    for second in 1..60 {
        let now = at(second * 1_000);
        let mut outs = node.expire(now);
        if second % 5 == 0 {
            for liar in 1..=8 {
                outs.extend(node.inbound(now, liar, announce.clone()));
            }
        }
        if second == 20 {
            outs.extend(node.inbound(now, 9, announce.clone()));
        }
        honest_asked |= asked(&outs).iter().any(|(session, _)| *session == 9);
    }
    assert!(honest_asked);
}
