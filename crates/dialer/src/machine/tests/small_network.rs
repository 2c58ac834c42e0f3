//! Eight dialers with the local configuration, and a network that is only delays.

use std::collections::BTreeMap;

use peerage_wire::DisconnectReason;

use super::*;

const NODES: u8 = 8;

enum Event {
    Tell(u8, In),
    /// The connection of a dial reaches its target; then its set-up ends.
    Arrive {
        from: u8,
        to: u8,
        attempt: Attempt,
    },
    SetUp {
        from: u8,
        to: u8,
        attempt: Attempt,
    },
}

struct Network {
    now: Time,
    nodes: Vec<Driver<DialerMachine>>,
    alive: Vec<bool>,
    sessions: BTreeMap<(u8, u8), (u8, Time)>,
    events: BTreeMap<(Time, u64), Event>,
    next: u64,
    rng: Rng,
}

fn dialer(n: u8, seed: u64) -> Driver<DialerMachine> {
    Driver::new(DialerMachine::new(Config::local(), node(n), Rng::new(seed)).expect("a good configuration"))
}

fn pair(a: u8, b: u8) -> (u8, u8) {
    (a.min(b), a.max(b))
}

impl Network {
    fn new(seed: u64) -> Network {
        let mut network = Network {
            now: Time::ZERO,
            nodes: (0..NODES).map(|n| dialer(n, seed + u64::from(n))).collect(),
            alive: vec![true; usize::from(NODES)],
            sessions: BTreeMap::new(),
            events: BTreeMap::new(),
            next: 0,
            rng: Rng::new(seed),
        };
        for n in 0..NODES {
            network.after(0, Event::Tell(n, In::Start));
        }
        network
    }

    fn after(&mut self, millis: u64, event: Event) {
        self.events.insert((self.now + Duration::from_millis(millis), self.next), event);
        self.next += 1;
    }

    fn alive(&self, n: u8) -> bool {
        self.alive[usize::from(n)]
    }

    fn tell(&mut self, n: u8, input: In) {
        if self.alive(n) {
            self.nodes[usize::from(n)].handle(self.now, input);
            self.perform(n);
        }
    }

    fn perform(&mut self, n: u8) {
        let outs: Vec<Out> = self.nodes[usize::from(n)].drain().collect();
        for out in outs {
            match out {
                Out::Want(count) => {
                    let mut others: Vec<u8> = (0..NODES).filter(|other| *other != n).collect();
                    let found = self.rng.sample(&mut others, count.get() as usize).to_vec();
                    self.after(30, Event::Tell(n, In::Candidates(records(found))));
                }
                Out::Dial { attempt, target } => {
                    let to = (0..NODES).find(|to| node(*to) == target.id).expect("one of the network");
                    let delay = 1 + self.rng.below(20);
                    self.after(delay, Event::Arrive { from: n, to, attempt });
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Tell(n, input) => self.tell(n, input),
            Event::Arrive { from, to, attempt } if self.alive(to) => {
                self.tell(to, In::InboundPending(node(from)));
                self.after(10, Event::SetUp { from, to, attempt });
            }
            Event::Arrive { from, attempt, .. } => {
                self.tell(from, In::Done { attempt, outcome: DialOutcome::ConnectFailed });
            }
            Event::SetUp { from, to, attempt } => {
                let outcome = if !self.alive(to) {
                    DialOutcome::HandshakeFailed(DisconnectReason::NetworkError)
                } else if !self.alive(from) {
                    DialOutcome::Cancelled
                } else if self.sessions.contains_key(&pair(from, to)) {
                    DialOutcome::HandshakeFailed(DisconnectReason::AlreadyConnected)
                } else {
                    self.sessions.insert(pair(from, to), (from, self.now));
                    self.tell(from, In::PeerUp { id: node(to), dialled: true });
                    self.tell(to, In::PeerUp { id: node(from), dialled: false });
                    DialOutcome::Connected
                };
                self.tell(to, In::InboundDone(node(from)));
                self.tell(from, In::Done { attempt, outcome });
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let event_at = self.events.keys().next().map(|(at, _)| *at);
            let due = (0..NODES).filter_map(|n| Some((self.nodes[usize::from(n)].next_deadline()?, n))).min();
            match (event_at, due) {
                (Some(at), due) if at <= until && due.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    if let Some((_, event)) = self.events.pop_first() {
                        self.apply(event);
                    }
                }
                (_, Some((at, n))) if at <= until => {
                    self.now = self.now.max(at);
                    self.nodes[usize::from(n)].expire_due(self.now);
                    self.perform(n);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn kill(&mut self, n: u8) {
        self.alive[usize::from(n)] = false;
        let lost: Vec<_> = self.sessions.keys().copied().filter(|(a, b)| *a == n || *b == n).collect();
        for (a, b) in lost {
            let (dialler, since) = self.sessions.remove(&(a, b)).expect("listed a line above");
            let survivor = if a == n { b } else { a };
            let lived = self.now.since(since);
            self.tell(
                survivor,
                In::PeerDown { id: node(n), dialled: dialler == survivor, lived, consequence: Consequence::BackOff },
            );
        }
        // A dead node keeps no timers.
        self.nodes[usize::from(n)] = dialer(n, 99);
    }

    /// The node is back, and waits to be dialled: it knows nobody.
    fn restart_silent(&mut self, n: u8) {
        self.alive[usize::from(n)] = true;
    }

    fn sessions_of(&self, n: u8) -> usize {
        self.sessions.keys().filter(|(a, b)| *a == n || *b == n).count()
    }
}

#[test]
fn eight_local_nodes_are_fully_connected_within_two_seconds() {
    for seed in 1..=5 {
        let mut network = Network::new(seed);
        network.run(secs(2));
        assert_eq!(network.sessions.len(), 28, "seed {seed}");
    }
}

#[test]
fn a_local_node_that_was_killed_is_dialled_by_the_others_two_seconds_after_it_is_back() {
    for seed in 1..=5 {
        let mut network = Network::new(seed);
        network.run(secs(10));
        network.kill(3);
        network.run(secs(5));
        assert_eq!(network.sessions_of(3), 0);
        network.restart_silent(3);
        network.run(Duration::from_millis(3_000));
        assert_eq!(network.sessions_of(3), 7, "seed {seed}");
    }
}
