//! Nodes that watch themselves: they do less while they are short of something, and have other limits when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peerage_mailbox::{Capacity, Counts, Inlet, Meter, ask, data_queue};
use peerage_router::{Handler, HandlerConfig};
use peerage_server::gossip::{Message, Policy, Publish, Topic};
use peerage_server::health::{Check, CheckState};
use peerage_server::router::codec::Bincode;
use peerage_server::shedding::{Level, Probe, SheddingConfig, Usage};
use peerage_server::{Config, Event, SetLimitsFailed, Status};

use crate::net::{Net, Node};

const SECOND: Duration = Duration::from_secs(1);

/// A process that uses as much memory as a test says.
#[derive(Default)]
struct Memory(AtomicU64);

impl Probe for Memory {
    fn read(&self) -> Usage {
        Usage { memory: Some(self.0.load(Ordering::Relaxed)), ..Usage::default() }
    }
}

fn limited(config: &mut Config) {
    config.shedding = SheddingConfig { memory: 1_000, ..SheddingConfig::off() };
}

/// A node that may use 1,000 bytes.
async fn watched(net: &Net, n: u8) -> (Node, Arc<Memory>, Counts) {
    let (memory, counts) = (Arc::new(Memory::default()), Counts::default());
    let meter = Meter::new(Arc::new(counts.clone()));
    let node = net
        .node(n, |args| {
            limited(&mut args.config);
            args.meter = meter;
        })
        .await;
    node.server.probe(memory.clone());
    (node, memory, counts)
}

fn topic() -> Topic {
    Topic::new("news").expect("a name")
}

async fn hears(node: &Node) -> Inlet<Message> {
    let (outlet, inlet) = data_queue(Capacity { items: 64, weight: 1 << 20 });
    node.server.subscribe(topic(), Policy::Signed, outlet).await.expect("free");
    inlet
}

async fn publish(node: &Node, payload: &'static [u8]) {
    let publish = ask(SECOND, |reply| {
        drop(node.server.publisher().offer(Publish {
            topic: topic(),
            policy: Policy::Signed,
            payload: payload.into(),
            reply,
        }));
    });
    publish.await.expect("an answer").expect("published");
}

fn payloads(heard: &Inlet<Message>) -> Vec<Vec<u8>> {
    heard.take(99).into_iter().map(|message| message.payload.to_vec()).collect()
}

async fn asks(asker: &Node, of: &Node) -> Result<u64, impl std::fmt::Debug> {
    asker.server.router().client::<_, u64, u64>("double", Bincode).request(of.id, &21, SECOND).await
}

async fn doubles(node: &Node) {
    let double = Handler::typed::<_, u64, u64, _>(Bincode, |n: u64, _| async move { Ok(2 * n) });
    node.server.serve("double", HandlerConfig::concurrent(), double).await.expect("free");
}

fn levels(node: &Node) -> Vec<Level> {
    let level = |event| match event {
        Event::Shedding { level, .. } => Some(level),
        _ => None,
    };
    node.happened().into_iter().filter_map(level).collect()
}

/// A peer that makes a node use all that it may gains nothing for itself: it is sent no more than others, nobody loses
/// a place, votes and requests of all go on, and what was not sent comes when there is room again. What it costs it is to
/// keep the node at its limit; what it gets is that nobody new comes meanwhile.
#[tokio::test(start_paused = true)]
async fn a_node_at_its_limit_keeps_its_peers_and_its_requests_and_sends_the_rest_later() {
    let net = Net::new();
    let (victim, memory, counts) = watched(&net, 1).await;
    let (honest, attacker) = (net.node(2, |_| {}).await, net.node(3, |_| {}).await);
    for peer in [&honest, &attacker] {
        peer.server.add_static(victim.address.clone()).await.expect("admitted");
    }
    victim.until_peers(2).await;
    doubles(&victim).await;
    let heard = [hears(&honest).await, hears(&attacker).await];
    let _own = hears(&victim).await;
    tokio::time::sleep(5 * SECOND).await;
    victim.happened();

    memory.0.store(2_000, Ordering::Relaxed);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(levels(&victim), [Level::Bulk, Level::Normal, Level::Newcomers], "in this order");
    publish(&victim, b"kept").await;
    let late = net.node(4, |_| {}).await;
    late.server.add_static(victim.address.clone()).await.expect("admitted");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(heard.each_ref().map(payloads), [vec![] as Vec<Vec<u8>>, vec![]], "neither is sent it");
    assert_eq!(asks(&honest, &victim).await.expect("answered"), 42);
    let peers: Vec<_> = victim.until_peers(2).await.into_iter().map(|peer| peer.id).collect();
    assert!(peers.contains(&honest.id) && peers.contains(&attacker.id), "and nobody new");
    assert_eq!(counts.gauge("peerage_shedding_level{}"), Some(3.0));
    let health = victim.server.health().await.expect("running");
    assert_eq!(health.status, Status::Degraded);
    assert!(health.reasons.iter().any(|why| why.contains("the node is short of memory")), "{health:?}");
    assert_eq!(counts.gauge("peerage_health{check=shedding}"), Some(0.0));

    memory.0.store(0, Ordering::Relaxed);
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(levels(&victim), [Level::Normal, Level::Bulk, Level::Nothing]);
    victim.until_peers(3).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(heard.each_ref().map(payloads), [[b"kept"], [b"kept"]]);
    assert_eq!(victim.server.health().await.expect("running").status, Status::Ok);
    for node in [victim, honest, attacker, late] {
        node.server.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_at_its_limit_dials_nobody_and_goes_on_when_it_has_recovered() {
    let net = Net::new();
    let (busy, memory, _) = watched(&net, 1).await;
    let other = net.node(2, |_| {}).await;
    memory.0.store(1_000, Ordering::Relaxed);
    tokio::time::sleep(5 * SECOND).await;
    busy.server.add_static(other.address.clone()).await.expect("admitted");
    assert_eq!(busy.peers_after(60 * SECOND).await, 0);
    memory.0.store(0, Ordering::Relaxed);
    busy.until_peers(1).await;
    busy.server.shutdown().await;
    other.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn limits_change_for_those_who_come_and_end_nobodys_session() {
    let net = Net::new();
    let full = net.node(1, |args| args.config.dialing_on = false).await;
    let comes = async |n: u8| {
        let node = net.node(n, |_| {}).await;
        node.server.add_static(full.address.clone()).await.expect("admitted");
        node
    };
    let nodes = [comes(2).await, comes(3).await];
    full.until_peers(2).await;
    let mut limits = full.server.limits().await.expect("running");
    limits.max_peers = 1;
    full.server.set_limits(limits.clone()).await.expect("they add up");
    assert_eq!(full.server.limits().await.expect("running"), limits);
    let third = comes(4).await;
    assert_eq!(full.peers_after(60 * SECOND).await, 2, "nobody goes, and nobody comes");
    limits.max_peers = 3;
    full.server.set_limits(limits.clone()).await.expect("they add up");
    full.until_peers(3).await;

    let refused = peerage_server::Limits { dial_ratio: 0, max_peers: 9, ..limits.clone() };
    let error = full.server.set_limits(refused).await.expect_err("no ratio");
    assert!(matches!(&error, SetLimitsFailed::Refused(sum) if sum.contains("dial_ratio")), "{error}");
    assert_eq!(full.server.limits().await.expect("running"), limits, "nothing of it");
    for node in nodes.into_iter().chain([third, full]) {
        node.server.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_changed_hold_in_the_next_life_of_every_actor_too() {
    let net = Net::new();
    let node = net.node(1, |_| {}).await;
    let mut limits = node.server.limits().await.expect("running");
    (limits.served.per_peer, limits.asked.per_peer) = (1, 1);
    limits.served.per_peer_bytes = limits.served.node_bytes;
    limits.listener.accepts_per_second = 7;
    limits.gossip.publisher_bytes *= 2;
    limits.inbound.at_large *= 2;
    node.server.set_limits(limits.clone()).await.expect("they add up");
    #[cfg(feature = "fault-injection")]
    for service in peerage_server::Service::ALL {
        node.server.inject_panic(service);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(node.server.health().await.expect("running").status, Status::Ok, "{service:?}");
    }
    assert_eq!(node.server.limits().await.expect("running"), limits);
    node.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn health_tells_what_is_compared_and_nobody_coming_after_ten_minutes() {
    let net = Net::new();
    let (lonely, _, counts) = watched(&net, 1).await;
    let other = net.node(2, |_| {}).await;
    lonely.server.add_static(other.address.clone()).await.expect("admitted");
    lonely.until_peers(1).await;
    tokio::time::sleep(599 * SECOND).await;
    let state = async |node: &Node, check| {
        let checks = node.server.health().await.expect("running").checks;
        checks.into_iter().find(|finding| finding.check == check).expect("a check").state
    };
    assert_eq!(state(&lonely, Check::Inbound).await, CheckState::Pass);
    assert_eq!(state(&lonely, Check::Received).await, CheckState::Pass, "pings are something");
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(state(&lonely, Check::Inbound).await, CheckState::Fail);
    assert_eq!(counts.gauge("peerage_health{check=inbound}"), Some(0.0));
    assert_eq!(state(&other, Check::Inbound).await, CheckState::Pass, "one came to it");
    let deaf = net.node(3, |args| args.config.listening_on = false).await;
    tokio::time::sleep(700 * SECOND).await;
    assert_eq!(state(&deaf, Check::Inbound).await, CheckState::Off);
    for node in [lonely, other, deaf] {
        node.server.shutdown().await;
    }
}
