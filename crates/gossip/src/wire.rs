//! What travels on the gossip channel: items of kind ‖ length ‖ body, several to a session message.
//!
//! | kind | item | body |
//! |---|---|---|
//! | 1 | [`Topics`](Item::Topics) | flags u8 (bit 0: answer with yours; bit 1: takes coded messages), then topics |
//! | 2 | [`Subscribe`](Item::Subscribe) | topic |
//! | 3 | [`Unsubscribe`](Item::Unsubscribe) | topic |
//! | 4 | [`Message`](Item::Message), signed | topic ‖ publisher 32 ‖ sequence u64 ‖ issued u64 (unix ms) ‖ signature 64 ‖ payload |
//! | 5 | [`Message`](Item::Message), anonymous | topic ‖ payload |
//! | 6 | [`IHave`](Item::IHave) | topic ‖ ids of 32 bytes |
//! | 7 | [`IWant`](Item::IWant) | ids of 32 bytes |
//! | 8 | [`Graft`](Item::Graft) | topic |
//! | 9 | [`Prune`](Item::Prune) | topic ‖ rest u16 (seconds) |
//! | 10 | [`IDontWant`](Item::IDontWant) | ids of 32 bytes |
//! | 11 | [`Firsts`](Item::Firsts) | heads of ids, of 8 bytes |
//! | 12 | [`Filter`](Item::Filter), [`Answered`](Item::Answered), [`Repair`](Item::Repair) | see `wire/filter.rs` |
//! | 13, 14 | receipts | see `wire/receipts.rs` |
//! | 15 | histories of durable topics | see `wire/history.rs` |
//! | 16–19 | coded messages | see `wire/coded.rs` |
//!
//! Kind is a u8, length a u32, all numbers big-endian, a topic is its length as u8 and its name. Items of
//! other kinds are skipped by their length, which is how kinds are added later. The policy of a message is
//! its kind, so a later policy is skipped too where it is not known.

mod filter;
mod history;

pub use self::filter::{
    FILTER_IDS, Filter, MAX_FILTER, MAX_FILTER_PROBES, MAX_SLICE_BITS, Slice, answered, filter, repair,
};
pub use self::history::{HistoryAsk, HistoryEnd, MAX_KNOWN, history_ask, history_end, logged};

use bytes::{BufMut, Bytes, BytesMut};
use peerage_wire::NodeId;
pub use peerage_wire::items::MAX_ITEMS;
use peerage_wire::items::{ITEM_HEADER, ItemsError};

use crate::coded::{Bits, Header, Key};
use crate::message::{MessageId, Origin, Topic};

mod coded;
mod receipts;

pub use self::coded::{CodedStatus, Shard, has, header, need, shard, status};
pub use self::receipts::{confirm, receipts};

/// Most topics in one snapshot.
pub const MAX_TOPICS: usize = 1024;
/// Most ids in one announcement or request.
pub const MAX_IDS: usize = 1024;
/// Largest payload that may be configured, in bytes.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;
/// Bytes of a message around its payload, at most.
pub const MAX_OVERHEAD: usize = ITEM_HEADER + 1 + crate::message::MAX_TOPIC + 32 + 8 + 8 + 64;

const WANT_REPLY: u8 = 1;
const CODED: u8 = 2;

mod kind {
    pub(super) const TOPICS: u8 = 1;
    pub(super) const SUBSCRIBE: u8 = 2;
    pub(super) const UNSUBSCRIBE: u8 = 3;
    pub(super) const SIGNED: u8 = 4;
    pub(super) const ANONYMOUS: u8 = 5;
    pub(super) const I_HAVE: u8 = 6;
    pub(super) const I_WANT: u8 = 7;
    pub(super) const GRAFT: u8 = 8;
    pub(super) const PRUNE: u8 = 9;
    pub(super) const I_DONT_WANT: u8 = 10;
    pub(super) const FIRSTS: u8 = 11;
    pub(super) const RECONCILE: u8 = 12;
    pub(super) const CONFIRM: u8 = 13;
    pub(super) const RECEIPTS: u8 = 14;
    pub(super) const HISTORY: u8 = 15;
    pub(super) const HEADER: u8 = 16;
    pub(super) const SHARD: u8 = 17;
    pub(super) const CODED_STATUS: u8 = 18;
    pub(super) const CODED_NEED: u8 = 19;
}

/// One thing a peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// All topics the sender is subscribed to, in place of what it said before.
    Topics {
        /// It wants to hear the receiver's.
        want_reply: bool,
        /// The sender takes coded messages.
        coded: bool,
        /// The topics.
        topics: Vec<Topic>,
    },
    /// One more topic.
    Subscribe(Topic),
    /// One topic less.
    Unsubscribe(Topic),
    /// A message.
    Message(Parcel),
    /// Messages the sender has.
    IHave {
        /// Their topic.
        topic: Topic,
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// Messages the sender asks for.
    IWant {
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// The sender takes the receiver into its mesh of a topic.
    Graft(Topic),
    /// The sender does not, or no longer, have the receiver in its mesh of a topic.
    Prune {
        /// The topic.
        topic: Topic,
        /// For so many seconds neither grafts the other again.
        rest: u16,
    },
    /// Messages that the sender has, and need not be sent.
    IDontWant {
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// Of the messages that the receiver sent lately, those that nobody had sent before; the others were copies.
    Firsts {
        /// The heads of their ids; see [`MessageId::head`].
        heads: Vec<u64>,
    },
    /// What the sender has, for pull repair.
    Filter(Filter),
    /// What follows in this session message is part of an answer to a filter.
    Repair,
    /// The sender has answered a filter.
    Answered {
        /// Messages that it sent.
        sent: u32,
        /// Whether it would send more for the next filter.
        more: bool,
    },
    /// Messages that the sender has, and of which it wants to be told when the receiver has them.
    Confirm {
        /// Their topic.
        topic: Topic,
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// Messages that the sender has taken in, of those that it was asked for.
    Receipts {
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// How far the sender is with a durable topic, and what it asks for.
    HistoryAsk(Box<HistoryAsk>),
    /// The sender has answered that.
    HistoryEnd(HistoryEnd),
    /// What follows in this session message is out of the sender's log.
    Logged,
    /// What a coded message is, before its shards.
    Header(Box<Header>),
    /// A shard of a coded message.
    Shard(Shard),
    /// What the sender says of a coded message.
    CodedStatus {
        /// The message.
        key: Key,
        /// What it says.
        status: CodedStatus,
        /// Shards that it has.
        shards: Bits,
    },
    /// Shards that the sender asks for.
    CodedNeed {
        /// Their message.
        key: Key,
        /// Which ones.
        shards: Bits,
    },
    /// An item of a later version.
    Unknown(u8),
}

/// A message as it travels. Nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Its topic.
    pub topic: Topic,
    /// Who published it; `None` on an anonymous topic.
    pub origin: Option<Origin>,
    /// What was published: a part of `bytes`, not a copy.
    pub payload: Bytes,
    /// The whole item as it was received or built, header included: what is sent on.
    pub bytes: Bytes,
}

impl Parcel {
    /// Builds the item. The one place where a payload is copied on its way out.
    pub fn new(topic: Topic, origin: Option<Origin>, payload: &[u8]) -> Parcel {
        let mut bytes = BytesMut::with_capacity(MAX_OVERHEAD + payload.len());
        let kind = if origin.is_some() { kind::SIGNED } else { kind::ANONYMOUS };
        let body = begin(&mut bytes, kind);
        put_topic(&mut bytes, &topic);
        if let Some(origin) = &origin {
            bytes.put_slice(origin.publisher.as_bytes());
            bytes.put_u64(origin.sequence);
            bytes.put_u64(origin.issued);
            bytes.put_slice(&origin.signature);
        }
        let payload_at = bytes.len();
        bytes.put_slice(payload);
        finish(&mut bytes, body);
        let bytes = bytes.freeze();
        Parcel { topic, origin, payload: bytes.slice(payload_at..), bytes }
    }

    /// Its id, from the whole payload.
    pub fn id(&self) -> MessageId {
        match &self.origin {
            Some(origin) => MessageId::signed(&self.topic, &origin.publisher, origin.sequence, &self.payload),
            None => MessageId::anonymous(&self.topic, &self.payload),
        }
    }

    /// The same item in memory of its own.
    ///
    /// A kept slice keeps alive all of the session message it came in, so a peer could make a node hold
    /// 16 MiB for every 100 bytes it counts.
    pub fn detached(self) -> Parcel {
        let payload_at = self.bytes.len() - self.payload.len();
        let bytes = Bytes::copy_from_slice(&self.bytes);
        Parcel { payload: bytes.slice(payload_at..), bytes, ..self }
    }
}

/// Why bytes are not gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field, or an item, is longer than what is left.
    #[error("cut short")]
    Short,
    /// Bytes are left over in an item.
    #[error("{0} bytes left over in an item")]
    Trailing(usize),
    /// A topic's name is empty, too long or not UTF-8.
    #[error("malformed topic")]
    Topic,
    /// More topics or ids than one item may have.
    #[error("too many entries in one item")]
    TooMany,
    /// A filter of a size, a slice or probes that none has.
    #[error("malformed filter")]
    Filter,
    /// A question for a history whose publishers are not in order.
    #[error("malformed question for a history")]
    History,
    /// More than [`MAX_ITEMS`] items.
    #[error("more than {MAX_ITEMS} items")]
    TooManyItems,
    /// A payload larger than this network allows.
    #[error("payload of {0} bytes")]
    TooLarge(usize),
}

/// The items of a session message, whose payloads may have at most `max_payload` bytes. Ends after the first error.
pub fn items(message: Bytes, max_payload: usize) -> impl Iterator<Item = Result<Item, WireError>> {
    peerage_wire::items::items(message, move |kind, item| decode(kind, item, max_payload))
}

impl From<ItemsError> for WireError {
    fn from(error: ItemsError) -> WireError {
        match error {
            ItemsError::Short => WireError::Short,
            ItemsError::TooMany => WireError::TooManyItems,
        }
    }
}

fn decode(kind: u8, item: Bytes, max_payload: usize) -> Result<Item, WireError> {
    let mut body = Reader(item.get(ITEM_HEADER..).ok_or(WireError::Short)?);
    let decoded = match kind {
        kind::TOPICS => {
            let flags = body.u8()?;
            let (want_reply, coded) = (flags & WANT_REPLY != 0, flags & CODED != 0);
            let mut topics = Vec::new();
            while !body.0.is_empty() {
                if topics.len() == MAX_TOPICS {
                    return Err(WireError::TooMany);
                }
                topics.push(body.topic()?);
            }
            Item::Topics { want_reply, coded, topics }
        }
        kind::SUBSCRIBE => Item::Subscribe(body.topic()?),
        kind::UNSUBSCRIBE => Item::Unsubscribe(body.topic()?),
        kind::SIGNED | kind::ANONYMOUS => {
            let topic = body.topic()?;
            let origin = if kind == kind::SIGNED { Some(body.origin()?) } else { None };
            if body.0.len() > max_payload {
                return Err(WireError::TooLarge(body.0.len()));
            }
            let payload = item.slice_ref(body.0);
            return Ok(Item::Message(Parcel { topic, origin, payload, bytes: item }));
        }
        kind::I_HAVE => Item::IHave { topic: body.topic()?, ids: body.ids()? },
        kind::I_WANT => Item::IWant { ids: body.ids()? },
        kind::GRAFT => Item::Graft(body.topic()?),
        kind::PRUNE => Item::Prune { topic: body.topic()?, rest: u16::from_be_bytes(body.array()?) },
        kind::I_DONT_WANT => Item::IDontWant { ids: body.ids()? },
        kind::FIRSTS => Item::Firsts { heads: body.heads()? },
        kind::RECONCILE => filter::decode(&mut body)?,
        kind::CONFIRM => Item::Confirm { topic: body.topic()?, ids: body.ids()? },
        kind::RECEIPTS => Item::Receipts { ids: body.ids()? },
        kind::HISTORY => history::decode(&mut body)?,
        kind::HEADER => Item::Header(Box::new(body.header()?)),
        kind::SHARD => Item::Shard(body.shard(&item)?),
        kind::CODED_STATUS => body.status()?,
        kind::CODED_NEED => body.need()?,
        kind => return Ok(Item::Unknown(kind)),
    };
    if body.0.is_empty() { Ok(decoded) } else { Err(WireError::Trailing(body.0.len())) }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn topic(&mut self) -> Result<Topic, WireError> {
        let len = usize::from(self.u8()?);
        let (name, rest) = self.0.split_at_checked(len).ok_or(WireError::Short)?;
        self.0 = rest;
        let name = std::str::from_utf8(name).map_err(|_| WireError::Topic)?;
        Topic::new(name).map_err(|_| WireError::Topic)
    }

    fn origin(&mut self) -> Result<Origin, WireError> {
        Ok(Origin {
            publisher: NodeId::from_bytes(self.array()?),
            sequence: u64::from_be_bytes(self.array()?),
            issued: u64::from_be_bytes(self.array()?),
            signature: self.array()?,
        })
    }

    fn heads(&mut self) -> Result<Vec<u64>, WireError> {
        let (heads, rest) = self.0.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(WireError::Short);
        }
        if heads.len() > MAX_IDS {
            return Err(WireError::TooMany);
        }
        self.0 = rest;
        Ok(heads.iter().map(|head| u64::from_be_bytes(*head)).collect())
    }

    fn ids(&mut self) -> Result<Vec<MessageId>, WireError> {
        let (ids, rest) = self.0.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(WireError::Short);
        }
        if ids.len() > MAX_IDS {
            return Err(WireError::TooMany);
        }
        self.0 = rest;
        Ok(ids.iter().map(|id| MessageId(*id)).collect())
    }
}

/// Starts an item, to be ended with [`finish`].
fn begin(to: &mut BytesMut, kind: u8) -> usize {
    to.put_u8(kind);
    to.put_u32(0);
    to.len()
}

fn finish(to: &mut BytesMut, body: usize) {
    let len = u32::try_from(to.len() - body).expect("items are bounded far below 4 GiB before they are built");
    to[body - 4..body].copy_from_slice(&len.to_be_bytes());
}

fn put_topic(to: &mut BytesMut, topic: &Topic) {
    to.put_u8(topic.len_byte());
    to.put_slice(topic.as_str().as_bytes());
}

fn control(kind: u8, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    // Room for a topic and an id, which most items are.
    let mut bytes = BytesMut::with_capacity(64);
    let body = begin(&mut bytes, kind);
    fill(&mut bytes);
    finish(&mut bytes, body);
    bytes.freeze()
}

/// A snapshot of the sender's topics; at most [`MAX_TOPICS`] of them are put in.
pub fn topics<'a>(want_reply: bool, topics: impl IntoIterator<Item = &'a Topic>) -> Bytes {
    topics_of(want_reply, false, topics)
}

/// The same, with whether the sender takes coded messages.
pub fn topics_of<'a>(want_reply: bool, coded: bool, topics: impl IntoIterator<Item = &'a Topic>) -> Bytes {
    control(kind::TOPICS, |to| {
        to.put_u8(if want_reply { WANT_REPLY } else { 0 } | if coded { CODED } else { 0 });
        topics.into_iter().take(MAX_TOPICS).for_each(|topic| put_topic(to, topic));
    })
}

/// One more topic.
pub fn subscribe(topic: &Topic) -> Bytes {
    control(kind::SUBSCRIBE, |to| put_topic(to, topic))
}

/// One topic less.
pub fn unsubscribe(topic: &Topic) -> Bytes {
    control(kind::UNSUBSCRIBE, |to| put_topic(to, topic))
}

/// An announcement; at most [`MAX_IDS`] ids are put in.
pub fn i_have(topic: &Topic, ids: &[MessageId]) -> Bytes {
    control(kind::I_HAVE, |to| {
        put_topic(to, topic);
        ids.iter().take(MAX_IDS).for_each(|id| to.put_slice(&id.0));
    })
}

/// A request; at most [`MAX_IDS`] ids are put in.
pub fn i_want(ids: &[MessageId]) -> Bytes {
    control(kind::I_WANT, |to| ids.iter().take(MAX_IDS).for_each(|id| to.put_slice(&id.0)))
}

/// Asks to be in the receiver's mesh of a topic, and says that it is in the sender's.
pub fn graft(topic: &Topic) -> Bytes {
    control(kind::GRAFT, |to| put_topic(to, topic))
}

/// The opposite, for at least `rest` seconds.
pub fn prune(topic: &Topic, rest: u16) -> Bytes {
    control(kind::PRUNE, |to| {
        put_topic(to, topic);
        to.put_u16(rest);
    })
}

/// What need not be sent; at most [`MAX_IDS`] ids are put in.
pub fn i_dont_want(ids: &[MessageId]) -> Bytes {
    control(kind::I_DONT_WANT, |to| ids.iter().take(MAX_IDS).for_each(|id| to.put_slice(&id.0)))
}

/// Which of the receiver's messages were the first of their kind; at most [`MAX_IDS`] heads are put in.
pub fn firsts(heads: &[u64]) -> Bytes {
    control(kind::FIRSTS, |to| heads.iter().take(MAX_IDS).for_each(|head| to.put_u64(*head)))
}

#[cfg(test)]
mod tests;
