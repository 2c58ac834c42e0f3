//! What must hold after any sequence of events.

use std::collections::{BTreeMap, BTreeSet};

use peerage_machine::{Backoff, Rng};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    AddStatic(u8, bool),
    RemoveStatic(u8),
    Up(u8, bool),
    Down(u8, bool, u64, Consequence),
    Pending(u8),
    PendingDone(u8),
    /// The answer to one of the latest attempts, or to one that never was.
    Done(usize, DialOutcome),
    Resolved(usize, Option<u8>),
    Candidates(Vec<u8>),
    Admit(u8),
    Pass(u64),
}

/// The policies that take turns.
fn policy(which: u8) -> Admission {
    let odd = (1..20).step_by(2).map(|n| format!("192.0.2.{n}/32").parse().expect("network"));
    match which {
        0 => Admission::open(),
        1 => Admission { denied: odd.collect(), ..Admission::open() },
        _ => Admission { only: Some((0..10).map(node).collect()), ..Admission::open() },
    }
}

const BOOTNODES: [u8; 3] = [17, 18, 19];

fn event() -> impl Strategy<Value = Event> {
    use peerage_wire::DisconnectReason as R;
    let outcome = prop_oneof![
        Just(DialOutcome::Connected),
        Just(DialOutcome::ConnectFailed),
        Just(DialOutcome::TimedOut),
        Just(DialOutcome::Cancelled),
        Just(DialOutcome::HandshakeFailed(R::TooManyPeers)),
        Just(DialOutcome::HandshakeFailed(R::WrongNetwork)),
        Just(DialOutcome::HandshakeFailed(R::AlreadyConnected)),
    ];
    let consequence = prop_oneof![
        Just(Consequence::Ignore),
        Just(Consequence::BackOff),
        Just(Consequence::Avoid),
        Just(Consequence::Blame(peerage_wire::Penalty::Crash)),
    ];
    let n = 0..20u8;
    prop_oneof![
        (n.clone(), any::<bool>()).prop_map(|(n, address)| Event::AddStatic(n, address)),
        n.clone().prop_map(Event::RemoveStatic),
        (n.clone(), any::<bool>()).prop_map(|(n, dialled)| Event::Up(n, dialled)),
        (n.clone(), any::<bool>(), 0..100u64, consequence).prop_map(|(n, dialled, lived, consequence)| Event::Down(
            n,
            dialled,
            lived,
            consequence
        )),
        n.clone().prop_map(Event::Pending),
        n.clone().prop_map(Event::PendingDone),
        (0..8usize, outcome).prop_map(|(back, outcome)| Event::Done(back, outcome)),
        (0..8usize, proptest::option::of(n.clone())).prop_map(|(back, n)| Event::Resolved(back, n)),
        proptest::collection::vec(n, 0..8).prop_map(Event::Candidates),
        (0..3u8).prop_map(Event::Admit),
        (0..60_000u64).prop_map(Event::Pass),
    ]
}

/// What the outside knows, kept without looking into the machine.
#[derive(Default)]
struct Outside {
    connected: BTreeSet<NodeId>,
    pending: BTreeMap<NodeId, u32>,
    /// When each node may be dialled again, and in which attempt it was last.
    dialled: BTreeMap<NodeId, (Time, Attempt)>,
    admission: Admission,
}

fn limits() -> Config {
    Config {
        max_dial_peers: 4,
        max_active_dials: 5,
        max_static_dials: 2,
        max_static_peers: 3,
        max_statics: 6,
        max_remembered: 9,
        // Nobody is saved by the sweep: an event that was missed shows.
        sweep: secs(1_000_000),
        resolve: Backoff { base: secs(60), cap: secs(120) },
        ..Config::recommended()
    }
}

impl Outside {
    fn check(&mut self, rig: &mut Rig) {
        let limits = limits();
        let now = rig.now;
        for out in rig.take() {
            match out {
                Out::Dial { attempt, target } => {
                    assert_ne!(target.id, node(0), "dialled itself");
                    assert!(!target.addresses.is_empty());
                    let statics = &rig.driver.machine().statics;
                    let connected = self.connected.iter().filter(|id| statics.contains(id)).count();
                    assert!(!target.is_static || connected < limits.max_static_peers as usize, "no place for it");
                    assert!(!self.connected.contains(&target.id), "dialled a connected peer");
                    assert!(!self.pending.contains_key(&target.id), "dialled a peer that is dialling us");
                    assert!(self.admission.permits_id(&target.id), "dialled who is not admitted");
                    assert!(target.addresses.iter().all(|address| self.admission.permits_ip(address.ip())));
                    let last = self.dialled.insert(target.id, (now + limits.history, attempt));
                    if let Some((free_at, earlier)) = last {
                        // Who was named may be pushed out of the small memory, candidates may not.
                        let is_named = target.is_static || BOOTNODES.iter().any(|n| node(*n) == target.id);
                        assert!(attempt == earlier || is_named || now >= free_at, "dialled again too early");
                    }
                }
                Out::Want(count) => assert!(count.get() <= limits.max_active_dials),
                _ => {}
            }
        }
        let machine = rig.driver.machine();
        let status = machine.status();
        assert!(status.dialing <= limits.max_active_dials);
        assert!(status.dialing_static <= limits.max_static_dials);
        assert!(status.statics <= limits.max_statics);
        assert!(status.remembered <= limits.max_remembered);
        assert!(machine.waiting.len() <= limits.max_active_dials as usize);
        assert_eq!(machine.in_flight.len(), machine.attempt_of.len());
        for flight in machine.in_flight.values() {
            assert!(self.admission.permits_id(&flight.id));
            assert!(flight.current().iter().all(|address| self.admission.permits_ip(address.ip())));
        }
    }

    /// All that could be in anybody's way goes, and every dial fails: static peers are dialled again and again.
    fn all_is_quiet(self, rig: &mut Rig) {
        for id in self.connected {
            rig.tell(In::PeerDown { id, dialled: true, lived: STABLE, consequence: Consequence::BackOff });
        }
        for (id, count) in self.pending {
            for _ in 0..count {
                rig.tell(In::InboundDone(id));
            }
        }
        rig.admit(Admission::open());
        let mut dials: BTreeMap<NodeId, u32> = BTreeMap::new();
        for _ in 0..20 * 60 {
            rig.pass(secs(1));
            while !rig.outs.is_empty() {
                for out in rig.take() {
                    match out {
                        Out::Dial { attempt, target } => {
                            *dials.entry(target.id).or_default() += 1;
                            rig.done(attempt, DialOutcome::ConnectFailed);
                        }
                        Out::Resolve { attempt, id } => {
                            let n = (0..20).find(|n| node(*n) == id).expect("one of these");
                            rig.resolved(attempt, Some(record(n)));
                        }
                        _ => {}
                    }
                }
            }
        }
        for id in rig.driver.machine().statics.ids() {
            assert!(dials.get(&id).is_some_and(|count| *count >= 2), "a static peer was lost: {dials:?}");
        }
        // What is answered at once is over at once.
        assert!(rig.driver.machine().in_flight.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_sequence_of_events_breaks_a_bound_or_dials_whom_it_must_not(
        events in proptest::collection::vec(event(), 0..120),
        seed: u64,
    ) {
        let mut rig = Rig::stopped(limits(), seed);
        let mut outside = Outside::default();
        let mut latest: Vec<Attempt> = Vec::new();
        rig.tell(In::Bootnodes(BOOTNODES.map(named).to_vec()));
        rig.tell(In::Start);
        for event in events {
            match event {
                Event::AddStatic(n, address) => {
                    let peer = if address { named(n) } else { StaticPeer::new(node(n), []) };
                    if let Some((free_at, _)) = outside.dialled.get_mut(&node(n)) {
                        *free_at = (*free_at).min(rig.now + limits().readd_after);
                    }
                    rig.tell(In::AddStatic(peer));
                }
                Event::RemoveStatic(n) => rig.tell(In::RemoveStatic(node(n))),
                Event::Admit(which) => {
                    outside.admission = policy(which);
                    rig.admit(policy(which));
                }
                Event::Up(n, dialled) => {
                    outside.connected.insert(node(n));
                    rig.up(n, dialled);
                }
                Event::Down(n, dialled, lived, consequence) => {
                    outside.connected.remove(&node(n));
                    rig.ended(n, dialled, secs(lived), consequence);
                }
                Event::Pending(n) => {
                    *outside.pending.entry(node(n)).or_default() += 1;
                    rig.tell(In::InboundPending(node(n)));
                }
                Event::PendingDone(n) => {
                    if let Some(pending) = outside.pending.get_mut(&node(n)) {
                        *pending -= 1;
                    }
                    outside.pending.retain(|_, pending| *pending > 0);
                    rig.tell(In::InboundDone(node(n)));
                }
                Event::Done(back, outcome) => {
                    let attempt = latest.iter().rev().nth(back).copied().unwrap_or(Attempt(u64::MAX));
                    rig.done(attempt, outcome);
                }
                Event::Resolved(back, n) => {
                    let attempt = latest.iter().rev().nth(back).copied().unwrap_or(Attempt(u64::MAX));
                    rig.resolved(attempt, n.map(record));
                }
                Event::Candidates(numbers) => rig.tell(In::Candidates(records(numbers))),
                Event::Pass(millis) => {
                    // Step by step, so that what is dialled is judged at its instant.
                    let until = rig.now + Duration::from_millis(millis);
                    while let Some(at) = rig.driver.next_deadline().filter(|at| *at <= until) {
                        rig.pass(at.since(rig.now));
                        outside.check(&mut rig);
                    }
                    rig.pass(until.since(rig.now));
                }
            }
            latest.extend(rig.outs.iter().filter_map(|out| match out {
                Out::Dial { attempt, .. } | Out::Resolve { attempt, .. } => Some(*attempt),
                _ => None,
            }));
            outside.check(&mut rig);
        }
        // Nothing is in flight for ever.
        rig.pass(secs(1));
        let before = rig.driver.machine().next_attempt;
        rig.pass(secs(120));
        prop_assert!(rig.driver.machine().in_flight.keys().all(|attempt| attempt.0 >= before));
        outside.all_is_quiet(&mut rig);
    }

    #[test]
    fn however_dials_end_no_more_peers_are_dialled_than_wanted(seed: u64, wanted in 1..8u32) {
        let mut rng = Rng::new(seed);
        let mut world = World::new(wanted);
        for _ in 0..300 {
            match rng.below(6) {
                0 => world.find(&mut rng, 8),
                1 => world.fail(&mut rng),
                2 => world.lose(&mut rng),
                // Two dials may succeed before the machine has heard of the first one's success.
                3 => (0..=rng.below(2)).for_each(|_| world.connect(&mut rng)),
                _ => world.pass(&mut rng),
            }
            world.check();
        }
        for _ in 0..60 {
            world.find(&mut rng, 30);
            world.connect(&mut rng);
            world.pass(&mut rng);
            world.check();
        }
        prop_assert_eq!(world.rig.driver.machine().status().dialled_peers, wanted, "all slots are still there");
    }
}

/// Thirty nodes that can be found, and what the connector has in flight.
struct World {
    rig: Rig,
    wanted: u32,
    nodes: BTreeMap<NodeId, Verified<NodeRecord>>,
    in_flight: Vec<(Attempt, NodeId)>,
    peers: Vec<NodeId>,
}

impl World {
    fn new(wanted: u32) -> World {
        let rig = Rig::new(Config { max_dial_peers: wanted, max_active_dials: 10, ..Config::local() });
        let nodes = (1..=30).map(|n| (node(n), record(n))).collect();
        World { rig, wanted, nodes, in_flight: Vec::new(), peers: Vec::new() }
    }

    fn find(&mut self, rng: &mut Rng, count: usize) {
        let mut records: Vec<_> = self.nodes.values().cloned().collect();
        let sample = rng.sample(&mut records, count).to_vec();
        self.rig.tell(In::Candidates(sample.into_iter().map(found).collect()));
    }

    fn draw<T>(from: &mut Vec<T>, rng: &mut Rng) -> Option<T> {
        rng.index(from.len()).map(|index| from.swap_remove(index))
    }

    fn fail(&mut self, rng: &mut Rng) {
        if let Some((attempt, _)) = Self::draw(&mut self.in_flight, rng) {
            self.rig.done(attempt, DialOutcome::ConnectFailed);
        }
    }

    fn lose(&mut self, rng: &mut Rng) {
        if let Some(id) = Self::draw(&mut self.peers, rng) {
            self.rig.tell(In::PeerDown {
                id,
                dialled: true,
                lived: secs(rng.below(10)),
                consequence: Consequence::BackOff,
            });
        }
    }

    fn connect(&mut self, rng: &mut Rng) {
        if let Some((attempt, id)) = Self::draw(&mut self.in_flight, rng) {
            self.rig.tell(In::PeerUp { id, dialled: true });
            self.rig.done(attempt, DialOutcome::Connected);
            self.peers.push(id);
            self.perform();
        }
    }

    fn pass(&mut self, rng: &mut Rng) {
        self.rig.pass(Duration::from_millis(rng.below(3_000)));
    }

    fn perform(&mut self) {
        for out in self.rig.take() {
            match out {
                Out::Dial { attempt, target } => self.in_flight.push((attempt, target.id)),
                Out::Cancel(attempt) => self.in_flight.retain(|(kept, _)| *kept != attempt),
                _ => {}
            }
        }
    }

    fn check(&mut self) {
        self.perform();
        let status = self.rig.driver.machine().status();
        assert!(status.dialled_peers <= self.wanted && status.dialing <= 10, "{status:?}");
        assert!(status.dialled_peers < self.wanted || status.dialing == 0, "{status:?}");
        assert_eq!(status.dialing as usize, self.in_flight.len(), "no slot is taken by a dial that has ended");
    }
}
