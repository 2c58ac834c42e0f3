//! When a node is short of something.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much a node may use before it does less. What is 0 is not looked at.
///
/// From [`STEPS`](super::STEPS) of a limit on, bulk rests, then normal, and at the limit nobody new is taken or dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SheddingConfig {
    /// Resident memory of the process, in bytes. More than peers can make the node hold, or they can make it shed.
    pub memory: u64,
    /// What the process may use of all processors, in thousandths, averaged over some seconds.
    pub cpu: u32,
    /// Room on the data directory's disk below which the node is short of it, in bytes.
    pub disk: u64,
    /// How late the root may be to what it meant to do.
    pub lag: Duration,
    /// How long a step must not have been needed before it is taken back.
    pub recover_after: Duration,
}

impl SheddingConfig {
    /// Disk and lag. How much memory and processor a node has for itself only its owner knows.
    pub const fn recommended() -> SheddingConfig {
        SheddingConfig {
            memory: 0,
            cpu: 0,
            disk: 64 << 20,
            lag: Duration::from_secs(5),
            recover_after: Duration::from_secs(10),
        }
    }

    /// Nothing is ever shed.
    pub const fn off() -> SheddingConfig {
        SheddingConfig { disk: 0, lag: Duration::ZERO, ..SheddingConfig::recommended() }
    }

    /// Whether anything is looked at.
    pub const fn is_on(&self) -> bool {
        self.memory > 0 || self.cpu > 0 || self.disk > 0 || !self.lag.is_zero()
    }

    /// Checks that the limits make sense.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.cpu > 1000 {
            return Err(format!(
                "shedding.cpu ({}) is in thousandths of all processors, and at most 1000; 0 is off",
                self.cpu
            ));
        }
        if self.is_on() && self.recover_after.is_zero() {
            return Err("shedding.recover_after must be longer than zero".into());
        }
        Ok(())
    }
}

impl Default for SheddingConfig {
    fn default() -> SheddingConfig {
        SheddingConfig::recommended()
    }
}
