//! Records for the dialer and other callers.

use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::address::{host, is_local};
use peerage_wire::{Admission, NodeId, NodeRecord, Verified};

use super::mix::{self, Rule};
use super::origin::in_turn;
use super::table::Entry;
use super::{DiscoveryMachine, Found, Fx, Out, Timer};
use crate::filter::EntryRule;
use crate::key::Key;
use crate::net::may_relay;
use crate::source::Source;

/// Where the dialer may dial this node, those of the host that answered us first; nowhere if it did not answer.
///
/// Of the internet that is only the host that answered: a record names what its owner likes, and every node that
/// learnt of it would connect to a bystander. A node of a local network may name another address of one, as a
/// computer has several, and none of the internet can make us connect into ours.
fn sockets(entry: &Entry, admission: &Admission) -> Vec<SocketAddr> {
    let mut sockets: Vec<SocketAddr> = dialable(entry, admission).collect();
    sockets.sort_by_key(|tcp| !is_same(entry, tcp));
    sockets
}

fn is_same(entry: &Entry, tcp: &SocketAddr) -> bool {
    host(tcp.ip()) == host(entry.contact.addr.ip())
}

/// The same in the order of the record.
fn dialable(entry: &Entry, admission: &Admission) -> impl Iterator<Item = SocketAddr> {
    let answered = entry.contact.addr.ip();
    let may_dial = move |tcp: &SocketAddr| {
        tcp.port() != 0
            && (is_same(entry, tcp) || is_local(tcp.ip()) && may_relay(answered, tcp.ip()))
            && admission.permits_ip(tcp.ip())
    };
    let named = if entry.live { entry.contact.record.tcp_sockets() } else { &[] };
    named.iter().copied().filter(may_dial)
}

fn can_dial(entry: &Entry, admission: &Admission) -> bool {
    dialable(entry, admission).next().is_some()
}

impl DiscoveryMachine {
    pub(super) fn want(&mut self, now: Time, count: usize, fx: &mut Fx) {
        self.wanted = count;
        if count == 0 {
            return fx.disarm(Timer::Handout);
        }
        self.supply_changed = true;
        self.unproven = true;
        self.supply(now, fx);
        if self.wanted > 0 {
            self.hurry(now, fx);
        }
    }

    /// Hands the dialer what it wants and there is, one node of each source in turn; of a source, first nodes it never
    /// got, then those it got longest ago. If that is not enough the rest follows as nodes answer, or may be handed out
    /// again.
    pub(super) fn supply(&mut self, now: Time, fx: &mut Fx) {
        if self.wanted == 0 || !std::mem::take(&mut self.supply_changed) {
            return;
        }
        let mut in_table = self.fit(now);
        let admission = self.admission.clone();
        let filter = self.config.filter.clone();
        let blind = !self.table.entries().any(|entry| entry.live);
        let rule = Rule { admission: &admission, filter: &filter, blind };
        let mut found: Vec<Found> = Vec::new();
        while found.len() < self.wanted {
            let next = self.mix.in_turn().find_map(|source| {
                let node = match source {
                    Source::Kademlia => in_table
                        .find(|id| found.iter().all(|(record, _)| record.id() != *id))
                        .and_then(|id| self.table.get(id))
                        .map(|entry| (entry.contact.record.clone(), sockets(entry, &admission))),
                    source => self.mix.next(now, source, &rule),
                };
                Some((source, node?))
            });
            let Some((source, node)) = next else { break };
            self.mix.served(source);
            fx.emit(Out::Handed(source));
            self.handed(now, node.0.id());
            found.push(node);
        }
        self.wanted -= found.len();
        if !found.is_empty() {
            fx.emit(Out::Candidates(found));
        }
        let in_table = self.table.entries().filter(|entry| self.may_hand_out(entry));
        let next = in_table.filter_map(|entry| entry.handed_until).chain(self.mix.next_at(&rule)).min();
        match next {
            Some(at) if self.wanted > 0 => fx.arm(Timer::Handout, at),
            _ => fx.disarm(Timer::Handout),
        }
    }

    /// Whether a node of the table can be dialled, and is worth it.
    pub(super) fn may_hand_out(&self, entry: &Entry) -> bool {
        can_dial(entry, &self.admission) && EntryRule::all_hold(&self.config.filter, &entry.contact.record)
    }

    pub(super) fn filter(&mut self, rules: Vec<EntryRule>) {
        self.config.filter = rules;
        self.supply_changed = true;
    }

    /// The nodes of the table that may be handed out, in the order in which they should be.
    fn fit(&mut self, now: Time) -> impl Iterator<Item = NodeId> + use<> {
        let fit: Vec<_> = self
            .table
            .entries()
            .filter(|entry| entry.handed_until.is_none_or(|until| until <= now) && self.may_hand_out(entry))
            .map(|entry| (entry.origin, (entry.handed_until, entry.contact.id)))
            .collect();
        let had = self.table.entries().filter(|entry| entry.handed_until.is_some()).map(|entry| entry.origin);
        let mut fit = in_turn(&mut self.rng, self.config.fair_shares, had, fit);
        fit.sort_by_key(|(handed, _)| *handed);
        fit.into_iter().map(|(_, id)| id)
    }

    /// Notes that a node was handed out; another source that knows it too does not hand it out again.
    fn handed(&mut self, now: Time, id: NodeId) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.handed_until = Some(now + mix::pause(&self.config, entry.dial_failures));
        }
        self.mix.handed(now, id, &self.config);
    }

    pub(super) fn outcome(&mut self, id: NodeId, ok: bool) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.dial_failures = if ok { 0 } else { entry.dial_failures.saturating_add(1) };
        }
        self.mix.outcome(id, ok);
    }

    /// Random nodes that are alive, one of each bucket in turn: half of all nodes are in the last bucket, and whoever
    /// wants to be everywhere would have to be there only. None before the first refresh has ended: until then the table
    /// holds whom the first ones told of.
    pub(super) fn random(&mut self, token: u64, count: usize, fx: &mut Fx) {
        let mut buckets: Vec<Vec<Verified<NodeRecord>>> = Vec::new();
        if self.refresh.ready() {
            for mut bucket in self.table.live_by_bucket() {
                let all = bucket.len();
                self.rng.sample(&mut bucket, all);
                buckets.push(bucket);
            }
        }
        let all = buckets.len();
        self.rng.sample(&mut buckets, all);
        let mut records = Vec::new();
        while records.len() < count {
            let before = records.len();
            records.extend(buckets.iter_mut().filter_map(Vec::pop).take(count - before));
            if records.len() == before {
                break;
            }
        }
        fx.emit(Out::Answer { token, records });
    }

    pub(super) fn closest(&self, token: u64, target: NodeId, count: usize, fx: &mut Fx) {
        let nearest = self.table.closest(&Key::of(target), count, true);
        let records = nearest.into_iter().map(|entry| entry.contact.record.clone()).collect();
        fx.emit(Out::Answer { token, records });
    }
}
