//! What the root remembers across restarts, by way of the node database.

use std::net::IpAddr;
use std::time::Duration;

use peerage_dialer::StaticPeer;
use peerage_machine::{Decaying, Rng, Time};
use peerage_nodedb::{Anchor, NodeDb};
use peerage_wire::address::{tcp_socket, udp_socket};
use peerage_wire::{Banned, NodeId, NodeRecord, Verified};

use crate::actor::State;
use crate::ingress::ServerMsg;
use crate::machine::Restored;

/// How often what is too old is forgotten.
pub(crate) const EXPIRE_EVERY: Duration = Duration::from_secs(3600);
/// Remembered nodes that discovery starts with (geth: `seedCount`).
const SEEDS: usize = 30;
/// Nodes that were last seen longer ago are no seeds (geth: `seedMaxAge`).
const SEED_AGE: Duration = Duration::from_secs(5 * 24 * 3600);

/// What the run loop starts with.
pub(crate) fn restored(db: &NodeDb, now: Time, half_life: Duration) -> Restored {
    let left = |until: Duration| until.saturating_sub(now.unix());
    let bans = db.bans(now).into_iter().map(|(banned, until)| (banned, left(until))).collect();
    let faded = |thousandths: u64, at: Duration| {
        let age = now.unix().saturating_sub(at);
        let points = u32::try_from(thousandths / 1_000).unwrap_or(u32::MAX);
        Decaying::new(Time::ZERO, points).points(Time::ZERO + age, half_life)
    };
    let blame = db.scores(now).into_iter().map(|(id, score, at)| (id, faded(score, at)));
    let anchors = db.anchors(now).into_iter().filter_map(|anchor| Some((anchor.id(), ip_of(&anchor.record)?)));
    Restored { bans, blame: blame.filter(|(_, points)| *points > 0).collect(), anchors: anchors.collect() }
}

/// What discovery starts with.
pub(crate) fn seeds(db: &NodeDb, now: Time, rng: &mut Rng) -> Vec<Verified<NodeRecord>> {
    db.seeds(SEEDS, SEED_AGE, now, rng)
}

/// Where a node answers, as its record says.
fn ip_of(record: &NodeRecord) -> Option<IpAddr> {
    let udp = record.addresses().iter().find_map(udp_socket);
    udp.or_else(|| record.addresses().iter().find_map(tcp_socket)).map(|socket| socket.ip())
}

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

    /// Whom the dialer dials first.
    pub(crate) fn anchors(&self) -> Vec<StaticPeer> {
        self.db.anchors(self.clock.now()).iter().map(|anchor| StaticPeer::from(&*anchor.record)).collect()
    }

    pub(crate) fn expire_memory(&mut self) {
        let nodes = self.db.expire(self.clock.now());
        tracing::debug!(nodes, "forgotten");
        self.later(EXPIRE_EVERY, ServerMsg::Expire);
    }
}
