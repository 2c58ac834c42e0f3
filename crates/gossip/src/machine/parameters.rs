//! Topics with parameters of their own: who may set them, and what holds where none are set.

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::Penalty;

use super::contract::SubscribeError;
use super::drops::DropReason;
use super::{Fx, GossipMachine, dropped};
use crate::config::{MeshConfig, TopicConfig};
use crate::message::Topic;

/// A topic's parameters, and whether somebody validates its messages.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) config: TopicConfig,
    pub(super) validated: bool,
}

impl GossipMachine {
    /// As a plain subscription, with parameters. The first to give some sets them, until the node leaves the topic; what
    /// comes after must ask for the same. A topic that was subscribed to without any may still get them.
    pub(super) fn subscribe_with(
        &mut self,
        now: Time,
        topic: &Topic,
        config: TopicConfig,
        validated: bool,
        fx: &mut Fx,
    ) -> Result<(), SubscribeError> {
        config.validate(&self.config)?;
        if self.parameters.get(topic).is_some_and(|set| set.config != config) {
            return Err(SubscribeError::Parameters);
        }
        // Set first: the mesh is filled at once.
        let before = self.parameters.get(topic).cloned();
        let validated = validated || before.as_ref().is_some_and(|set| set.validated);
        self.parameters.insert(topic.clone(), Parameters { config: config.clone(), validated });
        if let Err(error) = self.subscribe(now, topic.clone(), config.policy, fx) {
            match before {
                Some(before) => drop(self.parameters.insert(topic.clone(), before)),
                None => drop(self.parameters.remove(topic)),
            }
            return Err(error);
        }
        if config.scoring.is_some() {
            self.scores.set_topic(topic, config.scoring);
        }
        Ok(())
    }

    /// The node has left a topic: what it had of its own goes.
    pub(super) fn forget_parameters(&mut self, topic: &Topic) {
        if self.parameters.remove(topic).is_some_and(|set| set.config.scoring.is_some()) {
            self.scores.set_topic(topic, self.config.scores.topics.get(topic).cloned());
        }
    }

    /// Whether somebody judges a topic's messages.
    pub(super) fn validates(&self, topic: &Topic) -> bool {
        self.parameters.get(topic).is_some_and(|set| set.validated)
    }

    pub(super) fn mesh_config(&self, topic: &Topic) -> &MeshConfig {
        let own = self.parameters.get(topic).and_then(|set| set.config.mesh.as_ref());
        own.unwrap_or(&self.config.mesh)
    }

    /// The largest payload of a topic, in bytes.
    pub(super) fn max_payload(&self, topic: &Topic) -> usize {
        let own = self.parameters.get(topic).and_then(|set| set.config.max_payload);
        own.unwrap_or(self.config.max_payload)
    }

    /// Whether a payload is larger than its topic's may be; who sent it is blamed then. Relayers see that too, so it is
    /// no matter who published it.
    pub(super) fn too_large(
        &mut self,
        now: Time,
        session: SessionId,
        topic: &Topic,
        bytes: usize,
        fx: &mut Fx,
    ) -> bool {
        if bytes <= self.max_payload(topic) {
            return false;
        }
        dropped(DropReason::TooLarge, fx);
        self.scores.invalid(now, session, topic);
        self.blame(now, session, Penalty::InvalidMessage, fx);
        true
    }
}
