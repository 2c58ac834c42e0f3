//! A flood of connections against one node, through which twenty honest peers gossip.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::{Config, Event};
use peerage_tests::attack::{Attack, Got, attack, knock, was_answered};
use peerage_tests::{World, config, figure, keys, virtually};
use tokio::task::JoinSet;

const HONEST: usize = 20;
const ATTACKERS: usize = 50;
const NEWCOMERS: u64 = 10;
const ATTEMPTS: u64 = 10_000;
/// How long the flood takes, in tenths of a second.
const TICKS: u64 = 1_000;

/// Attackers' addresses: each in a network of its own, or all in two /24.
fn address(spread: bool, n: usize) -> IpAddr {
    match spread {
        true => Ipv4Addr::new(31, n as u8, 0, 1),
        false => Ipv4Addr::new(32, 0, (n % 2) as u8, n as u8),
    }
    .into()
}

/// What the flood did.
#[derive(Debug, Default)]
struct Outcome {
    attackers: BTreeMap<(Attack, Got), u32>,
    unconnected: u32,
    /// Honest newcomers that became peers, and those that were told why not.
    taken: u64,
    answered: u64,
    unanswered: Vec<String>,
}

async fn flood(seed: u64, spread: bool) -> Outcome {
    // All go by the victim, which limits local addresses too.
    let config = Config { exempt_local: false, discovery_on: false, exchange_on: false, ..config(50) };
    let mut world = World::start(seed, 1 + HONEST, config).await;
    let victim = world.nodes[0].address.clone();
    for n in 1..=HONEST {
        world.nodes[n].server.add_static(victim.clone()).await.expect("admitted");
    }
    world.until_peers(1, Duration::from_secs(60)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.peer_counts().await[0], HONEST);
    world.collect().await;

    let mut payloads = Vec::new();
    let (mut flooding, mut knocking) = (JoinSet::new(), JoinSet::new());
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for now in 0..TICKS {
        tick.tick().await;
        for number in ATTEMPTS * now / TICKS..ATTEMPTS * (now + 1) / TICKS {
            let from = world.network.host(address(spread, number as usize % ATTACKERS));
            // Each address does everything in turn.
            let what = Attack::ALL[(number as usize / ATTACKERS) % Attack::ALL.len()];
            let (victim, clock, seed) = (victim.clone(), world.clock, world.rng.next_u64());
            flooding.spawn(async move {
                // A connection that is not even taken is what a flood hopes for.
                let stream = from.connect(victim.addresses[0]).await.ok()?;
                Some((what, attack(what, stream, victim.id, seed, clock, Duration::from_secs(20)).await))
            });
        }
        if now % (TICKS / NEWCOMERS) == TICKS / NEWCOMERS - 1 {
            let from = world.network.host(Ipv4Addr::new(33, (now / (TICKS / NEWCOMERS)) as u8, 0, 1).into());
            let (victim, clock, seed) = (victim.clone(), world.clock, world.rng.next_u64());
            knocking.spawn(async move {
                let stream = from.connect(victim.addresses[0]).await.map_err(|error| error.to_string())?;
                match knock(stream, victim.id, seed, clock).await {
                    Ok(_) => Ok(true),
                    Err(error) if was_answered(&error) => Ok(false),
                    Err(error) => Err(error.to_string()),
                }
            });
        }
        if now % 10 == 0 {
            let payload = Bytes::from(format!("message {now}"));
            let at = world.any();
            world.publish(at, payload.clone()).await;
            payloads.push(payload);
        }
        world.collect().await;
    }
    let everybody: Vec<usize> = (0..=HONEST).collect();
    // Those to whom it was not pushed are told of it, some of them the second time, after 15 s.
    world.until_delivered(&everybody, &payloads, Duration::from_secs(60)).await;
    let mut outcome = Outcome::default();
    while let Some(ended) = flooding.join_next().await {
        match ended.expect("attackers do not panic") {
            Some(went) => *outcome.attackers.entry(went).or_default() += 1,
            None => outcome.unconnected += 1,
        }
    }
    while let Some(ended) = knocking.join_next().await {
        match ended.expect("newcomers do not panic") {
            Ok(true) => outcome.taken += 1,
            Ok(false) => outcome.answered += 1,
            Err(error) => outcome.unanswered.push(error),
        }
    }
    for n in 1..=HONEST {
        assert_eq!(world.nodes[n].tally.downs, 0, "honest node {n} was lost");
    }
    let present = world.nodes[0].server.peers().await.expect("it is up");
    for n in 1..=HONEST {
        assert!(present.iter().any(|peer| peer.id == world.nodes[n].id), "honest node {n} is a peer");
    }
    // Once it is over everybody who waits for a place finds one, and no slot is held.
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.join(keys(seed, 1_000)).await;
    let last = world.nodes.len() - 1;
    world.nodes[last].server.add_static(victim).await.expect("admitted");
    world.until_peers(1, Duration::from_secs(20)).await;
    let slots = world.nodes[0].counts.gauge("peerage_inbound_slots{slots=open}").unwrap_or_default();
    assert_eq!(slots, 0.0, "slots held after the flood");
    let events = world.nodes[last].events.take(usize::MAX);
    assert!(events.iter().all(|event| matches!(event, Event::PeerUp { .. })), "{events:?}");

    let where_from = if spread { "50_networks" } else { "2_networks" };
    for (reason, count) in world.nodes[0].counts.counters("peerage_inbound_refused_total") {
        let reason = reason.trim_start_matches("peerage_inbound_refused_total");
        figure("flood_virtual", &format!("refused{reason}_{where_from}"), count, "connections");
    }
    for (name, count) in world.nodes[0].counts.counters("peerage_handshakes_total{direction=inbound") {
        figure("flood_virtual", &format!("{name}_{where_from}"), count, "handshakes");
    }
    println!("seed {seed}, {where_from}: {outcome:?}");
    world.finish().await;
    outcome
}

#[test]
fn a_flood_of_connections_loses_no_honest_peer_and_no_message() {
    for spread in [true, false] {
        let outcome = virtually(flood(51, spread));
        let honest = outcome.taken + outcome.answered;
        assert!(honest * 10 >= NEWCOMERS * 9, "{honest} of {NEWCOMERS} newcomers were answered: {outcome:?}");
    }
}
