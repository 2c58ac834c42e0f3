//! An attacker's peers in gossip.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_gossip::{In, Out, Outgoing};
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_wire::frame::Lane;

/// Whom an attacker can send to.
#[derive(Default)]
pub(super) struct Crowd(BTreeMap<SessionId, ChannelId>);

impl Crowd {
    /// Notes who comes and goes.
    pub(super) fn notes(&mut self, input: &In) {
        match input {
            In::PeerUp(up) => drop(self.0.insert(up.session, up.channel)),
            In::PeerDown { session } => drop(self.0.remove(session)),
            _ => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everybody.
    pub(super) fn all(&self) -> Vec<Recipient> {
        self.0.iter().map(|(session, channel)| Recipient { session: *session, channel: *channel }).collect()
    }

    /// Everybody in two halves.
    pub(super) fn halves(&self) -> [Vec<Recipient>; 2] {
        let mut all = self.all();
        let other = all.split_off(all.len() / 2);
        [all, other]
    }
}

/// The tag of what attackers send; that it did not arrive is nothing to them.
pub(super) const TAG: u64 = u64::MAX;

pub(super) fn push(to: Vec<Recipient>, lane: Lane, bytes: Bytes) -> Out {
    Out::Push(Outgoing { to, lane, bytes, drop_oldest: true, tag: TAG })
}
