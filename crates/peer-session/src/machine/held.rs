//! Time in which nothing is read, because the peer has used its bandwidth: it is not held against the peer.

use std::time::Duration;

use peerage_machine::Time;

use super::SessionMachine;

/// While reading waits, what is due is looked at again after so long.
pub(super) const HELD_LOOK: Duration = Duration::from_secs(1);

impl SessionMachine {
    /// Reading waits, or goes on: then the time it waited is taken out of all that the peer had so long for.
    pub(super) fn hold(&mut self, now: Time, held: bool) {
        if held {
            self.held = self.held.or(Some(now));
            return;
        }
        let Some(since) = self.held.take() else { return };
        let waited = now.since(since);
        self.heard += waited;
        // Their answers may have lain there.
        self.pings.clear();
        for flow in &mut self.flows {
            flow.credit.postpone(waited);
            if let Some(partial) = &mut flow.partial {
                partial.postpone(waited);
            }
        }
    }
}
