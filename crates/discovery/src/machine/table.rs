//! The Kademlia table: who is remembered, under which limits.
//!
//! geth p2p/discover/table.go, with sites of /48 for IPv6. The order inside a bucket means nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use litemap::LiteMap;
use peerage_machine::{Rng, Time};
use peerage_wire::address::{Site, site};
use peerage_wire::{NodeId, NodeRecord, Verified};

use crate::config::Config;
use crate::key::{BUCKETS, Key};
use crate::machine::origin::Origin;
use room::Held;

/// Nodes in a bucket (Kademlia's k).
pub(crate) const BUCKET_SIZE: usize = 16;
/// Nodes that wait for a place in a full bucket.
pub(crate) const MAX_REPLACEMENTS: usize = 10;
/// Misses in a row that remove a node even if hardly anybody else is left.
const MAX_MISSES: u32 = 5;
/// Empty answers to `FindNode` in a row that remove a node (geth `maxFindnodeFailures`).
const MAX_FIND_FAILURES: u32 = 5;
/// A node that passed more checks than this is worth remembering beyond this process (geth `livenessChecks > 5`).
const SETTLED: u32 = 5;
/// With fewer others than this, nobody is removed for a single failure (go-ethereum issue 21396).
const SPARE: usize = 4;
/// A node is told to be alive no more often than this, unless it has a newer record.
const TELL_ALIVE: Duration = Duration::from_secs(60 * 60);

/// A node and where to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    pub(crate) id: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) record: Verified<NodeRecord>,
    /// Of the id: where it is.
    pub(crate) key: Key,
}

impl Contact {
    /// The owner of a record, at an address.
    pub(crate) fn new(addr: SocketAddr, record: Verified<NodeRecord>) -> Contact {
        let id = record.id();
        Contact { id, addr, record, key: Key::of(id) }
    }
}

/// Which revalidation list a node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// New, moved or failing nodes: checked often.
    Fast,
    /// Nodes that answered lately.
    Slow,
}

/// A node in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) contact: Contact,
    pub(crate) origin: Origin,
    /// Whether it answered us at this address; only such nodes are told to others.
    pub(crate) live: bool,
    /// Whether a first sign of life was asked for.
    pub(crate) asked: bool,
    /// Successful checks, decayed by failures.
    pub(crate) checks: u32,
    pub(crate) list: List,
    /// When it may be handed to the dialer again; `None` if it never was.
    pub(crate) handed_until: Option<Time>,
    pub(crate) dial_failures: u32,
    /// The running time at which it was last told to be alive, and with which record.
    told_alive: Option<(Duration, u64)>,
    misses: u32,
    find_failures: u32,
}

/// What became of a node offered to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It has a place now.
    Added,
    /// It was there, and its record or address changed.
    Updated,
    /// It was there already, or its news was not newer.
    Known,
    /// Its bucket is full; it waits for a place.
    Replacement,
    /// Its bucket was full, and a node of a site that has more places left it for this one.
    Inherited,
    /// Ourselves, or one node of its site too many.
    Refused,
}

/// A node that waits for a place.
struct Waiting {
    contact: Contact,
    origin: Origin,
    /// Whether a sign of life was asked for.
    asked: bool,
}

#[derive(Default)]
struct Bucket {
    entries: Vec<Entry>,
    /// Newest first.
    replacements: VecDeque<Waiting>,
}

impl Bucket {
    fn of_site(&self, wanted: Site) -> usize {
        let entries = self.entries.iter().map(|entry| &entry.contact);
        let waiting = self.replacements.iter().map(|waiting| &waiting.contact);
        entries.chain(waiting).filter(|contact| site(contact.addr.ip()) == wanted).count()
    }
}

pub(crate) struct Table {
    me: NodeId,
    key: Key,
    exempt_local: bool,
    site_per_bucket: usize,
    site_per_table: usize,
    fair_shares: bool,
    buckets: [Bucket; BUCKETS],
    /// How many nodes of a site have a place or wait for one.
    sites: LiteMap<Site, Held>,
    /// How many sites are crowded.
    crowded: usize,
    #[cfg(any(test, feature = "planted-bugs"))]
    bug: bool,
}

impl Table {
    pub(crate) fn new(me: NodeId, config: &Config) -> Table {
        Table {
            me,
            key: Key::of(me),
            exempt_local: config.exempt_local,
            site_per_bucket: config.site_per_bucket,
            site_per_table: config.site_per_table,
            fair_shares: config.fair_shares,
            buckets: Default::default(),
            sites: LiteMap::new(),
            crowded: 0,
            #[cfg(any(test, feature = "planted-bugs"))]
            bug: false,
        }
    }

    /// From now on as many of a site as come have a place.
    #[cfg(any(test, feature = "planted-bugs"))]
    pub(crate) fn plant_bug(&mut self) {
        self.bug = true;
    }

    fn index(&self, id: NodeId) -> usize {
        self.index_of(&Key::of(id))
    }

    fn index_of(&self, key: &Key) -> usize {
        self.key.distance(key).bucket()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.entries)
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Entry> {
        self.get_at(&Key::of(id), id)
    }

    /// The same for who has the key of its id already.
    pub(crate) fn get_at(&self, key: &Key, id: NodeId) -> Option<&Entry> {
        self.get_in(self.index_of(key), id)
    }

    fn get_in(&self, index: usize, id: NodeId) -> Option<&Entry> {
        self.buckets[index].entries.iter().find(|entry| entry.contact.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Entry> {
        let index = self.index(id);
        self.buckets[index].entries.iter_mut().find(|entry| entry.contact.id == id)
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.entries.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.entries.is_empty())
    }

    pub(crate) fn sizes(&self) -> [usize; BUCKETS] {
        self.buckets.each_ref().map(|bucket| bucket.entries.len())
    }

    /// Offers a node that somebody else told of. It changes a known one only by a newer record, which only its
    /// owner can sign: hearsay cannot move anybody.
    pub(crate) fn heard_of(&mut self, contact: Contact, origin: Origin) -> Placed {
        match self.get_in(self.index_of(&contact.key), contact.id) {
            Some(known) if contact.record.seq() <= known.contact.record.seq() => Placed::Known,
            Some(_) => self.update(contact),
            None => self.insert(contact, origin, false),
        }
    }

    /// Offers a node that answered us from this address with its own record. Whatever it says of itself holds,
    /// even an older record: it may have lost its state.
    pub(crate) fn proved(&mut self, contact: Contact, origin: Origin) -> Placed {
        let (id, addr) = (contact.id, contact.addr);
        let placed = match self.get_in(self.index_of(&contact.key), id) {
            Some(known) if known.contact.record == contact.record && known.contact.addr == contact.addr => {
                Placed::Known
            }
            Some(_) => self.update(contact),
            None => self.insert(contact, origin, true),
        };
        match placed {
            Placed::Refused => Placed::Refused,
            Placed::Replacement => self.alive(id, addr),
            _ => {
                self.alive(id, addr);
                placed
            }
        }
    }

    /// A node at an address. One that has moved while it was asked at the old one is not meant by the outcome.
    fn at(&mut self, id: NodeId, addr: SocketAddr) -> Option<&mut Entry> {
        self.get_mut(id).filter(|entry| entry.contact.addr == addr)
    }

    /// Notes an answer from a node's address. One that waits for a place may have found one by it.
    pub(crate) fn alive(&mut self, id: NodeId, addr: SocketAddr) -> Placed {
        let Some(entry) = self.at(id, addr) else { return self.inherit(id, addr) };
        let was = std::mem::replace(&mut entry.live, true);
        entry.misses = 0;
        entry.checks = entry.checks.max(1);
        self.count_live(addr.ip(), was, true);
        Placed::Known
    }

    fn update(&mut self, contact: Contact) -> Placed {
        let index = self.index_of(&contact.key);
        let Some(at) = self.buckets[index].entries.iter().position(|entry| entry.contact.id == contact.id) else {
            return Placed::Refused;
        };
        let was = self.buckets[index].entries[at].live;
        let (old, new) = (self.buckets[index].entries[at].contact.addr, contact.addr);
        let leaves = site(old.ip()) != site(new.ip());
        // The place it leaves does not count against the one it takes, which is in another site.
        if leaves && !self.has_room(index, new.ip()) {
            return Placed::Refused;
        }
        if old != new {
            self.count_live(old.ip(), was, false);
        }
        if leaves {
            self.count_out(old.ip());
            self.count_in(new.ip());
        }
        let entry = &mut self.buckets[index].entries[at];
        entry.contact = contact;
        if old != new {
            entry.live = false;
            entry.list = List::Fast;
        }
        Placed::Updated
    }

    fn insert(&mut self, contact: Contact, origin: Origin, live: bool) -> Placed {
        let index = self.index_of(&contact.key);
        let ip = contact.addr.ip();
        if let Some(waiting) = self.buckets[index].waiting(contact.id) {
            let known = &mut waiting.contact;
            if known.addr == contact.addr && known.record.seq() < contact.record.seq() {
                known.record = contact.record;
            }
            return Placed::Replacement;
        }
        if contact.id == self.me || ip.is_unspecified() || !self.has_room(index, ip) {
            return Placed::Refused;
        }
        self.count_in(ip);
        if self.buckets[index].entries.len() < BUCKET_SIZE {
            self.buckets[index].entries.push(Entry::new(contact, origin, live));
            self.count_live(ip, false, live);
            return Placed::Added;
        }
        self.wait(index, Waiting { contact, origin, asked: false });
        Placed::Replacement
    }

    /// The records of those that answered, by bucket; empty buckets are left out.
    pub(crate) fn live_by_bucket(&self) -> impl Iterator<Item = Vec<Verified<NodeRecord>>> {
        let live = |bucket: &Bucket| {
            let live = bucket.entries.iter().filter(|entry| entry.live);
            live.map(|entry| entry.contact.record.clone()).collect::<Vec<_>>()
        };
        self.buckets.iter().map(live).filter(|bucket| !bucket.is_empty())
    }

    /// Nodes that never answered and were not asked yet.
    pub(crate) fn unproven(&self) -> Vec<(Origin, (NodeId, SocketAddr))> {
        let unasked = self.entries().filter(|entry| !entry.live && !entry.asked);
        unasked.map(|entry| (entry.origin, (entry.contact.id, entry.contact.addr))).collect()
    }

    /// Takes a node out and gives its place to one that waits. Tells where the node was reached if it had answered
    /// there.
    pub(crate) fn remove(&mut self, id: NodeId, rng: &mut Rng) -> Option<Contact> {
        let index = self.index(id);
        let at = self.buckets[index].entries.iter().position(|entry| entry.contact.id == id)?;
        let removed = self.buckets[index].entries.swap_remove(at);
        // The heir was counted when it began to wait.
        let heir = self.heir(index, rng);
        self.buckets[index].entries.extend(heir.map(|heir| Entry::new(heir.contact, heir.origin, false)));
        self.count_live(removed.contact.addr.ip(), removed.live, false);
        self.count_out(removed.contact.addr.ip());
        removed.live.then_some(removed.contact)
    }

    /// Lets go of everybody who is not admitted any more; how many had a place.
    pub(crate) fn retain(&mut self, rng: &mut Rng, admits: impl Fn(&Contact) -> bool) -> usize {
        // Those that wait first, as they inherit.
        for index in 0..BUCKETS {
            let waiting = std::mem::take(&mut self.buckets[index].replacements);
            let (kept, gone): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(|one| admits(&one.contact));
            self.buckets[index].replacements = kept;
            gone.into_iter().for_each(|waiting| self.count_out(waiting.contact.addr.ip()));
        }
        let refused: Vec<NodeId> =
            self.entries().map(|entry| &entry.contact).filter(|c| !admits(c)).map(|contact| contact.id).collect();
        refused.iter().for_each(|id| drop(self.remove(*id, rng)));
        refused.len()
    }

    /// Notes a successful check at an address. The record, if the node has answered so often that it is worth
    /// remembering, and this was not told lately.
    pub(crate) fn check_passed(&mut self, now: Time, id: NodeId, addr: SocketAddr) -> Option<Verified<NodeRecord>> {
        let entry = self.at(id, addr)?;
        entry.checks = entry.checks.saturating_add(1);
        let was = std::mem::replace(&mut entry.live, true);
        entry.misses = 0;
        entry.list = List::Slow;
        let seq = entry.contact.record.seq();
        let told =
            entry.told_alive.is_some_and(|(at, told)| now.running().saturating_sub(at) < TELL_ALIVE && seq <= told);
        let tell = (entry.checks > SETTLED && !told).then(|| {
            entry.told_alive = Some((now.running(), seq));
            entry.contact.record.clone()
        });
        self.count_live(addr.ip(), was, true);
        tell
    }

    /// Notes a check without an answer; true if the node must go. A node that answered often survives some
    /// misses, and a node among few survives several: a small network must not forget itself for one lost packet.
    #[must_use]
    pub(crate) fn check_missed(&mut self, id: NodeId, addr: SocketAddr) -> bool {
        let others = self.entries().filter(|entry| entry.live && entry.contact.id != id).count();
        let Some(entry) = self.at(id, addr) else {
            self.forget_waiting(id, addr);
            return false;
        };
        entry.checks /= 3;
        entry.misses += 1;
        entry.list = List::Fast;
        entry.checks == 0 && (others >= SPARE || entry.misses >= MAX_MISSES)
    }

    /// Notes what a `FindNode` brought; true if the node must go.
    #[must_use]
    pub(crate) fn find_result(&mut self, id: NodeId, some: bool) -> bool {
        let index = self.index(id);
        let entries = &mut self.buckets[index].entries;
        let crowd = entries.len();
        let Some(entry) = entries.iter_mut().find(|entry| entry.contact.id == id) else { return false };
        entry.find_failures = if some { 0 } else { entry.find_failures + 1 };
        entry.find_failures >= MAX_FIND_FAILURES && crowd >= SPARE
    }

    /// The `count` nodes nearest to `target`, nearest first. With `prefer_live`, only nodes that answered us, or
    /// all if none did (go-ethereum issue 21396: a young network would otherwise tell nobody of anybody).
    pub(crate) fn closest(&self, target: &Key, count: usize, prefer_live: bool) -> Vec<&Entry> {
        let live_only = prefer_live && self.entries().any(|entry| entry.live);
        let mut nodes = Vec::with_capacity(count + BUCKET_SIZE);
        for bucket in self.key.distance(target).buckets() {
            if nodes.len() >= count {
                break;
            }
            let told = self.buckets[bucket].entries.iter().filter(|entry| entry.live || !live_only);
            nodes.extend(told.map(|entry| (entry.contact.key.distance(target), entry)));
        }
        nodes.sort_unstable_by_key(|(distance, _)| *distance);
        nodes.into_iter().take(count).map(|(_, entry)| entry).collect()
    }
}

impl Entry {
    fn new(contact: Contact, origin: Origin, live: bool) -> Entry {
        Entry {
            contact,
            origin,
            live,
            asked: live,
            checks: 0,
            list: List::Fast,
            handed_until: None,
            dial_failures: 0,
            told_alive: None,
            misses: 0,
            find_failures: 0,
        }
    }
}

#[path = "table_room.rs"]
mod room;
#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
