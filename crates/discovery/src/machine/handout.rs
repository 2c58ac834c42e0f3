//! Records for the dialer and other callers.

use peerage_machine::Time;
use peerage_wire::NodeId;

use super::table::Entry;
use super::{DiscoveryMachine, Fx, Out, Timer};
use crate::key::Key;
use crate::net::may_relay;

/// Whether the dialer may be given this node: it answered us, and its record names a TCP socket that a node at
/// its address may name. A node of the open network could otherwise make us connect into our own.
fn dialable(entry: &Entry) -> bool {
    let tcp = entry.contact.record.tcp_address();
    entry.live && tcp.is_some_and(|tcp| tcp.port() != 0 && may_relay(entry.contact.addr.ip(), tcp.ip()))
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
        let mut fit: Vec<_> = self
            .table
            .entries()
            .filter(|entry| dialable(entry) && entry.handed_until.is_none_or(|until| until <= now))
            .map(|entry| (entry.handed_until, entry.contact.id))
            .collect();
        let all = fit.len();
        self.rng.sample(&mut fit, all);
        fit.sort_by_key(|(handed, _)| *handed);
        let mut records = Vec::new();
        for (_, id) in fit.into_iter().take(self.wanted) {
            if let Some(entry) = self.table.get_mut(id) {
                let pause = self.config.handout_pause.saturating_mul(1 << entry.dial_failures.min(16));
                entry.handed_until = Some(now + pause.min(self.config.handout_cap));
                records.push(entry.contact.record.clone());
            }
        }
        self.wanted -= records.len();
        if !records.is_empty() {
            fx.emit(Out::Candidates(records));
        }
        let next = self.table.entries().filter(|entry| dialable(entry)).filter_map(|entry| entry.handed_until).min();
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
