//! Peers told by peers: networks without a single datagram, who can be dialled, and what liars get.

use std::time::Duration;

use bytes::Bytes;
use peerage_server::discovery::external::Reachable;
use peerage_server::{Config, Service, Status};
use peerage_tests::{World, config, ip, keys, virtually_twice};

const MINUTE: Duration = Duration::from_secs(60);

/// Nodes that look for nobody over UDP.
fn deaf(max_peers: u32) -> Config {
    Config { discovery_on: false, ..config(max_peers) }
}

fn counted(world: &World, n: usize, event: &str) -> u64 {
    world.nodes[n].counts.counter(&format!("peerage_exchange_events_total{{event={event}}}"))
}

fn dropped(world: &World, n: usize, reason: &str) -> u64 {
    world.nodes[n].counts.counter(&format!("peerage_exchange_drops_total{{reason={reason}}}"))
}

async fn nobody_was_blamed(world: &World) {
    for (n, node) in world.nodes.iter().enumerate() {
        for peer in node.server.peers().await.expect("running") {
            assert_eq!(peer.blame, 0, "{n} blames {}", peer.id);
        }
        assert_eq!(node.server.health().await.map(|health| health.status), Ok(Status::Ok), "{n}");
    }
}

#[test]
fn a_star_without_datagrams_becomes_a_mesh_and_two_runs_are_the_same() {
    let [first, second] = virtually_twice(|run| async move {
        let mut world = World::start(3, 8, deaf(20)).await;
        let took = world.until_peers(7, MINUTE).await;
        if run == 0 {
            println!("bench=exchange8 impl=peerage metric=mesh value={} unit=ms", took.as_millis());
        }
        tokio::time::sleep(3 * MINUTE).await;
        assert_eq!(world.peer_counts().await, [7; 8], "and stays one");
        nobody_was_blamed(&world).await;
        for n in 0..8 {
            assert!(counted(&world, n, "pulled") > 0 && counted(&world, n, "served") > 0, "{n}");
            assert!(counted(&world, n, "observed") >= 7, "{n}: every peer says where it sees it");
            assert_eq!(dropped(&world, n, "unsolicited") + dropped(&world, n, "pull_quota"), 0, "{n}");
        }
        world.finish().await
    });
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn a_line_without_datagrams_becomes_well_connected() {
    let mut world = World::new(4, deaf(20));
    for n in 0..8 {
        world.join_knowing(keys(4, n), n.saturating_sub(1)).await;
    }
    let took = world.until_peers(5, 3 * MINUTE).await;
    println!("bench=exchange8 impl=peerage metric=line value={} unit=ms", took.as_millis());
    let payload = Bytes::from_static(b"along the line");
    world.publish(0, payload.clone()).await;
    world.until_delivered(&[0, 1, 2, 3, 4, 5, 6, 7], &[payload], MINUTE).await;
    nobody_was_blamed(&world).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_exchange_such_a_star_stays_a_star() {
    let mut world = World::start(3, 8, Config { exchange_on: false, ..deaf(20) }).await;
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(world.peer_counts().await, [7, 1, 1, 1, 1, 1, 1, 1]);
    world.collect().await;
    world.finish().await;
}

/// Discovery is on and hears nobody, as where a firewall drops every datagram.
#[tokio::test(start_paused = true)]
async fn where_no_datagram_passes_peers_are_found_although_discovery_is_on() {
    let mut world = World::new(5, config(20));
    let lossy = peerage_server::transport::Link { loss_per_mille: 1_000, ..Default::default() };
    world.network = peerage_server::transport::MemoryNetwork::new(5, lossy);
    for n in 0..8 {
        world.join(keys(5, n)).await;
    }
    let took = world.until_peers(7, 3 * MINUTE).await;
    println!("bench=exchange8 impl=peerage metric=udp_blocked value={} unit=ms", took.as_millis());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_behind_a_firewall_says_that_it_cannot_be_dialled_and_has_peers_all_the_same() {
    for base in [config(20), deaf(20)] {
        let mut world = World::start(6, 5, base).await;
        world.network.shut(ip(5));
        world.join(keys(6, 5)).await;
        world.until_peers(4, 2 * MINUTE).await;
        tokio::time::sleep(2 * MINUTE).await;
        for (n, node) in world.nodes.iter().enumerate() {
            let expected = if n == 5 { Reachable::No } else { Reachable::Yes };
            let local = node.server.local().await.expect("running");
            assert_eq!(local.reachability, Some(expected), "{n}");
            let state = if n == 5 { "unreachable" } else { "reachable" };
            assert_eq!(node.counts.gauge(&format!("peerage_reachability{{state={state}}}")), Some(1.0));
        }
        assert!(counted(&world, 5, "unreached") >= 3);
        assert!(world.peer_counts().await[5] >= 3);
        nobody_was_blamed(&world).await;
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_back_is_no_attack_to_the_listener_that_it_comes_to() {
    // Limits by address hold, and a node that was not dialled by anybody asks.
    let config = Config { exempt_local: false, ..deaf(20) };
    let mut world = World::start(7, 5, config.clone()).await;
    world.until_peers(4, MINUTE).await;
    world.config = Config { max_peers: 12, ..config };
    world.join(keys(7, 5)).await;
    tokio::time::sleep(2 * MINUTE).await;
    let reached: u64 = (0..6).map(|n| counted(&world, n, "reached")).sum();
    assert!(reached >= 3, "{reached}");
    for node in &world.nodes {
        for reason in ["host_limit", "site_limit", "no_slot", "evicted", "first_bytes_timeout", "unknown_protocol"] {
            let refused = node.counts.counter(&format!("peerage_inbound_refused_total{{reason={reason}}}"));
            assert_eq!(refused, 0, "{reason}");
        }
        assert_eq!(node.counts.counter("peerage_bans_total"), 0);
        assert_eq!(node.counts.gauge("peerage_inbound_slots{slots=open}"), Some(0.0), "none is kept");
    }
    nobody_was_blamed(&world).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_exchange_knows_its_peers_again_and_blames_nobody() {
    let mut world = World::start(8, 6, deaf(20)).await;
    world.until_peers(5, MINUTE).await;
    for _ in 0..3 {
        world.nodes[1].server.inject_panic(Service::Exchange);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(world.peer_counts().await, [5; 6], "sessions stay up");
    let before = counted(&world, 1, "served");
    tokio::time::sleep(3 * MINUTE).await;
    assert!(counted(&world, 1, "served") > before, "it answers again");
    nobody_was_blamed(&world).await;
    // A newcomer who knows only this one finds all.
    world.join_knowing(keys(8, 6), 1).await;
    world.until_peers(6, MINUTE).await;
    world.finish().await;
}

mod hostile {
    use peerage_machine::Bloom;
    use peerage_server::discovery::exchange::wire::{self, Item, Outcome};
    use peerage_server::mailbox::Meter;
    use peerage_server::peer_session::{Endpoint, EndpointConfig, Peer};
    use peerage_server::queue::ChannelId;
    use peerage_server::wire::frame::Lane;
    use peerage_server::wire::{Keypair, NetworkId, NodeRecord, RecordDraft, address};

    use super::*;

    /// A peer of the nth node that says what it likes, from a host of its own.
    async fn intruder(world: &World, n: usize, seed: u8) -> Peer {
        let keys = Keypair::from_seed([seed; 32]);
        let config =
            EndpointConfig { clock: world.clock, meter: Meter::none(), sessions: 8, ..EndpointConfig::recommended() };
        let protocols = [("gossip", 1), ("peers", 1)];
        let endpoint = Endpoint::with(&keys, &world.config.network, &protocols, config).expect("sound names");
        let host = world.network.host([30, 0, seed, 1].into());
        let stream = host.connect(world.nodes[n].address.addresses[0]).await.expect("listening");
        endpoint.dial(stream, world.nodes[n].id).await.expect("admitted")
    }

    fn forged(count: u8) -> Vec<NodeRecord> {
        let made = (0..count).map(|n| {
            let draft = RecordDraft::new(1, NetworkId::named("peerage"))
                .address(address::from_tcp(std::net::SocketAddr::from(([66, 0, n, 1], 30303))));
            draft.sign(&Keypair::from_seed([100 + n; 32])).expect("small").into_inner()
        });
        made.collect()
    }

    fn channel(peer: &Peer) -> ChannelId {
        peer.channel("peers").expect("both speak it")
    }

    /// What the next message holds, if it is of the exchange.
    async fn hear(peer: &mut Peer) -> Option<Vec<Item>> {
        let inbound = tokio::time::timeout(MINUTE, peer.recv()).await.ok()??;
        let theirs = inbound.delivery.channel == channel(peer);
        Some(if theirs { wire::items(&inbound.delivery.payload).expect("sound") } else { Vec::new() })
    }

    async fn say(peer: &Peer, item: &Item) {
        // A peer that was thrown out says no more.
        let _ = peer.send(channel(peer), Lane::Normal, item.encode()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    async fn penalties(world: &World, n: usize, penalty: &str) -> u64 {
        world.nodes[n].counts.counter(&format!("peerage_penalties_total{{penalty={penalty}}}"))
    }

    #[tokio::test(start_paused = true)]
    async fn floods_of_pulls_records_and_probes_are_refused_counted_and_end_the_session() {
        let mut world = World::start(9, 4, deaf(20)).await;
        world.until_peers(3, MINUTE).await;
        let all = || Item::Pull { salt: [0; 16], known: Bloom::sized(0, 64) };
        let unasked = Item::Records(forged(16));
        let probe = Item::Probe { nonce: 1, port: 30303 };
        for (seed, item, counted_as) in
            [(1, all(), "pull_quota"), (2, unasked, "unsolicited"), (3, probe, "probe_quota")]
        {
            let mut peer = intruder(&world, 0, seed).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            for _ in 0..60 {
                say(&peer, &item).await;
            }
            assert!(dropped(&world, 0, counted_as) >= 40, "{counted_as}");
            tokio::time::timeout(MINUTE, peer.ended()).await.expect("thrown out");
        }
        assert!(penalties(&world, 0, "control_flood").await >= 100);
        // The intruder was asked once, and sixty answers to one question are one answer.
        assert!(counted(&world, 0, "learnt") <= 16, "{}", counted(&world, 0, "learnt"));
        assert_eq!(world.peer_counts().await, [3; 4], "and the others are still there");
        world.finish().await;
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_no_exchange_and_forged_records_cost_the_session_at_the_second_time() {
        let mut world = World::start(10, 2, deaf(20)).await;
        world.until_peers(1, MINUTE).await;
        let peer = intruder(&world, 0, 4).await;
        let _ = peer.send(channel(&peer), Lane::Normal, Bytes::from_static(b"not an exchange of peers")).await;
        let _ = peer.send(channel(&peer), Lane::Normal, Bytes::from(vec![0; 1 << 20])).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(penalties(&world, 0, "malformed_message").await, 2);
        assert_eq!(world.peer_counts().await, [1, 1]);
        assert_eq!(dropped(&world, 0, "malformed"), 2);
        world.finish().await;
    }

    /// A peer may have its own host dialled, once, and nobody else's.
    #[tokio::test(start_paused = true)]
    async fn a_probe_reaches_the_askers_own_host_and_no_third_party() {
        let mut world = World::start(11, 2, deaf(20)).await;
        world.until_peers(1, MINUTE).await;
        let third = std::net::SocketAddr::from(([99, 0, 0, 1], 4_000));
        let mut bystander = world.network.host(third.ip()).listen(third).await.expect("free");
        let own = std::net::SocketAddr::from(([30, 0, 5, 1], 4_000));
        let mut listener = world.network.host(own.ip()).listen(own).await.expect("free");
        let mut peer = intruder(&world, 0, 5).await;
        say(&peer, &Item::Probe { nonce: 77, port: 4_000 }).await;
        let stream = tokio::time::timeout(MINUTE, listener.accept()).await.expect("dialled").expect("open");
        assert_eq!(stream.remote_addr().ip(), ip(0));
        drop(stream);
        let result = loop {
            let items = hear(&mut peer).await.expect("answers");
            if let Some(result) = items.into_iter().find(|item| matches!(item, Item::ProbeResult { .. })) {
                break result;
            }
        };
        assert_eq!(result, Item::ProbeResult { nonce: 77, outcome: Outcome::Reached });
        say(&peer, &Item::Probe { nonce: 78, port: 4_000 }).await;
        let more = tokio::time::timeout(MINUTE, async {
            tokio::select! {
                _ = listener.accept() => "its own host again",
                _ = bystander.accept() => "a bystander",
            }
        });
        assert_eq!(more.await.ok(), None);
        world.finish().await;
    }

    /// Told of nodes that do not exist, a node tries each a few times and forgets it.
    #[tokio::test(start_paused = true)]
    async fn invented_nodes_are_given_up_and_honest_ones_found_beside_them() {
        let mut world = World::start(12, 4, deaf(20)).await;
        world.until_peers(3, MINUTE).await;
        let mut peer = intruder(&world, 0, 6).await;
        let invented = forged(40);
        let mut told = 0;
        // Answers whenever it is asked.
        let end = world.clock.now() + 2 * MINUTE;
        while world.clock.now() < end {
            let Some(items) = hear(&mut peer).await else { break };
            if items.iter().any(|item| matches!(item, Item::Pull { .. })) {
                let records = invented.iter().skip(told).take(16).cloned().collect();
                told += 16;
                say(&peer, &Item::Records(records)).await;
            }
        }
        assert!(told >= 16, "it was asked");
        assert!(counted(&world, 0, "learnt") >= 16);
        world.join(keys(12, 4)).await;
        world.until_peers(4, MINUTE).await;
        tokio::time::sleep(10 * MINUTE).await;
        assert!(counted(&world, 0, "given_up") >= 10, "{}", counted(&world, 0, "given_up"));
        world.finish().await;
    }
}
