//! Many machines, joined by links that lose pushes: everything arrives at each, once.

use std::collections::BTreeMap;

use super::*;

/// How a link loses a push.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Loss {
    /// The sender is told.
    Reported,
    /// Nobody is.
    Silent,
}

pub(super) struct Network {
    pub(super) nodes: Vec<Node>,
    /// What each node delivered, and how often.
    pub(super) delivered: Vec<BTreeMap<MessageId, usize>>,
    /// Under way: when, in which order, to whom, from whom, what.
    queue: BTreeMap<(Time, u64), (usize, usize, Bytes)>,
    next: u64,
    now: Time,
    rng: Rng,
    loss: Loss,
    pub(super) percent: u64,
    digest: blake3::Hasher,
    /// Bytes that were sent.
    pub(super) bytes: usize,
}

impl Network {
    /// A ring with chords, so that nothing is more than a few hops away and nobody has everybody.
    fn new(count: usize, loss: Loss, percent: u64, seed: u64) -> Network {
        Network::with(Config::test(), count, loss, percent, seed)
    }

    pub(super) fn with(config: Config, count: usize, loss: Loss, percent: u64, seed: u64) -> Network {
        let mut nodes: Vec<Node> = (0..count).map(|n| Node::with(n as u8, config.clone())).collect();
        nodes.iter_mut().for_each(|node| node.subscribe(Policy::Signed));
        let mut network = Network {
            delivered: nodes.iter().map(|_| BTreeMap::new()).collect(),
            nodes,
            queue: BTreeMap::new(),
            next: 0,
            now: at(0),
            rng: Rng::new(seed),
            loss,
            percent,
            digest: blake3::Hasher::new(),
            bytes: 0,
        };
        for a in 0..count {
            for step in [1, 3, 7] {
                let b = (a + step) % count;
                for (here, there) in [(a, b), (b, a)] {
                    let id = keys(there as u8).id();
                    let up = In::PeerUp(PeerUp::new(SessionId(there as u64), id, ChannelId(1)));
                    network.feed(here, up);
                }
            }
        }
        network
    }

    pub(super) fn feed(&mut self, node: usize, input: In) {
        let outs = self.nodes[node].feed(self.now, input);
        self.perform(node, outs);
    }

    fn perform(&mut self, node: usize, outs: Vec<Out>) {
        for out in outs {
            match out {
                Out::Deliver(message) => *self.delivered[node].entry(message.id).or_default() += 1,
                Out::Push(push) => {
                    for recipient in push.to {
                        self.send(node, recipient.session, push.bytes.clone(), push.tag);
                    }
                }
                Out::Report { penalty, .. } => panic!("an honest node was blamed: {penalty:?}"),
                _ => {}
            }
        }
    }

    fn send(&mut self, from: usize, session: SessionId, bytes: Bytes, tag: u64) {
        self.bytes += bytes.len();
        if self.rng.below(100) < self.percent {
            if self.loss == Loss::Reported {
                self.feed(from, In::SendFailed { session, tag });
            }
            return;
        }
        // FIFO on each link, as sessions are: a constant delay for each.
        let to = session.0 as usize;
        let delay = Duration::from_millis(5 + ((from * 31 + to * 17) % 40) as u64);
        self.queue.insert((self.now + delay, self.next), (to, from, bytes));
        self.next += 1;
    }

    pub(super) fn publish(&mut self, node: usize, payload: String) {
        let publish =
            In::Publish { token: 1, topic: topic(), policy: Policy::Signed, payload: payload.into(), pressed: false };
        self.feed(node, publish);
    }

    pub(super) fn run_until(&mut self, end: Time) {
        loop {
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let timer = self.nodes.iter().filter_map(|node| node.driver.next_deadline()).min();
            let Some(next) = [arrival, timer].into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, from, payload) = entry.remove();
                self.digest.update(&[to as u8, from as u8]);
                self.digest.update(&payload);
                self.feed(to, In::Inbound { session: SessionId(from as u64), payload });
            }
            for node in 0..self.nodes.len() {
                let outs = self.nodes[node].expire(self.now);
                self.perform(node, outs);
            }
        }
        self.now = end;
    }

    pub(super) fn assert_all_once(&self, messages: usize) {
        for (node, delivered) in self.delivered.iter().enumerate() {
            assert_eq!(delivered.len(), messages, "node {node}");
            assert!(delivered.values().all(|times| *times == 1), "node {node} delivered something twice");
        }
    }
}

fn run(loss: Loss, percent: u64, seed: u64) -> Network {
    let mut network = Network::new(20, loss, percent, seed);
    network.run_until(at(3_000));
    for n in 0..50u64 {
        network.publish((n * 7 % 20) as usize, format!("message {n}"));
        network.run_until(at(3_000 + 20 * n));
    }
    network.run_until(at(125_000));
    network
}

#[test]
fn everything_arrives_once_everywhere_when_three_pushes_in_ten_are_refused() {
    run(Loss::Reported, 30, 1).assert_all_once(50);
}

#[test]
fn everything_arrives_once_everywhere_when_pushes_vanish() {
    run(Loss::Silent, 30, 2).assert_all_once(50);
}

#[test]
fn without_loss_everything_is_there_at_once_and_nothing_is_asked_for() {
    let mut network = Network::new(20, Loss::Silent, 0, 3);
    network.run_until(at(1_500));
    network.publish(0, "hi".to_owned());
    network.run_until(at(1_900));
    network.assert_all_once(1);
}

#[test]
fn equal_seeds_give_equal_runs() {
    let digest = |seed| run(Loss::Silent, 30, seed).digest.finalize();
    assert_eq!(digest(5), digest(5));
    assert_ne!(digest(5), digest(6));
}

#[test]
fn a_node_that_comes_later_is_told_what_it_missed() {
    let mut network = Network::new(20, Loss::Silent, 0, 4);
    network.run_until(at(1_500));
    for other in 0..20u64 {
        network.feed(0, In::PeerDown { session: SessionId(other) });
        network.feed(other as usize, In::PeerDown { session: SessionId(0) });
    }
    (0..5).for_each(|n| network.publish(9, format!("message {n}")));
    network.run_until(at(30_000));
    assert!(network.delivered[0].is_empty());
    for (here, there) in [(0, 9), (9, 0)] {
        let up = In::PeerUp(PeerUp::new(SessionId(there), keys(there as u8).id(), ChannelId(1)));
        network.feed(here, up);
    }
    network.run_until(at(33_000));
    network.assert_all_once(5);
}
