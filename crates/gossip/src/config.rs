//! What gossip may use, and what the nodes of a network must agree on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::{MAX_IDS, MAX_OVERHEAD, MAX_PAYLOAD, MAX_TOPICS};

/// Limits and intervals of a node's gossip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Peers a message is pushed to at once; a topic with at most so many peers uses all of them.
    pub fanout: usize,
    /// Peers that are told of messages at each heartbeat.
    pub announce_peers: usize,
    /// Most ids one peer is told at a heartbeat, newest first. The rest follows at later ones.
    pub announce_ids: usize,
    /// A message is announced only after this time, when pushing has most likely brought it already.
    pub announce_after: Duration,
    /// A message is announced again when it is this old, twice as old, and so on, to peers that were sent it or
    /// told of it before and are not known to have it: that may have been lost without a trace.
    pub reannounce: Duration,
    /// A peer that has not said which topics it wants is asked again this often.
    pub ask_topics: Duration,
    /// How often announcements go out, with ± 10 % of jitter.
    pub heartbeat: Duration,
    /// How long an asked peer has to send what it announced, before the next one is asked.
    pub want_timeout: Duration,
    /// Most messages a peer can owe us: asked for or announced by it, and not here yet.
    pub wants_per_peer: usize,
    /// How often one peer is sent the same message on request.
    pub serves_per_peer: u8,
    /// How long messages are kept to be announced and served.
    ///
    /// # Warning
    /// Nodes of a network should agree: signed messages older than this and [`skew`](Config::skew) are
    /// ignored.
    pub retained: Duration,
    /// How far clocks may differ.
    ///
    /// # Warning
    /// As for [`retained`](Config::retained).
    pub skew: Duration,
    /// Most bytes of kept messages.
    pub cache_bytes: usize,
    /// Most kept messages.
    pub cache_ids: usize,
    /// Most ids remembered as seen; about 110 bytes each.
    pub seen_ids: usize,
    /// Most messages whose signature is being checked. One peer may use a quarter.
    pub in_flight: usize,
    /// Most bytes of them. One peer may use a quarter.
    pub in_flight_bytes: usize,
    /// Most fingerprints of refused copies remembered.
    pub rejected: usize,
    /// Largest payload, in bytes.
    ///
    /// # Warning
    /// Nodes of a network must agree: who sends a larger one is blamed.
    pub max_payload: usize,
    /// Most topics a node is subscribed to, and most that are noted of a peer.
    ///
    /// # Warning
    /// Nodes of a network must agree: who says more is blamed.
    pub max_topics: usize,
    /// Most ids a peer may announce, and most it may ask for, in one heartbeat.
    ///
    /// # Warning
    /// At least four times any other node's [`announce_ids`](Config::announce_ids) and twice its
    /// [`wants_per_peer`](Config::wants_per_peer): two of its heartbeats fall into one of ours now and then.
    pub quota_ids: usize,
    /// What a publisher is told to wait while the node's own lanes are over half full.
    pub retry_after: Duration,
    /// Where signatures are checked.
    pub work: Work,
}

/// Where signatures are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// On tokio's blocking threads, at most `threads` at once.
    Pool {
        /// Threads used at once.
        threads: usize,
    },
    /// In the actor itself: under virtual time, where nothing may run on other threads.
    Inline,
}

/// A configuration that does not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit of nothing.
    #[error("`{0}` is 0 and must be at least 1")]
    Zero(&'static str),
    /// A payload limit beyond the protocol's.
    #[error("max_payload is {0} bytes, and at most {MAX_PAYLOAD} are possible")]
    Payload(usize),
    /// More topics than a snapshot can say.
    #[error("max_topics is {0}, and at most {MAX_TOPICS} are possible")]
    Topics(usize),
    /// A bound in bytes that the largest message does not fit.
    #[error("{what} is {bytes} bytes, and {share} × (max_payload + {MAX_OVERHEAD}) = {needed} are needed")]
    Room {
        /// The setting.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// How many largest messages must fit.
        share: usize,
        /// Their bytes.
        needed: usize,
    },
    /// A quota that honest peers would break.
    #[error("quota_ids is {quota}, and {times} × {what} = {needed} are needed")]
    Quota {
        /// The setting.
        quota: usize,
        /// How many times…
        times: usize,
        /// …which other setting…
        what: &'static str,
        /// …is needed.
        needed: usize,
    },
    /// More kept messages than are remembered as seen.
    #[error("seen_ids is {seen}, and at least cache_ids = {kept} are needed")]
    Seen {
        /// Ids remembered.
        seen: usize,
        /// Messages kept.
        kept: usize,
    },
    /// More ids than an announcement can carry.
    #[error("announce_ids is {0}, and at most {MAX_IDS} are possible")]
    Ids(usize),
}

const MIB: usize = 1024 * 1024;

impl Config {
    /// For a node on the internet.
    pub fn recommended() -> Config {
        Config {
            fanout: 8,
            announce_peers: 6,
            announce_ids: 1_000,
            announce_after: Duration::from_millis(200),
            reannounce: Duration::from_secs(15),
            ask_topics: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
            want_timeout: Duration::from_secs(2),
            wants_per_peer: 2_500,
            serves_per_peer: 3,
            retained: Duration::from_secs(120),
            skew: Duration::from_secs(120),
            cache_bytes: 64 * MIB,
            cache_ids: 65_536,
            seen_ids: 262_144,
            in_flight: 4_096,
            in_flight_bytes: 64 * MIB,
            rejected: 4_096,
            max_payload: 4 * MIB,
            max_topics: 256,
            quota_ids: 5_000,
            retry_after: Duration::from_millis(250),
            work: Work::Pool { threads: 2 },
        }
    }

    /// For nodes on one machine: as recommended.
    pub fn local() -> Config {
        Config::recommended()
    }

    /// Small limits, and checks inline, for tests.
    pub fn test() -> Config {
        Config {
            cache_bytes: MIB,
            cache_ids: 2_000,
            seen_ids: 10_000,
            in_flight: 64,
            in_flight_bytes: MIB,
            rejected: 64,
            max_payload: 64 * 1024,
            max_topics: 8,
            work: Work::Inline,
            ..Config::recommended()
        }
    }

    /// How long an id is remembered: a message from a clock that is ahead by the skew may come again until
    /// the window has passed by a clock that is behind by it.
    pub fn seen_for(&self) -> Duration {
        self.retained + 2 * self.skew
    }

    /// Whether the limits add up.
    ///
    /// # Errors
    /// [`ConfigError`] with the sum that failed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("fanout", self.fanout),
            ("announce_peers", self.announce_peers),
            ("announce_ids", self.announce_ids),
            ("wants_per_peer", self.wants_per_peer),
            ("cache_ids", self.cache_ids),
            ("seen_ids", self.seen_ids),
            ("in_flight / 4", self.in_flight / 4),
            ("rejected", self.rejected),
            ("max_topics", self.max_topics),
            ("heartbeat (ms)", usize::try_from(self.heartbeat.as_millis()).unwrap_or(usize::MAX)),
            ("want_timeout (ms)", usize::try_from(self.want_timeout.as_millis()).unwrap_or(usize::MAX)),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(ConfigError::Zero(name));
        }
        if let Work::Pool { threads: 0 } = self.work {
            return Err(ConfigError::Zero("work.threads"));
        }
        if self.max_payload > MAX_PAYLOAD {
            return Err(ConfigError::Payload(self.max_payload));
        }
        if self.max_topics > MAX_TOPICS {
            return Err(ConfigError::Topics(self.max_topics));
        }
        let largest = self.max_payload + MAX_OVERHEAD;
        for (what, bytes, share) in [("cache_bytes", self.cache_bytes, 1), ("in_flight_bytes", self.in_flight_bytes, 4)]
        {
            let needed = share * largest;
            if bytes < needed {
                return Err(ConfigError::Room { what, bytes, share, needed });
            }
        }
        if self.seen_ids < self.cache_ids {
            // A kept message that is no longer known as seen would be taken for a new one.
            return Err(ConfigError::Seen { seen: self.seen_ids, kept: self.cache_ids });
        }
        if self.announce_ids > MAX_IDS {
            return Err(ConfigError::Ids(self.announce_ids));
        }
        let quotas = [(4, "announce_ids", self.announce_ids), (2, "wants_per_peer", self.wants_per_peer)];
        for (times, what, value) in quotas {
            let needed = times * value;
            if self.quota_ids < needed {
                return Err(ConfigError::Quota { quota: self.quota_ids, times, what, needed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_configurations_add_up() {
        for config in [Config::recommended(), Config::local(), Config::test()] {
            assert_eq!(config.validate(), Ok(()));
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_the_sum_that_failed() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::recommended();
            change(&mut config);
            config.validate().expect_err("refused").to_string()
        };
        assert_eq!(refused(|c| c.fanout = 0), "`fanout` is 0 and must be at least 1");
        assert_eq!(refused(|c| c.quota_ids = 10), "quota_ids is 10, and 4 × announce_ids = 4000 are needed");
        assert!(refused(|c| c.max_payload = MAX_PAYLOAD + 1).contains("at most 16777216"));
        assert!(refused(|c| c.max_payload = MAX_PAYLOAD).contains("in_flight_bytes is 67108864"));
        assert!(refused(|c| c.max_topics = 5_000).contains("at most 1024"));
    }
}
