//! Who watches a node at work sees each message once, on both ends, with its whole size; and what a panic there does.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use peerage_peer_session::peerage_mailbox::Port;
use peerage_peer_session::peerage_queue::{ChannelId, SessionId};
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::{DisconnectReason, Keypair};
use peerage_peer_session::{Ended, EndedBy, Endpoint, EndpointConfig, Peer, Traffic, TrafficDirection, TrafficKind};
use tokio::io::duplex;

type Seen = Arc<Mutex<Vec<Traffic>>>;

fn endpoint(n: u8, traffic: Option<Port<Traffic>>) -> (Endpoint, Keypair) {
    let keys = Keypair::from_seed([n; 32]);
    let config = EndpointConfig { traffic, ..EndpointConfig::recommended() };
    (Endpoint::with(&keys, "test", &[("a", 1), ("b", 1)], config).expect("good names"), keys)
}

fn watched(n: u8) -> (Endpoint, Keypair, Seen) {
    let seen = Seen::default();
    let sees = seen.clone();
    let port = Port::from_fn(move |traffic| sees.lock().expect("no panic").push(traffic));
    let (endpoint, keys) = endpoint(n, Some(port));
    (endpoint, keys, seen)
}

async fn joined((dials, accepts): (&Endpoint, &Endpoint), accepting: &Keypair) -> (Peer, Peer) {
    let (left, right) = duplex(1 << 16);
    let somewhere = ([127, 0, 0, 1], 1).into();
    let (dialled, accepted) = tokio::join!(
        dials.dial(Stream::new(left, somewhere), accepting.id()),
        accepts.accept(Stream::new(right, somewhere)),
    );
    (dialled.expect("dialled"), accepted.expect("accepted"))
}

#[tokio::test]
async fn every_message_is_seen_once_on_each_end_with_its_whole_size() {
    let (alice, _, alice_sees) = watched(1);
    let (bob, bobs, bob_sees) = watched(2);
    let (here, mut there) = joined((&alice, &bob), &bobs).await;
    let mut expected = Vec::new();
    for (n, (channel, lane, size)) in [
        (1, Lane::Normal, 5),
        (2, Lane::High, 16 * 1024),
        (1, Lane::Bulk, 1 << 20),
        (1, Lane::Normal, 1),
        (2, Lane::Control, 0),
        (1, Lane::Normal, 100_000),
        (1, Lane::Bulk, 40_000),
    ]
    .into_iter()
    .enumerate()
    {
        here.send(ChannelId(channel), lane, vec![n as u8; size]).await.expect("room");
        let first = |at: usize| if at < size { n as u8 } else { 0 };
        expected.push((channel, lane, size as u64, TrafficKind::Message { head: [first(0), first(1)] }));
    }
    for _ in &expected {
        there.recv().await.expect("the session lives");
    }
    expected.sort_unstable();
    for (sees, way) in [(alice_sees, TrafficDirection::Sent), (bob_sees, TrafficDirection::Received)] {
        let seen = std::mem::take(&mut *sees.lock().expect("no panic"));
        let about = |seen: &Traffic| (seen.channel.0, seen.lane, seen.size, seen.kind);
        for one in &seen {
            assert_eq!((one.session, one.direction, one.stream), (SessionId(0), way, 0));
        }
        let mut seen: Vec<_> = seen.iter().map(about).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected, "{way:?}");
    }
}

#[tokio::test]
async fn a_stream_is_seen_when_it_is_opened_and_when_it_is_over_with_its_bytes_both_ways() {
    let (alice, _, alice_sees) = watched(1);
    let (bob, bobs, bob_sees) = watched(2);
    let (here, mut there) = joined((&alice, &bob), &bobs).await;
    let (mut writer, mut reader) = here.open_stream(ChannelId(2), Lane::Bulk).await.expect("opened");
    let accepted = there.accept_stream().await.expect("the session lives");
    let (mut back, mut asked) = (accepted.writer, accepted.reader);
    let reads = async {
        let mut read = 0;
        while read < 100_000 {
            read += asked.read().await.expect("open").expect("more").len();
        }
    };
    let (written, ()) = tokio::join!(writer.write(vec![1; 100_000]), reads);
    written.expect("open");
    back.write(vec![2; 70]).await.expect("open");
    writer.finish().expect("open");
    back.finish().expect("open");
    while reader.read().await.expect("open").is_some() {}
    while asked.read().await.expect("open").is_some() {}
    // One that nobody ends is over with its session.
    let _open = here.open_stream(ChannelId(1), Lane::Normal).await.expect("opened");
    let _opened = there.accept_stream().await.expect("the session lives");
    here.disconnect(DisconnectReason::Quitting);
    there.ended().await;
    for (sees, way, (sent, received)) in
        [(alice_sees, TrafficDirection::Sent, (100_000, 70)), (bob_sees, TrafficDirection::Received, (70, 100_000))]
    {
        let seen = std::mem::take(&mut *sees.lock().expect("no panic"));
        assert!(seen.iter().all(|one| one.direction == way));
        let of = |stream, channel| {
            let of = seen.iter().filter(move |one| (one.stream, one.channel) == (stream, ChannelId(channel)));
            of.map(|one| (one.kind, one.size)).collect::<Vec<_>>()
        };
        let opened = (TrafficKind::StreamOpened, 0);
        let ended = |sent, received| (TrafficKind::StreamEnded { sent, received }, sent + received);
        assert_eq!(of(1, 2), [opened, ended(sent, received)], "{way:?}");
        assert_eq!(of(3, 1)[0], opened, "{way:?}");
        if way == TrafficDirection::Received {
            assert_eq!(of(3, 1), [opened, ended(0, 0)], "this end is over for certain");
        }
    }
}

#[tokio::test]
async fn each_session_is_told_apart_and_an_end_that_nobody_watches_says_nothing() {
    let (alice, _, alice_sees) = watched(1);
    let (bob, bobs) = endpoint(2, None);
    for session in 0..3 {
        let (mut here, there) = joined((&alice, &bob), &bobs).await;
        there.send(ChannelId(2), Lane::High, Bytes::from_static(b"hello")).await.expect("room");
        here.recv().await.expect("the session lives");
        let traffic = Traffic {
            kind: TrafficKind::Message { head: *b"he" },
            session: SessionId(session),
            direction: TrafficDirection::Received,
            channel: ChannelId(2),
            stream: 0,
            lane: Lane::High,
            size: 5,
        };
        assert_eq!(std::mem::take(&mut *alice_sees.lock().expect("no panic")), [traffic]);
    }
}

/// Here it is the watcher that does not stand what the peer sent: whatever panics in the session's task ends so.
#[tokio::test]
async fn a_session_that_a_peers_message_makes_panic_ends_crashed_by_this_end_and_no_other_does() {
    let poison = Port::from_fn(|traffic: Traffic| assert_ne!(traffic.size, 13, "a poison message"));
    let (bob, bobs) = endpoint(2, Some(poison));
    let (alice, carol) = (endpoint(1, None).0, endpoint(3, None).0);
    let (hostile, mut victim) = joined((&alice, &bob), &bobs).await;
    let (honest, mut beside) = joined((&carol, &bob), &bobs).await;
    hostile.send(ChannelId(1), Lane::Normal, vec![0; 13]).await.expect("room");
    assert_eq!(victim.ended().await, Ended { reason: DisconnectReason::Crashed, by: EndedBy::Us });
    honest.send(ChannelId(1), Lane::Normal, vec![0; 12]).await.expect("room");
    assert_eq!(beside.recv().await.expect("it lives").delivery.payload.len(), 12);
}
