//! The bounded typed queue that data takes into an actor or a task.
//!
//! An offer never waits: each item says what happens when there is no room. The first item after the
//! consumer last looked rings the consumer's bell; the consumer clears the bell *before* it takes, so
//! that an item offered meanwhile rings again and none is forgotten. The queue belongs to neither end:
//! it survives the restart of an actor. Items that name their [source](Item::source) leave in an order that
//! is fair to sources; others leave as they came.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::Bell;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, lock};

mod line;

pub use line::Line;

/// What a queue may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Most items.
    pub items: usize,
    /// Most weight (for most items: bytes) of all of them together.
    pub weight: usize,
}

/// What happens to an item for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The sender gets it back.
    Reject,
    /// The oldest items make room and are counted as lag.
    DropOldest,
    /// It takes the place of the queued item that it [supersedes](Item::supersedes), room or not;
    /// where there is none, it needs room as others do.
    Replace,
}

/// Something that travels through a data queue.
pub trait Item: Send + 'static {
    /// What it takes of the queue's weight: bytes, for what carries bytes.
    fn weight(&self) -> usize {
        1
    }

    /// What to do when there is no room.
    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }

    /// Whether it says all that `queued` says and later, so that `queued` need not be handled.
    /// Asked for [`Overflow::Replace`] only.
    fn supersedes(&self, queued: &Self) -> bool {
        let _ = queued;
        false
    }

    /// Whom it came from, where sources are to have equal shares of the consumer: each [weight](Item::weight) for weight,
    /// in its own order. None, where items leave in the order in which they came; all items of a queue have a source, or
    /// none has.
    fn source(&self) -> Option<u64> {
        None
    }
}

/// An item that was not queued, given back.
pub enum Refused<T> {
    /// There was no room.
    Full(T),
    /// The consumer is gone for good.
    Closed(T),
}

impl<T> Refused<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            Refused::Full(item) | Refused::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Full(_) => "Full",
            Refused::Closed(_) => "Closed",
        })
    }
}

/// The consumer is gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the consumer is gone")]
pub struct SendError;

/// Why [`Inlet::recv`] has no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// So many items were dropped since the last call; the next call goes on with the oldest kept one.
    #[error("{0} items were dropped because this consumer was too slow")]
    Lagged(u64),
    /// No sender is left and nothing is queued.
    #[error("no sender is left")]
    Closed,
}

struct State<T> {
    items: Line<T>,
    weight: usize,
    lagged: u64,
    closed: bool,
    bell: Option<Bell>,
    /// Set by the offer that rings, cleared by the consumer before it takes. Under the lock with the bell it
    /// belongs to: else an offer could ring the bell of a life that has ended, and mark the new one as rung.
    rung: bool,
    /// A task in `recv`, and tasks in `offer_when_room`.
    receiver: Option<Waker>,
    senders_waiting: VecDeque<Waker>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    outlets: AtomicUsize,
    inlets: AtomicUsize,
    capacity: Capacity,
}

/// A queue's two ends. Both may be cloned: many senders, and an actor's next life beside its last.
pub fn data_queue<T: Item>(capacity: Capacity) -> (Outlet<T>, Inlet<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: Line::new(),
            weight: 0,
            lagged: 0,
            closed: false,
            bell: None,
            rung: false,
            receiver: None,
            senders_waiting: VecDeque::new(),
        }),
        outlets: AtomicUsize::new(1),
        inlets: AtomicUsize::new(1),
        capacity,
    });
    (Outlet { shared: shared.clone() }, Inlet { shared })
}

impl<T: Item> State<T> {
    fn fits(&self, capacity: Capacity, weight: usize) -> bool {
        // An empty queue takes one item of any weight, else an item heavier than the whole queue could
        // never pass; what may be that heavy is bounded where it is made.
        self.items.is_empty() || (self.items.len() < capacity.items && self.weight + weight <= capacity.weight)
    }

    fn push(&mut self, item: T) {
        self.weight += item.weight();
        self.items.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        let item = self.items.pop();
        self.without(item)
    }

    fn without(&mut self, item: Option<T>) -> Option<T> {
        self.weight -= item.as_ref().map_or(0, Item::weight);
        item
    }

    fn offer(&mut self, capacity: Capacity, item: T) -> Result<(), Refused<T>> {
        if self.closed {
            return Err(Refused::Closed(item));
        }
        match item.overflow() {
            Overflow::Replace => {
                if let Some(queued) = self.items.iter_mut().find(|queued| item.supersedes(queued)) {
                    self.weight = self.weight - queued.weight() + item.weight();
                    *queued = item;
                    return Ok(());
                }
            }
            Overflow::DropOldest => {
                while !self.fits(capacity, item.weight()) {
                    self.pop();
                    self.lagged += 1;
                }
            }
            Overflow::Reject => {}
        }
        if !self.fits(capacity, item.weight()) {
            return Err(Refused::Full(item));
        }
        self.push(item);
        Ok(())
    }
}

impl<T> State<T> {
    /// Whom to wake for an item: the bell if it has not rung since the consumer last looked, and a waiting
    /// receiver.
    fn take_wake(&mut self) -> Wake {
        let bell = self.bell.clone().filter(|_| !self.rung);
        self.rung |= bell.is_some();
        Wake { bell, receiver: self.receiver.take() }
    }
}

/// Rung after the lock is released: a bell may do anything.
#[must_use]
struct Wake {
    bell: Option<Bell>,
    receiver: Option<Waker>,
}

impl Wake {
    fn wake(self) {
        if let Some(receiver) = self.receiver {
            receiver.wake();
        }
        if let Some(bell) = self.bell {
            bell.ring();
        }
    }
}

/// The sending end.
pub struct Outlet<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Item> Outlet<T> {
    /// Queues the item, or does what it says of overflow. Never waits.
    ///
    /// # Errors
    /// The item, if there was no room for it or the consumer is gone.
    pub fn offer(&self, item: T) -> Result<(), Refused<T>> {
        let mut state = lock(&self.shared.state);
        state.offer(self.shared.capacity, item)?;
        let wake = state.take_wake();
        drop(state);
        wake.wake();
        Ok(())
    }

    /// Waits for room. Only for tasks that own a socket and for tasks of the application: an actor that
    /// waited here could close a cycle of waits.
    ///
    /// # Errors
    /// The item, if the consumer is gone.
    pub async fn offer_when_room(&self, item: T) -> Result<(), Refused<T>> {
        let mut item = Some(item);
        let mut waiting = Waiting { outlet: self, waker: None };
        poll_fn(|context| {
            let Some(offered) = item.take() else { return Poll::Ready(Ok(())) };
            let mut state = lock(&self.shared.state);
            match state.offer(self.shared.capacity, offered) {
                Ok(()) => {
                    let wake = state.take_wake();
                    drop(state);
                    wake.wake();
                    Poll::Ready(Ok(()))
                }
                Err(Refused::Full(refused)) => {
                    if !state.senders_waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                        state.senders_waiting.push_back(context.waker().clone());
                    }
                    waiting.waker = Some(context.waker().clone());
                    item = Some(refused);
                    Poll::Pending
                }
                Err(closed) => Poll::Ready(Err(closed)),
            }
        })
        .await
    }

    /// Queues as many of `items` as find room, oldest first, under one lock and with one wake. Ready when none is left;
    /// while there is no room, the waker of `cx` is called when there is again. For tasks that own a socket.
    ///
    /// # Errors
    /// [`SendError`] if the consumer is gone; the items are dropped then.
    pub fn poll_offer_all(&self, cx: &mut Context<'_>, items: &mut VecDeque<T>) -> Poll<Result<(), SendError>> {
        let mut state = lock(&self.shared.state);
        let mut queued = false;
        let polled = loop {
            let Some(item) = items.pop_front() else { break Poll::Ready(Ok(())) };
            match state.offer(self.shared.capacity, item) {
                Ok(()) => queued = true,
                Err(Refused::Full(item)) => {
                    items.push_front(item);
                    if !state.senders_waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                        state.senders_waiting.push_back(cx.waker().clone());
                    }
                    break Poll::Pending;
                }
                Err(Refused::Closed(item)) => {
                    items.push_front(item);
                    break Poll::Ready(Err(SendError));
                }
            }
        };
        let wake = queued.then(|| state.take_wake());
        drop(state);
        if let Some(wake) = wake {
            wake.wake();
        }
        if polled.is_ready() {
            items.clear();
        }
        polled
    }

    /// Whether the consumer is gone for good.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.state).closed
    }
}

/// A sender that may leave its waker in the queue. One that gives up takes it along.
struct Waiting<'a, T> {
    outlet: &'a Outlet<T>,
    waker: Option<Waker>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let Some(own) = self.waker.take() else { return };
        let mut state = lock(&self.outlet.shared.state);
        let position = state.senders_waiting.iter().position(|waker| waker.will_wake(&own));
        let left = position.and_then(|position| state.senders_waiting.remove(position));
        drop(state);
        drop(left);
    }
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        self.shared.outlets.fetch_add(1, Ordering::Relaxed);
        Outlet { shared: self.shared.clone() }
    }
}

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        if self.shared.outlets.fetch_sub(1, Ordering::AcqRel) == 1 {
            let receiver = lock(&self.shared.state).receiver.take();
            if let Some(receiver) = receiver {
                receiver.wake();
            }
        }
    }
}

impl<T> fmt::Debug for Outlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlet")
    }
}

/// The taking end. The queue closes with its last inlet.
pub struct Inlet<T: Item> {
    shared: Arc<Shared<T>>,
}

impl<T: Item> Inlet<T> {
    /// Makes `bell` the one that is rung, and rings it if something is queued already: what an actor
    /// calls whenever it starts.
    pub fn bind(&self, bell: Bell) {
        let mut state = lock(&self.shared.state);
        state.bell = Some(bell);
        state.rung = false;
        let wake = if state.items.is_empty() { None } else { Some(state.take_wake()) };
        drop(state);
        if let Some(wake) = wake {
            wake.wake();
        }
    }

    /// Takes at most `budget` items, the next one first. An actor calls it when its bell has rung, and
    /// [`ring_if_more`](Inlet::ring_if_more) after it handled them.
    pub fn take(&self, budget: usize) -> Vec<T> {
        let mut state = lock(&self.shared.state);
        state.rung = false;
        let count = budget.min(state.items.len());
        let items = (0..count).filter_map(|_| state.pop()).collect();
        let waiting = std::mem::take(&mut state.senders_waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        items
    }

    /// Takes one item if there is one. An actor pops an item before it handles it, so that an item
    /// which makes it panic is not handled again in its next life.
    pub fn pop(&self) -> Option<T> {
        self.pop_by(State::pop)
    }

    /// Counts what is queued now, and lets the [sources](Item::source) of it have their turns in
    /// [`pop_called`](Inlet::pop_called).
    pub fn call(&self) -> usize {
        let mut state = lock(&self.shared.state);
        state.items.call();
        state.items.len()
    }

    /// As [`pop`](Inlet::pop), but an item of a source that had nothing here when all were last
    /// [called](Inlet::call) waits for the next call: for actors that learn of sources by other messages, which they
    /// have then had.
    pub fn pop_called(&self) -> Option<T> {
        self.pop_by(|state| {
            let item = state.items.pop_called();
            state.without(item)
        })
    }

    /// Takes the next item of this source if there is one, whoever's turn it is: when the source is gone and its last
    /// items count.
    pub fn pop_of(&self, source: u64) -> Option<T> {
        self.pop_by(|state| {
            let item = state.items.pop_of(source);
            state.without(item)
        })
    }

    fn pop_by(&self, pop: impl FnOnce(&mut State<T>) -> Option<T>) -> Option<T> {
        let mut state = lock(&self.shared.state);
        state.rung = false;
        let item = pop(&mut state);
        let waiting = std::mem::take(&mut state.senders_waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        item
    }

    /// Rings the bell again if items remain, so that other messages get their turn between batches.
    pub fn ring_if_more(&self) {
        let mut state = lock(&self.shared.state);
        let wake = if state.items.is_empty() { None } else { Some(state.take_wake()) };
        drop(state);
        if let Some(wake) = wake {
            wake.wake();
        }
    }

    /// Waits for the next item: for a task, which has no bell.
    ///
    /// # Errors
    /// [`RecvError::Lagged`] once for every gap, [`RecvError::Closed`] when no sender is left.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        poll_fn(|context| {
            let mut state = lock(&self.shared.state);
            if state.lagged > 0 {
                return Poll::Ready(Err(RecvError::Lagged(std::mem::take(&mut state.lagged))));
            }
            if let Some(item) = state.pop() {
                let waiting = std::mem::take(&mut state.senders_waiting);
                drop(state);
                waiting.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(item));
            }
            if state.closed || self.shared.outlets.load(Ordering::Acquire) == 0 {
                return Poll::Ready(Err(RecvError::Closed));
            }
            state.receiver = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits for items, and takes at most `budget` of them, oldest first, under one lock.
    ///
    /// # Errors
    /// As [`recv`](Inlet::recv).
    pub async fn recv_many(&mut self, budget: usize) -> Result<VecDeque<T>, RecvError> {
        let first = self.recv().await?;
        let mut items = VecDeque::with_capacity(16);
        items.push_back(first);
        items.extend(self.take(budget.saturating_sub(1)));
        Ok(items)
    }

    /// Refuses what is offered from now on, drops what is queued, and lets waiting senders go.
    pub fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        let dropped = std::mem::take(&mut state.items);
        state.weight = 0;
        state.bell = None;
        let (waiting, receiver) = (std::mem::take(&mut state.senders_waiting), state.receiver.take());
        drop(state);
        // Items may run anything when dropped (permits do), so they go after the lock.
        drop(dropped);
        waiting.into_iter().chain(receiver).for_each(Waker::wake);
    }

    /// Items queued now.
    pub fn len(&self) -> usize {
        lock(&self.shared.state).items.len()
    }

    /// Whether nothing is queued now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Item> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        self.shared.inlets.fetch_add(1, Ordering::Relaxed);
        Inlet { shared: self.shared.clone() }
    }
}

impl<T: Item> Drop for Inlet<T> {
    fn drop(&mut self) {
        if self.shared.inlets.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close();
        }
    }
}

impl<T: Item> fmt::Debug for Inlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inlet")
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests;

#[cfg(all(test, feature = "loom"))]
mod loom_tests;
