//! Who has room in the table, and who makes room: a place of a site that has many goes to a node of a site that has fewer.
//!
//! Kademlia keeps whom it knows, and so whoever comes first with many names keeps his places for good. Who has many sites
//! pays for each of them; names cost nothing. So where a bucket is full, a node that answered us takes the place of one
//! whose site has at least two places more, and afterwards still has no more than that one. Only places of nodes that
//! answered count: else anybody could make a site look crowded by inventing names in it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use peerage_machine::Rng;
use peerage_wire::address::{is_local, site};
use peerage_wire::{IpNet, NodeId};

use super::super::origin::Origin;
use super::{BUCKET_SIZE, Bucket, Entry, MAX_REPLACEMENTS, Placed, Table, Waiting};

/// How many places more a site must have for one of them to be taken: with one more the two would take it in turns.
const CROWDED: usize = 2;

/// How many nodes of each site have a place and answered.
type Crowds = BTreeMap<IpNet, usize>;

impl Bucket {
    pub(super) fn waiting(&mut self, id: NodeId) -> Option<&mut Waiting> {
        self.replacements.iter_mut().find(|waiting| waiting.contact.id == id)
    }
}

impl Table {
    pub(super) fn limited(&self, ip: IpAddr) -> Option<IpNet> {
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.bug {
            return Some(peerage_wire::address::host(ip));
        }
        (!self.exempt_local || !is_local(ip)).then(|| site(ip))
    }

    pub(super) fn has_room(&self, index: usize, ip: IpAddr) -> bool {
        self.limited(ip).is_none_or(|prefix| {
            self.sites.get(&prefix).copied().unwrap_or(0) < self.site_per_table
                && self.buckets[index].of_site(prefix) < self.site_per_bucket
        })
    }

    pub(super) fn count_in(&mut self, ip: IpAddr) {
        if let Some(prefix) = self.limited(ip) {
            *self.sites.entry(prefix).or_default() += 1;
        }
    }

    pub(super) fn count_out(&mut self, ip: IpAddr) {
        let Some(prefix) = self.limited(ip) else { return };
        if let Some(count) = self.sites.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.sites.remove(&prefix);
            }
        }
    }

    /// Whether a node that nobody asked for would get a place or a useful wait for one. With enough waiting
    /// already, asking it for its record would cost more than it brings.
    pub(crate) fn would_take(&self, id: NodeId, addr: SocketAddr) -> bool {
        let index = self.index(id);
        let waits = || self.buckets[index].replacements.len() < MAX_REPLACEMENTS;
        let may_inherit = || self.crowds().is_some_and(|crowds| self.gives_way(index, &crowds, addr.ip()).is_some());
        id != self.me && self.has_room(index, addr.ip()) && (waits() || may_inherit())
    }

    /// How many nodes of each site have a place and answered us; none if no site has so many that one could be taken,
    /// which is the usual case and costs no look through the table.
    fn crowds(&self) -> Option<Crowds> {
        (self.fair_shares && self.sites.values().any(|held| *held >= CROWDED)).then(|| self.count_answering())
    }

    fn count_answering(&self) -> Crowds {
        let live = self.entries().filter(|entry| entry.live);
        let mut crowds = Crowds::new();
        for prefix in live.filter_map(|entry| self.limited(entry.contact.addr.ip())) {
            *crowds.entry(prefix).or_default() += 1;
        }
        crowds
    }

    /// The entry of a full bucket that gives way to a node at this address, if one does: of the site with the most places,
    /// the one that was checked least.
    fn gives_way(&self, index: usize, crowds: &Crowds, ip: IpAddr) -> Option<usize> {
        let crowd = |ip| self.limited(ip).map(|prefix| crowds.get(&prefix).copied().unwrap_or(0));
        let own = crowd(ip)?;
        let entries = &self.buckets[index].entries;
        if entries.len() < BUCKET_SIZE {
            return None;
        }
        let live = entries.iter().enumerate().filter(|(_, entry)| entry.live);
        let of_site = live.filter_map(|(at, entry)| Some((crowd(entry.contact.addr.ip())?, Reverse(entry.checks), at)));
        of_site.max().filter(|(most, ..)| own + CROWDED <= *most).map(|(.., at)| at)
    }

    /// Nodes that wait, would have a place if they answered, and were not asked yet.
    pub(crate) fn rivals(&self) -> Vec<(Origin, (NodeId, SocketAddr))> {
        let Some(crowds) = self.crowds() else { return Vec::new() };
        let mut rivals = Vec::new();
        for (index, bucket) in self.buckets.iter().enumerate() {
            let unasked = bucket.replacements.iter().filter(|waiting| !waiting.asked);
            let fit = unasked.filter(|one| self.gives_way(index, &crowds, one.contact.addr.ip()).is_some());
            rivals.extend(fit.map(|waiting| (waiting.origin, (waiting.contact.id, waiting.contact.addr))));
        }
        rivals
    }

    /// Notes that a sign of life was asked for.
    pub(crate) fn asked(&mut self, id: NodeId) {
        let index = self.index(id);
        if let Some(entry) = self.get_mut(id) {
            entry.asked = true;
        } else if let Some(waiting) = self.buckets[index].waiting(id) {
            waiting.asked = true;
        }
    }

    /// One that waits answered: it has the place of one whose site has too many, if there is one.
    pub(crate) fn inherit(&mut self, id: NodeId, addr: SocketAddr) -> Placed {
        let index = self.index(id);
        let waiting = &self.buckets[index].replacements;
        let Some(from) = waiting.iter().position(|one| one.contact.id == id && one.contact.addr == addr) else {
            return Placed::Refused;
        };
        let crowds = self.crowds();
        let Some(at) = crowds.and_then(|crowds| self.gives_way(index, &crowds, addr.ip())) else {
            return Placed::Replacement;
        };
        let bucket = &mut self.buckets[index];
        let Some(heir) = bucket.replacements.remove(from) else { return Placed::Refused };
        let mut entry = Entry::new(heir.contact, heir.origin, true);
        entry.checks = 1;
        let left = std::mem::replace(&mut bucket.entries[at], entry);
        self.count_out(left.contact.addr.ip());
        Placed::Inherited
    }

    /// Takes one of those that wait for a place which is free: of the sites with the fewest, at random, so that nobody can
    /// queue for it.
    pub(super) fn heir(&mut self, index: usize, rng: &mut Rng) -> Option<Waiting> {
        let waiting = &self.buckets[index].replacements;
        let counted = if self.fair_shares { self.count_answering() } else { Crowds::new() };
        let of = |ip| self.limited(ip).and_then(|prefix| counted.get(&prefix).copied()).unwrap_or(0);
        let crowds: Vec<usize> = waiting.iter().map(|one| of(one.contact.addr.ip())).collect();
        let fewest = crowds.iter().min().copied();
        let fit: Vec<usize> = (0..crowds.len()).filter(|at| Some(crowds[*at]) == fewest).collect();
        let at = rng.index(fit.len()).map(|at| fit[at])?;
        self.buckets[index].replacements.remove(at)
    }

    /// One that waits did not answer.
    pub(super) fn forget_waiting(&mut self, id: NodeId, addr: SocketAddr) {
        let index = self.index(id);
        let waiting = &mut self.buckets[index].replacements;
        if let Some(at) = waiting.iter().position(|one| one.contact.id == id && one.contact.addr == addr) {
            waiting.remove(at);
            self.count_out(addr.ip());
        }
    }
}

#[cfg(test)]
#[path = "table_room_tests.rs"]
mod tests;
