//! A durable topic as a program sees it: a log that is read from a position, and positions with names.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::DurableFailed;
use peerage_server::gossip::durable::{self, Batch, DurableAsk, DurableError, DurableMessage, Lease, Start};
use peerage_server::gossip::{self, Policy, Published};
use peerage_server::mailbox::{AskError, Capacity, Inlet, Outlet, RecvError, Refused, ask, data_queue};
use tokio::sync::Mutex;

use crate::node::Node;
use crate::topic::{PublishError, Publisher};

/// How long a question waits until it is asked anew: the topic may be quiet for much longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the disk may take for an acknowledgement.
const ANSWER: Duration = Duration::from_secs(30);
/// Between questions while the node starts its gossip again, or its disk fails.
const PAUSE: Duration = Duration::from_millis(100);

/// What is kept of a topic, and where this program goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Most bytes of messages on disk; the newest one stays whatever its size. The same for all readers of a topic.
    pub retain_bytes: u64,
    /// How long a message stays. The same for all readers of a topic.
    pub retain_age: Duration,
    /// The name under which [`ack`](DurableTopic::ack) remembers how far this program is: 1 to 64 bytes, and at most 64
    /// names for a topic.
    pub cursor: String,
    /// Where it starts; if nothing is said, at its cursor.
    pub from: Option<Start>,
}

impl Durable {
    /// Goes on after what was acknowledged under this name; 256 MiB and a day are kept.
    pub fn cursor(name: impl Into<String>) -> Durable {
        let retain_age = Duration::from_secs(24 * 3_600);
        Durable { retain_bytes: 256 << 20, retain_age, cursor: name.into(), from: None }
    }
}

/// Why a durable topic is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurableTopicError {
    /// No topic can have this name.
    #[error(transparent)]
    Name(#[from] gossip::TopicError),
    /// The node refuses.
    #[error(transparent)]
    Refused(#[from] DurableError),
    /// The node has stopped, or was just starting its gossip again.
    #[error("the node did not answer: {0}")]
    NoAnswer(#[from] AskError),
}

impl From<DurableFailed> for DurableTopicError {
    fn from(error: DurableFailed) -> DurableTopicError {
        match error {
            DurableFailed::Ask(error) => DurableTopicError::NoAnswer(error),
            DurableFailed::Refused(error) => DurableTopicError::Refused(error),
        }
    }
}

/// Why a position was not acknowledged. It may be again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The node refuses, or its disk fails.
    #[error(transparent)]
    Refused(#[from] DurableError),
    /// The node did not say whether it is on disk.
    #[error("the node did not answer: {0}")]
    NoAnswer(#[from] AskError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// A topic that is kept on disk for as long as somebody has this.
#[derive(Debug)]
pub struct DurableTopic {
    publisher: Publisher,
    node: Node,
    topic: gossip::Topic,
    cursor: String,
    asker: Outlet<DurableAsk>,
    reading: Mutex<Reading>,
    missed: AtomicU64,
    /// Says that it is read, until it is dropped.
    _lease: Inlet<Lease>,
}

#[derive(Debug)]
struct Reading {
    /// What was read already.
    ahead: VecDeque<DurableMessage>,
    after: u64,
}

impl DurableTopic {
    pub(crate) async fn open(node: &Node, name: &str, durable: Durable) -> Result<DurableTopic, DurableTopicError> {
        let publisher = Publisher::new(node, name, Policy::Signed)?;
        let topic = gossip::Topic::new(name)?;
        let Durable { retain_bytes, retain_age, cursor, from } = durable;
        let start = from.unwrap_or_else(|| Start::Cursor(cursor.clone()));
        let (lease, _lease) = data_queue(Capacity { items: 1, weight: 1 });
        let bounds = durable::Durable { retain_bytes, retain_age };
        let after = node.server().subscribe_durable(topic.clone(), bounds, start, lease).await?;
        let reading = Mutex::new(Reading { ahead: VecDeque::new(), after });
        let asker = node.server().asker();
        Ok(DurableTopic {
            publisher,
            node: node.clone(),
            topic,
            cursor,
            asker,
            reading,
            missed: AtomicU64::new(0),
            _lease,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.topic.as_str()
    }

    /// Publishes to the topic; the message is read here too. See [`Publisher::publish`].
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<Published, PublishError> {
        self.publisher.publish(payload).await
    }

    /// The next message; `None` when the node has stopped. What was lost is passed over, counted in
    /// [`missed`](DurableTopic::missed), with a warning in the log.
    pub async fn next(&self) -> Option<DurableMessage> {
        loop {
            match self.recv().await {
                Ok(message) => return Some(message),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, topic = self.name(), "messages were dropped before they were read");
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next message, or how many before it were dropped from the disk before they were read. Two tasks that call it
    /// share the messages.
    ///
    /// # Errors
    /// [`RecvError::Lagged`] once for every gap, [`RecvError::Closed`] when the node has stopped.
    pub async fn recv(&self) -> Result<DurableMessage, RecvError> {
        let mut reading = self.reading.lock().await;
        loop {
            if let Some(message) = reading.ahead.pop_front() {
                return Ok(message);
            }
            let Batch { lagged, entries, after } = self.fetch(reading.after).await?;
            reading.after = after;
            reading.ahead = entries.into();
            if lagged > 0 {
                self.missed.fetch_add(lagged, Ordering::Relaxed);
                return Err(RecvError::Lagged(lagged));
            }
        }
    }

    /// What comes after a position, whenever that is.
    async fn fetch(&self, after: u64) -> Result<Batch, RecvError> {
        loop {
            let mut closed = self.node.is_stopped();
            let answer = ask(PATIENCE, |reply| {
                let fetch = DurableAsk::Fetch { topic: self.topic.clone(), after, reply };
                closed |= matches!(self.asker.offer(fetch), Err(Refused::Closed(_)));
            })
            .await;
            match answer {
                _ if closed => return Err(RecvError::Closed),
                Ok(Ok(batch)) => return Ok(batch),
                Err(AskError::TimedOut) => {}
                // It is back in a moment, or has stopped.
                Ok(Err(_)) | Err(AskError::Dropped) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// How many messages were dropped before they were read, so far.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Says that this program is done with everything up to a position: it goes on after it when it runs again. Returns
    /// when that is on disk. An earlier position than the last one changes nothing.
    ///
    /// # Errors
    /// [`AckError`].
    pub async fn ack(&self, position: u64) -> Result<(), AckError> {
        let mut refused = None;
        let answer = ask(ANSWER, |reply| {
            let (topic, cursor) = (self.topic.clone(), self.cursor.clone());
            let ack = DurableAsk::Ack { topic, cursor, position, reply };
            refused = self.asker.offer(ack).err().map(|refused| match refused {
                Refused::Full(_) => AckError::Refused(DurableError::Busy),
                Refused::Closed(_) => AckError::Stopped,
            });
        })
        .await;
        match (answer, refused) {
            (_, Some(refused)) => Err(refused),
            (Ok(answer), None) => Ok(answer?),
            (Err(error), None) => Err(AckError::NoAnswer(error)),
        }
    }
}
