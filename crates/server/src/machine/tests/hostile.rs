//! What hostile peers must not get the root to do.

use super::*;
use crate::SharedAddress;

fn at(n: u8, ip: [u8; 4]) -> Meta {
    Meta { ip: ip.into(), ..meta(n, Inbound) }
}

/// So many identities of a host show themselves and are banned.
fn misbehave(world: &mut World, host: [u8; 4], count: u8) {
    // Of other names than those at another host.
    let first = 200 + 10 * host[3];
    for n in first..first + count {
        let session = world.add(at(n, host)).expect("not banned yet");
        world.input(In::Report(session, Penalty::Crash));
        world.input(In::Ended(session, Ended { reason: DisconnectReason::Banned, by: EndedBy::Us }));
    }
}

#[test]
fn a_friend_who_is_away_is_let_in_whoever_was_banned_at_its_address() {
    let mut world = World::new(50);
    world.input(In::AddStatic(node(1)));
    world.input(In::AddTrusted(node(2)));
    for n in [1, 2] {
        let host = [20, 1, 1, n];
        let session = world.add(at(n, host)).expect("free");
        world.input(In::Ended(session, Ended { reason: DisconnectReason::NetworkError, by: EndedBy::Network }));
        misbehave(&mut world, host, 4);
        assert!(world.add(at(n, host)).is_ok(), "{n}");
        assert!(world.driver.machine().admission().permits_ip(host.into()), "the dialer asks this");
    }
}

#[test]
fn an_address_that_many_share_is_not_banned_for_as_few_of_them_as_a_host_of_one() {
    let mut config = Config { max_peers: 90, ..config() };
    let carrier = SharedAddress { network: "20.1.1.1/32".parse().expect("network"), factor: 20 };
    config.listener.shared_addresses = vec![carrier];
    let mut world = World::with(config);
    for n in 1..=20 {
        world.add(at(n, [20, 1, 1, 1])).expect("free");
    }
    misbehave(&mut world, [20, 1, 1, 1], 4);
    let honest = world.driver.machine().peers.values().filter(|peer| !peer.ending).count();
    assert_eq!(honest, 20, "one liar among them does not end them all");
    assert!(world.add(at(21, [20, 1, 1, 1])).is_ok());
}

#[test]
fn a_peer_that_was_of_use_has_its_grace_from_when_it_no_longer_is() {
    let mut world = World::new(6);
    let sessions: Vec<_> = (1..=4).map(|n| world.add(meta(n, Inbound)).expect("free")).collect();
    sessions.iter().for_each(|session| drop(world.input(In::Useful(*session, true))));
    world.wait(Duration::from_secs(299));
    // The application leaves its topic for another, which the peers are about to hear.
    sessions.iter().for_each(|session| drop(world.input(In::Useful(*session, false))));
    assert_eq!(world.wait(Duration::from_secs(15)), []);
}

#[test]
fn a_peer_that_stays_while_others_are_lost_does_not_push_them_out_of_the_anchors() {
    let mut world = World::with(Config { max_peers: 60, max_anchors: 3, ..config() });
    let sessions: Vec<_> = (1..=3).map(|n| world.add(meta(n, Outbound)).expect("free")).collect();
    assert_eq!(world.wait(Duration::from_secs(300)), [Out::Anchors(vec![node(1), node(2), node(3)])]);
    for session in &sessions[1..] {
        world.input(In::Ended(*session, Ended { reason: DisconnectReason::NetworkError, by: EndedBy::Network }));
    }
    for out in world.wait(Duration::from_secs(600)) {
        let Out::Anchors(anchors) = out else { panic!("{out:?}") };
        assert_eq!(anchors.len(), 3, "the one that is left is all that a restarted node would remember");
    }
}

#[test]
fn one_site_does_not_become_all_anchors() {
    let mut world = World::with(Config { max_peers: 60, max_anchors: 8, ..config() });
    for n in 1..=8 {
        world.add(Meta { ip: [21, 1, 1, n].into(), ..meta(n, Outbound) }).expect("free");
    }
    world.wait(Duration::from_secs(1));
    for n in 11..=18 {
        world.add(meta(n, Outbound)).expect("free");
    }
    let anchors = world.wait(Duration::from_secs(360)).into_iter().find_map(|out| match out {
        Out::Anchors(anchors) => Some(anchors),
        _ => None,
    });
    let of_the_site = anchors.expect("chosen").iter().filter(|id| (1..=8).any(|n| **id == node(n))).count();
    assert!(of_the_site < 8, "a restarted node would have to do with nobody else");
}

/// geth's `maxDialedConns` is zero with `NoDial`.
#[test]
fn a_node_that_does_not_dial_gives_all_its_places_to_those_who_come() {
    let mut world = World::with(Config { max_peers: 6, dialing_on: false, ..config() });
    for n in 1..=6 {
        assert!(world.add(meta(n, Inbound)).is_ok(), "{n}");
    }
}

#[test]
fn one_host_does_not_take_all_the_places_of_those_who_come() {
    let mut world = World::new(50);
    for n in 1..=60 {
        // It may open a connection a second, and shows another identity on each.
        world.now += Duration::from_secs(1);
        let _ = world.add(at(n, [20, 1, 1, 1])).map(|session| world.input(In::Useful(session, true)));
    }
    assert!(world.add(at(100 + 1, [20, 2, 2, 2])).is_ok(), "it has {} of 50 places", world.peers());
}
