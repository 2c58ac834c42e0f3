//! What peers gain and lose by what they do, and from which score on what is kept from them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::Topic;

/// One point. All rewards, costs and scores are in thousandths of a point.
pub const POINT: i64 = 1_000;

/// The largest reward, cost or cap that may be configured, in thousandths: sums and squares stay far from the end of
/// 64 bits.
pub const MAX_VALUE: i64 = 1_000_000 * POINT;

/// So many invalid messages graylist a peer, whatever it has done well.
const SURELY: i64 = 5;

/// How peers are scored. Rewards are added to a score and costs taken from it; both are thousandths of a point and not
/// negative. A counter's decay is the time after which a hundredth of it is left.
///
/// The numbers of [`recommended`](ScoreConfig::recommended) fit topics of any rate, from a message an hour to a
/// thousand a second, as long as nothing is known of them. Credit is small (40 points or so) beside what wrong-doing
/// costs, which grows with its square, so that nobody can save up for an attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreConfig {
    /// The step of all decay. Recommended: 1 s, gossipsub's `DecayInterval` and heartbeat.
    pub interval: Duration,
    /// How topics count that are not named in [`topics`](ScoreConfig::topics).
    pub topic: TopicScoring,
    /// How these topics count.
    pub topics: BTreeMap<Topic, TopicScoring>,
    /// Most topics that are counted apart for one peer; the rest are counted together. Recommended: 256, as many as a
    /// node subscribes to.
    pub max_topics: usize,
    /// Most that being in meshes (P1) gives, all topics together. Recommended: 1 point. Ethereum's clients give 10 for
    /// each topic, which is more than the score below which they graft better peers: silent peers that sit in a mesh
    /// are then never replaced.
    pub in_mesh_cap: i64,
    /// Most that all topics together give (P1 and P2). Recommended: 50 points. (Prysm has 32.72,
    /// beside costs that are higher in proportion.)
    pub topic_cap: i64,
    /// Most that the application may give or take (P5). Recommended: 1,000 points, so that it can graylist alone.
    pub application_cap: i64,
    /// Nodes of one host (an IPv4 address, or an IPv6 /64) that cost nothing. Recommended: 2, half of what the server
    /// lets in from one host.
    pub host_threshold: usize,
    /// Nodes of one site (IPv4 /24, IPv6 /48) that cost nothing. Recommended: 4, half of what the server lets in from
    /// one site.
    pub site_threshold: usize,
    /// What each node of a place costs, times the square of how many there are too many (P6). Recommended: 2 points:
    /// as many as the server lets in lose 8 for their host and 32 for their site. That keeps those out of the mesh that
    /// give nothing, and leaves them repair, as a data centre holds honest nodes too.
    pub crowd_cost: i64,
    /// Whether nodes on loopback, link-local and private addresses cost nothing. Recommended: true; nobody comes from
    /// there over the internet.
    pub exempt_local: bool,
    /// What bad behaviour costs, times the square of what is above the threshold (P7). Recommended: 10 points, the
    /// default of rust-libp2p; Prysm has 15.92.
    pub behaviour_cost: i64,
    /// Bad behaviour that costs nothing. Recommended: 6 points, as Ethereum's clients have it: a peer whose queue
    /// overflows for a moment breaks a few promises.
    pub behaviour_threshold: i64,
    /// How fast bad behaviour is forgotten. Recommended: 10 min. (rust-libp2p's default forgets four fifths each second,
    /// and an attacker that waits for two seconds is new.)
    pub behaviour_decay: Duration,
    /// What it costs that a message did not fit a peer's queue. Recommended: 1 point.
    pub slow_cost: i64,
    /// Most that this costs. Recommended: 30 points: a slow reader that gives nothing leaves the mesh, but keeps
    /// repair, and one that delivers as well as others stays.
    pub slow_cap: i64,
    /// How fast it is forgotten. Recommended: 1 min; a full queue is a moment's, not an intention.
    pub slow_decay: Duration,
    /// Nothing is taken from peers below this score. Recommended: −200 points. Four invalid messages are enough for it
    /// at full credit, and three are not without any.
    pub graylist: i64,
    /// Own messages are not sent to peers below this score. Recommended: −100 points.
    pub publish: i64,
    /// Announcements and requests are not exchanged with peers below this score. Recommended: −50 points.
    pub gossip: i64,
    /// Better peers are grafted if a mesh's median score is below this. Recommended: 2 points, which two messages
    /// delivered first within some minutes are worth.
    pub opportunistic_graft: i64,
    /// Nodes that are remembered for what they did wrong after they have left. Recommended: 2,048, at 0.4 KiB each, and
    /// 1.3 KiB if they did wrong on eight topics or more.
    pub retained: usize,
    /// How long. Recommended: 1 h, rust-libp2p's default; Ethereum's clients have 100 epochs, which is 10.7 h, for
    /// identities that cost more than ours.
    pub retain_for: Duration,
}

/// How what a peer does on one topic counts. A topic that matters less has smaller rewards and costs; there is no
/// further weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicScoring {
    /// The time in the mesh that is rewarded at once (P1). Recommended: 36 s.
    pub in_mesh_quantum: Duration,
    /// What it gives. Recommended: 0.01 points: an hour gives the whole point of [`ScoreConfig::in_mesh_cap`].
    /// (rust-libp2p's quantum is a millisecond, and all is had after four seconds.)
    pub in_mesh_reward: i64,
    /// What a message gives that a peer delivered first (P2). Recommended: 1 point.
    pub first_reward: i64,
    /// Most such messages that count at once, in thousandths. Recommended: 40 messages, so 40 points, as Ethereum's
    /// clients.
    pub first_cap: i64,
    /// How fast they are forgotten. Recommended: 10 min: a peer that turns silent has lost half after 90 s.
    pub first_decay: Duration,
    /// What it costs a mesh peer to deliver nothing at all of what a topic carries; less of it costs the square of the
    /// share that is missing (P3). What a peer has lost so stays with it when it leaves the mesh (P3b).
    ///
    /// Recommended: nothing, as in Celestia. Here peers owe each other few copies by design: lazy links only announce,
    /// a message that was heard of elsewhere is not sent again, large ones go round in turns, and a node with a slow
    /// uplink delivers next to nothing first. Silence is met by P2 and by opportunistic grafting instead. A network
    /// that sends everything eagerly may turn it on; what is due is a share of what the topic really carried, so that a
    /// quiet topic owes nothing.
    pub silence_cost: i64,
    /// The share of a topic's messages that a mesh peer should deliver, first or soon after, in thousandths.
    /// Recommended: 50.
    pub silence_share: u32,
    /// Nothing is due before a peer has been in the mesh so long. Recommended: 1 min.
    pub silence_after: Duration,
    /// Nothing is due of a topic that has carried fewer messages since, in thousandths. Recommended: 100 messages.
    pub silence_least: i64,
    /// How fast deliveries, and what is due, are forgotten. Recommended: 2 min.
    pub silence_decay: Duration,
    /// How fast it is forgotten that a peer left the mesh in debt. Recommended: 10 min, ten times gossipsub's back-off
    /// of a prune.
    pub debt_decay: Duration,
    /// What invalid messages cost, times the square of their number (P4). Recommended: 20 points. Relays check before
    /// they send on, so an honest peer sends none.
    pub invalid_cost: i64,
    /// How fast they are forgotten. Recommended: 1 h.
    pub invalid_decay: Duration,
}

/// A configuration that does not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScoreConfigError {
    /// A number of nothing.
    #[error("`{0}` is 0 and must be at least 1")]
    Zero(&'static str),
    /// A reward, cost or cap outside of what can be calculated with.
    #[error("`{what}` is {value} and must be from 0 to {MAX_VALUE}")]
    Range {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// A share above one.
    #[error("silence_share is {0} thousandths, and a share is 1000 at most")]
    Share(u32),
    /// Thresholds in the wrong order.
    #[error("graylist {graylist} < publish {publish} ≤ gossip {gossip} ≤ 0 ≤ opportunistic_graft {graft} must hold")]
    Order {
        /// [`ScoreConfig::graylist`].
        graylist: i64,
        /// [`ScoreConfig::publish`].
        publish: i64,
        /// [`ScoreConfig::gossip`].
        gossip: i64,
        /// [`ScoreConfig::opportunistic_graft`].
        graft: i64,
    },
    /// A threshold that cannot be calculated with.
    #[error("the threshold {0} must be from -{MAX_VALUE} to {MAX_VALUE}")]
    Threshold(i64),
    /// Who does nothing but sit in meshes would never be replaced.
    #[error("in_mesh_cap is {cap} and must be below opportunistic_graft = {graft}, or silent peers are never replaced")]
    Idlers {
        /// [`ScoreConfig::in_mesh_cap`].
        cap: i64,
        /// [`ScoreConfig::opportunistic_graft`].
        graft: i64,
    },
    /// A slow reader would lose repair too, which it needs more than others.
    #[error("slow_cap is {cap} and must be below -gossip = {limit}, or slow readers lose repair too")]
    Slow {
        /// [`ScoreConfig::slow_cap`].
        cap: i64,
        /// What it must be below.
        limit: i64,
    },
    /// Credit would pay for invalid messages.
    #[error("{SURELY}² × invalid_cost = {cost}, and topic_cap - graylist = {needed} are needed")]
    Forgiving {
        /// What so many invalid messages cost.
        cost: i64,
        /// What they must cost.
        needed: i64,
    },
    /// More nodes of one host than of the site it is part of.
    #[error("host_threshold is {host} and must not be above site_threshold = {site}")]
    Places {
        /// [`ScoreConfig::host_threshold`].
        host: usize,
        /// [`ScoreConfig::site_threshold`].
        site: usize,
    },
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

impl TopicScoring {
    /// For a topic of which nothing is known.
    pub fn recommended() -> TopicScoring {
        TopicScoring {
            in_mesh_quantum: Duration::from_secs(36),
            in_mesh_reward: POINT / 100,
            first_reward: POINT,
            first_cap: 40 * POINT,
            first_decay: 10 * MINUTE,
            silence_cost: 0,
            silence_share: 50,
            silence_after: MINUTE,
            silence_least: 100 * POINT,
            silence_decay: 2 * MINUTE,
            debt_decay: 10 * MINUTE,
            invalid_cost: 20 * POINT,
            invalid_decay: HOUR,
        }
    }

    fn validate(&self, topic_cap: i64, graylist: i64) -> Result<(), ScoreConfigError> {
        let durations = [
            ("in_mesh_quantum", self.in_mesh_quantum),
            ("first_decay", self.first_decay),
            ("silence_decay", self.silence_decay),
            ("debt_decay", self.debt_decay),
            ("invalid_decay", self.invalid_decay),
        ];
        not_zero(&durations)?;
        in_range(&[
            ("in_mesh_reward", self.in_mesh_reward),
            ("first_reward", self.first_reward),
            ("first_cap", self.first_cap),
            ("silence_cost", self.silence_cost),
            ("silence_least", self.silence_least),
            ("invalid_cost", self.invalid_cost),
        ])?;
        if self.silence_share > 1_000 {
            return Err(ScoreConfigError::Share(self.silence_share));
        }
        let (cost, needed) = (SURELY * SURELY * self.invalid_cost, topic_cap - graylist);
        if cost < needed {
            return Err(ScoreConfigError::Forgiving { cost, needed });
        }
        Ok(())
    }
}

impl ScoreConfig {
    /// For a node on the internet.
    pub fn recommended() -> ScoreConfig {
        ScoreConfig {
            interval: Duration::from_secs(1),
            topic: TopicScoring::recommended(),
            topics: BTreeMap::new(),
            max_topics: 256,
            in_mesh_cap: POINT,
            topic_cap: 50 * POINT,
            application_cap: 1_000 * POINT,
            host_threshold: 2,
            site_threshold: 4,
            crowd_cost: 2 * POINT,
            exempt_local: true,
            behaviour_cost: 10 * POINT,
            behaviour_threshold: 6 * POINT,
            behaviour_decay: 10 * MINUTE,
            slow_cost: POINT,
            slow_cap: 30 * POINT,
            slow_decay: MINUTE,
            graylist: -200 * POINT,
            publish: -100 * POINT,
            gossip: -50 * POINT,
            opportunistic_graft: 2 * POINT,
            retained: 2_048,
            retain_for: HOUR,
        }
    }

    /// How a topic counts.
    pub fn topic(&self, topic: &Topic) -> &TopicScoring {
        self.topics.get(topic).unwrap_or(&self.topic)
    }

    /// Whether a topic may count so, beside the others.
    ///
    /// # Errors
    /// [`ScoreConfigError`] with the sum that failed.
    pub fn admits(&self, scoring: &TopicScoring) -> Result<(), ScoreConfigError> {
        scoring.validate(self.topic_cap, self.graylist)
    }

    /// Whether the numbers add up.
    ///
    /// # Errors
    /// [`ScoreConfigError`] with the sum that failed.
    pub fn validate(&self) -> Result<(), ScoreConfigError> {
        not_zero(&[
            ("interval", self.interval),
            ("behaviour_decay", self.behaviour_decay),
            ("slow_decay", self.slow_decay),
            ("retain_for", self.retain_for),
        ])?;
        let counts =
            [("max_topics", self.max_topics), ("host_threshold", self.host_threshold), ("retained", self.retained)];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(ScoreConfigError::Zero(what));
        }
        in_range(&[
            ("in_mesh_cap", self.in_mesh_cap),
            ("topic_cap", self.topic_cap),
            ("application_cap", self.application_cap),
            ("crowd_cost", self.crowd_cost),
            ("behaviour_cost", self.behaviour_cost),
            ("behaviour_threshold", self.behaviour_threshold),
            ("slow_cost", self.slow_cost),
            ("slow_cap", self.slow_cap),
        ])?;
        let (graylist, publish, gossip, graft) = (self.graylist, self.publish, self.gossip, self.opportunistic_graft);
        let thresholds = [graylist, publish, gossip, graft];
        if let Some(far) = thresholds.into_iter().find(|threshold| !(-MAX_VALUE..=MAX_VALUE).contains(threshold)) {
            return Err(ScoreConfigError::Threshold(far));
        }
        if !(graylist < publish && publish <= gossip && gossip <= 0 && graft >= 0) {
            return Err(ScoreConfigError::Order { graylist, publish, gossip, graft });
        }
        if self.in_mesh_cap > 0 && self.in_mesh_cap >= graft {
            return Err(ScoreConfigError::Idlers { cap: self.in_mesh_cap, graft });
        }
        if self.slow_cap > 0 && self.slow_cap >= -gossip {
            return Err(ScoreConfigError::Slow { cap: self.slow_cap, limit: -gossip });
        }
        if self.host_threshold > self.site_threshold {
            return Err(ScoreConfigError::Places { host: self.host_threshold, site: self.site_threshold });
        }
        std::iter::once(&self.topic)
            .chain(self.topics.values())
            .try_for_each(|scoring| scoring.validate(self.topic_cap, graylist))
    }
}

fn not_zero(durations: &[(&'static str, Duration)]) -> Result<(), ScoreConfigError> {
    match durations.iter().find(|(_, duration)| duration.is_zero()) {
        Some((what, _)) => Err(ScoreConfigError::Zero(what)),
        None => Ok(()),
    }
}

fn in_range(values: &[(&'static str, i64)]) -> Result<(), ScoreConfigError> {
    match values.iter().find(|(_, value)| !(0..=MAX_VALUE).contains(value)) {
        Some((what, value)) => Err(ScoreConfigError::Range { what, value: *value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recommended_configuration_adds_up() {
        assert_eq!(ScoreConfig::recommended().validate(), Ok(()));
    }

    #[test]
    fn a_bad_value_is_refused_with_the_sum_that_failed() {
        let refused = |change: fn(&mut ScoreConfig)| {
            let mut config = ScoreConfig::recommended();
            change(&mut config);
            config.validate().expect_err("refused").to_string()
        };
        assert_eq!(refused(|c| c.interval = Duration::ZERO), "`interval` is 0 and must be at least 1");
        assert_eq!(refused(|c| c.topic.first_decay = Duration::ZERO), "`first_decay` is 0 and must be at least 1");
        assert_eq!(refused(|c| c.retained = 0), "`retained` is 0 and must be at least 1");
        assert_eq!(refused(|c| c.slow_cost = -1), "`slow_cost` is -1 and must be from 0 to 1000000000");
        assert!(refused(|c| c.topic.invalid_cost = i64::MAX).starts_with("`invalid_cost` is 9223372036854775807"));
        assert!(refused(|c| c.graylist = i64::MIN).starts_with("the threshold -9223372036854775808"));
        assert_eq!(
            refused(|c| c.publish = c.graylist),
            "graylist -200000 < publish -200000 ≤ gossip -50000 ≤ 0 ≤ opportunistic_graft 2000 must hold"
        );
        assert_eq!(
            refused(|c| c.in_mesh_cap = 10 * POINT),
            "in_mesh_cap is 10000 and must be below opportunistic_graft = 2000, or silent peers are never replaced"
        );
        assert_eq!(
            refused(|c| c.slow_cap = 50 * POINT),
            "slow_cap is 50000 and must be below -gossip = 50000, or slow readers lose repair too"
        );
        assert_eq!(
            refused(|c| c.topic.invalid_cost = POINT),
            "5² × invalid_cost = 25000, and topic_cap - graylist = 250000 are needed"
        );
        assert_eq!(refused(|c| c.host_threshold = 5), "host_threshold is 5 and must not be above site_threshold = 4");
        let other = |c: &mut ScoreConfig| {
            let topic = Topic::new("t").expect("short");
            c.topics.insert(topic, TopicScoring { silence_share: 1_001, ..TopicScoring::recommended() });
        };
        assert_eq!(refused(other), "silence_share is 1001 thousandths, and a share is 1000 at most");
    }
}
