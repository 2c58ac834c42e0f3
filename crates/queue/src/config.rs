//! Capacities of the queues.

use serde::{Deserialize, Serialize};

use crate::throttle::ThrottleLimits;

/// One peer's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LanesConfig {
    /// Most messages in each lane.
    pub items: usize,
    /// Most bytes in each lane. A message that is larger still passes through an empty lane.
    pub bytes: usize,
}

impl LanesConfig {
    /// 4,096 messages and 8 MiB a lane.
    pub const fn recommended() -> LanesConfig {
        LanesConfig { items: 4096, bytes: 8 << 20 }
    }
}

impl Default for LanesConfig {
    fn default() -> Self {
        LanesConfig::recommended()
    }
}

/// A byte pool: what its holders may take, and of which part (`avalanchego network/throttling`).
///
/// A holder takes at large first, then of its share. Sybils compete for the bytes at large only, and one of them for
/// no more than [`holder_max`](PoolConfig::holder_max); what the shares keep is there for who has weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Bytes that anyone may take.
    pub at_large: usize,
    /// Bytes kept for holders with weight: each may take its part of them, weight by total weight.
    pub shared: usize,
    /// Most bytes at large that one holder has at a time.
    pub holder_max: usize,
    /// Bytes kept for the oldest waiter, so that holders that each wait with a part of their message cannot all wait
    /// for each other. Zero in a pool where nobody waits.
    pub aside: usize,
}

impl PoolConfig {
    /// For messages that go out, where what finds no room is refused: 64 MiB at large, 16 MiB of them a peer, and
    /// 32 MiB by weight.
    pub const fn outbound() -> PoolConfig {
        PoolConfig { at_large: 64 << 20, shared: 32 << 20, holder_max: 16 << 20, aside: 0 }
    }

    /// For messages that come in, where a peer waits for room: as [`outbound`](PoolConfig::outbound), and one message
    /// of 16 MiB aside.
    pub const fn inbound() -> PoolConfig {
        PoolConfig { aside: 16 << 20, ..PoolConfig::outbound() }
    }

    /// All bytes there are, or the most a `usize` can say.
    pub const fn capacity(&self) -> usize {
        self.at_large.saturating_add(self.shared).saturating_add(self.aside)
    }

    /// Checks that a holder without weight can have a message of `max_message` bytes.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self, max_message: usize) -> Result<(), String> {
        let PoolConfig { at_large, shared, holder_max, aside } = *self;
        if at_large.checked_add(shared).and_then(|sum| sum.checked_add(aside)).is_none() {
            return Err(format!(
                "at_large ({at_large}) + shared ({shared}) + aside ({aside}) is more than can be counted"
            ));
        }
        let most = at_large.min(holder_max);
        if aside == 0 && most < max_message {
            return Err(format!(
                "the lesser of at_large and holder_max ({most}) is less than the largest message ({max_message}), which \
                 could never be sent"
            ));
        }
        if aside != 0 && aside < max_message {
            return Err(format!(
                "aside ({aside}) is less than the largest message ({max_message}), which could wait for ever"
            ));
        }
        Ok(())
    }
}

/// Bytes at large alone, all of them for whoever comes first.
impl From<usize> for PoolConfig {
    fn from(at_large: usize) -> PoolConfig {
        PoolConfig { at_large, shared: 0, holder_max: at_large, aside: 0 }
    }
}

/// The node's outbound queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Each peer's lanes.
    pub lanes: LanesConfig,
    /// Bytes of messages in the lanes of all peers; a buffer shared by many counts once. As many as it has at large may
    /// wait for the fan-out besides.
    pub outbound: PoolConfig,
    /// Bytes of messages that peers may send before they were handled, beyond the first windows of their sessions.
    pub inbound: PoolConfig,
    /// Most messages that wait for the fan-out.
    pub pushes: usize,
    /// How fast peers may be.
    pub throttle: ThrottleLimits,
}

impl Config {
    /// 96 MiB out and 112 MiB in for the node, 8 MiB a lane.
    pub const fn recommended() -> Config {
        Config {
            lanes: LanesConfig::recommended(),
            outbound: PoolConfig::outbound(),
            inbound: PoolConfig::inbound(),
            pushes: 4096,
            throttle: ThrottleLimits::recommended(),
        }
    }

    /// As [`recommended`](Config::recommended): a machine's own network is no slower to fill a queue.
    pub const fn local() -> Config {
        Config::recommended()
    }

    /// Checks that the capacities add up for messages of at most `max_message` bytes.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self, max_message: usize) -> Result<(), String> {
        self.outbound.check(max_message).map_err(|error| format!("queue.outbound: {error}"))?;
        self.inbound.check(max_message).map_err(|error| format!("queue.inbound: {error}"))?;
        if self.inbound.aside == 0 {
            return Err(format!(
                "queue.inbound.aside (0) must hold a message ({max_message}), or messages that wait for room wait for \
                 each other"
            ));
        }
        if self.lanes.items == 0 || self.pushes == 0 {
            return Err("queue.lanes.items and queue.pushes must be at least 1".into());
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
    fn a_pool_smaller_than_a_message_is_refused_with_the_sum() {
        assert_eq!(Config::recommended().check(16 << 20), Ok(()));
        let refused = |config: Config| config.check(16 << 20).expect_err("does not add up");
        assert!(refused(Config { outbound: PoolConfig::from(10), ..Config::recommended() }).contains("(10)"));
        assert!(refused(Config { inbound: PoolConfig::outbound(), ..Config::recommended() }).contains("aside (0)"));
    }

    #[test]
    fn a_byte_pool_is_refused_unless_the_largest_message_can_be_held_or_waited_for() {
        assert_eq!(PoolConfig::outbound().check(16 << 20), Ok(()));
        assert_eq!(PoolConfig::inbound().check(16 << 20), Ok(()));
        let refused = |pool: PoolConfig| pool.check(11).expect_err("does not add up");
        assert!(refused(PoolConfig { holder_max: 10, ..PoolConfig::outbound() }).contains("(10)"));
        assert!(refused(PoolConfig { aside: 10, ..PoolConfig::inbound() }).contains("for ever"));
        assert!(refused(PoolConfig { shared: usize::MAX, ..PoolConfig::inbound() }).contains("counted"));
        assert_eq!(PoolConfig::from(11).check(11), Ok(()));
    }
}
