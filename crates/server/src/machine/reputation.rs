//! Who is blamed for what, how it is forgotten, and whom it gets banned.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::{Decaying, Time};
use peerage_wire::address::{Host, host, site};
use peerage_wire::{Banned, DisconnectReason, IpNet, NodeId, Penalty};

use super::{Fx, Out, Restored, ServerMachine, Timer};
use crate::config::Reputation;

/// Nodes blamed, and identities banned: the one that is nearest to being forgotten makes room for a new one.
const MAX_NODES: usize = 4096;
/// Networks banned, likewise. Each is compared with every address that comes in.
const MAX_NETWORKS: usize = 512;
/// Hosts of which it is remembered how many of their identities were banned.
const MAX_HOSTS: usize = 1024;

/// What is remembered of nodes that did wrong.
pub(super) struct Reputations {
    config: Reputation,
    /// Of nodes, not of sessions, or a new session would wipe the slate.
    blamed: BTreeMap<NodeId, Decaying>,
    ids: BTreeMap<NodeId, Time>,
    networks: BTreeMap<IpNet, Time>,
    /// When identities of a host were banned, at most [`Reputation::host_ban_after`] times its factor each.
    hosts: BTreeMap<Host, VecDeque<Time>>,
}

impl Reputations {
    pub(super) const fn disconnect_at(&self) -> u32 {
        self.config.disconnect_at
    }

    pub(super) fn new(config: Reputation) -> Reputations {
        Reputations {
            config,
            blamed: BTreeMap::new(),
            ids: BTreeMap::new(),
            networks: BTreeMap::new(),
            hosts: BTreeMap::new(),
        }
    }

    /// What is held against whom stays, and counts by the new weights and thresholds from now on.
    pub(super) fn limit(&mut self, config: Reputation) {
        self.config = config;
    }

    pub(super) fn blamed(&self) -> usize {
        self.blamed.len()
    }

    pub(super) fn points(&self, now: Time, id: &NodeId) -> u32 {
        self.blamed.get(id).map_or(0, |score| score.points(now, self.config.half_life))
    }

    pub(super) fn is_banned(&self, now: Time, id: &NodeId, ip: IpAddr) -> bool {
        self.ids.get(id).is_some_and(|until| *until > now)
            || self.networks.iter().any(|(network, until)| *until > now && network.contains(&ip))
    }

    pub(super) fn bans(&self) -> impl Iterator<Item = (Banned, Time)> {
        let ids = self.ids.iter().map(|(id, until)| (Banned::Id(*id), *until));
        ids.chain(self.networks.iter().map(|(network, until)| (Banned::Network(*network), *until)))
    }

    pub(super) fn banned_networks(&self) -> impl Iterator<Item = IpNet> {
        self.networks.keys().copied()
    }

    fn until(&self, banned: &Banned) -> Option<Time> {
        match banned {
            Banned::Id(id) => self.ids.get(id).copied(),
            Banned::Network(network) => self.networks.get(network).copied(),
        }
    }

    fn remove(&mut self, banned: &Banned) -> bool {
        match banned {
            Banned::Id(id) => self.ids.remove(id).is_some(),
            Banned::Network(network) => self.networks.remove(network).is_some(),
        }
    }

    /// Bans, and says which other ban was forgotten for it; `Err` if all that are remembered last longer.
    fn insert(&mut self, banned: Banned, until: Time) -> Result<Option<Banned>, ()> {
        match banned {
            Banned::Id(id) => Ok(insert_bounded(&mut self.ids, id, until, MAX_NODES)?.map(Banned::Id)),
            Banned::Network(network) => {
                Ok(insert_bounded(&mut self.networks, network, until, MAX_NETWORKS)?.map(Banned::Network))
            }
        }
    }

    /// Adds what a penalty costs; a cap keeps it below.
    fn add(&mut self, now: Time, id: NodeId, points: u32, cap: u32) -> u32 {
        let half_life = self.config.half_life;
        if self.blamed.len() >= MAX_NODES && !self.blamed.contains_key(&id) {
            self.blamed.retain(|_, score| score.thousandths(now, half_life) > 0);
        }
        if self.blamed.len() >= MAX_NODES && !self.blamed.contains_key(&id) {
            let least = self.blamed.iter().min_by_key(|(_, score)| score.thousandths(now, half_life));
            if let Some(least) = least.map(|(id, _)| *id) {
                self.blamed.remove(&least);
            }
        }
        self.blamed.entry(id).or_insert(Decaying::new(now, 0)).add(now, half_life, points, cap)
    }

    /// Notes that an identity of this host was banned; the host, if it was the last of so many.
    fn note_host(&mut self, now: Time, ip: IpAddr, limit: u32) -> Option<IpNet> {
        if limit == 0 {
            return None;
        }
        let host = host(ip);
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host) {
            let stalest = self.hosts.iter().min_by_key(|(_, bans)| bans.back().copied());
            if let Some(stalest) = stalest.map(|(host, _)| *host) {
                self.hosts.remove(&stalest);
            }
        }
        let bans = self.hosts.entry(host).or_default();
        bans.retain(|at| now.since(*at) <= self.config.ban_time);
        bans.push_back(now);
        if bans.len() < limit as usize {
            return None;
        }
        self.hosts.remove(&host);
        Some(host.network())
    }
}

/// Inserts, at the cost of the entry that ends first when there are `max`; answers that one. `Err` if that would have
/// lasted longer than what was to be inserted: who invents offenders must not wear bans out that were meant to last.
fn insert_bounded<K: Ord + Copy>(
    map: &mut BTreeMap<K, Time>,
    key: K,
    until: Time,
    max: usize,
) -> Result<Option<K>, ()> {
    let mut lost = None;
    if map.len() >= max && !map.contains_key(&key) {
        let soonest = map.iter().min_by_key(|(_, until)| **until).map(|(key, until)| (*key, *until));
        if let Some((key, ends)) = soonest {
            if ends > until {
                return Err(());
            }
            map.remove(&key);
            lost = Some(key);
        }
    }
    map.insert(key, until);
    Ok(lost)
}

impl ServerMachine {
    /// Counts what a node did, and draws the consequence.
    pub(super) fn blame(&mut self, now: Time, id: NodeId, ip: Option<IpAddr>, penalty: Penalty, fx: &mut Fx) {
        if id == self.own || self.reputations.ids.get(&id).is_some_and(|until| *until > now) {
            return;
        }
        let config = &self.reputations.config;
        let (disconnect_at, ban_at, ban_time) = (config.disconnect_at, config.ban_at, config.ban_time);
        // A trusted peer can be dropped and not banned.
        let cap = if self.trusted.contains(&id) { ban_at - 1 } else { u32::MAX };
        let points = self.reputations.add(now, id, self.reputations.config.weight(penalty), cap);
        if points >= ban_at {
            self.reputations.blamed.remove(&id);
            fx.emit(Out::Blamed(id, penalty, points));
            fx.emit(Out::Forgiven(id));
            self.end(&id, DisconnectReason::Misbehaved, fx);
            self.ban(now, Banned::Id(id), ban_time, fx);
            if let Some(ip) = ip.filter(|ip| !self.config.is_exempt(*ip))
                && let limit = self.reputations.config.host_ban_after.saturating_mul(self.config.factor(ip))
                && let Some(host) = self.reputations.note_host(now, ip, limit)
                && !self.houses_friends(&host)
            {
                self.ban(now, Banned::Network(host), ban_time, fx);
            }
            return;
        }
        fx.emit(Out::Blamed(id, penalty, points));
        if points >= disconnect_at {
            self.end(&id, DisconnectReason::Misbehaved, fx);
        }
    }

    /// Whether a static or trusted peer lives at this host: it is not banned for its neighbours.
    fn houses_friends(&self, host: &IpNet) -> bool {
        self.homes.iter().chain(self.seen_at.values()).any(|ip| host.contains(ip))
    }

    /// Refuses a node or a network for `time`, and ends what sessions there are with it.
    pub(super) fn ban(&mut self, now: Time, banned: Banned, time: Duration, fx: &mut Fx) {
        let until = now + time;
        if self.reputations.until(&banned).is_some_and(|already| already >= until) {
            return;
        }
        if let Ok(lost) = self.reputations.insert(banned, until) {
            lost.into_iter().for_each(|lost| fx.emit(Out::Unbanned(lost)));
            fx.emit(Out::Banned(banned, time));
        }
        self.arm_bans(fx);
        let is_banned = |meta: &super::Meta| match &banned {
            Banned::Id(id) => meta.id == *id,
            Banned::Network(network) => network.contains(&meta.ip),
        };
        let ids: Vec<NodeId> =
            self.peers.values().map(|peer| &peer.meta).filter(|meta| is_banned(meta)).map(|meta| meta.id).collect();
        ids.iter().for_each(|id| self.end(id, DisconnectReason::Banned, fx));
        if let Banned::Network(_) = banned {
            fx.emit(Out::Admission(self.admission()));
        }
    }

    pub(super) fn unban(&mut self, banned: Banned, fx: &mut Fx) {
        if self.reputations.remove(&banned) {
            fx.emit(Out::Unbanned(banned));
            if let Banned::Network(_) = banned {
                fx.emit(Out::Admission(self.admission()));
            }
            self.arm_bans(fx);
        }
    }

    /// A node that is trusted starts with a clean slate.
    pub(super) fn forgive(&mut self, id: &NodeId, fx: &mut Fx) {
        if self.reputations.blamed.remove(id).is_some() {
            fx.emit(Out::Forgiven(*id));
        }
        if self.reputations.ids.remove(id).is_some() {
            fx.emit(Out::Unbanned(Banned::Id(*id)));
        }
    }

    pub(super) fn bans_over(&mut self, now: Time, fx: &mut Fx) {
        let over: Vec<Banned> =
            self.reputations.bans().filter(|(_, until)| *until <= now).map(|(banned, _)| banned).collect();
        over.into_iter().for_each(|banned| self.unban(banned, fx));
        self.arm_bans(fx);
    }

    fn arm_bans(&self, fx: &mut Fx) {
        match self.reputations.bans().map(|(_, until)| until).min() {
            Some(until) => fx.arm(Timer::Bans, until),
            None => fx.disarm(Timer::Bans),
        }
    }

    pub(super) fn restore(&mut self, now: Time, restored: Restored, fx: &mut Fx) {
        for (banned, left) in restored.bans {
            // There are no more of them than there may be.
            let _ = self.reputations.insert(banned, now + left);
        }
        for (id, points) in restored.blame.into_iter().take(MAX_NODES) {
            self.reputations.blamed.insert(id, Decaying::new(now, points));
        }
        let anchors = restored.anchors.into_iter().take(self.config.max_anchors);
        self.anchors = anchors.map(|(id, ip)| (id, site(ip))).collect();
        self.arm_bans(fx);
        fx.emit(Out::Admission(self.admission()));
    }
}
