//! The rule: what is remembered, what is forgotten for what, and when it expires. Plain and synchronous.

mod bounded;
#[cfg(feature = "disk")]
mod dirty;
mod entries;
#[cfg(feature = "disk")]
mod load;
mod sites;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_wire::{NodeId, NodeRecord, Verified};

use crate::Config;
use bounded::Bounded;
pub use entries::Anchor;
pub(crate) use entries::{Ban, Held, HeldAnchor, Key, Millis, Node, Proof, Score, millis};
#[cfg(feature = "disk")]
pub(crate) use load::{Batch, Row};
pub(crate) use peerage_wire::Banned;
use sites::Sites;

/// How many entries of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Nodes with a record.
    pub records: usize,
    /// Proofs, by id and address.
    pub proofs: usize,
    /// Bans, of identities and of networks, that have not been swept yet.
    pub bans: usize,
    /// Scores.
    pub scores: usize,
    /// Anchors.
    pub anchors: usize,
}

/// Everything that is remembered.
#[derive(Debug)]
pub(crate) struct Book {
    config: Config,
    /// At most [`Config::nodes`], changed by `take_node` and `put_node` alone.
    nodes: Bounded<NodeId, Node>,
    sites: Sites,
    /// [`Config::bans_by_id`] of one kind and [`Config::bans_by_network`] of the other.
    banned_ids: Bounded<Banned, Ban>,
    banned_networks: Bounded<Banned, Ban>,
    scores: Bounded<NodeId, Score>,
    /// At most [`Config::anchors`].
    anchors: Vec<HeldAnchor>,
    /// What the disk does not have yet. `None` without a disk.
    #[cfg(feature = "disk")]
    dirty: Option<dirty::Dirty>,
    counts: Entries,
    /// Records that turned out not to be signed by their owner.
    unverified: u64,
}

impl Book {
    pub(crate) fn new(config: Config) -> Book {
        Book {
            nodes: Bounded::new(config.nodes),
            sites: Sites::default(),
            banned_ids: Bounded::new(config.bans_by_id),
            banned_networks: Bounded::new(config.bans_by_network),
            scores: Bounded::new(config.scores),
            anchors: Vec::new(),
            #[cfg(feature = "disk")]
            dirty: None,
            counts: Entries::default(),
            unverified: 0,
            config,
        }
    }

    pub(crate) fn entries(&self) -> Entries {
        Entries {
            bans: self.banned_ids.len() + self.banned_networks.len(),
            scores: self.scores.len(),
            anchors: self.anchors.len(),
            ..self.counts
        }
    }

    pub(crate) fn unverified(&self) -> u64 {
        self.unverified
    }

    /// The disk does not have this as it is now.
    #[cfg(feature = "disk")]
    fn touch(&mut self, key: Key) {
        if let Some(dirty) = &mut self.dirty {
            dirty.touch(key);
        }
    }

    #[cfg(not(feature = "disk"))]
    fn touch(&mut self, _key: Key) {}

    /// Takes a node out, to change it and put it back.
    fn take_node(&mut self, id: &NodeId) -> Option<Node> {
        let node = self.nodes.remove(id)?;
        self.uncount(*id, &node);
        Some(node)
    }

    fn uncount(&mut self, id: NodeId, node: &Node) {
        self.counts.records -= usize::from(node.record.is_some());
        self.counts.proofs -= node.proofs.len();
        self.sites.remove(id, node);
    }

    fn put_node(&mut self, id: NodeId, node: Node) {
        self.counts.records += usize::from(node.record.is_some());
        self.counts.proofs += node.proofs.len();
        let crowded = self.sites.insert(id, &node, self.config.nodes_per_site);
        if let Some((forgotten, node)) = self.nodes.put(id, node) {
            self.uncount(forgotten, &node);
            self.touch_node(forgotten, &node);
        }
        if let Some(crowded) = crowded
            && let Some(node) = self.take_node(&crowded)
        {
            self.touch_node(crowded, &node);
        }
    }

    /// All keys of a node that has gone.
    fn touch_node(&mut self, id: NodeId, node: &Node) {
        if node.record.is_some() {
            self.touch(Key::Record(id));
        }
        for ip in node.proofs.keys() {
            self.touch(Key::Proof(id, *ip));
        }
    }

    pub(crate) fn put_record(&mut self, record: &Verified<NodeRecord>, now: Time) -> bool {
        let id = record.id();
        if self
            .nodes
            .get(&id)
            .and_then(|node| node.record.as_ref())
            .is_some_and(|held| held.record.seq() >= record.seq())
        {
            return false;
        }
        let mut node = self.take_node(&id).unwrap_or_default();
        node.record = Some(Held::checked(record));
        node.heard = millis(now.unix());
        self.put_node(id, node);
        self.touch(Key::Record(id));
        self.nodes.get(&id).is_some()
    }

    pub(crate) fn record(&mut self, id: &NodeId) -> Option<Verified<NodeRecord>> {
        if let Some(Held { record, checked: true }) = self.nodes.get(id)?.record.as_ref() {
            return Some(Verified::assume(record.clone()));
        }
        let mut node = self.take_node(id)?;
        let verified = node.record.as_mut().and_then(Held::verified);
        if node.record.is_some() && verified.is_none() {
            node.record = None;
            self.unverified += 1;
            self.touch(Key::Record(*id));
        }
        if !node.is_empty() {
            self.put_node(*id, node);
        }
        verified
    }

    /// Changes what is known of a node at an address. One address over the limit replaces the oldest.
    pub(crate) fn prove(&mut self, id: NodeId, ip: IpAddr, now: Time, change: impl FnOnce(&mut Proof, Millis)) {
        let (ip, now) = (ip.to_canonical(), millis(now.unix()));
        let mut node = self.take_node(&id).unwrap_or_default();
        let proof = node.proofs.entry(ip).or_default();
        change(proof, now);
        proof.touched = now;
        self.touch(Key::Proof(id, ip));
        if node.proofs.len() > self.config.addresses {
            let keep = (self.config.addresses > 0).then_some(ip);
            if let Some(forgotten) = node.forget_address(keep) {
                self.touch(Key::Proof(id, forgotten));
            }
        }
        if !node.is_empty() {
            self.put_node(id, node);
        }
    }

    /// What is known of a node at an address. Nothing lies in the future.
    pub(crate) fn proof(&self, id: &NodeId, ip: IpAddr, now: Time) -> Option<Proof> {
        let proof = self.nodes.get(id)?.proofs.get(&ip.to_canonical())?;
        Some(proof.clamped(millis(now.unix())))
    }

    pub(crate) fn seeds(
        &mut self,
        count: usize,
        max_age: Duration,
        now: Time,
        rng: &mut Rng,
    ) -> Vec<Verified<NodeRecord>> {
        let (now, max_age) = (millis(now.unix()), millis(max_age));
        let fresh = |pong| pong > 0 && now.saturating_sub(pong) <= max_age;
        let mut candidates: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.record.is_some() && fresh(node.youngest_pong()))
            .map(|(id, _)| id)
            .collect();
        let mut seeds = Vec::with_capacity(count.min(candidates.len()));
        while seeds.len() < count
            && let Some(index) = rng.index(candidates.len())
        {
            let id = candidates.swap_remove(index);
            if self.nodes.get(&id).is_some_and(|node| fresh(node.pong_from_record())) {
                seeds.extend(self.record(&id));
            }
        }
        seeds
    }

    /// Forgets what is too old, and brings what lies in the future back to now. Answers how many nodes have gone.
    pub(crate) fn expire(&mut self, now: Time) -> usize {
        let now = millis(now.unix());
        let nodes = self.expire_nodes(now);
        self.expire_bans(now);
        self.expire_scores(now);
        for place in 0..self.anchors.len() {
            if self.anchors[place].since > now {
                self.anchors[place].since = now;
                self.touch(anchor_key(place));
            }
        }
        nodes
    }

    fn expire_nodes(&mut self, now: Millis) -> usize {
        let oldest = now.saturating_sub(millis(self.config.proof_lifetime));
        let due: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| {
                node.stands_from() < oldest
                    || node.heard > now
                    || node.proofs.values().any(|proof| proof.stands_from() < oldest || proof.clamped(now) != *proof)
            })
            .map(|(id, _)| id)
            .collect();
        let mut gone = 0;
        for id in due {
            let Some(mut node) = self.take_node(&id) else { continue };
            if node.stands_from() < oldest {
                self.touch_node(id, &node);
                gone += 1;
                continue;
            }
            if node.heard > now {
                node.heard = now;
                self.touch(Key::Record(id));
            }
            let mut changed = Vec::new();
            for (ip, proof) in node.proofs.iter_mut() {
                let clamped = proof.clamped(now);
                if clamped != *proof || proof.stands_from() < oldest {
                    changed.push(*ip);
                    *proof = clamped;
                }
            }
            node.proofs.retain(|_, proof| proof.stands_from() >= oldest);
            for ip in changed {
                self.touch(Key::Proof(id, ip));
            }
            self.put_node(id, node);
        }
        gone
    }

    fn bans_of(&mut self, banned: &Banned) -> &mut Bounded<Banned, Ban> {
        match banned {
            Banned::Id(_) => &mut self.banned_ids,
            Banned::Network(_) => &mut self.banned_networks,
        }
    }

    fn expire_bans(&mut self, now: Millis) {
        let all = self.banned_ids.iter().chain(self.banned_networks.iter());
        let changed: Vec<(Banned, Ban)> = all
            .map(|(banned, ban)| (banned, *ban, ban.clamped(now)))
            .filter(|(_, ban, clamped)| clamped != ban || clamped.until <= now)
            .map(|(banned, _, clamped)| (banned, clamped))
            .collect();
        for (banned, ban) in changed {
            let bans = self.bans_of(&banned);
            if ban.until > now {
                bans.put(banned, ban);
            } else {
                bans.remove(&banned);
            }
            self.touch(Key::Ban(banned));
        }
    }

    fn expire_scores(&mut self, now: Millis) {
        let oldest = now.saturating_sub(millis(self.config.score_lifetime));
        let due: Vec<_> = self
            .scores
            .iter()
            .filter(|(_, score)| score.at < oldest || score.at > now)
            .map(|(id, score)| (id, *score))
            .collect();
        for (id, score) in due {
            if score.at > now {
                self.scores.put(id, Score { at: now, ..score });
            } else {
                self.scores.remove(&id);
            }
            self.touch(Key::Score(id));
        }
    }

    pub(crate) fn ban(&mut self, banned: Banned, until: Duration, now: Time) -> bool {
        let banned = banned.canonical();
        let (from, until) = (millis(now.unix()), millis(until));
        if until <= from {
            return false;
        }
        let bans = self.bans_of(&banned);
        let forgotten = bans.put(banned, Ban { from, until });
        let kept = bans.get(&banned).is_some();
        self.touch(Key::Ban(banned));
        if let Some((forgotten, _)) = forgotten {
            self.touch(Key::Ban(forgotten));
        }
        kept
    }

    pub(crate) fn unban(&mut self, banned: Banned) -> bool {
        let banned = banned.canonical();
        let known = self.bans_of(&banned).remove(&banned).is_some();
        if known {
            self.touch(Key::Ban(banned));
        }
        known
    }

    /// Bans that hold, and until when.
    pub(crate) fn bans(&self, now: Time) -> Vec<(Banned, Duration)> {
        let now = millis(now.unix());
        let all = self.banned_ids.iter().chain(self.banned_networks.iter());
        all.map(|(banned, ban)| (banned, ban.clamped(now).until))
            .filter(|(_, until)| *until > now)
            .map(|(banned, until)| (banned, Duration::from_millis(until)))
            .collect()
    }

    pub(crate) fn set_score(&mut self, id: NodeId, thousandths: u64, at: Duration) {
        let known = self.scores.get(&id).is_some();
        let forgotten = if thousandths == 0 {
            self.scores.remove(&id);
            None
        } else {
            self.scores.put(id, Score { thousandths, at: millis(at) })
        };
        if known || self.scores.get(&id).is_some() {
            self.touch(Key::Score(id));
        }
        if let Some((forgotten, _)) = forgotten {
            self.touch(Key::Score(forgotten));
        }
    }

    /// Scores as they were told, none of them in the future.
    pub(crate) fn scores(&self, now: Time) -> Vec<(NodeId, u64, Duration)> {
        let now = millis(now.unix());
        let at = |score: &Score| Duration::from_millis(score.at.min(now));
        self.scores.iter().map(|(id, score)| (id, score.thousandths, at(score))).collect()
    }

    pub(crate) fn set_anchors(&mut self, anchors: Vec<Anchor>) {
        let held = |anchor: Anchor| HeldAnchor {
            held: Held::checked(&anchor.record),
            since: millis(anchor.since),
            lived: millis(anchor.lived),
        };
        let before = self.anchors.len();
        self.anchors = anchors.into_iter().take(self.config.anchors.min(255)).map(held).collect();
        for place in 0..before.max(self.anchors.len()) {
            self.touch(anchor_key(place));
        }
    }

    pub(crate) fn anchors(&mut self, now: Time) -> Vec<Anchor> {
        let (now, before) = (millis(now.unix()), self.anchors.len());
        let mut anchors = Vec::with_capacity(before);
        self.anchors.retain_mut(|anchor| {
            let Some(record) = anchor.held.verified() else { return false };
            let since = Duration::from_millis(anchor.since.min(now));
            anchors.push(Anchor { record, since, lived: Duration::from_millis(anchor.lived) });
            true
        });
        if self.anchors.len() < before {
            self.unverified += (before - self.anchors.len()) as u64;
            (0..before).for_each(|place| self.touch(anchor_key(place)));
        }
        anchors
    }
}

fn anchor_key(place: usize) -> Key {
    Key::Anchor(u8::try_from(place).expect("at most 255 anchors are kept"))
}
