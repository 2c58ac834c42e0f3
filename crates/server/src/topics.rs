//! What the application has to do with topics: what the root keeps and repeats after a restart of gossip, and what it
//! passes on.

use std::num::NonZeroUsize;
use std::time::Duration;

use peerage_gossip::coded::Admitted;
use peerage_gossip::{
    ConfirmError, Confirmed, Message, MessageId, Policy, Publish, Standing, SubscribeError, Topic, TopicConfig,
    Unjudged,
};
use peerage_mailbox::{AskError, Outlet, Reply, ask};

use crate::actor::State;
use crate::ingress::{ANSWER, ServerMailbox, ServerMsg, SubscribeFailed};

/// A subscription that the root keeps and replays.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: Topic,
    pub(crate) policy: Policy,
    /// The topic's parameters, if this subscription or another one of the topic has set any.
    pub(crate) config: Option<Box<TopicConfig>>,
    pub(crate) validator: Option<Outlet<Unjudged>>,
    pub(crate) outlet: Outlet<Message>,
}

impl Subscription {
    fn tell(self, gossip: &peerage_gossip::GossipMailbox, reply: Option<Reply<Result<(), SubscribeError>>>) {
        let Subscription { topic, policy, config, validator, outlet } = self;
        match config {
            Some(config) => gossip.subscribe_with(topic, *config, validator, outlet, reply),
            None => gossip.subscribe(topic, policy, outlet, reply),
        }
    }
}

/// What the application asks of gossip.
#[derive(Debug)]
pub(crate) enum TopicMsg {
    /// Kept and repeated: one a topic.
    Admit(Topic, Admitted),
    /// Passed on: one a task that waits.
    Confirm(MessageId, NonZeroUsize, Duration, Reply<Result<Confirmed, ConfirmError>>),
    /// Passed on: one a task that waits.
    Standings(Reply<Vec<Standing>>),
}

/// Why it is not known that enough peers have a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmFailed {
    /// The node did not answer, or its gossip was started again meanwhile.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Gossip's answer.
    #[error(transparent)]
    Refused(#[from] ConfirmError),
}

impl State {
    pub(crate) fn subscribe(&mut self, subscription: Subscription, reply: Reply<Result<(), SubscribeError>>) {
        self.subscriptions.retain(|kept| !kept.outlet.is_closed());
        match &self.services.gossip {
            Some(gossip) => subscription.clone().tell(gossip, Some(reply)),
            // It is told as soon as it is back.
            None => reply.send(Ok(())),
        }
        // One that gossip refuses closes when its owner drops the inlet.
        self.keep(subscription);
    }

    /// All subscriptions of a topic carry its parameters, so that they hold after a restart too when the one that set them
    /// has ended. Who asks for other ones was refused, and is refused again.
    fn keep(&mut self, mut subscription: Subscription) {
        let same = |kept: &&mut Subscription| kept.topic == subscription.topic && kept.policy == subscription.policy;
        for kept in self.subscriptions.iter_mut().filter(same) {
            match (&kept.config, &subscription.config) {
                (Some(config), None) => subscription.config = Some(config.clone()),
                (None, Some(config)) => kept.config = Some(config.clone()),
                _ => {}
            }
        }
        self.subscriptions.push(subscription);
    }

    /// Tells gossip, which has just started, what it was told before.
    pub(crate) fn repeat_topics(&mut self) {
        let Some(gossip) = &self.services.gossip else { return };
        self.subscriptions.retain(|kept| !kept.outlet.is_closed());
        self.subscriptions.iter().for_each(|kept| kept.clone().tell(gossip, None));
        for (topic, publishers) in &self.admitted {
            gossip.admit(topic.clone(), publishers.clone());
        }
    }

    /// Without gossip the replies are dropped, which is an answer too.
    pub(crate) fn topics(&mut self, message: TopicMsg) {
        let gossip = self.services.gossip.as_ref();
        match message {
            TopicMsg::Admit(topic, publishers) => {
                self.admitted.insert(topic.clone(), publishers.clone());
                gossip.into_iter().for_each(|gossip| gossip.admit(topic.clone(), publishers.clone()));
            }
            TopicMsg::Confirm(id, peers, within, reply) => {
                if let Some(gossip) = gossip {
                    gossip.confirm(id, peers, within, reply);
                }
            }
            TopicMsg::Standings(reply) => {
                if let Some(gossip) = gossip {
                    gossip.standings(reply);
                }
            }
        }
    }
}

impl ServerMailbox {
    /// Where to publish.
    pub fn publisher(&self) -> Outlet<Publish> {
        self.outlets.publisher.clone()
    }

    /// Hands every message of a topic to `outlet`, until its inlet is closed.
    ///
    /// # Errors
    /// [`SubscribeFailed`].
    pub async fn subscribe(
        &self,
        topic: Topic,
        policy: Policy,
        outlet: Outlet<Message>,
    ) -> Result<(), SubscribeFailed> {
        let subscription = Subscription { topic, policy, config: None, validator: None, outlet };
        Ok(ask(ANSWER, |reply| self.send(ServerMsg::Subscribe(subscription, reply))).await??)
    }

    /// Hands every message of a topic to `outlet`, until its inlet is closed; the topic has these parameters until the
    /// node leaves it. With a `validator`, messages of peers are delivered and sent on only as it says, see
    /// [`GossipMailbox::subscribe_with`](peerage_gossip::GossipMailbox::subscribe_with).
    ///
    /// # Errors
    /// [`SubscribeFailed`].
    pub async fn subscribe_with(
        &self,
        topic: Topic,
        config: TopicConfig,
        validator: Option<Outlet<Unjudged>>,
        outlet: Outlet<Message>,
    ) -> Result<(), SubscribeFailed> {
        let subscription =
            Subscription { topic, policy: config.policy, config: Some(Box::new(config)), validator, outlet };
        Ok(ask(ANSWER, |reply| self.send(ServerMsg::Subscribe(subscription, reply))).await??)
    }

    /// Says whose messages of a topic may travel coded, in place of what the configuration says.
    pub fn admit(&self, topic: Topic, publishers: Admitted) {
        self.send(ServerMsg::Topics(TopicMsg::Admit(topic, publishers)));
    }

    /// Returns when so many different nodes have said that they have a message that is kept here, which is sent to more
    /// of them while they are too few; or with an error when `within` has passed. It is the peers' word.
    ///
    /// # Errors
    /// [`ConfirmFailed`].
    pub async fn confirm(
        &self,
        id: MessageId,
        peers: NonZeroUsize,
        within: Duration,
    ) -> Result<Confirmed, ConfirmFailed> {
        let deadline = within.saturating_add(ANSWER);
        let asked = |reply| self.send(ServerMsg::Topics(TopicMsg::Confirm(id, peers, within, reply)));
        Ok(ask(deadline, asked).await??)
    }

    /// How each peer stands in gossip: its meshes, its score and what that is made of, and why it was pruned last.
    ///
    /// # Errors
    /// The node has stopped, or its gossip is being started again.
    pub async fn standings(&self) -> Result<Vec<Standing>, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Topics(TopicMsg::Standings(reply)))).await
    }
}
