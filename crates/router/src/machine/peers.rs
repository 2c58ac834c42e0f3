//! The sessions, the peers behind them, and what they are forgiven.

use std::collections::{BTreeMap, BTreeSet};

use peerage_machine::{Effects, QuotaTable, Time};
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_wire::{NodeId, Penalty};

use super::contract::{Count, Out, PeerUp, Timer};
use super::places::Part;
use crate::config::Config;
use crate::resilience::{Members, Sampler};

/// Sessions whose small faults are counted apart; far more than a node has.
const FORGIVEN_SESSIONS: usize = 16_384;

#[derive(Debug)]
pub(super) struct Peers {
    sessions: BTreeMap<SessionId, (NodeId, ChannelId)>,
    by_id: BTreeMap<NodeId, BTreeSet<SessionId>>,
    pub(super) sampler: Sampler,
    pub(super) members: Members,
    /// Of the members that are connected, together.
    weight: u128,
    forgiven: QuotaTable<SessionId>,
}

impl Peers {
    pub(super) fn new(config: &Config) -> Peers {
        Peers {
            sessions: BTreeMap::new(),
            by_id: BTreeMap::new(),
            sampler: Sampler::default(),
            members: Members::default(),
            weight: 0,
            forgiven: QuotaTable::new(config.forgiven, FORGIVEN_SESSIONS),
        }
    }

    pub(super) fn up(&mut self, up: PeerUp) {
        self.sessions.insert(up.session, (up.id, up.channel));
        let sessions = self.by_id.entry(up.id).or_default();
        if sessions.is_empty() {
            self.weight += u128::from(self.members.weight(&up.id));
        }
        sessions.insert(up.session);
        self.sampler.add(up.id);
    }

    /// The peer whose session it was, and whether it has no other.
    pub(super) fn down(&mut self, session: SessionId) -> Option<(NodeId, bool)> {
        let (id, _) = self.sessions.remove(&session)?;
        let left = self.by_id.get_mut(&id).is_some_and(|sessions| {
            sessions.remove(&session);
            !sessions.is_empty()
        });
        if !left {
            self.by_id.remove(&id);
            self.sampler.remove(&id);
            self.weight -= u128::from(self.members.weight(&id));
        }
        Some((id, !left))
    }

    /// The members are now these.
    pub(super) fn say_members(&mut self, now: Time, weights: BTreeMap<NodeId, u64>) {
        self.members.say(now, weights);
        self.weight = self.by_id.keys().map(|id| u128::from(self.members.weight(id))).sum();
    }

    /// What of every limit is kept for this peer: its weight's part among the members that are connected.
    pub(super) fn part(&self, id: &NodeId, kept: u8) -> Part {
        Part { kept, weight: self.members.weight(id), total: self.weight }
    }

    pub(super) fn id(&self, session: SessionId) -> Option<NodeId> {
        self.sessions.get(&session).map(|(id, _)| *id)
    }

    pub(super) fn recipient(&self, session: SessionId) -> Option<Recipient> {
        self.sessions.get(&session).map(|(_, channel)| Recipient { session, channel: *channel })
    }

    /// The peer's session, its latest if it has two.
    pub(super) fn session(&self, id: &NodeId) -> Option<SessionId> {
        self.by_id.get(id).and_then(|sessions| sessions.last().copied())
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Something that is a fault if it comes often.
    pub(super) fn forgive(&mut self, now: Time, session: SessionId, count: Count, fx: &mut Effects<Out, Timer>) {
        fx.emit(Out::Count(count));
        if !self.forgiven.take(now, &session) {
            fx.emit(Out::Report { session, penalty: Penalty::ControlFlood });
        }
    }
}
