//! Records for the dialer and other callers.

use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::address::{host, is_local};
use peerage_wire::{Admission, NodeId};

use super::table::Entry;
use super::{DiscoveryMachine, Fx, Out, Timer};
use crate::key::Key;
use crate::net::may_relay;

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
        self.supply(now, fx);
        if self.wanted > 0 {
            self.hurry(now, fx);
        }
    }

    /// Hands the dialer what it wants and there is: first nodes it never got, then those it got longest ago. If
    /// that is not enough the rest follows as nodes answer, or may be handed out again.
    pub(super) fn supply(&mut self, now: Time, fx: &mut Fx) {
        if self.wanted == 0 || !std::mem::take(&mut self.supply_changed) {
            return;
        }
        let admission = &self.admission;
        let mut fit: Vec<_> = self
            .table
            .entries()
            .filter(|entry| entry.handed_until.is_none_or(|until| until <= now) && can_dial(entry, admission))
            .map(|entry| (entry.handed_until, entry.contact.id))
            .collect();
        let all = fit.len();
        self.rng.sample(&mut fit, all);
        fit.sort_by_key(|(handed, _)| *handed);
        let mut found = Vec::new();
        for (_, id) in fit.into_iter().take(self.wanted) {
            if let Some(entry) = self.table.get_mut(id) {
                let pause = self.config.handout_pause.saturating_mul(1 << entry.dial_failures.min(16));
                entry.handed_until = Some(now + pause.min(self.config.handout_cap));
                found.push((entry.contact.record.clone(), sockets(entry, &self.admission)));
            }
        }
        self.wanted -= found.len();
        if !found.is_empty() {
            fx.emit(Out::Candidates(found));
        }
        let next = self
            .table
            .entries()
            .filter(|entry| can_dial(entry, &self.admission))
            .filter_map(|entry| entry.handed_until)
            .min();
        match next {
            Some(at) if self.wanted > 0 => fx.arm(Timer::Handout, at),
            _ => fx.disarm(Timer::Handout),
        }
    }

    pub(super) fn outcome(&mut self, id: NodeId, ok: bool) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.dial_failures = if ok { 0 } else { entry.dial_failures.saturating_add(1) };
        }
    }

    pub(super) fn random(&mut self, token: u64, count: usize, fx: &mut Fx) {
        let mut live: Vec<_> =
            self.table.entries().filter(|entry| entry.live).map(|entry| entry.contact.record.clone()).collect();
        let records = self.rng.sample(&mut live, count).to_vec();
        fx.emit(Out::Answer { token, records });
    }

    pub(super) fn closest(&self, token: u64, target: NodeId, count: usize, fx: &mut Fx) {
        let nearest = self.table.closest(&Key::of(target), count, true);
        let records = nearest.into_iter().map(|entry| entry.contact.record.clone()).collect();
        fx.emit(Out::Answer { token, records });
    }
}
