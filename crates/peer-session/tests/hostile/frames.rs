//! Frames that no correct peer sends, from one that has proved who it is.

use std::time::Duration;

use peerage_peer_session::peerage_queue::{ChannelId, Message, Refusal};
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{Header, Kind, Lane, MAX_STREAM};
use peerage_peer_session::{Ended, EndedBy};

use crate::BREACH;
use crate::support::{Frame, Node, begin, data, limit, own};

const MAX_MESSAGE: u32 = 16 << 20;

/// The frames' own session ends so, and no other.
async fn each_ends(cases: &[(&str, Vec<Frame>)], expected: Ended) {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    for (name, frames) in cases {
        let (mut session, mut hostile) = node.meet(9, 1 << 20).await;
        hostile.send(frames).await;
        let start = tokio::time::Instant::now();
        assert_eq!(session.end().await, expected, "{name}");
        assert!(start.elapsed() <= Duration::from_secs(1), "{name}: at once, but for the farewell");
        if expected.by == EndedBy::Us {
            assert_eq!(hostile.farewell().await, Some(expected.reason), "{name}: the peer is told");
        }
        let late = session.door.offer(Message::new(ChannelId(1), Lane::Normal, "late".into()));
        assert_eq!(late, Err(Refusal::SessionEnded), "{name}");
        beside.talk().await;
    }
    beside.part().await;
    assert_eq!((node.inbound.used(), node.outbound.used()), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn lengths_that_are_claimed_and_not_sent_are_refused_before_anything_is_kept() {
    let cases = [
        ("4 GiB", vec![begin(1, Lane::Bulk, u32::MAX, b"a")]),
        ("one byte too many", vec![begin(1, Lane::Bulk, MAX_MESSAGE + 1, b"a")]),
        ("nothing", vec![begin(1, Lane::Bulk, 0, b"a")]),
        ("all of it sent already", vec![begin(1, Lane::Bulk, 1, b"a")]),
        ("no total", vec![data(1, Lane::Bulk, true, b"abc".to_vec())]),
        ("half a total", {
            let (header, payload) = data(1, Lane::Bulk, true, vec![0; 3]);
            vec![(Header { total: true, ..header }, payload)]
        }),
    ];
    each_ends(&cases, BREACH).await;
}

#[tokio::test(start_paused = true)]
async fn fragments_without_end_or_out_of_their_message_end_the_session() {
    let first = || begin(1, Lane::Normal, 10_000, &[0; 5000]);
    let cases = [
        ("beyond the total", vec![first(), data(1, Lane::Normal, true, vec![0; 5001])]),
        ("the total, and still more to come", vec![first(), data(1, Lane::Normal, true, vec![0; 5000])]),
        ("too early an end", vec![first(), data(1, Lane::Normal, false, vec![0; 4999])]),
        ("an empty middle", vec![first(), data(1, Lane::Normal, true, vec![])]),
        ("an empty end", vec![first(), data(1, Lane::Normal, false, vec![])]),
        ("a second beginning", vec![first(), first()]),
        (
            "endless, a byte each",
            std::iter::once(first()).chain((0..5000).map(|_| data(1, Lane::Normal, true, [0]))).collect(),
        ),
    ];
    each_ends(&cases, BREACH).await;
}

#[tokio::test(start_paused = true)]
async fn channels_and_streams_that_nobody_opened_end_the_session() {
    let on = |channel, stream| vec![(Header { stream, ..data(channel, Lane::Normal, false, [1]).0 }, vec![1])];
    let mut cases =
        vec![("the session's own channel", on(0, 0)), ("a stream", on(1, 1)), ("the last stream", on(1, MAX_STREAM))];
    for channel in [3, 4, 255, u16::MAX] {
        cases.push(("a channel", on(channel, 0)));
    }
    each_ends(&cases, BREACH).await;
}

#[tokio::test(start_paused = true)]
async fn frames_of_the_sessions_own_with_malformed_payloads_end_it() {
    let mut cases = vec![
        ("a second acceptance", vec![own(Kind::Accepted, [])]),
        ("an answer to no request", vec![limit(Kind::Reclaimed, 1, Lane::Normal, 100_000)]),
    ];
    for len in (0..=20).filter(|len| *len != 8) {
        for kind in [Kind::Ping, Kind::Pong, Kind::Credit, Kind::Reclaim, Kind::Reclaimed] {
            let header =
                Header::new(kind, Lane::Normal, if matches!(kind, Kind::Ping | Kind::Pong) { 0 } else { 1 }, len);
            cases.push(("a payload of another length", vec![(header, vec![0; usize::from(len)])]));
        }
    }
    for kind in [Kind::Credit, Kind::Reclaim, Kind::Reclaimed] {
        for channel in [0, 3, u16::MAX] {
            cases.push(("credit of no flow", vec![limit(kind, channel, Lane::Normal, 1)]));
        }
        let (header, payload) = limit(kind, 1, Lane::Normal, 1);
        cases.push(("credit of a stream", vec![(Header { stream: 2, ..header }, payload)]));
    }
    each_ends(&cases, BREACH).await;
}

#[tokio::test(start_paused = true)]
async fn a_farewell_of_any_form_is_heard_and_not_answered() {
    for (payload, reason) in [
        (vec![], DisconnectReason::Requested),
        (vec![1], DisconnectReason::Requested),
        (vec![0, 3], DisconnectReason::Useless),
        (vec![0xff; 100], DisconnectReason::Unknown(0xffff)),
    ] {
        each_ends(&[("a farewell", vec![own(Kind::Disconnect, payload)])], Ended { reason, by: EndedBy::Peer }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_kinds_are_skipped_and_counted_and_the_session_goes_on() {
    let node = Node::new(1);
    let (mut session, mut hostile) = node.meet(9, 1 << 20).await;
    let mut sent = 0;
    for kind in 11..=255 {
        for (channel, stream, len) in [(0, 0, 0u16), (1, 0, 100), (u16::MAX, MAX_STREAM, 16_384)] {
            let header = Header {
                more: true,
                total: true,
                end: true,
                reserved: 0xe0,
                stream,
                ..Header::new(Kind::Unknown(kind), Lane::Bulk, channel, len)
            };
            assert!(hostile.send(&[(header, vec![kind; usize::from(len)])]).await);
            sent += 1;
        }
    }
    assert!(hostile.send(&[data(2, Lane::Normal, false, *b"known")]).await);
    assert_eq!(session.hear(2).await.delivery.payload, &b"known"[..]);
    assert_eq!(node.counts.get("peerage_session_skipped_frames_total"), sent);
    assert!(session.lives());
}

#[tokio::test(start_paused = true)]
async fn flags_of_a_later_version_change_nothing() {
    let node = Node::new(1);
    let (mut session, mut hostile) = node.meet(9, 1 << 20).await;
    let (header, payload) = data(1, Lane::Normal, false, *b"same");
    assert!(hostile.send(&[(Header { reserved: 0xe0, ..header }, payload)]).await);
    assert_eq!(session.hear(1).await.delivery.payload, &b"same"[..]);
}

#[tokio::test(start_paused = true)]
async fn of_a_flood_of_pings_few_are_answered_and_nobody_else_waits() {
    const PINGS: u64 = 100_000;
    let node = Node::new(1);
    let mut beside = node.beside().await;
    let (mut session, mut hostile) = node.meet(9, 64 << 10).await;
    let (mut sent, mut records) = (0, Vec::new());
    while sent < PINGS {
        // As many as a record holds.
        let pings: Vec<Frame> = (sent..sent + 4000).map(|n| own(Kind::Ping, n.to_be_bytes())).collect();
        records.push(hostile.seal(&pings));
        sent += 4000;
    }
    // It takes in what it is answered, or it would be stalled.
    let (mut read, mut write) = tokio::io::split(hostile.stream);
    let taken = tokio::spawn(async move {
        let mut taken = 0;
        let mut buffer = vec![0; 4096];
        while let Ok(len @ 1..) = tokio::io::AsyncReadExt::read(&mut read, &mut buffer).await {
            taken += len;
        }
        taken
    });
    for record in records {
        tokio::io::AsyncWriteExt::write_all(&mut write, &record).await.expect("read");
        beside.talk().await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(session.lives(), "it is a nuisance, not a breach");
    let unanswered = node.counts.get("peerage_session_unanswered_pings_total");
    assert!(unanswered > PINGS * 9 / 10, "{unanswered}");
    session.mailbox.disconnect(DisconnectReason::Useless);
    assert_eq!(session.end().await.reason, DisconnectReason::Useless);
    drop(write);
    let taken = taken.await.expect("no panic");
    assert!(taken as u64 <= (PINGS - unanswered) * 40 + 2000, "{taken} bytes of answers");
    beside.part().await;
}

/// What a session says first, and what it answers, byte for byte inside its records.
#[tokio::test(start_paused = true)]
async fn the_frames_of_a_session_are_these_bytes() {
    let node = Node::new(1);
    let (session, mut hostile) = node.meet(9, 1 << 20).await;
    let mut heard = Vec::new();
    let asked = [
        own(Kind::Ping, *b"pingpong"),
        limit(Kind::Credit, 1, Lane::High, 1000),
        limit(Kind::Reclaim, 1, Lane::High, 500),
    ];
    assert!(hostile.send(&asked).await);
    session.say(1, Lane::High, "vote");
    tokio::time::sleep(Duration::from_millis(1)).await;
    session.mailbox.disconnect(DisconnectReason::Quitting);
    while let Some(frame) = hostile.hear().await {
        heard.push(frame);
    }
    let mut lines: Vec<String> = heard
        .iter()
        .map(|(header, payload)| {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            bytes.extend_from_slice(payload);
            data_encoding::HEXLOWER.encode(&bytes)
        })
        .collect();
    // Own frames of one turn have no order among themselves that a peer may rely on.
    lines.sort();
    assert_eq!(lines, FRAMES);
}

/// A message, the answer to a ping, the farewell, and what was left when asked for less. A session that nobody uses says
/// nothing.
const FRAMES: [&str; 4] = [
    "00010001000004766f7465",
    "0200000000000870696e67706f6e67",
    "030000000000020008",
    "0701000100000800000000000001f4",
];
