//! What protocols hand to the queues and get from the sessions.

use bytes::Bytes;
use peerage_wire::frame::{Lane, MESSAGE_COST};
use serde::{Deserialize, Serialize};

use crate::Refusal;

/// One session of this process. Ids rise and are never used again, so that a late message cannot act on
/// a new session with the same peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A capability's place in one session; 0 is the session's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u16);

/// What order and credit are kept by: a channel's stream, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The protocol.
    pub channel: ChannelId,
    /// 0: the channel's message flow.
    pub stream: u64,
    /// How urgent.
    pub lane: Lane,
}

/// One receiver of a message: channels are numbered by session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Recipient {
    /// Its session.
    pub session: SessionId,
    /// The sender's protocol in that session.
    pub channel: ChannelId,
}

/// A message that came in, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// From whom.
    pub session: SessionId,
    /// For which protocol of the session.
    pub channel: ChannelId,
    /// 0: the channel's message flow.
    pub stream: u64,
    /// As urgent as it travelled.
    pub lane: Lane,
    /// Its bytes.
    pub payload: Bytes,
}

impl Delivery {
    /// What it costs of its flow's credit, and of the inbound pool.
    pub fn cost(&self) -> u64 {
        self.payload.len() as u64 + MESSAGE_COST
    }
}

/// A message did not go out to one recipient, and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SendFailed {
    /// To whom.
    pub session: SessionId,
    /// What the sender called it.
    pub tag: u64,
    /// Why.
    pub reason: Refusal,
}

#[cfg(feature = "actor")]
mod doors {
    use peerage_mailbox::{Item, Outlet, Overflow};

    use super::*;
    use crate::Permit;

    /// What to do when a recipient's lane is full.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
    pub enum WhenFull {
        /// This message fails.
        Refuse,
        /// The oldest messages of the lane that have not begun to go out fail instead: for gossip, where
        /// the newest is worth most and what was lost is announced again.
        DropOldest,
        /// Nothing is sent: what its sender called by the same tag and is still in this lane, and has not begun to go out,
        /// is taken back. That is not a failure, and is not reported.
        TakeBack,
    }

    /// A message to many peers: encoded once, charged once, offered to each one's lane.
    #[derive(Clone, Debug)]
    pub struct Push {
        /// To whom, each once.
        pub to: Vec<Recipient>,
        /// How urgent.
        pub lane: Lane,
        /// The bytes, shared by all.
        pub payload: Bytes,
        /// What to do when a lane is full.
        pub when_full: WhenFull,
        /// The sender's name for it, given back in [`SendFailed`].
        pub tag: u64,
        /// Where failures are reported; nowhere if the sender does not care.
        pub failures: Option<Outlet<SendFailed>>,
    }

    impl Push {
        /// Takes back what was pushed under a tag, where it has not begun to go out.
        pub fn take_back(to: Vec<Recipient>, lane: Lane, tag: u64) -> Push {
            Push { to, lane, payload: Bytes::new(), when_full: WhenFull::TakeBack, tag, failures: None }
        }
    }

    impl Item for Push {
        fn weight(&self) -> usize {
            self.payload.len()
        }

        fn overflow(&self) -> Overflow {
            Overflow::Reject
        }
    }

    /// A message that came in, with its permit: the peer may send as much again once that is dropped.
    #[derive(Debug)]
    pub struct Inbound {
        /// The message.
        pub delivery: Delivery,
        /// Its part of the inbound pool. To be dropped when the message has been handled.
        pub permit: Permit,
    }

    /// A message that no session brought, and that nobody's credit is kept for.
    impl From<Delivery> for Inbound {
        fn from(delivery: Delivery) -> Inbound {
            Inbound { delivery, permit: Permit::none() }
        }
    }

    impl Item for Inbound {
        fn weight(&self) -> usize {
            self.delivery.payload.len()
        }

        /// The session keeps it until there is room; the peer's credit bounds what it keeps.
        fn overflow(&self) -> Overflow {
            Overflow::Reject
        }

        /// A session that floods a protocol waits for itself.
        fn source(&self) -> Option<u64> {
            Some(self.delivery.session.0)
        }
    }

    impl Item for SendFailed {
        /// The capacity covers every message that can be queued, so this does not happen; if it did, the
        /// sender would only not announce those again.
        fn overflow(&self) -> Overflow {
            Overflow::DropOldest
        }
    }
}

#[cfg(feature = "actor")]
pub use doors::{Inbound, Push, WhenFull};
