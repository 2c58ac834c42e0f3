//! What an earlier process of the node remembered, as its machines are told of it at the start.

use std::net::IpAddr;
use std::time::Duration;

use peerage_dialer::StaticPeer;
use peerage_machine::{Decaying, Rng, Time};
use peerage_nodedb::NodeDb;
use peerage_wire::{NodeRecord, Verified};

use crate::machine::Restored;

/// Remembered nodes that discovery starts with (geth: `seedCount`).
const SEEDS: usize = 30;
/// Nodes that were last seen longer ago are no seeds (geth: `seedMaxAge`).
const SEED_AGE: Duration = Duration::from_secs(5 * 24 * 3600);

/// What the run loop starts with.
pub fn restored(db: &NodeDb, now: Time, half_life: Duration) -> Restored {
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
pub fn seeds(db: &NodeDb, now: Time, rng: &mut Rng) -> Vec<Verified<NodeRecord>> {
    db.seeds(SEEDS, SEED_AGE, now, rng)
}

/// Where a node answers, as its record says.
pub(crate) fn ip_of(record: &NodeRecord) -> Option<IpAddr> {
    record.udp_address().or_else(|| record.tcp_address()).map(|socket| socket.ip())
}

/// Whom the dialer dials first.
pub fn anchors(db: &NodeDb, now: Time) -> Vec<StaticPeer> {
    db.anchors(now).iter().map(|anchor| StaticPeer::from(&*anchor.record)).collect()
}
