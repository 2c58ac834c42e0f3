//! What must hold after any sequence of events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    AddStatic(u8, bool),
    RemoveStatic(u8),
    Up(u8, bool),
    Down(u8, bool, u64),
    Pending(u8),
    PendingDone(u8),
    /// The answer to one of the latest attempts, or to one that never was.
    Done(usize, DialOutcome),
    Resolved(usize, Option<u8>),
    Candidates(Vec<u8>),
    Pass(u64),
}

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
    let n = 0..20u8;
    prop_oneof![
        (n.clone(), any::<bool>()).prop_map(|(n, address)| Event::AddStatic(n, address)),
        n.clone().prop_map(Event::RemoveStatic),
        (n.clone(), any::<bool>()).prop_map(|(n, dialled)| Event::Up(n, dialled)),
        (n.clone(), any::<bool>(), 0..100u64).prop_map(|(n, dialled, lived)| Event::Down(n, dialled, lived)),
        n.clone().prop_map(Event::Pending),
        n.clone().prop_map(Event::PendingDone),
        (0..8usize, outcome).prop_map(|(back, outcome)| Event::Done(back, outcome)),
        (0..8usize, proptest::option::of(n.clone())).prop_map(|(back, n)| Event::Resolved(back, n)),
        proptest::collection::vec(n, 0..8).prop_map(Event::Candidates),
        (0..60_000u64).prop_map(Event::Pass),
    ]
}

/// What the outside knows, kept without looking into the machine.
#[derive(Default)]
struct Outside {
    connected: BTreeSet<NodeId>,
    pending: BTreeMap<NodeId, u32>,
    /// When each node was last dialled, and in which attempt.
    dialled: BTreeMap<NodeId, (Time, Attempt)>,
    asked: u32,
}

fn limits() -> Config {
    Config {
        max_dial_peers: 4,
        max_active_dials: 5,
        max_static_dials: 2,
        max_statics: 6,
        max_remembered: 9,
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
                    assert!(!self.connected.contains(&target.id), "dialled a connected peer");
                    assert!(!self.pending.contains_key(&target.id), "dialled a peer that is dialling us");
                    let last = self.dialled.insert(target.id, (now, attempt));
                    if let Some((at, earlier)) = last {
                        // Static peers may push each other out of the small memory, candidates may not.
                        let kept = attempt == earlier || target.is_static || now.since(at) >= limits.history;
                        assert!(kept, "dialled again after {:?}", now.since(at));
                    }
                }
                Out::Want(count) => {
                    self.asked = count.get();
                    assert!(count.get() <= limits.max_active_dials);
                }
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
    }
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_a_bound_or_dials_whom_it_must_not(
        events in proptest::collection::vec(event(), 0..120),
        seed: u64,
    ) {
        let mut rig = Rig::stopped(limits(), seed);
        let mut outside = Outside::default();
        let mut latest: Vec<Attempt> = Vec::new();
        rig.tell(In::Start);
        for event in events {
            match event {
                Event::AddStatic(n, address) => {
                    let peer = if address { named(n) } else { StaticPeer::new(node(n), []) };
                    rig.tell(In::AddStatic(peer));
                }
                Event::RemoveStatic(n) => rig.tell(In::RemoveStatic(node(n))),
                Event::Up(n, dialled) => {
                    outside.connected.insert(node(n));
                    rig.up(n, dialled);
                }
                Event::Down(n, dialled, lived) => {
                    outside.connected.remove(&node(n));
                    rig.down(n, dialled, secs(lived));
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
    }
}
