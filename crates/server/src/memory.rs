//! What the root remembers across restarts, by way of the node database.

use std::net::IpAddr;
use std::time::Duration;

use peerage_nodedb::Anchor;
use peerage_wire::{Banned, NodeId, NodeRecord, Verified};

use crate::actor::State;
use crate::ingress::ServerMsg;
use crate::remembered::ip_of;

/// How often what is too old is forgotten.
pub(crate) const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

impl State {
    /// Discovery has had answers from where this record says.
    pub(crate) fn remember(&mut self, record: &Verified<NodeRecord>) {
        self.remember_at(record, ip_of(record));
    }

    /// A node with this record has answered at `ip`. That is no proof of other addresses that the record names: they
    /// may be somebody else's.
    pub(crate) fn remember_at(&mut self, record: &Verified<NodeRecord>, ip: Option<IpAddr>) {
        let now = self.clock.now();
        let is_news = self.db.put_record(record, now);
        if let Some(ip) = ip {
            self.db.pong_received(record.id(), ip, now);
        }
        if is_news && self.driver.machine().is_trusted(&record.id()) {
            self.privilege();
        }
    }

    pub(crate) fn remember_ban(&self, banned: Banned, time: Duration) {
        let now = self.clock.now();
        self.db.ban(banned, now.unix().saturating_add(time), now);
    }

    pub(crate) fn remember_blame(&self, id: NodeId, points: u32) {
        self.db.set_score(id, u64::from(points) * 1_000, self.clock.now().unix());
    }

    pub(crate) fn remember_anchors(&self, ids: &[NodeId]) {
        let now = self.clock.now().unix();
        let session_of = |id: &NodeId| self.sessions.values().find(|session| session.meta.id == *id);
        let earlier = self.db.anchors(self.clock.now());
        let anchor = |id: &NodeId| match session_of(id) {
            Some(session) => {
                let lived = now.saturating_sub(session.connected_at);
                Some(Anchor { record: session.record.clone(), since: session.connected_at, lived })
            }
            None => earlier.iter().find(|anchor| anchor.id() == *id).cloned(),
        };
        self.db.set_anchors(ids.iter().filter_map(anchor).collect());
    }

    pub(crate) fn expire_memory(&mut self) {
        let nodes = self.db.expire(self.clock.now());
        tracing::debug!(nodes, "forgotten");
        self.later(EXPIRE_EVERY, ServerMsg::Expire);
    }
}
