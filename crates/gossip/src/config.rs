//! What gossip may use, and what the nodes of a network must agree on.

use std::str::FromStr;
use std::time::Duration;

use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

mod pull;
mod topic;

pub use self::pull::Pull;
pub use self::topic::{TopicConfig, TopicConfigError};

use crate::coded::CodedConfig;
use crate::durable::{DurableConfig, DurableConfigError};
use crate::score::{ScoreConfig, ScoreConfigError};
use crate::wire::{MAX_IDS, MAX_OVERHEAD, MAX_PAYLOAD, MAX_TOPICS};

/// Limits and intervals of a node's gossip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How messages go from node to node.
    pub mode: Mode,
    /// With how many peers the messages of a topic are exchanged.
    pub mesh: MeshConfig,
    /// How peers are judged.
    pub scores: ScoreConfig,
    /// A message of at most so many bytes goes from its publisher to all peers that want its topic, not to the mesh alone,
    /// so that no few of them can keep it from the network (gossipsub's flood publishing).
    pub flood_publish: usize,
    /// Peers that are sent every message at once, outside the meshes. At both ends, or messages go one way only.
    pub direct: Vec<NodeId>,
    /// How long after a message came lazy links are told of it, give or take half of that; at most twice what half of the
    /// peers take there and back.
    pub lazy_after: Duration,
    /// How many of them are told of one message.
    pub lazy_peers: usize,
    /// From this size on, in bytes, peers of the mesh are told at once that a message is here and need not be sent.
    pub dont_want_from: usize,
    /// Peers that are told of messages at each heartbeat.
    pub announce_peers: usize,
    /// Most ids one peer is told at a heartbeat, newest first. The rest follows at later ones.
    pub announce_ids: usize,
    /// A message is announced only after this time, when pushing has most likely brought it already.
    pub announce_after: Duration,
    /// A message is announced for this time, once to each peer. What was lost all the same is for
    /// [pull repair](Config::pull).
    pub announce_for: Duration,
    /// How what was lost without a trace, or missed while away, is fetched.
    pub pull: Pull,
    /// A peer that has not said which topics it wants is asked again this often.
    pub ask_topics: Duration,
    /// How often announcements go out, with ± 10 % of jitter.
    pub heartbeat: Duration,
    /// How long an asked peer has to send what it announced, before the next one is asked.
    pub want_timeout: Duration,
    /// Most messages a peer can owe us: asked for or announced by it, and not here yet.
    pub wants_per_peer: usize,
    /// How often one peer is sent the same message on request.
    pub serves_per_peer: u8,
    /// How long messages are kept to be announced and served.
    ///
    /// # Warning
    /// Nodes of a network should agree: signed messages older than this and [`skew`](Config::skew) are
    /// ignored.
    pub retained: Duration,
    /// How far clocks may differ.
    ///
    /// # Warning
    /// As for [`retained`](Config::retained).
    pub skew: Duration,
    /// Most bytes of kept messages.
    pub cache_bytes: usize,
    /// Most kept messages.
    pub cache_ids: usize,
    /// Most ids remembered as seen; about 110 bytes each.
    pub seen_ids: usize,
    /// Most messages whose signature is being checked, and most that validators have. One peer may use a quarter of
    /// each.
    pub in_flight: usize,
    /// Most bytes of either. One peer may use a quarter.
    pub in_flight_bytes: usize,
    /// Most fingerprints of refused copies remembered.
    pub rejected: usize,
    /// Largest payload, in bytes.
    ///
    /// # Warning
    /// Nodes of a network must agree: who sends a larger one is blamed.
    pub max_payload: usize,
    /// Most topics a node is subscribed to, and most that are noted of a peer.
    ///
    /// # Warning
    /// Nodes of a network must agree: who says more is blamed.
    pub max_topics: usize,
    /// Most ids a peer may announce, and most it may ask for, in one heartbeat.
    ///
    /// # Warning
    /// At least four times any other node's [`announce_ids`](Config::announce_ids) and twice its
    /// [`wants_per_peer`](Config::wants_per_peer): two of its heartbeats fall into one of ours now and then.
    pub quota_ids: usize,
    /// What a publisher is told to wait while the node's own lanes are over half full.
    pub retry_after: Duration,
    /// Where signatures are checked, and shards made.
    pub work: Work,
    /// Coded broadcast of large messages.
    pub coded: CodedConfig,
    /// Durable topics.
    pub durable: DurableConfig,
}

/// What can be changed while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// [`Config::quota_ids`].
    pub quota_ids: usize,
    /// [`CodedConfig::publisher_bytes`].
    pub publisher_bytes: usize,
    /// [`CodedConfig::quota_period`].
    pub quota_period: Duration,
}

impl Limits {
    /// What a configuration says.
    pub const fn of(config: &Config) -> Limits {
        Limits {
            quota_ids: config.quota_ids,
            publisher_bytes: config.coded.publisher_bytes,
            quota_period: config.coded.quota_period,
        }
    }

    /// Says it in a configuration, which is to be validated.
    pub const fn apply(self, config: &mut Config) {
        config.quota_ids = self.quota_ids;
        (config.coded.publisher_bytes, config.coded.quota_period) = (self.publisher_bytes, self.quota_period);
    }
}

/// How messages go from node to node. The others are there to be compared with; nodes of different modes understand each
/// other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Links of the mesh are eager or lazy by what each has been good for, and half of them are to near peers.
    #[default]
    Peerage,
    /// As gossipsub v1.2: every link of a random mesh is eager.
    Gossipsub,
    /// As Plumtree: a link is lazy from the first copy on that was not new, and eager again when a message had to be
    /// asked for. One tree for all publishers.
    Plumtree,
}

impl Mode {
    /// Its name in configurations.
    pub const fn label(self) -> &'static str {
        match self {
            Mode::Peerage => "peerage",
            Mode::Gossipsub => "gossipsub",
            Mode::Plumtree => "plumtree",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Mode, String> {
        let modes = [Mode::Peerage, Mode::Gossipsub, Mode::Plumtree];
        modes.into_iter().find(|mode| mode.label() == word).ok_or_else(|| {
            format!(
                "`{word}` is no mode of gossip; there are {}",
                modes.map(|mode| format!("`{}`", mode.label())).join(", ")
            )
        })
    }
}

/// The degrees of meshes, and how long peers that left one rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshConfig {
    /// Peers that a mesh should have (D).
    pub degree: usize,
    /// With fewer it is filled up (Dlo).
    pub low: usize,
    /// With more it is cut down (Dhi), and nobody is taken in but those that this node dialled.
    pub high: usize,
    /// Peers in it that this node dialled itself, at least, if there are so many (Dout). Fewer than `low`, and half of
    /// `degree` at most.
    pub outbound: usize,
    /// The best scored that stay when it is cut down (Dscore).
    pub scored: usize,
    /// How many of it are to be the nearest that there are; not gossipsub's.
    pub near: usize,
    /// How long two nodes leave each other alone after one pruned the other, in whole seconds. More than a score needs
    /// to recover, and the same at all nodes.
    pub rest: Duration,
    /// The same, where the reason was that a node left the topic.
    pub rest_after_leaving: Duration,
    /// A graft that comes earlier than this after the prune counts twice.
    pub graft_flood: Duration,
}

impl MeshConfig {
    /// More than twice as many links as gossipsub has: with eager and lazy ones a link costs little, and of more links
    /// better ones can be eager. In the world of 1,000 nodes messages come as soon as by gossipsub's 8, and with 16 up to 2 %
    /// later.
    pub const fn recommended() -> MeshConfig {
        MeshConfig { degree: 18, low: 13, high: 27, outbound: 4, scored: 4, near: 9, ..MeshConfig::gossipsub() }
    }

    /// Gossipsub's.
    pub const fn gossipsub() -> MeshConfig {
        MeshConfig {
            degree: 8,
            low: 6,
            high: 12,
            outbound: 2,
            scored: 4,
            near: 0,
            rest: Duration::from_secs(60),
            rest_after_leaving: Duration::from_secs(10),
            graft_flood: Duration::from_secs(10),
        }
    }

    /// Whether the degrees add up.
    fn validate(&self) -> Result<(), ConfigError> {
        let MeshConfig { degree, low, high, outbound, near, .. } = *self;
        if outbound >= low || low > degree || degree > high || 2 * outbound > degree || 2 * near > degree {
            return Err(ConfigError::Mesh { outbound, low, degree, high, near });
        }
        Ok(())
    }
}

/// Where signatures are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// On tokio's blocking threads, at most `threads` at once, and always fewer than the machine has processors: one is
    /// left for all else, if there are two.
    Pool {
        /// Threads used at once.
        threads: usize,
    },
    /// In the actor itself: under virtual time, where nothing may run on other threads.
    Inline,
}

impl Work {
    /// Threads on this machine; 0 for none but the actor's.
    #[cfg(feature = "actor")]
    pub(crate) fn threads(self) -> usize {
        let most = std::thread::available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1));
        match self {
            Work::Pool { threads } => threads.min(most).max(1),
            Work::Inline => 0,
        }
    }
}

/// A configuration that does not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit of nothing.
    #[error("`{0}` is 0 and must be at least 1")]
    Zero(&'static str),
    /// A payload limit beyond the protocol's.
    #[error("max_payload is {0} bytes, and at most {MAX_PAYLOAD} are possible")]
    Payload(usize),
    /// More topics than a snapshot can say.
    #[error("max_topics is {0}, and at most {MAX_TOPICS} are possible")]
    Topics(usize),
    /// A bound in bytes that the largest message does not fit.
    #[error("{what} is {bytes} bytes, and {share} × (max_payload + {MAX_OVERHEAD}) = {needed} are needed")]
    Room {
        /// The setting.
        what: &'static str,
        /// Its value.
        bytes: usize,
        /// How many largest messages must fit.
        share: usize,
        /// Their bytes.
        needed: usize,
    },
    /// No room for all the shards of one message.
    #[error("coded.bytes is {bytes}, and 3 × max_payload = {needed} are needed")]
    Coded {
        /// The setting.
        bytes: usize,
        /// What is needed.
        needed: usize,
    },
    /// A quota that honest peers would break.
    #[error("quota_ids is {quota}, and {times} × {what} = {needed} are needed")]
    Quota {
        /// The setting.
        quota: usize,
        /// How many times…
        times: usize,
        /// …which other setting…
        what: &'static str,
        /// …is needed.
        needed: usize,
    },
    /// More kept messages than are remembered as seen.
    #[error("seen_ids is {seen}, and at least cache_ids = {kept} are needed")]
    Seen {
        /// Ids remembered.
        seen: usize,
        /// Messages kept.
        kept: usize,
    },
    /// Durable topics that do not add up.
    #[error(transparent)]
    Durable(#[from] DurableConfigError),
    /// Scores that do not add up.
    #[error("scores: {0}")]
    Scores(#[from] ScoreConfigError),
    /// Degrees of a mesh that cannot be.
    #[error(
        "mesh: outbound {outbound} < low {low} <= degree {degree} <= high {high} must hold, with outbound and near ({near}) at \
         most half of degree"
    )]
    Mesh {
        /// Fewest dialled ones.
        outbound: usize,
        /// Fewest.
        low: usize,
        /// Wished.
        degree: usize,
        /// Most.
        high: usize,
        /// Nearest ones.
        near: usize,
    },
    /// A slow pace that is faster than the fast one.
    #[error("pull.slow is {slow:?} and must be at least pull.fast = {fast:?}")]
    Pull {
        /// [`Pull::slow`].
        slow: Duration,
        /// [`Pull::fast`].
        fast: Duration,
    },
    /// More ids than an announcement can carry.
    #[error("announce_ids is {0}, and at most {MAX_IDS} are possible")]
    Ids(usize),
}

const MIB: usize = 1024 * 1024;

impl Config {
    /// For a node on the internet.
    pub fn recommended() -> Config {
        Config {
            mode: Mode::Peerage,
            mesh: MeshConfig::recommended(),
            scores: ScoreConfig::recommended(),
            flood_publish: 16 * 1024,
            direct: Vec::new(),
            lazy_after: Duration::from_millis(100),
            lazy_peers: 3,
            dont_want_from: 16 * 1024,
            announce_peers: 2,
            announce_ids: 1_000,
            announce_after: Duration::from_millis(200),
            announce_for: Duration::from_secs(10),
            pull: Pull::recommended(),
            ask_topics: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
            want_timeout: Duration::from_secs(2),
            wants_per_peer: 2_500,
            serves_per_peer: 3,
            retained: Duration::from_secs(120),
            skew: Duration::from_secs(120),
            cache_bytes: 64 * MIB,
            cache_ids: 65_536,
            seen_ids: 262_144,
            in_flight: 4_096,
            in_flight_bytes: 64 * MIB,
            rejected: 4_096,
            max_payload: 4 * MIB,
            max_topics: 256,
            quota_ids: 5_000,
            retry_after: Duration::from_millis(250),
            work: Work::Pool { threads: 2 },
            coded: CodedConfig::recommended(),
            durable: DurableConfig::recommended(),
        }
    }

    /// As gossipsub v1.2 in Ethereum's consensus layer, with this crate's limits: to compare with.
    pub fn gossipsub() -> Config {
        Config {
            mode: Mode::Gossipsub,
            mesh: MeshConfig::gossipsub(),
            announce_peers: 6,
            announce_for: Duration::from_secs(3),
            dont_want_from: 1_000,
            coded: CodedConfig { enabled: false, ..CodedConfig::recommended() },
            ..Config::recommended()
        }
    }

    /// As Plumtree, with this crate's limits: to compare with.
    pub fn plumtree() -> Config {
        Config {
            mode: Mode::Plumtree,
            mesh: MeshConfig::gossipsub(),
            announce_peers: 1,
            lazy_peers: 12,
            coded: CodedConfig { enabled: false, ..CodedConfig::recommended() },
            ..Config::recommended()
        }
    }

    /// For nodes on one machine: as recommended.
    pub fn local() -> Config {
        Config::recommended()
    }

    /// Small limits, and checks inline, for tests.
    pub fn test() -> Config {
        Config {
            mesh: MeshConfig { near: 4, ..MeshConfig::gossipsub() },
            cache_bytes: MIB,
            cache_ids: 2_000,
            seen_ids: 10_000,
            in_flight: 64,
            in_flight_bytes: MIB,
            rejected: 64,
            max_payload: 64 * 1024,
            max_topics: 8,
            work: Work::Inline,
            ..Config::recommended()
        }
    }

    /// How long an id is remembered: a message from a clock that is ahead by the skew may come again until
    /// the window has passed by a clock that is behind by it.
    pub fn seen_for(&self) -> Duration {
        self.retained + 2 * self.skew
    }

    /// Whether the limits add up.
    ///
    /// # Errors
    /// [`ConfigError`] with the sum that failed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("mesh.low", self.mesh.low),
            ("lazy_peers", self.lazy_peers),
            ("announce_peers", self.announce_peers),
            ("announce_ids", self.announce_ids),
            ("wants_per_peer", self.wants_per_peer),
            ("cache_ids", self.cache_ids),
            ("seen_ids", self.seen_ids),
            ("in_flight / 4", self.in_flight / 4),
            ("rejected", self.rejected),
            ("max_topics", self.max_topics),
            ("coded.copies", self.coded.copies),
            ("coded.window", self.coded.window),
            ("coded.first_copies", self.coded.first_copies),
            ("coded.sessions", self.coded.sessions),
            ("coded.spare", self.coded.spare as usize),
            ("heartbeat (ms)", usize::try_from(self.heartbeat.as_millis()).unwrap_or(usize::MAX)),
            ("want_timeout (ms)", usize::try_from(self.want_timeout.as_millis()).unwrap_or(usize::MAX)),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(ConfigError::Zero(name));
        }
        self.pull.validate()?;
        if let Work::Pool { threads: 0 } = self.work {
            return Err(ConfigError::Zero("work.threads"));
        }
        if self.max_payload > MAX_PAYLOAD {
            return Err(ConfigError::Payload(self.max_payload));
        }
        if self.max_topics > MAX_TOPICS {
            return Err(ConfigError::Topics(self.max_topics));
        }
        self.scores.validate()?;
        self.durable.validate(self.max_payload)?;
        self.mesh.validate()?;
        let largest = self.max_payload + MAX_OVERHEAD;
        for (what, bytes, share) in [("cache_bytes", self.cache_bytes, 1), ("in_flight_bytes", self.in_flight_bytes, 4)]
        {
            let needed = share * largest;
            if bytes < needed {
                return Err(ConfigError::Room { what, bytes, share, needed });
            }
        }
        let (needed, bytes) = (3 * self.max_payload, self.coded.bytes);
        if bytes < needed {
            return Err(ConfigError::Coded { bytes, needed });
        }
        if self.seen_ids < self.cache_ids {
            // A kept message that is no longer known as seen would be taken for a new one.
            return Err(ConfigError::Seen { seen: self.seen_ids, kept: self.cache_ids });
        }
        if self.announce_ids > MAX_IDS {
            return Err(ConfigError::Ids(self.announce_ids));
        }
        let quotas = [(4, "announce_ids", self.announce_ids), (2, "wants_per_peer", self.wants_per_peer)];
        for (times, what, value) in quotas {
            let needed = times * value;
            if self.quota_ids < needed {
                return Err(ConfigError::Quota { quota: self.quota_ids, times, what, needed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_configurations_add_up() {
        for config in [Config::recommended(), Config::gossipsub(), Config::plumtree(), Config::local(), Config::test()]
        {
            assert_eq!(config.validate(), Ok(()));
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_the_sum_that_failed() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::recommended();
            change(&mut config);
            config.validate().expect_err("refused").to_string()
        };
        assert_eq!(refused(|c| c.lazy_peers = 0), "`lazy_peers` is 0 and must be at least 1");
        assert!(refused(|c| c.mesh.outbound = 13).starts_with("mesh: outbound 13 < low 13"));
        assert_eq!(refused(|c| c.quota_ids = 10), "quota_ids is 10, and 4 × announce_ids = 4000 are needed");
        assert!(refused(|c| c.max_payload = MAX_PAYLOAD + 1).contains("at most 16777216"));
        assert!(refused(|c| c.max_payload = MAX_PAYLOAD).contains("in_flight_bytes is 67108864"));
        assert!(refused(|c| c.max_topics = 5_000).contains("at most 1024"));
    }
}
