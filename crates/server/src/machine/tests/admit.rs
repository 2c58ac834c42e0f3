//! Admission, places, trust and policy.

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

const BAN_TIME: Duration = Duration::from_secs(90);

/// geth TestServerAtCap.
#[test]
fn a_full_node_admits_trusted_peers_only_and_trust_takes_effect_at_once() {
    let mut world = World::new(6);
    for n in 1..=4 {
        assert!(world.add(meta(n, Inbound)).is_ok());
    }
    assert_eq!(world.add(meta(5, Inbound)), Err(DisconnectReason::TooManyPeers), "a third is kept for dialled peers");
    assert!(world.add(meta(5, Outbound)).is_ok());
    assert!(world.add(meta(6, Outbound)).is_ok());
    assert_eq!(world.add(meta(7, Outbound)), Err(DisconnectReason::TooManyPeers));
    world.input(In::AddTrusted(node(7)));
    assert!(world.add(meta(7, Inbound)).is_ok());
    world.input(In::RemoveTrusted(node(7)));
    assert_eq!(world.peers(), 7, "who loses trust stays");
}

#[test]
fn places_are_reserved_and_a_reservation_ends_with_its_set_up() {
    let mut world = World::new(3);
    let first = world.identify(meta(1, Inbound)).expect("free");
    let second = world.identify(meta(2, Inbound)).expect("free");
    assert_eq!(world.identify(meta(3, Inbound)), Err(DisconnectReason::TooManyPeers), "two are being set up");
    assert_eq!(world.input(In::Released(first)), [Out::InboundDone(node(1))]);
    assert!(world.identify(meta(3, Inbound)).is_ok());
    assert_eq!(world.stage(first, Stage::Established, meta(1, Inbound)), Err(DisconnectReason::AlreadyConnected));
    assert!(world.stage(second, Stage::Established, meta(2, Inbound)).is_ok());
    assert_eq!(world.input(In::Released(second)), [], "it became a peer");
    assert_eq!(world.peers(), 1);
}

#[test]
fn what_changed_between_the_checkpoints_counts() {
    let mut world = World::new(10);
    let banned = world.identify(meta(1, Inbound)).expect("free");
    world.input(In::Ban(Banned::Id(node(1)), Duration::from_secs(9)));
    assert_eq!(world.stage(banned, Stage::Established, meta(1, Inbound)), Err(DisconnectReason::Banned));
    let late = world.identify(meta(2, Inbound)).expect("free");
    world.input(In::Shutdown);
    assert_eq!(world.stage(late, Stage::Established, meta(2, Inbound)), Err(DisconnectReason::Quitting));
}

#[test]
fn a_node_is_told_apart_from_itself_and_from_its_peers() {
    let mut world = World::new(10);
    assert_eq!(world.add(meta(OWN, Inbound)), Err(DisconnectReason::SelfConnect));
    assert!(world.add(meta(1, Inbound)).is_ok());
    assert_eq!(world.add(meta(1, Inbound)), Err(DisconnectReason::AlreadyConnected));
    assert_eq!(world.add(meta(1, Outbound)), Err(DisconnectReason::AlreadyConnected));
}

#[test]
fn a_restarted_peer_replaces_its_old_session_even_on_a_full_node() {
    let mut world = World::new(2);
    let old = world.add(meta(1, Inbound)).expect("free");
    assert_eq!(world.add(meta(2, Inbound)), Err(DisconnectReason::TooManyPeers));
    let restarted = Meta { instance: 99, ..meta(1, Inbound) };
    assert_eq!(world.add(restarted), Err(DisconnectReason::AlreadyConnected), "not before the first is a second old");
    world.wait(Duration::from_secs(1));
    let setup = world.identify(restarted).expect("its own place");
    let outs = world.input(In::Checkpoint(setup, Stage::Established, restarted));
    let new = SessionId(old.0 + 1);
    assert!(
        matches!(&outs[..], [
        Out::Disconnect(ended, DisconnectReason::Replaced),
            Out::PeerDown { session: down, .. },
            Out::Verdict(_, Ok(Some(session))),
        Out::PeerUp(up, _),
        Out::InboundDone(_),
    ] if *session == new && *up == new && *ended == old && *down == old),
        "{outs:?}"
    );
    let late = Ended { reason: DisconnectReason::Replaced, by: EndedBy::Us };
    assert_eq!(world.input(In::Ended(old, late)), [], "a late end of the old session does nothing to the new");
    assert_eq!(world.peers(), 1);
}

/// Both nodes dial at once; every interleaving of the four first checkpoints and two second ones that the
/// network allows leaves one session, the same on both ends.
#[test]
fn both_ends_that_dial_at_once_keep_the_same_connection() {
    // Events of a connection: the dialler identifies, then the acceptor, then both establish.
    for order in 0u32..1 << 12 {
        let config = Config::recommended();
        let ids = [node(1), node(2)];
        let mut ends = ids.map(|id| machine(id, &config));
        // Connection c is dialled by end c. Steps: 0 dialler identified, 1 acceptor identified, 2 established.
        let mut step = [0; 2];
        let mut up: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
        let mut bits = order;
        while step.iter().any(|step| *step < 3) {
            let c = if step[0] >= 3 {
                1
            } else if step[1] >= 3 {
                0
            } else {
                (bits & 1) as usize
            };
            bits >>= 1;
            let (dialler, acceptor) = (c, 1 - c);
            let at = |end: usize| Meta { id: ids[1 - end], ..meta(7, if end == dialler { Outbound } else { Inbound }) };
            let setup = Setup(c as u64);
            let ask = |ends: &mut [Driver<ServerMachine>; 2], end: usize, stage| {
                ends[end].handle(Time::ZERO, In::Checkpoint(setup, stage, at(end)));
                let outs: Vec<Out> = ends[end].drain().collect();
                outs.iter().any(|out| matches!(out, Out::Verdict(_, Ok(_))))
            };
            let failed = match step[c] {
                0 => !ask(&mut ends, dialler, Stage::Identified),
                1 => !ask(&mut ends, acceptor, Stage::Identified),
                _ => {
                    for end in [acceptor, dialler] {
                        if ask(&mut ends, end, Stage::Established) {
                            up[end].push(c);
                        }
                    }
                    false
                }
            };
            step[c] += 1;
            if failed {
                step[c] = 3;
                for end in &mut ends {
                    end.handle(Time::ZERO, In::Released(setup));
                    end.drain();
                }
            }
        }
        assert_eq!(up[0], up[1], "order {order:b}");
        assert_eq!(up[0].len(), 1, "order {order:b}");
    }
}

#[test]
fn static_peers_have_places_of_their_own() {
    let mut world = World::with(Config { max_peers: 3, max_static_peers: 2, ..config() });
    for n in 10..=12 {
        world.input(In::AddStatic(node(n)));
    }
    assert!(world.add(meta(1, Inbound)).is_ok() && world.add(meta(2, Inbound)).is_ok());
    assert!(world.add(meta(3, Outbound)).is_ok());
    assert!(world.add(meta(10, Outbound)).is_ok(), "the dynamic places are taken, the static ones are not");
    assert!(world.add(meta(11, Inbound)).is_ok(), "whoever dialled");
    assert_eq!(world.add(meta(12, Outbound)), Err(DisconnectReason::TooManyPeers));
    assert_eq!(world.add(meta(4, Outbound)), Err(DisconnectReason::TooManyPeers));
    world.input(In::RemoveStatic(node(10)));
    assert_eq!(world.peers(), 5, "who is static no more stays");
    assert!(world.add(meta(12, Outbound)).is_ok(), "its static place is free");
    world.input(In::AddStatic(node(3)));
    assert_eq!(world.add(meta(4, Outbound)), Err(DisconnectReason::TooManyPeers), "10 has the dialled place now");
}

/// go-ethereum issues 21705, celo 1670: geth lets dialled peers overshoot their share.
#[test]
fn dialled_peers_never_exceed_their_share() {
    let mut world = World::new(9);
    for n in 1..=3 {
        assert!(world.add(meta(n, Outbound)).is_ok());
    }
    assert_eq!(world.add(meta(4, Outbound)), Err(DisconnectReason::TooManyPeers));
    assert!(world.add(meta(4, Inbound)).is_ok());
}

/// geth TestServerPeerLimits.
#[test]
fn a_node_without_places_admits_whom_it_trusts_while_it_trusts() {
    let mut world = World::new(0);
    assert_eq!(world.add(meta(1, Inbound)), Err(DisconnectReason::TooManyPeers));
    world.input(In::AddTrusted(node(1)));
    let session = world.add(meta(1, Inbound)).expect("trusted");
    assert_eq!(world.input(In::RemoveTrusted(node(1))), [Out::Trusted(session, false)]);
    world.input(In::Ended(session, Ended { reason: DisconnectReason::Requested, by: EndedBy::Us }));
    assert_eq!(world.add(meta(1, Inbound)), Err(DisconnectReason::TooManyPeers));
}

#[test]
fn nobody_is_admitted_before_the_start() {
    let mut driver = Driver::new(ServerMachine::new(node(OWN), &Config::recommended(), Rng::new(1)));
    driver.handle(Time::ZERO, In::Checkpoint(Setup(1), Stage::Identified, meta(1, Inbound)));
    let outs: Vec<Out> = driver.drain().collect();
    assert_eq!(outs, [Out::Verdict(Setup(1), Err(DisconnectReason::Quitting))]);
}

#[test]
fn a_removed_peer_does_not_slip_in_with_a_set_up_that_was_under_way() {
    let mut world = World::new(10);
    let pending = world.identify(meta(1, Inbound)).expect("free");
    assert_eq!(world.input(In::Remove(node(1))), [Out::InboundDone(node(1))]);
    assert_eq!(world.stage(pending, Stage::Established, meta(1, Inbound)), Err(DisconnectReason::Requested));
    world.input(In::Released(pending));
    let session = world.add(meta(1, Inbound)).expect("a new set-up is a new matter");
    let outs = world.input(In::Remove(node(1)));
    assert_eq!(outs, [Out::Disconnect(session, DisconnectReason::Requested)]);
}

#[test]
fn a_policy_that_changes_is_applied_to_live_peers_trusted_and_static_ones_too() {
    let mut world = World::new(10);
    world.input(In::AddTrusted(node(1)));
    world.input(In::AddStatic(node(2)));
    let sessions: Vec<_> = (1..=3).map(|n| world.add(meta(n, Inbound)).expect("free")).collect();
    let only = Admission { only: Some([node(3)].into()), ..Admission::open() };
    let outs = world.deeds(In::Admission(Arc::new(only)));
    let gone = |n: usize| Out::Disconnect(sessions[n], DisconnectReason::NotAllowed);
    assert_eq!(outs, [gone(0), gone(1)]);
    assert_eq!(world.add(meta(4, Inbound)), Err(DisconnectReason::NotAllowed));
    let denied = Admission { denied: vec!["20.0.3.0/24".parse().expect("network")], ..Admission::open() };
    assert_eq!(world.deeds(In::Admission(Arc::new(denied))), [gone(2)]);
    assert!(world.add(meta(4, Inbound)).is_ok());
}

#[test]
fn peers_on_another_fork_go_when_the_application_says_that_it_moved() {
    let mut world = World::new(10);
    let fork = |bytes: &[u8]| ForkId::new(bytes).expect("short");
    let on = |n: u8, bytes: &[u8]| Meta { fork: fork(bytes), ..meta(n, Inbound) };
    assert_eq!(world.add(on(1, b"new")), Err(DisconnectReason::WrongFork));
    let old = world.add(on(1, b"")).expect("free");
    assert_eq!(world.deeds(In::Forks([fork(b"new"), fork(b"")].into())), [], "the old one is still taken");
    assert!(world.add(on(2, b"new")).is_ok());
    let outs = world.deeds(In::Forks([fork(b"new")].into()));
    assert_eq!(outs, [Out::Disconnect(old, DisconnectReason::WrongFork)]);
    assert_eq!(world.add(on(3, b"")), Err(DisconnectReason::WrongFork));
}

#[test]
fn draining_tells_everybody_and_ends_with_the_last_session_or_the_deadline() {
    let quitting = Ended { reason: DisconnectReason::Quitting, by: EndedBy::Us };
    let mut world = World::new(10);
    let sessions: Vec<_> = (1..=2).map(|n| world.add(meta(n, Inbound)).expect("free")).collect();
    let outs = world.input(In::Shutdown);
    assert_eq!(outs, sessions.iter().map(|s| Out::Disconnect(*s, DisconnectReason::Quitting)).collect::<Vec<_>>());
    assert!(!world.input(In::Ended(sessions[0], quitting)).contains(&Out::Stopped));
    assert!(world.input(In::Ended(sessions[1], quitting)).contains(&Out::Stopped));
    assert_eq!(world.driver.machine().running(), Running::Stopped);

    let mut world = World::new(10);
    world.add(meta(1, Inbound)).expect("free");
    world.input(In::Shutdown);
    assert!(world.wait(Duration::from_secs(4)).contains(&Out::Stopped));
    assert_eq!(World::new(1).input(In::Shutdown), [Out::Stopped], "with nobody to tell");
}

proptest! {
    /// Whatever happens in whatever order: limits hold, and news of peers alternate.
    #[test]
    fn limits_hold_and_every_peer_up_has_its_down(ops in proptest::collection::vec((0u8..5, 1u8..9, any::<bool>(), 0u64..2), 1..200)) {
        let mut world = World::new(4);
        let mut open: Vec<(Setup, Meta)> = Vec::new();
        let mut up: BTreeMap<NodeId, SessionId> = BTreeMap::new();
        for (op, n, inbound, instance) in ops {
            let meta = Meta { instance, ..meta(n, if inbound { Inbound } else { Outbound }) };
            let outs = match op {
                0 | 1 => {
                    world.setups += 1;
                    open.push((Setup(world.setups), meta));
                    world.input(In::Checkpoint(Setup(world.setups), Stage::Identified, meta))
                }
                2 if !open.is_empty() => {
                    let (setup, meta) = open[usize::from(n) % open.len()];
                    world.input(In::Checkpoint(setup, Stage::Established, meta))
                }
                3 if !open.is_empty() => {
                    let (setup, _) = open.swap_remove(usize::from(n) % open.len());
                    world.input(In::Released(setup))
                }
                _ => match up.values().next().copied() {
                    Some(session) => world.input(In::Ended(session, Ended { reason: DisconnectReason::Idle, by: EndedBy::Us })),
                    None => Vec::new(),
                },
            };
            for out in outs {
                match out {
                    Out::PeerUp(session, meta) => prop_assert_eq!(up.insert(meta.id, session), None),
                    Out::PeerDown { session, meta, .. } => prop_assert_eq!(up.remove(&meta.id), Some(session)),
                    _ => {}
                }
            }
            let machine = world.driver.machine();
            prop_assert!(machine.peers.len() <= 4);
            prop_assert!(machine.peers().filter(|(_, meta, _)| meta.direction == Inbound).count() <= 3);
            prop_assert_eq!(machine.peers.len(), machine.sessions.len());
            prop_assert!(machine.reserved.values().all(|setup| machine.setups.contains_key(setup)));
        }
        for (setup, _) in open {
            world.input(In::Released(setup));
        }
        let machine = world.driver.machine();
        prop_assert!(machine.reserved.is_empty() && machine.setups.is_empty(), "no place leaks");
    }

    /// With everything that the application may do in between: news of peers and of set-ups alternate, nothing leaks,
    /// and a shutdown comes to its end.
    #[test]
    fn whatever_the_application_does_news_alternate_and_nothing_leaks(
        ops in proptest::collection::vec((0u8..14, 1u8..9, any::<bool>(), 0u64..2), 1..200),
    ) {
        let mut world = World::new(4);
        let mut open: Vec<(Setup, Meta)> = Vec::new();
        let mut up: BTreeMap<NodeId, SessionId> = BTreeMap::new();
        let mut pending: BTreeMap<NodeId, i32> = BTreeMap::new();
        let mut stopped = false;
        let end = [(99, 0, false, 0)];
        for (op, n, flag, instance) in ops.into_iter().chain(end) {
            let meta = Meta { instance, ..meta(n, if flag { Inbound } else { Outbound }) };
            let id = node(n);
            let mut outs = match op {
                0..=3 => {
                    world.setups += 1;
                    open.push((Setup(world.setups), meta));
                    world.input(In::Checkpoint(Setup(world.setups), Stage::Identified, meta))
                }
                4 | 5 if !open.is_empty() => {
                    let (setup, meta) = open[usize::from(n) % open.len()];
                    world.input(In::Checkpoint(setup, Stage::Established, meta))
                }
                6 if !open.is_empty() => {
                    let (setup, _) = open.swap_remove(usize::from(n) % open.len());
                    world.input(In::Released(setup))
                }
                7 => world.input(if flag { In::AddStatic(id) } else { In::RemoveStatic(id) }),
                8 => world.input(if flag { In::AddTrusted(id) } else { In::RemoveTrusted(id) }),
                9 => world.input(In::Remove(id)),
                10 => world.input(if flag { In::Ban(Banned::Id(id), BAN_TIME) } else { In::Unban(Banned::Id(id)) }),
                11 => {
                    let only = flag.then(|| (1..n).map(node).collect());
                    world.input(In::Admission(Arc::new(Admission { only, ..Admission::open() })))
                }
                12 => world.wait(Duration::from_secs(60 * u64::from(n))),
                99 => {
                    for (setup, _) in std::mem::take(&mut open) {
                        for out in world.input(In::Released(setup)) {
                            let Out::InboundDone(id) = out else { panic!("{out:?}") };
                            *pending.entry(id).or_default() -= 1;
                        }
                    }
                    world.input(In::Shutdown)
                }
                _ => match up.values().next().copied() {
                    Some(session) => {
                        let ended = Ended { reason: DisconnectReason::ProtocolError, by: EndedBy::Us };
                        world.input(In::Ended(session, ended))
                    }
                    None => Vec::new(),
                },
            };
            if op == 99 {
                outs.extend(world.wait(Duration::from_secs(60)));
            }
            for out in outs {
                match out {
                    Out::PeerUp(session, meta) => prop_assert_eq!(up.insert(meta.id, session), None),
                    Out::PeerDown { session, meta, .. } => prop_assert_eq!(up.remove(&meta.id), Some(session)),
                    Out::InboundPending(id) => *pending.entry(id).or_default() += 1,
                    Out::InboundDone(id) => *pending.entry(id).or_default() -= 1,
                    Out::Stopped => stopped = true,
                    _ => {}
                }
            }
            let machine = world.driver.machine();
            prop_assert!(pending.values().all(|count| (0..=1).contains(count)), "{:?}", pending);
            prop_assert_eq!(pending.values().sum::<i32>() as usize, machine.pending_inbound().count());
            prop_assert_eq!(machine.peers.len(), machine.sessions.len());
            prop_assert!(machine.reserved.values().all(|setup| machine.setups.contains_key(setup)));
            prop_assert!(machine.seen_at.keys().all(|id| machine.is_static(id) || machine.is_trusted(id)));
        }
        let machine = world.driver.machine();
        prop_assert!(machine.reserved.is_empty() && machine.setups.is_empty() && up.is_empty() && stopped);
    }
}

#[test]
fn limits_that_change_end_no_session_and_hold_for_who_comes() {
    let mut world = World::new(6);
    for n in 1..=4 {
        assert!(world.add(meta(n, Inbound)).is_ok());
    }
    let mut limits = crate::Limits::of(&Config { max_peers: 3, ..config() });
    assert_eq!(world.input(In::Limits(Box::new(limits.clone()))), []);
    assert_eq!(world.peers(), 4);
    assert_eq!(world.add(meta(5, Outbound)), Err(DisconnectReason::TooManyPeers));
    (limits.max_peers, limits.dial_ratio) = (20, 2);
    limits.reputation.disconnect_at = 10;
    limits.reputation.ban_at = 10;
    world.input(In::Limits(Box::new(limits)));
    for n in 5..=10 {
        assert!(world.add(meta(n, Inbound)).is_ok(), "{n}");
    }
    assert_eq!(world.add(meta(11, Inbound)), Err(DisconnectReason::TooManyPeers), "half of them are to be dialled");
    let outs = world.input(In::Blame(node(1), Penalty::MalformedMessage));
    assert!(outs.iter().any(|out| matches!(out, Out::Banned(..))), "by the new threshold: {outs:?}");
}
