//! How fast a peer may be: who is held up, by what, and that nobody is taken for dead over it. In virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peerage_peer_session::peerage_mailbox::Clock;
use peerage_peer_session::peerage_queue::Inbound;
use peerage_peer_session::peerage_queue::throttle::{
    BandwidthLimits, CpuLimits, Stopwatch, ThrottleLimits, ThrottleReason, Throttles, TimeSource,
};
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::{DisconnectReason, Keypair};
use peerage_peer_session::{EndedBy, Endpoint, EndpointConfig, Peer};
use tokio::io::duplex;
use tokio::time::{Instant, sleep, timeout};

const KIB: u64 = 1 << 10;

fn endpoint(n: u8, throttle: ThrottleLimits) -> (Endpoint, Keypair, Clock) {
    let keys = Keypair::from_seed([n; 32]);
    let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
    let config = EndpointConfig { throttle, clock, ..EndpointConfig::recommended() };
    (Endpoint::with(&keys, "test", &[("a", 1), ("b", 1)], config).expect("good names"), keys, clock)
}

async fn joined(dials: &Endpoint, accepts: &Endpoint, accepting: &Keypair) -> (Peer, Peer) {
    let (left, right) = duplex(256 << 10);
    let somewhere = ([127, 0, 0, 1], 1).into();
    let (dialled, accepted) = tokio::join!(
        dials.dial(Stream::new(left, somewhere), accepting.id()),
        accepts.accept(Stream::new(right, somewhere)),
    );
    (dialled.expect("dialled"), accepted.expect("accepted"))
}

fn download(peer: u64) -> ThrottleLimits {
    let download = BandwidthLimits { peer: Some(peer), ..BandwidthLimits::unlimited() };
    ThrottleLimits { download, ..ThrottleLimits::recommended() }
}

fn waits(throttles: &Throttles, clock: Clock, reason: ThrottleReason) -> u64 {
    throttles.stats(clock.now()).waits[reason as usize]
}

#[tokio::test(start_paused = true)]
async fn a_peer_over_its_bandwidth_is_read_at_its_rate_for_minutes_and_is_not_taken_for_dead() {
    let (near, _, _) = endpoint(1, ThrottleLimits::recommended());
    let (far, fars, clock) = endpoint(2, download(256 * KIB));
    let (here, mut there) = joined(&near, &far, &fars).await;
    let channel = here.channel("a").expect("both speak it");
    let began = Instant::now();
    // Many, and a large one: each longer on its way than a session may be idle, or a message may stand still.
    let sending = tokio::spawn(async move {
        for _ in 0..160 {
            here.send(channel, Lane::Normal, vec![7; 64 << 10]).await.expect("room");
        }
        here.send(channel, Lane::Bulk, vec![8; 12 << 20]).await.expect("room");
        here
    });
    let mut bytes = 0;
    for _ in 0..161 {
        bytes += there.recv().await.expect("the session lives").delivery.payload.len() as u64;
        let most = 256 * KIB * began.elapsed().as_secs().max(1) + 512 * KIB;
        assert!(there.stats().bytes_in <= most, "{} of {most}", there.stats().bytes_in);
    }
    assert_eq!(bytes, (10 << 20) + (12 << 20));
    let took = began.elapsed();
    assert!(took > Duration::from_secs(80), "{took:?}");
    assert!(took < Duration::from_secs(120), "nothing of its rate is wasted: {took:?}");
    assert!(waits(far.throttles(), clock, ThrottleReason::Download) > 0);
    let here = sending.await.expect("no panic");
    // The last of it is behind, and the peer's word comes in time.
    here.disconnect(DisconnectReason::Requested);
    let ended = timeout(Duration::from_secs(5), there.ended()).await.expect("in time");
    assert_eq!((ended.reason, ended.by), (DisconnectReason::Requested, EndedBy::Peer));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_writes_is_shared_by_its_peers_and_never_more_than_its_rate() {
    let upload = BandwidthLimits { node: Some(512 * KIB), ..BandwidthLimits::unlimited() };
    let (near, _, _) = endpoint(1, ThrottleLimits { upload, ..ThrottleLimits::recommended() });
    let mut theirs = Vec::new();
    for n in 2..6 {
        let (far, fars, _) = endpoint(n, ThrottleLimits::recommended());
        let (here, mut there) = joined(&near, &far, &fars).await;
        tokio::spawn(async move {
            let channel = here.channel("a").expect("both speak it");
            while here.send(channel, Lane::Normal, vec![7; 32 << 10]).await.is_ok() {}
        });
        theirs.push(tokio::spawn(async move {
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(60) {
                there.recv().await.expect("the session lives");
            }
            there.stats().bytes_in
        }));
    }
    let mut got = Vec::new();
    for their in theirs {
        got.push(their.await.expect("no panic"));
    }
    let all: u64 = got.iter().sum();
    assert!(all <= 61 * 512 * KIB, "{all}");
    assert!(all >= 55 * 512 * KIB, "and nearly all of it: {all}");
    let (least, most) = (got.iter().min().expect("four"), got.iter().max().expect("four"));
    assert!(most - least <= all / 16, "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn so_many_messages_are_in_processing_and_the_other_protocol_goes_on() {
    let limits = ThrottleLimits { messages: Some(8), ..ThrottleLimits::recommended() };
    let (near, _, _) = endpoint(1, ThrottleLimits::recommended());
    let (far, fars, clock) = endpoint(2, limits);
    let (here, mut there) = joined(&near, &far, &fars).await;
    let (a, b) = (here.channel("a").expect("spoken"), here.channel("b").expect("spoken"));
    for n in 0..100u8 {
        here.send(a, Lane::Normal, vec![n]).await.expect("room");
    }
    let mut held = Vec::new();
    while let Ok(message) = timeout(Duration::from_secs(1), there.recv()).await {
        held.push(message.expect("lives"));
    }
    assert_eq!(held.len(), 8);
    assert_eq!(waits(far.throttles(), clock, ThrottleReason::Processing), 1);
    here.send(b, Lane::Normal, "other").await.expect("room");
    let other = timeout(Duration::from_secs(1), there.recv()).await.expect("in time").expect("lives");
    assert_eq!(other.delivery.channel, b);
    // Longer than it may be idle: it is alive.
    sleep(Duration::from_secs(90)).await;
    held.clear();
    for n in 8..100u8 {
        let message = timeout(Duration::from_secs(1), there.recv()).await.expect("in time").expect("lives");
        assert_eq!(message.delivery.payload[..], [n], "in order, and none lost");
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_messages_take_the_handlers_time_waits_while_others_are_heard_and_its_goodbye_is_too() {
    let (near, _, _) = endpoint(1, ThrottleLimits::recommended());
    let (far, fars, clock) = endpoint(2, ThrottleLimits::recommended());
    // In virtual time handlers take what the test says.
    let spent = Arc::new(AtomicU64::new(0));
    let clock_of = spent.clone();
    let source = TimeSource::new(move || Duration::from_micros(clock_of.load(Ordering::Relaxed)));
    let cpu = Some(CpuLimits::recommended());
    let limits = ThrottleLimits { cpu, ..ThrottleLimits::recommended() };
    let far = far.throttled(Throttles::timed(clock.now(), limits, source));
    let (greedy, mut from_greedy) = joined(&near, &far, &fars).await;
    let (modest, mut from_modest) = joined(&near, &far, &fars).await;
    let channel = greedy.channel("a").expect("spoken");
    let handle = |message: &Inbound, micros: u64| {
        let mut handling = Stopwatch::new();
        handling.of(&message.permit);
        spent.fetch_add(micros, Ordering::Relaxed);
    };
    let (mut of_greedy, mut late) = (0, Duration::ZERO);
    for _ in 0..600 {
        // Ten times a second: one asks for 150 ms of work, the other for one.
        greedy.try_send(channel, Lane::Normal, vec![0; 100]).ok();
        modest.send(channel, Lane::Normal, vec![1; 100]).await.expect("room");
        let sent = Instant::now();
        let message = timeout(Duration::from_secs(1), from_modest.recv()).await.expect("in time").expect("lives");
        late = late.max(sent.elapsed());
        handle(&message, 1_000);
        drop(message);
        while let Ok(message) = timeout(Duration::from_millis(1), from_greedy.recv()).await {
            handle(&message.expect("lives"), 150_000);
            of_greedy += 1;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(late < Duration::from_millis(10), "{late:?}");
    assert!((100..500).contains(&of_greedy), "its share and no more: {of_greedy} of 600");
    assert!(waits(far.throttles(), clock, ThrottleReason::Cpu) > 0);
    for _ in 0..50 {
        greedy.try_send(channel, Lane::Normal, vec![0; 100]).ok();
    }
    greedy.disconnect(DisconnectReason::ProtocolError);
    let ended = timeout(Duration::from_secs(5), from_greedy.ended()).await.expect("heard although it waits");
    assert_eq!(ended.by, EndedBy::Peer);
}

#[tokio::test(start_paused = true)]
async fn limits_that_change_hold_for_sessions_that_are_there() {
    let (near, _, _) = endpoint(1, ThrottleLimits::recommended());
    let (far, fars, clock) = endpoint(2, ThrottleLimits::off());
    let (here, mut there) = joined(&near, &far, &fars).await;
    let channel = here.channel("a").expect("spoken");
    let mut took = Vec::new();
    for limits in [ThrottleLimits::off(), download(256 * KIB), ThrottleLimits::off()] {
        far.throttles().set_limits(clock.now(), limits);
        let began = Instant::now();
        for _ in 0..32 {
            here.send(channel, Lane::Normal, vec![7; 64 << 10]).await.expect("room");
        }
        for _ in 0..32 {
            there.recv().await.expect("the session lives");
        }
        took.push(began.elapsed());
    }
    assert!(took[0] < Duration::from_secs(1) && took[2] < Duration::from_secs(1), "{took:?}");
    assert!(took[1] > Duration::from_secs(5), "2 MiB at 256 KiB a second, less the burst: {took:?}");
}
