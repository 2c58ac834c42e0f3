//! What is known of one node, and what it comes to.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use litemap::LiteMap;
use peerage_machine::Time;
use peerage_queue::SessionId;

use super::config::{MAX_VALUE, POINT, ScoreConfig, TopicScoring};
use super::decay::Keep;
use crate::message::Topic;

/// The most that a counter counts, in thousandths: a million.
const MAX_COUNT: i64 = 1_000_000 * POINT;
/// The most that one part of a score can be.
const MAX_PART: i64 = MAX_VALUE * 1_000_000;
/// Topics on which a node did wrong that are remembered apart once it has left.
const KEPT_TOPICS: usize = 8;

/// A score and what it is made of, in thousandths of a point; the parts add up to the score. Costs are negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakdown {
    /// The score.
    pub score: i64,
    /// P1: time in meshes.
    pub in_mesh: i64,
    /// P2: messages delivered first, as far as all topics together may give.
    pub firsts: i64,
    /// P3: too few deliveries in a mesh it is in.
    pub silence: i64,
    /// P3b: too few deliveries in meshes it was in.
    pub debt: i64,
    /// P4: invalid messages.
    pub invalid: i64,
    /// P5: what the application says.
    pub application: i64,
    /// P6: others in the same place.
    pub crowd: i64,
    /// P7: bad behaviour.
    pub behaviour: i64,
    /// What did not fit its queue.
    pub slow: i64,
}

impl Breakdown {
    fn sum(mut self) -> Breakdown {
        let parts = [self.in_mesh, self.firsts, self.silence, self.debt, self.invalid];
        let others = [self.application, self.crowd, self.behaviour, self.slow];
        // Ten parts of at most MAX_PART are far from the end of 64 bits.
        self.score = parts.into_iter().chain(others).sum();
        self
    }
}

/// Whole points and thousandths, and only the parts that are not nothing: for a log line that says why.
impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = |f: &mut fmt::Formatter<'_>, value: i64| {
            let (whole, rest) = (value.unsigned_abs() / 1_000, value.unsigned_abs() % 1_000);
            write!(f, "{}{whole}.{rest:03}", if value < 0 { "-" } else { "" })
        };
        points(f, self.score)?;
        let parts = [
            ("in mesh", self.in_mesh),
            ("firsts", self.firsts),
            ("silence", self.silence),
            ("debt", self.debt),
            ("invalid", self.invalid),
            ("application", self.application),
            ("crowd", self.crowd),
            ("behaviour", self.behaviour),
            ("slow", self.slow),
        ];
        let mut before = ": ";
        for (name, value) in parts.into_iter().filter(|(_, value)| *value != 0) {
            write!(f, "{before}{name} ")?;
            points(f, value)?;
            before = ", ";
        }
        Ok(())
    }
}

/// What a node did on one topic. Counters are in thousandths and not negative.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicRecord {
    /// Since when, and with which session, it is in the mesh.
    mesh: Option<(Duration, SessionId)>,
    firsts: i64,
    /// What it delivered since it came into the mesh.
    delivered: i64,
    /// What the topic had carried when it came into the mesh.
    before: i64,
    /// Points that it owed when it left the mesh.
    debt: i64,
    invalid: i64,
}

impl TopicRecord {
    fn is_blank(&self) -> bool {
        self.mesh.is_none() && self.firsts == 0 && !self.is_bad()
    }

    fn is_bad(&self) -> bool {
        self.debt > 0 || self.invalid > 0
    }

    fn in_mesh(&self, now: Duration, scoring: &TopicScoring) -> i64 {
        let Some((since, _)) = self.mesh else { return 0 };
        let quanta = now.saturating_sub(since).as_nanos() / scoring.in_mesh_quantum.as_nanos().max(1);
        let quanta = i64::try_from(quanta).unwrap_or(i64::MAX);
        quanta.saturating_mul(scoring.in_mesh_reward).min(MAX_PART)
    }

    fn firsts(&self, scoring: &TopicScoring) -> i64 {
        times(self.firsts, scoring.first_reward)
    }

    /// Points for what it did not deliver of what the topic carried since it is in the mesh.
    fn silence(&self, now: Duration, carried: i64, scoring: &TopicScoring) -> i64 {
        let Some((since, _)) = self.mesh else { return 0 };
        let carried = carried.saturating_sub(self.before);
        if scoring.silence_cost == 0
            || now.saturating_sub(since) < scoring.silence_after
            || carried < scoring.silence_least.max(1)
        {
            return 0;
        }
        let due = times(carried, i64::from(scoring.silence_share)).max(1);
        // A share, not a number: or a fast topic would cost a thousand times what a slow one does.
        let missing = times(due.saturating_sub(self.delivered).max(0), 1_000_000) / due;
        times(times(missing, missing), scoring.silence_cost)
    }

    fn invalid(&self, scoring: &TopicScoring) -> i64 {
        times(times(self.invalid, self.invalid), scoring.invalid_cost)
    }

    fn leave_mesh(&mut self, now: Duration, carried: i64, scoring: &TopicScoring) {
        self.debt = self.debt.saturating_add(self.silence(now, carried, scoring)).min(MAX_PART);
        self.mesh = None;
        (self.delivered, self.before) = (0, 0);
    }
}

/// The product of two numbers of thousandths, within the bounds of a part.
fn times(a: i64, b: i64) -> i64 {
    // Each heartbeat asks for several of each peer, nearly all of them small, and a division of 128 bits is slow.
    let product = match a.checked_mul(b) {
        Some(product) => product / 1_000,
        None => i64::try_from(i128::from(a) * i128::from(b) / 1_000).unwrap_or(MAX_PART),
    };
    product.min(MAX_PART)
}

fn count(counter: &mut i64, by: i64, most: i64) {
    *counter = counter.saturating_add(by).min(most.min(MAX_COUNT)).max(*counter);
}

/// How the topics' counters decay in some steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicKeep {
    pub(super) first: Keep,
    pub(super) silence: Keep,
    pub(super) debt: Keep,
    pub(super) invalid: Keep,
}

impl TopicKeep {
    pub(super) fn steps(&self, steps: u64) -> TopicKeep {
        TopicKeep {
            first: self.first.steps(steps),
            silence: self.silence.steps(steps),
            debt: self.debt.steps(steps),
            invalid: self.invalid.steps(steps),
        }
    }
}

/// A node: one record for all its sessions, as a new session must not wipe the slate.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Its sessions and where they are.
    pub(super) sessions: Vec<(SessionId, Option<IpAddr>)>,
    /// Few, and most nodes have one: a tree would have room for eleven.
    topics: LiteMap<Topic, TopicRecord>,
    /// All topics for which there was no room apart.
    others: TopicRecord,
    /// Points for what it did on topics that were not remembered apart when it left.
    elsewhere: i64,
    behaviour: i64,
    slow: i64,
    /// What the application says.
    pub(super) application: i64,
    /// Its score, when it was last worked out.
    pub(super) standing: i64,
}

impl Record {
    /// Where its sessions are.
    pub(super) fn hosts(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.sessions.iter().filter_map(|(_, host)| *host)
    }

    fn topic(&mut self, topic: &Topic, most: usize) -> &mut TopicRecord {
        if !self.topics.contains_key(topic) {
            if self.topics.len() >= most {
                return &mut self.others;
            }
            if self.topics.is_empty() {
                self.topics = LiteMap::with_capacity(1);
            }
            self.topics.insert(topic.clone(), TopicRecord::default());
        }
        self.topics.get_mut(topic).unwrap_or(&mut self.others)
    }

    pub(super) fn graft(&mut self, now: Duration, session: SessionId, topic: &Topic, carried: i64, most: usize) {
        if self.topics.len() >= most && !self.topics.contains_key(topic) {
            return;
        }
        let record = self.topic(topic, most);
        if record.mesh.is_none() {
            *record = TopicRecord { mesh: Some((now, session)), delivered: 0, before: carried, ..record.clone() };
        }
    }

    pub(super) fn prune(
        &mut self,
        now: Duration,
        session: SessionId,
        topic: &Topic,
        carried: i64,
        config: &ScoreConfig,
    ) {
        if let Some(record) = self.topics.get_mut(topic)
            && record.mesh.is_some_and(|(_, with)| with == session)
        {
            record.leave_mesh(now, carried, config.topic(topic));
        }
    }

    /// Takes it out of the meshes that it was in with a session.
    pub(super) fn part(
        &mut self,
        now: Duration,
        session: SessionId,
        carried: impl Fn(&Topic) -> i64,
        config: &ScoreConfig,
    ) {
        for (topic, record) in self.topics.iter_mut() {
            if record.mesh.is_some_and(|(_, with)| with == session) {
                record.leave_mesh(now, carried(topic), config.topic(topic));
            }
        }
    }

    pub(super) fn first(&mut self, topic: &Topic, config: &ScoreConfig) {
        let record = self.topic(topic, config.max_topics);
        count(&mut record.firsts, POINT, config.topic(topic).first_cap);
        Record::deliver(record);
    }

    pub(super) fn near_first(&mut self, topic: &Topic) {
        if let Some(record) = self.topics.get_mut(topic) {
            Record::deliver(record);
        }
    }

    fn deliver(record: &mut TopicRecord) {
        if record.mesh.is_some() {
            count(&mut record.delivered, POINT, MAX_COUNT);
        }
    }

    pub(super) fn invalid(&mut self, topic: &Topic, config: &ScoreConfig) {
        count(&mut self.topic(topic, config.max_topics).invalid, POINT, MAX_COUNT);
    }

    pub(super) fn behave_badly(&mut self, thousandths: i64) {
        count(&mut self.behaviour, thousandths.max(0), MAX_COUNT);
    }

    pub(super) fn slow(&mut self) {
        count(&mut self.slow, POINT, MAX_COUNT);
    }

    /// All parts of the score; with a topic, its rewards and costs alone and no other topic's.
    pub(super) fn breakdown(
        &self,
        now: Duration,
        carried: impl Fn(&Topic) -> i64,
        crowd: i64,
        only: Option<&Topic>,
        config: &ScoreConfig,
    ) -> Breakdown {
        let mut parts = Breakdown { debt: -self.elsewhere, application: self.application, ..Breakdown::default() };
        let mut add = |record: &TopicRecord, carried: i64, scoring: &TopicScoring| {
            let within = |part: i64| part.clamp(-MAX_PART, MAX_PART);
            parts.in_mesh = within(parts.in_mesh + record.in_mesh(now, scoring));
            parts.firsts = within(parts.firsts + record.firsts(scoring));
            parts.silence = within(parts.silence - record.silence(now, carried, scoring));
            parts.debt = within(parts.debt - record.debt);
            parts.invalid = within(parts.invalid - record.invalid(scoring));
        };
        match only {
            Some(topic) => {
                if let Some(record) = self.topics.get(topic) {
                    add(record, carried(topic), config.topic(topic));
                }
            }
            None => {
                self.topics.iter().for_each(|(topic, record)| add(record, carried(topic), config.topic(topic)));
            }
        }
        add(&self.others, 0, &config.topic);
        // Credit has its bounds before anything is taken from it: or one could save up above them.
        parts.in_mesh = parts.in_mesh.min(config.in_mesh_cap).min(config.topic_cap);
        parts.firsts = parts.firsts.min(config.topic_cap - parts.in_mesh);
        let above = self.behaviour.saturating_sub(config.behaviour_threshold).max(0);
        parts.behaviour = -times(times(above, above), config.behaviour_cost);
        parts.slow = -times(self.slow, config.slow_cost).min(config.slow_cap);
        parts.crowd = -crowd;
        parts.sum()
    }

    /// Lets time pass. A topic that is back at nothing takes no memory.
    pub(super) fn decay<'a>(
        &mut self,
        topics: impl Fn(&Topic) -> &'a TopicKeep,
        others: &TopicKeep,
        behaviour: Keep,
        slow: Keep,
    ) {
        let decay = |record: &mut TopicRecord, keep: &TopicKeep| {
            keep.first.decay(&mut record.firsts);
            keep.silence.decay(&mut record.delivered);
            keep.silence.decay(&mut record.before);
            keep.debt.decay(&mut record.debt);
            keep.invalid.decay(&mut record.invalid);
        };
        self.topics.iter_mut().for_each(|(topic, record)| decay(record, topics(topic)));
        self.topics.retain(|_, record| !record.is_blank());
        decay(&mut self.others, others);
        behaviour.decay(&mut self.elsewhere);
        behaviour.decay(&mut self.behaviour);
        slow.decay(&mut self.slow);
    }

    /// Forgets what it did well, so that nobody banks credit by leaving, and brings what it did wrong to a bounded
    /// size.
    pub(super) fn keep_the_bad(&mut self, now: Time, config: &ScoreConfig) {
        for record in self.topics.iter_mut().map(|(_, record)| record).chain([&mut self.others]) {
            record.mesh = None;
            (record.firsts, record.delivered, record.before) = (0, 0, 0);
        }
        self.topics.retain(|_, record| record.is_bad());
        self.application = self.application.min(0);
        let cost = |topic: &Topic, record: &TopicRecord| record.debt + record.invalid(config.topic(topic));
        while self.topics.len() > KEPT_TOPICS {
            let mildest = self.topics.iter().min_by_key(|(topic, record)| cost(topic, record));
            let Some((topic, points)) = mildest.map(|(topic, record)| (topic.clone(), cost(topic, record))) else {
                break;
            };
            self.topics.remove(&topic);
            self.elsewhere = self.elsewhere.saturating_add(points).min(MAX_PART);
        }
        self.standing = self.breakdown(now.running(), |_| 0, 0, None, config).score;
    }

    /// How much there is to remember: what it cost, and what may cost more than it does yet.
    pub(super) fn badness(&self) -> i64 {
        let topics = self.topics.values().chain([&self.others]).map(|record| record.invalid).sum::<i64>();
        (-self.standing).max(0).saturating_add(self.behaviour).saturating_add(self.slow).saturating_add(topics)
    }

    #[cfg(test)]
    pub(super) fn topics(&self) -> usize {
        self.topics.len()
    }
}
