//! Times and sizes of a session.

use std::time::Duration;

use peerage_wire::frame::CHANNEL_WINDOW;
use serde::{Deserialize, Serialize};

/// How long a session's steps may take, and how large its messages may be.
///
/// # Warning
/// `max_message` must agree across the network, or nodes end sessions over each other's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// From the first byte until both ends have accepted (geth: 5 s, p2p/rlpx).
    pub handshake_timeout: Duration,
    /// How long an accepted connection may wait before its first message is there.
    pub first_message_timeout: Duration,
    /// Between two pings (geth: 15 s).
    pub ping_interval: Duration,
    /// How long a peer may say nothing (geth: 30 s).
    pub idle_timeout: Duration,
    /// How long a peer may take for a turn (at most 1 MiB, less for a slow one) that waits for it, or leave a message
    /// unfinished without sending more of it.
    pub stall_timeout: Duration,
    /// The slowest a peer may send a message that it has credit for, in bytes a second; [`Config::stall_timeout`] comes
    /// on top. Else one byte now and then would hold a large message's part of the inbound pool for ever. While
    /// other sessions wait for room there, it must come four times as fast.
    pub slowest_rate: usize,
    /// How long a message that has begun to go out may wait for its peer's credit. Long: the peer's application may be
    /// busy. Not for ever: the message holds its place in the outbound pool.
    pub starve_timeout: Duration,
    /// How long the farewell may take (geth: 1 s).
    pub disconnect_timeout: Duration,
    /// Largest message, in bytes.
    pub max_message: usize,
    /// How large a lane's window may grow for a peer that is far away and fast.
    pub max_window: usize,
    /// Most streams that a peer may have open here at a time, and most that are opened to a peer.
    pub max_streams: usize,
    /// Most streams of one channel that a peer may have open here at a time.
    pub max_channel_streams: usize,
    /// Oldest record a peer may present.
    pub max_record_age: Duration,
    /// Furthest in the future a peer's record may have been signed: how much clocks may differ.
    pub max_clock_skew: Duration,
}

impl Config {
    /// The values of geth where it has them; messages up to 16 MiB.
    pub const fn recommended() -> Config {
        Config {
            handshake_timeout: Duration::from_secs(5),
            first_message_timeout: Duration::from_secs(1),
            ping_interval: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(20),
            slowest_rate: 128 << 10,
            starve_timeout: Duration::from_secs(600),
            disconnect_timeout: Duration::from_secs(1),
            max_message: 16 << 20,
            max_window: 16 << 20,
            max_streams: 256,
            max_channel_streams: 128,
            max_record_age: Duration::from_secs(7 * 24 * 3600),
            max_clock_skew: Duration::from_secs(60),
        }
    }

    /// As [`recommended`](Config::recommended).
    pub const fn local() -> Config {
        Config::recommended()
    }

    /// How long so many bytes may take a peer, at a rate so many times the slowest.
    pub(crate) fn time_for(&self, bytes: u64, times: u64) -> Duration {
        let rate = (self.slowest_rate as u64).saturating_mul(times).max(1);
        Duration::from_millis(bytes.saturating_mul(1000) / rate)
    }

    /// Checks that the times and sizes add up.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.idle_timeout < self.ping_interval + Duration::from_secs(1) {
            return Err(format!(
                "session.idle_timeout ({:?}) must be at least session.ping_interval ({:?}) and one second, or healthy \
                 peers are idle",
                self.idle_timeout, self.ping_interval
            ));
        }
        if self.first_message_timeout > self.handshake_timeout {
            return Err(format!(
                "session.first_message_timeout ({:?}) is longer than session.handshake_timeout ({:?})",
                self.first_message_timeout, self.handshake_timeout
            ));
        }
        if self.max_message < 1024 || self.max_message > 1 << 30 {
            return Err(format!("session.max_message ({}) must be between 1 KiB and 1 GiB", self.max_message));
        }
        if self.max_window < CHANNEL_WINDOW || self.max_window > 1 << 30 {
            return Err(format!(
                "session.max_window ({}) must be between a channel's first windows ({CHANNEL_WINDOW}) and 1 GiB",
                self.max_window
            ));
        }
        if self.slowest_rate == 0 {
            return Err("session.slowest_rate must be at least 1 byte a second".into());
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::recommended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_add_up_are_refused_with_the_sum() {
        assert_eq!(Config::recommended().check(), Ok(()));
        let hasty = Config { idle_timeout: Duration::from_secs(10), ..Config::recommended() };
        assert!(hasty.check().expect_err("too short").contains("10s"));
        let narrow = Config { max_window: 1000, ..Config::recommended() };
        assert!(narrow.check().expect_err("too small").contains("(1000)"));
    }
}
