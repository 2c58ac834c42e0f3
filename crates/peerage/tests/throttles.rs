//! How fast a node's peers may be, through the public door: in memory and in virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage::server::gossip::Work;
use peerage::server::router::resilience::PacingConfig;
use peerage::server::router::{Handler, HandlerConfig, Rate};
use peerage::server::transport::{Link, MemoryNetwork};
use peerage::{
    BandwidthLimits, Builder, Clock, ErrorCode, Keypair, Limits, Node, PeerAddress, RequestError, ThrottleLimits,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const PORT: u16 = 30303;
const MIB: u64 = 1 << 20;
/// What a request takes the hub.
const WORK: Duration = Duration::from_millis(20);

struct World {
    network: MemoryNetwork,
    clock: Clock,
}

fn world() -> World {
    World {
        network: MemoryNetwork::new(1, Link::default()),
        clock: Clock::simulated(Duration::from_secs(1_800_000_000)),
    }
}

fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(20, 0, n, 1).into()
}

fn at(n: u8) -> PeerAddress {
    PeerAddress { id: keys(n).id(), addresses: vec![(ip(n), PORT).into()], hosts: Vec::new() }
}

impl World {
    fn node(&self, n: u8) -> Builder {
        Builder::local()
            .identity(keys(n))
            .transport(self.network.host(ip(n)))
            .clock(self.clock)
            .listen(std::net::SocketAddr::from((ip(n), PORT)))
            .seed(n.into())
            .discovery(false)
            .exchange(false)
            .configure(|config| config.gossip.work = Work::Inline)
    }
}

async fn until(node: &Node, count: usize) {
    while node.peer_count().await.expect("runs") != count {
        sleep(Duration::from_millis(50)).await;
    }
}

/// A hub with a handler that answers with so many bytes, and as many peers of it.
async fn star(world: &World, hub: Builder, config: HandlerConfig, spokes: u8, answer: usize) -> (Node, Vec<Node>) {
    let hub = hub.start().await.expect("starts");
    let reply = Bytes::from(vec![7; answer]);
    let handler = Handler::task(move |_| {
        let reply = reply.clone();
        async move {
            sleep(WORK).await;
            Ok(reply)
        }
    });
    hub.server().serve("blob/1", config, handler).await.expect("free");
    let mut peers = Vec::new();
    for n in 0..spokes {
        peers.push(world.node(10 + n).static_peer(at(1)).start().await.expect("starts"));
    }
    until(&hub, spokes.into()).await;
    (hub, peers)
}

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn honest_peers_are_answered_beside_those_that_flood_requests() {
    let world = world();
    let config = HandlerConfig { per_peer: 8, total: 128, ..HandlerConfig::concurrent() };
    let hub = world.node(1).configure(|config| config.reputation.disconnect_at = config.reputation.ban_at);
    let (hub, mut peers) = star(&world, hub, config, 12, 100).await;
    let flooding = peers.split_off(8);
    let mut floods = JoinSet::new();
    for peer in &flooding {
        let (peer, hub) = (peer.clone(), hub.id());
        floods.spawn(async move {
            loop {
                let mut burst = JoinSet::new();
                for _ in 0..100 {
                    let router = peer.server().router().clone();
                    burst.spawn(async move { router.request(hub, "blob/1", "x", Duration::from_secs(5)).await });
                }
                sleep(Duration::from_millis(100)).await;
                drop(burst);
            }
        });
    }
    let (asked, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut honest = JoinSet::new();
    for peer in &peers {
        let (peer, hub, asked, answered) = (peer.clone(), hub.id(), asked.clone(), answered.clone());
        honest.spawn(async move {
            for _ in 0..50 {
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = peer.server().router().request(hub, "blob/1", "x", Duration::from_secs(5)).await;
                answered.fetch_add(u64::from(answer.is_ok()), Ordering::Relaxed);
                sleep(Duration::from_millis(150)).await;
            }
        });
    }
    while honest.join_next().await.is_some() {}
    floods.abort_all();
    let (asked, answered) = (asked.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    assert!(answered * 100 >= asked * 99, "{answered} of {asked}");
    stop(peers.into_iter().chain(flooding).chain([hub])).await;
}

/// Each of eight peers asks the hub, one request after the other, with as many bytes as it is answered, for half a
/// minute; how many each had.
async fn ask_for_half_a_minute(hub: Builder, world: &World) -> Vec<u64> {
    let (hub, peers) = star(world, hub, HandlerConfig::concurrent(), 8, 64 << 10).await;
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for (n, peer) in peers.iter().enumerate() {
        let (peer, hub) = (peer.clone(), hub.id());
        asking.spawn(async move {
            let (mut answers, question) = (0u64, Bytes::from(vec![1; 64 << 10]));
            while began.elapsed() < Duration::from_secs(30) {
                let router = peer.server().router();
                let answer = router.request(hub, "blob/1", question.clone(), Duration::from_secs(20)).await;
                answers += u64::from(answer.is_ok());
            }
            (n, answers)
        });
    }
    let mut got = vec![0; peers.len()];
    while let Some(done) = asking.join_next().await {
        let (n, answers) = done.expect("no panic");
        got[n] = answers * (64 << 10);
    }
    assert_eq!(hub.peer_count().await.expect("runs"), peers.len(), "nobody was dropped over it");
    stop(peers.into_iter().chain([hub])).await;
    got
}

#[tokio::test(start_paused = true)]
async fn a_nodes_bandwidth_is_never_exceeded_and_shared_by_its_peers() {
    for (down, up) in [(Some(MIB), None), (None, Some(MIB))] {
        let world = world();
        let got = ask_for_half_a_minute(world.node(1).bandwidth(down, up), &world).await;
        let all: u64 = got.iter().sum();
        // What was under way at the end came within the longest wait of one more round.
        assert!(all <= 32 * MIB, "{all}");
        assert!(all >= 24 * MIB, "and most of it is used: {all}");
        let (least, most) = (got.iter().min().expect("eight"), got.iter().max().expect("eight"));
        assert!(most - least <= all / 32, "{got:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_set_while_the_node_runs_holds_for_the_sessions_that_it_has() {
    let world = world();
    let (hub, peers) = star(&world, world.node(1), HandlerConfig::concurrent(), 1, 64 << 10).await;
    let mut took = Vec::new();
    for rate in [None, Some(MIB), None] {
        let mut limits = hub.limits().await.expect("runs");
        limits.throttle.upload.node = rate;
        hub.set_limits(limits).await.expect("adds up");
        let began = Instant::now();
        for _ in 0..4 {
            let mut asking = JoinSet::new();
            for _ in 0..16 {
                let (router, hub) = (peers[0].server().router().clone(), hub.id());
                asking.spawn(async move { router.request(hub, "blob/1", "x", Duration::from_secs(20)).await });
            }
            while let Some(done) = asking.join_next().await {
                done.expect("no panic").expect("answered");
            }
        }
        took.push(began.elapsed());
    }
    let [before, limited, after] = took[..] else { panic!("three times") };
    assert!(before < Duration::from_secs(2) && after < Duration::from_secs(2), "{took:?}");
    // Four mebibytes, less a burst.
    assert!(limited > Duration::from_secs(3), "{took:?}");
    stop(peers.into_iter().chain([hub])).await;
}

#[tokio::test(start_paused = true)]
async fn a_trusted_peer_has_its_part_of_the_bandwidth_whatever_the_others_ask() {
    let world = world();
    let hub = world.node(1).bandwidth(None, Some(MIB)).trusted(keys(10).id());
    let got = ask_for_half_a_minute(hub, &world).await;
    let (trusted, others) = (got[0], &got[1..]);
    assert!(others.iter().all(|other| trusted > 2 * other), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_told_that_it_asks_too_often_asks_less_often() {
    let mut outcomes = Vec::new();
    for pacing in [None, Some(PacingConfig::recommended())] {
        let world = world();
        let rate = Some(Rate { calls: 20, period: Duration::from_secs(1) });
        let (hub, peers) =
            star(&world, world.node(1), HandlerConfig { rate, ..HandlerConfig::concurrent() }, 0, 10).await;
        let asker = world.node(2).static_peer(at(1)).configure(|config| config.router.pacing = pacing);
        let asker = asker.start().await.expect("starts");
        until(&hub, 1).await;
        let mut asking = JoinSet::new();
        for _ in 0..1_000 {
            let (router, hub) = (asker.server().router().clone(), hub.id());
            asking.spawn(async move { router.request(hub, "blob/1", "x", Duration::from_secs(1)).await });
            sleep(Duration::from_millis(20)).await;
        }
        let (mut answered, mut throttled) = (0, 0);
        while let Some(done) = asking.join_next().await {
            match done.expect("no panic") {
                Ok(_) => answered += 1,
                Err(RequestError::Refused { code: ErrorCode::Throttled, .. }) => throttled += 1,
                Err(_) => {}
            }
        }
        outcomes.push((answered, throttled));
        stop(peers.into_iter().chain([asker, hub])).await;
    }
    let [(without, refused), (with, trips)] = outcomes[..] else { panic!("two runs") };
    assert!(trips * 4 < refused, "{outcomes:?}");
    assert!(with > 2 * without, "and more of it is answered: {outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn limits_that_do_not_add_up_are_refused_at_the_start_and_while_it_runs() {
    let world = world();
    let refused = world.node(1).bandwidth(Some(1_000), None).start().await.expect_err("too little").to_string();
    assert!(refused.contains("queue.throttle.download.node (1000)"), "{refused}");
    let refused = world.node(1).peer_bandwidth(None, Some(1_000)).start().await.expect_err("too little").to_string();
    assert!(refused.contains("queue.throttle.upload.peer (1000)"), "{refused}");
    let node = world.node(1).start().await.expect("starts");
    let before = node.limits().await.expect("runs");
    let download = BandwidthLimits { reserved: 101, ..BandwidthLimits::unlimited() };
    let throttle = ThrottleLimits { download, ..ThrottleLimits::recommended() };
    let refused = node.set_limits(Limits { throttle, ..before.clone() }).await.expect_err("nonsense");
    assert!(refused.to_string().contains("reserved (101)"), "{refused}");
    assert_eq!(node.limits().await.expect("runs"), before, "nothing of it holds");
    let throttle = ThrottleLimits::off();
    node.set_limits(Limits { throttle, ..before }).await.expect("adds up");
    assert_eq!(node.limits().await.expect("runs").throttle, throttle);
    node.shutdown().await;
}
