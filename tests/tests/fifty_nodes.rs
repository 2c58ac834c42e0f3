//! Fifty whole nodes in virtual time, twice.

use std::time::Duration;

use bytes::Bytes;
use peerage_tests::{World, config, virtually_twice};

/// From one bootnode: every node reaches its peer target, every message reaches every node once, and the
/// same seed gives the same run.
#[test]
fn fifty_nodes_find_each_other_and_every_message_reaches_all_twice_alike() {
    let digests = virtually_twice(|_| run(7));
    assert_eq!(digests[0], digests[1], "the same seed, the same run");
}

async fn run(seed: u64) -> String {
    const NODES: usize = 50;
    let config = config(15);
    // What a node dials itself; inbound connections come on top.
    let target = config.dial_share() as usize;
    let mut world = World::start(seed, NODES, config).await;
    let joined = world.until_peers(target, Duration::from_secs(60)).await;
    let mut payloads: Vec<Bytes> = Vec::new();
    for n in 0..100u32 {
        let at = world.any();
        let payload = Bytes::from([&n.to_be_bytes()[..], &vec![n as u8; 20 * n as usize]].concat());
        world.publish(at, payload.clone()).await;
        payloads.push(payload);
    }
    let everybody: Vec<usize> = (0..NODES).collect();
    let spread = world.until_delivered(&everybody, &payloads, Duration::from_secs(60)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.collect().await;
    for (n, node) in world.nodes.iter().enumerate() {
        assert!(node.delivered.values().all(|times| *times == 1), "node {n} got a message twice");
    }
    let counts = world.peer_counts().await;
    let logged = world.logged;
    let digest = world.finish().await.to_hex();
    println!(
        "seed {seed}: {target} peers each after {joined:?}, all messages after {spread:?}, {logged} events, {digest}"
    );
    format!("{digest} {counts:?} {joined:?} {spread:?}")
}
