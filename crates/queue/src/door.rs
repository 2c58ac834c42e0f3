//! A peer's lanes with their two ends: the door for senders, the lane end for the session's task.

mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_mailbox::Outlet;
use peerage_wire::frame::{Lane, MAX_HEADER};

use crate::LanesConfig;
use crate::lanes::{Fragment, Lanes, Offer, Refusal};
use crate::pool::{Account, Charge, Pool, Pressure};
use crate::types::{ChannelId, Flow, SendFailed, SessionId, WhenFull};

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

/// Who pays for a message's place in the pool.
enum Charged {
    /// This peer's account, with so many bytes: given back by the lanes.
    Account(usize),
    /// Whoever charged the buffer, for all its recipients.
    Shared { _charge: Arc<Charge> },
}

struct Guard {
    fate: Fate,
    charged: Charged,
}

impl Guard {
    const fn own_bytes(&self) -> usize {
        match self.charged {
            Charged::Account(bytes) => bytes,
            Charged::Shared { .. } => 0,
        }
    }
}

/// A message for one peer.
pub struct Message {
    flow: Flow,
    payload: Bytes,
    when_full: WhenFull,
    expires: Option<Duration>,
    guard: Guard,
}

impl Message {
    /// A message on a channel's message flow, charged to the peer, refused when its lane is full, whose failure nobody
    /// is told. Control is not charged: what keeps protocols healthy must pass when the pool is full, and its lane is small.
    pub fn new(channel: ChannelId, lane: Lane, payload: Bytes) -> Message {
        let fate = Fate { report: None, reason: Refusal::SessionEnded };
        let own = if lane == Lane::Control { 0 } else { payload.len() };
        let guard = Guard { fate, charged: Charged::Account(own) };
        let flow = Flow { channel, stream: 0, lane };
        Message { flow, payload, when_full: WhenFull::Refuse, expires: None, guard }
    }

    /// Says that the buffer is charged already, once for all its recipients.
    pub fn charged(mut self, charge: Arc<Charge>) -> Message {
        self.guard.charged = Charged::Shared { _charge: charge };
        self
    }

    /// Says what to do when the lane is full.
    pub fn when_full(mut self, when_full: WhenFull) -> Message {
        self.when_full = when_full;
        self
    }

    /// Says by when the message must have begun to go out; after that it fails as [`Refusal::Expired`].
    pub fn expires(mut self, at: Time) -> Message {
        self.expires = Some(at.running());
        self
    }

    /// Says who is told, once, if the message does not go out.
    pub fn report(mut self, failures: Outlet<SendFailed>, session: SessionId, tag: u64) -> Message {
        self.guard.fate.report = Some((failures, session, tag));
        self
    }

    fn fail(mut self, reason: Refusal) -> Refusal {
        self.guard.fate.reason = reason;
        reason
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?} {} bytes)", self.flow, self.payload.len())
    }
}

/// How a peer's messages have fared since its session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Went out.
    pub sent: u64,
    /// Did not, for want of room or of time. What is shed, and what a session's end cuts off, is not among them.
    pub failed: u64,
}

struct State {
    lanes: Lanes<Guard>,
    tally: Tally,
    closed: bool,
    /// The session's task, while it waits for something to send.
    task: Option<Waker>,
    /// Senders that wait for room, by their place.
    senders: BTreeMap<u64, Waker>,
    /// The tasks of streams that wait for room, by stream.
    writers: BTreeMap<u64, Waker>,
}

/// A message that was not queued, and why.
struct Refused {
    reason: Refusal,
    message: Message,
}

/// Where a sender that waits leaves its wakers.
struct Place<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waker = self.shared.lock().senders.remove(&self.number);
        // A waker may be the last that its task is known by: dropped without the lock.
        drop(waker);
        self.shared.account.leave_place(self.number);
    }
}

struct Shared {
    state: Mutex<State>,
    account: Account,
    pressure: Pressure,
    capacity: usize,
}

impl Shared {
    /// Held for one call and never across an await; guards are dropped after it is released.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what the guards hold, and lets each message's fate be known. Without a lock held.
    fn release(&self, guards: impl Iterator<Item = Guard>, failed: Option<Refusal>) {
        let mut bytes = 0;
        for mut guard in guards {
            bytes += guard.own_bytes();
            match failed {
                Some(reason) => guard.fate.reason = reason,
                None => guard.fate.report = None,
            }
        }
        if bytes > 0 {
            self.account.give_back(bytes);
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        let before = state.lanes.waiting_bytes();
        let abandoned = state.lanes.clear();
        let streamed = state.lanes.streams().clear();
        let writers = std::mem::take(&mut state.writers).into_values();
        let wakers = std::mem::take(&mut state.senders).into_values().chain(writers).chain(state.task.take());
        drop(state);
        if streamed > 0 {
            self.account.give_back(streamed);
        }
        self.pressure.moved(before, 0);
        self.pressure.remove_capacity(self.capacity);
        self.release(abandoned.into_iter(), Some(Refusal::SessionEnded));
        // Doors may outlive the session for long; its share goes to the others now.
        self.account.set_weight(0);
        wakers.for_each(Waker::wake);
    }
}

/// Makes one peer's lanes, which draw on `pool` by the peer's weight. Their bytes count towards the pool's pressure
/// until they are closed.
pub fn lanes(config: LanesConfig, pool: &Pool, weight: u64) -> (Door, LaneEnd) {
    // Gossip uses the normal lane, so that is what publishers are measured against.
    let capacity = config.bytes;
    let pressure = pool.pressure();
    pressure.add_capacity(capacity);
    let state = State {
        lanes: Lanes::new(config),
        tally: Tally::default(),
        closed: false,
        task: None,
        senders: BTreeMap::new(),
        writers: BTreeMap::new(),
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), account: pool.account(weight), pressure, capacity });
    (Door(shared.clone()), LaneEnd { shared, sent: Vec::new() })
}

/// Where messages for one peer are offered. Cheap to clone.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

impl Door {
    /// Queues a message (reference: AvalancheGo's throttled queue). Answers at once.
    ///
    /// # Errors
    /// Why it was not queued. If the message asked for a report, that is made as well, so that a sender
    /// need look at one of the two only.
    pub fn offer(&self, message: Message) -> Result<(), Refusal> {
        self.try_offer(message, None).map_err(|refused| self.refuse(*refused))
    }

    /// How its messages have fared.
    pub fn tally(&self) -> Tally {
        self.0.lock().tally
    }

    /// Counts messages for this peer that failed before they were offered here.
    pub(crate) fn count_failed(&self, reason: Refusal) {
        if matches!(reason, Refusal::LaneFull | Refusal::PoolFull) {
            self.0.lock().tally.failed += 1;
        }
    }

    fn refuse(&self, refused: Refused) -> Refusal {
        self.count_failed(refused.reason);
        refused.message.fail(refused.reason)
    }

    /// Queues a message, and waits for room in its lane and in the pool, and until its lane rests no more (reference:
    /// AvalancheGo's blocking queue). Only for tasks of the application and of a stream: an actor that waited here could
    /// close a cycle of waits. A caller that gives up drops the future; the message then fails as any other.
    ///
    /// # Errors
    /// [`Refusal::SessionEnded`], or [`Refusal::PoolFull`] for a message that never finds room.
    pub async fn offer_when_room(&self, message: Message) -> Result<(), Refusal> {
        let mut message = match self.try_offer(message, None) {
            Ok(()) => return Ok(()),
            Err(refused) if self.may_find_room(&refused) => Some(refused.message),
            Err(refused) => return Err(self.refuse(*refused)),
        };
        // Dropped with the future: who gives up leaves nothing behind.
        let place = Place { shared: &self.0, number: self.0.account.place() };
        poll_fn(|cx| {
            let Some(offered) = message.take() else { return Poll::Ready(Ok(())) };
            match self.try_offer(offered, Some((place.number, cx.waker()))) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(refused) if self.may_find_room(&refused) => {
                    message = Some(refused.message);
                    Poll::Pending
                }
                Err(refused) => Poll::Ready(Err(self.refuse(*refused))),
            }
        })
        .await
    }

    fn may_find_room(&self, refused: &Refused) -> bool {
        match refused.reason {
            Refusal::LaneFull | Refusal::Shed => true,
            Refusal::PoolFull => self.0.account.could_ever_take(refused.message.payload.len()),
            _ => false,
        }
    }

    /// Closing the lanes wakes who waits for the pool, too.
    fn waits(&self, place: u64, sender: &Waker, reason: Refusal, message: Message) -> Box<Refused> {
        let mut state = self.0.lock();
        state.senders.insert(place, sender.clone());
        let reason = if state.closed { Refusal::SessionEnded } else { reason };
        Box::new(Refused { reason, message })
    }

    /// Offers; what is refused for want of room leaves its sender's waker where room is made.
    fn try_offer(&self, message: Message, waiting: Option<(u64, &Waker)>) -> Result<(), Box<Refused>> {
        if self.0.pressure.sheds(message.flow.lane) {
            let Some((place, sender)) = waiting else {
                return Err(Box::new(Refused { reason: Refusal::Shed, message }));
            };
            // As below.
            self.0.account.wake_on_room(place, sender);
            if self.0.pressure.sheds(message.flow.lane) {
                return Err(self.waits(place, sender, Refusal::Shed, message));
            }
        }
        let own = message.guard.own_bytes();
        if own > 0 && !self.0.account.charge(own) {
            // Registered first and asked again, so that bytes given back in between are not missed.
            let Some((place, sender)) = waiting else {
                return Err(Box::new(Refused { reason: Refusal::PoolFull, message }));
            };
            self.0.account.wake_on_room(place, sender);
            if !self.0.account.charge(own) {
                return Err(self.waits(place, sender, Refusal::PoolFull, message));
            }
        }
        let Message { flow, payload, when_full, expires, guard } = message;
        let mut state = self.0.lock();
        let before = state.lanes.waiting_bytes();
        let refused = if state.closed {
            Err((Refusal::SessionEnded, Offer { flow, payload, expires, drop_oldest: false, guard }))
        } else if !state.lanes.has_channel(flow.channel) {
            Err((Refusal::NoChannel, Offer { flow, payload, expires, drop_oldest: false, guard }))
        } else {
            let drop_oldest = when_full == WhenFull::DropOldest;
            let offered = state.lanes.offer(Offer { flow, payload, expires, drop_oldest, guard });
            offered.map_err(|offer| (Refusal::LaneFull, offer))
        };
        match refused {
            Ok(dropped) => {
                self.0.pressure.moved(before, state.lanes.waiting_bytes());
                state.tally.failed += dropped.len() as u64;
                let task = state.task.take();
                drop(state);
                if let Some(task) = task {
                    task.wake();
                }
                if !dropped.is_empty() {
                    self.0.release(dropped.into_iter(), Some(Refusal::Overtaken));
                }
                Ok(())
            }
            Err((reason, offer)) => {
                if let (Refusal::LaneFull, Some((place, sender))) = (reason, waiting) {
                    state.senders.insert(place, sender.clone());
                }
                drop(state);
                if own > 0 {
                    self.0.account.give_back(own);
                }
                let Offer { flow, payload, expires, guard, .. } = offer;
                let message = Message { flow, payload, when_full, expires, guard };
                Err(Box::new(Refused { reason, message }))
            }
        }
    }

    /// Takes back the messages of a lane that were [to be reported](Message::report) under this tag and have not begun to
    /// go out; how many. Nobody is told.
    pub fn take_back(&self, lane: Lane, tag: u64) -> usize {
        let mut state = self.0.lock();
        let before = state.lanes.waiting_bytes();
        let is = |guard: &Guard| guard.fate.report.as_ref().is_some_and(|(_, _, known)| *known == tag);
        let taken = state.lanes.take_back(lane, is);
        let after = state.lanes.waiting_bytes();
        let senders = if taken.is_empty() { BTreeMap::new() } else { std::mem::take(&mut state.senders) };
        drop(state);
        self.0.pressure.moved(before, after);
        let count = taken.len();
        self.0.release(taken.into_iter(), None);
        senders.into_values().for_each(Waker::wake);
        count
    }

    /// Changes the peer's weight in the outbound pool, and with it everybody's share: for a peer that becomes trusted,
    /// or no longer is, while its session lives. What is queued stays; senders that wait for room are woken. Nothing
    /// once the lanes are closed.
    pub fn set_weight(&self, weight: u64) {
        self.0.account.set_weight(weight);
        // Looked at afterwards: whichever of the two is last, lanes that are closed end without a share.
        if self.0.lock().closed {
            self.0.account.set_weight(0);
        }
    }

    /// Ends the lanes: what is queued fails, and so does what is offered later. May be called again.
    pub fn close(&self) {
        self.0.close();
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

/// Where the session's task takes what goes out. Dropping it ends the lanes: what is queued fails, and so
/// does what is offered later.
pub struct LaneEnd {
    shared: Arc<Shared>,
    /// Guards of what was just taken; kept for its room.
    sent: Vec<Guard>,
}

/// What a fragment may take besides its payload: its header and its message's total.
const OVERHEAD: usize = MAX_HEADER + 4;
/// With less room than this a batch ends: a small fragment of a large message costs more than it carries.
const SLIVER: usize = 1024;

impl LaneEnd {
    /// Takes the next fragment, if there is one that may go out (`PopNow`).
    pub fn pop(&mut self, now: Time) -> Option<Fragment> {
        self.pop_one(now, None)
    }

    /// Waits for the next fragment (`Pop`); `None` as soon as the lanes are closed. What expires is not noticed while
    /// this waits, but before anything is returned.
    pub async fn recv(&mut self, now: impl Fn() -> Time) -> Option<Fragment> {
        poll_fn(|cx| match self.pop_one(now(), Some(cx.waker())) {
            // Closing empties the lanes, and wakes whom the call above has left there.
            None if !self.shared.lock().closed => Poll::Pending,
            fragment => Poll::Ready(fragment),
        })
        .await
    }

    fn pop_one(&mut self, now: Time, task: Option<&Waker>) -> Option<Fragment> {
        let mut fragment = None;
        self.take(task, |lanes, sent| {
            let (popped, guard) = lanes.pop(now, usize::MAX)?;
            sent.extend(guard);
            fragment = Some(popped);
            Some(())
        });
        fragment
    }

    /// Takes the next fragments, for a record with room for `room` bytes of headers and payload. True if there may be
    /// more of them, which there was no room for. If not, the waker of `cx` is called when something is offered.
    pub fn pop_batch(&mut self, now: Time, room: usize, cx: &mut Context<'_>, batch: &mut Vec<Fragment>) -> bool {
        let mut more = true;
        self.take(Some(cx.waker()), |lanes, sent| {
            let mut left = room;
            while left >= OVERHEAD + SLIVER {
                let Some((fragment, guard)) = lanes.pop(now, left - OVERHEAD) else {
                    more = false;
                    break;
                };
                left -= OVERHEAD + fragment.payload.len();
                batch.push(fragment);
                sent.extend(guard);
            }
            more.then_some(())
        });
        more
    }

    /// Runs `pop` under the lock, and settles what it took outside of it. If it says that there is no more, `task` is
    /// woken by the next offer.
    fn take(&mut self, task: Option<&Waker>, pop: impl FnOnce(&mut Lanes<Guard>, &mut Vec<Guard>) -> Option<()>) {
        let mut state = self.shared.lock();
        let before = state.lanes.waiting_bytes();
        let popped = pop(&mut state.lanes, &mut self.sent);
        let expired = state.lanes.take_expired();
        let after = state.lanes.waiting_bytes();
        state.tally.sent += self.sent.len() as u64;
        state.tally.failed += expired.len() as u64;
        if popped.is_none()
            && let Some(task) = task
        {
            match &mut state.task {
                Some(known) => known.clone_from(task),
                none => *none = Some(task.clone()),
            }
        }
        let made_room = !self.sent.is_empty() || !expired.is_empty() || after < before;
        let senders = if made_room { std::mem::take(&mut state.senders) } else { BTreeMap::new() };
        let streamed = state.lanes.streams().take_popped();
        let writers = state.roomy_writers();
        drop(state);
        if streamed > 0 {
            self.shared.account.give_back(streamed);
        }
        writers.into_iter().for_each(Waker::wake);
        if before != after {
            self.shared.pressure.moved(before, after);
        }
        self.shared.release(self.sent.drain(..), None);
        self.shared.release(expired.into_iter(), Some(Refusal::Expired));
        senders.into_values().for_each(Waker::wake);
    }

    /// Lets nothing out from now on beyond the first windows that the other end has not [granted](LaneEnd::grant).
    /// There are channels 1 to `channels` and no others.
    pub fn require_credit(&mut self, channels: u16) {
        self.shared.lock().lanes.require_credit(channels);
    }

    /// The other end takes messages of this flow that cost up to `limit` since the session began.
    pub fn grant(&mut self, flow: Flow, limit: u64) {
        let mut state = self.shared.lock();
        state.lanes.grant(flow, limit);
        let writers = state.roomy_writers();
        drop(state);
        writers.into_iter().for_each(Waker::wake);
    }

    /// Gives back credit that was not used, and says which limit holds now.
    pub fn reclaim(&mut self, flow: Flow, limit: u64) -> u64 {
        self.shared.lock().lanes.reclaim(flow, limit)
    }

    /// How long the message has waited for credit that began to go out and has waited longest.
    pub fn starved(&self, now: Time) -> Duration {
        self.shared.lock().lanes.starved(now)
    }

    /// Gives back the memory of what is empty: for a task that knows that its peer is quiet.
    pub fn rest(&mut self) {
        self.sent = Vec::new();
        self.shared.lock().lanes.rest();
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.shared.lock().lanes.is_empty()
    }
}

impl Drop for LaneEnd {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for LaneEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaneEnd")
    }
}

#[cfg(test)]
mod tests;
