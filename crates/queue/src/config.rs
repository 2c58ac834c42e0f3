//! Capacities of the queues.

use serde::{Deserialize, Serialize};

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

/// The node's outbound queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Each peer's lanes.
    pub lanes: LanesConfig,
    /// Most bytes of messages in the lanes of all peers; a buffer shared by many counts once. As many may wait for
    /// the fan-out besides.
    pub pool_bytes: usize,
    /// Most messages that wait for the fan-out.
    pub pushes: usize,
}

impl Config {
    /// 64 MiB for the node, 8 MiB a lane.
    pub const fn recommended() -> Config {
        Config { lanes: LanesConfig::recommended(), pool_bytes: 64 << 20, pushes: 4096 }
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
        if self.pool_bytes < max_message {
            return Err(format!(
                "queue.pool_bytes ({}) is less than the largest message ({max_message}), which could never be sent",
                self.pool_bytes
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
        let small = Config { pool_bytes: 10, ..Config::recommended() };
        assert!(small.check(11).expect_err("too small").contains("(10)"));
    }
}
