//! How messages are repaired that push and announcements did not bring.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Intervals and budgets of pull repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// How soon a node asks again that has just come, or got something the last time.
    pub fast: Duration,
    /// How rarely one asks that lacks nothing; the pause doubles up to here. A pull with nothing to tell and nothing to
    /// get takes about 200 bytes on the wire, headers and answer included: 13 bytes a second at this pace. A message
    /// adds ten bits to each filter for one and a half windows: 15 bytes in all that time.
    pub slow: Duration,
    /// How long a peer may take to answer, before another one is asked.
    pub timeout: Duration,
    /// Messages are sent in an answer only when they have been here so long: push most likely brings them.
    pub fresh: Duration,
    /// Most bytes of messages in an answer, except that there may be one message of any size.
    pub answer_bytes: usize,
    /// Most bytes of answers between two heartbeats, to all peers together. Filters that come when it is spent are
    /// answered with nothing, and so are those that come when four times
    /// [`Config::cache_ids`](super::Config::cache_ids) kept messages have been looked at.
    pub beat_bytes: usize,
    /// Most bytes of a durable topic's messages in an answer out of the log, except that there may be one message of any
    /// size.
    pub history_bytes: usize,
    /// Most bytes of such answers that a heartbeat allows, to all peers together.
    pub history_beat_bytes: usize,
}

impl Pull {
    /// 1 s and 15 s; 64 KiB an answer, 1 MiB a heartbeat: an asker gets a few answers a second, each of another peer,
    /// and a node of 50 Mbit/s spends a sixth of them at most. Out of logs 256 KiB an answer and 2 MiB a heartbeat, in the
    /// lane that gives way to all others.
    pub const fn recommended() -> Pull {
        Pull {
            fast: Duration::from_secs(1),
            slow: Duration::from_secs(15),
            timeout: Duration::from_secs(5),
            fresh: Duration::from_secs(2),
            answer_bytes: 64 * 1024,
            beat_bytes: 1024 * 1024,
            history_bytes: 256 * 1024,
            history_beat_bytes: 2 * 1024 * 1024,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("pull.fast (ms)", self.fast.as_millis() as usize),
            ("pull.timeout (ms)", self.timeout.as_millis() as usize),
            ("pull.answer_bytes", self.answer_bytes),
            ("pull.beat_bytes", self.beat_bytes),
            ("pull.history_bytes", self.history_bytes),
            ("pull.history_beat_bytes", self.history_beat_bytes),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(ConfigError::Zero(name));
        }
        if self.slow < self.fast {
            return Err(ConfigError::Pull { slow: self.slow, fast: self.fast });
        }
        Ok(())
    }
}
