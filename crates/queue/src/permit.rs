//! What a message that came in holds until it has been handled: its part of its flow's credit.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::task::AtomicWaker;
use peerage_wire::frame::Lane;

use crate::InboundShare;
use crate::throttle::TimeSource;

#[derive(Debug)]
struct Returns {
    flows: Box<[FlowReturns]>,
    task: AtomicWaker,
    channels: Box<[ChannelReturns]>,
    /// Time that handling its messages took and that was not [taken](Returned::take_spent) yet, in nanoseconds, and what
    /// it is measured by.
    spent: AtomicU64,
    time: Option<TimeSource>,
    /// The session's part of the inbound pool, once the session has ended: kept until the last message is handled.
    share: Mutex<Option<InboundShare>>,
}

#[derive(Debug)]
struct FlowReturns {
    /// The cost of all permits that were dropped.
    total: AtomicU64,
    /// The total at which the session's task is woken: not for every message.
    wake_at: AtomicU64,
}

#[derive(Debug)]
struct ChannelReturns {
    /// Permits that were dropped, and the number at which the session's task is woken.
    handled: AtomicU64,
    wake_at: AtomicU64,
}

/// A message's part of its flow's credit. Dropping it gives that back, once, on whatever path the message ends. Whoever
/// keeps it for long keeps the peer from sending, and others from what it holds of the pool.
pub struct Permit {
    returns: Option<Arc<Returns>>,
    flow: u32,
    cost: u32,
}

impl Permit {
    /// A permit of nothing, for messages that no session brought.
    pub const fn none() -> Permit {
        Permit { returns: None, flow: 0, cost: 0 }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(returns) = self.returns.take() else { return };
        let Some(flow) = returns.flows.get(self.flow as usize) else { return };
        let cost = u64::from(self.cost);
        let before = flow.total.fetch_add(cost, Ordering::SeqCst);
        let mut wake = before + cost >= flow.wake_at.load(Ordering::SeqCst);
        if let Some(channel) = returns.channels.get(self.flow as usize / Lane::ALL.len()) {
            let handled = channel.handled.fetch_add(1, Ordering::SeqCst) + 1;
            wake |= handled >= channel.wake_at.load(Ordering::SeqCst);
        }
        if wake {
            returns.task.wake();
        }
    }
}

impl Permit {
    /// Where the time that this message takes is charged; `None` if it is nobody's, or is not measured.
    pub fn spending(&self) -> Option<Spending> {
        let returns = self.returns.as_ref()?;
        returns.time.as_ref()?.is_on().then(|| Spending(returns.clone()))
    }
}

/// A session's account of the time that handling its messages takes. Clones are the same account.
#[derive(Clone, Debug)]
pub struct Spending(Arc<Returns>);

impl Spending {
    /// Whether it is the account of the session that this message came by.
    pub fn is_of(&self, permit: &Permit) -> bool {
        permit.returns.as_ref().is_some_and(|returns| Arc::ptr_eq(returns, &self.0))
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.time.as_ref().map_or(Duration::ZERO, TimeSource::now)
    }

    /// Charges so much, which nobody else charges.
    pub fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.spent.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({})", self.cost)
    }
}

/// The other end of a session's permits: how much of each flow was given back.
#[derive(Debug)]
pub struct Returned(Arc<Returns>);

impl Returned {
    /// For a session with so many flows.
    pub fn new(flows: usize) -> Returned {
        Returned::timed(flows, None)
    }

    /// For a session with so many flows, of which the time is measured that handling its messages takes.
    pub fn timed(flows: usize, time: Option<TimeSource>) -> Returned {
        let empty = || FlowReturns { total: AtomicU64::new(0), wake_at: AtomicU64::new(0) };
        let counted = || ChannelReturns { handled: AtomicU64::new(0), wake_at: AtomicU64::new(u64::MAX) };
        Returned(Arc::new(Returns {
            flows: (0..flows).map(|_| empty()).collect(),
            task: AtomicWaker::new(),
            channels: (0..flows.div_ceil(Lane::ALL.len())).map(|_| counted()).collect(),
            spent: AtomicU64::new(0),
            time,
            share: Mutex::new(None),
        }))
    }

    /// A permit for a message of the flow. `cost` is less than 4 GiB, as every message is.
    pub fn permit(&self, flow: usize, cost: u64) -> Permit {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        Permit { returns: Some(self.0.clone()), flow: flow as u32, cost }
    }

    /// The cost of all the flow's permits that were dropped since the session began.
    pub fn total(&self, flow: usize) -> u64 {
        self.0.flows[flow].total.load(Ordering::SeqCst)
    }

    /// Wakes the task once the flow's total is at `total`; false if it is already, and the task looks again itself.
    pub fn wake_at(&self, flow: usize, total: u64) -> bool {
        // Stored before it is read again: a permit dropped in between either sees the new mark or is seen here.
        self.0.flows[flow].wake_at.store(total, Ordering::SeqCst);
        self.total(flow) < total
    }

    /// Permits of the channel that were dropped since the session began; channels count from zero here.
    pub fn handled(&self, channel: usize) -> u64 {
        self.0.channels.get(channel).map_or(0, |channel| channel.handled.load(Ordering::SeqCst))
    }

    /// Wakes the task once so many permits of the channel were dropped; false if they are already, and the task looks
    /// again itself.
    pub fn wake_at_handled(&self, channel: usize, count: u64) -> bool {
        if let Some(channel) = self.0.channels.get(channel) {
            channel.wake_at.store(count, Ordering::SeqCst);
        }
        self.handled(channel) < count
    }

    /// Time that handling its messages took since it was taken last, if it is at least as much.
    pub fn take_spent(&self, least: Duration) -> Option<Duration> {
        let spent = self.0.spent.load(Ordering::Relaxed);
        if spent == 0 || u128::from(spent) < least.as_nanos() {
            return None;
        }
        Some(Duration::from_nanos(self.0.spent.swap(0, Ordering::Relaxed)))
    }

    /// Ends the session: what `outstanding` messages hold of its share is given back with the last of their permits, all
    /// else at once.
    pub fn end(self, share: InboundShare, outstanding: u64) {
        let keep = usize::try_from(outstanding).unwrap_or(usize::MAX).saturating_sub(share.windows());
        share.beyond().cancel();
        share.beyond().give_back(share.beyond().held().saturating_sub(keep));
        if outstanding > 0 {
            // It takes nothing more, so its part of what is shared is the others'.
            share.beyond().set_weight(0);
            *self.0.share.lock().unwrap_or_else(PoisonError::into_inner) = Some(share);
        }
    }

    /// Whom to wake. To be called before looking.
    pub fn register(&self, task: &Waker) {
        self.0.task.register(task);
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_that_waits_for_a_total_is_woken_however_the_permits_are_dropped() {
        loom::model(|| {
            let returned = Returned::new(1);
            let count = Arc::new(Count::default());
            returned.register(&count.clone().into());
            assert!(returned.wake_at(0, 1), "an earlier mark, which the permits may still see");
            let drops = [1, 1].map(|cost| {
                let permit = returned.permit(0, cost);
                loom::thread::spawn(move || drop(permit))
            });
            // As the task does: whatever wakes it from here on makes it look again.
            let before = count.0.load(Ordering::SeqCst);
            returned.register(&count.clone().into());
            let waits = returned.wake_at(0, 2);
            drops.into_iter().for_each(|dropping| dropping.join().expect("no panic"));
            let woken = count.0.load(Ordering::SeqCst);
            assert!(!waits || woken > before, "the total is {} and nobody looks", returned.total(0));
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::{InboundPool, PoolConfig};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_permit_comes_back_once_and_the_task_is_woken_at_its_mark() {
        let returned = Returned::new(2);
        let count = Arc::new(Count::default());
        returned.register(&count.clone().into());
        let permits: Vec<Permit> = (0..4).map(|_| returned.permit(1, 100)).collect();
        assert!(returned.wake_at(1, 300));
        let mut permits = permits.into_iter();
        drop((permits.next(), permits.next()));
        assert_eq!((returned.total(0), returned.total(1), count.0.load(Ordering::SeqCst)), (0, 200, 0));
        drop(permits.next());
        assert_eq!((returned.total(1), count.0.load(Ordering::SeqCst)), (300, 1));
        drop(permits);
        assert_eq!(returned.total(1), 400);
        assert!(!returned.wake_at(1, 400), "already there");
        drop(Permit::none());
    }

    #[test]
    fn what_outlives_its_session_keeps_its_part_of_the_pool_and_no_more() {
        let pool = InboundPool::new(100, PoolConfig::from(1000));
        let share = pool.admit(100, 0).expect("room");
        assert!(share.beyond().charge(900));
        let returned = Returned::new(1);
        let permits = [returned.permit(0, 150), returned.permit(0, 50)];
        returned.end(share, 200);
        assert_eq!(pool.used(), (100, 100));
        let [first, last] = permits;
        drop(first);
        assert_eq!(pool.used(), (100, 100), "until the last of them");
        drop(last);
        assert_eq!(pool.used(), (0, 0));
        Returned::new(1).end(pool.admit(100, 0).expect("room"), 0);
        assert_eq!(pool.used(), (0, 0));
    }
    #[test]
    fn a_session_that_has_ended_leaves_its_share_to_the_others_although_a_message_of_it_lives() {
        let config = PoolConfig { at_large: 0, shared: 100, holder_max: 0, aside: 0 };
        let pool = InboundPool::new(100, config);
        let (gone, other) = (pool.admit(50, 1).expect("room"), pool.admit(50, 1).expect("room"));
        assert!(gone.beyond().charge(20) && !other.beyond().charge(51));
        let returned = Returned::new(1);
        let permit = returned.permit(0, 70);
        returned.end(gone, 70);
        assert!(other.beyond().charge(80) && !other.beyond().charge(1));
        drop(permit);
        assert!(other.beyond().charge(20));
    }
}
