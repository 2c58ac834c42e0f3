//! The messages of the last two minutes: what is announced, and what requests are answered from.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;

use super::ways::Way;
use crate::message::{MessageId, Topic};

/// The first message's tag. Smaller tags are those of control pushes.
const FIRST_TAG: u64 = 16;

/// A set of peers, by their slot: one bit each, as there is a set or two for every kept message.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    /// The slots up to 63, which are all of most nodes.
    first: u64,
    more: Option<Box<More>>,
}

/// The slots from 64 on.
#[derive(Clone, Debug, Default)]
struct More(Vec<u64>);

impl Slots {
    fn is_empty(&self) -> bool {
        self.first == 0 && self.more.iter().all(|more| more.0.iter().all(|word| *word == 0))
    }

    fn word(&self, slot: usize) -> u64 {
        match (slot / 64).checked_sub(1) {
            None => self.first,
            Some(at) => self.more.as_ref().and_then(|more| more.0.get(at)).copied().unwrap_or(0),
        }
    }

    pub(super) fn contains(&self, slot: usize) -> bool {
        self.word(slot) & (1 << (slot % 64)) != 0
    }

    pub(super) fn insert(&mut self, slot: usize) {
        match (slot / 64).checked_sub(1) {
            None => self.first |= 1 << slot,
            Some(at) => {
                let More(more) = &mut **self.more.get_or_insert_default();
                if more.len() <= at {
                    more.resize(at + 1, 0);
                }
                if let Some(word) = more.get_mut(at) {
                    *word |= 1 << (slot % 64);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, slot: usize) {
        match (slot / 64).checked_sub(1) {
            None => self.first &= !(1 << slot),
            Some(at) => {
                if let Some(word) = self.more.as_mut().and_then(|more| more.0.get_mut(at)) {
                    *word &= !(1 << (slot % 64));
                }
            }
        }
    }
}

/// A kept message.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) topic: Topic,
    /// The whole item, ready to be sent.
    pub(super) bytes: Bytes,
    pub(super) kept_at: Time,
    /// Peers that sent or announced it.
    pub(super) has: Slots,
    /// Peers that were sent it, or told of it.
    pub(super) told: Slots,
    /// Where it came from.
    pub(super) way: Way,
    /// This node published it, and nobody was there to be sent it.
    untold: bool,
}

/// Kept messages in the order of arrival, which is also the order of their tags.
#[derive(Debug)]
pub(super) struct Cache {
    /// With tags that follow each other; the last one's is before `next_tag`. Boxed, as a queue that has grown has up to
    /// twice the room it needs.
    entries: VecDeque<Box<Entry>>,
    by_id: HashMap<MessageId, u64>,
    /// How often the peer of a slot got a message on request: few messages are ever asked for.
    served: BTreeMap<(u64, usize), u8>,
    bytes: usize,
    next_tag: u64,
    max_bytes: usize,
    max_ids: usize,
    retained: Duration,
}

impl Cache {
    pub(super) fn new(max_bytes: usize, max_ids: usize, retained: Duration) -> Cache {
        Cache {
            entries: VecDeque::new(),
            by_id: HashMap::new(),
            served: BTreeMap::new(),
            bytes: 0,
            next_tag: FIRST_TAG,
            max_bytes,
            max_ids,
            retained,
        }
    }

    /// Keeps a message and makes room for it; the tag its pushes carry. It must not be kept already.
    #[allow(clippy::too_many_arguments, reason = "what is known of one message")]
    pub(super) fn keep(
        &mut self,
        now: Time,
        id: MessageId,
        topic: Topic,
        bytes: Bytes,
        has: Slots,
        told: Slots,
        way: Way,
    ) -> u64 {
        while !self.entries.is_empty()
            && (self.entries.len() >= self.max_ids || self.bytes + bytes.len() > self.max_bytes)
        {
            self.drop_oldest();
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        self.bytes += bytes.len();
        self.by_id.insert(id, tag);
        let untold = way.is_none() && told.is_empty();
        let entry = Entry { id, topic, bytes, kept_at: now, has, told, way, untold };
        self.entries.push_back(Box::new(entry));
        tag
    }

    /// The tag of a message that is kept.
    pub(super) fn tag_of(&self, id: &MessageId) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    pub(super) fn tagged(&mut self, tag: u64) -> Option<&mut Entry> {
        let at = tag.checked_sub(self.first_tag())?;
        self.entries.get_mut(usize::try_from(at).ok()?).map(Box::as_mut)
    }

    fn first_tag(&self) -> u64 {
        self.next_tag - self.entries.len() as u64
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.bytes.len();
            self.by_id.remove(&entry.id);
            let kept = self.first_tag();
            while let Some(served) = self.served.first_entry().filter(|served| served.key().0 < kept) {
                served.remove();
            }
        }
    }

    /// Lets go of what is too old at `now`.
    pub(super) fn expire(&mut self, now: Time) {
        while self.entries.front().is_some_and(|entry| now.since(entry.kept_at) > self.retained) {
            self.drop_oldest();
        }
    }

    pub(super) fn get_mut(&mut self, id: &MessageId) -> Option<&mut Entry> {
        self.tagged(self.tag_of(id)?)
    }

    /// What a peer asked for, with its tag, at most `limit` times.
    pub(super) fn serve(&mut self, id: &MessageId, slot: usize, limit: u8) -> Served {
        let Some(tag) = self.tag_of(id) else { return Served::Gone };
        if self.served(tag, slot) >= limit {
            return Served::TooOften;
        }
        let Some(entry) = self.tagged(tag) else { return Served::Gone };
        entry.told.insert(slot);
        let bytes = entry.bytes.clone();
        *self.served.entry((tag, slot)).or_default() += 1;
        Served::Push(tag, bytes)
    }

    /// How often the peer of a slot got a message on request.
    pub(super) fn served(&self, tag: u64, slot: usize) -> u8 {
        self.served.get(&(tag, slot)).copied().unwrap_or(0)
    }

    /// What this node published on a topic and could send nobody: for the peer of a slot, who gets it now.
    pub(super) fn untold(&mut self, topic: &Topic, slot: usize) -> impl Iterator<Item = (u64, Bytes)> {
        let entries = (self.first_tag()..).zip(&mut self.entries);
        entries.filter(move |(_, entry)| entry.untold && entry.topic == *topic).map(move |(tag, entry)| {
            entry.untold = false;
            entry.told.insert(slot);
            (tag, entry.bytes.clone())
        })
    }

    /// A push with this tag did not reach the peer of a slot: it is told of the message again. How often it was
    /// served stands: a peer that asks and does not read would have no limit otherwise.
    pub(super) fn unsent(&mut self, tag: u64, slot: usize) {
        if let Some(entry) = self.tagged(tag) {
            entry.told.remove(slot);
        }
    }

    /// A push with this tag was not even queued, for want of something of this node's own: it does not count as served.
    pub(super) fn unserved(&mut self, tag: u64, slot: usize) {
        if let Some(count) = self.served.get_mut(&(tag, slot)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Newest first.
    pub(super) fn newest_first(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().rev().map(Box::as_mut)
    }

    /// Oldest first, with their tags.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (self.first_tag()..).zip(self.entries.iter().map(Box::as_ref))
    }

    /// Forgets what the peer of a slot was told, so that it is told again.
    pub(super) fn forget_told(&mut self, slot: usize) {
        self.entries.iter_mut().for_each(|entry| entry.told.remove(slot));
    }

    /// Forgets all of a slot: its peer is gone, and another one may get it.
    pub(super) fn forget_slot(&mut self, slot: usize) {
        for entry in &mut self.entries {
            entry.has.remove(slot);
            entry.told.remove(slot);
            if entry.way == Some(slot) {
                entry.way = None;
            }
        }
        self.served.retain(|(_, of), _| *of != slot);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Answer to a request.
#[derive(Debug)]
pub(super) enum Served {
    /// Send this, with this tag.
    Push(u64, Bytes),
    /// The peer had it often enough.
    TooOften,
    /// Not kept, or no longer.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> MessageId {
        MessageId([n; 32])
    }

    fn keep(cache: &mut Cache, second: u64, n: u8, len: usize) -> u64 {
        let topic = Topic::new("t").expect("short");
        let now = Time::ZERO + Duration::from_secs(second);
        cache.keep(now, id(n), topic, Bytes::from(vec![n; len]), Slots::default(), Slots::default(), Some(0))
    }

    #[test]
    fn it_is_bounded_in_bytes_ids_and_age() {
        let mut cache = Cache::new(100, 3, Duration::from_secs(10));
        keep(&mut cache, 0, 1, 60);
        keep(&mut cache, 1, 2, 60);
        assert_eq!((cache.len(), cache.bytes()), (1, 60), "bytes");
        for n in 3..7 {
            keep(&mut cache, 2, n, 1);
        }
        assert_eq!((cache.len(), cache.bytes()), (3, 3), "ids");
        assert!(cache.get_mut(&id(3)).is_none() && cache.get_mut(&id(4)).is_some());
        cache.expire(Time::ZERO + Duration::from_secs(13));
        assert_eq!((cache.len(), cache.bytes(), cache.by_id.len()), (0, 0, 0), "age");
        keep(&mut cache, 20, 9, 500);
        assert_eq!(cache.len(), 1, "one message is always kept");
    }

    #[test]
    fn a_peer_is_served_so_often_and_another_in_its_slot_anew() {
        let mut cache = Cache::new(100, 3, Duration::from_secs(10));
        let tag = keep(&mut cache, 0, 1, 1);
        assert!(matches!(cache.serve(&id(1), 70, 2), Served::Push(t, _) if t == tag));
        assert!(cache.get_mut(&id(1)).is_some_and(|entry| entry.told.contains(70) && !entry.told.contains(6)));
        assert!(matches!(cache.serve(&id(1), 70, 2), Served::Push(..)));
        assert!(matches!(cache.serve(&id(1), 70, 2), Served::TooOften));
        assert!(matches!(cache.serve(&id(2), 70, 2), Served::Gone));
        cache.forget_slot(70);
        assert!(cache.get_mut(&id(1)).is_some_and(|entry| !entry.told.contains(70)));
        assert!(matches!(cache.serve(&id(1), 70, 2), Served::Push(..)));
    }
}
