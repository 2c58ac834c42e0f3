//! What the root does to its peers when nothing else happens: drops those without use, lets one go now and then so
//! that a full network is used evenly, and remembers the best.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Time;
use peerage_peer_session::handshake::Direction;
use peerage_queue::SessionId;
use peerage_wire::address::{Site, site};
use peerage_wire::{DisconnectReason, NodeId};

use super::admit::Peer;
use super::{Fx, Out, ServerMachine, Timer};

/// How often it is looked for peers without use.
const USELESS_EVERY: Duration = Duration::from_secs(10);
/// How often the anchors are chosen.
pub(super) const ANCHORS_EVERY: Duration = Duration::from_secs(60);
/// An anchor has been a peer for this long.
const ANCHOR_AGE: Duration = Duration::from_secs(300);
/// Anchors of one site (/24, /48).
const ANCHORS_PER_SITE: usize = 2;

impl ServerMachine {
    pub(super) fn arm_upkeep(&mut self, now: Time, fx: &mut Fx) {
        fx.arm(Timer::Useless, now + USELESS_EVERY);
        fx.arm(Timer::Anchors, now + ANCHORS_EVERY);
        self.arm_churn(now, fx);
    }

    /// Whether limits and upkeep apply to a peer.
    fn is_ordinary(&self, peer: &Peer) -> bool {
        !peer.ending && !self.statics.contains(&peer.meta.id) && !self.trusted.contains(&peer.meta.id)
    }

    /// Drops peers that have nothing in common with this node, the oldest first, while more than half of the places
    /// are taken. Below that they do no harm, and may come to have something.
    pub(super) fn drop_useless(&mut self, now: Time, fx: &mut Fx) {
        fx.arm(Timer::Useless, now + USELESS_EVERY);
        let grace = self.config.useless_after;
        let ordinary = self.peers.values().filter(|peer| self.is_ordinary(peer));
        let mut useless: Vec<(Time, NodeId)> = ordinary
            .filter(|peer| peer.useless_since.is_some_and(|since| now.since(since) >= grace))
            .map(|peer| (peer.since, peer.meta.id))
            .collect();
        useless.sort_unstable();
        let places = self.places(None);
        let ending = self.peers.values().filter(|peer| peer.ending).count();
        let taken = (places.inbound + places.dialled) as usize;
        let spare = taken.saturating_sub(ending).saturating_sub(self.config.max_peers as usize / 2);
        for (_, id) in useless.into_iter().take(spare) {
            self.end(&id, DisconnectReason::Useless, fx);
        }
    }

    fn arm_churn(&mut self, now: Time, fx: &mut Fx) {
        if let Some(churn) = &self.config.churn {
            let span = churn.longest.saturating_sub(churn.shortest).as_millis();
            let extra = self.rng.below(u64::try_from(span).unwrap_or(u64::MAX).saturating_add(1));
            fx.arm(Timer::Churn, now + churn.shortest + Duration::from_millis(extra));
        }
    }

    pub(super) fn churn_due(&mut self, now: Time, fx: &mut Fx) {
        self.arm_churn(now, fx);
        fx.emit(Out::Weigh);
    }

    /// geth's dropper (eth/dropper.go): of each pool that is full, inbound and dialled, one random peer goes that is
    /// not trusted, static, young, or among the tenth that brought most.
    pub(super) fn churn(&mut self, now: Time, contributions: &BTreeMap<SessionId, u64>, fx: &mut Fx) {
        let Some(churn) = self.config.churn.clone() else { return };
        let places = self.places(None);
        let dial_share = self.config.dial_share;
        let pools = [
            (Direction::Inbound, places.inbound >= self.config.max_peers - dial_share),
            (Direction::Outbound, places.dialled >= dial_share),
        ];
        for (direction, full) in pools {
            if !full {
                continue;
            }
            let pool = self.peers.values().filter(|peer| peer.meta.direction == direction && self.is_ordinary(peer));
            let mut pool: Vec<(u64, NodeId, Time)> = pool
                .map(|peer| (contributions.get(&peer.session).copied().unwrap_or(0), peer.meta.id, peer.since))
                .collect();
            pool.sort_unstable_by_key(|(brought, id, _)| (Reverse(*brought), *id));
            let kept = pool.len().div_ceil(10);
            let candidates: Vec<NodeId> = pool
                .into_iter()
                .skip(kept)
                .filter(|(_, _, since)| now.since(*since) >= churn.min_age)
                .map(|(_, id, _)| id)
                .collect();
            if let Some(id) = self.rng.index(candidates.len()).and_then(|index| candidates.get(index)) {
                // The true reason for the other end: its place goes to somebody else.
                self.end(id, DisconnectReason::TooManyPeers, fx);
            }
        }
    }

    /// The peers that this node dialled, has had longest and has least against, few of each site, or somebody could be
    /// all that a restarted node knows. Those of the last time fill the rest: a node that is cut off comes back to where
    /// it was.
    pub(super) fn choose_anchors(&mut self, now: Time, fx: &mut Fx) {
        let old_enough = |peer: &Peer| peer.meta.dialled() && now.since(peer.since) >= ANCHOR_AGE;
        let ordinary = self.peers.values().filter(|peer| !peer.ending && !self.statics.contains(&peer.meta.id));
        let mut best: Vec<(u32, Time, NodeId, Site)> = ordinary
            .filter(|peer| old_enough(peer))
            .map(|peer| (self.blame_of(now, &peer.meta.id), peer.since, peer.meta.id, site(peer.meta.ip)))
            .collect();
        best.sort_unstable();
        let disconnect_at = self.reputations.disconnect_at();
        let earlier = self.anchors.iter().copied();
        let candidates = best.into_iter().map(|(_, _, id, site)| (id, site)).chain(earlier);
        let mut anchors: Vec<(NodeId, Site)> = Vec::new();
        for (id, site) in candidates {
            let known = anchors.iter().any(|(other, _)| *other == id);
            let at = site.network().addr();
            let bad = self.blame_of(now, &id) >= disconnect_at || self.reputations.is_banned(now, &id, at);
            let of_site = anchors.iter().filter(|(_, other)| *other == site).count();
            let crowded = of_site >= ANCHORS_PER_SITE && !self.config.is_exempt(at);
            if !known && !bad && !crowded && anchors.len() < self.config.max_anchors {
                anchors.push((id, site));
            }
        }
        if !anchors.is_empty() && anchors != self.anchors {
            fx.emit(Out::Anchors(anchors.iter().map(|(id, _)| *id).collect()));
            self.anchors = anchors;
        }
    }
}
