//! Who lies in discovery: false neighbours, false records, false addresses, and a victim courted until its table is full.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use peerage_discovery::wire::{self, Cookie, Kind, MAX_NEIGHBORS, Message, Nonce, Packet};
use peerage_discovery::{DiscoveryMachine, In, Inbound, Key, Out, Outgoing};
use peerage_machine::{Rng, Time};
use peerage_wire::{NodeId, NodeRecord};

use super::den::{Den, forged};
use super::hostile::Mind;
use super::pace::Pace;

/// How long a packet is good for.
const LIFETIME: Duration = Duration::from_secs(20);
/// Counters from here on are the attacker's own requests.
const OWN: u64 = 1 << 62;
/// Records of others that are kept to be forged.
const SAMPLES: usize = 64;

fn answer(now: Time, to: NodeId, addr: SocketAddr, nonce: Nonce, message: Message) -> Out {
    let expiry = now.unix().saturating_add(LIFETIME).as_secs();
    Out::Send(Outgoing { to, addr, packet: Packet { nonce, cookie: Cookie::NONE, expiry, message } })
}

/// To whom, and of whom, it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    /// To everybody: of its fellows, of nodes that are not there, and of true ones with records that they did not sign.
    /// And everybody is told a false address.
    Everything,
    /// To everybody, of its fellows alone.
    Fellows,
    /// Likewise, but the truth to all but the victim.
    FellowsToTheVictim,
}

/// Answers questions for neighbours with lies, from a moment on.
pub(super) struct Liar {
    den: Rc<Den>,
    lies: Lies,
    from: Time,
    seed: u64,
    samples: BTreeMap<NodeId, NodeRecord>,
}

impl Liar {
    pub(super) fn new(den: Rc<Den>, lies: Lies, from: Time, seed: u64) -> Liar {
        Liar { den, lies, from, seed, samples: BTreeMap::new() }
    }

    fn lies_to(&self, now: Time, whom: NodeId) -> bool {
        now >= self.from && (self.lies != Lies::FellowsToTheVictim || self.den.is_victim(whom))
    }

    fn neighbors(&self, target: &Key) -> Vec<NodeRecord> {
        let mut records = Vec::new();
        if self.lies == Lies::Everything {
            records.extend(self.den.invented(self.seed, target, MAX_NEIGHBORS / 2));
            records.extend(self.samples.values().filter_map(forged).take(MAX_NEIGHBORS / 4));
        }
        records.extend(self.den.fellows(target, MAX_NEIGHBORS - records.len()));
        records
    }

    /// Remembers what it is told, to be forged.
    fn sample(&mut self, records: &[NodeRecord]) {
        for record in records {
            if self.samples.len() < SAMPLES {
                self.samples.insert(record.id(), record.clone());
            }
        }
    }
}

impl Mind<DiscoveryMachine> for Liar {
    fn hears(&mut self, now: Time, input: In, outs: &mut Vec<Out>) -> Option<In> {
        if let In::Packet(Inbound { from, addr, packet }) = &input {
            match &packet.message {
                Message::Neighbors { records, .. } => self.sample(records),
                Message::FindNode { target } if self.lies_to(now, *from) => {
                    let told = wire::neighbors(&self.neighbors(target));
                    outs.extend(told.into_iter().map(|message| answer(now, *from, *addr, packet.nonce, message)));
                }
                _ => {}
            }
        }
        Some(input)
    }

    fn says(&mut self, now: Time, out: Out, outs: &mut Vec<Out>) {
        match out {
            Out::Send(outgoing) if self.lies_to(now, outgoing.to) => match outgoing.packet.message {
                // It has answered that itself.
                Message::Neighbors { .. } => {}
                Message::Pong { record_seq, .. } if self.lies == Lies::Everything => {
                    let observed = (Ipv4Addr::new(120, 9, 9, 9), 9).into();
                    let message = Message::Pong { record_seq, observed };
                    outs.push(Out::Send(Outgoing { packet: Packet { message, ..outgoing.packet }, ..outgoing }));
                }
                _ => outs.push(Out::Send(outgoing)),
            },
            out => outs.push(out),
        }
    }
}

/// Lies to its victim, and speaks to it all the time, so that it is learnt of and remembered.
pub(super) struct Courtier {
    liar: Liar,
    pace: Pace,
    rng: Rng,
    cookie: Cookie,
    /// The sequence of its own record.
    record_seq: u64,
    asked: u64,
}

impl Courtier {
    pub(super) fn new(liar: Liar, pace: Pace, seed: u64, record_seq: u64) -> Courtier {
        Courtier { liar, pace, rng: Rng::new(seed), cookie: Cookie::NONE, record_seq, asked: 0 }
    }
}

impl Mind<DiscoveryMachine> for Courtier {
    fn hears(&mut self, now: Time, input: In, outs: &mut Vec<Out>) -> Option<In> {
        match &input {
            In::Packet(Inbound { packet, .. })
                if packet.nonce.counter >= OWN && !packet.message.kind().is_request() =>
            {
                if packet.message.kind() == Kind::Cookie {
                    self.cookie = packet.cookie;
                }
                None
            }
            _ => self.liar.hears(now, input, outs),
        }
    }

    fn says(&mut self, now: Time, out: Out, outs: &mut Vec<Out>) {
        self.liar.says(now, out, outs);
    }

    fn next(&self) -> Option<Time> {
        Some(self.pace.next())
    }

    fn acts(&mut self, now: Time, outs: &mut Vec<Out>) -> Vec<In> {
        let Some((to, addr)) = self.liar.den.victim else { return Vec::new() };
        for _ in 0..self.pace.take(now) {
            self.asked += 1;
            let message = match self.asked % 2 {
                0 => Message::FindNode { target: Key::from_bytes(self.rng.bytes()) },
                _ => Message::Ping { record_seq: self.record_seq },
            };
            let nonce = Nonce { counter: OWN | self.asked, mac: [0; 8] };
            let expiry = now.unix().saturating_add(LIFETIME).as_secs();
            let packet = Packet { nonce, cookie: self.cookie, expiry, message };
            outs.push(Out::Send(Outgoing { to, addr, packet }));
        }
        Vec::new()
    }
}
