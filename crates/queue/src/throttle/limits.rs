//! How fast peers may be: all limits in one place, to be changed while the node runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes a second in one direction; none for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BandwidthLimits {
    /// Of the node, all sessions together, shared fairly by those that have something to move.
    pub node: Option<u64>,
    /// Of each peer (AvalancheGo: 512 KiB).
    pub peer: Option<u64>,
    /// Hundredths of the node's that are kept for peers with weight, each its part by weight. Without any of them, or
    /// while they do not use it, it is everybody's.
    pub reserved: u8,
}

impl BandwidthLimits {
    /// No limit; half of the node's for peers with weight, once it has one.
    pub const fn unlimited() -> BandwidthLimits {
        BandwidthLimits { node: None, peer: None, reserved: 50 }
    }

    /// Whether there is any.
    pub const fn is_limited(&self) -> bool {
        self.node.is_some() || self.peer.is_some()
    }

    fn check(&self, name: &str, slowest: u64, sessions: u64) -> Result<(), String> {
        if self.reserved > 100 {
            return Err(format!("{name}.reserved ({}) is more than a hundred hundredths", self.reserved));
        }
        if let Some(peer) = self.peer.filter(|peer| *peer < slowest) {
            return Err(format!(
                "{name}.peer ({peer}) is less than session.slowest_rate ({slowest}): peers would take the node for stalled"
            ));
        }
        let least = LEAST_PART.saturating_mul(sessions.max(1));
        if let Some(node) = self.node.filter(|node| *node < least) {
            return Err(format!(
                "{name}.node ({node}) is less than {LEAST_PART} bytes a second for each of {sessions} peers ({least}): \
                 allow more, or fewer peers"
            ));
        }
        if let (Some(node), Some(peer)) = (self.node, self.peer)
            && node < peer
        {
            return Err(format!("{name}.node ({node}) is less than {name}.peer ({peer}), which nobody could reach"));
        }
        Ok(())
    }
}

/// The least of the node's bandwidth that a peer has when all others are busy: with less, what is on its way to a peer
/// would take longer than the peer waits.
const LEAST_PART: u64 = 4 << 10;

/// How much of the time of the node's handlers peers may use, in thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpuLimits {
    /// Of all peers without weight together.
    pub at_large: u32,
    /// Of one of them, while others use some.
    pub per_peer: u32,
    /// Kept for peers with weight, each its part by weight; besides the others.
    pub reserved: u32,
    /// What was used counts half as much after this time.
    pub half_life: Duration,
}

impl CpuLimits {
    /// Two actors handle what comes in, so there are two cores to share: eight tenths of them at large, eight tenths of a
    /// core for one peer, and two cores by weight (AvalancheGo's parts of all cores; its half-life of 15 s).
    pub const fn recommended() -> CpuLimits {
        CpuLimits { at_large: 1_600, per_peer: 800, reserved: 2_000, half_life: Duration::from_secs(15) }
    }
}

impl Default for CpuLimits {
    fn default() -> Self {
        CpuLimits::recommended()
    }
}

/// All limits of peers' pace. Plain, so that it can be set while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleLimits {
    /// Messages of one peer that are being handled; none for no limit but the peer's credit.
    pub messages: Option<u64>,
    /// What peers send here.
    pub download: BandwidthLimits,
    /// What is sent to peers.
    pub upload: BandwidthLimits,
    /// The time that their messages take; none for no limit.
    pub cpu: Option<CpuLimits>,
}

impl ThrottleLimits {
    /// 1,024 messages of a peer and its share of the handlers' time. No bound on bandwidth: credit and the pools hold what
    /// is here, and a cap is for whoever pays for the line.
    pub const fn recommended() -> ThrottleLimits {
        ThrottleLimits {
            messages: Some(1_024),
            download: BandwidthLimits::unlimited(),
            upload: BandwidthLimits::unlimited(),
            cpu: Some(CpuLimits::recommended()),
        }
    }

    /// Nothing is limited.
    pub const fn off() -> ThrottleLimits {
        ThrottleLimits { messages: None, cpu: None, ..ThrottleLimits::recommended() }
    }

    /// Checks that the limits leave each of so many peers enough to be taken for alive by others, who let messages come no
    /// slower than `slowest` bytes a second.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self, slowest: u64, sessions: u64) -> Result<(), String> {
        if self.messages == Some(0) {
            return Err("queue.throttle.messages must be at least 1".into());
        }
        self.download.check("queue.throttle.download", slowest, sessions)?;
        self.upload.check("queue.throttle.upload", slowest, sessions)?;
        if let Some(cpu) = self.cpu {
            if cpu.half_life.is_zero() {
                return Err("queue.throttle.cpu.half_life must be longer than zero, or nothing is ever used".into());
            }
            if cpu.at_large == 0 || cpu.per_peer == 0 {
                return Err(
                    "queue.throttle.cpu.at_large and per_peer must be at least 1, or nobody without weight is heard"
                        .into(),
                );
            }
        }
        Ok(())
    }
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        ThrottleLimits::recommended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_would_get_the_node_dropped_are_refused_with_the_sum() {
        assert_eq!(ThrottleLimits::recommended().check(128 << 10, 100), Ok(()));
        assert_eq!(ThrottleLimits::off().check(128 << 10, 100), Ok(()));
        let told = |change: fn(&mut ThrottleLimits)| {
            let mut limits = ThrottleLimits::recommended();
            change(&mut limits);
            limits.check(128 << 10, 100).expect_err("it does not add up")
        };
        assert!(told(|limits| limits.messages = Some(0)).contains("messages"));
        assert!(told(|limits| limits.upload.peer = Some(1_000)).contains("upload.peer (1000)"));
        assert!(told(|limits| limits.download.node = Some(100_000)).contains("download.node (100000)"));
        assert!(told(|limits| limits.download.reserved = 101).contains("reserved (101)"));
        assert!(
            told(|limits| limits.download = BandwidthLimits { node: Some(1 << 20), peer: Some(2 << 20), reserved: 0 })
                .contains("nobody could reach")
        );
        assert!(
            told(|limits| limits.cpu = Some(CpuLimits { at_large: 0, ..CpuLimits::recommended() })).contains("heard")
        );
    }
}
