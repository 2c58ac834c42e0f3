//! Asking peers for theirs: whom, how often, and what is made of the answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::{Bloom, Time};
use peerage_queue::SessionId;
use peerage_wire::{NodeId, NodeRecord, Penalty, Verified};

use super::super::count::{DropReason, Event};
use super::super::wire::{self, Item, MAX_BLOOM};
use super::{ExchangeMachine, Fx, Out, Timer};

/// How long after a new peer came a hungry node asks somebody, at most.
const SOON: Duration = Duration::from_millis(500);

/// Answers of one peer that are overlooked if they come when nobody waits for them any more.
const MAX_LATE: u32 = 6;

/// Signatures that are being checked.
pub(super) struct Check {
    session: SessionId,
    teller: NodeId,
    ip: IpAddr,
    records: usize,
}

impl ExchangeMachine {
    /// Whether news is needed more than usually.
    pub(super) fn hungry(&self, now: Time) -> bool {
        self.wish.is_fresh(now) || self.book.len() + self.peers.len() < self.config.few
    }

    fn speakers(&self) -> usize {
        self.peers.values().filter(|peer| peer.channel.is_some()).count()
    }

    /// Arms the next pull if none is due; it comes a little later than it could, so that nodes do not ask in step.
    pub(super) fn schedule_pull(&mut self, now: Time, fx: &mut Fx) {
        if self.pull_at.is_some() || self.speakers() == 0 {
            return;
        }
        let pause = if self.hungry(now) {
            let doubled = self.config.pull_hungry.saturating_mul(1 << self.fruitless.min(16));
            doubled.min(self.config.pull_hungry_cap).min(self.config.pull_every)
        } else {
            self.config.pull_every
        };
        let jitter = self.jitter(pause / 2);
        self.arm_pull(now + pause + jitter, fx);
    }

    /// Asks within a moment, if nothing is due before.
    pub(super) fn pull_soon(&mut self, now: Time, fx: &mut Fx) {
        self.fruitless = 0;
        let at = now + self.jitter(SOON);
        if self.pull_at.is_none_or(|due| at < due) {
            self.arm_pull(at, fx);
        }
    }

    fn arm_pull(&mut self, at: Time, fx: &mut Fx) {
        self.pull_at = Some(at);
        fx.arm(Timer::Pull, at);
    }

    pub(super) fn jitter(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.rng.below(u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Asks one peer: one that was not asked yet, if there is one, so that nobody's view is all that counts.
    pub(super) fn pull(&mut self, now: Time, fx: &mut Fx) {
        self.pull_at = None;
        let askable = self.peers.iter().filter(|(_, peer)| {
            // Who does not answer is asked ever more rarely.
            let pause = self.config.pull_hungry.saturating_mul(1 << peer.late);
            peer.channel.is_some() && !peer.asked && peer.asked_at.is_none_or(|at| now.since(at) >= pause)
        });
        let (mut fresh, mut others) = (Vec::new(), Vec::new());
        for (session, peer) in askable {
            if peer.asked_at.is_none() { &mut fresh } else { &mut others }.push(*session);
        }
        let among = if fresh.is_empty() { others } else { fresh };
        let chosen = self.rng.index(among.len()).and_then(|at| among.get(at).copied());
        if let Some(session) = chosen {
            let item = self.filter();
            self.send(session, &item, fx);
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.asked = true;
                peer.asked_at = Some(now);
            }
            fx.emit(Out::Event(Event::Pulled));
            fx.arm(Timer::Answer(session), now + self.config.pull_timeout);
        }
        self.schedule_pull(now, fx);
    }

    /// Whom this node knows: itself, its peers, and who was told of. Under a salt of its own, or whom one filter shows
    /// by mistake would stay hidden for ever.
    fn filter(&mut self) -> Item {
        let salt = self.rng.bytes::<16>();
        let known = 1 + self.peers.len() + self.book.len();
        let mut bloom = Bloom::sized(known, MAX_BLOOM);
        let peers = self.peers.values().map(|peer| peer.id);
        for id in peers.chain(self.book.ids()).chain([self.local.id()]) {
            bloom.insert(wire::place(&salt, &id));
        }
        Item::Pull { salt, known: bloom }
    }

    pub(super) fn gave_up(&mut self, now: Time, session: SessionId, fx: &mut Fx) {
        let Some(peer) = self.peers.get_mut(&session).filter(|peer| peer.asked) else { return };
        peer.asked = false;
        peer.late = (peer.late + 1).min(MAX_LATE);
        fx.emit(Out::Event(Event::TimedOut));
        self.schedule_pull(now, fx);
    }

    pub(super) fn records(&mut self, now: Time, session: SessionId, records: Vec<NodeRecord>, fx: &mut Fx) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if !peer.asked {
            if peer.late == 0 {
                return self.stray(now, session, DropReason::Unsolicited, fx);
            }
            peer.late -= 1;
            return fx.emit(Out::Drop(DropReason::Late));
        }
        peer.asked = false;
        let (teller, ip) = (peer.id, peer.remote.ip());
        fx.disarm(Timer::Answer(session));
        fx.emit(Out::Event(Event::Answered));
        let mut ids = BTreeSet::new();
        let mut to_check = Vec::new();
        for record in records {
            let verdict = match self.worth_checking(&record, ip) {
                Ok(()) if !ids.insert(record.id()) => Err(DropReason::Repeated),
                verdict => verdict,
            };
            match verdict {
                Ok(()) => to_check.push(record),
                Err(reason) => fx.emit(Out::Drop(reason)),
            }
        }
        if to_check.is_empty() {
            self.fruitless = self.fruitless.saturating_add(1);
            return;
        }
        let token = self.token();
        self.checks.insert(token, Check { session, teller, ip, records: to_check.len() });
        fx.emit(Out::Verify { token, records: to_check });
    }

    /// Looks at all that costs less than the signature.
    fn worth_checking(&self, record: &NodeRecord, teller: IpAddr) -> Result<(), DropReason> {
        if record.network() != self.local.network() {
            return Err(DropReason::ForeignRecord);
        }
        if record.id() == self.local.id() {
            return Err(DropReason::OwnRecord);
        }
        if self.is_connected(&record.id()) || self.book.has(record) {
            return Err(DropReason::Known);
        }
        self.sockets(record, teller).map(drop)
    }

    pub(super) fn verified(&mut self, now: Time, token: u64, records: Vec<Verified<NodeRecord>>, fx: &mut Fx) {
        let Some(Check { session, teller, ip, records: checked }) = self.checks.remove(&token) else { return };
        if records.len() < checked {
            (records.len()..checked).for_each(|_| fx.emit(Out::Drop(DropReason::BadRecord)));
            // A node tells of its peers only, whose handshakes have proved their records.
            fx.emit(Out::Report { session, penalty: Penalty::InvalidMessage });
        }
        let mut news = 0;
        for record in records {
            let Ok(sockets) = self.sockets(&record, ip) else { continue };
            // It may have come up while its signature was checked.
            if !self.is_connected(&record.id()) && self.book.learn(now, teller, record.clone(), sockets, fx) {
                news += 1;
                self.keep_to_offer(record, fx);
            }
        }
        if news == 0 {
            self.fruitless = self.fruitless.saturating_add(1);
        } else {
            self.fruitless = 0;
            self.wish.look();
        }
        self.offer(fx);
    }
}
