//! A topic as a program sees it: a place to publish to, and a stream of what others publish.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::gossip::coded::Admitted;
use peerage_server::gossip::{self, ConfirmError, Publish, SubscribeError, Unjudged};
use peerage_server::mailbox::{AskError, Capacity, Inlet, Outlet, RecvError, Refused, ask, data_queue};
use peerage_server::{ConfirmFailed, SubscribeFailed};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::node::Node;
use crate::validation::Validating;
use crate::{Confirmed, Message, Policy, Published, TopicConfig};

/// What may wait for a subscriber: so many messages, and so many bytes of them.
const QUEUE: Capacity = Capacity { items: 4096, weight: 64 * 1024 * 1024 };
/// How long a publication may take to be signed and queued for the peers.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a topic is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No topic can have this name.
    #[error(transparent)]
    Name(#[from] gossip::TopicError),
    /// The node refuses.
    #[error(transparent)]
    Refused(#[from] SubscribeError),
    /// The node has stopped, or was just starting its gossip again.
    #[error("the node did not answer: {0}")]
    NoAnswer(#[from] AskError),
}

impl From<SubscribeFailed> for TopicError {
    fn from(error: SubscribeFailed) -> TopicError {
        match error {
            SubscribeFailed::Ask(error) => TopicError::NoAnswer(error),
            SubscribeFailed::Refused(error) => TopicError::Refused(error),
        }
    }
}

/// Why something was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The node sends more slowly than is published.
    #[error("the node's queues are over half full; try again in {retry_after:?}")]
    Busy {
        /// When it may be worth another try.
        retry_after: Duration,
    },
    /// The payload is too large for this network.
    #[error("a message has at most {limit} bytes, and this one has {bytes}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The network's limit.
        limit: usize,
    },
    /// This node is subscribed to the topic with the other policy.
    #[error("the node is subscribed to this topic with the policy {0:?}")]
    Policy(Policy),
    /// The node did not say whether it was published: its gossip failed meanwhile. Published once more, it
    /// may arrive twice.
    #[error("the node did not say whether it was published: {0}")]
    NoAnswer(AskError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

impl From<gossip::PublishError> for PublishError {
    fn from(error: gossip::PublishError) -> PublishError {
        match error {
            gossip::PublishError::Busy { retry_after } => PublishError::Busy { retry_after },
            gossip::PublishError::TooLarge { bytes, limit } => PublishError::TooLarge { bytes, limit },
            gossip::PublishError::Policy(policy) => PublishError::Policy(policy),
        }
    }
}

/// Why it is not known that enough peers have what was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotConfirmed {
    /// It was not published, or that is not known.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// It was published, and too few peers had it in time. It may spread further.
    #[error("{confirmed} peers said in time to have it, and {wanted} were wanted")]
    TooFew {
        /// How many said so.
        confirmed: usize,
        /// How many were wanted.
        wanted: usize,
    },
    /// It was published, and gossip would not watch it: it watches too many others, or keeps it no more.
    #[error("published, but not confirmed: {0}")]
    Refused(ConfirmError),
    /// It was published, and the node did not say who has it: its gossip failed meanwhile.
    #[error("published, but the node did not say who has it: {0}")]
    NoAnswer(AskError),
}

impl From<ConfirmFailed> for NotConfirmed {
    fn from(error: ConfirmFailed) -> NotConfirmed {
        match error {
            ConfirmFailed::Ask(error) => NotConfirmed::NoAnswer(error),
            ConfirmFailed::Refused(ConfirmError::TooFew { confirmed, wanted }) => {
                NotConfirmed::TooFew { confirmed, wanted }
            }
            ConfirmFailed::Refused(error) => NotConfirmed::Refused(error),
        }
    }
}

/// A topic that the node is subscribed to, until this is dropped.
#[derive(Debug)]
pub struct Topic {
    publisher: Publisher,
    subscriber: Subscriber,
}

impl Topic {
    pub(crate) async fn subscribe(node: &Node, name: &str, policy: Policy) -> Result<Topic, TopicError> {
        let publisher = Publisher::new(node, name, policy)?;
        let (outlet, subscriber) = Subscriber::new(None);
        node.server().subscribe(publisher.topic.clone(), policy, outlet).await?;
        Ok(Topic { publisher, subscriber })
    }

    pub(crate) async fn subscribe_with(
        node: &Node,
        name: &str,
        config: TopicConfig,
        validator: Option<Outlet<Unjudged>>,
        validating: Option<Validating>,
    ) -> Result<Topic, TopicError> {
        let publisher = Publisher::new(node, name, config.policy)?;
        let (outlet, subscriber) = Subscriber::new(validating);
        node.server().subscribe_with(publisher.topic.clone(), config, validator, outlet).await?;
        Ok(Topic { publisher, subscriber })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.publisher.name()
    }

    /// Publishes to the topic. See [`Publisher::publish`].
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<Published, PublishError> {
        self.publisher.publish(payload).await
    }

    /// Publishes to the topic, and waits until peers have it. See [`Publisher::publish_confirmed`].
    ///
    /// # Errors
    /// [`NotConfirmed`].
    pub async fn publish_confirmed(
        &self,
        payload: impl Into<Bytes>,
        peers: usize,
        within: Duration,
    ) -> Result<Confirmed, NotConfirmed> {
        self.publisher.publish_confirmed(payload, peers, within).await
    }

    /// The next message. See [`Subscriber::next`].
    pub async fn next(&self) -> Option<Message> {
        self.subscriber.next().await
    }

    /// The next message, or how many were lost before it. See [`Subscriber::recv`].
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn recv(&self) -> Result<Message, RecvError> {
        self.subscriber.recv().await
    }

    /// How many messages were lost so far. See [`Subscriber::missed`].
    pub fn missed(&self) -> u64 {
        self.subscriber.missed()
    }

    /// Its two halves, for two tasks.
    pub fn split(self) -> (Publisher, Subscriber) {
        (self.publisher, self.subscriber)
    }
}

/// Publishes to a topic, whether or not the node is subscribed to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    topic: gossip::Topic,
    policy: Policy,
    outlet: Outlet<Publish>,
    node: Node,
}

impl Publisher {
    /// Publishes to the topic of this name without being subscribed to it.
    ///
    /// # Errors
    /// No topic can have this name.
    pub fn new(node: &Node, name: &str, policy: Policy) -> Result<Publisher, gossip::TopicError> {
        let topic = gossip::Topic::new(name)?;
        Ok(Publisher { topic, policy, outlet: node.server().publisher(), node: node.clone() })
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        self.topic.as_str()
    }

    /// Publishes. The node's own subscribers get the message too.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was published unless it is [`PublishError::NoAnswer`].
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<Published, PublishError> {
        if self.node.is_stopped() {
            return Err(PublishError::Stopped);
        }
        let payload = payload.into();
        let mut refused = None;
        let answer = ask(ANSWER, |reply| {
            let publish = Publish { topic: self.topic.clone(), policy: self.policy, payload, reply };
            refused = self.outlet.offer(publish).err().map(|refused| match refused {
                Refused::Full(_) => PublishError::Busy { retry_after: self.node.retry_after() },
                Refused::Closed(_) => PublishError::Stopped,
            });
        })
        .await;
        match (answer, refused) {
            (_, Some(refused)) => Err(refused),
            (Ok(answer), None) => Ok(answer?),
            (Err(error), None) => Err(PublishError::NoAnswer(error)),
        }
    }
}

impl Publisher {
    /// Publishes, and returns as soon as so many peers have said that they have it: after its signature has held there, and
    /// their validator has accepted it if they have one. While they are too few it is sent to more of them, and those that
    /// lost it fetch it; for at most `within`, and as long as messages are kept (two minutes).
    ///
    /// It is the peers' word, each node's counted once: one that lies, or has many names, can confirm what it has not.
    ///
    /// # Errors
    /// [`NotConfirmed`]; it says whether the message was published all the same.
    pub async fn publish_confirmed(
        &self,
        payload: impl Into<Bytes>,
        peers: usize,
        within: Duration,
    ) -> Result<Confirmed, NotConfirmed> {
        let begun = Instant::now();
        let Published { id, .. } = self.publish(payload).await?;
        match NonZeroUsize::new(peers) {
            Some(peers) => {
                let left = within.saturating_sub(begun.elapsed());
                Ok(self.node.server().confirm(id, peers, left).await?)
            }
            None => Ok(Confirmed { id, peers: 0 }),
        }
    }

    /// Says whose messages of this topic this node takes, and publishes, as shards: large ones arrive sooner so. Shards
    /// are passed on before a message is whole and can be validated, so name those that the topic is for.
    pub fn admit(&self, publishers: Admitted) {
        self.node.server().admit(self.topic.clone(), publishers);
    }
}

/// What is published to a topic. Who is more than 4,096 messages or 64 MiB behind loses the oldest.
///
/// Clones of the node do not share it; subscribe once more for a second task that hears everything.
#[derive(Debug)]
pub struct Subscriber {
    inlet: Mutex<Inlet<Message>>,
    missed: AtomicU64,
    /// It ends with the subscriber.
    _validating: Option<Validating>,
}

impl Subscriber {
    /// Made before the node is asked, so that its end closes the queue if the node refuses.
    fn new(validating: Option<Validating>) -> (Outlet<Message>, Subscriber) {
        let (outlet, inlet) = data_queue(QUEUE);
        (outlet, Subscriber { inlet: Mutex::new(inlet), missed: AtomicU64::new(0), _validating: validating })
    }

    /// The next message; `None` when the node has stopped. What was lost is passed over, counted in
    /// [`missed`](Subscriber::missed), with a warning in the log.
    pub async fn next(&self) -> Option<Message> {
        loop {
            match self.recv().await {
                Ok(message) => return Some(message),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "messages were lost: subscriber too slow"),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next message, or how many were lost before it.
    ///
    /// # Errors
    /// [`RecvError::Lagged`] once for every gap, [`RecvError::Closed`] when the node has stopped.
    pub async fn recv(&self) -> Result<Message, RecvError> {
        let received = self.inlet.lock().await.recv().await;
        if let Err(RecvError::Lagged(missed)) = received {
            self.missed.fetch_add(missed, Ordering::Relaxed);
        }
        received
    }

    /// How many messages were lost so far because this subscriber was too slow.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.inlet.get_mut().close();
    }
}
