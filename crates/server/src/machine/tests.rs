//! The run loop's rules, one by one.

use peerage_machine::Driver;
use proptest::prelude::*;

use super::*;
use crate::Config;

const OWN: u8 = 100;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn meta(n: u8, direction: Direction) -> Meta {
    Meta { id: node(n), direction, instance: u64::from(n) }
}

struct World {
    driver: Driver<ServerMachine>,
    now: Time,
    setups: u64,
}

impl World {
    /// `max_peers` of which a third is dialled.
    fn new(max_peers: u32) -> World {
        let config = Config { max_peers, ..Config::recommended() };
        World { driver: Driver::new(ServerMachine::new(node(OWN), &config)), now: Time::ZERO, setups: 0 }
    }

    fn input(&mut self, input: In) -> Vec<Out> {
        self.driver.handle(self.now, input);
        self.driver.drain().collect()
    }

    fn wait(&mut self, by: Duration) -> Vec<Out> {
        self.now += by;
        self.driver.expire_due(self.now);
        self.driver.drain().collect()
    }

    fn stage(&mut self, setup: Setup, stage: Stage, meta: Meta) -> Result<Option<SessionId>, DisconnectReason> {
        let outs = self.input(In::Checkpoint(setup, stage, meta));
        let verdict = outs.into_iter().find_map(|out| match out {
            Out::Verdict(of, verdict) if of == setup => Some(verdict),
            _ => None,
        });
        verdict.expect("every checkpoint is answered")
    }

    fn identify(&mut self, meta: Meta) -> Result<Setup, DisconnectReason> {
        self.setups += 1;
        let setup = Setup(self.setups);
        self.stage(setup, Stage::Identified, meta).map(|_| setup)
    }

    fn add(&mut self, meta: Meta) -> Result<SessionId, DisconnectReason> {
        let setup = self.identify(meta)?;
        let admitted = self.stage(setup, Stage::Established, meta);
        self.input(In::Released(setup));
        admitted.map(|session| session.expect("a session to start"))
    }

    fn peers(&self) -> usize {
        self.driver.machine().peers().count()
    }
}

use Direction::{Inbound, Outbound};

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
    world.driver.with(|machine, fx| machine.ban(Time::ZERO, node(1), fx));
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
        let mut ends = ids.map(|id| Driver::new(ServerMachine::new(id, &config)));
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
            let at = |end: usize| Meta {
                id: ids[1 - end],
                direction: if end == dialler { Outbound } else { Inbound },
                instance: 7,
            };
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
fn penalties_add_up_to_a_ban_that_ends() {
    let mut world = World::new(10);
    let session = world.add(meta(1, Inbound)).expect("free");
    assert_eq!(world.input(In::Report(session, Penalty::InvalidMessage)), []);
    let outs = world.input(In::Report(session, Penalty::InvalidMessage));
    assert_eq!(outs, [Out::Disconnect(session, DisconnectReason::Misbehaved), Out::Banned(node(1))]);
    assert_eq!(world.input(In::Report(session, Penalty::InvalidMessage)), [], "it is being ended already");
    world.input(In::Ended(session, Ended { reason: DisconnectReason::Misbehaved, by: EndedBy::Us }));
    assert_eq!(world.add(meta(1, Inbound)), Err(DisconnectReason::Banned));
    world.wait(Duration::from_secs(301));
    assert!(world.add(meta(1, Inbound)).is_ok());
    assert!(world.driver.machine().bans.is_empty());
}

#[test]
fn blame_outlasts_a_session_and_fades_with_time() {
    let idle = Ended { reason: DisconnectReason::Idle, by: EndedBy::Peer };
    let mut world = World::new(10);
    let first = world.add(meta(1, Inbound)).expect("free");
    world.input(In::Report(first, Penalty::MalformedMessage));
    world.input(In::Ended(first, idle));
    let second = world.add(meta(1, Inbound)).expect("free");
    let outs = world.input(In::Report(second, Penalty::MalformedMessage));
    assert_eq!(outs, [Out::Disconnect(second, DisconnectReason::Misbehaved), Out::Banned(node(1))]);

    let gone = world.add(meta(2, Inbound)).expect("free");
    world.input(In::Ended(gone, idle));
    assert_eq!(world.input(In::Crashed(gone)), [Out::Banned(node(2))], "hanging up does not help");

    let third = world.add(meta(3, Inbound)).expect("free");
    world.input(In::Report(third, Penalty::MalformedMessage));
    world.wait(Duration::from_secs(301));
    assert_eq!(world.input(In::Report(third, Penalty::MalformedMessage)), [], "an old mistake is forgiven");
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
            prop_assert_eq!(machine.reserved.len(), machine.setups.len());
        }
        for (setup, _) in open {
            world.input(In::Released(setup));
        }
        prop_assert!(world.driver.machine().reserved.is_empty(), "no place leaks");
    }
}
