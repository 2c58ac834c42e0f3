//! What a node asks: completions, retries, choice of peers.

use super::*;

#[test]
fn an_answer_completes_its_request_once() {
    let mut node = Node::new(1);
    node.ask(5, once());
    let id = node.last_id();
    node.wait(SECOND);
    node.hear(1, wire::response(id, b"yo"));
    node.hear(1, wire::response(id, b"again"));
    assert_eq!(node.completed.len(), 1);
    let answer = Answer { payload: "yo".into(), from: Some(peer(1)), took: SECOND };
    assert_eq!(node.completed[0], (5, Ok(answer)));
    assert_eq!(node.counted(Count::Unrequested), 1);
    assert!(node.is_clean());
}

#[test]
fn a_request_to_nobody_is_completed_at_once() {
    let mut node = Node::new(1);
    node.ask(1, ask(Target::Peer(peer(9)), Terms::within(SECOND)));
    assert_eq!(node.outcome(), Err(RequestError::NotConnected));
    let mut node = Node::new(0);
    node.ask(1, ask(Target::Any(Pool::Everyone), Terms::within(SECOND)));
    assert_eq!(node.outcome(), Err(RequestError::NoPeers));
    assert!(node.is_clean());
}

#[test]
fn the_deadline_travels_as_what_is_left_of_it() {
    let mut node = Node::new(1);
    node.ask(1, ask(Target::Peer(peer(1)), Terms::within(Duration::from_millis(2_500))));
    assert!(matches!(node.sent[..], [(_, Item::Request { deadline, .. })] if deadline == Duration::from_millis(2_500)));
}

#[test]
fn a_request_ends_by_time_out_disconnection_cancellation_or_a_full_lane() {
    type End = fn(&mut Node);
    let ends: [(End, RequestError); 4] = [
        (|node| node.wait(10 * SECOND), RequestError::TimedOut),
        (|node| node.down(1), RequestError::Disconnected),
        (|node| node.feed(In::Cancel { token: 1 }), RequestError::Cancelled),
        (
            |node| node.feed(In::SendFailed { session: session(1), tag: node.tags[0].expect("a tag") }),
            RequestError::NotSent,
        ),
    ];
    for (end, error) in ends {
        let mut node = Node::new(1);
        node.ask(1, once());
        end(&mut node);
        assert_eq!(node.outcome(), Err(error.clone()));
        let id = node.last_id();
        for _ in 0..2 {
            node.feed(In::Cancel { token: 1 });
            node.feed(In::SendFailed { session: session(1), tag: id });
            node.hear(1, wire::response(id, b"late"));
            node.hear(1, wire::error(id, ErrorCode::Internal, ""));
            node.down(1);
            node.wait(60 * SECOND);
        }
        assert_eq!(node.completed.len(), 1, "{error}");
        assert!(node.is_clean(), "{error}: {:?}", node.driver.machine().stats());
    }
}

#[test]
fn a_cancellation_reaches_the_responder_by_the_lane_of_its_request() {
    let mut node = Node::new(1);
    let mut request = once();
    request.payload = Bytes::from(vec![0; 100_000]);
    node.driver.handle(node.now, In::Request { token: 1, request: Box::new(request) });
    node.driver.handle(node.now, In::Cancel { token: 1 });
    let lanes: Vec<Lane> = node
        .driver
        .drain()
        .filter_map(|out| if let Out::Push(Outgoing { lane, .. }) = out { Some(lane) } else { None })
        .collect();
    assert_eq!(lanes, [Lane::Normal, Lane::Normal]);
}

#[test]
fn a_late_answer_is_nobodys_fault_within_the_time_of_grace() {
    let mut node = Node::new(1);
    let mut ids = Vec::new();
    for token in 0..600 {
        node.ask(token, once());
        ids.push(node.last_id());
        node.feed(In::Cancel { token });
    }
    ids.iter().for_each(|id| node.hear(1, wire::response(*id, b"")));
    assert_eq!((node.counted(Count::LateAnswer), node.reports.len()), (600, 0));
    node.ask(600, once());
    let id = node.last_id();
    node.feed(In::Cancel { token: 600 });
    node.wait(31 * SECOND);
    node.hear(1, wire::response(id, b""));
    assert_eq!(node.counted(Count::Unrequested), 1);
    assert!(node.is_clean());
}

#[test]
fn an_answer_counts_only_from_the_peer_that_was_asked() {
    let mut node = Node::new(2);
    node.ask(1, once());
    let id = node.last_id();
    node.hear(2, wire::response(id, b"forged"));
    assert!(node.completed.is_empty() && node.counted(Count::Unrequested) == 1);
    node.hear(1, wire::response(id, b"true"));
    assert_eq!(node.outcome(), Ok("true"));
}

#[test]
fn ids_that_wrap_skip_those_that_are_out_or_expected_and_lives_have_ids_of_their_own() {
    let mut node = Node::new(1);
    node.driver.machine_mut().asking.wrap_soon();
    (0..4).for_each(|token| node.ask(token, once()));
    let ids: Vec<u64> = node.requests().iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [(1 << 32) | 0xffff_ffff, 1 << 32, (1 << 32) | 1, (1 << 32) | 2]);
    node.feed(In::Cancel { token: 1 });
    node.driver.machine_mut().asking.wrap_soon();
    node.ask(4, once());
    assert_eq!(node.last_id(), (1 << 32) | 3, "0xffffffff, 1 and 2 are out, and an answer to 0 is expected");
    let mut next = Driver::new(RouterMachine::new(Config::recommended(), 7, 2));
    next.handle(node.now, In::PeerUp(PeerUp { session: session(1), id: peer(1), channel: ChannelId(1) }));
    next.handle(node.now, In::Inbound { session: session(1), payload: wire::response(ids[0], b"") });
    assert!(next.drain().any(|out| out == Out::Count(Count::EarlierLife)));
}

#[test]
fn too_many_requests_are_refused_here_by_count_and_by_bytes_of_a_peer_and_of_all() {
    let config = Config::recommended();
    let (per_peer, node) = (config.asked.per_peer as u64, config.asked.node);
    let mut asker = Node::new(20);
    (0..=per_peer).for_each(|token| asker.ask(token, once()));
    assert_eq!(asker.completed, [(per_peer, Err(RequestError::Busy))]);
    for (token, to) in (10_000..).zip((2..=20).cycle()).take(node) {
        asker.ask(token, ask(Target::Peer(peer(to)), Terms::within(SECOND)));
    }
    assert_eq!(asker.driver.machine().stats().operations, node);
    assert!(asker.completed.iter().all(|(_, result)| *result == Err(RequestError::Busy)));
    asker.wait(60 * SECOND);
    assert!(asker.is_clean());

    let mut asker = Node::new(1);
    let large = Request { payload: vec![0; config.max_payload].into(), ..once() };
    (0..5).for_each(|token| asker.ask(token, large.clone()));
    assert_eq!(asker.completed, [(4, Err(RequestError::Busy))], "four of 1 MiB");
    let too_large = Request { payload: vec![0; config.max_payload + 1].into(), ..once() };
    asker.ask(9, too_large);
    assert!(matches!(asker.completed[1], (9, Err(RequestError::PayloadTooLarge { .. }))));
}

#[test]
fn a_token_that_is_under_way_is_refused() {
    let mut node = Node::new(1);
    node.ask(1, once());
    node.ask(1, once());
    assert_eq!(node.completed, [(1, Err(RequestError::Busy))]);
    assert_eq!(node.requests().len(), 1);
}

#[test]
fn after_a_time_out_another_peer_is_asked_and_after_three_nobody() {
    let mut node = Node::new(3);
    let terms = Terms { attempt: Some(SECOND), ..Terms::trying(20 * SECOND) };
    node.ask(1, ask(Target::Any(Pool::Everyone), terms));
    node.wait(20 * SECOND);
    let mut asked: Vec<SessionId> = node.requests().into_iter().map(|(session, _)| session).collect();
    asked.sort();
    assert_eq!(asked, [session(1), session(2), session(3)]);
    assert_eq!(node.outcome(), Err(RequestError::TimedOut));
    node.wait(60 * SECOND);
    assert!(node.is_clean());
}

#[test]
fn the_time_at_one_peer_ends_before_that_of_the_operation() {
    let mut node = Node::new(1);
    let terms = Terms { attempt: Some(4 * SECOND), request: 5 * SECOND, ..Terms::trying(20 * SECOND) };
    node.ask(1, ask(Target::Peer(peer(1)), terms));
    node.wait(Duration::from_millis(4_999));
    assert_eq!((node.requests().len(), node.completed.len()), (2, 0));
    node.wait(Duration::from_millis(1));
    assert_eq!(node.outcome(), Err(RequestError::TimedOut), "one second for the second attempt");
}

#[test]
fn a_peer_that_is_away_is_waited_for() {
    let mut node = Node::new(0);
    node.ask(1, ask(Target::Peer(peer(1)), Terms::trying(20 * SECOND)));
    node.wait(SECOND / 2);
    assert!(node.completed.is_empty());
    node.up(1);
    node.wait(5 * SECOND);
    node.hear(1, wire::response(node.last_id(), b"back"));
    assert_eq!(node.outcome(), Ok("back"));
}

#[test]
fn a_throttling_peer_is_asked_again_later_and_an_invalid_request_is_not() {
    let mut node = Node::new(1);
    node.ask(1, ask(Target::Peer(peer(1)), Terms::trying(20 * SECOND)));
    node.hear(1, wire::error(node.last_id(), ErrorCode::Throttled, ""));
    assert_eq!((node.requests().len(), node.completed.len()), (1, 0), "not at once");
    node.wait(SECOND / 2);
    assert_eq!(node.requests().len(), 2);
    node.hear(1, wire::error(node.last_id(), ErrorCode::InvalidRequest, "what?"));
    let text = "what?".to_owned();
    assert_eq!(node.outcome(), Err(RequestError::Refused { code: ErrorCode::InvalidRequest, text }));
    assert_eq!(node.requests().len(), 2);
}

#[test]
fn a_peer_that_does_not_serve_it_is_passed_over_where_another_may() {
    let mut node = Node::new(2);
    node.ask(1, anyone());
    let (first, id) = node.requests()[0];
    node.hear(first.0 as u8, wire::error(id, ErrorCode::UnknownHandler, ""));
    node.wait(Duration::ZERO);
    let (second, id) = node.requests()[1];
    assert_ne!(first, second);
    node.hear(second.0 as u8, wire::response(id, b"I do"));
    assert_eq!(node.outcome(), Ok("I do"));
}

#[test]
fn a_fallback_stands_in_for_what_could_have_worked_and_not_for_a_wrong_request() {
    for (code, completes) in [(ErrorCode::Throttled, true), (ErrorCode::InvalidRequest, false)] {
        let mut node = Node::new(1);
        node.ask(1, Request { fallback: Some(Payload("default".into())), ..once() });
        node.hear(1, wire::error(node.last_id(), code, ""));
        assert_eq!(node.outcome().is_ok(), completes);
        if completes {
            assert_eq!((node.outcome(), node.counted(Count::FellBack)), (Ok("default"), 1));
        }
    }
}

#[test]
fn a_handler_of_a_peer_that_fails_repeatedly_is_given_a_rest() {
    let mut node = Node::new(1);
    for token in 0..5 {
        node.ask(token, ask(Target::Peer(peer(1)), Terms::within(SECOND)));
        node.wait(SECOND);
    }
    node.ask(5, once());
    assert_eq!(node.completed[5], (5, Err(RequestError::CircuitOpen)));
    node.ask(6, Request { handler: HandlerId::of("other"), ..once() });
    assert_eq!(node.completed.len(), 6, "another handler is asked");
    node.wait(SECOND);
    node.ask(7, once());
    node.ask(8, once());
    assert_eq!(node.completed.len(), 7, "one probe goes out, and no more");
    node.hear(1, wire::response(node.last_id(), b""));
    node.ask(9, once());
    assert_eq!(node.requests().len(), 8);
}

#[test]
fn a_probe_that_could_not_be_sent_does_not_close_the_handler_for_good() {
    let mut node = Node::new(1);
    for token in 0..5 {
        node.ask(token, ask(Target::Peer(peer(1)), Terms::within(SECOND)));
        node.wait(SECOND);
    }
    node.wait(SECOND);
    for (token, sent) in (10..13).zip(6..) {
        node.ask(token, once());
        assert_eq!(node.requests().len(), sent);
        let id = node.last_id();
        node.feed(In::SendFailed { session: session(1), tag: id });
    }
}

#[test]
fn any_member_is_a_member_and_any_other_is_not() {
    let mut node = Node::new(10);
    node.feed(In::Members([(peer(3), 1), (peer(11), 1)].into()));
    for token in 0..20 {
        node.ask(token, ask(Target::Any(Pool::Members), Terms::within(SECOND)));
        node.ask(100 + token, ask(Target::Any(Pool::Others), Terms::within(SECOND)));
        node.ask(200 + token, ask(Target::Any(Pool::Of(vec![peer(5), peer(12)])), Terms::within(SECOND)));
    }
    for asked in node.requests().chunks(3) {
        assert!(asked[0].0 == session(3) && asked[1].0 != session(3) && asked[2].0 == session(5), "{asked:?}");
    }
    node.feed(In::Members([(peer(11), 1)].into()));
    node.ask(99, ask(Target::Any(Pool::Members), Terms::within(SECOND)));
    assert_eq!(node.completed, [(99, Err(RequestError::NoPeers))]);
}

#[test]
fn time_outs_become_as_short_as_the_peers_are_quick() {
    let mut node = Node::new(1);
    let terms = Terms { retry: RetryPolicy::once(), ..Terms::trying(60 * SECOND) };
    let deadline = |node: &mut Node, token| {
        node.ask(token, ask(Target::Peer(peer(1)), terms));
        let Some((_, Item::Request { deadline, .. })) = node.sent.last().cloned() else { panic!("sent") };
        deadline
    };
    assert!(deadline(&mut node, 0) > 5 * SECOND);
    for token in 1..100 {
        node.wait(Duration::from_millis(20));
        node.hear(1, wire::response(node.last_id(), b"quick"));
        node.wait(SECOND);
        deadline(&mut node, token);
    }
    assert!(deadline(&mut node, 100) < SECOND);
    assert!(node.driver.machine().capacity(&peer(1), echo()) > 1);
}

#[test]
fn a_message_goes_to_whom_the_sample_says_encoded_once() {
    let mut node = Node::new(5);
    let to = Sample { any: 2, ..Sample::named([peer(1), peer(9)]) };
    node.feed(In::Send { token: 1, to, handler: echo(), payload: "news".into() });
    let [Out::Sent { token: 1, result: Ok(sampled) }] = &node.others[..] else { panic!("{:?}", node.others) };
    assert_eq!((sampled.peers.len(), &sampled.missing[..]), (3, &[peer(9)][..]));
    assert_eq!(node.sent.len(), 3);
    assert_eq!(node.tags.len(), 1, "one push");
}

#[test]
fn a_stale_set_of_members_is_asked_for() {
    let mut node = Node::new(1);
    node.feed(In::Members([(peer(1), 1)].into()));
    node.wait(60 * SECOND);
    node.ask(1, once());
    node.ask(2, once());
    assert_eq!(node.others, [Out::MembersWanted]);
}

#[test]
fn where_any_peer_would_do_and_all_are_full_the_node_is_busy_and_no_circuit_is_open() {
    let mut config = Config::recommended();
    config.asked.per_peer = 1;
    let mut node = Node::with(config);
    (1..=2).for_each(|n| node.up(n));
    for token in 1..=2 {
        node.ask(token, ask(Target::Any(Pool::Everyone), Terms::within(10 * SECOND)));
    }
    assert_eq!((node.requests().len(), node.completed.len()), (2, 0));
    node.ask(3, ask(Target::Any(Pool::Everyone), Terms::within(10 * SECOND)));
    assert_eq!(node.completed, [(3, Err(RequestError::Busy))]);
    assert_eq!((node.counted(Count::Busy), node.counted(Count::CircuitOpen)), (1, 0));
}

/// A node whose peers are throttled: each had so many requests at once, and refused them all.
fn throttled(peers: u8, asked: u64) -> Node {
    let mut node = Node::new(peers);
    for n in 1..=peers {
        (0..asked).for_each(|token| node.ask(token, ask(Target::Peer(peer(n)), Terms::within(10 * SECOND))));
        let asked = node.requests();
        node.sent.clear();
        for (_, id) in asked {
            node.hear(n, wire::error(id, ErrorCode::Throttled, ""));
        }
    }
    (node.sent, node.completed, node.counts) = Default::default();
    node
}

#[test]
fn a_throttled_peer_is_asked_at_half_the_pace_and_what_has_no_place_in_its_time_is_refused() {
    let mut node = throttled(1, 20);
    (0..20).for_each(|token| node.ask(token, ask(Target::Peer(peer(1)), Terms::within(SECOND))));
    // One may go now, four more in the half of their second that is not for the answer.
    assert_eq!((node.requests().len(), node.counted(Count::Paced)), (1, 19));
    assert_eq!(node.completed.len(), 15, "all others know at once: {:?}", node.completed);
    assert!(node.completed.iter().all(|(_, result)| *result == Err(RequestError::Busy)));
    node.wait(SECOND / 4);
    assert_eq!(node.requests().len(), 3);
    node.wait(SECOND / 4);
    assert_eq!(node.requests().len(), 5);
}

#[test]
fn a_place_that_was_waited_for_is_used_and_no_other_is_taken() {
    let mut node = throttled(2, 20);
    (0..20).for_each(|token| node.ask(token, anyone()));
    let at_once = node.requests().len();
    assert_eq!(node.counted(Count::Paced), 20 - at_once);
    // No attempt has timed out yet.
    node.wait(SECOND * 19 / 10);
    assert_eq!(node.requests().len(), 20, "each had its place");
    assert_eq!(node.counted(Count::Paced), 20 - at_once, "and waited once");
}
