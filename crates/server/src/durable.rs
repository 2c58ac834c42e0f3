//! Durable topics as the root keeps them: registrations that outlive the gossip actor.

use peerage_gossip::GossipMailbox;
use peerage_gossip::durable::{Durable, DurableError, Lease, Start};
use peerage_mailbox::{Capacity, Outlet, Reply, ask};

use crate::actor::State;
use crate::gossip::Topic;
use crate::ingress::{ANSWER, DurableFailed, ServerMailbox, ServerMsg};

/// Questions of readers that may wait: each reader has one.
pub(crate) const ASKS: Capacity = Capacity { items: 4_096, weight: 4_096 };

/// A durable topic that somebody reads.
#[derive(Clone, Debug)]
pub(crate) struct DurableRegistration {
    pub(crate) topic: Topic,
    pub(crate) durable: Durable,
    pub(crate) lease: Outlet<Lease>,
}

impl DurableRegistration {
    pub(crate) fn is_open(&self) -> bool {
        !self.lease.is_closed()
    }

    /// Tells a gossip actor that has just started. Readers know where they are.
    pub(crate) fn tell(&self, gossip: &GossipMailbox) {
        let DurableRegistration { topic, durable, lease } = self.clone();
        gossip.subscribe_durable(topic, durable, Start::Latest, lease, None);
    }
}

impl ServerMailbox {
    /// Makes a topic durable until the inlet of `lease` is dropped; every reader of a topic says the same bounds. Answers
    /// the position after which this one reads, through the [`asker`](ServerMailbox::asker).
    ///
    /// # Errors
    /// [`DurableFailed`].
    pub async fn subscribe_durable(
        &self,
        topic: Topic,
        durable: Durable,
        start: Start,
        lease: Outlet<Lease>,
    ) -> Result<u64, DurableFailed> {
        let wish = DurableRegistration { topic, durable, lease };
        Ok(ask(ANSWER, |reply| self.send(ServerMsg::SubscribeDurable(wish, start, reply))).await??)
    }
}

impl State {
    pub(crate) fn subscribe_durable(
        &mut self,
        wish: DurableRegistration,
        start: Start,
        reply: Reply<Result<u64, DurableError>>,
    ) {
        self.durables.retain(DurableRegistration::is_open);
        let Some(gossip) = &self.services.gossip else { return reply.send(Err(DurableError::NotOpen)) };
        let DurableRegistration { topic, durable, lease } = wish.clone();
        gossip.subscribe_durable(topic, durable, start, lease, Some(reply));
        // One that gossip refuses closes when its owner drops the inlet.
        self.durables.push(wish);
    }
}
