//! Who publishes to do harm: spammers and equivocators.

use std::collections::BTreeMap;

use peerage_gossip::wire::Parcel;
use peerage_gossip::{Claim, GossipMachine, In, MessageId, Origin, Out, Policy, Topic};
use peerage_machine::Time;
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Signature};

use super::crowd::{Crowd, push};
use super::hostile::Mind;
use super::pace::Pace;
use crate::engine::HostId;
use crate::node::Descriptor;

/// Tokens from here on are the attacker's own; a shell's are small.
pub(super) const OWN: u64 = 1 << 63;

/// Numbers what an attacker publishes.
pub(super) struct Numbers {
    host: HostId,
    used: u64,
    size: u32,
}

impl Numbers {
    pub(super) fn new(host: HostId, size: u32) -> Numbers {
        Numbers { host, used: 0, size }
    }

    pub(super) fn draw(&mut self) -> Descriptor {
        self.used += 1;
        Descriptor { number: Descriptor::HOSTILE | (u64::from(self.host.0) << 32) | self.used, size: self.size }
    }
}

/// Publishes messages that nobody can object to but for their number, and sends each to all of its peers.
pub(super) struct Spammer {
    pub(super) topics: Vec<(Topic, Policy)>,
    pub(super) pace: Pace,
    pub(super) numbers: Numbers,
}

impl Mind<GossipMachine> for Spammer {
    fn says(&mut self, _now: Time, out: Out, outs: &mut Vec<Out>) {
        match out {
            Out::Published { token, .. } if token >= OWN => {}
            out => outs.push(out),
        }
    }

    fn next(&self) -> Option<Time> {
        Some(self.pace.next())
    }

    fn acts(&mut self, now: Time, _outs: &mut Vec<Out>) -> Vec<In> {
        let due = self.pace.take(now);
        let topics = self.topics.iter().cycle();
        let publications = topics.take(if self.topics.is_empty() { 0 } else { due as usize });
        let publish = |(topic, policy): &(Topic, Policy)| {
            let what = self.numbers.draw();
            let (topic, policy, payload) = (topic.clone(), *policy, what.payload());
            In::Publish { token: OWN | what.number, topic, policy, payload, pressed: false }
        };
        publications.map(publish).collect()
    }
}

/// One half of a lie that waits for its signature.
struct Half {
    side: usize,
    sequence: u64,
    claim: Claim,
    what: Descriptor,
    signature: Option<Signature>,
}

/// Signs two messages with one sequence number, and tells one to half of its peers and the other to the rest.
pub(super) struct Equivocator {
    me: NodeId,
    topic: Topic,
    pace: Pace,
    numbers: Numbers,
    crowd: Crowd,
    /// By token; the two halves of a lie have tokens next to each other.
    lies: BTreeMap<u64, Half>,
    told: u64,
}

impl Equivocator {
    pub(super) fn new(me: NodeId, topic: Topic, pace: Pace, numbers: Numbers) -> Equivocator {
        Equivocator { me, topic, pace, numbers, crowd: Crowd::default(), lies: BTreeMap::new(), told: 0 }
    }

    fn tell(&mut self, token: u64, outs: &mut Vec<Out>) {
        let Some(Half { side, sequence, claim, what, signature: Some(signature) }) = self.lies.remove(&token) else {
            return;
        };
        let origin = Origin { publisher: self.me, sequence, issued: claim.issued, signature };
        let parcel = Parcel::new(self.topic.clone(), Some(origin), &what.payload());
        let [one, other] = self.crowd.halves();
        let to = if side == 0 { one } else { other };
        if !to.is_empty() {
            outs.push(push(to, Lane::Normal, parcel.bytes));
        }
    }
}

impl Mind<GossipMachine> for Equivocator {
    fn hears(&mut self, _now: Time, input: In, outs: &mut Vec<Out>) -> Option<In> {
        self.crowd.notes(&input);
        match input {
            In::Signed { token, signature } if token >= OWN => {
                if let Some(half) = self.lies.get_mut(&token) {
                    half.signature = Some(signature);
                    self.tell(token, outs);
                }
                None
            }
            input => Some(input),
        }
    }

    fn next(&self) -> Option<Time> {
        Some(self.pace.next())
    }

    fn acts(&mut self, now: Time, outs: &mut Vec<Out>) -> Vec<In> {
        let due = self.pace.take(now);
        if self.crowd.is_empty() {
            return Vec::new();
        }
        for _ in 0..due {
            self.told += 1;
            let clock = u64::try_from(now.unix().as_nanos()).unwrap_or(u64::MAX);
            let sequence = clock.saturating_add(self.told);
            for side in 0..2 {
                let what = self.numbers.draw();
                let id = MessageId::signed(&self.topic, &self.me, sequence, &what.payload());
                let claim = Claim { id, issued: now.unix_millis() };
                let token = OWN | (2 * self.told + side);
                self.lies.insert(token, Half { side: side as usize, sequence, claim, what, signature: None });
                outs.push(Out::Sign { token, claim, sequence });
            }
        }
        Vec::new()
    }
}
