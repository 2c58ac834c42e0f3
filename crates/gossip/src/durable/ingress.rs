//! What readers of durable topics send to the gossip actor.

use peerage_mailbox::{Item, Outlet, Overflow, Reply};

use super::{Batch, Durable, DurableError, Start};
use crate::message::Topic;

/// What a reader of a durable topic asks. Refused when the queue is full.
#[derive(Debug)]
pub enum DurableAsk {
    /// What comes after a position, as soon as there is something. Dropped unanswered if the actor restarts meanwhile.
    Fetch {
        /// The topic.
        topic: Topic,
        /// The position.
        after: u64,
        /// The messages.
        reply: Reply<Result<Batch, DurableError>>,
    },
    /// Moves a cursor forward. Answered when it is on disk.
    Ack {
        /// The topic.
        topic: Topic,
        /// The cursor: 1 to 64 bytes.
        cursor: String,
        /// The position.
        position: u64,
        /// What came of it.
        reply: Reply<Result<(), DurableError>>,
    },
}

impl Item for DurableAsk {
    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

/// Nothing: that a queue of these is open says that somebody still reads a durable topic.
#[derive(Debug)]
pub struct Lease;

impl Item for Lease {}

/// A wish that a topic be durable.
#[derive(Debug)]
pub(crate) struct SubscribeDurable {
    pub(crate) topic: Topic,
    pub(crate) durable: Durable,
    pub(crate) start: Start,
    pub(crate) lease: Outlet<Lease>,
    pub(crate) reply: Option<Reply<Result<u64, DurableError>>>,
}

impl SubscribeDurable {
    pub(super) fn answer(reply: Option<Reply<Result<u64, DurableError>>>, answer: Result<u64, DurableError>) {
        if let Some(reply) = reply {
            reply.send(answer);
        }
    }
}
