//! A message that makes gossip fail, sent by one peer to all: its source is banned, and nobody else is harmed.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use peerage_server::gossip::wire::Parcel;
use peerage_server::gossip::{Claim, MessageId, Origin, poison};
use peerage_server::wire::frame::Lane;
use peerage_server::{Banned, Status};
use peerage_tests::attack::endpoint;
use peerage_tests::{World, config, ip, keys, topic, virtually};

const NODES: usize = 7;
const SOURCE: usize = NODES - 1;

async fn poisoned(stage: &str, payload: &'static [u8]) {
    let mut world = World::start(61, NODES, config(20)).await;
    world.until_peers(NODES - 1, Duration::from_secs(60)).await;
    world.collect().await;
    let source = world.nodes[SOURCE].id;
    world.publish(SOURCE, Bytes::from_static(payload)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.collect().await;
    for n in 0..SOURCE {
        let node = &world.nodes[n];
        let bans = node.server.bans().await.expect("running");
        let banned: Vec<Banned> = bans.into_iter().map(|(banned, _)| banned).collect();
        assert_eq!(banned, [Banned::Id(source)], "{stage}: node {n}");
        assert_eq!(node.tally.downs, 1, "{stage}: node {n} lost more than the source");
        let peers = node.server.peers().await.expect("running");
        assert_eq!(peers.len(), NODES - 2, "{stage}: node {n}");
        assert!(peers.iter().all(|peer| peer.id != source), "{stage}: node {n}");
    }
    // All else goes on: it took a second to start gossip again, and no budget.
    let everybody: Vec<usize> = (0..SOURCE).collect();
    let mut payloads = Vec::new();
    for n in 0..SOURCE {
        let payload = Bytes::from(format!("{stage}, after it, from {n}"));
        world.publish(n, payload.clone()).await;
        payloads.push(payload);
    }
    world.until_delivered(&everybody, &payloads, Duration::from_secs(10)).await;
    for n in 0..SOURCE {
        let health = world.nodes[n].server.health().await.expect("running");
        assert_eq!(health.status, Status::Ok, "{stage}: node {n}: {:?}", health.reasons);
    }
    world.finish().await;
}

#[test]
fn whoever_sends_what_makes_gossip_panic_is_banned_by_all_and_nobody_else_is() {
    let stages = [
        ("while decoding", poison::DECODE),
        ("before the check", poison::UNCHECKED),
        ("in the check", poison::CHECK),
        ("after the check", poison::CHECKED),
        ("at delivery", poison::DELIVERY),
    ];
    for (stage, payload) in stages {
        virtually(poisoned(stage, payload));
    }
}

/// A relayer that does not fail of it sends on, as it may, what three strangers have signed.
#[test]
fn honest_relayers_of_what_makes_gossip_panic_are_not_blamed() {
    virtually(async {
        let mut world = World::start(62, NODES, config(20)).await;
        world.until_peers(NODES - 1, Duration::from_secs(60)).await;
        let relayer = keys(62, 100);
        let endpoint = endpoint(&relayer, world.clock);
        let mut sessions = Vec::new();
        for node in &world.nodes {
            let stream = world.network.host(ip(100)).connect(node.address.addresses[0]).await.expect("it listens");
            sessions.push(endpoint.dial(stream, node.id).await.expect("there is a place"));
        }
        world.collect().await;
        let mut guilty = BTreeSet::new();
        for (number, payload) in [poison::UNCHECKED, poison::CHECKED, poison::DELIVERY].into_iter().enumerate() {
            let publisher = keys(62, 200 + number);
            let sequence = 1;
            let id = MessageId::signed(&topic(), &publisher.id(), sequence, payload);
            let issued = world.clock.now().unix_millis();
            let signature = Claim { id, issued }.sign(&publisher);
            let origin = Origin { publisher: publisher.id(), sequence, issued, signature };
            let parcel = Parcel::new(topic(), Some(origin), payload);
            for session in &sessions {
                let gossip = session.channel("gossip").expect("both speak it");
                session.send(gossip, Lane::Normal, parcel.bytes.clone()).await.expect("room");
            }
            guilty.insert(Banned::Id(publisher.id()));
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        world.collect().await;
        for (n, node) in world.nodes.iter().enumerate() {
            let bans = node.server.bans().await.expect("running");
            let banned: BTreeSet<Banned> = bans.into_iter().map(|(banned, _)| banned).collect();
            assert_eq!(banned, guilty, "node {n}");
            assert_eq!(node.tally.downs, 0, "node {n}");
            let peers = node.server.peers().await.expect("running");
            assert!(peers.iter().any(|peer| peer.id == relayer.id()), "node {n} keeps the relayer");
        }
        let after = Bytes::from_static(b"after it");
        world.publish(0, after.clone()).await;
        world.until_delivered(&(0..NODES).collect::<Vec<_>>(), &[after], Duration::from_secs(10)).await;
        world.finish().await;
    });
}
