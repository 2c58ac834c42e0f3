//! A network that is full, and under churn, and joined by newcomers.
//!
//! `PEERAGE_SOAK=1` runs it at full scale: 200 nodes, 30 minutes of churn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_server::PeerInfo;
use peerage_server::peer_session::handshake::Direction;
use peerage_server::wire::NodeId;
use peerage_tests::{World, figure, keys, percentile, public, soak, virtually_twice};

const MAX_PEERS: u32 = 15;
/// Longest time that a node may be without peers, from its start or its last one.
const ALONE: Duration = Duration::from_secs(60);

struct Scale {
    nodes: usize,
    minutes: u64,
    newcomers: usize,
}

impl Scale {
    fn of_this_run() -> Scale {
        match soak() {
            true => Scale { nodes: 200, minutes: 30, newcomers: 100 },
            false => Scale { nodes: 50, minutes: 3, newcomers: 20 },
        }
    }
}

#[test]
fn a_full_network_under_churn_keeps_every_node_connected_and_takes_newcomers_in_twice_alike() {
    let scale = Scale::of_this_run();
    let runs = virtually_twice(|run| run_once(11, &scale, run == 0));
    assert_eq!(runs[0], runs[1], "the same seed, the same run");
}

async fn run_once(seed: u64, scale: &Scale, shown: bool) -> String {
    let config = public(MAX_PEERS);
    let target = config.dial_share() as usize;
    let mut world = World::start(seed, scale.nodes, config).await;
    let joined = world.until_peers(target, Duration::from_secs(300)).await;
    let alone = churn(&mut world, scale.minutes).await;
    let full = world.until_peers(target, Duration::from_secs(300)).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    tables_are_symmetric(&world).await;
    no_slot_is_leaked(&world).await;
    if shown {
        println!(
            "seed {seed}: {} nodes, {target} peers each after {joined:?}; {} minutes of churn, longest without a peer \
             {alone:?}; all full again after {full:?}",
            scale.nodes, scale.minutes
        );
    }
    let (mut first, mut places) = (Vec::new(), Vec::new());
    for number in 0..scale.newcomers {
        let newcomer = newcomer(&mut world, seed, number, target).await;
        first.push(newcomer.0);
        places.push(newcomer.1);
    }
    let logged = world.logged;
    let digest = world.finish().await;
    if shown {
        println!("seed {seed}: {logged} events, {digest}");
        for (metric, values) in [("first_peer", &first), ("full_slots", &places)] {
            for percent in [50, 99] {
                let value = percentile(values, percent).as_millis();
                figure("newcomer", &format!("{metric}_p{percent}"), value, "ms");
            }
        }
    }
    format!("{digest} {joined:?} {alone:?} {full:?} {first:?} {places:?}")
}

/// Every minute 30 % of the nodes are killed, and are back after up to ten seconds. Says how long any node was without
/// a peer at most.
async fn churn(world: &mut World, minutes: u64) -> Duration {
    let mut lonely = BTreeMap::new();
    let mut longest = Duration::ZERO;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for minute in 0..minutes {
        let victims = world.some_of((0..world.nodes.len()).collect(), world.nodes.len() * 3 / 10);
        world.kill(&victims).await;
        let mut back: Vec<(u64, usize)> = Vec::new();
        for n in victims {
            back.push((world.rng.below(10), n));
        }
        for now in 0..60 {
            second.tick().await;
            for (_, n) in back.iter().filter(|(at, _)| *at == now) {
                world.revive(*n).await;
                lonely.remove(n);
            }
            let living = world.living();
            if let Some(at) = world.some_of(living.clone(), 1).first() {
                world.publish(*at, Bytes::from(format!("{minute}:{now}"))).await;
            }
            world.collect().await;
            longest = longest.max(watch(world, &living, &mut lonely, minute, now).await);
        }
    }
    longest
}

/// Looks which nodes are without peers, and fails when one is for too long.
async fn watch(
    world: &World,
    living: &[usize],
    lonely: &mut BTreeMap<usize, Time>,
    minute: u64,
    second: u64,
) -> Duration {
    let now = world.clock.now();
    let mut longest = Duration::ZERO;
    for n in living {
        if world.nodes[*n].server.peer_count().await.expect("it is up") > 0 {
            lonely.remove(n);
            continue;
        }
        let since = *lonely.entry(*n).or_insert(now);
        let alone = now.since(since);
        assert!(alone <= ALONE, "node {n} is without peers for {alone:?} in minute {minute}, second {second}");
        longest = longest.max(alone);
    }
    longest
}

async fn tables(world: &World) -> Vec<Vec<PeerInfo>> {
    let mut tables = Vec::new();
    for node in &world.nodes {
        tables.push(node.server.peers().await.expect("it is up"));
    }
    tables
}

/// Pairs of which one has the other as a peer, and not the other way round.
fn one_sided(world: &World, tables: &[Vec<PeerInfo>]) -> BTreeSet<(NodeId, NodeId)> {
    let nodes = world.nodes.iter().zip(tables);
    let dialled = |direction: Direction| -> BTreeSet<(NodeId, NodeId)> {
        let peers = nodes.clone().flat_map(|(node, table)| table.iter().map(move |peer| (node.id, peer)));
        let made = peers.filter(|(_, peer)| peer.direction == direction);
        made.map(|(id, peer)| match direction {
            Direction::Outbound => (id, peer.id),
            Direction::Inbound => (peer.id, id),
        })
        .collect()
    };
    let (outbound, inbound) = (dialled(Direction::Outbound), dialled(Direction::Inbound));
    outbound.symmetric_difference(&inbound).copied().collect()
}

/// Who dialled whom is agreed on by both; a session that comes or goes in this moment may be one-sided, the same one
/// is not some seconds later. And nobody has more than it may.
async fn tables_are_symmetric(world: &World) {
    let share = world.config.dial_share() as usize;
    let before = one_sided(world, &tables(world).await);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tables = tables(world).await;
    let after = one_sided(world, &tables);
    let lasting: Vec<_> = before.intersection(&after).collect();
    assert!(lasting.is_empty(), "one-sided sessions: {lasting:?}");
    for (n, table) in tables.iter().enumerate() {
        let outbound = table.iter().filter(|peer| peer.direction == Direction::Outbound).count();
        let inbound = table.len() - outbound;
        assert!(outbound <= share, "node {n} dialled {outbound} of {share}");
        assert!(inbound <= MAX_PEERS as usize - share, "node {n} was dialled by {inbound}");
    }
}

/// What a node counts as taken is what is taken: the dialer's and the root's gauges agree with the tables, and every
/// slot of a dial or of a set-up is free at some moment soon.
async fn no_slot_is_leaked(world: &World) {
    let mut busy: BTreeSet<(usize, &str)> = BTreeSet::new();
    let passing = ["peerage_dialer_dialing{kind=dynamic}", "peerage_dialer_dialing{kind=static}", INBOUND_SLOTS];
    for gauge in passing {
        assert!(world.nodes.iter().any(|node| node.counts.gauge(gauge).is_some()), "{gauge} is shown");
    }
    for n in 0..world.nodes.len() {
        busy.extend(passing.map(|gauge| (n, gauge)));
    }
    for _ in 0..600 {
        busy.retain(|(n, gauge)| world.nodes[*n].counts.gauge(gauge).is_some_and(|taken| taken > 0.0));
        if busy.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(busy, BTreeSet::new(), "slots that are not given back");
    let mut wrong = Vec::new();
    for (n, table) in tables(world).await.iter().enumerate() {
        let outbound = table.iter().filter(|peer| peer.direction == Direction::Outbound).count() as f64;
        let counts = &world.nodes[n].counts;
        let shown = [
            ("peerage_peers{direction=outbound}", outbound),
            ("peerage_peers{direction=inbound}", table.len() as f64 - outbound),
            ("peerage_dialer_dialled_peers{}", outbound),
        ];
        wrong.extend(shown.into_iter().filter_map(|(gauge, taken)| {
            let value = counts.gauge(gauge).unwrap_or_default();
            (value != taken).then(|| format!("node {n}: {gauge} is {value}, and {taken} are there"))
        }));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

const INBOUND_SLOTS: &str = "peerage_inbound_slots{slots=open}";

/// A node that nobody has heard of joins, and leaves when it has dialled as many as it wants. Says when it had its first
/// peer, and when all.
async fn newcomer(world: &mut World, seed: u64, number: usize, target: usize) -> (Duration, Duration) {
    let start = world.clock.now();
    world.join(keys(seed ^ 0x6e65_7763, 1_000 + number)).await;
    let mut first = None;
    let full = loop {
        let newcomer = world.nodes.last().expect("it joined");
        let peers = newcomer.server.peers().await.expect("it is up");
        let waited = world.clock.now().since(start);
        if !peers.is_empty() && first.is_none() {
            first = Some(waited);
        }
        if peers.iter().filter(|peer| peer.direction == Direction::Outbound).count() >= target {
            break waited;
        }
        assert!(waited < Duration::from_secs(600), "newcomer {number} has {} peers after {waited:?}", peers.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    world.collect().await;
    let newcomer = world.nodes.pop().expect("it joined");
    newcomer.server.shutdown().await;
    // Its place is somebody else's before the next one comes.
    tokio::time::sleep(Duration::from_secs(15)).await;
    (first.unwrap_or(full), full)
}
