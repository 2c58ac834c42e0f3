//! Who is let go, and who is remembered.

use super::*;

#[test]
fn a_peer_without_use_is_dropped_after_its_grace_and_only_from_a_node_half_full() {
    let useless = DisconnectReason::Useless;
    let mut world = World::new(6);
    let sessions: Vec<_> = (1..=3).map(|n| world.add(meta(n, Inbound)).expect("free")).collect();
    assert_eq!(world.wait(Duration::from_secs(200)), [], "half of the places are free");
    world.input(In::Useful(sessions[0], true));
    world.input(In::AddTrusted(node(2)));
    world.add(meta(4, Inbound)).expect("free");
    world.add(meta(5, Outbound)).expect("free");
    assert_eq!(world.wait(Duration::from_secs(10)), [Out::Disconnect(sessions[2], useless)]);
    assert_eq!(world.wait(Duration::from_secs(100)), [], "the others are useful, trusted, or new");
    let outs = world.wait(Duration::from_secs(20));
    assert_eq!(outs.len(), 1, "down to half, not further: {outs:?}");
    world.input(In::Useful(sessions[0], false));
}

#[test]
fn a_full_node_lets_one_of_each_pool_go_when_churn_is_on_and_nobody_when_it_is_off() {
    for churn in [None, Some(Churn::recommended())] {
        let mut world = World::with(Config { max_peers: 30, churn: churn.clone(), ..config() });
        let mut sessions: Vec<_> = (1..=20).map(|n| world.add(meta(n, Inbound)).expect("free")).collect();
        for session in &sessions {
            world.input(In::Useful(*session, true));
        }
        world.input(In::AddTrusted(node(3)));
        let contributions: BTreeMap<_, _> = sessions.iter().zip(0u64..).map(|(session, n)| (*session, n)).collect();
        let mut gone = Vec::new();
        for _ in 0..600 {
            for out in world.wait(Duration::from_secs(60)) {
                match out {
                    Out::Weigh => {
                        let outs = world.input(In::Contributions(contributions.clone()));
                        assert!(outs.len() <= 1, "one pool is full");
                        for out in outs {
                            let Out::Disconnect(session, DisconnectReason::TooManyPeers) = out else {
                                panic!("{out:?}")
                            };
                            assert!(world.now.since(Time::ZERO) >= Duration::from_secs(600), "none is too young");
                            gone.push(session);
                            world.input(In::Ended(
                                session,
                                Ended { reason: DisconnectReason::TooManyPeers, by: EndedBy::Us },
                            ));
                        }
                    }
                    Out::Anchors(_) => {}
                    out => panic!("{out:?}"),
                }
            }
        }
        match churn {
            None => assert_eq!(gone, []),
            // The pool is not full after the first goodbye.
            Some(_) => {
                assert_eq!(gone.len(), 1);
                sessions.truncate(18);
                assert!(sessions.contains(&gone[0]), "the two that brought most stay");
            }
        }
    }
}

#[test]
fn the_longest_and_least_blamed_dialled_peers_become_anchors_and_none_does_not_wipe_them() {
    let mut world = World::with(Config { max_peers: 60, max_anchors: 2, ..config() });
    let first = world.add(meta(1, Outbound)).expect("free");
    world.wait(Duration::from_secs(1));
    let sessions: Vec<_> = (2..=4).map(|n| world.add(meta(n, Outbound)).expect("free")).collect();
    world.add(meta(5, Inbound)).expect("free");
    world.input(In::Report(first, Penalty::ControlFlood));
    let anchors = world.wait(Duration::from_secs(360));
    assert_eq!(anchors, [Out::Anchors(vec![node(2), node(3)])], "1 is blamed, 5 came by itself");
    for session in sessions.into_iter().chain([first]) {
        world.input(In::Ended(session, Ended { reason: DisconnectReason::NetworkError, by: EndedBy::Network }));
    }
    assert_eq!(world.wait(Duration::from_secs(600)), [], "a node that is cut off remembers");
}
