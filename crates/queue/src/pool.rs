//! The node's byte pool, shared by its tasks: the lock and the wakers around a [`Budget`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

#[cfg(feature = "loom")]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(feature = "loom"))]
use std::sync::{Mutex, MutexGuard};

use crate::{Budget, HolderId, PoolConfig};
use peerage_wire::frame::Lane;

/// What the task at the other end of an account has still to hear.
#[derive(Default)]
struct Notice {
    granted: usize,
    waker: Option<Waker>,
}

struct State {
    budget: Budget,
    /// By the index of the holder.
    notices: Vec<Notice>,
    /// Senders that wait for any room at all, by their place: as many as tasks of the application.
    senders: BTreeMap<u64, Waker>,
    next_place: u64,
}

struct Shared(Mutex<State>);

impl Shared {
    /// Held for one call and never across an await. The state is valid between any two calls, so another's panic
    /// does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may set bytes free, and wakes who got some when the lock is released: a woken task comes here first.
    fn grant<R>(&self, act: impl FnOnce(&mut State, &mut Vec<(HolderId, usize)>) -> R) -> R {
        // Neither allocates as long as nobody gets anything.
        let (mut granted, mut wakers) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        let result = act(&mut state, &mut granted);
        for (holder, bytes) in granted {
            let notice = &mut state.notices[holder.index()];
            notice.granted += bytes;
            wakers.extend(notice.waker.take());
        }
        wakers.extend(std::mem::take(&mut state.senders).into_values());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

/// Bytes that may be held in the whole node. Cheap to clone; clones are the same pool.
///
/// A buffer that many peers share is [charged](Pool::charge) once, to nobody in particular. What belongs to one
/// session goes through its [`Account`]. [`Budget`] says who gets how much.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    pressure: Pressure,
}

impl Pool {
    /// An unused pool. A number of bytes stands for as many at large.
    pub fn new(config: impl Into<PoolConfig>) -> Pool {
        let state =
            State { budget: Budget::new(config.into()), notices: Vec::new(), senders: BTreeMap::new(), next_place: 0 };
        let shared = Arc::new(Shared(Mutex::new(state)));
        let pressure = Pressure { pool: shared.clone(), lanes: Arc::default(), shed: Arc::default() };
        Pool { shared, pressure }
    }

    /// Takes `bytes` at large until the [`Charge`] is dropped; `None` if there are not as many.
    pub fn charge(&self, bytes: usize) -> Option<Arc<Charge>> {
        let fits = self.shared.lock().budget.take_at_large(bytes);
        fits.then(|| Arc::new(Charge { pool: self.shared.clone(), bytes }))
    }

    /// Opens a session's account. One without weight has no share.
    pub fn account(&self, weight: u64) -> Account {
        let mut state = self.shared.lock();
        let holder = state.budget.join(weight);
        if holder.index() == state.notices.len() {
            state.notices.push(Notice::default());
        }
        drop(state);
        Account { pool: self.shared.clone(), holder }
    }

    /// Bytes taken now.
    pub fn used(&self) -> usize {
        self.shared.lock().budget.used()
    }

    /// Bytes nobody has.
    pub fn free(&self) -> usize {
        self.shared.lock().budget.free()
    }

    /// Accounts that wait for bytes.
    pub fn waiting(&self) -> usize {
        self.shared.lock().budget.waiting()
    }

    /// Makes the pool larger or smaller; see [`Budget::set_config`].
    pub fn set_config(&self, config: impl Into<PoolConfig>) {
        let config = config.into();
        self.shared.grant(|state, granted| state.budget.set_config(config, granted));
    }

    /// Which lanes rest from now on, of all doors of this pool: what is offered there is refused as
    /// [`Refusal::Shed`](crate::Refusal::Shed), and who can wait, such as a stream, does so until they work again. What is
    /// queued goes on.
    pub fn shed(&self, shed: Shed) {
        self.pressure.shed.store(shed as u8, Ordering::Relaxed);
        // Senders that wait look again. The lock is taken after the store: one that comes later sees what is new.
        self.shared.grant(|_, _| ());
    }

    /// How full the node's queues are, to be asked by who may slow down.
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        write!(f, "Pool({} of {})", state.budget.used(), state.budget.config().capacity())
    }
}

/// Bytes taken from a pool. Shared by all recipients of a buffer; returned when the last is done with it.
pub struct Charge {
    pool: Arc<Shared>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.grant(|state, granted| state.budget.give_at_large(self.bytes, granted));
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}

/// What one session holds of a pool. Tasks may share it: one charges while another gives back. Dropping it gives
/// back all that is held.
///
/// One message is waited for at a time, by one task:
///
/// ```
/// # use peerage_queue::{Pool, PoolConfig};
/// # use std::future::poll_fn;
/// # let rt = tokio::runtime::Builder::new_current_thread().build()?;
/// # rt.block_on(async {
/// let account = Pool::new(PoolConfig::inbound()).account(0);
/// let mut missing = 40_000;
/// missing -= account.take(missing);
/// while missing > 0 {
///     missing -= poll_fn(|cx| account.poll_granted(cx)).await;
/// }
/// // The message is read and handled, and then:
/// account.give_back(40_000);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Account {
    pool: Arc<Shared>,
    holder: HolderId,
}

impl Account {
    /// Takes all of `bytes` or nothing; never waits.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> bool {
        self.pool.lock().budget.take_all(self.holder, bytes)
    }

    /// Gives `bytes` back; more than are held count as all of them.
    pub fn give_back(&self, bytes: usize) {
        self.pool.grant(|state, granted| state.budget.give_back(self.holder, bytes, granted));
    }

    /// Takes what there is of `bytes` now and says how much. For the rest [`poll_granted`](Account::poll_granted).
    /// See [`Budget::take`] for what the caller owes.
    #[must_use]
    pub fn take(&self, bytes: usize) -> usize {
        self.pool.lock().budget.take(self.holder, bytes)
    }

    /// Bytes granted since the last call, at least one; the task is woken when there are some.
    pub fn poll_granted(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.pool.lock();
        let notice = &mut state.notices[self.holder.index()];
        if notice.granted > 0 {
            return Poll::Ready(std::mem::take(&mut notice.granted));
        }
        let known = notice.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        let old = if known { None } else { notice.waker.replace(cx.waker().clone()) };
        drop(state);
        // The last waker of a task drops the task, and with it maybe an account of this pool.
        drop(old);
        Poll::Pending
    }

    /// Whether so many bytes fit at all, in a pool that nobody else uses.
    pub(crate) fn could_ever_take(&self, bytes: usize) -> bool {
        let state = self.pool.lock();
        let config = state.budget.config();
        bytes <= config.at_large.min(config.holder_max) + config.shared
    }

    /// A new place for a sender that may have to wait.
    pub(crate) fn place(&self) -> u64 {
        let mut state = self.pool.lock();
        state.next_place += 1;
        state.next_place
    }

    /// Wakes the sender when somebody has given bytes back.
    pub(crate) fn wake_on_room(&self, place: u64, sender: &Waker) {
        let old = self.pool.lock().senders.insert(place, sender.clone());
        drop(old);
    }

    #[cfg(test)]
    pub(crate) fn senders(&self) -> usize {
        self.pool.lock().senders.len()
    }

    /// Forgets a sender that waits no more.
    pub(crate) fn leave_place(&self, place: u64) {
        let waker = self.pool.lock().senders.remove(&place);
        drop(waker);
    }

    /// Stops waiting and says how much was still wanted. All the rest of the message is held, also what was granted
    /// but not polled yet, which will not be reported any more: the caller gives back what it asked for less this.
    pub fn cancel(&self) -> usize {
        let mut state = self.pool.lock();
        let wanted = state.budget.cancel(self.holder);
        let notice = std::mem::take(&mut state.notices[self.holder.index()]);
        drop(state);
        drop(notice);
        wanted
    }

    /// Whether anybody else waits for bytes of this pool.
    pub fn others_wait(&self) -> bool {
        let state = self.pool.lock();
        let own = usize::from(state.budget.wanted(self.holder) > 0);
        state.budget.waiting() > own
    }

    /// Changes the weight, and with it everybody's share.
    pub fn set_weight(&self, weight: u64) {
        self.pool.grant(|state, granted| state.budget.set_weight(self.holder, weight, granted));
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.pool.lock().budget.held(self.holder)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // The next account at this place must hear nothing of this one, and its waker is dropped without the lock.
        let notice = self.pool.grant(|state, granted| {
            state.budget.leave(self.holder, granted);
            std::mem::take(&mut state.notices[self.holder.index()])
        });
        drop(notice);
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({} bytes)", self.held())
    }
}

/// The node's pool for what comes in. Cheap to clone.
///
/// The windows that sessions begin with are apart from all that large messages and grown windows may take: else a few
/// peers that each begin a large message would leave no room to admit another.
#[derive(Clone, Debug)]
pub struct InboundPool {
    windows: Pool,
    beyond: Pool,
}

impl InboundPool {
    /// A pool with `windows` bytes for the first windows of sessions, and `beyond` for what is granted beyond them.
    pub fn new(windows: usize, beyond: PoolConfig) -> InboundPool {
        InboundPool { windows: Pool::new(windows), beyond: Pool::new(beyond) }
    }

    /// Reserves `windows` bytes for a session, and opens its account for more; `None` if the node has no room for another
    /// session. Dropping the share gives all of it back.
    pub fn admit(&self, windows: usize, weight: u64) -> Option<InboundShare> {
        Some(InboundShare { windows: self.windows.charge(windows)?, beyond: self.beyond.account(weight) })
    }

    /// Makes it larger or smaller; see [`Budget::set_config`].
    pub fn set_limits(&self, windows: usize, beyond: PoolConfig) {
        self.windows.set_config(windows);
        self.beyond.set_config(beyond);
    }

    /// Bytes granted now: first windows, and beyond them.
    pub fn used(&self) -> (usize, usize) {
        (self.windows.used(), self.beyond.used())
    }

    /// Sessions whose next message waits for bytes.
    pub fn waiting(&self) -> usize {
        self.beyond.waiting()
    }
}

/// One session's part of the inbound pool.
#[derive(Debug)]
pub struct InboundShare {
    windows: Arc<Charge>,
    beyond: Account,
}

impl InboundShare {
    /// Bytes of first windows.
    pub fn windows(&self) -> usize {
        self.windows.bytes
    }

    /// What is granted beyond the first windows.
    pub const fn beyond(&self) -> &Account {
        &self.beyond
    }

    /// A handle that changes its weight wherever the share has gone, to be taken before that.
    pub fn weight(&self) -> InboundWeight {
        InboundWeight { pool: self.beyond.pool.clone(), holder: self.beyond.holder }
    }
}

/// Changes the weight of a session's [`InboundShare`] while the session has it. Holds nothing of the share: once that
/// is gone it does nothing, also when another session has the same place. Cheap to clone.
#[derive(Clone)]
pub struct InboundWeight {
    pool: Arc<Shared>,
    holder: HolderId,
}

impl InboundWeight {
    /// Changes the session's weight, and with it everybody's share. What is held stays held; what the session waits for
    /// and now has a right to, it gets at once.
    pub fn set(&self, weight: u64) {
        self.pool.grant(|state, granted| state.budget.set_weight(self.holder, weight, granted));
    }
}

impl fmt::Debug for InboundWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboundWeight")
    }
}

/// Which lanes rest while the node is short of something. Control and high never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shed {
    /// None.
    #[default]
    Nothing = 0,
    /// Bulk.
    Bulk = 1,
    /// Bulk and normal.
    Normal = 2,
}

#[derive(Default)]
struct LaneTotals {
    used: AtomicUsize,
    capacity: AtomicUsize,
}

/// How full a node's queues are: what its pool has at large, and all its peers' lanes together. Cheap to clone.
///
/// One slow peer's full lane is a small part of the sum, so it does not hold up the others.
#[derive(Clone)]
pub struct Pressure {
    pool: Arc<Shared>,
    lanes: Arc<LaneTotals>,
    /// A [`Shed`]. Read without the lock: whoever sees it late queues one message more.
    shed: Arc<AtomicU8>,
}

impl Pressure {
    /// Whether the lanes are over half full, or the pool is nearly so: who can, should wait before it publishes more.
    ///
    /// The pool has the higher mark because a message that has begun to go out keeps its charge: a few peers that
    /// read slowly must not silence the node.
    pub fn over_half(&self) -> bool {
        let lanes = self.lanes.used.load(Ordering::Relaxed) * 2 > self.lanes.capacity.load(Ordering::Relaxed);
        lanes || {
            // What is published is charged at large.
            let state = self.pool.lock();
            state.budget.used_at_large() > state.budget.config().at_large / 8 * 7
        }
    }

    /// Whether this lane rests.
    pub fn sheds(&self, lane: Lane) -> bool {
        let shed = self.shed.load(Ordering::Relaxed);
        match lane {
            Lane::Control | Lane::High => false,
            Lane::Normal => shed >= Shed::Normal as u8,
            Lane::Bulk => shed >= Shed::Bulk as u8,
        }
    }

    pub(crate) fn add_capacity(&self, bytes: usize) {
        self.lanes.capacity.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn remove_capacity(&self, bytes: usize) {
        self.lanes.capacity.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Follows one peer's queued bytes from `before` to `after`.
    pub(crate) fn moved(&self, before: usize, after: usize) {
        if after >= before {
            self.lanes.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.lanes.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Bytes in all lanes now; a shared buffer counts once for each peer.
    pub fn lane_bytes(&self) -> usize {
        self.lanes.used.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pressure(over half: {})", self.over_half())
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
