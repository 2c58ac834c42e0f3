//! When a node is well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The thresholds of a node's health. Those of 0 are off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// Fewest peers. Nothing stands for one, where the node was told of others, and for none where it was told of nobody:
    /// the first node of a network is well alone. 0 for a network of one node.
    pub min_peers: Option<u32>,
    /// Longest time without a byte from any peer, while there are peers (avalanchego: 1 min).
    pub silence: Duration,
    /// Most of the messages for a peer that may fail, in thousandths, averaged over the peers (avalanchego: 900).
    pub send_failures: u32,
    /// Half-life of that average (avalanchego: 10 s).
    pub half_life: Duration,
    /// How long a node that is meant to be reachable may go without a peer that came to it (avalanchego: 10 min).
    pub inbound_grace: Duration,
    /// Whether it is meant to be. Nothing stands for: it listens at a public address, or was told an external one.
    pub expect_inbound: Option<bool>,
    /// Most seconds that the clock may differ from the peers'.
    pub clock_drift: u64,
    /// How long a change must stand before it is logged.
    pub settle: Duration,
}

impl HealthConfig {
    /// avalanchego's (`network/network.go`, `HealthConfig`).
    pub const fn recommended() -> HealthConfig {
        HealthConfig {
            min_peers: None,
            silence: Duration::from_secs(60),
            send_failures: 900,
            half_life: Duration::from_secs(10),
            inbound_grace: Duration::from_secs(600),
            expect_inbound: None,
            clock_drift: peerage_discovery::MAX_DRIFT.as_secs(),
            settle: Duration::from_secs(5),
        }
    }

    /// Checks that the thresholds make sense.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.send_failures >= 1000 {
            return Err(format!(
                "health.send_failures ({}) is in thousandths, and must be below 1000, or 0 for off",
                self.send_failures
            ));
        }
        if self.send_failures > 0 && self.half_life.is_zero() {
            return Err("health.half_life must be longer than zero".into());
        }
        Ok(())
    }
}

impl Default for HealthConfig {
    fn default() -> HealthConfig {
        HealthConfig::recommended()
    }
}
