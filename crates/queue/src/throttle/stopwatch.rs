//! Whose messages take how much of a handler's time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peerage_mailbox::Clock;

use crate::Permit;
use crate::permit::Spending;

/// What the time of handlers is measured by. Clones are the same, and are switched on and off together.
#[derive(Clone)]
pub struct TimeSource {
    now: Arc<dyn Fn() -> Duration + Send + Sync>,
    on: Arc<AtomicBool>,
}

impl TimeSource {
    /// A function that reads how long something that only grows has run.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> TimeSource {
        TimeSource { now: Arc::new(now), on: Arc::new(AtomicBool::new(true)) }
    }

    /// The node's clock. In virtual time handlers take none.
    pub fn clock(clock: Clock) -> TimeSource {
        TimeSource::new(move || clock.running())
    }

    pub(crate) fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn now(&self) -> Duration {
        (self.now)()
    }
}

impl fmt::Debug for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimeSource(on: {})", self.is_on())
    }
}

/// Measures for one turn of a handler whose messages take how long, and charges it to their sessions. The clock is read
/// where the session changes, so a batch of one peer's costs two readings.
#[derive(Debug, Default)]
pub struct Stopwatch {
    current: Option<(Spending, Duration)>,
}

impl Stopwatch {
    /// Nobody's message is handled.
    pub const fn new() -> Stopwatch {
        Stopwatch { current: None }
    }

    /// From now on, and until the next call or the end of the turn, this message is handled.
    pub fn of(&mut self, permit: &Permit) {
        if self.current.as_ref().is_some_and(|(spending, _)| spending.is_of(permit)) {
            return;
        }
        let next = permit.spending();
        let now = next.as_ref().or(self.current.as_ref().map(|(spending, _)| spending)).map(Spending::now);
        let Some(now) = now else { return };
        self.end_at(now);
        self.current = next.map(|spending| (spending, now));
    }

    fn end_at(&mut self, now: Duration) {
        if let Some((spending, since)) = self.current.take() {
            spending.add(now.saturating_sub(since));
        }
    }
}

/// What was handled last is charged, also if handling it panicked.
impl Drop for Stopwatch {
    fn drop(&mut self) {
        if let Some(now) = self.current.as_ref().map(|(spending, _)| spending.now()) {
            self.end_at(now);
        }
    }
}
