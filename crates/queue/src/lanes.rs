//! One peer's lanes: which message, and which fragment of it, goes out next.
//!
//! Control goes first. High, normal and bulk share what is left 16 : 4 : 1 by bytes while each has
//! something to send, so that urgent messages overtake and bulk never starves. Order holds within a lane.

use std::collections::VecDeque;

use bytes::Bytes;
use peerage_wire::frame::{Lane, MAX_FRAGMENT};
use serde::{Deserialize, Serialize};

use crate::{ChannelId, LanesConfig};

/// Why a message was not taken, or will not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The peer's lane is full.
    #[error("the lane is full")]
    LaneFull,
    /// Newer messages took its place before it began to go out.
    #[error("overtaken by newer messages")]
    Overtaken,
    /// The node's byte pool is used up.
    #[error("the byte pool is used up")]
    PoolFull,
    /// The session has ended or is unknown.
    #[error("the session has ended")]
    SessionEnded,
}

impl Refusal {
    /// All of them, for metrics.
    pub const ALL: [Refusal; 4] = [Refusal::LaneFull, Refusal::Overtaken, Refusal::PoolFull, Refusal::SessionEnded];

    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::LaneFull => "lane_full",
            Refusal::Overtaken => "overtaken",
            Refusal::PoolFull => "pool_full",
            Refusal::SessionEnded => "session_ended",
        }
    }
}

/// A piece of a message, at most [`MAX_FRAGMENT`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The message's protocol.
    pub channel: ChannelId,
    /// The message's stream.
    pub stream: u64,
    /// The message's lane.
    pub lane: Lane,
    /// The whole message's length, on the first of several fragments.
    pub total: Option<u32>,
    /// Whether more fragments of this message follow.
    pub more: bool,
    /// The bytes: a slice of the message's.
    pub payload: Bytes,
}

struct Entry<G> {
    channel: ChannelId,
    stream: u64,
    payload: Bytes,
    guard: G,
}

struct LaneState<G> {
    waiting: VecDeque<Entry<G>>,
    bytes: usize,
    /// The message whose fragments are going out, and how much of it has gone.
    begun: Option<(Entry<G>, usize)>,
    /// Bytes it may send before the others get their turn.
    share: i64,
}

/// The rules of one peer's lanes. `G` guards a message: it is given back when the message's last fragment
/// is popped, and dropped when the message is abandoned.
pub struct Lanes<G> {
    config: LanesConfig,
    lanes: [LaneState<G>; 4],
}

/// Bytes a round, by lane. Control is not in the rounds.
const SHARES: [i64; 4] = [0, 16 * QUANTUM, 4 * QUANTUM, QUANTUM];
const QUANTUM: i64 = MAX_FRAGMENT as i64;

impl<G> Lanes<G> {
    /// Empty lanes.
    pub fn new(config: LanesConfig) -> Self {
        let empty = || LaneState { waiting: VecDeque::new(), bytes: 0, begun: None, share: 0 };
        Lanes { config, lanes: [empty(), empty(), empty(), empty()] }
    }

    /// Queues a message. With `drop_oldest` the lane's oldest messages that have not begun make room, and
    /// their guards are returned for the caller to fail outside any lock.
    ///
    /// # Errors
    /// The guard of the refused message.
    pub fn offer(
        &mut self,
        lane: Lane,
        channel: ChannelId,
        stream: u64,
        payload: Bytes,
        drop_oldest: bool,
        guard: G,
    ) -> Result<Vec<G>, G> {
        let LanesConfig { items, bytes } = self.config;
        let state = &mut self.lanes[lane as usize];
        let mut dropped = Vec::new();
        let full = |state: &LaneState<G>| {
            !state.waiting.is_empty() && (state.waiting.len() >= items || state.bytes + payload.len() > bytes)
        };
        while full(state) {
            if !drop_oldest {
                return Err(guard);
            }
            if let Some(oldest) = state.waiting.pop_front() {
                state.bytes -= oldest.payload.len();
                dropped.push(oldest.guard);
            }
        }
        state.bytes += payload.len();
        state.waiting.push_back(Entry { channel, stream, payload, guard });
        Ok(dropped)
    }

    /// Takes the next fragment; with the guard of its message if it is the last.
    pub fn pop_fragment(&mut self) -> Option<(Fragment, Option<G>)> {
        let lane = self.next_lane()?;
        let state = &mut self.lanes[lane as usize];
        let (entry, offset) = match state.begun.take() {
            Some(begun) => begun,
            None => {
                let entry = state.waiting.pop_front()?;
                state.bytes -= entry.payload.len();
                (entry, 0)
            }
        };
        let len = (entry.payload.len() - offset).min(MAX_FRAGMENT_PAYLOAD);
        let end = offset + len;
        let more = end < entry.payload.len();
        state.share -= len as i64;
        let fragment = Fragment {
            channel: entry.channel,
            stream: entry.stream,
            lane,
            total: (offset == 0 && more).then(|| u32::try_from(entry.payload.len()).unwrap_or(u32::MAX)),
            more,
            payload: entry.payload.slice(offset..end),
        };
        if more {
            state.begun = Some((entry, end));
            return Some((fragment, None));
        }
        Some((fragment, Some(entry.guard)))
    }

    fn next_lane(&mut self) -> Option<Lane> {
        let busy = |lanes: &[LaneState<G>; 4], lane: Lane| {
            let state = &lanes[lane as usize];
            state.begun.is_some() || !state.waiting.is_empty()
        };
        if busy(&self.lanes, Lane::Control) {
            return Some(Lane::Control);
        }
        let rounds = [Lane::High, Lane::Normal, Lane::Bulk];
        rounds.into_iter().find(|lane| busy(&self.lanes, *lane))?;
        loop {
            for lane in rounds {
                if busy(&self.lanes, lane) && self.lanes[lane as usize].share > 0 {
                    return Some(lane);
                }
            }
            // Everybody with something to send has used up its share: a new round. A share never goes
            // below minus one fragment, so a round always lifts one above zero.
            for lane in rounds {
                let state = &mut self.lanes[lane as usize];
                state.share = (state.share + SHARES[lane as usize]).min(SHARES[lane as usize]);
            }
        }
    }

    /// Bytes that wait, in all lanes, without the messages that have begun.
    pub fn waiting_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.begun.is_none() && lane.waiting.is_empty())
    }

    /// Abandons everything, and returns the guards.
    pub fn clear(&mut self) -> Vec<G> {
        let mut guards = Vec::new();
        for lane in &mut self.lanes {
            guards.extend(lane.begun.take().map(|(entry, _)| entry.guard));
            guards.extend(lane.waiting.drain(..).map(|entry| entry.guard));
            lane.bytes = 0;
        }
        guards
    }
}

/// Room for the total that a first fragment may carry.
const MAX_FRAGMENT_PAYLOAD: usize = MAX_FRAGMENT - 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHANNEL: ChannelId = ChannelId(1);

    fn lanes(items: usize, bytes: usize) -> Lanes<u32> {
        Lanes::new(LanesConfig { items, bytes })
    }

    fn offer(lanes: &mut Lanes<u32>, lane: Lane, len: usize, drop_oldest: bool, guard: u32) -> Result<Vec<u32>, u32> {
        lanes.offer(lane, CHANNEL, 0, Bytes::from(vec![0; len]), drop_oldest, guard)
    }

    #[test]
    fn a_full_lane_refuses_or_drops_the_oldest_that_have_not_begun() {
        let mut lanes = lanes(9, 40_000);
        assert_eq!(offer(&mut lanes, Lane::Normal, 20_000, false, 1), Ok(vec![]));
        assert!(lanes.pop_fragment().is_some_and(|(fragment, _)| fragment.more), "message 1 has begun");
        assert_eq!(offer(&mut lanes, Lane::Normal, 20_000, false, 2), Ok(vec![]));
        assert_eq!(offer(&mut lanes, Lane::Normal, 15_000, false, 3), Ok(vec![]));
        assert_eq!(offer(&mut lanes, Lane::Normal, 15_000, false, 4), Err(4));
        assert_eq!(lanes.waiting_bytes(), 35_000, "a refused message changes nothing");
        assert_eq!(offer(&mut lanes, Lane::Normal, 15_000, true, 5), Ok(vec![2]));
        assert_eq!(
            offer(&mut lanes, Lane::Normal, 90_000, true, 6),
            Ok(vec![3, 5]),
            "too large, but the lane is empty"
        );
        assert_eq!(lanes.pop_fragment().and_then(|(_, guard)| guard), Some(1), "what had begun goes on");
        assert_eq!(lanes.clear(), [6]);
        assert!(lanes.is_empty() && lanes.waiting_bytes() == 0);
    }

    #[test]
    fn fragments_carry_the_message_and_the_first_states_the_total() {
        let mut lanes = lanes(9, 1 << 20);
        let payload: Bytes = (0..40_000u32).map(|n| n as u8).collect::<Vec<_>>().into();
        lanes.offer(Lane::Bulk, ChannelId(3), 5, payload.clone(), false, 7).expect("room");
        let mut whole = Vec::new();
        let mut totals = Vec::new();
        while let Some((fragment, guard)) = lanes.pop_fragment() {
            assert_eq!((fragment.channel, fragment.stream, fragment.lane), (ChannelId(3), 5, Lane::Bulk));
            assert_eq!(guard, (!fragment.more).then_some(7));
            assert!(fragment.payload.len() + 4 <= MAX_FRAGMENT);
            totals.push(fragment.total);
            whole.extend_from_slice(&fragment.payload);
        }
        assert_eq!((whole, totals), (payload.to_vec(), vec![Some(40_000), None, None]));
    }

    #[test]
    fn control_overtakes_all_and_the_others_share_by_weight() {
        let mut lanes = lanes(10_000, 1 << 30);
        for lane in [Lane::Bulk, Lane::Normal, Lane::High] {
            for _ in 0..2000 {
                offer(&mut lanes, lane, 16_380, false, 0).expect("room");
            }
        }
        offer(&mut lanes, Lane::Control, 8, false, 0).expect("room");
        let order: Vec<Lane> = (0..2101).filter_map(|_| lanes.pop_fragment()).map(|(f, _)| f.lane).collect();
        assert_eq!(order[0], Lane::Control);
        let count = |lane| order.iter().filter(|l| **l == lane).count();
        let (high, normal, bulk) = (count(Lane::High), count(Lane::Normal), count(Lane::Bulk));
        assert!(
            (1590..=1610).contains(&high) && (390..=410).contains(&normal) && (95..=105).contains(&bulk),
            "{high} {normal} {bulk}"
        );
    }

    #[test]
    fn an_urgent_message_waits_for_one_fragment_at_most() {
        let mut lanes = lanes(10, 32 << 20);
        offer(&mut lanes, Lane::Bulk, 16 << 20, false, 1).expect("room");
        for _ in 0..50 {
            lanes.pop_fragment();
        }
        offer(&mut lanes, Lane::High, 128, false, 2).expect("room");
        assert_eq!(lanes.pop_fragment().map(|(fragment, guard)| (fragment.lane, guard)), Some((Lane::High, Some(2))));
    }

    proptest! {
        #[test]
        fn every_accepted_message_is_popped_or_dropped_once(
            ops in proptest::collection::vec((0usize..4, 0usize..60_000, any::<bool>(), 0usize..4), 1..80),
        ) {
            let mut lanes = lanes(6, 100_000);
            let mut ended = Vec::new();
            for (n, (lane, len, drop_oldest, pops)) in ops.iter().enumerate() {
                match offer(&mut lanes, Lane::ALL[*lane], *len, *drop_oldest, n as u32) {
                    Ok(dropped) => ended.extend(dropped),
                    Err(refused) => ended.push(refused),
                }
                for _ in 0..*pops {
                    ended.extend(lanes.pop_fragment().and_then(|(_, guard)| guard));
                }
            }
            ended.extend(lanes.clear());
            ended.sort_unstable();
            prop_assert_eq!(ended, (0..ops.len() as u32).collect::<Vec<_>>());
        }
    }
}
