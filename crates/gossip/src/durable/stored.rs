//! Messages as the log has them, and as readers get them.

use peerage_nodedb::{Head, LogEntry, Selected};

use super::{DurableMessage, Stored, parcel_of};
use crate::machine::Found;
use crate::message::MessageId;

pub(super) fn log_entry(entry: Stored) -> LogEntry {
    let Stored { position, id, publisher, sequence, at, item } = entry;
    // No message is as long as four gigabytes.
    let len = u32::try_from(item.len()).unwrap_or(u32::MAX);
    LogEntry { head: Head { position, publisher, sequence, id: id.0, at, len }, body: item }
}

pub(super) fn stored(entry: LogEntry) -> Stored {
    let Head { position, publisher, sequence, id, at, .. } = entry.head;
    Stored { position, id: MessageId(id), publisher, sequence, at, item: entry.body }
}

/// What peers get of it.
pub(super) fn found(selected: Selected) -> Found {
    let Selected { entries, after, more } = selected;
    Found { items: entries.into_iter().map(|entry| entry.body).collect(), after, more }
}

/// Passes over what is on disk and is no message of this version.
pub(super) fn message(entry: Stored, max_payload: usize) -> Option<DurableMessage> {
    let Stored { position, id, publisher, sequence, item, .. } = entry;
    let payload = parcel_of(&item, max_payload)?.payload;
    Some(DurableMessage { position, publisher, sequence, id, payload })
}
