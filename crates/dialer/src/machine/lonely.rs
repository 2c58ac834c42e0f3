//! A node without any peer of its own choice dials its bootnodes itself, one after the other.

use peerage_machine::Time;
use peerage_wire::NodeId;

use super::{DialerMachine, Fx, Timer};
use crate::{MAX_BOOTNODES, StaticPeer};

#[derive(Debug, Default)]
pub(super) struct Lonely {
    /// At most [`MAX_BOOTNODES`], each with an address.
    bootnodes: Vec<StaticPeer>,
    /// Whose turn it is.
    next: usize,
    /// Since when there has been no dialled or static peer that stayed, or since the last turn. Visitors do not count:
    /// they cost whoever sends them nothing.
    since: Option<Time>,
    /// There is no such peer, and the timer of the next turn runs.
    running: bool,
    /// It is time for a bootnode; dialled with the next slot.
    due: bool,
}

impl Lonely {
    pub(super) fn is_bootnode(&self, id: &NodeId) -> bool {
        self.bootnodes.iter().any(|bootnode| bootnode.id == *id)
    }

    pub(super) fn expired(&mut self, now: Time) {
        self.running = false;
        self.due = true;
        self.since = Some(now);
    }

    /// A peer that has left had stayed for long enough.
    pub(super) fn had_company(&mut self) {
        self.due = false;
        self.since = None;
    }
}

impl DialerMachine {
    pub(super) fn set_bootnodes(&mut self, bootnodes: Vec<StaticPeer>) {
        self.lonely.bootnodes = bootnodes
            .into_iter()
            .map(|bootnode| StaticPeer::new(bootnode.id, bootnode.addresses))
            .filter(|bootnode| bootnode.id != self.id && !bootnode.addresses.is_empty())
            .take(MAX_BOOTNODES)
            .collect();
        self.lonely.next = 0;
    }

    /// Whether it is with somebody whom it chose itself. Who only came may be all of one mind, and not its friends.
    fn has_company(&self) -> bool {
        self.peers.iter().any(|(id, dialled)| *dialled || self.statics.contains(id))
    }

    /// Lets the timer run while there is no such peer. Looked at after every event, so that none can be missed.
    pub(super) fn mind_loneliness(&mut self, now: Time, fx: &mut Fx) {
        if !self.has_company() {
            if !std::mem::replace(&mut self.lonely.running, true) {
                let since = *self.lonely.since.get_or_insert(now);
                fx.arm(Timer::Lonely, now.max(since + self.config.lonely_after));
            }
        } else if std::mem::take(&mut self.lonely.running) {
            fx.disarm(Timer::Lonely);
        }
    }

    /// Dials a bootnode if it is time and there is a slot. It need not fit into the memory of dials, as a
    /// candidate must: nodes that failed could otherwise keep a lonely node from the ones it trusts most.
    pub(super) fn dial_bootnode(&mut self, now: Time, fx: &mut Fx) {
        if !self.lonely.due || self.has_company() || self.free_slots() == 0 {
            return;
        }
        for _ in 0..self.lonely.bootnodes.len() {
            let Some(bootnode) = self.lonely.bootnodes.get(self.lonely.next) else { return };
            let StaticPeer { id, addresses } = bootnode.clone();
            self.lonely.next = (self.lonely.next + 1) % self.lonely.bootnodes.len();
            if !self.statics.contains(&id) && self.check(now, &id, &addresses).is_ok() {
                self.lonely.due = false;
                let attempt = self.begin(now, id, false);
                return self.dial(now, attempt, addresses, fx);
            }
        }
    }
}
