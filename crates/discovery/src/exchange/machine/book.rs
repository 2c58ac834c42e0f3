//! Who was told of, and by whom: bounded as a whole, by teller and by site.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::address::{is_local, site};
use peerage_wire::{NodeId, NodeRecord, Verified};

use super::super::config::Config;
use super::super::count::{DropReason, Event};
use super::{Fx, Out};

/// A node that somebody told of.
pub(super) struct Entry {
    pub(super) record: Verified<NodeRecord>,
    /// Where it may be dialled, as far as its teller may tell.
    pub(super) sockets: Vec<SocketAddr>,
    pub(super) teller: NodeId,
    learnt: Time,
    /// When it may be handed out again; never was if `None`.
    pub(super) handed_until: Option<Time>,
    pub(super) failures: u32,
}

pub(super) struct Book {
    config: Config,
    entries: BTreeMap<NodeId, Entry>,
}

impl Book {
    pub(super) fn new(config: &Config) -> Book {
        Book { config: config.clone(), entries: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.entries.keys().copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    pub(super) fn remove(&mut self, id: &NodeId) -> Option<Entry> {
        self.entries.remove(id)
    }

    /// Whether it holds this record or a newer one of its owner.
    pub(super) fn has(&self, record: &NodeRecord) -> bool {
        self.entries.get(&record.id()).is_some_and(|entry| entry.record.seq() >= record.seq())
    }

    /// Takes note of a node; false if it is no news. A teller who tells too much makes room among what it told itself.
    pub(super) fn learn(
        &mut self,
        now: Time,
        teller: NodeId,
        record: Verified<NodeRecord>,
        sockets: Vec<SocketAddr>,
        fx: &mut Fx,
    ) -> bool {
        self.entries.retain(|_, entry| now.since(entry.learnt) < self.config.known_for);
        if self.has(&record) {
            fx.emit(Out::Drop(DropReason::Known));
            return false;
        }
        let id = record.id();
        // Of a node that moved, what was held against it at its old place does not count.
        self.entries.remove(&id);
        if self.site_is_full(&sockets) {
            fx.emit(Out::Drop(DropReason::SiteLimit));
            return false;
        }
        let told = |book: &Book, by: &NodeId| book.entries.values().filter(|entry| entry.teller == *by).count();
        if told(self, &teller) >= self.config.max_told {
            self.forget_oldest_of(&teller, fx);
        } else if self.entries.len() >= self.config.max_known {
            let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
            self.entries.values().for_each(|entry| *counts.entry(entry.teller).or_default() += 1);
            if let Some((most, _)) = counts.into_iter().max_by_key(|(teller, count)| (*count, *teller)) {
                self.forget_oldest_of(&most, fx);
            }
        }
        let entry = Entry { record, sockets, teller, learnt: now, handed_until: None, failures: 0 };
        self.entries.insert(id, entry);
        fx.emit(Out::Event(Event::Learnt));
        true
    }

    fn forget_oldest_of(&mut self, teller: &NodeId, fx: &mut Fx) {
        let theirs = self.entries.iter().filter(|(_, entry)| entry.teller == *teller);
        if let Some(oldest) = theirs.min_by_key(|(id, entry)| (entry.learnt, **id)).map(|(id, _)| *id) {
            self.entries.remove(&oldest);
            fx.emit(Out::Drop(DropReason::Overtaken));
        }
    }

    fn site_is_full(&self, sockets: &[SocketAddr]) -> bool {
        sockets.iter().any(|socket| {
            if self.config.exempt_local && is_local(socket.ip()) {
                return false;
            }
            let theirs = site(socket.ip());
            let at_site = |entry: &&Entry| entry.sockets.iter().any(|at| site(at.ip()) == theirs);
            self.entries.values().filter(at_site).count() >= self.config.max_site
        })
    }
}
