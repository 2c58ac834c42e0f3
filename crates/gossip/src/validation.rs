//! The application's side of validation: messages to judge, and the one verdict of each.

use std::fmt;

use peerage_machine::Time;
use peerage_mailbox::{Item, Outlet, Overflow};

use crate::machine::Verdict;
use crate::message::{Message, Topic};

/// A message that is delivered and sent on only if the application accepts it.
#[derive(Debug)]
pub struct Unjudged {
    /// The message. Its signature holds, if its topic is signed.
    pub message: Message,
    /// Where the verdict goes.
    pub judge: Judge,
}

/// What does not fit a validator's queue is not judged; it is counted, and asked for again later.
impl Item for Unjudged {
    fn weight(&self) -> usize {
        self.message.payload.len()
    }

    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

/// Takes one verdict. Dropped without one, the message is ignored: a validator that fails of a message is not asked about
/// it again.
pub struct Judge {
    token: u64,
    topic: Topic,
    asked: Time,
    /// Of the life of the actor that asked; a later one knows nothing of it.
    to: Option<Outlet<Judged>>,
}

impl Judge {
    pub(crate) fn new(token: u64, topic: Topic, asked: Time, to: Outlet<Judged>) -> Judge {
        Judge { token, topic, asked, to: Some(to) }
    }

    /// Says what is to become of the message. After the topic's deadline, or a restart of the actor, that changes
    /// nothing.
    pub fn say(mut self, verdict: Verdict) {
        self.tell(verdict);
    }

    /// Nobody was asked.
    pub(crate) fn forget(mut self) {
        self.to = None;
    }

    fn tell(&mut self, verdict: Verdict) {
        if let Some(to) = self.to.take() {
            // Without room it is late: the deadline decides.
            let (topic, asked) = (self.topic.clone(), self.asked);
            drop(to.offer(Judged { token: self.token, verdict, topic, asked }));
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.tell(Verdict::Ignore);
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Judge({})", self.token)
    }
}

/// A verdict on its way to the actor.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) token: u64,
    pub(crate) verdict: Verdict,
    /// What it is of, and when it was asked for: for metrics.
    pub(crate) topic: Topic,
    pub(crate) asked: Time,
}

impl Item for Judged {}
