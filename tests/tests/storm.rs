//! Panics everywhere: for ten minutes actors of several nodes fail at random while messages flow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::gossip::Publish;
use peerage_server::mailbox::Outlet;
use peerage_server::{Service, Status};
use peerage_tests::{World, config, publish, virtually};
use tokio::task::JoinSet;

const NODES: usize = 8;
/// The first so many of them fail.
const STRUCK: usize = 4;
const STORM: u64 = 600;

/// Which actors a node says are down for long, by its health and by its metrics, which must agree.
async fn degraded(world: &World, n: usize) -> BTreeSet<&'static str> {
    let node = &world.nodes[n];
    let labels = |is: &dyn Fn(&Service) -> bool| -> BTreeSet<&'static str> {
        Service::ALL.iter().filter(|service| is(service)).map(|service| service.label()).collect()
    };
    let shown = |service: &Service| {
        let gauge = node.counts.gauge(&format!("peerage_degraded{{actor={}}}", service.label()));
        gauge.is_some_and(|value| value > 0.0)
    };
    // Something may have happened between the answer and the look at the metrics, once.
    for last in [false, true] {
        let health = node.server.health().await.expect("running");
        let counted = labels(&shown);
        let told = labels(&|service| health.reasons.contains(&format!("the {} actor is down", service.label())));
        let status = if told.is_empty() { Status::Ok } else { Status::Degraded };
        assert_eq!(health.status, status, "node {n}: {:?}", health.reasons);
        if told == counted || last {
            assert_eq!(told, counted, "node {n}: health and metrics");
            return told;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unreachable!("the second look decides")
}

/// Publishes until somebody was reached. A node whose gossip and queue are both down says that nobody was; what it has
/// published then it keeps for later, unless its gossip fails once more.
async fn reach(publisher: Outlet<Publish>, payload: Bytes) {
    while publish(publisher.clone(), payload.clone()).await.peers == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Answers for how many seconds each actor was down for long, all nodes together.
async fn storm(seed: u64) -> BTreeMap<&'static str, u32> {
    // Each could dial all the others, so that all are joined whoever is first.
    let mut config = config(3 * NODES as u32);
    // Whoever comes last dials all the others, and nobody is left to come to it.
    config.health.expect_inbound = Some(false);
    let mut world = World::start(seed, NODES, config).await;
    world.until_peers(NODES - 1, Duration::from_secs(60)).await;
    world.collect().await;
    let mut payloads = Vec::new();
    let mut publishing = JoinSet::new();
    let mut spent: BTreeMap<&'static str, u32> = BTreeMap::new();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for now in 0..STORM {
        second.tick().await;
        world.collect().await;
        for n in 0..NODES {
            for service in degraded(&world, n).await {
                assert!(n < STRUCK, "nobody else is touched");
                *spent.entry(service).or_default() += 1;
            }
        }
        if now % 2 == 0 {
            let (n, service) = (world.rng.below(STRUCK as u64), world.rng.below(Service::ALL.len() as u64));
            world.nodes[n as usize].server.inject_panic(Service::ALL[service as usize]);
        }
        let at = world.any();
        let payload = Bytes::from(format!("second {now} at {at}"));
        let publisher = world.nodes[at].server.publisher();
        publishing.spawn(reach(publisher, payload.clone()));
        payloads.push(payload);
    }
    let everybody: Vec<usize> = (0..NODES).collect();
    while let Some(published) = publishing.join_next().await {
        published.expect("it was published in the end");
    }
    world.until_delivered(&everybody, &payloads, Duration::from_secs(60)).await;
    // A service that is given up for a while is tried again after five minutes.
    tokio::time::sleep(Duration::from_secs(310)).await;
    world.collect().await;
    for n in 0..NODES {
        assert_eq!(degraded(&world, n).await, BTreeSet::new(), "node {n} recovers by itself");
        let restarts: u64 = world.nodes[n].counts.counters("peerage_restarts_total").values().sum();
        assert_eq!(restarts > 0, n < STRUCK, "node {n}: {restarts} restarts");
        assert_eq!(world.nodes[n].tally.downs, 0, "node {n}: sessions stay");
    }
    assert_eq!(world.peer_counts().await, [NODES - 1; NODES]);
    let after = Bytes::from_static(b"after the storm");
    world.publish(0, after.clone()).await;
    world.until_delivered(&everybody, &[after], Duration::from_secs(10)).await;
    println!("seed {seed}: seconds that an actor was down for long, all nodes together: {spent:?}");
    world.finish().await;
    spent
}

#[test]
fn panics_in_every_actor_for_ten_minutes_drop_no_session_and_lose_no_message() {
    let spent: BTreeSet<&str> = [31, 32, 33].into_iter().flat_map(|seed| virtually(storm(seed)).into_keys()).collect();
    assert_eq!(spent.len(), Service::ALL.len(), "every actor's budget was spent somewhere: {spent:?}");
}
