//! Durable topics: their messages are on disk before anybody gets them, in the order of each publisher, and none twice.
//!
//! What gossip has accepted comes to the [`DurableMachine`] of its topic. It goes on at once if the message before it
//! of the same publisher has gone on: on a durable topic a publisher's sequences rise by one, from wherever its life
//! begins. Any other message is held back, and what is missing is looked for by pull repair and in peers' logs: until it
//! has come, or nobody has it and [`DurableConfig::hold`] is over. Then what is there goes on in order, and what was
//! missing is given up; should it come later it is dropped, and counted. So a message is late, or missing, but never out
//! of order.
//!
//! What goes on gets the next position and is persisted, with all that came meanwhile in one commit. Only then readers
//! get it. A reader asks for what comes after a position, so one that is slow loses nothing that the log still has, and
//! is told how much of what it has not. A cursor is a position with a name, on disk too.
//!
//! After a restart the last sequence of each publisher is known from the log before the topic is subscribed to, so that
//! nothing is handed out twice even if everybody sends it again. What comes after those, and was published while this node
//! was away, comes out of its peers' logs.

mod config;
mod contract;
#[cfg(feature = "actor")]
pub(crate) mod ingress;
mod machine;
#[cfg(feature = "actor")]
mod metrics;
mod order;
#[cfg(feature = "actor")]
pub(crate) mod shell;
#[cfg(feature = "actor")]
mod stored;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use crate::machine::SubscribeError;
use crate::message::MessageId;
#[cfg(any(test, feature = "actor"))]
use crate::wire::{self, Item, Parcel};

pub use config::{DurableConfig, DurableConfigError};
pub use contract::{DurableCount, DurableIn, DurableOut, DurableTimer, Recovered};
#[cfg(feature = "actor")]
pub use ingress::{DurableAsk, Lease};
pub use machine::DurableMachine;
pub(crate) use order::FIRST_OF_LIFE;

/// What a durable topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// Most bytes of messages; the newest one stays whatever its size.
    pub retain_bytes: u64,
    /// How long a message stays.
    pub retain_age: Duration,
}

/// Where a reader of a durable topic starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// With the oldest message that is kept.
    Earliest,
    /// With the next message that comes. What was published before and this node has missed comes, too.
    Latest,
    /// After the last message acknowledged under this name; if none was, with the oldest one.
    Cursor(String),
    /// After this position.
    After(u64),
}

/// A message of a durable topic, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its place in this node's log. Rises; another node has the same message at another place.
    pub position: u64,
    /// Its id.
    pub id: MessageId,
    /// Who published it.
    pub publisher: NodeId,
    /// The publisher's number for it. Rises.
    pub sequence: u64,
    /// When it was kept, in milliseconds since the Unix epoch by this node's clock.
    pub at: u64,
    /// The whole item as it travels, signature included.
    pub item: Bytes,
}

/// A message of a durable topic, as its readers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableMessage {
    /// Its place in this node's log, to be acknowledged or started after.
    pub position: u64,
    /// Who published it.
    pub publisher: NodeId,
    /// The publisher's number for it. Rises.
    pub sequence: u64,
    /// Its id.
    pub id: MessageId,
    /// What was published.
    pub payload: Bytes,
}

/// Messages that follow a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T = DurableMessage> {
    /// How many messages between that position and these were dropped, as they were too many or too old.
    pub lagged: u64,
    /// The messages, oldest first. None only if some were lost and no newer one is here.
    pub entries: Vec<T>,
    /// What to ask for next: what comes after this.
    pub after: u64,
}

/// Why a topic is not durable here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurableError {
    /// Gossip refuses the topic.
    #[error(transparent)]
    Refused(#[from] SubscribeError),
    /// As many as may be are durable.
    #[error("{0} topics are durable, which is as many as there can be (gossip.durable.topics)")]
    TooMany(usize),
    /// More bytes than all of them together may keep.
    #[error(
        "durable topics keep {taken} bytes, and {asked} more make {}, of at most {limit} (gossip.durable.bytes)",
        taken.saturating_add(*asked)
    )]
    Bytes {
        /// What the others may keep.
        taken: u64,
        /// What this one would.
        asked: u64,
        /// The limit.
        limit: u64,
    },
    /// It would keep nothing.
    #[error("a durable topic keeps at least one byte for at least one second; say how much and how long")]
    Nothing,
    /// It is durable here with other bounds.
    #[error("the topic keeps {} bytes for {:?} here already; its bounds are the same for all its readers", .0.retain_bytes, .0.retain_age)]
    Other(Durable),
    /// Its log did not open.
    #[error("the topic's log: {0}")]
    Log(String),
    /// It has as many readers that wait as there can be.
    #[error("too many readers wait for this topic")]
    Busy,
    /// It is not durable here, or not any more, or not again yet.
    #[error("the topic is not durable here now; subscribe to it")]
    NotOpen,
    /// A position was acknowledged that nobody has got.
    #[error("a position cannot be acknowledged before it was handed out: the last one is {last}")]
    Ahead {
        /// The last position.
        last: u64,
    },
}

/// The one message of an item that was kept.
#[cfg(any(test, feature = "actor"))]
fn parcel_of(item: &Bytes, max_payload: usize) -> Option<Parcel> {
    match wire::items(item.clone(), max_payload).next()? {
        Ok(Item::Message(parcel)) => Some(parcel),
        _ => None,
    }
}
