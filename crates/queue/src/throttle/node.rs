//! The node's throttles, shared by its sessions' tasks: the lock around the machines, and each session's half.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_machine::Time;
use peerage_mailbox::Clock;

use super::limits::ThrottleLimits;
use super::stopwatch::TimeSource;
use super::{Bandwidth, CpuShares, Throttle};
use crate::HolderId;

/// What a peer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThrottleReason {
    /// Earlier messages of it are being handled.
    Processing,
    /// What it sends here.
    Download,
    /// What is sent to it.
    Upload,
    /// Its messages take much of the handlers' time.
    Cpu,
}

impl ThrottleReason {
    /// Each of them.
    pub const ALL: [ThrottleReason; 4] =
        [ThrottleReason::Processing, ThrottleReason::Download, ThrottleReason::Upload, ThrottleReason::Cpu];

    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            ThrottleReason::Processing => "processing",
            ThrottleReason::Download => "download",
            ThrottleReason::Upload => "upload",
            ThrottleReason::Cpu => "cpu",
        }
    }
}

/// What the throttles have done, and have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleStats {
    /// Waits that have begun, by [reason](ThrottleReason::ALL).
    pub waits: [u64; 4],
    /// Time in waits that have ended.
    pub waited: [Duration; 4],
    /// Peers that wait for bandwidth of the node now, to be read and to be written to.
    pub waiting: (usize, usize),
    /// Bytes that could be read and written now, at large; none without a limit.
    pub tokens: (Option<u64>, Option<u64>),
    /// The handlers' time that peers use, in thousandths of a core.
    pub cpu: u64,
    /// What the peer uses of it that uses most, and what it may use; likewise.
    pub cpu_most: (u64, u64),
}

struct State {
    limits: ThrottleLimits,
    download: Bandwidth,
    upload: Bandwidth,
    cpu: CpuShares,
}

struct Shared {
    /// Rises with every change of limits, so that a session looks at them without the lock.
    generation: AtomicU64,
    state: Mutex<State>,
    time: TimeSource,
    waits: [AtomicU64; 4],
    waited: [AtomicU64; 4],
}

impl Shared {
    /// Held for one call and never across an await. The state is valid between any two calls.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_waited(&self, reason: usize, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.waited[reason].fetch_add(nanos, Ordering::Relaxed);
    }
}

/// The throttles of a node. Clones are the same.
#[derive(Clone)]
pub struct Throttles(Arc<Shared>);

impl Throttles {
    /// Throttles of which nothing is used. Handlers are timed by the node's clock.
    pub fn new(clock: Clock, limits: ThrottleLimits) -> Throttles {
        Throttles::timed(clock.now(), limits, TimeSource::clock(clock))
    }

    /// The same, with another measure of handlers' time: in virtual time they take none.
    pub fn timed(now: Time, limits: ThrottleLimits, time: TimeSource) -> Throttles {
        time.switch(limits.cpu.is_some());
        let state = State {
            limits,
            download: Bandwidth::new(now, limits.download),
            upload: Bandwidth::new(now, limits.upload),
            cpu: CpuShares::new(now, limits.cpu),
        };
        Throttles(Arc::new(Shared {
            generation: AtomicU64::new(1),
            state: Mutex::new(state),
            time,
            waits: Default::default(),
            waited: Default::default(),
        }))
    }

    /// What holds now.
    pub fn limits(&self) -> ThrottleLimits {
        self.0.lock().limits
    }

    /// Changes all limits. Sessions go by them with the next thing they do; those that wait, within five seconds. Whether
    /// they add up is [`ThrottleLimits::check`]'s to say, before.
    pub fn set_limits(&self, now: Time, limits: ThrottleLimits) {
        let mut state = self.0.lock();
        state.limits = limits;
        state.download.set_limits(now, limits.download);
        state.upload.set_limits(now, limits.upload);
        state.cpu.set_limits(limits.cpu);
        self.0.time.switch(limits.cpu.is_some());
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    /// A session's half. One without weight has no part of what is reserved.
    pub fn peer(&self, now: Time, weight: u64) -> PeerThrottle {
        let mut state = self.0.lock();
        let ids = Ids {
            download: state.download.join(now, weight),
            upload: state.upload.join(now, weight),
            cpu: state.cpu.join(now, weight),
        };
        drop(state);
        PeerThrottle::new(self.clone(), ids)
    }

    /// What they have done, and have.
    pub fn stats(&self, now: Time) -> ThrottleStats {
        let mut state = self.0.lock();
        ThrottleStats {
            waits: std::array::from_fn(|reason| self.0.waits[reason].load(Ordering::Relaxed)),
            waited: std::array::from_fn(|reason| Duration::from_nanos(self.0.waited[reason].load(Ordering::Relaxed))),
            waiting: (state.download.waiting(), state.upload.waiting()),
            tokens: (state.download.tokens(now), state.upload.tokens(now)),
            cpu: state.cpu.total(now),
            cpu_most: state.cpu.most(now),
        }
    }
}

impl fmt::Debug for Throttles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttles({:?})", self.limits())
    }
}

#[derive(Clone, Copy)]
struct Ids {
    download: HolderId,
    upload: HolderId,
    cpu: HolderId,
}

mod peer;

pub use peer::{PeerThrottle, ThrottleWeight};

#[cfg(test)]
mod tests;
