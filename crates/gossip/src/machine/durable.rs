//! Durable topics as gossip sees them: what is on disk is seen, and this node's own messages are counted.

use bytes::Bytes;
use peerage_machine::Time;

use super::cache::Slots;
use super::ways::FIRST_HOP;
use super::{GossipMachine, Parcel};
use crate::durable::FIRST_OF_LIFE;
use crate::message::{MessageId, Topic};
use crate::wire::{self, Item};

/// How far this node has counted its own messages of a durable topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// The first one of this life.
    first: Option<u64>,
    /// The last one.
    last: u64,
}

impl GossipMachine {
    /// Takes a topic for a durable one, and what is on disk of it for seen: it is not asked for, and filters show it. What
    /// others may lack is kept again to be sent to them.
    pub(super) fn make_durable(&mut self, now: Time, topic: Topic, ids: Vec<MessageId>, items: Vec<Bytes>) {
        for id in ids {
            self.seen.insert(now, id);
        }
        for item in items {
            let Some(Ok(Item::Message(parcel))) = wire::items(item, self.config.max_payload).next() else { continue };
            let id = parcel.id();
            if parcel.topic == topic && self.seen.contains(&id) && self.cache.tag_of(&id).is_none() {
                let (has, told) = (Slots::default(), Slots::default());
                self.cache.keep(now, id, topic.clone(), parcel.bytes, has, told, FIRST_HOP);
            }
        }
        self.durable.entry(topic).or_default();
    }

    /// The sequence of this node's next message. On a durable topic it is the one after the last, so that a reader knows
    /// what is missing; a life begins with the clock, as what the last one sent may not be on disk. A clock that was set
    /// back does not make sequences fall. One in a million of a life's messages has the number of a first one too, which only
    /// matters if the one before it was lost.
    pub(super) fn next_of_durable(&mut self, topic: &Topic, clock: u64) -> u64 {
        let fresh = clock.max(self.last_sequence.saturating_add(1));
        let Some(counted) = self.durable.get_mut(topic) else { return fresh };
        let next = match counted.first {
            // At most a millisecond ahead of the clock.
            None => fresh.checked_next_multiple_of(FIRST_OF_LIFE).unwrap_or(fresh),
            Some(_) => counted.last.saturating_add(1),
        };
        counted.first.get_or_insert(next);
        counted.last = next;
        next
    }

    /// Whether this is the first message that this life of this node has published on its durable topic.
    pub(super) fn begins_own(&self, parcel: &Parcel) -> bool {
        let own = parcel.origin.as_ref().filter(|origin| origin.publisher == self.node);
        let counted = self.durable.get(&parcel.topic);
        own.is_some_and(|origin| counted.is_some_and(|counted| counted.first == Some(origin.sequence)))
    }
}
