//! A topic with parameters of its own, and a program's say in what its node delivers and sends on.

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;

use peerage_server::gossip::Unjudged;
use peerage_server::mailbox::{Capacity, Inlet, Outlet, RecvError, data_queue};
use tokio::task::{AbortHandle, JoinSet};

use crate::node::Node;
use crate::topic::{Topic, TopicError};
use crate::{Message, TopicConfig, Verdict};

/// What may wait for a validator: so many messages, and so many bytes of them. What does not fit is asked for again.
const QUEUE: Capacity = Capacity { items: 1024, weight: 64 * 1024 * 1024 };
/// Messages that are validated at a time, unless it is said otherwise.
const AT_A_TIME: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

type Judging = Pin<Box<dyn Future<Output = Verdict> + Send>>;
type Validator = Arc<dyn Fn(Message) -> Judging + Send + Sync>;

/// A topic that is about to be subscribed to: `.await` it.
#[must_use = "nothing is subscribed to before it is awaited"]
pub struct TopicSetup {
    node: Node,
    name: String,
    config: TopicConfig,
    validator: Option<Validator>,
    at_a_time: NonZeroUsize,
}

impl TopicSetup {
    pub(crate) fn new(node: &Node, name: &str, config: TopicConfig) -> TopicSetup {
        TopicSetup { node: node.clone(), name: name.to_owned(), config, validator: None, at_a_time: AT_A_TIME }
    }

    /// Has every message of a peer judged before it is delivered here and sent on: after its signature was checked, once
    /// for all copies, and within [`TopicConfig::validation`]. What is published here is not judged.
    ///
    /// - [`Verdict::Accept`]: it is delivered and sent on.
    /// - [`Verdict::Ignore`]: it is not, and nobody is blamed. So it is when the time is over, and when `validator`
    ///   panics.
    /// - [`Verdict::Reject`]: it is not, and who sent it is scored down. Only for what no honest node that validates
    ///   would send on.
    ///
    /// It is called on a task of its own. When the topic's subscriber is dropped it is not called any more; other
    /// subscribers that this node may have get no messages of peers from then on, until one validates again.
    pub fn validate<F, V>(mut self, validator: V) -> TopicSetup
    where
        V: Fn(Message) -> F + Send + Sync + 'static,
        F: Future<Output = Verdict> + Send + 'static,
    {
        self.validator = Some(Arc::new(move |message| Box::pin(validator(message))));
        self
    }

    /// How many messages are validated at a time; 16, unless changed.
    pub fn at_a_time(mut self, messages: NonZeroUsize) -> TopicSetup {
        self.at_a_time = messages;
        self
    }
}

impl IntoFuture for TopicSetup {
    type Output = Result<Topic, TopicError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let TopicSetup { node, name, config, validator, at_a_time } = self;
            let (outlet, validating) = validator.map(|validator| Validating::start(validator, at_a_time)).unzip();
            Topic::subscribe_with(&node, &name, config, outlet, validating).await
        })
    }
}

impl fmt::Debug for TopicSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let validated = self.validator.is_some();
        let mut shown = f.debug_struct("TopicSetup");
        shown.field("name", &self.name).field("config", &self.config).field("validated", &validated).finish()
    }
}

/// A validator at work, until this is dropped.
#[derive(Debug)]
pub(crate) struct Validating(AbortHandle);

impl Validating {
    fn start(validator: Validator, at_a_time: NonZeroUsize) -> (Outlet<Unjudged>, Validating) {
        let (outlet, inlet) = data_queue(QUEUE);
        let task = tokio::spawn(work(inlet, validator, at_a_time));
        (outlet, Validating(task.abort_handle()))
    }
}

impl Drop for Validating {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A verdict that is dropped says to ignore, so that nothing is left open by a validator that panics.
async fn work(mut inlet: Inlet<Unjudged>, validator: Validator, at_a_time: NonZeroUsize) {
    let mut running = JoinSet::new();
    loop {
        let room = running.len() < at_a_time.get();
        tokio::select! {
            biased;
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Err(error) = ended {
                    tracing::warn!(%error, "a validator failed; the message is ignored");
                }
            }
            received = inlet.recv(), if room => match received {
                Ok(Unjudged { message, judge }) => {
                    let validator = validator.clone();
                    running.spawn(async move { judge.say(validator(message).await) });
                }
                // Nothing makes room in this queue but taking.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}
