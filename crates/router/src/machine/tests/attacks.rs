//! What a hostile peer sends.

use super::*;

fn flood(node: &Node) -> bool {
    !node.reports.is_empty() && node.reports.iter().all(|report| *report == (session(1), Penalty::ControlFlood))
}

#[test]
fn what_does_not_decode_is_malformed_and_what_is_unknown_is_skipped() {
    let mut node = Node::new(1);
    node.hear(1, Bytes::from_static(&[1, 0, 0, 0, 1, 0]));
    assert_eq!(node.reports, [(session(1), Penalty::MalformedMessage)]);
    node.hear(1, Bytes::from_static(&[200, 0, 0, 0, 0]));
    assert_eq!((node.counted(Count::UnknownKind), node.reports.len()), (1, 1));
    node.hear(9, Bytes::from_static(&[200, 0, 0, 0, 0]));
    assert_eq!(node.counted(Count::UnknownSession), 1);
}

#[test]
fn answers_that_nobody_asked_for_are_blamed_if_there_are_many_whatever_life_they_claim() {
    for id in [(1 << 32) | 5, (9 << 32) | 5] {
        let mut node = Node::new(1);
        (0..257).for_each(|_| node.hear(1, wire::response(id, b"")));
        assert!(flood(&node));
    }
}

#[test]
fn an_id_that_is_under_way_is_refused_and_blamed_and_the_first_request_goes_on() {
    let mut node = Node::serving(1, HandlerConfig::concurrent());
    node.asked_by(1, 7, SECOND);
    node.asked_by(1, 7, SECOND);
    assert!(flood(&node) && node.calls.len() == 1 && node.sent.is_empty());
    let call = node.calls[0].call;
    node.answer(call, "yo");
    assert_eq!(node.sent.len(), 1);
    node.asked_by(1, 7, SECOND);
    assert_eq!(node.calls.len(), 2, "free again");
}

#[test]
fn whoever_goes_on_asking_beyond_the_limits_is_blamed() {
    let mut node = Node::serving(1, HandlerConfig { per_peer: 1, ..HandlerConfig::concurrent() });
    (0..200).for_each(|id| node.asked_by(1, id, SECOND));
    assert!(node.reports.is_empty(), "it cannot know our limits");
    (200..400).for_each(|id| node.asked_by(1, id, SECOND));
    assert!(flood(&node));
}

#[test]
fn requests_that_expire_while_they_wait_leave_nothing_behind() {
    let mut node = Node::serving(1, HandlerConfig::in_order());
    node.asked_by(1, 0, 60 * SECOND);
    for id in 1..2_000 {
        node.asked_by(1, id, Duration::from_millis(1));
        node.wait(Duration::from_millis(2));
    }
    let stats = node.driver.machine().stats();
    assert_eq!((stats.calls, stats.call_bytes, stats.deadlines), (1, 2, 1));
    assert_eq!(node.driver.machine().serving.waiting(), 0);
}

#[test]
fn a_small_payload_does_not_keep_a_large_message_alive() {
    let mut node = Node::serving(1, HandlerConfig::concurrent());
    let padding = [&[99][..], &1_000_000u32.to_be_bytes(), &vec![0; 1_000_000]].concat();
    let message = Bytes::from([&wire::request(1, echo(), SECOND, b"hi")[..], &padding].concat());
    let within = message.as_ptr_range();
    node.hear(1, message.clone());
    assert!(!within.contains(&node.calls[0].payload.as_ptr()));
    let large = wire::request(2, echo(), SECOND, &[0; 1_000]);
    let within = large.as_ptr_range();
    node.hear(1, large.clone());
    assert!(within.contains(&node.calls[1].payload.as_ptr()), "and a large one is not copied");
}

#[test]
fn bytes_of_calls_are_bounded_by_peer() {
    let mut node = Node::serving(2, HandlerConfig::concurrent());
    for id in 0..3 {
        node.hear(1, wire::request(id, echo(), SECOND, &vec![0; 1 << 20]));
    }
    assert_eq!(node.calls.len(), 2, "two of 1 MiB");
    node.hear(2, wire::request(1, echo(), SECOND, &vec![0; 1 << 20]));
    assert_eq!(node.calls.len(), 3, "another peer has a share of its own");
}

#[test]
fn late_answers_that_are_expected_are_bounded() {
    let mut node = Node::with(Config { max_retired: 10, ..Config::recommended() });
    node.up(1);
    for token in 0..1_000 {
        node.ask(token, once());
        let id = node.last_id();
        node.feed(In::Cancel { token });
        if token % 2 == 0 {
            node.hear(1, wire::response(id, b""));
        }
    }
    assert!(node.driver.machine().stats().retired <= 20);
}
