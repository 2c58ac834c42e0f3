//! What one topic may have of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, MeshConfig};
use crate::message::Policy;
use crate::score::TopicScoring;

/// The parameters of a topic, where they differ from those of all topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Whether its messages are signed, and so what their ids are made of.
    ///
    /// # Warning
    /// All nodes of a network must agree; see [`Policy`].
    pub policy: Policy,
    /// Largest payload in bytes; the network's [`max_payload`](Config::max_payload) if none.
    ///
    /// # Warning
    /// All nodes of a network must agree: who sends a larger one is blamed.
    pub max_payload: Option<usize>,
    /// How long a validator may take for one message, its time in the validator's queue included; then the message is
    /// ignored. One second, unless changed: what takes longer is late everywhere behind this node.
    pub validation: Duration,
    /// Its mesh; the [common one](Config::mesh) if none.
    pub mesh: Option<MeshConfig>,
    /// How what peers do on it counts; as the [common scores](Config::scores) say if none.
    pub scoring: Option<TopicScoring>,
}

/// Parameters of a topic that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    /// Larger payloads than the network's.
    #[error("max_payload is {bytes} bytes, and messages of this network have at most {limit}")]
    Payload {
        /// What was asked for.
        bytes: usize,
        /// The network's limit.
        limit: usize,
    },
    /// A limit of nothing.
    #[error("`{0}` is 0 and must be at least 1")]
    Zero(&'static str),
    /// A mesh whose degrees do not add up.
    #[error(
        "mesh: outbound < low <= degree <= high must hold, with outbound and near at most half of degree; take \
         MeshConfig::recommended() and change one at a time"
    )]
    Mesh,
    /// A scoring that does not add up with the common scores.
    #[error(
        "scoring does not add up with the node's scores; take TopicScoring::recommended() and change one at a time"
    )]
    Scoring,
}

impl TopicConfig {
    /// Of this policy, and otherwise as all topics.
    pub const fn of(policy: Policy) -> TopicConfig {
        TopicConfig { policy, max_payload: None, validation: Duration::from_secs(1), mesh: None, scoring: None }
    }

    /// Of signed messages.
    pub const fn signed() -> TopicConfig {
        TopicConfig::of(Policy::Signed)
    }

    /// Of messages that do not say who published them.
    pub const fn anonymous() -> TopicConfig {
        TopicConfig::of(Policy::Anonymous)
    }

    /// With payloads of at most so many bytes. See [`TopicConfig::max_payload`].
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: usize) -> TopicConfig {
        self.max_payload = Some(bytes);
        self
    }

    /// With so much time for the validator. See [`TopicConfig::validation`].
    #[must_use]
    pub const fn with_validation(mut self, deadline: Duration) -> TopicConfig {
        self.validation = deadline;
        self
    }

    /// Whether they add up with those of all topics.
    ///
    /// # Errors
    /// [`TopicConfigError`].
    pub fn validate(&self, common: &Config) -> Result<(), TopicConfigError> {
        match self.max_payload {
            Some(0) => return Err(TopicConfigError::Zero("max_payload")),
            Some(bytes) if bytes > common.max_payload => {
                return Err(TopicConfigError::Payload { bytes, limit: common.max_payload });
            }
            _ => {}
        }
        if self.validation.is_zero() {
            return Err(TopicConfigError::Zero("validation"));
        }
        if self.mesh.as_ref().is_some_and(|mesh| mesh.validate().is_err()) {
            return Err(TopicConfigError::Mesh);
        }
        if self.scoring.as_ref().is_some_and(|scoring| common.scores.admits(scoring).is_err()) {
            return Err(TopicConfigError::Scoring);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::POINT;

    #[test]
    fn parameters_that_do_not_add_up_with_the_common_ones_are_refused() {
        let common = Config::test();
        assert_eq!(TopicConfig::signed().validate(&common), Ok(()));
        let refused = |change: fn(&mut TopicConfig)| {
            let mut config = TopicConfig::anonymous();
            change(&mut config);
            config.validate(&common).expect_err("refused")
        };
        let payload = TopicConfigError::Payload { bytes: 1 << 30, limit: common.max_payload };
        assert_eq!(refused(|topic| topic.max_payload = Some(1 << 30)), payload);
        assert_eq!(refused(|topic| topic.max_payload = Some(0)), TopicConfigError::Zero("max_payload"));
        assert_eq!(refused(|topic| topic.validation = Duration::ZERO), TopicConfigError::Zero("validation"));
        let mesh = |topic: &mut TopicConfig| {
            topic.mesh = Some(MeshConfig { outbound: 8, ..MeshConfig::gossipsub() });
        };
        assert_eq!(refused(mesh), TopicConfigError::Mesh);
        let idle = |topic: &mut TopicConfig| topic.mesh = Some(MeshConfig { low: 0, ..MeshConfig::gossipsub() });
        assert_eq!(refused(idle), TopicConfigError::Mesh);
        let scoring = |topic: &mut TopicConfig| {
            topic.scoring = Some(TopicScoring { invalid_cost: POINT, ..TopicScoring::recommended() });
        };
        assert_eq!(refused(scoring), TopicConfigError::Scoring);
    }
}
