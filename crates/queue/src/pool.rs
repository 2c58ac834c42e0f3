//! The node's byte pool: all queued messages together, each shared buffer once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Budget {
    capacity: usize,
    used: AtomicUsize,
}

/// Bytes that may be queued in the whole node. Cheap to clone; clones are the same pool.
///
/// All or nothing, and it never waits: what finds no room is refused.
#[derive(Clone)]
pub struct Pool {
    budget: Arc<Budget>,
    pressure: Pressure,
}

impl Pool {
    /// An unused pool of `capacity` bytes.
    pub fn new(capacity: usize) -> Pool {
        let budget = Arc::new(Budget { capacity, used: AtomicUsize::new(0) });
        let pressure = Pressure { pool: budget.clone(), lanes: Arc::default() };
        Pool { budget, pressure }
    }

    /// Takes `bytes` until the [`Charge`] is dropped; `None` if there are not as many.
    pub fn charge(&self, bytes: usize) -> Option<Arc<Charge>> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.budget.capacity);
        self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Arc::new(Charge { budget: self.budget.clone(), bytes }))
    }

    /// Bytes taken now.
    pub fn used(&self) -> usize {
        self.budget.used.load(Ordering::Relaxed)
    }

    /// How full the node's queues are, to be asked by who may slow down.
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {})", self.used(), self.budget.capacity)
    }
}

/// Bytes taken from a pool. Shared by all recipients of a buffer; returned when the last is done with it.
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}

#[derive(Default)]
struct LaneTotals {
    used: AtomicUsize,
    capacity: AtomicUsize,
}

/// How full a node's queues are: its pool, and all its peers' lanes together. Cheap to clone.
///
/// One slow peer's full lane is a small part of the sum, so it does not hold up the others.
#[derive(Clone)]
pub struct Pressure {
    pool: Arc<Budget>,
    lanes: Arc<LaneTotals>,
}

impl Pressure {
    /// Whether the lanes are over half full, or the pool is nearly so: who can, should wait before it publishes more.
    ///
    /// The pool has the higher mark because a message that has begun to go out keeps its charge: a few peers that
    /// read slowly must not silence the node.
    pub fn over_half(&self) -> bool {
        let lanes = self.lanes.used.load(Ordering::Relaxed) * 2 > self.lanes.capacity.load(Ordering::Relaxed);
        lanes || self.pool.used.load(Ordering::Relaxed) > self.pool.capacity / 8 * 7
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_all_or_nothing_and_comes_back_once_however_often_it_is_shared() {
        let pool = Pool::new(100);
        let charge = pool.charge(60).expect("fits");
        let most = pool.charge(30).expect("fits");
        assert!(pool.pressure().over_half());
        drop(most);
        let shared = charge.clone();
        assert!(pool.charge(41).is_none());
        assert!(pool.charge(usize::MAX).is_none());
        drop(charge);
        assert_eq!(pool.used(), 60);
        assert!(!pool.pressure().over_half());
        drop(shared);
        assert_eq!(pool.used(), 0);
        assert!(!pool.pressure().over_half());
    }
}
