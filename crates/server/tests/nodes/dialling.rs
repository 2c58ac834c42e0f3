//! The connector: a node's addresses raced with a delay, over the in-memory network in virtual time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::{Node, config, node};
use peerage_server::PeerAddress;
use peerage_server::transport::{Link, MemoryNetwork};
use tokio::time::Instant;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(20, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(20, 0, 1, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(20, 0, 2, 1));

async fn network() -> (MemoryNetwork, Node, Node) {
    let link = Link { latency: Duration::from_millis(20), jitter: Duration::ZERO, ..Link::default() };
    let network = MemoryNetwork::new(1, link);
    let here = node(1, config(), network.host(HERE), HERE, Vec::new()).await;
    let there = node(2, config(), network.host(THERE), THERE, Vec::new()).await;
    (network, here, there)
}

/// Dials a node at these addresses; how long it took.
async fn dial(from: &Node, to: &Node, addresses: Vec<SocketAddr>) -> Duration {
    let start = Instant::now();
    from.server.add_static(PeerAddress { id: to.id, addresses, hosts: Vec::new() }).await.expect("admitted");
    from.until_peers(1).await;
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_costs_a_round_trip() {
    let (_network, here, there) = network().await;
    let took = dial(&here, &there, vec![(THERE, 1).into(), (THERE, 2).into(), there.at]).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!((here.counts.tried("failed"), here.counts.tried("opened")), (2, 1));
    here.server.shutdown().await;
    there.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_at_which_somebody_else_listens_does_not_hide_the_right_one() {
    let (network, here, there) = network().await;
    let third = node(3, config(), network.host(ELSEWHERE), ELSEWHERE, Vec::new()).await;
    let took = dial(&here, &there, vec![third.at, there.at]).await;
    assert!(took < Duration::from_millis(500), "within one dial: {took:?}");
    assert_eq!(here.counts.tried("opened"), 2);
    assert_eq!(third.peers().await, 0);
    for node in [here, there, third] {
        node.server.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_address_is_overtaken_after_the_delay() {
    // Latencies are functions of the seed: one at which the first address is far away and the second is near.
    for seed in 0.. {
        let link = Link { latency: Duration::ZERO, jitter: Duration::from_secs(1), ..Link::default() };
        let network = MemoryNetwork::new(seed, link);
        let far = async {
            let start = Instant::now();
            let _ = network.host(HERE).connect((ELSEWHERE, 7).into()).await;
            start.elapsed()
        };
        let near = async {
            let start = Instant::now();
            let _ = network.host(HERE).connect((THERE, 7).into()).await;
            start.elapsed()
        };
        let (far, near) = tokio::join!(far, near);
        if far < Duration::from_millis(800) || near > Duration::from_millis(200) {
            continue;
        }
        let _backlog = network.host(ELSEWHERE).listen((ELSEWHERE, 7).into()).await.expect("free");
        let here = node(1, config(), network.host(HERE), HERE, Vec::new()).await;
        let there = node(2, config(), network.host(THERE), THERE, Vec::new()).await;
        let took = dial(&here, &there, vec![(ELSEWHERE, 7).into(), there.at]).await;
        assert!(took >= Duration::from_millis(250) && took < Duration::from_millis(800), "{took:?}");
        assert_eq!((here.counts.tried("overtaken"), here.counts.tried("opened")), (1, 1));
        here.server.shutdown().await;
        there.server.shutdown().await;
        return;
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_answers_nothing_costs_one_handshakes_time_of_the_same_dial() {
    let (network, _here, there) = network().await;
    // It takes the connection, and that is all.
    let _backlog = network.host(ELSEWHERE).listen((ELSEWHERE, 7).into()).await.expect("free");
    let ip = IpAddr::V4(Ipv4Addr::new(20, 0, 3, 1));
    let mut patient = config();
    patient.dialer.dial_timeout = Duration::from_secs(30);
    let here = node(4, patient, network.host(ip), ip, Vec::new()).await;
    let took = dial(&here, &there, vec![(ELSEWHERE, 7).into(), there.at]).await;
    assert!(took >= Duration::from_secs(5) && took < Duration::from_millis(5500), "{took:?}");
    assert_eq!(here.counts.tried("opened"), 2);
    here.server.shutdown().await;
    there.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_discovery_says_why_its_static_peer_is_missing_and_nothing_of_bootnodes() {
    let (_network, here, there) = network().await;
    here.server
        .add_static(PeerAddress { id: there.id, addresses: vec![(THERE, 1).into()], hosts: Vec::new() })
        .await
        .expect("admitted");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told = here.server.health().await.expect("running").reasons;
    assert!(told.iter().any(|why| why == "static peers: 0 of 1 connected; 1 did not answer"), "{told:?}");
    here.server.shutdown().await;
    there.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_static_peer_without_a_place_is_not_dialled() {
    let network = MemoryNetwork::new(1, Link::default());
    let narrow = peerage_server::Config { max_static_peers: 1, ..config() };
    let here = node(1, narrow, network.host(HERE), HERE, Vec::new()).await;
    let there = node(2, config(), network.host(THERE), THERE, Vec::new()).await;
    let third = node(3, config(), network.host(ELSEWHERE), ELSEWHERE, Vec::new()).await;
    here.server.add_static(there.address()).await.expect("admitted");
    here.until_peers(1).await;
    here.server.add_static(third.address()).await.expect("admitted");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((here.counts.tried("opened"), third.peers().await), (1, 0));
    for node in [here, there, third] {
        node.server.shutdown().await;
    }
}
