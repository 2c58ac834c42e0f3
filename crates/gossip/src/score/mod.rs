//! How good a peer is: gossipsub v1.1's score P1 to P7, in integers.
//!
//! | part | what | |
//! |---|---|---|
//! | P1 | time in meshes | + |
//! | P2 | messages delivered first | + |
//! | P3 | too few deliveries in a mesh, P3b: when it left one | − |
//! | P4 | invalid messages, squared | − |
//! | P5 | what the application says | ± |
//! | P6 | too many nodes of one host or site, squared | − |
//! | P7 | bad behaviour above a threshold, squared: broken promises, grafts during back-off, floods | − |
//! | slow | what did not fit the peer's queue, up to a cap | − |
//!
//! It differs from gossipsub where that has a gap:
//!
//! - Credit is capped before anything is taken from it. In gossipsub what exceeds the cap pays for invalid messages.
//! - A node that leaves is remembered for whatever it did wrong, below the threshold of P7 too. In gossipsub a peer
//!   whose score is positive is forgotten altogether, so that who has credit leaves, comes back, and starts to break
//!   promises anew. What it did well is forgotten at once; what it did wrong does not decay while it is away.
//! - A score belongs to a node, not to a session.
//! - P1 is capped over all topics, below the threshold of opportunistic grafting: sitting in meshes is not a merit.
//! - P3 counts the share of what the topic really carried since the peer came into the mesh, so a quiet topic owes
//!   nothing and a fast one costs no more than a slow one. It is off unless configured; see
//!   [`TopicScoring::silence_cost`].
//! - P6 counts sites (IPv4 /24, IPv6 /48) beside hosts.
//!
//! A peer takes 0.2 KiB, and 0.1 KiB more for each topic on which it did anything of late, of which
//! [`ScoreConfig::max_topics`] are counted apart: 30 KiB at most. Nodes that have left: see [`ScoreConfig::retained`].

mod config;
mod decay;
mod places;
mod record;
mod retained;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::NodeId;
use peerage_wire::address::is_local;

pub use self::config::{MAX_VALUE, POINT, ScoreConfig, ScoreConfigError, TopicScoring};
pub use self::record::Breakdown;

use self::decay::Keep;
use self::places::Places;
use self::record::{Record, TopicKeep};
use self::retained::Retained;
use crate::message::Topic;

/// The scores of all peers, and of some that have left. Calls for sessions that are not up change nothing.
#[derive(Debug)]
pub struct Scores {
    config: ScoreConfig,
    keeps: Keeps,
    sessions: BTreeMap<SessionId, Seat>,
    /// Boxed, as a tree has room for more than twice what it holds.
    nodes: BTreeMap<NodeId, Box<Record>>,
    retained: Retained,
    places: Places,
    /// What each topic carried of late, in thousandths of a message, for what is due of it.
    carried: BTreeMap<Topic, i64>,
    /// The step until which all has decayed.
    stepped: u64,
}

/// A session.
#[derive(Debug)]
struct Seat {
    node: NodeId,
    /// Its node's, beside it: it is asked for with every message, and a node's record is two look-ups away.
    standing: i64,
}

/// How much each counter keeps in one step.
#[derive(Debug)]
struct Keeps {
    behaviour: Keep,
    slow: Keep,
    topic: TopicKeep,
    topics: BTreeMap<Topic, TopicKeep>,
}

impl Keeps {
    fn new(config: &ScoreConfig) -> Keeps {
        let keep = |duration| Keep::over(duration, config.interval);
        let topic = |scoring: &TopicScoring| TopicKeep::over(scoring, config.interval);
        Keeps {
            behaviour: keep(config.behaviour_decay),
            slow: keep(config.slow_decay),
            topic: topic(&config.topic),
            topics: config.topics.iter().map(|(name, scoring)| (name.clone(), topic(scoring))).collect(),
        }
    }

    /// In so many steps.
    fn steps(&self, steps: u64) -> Keeps {
        Keeps {
            behaviour: self.behaviour.steps(steps),
            slow: self.slow.steps(steps),
            topic: self.topic.steps(steps),
            topics: self.topics.iter().map(|(name, keep)| (name.clone(), keep.steps(steps))).collect(),
        }
    }

    fn topic(&self, topic: &Topic) -> &TopicKeep {
        self.topics.get(topic).unwrap_or(&self.topic)
    }
}

impl TopicKeep {
    fn over(scoring: &TopicScoring, interval: Duration) -> TopicKeep {
        let keep = |duration| Keep::over(duration, interval);
        TopicKeep {
            first: keep(scoring.first_decay),
            silence: keep(scoring.silence_decay),
            debt: keep(scoring.debt_decay),
            invalid: keep(scoring.invalid_decay),
        }
    }
}

impl Scores {
    /// No peers yet. The configuration must be [valid](ScoreConfig::validate).
    pub fn new(config: ScoreConfig) -> Scores {
        Scores {
            keeps: Keeps::new(&config),
            sessions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            retained: Retained::new(config.retained),
            places: Places::default(),
            carried: BTreeMap::new(),
            stepped: 0,
            config,
        }
    }

    /// What it goes by.
    pub fn config(&self) -> &ScoreConfig {
        &self.config
    }

    /// Lets a topic count so from now on, which must be [admissible](ScoreConfig::admits); as those that are not named if
    /// none. What peers have done on it stays.
    pub fn set_topic(&mut self, topic: &Topic, scoring: Option<TopicScoring>) {
        if let Some(scoring) = scoring {
            self.keeps.topics.insert(topic.clone(), TopicKeep::over(&scoring, self.config.interval));
            self.config.topics.insert(topic.clone(), scoring);
        } else {
            self.keeps.topics.remove(topic);
            self.config.topics.remove(topic);
        }
    }

    /// A peer is here, with an IP address unless that is not known or not its own.
    pub fn up(&mut self, now: Time, session: SessionId, node: NodeId, host: Option<IpAddr>) {
        if self.sessions.contains_key(&session) {
            return;
        }
        self.retained.expire(now.running());
        if self.nodes.is_empty() {
            // Nobody's counters have to catch up with the time in which nobody was here.
            self.stepped = self.step(now);
            self.carried.clear();
        }
        let host = host.filter(|ip| !(self.config.exempt_local && is_local(*ip)));
        let retained = &mut self.retained;
        let record = self.nodes.entry(node).or_insert_with(|| retained.take(&node).unwrap_or_default());
        self.sessions.insert(session, Seat { node, standing: record.standing });
        if let Some(ip) = host {
            self.places.enter(ip, record.hosts());
        }
        // Few nodes have more than one.
        record.sessions.reserve_exact(1);
        record.sessions.push((session, host));
        self.work_out(now, &node);
    }

    /// A session has ended. What the node did wrong is remembered, and it leaves the meshes it was in with this
    /// session.
    pub fn down(&mut self, now: Time, session: SessionId) {
        let Some(Seat { node, .. }) = self.sessions.remove(&session) else { return };
        let Some(record) = self.nodes.get_mut(&node) else { return };
        let carried = &self.carried;
        record.part(now.running(), session, |topic| carried.get(topic).copied().unwrap_or(0), &self.config);
        if let Some(at) = record.sessions.iter().position(|(other, _)| *other == session)
            && let (_, Some(ip)) = record.sessions.remove(at)
        {
            self.places.leave(ip, record.hosts());
        }
        if record.sessions.is_empty()
            && let Some(mut record) = self.nodes.remove(&node)
        {
            record.keep_the_bad(now, &self.config);
            self.retained.insert(node, record, now.running() + self.config.retain_for);
        }
    }

    /// A peer came into this node's mesh of a topic (P1, P3). Once it is in, with any of its sessions, nothing changes.
    pub fn grafted(&mut self, now: Time, session: SessionId, topic: &Topic) {
        let carried = self.carried(topic);
        let most = self.config.max_topics;
        if let Some(record) = self.record(session) {
            record.graft(now.running(), session, topic, carried, most);
        }
    }

    /// A peer left this node's mesh of a topic, whoever pruned (P1, P3b).
    pub fn pruned(&mut self, now: Time, session: SessionId, topic: &Topic) {
        let carried = self.carried(topic);
        if let Some(record) = self.sessions.get(&session).and_then(|seat| self.nodes.get_mut(&seat.node)) {
            record.prune(now.running(), session, topic, carried, &self.config);
        }
    }

    /// A peer delivered a valid message before all others (P2, P3). To be told once a message.
    pub fn first(&mut self, session: SessionId, topic: &Topic) {
        let Some(record) = self.sessions.get(&session).and_then(|seat| self.nodes.get_mut(&seat.node)) else { return };
        record.first(topic, &self.config);
        if let Some(carried) = self.carried.get_mut(topic) {
            *carried = carried.saturating_add(POINT).min(MAX_VALUE);
        } else if self.carried.len() < self.config.max_topics {
            self.carried.insert(topic.clone(), POINT);
        }
    }

    /// A peer delivered a valid message a little after the first (P3): while that was checked, or within a window that
    /// the caller sets. To be told once a message and peer.
    pub fn near_first(&mut self, session: SessionId, topic: &Topic) {
        if let Some(record) = self.record(session) {
            record.near_first(topic);
        }
    }

    /// A peer delivered an invalid message (P4).
    pub fn invalid(&mut self, now: Time, session: SessionId, topic: &Topic) {
        let Some(node) = self.node(session) else { return };
        if let Some(record) = self.nodes.get_mut(&node) {
            record.invalid(topic, &self.config);
        }
        self.work_out(now, &node);
    }

    /// A peer behaved badly (P7), by so many thousandths: [`POINT`] for a broken promise or a graft during back-off.
    pub fn behaved_badly(&mut self, now: Time, session: SessionId, thousandths: i64) {
        let Some(node) = self.node(session) else { return };
        if let Some(record) = self.nodes.get_mut(&node) {
            record.behave_badly(thousandths);
        }
        self.work_out(now, &node);
    }

    /// What the application thinks of a node (P5), in thousandths of a point, in place of what it said before. What is
    /// said of a node that is not here is remembered if it is negative, like what a node did wrong; what is positive
    /// ends with its last session.
    pub fn application(&mut self, now: Time, node: NodeId, thousandths: i64) {
        let cap = self.config.application_cap;
        let value = thousandths.clamp(-cap, cap);
        if let Some(record) = self.nodes.get_mut(&node) {
            record.application = value;
            return self.work_out(now, &node);
        }
        let until = self.retained.until(&node);
        let mut record = self.retained.take(&node).unwrap_or_default();
        record.application = value;
        record.keep_the_bad(now, &self.config);
        let until = until.filter(|_| value >= 0).unwrap_or(now.running() + self.config.retain_for);
        self.retained.insert(node, record, until);
    }

    /// A message did not fit a peer's queue.
    pub fn slow(&mut self, now: Time, session: SessionId) {
        let Some(node) = self.node(session) else { return };
        if let Some(record) = self.nodes.get_mut(&node) {
            record.slow();
        }
        self.work_out(now, &node);
    }

    /// A peer's score, in thousandths of a point; 0 for a session that is not up.
    pub fn score(&self, now: Time, session: SessionId) -> i64 {
        self.explain(now, session).score
    }

    /// A peer's score as of the last [`tick`](Scores::tick), or when it came or did wrong if that was later. It costs
    /// one look-up, and is meant for what is asked with every message.
    pub fn standing(&self, session: SessionId) -> i64 {
        self.sessions.get(&session).map_or(0, |seat| seat.standing)
    }

    /// Each part of a peer's score by itself.
    pub fn explain(&self, now: Time, session: SessionId) -> Breakdown {
        self.sessions.get(&session).map_or_else(Breakdown::default, |seat| self.parts(now, &seat.node, None))
    }

    /// The same without what the peer did on other topics. A mesh whose peers have earned all their credit elsewhere is
    /// an eclipsed topic; the median for opportunistic grafting should come from here.
    pub fn explain_topic(&self, now: Time, session: SessionId, topic: &Topic) -> Breakdown {
        self.sessions.get(&session).map_or_else(Breakdown::default, |seat| self.parts(now, &seat.node, Some(topic)))
    }

    /// What is remembered of a node that has left.
    pub fn retained(&self, node: &NodeId) -> Option<i64> {
        self.retained.get(node).map(|record| record.standing)
    }

    /// How many nodes are scored, and how many that have left are remembered.
    pub fn len(&self) -> (usize, usize) {
        (self.nodes.len(), self.retained.len())
    }

    /// Whether nobody is scored or remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// Lets time pass, in whole steps of [`ScoreConfig::interval`] since the last time; to be called at each heartbeat.
    /// It costs a multiplication for each counter that is not zero, whatever the number of steps.
    pub fn tick(&mut self, now: Time) {
        self.retained.expire(now.running());
        let step = self.step(now);
        let steps = step.saturating_sub(self.stepped);
        if steps > 0 {
            self.stepped = step;
            self.decay(steps);
        }
        let Scores { config, places, carried, sessions, .. } = self;
        for record in self.nodes.values_mut() {
            stand(record, now, carried, places, config, sessions);
        }
    }

    fn step(&self, now: Time) -> u64 {
        u64::try_from(now.running().as_nanos() / self.config.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    fn decay(&mut self, steps: u64) {
        if self.nodes.is_empty() && self.carried.is_empty() {
            return;
        }
        let keeps = self.keeps.steps(steps);
        self.carried.retain(|topic, carried| {
            keeps.topic(topic).silence.decay(carried);
            *carried > 0
        });
        let of = |topic: &Topic| keeps.topic(topic);
        self.nodes.values_mut().for_each(|record| record.decay(of, &keeps.topic, keeps.behaviour, keeps.slow));
    }

    fn carried(&self, topic: &Topic) -> i64 {
        self.carried.get(topic).copied().unwrap_or(0)
    }

    fn node(&self, session: SessionId) -> Option<NodeId> {
        self.sessions.get(&session).map(|seat| seat.node)
    }

    fn record(&mut self, session: SessionId) -> Option<&mut Record> {
        self.nodes.get_mut(&self.sessions.get(&session)?.node).map(Box::as_mut)
    }

    fn parts(&self, now: Time, node: &NodeId, only: Option<&Topic>) -> Breakdown {
        let Some(record) = self.nodes.get(node) else { return Breakdown::default() };
        parts(record, now, &self.carried, &self.places, &self.config, only)
    }

    fn work_out(&mut self, now: Time, node: &NodeId) {
        if let Some(record) = self.nodes.get_mut(node) {
            stand(record, now, &self.carried, &self.places, &self.config, &mut self.sessions);
        }
    }
}

fn parts(
    record: &Record,
    now: Time,
    carried: &BTreeMap<Topic, i64>,
    places: &Places,
    config: &ScoreConfig,
    only: Option<&Topic>,
) -> Breakdown {
    let crowd = record.hosts().map(|ip| crowd(places, config, ip)).max().unwrap_or(0);
    record.breakdown(now.running(), |topic| carried.get(topic).copied().unwrap_or(0), crowd, only, config)
}

/// What the crowd at an address costs each of it.
fn crowd(places: &Places, config: &ScoreConfig, ip: IpAddr) -> i64 {
    let (host, site) = places.crowd(ip);
    let square = |count: usize, threshold: usize| {
        let above = i64::try_from(count.saturating_sub(threshold)).unwrap_or(i64::MAX).min(1_000);
        above * above
    };
    let squares = square(host, config.host_threshold) + square(site, config.site_threshold);
    squares * config.crowd_cost
}

/// Works out a node's score, and tells its sessions if it has changed.
fn stand(
    record: &mut Record,
    now: Time,
    carried: &BTreeMap<Topic, i64>,
    places: &Places,
    config: &ScoreConfig,
    sessions: &mut BTreeMap<SessionId, Seat>,
) {
    let standing = parts(record, now, carried, places, config, None).score;
    if std::mem::replace(&mut record.standing, standing) == standing {
        return;
    }
    for (session, _) in &record.sessions {
        if let Some(seat) = sessions.get_mut(session) {
            seat.standing = standing;
        }
    }
}
