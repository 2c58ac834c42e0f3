//! Who sends more than anybody can want: bad signatures, grafts, promises and requests.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::BytesMut;
use peerage_gossip::wire::{self, Item, Parcel};
use peerage_gossip::{GossipMachine, In, MessageId, Origin, Out, Policy, Topic};
use peerage_machine::{Rng, Time};
use peerage_wire::frame::Lane;

use super::crowd::{Crowd, push};
use super::den::Den;
use super::hostile::Mind;
use super::pace::Pace;
use super::withholding::gives;
use crate::node::Descriptor;

/// Ids that are asked for again and again.
const REMEMBERED: usize = wire::MAX_IDS;
/// Topics that nobody has heard of, to be subscribed to and left.
const STRANGE_TOPICS: u64 = 200;

/// What a flood is of.
pub(super) enum Of {
    /// Messages in the name of honest nodes, whose signatures are made up; and of each genuine one a copy, damaged likewise,
    /// in the hope of being there first.
    BadSignatures {
        /// In whose name.
        den: Rc<Den>,
        /// Payload bytes.
        size: u32,
        /// What was damaged. Without this, two who hear each other would damage each other's copies for ever.
        heard: Heard,
    },
    /// Grafts and prunes of the topics that there are, strange topics joined and left, and questions for all topics.
    Grafts,
    /// Announcements of messages that there are not. None that there are is sent.
    Promises,
    /// Requests for every message that was heard of.
    Requests(Heard),
}

/// Messages that were heard of, oldest first.
#[derive(Default)]
pub(super) struct Heard {
    order: VecDeque<MessageId>,
    known: BTreeSet<MessageId>,
}

impl Heard {
    /// Hears of a message; whether it is news.
    fn of(&mut self, id: MessageId) -> bool {
        let news = self.known.insert(id);
        if news {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        news
    }
}

/// Sends all of its peers so many of something a second.
pub(super) struct Flood {
    of: Of,
    topics: Vec<(Topic, Policy)>,
    pace: Pace,
    rng: Rng,
    crowd: Crowd,
    sent: u64,
}

impl Flood {
    pub(super) fn new(of: Of, topics: Vec<(Topic, Policy)>, pace: Pace, seed: u64) -> Flood {
        Flood { of, topics, pace, rng: Rng::new(seed), crowd: Crowd::default(), sent: 0 }
    }

    /// Hears of messages.
    fn overhear(&mut self, from: peerage_queue::SessionId, payload: &bytes::Bytes, outs: &mut Vec<Out>) {
        for item in wire::items(payload.clone(), wire::MAX_PAYLOAD).flatten() {
            match (&mut self.of, item) {
                (Of::Requests(heard), Item::Message(parcel)) => drop(heard.of(parcel.id())),
                (Of::Requests(heard), Item::IHave { ids, .. }) => {
                    for id in ids {
                        heard.of(id);
                    }
                }
                (Of::BadSignatures { heard, .. }, Item::Message(parcel)) => {
                    let news = heard.of(parcel.id());
                    let (true, Parcel { topic, origin: Some(origin), payload, .. }) = (news, parcel) else { continue };
                    let damaged = Origin { signature: self.rng.bytes(), ..origin };
                    let others = self.crowd.all().into_iter().filter(|peer| peer.session != from).collect();
                    outs.push(push(others, Lane::Normal, Parcel::new(topic, Some(damaged), &payload).bytes));
                }
                _ => {}
            }
        }
    }

    fn bad_signature(&mut self, now: Time) -> Option<bytes::Bytes> {
        let Of::BadSignatures { den, size, .. } = &self.of else { return None };
        let signed = self.topics.iter().filter(|(_, policy)| *policy == Policy::Signed);
        let topics: Vec<&Topic> = signed.map(|(topic, _)| topic).collect();
        let topic = (*topics.get(self.rng.index(topics.len())?)?).clone();
        let (publisher, _) = *den.honest.get(self.rng.index(den.honest.len())?)?;
        self.sent += 1;
        // Nobody published a message of this number: whoever delivers it breaks an invariant.
        let what = Descriptor { number: Descriptor::FORGED | (self.rng.next_u64() >> 4), size: *size };
        let sequence = u64::try_from(now.unix().as_nanos()).unwrap_or(u64::MAX).saturating_add(self.sent);
        let origin = Origin { publisher, sequence, issued: now.unix_millis(), signature: self.rng.bytes() };
        Some(Parcel::new(topic, Some(origin), &what.payload()).bytes)
    }

    /// So many grafts, or changes of topics, in one message.
    fn changes(&mut self, count: u64) -> BytesMut {
        let mut bytes = BytesMut::new();
        for _ in 0..count.min(wire::MAX_ITEMS as u64 / 2 - 1) {
            self.sent += 1;
            let own = self.rng.index(self.topics.len()).and_then(|index| self.topics.get(index));
            match own {
                Some((topic, _)) if self.sent.is_multiple_of(2) => {
                    bytes.extend_from_slice(&wire::prune(topic, 1));
                    bytes.extend_from_slice(&wire::graft(topic));
                }
                _ => {
                    let strange = Topic::new(&format!("strange {}", self.rng.below(STRANGE_TOPICS)));
                    strange.iter().for_each(|topic| {
                        bytes.extend_from_slice(&wire::unsubscribe(topic));
                        bytes.extend_from_slice(&wire::subscribe(topic));
                    });
                }
            }
        }
        bytes
    }
}

impl Mind<GossipMachine> for Flood {
    fn hears(&mut self, _now: Time, input: In, outs: &mut Vec<Out>) -> Option<In> {
        self.crowd.notes(&input);
        if let In::Inbound { session, payload } = &input {
            self.overhear(*session, payload, outs);
        }
        Some(input)
    }

    fn says(&mut self, _now: Time, out: Out, outs: &mut Vec<Out>) {
        match (&self.of, out) {
            // What is true is kept back where lies are spread.
            (Of::Promises | Of::BadSignatures { .. }, Out::Push(outgoing)) if gives(&outgoing) => {}
            (_, out) => outs.push(out),
        }
    }

    fn next(&self) -> Option<Time> {
        Some(self.pace.next())
    }

    fn acts(&mut self, now: Time, outs: &mut Vec<Out>) -> Vec<In> {
        let due = self.pace.take(now);
        if self.crowd.is_empty() || due == 0 {
            return Vec::new();
        }
        match &mut self.of {
            Of::BadSignatures { .. } => {
                for _ in 0..due {
                    let Some(bytes) = self.bad_signature(now) else { break };
                    outs.push(push(self.crowd.all(), Lane::Normal, bytes));
                }
            }
            Of::Grafts => {
                // A change is one out and in again.
                let mut bytes = self.changes(due.div_ceil(2));
                bytes.extend_from_slice(&wire::topics(true, self.topics.iter().map(|(topic, _)| topic)));
                outs.push(push(self.crowd.all(), Lane::Control, bytes.freeze()));
            }
            Of::Promises => {
                let Some((topic, _)) = self.topics.first() else { return Vec::new() };
                let ids: Vec<MessageId> = (0..due).map(|_| MessageId(self.rng.bytes())).collect();
                for ids in ids.chunks(wire::MAX_IDS) {
                    outs.push(push(self.crowd.all(), Lane::High, wire::i_have(topic, ids)));
                }
            }
            Of::Requests(heard) => {
                let newest: Vec<MessageId> = heard.order.iter().rev().copied().collect();
                let ids: Vec<MessageId> = newest.iter().cycle().take(due as usize).copied().collect();
                for ids in ids.chunks(wire::MAX_IDS) {
                    outs.push(push(self.crowd.all(), Lane::High, wire::i_want(ids)));
                }
            }
        }
        Vec::new()
    }
}
