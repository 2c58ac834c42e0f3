//! How much durable topics may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::MAX_OVERHEAD;

/// Limits of a node's durable topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableConfig {
    /// Most durable topics.
    pub topics: usize,
    /// Most bytes that all of them together keep on disk.
    pub bytes: u64,
    /// Most messages of one topic whose ids are remembered, and so most that are kept; 84 bytes each in memory.
    pub heads: usize,
    /// How long a message waits for those before it, from its arrival or since some of them last came. More than pull
    /// repair takes to bring what push has lost.
    pub hold: Duration,
    /// How long it waits at most, while those before it come.
    pub hold_most: Duration,
    /// How long it waits at most while peers' logs are looked through for them.
    pub catch_up_most: Duration,
    /// Most bytes of messages of one topic that are held back. When there are more, whoever has the most of them waits no
    /// longer.
    pub held_bytes: usize,
    /// Most bytes of messages of one topic that wait for the disk. What comes when there are more is dropped: only
    /// where the disk fails for long, or is slower than the network.
    pub waiting_bytes: usize,
    /// Most publishers of one topic whose last sequence is remembered. Others are not heard until one of these has been
    /// silent for as long as ids are remembered.
    pub publishers: usize,
    /// Most readers of one topic that wait at the same time.
    pub readers: usize,
}

/// Limits that do not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurableConfigError {
    /// A limit of nothing.
    #[error("durable.{0} is 0 and must be at least 1")]
    Zero(&'static str),
    /// The largest message does not fit.
    #[error("durable.{what} is {bytes} bytes, and max_payload + {MAX_OVERHEAD} = {needed} are needed")]
    Room {
        /// The setting.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// What is needed.
        needed: usize,
    },
    /// The longest wait is the shorter one.
    #[error("durable.hold_most is {most:?} and must be at least durable.hold = {hold:?}")]
    Hold {
        /// [`DurableConfig::hold_most`].
        most: Duration,
        /// [`DurableConfig::hold`].
        hold: Duration,
    },
}

const MIB: usize = 1024 * 1024;

impl DurableConfig {
    /// 16 topics, 4 GiB of disk, and 100 MiB of memory for a topic at the very most.
    pub const fn recommended() -> DurableConfig {
        DurableConfig {
            topics: 16,
            bytes: 4 << 30,
            heads: 262_144,
            hold: Duration::from_secs(6),
            hold_most: Duration::from_secs(60),
            catch_up_most: Duration::from_secs(900),
            held_bytes: 32 * MIB,
            waiting_bytes: 32 * MIB,
            publishers: 4_096,
            readers: 64,
        }
    }

    pub(crate) fn validate(&self, max_payload: usize) -> Result<(), DurableConfigError> {
        let counts = [
            ("topics", self.topics),
            ("heads", self.heads),
            ("publishers", self.publishers),
            ("readers", self.readers),
            ("hold (ms)", usize::try_from(self.hold.as_millis()).unwrap_or(usize::MAX)),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(DurableConfigError::Zero(name));
        }
        if self.hold_most < self.hold {
            return Err(DurableConfigError::Hold { most: self.hold_most, hold: self.hold });
        }
        let needed = max_payload + MAX_OVERHEAD;
        for (what, bytes) in [("held_bytes", self.held_bytes), ("waiting_bytes", self.waiting_bytes)] {
            if bytes < needed {
                return Err(DurableConfigError::Room { what, bytes, needed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_do_not_add_up_are_refused_with_the_sum() {
        let config = DurableConfig::recommended();
        assert_eq!(config.validate(4 * MIB), Ok(()));
        assert_eq!(config.validate(16 * MIB), Ok(()), "the largest payload that can be");
        assert!(config.validate(32 * MIB).expect_err("refused").to_string().contains("held_bytes is 33554432 bytes"));
        let short = DurableConfig { hold_most: Duration::ZERO, ..config.clone() };
        assert!(matches!(short.validate(1), Err(DurableConfigError::Hold { .. })));
        assert_eq!(DurableConfig { readers: 0, ..config }.validate(1), Err(DurableConfigError::Zero("readers")));
    }
}
