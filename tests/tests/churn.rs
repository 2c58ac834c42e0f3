//! Churn: every minute three nodes in ten are killed and come back, while messages flow.
//!
//! In the end every node has every message of a durable topic's window, in the order of each publisher and none twice, and
//! what was published on an ordinary topic while it is kept in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::gossip::durable::{Durable, DurableAsk, DurableMessage, Lease, Start};
use peerage_server::gossip::{Policy, Publish, PublishError, Topic};
use peerage_server::mailbox::{Capacity, Inlet, ask, data_queue};
use peerage_tests::{World, config, soak, virtually};

const SECOND: Duration = Duration::from_secs(1);
const BOUNDS: Durable = Durable { retain_bytes: 64 << 20, retain_age: Duration::from_secs(3_600) };
/// Within this, an ordinary message that a node missed is to be had from its peers.
const KEPT: u64 = 100;

fn kept() -> Topic {
    Topic::new("kept").expect("short")
}

/// Makes the topic durable at a node, for as long as the inlet is held.
async fn open(world: &World, n: usize) -> Inlet<Lease> {
    let (lease, held) = data_queue(Capacity { items: 1, weight: 1 });
    world.nodes[n].server.subscribe_durable(kept(), BOUNDS, Start::Earliest, lease).await.expect("durable");
    held
}

async fn publish(world: &World, n: usize, payload: Bytes) {
    loop {
        let answer = ask(10 * SECOND, |reply| {
            let publish = Publish { topic: kept(), policy: Policy::Signed, payload: payload.clone(), reply };
            assert!(world.nodes[n].server.publisher().offer(publish).is_ok());
        });
        match answer.await.expect("answered") {
            Ok(_) => return,
            Err(PublishError::Busy { retry_after }) => tokio::time::sleep(retry_after).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// All that a node's log has.
async fn read(world: &World, n: usize) -> Vec<DurableMessage> {
    let (mut after, mut got) = (0, Vec::new());
    loop {
        let answer = ask(SECOND, |reply| {
            drop(world.nodes[n].server.asker().offer(DurableAsk::Fetch { topic: kept(), after, reply }));
        });
        let Ok(Ok(batch)) = answer.await else { return got };
        assert_eq!(batch.lagged, 0, "node {n}");
        after = batch.after;
        got.extend(batch.entries);
    }
}

async fn churn(seed: u64, nodes: usize, minutes: u64) {
    let mut world = World::start(seed, nodes, config(3 * nodes as u32)).await;
    world.until_peers(nodes.min(6) - 1, 60 * SECOND).await;
    let mut leases = BTreeMap::new();
    for n in 0..nodes {
        leases.insert(n, open(&world, n).await);
    }
    tokio::time::sleep(3 * SECOND).await;
    let (mut durable, mut ordinary): (Vec<Bytes>, Vec<(u64, Bytes)>) = (Vec::new(), Vec::new());
    let mut had: BTreeMap<usize, BTreeSet<Bytes>> = BTreeMap::new();
    let mut down: Vec<(u64, usize)> = Vec::new();
    for second in 0..60 * minutes {
        let back: Vec<usize> = down.iter().filter(|(at, _)| *at == second).map(|(_, n)| *n).collect();
        down.retain(|(at, _)| *at != second);
        for n in back {
            world.revive(n).await;
            leases.insert(n, open(&world, n).await);
        }
        if second % 60 == 20 {
            // The first is everybody's bootnode.
            let others: Vec<usize> = world.living().into_iter().filter(|n| *n != 0).collect();
            let victims = world.some_of(others, nodes * 3 / 10);
            world.kill(&victims).await;
            for (place, n) in victims.into_iter().enumerate() {
                let delivered = std::mem::take(&mut world.nodes[n].delivered);
                assert!(delivered.values().all(|times| *times == 1), "node {n} got something twice in one life");
                had.entry(n).or_default().extend(delivered.into_keys());
                leases.remove(&n);
                // The last of a minute is back before the minute is over.
                down.push((second + 2 + 10 * (place as u64 % 4), n));
            }
        } else if second % 60 != 19 {
            let living = world.living();
            let at = world.some_of(living, 2);
            for n in at {
                let payload = Bytes::from(format!("{second} at {n}"));
                publish(&world, n, payload.clone()).await;
                durable.push(payload);
            }
            let at = world.living()[second as usize % world.living().len()];
            let payload = Bytes::from(format!("ordinary {second} at {at}"));
            world.publish(at, payload.clone()).await;
            ordinary.push((second, payload));
        }
        tokio::time::sleep(SECOND).await;
        world.collect().await;
    }
    assert!(down.is_empty(), "everybody is back");
    tokio::time::sleep(60 * SECOND).await;
    world.collect().await;
    let durable: BTreeSet<Bytes> = durable.into_iter().collect();
    for n in 0..nodes {
        let got = read(&world, n).await;
        let mut last = BTreeMap::new();
        for message in &got {
            let before = last.insert(message.publisher, message.sequence);
            assert!(before.is_none_or(|before| before < message.sequence), "node {n}: out of order, or twice");
        }
        let payloads: BTreeSet<Bytes> = got.iter().map(|message| message.payload.clone()).collect();
        let missing: Vec<&Bytes> = durable.difference(&payloads).collect();
        assert!(missing.is_empty(), "node {n} has {} of {}, not {missing:?}", payloads.len(), durable.len());
        assert_eq!(got.len(), durable.len(), "node {n}: something twice");
        let delivered = &world.nodes[n].delivered;
        assert!(delivered.values().all(|times| *times == 1), "node {n} got something twice in one life");
        let had = had.entry(n).or_default();
        let late = ordinary.iter().filter(|(second, _)| *second + KEPT > 60 * minutes);
        let missing: Vec<&Bytes> = late.map(|(_, payload)| payload).filter(|payload| !had.contains(*payload)).collect();
        let missing: Vec<&&Bytes> = missing.iter().filter(|payload| !delivered.contains_key(**payload)).collect();
        assert!(missing.is_empty(), "node {n} lacks {missing:?}");
    }
    println!("churn: {nodes} nodes, {minutes} minutes, {} durable messages at each, once", durable.len());
    world.finish().await;
}

#[test]
fn whoever_comes_and_goes_has_every_message_of_the_window_once() {
    let (nodes, minutes) = if soak() { (40, 15) } else { (10, 4) };
    virtually(Box::pin(churn(41, nodes, minutes)));
}
