//! What a running session shows of itself: readings, that nothing is decided by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A session's readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Bytes read from the connection since it was admitted.
    pub bytes_in: u64,
    /// Bytes written to it.
    pub bytes_out: u64,
    /// Round trip time, averaged over the last pings (an eighth for the newest); `None` before the first answer.
    pub round_trip: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Nanoseconds; 0 for none yet.
    round_trip: AtomicU64,
}

impl Counters {
    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn round_trip(&self, time: Duration) {
        let newest = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let average = match self.round_trip.load(Ordering::Relaxed) {
            0 => newest,
            average => average - average / 8 + newest / 8,
        };
        self.round_trip.store(average, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> SessionStats {
        let round_trip = self.round_trip.load(Ordering::Relaxed);
        SessionStats {
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            round_trip: (round_trip > 0).then(|| Duration::from_nanos(round_trip)),
        }
    }
}
