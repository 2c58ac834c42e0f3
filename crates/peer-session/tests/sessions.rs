//! Two sessions joined by an in-memory link: what they carry, what a listener on the wire sees, and how
//! they end when somebody tampers with it.

#[path = "support/ends.rs"]
mod ends;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ends::{UNIX, keys, presented, stream};
use peerage_peer_session::handshake::HandshakeError;
use peerage_peer_session::peerage_mailbox::{Capacity, Clock, Inlet, Meter, Port, Supervisor, data_queue};
use peerage_peer_session::peerage_queue::throttle::{ThrottleLimits, Throttles};
use peerage_peer_session::peerage_queue::{
    ChannelId, Door, Inbound, InboundPool, LanesConfig, Message, Pool, PoolConfig, SessionId, lanes,
};
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{CHANNEL_WINDOW, Lane};
use peerage_peer_session::{Args, Buffers, Config, Ended, EndedBy, Established, Handshaker, SessionMailbox, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// A wire between two ends that records what crosses it and may change it.
type Tap = Arc<Mutex<dyn FnMut(usize, &mut Vec<u8>) + Send>>;

/// Joins two streams; `tap` sees every piece, with which direction it takes (0: from the dialler).
fn wire(tap: Tap) -> (Stream, Stream) {
    let (dialler, near) = duplex(1 << 20);
    let (acceptor, far) = duplex(1 << 20);
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    for (direction, mut from, mut to) in [(0, near_read, far_write), (1, far_read, near_write)] {
        let tap = tap.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(len @ 1..) = from.read(&mut buffer).await {
                let mut piece = buffer[..len].to_vec();
                (tap.lock().expect("no panic"))(direction, &mut piece);
                if to.write_all(&piece).await.is_err() {
                    break;
                }
            }
            let _ = to.shutdown().await;
        });
    }
    (stream(dialler), stream(acceptor))
}

async fn handshake(
    (dialler, acceptor): (Stream, Stream),
    refuse: Option<DisconnectReason>,
) -> (Result<Established, HandshakeError>, Result<Established, HandshakeError>) {
    let clock = Clock::simulated(UNIX);
    let (alice, bob) = (presented(1), presented(2));
    let dialling = Handshaker::new(Config::recommended(), keys(1), clock);
    let accepting = Handshaker::new(Config::recommended(), keys(2), clock);
    tokio::join!(
        dialling.dial(dialler, &alice, keys(2).id(), |_| async { Ok(()) }),
        accepting.accept(acceptor, &bob, |_| async move { refuse.map_or(Ok(()), Err) }),
    )
}

struct Peer {
    session: SessionMailbox,
    door: Door,
    inbound: InboundPool,
    inlets: Vec<Inlet<Inbound>>,
    ended: tokio::sync::mpsc::UnboundedReceiver<Ended>,
}

impl Peer {
    async fn start(established: Established, room: usize) -> Peer {
        let pool = Pool::new(64 << 20);
        let (door, lanes) = lanes(LanesConfig { items: 100_000, bytes: 64 << 20 }, &pool, 0);
        let inbound = InboundPool::new(1 << 20, PoolConfig::inbound());
        let share = inbound.admit(CHANNEL_WINDOW * established.remote.channels.len(), 0).expect("room");
        let (ended_to, ended) = tokio::sync::mpsc::unbounded_channel();
        let (outlets, inlets): (Vec<_>, Vec<_>) =
            (0..2).map(|_| data_queue(Capacity { items: room, weight: 64 << 20 })).unzip();
        let clock = Clock::simulated(UNIX);
        let args = Args {
            session: SessionId(1),
            config: Config::recommended(),
            established,
            lanes,
            inbound: share,
            throttle: Throttles::new(clock, ThrottleLimits::recommended()).peer(clock.now(), 0),
            accept: Default::default(),
            buffers: Buffers::new(),
            routes: (1..).map(ChannelId).zip(outlets).collect::<BTreeMap<_, _>>(),
            traffic: None,
            ended: Port::from_fn(move |ended| {
                let _ = ended_to.send(ended);
            }),
            clock,
            meter: Meter::none(),
        };
        let (session, _) = spawn(args, &Supervisor::none()).await.expect("starts");
        Peer { session, door, inbound, inlets, ended }
    }

    fn say(&self, channel: u16, lane: Lane, bytes: impl Into<Bytes>) {
        self.door.offer(Message::new(ChannelId(channel), lane, bytes.into())).expect("room in the lane");
    }

    async fn hear(&mut self, channel: u16) -> Bytes {
        let heard = tokio::time::timeout(Duration::from_secs(60), self.inlets[usize::from(channel) - 1].recv());
        heard.await.expect("in time").expect("not lost").delivery.payload
    }

    async fn end(&mut self) -> Ended {
        tokio::time::timeout(Duration::from_secs(120), self.ended.recv()).await.expect("in time").expect("told")
    }
}

async fn joined(tap: Tap) -> (Peer, Peer) {
    let (dialled, accepted) = handshake(wire(tap), None).await;
    (Peer::start(dialled.expect("dialled"), 1000).await, Peer::start(accepted.expect("accepted"), 1000).await)
}

fn untouched() -> Tap {
    Arc::new(Mutex::new(|_: usize, _: &mut Vec<u8>| {}))
}

#[tokio::test(start_paused = true)]
async fn messages_cross_on_their_channels_whole_and_in_order() {
    let (mut alice, mut bob) = joined(untouched()).await;
    let large: Bytes = (0..5_000_000u32).map(|n| n as u8).collect::<Vec<_>>().into();
    alice.say(1, Lane::Normal, large.clone());
    alice.say(2, Lane::High, "vote");
    for n in 0..500u32 {
        bob.say(1, Lane::Normal, n.to_be_bytes().to_vec());
    }
    assert_eq!(bob.hear(2).await, "vote");
    assert_eq!(bob.hear(1).await, large);
    for n in 0..500u32 {
        assert_eq!(alice.hear(1).await, n.to_be_bytes().to_vec());
    }
    let quiet = 2 * CHANNEL_WINDOW;
    for pool in [&alice.inbound, &bob.inbound] {
        assert!(pool.used().0 == quiet && pool.waiting() == 0, "{pool:?}");
    }
    assert!(alice.session.stats().bytes_out > 5_000_000);
    alice.session.disconnect(DisconnectReason::Quitting);
    assert_eq!(alice.end().await, Ended { reason: DisconnectReason::Quitting, by: EndedBy::Us });
    assert_eq!(bob.end().await, Ended { reason: DisconnectReason::Quitting, by: EndedBy::Peer });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((alice.inbound.used(), bob.inbound.used()), ((0, 0), (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_hears_why() {
    let (dialled, accepted) = handshake(wire(untouched()), Some(DisconnectReason::TooManyPeers)).await;
    assert_eq!(dialled.map(drop), Err(HandshakeError::RefusedByPeer(DisconnectReason::TooManyPeers)));
    assert_eq!(accepted.map(drop), Err(HandshakeError::Refused(DisconnectReason::TooManyPeers)));
}

#[tokio::test(start_paused = true)]
async fn a_recording_of_the_wire_shows_nothing_of_the_plain_text() {
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let recorder = recorded.clone();
    let tap: Tap = Arc::new(Mutex::new(move |_: usize, piece: &mut Vec<u8>| {
        recorder.lock().expect("no panic").extend_from_slice(piece);
    }));
    let (alice, mut bob) = joined(tap).await;
    let secret = b"the plain text that nobody else may read";
    alice.say(1, Lane::Normal, secret.to_vec());
    assert_eq!(bob.hear(1).await[..], secret[..]);
    let recorded = recorded.lock().expect("no panic");
    assert!(recorded.len() > 600, "handshake and records were recorded");
    for window in secret.windows(8) {
        assert!(!recorded.windows(8).any(|seen| seen == window));
    }
    let dialler_key = keys(1);
    assert!(!recorded.windows(32).any(|seen| seen == dialler_key.id().as_bytes()), "nor who dials");
}

#[tokio::test(start_paused = true)]
async fn flipping_any_byte_ends_the_session_with_a_typed_reason() {
    // How many bytes each direction takes for the same conversation, untouched.
    let lengths = Arc::new(Mutex::new([0usize; 2]));
    let counter = lengths.clone();
    let counting: Tap = Arc::new(Mutex::new(move |direction: usize, piece: &mut Vec<u8>| {
        counter.lock().expect("no panic")[direction] += piece.len();
    }));
    {
        let (mut alice, mut bob) = joined(counting).await;
        alice.say(1, Lane::Normal, "hello");
        assert_eq!(bob.hear(1).await, "hello");
        bob.say(1, Lane::Normal, "hello yourself");
        assert_eq!(alice.hear(1).await, "hello yourself");
    }
    let lengths = *lengths.lock().expect("no panic");
    assert!(lengths.iter().all(|len| *len > 300), "{lengths:?}");
    for (direction, length) in lengths.into_iter().enumerate() {
        for target in 0..length {
            let mut position = [0; 2];
            let tap: Tap = Arc::new(Mutex::new(move |flowing: usize, piece: &mut Vec<u8>| {
                if let Some(byte) = (flowing == direction).then(|| target.checked_sub(position[flowing])).flatten()
                    && let Some(byte) = piece.get_mut(byte)
                {
                    *byte ^= 0x40;
                }
                position[flowing] += piece.len();
            }));
            let (dialled, accepted) = handshake(wire(tap), None).await;
            let errors: Vec<HandshakeError> =
                [&dialled, &accepted].into_iter().filter_map(|end| end.as_ref().err().cloned()).collect();
            if let (Ok(dialled), Ok(accepted)) = (dialled, accepted) {
                let (mut alice, mut bob) = (Peer::start(dialled, 10).await, Peer::start(accepted, 10).await);
                alice.say(1, Lane::Normal, "hello");
                bob.say(1, Lane::Normal, "hello yourself");
                let ends = [alice.end().await, bob.end().await];
                // Whoever noticed says so; a changed length leaves its reader waiting until it is idle.
                assert!(
                    ends.iter()
                        .any(|end| matches!(end.reason, DisconnectReason::ProtocolError | DisconnectReason::Idle)),
                    "byte {target} of direction {direction}: {ends:?}"
                );
            } else {
                assert!(!errors.is_empty(), "byte {target} of direction {direction}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_second_does_not_outlast_the_deadline() {
    let (mut slow, acceptor) = duplex(1024);
    let accepting = Handshaker::new(Config::recommended(), keys(2), Clock::simulated(UNIX));
    let start = tokio::time::Instant::now();
    tokio::spawn(async move {
        for byte in *b"PRG\x01 and then some more bytes, slowly" {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if slow.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let accepted = accepting.accept(stream(acceptor), &presented(2), |_| async { Ok(()) }).await;
    assert_eq!(accepted.map(drop), Err(HandshakeError::TimedOut));
    assert!(start.elapsed() < Duration::from_secs(2), "the first message has a second");
}

#[tokio::test(start_paused = true)]
async fn a_protocol_without_room_holds_up_its_own_peer_and_loses_nothing() {
    let (dialled, accepted) = handshake(wire(untouched()), None).await;
    let (mut alice, mut bob) =
        (Peer::start(dialled.expect("dialled"), 1000).await, Peer::start(accepted.expect("accepted"), 4).await);
    for minute in 0..5u8 {
        for n in 0..=255u8 {
            alice.say(1, Lane::Normal, vec![minute, n]);
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        for lane in [Lane::High, Lane::Normal, Lane::Bulk] {
            alice.say(2, lane, vec![minute]);
            assert_eq!(bob.hear(2).await, vec![minute], "the other channel goes on");
        }
    }
    assert!(alice.ended.try_recv().is_err() && bob.ended.try_recv().is_err(), "both sessions stay");
    for minute in 0..5u8 {
        for n in 0..=255u8 {
            assert_eq!(bob.hear(1).await, vec![minute, n]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_offered_while_the_socket_is_full_goes_out_as_soon_as_it_is_not() {
    let (dialler, acceptor) = duplex(1024);
    let (dialled, accepted) = handshake((stream(dialler), stream(acceptor)), None).await;
    let alice = Peer::start(dialled.expect("dialled"), 10).await;
    let pause = || tokio::time::sleep(Duration::from_millis(10));
    // Sealed as a whole, with nothing behind it.
    alice.say(1, Lane::Normal, vec![1; 5000]);
    pause().await;
    alice.say(1, Lane::Normal, vec![2]);
    pause().await;
    let mut bob = Peer::start(accepted.expect("accepted"), 10).await;
    // Kept, so that no credit goes back, which would wake the sender.
    let mut heard = Vec::new();
    for _ in 0..2 {
        let next = tokio::time::timeout(Duration::from_millis(500), bob.inlets[0].recv()).await;
        heard.push(next.expect("before any ping").expect("not lost"));
    }
    assert_eq!([heard[0].delivery.payload.len(), heard[1].delivery.payload.len()], [5000, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_given_up_and_what_waits_for_it_is_given_back() {
    let (dialler, acceptor) = duplex(8 * 1024);
    let (dialled, accepted) = handshake((stream(dialler), stream(acceptor)), None).await;
    let mut alice = Peer::start(dialled.expect("dialled"), 10).await;
    let _never_read = accepted.expect("accepted");
    alice.say(1, Lane::Normal, vec![0; 1 << 20]);
    assert_eq!(alice.end().await.reason, DisconnectReason::Stalled);
    assert!(alice.door.offer(Message::new(ChannelId(1), Lane::Normal, Bytes::new())).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_a_byte_now_and_then_is_stalled_too() {
    let (dialler, mut acceptor) = duplex(8 * 1024);
    let (ours, theirs) = duplex(64 * 1024);
    let (mut far_read, mut far_write) = tokio::io::split(theirs);
    tokio::spawn(async move {
        // Lets the handshake pass, and then a byte a second of what the dialler sends.
        let mut buffer = vec![0; 64 * 1024];
        let mut passed = 0;
        let mut back = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                got = acceptor.read(&mut buffer[..if passed < 500 { 64 * 1024 } else { 1 }]) => {
                    let Ok(len @ 1..) = got else { return };
                    passed += len;
                    if far_write.write_all(&buffer[..len]).await.is_err() { return; }
                    if passed >= 500 { tokio::time::sleep(Duration::from_secs(1)).await; }
                }
                got = far_read.read(&mut back) => {
                    let Ok(len @ 1..) = got else { return };
                    if acceptor.write_all(&back[..len]).await.is_err() { return; }
                }
            }
        }
    });
    let (dialled, accepted) = handshake((stream(dialler), stream(ours)), None).await;
    let mut alice = Peer::start(dialled.expect("dialled"), 10).await;
    let _bob = Peer::start(accepted.expect("accepted"), 10).await;
    alice.say(1, Lane::Bulk, vec![0; 16 << 20]);
    assert_eq!(alice.end().await.reason, DisconnectReason::Stalled);
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_before_a_friendly_end_arrives() {
    let (alice, mut bob) = joined(untouched()).await;
    alice.say(1, Lane::Normal, vec![7; 3_000_000]);
    alice.session.disconnect(DisconnectReason::Quitting);
    assert_eq!(bob.hear(1).await.len(), 3_000_000);
    assert_eq!(bob.end().await, Ended { reason: DisconnectReason::Quitting, by: EndedBy::Peer });
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_friendly_end_is_delivered_although_there_was_no_room_yet() {
    let (dialled, accepted) = handshake(wire(untouched()), None).await;
    let (alice, mut bob) =
        (Peer::start(dialled.expect("dialled"), 1000).await, Peer::start(accepted.expect("accepted"), 4).await);
    for n in 0..20u8 {
        alice.say(1, Lane::Normal, vec![n]);
    }
    alice.session.disconnect(DisconnectReason::Quitting);
    tokio::time::sleep(Duration::from_millis(700)).await;
    for n in 0..20u8 {
        assert_eq!(bob.hear(1).await, vec![n]);
    }
    assert_eq!(bob.end().await.reason, DisconnectReason::Quitting);
}

#[tokio::test(start_paused = true)]
async fn messages_that_outlive_their_session_keep_their_part_of_the_pool() {
    let (alice, mut bob) = joined(untouched()).await;
    alice.say(1, Lane::Normal, vec![7; 3_000_000]);
    let inbound =
        tokio::time::timeout(Duration::from_secs(9), bob.inlets[0].recv()).await.expect("in time").expect("heard");
    alice.session.disconnect(DisconnectReason::Useless);
    bob.end().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (windows, beyond) = bob.inbound.used();
    assert!(windows + beyond >= 3_000_000, "{:?}", bob.inbound);
    drop(inbound);
    assert_eq!(bob.inbound.used(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_burst_a_quiet_session_holds_its_first_windows_only() {
    let (dialler, acceptor) = duplex(64 * 1024);
    let (dialled, accepted) = handshake((stream(dialler), stream(acceptor)), None).await;
    let alice = Peer::start(dialled.expect("dialled"), 1000).await;
    let mut bob = Peer::start(accepted.expect("accepted"), 1000).await;
    for len in (0..40).map(|n| 900_000 - n * 20_000).chain([1000, 1, 0]) {
        alice.say(1, Lane::Bulk, vec![1; len]);
        assert_eq!(bob.hear(1).await.len(), len);
    }
    assert!(bob.inbound.used().1 > 0, "the window grew for them");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bob.inbound.used(), (2 * CHANNEL_WINDOW, 0));
    alice.say(1, Lane::Bulk, vec![1; 900_000]);
    assert_eq!(bob.hear(1).await.len(), 900_000, "and goes on from there");
}
