//! Nodes that answered and stopped: they are asked again now and then, as a whole part of the network may come back.
//!
//! Without this, two halves of a network that could not reach each other for a minute forget each other for good: each
//! has a full table of its own (a scenario of the simulated world, `partition-lasting`, shows it).

use std::collections::VecDeque;
use std::time::Duration;

use peerage_machine::{Backoff, Time};
use peerage_wire::NodeId;
use peerage_wire::address::site;

use super::requests::Purpose;
use super::table::Contact;
use super::{DiscoveryMachine, Fx, Timer};
use crate::wire::Message;

/// Lost nodes that are remembered; the oldest makes room.
const MAX_LOST: usize = 32;
/// Those of one site.
const MAX_OF_SITE: usize = 2;
/// How many are asked at once.
const AT_ONCE: usize = 8;
/// Pauses between the questions to one of them.
const PAUSE: Backoff = Backoff { base: Duration::from_secs(20), cap: Duration::from_secs(10 * 60) };
/// Questions without an answer after which a node is forgotten: at the longest pause, after about two hours.
const MAX_MISSES: u32 = 16;

struct Gone {
    contact: Contact,
    misses: u32,
    due: Time,
}

/// The lost nodes.
#[derive(Default)]
pub(super) struct Lost(VecDeque<Gone>);

impl Lost {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn forget(&mut self, id: NodeId) {
        self.0.retain(|gone| gone.contact.id != id);
    }
}

impl DiscoveryMachine {
    /// A node that had answered left the table because it does not any more.
    pub(super) fn lose(&mut self, now: Time, contact: Contact, fx: &mut Fx) {
        self.lost.forget(contact.id);
        let of_site = |gone: &&Gone| site(gone.contact.addr.ip()) == site(contact.addr.ip());
        if !self.config.exempt(contact.addr.ip()) && self.lost.0.iter().filter(of_site).count() >= MAX_OF_SITE {
            return;
        }
        if self.lost.0.len() >= MAX_LOST {
            self.lost.0.pop_front();
        }
        let due = now + PAUSE.delay(1, &mut self.rng);
        self.lost.0.push_back(Gone { contact, misses: 0, due });
        self.schedule_regain(fx);
    }

    fn schedule_regain(&self, fx: &mut Fx) {
        match self.lost.0.iter().map(|gone| gone.due).min() {
            Some(due) => fx.arm(Timer::Regain, due),
            None => fx.disarm(Timer::Regain),
        }
    }

    /// Asks those whose time has come. One that answers shows its record next, as whoever speaks to us does, and so
    /// comes back into the table if there is a place.
    pub(super) fn regain(&mut self, now: Time, fx: &mut Fx) {
        let mut due = Vec::new();
        for gone in self.lost.0.iter_mut().filter(|gone| gone.due <= now).take(AT_ONCE) {
            gone.misses += 1;
            gone.due = now + PAUSE.delay(gone.misses + 1, &mut self.rng);
            due.push((gone.contact.id, gone.contact.addr));
        }
        self.lost.0.retain(|gone| gone.misses <= MAX_MISSES);
        for (id, addr) in due {
            if self.table.get(id).is_some() {
                // It came back by itself.
                self.lost.forget(id);
                continue;
            }
            let ping = Message::Ping { record_seq: self.local.seq() };
            self.ask(now, id, addr, ping, Purpose::Regain, fx);
        }
        self.schedule_regain(fx);
    }

    /// A lost node answered.
    pub(super) fn regained(&mut self, id: NodeId, fx: &mut Fx) {
        self.lost.forget(id);
        self.schedule_regain(fx);
    }
}
