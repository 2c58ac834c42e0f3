//! One walk towards a point: ask the nearest known nodes for nearer ones until none is left to ask.
//!
//! It goes along several paths that share no node (S/Kademlia): who was told of on one path is asked on that path only,
//! and each has its own room and its own share of the queries. So one liar, who always knows somebody nearer, spoils the
//! path that it is on and no other. When the paths have come near, the nearest of all of them are asked together.

use std::collections::BTreeMap;

use peerage_wire::{NodeId, NodeRecord, Verified};

use crate::key::{Distance, Key};
use crate::machine::table::{BUCKET_SIZE, Contact};

/// Queries of one lookup in flight (Kademlia's α).
pub(crate) const ALPHA: usize = 3;
/// The most queries of one lookup over all its paths. An honest network of millions needs about 40.
const MAX_QUERIES: usize = 96;
/// The most nodes a lookup remembers over all its paths; of a path that is over its share, the farthest are forgotten.
const MAX_SEEN: usize = 192;

/// A path with so many nodes that did not answer, and twice as many as did, leads nowhere: a liar invents them faster than
/// they can be waited for.
const MAX_FAILURES: usize = 8;
/// Second questions of a lookup.
const MAX_AGAIN: usize = 4;

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
    /// No answer came to the first question. It, or the question, may have been lost.
    Missed,
    AskedAgain,
    Failed,
}

/// A node on the way.
struct Step {
    contact: Contact,
    state: State,
    path: usize,
    /// How many nodes were asked one after another until this one was told of; 0 for those of the own table.
    depth: u8,
}

#[derive(Clone, Default)]
struct Path {
    seen: usize,
    in_flight: usize,
    queries: usize,
    answers: usize,
    failures: usize,
}

pub(crate) struct Lookup {
    pub(crate) asker: Asker,
    me: NodeId,
    target: Key,
    seen: BTreeMap<Distance, Step>,
    paths: Vec<Path>,
    /// The path that goes on next.
    turn: usize,
    /// Second questions so far.
    again: usize,
    /// Batches of records whose signatures are being checked.
    pub(crate) checks: usize,
}

impl Lookup {
    /// Begins with the nodes of the own table, nearest first: dealt out to the paths.
    pub(crate) fn new(
        me: NodeId,
        target: Key,
        asker: Asker,
        paths: usize,
        known: impl IntoIterator<Item = Contact>,
    ) -> Lookup {
        let paths = vec![Path::default(); paths.max(1)];
        let mut lookup = Lookup { asker, me, target, seen: BTreeMap::new(), paths, turn: 0, again: 0, checks: 0 };
        for (nth, contact) in known.into_iter().enumerate() {
            lookup.add(contact, nth % lookup.paths.len(), 0);
        }
        lookup
    }

    pub(crate) fn target(&self) -> Key {
        self.target
    }

    /// Adds a node that another one, at this key, told of, if it is not known yet.
    pub(crate) fn see(&mut self, contact: Contact, teller: &Key) {
        let teller = self.seen.get(&teller.distance(&self.target));
        let (path, depth) = teller.map_or((0, 0), |teller| (teller.path, teller.depth));
        self.add(contact, path, depth.saturating_add(1));
    }

    fn add(&mut self, contact: Contact, path: usize, depth: u8) {
        let distance = contact.key.distance(&self.target);
        if contact.id == self.me || self.seen.contains_key(&distance) {
            return;
        }
        self.seen.insert(distance, Step { contact, state: State::Unasked, path, depth });
        self.paths[path].seen += 1;
        if self.paths[path].seen > MAX_SEEN / self.paths.len() {
            // Not one that an answer is expected of.
            let idle = |step: &Step| !matches!(step.state, State::Asked | State::AskedAgain);
            let mut farthest = self.seen.iter().rev().filter(|(_, step)| step.path == path && idle(step));
            if let Some(distance) = farthest.next().map(|(distance, _)| *distance) {
                self.seen.remove(&distance);
                self.paths[path].seen -= 1;
            }
        }
    }

    fn spent(&self, path: usize) -> bool {
        let Path { queries, answers, failures, .. } = self.paths[path];
        queries >= MAX_QUERIES / self.paths.len() || failures >= MAX_FAILURES && failures > 2 * answers
    }

    /// Whether a node holds a place among the best: neither one that did not answer, or dead neighbours would end the
    /// walk, nor one that will not be asked.
    fn counts(&self, step: &Step) -> bool {
        match step.state {
            State::Missed | State::Failed => false,
            State::Unasked => !self.spent(step.path),
            State::Asked | State::AskedAgain | State::Answered => true,
        }
    }

    fn in_flight(&self) -> usize {
        self.paths.iter().map(|path| path.in_flight).sum()
    }

    /// The next node to ask, if one is due now.
    pub(crate) fn next(&mut self) -> Option<Contact> {
        if self.in_flight() >= ALPHA {
            return None;
        }
        let distance = self.next_apart().or_else(|| self.next_of_all()).or_else(|| self.next_again())?;
        let step = self.seen.get_mut(&distance)?;
        let again = step.state == State::Missed;
        step.state = if again { State::AskedAgain } else { State::Asked };
        self.again += usize::from(again);
        let path = &mut self.paths[step.path];
        path.in_flight += 1;
        path.queries += 1;
        self.turn = step.path + 1;
        Some(step.contact.clone())
    }

    /// The nearest of a path that has not come near yet: each goes on until its share of the best was asked.
    fn next_apart(&self) -> Option<Distance> {
        let paths = self.paths.len();
        let (width, at_once) = (BUCKET_SIZE.div_ceil(paths), ALPHA.div_ceil(paths));
        (0..paths).map(|step| (self.turn + step) % paths).find_map(|path| {
            let goes_on = self.paths[path].in_flight < at_once && !self.spent(path);
            let steps = self.seen.iter().filter(|(_, step)| goes_on && step.path == path && self.counts(step));
            steps.take(width).find(|(_, step)| step.state == State::Unasked).map(|(distance, _)| *distance)
        })
    }

    /// The nearest of all that was not asked.
    fn next_of_all(&self) -> Option<Distance> {
        let best = self.seen.iter().filter(|(_, step)| self.counts(step)).take(BUCKET_SIZE);
        best.filter(|(_, step)| step.state == State::Unasked).map(|(distance, _)| *distance).next()
    }

    /// One that missed its first question, and would be among the best, gets a second one, last of all.
    fn next_again(&self) -> Option<Distance> {
        if self.again >= MAX_AGAIN {
            return None;
        }
        let hopeful = |step: &Step| step.state == State::Missed && !self.spent(step.path);
        let best = self.seen.iter().filter(|(_, step)| self.counts(step) || hopeful(step)).take(BUCKET_SIZE);
        best.filter(|(_, step)| hopeful(step)).map(|(distance, _)| *distance).next()
    }

    /// Notes the end of a query.
    pub(crate) fn done(&mut self, id: NodeId, answered: bool) {
        let Some(step) = self.seen.get_mut(&Key::of(id).distance(&self.target)) else { return };
        step.state = match step.state {
            _ if answered => State::Answered,
            State::AskedAgain => State::Failed,
            _ => State::Missed,
        };
        let path = &mut self.paths[step.path];
        path.in_flight = path.in_flight.saturating_sub(1);
        path.answers += usize::from(answered);
        path.failures += usize::from(!answered);
    }

    /// Whether nobody is left to ask or to wait for; to be asked after [`next`](Lookup::next) gave `None`.
    pub(crate) fn finished(&self) -> bool {
        self.in_flight() == 0 && self.checks == 0
    }

    /// The nearest nodes that answered, nearest first; if none was asked, the nearest known.
    pub(crate) fn result(&self) -> Vec<Verified<NodeRecord>> {
        let asked = self.queries() > 0;
        let best = self.seen.values().filter(|step| if asked { step.state == State::Answered } else { true });
        best.take(BUCKET_SIZE).map(|step| step.contact.record.clone()).collect()
    }

    /// How many nodes were asked one after another until the nearest that answered was told of.
    pub(crate) fn hops(&self) -> u8 {
        self.seen.values().find(|step| step.state == State::Answered).map_or(0, |step| step.depth)
    }

    /// How many questions were asked.
    pub(crate) fn queries(&self) -> usize {
        self.paths.iter().map(|path| path.queries).sum()
    }

    /// The newest record found of one node, even if it did not answer.
    pub(crate) fn record_of(&self, id: NodeId) -> Option<Verified<NodeRecord>> {
        self.seen.values().find(|step| step.contact.id == id).map(|step| step.contact.record.clone())
    }
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
