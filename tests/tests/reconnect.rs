//! Two connections with one peer: both ends dial at once, or one was killed and is back before the other noticed.

use std::time::Duration;

use peerage_server::Event;
use peerage_tests::{World, config};

fn ups_and_downs(world: &World, n: usize) -> (usize, usize) {
    let events = world.nodes[n].events.take(usize::MAX);
    let ups = events.iter().filter(|event| matches!(event, Event::PeerUp { .. })).count();
    (ups, events.len() - ups)
}

/// Each learns of the other in the same instant; how their messages cross depends on the seed.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_dial_each_other_at_once_keep_one_session_and_never_flap() {
    for seed in 0..20 {
        let world = World::start(seed, 2, config(10)).await;
        let [a, b] = [0, 1].map(|n| world.nodes[n].address.clone());
        if seed % 2 == 0 {
            world.nodes[0].server.add_static(b).await.expect("admitted");
            world.nodes[1].server.add_static(a).await.expect("admitted");
        } else {
            world.nodes[1].server.add_static(a).await.expect("admitted");
            tokio::time::sleep(Duration::from_millis(seed)).await;
            world.nodes[0].server.add_static(b).await.expect("admitted");
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(world.peer_counts().await, [1, 1], "seed {seed}: soon");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.peer_counts().await, [1, 1], "seed {seed}: and for good");
        for n in 0..2 {
            assert_eq!(ups_and_downs(&world, n), (1, 0), "seed {seed}: node {n}");
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_killed_and_is_back_within_a_second_has_one_session_again() {
    const NODES: usize = 4;
    let mut world = World::start(5, NODES, config(10)).await;
    world.until_peers(NODES - 1, Duration::from_secs(60)).await;
    for round in 0..3 {
        world.collect().await;
        let start = tokio::time::Instant::now();
        world.crash_and_restart(2).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        world.until_peers(NODES - 1, Duration::from_secs(20)).await;
        for n in [0, 1, 3] {
            assert_eq!(ups_and_downs(&world, n), (1, 1), "round {round}: it went once and came once for node {n}");
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.peer_counts().await, [NODES - 1; NODES], "round {round}");
    }
    world.finish().await;
}
