//! Asking nodes that were told of for a first sign of life: the dialer gets only who answered, and so do others.

use peerage_machine::Time;

use super::origin::in_turn;
use super::requests::Purpose;
use super::{DiscoveryMachine, Fx};
use crate::wire::Message;

/// First signs of life asked for at once: whoever tells us of many nodes that are not there makes us send no more than
/// this in a [time-out](crate::Config::request_timeout) (2018's geth bonded with as many).
pub(super) const MAX_PROOFS: usize = 16;
/// The same while nobody waits for them: names that a liar invented must not stay in the table until the revalidation
/// comes to them.
const MAX_IDLE_PROOFS: usize = 2;

impl DiscoveryMachine {
    /// Asks as many as may be asked at once; the others have their turn as answers come or fail to.
    pub(super) fn prove(&mut self, now: Time, fx: &mut Fx) {
        // What a lookup comes to is asked by it.
        if !self.unproven || self.wanted == 0 && !self.lookups.is_empty() {
            return;
        }
        let at_once = if self.wanted > 0 { MAX_PROOFS } else { MAX_IDLE_PROOFS };
        let under_way = self.requests.count(|request| request.purpose == Purpose::Prove);
        let count = at_once.saturating_sub(under_way);
        if count == 0 {
            return;
        }
        let mut unproven = self.table.unproven();
        // First whoever has a place; when all of them were asked, who would have one.
        if unproven.is_empty() {
            unproven = self.table.rivals();
        }
        let all = unproven.len();
        // The answer to whatever a node was asked is a sign of life.
        unproven.retain(|(_, (id, _))| !self.requests.any(|request| request.to == *id));
        self.unproven = all > 0;
        let had = self.table.entries().filter(|entry| entry.live || entry.asked).map(|entry| entry.origin);
        let unproven = in_turn(&mut self.rng, self.config.fair_shares, had, unproven);
        for (id, addr) in unproven.into_iter().take(count) {
            self.table.asked(id);
            let ping = Message::Ping { record_seq: self.local.seq() };
            if !self.ask(now, id, addr, ping, Purpose::Prove, fx) {
                // Too much is under way: the revalidation comes to it.
                return;
            }
        }
    }
}
