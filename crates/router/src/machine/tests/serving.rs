//! What a node serves: handlers, their order, limits and deadlines.

use super::*;
use crate::handler::{AddError, Order, Rate};

fn concurrent() -> Node {
    Node::serving(3, HandlerConfig::concurrent())
}

fn errors(node: &Node) -> Vec<(SessionId, u64, ErrorCode)> {
    let error = |(session, item): &(SessionId, Item)| match item {
        Item::Error { id, code, .. } => Some((*session, *id, *code)),
        _ => None,
    };
    node.sent.iter().filter_map(error).collect()
}

#[test]
fn a_call_reaches_its_handler_and_the_answer_its_asker() {
    let mut node = concurrent();
    node.asked_by(2, 7, 5 * SECOND);
    let expected = Call {
        call: node.calls[0].call,
        handler: echo(),
        from: peer(2),
        session: session(2),
        deadline: 5 * SECOND,
        answered: true,
        payload: "hi".into(),
    };
    assert_eq!(node.calls, std::slice::from_ref(&expected));
    node.answer(expected.call, "yo");
    node.answer(expected.call, "twice");
    assert_eq!(node.sent, [(session(2), Item::Response { id: 7, payload: "yo".into() })]);
    assert!(node.is_clean());
}

#[test]
fn requests_for_handlers_that_are_not_here_are_answered_so_and_messages_are_dropped() {
    let mut node = Node::new(1);
    for junk in [&b""[..], b"junk", &[0xff; 100]] {
        node.hear(1, wire::request(1, HandlerId(5), SECOND, junk));
        node.hear(1, wire::message(HandlerId(5), junk));
    }
    assert_eq!(errors(&node), vec![(session(1), 1, ErrorCode::UnknownHandler); 3]);
    assert_eq!((node.sent.len(), node.counted(Count::UnknownHandler)), (3, 6));
    assert!(node.calls.is_empty() && node.reports.is_empty());
}

#[test]
fn an_error_of_the_handler_reaches_the_asker() {
    let mut node = concurrent();
    node.asked_by(1, 7, SECOND);
    let call = node.calls[0].call;
    node.feed(In::Answered { call, answer: Err(Fault::application(3, "no such block")) });
    assert_eq!(errors(&node), [(session(1), 7, ErrorCode::Application(3))]);
}

#[test]
fn an_answer_that_is_too_large_is_an_error() {
    let mut node = concurrent();
    node.asked_by(1, 7, SECOND);
    let call = node.calls[0].call;
    node.feed(In::Answered { call, answer: Ok(Payload(vec![0; (1 << 20) + 1].into())) });
    assert_eq!(errors(&node), [(session(1), 7, ErrorCode::TooLarge)]);
}

#[test]
fn a_message_is_a_call_that_nobody_waits_for() {
    let mut node = concurrent();
    node.hear(1, wire::message(echo(), b"news"));
    assert!(!node.calls[0].answered && node.calls[0].payload == "news");
    node.answer(node.calls[0].call, "ignored");
    assert!(node.sent.is_empty() && node.is_clean());
}

#[test]
fn names_are_taken_once_and_their_limits_are_checked() {
    let mut node = concurrent();
    let mut add = |name: &str, config| {
        node.others.clear();
        node.feed(In::AddHandler { token: 1, name: name.to_owned(), config });
        let [Out::HandlerAdded { result, .. }] = &node.others[..] else { panic!("{:?}", node.others) };
        result.clone()
    };
    let config = HandlerConfig::concurrent();
    assert_eq!(add("echo/1", config), Err(AddError::Taken("echo/1".to_owned())));
    assert_eq!(add("", config), Err(AddError::Name(0)));
    assert_eq!(add(&"x".repeat(129), config), Err(AddError::Name(129)));
    assert_eq!(add("a", HandlerConfig { per_peer: 0, ..config }), Err(AddError::Limits));
    assert_eq!(add("a", HandlerConfig { order: Order::InOrder { budget: 0 }, ..config }), Err(AddError::Limits));
    for n in 1..256 {
        assert!(add(&format!("h{n}"), config).is_ok());
    }
    assert_eq!(add("one more", config), Err(AddError::TooMany(256)));
    node.feed(In::RemoveHandler(echo()));
    node.feed(In::AddHandler { token: 1, name: "echo/1".to_owned(), config });
    assert_eq!(node.others.last(), Some(&Out::HandlerAdded { token: 1, result: Ok(echo()) }));
}

#[test]
fn two_names_of_one_id_clash() {
    let mut node = concurrent();
    node.driver.machine_mut().serving.rename(echo(), "another name");
    node.feed(In::AddHandler { token: 1, name: "echo/1".to_owned(), config: HandlerConfig::concurrent() });
    let clash = AddError::Clash { name: "echo/1".to_owned(), other: "another name".to_owned() };
    assert_eq!(node.others.last(), Some(&Out::HandlerAdded { token: 1, result: Err(clash) }));
}

#[test]
fn expired_work_is_not_begun_and_a_late_result_is_dropped() {
    let mut node = Node::serving(1, HandlerConfig::in_order());
    node.hear(1, Bytes::from([&[1, 0, 0, 0, 20][..], &[0; 7], &[1], &echo().0.to_be_bytes(), &[0; 4]].concat()));
    assert_eq!(node.counted(Count::Expired), 1, "no time at all");
    node.asked_by(1, 2, 2 * SECOND);
    node.asked_by(1, 3, SECOND);
    node.wait(SECOND);
    assert_eq!(node.counted(Count::Expired), 2, "while it waited");
    node.wait(SECOND);
    let call = node.calls[0].call;
    assert_eq!((node.calls.len(), &node.abandoned[..]), (1, &[call][..]));
    node.answer(call, "late");
    assert!(node.sent.is_empty() && node.is_clean());
}

#[test]
fn a_deadline_is_cut_to_what_this_node_grants() {
    let mut node = concurrent();
    node.asked_by(1, 1, Duration::from_secs(1_000_000));
    assert_eq!(node.calls[0].deadline, Config::recommended().max_deadline);
}

#[test]
fn a_cancelled_call_is_abandoned_and_keeps_its_place_until_it_has_ended() {
    let mut node = Node::serving(1, HandlerConfig { per_peer: 2, ..HandlerConfig::concurrent() });
    for id in 0..10 {
        node.asked_by(1, id, SECOND);
        node.hear(1, wire::cancel(id));
    }
    assert_eq!((node.calls.len(), node.abandoned.len()), (2, 2));
    assert_eq!(node.counted(Count::CancelledNothing), 8);
    let calls: Vec<u64> = node.calls.iter().map(|call| call.call).collect();
    calls.into_iter().for_each(|call| node.answer(call, "unheard"));
    assert_eq!(errors(&node).len(), 8);
    assert_eq!(node.sent.len(), 8, "the answers were not sent");
    node.asked_by(1, 10, SECOND);
    assert_eq!(node.calls.len(), 3);
}

#[test]
fn in_order_one_call_at_a_time_and_the_budget_at_one_instant() {
    let config = HandlerConfig { order: Order::InOrder { budget: 3 }, ..HandlerConfig::in_order() };
    let mut node = Node::serving(2, config);
    for id in 0..5 {
        node.asked_by(1, id, SECOND);
        node.asked_by(2, id, SECOND);
    }
    assert_eq!(node.calls.len(), 1);
    for done in 0..3 {
        node.answer(node.calls[done].call, "done");
    }
    assert_eq!(node.calls.len(), 3, "the budget is spent");
    node.driver.expire_due(node.now);
    node.note();
    assert_eq!(node.calls.len(), 4, "and there is another one after others had their turn");
    for done in 3..10 {
        node.answer(node.calls[done].call, "done");
        node.wait(Duration::ZERO);
    }
    let order: Vec<_> = node.sent.iter().map(|(session, item)| (session.0, item.clone())).collect();
    let expected = (0..5).flat_map(|id| [1, 2].map(|s| (s, Item::Response { id, payload: "done".into() })));
    assert_eq!(order, expected.collect::<Vec<_>>());
    assert!(node.is_clean());
}

#[test]
fn at_the_same_time_as_many_as_one_peer_and_all_may_have() {
    let config = HandlerConfig { per_peer: 2, total: 3, ..HandlerConfig::concurrent() };
    let mut node = Node::serving(3, config);
    (0..3).for_each(|id| node.asked_by(1, id, SECOND));
    assert_eq!(errors(&node), [(session(1), 2, ErrorCode::Throttled)]);
    (0..2).for_each(|id| node.asked_by(2, id, SECOND));
    assert_eq!(errors(&node)[1..], [(session(2), 1, ErrorCode::Throttled)]);
    let call = node.calls[0].call;
    node.answer(call, "done");
    node.asked_by(2, 2, SECOND);
    assert_eq!(node.calls.len(), 4);
}

#[test]
fn a_peer_that_comes_back_still_has_the_calls_it_had() {
    let mut node = Node::serving(1, HandlerConfig { per_peer: 2, ..HandlerConfig::concurrent() });
    (0..2).for_each(|id| node.asked_by(1, id, SECOND));
    node.down(1);
    assert_eq!(node.abandoned.len(), 2);
    node.feed(In::PeerUp(PeerUp { session: session(2), id: peer(1), channel: ChannelId(1) }));
    node.asked_by(2, 0, SECOND);
    assert_eq!(errors(&node), [(session(2), 0, ErrorCode::Throttled)]);
}

#[test]
fn only_members_are_served_where_it_says_so() {
    let config = HandlerConfig { members_only: true, ..HandlerConfig::concurrent() };
    let mut node = Node::serving(2, config);
    node.feed(In::Members([(peer(2), 1)].into()));
    for n in [1, 2] {
        node.asked_by(n, 1, SECOND);
        node.hear(n, wire::message(echo(), b""));
    }
    assert_eq!(errors(&node), [(session(1), 1, ErrorCode::NotMember)]);
    assert!(node.calls.len() == 2 && node.calls.iter().all(|call| call.from == peer(2)));
}

/// Each asks until it is refused; how many of its calls were taken.
fn asks_until_refused(node: &mut Node, from: u8) -> usize {
    let before = node.calls.len();
    (0..100).for_each(|id| node.asked_by(from, id, SECOND));
    node.calls.len() - before
}

#[test]
fn a_crowd_that_asks_all_it_may_leaves_members_their_part_by_weight() {
    let config = HandlerConfig { total: 16, ..HandlerConfig::concurrent() };
    let mut node = Node::serving(5, config);
    // The fifth is connected, and no member; the sixth is a member, and not connected.
    node.feed(In::Members([(peer(3), 6), (peer(4), 2), (peer(6), 100)].into()));
    assert_eq!([1, 2, 5].map(|n| asks_until_refused(&mut node, n)), [8, 0, 0]);
    assert_eq!([3, 4].map(|n| asks_until_refused(&mut node, n)), [6, 2]);
    let served: Vec<u64> = node.calls.iter().map(|call| call.call).collect();
    served.into_iter().for_each(|call| node.answer(call, "done"));
    assert!(node.is_clean());
    node.down(3);
    node.down(4);
    assert_eq!(asks_until_refused(&mut node, 1), 16, "no member is connected");
}

#[test]
fn members_have_their_part_of_the_nodes_calls_and_bytes_too() {
    let recommended = Config::recommended();
    let few = crate::Limits { node: 8, per_peer: 8, ..recommended.served };
    let small = crate::Limits { node_bytes: 64, per_peer_bytes: 64, ..recommended.served };
    for (served, bytes, at_large) in [(few, 2, 4), (small, 8, 4)] {
        let mut node = Node::with(recommended.clone());
        (1..=2).for_each(|n| node.up(n));
        node.feed(In::AddHandler { token: 0, name: "echo/1".to_owned(), config: HandlerConfig::concurrent() });
        node.feed(In::Limits { asked: recommended.asked, served });
        node.feed(In::Members([(peer(2), 1)].into()));
        for (from, most) in [(1, at_large), (2, 2 * at_large)] {
            (0..20).for_each(|id| node.hear(from, wire::request(id, echo(), SECOND, &vec![0; bytes])));
            assert_eq!(node.calls.len(), most);
        }
    }
}

#[test]
fn members_that_have_no_weight_are_a_crowd_like_others() {
    let config = HandlerConfig { total: 16, ..HandlerConfig::concurrent() };
    let mut node = Node::serving(2, config);
    node.feed(In::Members([(peer(2), 0)].into()));
    assert_eq!([1, 2].map(|n| asks_until_refused(&mut node, n)), [16, 0]);
}

#[test]
fn a_rate_refuses_requests_and_drops_messages() {
    let rate = Some(Rate { calls: 2, period: SECOND });
    let mut node = Node::serving(2, HandlerConfig { rate, ..HandlerConfig::concurrent() });
    for id in 0..3 {
        node.asked_by(1, id, SECOND);
        node.hear(2, wire::message(echo(), b""));
    }
    assert_eq!(errors(&node), [(session(1), 2, ErrorCode::Throttled)]);
    assert_eq!((node.calls.len(), node.counted(Count::Throttled)), (4, 2));
}

#[test]
fn a_fair_rate_is_a_part_for_each_member_and_follows_their_number() {
    let rate = Some(Rate { calls: 100, period: 1000 * SECOND });
    let mut node = Node::serving(3, HandlerConfig { rate, fair: true, per_peer: 200, ..HandlerConfig::concurrent() });
    let served = |node: &mut Node, from: u8, count: u64| {
        let before = node.calls.len();
        (0..count).for_each(|_| node.hear(from, wire::message(echo(), b"")));
        node.calls.len() - before
    };
    assert_eq!(served(&mut node, 1, 3), 0, "there are no members");
    let members = |count: u8| In::Members((1..=count).map(|n| (peer(n), 1)).collect());
    node.feed(members(10));
    // The three that were refused count.
    assert_eq!(served(&mut node, 1, 50), 22 - 3);
    assert_eq!(served(&mut node, 2, 50), 22);
    node.feed(members(2));
    assert_eq!(served(&mut node, 2, 50), 70 - 50, "and more when they are fewer");
    node.feed(members(100));
    assert_eq!(served(&mut node, 3, 50), 4);
}

#[test]
fn a_removed_handler_refuses_what_waits_and_its_successor_counts_its_own() {
    let mut node = Node::serving(1, HandlerConfig::in_order());
    (0..3).for_each(|id| node.asked_by(1, id, SECOND));
    node.feed(In::RemoveHandler(echo()));
    assert_eq!(errors(&node).len(), 2);
    node.feed(In::AddHandler { token: 1, name: "echo/1".to_owned(), config: HandlerConfig::in_order() });
    node.asked_by(1, 3, SECOND);
    assert_eq!(node.calls.len(), 2, "does not wait for the call of its predecessor");
    let calls: Vec<u64> = node.calls.iter().map(|call| call.call).collect();
    calls.into_iter().for_each(|call| node.answer(call, "done"));
    assert!(node.is_clean());
    let answered: Vec<_> = node.sent.iter().filter(|(_, item)| matches!(item, Item::Response { .. })).collect();
    assert_eq!(answered.len(), 2, "the call at work was answered");
}
