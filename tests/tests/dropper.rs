//! A quiet hour of a full network: with slow churn everybody is used, without it nothing moves.

use std::time::Duration;

use peerage_server::Churn;
use peerage_tests::{World, figure, percentile, public, soak, virtually_twice};

/// What an hour did.
struct Hour {
    /// Sessions that others made to each node.
    called: Vec<u32>,
    /// Sessions that ended, at all nodes together.
    downs: u32,
    /// Different peers that each node had.
    met: Vec<usize>,
}

async fn hour(seed: u64, churn: Option<Churn>) -> Hour {
    let nodes = if soak() { 200 } else { 40 };
    let mut world = World::start(seed, nodes, peerage_server::Config { churn, ..public(15) }).await;
    let target = world.config.dial_share() as usize;
    world.until_peers(target, Duration::from_secs(300)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.collect().await;
    for node in &mut world.nodes {
        let peers = node.server.peers().await.expect("it is up");
        node.tally = peerage_tests::Tally::default();
        node.tally.met.extend(peers.iter().map(|peer| peer.id));
    }
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.collect().await;
    }
    let hour = Hour {
        called: world.nodes.iter().map(|node| node.tally.called).collect(),
        downs: world.nodes.iter().map(|node| node.tally.downs).sum(),
        met: world.nodes.iter().map(|node| node.tally.met.len()).collect(),
    };
    for (n, count) in world.peer_counts().await.into_iter().enumerate() {
        assert!(count >= target, "node {n} has {count} peers at the end");
    }
    world.finish().await;
    hour
}

#[test]
fn in_a_quiet_hour_every_node_is_used_with_slow_churn_and_no_session_ends_without() {
    let [still, moving] = virtually_twice(|run| hour(21, (run == 1).then(Churn::recommended)));
    assert_eq!(still.downs, 0, "nobody had a reason");
    assert!(still.called.iter().all(|called| *called == 0));
    let idle: Vec<usize> = (0..moving.called.len()).filter(|n| moving.called[*n] == 0).collect();
    assert_eq!(idle, Vec::<usize>::new(), "nobody called them: {:?}", moving.called);
    for (how, hour) in [("off", &still), ("on", &moving)] {
        for percent in [1, 50] {
            figure("churn_hour", &format!("peers_met_p{percent}_churn_{how}"), percentile(&hour.met, percent), "peers");
        }
        figure("churn_hour", &format!("sessions_ended_churn_{how}"), hour.downs, "sessions");
    }
    let (before, after) = (percentile(&still.met, 50), percentile(&moving.met, 50));
    assert!(after > before, "a node meets {after} peers with churn and {before} without");
}
