//! Messages of a peer that are being handled: so many at a time (`avalanchego throttling/inbound_msg_buffer_throttler.go`).

use peerage_machine::Time;

use super::slots::Slots;
use super::{Take, Throttle};
use crate::HolderId;

#[derive(Debug, Default)]
struct InHand {
    messages: u64,
    waits: bool,
}

/// Counts for each holder the messages that were handed on and are not done with. A flood of tiny messages, which costs
/// few bytes of credit, is held up by it.
#[derive(Debug)]
pub struct Processing {
    most: u64,
    holders: Slots<InHand>,
}

impl Processing {
    /// So many messages a holder; at least one.
    pub fn new(most: u64) -> Processing {
        Processing { most: most.max(1), holders: Slots::new() }
    }

    /// Another bound, for what is taken from now on.
    pub fn set_most(&mut self, most: u64) {
        self.most = most.max(1);
    }

    /// Messages of this holder.
    pub fn held(&self, holder: HolderId) -> u64 {
        self.holders.get(holder).map_or(0, |held| held.messages)
    }
}

impl Throttle for Processing {
    fn join(&mut self, _: Time, _: u64) -> HolderId {
        self.holders.join(InHand::default())
    }

    /// Weight does not matter here: the bound is one peer's, and takes nothing from another.
    fn set_weight(&mut self, _: Time, _: HolderId, _: u64) {}

    fn leave(&mut self, _: Time, holder: HolderId) {
        self.holders.leave(holder);
    }

    fn take(&mut self, _: Time, holder: HolderId, wanted: u64) -> Take {
        let Some(held) = self.holders.get_mut(holder) else { return Take::Later(None) };
        let fits = wanted.min(self.most.saturating_sub(held.messages));
        held.messages += fits;
        held.waits = fits == 0 && wanted > 0;
        if fits > 0 { Take::Now(fits) } else { Take::Later(None) }
    }

    fn give_back(&mut self, _: Time, holder: HolderId, count: u64) {
        if let Some(held) = self.holders.get_mut(holder) {
            held.messages = held.messages.saturating_sub(count);
        }
    }

    fn cancel(&mut self, holder: HolderId) {
        if let Some(held) = self.holders.get_mut(holder) {
            held.waits = false;
        }
    }

    fn waiting(&self) -> usize {
        self.holders.iter().filter(|held| held.waits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_message_of_three_waits_and_another_peer_does_not() {
        let (mut processing, now) = (Processing::new(3), Time::ZERO);
        let (one, other) = (processing.join(now, 0), processing.join(now, 0));
        assert_eq!(processing.take(now, one, 2), Take::Now(2));
        assert_eq!(processing.take(now, one, 2), Take::Now(1), "as many as there is room for");
        assert_eq!((processing.take(now, one, 1), processing.waiting()), (Take::Later(None), 1));
        assert_eq!(processing.take(now, one, 1), Take::Later(None), "the same wait");
        assert_eq!(processing.waiting(), 1);
        assert_eq!(processing.take(now, other, 3), Take::Now(3));
        processing.give_back(now, one, 1);
        assert_eq!((processing.take(now, one, 1), processing.waiting()), (Take::Now(1), 0));
    }

    #[test]
    fn who_gives_up_waiting_has_taken_nothing_and_who_leaves_gives_all_back() {
        let (mut processing, now) = (Processing::new(1), Time::ZERO);
        let gone = processing.join(now, 0);
        assert_eq!((processing.take(now, gone, 1), processing.take(now, gone, 1)), (Take::Now(1), Take::Later(None)));
        processing.cancel(gone);
        assert_eq!((processing.waiting(), processing.held(gone)), (0, 1));
        processing.leave(now, gone);
        let next = processing.join(now, 0);
        assert_eq!(processing.take(now, next, 1), Take::Now(1), "its place is empty");
        processing.give_back(now, gone, 1);
        assert_eq!(processing.held(next), 1, "what comes late is nobody's");
    }
}
