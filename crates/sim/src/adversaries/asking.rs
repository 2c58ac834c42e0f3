//! Who asks more than it may, and who answers so slowly that nobody can wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerage_machine::Time;
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_router::wire::{self, Item};
use peerage_router::{HandlerId, In, Out, Outgoing, RouterMachine};
use peerage_wire::frame::Lane;

use super::hostile::Mind;
use super::pace::Pace;
use crate::node::Descriptor;

/// In how long the flood's answers are said to be wanted: so that the work is begun.
const DEADLINE: Duration = Duration::from_secs(30);
/// Answers that are held back; beyond, the oldest is never sent.
const HELD: usize = 4_096;

/// Asks every peer so often a second, many at once, whatever that says.
pub(super) struct Asker {
    handlers: Vec<HandlerId>,
    pace: Pace,
    peers: BTreeMap<SessionId, ChannelId>,
    size: u32,
    sent: u64,
}

impl Asker {
    pub(super) fn new(handlers: Vec<HandlerId>, pace: Pace, size: u32) -> Asker {
        Asker { handlers, pace, peers: BTreeMap::new(), size, sent: 0 }
    }
}

impl Mind<RouterMachine> for Asker {
    fn hears(&mut self, _now: Time, input: In, _outs: &mut Vec<Out>) -> Option<In> {
        match &input {
            In::PeerUp(up) => drop(self.peers.insert(up.session, up.channel)),
            In::PeerDown { session } => drop(self.peers.remove(session)),
            // It does not want to know what was answered.
            In::Inbound { .. } => return None,
            _ => {}
        }
        Some(input)
    }

    fn next(&self) -> Option<Time> {
        Some(self.pace.next())
    }

    fn acts(&mut self, now: Time, outs: &mut Vec<Out>) -> Vec<In> {
        let due = self.pace.take(now);
        if self.peers.is_empty() || self.handlers.is_empty() {
            return Vec::new();
        }
        let question = Descriptor { number: Descriptor::HOSTILE, size: self.size }.payload();
        let mut left = due;
        while left > 0 {
            let batch = left.min(wire::MAX_ITEMS as u64);
            left -= batch;
            let mut bytes = BytesMut::new();
            for _ in 0..batch {
                self.sent += 1;
                let handler = self.handlers[self.sent as usize % self.handlers.len()];
                bytes.extend_from_slice(&wire::request(self.sent, handler, DEADLINE, &question));
            }
            let to = self.peers.iter().map(|(session, channel)| Recipient { session: *session, channel: *channel });
            let bytes = bytes.freeze();
            outs.push(Out::Push(Outgoing { to: to.collect(), lane: Lane::High, bytes, tag: None }));
        }
        Vec::new()
    }
}

/// Answers at one byte a second: in a world whose messages travel whole, as many seconds late as the answer has bytes.
pub(super) struct Dawdler {
    from: Time,
    held: VecDeque<(Time, Outgoing)>,
}

impl Dawdler {
    pub(super) fn new(from: Time) -> Dawdler {
        Dawdler { from, held: VecDeque::new() }
    }
}

/// The bytes that an answer stands for, if it is one.
fn answers(bytes: &Bytes) -> Option<u64> {
    let item = wire::items(bytes.clone(), wire::MAX_PAYLOAD).next()?.ok()?;
    let Item::Response { payload, .. } = item else { return None };
    Some(Descriptor::at_end_of(&payload).map_or(payload.len() as u64, |stands| u64::from(stands.size)))
}

impl Mind<RouterMachine> for Dawdler {
    fn says(&mut self, now: Time, out: Out, outs: &mut Vec<Out>) {
        let bytes = match &out {
            Out::Push(outgoing) if now >= self.from => answers(&outgoing.bytes),
            _ => None,
        };
        match (out, bytes) {
            (Out::Push(outgoing), Some(bytes)) => {
                if self.held.len() == HELD {
                    self.held.pop_front();
                }
                let at = now + Duration::from_secs(bytes);
                let place = self.held.partition_point(|(due, _)| *due <= at);
                self.held.insert(place, (at, outgoing));
            }
            (out, _) => outs.push(out),
        }
    }

    fn next(&self) -> Option<Time> {
        self.held.front().map(|(at, _)| *at)
    }

    fn acts(&mut self, now: Time, outs: &mut Vec<Out>) -> Vec<In> {
        let due = self.held.partition_point(|(at, _)| *at <= now);
        outs.extend(self.held.drain(..due).map(|(_, outgoing)| Out::Push(outgoing)));
        Vec::new()
    }
}
