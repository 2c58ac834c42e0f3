//! One peer's lanes: which message, and which fragment of it, goes out next.
//!
//! Control goes first. High, normal and bulk share what is left 16 : 4 : 1 by bytes while each has
//! something to send, so that urgent messages overtake and bulk never starves. In a lane the channels take
//! turns, fragment by fragment; order holds within a channel's lane.
//!
//! Between two ends that grant each other credit, a message waits for the credit of its [`Flow`], and only
//! for that: other lanes and other channels go on.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_wire::frame::{Lane, MAX_FRAGMENT, MAX_HEADER, MESSAGE_COST, first_window};
use serde::{Deserialize, Serialize};

use crate::stream::Outgoing;
use crate::{ChannelId, Flow, LanesConfig};

/// Why a message was not taken, or will not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The peer's lane is full.
    #[error("the lane is full")]
    LaneFull,
    /// Newer messages took its place before it began to go out.
    #[error("overtaken by newer messages")]
    Overtaken,
    /// It waited longer than it was worth.
    #[error("expired before it began to go out")]
    Expired,
    /// The peer does not speak this protocol.
    #[error("the peer has no such channel")]
    NoChannel,
    /// The node's byte pool, or the peer's part of it, is used up.
    #[error("the byte pool is used up")]
    PoolFull,
    /// The session has ended or is unknown, or the sender gave up waiting for room.
    #[error("the session has ended")]
    SessionEnded,
    /// The node is short of something, and lanes as urgent as this one rest until it is not.
    #[error("the node sheds load")]
    Shed,
}

impl Refusal {
    /// All of them, for metrics.
    pub const ALL: [Refusal; 7] = [
        Refusal::LaneFull,
        Refusal::Overtaken,
        Refusal::Expired,
        Refusal::NoChannel,
        Refusal::PoolFull,
        Refusal::SessionEnded,
        Refusal::Shed,
    ];

    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::LaneFull => "lane_full",
            Refusal::Overtaken => "overtaken",
            Refusal::Expired => "expired",
            Refusal::NoChannel => "no_channel",
            Refusal::PoolFull => "pool_full",
            Refusal::SessionEnded => "session_ended",
            Refusal::Shed => "shed",
        }
    }
}

/// A piece of a message, at most [`MAX_FRAGMENT`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The message's protocol, stream and lane.
    pub flow: Flow,
    /// The whole message's length, on the first of several fragments.
    pub total: Option<u32>,
    /// Whether more fragments of this message follow.
    pub more: bool,
    /// Whether this is the last of its stream.
    pub end: bool,
    /// The bytes: a slice of the message's.
    pub payload: Bytes,
}

/// A message to be queued. `G` guards it.
#[derive(Clone, Debug)]
pub struct Offer<G> {
    /// Its protocol, stream and lane.
    pub flow: Flow,
    /// Its bytes.
    pub payload: Bytes,
    /// By when it must have begun to go out, as running time; never late if `None`.
    pub expires: Option<Duration>,
    /// Whether the oldest of its flow that have not begun make room for it.
    pub drop_oldest: bool,
    /// Given back with the last fragment, or when the message is abandoned.
    pub guard: G,
}

struct Entry<G> {
    payload: Bytes,
    expires: Option<Duration>,
    guard: G,
}

/// What waits on one flow.
struct Queue<G> {
    flow: Flow,
    waiting: VecDeque<Entry<G>>,
    bytes: usize,
    /// The message whose fragments are going out, and how much of it has gone.
    begun: Option<(Entry<G>, usize)>,
    /// The cost of all that was sent, and how far the other end lets it rise.
    sent: u64,
    limit: u64,
    /// When a fragment went out last, as running time.
    moved: Duration,
}

/// With less credit than this a longer message waits: fragments of a few bytes cost more than they carry.
const SLIVER: u64 = 1024;

impl<G> Queue<G> {
    /// Payload bytes that the next fragment may have; `None` if there is nothing to send or no credit for it.
    fn sendable(&self, credited: bool) -> Option<usize> {
        let (left, cost) = match (&self.begun, self.waiting.front()) {
            (Some((entry, offset)), _) => ((entry.payload.len() - offset) as u64, 0),
            (None, Some(entry)) => (entry.payload.len() as u64, MESSAGE_COST),
            (None, None) => return None,
        };
        if !credited {
            return Some(usize::MAX);
        }
        let credit = self.limit.saturating_sub(self.sent);
        let worth_it = credit >= cost + left.min(SLIVER);
        worth_it.then(|| usize::try_from(credit - cost).unwrap_or(usize::MAX))
    }
}

struct LaneState<G> {
    flows: Vec<Queue<G>>,
    /// Whose turn it is.
    turn: usize,
    /// Messages of all flows, begun ones too.
    messages: usize,
    /// Bytes it may send before the other lanes get their turn.
    share: i64,
    /// Its streams come next, if they have something to send; then its messages again.
    streams_turn: bool,
}

/// The rules of one peer's lanes. `G` guards a message: it is given back when the message's last fragment
/// is popped, and dropped when the message is abandoned.
pub struct Lanes<G> {
    config: LanesConfig,
    lanes: [LaneState<G>; 4],
    streams: Outgoing,
    /// Bytes of messages that have not begun.
    waiting_bytes: usize,
    /// Whether messages wait for credit, and then the last channel that there is.
    credited: bool,
    channels: u16,
    /// Guards of messages that expired, for the caller to fail outside any lock.
    expired: Vec<G>,
}

/// Bytes a round, by lane. Control is not in the rounds.
const SHARES: [i64; 4] = [0, 16 * QUANTUM, 4 * QUANTUM, QUANTUM];
const QUANTUM: i64 = MAX_FRAGMENT as i64;
/// Most bytes that wait in a control lane, which no pool bounds.
const CONTROL_BYTES: usize = 256 * 1024;
/// Room for the total that a first fragment may carry.
const MAX_FRAGMENT_PAYLOAD: usize = MAX_FRAGMENT - 4;

impl<G> Lanes<G> {
    /// Empty lanes, which need no credit until [`require_credit`](Lanes::require_credit).
    pub fn new(config: LanesConfig) -> Self {
        let empty = || LaneState { flows: Vec::new(), turn: 0, messages: 0, share: 0, streams_turn: false };
        Lanes {
            config,
            lanes: [empty(), empty(), empty(), empty()],
            streams: Outgoing::default(),
            waiting_bytes: 0,
            credited: false,
            channels: u16::MAX,
            expired: Vec::new(),
        }
    }

    fn queue(&mut self, flow: Flow) -> &mut Queue<G> {
        let flows = &mut self.lanes[flow.lane as usize].flows;
        let position = flows.iter().position(|queue| queue.flow == flow).unwrap_or_else(|| {
            // One by one: a channel's four lanes are most of what an idle peer has here.
            flows.reserve_exact(1);
            flows.push(Queue {
                flow,
                waiting: VecDeque::new(),
                bytes: 0,
                begun: None,
                sent: 0,
                limit: first_window(flow.lane),
                moved: Duration::ZERO,
            });
            flows.len() - 1
        });
        &mut flows[position]
    }

    /// The streams, which go out beside the messages of their lanes, fragment by fragment.
    pub const fn streams(&mut self) -> &mut Outgoing {
        &mut self.streams
    }

    /// Lets nothing out from now on beyond the [`first_window`]s that the other end has not [granted](Lanes::grant).
    /// There are channels 1 to `channels` and no others.
    pub fn require_credit(&mut self, channels: u16) {
        self.credited = true;
        self.channels = channels;
    }

    /// Whether there is such a channel.
    pub const fn has_channel(&self, channel: ChannelId) -> bool {
        !self.credited || (channel.0 > 0 && channel.0 <= self.channels)
    }

    /// The other end takes messages of this flow that cost up to `limit` since the session began. A lower limit than
    /// before counts for nothing.
    pub fn grant(&mut self, flow: Flow, limit: u64) {
        if flow.stream != 0 {
            return self.streams.grant(flow.stream, limit);
        }
        let queue = self.queue(flow);
        queue.limit = queue.limit.max(limit);
    }

    /// Goes back to `limit` if no more than that was sent, and says which limit holds now.
    pub fn reclaim(&mut self, flow: Flow, limit: u64) -> u64 {
        if flow.stream != 0 {
            return self.streams.reclaim(flow.stream, limit);
        }
        let queue = self.queue(flow);
        queue.limit = queue.limit.min(limit.max(queue.sent));
        queue.limit
    }

    /// Queues a message. With `drop_oldest` the flow's oldest messages that have not begun make room, and
    /// their guards are returned for the caller to fail outside any lock.
    ///
    /// # Errors
    /// The refused message.
    pub fn offer(&mut self, offer: Offer<G>) -> Result<Vec<G>, Offer<G>> {
        let LanesConfig { items, mut bytes } = self.config;
        if offer.flow.lane == Lane::Control {
            bytes = bytes.min(CONTROL_BYTES);
        }
        let len = offer.payload.len();
        let queue = self.queue(offer.flow);
        let mut dropped = Vec::new();
        let full =
            |queue: &Queue<G>| !queue.waiting.is_empty() && (queue.waiting.len() >= items || queue.bytes + len > bytes);
        let mut freed = 0;
        while full(queue) {
            if !offer.drop_oldest {
                return Err(offer);
            }
            if let Some(oldest) = queue.waiting.pop_front() {
                queue.bytes -= oldest.payload.len();
                freed += oldest.payload.len();
                dropped.push(oldest.guard);
            }
        }
        queue.bytes += len;
        queue.waiting.push_back(Entry { payload: offer.payload, expires: offer.expires, guard: offer.guard });
        let lane = &mut self.lanes[offer.flow.lane as usize];
        lane.messages = lane.messages + 1 - dropped.len();
        self.waiting_bytes = self.waiting_bytes + len - freed;
        Ok(dropped)
    }

    /// Takes back the messages of a lane that have not begun and that `is` says yes to; their guards.
    pub fn take_back(&mut self, lane: Lane, is: impl Fn(&G) -> bool) -> Vec<G> {
        let (state, mut taken) = (&mut self.lanes[lane as usize], Vec::new());
        for queue in &mut state.flows {
            if !queue.waiting.iter().any(|entry| is(&entry.guard)) {
                continue;
            }
            for entry in std::mem::take(&mut queue.waiting) {
                if is(&entry.guard) {
                    queue.bytes -= entry.payload.len();
                    self.waiting_bytes -= entry.payload.len();
                    state.messages -= 1;
                    taken.push(entry.guard);
                } else {
                    queue.waiting.push_back(entry);
                }
            }
        }
        taken
    }

    /// Takes the next fragment, of at most `room` bytes; with the guard of its message if it is the last. What has
    /// expired is passed over; its guards are [taken](Lanes::take_expired) afterwards. A stream's bytes have no guard.
    pub fn pop(&mut self, now: Time, room: usize) -> Option<(Fragment, Option<G>)> {
        let lane = self.next_lane(now.running())?;
        if self.streams.ready(lane) {
            let turn = std::mem::replace(&mut self.lanes[lane as usize].streams_turn, false);
            if (turn || !self.ready(lane, now.running()))
                && let Some(fragment) = self.streams.pop(lane, room)
            {
                self.lanes[lane as usize].share -= (fragment.payload.len() + MAX_HEADER) as i64;
                return Some((fragment, None));
            }
            self.lanes[lane as usize].streams_turn = true;
        }
        let credited = self.credited;
        let state = &mut self.lanes[lane as usize];
        let queue = &mut state.flows[state.turn];
        let allowed = queue.sendable(credited)?.min(room).min(MAX_FRAGMENT_PAYLOAD);
        let (entry, offset) = match queue.begun.take() {
            Some(begun) => begun,
            None => {
                let entry = queue.waiting.pop_front()?;
                queue.bytes -= entry.payload.len();
                self.waiting_bytes -= entry.payload.len();
                queue.sent += MESSAGE_COST;
                (entry, 0)
            }
        };
        let end = (offset + allowed).min(entry.payload.len());
        let more = end < entry.payload.len();
        queue.sent += (end - offset) as u64;
        queue.moved = now.running();
        // The header counts, or a flood of empty messages would cost its lane nothing.
        state.share -= (end - offset + MAX_HEADER) as i64;
        let fragment = Fragment {
            flow: queue.flow,
            total: (offset == 0 && more).then(|| u32::try_from(entry.payload.len()).unwrap_or(u32::MAX)),
            more,
            end: false,
            payload: entry.payload.slice(offset..end),
        };
        let guard = if more {
            queue.begun = Some((entry, end));
            None
        } else {
            state.messages -= 1;
            Some(entry.guard)
        };
        state.turn = (state.turn + 1) % state.flows.len();
        Some((fragment, guard))
    }

    /// The guards of what expired since the last call.
    pub fn take_expired(&mut self) -> Vec<G> {
        std::mem::take(&mut self.expired)
    }

    /// Gives the turn to a flow of the lane that can send, and says whether there is one.
    fn ready(&mut self, lane: Lane, now: Duration) -> bool {
        let state = &mut self.lanes[lane as usize];
        if state.messages == 0 {
            return false;
        }
        for step in 0..state.flows.len() {
            let turn = (state.turn + step) % state.flows.len();
            let queue = &mut state.flows[turn];
            while queue.waiting.front().is_some_and(|entry| entry.expires.is_some_and(|at| at <= now)) {
                if let Some(late) = queue.waiting.pop_front() {
                    queue.bytes -= late.payload.len();
                    self.waiting_bytes -= late.payload.len();
                    state.messages -= 1;
                    self.expired.push(late.guard);
                }
            }
            if queue.sendable(self.credited).is_some() {
                state.turn = turn;
                return true;
            }
        }
        false
    }

    fn next_lane(&mut self, now: Duration) -> Option<Lane> {
        if self.ready(Lane::Control, now) {
            return Some(Lane::Control);
        }
        let rounds = [Lane::High, Lane::Normal, Lane::Bulk];
        let ready = rounds.map(|lane| self.ready(lane, now) || self.streams.ready(lane));
        if ready == [false; 3] {
            return None;
        }
        loop {
            for (lane, ready) in rounds.into_iter().zip(ready) {
                if ready && self.lanes[lane as usize].share > 0 {
                    return Some(lane);
                }
            }
            // Everybody with something to send has used up its share: a new round. A share never goes
            // below minus one fragment, so two rounds always lift one above zero.
            for lane in rounds {
                let state = &mut self.lanes[lane as usize];
                state.share = (state.share + SHARES[lane as usize]).min(SHARES[lane as usize]);
            }
        }
    }

    /// Bytes that wait, in all lanes, without the messages that have begun.
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.messages == 0) && self.streams.is_idle()
    }

    /// How long the message has waited for credit that began to go out and has waited longest.
    pub fn starved(&self, now: Time) -> Duration {
        let queues = self.lanes.iter().flat_map(|lane| &lane.flows);
        let waiting = queues.filter(|queue| queue.begun.is_some() && queue.sendable(self.credited).is_none());
        waiting.map(|queue| now.running().saturating_sub(queue.moved)).max().unwrap_or_default()
    }

    /// Gives back the memory of queues that are empty.
    pub fn rest(&mut self) {
        let queues = self.lanes.iter_mut().flat_map(|lane| &mut lane.flows);
        queues.filter(|queue| queue.waiting.is_empty()).for_each(|queue| queue.waiting = VecDeque::new());
        self.streams.rest();
    }

    /// Abandons everything, and returns the guards.
    pub fn clear(&mut self) -> Vec<G> {
        let mut guards = std::mem::take(&mut self.expired);
        for lane in &mut self.lanes {
            for queue in &mut lane.flows {
                guards.extend(queue.begun.take().map(|(entry, _)| entry.guard));
                guards.extend(queue.waiting.drain(..).map(|entry| entry.guard));
                queue.bytes = 0;
            }
            lane.messages = 0;
        }
        self.waiting_bytes = 0;
        guards
    }
}

#[cfg(test)]
mod tests;
