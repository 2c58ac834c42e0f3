//! What a durable topic is told and what it asks for.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_wire::{NodeId, codec};
use serde::{Deserialize, Serialize};

use super::{Batch, Stored};
use crate::message::MessageId;

/// What may happen to a durable topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DurableIn {
    /// Gossip has accepted a message of the topic.
    Accepted {
        /// Its id.
        id: MessageId,
        /// Who published it.
        publisher: NodeId,
        /// The publisher's number for it.
        sequence: u64,
        /// Whether it is known that nothing of its publisher is missing before it: this node's own first message.
        first: bool,
        /// The whole item.
        #[serde(deserialize_with = "codec::copied")]
        item: Bytes,
    },
    /// The answer to [`DurableOut::Persist`]; and first of all, with what was found.
    Persisted {
        /// The position of the oldest message that is kept, or of the next one; none if nothing was written.
        oldest: Option<u64>,
    },
    /// Peers' logs are being looked through for what is missing, or not any more.
    CatchUp {
        /// Whether they are.
        running: bool,
        /// What was missing at that time was looked for.
        until: Option<Time>,
    },
    /// A reader wants what comes after a position. Answered with [`DurableOut::Batch`] as soon as there is something.
    Fetch {
        /// The shell's name for the question.
        token: u64,
        /// The position.
        after: u64,
    },
    /// The answer to [`DurableOut::Read`]; none if the disk failed.
    Read {
        /// The question's.
        token: u64,
        /// What was found.
        entries: Option<Vec<Stored>>,
    },
    /// A reader has gone.
    Abandon {
        /// Its question's.
        token: u64,
    },
    /// A reader is done with everything up to a position.
    Ack {
        /// The shell's name for the question.
        token: u64,
        /// The cursor.
        cursor: String,
        /// The position.
        position: u64,
    },
    /// The answer to [`DurableOut::SaveCursor`].
    CursorSaved {
        /// The question's.
        token: u64,
        /// The cursor.
        cursor: String,
        /// Where it is now; none if the disk failed.
        position: Option<u64>,
    },
}

/// What it asks of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurableOut {
    /// Write these, all or none, and let go of what is too old or too much. There is one such question at a time.
    Persist(Vec<Stored>),
    /// Read what comes after a position, up to so many messages and bytes.
    Read {
        /// The machine's name for the question.
        token: u64,
        /// The position.
        after: u64,
        /// Most messages.
        entries: usize,
        /// Most bytes.
        bytes: usize,
    },
    /// The answer to [`DurableIn::Fetch`].
    Batch {
        /// The question's.
        token: u64,
        /// The messages.
        batch: Batch<Stored>,
    },
    /// The other answer: there are too many readers, or the disk failed. It may ask again.
    Unread {
        /// The question's.
        token: u64,
    },
    /// Write where a cursor is.
    SaveCursor {
        /// The machine's name for the question.
        token: u64,
        /// The cursor.
        cursor: String,
        /// The position.
        position: u64,
    },
    /// The answer to [`DurableIn::Ack`].
    Acked {
        /// The question's.
        token: u64,
        /// Whether the cursor is there on disk, or farther; or the last position that there is.
        result: Result<(), Option<u64>>,
    },
    /// Something is missing: pull repair may find it, or it is in peers' logs.
    Hurry,
    /// There was no room for this. It is in peers' logs, and may come again.
    Forget(MessageId),
    /// Count this.
    Count(DurableCount),
}

/// Something to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableCount {
    /// Messages are on disk.
    Persisted(u64),
    /// What was kept is no longer.
    Retired(u64),
    /// A message waits for those before it.
    Held,
    /// So often something that was missing was given up.
    GivenUp(u64),
    /// A message was dropped that came after a later one of its publisher had gone on, or twice.
    Late,
    /// A message was dropped as there are too many publishers.
    Publishers,
    /// A message was dropped as too much waits for the disk, or for peers' logs. It is fetched later.
    Overflow,
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DurableTimer {
    /// Something is held back for too long.
    Hold,
    /// Write again what was not written.
    Retry,
    /// Something may be too old.
    Trim,
}

/// What an earlier life left on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The position of the oldest message that is kept; the next one's if there is none.
    pub oldest: u64,
    /// The next position.
    pub next: u64,
    /// The last sequence of each publisher that is remembered.
    pub publishers: Vec<(NodeId, u64)>,
    /// How far each cursor is.
    pub cursors: BTreeMap<String, u64>,
}
