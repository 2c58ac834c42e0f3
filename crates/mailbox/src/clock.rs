//! The clock of a node's shells.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerage_machine::Time;
use tokio::time::Instant;

/// Reads the instants that machines are told.
///
/// Running time is tokio's clock, so a paused runtime moves it in jumps. All shells of a node share one
/// (it is `Copy`), so that their instants compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall: Wall,
}

#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    Simulated(Duration),
}

impl Clock {
    /// The computer's clocks, running from now.
    pub fn system() -> Clock {
        Clock { start: Instant::now(), wall: Wall::System }
    }

    /// A wall clock that reads `unix` since the Unix epoch now, and moves with tokio's clock only.
    pub fn simulated(unix: Duration) -> Clock {
        Clock { start: Instant::now(), wall: Wall::Simulated(unix) }
    }

    /// Whether the wall clock is a simulated one; then nothing may run on other threads.
    pub fn is_simulated(&self) -> bool {
        matches!(self.wall, Wall::Simulated(_))
    }

    /// This instant.
    pub fn now(&self) -> Time {
        let running = self.running();
        let unix = match self.wall {
            // A clock set before 1970 reads as 1970.
            Wall::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
            Wall::Simulated(unix) => unix + running,
        };
        Time::new(running, unix)
    }

    /// The running time of this instant: for what is only measured.
    pub fn running(&self) -> Duration {
        self.start.elapsed()
    }

    /// The runtime's instant at which the running time is `at`'s: for a timer that is kept and moved. One too far away
    /// to be counted is a day from now.
    pub fn instant(&self, at: Time) -> Instant {
        self.start.checked_add(at.running()).unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 3600))
    }

    /// Waits until `deadline` by running time; forever for `None`.
    pub async fn sleep_until(&self, deadline: Option<Time>) {
        match deadline.and_then(|at| self.start.checked_add(at.running())) {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
