//! Who abuses coded broadcast: who damages the shards that it is sent, and who signs what is no code's.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use peerage_gossip::coded::{Coding, Erasure, Key, Pieces, Shape};
use peerage_gossip::wire::{self, Item, Shard};
use peerage_gossip::{GossipMachine, In, Out, Outgoing, Policy, Topic};
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::frame::Lane;

use super::crowd::{Crowd, push};
use super::hostile::Mind;
use super::pace::Pace;
use super::publishing::{Numbers, OWN};
use crate::node::{Descriptor, Oracle};

/// Messages of which an attacker keeps the header.
const REMEMBERED: usize = 64;

/// Whether a session message has such an item.
fn has(outgoing: &Outgoing, such: impl Fn(&Item) -> bool) -> bool {
    let mut items = wire::items(outgoing.bytes.clone(), wire::MAX_PAYLOAD);
    items.any(|item| item.is_ok_and(|item| such(&item)))
}

/// Sends each shard that comes to all of its other peers, damaged, and none as it was, from a moment on.
pub(super) struct Polluter {
    from: Time,
    crowd: Crowd,
    headers: BTreeMap<Key, Bytes>,
}

impl Polluter {
    pub(super) fn new(from: Time) -> Polluter {
        Polluter { from, crowd: Crowd::default(), headers: BTreeMap::new() }
    }

    fn pollute(&self, from: SessionId, shard: Shard) -> Option<Out> {
        let mut bytes = BytesMut::from(&*shard.bytes);
        // Not at its end, which says how much it weighs.
        *bytes.first_mut()? ^= 0xff;
        let damaged = Shard { bytes: bytes.freeze(), ..shard };
        let to = self.crowd.all().into_iter().filter(|peer| peer.session != from).collect();
        let header = self.headers.get(&damaged.key).map(|header| &**header);
        Some(push(to, Lane::Normal, wire::shard(header, &damaged)))
    }
}

impl Mind<GossipMachine> for Polluter {
    fn hears(&mut self, now: Time, input: In, outs: &mut Vec<Out>) -> Option<In> {
        self.crowd.notes(&input);
        if let In::Inbound { session, payload } = &input
            && now >= self.from
        {
            for item in wire::items(payload.clone(), wire::MAX_PAYLOAD).flatten() {
                match item {
                    Item::Header(header) => {
                        self.headers.insert(header.key(), wire::header(&header));
                        if self.headers.len() > REMEMBERED {
                            self.headers.pop_first();
                        }
                    }
                    Item::Shard(shard) => outs.extend(self.pollute(*session, shard)),
                    _ => {}
                }
            }
        }
        Some(input)
    }

    fn says(&mut self, now: Time, out: Out, outs: &mut Vec<Out>) {
        match out {
            Out::Push(outgoing) if now >= self.from && has(&outgoing, |item| matches!(item, Item::Shard(_))) => {}
            out => outs.push(out),
        }
    }
}

/// Cuts one payload and makes shards of another: each is under the root, and together they are nothing.
struct Torn;

impl Erasure for Torn {
    fn encode(&self, payload: &Bytes, shape: Shape) -> Option<Pieces> {
        let what = Descriptor::at_end_of(payload)?;
        let other = Descriptor { number: what.number | Descriptor::FORGED, ..what };
        let (Pieces { data, .. }, Pieces { made, .. }) =
            (Oracle.encode(payload, shape)?, Oracle.encode(&other.payload(), shape)?);
        Some(Pieces { data, made })
    }

    fn decode(&self, shards: &[(u16, Bytes)], shape: Shape) -> Option<Bytes> {
        Oracle.decode(shards, shape)
    }
}

/// Publishes large messages whose shards are not those of any payload, and never the message itself.
pub(super) struct Forger {
    topic: Topic,
    pace: Pace,
    numbers: Numbers,
}

impl Forger {
    pub(super) fn new(topic: Topic, pace: Pace, numbers: Numbers) -> Forger {
        Forger { topic, pace, numbers }
    }
}

fn is_own(payload: &[u8]) -> bool {
    Descriptor::at_end_of(payload).is_some_and(|what| what.number & Descriptor::HOSTILE != 0)
}

impl Mind<GossipMachine> for Forger {
    fn hears(&mut self, _now: Time, input: In, _outs: &mut Vec<Out>) -> Option<In> {
        Some(match input {
            In::Coded { token, coding: Some(coding) } if is_own(&coding.payload) => {
                let torn = Coding::of(coding.payload.clone(), coding.shape, &Torn);
                In::Coded { token, coding: torn.map(Box::new) }
            }
            input => input,
        })
    }

    fn says(&mut self, _now: Time, out: Out, outs: &mut Vec<Out>) {
        let whole = |item: &Item| matches!(item, Item::Message(parcel) if is_own(&parcel.payload));
        match out {
            Out::Published { token, .. } if token >= OWN => {}
            Out::Push(outgoing) if has(&outgoing, whole) => {}
            out => outs.push(out),
        }
    }

    fn next(&self) -> Option<Time> {
        Some(self.pace.next())
    }

    fn acts(&mut self, now: Time, _outs: &mut Vec<Out>) -> Vec<In> {
        let publish = |_| {
            let what = self.numbers.draw();
            let (token, topic, payload) = (OWN | what.number, self.topic.clone(), what.payload());
            In::Publish { token, topic, policy: Policy::Signed, payload, pressed: false }
        };
        (0..self.pace.take(now)).map(publish).collect()
    }
}
