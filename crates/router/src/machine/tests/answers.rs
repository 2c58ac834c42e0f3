//! Large answers: each on a stream of its own, in both directions.

use super::*;
use crate::config::Limits;
use crate::wire::streams::{Header, codes};

const LARGE: usize = 100_000;

fn large() -> Payload {
    Payload(vec![7; LARGE].into())
}

fn with(change: impl FnOnce(&mut Limits)) -> Node {
    let mut config = Config::recommended();
    config.max_payload = 200_000;
    change(&mut config.answers);
    let mut node = Node::with(config);
    (1..=3).for_each(|n| node.up(n));
    node.feed(In::AddHandler { token: 0, name: "echo/1".to_owned(), config: HandlerConfig::concurrent() });
    node.others.clear();
    node
}

impl Node {
    fn outs(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.others)
    }

    /// The peer asks, and the handler has a large answer.
    fn answers(&mut self, to: u8, id: u64) -> u64 {
        self.asked_by(to, id, 5 * SECOND);
        let call = self.calls.last().expect("called").call;
        self.feed(In::Answered { call, answer: Ok(large()) });
        call
    }

    fn is_sent(&mut self, call: u64, sent: AnswerSent) {
        self.feed(In::AnswerSent { call, sent });
    }

    fn claims(&mut self, stream: u64, from: u8, id: u64, length: u32) -> Vec<Out> {
        self.feed(In::StreamCame { stream, session: session(from) });
        self.outs();
        self.feed(In::StreamHeader { stream, header: Ok(Header::Answer { id, length }) });
        self.outs()
    }

    fn brings(&mut self, stream: u64, answer: Result<&'static str, Broken>) {
        self.feed(In::AnswerCame { stream, answer: answer.map(|answer| Payload(answer.into())) });
    }
}

/// The calls whose answers were handed to streams, and for which requests.
fn begun(outs: &[Out]) -> Vec<(u64, u64)> {
    let begun = |out: &Out| match out {
        Out::SendAnswer { call, header: Header::Answer { id, length }, payload, .. } => {
            assert_eq!((*length as usize, payload.len()), (LARGE, LARGE));
            Some((*call, *id))
        }
        _ => None,
    };
    outs.iter().filter_map(begun).collect()
}

#[test]
fn a_large_answer_goes_on_a_stream_and_a_small_one_among_the_messages() {
    let mut node = with(|_| {});
    let call = node.answers(1, 7);
    assert_eq!(begun(&node.outs()), [(call, 7)]);
    node.is_sent(call, AnswerSent::Whole);
    node.is_sent(call, AnswerSent::Whole);
    assert_eq!((node.counted(Count::Served), node.counted(Count::AnswerStreamed)), (1, 1));
    assert_eq!(node.sent, []);
    node.asked_by(1, 8, SECOND);
    node.answer(node.calls[1].call, "small");
    assert_eq!(node.sent, [(session(1), Item::Response { id: 8, payload: "small".into() })]);
    assert!(node.is_clean());
}

#[test]
fn where_there_is_no_stream_a_large_answer_goes_among_the_messages() {
    let mut node = with(|_| {});
    let call = node.answers(1, 7);
    node.is_sent(call, AnswerSent::NoStream);
    assert_eq!(node.sent, [(session(1), Item::Response { id: 7, payload: large().0 })]);
    assert_eq!(node.counted(Count::AnswerNotStreamed), 1);
    let call = node.answers(1, 8);
    node.is_sent(call, AnswerSent::Dropped);
    assert_eq!(node.sent.len(), 1, "its asker does not want it");
    assert!(node.is_clean());
}

#[test]
fn of_one_peer_so_many_answers_go_at_a_time_and_its_bytes_are_bounded() {
    let mut node = with(|limits| (limits.per_peer, limits.per_peer_bytes, limits.node_bytes) = (1, 300_000, 500_000));
    let calls: Vec<u64> = (0..3).map(|id| node.answers(1, id)).collect();
    assert_eq!(begun(&node.outs()), [(calls[0], 0)]);
    node.answers(1, 9);
    let refused = |id| Item::Error { id, code: ErrorCode::Throttled, text: String::new() };
    assert_eq!(node.sent, [(session(1), refused(9))], "it takes what it asked for too slowly");
    let others = [node.answers(2, 0), node.answers(3, 0)];
    assert_eq!(begun(&node.outs()), [(others[0], 0), (others[1], 0)], "others are not held up");
    node.answers(2, 1);
    assert_eq!(node.sent.last(), Some(&(session(2), refused(1))), "of all");
    node.is_sent(calls[1], AnswerSent::Whole);
    assert_eq!(begun(&node.outs()), [], "one that was not handed out cannot be done");
    for (done, next) in [(0, Some(1)), (1, Some(2)), (2, None)] {
        node.is_sent(calls[done], AnswerSent::Whole);
        assert_eq!(begun(&node.outs()), next.map(|n| (calls[n], n as u64)).into_iter().collect::<Vec<_>>());
    }
    others.into_iter().for_each(|call| node.is_sent(call, AnswerSent::Whole));
    assert!(node.is_clean());
}

#[test]
fn a_crowd_that_takes_its_large_answers_slowly_leaves_a_member_its_part() {
    let mut node = with(|limits| (limits.per_peer_bytes, limits.node_bytes) = (400_000, 400_000));
    node.feed(In::Members([(peer(3), 1)].into()));
    let mut calls: Vec<u64> = (0..2).map(|id| node.answers(1, id)).collect();
    node.answers(2, 0);
    assert!(matches!(node.sent[..], [(_, Item::Error { id: 0, code: ErrorCode::Throttled, .. })]), "half is kept");
    calls.extend((0..2).map(|id| node.answers(3, id)));
    assert_eq!((begun(&node.outs()).len(), node.sent.len()), (4, 1));
    calls.into_iter().for_each(|call| node.is_sent(call, AnswerSent::Whole));
    assert!(node.is_clean());
}

#[test]
fn an_answer_that_nobody_waits_for_any_more_is_withdrawn_and_keeps_its_place_until_it_has_ended() {
    for how in ["time", "cancel", "disconnect"] {
        let mut node = with(|limits| limits.per_peer = 1);
        let (begun_call, waiting) = (node.answers(1, 7), node.answers(1, 8));
        node.outs();
        match how {
            "time" => node.wait(5 * SECOND),
            "cancel" => [7, 8].into_iter().for_each(|id| node.hear(1, wire::cancel(id))),
            _ => node.down(1),
        }
        assert_eq!(node.outs(), [Out::WithdrawAnswer { call: begun_call }], "{how}");
        assert_eq!(node.driver.machine().stats().answers_out, 1);
        node.is_sent(waiting, AnswerSent::Whole);
        node.is_sent(begun_call, AnswerSent::Dropped);
        assert!(node.is_clean(), "{how}");
        assert_eq!(node.sent, []);
    }
}

#[test]
fn the_id_of_an_answer_under_way_is_not_used_again() {
    let mut node = with(|_| {});
    node.answers(1, 7);
    node.asked_by(1, 7, SECOND);
    assert_eq!(node.counted(Count::DuplicateId), 1);
    assert_eq!(node.calls.len(), 1);
}

#[test]
fn an_answer_comes_on_a_stream_and_completes_its_request_once() {
    let mut node = with(|_| {});
    node.ask(1, once());
    let id = node.last_id();
    assert_eq!(node.claims(1, 1, id, 3), [Out::ReadAnswer { stream: 1, length: 3 }]);
    assert_eq!(node.completed, []);
    assert_eq!(node.claims(2, 1, id, 3), [Out::RefuseStream { stream: 2, code: codes::UNWANTED }], "one is enough");
    node.brings(1, Ok("yes"));
    node.brings(1, Ok("no"));
    node.hear(1, wire::response(id, b"no"));
    assert_eq!(node.outcome(), Ok("yes"));
    assert!(node.is_clean());
}

#[test]
fn what_is_claimed_is_judged_before_it_is_read() {
    let mut node = with(|_| {});
    node.ask(1, once());
    let id = node.last_id();
    assert_eq!(node.claims(1, 1, id, 200_001), [Out::RefuseStream { stream: 1, code: codes::TOO_LARGE }]);
    assert!(matches!(node.outcome(), Err(RequestError::Refused { code: ErrorCode::TooLarge, .. })));
    assert_eq!(node.reports, [(session(1), Penalty::MalformedMessage)]);
    assert!(node.is_clean());
}

#[test]
fn answers_on_streams_that_nobody_asked_for_are_refused_and_many_are_blamed() {
    let mut node = with(|_| {});
    node.ask(1, once());
    let id = node.last_id();
    assert_eq!(node.claims(1, 2, id, 3), [Out::RefuseStream { stream: 1, code: codes::UNWANTED }], "another peer");
    node.wait(10 * SECOND);
    assert_eq!(node.outcome(), Err(RequestError::TimedOut));
    assert_eq!(node.claims(2, 1, id, 3), [Out::RefuseStream { stream: 2, code: codes::UNWANTED }]);
    assert_eq!((node.counted(Count::LateAnswer), node.reports.len()), (1, 0), "in the time of grace");
    (0..300).for_each(|n| drop(node.claims(10 + n, 3, 1 << 32 | 0xffff, 3)));
    assert_eq!(node.reports.len(), 300 - 256);
}

#[test]
fn a_request_that_ends_takes_the_stream_of_its_answer_along() {
    for how in ["time", "cancel", "disconnect", "error"] {
        let mut node = with(|_| {});
        node.ask(1, once());
        let id = node.last_id();
        node.claims(1, 1, id, 3);
        match how {
            "time" => node.wait(10 * SECOND),
            "cancel" => node.feed(In::Cancel { token: 1 }),
            "error" => node.hear(1, wire::error(id, ErrorCode::Internal, "")),
            _ => node.down(1),
        }
        assert_eq!(node.outs(), [Out::RefuseStream { stream: 1, code: codes::UNWANTED }], "{how}");
        assert!(node.outcome().is_err());
        node.brings(1, Ok("yes"));
        assert_eq!(node.completed.len(), 1);
        node.wait(60 * SECOND);
        assert!(node.is_clean(), "{how}");
    }
}

#[test]
fn an_answer_that_breaks_off_or_lies_about_its_length_fails_its_request() {
    for (broken, reports) in [(Broken::Off, 0), (Broken::Length, 1)] {
        let mut node = with(|_| {});
        node.ask(1, once());
        let id = node.last_id();
        node.claims(1, 1, id, 3);
        node.brings(1, Err(broken));
        assert!(matches!(node.outcome(), Err(RequestError::Refused { code: ErrorCode::Internal, .. })));
        assert_eq!(node.reports.len(), reports, "{broken:?}");
        assert!(node.is_clean());
    }
}

#[test]
fn a_members_answer_has_room_beside_those_that_a_crowd_brings_slowly() {
    let mut node = with(|limits| (limits.per_peer_bytes, limits.node_bytes) = (400_000, 400_000));
    node.feed(In::Members([(peer(3), 1)].into()));
    let claims = |node: &mut Node, stream: u64, from: u8| {
        node.ask(stream, ask(Target::Peer(peer(from)), Terms::within(10 * SECOND)));
        let id = node.last_id();
        node.claims(stream, from, id, 200_000).iter().any(|out| matches!(out, Out::ReadAnswer { .. }))
    };
    let read = [(1, 1), (2, 2), (3, 3)].map(|(stream, from)| claims(&mut node, stream, from));
    assert_eq!(read, [true, false, true], "the crowd's second one waits");
    (1..=3).for_each(|stream| node.brings(stream, Ok("x")));
    assert!(node.is_clean());
}

#[test]
fn claims_beyond_the_room_wait_and_hold_up_no_other_peer() {
    let mut node = with(|limits| (limits.per_peer_bytes, limits.node_bytes) = (200_000, 450_000));
    let mut ids = Vec::new();
    for (token, to) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
        node.ask(token, ask(Target::Peer(peer(to)), Terms::within(10 * SECOND)));
        ids.push(node.last_id());
    }
    let reads = |outs: Vec<Out>| {
        let read = |out: &Out| if let Out::ReadAnswer { stream, .. } = out { Some(*stream) } else { None };
        outs.iter().filter_map(read).collect::<Vec<_>>()
    };
    assert_eq!(reads(node.claims(1, 1, ids[0], 200_000)), [1]);
    assert_eq!(reads(node.claims(2, 1, ids[1], 1)), [0_u64; 0], "the peer has its share");
    assert_eq!(reads(node.claims(3, 2, ids[2], 200_000)), [3]);
    assert_eq!(reads(node.claims(4, 3, ids[3], 100_000)), [0_u64; 0], "the node's is used up");
    node.brings(1, Ok("1"));
    assert_eq!(reads(node.outs()), [2, 4]);
    [2, 3, 4].into_iter().for_each(|stream| node.brings(stream, Ok("x")));
    assert_eq!(node.completed.iter().filter(|(_, result)| result.is_ok()).count(), 4);
    assert!(node.is_clean());
}
