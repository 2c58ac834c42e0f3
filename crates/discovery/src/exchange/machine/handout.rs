//! Records for discovery, and for the dialer where discovery knows nobody.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::{NodeId, NodeRecord, Verified};

use super::super::count::{DropReason, Event};
use super::book::Entry;
use super::{ExchangeMachine, Fx, Out, Timer};
use crate::filter::EntryRule;
use crate::source::MAX_OFFER;

/// A wish of the dialer that is older than this is not worth asking more often for: it repeats what it wants.
const FRESH: Duration = Duration::from_secs(120);

/// What the dialer wants.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// How many candidates it still expects from here.
    wanted: usize,
    /// When it last wanted any, from whomever.
    at: Option<Time>,
    /// Whether somebody may have become fit to be handed out since the last look.
    changed: bool,
}

impl Wish {
    pub(super) fn is_fresh(&self, now: Time) -> bool {
        self.at.is_some_and(|at| now.since(at) < FRESH)
    }

    /// Has the book looked at again.
    pub(super) fn look(&mut self) {
        self.changed = true;
    }
}

impl ExchangeMachine {
    pub(super) fn want(&mut self, now: Time, count: usize, supply: bool, fx: &mut Fx) {
        let was_fresh = self.wish.is_fresh(now);
        self.wish = Wish { wanted: if supply { count } else { 0 }, at: (count > 0).then_some(now), changed: true };
        if self.wish.wanted == 0 {
            fx.disarm(Timer::Handout);
        }
        if count > 0 && !was_fresh && self.peers.values().any(|peer| peer.channel.is_some()) {
            self.pull_soon(now, fx);
        }
    }

    /// Hands the dialer what it wants and there is: of each teller's nodes one in turn, so that nobody can be all that
    /// it hears of; of these first those that it never got, then those it got longest ago.
    pub(super) fn supply(&mut self, now: Time, fx: &mut Fx) {
        if self.wish.wanted == 0 || !std::mem::take(&mut self.wish.changed) {
            return;
        }
        let mut fit: Vec<(NodeId, NodeId, Option<Time>)> = Vec::new();
        let rested = |until: Time| until <= now;
        let says = |record: &NodeRecord| EntryRule::all_hold(&self.config.filter, record);
        let fits = |entry: &Entry| entry.handed_until.is_none_or(rested) && says(&entry.record);
        for (id, entry) in self.book.entries().filter(|(_, entry)| fits(entry)) {
            fit.push((entry.teller, *id, entry.handed_until));
        }
        let all = fit.len();
        self.rng.sample(&mut fit, all);
        fit.sort_by_key(|(.., handed)| *handed);
        let mut turns: BTreeMap<NodeId, VecDeque<NodeId>> = BTreeMap::new();
        let mut tellers = Vec::new();
        for (teller, id, _) in fit {
            if !turns.contains_key(&teller) {
                tellers.push(teller);
            }
            turns.entry(teller).or_default().push_back(id);
        }
        let mut found = Vec::new();
        while found.len() < self.wish.wanted && !turns.is_empty() {
            for teller in &tellers {
                let Some(id) = turns.get_mut(teller).and_then(VecDeque::pop_front) else {
                    turns.remove(teller);
                    continue;
                };
                if found.len() < self.wish.wanted {
                    found.extend(self.hand(now, &id));
                }
            }
        }
        self.wish.wanted -= found.len();
        if !found.is_empty() {
            fx.emit(Out::Candidates(found));
        }
        match self.book.entries().filter_map(|(_, entry)| entry.handed_until).filter(|until| *until > now).min() {
            Some(at) if self.wish.wanted > 0 => fx.arm(Timer::Handout, at),
            _ => fx.disarm(Timer::Handout),
        }
    }

    fn hand(&mut self, now: Time, id: &NodeId) -> Option<crate::Found> {
        let entry = self.book.get_mut(id)?;
        let sockets: Vec<_> =
            entry.sockets.iter().copied().filter(|socket| self.admission.permits_ip(socket.ip())).collect();
        if sockets.is_empty() || !self.admission.permits_id(id) {
            return None;
        }
        let pause = self.config.handout_pause.saturating_mul(1 << entry.failures.min(16));
        entry.handed_until = Some(now + pause.min(self.config.handout_cap));
        Some((entry.record.clone(), sockets))
    }

    pub(super) fn outcome(&mut self, id: &NodeId, ok: bool, fx: &mut Fx) {
        let Some(entry) = self.book.get_mut(id) else { return };
        entry.failures = if ok { 0 } else { entry.failures.saturating_add(1) };
        if entry.failures >= self.config.give_up {
            self.book.remove(id);
            fx.emit(Out::Event(Event::GivenUp));
        }
    }

    /// Keeps a record until discovery can take it; the newest are kept.
    pub(super) fn keep_to_offer(&mut self, record: Verified<NodeRecord>, fx: &mut Fx) {
        if self.to_offer.len() >= MAX_OFFER {
            self.to_offer.pop_front();
            fx.emit(Out::Drop(DropReason::NotOffered));
        }
        self.to_offer.push_back(record);
    }

    pub(super) fn offer(&mut self, fx: &mut Fx) {
        if !self.offering && !self.to_offer.is_empty() {
            self.offering = true;
            fx.emit(Out::Offer(self.to_offer.drain(..).collect()));
        }
    }

    pub(super) fn offered(&mut self, fx: &mut Fx) {
        self.offering = false;
        self.offer(fx);
    }
}
