//! One walk towards a point: ask the nearest known nodes for nearer ones until none is left to ask.

use std::collections::BTreeMap;

use peerage_wire::{NodeId, NodeRecord, Verified};

use crate::key::{Distance, Key};
use crate::machine::table::{BUCKET_SIZE, Contact};

/// Queries of one lookup in flight (Kademlia's α).
pub(crate) const ALPHA: usize = 3;
/// The most queries of one lookup. An honest network of millions needs about 40; a liar who always knows
/// somebody nearer is left here.
const MAX_QUERIES: usize = 96;
/// The most nodes a lookup remembers; the farthest are forgotten.
const MAX_SEEN: usize = 128;

/// Who asked for a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The refresh.
    Refresh,
    /// A caller, who gets the nearest nodes.
    Caller(u64),
    /// A caller, who gets this node's record.
    Resolve(u64, NodeId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unasked,
    Asked,
    Answered,
    Failed,
}

pub(crate) struct Lookup {
    pub(crate) asker: Asker,
    me: NodeId,
    target: Key,
    seen: BTreeMap<Distance, (Contact, State)>,
    in_flight: usize,
    /// Batches of records whose signatures are being checked.
    pub(crate) checks: usize,
    queries: usize,
}

impl Lookup {
    pub(crate) fn new(me: NodeId, target: Key, asker: Asker) -> Lookup {
        Lookup { asker, me, target, seen: BTreeMap::new(), in_flight: 0, checks: 0, queries: 0 }
    }

    pub(crate) fn target(&self) -> Key {
        self.target
    }

    /// Adds a node that is not known yet.
    pub(crate) fn see(&mut self, contact: Contact) {
        if contact.id == self.me {
            return;
        }
        self.seen.entry(contact.key.distance(&self.target)).or_insert((contact, State::Unasked));
        if self.seen.len() > MAX_SEEN {
            self.seen.pop_last();
        }
    }

    fn best(&mut self) -> impl Iterator<Item = &mut (Contact, State)> {
        // A node that did not answer holds no place among the best, or dead neighbours would end the walk.
        self.seen.values_mut().filter(|(_, state)| *state != State::Failed).take(BUCKET_SIZE)
    }

    /// The next node to ask, if one is due now.
    pub(crate) fn next(&mut self) -> Option<Contact> {
        if self.in_flight >= ALPHA || self.queries >= MAX_QUERIES {
            return None;
        }
        let (contact, state) = self.best().find(|(_, state)| *state == State::Unasked)?;
        *state = State::Asked;
        let contact = contact.clone();
        self.in_flight += 1;
        self.queries += 1;
        Some(contact)
    }

    /// Notes the end of a query.
    pub(crate) fn done(&mut self, id: NodeId, answered: bool) {
        if let Some((_, state)) = self.seen.get_mut(&Key::of(id).distance(&self.target)) {
            *state = if answered { State::Answered } else { State::Failed };
        }
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether nobody is left to ask or to wait for; to be asked after [`next`](Lookup::next) gave `None`.
    pub(crate) fn finished(&self) -> bool {
        self.in_flight == 0 && self.checks == 0
    }

    /// The nearest nodes found, nearest first.
    pub(crate) fn result(mut self) -> Vec<Verified<NodeRecord>> {
        self.best().map(|(contact, _)| contact.record.clone()).collect()
    }

    /// The newest record found of one node, even if it did not answer.
    pub(crate) fn record_of(&self, id: NodeId) -> Option<Verified<NodeRecord>> {
        self.seen.values().find(|(contact, _)| contact.id == id).map(|(contact, _)| contact.record.clone())
    }
}
