//! A peer's lanes with their two ends: the door for senders, the lane end for the session's task.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use peerage_mailbox::Outlet;
use peerage_wire::frame::Lane;
use tokio::sync::Notify;

use crate::LanesConfig;
use crate::lanes::{Fragment, Lanes, Refusal};
use crate::pool::{Charge, Pressure};
use crate::types::{ChannelId, SendFailed, SessionId, WhenFull};

/// What happens with a message: reported once, when it is dropped before it was sent.
struct Fate {
    report: Option<(Outlet<SendFailed>, SessionId, u64)>,
    reason: Refusal,
}

impl Drop for Fate {
    fn drop(&mut self) {
        if let Some((outlet, session, tag)) = self.report.take() {
            // A sender that is gone does not want to know.
            drop(outlet.offer(SendFailed { session, tag, reason: self.reason }));
        }
    }
}

/// A message for one peer, with its place in the node's pool.
pub struct Message {
    channel: ChannelId,
    stream: u64,
    lane: Lane,
    payload: Bytes,
    when_full: WhenFull,
    guard: Guard,
}

struct Guard {
    fate: Fate,
    _charge: Arc<Charge>,
}

impl Guard {
    fn fail(mut self, reason: Refusal) {
        self.fate.reason = reason;
    }

    fn sent(mut self) {
        self.fate.report = None;
    }
}

impl Message {
    /// A message on a channel's message flow, refused when its lane is full, whose failure nobody is told.
    pub fn new(channel: ChannelId, lane: Lane, payload: Bytes, charge: Arc<Charge>) -> Message {
        let fate = Fate { report: None, reason: Refusal::SessionEnded };
        let guard = Guard { fate, _charge: charge };
        Message { channel, stream: 0, lane, payload, when_full: WhenFull::Refuse, guard }
    }

    /// Says what to do when the lane is full.
    pub fn when_full(mut self, when_full: WhenFull) -> Message {
        self.when_full = when_full;
        self
    }

    /// Says who is told, once, if the message does not go out.
    pub fn report(mut self, failures: Outlet<SendFailed>, session: SessionId, tag: u64) -> Message {
        self.guard.fate.report = Some((failures, session, tag));
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?} {:?} {} bytes)", self.channel, self.lane, self.payload.len())
    }
}

struct State {
    lanes: Lanes<Guard>,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Permits the session's task one look when something was offered to empty lanes.
    offered: Notify,
    pressure: Pressure,
    capacity: usize,
}

impl Shared {
    /// Held for one call and never across an await; guards are dropped after it is released.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one peer's lanes. Their bytes count towards `pressure` as long as the lane end lives.
pub fn lanes(config: LanesConfig, pressure: &Pressure) -> (Door, LaneEnd) {
    // Gossip uses the normal lane, so that is what publishers are measured against.
    let capacity = config.bytes;
    pressure.add_capacity(capacity);
    let shared = Arc::new(Shared {
        state: Mutex::new(State { lanes: Lanes::new(config), closed: false }),
        offered: Notify::new(),
        pressure: pressure.clone(),
        capacity,
    });
    (Door(shared.clone()), LaneEnd(shared))
}

/// Where messages for one peer are offered. Cheap to clone. Answers at once.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

impl Door {
    /// Queues a message.
    ///
    /// # Errors
    /// Why it was not queued. If the message asked for a report, that is made as well, so that a sender
    /// need look at one of the two only.
    pub fn offer(&self, message: Message) -> Result<(), Refusal> {
        let Message { channel, stream, lane, payload, when_full, guard } = message;
        let mut state = self.0.lock();
        if state.closed {
            drop(state);
            guard.fail(Refusal::SessionEnded);
            return Err(Refusal::SessionEnded);
        }
        let before = state.lanes.waiting_bytes();
        let was_empty = state.lanes.is_empty();
        let offered = state.lanes.offer(lane, channel, stream, payload, when_full == WhenFull::DropOldest, guard);
        self.0.pressure.moved(before, state.lanes.waiting_bytes());
        drop(state);
        match offered {
            Ok(dropped) => {
                if was_empty {
                    self.0.offered.notify_one();
                }
                dropped.into_iter().for_each(|guard| guard.fail(Refusal::Overtaken));
                Ok(())
            }
            Err(guard) => {
                guard.fail(Refusal::LaneFull);
                Err(Refusal::LaneFull)
            }
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

/// Where the session's task takes what goes out. Dropping it ends the lanes: what is queued fails, and so
/// does what is offered later.
pub struct LaneEnd(Arc<Shared>);

impl LaneEnd {
    /// Takes the next fragment.
    pub fn pop_fragment(&mut self) -> Option<Fragment> {
        let mut state = self.0.lock();
        let before = state.lanes.waiting_bytes();
        let (fragment, guard) = state.lanes.pop_fragment()?;
        self.0.pressure.moved(before, state.lanes.waiting_bytes());
        drop(state);
        if let Some(guard) = guard {
            guard.sent();
        }
        Some(fragment)
    }

    /// Waits until there may be something to take.
    pub async fn offered(&self) {
        self.0.offered.notified().await;
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.0.lock().lanes.is_empty()
    }
}

impl Drop for LaneEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let before = state.lanes.waiting_bytes();
        let abandoned = state.lanes.clear();
        drop(state);
        self.0.pressure.moved(before, 0);
        self.0.pressure.remove_capacity(self.0.capacity);
        abandoned.into_iter().for_each(|guard| guard.fail(Refusal::SessionEnded));
    }
}

impl fmt::Debug for LaneEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaneEnd")
    }
}

#[cfg(test)]
mod tests {
    use peerage_mailbox::{Capacity, Inlet, data_queue};

    use super::*;
    use crate::Pool;

    fn message(pool: &Pool, len: usize, tag: u64, failures: &Outlet<SendFailed>) -> Message {
        let charge = pool.charge(len).expect("room in the pool");
        Message::new(ChannelId(1), Lane::Normal, Bytes::from(vec![0; len]), charge)
            .when_full(WhenFull::DropOldest)
            .report(failures.clone(), SessionId(9), tag)
    }

    fn failed(inlet: &Inlet<SendFailed>) -> Vec<(u64, Refusal)> {
        inlet.take(99).into_iter().map(|failed| (failed.tag, failed.reason)).collect()
    }

    #[test]
    fn every_message_is_popped_or_reported_exactly_once_and_all_bytes_come_back() {
        let pool = Pool::new(1000);
        let (failures, reported) = data_queue(Capacity { items: 99, weight: 99 });
        let (door, mut end) = lanes(LanesConfig { items: 2, bytes: 1000 }, &pool.pressure());
        for tag in 0..4 {
            door.offer(message(&pool, 10, tag, &failures)).expect("the oldest make room");
        }
        assert_eq!(failed(&reported), [(0, Refusal::Overtaken), (1, Refusal::Overtaken)]);
        assert!(end.pop_fragment().is_some());
        assert_eq!(pool.used(), 10);
        door.offer(message(&pool, 10, 4, &failures).when_full(WhenFull::Refuse)).expect("room for two");
        assert_eq!(door.offer(message(&pool, 10, 5, &failures).when_full(WhenFull::Refuse)), Err(Refusal::LaneFull));
        assert_eq!(failed(&reported), [(5, Refusal::LaneFull)]);
        drop(end);
        assert_eq!(failed(&reported), [(3, Refusal::SessionEnded), (4, Refusal::SessionEnded)]);
        assert_eq!(door.offer(message(&pool, 10, 6, &failures)), Err(Refusal::SessionEnded));
        assert_eq!(failed(&reported), [(6, Refusal::SessionEnded)]);
        assert_eq!((pool.used(), pool.pressure().lane_bytes()), (0, 0));
    }

    #[tokio::test]
    async fn the_task_is_woken_for_what_was_offered_before_and_while_it_waits() {
        let pool = Pool::new(1000);
        let (failures, _reported) = data_queue(Capacity { items: 99, weight: 99 });
        let (door, mut end) = lanes(LanesConfig::recommended(), &pool.pressure());
        door.offer(message(&pool, 1, 0, &failures)).expect("room");
        end.offered().await;
        assert!(end.pop_fragment().is_some() && end.pop_fragment().is_none());
        let task = tokio::spawn(async move {
            end.offered().await;
            end.pop_fragment().is_some()
        });
        tokio::task::yield_now().await;
        door.offer(message(&pool, 1, 0, &failures)).expect("room");
        assert!(task.await.expect("no panic"));
    }

    #[test]
    fn pressure_is_over_half_when_the_peers_lanes_are() {
        let pool = Pool::new(1 << 20);
        let (failures, _reported) = data_queue(Capacity { items: 99, weight: 99 });
        let config = LanesConfig { items: 99, bytes: 100 };
        let (slow, _slow_end) = lanes(config, &pool.pressure());
        let (_fast, fast_end) = lanes(config, &pool.pressure());
        slow.offer(message(&pool, 100, 0, &failures)).expect("room");
        assert!(!pool.pressure().over_half(), "one slow peer of two is not the node");
        drop(fast_end);
        assert!(pool.pressure().over_half());
    }
}
