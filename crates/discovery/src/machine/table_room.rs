//! Who has room in the table, and who makes room: a place of a site that has many goes to a node of a site that has fewer.
//!
//! Kademlia keeps whom it knows, and so whoever comes first with many names keeps his places for good. Who has many sites
//! pays for each of them; names cost nothing. So where a bucket is full, a node that answered us takes the place of one
//! whose site has at least two places more, and afterwards still has no more than that one. Who waits gives way in the same
//! order. Only places of nodes that answered count: else anybody could make a site look crowded by inventing names in it.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use peerage_machine::Rng;
use peerage_wire::NodeId;
use peerage_wire::address::{Site, is_local, site};

use super::super::origin::Origin;
use super::{BUCKET_SIZE, Bucket, Entry, MAX_REPLACEMENTS, Placed, Table, Waiting};
use crate::key::{Distance, Key};

/// How many places more a site must have for one of them to be taken: with one more the two would take it in turns. A site
/// with fewer is not crowded, and gives way to nobody.
const CROWDED: usize = 2;

/// Of a bucket, to look for others where so many would give way.
const QUARTER: usize = BUCKET_SIZE / 4;

/// How many nodes of a site there are, of the few hundred of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// With a place, or waiting for one.
    pub(super) all: u16,
    /// With a place, and they answered: the site's crowd.
    pub(super) live: u16,
}

impl Held {
    pub(super) fn is_crowded(self) -> bool {
        usize::from(self.live) >= CROWDED
    }
}

impl Bucket {
    pub(super) fn waiting(&mut self, id: NodeId) -> Option<&mut Waiting> {
        self.replacements.iter_mut().find(|waiting| waiting.contact.id == id)
    }
}

impl Table {
    pub(super) fn limited(&self, ip: IpAddr) -> Option<Site> {
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.bug {
            return None;
        }
        (!self.exempt_local || !is_local(ip)).then(|| site(ip))
    }

    pub(super) fn has_room(&self, index: usize, ip: IpAddr) -> bool {
        self.limited(ip).is_none_or(|site| {
            self.sites.get(&site).is_none_or(|held| usize::from(held.all) < self.site_per_table)
                && self.buckets[index].of_site(site) < self.site_per_bucket
        })
    }

    pub(super) fn count_in(&mut self, ip: IpAddr) {
        if let Some(site) = self.limited(ip) {
            self.sites.entry(site).or_default().all += 1;
        }
    }

    pub(super) fn count_out(&mut self, ip: IpAddr) {
        let Some(site) = self.limited(ip) else { return };
        if let Some(held) = self.sites.get_mut(&site) {
            held.all -= 1;
            if held.all == 0 {
                self.sites.remove(&site);
            }
        }
    }

    /// Notes that a node at this address, which is counted, answers or does not any more.
    pub(super) fn count_live(&mut self, ip: IpAddr, was: bool, is: bool) {
        let Some(site) = self.limited(ip) else { return };
        if let Some(held) = self.sites.get_mut(&site) {
            let before = held.is_crowded();
            held.live = held.live + u16::from(is) - u16::from(was);
            self.crowded = self.crowded + usize::from(held.is_crowded()) - usize::from(before);
        }
    }

    /// How many nodes of the site of this address have a place and answered; none where sites do not count.
    fn crowd(&self, ip: IpAddr) -> Option<usize> {
        self.limited(ip).map(|site| self.sites.get(&site).map_or(0, |held| usize::from(held.live)))
    }

    /// Whether a node that nobody asked for would get a place or a useful wait for one. With enough waiting
    /// already, asking it for its record would cost more than it brings.
    pub(crate) fn would_take(&self, key: &Key, id: NodeId, addr: SocketAddr) -> bool {
        let (index, ip) = (self.index_of(key), addr.ip());
        let waits = || self.buckets[index].replacements.len() < MAX_REPLACEMENTS;
        let for_another = || {
            // Where no site is crowded, nobody is looked at.
            let most = if self.crowded == 0 { None } else { self.crowd_that_waits(index) };
            self.fair_shares && self.crowd(ip).zip(most).is_some_and(|(own, (most, _))| own + CROWDED <= most)
        };
        let may_inherit = || self.gives_way(index, ip).is_some();
        id != self.me && self.has_room(index, ip) && (waits() || for_another() || may_inherit())
    }

    /// The largest crowd of a site of which one waits, and which of them has waited longest.
    fn crowd_that_waits(&self, index: usize) -> Option<(usize, usize)> {
        let waiting = self.buckets[index].replacements.iter().enumerate();
        waiting.map(|(at, one)| (self.crowd(one.contact.addr.ip()).unwrap_or(0), at)).max()
    }

    /// Lets a node wait for a place. Where too many wait, one of the site with the most places is forgotten, the one that
    /// has waited longest: else whoever speaks to us all the time would push all others out before they are asked.
    pub(super) fn wait(&mut self, index: usize, waiting: Waiting) {
        self.buckets[index].replacements.push_front(waiting);
        let last = self.buckets[index].replacements.len() - 1;
        if last < MAX_REPLACEMENTS {
            return;
        }
        let most = self.crowd_that_waits(index).filter(|_| self.fair_shares);
        if let Some(gone) = self.buckets[index].replacements.remove(most.map_or(last, |(_, at)| at)) {
            self.count_out(gone.contact.addr.ip());
        }
    }

    /// The entry of a full bucket that gives way to a node at this address, if one does: of the site with the most places,
    /// the one that was checked least.
    fn gives_way(&self, index: usize, ip: IpAddr) -> Option<usize> {
        if self.crowded == 0 {
            return None;
        }
        let own = self.crowd(ip).filter(|_| self.fair_shares)?;
        let entries = &self.buckets[index].entries;
        if entries.len() < BUCKET_SIZE {
            return None;
        }
        let live = entries.iter().enumerate().filter(|(_, entry)| entry.live);
        let of_site =
            live.filter_map(|(at, entry)| Some((self.crowd(entry.contact.addr.ip())?, Reverse(entry.checks), at)));
        of_site.max().filter(|(most, ..)| own + CROWDED <= *most).map(|(.., at)| at)
    }

    /// Nodes that wait, would have a place if they answered, and were not asked yet.
    pub(crate) fn rivals(&self) -> Vec<(Origin, (NodeId, SocketAddr))> {
        // The usual case, and costs no look through the table.
        if self.crowded == 0 {
            return Vec::new();
        }
        let mut rivals = Vec::new();
        for (index, bucket) in self.buckets.iter().enumerate() {
            let unasked = bucket.replacements.iter().filter(|waiting| !waiting.asked);
            let fit = unasked.filter(|one| self.gives_way(index, one.contact.addr.ip()).is_some());
            rivals.extend(fit.map(|waiting| (waiting.origin, (waiting.contact.id, waiting.contact.addr))));
        }
        rivals
    }

    /// The buckets of which a quarter or more would give way to nodes of other sites, those first of which most would.
    pub(crate) fn crowded_buckets(&self) -> Vec<usize> {
        let gives_way = |entry: &&Entry| entry.live && self.crowd(entry.contact.addr.ip()) >= Some(CROWDED);
        let crowd = |bucket: &Bucket| match bucket.entries.len() {
            BUCKET_SIZE if self.fair_shares => bucket.entries.iter().filter(gives_way).count(),
            _ => 0,
        };
        let mut crowded: Vec<_> = self.buckets.iter().map(crowd).enumerate().filter(|(_, of)| *of >= QUARTER).collect();
        crowded.sort_unstable_by_key(|(index, of)| Reverse((*of, *index)));
        crowded.into_iter().map(|(index, _)| index).collect()
    }

    /// A random point among those that a bucket is for.
    pub(crate) fn point_in(&self, index: usize, rng: &mut Rng) -> Key {
        self.key.at_distance(Distance::in_bucket(index, rng.bytes()))
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
        let Some(at) = self.gives_way(index, addr.ip()) else { return Placed::Replacement };
        let bucket = &mut self.buckets[index];
        let Some(heir) = bucket.replacements.remove(from) else { return Placed::Refused };
        let mut entry = Entry::new(heir.contact, heir.origin, true);
        entry.checks = 1;
        let left = std::mem::replace(&mut bucket.entries[at], entry);
        self.count_live(left.contact.addr.ip(), left.live, false);
        self.count_out(left.contact.addr.ip());
        self.count_live(addr.ip(), false, true);
        Placed::Inherited
    }

    /// Takes one of those that wait for a place which is free: of the sites with the fewest, at random, so that nobody can
    /// queue for it.
    pub(super) fn heir(&mut self, index: usize, rng: &mut Rng) -> Option<Waiting> {
        let waiting = &self.buckets[index].replacements;
        let of = |ip| self.crowd(ip).filter(|_| self.fair_shares).unwrap_or(0);
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
